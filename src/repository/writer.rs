//! Writing blobs: fill packs, seal and store them, commit them to the log.
//!
//! Order of durability: pack, idx object, snapshot, log entry. Packs are committed now and then
//! without a snapshot, so that a backup that is killed goes on from there the next time.
//! Memory: one pack being filled for each kind, one waiting, one being sealed.

mod reliance;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::Repository;
use super::pending::{LeftBehind, PendingPacks};
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::index::IndexedPack;
use crate::format::log::{EntryKind, LogEntry};
use crate::format::pack::{self, EncodedBlob, PackBuilder};
use crate::format::paths;
use crate::format::snapshot::Snapshot;
use crate::id::{ChunkId, ChunkKey, ObjectName};

/// Packs are committed when they add up to this many full ones, …
const CHECKPOINT_PACKS: u64 = 8;
/// … or hold this many blobs.
const CHECKPOINT_BLOBS: usize = 1 << 18;
/// Most blobs of one pack; keeps its directory small.
pub const PACK_BLOBS: usize = 8192;

/// Takes encoded blobs from many threads; one more thread ([`BlobWriter::store_packs`]) seals and
/// stores the packs they fill.
pub struct BlobWriter<'a> {
    repository: &'a Repository,
    dry_run: bool,
    filling: Mutex<[PackBuilder; 2]>,
    claimed: Mutex<HashSet<ChunkKey>>,
    /// The repository holds nothing yet: there is no use in asking the index.
    is_fresh: AtomicBool,
    jobs: Mutex<Option<Sender<PackBuilder>>>,
    queue: Receiver<PackBuilder>,
    stored: Mutex<Stored>,
    failed: AtomicBool,
    added_bytes: AtomicU64,
    /// Where the log stood when this writer began to rely on the index.
    began: u64,
    /// Where it stood before the oldest object was stored that is not committed yet.
    unsettled: AtomicU64,
    /// Packs that chunks of this run stand in already, where their closure cannot be walked: with a
    /// write-only key.
    relied: Mutex<HashSet<ObjectName>>,
}

/// Packs that are stored but not in the log yet.
#[derive(Default)]
struct Stored {
    packs: Vec<IndexedPack>,
    /// Packs that are being stored this moment.
    on_their_way: usize,
    bytes: u64,
    blobs: usize,
    error: Option<Error>,
    /// Where the packs above are noted, for the case that this process dies.
    journal: Option<PendingPacks>,
    /// Lists of writers that died; their packs are among those above.
    adopted: Vec<LeftBehind>,
}

impl Stored {
    fn forget_packs(&mut self) {
        self.packs.clear();
        (self.bytes, self.blobs) = (0, 0);
        // A note that stays is no harm: it names packs that are in the index.
        let _ = self.journal.as_mut().map(PendingPacks::clear);
        self.adopted.drain(..).for_each(LeftBehind::done);
    }
}

impl<'a> BlobWriter<'a> {
    /// A writer into `repository`; with `dry_run` everything is done but storing.
    pub fn new(repository: &'a Repository, dry_run: bool) -> Self {
        // In order, packs are stored when all are filled.
        let is_in_order = repository.environment().in_order;
        let (sender, queue) = if is_in_order { unbounded() } else { bounded(1) };
        let head = repository.index().position().ok().flatten();
        let began = head.map_or(0, |position| position.number);
        let writer = Self {
            repository,
            dry_run,
            filling: Mutex::new([BlobKind::Data, BlobKind::Tree].map(PackBuilder::new)),
            claimed: Mutex::new(HashSet::new()),
            is_fresh: AtomicBool::new(repository.index().is_empty()),
            jobs: Mutex::new(Some(sender)),
            queue,
            stored: Mutex::new(Stored::default()),
            failed: AtomicBool::new(false),
            added_bytes: AtomicU64::new(0),
            began,
            unsettled: AtomicU64::new(began),
            relied: Mutex::default(),
        };
        if !dry_run && let Some(folder) = repository.cache_folder() {
            writer.adopt(&folder);
        }
        writer
    }

