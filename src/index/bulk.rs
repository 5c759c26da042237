//! Questions to the index about very many chunks: answered in one walk, in little memory.

use rusqlite::{Row, params};

use super::{Index, IndexError};
use crate::id::{ChunkKey, ObjectName};

/// Of each chunk in a live pack, from behind a key on, the number of the newest such pack and how often
/// it stands in any.
const HOMES: &str = "SELECT key, max(pack), count(*) FROM chunk WHERE key > ?1 AND pack NOT IN
         (SELECT p.number FROM pack p JOIN fate f ON f.name = p.name)
         GROUP BY key";

/// Number of a pack, and place of a chunk in it.
pub type Place = (i64, usize);

/// Where a chunk is at home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// The chunk.
    pub key: ChunkKey,
    /// Number of the pack.
    pub pack: i64,
    /// It stands in several live packs.
    pub is_repeated: bool,
}

fn home(row: &Row<'_>) -> rusqlite::Result<Home> {
    let copies: i64 = row.get(2)?;
    Ok(Home { key: ChunkKey(row.get(0)?), pack: row.get(1)?, is_repeated: copies > 1 })
}

impl Index {
    /// Chunks that stand in several live packs, each with the newest, in the order of their keys. Nothing
    /// where they are more than `most`.
    pub fn repeated_keys(&self, most: usize) -> Result<Option<Vec<Home>>, IndexError> {
        let connection = self.lock();
        let mut select = connection.prepare_cached(&format!("{HOMES} HAVING count(*) > 1"))?;
        let mut found = Vec::new();
        for row in select.query_map([&[][..]], home)? {
            if found.len() >= most {
                return Ok(None);
            }
            found.push(row?);
        }
        Ok(Some(found))
    }

    /// The next chunks behind this key that stand in live packs, each with the newest, in the order of
    /// their keys.
    pub fn homes_after(
        &self,
        after: Option<ChunkKey>,
        most: usize,
    ) -> Result<Vec<Home>, IndexError> {
        let connection = self.lock();
        let mut select = connection.prepare_cached(&format!("{HOMES} ORDER BY key LIMIT ?2"))?;
        let after = after.as_ref().map_or(&[][..], |key| &key.0);
        let rows = select.query_map(params![after, most as i64], home)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Tells of each of these keys where its chunk stands: numbers of packs, whatever their fates, and
    /// places in them. Quick where the keys are sorted. `each` gets the place of the key among them;
    /// it must not ask the index.
    pub fn places_of(
        &self,
        keys: &[ChunkKey],
        each: &mut dyn FnMut(usize, &[Place]),
    ) -> Result<(), IndexError> {
        let connection = self.lock();
        // One look at the file for all of them.
        let transaction = connection.unchecked_transaction()?;
        let mut select =
            transaction.prepare_cached("SELECT pack, ordinal FROM chunk WHERE key=?1")?;
        let mut places = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            places.clear();
            let mut rows = select.query([key.as_bytes()])?;
            while let Some(row) = rows.next()? {
                places.push((row.get(0)?, row.get::<_, u32>(1)? as usize));
            }
            each(at, &places);
        }
        Ok(())
    }

    /// Names of all packs, with their numbers.
    pub fn pack_numbers(&self) -> Result<Vec<(ObjectName, i64)>, IndexError> {
        let connection = self.lock();
        let mut select =
            connection.prepare_cached("SELECT name, number FROM pack ORDER BY number")?;
        let rows = select.query_map([], |row| Ok((ObjectName(row.get(0)?), row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
