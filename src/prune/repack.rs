//! Writing what is needed of packs into new ones. Blobs are verified and go over as they are stored;
//! groups of which members are gone are compressed anew.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::PruneProblem;
use super::mark::Marker;
use super::plan::{PackUse, Unit, units};
use crate::compress::{Compressor, Decompressor, Settings};
use crate::error::{Error, Result};
use crate::format::directory::{BlobEntry, Codec};
use crate::format::pack::{EncodedBlob, whole_entry};
use crate::index::{Found, PackDirectory};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::{ChunkReader, Scratch};
use crate::repository::writer::BlobWriter;

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
    let written = write_anew(job, packs, &|copier, pack_use| {
        copier.pack(pack_use, job.marker)?;
        Progress::add(&job.progress.done_bytes, pack_use.used);
        Ok(())
    })?;
    let packs = written.done.iter().map(|at| packs[*at].clone()).collect();
    Ok(Repacked { packs, written })
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
    let copied = thread::scope(|scope| {
        let storer = scope.spawn(|| writer.store_packs());
        let work = || run.work(Copier::new(&reader, &writer)?, items, copy, &outcome);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut copied = Ok(());
        for worker in workers {
            let result = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            copied = copied.and(result);
        }
        let closed = writer.close();
        let _ = storer.join();
        copied.and(closed)
    });
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
        let outcome = || outcome.lock().expect("no thread panics with the outcome");
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return Ok(()) };
            if self.stop.load(Ordering::Relaxed)
                || self.job.progress.is_interrupted()
                || copier.writer.has_failed()
            {
                return Err(Error::Interrupted);
            }
            if (self.job.is_time_up)() {
                outcome().is_cut_short = true;
                return Ok(());
            }
            match copy(&mut copier, item) {
                Ok(()) => outcome().done.push(at),
                Err(error) if error.is_object_damage() => {
                    let object = error.object();
                    outcome().problems.push(PruneProblem { object, detail: error.to_string() });
                }
                Err(error) => {
                    self.stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    }
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

    fn pack(&mut self, pack_use: &PackUse, marker: &Marker<'_>) -> Result<()> {
        let repository = self.reader.repository();
        let Some(pack) = repository.index().pack(&pack_use.name)? else { return Ok(()) };
        self.compressor.set_plain_level(Settings::default().file_level)?;
        let is_used = |entry: &BlobEntry| marker.uses(entry, &pack);
        // All is read before any of it is handed over: a damaged pack is left alone as a whole.
        let mut blobs = Vec::new();
        for unit in units(&pack) {
            let members: Vec<usize> =
                unit.members.clone().filter(|at| is_used(&pack.entries[*at])).collect();
            if unit.members.is_empty() {
                if is_used(unit.entry) {
                    blobs.push(self.blob(&pack, unit.ordinal)?);
                }
            } else if members.len() == unit.members.len() {
                blobs.push(self.whole_group(&pack, &unit)?);
            } else if !members.is_empty() {
                blobs.push(self.part_of_group(&pack, &members)?);
            }
        }
        blobs.into_iter().try_for_each(|blob| self.writer.add(pack.kind, blob))
    }

    fn place(pack: &std::sync::Arc<PackDirectory>, ordinal: usize) -> Found {
        Found { pack: pack.clone(), ordinal }
    }

    /// A blob as it is stored, after a look that it still decodes to what it should.
    fn blob(&mut self, pack: &std::sync::Arc<PackDirectory>, at: usize) -> Result<EncodedBlob> {
        let place = Self::place(pack, at);
        self.reader.verify(&place, &mut self.scratch)?;
        let payload = self.reader.payload(&place)?;
        Ok(EncodedBlob::new(place.entry().clone(), payload))
    }

    fn whole_group(
        &mut self,
        pack: &std::sync::Arc<PackDirectory>,
        unit: &Unit<'_>,
    ) -> Result<EncodedBlob> {
        for at in unit.members.clone() {
            self.reader.verify(&Self::place(pack, at), &mut self.scratch)?;
        }
        let members = pack.entries[unit.members.clone()].to_vec();
        let payload = self.reader.payload(&Self::place(pack, unit.ordinal))?;
        Ok(EncodedBlob { entry: unit.entry.clone(), payload, members })
    }

    /// Some members of a group as a smaller group, or the only one as a blob of its own.
    fn part_of_group(
        &mut self,
        pack: &std::sync::Arc<PackDirectory>,
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
    pub fn whole(&mut self, pack: &std::sync::Arc<PackDirectory>, at: usize) -> Result<()> {
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
