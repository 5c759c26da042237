//! `restow snapshots`.

use anyhow::Result;
use clap::Args;
use restow::format::snapshot::Snapshot;
use restow::repository::snapshots::NamedSnapshot;

use super::FilterArgs;
use crate::cli::{Global, output};

/// List snapshots
#[derive(Args)]
pub struct SnapshotsArgs {
    /// Only this one (an id, its first digits, or `latest`)
    snapshot: Option<String>,
    /// Only the newest so many
    #[arg(long, value_name = "N")]
    latest: Option<usize>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Prints a table, or JSON.
pub fn run(global: &Global, args: SnapshotsArgs) -> Result<u8> {
    let repository = global.open_read_only()?;
    let filter = args.filter.filter();
    let mut snapshots = match &args.snapshot {
        Some(wanted) => vec![repository.find_snapshot(wanted, &filter)?],
        None => repository.snapshots(&filter)?,
    };
    if let Some(count) = args.latest {
        snapshots.drain(..snapshots.len().saturating_sub(count));
    }
    if global.json {
        for named in &snapshots {
            output::json(&record(named)?)?;
        }
        return Ok(0);
    }
    let mut rows: Vec<Vec<String>> = vec![
        ["id", "time", "host", "tags", "size", "added", "notes", "holds"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(snapshots.iter().map(row));
    output::table(&rows)?;
    if !global.quiet {
        output::line(format!("{} snapshots", snapshots.len()))?;
    }
    Ok(0)
}

/// A snapshot with its id as a JSON object.
pub fn record(named: &NamedSnapshot) -> serde_json::Result<serde_json::Value> {
    let mut value = serde_json::to_value(&named.snapshot)?;
    value["id"] = serde_json::to_value(named.name)?;
    value["short_id"] = named.name.short().into();
    Ok(value)
}

fn row(named: &NamedSnapshot) -> Vec<String> {
    let snapshot = &named.snapshot;
    let time = snapshot.time.to_zoned(jiff::tz::TimeZone::system());
    vec![
        named.name.short(),
        time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        snapshot.host.clone(),
        snapshot.tags.join(","),
        output::bytes(snapshot.total_bytes()),
        output::bytes(snapshot.summary.added_bytes),
        notes(snapshot),
        super::contents(snapshot),
    ]
}

/// What is unusual about a snapshot.
fn notes(snapshot: &Snapshot) -> String {
    let mut notes = Vec::new();
    if snapshot.held {
        notes.push("held".to_owned());
    }
    if snapshot.sealed {
        notes.push("write-only".to_owned());
    }
    match snapshot.problems {
        0 => {}
        1 => notes.push("1 problem".to_owned()),
        count => notes.push(format!("{count} problems")),
    }
    notes.join(", ")
}
