//! The file system itself, without a word of FUSE: numbered nodes, their attributes and children.
//!
//! ```text
//! /snapshots/<time>/…      every snapshot by its time
//! /ids/<id>/…              the same by its short id
//! /hosts/<host>/<time>/…   by host
//! /tags/<tag>/<time>/…     by tag
//! /latest                  a link to the newest
//! ```
//! Below a snapshot stand its files at their paths, and its streams as files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::content::Contents;
use super::nodes::Nodes;
pub use super::nodes::ROOT;
use crate::error::Result;
use crate::format::entry::{Content, Entry, Kind, Moment, Owner};
use crate::format::snapshot::Snapshot;
use crate::id::ChunkId;
use crate::repository::Repository;
use crate::repository::reader::ChunkReader;
use crate::repository::snapshots::{Filter, NamedSnapshot};
use crate::repository::trees::TreeReader;

/// How often to look for new snapshots.
const REFRESH: Duration = Duration::from_secs(5);

/// What a node is.
#[derive(Clone)]
enum Node {
    Root,
    Snapshots,
    Ids,
    Hosts,
    Host(String),
    Tags,
    Tag(String),
    /// A link to a path.
    Link(String),
    /// Top of a snapshot, or a directory of it that only streams stand in.
    Streams {
        snapshot: Arc<NamedSnapshot>,
        prefix: Vec<u8>,
    },
    /// A file or directory of a snapshot; directories may hold streams too.
    Entry {
        snapshot: Arc<NamedSnapshot>,
        path: Vec<u8>,
        entry: Arc<Entry>,
    },
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Host(a), Self::Host(b))
            | (Self::Tag(a), Self::Tag(b))
            | (Self::Link(a), Self::Link(b)) => a == b,
            (
                Self::Streams { snapshot: a, prefix },
                Self::Streams { snapshot: b, prefix: other },
            ) => (a.name, prefix) == (b.name, other),
            (
                Self::Entry { snapshot: a, path, entry },
                Self::Entry { snapshot: b, path: other, entry: other_entry },
            ) => {
                a.name == b.name && (path == other || entry.is_hard_link()) && entry == other_entry
            }
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

/// What is told of a node.
#[derive(Debug, Clone)]
pub struct Attributes {
    /// Its number.
    pub number: u64,
    /// What it is, with size or target, and everything else that is kept of a file.
    pub entry: Arc<Entry>,
}

/// A child of a directory.
#[derive(Debug, Clone)]
pub struct Child {
    /// Its name.
    pub name: Vec<u8>,
    /// Its kind, for listings.
    pub kind: &'static str,
}

struct Snapshots {
    loaded: Option<Instant>,
    all: Vec<Arc<NamedSnapshot>>,
}

/// The file system of one repository; shared by threads.
pub struct MountFs<'a> {
    repository: &'a Repository,
    trees: ChunkReader<'a>,
    contents: Contents<'a>,
    filter: Filter,
    nodes: Mutex<Nodes<Node>>,
    snapshots: Mutex<Snapshots>,
}

impl<'a> MountFs<'a> {
    /// The file system of the snapshots that pass, with a cache of at most `cache_bytes`.
    pub fn new(repository: &'a Repository, filter: Filter, cache_bytes: usize) -> Self {
        Self {
            repository,
            trees: ChunkReader::new(repository),
            contents: Contents::new(repository, cache_bytes),
            filter,
            nodes: Mutex::new(Nodes::new(Node::Root)),
            snapshots: Mutex::new(Snapshots { loaded: None, all: Vec::new() }),
        }
    }

