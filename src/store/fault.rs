//! A store that fails on schedule: at the n-th call that changes something, in a chosen way.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{ObjectInfo, Store, StoreError};

/// How a change fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not happen, and nothing after it: the process died before it.
    CrashBefore,
    /// It happens, nothing after it does: the process died before it heard of it.
    CrashAfter,
    /// It happens, the reply is lost.
    LostReply,
    /// It does not happen, and nobody can tell.
    LostRequest,
    /// The disk is full, and stays so.
    Full,
}

/// Fails at the `at`-th change, counted from 0.
pub struct FaultStore<S> {
    inner: S,
    fault: Fault,
    at: u64,
    changes: AtomicU64,
}

impl<S: Store> FaultStore<S> {
    /// Lets `inner` fail once it comes to change number `at`.
    pub fn new(inner: S, fault: Fault, at: u64) -> Self {
        Self { inner, fault, at, changes: AtomicU64::new(0) }
    }

    /// Changes tried so far.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Whether the fault has struck.
    pub fn has_struck(&self) -> bool {
        self.changes() > self.at
    }

    fn is_crashed(&self) -> bool {
        matches!(self.fault, Fault::CrashBefore | Fault::CrashAfter) && self.has_struck()
    }

    fn read<T>(
        &self,
        action: &'static str,
        path: &str,
        read: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.is_crashed() { Err(crashed(action, path)) } else { read() }
    }

    fn change(
        &self,
        action: &'static str,
        path: &str,
        change: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let number = self.changes.fetch_add(1, Ordering::SeqCst);
        let unknown = || StoreError::Unknown {
            path: path.to_owned(),
            source: io::ErrorKind::TimedOut.into(),
        };
        match self.fault {
            _ if number < self.at => change(),
            Fault::Full => Err(StoreError::Full {
                path: path.to_owned(),
                source: io::ErrorKind::StorageFull.into(),
            }),
            Fault::CrashAfter if number == self.at => change().and(Err(crashed(action, path))),
            Fault::CrashBefore | Fault::CrashAfter => Err(crashed(action, path)),
            Fault::LostReply if number == self.at => {
                let _ = change();
                Err(unknown())
            }
            Fault::LostRequest if number == self.at => Err(unknown()),
            Fault::LostReply | Fault::LostRequest => change(),
        }
    }
}

fn crashed(action: &'static str, path: &str) -> StoreError {
    let source = io::Error::other("crashed (on schedule)");
    StoreError::Failed { action, path: path.to_owned(), source }
}

impl<S: Store> Store for FaultStore<S> {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.change("put", path, || self.inner.put_new(path, bytes))
    }
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.read("read", path, || self.inner.get(path))
    }
    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.read("read", path, || self.inner.get_range(path, offset, length))
    }
    fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.read("stat", path, || self.inner.head(path))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.read("list", prefix, || self.inner.list(prefix))
    }
    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.change("delete", path, || self.inner.delete(path))
    }
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.change("replace", path, || self.inner.replace(path, bytes))
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
    fn strikes_once_where_it_should() {
        let store = FaultStore::new(MemoryStore::new(), Fault::LostReply, 1);
        store.put_new("a", b"").unwrap();
        assert!(matches!(store.put_new("b", b""), Err(StoreError::Unknown { .. })));
        assert!(store.get("b").is_ok());
        store.put_new("c", b"").unwrap();

        let store = FaultStore::new(MemoryStore::new(), Fault::CrashBefore, 0);
        assert!(store.put_new("a", b"").is_err());
        assert!(store.get("a").is_err() && store.put_new("b", b"").is_err());
    }
}
