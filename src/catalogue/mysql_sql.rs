//! Reads a dump of mariadb-dump or mysqldump as it passes by: which statements define which table, and
//! the statements that hold its rows, counted and hashed.
//!
//! The dump programs write a comment before each table's definition and before its rows; triggers
//! follow the rows without one.

use std::collections::{BTreeMap, BTreeSet};

use super::insert::InsertRun;
use super::lexer::{Dashes, Dialect, Item, Kind, Splitter};
use super::mysql_words::{
    Heading, database_of, definer, heading, insert_columns, is_open, name_after, note_position,
    table_columns, tool, without_counter,
};
use super::scan::Scanned;
use super::seam::{HEADER_END, Seam};
use super::subject::{Name, new_table};
use super::toc_cursor::text;
use super::{Catalogue, Encoding, Mode, Range, Table, schema};

/// How statements begin that some dumps hold to set up replication.
const REPLICATION: [&str; 3] = ["CHANGE ", "SET GLOBAL ", "SET @@"];

/// How statements begin that stand around the rows of a table.
const FRAME: [&str; 6] = [
    "LOCK TABLES ",
    "UNLOCK TABLES",
    "/*!40000 ALTER TABLE ",
    "/*M!101100 SET @old_system_versioning",
    "/*M!101100 SET system_versioning",
    "/*M!101100 SET @@session.system_versioning",
];

/// Takes a dump piece by piece.
#[derive(Debug)]
pub(super) struct MysqlSql {
    splitter: Splitter,
    in_insert: bool,
    dashes: Dashes,
    section: Option<Section>,
    schema: String,
    tables: BTreeMap<Name, Table>,
    parts: BTreeMap<Name, Vec<schema::Part>>,
    other_parts: Vec<schema::Part>,
    roles: BTreeSet<String>,
    preamble_end: u64,
    preamble_open: bool,
    trailer: Option<u64>,
    complete: bool,
    /// A dump ended before its last line, and another one began.
    is_cut: bool,
    /// A name goes on in the next comment line.
    in_name: bool,
    /// Where the current `INSERT` began.
    insert_start: u64,
    seam: Seam,
    catalogue: Catalogue,
}

/// What stands behind a comment, up to the next.
#[derive(Debug)]
struct Section {
    kind: Heading,
    start: u64,
    /// The table as its statements name it.
    name: Option<String>,
    inserts: Option<InsertRun>,
    /// From the first statement that stands around the rows to the last.
    frame: Option<Range>,
    /// Behind the rows: triggers.
    tail: Option<u64>,
}

impl MysqlSql {
    /// At the start of a dump.
    pub fn new() -> Self {
        Self {
            splitter: Splitter::new(Dialect::Mysql),
            in_insert: false,
            dashes: Dashes::default(),
            section: None,
            schema: String::new(),
            tables: BTreeMap::new(),
            parts: BTreeMap::new(),
            other_parts: Vec::new(),
            roles: BTreeSet::new(),
            preamble_end: 0,
            preamble_open: true,
            trailer: None,
            complete: false,
            is_cut: false,
            in_name: false,
            insert_start: 0,
            seam: Seam::default(),
            catalogue: Catalogue::default(),
        }
    }

