//! The commit log folded once more, by itself, and what must hold after every change of the store.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use restow::crypto::keys::BlobKind;
use restow::format::directory::BlobEntry;
use restow::format::entry::{Content as FileContent, Kind};
use restow::format::log::{EntryKind, LogEntry};
use restow::format::paths;
use restow::format::snapshot::Snapshot;
use restow::id::{ChunkId, ChunkKey, ObjectName};
use restow::repository::Repository;
use restow::repository::reader::{ChunkReader, Scratch};
use restow::repository::recipes::RecipeReader;
use restow::repository::trees::TreeReader;
use restow::store::Store;
use restow::store::memory::MemoryStore;

use super::data::Content;

type Held<T> = Result<T, String>;

/// A pack that the log knows.
struct Pack {
    index: ObjectName,
    entries: Vec<BlobEntry>,
}

/// What a task must have committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Failed,
    Unknown,
}

/// The state as the log has it.
pub struct Ledger {
    observer: Repository,
    truth: Arc<MemoryStore>,
    next: u64,
    previous: [u8; 32],
    indexes: BTreeSet<ObjectName>,
    indexes_gone: BTreeSet<ObjectName>,
    packs: BTreeMap<ObjectName, Pack>,
    condemned: BTreeSet<ObjectName>,
    dead: BTreeSet<ObjectName>,
    /// What each live snapshot needs.
    live: BTreeMap<ObjectName, (Snapshot, HashSet<ChunkKey>)>,
    ever: u64,
    last_prune: u64,
    /// What was to be backed up, by tag.
    contents: HashMap<String, Content>,
    /// Entries that a task landed which say something about snapshots.
    landed: HashMap<u64, Vec<EntryKind>>,
    said: HashMap<u64, Said>,
    pub rescues: u64,
}

impl Ledger {
    pub fn new(observer: Repository, truth: Arc<MemoryStore>) -> Self {
        let mut ledger = Self {
            observer,
            truth,
            next: 0,
            previous: [0; 32],
            indexes: BTreeSet::new(),
            indexes_gone: BTreeSet::new(),
            packs: BTreeMap::new(),
            condemned: BTreeSet::new(),
            dead: BTreeSet::new(),
            live: BTreeMap::new(),
            ever: 0,
            last_prune: 0,
            contents: HashMap::new(),
            landed: HashMap::new(),
            said: HashMap::new(),
            rescues: 0,
        };
        ledger.catch_up().expect("a new log is sound");
        ledger
    }

    pub fn observer(&self) -> &Repository {
        &self.observer
    }

    /// Number of the last entry.
    pub fn head(&self) -> u64 {
        self.next - 1
    }

    pub fn head_hash(&self) -> [u8; 32] {
        self.previous
    }

    pub fn snapshots_ever(&self) -> u64 {
        self.ever
    }

    pub fn is_live(&self, name: &ObjectName) -> bool {
        self.live.contains_key(name)
    }

    pub fn expect_content(&mut self, tag: &str, content: Content) {
        self.contents.insert(tag.to_owned(), content);
    }

    pub fn content(&self, snapshot: &Snapshot) -> Option<&Content> {
        snapshot.tags.iter().find_map(|tag| self.contents.get(tag))
    }

    /// Packs that hold a chunk, and whether they are condemned.
    pub fn places(&self, key: &ChunkKey) -> Vec<(ObjectName, bool)> {
        let holds = |pack: &Pack| pack.entries.iter().any(|entry| entry.id == *key);
        let found =
            self.packs.iter().filter(|(name, pack)| !self.dead.contains(name) && holds(pack));
        found.map(|(name, _)| (*name, self.condemned.contains(name))).collect()
    }

    /// Whether an object is condemned; `false` where it is dead, `None` where it is neither.
    pub fn is_condemned(&self, name: &ObjectName) -> Option<bool> {
        match self.dead.contains(name) {
            true => Some(false),
            false => self.condemned.contains(name).then_some(true),
        }
    }

    /// Whether a prune took a step in this entry or after it.
    pub fn was_pruned_since(&self, number: u64) -> bool {
        self.last_prune >= number
    }

    /// A task says that it committed what it was to.
    pub fn succeeded(&mut self, task: u64) -> Held<()> {
        match self.landed.get(&task).map_or(0, Vec::len) {
            0 => Err(format!("task {task} said that it committed, and nothing is in the log")),
            _ => Ok(()),
        }
    }

    /// A task says that it did not, or that it cannot know.
    pub fn failed(&mut self, task: u64, is_unknown: bool, error: &str) -> Held<()> {
        let said = if is_unknown { Said::Unknown } else { Said::Failed };
        self.said.insert(task, said);
        match self.landed.get(&task) {
            Some(entries) if !is_unknown => {
                Err(format!("task {task} said that it failed ({error}), and {entries:?} landed"))
            }
            _ => Ok(()),
        }
    }

    /// Follows the log to its head.
    pub fn catch_up(&mut self) -> Held<()> {
        while self.truth.head(&paths::log(self.next)).is_ok() {
            self.follow(0)?;
        }
        self.observer.sync().map(drop).map_err(|error| format!("sync: {error}"))
    }

