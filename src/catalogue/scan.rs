//! Looks at a stream as it passes by and tells what tables it holds, where it is a dump of a database
//! in a form that is known: an uncompressed archive of pg_dump, SQL text of pg_dump, SQL text of
//! mariadb-dump or mysqldump.
//!
//! The bytes are never changed and the stream is never stopped: what is not understood is left out of
//! the catalogue, with a warning. Any other stream costs a look at its first bytes.

use super::archive::ArchiveScanner;
use super::mysql_sql::MysqlSql;
use super::postgres_sql::PostgresSql;
use super::toc::{MAGIC, Toc};
use super::{Catalogue, Range};

/// How far into a stream its kind must show.
const HEAD: usize = 4096;

/// How dumps of pg_dump and pg_dumpall begin.
const POSTGRES: [&[u8]; 2] =
    [b"--\n-- PostgreSQL database dump", b"--\n-- PostgreSQL database cluster dump"];

/// How dumps of mariadb-dump and mysqldump begin.
const MYSQL: [&[u8]; 3] =
    [b"-- MariaDB dump ", b"-- MySQL dump ", b"/*M!999999\\- enable the sandbox"];

/// What a dump holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// Its tables.
    pub catalogue: Catalogue,
    /// Whether it is whole; if not, what is missing.
    pub complete: Result<(), String>,
    /// What was not understood.
    pub warnings: Vec<String>,
    /// The bytes that a restore of any part needs first: settings of the session; the head of an
    /// archive.
    pub preamble: Range,
    /// The bytes that it needs last.
    pub trailer: Range,
    /// The table of contents of an archive, with the place of every data block that was read.
    pub toc: Option<Toc>,
}

/// Takes a stream piece by piece.
#[derive(Debug, Default)]
pub struct Scanner {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The first bytes do not tell yet.
    Open(Vec<u8>),
    Archive(Box<ArchiveScanner>),
    Postgres(Box<PostgresSql>),
    Mysql(Box<MysqlSql>),
    /// Nothing that is known.
    Foreign,
}

impl Default for Kind {
    fn default() -> Self {
        Self::Open(Vec::new())
    }
}

impl Scanner {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    pub fn push(&mut self, bytes: &[u8]) {
        match &mut self.kind {
            Kind::Foreign => {}
            Kind::Postgres(scanner) => scanner.push(bytes),
            Kind::Mysql(scanner) => scanner.push(bytes),
            Kind::Open(head) => {
                head.extend_from_slice(bytes);
                if let Some(kind) = kind(head) {
                    let head = std::mem::take(head);
                    self.kind = kind;
                    self.push(&head);
                }
            }
            Kind::Archive(scanner) => {
                scanner.push(bytes);
                if scanner.is_foreign() {
                    self.kind = Kind::Foreign;
                }
            }
        }
    }

    /// Whether the stream is none that is known: further pieces need not be given.
    pub fn is_foreign(&self) -> bool {
        matches!(self.kind, Kind::Foreign)
    }

    /// After the last piece: what `stream` holds; none where it is no dump that is known.
    pub fn finish(self, stream: &str) -> Option<Scanned> {
        match self.kind {
            Kind::Open(_) | Kind::Foreign => None,
            Kind::Archive(scanner) => scanner.finish(stream),
            Kind::Postgres(scanner) => Some(scanner.finish(stream)),
            Kind::Mysql(scanner) => Some(scanner.finish(stream)),
        }
    }
}

/// What begins with these bytes; none where more are needed.
fn kind(head: &[u8]) -> Option<Kind> {
    if head.starts_with(MAGIC) {
        return Some(Kind::Archive(Box::default()));
    }
    let lines = head.trim_ascii_start();
    if POSTGRES.iter().any(|line| lines.starts_with(line)) {
        return Some(Kind::Postgres(Box::new(PostgresSql::new())));
    }
    if MYSQL.iter().any(|line| lines.starts_with(line)) {
        return Some(Kind::Mysql(Box::new(MysqlSql::new())));
    }
    let known = POSTGRES.iter().chain(&MYSQL).copied().chain([MAGIC]);
    let undecided = head.len() < HEAD && known.into_iter().any(|line| line.starts_with(lines));
    if undecided { None } else { Some(Kind::Foreign) }
}

#[cfg(test)]
mod tests {
    use super::super::Table;
    use super::super::fixture::{ARCHIVES, DUMPS, Entry, Noise, archive};
    use super::*;

    fn scan(bytes: &[u8], piece: usize) -> Option<Scanned> {
        let mut scanner = Scanner::new();
        bytes.chunks(piece).for_each(|piece| scanner.push(piece));
        scanner.finish("dump")
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        for bytes in DUMPS.into_iter().chain(ARCHIVES) {
            let whole = scan(bytes, bytes.len()).expect("a dump");
            assert_eq!(whole.complete, Ok(()));
            assert!(whole.warnings.is_empty());
            for piece in [1, 2, 3, 7, 63, 64, 1000] {
                assert_eq!(scan(bytes, piece), Some(whole.clone()), "{piece}");
            }
        }
    }

