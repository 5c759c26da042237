//! Applying log entries to the index, each in one transaction with the position it leads to.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{Change, Fate, Fates, Index, IndexError, Position, Turns, UNDATED, add, query};
use crate::format::directory;
use crate::id::ObjectName;

/// From this many new chunks on, rows are sorted before they go into the B-tree: pages are then
/// written once and full.
const BULK_ROWS: usize = 100_000;
/// The part of all rows that is much.
const MUCH: f64 = 0.2;
const DELETE_GOING: &str = "DELETE FROM chunk WHERE pack IN (SELECT pack FROM going);";
const COPY_STAYING: &str = "CREATE TABLE staying(
        key BLOB NOT NULL, pack INTEGER NOT NULL, ordinal INTEGER NOT NULL,
        PRIMARY KEY(key, pack, ordinal)) WITHOUT ROWID;
    INSERT INTO staying SELECT key, pack, ordinal FROM chunk
        WHERE pack NOT IN (SELECT pack FROM going) ORDER BY key, pack, ordinal;
    DROP TABLE chunk;
    ALTER TABLE staying RENAME TO chunk;";

impl Index {
    /// Moves the index from `from` to the position of `change`. `from` is what the caller believes
    /// to be the index's position; where another process moved it, this fails with `Moved`.
    pub fn apply(&self, from: Option<Position>, change: Change<'_>) -> Result<(), IndexError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if query::position(&transaction)? != from {
            return Err(IndexError::Moved);
        }
        let turns = turned(query::turns(&transaction)?, &change);
        if change.replace {
            transaction.execute_batch(
                "DELETE FROM idx; DELETE FROM pack; DELETE FROM fate; DELETE FROM chunk;
                 DELETE FROM snapshot; DELETE FROM sealed;",
            )?;
        }
        let mut rows = ChunkRows::default();
        for fetched in change.index_add {
            let (name, object) = fetched.map_err(IndexError::Fetch)?;
            add::index(&transaction, &name, &object, change.ask_pack, &mut rows)?;
        }
        rows.settle(&transaction)?;
        if self.is_write_only {
            // A prune by an owner names these packs in an idx object that cannot be read here.
            remove_packs(&transaction, change.dead)?;
        } else {
            remove_indexes(&transaction, change.index_remove)?;
        }
        for fetched in change.snapshot_add {
            let (name, snapshot) = fetched.map_err(IndexError::Fetch)?;
            transaction
                .prepare_cached("INSERT OR REPLACE INTO snapshot VALUES(?1, ?2)")?
                .execute(params![name.as_bytes(), snapshot.encode()])?;
        }
        for name in change.snapshot_remove {
            transaction
                .prepare_cached("DELETE FROM snapshot WHERE name=?1")?
                .execute([name.as_bytes()])?;
        }
        // A whole state does not tell when what it repeats was condemned.
        let since = if change.replace { UNDATED } else { change.time_ns };
        set_fates(&transaction, change.condemn, Fate::Condemned, since)?;
        set_fates(&transaction, change.dead, Fate::Dead, change.time_ns)?;
        for name in change.rescue {
            transaction
                .prepare_cached("DELETE FROM fate WHERE name=?1 AND fate=1")?
                .execute([name.as_bytes()])?;
        }
        if change.is_repair {
            transaction.execute("INSERT OR REPLACE INTO meta VALUES('repaired', x'01')", [])?;
        }
        for name in change.dropped {
            transaction
                .prepare_cached("DELETE FROM fate WHERE name=?1 AND fate=2")?
                .execute([name.as_bytes()])?;
        }
        set_position(&transaction, change.position)?;
        set_turns(&transaction, turns)?;
        let known = query::fates(&transaction)?;
        let none_indexed = query::none_indexed(&transaction)?;
        let sealed = query::sealed(&transaction)?;
        transaction.commit()?;
        let position = Some(change.position);
        *self.lock_fates() = Fates { position, turns, known, none_indexed, sealed };
        if change.replace || !change.index_remove.is_empty() {
            self.directories.lock().expect("no thread panics with the cache in hand").clear();
        }
        Ok(())
    }
}

