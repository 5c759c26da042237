//! Which entries of the archive a restore takes: of all tables or some, less those that stay as they are,
//! and with what ties them to others.

use std::collections::{HashMap, HashSet};

use super::archive::Archive;
use super::present::is_known;
use super::{Origin, RestoreOptions};
use crate::catalogue::definitions::is_partitioned;
use crate::catalogue::selection::{
    self, Selection, all_but, lacking, sections, select, with_parents, with_partitions,
};
use crate::catalogue::toc::TocEntry;
use crate::catalogue::{Encoding, Name, Table};
use crate::database::pattern::Patterns;
use crate::error::{Error, Result};

/// Numbers of entries by what is done with them.
#[derive(Debug, Default)]
pub struct Choice {
    /// The tables that are meant; all where there is none.
    pub wanted: Option<HashSet<Name>>,
    /// To restore before the rows, …
    pub pre_data: HashSet<i32>,
    /// … besides the rows of tables, …
    pub data: HashSet<i32>,
    /// … and after them.
    pub post_data: HashSet<i32>,
    /// Positions that sequences get where they stand before them.
    pub forward: Vec<i32>,
    /// What ties the tables to what is there, in the order of the archive.
    pub links: Vec<i32>,
    /// Those of the links that are foreign keys of tables that stay.
    pub incoming: Vec<i32>,
    /// Tables that keep their rows, as the snapshot has none of them.
    pub kept: Vec<Name>,
    /// Tables that are made without rows, as the snapshot has none of them.
    pub emptied: Vec<Name>,
    /// What should be told of it.
    pub warnings: Vec<String>,
    /// Tables and views that are needed and neither there nor wanted.
    pub absent: Vec<String>,
}

impl Choice {
    /// Whether the rows of a table are wanted.
    pub fn has(&self, table: &Table) -> bool {
        let name = Name::new(table.schema.clone(), table.name.clone());
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&name))
    }
}

/// Chooses. `there` are the numbers of what the target has already.
pub fn choose(
    archive: &Archive,
    origin: &Origin<'_>,
    options: &RestoreOptions,
    there: &HashSet<i32>,
) -> Result<Choice> {
    let mut choice = Choice { wanted: wanted(archive, origin, options)?, ..Choice::default() };
    if options.into_schema.is_some() {
        return Ok(choice);
    }
    let tables = Tables::new(archive, there);
    let mut rowless: Vec<Name> = rowless(archive, origin, &choice);
    if options.clean && !options.data_only {
        choice.kept = rowless.iter().filter(|name| tables.is_there(name)).cloned().collect();
        rowless.retain(|name| !choice.kept.contains(name));
    }
    choice.emptied = rowless;
    let mut kept = with_parents(&archive.toc, &choice.kept);
    kept.retain(|name| tables.is_there(name));
    let selection = match &choice.wanted {
        None if kept.is_empty() => Selection {
            entries: archive.toc.entries.iter().map(|entry| entry.dump_id).collect(),
            ..Selection::default()
        },
        None => all_but(&archive.toc, &kept),
        Some(wanted) => {
            let wanted: Vec<Name> =
                wanted.iter().filter(|name| !kept.contains(name)).cloned().collect();
            select(&archive.toc, &wanted)
        }
    };
    let mut entries: HashSet<i32> = selection.entries.iter().copied().collect();
    if choice.wanted.is_some() && !options.data_only {
        add_needs(&mut choice, &mut entries, archive, &selection, there);
    }
    let stays = needs_of(archive, &kept, there);
    entries.retain(|id| !stays.contains(id));
    by_section(&mut choice, archive, &entries, &stays, options);
    if !options.data_only {
        tie(&mut choice, &tables, &selection, options);
    }
    Ok(choice)
}

/// The tables that are meant, with their partitions.
fn wanted(
    archive: &Archive,
    origin: &Origin<'_>,
    options: &RestoreOptions,
) -> Result<Option<HashSet<Name>>> {
    let all = origin.catalogue.tables.iter();
    let names = all.map(|table| (table.schema.as_str(), table.name.as_str()));
    let patterns = Patterns::new(&options.tables).among(names.clone());
    if let Some(pattern) = patterns.unused(names.clone()) {
        return Err(Error::Usage(format!(
            "no table of the snapshot fits '{pattern}'; 'restow tables' lists them"
        )));
    }
    if patterns.is_empty() {
        return Ok(None);
    }
    let fitting = names.filter(|(schema, name)| patterns.fit(schema, name));
    let fitting: Vec<Name> = fitting.map(|(schema, name)| Name::new(schema, name)).collect();
    Ok(Some(with_partitions(&archive.toc, &fitting).into_iter().collect()))
}

