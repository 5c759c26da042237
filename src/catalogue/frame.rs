//! The data blocks of an uncompressed archive of `pg_dump -Fc`: a kind, the number of the entry, then
//! chunks each with its length before it, and a length of 0 at the end. Blocks of large objects hold
//! such a list of chunks for each object, its oid before it, and an oid of 0 at the end.
//!
//! Takes and gives pieces of any size and keeps a few bytes only. See `pg_backup_custom.c`.

use super::rows::COPY_END;
use super::toc_cursor;

const BLOCK_DATA: u8 = 1;
const BLOCK_OBJECTS: u8 = 3;
const INT: usize = 5;

/// Why bytes are not data blocks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A block of another kind than rows and large objects.
    #[error("no data block of an archive: kind {0}")]
    Kind(u8),
    /// A length or number that cannot be.
    #[error("a length in a data block is damaged")]
    Length,
    /// The bytes end within a block.
    #[error("the data block is cut short")]
    Short,
    /// The bytes go on behind the block.
    #[error("bytes follow the data block")]
    Behind,
    /// Large objects where rows are wanted.
    #[error("the block holds large objects, no rows")]
    Objects,
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// The start of a block, with the number of its entry.
    Block { dump_id: i32 },
    /// A large object begins.
    Object,
    /// Bytes of the rows or of the large object.
    Payload(&'a [u8]),
    /// A block ends.
    End,
    /// More input is needed.
    More,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Oid,
    Length {
        object: bool,
    },
    Chunk {
        object: bool,
        left: usize,
    },
}

/// Takes blocks apart.
#[derive(Debug, Default)]
pub(super) struct Deframer {
    state: State,
    partial: [u8; INT + 1],
    partial_len: usize,
}

impl Deframer {
    /// Whether the input stands between two blocks.
    pub fn between_blocks(&self) -> bool {
        self.state == State::Head && self.partial_len == 0
    }

    /// The next frame; `input` is moved behind it.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Frame<'a>, FrameError> {
        loop {
            match self.state {
                State::Chunk { object, left } => {
                    if input.is_empty() {
                        return Ok(Frame::More);
                    }
                    let (payload, rest) = input.split_at(left.min(input.len()));
                    *input = rest;
                    let left = left - payload.len();
                    self.state = match left {
                        0 => State::Length { object },
                        _ => State::Chunk { object, left },
                    };
                    return Ok(Frame::Payload(payload));
                }
                State::Length { object } => {
                    let Some(length) = self.int(input)? else { return Ok(Frame::More) };
                    let left = usize::try_from(length).map_err(|_| FrameError::Length)?;
                    self.state = match (left, object) {
                        (0, true) => State::Oid,
                        (0, false) => State::Head,
                        _ => State::Chunk { object, left },
                    };
                    if self.state == State::Head {
                        return Ok(Frame::End);
                    }
                }
                State::Oid => {
                    let Some(oid) = self.int(input)? else { return Ok(Frame::More) };
                    self.state =
                        if oid == 0 { State::Head } else { State::Length { object: true } };
                    return Ok(if oid == 0 { Frame::End } else { Frame::Object });
                }
                State::Head => return self.head(input),
            }
        }
    }

    fn head<'a>(&mut self, input: &mut &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let Some([kind, id @ ..]) = self.gather::<{ INT + 1 }>(input) else {
            return Ok(Frame::More);
        };
        self.state = match kind {
            BLOCK_DATA => State::Length { object: false },
            BLOCK_OBJECTS => State::Oid,
            other => return Err(FrameError::Kind(other)),
        };
        let dump_id = toc_cursor::int(&id).ok_or(FrameError::Length)?;
        Ok(Frame::Block { dump_id })
    }

    fn int(&mut self, input: &mut &[u8]) -> Result<Option<i32>, FrameError> {
        match self.gather::<INT>(input) {
            Some(bytes) => toc_cursor::int(&bytes).map(Some).ok_or(FrameError::Length),
            None => Ok(None),
        }
    }

    /// The next `N` bytes, gathered over pieces.
    fn gather<const N: usize>(&mut self, input: &mut &[u8]) -> Option<[u8; N]> {
        if let (0, Some((bytes, rest))) = (self.partial_len, input.split_first_chunk::<N>()) {
            *input = rest;
            return Some(*bytes);
        }
        let (taken, rest) = input.split_at(input.len().min(N - self.partial_len));
        self.partial[self.partial_len..self.partial_len + taken.len()].copy_from_slice(taken);
        self.partial_len += taken.len();
        *input = rest;
        if self.partial_len < N {
            return None;
        }
        self.partial_len = 0;
        self.partial.first_chunk::<N>().copied()
    }
}

