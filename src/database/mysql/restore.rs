//! Putting a dump back into a MariaDB or MySQL server by its client program.

use super::Session;
use crate::catalogue::Table;
use crate::database::pattern::Patterns;
use crate::database::postgres::restore::Origin;
use crate::database::pour::{LineTest, Piece, pieces_of, pour};
use crate::database::{Surroundings, source_error};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::settings::MysqlConfig;

/// What to put back, and where.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// The database to restore into, instead of those that the dump names.
    pub database: Option<String>,
    /// Make it first.
    pub create: bool,
    /// Only these tables, `DATABASE.TABLE`.
    pub tables: Vec<String>,
    /// No rows.
    pub schema_only: bool,
    /// The name of the database that may be overwritten.
    pub overwrite: Option<String>,
}

/// What would be done.
pub struct Plan {
    pieces: Vec<Piece>,
    tables: usize,
    rows: u64,
    target: String,
}

impl Plan {
    /// In words.
    pub fn describe(&self) -> String {
        format!("{}: {} tables, {} rows", self.target, self.tables, self.rows)
    }
}

/// Thinks a restore through, and refuses what would do harm unasked.
pub fn plan(
    origin: &Origin<'_>,
    config: &MysqlConfig,
    options: &RestoreOptions,
    surroundings: &Surroundings,
) -> Result<Plan> {
    let session = session(config, options, surroundings)?;
    let (catalogue, patterns) = (origin.catalogue, Patterns::new(&options.tables));
    let all = catalogue.tables.iter();
    let names = all.clone().map(|it| (it.schema.as_str(), it.name.as_str()));
    if let Some(pattern) = patterns.unused(names) {
        return Err(Error::Usage(format!("no table of the snapshot fits '{pattern}'")));
    }
    let wanted = |it: &&Table| patterns.is_empty() || patterns.fit(&it.schema, &it.name);
    let tables: Vec<&Table> = all.filter(wanted).collect();
    let databases: std::collections::BTreeSet<&str> =
        tables.iter().map(|table| table.schema.as_str()).collect();
    let target = target(&session, options, &databases)?;
    let failed = |error: String| source_error(&session.login.address(), error);
    for database in &target {
        let name = database.replace('\\', "\\\\").replace('\'', "''");
        let count = session.value(&format!(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{name}'"
        ));
        let is_confirmed = options.overwrite.as_deref() == Some(database.as_str());
        if count.map_err(failed)? != "0" && !is_confirmed {
            return Err(Error::Conflict(format!(
                "{database} is not empty: name another with --database, or confirm with --yes-overwrite \
                 {database} that its tables are replaced"
            )));
        }
    }
    let pieces = if patterns.is_empty() && !options.schema_only {
        vec![Piece::Whole]
    } else {
        let database = target.first().map(|name| name.replace('`', "``")).unwrap_or_default();
        let mut pieces = pieces_of(catalogue, &tables, options.schema_only);
        pieces.insert(1, Piece::Text(format!("\nUSE `{database}`;\n")));
        pieces
    };
    let rows = tables.iter().map(|table| table.rows).sum();
    Ok(Plan { pieces, tables: tables.len(), rows, target: target.join(", ") })
}

fn target(
    session: &Session,
    options: &RestoreOptions,
    databases: &std::collections::BTreeSet<&str>,
) -> Result<Vec<String>> {
    let named = options.database.clone();
    let named = named.or_else(|| Some(session.login.database.clone()).filter(|it| !it.is_empty()));
    match named {
        Some(name) if databases.len() <= 1 => Ok(vec![name]),
        Some(_) => Err(Error::Usage(
            "the snapshot holds several databases: they cannot go into one; name tables of one with \
             --table"
                .into(),
        )),
        None if options.tables.is_empty() || databases.len() == 1 => {
            Ok(databases.iter().map(|name| (*name).to_owned()).collect())
        }
        None => Err(Error::Usage("tables of several databases: name one database".into())),
    }
}

fn session(
    config: &MysqlConfig,
    options: &RestoreOptions,
    surroundings: &Surroundings,
) -> Result<Session> {
    let session = Session::open(config, surroundings);
    let session = session.map_err(|error| source_error("--into", error))?;
    let name = options.database.as_ref().unwrap_or(&session.login.database);
    if options.create && !name.is_empty() {
        let failed = |error: String| source_error(&session.login.address(), error);
        let name = name.replace('`', "``");
        session.query(&format!("CREATE DATABASE IF NOT EXISTS `{name}`")).map_err(failed)?;
    }
    Ok(session)
}

/// Restores.
pub fn restore(
    origin: &Origin<'_>,
    config: &MysqlConfig,
    options: &RestoreOptions,
    surroundings: &Surroundings,
    progress: &Progress,
) -> Result<()> {
    let plan = plan(origin, config, options, surroundings)?;
    let session = session(config, options, surroundings)?;
    let catalogue = origin.catalogue;
    let stream = origin.snapshot.stream(catalogue.schema_stream.as_bytes());
    let stream = stream
        .ok_or_else(|| Error::Missing { what: format!("stream {}", catalogue.schema_stream) })?;
    let mut command = session.client();
    command.args(["--batch", "--default-character-set=utf8mb4"]);
    let one = options.database.clone();
    let one = one.or_else(|| Some(session.login.database.clone()).filter(|it| !it.is_empty()));
    if let Some(database) = &one {
        command.arg(database);
    }
    // The dump names its databases; where it goes into another, those lines are left out.
    let sources: Vec<String> = catalogue.tables.iter().map(|it| it.schema.clone()).collect();
    let is_naming = |line: &[u8]| {
        let Ok(line) = std::str::from_utf8(line) else { return false };
        let line = line.trim_end();
        sources.iter().any(|name| {
            let name = name.replace('`', "``");
            line == format!("USE `{name}`;")
                || line.starts_with(&format!("CREATE DATABASE /*!32312 IF NOT EXISTS*/ `{name}`"))
        })
    };
    let drop_line: Option<LineTest<'_>> =
        if one.is_some() && options.tables.is_empty() { Some(&is_naming) } else { None };
    pour(origin.repository, stream, &plan.pieces, command, drop_line, progress)
}
