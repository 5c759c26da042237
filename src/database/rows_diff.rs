//! The rows of a table in a snapshot against those that are live: what was added, removed and changed, and
//! the SQL that puts the old ones back.

use rusqlite::{Connection, OptionalExtension, params};

use super::export::insert;
use super::postgres::client::Client;
use super::postgres::dsn::Dsn;
use super::postgres::error::PgError;
use super::postgres::inspect::{literal, prepare, quote};
use super::postgres::restore::{Origin, encoding_of};
use super::rows::{EachRow, copy_rows, values};
use super::source_error;
use crate::catalogue::Table;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// How a row differs from the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RowChange {
    /// The snapshot does not have it.
    Added,
    /// It is gone.
    Removed,
    /// It has other values.
    Changed,
}

/// One row that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDiff {
    /// How.
    pub change: RowChange,
    /// Its key, for people.
    pub key: Vec<String>,
    /// Columns that differ, with the value in the snapshot and the live one; `None` for NULL.
    pub columns: Vec<(String, Option<String>, Option<String>)>,
    /// The statement that makes it what it was.
    pub sql: String,
}

/// How many rows differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct RowCounts {
    /// Live only.
    pub added: u64,
    /// In the snapshot only.
    pub removed: u64,
    /// In both with other values.
    pub changed: u64,
    /// The same in both.
    pub same: u64,
}

/// Compares a table of a snapshot with the live one and gives each row that differs to `take`. Rows
/// wait in a temporary database meanwhile: memory does not grow with them.
pub fn compare(
    origin: &Origin<'_>,
    table: &Table,
    live: &Dsn,
    key: &[String],
    take: &mut dyn FnMut(RowDiff) -> Result<()>,
    progress: &Progress,
) -> Result<RowCounts> {
    let places = places(table, key)?;
    let store = RowStore::new()?;
    let mut keep = EachRow::new(|row: &[u8]| store.put(&key_of(row, &places)?, row));
    copy_rows(origin, table, &mut keep, progress)?;
    let mut counts = RowCounts::default();
    let name = format!("{}.{}", quote(&table.schema), quote(&table.name));
    let failed = |error: PgError| source_error(&live.address(), error);
    let mut client = open(origin, live)?;
    let always = client.query(&always(&name)).map_err(failed)?;
    let always: Vec<String> = always.into_iter().flatten().flatten().collect();
    let shape = Shape { table, name: &name, key, places: &places, always: &always };
    let mut look = |row: &[u8]| -> Result<()> {
        let key = key_of(row, &places)?;
        store.see(&key)?;
        match store.take(&key)? {
            Some(old) if old == row => counts.same += 1,
            Some(old) => {
                counts.changed += 1;
                take(shape.changed(&old, row))?;
            }
            None => {
                counts.added += 1;
                take(shape.added(row))?;
            }
        }
        Ok(())
    };
    read_live(live, &mut client, table, &name, &mut look)?;
    store.rest(&mut |row| {
        counts.removed += 1;
        take(shape.removed(row))
    })?;
    Ok(counts)
}

fn places(table: &Table, key: &[String]) -> Result<Vec<usize>> {
    if key.is_empty() {
        let name = &table.name;
        let text =
            format!("{name} has no primary key: name columns that tell its rows apart by --key");
        return Err(Error::Usage(text));
    }
    key.iter()
        .map(|column| {
            let place = table.columns.iter().position(|it| it == column);
            place.ok_or_else(|| {
                let known = table.columns.join(", ");
                Error::Usage(format!("{} has no column {column}: it has {known}", table.name))
            })
        })
        .collect()
}

/// The fields of the key as they stand in the row: a text that is the same for the same values.
fn key_of(row: &[u8], places: &[usize]) -> Result<Vec<u8>> {
    let fields: Vec<&[u8]> = row.split(|byte| *byte == b'\t').collect();
    let mut key = Vec::new();
    for place in places {
        let field = fields
            .get(*place)
            .ok_or_else(|| Error::Conflict("a row has fewer columns than its table".to_owned()))?;
        key.extend_from_slice(field);
        key.push(b'\t');
    }
    Ok(key)
}

/// A session that gives rows as the snapshot has them.
fn open(origin: &Origin<'_>, live: &Dsn) -> Result<Client> {
    let failed = |error: PgError| source_error(&live.address(), error);
    let mut client = Client::connect(live).map_err(failed)?;
    prepare(&mut client).map_err(failed)?;
    let encoding = client.value("SHOW server_encoding").map_err(failed)?;
    if encoding != "UTF8" {
        let text = format!("the database is in {encoding}: rows are compared in UTF8 alone");
        return Err(Error::Usage(text));
    }
    if let Some(other) = encoding_of(origin)?.filter(|other| *other != encoding) {
        let text = format!(
            "the snapshot is in {other}, the database in {encoding}: their rows cannot be compared"
        );
        return Err(Error::Usage(text));
    }
    Ok(client)
}

/// Columns that the server fills itself, whatever an update says.
fn always(name: &str) -> String {
    let name = literal(name);
    format!(
        "SELECT attname FROM pg_catalog.pg_attribute
         WHERE attrelid = pg_catalog.to_regclass({name}) AND attidentity = 'a'"
    )
}

