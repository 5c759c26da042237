//! Keeping to rates, and to a number of requests at a time.
//!
//! Rates hold on average: an object is sent as fast as the line is, and then paid for by waiting
//! before the next one goes.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::pause::Pause;
use super::{ObjectInfo, Store, StoreError};

/// Limits; `None` is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Bytes a second to the store.
    pub upload: Option<u64>,
    /// Bytes a second from the store.
    pub download: Option<u64>,
    /// Requests at a time.
    pub connections: Option<usize>,
}

/// Keeps `inner` to limits.
pub struct ThrottleStore<S, P> {
    inner: S,
    pause: P,
    limits: Limits,
    /// When the next byte may go, up and down, by the clock of `pause`.
    free_at: [Mutex<Duration>; 2],
    running: Mutex<usize>,
    ended: Condvar,
}

impl<S: Store, P: Pause> ThrottleStore<S, P> {
    /// Waits by `pause`.
    pub fn new(inner: S, pause: P, limits: Limits) -> Self {
        let (free_at, running, ended) = Default::default();
        Self { inner, pause, limits, free_at, running, ended }
    }

    /// Waits until what went before is paid for, and puts `bytes` on the account.
    fn pay(&self, direction: usize, bytes: usize) {
        let rates = [self.limits.upload, self.limits.download];
        let Some(rate) = rates[direction] else { return };
        let cost = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let now = self.pause.elapsed();
        let wait = {
            let mut free_at = self.free_at[direction].lock().expect("no panics here");
            let start = (*free_at).max(now);
            *free_at = start + cost;
            start - now
        };
        if !wait.is_zero() {
            // Whoever is asked to stop goes on at once; the request itself will tell.
            self.pause.pause(wait);
        }
    }

    fn up(&self, bytes: usize) {
        self.pay(0, bytes);
    }

    fn down(&self, bytes: usize) {
        self.pay(1, bytes);
    }

    /// One request, when there is room for it.
    fn request<T>(&self, call: impl FnOnce() -> T) -> T {
        let Some(most) = self.limits.connections else { return call() };
        let mut running = self.running.lock().expect("no panics here");
        while *running >= most.max(1) {
            running = self.ended.wait(running).expect("no panics here");
        }
        *running += 1;
        drop(running);
        let result = call();
        *self.running.lock().expect("no panics here") -= 1;
        self.ended.notify_one();
        result
    }
}

impl<S: Store, P: Pause> Store for ThrottleStore<S, P> {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.up(bytes.len());
        self.request(|| self.inner.put_new(path, bytes))
    }
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.down(0);
        let bytes = self.request(|| self.inner.get(path))?;
        self.down(bytes.len());
        Ok(bytes)
    }
    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        self.get_range_into(path, offset, length, &mut bytes)?;
        Ok(bytes)
    }
    fn get_range_into(
        &self,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        self.down(length);
        self.request(|| self.inner.get_range_into(path, offset, length, out))
    }
    fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.request(|| self.inner.head(path))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.request(|| self.inner.list(prefix))
    }
    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.request(|| self.inner.list_after(prefix, after))
    }
    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.request(|| self.inner.delete(path))
    }
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.up(bytes.len());
        self.request(|| self.inner.replace(path, bytes))
    }
    fn tidy(&self) -> Result<(), StoreError> {
        self.request(|| self.inner.tidy())
    }
    fn is_create_only(&self) -> bool {
        self.inner.is_create_only()
    }

    fn parallel_puts(&self) -> usize {
        self.inner.parallel_puts().min(self.limits.connections.unwrap_or(usize::MAX)).max(1)
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::memory::MemoryStore;
    use super::super::pause::TestPause;
    use super::*;

    fn store(limits: Limits) -> (ThrottleStore<MemoryStore, Arc<TestPause>>, Arc<TestPause>) {
        let pause = Arc::new(TestPause::default());
        (ThrottleStore::new(MemoryStore::new(), pause.clone(), limits), pause)
    }

    #[test]
    fn keeps_the_contract() {
        let limits = Limits { connections: Some(3), ..Limits::default() };
        super::super::suite::conformance(&|| Box::new(store(limits).0));
    }

    #[test]
    fn rates_hold_in_each_direction() {
        let limits = Limits { upload: Some(1000), download: Some(100), connections: None };
        let (store, pause) = store(limits);
        for number in 0..5 {
            store.put_new(&format!("x{number}"), &[0; 500]).unwrap();
        }
        assert_eq!(pause.elapsed(), Duration::from_secs(2));
        store.get_range("x1", 0, 100).unwrap();
        store.get_range("x1", 0, 1).unwrap();
        assert_eq!(pause.elapsed(), Duration::from_secs(3));
    }

    #[test]
    fn no_more_requests_run_than_allowed() {
        let (store, _) = store(Limits { connections: Some(2), ..Limits::default() });
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        store.request(|| {
                            most.fetch_max(
                                running.fetch_add(1, Ordering::SeqCst) + 1,
                                Ordering::SeqCst,
                            );
                            std::thread::yield_now();
                            running.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2);
    }
}
