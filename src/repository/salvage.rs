//! Opening a damaged repository for reading: what can still be read is, what cannot is named.
//!
//! An ordinary open stops at the first log entry, idx object or snapshot that it cannot read, because
//! a writer must know the whole state. Somebody who has only the repository left wants everything
//! that is undamaged instead. Idx objects are a convenience: packs have directories of their own.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::{Environment, Repository};
use crate::crypto::envelope::HEADER_LEN;
use crate::crypto::slot::Secret;
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::index::IndexedPack;
use crate::format::log::LogEntry;
use crate::format::pack;
use crate::format::paths;
use crate::id::ObjectName;
use crate::index::{Change, Fetched, Index, Position, Told};
use crate::store::{Store, StoreError};

/// What the readable part of the log says.
struct LogState {
    /// Where it ends.
    position: Position,
    /// Whether every entry since the last whole state could be read.
    is_whole: bool,
    indexes: BTreeSet<ObjectName>,
    snapshots: BTreeSet<ObjectName>,
    condemned: BTreeSet<ObjectName>,
    dead: BTreeSet<ObjectName>,
}

impl Repository {
    /// Opens what is readable of a damaged repository, with an index of its own in a temporary
    /// file. [`Repository::damage`] says what is not. Nothing can be committed to it.
    ///
    /// Where log entries are lost, all snapshots and packs that stand in the store count, forgotten
    /// ones that were not deleted yet included.
    pub fn salvage(
        store: Arc<dyn Store>,
        secret: &Secret,
        environment: Environment,
    ) -> Result<Self> {
        let mut repository = Self::unlock(store, secret, environment)?;
        // Damage must not hide that the log was replaced by an older one.
        if let Some(pinned) = repository.index.position().ok().flatten() {
            // What cannot be read is named below.
            if let Err(error @ Error::RolledBack { .. }) = repository.expect_entry(pinned) {
                return Err(error);
            }
        }
        repository.environment.cache = None;
        repository.index = Index::temporary(repository.config.id)?;
        let damage = RefCell::new(Vec::new());
        let state = repository.readable_log(&damage)?;
        repository.load_readable(&state, &damage)?;
        repository.damage = Some(damage.into_inner());
        Ok(repository)
    }

    /// What could not be read when the repository was opened by [`Repository::salvage`].
    pub fn damage(&self) -> &[Error] {
        self.damage.as_deref().unwrap_or_default()
    }

    /// Whether log entries or snapshots are lost, so that nobody knows which snapshot is the newest.
    pub fn may_lack_snapshots(&self) -> bool {
        self.damage().iter().any(|error| hides_snapshots(&error.object()))
    }

    /// Whether this is what [`Repository::salvage`] could read.
    pub fn is_salvaged(&self) -> bool {
        self.damage.is_some()
    }

    fn readable_log(&self, damage: &RefCell<Vec<Error>>) -> Result<LogState> {
        let numbers = self.log_numbers()?;
        let mut state = LogState {
            position: Position { number: numbers.last().copied().unwrap_or(0), hash: [0; 32] },
            is_whole: true,
            indexes: BTreeSet::new(),
            snapshots: BTreeSet::new(),
            condemned: BTreeSet::new(),
            dead: BTreeSet::new(),
        };
        if numbers.is_empty() {
            state.lose(damage, Error::missing_object("the commit log (log/)"));
        }
        let mut entries: Vec<LogEntry> = Vec::new();
        // The number and the `previous` of the entry that was read last, the next newer one.
        let mut newer: Option<(u64, [u8; 32])> = None;
        for &number in numbers.iter().rev() {
            if newer.is_some_and(|(newer, _)| newer != number + 1) {
                state.lose(damage, Error::missing_object(&paths::log(number + 1)));
                newer = None;
            }
            match self.read_entry(number) {
                Ok(Some(stored)) => {
                    let hash = stored.position.hash;
                    if newer.is_some_and(|(_, previous)| previous != hash) {
                        let invalid = FormatError::Invalid("chain of log entries");
                        state.lose(damage, Error::damaged(paths::log(number + 1), invalid));
                    }
                    let is_state = stored.entry.is_state();
                    newer = Some((number, stored.entry.previous));
                    entries.push(stored.entry);
                    if is_state {
                        break;
                    }
                }
                Ok(None) => state.lose(damage, Error::missing_object(&paths::log(number))),
                Err(error) if error.is_object_damage() => {
                    state.lose(damage, error);
                    newer = None;
                }
                Err(error) => return Err(error),
            }
        }
        let begins_whole = entries.last().is_some_and(|oldest| oldest.is_state());
        if !begins_whole && let Some(before) = numbers.first().and_then(|n| n.checked_sub(1)) {
            state.lose(damage, Error::missing_object(&paths::log(before)));
        }
        state.is_whole &= begins_whole;
        entries.iter().rev().for_each(|entry| state.apply(entry));
        if !state.is_whole {
            state.indexes.extend(self.stored_names(paths::INDEX)?);
            state.snapshots.extend(self.stored_names(paths::SNAPSHOTS)?);
        }
        Ok(state)
    }

    fn stored_names(&self, folder: &str) -> Result<Vec<ObjectName>> {
        let listed = self.store.list(folder)?;
        Ok(listed.iter().filter_map(|object| paths::object_name(&object.path)).collect())
    }

