//! The configuration file: repositories, sources and what to keep, in TOML.
//!
//! A key that is not known is an error that names the nearest one that is: a misspelt option must not
//! be passed over in what people trust with their data. Secrets are never in the file; it says
//! where they are.

mod parse;
mod secret;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

pub use parse::nearest;
pub use secret::SecretRef;

use crate::error::{Error, Result};

/// A whole file.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where it was read from.
    pub path: PathBuf,
    /// Repositories by name.
    pub repositories: BTreeMap<String, RepositoryConfig>,
    /// What to back up, by name.
    pub sources: BTreeMap<String, SourceConfig>,
    /// Proofs that a source restores, by name.
    pub drills: BTreeMap<String, DrillConfig>,
    /// What `forget` keeps where it is not told.
    pub retention: Option<RetentionConfig>,
}

/// `[repo.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryConfig {
    /// A folder or URL, as `--repo` takes it.
    pub url: String,
    /// Where the password is.
    pub password: Option<SecretRef>,
    /// A key file instead of a password.
    pub key_file: Option<PathBuf>,
    /// Folder of the local indexes.
    pub cache_dir: Option<PathBuf>,
}

/// `[source.NAME]`: what all kinds have in common, and what is the kind's own.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// For every kind.
    pub common: CommonConfig,
    /// The kind and its options.
    pub kind: SourceKind,
}

/// Options of every source.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommonConfig {
    /// Name of the repository, where there are several.
    pub repo: Option<String>,
    /// Host to record; this one where not given.
    pub host: Option<String>,
    /// Tags of its snapshots.
    pub tags: Vec<String>,
    /// A command to run before, as arguments; it must succeed.
    pub before: Vec<String>,
    /// A command to run after a backup that succeeded.
    pub after: Vec<String>,
    /// A command to run after one that failed.
    pub on_error: Vec<String>,
}

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
    /// Not these tables, as `DATABASE.TABLE`.
    #[serde(default)]
    pub exclude_tables: Vec<String>,
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

/// `[retention]`: numbers and times as the options of `forget` of the same names.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "as the options")]
pub struct RetentionConfig {
    pub keep_last: Option<u32>,
    pub keep_hourly: Option<u32>,
    pub keep_daily: Option<u32>,
    pub keep_weekly: Option<u32>,
    pub keep_monthly: Option<u32>,
    pub keep_yearly: Option<u32>,
    pub keep_within: Option<String>,
    pub keep_tag: Vec<String>,
}

/// `[drill.NAME]`: how it is proved that a source restores.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillConfig {
    /// Name of the source.
    pub source: String,
    /// How far it goes.
    #[serde(default)]
    pub level: DrillLevel,
    /// A server to restore into, instead of one that is made for it: a new database is made there and
    /// dropped.
    pub scratch: Option<String>,
    /// The password of that server.
    pub password: Option<SecretRef>,
    /// How long a restore may last.
    pub rto: Option<String>,
    /// How old the newest row may be, …
    pub rpo: Option<String>,
    /// … and the query that gives its time.
    pub newest: Option<String>,
    /// What must hold in the restored database.
    #[serde(default)]
    pub assert: Vec<Assertion>,
    /// Tables loaded and indexes built at a time.
    #[serde(default = "two")]
    pub jobs: usize,
    /// Folder of the server's programs.
    pub bin_dir: Option<PathBuf>,
}

/// How far a drill goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DrillLevel {
    /// Everything is read back and verified.
    Read,
    /// It is restored into a scratch server.
    #[default]
    Restore,
}

/// One thing that must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    /// A query of one value.
    pub sql: String,
    /// What it must give; where left out, `true`.
    pub equals: Option<String>,
}

fn two() -> usize {
    2
}

fn yes() -> bool {
    true
}

impl Settings {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
            action: "read",
            path: path.display().to_string(),
            source,
        })?;
        let settings = parse::parse(&text).map_err(|problem| Error::Settings {
            path: path.display().to_string(),
            detail: problem,
        })?;
        Ok(Self { path: path.to_owned(), ..settings })
    }

    /// The source with this name.
    pub fn source(&self, name: &str) -> Result<&SourceConfig> {
        self.sources.get(name).ok_or_else(|| self.unknown("source", name, self.sources.keys()))
    }

    /// The repository with this name, or the only one.
    pub fn repository(&self, name: Option<&str>) -> Result<Option<&RepositoryConfig>> {
        match name {
            Some(name) => {
                let found = self.repositories.get(name);
                found.map(Some).ok_or_else(|| self.unknown("repo", name, self.repositories.keys()))
            }
            None if self.repositories.len() > 1 => {
                let names: Vec<&str> = self.repositories.keys().map(String::as_str).collect();
                let detail =
                    format!("it names several repositories ({}): say which", names.join(", "));
                Err(Error::Settings { path: self.path.display().to_string(), detail })
            }
            None => Ok(self.repositories.values().next()),
        }
    }

    /// The drill with this name.
    pub fn drill(&self, name: &str) -> Result<&DrillConfig> {
        self.drills.get(name).ok_or_else(|| self.unknown("drill", name, self.drills.keys()))
    }

    fn unknown<'a>(
        &self,
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'a String>,
    ) -> Error {
        let near = parse::nearest(name, known.map(String::as_str));
        let hint = near.map_or_else(String::new, |near| format!("; is it '{near}'?"));
        let detail = format!("there is no [{what}.{name}]{hint}");
        Error::Settings { path: self.path.display().to_string(), detail }
    }
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
            bin_dir: None,
        }
    }
}

impl MysqlConfig {
    /// All of it, as it is done where nothing else is said.
    pub fn new(dsn: &str) -> Self {
        Self { dsn: dsn.to_owned(), password: None, exclude_tables: Vec::new(), bin_dir: None }
    }
}

/// A length of time as `10m`, `36h`, `14d`.
pub fn duration(text: &str) -> Option<Duration> {
    let at = text.find(|letter: char| !letter.is_ascii_digit())?;
    let number: u64 = text[..at].parse().ok()?;
    let unit = match &text[at..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        "w" => 7 * 24 * 3600,
        _ => return None,
    };
    number.checked_mul(unit).map(Duration::from_secs)
}
