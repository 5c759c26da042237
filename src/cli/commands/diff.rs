//! `restow diff`.

use anyhow::Result;
use clap::Args;
use restow::diff::{Change, StreamDiff, run as compare};
use restow::repository::snapshots::Filter;

use crate::cli::{Global, output};

/// Compare two snapshots
#[derive(Args)]
pub struct DiffArgs {
    /// The older one
    old: String,
    /// The newer one
    #[arg(default_value = "latest")]
    new: String,
    /// Also list streams that did not change
    #[arg(long)]
    all: bool,
}

/// Prints a line for each stream that differs.
pub fn run(global: &Global, args: DiffArgs) -> Result<u8> {
    let repository = global.open_read_only()?;
    let old = repository.find_snapshot(&args.old, &Filter::default())?;
    let new = repository.find_snapshot(&args.new, &Filter::default())?;
    let diffs = compare(&repository, &old.snapshot, &new.snapshot)?;
    for diff in diffs.iter().filter(|diff| args.all || diff.change != Change::Unchanged) {
        if global.json {
            output::json(diff)?;
        } else {
            output::line(text(diff))?;
        }
    }
    Ok(0)
}

fn text(diff: &StreamDiff) -> String {
    let StreamDiff { name, old_size, new_size, shared_bytes, .. } = diff;
    match diff.change {
        Change::Added => format!("+    {name}  {}", output::bytes(*new_size)),
        Change::Removed => format!("-    {name}  {}", output::bytes(*old_size)),
        Change::Unchanged => format!("     {name}  {}", output::bytes(*new_size)),
        Change::Modified => format!(
            "M    {name}  {} -> {}, {} in unchanged chunks",
            output::bytes(*old_size),
            output::bytes(*new_size),
            output::percent(*shared_bytes, *new_size)
        ),
    }
}
