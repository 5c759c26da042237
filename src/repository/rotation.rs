//! Rotation of keys: a new epoch for everything new at once, a prune that writes anew what is left of
//! older ones, and at last their destruction.
//!
//! An epoch bears the number of the log entry that begins it, so of two rotations at once one wins. The
//! slots with the new keys are stored before that entry is: a crash in between leaves slots whose
//! newest epoch never began, which `settle` notices.

use std::collections::HashSet;

use super::Repository;
use super::entry::begins;
use super::keys::NamedSlot;
use crate::crypto::envelope::{HEADER_LEN, Header, ObjectKind};
use crate::crypto::epoch::Epoch;
use crate::crypto::keys::KeyRing;
use crate::crypto::slot::Slot;
use crate::error::{Error, Result};
use crate::format::log::{EntryKind, LogEntry};
use crate::format::paths;
use crate::id::ObjectName;
use crate::index::Position;
use crate::store::{Store, StoreError};

/// What came of a rotation.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// Number of the new epoch.
    pub epoch: u32,
    /// Labels of the slots that were given the new keys.
    pub slots: Vec<String>,
    /// Names of objects in `keys/` that were not: damaged, or not made by an owner.
    pub left_out: Vec<String>,
}

/// How much of the repository is encrypted with the keys of one epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct EpochUse {
    /// Its number.
    pub epoch: u32,
    /// Whether new objects are encrypted with it.
    pub is_current: bool,
    /// Live and condemned packs.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Valid idx objects.
    pub indexes: u64,
    /// Live snapshots.
    pub snapshots: u64,
}

impl EpochUse {
    fn is_unused(&self) -> bool {
        self.packs + self.indexes + self.snapshots == 0
    }
}

