//! What is left of a damaged commit log, and what it says. Reads only.
//!
//! Readers of a sound log begin at its newest whole state. Here every entry that can be read counts:
//! one from before a hole may be the only one that tells that a snapshot was forgotten. What the local
//! index of this machine knows fills holes as far as it reaches.

use std::collections::{BTreeMap, BTreeSet};

use super::Repository;
use super::entry::StoredEntry;
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::log::{EntryKind, LogEntry};
use crate::format::paths;
use crate::id::ObjectName;
use crate::index::{Index, Position};

/// What the log last said of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It counts.
    Live,
    /// It was forgotten or replaced.
    Removed,
}

/// What is left of a log.
pub struct Remains {
    /// The greatest number that an entry has, or had when this machine last looked.
    pub last: Option<u64>,
    /// Numbers that are missing, unreadable or out of the chain, in runs.
    pub lost: Vec<(u64, u64)>,
    /// Of these, those that nothing stands at.
    pub missing: Vec<(u64, u64)>,
    /// What is wrong, an error for each run.
    pub errors: Vec<Error>,
    /// Whether the state at the end is known for certain.
    pub is_whole: bool,
    /// Whether all that is lost was lost before an earlier repair.
    pub is_known: bool,
    /// The log ends before the place where this machine saw it end, or differs there.
    pub is_rolled_back: bool,
    /// idx objects that it speaks of.
    pub indexes: BTreeMap<ObjectName, Standing>,
    /// Snapshots that it speaks of.
    pub snapshots: BTreeMap<ObjectName, Standing>,
    /// Packs and others that are condemned.
    pub condemned: BTreeSet<ObjectName>,
    /// What is dead.
    pub dead: BTreeSet<ObjectName>,
    /// Packs that a repair took off the list because they were not there.
    pub taken_off: BTreeSet<ObjectName>,
    /// Snapshots whose manifests an earlier repair could not read. They stand as live ones.
    pub unread: BTreeSet<ObjectName>,
    /// Key slots that were removed.
    pub slots_removed: BTreeSet<String>,
    /// The keys of epochs before this one were destroyed.
    pub oldest_epoch: u32,
    /// The newest copy of the configuration.
    pub config: Option<Vec<u8>>,
}

/// A local index that may know what the log lost.
pub struct Memory<'a> {
    index: &'a Index,
    position: Position,
}

impl<'a> Memory<'a> {
    /// What an index knows; `None` where it knows nothing or cannot be read.
    pub fn of(index: &'a Index) -> Option<Self> {
        let position = index.position().ok().flatten()?;
        Some(Self { index, position })
    }

    /// Where it saw the log end.
    pub fn position(&self) -> Position {
        self.position
    }

    fn state(&self) -> Result<LogEntry> {
        let mut entry = LogEntry::new(EntryKind::State);
        entry.index_add = self.index.index_names()?;
        entry.snapshot_add = self.index.snapshot_names()?;
        entry.condemn = self.index.condemned();
        entry.dead = self.index.dead();
        Ok(entry)
    }
}

/// How far the reading came.
struct Reading {
    remains: Remains,
    /// Hash of the entry before; `None` where it is not known.
    previous: Option<[u8; 32]>,
    /// The number that should come next.
    expected: u64,
    /// What repairs say was lost.
    forgiven: Vec<(u64, u64)>,
}

