//! Putting a dump back into a MariaDB or MySQL server by its client program.

use std::collections::BTreeSet;

use super::rename::Rename;
use super::{Session, UTF8, identifier, literal};
use crate::catalogue::{Catalogue, Range, Table};
use crate::database::pattern::Patterns;
use crate::database::postgres::restore::Origin;
use crate::database::pour::{LineEdit, Piece, pieces_of, pour};
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
    /// Rows alone, into tables that are there.
    pub data_only: bool,
    /// The names of the databases that may be overwritten, separated by commas.
    pub overwrite: Option<String>,
}

/// What would be done.
pub struct Plan {
    session: Session,
    pieces: Vec<Piece>,
    tables: usize,
    rows: u64,
    databases: Vec<String>,
    /// The one database that all goes into, and whether it is to be made.
    one: Option<(String, bool)>,
}

impl Plan {
    /// In words.
    pub fn describe(&self) -> String {
        let made = if self.one.as_ref().is_some_and(|(_, made)| *made) { " (new)" } else { "" };
        format!("{}{made}: {} tables, {} rows", self.databases.join(", "), self.tables, self.rows)
    }
}

/// Thinks a restore through, and refuses what would do harm unasked. Changes nothing.
pub fn plan(
    origin: &Origin<'_>,
    config: &MysqlConfig,
    options: &RestoreOptions,
    surroundings: &Surroundings,
) -> Result<Plan> {
    let session = Session::open(config, surroundings);
    let session = session.map_err(|error| source_error("--into", error))?;
    let catalogue = origin.catalogue;
    let all = catalogue.tables.iter();
    let names = all.clone().map(|it| (it.schema.as_str(), it.name.as_str()));
    let patterns = Patterns::new(&options.tables).among(names.clone());
    if let Some(pattern) = patterns.unused(names) {
        return Err(Error::Usage(format!("no table of the snapshot fits '{pattern}'")));
    }
    let wanted = |it: &&Table| patterns.is_empty() || patterns.fit(&it.schema, &it.name);
    let tables: Vec<&Table> = all.filter(wanted).collect();
    let sources: BTreeSet<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let databases = target(&session, options, &sources)?;
    let mut is_made = false;
    for database in &databases {
        is_made |= look_at(&session, database, &tables, options)?;
    }
    let named = options.database.is_some() || !session.login.database.is_empty();
    let is_part = !patterns.is_empty() || options.data_only;
    let one = databases.first().filter(|_| named || is_part && databases.len() == 1);
    let one = one.map(|name| (name.clone(), is_made && options.create));
    let stream = origin.snapshot.stream(catalogue.schema_stream.as_bytes());
    let size = stream.map_or(0, |stream| stream.size);
    let pieces = match (options.schema_only, is_part) {
        (false, false) => vec![Piece::Whole],
        (true, false) => without_rows(catalogue, size),
        (_, true) => parts(catalogue, &tables, options),
    };
    let rows = if options.schema_only { 0 } else { tables.iter().map(|table| table.rows).sum() };
    Ok(Plan { session, pieces, tables: tables.len(), rows, databases, one })
}

/// The databases that it goes into.
fn target(
    session: &Session,
    options: &RestoreOptions,
    sources: &BTreeSet<&str>,
) -> Result<Vec<String>> {
    let named = options.database.clone();
    let named = named.or_else(|| Some(session.login.database.clone()).filter(|it| !it.is_empty()));
    match named {
        Some(name) if sources.len() <= 1 => Ok(vec![name]),
        Some(_) => Err(Error::Usage(
            "the snapshot holds several databases: they cannot go into one; name tables of one with \
             --table"
                .into(),
        )),
        None if options.tables.is_empty() || sources.len() == 1 => {
            Ok(sources.iter().map(|name| (*name).to_owned()).collect())
        }
        None => Err(Error::Usage("tables of several databases: name one database".into())),
    }
}

