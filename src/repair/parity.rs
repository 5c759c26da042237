//! Making the bytes of damaged packs again from their parity, and parity where it is missing.
//!
//! What is put in the place of a damaged pack has the hash that is the pack's name: no wrong byte can
//! get there, whatever the parity object holds.

use std::sync::Mutex;

use rayon::prelude::*;
use serde::Serialize;

use super::Finding;
use crate::error::{Error, Result};
use crate::format::index::IndexedPack;
use crate::format::parity::{encode, is_of};
use crate::format::{pack, paths};
use crate::id::ObjectName;
use crate::index::Fate;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::parity::Mended;
use crate::store::StoreError;

/// What became of a pack.
pub enum InPlace {
    /// It was sound; its bytes.
    Sound(Vec<u8>),
    /// It was mended, or can be; its bytes.
    Mended(Vec<u8>),
    /// It stays damaged, and why.
    Damaged(String),
}

/// Mends a pack in its place where that can be done; with `dry_run`, only finds out. Where the store
/// cannot replace what it has, that is why it stays damaged.
pub fn mend_in_place(repository: &Repository, name: &ObjectName, dry_run: bool) -> Result<InPlace> {
    Ok(match repository.mend_pack(name)? {
        Mended::Sound(bytes) => InPlace::Sound(bytes),
        Mended::Impossible(why) => InPlace::Damaged(why),
        Mended::Bytes(bytes) if dry_run => InPlace::Mended(bytes),
        Mended::Bytes(bytes) => match repository.store().replace(&paths::pack(name), &bytes) {
            Ok(()) => InPlace::Mended(bytes),
            Err(error) => InPlace::Damaged(error.to_string()),
        },
    })
}

/// The directory of a pack that can only be read after it was mended; the pack is.
pub(super) fn directory(
    repository: &Repository,
    name: &ObjectName,
    dry_run: bool,
) -> Result<Option<IndexedPack>> {
    let Mended::Bytes(bytes) = repository.mend_pack(name)? else { return Ok(None) };
    let Ok(found) = pack::read_directory(repository.keys(), &bytes) else { return Ok(None) };
    if !dry_run {
        repository.store().replace(&paths::pack(name), &bytes)?;
    }
    Ok(Some(found))
}

/// Whether a pack is in the store.
pub(super) fn exists(repository: &Repository, name: &ObjectName) -> Result<bool> {
    match repository.store().head(&paths::pack(name)) {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ParityReport {
    /// Packs looked at.
    pub packs: u64,
    /// Packs that were mended.
    pub mended: Vec<ObjectName>,
    /// Packs that got new parity.
    pub renewed: Vec<ObjectName>,
    /// Packs that are damaged and cannot be mended.
    pub findings: Vec<Finding>,
}

/// Reads packs, mends those that are damaged, and makes parity that is missing or damaged again
/// where the repository keeps any. `only` chooses packs by name; empty for all.
pub fn run(
    repository: &Repository,
    only: &[ObjectName],
    dry_run: bool,
    progress: &Progress,
) -> Result<ParityReport> {
    repository.expect_owner()?;
    let mut packs = repository.index().packs()?;
    packs.retain(|(name, _)| repository.index().fate(name) != Some(Fate::Dead));
    packs.retain(|(name, _)| only.is_empty() || only.contains(name));
    let total = packs.iter().map(|(_, size)| size).sum();
    progress.total_bytes.store(total, std::sync::atomic::Ordering::Relaxed);
    let report = Mutex::new(ParityReport { packs: packs.len() as u64, ..Default::default() });
    packs.par_iter().try_for_each(|(name, size)| {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let outcome = mend_in_place(repository, name, dry_run)?;
        let renewed = match &outcome {
            InPlace::Sound(bytes) | InPlace::Mended(bytes) => {
                renew(repository, name, bytes, dry_run)?
            }
            InPlace::Damaged(_) => false,
        };
        Progress::add(&progress.done_bytes, *size);
        let mut report = report.lock().expect("no panics here");
        match outcome {
            InPlace::Mended(_) => report.mended.push(*name),
            InPlace::Sound(_) => {}
            InPlace::Damaged(why) => report.findings.push(Finding::new(paths::pack(name), why)),
        }
        if renewed {
            report.renewed.push(*name);
        }
        Ok(())
    })?;
    let mut report = report.into_inner().expect("no panics here");
    report.mended.sort_unstable();
    report.renewed.sort_unstable();
    report.findings.sort_by(|a, b| a.object.cmp(&b.object));
    Ok(report)
}

/// Makes the parity of a pack again, whose true bytes these are, where it is missing, damaged or that
/// of another pack.
fn renew(repository: &Repository, name: &ObjectName, bytes: &[u8], dry_run: bool) -> Result<bool> {
    let parts = repository.config().parity;
    if parts == 0 {
        return Ok(false);
    }
    let path = paths::parity(name);
    let store = repository.store();
    let found = match store.get(&path) {
        Ok(parity) if is_of(&parity, bytes) => return Ok(false),
        Ok(_) => true,
        Err(StoreError::NotFound { .. }) => false,
        Err(error) if error.is_loss() => true,
        Err(error) => return Err(error.into()),
    };
    if dry_run {
        return Ok(true);
    }
    if found {
        store.replace(&path, &encode(bytes, parts))?;
    } else {
        repository.put_parity(name, bytes)?;
    }
    Ok(true)
}
