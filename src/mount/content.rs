//! Reading ranges of files: only the chunks that a range needs, through a cache of decoded ones.
//!
//! Memory is bounded by the size of the cache in bytes, plus the chunks being decoded. Where a file
//! is read from start to end, the chunks ahead are decoded by other threads meanwhile.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};
use lru::LruCache;

use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::entry::Content;
use crate::format::recipe::{ChunkRun, Edges, MAX_LEVEL, Node};
use crate::id::ChunkId;
use crate::repository::Repository;
use crate::repository::reader::{ChunkReader, Scratch};

/// Recipe nodes kept decoded, up to 4,096 children each.
const NODES: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");
/// Chunks that wait to be decoded ahead.
const AHEAD: usize = 32;
/// Runs of chunks after the one being read that are asked for.
const LOOK_AHEAD: usize = 12;

/// A run of chunks and where it starts in its file.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    run: ChunkRun,
    start: u64,
}

/// Reads the contents of files of one repository; shared by threads.
pub struct Contents<'a> {
    reader: ChunkReader<'a>,
    cache: Mutex<Cache>,
    /// Something was put into the cache, or failed.
    changed: Condvar,
    nodes: Mutex<LruCache<ChunkId, Arc<Node>>>,
    wanted: Sender<ChunkRun>,
    queue: Receiver<ChunkRun>,
}

struct Cache {
    chunks: LruCache<ChunkId, Arc<Vec<u8>>>,
    bytes: usize,
    limit: usize,
    /// Being decoded right now.
    pending: HashSet<ChunkId>,
}

impl<'a> Contents<'a> {
    /// A reader that keeps at most `limit` bytes of decoded chunks.
    pub fn new(repository: &'a Repository, limit: usize) -> Self {
        let (wanted, queue) = bounded(AHEAD);
        let pending = HashSet::new();
        Self {
            reader: ChunkReader::new(repository),
            cache: Mutex::new(Cache { chunks: LruCache::unbounded(), bytes: 0, limit, pending }),
            changed: Condvar::new(),
            nodes: Mutex::new(LruCache::new(NODES)),
            wanted,
            queue,
        }
    }

    /// Decodes chunks ahead for ever; run by as many threads as shall do so.
    pub fn decode_ahead(&self) {
        for run in &self.queue {
            // Whoever needs it will meet the error.
            let _ = self.chunk(&run);
        }
    }

    /// The bytes of a content from `offset`, at most `length`, fewer at its end. With `ahead`, what
    /// follows is decoded in the background.
    pub fn read(
        &self,
        size: u64,
        content: &Content,
        offset: u64,
        length: usize,
        ahead: bool,
    ) -> Result<Vec<u8>> {
        let end = size.min(offset.saturating_add(length as u64));
        let mut out = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let Some(placed) = self.locate(size, content, at)? else { break };
            if ahead {
                self.want_after(size, content, &placed);
            }
            let bytes = self.chunk(&placed.run)?;
            let run_end = placed.start + placed.run.total_bytes();
            while at < end.min(run_end) {
                let within = ((at - placed.start) % u64::from(placed.run.length)) as usize;
                let take = (bytes.len() - within).min((end - at) as usize);
                out.extend_from_slice(&bytes[within..within + take]);
                at += take as u64;
            }
        }
        if at < end {
            return Err(Error::Conflict("the chunks of the file end before it does".into()));
        }
        Ok(out)
    }

    fn want_after(&self, size: u64, content: &Content, placed: &Placed) {
        let mut next = placed.start + placed.run.total_bytes();
        for _ in 0..LOOK_AHEAD {
            let Ok(Some(placed)) = self.locate(size, content, next) else { return };
            next = placed.start + placed.run.total_bytes();
            let is_known = {
                let cache = self.cache.lock().expect("no panics here");
                cache.chunks.contains(&placed.run.id) || cache.pending.contains(&placed.run.id)
            };
            if !is_known && self.wanted.try_send(placed.run).is_err() {
                return;
            }
        }
    }

    /// The run of chunks that covers an offset, reading only the nodes on the way to it.
    fn locate(&self, size: u64, content: &Content, offset: u64) -> Result<Option<Placed>> {
        if offset >= size {
            return Ok(None);
        }
        let mut id = match content {
            Content::Empty => return Ok(None),
            Content::Chunk(id) => {
                let length = u32::try_from(size)
                    .map_err(|_| Error::Conflict("is too long for one chunk".into()))?;
                let run = ChunkRun { id: *id, length, repeat: 1, edges: Edges::default() };
                return Ok(Some(Placed { run, start: 0 }));
            }
            Content::Recipe { root, .. } => *root,
        };
        let mut start = 0;
        for _ in 0..=MAX_LEVEL {
            match &*self.node(id)? {
                Node::Leaf(runs) => {
                    for run in runs {
                        if offset < start + run.total_bytes() {
                            return Ok(Some(Placed { run: *run, start }));
                        }
                        start += run.total_bytes();
                    }
                    return Ok(None);
                }
                Node::Inner { children, .. } => {
                    let child = children.iter().find(|child| {
                        let is_here = offset < start.saturating_add(child.total_bytes);
                        if !is_here {
                            start = start.saturating_add(child.total_bytes);
                        }
                        is_here
                    });
                    let Some(child) = child else { return Ok(None) };
                    id = child.id;
                }
            }
        }
        Err(Error::damaged(format!("recipe node {}", id.short()), FormatError::Invalid("depth")))
    }

    fn node(&self, id: ChunkId) -> Result<Arc<Node>> {
        if let Some(node) = self.nodes.lock().expect("no panics here").get(&id) {
            return Ok(node.clone());
        }
        let bytes = self.reader.read_tree(&id)?;
        let node = Node::decode(&bytes)
            .map_err(|error| Error::damaged(format!("recipe node {}", id.short()), error))?;
        let node = Arc::new(node);
        self.nodes.lock().expect("no panics here").put(id, node.clone());
        Ok(node)
    }

    /// A decoded chunk. Of several threads that need it one decodes it.
    fn chunk(&self, run: &ChunkRun) -> Result<Arc<Vec<u8>>> {
        let mut cache = self.cache.lock().expect("no panics here");
        loop {
            if let Some(bytes) = cache.chunks.get(&run.id) {
                return Ok(bytes.clone());
            }
            if cache.pending.insert(run.id) {
                break;
            }
            cache = self.changed.wait(cache).expect("no panics here");
        }
        drop(cache);
        let decoded =
            Scratch::new().and_then(|mut it| self.reader.read(BlobKind::Data, &run.id, &mut it));
        let mut cache = self.cache.lock().expect("no panics here");
        cache.pending.remove(&run.id);
        self.changed.notify_all();
        let bytes = Arc::new(decoded?);
        if bytes.len() != run.length as usize {
            let text = format!("chunk {} is not as long as its recipe says", run.id.short());
            return Err(Error::Conflict(text));
        }
        cache.bytes += bytes.len();
        if let Some((_, old)) = cache.chunks.push(run.id, bytes.clone()) {
            cache.bytes -= old.len();
        }
        while cache.bytes > cache.limit {
            let Some((_, old)) = cache.chunks.pop_lru() else { break };
            cache.bytes -= old.len();
        }
        Ok(bytes)
    }
}
