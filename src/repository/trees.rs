//! Reading directories: all entries in order, or one path.

use super::Repository;
use super::reader::ChunkReader;
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::entry::{Entry, Kind};
use crate::format::tree::{Child, MAX_LEVEL, TreeNode};
use crate::id::ChunkId;

/// Deepest nesting of directories that is followed.
pub const MAX_DEPTH: usize = 4096;

/// An iterator over the entries of one directory, by name. Memory: one node a level.
pub struct TreeReader<'a> {
    reader: &'a ChunkReader<'a>,
    inner: Vec<std::vec::IntoIter<Child>>,
    leaf: std::vec::IntoIter<Entry>,
    pending: Option<ChunkId>,
    nodes: Option<Vec<ChunkId>>,
}

impl<'a> TreeReader<'a> {
    /// Reads the directory with this tree.
    pub fn new(reader: &'a ChunkReader<'a>, root: ChunkId) -> Self {
        Self {
            reader,
            inner: Vec::new(),
            leaf: Vec::new().into_iter(),
            pending: Some(root),
            nodes: None,
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

    /// The entry of this name, reading only the nodes on the way to it.
    pub fn find(mut self, name: &[u8]) -> Result<Option<Entry>> {
        let Some(mut id) = self.pending.take() else { return Ok(None) };
        for _ in 0..=MAX_LEVEL {
            match self.node(id)? {
                TreeNode::Leaf(entries) => {
                    return Ok(entries.into_iter().find(|entry| entry.name == name));
                }
                TreeNode::Inner(children) => {
                    let at = children.partition_point(|child| child.last.as_slice() < name);
                    let Some(child) = children.get(at) else { return Ok(None) };
                    id = child.id;
                }
            }
        }
        Err(Error::damaged(format!("tree node {}", id.short()), FormatError::Invalid("depth")))
    }

    fn node(&mut self, id: ChunkId) -> Result<TreeNode> {
        if let Some(nodes) = &mut self.nodes {
            nodes.push(id);
        }
        let bytes = self.reader.read_tree(&id)?;
        TreeNode::decode(&bytes)
            .map_err(|error| Error::damaged(format!("tree node {}", id.short()), error))
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Ok(Some(entry));
            }
            let next = match self.pending.take() {
                Some(root) => Some(root),
                None => {
                    let Some(level) = self.inner.last_mut() else { return Ok(None) };
                    level.next().map(|child| child.id)
                }
            };
            let Some(id) = next else {
                self.inner.pop();
                continue;
            };
            match self.node(id)? {
                TreeNode::Leaf(entries) => self.leaf = entries.into_iter(),
                TreeNode::Inner(children) if self.inner.len() < usize::from(MAX_LEVEL) => {
                    self.inner.push(children.into_iter());
                }
                TreeNode::Inner(_) => {
                    let object = format!("tree node {}", id.short());
                    return Err(Error::damaged(object, FormatError::Invalid("depth of the tree")));
                }
            }
        }
    }
}

impl Iterator for TreeReader<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

impl Repository {
    /// The entry at a path below a directory; `None` where there is none. An empty path has no
    /// entry: it is the directory itself.
    pub fn find_entry(&self, tree: ChunkId, path: &[u8]) -> Result<Option<Entry>> {
        let mut parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).peekable();
        let mut tree = tree;
        let reader = ChunkReader::new(self);
        while let Some(part) = parts.next() {
            let found = TreeReader::new(&reader, tree).find(part)?;
            match (found, parts.peek()) {
                (Some(Entry { kind: Kind::Directory { tree: below, .. }, .. }), Some(_)) => {
                    tree = below
                }
                (found, None) => return Ok(found),
                (_, Some(_)) => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// What a walk does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Go on, into the entry if it is a directory.
    Enter,
    /// Go on, past it.
    Pass,
}

/// Calls `visit` with the path and entry of everything below a directory, parents first, by name.
/// What is damaged is passed by; the first such error is returned at the end.
pub fn walk(
    repository: &Repository,
    tree: ChunkId,
    start: &[u8],
    visit: &mut dyn FnMut(&[u8], &Entry) -> Result<Step>,
) -> Result<()> {
    let mut first = None;
    walk_past(repository, tree, start, visit, &mut |_, error| {
        first.get_or_insert(error);
    })?;
    first.map_or(Ok(()), Err)
}

/// The same; what cannot be read of a directory is told to `damaged`, with its path.
pub fn walk_past(
    repository: &Repository,
    tree: ChunkId,
    start: &[u8],
    visit: &mut dyn FnMut(&[u8], &Entry) -> Result<Step>,
    damaged: &mut dyn FnMut(&[u8], Error),
) -> Result<()> {
    let reader = ChunkReader::new(repository);
    let mut open = vec![(TreeReader::new(&reader, tree), start.to_vec())];
    while let Some((entries, path)) = open.last_mut() {
        let entry = match entries.next() {
            None => {
                open.pop();
                continue;
            }
            Some(Err(error)) if !error.is_object_damage() => return Err(error),
            Some(Err(error)) => {
                // A reader goes on after the node that failed.
                damaged(path, error);
                continue;
            }
            Some(Ok(entry)) => entry,
        };
        let path = join(path, &entry.name);
        if visit(&path, &entry)? == Step::Enter
            && let Kind::Directory { tree, .. } = entry.kind
        {
            if open.len() >= MAX_DEPTH {
                damaged(&path, too_deep(&tree));
            } else {
                open.push((TreeReader::new(&reader, tree), path));
            }
        }
    }
    Ok(())
}

/// A tree below more directories than any system has.
pub fn too_deep(tree: &ChunkId) -> Error {
    let object = format!("tree {}", tree.short());
    Error::damaged(object, FormatError::Invalid("nesting of directories"))
}

/// A path one level down.
pub fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    [path, b"/", name].concat()
}
