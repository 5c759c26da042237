//! `restow forget`.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::Args;
use jiff::tz::TimeZone;
use restow::error::Error;
use restow::forget::{GroupVerdict, forget, plan, would_forget};
use restow::id::ObjectName;
use restow::repository::Repository;
use restow::repository::snapshots::{Filter, NamedSnapshot};
use restow::retention::group::GroupBy;
use restow::retention::span::Length;
use restow::retention::{Count, FUTURE, Policy};
use restow::settings::RetentionConfig;
use restow::tag::hold;

use super::prune::HowArgs;
use super::{FilterArgs, split_tags};
use crate::cli::{Global, output};

/// Forget snapshots by id or by a policy; prune frees their space
///
/// Without ids, a policy decides about the snapshots of each group: whatever one of its rules keeps
/// is kept; where none is given, that of [retention] in the configuration file. Days, weeks, months and
/// years are those of --time-zone.
#[derive(Args)]
pub struct ForgetArgs {
    /// Snapshots to forget, to hold or to release
    snapshots: Vec<String>,
    #[command(flatten)]
    keep: KeepArgs,
    /// What a group has in common: host, paths, tags, separated by commas; empty for one group
    #[arg(long, value_name = "WORDS", default_value = "host,paths")]
    group_by: GroupBy,
    /// Time zone of days and hours, such as Europe/Berlin [default: the system's]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Forget even the last snapshot of a host's paths
    #[arg(long)]
    allow_empty: bool,
    /// Hold the snapshots: they cannot be forgotten until released
    #[arg(long, conflicts_with = "release")]
    hold: bool,
    /// Release the snapshots
    #[arg(long)]
    release: bool,
    /// Say what would be forgotten, and why the others are kept
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Prune afterwards
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Args)]
#[command(next_help_heading = "Policy")]
struct KeepArgs {
    /// Keep the newest N (or `all`, or -1)
    #[arg(short = 'l', long, value_name = "N", allow_negative_numbers = true)]
    keep_last: Option<Count>,
    /// Keep the newest of each of the last N hours that have one
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    keep_hourly: Option<Count>,
    /// The same for days
    #[arg(short = 'd', long, value_name = "N", allow_negative_numbers = true)]
    keep_daily: Option<Count>,
    /// The same for weeks, which begin on Monday
    #[arg(short = 'w', long, value_name = "N", allow_negative_numbers = true)]
    keep_weekly: Option<Count>,
    /// The same for months
    #[arg(short = 'm', long, value_name = "N", allow_negative_numbers = true)]
    keep_monthly: Option<Count>,
    /// The same for years
    #[arg(short = 'y', long, value_name = "N", allow_negative_numbers = true)]
    keep_yearly: Option<Count>,
    /// Keep all that are not older than this before the newest, such as 14d or 2y5m7d3h
    #[arg(long, value_name = "LENGTH")]
    keep_within: Option<Length>,
    /// Keep the newest of each hour so far back
    #[arg(long, value_name = "LENGTH")]
    keep_within_hourly: Option<Length>,
    /// The same for days
    #[arg(long, value_name = "LENGTH")]
    keep_within_daily: Option<Length>,
    /// The same for weeks
    #[arg(long, value_name = "LENGTH")]
    keep_within_weekly: Option<Length>,
    /// The same for months
    #[arg(long, value_name = "LENGTH")]
    keep_within_monthly: Option<Length>,
    /// The same for years
    #[arg(long, value_name = "LENGTH")]
    keep_within_yearly: Option<Length>,
    /// Keep those with all of these tags, separated by commas (several times: any of them); '' for
    /// those without tags
    #[arg(long, value_name = "TAG[,TAG…]")]
    keep_tag: Vec<String>,
    /// Keep this snapshot (several times)
    #[arg(long, value_name = "ID")]
    keep_id: Vec<String>,
}

impl KeepArgs {
    fn policy(&self, repository: &Repository, allow_empty: bool) -> Result<Policy> {
        let count = |count: &Option<Count>| count.unwrap_or_default();
        let find = |id: &String| repository.find_snapshot(id, &Filter::default());
        let ids = self.keep_id.iter().map(|id| find(id).map(|named| named.name));
        Ok(Policy {
            last: count(&self.keep_last),
            periods: [
                &self.keep_hourly,
                &self.keep_daily,
                &self.keep_weekly,
                &self.keep_monthly,
                &self.keep_yearly,
            ]
            .map(count),
            within: self.keep_within.clone(),
            periods_within: [
                &self.keep_within_hourly,
                &self.keep_within_daily,
                &self.keep_within_weekly,
                &self.keep_within_monthly,
                &self.keep_within_yearly,
            ]
            .map(Clone::clone),
            tags: self.keep_tag.iter().map(|list| split_tags(list)).collect(),
            ids: ids.collect::<Result<_, _>>()?,
            allow_empty,
        })
    }
}

