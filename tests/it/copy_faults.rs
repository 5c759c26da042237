//! Copies with faults and other programs between their steps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use restow::copy::{CopyOptions, run as copy};
use restow::entropy::OsEntropy;
use restow::error::{Error, ErrorKind, Result};
use restow::forget::forget;
use restow::format::paths;
use restow::id::ObjectName;
use restow::progress::Progress;
use restow::repository::Repository;
use restow::store::fault::{Fault, FaultStore};
use restow::store::memory::MemoryStore;
use restow::store::read_only::ReadOnlyStore;
use restow::store::{ObjectInfo, Store, StoreError};

use crate::copy::*;
use crate::support::*;

/// For every store operation of a copy: strike there, then see that all is sound, and that the
/// next copy ends as if nothing had happened.
pub fn strike_everywhere(fault: Fault) {
    let (store, days) = prepared();
    let (source, there) = (reading(&store), empty());
    copy_some(&source, &open(there.clone()).unwrap(), &all(&source)[..1]).unwrap();
    for at in 0.. {
        let survivor = Arc::new(there.fork());
        let faulty = Arc::new(FaultStore::new(survivor.clone(), fault, at));
        let result = open(faulty.clone()).and_then(|target| copy_all(&source, &target));
        let struck = faulty.has_struck();
        let target = open(survivor).unwrap();
        assert_sound(&target);
        assert!(!matches!(result, Err(Error::Interrupted)), "{fault:?} at {at}");
        if result.is_ok() {
            assert_eq!(held(&target), days, "{fault:?} at {at}: said ok");
        }
        copy_all(&source, &target).unwrap();
        assert_eq!(held(&target), days, "{fault:?} at {at}");
        assert_sound(&target);
        if !struck {
            assert!(at >= 5);
            return;
        }
    }
}

#[test]
fn a_crash_anywhere_loses_nothing() {
    strike_everywhere(Fault::CrashBefore);
    strike_everywhere(Fault::CrashAfter);
}

#[test]
fn lost_requests_replies_and_a_full_disk_lose_nothing() {
    strike_everywhere(Fault::LostReply);
    strike_everywhere(Fault::LostRequest);
    strike_everywhere(Fault::Full);
}

#[test]
fn a_snapshot_with_a_damaged_chunk_is_named_and_not_copied_and_the_others_are() {
    let (store, days) = prepared();
    let packs: Vec<String> = store
        .objects()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.starts_with(paths::DATA))
        .collect();
    let mut spared = 0;
    for path in packs {
        let damaged = Arc::new(store.fork());
        damaged.damage(&path, |bytes| bytes[100] ^= 1);
        let (source, target) = (reading(&damaged), open(empty()).unwrap());
        let report = copy_all(&source, &target).unwrap();
        assert_eq!(report.problems.len() + report.copied.len(), 3);
        assert!(!report.problems.is_empty());
        let is_named = |text: &str| text.contains(&path) || text.contains("node");
        assert!(report.problems.iter().all(|problem| is_named(&problem.detail)), "{report:?}");
        assert!(held(&target).iter().all(|bytes| days.contains(bytes)));
        assert_sound(&target);
        spared += report.copied.len();
        // The same from a good source later.
        copy_all(&reading(&store), &target).unwrap();
        assert_eq!(held(&target), days);
        assert_sound(&target);
    }
    assert!(spared > 0);
}

type Event = Box<dyn FnOnce() + Send>;

/// Lets something happen before its n-th call.
pub struct WithEvent {
    inner: Arc<MemoryStore>,
    calls: AtomicU64,
    at: u64,
    event: Mutex<Option<Event>>,
}

impl WithEvent {
    fn new(inner: Arc<MemoryStore>, at: u64, event: impl FnOnce() + Send + 'static) -> Arc<Self> {
        let event = Mutex::new(Some(Box::new(event) as Event));
        Arc::new(Self { inner, calls: AtomicU64::new(0), at, event })
    }

    fn tick(&self) {
        if self.calls.fetch_add(1, Ordering::SeqCst) == self.at {
            let event = self.event.lock().unwrap().take();
            event.unwrap()();
        }
    }
}

impl Store for WithEvent {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.tick();
        self.inner.put_new(path, bytes)
    }
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.tick();
        self.inner.get(path)
    }
    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.tick();
        self.inner.get_range(path, offset, length)
    }
    fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.tick();
        self.inner.head(path)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.tick();
        self.inner.list(prefix)
    }
    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.tick();
        self.inner.delete(path)
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

pub fn forget_and_prune(
    store: &Arc<MemoryStore>,
    chosen: &dyn Fn(&[ObjectName]) -> Vec<ObjectName>,
) {
    let repository = open(store.clone()).unwrap();
    let names: Vec<_> = all(&repository).iter().map(|named| named.name).collect();
    forget(&repository, &chosen(&names).into_iter().collect(), true).unwrap();
    prune_all(&repository).unwrap();
}

/// A prune of the source between any two reads: packs vanish, and the copy looks where things are
/// now. What was forgotten may be missing; what was not is copied.
#[test]
fn a_prune_of_the_source_meanwhile_makes_the_copy_look_again() {
    let (store, days) = prepared();
    let there = empty();
    for at in (0..).step_by(37) {
        let (source, target) = (Arc::new(store.fork()), Arc::new(there.fork()));
        let pruned = source.clone();
        let event = move || forget_and_prune(&pruned, &|names| names[..2].to_vec());
        let eventful = WithEvent::new(source, at, event);
        let source = open(eventful.clone()).unwrap();
        let target = open(target).unwrap();
        let report = copy_all(&source, &target).unwrap();
        assert_sound(&target);
        let held = held(&target);
        assert_eq!(held.len(), report.copied.len());
        assert!(held.contains(&days[2]), "prune at {at}: {report:?}");
        if eventful.event.lock().unwrap().is_some() {
            assert!(at > 100);
            return;
        }
    }
}

