//! Random histories under the deterministic scheduler; see `sim`.

use crate::sim::{Outcome, Sabotage, Setup, run};

const STEPS: u64 = 600;

fn setup(seed: u64) -> Setup {
    Setup { seed, steps: STEPS, sabotage: None }
}

#[test]
fn no_schedule_loses_anything() {
    let mut total = Outcome::default();
    let seeds = std::env::var("SEEDS").map_or(200, |s| s.parse().unwrap());
    let from = std::env::var("FROM").map_or(0, |s| s.parse().unwrap());
    for seed in from..from+seeds {
        let outcome = run(setup(seed)).unwrap_or_else(|violation| panic!("{violation}"));
        total.operations += outcome.operations;
        total.entries += outcome.entries;
        total.rescues += outcome.rescues;
        total.snapshots += outcome.snapshots;
        total.faults += outcome.faults;
        total.crashes += outcome.crashes;
        total.again += outcome.again;
    }
    println!("{total:?}");
    assert!(total.rescues > 0 && total.snapshots > 0 && total.faults > 0 && total.crashes > 0);
}

#[test]
fn a_seed_gives_one_history() {
    for seed in 0..24 {
        assert_eq!(run(setup(seed)), run(setup(seed)), "seed {seed}");
    }
}

#[test]
fn every_broken_rule_is_noticed() {
    for sabotage in Sabotage::ALL {
        let broken = |seed: u64| run(Setup { sabotage: Some(sabotage), ..setup(seed) }).err();
        for seed in 0..6 { println!("{sabotage:?}: {:?}", broken(seed).map(|s| s[..160.min(s.len())].to_owned())); }
        let found = (0..200).find_map(broken);
        assert!(found.is_some(), "{sabotage:?} was not noticed");
    }
}
