//! Copying chunks: read, prove, name anew, and store as they are compressed already.
//!
//! A blob's payload depends on plain bytes alone (of a delta, also on those of its bases), so it
//! goes over as it is once it was decoded and its id proven. Chunks go level by level: what deltas
//! are made against is handed to the writer before them, so that no pack is ever committed before
//! the bases of its deltas.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::map::{Known, Map, Wanted};
use crate::compress::{Compressor, Decompressor, Settings};
use crate::crypto::CryptoError;
use crate::crypto::keys::BlobKind;
use crate::delta::MAX_CHAIN;
use crate::error::{Error, Result};
use crate::format::directory::{BlobEntry, Codec};
use crate::format::pack::{EncodedBlob, whole_entry};
use crate::id::{ChunkId, ChunkKey};
use crate::index::Found;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::{ChunkReader, Scratch, blob_name};
use crate::repository::writer::BlobWriter;

/// Plain bytes handed to a thread at once.
const BATCH_BYTES: u64 = 1 << 20;

/// What all threads of a copy share.
pub struct Shared<'a> {
    /// Where chunks come from.
    pub source: &'a Repository,
    /// Where they go.
    pub target: &'a Repository,
    /// The target's writer.
    pub writer: &'a BlobWriter<'a>,
    /// What is known and what is wanted.
    pub map: &'a Map,
    /// Reads the source.
    pub reader: ChunkReader<'a>,
    /// Counters, and the request to stop.
    pub progress: &'a Progress,
    /// What was done.
    pub counts: Counts,
}

/// What was done with chunks.
#[derive(Debug, Default)]
pub struct Counts {
    /// Chunks that the target got.
    pub chunks: AtomicU64,
    /// Chunks that turned out to be there.
    pub present: AtomicU64,
    /// Chunks that were compressed anew.
    pub recompressed: AtomicU64,
    /// Bytes read of blobs.
    pub read_bytes: AtomicU64,
}

/// A blob of the source, and which of its chunks are wanted.
struct Unit {
    place: Found,
    /// Members; empty for a blob that is one chunk.
    members: Vec<Wanted>,
    is_probe: bool,
}

/// Copies all wanted chunks. `workers` keep their state for the next time.
pub fn copy(shared: &Shared<'_>, workers: &mut [Worker]) -> Result<()> {
    for level in shared.map.levels()? {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let (work, queue) = bounded(workers.len());
            let threads: Vec<_> = workers
                .iter_mut()
                .map(|worker| {
                    let (queue, stop) = (queue.clone(), &stop);
                    scope.spawn(move || {
                        let done = worker.run(shared, &queue);
                        stop.fetch_or(done.is_err(), Ordering::Relaxed);
                        done
                    })
                })
                .collect();
            drop(queue);
            let planned = plan(shared, level, &work, &stop);
            drop(work);
            let mut errors = Vec::from_iter(planned.err());
            for thread in threads {
                let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                errors.extend(done.err());
            }
            // The cause matters, not that the others stopped because of it.
            errors.sort_by_key(|error| matches!(error, Error::Interrupted));
            errors.into_iter().next().map_or(Ok(()), Err)
        })?;
    }
    Ok(())
}

