//! Huffman codes of deflate (RFC 1951, 3.2): code lengths to a decoding table and to codes for writing, the
//! head of a dynamic block, and the tables of lengths and distances.

use super::bits::{BitReader, Fault, Source};

const FAST_BITS: u32 = 10;
const MAX_BITS: usize = 15;
/// The symbol that ends a block.
pub(super) const END_OF_BLOCK: usize = 256;

const LENGTH_BASE: [u16; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
    163, 195, 227, 258,
];
const LENGTH_EXTRA: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const CODE_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Base and number of extra bits of a length symbol (257 to 285).
#[inline]
pub(super) fn length_of_symbol(symbol: usize) -> Option<(u32, u32)> {
    let index = symbol.checked_sub(257)?;
    Some((u32::from(*LENGTH_BASE.get(index)?), u32::from(*LENGTH_EXTRA.get(index)?)))
}

/// Base and number of extra bits of a distance symbol (0 to 29).
#[inline]
pub(super) fn distance_of_symbol(symbol: usize) -> Option<(u32, u32)> {
    match symbol as u32 {
        s @ 0..=3 => Some((s + 1, 0)),
        s @ 4..=29 => {
            let extra = s / 2 - 1;
            Some((((2 + s % 2) << extra) + 1, extra))
        }
        _ => None,
    }
}

/// The symbol of a match length (3 to 258) with its base and extra bits.
#[inline]
fn symbol_of_length(length: u32) -> (usize, u32, u32) {
    if length == 258 {
        return (285, 258, 0);
    }
    let l = length - 3;
    if l < 8 {
        return (257 + l as usize, length, 0);
    }
    let extra = l.ilog2() - 2;
    let index = 4 * (extra as usize + 1) + ((l >> extra) & 3) as usize;
    (257 + index, (l & !((1 << extra) - 1)) + 3, extra)
}

/// The symbol of a distance (1 to 32768) with its base and extra bits.
#[inline]
fn symbol_of_distance(distance: u32) -> (usize, u32, u32) {
    let d = distance - 1;
    if d < 4 {
        return (d as usize, distance, 0);
    }
    let extra = d.ilog2() - 1;
    let symbol = 2 * (extra as usize + 1) + ((d >> extra) & 1) as usize;
    (symbol, (d & !((1 << extra) - 1)) + 1, extra)
}

/// The code lengths of a block: literals and lengths, distances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lengths {
    literals: Vec<u8>,
    distances: Vec<u8>,
}

impl Lengths {
    /// Those of a block with fixed codes.
    pub(super) fn fixed() -> Self {
        let mut literals = vec![8u8; 288];
        literals[144..256].fill(9);
        literals[256..280].fill(7);
        Lengths { literals, distances: vec![5; 30] }
    }

    /// Reads the head of a dynamic block, from the counts on.
    pub(super) fn read(reader: &mut BitReader, source: &mut impl Source) -> Result<Self, Fault> {
        reader.refill(source)?;
        let literals = reader.take(5)? as usize + 257;
        let distances = reader.take(5)? as usize + 1;
        let codes = reader.take(4)? as usize + 4;
        if literals > 286 || distances > 30 {
            return Err(Fault::Data);
        }
        let mut code_lengths = [0u8; 19];
        for place in &CODE_ORDER[..codes] {
            reader.refill(source)?;
            code_lengths[*place] = reader.take(3)? as u8;
        }
        let decoder = Decoder::new(&code_lengths).ok_or(Fault::Data)?;
        let mut all = read_lengths(&decoder, literals + distances, reader, source)?;
        let distances = all.split_off(literals);
        Ok(Lengths { literals: all, distances })
    }

    /// Tables to decode with; none where the lengths are no code.
    pub(super) fn decoders(&self) -> Option<(Decoder, Decoder)> {
        Some((Decoder::new(&self.literals)?, Decoder::new(&self.distances)?))
    }

    /// Codes to write with.
    pub(super) fn encoder(&self) -> Encoder {
        Encoder { literals: codes(&self.literals), distances: codes(&self.distances) }
    }
}

fn read_lengths(
    decoder: &Decoder,
    wanted: usize,
    reader: &mut BitReader,
    source: &mut impl Source,
) -> Result<Vec<u8>, Fault> {
    let mut lengths = Vec::with_capacity(wanted);
    while lengths.len() < wanted {
        reader.refill(source)?;
        let (value, times) = match decoder.decode(reader)? {
            symbol @ 0..=15 => (symbol as u8, 1),
            16 => (*lengths.last().ok_or(Fault::Data)?, 3 + reader.take(2)?),
            17 => (0, 3 + reader.take(3)?),
            _ => (0, 11 + reader.take(7)?),
        };
        if lengths.len() + times as usize > wanted {
            return Err(Fault::Data);
        }
        lengths.extend(std::iter::repeat_n(value, times as usize));
    }
    Ok(lengths)
}

/// Decodes one symbol at a time: a table for codes of up to 10 bits, the canonical walk for longer ones.
pub(super) struct Decoder {
    fast: Vec<u16>,
    counts: [u16; MAX_BITS + 1],
    symbols: Vec<u16>,
}

