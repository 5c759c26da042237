//! The streams of a PostgreSQL database, all under one exported snapshot.
//!
//! `tables`: one stream for each permanent table with a primary key, its rows in the order of the
//! key, and `pg_dump -Fc -Z0` for everything else. `dump`: one `pg_dump -Fc -Z0`.

use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::client::Client;
use super::dsn::Dsn;
use super::error::PgError;
use super::inspect::{self, Relation, quote};
use super::sessions::{Sessions, TableInput};
use super::tools::{self, Tools};
use crate::backup::{ClosingStream, StreamSource};
use crate::catalogue::{Catalogue, Extension, Mode, Position, Table};
use crate::database::pattern::Patterns;
use crate::database::scan::{Found, ScanInput};
use crate::database::{Prepared, Surroundings, source_error, stream_part, stream_prefix};
use crate::error::Result;
use crate::format::name::Name;
use crate::format::snapshot::SourceRef;
use crate::settings::{PostgresConfig, PostgresMode, RowOrder};
use crate::source::command::CommandInput;
use crate::source::lazy::LazyInput;

/// Tables that are larger and whose rows lie in another order than the key's are read as they lie,
/// with `order = "auto"`: sorting them would fill the server's disk.
const MAX_SORTED_BYTES: u64 = 8 << 30;
/// How well rows must lie in the order of the key, of 1000, for a large table to be read by it.
const IN_ORDER: u32 = 900;