fn read_live(
    live: &Dsn,
    client: &mut Client,
    table: &Table,
    name: &str,
    look: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let failed = |error: PgError| source_error(&live.address(), error);
    use crate::restore::StreamTarget;
    let columns: Vec<String> = table.columns.iter().map(|column| quote(column)).collect();
    let columns = columns.join(", ");
    client.copy_out(&format!("COPY {name} ({columns}) TO STDOUT")).map_err(failed)?;
    let mut each = EachRow::new(look);
    let mut buffer = vec![0; 1 << 18];
    loop {
        match client.copy_read(&mut buffer).map_err(failed)? {
            0 => break,
            count => each.write(&buffer[..count])?,
        }
    }
    client.copy_end().map_err(failed)?;
    Ok(())
}

/// What statements need to know of a table.
struct Shape<'a> {
    table: &'a Table,
    name: &'a str,
    key: &'a [String],
    places: &'a [usize],
    /// Columns that an update cannot set.
    always: &'a [String],
}

impl Shape<'_> {
    fn key(&self, row: &[Option<Vec<u8>>]) -> Vec<String> {
        let text = |place: &usize| row.get(*place).cloned().flatten().unwrap_or_default();
        self.places.iter().map(|place| String::from_utf8_lossy(&text(place)).into_owned()).collect()
    }

    fn condition(&self, row: &[Option<Vec<u8>>]) -> String {
        let one = |(column, place): (&String, &usize)| match row.get(*place).cloned().flatten() {
            Some(text) => {
                format!("{} = {}", quote(column), literal(&String::from_utf8_lossy(&text)))
            }
            None => format!("{} IS NULL", quote(column)),
        };
        let parts: Vec<String> = self.key.iter().zip(self.places).map(one).collect();
        parts.join(" AND ")
    }

    fn added(&self, row: &[u8]) -> RowDiff {
        let row = values(row);
        let sql = format!("DELETE FROM ONLY {} WHERE {};", self.name, self.condition(&row));
        RowDiff { change: RowChange::Added, key: self.key(&row), columns: Vec::new(), sql }
    }

    fn removed(&self, row: &[u8]) -> RowDiff {
        let row = values(row);
        let sql = insert(self.name, &self.table.columns, &row);
        RowDiff { change: RowChange::Removed, key: self.key(&row), columns: Vec::new(), sql }
    }

    fn changed(&self, old: &[u8], new: &[u8]) -> RowDiff {
        let (old, new) = (values(old), values(new));
        let text = |value: &Option<Vec<u8>>| {
            value.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let columns: Vec<(String, Option<String>, Option<String>)> = self
            .table
            .columns
            .iter()
            .zip(old.iter().zip(&new))
            .filter(|(_, (old, new))| old != new)
            .map(|(column, (old, new))| (column.clone(), text(old), text(new)))
            .collect();
        let (stay, set): (Vec<_>, Vec<_>) =
            columns.iter().partition(|(column, ..)| self.always.contains(column));
        let sets: Vec<String> = set
            .iter()
            .map(|(column, old, _)| {
                let value = old.as_deref().map_or("NULL".to_owned(), literal);
                format!("{} = {value}", quote(column))
            })
            .collect();
        let (sets, condition) = (sets.join(", "), self.condition(&old));
        let mut sql = String::new();
        for (column, ..) in &stay {
            let column = quote(column).replace(['\n', '\r'], " ");
            sql.push_str(&format!("-- {column} is GENERATED ALWAYS: it stays as it is\n"));
        }
        if !set.is_empty() {
            sql.push_str(&format!("UPDATE ONLY {} SET {sets} WHERE {condition};", self.name));
        }
        RowDiff { change: RowChange::Changed, key: self.key(&old), columns, sql }
    }
}

/// Rows by key, in a temporary file that nobody else sees.
struct RowStore(Connection);

impl RowStore {
    fn new() -> Result<Self> {
        // An empty name: a private database on disk, which SQLite removes.
        let connection = Connection::open("").map_err(failed)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;
                 CREATE TABLE row (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
                 CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID; BEGIN",
            )
            .map_err(failed)?;
        Ok(Self(connection))
    }

    fn put(&self, key: &[u8], row: &[u8]) -> Result<()> {
        let mut put = self.0.prepare_cached("INSERT INTO row VALUES (?1, ?2)").map_err(failed)?;
        match put.execute(params![key, row]) {
            Ok(_) => Ok(()),
            Err(error) => Err(twice("of the snapshot", key, error)),
        }
    }

    /// Notes the key of a live row: a statement for one row must not change two.
    fn see(&self, key: &[u8]) -> Result<()> {
        let mut see = self.0.prepare_cached("INSERT INTO seen VALUES (?1)").map_err(failed)?;
        see.execute(params![key]).map(drop).map_err(|error| twice("live", key, error))
    }

    fn take(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut take = self
            .0
            .prepare_cached("DELETE FROM row WHERE key = ?1 RETURNING value")
            .map_err(failed)?;
        take.query_row(params![key], |row| row.get(0)).optional().map_err(failed)
    }

    fn rest(&self, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut rest = self.0.prepare("SELECT value FROM row ORDER BY key").map_err(failed)?;
        let mut rows = rest.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let value = row.get_ref(0).and_then(|it| Ok(it.as_blob()?)).map_err(failed)?;
            take(value)?;
        }
        Ok(())
    }
}

/// A key that two rows have.
fn twice(which: &str, key: &[u8], error: rusqlite::Error) -> Error {
    if error.sqlite_error_code() != Some(rusqlite::ErrorCode::ConstraintViolation) {
        return failed(error);
    }
    let key = String::from_utf8_lossy(key).trim_end().to_owned();
    Error::Usage(format!("two rows {which} have the key {key}: name columns that tell them apart"))
}

fn failed(error: rusqlite::Error) -> Error {
    Error::Conflict(format!("the temporary database of rows: {error}"))
}
