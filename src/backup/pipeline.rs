//! The stages of a backup and the threads that run them: planners cut streams, encoders compress, the
//! storer writes packs. All queues between them are bounded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;

use crossbeam_channel::{Sender, bounded};

use super::files::{Decision, FileProblem, FilesSource, PlannedFiles};
use super::stream::{self, Planned, Work, ZeroChunk};
use super::{ClosingStream, StreamSource, encode, walk};
use crate::chunker::Chunker;
use crate::compress::Settings;
use crate::error::{Error, Result};
use crate::format::snapshot::{StreamEntry, Summary};
use crate::id::ChunkId;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::ChunkReader;
use crate::repository::writer::BlobWriter;

/// Buffers for reading each of several streams ahead, …
pub const BUFFERS: usize = 4;
/// … and for the only one.
const BUFFERS_ALONE: usize = 6;

/// What all threads of a run share.
pub struct Shared<'a> {
    pub repository: &'a Repository,
    pub writer: &'a BlobWriter<'a>,
    /// For bases of deltas; neighbours need the same ones.
    pub reader: ChunkReader<'a>,
    pub progress: &'a Progress,
    pub chunker: Chunker,
    pub compression: Settings,
    /// Set where one stream failed: the others need not go on.
    pub abandoned: AtomicBool,
    /// Used buffers for groups of small files.
    pub groups: Mutex<Vec<Vec<u8>>>,
    /// What long runs of zeros are cut into.
    pub zeros: OnceLock<ZeroChunk>,
}

pub type SourceWithParent = (StreamSource, Option<StreamEntry>);
pub type ClosingWithParent = (ClosingStream, Option<StreamEntry>);
pub type FilesWithParent<'a> = (&'a FilesSource, Option<ChunkId>);

impl<'a> Shared<'a> {
    pub fn new(
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
    pub fn store(
        &self,
        streams: Streams,
        files: Option<FilesWithParent<'_>>,
        threads: usize,
    ) -> Result<Finished> {
        if self.repository.environment().in_order {
            return self.store_in_order(streams, files);
        }
        let Streams { sources, jobs, closing } = streams;
        let buffers = if sources.len() > 1 { BUFFERS } else { BUFFERS_ALONE };
        self.progress.total_parts.store(sources.len() as u64, Ordering::Relaxed);
        let readers = if jobs == 0 { sources.len() } else { jobs.min(sources.len()) };
        let sources = Mutex::new(sources.into_iter().enumerate());
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
            let planners: Vec<_> = (0..readers)
                .map(|_| {
                    let (work, sources) = (work.clone(), &sources);
                    scope.spawn(move || self.plan_streams(sources, &work, buffers))
                })
                .collect();
            let walker = files.map(|(source, parent)| {
                let work = work.clone();
                scope.spawn(move || {
                    walk::plan(self, source, parent, work, threads)
                        .inspect_err(|_| self.abandoned.store(true, Ordering::Relaxed))
                })
            });
            // Joining in order: planners feed encoders, encoders feed the storer.
            let planned = planners.into_iter().flat_map(join).collect();
            let planned = self.close(in_order_of_sources(planned), closing, work);
            let walked = walker.map(join);
            let encoded: Vec<_> = encoders.into_iter().map(join).collect();
            let closed = self.writer.close();
            join(storer);
            finish(planned, walked, encoded, closed)
        })
    }

    /// Plans streams until none is left; one thread of several that do so.
    fn plan_streams(
        &self,
        sources: &Mutex<impl Iterator<Item = (usize, SourceWithParent)>>,
        work: &Sender<Work>,
        buffers: usize,
    ) -> Vec<(usize, Result<Planned>)> {
        let mut planned = Vec::new();
        loop {
            let next = sources.lock().expect("no panics here").next();
            let Some((number, (source, parent))) = next else { return planned };
            if self.should_stop_reading() {
                planned.push((number, Err(Error::Interrupted)));
                return planned;
            }
            planned.push((number, stream::plan(self, source, parent, work.clone(), buffers)));
        }
    }

    /// Adds the stream about the others, where they came to good ends.
    pub fn close(
        &self,
        mut planned: Vec<Result<Planned>>,
        closing: Option<ClosingWithParent>,
        work: Sender<Work>,
    ) -> Vec<Result<Planned>> {
        let Some((ClosingStream { name, make }, parent)) = closing else { return planned };
        if planned.iter().all(Result::is_ok) {
            planned.extend(make().transpose().map(|bytes| {
                let input = Box::new(std::io::Cursor::new(bytes?));
                let source = StreamSource { name, input, min_bytes: 0 };
                stream::plan(self, source, parent, work, BUFFERS)
            }));
        }
        planned
    }

    /// Whether reading on is pointless.
    pub fn should_stop_reading(&self) -> bool {
        self.should_stop() || self.abandoned.load(Ordering::Relaxed)
    }

    /// Whether even what was read is not to be stored any more.
    pub fn should_stop(&self) -> bool {
        self.progress.is_interrupted() || self.writer.has_failed()
    }
}

/// All streams of a run.
pub struct Streams {
    pub sources: Vec<SourceWithParent>,
    pub jobs: usize,
    pub closing: Option<ClosingWithParent>,
}

/// What came of streams, in their order.
fn in_order_of_sources(mut planned: Vec<(usize, Result<Planned>)>) -> Vec<Result<Planned>> {
    planned.sort_by_key(|(number, _)| *number);
    planned.into_iter().map(|(_, planned)| planned).collect()
}

/// All streams, read to their ends, with all their packs stored.
#[derive(Default)]
pub struct Finished {
    pub streams: Vec<StreamEntry>,
    pub tree: Option<ChunkId>,
    pub summary: Summary,
    pub warnings: Vec<String>,
    pub problems: Vec<FileProblem>,
    pub decisions: Vec<Decision>,
}

/// The streams, or the error that matters most: one that is not just the echo of another.
pub fn finish(
    planned: Vec<Result<Planned>>,
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

pub fn add(a: Summary, b: Summary) -> Summary {
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
