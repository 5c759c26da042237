//! Condemning packs, declaring them dead, deleting them. In this order, each step committed to the
//! log before the next, so that no writer can be relying on what goes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::PruneProblem;
use super::garbage::garbage;
use super::mark::Marker;
use crate::error::{Error, Result};
use crate::format::log::{EntryKind, LogEntry};
use crate::format::paths;
use crate::id::ObjectName;
use crate::index::Fate;
use crate::repository::Repository;
use crate::store::StoreError;

/// The log forgets no fewer dead objects than this at once, …
const LEAST_GONE: usize = 64;
/// … and no less than this part (one in so many) of what a whole state lists.
const GONE_PART: usize = 8;

/// Whether a step was taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It is committed.
    Done(BTreeSet<ObjectName>),
    /// There was nothing to do.
    Nothing,
    /// Another prune was at work: all must be thought over again.
    Replan,
}

/// The fates that a plan was made by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fates {
    condemned: Vec<ObjectName>,
    dead: Vec<ObjectName>,
}

impl Fates {
    /// As of now.
    pub fn of(repository: &Repository) -> Self {
        Self { condemned: repository.index().condemned(), dead: repository.index().dead() }
    }

    /// Whether no other prune was at work since. A backup may have rescued some: that is no reason to
    /// begin anew.
    pub fn still_hold(&self, repository: &Repository) -> bool {
        let now = Self::of(repository);
        now.dead == self.dead
            && now.condemned.iter().all(|name| self.condemned.binary_search(name).is_ok())
    }
}

/// Condemns packs that are not needed, and objects that nothing refers to.
pub fn condemn(
    repository: &Repository,
    marker: &mut Marker<'_>,
    fates: &Fates,
    packs: &BTreeSet<ObjectName>,
    orphans: &BTreeSet<ObjectName>,
) -> Result<Step> {
    let mut condemned = BTreeSet::new();
    let mut step = Step::Nothing;
    let committed = repository.commit(&mut || {
        if !fates.still_hold(repository) {
            step = Step::Replan;
            return Err(Error::Interrupted);
        }
        // Snapshots that came meanwhile may need what was garbage.
        marker.mark_new()?;
        let is_live = |name: &ObjectName| repository.index().fate(name).is_none();
        condemned = garbage(repository, marker, packs, &is_live)?;
        condemned.extend(orphans_still(repository, orphans)?);
        if condemned.is_empty() {
            step = Step::Nothing;
            return Err(Error::Interrupted);
        }
        let mut entry = LogEntry::new(EntryKind::Gc);
        entry.condemn = condemned.iter().copied().collect();
        Ok(entry)
    });
    finish(committed.map(drop), step, condemned)
}

/// Declares condemned objects dead, and writes idx objects anew without them.
pub fn bury(
    repository: &Repository,
    marker: &mut Marker<'_>,
    fates: &Fates,
    due: &BTreeSet<ObjectName>,
) -> Result<(Step, Vec<ObjectName>)> {
    let mut dead = BTreeSet::new();
    let mut replaced = Vec::new();
    let mut step = Step::Nothing;
    let committed = repository.commit(&mut || {
        // What an earlier proposal replaced stands where that was not committed.
        replaced.clear();
        if !fates.still_hold(repository) {
            step = Step::Replan;
            return Err(Error::Interrupted);
        }
        marker.mark_new()?;
        // What was rescued is not condemned any more.
        let is_condemned =
            |name: &ObjectName| repository.index().fate(name) == Some(Fate::Condemned);
        let still: BTreeSet<_> = due.iter().filter(|name| is_condemned(name)).copied().collect();
        // A condemned pack that outlives others may still be rescued, as a whole.
        dead = garbage(repository, marker, &still, &|_| true)?;
        if dead.is_empty() {
            step = Step::Nothing;
            return Err(Error::Interrupted);
        }
        let mut entry = LogEntry::new(EntryKind::Dead);
        entry.dead = dead.iter().copied().collect();
        (entry.index_add, entry.index_remove) = repository.indexes_without(&dead)?;
        replaced.clone_from(&entry.index_remove);
        Ok(entry)
    });
    Ok((finish(committed.map(drop), step, dead)?, replaced))
}

fn finish(committed: Result<()>, step: Step, names: BTreeSet<ObjectName>) -> Result<Step> {
    match committed {
        Ok(()) => Ok(Step::Done(names)),
        Err(Error::Interrupted) if step == Step::Replan || names.is_empty() => Ok(step),
        Err(error) => Err(error),
    }
}

/// Of these objects those that still nothing refers to.
fn orphans_still(
    repository: &Repository,
    orphans: &BTreeSet<ObjectName>,
) -> Result<BTreeSet<ObjectName>> {
    let known = known(repository)?;
    Ok(orphans.iter().filter(|name| !known.contains(name)).copied().collect())
}

/// Names of all objects that the log speaks of.
pub fn known(repository: &Repository) -> Result<HashSet<ObjectName>> {
    let index = repository.index();
    let mut known: HashSet<_> = index.packs()?.into_iter().map(|(name, _)| name).collect();
    known.extend(index.index_names()?);
    known.extend(index.snapshot_names()?);
    known.extend(index.condemned());
    known.extend(index.dead());
    Ok(known)
}

/// Deletes objects that are dead, and idx objects that were replaced. Returns how many, and what the
/// store would not delete: that is tried again the next time.
pub fn delete(
    repository: &Repository,
    listed: &BTreeMap<ObjectName, (String, u64)>,
    replaced: &[ObjectName],
) -> Result<(u64, u64, Vec<PruneProblem>)> {
    let index = repository.index();
    let (mut count, mut bytes, mut problems) = (0, 0, Vec::new());
    for (name, (path, size)) in listed {
        let is_replaced = replaced.contains(name) && path.starts_with(paths::INDEX);
        // Only what the log says is dead, whatever was planned.
        if index.fate(name) != Some(Fate::Dead) && !is_replaced {
            continue;
        }
        match repository.store().delete(path) {
            Ok(()) => (count, bytes) = (count + 1, bytes + size),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => {
                problems.push(PruneProblem { object: path.clone(), detail: error.to_string() })
            }
        }
    }
    Ok((count, bytes, problems))
}

/// Deletes the parity of packs that are dead. Returns what the store would not delete.
pub fn delete_parity(
    repository: &Repository,
    parity: &HashMap<ObjectName, String>,
) -> Result<Vec<PruneProblem>> {
    let mut problems = Vec::new();
    for (name, path) in parity {
        if repository.index().fate(name) != Some(Fate::Dead) {
            continue;
        }
        match repository.store().delete(path) {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => {
                problems.push(PruneProblem { object: path.clone(), detail: error.to_string() })
            }
        }
    }
    Ok(problems)
}

/// Lets the log forget dead objects that are gone from the store, where they are so many that they
/// weigh.
pub fn forget_gone(repository: &Repository, mut dead: HashSet<ObjectName>) -> Result<()> {
    let index = repository.index();
    dead.retain(|name| index.fate(name) == Some(Fate::Dead));
    let others = index.index_names()?.len() + index.snapshot_names()?.len();
    if dead.len() < LEAST_GONE || dead.len() * GONE_PART < others {
        return Ok(());
    }
    repository.drop_dead(&dead)
}
