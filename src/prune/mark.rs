//! Finding out what the live snapshots need: every recipe and tree node, every chunk, every base.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::filter::Filter;
use super::homes::Homes;
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::directory::{BlobEntry, Codec};
use crate::format::entry::{Content, Kind};
use crate::format::recipe::Node;
use crate::format::snapshot::Snapshot;
use crate::format::tree::TreeNode;
use crate::id::{ChunkId, ChunkKey, ObjectName};
use crate::index::{Fate, PackDirectory};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::ChunkReader;

/// A bit for each entry of a pack: whether it is a delta. Nothing where none is.
type Deltas = Option<Box<[u64]>>;

/// What is needed, as far as it was marked.
pub struct Marker<'a> {
    repository: &'a Repository,
    reader: ChunkReader<'a>,
    progress: &'a Progress,
    homes: Homes,
    /// What stands in packs.
    present: Filter,
    /// What snapshots refer to.
    wanted: Filter,
    /// That, and the bases of it.
    needed: Filter,
    seed: u64,
    /// Of packs, by name, the number and which entries are deltas.
    deltas: HashMap<ObjectName, (i64, Deltas)>,
    /// Nodes that were walked. A filter will not do: one that is taken for walked would hide all
    /// below it.
    walked: HashSet<ChunkKey>,
    snapshots: HashSet<ObjectName>,
    /// Snapshots that do not count.
    ignored: BTreeSet<ObjectName>,
    /// Chunks that snapshots refer to, with repetitions across nodes.
    pub references: u64,
}

enum Waiting {
    Recipe(ChunkId),
    Tree(ChunkId),
}

impl<'a> Marker<'a> {
    /// Nothing marked yet. Notes what is there to be needed.
    pub fn new(repository: &'a Repository, progress: &'a Progress, seed: u64) -> Result<Self> {
        let keys = repository.index().totals()?.chunks;
        let mut marker = Self {
            repository,
            reader: ChunkReader::new(repository),
            progress,
            homes: Homes::find(repository, progress, seed)?,
            present: Filter::for_keys(keys, seed),
            wanted: Filter::for_keys(keys, seed.rotate_left(17)),
            needed: Filter::for_keys(keys, seed.rotate_left(17)),
            seed,
            deltas: HashMap::new(),
            walked: HashSet::new(),
            snapshots: HashSet::new(),
            ignored: BTreeSet::new(),
            references: 0,
        };
        marker.look_around()?;
        Ok(marker)
    }

    /// Notes what stands in packs that were not there before.
    pub fn look_around(&mut self) -> Result<()> {
        let index = self.repository.index();
        for (name, number) in index.pack_numbers()? {
            let is_known = self.deltas.get(&name).is_some_and(|(known, _)| *known == number);
            if is_known || index.fate(&name) == Some(Fate::Dead) {
                continue;
            }
            let Some(pack) = index.pack(&name)? else { continue };
            for entry in &pack.entries {
                self.present.insert(&entry.id);
            }
            self.deltas.insert(name, (pack.number, deltas(&pack)));
        }
        Ok(())
    }

    /// Takes snapshots for forgotten.
    pub fn ignore(&mut self, names: &BTreeSet<ObjectName>) {
        self.ignored.clone_from(names);
    }

    /// Marks the live snapshots that are not marked yet, and all that they need. Whether there
    /// were any.
    pub fn mark_new(&mut self) -> Result<bool> {
        let mut is_changed = false;
        for (name, snapshot) in self.repository.index().snapshots()? {
            if !self.ignored.contains(&name) && self.snapshots.insert(name) {
                is_changed = true;
                self.snapshot(&snapshot).map_err(|error| unreadable(&name, error))?;
            }
        }
        if is_changed {
            self.needed.join(&self.wanted);
            self.close()?;
        }
        Ok(is_changed)
    }

    /// Begins anew with what is needed as a base: chunks were stored another way.
    pub fn reconsider(&mut self) -> Result<()> {
        self.homes = Homes::find(self.repository, self.progress, self.seed)?;
        self.needed = self.wanted.clone();
        self.close()
    }

