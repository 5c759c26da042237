//! A bounded copy, on this machine, of what is read of a repository that is elsewhere.
//!
//! Kept are packs that were just put, as far as there is room: the next backup makes its deltas
//! against them; and blocks of packs that are read: trees at once, content when a pack is read
//! again and again, so that a restore costs a request for every few megabytes and not for every
//! chunk. The log, the snapshots and the configuration are **never** answered from here: what the
//! repository holds is what it says now. A base for a delta that is not here is not fetched.

mod pieces;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use lru::LruCache;
use tempfile::TempDir;

use self::pieces::{Pieces, Room};
use super::{ObjectInfo, Purpose, Store, StoreError};
use crate::clock::Clock;

/// Where packs stand; nothing else is kept.
const PACKS: &str = "data/";
/// How much is fetched at once of a pack of trees.
const TREE_BLOCK: u64 = 1 << 20;
/// How much is fetched at once of a pack of content …
const CONTENT_BLOCK: u64 = 4 << 20;
/// … once so many parts of it were read one by one.
const FEW: u32 = 4;
/// Packs of which it is remembered how often they were read.
const REMEMBERED: usize = 1 << 14;
/// Blocks that can be fetched at the same time.
const LANES: usize = 64;

/// Keeps pieces of what passes through.
pub struct CacheStore<S> {
    inner: S,
    pieces: Pieces,
    /// How often parts of a pack were read, and its size once it was asked for.
    packs: Mutex<LruCache<String, (u32, Option<u64>)>>,
    /// One thread fetches a block, others that want it wait.
    lanes: [Mutex<()>; LANES],
    /// A folder that goes with this value.
    _folder: Option<TempDir>,
}

impl<S: Store> CacheStore<S> {
    /// Keeps up to `limit` bytes in `folder`.
    pub fn open(inner: S, folder: &Path, limit: u64, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let pieces = Pieces::open(folder, limit, clock)?;
        let remembered = REMEMBERED.try_into().expect("not zero");
        let packs = Mutex::new(LruCache::new(remembered));
        Ok(Self {
            inner,
            pieces,
            packs,
            lanes: std::array::from_fn(|_| Mutex::default()),
            _folder: None,
        })
    }

    /// Removes the folder with this value.
    pub fn that_owns(self, folder: TempDir) -> Self {
        Self { _folder: Some(folder), ..self }
    }

    /// Counts a read of a part.
    fn count(&self, path: &str) -> u32 {
        let mut packs = self.packs.lock().expect("no panics here");
        let (count, _) = packs.get_or_insert_mut(path.to_owned(), || (0, None));
        *count += 1;
        *count
    }

    fn size(&self, path: &str) -> Result<u64, StoreError> {
        let known = |packs: &mut LruCache<String, (u32, Option<u64>)>| packs.get(path)?.1;
        if let Some(size) = known(&mut self.packs.lock().expect("no panics here")) {
            return Ok(size);
        }
        let size = self.inner.head(path)?;
        let mut packs = self.packs.lock().expect("no panics here");
        packs.get_or_insert_mut(path.to_owned(), || (0, None)).1 = Some(size);
        Ok(size)
    }

    /// Collects a range from blocks. With `fetch`, those that are not here come from the store;
    /// without, `false` tells that one is not.
    fn collect(
        &self,
        read: &Range<'_>,
        fetch: bool,
        out: &mut Vec<u8>,
    ) -> Result<bool, StoreError> {
        let end = read.offset + read.length as u64;
        let (mut collected, mut part) = (Vec::with_capacity(read.length), Vec::new());
        let mut number = read.offset / read.block;
        while collected.len() < read.length {
            let start = number * read.block;
            let from = read.offset.max(start) - start;
            let length = (end.min(start + read.block) - start - from) as usize;
            let name = piece(read.path, Some((read.block, number)));
            if !self.pieces.read(&name, from, length, &mut part) {
                if !fetch {
                    return Ok(false);
                }
                let block = self.block(read, number, &name)?;
                let range = from as usize..from as usize + length;
                let Some(found) = block.get(range) else { return Err(short(read.path)) };
                collected.extend_from_slice(found);
            } else {
                collected.extend_from_slice(&part);
            }
            number += 1;
        }
        *out = collected;
        Ok(true)
    }

