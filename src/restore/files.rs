//! Restoring streams as files: written beside their place, put there when complete.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{StreamTarget, copy_stream};
use crate::error::{Error, Result};
use crate::format::name::Name;
use crate::format::snapshot::StreamEntry;
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

/// Restores a stream as a file below `target` and returns its path. An existing file is replaced
/// only with `overwrite`, and only by the complete stream.
pub fn restore_stream(
    repository: &Repository,
    stream: &StreamEntry,
    target: &Path,
    overwrite: bool,
    progress: &Progress,
) -> Result<PathBuf> {
    let path = place_below(target, &stream.name)?;
    let io = |action: &'static str| {
        let path = path.display().to_string();
        move |source: io::Error| Error::Io { action, path, source }
    };
    if !overwrite && path.symlink_metadata().is_ok() {
        return Err(Error::Conflict(format!(
            "{} exists; name another target or allow it with --overwrite",
            path.display()
        )));
    }
    let folder = path.parent().unwrap_or(target);
    fs::create_dir_all(folder).map_err(io("create the folder of"))?;
    let mut temporary = tempfile::Builder::new()
        .prefix(".restow-")
        .tempfile_in(folder)
        .map_err(io("create a temporary file for"))?;
    let mut sparse = SparseFile { file: temporary.as_file_mut(), path: &path };
    copy_stream(repository, stream, &mut sparse, progress)?;
    sparse.finish()?;
    temporary.as_file().sync_all().map_err(io("sync"))?;
    let persisted = if overwrite {
        temporary.persist(&path).map_err(|error| error.error)
    } else {
        temporary.persist_noclobber(&path).map_err(|error| error.error)
    };
    persisted.map_err(io("put in place"))?;
    Ok(path)
}

/// A file whose long runs of zeros become holes.
struct SparseFile<'a> {
    file: &'a mut File,
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
