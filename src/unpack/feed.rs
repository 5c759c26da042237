//! The compressed input: buffered, hashed and counted as it is read, with the frames of a pg_dump archive taken
//! off on demand.

use std::io::{self, Read};

use super::bits::Source;

const READ_BYTES: usize = 64 << 10;
/// Bytes of a number in an archive: a sign and 32 bits.
pub(super) const INT_BYTES: usize = 5;

/// The input of an [`super::Unpacker`].
pub(super) struct Feed<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    hasher: blake3::Hasher,
    /// Bytes read from the reader.
    pub(super) total: u64,
    /// Set while the bytes pulled are the contents of frames.
    pub(super) frames: Option<Frames>,
}

/// A run of frames, each a length and as many bytes.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Bytes left of the current frame.
    left: u32,
    /// Frames begun since the log was taken: length and how many.
    log: Vec<(u32, u64)>,
}

impl<R: Read> Feed<R> {
    pub(super) fn new(reader: R) -> Self {
        let hasher = blake3::Hasher::new();
        Feed { reader, buffer: Vec::new(), start: 0, hasher, total: 0, frames: None }
    }

    /// What is buffered, after reading until it is `n` bytes or the input ends.
    pub(super) fn peek(&mut self, n: usize) -> io::Result<&[u8]> {
        if self.buffer.len() - self.start < n {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        while self.buffer.len() - self.start < n {
            let held = self.buffer.len();
            self.buffer.resize(held + READ_BYTES, 0);
            let read = self.read_once(held);
            let read = read.inspect_err(|_| self.buffer.truncate(held))?;
            self.buffer.truncate(held + read);
            if read == 0 {
                break;
            }
        }
        Ok(&self.buffer[self.start..])
    }

    fn read_once(&mut self, held: usize) -> io::Result<usize> {
        loop {
            match self.reader.read(&mut self.buffer[held..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(read) => {
                    let fresh = &self.buffer[held..held + read];
                    self.hasher.update(fresh);
                    self.total += read as u64;
                    return Ok(read);
                }
            }
        }
    }

    /// Drops bytes that were peeked.
    pub(super) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.buffer.len());
    }

    /// Up to `most` bytes; none at the end.
    pub(super) fn take(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let bytes = self.peek(1)?;
        let bytes = bytes[..bytes.len().min(most)].to_vec();
        self.consume(bytes.len());
        Ok(bytes)
    }

    /// Puts bytes back that were taken last.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        self.buffer.splice(..self.start, bytes.iter().copied());
        self.start = 0;
    }

    /// The hash of all that was read.
    pub(super) fn hash(&self) -> blake3::Hash {
        self.hasher.finalize()
    }

    /// Frames begun since the last call.
    pub(super) fn take_log(&mut self) -> Vec<(u32, u64)> {
        self.frames.as_mut().map(|frames| std::mem::take(&mut frames.log)).unwrap_or_default()
    }

    /// Whether no frame is begun and unfinished.
    pub(super) fn between_frames(&self) -> bool {
        self.frames.as_ref().is_none_or(|frames| frames.left == 0)
    }

    /// Begins the next frame; false where there is none.
    fn begin_frame(&mut self) -> io::Result<bool> {
        let length = self.peek(INT_BYTES)?.get(..INT_BYTES).and_then(int).filter(|n| *n > 0);
        let (Some(length), Some(frames)) = (length, &mut self.frames) else { return Ok(false) };
        let length = length.unsigned_abs();
        frames.left = length;
        match frames.log.last_mut() {
            Some((last, count)) if *last == length => *count += 1,
            _ => frames.log.push((length, 1)),
        }
        self.consume(INT_BYTES);
        Ok(true)
    }
}

impl<R: Read> Source for Feed<R> {
    fn pull(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        if self.frames.as_ref().is_some_and(|frames| frames.left == 0) && !self.begin_frame()? {
            return Ok(0);
        }
        let most = self.frames.as_ref().map_or(READ_BYTES, |frames| frames.left as usize);
        let bytes = self.peek(1)?;
        let taken = bytes.len().min(most).min(READ_BYTES);
        into.extend_from_slice(&bytes[..taken]);
        self.consume(taken);
        if let Some(frames) = &mut self.frames {
            frames.left -= taken as u32;
        }
        Ok(taken)
    }
}

/// A number as pg_dump writes it, in 5 bytes: the sign, then 32 bits, lowest byte first.
pub(super) fn int(bytes: &[u8]) -> Option<i32> {
    let [sign, a, b, c, d] = *bytes else { return None };
    let value = i32::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
    match sign {
        0 => Some(value),
        1 => Some(-value),
        _ => None,
    }
}
