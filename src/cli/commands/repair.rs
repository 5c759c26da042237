//! `restow repair`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::{Args, Subcommand};
use restow::error::Error;
use restow::id::ObjectName;
use restow::repair::index::{IndexOptions, IndexReport};
use restow::repair::packs::{PacksOptions, PacksReport};
use restow::repair::snapshots::{SnapshotsOptions, SnapshotsReport};
use restow::repair::{Finding, index, packs, parity, snapshots};
use restow::repository::Repository;
use restow::store::Store;
use restow::store::read_only::ReadOnlyStore;

use super::FilterArgs;
use crate::cli::{Global, interrupt, output};

/// Mend what is damaged, as far as anything is left to mend it with
///
/// Start with `check --read-data`, which names the commands to run. Nothing is deleted; with
/// `--dry-run` nothing is written either.
#[derive(Args)]
pub struct RepairArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Make the log, the idx objects and the configuration again, from packs alone if need be
    ///
    /// Takes packs that are gone off the list. Where log entries are lost, every snapshot that still
    /// stands in the repository is live again, but those that what is left of the log calls forgotten.
    Index(IndexArgs),
    /// Save what is good of damaged packs; look for the rest in another repository
    Packs(PacksArgs),
    /// Make snapshots without the streams and files that are lost
    Snapshots(SnapshotsArgs),
    /// Mend packs from their parity, and make parity that is missing or damaged again
    Parity(ParityArgs),
}

#[derive(Args)]
struct IndexArgs {
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Also take in packs and snapshots that the log does not know: of interrupted backups, or of
    /// entries lost at its end
    #[arg(long)]
    all: bool,
    /// Go on though not one pack of those on the list is there
    #[arg(long)]
    allow_empty: bool,
}

#[derive(Args)]
struct PacksArgs {
    /// The packs, by name or path
    #[arg(required_unless_present = "all_damaged")]
    packs: Vec<String>,
    /// Read all packs and repair those that are damaged
    #[arg(long, conflicts_with = "packs")]
    all_damaged: bool,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    from: FromArgs,
}

/// A second repository, and how to open it. Without a secret of its own it gets this one's.
#[derive(Args)]
struct FromArgs {
    /// Look for lost chunks in the snapshots of this repository
    #[arg(long, env = "RESTOW_FROM_REPOSITORY", value_name = "WHERE")]
    from_repo: Option<String>,
    /// Read its password from the first line of this file
    #[arg(long, env = "RESTOW_FROM_PASSWORD_FILE", value_name = "FILE")]
    from_password_file: Option<PathBuf>,
    /// Read its password from the output of this command
    #[arg(long, env = "RESTOW_FROM_PASSWORD_COMMAND", value_name = "COMMAND")]
    from_password_command: Option<String>,
    /// Open it with a key file
    #[arg(long, env = "RESTOW_FROM_KEY_FILE", value_name = "FILE")]
    from_key_file: Option<PathBuf>,
}

#[derive(Args)]
struct SnapshotsArgs {
    /// The snapshots [default: all that pass the filters]
    snapshots: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Forget the damaged snapshots, also those of which nothing is left
    #[arg(long)]
    forget: bool,
}

