//! Reading files that are new or changed, and cutting them into chunks. Encoding happens elsewhere.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;

use super::StreamSource;
use super::parent::ParentChunk;
use super::stream::{self, GROUP_BYTES, Origin, WorkItem};
use super::walk::Walker;
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Kind};
use crate::format::name::Name;
use crate::format::snapshot::StreamEntry;
use crate::progress::Progress;
use crate::source::StreamInput;
use crate::source::file::FileInput;
use crate::source::walk;

/// The chunks of files up to this size are compressed together like small files are. Bigger ones are
/// more often read in parts, and changed in parts.
const MEDIUM_BYTES: u64 = 4 << 20;
/// Buffers for reading one big file ahead.
const BUFFERS: usize = 4;

/// Chunks of small files on their way to the encoders.
#[derive(Default)]
pub struct Batch {
    items: Vec<WorkItem>,
    bytes: usize,
}

impl Walker<'_> {
    /// Reads a file. `old` is what the parent snapshot has in its place.
    pub(super) fn read(
        &self,
        path: &Path,
        old: Option<&Entry>,
    ) -> Result<(u64, Content), ReadError> {
        let mut file = walk::open(path)?;
        let before = walk::fingerprint(&file)?;
        let max = self.shared.chunker.profile().max as u64;
        let old = match old.map(|old| &old.kind) {
            Some(Kind::File { content, size }) => Some((*size, *content)),
            _ => None,
        };
        let read = if before.1 <= max {
            let mut bytes = Vec::with_capacity(before.1 as usize + 1);
            (&mut file).take(max + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > max {
                // It grew; the rest is read as a stream is.
                std::io::Seek::rewind(&mut file)?;
                self.read_big(path, FileInput::new(file.try_clone()?), old)?
            } else {
                self.read_small(bytes, old)?
            }
        } else {
            self.read_big(path, FileInput::new(file.try_clone()?), old)?
        };
        let after = walk::fingerprint(&file)?;
        if before != after {
            // Kept as it was read; what was read may never have been in the file at one time.
            self.problem(path, "changed while it was read");
        }
        Ok(read)
    }

    /// A file of at most one maximal chunk, which is in memory.
    fn read_small(
        &self,
        bytes: Vec<u8>,
        old: Option<(u64, Content)>,
    ) -> Result<(u64, Content), ReadError> {
        let size = bytes.len() as u64;
        Progress::add(&self.shared.progress.done_bytes, size);
        self.count(|summary| summary.read_bytes += size);
        if bytes.is_empty() {
            return Ok((0, Content::Empty));
        }
        let is_one = self.shared.chunker.cut(&bytes, true) == Some(bytes.len());
        if !is_one {
            let input = Box::new(std::io::Cursor::new(Bytes::from(bytes)));
            return self.read_stream(Name::from("file"), input, old);
        }
        let id = self.shared.repository.keys().chunk_id(BlobKind::Data, &bytes);
        if self.shared.writer.claim(&id)? {
            let candidates = match old {
                Some((old_size, Content::Chunk(old))) => {
                    vec![ParentChunk::alone(old, old_size as u32)]
                }
                _ => Vec::new(),
            };
            self.count(|summary| {
                summary.chunks += 1;
                summary.new_chunks += 1;
            });
            let origin = Origin::SmallFile;
            self.hand_over(WorkItem { id, bytes: bytes.into(), candidates, origin })?;
        } else {
            Progress::add(&self.shared.progress.dedup_bytes, size);
            self.count(|summary| {
                summary.chunks += 1;
                summary.dedup_bytes += size;
            });
        }
        Ok((size, Content::Chunk(id)))
    }

    fn read_big(
        &self,
        path: &Path,
        input: FileInput,
        old: Option<(u64, Content)>,
    ) -> Result<(u64, Content), ReadError> {
        self.read_stream(Name::new(path.as_os_str().as_bytes()), Box::new(input), old)
    }

    fn read_stream(
        &self,
        name: Name,
        input: Box<dyn StreamInput>,
        old: Option<(u64, Content)>,
    ) -> Result<(u64, Content), ReadError> {
        let parent = match old {
            Some((size, Content::Recipe { root, chunks })) => {
                Some(StreamEntry { name: name.clone(), size, chunks, root })
            }
            _ => None,
        };
        let is_big = input.size_hint().is_some_and(|size| size > MEDIUM_BYTES);
        let origin = if is_big { Origin::File } else { Origin::SmallFile };
        let source = StreamSource { name, input, min_bytes: 0 };
        let planned =
            stream::plan_one(self.shared, source, parent, self.work.clone(), BUFFERS, origin)?;
        self.count(|summary| *summary = super::add(*summary, planned.summary));
        let StreamEntry { size, root, chunks, .. } = planned.entry;
        Ok((size, if size == 0 { Content::Empty } else { Content::Recipe { root, chunks } }))
    }

    fn hand_over(&self, item: WorkItem) -> Result<()> {
        let thread = rayon::current_thread_index().unwrap_or(0);
        let mut batch = self.batches[thread % self.batches.len()].lock().expect("no panics here");
        batch.bytes += item.bytes.len();
        batch.items.push(item);
        if batch.bytes >= GROUP_BYTES {
            self.send(&mut batch)?;
        }
        Ok(())
    }

    /// Hands over what a thread has.
    pub(super) fn send(&self, batch: &mut Batch) -> Result<()> {
        batch.bytes = 0;
        let items = std::mem::take(&mut batch.items);
        if items.is_empty() {
            return Ok(());
        }
        // Nobody listens only where all encoders failed, and they tell why.
        self.work.send(items).map_err(|_| Error::Interrupted)
    }
}

/// What went wrong with a file: that file alone, or the whole run.
pub enum ReadError {
    /// This file cannot be read.
    File(String),
    /// The backup cannot go on.
    Run(Error),
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        Self::File(error.to_string())
    }
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        match error {
            Error::Source { detail, .. } => Self::File(detail),
            other => Self::Run(other),
        }
    }
}
