//! Trying again what failed for reasons that pass: lines that break, servers that are busy.
//!
//! Waits grow and are jittered, so that many clients do not come back at once; attempts and time are
//! bounded. A store that never answered yet is given up soon: it was probably named wrongly. A put
//! is tried again with the same bytes, also where its outcome is unknown; once it was unknown it
//! never becomes a certain failure, and "exists already" is left to the caller, who compares.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::pause::Pause;
use super::{ObjectInfo, Store, StoreError};
use crate::entropy::{Entropy, random};

/// First wait; each one after may be twice as long as the one before.
const FIRST: Duration = Duration::from_millis(250);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(20);
/// How long to go on after the first failure, waits and all.
const TOTAL: Duration = Duration::from_secs(5 * 60);
/// Most attempts, and most at a store that never answered.
const ATTEMPTS: u32 = 30;
const FIRST_ATTEMPTS: u32 = 4;

/// Tries again over `inner`.
pub struct RetryStore<S, P> {
    inner: S,
    pause: P,
    entropy: Arc<dyn Entropy>,
    has_answered: AtomicBool,
}

impl<S: Store, P: Pause> RetryStore<S, P> {
    /// Waits by `pause`, with jitter from `entropy`.
    pub fn new(inner: S, pause: P, entropy: Arc<dyn Entropy>) -> Self {
        Self { inner, pause, entropy, has_answered: AtomicBool::new(false) }
    }

    /// Calls until it succeeds, fails for good, or enough was tried. Tells whether an earlier
    /// attempt may have got through.
    fn attempt<T>(&self, mut call: impl FnMut() -> Result<T, StoreError>) -> Outcome<T> {
        let mut failed = None;
        let mut may_have_landed = false;
        for attempt in 1.. {
            let error = match call() {
                Ok(value) => {
                    self.has_answered.store(true, Ordering::Relaxed);
                    return Outcome { result: Ok(value), may_have_landed };
                }
                Err(error) => error,
            };
            let is_definite = !error.passes();
            if is_definite {
                self.has_answered.store(true, Ordering::Relaxed);
            }
            let limit = match self.has_answered.load(Ordering::Relaxed) {
                true => ATTEMPTS,
                false => FIRST_ATTEMPTS,
            };
            // What moves a lot over a slow line may take long before it fails at all.
            let now = self.pause.elapsed();
            let spent = now.saturating_sub(*failed.get_or_insert(now));
            if is_definite
                || attempt >= limit
                || spent >= TOTAL
                || !self.pause.pause(self.wait(attempt))
            {
                return Outcome { result: Err(error), may_have_landed };
            }
            // A request that was cut off may have been obeyed all the same.
            may_have_landed |= matches!(error, StoreError::Unknown { .. }) || was_sent(&error);
        }
        unreachable!("the loop returns")
    }

    /// Somewhere between half of and the whole of a wait that doubles.
    fn wait(&self, attempt: u32) -> Duration {
        let longest = FIRST.saturating_mul(1 << (attempt - 1).min(16)).min(LONGEST);
        let jitter = u32::from(u16::from_le_bytes(random::<2>(&*self.entropy)));
        longest / 2 + (longest / 2) * jitter / u32::from(u16::MAX)
    }

    fn read<T>(&self, call: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.attempt(call).result
    }
}

struct Outcome<T> {
    result: Result<T, StoreError>,
    may_have_landed: bool,
}

/// Whether a failure that passes came after the request had left.
fn was_sent(error: &StoreError) -> bool {
    let StoreError::Failed { source, .. } = error else { return false };
    !matches!(source.kind(), io::ErrorKind::NotConnected | io::ErrorKind::ConnectionRefused)
}

