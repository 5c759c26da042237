//! Changes single statements of a dump of MariaDB or MySQL on its way. Every other byte stays as it is.

use super::lexer::{Dialect, Item, Kind, Splitter, TEXT_LIMIT};

/// What to put in place of a statement; none where it stays as it is. The second argument tells that
/// `DELIMITER` set another end of statements: bodies of routines stand there.
pub type Edit<'a> = &'a dyn Fn(&str, bool) -> Option<String>;

/// Takes a dump piece by piece.
#[derive(Debug)]
pub struct Statements {
    splitter: Splitter,
    /// What was not given on yet: an open statement.
    pending: Vec<u8>,
    /// Where that begins.
    start: u64,
}

impl Default for Statements {
    fn default() -> Self {
        Self { splitter: Splitter::new(Dialect::Mysql), pending: Vec::new(), start: 0 }
    }
}

impl Statements {
    /// Takes the next piece and gives what can go on. A statement that is longer than any definition
    /// goes on before it ended, and is never changed.
    pub fn push(&mut self, bytes: &[u8], edit: Edit<'_>) -> Vec<u8> {
        self.pending.extend_from_slice(bytes);
        let (mut rest, mut out) = (bytes, Vec::new());
        while !rest.is_empty() {
            let is_body = self.splitter.is_delimited();
            let Some(item) = self.splitter.next(&mut rest) else { break };
            let Some(other) = self.edited(&item, is_body, edit) else { continue };
            self.give(item.range.start, &mut out);
            out.extend_from_slice(other.as_bytes());
            let len = (item.range.end - self.start) as usize;
            self.pending.drain(..len);
            self.start = item.range.end;
        }
        let is_long = self.pending.len() > TEXT_LIMIT + bytes.len();
        let end = self.splitter.open_at().filter(|at| *at >= self.start && !is_long);
        self.give(end.unwrap_or(self.splitter.at()), &mut out);
        out
    }

    /// What is left at the end.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    fn edited(&self, item: &Item, is_body: bool, edit: Edit<'_>) -> Option<String> {
        let is_whole = item.range.start >= self.start && item.range.len() == item.text.len() as u64;
        if item.kind != Kind::Statement || !is_whole {
            return None;
        }
        edit(std::str::from_utf8(&item.text).ok()?, is_body)
    }

    fn give(&mut self, end: u64, out: &mut Vec<u8>) {
        let len = (end - self.start) as usize;
        out.extend(self.pending.drain(..len));
        self.start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::DUMPS;
    use super::*;

    fn passed(text: &[u8], piece: usize, edit: Edit<'_>) -> Vec<u8> {
        let mut statements = Statements::default();
        let mut out = Vec::new();
        for piece in text.chunks(piece) {
            out.extend(statements.push(piece, edit));
        }
        out.extend(statements.finish());
        out
    }

    #[test]
    fn what_is_not_changed_passes_byte_by_byte() {
        for dump in &DUMPS[3..] {
            for piece in [1, 7, 1000, 1 << 20] {
                assert!(passed(dump, piece, &|_, _| None) == *dump, "{piece}");
            }
        }
        let long = format!("INSERT INTO t VALUES ('{}');\nUSE `a`;\n", "x".repeat(10 << 20));
        let edit = |text: &str, _| text.starts_with("USE ").then(|| "USE `b`;".to_owned());
        let out = passed(long.as_bytes(), 100_000, &edit);
        assert!(out == long.replace("`a`", "`b`").as_bytes());
    }

    #[test]
    fn statements_are_changed_and_texts_are_not() {
        let dump = "-- USE `a`;\nUSE `a`;\nINSERT INTO t VALUES ('\nUSE `a`;\n');\nDELIMITER ;;\n\
            CREATE PROCEDURE p() BEGIN SELECT '\nUSE `a`;\n'; END ;;\nUSE `a` ;;\nDELIMITER ;\nUSE `a`";
        let edit = |text: &str, is_body: bool| {
            let kind = if is_body { "body" } else { "plain" };
            text.starts_with("USE ").then(|| format!("[{kind}]"))
        };
        let expected = "-- USE `a`;\n[plain]\nINSERT INTO t VALUES ('\nUSE `a`;\n');\nDELIMITER ;;\n\
            CREATE PROCEDURE p() BEGIN SELECT '\nUSE `a`;\n'; END ;;\n[body]\nDELIMITER ;\nUSE `a`";
        for piece in [1, 5, 1000] {
            let out = passed(dump.as_bytes(), piece, &edit);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{piece}");
        }
    }
}
