//! Deltas in whole histories: chains stay short, every day comes back, moved parts are found again.

use std::sync::Arc;

use restow::delta::MAX_CHAIN;
use restow::repository::Repository;
use restow::store::memory::MemoryStore;

use crate::support::*;

fn deepest(repository: &Repository) -> u8 {
    let mut deepest = 0;
    for (name, _) in repository.index().packs().unwrap() {
        let pack = repository.index().pack(&name).unwrap().unwrap();
        deepest = pack.entries.iter().map(|entry| entry.depth).max().unwrap_or(0).max(deepest);
    }
    deepest
}

#[test]
fn sixty_days_come_back_and_chains_stay_bounded() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let days: Vec<_> = (0..60).map(|day| changed_rows(1, 800, day, 30)).collect();
    for day in &days {
        back_up(&repository, day).unwrap();
    }
    assert!((3..=MAX_CHAIN).contains(&deepest(&repository)));
    let held = contents(&repository).unwrap();
    assert!(days.iter().all(|day| held.values().any(|bytes| bytes == day)));
    let plain: usize = days.iter().map(Vec::len).sum();
    assert!(store.total_bytes() < plain as u64 / 3, "{} of {plain}", store.total_bytes());
}

#[test]
fn a_big_insertion_does_not_lose_the_place() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let old = rows(1, 20_000);
    back_up(&repository, &old).unwrap();
    let mut new = random_bytes(5, 300_000);
    new.extend(changed_rows(1, 20_000, 1, 25));
    let report = back_up(&repository, &new).unwrap();
    let summary = report.snapshot.summary;
    assert!(summary.new_bytes < 330_000, "{summary:?}");
    assert!(summary.delta_bytes > 400_000, "{summary:?}");
    assert!(read(&repository, &report.snapshot.streams[0]).unwrap() == new);
}

#[test]
fn swapped_halves_are_found_again() {
    let repository = init(Arc::new(MemoryStore::new())).unwrap();
    let old = rows(1, 20_000);
    back_up(&repository, &old).unwrap();
    let changed = changed_rows(1, 20_000, 1, 25);
    let (left, right) = changed.split_at(changed.len() / 2);
    let new = [right, left].concat();
    let summary = back_up(&repository, &new).unwrap().snapshot.summary;
    assert!(summary.new_bytes < new.len() as u64 / 20, "{summary:?}");
}

#[test]
fn pages_of_a_binary_file_are_deltas_too() {
    let repository = init(Arc::new(MemoryStore::new())).unwrap();
    let mut image = random_bytes(1, 2_000_000);
    back_up(&repository, &image).unwrap();
    for page in (0..image.len() - 8192).step_by(8192) {
        let at = page + 24 + noise(page as u64) as usize % 4000;
        image[at..at + 16].fill(0xee);
    }
    let report = back_up(&repository, &image).unwrap();
    let summary = report.snapshot.summary;
    // Some changes hit the few bytes that decide a cut.
    assert!(summary.new_bytes < image.len() as u64 / 20, "{summary:?}");
    assert!(read(&repository, &report.snapshot.streams[0]).unwrap() == image);
}

/// Chunks on their way to the encoders keep the buffers they were read into. A few small ones, far
/// apart, must not keep all of them.
#[test]
fn a_few_changes_far_apart_do_not_starve_the_reader() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let mut bytes = random_bytes(9, 40 << 20);
    back_up(&repository, &bytes).unwrap();
    for at in (0..bytes.len()).step_by(3 << 20) {
        bytes[at + 12_345] ^= 1;
    }
    for count in [1, 3] {
        let names = ["stream", "second", "third"];
        let streams = names[..count].iter().map(|name| source(name, &bytes)).collect();
        let report =
            restow::backup::run(&repository, options(streams), &Default::default()).unwrap();
        assert!(read(&repository, &report.snapshot.streams[0]).unwrap() == bytes);
        bytes[7] ^= 1;
    }
}
