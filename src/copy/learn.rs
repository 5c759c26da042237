//! Learning from a snapshot that was copied before which chunk is which: its recipes and trees in
//! the two repositories are walked side by side, and no data is read.

use std::cell::RefCell;
use std::collections::HashSet;

use super::map::{Known, Map};
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Kind};
use crate::format::snapshot::Snapshot;
use crate::format::tree::TreeNode;
use crate::id::{ChunkId, ChunkKey};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::ChunkReader;
use crate::repository::recipes::RecipeReader;

/// Chunks of which it is remembered that they stand.
const REMEMBERED: usize = 1 << 20;

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
    /// What the target lacks though snapshots of it name it; where it was never repaired it lacks
    /// nothing.
    pub gaps: Option<Gaps<'a>>,
}

/// What repairs may have left: snapshots that name chunks which are lost.
pub struct Gaps<'a> {
    target: &'a Repository,
    /// Chunks that were found to stand with all that they rely on; a bound on memory.
    sound: RefCell<HashSet<ChunkKey>>,
}

impl<'a> Gaps<'a> {
    /// `None` where there can be none.
    pub fn of(target: &'a Repository) -> Result<Option<Self>> {
        let may_have = target.index().was_repaired()?;
        Ok(may_have.then(|| Self { target, sound: RefCell::default() }))
    }

    fn holds(&self, key: ChunkKey) -> Result<bool> {
        let mut sound = self.sound.borrow_mut();
        if sound.len() > REMEMBERED {
            sound.clear();
        }
        let (mut waiting, mut walked) = (vec![key], HashSet::new());
        while let Some(key) = waiting.pop() {
            if sound.contains(&key) || !walked.insert(key) {
                continue;
            }
            let index = self.target.index();
            let found = if index.contains_live(&key)? { index.find(&key)? } else { None };
            let Some(found) = found else { return Ok(false) };
            waiting.extend(found.needs());
        }
        sound.extend(walked);
        Ok(true)
    }
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
        let mut is_held = true;
        for run in RecipeReader::new(self.source, source)? {
            if self.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let (run, Some(copy)) = (run?, copies.next().transpose()?) else { return Ok(false) };
            if (run.length, run.repeat, run.edges) != (copy.length, copy.repeat, copy.edges) {
                return Ok(false);
            }
            is_held &= self.note(run.id, copy.id)?;
        }
        if copies.next().is_some() {
            return Ok(false);
        }
        // A recipe that is known is not looked into again.
        if is_held {
            self.note_node(source, target)?;
        }
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
            if self.gaps.is_none() {
                self.note_node(source, target)?;
            }
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
                        self.note(*own, *copy).map(|_| true)
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

    /// Remembers what a chunk is called in the target, unless it is lost there: then it is stored
    /// again. Whether it is there.
    fn note(&self, source: ChunkId, target: ChunkId) -> Result<bool> {
        if let Some(gaps) = &self.gaps
            && !gaps.holds(target.key())?
        {
            return Ok(false);
        }
        self.map.learn(BlobKind::Data, &source.key(), Known { id: target, depth: None })?;
        Ok(true)
    }

    fn note_node(&self, source: ChunkId, target: ChunkId) -> Result<()> {
        Ok(self.map.learn(BlobKind::Tree, &source.key(), Known { id: target, depth: None })?)
    }
}
