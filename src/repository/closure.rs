//! What a snapshot relies on: every recipe node, every chunk, every base of every delta.
//!
//! A writer checks this before it commits whenever prune has been at work, because a chunk that was
//! there when the backup began may be condemned or gone by the time it ends.

use std::collections::{BTreeSet, HashSet};

use super::Repository;
use super::reader::ChunkReader;
use super::recipes::RecipeReader;
use super::trees::{self, TreeReader};
use crate::error::{Error, Result};
use crate::format::entry::{Content, Kind};
use crate::format::index::IndexedPack;
use crate::id::{ChunkId, ChunkKey, ObjectName};
use crate::index::{Fate, Found};

/// Keys remembered so that shared bases are not walked again; a bound on memory, not on size.
const VISITED_LIMIT: usize = 1 << 20;

/// A walk over what new packs or snapshots rely on.
pub(super) struct Walk<'a> {
    repository: &'a Repository,
    /// Chunks of the packs that are about to be committed: they are not in the index yet.
    own: HashSet<ChunkKey>,
    visited: HashSet<ChunkKey>,
    condemned: BTreeSet<ObjectName>,
}

impl<'a> Walk<'a> {
    /// A walk for a commit that also adds these packs.
    pub(super) fn new(repository: &'a Repository, packs: &[IndexedPack]) -> Self {
        let own = packs.iter().flat_map(|pack| &pack.entries).map(|entry| entry.id).collect();
        Self { repository, own, visited: HashSet::new(), condemned: BTreeSet::new() }
    }

    /// The bases of deltas in new packs.
    pub(super) fn packs(&mut self, packs: &[IndexedPack]) -> Result<()> {
        for base in packs.iter().flat_map(|pack| &pack.entries).flat_map(|entry| &entry.bases) {
            self.visit(*base)?;
        }
        Ok(())
    }

    /// Everything below the root of a stream. The recipe must be in the index.
    pub(super) fn stream(&mut self, root: ChunkId) -> Result<()> {
        let mut recipe = RecipeReader::new(self.repository, root)?.with_nodes();
        while let Some(run) = recipe.next() {
            let run = run.map_err(as_gone)?;
            self.visit(run.id.key())?;
            for node in recipe.take_nodes() {
                self.visit(node.key())?;
            }
        }
        for node in recipe.take_nodes() {
            self.visit(node.key())?;
        }
        Ok(())
    }

    /// Everything below the tree of a directory. The nodes must be in the index.
    pub(super) fn tree(&mut self, root: ChunkId) -> Result<()> {
        let reader = ChunkReader::new(self.repository);
        let mut open = vec![TreeReader::new(&reader, root).with_nodes()];
        while let Some(entries) = open.last_mut() {
            let entry = entries.next().transpose().map_err(as_gone)?;
            let nodes = entries.take_nodes();
            if entry.is_none() {
                open.pop();
            }
            for node in nodes {
                self.visit(node.key())?;
            }
            match entry.map(|entry| entry.kind) {
                Some(Kind::Directory { tree, .. }) if open.len() < trees::MAX_DEPTH => {
                    open.push(TreeReader::new(&reader, tree).with_nodes());
                }
                Some(Kind::Directory { tree, .. }) => return Err(trees::too_deep(&tree)),
                Some(Kind::File { content: Content::Chunk(id), .. }) => self.visit(id.key())?,
                Some(Kind::File { content: Content::Recipe { root, .. }, .. }) => {
                    self.stream(root)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The condemned packs that were met: they have to be rescued.
    pub(super) fn finish(self) -> BTreeSet<ObjectName> {
        self.condemned
    }

    fn visit(&mut self, first: ChunkKey) -> Result<()> {
        let mut waiting = vec![first];
        while let Some(key) = waiting.pop() {
            if self.own.contains(&key) || !self.visited.insert(key) {
                continue;
            }
            if self.visited.len() > VISITED_LIMIT {
                self.visited.clear();
            }
            let places = self.repository.index().packs_of(&key)?;
            let found = self.choose(&key, places)?;
            waiting.extend(found.needs());
            if self.is_newly_condemned(&found) {
                // Rescued, it is a live pack like any other: all of it must be readable, for other
                // writers will rely on what they find in it.
                waiting.extend(found.pack.entries.iter().flat_map(|entry| &entry.bases));
            }
        }
        Ok(())
    }

    /// A live place if there is one, else a condemned one, which then has to be rescued.
    fn choose(&self, key: &ChunkKey, places: Vec<Found>) -> Result<Found> {
        let index = self.repository.index();
        if let Some(live) = places.iter().find(|place| index.fate(&place.pack.name).is_none()) {
            return Ok(live.clone());
        }
        let condemned = places
            .into_iter()
            .find(|place| index.fate(&place.pack.name) == Some(Fate::Condemned))
            .ok_or_else(|| gone(&format!("chunk {}", key.short())))?;
        Ok(condemned)
    }

    /// Notes the pack for rescue if it is condemned; `true` the first time.
    fn is_newly_condemned(&mut self, found: &Found) -> bool {
        let name = found.pack.name;
        self.repository.index().fate(&name) == Some(Fate::Condemned) && self.condemned.insert(name)
    }
}

impl Repository {
    /// Whether all that a stream relies on stands in packs that are not dead.
    pub fn holds_stream(&self, root: ChunkId) -> Result<bool> {
        held(Walk::new(self, &[]).stream(root))
    }

    /// Whether all that a directory relies on stands in packs that are not dead.
    pub fn holds_tree(&self, root: ChunkId) -> Result<bool> {
        held(Walk::new(self, &[]).tree(root))
    }
}

fn held(walked: Result<()>) -> Result<bool> {
    match walked {
        Ok(()) => Ok(true),
        Err(Error::Conflict(_) | Error::Pruned { .. }) => Ok(false),
        Err(error) if error.is_object_damage() => Ok(false),
        Err(error) => Err(error),
    }
}

/// A node that is in no pack any more went the same way as a chunk would.
fn as_gone(error: Error) -> Error {
    match error {
        Error::Missing { what } => gone(&what),
        other => other,
    }
}

fn gone(what: &str) -> Error {
    Error::Pruned { what: what.to_owned() }
}
