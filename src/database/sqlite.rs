//! SQLite: a consistent copy by the online backup API, looked at before it is stored.
//! <https://www.sqlite.org/backup.html>

mod restore;

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{Prepared, Surroundings, source_error, stream_prefix};
use crate::backup::{ClosingStream, StreamSource};
use crate::catalogue::{Catalogue, Encoding, Mode, Table};
use crate::error::{Error, Result};
use crate::format::name::Name;
use crate::format::snapshot::SourceRef;
use crate::settings::{SqliteCheck, SqliteConfig};
use crate::source::file::FileInput;

pub use restore::{refuse, restore};

/// How long writers of another process are waited for.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Copies the database and makes a stream of the copy.
pub fn prepare(name: &str, config: &SqliteConfig, surroundings: &Surroundings) -> Result<Prepared> {
    let failed = |detail: String| source_error(name, detail);
    let path = config.path.display();
    let folder =
        tempfile::Builder::new().prefix("restow-sqlite-").tempdir_in(&surroundings.temporary);
    let folder = folder.map_err(|source| Error::Io {
        action: "make a folder in",
        path: surroundings.temporary.display().to_string(),
        source,
    })?;
    let copy = folder.path().join("copy");
    copy_database(&config.path, &copy).map_err(|error| failed(format!("{path}: {error}")))?;
    let connection =
        open_copy(&copy).map_err(|error| failed(format!("the copy of {path}: {error}")))?;
    check(&connection, config.check).map_err(|error| failed(format!("{path}: {error}")))?;
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
        warnings: Vec::new(),
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

/// Looks whether a database is sound.
pub fn check(connection: &Connection, how: SqliteCheck) -> Result<(), String> {
    let pragma = match how {
        SqliteCheck::Full => "integrity_check",
        SqliteCheck::Quick => "quick_check",
        SqliteCheck::None => return Ok(()),
    };
    let look = || -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare(&format!("PRAGMA {pragma}(3)"))?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
            format!("the database is damaged ({pragma}): {error}")
        }
        _ => format!("{pragma}: {error}"),
    };
    match look().map_err(failed)?.as_slice() {
        [only] if only == "ok" => Ok(()),
        found => Err(format!("the database is damaged ({pragma}): {}", found.join("; "))),
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

/// The tables of a database. Those of virtual tables are counted where their module is at hand.
pub fn tables(connection: &Connection, stream: &str) -> rusqlite::Result<Vec<Table>> {
    let mut names = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         ORDER BY name",
    )?;
    let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut tables = Vec::new();
    for name in names {
        let quoted = name.replace('"', "\"\"");
        let count = format!("SELECT count(*) FROM \"{quoted}\"");
        let rows = connection.query_row(&count, [], |row| row.get::<_, i64>(0));
        let mut definitions = connection.prepare(
            "SELECT sql FROM sqlite_schema WHERE tbl_name = ?1 AND sql IS NOT NULL ORDER BY type, name",
        )?;
        let mut hasher = blake3::Hasher::new();
        for sql in definitions.query_map([&name], |row| row.get::<_, String>(0))? {
            hasher.update(sql?.as_bytes()).update(&[0]);
        }
        let mut columns =
            connection.prepare("SELECT name, pk FROM pragma_table_info(?1) ORDER BY cid")?;
        let columns: Vec<(String, i64)> = columns
            .query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let mut key: Vec<&(String, i64)> = columns.iter().filter(|(_, place)| *place > 0).collect();
        key.sort_by_key(|(_, place)| *place);
        tables.push(Table {
            rows: rows.ok().and_then(|rows| rows.try_into().ok()).unwrap_or(0),
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

/// Whether the tables are those that were read.
pub fn compare(expected: &[Table], found: &[Table]) -> Result<(), String> {
    for table in expected {
        let name = &table.name;
        match found.iter().find(|it| it.name == *name) {
            None => return Err(format!("the table {name} is missing")),
            Some(it) if it.rows != table.rows => {
                return Err(format!("{name} has {} rows instead of {}", it.rows, table.rows));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