    /// Whether a chunk is needed, or seems to be.
    pub fn needs(&self, key: &ChunkKey) -> bool {
        self.needed.contains(key)
    }

    /// Whether this copy of a chunk is needed.
    pub fn uses(&self, entry: &BlobEntry, pack: &PackDirectory) -> bool {
        self.needs(&entry.id) && self.homes.is_home(&entry.id, pack)
    }

    /// Whether a snapshot refers to this copy of a chunk.
    pub fn wants(&self, entry: &BlobEntry, pack: &PackDirectory) -> bool {
        self.wanted.contains(&entry.id) && self.homes.is_home(&entry.id, pack)
    }

    /// Whether this copy of a chunk is needed only because others are made against it.
    pub fn uses_as_base_only(&self, entry: &BlobEntry, pack: &PackDirectory) -> bool {
        self.uses(entry, pack) && !self.wanted.contains(&entry.id)
    }

    /// Whether a pack is known to hold no delta.
    pub fn is_plain(&self, pack: &ObjectName) -> bool {
        matches!(self.deltas.get(pack), Some((_, None)))
    }

    /// Which entries of a pack are known to be no deltas.
    pub fn wholes(&self, pack: &ObjectName, number: i64) -> Wholes<'_> {
        match self.deltas.get(pack) {
            Some((known, deltas)) if *known == number => Wholes::Known(deltas.as_deref()),
            _ => Wholes::Unknown,
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<()> {
        let mut waiting: Vec<_> =
            snapshot.streams.iter().map(|stream| Waiting::Recipe(stream.root)).collect();
        waiting.extend(snapshot.tree.map(Waiting::Tree));
        while let Some(next) = waiting.pop() {
            if self.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            match next {
                Waiting::Recipe(id) => self.recipe(&id, &mut waiting)?,
                Waiting::Tree(id) => self.tree(&id, &mut waiting)?,
            }
        }
        Ok(())
    }

    fn recipe(&mut self, id: &ChunkId, waiting: &mut Vec<Waiting>) -> Result<()> {
        let Some(bytes) = self.node(id)? else { return Ok(()) };
        let damaged = |error| Error::damaged(format!("recipe node {}", id.short()), error);
        match Node::decode(&bytes).map_err(damaged)? {
            Node::Leaf(runs) => runs.iter().try_for_each(|run| self.chunk(run.id.key())),
            Node::Inner { children, .. } => {
                waiting.extend(children.iter().map(|child| Waiting::Recipe(child.id)));
                Ok(())
            }
        }
    }

    fn tree(&mut self, id: &ChunkId, waiting: &mut Vec<Waiting>) -> Result<()> {
        let Some(bytes) = self.node(id)? else { return Ok(()) };
        let damaged = |error| Error::damaged(format!("tree node {}", id.short()), error);
        let entries = match TreeNode::decode(&bytes).map_err(damaged)? {
            TreeNode::Inner(children) => {
                waiting.extend(children.iter().map(|child| Waiting::Tree(child.id)));
                return Ok(());
            }
            TreeNode::Leaf(entries) => entries,
        };
        for entry in entries {
            match entry.kind {
                Kind::Directory { tree, .. } => waiting.push(Waiting::Tree(tree)),
                Kind::File { content: Content::Recipe { root, .. }, .. } => {
                    waiting.push(Waiting::Recipe(root));
                }
                Kind::File { content: Content::Chunk(id), .. } => self.chunk(id.key())?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The bytes of a node that was not walked before.
    fn node(&mut self, id: &ChunkId) -> Result<Option<Vec<u8>>> {
        if !self.walked.insert(id.key()) {
            return Ok(None);
        }
        self.chunk(id.key())?;
        self.reader.read_tree(id).map(Some)
    }

    fn chunk(&mut self, key: ChunkKey) -> Result<()> {
        self.references += 1;
        self.expect(&key)?;
        self.wanted.insert(&key);
        Ok(())
    }

    /// Fails where a chunk stands nowhere. What came after the look around is asked for.
    fn expect(&self, key: &ChunkKey) -> Result<()> {
        if self.present.contains(key) || !self.repository.index().packs_of(key)?.is_empty() {
            return Ok(());
        }
        Err(Error::missing_chunk("chunk", &key.to_hex()))
    }

    /// Marks what marked deltas are made against, and what those are, to the end of the chains.
    fn close(&mut self) -> Result<()> {
        while self.close_once(&|_| false)? {}
        Ok(())
    }

    /// Marks what **every** delta in these packs is made against, needed or not: a writer may find
    /// any chunk of a live pack and rely on it, so live packs must be readable as a whole. Dead packs
    /// do not stay, whatever is said. Whether that changed anything.
    pub fn close_over(&mut self, stays: &dyn Fn(&ObjectName) -> bool) -> Result<bool> {
        let mut is_changed = false;
        while self.close_once(stays)? {
            is_changed = true;
        }
        Ok(is_changed)
    }

    fn close_once(&mut self, stays: &dyn Fn(&ObjectName) -> bool) -> Result<bool> {
        let index = self.repository.index();
        let mut is_changed = false;
        for (name, _) in index.packs()? {
            let fate = index.fate(&name);
            if fate == Some(Fate::Dead) || self.is_plain(&name) {
                continue;
            }
            let Some(pack) = index.pack(&name)? else { continue };
            if pack.kind != BlobKind::Data {
                continue;
            }
            let is_whole = stays(&name);
            // Bases stand before what is made of them more often than not.
            for entry in pack.entries.iter().rev() {
                let is_needed = self.is_needed_delta(entry) && self.is_read_here(entry, &pack)?;
                if is_whole || is_needed {
                    for base in &entry.bases {
                        self.expect(base)?;
                        is_changed |= self.needed.insert(base);
                    }
                }
            }
        }
        Ok(is_changed)
    }

    /// Whether this copy of a chunk is the one that counts: what another was made against is not
    /// needed for it.
    fn is_read_here(&self, entry: &BlobEntry, pack: &PackDirectory) -> Result<bool> {
        let index = self.repository.index();
        if index.fate(&pack.name).is_none() {
            return Ok(self.homes.is_home(&entry.id, pack));
        }
        let places = index.packs_of(&entry.id)?;
        Ok(!places.iter().any(|place| index.fate(&place.pack.name).is_none()))
    }

    fn is_needed_delta(&self, entry: &BlobEntry) -> bool {
        entry.codec == Codec::Delta && self.needed.contains(&entry.id)
    }
}

/// Which entries of a pack are no deltas.
#[derive(Clone, Copy)]
pub enum Wholes<'a> {
    /// The pack is not known.
    Unknown,
    /// All but these bits.
    Known(Option<&'a [u64]>),
}

impl Wholes<'_> {
    /// Whether this entry surely is none.
    pub fn contains(self, ordinal: usize) -> bool {
        match self {
            Wholes::Unknown => false,
            Wholes::Known(None) => true,
            Wholes::Known(Some(deltas)) => {
                deltas.get(ordinal / 64).is_some_and(|word| word >> (ordinal % 64) & 1 == 0)
            }
        }
    }
}

fn deltas(pack: &PackDirectory) -> Deltas {
    let is_delta = |entry: &BlobEntry| entry.codec == Codec::Delta;
    if !pack.entries.iter().any(is_delta) {
        return None;
    }
    let mut bits = vec![0; pack.entries.len().div_ceil(64)];
    for (at, entry) in pack.entries.iter().enumerate() {
        bits[at / 64] |= u64::from(is_delta(entry)) << (at % 64);
    }
    Some(bits.into())
}

/// Says which snapshot could not be read; what went wrong stays what it was.
fn unreadable(name: &ObjectName, error: Error) -> Error {
    if !error.is_object_damage() && !matches!(error, Error::Missing { .. }) {
        return error;
    }
    let id = name.short();
    Error::Conflict(format!(
        "snapshot {id} cannot be read to its end, so nothing may be removed: {error}"
    ))
}
