//! Prunes with faults and other programs between their steps.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use restow::error::{Error, Result};
use restow::format::log::{EntryKind, LogEntry};
use restow::progress::Progress;
use restow::prune::{PruneOptions, Unused, run};
use restow::repository::Repository;
use restow::repository::snapshots::Filter;
use restow::store::fault::{Fault, FaultStore};
use restow::store::memory::MemoryStore;
use restow::store::{ObjectInfo, Store, StoreError};

use crate::files::back_up_files;
use crate::prune::*;
use crate::support::*;

#[test]
fn a_fault_at_any_operation_loses_nothing() {
    let (store, days) = three_days();
    {
        let repository = open(store.clone()).unwrap();
        forget_some(&repository, &names(&repository)[..2]).unwrap();
    }
    let faults =
        [Fault::CrashBefore, Fault::CrashAfter, Fault::LostReply, Fault::LostRequest, Fault::Full];
    for fault in faults {
        for at in 0.. {
            let survivor = Arc::new(store.fork());
            let faulty = Arc::new(FaultStore::new(survivor.clone(), fault, at));
            let result = open(faulty.clone()).and_then(|repository| prune(&repository));
            let repository = open(survivor.clone()).unwrap();
            assert_sound(&repository);
            assert!(contents(&repository).unwrap().values().all(|bytes| *bytes == days[2]));
            // The next one finishes what was begun.
            prune(&repository).unwrap();
            prune(&repository).unwrap();
            assert_clean(&repository);
            assert!(contents(&repository).unwrap().values().all(|bytes| *bytes == days[2]));
            if !faulty.has_struck() {
                result.unwrap();
                break;
            }
        }
    }
}

/// Runs something else once, before a chosen operation of any kind.
pub struct Interloper {
    inner: Arc<MemoryStore>,
    at: u64,
    operations: AtomicU64,
    act: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Interloper {
    pub fn new(inner: Arc<MemoryStore>, at: u64, act: impl FnOnce() + Send + 'static) -> Self {
        let act = Mutex::new(Some(Box::new(act) as Box<dyn FnOnce() + Send>));
        Self { inner, at, operations: AtomicU64::new(0), act }
    }

    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    fn step(&self) {
        if self.operations.fetch_add(1, Ordering::SeqCst) == self.at {
            let act = self.act.lock().unwrap().take();
            act.unwrap()();
        }
    }
}

impl Store for Interloper {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.step();
        self.inner.put_new(path, bytes)
    }
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.step();
        self.inner.get(path)
    }
    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.step();
        self.inner.get_range(path, offset, length)
    }
    fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.step();
        self.inner.head(path)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.step();
        self.inner.list(prefix)
    }
    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.step();
        self.inner.delete(path)
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

pub type Prepared = (Arc<MemoryStore>, Vec<Vec<u8>>);

/// Runs `actor` with `other` coming between before every operation of it in turn. Every snapshot
/// that is live afterwards is one of those expected and whole, and a last prune leaves nothing that
/// is not needed. Returns how often `actor` had to give up.
pub fn meet(
    prepare: &dyn Fn() -> Prepared,
    actor: fn(&Repository, &[Vec<u8>]) -> Result<()>,
    other: fn(&Repository, &[Vec<u8>]),
) -> usize {
    let mut given_up = 0;
    for at in 0.. {
        let (store, expected) = prepare();
        let (beside, days) = (store.clone(), expected.clone());
        let act = move || other(&open(beside).unwrap(), &days);
        let interloper = Arc::new(Interloper::new(store.clone(), at, act));
        let result = open(interloper.clone()).and_then(|it| actor(&it, &expected));
        let was_alone = interloper.operations() <= at;
        match result {
            Ok(()) => {}
            Err(Error::Conflict(_) | Error::Pruned { .. }) if !was_alone => given_up += 1,
            Err(error) => panic!("operation {at}: {error}"),
        }
        let repository = open(store.clone()).unwrap();
        assert_sound(&repository);
        let held = contents(&repository).unwrap();
        assert!(held.values().all(|bytes| expected.contains(bytes)), "operation {at}");
        prune(&repository).unwrap();
        prune(&repository).unwrap();
        assert_clean(&repository);
        // A rotation of keys changes the names of snapshots.
        let mut after: Vec<_> = contents(&repository).unwrap().into_values().collect();
        let mut held: Vec<_> = held.into_values().collect();
        after.sort();
        held.sort();
        assert!(after == held, "operation {at}: snapshots differ after a prune");
        if was_alone {
            return given_up;
        }
    }
    unreachable!()
}

