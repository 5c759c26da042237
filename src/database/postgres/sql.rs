//! Plain dumps of `pg_dump`: put back by `psql`, whole or table by table.
//!
//! psql runs commands of its own that stand in its input, `\!` among them, which starts a shell. Since
//! CVE-2025-8714 it can be told to refuse them until it hears a word that only we know.

use std::cell::RefCell;
use std::process::Command;

use super::client::Client;
use super::error::PgError;
use super::restore::{self, Check, Origin, RestoreOptions, Verdict};
use super::tools::{self, Tools, major};
use crate::catalogue::{Catalogue, Table};
use crate::database::pattern::Patterns;
use crate::database::pour::{Change, Piece, pieces_of, pour};
use crate::database::{Surroundings, source_error};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::restore::{WriterTarget, copy_range, stream_of};

/// The first minor version of each major one whose psql knows `\restrict` (PostgreSQL's release notes of
/// August 2025); later ones all do.
const RESTRICTS: [(u32, u32); 5] = [(13, 22), (14, 19), (15, 14), (16, 10), (17, 6)];

/// What a restore of a plain dump would do.
pub struct SqlPlan {
    /// What was looked at.
    pub checks: Vec<Check>,
    /// How many tables it would make or fill.
    pub tables: usize,
    pieces: Vec<Piece>,
    tools: Option<Tools>,
}

impl SqlPlan {
    /// Why it would be refused.
    pub fn refusal(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.verdict == Verdict::Bad)
    }

    fn say(&mut self, what: &'static str, verdict: Verdict, detail: impl Into<String>) {
        self.checks.push(Check { what, verdict, detail: detail.into() });
    }
}

/// Looks at snapshot and target and says what would be done.
pub fn plan(
    origin: &Origin<'_>,
    options: &RestoreOptions,
    surroundings: &Surroundings,
) -> Result<SqlPlan> {
    let tables = wanted(origin.catalogue, options)?;
    let is_whole = options.tables.is_empty() && !options.schema_only;
    if !options.tables.is_empty() {
        refuse_partitioned(origin, &tables)?;
    }
    let pieces = match is_whole {
        true => vec![Piece::Whole],
        false => pieces_of(origin.catalogue, &tables, options.schema_only),
    };
    let mut plan = SqlPlan { checks: Vec::new(), tables: tables.len(), pieces, tools: None };
    let dsn = options.dsn();
    let mut client = match Client::connect(&dsn) {
        Ok(client) => client,
        // 3D000: there is no such database.
        Err(error) if error.code() == "3D000" => {
            let text = format!("there is no database {}: make it first", dsn.database());
            plan.say("database", Verdict::Bad, text);
            return Ok(plan);
        }
        Err(error) => return Err(source_error(&dsn.address(), error)),
    };
    plan.say("database", Verdict::Good, format!("{} is there", dsn.database()));
    look_at_versions(&mut plan, origin, client.parameter("server_version"), options, surroundings);
    let looked = look_at_content(&mut plan, &mut client, &tables, options);
    looked.map_err(|error| source_error(&dsn.address(), error))?;
    Ok(plan)
}

/// The tables that are meant.
fn wanted<'a>(catalogue: &'a Catalogue, options: &RestoreOptions) -> Result<Vec<&'a Table>> {
    let names = catalogue.tables.iter().map(|it| (it.schema.as_str(), it.name.as_str()));
    let patterns = Patterns::new(&options.tables).among(names.clone());
    let is_moved = options.into_schema.is_some() || options.no_owner;
    if options.clean || options.data_only || options.create || is_moved {
        let text = "a plain dump goes into a database that is there, as it is: --create, --clean, \
                    --data-only, --into-schema and --no-owner need pg_dump -Fc -Z0 or a source";
        return Err(Error::Usage(text.into()));
    }
    if let Some(pattern) = patterns.unused(names) {
        return Err(Error::Usage(format!("no table of the snapshot fits '{pattern}'")));
    }
    let fits = |it: &&Table| patterns.is_empty() || patterns.fit(&it.schema, &it.name);
    Ok(catalogue.tables.iter().filter(fits).collect())
}

