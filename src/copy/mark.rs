//! Finding out which chunks of the source a snapshot needs that the target does not have.

use super::map::{Map, Wanted};
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::directory::Codec;
use crate::format::entry::{Content, Kind};
use crate::format::snapshot::Snapshot;
use crate::format::tree::TreeNode;
use crate::id::{ChunkId, ChunkKey};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::ChunkReader;
use crate::repository::recipes::RecipeReader;

/// A base that the target lacks is brought along for a delta of at most one part in this many of
/// its chunk. For a greater one it is looked for alone: where it is not there, the chunk is stored
/// whole.
const CLEARLY_SMALL: u32 = 16;

/// Bytes that are to be copied.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marked {
    /// Chunks.
    pub chunks: u64,
    /// Their plain bytes.
    pub plain_bytes: u64,
    /// Their bytes in the source's packs; of a member of a group, its share.
    pub stored_bytes: u64,
}

/// Walks snapshots of the source.
pub struct Marker<'a> {
    source: &'a Repository,
    map: &'a Map,
    progress: &'a Progress,
    reader: ChunkReader<'a>,
    marked: Marked,
}

impl<'a> Marker<'a> {
    /// Nothing marked yet.
    pub fn new(source: &'a Repository, map: &'a Map, progress: &'a Progress) -> Self {
        let reader = ChunkReader::new(source);
        Self { source, map, progress, reader, marked: Marked::default() }
    }

    /// Puts what a snapshot needs on the list of wanted chunks.
    pub fn snapshot(mut self, snapshot: &Snapshot) -> Result<Marked> {
        for stream in &snapshot.streams {
            self.recipe(stream.root)?;
        }
        if let Some(tree) = snapshot.tree {
            self.tree(tree)?;
        }
        Ok(self.marked)
    }

    fn is_new(&self, node: &ChunkId) -> Result<bool> {
        if self.progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let key = node.key();
        Ok(self.map.known(BlobKind::Tree, &key)?.is_none() && self.map.walk(&key)?)
    }

    fn recipe(&mut self, root: ChunkId) -> Result<()> {
        if !self.is_new(&root)? {
            return Ok(());
        }
        for run in RecipeReader::new(self.source, root)? {
            if self.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            self.chunk(run?.id.key())?;
        }
        Ok(())
    }

    fn tree(&mut self, root: ChunkId) -> Result<()> {
        let mut waiting = vec![root];
        while let Some(id) = waiting.pop() {
            if !self.is_new(&id)? {
                continue;
            }
            let named = |error| Error::damaged(format!("tree node {}", id.short()), error);
            match TreeNode::decode(&self.reader.read_tree(&id)?).map_err(named)? {
                TreeNode::Inner(children) => {
                    waiting.extend(children.iter().rev().map(|child| child.id));
                }
                TreeNode::Leaf(entries) => {
                    for entry in entries {
                        match entry.kind {
                            Kind::Directory { tree, .. } => waiting.push(tree),
                            Kind::File { content: Content::Chunk(id), .. } => {
                                self.chunk(id.key())?;
                            }
                            Kind::File { content: Content::Recipe { root, .. }, .. } => {
                                self.recipe(root)?;
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Wants a chunk, and what its delta is made against.
    fn chunk(&mut self, first: ChunkKey) -> Result<()> {
        let mut waiting = vec![(first, false)];
        while let Some((key, is_probe)) = waiting.pop() {
            if self.map.known(BlobKind::Data, &key)?.is_some() {
                continue;
            }
            let before = self.map.wanted(&key)?;
            if before == Some(false) || before.is_some() && is_probe {
                continue;
            }
            let missing = || Error::missing_chunk("chunk", &key.to_hex());
            let place = self.source.index().find(&key)?.ok_or_else(missing)?;
            let entry = place.entry();
            let (pack, ordinal) = (place.pack.number, place.ordinal);
            self.map.want(&Wanted {
                number: 0,
                key,
                level: entry.depth,
                pack,
                ordinal,
                is_probe,
            })?;
            if before.is_none() {
                self.marked.stored_bytes += stored_share(&place);
            }
            if is_probe {
                continue;
            }
            self.marked.chunks += 1;
            self.marked.plain_bytes += u64::from(entry.plain_len);
            let is_small = entry.stored_len <= entry.plain_len / CLEARLY_SMALL;
            waiting.extend(entry.bases.iter().map(|base| (*base, !is_small)));
        }
        Ok(())
    }
}

/// Bytes that a chunk takes in its pack.
fn stored_share(place: &crate::index::Found) -> u64 {
    let entry = place.entry();
    if entry.codec != Codec::Member {
        return entry.stored_len.into();
    }
    let (group, _) = place.group();
    let whole = u64::from(group.entry().plain_len).max(1);
    (u64::from(group.entry().stored_len) * u64::from(entry.plain_len)).div_ceil(whole)
}
