//! Cuts SQL text into statements, comment lines and commands of the client, from pieces of any size.
//!
//! Knows strings, quoted names, dollar quotes and comments of PostgreSQL and of MariaDB and MySQL, so
//! that text in them is never taken for anything else. Keeps one statement at most, and of a long one
//! the first [`TEXT_LIMIT`] bytes.

use super::Range;

/// How much of a statement is kept, in bytes.
pub(super) const TEXT_LIMIT: usize = 4 << 20;
/// How statements that hold rows begin.
const INSERTS: [&[u8]; 2] = [b"INSERT ", b"REPLACE"];
const DELIMITER: &[u8] = b"DELIMITER ";
/// The first line of newer dumps of MariaDB, which no semicolon ends.
const SANDBOX: &[u8] = b"/*M!999999\\-";
const LONGEST_START: usize = 12;

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Postgres,
    Mysql,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A comment between statements: a line that begins with two dashes, or one in signs.
    Comment,
    /// A command of the client: a backslash and a word, or `DELIMITER`.
    Command,
    /// A statement with what ends it.
    Statement,
    /// The start of an `INSERT`: the bytes that follow are the caller's to read, to its end.
    Insert,
}

/// One part of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub kind: Kind,
    /// Where it stands, with the line's end for lines.
    pub range: Range,
    pub text: Vec<u8>,
}

/// Tells where a block of comment lines begins that has a line of two dashes before and behind it.
#[derive(Debug, Default)]
pub(super) struct Dashes {
    opened: Option<u64>,
    /// Where the comment before ended, and whether it was a line of two dashes.
    before: Option<(u64, bool)>,
}

impl Dashes {
    /// Takes the next comment line; true where it is a line of two dashes.
    pub fn line(&mut self, line: &str, range: Range) -> bool {
        let dashes = line == "--";
        match self.before.filter(|(end, _)| *end == range.start) {
            // Right behind words: the last line of a block.
            Some((_, false)) if dashes => self.opened = None,
            _ if dashes => self.opened = Some(range.start),
            None => self.opened = None,
            Some(_) => {}
        }
        self.before = Some((range.end, dashes));
        dashes
    }