/// Three days of which the first two are forgotten.
pub fn mostly_garbage() -> Prepared {
    let (store, days) = prepared();
    let repository = open(store.clone()).unwrap();
    forget_some(&repository, &names(&repository)[..2]).unwrap();
    (store, days)
}

#[test]
fn a_backup_comes_between_the_steps_of_a_prune() {
    // Of what is garbage until the backup commits.
    let back_up_first_day = |repository: &Repository, days: &[Vec<u8>]| {
        back_up(repository, &days[0]).unwrap();
    };
    let given_up =
        meet(&mostly_garbage, |repository, _| prune(repository).map(drop), back_up_first_day);
    assert_eq!(given_up, 0);
}

#[test]
fn a_backup_of_new_data_comes_between_the_steps_of_a_prune() {
    let given_up = meet(
        &|| {
            let (store, mut days) = mostly_garbage();
            days.push(changed_rows(1, 1500, 9, 20));
            (store, days)
        },
        |repository, _| prune(repository).map(drop),
        |repository, days| drop(back_up(repository, &days[3]).unwrap()),
    );
    assert_eq!(given_up, 0);
}

#[test]
fn a_prune_comes_between_the_steps_of_holding_snapshots() {
    let hold = |repository: &Repository, _: &[Vec<u8>]| {
        let all = repository.snapshots(&Filter::default())?;
        restow::tag::hold(repository, &all, true).map(drop)
    };
    let at_once = |repository: &Repository, _: &[Vec<u8>]| drop(prune(repository).unwrap());
    meet(&prepared, hold, at_once);
    let with_a_grace = |repository: &Repository, _: &[Vec<u8>]| {
        let options = PruneOptions { grace: Duration::from_secs(3600), ..self::at_once() };
        run(repository, &options, &Progress::default()).unwrap();
    };
    assert_eq!(meet(&prepared, hold, with_a_grace), 0);
}

/// Garbage that stays in packs must stay readable: a later backup may find it and rely on it.
#[test]
fn garbage_that_stays_keeps_its_bases() {
    for seed in 0..12 {
        let store = Arc::new(MemoryStore::new());
        let repository = init(store.clone()).unwrap();
        let days: Vec<_> = (0..6).map(|day| changed_rows(seed, 1500, day, 8)).collect();
        for day in &days {
            back_up(&repository, day).unwrap();
        }
        let all = names(&repository);
        let going: Vec<_> = all.iter().enumerate().filter(|(at, _)| at % 3 != 1).collect();
        forget_some(&repository, &going.iter().map(|(_, name)| **name).collect::<Vec<_>>())
            .unwrap();
        for unused in [Unused::Unlimited, Unused::Share(0.2), Unused::Share(0.02)] {
            let options = PruneOptions { max_unused: unused, ..at_once() };
            run(&repository, &options, &Progress::default()).unwrap();
            assert_sound(&repository);
        }
        for day in &days {
            back_up(&repository, day).unwrap();
        }
        assert_sound(&repository);
        let held: BTreeSet<_> = contents(&repository).unwrap().into_values().collect();
        assert_eq!(held, days.into_iter().collect::<BTreeSet<_>>());
    }
}

#[test]
fn a_prune_comes_between_the_steps_of_a_backup() {
    // Without a grace it may have to be run again; it never commits what is not whole.
    meet(
        &mostly_garbage,
        |repository, days| back_up(repository, &days[1]).map(drop),
        |repository, _| drop(prune(repository).unwrap()),
    );
    // With one it never has to.
    let given_up = meet(
        &mostly_garbage,
        |repository, days| back_up(repository, &days[1]).map(drop),
        |repository, _| {
            let options = PruneOptions { grace: Duration::from_secs(3600), ..at_once() };
            run(repository, &options, &Progress::default()).unwrap();
        },
    );
    assert_eq!(given_up, 0);
}

/// What a prune was about to bury is live again when it gets to it: nothing of it may be deleted.
#[test]
fn a_rescue_comes_between_the_steps_of_a_prune() {
    let rescue = |repository: &Repository, _: &[Vec<u8>]| {
        let mut entry = LogEntry::new(EntryKind::Add);
        entry.rescue = repository.index().condemned();
        repository.commit(&mut || Ok(entry.clone())).unwrap();
    };
    let given_up = meet(&mostly_garbage, |repository, _| prune(repository).map(drop), rescue);
    assert_eq!(given_up, 0);
}

