//! The commit log: reading it into the index, and the one way to change the state of a repository.
//!
//! Creating `log/<n+1>` **is** the commit. There are no locks: of several writers that try the same
//! number one wins, the others apply what it wrote, check their own change against it, and go on.

use std::collections::{HashMap, HashSet};

use super::Repository;
use super::entry::StoredEntry;
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::log::{EntryKind, LogEntry};
use crate::format::paths;
use crate::id::ObjectName;
use crate::index::{Change, Fate, Fetched, IndexError, Position};

/// A whole state is written after this many entries, so that opening without a local index reads
/// few of them.
const STATE_EVERY: u64 = 128;

impl Repository {
    /// Reads the log up to its head and applies what is new to the index.
    pub fn sync(&self) -> Result<Position> {
        loop {
            let from = self.index.position()?;
            let next = match from {
                Some(position) if self.is_salvaged() => Ok(position),
                None => self.bootstrap(),
                Some(position) => self.follow(position),
            };
            match next {
                Err(error)
                    if self.is_older_than_keys(&error)
                        && let Some(position) = from =>
                {
                    // What follows was written under keys that were destroyed since: begin again at
                    // the newest whole state.
                    self.expect_entry(position)?;
                    self.index.unpin(position)?;
                }
                Err(error) if let Some(epoch) = error.unknown_epoch() => {
                    return Err(Error::LeftOut { location: self.store.location(), epoch });
                }
                Err(Error::Index(IndexError::Moved)) => {}
                other => return other,
            }
        }
    }

    /// Brings the index up to date, as far as that is possible. Whether that changed anything.
    pub(crate) fn has_moved(&self) -> bool {
        let before = self.index.position();
        matches!((before, self.sync()), (Ok(before), Ok(now)) if before != Some(now))
    }

    /// Changes the state of the repository. `propose` makes the entry from the index, which stands
    /// at the head of the log when it is called; it is called again whenever another writer was
    /// faster, and must check each time that its change still holds.
    pub fn commit(&self, propose: &mut dyn FnMut() -> Result<LogEntry>) -> Result<Position> {
        if self.is_salvaged() {
            return Err(Error::Conflict("a damaged repository was opened for reading only".into()));
        }
        loop {
            let head = self.sync()?;
            let mut entry = propose()?;
            entry.previous = head.hash;
            entry.time_ns = self.environment.clock.now().as_nanosecond() as i64;
            entry.author.clone_from(&self.environment.author);
            let number = head.number + 1;
            let stored = self.seal_entry(&self.keys, number, &entry)?;
            if self.put_entry(number, &stored)? {
                let position = Position { number, hash: *blake3::hash(&stored).as_bytes() };
                tracing::info!(
                    number,
                    kind = ?entry.kind,
                    index_add = entry.index_add.len(),
                    snapshots = entry.snapshot_add.len(),
                    rescued = entry.rescue.len(),
                    condemned = entry.condemn.len(),
                    dead = entry.dead.len(),
                    "committed"
                );
                // The change is made. Should the index fail now, it catches up at the next sync.
                if self.apply(Some(head), position, &entry, &|_| false).is_ok() {
                    self.checkpoint_state(position);
                }
                return Ok(position);
            }
            tracing::info!(number, "another writer was faster");
        }
    }

    /// Writes the very first entry of a new repository.
    pub(super) fn put_first_entry(&self, mut entry: LogEntry) -> Result<()> {
        entry.time_ns = self.environment.clock.now().as_nanosecond() as i64;
        entry.author.clone_from(&self.environment.author);
        let stored = self.seal_entry(&self.keys, 0, &entry)?;
        if self.put_entry(0, &stored)? {
            return Ok(());
        }
        Err(Error::NotEmpty { location: self.store.location() })
    }