    /// Takes the next piece.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.in_insert {
                self.insert(&mut rest);
            } else if let Some(item) = self.splitter.next(&mut rest) {
                self.item(item);
            }
        }
    }

    fn insert(&mut self, rest: &mut &[u8]) {
        let inserts = self.section.as_mut().and_then(|section| section.inserts.as_mut());
        let Some(inserts) = inserts else {
            self.in_insert = false;
            return;
        };
        let end = inserts.push(rest);
        let len = end.unwrap_or(rest.len());
        self.is_cut |= self.seam.find(&rest[..len]);
        *rest = &rest[len..];
        self.splitter.skip(len);
        if end.is_some() {
            inserts.range.end = self.splitter.at();
            self.in_insert = false;
            let longest = &mut self.catalogue.longest_statement;
            *longest = (*longest).max(inserts.range.end - self.insert_start);
        }
    }

    fn item(&mut self, item: Item) {
        match item.kind {
            Kind::Comment => self.comment(&text(item.text.trim_ascii()), item.range),
            Kind::Command => self.note_tail(item.range.start),
            Kind::Statement => {
                let longest = &mut self.catalogue.longest_statement;
                *longest = (*longest).max(item.range.len());
                self.statement(&text(&item.text), item.range);
            }
            Kind::Insert => {
                self.complete = false;
                self.insert_start = item.range.start;
                self.seam = Seam::default();
                let Some(section) = &mut self.section else { return };
                let run =
                    section.inserts.get_or_insert_with(|| InsertRun::new(item.range.start, true));
                run.push(&item.text);
                self.in_insert = true;
            }
        }
    }

    fn comment(&mut self, line: &str, range: Range) {
        let is_rest = std::mem::take(&mut self.in_name);
        if self.dashes.line(if is_rest { "-- …" } else { line }, range) {
            return;
        }
        if is_rest {
            // Whatever it looks like.
            self.in_name = !is_open(line);
            return;
        }
        let start = self.dashes.opened().unwrap_or(range.start);
        if let Some(kind) = heading(line) {
            self.close_section(start);
            self.preamble_open = false;
            self.in_name = is_open(line);
            self.splitter.give_inserts = matches!(kind, Heading::Rows(_));
            if let Heading::Database(name) = &kind {
                name.clone_into(&mut self.schema);
            }
            self.section = Some(Section::new(kind, start));
        } else if line.starts_with("-- Dump completed") {
            self.close_section(start);
            self.complete = true;
        } else if let Some(version) = line.strip_prefix("-- Server version") {
            version.trim().clone_into(&mut self.catalogue.server_version);
        } else if let Some((_, database)) = line.split_once("    Database: ")
            && line.starts_with("-- Host: ")
        {
            database.trim().clone_into(&mut self.catalogue.database);
            self.schema.clone_from(&self.catalogue.database);
        } else if let Some(tool) = tool(line) {
            // Another dump may follow a whole one.
            self.close_section(start);
            self.is_cut |= !self.complete && !self.catalogue.tools.is_empty();
            (self.complete, self.trailer) = (false, None);
            self.catalogue.tools = vec![tool];
        } else {
            note_position(line, &mut self.catalogue.position);
        }
    }

    fn statement(&mut self, statement: &str, range: Range) {
        // What goes on has not ended.
        self.complete = false;
        let is_body = self.splitter.is_delimited();
        let is_sure = !is_body || statement.contains(HEADER_END);
        self.is_cut |= is_sure && Seam::default().find(statement.as_bytes());
        if !is_body && statement.starts_with("/*!") && statement.contains("=@OLD_") {
            self.close_section(range.start);
            self.trailer = self.trailer.or(Some(range.start));
            return;
        }
        if self.preamble_open {
            // The place in the binary log that some dumps set is for whole restores alone.
            match statement.starts_with("/*!") {
                true => self.preamble_end = range.end,
                false => self.preamble_open = false,
            }
        }
        if REPLICATION.iter().any(|verb| statement.starts_with(verb)) {
            // Never a part of a table.
            self.close_section(range.start);
            note_position(statement, &mut self.catalogue.position);
        }
        self.roles.extend(definer(statement));
        self.database(statement);
        let Some(section) = &mut self.section else { return };
        match section.kind {
            Heading::Table(_) if statement.starts_with("CREATE TABLE ") => {
                self.create_table(statement);
            }
            Heading::Rows(_) => self.beside_rows(statement, range),
            Heading::Other if is_creation(statement) => {
                self.other_parts.push(schema::part(&[&self.schema, statement]));
            }
            _ => {}
        }
    }

    fn database(&mut self, statement: &str) {
        let Some(name) = database_of(statement) else { return };
        let known = &mut self.catalogue.databases;
        if !known.contains(&name) {
            known.push(name.clone());
        }
        if statement.starts_with("USE ") {
            self.schema = name;
        }
    }

    fn create_table(&mut self, statement: &str) {
        let Some(section) = &mut self.section else { return };
        let without = statement.replacen("IF NOT EXISTS ", "", 1);
        section.name = name_after(&without, "TABLE ");
        let Some(name) = section.table(&self.schema) else { return };
        let (columns, key) = table_columns(statement);
        let part = schema::part(&[&without_counter(statement)]);
        // One of an earlier dump in the same stream is dropped by this one.
        self.parts.insert(name.clone(), vec![part]);
        self.tables.remove(&name);
        let table = self.tables.entry(name).or_insert_with_key(new_table);
        (table.columns, table.key) = (columns, key);
    }

    /// What stands before and behind the `INSERT` statements of a table.
    fn beside_rows(&mut self, statement: &str, range: Range) {
        let Some(section) = &mut self.section else { return };
        if let Some(name) = name_after(statement, "LOCK TABLES ")
            .or_else(|| name_after(statement, "/*!40000 ALTER TABLE "))
        {
            section.name = Some(name);
        }
        if FRAME.iter().any(|verb| statement.starts_with(verb)) {
            // Locks, keys that wait for all rows, the wish to write history: they stand around the rows.
            let frame = section.frame.get_or_insert(range);
            frame.end = range.end;
        } else if statement.starts_with("/*!50003 ") {
            self.note_tail(range.start);
        }
        let Some(name) = self.section.as_ref().and_then(|section| section.table(&self.schema))
        else {
            return;
        };
        if is_creation(statement) {
            self.parts.entry(name).or_default().push(schema::part(&[statement]));
        }
    }

    fn note_tail(&mut self, at: u64) {
        let Some(section) = &mut self.section else { return };
        if matches!(section.kind, Heading::Rows(_)) {
            section.tail = section.tail.or(Some(at));
            self.splitter.give_inserts = false;
        }
    }

    fn close_section(&mut self, at: u64) {
        self.splitter.give_inserts = false;
        let Some(mut section) = self.section.take() else { return };
        let inserts = section.inserts.take().map(|inserts| {
            let range = inserts.range;
            let (head, tally) = inserts.finish();
            (range, text(&head), tally)
        });
        if let (None, Some((_, head, _))) = (&section.name, &inserts) {
            section.name = name_after(head, " INTO ");
        }
        let Some(name) = section.table(&self.schema) else { return };
        let table = self.tables.entry(name).or_insert_with_key(new_table);
        let Heading::Rows(_) = section.kind else {
            table.definition.push(Range { start: section.start, end: at });
            return;
        };
        table.encoding = Encoding::Statements;
        if let Some(start) = section.tail {
            table.definition.push(Range { start, end: at });
        }
        let rows = inserts.as_ref().map(|(range, ..)| *range);
        table.data.extend(match (section.frame, rows) {
            (Some(frame), Some(rows)) => {
                Some(Range { start: frame.start.min(rows.start), end: frame.end.max(rows.end) })
            }
            (frame, rows) => frame.or(rows),
        });
        let Some((_, head, tally)) = inserts else {
            table.rows_hash = blake3::hash(b"").to_hex().to_string();
            return;
        };
        (table.rows, table.bytes, table.rows_hash) = (tally.rows, tally.bytes, tally.hash);
        let columns = insert_columns(&head);
        if !columns.is_empty() {
            table.columns = columns;
        }
    }

    /// After the last byte.
    pub fn finish(mut self, stream: &str) -> Scanned {
        let end = self.splitter.at();
        let complete = self.verdict();
        self.close_section(self.trailer.unwrap_or(end));
        let trailer = Range { start: self.trailer.unwrap_or(end), end };
        let mut all = self.other_parts;
        for (name, table) in &mut self.tables {
            let parts = self.parts.remove(name).unwrap_or_default();
            all.extend(
                parts
                    .iter()
                    .map(|part| schema::part(&[&name.schema, &name.name, &hex::encode(part)])),
            );
            table.schema_hash = schema::hash(parts);
            if !table.data.is_empty() {
                stream.clone_into(&mut table.stream);
            }
        }
        let names: BTreeSet<&str> = self.tables.keys().map(|name| name.schema.as_str()).collect();
        if names.len() > 1 {
            self.catalogue.database = String::new();
        }
        let tools = &self.catalogue.tools;
        let mariadb = self.catalogue.server_version.contains("MariaDB")
            || self.catalogue.server_version.is_empty()
                && tools.iter().any(|tool| tool.starts_with("mariadb"));
        let catalogue = Catalogue {
            version: 1,
            engine: if mariadb { "mariadb" } else { "mysql" }.to_owned(),
            mode: Mode::Sql,
            schema_stream: stream.to_owned(),
            schema_hash: schema::hash(all),
            roles: self.roles.into_iter().collect(),
            tables: self.tables.into_values().collect(),
            ..self.catalogue
        };
        let preamble = Range { start: 0, end: self.preamble_end };
        Scanned { catalogue, complete, warnings: Vec::new(), preamble, trailer, toc: None }
    }

    fn verdict(&self) -> Result<(), String> {
        if self.is_cut {
            let text = "another dump begins before its last line (-- Dump completed)";
            return Err(text.to_owned());
        }
        if self.complete && self.splitter.is_between() {
            return Ok(());
        }
        let table = self.section.as_ref().and_then(|section| section.table(&self.schema));
        let within = match table {
            Some(name) if self.in_insert => {
                format!("within the rows of {}.{}", name.schema, name.name)
            }
            Some(name) => format!("at the table {}.{}", name.schema, name.name),
            None => "early".to_owned(),
        };
        Err(format!("the dump ends {within}: its last line (-- Dump completed) is missing"))
    }
}

