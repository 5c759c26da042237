//! The repository: objects in a store, the commit log that says which of them count, and the index.
//!
//! Guarantees: state changes only by creating the next log entry; an object is complete and durable
//! before an entry refers to it; whatever is read was authenticated first. Does not decide what to
//! back up, forget or delete: that is for the layers above.

mod closure;
pub mod damaged;
mod entry;
pub mod keys;
mod log;
mod numbers;
mod objects;
mod open;
mod own;
pub mod parity;
mod pending;
mod probe;
pub mod reader;
pub mod recipes;
mod reindex;
pub mod remains;
pub mod rotation;
pub mod salvage;
pub mod snapshots;
pub mod trees;
pub mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::clock::{Clock, SystemClock};
use crate::crypto::keys::KeyRing;
use crate::crypto::slot::SlotKey;
use crate::entropy::{Entropy, OsEntropy};
use crate::error::Error;
use crate::format::config::Config;
use crate::index::Index;
use crate::store::Store;

pub use open::InitOptions;

/// What the engine takes from the world around it.
#[derive(Clone)]
pub struct Environment {
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Written into log entries for people: host and program.
    pub author: String,
    /// Folder for local indexes, one folder a repository below it; `None` keeps none.
    pub cache: Option<PathBuf>,
    /// One step after the other instead of several threads, so that the same time and randomness
    /// make the same calls to the store in the same order. For tests that replay a history.
    pub in_order: bool,
}

impl Environment {
    /// The operating system's clock and randomness.
    pub fn system(author: String, cache: Option<PathBuf>) -> Self {
        let (entropy, clock) = (Arc::new(OsEntropy), Arc::new(SystemClock));
        Self { entropy, clock, author, cache, in_order: false }
    }
}

/// An open repository. Shared freely between threads.
pub struct Repository {
    store: Arc<dyn Store>,
    environment: Environment,
    config: Config,
    keys: KeyRing,
    index: Index,
    /// Name of the key slot it was opened with.
    slot: Mutex<String>,
    /// Opens that slot again when its keys were replaced.
    slot_key: SlotKey,
    /// Names of the slots added since.
    added_slots: Mutex<Vec<String>>,
    /// What could not be read, where only the readable part was opened.
    damage: Option<Vec<Error>>,
}

impl Repository {
    /// Its parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Name of the key slot that it was opened with.
    pub fn slot_in_use(&self) -> String {
        self.slot.lock().expect("no panics here").clone()
    }

    /// Its keys.
    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// Its local index, as of the last [`Repository::sync`].
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Where its objects are.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Folder of the local index, where one is kept.
    pub(crate) fn cache_folder(&self) -> Option<PathBuf> {
        open::cache_folder(&self.environment, self.config.id, self.is_write_only())
    }

    /// Time, randomness and names from outside.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }
}
