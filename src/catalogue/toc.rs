//! The head of an archive of `pg_dump -Fc`: its header and table of contents (TOC), versions 1.12 to
//! 1.16, PostgreSQL 9.5 to 18.
//!
//! Bounded by the bytes at hand: a length that the input claims reserves nothing. Written after
//! `ReadHead` and `ReadToc` of `src/bin/pg_dump/pg_backup_archiver.c`. Knows nothing of the data blocks.

use std::ops;

use super::Range;
use super::toc_cursor::{Cursor, OFFSET_NOT_SET, number};

/// The first bytes of every archive.
pub const MAGIC: &[u8] = b"PGDMP";
/// The largest head that is read, in bytes.
pub const HEAD_LIMIT: usize = 1 << 30;

const FORMAT_CUSTOM: u8 = 1;

/// Why bytes are not the head of an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TocError {
    /// Something else begins here.
    #[error("not an archive of pg_dump -Fc")]
    NotArchive,
    /// A version that is not known.
    #[error("archive version {0}.{1} is not known")]
    Version(u8, u8),
    /// The bytes contradict themselves.
    #[error("archive head is damaged at byte {at}: {what}")]
    Damaged {
        /// Where.
        at: usize,
        /// What was wrong there.
        what: &'static str,
    },
    /// It goes on for longer than [`HEAD_LIMIT`].
    #[error("archive head is larger than {HEAD_LIMIT} bytes")]
    TooLarge,
    /// At least so many bytes from its start are needed.
    #[error("archive head is cut short: {0} bytes or more are needed")]
    Incomplete(usize),
}

/// How the data blocks of an archive are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all (`-Z0`).
    #[default]
    None,
    /// gzip.
    Gzip,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
    /// A method of a later version.
    Other(u8),
}

/// The part of a restore an entry belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Section {
    /// That of the entry before (comments, grants).
    #[default]
    None,
    /// Before the rows.
    PreData,
    /// The rows, large objects and positions of sequences.
    Data,
    /// After the rows: indexes, constraints, triggers.
    PostData,
}

/// What an entry says of its data block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Offset {
    /// There is one, found by reading on (archive written to a pipe).
    #[default]
    NotSet,
    /// There is one, at this byte.
    Set(u64),
    /// There is none.
    NoData,
}

/// The head of an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Toc {
    /// Major, minor, revision.
    pub version: (u8, u8, u8),
    /// How data blocks are compressed.
    pub compression: Compression,
    /// Local time of the dump as `2025-11-21T04:11:00`; the archive does not know the zone.
    pub created: String,
    /// The database that was dumped.
    pub database: String,
    /// What the server says of its version.
    pub server_version: String,
    /// Version of pg_dump.
    pub dump_version: String,
    /// The entries in the order of the archive.
    pub entries: Vec<TocEntry>,
    /// Bytes of header and entries together: the first data block begins here.
    pub head_len: usize,
    /// Bytes of the header: the count of entries begins here.
    pub header_len: usize,
}

/// An entry: a definition, or the announcement of a data block. Absent strings are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TocEntry {
    /// Its number, unique in the archive.
    pub dump_id: i32,
    /// Whether it has a data block.
    pub had_dumper: bool,
    /// Oid of the system table that holds the object.
    pub table_oid: u32,
    /// Oid of the object.
    pub oid: u32,
    /// Name of the object; for many kinds with the table before it.
    pub tag: String,
    /// Kind, as `TABLE DATA`.
    pub desc: String,
    /// Part of the restore.
    pub section: Section,
    /// SQL that makes it.
    pub defn: String,
    /// SQL that removes it.
    pub drop_stmt: String,
    /// The `COPY … FROM stdin` for its data block.
    pub copy_stmt: String,
    /// Schema.
    pub namespace: String,
    /// Tablespace.
    pub tablespace: String,
    /// Table access method.
    pub tableam: String,
    /// Kind of relation as in `pg_class` (from 1.16), or 0.
    pub relkind: i32,
    /// Owner.
    pub owner: String,
    /// Numbers of the entries that it needs.
    pub dependencies: Vec<i32>,
    /// Place of its data block.
    pub offset: Offset,
    /// Where the state and the offset stand in the head.
    pub offset_at: usize,
    /// Where the entry stands in the head.
    pub bytes: ops::Range<usize>,
    /// The data block, once the archive was read that far.
    pub data: Option<Range>,
}

