//! Key slots of a repository: add, list, remove.

use super::Repository;
use crate::crypto::CryptoError;
use crate::crypto::envelope::{HEADER_LEN, Header, ObjectKind};
use crate::crypto::keys::KeyRing;
use crate::crypto::slot::{Kdf, Role, Secret, Slot};
use crate::error::{Error, Result};
use crate::format::config::Config;
use crate::format::log::{EntryKind, LogEntry};
use crate::format::paths;
use crate::id::ObjectName;
use crate::store::{Store, StoreError};

/// A slot and its name.
pub struct NamedSlot {
    /// Name of the object in `keys/`.
    pub name: String,
    /// The slot, or why it cannot be read.
    pub slot: Result<Slot>,
}

impl Repository {
    /// All key slots.
    pub fn key_slots(&self) -> Result<Vec<NamedSlot>> {
        read_slots(&*self.store)
    }

    /// Adds a slot for another secret and returns its name.
    pub fn add_key(&self, secret: &Secret, kdf: Kdf, role: Role, label: &str) -> Result<String> {
        self.expect_owner()?;
        self.expect_valid_slot()?;
        let created = self.environment.clock.now();
        let entropy = &*self.environment.entropy;
        loop {
            let epochs = self.keys.epochs();
            let slot = Slot::wrap(&self.keys, role, secret, kdf.clone(), label, created, entropy)
                .map_err(|source| Error::damaged("new key slot", source))?;
            let name = self.put_slot(&slot)?;
            let mut is_behind = false;
            let committed = self.commit(&mut || {
                // Keys were rotated since the slot was made: it would hold the old ones alone.
                is_behind = self.keys.epochs() != epochs;
                if is_behind {
                    return Err(Error::Interrupted);
                }
                Ok(LogEntry::new(EntryKind::Key))
            });
            if is_behind {
                self.delete_slots(&[name])?;
                continue;
            }
            committed?;
            if role == Role::Owner {
                self.added_slots.lock().expect("no panics here").push(name.clone());
            }
            return Ok(name);
        }
    }

    /// Fails where the slot in use was removed. A rotation removes it too, and puts another one there
    /// that the same secret opens.
    fn expect_valid_slot(&self) -> Result<()> {
        let head = self.sync()?;
        let removed = self.removed_slots(head.number)?;
        let opens = |slot: &NamedSlot| {
            !removed.contains(&slot.name)
                && slot.slot.as_ref().is_ok_and(|slot| slot.fits(&self.slot_key))
        };
        if !removed.contains(&self.slot_in_use()) || self.key_slots()?.iter().any(opens) {
            return Ok(());
        }
        let text = "the key slot in use was removed: open the repository with another one";
        Err(Error::Conflict(text.into()))
    }

    /// Removes the slot whose name, or whose name that stays through rotations, starts with `prefix`.
    /// One that certainly opens the repository stays, without which nobody ever could: the one it was
    /// opened with, or one added since.
    pub fn remove_key(&self, prefix: &str) -> Result<String> {
        self.expect_owner()?;
        let slots = self.key_slots()?;
        let lasting = |slot: &NamedSlot| slot.slot.as_ref().ok().map(Slot::lasting_name);
        let is_meant = |slot: &&NamedSlot| {
            let is_lasting = lasting(slot).is_some_and(|name| name.starts_with(prefix));
            is_lasting || slot.name.starts_with(prefix)
        };
        let mut names: Vec<&String> = Vec::new();
        let mut meant: Vec<String> = Vec::new();
        for slot in slots.iter().filter(is_meant) {
            names.push(&slot.name);
            meant.push(lasting(slot).unwrap_or_else(|| slot.name.clone()));
        }
        // What an interrupted change of keys left is the same slot once more.
        meant.sort_unstable();
        meant.dedup();
        let (1, Some(name)) = (meant.len(), names.first()) else {
            return Err(Error::Usage(format!(
                "'{prefix}' matches {} key slots; 'restow key list' shows them",
                names.len()
            )));
        };
        let mut proven = self.added_slots.lock().expect("no panics here").clone();
        proven.push(self.slot_in_use());
        proven.retain(|slot| !names.contains(&slot));
        let mut next = 0;
        self.commit(&mut || {
            // Somebody may be removing a slot right now, or have died before its file was deleted.
            let head = self.index.position()?.map_or(0, |position| position.number);
            if next == 0 {
                let removed = self.removed_slots(head)?;
                proven.retain(|slot| !removed.contains(slot));
                next = head + 1;
            }
            for number in next..=head {
                let stored = self.read_entry(number)?;
                let stored = stored.ok_or_else(|| Error::missing_object(&paths::log(number)))?;
                proven.retain(|slot| !stored.entry.slots_removed.contains(slot));
            }
            next = head + 1;
            if proven.is_empty() {
                return Err(Error::Conflict(
                    "refusing to remove the key slot in use: it may be the last key slot that opens \
                     the repository; open it with another one to remove this one"
                        .into(),
                ));
            }
            let mut entry = LogEntry::new(EntryKind::Key);
            entry.slots_removed.extend(names.iter().copied().cloned());
            Ok(entry)
        })?;
        self.delete_slots(&names.iter().copied().cloned().collect::<Vec<_>>())?;
        Ok((*name).clone())
    }

