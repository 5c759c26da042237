//! How one segment is rebuilt from its text: the settings of the matcher, the blocks, and the tokens that the
//! matcher gets wrong. The head of `unpack` shows the bytes.

use super::bits::BitWriter;
use super::huffman::{END_OF_BLOCK, Encoder};
use super::inflate::{Coding, Part, Token};
use super::matcher::{Family, LOOKAHEAD, Matcher, Settings};
use super::varint;

/// The recipe of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The bit of its first byte at which the segment begins, 0 to 7.
    pub(super) start: u8,
    /// It begins a stream.
    pub(super) begins: bool,
    /// It ends with bits that fill up the last byte.
    pub(super) padded: bool,
    /// How many bits it gives.
    pub(super) bits: u64,
    /// The text after it, as far as a match finder looks ahead.
    pub(super) tail: Vec<u8>,
    /// The blocks.
    pub(super) parts: Vec<Part>,
    /// The matcher that tells the tokens.
    pub(super) settings: Settings,
    /// But for these: how many tokens are right before each, and the right one instead.
    pub(super) exceptions: Vec<(u64, Token)>,
}

const FAMILIES: [Family; 3] = [Family::Zlib, Family::ZlibWide, Family::ZlibNg];

impl Plan {
    /// The plan as bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let flags = u8::from(self.begins) << 3 | u8::from(self.padded) << 4;
        let family = FAMILIES.iter().position(|family| *family == self.settings.family);
        let family = family.unwrap_or_default() as u8;
        let mut out = vec![self.start | flags, self.settings.level | family << 4];
        varint::put(&mut out, self.bits);
        varint::put(&mut out, self.tail.len() as u64);
        out.extend_from_slice(&self.tail);
        varint::put(&mut out, self.parts.len() as u64);
        for part in &self.parts {
            part.write(&mut out);
        }
        write_exceptions(&self.exceptions, &mut out);
        out
    }

    /// Reads what [`Plan::to_bytes`] wrote; none if the bytes are no plan.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let from = &mut &bytes[..];
        let (flags, method) = (varint::byte(from)?, varint::byte(from)?);
        if flags >> 5 != 0 {
            return None;
        }
        let bits = varint::take(from)?;
        let tail = usize::try_from(varint::take(from)?).ok().filter(|n| *n <= LOOKAHEAD)?;
        let tail = varint::bytes(from, tail)?.to_vec();
        let mut parts = Vec::new();
        for _ in 0..varint::take(from)? {
            parts.push(Part::read(from)?);
        }
        let family = *FAMILIES.get(usize::from(method >> 4))?;
        let level = Some(method & 15).filter(|level| (1..=9).contains(level))?;
        let (settings, exceptions) = (Settings { level, family }, read_exceptions(from)?);
        let flag = |bit: u8| flags >> bit & 1 == 1;
        let (start, begins, padded) = (flags & 7, flag(3), flag(4));
        from.is_empty().then_some(Plan {
            start,
            begins,
            padded,
            bits,
            tail,
            parts,
            settings,
            exceptions,
        })
    }
}

fn write_exceptions(exceptions: &[(u64, Token)], out: &mut Vec<u8>) {
    varint::put(out, exceptions.len() as u64);
    for (gap, token) in exceptions {
        varint::put(out, *gap);
        varint::put(out, u64::from(token.length()));
        if *token != Token::LITERAL {
            varint::put(out, u64::from(token.distance()));
        }
    }
}

fn read_exceptions(from: &mut &[u8]) -> Option<Vec<(u64, Token)>> {
    let mut exceptions = Vec::new();
    for _ in 0..varint::take(from)? {
        let gap = varint::take(from)?;
        let token = match varint::take(from)? {
            0 => Token::LITERAL,
            length @ 3..=258 => {
                let distance = varint::take(from)?;
                if !(1..=32768).contains(&distance) {
                    return None;
                }
                Token::matching(length as u32, distance as u32)
            }
            _ => return None,
        };
        exceptions.push((gap, token));
    }
    Some(exceptions)
}

/// Tells the tokens of a text one after the other.
pub(super) trait Tokens {
    /// The token at `at`; none to give up.
    fn next(&mut self, text: &[u8], at: usize) -> Option<Token>;
    /// The text up to `to` was in a stored block.
    fn pass(&mut self, text: &[u8], to: usize);
}

/// The tokens a matcher predicts, with exceptions.
pub(super) struct Guided<'a> {
    matcher: &'a mut Matcher,
    exceptions: std::slice::Iter<'a, (u64, Token)>,
    exception: Option<(u64, Token)>,
}

impl<'a> Guided<'a> {
    pub(super) fn new(matcher: &'a mut Matcher, exceptions: &'a [(u64, Token)]) -> Self {
        let mut exceptions = exceptions.iter();
        let exception = exceptions.next().copied();
        Guided { matcher, exceptions, exception }
    }
}

