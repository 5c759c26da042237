//! Bits of a deflate stream, least significant first (RFC 1951, 3.1.1): a reader that keeps the bytes of the
//! segment it is in, so that they can be compared or stored as they came, and a writer that may begin in the
//! middle of a byte.

use std::io;

/// Where a [`BitReader`] gets its bytes.
pub(super) trait Source {
    /// Appends some bytes to `into` and returns how many; 0 at the end.
    fn pull(&mut self, into: &mut Vec<u8>) -> io::Result<usize>;
}

/// The whole of `bytes` as a source.
pub(super) struct Whole<'a>(pub(super) &'a [u8]);

impl Source for Whole<'_> {
    fn pull(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        let bytes = std::mem::take(&mut self.0);
        into.extend_from_slice(bytes);
        Ok(bytes.len())
    }
}

/// Why bits could not be read.
#[derive(Debug)]
pub(super) enum Fault {
    /// The input could not be read.
    Io(io::Error),
    /// The bytes are no deflate stream, or end within one.
    Data,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

/// A run of bits as they came: `bits` bits from bit `start` of the first byte.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct RawBits {
    /// The bytes that hold the bits; the first and the last may hold foreign bits too.
    pub(super) bytes: Vec<u8>,
    /// The first bit's place in the first byte, 0 to 7.
    pub(super) start: u8,
    /// How many bits.
    pub(super) bits: u64,
}

/// Reads bits and remembers the bytes since the last [`BitReader::cut`].
#[derive(Default)]
pub(super) struct BitReader {
    bytes: Vec<u8>,
    /// The next byte to load into `acc`.
    next: usize,
    acc: u64,
    count: u32,
    /// The bit of `bytes[0]` at which the segment begins.
    start: u8,
}

impl BitReader {
    /// Loads at least 56 bits, or what is left of the source.
    #[inline]
    pub(super) fn refill(&mut self, source: &mut impl Source) -> io::Result<()> {
        if self.next + 8 > self.bytes.len() {
            self.pull_to(8, source)?;
        }
        if let Some(word) = self.bytes.get(self.next..self.next + 8) {
            let word = u64::from_le_bytes(word.try_into().expect("a slice of 8"));
            self.acc |= word << self.count;
            let taken = (63 - self.count) >> 3;
            self.next += taken as usize;
            self.count += taken * 8;
            return Ok(());
        }
        while self.count <= 56 && self.next < self.bytes.len() {
            self.acc |= u64::from(self.bytes[self.next]) << self.count;
            self.next += 1;
            self.count += 8;
        }
        Ok(())
    }

    fn pull_to(&mut self, ahead: usize, source: &mut impl Source) -> io::Result<()> {
        while self.next + ahead > self.bytes.len() && source.pull(&mut self.bytes)? > 0 {}
        Ok(())
    }

    /// The next bits without consuming them; zeros after the end.
    #[inline]
    pub(super) fn peek(&self) -> u64 {
        if self.count >= 64 { self.acc } else { self.acc & ((1u64 << self.count) - 1) }
    }

    /// Consumes `n` bits (at most 48, after a refill).
    #[inline]
    pub(super) fn skip(&mut self, n: u32) -> Result<(), Fault> {
        if n > self.count {
            return Err(Fault::Data);
        }
        self.acc >>= n;
        self.count -= n;
        Ok(())
    }

    /// Consumes and returns `n` bits (at most 32, within what a refill loaded).
    #[inline]
    pub(super) fn take(&mut self, n: u32) -> Result<u32, Fault> {
        let value = (self.peek() & ((1u64 << n) - 1)) as u32;
        self.skip(n)?;
        Ok(value)
    }

    /// The place of the next bit, counted from the first bit of the segment's first byte.
    pub(super) fn place(&self) -> u64 {
        self.next as u64 * 8 - u64::from(self.count)
    }

    /// Goes back (or on) to a place that [`BitReader::place`] told, in the same segment.
    pub(super) fn seek(&mut self, place: u64) {
        self.next = (place / 8) as usize;
        self.acc = 0;
        self.count = 0;
        let within = (place % 8) as u32;
        if within > 0
            && let Some(byte) = self.bytes.get(self.next)
        {
            self.acc = u64::from(*byte) >> within;
            self.count = 8 - within;
            self.next += 1;
        }
    }

    /// Moves to the next byte boundary.
    pub(super) fn align(&mut self) {
        let place = self.place();
        self.seek(place.div_ceil(8) * 8);
    }

    /// The next `n` whole bytes; the reader must be aligned.
    pub(super) fn whole_bytes(
        &mut self,
        n: usize,
        source: &mut impl Source,
    ) -> Result<&[u8], Fault> {
        self.seek(self.place());
        self.pull_to(n, source)?;
        let bytes = self.bytes.get(self.next..self.next + n).ok_or(Fault::Data)?;
        self.next += n;
        Ok(bytes)
    }

