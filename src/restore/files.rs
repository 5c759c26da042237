//! Restoring streams as files: written beside their place, put there when complete.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::options::{Decision, Overwrite};
use super::packed::copy_packed;
use super::place::Target;
use super::{StreamTarget, copy_stream};
use crate::entropy::{Entropy, random};
use crate::error::{Error, Result};
use crate::format::entry::Moment;
use crate::format::name::Name;
use crate::format::snapshot::{Snapshot, StreamEntry, UnpackedStream};
use crate::progress::Progress;
use crate::repository::Repository;

/// Where a stream of this name goes below `target`. Names that would lead out of it are refused.
pub fn place_below(target: &Path, name: &Name) -> Result<PathBuf> {
    if !name.is_file_path() {
        return Err(Error::Usage(format!("the name {name} does not stand for a file in a folder")));
    }
    let relative = Path::new(std::ffi::OsStr::from_bytes(name.relative()));
    Ok(target.join(relative))
}

/// How files are written.
#[derive(Debug, Clone, Copy)]
pub struct FileOptions<'a> {
    /// The folder they go below.
    pub target: &'a Path,
    /// What is done with those that are there.
    pub overwrite: Overwrite,
    /// Only look.
    pub dry_run: bool,
}

/// Restores a stream as a file below `target`; what is there already is dealt with as a file of the
/// snapshot's time. Returns whether it was written: otherwise what is there stays. An existing file is
/// replaced only by the complete stream. No link in the target is followed.
pub fn restore_stream(
    repository: &Repository,
    (stream, time): (&StreamEntry, Timestamp),
    options: FileOptions<'_>,
    progress: &Progress,
) -> Result<bool> {
    let copy = &mut |target: &mut dyn StreamTarget| {
        copy_stream(repository, stream, target, progress).map(drop)
    };
    write_stream(repository, &stream.name, Some(stream.size), time, options, copy)
}

/// The same for a stream that was stored unpacked.
pub fn restore_unpacked(
    repository: &Repository,
    snapshot: &Snapshot,
    unpacked: &UnpackedStream,
    options: FileOptions<'_>,
    progress: &Progress,
) -> Result<bool> {
    let copy = &mut |target: &mut dyn StreamTarget| {
        copy_packed(repository, snapshot, unpacked, target, progress).map(drop)
    };
    write_stream(repository, &unpacked.name, None, snapshot.time, options, copy)
}

/// Puts the bytes of a stream into a target.
type Copy<'a> = &'a mut dyn FnMut(&mut dyn StreamTarget) -> Result<()>;

fn write_stream(
    repository: &Repository,
    name: &Name,
    size: Option<u64>,
    time: Timestamp,
    FileOptions { target, overwrite, dry_run }: FileOptions<'_>,
    copy: Copy<'_>,
) -> Result<bool> {
    let path = place_below(target, name)?;
    let io = |action: &'static str| {
        let path = path.display().to_string();
        move |source: io::Error| Error::Io { action, path, source }
    };
    let place = if dry_run { Target::look(target) } else { Target::open(target) };
    let place = place.map_err(io("open the target of"))?;
    let relative = name.relative();
    let modified =
        Moment { seconds: time.as_second(), nanoseconds: time.subsec_nanosecond().unsigned_abs() };
    let there = place.stat(relative).map_err(io("look for"))?;
    match overwrite.decide_by(size, modified, there).map_err(io("restore"))? {
        Decision::Keep | Decision::Unchanged => return Ok(false),
        Decision::Create | Decision::Replace(_) if dry_run => return Ok(true),
        Decision::Create | Decision::Replace(_) => {}
    }
    let made = place.made_parent(relative, &mut |_| {});
    let (folder, file_name) = made.map_err(io("create the folder of"))?;
    let entropy = &*repository.environment().entropy;
    let temporary = Temporary::new(&folder, entropy).map_err(io("create a temporary file for"))?;
    let mut file = &temporary.file;
    let mut sparse = SparseFile { file: &mut file, path: &path };
    copy(&mut sparse)?;
    sparse.finish()?;
    let time = Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::futimens(&temporary.file, &times)
        .map_err(|error| io("set the time of")(error.into()))?;
    temporary.file.sync_all().map_err(io("sync"))?;
    let may_replace = overwrite != Overwrite::Never;
    temporary.put_in_place(file_name, may_replace).map_err(io("put in place"))?;
    Ok(true)
}

/// A file beside its place; removed unless it is put there.
struct Temporary<'a> {
    folder: &'a OwnedFd,
    name: String,
    file: File,
}

impl<'a> Temporary<'a> {
    fn new(folder: &'a OwnedFd, entropy: &dyn Entropy) -> io::Result<Self> {
        let name = format!(".restow-{}", hex::encode(random::<8>(entropy)));
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(folder, &name, flags, mode)?.into();
        Ok(Self { folder, name, file })
    }

    fn put_in_place(&self, name: &OsStr, overwrite: bool) -> io::Result<()> {
        if overwrite {
            return Ok(rustix::fs::renameat(self.folder, &self.name, self.folder, name)?);
        }
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(self.folder, &self.name, self.folder, name, flags) {
            // Not every file system can; a second link never replaces anything either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let none = AtFlags::empty();
                Ok(rustix::fs::linkat(self.folder, &self.name, self.folder, name, none)?)
            }
            other => Ok(other?),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // In its place it does not bear this name any more.
        let _ = rustix::fs::unlinkat(self.folder, &self.name, AtFlags::empty());
    }
}

/// A file whose long runs of zeros become holes.
struct SparseFile<'a> {
    file: &'a mut &'a File,
    path: &'a Path,
}

impl SparseFile<'_> {
    fn error(&self, action: &'static str, source: io::Error) -> Error {
        Error::Io { action, path: self.path.display().to_string(), source }
    }

    fn finish(&mut self) -> Result<()> {
        let end = self.file.stream_position().map_err(|error| self.error("write", error))?;
        self.file.set_len(end).map_err(|error| self.error("write", error))
    }
}

impl StreamTarget for SparseFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| self.error("write", error))
    }

    fn zeros(&mut self, count: u64) -> Result<()> {
        let offset = i64::try_from(count)
            .map_err(|_| Error::Usage("a hole of more than 8 EiB".to_owned()))?;
        self.file
            .seek(SeekFrom::Current(offset))
            .map(drop)
            .map_err(|error| self.error("write", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_lead_out_of_the_target() {
        let target = Path::new("/target");
        for bad in ["../x", "a/../../x", "", "/", "a/..", "."] {
            assert!(place_below(target, &Name::from(bad)).is_err(), "{bad}");
        }
        assert_eq!(place_below(target, &Name::from("/a/b")).unwrap(), Path::new("/target/a/b"));
        assert!(place_below(target, &Name::new(&b"a\0b"[..])).is_err());
        assert!(place_below(target, &Name::new(&b"a\n\xff"[..])).is_ok());
    }
}