    /// Fills the index with what can be read.
    fn load_readable(&self, state: &LogState, damage: &RefCell<Vec<Error>>) -> Result<()> {
        let covered = RefCell::new(HashSet::new());
        let lost_indexes = RefCell::new(!state.is_whole);
        let keep = |error: Error| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            if !error.is_object_damage() {
                return Err(error.into());
            }
            damage.borrow_mut().push(error);
            Ok(())
        };
        let indexed = state.indexes.iter().filter_map(|name| -> Option<Fetched<_>> {
            match self.load_index(name) {
                Ok(object) => {
                    // What a write-only key says of a pack is no reason not to ask the pack.
                    let believed = object.packs.iter().filter(|_| !object.is_sealed);
                    covered.borrow_mut().extend(believed.map(|pack| pack.name));
                    Some(Ok((*name, object)))
                }
                Err(error) => {
                    *lost_indexes.borrow_mut() = true;
                    keep(error).err().map(Err)
                }
            }
        });
        let bare = std::iter::once_with(|| {
            let names =
                if *lost_indexes.borrow() { self.stored_names(paths::DATA) } else { Ok(vec![]) };
            names.unwrap_or_else(|error| {
                damage.borrow_mut().push(error);
                Vec::new()
            })
        });
        // Each pack stands for an idx object of its own.
        let bare = bare.flatten().filter_map(|name| -> Option<Fetched<_>> {
            if covered.borrow().contains(&name) {
                return None;
            }
            match self.read_pack_directory(&name) {
                Ok(pack) => Some(Ok((name, vec![pack].into()))),
                Err(error) => keep(error).err().map(Err),
            }
        });
        let mut index_add = indexed.chain(bare);
        let mut snapshot_add = state.snapshots.iter().filter_map(|name| -> Option<Fetched<_>> {
            match self.load_snapshot(name) {
                Ok(snapshot) => Some(Ok((*name, snapshot))),
                Err(error) => keep(error).err().map(Err),
            }
        });
        let condemned: Vec<_> = state.condemned.iter().copied().collect();
        let dead: Vec<_> = state.dead.iter().copied().collect();
        let change = Change {
            time_ns: 0,
            position: state.position,
            replace: true,
            is_repair: false,
            index_add: &mut index_add,
            ask_pack: &|name| self.ask_pack(name),
            index_remove: &[],
            snapshot_add: &mut snapshot_add,
            snapshot_remove: &[],
            rescue: &[],
            condemn: &condemned,
            dead: &dead,
            dropped: &[],
        };
        self.apply_change(None, change)
    }

    /// What a pack says of itself, for the index to decide by. That a pack is gone or damaged must not
    /// stop anybody: then what is known of it stays.
    pub(super) fn ask_pack(&self, name: &ObjectName) -> Told {
        match self.read_pack_directory(name) {
            Ok(pack) => Ok(Some(pack)),
            Err(error) if error.is_object_damage() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What a pack says of itself, read without its blobs. They prove themselves when read.
    pub fn read_pack_directory(&self, name: &ObjectName) -> Result<IndexedPack> {
        let path = paths::pack(name);
        let damaged = |error| Error::damaged(&path, error);
        let size = match self.store.head(&path) {
            Ok(size) => size,
            Err(StoreError::NotFound { .. }) => return Err(Error::missing_object(&path)),
            Err(error) => return Err(error.into()),
        };
        let whole = (HEADER_LEN + pack::FOOTER_LEN) as u64;
        if size < whole {
            return Err(damaged(FormatError::Truncated("pack")));
        }
        let header = self.store.get_range(&path, 0, HEADER_LEN)?;
        let footer =
            self.store.get_range(&path, size - pack::FOOTER_LEN as u64, pack::FOOTER_LEN)?;
        let length = pack::parse_footer(&footer).map_err(damaged)?;
        let Some(start) = (size - whole).checked_sub(length as u64) else {
            return Err(damaged(FormatError::Truncated("pack directory")));
        };
        let sealed = self.store.get_range(&path, start + HEADER_LEN as u64, length)?;
        let header = *header.first_chunk().expect("a range has the length asked for");
        let (kind, entries) =
            pack::open_directory(&self.keys, header, &sealed, start).map_err(damaged)?;
        Ok(IndexedPack { name: *name, kind, size, header, entries })
    }
}

/// Whether the loss of an object may be the loss of a snapshot.
pub fn hides_snapshots(object: &str) -> bool {
    object.starts_with(paths::LOG)
        || object.starts_with(paths::SNAPSHOTS)
        || object.contains("(log/)")
}

impl LogState {
    fn lose(&mut self, damage: &RefCell<Vec<Error>>, error: Error) {
        self.is_whole = false;
        damage.borrow_mut().push(error);
    }

    fn apply(&mut self, entry: &LogEntry) {
        if entry.is_state() {
            let (position, is_whole) = (self.position, self.is_whole);
            let empty = BTreeSet::new;
            let (indexes, snapshots) = (empty(), empty());
            let (condemned, dead) = (empty(), empty());
            *self = Self { position, is_whole, indexes, snapshots, condemned, dead };
        }
        self.indexes.extend(&entry.index_add);
        self.snapshots.extend(&entry.snapshot_add);
        self.condemned.extend(&entry.condemn);
        self.dead.extend(&entry.dead);
        entry.index_remove.iter().for_each(|name| _ = self.indexes.remove(name));
        entry.snapshot_remove.iter().for_each(|name| _ = self.snapshots.remove(name));
        let settled = entry.rescue.iter().chain(&entry.dead);
        settled.for_each(|name| _ = self.condemned.remove(name));
    }
}
