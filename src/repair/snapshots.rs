//! `repair snapshots`: snapshots without the streams and files that are lost.
//!
//! A stream or file of which any chunk is lost is left out as a whole: half a database dump is not a
//! smaller dump. Everything else of the snapshot is as it was. The old snapshot stays beside the new
//! one until `forget` is asked for.

use std::collections::{BTreeSet, HashMap};
use std::thread;

use serde::Serialize;

use crate::compress::{Compressor, Settings};
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::directory::Codec;
use crate::format::entry::{Content, Entry, Kind};
use crate::format::log::{EntryKind, LogEntry};
use crate::format::name::Name;
use crate::format::pack::{EncodedBlob, whole_entry};
use crate::format::snapshot::Snapshot;
use crate::format::tree::TreeBuilder;
use crate::id::{ChunkId, ChunkKey, ObjectName};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::ChunkReader;
use crate::repository::recipes::RecipeReader;
use crate::repository::snapshots::NamedSnapshot;
use crate::repository::trees::{self, TreeReader};
use crate::repository::writer::BlobWriter;

/// The tag of repaired snapshots.
pub const TAG: &str = "repaired";
/// Chunks whose state is remembered; a bound on memory.
const REMEMBERED: usize = 1 << 20;

/// What to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct SnapshotsOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Forget the damaged snapshots, and those of which nothing is left.
    pub forget: bool,
}

/// What becomes of a damaged snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct Repaired {
    /// The damaged one.
    pub old: ObjectName,
    /// The one in its place; `None` for a dry run, and where nothing is left of it.
    pub new: Option<ObjectName>,
    /// Streams, files and directories that are not in it.
    pub lost: Vec<Name>,
    /// Nothing is left of it.
    pub is_empty: bool,
    /// It was forgotten.
    pub forgotten: bool,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SnapshotsReport {
    /// Snapshots looked at.
    pub snapshots: u64,
    /// The damaged ones.
    pub repaired: Vec<Repaired>,
}

/// Makes new snapshots in the place of those among `snapshots` that have lost something.
pub fn run(
    repository: &Repository,
    snapshots: &[NamedSnapshot],
    options: SnapshotsOptions,
    progress: &Progress,
) -> Result<SnapshotsReport> {
    repository.expect_owner()?;
    let mut report = SnapshotsReport::default();
    let mut mender = Mender::new(repository)?;
    for named in snapshots {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        report.snapshots += 1;
        if let Some(repaired) = mender.snapshot(named, options.dry_run)? {
            report.repaired.push(repaired);
        }
    }
    if options.forget && !options.dry_run {
        forget(repository, snapshots, &mut report.repaired)?;
    }
    Ok(report)
}

/// Forgets the damaged ones in one entry. One that is held and has nothing in its place stays.
fn forget(
    repository: &Repository,
    snapshots: &[NamedSnapshot],
    repaired: &mut [Repaired],
) -> Result<()> {
    let is_held = |name: &ObjectName| snapshots.iter().any(|n| n.name == *name && n.snapshot.held);
    let may_go = |it: &&mut Repaired| it.new.is_some() || !is_held(&it.old);
    let mut going: Vec<_> = repaired.iter_mut().filter(may_go).collect();
    if going.is_empty() {
        return Ok(());
    }
    let names: BTreeSet<_> = going.iter().map(|repaired| repaired.old).collect();
    let committed = repository.commit(&mut || {
        let live = repository.index().snapshot_names()?;
        let mut entry = LogEntry::new(EntryKind::Forget);
        entry.snapshot_remove = names.iter().filter(|name| live.contains(name)).copied().collect();
        if entry.snapshot_remove.is_empty() { Err(Error::Interrupted) } else { Ok(entry) }
    });
    match committed {
        Ok(_) | Err(Error::Interrupted) => {}
        Err(error) => return Err(error),
    }
    going.iter_mut().for_each(|repaired| repaired.forgotten = true);
    Ok(())
}

