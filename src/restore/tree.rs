//! Restoring a tree: directories first, then files in parallel and in pack order, then everything
//! that must come last: hard links, owners, permissions and times of directories.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, Mode, Stat};

use super::attributes::{self, LocalOwners};
use super::content::{Written, write_file};
use super::options::{Overwrite, Selection, TreeOptions, TreeReport};
use super::place::Target;
use crate::error::{Error, Result};
use crate::format::entry::{Content, Entry, Kind, Moment};
use crate::format::name::Name;
use crate::id::ChunkId;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::{ChunkReader, Scratch};
use crate::repository::trees::{self, Step};

/// Files that wait to be written at once; a bound on memory.
const WINDOW: usize = 16_384;

struct Restorer<'a> {
    repository: &'a Repository,
    reader: ChunkReader<'a>,
    target: Target,
    options: &'a TreeOptions,
    owners: LocalOwners,
    progress: &'a Progress,
    report: Mutex<TreeReport>,
    scratches: Mutex<Vec<Scratch>>,
    /// First path of each file with several names.
    links: Mutex<HashMap<(u64, u64), Vec<u8>>>,
    /// Directories that were made on the way to something below.
    made: Mutex<HashSet<Vec<u8>>>,
}

/// A file that is to be written.
struct Job {
    path: Vec<u8>,
    entry: Entry,
    /// Pack and place of its first chunk.
    order: (i64, usize),
}

/// Restores the tree of a snapshot, or a part of it.
pub fn restore_tree(
    repository: &Repository,
    tree: ChunkId,
    options: &TreeOptions,
    progress: &Progress,
) -> Result<TreeReport> {
    let io = |source| Error::Io {
        action: "open the target",
        path: options.target.display().to_string(),
        source,
    };
    let restorer = Restorer {
        repository,
        reader: ChunkReader::new(repository),
        target: Target::open(&options.target).map_err(io)?,
        options,
        owners: LocalOwners::default(),
        progress,
        report: Mutex::default(),
        scratches: Mutex::default(),
        links: Mutex::default(),
        made: Mutex::default(),
    };
    restorer.run(tree)?;
    let mut report = restorer.report.into_inner().expect("no panics here");
    report.problems.sort();
    Ok(report)
}

