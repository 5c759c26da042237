//! `restow cat`.

use std::io::Write;

use anyhow::Result;
use clap::{Args, Subcommand};
use restow::crypto::keys::BlobKind;
use restow::error::Error;
use restow::format::log::LogEntry;
use restow::id::{ChunkId, ObjectName};
use restow::repository::Repository;
use restow::repository::reader::{ChunkReader, Scratch};
use restow::repository::snapshots::Filter;
use serde_json::{Value, json};

use super::snapshots::record;
use crate::cli::{Global, output};

/// Print the repository's configuration, a snapshot or a log entry as JSON
#[derive(Args)]
pub struct CatArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The configuration
    Config,
    /// A snapshot's manifest
    Snapshot {
        /// Its id, the first digits, or `latest`
        id: String,
    },
    /// An entry of the commit log
    Log {
        /// Its number [default: the newest]
        number: Option<u64>,
    },
    /// The blobs of a pack, as the index knows them
    Pack {
        /// Its name, all 64 digits
        name: String,
    },
    /// The verified bytes of a chunk
    Chunk {
        /// Its id, all 64 digits
        id: String,
    },
}

/// Prints one object.
pub fn run(global: &Global, args: CatArgs) -> Result<u8> {
    let repository = global.open_read_only()?;
    let value = match args.what {
        What::Config => serde_json::to_value(repository.config())?,
        What::Snapshot { id } => record(&repository.find_snapshot(&id, &Filter::default())?)?,
        What::Log { number } => log_entry(&repository, number)?,
        What::Pack { name } => pack(&repository, &name)?,
        What::Chunk { id } => {
            let id = ChunkId::from_hex(&id).map_err(|error| Error::Usage(error.to_string()))?;
            let bytes =
                ChunkReader::new(&repository).read(BlobKind::Data, &id, &mut Scratch::new()?)?;
            std::io::stdout().lock().write_all(&bytes)?;
            return Ok(0);
        }
    };
    if global.json {
        output::json(&value)?;
    } else {
        output::line(serde_json::to_string_pretty(&value)?)?;
    }
    Ok(0)
}

fn log_entry(repository: &Repository, number: Option<u64>) -> Result<Value> {
    let head = repository.index().position()?.map_or(0, |position| position.number);
    let number = number.unwrap_or(head);
    let stored = repository
        .read_entry(number)?
        .ok_or_else(|| Error::Usage(format!("the log ends at entry {head}")))?;
    Ok(describe(number, &stored.entry))
}

fn describe(number: u64, entry: &LogEntry) -> Value {
    let time = jiff::Timestamp::from_nanosecond(entry.time_ns.into()).map(|time| time.to_string());
    json!({
        "number": number,
        "kind": format!("{:?}", entry.kind).to_lowercase(),
        "time": time.unwrap_or_default(),
        "author": entry.author,
        "previous": hex::encode(entry.previous),
        "index_add": entry.index_add,
        "index_remove": entry.index_remove,
        "snapshot_add": entry.snapshot_add,
        "snapshot_remove": entry.snapshot_remove,
        "rescue": entry.rescue,
        "condemn": entry.condemn,
        "dead": entry.dead,
        "slots_removed": entry.slots_removed,
    })
}

fn pack(repository: &Repository, name: &str) -> Result<Value> {
    let name = ObjectName::from_hex(name).map_err(|error| Error::Usage(error.to_string()))?;
    let pack = repository
        .index()
        .pack(&name)?
        .ok_or_else(|| Error::Missing { what: format!("pack {name}") })?;
    let blobs: Vec<Value> = pack
        .entries
        .iter()
        .zip(&pack.offsets)
        .map(|(entry, offset)| {
            json!({
                "key": entry.id, "offset": offset, "stored_bytes": entry.stored_len,
                "plain_bytes": entry.plain_len, "codec": format!("{:?}", entry.codec).to_lowercase(),
                "generation": entry.generation, "depth": entry.depth, "bases": entry.bases,
            })
        })
        .collect();
    Ok(json!({
        "name": pack.name, "kind": pack.kind.name(), "size": pack.size,
        "fate": repository.index().fate(&pack.name).map(|fate| format!("{fate:?}").to_lowercase()),
        "blobs": blobs,
    }))
}
