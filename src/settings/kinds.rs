//! What kinds of sources there are, and the options of each.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{SecretRef, time, two};

/// What kinds of sources there are.
#[derive(Debug, Clone)]
pub enum SourceKind {
    /// `type = "sqlite"`
    Sqlite(SqliteConfig),
    /// `type = "postgres"`
    Postgres(Box<PostgresConfig>),
    /// `type = "mysql"`, also for MariaDB
    Mysql(MysqlConfig),
    /// `type = "command"`
    Command(CommandConfig),
    /// `type = "files"`
    Files(FilesConfig),
}

/// A SQLite database.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file.
    pub path: PathBuf,
    /// How to look whether it is sound before it is backed up.
    #[serde(default)]
    pub check: SqliteCheck,
}

/// What SQLite looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SqliteCheck {
    /// `PRAGMA integrity_check`
    #[default]
    Full,
    /// `PRAGMA quick_check`
    Quick,
    /// Nothing.
    None,
}

/// A PostgreSQL database.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// `postgres://USER@HOST:PORT/DATABASE?…` or words as libpq takes them.
    pub dsn: String,
    /// Where the password is, unless `PGPASSFILE` or the server asks for none.
    pub password: Option<SecretRef>,
    /// How to read it.
    #[serde(default)]
    pub mode: PostgresMode,
    /// The order of rows in streams of tables.
    #[serde(default)]
    pub order: RowOrder,
    /// Connections that read tables at the same time.
    #[serde(default = "two")]
    pub jobs: usize,
    /// Rows of these tables only, as patterns `SCHEMA.TABLE`; of all where empty. All definitions come
    /// along.
    #[serde(default)]
    pub tables: Vec<String>,
    /// No rows of these.
    #[serde(default)]
    pub exclude_data: Vec<String>,
    /// Roles and tablespaces of the server as well.
    #[serde(default = "yes")]
    pub globals: bool,
    /// How long a table may be locked by others before it is given up; `0s` for ever.
    #[serde(default = "ten_minutes", deserialize_with = "time")]
    pub lock_timeout: Duration,
    /// Folder of `pg_dump` and the like; the newest that is installed and fits where not given.
    pub bin_dir: Option<PathBuf>,
}

/// How a PostgreSQL database is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PostgresMode {
    /// A stream for each table with a primary key, and `pg_dump` for the rest.
    #[default]
    Tables,
    /// One stream of `pg_dump -Fc -Z0`.
    Dump,
}

/// The order of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowOrder {
    /// By primary key where an index gives it without sorting much, else as they lie.
    #[default]
    Auto,
    /// By primary key.
    Pk,
    /// As they lie.
    Heap,
}

/// A MariaDB or MySQL server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MysqlConfig {
    /// `mysql://USER@HOST:PORT/DATABASE`; all databases where none is named.
    pub dsn: String,
    /// Where the password is.
    pub password: Option<SecretRef>,
    /// Of these tables, as patterns `DATABASE.TABLE`, the definition, but no rows.
    #[serde(default)]
    pub exclude_data: Vec<String>,
    /// Folder of `mariadb-dump` or `mysqldump`.
    pub bin_dir: Option<PathBuf>,
}

/// The output of a command.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandConfig {
    /// The command and its arguments; no shell.
    pub command: Vec<String>,
    /// Name of the stream; the source's where not given.
    pub stream: Option<String>,
    /// Fewer bytes are a failure.
    #[serde(default)]
    pub min_bytes: u64,
    /// The last line of the output must match this regular expression.
    pub trailer: Option<String>,
    /// A command that takes the stream on its standard input to restore it.
    #[serde(default)]
    pub restore: Vec<String>,
}

/// Files and directories.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesConfig {
    /// What to back up.
    pub paths: Vec<PathBuf>,
    /// Patterns as those of gitignore.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Stay in the file systems of the paths.
    #[serde(default)]
    pub one_file_system: bool,
}

fn yes() -> bool {
    true
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

/// The kind of source that an address alone stands for.
pub fn ad_hoc(address: &str) -> Option<SourceKind> {
    if let Some(path) = address.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path).into();
        return Some(SourceKind::Sqlite(SqliteConfig { path, check: SqliteCheck::default() }));
    }
    let scheme = address.split_once("://")?.0;
    match scheme {
        "postgres" | "postgresql" => {
            Some(SourceKind::Postgres(Box::new(PostgresConfig::new(address))))
        }
        "mysql" | "mariadb" => Some(SourceKind::Mysql(MysqlConfig::new(address))),
        _ => None,
    }
}

impl PostgresConfig {
    /// All of a database, as it is done where nothing else is said.
    pub fn new(dsn: &str) -> Self {
        Self {
            dsn: dsn.to_owned(),
            password: None,
            mode: PostgresMode::default(),
            order: RowOrder::default(),
            jobs: two(),
            tables: Vec::new(),
            exclude_data: Vec::new(),
            globals: true,
            lock_timeout: ten_minutes(),
            bin_dir: None,
        }
    }
}

impl MysqlConfig {
    /// All of it, as it is done where nothing else is said.
    pub fn new(dsn: &str) -> Self {
        Self { dsn: dsn.to_owned(), password: None, exclude_data: Vec::new(), bin_dir: None }
    }
}