/// Tables that could have rows and of which the snapshot has none because they were left out: of an
/// empty table it has no rows, but a place for them.
fn rowless(archive: &Archive, origin: &Origin<'_>, choice: &Choice) -> Vec<Name> {
    let made = archive.toc.entries.iter().filter(|entry| entry.desc == "TABLE");
    let made: HashMap<(&str, &str), &TocEntry> =
        made.map(|entry| ((&*entry.namespace, &*entry.tag), entry)).collect();
    let tables = origin.catalogue.tables.iter();
    let left_out = tables.filter(|table| {
        let entry = made.get(&(&*table.schema, &*table.name));
        table.stream.is_empty()
            && table.encoding != Encoding::Pages
            && choice.has(table)
            && entry.is_some_and(|entry| !is_partitioned(&entry.defn))
    });
    left_out.map(|table| Name::new(&*table.schema, &*table.name)).collect()
}

/// Relations of the archive that the target has.
struct Tables<'a> {
    archive: &'a Archive,
    there: &'a HashSet<i32>,
    names: HashSet<(&'a str, &'a str)>,
}

impl<'a> Tables<'a> {
    fn new(archive: &'a Archive, there: &'a HashSet<i32>) -> Self {
        let tables = archive.toc.entries.iter().filter(|entry| {
            ["TABLE", "FOREIGN TABLE"].contains(&&*entry.desc) && there.contains(&entry.dump_id)
        });
        let names = tables.map(|entry| (&*entry.namespace, &*entry.tag)).collect();
        Self { archive, there, names }
    }

    fn is_there(&self, name: &Name) -> bool {
        self.names.contains(&(&*name.schema, &*name.name))
    }
}

/// Adds types, functions and the like that the tables need and the target lacks.
fn add_needs(
    choice: &mut Choice,
    entries: &mut HashSet<i32>,
    archive: &Archive,
    selection: &Selection,
    there: &HashSet<i32>,
) {
    let mut tied: HashSet<i32> = selection.links.iter().copied().collect();
    // A partition depends on its table, and is one without it.
    let links = selection.links.iter().filter_map(|id| archive.toc.entry(*id));
    for attach in links.filter(|entry| entry.desc == "TABLE ATTACH") {
        tied.extend(&attach.dependencies);
    }
    // What is part of another table comes with that or not at all.
    let is_part = |id: i32| archive.toc.entry(id).is_none_or(|entry| !is_known(&entry.desc));
    let is_there = |id: i32| there.contains(&id) || tied.contains(&id) || is_part(id);
    for id in lacking(&archive.toc, &selection.entries, is_there) {
        let Some(entry) = archive.toc.entry(id) else { continue };
        let kind = entry.desc.as_str();
        if ["TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE"].contains(&kind) {
            choice.absent.push(format!("{}.{}", entry.namespace, entry.tag));
        }
        entries.insert(id);
    }
}

