//! Putting single things of a tree into place: files, links, fifos, sockets, devices. Whatever
//! takes the place of something else is complete before it does.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;

use super::attributes;
use super::content::{WriteOptions, Written, put_in_place, remove, temporary_name, write_file};
use super::options::{Decision, Overwrite};
use super::plan::Job;
use super::tree::Restorer;
use crate::error::{Error, Result};
use crate::format::entry::{Entry, Kind};
use crate::progress::Progress;
use crate::repository::reader::Scratch;

impl Restorer<'_> {
    /// Restores a file.
    pub(super) fn write(&self, job: &Job) -> Result<()> {
        let io = |source| Error::Io { action: "restore", path: String::new(), source };
        let size = job.entry.size();
        let there = self.target.stat(&job.path).map_err(io)?;
        let existing = match self.options.overwrite.decide(&job.entry, there).map_err(io)? {
            Decision::Create => None,
            Decision::Replace(stat) => Some(stat),
            Decision::Unchanged if self.options.verify => there,
            Decision::Unchanged => {
                self.count(|report| report.unchanged += 1);
                self.restored(&job.entry, &job.path);
                return self.attributes(&job.path, &job.entry).map_err(io);
            }
            Decision::Keep => {
                self.count(|report| report.unchanged += 1);
                return Ok(());
            }
        };
        let (mut written, mut attributes) = (size, Ok(()));
        if self.options.dry_run {
            Progress::add(&self.progress.done_bytes, size);
        } else {
            if let Some(stat) = &existing
                && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            {
                self.clear(&job.path, stat).map_err(io)?;
            }
            (written, attributes) = self.put(job, existing.is_some())?;
        }
        self.restored(&job.entry, &job.path);
        self.count(|report| {
            report.files += 1;
            report.bytes += size;
            report.written_bytes += written;
        });
        attributes.map_err(io)
    }

    /// Writes a file and gives it its attributes. Returns the bytes that had to be written, and what
    /// came of the attributes.
    fn put(&self, job: &Job, exists: bool) -> Result<(u64, io::Result<()>)> {
        let io = |source| Error::Io { action: "restore", path: String::new(), source };
        let (parent, name) = self.parent(&job.path).map_err(io)?;
        let mut scratch = match self.scratches.lock().expect("no panics here").pop() {
            Some(scratch) => scratch,
            None => Scratch::new()?,
        };
        let options = WriteOptions {
            sparse: self.options.sparse,
            verify: self.options.verify,
            // A file half changed in place has the time of now: `if-newer` would take it for newer.
            in_place: exists && self.options.overwrite != Overwrite::IfNewer,
        };
        let entry = &job.entry;
        let written =
            write_file(&self.reader, &parent, name, entry, options, &mut scratch, self.progress);
        self.scratches.lock().expect("no panics here").push(scratch);
        let Written { written, file, temporary, .. } = written?;
        let owners = (!self.options.no_owner).then_some(&self.owners);
        let attributes = attributes::apply(file.as_fd(), entry, owners);
        if let Some(temporary) = temporary {
            put_in_place(&parent, &temporary, name).map_err(io)?;
        }
        Ok((written, attributes))
    }

    /// Restores what is neither file nor directory.
    pub(super) fn special(&self, path: &[u8], entry: &Entry) -> io::Result<()> {
        match self.options.overwrite.decide(entry, self.target.stat(path)?)? {
            Decision::Keep | Decision::Unchanged => {
                self.count(|report| report.unchanged += 1);
                return Ok(());
            }
            Decision::Replace(stat) => self.clear_directory(path, &stat)?,
            Decision::Create => {}
        }
        self.count(|report| report.files += 1);
        if self.options.dry_run {
            return Ok(());
        }
        let make = |parent: &OwnedFd, name: &OsStr| -> Result<(), Errno> {
            let node = |kind: FileType, device: u64| {
                rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)
            };
            match &entry.kind {
                Kind::Symlink { target } => {
                    use std::os::unix::ffi::OsStrExt;
                    rustix::fs::symlinkat(OsStr::from_bytes(target), parent, name)
                }
                Kind::Fifo => node(FileType::Fifo, 0),
                Kind::Socket => node(FileType::Socket, 0),
                Kind::BlockDevice { device } => node(FileType::BlockDevice, *device),
                Kind::CharDevice { device } => node(FileType::CharacterDevice, *device),
                Kind::File { .. } | Kind::Directory { .. } => Ok(()),
            }
        };
        let owners = (!self.options.no_owner).then_some(&self.owners);
        let mut attributes = Ok(());
        self.replace(
            path,
            &|parent, name| {
                make(parent, name)?;
                Ok(())
            },
            &mut |parent, name| {
                attributes = attributes::open(parent, name, entry)
                    .and_then(|file| attributes::apply(file.as_fd(), entry, owners));
            },
        )?;
        self.restored(entry, path);
        attributes
    }

    /// Makes something beside its place, completes it, and puts it there.
    fn replace(
        &self,
        path: &[u8],
        make: &dyn Fn(&OwnedFd, &OsStr) -> io::Result<()>,
        complete: &mut dyn FnMut(&OwnedFd, &OsStr),
    ) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let temporary = temporary_name(name);
        remove(&parent, &temporary)?;
        make(&parent, &temporary)?;
        complete(&parent, &temporary);
        put_in_place(&parent, &temporary, name)
    }

    /// Another name of a file; the file itself where none of its names could be restored, or where
    /// it cannot have another here.
    pub(super) fn link(&self, path: &[u8], entry: &Entry) -> io::Result<()> {
        let identity = (entry.device, entry.inode);
        let first = self.links.lock().expect("no panics here").get(&identity).cloned();
        let Some(first) = first else { return self.alone(path, entry) };
        let same = |a: &Stat, b: &Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
        let (there, first_stat) = (self.target.stat(path)?, self.target.stat(&first)?);
        if there.zip(first_stat).is_some_and(|(a, b)| same(&a, &b)) {
            self.count(|report| report.unchanged += 1);
            return Ok(());
        }
        match self.options.overwrite.decide(entry, there)? {
            Decision::Keep => {
                self.count(|report| report.unchanged += 1);
                return Ok(());
            }
            Decision::Replace(stat) => self.clear_directory(path, &stat)?,
            // As it should be, but not the same file.
            Decision::Unchanged | Decision::Create => {}
        }
        if self.options.dry_run {
            self.count(|report| report.files += 1);
            return Ok(());
        }
        let (from, from_name) = self.target.parent(&first)?;
        let made = self.replace(
            path,
            &|parent, name| {
                Ok(rustix::fs::linkat(&from, from_name, parent, name, AtFlags::empty())?)
            },
            &mut |_, _| {},
        );
        match made {
            Ok(()) => {
                self.count(|report| report.files += 1);
                Ok(())
            }
            Err(error) if may_not_link(&error) => self.alone(path, entry),
            Err(error) => Err(error),
        }
    }

    fn alone(&self, path: &[u8], entry: &Entry) -> io::Result<()> {
        if !matches!(entry.kind, Kind::File { .. }) {
            return self.special(path, entry);
        }
        let job = Job { path: path.to_vec(), entry: entry.clone(), order: (0, 0) };
        self.write(&job).map_err(io::Error::other)
    }

    /// Remembers where a file with several names stands.
    fn restored(&self, entry: &Entry, path: &[u8]) {
        if entry.is_hard_link() {
            let mut links = self.links.lock().expect("no panics here");
            links.entry((entry.device, entry.inode)).or_insert_with(|| path.to_vec());
        }
    }

    fn clear_directory(&self, path: &[u8], stat: &Stat) -> io::Result<()> {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory && !self.options.dry_run { self.clear(path, stat) } else { Ok(()) }
    }

    /// Makes room for something that cannot be written in place.
    pub(super) fn clear(&self, path: &[u8], stat: &Stat) -> io::Result<()> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return self.target.remove_one(path);
        }
        if self.options.delete {
            return self.target.remove(path);
        }
        let error = "a directory with files in it stands in its place; --delete would remove it";
        self.target.remove_one(path).map_err(|_| io::Error::other(error))
    }
}

/// Whether the file system or its rules do not allow this file another name there.
fn may_not_link(error: &io::Error) -> bool {
    let codes = [Errno::XDEV, Errno::PERM, Errno::OPNOTSUPP, Errno::MLINK, Errno::NOSYS];
    codes.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}
