//! Copies: what arrives is what was there, in deltas as it was, once, and whole or not at all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use restow::check::{ReadData, run as check};
use restow::copy::{CopyOptions, CopyReport, run as copy};
use restow::crypto::slot::{Kdf, Role, Secret};
use restow::entropy::OsEntropy;
use restow::error::{Error, ErrorKind, Result};
use restow::forget::forget;
use restow::format::paths;
use restow::id::ObjectName;
use restow::progress::Progress;
use restow::prune::{PruneOptions, Unused, run as prune};
use restow::repository::Repository;
use restow::repository::snapshots::{Filter, NamedSnapshot};
use restow::restore::options::{Overwrite, TreeOptions};
use restow::restore::tree::restore_tree;
use restow::stats;
use restow::store::fault::{Fault, FaultStore};
use restow::store::memory::MemoryStore;
use restow::store::read_only::ReadOnlyStore;
use restow::store::record::{Call, RecordingStore};
use restow::store::{ObjectInfo, Store, StoreError};
use restow::tag::{TagOptions, run as retag};

use crate::files::{back_up_files, every_kind, picture};
use crate::support::*;

fn empty() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    init(store.clone()).unwrap();
    store
}

fn all(repository: &Repository) -> Vec<NamedSnapshot> {
    repository.snapshots(&Filter::default()).unwrap()
}

fn copy_all(source: &Repository, target: &Repository) -> Result<CopyReport> {
    copy_some(source, target, &all(source))
}

fn copy_some(
    source: &Repository,
    target: &Repository,
    chosen: &[NamedSnapshot],
) -> Result<CopyReport> {
    let options = CopyOptions { threads: 2, ..CopyOptions::default() };
    copy(source, target, chosen, &options, &Progress::default())
}

/// A source that nobody can write to, as `restow copy` opens it.
fn reading(store: &Arc<MemoryStore>) -> Repository {
    open(Arc::new(ReadOnlyStore(store.clone()))).unwrap()
}

/// Contents of stream `s` of all snapshots, in the order of their times.
fn held(repository: &Repository) -> Vec<Vec<u8>> {
    let snapshots = all(repository).into_iter();
    snapshots.map(|named| read(repository, &named.snapshot.streams[0]).unwrap()).collect()
}