    /// Takes over the packs that writers on this machine stored and did not live to commit.
    fn adopt(&self, folder: &Path) {
        let mut stored = self.stored.lock().expect("no panics here");
        let mut claimed = self.claimed.lock().expect("no panics here");
        stored.adopted = LeftBehind::find(folder);
        let horizon = self.repository.index().turns().horizon;
        let names = stored.adopted.iter().flat_map(|list| &list.names);
        // An older one may have been declared dead, and be deleted any moment.
        let names = names.filter(|(_, since)| *since >= horizon);
        let found: Vec<_> = names.filter_map(|(name, _)| self.load_orphan(name).ok()).collect();
        for pack in self.with_bases(found) {
            claimed.extend(pack.entries.iter().map(|entry| entry.id));
            stored.bytes += pack.size;
            stored.blobs += pack.entries.len();
            stored.packs.push(pack);
        }
        let entropy = &*self.repository.environment().entropy;
        stored.journal = PendingPacks::create(folder, entropy).ok();
    }

    /// The packs all of whose bases stand in live packs or in each other: a prune may have removed
    /// some since these were stored.
    fn with_bases(&self, mut packs: Vec<IndexedPack>) -> Vec<IndexedPack> {
        let index = self.repository.index();
        loop {
            let own: HashSet<ChunkKey> =
                packs.iter().flat_map(|pack| &pack.entries).map(|entry| entry.id).collect();
            let stands =
                |key: &ChunkKey| own.contains(key) || index.contains_live(key).unwrap_or(false);
            let before = packs.len();
            packs.retain(|pack| pack.entries.iter().flat_map(|entry| &entry.bases).all(stands));
            if packs.len() == before {
                return packs;
            }
        }
    }

    /// A whole, undamaged pack that the index does not know.
    fn load_orphan(&self, name: &ObjectName) -> Result<IndexedPack> {
        let path = paths::pack(name);
        let index = self.repository.index();
        if index.pack(name)?.is_some() || index.fate(name).is_some() {
            return Err(Error::Conflict(format!("{path} is known already")));
        }
        let bytes = self.repository.store().get(&path)?;
        if ObjectName::of(&bytes) != *name {
            return Err(Error::name_mismatch(&path, name));
        }
        let pack = pack::read_directory(self.repository.keys(), &bytes)
            .map_err(|error| Error::damaged(&path, error))?;
        // It can be seen, but its writer may not have lived to make its name durable.
        self.repository.put_named(&path, &bytes)?;
        self.repository.put_parity(name, &bytes)?;
        Ok(pack)
    }

    /// Whether the caller must encode and add this chunk: `false` where it is in the repository or
    /// was claimed before. Of several threads that ask at once, one is told `true`.
    pub fn claim(&self, id: &ChunkId) -> Result<bool> {
        let key = id.key();
        if self.claimed.lock().expect("no panics here").contains(&key) {
            return Ok(false);
        }
        if !self.is_fresh.load(Ordering::Relaxed) && self.repository.index().contains_live(&key)? {
            self.rely_on(&key)?;
            return Ok(false);
        }
        Ok(self.claimed.lock().expect("no panics here").insert(key))
    }

    /// Adds a blob that was claimed. Blocks while packs are being stored more slowly than filled.
    pub fn add(&self, kind: BlobKind, blob: EncodedBlob) -> Result<()> {
        let full = {
            let mut filling = self.filling.lock().expect("no panics here");
            let builder = &mut filling[kind as usize];
            builder.push(blob);
            let limit = self.pack_limit(kind);
            let is_full =
                builder.payload_bytes() as u64 >= limit || builder.blob_count() >= PACK_BLOBS;
            is_full.then(|| std::mem::replace(builder, PackBuilder::new(kind)))
        };
        full.map_or(Ok(()), |builder| self.submit(builder))
    }

