//! What to restore of a tree and how, and what came of it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use crate::format::entry::{Entry, Kind, Moment};
use crate::format::name::Name;

/// What to do with files that stand where one is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Leave them alone and say so.
    #[default]
    Never,
    /// Replace those whose size or modification time is another.
    IfChanged,
    /// Replace those that are older.
    IfNewer,
    /// Compare all with the snapshot and write what differs.
    Always,
}

/// What to do about a place.
pub enum Decision {
    /// Nothing is there.
    Create,
    /// This is there, and is to give way or to be written anew.
    Replace(Stat),
    /// It is as it should be, but perhaps for its attributes.
    Unchanged,
    /// It is newer, and stays.
    Keep,
}

impl Overwrite {
    /// What to do where `stat` tells what stands at the place of an entry.
    pub fn decide(self, entry: &Entry, stat: Option<Stat>) -> io::Result<Decision> {
        let size = match entry.kind {
            Kind::File { size, .. } => Some(size),
            _ => None,
        };
        self.decide_by(size, entry.modified, stat)
    }

    /// The same of a file of some size, or of something that is no file.
    pub fn decide_by(
        self,
        size: Option<u64>,
        modified: Moment,
        stat: Option<Stat>,
    ) -> io::Result<Decision> {
        let Some(stat) = stat else { return Ok(Decision::Create) };
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let there = modified_of(&stat);
        let is_equal = is_file && size == Some(stat.st_size as u64) && there == modified;
        match self {
            Self::Never => Err(exists()),
            Self::IfNewer if there > modified => Ok(Decision::Keep),
            Self::IfChanged | Self::IfNewer if is_equal => Ok(Decision::Unchanged),
            Self::IfChanged | Self::IfNewer | Self::Always => Ok(Decision::Replace(stat)),
        }
    }
}

/// When something was modified.
pub fn modified_of(stat: &Stat) -> Moment {
    Moment { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 }
}

/// What is said of a file that must not be touched.
pub fn exists() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "exists already; allow it with --overwrite")
}

/// Decides about a path of the snapshot; the second argument tells directories.
pub type Wanted = Box<dyn Fn(&Path, bool) -> Selection + Send + Sync>;

/// What to restore and how.
#[derive(Default)]
pub struct TreeOptions {
    /// Where to.
    pub target: PathBuf,
    /// Whether a path of the snapshot is restored; directories on the way to one always are.
    pub wanted: Option<Wanted>,
    /// What to do with what is there.
    pub overwrite: Overwrite,
    /// Remove what the snapshot's directories do not hold.
    pub delete: bool,
    /// Read everything again and compare it with the snapshot.
    pub verify: bool,
    /// Leave holes for all zeros, not just for those that were stored as such.
    pub sparse: bool,
    /// Paths below the target that are kept though the tree does not hold them: the streams'.
    pub kept: Vec<Vec<u8>>,
    /// Only find out what would be done.
    pub dry_run: bool,
    /// Leave owners as they come.
    pub no_owner: bool,
}

/// Whether a path is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Yes, with everything below.
    All,
    /// Not itself, but something below may be.
    Below,
    /// No.
    None,
}

/// What came of it.
#[derive(Debug, Default, Clone, serde::Serialize)]
pub struct TreeReport {
    /// Files restored, of all kinds.
    pub files: u64,
    /// Files that were as they should be already.
    pub unchanged: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes written; the rest was there already.
    pub written_bytes: u64,
    /// Files removed because the snapshot does not hold them.
    pub deleted: u64,
    /// Directories in which nothing was removed: not all that was in them is in the snapshot.
    pub partial_directories: u64,
    /// What failed, by path.
    pub problems: Vec<(Name, String)>,
}