impl Index {
    /// Forgets where the log stands, so that the next change must be a whole state.
    pub fn unpin(&self, from: Position) -> Result<(), IndexError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if query::position(&transaction)? != Some(from) {
            return Err(IndexError::Moved);
        }
        transaction.execute("DELETE FROM meta WHERE name='position'", [])?;
        transaction.commit()?;
        Ok(())
    }

    /// Notes when objects were condemned of which only that was known.
    pub fn date_condemned(&self, names: &[ObjectName], time_ns: i64) -> Result<(), IndexError> {
        let connection = self.lock();
        let mut update = connection
            .prepare_cached("UPDATE fate SET since=?2 WHERE name=?1 AND fate=1 AND since=?3")?;
        for name in names {
            update.execute(params![name.as_bytes(), time_ns, UNDATED])?;
        }
        Ok(())
    }
}

/// Rows of the chunk table on their way in: few go straight in, many through a sorted merge.
#[derive(Default)]
pub(super) struct ChunkRows {
    waiting: Vec<([u8; 16], i64, u32)>,
    staged: bool,
}

impl ChunkRows {
    pub(super) fn push(
        &mut self,
        transaction: &Transaction,
        row: ([u8; 16], i64, u32),
    ) -> Result<(), IndexError> {
        self.waiting.push(row);
        if self.waiting.len() >= BULK_ROWS {
            self.stage(transaction)?;
        }
        Ok(())
    }

    fn stage(&mut self, transaction: &Transaction) -> Result<(), IndexError> {
        if !self.staged {
            transaction.execute_batch(
                "CREATE TEMP TABLE IF NOT EXISTS staging(key BLOB, pack INTEGER, ordinal INTEGER);",
            )?;
            self.staged = true;
        }
        let mut insert = transaction.prepare_cached("INSERT INTO staging VALUES(?1, ?2, ?3)")?;
        for (key, pack, ordinal) in self.waiting.drain(..) {
            insert.execute(params![key, pack, ordinal])?;
        }
        Ok(())
    }

    fn flush(&mut self, transaction: &Transaction) -> Result<(), IndexError> {
        if self.staged {
            return self.stage(transaction);
        }
        self.waiting.sort_unstable();
        let mut insert =
            transaction.prepare_cached("INSERT OR IGNORE INTO chunk VALUES(?1, ?2, ?3)")?;
        for (key, pack, ordinal) in self.waiting.drain(..) {
            insert.execute(params![key, pack, ordinal])?;
        }
        Ok(())
    }

    /// Brings all that is waiting into the table.
    pub(super) fn settle(&mut self, transaction: &Transaction) -> Result<(), IndexError> {
        self.flush(transaction)?;
        self.merge(transaction)
    }

    fn merge(&mut self, transaction: &Transaction) -> Result<(), IndexError> {
        if std::mem::take(&mut self.staged) {
            transaction.execute_batch(
                "INSERT OR IGNORE INTO chunk SELECT key, pack, ordinal FROM staging
                     ORDER BY key, pack, ordinal;
                 DROP TABLE staging;",
            )?;
        }
        Ok(())
    }
}

/// Packs that no idx object names any more leave the index with all their chunks.
fn remove_indexes(transaction: &Transaction, names: &[ObjectName]) -> Result<(), IndexError> {
    let mut numbers: Vec<i64> = Vec::new();
    for name in names {
        let mut select = transaction.prepare_cached("SELECT number FROM idx WHERE name=?1")?;
        numbers.extend(select.query_row([name.as_bytes()], |row| row.get::<_, i64>(0)).optional()?);
    }
    let mut packs: Vec<i64> = Vec::new();
    for number in &numbers {
        let mut select = transaction.prepare_cached("SELECT number FROM pack WHERE idx=?1")?;
        for pack in select.query_map([number], |row| row.get(0))? {
            packs.push(pack?);
        }
    }
    remove_numbered(transaction, &packs)?;
    for number in &numbers {
        transaction.prepare_cached("DELETE FROM idx WHERE number=?1")?.execute([number])?;
    }
    Ok(())
}

