//! `repair packs`: what is good of damaged packs goes into new ones, what is not leaves the list.
//!
//! A chunk that is lost must not stay on the list: the next backup would find it there and rely on
//! it. So damaged packs leave their idx objects, and with them deltas whose bases are lost. They are
//! condemned, which makes backups that run meanwhile look twice, and deleted by nobody but a later prune.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread;

use rayon::prelude::*;
use serde::Serialize;

use super::{Finding, from, parity};
use crate::compress::{Compressor, Decompressor, Settings};
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::directory::Codec;
use crate::format::log::{EntryKind, LogEntry};
use crate::format::pack::{EncodedBlob, whole_entry};
use crate::format::paths;
use crate::id::{ChunkId, ChunkKey, ObjectName};
use crate::index::{Fate, Found, PackDirectory};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::{ChunkReader, Scratch};
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

/// A blob with the members of its group.
struct Unit {
    ordinal: usize,
    members: Range<usize>,
}

impl Unit {
    /// Its chunks: the members of a group, else the blob itself.
    fn chunks(&self) -> Range<usize> {
        match self.members.is_empty() {
            true => self.ordinal..self.ordinal + 1,
            false => self.members.clone(),
        }
    }
}

fn units(pack: &PackDirectory) -> Vec<Unit> {
    let is_blob = |at: &usize| pack.entries[*at].codec != Codec::Member;
    let starts: Vec<usize> = (0..pack.entries.len()).filter(is_blob).collect();
    let ends = starts.iter().skip(1).copied().chain([pack.entries.len()]);
    let unit =
        |(ordinal, end): (&usize, usize)| Unit { ordinal: *ordinal, members: ordinal + 1..end };
    starts.iter().zip(ends).map(unit).collect()
}

