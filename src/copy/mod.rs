//! Copying snapshots into another repository, which has keys of its own.
//!
//! Chunks get new ids and keep their bounds; recipes and trees are written anew; what is compressed
//! already goes over as it is, deltas and groups of small files included. A snapshot keeps its
//! identity (`Snapshot::origin`), so that a second copy finds what the first one did. The source is
//! only read. In the target this is an ordinary writer: packs are committed now and then, each
//! snapshot once all of it is stored, and prunes may run beside it, on both sides.
//!
//! Guarantees: every chunk is decoded and its id proven before it is stored; a snapshot that cannot
//! be read to its end is not in the target. Does not decide which snapshots to copy.

mod blobs;
mod learn;
mod map;
mod mark;
mod rewrite;
mod select;

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::thread;

use blobs::{Counts, Packer, Shared, Worker};
use learn::{Gaps, Learner};
use map::Map;
use mark::{Marked, Marker};
use rewrite::Rewriter;

use crate::error::{Error, Result};
use crate::format::paths;
use crate::format::snapshot::Snapshot;
use crate::id::ObjectName;
use crate::index::IndexError;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::ChunkReader;
use crate::repository::salvage::hides_snapshots;
use crate::repository::snapshots::{Filter, NamedSnapshot};
use crate::repository::writer::BlobWriter;

/// Snapshots are committed once this many bytes were stored, …
const BATCH_BYTES: u64 = 256 << 20;
/// … or so many snapshots are waiting.
const BATCH_SNAPSHOTS: usize = 64;
/// How often a snapshot is tried again when a prune of the source came between.
const ATTEMPTS: usize = 5;

/// How to copy.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Only find out what would be copied.
    pub dry_run: bool,
    /// The snapshots were named one by one: what else the source lost is no matter.
    pub is_selection: bool,
    /// Threads that read and compress; 0 for as many as there are processors.
    pub threads: usize,
}

/// A snapshot of the source and its copy.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Copied {
    /// Its name in the source.
    pub source: ObjectName,
    /// Its name in the target; `None` for a dry run.
    pub target: Option<ObjectName>,
}

/// A snapshot that could not be copied.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CopyProblem {
    /// Its name in the source; `None` where the source is so damaged that nobody knows.
    pub snapshot: Option<ObjectName>,
    /// The object that is damaged or lost.
    pub object: String,
    /// What happened.
    pub detail: String,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct CopyReport {
    /// Snapshots that were copied.
    pub copied: Vec<Copied>,
    /// Snapshots that the target had already.
    pub skipped: Vec<Copied>,
    /// Snapshots that could not be copied.
    pub problems: Vec<CopyProblem>,
    /// Chunks that the target got.
    pub chunks: u64,
    /// Chunks that were read and turned out to be there.
    pub present_chunks: u64,
    /// Chunks that were compressed anew; all others went over as they are stored.
    pub recompressed_chunks: u64,
    /// Bytes read of blobs.
    pub read_bytes: u64,
    /// Bytes by which the target grew.
    pub written_bytes: u64,
}

/// Copies snapshots, oldest first. Interrupted, it keeps what was stored, and goes on from there
/// when it is run again.
pub fn run(
    source: &Repository,
    target: &Repository,
    snapshots: &[NamedSnapshot],
    options: &CopyOptions,
    progress: &Progress,
) -> Result<CopyReport> {
    for repository in [source, target] {
        // It could not even tell what was copied before.
        if repository.is_write_only() {
            let location = repository.store().location();
            let text =
                format!("a write-only key of {location} is not enough to copy: it reads nothing");
            return Err(Error::Conflict(text));
        }
    }
    let id = source.config().id;
    if id == target.config().id {
        return Err(Error::Conflict(format!(
            "{} and {} are the same repository, {}",
            source.store().location(),
            target.store().location(),
            id.short()
        )));
    }
    let mut report = CopyReport::default();
    if !options.is_selection {
        report.problems = lost_snapshots(source);
    }
    let mut waiting = Vec::new();
    let (there, mut seen) = (select::by_identity(target)?, HashSet::new());
    for named in snapshots {
        let origin = select::identity(id, named);
        match there.get(&origin) {
            _ if !seen.insert(origin) => {}
            Some(copy) => {
                report.skipped.push(Copied { source: named.name, target: Some(copy.name) });
            }
            None => waiting.push(named.clone()),
        }
    }
    waiting.sort_by_key(|named| (named.snapshot.time, named.name));
    let copy = Copy { source, target, progress, map: Map::new()? };
    if options.dry_run {
        copy.rehearse(&waiting, &mut report)?;
        return Ok(report);
    }
    let mut workers = Vec::new();
    for _ in 0..thread_count(options.threads) {
        workers.push(Worker::new()?);
    }
    let mut rest = &waiting[..];
    while !rest.is_empty() {
        let done = copy.batch(rest, &mut workers, &mut report)?;
        rest = &rest[done..];
    }
    Ok(report)
}

