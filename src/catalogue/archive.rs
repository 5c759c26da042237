//! Reads an uncompressed archive of `pg_dump -Fc` as it passes by: its table of contents, then the
//! rows of every table, counted and hashed.
//!
//! Keeps the table of contents and the small state of one block. What it finds out of place ends the
//! reading, never the caller's stream: the archive is then reported as not complete.

use std::collections::HashMap;

use super::definitions;
use super::frame::{Deframer, Frame, FrameError};
use super::insert::InsertCounter;
use super::rows::{RowCounter, Tally};
use super::scan::Scanned;
use super::selection::{self, Owners};
use super::subject::{Name, columns, extension, primary_key};
use super::toc::{Compression, Offset, Section, Toc, TocEntry, TocError, TocReader};
use super::{Catalogue, Encoding, Mode, Range, Table};

/// Takes an archive piece by piece.
#[derive(Debug, Default)]
pub(super) struct ArchiveScanner {
    stage: Stage,
    deframer: Deframer,
    /// Bytes of the stream that were taken.
    taken: u64,
    block: Option<Block>,
    tallies: HashMap<usize, Tally>,
    warnings: Vec<String>,
}

#[derive(Debug)]
enum Stage {
    Head(TocReader),
    Data {
        toc: Toc,
        by_id: HashMap<i32, usize>,
    },
    /// Reading ended before the stream did.
    Ended {
        toc: Toc,
        complete: Result<(), String>,
    },
    /// Nothing that is read here.
    Foreign,
}

impl Default for Stage {
    fn default() -> Self {
        Self::Head(TocReader::new())
    }
}

/// The block that is being read.
#[derive(Debug)]
struct Block {
    entry: Option<usize>,
    start: u64,
    rows: Option<RowCounter>,
    inserts: Option<InsertCounter>,
}

impl ArchiveScanner {
    /// Takes the next piece.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if let Stage::Head(reader) = &mut self.stage {
            let step = reader.push(bytes);
            let compressed =
                reader.header().is_some_and(|toc| toc.compression != Compression::None);
            self.stage = match step {
                _ if compressed => Stage::Foreign,
                Ok(None) => return self.taken += bytes.len() as u64,
                Ok(Some((toc, _))) if toc.compression != Compression::None => Stage::Foreign,
                Ok(Some((toc, behind))) => {
                    rest = &bytes[bytes.len() - behind.min(bytes.len())..];
                    data_stage(toc)
                }
                Err(TocError::NotArchive | TocError::Version(..)) => Stage::Foreign,
                Err(error) => {
                    let toc = reader.header().cloned().unwrap_or_default();
                    Stage::Ended { toc, complete: Err(error.to_string()) }
                }
            };
            self.taken += (bytes.len() - rest.len()) as u64;
        }
        self.data(rest);
    }

    /// Whether the stream is nothing that is read here, so that further bytes need not be given.
    pub fn is_foreign(&self) -> bool {
        matches!(self.stage, Stage::Foreign)
    }

    fn data(&mut self, bytes: &[u8]) {
        let Stage::Data { toc, by_id } = &mut self.stage else { return };
        let mut rest = bytes;
        let outcome = loop {
            let at = self.taken + (bytes.len() - rest.len()) as u64;
            let between = self.deframer.between_blocks();
            match self.deframer.next(&mut rest) {
                Ok(Frame::More) => break None,
                Ok(Frame::Block { dump_id }) => {
                    // A head of six bytes may have begun in the piece before.
                    let behind = self.taken + (bytes.len() - rest.len()) as u64;
                    let start = if between { at } else { behind - 6 };
                    self.block = Some(Block::new(toc, by_id.get(&dump_id).copied(), start));
                }
                Ok(Frame::Payload(payload)) => {
                    if let Some(block) = &mut self.block {
                        block.push(payload);
                    }
                }
                Ok(Frame::Object) => {}
                Ok(Frame::End) => {
                    let end = self.taken + (bytes.len() - rest.len()) as u64;
                    match self.block.take() {
                        Some(Block { entry: None, .. }) | None => {
                            let warning = "a data block of no entry";
                            self.warnings.push(format!("{warning} ends at byte {end}"));
                        }
                        Some(block) => block.close(end, toc, &mut self.tallies),
                    }
                }
                // pg_dump 16 and later, told to write to a file as its standard output, means to
                // replace the table of contents but appends it.
                Err(FrameError::Kind(0)) if missing(toc).next().is_none() => break Some(Ok(())),
                Err(error) => {
                    let behind = self.taken + (bytes.len() - rest.len()) as u64;
                    break Some(Err(format!("before byte {behind}: {error}")));
                }
            }
        };
        self.taken += bytes.len() as u64;
        if let Some(complete) = outcome {
            let toc = std::mem::take(toc);
            self.stage = Stage::Ended { toc, complete };
        }
    }

    /// After the last byte; none where it was not an archive that is read here.
    pub fn finish(self, stream: &str) -> Option<Scanned> {
        let mut warnings = self.warnings;
        let (toc, complete) = match self.stage {
            Stage::Foreign => return None,
            Stage::Head(reader) => {
                let toc = reader.header().cloned().unwrap_or_default();
                (toc, Err("the archive ends within its table of contents".to_owned()))
            }
            Stage::Ended { toc, complete } => (toc, complete),
            Stage::Data { toc, .. } => {
                let complete = complete(&toc, self.block.as_ref(), &self.deframer);
                (toc, complete)
            }
        };
        let catalogue = catalogue(&toc, &self.tallies, stream, &mut warnings);
        let preamble = Range { start: 0, end: toc.head_len as u64 };
        let trailer = Range::default();
        Some(Scanned { catalogue, complete, warnings, preamble, trailer, toc: Some(toc) })
    }
}

