//! Which entries of an archive restore which tables: a plan, as numbers of entries in the order of the
//! archive. Reads the table of contents alone.

use std::collections::{HashMap, HashSet};

use super::definitions::published;
use super::schema;
use super::subject::{Name, Subject, Target, Ties, subject};
use super::toc::{Section, Toc, TocEntry};

/// Entries that say something about another entry, which they name as a dependency.
const ATTACHED: [&str; 4] = ["COMMENT", "ACL", "SECURITY LABEL", "STATISTICS DATA"];
/// The entry of a table in a publication.
const PUBLISHED: &str = "PUBLICATION TABLE";
const RELATIONS: [&str; 5] = ["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "TABLE DATA"];

/// What restores some tables, as numbers of entries in the order of the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The tables with all that is theirs alone: defaults, sequences, rows, keys, indexes, triggers,
    /// rules, policies, comments, grants, statistics.
    pub entries: Vec<i32>,
    /// What ties them to what is not wanted, for when that is there already: foreign keys, partitions
    /// attached, publications that they are in.
    pub links: Vec<i32>,
    /// Foreign keys of other tables to them.
    pub incoming: Vec<i32>,
    /// What others must provide first: schemas, types, functions, extensions, and what those need.
    pub needs: Vec<i32>,
    /// Tables that the archive does not have.
    pub missing: Vec<Name>,
}

/// All entries by the part of a restore they belong to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sections {
    /// Before the rows.
    pub pre_data: Vec<i32>,
    /// Rows, large objects, positions of sequences.
    pub data: Vec<i32>,
    /// After the rows.
    pub post_data: Vec<i32>,
}

/// Which entries restore the `wanted` tables.
pub fn select(toc: &Toc, wanted: &[Name]) -> Selection {
    let owners = Owners::new(toc);
    let wanted: HashSet<&Name> = wanted.iter().collect();
    let known: HashSet<Name> = relations(toc).map(|(name, _)| name).collect();
    let places = Places::new(toc, &owners, |name| wanted.contains(name));
    let needs = needs(toc, &places.own, &places.links);
    let missing = wanted.into_iter().filter(|name| !known.contains(name)).cloned();
    let mut missing: Vec<Name> = missing.collect();
    missing.sort();
    let ordered = |ids: &HashSet<i32>| ordered(toc, ids);
    Selection {
        entries: ordered(&places.own),
        links: ordered(&places.links),
        incoming: ordered(&places.incoming),
        needs: ordered(&needs),
        missing,
    }
}

/// Which entries restore all but some tables, that stay as they are; publications are made again, with
/// all of their tables.
pub fn all_but(toc: &Toc, kept: &[Name]) -> Selection {
    let owners = Owners::new(toc);
    let kept: HashSet<&Name> = kept.iter().collect();
    let mut places = Places::new(toc, &owners, |name| !kept.contains(name));
    for (entry, tie) in toc.entries.iter().zip(&owners.ties) {
        if tie.is_none() || entry.desc == PUBLISHED {
            places.own.insert(entry.dump_id);
            places.links.remove(&entry.dump_id);
        }
    }
    let ordered = |ids: &HashSet<i32>| ordered(toc, ids);
    Selection {
        entries: ordered(&places.own),
        links: ordered(&places.links),
        incoming: ordered(&places.incoming),
        ..Selection::default()
    }
}

/// Of what the chosen entries need, what is not there, with what that needs in turn and what is said about
/// it.
pub fn lacking(toc: &Toc, chosen: &[i32], is_there: impl Fn(i32) -> bool) -> Vec<i32> {
    let chosen: HashSet<i32> = chosen.iter().copied().collect();
    let mut found = follow(toc, &chosen, |id| !is_there(id));
    let about = ["COMMENT", "ACL", "SECURITY LABEL", "CHECK CONSTRAINT", "SEQUENCE SET"];
    for entry in toc.entries.iter().filter(|entry| about.contains(&entry.desc.as_str())) {
        if entry.dependencies.iter().any(|id| found.contains(id))
            && !chosen.contains(&entry.dump_id)
        {
            found.insert(entry.dump_id);
        }
    }
    ordered(toc, &found)
}

fn ordered(toc: &Toc, ids: &HashSet<i32>) -> Vec<i32> {
    let numbers = toc.entries.iter().map(|entry| entry.dump_id);
    numbers.filter(|id| ids.contains(id)).collect()
}

/// Where entries stand that have to do with the tables that are wanted.
#[derive(Debug, Default)]
struct Places {
    own: HashSet<i32>,
    links: HashSet<i32>,
    incoming: HashSet<i32>,
}

