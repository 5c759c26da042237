//! Reading a stream ahead on a thread of its own, into buffers that go round.
//!
//! The thread is not joined: a read may block for ever when a run is interrupted. It ends as soon
//! as nobody takes its buffers any more.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::source::StreamInput;

/// Bytes read into one buffer.
const READ_BYTES: usize = 1 << 20;
/// Holes shorter than this are read like data.
const MIN_HOLE: u64 = 1 << 20;

/// A piece of a stream.
pub enum Segment {
    /// A buffer whose first `start` bytes are free room, with data up to `end`.
    Data {
        /// Room and data.
        buffer: Vec<u8>,
        /// Where the data begins.
        start: usize,
        /// Where it ends.
        end: usize,
    },
    /// So many zeros that were not read.
    Zeros(u64),
    /// The end, and whether the source calls it a good one.
    End(Result<(), String>),
}

/// The receiving side of a stream that is read ahead.
pub struct ReadAhead {
    segments: Receiver<Segment>,
    recycle: Sender<Vec<u8>>,
}

impl ReadAhead {
    /// Starts to read. Each of the `count` buffers has `room` free bytes at its start.
    pub fn start(mut input: Box<dyn StreamInput>, room: usize, count: usize) -> Self {
        let (recycle, free) = bounded(count);
        for _ in 0..count {
            recycle.send(Vec::new()).expect("the queue has room for all buffers");
        }
        let (filled, segments) = bounded(count);
        thread::spawn(move || {
            let end = read_all(&mut *input, room, &free, &filled);
            let _ = filled.send(Segment::End(end));
        });
        Self { segments, recycle }
    }

    /// The next segment, or `None` where there was none for a moment.
    pub fn next(&self) -> Option<Segment> {
        match self.segments.recv_timeout(Duration::from_millis(100)) {
            Ok(segment) => Some(segment),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                Some(Segment::End(Err("the reading thread ended".to_owned())))
            }
        }
    }

    /// Shares a part of a buffer; the buffer goes round again when all its parts are dropped.
    pub fn share(&self, buffer: Vec<u8>, start: usize, end: usize) -> Bytes {
        let owner = Recycled { buffer, recycle: self.recycle.clone() };
        Bytes::from_owner(owner).slice(start..end)
    }
}

struct Recycled {
    buffer: Vec<u8>,
    recycle: Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Recycled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Recycled {
    fn drop(&mut self) {
        let _ = self.recycle.try_send(std::mem::take(&mut self.buffer));
    }
}

fn read_all(
    input: &mut dyn StreamInput,
    room: usize,
    free: &Receiver<Vec<u8>>,
    filled: &Sender<Segment>,
) -> Result<(), String> {
    let stopped = || "nobody reads any more".to_owned();
    loop {
        let hole = input.skip_hole().map_err(|error| format!("read: {error}"))?;
        if hole >= MIN_HOLE {
            filled.send(Segment::Zeros(hole)).map_err(|_| stopped())?;
        }
        let mut buffer = free.recv().map_err(|_| stopped())?;
        buffer.resize(room + READ_BYTES, 0);
        let mut end = room;
        if hole < MIN_HOLE && hole > 0 {
            buffer[room..room + hole as usize].fill(0);
            end += hole as usize;
        }
        let at_end = fill(input, &mut buffer, &mut end)?;
        if end > room {
            let segment = Segment::Data { buffer, start: room, end };
            filled.send(segment).map_err(|_| stopped())?;
        }
        if at_end {
            return input.finish();
        }
    }
}

/// Fills the buffer, or up to the end of the input or the next hole. Returns whether it ended.
fn fill(input: &mut dyn StreamInput, buffer: &mut [u8], end: &mut usize) -> Result<bool, String> {
    while *end < buffer.len() {
        match input.read(&mut buffer[*end..]) {
            Ok(0) => return Ok(true),
            Ok(count) => *end += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(format!("read: {error}")),
        }
        if input.size_hint().is_some() {
            // A regular file may have a hole here; the caller looks.
            return Ok(false);
        }
    }
    Ok(false)
}
