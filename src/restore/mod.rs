//! Getting streams back: decode ahead on several threads, write in order.

use std::collections::BTreeMap;
use std::io::Write;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::catalogue::Range;
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::entry::Content;
use crate::format::recipe::ChunkRun;
use crate::format::snapshot::{Snapshot, StreamEntry};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::{ChunkReader, Scratch};
use crate::repository::recipes::RecipeReader;

pub mod archive;
mod attributes;
pub mod content;
pub mod files;
pub mod options;
pub mod packed;
mod place;
mod plan;
mod put;
pub mod tree;
#[cfg(feature = "cli")]
pub mod zip;

/// Chunks are decoded in batches of about this many plain bytes.
const BATCH_BYTES: u64 = 512 << 10;

/// A batch of chunks, its place in the stream, and where its bytes go.
struct Batch {
    number: u64,
    runs: Vec<ChunkRun>,
}

/// Decoded chunks, each with how often it stands there.
type Decoded = Vec<(Vec<u8>, u32)>;

/// Writes a whole stream to `target`, in order. Nothing that fails verification is ever written.
pub fn copy_stream(
    repository: &Repository,
    stream: &StreamEntry,
    target: &mut dyn StreamTarget,
    progress: &Progress,
) -> Result<u64> {
    let recipe = RecipeReader::new(repository, stream.root)?;
    let plan = Plan { recipe, number: 0, left: u64::MAX };
    let written = copy_plan(repository, plan, target, progress)?;
    if written == stream.size {
        return Ok(written);
    }
    Err(Error::Conflict(format!(
        "the recipe of {} adds up to {written} bytes, its snapshot says {}",
        stream.name, stream.size
    )))
}

/// A stream of a snapshot; an error that names it where there is none.
pub fn stream_of(snapshot: &Snapshot, name: impl AsRef<[u8]>) -> Result<&StreamEntry> {
    let name = name.as_ref();
    let missing = || Error::Missing { what: format!("stream {}", String::from_utf8_lossy(name)) };
    snapshot.stream(name).ok_or_else(missing)
}

/// Writes a part of a stream to `target`, reading only the chunks that hold it.
pub fn copy_range(
    repository: &Repository,
    stream: &StreamEntry,
    range: Range,
    target: &mut dyn StreamTarget,
    progress: &Progress,
) -> Result<()> {
    if range.end > stream.size || range.start > range.end {
        let (Range { start, end }, name) = (range, &stream.name);
        let text = format!("{name} has no bytes {start} to {end}: its catalogue is wrong");
        return Err(Error::Conflict(text));
    }
    if range.is_empty() {
        return Ok(());
    }
    let mut recipe = RecipeReader::new(repository, stream.root)?;
    let start = recipe.skip_to(range.start)?;
    let plan = Plan { recipe, number: 0, left: range.end.saturating_sub(start) };
    let mut part = Part { target, skip: range.start - start, left: range.len() };
    copy_plan(repository, plan, &mut part, progress)?;
    match part.left {
        0 => Ok(()),
        _ => Err(Error::Conflict(format!("the recipe of {} ends early", stream.name))),
    }
}

fn copy_plan(
    repository: &Repository,
    plan: Plan<'_>,
    target: &mut dyn StreamTarget,
    progress: &Progress,
) -> Result<u64> {
    let threads = thread::available_parallelism().map_or(2, usize::from).max(2);
    let reader = ChunkReader::new(repository);
    thread::scope(|scope| {
        let ahead = threads * 6;
        let (work, queue) = bounded::<Batch>(ahead);
        let (done, results) = bounded::<(u64, Result<Decoded>)>(ahead);
        for _ in 0..threads {
            let (queue, done, reader) = (queue.clone(), done.clone(), &reader);
            scope.spawn(move || decode_all(reader, &queue, &done));
        }
        drop((queue, done));
        drive(plan, &reader, work, results, ahead as u64, target, progress)
    })
}

/// Lets the bytes of a range through.
struct Part<'a> {
    target: &'a mut dyn StreamTarget,
    skip: u64,
    left: u64,
}

impl StreamTarget for Part<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let skip = self.skip.min(bytes.len() as u64);
        self.skip -= skip;
        let rest = &bytes[skip as usize..];
        let take = self.left.min(rest.len() as u64);
        self.left -= take;
        if take == 0 { Ok(()) } else { self.target.write(&rest[..take as usize]) }
    }
}

