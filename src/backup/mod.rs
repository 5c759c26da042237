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
mod pipeline;
mod stream;
mod walk;

use std::sync::atomic::Ordering;
use std::thread;

use bytes::Bytes;
use jiff::Timestamp;

use files::{Decision, FileProblem, FilesSource};
use pipeline::{Finished, Shared, Streams};

use crate::compress::Settings;
use crate::error::{Error, Result};
use crate::format::name::Name;
use crate::format::snapshot::{Snapshot, SourceRef, StreamEntry, UnpackedStream};
use crate::id::ObjectName;
use crate::progress::Progress;
use crate::repository::Repository;
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

/// A stream whose content is known only when all others were read to their ends.
pub struct ClosingStream {
    /// Its name in the snapshot.
    pub name: Name,
    /// Gives its bytes, nothing where there is nothing to say, or why there must be no snapshot.
    pub make: Box<dyn FnOnce() -> Result<Option<Bytes>> + Send>,
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
    /// Which of them are the parts of compressed ones.
    pub unpacked: Vec<UnpackedStream>,
    /// How many of them are read at a time, in their order; 0 for all.
    pub jobs: usize,
    /// A stream about the others.
    pub closing: Option<ClosingStream>,
    /// What the snapshot is of.
    pub source: Option<SourceRef>,
    /// It may not be forgotten, …
    pub held: bool,
    /// … until then.
    pub held_until: Option<Timestamp>,
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
            unpacked: Vec::new(),
            jobs: 0,
            closing: None,
            source: None,
            held: false,
            held_until: None,
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
    let closing = options.closing.take();
    if !streams.is_empty() || closing.is_some() {
        return attempt(repository, &options, streams, closing, progress);
    }
    for _ in 1..ATTEMPTS {
        match attempt(repository, &options, Vec::new(), None, progress) {
            Err(Error::Pruned { .. }) => progress.begin_again(),
            other => return other,
        }
    }
    attempt(repository, &options, Vec::new(), None, progress)
}

fn attempt(
    repository: &Repository,
    options: &BackupOptions,
    streams: Vec<StreamSource>,
    closing: Option<ClosingStream>,
    progress: &Progress,
) -> Result<Report> {
    let started = repository.environment().clock.now();
    let time = options.time.unwrap_or(started);
    // It notes where the log stands: before anything is chosen to rely on.
    let writer = BlobWriter::new(repository, options.dry_run);
    let newest = choose::newest_of_host(repository, options)?;
    let parent_of = |name: &Name| {
        let parent = choose::stream_parent(&options.parent, &newest, name);
        choose::if_whole(repository, parent, |stream| repository.holds_stream(stream.root))
    };
    let parents: Vec<Option<(ObjectName, StreamEntry)>> =
        streams.iter().map(|stream| parent_of(&stream.name)).collect::<Result<_>>()?;
    let closing = closing
        .map(|closing| {
            let parent = parent_of(&closing.name)?.map(|(_, stream)| stream);
            Ok::<_, Error>((closing, parent))
        })
        .transpose()?;
    let tree_parent = options
        .files
        .as_ref()
        .and_then(|files| choose::tree_parent(&options.parent, &newest, files));
    let tree_parent =
        choose::if_whole(repository, tree_parent, |tree| repository.holds_tree(*tree))?;
    let parent = parents.iter().flatten().map(|(name, _)| *name);
    let parent = parent.chain(tree_parent.map(|(name, _)| name)).next();
    let mut snapshot = choose::manifest(options, time, parent);
    let catalogue = closing.as_ref().map(|(closing, _)| closing.name.clone());
    let shared = Shared::new(repository, &writer, progress, options.compression);
    let parents = parents.into_iter().map(|parent| parent.map(|(_, stream)| stream));
    let sources = streams.into_iter().zip(parents).collect();
    let streams = Streams { sources, jobs: options.jobs, closing };
    let files = options.files.as_ref().map(|files| (files, tree_parent.map(|(_, tree)| tree)));
    let stored = shared.store(streams, files, thread_count(options.threads));
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
    snapshot.catalogue = catalogue.filter(|name| snapshot.stream(name.as_bytes()).is_some());
    snapshot.summary = finished.summary;
    snapshot.problems = finished.problems.len() as u64;
    let elapsed = repository.environment().clock.now().duration_since(started);
    snapshot.summary.seconds = elapsed.as_secs_f64();
    snapshot.summary.added_bytes = writer.added_bytes();
    let name = writer.commit(Some(&snapshot))?;
    snapshot.summary.added_bytes = writer.added_bytes();
    let Finished { mut warnings, problems, decisions, .. } = finished;
    // Their headers say that they are compressed; they are not any more.
    let is_plain =
        |text: &String| options.unpacked.iter().any(|it| text.starts_with(&it.plain.to_string()));
    warnings.retain(|text| !is_plain(text));
    Ok(Report { name, snapshot, warnings, problems, decisions })
}

/// How often files are read before a backup gives up because of prunes.
const ATTEMPTS: usize = 5;
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
