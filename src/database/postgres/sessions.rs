//! Sessions that all see one exported snapshot, and tables read through them.

use std::io;
use std::sync::{Arc, Mutex};

use super::client::Client;
use super::dsn::Dsn;
use super::error::PgError;
use super::inspect::{self, Relation, literal, quote};
use super::locks;
use crate::catalogue::{Encoding, Table};
use crate::source::{Stopper, StreamInput};

/// Sessions under one snapshot. All are opened at once, with locks of their own on all tables: one that is
/// taken later would wait behind a session that wants to change the table, and that one for us.
pub struct Sessions {
    dsn: Dsn,
    snapshot: String,
    idle: Mutex<Vec<Client>>,
}

impl Sessions {
    /// Opens sessions that see this snapshot, to read these tables.
    pub fn open(
        dsn: Dsn,
        snapshot: String,
        tables: &[Relation],
        count: usize,
    ) -> Result<Self, PgError> {
        let sessions = Self { dsn, snapshot, idle: Mutex::default() };
        for _ in 0..count.min(tables.len()) {
            let mut client = sessions.connect()?;
            match locks::take(&mut client, tables) {
                Ok(()) => {}
                // 53200: the server has no room for so many locks. Each table is locked when it is read.
                Err(error) if error.code() == "53200" => client = sessions.connect()?,
                Err(error) => {
                    return Err(locks::explain(&mut client, error, locks::BEHIND_OTHERS));
                }
            }
            sessions.give_back(client);
        }
        Ok(sessions)
    }

    fn connect(&self) -> Result<Client, PgError> {
        let mut client = Client::connect(&self.dsn)?;
        inspect::prepare(&mut client)?;
        locks::set_timeout(&mut client, locks::BEHIND_OTHERS)?;
        client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        client.query(&format!("SET TRANSACTION SNAPSHOT {}", literal(&self.snapshot)))?;
        Ok(client)
    }

    fn take(&self) -> Result<Client, PgError> {
        let idle = self.idle.lock().expect("no panics here").pop();
        idle.map_or_else(|| self.connect(), Ok)
    }

    fn give_back(&self, client: Client) {
        self.idle.lock().expect("no panics here").push(client);
    }
}

/// The rows of one table, in text format.
pub struct TableInput {
    sessions: Arc<Sessions>,
    client: Option<Client>,
    table: Table,
    hasher: blake3::Hasher,
    lines: u64,
    done: Arc<Mutex<Vec<Table>>>,
}

/// The command that reads a table.
pub fn copy_command(relation: &Relation, in_key_order: bool) -> String {
    let columns: Vec<String> = relation.columns.iter().map(|column| quote(column)).collect();
    if columns.is_empty() {
        // Rows without columns: as pg_dump does.
        return format!("COPY {} TO STDOUT", relation.quoted());
    }
    let (columns, table) = (columns.join(", "), relation.quoted());
    if !in_key_order {
        return format!("COPY {table} ({columns}) TO STDOUT");
    }
    let key: Vec<String> = relation.key.iter().map(|column| quote(column)).collect();
    let key = key.join(", ");
    format!("COPY (SELECT {columns} FROM ONLY {table} ORDER BY {key}) TO STDOUT")
}

impl TableInput {
    /// Begins to read a table. When it was read to its end, it is added to `done`.
    pub fn start(
        sessions: Arc<Sessions>,
        relation: &Relation,
        in_key_order: bool,
        stream: String,
        done: Arc<Mutex<Vec<Table>>>,
    ) -> Result<Self, PgError> {
        let mut client = sessions.take()?;
        let started = client.copy_out(&copy_command(relation, in_key_order));
        started.map_err(|error| locks::explain(&mut client, error, locks::BEHIND_OTHERS))?;
        let table = Table {
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            columns: relation.columns.clone(),
            key: relation.key.clone(),
            in_key_order,
            stream,
            encoding: Encoding::Copy,
            ..Table::default()
        };
        let hasher = blake3::Hasher::new();
        Ok(Self { sessions, client: Some(client), table, hasher, lines: 0, done })
    }
}

impl StreamInput for TableInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(client) = &mut self.client else { return Ok(0) };
        let count = client.copy_read(buffer).map_err(|error| match error {
            PgError::Io(error) => error,
            other => io::Error::other(other),
        })?;
        self.hasher.update(&buffer[..count]);
        self.lines += memchr::memchr_iter(b'\n', &buffer[..count]).count() as u64;
        self.table.bytes += count as u64;
        Ok(count)
    }

    fn finish(&mut self) -> Result<(), String> {
        let Some(mut client) = self.client.take() else { return Err("was read already".into()) };
        self.table.rows = client.copy_end().map_err(|error| error.to_string())?;
        if self.lines != self.table.rows {
            let (lines, rows) = (self.lines, self.table.rows);
            return Err(format!("the server sent {lines} rows and says that it sent {rows}"));
        }
        self.table.rows_hash = self.hasher.finalize().to_hex().to_string();
        self.done.lock().expect("no panics here").push(std::mem::take(&mut self.table));
        self.sessions.give_back(client);
        Ok(())
    }

    fn stopper(&self) -> Option<Stopper> {
        let socket = self.client.as_ref()?.handle().ok()?;
        Some(Stopper::Socket(socket))
    }
}
