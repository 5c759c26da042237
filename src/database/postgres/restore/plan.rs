//! What a restore would do: which entries of the archive, which tables, and whether the target is fit
//! for it.

use super::archive::Archive;
use super::choice::{Choice, choose};
use super::preflight::{self, Check, Verdict};
use super::session::Target;
use super::{Origin, RestoreOptions};
use crate::catalogue::toc::TocEntry;
use crate::catalogue::{Encoding, Table};
use crate::database::Surroundings;
use crate::database::postgres::inspect::quote;
use crate::database::postgres::tools::Tools;
use crate::error::{Error, Result};

/// Bytes a second that a server takes, for a first guess of how long a restore lasts.
const BYTES_A_SECOND: u64 = 40 << 20;

/// The rows of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableLoad {
    /// The table in the snapshot.
    pub table: Table,
    /// The command that takes the rows.
    pub copy: String,
    /// Its quoted name in the target.
    pub target: String,
    /// This restore makes it: it has no rows of others, as those of extensions have.
    pub is_new: bool,
}

/// One part of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the database.
    Create(String),
    /// Drop what is there: so many objects.
    Clean(usize),
    /// Definitions: so many entries of the archive.
    Definitions(usize),
    /// Rows: tables, bytes.
    Rows(usize, u64),
    /// Sequences and large objects.
    Objects,
    /// Keys, indexes, triggers, grants: so many entries of the archive.
    Keys(usize),
    /// What ties tables to those that stay: so many entries of the archive.
    Links(usize),
}

/// A restore that was thought through.
pub struct Plan {
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// What was looked at before.
    pub checks: Vec<Check>,
    /// Tables whose rows are loaded, the largest first.
    pub loads: Vec<TableLoad>,
    /// The programs.
    pub tools: Option<Tools>,
    pub(super) archive: Archive,
    /// Entries to restore.
    pub(super) choice: Choice,
}

impl Plan {
    /// Bytes of rows.
    pub fn bytes(&self) -> u64 {
        self.loads.iter().map(|load| load.table.bytes).sum()
    }

    /// How long it may last, in seconds: a guess from its size alone.
    pub fn seconds(&self) -> u64 {
        1 + self.bytes() / BYTES_A_SECOND
    }

    /// An entry of the archive.
    pub(super) fn entry(&self, id: i32) -> Option<&TocEntry> {
        self.archive.toc.entry(id)
    }

    fn steps(&self, options: &RestoreOptions) -> Vec<Step> {
        let Choice { pre_data, data, post_data, forward, links, .. } = &self.choice;
        let mut steps = Vec::new();
        if options.create {
            steps.push(Step::Create(options.database().to_owned()));
        }
        if options.clean {
            steps.push(Step::Clean(pre_data.len()));
        }
        let moved = if options.into_schema.is_some() { self.loads.len() } else { 0 };
        let definitions = pre_data.len() + moved;
        if definitions > 0 {
            steps.push(Step::Definitions(definitions));
        }
        if !self.loads.is_empty() {
            steps.push(Step::Rows(self.loads.len(), self.bytes()));
        }
        if !data.is_empty() || !forward.is_empty() {
            steps.push(Step::Objects);
        }
        if post_data.len() + moved > 0 {
            steps.push(Step::Keys(post_data.len() + moved));
        }
        if !links.is_empty() {
            steps.push(Step::Links(links.len()));
        }
        steps
    }

    /// Why it cannot be done as it stands.
    pub fn refusal(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.verdict == Verdict::Bad)
    }
}

/// Thinks a restore through.
pub fn make(
    origin: &Origin<'_>,
    options: &RestoreOptions,
    surroundings: &Surroundings,
) -> Result<Plan> {
    let archive = Archive::read(origin)?;
    let mut target = Target::open(&archive, options)?;
    let there = target.present(&archive, options)?;
    let choice = choose(&archive, origin, options, &there)?;
    let loads = loads(&archive, origin, options, &choice)?;
    let steps = Vec::new();
    let mut plan = Plan { steps, checks: Vec::new(), loads, tools: None, archive, choice };
    preflight::look(origin, &mut plan, target, &there, options, surroundings)?;
    plan.steps = plan.steps(options);
    Ok(plan)
}

/// The rows that are loaded, the largest tables first.
fn loads(
    archive: &Archive,
    origin: &Origin<'_>,
    options: &RestoreOptions,
    choice: &Choice,
) -> Result<Vec<TableLoad>> {
    if options.schema_only {
        return Ok(Vec::new());
    }
    let tables = origin.catalogue.tables.iter().filter(|table| choice.has(table));
    let mut loads: Vec<TableLoad> = tables
        .filter(|table| !table.stream.is_empty() && table.encoding != Encoding::Pages)
        .map(|table| load(archive, table, options))
        .collect::<Result<_>>()?;
    loads.sort_by_key(|load| std::cmp::Reverse(load.table.bytes));
    Ok(loads)
}

fn load(archive: &Archive, table: &Table, options: &RestoreOptions) -> Result<TableLoad> {
    let schema = options.into_schema.as_deref().unwrap_or(&table.schema);
    let target = format!("{}.{}", quote(schema), quote(&table.name));
    let columns: Vec<String> = table.columns.iter().map(|column| quote(column)).collect();
    let copy = match columns.is_empty() {
        true => format!("COPY {target} FROM STDIN"),
        false => format!("COPY {target} ({}) FROM STDIN", columns.join(", ")),
    };
    let is_known = matches!(table.encoding, Encoding::Copy | Encoding::ArchiveBlock);
    if !is_known || archive.toc.entries.is_empty() {
        let text = format!("rows of {}.{} do not stand as COPY", table.schema, table.name);
        return Err(Error::Conflict(text));
    }
    let is_made = |entry: &TocEntry| {
        entry.desc == "TABLE" && entry.tag == table.name && entry.namespace == table.schema
    };
    let is_new = !options.data_only && archive.toc.entries.iter().any(is_made);
    Ok(TableLoad { table: table.clone(), copy, target, is_new })
}
