//! Key slots of a repository: add, list, remove.

use super::Repository;
use crate::crypto::CryptoError;
use crate::crypto::slot::{Kdf, Secret, Slot};
use crate::error::{Error, Result};
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
    pub fn add_key(&self, secret: &Secret, kdf: Kdf, label: &str) -> Result<String> {
        let created = self.environment.clock.now();
        let entropy = &*self.environment.entropy;
        let slot = Slot::wrap(&self.master, secret, kdf, label, created, entropy)
            .map_err(|source| Error::damaged("new key slot", source))?;
        let name = self.put_slot(&slot)?;
        self.commit(&mut || Ok(LogEntry::new(EntryKind::Key)))?;
        self.added_slots.lock().expect("no panics here").push(name.clone());
        Ok(name)
    }

    /// Removes the slot whose name starts with `prefix`. One that certainly opens the repository
    /// stays, without which nobody ever could: the one it was opened with, or one added since.
    pub fn remove_key(&self, prefix: &str) -> Result<String> {
        let slots = self.key_slots()?;
        let matching: Vec<_> =
            slots.iter().filter(|slot| slot.name.starts_with(prefix)).map(|s| &s.name).collect();
        let [name] = matching[..] else {
            return Err(Error::Usage(format!(
                "'{prefix}' matches {} key slots; 'restow key list' shows them",
                matching.len()
            )));
        };
        let mut proven = self.added_slots.lock().expect("no panics here").clone();
        proven.push(self.slot.clone());
        proven.retain(|slot| slot != name);
        let mut next = 0;
        self.commit(&mut || {
            // Somebody may be removing a slot right now, or have died before its file was deleted.
            let head = self.index.position()?.map_or(0, |position| position.number);
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
            entry.slots_removed.push(name.clone());
            Ok(entry)
        })?;
        match self.store.delete(&format!("{}{name}", paths::KEYS)) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(name.clone()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn put_slot(&self, slot: &Slot) -> Result<String> {
        let text = serde_json::to_vec(slot).expect("a slot is plain JSON");
        let name = ObjectName::of(&text).to_hex();
        self.put_named(&format!("{}{name}", paths::KEYS), &text)?;
        Ok(name)
    }
}

/// The slots of a store. What has not the name of an object is none of ours.
pub(super) fn read_slots(store: &dyn Store) -> Result<Vec<NamedSlot>> {
    let mut slots = Vec::new();
    for object in store.list(paths::KEYS)? {
        let name = object.path[paths::KEYS.len()..].to_owned();
        if ObjectName::from_hex(&name).is_err() {
            continue;
        }
        let damaged = |why| Error::damaged(object.path.clone(), CryptoError::Malformed(why));
        let slot = match store.get(&object.path) {
            Ok(text) if ObjectName::of(&text).to_hex() == name => {
                serde_json::from_slice(&text).map_err(|_| damaged("not a key slot"))
            }
            Ok(_) => Err(damaged("the content does not match the name")),
            // Removed since the folder was listed.
            Err(StoreError::NotFound { .. }) => continue,
            Err(error) => Err(error.into()),
        };
        slots.push(NamedSlot { name, slot });
    }
    Ok(slots)
}
