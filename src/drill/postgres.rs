//! Restoring into a PostgreSQL server that is made for it.

use std::time::Instant;

use super::engine::{self, Ask};
use super::scratch::{RunAs, Scratch};
use super::{Check, Drill, FailureKind, Report, Stop, add_phase, phase};
use crate::catalogue::{Catalogue, Mode, Table};
use crate::database::leftover;
use crate::database::postgres::client::Client;
use crate::database::postgres::dsn::Dsn;
use crate::database::postgres::error::PgError;
use crate::database::postgres::inspect::{literal, quote};
use crate::database::postgres::restore::{Origin, RestoreOptions, execute, plan};
use crate::database::postgres::sql;
use crate::database::postgres::tools::{self, Tools};
use crate::error::Error;
use crate::restore::{WriterTarget, copy_stream};

/// Bytes of roles that are looked through.
const MAX_GLOBALS: u64 = 64 << 20;

/// Holds a drill of a PostgreSQL database.
pub fn hold(drill: &Drill<'_>, catalogue: &Catalogue, report: &mut Report) -> Result<(), Stop> {
    let origin =
        Origin { repository: drill.repository, snapshot: &drill.snapshot.snapshot, catalogue };
    let roles = phase(report, "fetch", || roles(&origin))?;
    let mut server = phase(report, "start", || Server::start(drill, catalogue))?;
    report.server_version = server.version.clone();
    server.make_roles(&roles)?;
    let mut options = RestoreOptions::new(server.dsn.clone().stopped_by(drill.progress));
    options.database = Some(server.database.clone());
    options.create = true;
    options.no_tablespaces = true;
    // A server of others has its own roles.
    options.no_owner = drill.config.scratch.is_some();
    options.jobs = drill.config.jobs;
    options.bin_dir = drill.config.bin_dir.clone();
    let held = restore(drill, &origin, &options, &mut server, report).and_then(|()| {
        let started = Instant::now();
        let checked = server.check(drill, catalogue, report);
        add_phase(report, "check", started.elapsed().as_secs_f64());
        checked
    });
    let cleared = server.clear();
    held.and(cleared)
}

fn restore(
    drill: &Drill<'_>,
    origin: &Origin<'_>,
    options: &RestoreOptions,
    server: &mut Server,
    report: &mut Report,
) -> Result<(), Stop> {
    let failed = |error: Error| Stop::during(FailureKind::Restore, error);
    if origin.catalogue.mode == Mode::Sql {
        return restore_sql(drill, origin, options, server, report);
    }
    let started = Instant::now();
    let plan = plan(origin, options, drill.surroundings).map_err(failed)?;
    add_phase(report, "fetch", started.elapsed().as_secs_f64());
    server.is_made = true;
    let restored = execute(origin, &plan, options, drill.surroundings, drill.progress);
    let restored = restored.map_err(failed)?;
    for (name, seconds) in &restored.phases {
        add_phase(report, if *name == "keys" { "recover" } else { "load" }, *seconds);
    }
    report.bytes = restored.bytes;
    Ok(())
}

/// A plain dump goes through psql.
fn restore_sql(
    drill: &Drill<'_>,
    origin: &Origin<'_>,
    options: &RestoreOptions,
    server: &mut Server,
    report: &mut Report,
) -> Result<(), Stop> {
    let failed = |error: Error| Stop::during(FailureKind::Restore, error);
    let mut client =
        Client::connect(&server.dsn).map_err(|e| Stop::failed(FailureKind::Start, e))?;
    let made = client.query(&format!("CREATE DATABASE {}", quote(&server.database)));
    made.map_err(|error| Stop::failed(FailureKind::Restore, error))?;
    server.is_made = true;
    let options = RestoreOptions { create: false, no_owner: false, ..options.clone() };
    let plan = sql::plan(origin, &options, drill.surroundings).map_err(failed)?;
    phase(report, "load", || {
        sql::restore(origin, &plan, &options, drill.progress).map_err(failed)
    })?;
    let stream = origin.snapshot.stream(origin.catalogue.schema_stream.as_bytes());
    report.bytes = stream.map_or(0, |stream| stream.size);
    Ok(())
}