    /// Fetches a block and keeps it.
    fn block(&self, read: &Range<'_>, number: u64, name: &str) -> Result<Vec<u8>, StoreError> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let lane = &self.lanes[hasher.finish() as usize % LANES];
        let _alone = lane.lock().expect("no panics here");
        let size = self.size(read.path)?;
        let start = number * read.block;
        let length = size.saturating_sub(start).min(read.block) as usize;
        let mut bytes = Vec::new();
        // Somebody else may have fetched it meanwhile.
        if self.pieces.read(name, 0, length, &mut bytes) {
            return Ok(bytes);
        }
        self.inner.get_range_into(read.path, start, length, &mut bytes)?;
        self.pieces.keep(name, &bytes, Room::Make);
        Ok(bytes)
    }
}

/// A part of a pack that is wanted.
struct Range<'a> {
    path: &'a str,
    offset: u64,
    length: usize,
    block: u64,
}

/// Name of a whole object, or of a block of it, as a file.
fn piece(path: &str, block: Option<(u64, u64)>) -> String {
    let name = path.replace('/', "+");
    match block {
        None => name,
        Some((size, number)) => format!("{name}@{}-{number}", size >> 20),
    }
}

fn short(path: &str) -> StoreError {
    let source = io::ErrorKind::UnexpectedEof.into();
    StoreError::Failed { action: "read", path: path.to_owned(), source }
}

