//! The rows of a `COPY … FROM stdin;` in SQL text: the lines up to one that is `\.`.

use memchr::memmem;

use super::rows::{RowCounter, Tally};

const END: &[u8] = b"\\.\n";

/// Takes the rows of one table from pieces of any size.
#[derive(Debug)]
pub(super) struct CopyRows {
    rows: RowCounter,
    finder: memmem::Finder<'static>,
    /// What may be the last line: bytes that it begins with; none where a line is under way.
    line: Option<Vec<u8>>,
}

impl CopyRows {
    /// Behind the line of the `COPY`.
    pub fn new() -> Self {
        let finder = memmem::Finder::new(b"\n\\.\n");
        Self { rows: RowCounter::default(), finder, line: Some(Vec::new()) }
    }

    /// Takes bytes up to the last line and with it: how many they are, if it is in this piece.
    pub fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(line) = &mut self.line {
            line.push(*bytes.get(at)?);
            at += 1;
            if line == END {
                return Some(at);
            }
            if !END.starts_with(line) {
                let line = self.line.take()?;
                self.rows.push(&line);
                self.line = line.ends_with(b"\n").then(Vec::new);
            }
        }
        let rest = bytes.get(at..)?;
        if let Some(end) = self.finder.find(rest) {
            self.rows.push(&rest[..end + 1]);
            return Some(at + end + 1 + END.len());
        }
        // The end of the piece may be the start of the last line.
        let open = memchr::memrchr(b'\n', rest).map(|line| line + 1);
        let open = open.filter(|start| END.starts_with(&rest[*start..]));
        self.rows.push(&rest[..open.unwrap_or(rest.len())]);
        self.line = open.map(|start| rest[start..].to_vec());
        None
    }

    /// How long the line is that ends the rows.
    pub fn end_len() -> u64 {
        END.len() as u64
    }

    /// After the last row.
    pub fn finish(self) -> Tally {
        self.rows.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], piece: usize) -> (Option<usize>, Tally) {
        let mut rows = CopyRows::new();
        let mut base = 0;
        for piece in text.chunks(piece) {
            if let Some(end) = rows.push(piece) {
                return (Some(base + end), rows.finish());
            }
            base += piece.len();
        }
        (None, rows.finish())
    }

    #[test]
    fn the_last_line_is_found_wherever_pieces_end() {
        for rows in ["", "a\n", "\\.x\n", "x\\.\n", "\n\n", "\\N\t\\\\.\n\\\n", "\\..\n\\.\r\n"] {
            let text = format!("{rows}\\.\n\nmore\\.\n");
            for piece in 1..text.len() + 1 {
                let (end, tally) = read(text.as_bytes(), piece);
                assert_eq!(end, Some(rows.len() + 3), "{rows:?} {piece}");
                assert_eq!(tally.bytes, rows.len() as u64);
                assert_eq!(tally.rows, rows.matches('\n').count() as u64);
                assert_eq!(tally.hash, blake3::hash(rows.as_bytes()).to_hex().to_string());
            }
        }
        assert_eq!(read(b"a\n\\.", 2).0, None);
    }
}