impl<S: Store, P: Pause> Store for RetryStore<S, P> {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let mut unknown = false;
        let outcome = self.attempt(|| {
            let result = self.inner.put_new(path, bytes);
            unknown |= matches!(result, Err(StoreError::Unknown { .. }));
            result
        });
        match outcome.result {
            Err(
                StoreError::Failed { source, .. }
                | StoreError::Denied { source, .. }
                | StoreError::Full { source, .. },
            ) if unknown => Err(StoreError::Unknown { path: path.to_owned(), source }),
            other => other,
        }
    }
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.read(|| self.inner.get(path))
    }
    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.read(|| self.inner.get_range(path, offset, length))
    }
    fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.read(|| self.inner.head(path))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.read(|| self.inner.list(prefix))
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.read(|| self.inner.list_after(prefix, after))
    }
    fn delete(&self, path: &str) -> Result<(), StoreError> {
        let outcome = self.attempt(|| self.inner.delete(path));
        match outcome.result {
            // An attempt before this one did it.
            Err(StoreError::NotFound { .. }) if outcome.may_have_landed => Ok(()),
            other => other,
        }
    }
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        // The same bytes again are no harm.
        self.attempt(|| self.inner.replace(path, bytes)).result
    }
    fn tidy(&self) -> Result<(), StoreError> {
        self.inner.tidy()
    }
    fn parallel_puts(&self) -> usize {
        self.inner.parallel_puts()
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::memory::MemoryStore;
    use super::super::pause::TestPause;
    use super::*;
    use crate::entropy::OsEntropy;

    /// Plays errors from a list before it does what it is told.
    #[derive(Default)]
    struct Moody {
        inner: MemoryStore,
        moods: Mutex<Vec<(io::ErrorKind, bool)>>,
    }

    impl Moody {
        /// The next error, and whether the request gets through all the same.
        fn mood(&self) -> Option<(io::ErrorKind, bool)> {
            self.moods.lock().unwrap().pop()
        }

        fn call<T>(
            &self,
            action: &'static str,
            call: impl FnOnce() -> Result<T, StoreError>,
        ) -> Result<T, StoreError> {
            let Some((kind, lands)) = self.mood() else { return call() };
            if lands {
                let _ = call();
            }
            let (path, source) = ("x".to_owned(), kind.into());
            match (action, kind) {
                ("put", io::ErrorKind::TimedOut) => Err(StoreError::Unknown { path, source }),
                _ => Err(StoreError::Failed { action, path, source }),
            }
        }
    }

    impl Store for Moody {
        fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
            self.call("put", || self.inner.put_new(path, bytes))
        }
        fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
            self.call("read", || self.inner.get(path))
        }
        fn get_range(&self, path: &str, at: u64, length: usize) -> Result<Vec<u8>, StoreError> {
            self.call("read", || self.inner.get_range(path, at, length))
        }
        fn head(&self, path: &str) -> Result<u64, StoreError> {
            self.call("stat", || self.inner.head(path))
        }
        fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
            self.call("list", || self.inner.list(prefix))
        }
        fn delete(&self, path: &str) -> Result<(), StoreError> {
            self.call("delete", || self.inner.delete(path))
        }
        fn location(&self) -> String {
            "moody".into()
        }
    }

    type Tried = RetryStore<Moody, Arc<TestPause>>;

    fn store(moods: &[(io::ErrorKind, bool)]) -> (Tried, Arc<TestPause>) {
        let pause = Arc::new(TestPause::default());
        let inner = Moody::default();
        let store = RetryStore::new(inner, pause.clone(), Arc::new(OsEntropy));
        store.put_new("there", b"1").unwrap();
        store.inner.moods.lock().unwrap().extend(moods.iter().rev());
        (store, pause)
    }

    #[test]
    fn keeps_the_contract() {
        super::super::suite::conformance(&|| {
            let pause = Arc::new(TestPause::default());
            Box::new(RetryStore::new(MemoryStore::new(), pause, Arc::new(OsEntropy)))
        });
    }

    #[test]
    fn what_passes_is_tried_again_with_growing_waits() {
        let (store, pause) = store(&[(io::ErrorKind::ResourceBusy, false); 6]);
        assert_eq!(store.get("there").unwrap(), b"1");
        let waits = pause.waits.lock().unwrap().clone();
        assert_eq!(waits.len(), 6);
        for (number, wait) in waits.iter().enumerate() {
            let longest = FIRST * (1 << number);
            assert!(*wait >= longest / 2 && *wait <= longest, "{waits:?}");
        }
    }

    #[test]
    fn what_does_not_pass_is_told_at_once() {
        let (store, pause) = store(&[(io::ErrorKind::Other, false)]);
        assert!(store.get("there").is_err());
        assert!(matches!(store.get("none"), Err(StoreError::NotFound { .. })));
        assert!(pause.waits.lock().unwrap().is_empty());
    }

    #[test]
    fn attempts_and_time_are_bounded() {
        let (store, pause) = store(&[(io::ErrorKind::TimedOut, false); 1000]);
        assert!(store.get("there").is_err());
        assert!(pause.elapsed() <= TOTAL + LONGEST);
        assert!((pause.waits.lock().unwrap().len() as u32) < ATTEMPTS);
    }

    #[test]
    fn a_store_that_never_answered_is_given_up_soon() {
        let pause = Arc::new(TestPause::default());
        let inner = Moody::default();
        inner.moods.lock().unwrap().extend([(io::ErrorKind::NotConnected, false); 100]);
        let store = RetryStore::new(inner, pause.clone(), Arc::new(OsEntropy));
        assert!(store.get("config").is_err());
        assert!(pause.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn an_unknown_put_never_becomes_a_certain_failure() {
        let moods = [(io::ErrorKind::TimedOut, false), (io::ErrorKind::Other, false)];
        let (tried, _) = store(&moods);
        assert!(matches!(tried.put_new("x", b"1"), Err(StoreError::Unknown { .. })));
        // It landed, so the second attempt finds the name taken: the caller compares.
        let (tried, _) = store(&[(io::ErrorKind::TimedOut, true)]);
        assert!(matches!(tried.put_new("x", b"1"), Err(StoreError::AlreadyExists { .. })));
        let (tried, _) = store(&[(io::ErrorKind::TimedOut, false)]);
        tried.put_new("x", b"1").unwrap();
    }

    #[test]
    fn a_deletion_whose_reply_was_lost_is_done() {
        let (tried, _) = store(&[(io::ErrorKind::ConnectionAborted, true)]);
        tried.delete("there").unwrap();
        let (tried, _) = store(&[(io::ErrorKind::NotConnected, false)]);
        assert!(matches!(tried.delete("none"), Err(StoreError::NotFound { .. })));
    }

    #[test]
    fn who_is_asked_to_stop_stops() {
        let (store, pause) = store(&[(io::ErrorKind::TimedOut, false); 9]);
        pause.is_over.store(true, Ordering::SeqCst);
        assert!(store.get("there").is_err());
        assert_eq!(pause.waits.lock().unwrap().len(), 1);
    }
}