    /// Where the block of the line before began, if two dashes were its first line.
    pub fn opened(&self) -> Option<u64> {
        self.opened
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Blank,
    Line(Kind),
    Plain,
    Quote {
        quote: u8,
        escapes: bool,
    },
    Escape {
        quote: u8,
    },
    /// Behind a quote: another one means the quote itself.
    QuoteEnd {
        quote: u8,
        escapes: bool,
    },
    DollarTag,
    Dollar {
        matched: usize,
    },
    /// Of MariaDB and MySQL, two dashes open a comment if a blank follows.
    TwoDashes,
    /// A comment to the end of its line, within a statement.
    LineComment,
    Block {
        depth: u32,
    },
    /// Behind `/*`: of MariaDB and MySQL it may open a comment that is executed.
    BlockOpen,
}

/// Cuts a text.
#[derive(Debug)]
pub(super) struct Splitter {
    dialect: Dialect,
    /// Whether `INSERT` statements are given to the caller at their start.
    pub give_inserts: bool,
    /// PostgreSQL: whether backslashes are escapes in all strings.
    pub escapes: bool,
    delimiter: Vec<u8>,
    state: State,
    start: u64,
    at: u64,
    text: Vec<u8>,
    /// The bytes before, or zeros where they were part of something.
    before: [u8; 2],
    matched: usize,
    tag: Vec<u8>,
    /// Whether a comment in signs is no part of a statement.
    leading: bool,
}

impl Splitter {
    /// At the start of a text.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            give_inserts: false,
            escapes: dialect == Dialect::Mysql,
            delimiter: b";".to_vec(),
            state: State::Blank,
            start: 0,
            at: 0,
            text: Vec::new(),
            before: [0; 2],
            matched: 0,
            tag: Vec::new(),
            leading: false,
        }
    }

    /// How many bytes were taken.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Whether no statement is open.
    pub fn is_between(&self) -> bool {
        self.state == State::Blank
    }

    /// Whether `DELIMITER` set another end of statements: bodies of routines stand there.
    pub fn is_delimited(&self) -> bool {
        self.delimiter != b";"
    }

    /// Where the part begins that is open.
    pub fn open_at(&self) -> Option<u64> {
        (!self.is_between()).then_some(self.start)
    }

    /// Counts bytes that the caller read itself.
    pub fn skip(&mut self, len: usize) {
        self.at += len as u64;
    }

    /// The next part; none where more input is needed. `input` is moved behind it.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Item> {
        while let Some(first) = input.first() {
            let item = match self.state {
                State::Blank => self.blank(input),
                State::Line(kind) => self.line(input, kind),
                State::Plain => self.plain(input),
                State::Quote { quote, escapes } => self.quote(input, quote, escapes),
                State::Escape { quote } => {
                    self.take(input, 1);
                    self.enter(State::Quote { quote, escapes: true })
                }
                State::QuoteEnd { quote, escapes } if *first == quote => {
                    self.take(input, 1);
                    self.enter(State::Quote { quote, escapes })
                }
                State::QuoteEnd { .. } => self.enter(State::Plain),
                State::DollarTag => self.dollar_tag(input, *first),
                State::Dollar { matched } => self.dollar(input, matched),
                State::TwoDashes if first.is_ascii_whitespace() => self.enter(State::LineComment),
                State::TwoDashes => self.enter(State::Plain),
                State::LineComment => {
                    let line = memchr::memchr(b'\n', input);
                    self.take(input, line.map_or(input.len(), |at| at + 1));
                    if line.is_some() { self.enter(State::Plain) } else { None }
                }
                State::Block { depth } => self.comment(input, depth),
                State::BlockOpen => self.block_open(input, *first),
            };
            if item.is_some() {
                return item;
            }
        }
        None
    }

    fn enter(&mut self, state: State) -> Option<Item> {
        self.state = state;
        self.before = [0; 2];
        self.matched = 0;
        None
    }

    fn take(&mut self, input: &mut &[u8], len: usize) {
        let (taken, rest) = input.split_at(len.min(input.len()));
        let room = TEXT_LIMIT.saturating_sub(self.text.len());
        self.text.extend_from_slice(&taken[..taken.len().min(room)]);
        self.at += taken.len() as u64;
        if let [.., last] = taken {
            let second = if taken.len() > 1 { taken[taken.len() - 2] } else { self.before[1] };
            self.before = [second, *last];
        }
        *input = rest;
    }

    fn give(&mut self, kind: Kind) -> Option<Item> {
        self.enter(State::Blank);
        let range = Range { start: self.start, end: self.at };
        Some(Item { kind, range, text: std::mem::take(&mut self.text) })
    }

    fn blank(&mut self, input: &mut &[u8]) -> Option<Item> {
        let blanks = input.iter().position(|byte| !byte.is_ascii_whitespace());
        let blanks = blanks.unwrap_or(input.len());
        *input = &input[blanks..];
        self.at += blanks as u64;
        self.start = self.at;
        match input.first()? {
            b'\\' if self.dialect == Dialect::Postgres => self.enter(State::Line(Kind::Command)),
            _ => self.enter(State::Plain),
        }
    }

    fn line(&mut self, input: &mut &[u8], kind: Kind) -> Option<Item> {
        let Some(end) = memchr::memchr(b'\n', input) else {
            self.take(input, input.len());
            return None;
        };
        self.take(input, end + 1);
        if let Some(delimiter) = self.text.strip_prefix(DELIMITER) {
            let delimiter = delimiter.trim_ascii();
            if !delimiter.is_empty() {
                self.delimiter = delimiter.to_vec();
            }
        }
        self.give(kind)
    }

    fn plain(&mut self, input: &mut &[u8]) -> Option<Item> {
        if self.text.len() <= LONGEST_START {
            return self.plain_byte(input).or_else(|| self.start());
        }
        let plain = input.iter().position(|byte| self.is_special(*byte)).unwrap_or(input.len());
        if plain > 0 {
            self.matched = 0;
            self.take(input, plain);
        }
        if input.is_empty() { None } else { self.plain_byte(input) }
    }

    /// Looks at the first bytes of a statement: some are none.
    fn start(&mut self) -> Option<Item> {
        match self.text.as_slice() {
            b"--" if self.dialect == Dialect::Postgres => self.enter(State::Line(Kind::Comment)),
            b"--\n" => self.give(Kind::Comment),
            [b'-', b'-', byte] if byte.is_ascii_whitespace() => {
                self.enter(State::Line(Kind::Comment))
            }
            text if self.give_inserts && INSERTS.contains(&text) => self.give(Kind::Insert),
            text if text == DELIMITER && self.dialect == Dialect::Mysql => {
                self.enter(State::Line(Kind::Command))
            }
            text if text == SANDBOX => self.enter(State::Line(Kind::Comment)),
            _ => None,
        }
    }

    fn is_special(&self, byte: u8) -> bool {
        let always = matches!(byte, b'\'' | b'"' | b'-' | b'*' | b';');
        let own = match self.dialect {
            Dialect::Postgres => byte == b'$',
            Dialect::Mysql => byte == b'`' || byte == b'#' || self.delimiter.first() == Some(&byte),
        };
        always || own
    }

    fn plain_byte(&mut self, input: &mut &[u8]) -> Option<Item> {
        let byte = *input.first()?;
        let before = self.before;
        self.take(input, 1);
        if self.delimiter.get(self.matched) == Some(&byte) {
            self.matched += 1;
            if self.matched == self.delimiter.len() {
                return self.give(Kind::Statement);
            }
        } else {
            self.matched = usize::from(self.delimiter.first() == Some(&byte));
        }
        let mysql = self.dialect == Dialect::Mysql;
        self.leading = self.text.len() == 2;
        match (byte, before) {
            (b'`', _) if mysql => self.enter(State::Quote { quote: byte, escapes: false }),
            (b'\'' | b'"', _) => {
                let string = byte == b'\'' || mysql && byte == b'"';
                let marked = matches!(before, [other, b'e' | b'E'] if !is_name(other));
                let escapes = string && (self.escapes || marked);
                self.enter(State::Quote { quote: byte, escapes })
            }
            (b'$', [_, last]) if !mysql && !is_name(last) => {
                self.tag = b"$".to_vec();
                self.enter(State::DollarTag)
            }
            (b'#', _) if mysql => self.enter(State::LineComment),
            (b'-', [_, b'-']) if !mysql && self.text.len() > 2 => self.enter(State::LineComment),
            (b'-', [_, b'-']) if mysql && self.text.len() > 2 => self.enter(State::TwoDashes),
            (b'*', [_, b'/']) if mysql => self.enter(State::BlockOpen),
            (b'*', [_, b'/']) => self.enter(State::Block { depth: 1 }),
            _ => None,
        }
    }

    fn quote(&mut self, input: &mut &[u8], quote: u8, escapes: bool) -> Option<Item> {
        let found = match escapes {
            true => memchr::memchr2(quote, b'\\', input),
            false => memchr::memchr(quote, input),
        };
        let Some(at) = found else {
            self.take(input, input.len());
            return None;
        };
        let escape = input[at] == b'\\';
        self.take(input, at + 1);
        self.enter(match escape && escapes {
            true => State::Escape { quote },
            false => State::QuoteEnd { quote, escapes },
        })
    }

    fn dollar_tag(&mut self, input: &mut &[u8], byte: u8) -> Option<Item> {
        if byte != b'$' && !is_name(byte) || self.tag.len() > 128 {
            return self.enter(State::Plain);
        }
        self.tag.push(byte);
        self.take(input, 1);
        if byte == b'$' { self.enter(State::Dollar { matched: 0 }) } else { None }
    }

    /// Looks for the tag again, of which `matched` bytes were seen.
    fn dollar(&mut self, input: &mut &[u8], matched: usize) -> Option<Item> {
        if matched == 0 {
            let at = memchr::memchr(b'$', input);
            self.take(input, at.map_or(input.len(), |at| at + 1));
            return at.and_then(|_| self.enter(State::Dollar { matched: 1 }));
        }
        let byte = *input.first()?;
        self.take(input, 1);
        let matched = match self.tag.get(matched) == Some(&byte) {
            true => matched + 1,
            false => usize::from(byte == b'$'),
        };
        let ended = matched == self.tag.len();
        self.enter(if ended { State::Plain } else { State::Dollar { matched } })
    }

    fn comment(&mut self, input: &mut &[u8], depth: u32) -> Option<Item> {
        let at = memchr::memchr2(b'/', b'*', input);
        self.take(input, at.map_or(input.len(), |at| at + 1));
        at?;
        let nested = self.dialect == Dialect::Postgres;
        match self.before {
            [b'*', b'/'] if depth <= 1 && self.leading => {
                self.enter(State::Plain);
                self.give(Kind::Comment)
            }
            [b'*', b'/'] if depth <= 1 => self.enter(State::Plain),
            [b'*', b'/'] => self.enter(State::Block { depth: depth - 1 }),
            [b'/', b'*'] if nested => self.enter(State::Block { depth: depth.saturating_add(1) }),
            _ => None,
        }
    }

    fn block_open(&mut self, input: &mut &[u8], byte: u8) -> Option<Item> {
        match byte {
            b'!' => {
                self.take(input, 1);
                self.enter(State::Plain)
            }
            b'M' if self.before[1] != b'M' => {
                self.take(input, 1);
                None
            }
            _ => self.enter(State::Block { depth: 1 }),
        }
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(dialect: Dialect, text: &str, piece: usize) -> Vec<(Kind, String, Range)> {
        let mut splitter = Splitter::new(dialect);
        let mut items = Vec::new();
        for mut piece in text.as_bytes().chunks(piece) {
            while let Some(item) = splitter.next(&mut piece) {
                let text = String::from_utf8_lossy(&item.text).into_owned();
                items.push((item.kind, text, item.range));
            }
        }
        assert_eq!(splitter.at(), text.len() as u64);
        items
    }

    /// Splits in pieces of all sizes and gives kinds and texts.
    fn items(dialect: Dialect, text: &str) -> Vec<(Kind, String)> {
        let whole = split(dialect, text, text.len());
        for piece in 1..text.len() {
            assert_eq!(split(dialect, text, piece), whole, "{piece}");
        }
        for (_, item, range) in &whole {
            assert_eq!(&text[range.start as usize..range.end as usize], item);
        }
        whole.into_iter().map(|(kind, text, _)| (kind, text)).collect()
    }

    #[test]
    fn postgres_statements_end_outside_of_quotes_and_comments() {
        let parts = [
            "SELECT 'a;''--\n;', E'\\';', \"x;\"\"\";",
            "CREATE FUNCTION f() AS $fn$ a; $$ ; $f$ ' $fn$ -- it's;\n;",
            "SELECT /* ; /* ' */ ; */ $1, a$b$c;",
            "AB;",
            "\\restrict x;y\n",
            "-- a; 'b\n",
            "--\n",
            "/* c; */",
            "X';';",
        ];
        let text = parts.join("\n\n");
        let found = items(Dialect::Postgres, &text);
        let texts: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, parts);
        let comments = found.iter().filter(|(kind, _)| *kind == Kind::Comment).count();
        assert_eq!((comments, found[4].0), (3, Kind::Command));
    }

    #[test]
    fn mysql_statements_end_outside_of_quotes_and_comments() {
        let parts = [
            "/*M!999999\\- enable the sandbox mode */ \n",
            "-- MariaDB dump; it's\n",
            "/*!40101 SET NAMES utf8 */;",
            "INSERT INTO `a;``b` VALUES ('\\';'';',\"x;\\\"\",0x3b); ",
            "DELIMITER ;;\n",
            "/*!50003 CREATE*/ /*!50003 TRIGGER x BEGIN\n-- it's;;\n# another's;;\n/* and ';; */ a; END */;;",
            "DELIMITER ;\n",
            "/* SET @@GLOBAL.GTID_PURGED='x;';*/",
            "--\n",
            "SELECT 5--3;",
        ];
        let text = parts.map(str::trim_start).concat();
        let found = items(Dialect::Mysql, &text);
        let texts: Vec<&str> = found.iter().map(|(_, text)| text.trim_end()).collect();
        assert_eq!(texts, parts.map(str::trim_end));
        assert_eq!(found[7].0, Kind::Comment);
    }

    #[test]
    fn blocks_of_comments_begin_at_their_first_dashes() {
        let mut dashes = Dashes::default();
        let mut line = |line: &str, start: u64| {
            dashes.line(line, Range { start, end: start + 5 });
            dashes.opened()
        };
        assert_eq!(line("--", 0), Some(0));
        assert_eq!(line("-- a", 5), Some(0));
        assert_eq!(line("-- b", 10), Some(0));
        assert_eq!(line("--", 15), None);
        assert_eq!(line("--", 30), Some(30));
        assert_eq!(line("-- c", 50), None);
    }
}
