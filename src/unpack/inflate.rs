//! Inflates a deflate stream in segments of about 2 MiB, keeping what a plain inflater forgets: the tokens, the
//! blocks they were in, and the bits they came from.
//!
//! A segment ends at a token, if possible just after a match: there the lazy matcher of zlib has no state but
//! the text before, so that each segment can be worked on alone.

use std::io;

use super::bits::{BitReader, Fault, RawBits, Source};
use super::huffman::{Decoder, END_OF_BLOCK, Lengths, distance_of_symbol, length_of_symbol};
use super::varint;

/// Plain bytes after which a segment ends at the next match.
pub(super) const SEGMENT_BYTES: usize = 2 << 20;
/// Plain bytes after which it ends at any token.
const SEGMENT_BYTES_MAX: usize = SEGMENT_BYTES + (64 << 10);
/// Compressed bytes after which it ends at any token (blocks can be empty).
const SEGMENT_BYTES_HELD: usize = 3 << 20;
/// How far back a match can reach.
pub(super) const WINDOW: usize = 32 << 10;

/// A literal, or a match of a length and a distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(u32);

impl Token {
    /// The next byte of the text.
    pub(super) const LITERAL: Token = Token(0);

    /// A match of 3 to 258 bytes, 1 to 32768 bytes back.
    #[inline]
    pub(super) fn matching(length: u32, distance: u32) -> Self {
        Token(distance << 9 | length)
    }

    /// The match's length; 0 for a literal.
    #[inline]
    pub(super) fn length(self) -> u32 {
        self.0 & 0x1ff
    }

    /// The match's distance; 0 for a literal.
    #[inline]
    pub(super) fn distance(self) -> u32 {
        self.0 >> 9
    }

    /// Bytes of text it stands for.
    #[inline]
    pub(super) fn span(self) -> usize {
        self.length().max(1) as usize
    }
}

/// How a block is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Bytes as they are.
    Stored,
    /// The codes of RFC 1951, 3.2.6.
    Fixed,
    /// Codes of its own, told in its head.
    Dynamic,
}

/// The part of a block that is in one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// How the block is coded.
    pub(super) coding: Coding,
    /// The block begins here: its head is written.
    pub(super) opens: bool,
    /// The block ends here: its end is written.
    pub(super) closes: bool,
    /// The block is the last of the stream.
    pub(super) last: bool,
    /// Tokens; bytes in a stored block.
    pub(super) count: u64,
    /// The head of a dynamic block after its 3 bits, from the first bit of the first byte on.
    pub(super) head: Vec<u8>,
    /// Bits of the head.
    pub(super) head_bits: u64,
}

impl Part {
    /// The code lengths of its block; none for a stored one.
    pub(super) fn lengths(&self) -> Option<Lengths> {
        match self.coding {
            Coding::Stored => None,
            Coding::Fixed => Some(Lengths::fixed()),
            Coding::Dynamic => {
                let mut source = super::bits::Whole(&self.head);
                Lengths::read(&mut BitReader::default(), &mut source).ok()
            }
        }
    }

    /// Appends the part; see the table in `unpack`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let coding = match self.coding {
            Coding::Stored => 0,
            Coding::Fixed => 1,
            Coding::Dynamic => 2,
        };
        let flags = u8::from(self.opens) << 2 | u8::from(self.closes) << 3;
        out.push(coding | flags | u8::from(self.last) << 4);
        varint::put(out, self.count);
        if self.coding == Coding::Dynamic {
            varint::put(out, self.head_bits);
            out.extend_from_slice(&self.head);
        }
    }

    /// Reads a part that [`Part::write`] appended; none if it is no such thing.
    pub(super) fn read(from: &mut &[u8]) -> Option<Self> {
        let flags = varint::byte(from)?;
        let coding = match flags & 3 {
            0 => Coding::Stored,
            1 => Coding::Fixed,
            2 => Coding::Dynamic,
            _ => return None,
        };
        if flags >> 5 != 0 {
            return None;
        }
        let count = varint::take(from)?;
        let (mut head, mut head_bits) = (Vec::new(), 0);
        if coding == Coding::Dynamic {
            head_bits = varint::take(from)?;
            head = varint::bytes(from, usize::try_from(head_bits.div_ceil(8)).ok()?)?.to_vec();
        }
        let flag = |bit: u8| flags >> bit & 1 == 1;
        Some(Part {
            coding,
            opens: flag(2),
            closes: flag(3),
            last: flag(4),
            count,
            head,
            head_bits,
        })
    }
}