/// Hands the chunks of a level to the workers.
fn plan(shared: &Shared<'_>, level: u8, work: &Sender<Vec<Unit>>, stop: &AtomicBool) -> Result<()> {
    let mut last: Option<Wanted> = None;
    let mut units: Vec<Unit> = Vec::new();
    let mut bytes = 0;
    loop {
        let page = match level {
            0 => shared.map.by_place(level, last.as_ref())?,
            _ => shared.map.by_number(level, last.as_ref())?,
        };
        let Some(newest) = page.last() else { break };
        last = Some(*newest);
        for wanted in page {
            if shared.progress.is_interrupted()
                || shared.writer.has_failed()
                || stop.load(Ordering::Relaxed)
            {
                return Err(Error::Interrupted);
            }
            let missing = || Error::missing_chunk("chunk", &wanted.key.to_hex());
            let place = shared.source.index().find(&wanted.key)?.ok_or_else(missing)?;
            let wanted = Wanted { ordinal: place.ordinal, ..wanted };
            let is_member = place.entry().codec == Codec::Member;
            let blob = if is_member { place.group().0 } else { place.clone() };
            let is_same = |unit: &Unit| {
                unit.place.pack.name == blob.pack.name && unit.place.ordinal == blob.ordinal
            };
            let is_next = is_member && units.last().is_some_and(is_same);
            if !is_next && bytes >= BATCH_BYTES {
                send(work, std::mem::take(&mut units))?;
                bytes = 0;
            }
            bytes += u64::from(place.entry().plain_len);
            match units.last_mut() {
                Some(unit) if is_next => unit.members.push(wanted),
                _ => units.push(Unit {
                    place: blob,
                    members: Vec::from_iter(is_member.then_some(wanted)),
                    is_probe: wanted.is_probe,
                }),
            }
        }
    }
    send(work, units)
}

fn send(work: &Sender<Vec<Unit>>, units: Vec<Unit>) -> Result<()> {
    // A closed queue means that a worker failed; its error is told.
    work.send(units).map_err(|_| Error::Interrupted)
}

/// State of one thread.
pub struct Worker {
    scratch: Scratch,
    packer: Packer,
}

impl Worker {
    /// A worker that has done nothing yet.
    pub fn new() -> Result<Self> {
        Ok(Self { scratch: Scratch::new()?, packer: Packer::new()? })
    }

    fn run(&mut self, shared: &Shared<'_>, queue: &Receiver<Vec<Unit>>) -> Result<()> {
        for units in queue {
            for unit in units {
                if shared.progress.is_interrupted() || shared.writer.has_failed() {
                    return Err(Error::Interrupted);
                }
                self.unit(shared, &unit)?;
            }
        }
        Ok(())
    }

    fn unit(&mut self, shared: &Shared<'_>, unit: &Unit) -> Result<()> {
        let copied = match unit.members.is_empty() {
            true => self.blob(shared, unit),
            false => self.group(shared, unit),
        };
        let Err(error) = copied else { return Ok(()) };
        if !error.is_object_damage() {
            return Err(error);
        }
        // Chunks may stand in other packs too.
        let key = unit.place.entry().id;
        let single = [(key, unit.is_probe)];
        let members: Vec<_> = unit.members.iter().map(|one| (one.key, one.is_probe)).collect();
        let chunks = if members.is_empty() { &single[..] } else { &members[..] };
        for (key, is_probe) in chunks {
            let is_done = shared.map.known(BlobKind::Data, key)?.is_some();
            if !is_done && !is_probe && !self.another_copy(shared, key, &unit.place)? {
                return Err(error);
            }
        }
        Ok(())
    }

    /// A blob that is one chunk.
    fn blob(&mut self, shared: &Shared<'_>, unit: &Unit) -> Result<()> {
        let place = &unit.place;
        let (bytes, payload) = shared.reader.decoded(place, &mut self.scratch)?;
        let entry = place.entry();
        let id = prove(shared, place, entry, &bytes)?;
        Progress::add(&shared.counts.read_bytes, entry.stored_len.into());
        if unit.is_probe {
            return look(shared, entry, id);
        }
        let blob = match bases(shared, unit)? {
            Some((bases, depth)) => {
                let entry = BlobEntry { id: id.key(), bases, depth, ..entry.clone() };
                EncodedBlob::new(entry, payload.to_vec())
            }
            None => {
                Progress::add(&shared.counts.recompressed, 1);
                self.packer.chunk(id.key(), &bytes)?
            }
        };
        let depth = blob.entry.depth;
        shared.reader.recycle(bytes);
        let is_new = shared.writer.claim(&id)?;
        if is_new {
            Progress::add(&shared.progress.stored_bytes, blob.payload.len() as u64);
            shared.writer.add(BlobKind::Data, blob)?;
        }
        note(shared, entry, id, is_new.then_some(depth))
    }