/// What is left of a directory.
enum Left {
    /// All of it.
    Same,
    /// A part, as a tree of its own.
    Part(ChunkId),
}

struct Mender<'a> {
    repository: &'a Repository,
    reader: ChunkReader<'a>,
    compressor: Compressor,
    /// Whether a chunk can be read, as far as that was asked before.
    known: HashMap<ChunkKey, bool>,
    /// Nodes of trees to be stored.
    nodes: Vec<EncodedBlob>,
    /// Entries of the snapshot at hand that are left, directories aside.
    left: u64,
}

impl<'a> Mender<'a> {
    fn new(repository: &'a Repository) -> Result<Self> {
        Ok(Self {
            repository,
            reader: ChunkReader::new(repository),
            compressor: Compressor::new(Settings::default())?,
            known: HashMap::new(),
            nodes: Vec::new(),
            left: 0,
        })
    }

    /// `None` where nothing of it is lost.
    fn snapshot(&mut self, named: &NamedSnapshot, dry_run: bool) -> Result<Option<Repaired>> {
        let old = &named.snapshot;
        let (mut new, mut lost) = (old.clone(), Vec::new());
        self.nodes.clear();
        self.left = 0;
        for stream in &old.streams {
            if !self.is_whole(stream.root)? {
                lost.push(stream.name.clone());
                new.streams.retain(|kept| kept.name != stream.name);
            }
        }
        if let Some(tree) = old.tree
            && let Left::Part(left) = self.directory(tree, b"", 0, &mut lost)?
        {
            new.tree = Some(left);
            let count = |of: &[Name]| of.len() as u64;
            new.summary.files = new.summary.files.saturating_sub(count(&lost));
        }
        if lost.is_empty() {
            return Ok(None);
        }
        // It counts as incomplete where snapshots are chosen to be kept.
        new.problems += lost.len() as u64;
        let is_empty = new.streams.is_empty() && self.left == 0;
        let mut repaired =
            Repaired { old: named.name, new: None, lost, is_empty, forgotten: false };
        if dry_run || is_empty {
            return Ok(Some(repaired));
        }
        // Not the same snapshot: a copy may still bring the whole one back.
        (new.original, new.origin, new.repaired_from) = (None, None, Some(named.name));
        if !new.tags.iter().any(|tag| tag == TAG) {
            new.tags.push(TAG.to_owned());
        }
        let same = self.existing(&new)?;
        repaired.new = match same {
            Some(name) => Some(name),
            None => self.store(&new)?,
        };
        Ok(Some(repaired))
    }

    /// What an earlier run made of the same snapshot.
    fn existing(&self, wanted: &Snapshot) -> Result<Option<ObjectName>> {
        let live = self.repository.index().snapshots()?;
        let same = live.into_iter().find(|(_, snapshot)| snapshot == wanted);
        Ok(same.map(|(name, _)| name))
    }

    fn store(&mut self, snapshot: &Snapshot) -> Result<Option<ObjectName>> {
        let writer = BlobWriter::new(self.repository, false);
        let nodes = std::mem::take(&mut self.nodes);
        let stored = thread::scope(|scope| {
            let storer = scope.spawn(|| writer.store_packs());
            let added = nodes.into_iter().try_for_each(|node| writer.add(BlobKind::Tree, node));
            let closed = writer.close();
            let _ = storer.join();
            added.and(closed)
        });
        if let Err(error) = stored {
            return Err(writer.take_error().unwrap_or(error));
        }
        writer.commit(Some(snapshot))
    }

