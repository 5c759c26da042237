//! A directory of a snapshot as a zip archive, written in one pass.
//!
//! Zip knows files, directories, symbolic links, permissions and times to two seconds; hard links
//! become copies, and other kinds of files are passed over. Names that are no UTF-8 are changed.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::{WriterTarget, copy_content};
use crate::error::{Error, Result};
use crate::format::entry::{Entry, Kind};
use crate::id::ChunkId;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::trees::{Step, walk_past};

/// Files from this size on need the fields of zip64.
const LARGE: u64 = u32::MAX as u64;

/// Writes all below a directory as a zip archive; names in it are relative to the directory.
pub fn write_zip(
    repository: &Repository,
    tree: ChunkId,
    writer: impl Write,
    progress: &Progress,
) -> Result<()> {
    let mut archive = ZipWriter::new_stream(writer);
    let failed = |error: zip::result::ZipError| Error::Io {
        action: "write",
        path: "the archive".to_owned(),
        source: io::Error::from(error),
    };
    let mut lost = None;
    let mut visit = |path: &[u8], entry: &Entry| {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let name = String::from_utf8_lossy(path).into_owned();
        let options = options(entry);
        match &entry.kind {
            Kind::Directory { .. } => archive.add_directory(name, options).map_err(failed)?,
            Kind::Symlink { target } => {
                let target = String::from_utf8_lossy(target);
                archive.add_symlink(name, target, options).map_err(failed)?;
            }
            Kind::File { size, content } => {
                archive.start_file(name, options.large_file(*size >= LARGE)).map_err(failed)?;
                let name = "the archive".to_owned();
                let mut target = WriterTarget { writer: &mut archive, name };
                copy_content(repository, *size, content, &mut target, progress)?;
            }
            _ => {}
        }
        Ok(Step::Enter)
    };
    // Directories that are damaged are passed by; the archive of the rest is whole.
    walk_past(repository, tree, b"", &mut visit, &mut |_, error| {
        lost.get_or_insert(error);
    })?;
    let mut writer = archive.finish().map_err(failed)?.into_inner();
    writer.flush().map_err(|source| failed(source.into()))?;
    lost.map_or(Ok(()), Err)
}

fn options(entry: &Entry) -> SimpleFileOptions {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .unix_permissions(entry.mode & 0o777);
    // Zip has no time zone; times outside of 1980 to 2107 cannot be said.
    let time = entry.modified.timestamp().map(|time| time.to_zoned(TimeZone::UTC).datetime());
    match time.and_then(|time| DateTime::try_from(time).ok()) {
        Some(time) => options.last_modified_time(time),
        None => options.last_modified_time(DateTime::default()),
    }
}
