//! What stands around deflate streams: the heads of gzip members and of zlib streams, and the head and table of
//! contents of a `pg_dump -Fc` archive, read no further than to find where they end.

use std::io::{self, Read};

use thiserror::Error;

use super::feed::{Feed, INT_BYTES, int};

/// A table of contents above this is taken for damage.
const TOC_BYTES_MAX: usize = 256 << 20;
/// The longest head of a gzip member that is looked for.
const GZIP_HEAD_BYTES_MAX: usize = 16 << 10;
const PGDUMP_MAGIC: &[u8] = b"PGDMP";
const PGDUMP_FORMAT_CUSTOM: u8 = 1;

/// What a compressed input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// gzip members, one after the other (RFC 1952).
    Gzip,
    /// A zlib stream (RFC 1950).
    Zlib,
    /// A `pg_dump -Fc` archive whose data is compressed with zlib.
    PgCustom,
}

/// Why an input is stored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No format that this module knows.
    #[error("not compressed in a known format (gzip, zlib, pg_dump -Fc)")]
    Unknown,
    /// Nothing to gain.
    #[error("the archive is not compressed: it deduplicates as it is")]
    Uncompressed,
    /// An archive of pg_dump 16 or newer with `--compress=lz4`.
    #[error("the archive is compressed with lz4, which cannot be unpacked: use pg_dump -Fc -Z0")]
    Lz4,
    /// An archive of pg_dump 16 or newer with `--compress=zstd`.
    #[error("the archive is compressed with zstd, which cannot be unpacked: use pg_dump -Fc -Z0")]
    Zstd,
    /// An archive format from before PostgreSQL 9 or after 18, or of a foreign layout.
    #[error("the archive has format version {0}.{1}, of which only 1.12 to 1.16 are known")]
    Version(u8, u8),
}

/// Looks at the first bytes of an input; 16 are enough.
pub(super) fn inspect(head: &[u8]) -> Result<Kind, Refusal> {
    match head {
        [0x1f, 0x8b, 8, flags, ..] if flags & 0xe0 == 0 => Ok(Kind::Gzip),
        [cmf @ 0x78, flg, ..] if zlib_head(*cmf, *flg) => Ok(Kind::Zlib),
        _ if head.starts_with(PGDUMP_MAGIC) => inspect_archive(head),
        _ => Err(Refusal::Unknown),
    }
}

fn zlib_head(cmf: u8, flg: u8) -> bool {
    let sum = u16::from(cmf) << 8 | u16::from(flg);
    cmf & 15 == 8 && cmf >> 4 <= 7 && flg & 0x20 == 0 && sum % 31 == 0
}

fn inspect_archive(head: &[u8]) -> Result<Kind, Refusal> {
    let Some([major, minor, _, int_size, offset_size, format]) = head.get(5..11) else {
        return Err(Refusal::Unknown);
    };
    if *major != 1 || !(12..=16).contains(minor) || *int_size != 4 || *offset_size != 8 {
        return Err(Refusal::Version(*major, *minor));
    }
    if *format != PGDUMP_FORMAT_CUSTOM {
        return Err(Refusal::Unknown);
    }
    if *minor >= 15 {
        return match head.get(11) {
            Some(0) => Err(Refusal::Uncompressed),
            Some(1) => Ok(Kind::PgCustom),
            Some(2) => Err(Refusal::Lz4),
            Some(3) => Err(Refusal::Zstd),
            _ => Err(Refusal::Unknown),
        };
    }
    match head.get(11..11 + INT_BYTES).and_then(int) {
        Some(0) => Err(Refusal::Uncompressed),
        Some(-1..=9) => Ok(Kind::PgCustom),
        _ => Err(Refusal::Unknown),
    }
}

/// Bytes of the head of a gzip member; none where there is no member.
pub(super) fn gzip_head<R: Read>(feed: &mut Feed<R>) -> io::Result<Option<usize>> {
    let head = feed.peek(10)?;
    if inspect(head) != Ok(Kind::Gzip) || head.len() < 10 {
        return Ok(None);
    }
    let head = feed.peek(GZIP_HEAD_BYTES_MAX)?;
    Ok(gzip_head_bytes(head).filter(|n| *n <= GZIP_HEAD_BYTES_MAX))
}

fn gzip_head_bytes(head: &[u8]) -> Option<usize> {
    let flags = *head.get(3)?;
    let mut at = 10;
    if flags & 4 != 0 {
        at += 2 + usize::from(u16::from_le_bytes([*head.get(at)?, *head.get(at + 1)?]));
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            at += head.get(at..)?.iter().position(|byte| *byte == 0)? + 1;
        }
    }
    at += if flags & 2 != 0 { 2 } else { 0 };
    (at <= head.len()).then_some(at)
}

/// Whether a zlib stream without a preset dictionary begins here.
pub(super) fn is_zlib_head(head: &[u8]) -> bool {
    matches!(head, [cmf, flg] if zlib_head(*cmf, *flg))
}