impl Repository {
    /// Reads all that is left of the log.
    pub fn read_remains(&self, memory: Option<&Memory<'_>>) -> Result<Remains> {
        let mut reading = Reading::new();
        let mut memory = memory;
        for number in self.log_numbers()? {
            if let Some(known) = memory.filter(|memory| memory.position.number < number) {
                reading.recall(known, None)?;
                memory = None;
            }
            reading.skip_to(number);
            match self.read_entry(number) {
                Ok(Some(stored)) => {
                    if let Some(known) = memory.filter(|memory| memory.position.number == number) {
                        let is_same = known.position == stored.position;
                        let is_readable = !stored.entry.is_filler();
                        reading.entry(stored);
                        reading.recall(known, is_readable.then_some(is_same))?;
                        memory = None;
                    } else {
                        reading.entry(stored);
                    }
                }
                Err(error) if self.is_older_than_keys(&error) => {
                    reading.unreadable(number, self.entry_hash(number)?.map(|(hash, _)| hash));
                }
                Ok(None) => reading.lose(number, Error::missing_object(&paths::log(number))),
                Err(error) if error.is_certain_damage() => reading.lose(number, error),
                Err(error) => return Err(error),
            }
        }
        if let Some(known) = memory {
            reading.remains.is_rolled_back = known.position.number >= reading.expected;
            reading.recall(known, None)?;
        }
        Ok(reading.finish())
    }
}

impl Reading {
    fn new() -> Self {
        Self {
            remains: Remains {
                last: None,
                lost: Vec::new(),
                missing: Vec::new(),
                errors: Vec::new(),
                is_whole: false,
                is_known: true,
                is_rolled_back: false,
                indexes: BTreeMap::new(),
                snapshots: BTreeMap::new(),
                condemned: BTreeSet::new(),
                dead: BTreeSet::new(),
                taken_off: BTreeSet::new(),
                unread: BTreeSet::new(),
                slots_removed: BTreeSet::new(),
                oldest_epoch: 0,
                config: None,
            },
            previous: Some([0; 32]),
            expected: 0,
            forgiven: Vec::new(),
        }
    }

    /// Everything up to and without `number` that was not met is missing.
    fn skip_to(&mut self, number: u64) {
        if number > self.expected {
            self.remains.errors.push(Error::missing_object(&paths::log(self.expected)));
            push_run(&mut self.remains.lost, self.expected, number - 1);
            push_run(&mut self.remains.missing, self.expected, number - 1);
            self.previous = None;
            self.remains.is_whole = false;
            self.met(number - 1);
        }
    }

    fn met(&mut self, number: u64) {
        self.expected = number.saturating_add(1);
        self.remains.last = Some(number);
    }

    fn lose(&mut self, number: u64, error: Error) {
        self.remains.errors.push(error);
        push_run(&mut self.remains.lost, number, number);
        self.previous = None;
        self.remains.is_whole = false;
        self.met(number);
    }

    /// An entry whose keys were destroyed: a later state says what it did.
    fn unreadable(&mut self, number: u64, hash: Option<[u8; 32]>) {
        self.previous = hash;
        self.remains.is_whole = false;
        self.met(number);
    }

    fn entry(&mut self, stored: StoredEntry) {
        let StoredEntry { position, entry, .. } = stored;
        if self.previous.is_some_and(|previous| previous != entry.previous) {
            let path = paths::log(position.number);
            let invalid = FormatError::Invalid("chain of log entries");
            self.lose(position.number, Error::damaged(path, invalid));
        }
        self.previous = Some(position.hash);
        self.remains.is_whole |= entry.is_state();
        if entry.is_filler() {
            self.remains.errors.push(Error::missing_object(&paths::log(position.number)));
            push_run(&mut self.remains.lost, position.number, position.number);
            self.remains.is_whole = false;
        }
        self.met(position.number);
        if entry.kind == EntryKind::Repair {
            self.forgiven.extend(&entry.lost);
        }
        if !entry.config.is_empty() {
            self.remains.config = Some(entry.config.clone());
        }
        self.remains.apply(&entry);
    }

