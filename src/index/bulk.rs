//! Questions to the index about very many chunks: answered in one walk, in little memory.

use rusqlite::Row;

use super::{Index, IndexError};
use crate::id::{ChunkKey, ObjectName};

/// Of each chunk in a live pack the number of the newest such pack; of packs that write-only keys made
/// only where there is no other.
const HOMES: &str = "SELECT key, max(pack),
         max(CASE WHEN pack IN (SELECT pack FROM sealed) THEN 0 ELSE pack END)
         FROM chunk WHERE pack NOT IN
         (SELECT p.number FROM pack p JOIN fate f ON f.name = p.name)
         GROUP BY key";

/// Number of a pack, and place of a chunk in it.
pub type Place = (i64, usize);

fn home(row: &Row<'_>) -> rusqlite::Result<(ChunkKey, i64)> {
    let (newest, proven): (i64, i64) = (row.get(1)?, row.get(2)?);
    Ok((ChunkKey(row.get(0)?), if proven > 0 { proven } else { newest }))
}

impl Index {
    /// Keys of chunks that stand in several live packs, each with the number of the newest; of packs
    /// that write-only keys made only where there is no other. Nothing where they are more than `most`.
    pub fn repeated_keys(&self, most: usize) -> Result<Option<Vec<(ChunkKey, i64)>>, IndexError> {
        let connection = self.lock();
        let mut select = connection.prepare_cached(&format!("{HOMES} HAVING count(*) > 1"))?;
        let mut found = Vec::new();
        for row in select.query_map([], home)? {
            if found.len() >= most {
                return Ok(None);
            }
            found.push(row?);
        }
        Ok(Some(found))
    }

    /// Tells of every chunk in a live pack which pack is the newest, as `repeated_keys` does. `each`
    /// must not ask the index.
    pub fn homes(&self, each: &mut dyn FnMut(ChunkKey, i64)) -> Result<(), IndexError> {
        let connection = self.lock();
        let mut select = connection.prepare_cached(HOMES)?;
        for row in select.query_map([], home)? {
            let (key, number) = row?;
            each(key, number);
        }
        Ok(())
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
