//! Backing up streams: read, chunk, hash, look up, delta, compress, seal, store, commit.
//!
//! One thread reads a stream, one cuts and plans it, a few encode what is new, one stores packs.
//! All queues are bounded, so memory does not grow with the input. A snapshot is committed only
//! when every stream was read to an end that its source calls good.

mod choose;
mod content;
mod encode;
pub mod files;
mod gather;
mod in_order;
mod input;
mod names;
mod parent;
mod stream;
mod walk;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;

use crossbeam_channel::bounded;
use jiff::Timestamp;

use files::{Decision, FileProblem, FilesSource, PlannedFiles};
use stream::ZeroChunk;

use crate::chunker::Chunker;
use crate::compress::Settings;
use crate::error::{Error, Result};
use crate::format::name::Name;
use crate::format::snapshot::{Snapshot, StreamEntry, Summary};
use crate::id::{ChunkId, ObjectName};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::ChunkReader;
use crate::repository::snapshots::NamedSnapshot;
use crate::repository::writer::BlobWriter;
use crate::source::StreamInput;

/// One stream to back up.
pub struct StreamSource {
    /// Its name in the snapshot.
    pub name: Name,
    /// Where it comes from.
    pub input: Box<dyn StreamInput>,
    /// Fewer bytes than this are a failure.
    pub min_bytes: u64,
}

/// Which snapshot the deltas are made against.
#[derive(Debug, Clone, Default)]
pub enum ParentChoice {
    /// The newest one of the same host that holds a stream of the same name, for each stream.
    #[default]
    Newest,
    /// This one.
    Snapshot(Box<NamedSnapshot>),
    /// None: what is new is stored whole.
    None,
}

