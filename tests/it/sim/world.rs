//! Who goes next, and what happens to an operation.
//!
//! Actors are threads of which one runs at a time: the one whose turn it is. Before each operation
//! it throws dice for who comes next, and waits where it is another.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use restow::chunker::Profile;
use restow::clock::Clock;
use restow::crypto::slot::Secret;
use restow::repository::{Environment, InitOptions, Repository};
use restow::store::memory::MemoryStore;
use restow::store::{ObjectInfo, Store, StoreError};

use super::data::{Dice, SeededEntropy};
use super::ledger::Ledger;
use super::saboteur::Saboteur;
use super::store::ActorStore;
use super::{Outcome, Setup};

/// 2040: later than any file was changed that is backed up.
const START_SECONDS: i64 = 2_208_988_800;
/// Operations that a violation is told with.
const STORY: usize = 60;
/// Nobody may need this many operations once faults have ended.
const PATIENCE: u64 = 60_000;

/// A call to the store.
#[derive(Debug, Clone, Copy)]
pub enum Operation<'a> {
    Put(&'a str, &'a [u8]),
    Get(&'a str),
    GetRange(&'a str, u64, usize),
    Head(&'a str),
    List(&'a str),
    Delete(&'a str),
}

/// What it answers.
#[derive(Debug)]
pub enum Reply {
    Done,
    Bytes(Vec<u8>),
    Listing(Vec<ObjectInfo>),
}

/// How often faults strike in one history, each in a million operations.
#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    crash: u64,
    put: u64,
    read: u64,
    list: u64,
    pause: u64,
    /// That the same actor goes on.
    stay: u64,
}

/// A put that is still on its way.
struct Late {
    path: String,
    bytes: Vec<u8>,
    task: u64,
}

/// One actor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Actor {
    weight: u64,
    paused_until: u64,
    pub is_crashed: bool,
    is_finished: bool,
    /// What it is doing, counted over all actors.
    pub task: u64,
    /// Faults that it met in this task.
    pub faults: u64,
}

/// All that the actors share.
pub struct World {
    pub setup: Setup,
    pub dice: Dice,
    pub truth: Arc<MemoryStore>,
    pub ledger: Ledger,
    pub actors: Vec<Actor>,
    pub saboteur: Option<Saboteur>,
    pub outcome: Outcome,
    pub violation: Option<String>,
    tasks: u64,
    rates: Rates,
    late: Vec<Late>,
    listings: VecDeque<Vec<ObjectInfo>>,
    full_until: u64,
    turn: usize,
    seconds: i64,
    history: blake3::Hasher,
    story: VecDeque<String>,
}

/// The world, and a bell for each actor.
pub struct Sim {
    world: Mutex<World>,
    bells: Vec<Condvar>,
    pub setup: Setup,
}

pub fn secret() -> Secret {
    Secret::KeyFile(vec![7; 32].into())
}

struct SimClock {
    sim: Arc<Sim>,
    /// Clocks of different machines differ.
    skew: i64,
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let seconds = self.sim.lock().seconds + self.skew;
        Timestamp::from_second(seconds).expect("a time within years")
    }
}

/// For those that take no part.
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(START_SECONDS).expect("a time within years")
    }
}

