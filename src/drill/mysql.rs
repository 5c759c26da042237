//! Restoring into a MariaDB or MySQL server that is made for it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::engine::{self, Ask};
use super::scratch::{RunAs, Scratch};
use super::{Drill, FailureKind, Report, Stop, add_phase, phase};
use crate::catalogue::{Catalogue, Table};
use crate::database::mysql::{
    RestoreOptions, Session, databases_of, identifier, literal, plan_in, restore,
};
use crate::database::postgres::restore::Origin;
use crate::database::{Surroundings, find_program};
use crate::error::Error;
use crate::settings::MysqlConfig;

/// Nothing in the server is worth keeping. Versions that do not know an option pass over it.
const NO_SYNC: [&str; 2] = ["--loose-debug-no-sync", "--loose-innodb-flush-method=nosync"];

/// Holds a drill of MariaDB or MySQL.
pub fn hold(drill: &Drill<'_>, catalogue: &Catalogue, report: &mut Report) -> Result<(), Stop> {
    if drill.config.scratch.is_some() {
        let text = "drills of MariaDB and MySQL make their own server: leave out scratch";
        return Err(Stop::Error(Error::Usage(text.into())));
    }
    let (config, scratch) = phase(report, "start", || server(drill))?;
    let failed = |error: String| Stop::failed(FailureKind::Start, error);
    let open = || open(&config, drill.surroundings, scratch.launcher());
    let session = open().map_err(failed)?;
    report.server_version.clone_from(&session.version);
    let snapshot = &drill.snapshot.snapshot;
    let origin = Origin { repository: drill.repository, snapshot, catalogue };
    phase(report, "load", || {
        make_accounts(&session, catalogue)
            .map_err(|error| Stop::failed(FailureKind::Restore, error))?;
        // A dump that does not make its database itself goes into one of the same name.
        let create = catalogue.databases.is_empty();
        let options = RestoreOptions { create, ..RestoreOptions::default() };
        plan_in(&origin, open().map_err(failed)?, &options)
            .and_then(|plan| restore(&origin, plan, drill.progress))
            .map_err(|error| Stop::during(FailureKind::Restore, error))
    })?;
    report.bytes = catalogue.tables.iter().map(|table| table.bytes).sum();
    let started = Instant::now();
    let mut all = databases_of(catalogue).into_iter();
    let only = all.next().filter(|_| all.next().is_none()).unwrap_or_default();
    let mut database = Database { session, only };
    let checked = integrity(&database.session, catalogue)
        .and_then(|()| engine::check(drill, catalogue, &mut database, report));
    add_phase(report, "check", started.elapsed().as_secs_f64());
    checked
}

/// Programs that read what a dump holds, or loaded, run as the server does: nothing of ours is near.
fn open(
    config: &MysqlConfig,
    surroundings: &Surroundings,
    launcher: impl Fn(&Path) -> Command + Send + Sync + 'static,
) -> Result<Session, String> {
    let own = Surroundings {
        // The server is new: no password of another one is meant for it.
        variables: Box::new(|_| None),
        path: surroundings.path.clone(),
        temporary: surroundings.temporary.clone(),
        progress: surroundings.progress.clone(),
    };
    Session::open_by(config, &own, Some(Box::new(launcher)))
}

fn integrity(session: &Session, catalogue: &Catalogue) -> Result<(), Stop> {
    for table in &catalogue.tables {
        let name = quoted(table);
        let said = session.query(&format!("CHECK TABLE {name}"));
        let said = said.map_err(|error| Stop::failed(FailureKind::Integrity, error))?;
        // A note says that an engine has nothing to check.
        let is_good = |line: &String| line.ends_with("\tOK") || line.contains("\tnote\t");
        if !said.last().is_some_and(is_good) {
            let text = format!("{name}: {}", said.join("; "));
            return Err(Stop::failed(FailureKind::Integrity, text));
        }
    }
    Ok(())
}

/// The accounts that views, triggers and routines run as: without them they are there, but fail. Nobody
/// can log in by them: the server has no address but a socket in a private folder.
fn make_accounts(session: &Session, catalogue: &Catalogue) -> Result<(), String> {
    for role in &catalogue.roles {
        let (user, host) = role.rsplit_once('@').unwrap_or((role, "%"));
        let account = format!("{}@{}", literal(user), literal(host));
        session.query(&format!("CREATE USER IF NOT EXISTS {account}"))?;
        session.query(&format!("GRANT ALL ON *.* TO {account}"))?;
    }
    Ok(())
}

