//! MariaDB and MySQL: `mariadb-dump` or `mysqldump` in one transaction, looked at while it passes.

pub mod login;
mod probe;
mod rename;
mod restore;

use std::path::PathBuf;
use std::process::Command;

use super::command::catalogue_of;
use super::scan::{Found, ScanInput};
use super::{Prepared, Surroundings, find_program, source_error, stream_prefix};
use crate::backup::StreamSource;
use crate::error::Result;
use crate::format::name::Name;
use crate::format::snapshot::SourceRef;
use crate::settings::{MysqlConfig, SecretRef};
use crate::source::command::CommandInput;
use crate::source::lazy::LazyInput;

pub use login::{Login, LoginFile};
pub(super) use probe::probe;
pub use restore::{Plan, RestoreOptions, plan, restore};

/// A name in SQL.
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text in SQL.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Rows of one `INSERT` together: a small buffer keeps a changed row from shifting all that follow
/// (one row deleted early: 0.2 % new bytes instead of 11 %).
const NET_BUFFER: &str = "--net-buffer-length=8192";
/// Texts as they are.
const UTF8: &str = "--default-character-set=utf8mb4";
/// A row may be as long as servers take it: the limit of the protocol.
const MAX_PACKET: &str = "--max-allowed-packet=1G";

/// Which of both servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// MariaDB.
    MariaDb,
    /// MySQL and its relatives.
    MySql,
}

impl Flavor {
    /// By what the server says it is.
    pub fn of(version: &str) -> Self {
        if version.contains("MariaDB") { Self::MariaDb } else { Self::MySql }
    }

    /// As it stands in snapshots.
    pub fn name(self) -> &'static str {
        match self {
            Self::MariaDb => "mariadb",
            Self::MySql => "mysql",
        }
    }
}

/// The client programs of a server and how they log in.
pub struct Session {
    /// The server.
    pub login: Login,
    file: LoginFile,
    client: PathBuf,
    dump: PathBuf,
    /// Variables that hold its password: not for the eyes of programs.
    secret_variables: Vec<String>,
    /// What it says it is.
    pub version: String,
    /// Which of both.
    pub flavor: Flavor,
}

impl Session {
    /// Finds the programs and asks the server what it is.
    pub fn open(config: &MysqlConfig, surroundings: &Surroundings) -> Result<Self, String> {
        let login = Login::parse(&config.dsn, surroundings)?;
        let password = surroundings.password(config.password.as_ref());
        let login = login.with_password(password.map_err(|error| error.to_string())?);
        let find = |names: [&str; 2]| {
            let found = match &config.bin_dir {
                Some(folder) => {
                    let paths = names.map(|name| folder.join(name));
                    paths.into_iter().find(|path| path.is_file())
                }
                None => names.iter().find_map(|name| find_program(name, surroundings)),
            };
            found.ok_or_else(|| {
                format!(
                    "neither {} nor {} is installed: install mariadb-client",
                    names[0], names[1]
                )
            })
        };
        let client = find(["mariadb", "mysql"])?;
        let dump = find(["mariadb-dump", "mysqldump"])?;
        let file = login.write()?;
        let mut secret_variables = vec!["MYSQL_PWD".to_owned()];
        if let Some(SecretRef::Env(name)) = &config.password {
            secret_variables.push(name.clone());
        }
        let (version, flavor) = (String::new(), Flavor::MySql);
        let mut session = Self { login, file, client, dump, secret_variables, version, flavor };
        session.version = session.value("SELECT VERSION()")?;
        session.flavor = Flavor::of(&session.version);
        Ok(session)
    }

    /// A client program that logs in without its password being seen.
    pub fn client(&self) -> Command {
        self.program(&self.client)
    }

    fn program(&self, path: &PathBuf) -> Command {
        let mut command = Command::new(path);
        // Must be the first option. Only this file: what ~/.my.cnf says of hosts and passwords is
        // read after an extra file and would lead to another server.
        command.arg(format!("--defaults-file={}", self.file.path().display()));
        command.arg(MAX_PACKET);
        for name in &self.secret_variables {
            command.env_remove(name);
        }
        command
    }