    /// Takes in what this machine knew as of a place in the log. `is_same`: whether the entry that
    /// can be read there is the one it knew.
    fn recall(&mut self, memory: &Memory<'_>, is_same: Option<bool>) -> Result<()> {
        if is_same == Some(true) && self.remains.is_whole {
            return Ok(());
        }
        let mut state = memory.state()?;
        // It knows nothing of these.
        state.unread = self.remains.unread.iter().copied().collect();
        if is_same == Some(false) {
            // Another history: what it knows of is there to be found, no more.
            self.remains.is_rolled_back = true;
            self.remains.is_whole = false;
            let found = state.index_add.iter().map(|name| (*name, Standing::Live));
            found.for_each(|(name, live)| _ = self.remains.indexes.entry(name).or_insert(live));
            let found = state.snapshot_add.iter().map(|name| (*name, Standing::Live));
            found.for_each(|(name, live)| _ = self.remains.snapshots.entry(name).or_insert(live));
            return Ok(());
        }
        if memory.position.number >= self.expected {
            self.skip_to(memory.position.number + 1);
        }
        self.remains.apply(&state);
        self.remains.is_whole = true;
        // Where something else stands in the place of what it saw, that is what the next one continues.
        self.previous = self.previous.or(Some(memory.position.hash));
        Ok(())
    }

    fn finish(mut self) -> Remains {
        let forgiven = |run: &(u64, u64)| {
            self.forgiven.iter().any(|(first, last)| first <= &run.0 && run.1 <= *last)
        };
        let mut remains = std::mem::replace(&mut self.remains, Self::new().remains);
        remains.is_known = remains.lost.iter().all(forgiven);
        if remains.last.is_none() {
            remains.errors.push(Error::missing_object("the commit log (log/)"));
        }
        if !remains.is_whole {
            // Who was rescued in an entry that is lost cannot be told: nothing stays condemned.
            remains.condemned.clear();
        }
        remains
    }
}

impl Remains {
    fn apply(&mut self, entry: &LogEntry) {
        if entry.is_state() {
            for known in [&mut self.indexes, &mut self.snapshots] {
                known.values_mut().for_each(|standing| *standing = Standing::Removed);
            }
            let mut missing: BTreeSet<_> = entry.condemn.iter().copied().collect();
            self.taken_off.retain(|name| missing.contains(name));
            if entry.kind == EntryKind::Repair {
                missing.retain(|name| !self.condemned.contains(name));
                self.taken_off.append(&mut missing);
            }
            self.condemned.clear();
            self.unread = entry.unread.iter().copied().collect();
            self.snapshots.extend(entry.unread.iter().map(|name| (*name, Standing::Live)));
        }
        let settled = entry.snapshot_add.iter().chain(&entry.snapshot_remove);
        settled.for_each(|name| _ = self.unread.remove(name));
        for (known, added, removed) in [
            (&mut self.indexes, &entry.index_add, &entry.index_remove),
            (&mut self.snapshots, &entry.snapshot_add, &entry.snapshot_remove),
        ] {
            added.iter().for_each(|name| _ = known.insert(*name, Standing::Live));
            removed.iter().for_each(|name| _ = known.insert(*name, Standing::Removed));
        }
        self.condemned.extend(&entry.condemn);
        self.dead.extend(&entry.dead);
        self.slots_removed.extend(entry.slots_removed.iter().cloned());
        self.oldest_epoch = self.oldest_epoch.max(entry.oldest_epoch);
        let settled = entry.rescue.iter().chain(&entry.dead);
        settled.for_each(|name| {
            self.condemned.remove(name);
            self.taken_off.remove(name);
        });
    }

    /// Whether the log says that an object of one kind counts. What it does not know counts where
    /// entries are lost or `all` is asked for.
    pub fn counts(
        &self,
        known: &BTreeMap<ObjectName, Standing>,
        name: &ObjectName,
        all: bool,
    ) -> bool {
        match known.get(name) {
            Some(standing) => *standing == Standing::Live,
            None => (all || !self.is_whole) && !self.dead.contains(name),
        }
    }
}

/// Adds a run, joined to the one before where they touch.
fn push_run(runs: &mut Vec<(u64, u64)>, first: u64, last: u64) {
    match runs.last_mut() {
        Some(run) if run.1.saturating_add(1) >= first => run.1 = run.1.max(last),
        _ => runs.push((first, last)),
    }
}
