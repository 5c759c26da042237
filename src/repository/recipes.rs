//! Walking a recipe from its root: the chunks of a stream in order.

use super::Repository;
use super::reader::{ChunkReader, Scratch};
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::recipe::{Child, ChunkRun, MAX_LEVEL, Node};
use crate::id::ChunkId;

/// An iterator over the chunk runs of a stream. Memory: one node a level.
pub struct RecipeReader<'a> {
    reader: ChunkReader<'a>,
    scratch: Scratch,
    inner: Vec<std::vec::IntoIter<Child>>,
    leaf: std::vec::IntoIter<ChunkRun>,
    pending: Option<ChunkId>,
    nodes: Option<Vec<ChunkId>>,
}

impl<'a> RecipeReader<'a> {
    /// Walks the recipe with this root.
    pub fn new(repository: &'a Repository, root: ChunkId) -> Result<Self> {
        Ok(Self {
            reader: ChunkReader::new(repository),
            scratch: Scratch::new()?,
            inner: Vec::new(),
            leaf: Vec::new().into_iter(),
            pending: Some(root),
            nodes: None,
        })
    }

    /// Passes over chunks that end before `offset`, reading only the nodes on the way. Returns where
    /// the next run starts.
    pub fn skip_to(&mut self, offset: u64) -> Result<u64> {
        let mut start: u64 = 0;
        loop {
            let runs = self.leaf.as_slice();
            let passed = runs.iter().take_while(|run| {
                let is_before = start.saturating_add(run.total_bytes()) <= offset;
                start = if is_before { start + run.total_bytes() } else { start };
                is_before
            });
            let passed = passed.count();
            self.leaf.by_ref().take(passed).for_each(drop);
            if !self.leaf.as_slice().is_empty() {
                return Ok(start);
            }
            if let Some(root) = self.pending.take() {
                self.descend(root)?;
                continue;
            }
            let Some(level) = self.inner.last_mut() else { return Ok(start) };
            match level.next() {
                Some(child) if start.saturating_add(child.total_bytes) <= offset => {
                    start += child.total_bytes;
                }
                Some(child) => self.descend(child.id)?,
                None => {
                    self.inner.pop();
                }
            }
        }
    }

    /// Also remembers the ids of the nodes met, for callers that need the closure.
    pub fn with_nodes(mut self) -> Self {
        self.nodes = Some(Vec::new());
        self
    }

    /// The ids of the nodes met since the last call.
    pub fn take_nodes(&mut self) -> Vec<ChunkId> {
        self.nodes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn descend(&mut self, id: ChunkId) -> Result<()> {
        if let Some(nodes) = &mut self.nodes {
            nodes.push(id);
        }
        let bytes = self.reader.read(BlobKind::Tree, &id, &mut self.scratch)?;
        let named =
            |error: FormatError| Error::damaged(format!("recipe node {}", id.short()), error);
        let node = Node::decode(&bytes).map_err(named)?;
        match node {
            Node::Leaf(runs) => self.leaf = runs.into_iter(),
            Node::Inner { children, .. } if self.inner.len() < usize::from(MAX_LEVEL) => {
                self.inner.push(children.into_iter());
            }
            Node::Inner { .. } => return Err(named(FormatError::Invalid("depth of the recipe"))),
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<ChunkRun>> {
        loop {
            if let Some(run) = self.leaf.next() {
                return Ok(Some(run));
            }
            if let Some(root) = self.pending.take() {
                self.descend(root)?;
                continue;
            }
            let Some(level) = self.inner.last_mut() else { return Ok(None) };
            match level.next() {
                Some(child) => self.descend(child.id)?,
                None => {
                    self.inner.pop();
                }
            }
        }
    }
}

impl Iterator for RecipeReader<'_> {
    type Item = Result<ChunkRun>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
