//! A store that refuses to be changed: what commands that only read are given.

use std::io;

use super::{ObjectInfo, Purpose, Store, StoreError};

/// Passes reads on and denies everything else.
pub struct ReadOnlyStore<S>(pub S);

fn denied(action: &'static str, path: &str) -> StoreError {
    let source = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
    StoreError::Denied { action, path: path.to_owned(), source }
}

impl<S: Store> Store for ReadOnlyStore<S> {
    fn put_new(&self, path: &str, _bytes: &[u8]) -> Result<(), StoreError> {
        Err(denied("put", path))
    }
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.0.get(path)
    }
    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.0.get_range(path, offset, length)
    }
    fn get_range_into(
        &self,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        self.0.get_range_into(path, offset, length, out)
    }
    fn get_range_for(
        &self,
        purpose: Purpose,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        self.0.get_range_for(purpose, path, offset, length, out)
    }
    fn get_range_fresh(
        &self,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        self.0.get_range_fresh(path, offset, length, out)
    }
    fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.0.head(path)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.0.list(prefix)
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.0.list_after(prefix, after)
    }
    fn delete(&self, path: &str) -> Result<(), StoreError> {
        Err(denied("delete", path))
    }
    fn replace(&self, path: &str, _bytes: &[u8]) -> Result<(), StoreError> {
        Err(denied("replace", path))
    }
    fn location(&self) -> String {
        self.0.location()
    }
}
