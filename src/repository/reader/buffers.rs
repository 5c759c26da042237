//! Memory of a reader: decoded bases and groups, and used buffers.

use std::sync::Arc;

use super::{CACHE_BYTES, ChunkReader, Kept, SPARE_QUANTUM, SPARES};

impl ChunkReader<'_> {
    /// Takes a buffer back that [`ChunkReader::read`] returned.
    pub fn recycle(&self, buffer: Vec<u8>) {
        let mut spares = self.spares.lock().expect("no panics with the spares");
        if spares.len() < SPARES {
            spares.push(buffer);
        }
    }

    /// The smallest used buffer that has room for `length` bytes, or a new one. Sizes are rounded so
    /// that buffers fit each other's chunks.
    pub fn spare(&self, length: usize) -> Vec<u8> {
        let mut spares = self.spares.lock().expect("no panics with the spares");
        let fitting = spares.iter().enumerate().filter(|(_, spare)| spare.capacity() >= length);
        match fitting.min_by_key(|(_, spare)| spare.capacity()) {
            Some((at, _)) => spares.swap_remove(at),
            None => {
                // One that is too small makes room for the new one.
                drop(spares.pop());
                drop(spares);
                Vec::with_capacity(length.next_multiple_of(SPARE_QUANTUM))
            }
        }
    }

    pub(super) fn cached(&self, key: Kept) -> Option<Arc<Vec<u8>>> {
        self.cache.lock().expect("no panics with the cache").chunks.get(&key).cloned()
    }

    pub(super) fn keep(&self, key: Kept, bytes: Arc<Vec<u8>>) {
        let mut dropped = Vec::new();
        let mut cache = self.cache.lock().expect("no panics with the cache");
        cache.bytes += bytes.len();
        if let Some((_, old)) = cache.chunks.push(key, bytes) {
            cache.bytes -= old.len();
            dropped.push(old);
        }
        while cache.bytes > CACHE_BYTES {
            let Some((_, old)) = cache.chunks.pop_lru() else { break };
            cache.bytes -= old.len();
            dropped.push(old);
        }
        drop(cache);
        dropped
            .into_iter()
            .filter_map(|old| Arc::try_unwrap(old).ok())
            .for_each(|b| self.recycle(b));
    }
}
