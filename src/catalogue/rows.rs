//! Counts and hashes the rows of one table while they pass by: the text of `COPY`, a row a line.
//!
//! Small pieces are gathered, so that counting and hashing run over long stretches.

use blake3::Hasher;

const GATHER: usize = 128 << 10;
/// How the rows of a data block of an archive end.
pub(super) const COPY_END: &[u8] = b"\\.\n\n\n";

/// What is known of the rows of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub rows: u64,
    pub bytes: u64,
    pub hash: String,
}

/// Takes the rows of one table.
#[derive(Debug, Default)]
pub(super) struct RowCounter {
    hasher: Hasher,
    rows: u64,
    bytes: u64,
    gathered: Vec<u8>,
}

impl RowCounter {
    /// Takes more rows or parts of rows.
    pub fn push(&mut self, mut piece: &[u8]) {
        // Long stretches of one size hash fastest; the end is held back, for it may be the marker.
        while !piece.is_empty() {
            let room = GATHER + COPY_END.len() - self.gathered.len();
            let (now, later) = piece.split_at(room.min(piece.len()));
            self.gathered.extend_from_slice(now);
            piece = later;
            if now.len() == room {
                self.settle_gathered(GATHER);
            }
        }
    }

    fn settle_gathered(&mut self, len: usize) {
        let mut gathered = std::mem::take(&mut self.gathered);
        self.settle(&gathered[..len]);
        gathered.copy_within(len.., 0);
        gathered.truncate(gathered.len() - len);
        self.gathered = gathered;
    }

    fn settle(&mut self, rows: &[u8]) {
        self.rows += memchr::memchr_iter(b'\n', rows).count() as u64;
        self.bytes += rows.len() as u64;
        self.hasher.update(rows);
    }

    /// Cuts off the marker that ends the rows in an archive; false where there is none.
    pub fn cut_marker(&mut self) -> bool {
        let marked = self.gathered.ends_with(COPY_END);
        if marked {
            self.gathered.truncate(self.gathered.len() - COPY_END.len());
        }
        marked
    }

    /// After the last row.
    pub fn finish(mut self) -> Tally {
        self.settle_gathered(self.gathered.len());
        let hash = hex::encode(self.hasher.finalize().as_bytes());
        Tally { rows: self.rows, bytes: self.bytes, hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_rows_count_like_short_ones_and_the_marker_is_cut() {
        let mut text: Vec<u8> =
            (0..GATHER * 3).map(|at| if at % 91 == 0 { b'\n' } else { b'x' }).collect();
        for extra in 0..12 {
            text.push(b'\n');
            let whole = [&text, COPY_END].concat();
            for piece in [whole.len(), 100_000, 4099, 1 + extra] {
                let mut rows = RowCounter::default();
                whole.chunks(piece).for_each(|piece| rows.push(piece));
                assert!(rows.cut_marker());
                let tally = rows.finish();
                assert_eq!(tally.bytes, text.len() as u64);
                assert_eq!(tally.rows, memchr::memchr_iter(b'\n', &text).count() as u64);
                assert_eq!(tally.hash, blake3::hash(&text).to_hex().to_string());
            }
        }
    }
}