impl Tokens for Guided<'_> {
    #[inline]
    fn next(&mut self, text: &[u8], at: usize) -> Option<Token> {
        let mut token = self.matcher.predict(text, at);
        match &mut self.exception {
            Some((0, right)) => {
                token = *right;
                self.exception = self.exceptions.next().copied();
            }
            Some((gap, _)) => *gap -= 1,
            None => {}
        }
        self.matcher.accept(text, at, token);
        Some(token)
    }

    fn pass(&mut self, text: &[u8], to: usize) {
        self.matcher.pass(text, to);
    }
}

/// The tokens that really were, noting where a matcher predicts others. Gives up past a number of exceptions.
pub(super) struct Checked<'a> {
    matcher: &'a mut Matcher,
    tokens: std::slice::Iter<'a, Token>,
    gap: u64,
    most: usize,
    /// What the matcher got wrong.
    pub(super) exceptions: Vec<(u64, Token)>,
}

impl<'a> Checked<'a> {
    pub(super) fn new(matcher: &'a mut Matcher, tokens: &'a [Token], most: usize) -> Self {
        Checked { matcher, tokens: tokens.iter(), gap: 0, most, exceptions: Vec::new() }
    }
}

impl Tokens for Checked<'_> {
    #[inline]
    fn next(&mut self, text: &[u8], at: usize) -> Option<Token> {
        let token = *self.tokens.next()?;
        if self.matcher.predict(text, at) == token {
            self.gap += 1;
        } else {
            if self.exceptions.len() >= self.most {
                return None;
            }
            self.exceptions.push((std::mem::take(&mut self.gap), token));
        }
        self.matcher.accept(text, at, token);
        Some(token)
    }

    fn pass(&mut self, text: &[u8], to: usize) {
        self.matcher.pass(text, to);
    }
}

/// The text of a segment, and where in it the segment's own bytes are.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    /// Text before, own text, text after.
    pub(super) bytes: &'a [u8],
    /// Length of the text before.
    pub(super) before: usize,
    /// Length of its own.
    pub(super) body: usize,
}

/// The shape of a segment's bits.
#[derive(Clone, Copy)]
pub(super) struct Shape<'a> {
    /// The bit of the first byte at which it begins.
    pub(super) start: u8,
    /// Its bits.
    pub(super) bits: u64,
    /// Ends with padding.
    pub(super) padded: bool,
    /// The blocks.
    pub(super) parts: &'a [Part],
}

/// Writes a segment; none where text, blocks and tokens do not fit each other or the number of bits. The first
/// byte's bits before the start, and the last one's after the end, are 0.
pub(super) fn write(shape: Shape, text: Text, tokens: &mut impl Tokens) -> Option<Vec<u8>> {
    let mut out = BitWriter::new(shape.start);
    let (mut at, end) = (text.before, text.before + text.body);
    let limit = shape.bits.saturating_add(u64::from(shape.start));
    for part in shape.parts {
        let Some(lengths) = part.lengths() else {
            at = write_stored(part, text, at, &mut out)?;
            tokens.pass(text.bytes, at);
            continue;
        };
        let codes = lengths.encoder();
        if part.opens {
            out.put(u32::from(part.last), 1);
            out.put(if part.coding == Coding::Fixed { 1 } else { 2 }, 2);
            out.put_run(&part.head, part.head_bits);
        }
        for _ in 0..part.count {
            let token = tokens.next(text.bytes, at)?;
            if at + token.span() > end || token.distance() as usize > at || out.place() > limit {
                return None;
            }
            put_token(&mut out, &codes, token, text.bytes[at])?;
            at += token.span();
        }
        if part.closes {
            let code = codes.literal(END_OF_BLOCK)?;
            out.put(code.value, code.bits);
        }
    }
    if shape.padded {
        out.align();
    }
    (at == end && out.place() == limit).then(|| out.finish())
}

fn write_stored(part: &Part, text: Text, at: usize, out: &mut BitWriter) -> Option<usize> {
    let length = u16::try_from(part.count).ok()?;
    let to = at + usize::from(length);
    let bytes = text.bytes[..text.before + text.body].get(at..to)?;
    out.put(u32::from(part.last), 3);
    out.put_bytes(&length.to_le_bytes());
    out.put_bytes(&(!length).to_le_bytes());
    out.put_bytes(bytes);
    Some(to)
}

#[inline]
fn put_token(out: &mut BitWriter, codes: &Encoder, token: Token, literal: u8) -> Option<()> {
    if token == Token::LITERAL {
        let code = codes.literal(usize::from(literal))?;
        out.put(code.value, code.bits);
        return Some(());
    }
    for code in codes.length(token.length())?.into_iter().chain(codes.distance(token.distance())?) {
        out.put(code.value, code.bits);
    }
    Some(())
}
