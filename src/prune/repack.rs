//! Writing what is needed of packs into new ones. Blobs are authenticated and go over as they are stored;
//! groups of which members are gone are compressed anew.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use super::PruneProblem;
use super::mark::Marker;
use super::plan::{PackUse, units};
use crate::compress::{Compressor, Decompressor, Settings};
use crate::error::{Error, Result};
use crate::format::directory::Codec;
use crate::format::pack::{EncodedBlob, whole_entry};
use crate::id::{ChunkKey, ObjectName};
use crate::index::{Found, PackDirectory};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::{ChunkReader, Scratch};
use crate::repository::writer::BlobWriter;

/// Blobs that are put in order at once, as a bound on memory.
const BATCH_BLOBS: usize = 1 << 17;
/// Blobs that a thread takes at once: they may have a base in common.
const NEIGHBOURS: usize = 8;

/// How much the threads that write anew give way to others, as by `nice(1)`; on Linux each thread has a
/// value of its own. The one that seals packs and commits them keeps the usual one: others may wait for
/// the local index while it writes there.
const NICENESS: i32 = 10;

/// What came of it.
#[derive(Default)]
pub struct Repacked {
    /// Packs that were written anew; the old ones can go.
    pub packs: Vec<PackUse>,
    /// What was written.
    pub written: Written,
}

impl AsRef<Written> for Repacked {
    fn as_ref(&self) -> &Written {
        &self.written
    }
}

/// What was written anew and committed.
#[derive(Default)]
pub struct Written {
    /// Which of the items.
    pub done: Vec<usize>,
    /// Those that could not be.
    pub problems: Vec<PruneProblem>,
    /// Bytes of new packs and their idx objects.
    pub bytes: u64,
    /// The time limit came before the end.
    pub is_cut_short: bool,
}

impl AsRef<Written> for Written {
    fn as_ref(&self) -> &Written {
        self
    }
}

impl Written {
    /// Adds up; which items they were is lost.
    fn add(&mut self, other: Self) {
        self.problems.extend(other.problems);
        self.bytes += other.bytes;
        self.is_cut_short |= other.is_cut_short;
    }
}

/// What all that is written anew has in common.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// Of this repository.
    pub repository: &'a Repository,
    /// What is needed.
    pub marker: &'a Marker<'a>,
    /// Told of it, and may ask to stop.
    pub progress: &'a Progress,
    /// Whether to begin nothing more.
    pub is_time_up: &'a (dyn Fn() -> bool + Sync),
}

/// Writes the needed part of some packs anew and commits it. The old packs stay as they are.
pub fn repack(job: &Job<'_>, packs: &[PackUse]) -> Result<Repacked> {
    let mut repacked = Repacked::default();
    let mut rest = packs;
    while !rest.is_empty() && !repacked.written.is_cut_short {
        let (parts, taken) = parts(job, rest)?;
        let (batch, next) = rest.split_at(taken);
        rest = next;
        let written = write_anew(job, &parts, &|copier, part: &Part| copier.part(part))?;
        let done: HashSet<usize> = written.done.iter().copied().collect();
        let left: HashSet<&ObjectName> = parts
            .iter()
            .enumerate()
            .filter(|(at, _)| !done.contains(at))
            .map(|(_, part)| &part.pack.name)
            .collect();
        let whole = batch.iter().filter(|pack| !left.contains(&pack.name));
        repacked.packs.extend(whole.cloned());
        Progress::add(&job.progress.done_bytes, batch.iter().map(|pack| pack.used).sum());
        repacked.written.add(written);
    }
    Ok(repacked)
}

/// Some needed blobs of one pack, or one group of which members are needed.
struct Part {
    pack: Arc<PackDirectory>,
    ordinal: usize,
    /// Of a group, the members that are needed.
    members: Vec<usize>,
    /// How many members there are.
    of: usize,
}

