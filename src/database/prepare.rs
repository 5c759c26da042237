//! From a source's configuration to its streams.

use super::postgres::dsn::Dsn;
use super::{Prepared, Surroundings, command, mysql, postgres, sqlite};
use crate::error::{Error, Result};
use crate::settings::SourceKind;

/// Looks at a source's configuration as far as that goes without connecting to anything.
pub fn validate(kind: &SourceKind, surroundings: &Surroundings) -> std::result::Result<(), String> {
    let in_dsn =
        "the password stands in dsn: write password = \"env:NAME\" or \"file:PATH\" instead";
    match kind {
        SourceKind::Postgres(config) => {
            let dsn = Dsn::parse(&config.dsn, &|name| {
                (surroundings.variables)(name).filter(|_| name != "PGPASSWORD")
            })?;
            if dsn.has_password() {
                return Err(in_dsn.into());
            }
            if config.jobs == 0 {
                return Err("jobs must be at least 1".into());
            }
        }
        SourceKind::Mysql(config) => {
            let given = Surroundings {
                variables: Box::new(|_| Some("x".into())),
                path: None,
                temporary: surroundings.temporary.clone(),
                progress: surroundings.progress.clone(),
            };
            mysql::login::Login::parse(&config.dsn, &given)?;
            if crate::database::without_password(&config.dsn) != config.dsn {
                return Err(in_dsn.into());
            }
        }
        SourceKind::Command(config) => command::validate(config)?,
        SourceKind::Files(config) if config.paths.is_empty() => {
            return Err("paths is empty".into());
        }
        SourceKind::Files(_) | SourceKind::Sqlite(_) => {}
    }
    Ok(())
}

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
