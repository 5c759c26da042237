//! Reading files that are new or changed, and cutting them into chunks. Encoding happens elsewhere.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;

use super::StreamSource;
use super::gather::Gatherer;
use super::parent::ParentChunk;
use super::stream::{self, Output, Planned};
use super::walk::Walker;
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Kind};
use crate::format::name::Name;
use crate::format::snapshot::{StreamEntry, Summary};
use crate::progress::Progress;
use crate::source::file::FileInput;
use crate::source::walk;

/// Files up to this size are read into the buffer of their group.
const SMALL_BYTES: u64 = 256 << 10;
/// The chunks of files up to this size are compressed together with those of other files.
const MEDIUM_BYTES: u64 = 4 << 20;
/// Buffers for reading one big file ahead.
const BUFFERS: usize = 4;

impl Walker<'_> {
    /// Reads a file. `old` is what the parent snapshot has in its place.
    pub(super) fn read(
        &self,
        path: &Path,
        old: Option<&Entry>,
    ) -> Result<(u64, Content), ReadError> {
        let (mut file, before) = walk::open(path)?;
        let old = match old.map(|old| &old.kind) {
            Some(Kind::File { content, size }) => Some((*size, *content)),
            _ => None,
        };
        let mut read = None;
        if before.1 <= MEDIUM_BYTES {
            read = self.read_small(&mut file, before.1, old)?;
            if read.is_none() {
                // It grew; it is read again as a big one.
                file.rewind()?;
            }
        }
        let read = match read {
            Some(read) => read,
            None => self.read_big(path, file.try_clone()?, old)?,
        };
        if walk::fingerprint(&file)? != before {
            // Kept as it was read; what was read may never have been in the file at one time.
            self.problem(path, "changed while it was read");
        }
        Ok(read)
    }

    /// A file that is read into memory. `None` where it has more than `size` bytes.
    fn read_small(
        &self,
        file: &mut File,
        size: u64,
        old: Option<(u64, Content)>,
    ) -> Result<Option<(u64, Content)>, ReadError> {
        let thread = rayon::current_thread_index().unwrap_or(0) % self.gatherers.len();
        let mut gatherer = self.gatherers[thread].lock().expect("no panics here");
        if size > SMALL_BYTES {
            let mut bytes = Vec::with_capacity(size as usize + 1);
            file.take(size + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > size {
                return Ok(None);
            }
            return self.read_chunks(bytes.into(), old, &mut gatherer).map(Some);
        }
        let Some(bytes) = gatherer.read(file, size as usize)? else { return Ok(None) };
        let size = bytes.len();
        if size == 0 {
            return Ok(Some((0, Content::Empty)));
        }
        if self.shared.chunker.cut(bytes, true) != Some(size) {
            let bytes = Bytes::copy_from_slice(bytes);
            gatherer.forget();
            return self.read_chunks(bytes, old, &mut gatherer).map(Some);
        }
        let id = self.shared.repository.keys().chunk_id(BlobKind::Data, bytes);
        let size = size as u64;
        Progress::add(&self.shared.progress.done_bytes, size);
        let mut summary = Summary { read_bytes: size, chunks: 1, ..Summary::default() };
        // What the parent has here needs no look: it stays as long as that snapshot lives.
        let is_same = matches!(old, Some((_, Content::Chunk(old))) if old == id);
        if !is_same && self.shared.writer.claim(&id)? {
            let candidates = match old {
                Some((old_size, Content::Chunk(old))) => {
                    vec![ParentChunk::alone(old, old_size as u32)]
                }
                _ => Vec::new(),
            };
            summary.new_chunks = 1;
            gatherer.keep(id, candidates);
        } else {
            Progress::add(&self.shared.progress.dedup_bytes, size);
            summary.dedup_bytes = size;
            gatherer.forget();
        }
        self.count(|all| *all = super::pipeline::add(*all, summary));
        Ok(Some((size, Content::Chunk(id))))
    }

    /// A file of several chunks, which is in memory.
    fn read_chunks(
        &self,
        bytes: Bytes,
        old: Option<(u64, Content)>,
        gatherer: &mut Gatherer<'_>,
    ) -> Result<(u64, Content), ReadError> {
        let parent = parent_of(Name::new(b""), old);
        Ok(self.planned(stream::plan_bytes(self.shared, bytes, parent, gatherer)?))
    }

    fn read_big(
        &self,
        path: &Path,
        file: File,
        old: Option<(u64, Content)>,
    ) -> Result<(u64, Content), ReadError> {
        let name = Name::new(path.as_os_str().as_bytes());
        let parent = parent_of(name.clone(), old);
        let source = StreamSource { name, input: Box::new(FileInput::new(file)), min_bytes: 0 };
        let mut gatherer = Gatherer::new(self.shared, self.work.clone());
        let output = Output::Group(&mut gatherer);
        let planned = stream::plan_one(self.shared, source, parent, output, BUFFERS);
        // What was cut is worth keeping even where the file could not be read to its end.
        gatherer.send()?;
        Ok(self.planned(planned?))
    }

    fn planned(&self, planned: Planned) -> (u64, Content) {
        self.count(|summary| *summary = super::pipeline::add(*summary, planned.summary));
        let StreamEntry { size, root, chunks, .. } = planned.entry;
        (size, if size == 0 { Content::Empty } else { Content::Recipe { root, chunks } })
    }
}

/// What the deltas of a file of several chunks are made against.
fn parent_of(name: Name, old: Option<(u64, Content)>) -> Option<StreamEntry> {
    match old {
        Some((size, Content::Recipe { root, chunks })) => {
            Some(StreamEntry { name, size, chunks, root })
        }
        _ => None,
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
