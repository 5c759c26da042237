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
use rustix::fs::{FileType, Mode, Stat};

use super::attributes::{self, LocalOwners};
use super::options::{Decision, Overwrite, Selection, TreeOptions, TreeReport, modified_of};
use super::place::Target;
use super::plan::{Finally, Job, Plan};
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

pub(super) struct Restorer<'a> {
    pub(super) repository: &'a Repository,
    pub(super) reader: ChunkReader<'a>,
    pub(super) target: Target,
    pub(super) options: &'a TreeOptions,
    pub(super) owners: LocalOwners,
    pub(super) progress: &'a Progress,
    pub(super) report: Mutex<TreeReport>,
    pub(super) scratches: Mutex<Vec<Scratch>>,
    /// Where each file with several names was restored
    pub(super) links: Mutex<HashMap<(u64, u64), Vec<u8>>>,
    /// Directories that were made on the way to something below.
    pub(super) made: Mutex<HashSet<Vec<u8>>>,
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
        let restored = self.restore(tree, &mut plan);
        // Also where the rest failed: nothing is left with the permissions it had on the way.
        // Children before parents: making a file changes the times of its directory.
        let made = std::mem::take(&mut *self.made.lock().expect("no panics here"));
        for (path, entry, finally) in plan.directories.iter().rev() {
            let finally = if made.contains(path) { Finally::Attributes } else { *finally };
            self.report(path, self.finish_directory(path, entry, finally));
        }
        restored
    }

    fn restore(&self, tree: ChunkId, plan: &mut Plan) -> Result<()> {
        let damaged = Mutex::new(Vec::new());
        let walked = trees::walk_past(
            self.repository,
            tree,
            b"",
            &mut |path, entry| self.visit(plan, path, entry),
            &mut |path, error| damaged.lock().expect("no panics here").push((path.to_vec(), error)),
        );
        for (path, error) in damaged.into_inner().expect("no panics here") {
            let path = path.strip_prefix(b"/").unwrap_or(&path);
            // What was in it is not known: nothing may be removed.
            plan.names.remove(path);
            self.problem(path, &error.to_string());
        }
        // What was found before the walk failed is worth having.
        self.write_all(std::mem::take(&mut plan.jobs))?;
        walked?;
        for (path, entry) in &plan.links {
            self.report(path, self.link(path, entry));
        }
        self.options.kept.iter().for_each(|path| plan.note_path(path));
        for (path, kept) in &plan.names {
            self.report(path, self.delete_others(path, kept));
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
                plan.directories.push((path.to_vec(), entry.clone(), Finally::IfMade));
                return Ok(Step::Enter);
            }
            (Selection::All, _) => {}
        }
        if self.options.delete {
            plan.note_name(path);
        }
        match &entry.kind {
            Kind::Directory { is_whole, .. } => {
                let finally = match self.directory(path, entry) {
                    Ok(finally) => finally,
                    Err(error) => {
                        self.report(path, Err(error));
                        return Ok(Step::Pass);
                    }
                };
                plan.directories.push((path.to_vec(), entry.clone(), finally));
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

    /// Makes a directory, or sees that one is there. Tells what is to become of it in the end.
    fn directory(&self, path: &[u8], entry: &Entry) -> io::Result<Finally> {
        self.count(|report| report.directories += 1);
        let stat = self.target.stat(path)?;
        if self.options.dry_run {
            return Ok(Finally::Nothing);
        }
        let is_directory =
            |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if let Some(stat) = stat.filter(is_directory) {
            return self.existing_directory(path, entry, &stat);
        }
        match self.options.overwrite.decide(entry, stat)? {
            Decision::Replace(stat) => self.clear(path, &stat)?,
            Decision::Keep => return Err(io::Error::other("a newer file stands in its place")),
            Decision::Create | Decision::Unchanged => {}
        }
        let (parent, name) = self.parent(path)?;
        rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
        Ok(Finally::Attributes)
    }

    /// Its owner gets in to restore what is below; what it should be comes at the end.
    fn existing_directory(&self, path: &[u8], entry: &Entry, stat: &Stat) -> io::Result<Finally> {
        let mode = Mode::from_raw_mode(stat.st_mode);
        let is_closed = !mode.contains(Mode::RWXU);
        if is_closed {
            let (parent, name) = self.target.parent(path)?;
            let opened = attributes::open(&parent, name, entry)?;
            // Somebody else's may let us in all the same.
            let _ = attributes::change_mode(opened.as_fd(), mode | Mode::RWXU);
        }
        let is_older = modified_of(stat) <= entry.modified;
        Ok(match self.options.overwrite {
            Overwrite::Always | Overwrite::IfChanged => Finally::Attributes,
            Overwrite::IfNewer if is_older => Finally::Attributes,
            _ if is_closed => Finally::Mode(stat.st_mode & 0o7777),
            _ => Finally::Nothing,
        })
    }

    fn finish_directory(&self, path: &[u8], entry: &Entry, finally: Finally) -> io::Result<()> {
        match finally {
            Finally::Attributes => self.attributes(path, entry),
            Finally::Mode(mode) => {
                let directory = self.target.directory(path)?;
                attributes::change_mode(directory.as_fd(), Mode::from_raw_mode(mode))
            }
            Finally::IfMade | Finally::Nothing => Ok(()),
        }
    }

    /// The directory that a path is in, made where it is not there, and the name in it.
    pub(super) fn parent<'p>(&self, path: &'p [u8]) -> io::Result<(Arc<OwnedFd>, &'p OsStr)> {
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

    pub(super) fn attributes(&self, path: &[u8], entry: &Entry) -> io::Result<()> {
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

    pub(super) fn count(&self, change: impl FnOnce(&mut TreeReport)) {
        change(&mut self.report.lock().expect("no panics here"));
    }
}