/// Removes the rows of the chunks of these packs: few by their keys, many in one walk of the table.
fn remove_chunks(transaction: &Transaction, packs: &[i64]) -> Result<(), IndexError> {
    let mut rows = Vec::new();
    for (at, number) in packs.iter().enumerate() {
        let encoded: Vec<u8> = transaction
            .prepare_cached("SELECT directory FROM pack WHERE number=?1")?
            .query_row([number], |row| row.get(0))?;
        let entries =
            directory::decode(&encoded).map_err(|_| IndexError::Damaged("pack directory"))?;
        let keys = entries.iter().enumerate().map(|(place, entry)| (entry.id.0, number, place));
        rows.extend(keys);
        if rows.len() > BULK_ROWS && at + 1 < packs.len() {
            return remove_many_chunks(transaction, packs);
        }
    }
    rows.sort_unstable();
    let mut delete =
        transaction.prepare_cached("DELETE FROM chunk WHERE key=?1 AND pack=?2 AND ordinal=?3")?;
    for (key, number, place) in rows {
        delete.execute(params![key, number, place as u32])?;
    }
    Ok(())
}

fn remove_many_chunks(transaction: &Transaction, packs: &[i64]) -> Result<(), IndexError> {
    transaction.execute_batch("CREATE TEMP TABLE going(pack INTEGER PRIMARY KEY);")?;
    let mut insert = transaction.prepare("INSERT OR IGNORE INTO going VALUES(?1)")?;
    for number in packs {
        insert.execute([number])?;
    }
    drop(insert);
    let part: f64 = transaction.query_row(
        "SELECT total(length(directory)) FILTER (WHERE number IN (SELECT pack FROM going))
             / max(total(length(directory)), 1) FROM pack",
        [],
        |row| row.get(0),
    )?;
    // To write down what stays, in its order, takes less than to take much out one by one.
    transaction.execute_batch(if part < MUCH { DELETE_GOING } else { COPY_STAYING })?;
    transaction.execute_batch("DROP TABLE going;")?;
    Ok(())
}

/// Packs leave the index with all their chunks.
pub(super) fn remove_packs(
    transaction: &Transaction,
    names: &[ObjectName],
) -> Result<(), IndexError> {
    let mut numbers: Vec<i64> = Vec::new();
    for name in names {
        let mut select = transaction.prepare_cached("SELECT number FROM pack WHERE name=?1")?;
        numbers.extend(select.query_row([name.as_bytes()], |row| row.get::<_, i64>(0)).optional()?);
    }
    remove_numbered(transaction, &numbers)
}

fn remove_numbered(transaction: &Transaction, packs: &[i64]) -> Result<(), IndexError> {
    remove_chunks(transaction, packs)?;
    for number in packs {
        transaction.prepare_cached("DELETE FROM pack WHERE number=?1")?.execute([number])?;
        transaction.prepare_cached("DELETE FROM sealed WHERE pack=?1")?.execute([number])?;
    }
    Ok(())
}

fn set_fates(
    transaction: &Transaction,
    names: &[ObjectName],
    fate: Fate,
    since: i64,
) -> Result<(), IndexError> {
    // A state that repeats a fate does not make it begin anew.
    let mut insert = transaction.prepare_cached(
        "INSERT INTO fate VALUES(?1, ?2, ?3) ON CONFLICT(name) DO UPDATE
             SET since = excluded.since, fate = excluded.fate WHERE fate != excluded.fate",
    )?;
    for name in names {
        insert.execute(params![name.as_bytes(), fate as u8, since])?;
    }
    Ok(())
}

/// What a change makes of the turns.
fn turned(mut turns: Turns, change: &Change<'_>) -> Turns {
    let number = change.position.number;
    if change.replace {
        return Turns { fates: number, horizon: number };
    }
    if !(change.condemn.is_empty() && change.rescue.is_empty() && change.dead.is_empty()) {
        turns.fates = number;
    }
    if !change.dropped.is_empty() {
        turns.horizon = number;
    }
    turns
}

fn set_turns(connection: &Connection, turns: Turns) -> Result<(), IndexError> {
    let numbers = [turns.fates, turns.horizon].map(u64::to_le_bytes);
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta VALUES('turns', ?1)")?
        .execute([numbers.concat()])?;
    Ok(())
}

fn set_position(connection: &Connection, position: Position) -> Result<(), IndexError> {
    let value = [&position.number.to_le_bytes()[..], &position.hash].concat();
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta VALUES('position', ?1)")?
        .execute([value])?;
    Ok(())
}
