//! Random histories against a plain model: a map from snapshot to bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use restow::store::memory::MemoryStore;

use crate::support::*;

#[derive(Debug, Clone)]
enum Edit {
    Overwrite { at: usize, length: usize, seed: u64 },
    Insert { at: usize, length: usize, seed: u64 },
    Remove { at: usize, length: usize },
    Move { from: usize, length: usize, to: usize },
    Zeros { at: usize, length: usize },
    Reopen,
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = 0..60_000usize;
    let length = 0..20_000usize;
    prop_oneof![
        (place.clone(), length.clone(), any::<u64>())
            .prop_map(|(at, length, seed)| Edit::Overwrite { at, length, seed }),
        (place.clone(), length.clone(), any::<u64>()).prop_map(|(at, length, seed)| Edit::Insert {
            at,
            length,
            seed
        }),
        (place.clone(), length.clone()).prop_map(|(at, length)| Edit::Remove { at, length }),
        (place.clone(), length.clone(), place.clone()).prop_map(|(from, length, to)| Edit::Move {
            from,
            length,
            to
        }),
        (place, length).prop_map(|(at, length)| Edit::Zeros { at, length }),
        Just(Edit::Reopen),
    ]
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    let clamp = |at: usize, length: usize, total: usize| {
        let at = at.min(total);
        at..(at + length).min(total)
    };
    match *edit {
        Edit::Overwrite { at, length, seed } => {
            let range = clamp(at, length, bytes.len());
            let new = random_bytes(seed, range.len());
            bytes[range].copy_from_slice(&new);
        }
        Edit::Insert { at, length, seed } => {
            let at = at.min(bytes.len());
            bytes.splice(at..at, random_bytes(seed, length));
        }
        Edit::Remove { at, length } => drop(bytes.drain(clamp(at, length, bytes.len()))),
        Edit::Move { from, length, to } => {
            let part: Vec<u8> = bytes.drain(clamp(from, length, bytes.len())).collect();
            let to = to.min(bytes.len());
            bytes.splice(to..to, part);
        }
        Edit::Zeros { at, length } => {
            let at = at.min(bytes.len());
            bytes.splice(at..at, vec![0; length]);
        }
        Edit::Reopen => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn every_snapshot_is_what_went_in(start in 0usize..80_000, edits in prop::collection::vec(edit(), 1..12)) {
        let store = Arc::new(MemoryStore::new());
        let mut repository = init(store.clone()).unwrap();
        let mut model = BTreeMap::new();
        let mut bytes = random_bytes(start as u64, start);
        for edit in &edits {
            apply(&mut bytes, edit);
            if matches!(edit, Edit::Reopen) {
                repository = open(store.clone()).unwrap();
            }
            let report = back_up(&repository, &bytes).unwrap();
            model.insert(report.name.unwrap().to_hex(), bytes.clone());
        }
        prop_assert!(contents(&repository).unwrap() == model);
        prop_assert!(contents(&open(store).unwrap()).unwrap() == model);
    }
}
