//! The rows of one table out of a snapshot, in the text format of `COPY`, whatever stream they stand in;
//! and that format taken apart (PostgreSQL documentation, "COPY", "Text Format").

use crate::catalogue::{BlockReader, Encoding, Table};
use crate::database::postgres::restore::Origin;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::restore::{StreamTarget, copy_range, copy_stream, stream_of};

/// Writes the rows of a table to `target`, reading nothing else, and holds them against their hash.
pub fn copy_rows(
    origin: &Origin<'_>,
    table: &Table,
    target: &mut dyn StreamTarget,
    progress: &Progress,
) -> Result<()> {
    let stream = stream_of(origin.snapshot, &table.stream)?;
    let named = |what: String| {
        let (schema, name) = (&table.schema, &table.name);
        Error::Conflict(format!("rows of {schema}.{name} in the snapshot: {what}"))
    };
    if matches!(table.encoding, Encoding::Statements | Encoding::Pages) {
        return Err(named("they stand as statements, not as COPY".into()));
    }
    let mut rows = Unframed {
        target,
        block: (table.encoding == Encoding::ArchiveBlock).then(BlockReader::new),
        buffer: Vec::new(),
        hasher: blake3::Hasher::new(),
    };
    if table.data.is_empty() && table.encoding == Encoding::Copy {
        copy_stream(origin.repository, stream, &mut rows, progress)?;
    }
    for range in &table.data {
        copy_range(origin.repository, stream, *range, &mut rows, progress)?;
    }
    rows.finish(!table.data.is_empty()).map_err(named)?;
    let hash = rows.hasher.finalize().to_hex();
    if !table.rows_hash.is_empty() && hash.as_str() != table.rows_hash {
        return Err(named("they are not those that were read".into()));
    }
    Ok(())
}

/// Takes rows out of the framing of an archive.
struct Unframed<'a> {
    target: &'a mut dyn StreamTarget,
    block: Option<BlockReader>,
    buffer: Vec<u8>,
    hasher: blake3::Hasher,
}

impl Unframed<'_> {
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.target.write(bytes)
    }

    fn finish(&mut self, has_block: bool) -> Result<(), String> {
        let Some(block) = self.block.take().filter(|_| has_block) else { return Ok(()) };
        let mut rest = Vec::new();
        block.finish(&mut rest).map_err(|error| error.to_string())?;
        self.send(&rest).map_err(|error| error.to_string())
    }
}

impl StreamTarget for Unframed<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(block) = &mut self.block else { return self.send(bytes) };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let pushed = block.push(bytes, &mut buffer);
        pushed.map_err(|error| Error::Conflict(format!("the archive in the snapshot: {error}")))?;
        self.send(&buffer)?;
        self.buffer = buffer;
        Ok(())
    }
}

/// A target that is given one row after the other, without its line break.
pub struct EachRow<F> {
    take: F,
    line: Vec<u8>,
}

impl<F: FnMut(&[u8]) -> Result<()>> EachRow<F> {
    /// Gives rows to `take`.
    pub fn new(take: F) -> Self {
        Self { take, line: Vec::new() }
    }
}

impl<F: FnMut(&[u8]) -> Result<()>> StreamTarget for EachRow<F> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            if self.line.is_empty() {
                (self.take)(&rest[..end])?;
            } else {
                self.line.extend_from_slice(&rest[..end]);
                (self.take)(&self.line)?;
                self.line.clear();
            }
            rest = &rest[end + 1..];
        }
        self.line.extend_from_slice(rest);
        Ok(())
    }
}

/// The values of a row; `None` for NULL.
pub fn values(row: &[u8]) -> Vec<Option<Vec<u8>>> {
    row.split(|byte| *byte == b'\t').map(value).collect()
}

fn value(field: &[u8]) -> Option<Vec<u8>> {
    if field == b"\\N" {
        return None;
    }
    let mut plain = Vec::with_capacity(field.len());
    let mut bytes = field.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'b') => plain.push(8),
            Some(b'f') => plain.push(12),
            Some(b'n') => plain.push(b'\n'),
            Some(b'r') => plain.push(b'\r'),
            Some(b't') => plain.push(b'\t'),
            Some(b'v') => plain.push(11),
            Some(b'x') => plain.push(digits(&mut bytes, 16, 2).unwrap_or(b'x')),
            Some(first @ b'0'..=b'7') => plain.push(octal(first, &mut bytes)),
            Some(other) => plain.push(other),
            None => plain.push(b'\\'),
        }
    }
    Some(plain)
}

/// One to three octal digits; only the low byte counts.
fn octal(first: u8, bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>) -> u8 {
    let mut value = u32::from(first - b'0');
    for _ in 0..2 {
        let Some(digit) = bytes.peek().and_then(|byte| (*byte as char).to_digit(8)) else { break };
        value = value * 8 + digit;
        bytes.next();
    }
    value as u8
}

/// Up to so many digits.
fn digits(
    bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>,
    radix: u32,
    most: usize,
) -> Option<u8> {
    let mut value: Option<u32> = None;
    for _ in 0..most {
        let Some(digit) = bytes.peek().and_then(|byte| (*byte as char).to_digit(radix)) else {
            break;
        };
        value = Some(value.unwrap_or(0) * radix + digit);
        bytes.next();
    }
    value.map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_they_were() {
        let row = b"1\t\\N\ta\\tb\\\\c\\nd\t\t\\x41\\101";
        let expected: Vec<Option<&[u8]>> =
            vec![Some(b"1"), None, Some(b"a\tb\\c\nd"), Some(b""), Some(b"AA")];
        let found = values(row);
        let found: Vec<Option<&[u8]>> = found.iter().map(Option::as_deref).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn rows_come_whole_however_they_are_cut() {
        let text = b"a\tb\n\nccc\n";
        for cut in 0..text.len() {
            let mut rows = Vec::new();
            let mut each = EachRow::new(|row: &[u8]| {
                rows.push(row.to_vec());
                Ok(())
            });
            each.write(&text[..cut]).unwrap();
            each.write(&text[cut..]).unwrap();
            assert_eq!(rows, [b"a\tb".to_vec(), b"".to_vec(), b"ccc".to_vec()]);
        }
    }
}