    /// Something new stands in the store.
    pub fn after_put(&mut self, path: &str, task: u64) -> Held<()> {
        let Some(number) = paths::log_number(path) else { return Ok(()) };
        if number != self.next {
            return Err(format!("{path} was put, but the log goes on with {}", self.next));
        }
        self.follow(task)?;
        self.verify()
    }

    pub fn before_delete(&self, path: &str) -> Held<()> {
        let name = paths::object_name(path);
        let is_allowed = match name {
            None => path.starts_with("tmp-probe-"),
            Some(name) if path.starts_with(paths::INDEX) => {
                !self.indexes.contains(&name)
                    && (self.dead.contains(&name) || self.indexes_gone.contains(&name))
            }
            Some(name) => self.dead.contains(&name) && !self.live.contains_key(&name),
        };
        if is_allowed { Ok(()) } else { Err(format!("{path} is deleted, but is not dead")) }
    }

    pub fn after_delete(&self, path: &str) -> Held<()> {
        if path.starts_with(paths::DATA) { self.verify() } else { Ok(()) }
    }

    /// Applies the next entry.
    fn follow(&mut self, task: u64) -> Held<()> {
        let number = self.next;
        let text = |error| format!("log entry {number}: {error}");
        let stored = self.observer.read_entry(number).map_err(text)?;
        let stored = stored.ok_or_else(|| format!("log entry {number} is not there"))?;
        let entry = stored.entry;
        if entry.previous != self.previous {
            return Err(format!("log entry {number} does not continue the one before"));
        }
        (self.next, self.previous) = (number + 1, stored.position.hash);
        if matches!(entry.kind, EntryKind::Gc | EntryKind::Dead) {
            self.last_prune = number;
        }
        self.note(task, &entry)?;
        if entry.kind == EntryKind::State {
            return self.compare(number, &entry);
        }
        for name in &entry.index_add {
            self.add_index(name)?;
        }
        for name in &entry.index_remove {
            self.indexes.remove(name);
            self.indexes_gone.insert(*name);
            self.packs.retain(|_, pack| pack.index != *name);
        }
        self.fates(number, &entry)?;
        self.observer.sync().map_err(|error| format!("sync to {number}: {error}"))?;
        for name in &entry.snapshot_add {
            let snapshot = self.observer.load_snapshot(name).map_err(|error| error.to_string())?;
            let needs =
                self.restore(&snapshot).map_err(|error| format!("entry {number}: {error}"))?;
            self.live.insert(*name, (snapshot, needs));
            self.ever += 1;
        }
        for name in &entry.snapshot_remove {
            self.live.remove(name);
        }
        Ok(())
    }

    /// An entry that landed though its writer said it did not is a lie.
    fn note(&mut self, task: u64, entry: &LogEntry) -> Held<()> {
        if entry.snapshot_add.is_empty() && entry.snapshot_remove.is_empty() {
            return Ok(());
        }
        self.landed.entry(task).or_default().push(entry.kind);
        if self.said.get(&task) == Some(&Said::Failed) {
            return Err(format!("an entry of task {task} landed after it said that it failed"));
        }
        Ok(())
    }

    fn compare(&mut self, number: u64, entry: &LogEntry) -> Held<()> {
        let set = |names: &[ObjectName]| names.iter().copied().collect::<BTreeSet<_>>();
        let live: BTreeSet<_> = self.live.keys().copied().collect();
        let is_same = set(&entry.index_add) == self.indexes
            && set(&entry.snapshot_add) == live
            && set(&entry.condemn) == self.condemned
            && set(&entry.dead).is_subset(&self.dead);
        // What is gone from the store may be forgotten.
        self.dead = set(&entry.dead);
        if is_same { Ok(()) } else { Err(format!("state {number} is not what was before it")) }
    }

    fn add_index(&mut self, name: &ObjectName) -> Held<()> {
        let packs = self.observer.load_index(name).map_err(|error| error.to_string())?;
        for pack in packs.packs {
            let path = paths::pack(&pack.name);
            if self.truth.head(&path).ok() != Some(pack.size) {
                return Err(format!("{path} is referred to and is not there"));
            }
            self.packs.insert(pack.name, Pack { index: *name, entries: pack.entries });
        }
        self.indexes.insert(*name);
        Ok(())
    }

    fn fates(&mut self, number: u64, entry: &LogEntry) -> Held<()> {
        for name in &entry.condemn {
            if self.dead.contains(name) {
                return Err(format!("entry {number} condemns {name}, which is dead"));
            }
            self.condemned.insert(*name);
        }
        for name in &entry.dead {
            if !self.condemned.remove(name) {
                return Err(format!("entry {number} buries {name}, which is not condemned"));
            }
            self.dead.insert(*name);
        }
        for name in &entry.rescue {
            if self.dead.contains(name) {
                return Err(format!("entry {number} rescues {name}, which is dead"));
            }
            self.condemned.remove(name);
            self.rescues += 1;
        }
        Ok(())
    }