    /// Stores what is in half-filled packs and lets [`BlobWriter::store_packs`] end.
    pub fn close(&self) -> Result<()> {
        let empty = [BlobKind::Data, BlobKind::Tree].map(PackBuilder::new);
        let last = std::mem::replace(&mut *self.filling.lock().expect("no panics here"), empty);
        for builder in last {
            if builder.blob_count() > 0 {
                self.submit(builder)?;
            }
        }
        self.jobs.lock().expect("no panics here").take();
        Ok(())
    }

    /// Ends [`BlobWriter::store_packs`] without storing what is still being filled.
    pub fn abandon(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.jobs.lock().expect("no panics here").take();
    }

    /// Whether storing failed: everybody should stop.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why storing failed, if it did.
    pub fn take_error(&self) -> Option<Error> {
        self.stored.lock().expect("no panics here").error.take()
    }

    /// Bytes of packs and idx objects stored so far.
    pub fn added_bytes(&self) -> u64 {
        self.added_bytes.load(Ordering::Relaxed)
    }

    /// Seals and stores packs until [`BlobWriter::close`]; runs on a thread of its own, and where the
    /// store gains from it on more.
    pub fn store_packs(&self) {
        thread::scope(|scope| {
            for _ in 1..self.repository.store().parallel_puts() {
                scope.spawn(|| self.store_some());
            }
            self.store_some();
        });
    }

    fn store_some(&self) {
        let mut buffer = Vec::new();
        for builder in &self.queue {
            if self.has_failed() {
                continue;
            }
            match self.store_pack(builder, buffer) {
                Ok(used) => buffer = used,
                Err(error) => {
                    buffer = Vec::new();
                    self.stored.lock().expect("no panics here").error.get_or_insert(error);
                    self.failed.store(true, Ordering::SeqCst);
                }
            }
        }
    }

    /// Commits everything stored so far, with the snapshot if there is one, and returns its name.
    /// Call after [`BlobWriter::store_packs`] ended.
    pub fn commit(&self, snapshot: Option<&Snapshot>) -> Result<Option<ObjectName>> {
        let mut stored = self.stored.lock().expect("no panics here");
        if let Some(error) = stored.error.take() {
            return Err(error);
        }
        if self.dry_run {
            return Ok(None);
        }
        self.commit_packs(&mut stored, snapshot, &|| Ok(false))
    }

    /// The same for a snapshot that somebody else may be adding at the same time: where `is_there` says
    /// so as of the head of the log, it is left out, and there is no name.
    pub fn commit_once(
        &self,
        snapshot: &Snapshot,
        is_there: &dyn Fn() -> Result<bool>,
    ) -> Result<Option<ObjectName>> {
        let mut stored = self.stored.lock().expect("no panics here");
        if let Some(error) = stored.error.take() {
            return Err(error);
        }
        self.commit_packs(&mut stored, Some(snapshot), is_there)
    }

    fn pack_limit(&self, kind: BlobKind) -> u64 {
        let config = self.repository.config();
        match kind {
            BlobKind::Data => config.data_pack_bytes,
            BlobKind::Tree => config.tree_pack_bytes,
        }
    }

    fn checkpoint_bytes(&self) -> u64 {
        CHECKPOINT_PACKS * self.repository.config().data_pack_bytes
    }

    fn submit(&self, builder: PackBuilder) -> Result<()> {
        let sender = self.jobs.lock().expect("no panics here").clone();
        // A closed queue means that storing failed; the error is told by `commit`.
        match sender.map(|sender| sender.send(builder)) {
            Some(Ok(())) => Ok(()),
            _ => Err(Error::Interrupted),
        }
    }

