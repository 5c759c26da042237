//! The primitive parts of an archive of `pg_dump -Fc`: integers, strings and offsets.

use super::toc::{Offset, TocError};

/// An offset that is not known: the block is found by reading on.
pub(super) const OFFSET_NOT_SET: u8 = 1;
const OFFSET_SET: u8 = 2;
const OFFSET_NO_DATA: u8 = 3;

/// A number written in digits.
pub(super) fn number<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Text as it is, or byte by byte as Latin-1 where it is not UTF-8: different bytes stay different.
pub(super) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// Reads the parts of a head one after the other.
pub(super) struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
    /// How many bytes an offset has.
    pub offset_size: usize,
}

impl<'a> Cursor<'a> {
    /// An error at this place.
    pub fn damaged<T>(&self, what: &'static str) -> Result<T, TocError> {
        Err(TocError::Damaged { at: self.at, what })
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], TocError> {
        let end = self.at.saturating_add(len);
        let piece = self.bytes.get(self.at..end).ok_or(TocError::Incomplete(end))?;
        self.at = end;
        Ok(piece)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, TocError> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    /// A sign, 0 or 1, and four bytes of the amount.
    pub fn int(&mut self) -> Result<i32, TocError> {
        match int(self.take(5)?) {
            Some(value) => Ok(value),
            None => self.damaged("not an integer"),
        }
    }

    /// A string; none where it is absent.
    pub fn text(&mut self) -> Result<Option<&'a [u8]>, TocError> {
        match usize::try_from(self.int()?) {
            Ok(len) => self.take(len).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// A string; empty where it is absent.
    pub fn string(&mut self) -> Result<String, TocError> {
        Ok(self.text()?.map(text).unwrap_or_default())
    }

    /// A number written as a string.
    pub fn number(&mut self) -> Result<u32, TocError> {
        match self.text()?.and_then(number) {
            Some(value) => Ok(value),
            None => self.damaged("an oid is not a number"),
        }
    }

    /// The place of a data block.
    pub fn offset(&mut self) -> Result<Offset, TocError> {
        let state = self.byte()?;
        let place = self.take(self.offset_size)?;
        let place = place.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        match state {
            OFFSET_NOT_SET => Ok(Offset::NotSet),
            OFFSET_SET => Ok(Offset::Set(place)),
            OFFSET_NO_DATA => Ok(Offset::NoData),
            _ => self.damaged("an unknown state of an offset"),
        }
    }
}

/// An integer of an archive from its five bytes; none where they are not one.
pub(super) fn int(bytes: &[u8]) -> Option<i32> {
    let [sign @ (0 | 1), a, b, c, d] = *bytes else { return None };
    let amount = i64::from(u32::from_le_bytes([a, b, c, d]));
    i32::try_from(if sign == 1 { -amount } else { amount }).ok()
}