/// A segment of a stream, as it was decoded.
#[derive(Debug, Default)]
pub(super) struct Segment {
    /// Text: up to 32 KiB from before the segment, the segment's own, and a few bytes from after it.
    pub(super) text: Vec<u8>,
    /// Bytes of the text from before.
    pub(super) before: usize,
    /// Bytes of its own.
    pub(super) body: usize,
    /// The tokens of its own text, stored blocks excepted.
    pub(super) tokens: Vec<Token>,
    /// The blocks they are in.
    pub(super) parts: Vec<Part>,
    /// The bits it came from.
    pub(super) raw: RawBits,
    /// Begins a stream.
    pub(super) begins: bool,
    /// Nothing of the stream follows.
    pub(super) ends: bool,
    /// Ends with the bits that fill up the stream's last byte.
    pub(super) padded: bool,
}

impl Segment {
    fn continuing(before: &[u8]) -> Self {
        let keep = before.len().min(WINDOW);
        let text = before[before.len() - keep..].to_vec();
        Segment { text, before: keep, ..Segment::default() }
    }

    /// Its own text.
    pub(super) fn own_text(&self) -> &[u8] {
        &self.text[self.before..self.before + self.body]
    }
}

/// Why a segment ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is large enough.
    Full,
    /// The stream ended.
    End,
    /// The next bits are no deflate, or missing. All before are in the segment.
    Broken,
}

/// The block that is being read.
enum Block {
    None,
    Coded { coding: Coding, last: bool, decoders: Box<(Decoder, Decoder)>, head: RawBits },
}

/// Reads one stream after the other.
pub(super) struct Inflater {
    /// The bits; between streams the caller reads what else there is.
    pub(super) reader: BitReader,
    block: Block,
    next: Segment,
}

impl Inflater {
    /// One that is about to read a stream.
    pub(super) fn new() -> Self {
        let next = Segment { begins: true, ..Segment::default() };
        Inflater { reader: BitReader::default(), block: Block::None, next }
    }

    /// Decodes up to the end of a segment.
    pub(super) fn segment(&mut self, source: &mut impl Source) -> io::Result<(Segment, Stop)> {
        let stop = loop {
            match self.advance(source) {
                Ok(None) => {}
                Ok(Some(stop)) => break stop,
                Err(Fault::Io(error)) => return Err(error),
                Err(Fault::Data) => break Stop::Broken,
            }
        };
        let mut done = std::mem::take(&mut self.next);
        done.body = done.text.len() - done.before;
        done.padded = stop == Stop::End;
        if done.padded {
            self.reader.align();
        }
        done.raw = self.reader.cut();
        done.ends = stop != Stop::Full;
        self.next = Segment::continuing(&done.text);
        Ok((done, stop))
    }

    /// Reads a block's head, or tokens of a block. After a fault the reader is where the last token ended.
    fn advance(&mut self, source: &mut impl Source) -> Result<Option<Stop>, Fault> {
        let held = self.reader.held() > SEGMENT_BYTES_HELD;
        if held || self.next.text.len() - self.next.before >= SEGMENT_BYTES_MAX {
            return Ok(Some(Stop::Full));
        }
        if let Block::None = self.block {
            let mark = self.reader.place();
            let closed = self.open(source).inspect_err(|_| self.reader.seek(mark))?;
            return Ok(closed.filter(|last| *last).map(|_| Stop::End));
        }
        self.tokens(source)
    }

    /// Reads the head of a block, and all of a stored one; tells of a stored one if it is the last.
    fn open(&mut self, source: &mut impl Source) -> Result<Option<bool>, Fault> {
        self.reader.refill(source)?;
        let last = self.reader.take(1)? == 1;
        let (coding, lengths, head) = match self.reader.take(2)? {
            0 => return self.stored(last, source).map(Some),
            1 => (Coding::Fixed, Lengths::fixed(), RawBits::default()),
            2 => {
                let from = self.reader.place();
                let lengths = Lengths::read(&mut self.reader, source)?;
                (Coding::Dynamic, lengths, self.reader.copy_since(from))
            }
            _ => return Err(Fault::Data),
        };
        let decoders = Box::new(lengths.decoders().ok_or(Fault::Data)?);
        self.block = Block::Coded { coding, last, decoders, head };
        self.begin_part(true);
        Ok(None)
    }

