//! A deterministic scheduler: writers, prunes, forgets and readers are the real library on stores of
//! their own, all of them views of one store in memory. Every store operation is a place where
//! another actor may go on, and where a fault may strike. A seed gives one history.
//!
//! `world` decides who goes next and what happens to an operation, `actors` are what they do,
//! `ledger` folds the commit log anew and checks what must always hold, `saboteur` breaks rules on
//! purpose, to see that this is noticed.

pub mod actors;
pub mod data;
pub mod ledger;
pub mod saboteur;
pub mod store;
pub mod world;

use std::sync::Arc;
use std::time::Duration;

use restow::check::{ReadData, run as check};
use restow::progress::Progress;
use restow::prune::{PruneOptions, Unused, run as prune};
use restow::repository::Repository;

pub use saboteur::Sabotage;
use world::Sim;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub seed: u64,
    /// Store operations before all faults end and everybody comes to an end.
    pub steps: u64,
    pub sabotage: Option<Sabotage>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub operations: u64,
    pub faults: u64,
    pub crashes: u64,
    pub entries: u64,
    pub rescues: u64,
    pub snapshots: u64,
    /// Backups of streams that a prune made fail: they were run again.
    pub again: u64,
    /// Hash of every operation and its outcome.
    pub history: String,
}

impl Outcome {
    /// Adds what came of another history.
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.entries += other.entries;
        self.rescues += other.rescues;
        self.snapshots += other.snapshots;
        self.again += other.again;
    }
}

/// So many prunes in a row find nothing more to do, at the latest.
const SETTLED_AFTER: usize = 6;

/// Runs one history. The error says which rule was broken, and what happened last.
pub fn run(setup: Setup) -> Result<Outcome, String> {
    let sim = Sim::new(setup);
    actors::run_all(&sim);
    let outcome = sim.end()?;
    if setup.sabotage.is_none() {
        converges(&sim).map_err(|violation| sim.story(&violation))?;
    }
    Ok(outcome)
}

/// With everybody gone, prunes leave nothing but what live snapshots need, and all of that.
fn converges(sim: &Arc<Sim>) -> Result<(), String> {
    let repository = sim.open_plainly();
    same_index(sim, &repository)?;
    let options = PruneOptions {
        grace: Duration::ZERO,
        max_unused: Unused::Bytes(0),
        allow_empty: true,
        ..PruneOptions::default()
    };
    let progress = Progress::default();
    let run = || {
        let report = prune(&repository, &options, &progress);
        // Before the next prune deletes what this one added.
        sim.lock().ledger.catch_up()?;
        report.map_err(|error| format!("prune: {error}"))
    };
    let mut last = run()?;
    // A chain that is ended may let another one be worth it.
    for _ in 1..SETTLED_AFTER {
        if last.deleted == 0 && last.written_bytes == 0 {
            break;
        }
        last = run()?;
    }
    if last.deleted > 0 || last.written_bytes > 0 {
        return Err(format!("prune {SETTLED_AFTER} still finds something to do: {last:?}"));
    }
    let report = check(&repository, ReadData::All, &progress).map_err(|error| error.to_string())?;
    if !report.problems.is_empty() || report.orphans > 0 {
        return Err(format!("not clean: {:?}, {} orphans", report.problems, report.orphans));
    }
    let mut world = sim.lock();
    world.ledger.catch_up()?;
    world.ledger.restore_all()
}

/// An index made anew from the log is the one that was maintained all along.
fn same_index(sim: &Arc<Sim>, repository: &Repository) -> Result<(), String> {
    let rows = |repository: &Repository| repository.index().dump_rows().expect("rows are readable");
    let mut world = sim.lock();
    world.ledger.catch_up()?;
    if rows(repository) == rows(world.ledger.observer()) {
        return Ok(());
    }
    Err("an index made anew differs from the one that was maintained".into())
}