    /// A copy of the bits from `place` to the next one, moved to begin at bit 0.
    pub(super) fn copy_since(&self, place: u64) -> RawBits {
        let (shift, bits) = ((place % 8) as u32, self.place() - place);
        let byte = |i: u64| u32::from(self.bytes.get(i as usize).copied().unwrap_or(0));
        let mut out = BitWriter::new(0);
        for i in 0..bits.div_ceil(8) {
            let pair = byte(place / 8 + i) | byte(place / 8 + i + 1) << 8;
            let n = (bits - i * 8).min(8) as u32;
            out.put((pair >> shift) & ((1 << n) - 1), n);
        }
        RawBits { bytes: out.finish(), start: 0, bits }
    }

    /// Bytes held for the segment.
    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Ends a segment at the current place and hands back its bits.
    pub(super) fn cut(&mut self) -> RawBits {
        let place = self.place();
        self.seek(place);
        let whole = (place / 8) as usize;
        let end = place.div_ceil(8) as usize;
        let cut = RawBits {
            bytes: self.bytes[..end].to_vec(),
            start: self.start,
            bits: place - u64::from(self.start),
        };
        self.bytes.drain(..whole);
        self.start = (place % 8) as u8;
        self.seek(u64::from(self.start));
        cut
    }

    /// What was read ahead, from the last cut on; the reader is as new afterwards.
    pub(super) fn rest(&mut self) -> RawBits {
        let rest = std::mem::take(self);
        let bits = rest.bytes.len() as u64 * 8 - u64::from(rest.start);
        RawBits { bytes: rest.bytes, start: rest.start, bits }
    }
}

/// Writes bits, beginning at bit `start` of the first byte; the bits before it are 0.
pub(super) struct BitWriter {
    out: Vec<u8>,
    acc: u64,
    count: u32,
}

impl BitWriter {
    /// A writer whose first bit is bit `start` (0 to 7) of the first byte.
    pub(super) fn new(start: u8) -> Self {
        BitWriter { out: Vec::new(), acc: 0, count: u32::from(start & 7) }
    }

    /// Appends the low `n` bits (at most 32) of `value`, which has no other bit set.
    #[inline]
    pub(super) fn put(&mut self, value: u32, n: u32) {
        self.acc |= u64::from(value) << self.count;
        self.count += n;
        if self.count >= 32 {
            self.out.extend_from_slice(&(self.acc as u32).to_le_bytes());
            self.acc >>= 32;
            self.count -= 32;
        }
    }

    /// Zero bits up to the next byte boundary.
    pub(super) fn align(&mut self) {
        self.put(0, self.count.wrapping_neg() & 7);
    }

    /// Appends bytes after aligning.
    pub(super) fn put_bytes(&mut self, bytes: &[u8]) {
        self.align();
        while self.count > 0 {
            self.out.push(self.acc as u8);
            self.acc >>= 8;
            self.count -= 8;
        }
        self.out.extend_from_slice(bytes);
    }

    /// Appends the first `bits` bits of `bytes`.
    pub(super) fn put_run(&mut self, bytes: &[u8], bits: u64) {
        let mut left = bits;
        for byte in bytes {
            let n = left.min(8) as u32;
            self.put(u32::from(*byte) & ((1u32 << n) - 1), n);
            left -= u64::from(n);
        }
    }

    /// Bits so far, those before the start included.
    pub(super) fn place(&self) -> u64 {
        self.out.len() as u64 * 8 + u64::from(self.count)
    }

    /// The bytes, the last one filled up with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        while self.count > 0 {
            self.out.push(self.acc as u8);
            self.acc >>= 8;
            self.count = self.count.saturating_sub(8);
        }
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_across_cuts() {
        let mut writer = BitWriter::new(0);
        for i in 0..1000u32 {
            writer.put(i & 0x3ff, 10);
        }
        let bytes = writer.finish();
        let (mut reader, mut source) = (BitReader::default(), Whole(&bytes));
        for i in 0..1000u32 {
            reader.refill(&mut source).unwrap();
            assert_eq!(reader.take(10).unwrap(), i);
            if i % 77 == 0 {
                let cut = reader.cut();
                assert_eq!(cut.bytes.len() as u64, (u64::from(cut.start) + cut.bits).div_ceil(8));
            }
        }
        assert!(matches!(reader.take(32), Err(Fault::Data)));
    }

    #[test]
    fn whole_bytes_follow_an_alignment() {
        let data: Vec<u8> = (0..100).collect();
        let (mut reader, mut source) = (BitReader::default(), Whole(&data));
        reader.refill(&mut source).unwrap();
        reader.take(3).unwrap();
        reader.align();
        assert_eq!(reader.whole_bytes(2, &mut source).unwrap(), [1, 2]);
        reader.cut();
        assert_eq!(reader.rest().bytes, data[3..]);
    }
}
