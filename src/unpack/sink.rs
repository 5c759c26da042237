//! The output of repacking: joins runs of bits into bytes, puts them into frames, counts and hashes them.

use std::collections::VecDeque;
use std::io::Write;

use super::repack::RepackError;

/// Frames that may be announced and not begun.
const RUNS_MAX: usize = 8 << 20;

/// Writes the repacked bytes.
pub(super) struct Sink<W> {
    out: W,
    hasher: blake3::Hasher,
    total: u64,
    /// Frames to come: their lengths, and how many of each.
    frames: VecDeque<(u32, u64)>,
    /// Bytes left of the current frame.
    left: usize,
    /// The bits of a byte that is not complete.
    carry: u8,
    carry_bits: u8,
}

impl<W: Write> Sink<W> {
    pub(super) fn new(out: W) -> Self {
        let (hasher, frames) = (blake3::Hasher::new(), VecDeque::new());
        Sink { out, hasher, total: 0, frames, left: 0, carry: 0, carry_bits: 0 }
    }

    /// Announces frames: what is written is put into them until they are full.
    pub(super) fn frames(&mut self, runs: Vec<(u32, u64)>) -> Result<(), RepackError> {
        if self.frames.len() + runs.len() > RUNS_MAX {
            return Err(RepackError::Recipe("too many frames"));
        }
        self.frames.extend(runs);
        Ok(())
    }

    /// Writes whole bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), RepackError> {
        if self.carry_bits != 0 {
            return Err(RepackError::Recipe("bytes within a byte"));
        }
        self.framed(bytes)
    }

    /// Writes `bits` bits, from bit `start` of the first byte on; the ones before are those written last.
    pub(super) fn bits(
        &mut self,
        mut bytes: Vec<u8>,
        start: u8,
        bits: u64,
    ) -> Result<(), RepackError> {
        if start != self.carry_bits {
            return Err(RepackError::Recipe("bits that do not join"));
        }
        if let Some(first) = bytes.first_mut() {
            *first |= self.carry;
        }
        self.carry_bits = ((u64::from(start) + bits) % 8) as u8;
        self.carry = 0;
        if self.carry_bits > 0 {
            let last = bytes.pop().ok_or(RepackError::Recipe("bits without bytes"))?;
            self.carry = last & ((1 << self.carry_bits) - 1);
        }
        self.framed(&bytes)
    }

    fn framed(&mut self, mut bytes: &[u8]) -> Result<(), RepackError> {
        while !bytes.is_empty() {
            if self.left == 0 && !self.begin_frame()? {
                return self.put(bytes);
            }
            let (now, later) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= now.len();
            self.put(now)?;
            bytes = later;
        }
        Ok(())
    }

    /// Writes the length of the next frame, if there is one.
    fn begin_frame(&mut self) -> Result<bool, RepackError> {
        let Some((length, count)) = self.frames.front_mut() else { return Ok(false) };
        let length = *length;
        *count -= 1;
        if *count == 0 {
            self.frames.pop_front();
        }
        self.left = length as usize;
        let [a, b, c, d] = length.to_le_bytes();
        self.put(&[0, a, b, c, d])?;
        Ok(true)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), RepackError> {
        self.out.write_all(bytes).map_err(RepackError::Write)?;
        self.hasher.update(bytes);
        self.total += bytes.len() as u64;
        Ok(())
    }

    /// Ends the output, which must have this length and hash, and returns the length.
    pub(super) fn finish(mut self, length: u64, hash: &blake3::Hash) -> Result<u64, RepackError> {
        // An input that ends just after the length of a frame.
        if self.left == 0 {
            self.begin_frame()?;
        }
        let complete = self.carry_bits == 0 && self.frames.is_empty();
        if !complete || self.total != length || self.hasher.finalize() != *hash {
            return Err(RepackError::Mismatch);
        }
        self.out.flush().map_err(RepackError::Write)?;
        Ok(self.total)
    }
}
