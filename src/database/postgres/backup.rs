//! The streams of a PostgreSQL database, all under one exported snapshot.
//!
//! `tables`: one stream for each permanent table with a primary key, its rows in the order of the
//! key, and `pg_dump -Fc -Z0` for everything else. `dump`: one `pg_dump -Fc -Z0`.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::NamedTempFile;

use super::check;
use super::client::Client;
use super::dsn::Dsn;
use super::dump;
use super::error::PgError;
use super::inspect::{self, Relation};
use super::locks;
use super::sessions::{Sessions, TableInput};
use super::tools::{self, Tools};
use crate::backup::{ClosingStream, StreamSource};
use crate::catalogue::{Catalogue, Extension, Mode, Position, Table};
use crate::database::probe::Finding;
use crate::database::scan::{Found, ScanInput};
use crate::database::{Prepared, Surroundings, leftover, source_error, stream_part, stream_prefix};
use crate::error::Result;
use crate::format::name::Name;
use crate::format::snapshot::SourceRef;
use crate::progress::Progress;
use crate::settings::{PostgresConfig, PostgresMode, RowOrder};
use crate::source::command::CommandInput;
use crate::source::lazy::LazyInput;
use crate::store::pause::{Patience, Pause};

/// Tables that are larger and whose rows lie in another order than the key's are read as they lie,
/// with `order = "auto"`: sorting them would fill the server's disk.
const MAX_SORTED_BYTES: u64 = 8 << 30;
/// How well rows must lie in the order of the key, of 1000, for a large table to be read by it.
const IN_ORDER: u32 = 900;
/// Bytes of names that are given to pg_dump as words: all its words may have two million on Linux.
const MAX_WORDS: usize = 1 << 20;
/// How long somebody who came between our locks has to get his own.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(200);

/// Opens the session whose snapshot everybody shares, and says what is to be read. Where somebody who wants to
/// change a table came between our locks, all are given up, so that he goes on, and taken again.
pub fn prepare(
    name: &str,
    config: &PostgresConfig,
    surroundings: &Surroundings,
) -> Result<Prepared> {
    let started = Instant::now();
    let progress = &surroundings.progress;
    let waiter = Patience::new(|| progress.is_interrupted());
    loop {
        let error = match attempt(name, config, surroundings) {
            Ok(prepared) => return Ok(prepared),
            Err(error) => error,
        };
        let is_over = !config.lock_timeout.is_zero() && started.elapsed() > config.lock_timeout;
        if !matches!(error, PgError::Between(_)) || is_over || !waiter.pause(BETWEEN_ATTEMPTS) {
            return Err(source_error(name, error));
        }
    }
}

fn attempt(
    name: &str,
    config: &PostgresConfig,
    surroundings: &Surroundings,
) -> Result<Prepared, PgError> {
    let dsn = dsn(name, config, surroundings).map_err(PgError::other)?;
    let client = Client::connect(&dsn)?;
    let version = client.parameter("server_version").to_owned();
    let path = surroundings.path.as_deref();
    let tools = tools::choose(config.bin_dir.as_deref(), path, &version);
    let tools = tools.map_err(PgError::Program)?;
    let view = View::open(client, config.lock_timeout)?;
    let temporary = surroundings.temporary.clone();
    let mut plan = Plan {
        name: name.to_owned(),
        dsn,
        tools,
        view,
        config: config.clone(),
        temporary,
        filter: None,
    };
    let warnings = plan.check()?;
    let between = |error: PgError| match error {
        PgError::Locked(text) => PgError::Between(text),
        other => other,
    };
    let tables = Arc::new(Mutex::new(Vec::new()));
    let archive = Found::default();
    let mut streams = Vec::new();
    if config.mode == PostgresMode::Tables {
        streams = plan.table_streams(&tables).map_err(between)?;
    }
    let dump = plan.archive_stream(archive.clone(), &surroundings.progress).map_err(between)?;
    streams.insert(0, dump);
    if config.globals {
        streams.push(plan.globals_stream());
    }
    let source = SourceRef {
        name: name.to_owned(),
        engine: "postgres".into(),
        server_version: version,
        restore: Vec::new(),
    };
    let closing = ClosingStream {
        name: plan.stream("catalogue.json"),
        make: Box::new(move || plan.catalogue(&archive, &tables)),
    };
    Ok(Prepared { streams, jobs: config.jobs.max(1), closing: Some(closing), source, warnings })
}