fn assert_sound(repository: &Repository) {
    let report = check(repository, ReadData::All, &Progress::default()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

fn prune_all(repository: &Repository) -> Result<()> {
    let options =
        PruneOptions { grace: Duration::ZERO, max_unused: Unused::Bytes(0), ..Default::default() };
    prune(repository, &options, &Progress::default()).map(drop)
}

#[test]
fn dumps_arrive_with_their_deltas_and_a_second_copy_writes_nothing() {
    let (store, days) = prepared();
    let (source, there) = (reading(&store), empty());
    let target = open(there.clone()).unwrap();
    let report = copy_all(&source, &target).unwrap();
    assert_eq!((report.copied.len(), report.skipped.len(), report.problems.len()), (3, 0, 0));
    assert_eq!(report.recompressed_chunks, 0);
    assert_eq!(held(&target), days);
    assert_sound(&target);
    let (own, copied) = (stats::repository(&source).unwrap(), stats::repository(&target).unwrap());
    assert_eq!((own.delta, own.compressed), (copied.delta, copied.compressed));
    assert!(copied.delta.chunks > 50, "{copied:?}");
    let (from, to) = (store.total_bytes(), there.total_bytes());
    assert!(to < from + from / 20, "{to} bytes of {from}");

    let recorder = Arc::new(RecordingStore::new(there.clone()));
    let target = open(recorder.clone()).unwrap();
    recorder.take();
    let report = copy_all(&source, &target).unwrap();
    assert_eq!((report.copied.len(), report.skipped.len()), (0, 3));
    let puts = recorder.take().into_iter().filter(|call| matches!(call, Call::Put(..))).count();
    assert_eq!(puts, 0);
}

#[test]
fn a_copy_has_time_host_tags_and_the_parent_of_its_own_repository() {
    let (store, _) = prepared();
    let (source, target) = (reading(&store), open(empty()).unwrap());
    copy_all(&source, &target).unwrap();
    let (own, copies) = (all(&source), all(&target));
    for (at, (own, copy)) in own.iter().zip(&copies).enumerate() {
        let (a, b) = (&own.snapshot, &copy.snapshot);
        assert_eq!((a.time, &a.host, &a.tags, a.summary), (b.time, &b.host, &b.tags, b.summary));
        let origin = b.origin.unwrap();
        assert_eq!((origin.repository, origin.snapshot), (source.config().id, own.name));
        assert_ne!(a.streams[0].root, b.streams[0].root);
        let parent = at.checked_sub(1).map(|before| copies[before].name);
        assert_eq!(b.parent, parent);
    }
}

#[test]
fn what_changed_since_is_all_that_is_read_and_written() {
    let (store, mut days) = prepared();
    let (source, there) = (reading(&store), empty());
    copy_all(&source, &open(there.clone()).unwrap()).unwrap();
    days.push(changed_rows(1, 1500, 3, 20));
    let before = store.total_bytes();
    back_up(&open(store.clone()).unwrap(), &days[3]).unwrap();
    let growth = store.total_bytes() - before;

    let recorder = Arc::new(RecordingStore::new(store.clone()));
    let (source, target) = (open(recorder.clone()).unwrap(), open(there.clone()).unwrap());
    let before = there.total_bytes();
    recorder.take();
    let report = copy_all(&source, &target).unwrap();
    assert_eq!((report.copied.len(), report.recompressed_chunks), (1, 0));
    let written = there.total_bytes() - before;
    assert!(
        written < growth + growth / 10,
        "{written} bytes written, {growth} were new: {report:?}"
    );
    // Deltas of one day and the chunks they are made against, not four days of chunks.
    assert!(report.read_bytes < store.total_bytes() / 2, "{} bytes read", report.read_bytes);
    assert_eq!(held(&target), days);
    assert_sound(&target);
}

#[test]
fn files_arrive_with_everything_about_them() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    every_kind(&source);
    for number in 0..300 {
        std::fs::write(source.join(format!("d/{number}")), rows(number, 5)).unwrap();
    }
    let store = Arc::new(MemoryStore::new());
    let from = init(store.clone()).unwrap();
    back_up_files(&from, &[&source]);
    std::fs::write(source.join("d/7"), rows(7, 6)).unwrap();
    back_up_files(&from, &[&source]);
    let (from, target) = (reading(&store), open(empty()).unwrap());
    let report = copy_all(&from, &target).unwrap();
    assert_eq!((report.recompressed_chunks, report.problems.len()), (0, 0));
    assert_sound(&target);
    let place = folder.path().join("target");
    let options =
        TreeOptions { target: place.clone(), overwrite: Overwrite::Always, ..Default::default() };
    let tree = all(&target).pop().unwrap().snapshot.tree.unwrap();
    restore_tree(&target, tree, &options, &Progress::default()).unwrap();
    assert_eq!(picture(&place.join(source.strip_prefix("/").unwrap())), picture(&source));
    assert_eq!(copy_all(&from, &target).unwrap().copied.len(), 0);
}

#[test]
fn a_part_of_a_group_is_copied_without_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for number in 0..60 {
        std::fs::write(source.join(format!("{number}")), rows(number, 40)).unwrap();
    }
    let store = Arc::new(MemoryStore::new());
    let from = init(store.clone()).unwrap();
    back_up_files(&from, &[&source]);
    for number in (0..60).filter(|number| number % 4 != 0) {
        std::fs::remove_file(source.join(format!("{number}"))).unwrap();
    }
    back_up_files(&from, &[&source]);
    let there = empty();
    let target = open(there.clone()).unwrap();
    let newest = all(&from).pop().unwrap();
    let report = copy_some(&from, &target, &[newest]).unwrap();
    assert!(report.recompressed_chunks > 0);
    assert!(there.total_bytes() < store.total_bytes() / 2);
    assert_sound(&target);
    // The rest comes later, and is not mistaken for what is there.
    copy_all(&from, &target).unwrap();
    assert_eq!(all(&target).len(), 2);
    assert_sound(&target);
}