#[test]
fn a_prune_comes_between_the_steps_of_a_restore() {
    let given_up = meet(
        &mostly_garbage,
        |repository, days| {
            let held = contents(repository)?;
            assert!(held.values().all(|bytes| *bytes == days[2]) && held.len() == 1);
            Ok(())
        },
        |repository, _| drop(prune(repository).unwrap()),
    );
    assert_eq!(given_up, 0);
}

/// Files can be read once more where a prune without a grace took what their backup relies on.
#[test]
fn a_prune_comes_between_the_steps_of_a_backup_of_files() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for number in 0..12 {
        std::fs::write(source.join(format!("{number}")), rows(number, 30 * number as usize))
            .unwrap();
    }
    for at in 0.. {
        let store = Arc::new(MemoryStore::new());
        let repository = init(store.clone()).unwrap();
        back_up_files(&repository, &[&source]);
        forget_some(&repository, &names(&repository)).unwrap();
        let beside = store.clone();
        let empty_out = move || {
            let options = PruneOptions { allow_empty: true, ..at_once() };
            run(&open(beside).unwrap(), &options, &Progress::default()).unwrap();
        };
        let interloper = Arc::new(Interloper {
            inner: store.clone(),
            at,
            operations: AtomicU64::new(0),
            act: Mutex::new(Some(Box::new(empty_out))),
        });
        back_up_files(&open(interloper.clone()).unwrap(), &[&source]);
        let repository = open(store).unwrap();
        assert_sound(&repository);
        assert_eq!(names(&repository).len(), 1);
        if interloper.operations.load(Ordering::SeqCst) <= at {
            break;
        }
    }
}

#[test]
fn two_prunes_and_a_forget_meet() {
    let given_up = meet(
        &mostly_garbage,
        |repository, _| prune(repository).map(drop),
        |repository, _| drop(prune(repository).unwrap()),
    );
    assert_eq!(given_up, 0);
    let given_up = meet(
        &|| {
            let (store, days) = prepared();
            let repository = open(store.clone()).unwrap();
            forget_some(&repository, &names(&repository)[1..2]).unwrap();
            (store, days)
        },
        |repository, _| prune(repository).map(drop),
        |repository, _| {
            forget_some(repository, &names(repository)[..1]).unwrap();
        },
    );
    assert_eq!(given_up, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any history of backups, forgets and prunes: what is live restores, what is not goes.
    #[test]
    fn any_history_keeps_what_is_live(
        steps in proptest::collection::vec((0..6u8, 0..8u64, 1..4000usize), 1..14)
    ) {
        let store = Arc::new(MemoryStore::new());
        let repository = init(store.clone()).unwrap();
        let mut live = std::collections::BTreeMap::new();
        for (action, seed, count) in steps {
            match action {
                0..=2 => {
                    let bytes = changed_rows(seed % 3, 300 + count / 4, seed, 10);
                    let report = back_up(&repository, &bytes).unwrap();
                    live.insert(report.name.unwrap(), bytes);
                }
                3 | 4 => {
                    let all = names(&repository);
                    if let Some(name) = all.get(seed as usize % all.len().max(1)) {
                        forget_some(&repository, &[*name]).unwrap();
                        live.remove(name);
                    }
                }
                _ => {
                    let share = (count % 3) as f64 / 4.0;
                    let options = PruneOptions {
                        max_unused: Unused::Share(share),
                        repack_small: seed % 2 == 0,
                        allow_empty: true,
                        ..at_once()
                    };
                    run(&repository, &options, &Progress::default()).unwrap();
                }
            }
        }
        let options = PruneOptions { allow_empty: true, ..at_once() };
        run(&repository, &options, &Progress::default()).unwrap();
        run(&repository, &options, &Progress::default()).unwrap();
        assert_clean(&repository);
        prop_assert_eq!(names(&repository).len(), live.len());
        let held: BTreeSet<_> = contents(&repository).unwrap().into_values().collect();
        prop_assert_eq!(held, live.into_values().collect::<BTreeSet<_>>());
        let again = open(Arc::new(store.fork())).unwrap();
        prop_assert_eq!(again.index().dump_rows().unwrap(), repository.index().dump_rows().unwrap());
    }
}