/// Reads an archive up to the end of its table of contents. Gives the bytes read, and whether the end was found.
pub(super) fn archive_head<R: Read>(feed: &mut Feed<R>) -> io::Result<(Vec<u8>, bool)> {
    let mut toc = Toc { feed, bytes: Vec::new() };
    let found = toc.walk()?.is_some();
    Ok((toc.bytes, found))
}

struct Toc<'a, R> {
    feed: &'a mut Feed<R>,
    bytes: Vec<u8>,
}

/// Each step gives none where the bytes are no archive.
type Step<T> = io::Result<Option<T>>;

/// Leaves a function early where a step gave none.
macro_rules! some {
    ($step:expr) => {
        match $step? {
            Some(value) => value,
            None => return Ok(None),
        }
    };
}

impl<R: Read> Toc<'_, R> {
    fn walk(&mut self) -> Step<()> {
        some!(self.skip(11));
        let minor = self.bytes[6];
        let compression = if minor >= 15 { 1 } else { INT_BYTES };
        // The compression, then the time of creation in seven numbers.
        some!(self.skip(compression + 7 * INT_BYTES));
        // Database name, server version, pg_dump version.
        some!(self.strings(3));
        for _ in 0..some!(self.int()).max(0) {
            some!(self.entry(minor));
        }
        Ok(Some(()))
    }

    fn entry(&mut self, minor: u8) -> Step<()> {
        // Dump id, whether it has data; table and object id as text, tag, description.
        some!(self.skip(2 * INT_BYTES));
        some!(self.strings(4));
        some!(self.int());
        // Definition, drop and copy statements, schema, tablespace, since 1.14 the table access method.
        some!(self.strings(if minor >= 14 { 6 } else { 5 }));
        if minor >= 16 {
            some!(self.int());
        }
        // Owner, with or without oids; then dependencies up to an absent string.
        some!(self.strings(2));
        while some!(self.string()) {}
        // State and offset of the data.
        self.skip(1 + 8)
    }

    fn strings(&mut self, n: usize) -> Step<()> {
        for _ in 0..n {
            some!(self.string());
        }
        Ok(Some(()))
    }

    /// Whether there is a string at all.
    fn string(&mut self) -> Step<bool> {
        let length = some!(self.int());
        match usize::try_from(length) {
            Ok(length) => Ok(self.skip(length)?.map(|()| true)),
            Err(_) => Ok(Some(false)),
        }
    }

    fn int(&mut self) -> Step<i32> {
        some!(self.skip(INT_BYTES));
        Ok(int(&self.bytes[self.bytes.len() - INT_BYTES..]))
    }

    fn skip(&mut self, mut n: usize) -> Step<()> {
        if n > TOC_BYTES_MAX || self.bytes.len() > TOC_BYTES_MAX {
            return Ok(None);
        }
        while n > 0 {
            let taken = self.feed.take(n)?;
            if taken.is_empty() {
                return Ok(None);
            }
            n -= taken.len();
            self.bytes.extend_from_slice(&taken);
        }
        Ok(Some(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_told_apart() {
        let archive =
            |minor: u8, rest: &[u8]| [b"PGDMP\x01", &[minor, 0, 4, 8, 1][..], rest].concat();
        assert_eq!(inspect(&archive(14, &[1, 1, 0, 0, 0])), Ok(Kind::PgCustom));
        assert_eq!(inspect(&archive(14, &[0, 0, 0, 0, 0])), Err(Refusal::Uncompressed));
        assert_eq!(inspect(&archive(15, &[1])), Ok(Kind::PgCustom));
        assert_eq!(inspect(&archive(16, &[2])), Err(Refusal::Lz4));
        assert_eq!(inspect(&archive(16, &[3])), Err(Refusal::Zstd));
        assert_eq!(inspect(&archive(17, &[1])), Err(Refusal::Version(1, 17)));
        assert_eq!(inspect(b"\x1f\x8b\x08\x00"), Ok(Kind::Gzip));
        assert_eq!(inspect(b"\x78\x9c"), Ok(Kind::Zlib));
        assert_eq!(inspect(b"\x78\x9d"), Err(Refusal::Unknown));
        for end in 0..5 {
            assert_eq!(inspect(&b"PGDMP"[..end]), Err(Refusal::Unknown));
        }
        assert_eq!(inspect(&archive(14, &[])[..9]), Err(Refusal::Unknown));
    }

    #[test]
    fn gzip_heads_end_after_their_optional_fields() {
        let mut head = vec![0x1f, 0x8b, 8, 4 | 8 | 16 | 2, 0, 0, 0, 0, 0, 3];
        head.extend_from_slice(&[3, 0, 1, 2, 3]);
        head.extend_from_slice(b"name\0comment\0");
        head.extend_from_slice(&[9, 9]);
        assert_eq!(gzip_head_bytes(&head), Some(head.len()));
        assert_eq!(gzip_head_bytes(&head[..head.len() - 1]), None);
    }
}