#[test]
fn the_newest_alone_brings_the_bases_of_its_deltas_along() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let days: Vec<_> = (0..5).map(|day| changed_rows(1, 4000, day, 40)).collect();
    days[..4].iter().for_each(|day| drop(back_up(&repository, day).unwrap()));
    let there = empty();
    let target = open(there.clone()).unwrap();
    let newest = all(&repository).pop().unwrap();
    copy_some(&repository, &target, &[newest]).unwrap();
    assert_eq!(held(&target), days[3..4]);
    assert_sound(&target);
    let before = there.total_bytes();
    back_up(&repository, &days[4]).unwrap();
    let newest = all(&repository).pop().unwrap();
    copy_some(&repository, &target, &[newest]).unwrap();
    assert_eq!(held(&target), days[3..]);
    assert_sound(&target);
    let added = there.total_bytes() - before;
    assert!(added < before / 2, "{added} bytes for a day, {before} for all of one");
    // Older ones come in between.
    copy_all(&repository, &target).unwrap();
    assert_eq!(held(&target), days);
    assert_sound(&target);
}

#[test]
fn a_snapshot_is_the_same_wherever_it_comes_from_and_whatever_its_tags() {
    let (store, days) = prepared();
    let first = open(store.clone()).unwrap();
    let [second, third] = [(); 2].map(|()| open(empty()).unwrap());
    copy_all(&first, &second).unwrap();
    copy_all(&second, &third).unwrap();
    assert_eq!(held(&third), days);
    assert_sound(&third);
    let skips = |from: &Repository, to: &Repository| {
        let report = copy_all(from, to).unwrap();
        assert!(report.copied.is_empty());
        assert_eq!(report.skipped.len(), 3);
    };
    skips(&first, &third);
    skips(&third, &first);
    let tags = TagOptions { add: vec!["monthly".into()], ..TagOptions::default() };
    for repository in [&first, &second, &third] {
        retag(repository, &all(repository)[1..], &tags).unwrap();
    }
    skips(&first, &second);
    skips(&first, &third);
    skips(&second, &first);
    // What was forgotten comes back from a copy.
    let lost = all(&first)[1].name;
    forget(&first, &[lost].into(), true).unwrap();
    prune_all(&first).unwrap();
    assert_eq!(copy_all(&third, &first).unwrap().copied.len(), 1);
    assert_eq!(held(&first), days);
    assert_sound(&first);
}

#[test]
fn new_keys_on_either_side_change_nothing_about_what_is_there() {
    let (store, days) = prepared();
    let (source, target) = (open(store).unwrap(), open(empty()).unwrap());
    copy_some(&source, &target, &all(&source)[..1]).unwrap();
    for repository in [&source, &target] {
        repository.rotate_keys().unwrap();
        prune_all(repository).unwrap();
    }
    let report = copy_all(&source, &target).unwrap();
    assert_eq!((report.copied.len(), report.skipped.len(), report.recompressed_chunks), (2, 1, 0));
    assert_eq!(held(&target), days);
    assert_sound(&target);
}

#[test]
fn a_write_only_key_cannot_copy() {
    let (store, _) = prepared();
    let secret = Secret::KeyFile(vec![3; 32].into());
    let owner = open(store.clone()).unwrap();
    owner.add_key(&secret, Kdf::KeyFile, Role::WriteOnly, "").unwrap();
    let writer = Repository::open(store, &secret, environment(Arc::new(OsEntropy))).unwrap();
    let other = open(empty()).unwrap();
    assert!(matches!(copy_some(&writer, &other, &all(&owner)), Err(Error::Conflict(_))));
    assert!(matches!(copy_some(&other, &writer, &[]), Err(Error::Conflict(_))));
}

