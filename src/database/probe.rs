//! Looking at a source without backing it up: would it work, and what should be changed before.

use serde::Serialize;

use super::postgres::client::Client;
use super::postgres::inspect;
use super::postgres::{backup, check, tools};
use super::{Surroundings, source_error, sqlite};
use crate::error::Result;
use crate::settings::{PostgresConfig, SourceKind, SqliteCheck, SqliteConfig};

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "message_type", rename_all = "snake_case")]
pub enum Finding {
    /// As it should be.
    Fact {
        /// What.
        what: String,
    },
    /// Worth knowing.
    Warning {
        /// What.
        what: String,
    },
    /// A backup would fail.
    Problem {
        /// What, and what to do about it.
        what: String,
    },
}

/// Findings, in the order in which they were made.
#[derive(Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Adds one that is as it should be.
    pub fn fact(&mut self, what: impl Into<String>) {
        self.0.push(Finding::Fact { what: what.into() });
    }

    /// Adds one that is worth knowing.
    pub fn warning(&mut self, what: impl Into<String>) {
        self.0.push(Finding::Warning { what: what.into() });
    }

    /// Adds one that a backup would fail of.
    pub fn problem(&mut self, what: impl Into<String>) {
        self.0.push(Finding::Problem { what: what.into() });
    }

    /// All of them.
    pub fn into_vec(self) -> Vec<Finding> {
        self.0
    }
}

/// Looks at a source. An error means that it could not even be reached.
pub fn probe(name: &str, kind: &SourceKind, surroundings: &Surroundings) -> Result<Vec<Finding>> {
    let mut found = Findings::default();
    match kind {
        SourceKind::Postgres(config) => postgres(name, config, surroundings, &mut found)?,
        SourceKind::Sqlite(config) => look_at_sqlite(name, config, &mut found)?,
        SourceKind::Mysql(config) => super::mysql::probe(name, config, surroundings, &mut found)?,
        SourceKind::Command(config) => {
            let program = config.command.first().map(String::as_str).unwrap_or_default();
            match super::find_program(program, surroundings) {
                Some(path) => found.fact(format!("{program} is {}", path.display())),
                None => found.problem(format!("{program} is not installed")),
            }
        }
        SourceKind::Files(config) => {
            for path in &config.paths {
                match path.symlink_metadata() {
                    Ok(_) => found.fact(format!("{} is there", path.display())),
                    Err(error) => found.problem(format!("{}: {error}", path.display())),
                }
            }
        }
    }
    Ok(found.0)
}

fn postgres(
    name: &str,
    config: &PostgresConfig,
    surroundings: &Surroundings,
    found: &mut Findings,
) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| source_error(name, error);
    let dsn = backup::dsn(name, config, surroundings)?;
    let mut client = Client::connect(&dsn).map_err(|error| failed(&error))?;
    let version = client.parameter("server_version").to_owned();
    found.fact(format!("connected to {}: PostgreSQL {version}", dsn.address()));
    match tools::choose(config.bin_dir.as_deref(), surroundings.path.as_deref(), &version) {
        Ok(tools) => {
            let folder = tools.folder.display();
            found.fact(format!("pg_dump {} in {folder}", tools.version));
        }
        Err(error) => found.problem(error),
    }
    inspect::prepare(&mut client).map_err(|error| failed(&error))?;
    let relations = inspect::relations(&mut client).map_err(|error| failed(&error))?;
    let looked = check::look(&mut client, dsn.user(), &relations, config);
    let looked = looked.map_err(|error| failed(&error))?;
    if !looked.iter().any(|it| matches!(it, Finding::Problem { .. })) {
        found.fact(format!("{} may read all {} tables", dsn.user(), relations.len()));
    }
    found.0.extend(looked);
    let keyless: Vec<String> = relations
        .iter()
        .filter(|it| it.is_plain && it.key.is_empty() && check::is_wanted(config, it))
        .map(inspect::Relation::full_name)
        .collect();
    if let Some(first) = keyless.first() {
        found.warning(format!(
            "{} tables have no primary key, {first} among them: they are read as they lie, by one \
             session, and cost more from day to day",
            keyless.len()
        ));
    }
    if client.parameter("is_superuser") != "on" && config.globals {
        found.warning(format!("{} is no superuser: roles are kept without passwords", dsn.user()));
    }
    let wanted = relations.iter().filter(|it| check::is_wanted(config, it));
    let bytes: u64 = wanted.map(|it| it.bytes).sum();
    found.fact(format!("{} MB of rows on the server", bytes / 1_000_000));
    Ok(())
}

fn look_at_sqlite(name: &str, config: &SqliteConfig, found: &mut Findings) -> Result<()> {
    let path = config.path.display();
    let failed = |detail: String| source_error(name, format!("{path}: {detail}"));
    let connection = sqlite::open(&config.path).map_err(|error| failed(error.to_string()))?;
    let tables = sqlite::tables(&connection, "").map_err(|error| failed(error.to_string()))?;
    let size = config.path.metadata().map_or(0, |metadata| metadata.len());
    found.fact(format!("{path}: {} tables, {} MB", tables.len(), size / 1_000_000));
    let how = if config.check == SqliteCheck::None { SqliteCheck::Quick } else { config.check };
    match sqlite::check(&connection, how) {
        Ok(None) => found.fact("the database is sound"),
        Ok(Some(unchecked)) => found.warning(unchecked),
        Err(error) if config.check == SqliteCheck::None => found.warning(error),
        Err(error) => found.problem(error),
    }
    Ok(())
}
