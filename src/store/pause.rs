//! Waiting that somebody can end: for what tries again later or keeps to a rate.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Somebody who waits.
pub trait Pause: Send + Sync {
    /// Waits so long. `false` where the program was asked to stop: whoever waits gives up then.
    fn pause(&self, time: Duration) -> bool;
    /// Time since some moment in the past; never goes back.
    fn elapsed(&self) -> Duration;
}

/// How often a waiter looks whether it should stop.
const LOOK: Duration = Duration::from_millis(100);

/// Real time, ended by a flag.
pub struct Patience<F> {
    started: Instant,
    is_over: F,
    /// Never signalled: a wait on it is a wait for the time.
    never: (Mutex<()>, Condvar),
}

impl<F: Fn() -> bool + Send + Sync> Patience<F> {
    /// Waits until `is_over`.
    pub fn new(is_over: F) -> Self {
        Self { started: Instant::now(), is_over, never: Default::default() }
    }
}

impl<F: Fn() -> bool + Send + Sync> Pause for Patience<F> {
    fn pause(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while !(self.is_over)() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waiting = self.never.0.lock().expect("no panics here");
            drop(self.never.1.wait_timeout(waiting, left.min(LOOK)).expect("no panics here"));
        }
        false
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Time that passes only by waiting, for tests.
#[cfg(test)]
#[derive(Default)]
pub struct TestPause {
    /// Every wait so far.
    pub waits: Mutex<Vec<Duration>>,
    /// Whether to give up at once.
    pub is_over: std::sync::atomic::AtomicBool,
}

#[cfg(test)]
impl Pause for std::sync::Arc<TestPause> {
    fn pause(&self, time: Duration) -> bool {
        self.waits.lock().unwrap().push(time);
        !self.is_over.load(std::sync::atomic::Ordering::SeqCst)
    }
    fn elapsed(&self) -> Duration {
        self.waits.lock().unwrap().iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_it_should() {
        let patience = Patience::new(|| false);
        assert!(patience.pause(Duration::from_millis(2)));
        assert!(patience.elapsed() >= Duration::from_millis(2));
        assert!(!Patience::new(|| true).pause(Duration::from_secs(3600)));
    }
}
