//! Planning one stream: cut it, hash the chunks, decide which are new and what they resemble, and
//! build the recipe. Strictly in order, on one thread.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use crossbeam_channel::Sender;

use super::gather::{Gatherer, Group};
use super::input::{ReadAhead, Segment};
use super::parent::{Parent, ParentChunk};
use super::pipeline::Shared;
use super::{StreamSource, expect_bytes};
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::directory::Codec;
use crate::format::name::Name;
use crate::format::pack::{EncodedBlob, whole_entry};
use crate::format::recipe::{ChunkRun, Edges, RecipeBuilder};
use crate::format::snapshot::{StreamEntry, Summary};
use crate::id::ChunkId;
use crate::progress::{Part, Progress};
use crate::repository::recipes::RecipeReader;
use crate::source::sniff;

/// Chunks are handed to the encoders in batches of about this many bytes.
const BATCH_BYTES: usize = 512 << 10;
/// Or when they span this many segments. A planner holds at most one buffer more than that, which
/// must be fewer than there are: the reader would wait for a free one for ever.
const BATCH_SEGMENTS: usize = 2;

/// What encoders do.
pub enum Work {
    /// Chunks that are stored each on its own.
    Chunks(Vec<WorkItem>),
    /// Small ones that are stored together.
    Group(Group),
}

/// A new chunk and what it may be a changed copy of.
pub struct WorkItem {
    /// Its id.
    pub id: ChunkId,
    /// Its bytes.
    pub bytes: Bytes,
    /// Chunks of the parent, in order.
    pub candidates: Vec<ParentChunk>,
}

/// Where a planner puts new chunks.
pub enum Output<'a, 'b> {
    /// In batches of their own on the way to the encoders.
    Queue(Sender<Work>),
    /// Together with others of files.
    Group(&'a mut Gatherer<'b>),
}

/// A stream whose chunks are all on their way.
pub struct Planned {
    /// Its entry in the snapshot.
    pub entry: StreamEntry,
    /// What was read and found.
    pub summary: Summary,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Plans a whole stream.
pub fn plan(
    shared: &Shared<'_>,
    source: StreamSource,
    parent: Option<StreamEntry>,
    work: Sender<Work>,
    buffers: usize,
) -> Result<Planned> {
    expect_bytes(shared.progress, source.input.size_hint());
    let output = Output::Queue(work);
    let planned = plan_one(shared, source, parent, output, buffers);
    // Where one stream fails, the others need not go on.
    planned.inspect_err(|_| shared.abandoned.store(true, Ordering::Relaxed))
}

/// The same for one of many, which may fail alone.
pub fn plan_one(
    shared: &Shared<'_>,
    source: StreamSource,
    parent: Option<StreamEntry>,
    output: Output<'_, '_>,
    buffers: usize,
) -> Result<Planned> {
    let StreamSource { name, input, min_bytes } = source;
    let stopper = input.stopper();
    let room = shared.chunker.profile().max as usize;
    let segments = ReadAhead::start(input, room, buffers);
    let mut planner = Planner::new(shared, parent, output)?;
    let part = shared.progress.part(name.to_string());
    let read = planner.consume(&segments, &name, &part);
    if let Err(error) = read {
        if let Some(stopper) = stopper {
            stopper.stop();
        }
        // What was cut is worth keeping: the next run finds it in the repository.
        planner.send_batch()?;
        return Err(error);
    }
    planner.finish(name, min_bytes)
}

/// The same for one that is in memory, and whose chunks are to be stored with their neighbours.
pub fn plan_bytes(
    shared: &Shared<'_>,
    bytes: Bytes,
    parent: Option<StreamEntry>,
    gatherer: &mut Gatherer<'_>,
) -> Result<Planned> {
    let mut planner = Planner::new(shared, parent, Output::Group(gatherer))?;
    Progress::add(&shared.progress.done_bytes, bytes.len() as u64);
    planner.rest = bytes;
    planner.cut(true)?;
    planner.finish(Name::new(b""), 0)
}

struct Planner<'a, 'b, 'c> {
    shared: &'a Shared<'a>,
    parent: Option<Parent<'a>>,
    output: Output<'b, 'c>,
    batch: Vec<WorkItem>,
    batch_bytes: usize,
    /// Segments read since the batch began. Its chunks keep their buffers from going round.
    batch_segments: usize,
    recipe: RecipeBuilder,
    /// Bytes that are not cut yet.
    rest: Bytes,
    /// Where `rest` starts in the stream.
    position: u64,
    /// Whether the last chunk stood where the parent has it: then the next is guessed.
    in_step: bool,
    zeros: &'a ZeroChunk,
    /// How the stream is compressed already, and what to do about it.
    compression: Option<(&'static str, &'static str)>,
    summary: Summary,
}

/// The chunk that a long run of zeros is cut into; the same one all along.
pub struct ZeroChunk {
    bytes: Bytes,
    id: ChunkId,
    length: usize,
}

