//! What is known of both repositories: which chunk of the source is which chunk of the target, and
//! what is still to be copied. A private SQLite database in a temporary file: memory stays flat.
//!
//! A row of `known` says that the target has the chunk **as of when its writer was made**: because a
//! live snapshot of the target refers to it, or because that writer claimed it. Whoever makes a new
//! writer makes a new map.

use std::sync::{Mutex, MutexGuard};

use rusqlite::{Connection, OptionalExtension, params};

use crate::crypto::keys::BlobKind;
use crate::id::{ChunkId, ChunkKey};
use crate::index::IndexError;

type Result<T> = std::result::Result<T, IndexError>;

/// Rows are handed out in pages of this many.
const PAGE: i64 = 2048;

const TABLES: &str = "
    CREATE TABLE known(kind INTEGER NOT NULL, key BLOB NOT NULL, id BLOB NOT NULL, depth INTEGER,
        PRIMARY KEY(kind, key)) WITHOUT ROWID;
    CREATE TABLE walked(key BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE wanted(number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, level INTEGER NOT NULL,
        pack INTEGER NOT NULL, ordinal INTEGER NOT NULL, probe INTEGER NOT NULL);
    CREATE INDEX wanted_place ON wanted(level, pack, ordinal);
    CREATE INDEX wanted_level ON wanted(level);";

/// A chunk of the source as the target knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its id in the target.
    pub id: ChunkId,
    /// Deltas to decode before its bytes stand there; `None` where only the target's index knows.
    pub depth: Option<u8>,
}

/// A chunk of the source that is to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its place in the order in which snapshots refer to chunks.
    pub number: i64,
    /// Its key in the source.
    pub key: ChunkKey,
    /// Deltas to decode before its bytes stand; bases come first.
    pub level: u8,
    /// Number of its pack in the source's index.
    pub pack: i64,
    /// Its place in that pack.
    pub ordinal: usize,
    /// It is only to be found out whether the target has it.
    pub is_probe: bool,
}

/// The two lists.
pub struct Map(Mutex<Connection>);

impl Map {
    /// Nothing known, nothing wanted.
    pub fn new() -> Result<Self> {
        // An empty path is SQLite's name for a private database that spills to a temporary file.
        let connection = Connection::open("")?;
        // Nothing of it outlives this process, so nothing needs to be safe from a crash.
        connection.execute_batch(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16384;
             PRAGMA temp_store=FILE;",
        )?;
        connection.set_prepared_statement_cache_capacity(32);
        connection.execute_batch(TABLES)?;
        connection.execute_batch("BEGIN")?;
        Ok(Self(Mutex::new(connection)))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().expect("no thread panics with the map in hand")
    }

    /// Forgets everything.
    pub fn clear(&self) -> Result<()> {
        self.lock().execute_batch("DELETE FROM known")?;
        self.clear_wanted()
    }

    /// Forgets what is to be copied.
    pub fn clear_wanted(&self) -> Result<()> {
        Ok(self.lock().execute_batch("DELETE FROM wanted; DELETE FROM walked;")?)
    }

