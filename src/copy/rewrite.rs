//! Writing recipes and trees anew: the same shape, with the ids that the target gives to chunks.

use super::blobs::{Packer, Shared};
use super::map::Known;
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::directory::Codec;
use crate::format::entry::{Content, Kind};
use crate::format::pack::{EncodedBlob, whole_entry};
use crate::format::recipe::{ChunkRun, RecipeBuilder, Root};
use crate::format::tree::TreeNode;
use crate::id::ChunkId;
use crate::repository::recipes::RecipeReader;
use crate::repository::trees::{MAX_DEPTH, too_deep};

/// Writes recipes and trees of which all chunks are known.
pub struct Rewriter<'s, 'a> {
    /// What the copy shares.
    pub shared: &'s Shared<'a>,
    /// Compresses nodes of trees.
    pub packer: Packer,
}

/// A node some of whose children may still have to be written.
struct Open {
    id: ChunkId,
    level: u8,
    node: TreeNode,
    next: usize,
}

impl Rewriter<'_, '_> {
    /// Writes the recipe of a stream and gives its root.
    pub fn recipe(&mut self, source: ChunkId) -> Result<ChunkId> {
        let shared = self.shared;
        if let Some(known) = shared.map.known(BlobKind::Tree, &source.key())? {
            return Ok(known.id);
        }
        let mut builder = RecipeBuilder::default();
        let mut store = |node: Vec<u8>| -> Result<ChunkId> {
            let id = shared.target.keys().chunk_id(BlobKind::Tree, &node);
            if shared.writer.claim(&id)? {
                let entry = whole_entry(id.key(), Codec::Raw, node.len());
                shared.writer.add(BlobKind::Tree, EncodedBlob::new(entry, node))?;
            }
            Ok(id)
        };
        for run in RecipeReader::new(shared.source, source)? {
            if shared.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let run = run?;
            let id = self.data(&run.id)?;
            builder.push(ChunkRun { id, ..run }, &mut store)?;
        }
        let Root { id, .. } = builder.finish(&mut store)?;
        self.learn(source, id)?;
        Ok(id)
    }

    /// Writes a tree with all below it and gives its root. Children come before their parents.
    pub fn tree(&mut self, source: ChunkId) -> Result<ChunkId> {
        let mut open = Vec::new();
        let mut next = Some(source);
        loop {
            if self.shared.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            if let Some(id) = next.take() {
                if self.written(&id)?.is_none() {
                    open.push(self.open(id)?);
                }
                if open.len() > 2 * MAX_DEPTH {
                    return Err(too_deep(&id));
                }
            }
            let Some(top) = open.last_mut() else { break };
            next = self.advance(top)?;
            if next.is_none()
                && let Some(done) = open.pop()
            {
                let id = self.store_tree(&done.node.encode(done.level))?;
                self.learn(done.id, id)?;
            }
        }
        self.written(&source)?.ok_or_else(|| Error::missing_chunk("tree", &source.to_hex()))
    }

    fn open(&self, id: ChunkId) -> Result<Open> {
        let named = |error: FormatError| Error::damaged(format!("tree node {}", id.short()), error);
        let bytes = self.shared.reader.read_tree(&id)?;
        let node = TreeNode::decode(&bytes).map_err(named)?;
        Ok(Open { id, level: TreeNode::level(&bytes), node, next: 0 })
    }

    /// Puts the target's ids into a node until one is not known; that one must be written first.
    fn advance(&mut self, open: &mut Open) -> Result<Option<ChunkId>> {
        match &mut open.node {
            TreeNode::Inner(children) => {
                for child in &mut children[open.next..] {
                    match self.written(&child.id)? {
                        Some(id) => child.id = id,
                        None => return Ok(Some(child.id)),
                    }
                    open.next += 1;
                }
            }
            TreeNode::Leaf(entries) => {
                for entry in &mut entries[open.next..] {
                    match &mut entry.kind {
                        Kind::Directory { tree, .. } => match self.written(tree)? {
                            Some(id) => *tree = id,
                            None => return Ok(Some(*tree)),
                        },
                        Kind::File { content: Content::Chunk(id), .. } => *id = self.data(id)?,
                        Kind::File { content: Content::Recipe { root, .. }, .. } => {
                            *root = self.recipe(*root)?;
                        }
                        _ => {}
                    }
                    open.next += 1;
                }
            }
        }
        Ok(None)
    }

    fn data(&self, id: &ChunkId) -> Result<ChunkId> {
        let known = self.shared.map.known(BlobKind::Data, &id.key())?;
        known.map(|known| known.id).ok_or_else(|| Error::missing_chunk("chunk", &id.to_hex()))
    }

    fn written(&self, id: &ChunkId) -> Result<Option<ChunkId>> {
        Ok(self.shared.map.known(BlobKind::Tree, &id.key())?.map(|known| known.id))
    }

    fn learn(&self, source: ChunkId, target: ChunkId) -> Result<()> {
        let known = Known { id: target, depth: None };
        Ok(self.shared.map.learn(BlobKind::Tree, &source.key(), known)?)
    }

    fn store_tree(&mut self, node: &[u8]) -> Result<ChunkId> {
        let shared = self.shared;
        let id = shared.target.keys().chunk_id(BlobKind::Tree, node);
        let blob = self.packer.chunk(id.key(), node)?;
        if shared.writer.claim(&id)? {
            shared.writer.add(BlobKind::Tree, blob)?;
        }
        Ok(id)
    }
}