/// Saves what can be saved of damaged packs.
pub fn run(
    repository: &Repository,
    options: &PacksOptions<'_>,
    progress: &Progress,
) -> Result<PacksReport> {
    repository.expect_owner()?;
    let mut report = PacksReport::default();
    let mut loss = Loss::new(repository)?;
    let damaged = find_damaged(repository, options, progress, &mut report)?;
    for name in &damaged {
        loss.examine(name)?;
    }
    loss.close()?;
    report.lost_chunks = loss.lost.len() as u64;
    report.replaced = loss.replaced.iter().copied().collect();
    if options.dry_run || loss.replaced.is_empty() {
        if let (Some(other), false) = (options.from, loss.lost.is_empty()) {
            let found = from::fetch(repository, other, &loss.lost, progress, &mut |_, _| Ok(()))?;
            report.found_chunks = found.len() as u64;
        }
        return Ok(report);
    }
    save(repository, &loss, options, progress, &mut report)?;
    let is_lossy = report.lost_chunks > report.found_chunks;
    take_off_the_list(repository, &loss.replaced, is_lossy)?;
    Ok(report)
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
    if let Some(unknown) =
        options.packs.iter().find(|wanted| !packs.iter().any(|(name, _)| name == *wanted))
    {
        return Err(Error::Usage(format!("no pack {unknown} is on the list of this repository")));
    }
    packs.retain(|(name, _)| options.packs.is_empty() || options.packs.contains(name));
    let total = packs.iter().map(|(_, size)| size).sum();
    progress.total_bytes.store(total, std::sync::atomic::Ordering::Relaxed);
    let found = Mutex::new((Vec::new(), Vec::new()));
    packs.par_iter().try_for_each(|(name, size)| {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let outcome = match parity::mend_in_place(repository, name, options.dry_run) {
            // A store that cannot replace what it has: what is good is saved all the same.
            Err(error @ Error::Store(_)) if !options.dry_run => Err(error.to_string()),
            other => other?,
        };
        Progress::add(&progress.done_bytes, *size);
        let mut found = found.lock().expect("no panics here");
        match outcome {
            Ok(true) => found.0.push(*name),
            Ok(false) => {}
            Err(why) => found.1.push((*name, why)),
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

/// Which chunks are lost, and which packs have to be written anew because of it.
struct Loss<'a> {
    repository: &'a Repository,
    reader: ChunkReader<'a>,
    scratch: Scratch,
    /// Chunks that can be read nowhere.
    lost: HashSet<ChunkKey>,
    replaced: BTreeSet<ObjectName>,
    /// Units that can be read, of packs that were examined.
    good: HashSet<(ObjectName, usize)>,
}

impl<'a> Loss<'a> {
    fn new(repository: &'a Repository) -> Result<Self> {
        Ok(Self {
            repository,
            reader: ChunkReader::new(repository),
            scratch: Scratch::new()?,
            lost: HashSet::new(),
            replaced: BTreeSet::new(),
            good: HashSet::new(),
        })
    }

    /// Tries every blob of a damaged pack.
    fn examine(&mut self, name: &ObjectName) -> Result<()> {
        let Some(pack) = self.repository.index().pack(name)? else { return Ok(()) };
        self.replaced.insert(*name);
        for unit in units(&pack) {
            if self.is_good(&pack, &unit)? {
                self.good.insert((*name, unit.ordinal));
                continue;
            }
            for at in unit.chunks() {
                let key = pack.entries[at].id;
                if !self.is_elsewhere(&key, name)? {
                    self.lost.insert(key);
                }
            }
        }
        Ok(())
    }

    fn is_good(&mut self, pack: &Arc<PackDirectory>, unit: &Unit) -> Result<bool> {
        for ordinal in std::iter::once(unit.ordinal).chain(unit.members.clone()) {
            let place = Found { pack: pack.clone(), ordinal };
            match self.reader.verify(&place, &mut self.scratch) {
                Ok(()) => {}
                Err(error) if error.is_object_damage() => return Ok(false),
                // The damage may be such that no error of the store says so.
                Err(Error::Store(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether a chunk can be read from a live pack other than this one.
    fn is_elsewhere(&mut self, key: &ChunkKey, here: &ObjectName) -> Result<bool> {
        for place in self.repository.index().packs_of(key)? {
            let is_live = self.repository.index().fate(&place.pack.name).is_none();
            if is_live
                && place.pack.name != *here
                && self.reader.verify(&place, &mut self.scratch).is_ok()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deltas whose bases are lost are lost, and what was made against those.
    fn close(&mut self) -> Result<()> {
        while self.close_once()? {}
        Ok(())
    }

    fn close_once(&mut self) -> Result<bool> {
        let index = self.repository.index();
        let mut is_changed = false;
        for (name, _) in index.packs()? {
            if index.fate(&name) == Some(Fate::Dead) {
                continue;
            }
            let Some(pack) = index.pack(&name)? else { continue };
            if pack.kind != BlobKind::Data {
                continue;
            }
            let mut broken = Vec::new();
            for (at, entry) in pack.entries.iter().enumerate() {
                for base in &entry.bases {
                    if self.lost.contains(base) || index.packs_of(base)?.is_empty() {
                        broken.push(at);
                        break;
                    }
                }
            }
            if broken.is_empty() {
                continue;
            }
            if self.replaced.insert(name) {
                // A sound pack: all the others of its blobs are good.
                let units = units(&pack).into_iter().map(|unit| (name, unit.ordinal));
                self.good.extend(units);
                is_changed = true;
            }
            for at in broken {
                is_changed |= self.good.remove(&(name, at));
                let key = pack.entries[at].id;
                if !self.lost.contains(&key) && !self.is_elsewhere(&key, &name)? {
                    is_changed |= self.lost.insert(key);
                }
            }
        }
        Ok(is_changed)
    }
}

/// Writes what is good of the packs that leave, and what the other repository has of the rest.
fn save(
    repository: &Repository,
    loss: &Loss<'_>,
    options: &PacksOptions<'_>,
    progress: &Progress,
    report: &mut PacksReport,
) -> Result<()> {
    let writer = BlobWriter::new(repository, false);
    let saved = thread::scope(|scope| {
        let storer = scope.spawn(|| writer.store_packs());
        let saved = (|| {
            for name in &loss.replaced {
                if progress.is_interrupted() {
                    return Err(Error::Interrupted);
                }
                save_pack(repository, loss, name, &writer, report)?;
            }
            let Some(other) = options.from else { return Ok(()) };
            let mut encoder = Encoder::new()?;
            let found = from::fetch(repository, other, &loss.lost, progress, &mut |id, bytes| {
                writer.add(BlobKind::Data, encoder.encode(id, bytes)?)
            })?;
            report.found_chunks = found.len() as u64;
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

/// Writes idx objects without these packs and condemns the packs, in one entry.
fn take_off_the_list(
    repository: &Repository,
    packs: &BTreeSet<ObjectName>,
    is_lossy: bool,
) -> Result<()> {
    let committed = repository.commit(&mut || {
        let index = repository.index();
        let mut going = BTreeSet::new();
        for name in packs {
            // A prune may have been faster.
            if index.pack(name)?.is_some() && index.fate(name) != Some(Fate::Dead) {
                going.insert(*name);
            }
        }
        if going.is_empty() {
            return Err(Error::Interrupted);
        }
        let mut entry = LogEntry::new(EntryKind::Gc);
        (entry.index_add, entry.index_remove) = repository.indexes_without(&going)?;
        entry.condemn = going.into_iter().collect();
        entry.was_repaired = is_lossy;
        Ok(entry)
    });
    match committed {
        Ok(_) | Err(Error::Interrupted) => Ok(()),
        Err(error) => Err(error),
    }
}