    /// Reads contents.
    pub fn contents(&self) -> &Contents<'a> {
        &self.contents
    }

    /// The attributes of a node that is known.
    pub fn attributes(&self, number: u64) -> Result<Option<Attributes>> {
        let node = self.node(number);
        Ok(node.map(|node| Attributes { number, entry: self.describe(&node) }))
    }

    /// The child of this name. The kernel holds one more reference to it from here on.
    pub fn look_up(&self, parent: u64, name: &[u8]) -> Result<Option<Attributes>> {
        let Some(directory) = self.node(parent) else { return Ok(None) };
        let Some(node) = self.child(&directory, name)? else { return Ok(None) };
        let entry = self.describe(&node);
        let identity = match &node {
            Node::Entry { snapshot, entry, .. } if entry.is_hard_link() => {
                Some((snapshot.name, entry.device, entry.inode))
            }
            _ => None,
        };
        let mut nodes = self.nodes.lock().expect("no panics here");
        let number = nodes.number_of(parent, name, identity, node);
        Ok(Some(Attributes { number, entry }))
    }

    /// The kernel gave back so many references.
    pub fn forget(&self, number: u64, count: u64) {
        self.nodes.lock().expect("no panics here").forget(number, count);
    }

    /// The children of a directory, by name.
    pub fn list(&self, number: u64) -> Result<Vec<Child>> {
        let Some(node) = self.node(number) else { return Ok(Vec::new()) };
        let names = |names: Vec<String>, kind: &'static str| {
            names.into_iter().map(|name| Child { name: name.into_bytes(), kind }).collect()
        };
        let (snapshot, prefix, tree) = match &node {
            Node::Root => {
                let mut children: Vec<_> =
                    names(words(&["hosts", "ids", "snapshots", "tags"]), "dir");
                children.extend(names(words(&["latest"]), "symlink"));
                return Ok(children);
            }
            Node::Snapshots => {
                return Ok(names(self.times(|_| true)?.into_keys().collect(), "dir"));
            }
            Node::Host(host) => {
                let of_host = |snapshot: &Snapshot| snapshot.host == *host;
                return Ok(names(self.times(of_host)?.into_keys().collect(), "dir"));
            }
            Node::Tag(tag) => {
                let with_tag = |snapshot: &Snapshot| snapshot.tags.contains(tag);
                return Ok(names(self.times(with_tag)?.into_keys().collect(), "dir"));
            }
            Node::Ids => {
                let ids = self.all()?.iter().map(|named| named.name.short()).collect();
                return Ok(names(ids, "dir"));
            }
            Node::Hosts => return Ok(names(self.groups(|s| vec![s.host.clone()])?, "dir")),
            Node::Tags => return Ok(names(self.groups(|s| s.tags.clone())?, "dir")),
            Node::Streams { snapshot, prefix } => {
                let tree = if prefix.is_empty() { snapshot.snapshot.tree } else { None };
                (snapshot, prefix.clone(), tree)
            }
            Node::Entry { snapshot, path, entry } => match entry.kind {
                Kind::Directory { tree, .. } => (snapshot, path.clone(), Some(tree)),
                _ => return Ok(Vec::new()),
            },
            Node::Link(_) => return Ok(Vec::new()),
        };
        let mut children = BTreeMap::new();
        for (name, is_stream) in stream_names(&snapshot.snapshot, &prefix) {
            children.insert(name, if is_stream { "file" } else { "dir" });
        }
        if let Some(tree) = tree {
            for entry in TreeReader::new(&self.trees, tree) {
                let entry = entry?;
                children.insert(entry.name, entry.kind.word());
            }
        }
        Ok(children.into_iter().map(|(name, kind)| Child { name, kind }).collect())
    }

    fn node(&self, number: u64) -> Option<Node> {
        self.nodes.lock().expect("no panics here").get(number)
    }

    fn child(&self, directory: &Node, name: &[u8]) -> Result<Option<Node>> {
        let text = String::from_utf8_lossy(name).into_owned();
        let at_time = |wanted: &dyn Fn(&Snapshot) -> bool| -> Result<Option<Node>> {
            Ok(self.times(wanted)?.remove(&text).map(top))
        };
        match directory {
            Node::Root => Ok(match name {
                b"snapshots" => Some(Node::Snapshots),
                b"ids" => Some(Node::Ids),
                b"hosts" => Some(Node::Hosts),
                b"tags" => Some(Node::Tags),
                b"latest" => {
                    let newest = self
                        .times(|_| true)?
                        .into_iter()
                        .max_by_key(|(_, named)| (named.snapshot.time, named.name));
                    newest.map(|(time, _)| Node::Link(format!("snapshots/{time}")))
                }
                _ => None,
            }),
            Node::Snapshots => at_time(&|_| true),
            Node::Host(host) => at_time(&|snapshot| snapshot.host == *host),
            Node::Tag(tag) => at_time(&|snapshot| snapshot.tags.contains(tag)),
            Node::Ids => {
                Ok(self.all()?.into_iter().find(|named| named.name.short() == text).map(top))
            }
            Node::Hosts => {
                let hosts = self.groups(|snapshot| vec![snapshot.host.clone()])?;
                Ok(hosts.contains(&text).then_some(Node::Host(text)))
            }
            Node::Tags => {
                let tags = self.groups(|snapshot| snapshot.tags.clone())?;
                Ok(tags.contains(&text).then_some(Node::Tag(text)))
            }
            Node::Link(_) => Ok(None),
            Node::Streams { snapshot, prefix } => {
                let tree = if prefix.is_empty() { snapshot.snapshot.tree } else { None };
                self.below(snapshot, prefix, tree, name)
            }
            Node::Entry { snapshot, path, entry } => match entry.kind {
                Kind::Directory { tree, .. } => self.below(snapshot, path, Some(tree), name),
                _ => Ok(None),
            },
        }
    }

    fn below(
        &self,
        snapshot: &Arc<NamedSnapshot>,
        prefix: &[u8],
        tree: Option<ChunkId>,
        name: &[u8],
    ) -> Result<Option<Node>> {
        let path = if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() };
        if let Some(tree) = tree
            && let Some(entry) = TreeReader::new(&self.trees, tree).find(name)?
        {
            let (snapshot, entry) = (snapshot.clone(), Arc::new(entry));
            return Ok(Some(Node::Entry { snapshot, path, entry }));
        }
        if let Some(stream) = snapshot.snapshot.stream(&path) {
            let content = Content::Recipe { root: stream.root, chunks: stream.chunks };
            let kind = Kind::File { size: stream.size, content };
            let entry = Arc::new(plain(kind, 0o400, &snapshot.snapshot));
            return Ok(Some(Node::Entry { snapshot: snapshot.clone(), path, entry }));
        }
        let is_above = !stream_names(&snapshot.snapshot, &path).is_empty();
        Ok(is_above.then(|| Node::Streams { snapshot: snapshot.clone(), prefix: path }))
    }

    fn describe(&self, node: &Node) -> Arc<Entry> {
        let directory = Kind::Directory { tree: ChunkId([0; 32]), is_whole: true };
        match node {
            Node::Entry { entry, .. } => entry.clone(),
            Node::Streams { snapshot, .. } => Arc::new(plain(directory, 0o555, &snapshot.snapshot)),
            Node::Link(target) => {
                let kind = Kind::Symlink { target: target.clone().into_bytes() };
                Arc::new(Entry { kind, ..nameless() })
            }
            _ => Arc::new(Entry { kind: directory, ..nameless() }),
        }
    }

    /// The snapshots that pass, looked for anew now and then.
    fn all(&self) -> Result<Vec<Arc<NamedSnapshot>>> {
        let mut snapshots = self.snapshots.lock().expect("no panics here");
        if snapshots.loaded.is_none_or(|loaded| loaded.elapsed() > REFRESH) {
            // A store that does not answer for a moment takes nothing away.
            if self.repository.sync().is_ok() || snapshots.loaded.is_none() {
                let all = self.repository.snapshots(&self.filter)?;
                snapshots.all = all.into_iter().map(Arc::new).collect();
            }
            snapshots.loaded = Some(Instant::now());
        }
        Ok(snapshots.all.clone())
    }

    /// Snapshots by their names in directories: the time, and the id where the time is not enough.
    fn times(
        &self,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> Result<BTreeMap<String, Arc<NamedSnapshot>>> {
        let mut found = BTreeMap::new();
        for named in self.all()? {
            if !wanted(&named.snapshot) {
                continue;
            }
            let local = named.snapshot.time.to_zoned(jiff::tz::TimeZone::system());
            let mut time = local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
            if found.contains_key(&time) {
                time = format!("{time}-{}", named.name.short());
            }
            found.insert(time, named);
        }
        Ok(found)
    }

    fn groups(&self, of: impl Fn(&Snapshot) -> Vec<String>) -> Result<Vec<String>> {
        let mut groups: Vec<String> =
            self.all()?.iter().flat_map(|named| of(&named.snapshot)).collect();
        // Others cannot be names of directories.
        groups.retain(|group| crate::format::entry::is_name(group.as_bytes()));
        groups.sort();
        groups.dedup();
        Ok(groups)
    }
}