    /// A blob of many small chunks: as it is where all of it is wanted and new.
    fn group(&mut self, shared: &Shared<'_>, unit: &Unit) -> Result<()> {
        let place = &unit.place;
        let (bytes, payload) = shared.reader.decoded(place, &mut self.scratch)?;
        Progress::add(&shared.counts.read_bytes, place.entry().stored_len.into());
        let (mut new, mut ids, mut offset) = (Vec::new(), Vec::new(), 0);
        let members = (place.ordinal + 1..).zip(&place.pack.entries[place.ordinal + 1..]);
        for (ordinal, member) in members.take_while(|(_, entry)| entry.codec == Codec::Member) {
            let range = offset..offset + member.plain_len as usize;
            offset = range.end;
            // Members come by place.
            let at = unit.members.binary_search_by_key(&ordinal, |wanted| wanted.ordinal);
            if let Some(wanted) = at.ok().map(|at| &unit.members[at]) {
                let invalid = || Error::damaged(blob_name(place), CryptoError::NotAuthentic);
                let slice = bytes.get(range.clone()).ok_or_else(invalid)?;
                let id = prove(shared, place, member, slice)?;
                if wanted.is_probe {
                    look(shared, member, id)?;
                } else {
                    ids.push((member, id, range));
                }
            }
        }
        for (member, id, range) in &ids {
            let is_new = shared.writer.claim(id)?;
            note(shared, member, *id, is_new.then_some(0))?;
            if is_new {
                new.push((id.key(), range.clone()));
            }
        }
        let is_complete = new.last().is_some_and(|(_, range)| range.end == bytes.len())
            && new.iter().map(|(_, range)| range.len()).sum::<usize>() == bytes.len();
        if new.is_empty() {
            return Ok(());
        }
        let blob = if is_complete {
            let members: Vec<_> = new
                .iter()
                .map(|(key, range)| whole_entry(*key, Codec::Member, range.len()))
                .collect();
            let key = shared.target.keys().group_key(new.iter().map(|(key, _)| *key));
            let entry = BlobEntry { id: key, ..place.entry().clone() };
            EncodedBlob { entry, payload: payload.to_vec(), members }
        } else {
            Progress::add(&shared.counts.recompressed, new.len() as u64);
            self.packer.group(shared.target, &bytes, &new)?
        };
        Progress::add(&shared.progress.stored_bytes, blob.payload.len() as u64);
        shared.writer.add(BlobKind::Data, blob)
    }

    /// Looks for a chunk in other packs than the one where it is damaged.
    fn another_copy(
        &mut self,
        shared: &Shared<'_>,
        key: &ChunkKey,
        damaged: &Found,
    ) -> Result<bool> {
        for place in shared.source.index().packs_of(key)? {
            if place.pack.name == damaged.pack.name || place.pack.kind != BlobKind::Data {
                continue;
            }
            let bytes = match shared.reader.verified(&place, &mut self.scratch) {
                Ok(bytes) => bytes,
                Err(error) if error.is_object_damage() => continue,
                Err(error) => return Err(error),
            };
            let id = shared.target.keys().chunk_id(BlobKind::Data, &bytes);
            let blob = self.packer.chunk(id.key(), &bytes)?;
            Progress::add(&shared.counts.recompressed, 1);
            let is_new = shared.writer.claim(&id)?;
            if is_new {
                shared.writer.add(BlobKind::Data, blob)?;
            }
            note(shared, place.entry(), id, is_new.then_some(0))?;
            return Ok(true);
        }
        Ok(false)
    }
}

/// Proves that bytes are those of a chunk of the source, and gives its id in the target.
fn prove(shared: &Shared<'_>, place: &Found, entry: &BlobEntry, bytes: &[u8]) -> Result<ChunkId> {
    if shared.source.keys().chunk_id(BlobKind::Data, bytes).key() != entry.id {
        return Err(Error::damaged(blob_name(place), CryptoError::NotAuthentic));
    }
    Ok(shared.target.keys().chunk_id(BlobKind::Data, bytes))
}