impl Restorer<'_> {
    fn run(&self, tree: ChunkId) -> Result<()> {
        let mut jobs = Vec::new();
        let mut later = Vec::new();
        // With whether they are restored for themselves, or only on the way to something below.
        let mut directories: Vec<(Vec<u8>, Entry, bool)> = Vec::new();
        let mut names: Vec<(Vec<u8>, BTreeSet<Vec<u8>>)> = Vec::new();
        trees::walk(self.repository, tree, b"", &mut |path, entry| {
            if self.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let is_directory = matches!(entry.kind, Kind::Directory { .. });
            let absolute = Path::new(std::ffi::OsStr::from_bytes(path));
            let wanted = self.options.wanted.as_ref();
            let selection = wanted.map_or(Selection::All, |wanted| wanted(absolute, is_directory));
            let path = path.strip_prefix(b"/").unwrap_or(path);
            match (selection, is_directory) {
                (Selection::None, _) | (Selection::Below, false) => return Ok(Step::Pass),
                (Selection::Below, true) => {
                    directories.push((path.to_vec(), entry.clone(), false));
                    return Ok(Step::Enter);
                }
                (Selection::All, _) => {}
            }
            if self.options.delete {
                self.note_name(&mut names, path);
            }
            match &entry.kind {
                Kind::Directory { .. } => {
                    if !self.directory(path)? {
                        return Ok(Step::Pass);
                    }
                    directories.push((path.to_vec(), entry.clone(), true));
                    if self.options.delete {
                        names.push((path.to_vec(), BTreeSet::new()));
                    }
                }
                _ if entry.is_hard_link() && self.is_known_link(entry, path) => {
                    later.push((path.to_vec(), entry.clone()));
                }
                Kind::File { content, .. } => {
                    let order = self.order(content)?;
                    jobs.push(Job { path: path.to_vec(), entry: entry.clone(), order });
                    if jobs.len() >= WINDOW {
                        self.write_all(std::mem::take(&mut jobs))?;
                    }
                }
                _ => self.attempt(path, || self.special(path, entry)),
            }
            Ok(Step::Enter)
        })?;
        self.write_all(jobs)?;
        for (path, entry) in &later {
            self.attempt(path, || self.link(path, entry));
        }
        for (path, kept) in &names {
            self.attempt(path, || self.delete_others(path, kept));
        }
        // Children before parents: making a file changes the times of its directory.
        let made = std::mem::take(&mut *self.made.lock().expect("no panics here"));
        for (path, entry, is_wanted) in directories.iter().rev() {
            if *is_wanted || made.contains(path) {
                self.attempt(path, || self.attributes(path, entry));
            }
        }
        Ok(())
    }

    /// Where a restore stopped half-way, the directories below a selection may not be there yet.
    fn directory(&self, path: &[u8]) -> Result<bool> {
        let mut is_there = false;
        self.attempt(path, || {
            is_there = self.make_directory(path)?;
            self.count(|report| report.directories += 1);
            Ok(())
        });
        Ok(is_there)
    }

    fn make_directory(&self, path: &[u8]) -> io::Result<bool> {
        if self.options.dry_run {
            return Ok(true);
        }
        if let Some(stat) = self.target.stat(path)? {
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                return Ok(true);
            }
            if self.options.overwrite == Overwrite::Never {
                return Err(exists());
            }
            self.target.remove(path)?;
        }
        let (parent, name) = self.parent(path)?;
        rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
        Ok(true)
    }

    /// Directories on the way to a selected path, which are not restored themselves.
    fn make_parents(&self, path: &[u8]) -> io::Result<()> {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let (parent, name) = self.target.parent(&path[..at])?;
            match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) => {
                    self.made.lock().expect("no panics here").insert(path[..at].to_vec());
                }
                Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn order(&self, content: &Content) -> Result<(i64, usize)> {
        let first = match content {
            Content::Chunk(id) => self.repository.index().find(&id.key())?,
            _ => None,
        };
        Ok(first.map_or((i64::MAX, 0), |found| (found.pack.number, found.ordinal)))
    }

    fn write_all(&self, mut jobs: Vec<Job>) -> Result<()> {
        jobs.sort_by_key(|job| job.order);
        jobs.par_iter().with_max_len(64).try_for_each(|job| {
            if self.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            match self.write(job) {
                Ok(()) | Err(Error::Interrupted) => {}
                Err(error) => self.problem(&job.path, &error.to_string()),
            }
            Ok(())
        })
    }

    fn write(&self, job: &Job) -> Result<()> {
        let io = |source| Error::Io { action: "restore", path: String::new(), source };
        let size = job.entry.size();
        let existing = self.target.stat(&job.path).map_err(io)?;
        let is_same = existing.as_ref().is_some_and(|stat| {
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            let modified =
                Moment { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 };
            let is_newer = modified > job.entry.modified;
            let is_equal = stat.st_size as u64 == size && modified == job.entry.modified;
            is_file
                && match self.options.overwrite {
                    Overwrite::IfChanged => is_equal,
                    Overwrite::IfNewer => is_newer || is_equal,
                    Overwrite::Never | Overwrite::Always => false,
                }
        });
        if is_same {
            self.count(|report| report.unchanged += 1);
            return Ok(());
        }
        if existing.is_some() && self.options.overwrite == Overwrite::Never {
            return Err(Error::Conflict(EXISTS.to_owned()));
        }
        let written = if self.options.dry_run {
            Written { bytes: size, written: size, file: None }
        } else {
            self.put(job, existing.as_ref())?
        };
        if let Some(file) = &written.file {
            let owners = (!self.options.no_owner).then_some(&self.owners);
            attributes::apply(attributes::Place::Open(file.as_fd()), &job.entry, owners)
                .map_err(io)?;
        }
        Progress::add(&self.progress.done_bytes, size);
        self.count(|report| {
            report.files += 1;
            report.bytes += written.bytes;
            report.written_bytes += written.written;
        });
        Ok(())
    }

    fn put(&self, job: &Job, existing: Option<&Stat>) -> Result<Written> {
        let io = |source| Error::Io { action: "restore", path: String::new(), source };
        let (parent, name) = self.parent(&job.path).map_err(io)?;
        let mut scratch = match self.scratches.lock().expect("no panics here").pop() {
            Some(scratch) => scratch,
            None => Scratch::new()?,
        };
        let options = (self.options.sparse, self.options.verify);
        let entry = &job.entry;
        let written =
            write_file(&self.reader, &parent, name, entry, existing, options, &mut scratch);
        self.scratches.lock().expect("no panics here").push(scratch);
        written
    }

    /// The directory that a path is in, which is made where it is not there, and its name.
    fn parent<'p>(&self, path: &'p [u8]) -> io::Result<(Arc<OwnedFd>, &'p OsStr)> {
        match self.target.parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_parents(path)?;
                self.target.parent(path)
            }
            other => other,
        }
    }

    fn special(&self, path: &[u8], entry: &Entry) -> io::Result<()> {
        if self.options.dry_run {
            self.count(|report| report.files += 1);
            return Ok(());
        }
        self.clear(path)?;
        let (parent, name) = self.parent(path)?;
        let make = |kind: FileType, device: u64| {
            rustix::fs::mknodat(&parent, name, kind, Mode::RUSR | Mode::WUSR, device)
        };
        match &entry.kind {
            Kind::Symlink { target } => {
                rustix::fs::symlinkat(std::ffi::OsStr::from_bytes(target), &parent, name)?;
            }
            Kind::Fifo => make(FileType::Fifo, 0)?,
            Kind::Socket => make(FileType::Socket, 0)?,
            Kind::BlockDevice { device } => make(FileType::BlockDevice, *device)?,
            Kind::CharDevice { device } => make(FileType::CharacterDevice, *device)?,
            Kind::File { .. } | Kind::Directory { .. } => {}
        }
        self.attributes(path, entry)?;
        self.count(|report| report.files += 1);
        Ok(())
    }

    fn link(&self, path: &[u8], entry: &Entry) -> io::Result<()> {
        let identity = (entry.device, entry.inode);
        let first = self.links.lock().expect("no panics here").get(&identity).cloned();
        let Some(first) = first else { return Ok(()) };
        if !self.options.dry_run {
            self.clear(path)?;
            let (from, from_name) = self.target.parent(&first)?;
            let (parent, name) = self.parent(path)?;
            rustix::fs::linkat(&from, from_name, &parent, name, AtFlags::empty())?;
        }
        self.count(|report| report.files += 1);
        Ok(())
    }

    /// Remembers the first name of a file with several. Whether this is another one.
    fn is_known_link(&self, entry: &Entry, path: &[u8]) -> bool {
        let identity = (entry.device, entry.inode);
        let mut links = self.links.lock().expect("no panics here");
        if links.contains_key(&identity) {
            return true;
        }
        links.insert(identity, path.to_vec());
        false
    }

    /// Makes room for something that cannot be written in place.
    fn clear(&self, path: &[u8]) -> io::Result<()> {
        match self.target.stat(path)? {
            None => Ok(()),
            Some(_) if self.options.overwrite == Overwrite::Never => Err(exists()),
            Some(_) => self.target.remove(path),
        }
    }

    fn attributes(&self, path: &[u8], entry: &Entry) -> io::Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        let owners = (!self.options.no_owner).then_some(&self.owners);
        if matches!(entry.kind, Kind::Directory { .. }) {
            let directory = self.target.directory(path)?;
            return attributes::apply(attributes::Place::Open(directory.as_fd()), entry, owners);
        }
        let (parent, name) = self.target.parent(path)?;
        attributes::apply(attributes::Place::Named(&parent, name), entry, owners)
    }

    fn note_name(&self, names: &mut [(Vec<u8>, BTreeSet<Vec<u8>>)], path: &[u8]) {
        let at = path.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = at.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
        // The walk is depth first: the directory is one of the last.
        if let Some((_, kept)) = names.iter_mut().rev().find(|(directory, _)| directory == parent) {
            kept.insert(name.to_vec());
        }
    }

    fn delete_others(&self, path: &[u8], kept: &BTreeSet<Vec<u8>>) -> io::Result<()> {
        if self.options.dry_run && self.target.stat(path)?.is_none() {
            return Ok(());
        }
        for name in self.target.list(path)? {
            if !kept.contains(&name) {
                if !self.options.dry_run {
                    self.target.remove(&[path, b"/", &name].concat())?;
                }
                self.count(|report| report.deleted += 1);
            }
        }
        Ok(())
    }

    fn attempt(&self, path: &[u8], action: impl FnOnce() -> io::Result<()>) {
        if let Err(error) = action() {
            self.problem(path, &error.to_string());
        }
    }

    fn problem(&self, path: &[u8], detail: &str) {
        let name = Name::new([b"/", path].concat());
        self.count(|report| report.problems.push((name, detail.to_owned())));
    }

    fn count(&self, change: impl FnOnce(&mut TreeReport)) {
        change(&mut self.report.lock().expect("no panics here"));
    }
}

const EXISTS: &str = "exists already; allow it with --overwrite";

fn exists() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, EXISTS)
}