    #[test]
    fn sql_and_archive_of_a_database_hold_the_same_rows() {
        let facts = |bytes: &[u8]| {
            let tables = scan(bytes, 100).expect("a dump").catalogue.tables;
            let facts = tables.into_iter().map(|table| {
                let Table { schema, name, rows, bytes, rows_hash, columns, key, .. } = table;
                (schema, name, rows, bytes, rows_hash, columns, key)
            });
            facts.collect::<Vec<_>>()
        };
        assert_eq!(facts(DUMPS[0]), facts(ARCHIVES[0]));
        assert_eq!(facts(DUMPS[1]), facts(ARCHIVES[2]));
        let rows = |bytes: &[u8]| -> Vec<u64> { facts(bytes).into_iter().map(|f| f.2).collect() };
        assert_eq!(rows(DUMPS[2]), rows(ARCHIVES[2]));
    }

    #[test]
    fn cut_dumps_are_not_complete() {
        for bytes in DUMPS {
            let last = b"ump completed".as_slice();
            let last = [last, b"dump complete"]
                .iter()
                .filter_map(|last| memchr::memmem::rfind(bytes, last))
                .max()
                .expect("a last line");
            for len in (200..last).step_by(13) {
                let scanned = scan(&bytes[..len], 500).expect("a dump");
                assert!(scanned.complete.is_err(), "{len}");
            }
        }
    }

    #[test]
    fn damaged_dumps_never_panic_and_ranges_stay_within() {
        let mut noise = Noise(11);
        for round in 0..3000 {
            let damaged = noise.damage(DUMPS[round % DUMPS.len()]);
            let piece = 1 + noise.below(3000);
            let Some(scanned) = scan(&damaged, piece) else { continue };
            let tables = scanned.catalogue.tables.iter();
            let ranges = tables.flat_map(|table| table.data.iter().chain(&table.definition));
            for range in ranges.chain([&scanned.preamble, &scanned.trailer]) {
                assert!(range.start <= range.end && range.end <= damaged.len() as u64);
            }
        }
    }

    #[test]
    fn other_streams_are_foreign_at_their_first_bytes() {
        for head in ["SQLite format 3", "\u{1f}\u{8b}", "CREATE TABLE t (a int);", "-- a script\n"]
        {
            let mut scanner = Scanner::new();
            scanner.push(head.as_bytes());
            assert!(scanner.is_foreign(), "{head}");
            assert_eq!(scanner.finish("x"), None);
        }
        assert_eq!(scan(b"", 1), None);
        assert_eq!(scan(b"--\n-- Postgre", 1), None);
        let mut blank = Scanner::new();
        blank.push(&[b' '; 5000]);
        assert!(blank.is_foreign());
    }

    /// Rows of random text, as `COPY` writes them.
    fn rows(noise: &mut Noise) -> String {
        let words = ["\\\\.", "\\N", "\t", "\\n", "--", "'", "a b", "\\\\", "", "(;", "x.", "."];
        let row = |noise: &mut Noise| -> String {
            let count = 1 + noise.below(6);
            (0..count).map(|_| words[noise.below(words.len())]).chain(["\n"]).collect()
        };
        let count = noise.below(30);
        (0..count).map(|_| row(noise)).collect()
    }

    #[test]
    fn generated_rows_are_the_same_in_sql_and_archives() {
        let mut noise = Noise(23);
        for round in 0..250 {
            let rows: &'static str = rows(&mut noise).leak();
            let chunks: Vec<&'static str> =
                rows.split_inclusive('\n').chain(["\\.\n\n\n"]).collect();
            let entry = Entry {
                id: 1,
                desc: "TABLE DATA",
                schema: "s",
                tag: "t",
                copy: "COPY s.t (a) FROM stdin;\n",
                rows: Some(chunks.leak()),
                ..Entry::default()
            };
            let sql = format!(
                "--\n-- PostgreSQL database dump\n--\n\n--\n-- Data for Name: t; Type: TABLE DATA; \
                 Schema: s; Owner: o\n--\n\nCOPY s.t (a) FROM stdin;\n{rows}\\.\n\n\n\
                 --\n-- PostgreSQL database dump complete\n--\n\n"
            );
            for dump in [sql.into_bytes(), archive(14 + round % 3, round % 2 == 0, &[entry])] {
                let scanned = scan(&dump, 1 + noise.below(90)).expect("a dump");
                assert_eq!(scanned.complete, Ok(()));
                let table = &scanned.catalogue.tables[0];
                assert_eq!(
                    (table.bytes, table.rows),
                    (rows.len() as u64, rows.lines().count() as u64)
                );
                assert_eq!(table.rows_hash, blake3::hash(rows.as_bytes()).to_hex().to_string());
                assert_eq!(table.columns, ["a"]);
            }
        }
    }
}