impl<S: Store> Store for CacheStore<S> {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.put_new(path, bytes)?;
        if path.starts_with(PACKS) {
            self.pieces.keep(&piece(path, None), bytes, Room::Spare);
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.inner.get(path)
    }

    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.inner.get_range(path, offset, length)
    }

    fn get_range_into(
        &self,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        self.inner.get_range_into(path, offset, length, out)
    }

    fn get_range_for(
        &self,
        purpose: Purpose,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        if !path.starts_with(PACKS) || length == 0 || offset.checked_add(length as u64).is_none() {
            return self.inner.get_range_into(path, offset, length, out);
        }
        if self.pieces.read(&piece(path, None), offset, length, out) {
            return Ok(());
        }
        let block = if purpose == Purpose::Tree { TREE_BLOCK } else { CONTENT_BLOCK };
        let read = Range { path, offset, length, block };
        match purpose {
            Purpose::Tree => self.collect(&read, true, out).map(drop),
            Purpose::Content => {
                let fetch = self.count(path) > FEW;
                if self.collect(&read, fetch, out)? {
                    return Ok(());
                }
                self.inner.get_range_into(path, offset, length, out)
            }
            Purpose::Base => {
                if self.collect(&read, false, out)? {
                    return Ok(());
                }
                let source = io::Error::other("not in the local cache");
                Err(StoreError::Failed { action: "read", path: path.to_owned(), source })
            }
        }
    }

    fn get_range_fresh(
        &self,
        path: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        self.pieces.remove_all(&piece(path, None));
        self.inner.get_range_fresh(path, offset, length, out)
    }

    fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.inner.head(path)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.inner.list(prefix)
    }

    fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.inner.list_after(prefix, after)
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        if path.starts_with(PACKS) {
            self.pieces.remove_all(&piece(path, None));
        }
        self.inner.delete(path)
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        if path.starts_with(PACKS) {
            self.pieces.remove_all(&piece(path, None));
        }
        self.inner.replace(path, bytes)
    }

    fn tidy(&self) -> Result<(), StoreError> {
        self.inner.tidy()
    }

    fn parallel_puts(&self) -> usize {
        self.inner.parallel_puts()
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::super::record::{Call, RecordingStore};
    use super::*;
    use crate::clock::SystemClock;

    type Cached = CacheStore<RecordingStore<MemoryStore>>;

    fn cached(folder: &Path, inner: MemoryStore) -> Cached {
        let inner = RecordingStore::new(inner);
        CacheStore::open(inner, folder, 64 << 20, Arc::new(SystemClock)).unwrap()
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|number| (number / 3 % 251) as u8).collect()
    }

    fn read(store: &Cached, purpose: Purpose, offset: usize, length: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let result = store.get_range_for(purpose, "data/aa/x", offset as u64, length, &mut out);
        result.ok().map(|()| out)
    }

    /// A store with one pack of 10 MB that this machine did not put.
    fn remote() -> MemoryStore {
        let inner = MemoryStore::new();
        inner.put_new("data/aa/x", &content(10_000_000)).unwrap();
        inner
    }

    #[test]
    fn keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let count = std::sync::atomic::AtomicU32::new(0);
        super::super::suite::conformance(&|| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Box::new(cached(&folder.path().join(number.to_string()), MemoryStore::new()))
        });
    }

    #[test]
    fn what_proved_wrong_is_fetched_again_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = cached(folder.path(), remote());
        let wrong = vec![0; TREE_BLOCK as usize];
        store.pieces.keep(&piece("data/aa/x", Some((TREE_BLOCK, 0))), &wrong, Room::Make);
        assert_eq!(read(&store, Purpose::Tree, 10, 20).unwrap(), &wrong[10..30]);
        let mut out = Vec::new();
        store.get_range_fresh("data/aa/x", 10, 20, &mut out).unwrap();
        assert_eq!(out, &content(30)[10..]);
        assert_eq!(read(&store, Purpose::Tree, 10, 20).unwrap(), &content(30)[10..]);
    }

    #[test]
    fn what_was_put_is_not_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let store = cached(folder.path(), MemoryStore::new());
        store.put_new("data/aa/x", &content(100_000)).unwrap();
        store.inner.take();
        for purpose in [Purpose::Base, Purpose::Tree, Purpose::Content] {
            assert!(
                read(&store, purpose, 40_000, 30_000).unwrap() == content(100_000)[40_000..70_000]
            );
        }
        assert!(store.inner.take().is_empty());
        store.delete("data/aa/x").unwrap();
        assert!(read(&store, Purpose::Base, 0, 1).is_none());
    }

    #[test]
    fn a_base_is_never_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let store = cached(folder.path(), remote());
        assert!(read(&store, Purpose::Base, 0, 10).is_none());
        assert!(store.inner.take().is_empty());
    }

    #[test]
    fn packs_of_trees_are_fetched_in_blocks_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = cached(folder.path(), remote());
        let whole = content(10_000_000);
        for offset in [0, 500_000, 1_048_000, 9_990_000] {
            assert!(
                read(&store, Purpose::Tree, offset, 9_000).unwrap()
                    == whole[offset..offset + 9_000]
            );
        }
        let fetched = |calls: Vec<Call>| {
            calls.iter().filter(|call| matches!(call, Call::GetRange(..))).count()
        };
        assert_eq!(fetched(store.inner.take()), 3);
        let later = cached(folder.path(), remote());
        assert!(read(&later, Purpose::Tree, 1_000_000, 100_000).is_some());
        assert!(later.inner.take().is_empty());
    }

    #[test]
    fn a_pack_that_is_read_again_and_again_is_fetched_in_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let store = cached(folder.path(), remote());
        let whole = content(10_000_000);
        for number in (0..1000).rev() {
            let offset = number * 9_999 % 9_990_000;
            let found = read(&store, Purpose::Content, offset, 9_000).unwrap();
            assert!(found == whole[offset..offset + 9_000]);
        }
        let calls = store.inner.take();
        assert!(calls.len() <= FEW as usize + 4, "{} calls", calls.len());
    }

    #[test]
    fn a_damaged_piece_is_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = cached(folder.path(), remote());
        let whole = content(10_000_000);
        read(&store, Purpose::Tree, 0, 100).unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap().flatten() {
            let mut bytes = std::fs::read(entry.path()).unwrap();
            bytes.iter_mut().skip(16).for_each(|byte| *byte ^= 0x55);
            std::fs::write(entry.path(), bytes).unwrap();
        }
        assert!(read(&store, Purpose::Tree, 50, 100).unwrap() == whole[50..150]);
        assert!(read(&store, Purpose::Tree, 50, 100).unwrap() == whole[50..150]);
    }

    #[test]
    fn a_range_past_the_end_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let store = cached(folder.path(), remote());
        for purpose in [Purpose::Tree, Purpose::Content] {
            for _ in 0..FEW + 2 {
                assert!(read(&store, purpose, 9_999_990, 11).is_none());
                assert!(read(&store, purpose, 90_000_000, 11).is_none());
            }
        }
    }
}