    /// Runs SQL and gives its rows; columns are separated by tabs.
    pub fn query(&self, sql: &str) -> Result<Vec<String>, String> {
        let mut command = self.client();
        command.args(["--batch", "--raw", "--skip-column-names", UTF8]);
        command.arg("--execute").arg(sql);
        let output =
            command.output().map_err(|error| format!("{}: {error}", self.client.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {}", self.login.address(), said.trim()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The first value of a query; empty where there is none.
    pub fn value(&self, sql: &str) -> Result<String, String> {
        Ok(self.query(sql)?.into_iter().next().unwrap_or_default())
    }

    /// The databases to back up: the one that is named, or all but the server's own.
    pub fn databases(&self) -> Result<Vec<String>, String> {
        if !self.login.database.is_empty() {
            return Ok(vec![self.login.database.clone()]);
        }
        let found = self.query(
            "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN
             ('information_schema', 'performance_schema', 'mysql', 'sys') ORDER BY schema_name",
        )?;
        if found.is_empty() {
            return Err(format!(
                "{}: there is no database that this user may see",
                self.login.address()
            ));
        }
        Ok(found)
    }

    fn dump(&self, config: &MysqlConfig) -> Result<Command, String> {
        let mut command = self.program(&self.dump);
        command.args([
            "--single-transaction",
            "--quick",
            "--skip-dump-date",
            "--hex-blob",
            "--order-by-primary",
            NET_BUFFER,
            UTF8,
            "--routines",
            "--events",
            "--triggers",
        ]);
        if self.value("SELECT @@log_bin")? == "1" {
            let is_mysql = self.flavor == Flavor::MySql;
            command.arg(if is_mysql { "--source-data=2" } else { "--master-data=2" });
        }
        if self.flavor == Flavor::MySql {
            command.args(["--set-gtid-purged=COMMENTED", "--no-tablespaces"]);
        }
        for table in &config.exclude_tables {
            command.arg(format!("--ignore-table={table}"));
        }
        command.arg("--databases").args(self.databases()?);
        Ok(command)
    }
}

/// Prepares the one stream of a server.
pub fn prepare(name: &str, config: &MysqlConfig, surroundings: &Surroundings) -> Result<Prepared> {
    let failed = |error: String| source_error(name, error);
    let session = Session::open(config, surroundings).map_err(failed)?;
    let mut warnings = Vec::new();
    for table in session.tables_without_transactions().map_err(failed)? {
        warnings.push(format!(
            "{table} has no transactions (not InnoDB): rows that change meanwhile may be torn"
        ));
    }
    for right in session.missing_rights().map_err(failed)? {
        warnings.push(format!("this user has no right {right}: what needs it may be left out"));
    }
    let command = session.dump(config).map_err(failed)?;
    let (version, engine) = (session.version.clone(), session.flavor.name());
    let stream = format!("{}/dump.sql", stream_prefix(name));
    let found = Found::default();
    let (text, scanned) = (stream.clone(), found.clone());
    let input = LazyInput::new(move || {
        let input = CommandInput::start_quiet(command);
        let input = input.map_err(|error| format!("start the dump: {error}"))?;
        Ok(Box::new(ScanInput::dump(Box::new(input), &text, scanned)))
    });
    let closing = Name::new(format!("{}/catalogue.json", stream_prefix(name)));
    // The session lives until everything was read: the dump logs in by its file.
    let closing = catalogue_of(closing, vec![found], move |catalogue| {
        // All of it: a closure takes no more than it names.
        let session = &session;
        catalogue.server_version.clone_from(&session.version);
        session.flavor.name().clone_into(&mut catalogue.engine);
    });
    Ok(Prepared {
        streams: vec![StreamSource {
            name: Name::new(stream),
            input: Box::new(input),
            min_bytes: 1,
        }],
        jobs: 0,
        closing: Some(closing),
        source: SourceRef {
            name: name.to_owned(),
            engine: engine.into(),
            server_version: version,
            restore: Vec::new(),
        },
        warnings,
    })
}
