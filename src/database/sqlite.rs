//! SQLite: a consistent copy by the online backup API, looked at before it is stored.
//! <https://www.sqlite.org/backup.html>

mod restore;

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::{Prepared, Surroundings, leftover, source_error, stream_prefix};
use crate::backup::{ClosingStream, StreamSource};
use crate::catalogue::{Catalogue, Encoding, Mode, Table};
use crate::database::postgres::inspect::quote;
use crate::error::{Error, Result};
use crate::format::name::Name;
use crate::format::snapshot::SourceRef;
use crate::settings::{SqliteCheck, SqliteConfig};
use crate::source::file::FileInput;

pub use restore::{Restored, refuse, restore};

/// How long writers of another process are waited for.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Copies the database and makes a stream of the copy.
pub fn prepare(name: &str, config: &SqliteConfig, surroundings: &Surroundings) -> Result<Prepared> {
    let failed = |detail: String| source_error(name, detail);
    let path = config.path.display();
    let folder = leftover::folder(&surroundings.temporary, "restow-sqlite-").map_err(|source| {
        Error::Io {
            action: "make a folder in",
            path: surroundings.temporary.display().to_string(),
            source,
        }
    })?;
    let copy = folder.path().join("copy");
    copy_database(&config.path, &copy).map_err(|error| failed(format!("{path}: {error}")))?;
    let connection =
        open_copy(&copy).map_err(|error| failed(format!("the copy of {path}: {error}")))?;
    let unchecked = check(&connection, config.check);
    let unchecked = unchecked.map_err(|error| failed(format!("{path}: {error}")))?;
    let file_name = config.path.file_name().map(|it| it.to_string_lossy().into_owned());
    let stream = format!("{}/{}", stream_prefix(name), file_name.as_deref().unwrap_or("database"));
    let catalogue = catalogue(&connection, &config.path, &stream);
    let catalogue = catalogue.map_err(|error| failed(format!("{path}: {error}")))?;
    drop(connection);
    let file = File::open(&copy);
    let file = file.map_err(|source| Error::Io {
        action: "open",
        path: copy.display().to_string(),
        source,
    })?;
    // It lives on until it was read; nothing is left behind however this process ends.
    drop(folder);
    let text = serde_json::to_vec_pretty(&[catalogue]).expect("texts and numbers");
    let closing = format!("{}/catalogue.json", stream_prefix(name));
    Ok(Prepared {
        streams: vec![StreamSource {
            name: Name::new(stream),
            input: Box::new(FileInput::new(file)),
            min_bytes: 0,
        }],
        jobs: 0,
        source: SourceRef {
            name: name.to_owned(),
            engine: "sqlite".into(),
            server_version: rusqlite::version().to_owned(),
            restore: Vec::new(),
        },
        closing: Some(ClosingStream {
            name: Name::new(closing),
            make: Box::new(move || Ok(Some(Bytes::from(text)))),
        }),
        warnings: unchecked.into_iter().map(|text| format!("{path}: {text}")).collect(),
    })
}

/// Opens a database for reading. It is never made.
pub fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    Ok(connection)
}

/// Opens a copy that nobody else knows: nothing is made beside it, whatever its mode.
pub fn open_copy(path: &Path) -> rusqlite::Result<Connection> {
    let encoded = percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC);
    let uri = format!("file:{encoded}?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags)
}

/// Copies a database as it is at one moment, whoever writes meanwhile. All pages in one step: a copy in
/// several would begin again with each write of another process.
pub fn copy_database(from: &Path, to: &Path) -> rusqlite::Result<()> {
    let source = open(from)?;
    let mut target = Connection::open(to)?;
    target.pragma_update(None, "synchronous", "OFF")?;
    {
        let backup = Backup::new(&source, &mut target)?;
        let started = std::time::Instant::now();
        loop {
            match backup.step(-1)? {
                StepResult::Done => break,
                _ if started.elapsed() < PATIENCE => std::thread::yield_now(),
                _ => {
                    return Err(rusqlite::Error::SqliteFailure(
                        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                        Some("another process keeps it locked".into()),
                    ));
                }
            }
        }
    }
    target.close().map_err(|(_, error)| error)
}

/// Looks whether a database is sound. Gives what could not be looked at: what needs a collation or a function
/// that only the program knows whose database it is.
pub fn check(connection: &Connection, how: SqliteCheck) -> Result<Option<String>, String> {
    let pragma = match how {
        SqliteCheck::Full => "integrity_check",
        SqliteCheck::Quick => "quick_check",
        SqliteCheck::None => return Ok(None),
    };
    let Some(error) = look(connection, pragma, "3")? else { return Ok(None) };
    // One table at a time, to look at all others.
    let names = names(connection).map_err(|error| format!("the database is damaged: {error}"))?;
    let mut unchecked = Vec::new();
    for name in names {
        if look(connection, pragma, &quote(&name))?.is_some() {
            unchecked.push(name);
        }
    }
    let tables = unchecked.join(", ");
    Ok(Some(format!("{pragma} could not look at everything ({error}); tables: {tables}")))
}

