//! Recipes: the chunks of a stream in order, as a tree of nodes that are blobs of kind `Tree`.
//!
//! A leaf lists chunks, an inner node lists nodes one level down. Nodes end where the id of their
//! last child says so, hence an unchanged part of a stream gives the same nodes again.

use super::FormatError;
use super::codec::{Decoder, Encoder};
use super::directory::MAX_PLAIN_LEN;
use crate::id::ChunkId;

/// Highest level of a node; three are enough for exabytes.
pub const MAX_LEVEL: u8 = 8;
const MIN_CHILDREN: usize = 256;
const MAX_CHILDREN: usize = 4096;
/// On average a node goes on for this many children after the minimum.
const CUT_ONE_IN: u32 = 1024;

/// Fingerprints of the first and last bytes of a chunk: where both ends of a new chunk agree with a
/// chunk of the parent version, the two cover the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Edges {
    /// Of the first 64 bytes.
    pub head: u32,
    /// Of the last 64 bytes.
    pub tail: u16,
}

impl Edges {
    /// The fingerprints of a chunk.
    pub fn of(chunk: &[u8]) -> Self {
        let head = blake3::hash(&chunk[..chunk.len().min(64)]);
        let tail = blake3::hash(&chunk[chunk.len().saturating_sub(64)..]);
        let word = |hash: &blake3::Hash| {
            u32::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes"))
        };
        Self { head: word(&head), tail: word(&tail) as u16 }
    }
}

/// One or more equal chunks in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRun {
    /// Id of the chunk.
    pub id: ChunkId,
    /// Its plain length in bytes.
    pub length: u32,
    /// How often it stands here in a row; more than once for zeros.
    pub repeat: u32,
    /// Its edges.
    pub edges: Edges,
}

impl ChunkRun {
    /// Plain bytes of the whole run.
    pub fn total_bytes(&self) -> u64 {
        u64::from(self.length) * u64::from(self.repeat)
    }
}

/// A node one level down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    /// Id of the node.
    pub id: ChunkId,
    /// Plain bytes below it.
    pub total_bytes: u64,
    /// Chunks below it.
    pub chunks: u64,
}

/// A node of a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Level 0.
    Leaf(Vec<ChunkRun>),
    /// Any level above.
    Inner {
        /// Levels below this node.
        level: u8,
        /// Its children.
        children: Vec<Child>,
    },
}

impl Node {
    /// Encodes the node.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::default();
        match self {
            Self::Leaf(runs) => {
                encoder.byte(0).number(runs.len() as u64);
                for run in runs {
                    encoder
                        .fixed(run.id.as_bytes())
                        .number(run.length.into())
                        .number(run.repeat.into())
                        .fixed(&run.edges.head.to_le_bytes())
                        .fixed(&run.edges.tail.to_le_bytes());
                }
            }
            Self::Inner { level, children } => {
                encoder.byte(*level).number(children.len() as u64);
                for child in children {
                    encoder
                        .fixed(child.id.as_bytes())
                        .number(child.total_bytes)
                        .number(child.chunks);
                }
            }
        }
        encoder.finish()
    }

    /// Decodes what [`Node::encode`] made.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut decoder = Decoder::new(bytes);
        let level = decoder.byte("node level")?;
        let node = match level {
            0 => {
                let count = decoder.count(40, "chunk count")?;
                Self::Leaf((0..count).map(|_| decode_run(&mut decoder)).collect::<Result<_, _>>()?)
            }
            1..=MAX_LEVEL => {
                let count = decoder.count(34, "child count")?;
                let children = (0..count)
                    .map(|_| {
                        Ok(Child {
                            id: ChunkId(decoder.fixed("child id")?),
                            total_bytes: decoder.bounded(1 << 62, "child size")?,
                            chunks: decoder.bounded(1 << 62, "child chunks")?,
                        })
                    })
                    .collect::<Result<_, FormatError>>()?;
                Self::Inner { level, children }
            }
            _ => return Err(FormatError::Invalid("node level")),
        };
        decoder.finish()?;
        Ok(node)
    }
}

fn decode_run(decoder: &mut Decoder) -> Result<ChunkRun, FormatError> {
    let id = ChunkId(decoder.fixed("chunk id")?);
    let length = decoder.bounded(MAX_PLAIN_LEN, "chunk length")? as u32;
    let repeat = decoder.bounded(u32::MAX.into(), "chunk repeat")? as u32;
    let head = u32::from_le_bytes(decoder.fixed("chunk head")?);
    let tail = u16::from_le_bytes(decoder.fixed("chunk tail")?);
    if length == 0 || repeat == 0 {
        return Err(FormatError::Invalid("chunk length"));
    }
    Ok(ChunkRun { id, length, repeat, edges: Edges { head, tail } })
}

/// The root of a finished recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// Id of the root node.
    pub id: ChunkId,
    /// Plain bytes of the stream.
    pub total_bytes: u64,
    /// Chunks, repeats counted.
    pub chunks: u64,
}

/// Builds a recipe from chunks in order; finished nodes go to a callback, memory is one node a level.
#[derive(Default)]
pub struct RecipeBuilder {
    leaf: Vec<ChunkRun>,
    upper: Vec<Vec<Child>>,
}

