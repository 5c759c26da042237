//! Temporary files and folders that bear the number of the process that made them: what a killed one left is
//! found and cleared away by the next.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, geteuid, test_kill_process};
use tempfile::{Builder, NamedTempFile, TempDir};

/// Makes a folder whose name begins so, and clears away those of processes that are no more.
pub fn folder(parent: &Path, prefix: &str) -> io::Result<TempDir> {
    clear(parent, prefix);
    Builder::new().prefix(&own(prefix)).tempdir_in(parent)
}

/// Makes a file whose name begins so, and clears away those of processes that are no more.
pub fn file(parent: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    clear(parent, prefix);
    Builder::new().prefix(&own(prefix)).tempfile_in(parent)
}

/// The beginning of names of this process.
pub fn own(prefix: &str) -> String {
    format!("{prefix}{}-", std::process::id())
}

fn clear(parent: &Path, prefix: &str) {
    for path in left(parent, prefix) {
        if path.symlink_metadata().is_ok_and(|it| it.is_dir()) {
            let _ = std::fs::remove_dir_all(&path);
        } else {
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// What processes that are no more left here. What belongs to another user is not ours to judge.
pub fn left(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let is_left = |entry: &std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next());
        number.and_then(|number| number.parse().ok()).is_some_and(is_dead)
            && entry.metadata().is_ok_and(|it| it.uid() == geteuid().as_raw())
    };
    entries.filter(is_left).map(|entry| entry.path()).collect()
}

/// Whether there is no process with this number.
pub fn is_dead(process: i32) -> bool {
    let process = Pid::from_raw(process);
    process.is_some_and(|it| test_kill_process(it) == Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dead_left_is_cleared() {
        let parent = tempfile::tempdir().unwrap();
        // Numbers of processes end far below it.
        let (dead, alive) = (parent.path().join("x-2147483646-a"), parent.path().join("x-1-a"));
        let (other, odd) = (parent.path().join("y-2147483646-a"), parent.path().join("x-1z-a"));
        for path in [&dead, &alive, &other, &odd] {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::write(dead.join("file"), "").unwrap();
        let made = folder(parent.path(), "x-").unwrap();
        assert!(!dead.exists() && alive.exists() && other.exists() && odd.exists());
        assert!(made.path().exists());
    }
}
