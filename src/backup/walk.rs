//! Planning files: walk, find out what changed, build the trees.
//!
//! Directories are walked on a pool of threads; the entries of one directory are worked on in
//! batches, in parallel, and go into its tree in order. What is new is read by `content`.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use crossbeam_channel::Sender;
use rayon::prelude::*;

use super::content::ReadError;
use super::files::{Decision, FileProblem, FilesSource, PlannedFiles};
use super::gather::Gatherer;
use super::pipeline::Shared;
use super::stream::Work;
use crate::compress::Compressor;
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::directory::Codec;
use crate::format::entry::{Content, Entry, Kind, Moment};
use crate::format::name::Name;
use crate::format::pack::{EncodedBlob, whole_entry};
use crate::format::snapshot::Summary;
use crate::format::tree::TreeBuilder;
use crate::id::ChunkId;
use crate::repository::reader::ChunkReader;
use crate::repository::trees::TreeReader;
use crate::source::walk::{self, OwnerNames};

/// zstd level of trees: there are few of them, and what is stored of an unchanged file is there.
const TREE_LEVEL: i32 = 9;
/// Entries of a directory that are worked on at once.
const BATCH_ENTRIES: usize = 512;
/// Files that are read by one thread, one after the other, at least.
const NEIGHBOURS: usize = 16;
/// Directories are walked recursively, and a thread that waits may take on other work on top.
const STACK_BYTES: usize = 256 << 20;
/// A file that changed less than this before it was read may change again and bear the same time.
/// Two seconds is the coarsest clock of a file system in use (FAT).
const CLOCK_TICK_SECONDS: i64 = 2;

/// Plans all files of a source.
pub(super) fn plan(
    shared: &Shared<'_>,
    source: &FilesSource,
    parent: Option<ChunkId>,
    work: Sender<Work>,
    threads: usize,
) -> Result<PlannedFiles> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(STACK_BYTES)
        .build()
        .map_err(|error| Error::Usage(format!("start threads: {error}")))?;
    let gatherers = (0..threads).map(|_| Mutex::new(Gatherer::new(shared, work.clone()))).collect();
    let walker = Walker {
        shared,
        source,
        work,
        trees: ChunkReader::new(shared.repository),
        owners: OwnerNames::default(),
        gatherers,
        compressors: Mutex::default(),
        hard_links: Mutex::default(),
        outcome: Mutex::default(),
    };
    let wanted = Wanted::of(&source.paths)?;
    let walked = pool.install(|| walker.directory(Path::new("/"), &wanted, parent, None));
    // What was cut is worth keeping even where the walk failed.
    for gatherer in &walker.gatherers {
        gatherer.lock().expect("no panics here").send()?;
    }
    let outcome = walker.outcome.into_inner().expect("no panics here");
    let Outcome { mut problems, mut decisions, summary } = outcome;
    problems.sort_by(|a, b| a.path.cmp(&b.path));
    decisions.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(PlannedFiles { tree: walked?.0, summary, problems, decisions })
}

/// The paths that were asked for, as a tree of names.
#[derive(Default)]
struct Wanted {
    /// Everything below.
    whole: bool,
    below: BTreeMap<OsString, Wanted>,
}

impl Wanted {
    fn of(paths: &[PathBuf]) -> Result<Self> {
        let mut root = Self::default();
        for path in paths {
            let mut at = &mut root;
            for part in path.components() {
                match part {
                    Component::RootDir => {}
                    Component::Normal(name) => at = at.below.entry(name.to_owned()).or_default(),
                    _ => {
                        let path = path.display();
                        return Err(Error::Usage(format!("{path} is not a plain absolute path")));
                    }
                }
            }
            at.whole = true;
        }
        Ok(root)
    }
}

/// A file with several names, in one state: device, inode, size, times of both changes.
type Identity = (u64, u64, u64, Moment, Moment);

/// What a name stands for.
enum Seen {
    /// Something that is done with.
    Entry(Entry),
    /// A directory, with its tree in the parent snapshot.
    Directory { entry: Entry, parent: Option<ChunkId> },
}

#[derive(Default)]
struct Outcome {
    summary: Summary,
    problems: Vec<FileProblem>,
    decisions: Vec<Decision>,
}

pub(super) struct Walker<'a> {
    pub(super) shared: &'a Shared<'a>,
    source: &'a FilesSource,
    pub(super) work: Sender<Work>,
    trees: ChunkReader<'a>,
    owners: OwnerNames,
    /// One for each thread, so that neighbours stay together.
    pub(super) gatherers: Vec<Mutex<Gatherer<'a>>>,
    compressors: Mutex<Vec<Compressor>>,
    /// What was read of files with several names.
    hard_links: Mutex<HashMap<Identity, (u64, Content)>>,
    outcome: Mutex<Outcome>,
}