/// The connection of a source.
pub fn dsn(name: &str, config: &PostgresConfig, surroundings: &Surroundings) -> Result<Dsn> {
    let dsn = Dsn::parse(&config.dsn, &*surroundings.variables);
    let dsn = dsn.map_err(|error| source_error(name, format!("dsn: {error}")))?;
    let dsn = dsn.with_password(surroundings.password(config.password.as_ref())?);
    Ok(dsn.stopped_by(&surroundings.progress))
}

/// A session that keeps a snapshot, and what it sees.
struct View {
    client: Client,
    position: Position,
    relations: Vec<Relation>,
    extensions: Vec<Extension>,
    database_bytes: u64,
    encoding: String,
}

impl View {
    /// Locks all tables, then takes the snapshot: what somebody empties or rewrites in between would look
    /// empty to a snapshot that is older than the lock.
    fn open(mut client: Client, patience: Duration) -> Result<Self, PgError> {
        inspect::prepare(&mut client)?;
        locks::set_timeout(&mut client, patience)?;
        let explain = |client: &mut Client, error| locks::explain(client, error, patience);
        for _ in 0..ATTEMPTS {
            // Asking for the size of a table waits for its lock already.
            let seen = inspect::relations(&mut client).map_err(|it| explain(&mut client, it))?;
            client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
            locks::take_those_left(&mut client, &seen).map_err(|it| explain(&mut client, it))?;
            let snapshot = client.value("SELECT pg_catalog.pg_export_snapshot()")?;
            let relations = inspect::relations(&mut client)?;
            // Made between the locks and the snapshot.
            let known: HashSet<u64> = seen.iter().map(|it| it.oid).collect();
            let is_new = |it: &&Relation| !known.contains(&it.oid);
            let late: Vec<Relation> = relations.iter().filter(is_new).cloned().collect();
            locks::take_those_left(&mut client, &late).map_err(|it| explain(&mut client, it))?;
            let relations = match late.is_empty() {
                true => relations,
                false => inspect::relations(&mut client)?,
            };
            if !relations.iter().any(|it| it.is_rewritten && it.is_lockable) {
                return Self::of(client, snapshot, relations);
            }
            client.query("ROLLBACK")?;
        }
        let text = "tables are made, dropped and rewritten all the time: none of many tries found them at \
                    rest";
        Err(PgError::Protocol(text.into()))
    }

    fn of(mut client: Client, snapshot: String, relations: Vec<Relation>) -> Result<Self, PgError> {
        let position = inspect::position(&mut client, snapshot)?;
        let extensions = inspect::extensions(&mut client)?;
        let bytes = client.value("SELECT pg_database_size(current_database())")?;
        let database_bytes = bytes.parse().unwrap_or(0);
        let encoding = client.value("SHOW server_encoding")?;
        Ok(Self { client, position, relations, extensions, database_bytes, encoding })
    }
}

/// How often the tables are locked and looked at until none changed in between.
const ATTEMPTS: usize = 50;

/// What is read and how.
struct Plan {
    name: String,
    dsn: Dsn,
    tools: Tools,
    view: View,
    config: PostgresConfig,
    temporary: PathBuf,
    /// What pg_dump leaves out, where that is a file.
    filter: Option<NamedTempFile>,
}

impl Plan {
    fn stream(&self, part: &str) -> Name {
        Name::new(format!("{}/{part}", stream_prefix(&self.name)))
    }

    /// Whether a table's rows are wanted.
    fn has_data(&self, relation: &Relation) -> bool {
        check::is_wanted(&self.config, relation)
    }

