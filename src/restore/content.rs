//! Writing the bytes of one file: into a new one, or into one that is there, of which only the
//! chunks that differ are written. A restore that was interrupted thereby goes on where it stopped.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Mode, OFlags};

use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Kind};
use crate::format::recipe::{ChunkRun, Edges};
use crate::progress::Progress;
use crate::repository::reader::{ChunkReader, Scratch};
use crate::repository::recipes::RecipeReader;

/// Zeros are looked for in blocks of this many bytes.
const BLOCK: usize = 4096;

/// What writing a file came to.
pub struct Written {
    /// Bytes that had to be written.
    pub written: u64,
    /// The file, still open.
    pub file: File,
    /// The name that it bears until it is complete; none where it was written in place.
    pub temporary: Option<OsString>,
}

/// How to write.
#[derive(Clone, Copy)]
pub struct WriteOptions {
    /// Leave holes for all zeros.
    pub sparse: bool,
    /// Read everything again.
    pub verify: bool,
    /// A file that is there may be changed where it stands.
    pub in_place: bool,
}

/// Writes a file: the one that stands at its place, or one beside it that takes its place when
/// [`put_in_place`] is called. A file that another run left half written is gone on with.
pub fn write_file(
    reader: &ChunkReader<'_>,
    directory: &OwnedFd,
    name: &OsStr,
    entry: &Entry,
    options: WriteOptions,
    scratch: &mut Scratch,
    progress: &Progress,
) -> Result<Written> {
    let io = |action: &'static str| {
        move |source: io::Error| Error::Io { action, path: name.display().to_string(), source }
    };
    let opened = if options.in_place {
        open_existing(directory, name).map_err(io("open"))?.map(|file| (file, true, None))
    } else {
        None
    };
    let (file, in_place, temporary) = match opened {
        Some(opened) => opened,
        None => {
            let temporary = temporary_name(name);
            let (file, was_there) = open_temporary(directory, &temporary).map_err(io("create"))?;
            (file, was_there, Some(temporary))
        }
    };
    let written = fill(reader, &file, in_place, name, entry, options, scratch, progress);
    match written {
        Ok(written) => Ok(Written { written, file, temporary }),
        Err(error) => {
            // What was interrupted can be gone on with.
            if let Some(temporary) = &temporary
                && !matches!(error, Error::Interrupted)
            {
                let _ = remove(directory, temporary);
            }
            Err(error)
        }
    }
}

/// Gives a file that is complete its name.
pub fn put_in_place(directory: &OwnedFd, temporary: &OsStr, name: &OsStr) -> io::Result<()> {
    let renamed = rustix::fs::renameat(directory, temporary, directory, name);
    // Where both are one file, renaming does nothing.
    let _ = remove(directory, temporary);
    Ok(renamed?)
}

/// The name that something bears until it is complete: always the same for the same name.
pub fn temporary_name(name: &OsStr) -> OsString {
    let hash = blake3::hash(name.as_encoded_bytes());
    format!(".restow-{}", hex::encode(&hash.as_bytes()[..8])).into()
}