    /// Loads the state from nothing: the newest whole state in the log and what follows it.
    fn bootstrap(&self) -> Result<Position> {
        let newest = *self
            .log_numbers()?
            .last()
            .ok_or_else(|| Error::missing_object("the commit log (log/)"))?;
        let mut number = newest;
        let state = loop {
            let stored = self
                .read_entry(number)?
                .ok_or_else(|| Error::missing_object(&paths::log(number)))?;
            if stored.entry.is_state() {
                break stored;
            }
            number = number.checked_sub(1).ok_or_else(|| {
                Error::Conflict("the commit log does not begin with a state".to_owned())
            })?;
        };
        self.keys.advance_to(state.epoch);
        let mut entries = vec![state];
        self.gather(&mut entries, false)?;
        self.replay(None, &entries)
    }

    /// Goes on from where the index stands, after a look that the log still says what it said.
    fn follow(&self, position: Position) -> Result<Position> {
        let epoch = match self.expect_entry(position) {
            Ok(epoch) => epoch,
            Err(error) => return self.explain_by_repair(position, error),
        };
        // Whatever was found when the repository was opened: nothing new is written with older keys.
        self.keys.advance_to(epoch);
        let entry = LogEntry::new(EntryKind::Noop);
        let mut entries = vec![StoredEntry { position, entry, epoch }];
        if let Err(error) = self.gather(&mut entries, true) {
            return self.explain_by_repair(position, error);
        }
        self.replay(Some(position), &entries[1..])
    }

    /// Where the log was repaired over what this machine saw, says so: to accept that is for people.
    fn explain_by_repair(&self, seen: Position, error: Error) -> Result<Position> {
        if !matches!(error, Error::RolledBack { .. }) && !error.is_object_damage() {
            return Err(error);
        }
        for number in self.log_numbers()?.into_iter().rev().take_while(|n| *n > seen.number) {
            let Ok(Some(StoredEntry { entry, .. })) = self.read_entry(number) else { continue };
            if entry.kind == EntryKind::Repair {
                let location = self.store.location();
                let detail = format!("{}; {} repaired it in entry {number}", error, entry.author);
                return Err(Error::RolledBack { location, detail });
            }
        }
        Err(error)
    }

    /// Fails where the log does not hold this entry any more. Returns the epoch of its keys.
    pub(super) fn expect_entry(&self, position: Position) -> Result<u32> {
        let path = paths::log(position.number);
        let rolled_back =
            |detail: String| Error::RolledBack { location: self.store.location(), detail };
        match self.entry_hash(position.number)? {
            None => Err(rolled_back(format!("{path} was there before and is gone"))),
            Some((hash, _)) if hash != position.hash => {
                // Damage is not a rollback.
                self.read_entry(position.number)?;
                Err(rolled_back(format!("{path} is not the entry that was there before")))
            }
            Some((_, epoch)) => Ok(epoch),
        }
    }

    /// Reads on from the last of these entries to the head of the log. With `pinned`, this machine
    /// has seen the first of them before.
    fn gather(&self, entries: &mut Vec<StoredEntry>, pinned: bool) -> Result<()> {
        while let Some(last) = entries.last().map(|last| last.position)
            && let Some(next) = self.read_entry(last.number + 1)?
        {
            self.keys.advance_to(next.epoch);
            let path = paths::log(next.position.number);
            if next.entry.previous != last.hash && !pinned {
                return Err(Error::damaged(path, FormatError::Invalid("chain of log entries")));
            }
            if next.entry.previous != last.hash {
                return Err(Error::RolledBack {
                    location: self.store.location(),
                    detail: format!("{path} does not continue the entry before it"),
                });
            }
            entries.push(next);
        }
        Ok(())
    }

    /// Finds out when condemned objects were condemned of which the index knows only that: it began
    /// with a whole state, and the entries before that tell. Where they cannot be read any more, the
    /// time of the last one that can be is taken.
    pub(crate) fn date_condemned(&self) -> Result<()> {
        let mut undated: HashSet<_> = self.index.condemned_undated()?.into_iter().collect();
        let Some(head) = self.index.position()? else { return Ok(()) };
        let mut earliest = i64::MAX;
        for number in (0..=head.number).rev() {
            if undated.is_empty() {
                return Ok(());
            }
            let Ok(Some(StoredEntry { entry, .. })) = self.read_entry(number) else { break };
            earliest = earliest.min(entry.time_ns);
            if entry.kind != EntryKind::State {
                let mut found = entry.condemn;
                found.retain(|name| undated.remove(name));
                self.index.date_condemned(&found, entry.time_ns)?;
            }
        }
        Ok(self.index.date_condemned(&undated.into_iter().collect::<Vec<_>>(), earliest)?)
    }

