//! `restow diff`.

use anyhow::Result;
use clap::Args;
use restow::database::compare::{TableChange, TableDiff, compare as compare_tables};
use restow::diff::tree::{FileDiff, compare as compare_trees};
use restow::diff::{Change, StreamDiff, run as compare};
use restow::repository::snapshots::Filter;

use super::tables;
use crate::cli::{Global, output, sources};

/// Compare two snapshots
#[derive(Args)]
pub struct DiffArgs {
    /// The older one
    old: String,
    /// The newer one
    #[arg(default_value = "latest")]
    new: String,
    /// Compare databases table by table: rows, bytes, definitions
    #[arg(long)]
    tables: bool,
    /// What `latest` means: the newest of this source [default, with --tables: that of OLD]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Also list streams, or tables, that did not change
    #[arg(long)]
    all: bool,
}

/// Prints a line for each stream and file that differs.
pub fn run(global: &Global, args: DiffArgs) -> Result<u8> {
    let repository = global.open_read_only()?;
    let source = args.source.as_deref().map(sources::name_in_snapshots).transpose()?;
    let filter = Filter { source, ..Filter::default() };
    if args.tables {
        let source = filter.source.clone();
        let old = tables::snapshot(&repository, &args.old, source.clone(), filter.clone())?;
        // The latest of the same source: tables of another one would all look changed.
        let source = source.or_else(|| old.snapshot.source.as_ref().map(|it| it.name.clone()));
        let new = tables::snapshot(&repository, &args.new, source, filter)?;
        let (old, new) = (tables::of(&repository, &old)?, tables::of(&repository, &new)?);
        return print_tables(global, &args, &compare_tables(&old, &new));
    }
    let old = repository.find_snapshot(&args.old, &filter)?;
    let new = repository.find_snapshot(&args.new, &filter)?;
    let diffs = compare(&repository, &old.snapshot, &new.snapshot)?;
    for diff in diffs.iter().filter(|diff| args.all || diff.change != Change::Unchanged) {
        if global.json {
            output::json(diff)?;
        } else {
            output::line(text(diff))?;
        }
    }
    let (old, new) = (old.snapshot.tree, new.snapshot.tree);
    compare_trees(&repository, old, new, &mut |diff| {
        if global.json {
            output::json(&diff).map_err(output::stdout_error)
        } else {
            output::line(file_text(&diff)).map_err(output::stdout_error)
        }
    })?;
    Ok(0)
}

fn print_tables(global: &Global, args: &DiffArgs, diffs: &[TableDiff]) -> Result<u8> {
    let is_wanted = |diff: &&TableDiff| args.all || diff.change != TableChange::Unchanged;
    for diff in diffs.iter().filter(is_wanted) {
        if global.json {
            output::json(diff)?;
            continue;
        }
        let sign = match diff.change {
            TableChange::Added => '+',
            TableChange::Removed => '-',
            TableChange::Changed => 'M',
            TableChange::Unchanged => ' ',
        };
        let dot = if diff.schema.is_empty() { "" } else { "." };
        let rows = i128::from(diff.new_rows) - i128::from(diff.old_rows);
        let definition = if diff.schema_changed && diff.change == TableChange::Changed {
            "  definition changed"
        } else {
            ""
        };
        output::line(format!(
            "{sign}    {}{dot}{}  {} rows ({rows:+}), {} -> {}{definition}",
            diff.schema,
            diff.name,
            diff.new_rows,
            output::bytes(diff.old_bytes),
            output::bytes(diff.new_bytes)
        ))?;
    }
    Ok(0)
}

fn file_text(diff: &FileDiff) -> String {
    let FileDiff { name, old_size, new_size, differs, kind, .. } = diff;
    let slash = if *kind == "dir" { "/" } else { "" };
    match diff.change {
        Change::Added => format!("+    {name}{slash}  {}", output::bytes(*new_size)),
        Change::Removed => format!("-    {name}{slash}  {}", output::bytes(*old_size)),
        _ if old_size != new_size => format!(
            "M    {name}{slash}  {}, {} -> {}",
            differs.join(", "),
            output::bytes(*old_size),
            output::bytes(*new_size)
        ),
        _ => format!("M    {name}{slash}  {}", differs.join(", ")),
    }
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
