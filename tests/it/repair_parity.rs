//! Rot in packs is mended by their parity.

use std::sync::Arc;
use std::time::Duration;

use restow::format::parity::Head;
use restow::format::paths;
use restow::id::ObjectName;
use restow::progress::Progress;
use restow::prune::{PruneOptions, Unused, run as prune};
use restow::repair::parity;
use restow::repository::snapshots::Filter;
use restow::repository::{InitOptions, Repository};
use restow::store::Store;
use restow::store::fault::{Fault, FaultStore};
use restow::store::memory::MemoryStore;

use crate::repair::*;
use crate::support::*;

/// A repository with parity whose packs have a few dozen blocks.
pub fn with_parity(parts: u16) -> (Arc<MemoryStore>, Vec<Vec<u8>>) {
    let store = Arc::new(MemoryStore::new());
    let options = InitOptions { parity: parts, data_pack_bytes: 200 << 10, ..small() };
    let environment = environment(Arc::new(restow::entropy::OsEntropy));
    let repository = Repository::init(store.clone(), &secret(), &options, environment).unwrap();
    let days: Vec<_> = (0..3).map(|day| changed_rows(1, 30_000, day, 20)).collect();
    for day in &days {
        back_up(&repository, day).unwrap();
    }
    (store, days)
}

pub fn mend_rot(store: &Arc<MemoryStore>) -> parity::ParityReport {
    parity::run(&open(store.clone()).unwrap(), &[], false, &Progress::default()).unwrap()
}

#[test]
fn every_pack_has_its_parity_and_prune_takes_both() {
    let (store, _) = with_parity(100);
    let count =
        |prefix: &str| store.objects().iter().filter(|(path, _)| path.starts_with(prefix)).count();
    assert_eq!(count("data/"), count("parity/"));
    assert_clean(&store, "with parity");
    let repository = open(store.clone()).unwrap();
    let all = repository.snapshots(&Filter::default()).unwrap();
    restow::forget::forget(&repository, &[all[0].name, all[1].name].into(), true).unwrap();
    // What a writer leaves that dies between pack and log.
    store.put_new(&paths::parity(&ObjectName([7; 32])), b"left").unwrap();
    let options =
        PruneOptions { grace: Duration::ZERO, max_unused: Unused::Bytes(0), ..Default::default() };
    let before = count("data/");
    prune(&repository, &options, &Progress::default()).unwrap();
    assert!(count("data/") < before);
    assert_eq!(count("data/"), count("parity/"));
    let report = full_check(&store);
    assert!(report.problems.is_empty() && report.orphans == 0, "{report:?}");
}

#[test]
fn rot_within_the_parity_is_mended_in_place() {
    let (store, days) = with_parity(100);
    let original = store.objects();
    let packs: Vec<_> = original.iter().filter(|(path, _)| path.starts_with("data/")).collect();
    for (path, bytes) in &packs {
        let size = bytes.len();
        let budget = {
            let name = paths::object_name(path).unwrap();
            let parity = store.get(&paths::parity(&name)).unwrap();
            let head = Head::read(&parity).unwrap();
            assert_eq!(head.length, size as u64);
            (parity.len() - 300) / 4200
        };
        let mut ways: Vec<Change> = vec![
            Box::new(move |bytes| bytes[size / 2] ^= 1),
            Box::new(move |bytes| bytes[size - 3] ^= 1),
            Box::new(move |bytes| bytes[0] ^= 1),
            // A sector.
            Box::new(move |bytes| {
                let at = size / 2 / 4096 * 4096;
                let end = (at + 4096).min(size);
                bytes[at..end].fill(0);
            }),
            // No further than the last block: small packs have one block of parity.
            Box::new(move |bytes| bytes.truncate(size - ((size - 1) % 4096 + 1).min(100))),
        ];
        if budget > 1 {
            ways.push(Box::new(move |bytes| {
                (0..budget).for_each(|block| bytes[(block * 2 * 4096) % size] ^= 1);
            }));
        }
        for (number, damage) in ways.iter().enumerate() {
            let damaged = Arc::new(store.fork());
            damaged.damage(path, damage);
            let report = full_check(&damaged);
            let is_said = report.problems.iter().any(|problem| problem.is_mendable);
            // A pack that is too short is seen without reading it too.
            assert!(is_said, "{path} {number}: {:?}", report.problems);
            assert!(report.advice().iter().any(|text| text.contains("check --repair")));
            assert_eq!(mend_rot(&damaged).mended.len(), 1, "{path} {number}");
            assert_clean(&damaged, path);
            assert_eq!(damaged.objects(), original, "{path} {number}");
        }
    }
    assert_eq!(days_held(&store), days.into_iter().collect());
}

