//! Questions to the index.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};

use super::{Fate, Found, Index, IndexError, PackDirectory, Position, Totals, Turns, UNDATED};
use crate::crypto::envelope::HEADER_LEN;
use crate::crypto::keys::BlobKind;
use crate::format::directory;
use crate::format::snapshot::Snapshot;
use crate::id::{ChunkKey, ObjectName};

impl Index {
    /// Where in the log the index stands; `None` before the first entry was applied.
    pub fn position(&self) -> Result<Option<Position>, IndexError> {
        let connection = self.lock();
        let position = position(&connection)?;
        let mut fates = self.lock_fates();
        if fates.position != position {
            fates.known = self::fates(&connection)?;
            fates.none_indexed = none_indexed(&connection)?;
            fates.sealed = sealed(&connection)?;
            fates.turns = turns(&connection)?;
            fates.position = position;
        }
        Ok(position)
    }

    /// Whether a repair stands behind this state: snapshots may rely on chunks that are lost.
    pub fn was_repaired(&self) -> Result<bool, IndexError> {
        let connection = self.lock();
        let mut select = connection.prepare_cached("SELECT 1 FROM meta WHERE name='repaired'")?;
        Ok(select.exists([])?)
    }

    /// Where a chunk stands: in a live pack if there is one, else in a condemned one.
    pub fn find(&self, key: &ChunkKey) -> Result<Option<Found>, IndexError> {
        let mut condemned = None;
        for (number, ordinal) in self.places(key)? {
            let found = Found { pack: self.directory(number)?, ordinal };
            match self.fate(&found.pack.name) {
                None => return Ok(Some(found)),
                Some(Fate::Condemned) => condemned = Some(found),
                Some(Fate::Dead) => {}
            }
        }
        Ok(condemned)
    }

    /// Whether a chunk stands in a live pack, so that a writer may rely on it. Packs of write-only keys
    /// do not count: nobody proved yet that they hold what they say.
    pub fn contains_live(&self, key: &ChunkKey) -> Result<bool, IndexError> {
        let (has_sealed, none_indexed) = {
            let fates = self.lock_fates();
            (!fates.sealed.is_empty(), fates.none_indexed)
        };
        if has_sealed && !self.is_write_only {
            return self.contains_proven(key);
        }
        if none_indexed {
            let connection = self.lock();
            let mut select =
                connection.prepare_cached("SELECT 1 FROM chunk WHERE key=?1 LIMIT 1")?;
            return Ok(select.query_row([key.as_bytes()], |_| Ok(())).optional()?.is_some());
        }
        Ok(self.find(key)?.is_some_and(|found| self.fate(&found.pack.name).is_none()))
    }

