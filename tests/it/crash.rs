//! A crash, a lost reply, a full disk at every single store operation of a backup.

use std::sync::Arc;

use restow::check::{ReadData, run as check};
use restow::error::{Error, Result};
use restow::progress::Progress;
use restow::repository::Repository;
use restow::store::fault::{Fault, FaultStore};
use restow::store::memory::MemoryStore;

use crate::support::*;

/// A repository with one snapshot, and what the second one is to hold.
fn prepared() -> (Arc<MemoryStore>, Vec<u8>, Vec<u8>) {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let (first, second) = (rows(1, 3000), changed_rows(1, 3000, 1, 10));
    back_up(&repository, &first).unwrap();
    (store, first, second)
}

fn assert_sound(repository: &Repository) -> usize {
    let report = check(repository, ReadData::All, &Progress::default()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    report.snapshots as usize
}

/// Runs a backup that meets `fault` at change `at`; returns the store afterwards and the result.
fn backup_with(
    fault: Fault,
    at: u64,
    store: &MemoryStore,
    bytes: &[u8],
) -> (Arc<MemoryStore>, Result<()>, bool) {
    let survivor = Arc::new(store.fork());
    let faulty = Arc::new(FaultStore::new(survivor.clone(), fault, at));
    let result = open(faulty.clone()).and_then(|r| back_up(&r, bytes)).map(drop);
    (survivor, result, faulty.has_struck())
}

/// For every store operation: strike there, then see that all is sound, that the snapshot is there
/// if and only if the backup said so, and that the next backup works.
fn strike_everywhere(fault: Fault) -> u64 {
    let (store, first, second) = prepared();
    for at in 0.. {
        let (after, result, struck) = backup_with(fault, at, &store, &second);
        if !struck {
            result.unwrap();
            return at;
        }
        let repository = open(after.clone()).unwrap();
        let snapshots = assert_sound(&repository);
        // The cause is told, not that the other threads stopped because of it.
        assert!(!matches!(result, Err(Error::Interrupted)), "{fault:?} at {at}");
        match (&result, fault) {
            (Ok(()), _) => assert_eq!(snapshots, 2, "{fault:?} at {at}: said ok"),
            // The reply to the last commit may be what was lost: then nobody heard of success.
            (Err(_), Fault::CrashAfter) => assert!((1..=2).contains(&snapshots)),
            (Err(error), _) => assert_eq!(snapshots, 1, "{fault:?} at {at}: said {error}"),
        }
        back_up(&repository, &second).unwrap();
        let held = contents(&repository).unwrap();
        assert!(held.values().any(|bytes| *bytes == first) && held.values().any(|b| *b == second));
    }
    unreachable!()
}

#[test]
fn a_crash_before_any_operation_loses_nothing() {
    assert!(strike_everywhere(Fault::CrashBefore) >= 5);
}

#[test]
fn a_crash_after_any_operation_loses_nothing() {
    strike_everywhere(Fault::CrashAfter);
}

#[test]
fn a_lost_reply_is_found_out() {
    strike_everywhere(Fault::LostReply);
}

#[test]
fn a_lost_request_is_tried_again() {
    strike_everywhere(Fault::LostRequest);
}

#[test]
fn a_full_disk_loses_nothing() {
    strike_everywhere(Fault::Full);
}

/// A disk that fills up in the middle of a long stream, while all threads are at work.
#[test]
fn a_full_disk_is_called_that() {
    for at in [0, 3, 20] {
        let survivor = Arc::new(MemoryStore::new());
        init(survivor.clone()).unwrap();
        let faulty = Arc::new(FaultStore::new(survivor.clone(), Fault::Full, at));
        let bytes = random_bytes(1, 8_000_000);
        let error = back_up(&open(faulty).unwrap(), &bytes).unwrap_err();
        assert!(matches!(error, Error::Store(restow::store::StoreError::Full { .. })), "{error}");
        let repository = open(survivor).unwrap();
        assert_eq!(assert_sound(&repository), 0);
        back_up(&repository, &bytes).unwrap();
    }
}

/// `init` that died anywhere can be cleared away or was complete; it never half works.
#[test]
fn a_crash_during_init_is_told() {
    for at in 0.. {
        let survivor = Arc::new(MemoryStore::new());
        let faulty = Arc::new(FaultStore::new(survivor.clone(), Fault::CrashBefore, at));
        let result = init(faulty.clone());
        if !faulty.has_struck() {
            result.unwrap();
            break;
        }
        match open(survivor.clone()) {
            Ok(repository) => drop(back_up(&repository, b"x").unwrap()),
            Err(Error::NoRepository { .. }) => {}
            Err(error) => panic!("at {at}: {error}"),
        }
    }
}
