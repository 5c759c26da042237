//! What a restore would do: which entries of the archive, which tables, and whether the target is fit
//! for it.

use std::collections::HashSet;

use super::archive::Archive;
use super::preflight::{self, Check, Verdict};
use super::{Origin, RestoreOptions};
use crate::catalogue::selection::{sections, select, with_partitions};
use crate::catalogue::toc::TocEntry;
use crate::catalogue::{Encoding, Name, Table};
use crate::database::Surroundings;
use crate::database::pattern::Patterns;
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
    /// Keys, indexes, triggers: so many entries of the archive.
    Keys(usize),
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
    /// Entries to restore before the rows, …
    pub(super) pre_data: HashSet<i32>,
    /// … besides the rows of tables, …
    pub(super) data: HashSet<i32>,
    /// … and after them.
    pub(super) post_data: HashSet<i32>,
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
    let selected = selected(&archive, origin, options)?;
    let (pre_data, data, post_data) = by_section(&archive, &selected.entries, options);
    let mut plan = Plan {
        steps: Vec::new(),
        checks: Vec::new(),
        loads: if options.schema_only { Vec::new() } else { selected.loads },
        tools: None,
        archive,
        pre_data,
        data,
        post_data,
    };
    plan.steps = steps(&plan, options);
    preflight::look(origin, &mut plan, options, surroundings)?;
    Ok(plan)
}

struct Selected {
    entries: HashSet<i32>,
    loads: Vec<TableLoad>,
}

fn selected(archive: &Archive, origin: &Origin<'_>, options: &RestoreOptions) -> Result<Selected> {
    let toc = &archive.toc;
    let patterns = Patterns::new(&options.tables);
    let all = origin.catalogue.tables.iter();
    let names = all.clone().map(|table| (table.schema.as_str(), table.name.as_str()));
    if let Some(pattern) = patterns.unused(names) {
        return Err(Error::Usage(format!(
            "no table of the snapshot fits '{pattern}'; 'restow tables' lists them"
        )));
    }
    let is_wanted = |schema: &str, name: &str| patterns.is_empty() || patterns.fit(schema, name);
    let mut wanted: HashSet<Name> = all
        .clone()
        .filter(|table| is_wanted(&table.schema, &table.name))
        .map(|table| Name::new(table.schema.clone(), table.name.clone()))
        .collect();
    let entries = if patterns.is_empty() {
        toc.entries.iter().map(|entry| entry.dump_id).collect()
    } else {
        let with_parts: Vec<Name> = with_partitions(toc, &wanted.into_iter().collect::<Vec<_>>());
        let selection = select(toc, &with_parts);
        wanted = with_parts.into_iter().collect();
        // What ties a table to others goes when it is dropped: it must come back with it.
        let links = selection.links.into_iter().filter(|_| options.clean);
        selection.entries.into_iter().chain(links).collect()
    };
    let mut loads: Vec<TableLoad> = all
        .filter(|table| wanted.contains(&Name::new(table.schema.clone(), table.name.clone())))
        .filter(|table| !table.stream.is_empty() && table.encoding != Encoding::Pages)
        .map(|table| load(archive, table, options))
        .collect::<Result<_>>()?;
    loads.sort_by_key(|load| std::cmp::Reverse(load.table.bytes));
    Ok(Selected { entries, loads })
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

/// What pg_restore is not to do: we make the database, and load the rows.
fn is_ours(entry: &TocEntry) -> bool {
    matches!(entry.desc.as_str(), "DATABASE" | "DATABASE PROPERTIES" | "TABLE DATA")
        || (matches!(entry.desc.as_str(), "COMMENT" | "ACL" | "SECURITY LABEL")
            && entry.tag.starts_with("DATABASE "))
}

fn by_section(
    archive: &Archive,
    entries: &HashSet<i32>,
    options: &RestoreOptions,
) -> (HashSet<i32>, HashSet<i32>, HashSet<i32>) {
    let all = sections(&archive.toc);
    let ours: HashSet<i32> = archive
        .toc
        .entries
        .iter()
        .filter(|entry| is_ours(entry))
        .map(|entry| entry.dump_id)
        .collect();
    let wanted = |ids: Vec<i32>| -> HashSet<i32> {
        ids.into_iter().filter(|id| entries.contains(id) && !ours.contains(id)).collect()
    };
    let none = HashSet::new;
    if options.into_schema.is_some() {
        return (none(), none(), none());
    }
    let definitions = if options.data_only { none() } else { wanted(all.pre_data) };
    let data = if options.schema_only { none() } else { wanted(all.data) };
    let keys = if options.data_only { none() } else { wanted(all.post_data) };
    (definitions, data, keys)
}

fn steps(plan: &Plan, options: &RestoreOptions) -> Vec<Step> {
    let mut steps = Vec::new();
    if options.create {
        steps.push(Step::Create(options.database().to_owned()));
    }
    if options.clean {
        steps.push(Step::Clean(plan.pre_data.len()));
    }
    let moved = if options.into_schema.is_some() { plan.loads.len() } else { 0 };
    let definitions = plan.pre_data.len() + moved;
    if definitions > 0 {
        steps.push(Step::Definitions(definitions));
    }
    if !plan.loads.is_empty() {
        steps.push(Step::Rows(plan.loads.len(), plan.bytes()));
    }
    if !plan.data.is_empty() {
        steps.push(Step::Objects);
    }
    if plan.post_data.len() + moved > 0 {
        steps.push(Step::Keys(plan.post_data.len() + moved));
    }
    steps
}