/// Finds the newest epoch of these keys that began, and makes it the current one. The log entry with
/// its number proves that it did, and where that one is damaged any later one under its keys.
pub(super) fn settle(store: &dyn Store, keys: &KeyRing) -> Result<()> {
    for number in keys.epochs().into_iter().rev().filter(|number| *number > 0) {
        let stored = match store.get(&paths::log(number.into())) {
            Ok(stored) => Some(stored),
            Err(StoreError::NotFound { .. }) => None,
            // What a disk cannot read is as good as damaged.
            Err(StoreError::Failed { action: "read", .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let header = stored.as_ref().and_then(|it| Header::parse(it, ObjectKind::Log).ok());
        let is_of = |header: &Header| header.epoch() == number && header.cipher(keys).is_ok();
        if let (Some(stored), true) = (&stored, header.as_ref().is_some_and(is_of))
            && !begins(store, keys, number, stored)?
        {
            keys.forget(number);
            continue;
        }
        if header.as_ref().is_some_and(is_of) || is_proven_later(store, number, &is_of)? {
            keys.switch_to(number);
            return Ok(());
        }
        // Another entry took that number: this epoch never was. Without one it may be lost.
        if header.is_some() {
            keys.forget(number);
        }
    }
    Ok(())
}

/// Whether an entry after the one that began an epoch was made with its keys.
fn is_proven_later(
    store: &dyn Store,
    number: u32,
    is_of: &dyn Fn(&Header) -> bool,
) -> Result<bool> {
    let listed = store.list(paths::LOG)?;
    let is_later = |path: &str| paths::log_number(path).is_some_and(|at| at > number.into());
    for object in listed.iter().rev().filter(|object| is_later(&object.path)) {
        // Damage is told by whoever reads the entry.
        let Ok(header) = store.get_range(&object.path, 0, HEADER_LEN) else { continue };
        if Header::parse(&header, ObjectKind::Log).is_ok_and(|header| is_of(&header)) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Repository {
    /// Whether the keys at hand can only add to the repository.
    pub fn is_write_only(&self) -> bool {
        self.keys.is_write_only()
    }

    /// Begins a new epoch: everything written from here on, by anybody, is encrypted with new keys.
    /// Every slot that an owner made is given them; nobody needs its password for that.
    pub fn rotate_keys(&self) -> Result<Rotation> {
        self.expect_owner()?;
        loop {
            let head = self.sync()?;
            let epoch = u32::try_from(head.number + 1)
                .map_err(|_| Error::Conflict("the commit log is too long to rotate keys".into()))?;
            let keys = self.keys.copy();
            keys.begin(Epoch::generate(epoch, &*self.environment.entropy));
            if let Some(rotation) = self.replace_keys(head, keys, epoch, 0)? {
                return Ok(rotation);
            }
        }
    }

    /// Destroys the keys of old epochs where nothing is encrypted with them any more. Returns the
    /// numbers of those that are gone. The part of the log from before is not readable then.
    pub fn destroy_old_keys(&self) -> Result<Vec<u32>> {
        self.expect_owner()?;
        loop {
            let head = self.sync()?;
            let current = self.keys.current().number();
            let old: Vec<u32> =
                self.keys.epochs().into_iter().filter(|number| *number < current).collect();
            if old.is_empty() || !self.key_use()?.iter().all(|e| e.is_current || e.is_unused()) {
                return Ok(Vec::new());
            }
            if !self.has_state_since(current, head)? {
                // Whoever has no index must find a state that can be read.
                self.commit(&mut || self.whole_state())?;
                continue;
            }
            let keys = self.keys.copy();
            keys.forget_before(current);
            if self.replace_keys(head, keys, current, current)?.is_some() {
                return Ok(old);
            }
        }
    }

    /// What is encrypted with which epoch.
    pub fn key_use(&self) -> Result<Vec<EpochUse>> {
        let current = self.keys.current().number();
        let mut uses: Vec<EpochUse> = (self.keys.epochs().into_iter())
            .map(|epoch| EpochUse { epoch, is_current: epoch == current, ..EpochUse::default() })
            .collect();
        for (epoch, packs, bytes) in self.index.packs_by_epoch()? {
            let entry = entry_for(&mut uses, epoch);
            (entry.packs, entry.pack_bytes) = (packs, bytes);
        }
        for name in self.index.index_names()? {
            let epoch = self.object_epoch(&paths::index(&name), ObjectKind::Index, &uses)?;
            entry_for(&mut uses, epoch).indexes += 1;
        }
        for name in self.index.snapshot_names()? {
            let epoch = self.object_epoch(&paths::snapshot(&name), ObjectKind::Snapshot, &uses)?;
            entry_for(&mut uses, epoch).snapshots += 1;
        }
        Ok(uses)
    }

    /// Live snapshots whose manifests are encrypted with the keys of an old epoch.
    pub(crate) fn snapshots_of_old_epochs(&self) -> Result<Vec<ObjectName>> {
        let current = self.keys.current().number();
        let mut old = Vec::new();
        if self.keys.epochs().len() == 1 {
            return Ok(old);
        }
        for name in self.index.snapshot_names()? {
            let path = paths::snapshot(&name);
            if self.object_epoch(&path, ObjectKind::Snapshot, &[])? < current {
                old.push(name);
            }
        }
        Ok(old)
    }

    /// The epoch of an object. Where there is only one it is not asked for.
    fn object_epoch(&self, path: &str, kind: ObjectKind, uses: &[EpochUse]) -> Result<u32> {
        if let [only] = uses {
            return Ok(only.epoch);
        }
        let header = self.store.get_range(path, 0, HEADER_LEN)?;
        let header = Header::parse(&header, kind).map_err(|error| Error::damaged(path, error))?;
        Ok(header.epoch())
    }

    fn has_state_since(&self, epoch: u32, head: Position) -> Result<bool> {
        for number in (u64::from(epoch)..=head.number).rev() {
            if self.read_entry(number)?.is_some_and(|found| found.entry.is_state()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts other keys into all slots, in one entry of the log; `None` where somebody else was faster.
    fn replace_keys(
        &self,
        head: Position,
        keys: KeyRing,
        epoch: u32,
        oldest_epoch: u32,
    ) -> Result<Option<Rotation>> {
        let mut rotation = Rotation { epoch, slots: Vec::new(), left_out: Vec::new() };
        let mut entry = LogEntry::new(EntryKind::Key);
        let (mut made, mut own) = (Vec::new(), None);
        let removed = self.removed_slots(head.number)?;
        let proven = self.proven_slots(&removed, &mut rotation.left_out)?;
        let mut filled = HashSet::new();
        for (name, slot) in proven {
            entry.slots_removed.push(name.clone());
            // What an interrupted change of keys left is the same slot once more.
            if !filled.insert(slot.lasting_name()) {
                continue;
            }
            let refilled = slot
                .refilled(&self.keys, &keys, &*self.environment.entropy)
                .map_err(|source| Error::damaged(format!("{}{name}", paths::KEYS), source))?;
            let new = self.put_slot(&refilled)?;
            if slot.fits(&self.slot_key) {
                own = Some(new.clone());
            }
            made.push(new);
            rotation.slots.push(slot.label.clone());
        }
        let leftovers = self.leftovers(&rotation.left_out, &filled)?;
        rotation.left_out.retain(|name| !leftovers.contains(name));
        entry.slots_removed.extend(leftovers);
        let Some(own) = own else {
            self.delete_slots(&made)?;
            if self.sync()? != head {
                // Another rotation replaced all slots while they were being read.
                return Ok(None);
            }
            return Err(Error::Conflict(
                "the key slot in use was removed or not made by an owner: open the repository with \
                 another one to rotate its keys"
                    .into(),
            ));
        };
        entry.oldest_epoch = oldest_epoch;
        entry.previous = head.hash;
        entry.time_ns = self.environment.clock.now().as_nanosecond() as i64;
        entry.author.clone_from(&self.environment.author);
        let number = head.number + 1;
        let stored = self.seal_entry(&keys, number, &entry)?;
        if !self.put_entry(number, &stored)? {
            self.delete_slots(&made)?;
            return Ok(None);
        }
        self.keys.learn(&keys);
        self.keys.advance_to(epoch);
        let position = Position { number, hash: *blake3::hash(&stored).as_bytes() };
        // Should the index fail now, it catches up at the next sync.
        let _ = self.apply(Some(head), position, &entry, &|_| false);
        self.keys.forget_before(oldest_epoch);
        *self.slot.lock().expect("no panics here") = own;
        self.added_slots.lock().expect("no panics here").clear();
        entry.slots_removed.extend(removed);
        self.delete_slots(&entry.slots_removed)?;
        Ok(Some(rotation))
    }

    /// Of these slots those that are others over again, with keys that never came into force.
    fn leftovers(&self, names: &[String], filled: &HashSet<String>) -> Result<Vec<String>> {
        let mut left = self.key_slots()?;
        left.retain(|NamedSlot { name, slot }| {
            let is_filled = |slot: &Slot| filled.contains(&slot.lasting_name());
            names.contains(name) && slot.as_ref().is_ok_and(is_filled)
        });
        Ok(left.into_iter().map(|slot| slot.name).collect())
    }

    /// Slots that an owner made and nobody removed.
    fn proven_slots(
        &self,
        removed: &HashSet<String>,
        left_out: &mut Vec<String>,
    ) -> Result<Vec<(String, Slot)>> {
        let mut proven = Vec::new();
        for NamedSlot { name, slot } in self.key_slots()? {
            match slot {
                _ if removed.contains(&name) => {}
                Ok(slot) if slot.is_proven(&self.keys) => proven.push((name, slot)),
                _ => left_out.push(name),
            }
        }
        Ok(proven)
    }

    /// Names of all slots that the readable part of the log says were removed: one of them that
    /// stands there still, or again, is not to be trusted.
    pub(super) fn removed_slots(&self, head: u64) -> Result<HashSet<String>> {
        let mut removed = HashSet::new();
        for number in (0..=head).rev() {
            match self.read_entry(number) {
                Ok(Some(stored)) => {
                    removed.extend(stored.entry.slots_removed);
                    // It names those from before, of which entries may be lost.
                    if stored.entry.kind == EntryKind::Repair {
                        break;
                    }
                }
                Ok(None) => return Err(Error::missing_object(&paths::log(number))),
                // Older than all keys: slots from then have no proof that still counts.
                Err(error) if self.is_older_than_keys(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    pub(super) fn delete_slots(&self, names: &[String]) -> Result<()> {
        for name in names {
            match self.store.delete(&format!("{}{name}", paths::KEYS)) {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Fetches keys that came since the repository was opened. `false` where there are none.
    pub(super) fn reload_keys(&self) -> Result<bool> {
        let before = self.keys.epochs();
        for NamedSlot { slot, .. } in self.key_slots()? {
            if let Ok(slot) = slot
                && slot.fits(&self.slot_key)
                && let Ok(keys) = slot.open(&self.slot_key)
            {
                settle(&*self.store, &keys)?;
                self.keys.learn(&keys);
            }
        }
        settle(&*self.store, &self.keys)?;
        Ok(self.keys.epochs() != before)
    }

    pub(crate) fn expect_owner(&self) -> Result<()> {
        if self.is_write_only() {
            return Err(Error::Conflict("a write-only key can only add backups".into()));
        }
        Ok(())
    }
}

fn entry_for(uses: &mut Vec<EpochUse>, epoch: u32) -> &mut EpochUse {
    let at = uses.iter().position(|found| found.epoch == epoch).unwrap_or_else(|| {
        uses.push(EpochUse { epoch, ..EpochUse::default() });
        uses.len() - 1
    });
    &mut uses[at]
}
