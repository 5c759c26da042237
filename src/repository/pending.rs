//! Names of packs that are stored but in no log entry yet, kept beside the local index.
//!
//! A writer that is killed between storing a pack and committing it leaves the pack unknown to
//! everybody. Its list of such packs lets the next backup on this machine commit them instead of
//! storing the same chunks again. The list is a convenience: every name in it is checked against
//! the store, and losing it costs only the work of storing again.
//!
//! Each writer has a file of its own and holds a lock on it. A list whose lock is free belongs to
//! a process that is gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::entropy::{Entropy, random};
use crate::id::ObjectName;

const PREFIX: &str = "pending-";

/// The list of one writer.
pub(super) struct PendingPacks {
    file: File,
    path: PathBuf,
}

impl PendingPacks {
    /// Starts an empty list in `folder`.
    pub(super) fn create(folder: &Path, entropy: &dyn Entropy) -> io::Result<Self> {
        let path = folder.join(format!("{PREFIX}{}", hex::encode(random::<8>(entropy))));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { file, path })
    }

    /// Notes a pack that is about to be stored, after the log entry `since`.
    pub(super) fn add(&mut self, name: &ObjectName, since: u64) -> io::Result<()> {
        writeln!(self.file, "{name} {since}")
    }

    /// Forgets all packs: they are committed.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()
    }
}

impl Drop for PendingPacks {
    fn drop(&mut self) {
        let is_empty = self.file.metadata().is_ok_and(|metadata| metadata.len() == 0);
        if is_empty {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A list that a writer left behind; it is deleted by [`LeftBehind::done`].
pub(super) struct LeftBehind {
    _locked: File,
    path: PathBuf,
    /// The packs it names, each with the number of the log entry after which it was stored.
    pub(super) names: Vec<(ObjectName, u64)>,
}

impl LeftBehind {
    /// The lists in `folder` whose writers are gone. What cannot be read is passed over.
    pub(super) fn find(folder: &Path) -> Vec<Self> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
            .filter_map(|entry| Self::take(entry.path()).ok())
            .collect()
    }

    fn take(path: PathBuf) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A line that was cut short names nothing.
        let line = |line: &str| {
            let (name, since) = line.split_once(' ')?;
            Some((ObjectName::from_hex(name).ok()?, since.parse().ok()?))
        };
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let names = whole.lines().filter_map(line).collect();
        Ok(Self { _locked: file, path, names })
    }

    /// The packs are committed, or not worth it.
    pub(super) fn done(self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::OsEntropy;

    #[test]
    fn lists_of_running_writers_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut mine = PendingPacks::create(folder.path(), &OsEntropy).unwrap();
        mine.add(&ObjectName([1; 32]), 7).unwrap();
        assert!(LeftBehind::find(folder.path()).is_empty());
        drop(mine);
        let found = LeftBehind::find(folder.path());
        assert_eq!(found[0].names, [(ObjectName([1; 32]), 7)]);
        found.into_iter().for_each(LeftBehind::done);
        assert!(LeftBehind::find(folder.path()).is_empty());
    }

    #[test]
    fn committed_packs_leave_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut mine = PendingPacks::create(folder.path(), &OsEntropy).unwrap();
        mine.add(&ObjectName([1; 32]), 7).unwrap();
        mine.clear().unwrap();
        drop(mine);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
