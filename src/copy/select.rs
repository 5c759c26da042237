//! Which snapshot is which: a snapshot keeps its identity through copies and changes of its tags.

use std::collections::HashMap;

use crate::error::Result;
use crate::format::snapshot::{Origin, Snapshot};
use crate::id::{ObjectName, RepositoryId};
use crate::repository::Repository;
use crate::repository::snapshots::{Filter, NamedSnapshot};

/// Where a snapshot was made first, and what it was called there before its tags changed.
pub fn identity(repository: RepositoryId, named: &NamedSnapshot) -> Origin {
    let snapshot = named.snapshot.original.unwrap_or(named.name);
    named.snapshot.origin.unwrap_or(Origin { repository, snapshot })
}

/// The live snapshots of a repository by identity.
pub fn by_identity(repository: &Repository) -> Result<HashMap<Origin, NamedSnapshot>> {
    let id = repository.config().id;
    let all = repository.snapshots(&Filter::default())?;
    Ok(all.into_iter().map(|named| (identity(id, &named), named)).collect())
}

/// Whether a repository has a snapshot, as of now.
pub fn holds(repository: &Repository, origin: &Origin) -> Result<bool> {
    let id = repository.config().id;
    let all = repository.snapshots(&Filter::default())?;
    Ok(all.iter().any(|named| identity(id, named) == *origin))
}

/// Of some copied snapshots (source, target) the one most like `snapshot`: of the same host with a
/// stream or path in common, the last one before it, else the first one after.
pub fn nearest<'p>(
    snapshot: &Snapshot,
    pairs: &'p [(NamedSnapshot, NamedSnapshot)],
) -> Option<&'p (NamedSnapshot, NamedSnapshot)> {
    let related = || pairs.iter().filter(|(source, _)| is_related(snapshot, &source.snapshot));
    let before = related().filter(|(source, _)| source.snapshot.time <= snapshot.time);
    let last = before.max_by_key(|(source, _)| source.snapshot.time);
    last.or_else(|| related().min_by_key(|(source, _)| source.snapshot.time))
}

fn is_related(a: &Snapshot, b: &Snapshot) -> bool {
    let same_stream = || a.streams.iter().any(|stream| b.stream(stream.name.as_bytes()).is_some());
    let same_path = || a.paths.iter().any(|path| b.paths.contains(path));
    a.host == b.host && (same_stream() || same_path())
}

/// What the target calls the parent of a snapshot of the source, if it has it.
pub fn parent(
    source: RepositoryId,
    snapshot: &Snapshot,
    sources: &[NamedSnapshot],
    targets: &HashMap<Origin, NamedSnapshot>,
) -> Option<ObjectName> {
    let name = snapshot.parent?;
    let live = sources.iter().find(|named| named.name == name);
    let origin =
        live.map_or(Origin { repository: source, snapshot: name }, |named| identity(source, named));
    targets.get(&origin).map(|named| named.name)
}