/// Whether a database is yet to be made; refuses where it is, or must not be touched.
fn look_at(
    session: &Session,
    database: &str,
    tables: &[&Table],
    options: &RestoreOptions,
) -> Result<bool> {
    let failed = |error: String| source_error(&session.login.address(), error);
    let name = literal(database);
    let found = session.value(&format!(
        "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = {name}"
    ));
    if found.map_err(failed)? == "0" {
        // A whole dump makes its databases itself; one that it does not name, it cannot.
        let is_needed = options.database.is_some()
            || !session.login.database.is_empty()
            || !options.tables.is_empty()
            || options.data_only;
        if is_needed && !options.create {
            let text = format!("there is no database {database}: --create makes it");
            return Err(Error::Conflict(text));
        }
        return Ok(true);
    }
    if options.data_only {
        return Ok(false);
    }
    let which = if options.tables.is_empty() {
        String::new()
    } else {
        let names: Vec<String> = tables.iter().map(|table| literal(&table.name)).collect();
        format!(" AND table_name IN ({})", names.join(", "))
    };
    let there = session.value(&format!(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = {name}{which} LIMIT 1"
    ));
    let there = there.map_err(failed)?;
    let mut confirmed = options.overwrite.iter().flat_map(|names| names.split(','));
    if !there.is_empty() && !confirmed.any(|it| it == database) {
        return Err(Error::Conflict(format!(
            "{database} is not empty ({there} is there): name another with --database, or confirm with \
             --yes-overwrite {database} that its tables are replaced"
        )));
    }
    Ok(false)
}

/// A dump but for the rows of its tables.
fn without_rows(catalogue: &Catalogue, size: u64) -> Vec<Piece> {
    let mut rows: Vec<Range> =
        catalogue.tables.iter().flat_map(|table| table.data.clone()).collect();
    rows.sort_by_key(|range| range.start);
    let (mut pieces, mut at) = (Vec::new(), 0);
    for range in rows {
        pieces.push(Piece::Part(Range { start: at, end: range.start.max(at) }));
        at = at.max(range.end);
    }
    pieces.push(Piece::Part(Range { start: at, end: size.max(at) }));
    pieces
}

/// Some tables, or the rows of all, in the database that the client is in.
fn parts(catalogue: &Catalogue, tables: &[&Table], options: &RestoreOptions) -> Vec<Piece> {
    if !options.data_only {
        return pieces_of(catalogue, tables, options.schema_only);
    }
    let mut pieces = vec![Piece::Part(catalogue.preamble)];
    for table in tables {
        if options.database.is_none() {
            pieces.push(Piece::Text(format!("\nUSE {};\n", identifier(&table.schema))));
        }
        pieces.extend(table.data.iter().map(|range| Piece::Part(*range)));
        pieces.push(Piece::Text("\n".to_owned()));
    }
    pieces.push(Piece::Part(catalogue.trailer));
    pieces
}

/// Restores.
pub fn restore(origin: &Origin<'_>, plan: Plan, progress: &Progress) -> Result<()> {
    let catalogue = origin.catalogue;
    let stream = origin.snapshot.stream(catalogue.schema_stream.as_bytes());
    let stream = stream
        .ok_or_else(|| Error::Missing { what: format!("stream {}", catalogue.schema_stream) })?;
    let Plan { session, pieces, one, databases, .. } = plan;
    let address = session.login.address();
    let mut command = session.client();
    command.args(["--batch", UTF8]);
    let mut edit = None;
    if let Some((database, is_made)) = one {
        if is_made {
            let made = session.query(&format!("CREATE DATABASE {}", identifier(&database)));
            made.map_err(|error| source_error(&address, error))?;
        }
        command.arg(format!("--database={database}"));
        let sources = catalogue.tables.iter().map(|it| it.schema.clone());
        let sources = sources.chain([catalogue.database.clone()]).collect();
        edit = Some(Rename { sources, target: database, is_made });
    }
    let edit = edit.map(|rename| move |line: &[u8]| rename.line(line));
    let edit = edit.as_ref().map(|edit| edit as LineEdit<'_>);
    let poured = pour(origin.repository, stream, &pieces, command, edit, progress);
    poured.map_err(|error| match error {
        Error::Source { detail, .. } => source_error(
            &address,
            format!(
                "{detail}; what came before is there: once the cause is gone, go on with \
                 --yes-overwrite {}, which replaces it",
                databases.join(",")
            ),
        ),
        other => other,
    })
}