/// Damage of the source that may hide snapshots: nobody can say that all were copied.
fn lost_snapshots(source: &Repository) -> Vec<CopyProblem> {
    let hides = |error: &&Error| hides_snapshots(&error.object());
    let problem = |error: &Error| {
        let object = error.object();
        let snapshot = object.strip_prefix(paths::SNAPSHOTS).map(|_| paths::object_name(&object));
        CopyProblem { snapshot: snapshot.flatten(), object, detail: error.to_string() }
    };
    source.damage().iter().filter(hides).map(problem).collect()
}

struct Copy<'a> {
    source: &'a Repository,
    target: &'a Repository,
    progress: &'a Progress,
    map: Map,
}

/// A snapshot that is ready to be committed.
struct Ready {
    source: NamedSnapshot,
    manifest: Snapshot,
}

/// Copied snapshots that others can be learned from.
struct Pairs {
    all: Vec<(NamedSnapshot, NamedSnapshot)>,
    learned: HashSet<ObjectName>,
}

impl Copy<'_> {
    /// Copies some snapshots and commits them. Returns how many it has done with.
    fn batch(
        &self,
        waiting: &[NamedSnapshot],
        workers: &mut [Worker],
        report: &mut CopyReport,
    ) -> Result<usize> {
        let _span = tracing::info_span!("copy", snapshots = waiting.len()).entered();
        // As of now: what is learned below must hold for this writer.
        self.target.sync()?;
        let writer = BlobWriter::new(self.target, false);
        // What a copy that was killed left is in the index from here on: deltas may be made against it.
        writer.commit(None)?;
        self.map.clear()?;
        let mut pairs = self.pairs()?;
        let shared = Shared {
            source: self.source,
            target: self.target,
            writer: &writer,
            map: &self.map,
            reader: ChunkReader::new(self.source),
            progress: self.progress,
            counts: Counts::default(),
        };
        let (mut ready, mut done, mut failed) = (Vec::new(), 0, None);
        let closed = thread::scope(|scope| {
            let storer = scope.spawn(|| writer.store_packs());
            for named in waiting {
                match self.snapshot(&shared, named, workers, &mut pairs) {
                    Ok(Ok(manifest)) => ready.push(Ready { source: named.clone(), manifest }),
                    Ok(Err(problem)) => report.problems.push(problem),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
                done += 1;
                if writer.added_bytes() >= BATCH_BYTES || ready.len() >= BATCH_SNAPSHOTS {
                    break;
                }
            }
            let closed = writer.close();
            let _ = storer.join();
            closed
        });
        if let Some(error) = failed.or(closed.err()) {
            // Where storing failed, everybody else only stopped because of it.
            let error = writer.take_error().unwrap_or(error);
            if matches!(error, Error::Interrupted) {
                self.commit(&writer, ready, report)?;
            }
            return Err(error);
        }
        self.commit(&writer, ready, report)?;
        add_counts(report, &shared.counts, writer.added_bytes());
        Ok(done)
    }

    /// Commits what is stored: snapshots one by one, or packs alone.
    fn commit(
        &self,
        writer: &BlobWriter<'_>,
        ready: Vec<Ready>,
        report: &mut CopyReport,
    ) -> Result<()> {
        if ready.is_empty() {
            return writer.commit(None).map(drop);
        }
        self.target.sync()?;
        let mut there = select::by_identity(self.target)?;
        let sources = self.source.snapshots(&Filter::default())?;
        for Ready { source, mut manifest } in ready {
            let id = self.source.config().id;
            let origin = select::identity(id, &source);
            if let Some(copy) = there.get(&origin) {
                // Another copy was faster.
                report.skipped.push(Copied { source: source.name, target: Some(copy.name) });
                continue;
            }
            manifest.parent = select::parent(id, &source.snapshot, &sources, &there);
            // Of several copies that run at once each waits here for the others.
            let is_there = || select::holds(self.target, &origin);
            match writer.commit_once(&manifest, &is_there)? {
                Some(name) => {
                    report.copied.push(Copied { source: source.name, target: Some(name) });
                    there.insert(origin, NamedSnapshot { name, snapshot: manifest });
                }
                None => {
                    there = select::by_identity(self.target)?;
                    let target = there.get(&origin).map(|copy| copy.name);
                    report.skipped.push(Copied { source: source.name, target });
                }
            }
        }
        // Where all were skipped, what was stored is committed all the same.
        writer.commit(None).map(drop)
    }

    /// Snapshots of the source that the target has.
    fn pairs(&self) -> Result<Pairs> {
        let there = select::by_identity(self.target)?;
        let id = self.source.config().id;
        let all = self.source.snapshots(&Filter::default())?;
        let pair = |named: NamedSnapshot| {
            let copy = there.get(&select::identity(id, &named))?.clone();
            Some((named, copy))
        };
        Ok(Pairs { all: all.into_iter().filter_map(pair).collect(), learned: HashSet::new() })
    }

    /// Stores all that a snapshot needs and gives its manifest, or says what is damaged.
    fn snapshot(
        &self,
        shared: &Shared<'_>,
        named: &NamedSnapshot,
        workers: &mut [Worker],
        pairs: &mut Pairs,
    ) -> Result<Result<Snapshot, CopyProblem>> {
        for _ in 0..ATTEMPTS {
            let before = self.source.index().position()?;
            let error = match self.attempt(shared, named, workers, pairs) {
                Ok(manifest) => return Ok(Ok(manifest)),
                Err(error) if error.is_object_damage() => error,
                Err(error) => return Err(error),
            };
            // A prune may have written it anew elsewhere.
            let is_same = self.source.sync()?;
            if before != Some(is_same) && self.is_live(named)? {
                continue;
            }
            let (object, detail) = (error.object(), error.to_string());
            return Ok(Err(CopyProblem { snapshot: Some(named.name), object, detail }));
        }
        let (object, detail) = (named.name.to_hex(), "prunes come between all the time".into());
        Ok(Err(CopyProblem { snapshot: Some(named.name), object, detail }))
    }

    fn is_live(&self, named: &NamedSnapshot) -> Result<bool, IndexError> {
        Ok(self.source.index().snapshot_names()?.contains(&named.name))
    }

    fn attempt(
        &self,
        shared: &Shared<'_>,
        named: &NamedSnapshot,
        workers: &mut [Worker],
        pairs: &mut Pairs,
    ) -> Result<Snapshot> {
        self.learn(&named.snapshot, pairs)?;
        self.map.clear_wanted()?;
        let marked =
            Marker::new(self.source, &self.map, self.progress).snapshot(&named.snapshot)?;
        Progress::add(&self.progress.total_bytes, marked.plain_bytes);
        tracing::debug!(snapshot = %named.name.short(), chunks = marked.chunks, "copying");
        blobs::copy(shared, workers)?;
        let mut rewriter = Rewriter { shared, packer: Packer::new()? };
        let mut manifest = named.snapshot.clone();
        for stream in &mut manifest.streams {
            stream.root = rewriter.recipe(stream.root)?;
        }
        manifest.tree = named.snapshot.tree.map(|tree| rewriter.tree(tree)).transpose()?;
        manifest.origin = Some(select::identity(self.source.config().id, named));
        (manifest.original, manifest.parent) = (None, None);
        Ok(manifest)
    }

    /// Learns from the copied snapshot that is most like this one.
    fn learn(&self, snapshot: &Snapshot, pairs: &mut Pairs) -> Result<()> {
        let (source, target, progress) = (self.source, self.target, self.progress);
        let gaps = Gaps::of(target)?;
        let learner = Learner { source, target, map: &self.map, progress, gaps };
        while let Some((own, copy)) = select::nearest(snapshot, &pairs.all)
            && !pairs.learned.contains(&own.name)
        {
            let name = own.name;
            if learner.learn(&own.snapshot, &copy.snapshot)? {
                pairs.learned.insert(name);
                break;
            }
            // No true copy: nothing that came of it may be used.
            pairs.all.retain(|(own, _)| own.name != name);
            pairs.learned.clear();
            self.map.clear()?;
        }
        Ok(())
    }

    /// Finds out what would be copied.
    fn rehearse(&self, waiting: &[NamedSnapshot], report: &mut CopyReport) -> Result<()> {
        let mut pairs = self.pairs()?;
        for named in waiting {
            self.learn(&named.snapshot, &mut pairs)?;
            let marked =
                Marker::new(self.source, &self.map, self.progress).snapshot(&named.snapshot);
            match marked {
                Ok(Marked { chunks, stored_bytes, .. }) => {
                    report.copied.push(Copied { source: named.name, target: None });
                    report.chunks += chunks;
                    report.read_bytes += stored_bytes;
                }
                Err(error) if error.is_object_damage() => {
                    let (object, detail) = (error.object(), error.to_string());
                    report.problems.push(CopyProblem {
                        snapshot: Some(named.name),
                        object,
                        detail,
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn add_counts(report: &mut CopyReport, counts: &Counts, written: u64) {
    report.chunks += counts.chunks.load(Ordering::Relaxed);
    report.present_chunks += counts.present.load(Ordering::Relaxed);
    report.recompressed_chunks += counts.recompressed.load(Ordering::Relaxed);
    report.read_bytes += counts.read_bytes.load(Ordering::Relaxed);
    report.written_bytes += written;
}

fn thread_count(wanted: usize) -> usize {
    match wanted {
        0 => thread::available_parallelism().map_or(2, usize::from),
        threads => threads,
    }
}
