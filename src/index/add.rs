//! Taking in what idx objects say of packs, and deciding who is believed.
//!
//! Owners are believed. Of packs that write-only keys made, others with such keys may say anything: where
//! two say different things the pack is asked, whose name is the hash of its bytes.

use rusqlite::{OptionalExtension, Transaction, params};

use super::apply::{ChunkRows, remove_packs};
use super::{IndexError, IndexObject, Told};
use crate::crypto::envelope::{HEADER_LEN, Header, ObjectKind};
use crate::format::directory;
use crate::format::index::IndexedPack;
use crate::id::ObjectName;

/// A pack as the rows have it.
struct Known {
    number: i64,
    kind: u8,
    size: i64,
    header: [u8; HEADER_LEN],
    directory: Vec<u8>,
}

impl Known {
    fn find(transaction: &Transaction, name: &ObjectName) -> Result<Option<Self>, IndexError> {
        let mut select = transaction.prepare_cached(
            "SELECT number, kind, size, header, directory FROM pack WHERE name=?1",
        )?;
        let known = select.query_row([name.as_bytes()], |row| {
            let (number, kind, size) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(Self { number, kind, size, header: row.get(3)?, directory: row.get(4)? })
        });
        Ok(known.optional()?)
    }

    fn says(&self, pack: &IndexedPack) -> bool {
        (self.kind, self.size) == (pack.kind as u8, pack.size as i64)
            && self.header == pack.header
            && self.directory == directory::encode(&pack.entries)
    }
}

/// What comes of a pack that is known and that another idx object speaks of.
enum Choice {
    /// It stays as it is.
    Keep,
    /// The other idx object names it from here on.
    Move,
    /// What was known of it was wrong.
    Replace(IndexedPack),
}

/// Takes in an idx object.
pub fn index(
    transaction: &Transaction,
    name: &ObjectName,
    object: &IndexObject,
    ask: &dyn Fn(&ObjectName) -> Told,
    rows: &mut ChunkRows,
) -> Result<(), IndexError> {
    let added = transaction
        .prepare_cached("INSERT OR IGNORE INTO idx(name) VALUES(?1)")?
        .execute([name.as_bytes()])?;
    if added == 0 {
        return Ok(());
    }
    let index_number = transaction.last_insert_rowid();
    for pack in &object.packs {
        if object.is_sealed && !is_sealed(&pack.header) {
            // Not a pack that a write-only key made.
            continue;
        }
        let Some(known) = Known::find(transaction, &pack.name)? else {
            insert(transaction, index_number, pack, rows)?;
            continue;
        };
        match choose(&known, pack, object.is_sealed, ask)? {
            Choice::Keep => {}
            // An index rewrite: its chunks stay.
            Choice::Move => {
                transaction
                    .prepare_cached("UPDATE pack SET idx=?2 WHERE number=?1")?
                    .execute([known.number, index_number])?;
            }
            Choice::Replace(pack) => {
                // Rows of what is wrong may be on their way in.
                rows.settle(transaction)?;
                remove_packs(transaction, &[pack.name])?;
                insert(transaction, index_number, &pack, rows)?;
            }
        }
    }
    Ok(())
}

/// Decides between what is known of a pack and what an idx object says. `by_sealed`: a write-only key
/// made the idx object.
fn choose(
    known: &Known,
    said: &IndexedPack,
    by_sealed: bool,
    ask: &dyn Fn(&ObjectName) -> Told,
) -> Result<Choice, IndexError> {
    // Whoever spoke of it first goes on naming it, unless an owner does.
    let agreed = if by_sealed { Choice::Keep } else { Choice::Move };
    if known.says(said) || by_sealed && !is_sealed(&known.header) {
        return Ok(agreed);
    }
    if !is_sealed(&said.header) {
        return Ok(Choice::Replace(said.clone()));
    }
    Ok(match ask(&said.name).map_err(IndexError::Fetch)? {
        Some(told) if by_sealed && !is_sealed(&told.header) => Choice::Keep,
        Some(told) if known.says(&told) => agreed,
        Some(told) => Choice::Replace(told),
        None if by_sealed => Choice::Keep,
        None => Choice::Replace(said.clone()),
    })
}

fn insert(
    transaction: &Transaction,
    index_number: i64,
    pack: &IndexedPack,
    rows: &mut ChunkRows,
) -> Result<(), IndexError> {
    transaction
        .prepare_cached(
            "INSERT INTO pack(name, idx, kind, size, header, directory)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            pack.name.as_bytes(),
            index_number,
            pack.kind as u8,
            pack.size as i64,
            &pack.header[..],
            directory::encode(&pack.entries)
        ])?;
    let number = transaction.last_insert_rowid();
    if is_sealed(&pack.header) {
        transaction.prepare_cached("INSERT INTO sealed VALUES(?1)")?.execute([number])?;
    }
    for (ordinal, entry) in pack.entries.iter().enumerate() {
        rows.push(transaction, (entry.id.0, number, ordinal as u32))?;
    }
    Ok(())
}

/// Whether a write-only key made the pack with this header.
fn is_sealed(header: &[u8]) -> bool {
    Header::parse(header, ObjectKind::Pack).is_ok_and(|header| header.is_sealed())
}