fn top(snapshot: Arc<NamedSnapshot>) -> Node {
    Node::Streams { snapshot, prefix: Vec::new() }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Names right below a prefix on the way to streams, and whether they are streams themselves.
fn stream_names(snapshot: &Snapshot, prefix: &[u8]) -> Vec<(Vec<u8>, bool)> {
    let below = |path: &'_ [u8]| -> Option<(Vec<u8>, bool)> {
        let rest = match prefix {
            b"" => path,
            _ => path.strip_prefix(prefix)?.strip_prefix(b"/")?,
        };
        let mut parts = rest.splitn(2, |&byte| byte == b'/');
        let name = parts.next()?.to_vec();
        Some((name, parts.next().is_none()))
    };
    let streams = snapshot.streams.iter().filter(|stream| stream.name.is_file_path());
    streams.filter_map(|stream| below(stream.name.relative())).collect()
}

/// An entry for what the snapshot itself knows no attributes of.
fn plain(kind: Kind, mode: u32, snapshot: &Snapshot) -> Entry {
    let time = snapshot.time;
    let modified =
        Moment { seconds: time.as_second(), nanoseconds: time.subsec_nanosecond().max(0) as u32 };
    Entry { kind, mode, modified, changed: modified, ..nameless() }
}

fn nameless() -> Entry {
    let owner = Owner::default();
    Entry {
        name: Vec::new(),
        kind: Kind::Fifo,
        mode: 0o555,
        user: Owner { id: rustix::process::geteuid().as_raw(), ..owner.clone() },
        group: Owner { id: rustix::process::getegid().as_raw(), ..owner },
        modified: Moment::default(),
        changed: Moment::default(),
        device: 0,
        inode: 0,
        links: 1,
        xattrs: Vec::new(),
    }
}
