//! `repair packs`: what is good of damaged packs goes into new ones, what is not leaves the list.
//!
//! A chunk that is lost must not stay on the list: the next backup would find it there and rely on
//! it. So damaged packs leave their idx objects, and with them deltas whose bases are lost. They are
//! condemned, which makes backups that run meanwhile look twice, and deleted by nobody but a later prune.

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;
use std::thread;

use rayon::prelude::*;
use serde::Serialize;

use super::loss::{Loss, Unit, units};
use super::parity::{InPlace, mend_in_place};
use super::{Finding, from, relist};
use crate::compress::{Compressor, Decompressor, Settings};
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::directory::Codec;
use crate::format::log::{EntryKind, LogEntry};
use crate::format::pack::{EncodedBlob, whole_entry};
use crate::format::paths;
use crate::id::{ChunkId, ObjectName};
use crate::index::{Fate, Found, PackDirectory};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::Scratch;
use crate::repository::writer::BlobWriter;

/// What to do.
#[derive(Default)]
pub struct PacksOptions<'a> {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Packs to look at; empty for all.
    pub packs: Vec<ObjectName>,
    /// A repository that may hold what is lost.
    pub from: Option<&'a Repository>,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PacksReport {
    /// Packs read.
    pub packs_read: u64,
    /// Packs whose bytes were made again from their parity.
    pub mended: Vec<ObjectName>,
    /// Packs of which the list said what is not so, and that were listed anew.
    pub relisted: Vec<ObjectName>,
    /// Packs that are damaged.
    pub findings: Vec<Finding>,
    /// Packs that left the list: damaged ones, and those with deltas against what is lost.
    pub replaced: Vec<ObjectName>,
    /// Blobs of them that were saved.
    pub saved_blobs: u64,
    /// Their bytes.
    pub saved_bytes: u64,
    /// Chunks that stand nowhere else.
    pub lost_chunks: u64,
    /// Of these, those found in the other repository.
    pub found_chunks: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

/// Saves what can be saved of damaged packs.
pub fn run(
    repository: &Repository,
    options: &PacksOptions<'_>,
    progress: &Progress,
) -> Result<PacksReport> {
    repository.expect_owner()?;
    expect_listed(repository, &options.packs)?;
    let relisted = relist::run(repository, &options.packs, options.dry_run, progress)?;
    let mut report = PacksReport { relisted, ..PacksReport::default() };
    let mut loss = Loss::new(repository)?;
    let damaged = find_damaged(repository, options, progress, &mut report)?;
    for name in &damaged {
        loss.examine(name)?;
    }
    loss.close()?;
    if options.dry_run || loss.replaced.is_empty() {
        find_elsewhere(&mut loss, options, progress, &mut |_, _| Ok(()))?;
        report.count(&loss);
        return Ok(report);
    }
    save(&mut loss, options, progress, &mut report)?;
    report.count(&loss);
    for name in &damaged {
        loss.expect_same(name)?;
    }
    take_off_the_list(repository, &loss)?;
    Ok(report)
}

fn expect_listed(repository: &Repository, wanted: &[ObjectName]) -> Result<()> {
    let index = repository.index();
    for name in wanted {
        if index.pack(name)?.is_none() || index.fate(name) == Some(Fate::Dead) {
            return Err(Error::Usage(format!("no pack {name} is on the list of this repository")));
        }
    }
    Ok(())
}

impl PacksReport {
    fn count(&mut self, loss: &Loss<'_>) {
        self.found_chunks = loss.found.len() as u64;
        self.lost_chunks = loss.lost.len() as u64 + self.found_chunks;
        self.replaced = loss.replaced.iter().copied().collect();
    }
}

/// Finds out what is lost for good, and what of it the other repository has: first what is damaged
/// itself, then the deltas that were made against the rest of that.
fn find_elsewhere(
    loss: &mut Loss<'_>,
    options: &PacksOptions<'_>,
    progress: &Progress,
    give: from::Give<'_>,
) -> Result<()> {
    let Some(other) = options.from else { return loss.close() };
    let repository = loss.repository;
    let mut asked = HashSet::new();
    loss.begin();
    loop {
        let wanted: HashSet<_> = loss.lost.difference(&asked).copied().collect();
        if wanted.is_empty() {
            return loss.close();
        }
        let found = from::fetch(repository, other, &wanted, progress, give)?;
        loss.found.extend(found);
        asked.extend(wanted);
        loss.close()?;
    }
}

/// Reads packs; mends those that have parity for it. Returns those that stay damaged.
fn find_damaged(
    repository: &Repository,
    options: &PacksOptions<'_>,
    progress: &Progress,
    report: &mut PacksReport,
) -> Result<Vec<ObjectName>> {
    let mut packs = repository.index().packs()?;
    packs.retain(|(name, _)| repository.index().fate(name) != Some(Fate::Dead));
    packs.retain(|(name, _)| options.packs.is_empty() || options.packs.contains(name));
    let total = packs.iter().map(|(_, size)| size).sum();
    progress.total_bytes.store(total, std::sync::atomic::Ordering::Relaxed);
    let found = Mutex::new((Vec::new(), Vec::new()));
    packs.par_iter().try_for_each(|(name, size)| {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        // Whether the store answers at all is not for this to judge: its errors end the run.
        let outcome = mend_in_place(repository, name, options.dry_run)?;
        Progress::add(&progress.done_bytes, *size);
        let mut found = found.lock().expect("no panics here");
        match outcome {
            InPlace::Mended(_) => found.0.push(*name),
            InPlace::Sound(_) => {}
            InPlace::Damaged(why) => found.1.push((*name, why)),
        }
        Ok(())
    })?;
    let (mut mended, mut damaged) = found.into_inner().expect("no panics here");
    mended.sort_unstable();
    damaged.sort();
    report.packs_read = packs.len() as u64;
    report.mended = mended;
    report.findings =
        damaged.iter().map(|(name, why)| Finding::new(paths::pack(name), why)).collect();
    Ok(damaged.into_iter().map(|(name, _)| name).collect())
}

