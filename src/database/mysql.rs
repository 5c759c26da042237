//! MariaDB and MySQL: `mariadb-dump` or `mysqldump` in one transaction, looked at while it passes.

mod dump;
pub mod login;
mod preflight;
mod probe;
mod rename;
mod restore;
mod rights;
mod session;

use super::command::catalogue_of;
use super::scan::{Found, ScanInput};
use super::{Prepared, Surroundings, source_error, stream_prefix};
use crate::backup::StreamSource;
use crate::error::Result;
use crate::format::name::Name;
use crate::format::snapshot::SourceRef;
use crate::settings::MysqlConfig;
use crate::source::command::CommandInput;
use crate::source::lazy::LazyInput;

pub use login::{Login, LoginFile};
pub(super) use probe::probe;
pub use restore::{Plan, RestoreOptions, databases_of, plan, plan_in, restore};
pub use session::{Launcher, Session};

/// A name in SQL.
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text in SQL, of a session whose sql_mode we set.
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

/// Prepares the one stream of a server.
pub fn prepare(name: &str, config: &MysqlConfig, surroundings: &Surroundings) -> Result<Prepared> {
    let failed = |error: String| source_error(name, error);
    let session = Session::open(config, surroundings).map_err(failed)?;
    let problems = session.problems().map_err(failed)?;
    if !problems.is_empty() {
        return Err(source_error(name, problems.join("; ")));
    }
    let mut warnings = session.warnings().map_err(failed)?;
    let dump = session.dump(config).map_err(failed)?;
    let (command, databases) = (dump.command, dump.databases);
    warnings.extend(dump.warnings);
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
        dump::holds(catalogue, &databases)
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