    fn stored(&mut self, last: bool, source: &mut impl Source) -> Result<bool, Fault> {
        self.reader.align();
        let head = self.reader.whole_bytes(4, source)?;
        let length = u16::from_le_bytes([head[0], head[1]]);
        if length != !u16::from_le_bytes([head[2], head[3]]) {
            return Err(Fault::Data);
        }
        let bytes = self.reader.whole_bytes(usize::from(length), source)?;
        self.next.text.extend_from_slice(bytes);
        let (coding, count) = (Coding::Stored, u64::from(length));
        let (head, head_bits) = (Vec::new(), 0);
        let part = Part { coding, opens: true, closes: true, last, count, head, head_bits };
        self.next.parts.push(part);
        Ok(last)
    }

    fn begin_part(&mut self, opens: bool) {
        if let Block::Coded { coding, last, head, .. } = &self.block {
            let (coding, last) = (*coding, *last);
            let (head, head_bits) = (head.bytes.clone(), head.bits);
            let part = Part { coding, opens, closes: false, last, count: 0, head, head_bits };
            self.next.parts.push(part);
        }
    }

    /// Reads tokens up to the end of the block or of the segment.
    fn tokens(&mut self, source: &mut impl Source) -> Result<Option<Stop>, Fault> {
        if self.next.parts.is_empty() {
            self.begin_part(false);
        }
        let Block::Coded { decoders, last, .. } = &self.block else { return Ok(None) };
        let (reader, text) = (&mut self.reader, &mut self.next.text);
        let already = self.next.tokens.len();
        let full = self.next.before + SEGMENT_BYTES;
        let stop = loop {
            let mark = reader.place();
            match token(reader, decoders, text, source) {
                Ok(Some(token)) => self.next.tokens.push(token),
                Ok(None) => break Ok(true),
                Err(fault) => {
                    reader.seek(mark);
                    break Err(fault);
                }
            }
            let after_match =
                text.len() >= full && self.next.tokens.last() != Some(&Token::LITERAL);
            let forced = text.len() >= full + (SEGMENT_BYTES_MAX - SEGMENT_BYTES);
            if after_match || forced || reader.held() > SEGMENT_BYTES_HELD {
                break Ok(false);
            }
        };
        let last = *last;
        if let Some(part) = self.next.parts.last_mut() {
            part.count += (self.next.tokens.len() - already) as u64;
            part.closes = matches!(stop, Ok(true));
        }
        if !stop? {
            return Ok(Some(Stop::Full));
        }
        self.block = Block::None;
        Ok(last.then_some(Stop::End))
    }
}

/// Reads one token and appends its text; none at the end of the block.
#[inline]
fn token(
    reader: &mut BitReader,
    decoders: &(Decoder, Decoder),
    text: &mut Vec<u8>,
    source: &mut impl Source,
) -> Result<Option<Token>, Fault> {
    reader.refill(source)?;
    let symbol = decoders.0.decode(reader)?;
    if symbol < END_OF_BLOCK {
        text.push(symbol as u8);
        return Ok(Some(Token::LITERAL));
    }
    if symbol == END_OF_BLOCK {
        return Ok(None);
    }
    let (base, extra) = length_of_symbol(symbol).ok_or(Fault::Data)?;
    let length = base + reader.take(extra)?;
    let (base, extra) = distance_of_symbol(decoders.1.decode(reader)?).ok_or(Fault::Data)?;
    let distance = base + reader.take(extra)?;
    copy_match(text, length as usize, distance as usize).ok_or(Fault::Data)?;
    Ok(Some(Token::matching(length, distance)))
}

fn copy_match(text: &mut Vec<u8>, length: usize, distance: usize) -> Option<()> {
    let from = text.len().checked_sub(distance)?;
    if distance >= length {
        text.extend_from_within(from..from + length);
    } else {
        for i in from..from + length {
            text.push(text[i]);
        }
    }
    Some(())
}
