//! Giving back compressed streams that were stored unpacked: the plain bytes and the recipe are read at the
//! same time and put together to the very bytes that came.

use std::io::{self, Read, Write};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{StreamTarget, copy_stream, stream_of};
use crate::error::{Error, Result};
use crate::format::snapshot::{Snapshot, UnpackedStream};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::unpack::{RepackError, repack};

/// Pieces of a stream that wait to be packed.
const WAITING: usize = 8;

/// Writes a stream as it was before it was unpacked; returns its bytes. The target has all of them only
/// where this succeeds: what was put together is proved at the end.
pub fn copy_packed(
    repository: &Repository,
    snapshot: &Snapshot,
    unpacked: &UnpackedStream,
    target: &mut dyn StreamTarget,
    progress: &Progress,
) -> Result<u64> {
    let plain = stream_of(snapshot, unpacked.plain.as_bytes())?;
    let recipe = stream_of(snapshot, unpacked.recipe.as_bytes())?;
    let mut failed = None;
    let mut out = Out { target, failed: &mut failed };
    let (packed, read) = thread::scope(|scope| {
        let (plain_pieces, plain_reader) = pipe();
        let (recipe_pieces, recipe_reader) = pipe();
        let own = Progress::default();
        let copy = |stream, mut pieces: Pieces, progress: &Progress| {
            copy_stream(repository, stream, &mut pieces, progress).map(|_| pieces.end())
        };
        let plain = scope.spawn(move || copy(plain, plain_pieces, progress));
        let recipe = scope.spawn(move || copy(recipe, recipe_pieces, &own));
        let packed = repack(plain_reader, recipe_reader, &mut out);
        let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (packed, join(plain).and(join(recipe)))
    });
    if let Some(error) = failed {
        return Err(error);
    }
    match (packed, read) {
        (Ok(bytes), Ok(())) => Ok(bytes),
        // A reader that was cut off is only the echo of what broke the other side.
        (Err(RepackError::Read(_) | RepackError::Truncated(_)), Err(error)) => Err(error),
        (Err(error), _) => {
            Err(Error::Conflict(format!("{} cannot be packed again: {error}", unpacked.name)))
        }
        (Ok(_), Err(error)) => Err(error),
    }
}

/// A piece of a stream; none is its good end.
type Piece = Option<Vec<u8>>;

fn pipe() -> (Pieces, Reader) {
    let (sender, receiver) = bounded(WAITING);
    (Pieces(sender), Reader { receiver, piece: io::Cursor::default(), ended: false })
}

struct Pieces(Sender<Piece>);

impl Pieces {
    fn end(self) {
        let _ = self.0.send(None);
    }
}

impl StreamTarget for Pieces {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        // Nobody reads on: the other side says why.
        self.0.send(Some(bytes.to_vec())).map_err(|_| Error::Interrupted)
    }
}

struct Reader {
    receiver: Receiver<Piece>,
    piece: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(buffer)?;
            if count > 0 || self.ended || buffer.is_empty() {
                return Ok(count);
            }
            match self.receiver.recv() {
                Ok(Some(piece)) => self.piece = io::Cursor::new(piece),
                Ok(None) => self.ended = true,
                Err(_) => return Err(io::Error::other("the stream could not be read")),
            }
        }
    }
}

struct Out<'a> {
    target: &'a mut dyn StreamTarget,
    failed: &'a mut Option<Error>,
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.target.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                *self.failed = Some(error);
                Err(io::Error::other("the target failed"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