impl Walker<'_> {
    /// Stores the tree of a directory, and tells whether everything in it is there. `device` is the
    /// file system to stay on.
    fn directory(
        &self,
        path: &Path,
        wanted: &Wanted,
        parent: Option<ChunkId>,
        device: Option<u64>,
    ) -> Result<(ChunkId, bool)> {
        if self.shared.should_stop_reading() {
            return Err(Error::Interrupted);
        }
        let (names, mut is_whole) = self.names(path, wanted);
        let mut old = OldEntries::new(&self.trees, parent);
        let mut builder = TreeBuilder::default();
        let mut store = |node: Vec<u8>| self.store_node(node);
        for batch in names.chunks(BATCH_ENTRIES) {
            let items: Vec<_> = batch.iter().map(|name| (name, old.named(name))).collect();
            // Files first: those of one directory are alike, and are compressed together.
            let seen: Vec<Option<Seen>> = items
                .into_par_iter()
                .with_min_len(NEIGHBOURS)
                .map(|(name, old)| self.look(&path.join(name), name, wanted.below.get(name), old))
                .collect::<Result<_>>()?;
            let entries: Vec<Option<Entry>> = seen
                .into_par_iter()
                .zip(batch)
                .map(|(seen, name)| match seen {
                    Some(Seen::Directory { entry, parent }) => {
                        let below = wanted.below.get(name).filter(|_| !wanted.whole);
                        self.subdirectory(&path.join(name), entry, below, parent, device).map(Some)
                    }
                    Some(Seen::Entry(entry)) => Ok(Some(entry)),
                    None => Ok(None),
                })
                .collect::<Result<_>>()?;
            is_whole &= entries.iter().all(Option::is_some);
            for entry in entries.iter().flatten() {
                builder.push(entry, &mut store)?;
            }
        }
        Ok((builder.finish(&mut store)?, is_whole))
    }

    /// The names to look at in a directory, and whether these are all.
    fn names(&self, path: &Path, wanted: &Wanted) -> (Vec<OsString>, bool) {
        if !wanted.whole {
            return (wanted.below.keys().cloned().collect(), false);
        }
        if let Some(tag) = self.source.excludes.tag_of(path) {
            self.decide(path, "excluded", "all but the tag: marked as not to be backed up");
            return (vec![tag.to_owned()], false);
        }
        match walk::list(path) {
            Ok(names) => (names, true),
            Err(error) => {
                self.problem(path, &error.to_string());
                (Vec::new(), false)
            }
        }
    }

    /// Looks at one name, and reads it if it is a file that is new. `None` where it is left out or
    /// cannot be read.
    fn look(
        &self,
        path: &Path,
        name: &OsStr,
        below: Option<&Wanted>,
        old: Option<Entry>,
    ) -> Result<Option<Seen>> {
        // Taken before anything is read: what changes from here on has a later time or is racy.
        let now = self.shared.repository.environment().clock.now().as_second();
        let mut entry = match walk::read_entry(path, name, &self.owners) {
            Ok(entry) => entry,
            Err(error) => {
                self.problem(path, &error.to_string());
                return Ok(None);
            }
        };
        let is_directory = matches!(entry.kind, Kind::Directory { .. });
        if !is_directory && below.is_some_and(|below| !below.below.is_empty()) {
            self.problem(path, "is no directory; what was asked for below it is not there");
            return Ok(None);
        }
        // Only what was asked for by name is kept against the rules.
        if below.is_none()
            && let Some(reason) = self.source.excludes.reason(path, is_directory, entry.size())
        {
            self.decide(path, "excluded", reason);
            return Ok(None);
        }
        let latest = if self.source.ignore_ctime { entry.modified } else { entry.changed };
        let identity = (entry.device, entry.inode, entry.size(), entry.modified, entry.changed);
        if latest.seconds.saturating_add(CLOCK_TICK_SECONDS) > now {
            entry.changed = Moment::default();
        }
        match &entry.kind {
            Kind::Directory { .. } => {
                let parent = match old.map(|old| old.kind) {
                    Some(Kind::Directory { tree, .. }) => Some(tree),
                    _ => None,
                };
                Ok(Some(Seen::Directory { entry, parent }))
            }
            Kind::File { .. } => Ok(self.file(path, entry, identity, old)?.map(Seen::Entry)),
            _ => {
                self.count(|summary| summary.files += 1);
                Ok(Some(Seen::Entry(entry)))
            }
        }
    }

    /// A directory that was found, with what is in it; only what is asked for where that is told.
    fn subdirectory(
        &self,
        path: &Path,
        mut entry: Entry,
        below: Option<&Wanted>,
        parent: Option<ChunkId>,
        device: Option<u64>,
    ) -> Result<Entry> {
        let everything = Wanted { whole: true, ..Wanted::default() };
        let wanted = below.unwrap_or(&everything);
        let is_other = device.is_some_and(|device| device != entry.device);
        let (tree, is_whole) = if self.source.one_file_system && wanted.whole && is_other {
            // The mount point itself is kept, empty.
            self.decide(path, "excluded", "on another file system");
            (TreeBuilder::default().finish(&mut |node| self.store_node(node))?, false)
        } else {
            let is_bound = self.source.one_file_system && wanted.whole;
            let inner = if is_bound { Some(entry.device) } else { device };
            self.directory(path, wanted, parent, inner)?
        };
        entry.kind = Kind::Directory { tree, is_whole };
        self.count(|summary| summary.directories += 1);
        Ok(entry)
    }

    fn file(
        &self,
        path: &Path,
        mut entry: Entry,
        identity: Identity,
        old: Option<Entry>,
    ) -> Result<Option<Entry>> {
        let (action, reason) = self.compare(&entry, old.as_ref());
        self.decide(path, action, reason);
        if action == "unchanged"
            && let Some(old) = old
        {
            let size = entry.size();
            self.count(|summary| {
                summary.files += 1;
                summary.unchanged_files += 1;
                summary.unchanged_bytes += size;
                summary.file_bytes += size;
            });
            entry.kind = old.kind;
            return Ok(Some(entry));
        }
        // A file that changed just now may change again and look the same.
        let is_shared = entry.is_hard_link() && entry.changed != Moment::default();
        let links = || self.hard_links.lock().expect("no panics here");
        let known = if is_shared { links().get(&identity).copied() } else { None };
        let read = match known {
            Some(known) => Ok(known),
            None => self.read(path, old.as_ref()),
        };
        match read {
            Ok((size, content)) => {
                if is_shared {
                    links().insert(identity, (size, content));
                }
                entry.kind = Kind::File { size, content };
                self.count(|summary| {
                    summary.files += 1;
                    summary.file_bytes += size;
                });
                Ok(Some(entry))
            }
            Err(ReadError::File(detail)) => {
                self.problem(path, &detail);
                Ok(None)
            }
            Err(ReadError::Run(error)) => Err(error),
        }
    }

    /// Whether a file must be read again, and why.
    fn compare(&self, new: &Entry, old: Option<&Entry>) -> (&'static str, &'static str) {
        let Some(old) = old else { return ("new", "not in the parent snapshot") };
        let Kind::File { size, .. } = old.kind else {
            return ("changed", "was another kind of file");
        };
        if old.changed == Moment::default() {
            return ("changed", "was read so soon after a change that another may bear its time");
        }
        let is_other_inode =
            !self.source.ignore_inode && (new.inode, new.device) != (old.inode, old.device);
        let is_later = !self.source.ignore_ctime && new.changed != old.changed;
        match () {
            () if new.size() != size => ("changed", "has another size"),
            () if new.modified != old.modified => ("changed", "has another modification time"),
            () if is_later => ("changed", "has another change time"),
            () if is_other_inode => ("changed", "is another inode"),
            () => ("unchanged", "size, times and inode are those of the parent snapshot"),
        }
    }

    fn store_node(&self, node: Vec<u8>) -> Result<ChunkId> {
        let id = self.shared.repository.keys().chunk_id(BlobKind::Tree, &node);
        if self.shared.writer.claim(&id)? {
            let spare = self.compressors.lock().expect("no panics here").pop();
            let mut compressor = match spare {
                Some(compressor) => compressor,
                None => {
                    let mut compressor = Compressor::new(self.shared.compression)?;
                    compressor.set_plain_level(TREE_LEVEL)?;
                    compressor
                }
            };
            let frame = compressor.plain(&node)?;
            self.compressors.lock().expect("no panics here").push(compressor);
            let is_smaller = frame.len() < node.len();
            let codec = if is_smaller { Codec::Zstd } else { Codec::Raw };
            let entry = whole_entry(id.key(), codec, node.len());
            let payload = if is_smaller { frame } else { node };
            self.shared.writer.add(BlobKind::Tree, EncodedBlob::new(entry, payload))?;
        }
        Ok(id)
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Summary)) {
        change(&mut self.outcome.lock().expect("no panics here").summary);
    }

    pub(super) fn problem(&self, path: &Path, detail: &str) {
        let path = Name::new(path.as_os_str().as_bytes());
        let problem = FileProblem { path, detail: detail.to_owned() };
        self.outcome.lock().expect("no panics here").problems.push(problem);
    }

    fn decide(&self, path: &Path, action: &'static str, reason: &'static str) {
        if self.source.explain {
            let path = Name::new(path.as_os_str().as_bytes());
            let decision = Decision { path, action, reason };
            self.outcome.lock().expect("no panics here").decisions.push(decision);
        }
    }
}

/// The entries of the parent's directory, asked for in the order of names.
struct OldEntries<'a> {
    reader: Option<std::iter::Peekable<TreeReader<'a>>>,
}

impl<'a> OldEntries<'a> {
    fn new(trees: &'a ChunkReader<'a>, tree: Option<ChunkId>) -> Self {
        Self { reader: tree.map(|tree| TreeReader::new(trees, tree).peekable()) }
    }

    /// A parent that cannot be read is as good as none.
    fn named(&mut self, name: &OsStr) -> Option<Entry> {
        let reader = self.reader.as_mut()?;
        while let Some(Ok(entry)) = reader.peek() {
            match entry.name.as_slice().cmp(name.as_bytes()) {
                std::cmp::Ordering::Less => drop(reader.next()),
                std::cmp::Ordering::Equal => return reader.next()?.ok(),
                std::cmp::Ordering::Greater => return None,
            }
        }
        None
    }
}