/// Opens the session whose snapshot everybody shares, and says what is to be read.
pub fn prepare(
    name: &str,
    config: &PostgresConfig,
    surroundings: &Surroundings,
) -> Result<Prepared> {
    let failed = |error: &dyn std::fmt::Display| source_error(name, error);
    let dsn = dsn(name, config, surroundings)?;
    let client = Client::connect(&dsn).map_err(|error| failed(&error))?;
    let version = client.parameter("server_version").to_owned();
    let path = surroundings.path.as_deref();
    let tools = tools::choose(config.bin_dir.as_deref(), path, &version);
    let tools = tools.map_err(|error| failed(&error))?;
    let view = View::open(client).map_err(|error| failed(&error))?;
    let plan = Plan { name: name.to_owned(), dsn, tools, view, config: config.clone() };
    let warnings = plan.check().map_err(|error| failed(&error))?;
    let tables = Arc::new(Mutex::new(Vec::new()));
    let archive = Found::default();
    let mut streams = vec![plan.archive_stream(archive.clone())?];
    if config.mode == PostgresMode::Tables {
        streams.extend(plan.table_streams(&tables));
    }
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
    Ok(dsn.with_password(surroundings.password(config.password.as_ref())?))
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
    fn open(mut client: Client) -> Result<Self, PgError> {
        inspect::prepare(&mut client)?;
        let mut attempts = 0;
        let (snapshot, relations) = loop {
            let seen = inspect::relations(&mut client)?;
            client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
            attempts += 1;
            match lock(&mut client, &seen) {
                Ok(()) => {}
                // 42P01, 3F000: it was dropped meanwhile.
                Err(error) if matches!(error.code(), "42P01" | "3F000") && attempts < ATTEMPTS => {
                    client.query("ROLLBACK")?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let snapshot = client.value("SELECT pg_catalog.pg_export_snapshot()")?;
            let relations = inspect::relations(&mut client)?;
            let files = |all: &[Relation]| -> Vec<(u64, u64)> {
                all.iter().map(|it| (it.oid, it.file)).collect()
            };
            if files(&seen) == files(&relations) {
                break (snapshot, relations);
            }
            if attempts == ATTEMPTS {
                let text = "tables are made, dropped or rewritten all the time: none of several \
                            tries found them at rest";
                return Err(PgError::Protocol(text.into()));
            }
            client.query("ROLLBACK")?;
        };
        let position = inspect::position(&mut client, snapshot)?;
        let extensions = inspect::extensions(&mut client)?;
        let bytes = client.value("SELECT pg_database_size(current_database())")?;
        let database_bytes = bytes.parse().unwrap_or(0);
        let encoding = client.value("SHOW server_encoding")?;
        Ok(Self { client, position, relations, extensions, database_bytes, encoding })
    }
}

/// How often the list of tables is looked at until it is the same before and after the locks.
const ATTEMPTS: usize = 5;

/// Keeps tables from being dropped, emptied or changed while they are read. A lock needs no snapshot.
/// Materialised views cannot be locked; `pg_dump` reads none of their rows.
fn lock(client: &mut Client, tables: &[Relation]) -> Result<(), PgError> {
    let tables: Vec<&Relation> =
        tables.iter().filter(|it| it.is_readable && it.is_lockable).collect();
    for some in tables.chunks(100) {
        let names: Vec<String> = some.iter().map(|it| it.quoted()).collect();
        let names = names.join(", ONLY ");
        client.query(&format!("LOCK TABLE ONLY {names} IN ACCESS SHARE MODE"))?;
    }
    Ok(())
}

/// What is read and how.
struct Plan {
    name: String,
    dsn: Dsn,
    tools: Tools,
    view: View,
    config: PostgresConfig,
}

impl Plan {
    fn stream(&self, part: &str) -> Name {
        Name::new(format!("{}/{part}", stream_prefix(&self.name)))
    }

    /// Whether a table's rows are wanted.
    fn has_data(&self, relation: &Relation) -> bool {
        let (schema, name) = (&relation.schema, &relation.name);
        let fit = |patterns: &[String]| Patterns::new(patterns).fit(schema, name);
        let config = &self.config;
        (config.tables.is_empty() || fit(&config.tables)) && !fit(&config.exclude_data)
    }

    /// Tables that are read by sessions of our own.
    fn own(&self) -> Vec<Relation> {
        let relations = self.view.relations.iter();
        let own = relations.filter(|it| it.is_plain && !it.key.is_empty() && self.has_data(it));
        own.cloned().collect()
    }

    /// Refuses what cannot work before anything is read.
    fn check(&self) -> Result<Vec<String>, String> {
        let mut warnings = Vec::new();
        let all = self.view.relations.iter().map(|it| (it.schema.as_str(), it.name.as_str()));
        let config = &self.config;
        for (option, patterns) in
            [("tables", &config.tables), ("exclude_data", &config.exclude_data)]
        {
            if let Some(pattern) = Patterns::new(patterns).unused(all.clone()) {
                let text = format!("{option}: '{pattern}' fits no table of the database");
                if option == "tables" {
                    return Err(text);
                }
                warnings.push(text);
            }
        }
        let wanted: Vec<Relation> =
            self.view.relations.iter().filter(|it| self.has_data(it)).cloned().collect();
        if let Some(table) = wanted.iter().find(|it| !it.is_readable) {
            return Err(format!(
                "{} may not read {}: run GRANT pg_read_all_data TO {}",
                self.dsn.user(),
                table.full_name(),
                quote(self.dsn.user())
            ));
        }
        if let Some(table) = wanted.iter().find(|it| it.has_policies) {
            return Err(format!(
                "policies hide rows of {} from {}: run ALTER ROLE {} BYPASSRLS",
                table.full_name(),
                self.dsn.user(),
                quote(self.dsn.user())
            ));
        }
        Ok(warnings)
    }

    fn command(&self, program: &str) -> Command {
        self.dsn.command(&self.tools.program(program))
    }

    /// `pg_dump` for what our own sessions do not read.
    fn archive_stream(&self, found: Found) -> Result<StreamSource> {
        let mut command = self.command("pg_dump");
        command.args(["--format=custom", "--compress=0", "--no-sync"]);
        // As our own sessions read, whatever the surroundings say.
        command.arg(format!("--encoding={}", self.view.encoding));
        command.arg("--snapshot").arg(&self.view.position.snapshot);
        // All definitions, so that what is restored is complete in itself; rows of what is wanted.
        let is_whole = self.config.mode == PostgresMode::Dump;
        for relation in &self.view.relations {
            let is_ours = !is_whole && relation.is_plain && !relation.key.is_empty();
            if is_ours || !self.has_data(relation) {
                command.arg("--exclude-table-data").arg(relation.quoted());
            }
        }
        let name = self.stream(if is_whole { "database.dump" } else { "rest.dump" });
        let stream = name.to_string();
        let input = LazyInput::new(move || {
            let input = CommandInput::start_quiet(command);
            let input = input.map_err(|error| format!("start pg_dump: {error}"))?;
            Ok(Box::new(ScanInput::new(Box::new(input), &stream, found)))
        });
        Ok(StreamSource { name, input: Box::new(input), min_bytes: 1 })
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
    fn table_streams(&self, done: &Arc<Mutex<Vec<Table>>>) -> Vec<StreamSource> {
        let snapshot = self.view.position.snapshot.clone();
        let sessions = Arc::new(Sessions::new(self.dsn.clone(), snapshot));
        let mut own = self.own();
        own.sort_by_key(|relation| std::cmp::Reverse(relation.bytes));
        let stream = |relation: Relation| {
            let part = format!("tables/{}", stream_part(&relation.full_name()));
            let name = self.stream(&part);
            let in_order = is_read_in_key_order(self.config.order, &relation);
            let (sessions, done, text) = (sessions.clone(), done.clone(), name.to_string());
            let input = LazyInput::new(move || {
                let input = TableInput::start(sessions, &relation, in_order, text, done);
                Ok(Box::new(input.map_err(|error| error.to_string())?))
            });
            StreamSource { name, input: Box::new(input), min_bytes: 0 }
        };
        own.into_iter().map(stream).collect()
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
        merge(&mut catalogue.tables, std::mem::take(&mut tables.lock().expect("no panics here")));
        for table in &mut catalogue.tables {
            if let Some(known) = self
                .view
                .relations
                .iter()
                .find(|it| it.schema == table.schema && it.name == table.name)
            {
                table.key.clone_from(&known.key);
            }
        }
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

/// Puts our own tables in the place of those that the archive has no rows of.
fn merge(all: &mut Vec<Table>, own: Vec<Table>) {
    for mut table in own {
        let same = |it: &&mut Table| it.schema == table.schema && it.name == table.name;
        match all.iter_mut().find(same) {
            Some(known) => {
                table.schema_hash = std::mem::take(&mut known.schema_hash);
                *known = table;
            }
            None => all.push(table),
        }
    }
    all.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
}
