//! Groups of snapshots: policies count in each of them alone.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::format::snapshot::Snapshot;
use crate::repository::snapshots::NamedSnapshot;

/// What the snapshots of a group have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    /// The host.
    pub host: bool,
    /// The paths and the names of the streams.
    pub paths: bool,
    /// The tags.
    pub tags: bool,
}

impl Default for GroupBy {
    /// Host and paths, as in restic.
    fn default() -> Self {
        Self { host: true, paths: true, tags: false }
    }
}

impl std::str::FromStr for GroupBy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut group = Self { host: false, paths: false, tags: false };
        for word in text.split(',').filter(|word| !word.is_empty()) {
            match word {
                "host" | "hosts" => group.host = true,
                "paths" | "path" => group.paths = true,
                "tags" | "tag" => group.tags = true,
                _ => {
                    let text = format!("'{word}' is none of host, paths, tags");
                    return Err(Error::Usage(text));
                }
            }
        }
        Ok(group)
    }
}

/// What a group is told apart by; parts that do not count are empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct GroupKey {
    /// The host.
    pub host: String,
    /// Paths and streams, sorted.
    pub paths: Vec<String>,
    /// Tags, sorted.
    pub tags: Vec<String>,
    /// Write-only keys made them. Such snapshots are always a group of their own: nobody vouches for
    /// what they say of host and time, so they must not push out those of owners.
    pub sealed: bool,
}

impl GroupKey {
    /// The group that a snapshot is in.
    pub fn of(snapshot: &Snapshot, by: GroupBy) -> Self {
        let sorted = |mut words: Vec<String>| {
            words.sort();
            words
        };
        let streams = snapshot.streams.iter().map(|stream| &stream.name);
        let paths = || match &snapshot.source {
            // A new table is a new stream, but no other source.
            Some(source) => vec![source.name.clone()],
            None => streams.chain(&snapshot.paths).map(ToString::to_string).collect(),
        };
        Self {
            host: if by.host { snapshot.host.clone() } else { String::new() },
            paths: if by.paths { sorted(paths()) } else { Vec::new() },
            tags: if by.tags { sorted(snapshot.tags.clone()) } else { Vec::new() },
            sealed: snapshot.sealed,
        }
    }
}

/// The snapshots by group.
pub fn groups(
    snapshots: Vec<NamedSnapshot>,
    by: GroupBy,
) -> BTreeMap<GroupKey, Vec<NamedSnapshot>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for named in snapshots {
        groups.entry(GroupKey::of(&named.snapshot, by)).or_default().push(named);
    }
    groups
}