#[allow(clippy::too_many_arguments, reason = "the parts of one call, taken apart for its length")]
fn fill(
    reader: &ChunkReader<'_>,
    file: &File,
    in_place: bool,
    name: &OsStr,
    entry: &Entry,
    options: WriteOptions,
    scratch: &mut Scratch,
    progress: &Progress,
) -> Result<u64> {
    let Kind::File { size, content } = entry.kind else {
        return Err(Error::Conflict("is no regular file in the snapshot".into()));
    };
    let io = |action: &'static str| {
        move |source: io::Error| Error::Io { action, path: name.display().to_string(), source }
    };
    let mut place = Place { file, in_place, sparse: options.sparse, at: 0, end: 0, written: 0 };
    each_run(reader, content, size, scratch, &mut |bytes, repeat| {
        if progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        place.put_run(bytes, repeat).map_err(io("write"))?;
        Progress::add(&progress.done_bytes, bytes.len() as u64 * u64::from(repeat));
        Ok(())
    })?;
    let Place { at, end, written, .. } = place;
    if at != size {
        return Err(Error::Conflict(format!("its chunks add up to {at} bytes instead of {size}")));
    }
    if in_place || end != size {
        file.set_len(size).map_err(io("write"))?;
    }
    if options.verify {
        let mut at = 0;
        each_run(reader, content, size, scratch, &mut |bytes, repeat| {
            let length = bytes.len() as u64 * u64::from(repeat);
            if repeat > 1 && is_zero(bytes) && is_hole(file, at, length) {
                at += length;
                return Ok(());
            }
            for _ in 0..repeat {
                if !is_equal(file, at, bytes).map_err(io("read back"))? {
                    return Err(Error::Conflict(format!("differs from the snapshot at byte {at}")));
                }
                at += bytes.len() as u64;
            }
            Ok(())
        })?;
    }
    Ok(written)
}

const FLAGS: OFlags =
    OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// The file at this name, if it is a regular one that has no other names and may be written.
fn open_existing(directory: &OwnedFd, name: &OsStr) -> io::Result<Option<File>> {
    use rustix::io::Errno;
    let file: File = match rustix::fs::openat(directory, name, FLAGS, Mode::empty()) {
        Ok(file) => file.into(),
        Err(
            Errno::NOENT | Errno::LOOP | Errno::ACCESS | Errno::TXTBSY | Errno::NXIO | Errno::ISDIR,
        ) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    // What stands there now may be another than the one that was looked at, and a file with other
    // names must not change under them.
    let stat = rustix::fs::fstat(&file)?;
    let is_ours =
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1;
    Ok(is_ours.then_some(file))
}

/// A file for the time until it is complete, and whether an earlier run left it.
fn open_temporary(directory: &OwnedFd, name: &OsStr) -> io::Result<(File, bool)> {
    if let Some(file) = open_existing(directory, name)?
        && rustix::fs::fstat(&file)?.st_uid == rustix::process::geteuid().as_raw()
    {
        return Ok((file, true));
    }
    let create = FLAGS | OFlags::CREATE | OFlags::EXCL;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::openat(directory, name, create, mode) {
        Err(rustix::io::Errno::EXIST) => {
            remove(directory, name)?;
            Ok((rustix::fs::openat(directory, name, create, mode)?.into(), false))
        }
        other => Ok((other?.into(), false)),
    }
}

/// Removes what stands at a name, if anything does.
pub fn remove(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, rustix::fs::AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
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
    /// Puts a chunk so many times. A long run of zeros costs nothing.
    fn put_run(&mut self, bytes: &[u8], repeat: u32) -> io::Result<()> {
        let length = bytes.len() as u64 * u64::from(repeat);
        if repeat > 1 && is_zero(bytes) && self.punch(self.at, length) {
            self.at += length;
            return Ok(());
        }
        (0..repeat).try_for_each(|_| self.put(bytes))
    }

    /// Makes a hole, or tells that the file system cannot.
    fn punch(&self, at: u64, length: u64) -> bool {
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        !self.in_place || rustix::fs::fallocate(self.file, flags, at, length).is_ok()
    }

    /// Puts a chunk at the current place, unless it is there.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let at = self.at;
        self.at += bytes.len() as u64;
        if self.in_place && is_equal(self.file, at, bytes)? {
            return Ok(());
        }
        self.written += bytes.len() as u64;
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
        if self.punch(at, zeros.len() as u64) { Ok(()) } else { self.file.write_all_at(zeros, at) }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Whether no data stands in a range of a file.
fn is_hole(file: &File, at: u64, length: u64) -> bool {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(data) => data >= at + length,
        Err(error) => error == rustix::io::Errno::NXIO,
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
