//! Putting a PostgreSQL database back from a snapshot: definitions by `pg_restore`, rows by sessions of
//! our own, several at a time, keys and indexes by `pg_restore` again.

mod archive;
mod choice;
mod clean;
mod content;
mod drops;
mod grants;
mod links;
mod load;
mod moved;
mod objects;
mod plan;
mod preflight;
mod present;
mod properties;
mod references;
mod roles;
mod session;
mod target;

use std::path::PathBuf;
use std::sync::Arc;

pub use archive::encoding_of;
pub use plan::{Plan, Step, TableLoad};
pub use preflight::{Check, Verdict};
pub(super) use present::{CONTENT, SCHEMA};

use super::dsn::Dsn;
use crate::catalogue::Catalogue;
use crate::database::Surroundings;
use crate::error::Result;
use crate::format::snapshot::Snapshot;
use crate::progress::Progress;
use crate::repository::Repository;

/// What to put back, and where.
#[derive(Clone)]
pub struct RestoreOptions {
    /// The server, and the database where none is named.
    pub target: Dsn,
    /// The database to restore into.
    pub database: Option<String>,
    /// Make the database first.
    pub create: bool,
    /// Drop what the snapshot holds first, and nothing else.
    pub clean: bool,
    /// Only these tables, `SCHEMA.TABLE`; all where empty.
    pub tables: Vec<String>,
    /// Put the tables into this schema instead of their own: definitions, rows and keys alone.
    pub into_schema: Option<String>,
    /// No rows.
    pub schema_only: bool,
    /// Rows only, into tables that are there.
    pub data_only: bool,
    /// Neither owners nor grants.
    pub no_owner: bool,
    /// Everything in the database's own tablespace.
    pub no_tablespaces: bool,
    /// Tables loaded and indexes built at a time.
    pub jobs: usize,
    /// The name of the database that may be overwritten.
    pub overwrite: Option<String>,
    /// Folder of `pg_restore`.
    pub bin_dir: Option<PathBuf>,
}

impl RestoreOptions {
    /// All of a snapshot into the database of `target`, which must be empty.
    pub fn new(target: Dsn) -> Self {
        Self {
            target,
            database: None,
            create: false,
            clean: false,
            tables: Vec::new(),
            into_schema: None,
            schema_only: false,
            data_only: false,
            no_owner: false,
            no_tablespaces: false,
            jobs: 2,
            overwrite: None,
            bin_dir: None,
        }
    }

    /// Name of the database that is restored into.
    pub fn database(&self) -> &str {
        self.database.as_deref().unwrap_or_else(|| self.target.database())
    }

    /// The way to that database.
    pub fn dsn(&self) -> Dsn {
        self.target.clone().with_database(self.database())
    }
}

/// What came of a restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreReport {
    /// Tables that were loaded.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Bytes of their rows.
    pub bytes: u64,
    /// Seconds that each part took.
    pub phases: Vec<(&'static str, f64)>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Where a snapshot's database comes from.
pub struct Origin<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// The catalogue of the database in it.
    pub catalogue: &'a Catalogue,
}

/// Looks at snapshot and target and says what would be done.
pub fn plan(
    origin: &Origin<'_>,
    options: &RestoreOptions,
    surroundings: &Surroundings,
) -> Result<Plan> {
    plan::make(origin, options, surroundings)
}

/// Does what a plan says. Where it fails, the error names the step, what is done by then and how to go on.
pub fn execute(
    origin: &Origin<'_>,
    plan: &Plan,
    options: &RestoreOptions,
    surroundings: &Surroundings,
    progress: &Arc<Progress>,
) -> Result<RestoreReport> {
    target::execute(origin, plan, options, surroundings, progress)
}