/// A prune of the target between any two operations: the copy is whole, or says that it must be
/// run again, and then is.
#[test]
fn a_prune_of_the_target_meanwhile_harms_nothing() {
    let (store, days) = prepared();
    let (source, there) = (reading(&store), empty());
    copy_some(&source, &open(there.clone()).unwrap(), &all(&source)[..2]).unwrap();
    let mut again = 0;
    for at in 0.. {
        let target = Arc::new(there.fork());
        let pruned = target.clone();
        // The parent of what is to be copied is forgotten, and what only it needed goes.
        let event = move || forget_and_prune(&pruned, &|names| names[1..].to_vec());
        let eventful = WithEvent::new(target.clone(), at, event);
        let copied = open(eventful.clone()).and_then(|target| copy_all(&source, &target));
        let is_over = eventful.event.lock().unwrap().is_some();
        let target = open(target).unwrap();
        assert_sound(&target);
        if let Err(error) = copied {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            again += 1;
        }
        copy_all(&source, &target).unwrap();
        assert_eq!(held(&target), days, "prune at {at}");
        assert_sound(&target);
        if is_over {
            assert!(at > 10);
            break;
        }
    }
    assert!(again > 0);
}

#[test]
fn an_interrupted_copy_keeps_what_it_stored() {
    let (store, days) = prepared();
    let there = empty();
    let progress = Arc::new(Progress::default());
    let stopped = progress.clone();
    let slow = WithEvent::new(store.clone(), 150, move || stopped.interrupt());
    let source = open(slow).unwrap();
    let options = CopyOptions { threads: 2, ..CopyOptions::default() };
    let target = open(there.clone()).unwrap();
    let result = copy(&source, &target, &all(&source), &options, &progress);
    assert!(matches!(result, Err(Error::Interrupted)));
    assert_sound(&target);
    assert!(target.index().totals().unwrap().packs > 0);
    let report = copy_all(&reading(&store), &target).unwrap();
    assert!(report.present_chunks > 0 || !report.skipped.is_empty());
    assert_eq!(held(&target), days);
    assert_sound(&target);
}

#[test]
fn two_copies_at_once_come_to_one_end() {
    let (store, days) = prepared();
    let there = empty();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| copy_all(&reading(&store), &open(there.clone()).unwrap()).unwrap());
        }
    });
    let target = open(there).unwrap();
    assert_eq!(held(&target), days);
    assert_sound(&target);
    assert!(copy_all(&reading(&store), &target).unwrap().copied.is_empty());
}

/// Another copy of the same between any two calls: each snapshot is there once.
#[test]
fn a_copy_comes_between_the_steps_of_a_copy() {
    let (store, days) = prepared();
    let there = empty();
    let mut late = 0;
    for at in 0.. {
        let target = Arc::new(there.fork());
        let (other, source) = (target.clone(), store.clone());
        let event = move || {
            copy_all(&reading(&source), &open(other).unwrap()).unwrap();
        };
        let eventful = WithEvent::new(target.clone(), at, event);
        let report = copy_all(&reading(&store), &open(eventful.clone()).unwrap()).unwrap();
        assert!(report.problems.is_empty());
        assert_eq!(report.copied.len() + report.skipped.len(), days.len(), "copy at {at}");
        assert!(report.skipped.iter().all(|copied| copied.target.is_some()));
        late += report.skipped.len();
        let is_over = eventful.event.lock().unwrap().is_some();
        let target = open(target).unwrap();
        assert_eq!(held(&target), days, "copy at {at}");
        assert_sound(&target);
        if is_over {
            break;
        }
    }
    assert!(late > days.len());
}

#[test]
fn snapshots_that_the_source_lost_are_problems() {
    let (store, days) = prepared();
    for folder in [paths::SNAPSHOTS, paths::LOG] {
        let damaged = Arc::new(store.fork());
        let victim = damaged.list(folder).unwrap().swap_remove(1).path;
        damaged.damage(&victim, |bytes| bytes[80] ^= 1);
        let read_only: Arc<dyn Store> = Arc::new(ReadOnlyStore(damaged));
        let source =
            Repository::salvage(read_only, &secret(), environment(Arc::new(OsEntropy))).unwrap();
        let report = copy_all(&source, &open(empty()).unwrap()).unwrap();
        let is_named = |problem: &restow::copy::CopyProblem| problem.object.starts_with(folder);
        assert!(report.problems.iter().any(is_named), "{report:?}");
        let known = report.problems.iter().filter(|problem| problem.snapshot.is_some()).count();
        let lost = usize::from(folder == paths::SNAPSHOTS);
        assert_eq!((known, report.copied.len()), (lost, days.len() - lost));
        // Who names what to copy did not ask for the others.
        let options = CopyOptions { is_selection: true, ..CopyOptions::default() };
        let (target, progress) = (open(empty()).unwrap(), Progress::default());
        let report = copy(&source, &target, &all(&source)[..1], &options, &progress).unwrap();
        assert!(report.problems.is_empty());
    }
}
