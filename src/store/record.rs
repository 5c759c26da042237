//! A store that remembers every call, so that tests can assert on what an operation cost.

use std::sync::Mutex;

use super::{ObjectInfo, Store, StoreError};

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `put_new` of so many bytes.
    Put(String, usize),
    /// `get`.
    Get(String),
    /// `get_range` of so many bytes.
    GetRange(String, usize),
    /// `head`.
    Head(String),
    /// `list`.
    List(String),
    /// `delete`.
    Delete(String),
    /// `replace` by so many bytes.
    Replace(String, usize),
}

/// Remembers the calls that reach the store below.
pub struct RecordingStore<S> {
    inner: S,
    calls: Mutex<Vec<Call>>,
}

impl<S: Store> RecordingStore<S> {
    /// Watches `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner, calls: Mutex::new(Vec::new()) }
    }

    /// The calls since the last time.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().expect("no panics here"))
    }

    /// Paths put since the last [`RecordingStore::take`] below a folder.
    pub fn puts_below(&self, folder: &str) -> usize {
        let calls = self.calls.lock().expect("no panics here");
        calls
            .iter()
            .filter(|call| matches!(call, Call::Put(path, _) if path.starts_with(folder)))
            .count()
    }

    fn note(&self, call: Call) {
        self.calls.lock().expect("no panics here").push(call);
    }
}

impl<S: Store> Store for RecordingStore<S> {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.note(Call::Put(path.to_owned(), bytes.len()));
        self.inner.put_new(path, bytes)
    }
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.note(Call::Get(path.to_owned()));
        self.inner.get(path)
    }
    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.note(Call::GetRange(path.to_owned(), length));
        self.inner.get_range(path, offset, length)
    }
    fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.note(Call::Head(path.to_owned()));
        self.inner.head(path)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.note(Call::List(prefix.to_owned()));
        self.inner.list(prefix)
    }
    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.note(Call::Delete(path.to_owned()));
        self.inner.delete(path)
    }
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.note(Call::Replace(path.to_owned(), bytes.len()));
        self.inner.replace(path, bytes)
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;

    #[test]
    fn keeps_the_contract_and_remembers() {
        super::super::suite::conformance(&|| Box::new(RecordingStore::new(MemoryStore::new())));
        let store = RecordingStore::new(MemoryStore::new());
        store.put_new("data/x", b"12").unwrap();
        assert_eq!(store.puts_below("data/"), 1);
        assert_eq!(store.take(), [Call::Put("data/x".into(), 2)]);
    }
}
