//! Changing the tags of snapshots and holding them. A snapshot is immutable: a changed copy takes its
//! place, in one log entry.

use std::collections::HashSet;

use crate::error::Result;
use crate::format::snapshot::Snapshot;
use crate::id::ObjectName;
use crate::repository::Repository;
use crate::repository::snapshots::NamedSnapshot;

/// What to do with the tags.
#[derive(Debug, Clone, Default)]
pub struct TagOptions {
    /// Tags to add.
    pub add: Vec<String>,
    /// Tags to remove.
    pub remove: Vec<String>,
    /// Where given, first replace all tags by these.
    pub set: Option<Vec<String>>,
}

/// The tags that a snapshot with `tags` gets.
pub fn changed(tags: &[String], options: &TagOptions) -> Vec<String> {
    let mut result: Vec<String> = options.set.clone().unwrap_or_else(|| tags.to_vec());
    result.retain(|tag| !options.remove.contains(tag));
    result.extend(options.add.iter().cloned());
    let mut seen = HashSet::new();
    result.retain(|tag| seen.insert(tag.clone()));
    result
}

/// Changes the tags of some snapshots. Returns old and new names of those that changed.
pub fn run(
    repository: &Repository,
    snapshots: &[NamedSnapshot],
    options: &TagOptions,
) -> Result<Vec<(ObjectName, ObjectName)>> {
    rewrite(repository, snapshots, &|snapshot| {
        snapshot.tags = changed(&snapshot.tags, options);
    })
}

/// Holds snapshots, which then cannot be forgotten, or releases them.
pub fn hold(
    repository: &Repository,
    snapshots: &[NamedSnapshot],
    held: bool,
) -> Result<Vec<(ObjectName, ObjectName)>> {
    rewrite(repository, snapshots, &|snapshot| {
        snapshot.held = held;
        snapshot.held_until = None;
    })
}

/// Puts changed copies in the place of some snapshots. Returns old and new names of those that
/// changed.
fn rewrite(
    repository: &Repository,
    snapshots: &[NamedSnapshot],
    change: &dyn Fn(&mut Snapshot),
) -> Result<Vec<(ObjectName, ObjectName)>> {
    let mut copies = Vec::new();
    let mut seen = HashSet::new();
    for NamedSnapshot { name, snapshot } in snapshots {
        let mut copy = snapshot.clone();
        change(&mut copy);
        if copy != *snapshot && seen.insert(*name) {
            copies.push((*name, copy));
        }
    }
    repository.replace_snapshots(copies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_set_then_removed_then_added_without_doubles() {
        let words =
            |text: &str| -> Vec<String> { text.split_whitespace().map(Into::into).collect() };
        let change = |set: Option<&str>, remove: &str, add: &str| TagOptions {
            add: words(add),
            remove: words(remove),
            set: set.map(words),
        };
        assert_eq!(changed(&words("a b"), &change(None, "a", "c b")), words("b c"));
        assert_eq!(changed(&words("a b"), &change(Some("x y"), "y", "")), words("x"));
        assert_eq!(changed(&words("a"), &change(Some(""), "", "")), words(""));
    }
}