fn data_stage(toc: Toc) -> Stage {
    let numbers = toc.entries.iter().map(|entry| entry.dump_id);
    let by_id = numbers.zip(0..).collect();
    Stage::Data { toc, by_id }
}

impl Block {
    fn new(toc: &Toc, entry: Option<usize>, start: u64) -> Self {
        let announced = entry.and_then(|index| toc.entries.get(index));
        let table = announced.filter(|entry| entry.desc == "TABLE DATA");
        let rows = table.map(|_| RowCounter::default());
        let statements = table.is_some_and(|entry| entry.copy_stmt.is_empty());
        let inserts = statements.then(|| InsertCounter::new(false));
        Self { entry, start, rows, inserts }
    }

    fn push(&mut self, payload: &[u8]) {
        if let Some(rows) = &mut self.rows {
            rows.push(payload);
        }
        if let Some(inserts) = &mut self.inserts {
            let mut at = 0;
            while let Some(end) = inserts.push(&payload[at..]) {
                at += end;
            }
        }
    }

    fn close(self, end: u64, toc: &mut Toc, tallies: &mut HashMap<usize, Tally>) {
        let Some(index) = self.entry else { return };
        let Some(entry) = toc.entries.get_mut(index) else { return };
        entry.data = Some(Range { start: self.start, end });
        let Some(mut rows) = self.rows else { return };
        rows.cut_marker();
        let mut tally = rows.finish();
        if let Some(inserts) = self.inserts {
            tally.rows = inserts.rows();
        }
        tallies.insert(index, tally);
    }
}

fn complete(toc: &Toc, block: Option<&Block>, deframer: &Deframer) -> Result<(), String> {
    if !deframer.between_blocks() {
        let entry = block.and_then(|block| block.entry).and_then(|index| toc.entries.get(index));
        return Err(match entry {
            Some(entry) => format!("the archive ends within {}", described(entry)),
            None => "the archive ends within a data block".to_owned(),
        });
    }
    let mut missing = missing(toc);
    match missing.next() {
        None => Ok(()),
        Some(first) => Err(format!(
            "the archive ends before {}; {} data blocks are missing",
            described(first),
            missing.count() + 1
        )),
    }
}

/// Entries whose data block was announced and not read.
fn missing(toc: &Toc) -> impl Iterator<Item = &TocEntry> {
    toc.entries
        .iter()
        .filter(|entry| entry.had_dumper && entry.offset != Offset::NoData && entry.data.is_none())
}