impl Places {
    fn new(toc: &Toc, owners: &Owners, is_wanted: impl Fn(&Name) -> bool) -> Self {
        let mut places = Self::default();
        for (entry, tie) in toc.entries.iter().zip(&owners.ties) {
            let Some(tie) = tie else { continue };
            let other = tie.other.as_ref();
            // What is said about a link follows it.
            let follows = |ids: &HashSet<i32>| {
                is_attached(entry) && entry.dependencies.iter().any(|id| ids.contains(id))
            };
            let list = if is_wanted(&tie.table) {
                let is_whole = other.is_none_or(&is_wanted) && !follows(&places.links);
                if is_whole { &mut places.own } else { &mut places.links }
            } else if follows(&places.incoming)
                || entry.desc == "FK CONSTRAINT" && other.is_some_and(&is_wanted)
            {
                &mut places.incoming
            } else {
                continue;
            };
            list.insert(entry.dump_id);
        }
        places
    }
}

/// The wanted tables and all partitions of them, which hold the rows of a partitioned table.
pub fn with_partitions(toc: &Toc, wanted: &[Name]) -> Vec<Name> {
    closure(wanted, partitions(toc).into_iter().map(|(partition, parent)| (parent, partition)))
}

/// The wanted tables and those that they are partitions of.
pub fn with_parents(toc: &Toc, wanted: &[Name]) -> Vec<Name> {
    closure(wanted, partitions(toc).into_iter())
}

/// Each partition with its table.
fn partitions(toc: &Toc) -> Vec<(Name, Name)> {
    let owners = Owners::new(toc);
    let entries = toc.entries.iter().zip(owners.ties);
    let attached = entries.filter(|(entry, _)| entry.desc == "TABLE ATTACH");
    attached.filter_map(|(_, tie)| tie.and_then(|tie| Some((tie.table, tie.other?)))).collect()
}

/// Names, and those that can be reached from them.
fn closure(names: &[Name], steps: impl Iterator<Item = (Name, Name)>) -> Vec<Name> {
    let mut reached: HashMap<Name, Vec<Name>> = HashMap::new();
    for (from, to) in steps {
        reached.entry(from).or_default().push(to);
    }
    let mut all: Vec<Name> = names.to_vec();
    let mut seen: HashSet<Name> = names.iter().cloned().collect();
    let mut at = 0;
    while let Some(from) = all.get(at) {
        at += 1;
        let found = reached.get(from).into_iter().flatten();
        let new: Vec<Name> = found.filter(|name| seen.insert((*name).clone())).cloned().collect();
        all.extend(new);
    }
    all
}

/// All entries by section, in the order of the archive; comments and grants go with what is before
/// them, as pg_restore takes them.
pub fn sections(toc: &Toc) -> Sections {
    let mut sections = Sections::default();
    let mut current = Section::PreData;
    for entry in &toc.entries {
        if entry.section != Section::None {
            current = entry.section;
        }
        let list = match current {
            Section::None | Section::PreData => &mut sections.pre_data,
            Section::Data => &mut sections.data,
            Section::PostData => &mut sections.post_data,
        };
        list.push(entry.dump_id);
    }
    sections
}

/// The text of a list for `pg_restore -L`.
pub fn list_text(ids: &[i32]) -> String {
    ids.iter().map(|id| format!("{id};\n")).collect()
}

/// What an entry is part of.
#[derive(Debug)]
struct Tie {
    table: Name,
    /// A second table that must be there; one without a name where it is not known.
    other: Option<Name>,
}

/// The tables that the entries of an archive belong to.
#[derive(Debug)]
pub(super) struct Owners {
    ties: Vec<Option<Tie>>,
}

impl Owners {
    /// Of all entries.
    pub fn new(toc: &Toc) -> Self {
        let subjects: Vec<Option<Subject>> = toc.entries.iter().map(entry_subject).collect();
        let names = Ties::new(subjects.iter().flatten());
        let mut ties: Vec<Option<Tie>> = Vec::with_capacity(subjects.len());
        let mut tables: HashMap<i32, Name> = HashMap::new();
        for (entry, subject) in toc.entries.iter().zip(&subjects) {
            let mut tie = subject.as_ref().and_then(|subject| {
                let other = subject.other.as_ref();
                let other = other.map(|other| names.table(other).cloned().unwrap_or_default());
                Some(Tie { table: names.table(&subject.belongs)?.clone(), other })
            });
            if is_attached(entry) {
                let of = entry.dependencies.iter().find_map(|id| tables.get(id)).cloned();
                tie = of.map(|table| Tie { table, other: None }).or(tie);
            }
            if let Some(tie) = tie.as_ref().filter(|_| entry.desc != "ACL") {
                tables.insert(entry.dump_id, tie.table.clone());
            }
            ties.push(tie);
        }
        Self { ties }
    }

