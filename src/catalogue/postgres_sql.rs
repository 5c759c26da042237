//! Reads a plain SQL dump of pg_dump as it passes by: which statements belong to which table, and the
//! rows of every table, counted and hashed.
//!
//! pg_dump writes a comment of three lines before every object; a section is what stands between two
//! of them. In the dump of a cluster, the tables of one database are told, not those of several.

use std::collections::BTreeMap;

use super::copy::CopyRows;
use super::insert::InsertRun;
use super::lexer::{Dashes, Dialect, Item, Kind, Splitter};
use super::postgres_section::{Section, heading, summarize};
use super::rows::Tally;
use super::scan::Scanned;
use super::subject::{Name, Subject, Target, columns, new_table, subject};
use super::toc_cursor::text;
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
    dashes: Dashes,
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
            dashes: Dashes::default(),
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
        if self.dashes.line(line, range) {
            return;
        }
        let start = self.dashes.opened();
        if let (Some(heading), Some(start)) = (heading(line), start) {
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
            self.border(line, start.unwrap_or(range.start));
        }
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
            _ => {}
        }
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
            Some(Subject { belongs: Target::Table(name), .. }) => name,
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

#[cfg(test)]
mod tests {
    use super::super::fixture::DUMPS;
    use super::*;

    fn scan(text: &[u8]) -> Scanned {
        let mut scanner = PostgresSql::new();
        text.chunks(1000).for_each(|piece| scanner.push(piece));
        scanner.finish("dump")
    }

