//! Putting a dump back into a MariaDB or MySQL server by its client program.

use std::collections::BTreeSet;

use super::preflight::Preflight;
use super::rename::Rename;
use super::{Session, identifier, literal};
use crate::catalogue::{Catalogue, Range, Table};
use crate::database::pattern::Patterns;
use crate::database::postgres::restore::Origin;
use crate::database::pour::{Change, Piece, pieces_of, pour};
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
    data_only: bool,
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
    plan_in(origin, session.map_err(|error| source_error("--into", error))?, options)
}

/// The same in a session.
pub fn plan_in(origin: &Origin<'_>, session: Session, options: &RestoreOptions) -> Result<Plan> {
    let catalogue = origin.catalogue;
    let all = catalogue.tables.iter();
    let names = all.clone().map(|it| (it.schema.as_str(), it.name.as_str()));
    let patterns = Patterns::new(&options.tables).among(names.clone());
    if let Some(pattern) = patterns.unused(names) {
        return Err(Error::Usage(format!("no table of the snapshot fits '{pattern}'")));
    }
    let wanted = |it: &&Table| patterns.is_empty() || patterns.fit(&it.schema, &it.name);
    let tables: Vec<&Table> = all.filter(wanted).collect();
    let is_part = !patterns.is_empty() || options.data_only;
    let sources = match is_part {
        true => tables.iter().map(|table| table.schema.clone()).collect(),
        false => databases_of(catalogue),
    };
    let named = options.database.clone().or_else(|| not_empty(&session.login.database));
    let databases = target(named.clone(), options, &sources)?;
    let makes_databases = named.is_none() && !is_part && !catalogue.databases.is_empty();
    let (session_of, all_of) = (&session, &databases);
    let preflight = Preflight {
        session: session_of,
        options,
        tables: &tables,
        databases: all_of,
        makes_databases,
    };
    let mut is_made = false;
    for database in &databases {
        is_made |= preflight.database(database)?;
    }
    if !is_part && !options.schema_only {
        preflight.packet(catalogue)?;
    }
    let one = databases.first().filter(|_| !makes_databases && databases.len() == 1);
    let one = one.map(|name| (name.clone(), is_made && options.create));
    let stream = origin.snapshot.stream(catalogue.schema_stream.as_bytes());
    let size = stream.map_or(0, |stream| stream.size);
    let pieces = match (options.schema_only, is_part) {
        (false, false) => vec![Piece::Whole],
        (true, false) => without_rows(catalogue, size),
        (_, true) => parts(catalogue, &tables, options),
    };
    let rows = if options.schema_only { 0 } else { tables.iter().map(|table| table.rows).sum() };
    let (tables, data_only) = (tables.len(), options.data_only);
    Ok(Plan { session, pieces, tables, rows, databases, one, data_only })
}

fn not_empty(name: &str) -> Option<String> {
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

/// The databases of a dump, also those without tables. Where it goes into whatever it is loaded into, the
/// one that its header names.
pub fn databases_of(catalogue: &Catalogue) -> BTreeSet<String> {
    match catalogue.databases.is_empty() {
        true => not_empty(&catalogue.database).into_iter().collect(),
        false => catalogue.databases.iter().cloned().collect(),
    }
}

/// The databases that it goes into.
fn target(
    named: Option<String>,
    options: &RestoreOptions,
    sources: &BTreeSet<String>,
) -> Result<Vec<String>> {
    match named {
        Some(name) if sources.len() <= 1 => Ok(vec![name]),
        Some(_) => Err(Error::Usage(
            "the snapshot holds several databases: they cannot go into one; name tables of one with \
             --table"
                .into(),
        )),
        None if sources.is_empty() => Err(Error::Usage(
            "the dump does not say what database it goes into: name one with --database".into(),
        )),
        None if options.tables.is_empty() || sources.len() == 1 => {
            Ok(sources.iter().cloned().collect())
        }
        None => Err(Error::Usage("tables of several databases: name one database".into())),
    }
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
    let Plan { session, mut pieces, one, databases, data_only, .. } = plan;
    let address = session.login.address();
    let failed = |error: String| source_error(&address, error);
    let mut command = session.loader().map_err(failed)?;
    let mut edit = None;
    if let Some((database, is_made)) = one {
        if is_made {
            let made = session.query(&format!("CREATE DATABASE {}", identifier(&database)));
            made.map_err(failed)?;
        }
        command.arg(format!("--database={database}"));
        let sources = catalogue.tables.iter().map(|it| it.schema.clone());
        let sources = sources.chain(databases_of(catalogue)).chain(not_empty(&catalogue.database));
        edit = Some(Rename { sources: sources.collect(), target: database, is_made });
    }
    let mark = Mark::new(&session).map_err(failed)?;
    pieces.splice(0..0, mark.piece());
    let edit = edit.map(|rename| move |text: &str, is_body: bool| rename.statement(text, is_body));
    let change = edit.as_ref().map_or(Change::Nothing, |edit| Change::Statements(edit));
    let poured = pour(origin.repository, stream, &pieces, command, change, progress);
    poured.map_err(|error| {
        mark.end(&session);
        match error {
            Error::Source { detail, .. } => {
                failed(format!("{detail}; {}", advice(data_only, &databases)))
            }
            other => other,
        }
    })
}

/// What to do after a restore that failed.
fn advice(data_only: bool, databases: &[String]) -> String {
    let names = databases.join(",");
    if data_only {
        // Nothing is replaced: what is there stands in the way.
        return format!(
            "rows that came before are in the tables of {names}: once the cause is gone, empty those tables \
             and do it again"
        );
    }
    format!(
        "what came before is there: once the cause is gone, go on with --yes-overwrite '{names}', which \
         replaces it"
    )
}

/// A lock that tells the server which connection loads the dump.
struct Mark(Option<String>);

impl Mark {
    fn new(session: &Session) -> Result<Self, String> {
        // Galera knows no such locks.
        let is_cluster = session.query("SHOW GLOBAL VARIABLES LIKE 'wsrep_on'")?;
        if is_cluster.iter().any(|line| line.ends_with("\tON")) {
            return Ok(Self(None));
        }
        let id = session.value("SELECT UUID()")?;
        Ok(Self(Some(literal(&format!("restow-{id}")))))
    }

    fn piece(&self) -> Option<Piece> {
        let name = self.0.as_ref()?;
        Some(Piece::Text(format!("DO GET_LOCK({name}, 0);\n")))
    }

    /// Ends the connection: a statement that waits for a lock would else wait on without its client, and
    /// run when it gets it.
    fn end(&self, session: &Session) {
        let Some(name) = &self.0 else { return };
        let Ok(id) = session.value(&format!("SELECT IS_USED_LOCK({name})")) else { return };
        if id.parse::<u64>().is_ok() {
            let _ = session.query(&format!("KILL {id}"));
        }
    }
}