    /// For each entry its table.
    pub fn of_entries(&self) -> impl Iterator<Item = Option<&Name>> {
        self.ties.iter().map(|tie| tie.as_ref().map(|tie| &tie.table))
    }
}

fn entry_subject(entry: &TocEntry) -> Option<Subject> {
    let named = || Name::new(&*entry.namespace, &*entry.tag);
    match entry.desc.as_str() {
        "TABLE DATA" => Some(Subject::table(named())),
        PUBLISHED => {
            // It is tied to what is no table, and so is not known by that name.
            let other = Some(Target::Index(Name::default()));
            let table = published(&entry.defn)?;
            Some(Subject { other, ..Subject::table(table) })
        }
        "SEQUENCE" => {
            let identity = subject(&entry.defn, &entry.namespace);
            let own = Subject { belongs: Target::Sequence(named()), defines: None, other: None };
            Some(identity.unwrap_or(own))
        }
        _ => subject(&entry.defn, &entry.namespace),
    }
}

fn is_attached(entry: &TocEntry) -> bool {
    ATTACHED.contains(&entry.desc.as_str())
}

fn relations(toc: &Toc) -> impl Iterator<Item = (Name, &TocEntry)> {
    let entries = toc.entries.iter().filter(|entry| RELATIONS.contains(&entry.desc.as_str()));
    entries.map(|entry| (Name::new(&*entry.namespace, &*entry.tag), entry))
}

/// All that the chosen entries depend on and that is not chosen, and the schemas of them all.
fn needs(toc: &Toc, chosen: &HashSet<i32>, links: &HashSet<i32>) -> HashSet<i32> {
    follow(toc, chosen, |id| !links.contains(&id))
}

/// All that entries depend on and that is wanted, and the schemas of them all.
fn follow(toc: &Toc, from: &HashSet<i32>, is_wanted: impl Fn(i32) -> bool) -> HashSet<i32> {
    let by_id: HashMap<i32, &TocEntry> =
        toc.entries.iter().map(|entry| (entry.dump_id, entry)).collect();
    let schemas = toc.entries.iter().filter(|entry| entry.desc == "SCHEMA");
    let schemas: HashMap<&str, i32> =
        schemas.map(|entry| (entry.tag.as_str(), entry.dump_id)).collect();
    let mut found = HashSet::new();
    let mut open: Vec<i32> = from.iter().copied().collect();
    while let Some(entry) = open.pop().and_then(|id| by_id.get(&id)) {
        let schema = schemas.get(entry.namespace.as_str());
        for id in entry.dependencies.iter().chain(schema) {
            let is_new = !from.contains(id) && by_id.contains_key(id) && is_wanted(*id);
            if is_new && found.insert(*id) {
                open.push(*id);
            }
        }
    }
    found
}

/// A hash for each table: of its definition and of all that belongs to it, but for owners, numbers
/// and positions of sequences.
pub(super) fn table_hashes(toc: &Toc, owners: &Owners) -> HashMap<Name, String> {
    let mut parts: HashMap<Name, Vec<schema::Part>> = HashMap::new();
    for (entry, owner) in toc.entries.iter().zip(owners.of_entries()) {
        let is_own = is_definition(entry) && entry.desc != PUBLISHED;
        let Some(table) = owner.filter(|_| is_own) else { continue };
        let part = schema::part(&[&entry.desc, &entry.tag, &entry.defn]);
        parts.entry(table.clone()).or_default().push(part);
    }
    parts.into_iter().map(|(name, parts)| (name, schema::hash(parts))).collect()
}

/// A hash of all definitions of an archive.
pub fn schema_hash(toc: &Toc) -> String {
    let definitions = toc.entries.iter().filter(|entry| is_definition(entry));
    let parts = definitions
        .map(|entry| schema::part(&[&entry.desc, &entry.namespace, &entry.tag, &entry.defn]));
    schema::hash(parts.collect())
}

