//! Whole objects: put, get, and the proof that an object is what its name says.

use super::Repository;
use crate::crypto::envelope::{self, ObjectKind};
use crate::error::{Error, Result};
use crate::format::index::{self, IndexedPack};
use crate::format::paths;
use crate::format::snapshot::Snapshot;
use crate::id::ObjectName;
use crate::store::{Store, StoreError};

/// How often an object whose fate is unknown is tried again.
const ATTEMPTS: usize = 5;

impl Repository {
    /// Stores an object under the hash of its bytes. Being there already is success: the name
    /// stands for exactly these bytes.
    pub(super) fn put_named(&self, path: &str, bytes: &[u8]) -> Result<()> {
        for attempt in 1.. {
            match self.store.put_new(path, bytes) {
                Ok(()) => return Ok(()),
                Err(StoreError::AlreadyExists { .. }) => return self.expect_same(path, bytes),
                Err(error @ StoreError::Unknown { .. }) if attempt < ATTEMPTS => {
                    tracing::warn!(path, attempt, %error, "trying again");
                }
                Err(error) => return Err(error.into()),
            }
        }
        unreachable!("the loop returns")
    }

    fn expect_same(&self, path: &str, bytes: &[u8]) -> Result<()> {
        if self.store.head(path)? == bytes.len() as u64 && self.store.get(path)? == bytes {
            return Ok(());
        }
        Err(Error::Conflict(format!("{path} exists with other content than its name says")))
    }

    /// Seals and stores an idx object.
    pub(crate) fn put_index(&self, packs: &[IndexedPack]) -> Result<(ObjectName, u64)> {
        let stored = self.seal(ObjectKind::Index, &index::encode(packs));
        let name = ObjectName::of(&stored);
        self.put_named(&paths::index(&name), &stored)?;
        Ok((name, stored.len() as u64))
    }

    /// Seals and stores a snapshot manifest.
    pub(crate) fn put_snapshot(&self, snapshot: &Snapshot) -> Result<(ObjectName, u64)> {
        let stored = self.seal(ObjectKind::Snapshot, &snapshot.encode());
        let name = ObjectName::of(&stored);
        self.put_named(&paths::snapshot(&name), &stored)?;
        Ok((name, stored.len() as u64))
    }

    /// Fetches and decodes an idx object.
    pub fn load_index(&self, name: &ObjectName) -> Result<Vec<IndexedPack>> {
        let path = paths::index(name);
        let plain = self.load_named(&path, name, ObjectKind::Index)?;
        index::decode(&plain).map_err(|source| Error::damaged(path, source))
    }

    /// Fetches and decodes a snapshot manifest.
    pub fn load_snapshot(&self, name: &ObjectName) -> Result<Snapshot> {
        let path = paths::snapshot(name);
        let plain = self.load_named(&path, name, ObjectKind::Snapshot)?;
        Snapshot::decode(&plain).map_err(|source| Error::damaged(path, source))
    }

    fn load_named(&self, path: &str, name: &ObjectName, kind: ObjectKind) -> Result<Vec<u8>> {
        let stored = match self.store.get(path) {
            Ok(stored) => stored,
            Err(StoreError::NotFound { .. }) => return Err(Error::missing_object(path)),
            Err(error) => return Err(error.into()),
        };
        let found = ObjectName::of(&stored);
        if found != *name {
            return Err(Error::name_mismatch(path, &found));
        }
        envelope::open(&self.keys, kind, &[], &stored).map_err(|error| Error::damaged(path, error))
    }

    fn seal(&self, kind: ObjectKind, plain: &[u8]) -> Vec<u8> {
        envelope::seal(&self.keys, &*self.environment.entropy, kind, &[], plain)
    }
}