/// Writes the bytes of a file to `target`, in order.
pub fn copy_content(
    repository: &Repository,
    size: u64,
    content: &Content,
    target: &mut dyn StreamTarget,
    progress: &Progress,
) -> Result<()> {
    match content {
        Content::Empty => Ok(()),
        Content::Chunk(id) => {
            let bytes =
                ChunkReader::new(repository).read(BlobKind::Data, id, &mut Scratch::new()?)?;
            if bytes.len() as u64 != size {
                let text = format!("chunk {} is not as long as its file", id.short());
                return Err(Error::Conflict(text));
            }
            Progress::add(&progress.done_bytes, size);
            target.write(&bytes)
        }
        Content::Recipe { root, chunks } => {
            let stream = StreamEntry { name: "file".into(), size, chunks: *chunks, root: *root };
            copy_stream(repository, &stream, target, progress).map(drop)
        }
    }
}

/// Where the bytes of a stream go.
pub trait StreamTarget {
    /// Takes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Takes so many zeros; files make a hole of them.
    fn zeros(&mut self, count: u64) -> Result<()> {
        let block = [0; 1 << 16];
        let mut left = count;
        while left > 0 {
            let part = left.min(block.len() as u64) as usize;
            self.write(&block[..part])?;
            left -= part as u64;
        }
        Ok(())
    }
}

/// Any writer, called by a name in errors.
pub struct WriterTarget<W> {
    /// The writer.
    pub writer: W,
    /// What it is.
    pub name: String,
}

impl<W: Write> StreamTarget for WriterTarget<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(|source| Error::Io {
            action: "write",
            path: self.name.clone(),
            source,
        })
    }
}

/// Hands out batches in order and puts results back into order; at most `ahead` are under way.
fn drive(
    mut plan: Plan<'_>,
    reader: &ChunkReader<'_>,
    work: Sender<Batch>,
    results: Receiver<(u64, Result<Decoded>)>,
    ahead: u64,
    target: &mut dyn StreamTarget,
    progress: &Progress,
) -> Result<u64> {
    let (mut sent, mut next, mut written) = (0, 0, 0);
    let mut waiting: BTreeMap<u64, Decoded> = BTreeMap::new();
    let mut at_end = false;
    loop {
        while !at_end && sent < next + ahead {
            match plan.batch()? {
                Some(batch) => {
                    // Never blocks: the queue has room for all that may be under way.
                    work.send(batch).map_err(|_| Error::Interrupted)?;
                    sent += 1;
                }
                None => at_end = true,
            }
        }
        if next == sent {
            return Ok(written);
        }
        while !waiting.contains_key(&next) {
            let (number, decoded) = results.recv().map_err(|_| Error::Interrupted)?;
            waiting.insert(number, decoded?);
        }
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let decoded = waiting.remove(&next).unwrap_or_default();
        next += 1;
        for (bytes, repeat) in decoded {
            let total = bytes.len() as u64 * u64::from(repeat);
            write_run(target, &bytes, repeat)?;
            reader.recycle(bytes);
            written += total;
            Progress::add(&progress.done_bytes, total);
        }
    }
}

fn write_run(target: &mut dyn StreamTarget, bytes: &[u8], repeat: u32) -> Result<()> {
    if repeat > 1 && bytes.iter().all(|&byte| byte == 0) {
        return target.zeros(bytes.len() as u64 * u64::from(repeat));
    }
    (0..repeat).try_for_each(|_| target.write(bytes))
}

struct Plan<'a> {
    recipe: RecipeReader<'a>,
    number: u64,
    /// Bytes that are wanted still.
    left: u64,
}

impl Plan<'_> {
    fn batch(&mut self) -> Result<Option<Batch>> {
        let (mut runs, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES && self.left > 0 {
            match self.recipe.next().transpose()? {
                Some(run) => {
                    bytes += u64::from(run.length);
                    self.left = self.left.saturating_sub(run.total_bytes());
                    runs.push(run);
                }
                None => break,
            }
        }
        if runs.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(Batch { number: self.number - 1, runs }))
    }
}

fn decode_all(
    reader: &ChunkReader<'_>,
    queue: &Receiver<Batch>,
    done: &Sender<(u64, Result<Decoded>)>,
) {
    let mut scratch = match Scratch::new() {
        Ok(scratch) => scratch,
        Err(error) => {
            let _ = done.send((0, Err(error)));
            return;
        }
    };
    for batch in queue {
        let decoded = batch
            .runs
            .iter()
            .map(|run| decode(reader, run, &mut scratch).map(|bytes| (bytes, run.repeat)))
            .collect();
        if done.send((batch.number, decoded)).is_err() {
            return;
        }
    }
}

fn decode(reader: &ChunkReader<'_>, run: &ChunkRun, scratch: &mut Scratch) -> Result<Vec<u8>> {
    let bytes = reader.read(BlobKind::Data, &run.id, scratch)?;
    if bytes.len() == run.length as usize {
        return Ok(bytes);
    }
    Err(Error::Conflict(format!("chunk {} is not as long as its recipe says", run.id.short())))
}