/// What to back up and how.
pub struct BackupOptions {
    /// The streams.
    pub streams: Vec<StreamSource>,
    /// Files and directories, if any.
    pub files: Option<FilesSource>,
    /// Host to record.
    pub host: String,
    /// User to record.
    pub user: String,
    /// Tags to record.
    pub tags: Vec<String>,
    /// For people.
    pub description: Option<String>,
    /// Time to record; now where not given.
    pub time: Option<Timestamp>,
    /// What to make deltas against.
    pub parent: ParentChoice,
    /// Do everything but store.
    pub dry_run: bool,
    /// Threads that encode; 0 for as many as there are processors.
    pub threads: usize,
    /// Compression settings.
    pub compression: Settings,
    /// Name and version of the program.
    pub program: String,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            streams: Vec::new(),
            files: None,
            host: String::new(),
            user: String::new(),
            tags: Vec::new(),
            description: None,
            time: None,
            parent: ParentChoice::Newest,
            dry_run: false,
            threads: 0,
            compression: Settings::default(),
            program: concat!("restow ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// What came of a backup.
#[derive(Debug, Clone)]
pub struct Report {
    /// Name of the snapshot; `None` for a dry run.
    pub name: Option<ObjectName>,
    /// The manifest.
    pub snapshot: Snapshot,
    /// What went wrong without doing harm to this snapshot.
    pub warnings: Vec<String>,
    /// Files that are not in it as they should be.
    pub problems: Vec<FileProblem>,
    /// What was done with each file, where that was asked for.
    pub decisions: Vec<Decision>,
}

/// Runs a backup. On interruption and on a failing source, what was stored so far is committed
/// without a snapshot, so that the next run does not store it again. Where a prune removed what the
/// backup relies on, files are read once more; streams cannot be.
pub fn run(
    repository: &Repository,
    mut options: BackupOptions,
    progress: &Progress,
) -> Result<Report> {
    names::check(&options)?;
    let streams = std::mem::take(&mut options.streams);
    if !streams.is_empty() {
        return attempt(repository, &options, streams, progress);
    }
    for _ in 1..ATTEMPTS {
        match attempt(repository, &options, Vec::new(), progress) {
            Err(Error::Pruned { .. }) => progress.begin_again(),
            other => return other,
        }
    }
    attempt(repository, &options, Vec::new(), progress)
}

fn attempt(
    repository: &Repository,
    options: &BackupOptions,
    streams: Vec<StreamSource>,
    progress: &Progress,
) -> Result<Report> {
    let started = repository.environment().clock.now();
    let time = options.time.unwrap_or(started);
    // It notes where the log stands: before anything is chosen to rely on.
    let writer = BlobWriter::new(repository, options.dry_run);
    let newest = choose::newest_of_host(repository, options)?;
    let parents: Vec<Option<(ObjectName, StreamEntry)>> = streams
        .iter()
        .map(|stream| choose::stream_parent(&options.parent, &newest, &stream.name))
        .map(|parent| {
            choose::if_whole(repository, parent, |stream| repository.holds_stream(stream.root))
        })
        .collect::<Result<_>>()?;
    let tree_parent = options
        .files
        .as_ref()
        .and_then(|files| choose::tree_parent(&options.parent, &newest, files));
    let tree_parent =
        choose::if_whole(repository, tree_parent, |tree| repository.holds_tree(*tree))?;
    let parent = parents.iter().flatten().map(|(name, _)| *name);
    let parent = parent.chain(tree_parent.map(|(name, _)| name)).next();
    let mut snapshot = choose::manifest(options, time, parent);
    let shared = Shared::new(repository, &writer, progress, options.compression);
    let parents = parents.into_iter().map(|parent| parent.map(|(_, stream)| stream));
    let sources = streams.into_iter().zip(parents).collect();
    let files = options.files.as_ref().map(|files| (files, tree_parent.map(|(_, tree)| tree)));
    let stored = shared.store(sources, files, thread_count(options.threads));
    let finished = match stored {
        Ok(finished) => finished,
        Err(error) => {
            // Where storing failed, everybody else only stopped because of it.
            let error = writer.take_error().unwrap_or(error);
            keep_what_is_stored(&writer, &error);
            return Err(error);
        }
    };
    snapshot.streams = finished.streams;
    snapshot.tree = finished.tree;
    snapshot.summary = finished.summary;
    snapshot.problems = finished.problems.len() as u64;
    let elapsed = repository.environment().clock.now().duration_since(started);
    snapshot.summary.seconds = elapsed.as_secs_f64();
    snapshot.summary.added_bytes = writer.added_bytes();
    let name = writer.commit(Some(&snapshot))?;
    snapshot.summary.added_bytes = writer.added_bytes();
    let Finished { warnings, problems, decisions, .. } = finished;
    Ok(Report { name, snapshot, warnings, problems, decisions })
}

/// How often files are read before a backup gives up because of prunes.
const ATTEMPTS: usize = 5;
/// Buffers for reading each of several streams ahead, …
const BUFFERS: usize = 4;
/// … and for the only one.
const BUFFERS_ALONE: usize = 6;

/// What all threads of a run share.
struct Shared<'a> {
    repository: &'a Repository,
    writer: &'a BlobWriter<'a>,
    /// For bases of deltas; neighbours need the same ones.
    reader: ChunkReader<'a>,
    progress: &'a Progress,
    chunker: Chunker,
    compression: Settings,
    /// Set where one stream failed: the others need not go on.
    abandoned: AtomicBool,
    /// Used buffers for groups of small files.
    groups: Mutex<Vec<Vec<u8>>>,
    /// What long runs of zeros are cut into.
    zeros: OnceLock<ZeroChunk>,
}

type SourceWithParent = (StreamSource, Option<StreamEntry>);
type FilesWithParent<'a> = (&'a FilesSource, Option<ChunkId>);

impl<'a> Shared<'a> {
    fn new(
        repository: &'a Repository,
        writer: &'a BlobWriter<'a>,
        progress: &'a Progress,
        compression: Settings,
    ) -> Self {
        Self {
            repository,
            writer,
            reader: ChunkReader::of_bases(repository),
            progress,
            chunker: Chunker::new(repository.config().stream_chunks, repository.keys().gear_key()),
            compression,
            abandoned: AtomicBool::new(false),
            groups: Mutex::default(),
            zeros: OnceLock::new(),
        }
    }