/// A dump does not tell which tables are partitions of which: one without them would be empty.
fn refuse_partitioned(origin: &Origin<'_>, tables: &[&Table]) -> Result<()> {
    let stream = stream_of(origin.snapshot, &origin.catalogue.schema_stream)?;
    for table in tables.iter().filter(|it| it.data.is_empty()) {
        let mut target = WriterTarget { writer: Vec::new(), name: "memory".into() };
        for range in &table.definition {
            copy_range(origin.repository, stream, *range, &mut target, &Progress::default())?;
        }
        if String::from_utf8_lossy(&target.writer).contains("PARTITION BY") {
            let (schema, name) = (&table.schema, &table.name);
            let text = format!(
                "{schema}.{name} is partitioned: of a plain dump it comes back only with all others, a partition \
                 where its table is there"
            );
            return Err(Error::Usage(text));
        }
    }
    Ok(())
}

fn look_at_versions(
    plan: &mut SqlPlan,
    origin: &Origin<'_>,
    version: &str,
    options: &RestoreOptions,
    surroundings: &Surroundings,
) {
    let from = &origin.catalogue.server_version;
    if major(version) < major(from) {
        let text = format!("the dump is of PostgreSQL {from}, the target is {version}: older");
        plan.say("version", Verdict::Warning, text);
    }
    let found = match &options.bin_dir {
        Some(folder) => Tools::of(folder).into_iter().collect(),
        None => tools::installed(surroundings.path.as_deref()),
    };
    let newest = found.last().map(|tools| tools.version.clone()).unwrap_or_default();
    let safe = found.into_iter().rfind(|tools| can_restrict(&tools.version));
    match (&safe, newest.as_str()) {
        (Some(tools), _) => {
            let text = format!("psql {} in {}", tools.version, tools.folder.display());
            plan.say("programs", Verdict::Good, text);
        }
        (None, "") => plan.say("programs", Verdict::Bad, "psql is not installed"),
        (None, newest) => plan.say(
            "programs",
            Verdict::Bad,
            format!(
                "psql {newest} runs shell commands that stand in a dump (CVE-2025-8714): install a newer \
                 one, as 15.14 or 17.6"
            ),
        ),
    }
    plan.tools = safe;
}

/// Whether psql of this version refuses its own commands when it is told to.
fn can_restrict(version: &str) -> bool {
    let Some(major) = major(version) else { return false };
    let digits = version.split('.').nth(1).unwrap_or_default();
    let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
    let minor: u32 = digits.parse().unwrap_or(0);
    match RESTRICTS.iter().find(|(known, _)| *known == major) {
        Some((_, first)) => minor >= *first,
        None => major > 17,
    }
}

/// A dump may drop and change whatever it likes: where something is there, that needs its name.
fn look_at_content(
    plan: &mut SqlPlan,
    client: &mut Client,
    tables: &[&Table],
    options: &RestoreOptions,
) -> Result<(), PgError> {
    let mut rows = client.query(restore::CONTENT)?;
    // A schema with nothing in it is often made for what is to come.
    rows.retain(|row| row[1].as_deref() != Some(restore::SCHEMA));
    let database = options.database().to_owned();
    let there = |it: &&&Table| {
        let is_it = |row: &Vec<Option<String>>| {
            row[0].as_deref() == Some(&it.schema) && row[1].as_deref() == Some(&it.name)
        };
        rows.iter().any(is_it)
    };
    let is_partial = !options.tables.is_empty();
    if is_partial && let Some(table) = tables.iter().find(there) {
        let (schema, name) = (&table.schema, &table.name);
        let text = format!("{database} holds {schema}.{name} already: drop or rename it first");
        plan.say("content", Verdict::Bad, text);
    } else if rows.is_empty() {
        plan.say("content", Verdict::Good, format!("nothing is in {database}"));
    } else if options.overwrite.as_deref() == Some(&database) {
        let text = format!("{database} holds {} objects that the dump may change", rows.len());
        plan.say("content", Verdict::Warning, text);
    } else {
        let text = format!(
            "{database} is not empty ({} tables, views, functions and the like), and a dump may drop or \
             change what is there. Confirm it with --yes-overwrite {database}",
            rows.len()
        );
        plan.say("content", Verdict::Bad, text);
    }
    Ok(())
}

