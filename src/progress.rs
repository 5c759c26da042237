//! Progress: counters that a run updates and anybody may read, and the request to stop.
//!
//! Does not print. The command line draws a bar from these numbers, the server streams them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    interrupted: AtomicBool,
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

    /// Sets the counters back for a run that reads everything once more.
    pub fn begin_again(&self) {
        let Self { done_bytes, total_bytes, dedup_bytes, delta_bytes, new_bytes, .. } = self;
        for counter in [done_bytes, total_bytes, dedup_bytes, delta_bytes, new_bytes] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// Adds to one of the counters.
    pub fn add(counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }
}