impl Sim {
    pub fn new(setup: Setup) -> Arc<Self> {
        let mut dice = Dice::new(setup.seed, 0);
        let truth = Arc::new(MemoryStore::new());
        let plain = environment(setup.seed, 1000);
        let options = InitOptions {
            stream_chunks: Profile { min: 64, avg: 256, max: 1024 },
            data_pack_bytes: 1 << dice.below(3).saturating_add(9),
            tree_pack_bytes: 512,
            ..InitOptions::default()
        };
        Repository::init(truth.clone(), &secret(), &options, plain).expect("a new store");
        let observer = Repository::open(truth.clone(), &secret(), environment(setup.seed, 1001));
        let ledger = Ledger::new(observer.expect("it was just made"), truth.clone());
        let count = 4 + dice.below(4) as usize;
        let actors: Vec<_> = (0..count)
            .map(|_| Actor { weight: *dice.pick(&[1, 3, 3, 10]), ..Actor::default() })
            .collect();
        let level = *dice.pick(&[0, 1, 1, 3]);
        let rates = Rates {
            crash: level * 2_000,
            put: level * 12_000,
            read: level * 1_000,
            list: level * 20_000,
            pause: *dice.pick(&[0, 3_000, 10_000]),
            stay: *dice.pick(&[0, 500_000, 900_000, 970_000]),
        };
        let world = World {
            setup,
            dice,
            truth,
            ledger,
            actors,
            saboteur: setup.sabotage.map(|sabotage| Saboteur::new(sabotage, count)),
            outcome: Outcome::default(),
            violation: None,
            tasks: 0,
            rates,
            late: Vec::new(),
            listings: VecDeque::new(),
            full_until: 0,
            turn: 0,
            seconds: START_SECONDS,
            history: blake3::Hasher::new(),
            story: VecDeque::new(),
        };
        let bells = (0..count).map(|_| Condvar::new()).collect();
        Arc::new(Self { world: Mutex::new(world), bells, setup })
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The repository as an actor sees it that starts now.
    pub fn open(
        self: &Arc<Self>,
        actor: usize,
        start: u64,
        cache: Option<std::path::PathBuf>,
    ) -> restow::error::Result<Repository> {
        let store = Arc::new(ActorStore { sim: self.clone(), actor });
        let skew = [0, 0, 7, -86_400, 40_000][actor % 5];
        let environment = Environment {
            clock: Arc::new(SimClock { sim: self.clone(), skew }),
            cache,
            ..environment(self.setup.seed, start << 8 | actor as u64)
        };
        Repository::open(store, &secret(), environment)
    }

    /// The repository without faults, for when everybody is gone.
    pub fn open_plainly(&self) -> Repository {
        let truth = self.lock().truth.clone();
        let environment = environment(self.setup.seed, 1002);
        Repository::open(truth, &secret(), environment).expect("the repository opens")
    }

    /// Blocks until it is this actor's turn.
    pub fn wait_for_turn(&self, actor: usize) {
        drop(self.my_turn(self.lock(), actor));
    }

    fn my_turn<'w>(&self, mut world: MutexGuard<'w, World>, actor: usize) -> MutexGuard<'w, World> {
        while world.turn != actor {
            world = self.bells[actor].wait(world).unwrap_or_else(PoisonError::into_inner);
        }
        world
    }

    /// This actor does nothing any more.
    pub fn finish(&self, actor: usize) {
        let mut world = self.lock();
        world.actors[actor].is_finished = true;
        if let Some(next) = world.choose(actor) {
            world.turn = next;
            self.bells[next].notify_one();
        }
    }

    /// One operation of an actor, once it is its turn.
    pub fn operate(&self, actor: usize, operation: Operation<'_>) -> Result<Reply, StoreError> {
        let mut world = self.lock();
        if world.is_over(actor) {
            return Err(crashed());
        }
        if let Some(next) = world.choose(actor).filter(|next| *next != actor) {
            world.turn = next;
            self.bells[next].notify_one();
            world = self.my_turn(world, actor);
        }
        world.perform(actor, operation)
    }

    /// The result, once all actors are done.
    pub fn end(&self) -> Result<Outcome, String> {
        let mut world = self.lock();
        world.deliver_all();
        if let Some(violation) = world.violation.take() {
            return Err(world.story(&violation));
        }
        world.outcome.history = world.history.finalize().to_hex().to_string();
        world.outcome.entries = world.ledger.head();
        world.outcome.rescues = world.ledger.rescues;
        world.outcome.snapshots = world.ledger.snapshots_ever();
        Ok(world.outcome.clone())
    }

    pub fn story(&self, violation: &str) -> String {
        self.lock().story(violation)
    }
}

impl World {
    /// Whether faults have ended, and actors should come to an end.
    pub fn is_quiet(&self) -> bool {
        self.outcome.operations >= self.setup.steps || self.violation.is_some()
    }

    fn is_over(&self, actor: usize) -> bool {
        self.actors[actor].is_crashed || self.violation.is_some()
    }

    pub fn violate(&mut self, rule: impl Into<String>) {
        self.violation.get_or_insert(rule.into());
    }

    /// A new task of an actor.
    pub fn begin(&mut self, actor: usize) -> u64 {
        self.tasks += 1;
        self.actors[actor].task = self.tasks;
        self.actors[actor].faults = 0;
        self.actors[actor].is_crashed = false;
        let head = self.ledger.head();
        if let Some(saboteur) = &mut self.saboteur {
            saboteur.begin(actor, head);
        }
        self.tasks
    }

    fn choose(&mut self, current: usize) -> Option<usize> {
        let now = self.outcome.operations;
        let is_quiet = self.is_quiet();
        if !self.actors[current].is_finished && !is_quiet {
            if self.dice.hits(self.rates.pause) {
                self.actors[current].paused_until = now + 50 + self.dice.below(600);
            } else if self.dice.hits(self.rates.stay) {
                return Some(current);
            }
        }
        let is_free = |actor: &&Actor| is_quiet || actor.paused_until <= now;
        let open = |actor: &&Actor| !actor.is_finished;
        let total: u64 = self.actors.iter().filter(open).filter(is_free).map(|a| a.weight).sum();
        if total == 0 {
            // All are paused: the first whose pause ends.
            let waiting = self.actors.iter().enumerate().filter(|(_, actor)| !actor.is_finished);
            return waiting.min_by_key(|(_, actor)| actor.paused_until).map(|(number, _)| number);
        }
        let mut lot = self.dice.below(total);
        for (number, actor) in self.actors.iter().enumerate() {
            if actor.is_finished || !(is_quiet || actor.paused_until <= now) {
                continue;
            }
            if lot < actor.weight {
                return Some(number);
            }
            lot -= actor.weight;
        }
        None
    }

