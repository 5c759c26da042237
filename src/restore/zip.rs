//! A directory of a snapshot as a zip archive, written in one pass.
//!
//! Zip knows files, directories, symbolic links, permissions and times to two seconds; hard links
//! become copies, and other kinds of files are passed over. Bytes of names that are no UTF-8 become
//! `%` and two digits.

use std::collections::HashSet;
use std::fmt::Write as _;
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

/// Files from this size on get the fields of zip64: what does not compress grows a little.
const LARGE: u64 = 4_000_000_000;

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
    // Archives do not take a name twice, and two may look the same once they are text.
    let mut names = HashSet::new();
    let mut visit = |path: &[u8], entry: &Entry| {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let mut name = text(path);
        while !names.insert(name.clone()) {
            name.push('_');
        }
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

/// A path as text.
fn text(path: &[u8]) -> String {
    let mut text = String::new();
    for part in path.utf8_chunks() {
        text.push_str(part.valid());
        for byte in part.invalid() {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
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