    /// What the target calls a chunk of the source.
    pub fn known(&self, kind: BlobKind, key: &ChunkKey) -> Result<Option<Known>> {
        let connection = self.lock();
        let mut select =
            connection.prepare_cached("SELECT id, depth FROM known WHERE kind=?1 AND key=?2")?;
        let row = |row: &rusqlite::Row<'_>| {
            Ok(Known { id: ChunkId(row.get(0)?), depth: row.get::<_, Option<u8>>(1)? })
        };
        Ok(select.query_row(params![kind as u8, key.as_bytes()], row).optional()?)
    }

    /// Notes what the target calls a chunk.
    pub fn learn(&self, kind: BlobKind, key: &ChunkKey, known: Known) -> Result<()> {
        self.lock()
            .prepare_cached("INSERT OR IGNORE INTO known VALUES(?1, ?2, ?3, ?4)")?
            .execute(params![kind as u8, key.as_bytes(), known.id.as_bytes(), known.depth])?;
        Ok(())
    }

    /// Notes that a node was walked; `false` where it was before.
    pub fn walk(&self, key: &ChunkKey) -> Result<bool> {
        let connection = self.lock();
        let mut insert = connection.prepare_cached("INSERT OR IGNORE INTO walked VALUES(?1)")?;
        Ok(insert.execute([key.as_bytes()])? == 1)
    }

    /// Whether a chunk is wanted already: `Some(true)` where it is only to be looked for.
    pub fn wanted(&self, key: &ChunkKey) -> Result<Option<bool>> {
        let connection = self.lock();
        let mut select = connection.prepare_cached("SELECT probe FROM wanted WHERE key=?1")?;
        Ok(select.query_row([key.as_bytes()], |row| row.get(0)).optional()?)
    }

    /// Notes a chunk that is wanted; its number is of no matter. Copying is more than looking.
    pub fn want(&self, wanted: &Wanted) -> Result<()> {
        self.lock()
            .prepare_cached(
                "INSERT INTO wanted VALUES(NULL, ?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT(key) DO UPDATE SET probe=0 WHERE excluded.probe=0",
            )?
            .execute(params![
                wanted.key.as_bytes(),
                wanted.level,
                wanted.pack,
                wanted.ordinal as i64,
                wanted.is_probe
            ])?;
        Ok(())
    }

    /// The levels at which chunks are to be copied, lowest first.
    pub fn levels(&self) -> Result<Vec<u8>> {
        let connection = self.lock();
        let mut select =
            connection.prepare_cached("SELECT DISTINCT level FROM wanted ORDER BY 1")?;
        let rows = select.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// The next chunks of a level after one, by where they stand in packs: level 0, which is read
    /// from end to end.
    pub fn by_place(&self, level: u8, after: Option<&Wanted>) -> Result<Vec<Wanted>> {
        let (pack, ordinal) = after.map_or((i64::MIN, 0), |last| (last.pack, last.ordinal as i64));
        self.page(
            "SELECT number, key, level, pack, ordinal, probe FROM wanted
                 WHERE level=?1 AND (pack, ordinal) > (?2, ?3) ORDER BY pack, ordinal LIMIT ?4",
            params![level, pack, ordinal, PAGE],
        )
    }

    /// The next chunks of a level after one, in the order of the snapshot: neighbours share bases.
    pub fn by_number(&self, level: u8, after: Option<&Wanted>) -> Result<Vec<Wanted>> {
        let number = after.map_or(i64::MIN, |last| last.number);
        self.page(
            "SELECT number, key, level, pack, ordinal, probe FROM wanted
                 WHERE level=?1 AND number > ?2 ORDER BY number LIMIT ?3",
            params![level, number, PAGE],
        )
    }

    fn page(&self, query: &str, values: impl rusqlite::Params) -> Result<Vec<Wanted>> {
        let connection = self.lock();
        let mut select = connection.prepare_cached(query)?;
        let rows = select.query_map(values, |row| {
            Ok(Wanted {
                number: row.get(0)?,
                key: ChunkKey(row.get(1)?),
                level: row.get(2)?,
                pack: row.get(3)?,
                ordinal: row.get::<_, i64>(4)? as usize,
                is_probe: row.get(5)?,
            })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(number: u8, level: u8, pack: i64, ordinal: usize) -> Wanted {
        let key = ChunkKey([number; 16]);
        Wanted { number: number.into(), key, level, pack, ordinal, is_probe: false }
    }

    #[test]
    fn chunks_come_by_place_and_by_number() {
        let map = Map::new().unwrap();
        let all = [wanted(1, 0, 9, 3), wanted(2, 0, 4, 7), wanted(3, 2, 4, 1), wanted(4, 0, 4, 2)];
        all.iter().for_each(|one| map.want(one).unwrap());
        map.want(&Wanted { is_probe: true, ..wanted(1, 5, 5, 5) }).unwrap();
        assert_eq!(map.levels().unwrap(), [0, 2]);
        assert_eq!(map.by_place(0, None).unwrap(), [all[3], all[1], all[0]]);
        assert_eq!(map.by_place(0, Some(&all[1])).unwrap(), [all[0]]);
        assert_eq!(map.by_number(0, Some(&all[0])).unwrap(), [all[1], all[3]]);
        assert_eq!(map.wanted(&all[0].key).unwrap(), Some(false));
        map.clear_wanted().unwrap();
        assert!(map.levels().unwrap().is_empty());
    }

    #[test]
    fn kinds_are_kept_apart_and_the_first_word_counts() {
        let map = Map::new().unwrap();
        let (key, one) = (ChunkKey([1; 16]), Known { id: ChunkId([2; 32]), depth: Some(3) });
        map.learn(BlobKind::Data, &key, one).unwrap();
        map.learn(BlobKind::Data, &key, Known { depth: None, ..one }).unwrap();
        assert_eq!(map.known(BlobKind::Data, &key).unwrap(), Some(one));
        assert_eq!(map.known(BlobKind::Tree, &key).unwrap(), None);
        assert!(map.walk(&key).unwrap() && !map.walk(&key).unwrap());
        map.clear().unwrap();
        assert_eq!(map.known(BlobKind::Data, &key).unwrap(), None);
    }
}