    fn perform(&mut self, actor: usize, operation: Operation<'_>) -> Result<Reply, StoreError> {
        if self.is_over(actor) {
            return Err(crashed());
        }
        self.outcome.operations += 1;
        self.seconds += self.dice.below(300) as i64;
        if self.outcome.operations > self.setup.steps + PATIENCE {
            self.violate("somebody never comes to an end");
        }
        self.deliver();
        if self.dice.hits(50_000) {
            self.listings.push_back(self.truth.list("").expect("memory"));
            self.listings.truncate(4);
        }
        let result = self.strike(actor, operation);
        let word = match &result {
            Ok(Reply::Done) => "done".to_owned(),
            Ok(Reply::Bytes(bytes)) => format!("{} bytes", bytes.len()),
            Ok(Reply::Listing(listing)) => format!("{} objects", listing.len()),
            Err(error) => error.to_string(),
        };
        self.note(format!("{actor} {} -> {word}", name_of(operation)));
        result
    }

    /// Tells the story of this history.
    pub fn note(&mut self, line: String) {
        self.history.update(line.as_bytes());
        if self.story.len() == STORY {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }

    fn story(&self, violation: &str) -> String {
        let story: Vec<_> = self.story.iter().map(String::as_str).collect();
        let Setup { seed, .. } = self.setup;
        format!("seed {seed}: {violation}\n  {}", story.join("\n  "))
    }

    /// Puts that were on their way may arrive now.
    fn deliver(&mut self) {
        let mut at = 0;
        while at < self.late.len() {
            if self.dice.hits(30_000) {
                let late = self.late.swap_remove(at);
                self.note(format!("late {}", late.path));
                let _ = self.put(&late.path, &late.bytes, late.task);
            } else {
                at += 1;
            }
        }
    }

    fn deliver_all(&mut self) {
        for late in std::mem::take(&mut self.late) {
            let _ = self.put(&late.path, &late.bytes, late.task);
        }
    }

    /// An operation, and the fault that meets it.
    fn strike(&mut self, actor: usize, operation: Operation<'_>) -> Result<Reply, StoreError> {
        if self.is_quiet() {
            return self.happen(actor, operation);
        }
        if self.dice.hits(self.rates.crash) {
            self.outcome.crashes += 1;
            // Before the operation, or after it.
            if self.dice.hits(500_000) {
                let _ = self.happen(actor, operation);
            }
            self.actors[actor].is_crashed = true;
            return Err(crashed());
        }
        let rate = match operation {
            Operation::Put(..) | Operation::Delete(_) => self.rates.put,
            Operation::List(_) => self.rates.list,
            _ => self.rates.read,
        };
        let is_full = matches!(operation, Operation::Put(..))
            && self.outcome.operations < self.full_until
            && self.dice.hits(700_000);
        if !is_full && !self.dice.hits(rate) {
            return self.happen(actor, operation);
        }
        self.outcome.faults += 1;
        self.actors[actor].faults += 1;
        match operation {
            Operation::Put(path, _) if is_full => Err(full(path)),
            Operation::Put(path, bytes) => self.put_badly(actor, path, bytes),
            Operation::Delete(path) => {
                if self.dice.hits(500_000) {
                    self.happen(actor, operation)?;
                }
                Err(failed("delete", path))
            }
            Operation::List(prefix) => self.list_badly(prefix),
            Operation::Get(path) | Operation::GetRange(path, ..) | Operation::Head(path) => {
                Err(failed("read", path))
            }
        }
    }

    fn put_badly(&mut self, actor: usize, path: &str, bytes: &[u8]) -> Result<Reply, StoreError> {
        let task = self.actors[actor].task;
        let late = Late { path: path.to_owned(), bytes: bytes.to_vec(), task };
        let put = Operation::Put(path, bytes);
        let result = match self.dice.below(8) {
            // Done, and the reply is lost; a second delivery may follow.
            0 | 1 => {
                let _ = self.happen(actor, put);
                if self.dice.hits(500_000) {
                    self.late.push(late);
                }
                Err(unknown(path))
            }
            // Lost, or on its way for long.
            2 => Err(unknown(path)),
            3 | 4 => {
                self.late.push(late);
                Err(unknown(path))
            }
            // Done, and delivered again later.
            5 => {
                self.late.push(late);
                self.happen(actor, put)
            }
            // Something below tried twice and met itself; or a conflict of which nothing came.
            6 => {
                if self.dice.hits(700_000) {
                    let _ = self.happen(actor, put);
                }
                Err(StoreError::AlreadyExists { path: path.to_owned() })
            }
            _ => {
                self.full_until = self.outcome.operations + self.dice.below(40);
                Err(full(path))
            }
        };
        match self.saboteur.as_ref().is_some_and(Saboteur::takes_unknown_for_success) {
            true if matches!(result, Err(StoreError::Unknown { .. })) => Ok(Reply::Done),
            _ => result,
        }
    }

    fn list_badly(&mut self, prefix: &str) -> Result<Reply, StoreError> {
        match self.dice.below(4) {
            0 => Err(failed("list", prefix)),
            1 => Ok(Reply::Listing(Vec::new())),
            _ => {
                let count = self.listings.len() as u64;
                let old = match self.dice.below(count + 1) {
                    now if now == count => self.truth.list("").expect("memory"),
                    at => self.listings[at as usize].clone(),
                };
                let below = |object: &ObjectInfo| object.path.starts_with(prefix);
                Ok(Reply::Listing(old.into_iter().filter(below).collect()))
            }
        }
    }

    /// The operation itself.
    fn happen(&mut self, actor: usize, operation: Operation<'_>) -> Result<Reply, StoreError> {
        let truth = self.truth.clone();
        match operation {
            Operation::Put(path, bytes) => {
                let task = self.actors[actor].task;
                match self.tampered(actor, path, bytes)? {
                    Some((path, bytes)) => self.put(&path, &bytes, task),
                    None => self.put(path, bytes, task),
                }
            }
            Operation::Get(path) => {
                if self.saboteur.as_ref().is_some_and(|it| it.hides(actor, path)) {
                    return Err(StoreError::NotFound { path: path.to_owned() });
                }
                truth.get(path).map(Reply::Bytes)
            }
            Operation::GetRange(path, offset, length) => {
                truth.get_range(path, offset, length).map(Reply::Bytes)
            }
            Operation::Head(path) => {
                truth.head(path).map(|size| Reply::Bytes(vec![0; size as usize]))
            }
            Operation::List(prefix) => {
                let mut listing = truth.list(prefix)?;
                if let Some(saboteur) = &self.saboteur {
                    listing.retain(|object| !saboteur.hides(actor, &object.path));
                }
                Ok(Reply::Listing(listing))
            }
            Operation::Delete(path) => self.delete(path),
        }
    }

    pub fn put(&mut self, path: &str, bytes: &[u8], task: u64) -> Result<Reply, StoreError> {
        self.truth.put_new(path, bytes)?;
        if let Err(violation) = self.ledger.after_put(path, task) {
            self.violate(violation);
        }
        Ok(Reply::Done)
    }

    pub fn delete(&mut self, path: &str) -> Result<Reply, StoreError> {
        if let Err(violation) = self.ledger.before_delete(path) {
            self.violate(violation);
        }
        self.truth.delete(path)?;
        if let Err(violation) = self.ledger.after_delete(path) {
            self.violate(violation);
        }
        Ok(Reply::Done)
    }
}

fn environment(seed: u64, actor: u64) -> Environment {
    Environment {
        entropy: Arc::new(SeededEntropy::new(seed, actor)),
        clock: Arc::new(Stopped),
        in_order: true,
        ..Environment::system(format!("actor {actor}"), None)
    }
}

fn name_of(operation: Operation<'_>) -> String {
    match operation {
        Operation::Put(path, bytes) => format!("put {path} {}", bytes.len()),
        Operation::Get(path) => format!("get {path}"),
        Operation::GetRange(path, offset, length) => format!("read {path} {offset}+{length}"),
        Operation::Head(path) => format!("head {path}"),
        Operation::List(prefix) => format!("list {prefix}"),
        Operation::Delete(path) => format!("delete {path}"),
    }
}

fn crashed() -> StoreError {
    failed("reach", "a store after the end of its process")
}

fn failed(action: &'static str, path: &str) -> StoreError {
    let source = io::Error::other("on schedule");
    StoreError::Failed { action, path: path.to_owned(), source }
}

fn unknown(path: &str) -> StoreError {
    StoreError::Unknown { path: path.to_owned(), source: io::ErrorKind::TimedOut.into() }
}

fn full(path: &str) -> StoreError {
    StoreError::Full { path: path.to_owned(), source: io::ErrorKind::StorageFull.into() }
}
