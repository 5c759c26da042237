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
        let mut slots = Vec::new();
        for object in self.store.list(paths::KEYS)? {
            let name = object.path[paths::KEYS.len()..].to_owned();
            let text = self.store.get(&object.path)?;
            let damaged = |why| Error::damaged(object.path.clone(), CryptoError::Malformed(why));
            let slot = if ObjectName::of(&text).to_hex() == name {
                serde_json::from_slice(&text).map_err(|_| damaged("not a key slot"))
            } else {
                Err(damaged("the content does not match the name"))
            };
            slots.push(NamedSlot { name, slot });
        }
        Ok(slots)
    }

    /// Adds a slot for another secret and returns its name.
    pub fn add_key(&self, secret: &Secret, kdf: Kdf, label: &str) -> Result<String> {
        let created = self.environment.clock.now();
        let entropy = &*self.environment.entropy;
        let slot = Slot::wrap(&self.master, secret, kdf, label, created, entropy)
            .map_err(|source| Error::damaged("new key slot", source))?;
        let name = self.put_slot(&slot)?;
        self.commit(&mut || Ok(LogEntry::new(EntryKind::Key)))?;
        Ok(name)
    }

    /// Removes the slot whose name starts with `prefix`. The last one stays: without it nobody
    /// could ever open the repository again.
    pub fn remove_key(&self, prefix: &str) -> Result<String> {
        let slots = self.store.list(paths::KEYS)?;
        let matching: Vec<_> = slots
            .iter()
            .filter(|object| object.path[paths::KEYS.len()..].starts_with(prefix))
            .collect();
        let [object] = matching[..] else {
            return Err(Error::Usage(format!(
                "'{prefix}' matches {} key slots; 'restow key list' shows them",
                matching.len()
            )));
        };
        if slots.len() == 1 {
            return Err(Error::Conflict(
                "refusing to remove the last key slot: nobody could open the repository again"
                    .into(),
            ));
        }
        let name = object.path[paths::KEYS.len()..].to_owned();
        self.commit(&mut || {
            let mut entry = LogEntry::new(EntryKind::Key);
            entry.slots_removed.push(name.clone());
            Ok(entry)
        })?;
        match self.store.delete(&object.path) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(name),
            Err(error) => Err(error.into()),
        }
    }

    /// The slot that `secret` opens, by name.
    pub fn find_key(&self, secret: &Secret) -> Result<Option<String>> {
        for NamedSlot { name, slot } in self.key_slots()? {
            if let Ok(slot) = slot
                && slot.takes(secret)
                && slot.unwrap_master(secret).is_ok()
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    pub(super) fn put_slot(&self, slot: &Slot) -> Result<String> {
        let text = serde_json::to_vec(slot).expect("a slot is plain JSON");
        let name = ObjectName::of(&text).to_hex();
        self.put_named(&format!("{}{name}", paths::KEYS), &text)?;
        Ok(name)
    }
}