/// Pours the dump into psql, told to stop at the first error. Nothing is changed before all of it came.
pub fn restore(
    origin: &Origin<'_>,
    plan: &SqlPlan,
    options: &RestoreOptions,
    progress: &Progress,
) -> Result<()> {
    if let Some(check) = plan.refusal() {
        return Err(Error::Conflict(format!("{}: {}", check.what, check.detail)));
    }
    let stream = stream_of(origin.snapshot, &origin.catalogue.schema_stream)?;
    let Some(tools) = &plan.tools else { return Err(source_error("psql", "is not installed")) };
    let mut command: Command = options.dsn().command(&tools.program("psql"));
    command.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"]);
    let random = crate::entropy::random::<16>(&*origin.repository.environment().entropy);
    let key = hex::encode(random);
    let mut pieces = vec![Piece::Text(format!("\\restrict {key}\nBEGIN;\n"))];
    pieces.extend(plan.pieces.iter().cloned());
    // psql takes the end of its input for a good end: without this, where we are killed for instance,
    // nothing stays.
    pieces.push(Piece::Text("\nCOMMIT;\n".into()));
    let own = Restrict::new(&key);
    let change = Change::Lines(&|line| own.edit(line));
    pour(origin.repository, stream, &pieces, command, change, progress)
}

/// Leaves out a dump's own `\restrict` at its head and the `\unrestrict` that belongs to it: they are
/// refused once psql heard ours.
struct Restrict {
    ours: Vec<u8>,
    state: RefCell<State>,
}

enum State {
    /// Only comments and empty lines so far.
    Head,
    /// The dump's own key.
    Key(Vec<u8>),
    /// The dump has none. A row of a table may look like one.
    Body,
}

impl Restrict {
    fn new(key: &str) -> Self {
        Self { ours: key.as_bytes().to_vec(), state: RefCell::new(State::Head) }
    }

    /// What stands in place of a line, where it does not stay as it is.
    fn edit(&self, line: &[u8]) -> Option<Vec<u8>> {
        let text = line.trim_ascii_end();
        let mut state = self.state.borrow_mut();
        match &*state {
            State::Head => match text.strip_prefix(b"\\restrict ") {
                Some(key) if key == self.ours => None,
                Some(key) => {
                    *state = State::Key(key.to_vec());
                    Some(Vec::new())
                }
                None => {
                    let is_head = text.is_empty() || text.starts_with(b"--") || text == b"BEGIN;";
                    if !is_head {
                        *state = State::Body;
                    }
                    None
                }
            },
            State::Key(key) => {
                let is_end = text.strip_prefix(b"\\unrestrict ") == Some(key);
                is_end.then(Vec::new)
            }
            State::Body => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_can_be_restricted_are_told() {
        for version in ["13.22", "15.14", "15.20 (Debian)", "17.6", "18.0", "18beta3", "19"] {
            assert!(can_restrict(version), "{version}");
        }
        for version in ["12.22", "13.21", "15.8", "17.5", "17", "x"] {
            assert!(!can_restrict(version), "{version}");
        }
    }

    #[test]
    fn only_the_frame_of_a_dump_is_left_out() {
        let edited = |dump: &str| -> String {
            let own = Restrict::new("ours");
            let lines = std::iter::once("\\restrict ours\n").chain(dump.split_inclusive('\n'));
            let edit =
                |line: &str| own.edit(line.as_bytes()).map_or(line.as_bytes().to_vec(), |it| it);
            String::from_utf8(lines.flat_map(edit).collect()).unwrap()
        };
        assert_eq!(
            edited("--\n\n\\restrict k\nSELECT 1;\n\\restrict k\n\\unrestrict k\n"),
            "\\restrict ours\n--\n\nSELECT 1;\n\\restrict k\n"
        );
        let old = "--\nCOPY t FROM stdin;\n\\restrict k\n\\.\n\\unrestrict k\n";
        assert_eq!(edited(old), format!("\\restrict ours\n{old}"));
    }
}
