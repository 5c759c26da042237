//! `restow copy`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgGroup, Args};
use restow::copy::{CopyOptions, CopyReport, run as copy};
use restow::error::Error;

use super::FilterArgs;
use crate::cli::{Global, interrupt, output};

/// Copy snapshots into another repository, or from another one
///
/// The repositories have keys of their own. Chunks keep their bounds and deltas and get new names;
/// a snapshot that was copied before, whatever its tags are now, is not copied again. --repo names
/// one of the two repositories, --to or --from the other one.
#[derive(Args)]
#[command(group = ArgGroup::new("other").required(true))]
#[command(after_help = "Examples:
  restow copy --to /mnt/offsite --to-password-file ~/.offsite-password
  restow copy --from /mnt/offsite --from-key-file offsite.key latest --host db1")]
pub struct CopyArgs {
    /// The snapshots (ids, first digits, or `latest`) [default: all that pass the filters]
    snapshots: Vec<String>,
    /// Only the newest so many of those that pass the filters
    #[arg(long, value_name = "N", conflicts_with = "snapshots")]
    latest: Option<usize>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Say what would be copied
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    from: FromArgs,
}

/// The repository to copy to.
#[derive(Args)]
#[command(next_help_heading = "Another repository to copy to")]
struct ToArgs {
    /// Copy from --repo into this repository
    #[arg(long, value_name = "WHERE", group = "other")]
    to: Option<String>,
    /// Read its password from the first line of this file [RESTOW_TO_PASSWORD holds it itself]
    #[arg(long, env = "RESTOW_TO_PASSWORD_FILE", value_name = "FILE")]
    to_password_file: Option<PathBuf>,
    /// Read its password from the output of this command
    #[arg(long, env = "RESTOW_TO_PASSWORD_COMMAND", value_name = "COMMAND")]
    to_password_command: Option<String>,
    /// Open it with a key file
    #[arg(long, env = "RESTOW_TO_KEY_FILE", value_name = "FILE")]
    to_key_file: Option<PathBuf>,
}

/// The repository to copy from.
#[derive(Args)]
#[command(next_help_heading = "Another repository to copy from")]
struct FromArgs {
    /// Copy from this repository into --repo
    #[arg(long, value_name = "WHERE", group = "other")]
    from: Option<String>,
    /// Read its password from the first line of this file [RESTOW_FROM_PASSWORD holds it itself]
    #[arg(long, env = "RESTOW_FROM_PASSWORD_FILE", value_name = "FILE")]
    from_password_file: Option<PathBuf>,
    /// Read its password from the output of this command
    #[arg(long, env = "RESTOW_FROM_PASSWORD_COMMAND", value_name = "COMMAND")]
    from_password_command: Option<String>,
    /// Open it with a key file
    #[arg(long, env = "RESTOW_FROM_KEY_FILE", value_name = "FILE")]
    from_key_file: Option<PathBuf>,
}

impl ToArgs {
    fn global(&self, global: &Global) -> Global {
        Global {
            repo: self.to.clone(),
            password_file: self.to_password_file.clone(),
            password_command: self.to_password_command.clone(),
            key_file: self.to_key_file.clone(),
            password_variable: "RESTOW_TO_PASSWORD",
            ..global.clone()
        }
    }
}

impl FromArgs {
    fn global(&self, global: &Global) -> Global {
        Global {
            repo: self.from.clone(),
            password_file: self.from_password_file.clone(),
            password_command: self.from_password_command.clone(),
            key_file: self.from_key_file.clone(),
            password_variable: "RESTOW_FROM_PASSWORD",
            ..global.clone()
        }
    }
}

/// Copies and prints what was done. Exits with 1 where a snapshot could not be copied.
pub fn run(global: &Global, args: CopyArgs) -> Result<u8> {
    let (from, to) = match args.to.to {
        Some(_) => (global.clone(), args.to.global(global)),
        None => (args.from.global(global), global.clone()),
    };
    let source = from.open_read_only()?;
    let target = if args.dry_run { to.open_read_only()? } else { to.open()? };
    if target.is_salvaged() {
        let location = target.store().location();
        return Err(Error::Conflict(format!("{location} is damaged: nothing can be added")).into());
    }
    let filter = args.filter.filter();
    let mut snapshots = if args.snapshots.is_empty() {
        source.snapshots(&filter)?
    } else {
        let find = |wanted: &String| source.find_snapshot(wanted, &filter);
        args.snapshots.iter().map(find).collect::<Result<_, _>>()?
    };
    if let Some(count) = args.latest {
        snapshots.drain(..snapshots.len().saturating_sub(count));
    }
    let progress = interrupt::progress();
    let display = output::Display::start(global, &progress);
    let options = CopyOptions {
        dry_run: args.dry_run,
        is_selection: !args.snapshots.is_empty(),
        ..CopyOptions::default()
    };
    let report = copy(&source, &target, &snapshots, &options, &progress);
    drop(display);
    let report = report?;
    print(global, &report, args.dry_run)?;
    Ok(u8::from(!report.problems.is_empty()))
}

fn print(global: &Global, report: &CopyReport, dry_run: bool) -> Result<()> {
    for problem in &report.problems {
        let detail = output::plain(&problem.detail);
        match problem.snapshot {
            Some(name) => eprintln!("restow: snapshot {} was not copied: {detail}", name.short()),
            None => eprintln!("restow: there may be snapshots that were not copied: {detail}"),
        }
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
    for copied in &report.copied {
        output::line(match copied.target {
            Some(target) => format!("{} is copied as {}", copied.source.short(), target.short()),
            None => format!("{} would be copied", copied.source.short()),
        })?;
    }
    if global.verbose > 0 {
        for skipped in report.skipped.iter() {
            let there = skipped.target.map(|name| name.short()).unwrap_or_default();
            output::line(format!("{} is there already, as {there}", skipped.source.short()))?;
        }
    }
    let bytes = output::bytes;
    let verb = if dry_run { "would copy" } else { "copied" };
    let mut text = format!(
        "{verb} {} snapshots, {} were there already: {} chunks, {} read",
        report.copied.len(),
        report.skipped.len(),
        report.chunks,
        bytes(report.read_bytes),
    );
    if !dry_run {
        text.push_str(&format!(", {} written", bytes(report.written_bytes)));
    }
    output::line(text)?;
    Ok(())
}