fn quoted(table: &Table) -> String {
    format!("{}.{}", identifier(&table.schema), identifier(&table.name))
}

/// Makes a server with a socket in its own folder and starts it.
fn server(drill: &Drill<'_>) -> Result<(MysqlConfig, Scratch), Stop> {
    let none = |error: String| Stop::failed(FailureKind::NoServer, error);
    let find = |name: &str| -> Option<PathBuf> {
        match &drill.config.bin_dir {
            Some(folder) => Some(folder.join(name)).filter(|path| path.is_file()),
            None => find_program(name, drill.surroundings).or_else(|| {
                Some(PathBuf::from("/usr/sbin").join(name)).filter(|path| path.is_file())
            }),
        }
    };
    let missing =
        |name: &str| none(format!("{name} is not installed here: install mariadb-server"));
    let daemon = find("mariadbd").or_else(|| find("mysqld")).ok_or_else(|| missing("mariadbd"))?;
    let install = find("mariadb-install-db");
    let run_as = RunAs::nobody().map_err(none)?;
    let scratch = Scratch::make(&drill.surroundings.temporary, run_as).map_err(none)?;
    let mut scratch = scratch.killed();
    let start = |error: String| Stop::failed(FailureKind::Start, error);
    let data = scratch.folder().join("data");
    match install {
        Some(install) => {
            let mut command = scratch.command(&install);
            command.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
            command.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
            command.args(NO_SYNC);
            // It grows when the server starts; to write it twice takes longer than all the rest.
            command.arg("--innodb-log-file-size=8M");
            scratch.run(command).map_err(start)?;
        }
        None => {
            let mut command = scratch.command(&daemon);
            command.arg("--no-defaults").arg("--initialize-insecure");
            command.arg(format!("--datadir={}", data.display()));
            scratch.run(command).map_err(start)?;
        }
    }
    let socket = scratch.folder().join("socket");
    let mut command = scratch.command(&daemon);
    command.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
    command.arg(format!("--socket={}", socket.display()));
    command.arg(format!("--pid-file={}", scratch.folder().join("server.pid").display()));
    command.args([
        "--max-allowed-packet=1G",
        "--skip-networking",
        "--innodb-flush-log-at-trx-commit=0",
        "--skip-log-bin",
    ]);
    let text = socket.display().to_string();
    let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC);
    let config = MysqlConfig::new(&format!("mysql://root@localhost?socket={encoded}"));
    let (up, launcher) = (config.clone(), scratch.launcher());
    let is_up = || socket.exists() && open(&up, drill.surroundings, launcher.clone()).is_ok();
    scratch.serve(command, drill.progress, is_up).map_err(start)?;
    Ok((config, scratch))
}

struct Database {
    session: Session,
    /// The database that the dump holds, where it is one: queries need not name it.
    only: String,
}

impl Ask for Database {
    fn ask(&mut self, sql: &str) -> Result<Option<String>, String> {
        let row = self.session.rows(&self.only, sql)?.into_iter().next();
        let value = row.and_then(|row| row.into_iter().next());
        Ok(value.filter(|value| value != "NULL"))
    }

    fn count(&mut self, table: &Table) -> Result<Option<u64>, String> {
        let kind = self.session.value(&format!(
            "SELECT table_type FROM information_schema.tables WHERE table_schema = {}
             AND table_name = {}",
            literal(&table.schema),
            literal(&table.name)
        ))?;
        if kind.is_empty() {
            return Ok(None);
        }
        // The rows of the dump are those that are no more as well.
        let all = if kind == "SYSTEM VERSIONED" { " FOR SYSTEM_TIME ALL" } else { "" };
        let count = self.session.value(&format!("SELECT COUNT(*) FROM {}{all}", quoted(table)))?;
        Ok(count.parse().ok())
    }

    fn age(&self, sql: &str) -> String {
        let sql = sql.trim().trim_end_matches(';');
        format!("SELECT TIMESTAMPDIFF(MICROSECOND, ({sql}), NOW(6)) / 1000000")
    }
}