/// The commands that make the roles of the snapshot, without passwords and memberships.
fn roles(origin: &Origin<'_>) -> Result<Vec<String>, Stop> {
    let name = origin.catalogue.globals_stream.as_bytes();
    // Superusers all: some objects can have no other owner, and nobody but us gets there.
    let command = |role: &String| format!("CREATE ROLE {} SUPERUSER", quote(role));
    let mut commands: Vec<String> = origin.catalogue.roles.iter().map(command).collect();
    let Some(stream) = origin.snapshot.stream(name).filter(|it| it.size <= MAX_GLOBALS) else {
        return Ok(commands);
    };
    let mut target = WriterTarget { writer: Vec::new(), name: "memory".into() };
    copy_stream(origin.repository, stream, &mut target, &Default::default())
        .map_err(|error| Stop::during(FailureKind::Damaged, error))?;
    let text = String::from_utf8_lossy(&target.writer).into_owned();
    // Nothing but these: tablespaces of the live server must not be touched.
    let roles = text.lines().filter(|line| line.starts_with("CREATE ROLE "));
    // A name with a line break in it stands on several; what owns or may do something was named above.
    let whole = roles.filter(|line| line.ends_with(';') && line.matches('"').count() % 2 == 0);
    commands.extend(whole.map(|line| format!("{} SUPERUSER", line.trim_end_matches(';'))));
    Ok(commands)
}

/// A server, and the database of the drill in it.
struct Server {
    dsn: Dsn,
    database: String,
    version: String,
    /// The database may be there and must be dropped, where the server goes on.
    is_made: bool,
    _scratch: Option<Scratch>,
}

impl Server {
    fn start(drill: &Drill<'_>, catalogue: &Catalogue) -> Result<Self, Stop> {
        let random = crate::entropy::random::<4>(&*drill.repository.environment().entropy);
        let database = format!("{}{}", own_prefix(), hex::encode(random));
        let (dsn, scratch) = match &drill.config.scratch {
            Some(address) => (named_scratch(drill, address)?, None),
            None => {
                let (dsn, scratch) = cluster(drill, catalogue)?;
                (dsn, Some(scratch))
            }
        };
        let mut client = Client::connect(&dsn).map_err(|e| Stop::failed(FailureKind::Start, e))?;
        refuse_source(&mut client, &dsn, catalogue)?;
        if scratch.is_none() {
            clear_left(&mut client);
        }
        let version = client.parameter("server_version").to_owned();
        Ok(Self { dsn, database, version, is_made: false, _scratch: scratch })
    }

