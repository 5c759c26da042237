//! Writing the bytes of one file: into a new one, or into one that is there, of which only the
//! chunks that differ are written. A restore that was interrupted thereby goes on where it stopped.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Kind};
use crate::format::recipe::{ChunkRun, Edges};
use crate::repository::reader::{ChunkReader, Scratch};
use crate::repository::recipes::RecipeReader;

/// Zeros are looked for in blocks of this many bytes.
const BLOCK: usize = 4096;

/// What writing a file came to.
pub struct Written {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes that had to be written.
    pub written: u64,
    /// The file, still open; none where it was only said what would be written.
    pub file: Option<File>,
}

/// Writes a file. `existing` is what stands at its place; `sparse` leaves holes for all zeros, and
/// `verify` reads everything again.
pub fn write_file(
    reader: &ChunkReader<'_>,
    directory: &OwnedFd,
    name: &OsStr,
    entry: &Entry,
    existing: Option<&Stat>,
    (sparse, verify): (bool, bool),
    scratch: &mut Scratch,
) -> Result<Written> {
    let Kind::File { size, content } = entry.kind else {
        return Err(Error::Conflict("is no regular file in the snapshot".into()));
    };
    let io = |action: &'static str| {
        move |source: io::Error| Error::Io { action, path: name.display().to_string(), source }
    };
    let is_file = |stat: &Stat| {
        // A file with other names must not change under them.
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1
    };
    let in_place = existing.is_some_and(is_file);
    if existing.is_some() && !in_place {
        remove(directory, name).map_err(io("replace"))?;
    }
    let file = open(directory, name, in_place).map_err(io("create"))?;
    let mut place = Place { file: &file, in_place, sparse, at: 0, end: 0, written: 0 };
    each_run(reader, content, size, scratch, &mut |bytes, repeat| {
        (0..repeat).try_for_each(|_| place.put(bytes)).map_err(io("write"))
    })?;
    let Place { at, end, written, .. } = place;
    if at != size {
        return Err(Error::Conflict(format!("its chunks add up to {at} bytes instead of {size}")));
    }
    if in_place || end != size {
        file.set_len(size).map_err(io("write"))?;
    }
    if verify {
        let mut at = 0;
        each_run(reader, content, size, scratch, &mut |bytes, repeat| {
            for _ in 0..repeat {
                if !is_equal(&file, at, bytes).map_err(io("read back"))? {
                    return Err(Error::Conflict(format!("differs from the snapshot at byte {at}")));
                }
                at += bytes.len() as u64;
            }
            Ok(())
        })?;
    }
    Ok(Written { bytes: size, written, file: Some(file) })
}

fn open(directory: &OwnedFd, name: &OsStr, in_place: bool) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mode = Mode::RUSR | Mode::WUSR;
    if !in_place {
        let create = flags | OFlags::CREATE | OFlags::EXCL;
        return Ok(rustix::fs::openat(directory, name, create, mode)?.into());
    }
    match rustix::fs::openat(directory, name, flags, mode) {
        Ok(file) => {
            // What stands there now may be another than the one that was looked at.
            let stat = rustix::fs::fstat(&file)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1
            {
                return Ok(file.into());
            }
            remove(directory, name)?;
            open(directory, name, false)
        }
        // A file that may not be written may still be replaced.
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::TXTBSY) => {
            remove(directory, name)?;
            open(directory, name, false)
        }
        Err(error) => Err(error.into()),
    }
}

fn remove(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(directory, name, rustix::fs::AtFlags::empty())?)
}

/// Calls `take` with the bytes of each run of chunks of a content.
fn each_run(
    reader: &ChunkReader<'_>,
    content: Content,
    size: u64,
    scratch: &mut Scratch,
    take: &mut dyn FnMut(&[u8], u32) -> Result<()>,
) -> Result<()> {
    let mut one = |run: &ChunkRun| {
        let bytes = reader.read(BlobKind::Data, &run.id, scratch)?;
        if bytes.len() != run.length as usize {
            let text = format!("chunk {} is not as long as it should be", run.id.short());
            return Err(Error::Conflict(text));
        }
        take(&bytes, run.repeat)?;
        reader.recycle(bytes);
        Ok(())
    };
    match content {
        Content::Empty => Ok(()),
        Content::Chunk(id) => {
            let length = u32::try_from(size)
                .map_err(|_| Error::Conflict("is too long for one chunk".into()))?;
            one(&ChunkRun { id, length, repeat: 1, edges: Edges::default() })
        }
        Content::Recipe { root, .. } => {
            for run in RecipeReader::new(reader.repository(), root)? {
                one(&run?)?;
            }
            Ok(())
        }
    }
}

struct Place<'a> {
    file: &'a File,
    /// The file held something before.
    in_place: bool,
    sparse: bool,
    at: u64,
    /// Where the last bytes that were written end.
    end: u64,
    written: u64,
}

impl Place<'_> {
    /// Puts a chunk at the current place, unless it is there.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let at = self.at;
        self.at += bytes.len() as u64;
        if self.in_place && is_equal(self.file, at, bytes)? {
            return Ok(());
        }
        self.written += bytes.len() as u64;
        let is_zero = |part: &[u8]| part.iter().all(|&byte| byte == 0);
        if is_zero(bytes) {
            return self.hole(at, bytes);
        }
        if !self.sparse {
            return self.write(bytes, at);
        }
        // Neighbouring blocks of one kind go together.
        let mut start = 0;
        while start < bytes.len() {
            let block = |from: usize| &bytes[from..bytes.len().min(from + BLOCK)];
            let zeros = is_zero(block(start));
            let mut end = start;
            while end < bytes.len() && is_zero(block(end)) == zeros {
                end += block(end).len();
            }
            let part = &bytes[start..end];
            if zeros {
                self.hole(at + start as u64, part)?;
            } else {
                self.write(part, at + start as u64)?;
            }
            start = end;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.end = at + bytes.len() as u64;
        self.file.write_all_at(bytes, at)
    }

    /// Zeros: nothing to write in a new file, whose length is set at the end.
    fn hole(&self, at: u64, zeros: &[u8]) -> io::Result<()> {
        if !self.in_place {
            return Ok(());
        }
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(self.file, flags, at, zeros.len() as u64) {
            Ok(()) => Ok(()),
            Err(_) => self.file.write_all_at(zeros, at),
        }
    }
}

/// Whether a file holds these bytes at a place.
fn is_equal(file: &File, at: u64, bytes: &[u8]) -> io::Result<bool> {
    let mut room = [0; 1 << 16];
    for (number, part) in bytes.chunks(room.len()).enumerate() {
        let place = at + (number * room.len()) as u64;
        match file.read_exact_at(&mut room[..part.len()], place) {
            Ok(()) if room[..part.len()] == *part => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