#[test]
fn rot_beyond_the_parity_is_left_alone_and_saved_by_repair_packs() {
    let (store, days) = with_parity(20);
    // A small pack has more parity than was asked for.
    let packs = store.objects().into_iter().filter(|(path, _)| path.starts_with("data/"));
    let victim = packs.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    store.damage(&victim.0, |bytes| bytes.chunks_mut(4096).step_by(2).for_each(|b| b[9] ^= 1));
    let before = store.objects();
    let report = mend_rot(&store);
    assert!(report.mended.is_empty() && report.findings.len() == 1, "{report:?}");
    assert!(report.findings[0].detail.contains("blocks are damaged"), "{report:?}");
    assert_eq!(store.objects(), before);
    assert_mended(&store, &days, 0, "beyond the parity");
}

#[test]
fn lost_and_damaged_parity_is_made_again() {
    let (store, _) = with_parity(50);
    let original = store.objects();
    let parity: Vec<_> = original.iter().filter(|(path, _)| path.starts_with("parity/")).collect();
    store.delete(&parity[0].0).unwrap();
    store.damage(&parity[1].0, |bytes| bytes[100] ^= 1);
    store.damage(&parity[2].0, |bytes| bytes.truncate(10));
    let report = full_check(&store);
    assert_eq!(report.problems.len(), 3, "{:?}", report.problems);
    assert_eq!(report.advice(), ["'restow repair parity' makes parity again"]);
    assert_eq!(mend_rot(&store).renewed.len(), 3);
    assert_eq!(store.objects(), original);
    // A damaged parity of a damaged pack still mends.
    let name = paths::object_name(&parity[0].0).unwrap();
    store.damage(&parity[0].0, |bytes| bytes[70] ^= 1);
    store.damage(&paths::pack(&name), |bytes| bytes[50] ^= 1);
    mend_rot(&store);
    assert_eq!(store.objects(), original);
}

#[test]
fn a_fault_while_rot_is_mended_leaves_the_pack_mendable() {
    let (store, _) = with_parity(100);
    let original = store.objects();
    for (path, bytes) in original.iter().filter(|(path, _)| path.starts_with("data/")).take(3) {
        store.damage(path, |it| it[bytes.len() / 2] ^= 1);
    }
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::LostReply, Fault::Full] {
        for at in 0.. {
            let survivor = Arc::new(store.fork());
            let faulty = Arc::new(FaultStore::new(survivor.clone(), fault, at));
            let repository = open(faulty.clone()).unwrap();
            let _ = parity::run(&repository, &[], false, &Progress::default());
            mend_rot(&survivor);
            assert_eq!(survivor.objects(), original);
            if !faulty.has_struck() {
                break;
            }
        }
    }
}

#[test]
fn a_pack_that_speaks_for_itself_is_mended_first() {
    let (store, days) = with_parity(100);
    for (path, _) in store.objects() {
        if path.starts_with("idx/") || path.starts_with("log/") || path == "config" {
            store.delete(&path).unwrap();
        } else if path.starts_with("data/") {
            store.damage(&path, |bytes| {
                let at = bytes.len() - 40;
                bytes[at] ^= 1;
            });
        }
    }
    let report = mend_index(store.clone()).unwrap();
    assert_eq!(report.unreadable_packs, 0);
    // The parity itself says how much of it there was.
    assert_eq!(open(store.clone()).unwrap().config().parity, 100);
    assert_clean(&store, "directories mended");
    assert_eq!(days_held(&store), days.into_iter().collect());
}