/// Reads the bytes of one data block and gives its rows: the text of `COPY`, without the marker at
/// its end. In a dump of `--inserts` the rows are statements and nothing is left out.
#[derive(Debug, Default)]
pub struct BlockReader {
    deframer: Deframer,
    dump_id: Option<i32>,
    held: Vec<u8>,
    ended: bool,
}

impl BlockReader {
    /// At the start of a block.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of the block's entry, once its first bytes were read.
    pub fn dump_id(&self) -> Option<i32> {
        self.dump_id
    }

    /// Takes the next bytes of the block and appends the rows in them to `rows`.
    pub fn push(&mut self, mut bytes: &[u8], rows: &mut Vec<u8>) -> Result<(), FrameError> {
        while !self.ended {
            match self.deframer.next(&mut bytes)? {
                Frame::Block { dump_id } => self.dump_id = Some(dump_id),
                Frame::Object => return Err(FrameError::Objects),
                Frame::Payload(payload) => self.pass(payload, rows),
                Frame::End => self.ended = true,
                Frame::More => return Ok(()),
            }
        }
        if bytes.is_empty() { Ok(()) } else { Err(FrameError::Behind) }
    }

    /// After the last byte: what is left goes to `rows`. True where the rows ended as those of `COPY`
    /// do; false for statements.
    pub fn finish(self, rows: &mut Vec<u8>) -> Result<bool, FrameError> {
        if !self.ended {
            return Err(FrameError::Short);
        }
        let marked = self.held == COPY_END;
        if !marked {
            rows.extend(self.held);
        }
        Ok(marked)
    }

    /// Holds the last bytes back: they may be the marker.
    fn pass(&mut self, payload: &[u8], rows: &mut Vec<u8>) {
        match payload.len().checked_sub(COPY_END.len()) {
            Some(settled) => {
                rows.append(&mut self.held);
                rows.extend_from_slice(&payload[..settled]);
                self.held.extend_from_slice(&payload[settled..]);
            }
            None => {
                self.held.extend_from_slice(payload);
                let settled = self.held.len().saturating_sub(COPY_END.len());
                rows.extend(self.held.drain(..settled));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Noise, archive, shop};
    use super::super::toc::Toc;
    use super::*;

    /// The block of entry 8, without what is before and behind it.
    fn block() -> Vec<u8> {
        let entries = shop();
        let bytes = archive(14, false, &entries);
        let start = Toc::parse(&bytes).expect("sound").head_len;
        bytes[start..bytes.len() - 21].to_vec()
    }

    fn read(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, bool), FrameError> {
        let (mut reader, mut rows) = (BlockReader::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            reader.push(piece, &mut rows)?;
        }
        assert!(bytes.len() < 6 || reader.dump_id().is_some());
        let marked = reader.finish(&mut rows)?;
        Ok((rows, marked))
    }

    #[test]
    fn rows_come_without_frames_and_marker() {
        let block = block();
        for piece in 1..block.len() + 1 {
            let (rows, marked) = read(&block, piece).expect("sound");
            assert_eq!(rows, b"1\t\\N\n2\t\\\\.\n3\tx\n");
            assert!(marked);
        }
    }

    #[test]
    fn statements_come_whole() {
        let block = [1, 0, 8, 0, 0, 0, 0, 3, 0, 0, 0, b'a', b';', b'\n', 0, 0, 0, 0, 0];
        assert_eq!(read(&block, 4), Ok((b"a;\n".to_vec(), false)));
    }

    #[test]
    fn blocks_cut_short_or_followed_by_bytes_are_errors() {
        let block = block();
        for len in 0..block.len() {
            assert_eq!(read(&block[..len], 3), Err(FrameError::Short), "{len}");
        }
        let mut longer = block.clone();
        longer.push(1);
        assert_eq!(read(&longer, 1000), Err(FrameError::Behind));
        assert_eq!(read(&[7; 20], 20), Err(FrameError::Kind(7)));
        assert_eq!(read(&[1, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0], 20), Err(FrameError::Length));
        assert_eq!(read(&[3, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0], 20), Err(FrameError::Objects));
    }

    #[test]
    fn damaged_blocks_never_panic() {
        let mut noise = Noise(1);
        for _ in 0..2000 {
            let _ = read(&noise.damage(&block()), 1 + noise.below(30));
        }
    }
}