impl Toc {
    /// Reads a head that `bytes` begin with.
    pub fn parse(bytes: &[u8]) -> Result<Self, TocError> {
        let mut reader = TocReader::new();
        match reader.push(bytes)? {
            Some((toc, _)) => Ok(toc),
            None => Err(TocError::Incomplete(reader.needed)),
        }
    }

    /// The entry of a number.
    pub fn entry(&self, dump_id: i32) -> Option<&TocEntry> {
        self.entries.iter().find(|entry| entry.dump_id == dump_id)
    }
}

/// Reads a head from pieces of any size.
#[derive(Debug, Default)]
pub struct TocReader {
    buffer: Vec<u8>,
    toc: Option<Toc>,
    entries_left: u32,
    offset_size: usize,
    at: usize,
    needed: usize,
}

impl TocReader {
    /// At the start of an archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece. Once the head is whole: what it says, and how many bytes at the end of
    /// this piece lie behind it.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<(Toc, usize)>, TocError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < self.needed {
            return self.bounded();
        }
        match self.advance() {
            Ok(toc) => {
                let behind = self.buffer.len().saturating_sub(toc.head_len);
                self.buffer = Vec::new();
                Ok(Some((toc, behind)))
            }
            Err(TocError::Incomplete(needed)) => {
                self.needed = needed;
                self.bounded()
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the header was read, and what it says (the entries so far with it).
    pub fn header(&self) -> Option<&Toc> {
        self.toc.as_ref()
    }

    fn bounded(&self) -> Result<Option<(Toc, usize)>, TocError> {
        match self.buffer.len().max(self.needed) > HEAD_LIMIT {
            true => Err(TocError::TooLarge),
            false => Ok(None),
        }
    }

    fn advance(&mut self) -> Result<Toc, TocError> {
        let mut cursor = Cursor { bytes: &self.buffer, at: self.at, offset_size: self.offset_size };
        if self.toc.is_none() {
            let (toc, count) = header(&mut cursor)?;
            self.toc = Some(toc);
            self.entries_left = count;
            self.offset_size = cursor.offset_size;
            self.at = cursor.at;
        }
        let Some(toc) = self.toc.as_mut() else { return Err(TocError::NotArchive) };
        while self.entries_left > 0 {
            let entry = entry(&mut cursor, toc.version)?;
            toc.entries.push(entry);
            self.at = cursor.at;
            self.entries_left -= 1;
        }
        toc.head_len = self.at;
        self.toc.take().ok_or(TocError::NotArchive)
    }
}

fn header(cursor: &mut Cursor) -> Result<(Toc, u32), TocError> {
    let magic = cursor.take(MAGIC.len()).map_err(|error| match cursor.bytes {
        bytes if MAGIC.starts_with(bytes) => error,
        _ => TocError::NotArchive,
    })?;
    if magic != MAGIC {
        return Err(TocError::NotArchive);
    }
    let version = (cursor.byte()?, cursor.byte()?, cursor.byte()?);
    if version.0 != 1 || !(12..=16).contains(&version.1) {
        return Err(TocError::Version(version.0, version.1));
    }
    if cursor.byte()? != 4 {
        return cursor.damaged("integers are not of 4 bytes");
    }
    cursor.offset_size = usize::from(cursor.byte()?);
    if !(1..=8).contains(&cursor.offset_size) {
        return cursor.damaged("offsets of an unknown size");
    }
    if cursor.byte()? != FORMAT_CUSTOM {
        return cursor.damaged("not the custom format");
    }
    let mut toc = Toc { version, ..Toc::default() };
    toc.compression = compression(cursor, version)?;
    toc.created = created(cursor)?;
    toc.database = cursor.string()?;
    toc.server_version = cursor.string()?;
    toc.dump_version = cursor.string()?;
    toc.header_len = cursor.at;
    match u32::try_from(cursor.int()?) {
        Ok(count) => Ok((toc, count)),
        Err(_) => cursor.damaged("a negative count of entries"),
    }
}

fn compression(cursor: &mut Cursor, version: (u8, u8, u8)) -> Result<Compression, TocError> {
    if version.1 < 15 {
        return Ok(if cursor.int()? == 0 { Compression::None } else { Compression::Gzip });
    }
    Ok(match cursor.byte()? {
        0 => Compression::None,
        1 => Compression::Gzip,
        2 => Compression::Lz4,
        3 => Compression::Zstd,
        other => Compression::Other(other),
    })
}

/// Seconds, minutes, hours, day, month from 0, year from 1900, daylight saving.
fn created(cursor: &mut Cursor) -> Result<String, TocError> {
    let mut parts = [0i32; 7];
    for part in &mut parts {
        *part = cursor.int()?;
    }
    let [second, minute, hour, day, month, year, _] = parts;
    let (month, year) = (i64::from(month) + 1, i64::from(year) + 1900);
    Ok(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"))
}

fn entry(cursor: &mut Cursor, version: (u8, u8, u8)) -> Result<TocEntry, TocError> {
    let start = cursor.at;
    let mut entry = TocEntry { dump_id: cursor.int()?, ..TocEntry::default() };
    if entry.dump_id <= 0 {
        return cursor.damaged("an entry's number is not positive");
    }
    entry.had_dumper = cursor.int()? != 0;
    entry.table_oid = cursor.number()?;
    entry.oid = cursor.number()?;
    entry.tag = cursor.string()?;
    entry.desc = cursor.string()?;
    entry.section = match cursor.int()? {
        2 => Section::PreData,
        3 => Section::Data,
        4 => Section::PostData,
        _ => Section::None,
    };
    entry.defn = cursor.string()?;
    entry.drop_stmt = cursor.string()?;
    entry.copy_stmt = cursor.string()?;
    entry.namespace = cursor.string()?;
    entry.tablespace = cursor.string()?;
    if version.1 >= 14 {
        entry.tableam = cursor.string()?;
    }
    if version.1 >= 16 {
        entry.relkind = cursor.int()?;
    }
    entry.owner = cursor.string()?;
    cursor.string()?; // "false": the table has no oids
    while let Some(id) = cursor.text()? {
        entry.dependencies.push(
            number(id)
                .ok_or(TocError::Damaged { at: cursor.at, what: "a dependency is not a number" })?,
        );
    }
    entry.offset_at = cursor.at;
    entry.offset = cursor.offset()?;
    entry.bytes = start..cursor.at;
    Ok(entry)
}

/// The head of an archive that holds only some data blocks, in the order of the original, which the
/// caller appends: all entries of `head`, or only those that `keep` says, and no offsets, so that
/// pg_restore looks for the blocks. Entries that set up the session are always kept.
pub fn synthetic_head(head: &[u8], toc: &Toc, keep: impl Fn(&TocEntry) -> bool) -> Vec<u8> {
    let session = ["ENCODING", "STDSTRINGS", "SEARCHPATH"];
    let kept =
        toc.entries.iter().filter(|entry| session.contains(&entry.desc.as_str()) || keep(entry));
    let mut out = head.get(..toc.header_len).unwrap_or_default().to_vec();
    let count_at = out.len();
    out.extend([0; 5]);
    let mut count = 0u32;
    for entry in kept {
        let start = out.len();
        out.extend_from_slice(head.get(entry.bytes.clone()).unwrap_or_default());
        let state = start + entry.offset_at.saturating_sub(entry.bytes.start);
        if let (Offset::Set(_), Some(place)) = (entry.offset, out.get_mut(state..)) {
            place.fill(0);
            place[0] = OFFSET_NOT_SET;
        }
        count += 1;
    }
    out[count_at + 1..count_at + 5].copy_from_slice(&count.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{ARCHIVES, Noise, archive, shop};
    use super::*;

    #[test]
    fn heads_of_all_versions_are_read() {
        for minor in 12..=16 {
            let bytes = archive(minor, false, &shop());
            let toc = Toc::parse(&bytes).expect("a sound head");
            assert_eq!(toc.version, (1, minor, 0));
            assert_eq!(toc.created, "2025-11-21T04:11:04");
            assert_eq!((toc.database.as_str(), toc.dump_version.as_str()), ("shop", "15.2"));
            assert_eq!(toc.entries.len(), 11);
            let fk = toc.entry(12).expect("an entry");
            assert_eq!(fk.dependencies, [5, 4, 11]);
            assert_eq!((fk.oid, fk.owner.as_str(), fk.offset), (16384, "owner", Offset::NoData));
            assert_eq!(bytes[toc.head_len], 1);
        }
        for bytes in ARCHIVES {
            let toc = Toc::parse(bytes).expect("a sound head");
            assert_eq!(toc.database, "small");
            assert!(toc.entries.iter().any(|entry| entry.section == Section::PostData));
        }
    }

    #[test]
    fn pieces_of_one_byte_give_the_same() {
        for whole in ARCHIVES {
            let toc = Toc::parse(whole).expect("a sound head");
            let mut reader = TocReader::new();
            for (at, byte) in whole.iter().enumerate() {
                if let Some((read, behind)) = reader.push(&[*byte]).expect("sound") {
                    assert_eq!((at + 1, behind), (toc.head_len, 0));
                    assert_eq!(read, toc);
                    break;
                }
            }
        }
    }

    #[test]
    fn cut_heads_are_incomplete() {
        let bytes = archive(14, false, &shop());
        let head = Toc::parse(&bytes).expect("sound").head_len;
        for len in 0..head {
            let error = Toc::parse(&bytes[..len]).expect_err("cut");
            assert!(matches!(error, TocError::Incomplete(needed) if needed > len), "{len}");
        }
    }

    #[test]
    fn damaged_heads_are_errors() {
        let mut noise = Noise(3);
        for round in 0..3000 {
            let _ = Toc::parse(&noise.damage(ARCHIVES[round % 3]));
        }
        assert_eq!(Toc::parse(b"PGDUMP--------"), Err(TocError::NotArchive));
        assert_eq!(Toc::parse(b"PGDMP\x01\x11\x00\x04\x08"), Err(TocError::Version(1, 17)));
        let mut huge = archive(14, false, &[]);
        let at = huge.len() - 5 - 9;
        huge[at..at + 5].copy_from_slice(&[0, 255, 255, 255, 127]);
        assert_eq!(Toc::parse(&huge), Err(TocError::TooLarge));
    }

    #[test]
    fn synthetic_heads_hold_what_is_kept_and_no_offsets() {
        for (minor, seekable) in [(12, true), (16, false), (16, true)] {
            let bytes = archive(minor, seekable, &shop());
            let toc = Toc::parse(&bytes).expect("sound");
            let all = synthetic_head(&bytes[..toc.head_len], &toc, |_| true);
            assert_eq!(all, archive(minor, false, &shop())[..toc.head_len]);
            let one = synthetic_head(&bytes[..toc.head_len], &toc, |entry| entry.dump_id == 8);
            let one = Toc::parse(&one).expect("sound");
            assert_eq!(one.entries.len(), 1);
            assert_eq!((one.entries[0].dump_id, one.entries[0].offset), (8, Offset::NotSet));
        }
    }
}