impl RecipeBuilder {
    /// Appends a chunk. `store` takes a finished node's encoding and returns its id.
    pub fn push<E>(
        &mut self,
        run: ChunkRun,
        store: &mut impl FnMut(Vec<u8>) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        if let Some(last) = self.leaf.last_mut()
            && last.id == run.id
            && let Some(repeat) = last.repeat.checked_add(run.repeat)
        {
            last.repeat = repeat;
            return Ok(());
        }
        // A run may still grow, so a leaf is closed when the next one begins.
        if self.leaf.last().is_some_and(|last| ends_node(&last.id, self.leaf.len())) {
            self.close_leaf(store)?;
        }
        self.leaf.push(run);
        Ok(())
    }

    /// Stores what is left and returns the root.
    pub fn finish<E>(
        mut self,
        store: &mut impl FnMut(Vec<u8>) -> Result<ChunkId, E>,
    ) -> Result<Root, E> {
        if !self.leaf.is_empty() || self.upper.is_empty() {
            self.close_leaf(store)?;
        }
        let mut level = 0;
        while level + 1 < self.upper.len() || self.upper[level].len() > 1 {
            self.close_inner(level, store)?;
            level += 1;
        }
        let top = self.upper[level][0];
        Ok(Root { id: top.id, total_bytes: top.total_bytes, chunks: top.chunks })
    }

    fn close_leaf<E>(
        &mut self,
        store: &mut impl FnMut(Vec<u8>) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        let runs = std::mem::take(&mut self.leaf);
        let total_bytes = runs.iter().map(ChunkRun::total_bytes).sum();
        let chunks = runs.iter().map(|run| u64::from(run.repeat)).sum();
        let id = store(Node::Leaf(runs).encode())?;
        self.add_child(0, Child { id, total_bytes, chunks }, store)
    }

    fn close_inner<E>(
        &mut self,
        level: usize,
        store: &mut impl FnMut(Vec<u8>) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        let children = std::mem::take(&mut self.upper[level]);
        if children.is_empty() {
            return Ok(());
        }
        let total_bytes = children.iter().map(|child| child.total_bytes).sum();
        let chunks = children.iter().map(|child| child.chunks).sum();
        let id = store(Node::Inner { level: level as u8 + 1, children }.encode())?;
        self.add_child(level + 1, Child { id, total_bytes, chunks }, store)
    }

    fn add_child<E>(
        &mut self,
        level: usize,
        child: Child,
        store: &mut impl FnMut(Vec<u8>) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        if self.upper.len() == level {
            self.upper.push(Vec::new());
        }
        self.upper[level].push(child);
        if ends_node(&child.id, self.upper[level].len()) {
            self.close_inner(level, store)?;
        }
        Ok(())
    }
}

fn ends_node(last: &ChunkId, children: usize) -> bool {
    let word = u32::from_le_bytes(*last.0.last_chunk().expect("32 bytes"));
    children >= MAX_CHILDREN || (children >= MIN_CHILDREN && word.is_multiple_of(CUT_ONE_IN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::convert::Infallible;

    fn run(number: u64) -> ChunkRun {
        let hash = blake3::hash(&number.to_le_bytes());
        let edges = Edges::of(hash.as_bytes());
        ChunkRun { id: ChunkId(*hash.as_bytes()), length: 10, repeat: 1, edges }
    }

    fn build(runs: impl Iterator<Item = ChunkRun>) -> (Root, HashMap<ChunkId, Vec<u8>>) {
        let mut nodes = HashMap::new();
        let mut store = |bytes: Vec<u8>| {
            let id = ChunkId(*blake3::hash(&bytes).as_bytes());
            nodes.insert(id, bytes);
            Ok::<_, Infallible>(id)
        };
        let mut builder = RecipeBuilder::default();
        for run in runs {
            builder.push(run, &mut store).unwrap();
        }
        let root = builder.finish(&mut store).unwrap();
        (root, nodes)
    }

    fn flatten(id: &ChunkId, nodes: &HashMap<ChunkId, Vec<u8>>, out: &mut Vec<ChunkRun>) {
        match Node::decode(&nodes[id]).unwrap() {
            Node::Leaf(runs) => out.extend(runs),
            Node::Inner { children, .. } => {
                children.iter().for_each(|child| flatten(&child.id, nodes, out));
            }
        }
    }

    #[test]
    fn any_number_of_chunks_comes_back_in_order() {
        for count in [0, 1, 255, 256, 5000, 300_000] {
            let (root, nodes) = build((0..count).map(run));
            let mut out = Vec::new();
            flatten(&root.id, &nodes, &mut out);
            assert_eq!(root.chunks, count);
            assert_eq!(root.total_bytes, count * 10);
            assert!(out.into_iter().eq((0..count).map(run)));
        }
    }

    #[test]
    fn equal_chunks_in_a_row_take_one_entry() {
        let (root, nodes) = build((0..1_000_000).map(|_| run(1)));
        assert_eq!((root.chunks, nodes.len()), (1_000_000, 1));
        assert!(nodes[&root.id].len() < 64);
    }

    #[test]
    fn a_change_makes_few_new_nodes() {
        let (_, before) = build((0..100_000).map(run));
        let (_, after) = build((0..100_000).map(|n| run(if n == 50_000 { 1 << 40 } else { n })));
        let new = after.keys().filter(|id| !before.contains_key(*id)).count();
        assert!(new <= 4, "{new} of {} nodes are new", after.len());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Node::decode(&bytes);
        }
    }
}