impl ZeroChunk {
    fn new(shared: &Shared<'_>) -> Self {
        let bytes = Bytes::from(vec![0; shared.chunker.profile().max as usize]);
        let length = shared.chunker.cut(&bytes, false).expect("a whole maximum chunk is given");
        let id = shared.repository.keys().chunk_id(BlobKind::Data, &bytes[..length]);
        Self { bytes, id, length }
    }
}

impl<'a, 'b, 'c> Planner<'a, 'b, 'c> {
    fn new(
        shared: &'a Shared<'a>,
        parent: Option<StreamEntry>,
        output: Output<'b, 'c>,
    ) -> Result<Self> {
        let parent = match parent {
            Some(stream) => Some(Parent::new(RecipeReader::new(shared.repository, stream.root)?)),
            None => None,
        };
        Ok(Self {
            shared,
            parent,
            output,
            batch: Vec::new(),
            batch_bytes: 0,
            batch_segments: 0,
            recipe: RecipeBuilder::default(),
            rest: Bytes::new(),
            position: 0,
            in_step: true,
            zeros: shared.zeros.get_or_init(|| ZeroChunk::new(shared)),
            compression: None,
            summary: Summary::default(),
        })
    }

    fn consume(&mut self, segments: &ReadAhead, name: &Name, part: &Part<'_>) -> Result<()> {
        loop {
            if self.shared.should_stop_reading() {
                return Err(Error::Interrupted);
            }
            match segments.next() {
                // A source that pauses is no reason to wait with what it gave.
                None => self.send_batch()?,
                Some(Segment::Data { mut buffer, start, end }) => {
                    let from = start - self.rest.len();
                    buffer[from..start].copy_from_slice(&self.rest);
                    self.rest = segments.share(buffer, from, end);
                    part.add((end - start) as u64);
                    Progress::add(&self.shared.progress.done_bytes, (end - start) as u64);
                    self.cut(false)?;
                    self.batch_segments += 1;
                    if self.batch_segments >= BATCH_SEGMENTS {
                        self.send_batch()?;
                    }
                }
                Some(Segment::Zeros(count)) => {
                    part.add(count);
                    Progress::add(&self.shared.progress.done_bytes, count);
                    self.zeros(count)?;
                }
                Some(Segment::End(Ok(()))) => return self.cut(true),
                Some(Segment::End(Err(detail))) => {
                    return Err(Error::Source { source_name: name.to_string(), detail });
                }
            }
        }
    }

    fn finish(mut self, name: Name, min_bytes: u64) -> Result<Planned> {
        if self.position < min_bytes {
            let detail = format!(
                "the stream has {} bytes, fewer than the {min_bytes} of --min-size or min_bytes",
                self.position
            );
            return Err(Error::Source { source_name: name.to_string(), detail });
        }
        self.send_batch()?;
        let recipe = std::mem::take(&mut self.recipe);
        let root = recipe.finish(&mut |node| store_node(self.shared, node))?;
        self.summary.read_bytes = self.position;
        self.summary.chunks = root.chunks;
        let mut warnings = Vec::new();
        if let Some(error) = self.parent.as_mut().and_then(Parent::take_damage) {
            warnings.push(format!(
                "{name}: the parent is damaged and cannot be used to its end: {error}"
            ));
        }
        if let Some((format, advice)) = self.compression {
            warnings.push(format!(
                "{name} is compressed ({format}) and will be stored almost whole each time; {advice}"
            ));
        }
        Ok(Planned { entry: StreamEntry::new(name, root), summary: self.summary, warnings })
    }

    /// Cuts what can be cut of `rest`.
    fn cut(&mut self, end: bool) -> Result<()> {
        let max = self.shared.chunker.profile().max as usize;
        while !self.rest.is_empty() && (end || self.rest.len() >= max) {
            if self.rest.len() >= max && is_zero(&self.rest[..max]) {
                self.rest = self.rest.slice(self.zeros.length..);
                self.zero_chunks(1)?;
                continue;
            }
            if self.in_step && self.guess(end)? {
                continue;
            }
            let Some(length) = self.shared.chunker.cut(&self.rest, end) else { break };
            let chunk = self.rest.split_to(length);
            let id = self.shared.repository.keys().chunk_id(BlobKind::Data, &chunk);
            self.chunk(id, chunk)?;
        }
        Ok(())
    }

    /// Tests whether the next bytes are the chunk that the parent has here. The cut depends on the
    /// bytes of the chunk alone, so if they are equal the cut is too; hashing is all it takes.
    fn guess(&mut self, end: bool) -> Result<bool> {
        let Some(parent) = &mut self.parent else { return Ok(false) };
        let Some(expected) = parent.expected() else { return Ok(false) };
        let length = expected.length as usize;
        // The parent's last chunk may have ended only because its stream did.
        let is_whole = length >= self.shared.chunker.profile().min as usize && !parent.is_last();
        if !is_whole || self.rest.len() < length || (end && self.rest.len() == length) {
            return Ok(false);
        }
        let id = self.shared.repository.keys().chunk_id(BlobKind::Data, &self.rest[..length]);
        if id != expected.id {
            self.in_step = false;
            return Ok(false);
        }
        let chunk = self.rest.split_to(length);
        self.chunk(id, chunk)?;
        Ok(true)
    }

