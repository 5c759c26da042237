//! Learning from a snapshot that was copied before which chunk is which: its recipes and trees in
//! the two repositories are walked side by side, and no data is read.

use super::map::{Known, Map};
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Kind};
use crate::format::snapshot::Snapshot;
use crate::format::tree::TreeNode;
use crate::id::ChunkId;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::ChunkReader;
use crate::repository::recipes::RecipeReader;

/// Two repositories, side by side.
pub struct Learner<'a> {
    /// Where chunks come from.
    pub source: &'a Repository,
    /// Where they went.
    pub target: &'a Repository,
    /// What is known so far.
    pub map: &'a Map,
    /// The request to stop.
    pub progress: &'a Progress,
}

impl Learner<'_> {
    /// Learns from a snapshot and its copy. `false` where they differ after all, or cannot be read:
    /// what was learned from them is then not to be used.
    pub fn learn(&self, source: &Snapshot, target: &Snapshot) -> Result<bool> {
        match self.snapshot(source, target) {
            Err(error) if error.is_object_damage() => Ok(false),
            other => other,
        }
    }

    fn snapshot(&self, source: &Snapshot, target: &Snapshot) -> Result<bool> {
        for stream in &source.streams {
            let Some(copy) = target.stream(stream.name.as_bytes()) else { return Ok(false) };
            if !self.recipe(stream.root, copy.root)? {
                return Ok(false);
            }
        }
        match (source.tree, target.tree) {
            (Some(source), Some(target)) => self.tree(source, target),
            (None, None) => Ok(true),
            _ => Ok(false),
        }
    }

    fn recipe(&self, source: ChunkId, target: ChunkId) -> Result<bool> {
        if let Some(known) = self.map.known(BlobKind::Tree, &source.key())? {
            return Ok(known.id == target);
        }
        let mut copies = RecipeReader::new(self.target, target)?;
        for run in RecipeReader::new(self.source, source)? {
            if self.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let (run, Some(copy)) = (run?, copies.next().transpose()?) else { return Ok(false) };
            if (run.length, run.repeat, run.edges) != (copy.length, copy.repeat, copy.edges) {
                return Ok(false);
            }
            self.note(BlobKind::Data, run.id, copy.id)?;
        }
        if copies.next().is_some() {
            return Ok(false);
        }
        self.note(BlobKind::Tree, source, target)?;
        Ok(true)
    }

    /// Nodes of trees end where names say so: the two trees have the same shape.
    fn tree(&self, source: ChunkId, target: ChunkId) -> Result<bool> {
        let readers = [ChunkReader::new(self.source), ChunkReader::new(self.target)];
        let node = |reader: &ChunkReader<'_>, id: &ChunkId| -> Result<TreeNode> {
            let named = |error| Error::damaged(format!("tree node {}", id.short()), error);
            TreeNode::decode(&reader.read_tree(id)?).map_err(named)
        };
        let mut waiting = vec![(source, target)];
        while let Some((source, target)) = waiting.pop() {
            if self.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            if let Some(known) = self.map.known(BlobKind::Tree, &source.key())? {
                if known.id != target {
                    return Ok(false);
                }
                continue;
            }
            self.note(BlobKind::Tree, source, target)?;
            match (node(&readers[0], &source)?, node(&readers[1], &target)?) {
                (TreeNode::Inner(own), TreeNode::Inner(copies)) if own.len() == copies.len() => {
                    waiting.extend(own.iter().zip(&copies).map(|(own, copy)| (own.id, copy.id)));
                }
                (TreeNode::Leaf(own), TreeNode::Leaf(copies)) if own.len() == copies.len() => {
                    for (own, copy) in own.iter().zip(&copies) {
                        if !self.entry(own, copy, &mut waiting)? {
                            return Ok(false);
                        }
                    }
                }
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    fn entry(
        &self,
        own: &Entry,
        copy: &Entry,
        waiting: &mut Vec<(ChunkId, ChunkId)>,
    ) -> Result<bool> {
        if own.name != copy.name || own.size() != copy.size() {
            return Ok(false);
        }
        match (&own.kind, &copy.kind) {
            (Kind::Directory { tree, .. }, Kind::Directory { tree: copy, .. }) => {
                waiting.push((*tree, *copy));
            }
            (Kind::File { content, .. }, Kind::File { content: copy, .. }) => {
                return match (content, copy) {
                    (Content::Empty, Content::Empty) => Ok(true),
                    (Content::Chunk(own), Content::Chunk(copy)) => {
                        self.note(BlobKind::Data, *own, *copy).map(|()| true)
                    }
                    (Content::Recipe { root, .. }, Content::Recipe { root: copy, .. }) => {
                        self.recipe(*root, *copy)
                    }
                    _ => Ok(false),
                };
            }
            (Kind::Directory { .. } | Kind::File { .. }, _) => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    fn note(&self, kind: BlobKind, source: ChunkId, target: ChunkId) -> Result<()> {
        Ok(self.map.learn(kind, &source.key(), Known { id: target, depth: None })?)
    }
}
