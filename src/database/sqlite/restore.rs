//! Putting a SQLite database back into its file: beside it first, looked at there, then in its place. Until
//! then the old one stays as it is, and a process that is killed leaves one or the other.

use std::fs::{File, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tempfile::NamedTempFile;

use super::{check, compare, open_copy, tables};
use crate::database::postgres::restore::Origin;
use crate::database::{leftover, source_error};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::restore::{WriterTarget, copy_stream, stream_of};
use crate::settings::SqliteCheck;

/// How long others may take to let go of the database that is replaced.
const PATIENCE: Duration = Duration::from_secs(1);

/// Refuses to replace a file whose name is not confirmed.
pub fn refuse(path: &Path, overwrite: Option<&str>) -> Result<()> {
    let name = path.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
    if path.symlink_metadata().is_err() || overwrite == Some(name.as_str()) {
        return Ok(());
    }
    let path = path.display();
    let text = format!("{path} is there already: confirm it with --yes-overwrite {name}");
    Err(Error::Conflict(text))
}

/// What was restored.
pub struct Restored {
    /// How many tables.
    pub tables: usize,
    /// What could not be looked at.
    pub unchecked: Option<String>,
}

/// Restores. A file that is there is replaced only where its name is
/// confirmed; the new one has its mode and owner.
pub fn restore(
    origin: &Origin<'_>,
    path: &Path,
    overwrite: Option<&str>,
    progress: &Progress,
) -> Result<Restored> {
    refuse(path, overwrite)?;
    // Through a link: the file that it points to is the database.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let stream = stream_of(origin.snapshot, &origin.catalogue.schema_stream)?;
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = leftover::file(folder, ".restow-sqlite-");
    let file = file.map_err(|source| io("make a file in", folder, source))?;
    let mut target =
        WriterTarget { writer: file.as_file(), name: file.path().display().to_string() };
    copy_stream(origin.repository, stream, &mut target, progress)?;
    let failed = |error: String| source_error(&path.display().to_string(), error);
    let connection = open_copy(file.path()).map_err(|error| failed(error.to_string()))?;
    let unchecked = check(&connection, SqliteCheck::Full).map_err(failed)?;
    let tables = tables(&connection, "").map_err(|error| failed(error.to_string()))?;
    compare(&origin.catalogue.tables, &tables).map_err(failed)?;
    drop(connection);
    replace(file, path)?;
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| io("sync", folder, source))?;
    Ok(Restored { tables: tables.len(), unchecked })
}

fn replace(file: NamedTempFile, path: &Path) -> Result<()> {
    if let Ok(old) = path.metadata() {
        let taken = take_over(file.as_file(), &old);
        taken.map_err(|source| io("set mode and owner of", file.path(), source))?;
        settle(path)?;
    }
    file.as_file().sync_all().map_err(|source| io("sync", file.path(), source))?;
    // Pages that wait in files beside the old one must not get into the new one.
    for suffix in ["-wal", "-shm", "-journal"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        let beside = PathBuf::from(beside);
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("remove", &beside, error));
            }
            _ => {}
        }
    }
    file.persist(path).map_err(|error| io("put in place", path, error.error))?;
    Ok(())
}

fn take_over(file: &File, old: &Metadata) -> std::io::Result<()> {
    file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
    let new = file.metadata()?;
    if (new.uid(), new.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    fchown(file, Some(old.uid()), Some(old.gid()))
}

/// Brings all that waits beside the old database into it, so that it stays whole if this process is
/// killed before the new one is in its place. Refuses where a process has it open. One that is damaged,
/// or is none, is left as it is.
fn settle(path: &Path) -> Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(connection) = Connection::open_with_flags(path, flags) else { return Ok(()) };
    let settled = connection
        .busy_timeout(PATIENCE)
        .and_then(|()| {
            connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))
        })
        .and_then(|()| connection.execute_batch("BEGIN EXCLUSIVE; ROLLBACK"));
    let is_busy = settled.is_err_and(|error| {
        matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        )
    });
    if is_busy {
        let path = path.display();
        let text = format!("another process has {path} open: stop it before it is replaced");
        return Err(Error::Conflict(text));
    }
    Ok(())
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Io { action, path: path.display().to_string(), source }
}
