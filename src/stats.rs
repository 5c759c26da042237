//! What a repository holds, and what deduplication, deltas and compression save.

use std::collections::HashSet;

use serde::Serialize;

use crate::crypto::keys::BlobKind;
use crate::error::Result;
use crate::format::directory::Codec;
use crate::format::entry::{Content, Kind};
use crate::format::snapshot::Snapshot;
use crate::id::{ChunkId, ChunkKey};
use crate::repository::Repository;
use crate::repository::recipes::RecipeReader;
use crate::repository::trees::{self, Step};

/// Bytes of chunks that are stored in one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CodecBytes {
    /// Chunks.
    pub chunks: u64,
    /// Their plain bytes.
    pub plain_bytes: u64,
    /// What they take in packs.
    pub stored_bytes: u64,
}

/// Totals of a repository.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RepositoryStats {
    /// Live snapshots.
    pub snapshots: u64,
    /// Plain bytes of all snapshots: what they would take as files.
    pub logical_bytes: u64,
    /// Plain bytes of all different chunks.
    pub unique_bytes: u64,
    /// Chunks stored as they are.
    pub raw: CodecBytes,
    /// Chunks stored compressed.
    pub compressed: CodecBytes,
    /// Chunks stored as a difference.
    pub delta: CodecBytes,
    /// Recipes.
    pub trees: CodecBytes,
    /// Packs.
    pub packs: u64,
    /// Everything in the store: packs, idx objects, log, snapshots, keys.
    pub store_bytes: u64,
    /// Objects in the store.
    pub store_objects: u64,
}

/// Totals of one snapshot.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SnapshotStats {
    /// Plain bytes.
    pub logical_bytes: u64,
    /// Plain bytes of its different chunks.
    pub unique_bytes: u64,
    /// Its different chunks.
    pub chunks: u64,
    /// Stored bytes of these and of all bases they need: what a restore reads.
    pub stored_bytes: u64,
    /// Longest chain of deltas.
    pub max_depth: u8,
    /// What its backup added.
    pub added_bytes: u64,
}

/// A quotient for people; 1 where nothing is stored.
pub fn ratio(plain: u64, stored: u64) -> f64 {
    if stored == 0 { 1.0 } else { plain as f64 / stored as f64 }
}

/// Adds up a repository.
pub fn repository(repository: &Repository) -> Result<RepositoryStats> {
    let mut stats = RepositoryStats::default();
    for (_, snapshot) in repository.index().snapshots()? {
        stats.snapshots += 1;
        stats.logical_bytes += snapshot.total_bytes();
    }
    for (name, _) in repository.index().packs()? {
        let Some(pack) = repository.index().pack(&name)? else { continue };
        stats.packs += 1;
        for (at, entry) in pack.entries.iter().enumerate() {
            let next = pack.entries.get(at + 1).map(|next| next.codec);
            let is_group = entry.codec != Codec::Member && next == Some(Codec::Member);
            let part = match (pack.kind, entry.codec) {
                (BlobKind::Tree, _) => &mut stats.trees,
                (_, Codec::Raw) => &mut stats.raw,
                (_, Codec::Zstd | Codec::Member) => &mut stats.compressed,
                (_, Codec::Delta) => &mut stats.delta,
            };
            // The chunks of a group are its members.
            if !is_group {
                part.chunks += 1;
                part.plain_bytes += u64::from(entry.plain_len);
            }
            part.stored_bytes += u64::from(entry.stored_len);
        }
    }
    stats.unique_bytes =
        stats.raw.plain_bytes + stats.compressed.plain_bytes + stats.delta.plain_bytes;
    for object in repository.store().list("")? {
        stats.store_objects += 1;
        stats.store_bytes += object.size;
    }
    Ok(stats)
}

/// Adds up one snapshot.
pub fn snapshot(repository: &Repository, snapshot: &Snapshot) -> Result<SnapshotStats> {
    let mut stats = SnapshotStats {
        logical_bytes: snapshot.total_bytes(),
        added_bytes: snapshot.summary.added_bytes,
        ..SnapshotStats::default()
    };
    let mut sums =
        Sums { repository, stats: &mut stats, seen: HashSet::new(), stored: HashSet::new() };
    for stream in &snapshot.streams {
        sums.recipe(stream.root)?;
    }
    if let Some(tree) = snapshot.tree {
        trees::walk(repository, tree, b"", &mut |_, entry| {
            match entry.kind {
                Kind::File { size, content: Content::Chunk(id) } => sums.chunk(id.key(), size)?,
                Kind::File { content: Content::Recipe { root, .. }, .. } => sums.recipe(root)?,
                _ => {}
            }
            Ok(Step::Enter)
        })?;
    }
    Ok(stats)
}

struct Sums<'a> {
    repository: &'a Repository,
    stats: &'a mut SnapshotStats,
    seen: HashSet<ChunkKey>,
    stored: HashSet<ChunkKey>,
}

impl Sums<'_> {
    fn recipe(&mut self, root: ChunkId) -> Result<()> {
        for run in RecipeReader::new(self.repository, root)? {
            let run = run?;
            self.chunk(run.id.key(), run.length.into())?;
        }
        Ok(())
    }

    fn chunk(&mut self, key: ChunkKey, length: u64) -> Result<()> {
        if !self.seen.insert(key) {
            return Ok(());
        }
        self.stats.chunks += 1;
        self.stats.unique_bytes += length;
        let mut waiting = vec![key];
        while let Some(key) = waiting.pop() {
            if !self.stored.insert(key) {
                continue;
            }
            if let Some(found) = self.repository.index().find(&key)? {
                let entry = found.entry();
                self.stats.stored_bytes += u64::from(entry.stored_len);
                self.stats.max_depth = self.stats.max_depth.max(entry.depth);
                waiting.extend(found.needs());
            }
        }
        Ok(())
    }
}