    fn make_roles(&self, roles: &[String]) -> Result<(), Stop> {
        if self._scratch.is_none() {
            // On a server of others no roles are made: it has what it has.
            return Ok(());
        }
        let failed = |error| Stop::failed(FailureKind::Restore, error);
        let mut client = Client::connect(&self.dsn).map_err(failed)?;
        for role in roles {
            match client.query(role) {
                // 42710: it is there already; 42939: the name is the server's own.
                Err(error) if !matches!(error.code(), "42710" | "42939") => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check(
        &self,
        drill: &Drill<'_>,
        catalogue: &Catalogue,
        report: &mut Report,
    ) -> Result<(), Stop> {
        let dsn = self.dsn.clone().with_database(&self.database).stopped_by(drill.progress);
        let client = Client::connect(&dsn);
        let client = client.map_err(|error| Stop::failed(FailureKind::Restore, error))?;
        let mut database = Database(client);
        // Assertions see tables as sessions of users do, but take as long as they like.
        let reset = database.0.query(
            "SET client_encoding = 'UTF8'; SET statement_timeout = 0; SET lock_timeout = 0;
             SET default_transaction_read_only = off; RESET search_path",
        );
        reset.map_err(|error| Stop::failed(FailureKind::Restore, error))?;
        integrity(&mut database.0, report)?;
        engine::check(drill, catalogue, &mut database, report)
    }
}

impl Server {
    /// Drops the database on a server that goes on; one of our own goes with its folder.
    fn clear(&mut self) -> Result<(), Stop> {
        if self._scratch.is_some() || !std::mem::take(&mut self.is_made) {
            return Ok(());
        }
        let failed = |error| Stop::failed(FailureKind::Restore, error);
        let mut client = Client::connect(&self.dsn).map_err(failed)?;
        drop_database(&self.dsn, &mut client, &self.database).map_err(failed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

/// Drops a database with its subscriptions, which keep it from being dropped.
fn drop_database(dsn: &Dsn, client: &mut Client, database: &str) -> Result<(), PgError> {
    let subscriptions = client.query(&format!(
        "SELECT subname FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d
           ON d.oid = s.subdbid WHERE d.datname = {}",
        literal(database)
    ))?;
    if !subscriptions.is_empty() {
        let mut inside = Client::connect(&dsn.clone().with_database(database))?;
        for name in subscriptions.iter().flatten().flatten() {
            let name = quote(name);
            inside.query(&format!("ALTER SUBSCRIPTION {name} DISABLE"))?;
            inside.query(&format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"))?;
            inside.query(&format!("DROP SUBSCRIPTION {name}"))?;
        }
    }
    client.query(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote(database))).map(drop)
}

/// Databases of drills of this machine: a number that stands for the machine, one of the process, and a
/// random one.
const PREFIX: &str = "restow_drill_";

fn machine() -> String {
    let name = rustix::system::uname();
    blake3::hash(name.nodename().to_bytes()).to_hex()[..8].to_owned()
}

fn own_prefix() -> String {
    format!("{PREFIX}{}_{}_", machine(), std::process::id())
}

/// Drops databases of drills of this machine that were killed.
fn clear_left(client: &mut Client) {
    let prefix = format!("{PREFIX}{}_", machine());
    let names = client.query("SELECT datname FROM pg_catalog.pg_database").unwrap_or_default();
    for name in names.iter().flatten().flatten() {
        let rest = name.strip_prefix(&prefix).and_then(|rest| rest.split_once('_'));
        let process = rest.and_then(|(number, _)| number.parse().ok());
        if process.is_some_and(leftover::is_dead) {
            let _ = client.query(&format!("DROP DATABASE IF EXISTS {}", quote(name)));
        }
    }
}

fn named_scratch(drill: &Drill<'_>, address: &str) -> Result<Dsn, Stop> {
    let usage = |text: String| Stop::Error(Error::Usage(format!("scratch: {text}")));
    let dsn = Dsn::parse(address, &*drill.surroundings.variables).map_err(usage)?;
    let password = drill.surroundings.password(drill.config.password.as_ref());
    Ok(dsn.with_password(password.map_err(Stop::Error)?))
}

/// A scratch address must not be that of the source.
fn refuse_source(client: &mut Client, dsn: &Dsn, catalogue: &Catalogue) -> Result<(), Stop> {
    let id = client.value("SELECT system_identifier FROM pg_catalog.pg_control_system()");
    let is_same = id.is_ok_and(|id| !id.is_empty() && id == catalogue.position.system_id);
    if is_same && dsn.database() == catalogue.database {
        let text = format!("scratch names the source itself ({})", dsn.address());
        return Err(Stop::Error(Error::Conflict(text)));
    }
    Ok(())
}

/// Makes a cluster with a socket in its own folder and starts it.
fn cluster(drill: &Drill<'_>, catalogue: &Catalogue) -> Result<(Dsn, Scratch), Stop> {
    let none = |error: String| Stop::failed(FailureKind::NoServer, error);
    let tools = server_tools(drill, catalogue).map_err(none)?;
    let run_as = RunAs::nobody().map_err(none)?;
    let scratch = Scratch::make(&drill.surroundings.temporary, run_as).map_err(none)?;
    let start = |error: String| Stop::failed(FailureKind::Start, error);
    let mut scratch = scratch;
    let data = scratch.folder().join("data");
    let mut initdb = scratch.command(&tools.program("initdb"));
    initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-N", "-k"]);
    initdb.args(["--locale=C", "--encoding=UTF8"]);
    scratch.run(initdb).map_err(start)?;
    let mut server = scratch.command(&tools.program("postgres"));
    server.arg("-D").arg(&data).arg("-k").arg(scratch.folder());
    for setting in [
        "listen_addresses=",
        "port=5432",
        "archive_mode=off",
        "fsync=off",
        "full_page_writes=off",
        "wal_level=minimal",
        "max_wal_senders=0",
        "max_wal_size=4GB",
        "autovacuum=off",
        "maintenance_work_mem=256MB",
        "synchronous_commit=off",
    ] {
        server.arg("-c").arg(setting);
    }
    let place = scratch.folder().display().to_string();
    let text = format!("host='{place}' port=5432 user=postgres dbname=postgres sslmode=disable");
    let dsn = Dsn::parse(&text, &|_| None).map_err(start)?;
    let up = dsn.clone();
    scratch.serve(server, drill.progress, || Client::connect(&up).is_ok()).map_err(start)?;
    Ok((dsn, scratch))
}

/// Programs of a server that takes the snapshot.
fn server_tools(drill: &Drill<'_>, catalogue: &Catalogue) -> Result<Tools, String> {
    let has_server =
        |tools: &Tools| tools.program("initdb").is_file() && tools.program("postgres").is_file();
    if let Some(folder) = &drill.config.bin_dir {
        let tools = Tools::of(folder).filter(has_server);
        return tools.ok_or_else(|| format!("no PostgreSQL server in {}", folder.display()));
    }
    let wanted = tools::major(&catalogue.server_version).unwrap_or(0);
    let path = drill.surroundings.path.as_deref();
    let mut found = tools::installed(path).into_iter().filter(has_server);
    found.find(|tools| tools.major >= wanted).ok_or_else(|| {
        format!(
            "no PostgreSQL server of version {wanted} or newer is installed here: install postgresql-{wanted}, \
             name its folder as bin_dir, or a server as scratch"
        )
    })
}

/// The structure of all B-tree indexes, where the server can look at it. Pages were checked by their sums
/// when they were read.
fn integrity(client: &mut Client, report: &mut Report) -> Result<(), Stop> {
    if client.query("CREATE EXTENSION IF NOT EXISTS amcheck").is_err() {
        let detail =
            "the extension amcheck is not installed: indexes were not looked at".to_owned();
        report.checks.push(Check { what: "integrity".into(), detail });
        return Ok(());
    }
    let checked = client.query(
        "SELECT bt_index_check(i.indexrelid) FROM pg_catalog.pg_index i
         JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
         JOIN pg_catalog.pg_am a ON a.oid = c.relam
         WHERE a.amname = 'btree' AND c.relkind = 'i' AND i.indisready AND i.indisvalid
           AND c.relpersistence <> 't' AND c.relnamespace <> 'pg_catalog'::regnamespace",
    );
    let rows = checked.map_err(|error| Stop::failed(FailureKind::Integrity, error))?;
    let detail = format!("amcheck: {} indexes", rows.len());
    report.checks.push(Check { what: "integrity".into(), detail });
    Ok(())
}

struct Database(Client);

impl Ask for Database {
    fn ask(&mut self, sql: &str) -> Result<Option<String>, String> {
        let rows = self.0.query(sql).map_err(|error| error.to_string())?;
        Ok(rows
            .into_iter()
            .next()
            .and_then(|mut row| (!row.is_empty()).then(|| row.swap_remove(0))?))
    }

    fn count(&mut self, table: &Table) -> Result<Option<u64>, String> {
        let name = format!("{}.{}", quote(&table.schema), quote(&table.name));
        let there = self.ask(&format!("SELECT to_regclass({})", literal(&name)))?;
        if there.is_none() {
            return Ok(None);
        }
        let count = self.ask(&format!("SELECT count(*) FROM ONLY {name}"))?;
        Ok(count.and_then(|count| count.parse().ok()))
    }

    fn has_more(&mut self, table: &Table) -> Result<bool, String> {
        let name = format!("{}.{}", quote(&table.schema), quote(&table.name));
        let of_extension = format!(
            "SELECT true FROM pg_catalog.pg_depend WHERE deptype = 'e'
               AND classid = 'pg_catalog.pg_class'::pg_catalog.regclass
               AND objid = pg_catalog.to_regclass({})",
            literal(&name)
        );
        Ok(self.ask(&of_extension)?.is_some())
    }

    fn age(&self, sql: &str) -> String {
        let sql = sql.trim().trim_end_matches(';');
        format!("SELECT extract(epoch FROM now() - ({sql}))")
    }
}