/// The needed blobs of the first of these packs, and how many packs that were. Deltas with the same
/// beginning of their chains come together, so that it is decoded once.
fn parts(job: &Job<'_>, packs: &[PackUse]) -> Result<(Vec<Part>, usize)> {
    let mut parts = Vec::new();
    let mut taken = 0;
    for pack_use in packs {
        if parts.len() >= BATCH_BLOBS {
            break;
        }
        taken += 1;
        let Some(pack) = job.repository.index().pack(&pack_use.name)? else { continue };
        for unit in units(&pack) {
            let of = unit.members.len();
            let is_used = |at: &usize| job.marker.uses(&pack.entries[*at], &pack);
            let members: Vec<usize> = unit.members.filter(is_used).collect();
            if !members.is_empty() || of == 0 && is_used(&unit.ordinal) {
                parts.push(Part { pack: pack.clone(), ordinal: unit.ordinal, members, of });
            }
        }
    }
    let first_base = |part: &Part| {
        let entry = &part.pack.entries[part.ordinal];
        entry.bases.first().map(|base| (entry.id, *base))
    };
    let older: HashMap<ChunkKey, ChunkKey> = parts.iter().filter_map(first_base).collect();
    parts.sort_by_cached_key(|part| {
        let entry = &part.pack.entries[part.ordinal];
        let mut beginning = entry.bases.first().copied();
        for _ in 0..entry.depth {
            beginning = beginning.and_then(|base| older.get(&base).copied()).or(beginning);
        }
        (part.pack.kind as u8, beginning.map(|key| key.0), entry.depth)
    });
    Ok((parts, taken))
}

