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