    /// Whether a stream can be read to its end.
    fn is_whole(&mut self, root: ChunkId) -> Result<bool> {
        for run in RecipeReader::new(self.repository, root)? {
            match run {
                Ok(run) if self.can_read(run.id.key())? => {}
                Ok(_) => return Ok(false),
                Err(error) if error.is_certain_damage() => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether a chunk stands somewhere, and all that it is made against.
    fn can_read(&mut self, key: ChunkKey) -> Result<bool> {
        if self.known.len() > REMEMBERED {
            self.known.clear();
        }
        let (mut waiting, mut walked) = (vec![key], Vec::new());
        while let Some(next) = waiting.pop() {
            match self.known.get(&next) {
                Some(true) => continue,
                Some(false) => {
                    self.known.insert(key, false);
                    return Ok(false);
                }
                None => {}
            }
            let Some(found) = self.repository.index().find(&next)? else {
                self.known.insert(next, false);
                self.known.insert(key, false);
                return Ok(false);
            };
            walked.push(next);
            waiting.extend(found.needs());
        }
        self.known.extend(walked.into_iter().map(|key| (key, true)));
        Ok(true)
    }

    /// The directory without what is lost. `lost` gets the paths.
    fn directory(
        &mut self,
        root: ChunkId,
        path: &[u8],
        depth: usize,
        lost: &mut Vec<Name>,
    ) -> Result<Left> {
        if depth >= trees::MAX_DEPTH {
            return Err(trees::too_deep(&root));
        }
        let (mut kept, is_cut) = self.entries(root, path, lost)?;
        let mut is_changed = is_cut;
        let before = kept.len();
        let mut sound = Vec::with_capacity(before);
        for mut entry in kept.drain(..) {
            let below = trees::join(path, &entry.name);
            match &mut entry.kind {
                Kind::File { content, .. } if !self.has(*content)? => {
                    lost.push(Name::new(below));
                    continue;
                }
                Kind::Directory { tree, is_whole } => {
                    if let Left::Part(left) = self.directory(*tree, &below, depth + 1, lost)? {
                        (*tree, *is_whole, is_changed) = (left, false, true);
                    }
                }
                _ => self.left += 1,
            }
            sound.push(entry);
        }
        if !is_changed && sound.len() == before {
            return Ok(Left::Same);
        }
        let mut builder = TreeBuilder::default();
        for entry in &sound {
            builder.push(entry, &mut |node| self.node(node))?;
        }
        Ok(Left::Part(builder.finish(&mut |node| self.node(node))?))
    }

    /// The entries of a directory that can be read, and whether some cannot.
    fn entries(
        &self,
        root: ChunkId,
        path: &[u8],
        lost: &mut Vec<Name>,
    ) -> Result<(Vec<Entry>, bool)> {
        let (mut kept, mut is_cut) = (Vec::new(), false);
        for entry in TreeReader::new(&self.reader, root) {
            match entry {
                Ok(entry) => kept.push(entry),
                Err(error) if error.is_certain_damage() => is_cut = true,
                Err(error) => return Err(error),
            }
        }
        if is_cut {
            lost.push(Name::new(trees::join(path, b"...")));
        }
        Ok((kept, is_cut))
    }

    fn has(&mut self, content: Content) -> Result<bool> {
        match content {
            Content::Empty => Ok(true),
            Content::Chunk(id) => self.can_read(id.key()),
            Content::Recipe { root, .. } => self.is_whole(root),
        }
    }

    fn node(&mut self, bytes: Vec<u8>) -> Result<ChunkId> {
        let id = self.repository.keys().chunk_id(BlobKind::Tree, &bytes);
        let is_waiting = self.nodes.iter().any(|node| node.entry.id == id.key());
        if is_waiting || self.repository.index().contains_live(&id.key())? {
            return Ok(id);
        }
        let frame = self.compressor.plain(&bytes)?;
        let is_smaller = frame.len() < bytes.len();
        let codec = if is_smaller { Codec::Zstd } else { Codec::Raw };
        let entry = whole_entry(id.key(), codec, bytes.len());
        self.nodes.push(EncodedBlob::new(entry, if is_smaller { frame } else { bytes }));
        Ok(id)
    }
}