    fn cut<'a>(text: &'a [u8], range: &Range) -> &'a str {
        std::str::from_utf8(&text[range.start as usize..range.end as usize]).expect("text")
    }

    fn table<'a>(scanned: &'a Scanned, name: &str) -> &'a Table {
        let mut tables = scanned.catalogue.tables.iter();
        tables.find(|table| table.name == name).expect("the table")
    }

    #[test]
    fn a_table_has_its_statements_and_rows() {
        let scanned = scan(DUMPS[1]);
        let serials = table(&scanned, "serials");
        let kinds: Vec<&str> = serials
            .definition
            .iter()
            .filter_map(|range| cut(DUMPS[1], range).split("; Type: ").nth(1)?.split(';').next())
            .collect();
        let expected = "TABLE,COMMENT,SEQUENCE,SEQUENCE OWNED BY,COMMENT,SEQUENCE,SEQUENCE OWNED BY,\
            DEFAULT,DEFAULT,SEQUENCE SET,SEQUENCE SET,CONSTRAINT,COMMENT,TRIGGER,COMMENT,ACL,ACL";
        assert_eq!(kinds.join(","), expected);
        let rows = cut(DUMPS[1], &serials.data[0]);
        assert_eq!((serials.rows, rows.lines().count()), (20, 20));
        assert_eq!(serials.rows_hash, blake3::hash(rows.as_bytes()).to_hex().to_string());
        assert_eq!(
            (&*serials.columns, &*serials.key),
            (&["id", "second", "v"].map(String::from)[..], &["id", "second"].map(String::from)[..])
        );
        assert_eq!(serials.encoding, Encoding::CopyInSql);
    }

    #[test]
    fn headings_within_strings_and_bodies_are_none() {
        for dump in &DUMPS[..3] {
            let scanned = scan(dump);
            assert_eq!(scanned.catalogue.tables.len(), 15);
            assert!(scanned.catalogue.tables.iter().all(|table| !table.name.contains("fake")));
        }
    }

    #[test]
    fn header_and_trailer_are_told() {
        let scanned = scan(DUMPS[1]);
        let preamble = cut(DUMPS[1], &scanned.preamble);
        assert!(preamble.starts_with("--\n") && preamble.ends_with("SET row_security = off;\n\n"));
        assert!(
            cut(DUMPS[1], &scanned.trailer).starts_with("--\n-- PostgreSQL database dump comp")
        );
        assert!(cut(DUMPS[1], &scanned.trailer).contains("\\unrestrict"));
        assert_eq!(scanned.catalogue.server_version, "18.4");
        assert_eq!(scanned.catalogue.tools, ["pg_dump 18.4"]);
        assert_eq!(scanned.catalogue.roles, ["Odd Owner", "postgres", "reader"]);
        assert_eq!(scan(DUMPS[0]).catalogue.database, "small");
    }

    const HEAD: &str = "--\n-- PostgreSQL database dump\n--\n\n\\restrict TOKEN\n\nSET a = 1;\n\n";

    fn object(kind: &str, name: &str, text: &str) -> String {
        format!("--\n-- Name: {name}; Type: {kind}; Schema: s; Owner: o\n--\n\n{text}\n\n\n")
    }

    #[test]
    fn settings_between_objects_go_with_those_that_follow() {
        let text = [
            HEAD,
            "SET default_tablespace = '';\n\n",
            &object("TABLE", "a", "CREATE TABLE s.a (\n);"),
            "SET default_tablespace = fast;\n\n",
            &object("TABLE", "b", "CREATE TABLE s.b (\n);"),
        ]
        .concat();
        let scanned = scan(text.as_bytes());
        let texts = |name: &str| -> Vec<&str> {
            let ranges = &table(&scanned, name).definition;
            ranges.iter().map(|range| cut(text.as_bytes(), range).trim()).collect()
        };
        assert_eq!(texts("a")[0], "SET default_tablespace = '';");
        assert!(texts("a").len() == 2 && texts("a")[1].ends_with("s.a (\n);"));
        assert_eq!(texts("b")[0], "SET default_tablespace = fast;");
        let error = scanned.complete.expect_err("no last line");
        assert_eq!(error, "the dump ends after TABLE b: its last line is missing");
    }

    #[test]
    fn hashes_leave_out_tokens_and_owners_but_not_definitions() {
        let hash = |token: &str, owner: &str, column: &str| {
            let create = format!(
                "CREATE TABLE s.a (\n {column} int\n);\n\nALTER TABLE s.a OWNER TO {owner};"
            );
            let text = [&HEAD.replace("TOKEN", token), &object("TABLE", "a", &create)[..]].concat();
            let catalogue = scan(text.as_bytes()).catalogue;
            (catalogue.schema_hash, catalogue.tables[0].schema_hash.clone())
        };
        assert_eq!(hash("x", "me", "c"), hash("y", "you", "c"));
        let (whole, table) = hash("x", "me", "d");
        assert_ne!(whole, hash("x", "me", "c").0);
        assert_ne!(table, hash("x", "me", "c").1);
    }

    #[test]
    fn inserts_are_rows_of_their_table_alone() {
        let data = |name: &str, text: &str| {
            object("TABLE DATA", name, text).replace("-- Name", "-- Data for Name")
        };
        let text = [
            HEAD,
            &data("a", "INSERT INTO s.a (x, \"y z\") VALUES (1, 'a;(');\nINSERT INTO s.a (x, \"y z\") VALUES (2, '');"),
            &data("none", ""),
            &data("b", "INSERT INTO s.b VALUES\n\t(1),\n\t(2),\n\t(3);"),
            "--\n-- PostgreSQL database dump complete\n--\n\n",
        ]
        .concat();
        let scanned = scan(text.as_bytes());
        assert_eq!(scanned.complete, Ok(()));
        let a = table(&scanned, "a");
        assert_eq!(
            (a.rows, a.encoding, &*a.columns),
            (2, Encoding::Statements, &["x".to_owned(), "y z".to_owned()][..])
        );
        let rows = cut(text.as_bytes(), &a.data[0]);
        assert!(rows.starts_with("INSERT INTO s.a") && rows.ends_with("(2, '');"));
        assert_eq!(table(&scanned, "b").rows, 3);
        assert_eq!(scanned.catalogue.tables.len(), 2);
    }

    #[test]
    fn clusters_tell_the_tables_of_one_database() {
        let database = |name: &str, objects: &str| {
            format!(
                "\\connect {name}\n\n{HEAD}{objects}--\n-- PostgreSQL database dump complete\n--\n\n"
            )
        };
        let table = object("TABLE", "a", "CREATE TABLE s.a (\n);");
        let cluster = |databases: &[String]| {
            let text = [
                "--\n-- PostgreSQL database cluster dump\n--\n\n",
                &databases.concat(),
                "--\n-- PostgreSQL database cluster dump complete\n--\n\n",
            ]
            .concat();
            scan(text.as_bytes())
        };
        let one = cluster(&[
            database("template1", ""),
            database("shop", &table),
            database("postgres", ""),
        ]);
        assert_eq!((one.complete, one.catalogue.tables.len()), (Ok(()), 1));
        assert_eq!((one.catalogue.database.as_str(), one.warnings.len()), ("shop", 0));
        let two = cluster(&[database("x", &table), database("y", &table)]);
        assert_eq!((two.catalogue.tables.len(), two.warnings.len()), (0, 1));
    }
}