/// What a write-only key stored is copied like everything else, and stays what nobody vouches for.
#[test]
fn a_backup_of_a_write_only_key_is_copied_once() {
    let (store, days) = prepared();
    let secret = Secret::KeyFile(vec![3; 32].into());
    let owner = open(store.clone()).unwrap();
    owner.add_key(&secret, Kdf::KeyFile, Role::WriteOnly, "").unwrap();
    let writer =
        Repository::open(store.clone(), &secret, environment(Arc::new(OsEntropy))).unwrap();
    let day = changed_rows(1, 1500, 3, 20);
    back_up(&writer, &day).unwrap();
    let (source, target) = (reading(&store), open(empty()).unwrap());
    assert_eq!(copy_all(&source, &target).unwrap().copied.len(), 4);
    assert_eq!(held(&target), [&days[..], &[day]].concat());
    assert_eq!(all(&target).iter().filter(|named| named.snapshot.sealed).count(), 1);
    assert_sound(&target);
    let third = open(empty()).unwrap();
    copy_all(&target, &third).unwrap();
    for (from, to) in [(&source, &target), (&source, &third), (&third, &target)] {
        let report = copy_all(from, to).unwrap();
        assert_eq!((report.copied.len(), report.skipped.len()), (0, 4));
    }
}

/// Packs that a killed copy stored and did not live to commit are found again, with their deltas.
#[test]
fn what_a_killed_copy_stored_is_not_stored_again() {
    let (store, days) = prepared();
    let (source, there) = (reading(&store), empty());
    let whole = Arc::new(there.fork());
    copy_all(&source, &open(whole.clone()).unwrap()).unwrap();
    let counting = Arc::new(FaultStore::new(there.fork(), Fault::CrashBefore, u64::MAX));
    copy_all(&source, &open(counting.clone()).unwrap()).unwrap();
    let changes = counting.changes();
    for at in [changes / 3, changes * 2 / 3] {
        let (target, cache) = (Arc::new(there.fork()), tempfile::tempdir().unwrap());
        let open_cached = |store: Arc<dyn Store>| {
            let mut environment = environment(Arc::new(OsEntropy));
            environment.cache = Some(cache.path().to_owned());
            Repository::open(store, &secret(), environment)
        };
        let faulty = Arc::new(FaultStore::new(target.clone(), Fault::CrashBefore, at));
        copy_all(&source, &open_cached(faulty).unwrap()).unwrap_err();
        let repository = open_cached(target.clone()).unwrap();
        let report = copy_all(&source, &repository).unwrap();
        assert!(report.present_chunks > 0 && report.recompressed_chunks == 0, "{report:?}");
        let (all, once) = (target.total_bytes(), whole.total_bytes());
        assert!(all < once + once / 5, "{all} bytes, {once} at once");
        assert_eq!(held(&repository), days);
        assert_sound(&repository);
    }
}

#[test]
fn one_repository_is_not_copied_into_itself() {
    let (store, _) = prepared();
    let twice = Arc::new(store.fork());
    let (source, target) = (reading(&store), open(twice).unwrap());
    assert!(matches!(copy_all(&source, &target), Err(Error::Conflict(_))));
}

#[test]
fn a_rehearsal_stores_nothing_and_tells_what_it_would_read() {
    let (store, _) = prepared();
    let (source, there) = (reading(&store), empty());
    let target = reading(&there);
    let options = CopyOptions { dry_run: true, threads: 2, ..CopyOptions::default() };
    let run = |target: &Repository, options: &CopyOptions| {
        copy(&source, target, &all(&source), options, &Progress::default()).unwrap()
    };
    let planned = run(&target, &options);
    let real = run(&open(there).unwrap(), &CopyOptions::default());
    assert_eq!((planned.chunks, planned.read_bytes), (real.chunks, real.read_bytes));
    assert_eq!((planned.copied.len(), planned.written_bytes), (3, 0));
}