/// What tables that stay need: it stays as well. Not what has rows itself, or shows them: where such a
/// thing is in the way, nothing is dropped at all.
fn needs_of(archive: &Archive, kept: &[Name], there: &HashSet<i32>) -> HashSet<i32> {
    if kept.is_empty() {
        return HashSet::new();
    }
    let relations = ["TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "TABLE DATA"];
    let needs = select(&archive.toc, kept).needs.into_iter().filter(|id| {
        let entry = archive.toc.entry(*id);
        there.contains(id) && entry.is_some_and(|entry| !relations.contains(&&*entry.desc))
    });
    let mut stays: HashSet<i32> = needs.collect();
    let of_them = ["CHECK CONSTRAINT", "SEQUENCE SET"];
    for entry in archive.toc.entries.iter().filter(|entry| of_them.contains(&&*entry.desc)) {
        if entry.dependencies.iter().any(|id| stays.contains(id)) {
            stays.insert(entry.dump_id);
        }
    }
    stays
}

/// What pg_restore is not to do: we make the database, and load the rows.
pub fn is_ours(entry: &TocEntry) -> bool {
    matches!(entry.desc.as_str(), "DATABASE" | "DATABASE PROPERTIES" | "TABLE DATA")
        || (matches!(entry.desc.as_str(), "COMMENT" | "ACL" | "SECURITY LABEL")
            && entry.tag.starts_with("DATABASE "))
}

fn by_section(
    choice: &mut Choice,
    archive: &Archive,
    entries: &HashSet<i32>,
    stays: &HashSet<i32>,
    options: &RestoreOptions,
) {
    let selection::Sections { pre_data, data, post_data } = sections(&archive.toc);
    let by_id: HashMap<i32, &TocEntry> =
        archive.toc.entries.iter().map(|entry| (entry.dump_id, entry)).collect();
    let is = |id: &i32, desc: &str| by_id.get(id).is_some_and(|entry| entry.desc == desc);
    let wanted = |ids: Vec<i32>| -> Vec<i32> {
        let is_wanted = |id: &i32| entries.contains(id) && !is_ours(by_id[id]);
        ids.into_iter().filter(is_wanted).collect()
    };
    let (pre_data, data, post_data) = (wanted(pre_data), wanted(data), wanted(post_data));
    // Grants come last, as pg_restore takes them: whoever owns a table may have to fill it without a right
    // to do so later.
    let all = [pre_data, data, post_data].map(|ids| {
        let (grants, rest): (Vec<i32>, Vec<i32>) = ids.into_iter().partition(|id| is(id, "ACL"));
        (grants, rest.into_iter().collect::<HashSet<i32>>())
    });
    let [(grants, pre_data), (more_grants, mut data), (last_grants, mut post_data)] = all;
    if !options.schema_only {
        let positions = archive.toc.entries.iter().filter(|entry| entry.desc == "SEQUENCE SET");
        let is_forward = |id: &i32| stays.contains(id) || options.data_only && data.contains(id);
        choice.forward = positions.map(|entry| entry.dump_id).filter(is_forward).collect();
        data.retain(|id| !choice.forward.contains(id));
        if options.data_only {
            // They are made where they are not there.
            data.retain(|id| !is(id, "BLOB METADATA"));
        }
        choice.data = data;
    }
    if !options.data_only {
        post_data.extend(grants.into_iter().chain(more_grants).chain(last_grants));
        (choice.pre_data, choice.post_data) = (pre_data, post_data);
    }
}

/// Chooses the links that can be made, and says which are left out.
fn tie(choice: &mut Choice, tables: &Tables<'_>, selection: &Selection, options: &RestoreOptions) {
    let toc = &tables.archive.toc;
    let ours: HashSet<i32> = selection.entries.iter().copied().collect();
    let is_here =
        |id: &i32| ours.contains(id) || tables.there.contains(id) || !is_side(tables.archive, *id);
    let mut chosen: HashSet<i32> = HashSet::new();
    for entry in selection.links.iter().filter_map(|id| toc.entry(*id)) {
        let can_be = entry.dependencies.iter().all(is_here);
        let is_wanted = match entry.desc.as_str() {
            // With a partition the server attaches its indexes.
            "INDEX ATTACH" => false,
            // What is said about a link.
            "COMMENT" | "SECURITY LABEL" => entry.dependencies.iter().any(|id| chosen.contains(id)),
            // A partition belongs to what is there. Keys and publications were live only where they went
            // with the table.
            desc => can_be && (options.clean || desc == "TABLE ATTACH"),
        };
        if is_wanted {
            chosen.insert(entry.dump_id);
        } else if let Some(text) = left_out(entry, can_be) {
            choice.warnings.push(text);
        }
    }
    chosen.extend(take_inherited(choice, tables.archive, &selection.links, &chosen));
    if options.clean {
        choice.incoming = selection.incoming.clone();
        chosen.extend(&choice.incoming);
    }
    let in_order = toc.entries.iter().map(|entry| entry.dump_id);
    choice.links = in_order.filter(|id| chosen.contains(id)).collect();
}

/// Triggers that partitions get from their table, and only change: they are there when the partition is
/// attached, or not at all.
fn take_inherited(
    choice: &mut Choice,
    archive: &Archive,
    links: &[i32],
    chosen: &HashSet<i32>,
) -> Vec<i32> {
    let attach = links.iter().filter_map(|id| archive.toc.entry(*id));
    let attach: Vec<&TocEntry> = attach.filter(|entry| entry.desc == "TABLE ATTACH").collect();
    let mut later = Vec::new();
    for entry in archive.toc.entries.iter().filter(|entry| entry.desc == "TRIGGER") {
        let of = |it: &&&TocEntry| {
            it.namespace == entry.namespace && entry.tag.starts_with(&format!("{} ", it.tag))
        };
        let Some(of) = attach.iter().find(of) else { continue };
        let is_change = entry.defn.trim_start().starts_with("ALTER TABLE ");
        if is_change && choice.post_data.remove(&entry.dump_id) && chosen.contains(&of.dump_id) {
            later.push(entry.dump_id);
        }
    }
    later
}

/// Whether an entry makes what a link ties to.
fn is_side(archive: &Archive, id: i32) -> bool {
    let kinds = ["TABLE", "FOREIGN TABLE", "PUBLICATION"];
    archive.toc.entry(id).is_some_and(|entry| kinds.contains(&&*entry.desc))
}

fn left_out(entry: &TocEntry, can_be: bool) -> Option<String> {
    let (schema, tag) = (&entry.namespace, &entry.tag);
    let why = if can_be { "" } else { ": the other side is not there" };
    match entry.desc.as_str() {
        "FK CONSTRAINT" => Some(format!("the foreign key {schema}.{tag} is left out{why}")),
        "TABLE ATTACH" => Some(format!("{schema}.{tag} is not attached as a partition{why}")),
        "PUBLICATION TABLE" => Some(format!("the publication and table {tag} are not tied{why}")),
        _ => None,
    }
}
