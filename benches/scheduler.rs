//! The long campaign of the deterministic scheduler (`tests/it/sim`): many seeds, each a history of
//! writers, prunes, forgets and readers with faults.
//!
//! `cargo bench --bench scheduler -- [--seeds N] [--from N] [--steps N] [--threads N]`. A violation
//! ends it with the seed and what happened last; `--from SEED --seeds 1` runs that history again.
//! `--broken` tells instead, of each rule that is broken on purpose, how soon that is noticed.
#![allow(missing_docs, clippy::unwrap_used, reason = "benches")]

#[path = "../tests/it/sim/mod.rs"]
mod sim;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sim::{Outcome, Sabotage, Setup, run};

struct Campaign {
    from: u64,
    seeds: u64,
    steps: u64,
    threads: u64,
}

impl Campaign {
    /// From the command line; what cargo adds is passed over.
    fn parse() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let number = |name: &str, default: u64| {
            let at = arguments.iter().position(|argument| argument == name);
            at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
        };
        let processors = std::thread::available_parallelism().map_or(2, usize::from) as u64;
        Self {
            from: number("--from", 0),
            seeds: number("--seeds", 200),
            steps: number("--steps", 600),
            threads: number("--threads", processors),
        }
    }

    /// The sum of all histories, or the first violation.
    fn run(&self) -> Result<Outcome, String> {
        let next = AtomicU64::new(self.from);
        let total = Mutex::new(Ok(Outcome::default()));
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= self.from + self.seeds || total.lock().unwrap().is_err() {
                            return;
                        }
                        let outcome = run(Setup { seed, steps: self.steps, sabotage: None });
                        let mut total = total.lock().unwrap();
                        match (&mut *total, outcome) {
                            (Ok(total), Ok(outcome)) => total.add(&outcome),
                            (Ok(_), Err(violation)) => *total = Err(violation),
                            (Err(_), _) => {}
                        }
                    }
                });
            }
        });
        total.into_inner().unwrap()
    }
}

/// How many of the seeds notice each broken rule, and which is the first.
fn broken(campaign: &Campaign) {
    for sabotage in Sabotage::ALL {
        let seeds = campaign.from..campaign.from + campaign.seeds;
        let setup = |seed| Setup { seed, steps: campaign.steps, sabotage: Some(sabotage) };
        let is_noticed = |seed: &u64| match run(setup(*seed)) {
            Ok(_) => false,
            Err(violation) if violation.contains("panic") => panic!("{violation}"),
            Err(_) => true,
        };
        let noticed: Vec<u64> = seeds.filter(is_noticed).collect();
        let (count, first) = (noticed.len(), noticed.first());
        println!("{sabotage:?}: noticed by {count} of {} seeds, first {first:?}", campaign.seeds);
    }
}

fn main() -> ExitCode {
    let campaign = Campaign::parse();
    if std::env::args().any(|argument| argument == "--broken") {
        broken(&campaign);
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let total = match campaign.run() {
        Ok(total) => total,
        Err(violation) => {
            eprintln!("{violation}");
            return ExitCode::FAILURE;
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let Outcome { operations, faults, crashes, entries, rescues, snapshots, again, .. } = total;
    println!(
        "seeds {}..{}: {operations} store operations, {entries} log entries, {snapshots} snapshots, \
         {rescues} rescues, {faults} faults, {crashes} crashes, {again} backups begun again, \
         0 violations; {seconds:.1} s, {:.0} operations/s",
        campaign.from,
        campaign.from + campaign.seeds,
        operations as f64 / seconds,
    );
    ExitCode::SUCCESS
}