#[derive(Args)]
struct ParityArgs {
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Repairs.
pub fn run(global: &Global, args: RepairArgs) -> Result<u8> {
    match args.what {
        What::Index(args) => repair_index(global, &args),
        What::Packs(args) => repair_packs(global, args),
        What::Snapshots(args) => repair_snapshots(global, &args),
        What::Parity(args) => mend(global, args.dry_run),
    }
}

fn open(global: &Global, dry_run: bool) -> Result<Repository> {
    if !dry_run {
        // What this machine keeps of packs is not what the repository holds.
        return global.open_owner_uncached();
    }
    let store: Arc<dyn Store> = Arc::new(ReadOnlyStore(global.store()?));
    let secret = global.secret(false)?;
    Ok(global.opened(store, &secret)?)
}

fn json(report: &impl serde::Serialize, what: &str, dry_run: bool) -> Result<()> {
    let mut value = serde_json::to_value(report)?;
    value["message_type"] = what.into();
    value["dry_run"] = dry_run.into();
    Ok(output::json(&value)?)
}

fn print_findings(findings: &[Finding]) -> Result<()> {
    for finding in findings {
        output::line(format!("damaged: {}: {}", finding.object, finding.detail))?;
    }
    Ok(())
}

fn repair_index(global: &Global, args: &IndexArgs) -> Result<u8> {
    let store: Arc<dyn Store> = match args.dry_run {
        true => Arc::new(ReadOnlyStore(global.store()?)),
        false => Arc::new(global.store()?),
    };
    let secret = global.secret(false)?;
    let IndexArgs { dry_run, all, allow_empty } = *args;
    let options = IndexOptions { dry_run, all, allow_empty };
    let environment = global.environment()?;
    let report = index::run(store, &secret, environment, options, &interrupt::progress())?;
    if global.json {
        json(&report, "repaired_index", args.dry_run)?;
    } else if !global.quiet {
        print_index(&report, args.dry_run)?;
    }
    let losses = [
        (report.missing_packs, "packs are missing"),
        (report.unreadable_packs, "packs cannot be listed"),
        (report.lost_snapshots, "snapshots cannot be read"),
    ];
    let losses = losses.into_iter().filter(|(count, _)| *count > 0);
    Ok(tell_losses(losses.map(|(count, what)| format!("{count} {what}"))))
}

/// Says what is lost however quiet it should be; the exit code.
fn tell_losses(losses: impl Iterator<Item = String>) -> u8 {
    let mut code = 0;
    for loss in losses {
        output::warning(loss);
        code = 1;
    }
    code
}

fn print_index(report: &IndexReport, dry_run: bool) -> Result<()> {
    print_findings(&report.findings)?;
    if report.is_rolled_back {
        output::line(
            "the log ends earlier than this machine saw it end: it was rolled back or its end is lost",
        )?;
    }
    if !report.is_needed {
        return Ok(output::line("nothing to repair")?);
    }
    let would = if dry_run { "would keep" } else { "kept" };
    let (kept, listed) = (report.kept_indexes, report.listed_packs);
    output::line(format!(
        "{would} {kept} idx objects, list {listed} packs anew ({} from their own directories), \
         take {} missing packs off the list",
        report.directories_read, report.missing_packs
    ))?;
    if report.unreadable_packs > 0 {
        output::line(format!(
            "{} packs cannot be listed: their directories are damaged",
            report.unreadable_packs
        ))?;
    }
    let (live, lost) = (report.snapshots, report.lost_snapshots);
    output::line(format!("{live} snapshots, {lost} manifests lost"))?;
    for name in &report.found_snapshots {
        output::line(format!("snapshot {} is live again: the log does not know it", name.short()))?;
    }
    if report.config_rebuilt {
        output::line("the configuration is written anew")?;
    }
    if !report.lost_entries.is_empty() {
        output::line(
            "machines that saw the lost log entries refuse the repository until 'restow cache --forget' \
             is run there",
        )?;
    }
    Ok(())
}

fn repair_packs(global: &Global, args: PacksArgs) -> Result<u8> {
    let repository = open(global, args.dry_run)?;
    let from = args.from.open(global)?;
    let names = args.packs.iter().map(|text| pack_name(text)).collect::<Result<_>>()?;
    let options = PacksOptions { dry_run: args.dry_run, packs: names, from: from.as_ref() };
    let progress = interrupt::progress();
    let display = output::Display::start(global, &progress);
    let report = packs::run(&repository, &options, &progress);
    drop(display);
    let report = report?;
    if global.json {
        json(&report, "repaired_packs", args.dry_run)?;
    } else if !global.quiet {
        print_packs(&report, args.dry_run)?;
    }
    Ok(u8::from(report.lost_chunks > report.found_chunks))
}

fn print_packs(report: &PacksReport, dry_run: bool) -> Result<()> {
    print_findings(&report.findings)?;
    for name in &report.mended {
        let verb = if dry_run { "can be mended" } else { "was mended" };
        output::line(format!("pack {name} {verb} from its parity"))?;
    }
    for name in &report.relisted {
        let verb = if dry_run { "would be" } else { "was" };
        output::line(format!(
            "pack {name} {verb} listed anew: its directory is not what the index said"
        ))?;
    }
    output::line(format!("{} packs read", report.packs_read))?;
    if report.replaced.is_empty() {
        return Ok(());
    }
    let (count, chunks) = (report.replaced.len(), report.lost_chunks);
    match dry_run {
        true => {
            output::line(format!("would take {count} packs off the list and save what is good"))?
        }
        false => output::line(format!(
            "took {count} packs off the list, saved {} blobs ({}) of them",
            report.saved_blobs,
            output::bytes(report.saved_bytes)
        ))?,
    }
    output::line(format!("{chunks} chunks are lost, {} found elsewhere", report.found_chunks))?;
    if chunks > report.found_chunks {
        eprintln!("hint: 'restow repair snapshots' makes snapshots without what is lost");
    }
    Ok(())
}

/// A pack by its name or its path.
fn pack_name(text: &str) -> Result<ObjectName> {
    let name = text.rsplit('/').next().unwrap_or(text);
    Ok(ObjectName::from_hex(name).map_err(|error| Error::Usage(error.to_string()))?)
}

impl FromArgs {
    fn open(self, global: &Global) -> Result<Option<Repository>> {
        let Some(repo) = self.from_repo else { return Ok(None) };
        let has_own = self.from_password_file.is_some()
            || self.from_password_command.is_some()
            || self.from_key_file.is_some();
        let (password_file, password_command, key_file) = match has_own {
            true => (self.from_password_file, self.from_password_command, self.from_key_file),
            false => {
                let it = global;
                (it.password_file.clone(), it.password_command.clone(), it.key_file.clone())
            }
        };
        let from = Global {
            repo: Some(repo),
            password_file,
            password_command,
            key_file,
            password_variable: if has_own { "RESTOW_FROM_PASSWORD" } else { "RESTOW_PASSWORD" },
            ..global.clone()
        };
        from.open_read_only().map(Some)
    }
}

fn repair_snapshots(global: &Global, args: &SnapshotsArgs) -> Result<u8> {
    let repository = open(global, args.dry_run)?;
    let filter = args.filter.filter();
    let chosen = if args.snapshots.is_empty() {
        repository.snapshots(&filter)?
    } else {
        let find = |wanted: &String| repository.find_snapshot(wanted, &filter);
        args.snapshots.iter().map(find).collect::<Result<_, _>>()?
    };
    let options = SnapshotsOptions { dry_run: args.dry_run, forget: args.forget };
    let report = snapshots::run(&repository, &chosen, options, &interrupt::progress())?;
    if global.json {
        json(&report, "repaired_snapshots", args.dry_run)?;
    } else if !global.quiet {
        print_snapshots(&report, args)?;
    }
    Ok(tell_losses(report.repaired.iter().map(|repaired| {
        format!(
            "snapshot {} has lost {} streams or files",
            repaired.old.short(),
            repaired.lost.len()
        )
    })))
}

fn print_snapshots(report: &SnapshotsReport, args: &SnapshotsArgs) -> Result<()> {
    for repaired in &report.repaired {
        let old = repaired.old.short();
        output::line(match (&repaired.new, repaired.is_empty) {
            (Some(new), _) => format!("snapshot {old} without what is lost: {}", new.short()),
            (None, true) => format!("snapshot {old}: nothing is left of it"),
            (None, false) => format!("snapshot {old} would get a copy without what is lost"),
        })?;
        for name in &repaired.lost {
            output::line(format!("    lost: {name}"))?;
        }
    }
    let count = report.repaired.len();
    output::line(format!("{} snapshots, {count} of them damaged", report.snapshots))?;
    if count > 0 && !args.forget && !args.dry_run {
        output::line("the damaged ones are kept; --forget forgets them")?;
    }
    Ok(())
}

/// Mends packs from their parity. Exit code 1 where one cannot be.
pub fn mend(global: &Global, dry_run: bool) -> Result<u8> {
    let repository = open(global, dry_run)?;
    let progress = interrupt::progress();
    let display = output::Display::start(global, &progress);
    let report = parity::run(&repository, &[], dry_run, &progress);
    drop(display);
    let report = report?;
    if global.json {
        json(&report, "repaired_parity", dry_run)?;
    } else if !global.quiet {
        print_findings(&report.findings)?;
        let (mended, renewed) = (report.mended.len(), report.renewed.len());
        let verb = if dry_run { "would mend" } else { "mended" };
        output::line(format!(
            "{} packs read, {verb} {mended}, parity made again for {renewed}",
            report.packs
        ))?;
    }
    Ok(u8::from(!report.findings.is_empty()))
}