    /// Runs the pipeline for all streams; when it returns `Ok`, all packs are stored.
    fn store(
        &self,
        sources: Vec<SourceWithParent>,
        files: Option<FilesWithParent<'_>>,
        threads: usize,
    ) -> Result<Finished> {
        if self.repository.environment().in_order {
            return self.store_in_order(sources, files);
        }
        let buffers = if sources.len() > 1 { BUFFERS } else { BUFFERS_ALONE };
        thread::scope(|scope| {
            let storer = scope.spawn(|| self.writer.store_packs());
            let (work, queue) = bounded(threads);
            let encoders: Vec<_> = (0..threads)
                .map(|_| {
                    let queue = queue.clone();
                    scope.spawn(move || {
                        encode::encode_all(self, queue)
                            .inspect_err(|_| self.abandoned.store(true, Ordering::Relaxed))
                    })
                })
                .collect();
            drop(queue);
            let planners: Vec<_> = sources
                .into_iter()
                .map(|(source, parent)| {
                    let work = work.clone();
                    scope.spawn(move || stream::plan(self, source, parent, work, buffers))
                })
                .collect();
            let walker = files.map(|(source, parent)| {
                let work = work.clone();
                scope.spawn(move || {
                    walk::plan(self, source, parent, work, threads)
                        .inspect_err(|_| self.abandoned.store(true, Ordering::Relaxed))
                })
            });
            drop(work);
            // Joining in order: planners feed encoders, encoders feed the storer.
            let planned: Vec<_> = planners.into_iter().map(join).collect();
            let walked = walker.map(join);
            let encoded: Vec<_> = encoders.into_iter().map(join).collect();
            let closed = self.writer.close();
            join(storer);
            finish(planned, walked, encoded, closed)
        })
    }

    /// Whether reading on is pointless.
    fn should_stop_reading(&self) -> bool {
        self.should_stop() || self.abandoned.load(Ordering::Relaxed)
    }

    /// Whether even what was read is not to be stored any more.
    fn should_stop(&self) -> bool {
        self.progress.is_interrupted() || self.writer.has_failed()
    }
}

/// All streams, read to their ends, with all their packs stored.
#[derive(Default)]
struct Finished {
    streams: Vec<StreamEntry>,
    tree: Option<ChunkId>,
    summary: Summary,
    warnings: Vec<String>,
    problems: Vec<FileProblem>,
    decisions: Vec<Decision>,
}

/// The streams, or the error that matters most: one that is not just the echo of another.
fn finish(
    planned: Vec<Result<stream::Planned>>,
    walked: Option<Result<PlannedFiles>>,
    encoded: Vec<Result<Summary>>,
    closed: Result<()>,
) -> Result<Finished> {
    let mut errors = Vec::new();
    let mut finished = Finished::default();
    for result in planned {
        match result {
            Ok(planned) => {
                finished.warnings.extend(planned.warnings);
                finished.streams.push(planned.entry);
                finished.summary = add(finished.summary, planned.summary);
            }
            Err(error) => errors.push(error),
        }
    }
    match walked {
        Some(Ok(files)) => {
            finished.tree = Some(files.tree);
            finished.summary = add(finished.summary, files.summary);
            finished.problems = files.problems;
            finished.decisions = files.decisions;
        }
        Some(Err(error)) => errors.push(error),
        None => {}
    }
    for result in encoded {
        match result {
            Ok(part) => finished.summary = add(finished.summary, part),
            Err(error) => errors.push(error),
        }
    }
    errors.extend(closed.err());
    let is_echo = |error: &Error| matches!(error, Error::Interrupted);
    errors.sort_by_key(is_echo);
    errors.into_iter().next().map_or(Ok(finished), Err)
}

fn add(a: Summary, b: Summary) -> Summary {
    Summary {
        read_bytes: a.read_bytes + b.read_bytes,
        dedup_bytes: a.dedup_bytes + b.dedup_bytes,
        delta_bytes: a.delta_bytes + b.delta_bytes,
        new_bytes: a.new_bytes + b.new_bytes,
        added_bytes: a.added_bytes + b.added_bytes,
        chunks: a.chunks + b.chunks,
        new_chunks: a.new_chunks + b.new_chunks,
        files: a.files + b.files,
        unchanged_files: a.unchanged_files + b.unchanged_files,
        unchanged_bytes: a.unchanged_bytes + b.unchanged_bytes,
        directories: a.directories + b.directories,
        file_bytes: a.file_bytes + b.file_bytes,
        seconds: a.seconds.max(b.seconds),
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A run that ends without a snapshot still commits its packs, unless the store itself failed.
fn keep_what_is_stored(writer: &BlobWriter<'_>, error: &Error) {
    if matches!(error, Error::Interrupted | Error::Source { .. } | Error::Io { .. }) {
        let _ = writer.commit(None);
    }
}

fn thread_count(wanted: usize) -> usize {
    match wanted {
        0 => thread::available_parallelism().map_or(2, usize::from),
        threads => threads,
    }
}

/// Sets the counters that a progress display starts from.
fn expect_bytes(progress: &Progress, hint: Option<u64>) {
    if let Some(bytes) = hint {
        progress.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