/// What a blob's bases are called in the target and how deep it stands there; `None` where it must
/// be stored without them.
fn bases(shared: &Shared<'_>, unit: &Unit) -> Result<Option<(Vec<ChunkKey>, u8)>> {
    let entry = unit.place.entry();
    let (mut keys, mut depth) = (Vec::new(), 0);
    for base in &entry.bases {
        let Some(known) = shared.map.known(BlobKind::Data, base)? else { return Ok(None) };
        let key = known.id.key();
        let below = match known.depth {
            Some(below) => Some(below),
            None => shared.target.index().find(&key)?.map(|found| found.entry().depth),
        };
        match below {
            Some(below) if below < MAX_CHAIN => depth = depth.max(below + 1),
            _ => return Ok(None),
        }
        keys.push(key);
    }
    Ok(Some((keys, depth)))
}

/// Remembers what a chunk is called in the target if it has it.
fn look(shared: &Shared<'_>, entry: &BlobEntry, id: ChunkId) -> Result<()> {
    if !shared.target.index().contains_live(&id.key())? {
        return Ok(());
    }
    Ok(shared.map.learn(BlobKind::Data, &entry.id, Known { id, depth: None })?)
}

/// Remembers what a chunk is called in the target, and its depth where this run stored it.
fn note(shared: &Shared<'_>, entry: &BlobEntry, id: ChunkId, depth: Option<u8>) -> Result<()> {
    let counter = if depth.is_some() { &shared.counts.chunks } else { &shared.counts.present };
    Progress::add(counter, 1);
    Progress::add(&shared.progress.done_bytes, entry.plain_len.into());
    Ok(shared.map.learn(BlobKind::Data, &entry.id, Known { id, depth })?)
}

/// Compresses what cannot go over as it is, and proves the result.
pub struct Packer {
    compressor: Compressor,
    verifier: Decompressor,
}

impl Packer {
    /// A packer with the settings of backups.
    pub fn new() -> Result<Self> {
        let settings = Settings::default();
        let mut compressor = Compressor::new(settings)?;
        compressor.set_plain_level(settings.file_level)?;
        Ok(Self { compressor, verifier: Decompressor::new()? })
    }

    /// A chunk as a blob of its own.
    pub fn chunk(&mut self, key: ChunkKey, bytes: &[u8]) -> Result<EncodedBlob> {
        let frame = self.compressor.plain(bytes)?;
        if frame.len() >= bytes.len() {
            let entry = whole_entry(key, Codec::Raw, bytes.len());
            return Ok(EncodedBlob::new(entry, bytes.to_vec()));
        }
        if self.verifier.plain_into(Vec::new(), &frame, bytes.len())? != bytes {
            let text = "compressed bytes did not decode to what went in: the memory may be faulty";
            return Err(Error::Conflict(text.into()));
        }
        Ok(EncodedBlob::new(whole_entry(key, Codec::Zstd, bytes.len()), frame))
    }

    /// Some parts of a group as a smaller one.
    fn group(
        &mut self,
        target: &Repository,
        bytes: &[u8],
        parts: &[(ChunkKey, std::ops::Range<usize>)],
    ) -> Result<EncodedBlob> {
        if let [(key, range)] = parts {
            return self.chunk(*key, &bytes[range.clone()]);
        }
        let mut joined = Vec::new();
        parts.iter().for_each(|(_, range)| joined.extend_from_slice(&bytes[range.clone()]));
        let key = target.keys().group_key(parts.iter().map(|(key, _)| *key));
        let blob = self.chunk(key, &joined)?;
        let members =
            parts.iter().map(|(key, range)| whole_entry(*key, Codec::Member, range.len()));
        Ok(EncodedBlob { members: members.collect(), ..blob })
    }
}
