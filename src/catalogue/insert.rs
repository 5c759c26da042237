//! Counts the rows of `INSERT … VALUES (…),(…);` statements as dump programs write them: values are
//! literals, so that every parenthesis outside of strings and behind `VALUES` opens a row.
//!
//! The values, most of a dump, are looked at 64 bytes at a time and without branches: a bit for each
//! quote, backslash, parenthesis and semicolon, then arithmetic on the bits (as simdjson does it).

use super::Range;
use super::rows::{RowCounter, Tally};

const BLOCK: usize = 64;
/// How much of the first statement is kept to read the table and columns from.
const HEAD_LIMIT: usize = 64 << 10;
const LONGEST_KEYWORD: usize = 6;

/// Counts rows over pieces of any size.
#[derive(Debug, Clone)]
pub(super) struct InsertCounter {
    /// Whether a backslash in a string takes the meaning of the next character.
    escapes: bool,
    /// Rows of the statements that ended.
    rows: u64,
    /// Rows of the statement that goes on.
    open_rows: u64,
    state: State,
    in_string: bool,
    escaped: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Before `VALUES`; the last letters, and the quote of a name that goes on.
    Head {
        word: [u8; LONGEST_KEYWORD],
        len: usize,
        quote: u8,
    },
    Values,
}

const START: State = State::Head { word: [0; LONGEST_KEYWORD], len: 0, quote: 0 };

impl InsertCounter {
    /// Before the first statement. `escapes`: a backslash in a string is an escape.
    pub fn new(escapes: bool) -> Self {
        Self { escapes, rows: 0, open_rows: 0, state: START, in_string: false, escaped: false }
    }

    /// The rows of all statements that ended.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes bytes up to the end of a statement: how many they are, if it ends in this piece.
    pub fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        if matches!(self.state, State::Head { .. }) {
            at += self.head(bytes)?;
        }
        let (blocks, rest) = bytes[at..].as_chunks::<BLOCK>();
        for block in blocks {
            if !self.block(block) {
                return self.slowly(block).map(|end| at + end);
            }
            at += BLOCK;
        }
        self.slowly(rest).map(|end| at + end)
    }

    /// Goes behind `VALUES`, or tells that a statement goes on without it.
    fn head(&mut self, bytes: &[u8]) -> Option<usize> {
        let State::Head { mut word, mut len, mut quote } = self.state else { return Some(0) };
        for (at, byte) in bytes.iter().enumerate() {
            match *byte {
                b'`' | b'"' if quote == 0 => quote = *byte,
                byte if quote != 0 => quote = if byte == quote { 0 } else { quote },
                byte if byte.is_ascii_alphanumeric() || byte == b'_' => {
                    if let Some(place) = word.get_mut(len) {
                        *place = byte.to_ascii_uppercase();
                    }
                    len += 1;
                }
                byte if len == LONGEST_KEYWORD && &word == b"VALUES" => {
                    self.state = State::Values;
                    return Some(if byte == b'(' || byte == b';' { at } else { at + 1 });
                }
                _ => len = 0,
            }
        }
        self.state = State::Head { word, len, quote };
        None
    }

    /// Counts in a block; false, and nothing done, where a statement ends in it.
    fn block(&mut self, block: &[u8; BLOCK]) -> bool {
        let backslashes = if self.escapes { bits(block, b'\\') } else { 0 };
        let (escaped, carry) = escaped(backslashes, self.escaped);
        let quotes = bits(block, b'\'') & !escaped;
        let before = if self.in_string { u64::MAX } else { 0 };
        let strings = if quotes == 0 { before } else { parity(quotes) ^ before };
        let outside = !strings & !escaped;
        if outside != 0 {
            if bits(block, b';') & outside != 0 {
                return false;
            }
            self.open_rows += u64::from((bits(block, b'(') & outside).count_ones());
        }
        self.escaped = carry;
        self.in_string = strings >> 63 != 0;
        true
    }

    fn slowly(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            match *byte {
                _ if std::mem::take(&mut self.escaped) => {}
                b'\\' if self.escapes => self.escaped = true,
                b'\'' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'(' => self.open_rows += 1,
                b';' => {
                    // INSERT INTO t DEFAULT VALUES; is a row of a table without columns.
                    self.rows += self.open_rows.max(1);
                    self.open_rows = 0;
                    self.state = START;
                    return Some(at + 1);
                }
                _ => {}
            }
        }
        None
    }
}