fn described(entry: &TocEntry) -> String {
    match entry.desc.as_str() {
        "TABLE DATA" => format!("the rows of {}.{}", entry.namespace, entry.tag),
        _ => format!("{} {}", entry.desc, entry.tag),
    }
}

fn catalogue(
    toc: &Toc,
    tallies: &HashMap<usize, Tally>,
    stream: &str,
    warnings: &mut Vec<String>,
) -> Catalogue {
    let owners = Owners::new(toc);
    let mut tables = tables(toc, &owners);
    let mut statements = 0;
    for (index, tally) in tallies {
        let Some(entry) = toc.entries.get(*index) else { continue };
        let name = Name::new(&*entry.namespace, &*entry.tag);
        let Some(table) = tables.get_mut(&name) else { continue };
        table.rows = tally.rows;
        table.bytes = tally.bytes;
        table.rows_hash = tally.hash.clone();
        table.stream = stream.to_owned();
        table.data = entry.data.into_iter().collect();
        statements += usize::from(entry.copy_stmt.is_empty());
    }
    if statements > 0 {
        warnings.push(format!("the rows of {statements} tables are INSERT statements"));
    }
    let mut tables: Vec<Table> = tables.into_values().collect();
    tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    let definitions = toc
        .entries
        .iter()
        .filter_map(|entry| extension(&entry.defn).filter(|_| entry.desc == "EXTENSION"));
    let tool = format!("pg_dump {}", toc.dump_version);
    Catalogue {
        version: 1,
        engine: "postgres".to_owned(),
        server_version: toc.server_version.clone(),
        database: toc.database.clone(),
        mode: Mode::Archive,
        tools: vec![tool],
        schema_stream: stream.to_owned(),
        schema_hash: selection::schema_hash(toc),
        extensions: definitions.collect(),
        roles: all_roles(toc),
        tables,
        ..Catalogue::default()
    }
}

fn tables(toc: &Toc, owners: &Owners) -> HashMap<Name, Table> {
    let mut hashes = selection::table_hashes(toc, owners);
    let mut tables: HashMap<Name, Table> = HashMap::new();
    for entry in &toc.entries {
        if !["TABLE", "TABLE DATA"].contains(&entry.desc.as_str()) {
            continue;
        }
        let name = Name::new(&*entry.namespace, &*entry.tag);
        let table = tables.entry(name).or_insert_with_key(|name| Table {
            schema: name.schema.clone(),
            name: name.name.clone(),
            schema_hash: hashes.remove(name).unwrap_or_default(),
            encoding: Encoding::ArchiveBlock,
            ..Table::default()
        });
        if entry.desc == "TABLE DATA" {
            table.columns = columns(&entry.copy_stmt);
        }
    }
    for (entry, owner) in toc.entries.iter().zip(owners.of_entries()) {
        if let ("CONSTRAINT", Some(name)) = (entry.desc.as_str(), owner)
            && let Some(key) = primary_key(&entry.defn)
            && let Some(table) = tables.get_mut(name)
        {
            table.key = key;
        }
    }
    tables
}