    pub(super) fn put_slot(&self, slot: &Slot) -> Result<String> {
        let text = serde_json::to_vec(slot).expect("a slot is plain JSON");
        let name = ObjectName::of(&text).to_hex();
        self.put_named(&format!("{}{name}", paths::KEYS), &text)?;
        Ok(name)
    }
}

/// Puts the slot of a recovery kit back where it was lost. It must open with the kit's secret and be of
/// this repository.
pub fn restore_slot(store: &dyn Store, text: &[u8], secret: &Secret) -> Result<String> {
    let path = format!("{}{}", paths::KEYS, ObjectName::of(text).to_hex());
    let damaged = |error| Error::damaged("the recovery kit's slot", error);
    let slot: Slot = serde_json::from_slice(text)
        .map_err(|_| damaged(CryptoError::Malformed("not a key slot")))?;
    let keys = slot.stretch(secret).and_then(|key| slot.open(&key)).map_err(damaged)?;
    let config = match store.get(paths::CONFIG) {
        Err(StoreError::NotFound { .. }) => {
            return Err(Error::NoRepository { location: store.location() });
        }
        other => other?,
    };
    let location = store.location();
    Config::verify(&config, &keys)
        .map_err(|_| Error::Conflict(format!("the recovery kit is not one of {location}")))?;
    expect_current(store, &keys)?;
    match store.put_new(&path, text) {
        Ok(()) => {}
        Err(StoreError::AlreadyExists { .. }) if store.get(&path)? == text => {}
        Err(error) => return Err(error.into()),
    }
    Ok(path[paths::KEYS.len()..].to_owned())
}

/// Fails where the log goes on with keys that are not among these.
fn expect_current(store: &dyn Store, keys: &KeyRing) -> Result<()> {
    let listed = store.list(paths::LOG)?;
    let mut numbers = listed.iter().filter(|object| paths::log_number(&object.path).is_some());
    let Some(newest) = numbers.next_back() else { return Ok(()) };
    let Ok(header) = store.get_range(&newest.path, 0, HEADER_LEN) else { return Ok(()) };
    match Header::parse(&header, ObjectKind::Log) {
        Ok(header) if !keys.epochs().contains(&header.epoch()) => Err(Error::Conflict(
            "keys were rotated since this recovery kit was made: its slot opens nothing any more"
                .into(),
        )),
        _ => Ok(()),
    }
}

/// The slots of a store. What has not the name of an object is none of ours.
pub(super) fn read_slots(store: &dyn Store) -> Result<Vec<NamedSlot>> {
    let mut slots = Vec::new();
    for object in store.list(paths::KEYS)? {
        // A bucket may hold an object for the folder itself.
        let name = object.path.strip_prefix(paths::KEYS).unwrap_or_default();
        if ObjectName::from_hex(name).is_ok() {
            slots.extend(read_slot(store, name));
        }
    }
    Ok(slots)
}

/// One slot; `None` where it is gone.
pub(super) fn read_slot(store: &dyn Store, name: &str) -> Option<NamedSlot> {
    let path = format!("{}{name}", paths::KEYS);
    let damaged = |why| Error::damaged(path.clone(), CryptoError::Malformed(why));
    let slot = match store.get(&path) {
        Ok(text) if ObjectName::of(&text).to_hex() == name => {
            serde_json::from_slice(&text).map_err(|_| damaged("not a key slot"))
        }
        Ok(_) => Err(damaged("the content does not match the name")),
        // Removed since it was named.
        Err(StoreError::NotFound { .. }) => return None,
        Err(error) => Err(error.into()),
    };
    Some(NamedSlot { name: name.to_owned(), slot })
}
