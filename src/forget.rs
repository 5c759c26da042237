//! Forgetting snapshots: they leave the list, in one log entry. No data is deleted: that is for prune.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::format::log::{EntryKind, LogEntry};
use crate::id::ObjectName;
use crate::repository::Repository;
use crate::repository::snapshots::{Filter, NamedSnapshot};
use crate::retention::group::{GroupBy, GroupKey, groups};
use crate::retention::{Policy, Verdict, decide};

/// What a policy says of the snapshots of one group.
#[derive(Debug, Clone)]
pub struct GroupVerdict {
    /// The group.
    pub key: GroupKey,
    /// Its snapshots, newest first.
    pub verdicts: Vec<Verdict>,
}

/// Applies a policy to the live snapshots that pass a filter, each group alone.
pub fn plan(
    repository: &Repository,
    filter: &Filter,
    by: GroupBy,
    policy: &Policy,
    zone: &TimeZone,
) -> Result<Vec<GroupVerdict>> {
    let groups = groups(repository.snapshots(filter)?, by);
    let now = repository.environment().clock.now();
    let decide = |(key, snapshots): (_, Vec<_>)| {
        Ok(GroupVerdict { key, verdicts: decide(policy, &snapshots, zone, now)? })
    };
    groups.into_iter().map(decide).collect()
}

/// Forgets snapshots, all in one step. What another run forgot meanwhile is passed over. Held ones
/// are refused, as is the last snapshot of a host's paths unless `allow_empty` is set. Returns what
/// was forgotten.
pub fn forget(
    repository: &Repository,
    names: &BTreeSet<ObjectName>,
    allow_empty: bool,
) -> Result<Vec<ObjectName>> {
    let mut forgotten = Vec::new();
    if names.is_empty() {
        return Ok(forgotten);
    }
    let committed = repository.commit(&mut || {
        // As of the head of the log: others may have forgotten what this one counts on.
        let live = repository.snapshots(&Filter::default())?;
        let (removed, kept): (Vec<_>, Vec<_>) =
            live.into_iter().partition(|named| names.contains(&named.name));
        refuse(&removed, &kept, allow_empty)?;
        forgotten = removed.iter().map(|named| named.name).collect();
        if forgotten.is_empty() {
            return Err(Error::Interrupted);
        }
        let mut entry = LogEntry::new(EntryKind::Forget);
        entry.snapshot_remove.clone_from(&forgotten);
        Ok(entry)
    });
    match committed {
        // Nothing was left to do.
        Err(Error::Interrupted) if forgotten.is_empty() => Ok(forgotten),
        Err(error) => Err(error),
        Ok(_) => Ok(forgotten),
    }
}

/// What would be forgotten; the same refusals as [`forget`].
pub fn would_forget(
    repository: &Repository,
    names: &BTreeSet<ObjectName>,
    allow_empty: bool,
) -> Result<Vec<ObjectName>> {
    let live = repository.snapshots(&Filter::default())?;
    let (removed, kept): (Vec<_>, Vec<_>) =
        live.into_iter().partition(|named| names.contains(&named.name));
    refuse(&removed, &kept, allow_empty)?;
    Ok(removed.iter().map(|named| named.name).collect())
}

fn refuse(removed: &[NamedSnapshot], kept: &[NamedSnapshot], allow_empty: bool) -> Result<()> {
    if let Some(held) = removed.iter().find(|named| named.snapshot.held) {
        let id = held.name.short();
        return Err(Error::Conflict(format!(
            "snapshot {id} is held; 'restow forget --release {id}' lets it go"
        )));
    }
    if allow_empty {
        return Ok(());
    }
    let key = |named: &NamedSnapshot| GroupKey::of(&named.snapshot, GroupBy::default());
    let left: HashSet<_> = kept.iter().map(|named| format!("{:?}", key(named))).collect();
    let mut gone = BTreeMap::new();
    for named in removed {
        gone.entry(key(named)).or_insert(named);
    }
    match gone.iter().find(|(key, _)| !left.contains(&format!("{key:?}"))) {
        None => Ok(()),
        Some((key, named)) => Err(Error::Conflict(format!(
            "no snapshot of {} on {} would be left after {}; --allow-empty permits it",
            key.paths.join(" "),
            key.host,
            named.name.short()
        ))),
    }
}