    /// Applies entries up to the head. Objects that a later one of them removes are passed over: a
    /// prune may have deleted them.
    fn replay(&self, from: Option<Position>, entries: &[StoredEntry]) -> Result<Position> {
        // A repair is the whole state, whatever this machine knew: what came before may be lost.
        let repair = entries.iter().rposition(|stored| stored.entry.kind == EntryKind::Repair);
        let entries = &entries[repair.unwrap_or(0)..];
        let mut removed = HashMap::new();
        for (number, stored) in entries.iter().enumerate() {
            let StoredEntry { entry, .. } = stored;
            for name in entry.index_remove.iter().chain(&entry.snapshot_remove) {
                removed.insert(*name, number);
            }
        }
        let mut position = from;
        for (number, stored) in entries.iter().enumerate() {
            let is_gone = |name: &ObjectName| removed.get(name).is_some_and(|at| *at > number);
            match self.apply(position, stored.position, &stored.entry, &is_gone) {
                Ok(()) => position = Some(stored.position),
                // It may have been removed after the head was read.
                Err(Error::Missing { .. }) if self.has_moved_on(entries)? => {
                    return Err(IndexError::Moved.into());
                }
                Err(error) => return Err(error),
            }
        }
        position.ok_or_else(|| Error::missing_object("the commit log (log/)"))
    }

    fn has_moved_on(&self, entries: &[StoredEntry]) -> Result<bool> {
        let Some(last) = entries.last() else { return Ok(false) };
        Ok(self.read_entry(last.position.number + 1)?.is_some())
    }

    /// Applies one entry, without the objects of which `is_gone` knows that they are removed later.
    pub(super) fn apply(
        &self,
        from: Option<Position>,
        to: Position,
        entry: &LogEntry,
        is_gone: &dyn Fn(&ObjectName) -> bool,
    ) -> Result<()> {
        let is_state = entry.kind == EntryKind::State;
        // Who may only write cannot read manifests, and knows no idx object but its own.
        let is_write_only = self.is_write_only();
        if is_state && from.is_some() && !is_write_only {
            self.compare_state(to, entry, is_gone)?;
        }
        let is_repair = entry.kind == EntryKind::Repair;
        let mut dropped = if is_state && from.is_some() { self.index.dead() } else { Vec::new() };
        dropped.retain(|name| entry.dead.binary_search(name).is_err());
        // A state that continues what is known adds nothing: only the position moves.
        let load = |name: &&ObjectName| (!is_state || from.is_none()) && !is_gone(name);
        let mut index_add = entry.index_add.iter().filter(load).map(|name| -> Fetched<_> {
            self.load_index(name).map(|packs| (*name, packs)).map_err(Into::into)
        });
        let readable = entry.snapshot_add.iter().filter(|_| !is_write_only);
        let mut snapshot_add = readable.filter(load).map(|name| -> Fetched<_> {
            self.load_snapshot(name).map(|snapshot| (*name, snapshot)).map_err(Into::into)
        });
        let change = Change {
            position: to,
            time_ns: entry.time_ns,
            replace: is_repair || (is_state && from.is_none()),
            is_repair: is_repair || entry.was_repaired,
            index_add: &mut index_add,
            ask_pack: &|name| self.ask_pack(name),
            index_remove: &entry.index_remove,
            snapshot_add: &mut snapshot_add,
            snapshot_remove: &entry.snapshot_remove,
            rescue: &entry.rescue,
            condemn: &entry.condemn,
            dead: &entry.dead,
            dropped: &dropped,
        };
        self.apply_change(from, change)?;
        self.keys.forget_before(entry.oldest_epoch);
        Ok(())
    }

