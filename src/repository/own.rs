//! What a machine with a write-only key remembers of its own idx objects: it cannot read them back, and
//! without them it would store everything again each time.
//!
//! Plain files beside the local index, named like the objects. They say which chunks this machine
//! stored, nothing that is in them. Losing one costs a transfer, never data.

use std::fs;
use std::path::PathBuf;

use super::Repository;
use crate::format::index::{self, IndexedPack};
use crate::id::ObjectName;

const FOLDER: &str = "own";

impl Repository {
    fn own_folder(&self) -> Option<PathBuf> {
        if !self.is_write_only() {
            return None;
        }
        self.cache_folder().map(|folder| folder.join(FOLDER))
    }

    /// Writes down what an idx object says, before it is stored.
    pub(super) fn remember_own(&self, name: &ObjectName, plain: &[u8]) {
        let Some(folder) = self.own_folder() else { return };
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&folder)?;
            let file = tempfile::NamedTempFile::new_in(&folder)?;
            fs::write(file.path(), plain)?;
            file.persist(folder.join(name.to_hex()))?;
            Ok(())
        };
        // Without it the chunks are stored again some day.
        let _ = write();
    }

    /// What an idx object of this machine says; nothing where it is another's.
    pub(super) fn recall_own(&self, name: &ObjectName) -> Vec<IndexedPack> {
        let read = self.own_folder().and_then(|folder| fs::read(folder.join(name.to_hex())).ok());
        read.and_then(|plain| index::decode(&plain).ok()).unwrap_or_default()
    }
}
