//! Many writers at once, without locks.

use std::sync::Arc;

use restow::check::{ReadData, run as check};
use restow::format::log::{EntryKind, LogEntry};
use restow::progress::Progress;
use restow::repository::snapshots::Filter;
use restow::store::Store;
use restow::store::local::LocalStore;
use restow::store::memory::MemoryStore;

use crate::support::*;

#[test]
fn sixteen_committers_leave_a_log_without_gaps() {
    let store = Arc::new(MemoryStore::new());
    init(store.clone()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            let store = store.clone();
            scope.spawn(move || {
                let repository = open(store).unwrap();
                for _ in 0..10 {
                    repository.commit(&mut || Ok(LogEntry::new(EntryKind::Noop))).unwrap();
                }
            });
        }
    });
    let repository = open(store.clone()).unwrap();
    let head = repository.index().position().unwrap().unwrap().number;
    // One whole state is written on the way, after entry 127, unless its writer lost the race.
    assert!((160..=161).contains(&head), "{head}");
    assert_eq!(store.list("log/").unwrap().len() as u64, head + 1);
    let report = check(&repository, ReadData::All, &Progress::default()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn writers_of_equal_data_all_commit() {
    let folder = tempfile::tempdir().unwrap();
    let store = || Arc::new(LocalStore::create(folder.path().join("repo")).unwrap());
    init(store()).unwrap();
    let bytes = rows(1, 5000);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (bytes, store) = (&bytes, store());
            scope.spawn(move || {
                let repository = open(store).unwrap();
                for day in 0..3 {
                    let mut mine = bytes.clone();
                    mine.extend(rows(writer * 100 + day, 50));
                    back_up(&repository, &mine).unwrap();
                }
            });
        }
    });
    let repository = open(store()).unwrap();
    assert_eq!(repository.snapshots(&Filter::default()).unwrap().len(), 12);
    let report = check(&repository, ReadData::All, &Progress::default()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(contents(&repository).unwrap().len(), 12);
}

#[test]
fn processes_that_share_an_index_file_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    init(store.clone()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (store, cache) = (store.clone(), folder.path().to_owned());
            scope.spawn(move || {
                let mut environment = environment(Arc::new(restow::entropy::OsEntropy));
                environment.cache = Some(cache);
                for day in 0..5 {
                    let repository = restow::repository::Repository::open(
                        store.clone(),
                        &secret(),
                        environment.clone(),
                    )
                    .unwrap();
                    back_up(&repository, &rows(writer * 10 + day, 500)).unwrap();
                }
            });
        }
    });
    let mut environment = environment(Arc::new(restow::entropy::OsEntropy));
    environment.cache = Some(folder.path().to_owned());
    let shared =
        restow::repository::Repository::open(store.clone(), &secret(), environment).unwrap();
    let rebuilt = open(store).unwrap();
    assert!(shared.index().dump_rows().unwrap() == rebuilt.index().dump_rows().unwrap());
    assert_eq!(contents(&shared).unwrap().len(), 20);
}
