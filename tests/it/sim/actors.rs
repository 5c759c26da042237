//! What the actors do, over and over: back up, prune, forget, read, tag and hold.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use restow::backup::files::FilesSource;
use restow::backup::{BackupOptions, StreamSource, run as back_up};
use restow::error::{Error, ErrorKind, Result};
use restow::forget::forget;
use restow::progress::Progress;
use restow::prune::{PruneOptions, Unused, run as prune};
use restow::repository::Repository;
use restow::repository::snapshots::{Filter, NamedSnapshot};
use restow::source::StreamInput;
use restow::tag::{self, TagOptions};

use super::data::{Content, Dice, folder, rows};
use super::ledger::read;
use super::world::Sim;

/// Backups that are tried again once faults have ended.
const ATTEMPTS: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Writer,
    Pruner,
    Forgetter,
    Reader,
    Tagger,
}

impl Role {
    pub fn of(actor: usize) -> Self {
        [
            Self::Writer,
            Self::Pruner,
            Self::Writer,
            Self::Forgetter,
            Self::Pruner,
            Self::Reader,
            Self::Writer,
            Self::Tagger,
        ][actor % 8]
    }
}

/// Lets all actors run until they are done.
pub fn run_all(sim: &Arc<Sim>) {
    let count = sim.lock().actors.len();
    std::thread::scope(|scope| {
        for number in 0..count {
            let mut actor = Player::new(sim.clone(), number);
            scope.spawn(move || {
                actor.sim.wait_for_turn(number);
                let played = catch_unwind(AssertUnwindSafe(|| actor.play()));
                if let Err(panic) = played {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                    actor.sim.lock().violate(format!("panic: {}", text.unwrap_or_default()));
                }
                drop(actor.repository.take());
                actor.sim.finish(number);
            });
        }
    });
}

struct Player {
    sim: Arc<Sim>,
    number: usize,
    role: Role,
    dice: Dice,
    repository: Option<Repository>,
    starts: u64,
    /// Keeps its local index for the next start, as a machine would.
    cache: Option<tempfile::TempDir>,
    /// A backup that did not work yet.
    due: Option<Content>,
}

impl Player {
    fn new(sim: Arc<Sim>, number: usize) -> Self {
        let dice = Dice::new(sim.setup.seed, 100 + number as u64);
        let has_cache = sim.setup.seed % 8 == 5;
        let cache = has_cache.then(|| tempfile::tempdir().unwrap());
        let role = Role::of(number);
        Self { sim, number, role, dice, repository: None, starts: 0, cache, due: None }
    }

    fn play(&mut self) {
        let mut attempts = 0;
        loop {
            let is_quiet = self.sim.lock().is_quiet();
            if is_quiet && (self.due.is_none() || attempts == ATTEMPTS) {
                break;
            }
            attempts += usize::from(is_quiet);
            self.task();
        }
        let mut world = self.sim.lock();
        if self.due.is_some() && world.setup.sabotage.is_none() {
            world.violate(format!("writer {} never came to an end", self.number));
        }
    }

    /// One thing to do, by somebody who may have to open the repository first.
    fn task(&mut self) {
        let task = self.sim.lock().begin(self.number);
        let result = self.open().and_then(|()| match self.role {
            Role::Writer => self.back_up(task),
            Role::Pruner => self.prune(),
            Role::Forgetter => self.forget(task),
            Role::Reader => self.read(),
            Role::Tagger => self.tag(task),
        });
        let sim = self.sim.clone();
        let mut world = sim.lock();
        let line = match &result {
            Ok(()) => format!("{} {:?} task {task}: ok", self.number, self.role),
            Err(error) => format!("{} {:?} task {task}: {error}", self.number, self.role),
        };
        world.note(line);
        let (faults, is_crashed) =
            (world.actors[self.number].faults, world.actors[self.number].is_crashed);
        let is_honest = world.setup.sabotage.is_none();
        let Err(error) = result else {
            drop(world);
            self.forget_repository(100_000);
            return;
        };
        if is_crashed || world.violation.is_some() {
            drop(world);
            self.repository = None;
            return;
        }
        let text = error.to_string();
        let is_unknown = text.contains("is not known");
        let is_commit = matches!(self.role, Role::Writer | Role::Forgetter | Role::Tagger);
        if is_commit && let Err(violation) = world.ledger.failed(task, is_unknown, &text) {
            world.violate(violation);
        }
        world.outcome.again += u64::from(matches!(error, Error::Pruned { .. }));
        // Where nothing went wrong, only another's change is a reason to fail.
        let is_refusal = error.kind() == ErrorKind::Conflict;
        if faults == 0 && !is_refusal && is_honest {
            world.violate(format!("{:?} failed without a fault: {text}", self.role));
        }
        drop(world);
        self.forget_repository(300_000);
    }

    /// The next task may be another process's.
    fn forget_repository(&mut self, in_a_million: u64) {
        if self.sim.setup.sabotage.is_some() || self.dice.hits(in_a_million) {
            self.repository = None;
        }
    }

