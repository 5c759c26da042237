//! Every kind of object, damaged in every way: always found, always named, never restored.

use std::sync::Arc;

use restow::check::{CheckReport, ReadData, run as check};
use restow::error::{Error, Result};
use restow::progress::Progress;
use restow::store::Store;
use restow::store::memory::MemoryStore;

use crate::support::*;

/// What a full check says: a report, or the error that stops it.
fn full_check(store: &Arc<MemoryStore>) -> Result<CheckReport> {
    check(&open(store.clone())?, ReadData::All, &Progress::default())
}

fn is_found(store: &Arc<MemoryStore>) -> bool {
    full_check(store).map_or(true, |report| !report.problems.is_empty())
}

/// Whatever can still be restored is one of the days, byte for byte.
fn assert_nothing_wrong_is_restored(store: &Arc<MemoryStore>, days: &[Vec<u8>], what: &str) {
    let Ok(repository) = open(store.clone()) else { return };
    for (_, snapshot) in repository.index().snapshots().unwrap() {
        if let Ok(bytes) = read(&repository, &snapshot.streams[0]) {
            assert!(days.contains(&bytes), "{what}: wrong bytes were restored");
        }
    }
}

#[test]
fn flipped_bytes_are_found_in_every_object() {
    let (store, days) = prepared();
    for (path, bytes) in store.objects() {
        // All of the header and the end, and a sample in between.
        let step = (bytes.len() / 60).max(1);
        let places =
            (0..bytes.len()).step_by(step).chain(bytes.len().saturating_sub(30)..bytes.len());
        for at in places {
            let damaged = Arc::new(store.fork());
            damaged.damage(&path, |bytes| bytes[at] ^= 1 << (at % 8));
            assert!(is_found(&damaged), "{path} byte {at}");
            if at % 7 == 0 {
                assert_nothing_wrong_is_restored(&damaged, &days, &path);
            }
        }
    }
}

#[test]
fn truncated_and_missing_objects_are_found() {
    let (store, days) = prepared();
    for (path, bytes) in store.objects() {
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            let damaged = Arc::new(store.fork());
            damaged.damage(&path, |bytes| bytes.truncate(length));
            assert!(is_found(&damaged), "{path} cut to {length}");
            assert_nothing_wrong_is_restored(&damaged, &days, &path);
        }
        let damaged = Arc::new(store.fork());
        damaged.delete(&path).unwrap();
        let is_end_of_log = path == format!("log/{:020}", 3);
        assert!(is_found(&damaged) || is_end_of_log, "{path} deleted");
        assert_nothing_wrong_is_restored(&damaged, &days, &path);
    }
}

#[test]
fn swapped_objects_are_found() {
    let (store, days) = prepared();
    let objects = store.objects();
    for (number, (path, bytes)) in objects.iter().enumerate() {
        for (other_path, other) in &objects[number + 1..] {
            let folder = |path: &str| path.split('/').next().unwrap().to_owned();
            if folder(path) != folder(other_path) {
                continue;
            }
            let damaged = Arc::new(store.fork());
            damaged.damage(path, |bytes| *bytes = other.to_vec());
            damaged.damage(other_path, |swapped| *swapped = bytes.to_vec());
            assert!(is_found(&damaged), "{path} and {other_path}");
            assert_nothing_wrong_is_restored(&damaged, &days, path);
        }
    }
}

#[test]
fn a_damaged_base_is_reported_with_every_dependant() {
    let (store, _) = prepared();
    // Chunks of the first day are bases of those of the others: lose its packs.
    let repository = open(store.clone()).unwrap();
    let mut first_day = Vec::new();
    for (name, _) in repository.index().packs().unwrap() {
        let pack = repository.index().pack(&name).unwrap().unwrap();
        if pack.kind.name() == "data" && pack.entries.iter().all(|entry| entry.bases.is_empty()) {
            first_day.push(restow::format::paths::pack(&name));
        }
    }
    let damaged = Arc::new(store.fork());
    damaged.damage(&first_day[0], |bytes| bytes[100] ^= 1);
    let report = full_check(&damaged).unwrap();
    let problem = report.problems.iter().find(|p| p.object.contains("blob 0")).unwrap();
    assert!(problem.object.starts_with(&first_day[0]), "{problem:?}");
    assert_eq!(problem.affected.len(), 3, "{problem:?}");
}

#[test]
fn a_rolled_back_or_replaced_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let cached = || {
        let mut environment = environment(Arc::new(restow::entropy::OsEntropy));
        environment.cache = Some(folder.path().to_owned());
        environment
    };
    let open =
        |store: Arc<MemoryStore>| restow::repository::Repository::open(store, &secret(), cached());
    init(store.clone()).unwrap();
    back_up(&open(store.clone()).unwrap(), b"one").unwrap();
    let old = Arc::new(store.fork());
    back_up(&open(store.clone()).unwrap(), b"two").unwrap();
    let error = open(old.clone()).err().expect("older than what was seen");
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    // A fork of the same length is noticed too.
    let other = crate::support::open(old.clone()).unwrap();
    back_up(&other, b"three").unwrap();
    assert!(matches!(open(old).err(), Some(Error::RolledBack { .. })));
}

#[test]
fn an_empty_listing_of_the_log_is_not_an_empty_repository() {
    let (store, _) = prepared();
    for (path, _) in store.objects() {
        if path.starts_with("log/") {
            store.delete(&path).unwrap();
        }
    }
    assert!(matches!(open(store).err(), Some(Error::Missing { .. })));
}
