//! Reads a plain SQL dump of pg_dump as it passes by: which statements belong to which table, and the
//! rows of every table, counted and hashed.
//!
//! pg_dump writes a comment of three lines before every object; a section is what stands between two
//! of them. In the dump of a cluster, the tables of one database are told, not those of several.

use std::collections::BTreeMap;

use super::copy::CopyRows;
use super::insert::InsertRun;
use super::lexer::{Dialect, Item, Kind, Splitter};
use super::postgres_section::{Section, heading, new_table, summarize};
use super::rows::Tally;
use super::scan::Scanned;
use super::subject::{Name, Target, columns, subject};
use super::toc::text;
use super::{Catalogue, Encoding, Mode, Range, Table};

/// Settings that pg_dump changes on the way, as the objects need them.
const SETTINGS: [&str; 5] = [
    "SET default_tablespace ",
    "SET default_table_access_method ",
    "SET default_with_oids ",
    "SET search_path ",
    "SET SESSION AUTHORIZATION ",
];

/// Takes a dump piece by piece.
#[derive(Debug)]
pub(super) struct PostgresSql {
    splitter: Splitter,
    reading: Reading,
    /// The line of two dashes that may open a heading.
    dashes: Option<u64>,
    section: Option<Section>,
    sections: Vec<Section>,
    /// The settings in force, by name.
    settings: BTreeMap<&'static str, Range>,
    inserts: Option<InsertRun>,
    tables: BTreeMap<Name, Table>,
    preamble: Range,
    preamble_open: bool,
    trailer: Option<u64>,
    cluster: bool,
    /// Whether another database than that with tables is being read, …
    elsewhere: bool,
    /// … and had tables as well.
    several: bool,
    complete: bool,
    catalogue: Catalogue,
    warnings: Vec<String>,
}

#[derive(Debug)]
enum Reading {
    Sql,
    Insert,
    /// The rest of the line of a `COPY`.
    CopyLine(Name),
    Copy {
        name: Name,
        start: u64,
        rows: Box<CopyRows>,
    },
}

impl PostgresSql {
    /// At the start of a dump.
    pub fn new() -> Self {
        Self {
            splitter: Splitter::new(Dialect::Postgres),
            reading: Reading::Sql,
            dashes: None,
            section: None,
            sections: Vec::new(),
            settings: BTreeMap::new(),
            inserts: None,
            tables: BTreeMap::new(),
            preamble: Range::default(),
            preamble_open: true,
            trailer: None,
            cluster: false,
            elsewhere: false,
            several: false,
            complete: false,
            catalogue: Catalogue::default(),
            warnings: Vec::new(),
        }
    }

