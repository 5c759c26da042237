//! The definitions of a snapshot: the head of its archive, and what of it `pg_restore` is to do.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

use super::Origin;
use crate::catalogue::toc::{Toc, TocEntry, synthetic_head};
use crate::database::leftover;
use crate::error::{Error, Result};
use crate::format::snapshot::StreamEntry;
use crate::progress::Progress;
use crate::restore::{WriterTarget, copy_range};

/// The head of an archive and its entries.
pub struct Archive {
    /// The entries.
    pub toc: Toc,
    /// Their bytes.
    pub head: Vec<u8>,
}

/// Larger heads are none.
const MAX_HEAD: u64 = 1 << 30;

impl Archive {
    /// Reads the head alone.
    pub fn read(origin: &Origin<'_>) -> Result<Self> {
        let catalogue = origin.catalogue;
        let stream = stream(origin, &catalogue.schema_stream)?;
        if catalogue.head.is_empty() || catalogue.head.len() > MAX_HEAD {
            let text = format!("{} is no archive of pg_dump", catalogue.schema_stream);
            return Err(Error::Conflict(text));
        }
        let mut target = WriterTarget { writer: Vec::new(), name: "memory".into() };
        copy_range(origin.repository, stream, catalogue.head, &mut target, &Progress::default())?;
        let head = target.writer;
        let toc = Toc::parse(&head).map_err(|error| {
            Error::Conflict(format!("the archive {}: {error}", catalogue.schema_stream))
        })?;
        Ok(Self { toc, head })
    }

    /// Writes an archive with all of the entries and none of the rows, for `pg_restore`, into a file that
    /// goes with the handle.
    pub fn write(&self, folder: &Path) -> Result<NamedTempFile> {
        temporary(folder, &synthetic_head(&self.head, &self.toc, |_| true))
    }

    /// The command that sets the session to the encoding of the rows.
    pub fn encoding(&self) -> &str {
        let mut entries = self.toc.entries.iter();
        entries.find(|entry| entry.desc == "ENCODING").map_or("", |entry| &entry.defn)
    }

    /// Whether any of these entries is wanted.
    pub fn has(&self, wanted: &HashSet<i32>, of: impl Fn(&TocEntry) -> bool) -> bool {
        self.toc.entries.iter().any(|entry| wanted.contains(&entry.dump_id) && of(entry))
    }
}

/// The encoding that the rows of a snapshot stand in, where it says.
pub fn encoding_of(origin: &Origin<'_>) -> Result<Option<String>> {
    let catalogue = origin.catalogue;
    let text = if !catalogue.head.is_empty() {
        Archive::read(origin)?.encoding().to_owned()
    } else {
        let stream = stream(origin, &catalogue.schema_stream)?;
        let mut target = WriterTarget { writer: Vec::new(), name: "memory".into() };
        let range = catalogue.preamble;
        copy_range(origin.repository, stream, range, &mut target, &Progress::default())?;
        String::from_utf8_lossy(&target.writer).into_owned()
    };
    let rest = text.split_once("SET client_encoding = '").map(|(_, rest)| rest);
    Ok(rest.and_then(|rest| rest.split('\'').next()).map(str::to_owned))
}

/// A temporary file with these bytes.
pub fn temporary(folder: &Path, bytes: &[u8]) -> Result<NamedTempFile> {
    let io = |source| Error::Io {
        action: "write a temporary file in",
        path: folder.display().to_string(),
        source,
    };
    let mut file = leftover::file(folder, "restow-archive-").map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.flush().map_err(io)?;
    Ok(file)
}

/// A stream of the snapshot.
pub fn stream<'a>(origin: &Origin<'a>, name: &str) -> Result<&'a StreamEntry> {
    let found = origin.snapshot.stream(name.as_bytes());
    found.ok_or_else(|| Error::Missing { what: format!("stream {name}") })
}
