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
use super::options::{Decision, Selection, TreeOptions, TreeReport};
use super::place::Target;
use super::plan::{Job, Plan};
use crate::error::{Error, Result};
use crate::format::directory::MAX_DEPTH;
use crate::format::entry::{Content, Entry, Kind};
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
    /// Where each file with several names was restored
    links: Mutex<HashMap<(u64, u64), Vec<u8>>>,
    /// Directories that were made on the way to something below.
    made: Mutex<HashSet<Vec<u8>>>,
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
        target: if options.dry_run {
            Target::look(&options.target)
        } else {
            Target::open(&options.target)
        }
        .map_err(io)?,
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
        let mut plan = Plan::default();
        let damaged = Mutex::new(Vec::new());
        let walked = trees::walk_past(
            self.repository,
            tree,
            b"",
            &mut |path, entry| self.visit(&mut plan, path, entry),
            &mut |path, error| damaged.lock().expect("no panics here").push((path.to_vec(), error)),
        );
        for (path, error) in damaged.into_inner().expect("no panics here") {
            let path = path.strip_prefix(b"/").unwrap_or(&path);
            // What was in it is not known: nothing may be removed.
            plan.names.remove(path);
            self.problem(path, &error.to_string());
        }
        // What was found before the walk failed is worth having.
        self.write_all(plan.jobs)?;
        walked?;
        for (path, entry) in &plan.links {
            self.report(path, self.link(path, entry));
        }
        for (path, kept) in &plan.names {
            self.report(path, self.delete_others(path, kept));
        }
        // Children before parents: making a file changes the times of its directory.
        let made = std::mem::take(&mut *self.made.lock().expect("no panics here"));
        for (path, entry, is_wanted) in plan.directories.iter().rev() {
            if *is_wanted || made.contains(path) {
                self.report(path, self.attributes(path, entry));
            }
        }
        Ok(())
    }

    fn visit(&self, plan: &mut Plan, path: &[u8], entry: &Entry) -> Result<Step> {
        if self.progress.is_interrupted() {
            return Err(Error::Interrupted);
        }
        let is_directory = matches!(entry.kind, Kind::Directory { .. });
        let absolute = Path::new(OsStr::from_bytes(path));
        let wanted = self.options.wanted.as_ref();
        let selection = wanted.map_or(Selection::All, |wanted| wanted(absolute, is_directory));
        let path = path.strip_prefix(b"/").unwrap_or(path);
        match (selection, is_directory) {
            (Selection::None, _) | (Selection::Below, false) => return Ok(Step::Pass),
            (Selection::Below, true) => {
                plan.directories.push((path.to_vec(), entry.clone(), false));
                return Ok(Step::Enter);
            }
            (Selection::All, _) => {}
        }
        if self.options.delete {
            plan.note_name(path);
        }
        match &entry.kind {
            Kind::Directory { is_whole, .. } => {
                if let Err(error) = self.directory(path, entry) {
                    self.report(path, Err(error));
                    return Ok(Step::Pass);
                }
                plan.directories.push((path.to_vec(), entry.clone(), true));
                if self.options.delete && *is_whole {
                    plan.names.insert(path.to_vec(), BTreeSet::new());
                } else if self.options.delete {
                    self.count(|report| report.partial_directories += 1);
                }
            }
            _ if entry.is_hard_link() && plan.is_known_link(entry) => {
                plan.links.push((path.to_vec(), entry.clone()));
            }
            Kind::File { content, .. } => {
                let order = self.order(content)?;
                plan.jobs.push(Job { path: path.to_vec(), entry: entry.clone(), order });
                if plan.jobs.len() >= WINDOW {
                    self.write_all(std::mem::take(&mut plan.jobs))?;
                }
            }
            _ => self.report(path, self.special(path, entry)),
        }
        Ok(Step::Enter)
    }

    /// Makes room for something that cannot be written in place.
    fn clear(&self, path: &[u8], stat: &Stat) -> io::Result<()> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return self.target.remove_one(path);
        }
        if self.options.delete {
            return self.target.remove(path);
        }
        let error = "a directory with files in it stands in its place; --delete would remove it";
        self.target.remove_one(path).map_err(|_| io::Error::other(error))
    }

    fn directory(&self, path: &[u8], entry: &Entry) -> io::Result<()> {
        self.count(|report| report.directories += 1);
        let stat = self.target.stat(path)?;
        let is_directory =
            |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if self.options.dry_run {
            return Ok(());
        }
        if let Some(stat) = stat.filter(is_directory) {
            let mode = Mode::from_raw_mode(stat.st_mode);
            if !mode.contains(Mode::RWXU) {
                // Its owner gets in to restore what is below; what it should be comes at the end.
                let directory = self.target.directory(path)?;
                let _ = rustix::fs::fchmod(&directory, mode | Mode::RWXU);
            }
            return Ok(());
        }
        match self.options.overwrite.decide(entry, stat)? {
            Decision::Replace(stat) => self.clear(path, &stat)?,
            Decision::Keep => return Err(io::Error::other("a newer file stands in its place")),
            Decision::Create | Decision::Unchanged => {}
        }
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::mkdirat(&parent, name, Mode::RWXU)?)
    }

    /// The directory that a path is in, made where it is not there, and the name in it.
    fn parent<'p>(&self, path: &'p [u8]) -> io::Result<(Arc<OwnedFd>, &'p OsStr)> {
        self.target.made_parent(path, &mut |made| {
            self.made.lock().expect("no panics here").insert(made.to_vec());
        })
    }

    /// Where the bytes are that must be read first. A delta stands with its base: the group that a
    /// base is in is then decoded once for all.
    fn order(&self, content: &Content) -> Result<(i64, usize)> {
        let Content::Chunk(id) = content else { return Ok((i64::MAX, 0)) };
        let mut found = self.repository.index().find(&id.key())?;
        for _ in 0..MAX_DEPTH {
            let base = found.as_ref().and_then(|found| found.entry().bases.first().copied());
            let Some(base) = base else { break };
            found = self.repository.index().find(&base)?;
        }
        Ok(found.map_or((i64::MAX, 0), |found| (found.pack.number, found.ordinal)))
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
        let written = if self.options.dry_run {
            Written { bytes: size, written: size, file: None }
        } else {
            self.put(job, existing.as_ref())?
        };
        self.restored(&job.entry, &job.path);
        Progress::add(&self.progress.done_bytes, size);
        self.count(|report| {
            report.files += 1;
            report.bytes += written.bytes;
            report.written_bytes += written.written;
        });
        if let Some(file) = &written.file {
            let owners = (!self.options.no_owner).then_some(&self.owners);
            attributes::apply(file.as_fd(), &job.entry, owners).map_err(io)?;
        }
        Ok(())
    }

    fn put(&self, job: &Job, existing: Option<&Stat>) -> Result<Written> {
        let io = |source| Error::Io { action: "restore", path: String::new(), source };
        if let Some(stat) = existing
            && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
        {
            self.clear(&job.path, stat).map_err(io)?;
            return self.put(job, None);
        }
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

    fn special(&self, path: &[u8], entry: &Entry) -> io::Result<()> {
        match self.options.overwrite.decide(entry, self.target.stat(path)?)? {
            Decision::Keep | Decision::Unchanged => {
                self.count(|report| report.unchanged += 1);
                return Ok(());
            }
            Decision::Replace(stat) if !self.options.dry_run => self.clear(path, &stat)?,
            Decision::Replace(_) | Decision::Create => {}
        }
        self.count(|report| report.files += 1);
        self.restored(entry, path);
        if self.options.dry_run {
            return Ok(());
        }
        let (parent, name) = self.parent(path)?;
        let make = |kind: FileType, device: u64| {
            rustix::fs::mknodat(&parent, name, kind, Mode::RUSR | Mode::WUSR, device)
        };
        match &entry.kind {
            Kind::Symlink { target } => {
                rustix::fs::symlinkat(OsStr::from_bytes(target), &parent, name)?;
            }
            Kind::Fifo => make(FileType::Fifo, 0)?,
            Kind::Socket => make(FileType::Socket, 0)?,
            Kind::BlockDevice { device } => make(FileType::BlockDevice, *device)?,
            Kind::CharDevice { device } => make(FileType::CharacterDevice, *device)?,
            Kind::File { .. } | Kind::Directory { .. } => {}
        }
        self.attributes(path, entry)
    }

    /// Another name of a file; the file itself where none of its names could be restored.
    fn link(&self, path: &[u8], entry: &Entry) -> io::Result<()> {
        let identity = (entry.device, entry.inode);
        let first = self.links.lock().expect("no panics here").get(&identity).cloned();
        let Some(first) = first else {
            if !matches!(entry.kind, Kind::File { .. }) {
                return self.special(path, entry);
            }
            let job = Job { path: path.to_vec(), entry: entry.clone(), order: (0, 0) };
            return self.write(&job).map_err(io::Error::other);
        };
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
            // As it should be, but not the same file.
            Decision::Unchanged | Decision::Replace(_) if !self.options.dry_run => {
                if let Some(stat) = there {
                    self.clear(path, &stat)?;
                }
            }
            _ => {}
        }
        self.count(|report| report.files += 1);
        if self.options.dry_run {
            return Ok(());
        }
        let (from, from_name) = self.target.parent(&first)?;
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::linkat(&from, from_name, &parent, name, AtFlags::empty())?)
    }

    /// Remembers where a file with several names stands.
    fn restored(&self, entry: &Entry, path: &[u8]) {
        if entry.is_hard_link() {
            let mut links = self.links.lock().expect("no panics here");
            links.entry((entry.device, entry.inode)).or_insert_with(|| path.to_vec());
        }
    }

    fn attributes(&self, path: &[u8], entry: &Entry) -> io::Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        let owners = (!self.options.no_owner).then_some(&self.owners);
        if matches!(entry.kind, Kind::Directory { .. }) {
            return attributes::apply(self.target.directory(path)?.as_fd(), entry, owners);
        }
        let (parent, name) = self.target.parent(path)?;
        attributes::apply(attributes::open(&parent, name, entry)?.as_fd(), entry, owners)
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

    fn report(&self, path: &[u8], result: io::Result<()>) {
        if let Err(error) = result {
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