/// Writes what the other repository has of what is lost, and what is good of the packs that leave.
fn save(
    loss: &mut Loss<'_>,
    options: &PacksOptions<'_>,
    progress: &Progress,
    report: &mut PacksReport,
) -> Result<()> {
    let repository = loss.repository;
    let writer = BlobWriter::new(repository, false);
    let saved = thread::scope(|scope| {
        let storer = scope.spawn(|| writer.store_packs());
        let saved = (|| {
            let mut encoder = Encoder::new()?;
            find_elsewhere(loss, options, progress, &mut |id, bytes| {
                writer.add(BlobKind::Data, encoder.encode(id, bytes)?)
            })?;
            for name in &loss.replaced {
                if progress.is_interrupted() {
                    return Err(Error::Interrupted);
                }
                save_pack(repository, loss, name, &writer, report)?;
            }
            Ok(())
        })();
        let closed = writer.close();
        let _ = storer.join();
        saved.and(closed)
    });
    if let Err(error) = saved {
        return Err(writer.take_error().unwrap_or(error));
    }
    writer.commit(None)?;
    report.written_bytes = writer.added_bytes();
    Ok(())
}

fn save_pack(
    repository: &Repository,
    loss: &Loss<'_>,
    name: &ObjectName,
    writer: &BlobWriter<'_>,
    report: &mut PacksReport,
) -> Result<()> {
    let Some(pack) = repository.index().pack(name)? else { return Ok(()) };
    for unit in units(&pack) {
        if !loss.good.contains(&(*name, unit.ordinal))
            || stands_elsewhere(repository, loss, &pack, &unit)?
        {
            continue;
        }
        let place = Found { pack: pack.clone(), ordinal: unit.ordinal };
        let payload = loss.reader.payload(&place)?;
        report.saved_blobs += 1;
        report.saved_bytes += payload.len() as u64;
        let members = pack.entries[unit.members].to_vec();
        let blob = EncodedBlob { entry: place.entry().clone(), payload, members };
        writer.add(pack.kind, blob)?;
    }
    Ok(())
}

/// Whether a run that was interrupted saved this blob before: all of its chunks can be read from
/// live packs that stay.
fn stands_elsewhere(
    repository: &Repository,
    loss: &Loss<'_>,
    pack: &PackDirectory,
    unit: &Unit,
) -> Result<bool> {
    let index = repository.index();
    let mut scratch = Scratch::new()?;
    for at in unit.chunks() {
        let places = index.packs_of(&pack.entries[at].id)?;
        let stays = places.iter().any(|place| {
            index.fate(&place.pack.name).is_none()
                && !loss.replaced.contains(&place.pack.name)
                && loss.reader.verify(place, &mut scratch).is_ok()
        });
        if !stays {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Compresses chunks that came from elsewhere.
struct Encoder {
    compressor: Compressor,
    verifier: Decompressor,
}

impl Encoder {
    fn new() -> Result<Self> {
        let compressor = Compressor::new(Settings::default())?;
        Ok(Self { compressor, verifier: Decompressor::new()? })
    }

    fn encode(&mut self, id: &ChunkId, bytes: Vec<u8>) -> Result<EncodedBlob> {
        let frame = self.compressor.plain(&bytes)?;
        let is_right = self
            .verifier
            .plain_into(Vec::new(), &frame, bytes.len())
            .is_ok_and(|decoded| decoded == bytes);
        if frame.len() < bytes.len() && is_right {
            let entry = whole_entry(id.key(), Codec::Zstd, bytes.len());
            return Ok(EncodedBlob::new(entry, frame));
        }
        Ok(EncodedBlob::new(whole_entry(id.key(), Codec::Raw, bytes.len()), bytes))
    }
}

/// Writes idx objects without the packs that leave and condemns those, in one entry. Condemned packs
/// that hold what stands nowhere else are live again in the same.
fn take_off_the_list(repository: &Repository, loss: &Loss<'_>) -> Result<()> {
    let committed = repository.commit(&mut || {
        let index = repository.index();
        let mut going = BTreeSet::new();
        for name in &loss.replaced {
            // A prune may have been faster.
            if index.pack(name)?.is_some() && index.fate(name) != Some(Fate::Dead) {
                going.insert(*name);
            }
        }
        if going.is_empty() {
            return Err(Error::Interrupted);
        }
        let mut entry = LogEntry::new(EntryKind::Gc);
        for name in loss.rescued.difference(&loss.replaced) {
            match index.fate(name) {
                None => {}
                Some(Fate::Condemned) => entry.rescue.push(*name),
                Some(Fate::Dead) => {
                    let text =
                        "a prune removed what was to be saved; run 'restow repair packs' again";
                    return Err(Error::Conflict(text.into()));
                }
            }
        }
        (entry.index_add, entry.index_remove) = repository.indexes_without(&going)?;
        entry.condemn = going.into_iter().collect();
        entry.was_repaired = !loss.lost.is_empty();
        Ok(entry)
    });
    match committed {
        Ok(_) | Err(Error::Interrupted) => Ok(()),
        Err(error) => Err(error),
    }
}
