//! Which numbers the entries of the log have. An object that stands far behind all of them under a name
//! like theirs is none: whoever believed it would see a hole that nothing can fill.

use super::Repository;
use crate::error::{Error, Result};
use crate::format::paths;
use crate::store::Store;

/// How far behind the entries before it an object must stand to be looked at before it counts. Also
/// the most missing entries that a repair replaces by ones that say nothing.
pub(super) const FAR: u64 = 1024;

/// No log comes this far.
const MOST: u64 = 1 << 40;

impl Repository {
    /// Numbers of the log entries that the store lists, in order.
    pub fn log_numbers(&self) -> Result<Vec<u64>> {
        let listed = self.store.list(paths::LOG)?;
        let numbers = listed.iter().filter_map(|object| paths::log_number(&object.path)).collect();
        self.without_strays(None, numbers)
    }

    /// Makes sure that the log ends where it seems to: an entry that was lost must not be taken for
    /// the end, or the next commit would take its place.
    pub(super) fn expect_head(&self) -> Result<()> {
        let Some(head) = self.index.position()? else { return Ok(()) };
        let later = self.store.list_after(paths::LOG, &paths::log(head.number))?;
        let later = later.iter().filter_map(|object| paths::log_number(&object.path)).collect();
        let later = self.without_strays(Some(head.number), later)?;
        let Some(newest) = later.last() else { return Ok(()) };
        // Others may have committed since.
        let head = self.sync()?;
        if *newest <= head.number {
            return Ok(());
        }
        Err(Error::missing_object(&paths::log(head.number + 1)))
    }

    /// Numbers in order, without those at the end that stand far behind the others, unless an entry that
    /// is authentic is among them. `before` is one that is known to be.
    fn without_strays(&self, before: Option<u64>, mut numbers: Vec<u64>) -> Result<Vec<u64>> {
        numbers.retain(|number| *number < MOST);
        numbers.sort_unstable();
        loop {
            let previous = |at: usize| match at {
                0 => before.unwrap_or(0),
                _ => numbers[at - 1],
            };
            let is_far = |at: &usize| numbers[*at].saturating_sub(previous(*at)) > FAR;
            let Some(at) = (0..numbers.len()).rev().find(is_far) else { return Ok(numbers) };
            for number in &numbers[at..] {
                if self.is_authentic(*number)? {
                    return Ok(numbers);
                }
            }
            tracing::warn!(number = numbers[at], "no log entry, though it has the name of one");
            numbers.truncate(at);
        }
    }

    /// Whether an entry stands there that was made with keys of this repository.
    fn is_authentic(&self, number: u64) -> Result<bool> {
        match self.read_entry(number) {
            Ok(entry) => Ok(entry.is_some()),
            // Made with keys that are destroyed, or that this slot was not given.
            Err(error) if error.unknown_epoch().is_some() => Ok(true),
            Err(error) if error.is_certain_damage() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
