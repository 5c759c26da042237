//! Rows out of the `INSERT` statements that mariadb-dump and mysqldump write.

use crate::error::Result;
use crate::restore::StreamTarget;

/// A row; `None` for NULL. Binary values are `\x` and hexadecimal digits, as PostgreSQL has them.
pub type Row = Vec<Option<Vec<u8>>>;

/// A target that is given one row after the other of what is poured into it.
pub struct EachInsert<F> {
    take: F,
    place: Place,
    /// What stands before the rows of a statement.
    head: Vec<u8>,
    row: Row,
    /// The value that goes on: what stands outside of quotes, …
    bare: Vec<u8>,
    /// … and inside; none where there were no quotes.
    text: Option<Vec<u8>>,
}

/// Where the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    /// In a name, up to this quote.
    Name(u8),
    Rows,
    Value,
    Text,
    Escaped,
    /// Behind a quote: another one is a quote in the text.
    Quote,
}

impl<F: FnMut(&Row) -> Result<()>> EachInsert<F> {
    /// Gives rows to `take`.
    pub fn new(take: F) -> Self {
        let (head, row, bare) = (Vec::new(), Vec::new(), Vec::new());
        Self { take, place: Place::Head, head, row, bare, text: None }
    }

    fn head(&mut self, byte: u8) -> Place {
        match byte {
            b';' => {
                self.head.clear();
                return Place::Head;
            }
            b'`' | b'"' => {
                // Names are of no use here, and may hold anything.
                self.head.push(b'?');
                return Place::Name(byte);
            }
            _ => self.head.push(byte.to_ascii_uppercase()),
        }
        let head = self.head.trim_ascii();
        let inserts = head.starts_with(b"INSERT ") || head.starts_with(b"REPLACE ");
        if inserts && (head.ends_with(b" VALUES") || head.ends_with(b")VALUES")) {
            self.head.clear();
            return Place::Rows;
        }
        Place::Head
    }

    fn value(&mut self, byte: u8) -> Result<Place> {
        match byte {
            b',' | b')' => {
                let value = self.finish_value();
                self.row.push(value);
                if byte == b',' {
                    return Ok(Place::Value);
                }
                (self.take)(&self.row)?;
                self.row.clear();
                Ok(Place::Rows)
            }
            b'\'' => {
                self.text.get_or_insert_default();
                Ok(Place::Text)
            }
            _ => {
                self.bare.push(byte);
                Ok(Place::Value)
            }
        }
    }

    fn finish_value(&mut self) -> Option<Vec<u8>> {
        let (bare, text) = (std::mem::take(&mut self.bare), self.text.take());
        let bare = bare.trim_ascii();
        match text {
            Some(text) if bare.eq_ignore_ascii_case(b"_binary") => {
                Some(format!("\\x{}", hex::encode(text)).into_bytes())
            }
            Some(text) => Some(text),
            None if bare.eq_ignore_ascii_case(b"NULL") => None,
            None => Some(match bare.strip_prefix(b"0x") {
                Some(digits) => [b"\\x", digits.to_ascii_lowercase().as_slice()].concat(),
                None => bare.to_vec(),
            }),
        }
    }

    fn text(&mut self, byte: u8) -> Place {
        self.text.get_or_insert_default().push(byte);
        Place::Text
    }

    fn byte(&mut self, byte: u8) -> Result<Place> {
        Ok(match (self.place, byte) {
            (Place::Head, _) => self.head(byte),
            (Place::Name(quote), _) => {
                if byte == quote {
                    Place::Head
                } else {
                    self.place
                }
            }
            (Place::Rows, b'(') => Place::Value,
            (Place::Rows, b';') => Place::Head,
            (Place::Rows, _) => Place::Rows,
            (Place::Text, b'\\') => Place::Escaped,
            (Place::Text, b'\'') => Place::Quote,
            (Place::Text, _) => self.text(byte),
            (Place::Escaped, _) => self.text(unescaped(byte)),
            (Place::Quote, b'\'') => self.text(b'\''),
            (Place::Quote | Place::Value, _) => self.value(byte)?,
        })
    }
}

/// What a letter stands for behind a backslash (MySQL manual, "String Literals").
fn unescaped(letter: u8) -> u8 {
    match letter {
        b'0' => 0,
        b'b' => 8,
        b't' => b'\t',
        b'n' => b'\n',
        b'r' => b'\r',
        b'Z' => 26,
        other => other,
    }
}

impl<F: FnMut(&Row) -> Result<()>> StreamTarget for EachInsert<F> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        for byte in bytes {
            self.place = self.byte(*byte)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_however_the_statements_are_cut() {
        let text = b"LOCK TABLES `a VALUES (1)` WRITE;\n/*!40000 ALTER TABLE `a` DISABLE KEYS */;\n\
            INSERT INTO `a VALUES (9)` (`x;`,`y`) VALUES\n(1,'it\\'s; (1),''2'''),\n(-2.5e3,NULL),\
            (0x00FF,'a\\n\\\\\\0'),(_binary 'z\\Z','');\nINSERT INTO `b` VALUES (3,'x');\nUNLOCK TABLES;\n";
        let wanted: Vec<[Option<&[u8]>; 2]> = vec![
            [Some(b"1"), Some(b"it's; (1),'2'")],
            [Some(b"-2.5e3"), None],
            [Some(b"\\x00ff"), Some(b"a\n\\\0")],
            [Some(b"\\x7a1a"), Some(b"")],
        ];
        for cut in 0..text.len() {
            let mut rows: Vec<Row> = Vec::new();
            let mut each = EachInsert::new(|row: &Row| {
                rows.push(row.clone());
                Ok(())
            });
            each.write(&text[..cut]).unwrap();
            each.write(&text[cut..]).unwrap();
            let rows: Vec<Vec<Option<&[u8]>>> =
                rows.iter().map(|row| row.iter().map(Option::as_deref).collect()).collect();
            assert_eq!(rows[..4], wanted);
        }
    }
}
