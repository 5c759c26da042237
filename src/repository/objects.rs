//! Whole objects: put, get, and the proof that an object is what its name says.

use super::Repository;
use crate::crypto::envelope::{self, Header, ObjectKind};
use crate::error::{Error, Result};
use crate::format::index::{self, IndexedPack};
use crate::format::parity;
use crate::format::paths;
use crate::format::snapshot::Snapshot;
use crate::id::ObjectName;
use crate::index::IndexObject;
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

    /// Stores the parity of a pack where this repository keeps any. Returns its size.
    pub(crate) fn put_parity(&self, name: &ObjectName, pack: &[u8]) -> Result<u64> {
        if self.config.parity == 0 {
            return Ok(0);
        }
        let bytes = parity::encode(pack, self.config.parity);
        self.put_named(&paths::parity(name), &bytes)?;
        Ok(bytes.len() as u64)
    }

    /// Seals and stores an idx object.
    pub(crate) fn put_index(&self, packs: &[IndexedPack]) -> Result<(ObjectName, u64)> {
        let plain = index::encode(packs);
        let stored = self.seal(ObjectKind::Index, &plain);
        let name = ObjectName::of(&stored);
        self.remember_own(&name, &plain);
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

    /// Fetches and decodes an idx object. A machine that may only write knows its own ones alone.
    pub fn load_index(&self, name: &ObjectName) -> Result<IndexObject> {
        if self.is_write_only() {
            return Ok(self.recall_own(name).into());
        }
        let path = paths::index(name);
        let (plain, header) = self.load_named(&path, name, ObjectKind::Index)?;
        let packs = index::decode(&plain).map_err(|source| Error::damaged(path, source))?;
        Ok(IndexObject { packs, is_sealed: header.is_sealed() })
    }

    /// Fetches and decodes a snapshot manifest.
    pub fn load_snapshot(&self, name: &ObjectName) -> Result<Snapshot> {
        let path = paths::snapshot(name);
        let (plain, header) = self.load_named(&path, name, ObjectKind::Snapshot)?;
        let mut snapshot =
            Snapshot::decode(&plain).map_err(|source| Error::damaged(path, source))?;
        if header.is_sealed() {
            snapshot.sealed = true;
            // It could claim to be any other one, which would then not be copied.
            (snapshot.original, snapshot.origin) = (None, None);
        }
        Ok(snapshot)
    }

    fn load_named(
        &self,
        path: &str,
        name: &ObjectName,
        kind: ObjectKind,
    ) -> Result<(Vec<u8>, Header)> {
        let stored = match self.store.get(path) {
            Ok(stored) => stored,
            Err(StoreError::NotFound { .. }) => return Err(Error::missing_object(path)),
            Err(error) => return Err(error.into()),
        };
        let found = ObjectName::of(&stored);
        if found != *name {
            return Err(Error::name_mismatch(path, &found));
        }
        let damaged = |error| Error::damaged(path, error);
        let header = Header::parse(&stored, kind).map_err(damaged)?;
        let plain = envelope::open(&self.keys, kind, &[], &stored).map_err(damaged)?;
        Ok((plain, header))
    }

    fn seal(&self, kind: ObjectKind, plain: &[u8]) -> Vec<u8> {
        envelope::seal(&self.keys, &*self.environment.entropy, kind, &[], plain)
    }
}