/// Forgets, holds or releases.
pub fn run(global: &Global, args: ForgetArgs) -> Result<u8> {
    let repository = if args.dry_run { global.open_to_rehearse()? } else { global.open()? };
    let filter = args.filter.filter();
    let find = |wanted: &String| repository.find_snapshot(wanted, &filter);
    let named: Vec<NamedSnapshot> =
        args.snapshots.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    if args.hold || args.release {
        if args.prune || !args.keep.policy(&repository, false)?.is_empty() {
            let text = "--hold and --release go without a policy and without --prune";
            return Err(Error::Usage(text.into()).into());
        }
        return change_hold(global, &args, &repository, &named);
    }
    let mut policy = args.keep.policy(&repository, args.allow_empty)?;
    if policy.is_empty() && named.is_empty() {
        let settings = global.settings()?;
        if let Some(kept) = settings.and_then(|settings| settings.retention) {
            policy = configured(&kept, args.allow_empty)?;
        }
    }
    let names: BTreeSet<ObjectName> = if !named.is_empty() {
        if !policy.is_empty() {
            let text = "ids and a policy do not go together: forget one or the other";
            return Err(Error::Usage(text.into()).into());
        }
        named.iter().map(|named| named.name).collect()
    } else if policy.is_empty() {
        let text = "nothing says what to keep: name snapshots, give a policy such as --keep-daily 7, or \
                    write [retention] in the configuration file";
        return Err(Error::Usage(text.into()).into());
    } else {
        let zone = zone(&args)?;
        let groups = plan(&repository, &filter, args.group_by, &policy, &zone)?;
        warn_of_future(&groups);
        print_plan(global, &groups, &zone)?;
        let verdicts = groups.iter().flat_map(|group| &group.verdicts);
        verdicts.filter(|verdict| !verdict.is_kept()).map(|verdict| verdict.name).collect()
    };
    let forgotten: Vec<ObjectName> = if args.dry_run {
        would_forget(&repository, &names, args.allow_empty)?
    } else {
        forget(&repository, &names, args.allow_empty)?
    };
    print_forgotten(global, &args, &forgotten)?;
    if args.prune {
        let ignored = if args.dry_run { names } else { BTreeSet::new() };
        return args.how.run(global, &repository, args.dry_run, args.allow_empty, ignored);
    }
    Ok(0)
}

/// The policy of the configuration file.
pub fn configured(kept: &RetentionConfig, allow_empty: bool) -> Result<Policy> {
    let count = |count: Option<u32>| count.filter(|it| *it > 0).map_or(Count::None, Count::Some);
    Ok(Policy {
        last: count(kept.keep_last),
        periods: [
            kept.keep_hourly,
            kept.keep_daily,
            kept.keep_weekly,
            kept.keep_monthly,
            kept.keep_yearly,
        ]
        .map(count),
        within: kept.keep_within.as_deref().map(str::parse).transpose()?,
        tags: kept.keep_tag.iter().map(|list| split_tags(list)).collect(),
        allow_empty,
        ..Policy::default()
    })
}

fn zone(args: &ForgetArgs) -> Result<TimeZone> {
    match &args.time_zone {
        None => Ok(TimeZone::system()),
        Some(name) => Ok(TimeZone::get(name).map_err(|error| Error::Usage(error.to_string()))?),
    }
}

fn change_hold(
    global: &Global,
    args: &ForgetArgs,
    repository: &Repository,
    named: &[NamedSnapshot],
) -> Result<u8> {
    if named.is_empty() {
        return Err(Error::Usage("name the snapshots to hold or to release".into()).into());
    }
    if args.dry_run {
        return Err(Error::Usage("--hold and --release have no --dry-run".into()).into());
    }
    for (old, new) in hold(repository, named, args.hold)? {
        if global.json {
            output::json(&serde_json::json!({"message_type": "changed", "old": old, "new": new}))?;
        } else if !global.quiet {
            output::line(format!("{} is now {}", old.short(), new.short()))?;
        }
    }
    Ok(0)
}

fn warn_of_future(groups: &[GroupVerdict]) {
    let is_future = |reason: &String| reason == FUTURE;
    let verdicts = groups.iter().flat_map(|group| &group.verdicts);
    let count = verdicts.filter(|verdict| verdict.reasons.iter().any(is_future)).count();
    if count > 0 {
        eprintln!(
            "warning: {count} snapshots are dated in the future: they are kept and do not count; \
             is the clock right?"
        );
    }
}

fn print_plan(global: &Global, groups: &[GroupVerdict], zone: &TimeZone) -> Result<()> {
    if global.quiet && !global.json {
        return Ok(());
    }
    for group in groups {
        if global.json {
            for verdict in &group.verdicts {
                output::json(&serde_json::json!({
                    "message_type": "verdict", "id": verdict.name, "time": verdict.time,
                    "group": group.key, "keep": verdict.is_kept(), "reasons": verdict.reasons,
                }))?;
            }
            continue;
        }
        let key = &group.key;
        let sealed = if key.sealed { "by write-only keys" } else { "" }.to_owned();
        let parts = [key.host.clone(), key.paths.join(" "), key.tags.join(","), sealed];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        output::line(if parts.is_empty() { "all snapshots".to_owned() } else { parts.join(", ") })?;
        let mut rows = vec![["", "id", "time", "reasons"].map(str::to_owned).to_vec()];
        for verdict in &group.verdicts {
            let time = verdict.time.to_zoned(zone.clone());
            rows.push(vec![
                if verdict.is_kept() { "keep" } else { "forget" }.to_owned(),
                verdict.name.short(),
                time.strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
                verdict.reasons.join(", "),
            ]);
        }
        output::table(&rows)?;
    }
    Ok(())
}

fn print_forgotten(global: &Global, args: &ForgetArgs, names: &[ObjectName]) -> Result<()> {
    if global.json {
        output::json(&serde_json::json!({
            "message_type": "forgotten", "ids": names, "dry_run": args.dry_run,
        }))?;
    } else if !global.quiet {
        let verb = if args.dry_run { "would forget" } else { "forgot" };
        output::line(format!("{verb} {} snapshots", names.len()))?;
    }
    Ok(())
}
