//! `restow prune`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use jiff::{Span, SpanRelativeTo};
use restow::error::Error;
use restow::id::ObjectName;
use restow::prune::{PruneOptions, PruneReport, Unused, run as prune};
use restow::repository::Repository;
use restow::store::StoreError;

use crate::cli::{Global, interrupt, output};

/// Remove what no snapshot needs; backups may run meanwhile
#[derive(Args)]
pub struct PruneArgs {
    #[command(flatten)]
    how: HowArgs,
    /// Say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Go on though there is no snapshot, so that everything is garbage
    #[arg(long)]
    allow_empty: bool,
}

/// How to prune.
#[derive(Args)]
pub struct HowArgs {
    /// How much garbage may stay in packs that are partly needed: a size, a part of what is needed
    /// such as 5%, or `unlimited`
    #[arg(long, value_name = "SIZE|PERCENT", default_value = "1%", value_parser = parse_unused)]
    #[arg(help_heading = "Prune")]
    max_unused: Unused,
    /// Write no more than so many bytes anew
    #[arg(long, value_name = "SIZE", value_parser = output::parse_size, help_heading = "Prune")]
    max_repack_size: Option<u64>,
    /// Join small packs
    #[arg(long, help_heading = "Prune")]
    repack_small: bool,
    /// How long packs wait between being condemned and deleted, such as 24h, 7d, 90m or 0; shorter makes
    /// backups that run now more likely to have to be run again, never unsafe
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_time)]
    #[arg(help_heading = "Prune")]
    grace: Duration,
    /// Write nothing anew after so long; the next prune goes on
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "Prune")]
    time_limit: Option<Duration>,
    /// Forget the snapshots whose manifests a repair could not read
    #[arg(long, help_heading = "Prune")]
    forget_unread: bool,
}

impl HowArgs {
    fn options(
        &self,
        dry_run: bool,
        allow_empty: bool,
        ignored: BTreeSet<ObjectName>,
    ) -> PruneOptions {
        PruneOptions {
            dry_run,
            max_unused: self.max_unused,
            max_repack_bytes: self.max_repack_size,
            repack_small: self.repack_small,
            grace: self.grace,
            time_limit: self.time_limit,
            allow_empty,
            forget_unread: self.forget_unread,
            ignored,
        }
    }

    /// Prunes and prints what was done.
    pub fn run(
        &self,
        global: &Global,
        repository: &Repository,
        dry_run: bool,
        allow_empty: bool,
        ignored: BTreeSet<ObjectName>,
    ) -> Result<u8> {
        let progress = interrupt::progress();
        let options = self.options(dry_run, allow_empty, ignored);
        let report = prune(repository, &options, &progress).map_err(|error| match error {
            Error::Store(source @ StoreError::Full { .. }) => Error::NoRoomToPrune { source },
            other => other,
        })?;
        print(global, &report, dry_run)?;
        Ok(u8::from(!report.problems.is_empty()))
    }
}

/// Prunes.
pub fn run(global: &Global, args: PruneArgs) -> Result<u8> {
    let repository = if args.dry_run { global.open_to_rehearse()? } else { global.open()? };
    args.how.run(global, &repository, args.dry_run, args.allow_empty, BTreeSet::new())
}

fn print(global: &Global, report: &PruneReport, dry_run: bool) -> Result<()> {
    for problem in &report.problems {
        eprintln!("restow: {}: {}", problem.object, problem.detail);
    }
    if global.json {
        let mut value = serde_json::to_value(report)?;
        value["message_type"] = "summary".into();
        value["dry_run"] = dry_run.into();
        return Ok(output::json(&value)?);
    }
    if global.quiet {
        return Ok(());
    }
    let bytes = output::bytes;
    output::line(format!(
        "kept {} packs ({}, of it {} unused)",
        report.kept_packs,
        bytes(report.kept_bytes),
        bytes(report.kept_unused_bytes)
    ))?;
    let verb = if dry_run { "would write" } else { "wrote" };
    output::line(format!(
        "{verb} {} packs anew ({} of them needed)",
        report.repacked_packs,
        bytes(report.repacked_bytes)
    ))?;
    if report.collapsed_chunks > 0 {
        output::line(format!(
            "{} {} chunks whole ({}), so that {} more of old chunks {} needed",
            if dry_run { "would store" } else { "stored" },
            report.collapsed_chunks,
            bytes(report.collapsed_bytes),
            bytes(report.collapsed_bytes + report.collapsed_gain),
            if dry_run { "would not be" } else { "are not" },
        ))?;
    }
    output::line(format!(
        "found {} packs without use and {} objects that nothing refers to; {} can be freed",
        report.unused_packs,
        report.orphans,
        bytes(report.unused_bytes)
    ))?;
    print_deleted(report, dry_run)?;
    if report.renewed_snapshots > 0 {
        output::line(format!(
            "wrote the manifests of {} snapshots anew: their ids changed",
            report.renewed_snapshots
        ))?;
    }
    for epoch in &report.destroyed_epochs {
        output::line(format!("destroyed the keys of epoch {epoch}"))?;
    }
    if report.is_cut_short {
        output::line("the time limit came before the end; the next prune goes on")?;
    }
    Ok(())
}

fn print_deleted(report: &PruneReport, dry_run: bool) -> Result<()> {
    let bytes = output::bytes;
    if dry_run {
        let plan = &report.plan;
        output::line(format!(
            "would read {} and write {} with about {} requests, so that {} are free in the end",
            bytes(plan.read_bytes),
            bytes(plan.written_bytes),
            plan.requests,
            bytes(plan.freed_bytes)
        ))?;
    }
    let (verb, would) = if dry_run { ("would delete", "would ") } else { ("deleted", "") };
    output::line(format!(
        "{verb} {} objects ({}), {} {would}wait for the end of their grace",
        report.deleted,
        bytes(report.deleted_bytes),
        report.condemned
    ))?;
    Ok(())
}

fn parse_unused(text: &str) -> Result<Unused, Error> {
    if text == "unlimited" {
        return Ok(Unused::Unlimited);
    }
    let Some(percent) = text.strip_suffix('%') else {
        return output::parse_size(text).map(Unused::Bytes).map_err(|error| {
            Error::Usage(format!("neither a size, a percentage nor 'unlimited': {error}"))
        });
    };
    match percent.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Unused::Share(percent / 100.0)),
        _ => Err(Error::Usage(format!("'{text}' is no percentage from 0% to 100%"))),
    }
}

fn parse_time(text: &str) -> Result<Duration, Error> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let span = text.parse::<Span>().ok();
    // A day is 24 hours here, a week seven of them; months and years are none of these.
    let time = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    time.and_then(|time| Duration::try_from(time).ok()).ok_or_else(|| {
        Error::Usage(format!("'{text}' is no length of time such as 24h, 7d, 90m or 0"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_weeks_days_hours_and_less() {
        let hours = |text: &str| parse_time(text).unwrap().as_secs_f64() / 3600.0;
        for (text, expected) in
            [("0", 0.0), ("0s", 0.0), ("90m", 1.5), ("24h", 24.0), ("7d", 168.0), ("2w", 336.0)]
        {
            assert_eq!(hours(text), expected, "{text}");
        }
        assert_eq!(hours("1d12h"), 36.0);
        for text in ["", "x", "5", "-1h", "1y", "2mo"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
