//! What the streams of a database hold, table by table: a JSON document that is itself a stream of
//! the snapshot. With it one table is restored by reading its bytes alone, and two snapshots are
//! compared without reading any.
//!
//! Pure: knows neither databases nor repositories.

mod archive;
mod copy;
pub mod definitions;
#[cfg(test)]
mod fixture;
mod frame;
mod insert;
mod lexer;
mod mysql_sql;
mod mysql_words;
mod postgres_section;
mod postgres_sql;
mod rows;
mod scan;
mod schema;
mod seam;
pub mod selection;
mod statements;
mod subject;
pub mod toc;
mod toc_cursor;
mod tokens;

use serde::{Deserialize, Serialize};

pub use frame::{BlockReader, FrameError};
pub use mysql_words::name_at;
pub use scan::{Scanned, Scanner};
pub use statements::{Edit, Statements};
pub use subject::Name;

/// The tables of one source in one snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Format of this document, 1.
    pub version: u32,
    /// `postgres`, `mysql`, `mariadb` or `sqlite`.
    pub engine: String,
    /// What the server or the header of the dump says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server_version: String,
    /// Name of the database; empty where there are several or none is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub database: String,
    /// MariaDB and MySQL: the databases that the dump itself goes into or makes, in its order, those
    /// without tables as well. None where it has no `USE`: it goes into whatever it is loaded into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// MariaDB and MySQL: bytes of its longest statement, which a server must be ready to take.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub longest_statement: u64,
    /// How the database was read.
    pub mode: Mode,
    /// Programs that took part, as `pg_dump 15.8`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Where the copy stands in the history of the server.
    #[serde(default)]
    pub position: Position,
    /// The stream that holds the definitions: an archive of `pg_dump -Fc`, or the whole dump.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema_stream: String,
    /// The head of an archive in it: all definitions, no rows.
    #[serde(default, skip_serializing_if = "Range::is_empty")]
    pub head: Range,
    /// Blocks of an archive in it that are no rows of tables: large objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<Range>,
    /// What stands before the first definition of SQL and sets up the session, …
    #[serde(default, skip_serializing_if = "Range::is_empty")]
    pub preamble: Range,
    /// … and what stands behind the last.
    #[serde(default, skip_serializing_if = "Range::is_empty")]
    pub trailer: Range,
    /// The stream that holds roles and tablespaces as SQL.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub globals_stream: String,
    /// Hash of all definitions, whatever the order they stand in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema_hash: String,
    /// What a restore needs: extensions with their versions, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<Extension>,
    /// … and roles that own something or are granted something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Bytes on the server's disk when it was read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub database_bytes: u64,
    /// The tables, sorted by schema and name.
    pub tables: Vec<Table>,
}

/// How a database was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A stream for each table and an archive for the rest.
    #[default]
    Tables,
    /// One archive of `pg_dump -Fc`.
    Archive,
    /// One dump as SQL text.
    Sql,
    /// The pages of the database file.
    File,
}

/// A moment in the history of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    /// PostgreSQL: identifier of the cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system_id: String,
    /// PostgreSQL: name of the exported snapshot.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub snapshot: String,
    /// PostgreSQL: place in the WAL.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lsn: String,
    /// MariaDB and MySQL: file of the binary log, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub binlog_file: String,
    /// … place in it, …
    #[serde(skip_serializing_if = "is_zero")]
    pub binlog_position: u64,
    /// … and the transactions that are in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gtid: String,
}

/// An extension of the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// Its version on the server that was read.
    pub version: String,
}

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its schema; the database of MariaDB and MySQL; empty for SQLite.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Rows.
    pub rows: u64,
    /// Bytes of the rows as they stand in the stream, framing aside.
    pub bytes: u64,
    /// Hash of its definition with indexes, constraints and triggers; equal hashes are equal definitions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema_hash: String,
    /// BLAKE3 of the bytes of the rows, in hex.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rows_hash: String,
    /// Columns in the order of the rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// The primary key's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// The rows stand in the order of the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_key_order: bool,
    /// The stream that holds the rows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stream: String,
    /// How they stand there.
    #[serde(default)]
    pub encoding: Encoding,
    /// Byte ranges of the stream that hold the definition, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub definition: Vec<Range>,
    /// … and the rows; the whole stream where there are none and the stream is the table's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<Range>,
}

/// How rows stand in a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// The stream is the output of `COPY … TO STDOUT` in text format, nothing else.
    #[default]
    Copy,
    /// The ranges are data blocks of a `pg_dump -Fc` archive, with their headers: block type, dump id,
    /// and chunks each with its length.
    ArchiveBlock,
    /// The ranges are the lines between `COPY … FROM stdin;` and `\.`, both left out.
    CopyInSql,
    /// The ranges are SQL statements.
    Statements,
    /// The stream is a database file.
    Pages,
}

/// Bytes `start..end` of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first byte.
    pub start: u64,
    /// Behind the last.
    pub end: u64,
}

impl Range {
    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}
