//! Trees: the entries of one directory by name, as a tree of nodes that are blobs of kind `Tree`.
//!
//! A leaf lists entries, an inner node lists nodes one level down. Nodes end where the name of their
//! last entry says so: a directory of a million files that gains one stores one leaf and the inner
//! nodes above it, and nobody ever holds all of it in memory.

use super::FormatError;
use super::codec::{Decoder, Encoder};
use super::entry::Entry;
use crate::id::ChunkId;

/// Highest level of a node.
pub const MAX_LEVEL: u8 = 8;
/// Added to the level in the first byte, which tells these nodes from those of recipes.
const MARK: u8 = 0x40;
/// Entries and children of a node before it may end …
const MIN_CHILDREN: usize = 64;
/// … on average so many later …
const CUT_ONE_IN: u32 = 512;
/// … and at most, …
const MAX_CHILDREN: usize = 4096;
/// … unless it has grown to this many bytes before.
const MAX_BYTES: usize = 1 << 20;

/// A node one level down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Id of the node.
    pub id: ChunkId,
    /// Entries below it.
    pub entries: u64,
    /// Name of the last of them.
    pub last: Vec<u8>,
}

/// A node of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeNode {
    /// Level 0.
    Leaf(Vec<Entry>),
    /// Any level above.
    Inner(Vec<Child>),
}

impl TreeNode {
    /// Decodes a node; names ascend strictly.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut decoder = Decoder::new(bytes);
        let level = decoder.byte("tree level")?.wrapping_sub(MARK);
        let node = match level {
            0 => {
                let count = decoder.count(20, "entry count")?;
                let entries = (0..count)
                    .map(|_| Entry::decode(&mut decoder))
                    .collect::<Result<Vec<_>, _>>()?;
                if !entries.is_sorted_by(|a, b| a.name < b.name) {
                    return Err(FormatError::Invalid("order of entries"));
                }
                Self::Leaf(entries)
            }
            1..=MAX_LEVEL => {
                let count = decoder.count(34, "child count")?;
                let children = (0..count)
                    .map(|_| decode_child(&mut decoder))
                    .collect::<Result<Vec<_>, _>>()?;
                if !children.is_sorted_by(|a, b| a.last < b.last) {
                    return Err(FormatError::Invalid("order of children"));
                }
                Self::Inner(children)
            }
            _ => return Err(FormatError::Invalid("tree level")),
        };
        decoder.finish()?;
        Ok(node)
    }

    /// The level of an encoded node.
    pub fn level(bytes: &[u8]) -> u8 {
        bytes.first().map_or(0, |first| first.wrapping_sub(MARK))
    }

    /// Encodes the node again; the level of inner nodes is not in it.
    pub fn encode(&self, level: u8) -> Vec<u8> {
        let mut encoder = Encoder::default();
        let count = match self {
            Self::Leaf(entries) => {
                entries.iter().for_each(|entry| entry.encode(&mut encoder));
                entries.len()
            }
            Self::Inner(children) => {
                children.iter().for_each(|child| encode_child(&mut encoder, child));
                children.len()
            }
        };
        encode(level.into(), count, encoder)
    }
}

fn encode_child(encoder: &mut Encoder, child: &Child) {
    encoder.fixed(child.id.as_bytes()).number(child.entries).counted(&child.last);
}

fn decode_child(decoder: &mut Decoder) -> Result<Child, FormatError> {
    let id = ChunkId(decoder.fixed("child id")?);
    let entries = decoder.bounded(1 << 62, "child entries")?;
    Ok(Child { id, entries, last: decoder.counted("child name")?.to_vec() })
}

/// A node that is being filled: the encodings of its children.
#[derive(Default)]
struct Open {
    children: usize,
    entries: u64,
    last: Vec<u8>,
    encoder: Encoder,
    bytes: usize,
}

/// Builds the tree of a directory from entries in the order of their names.
#[derive(Default)]
pub struct TreeBuilder {
    /// Level 0 first.
    levels: Vec<Open>,
}

impl TreeBuilder {
    /// Appends an entry. `store` takes a finished node's encoding and returns its id.
    pub fn push<E>(
        &mut self,
        entry: &Entry,
        store: &mut impl FnMut(Vec<u8>) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        let mut encoder = Encoder::default();
        entry.encode(&mut encoder);
        self.add(0, &encoder.finish(), 1, &entry.name, store)
    }

