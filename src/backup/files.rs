//! What files to back up, and what is said of them.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::format::name::Name;
use crate::format::snapshot::Summary;
use crate::id::ChunkId;
use crate::source::exclude::Excludes;

/// Files and directories to back up.
#[derive(Default)]
pub struct FilesSource {
    /// What to back up: absolute paths.
    pub paths: Vec<PathBuf>,
    /// What to leave out.
    pub excludes: Excludes,
    /// Stay on the file systems of the paths given.
    pub one_file_system: bool,
    /// A file with another inode number may be the same.
    pub ignore_inode: bool,
    /// A file with another change time may be the same.
    pub ignore_ctime: bool,
    /// Note what is done with each file, and why.
    pub explain: bool,
}

impl FilesSource {
    /// The paths as the snapshot names them.
    pub fn names(&self) -> impl Iterator<Item = Name> {
        self.paths.iter().map(|path| Name::new(path.as_os_str().as_bytes()))
    }
}

/// A file that is not in the snapshot as it should be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FileProblem {
    /// Which one.
    pub path: Name,
    /// What happened.
    pub detail: String,
}

/// What was done with a file, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Decision {
    /// Which one.
    pub path: Name,
    /// new, changed, unchanged or excluded.
    pub action: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// All files, with their chunks on their way.
pub struct PlannedFiles {
    /// The tree of `/`.
    pub tree: ChunkId,
    /// What was read and found.
    pub summary: Summary,
    /// What could not be read as it should.
    pub problems: Vec<FileProblem>,
    /// What was done, where that was asked for.
    pub decisions: Vec<Decision>,
}