    /// Takes the next piece.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match std::mem::replace(&mut self.reading, Reading::Sql) {
                Reading::Sql => {
                    if let Some(item) = self.splitter.next(&mut rest) {
                        self.item(item);
                    }
                }
                Reading::Insert => self.insert(&mut rest),
                Reading::CopyLine(name) => self.copy_line(&mut rest, name),
                Reading::Copy { name, start, rows } => self.copy(&mut rest, name, start, rows),
            }
        }
    }

    fn advance(&mut self, rest: &mut &[u8], len: usize) {
        *rest = rest.get(len..).unwrap_or_default();
        self.splitter.skip(len);
    }

    fn insert(&mut self, rest: &mut &[u8]) {
        let end = self.inserts.as_mut().and_then(|inserts| inserts.push(rest));
        self.advance(rest, end.unwrap_or(rest.len()));
        match (&mut self.inserts, end) {
            (Some(inserts), Some(_)) => inserts.range.end = self.splitter.at(),
            _ => self.reading = Reading::Insert,
        }
    }

    fn copy_line(&mut self, rest: &mut &[u8], name: Name) {
        let line = memchr::memchr(b'\n', rest);
        self.advance(rest, line.map_or(rest.len(), |at| at + 1));
        let start = self.splitter.at();
        self.reading = match line {
            None => Reading::CopyLine(name),
            Some(_) => Reading::Copy { name, start, rows: Box::new(CopyRows::new()) },
        };
    }

    fn copy(&mut self, rest: &mut &[u8], name: Name, start: u64, mut rows: Box<CopyRows>) {
        let end = rows.push(rest);
        self.advance(rest, end.unwrap_or(rest.len()));
        if end.is_none() {
            self.reading = Reading::Copy { name, start, rows };
            return;
        }
        let end = self.splitter.at() - CopyRows::end_len();
        self.add_rows(&name, Encoding::CopyInSql, rows.finish(), Range { start, end });
    }

    /// Notes rows; of a table that has some already, only where they are.
    fn add_rows(&mut self, name: &Name, encoding: Encoding, tally: Tally, range: Range) {
        let table = self.tables.entry(name.clone()).or_insert_with(|| new_table(name));
        if !table.data.is_empty() {
            self.warnings.push(format!("{}.{} has rows in two places", name.schema, name.name));
            table.rows_hash = String::new();
        } else {
            table.rows_hash = tally.hash;
        }
        table.rows += tally.rows;
        table.bytes += tally.bytes;
        table.encoding = encoding;
        table.data.push(range);
    }

    fn item(&mut self, item: Item) {
        match item.kind {
            Kind::Comment => self.comment(&text(item.text.trim_ascii()), item.range),
            Kind::Command => self.command(&text(item.text.trim_ascii())),
            Kind::Statement => self.statement(&text(&item.text), item.range),
            Kind::Insert => {
                let escapes = self.splitter.escapes;
                let start = item.range.start;
                let inserts = self.inserts.get_or_insert_with(|| InsertRun::new(start, escapes));
                inserts.push(&item.text);
                self.reading = Reading::Insert;
            }
        }
    }

    fn comment(&mut self, line: &str, range: Range) {
        if line == "--" {
            self.dashes = self.dashes.or(Some(range.start));
            return;
        }
        let opened = self.dashes;
        if let Some(heading) = heading(line)
            && let Some(start) = opened
        {
            self.close_section(start);
            let settings = self.settings.values().copied().collect();
            self.splitter.give_inserts = heading.kind == "TABLE DATA";
            self.section = Some(Section::new(heading, start, settings));
        } else if let Some(version) = line.strip_prefix("-- Dumped from database version ") {
            version.clone_into(&mut self.catalogue.server_version);
        } else if let Some(version) = line.strip_prefix("-- Dumped by pg_dump version ") {
            self.catalogue.tools = vec![format!("pg_dump {version}")];
        } else if line.starts_with("-- load via partition root ") {
            self.section.iter_mut().for_each(|section| section.via_root = true);
        } else {
            return self.border(line, opened.unwrap_or(range.start));
        }
        // The heading's last line is not the first of another.
        self.dashes = None;
    }

    /// The first and last lines of dumps.
    fn border(&mut self, line: &str, start: u64) {
        match line {
            "-- PostgreSQL database cluster dump" => self.cluster = true,
            "-- PostgreSQL database dump" if self.cluster => {
                self.close_section(start);
                if !self.has_tables() {
                    self.sections.clear();
                    self.preamble = Range { start, end: start };
                    self.preamble_open = true;
                    self.trailer = None;
                }
                self.complete = false;
            }
            "-- PostgreSQL database dump complete" => {
                self.close_section(start);
                self.trailer = self.trailer.or(Some(start));
                self.complete = !self.cluster;
            }
            "-- PostgreSQL database cluster dump complete" => self.complete = true,
            _ => return,
        }
        self.dashes = None;
    }

    fn command(&mut self, line: &str) {
        let Some(database) = line.strip_prefix("\\connect ") else { return };
        let database = database.trim_matches('"').to_owned();
        if self.has_tables() {
            self.elsewhere = self.catalogue.database != database;
        } else {
            self.catalogue.database = database;
        }
    }

    fn statement(&mut self, statement: &str, range: Range) {
        self.dashes = None;
        if let Some(name) = SETTINGS.into_iter().find(|name| statement.starts_with(name)) {
            // It is for the sections that follow.
            self.section.iter_mut().for_each(|section| end_section(section, range.start));
            self.settings.insert(name, range);
            return;
        }
        if statement.starts_with("SET standard_conforming_strings = ") {
            self.splitter.escapes = statement.contains("off");
        }
        let Some(section) = &mut self.section else { return };
        if statement.starts_with("COPY ") && statement.ends_with(" FROM stdin;") {
            return self.copy_statement(statement);
        }
        section.push(statement, range.len());
    }

    fn copy_statement(&mut self, statement: &str) {
        let Some(section) = &self.section else { return };
        let name = match subject(statement, &section.heading.schema) {
            // The rows of a partition that go to the partitioned table.
            _ if section.via_root => Name::new(&*section.heading.schema, &*section.heading.name),
            Some(super::subject::Subject { belongs: Target::Table(name), .. }) => name,
            _ => Name::new(&*section.heading.schema, &*section.heading.name),
        };
        let table = self.tables.entry(name.clone()).or_insert_with(|| new_table(&name));
        table.columns = columns(statement);
        self.reading = Reading::CopyLine(name);
    }

    fn close_section(&mut self, at: u64) {
        if std::mem::take(&mut self.preamble_open) {
            self.preamble.end = at;
        }
        self.splitter.give_inserts = false;
        let Some(mut section) = self.section.take() else { return };
        end_section(&mut section, at);
        if let Some(inserts) = self.inserts.take() {
            let range = inserts.range;
            let (head, tally) = inserts.finish();
            let head = text(&head);
            let named = subject(&head, &section.heading.schema).map(|subject| subject.belongs);
            let name = match named {
                Some(Target::Table(name)) if !section.via_root => name,
                _ => Name::new(&*section.heading.schema, &*section.heading.name),
            };
            self.add_rows(&name, Encoding::Statements, tally, range);
            self.tables.entry(name).and_modify(|table| table.columns = columns(&head));
        }
        if self.elsewhere {
            self.several |= section.heading.kind.starts_with("TABLE");
        } else {
            self.sections.push(section);
        }
    }

    fn has_tables(&self) -> bool {
        let mut kinds = self.sections.iter().map(|section| section.heading.kind.as_str());
        !self.tables.is_empty() || kinds.any(|kind| kind == "TABLE")
    }

    /// After the last byte.
    pub fn finish(mut self, stream: &str) -> Scanned {
        let end = self.splitter.at();
        let complete = self.verdict();
        self.close_section(self.trailer.unwrap_or(end));
        let mut tables = std::mem::take(&mut self.tables);
        let summary = summarize(&self.sections, &mut tables);
        let mut warnings = self.warnings;
        if self.several {
            warnings.push("a dump of several databases: their tables are not told".to_owned());
            tables.clear();
        }
        for table in tables.values_mut().filter(|table| !table.data.is_empty()) {
            stream.clone_into(&mut table.stream);
        }
        let catalogue = Catalogue {
            version: 1,
            engine: "postgres".to_owned(),
            mode: Mode::Sql,
            schema_stream: stream.to_owned(),
            schema_hash: summary.schema_hash,
            extensions: summary.extensions,
            roles: summary.roles,
            tables: tables.into_values().collect(),
            ..self.catalogue
        };
        let trailer = Range { start: self.trailer.unwrap_or(end), end };
        Scanned { catalogue, complete, warnings, preamble: self.preamble, trailer, toc: None }
    }

    fn verdict(&self) -> Result<(), String> {
        let within = match (&self.reading, &self.section) {
            (Reading::CopyLine(name) | Reading::Copy { name, .. }, _) => {
                format!("within the rows of {}.{}", name.schema, name.name)
            }
            (Reading::Insert, Some(section)) => {
                format!("within the rows of {}.{}", section.heading.schema, section.heading.name)
            }
            _ if !self.splitter.is_between() => "within a statement".to_owned(),
            _ if self.complete => return Ok(()),
            (_, Some(section)) => {
                format!("after {} {}", section.heading.kind, section.heading.name)
            }
            _ => "early".to_owned(),
        };
        Err(format!("the dump ends {within}: its last line is missing"))
    }
}

fn end_section(section: &mut Section, at: u64) {
    if section.range.end == section.range.start {
        section.range.end = at;
    }
}