    /// Every chunk of every live snapshot stands in a live pack that is there, with all bases; live
    /// packs are readable as a whole; live objects are there.
    pub fn verify(&self) -> Held<()> {
        let (mut ready, mut waiting) = (HashSet::new(), Vec::new());
        for (name, pack) in &self.packs {
            if self.condemned.contains(name) || self.dead.contains(name) {
                continue;
            }
            let path = paths::pack(name);
            if self.truth.head(&path).is_err() {
                return Err(format!("{path} is live and not there"));
            }
            for entry in &pack.entries {
                if entry.bases.is_empty() {
                    ready.insert(entry.id);
                } else {
                    waiting.push((name, entry));
                }
            }
        }
        loop {
            let before = waiting.len();
            waiting.retain(|(_, entry)| {
                let is_ready = entry.bases.iter().all(|base| ready.contains(base));
                if is_ready {
                    ready.insert(entry.id);
                }
                !is_ready
            });
            if waiting.len() == before {
                break;
            }
        }
        if let Some((pack, entry)) = waiting.first() {
            return Err(format!(
                "{} of live pack {} has no live base",
                entry.id.short(),
                pack.short()
            ));
        }
        for (name, (snapshot, needs)) in &self.live {
            if let Some(lost) = needs.iter().find(|key| !ready.contains(*key)) {
                let (name, tags) = (name.short(), &snapshot.tags);
                return Err(format!(
                    "snapshot {name} {tags:?} needs {}, which is in no live pack",
                    lost.short()
                ));
            }
            if self.truth.head(&paths::snapshot(name)).is_err() {
                return Err(format!("live snapshot {} is not there", name.short()));
            }
        }
        let lost = self.indexes.iter().find(|name| self.truth.head(&paths::index(name)).is_err());
        lost.map_or(Ok(()), |name| Err(format!("live idx {} is not there", name.short())))
    }

    /// Restores everything that is live and compares.
    pub fn restore_all(&self) -> Held<()> {
        self.live.values().try_for_each(|(snapshot, _)| self.restore(snapshot).map(drop))
    }

    /// Restores a snapshot, compares it with what went in, and tells which chunks that took.
    fn restore(&self, snapshot: &Snapshot) -> Held<HashSet<ChunkKey>> {
        let expected = self.content(snapshot);
        let expected = expected.ok_or_else(|| format!("whose is {:?}?", snapshot.tags))?;
        let restored = read(&self.observer, snapshot);
        let (found, needs) = restored
            .map_err(|error| format!("snapshot {:?} cannot be read: {error}", snapshot.tags))?;
        if found == *expected {
            return Ok(needs);
        }
        Err(format!("snapshot {:?} is not what went in", snapshot.tags))
    }
}

/// Everything that is in a snapshot, and the keys of all chunks and nodes read for it.
pub fn read(
    repository: &Repository,
    snapshot: &Snapshot,
) -> restow::error::Result<(Content, HashSet<ChunkKey>)> {
    let mut needs = HashSet::new();
    if let Some(stream) = snapshot.streams.first() {
        return Ok((Content::Stream(read_stream(repository, stream.root, &mut needs)?), needs));
    }
    let reader = ChunkReader::new(repository);
    let mut files = BTreeMap::new();
    let mut folders: Vec<(ChunkId, String)> =
        snapshot.tree.into_iter().map(|tree| (tree, String::new())).collect();
    while let Some((tree, path)) = folders.pop() {
        let mut entries = TreeReader::new(&reader, tree).with_nodes();
        for entry in entries.by_ref() {
            let entry = entry?;
            let path = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
            match entry.kind {
                Kind::Directory { tree, .. } => folders.push((tree, path)),
                Kind::File { content: FileContent::Chunk(id), .. } => {
                    needs.insert(id.key());
                    files.insert(path, reader.read(BlobKind::Data, &id, &mut Scratch::new()?)?);
                }
                Kind::File { content: FileContent::Recipe { root, .. }, .. } => {
                    files.insert(path, read_stream(repository, root, &mut needs)?);
                }
                _ => drop(files.insert(path, Vec::new())),
            }
        }
        needs.extend(entries.take_nodes().iter().map(ChunkId::key));
    }
    Ok((Content::Files(files), needs))
}

fn read_stream(
    repository: &Repository,
    root: ChunkId,
    needs: &mut HashSet<ChunkKey>,
) -> restow::error::Result<Vec<u8>> {
    let reader = ChunkReader::new(repository);
    let mut scratch = Scratch::new()?;
    let mut recipe = RecipeReader::new(repository, root)?.with_nodes();
    let mut bytes = Vec::new();
    for run in recipe.by_ref() {
        let run = run?;
        let chunk = reader.read(BlobKind::Data, &run.id, &mut scratch)?;
        (0..run.repeat).for_each(|_| bytes.extend_from_slice(&chunk));
        needs.insert(run.id.key());
    }
    needs.extend(recipe.take_nodes().iter().map(ChunkId::key));
    Ok(bytes)
}
