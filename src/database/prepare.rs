//! From a source's configuration to its streams.

use super::{Prepared, Surroundings, command, mysql, postgres, sqlite};
use crate::error::{Error, Result};
use crate::settings::SourceKind;

/// Prepares a source. Files are no streams: who backs those up takes their paths.
pub fn prepare(name: &str, kind: &SourceKind, surroundings: &Surroundings) -> Result<Prepared> {
    match kind {
        SourceKind::Sqlite(config) => sqlite::prepare(name, config, surroundings),
        SourceKind::Postgres(config) => postgres::backup::prepare(name, config, surroundings),
        SourceKind::Command(config) => command::prepare(name, config),
        SourceKind::Mysql(config) => mysql::prepare(name, config, surroundings),
        SourceKind::Files(_) => Err(Error::Usage(format!("{name} has files, no streams"))),
    }
}
