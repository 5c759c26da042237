use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use restow::catalogue::{Catalogue, Table};
use restow::database::postgres::backup;
use restow::database::postgres::dsn::Dsn;
use restow::database::postgres::restore::Origin;
use restow::database::rows_diff::{RowChange, RowDiff, compare};
use restow::database::undo::Undo;
use restow::error::Error;
use restow::repository::snapshots::Filter;
use restow::settings::SourceKind;

use super::tables;
use crate::cli::{Global, interrupt, output, sources};

/// Compare the rows of a table in a snapshot with the live ones, and get the old ones back
#[derive(Args)]
pub struct RowsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List rows that were added, removed or changed since a snapshot, and write the SQL that puts them
    /// back
    Diff(DiffArgs),
}

#[derive(Args)]
struct DiffArgs {
    /// Id of the snapshot, its first digits, or `latest`
    snapshot: String,
    /// The live database: a source of the configuration file, or postgres://…
    live: String,
    /// Of the snapshots of this source [default: the live one, where it is a source]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// The table, SCHEMA.TABLE
    #[arg(long, value_name = "TABLE")]
    table: String,
    /// Columns that tell its rows apart, separated by commas [default: its primary key]
    #[arg(long, value_name = "COLUMN[,COLUMN…]", value_delimiter = ',')]
    key: Vec<String>,
    /// Write the SQL that makes the rows what they were into this file; `-` for standard output
    #[arg(long, value_name = "FILE")]
    sql: Option<PathBuf>,
    /// Print at most so many rows; the SQL has them all
    #[arg(long, value_name = "N", default_value = "20")]
    show: u64,
}

/// The table that a user means: `SCHEMA.TABLE`, or `TABLE` where there is one of that name.
pub fn find<'a>(found: &'a [Catalogue], wanted: &str) -> Result<(&'a Catalogue, &'a Table)> {
    let all = found.iter().flat_map(|it| it.tables.iter().map(move |table| (it, table)));
    let is_it = |(_, table): &(&Catalogue, &Table)| {
        table.name == wanted || format!("{}.{}", table.schema, table.name) == wanted
    };
    let mut fitting = all.filter(is_it);
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => {
            let text = format!("the snapshot has no table '{wanted}'; 'restow tables' lists them");
            Err(Error::Usage(text).into())
        }
        _ => {
            let text = format!("several tables are called '{wanted}': write SCHEMA.TABLE");
            Err(Error::Usage(text).into())
        }
    }
}

/// Compares rows.
pub fn run(global: &Global, args: RowsArgs) -> Result<u8> {
    let Action::Diff(args) = args.action;
    let (source, live, global) = live(global, &args.live)?;
    let global = &global;
    let repository = global.open_read_only()?;
    // Of the live database, where it is a source: never those of another one.
    let filter = Filter { source: Some(source.clone()), ..Filter::default() };
    let is_known = repository.snapshots(&filter)?.into_iter().next().is_some();
    let source = args.source.clone().or(Some(source).filter(|_| is_known));
    let named = tables::snapshot(&repository, &args.snapshot, source, Filter::default())?;
    let found = tables::of(&repository, &named)?;
    let (catalogue, table) = find(&found, &args.table)?;
    let origin = Origin { repository: &repository, snapshot: &named.snapshot, catalogue };
    let key = if args.key.is_empty() { table.key.clone() } else { args.key.clone() };
    let mut undo = args.sql.as_deref().map(undo).transpose()?;
    let to_stdout = args.sql.as_ref().is_some_and(|path| path.as_os_str() == "-");
    let mut shown = 0;
    let mut take = |diff: RowDiff| -> Result<(), Error> {
        if let Some(undo) = &mut undo {
            undo.push(&diff)?;
        }
        shown += 1;
        if shown <= args.show && !to_stdout {
            print(global, &diff).map_err(output::stdout_error)?;
        }
        Ok(())
    };
    let progress = interrupt::progress();
    let counts = compare(&origin, table, &live, &key, &mut take, &progress)?;
    if let Some(undo) = undo {
        undo.finish()?;
    }
    if to_stdout {
        return Ok(0);
    }
    if global.json {
        output::json(&serde_json::json!({ "message_type": "rows_summary", "counts": counts }))?;
    } else {
        if shown > args.show {
            output::line(format!("… and {} more (--show)", shown - args.show))?;
        }
        output::line(format!(
            "{} added, {} removed, {} changed since the snapshot; {} the same",
            counts.added, counts.removed, counts.changed, counts.same
        ))?;
    }
    Ok(0)
}

/// Where the SQL goes.
fn undo(path: &Path) -> Result<Undo<Box<dyn Write>>> {
    let out: Box<dyn Write> = if path.as_os_str() == "-" {
        Box::new(std::io::stdout())
    } else {
        let file = std::fs::File::create_new(path);
        let file = file.with_context(|| format!("create {}", path.display()))?;
        Box::new(std::io::BufWriter::new(file))
    };
    Ok(Undo::new(out, &sources::surroundings().temporary)?)
}

/// The name of a live database as a source, the way to it, and the options with its repository.
fn live(global: &Global, wanted: &str) -> Result<(String, Dsn, Global)> {
    let (name, config, global) = global.source(wanted)?;
    match &config.kind {
        SourceKind::Postgres(config) => {
            let dsn = backup::dsn(&name, config, &sources::surroundings())?;
            Ok((name, dsn, global))
        }
        _ => Err(Error::Usage("rows are compared with those of PostgreSQL only".into()).into()),
    }
}

fn print(global: &Global, diff: &RowDiff) -> std::io::Result<()> {
    let key = diff.key.join(", ");
    if global.json {
        return output::json(&serde_json::json!({
            "message_type": "row", "change": diff.change, "key": diff.key, "columns": diff.columns,
        }));
    }
    let sign = match diff.change {
        RowChange::Added => '+',
        RowChange::Removed => '-',
        RowChange::Changed => 'M',
    };
    let short = |value: &Option<String>| match value {
        None => "NULL".to_owned(),
        Some(text) => {
            let start: String = text.chars().take(40).collect();
            if start.len() < text.len() { format!("{start}…") } else { start }
        }
    };
    let columns: Vec<String> = diff
        .columns
        .iter()
        .map(|(column, old, new)| format!("{column}: {} -> {}", short(old), short(new)))
        .collect();
    output::line(format!("{sign} {key}  {}", columns.join(", ")))
}
