//! Objects in memory, for tests: copied as a whole to see what a crash at this moment leaves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{ObjectInfo, Store, StoreError, check_path, slice_range};

type Objects = BTreeMap<String, Arc<[u8]>>;

/// A store in memory.
#[derive(Default)]
pub struct MemoryStore {
    objects: Mutex<Objects>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store with the same objects that changes on its own from here on.
    pub fn fork(&self) -> Self {
        Self { objects: Mutex::new(self.lock().clone()) }
    }

    /// Paths and bytes of all objects.
    pub fn objects(&self) -> Vec<(String, Arc<[u8]>)> {
        self.lock().iter().map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
    }

    /// Replaces the bytes of an object, as a failing disk would.
    pub fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut objects = self.lock();
        let bytes = objects.get_mut(path).expect("a test damages objects that exist");
        let mut changed = bytes.to_vec();
        change(&mut changed);
        *bytes = changed.into();
    }

    /// Sum of all sizes in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.lock().values().map(|bytes| bytes.len() as u64).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().expect("no thread panics with the objects in hand")
    }
}

fn missing(path: &str) -> StoreError {
    StoreError::NotFound { path: path.to_owned() }
}

impl Store for MemoryStore {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_path("put", path)?;
        let mut objects = self.lock();
        if objects.contains_key(path) {
            return Err(StoreError::AlreadyExists { path: path.to_owned() });
        }
        objects.insert(path.to_owned(), bytes.into());
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.lock().get(path).map(|bytes| bytes.to_vec()).ok_or_else(|| missing(path))
    }

    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let bytes = self.lock().get(path).cloned().ok_or_else(|| missing(path))?;
        slice_range(path, &bytes, offset, length)
    }

    fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.lock().get(path).map(|bytes| bytes.len() as u64).ok_or_else(|| missing(path))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        Ok(self
            .lock()
            .range(prefix.to_owned()..)
            .take_while(|(path, _)| path.starts_with(prefix))
            .map(|(path, bytes)| ObjectInfo { path: path.clone(), size: bytes.len() as u64 })
            .collect())
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.lock().remove(path).map(drop).ok_or_else(|| missing(path))
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_path("replace", path)?;
        self.lock().insert(path.to_owned(), bytes.into());
        Ok(())
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_contract() {
        super::super::suite::conformance(&|| Box::new(MemoryStore::new()));
    }
}
