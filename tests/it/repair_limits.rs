//! What a repair must not take for a loss, and what it must not give up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use restow::format::paths;
use restow::progress::Progress;
use restow::repair::packs::{PacksOptions, run as repair_packs};
use restow::store::memory::MemoryStore;
use restow::store::{ObjectInfo, Store, StoreError};

use crate::repair::*;
use crate::support::*;

/// A store that cannot read the contents of one folder for a while.
struct Sick {
    inner: Arc<MemoryStore>,
    folder: String,
    error: fn(&str) -> StoreError,
    /// Reads that fail still.
    left: AtomicUsize,
}

impl Sick {
    fn new(
        inner: &Arc<MemoryStore>,
        folder: &str,
        error: fn(&str) -> StoreError,
        reads: usize,
    ) -> Arc<Self> {
        let left = AtomicUsize::new(reads);
        Arc::new(Self { inner: inner.clone(), folder: folder.to_owned(), error, left })
    }

    fn look(&self, path: &str) -> Result<(), StoreError> {
        if !path.starts_with(&self.folder) {
            return Ok(());
        }
        let taken = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        taken.map_or(Ok(()), |_| Err((self.error)(path)))
    }
}

impl Store for Sick {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.put_new(path, bytes)
    }
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.look(path)?;
        self.inner.get(path)
    }
    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.look(path)?;
        self.inner.get_range(path, offset, length)
    }
    fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.inner.head(path)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.inner.list(prefix)
    }
    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.inner.delete(path)
    }
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.replace(path, bytes)
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

fn failed(path: &str, source: io::Error) -> StoreError {
    StoreError::Failed { action: "read", path: path.to_owned(), source }
}

fn times_out(path: &str) -> StoreError {
    failed(path, io::ErrorKind::TimedOut.into())
}

fn is_denied(path: &str) -> StoreError {
    let source = io::ErrorKind::PermissionDenied.into();
    StoreError::Denied { action: "read", path: path.to_owned(), source }
}

/// Neither a lost sector nor an answer.
fn says_no(path: &str) -> StoreError {
    failed(path, io::Error::from_raw_os_error(116))
}

/// EIO.
fn cannot_read(path: &str) -> StoreError {
    failed(path, io::Error::from_raw_os_error(5))
}

#[test]
fn a_store_that_does_not_answer_has_lost_nothing() {
    let (store, days) = prepared();
    let snapshots = store.objects().into_iter().filter(|(path, _)| path.starts_with("snap/")).count();
    let before = store.objects();
    for error in [times_out, is_denied, says_no] {
        for folder in ["data/", "log/", "idx/", "snap/"] {
            let sick = Sick::new(&store, folder, error, usize::MAX);
            mend_index(sick).unwrap_err();
        }
        let sick = Sick::new(&store, "data/", error, 0);
        let repository = open(sick.clone()).unwrap();
        sick.left.store(usize::MAX, Ordering::SeqCst);
        mend_packs(&repository).unwrap_err();
        assert_eq!(store.objects(), before);
    }
    assert_eq!((days_held(&store).len(), snapshots), (days.len(), 3));
}

#[test]
fn a_pack_that_answers_the_second_time_stays() {
    let (store, days) = prepared();
    let victim = store.objects().into_iter().find(|(path, _)| path.starts_with("data/")).unwrap().0;
    let sick = Sick::new(&store, &victim, cannot_read, 0);
    let repository = open(sick.clone()).unwrap();
    // As many reads as the run needs to find out what is damaged.
    sick.left.store(usize::MAX, Ordering::SeqCst);
    let dry = PacksOptions { dry_run: true, ..Default::default() };
    let planned = repair_packs(&repository, &dry, &Progress::default()).unwrap();
    assert!(planned.replaced.contains(&paths::object_name(&victim).unwrap()));
    let reads = usize::MAX - sick.left.load(Ordering::SeqCst);
    sick.left.store(reads, Ordering::SeqCst);
    let error = mend_packs(&repository).unwrap_err();
    assert!(error.to_string().contains("the same every time"), "{error}");
    assert_clean(&store, "nothing was taken off");
    assert_eq!(days_held(&store).len(), days.len());
    // What stays unreadable is lost for certain.
    sick.left.store(usize::MAX, Ordering::SeqCst);
    assert!(mend_packs(&repository).unwrap().lost_chunks > 0);
}
