//! The tables of the index and the opening of its file.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::IndexError;
use crate::id::RepositoryId;

/// Name of the file.
const FILE: &str = "index.sqlite";
/// Raised when the tables change: an older file is made again.
const VERSION: i64 = 3;

/// Numbers of packs are never used again: other processes may remember what stood under one.
const TABLES: &str = "
    CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE idx(number INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE);
    CREATE TABLE pack(
        number INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB NOT NULL UNIQUE, idx INTEGER NOT NULL,
        kind INTEGER NOT NULL, size INTEGER NOT NULL, header BLOB NOT NULL, directory BLOB NOT NULL);
    CREATE INDEX pack_idx ON pack(idx);
    CREATE TABLE fate(
        name BLOB PRIMARY KEY, fate INTEGER NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE chunk(
        key BLOB NOT NULL, pack INTEGER NOT NULL, ordinal INTEGER NOT NULL,
        PRIMARY KEY(key, pack, ordinal)) WITHOUT ROWID;
    CREATE TABLE sealed(pack INTEGER PRIMARY KEY);
    CREATE TABLE snapshot(name BLOB PRIMARY KEY, manifest BLOB NOT NULL) WITHOUT ROWID;
";

/// Opens the file in `folder`, making it where there is none.
pub fn open_file(folder: &Path, repository: RepositoryId) -> Result<Connection, IndexError> {
    let path = folder.join(FILE);
    let io = |source| IndexError::Io { path: path.display().to_string(), source };
    create_private_folder(folder).map_err(io)?;
    create_private_file(&path).map_err(io)?;
    for suffix in ["", "-wal", "-shm"] {
        keep_private(&folder.join(format!("{FILE}{suffix}")), 0o600);
    }
    prepare(Connection::open(&path)?, repository)
}

/// Sets the connection up and makes the tables where they are missing.
pub fn prepare(connection: Connection, repository: RepositoryId) -> Result<Connection, IndexError> {
    connection.busy_timeout(std::time::Duration::from_secs(30))?;
    // WAL with synchronous=NORMAL: a crash may take the newest transactions but never damages the
    // file, and a lost transaction is applied again from the log. `cache_size` bounds memory.
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-8192;
         PRAGMA temp_store=FILE; PRAGMA mmap_size=0; PRAGMA trusted_schema=OFF;",
    )?;
    connection.set_prepared_statement_cache_capacity(32);
    let wanted = identity(repository);
    let exists = has_tables(&connection)?;
    if exists {
        let found: Option<Vec<u8>> = connection
            .query_row("SELECT value FROM meta WHERE name='identity'", [], |row| row.get(0))
            .optional()?;
        if found.as_deref() != Some(&wanted) {
            return Err(IndexError::Damaged("made by another version or for another repository"));
        }
        return Ok(connection);
    }
    // Two processes may both find no tables: the second finds them under the write lock.
    connection.execute_batch("BEGIN IMMEDIATE")?;
    if !has_tables(&connection)? {
        connection.execute_batch(TABLES)?;
        connection.execute("INSERT INTO meta VALUES('identity', ?1)", [&wanted])?;
    }
    connection.execute_batch("COMMIT")?;
    Ok(connection)
}

/// Asks the file, not the schema that this connection remembers.
fn has_tables(connection: &Connection) -> Result<bool, IndexError> {
    let count: i64 = connection.query_row(
        "SELECT count(*) FROM sqlite_master WHERE type='table' AND name='meta'",
        [],
        |row| row.get(0),
    )?;
    Ok(count > 0)
}

fn identity(repository: RepositoryId) -> Vec<u8> {
    [&VERSION.to_le_bytes()[..], repository.as_bytes()].concat()
}

fn create_private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Others may have made it on their way to something in it.
    keep_private(folder, 0o700);
    Ok(())
}

/// Makes the file before SQLite does, which gives those beside it the same mode. A file that is there is
/// not opened: closing it would end the locks of other connections of this process.
fn create_private_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let created = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match created {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Takes away what others may do with a file: the index tells hosts, paths and tags. Where that is
/// refused, the file is another user's, who has to see to it.
fn keep_private(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = path.metadata() else { return };
    if metadata.permissions().mode() & 0o077 != 0 {
        let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    }
}

/// Removes the file in `folder` with what SQLite keeps beside it.
pub fn remove_file(folder: &Path) -> Result<(), IndexError> {
    for suffix in ["", "-wal", "-shm"] {
        let path = folder.join(format!("{FILE}{suffix}"));
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(IndexError::Io { path: path.display().to_string(), source });
            }
            _ => {}
        }
    }
    Ok(())
}
