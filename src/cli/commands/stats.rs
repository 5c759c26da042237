//! `restow stats`.

use anyhow::Result;
use clap::Args;
use restow::stats::{self, RepositoryStats, SnapshotStats, ratio};

use super::FilterArgs;
use crate::cli::{Global, output};

/// Show what the repository holds and what deduplication, deltas and compression save
#[derive(Args)]
pub struct StatsArgs {
    /// Show one snapshot instead (an id, its first digits, or `latest`)
    snapshot: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Prints the numbers.
pub fn run(global: &Global, args: StatsArgs) -> Result<u8> {
    let repository = global.open_read_only()?;
    match &args.snapshot {
        None => {
            let stats = stats::repository(&repository)?;
            if global.json { output::json(&stats)? } else { print_repository(&stats)? }
        }
        Some(wanted) => {
            let named = repository.find_snapshot(wanted, &args.filter.filter())?;
            let stats = stats::snapshot(&repository, &named.snapshot)?;
            if global.json { output::json(&stats)? } else { print_snapshot(&stats)? }
        }
    }
    Ok(0)
}

fn print_repository(stats: &RepositoryStats) -> Result<()> {
    let RepositoryStats { raw, compressed, delta, trees, .. } = stats;
    let row = |name: &str, part: &stats::CodecBytes| {
        vec![
            name.to_owned(),
            part.chunks.to_string(),
            output::bytes(part.plain_bytes),
            output::bytes(part.stored_bytes),
        ]
    };
    output::line(format!(
        "{} snapshots, {} of plain data",
        stats.snapshots,
        output::bytes(stats.logical_bytes)
    ))?;
    output::line("")?;
    output::table(&[
        ["stored as", "chunks", "plain", "stored"].map(str::to_owned).to_vec(),
        row("delta", delta),
        row("compressed", compressed),
        row("as it is", raw),
        row("recipes", trees),
    ])?;
    let stored = delta.stored_bytes + compressed.stored_bytes + raw.stored_bytes;
    output::line("")?;
    output::line(format!(
        "deduplication {:.1} x, delta {:.1} x, compression {:.1} x; all together {:.1} x",
        ratio(stats.logical_bytes, stats.unique_bytes),
        ratio(delta.plain_bytes, delta.stored_bytes),
        ratio(compressed.plain_bytes + raw.plain_bytes, compressed.stored_bytes + raw.stored_bytes),
        ratio(stats.logical_bytes, stats.store_bytes.max(stored)),
    ))?;
    output::line(format!(
        "{} in {} objects, {} of them packs",
        output::bytes(stats.store_bytes),
        stats.store_objects,
        stats.packs
    ))?;
    Ok(())
}

fn print_snapshot(stats: &SnapshotStats) -> Result<()> {
    output::line(format!("plain data       {}", output::bytes(stats.logical_bytes)))?;
    output::line(format!(
        "different chunks {} in {}",
        output::bytes(stats.unique_bytes),
        stats.chunks
    ))?;
    output::line(format!("restore reads    {}", output::bytes(stats.stored_bytes)))?;
    output::line(format!("longest chain    {} deltas", stats.max_depth))?;
    output::line(format!("backup added     {}", output::bytes(stats.added_bytes)))?;
    Ok(())
}