fn all_roles(toc: &Toc) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for entry in &toc.entries {
        if entry.section != Section::None || !entry.owner.is_empty() {
            found.push(entry.owner.clone());
        }
        if entry.desc != "DATABASE PROPERTIES" {
            found.extend(definitions::roles(entry));
        }
    }
    found.retain(|role| !role.is_empty());
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{ARCHIVES, Noise, archive, shop};
    use super::super::frame::BlockReader;
    use super::*;

    fn scan(bytes: &[u8], piece: usize) -> Option<Scanned> {
        let mut scanner = ArchiveScanner::default();
        bytes.chunks(piece).for_each(|piece| scanner.push(piece));
        scanner.finish("dump")
    }

    #[test]
    fn rows_are_counted_and_hashed_as_copy_prints_them() {
        let bytes = archive(14, false, &shop());
        let scanned = scan(&bytes, bytes.len()).expect("an archive");
        assert_eq!((&scanned.complete, scanned.warnings.len()), (&Ok(()), 0));
        let table = &scanned.catalogue.tables[0];
        let rows = b"1\t\\N\n2\t\\\\.\n3\tx\n";
        assert_eq!((table.rows, table.bytes), (3, rows.len() as u64));
        assert_eq!(table.rows_hash, blake3::hash(rows).to_hex().to_string());
        assert_eq!(table.columns, ["id", "n,\"x"]);
        assert_eq!(table.key, ["id", "n,\"x"]);
        assert_eq!(scanned.catalogue.roles, ["owner"]);
        let empty = &scanned.catalogue.tables[1];
        assert_eq!((empty.name.as_str(), empty.rows, empty.bytes), ("c", 0, 0));
        assert_eq!(empty.rows_hash, blake3::hash(b"").to_hex().to_string());
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        for bytes in ARCHIVES.iter().map(|bytes| bytes.to_vec()).chain([archive(12, true, &shop())])
        {
            let whole = scan(&bytes, bytes.len()).expect("an archive");
            assert_eq!(whole.complete, Ok(()));
            for piece in [1, 2, 5, 6, 7, 11, 64, 4097] {
                assert_eq!(scan(&bytes, piece), Some(whole.clone()), "{piece}");
            }
        }
    }

    #[test]
    fn ranges_are_blocks_that_read_back() {
        for bytes in ARCHIVES {
            let scanned = scan(bytes, 100).expect("an archive");
            let with_rows = scanned.catalogue.tables.iter().filter(|table| !table.data.is_empty());
            let mut blocks = 0;
            for table in with_rows {
                let range = table.data[0].start as usize..table.data[0].end as usize;
                let (mut reader, mut rows) = (BlockReader::new(), Vec::new());
                reader.push(&bytes[range], &mut rows).expect("sound");
                assert!(reader.finish(&mut rows).expect("sound"));
                assert_eq!(table.rows_hash, blake3::hash(&rows).to_hex().to_string());
                assert_eq!(table.bytes, rows.len() as u64);
                blocks += 1;
            }
            assert_eq!(blocks, 14);
        }
    }

    #[test]
    fn cut_archives_are_not_complete() {
        for bytes in ARCHIVES {
            for len in (5..bytes.len()).step_by(7) {
                let scanned = scan(&bytes[..len], 1000).expect("an archive");
                assert!(scanned.complete.is_err(), "{len}");
            }
        }
    }

    #[test]
    fn definitions_change_their_hashes_and_positions_of_sequences_do_not() {
        let hashes = |entries: &[super::super::fixture::Entry]| {
            let catalogue = scan(&archive(16, false, entries), 99).expect("an archive").catalogue;
            (catalogue.schema_hash, catalogue.tables.into_iter().map(|table| table.schema_hash))
        };
        let (before, tables) = hashes(&shop());
        let mut entries = shop();
        entries[7].defn = "SELECT pg_catalog.setval('s.q', 4, true);\n";
        entries.swap(1, 2);
        entries[0].id = 99;
        let (after, same) = hashes(&entries);
        assert_eq!(before, after);
        assert!(tables.clone().eq(same));
        entries[9].defn =
            "ALTER TABLE ONLY s.c\n ADD CONSTRAINT fk FOREIGN KEY (y) REFERENCES s.z(i)";
        let (after, other) = hashes(&entries);
        assert_ne!(before, after);
        let changed: Vec<bool> = tables.zip(other).map(|(a, b)| a != b).collect();
        assert_eq!(changed, [false, true]);
    }

    #[test]
    fn a_table_of_contents_appended_is_no_damage() {
        let mut bytes = archive(16, false, &shop());
        let toc = Toc::parse(&bytes).expect("sound");
        let again = bytes[toc.header_len..toc.head_len].to_vec();
        bytes.extend_from_slice(&again);
        assert_eq!(scan(&bytes, 10).expect("an archive").complete, Ok(()));
    }

    #[test]
    fn compressed_archives_are_foreign() {
        let mut bytes = archive(16, false, &shop());
        bytes[11] = 1;
        assert_eq!(scan(&bytes, 10), None);
        assert_eq!(scan(&bytes[..bytes.len() / 2], 10), None);
    }

    #[test]
    fn damaged_archives_never_panic() {
        let mut noise = Noise(7);
        for round in 0..1500 {
            let damaged = noise.damage(ARCHIVES[round % 3]);
            let piece = 1 + noise.below(5000);
            scan(&damaged, piece);
        }
    }
}
