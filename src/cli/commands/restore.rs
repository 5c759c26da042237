//! `restow restore`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::Result;
use clap::Args;
use restow::error::Error;
use restow::restore::files::{place_below, restore_stream};

use super::{FilterArgs, name_of};
use crate::cli::{Global, interrupt, output};

/// Restore the streams of a snapshot as files
#[derive(Args)]
pub struct RestoreArgs {
    /// Id of the snapshot, its first digits, or `latest`
    snapshot: String,
    /// Folder to restore into
    #[arg(short, long, value_name = "FOLDER")]
    target: PathBuf,
    /// Restore only this stream (may be given several times)
    #[arg(short, long, value_name = "NAME")]
    include: Vec<OsString>,
    /// Replace files that exist
    #[arg(long)]
    overwrite: bool,
    /// Say what would be restored
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Restores the chosen streams.
pub fn run(global: &Global, args: RestoreArgs) -> Result<u8> {
    let repository = global.open_read_only()?;
    let named = repository.find_snapshot(&args.snapshot, &args.filter.filter())?;
    let mut streams: Vec<_> = named.snapshot.streams.iter().collect();
    if !args.include.is_empty() {
        streams.clear();
        for wanted in &args.include {
            let stream = named.snapshot.stream(wanted.as_encoded_bytes()).ok_or_else(|| {
                Error::NoPath { snapshot: named.name.short(), path: name_of(wanted).to_string() }
            })?;
            streams.push(stream);
        }
    }
    let progress = interrupt::progress();
    let total = streams.iter().map(|stream| stream.size).sum();
    progress.total_bytes.store(total, Ordering::Relaxed);
    let display = output::Display::start(global, &progress);
    let mut restored = Vec::new();
    for stream in streams {
        let path = if args.dry_run {
            place_below(&args.target, &stream.name)?
        } else {
            restore_stream(&repository, stream, &args.target, args.overwrite, &progress)?
        };
        restored.push((path, stream.size));
    }
    drop(display);
    for (path, size) in restored {
        if global.json {
            output::json(&serde_json::json!({
                "message_type": "restored", "path": path.to_string_lossy(), "size": size,
                "dry_run": args.dry_run,
            }))?;
        } else if !global.quiet {
            let verb = if args.dry_run { "would restore" } else { "restored" };
            output::line(format!(
                "{verb} {} ({})",
                name_of(path.as_os_str()),
                output::bytes(size)
            ))?;
        }
    }
    Ok(0)
}