/// Not what holds or describes data, nor the name of the database.
fn is_definition(entry: &TocEntry) -> bool {
    let kinds = ["DATABASE", "SEQUENCE SET", "BLOB", "BLOBS", "BLOB METADATA", "BLOB COMMENTS"];
    let named_after = ["LARGE OBJECT ", "LARGE OBJECTS ", "DATABASE "];
    let about = is_attached(entry) && named_after.iter().any(|kind| entry.tag.starts_with(kind));
    !kinds.contains(&entry.desc.as_str()) && !entry.desc.ends_with(" DATA") && !about
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{ARCHIVES, Noise, archive, shop};
    use super::*;

    fn shop_toc() -> Toc {
        Toc::parse(&archive(14, false, &shop())).expect("sound")
    }

    #[test]
    fn a_table_comes_with_what_is_its_own() {
        let selection = select(&shop_toc(), &[Name::new("s", "a b")]);
        assert_eq!(selection.entries, [4, 6, 7, 8, 10, 11]);
        assert_eq!((selection.links, selection.needs), (vec![], vec![2]));
    }

    #[test]
    fn foreign_keys_to_other_tables_are_apart_with_their_comments() {
        let selection = select(&shop_toc(), &[Name::new("s", "c"), Name::new("s", "none")]);
        assert_eq!(selection.entries, [5, 9]);
        assert_eq!(selection.links, [12, 13]);
        assert_eq!(selection.missing, [Name::new("s", "none")]);
        let both = select(&shop_toc(), &[Name::new("s", "c"), Name::new("s", "a b")]);
        assert_eq!((both.entries.len(), both.links), (10, vec![]));
    }

    #[test]
    fn real_tables_come_with_all_kinds_of_entries() {
        for bytes in ARCHIVES {
            let toc = Toc::parse(bytes).expect("sound");
            let wanted = ["serials", "nokey", "part", "left_"].map(|name| Name::new("plain", name));
            let wanted = with_partitions(&toc, &wanted);
            assert_eq!(wanted.len(), 6);
            let selection = select(&toc, &wanted);
            let kinds = |ids: &[i32]| {
                let entries = ids.iter().filter_map(|id| toc.entry(*id));
                let mut kinds: Vec<&str> = entries.map(|entry| entry.desc.as_str()).collect();
                kinds.sort();
                kinds.dedup();
                kinds.join(", ")
            };
            let all = "ACL, COMMENT, CONSTRAINT, DEFAULT, INDEX, INDEX ATTACH, POLICY, ROW SECURITY, \
                RULE, SEQUENCE, SEQUENCE OWNED BY, SEQUENCE SET, STATISTICS, TABLE, TABLE ATTACH, \
                TABLE DATA, TRIGGER";
            assert_eq!(kinds(&selection.entries), all);
            assert_eq!(selection.entries.len(), 47);
            assert_eq!(kinds(&selection.links), "FK CONSTRAINT");
            assert_eq!(kinds(&selection.needs), "FUNCTION, SCHEMA, TABLE");
        }
    }

    #[test]
    fn identity_sequences_and_types_are_found() {
        let toc = Toc::parse(ARCHIVES[2]).expect("sound");
        let table = Name::new("Shop.Main", "Cust\"omer; Type: TABLE");
        let selection = select(&toc, &[table]);
        let descs = |ids: &[i32]| -> Vec<String> {
            ids.iter().filter_map(|id| toc.entry(*id)).map(|entry| entry.desc.clone()).collect()
        };
        let entries =
            ["TABLE", "COMMENT", "SEQUENCE", "TABLE DATA", "SEQUENCE SET", "CONSTRAINT", "INDEX"];
        assert_eq!(descs(&selection.entries), entries);
        assert_eq!(descs(&selection.needs), ["SCHEMA", "SCHEMA", "TYPE", "TYPE", "DOMAIN"]);
    }

    #[test]
    fn sections_keep_all_entries_in_order() {
        let toc = Toc::parse(ARCHIVES[0]).expect("sound");
        let sections = sections(&toc);
        let all = [&*sections.pre_data, &*sections.data, &*sections.post_data].concat();
        assert_eq!(all, toc.entries.iter().map(|entry| entry.dump_id).collect::<Vec<_>>());
        assert!(sections.data.len() >= 14 && sections.post_data.len() > 10);
    }

    #[test]
    fn damaged_archives_never_panic() {
        let mut noise = Noise(5);
        for round in 0..2000 {
            if let Ok(toc) = Toc::parse(&noise.damage(ARCHIVES[round % 3])) {
                let wanted = [Name::new("plain", "serials"), Name::new("plain", "part")];
                select(&toc, &with_partitions(&toc, &wanted));
                sections(&toc);
                schema_hash(&toc);
            }
        }
    }
}