    /// Moves the index. Errors of the repository that it passes on come out as they went in.
    pub(super) fn apply_change(&self, from: Option<Position>, change: Change<'_>) -> Result<()> {
        self.index.apply(from, change).map_err(|error| match error {
            IndexError::Fetch(source) => match source.downcast::<Error>() {
                Ok(error) => *error,
                Err(source) => IndexError::Fetch(source).into(),
            },
            other => other.into(),
        })
    }

    /// A state in the log must say what the entries before it add up to; of dead packs it may leave out
    /// some.
    fn compare_state(
        &self,
        at: Position,
        entry: &LogEntry,
        is_gone: &dyn Fn(&ObjectName) -> bool,
    ) -> Result<()> {
        let left = |names: &[ObjectName]| -> Vec<ObjectName> {
            names.iter().filter(|name| !is_gone(name)).copied().collect()
        };
        let same = left(&entry.index_add) == left(&self.index.index_names()?)
            && left(&entry.snapshot_add) == left(&self.index.snapshot_names()?)
            && entry.condemn == self.index.condemned()
            && entry.dead.is_sorted()
            && entry.dead.iter().all(|name| self.index.fate(name) == Some(Fate::Dead));
        if same {
            return Ok(());
        }
        Err(Error::Conflict(format!("{} contradicts the entries before it", paths::log(at.number))))
    }

    /// Writes a whole state now and then. Only a convenience: failing to is no error.
    fn checkpoint_state(&self, head: Position) {
        // Whoever may only add is not believed what the whole state is.
        if !(head.number + 1).is_multiple_of(STATE_EVERY) || self.is_write_only() {
            return;
        }
        let Ok(mut entry) = self.whole_state() else { return };
        entry.previous = head.hash;
        entry.time_ns = self.environment.clock.now().as_nanosecond() as i64;
        entry.author.clone_from(&self.environment.author);
        let number = head.number + 1;
        let Ok(stored) = self.seal_entry(&self.keys, number, &entry) else { return };
        if let Ok(true) = self.put_entry(number, &stored) {
            let position = Position { number, hash: *blake3::hash(&stored).as_bytes() };
            let _ = self.apply(Some(head), position, &entry, &|_| false);
        }
    }

    /// Writes a whole state without these dead objects. The caller vouches for it that they are gone from
    /// the store; who has something from before that entry in hand is refused then.
    pub(crate) fn drop_dead(&self, gone: &HashSet<ObjectName>) -> Result<()> {
        let mut state = || {
            let mut entry = self.whole_state()?;
            entry.dead.retain(|name| !gone.contains(name));
            Ok(entry)
        };
        self.commit(&mut state).map(drop)
    }

    /// Fails where an object of one's own that was stored after entry `since` may have been declared dead
    /// without a trace. To be asked before a commit.
    pub(super) fn vouch(&self, since: u64) -> Result<()> {
        if self.index.turns().horizon <= since {
            return Ok(());
        }
        Err(Error::Pruned { what: "what was stored so far".into() })
    }

    pub(super) fn whole_state(&self) -> Result<LogEntry> {
        let mut entry = LogEntry::new(EntryKind::State);
        entry.was_repaired = self.index.was_repaired()?;
        entry.config = self.config.encode(&self.keys);
        entry.index_add = self.index.index_names()?;
        entry.snapshot_add = self.index.snapshot_names()?;
        entry.condemn = self.index.condemned();
        entry.dead = self.index.dead();
        entry.unread = self.unread_snapshots()?;
        Ok(entry)
    }

    /// Snapshots that nobody forgot and whose manifests a repair could not read, as of the newest state.
    pub fn unread_snapshots(&self) -> Result<Vec<ObjectName>> {
        let Some(head) = self.index.position()? else { return Ok(Vec::new()) };
        if !self.index.was_repaired()? {
            return Ok(Vec::new());
        }
        let mut settled = HashSet::new();
        for number in (0..=head.number).rev() {
            let Some(StoredEntry { mut entry, .. }) = self.read_entry(number)? else { break };
            settled.extend(entry.snapshot_add.iter().chain(&entry.snapshot_remove).copied());
            if entry.is_state() {
                entry.unread.retain(|name| !settled.contains(name));
                return Ok(entry.unread);
            }
        }
        Ok(Vec::new())
    }
}
