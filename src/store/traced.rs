//! A store that tells `tracing` of every call: what, on which object, how many bytes, how long, and
//! how it ended. Object paths are hashes and numbers; nothing of what objects hold is told.

use std::time::Instant;

use tracing::{Level, debug, enabled, warn};

use super::{ObjectInfo, Purpose, Store, StoreError};

/// Passes calls on and tells of them.
pub struct TracedStore<S>(pub S);

/// Whether anybody listens: without, there is no use for this store.
pub fn is_listening() -> bool {
    enabled!(Level::DEBUG)
}

impl<S: Store> TracedStore<S> {
    fn tell<T>(
        &self,
        action: &'static str,
        path: &str,
        call: impl FnOnce() -> Result<T, StoreError>,
        size: impl FnOnce(&T) -> u64,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let result = call();
        let micros = started.elapsed().as_micros() as u64;
        match &result {
            Ok(value) => debug!(action, path, bytes = size(value), micros, "store"),
            // Both are ordinary answers: the end of the log, a race for a name.
            Err(error @ (StoreError::NotFound { .. } | StoreError::AlreadyExists { .. })) => {
                debug!(action, path, micros, %error, "store");
            }
            Err(error) => warn!(action, path, micros, %error, "store failed"),
        }
        result
    }
}

impl<S: Store> Store for TracedStore<S> {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let size = bytes.len() as u64;
        self.tell("put", path, || self.0.put_new(path, bytes), |()| size)
    }
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.tell("get", path, || self.0.get(path), |bytes| bytes.len() as u64)
    }
    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let get = || self.0.get_range(path, offset, length);
        self.tell("get range", path, get, |bytes| bytes.len() as u64)
    }
    fn get_range_into(
        &self,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let get = || self.0.get_range_into(path, offset, length, out);
        self.tell("get range", path, get, |()| length as u64)
    }
    fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.tell("head", path, || self.0.head(path), |size| *size)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.tell("list", prefix, || self.0.list(prefix), |objects| objects.len() as u64)
    }
    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.tell("delete", path, || self.0.delete(path), |()| 0)
    }
    fn get_range_for(
        &self,
        purpose: Purpose,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let get = || self.0.get_range_for(purpose, path, offset, length, out);
        self.tell("get range", path, get, |()| length as u64)
    }
    fn get_range_fresh(
        &self,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let get = || self.0.get_range_fresh(path, offset, length, out);
        self.tell("get range again", path, get, |()| length as u64)
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let list = || self.0.list_after(prefix, after);
        self.tell("list", prefix, list, |objects| objects.len() as u64)
    }
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let size = bytes.len() as u64;
        self.tell("replace", path, || self.0.replace(path, bytes), |()| size)
    }
    fn is_create_only(&self) -> bool {
        self.0.is_create_only()
    }
    fn parallel_puts(&self) -> usize {
        self.0.parallel_puts()
    }
    fn tidy(&self) -> Result<(), StoreError> {
        self.tell("tidy", "", || self.0.tidy(), |()| 0)
    }
    fn location(&self) -> String {
        self.0.location()
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;

    #[test]
    fn keeps_the_contract() {
        super::super::suite::conformance(&|| Box::new(TracedStore(MemoryStore::new())));
    }
}