    fn store_pack(&self, builder: PackBuilder, buffer: Vec<u8>) -> Result<Vec<u8>> {
        let repository = self.repository;
        let entropy = &*repository.environment().entropy;
        let blobs = builder.blob_count();
        let pack = builder.seal(repository.keys(), entropy, repository.config().padding, buffer);
        let size = pack.bytes.len() as u64;
        self.added_bytes.fetch_add(size, Ordering::Relaxed);
        if self.dry_run {
            return Ok(pack.bytes);
        }
        self.note(&pack.indexed.name);
        repository.put_named(&paths::pack(&pack.indexed.name), &pack.bytes)?;
        let parity = repository.put_parity(&pack.indexed.name, &pack.bytes)?;
        self.added_bytes.fetch_add(parity, Ordering::Relaxed);
        tracing::debug!(pack = %pack.indexed.name.short(), size, blobs, "stored a pack");
        let mut stored = self.stored.lock().expect("no panics here");
        stored.on_their_way -= 1;
        stored.packs.push(pack.indexed);
        stored.bytes += size;
        stored.blobs += blobs;
        if stored.bytes >= self.checkpoint_bytes() || stored.blobs >= CHECKPOINT_BLOBS {
            self.commit_packs(&mut stored, None, &|| Ok(false))?;
        }
        Ok(pack.bytes)
    }

    /// Notes a pack before it is stored: a note of a pack that never came is passed over.
    fn note(&self, name: &ObjectName) {
        let mut stored = self.stored.lock().expect("no panics here");
        let is_first = stored.packs.is_empty() && stored.on_their_way == 0;
        // What was declared dead and forgotten before now is none of these. A log that cannot be
        // read leaves the older number, which is as safe.
        if is_first && let Ok(head) = self.repository.sync() {
            self.unsettled.store(head.number, Ordering::SeqCst);
        }
        stored.on_their_way += 1;
        if let Some(journal) = &mut stored.journal {
            let _ = journal.add(name, self.unsettled.load(Ordering::SeqCst));
        }
    }

    fn commit_packs(
        &self,
        stored: &mut Stored,
        snapshot: Option<&Snapshot>,
        is_there: &dyn Fn() -> Result<bool>,
    ) -> Result<Option<ObjectName>> {
        let repository = self.repository;
        if stored.packs.is_empty() && snapshot.is_none() {
            return Ok(None);
        }
        let epoch = repository.keys().current().number();
        let mut add = LogEntry::new(EntryKind::Add);
        if !stored.packs.is_empty() {
            let (name, size) = repository.put_index(&stored.packs)?;
            add.index_add.push(name);
            self.added_bytes.fetch_add(size, Ordering::Relaxed);
        }
        let mut snapshot_name = None;
        if let Some(snapshot) = snapshot {
            let (name, size) = repository.put_snapshot(snapshot)?;
            add.snapshot_add.push(name);
            snapshot_name = Some(name);
            self.added_bytes.fetch_add(size, Ordering::Relaxed);
        }
        let (mut must_split, mut is_late) = (false, false);
        let committed = repository.commit(&mut || {
            must_split = self.prune_at_work()
                && !stored.packs.is_empty()
                && snapshot.is_some()
                && !repository.is_write_only();
            is_late = !must_split && is_there()?;
            if must_split || is_late {
                return Err(Error::Interrupted);
            }
            self.expect_keys(&stored.packs, epoch)?;
            self.revalidate(add.clone(), &stored.packs, snapshot)
        });
        if must_split {
            // The closure of the snapshot can be walked once its packs are in the index.
            self.commit_packs(stored, None, &|| Ok(false))?;
            return self.commit_packs(stored, snapshot, is_there);
        }
        if is_late {
            // The manifest that was put is garbage.
            return self.commit_packs(stored, None, &|| Ok(false));
        }
        self.unsettled.store(committed?.number, Ordering::SeqCst);
        // From here on the index answers for these chunks.
        self.is_fresh.store(false, Ordering::Relaxed);
        let mut claimed = self.claimed.lock().expect("no panics here");
        for entry in stored.packs.iter().flat_map(|pack| &pack.entries) {
            claimed.remove(&entry.id);
        }
        drop(claimed);
        stored.forget_packs();
        Ok(snapshot_name)
    }
}