    fn open(&mut self) -> Result<()> {
        if let Some(repository) = &self.repository {
            return repository.sync().map(drop);
        }
        self.starts += 1;
        let cache: Option<PathBuf> = self.cache.as_ref().map(|folder| folder.path().to_owned());
        self.repository = Some(self.sim.open(self.number, self.starts, cache)?);
        Ok(())
    }

    fn repository(&self) -> &Repository {
        self.repository.as_ref().expect("it was opened")
    }

    fn snapshots(&self) -> Result<Vec<NamedSnapshot>> {
        self.repository().snapshots(&Filter::default())
    }

    /// Reports a commit; `false` where there was nothing to do.
    fn committed(&self, task: u64) {
        let mut world = self.sim.lock();
        if let Err(violation) = world.ledger.succeeded(task) {
            world.violate(violation);
        }
    }

    fn back_up(&mut self, task: u64) -> Result<()> {
        let content = match self.due.take() {
            Some(content) => content,
            None => self.content(),
        };
        self.due = Some(content.clone());
        let tag = format!("t{task}");
        self.sim.lock().ledger.expect_content(&tag, content.clone());
        let mut options = BackupOptions {
            host: format!("h{}", self.number % 2),
            tags: vec![tag],
            threads: 1,
            ..BackupOptions::default()
        };
        match &content {
            Content::Stream(bytes) => {
                let input = Box::new(Bytes { bytes: bytes.clone(), at: 0 });
                options.streams = vec![StreamSource { name: "s".into(), input, min_bytes: 0 }];
            }
            Content::Files(files) => {
                let paths = files.keys().map(PathBuf::from).collect();
                options.files = Some(FilesSource { paths, ..FilesSource::default() });
            }
        }
        let report = back_up(self.repository(), options, &Progress::default())?;
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        self.committed(task);
        self.due = None;
        Ok(())
    }

    fn content(&mut self) -> Content {
        if self.sim.setup.seed % 4 == 3 && self.dice.hits(700_000) {
            let lot = self.dice.next();
            let chosen = folder().files.iter().enumerate().filter(|(at, _)| lot >> at & 1 == 1);
            let files =
                chosen.map(|(_, (path, bytes))| (path.display().to_string(), bytes.clone()));
            let files: std::collections::BTreeMap<_, _> = files.collect();
            if !files.is_empty() {
                return Content::Files(files);
            }
        }
        let (table, day) = (self.dice.below(2), self.dice.below(5));
        Content::Stream(rows(table, day, 20 + self.dice.below(120)))
    }

    fn prune(&mut self) -> Result<()> {
        let options = PruneOptions {
            grace: Duration::from_secs(*self.dice.pick(&[0, 0, 3600, 24 * 3600])),
            max_unused: *self.dice.pick(&[Unused::Bytes(0), Unused::Share(0.3), Unused::Unlimited]),
            max_repack_bytes: *self.dice.pick(&[None, None, Some(1000)]),
            repack_small: self.dice.hits(300_000),
            allow_empty: self.dice.hits(800_000),
            ..PruneOptions::default()
        };
        prune(self.repository(), &options, &Progress::default()).map(drop)
    }

    fn forget(&mut self, task: u64) -> Result<()> {
        let all = self.snapshots()?;
        let count = self.dice.below(3).max(1);
        let mut names = BTreeSet::new();
        for _ in 0..count.min(all.len() as u64) {
            names.insert(self.dice.pick(&all).name);
        }
        let forgotten = forget(self.repository(), &names, true)?;
        if !forgotten.is_empty() {
            self.committed(task);
        }
        Ok(())
    }

    fn tag(&mut self, task: u64) -> Result<()> {
        let mut chosen = self.snapshots()?;
        if chosen.is_empty() {
            return Ok(());
        }
        let at = self.dice.below(chosen.len() as u64) as usize;
        chosen = vec![chosen.swap_remove(at)];
        let changed = match self.dice.below(3) {
            0 => tag::hold(self.repository(), &chosen, true)?,
            1 => tag::hold(self.repository(), &chosen, false)?,
            _ => {
                let options = TagOptions { add: vec![format!("x{task}")], ..TagOptions::default() };
                tag::run(self.repository(), &chosen, &options)?
            }
        };
        if !changed.is_empty() {
            self.committed(task);
        }
        Ok(())
    }

    /// Reads a snapshot, which may be forgotten and pruned meanwhile.
    fn read(&mut self) -> Result<()> {
        let all = self.snapshots()?;
        if all.is_empty() {
            return Ok(());
        }
        let chosen = self.dice.pick(&all).clone();
        let result = read(self.repository(), &chosen.snapshot);
        let mut world = self.sim.lock();
        let found = match result {
            Ok((found, _)) => found,
            Err(_) if !world.ledger.is_live(&chosen.name) => return Ok(()),
            Err(error) => return Err(error),
        };
        if world.ledger.content(&chosen.snapshot) != Some(&found) {
            world.violate(format!(
                "a reader got something else than went into {:?}",
                chosen.snapshot.tags
            ));
        }
        Ok(())
    }
}

struct Bytes {
    bytes: Vec<u8>,
    at: usize,
}

impl StreamInput for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(self.bytes.len() - self.at);
        buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
