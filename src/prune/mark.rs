//! Finding out what the live snapshots need: every recipe and tree node, every chunk, every base.

use std::collections::HashSet;

use super::filter::Filter;
use super::plan::Homes;
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::directory::{BlobEntry, Codec};
use crate::format::entry::{Content, Kind};
use crate::format::recipe::Node;
use crate::format::snapshot::Snapshot;
use crate::format::tree::TreeNode;
use crate::id::{ChunkId, ChunkKey, ObjectName};
use crate::index::Fate;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::ChunkReader;

/// What is needed, as far as it was marked.
pub struct Marker<'a> {
    repository: &'a Repository,
    reader: ChunkReader<'a>,
    progress: &'a Progress,
    homes: &'a Homes,
    /// What stands in packs.
    present: Filter,
    needed: Filter,
    /// Nodes that were walked. A filter will not do: one that is taken for walked would hide all
    /// below it.
    walked: HashSet<ChunkKey>,
    snapshots: HashSet<ObjectName>,
    /// Chunks that snapshots refer to, with repetitions across nodes.
    pub references: u64,
}

enum Waiting {
    Recipe(ChunkId),
    Tree(ChunkId),
}

impl<'a> Marker<'a> {
    /// Nothing marked yet. Notes what is there to be needed.
    pub fn new(
        repository: &'a Repository,
        progress: &'a Progress,
        homes: &'a Homes,
        seed: u64,
    ) -> Result<Self> {
        let keys = repository.index().totals()?.chunks;
        let mut present = Filter::for_keys(keys, seed);
        let index = repository.index();
        for (name, _) in index.packs()? {
            if index.fate(&name) != Some(Fate::Dead)
                && let Some(pack) = index.pack(&name)?
            {
                for entry in &pack.entries {
                    present.insert(&entry.id);
                }
            }
        }
        let marker = Self {
            repository,
            reader: ChunkReader::new(repository),
            progress,
            homes,
            present,
            needed: Filter::for_keys(keys, seed.rotate_left(17)),
            walked: HashSet::new(),
            snapshots: HashSet::new(),
            references: 0,
        };
        Ok(marker)
    }

    /// Marks the live snapshots that are not marked yet, and all that they need. Whether there
    /// were any.
    pub fn mark_new(&mut self) -> Result<bool> {
        let mut is_changed = false;
        for (name, snapshot) in self.repository.index().snapshots()? {
            if self.snapshots.insert(name) {
                is_changed = true;
                self.snapshot(&snapshot).map_err(|error| {
                    let id = name.short();
                    Error::Conflict(format!(
                        "snapshot {id} cannot be read to its end, so nothing may be removed: {error}"
                    ))
                })?;
            }
        }
        if is_changed {
            self.close()?;
        }
        Ok(is_changed)
    }

    /// Whether a chunk is needed, or seems to be.
    pub fn needs(&self, key: &ChunkKey) -> bool {
        self.needed.contains(key)
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<()> {
        let mut waiting: Vec<_> =
            snapshot.streams.iter().map(|stream| Waiting::Recipe(stream.root)).collect();
        waiting.extend(snapshot.tree.map(Waiting::Tree));
        while let Some(next) = waiting.pop() {
            if self.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            match next {
                Waiting::Recipe(id) => self.recipe(&id, &mut waiting)?,
                Waiting::Tree(id) => self.tree(&id, &mut waiting)?,
            }
        }
        Ok(())
    }

    fn recipe(&mut self, id: &ChunkId, waiting: &mut Vec<Waiting>) -> Result<()> {
        let Some(bytes) = self.node(id)? else { return Ok(()) };
        let damaged = |error| Error::damaged(format!("recipe node {}", id.short()), error);
        match Node::decode(&bytes).map_err(damaged)? {
            Node::Leaf(runs) => runs.iter().try_for_each(|run| self.chunk(run.id.key())),
            Node::Inner { children, .. } => {
                waiting.extend(children.iter().map(|child| Waiting::Recipe(child.id)));
                Ok(())
            }
        }
    }

    fn tree(&mut self, id: &ChunkId, waiting: &mut Vec<Waiting>) -> Result<()> {
        let Some(bytes) = self.node(id)? else { return Ok(()) };
        let damaged = |error| Error::damaged(format!("tree node {}", id.short()), error);
        let entries = match TreeNode::decode(&bytes).map_err(damaged)? {
            TreeNode::Inner(children) => {
                waiting.extend(children.iter().map(|child| Waiting::Tree(child.id)));
                return Ok(());
            }
            TreeNode::Leaf(entries) => entries,
        };
        for entry in entries {
            match entry.kind {
                Kind::Directory { tree, .. } => waiting.push(Waiting::Tree(tree)),
                Kind::File { content: Content::Recipe { root, .. }, .. } => {
                    waiting.push(Waiting::Recipe(root));
                }
                Kind::File { content: Content::Chunk(id), .. } => self.chunk(id.key())?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The bytes of a node that was not walked before.
    fn node(&mut self, id: &ChunkId) -> Result<Option<Vec<u8>>> {
        if !self.walked.insert(id.key()) {
            return Ok(None);
        }
        self.chunk(id.key())?;
        self.reader.read_tree(id).map(Some)
    }

    fn chunk(&mut self, key: ChunkKey) -> Result<()> {
        self.references += 1;
        if !self.present.contains(&key) {
            return Err(Error::missing_chunk("chunk", &key.to_hex()));
        }
        self.needed.insert(&key);
        Ok(())
    }

    /// Marks what marked deltas are made against, and what those are, to the end of the chains.
    fn close(&mut self) -> Result<()> {
        let index = self.repository.index();
        loop {
            let mut is_changed = false;
            for (name, _) in index.packs()? {
                if index.fate(&name) == Some(Fate::Dead) {
                    continue;
                }
                let Some(pack) = index.pack(&name)? else { continue };
                if pack.kind != BlobKind::Data {
                    continue;
                }
                // Bases stand before what is made of them more often than not.
                for entry in pack.entries.iter().rev() {
                    // What another copy was made against is not needed for this one.
                    if !self.is_needed_delta(entry) || !self.homes.is_home(&entry.id, &pack) {
                        continue;
                    }
                    for base in &entry.bases {
                        if !self.present.contains(base) {
                            return Err(Error::missing_chunk("base", &base.to_hex()));
                        }
                        is_changed |= self.needed.insert(base);
                    }
                }
            }
            if !is_changed {
                return Ok(());
            }
        }
    }

    fn is_needed_delta(&self, entry: &BlobEntry) -> bool {
        entry.codec == Codec::Delta && self.needed.contains(&entry.id)
    }
}
