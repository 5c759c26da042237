//! Reading a snapshot back, and holding its tables against what the catalogue says of them.

use std::sync::atomic::Ordering;

use crate::catalogue::{Catalogue, Encoding, Table};
use crate::error::{Error, Result};
use crate::format::snapshot::{Snapshot, StreamEntry};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::restore::packed::copy_packed;
use crate::restore::{StreamTarget, WriterTarget, copy_stream, stream_of};

/// What was read back.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadBack {
    /// Bytes of streams.
    pub bytes: u64,
    /// Tables whose rows have the hash that they had when they were read.
    pub tables: u64,
}

/// The catalogues of a snapshot; none where it is not of a database.
pub fn catalogues(repository: &Repository, snapshot: &Snapshot) -> Result<Vec<Catalogue>> {
    let Some(name) = &snapshot.catalogue else { return Ok(Vec::new()) };
    let stream = stream_of(snapshot, name.as_bytes())?;
    if stream.size > MAX_CATALOGUE {
        return Err(Error::Conflict(format!("{name} is longer than any catalogue of tables")));
    }
    let mut target = WriterTarget { writer: Vec::new(), name: name.to_string() };
    copy_stream(repository, stream, &mut target, &Progress::default())?;
    let read: Vec<Catalogue> = serde_json::from_slice(&target.writer)
        .map_err(|error| Error::Conflict(format!("{name} is no catalogue of tables: {error}")))?;
    match read.iter().find(|catalogue| catalogue.version != 1) {
        Some(_) => Err(Error::Conflict(format!("{name}: a newer restow wrote it"))),
        None => Ok(read),
    }
}

/// Larger ones are none.
const MAX_CATALOGUE: u64 = 1 << 30;

/// Reads all streams of a snapshot. Each chunk is verified; the rows of tables that have a stream of
/// their own are held against their hashes as well.
pub fn read_back(
    repository: &Repository,
    snapshot: &Snapshot,
    progress: &Progress,
) -> Result<ReadBack> {
    let catalogues = catalogues(repository, snapshot)?;
    progress.begin_again();
    let total: u64 = snapshot.streams.iter().map(|stream| stream.size).sum();
    progress.total_bytes.store(total, Ordering::Relaxed);
    let mut read = ReadBack::default();
    for stream in &snapshot.streams {
        let mut target = HashTarget(blake3::Hasher::new());
        read.bytes += copy_stream(repository, stream, &mut target, progress)?;
        if let Some(table) = own_table(&catalogues, stream) {
            compare(table, stream, &target.0)?;
            read.tables += 1;
        }
    }
    for unpacked in &snapshot.unpacked {
        let mut target = HashTarget(blake3::Hasher::new());
        copy_packed(repository, snapshot, unpacked, &mut target, &Progress::default())?;
    }
    Ok(read)
}

fn own_table<'a>(catalogues: &'a [Catalogue], stream: &StreamEntry) -> Option<&'a Table> {
    let name = stream.name.to_string();
    let mut tables = catalogues.iter().flat_map(|catalogue| &catalogue.tables);
    tables.find(|table| {
        table.encoding == Encoding::Copy && table.stream == name && !table.rows_hash.is_empty()
    })
}

fn compare(table: &Table, stream: &StreamEntry, hasher: &blake3::Hasher) -> Result<()> {
    if hasher.finalize().to_hex().as_str() == table.rows_hash {
        return Ok(());
    }
    let (schema, name) = (&table.schema, &table.name);
    let stream = &stream.name;
    Err(Error::Conflict(format!(
        "{stream} does not hold the rows that were read of {schema}.{name}"
    )))
}

struct HashTarget(blake3::Hasher);

impl StreamTarget for HashTarget {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.update(bytes);
        Ok(())
    }
}
