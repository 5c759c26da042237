//! The sections of a plain SQL dump of pg_dump: the comment before every object, what the statements
//! behind it are about, and how sections make up tables.

use std::collections::{BTreeMap, BTreeSet};

use blake3::Hasher;

use super::subject::{Name, Subject, Ties, extension, new_table, primary_key, roles, subject};
use super::{Extension, Range, Table, schema};

/// What the comment before an object says. Line breaks in names are blanks there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Heading {
    pub name: String,
    pub kind: String,
    pub schema: String,
    pub owner: String,
}

/// Reads `-- Name: x; Type: y; Schema: z; Owner: w`, also of rows (`-- Data for Name: …`) and of
/// statistics.
pub(super) fn heading(line: &str) -> Option<Heading> {
    let prefixes = ["-- Name: ", "-- Data for Name: ", "-- Statistics for Name: "];
    let line = prefixes.iter().find_map(|prefix| line.strip_prefix(prefix))?;
    let (line, owner) = line.rsplit_once("; Owner: ")?;
    let (line, schema) = line.rsplit_once("; Schema: ")?;
    let (name, kind) = line.rsplit_once("; Type: ")?;
    let owner = owner.split_once("; Tablespace: ").map_or(owner, |(owner, _)| owner);
    let known = |text: &str| if text == "-" { String::new() } else { text.to_owned() };
    Some(Heading {
        name: name.to_owned(),
        kind: kind.to_owned(),
        schema: known(schema),
        owner: known(owner),
    })
}

/// An object of a dump, with its statements.
#[derive(Debug)]
pub(super) struct Section {
    pub heading: Heading,
    pub range: Range,
    /// Settings that hold for it and were made before it.
    pub settings: Vec<Range>,
    /// Whether its rows go to a partitioned table, not to the table it names.
    pub via_root: bool,
    subject: Option<Subject>,
    key: Option<Vec<String>>,
    extension: Option<Extension>,
    roles: Vec<String>,
    statements: u64,
    hasher: Hasher,
}

impl Section {
    /// With its comment at `start`.
    pub fn new(heading: Heading, start: u64, settings: Vec<Range>) -> Self {
        Self {
            heading,
            range: Range { start, end: start },
            settings,
            via_root: false,
            subject: None,
            key: None,
            extension: None,
            roles: Vec::new(),
            statements: 0,
            hasher: Hasher::new(),
        }
    }

    /// Takes its next statement.
    pub fn push(&mut self, statement: &str, len: u64) {
        if self.statements == 0 {
            self.subject = subject(statement, &self.heading.schema);
            self.key = primary_key(statement);
            self.extension = extension(statement);
        } else if statement.starts_with("ALTER ") && statement.contains(" OWNER TO ") {
            return;
        }
        self.statements += 1;
        if ["ACL", "DEFAULT ACL", "POLICY"].contains(&self.heading.kind.as_str()) {
            roles(statement, &mut self.roles);
        }
        self.hasher.update(&len.to_le_bytes());
        self.hasher.update(statement.as_bytes());
    }

    /// Whether it holds rows.
    pub fn is_data(&self) -> bool {
        self.heading.kind == "TABLE DATA"
    }

    fn is_definition(&self) -> bool {
        let kind = self.heading.kind.as_str();
        let data = ["DATABASE", "SEQUENCE SET", "BLOB", "BLOBS", "BLOB METADATA", "BLOB COMMENTS"];
        let about = ["LARGE OBJECT ", "LARGE OBJECTS ", "DATABASE "];
        let attached = ["COMMENT", "ACL", "SECURITY LABEL"].contains(&kind);
        let about = attached && about.iter().any(|of| self.heading.name.starts_with(of));
        !about && !data.contains(&kind) && !kind.ends_with(" DATA")
    }

    fn part(&self) -> schema::Part {
        let statements = self.hasher.finalize().to_hex();
        schema::part(&[&self.heading.kind, &self.heading.schema, &self.heading.name, &statements])
    }
}

/// What the sections of a dump say together.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub schema_hash: String,
    pub extensions: Vec<Extension>,
    pub roles: Vec<String>,
}

/// Fills in definitions, hashes and keys of the tables, adding those without rows.
pub(super) fn summarize(sections: &[Section], tables: &mut BTreeMap<Name, Table>) -> Summary {
    let ties = Ties::new(sections.iter().filter_map(|section| section.subject.as_ref()));
    let mut parts: BTreeMap<&Name, Vec<schema::Part>> = BTreeMap::new();
    let mut ranges: BTreeMap<&Name, BTreeSet<(u64, u64)>> = BTreeMap::new();
    for section in sections {
        let subject = section.subject.as_ref();
        let Some(name) = subject.and_then(|subject| ties.table(&subject.belongs)) else { continue };
        if section.heading.kind == "TABLE" {
            tables.entry(name.clone()).or_insert_with(|| new_table(name));
        }
        let all = section.settings.iter().chain([&section.range]).filter(|_| !section.is_data());
        ranges.entry(name).or_default().extend(all.map(|range| (range.start, range.end)));
        if section.is_definition() {
            parts.entry(name).or_default().push(section.part());
        }
    }
    for section in sections {
        let subject = section.subject.as_ref();
        let table = subject.and_then(|subject| ties.table(&subject.belongs));
        if let (Some(table), Some(key)) =
            (table.and_then(|name| tables.get_mut(name)), &section.key)
        {
            table.key.clone_from(key);
        }
    }
    for (name, table) in tables {
        table.schema_hash = parts.remove(name).map(schema::hash).unwrap_or_default();
        let ranges = ranges.remove(name).unwrap_or_default();
        table.definition = ranges.into_iter().map(|(start, end)| Range { start, end }).collect();
    }
    let definitions = sections.iter().filter(|section| section.is_definition());
    let roles = sections.iter().flat_map(|section| section.roles.iter());
    let owners = sections.iter().map(|section| &section.heading.owner);
    let roles: BTreeSet<String> = roles.chain(owners).cloned().collect();
    Summary {
        schema_hash: schema::hash(definitions.map(Section::part).collect()),
        extensions: sections.iter().filter_map(|section| section.extension.clone()).collect(),
        roles: roles.into_iter().filter(|role| !role.is_empty()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_are_read_with_odd_names() {
        let read =
            heading("-- Name: a; Type: b; Type: TABLE; Schema: S.x; Owner: me").expect("one");
        assert_eq!((read.name.as_str(), read.kind.as_str()), ("a; Type: b", "TABLE"));
        let read =
            heading("-- Data for Name: t; Type: TABLE DATA; Schema: -; Owner: -").expect("one");
        assert_eq!((read.schema.as_str(), read.owner.as_str()), ("", ""));
        let read = heading("-- Name: t; Type: INDEX; Schema: s; Owner: o; Tablespace: fast");
        assert_eq!(read.expect("one").owner, "o");
        assert_eq!(heading("-- Name: t"), None);
    }
}
