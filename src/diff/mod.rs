//! What changed between two snapshots, stream by stream.

pub mod tree;

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::error::Result;
use crate::format::name::Name;
use crate::format::snapshot::{Snapshot, StreamEntry};
use crate::repository::Repository;
use crate::repository::recipes::RecipeReader;

/// How a stream differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Only the second snapshot has it.
    Added,
    /// Only the first snapshot has it.
    Removed,
    /// Both have it, with different bytes.
    Modified,
    /// Both have it, with the same bytes.
    Unchanged,
}

/// One stream of either snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct StreamDiff {
    /// Its name.
    pub name: Name,
    /// How it differs.
    pub change: Change,
    /// Plain bytes in the first snapshot.
    pub old_size: u64,
    /// Plain bytes in the second.
    pub new_size: u64,
    /// Plain bytes of the second that stand in chunks which the first has too.
    pub shared_bytes: u64,
}

/// Compares two snapshots, by the names of their streams.
pub fn run(repository: &Repository, old: &Snapshot, new: &Snapshot) -> Result<Vec<StreamDiff>> {
    let mut names: BTreeMap<&[u8], [Option<&StreamEntry>; 2]> = BTreeMap::new();
    for (side, snapshot) in [old, new].into_iter().enumerate() {
        for stream in &snapshot.streams {
            names.entry(stream.name.relative()).or_default()[side] = Some(stream);
        }
    }
    names
        .into_values()
        .map(|[old, new]| {
            let (change, shared_bytes) = match (old, new) {
                (Some(old), Some(new)) if old.root == new.root => (Change::Unchanged, new.size),
                (Some(old), Some(new)) => (Change::Modified, shared(repository, old, new)?),
                (Some(_), None) => (Change::Removed, 0),
                _ => (Change::Added, 0),
            };
            let name = new.or(old).map(|stream| stream.name.clone()).unwrap_or_else(|| "".into());
            let size = |side: Option<&StreamEntry>| side.map_or(0, |stream| stream.size);
            Ok(StreamDiff { name, change, old_size: size(old), new_size: size(new), shared_bytes })
        })
        .collect()
}

fn shared(repository: &Repository, old: &StreamEntry, new: &StreamEntry) -> Result<u64> {
    let mut known = HashSet::new();
    for run in RecipeReader::new(repository, old.root)? {
        known.insert(run?.id.key());
    }
    let mut bytes = 0;
    for run in RecipeReader::new(repository, new.root)? {
        let run = run?;
        if known.contains(&run.id.key()) {
            bytes += run.total_bytes();
        }
    }
    Ok(bytes)
}
