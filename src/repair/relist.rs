//! Packs of which the list says what is not so: somebody with a write-only key spoke of another's pack, and
//! was believed. The pack's own directory goes on the list in its place.

use std::collections::BTreeSet;

use crate::crypto::envelope::{Header, ObjectKind};
use crate::error::{Error, Result};
use crate::format::index::IndexedPack;
use crate::format::log::{EntryKind, LogEntry};
use crate::id::ObjectName;
use crate::index::Fate;
use crate::progress::Progress;
use crate::repository::Repository;

/// Packs that one entry lists anew at most, as a bound on memory.
const PACKS_AT_ONCE: usize = 64;

/// Lists such packs anew and returns their names. `only` chooses packs; empty for all.
pub fn run(
    repository: &Repository,
    only: &[ObjectName],
    dry_run: bool,
    progress: &Progress,
) -> Result<Vec<ObjectName>> {
    let (mut relisted, mut waiting) = (Vec::new(), Vec::new());
    for (name, _) in repository.index().packs()? {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        if !only.is_empty() && !only.contains(&name) || !is_doubtful(repository, &name)? {
            continue;
        }
        let told = match repository.read_pack_directory(&name) {
            // What is known of it is all there is.
            Err(error) if error.is_object_damage() => continue,
            told => told?,
        };
        if is_wrong(repository, &told)? {
            relisted.push(name);
            waiting.push(told);
        }
        if waiting.len() >= PACKS_AT_ONCE {
            list(repository, &std::mem::take(&mut waiting), dry_run)?;
        }
    }
    list(repository, &waiting, dry_run)?;
    Ok(relisted)
}

/// Whether it is a pack of a write-only key, as far as the list says.
fn is_doubtful(repository: &Repository, name: &ObjectName) -> Result<bool> {
    let Some(pack) = repository.index().pack(name)? else { return Ok(false) };
    let header = Header::parse(&pack.header, ObjectKind::Pack);
    let is_dead = repository.index().fate(name) == Some(Fate::Dead);
    Ok(!is_dead && header.is_ok_and(|header| header.is_sealed()))
}

/// Whether the list says something else than the pack.
fn is_wrong(repository: &Repository, told: &IndexedPack) -> Result<bool> {
    let known = repository.index().pack(&told.name)?;
    Ok(known.is_some_and(|known| !known.is_of(told)))
}

fn list(repository: &Repository, packs: &[IndexedPack], dry_run: bool) -> Result<()> {
    if dry_run || packs.is_empty() {
        return Ok(());
    }
    let committed = repository.commit(&mut || {
        let mut wrong = Vec::new();
        for pack in packs {
            // Others may have been faster.
            if is_doubtful(repository, &pack.name)? && is_wrong(repository, pack)? {
                wrong.push(pack.clone());
            }
        }
        if wrong.is_empty() {
            return Err(Error::Interrupted);
        }
        let names: BTreeSet<_> = wrong.iter().map(|pack| pack.name).collect();
        let mut entry = LogEntry::new(EntryKind::Gc);
        (entry.index_add, entry.index_remove) = repository.indexes_without(&names)?;
        entry.index_add.push(repository.put_index(&wrong)?.0);
        Ok(entry)
    });
    match committed {
        Ok(_) | Err(Error::Interrupted) => Ok(()),
        Err(error) => Err(error),
    }
}
