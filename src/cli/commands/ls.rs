//! `restow ls`.

use anyhow::Result;
use clap::Args;

use super::FilterArgs;
use crate::cli::{Global, output};

/// List what a snapshot holds
#[derive(Args)]
pub struct LsArgs {
    /// Id of the snapshot, its first digits, or `latest`
    #[arg(default_value = "latest")]
    snapshot: String,
    /// With sizes, chunk counts and content digests
    #[arg(short, long)]
    long: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Prints the streams of a snapshot.
pub fn run(global: &Global, args: LsArgs) -> Result<u8> {
    let repository = global.open_read_only()?;
    let named = repository.find_snapshot(&args.snapshot, &args.filter.filter())?;
    if global.json {
        for stream in &named.snapshot.streams {
            output::json(stream)?;
        }
        return Ok(0);
    }
    if !args.long {
        for stream in &named.snapshot.streams {
            output::line(&stream.name)?;
        }
        return Ok(0);
    }
    let mut rows = vec![["size", "chunks", "digest", "name"].map(str::to_owned).to_vec()];
    rows.extend(named.snapshot.streams.iter().map(|stream| {
        vec![
            stream.size.to_string(),
            stream.chunks.to_string(),
            stream.root.to_hex()[..16].to_owned(),
            stream.name.to_string(),
        ]
    }));
    output::table(&rows)?;
    Ok(0)
}