/// Hands each item to `copy` on one of some threads, which takes the blobs over; then commits them.
/// Items whose blobs are damaged are left out.
pub fn write_anew<T: Sync>(
    job: &Job<'_>,
    items: &[T],
    copy: &(dyn Fn(&mut Copier<'_>, &T) -> Result<()> + Sync),
) -> Result<Written> {
    if items.is_empty() {
        return Ok(Written::default());
    }
    let writer = BlobWriter::new(job.repository, false);
    let reader = ChunkReader::new(job.repository);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let run = Run { job: *job, next: AtomicUsize::new(0), stop: AtomicBool::new(false) };
    let outcome = Mutex::new(Written::default());
    let in_order = || {
        run.work(Copier::new(&reader, &writer)?, items, copy, &outcome)?;
        writer.close()?;
        writer.store_packs();
        Ok(())
    };
    let on_all_cores = || {
        thread::scope(|scope| {
            let storer = scope.spawn(|| writer.store_packs());
            let work = || {
                // Backups that run meanwhile come first. It is no harm where that is refused.
                let _ = rustix::process::nice(NICENESS);
                run.work(Copier::new(&reader, &writer)?, items, copy, &outcome)
            };
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let mut copied = Ok(());
            for worker in workers {
                let result = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                copied = copied.and(result);
            }
            let closed = writer.close();
            let _ = storer.join();
            copied.and(closed)
        })
    };
    let copied = if job.repository.environment().in_order { in_order() } else { on_all_cores() };
    if let Err(error) = copied {
        return Err(writer.take_error().unwrap_or(error));
    }
    writer.commit(None)?;
    let mut written = outcome.into_inner().expect("no thread panics with the outcome");
    written.bytes = writer.added_bytes();
    Ok(written)
}

/// What the threads share.
struct Run<'a> {
    job: Job<'a>,
    next: AtomicUsize,
    stop: AtomicBool,
}

impl Run<'_> {
    fn work<T>(
        &self,
        mut copier: Copier<'_>,
        items: &[T],
        copy: &(dyn Fn(&mut Copier<'_>, &T) -> Result<()> + Sync),
        outcome: &Mutex<Written>,
    ) -> Result<()> {
        loop {
            let start = self.next.fetch_add(NEIGHBOURS, Ordering::Relaxed);
            for at in start..start + NEIGHBOURS {
                let Some(item) = items.get(at) else { return Ok(()) };
                if self.stop.load(Ordering::Relaxed)
                    || self.job.progress.is_interrupted()
                    || copier.writer.has_failed()
                {
                    return Err(Error::Interrupted);
                }
                if (self.job.is_time_up)() {
                    lock(outcome).is_cut_short = true;
                    return Ok(());
                }
                self.settle(at, copy(&mut copier, item), outcome)?;
            }
        }
    }

    fn settle(&self, at: usize, copied: Result<()>, outcome: &Mutex<Written>) -> Result<()> {
        match copied {
            Ok(()) => lock(outcome).done.push(at),
            Err(error) if error.is_object_damage() => {
                let (object, detail) = (error.object(), error.to_string());
                lock(outcome).problems.push(PruneProblem { object, detail });
            }
            Err(error) => {
                self.stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }
}

fn lock(outcome: &Mutex<Written>) -> MutexGuard<'_, Written> {
    outcome.lock().expect("no thread panics with the outcome")
}

/// What a thread needs to take blobs over.
pub struct Copier<'a> {
    reader: &'a ChunkReader<'a>,
    writer: &'a BlobWriter<'a>,
    scratch: Scratch,
    compressor: Compressor,
    verifier: Decompressor,
}

impl<'a> Copier<'a> {
    fn new(reader: &'a ChunkReader<'a>, writer: &'a BlobWriter<'a>) -> Result<Self> {
        Ok(Self {
            reader,
            writer,
            scratch: Scratch::new()?,
            compressor: Compressor::new(Settings::default())?,
            verifier: Decompressor::new()?,
        })
    }

    fn part(&mut self, part: &Part) -> Result<()> {
        let Part { pack, ordinal, members, of } = part;
        let blob = if *of == 0 {
            self.blob(pack, *ordinal)?
        } else if members.len() == *of {
            self.whole_group(pack, *ordinal, members)?
        } else {
            self.compressor.set_plain_level(Settings::default().file_level)?;
            self.part_of_group(pack, members)?
        };
        self.writer.add(pack.kind, blob)
    }

    fn place(pack: &Arc<PackDirectory>, ordinal: usize) -> Found {
        Found { pack: pack.clone(), ordinal }
    }

    /// A blob as it is stored, after a look that it still decodes to what it should. A delta is only
    /// authenticated: to decode it, all that it is made against would have to be fetched, which is
    /// what `check --read-data` does. Of what write-only keys made nothing is believed.
    fn blob(&mut self, pack: &Arc<PackDirectory>, at: usize) -> Result<EncodedBlob> {
        let place = Self::place(pack, at);
        let is_believed = !self.reader.repository().index().is_sealed(pack.number);
        if place.entry().codec == Codec::Delta && is_believed {
            return Ok(EncodedBlob::new(place.entry().clone(), self.reader.payload(&place)?));
        }
        let payload = self.reader.verified_payload(&place, &mut self.scratch)?;
        Ok(EncodedBlob::new(place.entry().clone(), payload))
    }

    fn whole_group(
        &mut self,
        pack: &Arc<PackDirectory>,
        at: usize,
        members: &[usize],
    ) -> Result<EncodedBlob> {
        for member in members {
            self.reader.verify(&Self::place(pack, *member), &mut self.scratch)?;
        }
        let payload = self.reader.payload(&Self::place(pack, at))?;
        let entry = pack.entries[at].clone();
        let members = members.iter().map(|member| pack.entries[*member].clone()).collect();
        Ok(EncodedBlob { entry, payload, members })
    }

    /// Some members of a group as a smaller group, or the only one as a blob of its own.
    fn part_of_group(
        &mut self,
        pack: &Arc<PackDirectory>,
        members: &[usize],
    ) -> Result<EncodedBlob> {
        let mut bytes = Vec::new();
        for at in members {
            let place = Self::place(pack, *at);
            bytes.extend_from_slice(&self.reader.verified(&place, &mut self.scratch)?);
        }
        let (codec, payload) = self.compress(bytes)?;
        let entries: Vec<_> = members.iter().map(|at| pack.entries[*at].clone()).collect();
        let length = entries.iter().map(|entry| entry.plain_len as usize).sum();
        if let [only] = &entries[..] {
            return Ok(EncodedBlob::new(whole_entry(only.id, codec, length), payload));
        }
        let key = self.reader.repository().keys().group_key(entries.iter().map(|entry| entry.id));
        let entry = whole_entry(key, codec, length);
        Ok(EncodedBlob { entry, payload, members: entries })
    }

    /// A chunk that is a delta, stored whole.
    pub fn whole(&mut self, pack: &Arc<PackDirectory>, at: usize) -> Result<()> {
        self.compressor.set_plain_level(Settings::default().plain_level)?;
        let place = Self::place(pack, at);
        let bytes = self.reader.verified(&place, &mut self.scratch)?;
        let length = bytes.len();
        let (codec, payload) = self.compress(bytes)?;
        let entry = whole_entry(place.entry().id, codec, length);
        self.writer.add(pack.kind, EncodedBlob::new(entry, payload))
    }

    fn compress(&mut self, bytes: Vec<u8>) -> Result<(Codec, Vec<u8>)> {
        let frame = self.compressor.plain(&bytes)?;
        let decoded =
            self.verifier.plain_into(self.reader.spare(bytes.len()), &frame, bytes.len())?;
        if decoded != bytes {
            let text = "compressed bytes did not decode to what went in: the memory may be faulty";
            return Err(Error::Conflict(text.into()));
        }
        self.reader.recycle(decoded);
        if frame.len() >= bytes.len() {
            return Ok((Codec::Raw, bytes));
        }
        self.reader.recycle(bytes);
        Ok((Codec::Zstd, frame))
    }
}