/// Runs a check. Gives why it cannot be run; what it finds is an error.
fn look(connection: &Connection, pragma: &str, of: &str) -> Result<Option<String>, String> {
    let found = || -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare(&format!("PRAGMA {pragma}({of})"))?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    match found() {
        Ok(found) if found == ["ok"] => Ok(None),
        Ok(found) => Err(format!("the database is damaged ({pragma}): {}", found.join("; "))),
        // The general error: no such function, collation or module.
        Err(rusqlite::Error::SqliteFailure(failure, text))
            if failure.extended_code & 0xff == rusqlite::ffi::SQLITE_ERROR =>
        {
            Ok(Some(text.unwrap_or_else(|| failure.to_string())))
        }
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
            Err(format!("the database is damaged ({pragma}): {error}"))
        }
        Err(error) => Err(format!("{pragma}: {error}")),
    }
}

/// Tables with their rows, as the database is.
fn catalogue(connection: &Connection, path: &Path, stream: &str) -> rusqlite::Result<Catalogue> {
    let tables = tables(connection, stream)?;
    let mut all = blake3::Hasher::new();
    for table in &tables {
        all.update(table.schema_hash.as_bytes());
    }
    let mut views = connection.prepare(
        "SELECT sql FROM sqlite_schema WHERE tbl_name NOT IN
         (SELECT name FROM sqlite_schema WHERE type = 'table') ORDER BY type, name",
    )?;
    for sql in views.query_map([], |row| row.get::<_, Option<String>>(0))? {
        all.update(sql?.unwrap_or_default().as_bytes()).update(&[0]);
    }
    Ok(Catalogue {
        version: 1,
        engine: "sqlite".into(),
        server_version: rusqlite::version().to_owned(),
        database: path.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default(),
        mode: Mode::File,
        schema_stream: stream.to_owned(),
        schema_hash: all.finalize().to_hex().to_string(),
        tables,
        ..Catalogue::default()
    })
}

fn names(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut names = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         ORDER BY name",
    )?;
    names.query_map([], |row| row.get(0))?.collect()
}

/// The tables of a database. Those of virtual tables are counted where their module is at hand.
pub fn tables(connection: &Connection, stream: &str) -> rusqlite::Result<Vec<Table>> {
    let mut tables = Vec::new();
    for name in names(connection)? {
        let mut definitions = connection.prepare(
            "SELECT sql FROM sqlite_schema WHERE tbl_name = ?1 AND sql IS NOT NULL ORDER BY type, name",
        )?;
        let mut hasher = blake3::Hasher::new();
        for sql in definitions.query_map([&name], |row| row.get::<_, String>(0))? {
            hasher.update(sql?.as_bytes()).update(&[0]);
        }
        // What needs a module or a function that is not here has no columns and no rows that we can see.
        let columns = columns(connection, &name).unwrap_or_default();
        let content = content(connection, &name).unwrap_or_default();
        let mut key: Vec<&(String, i64)> = columns.iter().filter(|(_, place)| *place > 0).collect();
        key.sort_by_key(|(_, place)| *place);
        tables.push(Table {
            rows: content.rows,
            bytes: content.bytes,
            rows_hash: content.hash,
            schema_hash: hasher.finalize().to_hex().to_string(),
            key: key.into_iter().map(|(name, _)| name.clone()).collect(),
            columns: columns.iter().map(|(name, _)| name.clone()).collect(),
            stream: stream.to_owned(),
            encoding: Encoding::Pages,
            name,
            ..Table::default()
        });
    }
    Ok(tables)
}

/// Columns with their places in the primary key, 0 where they are not in it.
fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<(String, i64)>> {
    let mut columns =
        connection.prepare("SELECT name, pk FROM pragma_table_info(?1) ORDER BY cid")?;
    columns.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// What stands in a table.
#[derive(Default)]
struct Content {
    rows: u64,
    /// Bytes of all values.
    bytes: u64,
    /// Of all values with their types, in the order of the table.
    hash: String,
}

fn content(connection: &Connection, table: &str) -> rusqlite::Result<Content> {
    let mut statement =
        connection.prepare(&format!("SELECT * FROM {} NOT INDEXED", quote(table)))?;
    let count = statement.column_count();
    let mut rows = statement.query([])?;
    let (mut content, mut hasher) = (Content::default(), blake3::Hasher::new());
    while let Some(row) = rows.next()? {
        content.rows += 1;
        for column in 0..count {
            let (number, value);
            let (kind, bytes): (u8, &[u8]) = match row.get_ref(column)? {
                ValueRef::Null => (0, &[]),
                ValueRef::Integer(integer) => {
                    number = integer.to_le_bytes();
                    (1, &number)
                }
                ValueRef::Real(real) => {
                    value = real.to_le_bytes();
                    (2, &value)
                }
                ValueRef::Text(text) => (3, text),
                ValueRef::Blob(bytes) => (4, bytes),
            };
            hasher.update(&[kind]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
            content.bytes += bytes.len() as u64;
        }
    }
    content.hash = hasher.finalize().to_hex().to_string();
    Ok(content)
}

/// Whether the tables are those that were read.
pub fn compare(expected: &[Table], found: &[Table]) -> Result<(), String> {
    for table in expected {
        let name = &table.name;
        match found.iter().find(|it| it.name == *name) {
            None => return Err(format!("the table {name} is missing")),
            Some(it) if it.rows != table.rows => {
                return Err(format!("{name} has {} rows instead of {}", it.rows, table.rows));
            }
            Some(it) if !table.rows_hash.is_empty() && it.rows_hash != table.rows_hash => {
                return Err(format!("{name} has other rows than those that were read"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
