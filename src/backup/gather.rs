//! Small files on their way to the encoders: read one behind the other into buffers that go round.
//!
//! What lies in one buffer is compressed together, as one group, so that small files cost what they
//! differ by. Each thread of the walk fills its own, so neighbours in a directory stay neighbours.

use std::fs::File;
use std::io;

use crossbeam_channel::Sender;
use rustix::io::Errno;

use super::parent::ParentChunk;
use super::pipeline::Shared;
use super::stream::Work;
use crate::error::{Error, Result};
use crate::id::ChunkId;

/// Most bytes of a group: what must be decoded to read one chunk of it.
const GROUP_BYTES: usize = 2 << 20;

/// Chunks that are compressed together.
#[derive(Default)]
pub struct Group {
    /// Their bytes, one after the other.
    pub bytes: Vec<u8>,
    /// What they are.
    pub members: Vec<Member>,
}

/// A chunk of a group.
pub struct Member {
    /// Its id.
    pub id: ChunkId,
    /// Its length.
    pub length: usize,
    /// Chunks of the parent, in order, that it may be a changed copy of.
    pub candidates: Vec<ParentChunk>,
}

/// Fills groups and hands them over.
pub struct Gatherer<'a> {
    shared: &'a Shared<'a>,
    work: Sender<Work>,
    group: Group,
    /// Where the bytes of the file that was read last begin; no member covers them yet.
    start: usize,
}

impl<'a> Gatherer<'a> {
    /// A gatherer with an empty group.
    pub fn new(shared: &'a Shared<'a>, work: Sender<Work>) -> Self {
        Self { shared, work, group: Group::default(), start: 0 }
    }

    /// Reads a file that should have `size` bytes. `None` where it has more.
    pub fn read(&mut self, file: &File, size: usize) -> io::Result<Option<&[u8]>> {
        // A file of the size that was told fills all but the last byte, and needs no second look.
        self.make_room(size + 1).map_err(io::Error::other)?;
        self.start = self.group.bytes.len();
        let end = self.start + size;
        loop {
            let room = &mut self.group.bytes;
            match rustix::io::read(file, rustix::buffer::spare_capacity(room)) {
                Ok(0) => break,
                Ok(_) if room.len() == end => break,
                Ok(_) if room.len() > end => {
                    room.truncate(self.start);
                    return Ok(None);
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    room.truncate(self.start);
                    return Err(error.into());
                }
            }
        }
        Ok(Some(&self.group.bytes[self.start..]))
    }

    /// Keeps the file that was just read, as one chunk.
    pub fn keep(&mut self, id: ChunkId, candidates: Vec<ParentChunk>) {
        let length = self.group.bytes.len() - self.start;
        self.group.members.push(Member { id, length, candidates });
        self.start = self.group.bytes.len();
    }

    /// Forgets the file that was just read.
    pub fn forget(&mut self) {
        self.group.bytes.truncate(self.start);
    }

    /// Adds a chunk.
    pub fn add(&mut self, id: ChunkId, bytes: &[u8], candidates: Vec<ParentChunk>) -> Result<()> {
        self.make_room(bytes.len())?;
        self.group.bytes.extend_from_slice(bytes);
        self.group.members.push(Member { id, length: bytes.len(), candidates });
        self.start = self.group.bytes.len();
        Ok(())
    }

    fn make_room(&mut self, length: usize) -> Result<()> {
        if self.group.bytes.len() + length > GROUP_BYTES {
            self.send()?;
        }
        let bytes = &mut self.group.bytes;
        if bytes.capacity() == 0 {
            let spare = self.shared.groups.lock().expect("no panics here").pop();
            *bytes = spare.unwrap_or_else(|| Vec::with_capacity(GROUP_BYTES));
        }
        bytes.reserve(length);
        Ok(())
    }

    /// Hands over what there is.
    pub fn send(&mut self) -> Result<()> {
        self.start = 0;
        let group = std::mem::take(&mut self.group);
        if group.members.is_empty() {
            return Ok(());
        }
        // Nobody listens only where all encoders failed, and they tell why.
        self.work.send(Work::Group(group)).map_err(|_| Error::Interrupted)
    }
}