impl Decoder {
    /// None where more codes are given than the lengths have room for. Too few are taken.
    fn new(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0u16; MAX_BITS + 1];
        for length in lengths {
            counts[usize::from(*length)] += 1;
        }
        counts[0] = 0;
        let mut left = 1i32;
        for count in &counts[1..] {
            left = left * 2 - i32::from(*count);
            if left < 0 {
                return None;
            }
        }
        let mut offsets = [0u16; MAX_BITS + 2];
        for bits in 1..=MAX_BITS {
            offsets[bits + 1] = offsets[bits] + counts[bits];
        }
        let mut symbols = vec![0u16; lengths.len()];
        let mut fast = vec![0u16; 1 << FAST_BITS];
        for (symbol, code) in codes(lengths).iter().enumerate().filter(|(_, code)| code.bits > 0) {
            let place = &mut offsets[code.bits as usize];
            symbols[usize::from(*place)] = symbol as u16;
            *place += 1;
            if code.bits <= FAST_BITS {
                for entry in fast[code.value as usize..].iter_mut().step_by(1 << code.bits) {
                    *entry = (symbol as u16) << 4 | code.bits as u16;
                }
            }
        }
        Some(Decoder { fast, counts, symbols })
    }

    /// The next symbol; at least 15 bits are loaded unless the input ends.
    #[inline]
    pub(super) fn decode(&self, reader: &mut BitReader) -> Result<usize, Fault> {
        let bits = reader.peek();
        let entry = self.fast[(bits & ((1 << FAST_BITS) - 1)) as usize];
        if entry != 0 {
            reader.skip(u32::from(entry & 15))?;
            return Ok(usize::from(entry >> 4));
        }
        self.decode_long(bits, reader)
    }

    fn decode_long(&self, bits: u64, reader: &mut BitReader) -> Result<usize, Fault> {
        let (mut code, mut first, mut index) = (0i32, 0i32, 0i32);
        for length in 1..=MAX_BITS {
            code |= ((bits >> (length - 1)) & 1) as i32;
            let count = i32::from(self.counts[length]);
            if code - count < first {
                reader.skip(length as u32)?;
                let place = (index + code - first) as usize;
                return self.symbols.get(place).map(|s| usize::from(*s)).ok_or(Fault::Data);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(Fault::Data)
    }
}

/// A code as it is written, its first bit lowest. `bits` is 0 for a symbol without a code.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Code {
    /// The bits.
    pub(super) value: u32,
    /// How many.
    pub(super) bits: u32,
}

/// The canonical codes of code lengths (RFC 1951, 3.2.2).
fn codes(lengths: &[u8]) -> Vec<Code> {
    let mut counts = [0u32; MAX_BITS + 1];
    for length in lengths {
        counts[usize::from(*length)] += 1;
    }
    counts[0] = 0;
    let mut next = [0u32; MAX_BITS + 2];
    for bits in 1..=MAX_BITS {
        next[bits + 1] = (next[bits] + counts[bits]) << 1;
    }
    let code = |length: &u8| {
        let bits = u32::from(*length);
        if bits == 0 {
            return Code::default();
        }
        let place = &mut next[bits as usize];
        let value = *place;
        *place += 1;
        // Bits above the length only arise from lengths that are no code.
        Code { value: (value & ((1 << bits) - 1)).reverse_bits() >> (32 - bits), bits }
    };
    lengths.iter().map(code).collect()
}

/// Codes to write a block with.
pub(super) struct Encoder {
    literals: Vec<Code>,
    distances: Vec<Code>,
}

impl Encoder {
    /// The code of a literal or of the end of the block; none if the block has no code for it.
    #[inline]
    pub(super) fn literal(&self, symbol: usize) -> Option<Code> {
        self.literals.get(symbol).copied().filter(|code| code.bits > 0)
    }

    /// Code and extra bits of a match length.
    #[inline]
    pub(super) fn length(&self, length: u32) -> Option<[Code; 2]> {
        let (symbol, base, extra) = symbol_of_length(length);
        Some([self.literal(symbol)?, Code { value: length - base, bits: extra }])
    }

    /// Code and extra bits of a distance.
    #[inline]
    pub(super) fn distance(&self, distance: u32) -> Option<[Code; 2]> {
        let (symbol, base, extra) = symbol_of_distance(distance);
        let code = self.distances.get(symbol).copied().filter(|code| code.bits > 0)?;
        Some([code, Code { value: distance - base, bits: extra }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_distances_agree_with_their_symbols() {
        for length in 3..=258 {
            let (symbol, base, extra) = symbol_of_length(length);
            assert_eq!(length_of_symbol(symbol), Some((base, extra)), "{length}");
            assert!(length >= base && length - base < 1 << extra, "{length}");
        }
        for distance in 1..=32768 {
            let (symbol, base, extra) = symbol_of_distance(distance);
            assert_eq!(distance_of_symbol(symbol), Some((base, extra)), "{distance}");
            assert!(distance >= base && distance - base < 1 << extra, "{distance}");
        }
        assert_eq!(length_of_symbol(286), None);
        assert_eq!(distance_of_symbol(30), None);
    }

    #[test]
    fn oversubscribed_lengths_are_refused() {
        assert!(Decoder::new(&[1, 1, 1]).is_none());
        assert!(Decoder::new(&[1]).is_some());
    }
}