/// For every store operation of a copy: strike there, then see that all is sound, and that the
/// next copy ends as if nothing had happened.
fn strike_everywhere(fault: Fault) {
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
struct WithEvent {
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

fn forget_and_prune(store: &Arc<MemoryStore>, chosen: &dyn Fn(&[ObjectName]) -> Vec<ObjectName>) {
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

/// A repository of files as the program sees it: every path with its size and time.
fn untouched(program: &Program) -> BTreeMap<std::path::PathBuf, (u64, std::time::SystemTime)> {
    let paths = program.objects("").into_iter();
    let look = |path: std::path::PathBuf| {
        let metadata = path.metadata().unwrap();
        (path, (metadata.len(), metadata.modified().unwrap()))
    };
    paths.map(look).collect()
}

#[test]
fn the_program_pushes_and_pulls() {
    let program = Program::initialized();
    let (first, second) = (rows(1, 20_000), changed_rows(1, 20_000, 1, 50));
    program.backup("s", &first);
    let other = Program::initialized_with(&[9; 40]);
    let place = other.path("repo").to_string_lossy().into_owned();
    let key = other.path("key").to_string_lossy().into_owned();

    let push = ["copy", "--to", &place, "--to-key-file", &key];
    let before = untouched(&program);
    assert!(text(&program.ok(&[&push[..], &["-n"]].concat(), b"")).contains("would copy 1"));
    program.ok(&push, b"");
    assert_eq!(untouched(&program), before);
    program.backup("s", &second);
    let said = text(&program.ok(&[&push[..], &["--json"]].concat(), b""));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((said["copied"].as_array().unwrap().len(), &said["dry_run"]), (1, &false.into()));
    assert!(other.ok(&["dump", "latest", "s", "--key-file", &key], b"") == second);

    let third = Program::initialized();
    let mut pull = third.command(&["copy", "--from", &place, "--latest", "1"]);
    pull.env("RESTOW_FROM_KEY_FILE", &key);
    let output = feed(pull, b"");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(third.ok(&["dump", "latest", "s"], b"") == second);
    third.ok(&["check", "--read-data"], b"");
    let filtered = ["copy", "--from", &place, "--from-key-file", &key, "--host", "nobody"];
    assert!(text(&third.ok(&filtered, b"")).contains("copied 0"));
}

#[test]
fn the_program_says_what_is_wrong_with_the_other_repository() {
    let program = Program::initialized();
    program.backup("s", b"text");
    let path = |name: &str| program.path(name).to_string_lossy().into_owned();
    let (nowhere, wrong, own) = (path("nowhere"), path("wrong"), path("repo"));
    std::fs::write(&wrong, [1; 32]).unwrap();
    let said = program.fails(&["copy", "--to", &nowhere, "--to-key-file", &wrong], b"", 10);
    assert!(said.contains("nowhere"), "{said}");
    let said = program.fails(&["copy", "--to", &own, "--to-key-file", &wrong], b"", 12);
    assert!(said.contains("wrong password or key file"), "{said}");
    program.fails(&["copy"], b"", 2);
    program.fails(&["copy", "--to", &own, "--from", &own], b"", 2);
    // No secret of the other repository: the own one is not tried there.
    let said = program.fails(&["copy", "--to", &own], b"", 2);
    assert!(said.contains(&own) && said.contains("RESTOW_TO_PASSWORD"), "{said}");
    let said = program.fails(&["copy", "--from", &own], b"", 2);
    assert!(
        said.contains("--from-password-file") && said.contains("RESTOW_FROM_KEY_FILE"),
        "{said}"
    );
    let key = key_file().to_str().unwrap();
    let said = program.fails(&["copy", "--from", &own, "--from-key-file", key], b"", 11);
    assert!(said.contains("same repository"), "{said}");
}