    /// Tables that are read by sessions of our own.
    fn own(&self) -> Vec<Relation> {
        let relations = self.view.relations.iter();
        let own = relations.filter(|it| it.is_plain && !it.key.is_empty() && self.has_data(it));
        own.cloned().collect()
    }

    /// Refuses what cannot work before anything is read.
    fn check(&mut self) -> Result<Vec<String>, PgError> {
        let View { client, relations, .. } = &mut self.view;
        let found = check::look(client, self.dsn.user(), relations, &self.config);
        let mut warnings = Vec::new();
        for finding in found? {
            match finding {
                Finding::Problem { what } => return Err(PgError::Program(what)),
                Finding::Warning { what } => warnings.push(what),
                Finding::Fact { .. } => {}
            }
        }
        Ok(warnings)
    }

    fn command(&self, program: &str) -> Command {
        self.dsn.command(&self.tools.program(program))
    }

    /// `pg_dump` for what our own sessions do not read.
    fn archive_stream(
        &mut self,
        found: Found,
        progress: &Arc<Progress>,
    ) -> Result<StreamSource, PgError> {
        let mut command = self.command("pg_dump");
        command.args(["--format=custom", "--compress=0", "--no-sync"]);
        // As our own sessions read, whatever the surroundings say.
        command.arg(format!("--encoding={}", self.view.encoding));
        command.arg("--snapshot").arg(&self.view.position.snapshot);
        command.arg(format!("--lock-wait-timeout={}", locks::BEHIND_OTHERS.as_millis()));
        // Times look the same wherever the server stands.
        command.env("PGTZ", "UTC");
        // All definitions, so that what is restored is complete in itself; rows of what is wanted.
        let is_whole = self.config.mode == PostgresMode::Dump;
        let is_ours = |it: &&Relation| !is_whole && it.is_plain && !it.key.is_empty();
        let relations = self.view.relations.iter();
        let left_out = relations.filter(|it| is_ours(it) || !self.has_data(it));
        let left_out: Vec<String> = left_out.map(Relation::quoted).collect();
        self.leave_out(&mut command, &left_out)?;
        let name = self.stream(if is_whole { "database.dump" } else { "rest.dump" });
        let input = dump::start(command, &mut self.view.client, progress)?;
        let input = ScanInput::new(Box::new(input), &name.to_string(), found);
        Ok(StreamSource { name, input: Box::new(input), min_bytes: 1 })
    }

    /// Has pg_dump leave out the rows of these tables: by words, or where they are too many by a file, which
    /// pg_dump takes from 17 on.
    fn leave_out(&mut self, command: &mut Command, tables: &[String]) -> Result<(), PgError> {
        let bytes: usize = tables.iter().map(String::len).sum();
        if bytes < MAX_WORDS || self.tools.major < 17 {
            for table in tables {
                command.arg("--exclude-table-data").arg(table);
            }
            return Ok(());
        }
        let lines: Vec<String> =
            tables.iter().map(|table| format!("exclude table_data {table}\n")).collect();
        let mut file = leftover::file(&self.temporary, "restow-filter-")?;
        file.write_all(lines.concat().as_bytes())?;
        command.arg("--filter").arg(file.path());
        self.filter = Some(file);
        Ok(())
    }

    fn globals_stream(&self) -> StreamSource {
        let mut command = self.command("pg_dumpall");
        command.args(["--globals-only", "--no-sync"]);
        if !self.view.is_superuser() {
            command.arg("--no-role-passwords");
        }
        let input = LazyInput::new(move || {
            let input = CommandInput::start_quiet(command);
            Ok(Box::new(input.map_err(|error| format!("start pg_dumpall: {error}"))?))
        });
        StreamSource { name: self.stream("globals.sql"), input: Box::new(input), min_bytes: 1 }
    }

