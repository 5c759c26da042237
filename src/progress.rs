//! Progress: counters that a run updates and anybody may read, and the request to stop.
//!
//! Does not print. The command line draws a bar from these numbers, the server streams them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Counters of one run, in plain bytes of the source unless named otherwise.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes read from the source or written to the target so far.
    pub done_bytes: AtomicU64,
    /// Total expected, 0 where it is not known.
    pub total_bytes: AtomicU64,
    /// Bytes that were in the repository already.
    pub dedup_bytes: AtomicU64,
    /// Bytes stored as a difference to an older chunk.
    pub delta_bytes: AtomicU64,
    /// Bytes stored as new.
    pub new_bytes: AtomicU64,
    /// Bytes that this run added to the repository (after compression).
    pub stored_bytes: AtomicU64,
    /// Streams or tables that the run has, 0 where it has no parts that are told.
    pub total_parts: AtomicU64,
    /// Those that came to their ends.
    pub done_parts: AtomicU64,
    parts: Mutex<Vec<Arc<PartCount>>>,
    interrupted: AtomicBool,
}

/// A stream or table that is at work.
#[derive(Debug)]
struct PartCount {
    name: String,
    bytes: AtomicU64,
}

/// A part of a run, for as long as it is at work.
#[derive(Debug)]
pub struct Part<'a> {
    progress: &'a Progress,
    count: Arc<PartCount>,
}

impl Part<'_> {
    /// Counts bytes of this part; those of the run are counted apart.
    pub fn add(&self, bytes: u64) {
        Progress::add(&self.count.bytes, bytes);
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        Progress::add(&self.progress.done_parts, 1);
        self.progress.at_work().retain(|it| !Arc::ptr_eq(it, &self.count));
    }
}

impl Progress {
    /// Asks the run to stop at the next safe point.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
    }

    /// Whether somebody asked the run to stop.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Begins a part.
    pub fn part(&self, name: String) -> Part<'_> {
        let count = Arc::new(PartCount { name, bytes: AtomicU64::new(0) });
        self.at_work().push(count.clone());
        Part { progress: self, count }
    }

    /// The parts that are at work, with their bytes so far.
    pub fn parts(&self) -> Vec<(String, u64)> {
        let parts = self.at_work();
        parts.iter().map(|it| (it.name.clone(), it.bytes.load(Ordering::Relaxed))).collect()
    }

    fn at_work(&self) -> std::sync::MutexGuard<'_, Vec<Arc<PartCount>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the counters back for a run that reads everything once more.
    pub fn begin_again(&self) {
        let Self { done_bytes, total_bytes, dedup_bytes, delta_bytes, new_bytes, .. } = self;
        let Self { total_parts, done_parts, .. } = self;
        let bytes = [done_bytes, total_bytes, dedup_bytes, delta_bytes, new_bytes];
        for counter in bytes.into_iter().chain([total_parts, done_parts]) {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// Adds to one of the counters.
    pub fn add(counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_while_they_are_at_work() {
        let progress = Progress::default();
        let (one, two) = (progress.part("a".into()), progress.part("a".into()));
        one.add(5);
        two.add(7);
        assert_eq!(progress.parts(), [("a".into(), 5), ("a".into(), 7)]);
        drop(one);
        assert_eq!(progress.parts(), [("a".into(), 7)]);
        assert_eq!(progress.done_parts.load(Ordering::Relaxed), 1);
        drop(two);
        assert!(progress.parts().is_empty());
    }
}
