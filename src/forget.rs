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

/// Why a snapshot stays though the policy does not say so: groups may be others than hosts and paths.
const LAST_OF_PATHS: &str = "last of its host's paths";

/// Applies a policy to the live snapshots that pass a filter, each group alone. Of what a host backed up
/// the newest snapshot stays where none would be left, unless the policy allows that.
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
    let mut groups: Vec<GroupVerdict> = groups.into_iter().map(decide).collect::<Result<_>>()?;
    if !policy.allow_empty {
        keep_last_of_paths(&repository.snapshots(&Filter::default())?, &mut groups);
    }
    Ok(groups)
}

/// Host and paths, which groups are not always made by.
fn paths_of(named: &NamedSnapshot) -> GroupKey {
    GroupKey::of(&named.snapshot, GroupBy::default())
}

fn keep_last_of_paths(live: &[NamedSnapshot], groups: &mut [GroupVerdict]) {
    let verdicts = groups.iter().flat_map(|group| &group.verdicts);
    let going: HashSet<ObjectName> =
        verdicts.filter(|verdict| !verdict.is_kept()).map(|verdict| verdict.name).collect();
    let (removed, kept): (Vec<_>, Vec<_>) =
        live.iter().partition(|named| going.contains(&named.name));
    let last: HashSet<ObjectName> = last_of_paths(removed, kept).map(|named| named.name).collect();
    let verdicts = groups.iter_mut().flat_map(|group| &mut group.verdicts);
    for verdict in verdicts.filter(|verdict| last.contains(&verdict.name)) {
        verdict.reasons.push(LAST_OF_PATHS.to_owned());
    }
}

/// Of what goes, for each host's paths of which no complete snapshot stays, the newest complete one; and
/// where there is none and nothing else stays, the newest. Oldest come first.
fn last_of_paths<'a>(
    removed: impl IntoIterator<Item = &'a NamedSnapshot>,
    kept: impl IntoIterator<Item = &'a NamedSnapshot>,
) -> impl Iterator<Item = &'a NamedSnapshot> {
    let is_complete = |named: &NamedSnapshot| named.snapshot.problems == 0;
    let left: BTreeSet<(GroupKey, bool)> =
        kept.into_iter().map(|named| (paths_of(named), is_complete(named))).collect();
    let mut last: BTreeMap<GroupKey, &NamedSnapshot> = BTreeMap::new();
    for named in removed {
        let key = paths_of(named);
        let is_worse = |before: &&NamedSnapshot| is_complete(before) && !is_complete(named);
        if !last.get(&key).is_some_and(is_worse) {
            last.insert(key, named);
        }
    }
    last.into_iter().filter_map(move |(key, named)| {
        let stays = |complete| left.contains(&(key.clone(), complete));
        let is_needed = !stays(true) && (is_complete(named) || !stays(false));
        is_needed.then_some(named)
    })
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
    match last_of_paths(removed, kept).next() {
        None => Ok(()),
        Some(named) => {
            let key = paths_of(named);
            let complete = if named.snapshot.problems == 0 { "complete " } else { "" };
            Err(Error::Conflict(format!(
                "no {complete}snapshot of {} on {} would be left after {}; --allow-empty permits it",
                key.paths.join(" "),
                key.host,
                named.name.short()
            )))
        }
    }
}