    /// Takes the next chunk of the stream.
    fn chunk(&mut self, id: ChunkId, bytes: Bytes) -> Result<()> {
        let length = bytes.len() as u32;
        let (start, end) = (self.position, self.position + u64::from(length));
        let edges = Edges::of(&bytes);
        if start == 0 {
            self.compression = sniff::compression(&bytes);
        }
        self.position = end;
        let passed = match &mut self.parent {
            Some(parent) => parent.pass(&id, end),
            None => false,
        };
        self.in_step = passed;
        if self.shared.writer.claim(&id)? {
            let candidates = match &mut self.parent {
                Some(parent) if !passed => parent.candidates(edges, start, length),
                _ => Vec::new(),
            };
            self.summary.new_chunks += 1;
            if let Output::Group(gatherer) = &mut self.output {
                gatherer.add(id, &bytes, candidates)?;
            } else {
                self.batch_bytes += bytes.len();
                self.batch.push(WorkItem { id, bytes, candidates });
                if self.batch_bytes >= BATCH_BYTES {
                    self.send_batch()?;
                }
            }
        } else {
            self.dedup(u64::from(length));
        }
        let run = ChunkRun { id, length, repeat: 1, edges };
        self.recipe.push(run, &mut |node| store_node(self.shared, node))
    }

    /// Takes `count` zeros that were not read.
    fn zeros(&mut self, mut count: u64) -> Result<()> {
        let max = self.zeros.bytes.len();
        if !self.rest.is_empty() {
            // Complete the chunk that began before the zeros.
            let take = count.min(max as u64) as usize;
            let mut joined = self.rest.to_vec();
            joined.resize(joined.len() + take, 0);
            self.rest = joined.into();
            count -= take as u64;
            self.cut(false)?;
        }
        if count == 0 {
            return Ok(());
        }
        // What is left uncut lies within the zeros.
        let available = count + self.rest.len() as u64;
        let runs = match available.checked_sub(max as u64) {
            Some(more) => more / self.zeros.length as u64 + 1,
            None => 0,
        };
        let left = (available - runs * self.zeros.length as u64) as usize;
        self.zero_chunks(runs)?;
        self.rest = self.zeros.bytes.slice(..left);
        Ok(())
    }

    /// Takes `count` chunks of nothing but zeros.
    fn zero_chunks(&mut self, mut count: u64) -> Result<()> {
        let (id, length) = (self.zeros.id, self.zeros.length);
        let edges = Edges::of(&self.zeros.bytes[..length]);
        if count > 0 {
            let bytes = self.zeros.bytes.slice(..length);
            self.chunk(id, bytes)?;
            count -= 1;
        }
        while count > 0 {
            let repeat = count.min(u64::from(u32::MAX)) as u32;
            let run = ChunkRun { id, length: length as u32, repeat, edges };
            self.position += run.total_bytes();
            self.dedup(run.total_bytes());
            self.recipe.push(run, &mut |node| store_node(self.shared, node))?;
            count -= u64::from(repeat);
        }
        Ok(())
    }

    fn dedup(&mut self, bytes: u64) {
        self.summary.dedup_bytes += bytes;
        self.shared.progress.dedup_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn send_batch(&mut self) -> Result<()> {
        (self.batch_bytes, self.batch_segments) = (0, 0);
        let batch = std::mem::take(&mut self.batch);
        match &self.output {
            Output::Queue(work) if !batch.is_empty() => {
                // Nobody listens only where an encoder failed, and that one tells why.
                work.send(Work::Chunks(batch)).map_err(|_| Error::Interrupted)
            }
            _ => Ok(()),
        }
    }
}

/// Stores a node of the recipe unless it is there.
fn store_node(shared: &Shared<'_>, node: Vec<u8>) -> Result<ChunkId> {
    let id = shared.repository.keys().chunk_id(BlobKind::Tree, &node);
    if shared.writer.claim(&id)? {
        let entry = whole_entry(id.key(), Codec::Raw, node.len());
        shared.writer.add(BlobKind::Tree, EncodedBlob::new(entry, node))?;
    }
    Ok(id)
}

/// Whether all bytes are zero; a first look makes it cheap where they are not.
fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, tail) = bytes.as_chunks::<64>();
    let is_block_zero = |block: &[u8; 64]| block.iter().fold(0, |all, byte| all | byte) == 0;
    blocks.first().is_none_or(is_block_zero)
        && blocks.iter().all(is_block_zero)
        && tail.iter().all(|&byte| byte == 0)
}