impl Section {
    fn new(kind: Heading, start: u64) -> Self {
        Self { kind, start, name: None, inserts: None, frame: None, tail: None }
    }

    fn table(&self, schema: &str) -> Option<Name> {
        let (Heading::Table(name) | Heading::Rows(name)) = &self.kind else { return None };
        let name = self.name.as_ref().unwrap_or(name);
        (!name.is_empty()).then(|| Name::new(schema, name))
    }
}

/// Whether a statement makes a view, a trigger, a routine, an event, a sequence.
fn is_creation(statement: &str) -> bool {
    let start = statement.trim_start_matches(|char: char| "/*!M ".contains(char));
    start
        .trim_start_matches(|char: char| char.is_ascii_digit() || char == ' ')
        .starts_with("CREATE")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::DUMPS;
    use super::*;

    fn scan(text: &[u8]) -> Scanned {
        let mut scanner = MysqlSql::new();
        text.chunks(1000).for_each(|piece| scanner.push(piece));
        scanner.finish("dump")
    }

    fn cut<'a>(text: &'a [u8], range: &Range) -> &'a str {
        std::str::from_utf8(&text[range.start as usize..range.end as usize]).expect("text")
    }

    fn table<'a>(scanned: &'a Scanned, schema: &str, name: &str) -> &'a Table {
        let mut tables = scanned.catalogue.tables.iter();
        tables.find(|table| table.name == name && table.schema == schema).expect("the table")
    }

    #[test]
    fn tables_have_definitions_rows_and_triggers() {
        let scanned = scan(DUMPS[3]);
        assert_eq!(scanned.complete, Ok(()));
        assert_eq!(scanned.catalogue.tables.len(), 6);
        let child = table(&scanned, "small", "child");
        let [create, trigger] = &child.definition[..] else { panic!("two ranges") };
        assert!(cut(DUMPS[3], create).starts_with("--\n-- Table structure for table `child`\n"));
        assert!(cut(DUMPS[3], trigger).starts_with("/*!50003 SET @saved"));
        assert!(cut(DUMPS[3], trigger).contains("TRIGGER tr"));
        let rows = cut(DUMPS[3], &child.data[0]);
        assert!(rows.starts_with("LOCK TABLES `child`") && rows.ends_with("UNLOCK TABLES;"));
        let unlocked = String::from_utf8_lossy(DUMPS[3]).replace("LOCK TABLES", "-- LOCK TABLES");
        let scanned_too = scan(unlocked.as_bytes());
        let rows = cut(unlocked.as_bytes(), &table(&scanned_too, "small", "empty").data[0]);
        assert!(rows.starts_with("/*!40000 ALTER TABLE `empty` DISABLE"), "{rows}");
        assert_eq!((child.rows, &child.key), (2, &vec!["id".to_owned()]));
        assert_eq!(table(&scanned, "small", "customers").rows, 12);
        assert_eq!(table(&scanned, "small", "nokey").rows, 9);
        assert_eq!(table(&scanned, "small", "odd`name.(x)").rows, 4);
        assert_eq!(table(&scanned, "small", "empty").rows, 0);
    }

    #[test]
    fn header_and_trailer_set_the_session_alone() {
        for dump in &DUMPS[3..] {
            let scanned = scan(dump);
            let preamble = cut(dump, &scanned.preamble);
            assert!(
                preamble.contains("SET NAMES utf8mb4") && preamble.ends_with("SQL_NOTES=0 */;")
            );
            assert!(!preamble.contains("CHANGE MASTER") && !preamble.contains("TABLE"));
            let trailer = cut(dump, &scanned.trailer);
            assert!(trailer.starts_with("/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;"));
            assert!(trailer.trim_end().ends_with("-- Dump completed"));
        }
    }

    #[test]
    fn the_place_in_the_binary_log_and_versions_are_told() {
        let catalogue = scan(DUMPS[3]).catalogue;
        assert_eq!((catalogue.engine.as_str(), catalogue.database.as_str()), ("mariadb", "small"));
        assert_eq!(catalogue.tools, ["mariadb-dump 10.11.19"]);
        assert_eq!(catalogue.roles, ["root@localhost"]);
        assert!(catalogue.position.binlog_position > 0);
        assert!(catalogue.position.binlog_file.starts_with("bin."));
        assert!(catalogue.position.gtid.starts_with("0-7-"));
    }

    #[test]
    fn several_databases_are_told_apart() {
        let scanned = scan(DUMPS[4]);
        assert_eq!(table(&scanned, "other2", "t").rows, 2);
        assert_eq!(scanned.catalogue.tables.len(), 7);
        assert_eq!(scanned.catalogue.database, "");
        assert!(scanned.catalogue.position.gtid.starts_with("0-7-"));
    }

    #[test]
    fn databases_are_told_by_what_goes_into_them() {
        assert_eq!(scan(DUMPS[3]).catalogue.databases, [""; 0]);
        assert_eq!(scan(DUMPS[4]).catalogue.databases, ["small", "other2"]);
        let longest = scan(DUMPS[3]).catalogue.longest_statement;
        assert!((200..4000).contains(&longest), "{longest}");
    }

    #[test]
    fn a_dump_that_is_cut_is_not_mended_by_another_that_is_whole() {
        let (first, second) = (DUMPS[3], DUMPS[4]);
        let whole = scan(&[first, second].concat());
        assert_eq!(whole.complete, Ok(()));
        assert!(cut(&[first, second].concat(), &whole.trailer).len() < 1000);
        assert_eq!(table(&whole, "small", "child").definition.len(), 2);
        let end = memchr::memmem::rfind(first, b"-- Dump completed").unwrap();
        for len in (200..end).step_by(97).chain([end]) {
            let said = scan(&[&first[..len], second].concat()).complete;
            assert!(said.is_err(), "{len}");
        }
        let more = [first, b"INSERT INTO `t` VALUES (1);\n"].concat();
        assert!(scan(&more).complete.is_err());
        assert!(scan(&[first, b"SELECT 1".as_slice()].concat()).complete.is_err());
    }

    #[test]
    fn names_with_line_breaks_are_read_from_statements() {
        let text = String::from_utf8_lossy(DUMPS[3]).into_owned();
        let in_comments = text.replace("table `customers`", "table `cust\n-- Dump completed`");
        let text = in_comments.replace("`customers`", "`cust\nDump completed`");
        assert!(text.matches("\n-- Dump completed`").count() >= 2);
        let scanned = scan(text.as_bytes());
        assert_eq!(scanned.complete, Ok(()));
        let found = table(&scanned, "small", "cust\nDump completed");
        assert_eq!((found.rows, &found.key), (12, &vec!["id".to_owned()]));
        assert_eq!(scanned.catalogue.tables.len(), 6);
        let end = text.find("-- Dumping data for table `child`").unwrap();
        assert!(scan(&text.as_bytes()[..end]).complete.is_err());
    }

    #[test]
    fn counters_do_not_change_hashes_and_triggers_do() {
        let text = String::from_utf8_lossy(DUMPS[3]).into_owned();
        let hashes = |text: &str| {
            let catalogue = scan(text.as_bytes()).catalogue;
            let child = catalogue.tables.iter().find(|table| table.name == "child").cloned();
            (catalogue.schema_hash, child.expect("the table").schema_hash)
        };
        let before = hashes(&text);
        assert!(text.contains(" AUTO_INCREMENT=16"));
        assert_eq!(hashes(&text.replace(" AUTO_INCREMENT=16", " AUTO_INCREMENT=99")), before);
        let after = hashes(&text.replace("NEW.u + 1", "NEW.u + 2"));
        assert!(after.0 != before.0 && after.1 != before.1);
        let after = hashes(&text.replace("RETURN 1", "RETURN 2"));
        assert!(after.0 != before.0 && after.1 == before.1);
    }
}