/// The `INSERT` statements of one table, from the first to the last.
#[derive(Debug)]
pub(super) struct InsertRun {
    counter: InsertCounter,
    bytes: RowCounter,
    head: Vec<u8>,
    /// From the first statement to the end of the last.
    pub range: Range,
}

impl InsertRun {
    /// Before the first statement, which is at `start`. `escapes`: see [`InsertCounter::new`].
    pub fn new(start: u64, escapes: bool) -> Self {
        Self {
            counter: InsertCounter::new(escapes),
            bytes: RowCounter::default(),
            head: Vec::new(),
            range: Range { start, end: start },
        }
    }

    /// Takes bytes up to the end of a statement: how many they are, if it ends in this piece.
    pub fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        let end = self.counter.push(bytes);
        let taken = &bytes[..end.unwrap_or(bytes.len())];
        let room = HEAD_LIMIT.saturating_sub(self.head.len());
        self.head.extend_from_slice(&taken[..taken.len().min(room)]);
        self.bytes.push(taken);
        end
    }

    /// After the last statement: its start, and the rows of all.
    pub fn finish(self) -> (Vec<u8>, Tally) {
        let rows = self.counter.rows();
        (self.head, Tally { rows, ..self.bytes.finish() })
    }
}

/// A bit for every byte of the block that is `wanted`.
#[inline]
fn bits(block: &[u8; BLOCK], wanted: u8) -> u64 {
    // Most blocks have none: that shows in a few wide comparisons.
    if !block.iter().fold(false, |any, byte| any | (*byte == wanted)) {
        return 0;
    }
    let equal = block.map(|byte| u8::from(byte == wanted));
    let (words, _) = equal.as_chunks::<8>();
    let gathered = words.iter().enumerate().map(|(index, word)| {
        // The product gathers the low bits of all bytes in its highest byte.
        let product = u64::from_le_bytes(*word).wrapping_mul(0x0102_0408_1020_4080);
        (product >> 56) << (index * 8)
    });
    gathered.fold(0, |all, bits| all | bits)
}

/// The bytes whose meaning a backslash before them takes, and whether that goes for the next block's
/// first.
fn escaped(backslashes: u64, carried: bool) -> (u64, bool) {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    if backslashes == 0 {
        return (u64::from(carried), false);
    }
    let backslashes = backslashes & !u64::from(carried);
    let follows = backslashes << 1 | u64::from(carried);
    let odd_starts = backslashes & !EVEN & !follows;
    let (even_runs, carry) = odd_starts.overflowing_add(backslashes);
    ((EVEN ^ even_runs << 1) & follows, carry)
}

/// For every bit, whether an odd number of bits is set up to it: inside of quotes.
fn parity(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(escapes: bool, text: &[u8], piece: usize) -> (u64, Vec<usize>) {
        let mut counter = InsertCounter::new(escapes);
        let (mut ends, mut base) = (Vec::new(), 0);
        for piece in text.chunks(piece) {
            let mut at = 0;
            while let Some(end) = counter.push(&piece[at..]) {
                at += end;
                ends.push(base + at);
            }
            base += piece.len();
        }
        (counter.rows(), ends)
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let alphabet = b"''\\\\();,ab1 ";
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                alphabet[(state >> 33) as usize % alphabet.len()]
            })
            .collect()
    }

    #[test]
    fn rows_are_counted_outside_of_strings() {
        let text = br"INSERT INTO `a(VALUES` VALUES (1,'a(\'b;'),(2,'\\'),(NULL,_binary ');');";
        assert_eq!(count(true, text, text.len()), (3, vec![text.len()]));
        let text = b"INSERT INTO s.\"t;\" (a, b) VALUES\n\t(1, 'it''s;\\'),\n\t(2, '(');\n";
        assert_eq!(count(false, text, text.len()), (2, vec![text.len() - 1]));
        assert_eq!(count(false, b"INSERT INTO s.t DEFAULT VALUES;\n", 9).0, 1);
        assert_eq!(count(false, b"INSERT INTO valuesx VALUES(1);", 1).0, 1);
    }

    #[test]
    fn blocks_count_like_single_bytes() {
        for seed in 0..300 {
            let mut text = b"INSERT INTO t VALUES ".to_vec();
            text.extend(noise(seed, 700));
            for escapes in [true, false] {
                assert_eq!(count(escapes, &text, text.len()), count(escapes, &text, 1), "{seed}");
                assert_eq!(count(escapes, &text, 97), count(escapes, &text, 1), "{seed}");
            }
        }
    }
}