    fn contains_proven(&self, key: &ChunkKey) -> Result<bool, IndexError> {
        for (number, _) in self.places(key)? {
            if self.lock_fates().sealed.contains(&number) {
                continue;
            }
            if self.fate(&self.directory(number)?.name).is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a write-only key made the pack of this number.
    pub fn is_sealed(&self, pack: i64) -> bool {
        self.lock_fates().sealed.contains(&pack)
    }

    /// Whether it knows of no pack at all; `false` where that cannot be told.
    pub fn is_empty(&self) -> bool {
        let found = self.lock().query_row("SELECT 1 FROM pack LIMIT 1", [], |_| Ok(()));
        matches!(found, Err(rusqlite::Error::QueryReturnedNoRows))
    }

    /// All packs that hold a chunk, dead ones aside.
    pub fn packs_of(&self, key: &ChunkKey) -> Result<Vec<Found>, IndexError> {
        let mut found = Vec::new();
        for (number, ordinal) in self.places(key)? {
            let pack = self.directory(number)?;
            if self.fate(&pack.name) != Some(Fate::Dead) {
                found.push(Found { pack, ordinal });
            }
        }
        Ok(found)
    }

    fn places(&self, key: &ChunkKey) -> Result<Vec<(i64, usize)>, IndexError> {
        let connection = self.lock();
        let mut select =
            connection.prepare_cached("SELECT pack, ordinal FROM chunk WHERE key=?1")?;
        let rows = select
            .query_map([key.as_bytes()], |row| Ok((row.get(0)?, row.get::<_, u32>(1)? as usize)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What prune decided about a pack; `None` for a live one.
    pub fn fate(&self, pack: &ObjectName) -> Option<Fate> {
        self.lock_fates().known.get(pack).copied()
    }

    /// Where in the log something turned.
    pub fn turns(&self) -> Turns {
        self.lock_fates().turns
    }

    /// Packs that are condemned now.
    pub fn condemned(&self) -> Vec<ObjectName> {
        let fates = self.lock_fates();
        let mut names: Vec<_> = fates
            .known
            .iter()
            .filter(|(_, fate)| **fate == Fate::Condemned)
            .map(|(name, _)| *name)
            .collect();
        names.sort_unstable();
        names
    }

    /// Objects that are condemned, where it is not known since when.
    pub fn condemned_undated(&self) -> Result<Vec<ObjectName>, IndexError> {
        let connection = self.lock();
        let mut select =
            connection.prepare_cached("SELECT name FROM fate WHERE fate=1 AND since=?1")?;
        let rows = select.query_map([UNDATED], |row| Ok(ObjectName(row.get(0)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Objects that were condemned at or before a time.
    pub fn condemned_before(
        &self,
        time: jiff::Timestamp,
        now: jiff::Timestamp,
    ) -> Result<Vec<ObjectName>, IndexError> {
        let connection = self.lock();
        // What seems to have been condemned in the future was condemned by a clock that is wrong.
        let mut select = connection.prepare_cached(
            "SELECT name FROM fate WHERE fate=1 AND since != ?3 AND (since <= ?1 OR since > ?2)",
        )?;
        let number = |time: jiff::Timestamp| i64::try_from(time.as_nanosecond());
        let limits = [number(time).unwrap_or(i64::MIN), number(now).unwrap_or(i64::MAX), UNDATED];
        let rows = select.query_map(limits, |row| Ok(ObjectName(row.get(0)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Packs, live and condemned, by the epoch of their keys: its number, how many, and their bytes.
    pub fn packs_by_epoch(&self) -> Result<Vec<(u32, u64, u64)>, IndexError> {
        let connection = self.lock();
        let mut select = connection.prepare_cached(
            "SELECT substr(header, 9, 4), count(*), sum(size) FROM pack
                 WHERE name NOT IN (SELECT name FROM fate WHERE fate=2) GROUP BY 1 ORDER BY 1",
        )?;
        let rows = select.query_map([], |row| {
            let epoch = u32::from_le_bytes(row.get(0)?);
            Ok((epoch, row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Names of all packs, each with the idx object that names it.
    pub fn packs_by_index(&self) -> Result<Vec<(ObjectName, ObjectName)>, IndexError> {
        let connection = self.lock();
        let mut select = connection.prepare_cached(
            "SELECT i.name, p.name FROM pack p JOIN idx i ON i.number = p.idx ORDER BY p.number",
        )?;
        let rows =
            select.query_map([], |row| Ok((ObjectName(row.get(0)?), ObjectName(row.get(1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Packs that are dead.
    pub fn dead(&self) -> Vec<ObjectName> {
        let fates = self.lock_fates();
        let mut names: Vec<_> = fates
            .known
            .iter()
            .filter(|(_, fate)| **fate == Fate::Dead)
            .map(|(name, _)| *name)
            .collect();
        names.sort_unstable();
        names
    }

    /// Live snapshots, oldest first.
    pub fn snapshots(&self) -> Result<Vec<(ObjectName, Snapshot)>, IndexError> {
        let connection = self.lock();
        let mut select = connection.prepare_cached("SELECT name, manifest FROM snapshot")?;
        let rows =
            select.query_map([], |row| Ok((ObjectName(row.get(0)?), row.get::<_, Vec<u8>>(1)?)))?;
        let mut snapshots = Vec::new();
        for row in rows {
            let (name, manifest) = row?;
            let snapshot =
                Snapshot::decode(&manifest).map_err(|_| IndexError::Damaged("snapshot"))?;
            snapshots.push((name, snapshot));
        }
        snapshots.sort_by(|(a_name, a), (b_name, b)| (a.time, a_name).cmp(&(b.time, b_name)));
        Ok(snapshots)
    }

    /// Names of the live snapshots.
    pub fn snapshot_names(&self) -> Result<Vec<ObjectName>, IndexError> {
        names(&self.lock(), "SELECT name FROM snapshot ORDER BY name")
    }

    /// Names of the valid idx objects.
    pub fn index_names(&self) -> Result<Vec<ObjectName>, IndexError> {
        names(&self.lock(), "SELECT name FROM idx ORDER BY name")
    }

    /// Names and sizes of all packs in valid idx objects, by name.
    pub fn packs(&self) -> Result<Vec<(ObjectName, u64)>, IndexError> {
        let connection = self.lock();
        let mut select = connection.prepare_cached("SELECT name, size FROM pack ORDER BY name")?;
        let rows = select
            .query_map([], |row| Ok((ObjectName(row.get(0)?), row.get::<_, i64>(1)? as u64)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The directory of a pack by its name.
    pub fn pack(&self, name: &ObjectName) -> Result<Option<Arc<PackDirectory>>, IndexError> {
        let number: Option<i64> = self
            .lock()
            .prepare_cached("SELECT number FROM pack WHERE name=?1")?
            .query_row([name.as_bytes()], |row| row.get(0))
            .optional()?;
        number.map(|number| self.directory(number)).transpose()
    }

    /// Sums over all packs.
    pub fn totals(&self) -> Result<Totals, IndexError> {
        let connection = self.lock();
        let (packs, pack_bytes): (i64, i64) = connection.query_row(
            "SELECT count(*), coalesce(sum(size), 0) FROM pack",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let chunks: i64 =
            connection.query_row("SELECT count(*) FROM chunk", [], |row| row.get(0))?;
        Ok(Totals { packs: packs as u64, pack_bytes: pack_bytes as u64, chunks: chunks as u64 })
    }

    /// The directory of a pack by its number; nothing where the pack left the index.
    pub fn pack_numbered(&self, number: i64) -> Result<Option<Arc<PackDirectory>>, IndexError> {
        match self.directory(number) {
            Err(IndexError::Sqlite(rusqlite::Error::QueryReturnedNoRows)) => Ok(None),
            found => found.map(Some),
        }
    }

    fn directory(&self, number: i64) -> Result<Arc<PackDirectory>, IndexError> {
        let cached = self.directories.lock().expect("no panics here").get(&number).cloned();
        if let Some(directory) = cached {
            return Ok(directory);
        }
        let directory = Arc::new(
            self.lock()
                .prepare_cached(
                    "SELECT number, name, kind, size, header, directory FROM pack WHERE number=?1",
                )?
                .query_row([number], |row| Ok(decode_pack(row)))??,
        );
        self.directories.lock().expect("no panics here").put(number, directory.clone());
        Ok(directory)
    }

    /// Every row of every table in a canonical order: two indexes of one state are equal.
    pub fn dump_rows(&self) -> Result<Vec<String>, IndexError> {
        let connection = self.lock();
        let mut rows = Vec::new();
        for query in [
            "SELECT 'idx', hex(name) FROM idx",
            "SELECT 'pack', hex(p.name) || hex(i.name) || p.kind || p.size || hex(p.header)
                 || hex(p.directory) FROM pack p JOIN idx i ON i.number = p.idx",
            "SELECT 'chunk', hex(c.key) || hex(p.name) || c.ordinal
                 FROM chunk c JOIN pack p ON p.number = c.pack",
            "SELECT 'fate', hex(name) || fate FROM fate",
            "SELECT 'snapshot', hex(name) || hex(manifest) FROM snapshot",
            "SELECT 'position', hex(value) FROM meta WHERE name = 'position'",
        ] {
            let mut select = connection.prepare(query)?;
            let found = select.query_map([], |row| {
                Ok(format!("{} {}", row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })?;
            rows.extend(found.collect::<Result<Vec<_>, _>>()?);
        }
        rows.sort_unstable();
        Ok(rows)
    }
}

pub(super) fn position(connection: &Connection) -> Result<Option<Position>, IndexError> {
    let value: Option<Vec<u8>> = connection
        .prepare_cached("SELECT value FROM meta WHERE name='position'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let Some(value) = value else { return Ok(None) };
    match (value.first_chunk::<8>(), value.last_chunk::<32>(), value.len()) {
        (Some(number), Some(hash), 40) => {
            Ok(Some(Position { number: u64::from_le_bytes(*number), hash: *hash }))
        }
        _ => Err(IndexError::Damaged("position")),
    }
}

/// An index that does not say has seen every entry since the first.
pub(super) fn turns(connection: &Connection) -> Result<Turns, IndexError> {
    let value: Option<Vec<u8>> = connection
        .prepare_cached("SELECT value FROM meta WHERE name='turns'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let Some(value) = value else { return Ok(Turns::default()) };
    match value.as_chunks::<8>() {
        ([fates, horizon], []) => {
            let [fates, horizon] = [fates, horizon].map(|number| u64::from_le_bytes(*number));
            Ok(Turns { fates, horizon })
        }
        _ => Err(IndexError::Damaged("turns")),
    }
}

/// Whether no pack of the index is condemned or dead.
pub(super) fn none_indexed(connection: &Connection) -> Result<bool, IndexError> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT 1 FROM fate f JOIN pack p ON p.name = f.name LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(found.is_none())
}

pub(super) fn fates(connection: &Connection) -> Result<HashMap<ObjectName, Fate>, IndexError> {
    let mut select = connection.prepare_cached("SELECT name, fate FROM fate")?;
    let rows = select.query_map([], |row| Ok((ObjectName(row.get(0)?), row.get::<_, u8>(1)?)))?;
    rows.map(|row| {
        let (name, fate) = row?;
        match fate {
            1 => Ok((name, Fate::Condemned)),
            2 => Ok((name, Fate::Dead)),
            _ => Err(IndexError::Damaged("fate")),
        }
    })
    .collect()
}

pub(super) fn sealed(connection: &Connection) -> Result<HashSet<i64>, IndexError> {
    let mut select = connection.prepare_cached("SELECT pack FROM sealed")?;
    let rows = select.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn names(connection: &Connection, query: &str) -> Result<Vec<ObjectName>, IndexError> {
    let mut select = connection.prepare_cached(query)?;
    let rows = select.query_map([], |row| Ok(ObjectName(row.get(0)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn decode_pack(row: &Row<'_>) -> Result<PackDirectory, IndexError> {
    let kind = BlobKind::from_byte(row.get(2)?).ok_or(IndexError::Damaged("pack kind"))?;
    let entries = directory::decode(&row.get::<_, Vec<u8>>(5)?)
        .map_err(|_| IndexError::Damaged("pack directory"))?;
    let mut offset = HEADER_LEN as u64;
    let offsets = entries
        .iter()
        .map(|entry: &directory::BlobEntry| {
            let start = offset;
            offset += u64::from(entry.stored_len);
            start
        })
        .collect();
    Ok(PackDirectory {
        number: row.get(0)?,
        name: ObjectName(row.get(1)?),
        kind,
        size: row.get::<_, i64>(3)? as u64,
        header: row.get(4)?,
        entries,
        offsets,
    })
}