    /// Stores what is left and returns the id of the root. An empty directory has one empty leaf.
    pub fn finish<E>(
        mut self,
        store: &mut impl FnMut(Vec<u8>) -> Result<ChunkId, E>,
    ) -> Result<ChunkId, E> {
        if self.levels.is_empty() {
            self.levels.push(Open::default());
        }
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.levels.len();
            let open = std::mem::take(&mut self.levels[level]);
            if is_top && (level == 0 || open.children > 1) {
                return store(encode(level, open.children, open.encoder));
            }
            if is_top {
                // The only child is the root.
                let bytes = open.encoder.finish();
                return Ok(ChunkId(*bytes.first_chunk().expect("a child starts with its id")));
            }
            if open.children > 0 {
                self.close(level, open, store)?;
            }
            level += 1;
        }
    }

    fn add<E>(
        &mut self,
        level: usize,
        encoding: &[u8],
        entries: u64,
        last: &[u8],
        store: &mut impl FnMut(Vec<u8>) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        if self.levels.len() == level {
            self.levels.push(Open::default());
        }
        let open = &mut self.levels[level];
        open.encoder.fixed(encoding);
        open.bytes += encoding.len();
        open.children += 1;
        open.entries += entries;
        last.clone_into(&mut open.last);
        if open.bytes >= MAX_BYTES || ends_node(last, open.children) {
            let open = std::mem::take(&mut self.levels[level]);
            return self.close(level, open, store);
        }
        Ok(())
    }

    fn close<E>(
        &mut self,
        level: usize,
        open: Open,
        store: &mut impl FnMut(Vec<u8>) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        let id = store(encode(level, open.children, open.encoder))?;
        let mut child = Encoder::default();
        let (entries, last) = (open.entries, open.last);
        encode_child(&mut child, &Child { id, entries, last: last.clone() });
        self.add(level + 1, &child.finish(), entries, &last, store)
    }
}

fn encode(level: usize, children: usize, encoder: Encoder) -> Vec<u8> {
    let mut node = Encoder::default();
    node.byte(MARK + level as u8).number(children as u64).fixed(&encoder.finish());
    node.finish()
}

fn ends_node(last: &[u8], children: usize) -> bool {
    if children < MIN_CHILDREN {
        return false;
    }
    let word = u32::from_le_bytes(*blake3::hash(last).as_bytes().first_chunk().expect("32 bytes"));
    children >= MAX_CHILDREN || word.is_multiple_of(CUT_ONE_IN)
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::file;
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::convert::Infallible;

    fn build(names: &[String]) -> (ChunkId, HashMap<ChunkId, Vec<u8>>) {
        let mut nodes = HashMap::new();
        let mut store = |bytes: Vec<u8>| {
            let id = ChunkId(*blake3::hash(&bytes).as_bytes());
            nodes.insert(id, bytes);
            Ok::<_, Infallible>(id)
        };
        let mut builder = TreeBuilder::default();
        for name in names {
            builder.push(&file(name, 3), &mut store).unwrap();
        }
        let root = builder.finish(&mut store).unwrap();
        (root, nodes)
    }

    fn flatten(id: &ChunkId, nodes: &HashMap<ChunkId, Vec<u8>>, out: &mut Vec<Entry>) {
        match TreeNode::decode(&nodes[id]).unwrap() {
            TreeNode::Leaf(entries) => out.extend(entries),
            TreeNode::Inner(children) => children.iter().for_each(|c| flatten(&c.id, nodes, out)),
        }
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("file {number:07}")).collect()
    }

    #[test]
    fn any_number_of_entries_comes_back_in_order() {
        for count in [0, 1, 63, 64, 65, 5000, 50_000] {
            let names = names(count);
            let (root, nodes) = build(&names);
            let mut out = Vec::new();
            flatten(&root, &nodes, &mut out);
            assert!(
                out.iter()
                    .map(|entry| entry.name.clone())
                    .eq(names.iter().map(|n| n.clone().into_bytes()))
            );
            assert!(nodes.values().all(|node| node.len() < 2 * MAX_BYTES));
        }
    }

    #[test]
    fn one_new_entry_makes_few_new_nodes() {
        let mut names = names(50_000);
        let (_, before) = build(&names);
        names.insert(20_000, "file 0019999a".to_owned());
        let (_, after) = build(&names);
        let new = after.keys().filter(|id| !before.contains_key(*id)).count();
        assert!(new <= 4, "{new} of {} nodes are new", after.len());
    }

    #[test]
    fn doubled_and_unsorted_names_are_refused() {
        for names in [["a", "a"], ["b", "a"]] {
            let (root, nodes) = build(&names.map(str::to_owned));
            assert!(TreeNode::decode(&nodes[&root]).is_err());
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = TreeNode::decode(&bytes);
        }
    }
}