    /// A stream for each table of our own, the largest first.
    fn table_streams(&self, done: &Arc<Mutex<Vec<Table>>>) -> Result<Vec<StreamSource>, PgError> {
        let snapshot = self.view.position.snapshot.clone();
        let mut own = self.own();
        let count = self.config.jobs.clamp(1, own.len().max(1));
        let sessions = Sessions::open(self.dsn.clone(), snapshot, &own, count)?;
        let sessions = Arc::new(sessions);
        own.sort_by_key(|relation| std::cmp::Reverse(relation.bytes));
        let stream = |relation: Relation| {
            // A dot in a name is not the one between two names.
            let [schema, table] =
                [&relation.schema, &relation.name].map(|it| stream_part(it).replace('.', "%2e"));
            let part = format!("tables/{schema}.{table}");
            let name = self.stream(&part);
            let in_order = is_read_in_key_order(self.config.order, &relation);
            let (sessions, done, text) = (sessions.clone(), done.clone(), name.to_string());
            let input = LazyInput::new(move || {
                let input = TableInput::start(sessions, &relation, in_order, text, done);
                Ok(Box::new(input.map_err(|error| error.to_string())?))
            });
            StreamSource { name, input: Box::new(input), min_bytes: 0 }
        };
        Ok(own.into_iter().map(stream).collect())
    }

    /// The catalogue, when everything was read: what `pg_dump` told, and our own tables.
    fn catalogue(
        mut self,
        archive: &Mutex<Option<crate::catalogue::Scanned>>,
        tables: &Mutex<Vec<Table>>,
    ) -> Result<Option<Bytes>> {
        // The session that keeps the snapshot and the locks must have lived through all of it.
        let alive = self.view.client.query("COMMIT");
        alive
            .map_err(|error| source_error(&self.name, format!("the snapshot was lost: {error}")))?;
        let scanned = archive.lock().expect("no panics here").take();
        let scanned = scanned.ok_or_else(|| source_error(&self.name, "pg_dump gave no archive"))?;
        let is_whole = self.config.mode == PostgresMode::Dump;
        let mut catalogue = Catalogue {
            mode: if is_whole { Mode::Archive } else { Mode::Tables },
            server_version: self.view.client.parameter("server_version").to_owned(),
            database: self.dsn.database().to_owned(),
            tools: vec![format!("pg_dump {}", self.tools.version)],
            position: self.view.position.clone(),
            extensions: self.view.extensions.clone(),
            database_bytes: self.view.database_bytes,
            ..scanned.catalogue
        };
        if self.config.globals {
            catalogue.globals_stream = self.stream("globals.sql").to_string();
        }
        let own = std::mem::take(&mut *tables.lock().expect("no panics here"));
        catalogue.tables = merge(catalogue.tables, own, &self.view.relations);
        let text = serde_json::to_vec_pretty(&[catalogue]).expect("texts and numbers");
        Ok(Some(text.into()))
    }
}

impl View {
    fn is_superuser(&self) -> bool {
        self.client.parameter("is_superuser") == "on"
    }
}

fn is_read_in_key_order(order: RowOrder, relation: &Relation) -> bool {
    match order {
        RowOrder::Pk => true,
        RowOrder::Heap => false,
        RowOrder::Auto => relation.bytes <= MAX_SORTED_BYTES || relation.correlation >= IN_ORDER,
    }
}

/// Puts our own tables in the place of those that the archive has no rows of, and tells the keys of all.
fn merge(all: Vec<Table>, own: Vec<Table>, relations: &[Relation]) -> Vec<Table> {
    let named = |it: Table| ((it.schema.clone(), it.name.clone()), it);
    let mut merged: BTreeMap<(String, String), Table> = all.into_iter().map(named).collect();
    for (name, mut table) in own.into_iter().map(named) {
        if let Some(known) = merged.get(&name) {
            table.schema_hash.clone_from(&known.schema_hash);
        }
        merged.insert(name, table);
    }
    for known in relations {
        if let Some(table) = merged.get_mut(&(known.schema.clone(), known.name.clone())) {
            table.key.clone_from(&known.key);
        }
    }
    merged.into_values().collect()
}
