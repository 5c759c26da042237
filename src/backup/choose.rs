//! Which snapshot a backup is compared with, and the manifest that says so.

use jiff::Timestamp;

use super::files::FilesSource;
use super::{BackupOptions, ParentChoice};
use crate::error::Result;
use crate::format::name::Name;
use crate::format::snapshot::{Snapshot, StreamEntry, Summary};
use crate::id::{ChunkId, ObjectName};
use crate::repository::Repository;
use crate::repository::snapshots::{Filter, NamedSnapshot};

/// Snapshots that a parent may be chosen from, oldest first.
pub fn newest_of_host(
    repository: &Repository,
    options: &BackupOptions,
) -> Result<Vec<NamedSnapshot>> {
    if !matches!(options.parent, ParentChoice::Newest) {
        return Ok(Vec::new());
    }
    let filter = Filter { hosts: vec![options.host.clone()], ..Filter::default() };
    let mut found = repository.snapshots(&filter)?;
    // A write-only key can claim to be any host: what it says is unchanged may be anything.
    found.retain(|named| !named.snapshot.sealed);
    Ok(found)
}

/// The newest snapshot of the same paths, else the newest with any.
pub fn tree_parent(
    choice: &ParentChoice,
    of_host: &[NamedSnapshot],
    files: &FilesSource,
) -> Option<(ObjectName, ChunkId)> {
    let paths: Vec<Name> = files.names().collect();
    let tree_of = |named: &NamedSnapshot| named.snapshot.tree.map(|tree| (named.name, tree));
    match choice {
        ParentChoice::None => None,
        ParentChoice::Snapshot(named) => tree_of(named),
        ParentChoice::Newest => {
            let same = of_host.iter().rev().filter(|named| named.snapshot.paths == paths);
            same.chain(of_host.iter().rev()).find_map(tree_of)
        }
    }
}

/// The snapshot whose stream of the same name is the parent.
pub fn stream_parent(
    choice: &ParentChoice,
    of_host: &[NamedSnapshot],
    name: &Name,
) -> Option<(ObjectName, StreamEntry)> {
    let stream_of = |named: &NamedSnapshot| {
        named.snapshot.stream(name.as_bytes()).map(|stream| (named.name, stream.clone()))
    };
    match choice {
        ParentChoice::None => None,
        ParentChoice::Snapshot(named) => stream_of(named),
        ParentChoice::Newest => of_host.iter().rev().find_map(stream_of),
    }
}

/// After a repair, snapshots may rely on chunks that are lost; one that does is no parent: what a
/// backup finds unchanged in its parent it does not store again.
pub fn if_whole<T>(
    repository: &Repository,
    parent: Option<(ObjectName, T)>,
    is_held: impl Fn(&T) -> Result<bool>,
) -> Result<Option<(ObjectName, T)>> {
    match parent {
        Some((_, root)) if repository.index().was_repaired()? && !is_held(&root)? => Ok(None),
        other => Ok(other),
    }
}

/// A manifest that is still without content.
pub fn manifest(options: &BackupOptions, time: Timestamp, parent: Option<ObjectName>) -> Snapshot {
    Snapshot {
        version: 1,
        time,
        host: options.host.clone(),
        user: options.user.clone(),
        tags: options.tags.clone(),
        description: options.description.clone(),
        parent,
        original: None,
        origin: None,
        repaired_from: None,
        held: options.held,
        held_until: options.held_until,
        sealed: false,
        problems: 0,
        streams: Vec::new(),
        unpacked: options.unpacked.clone(),
        paths: options.files.iter().flat_map(FilesSource::names).collect(),
        tree: None,
        source: options.source.clone(),
        catalogue: None,
        summary: Summary::default(),
        program: options.program.clone(),
        extra: Default::default(),
    }
}
