//! What a repair must not take for a loss, and what it must not give up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use restow::copy::{CopyOptions, CopyReport};
use restow::format::log::{EntryKind, LogEntry};
use restow::format::paths;
use restow::id::ObjectName;
use restow::progress::Progress;
use restow::prune::{PruneOptions, Unused, run as prune};
use restow::repair::index::IndexOptions;
use restow::repair::packs::{PacksOptions, run as repair_packs};
use restow::repository::Repository;
use restow::repository::recipes::RecipeReader;
use restow::repository::snapshots::Filter;
use restow::store::memory::MemoryStore;
use restow::store::{ObjectInfo, Store, StoreError};

use crate::repair::*;
use crate::repair_parity::{mend_rot, with_parity};
use crate::support::*;

/// A store that cannot read the contents of one folder for a while.
struct Sick {
    inner: Arc<MemoryStore>,
    folder: String,
    error: fn(&str) -> StoreError,
    /// Reads that fail still.
    left: AtomicUsize,
}

impl Sick {
    fn new(
        inner: &Arc<MemoryStore>,
        folder: &str,
        error: fn(&str) -> StoreError,
        reads: usize,
    ) -> Arc<Self> {
        let left = AtomicUsize::new(reads);
        Arc::new(Self { inner: inner.clone(), folder: folder.to_owned(), error, left })
    }

    fn look(&self, path: &str) -> Result<(), StoreError> {
        if !path.starts_with(&self.folder) {
            return Ok(());
        }
        let taken =
            self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        taken.map_or(Ok(()), |_| Err((self.error)(path)))
    }
}

impl Store for Sick {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.put_new(path, bytes)
    }
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.look(path)?;
        self.inner.get(path)
    }
    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.look(path)?;
        self.inner.get_range(path, offset, length)
    }
    fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.inner.head(path)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.inner.list(prefix)
    }
    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.inner.delete(path)
    }
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.replace(path, bytes)
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

fn failed(path: &str, source: io::Error) -> StoreError {
    StoreError::Failed { action: "read", path: path.to_owned(), source }
}

fn times_out(path: &str) -> StoreError {
    failed(path, io::ErrorKind::TimedOut.into())
}

fn is_denied(path: &str) -> StoreError {
    let source = io::ErrorKind::PermissionDenied.into();
    StoreError::Denied { action: "read", path: path.to_owned(), source }
}

/// Neither a lost sector nor an answer.
fn says_no(path: &str) -> StoreError {
    failed(path, io::Error::from_raw_os_error(116))
}

/// EIO.
fn cannot_read(path: &str) -> StoreError {
    failed(path, io::Error::from_raw_os_error(5))
}

#[test]
fn a_store_that_does_not_answer_has_lost_nothing() {
    let (store, days) = prepared();
    let snapshots =
        store.objects().into_iter().filter(|(path, _)| path.starts_with("snap/")).count();
    let before = store.objects();
    for error in [times_out, is_denied, says_no] {
        for folder in ["log/", "idx/", "snap/"] {
            let sick = Sick::new(&store, folder, error, usize::MAX);
            mend_index(sick).unwrap_err();
        }
        let sick = Sick::new(&store, "data/", error, 0);
        let repository = open(sick.clone()).unwrap();
        sick.left.store(usize::MAX, Ordering::SeqCst);
        mend_packs(&repository).unwrap_err();
        assert_eq!(store.objects(), before);
    }
    assert_eq!((days_held(&store).len(), snapshots), (days.len(), 3));
}

#[test]
fn a_pack_that_answers_the_second_time_stays() {
    let (store, days) = prepared();
    let victim = store.objects().into_iter().find(|(path, _)| path.starts_with("data/")).unwrap().0;
    let sick = Sick::new(&store, &victim, cannot_read, 0);
    let repository = open(sick.clone()).unwrap();
    // As many reads as the run needs to find out what is damaged.
    sick.left.store(usize::MAX, Ordering::SeqCst);
    let dry = PacksOptions { dry_run: true, ..Default::default() };
    let planned = repair_packs(&repository, &dry, &Progress::default()).unwrap();
    assert!(planned.replaced.contains(&paths::object_name(&victim).unwrap()));
    let reads = usize::MAX - sick.left.load(Ordering::SeqCst);
    sick.left.store(reads, Ordering::SeqCst);
    let error = mend_packs(&repository).unwrap_err();
    assert!(error.to_string().contains("the same every time"), "{error}");
    assert_clean(&store, "nothing was taken off");
    assert_eq!(days_held(&store).len(), days.len());
    // What stays unreadable is lost for certain.
    sick.left.store(usize::MAX, Ordering::SeqCst);
    assert!(mend_packs(&repository).unwrap().lost_chunks > 0);
}

/// Damages the first data pack of the first day: later days hold deltas against it.
fn first_data_pack(repository: &Repository) -> ObjectName {
    let first = repository.snapshots(&Filter::default()).unwrap()[0].snapshot.clone();
    let run =
        RecipeReader::new(repository, first.streams[0].root).unwrap().next().unwrap().unwrap();
    repository.index().find(&run.id.key()).unwrap().unwrap().pack.name
}

#[test]
fn what_another_repository_gives_back_keeps_the_deltas_made_against_it() {
    let (store, days) = prepared();
    // It has the first day alone: nothing of the later ones can come from there.
    let other = init(Arc::new(MemoryStore::new())).unwrap();
    back_up(&other, &days[0]).unwrap();
    let repository = open(store.clone()).unwrap();
    let victim = first_data_pack(&repository);
    store.damage(&paths::pack(&victim), |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
    let options = PacksOptions { from: Some(&other), ..Default::default() };
    let report = repair_packs(&repository, &options, &Progress::default()).unwrap();
    assert_eq!(report.replaced, [victim], "{report:?}");
    assert!(report.lost_chunks > 0 && report.lost_chunks == report.found_chunks, "{report:?}");
    assert_clean(&store, "from another repository");
    assert_eq!(days_held(&store).len(), days.len());
}

#[test]
fn a_copy_in_a_condemned_pack_is_rescued() {
    let (store, days) = prepared();
    let repository = open(store.clone()).unwrap();
    // The same packs again under other names, as a prune leaves them that wrote them anew.
    let victim = first_data_pack(&repository);
    let kind = restow::crypto::keys::BlobKind::Data;
    let pack = repository.index().pack(&victim).unwrap().unwrap();
    let writer = restow::repository::writer::BlobWriter::new(&repository, false);
    let reader = restow::repository::reader::ChunkReader::new(&repository);
    std::thread::scope(|scope| {
        scope.spawn(|| writer.store_packs());
        for (ordinal, entry) in pack.entries.iter().enumerate() {
            let place = restow::index::Found { pack: pack.clone(), ordinal };
            let payload = reader.payload(&place).unwrap();
            let blob = restow::format::pack::EncodedBlob::new(entry.clone(), payload);
            writer.add(kind, blob).unwrap();
        }
        writer.close().unwrap();
    });
    writer.commit(None).unwrap();
    let places = repository.index().packs_of(&pack.entries[0].id).unwrap();
    let copy = places.into_iter().find(|place| place.pack.name != victim).unwrap().pack.name;
    let mut condemn = LogEntry::new(EntryKind::Gc);
    condemn.condemn = vec![copy];
    repository.commit(&mut || Ok(condemn.clone())).unwrap();
    store.damage(&paths::pack(&victim), |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
    let report = mend_packs(&repository).unwrap();
    assert_eq!((report.lost_chunks, report.replaced), (0, vec![victim]));
    assert!(repository.index().fate(&copy).is_none());
    assert_clean(&store, "rescued");
    assert_eq!(days_held(&store).len(), days.len());
}

#[test]
fn an_object_far_behind_the_log_is_no_entry() {
    let (store, days) = prepared();
    for number in [u64::MAX, 1 << 41, 5000] {
        let path = paths::log(number);
        store.put_new(&path, b"").unwrap();
        let repository = open(store.clone()).unwrap();
        back_up(&repository, format!("beside {number}").as_bytes()).unwrap();
        assert!(!mend_index(store.clone()).unwrap().is_needed);
        // Neither does it hide what is lost, nor stand in the way of the repair.
        let damaged = Arc::new(store.fork());
        damaged.delete(&paths::log(2)).unwrap();
        let report = mend_index(damaged.clone()).unwrap();
        // The one after the hole does not continue what fills it.
        assert_eq!(report.lost_entries, [(2, 3)]);
        assert_clean(&damaged, "repaired beside it");
        // Without any entry left it is none either.
        for number in open(store.clone()).unwrap().log_numbers().unwrap() {
            damaged.delete(&paths::log(number)).unwrap_or_default();
        }
        mend_index(damaged.clone()).unwrap();
        assert_clean(&damaged, "nothing else left");
        store.delete(&path).unwrap();
    }
    assert_eq!(days_held(&store).len(), days.len() + 3);
}

#[test]
fn the_parity_of_another_pack_is_none() {
    let (store, _) = with_parity(50);
    let original = store.objects();
    let parity: Vec<_> = original.iter().filter(|(path, _)| path.starts_with("parity/")).collect();
    store.damage(&parity[0].0, |bytes| *bytes = parity[1].1.to_vec());
    let report = full_check(&store);
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert_eq!(report.problems[0].object, *parity[0].0);
    assert_eq!(mend_rot(&store).renewed, [paths::object_name(&parity[0].0).unwrap()]);
    assert_eq!(store.objects(), original);
}

fn copy_all(source: &Repository, target: &Repository) -> restow::error::Result<CopyReport> {
    let all = source.snapshots(&Filter::default()).unwrap();
    let options = CopyOptions { threads: 2, ..Default::default() };
    restow::copy::run(source, target, &all, &options, &Progress::default())
}

#[test]
fn a_copy_brings_back_the_whole_of_what_was_repaired() {
    let (source, days) = prepared();
    let target = Arc::new(MemoryStore::new());
    init(target.clone()).unwrap();
    let from = open(source.clone()).unwrap();
    let to = open(target.clone()).unwrap();
    copy_all(&from, &to).unwrap();
    let victim = first_data_pack(&to);
    target.delete(&paths::pack(&victim)).unwrap();
    mend_all(&target).unwrap();
    let to = open(target.clone()).unwrap();
    let report = copy_all(&from, &to).unwrap();
    assert!(!report.copied.is_empty() && report.problems.is_empty(), "{report:?}");
    assert_clean(&target, "copied again");
    assert_eq!(days_held(&target), days.into_iter().collect());
}

#[test]
fn a_repaired_snapshot_is_another_one_than_the_damaged_one() {
    let (source, target) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let from = init(source.clone()).unwrap();
    let (one, two) = (rows(1, 3000), random_bytes(9, 100_000));
    let streams =
        options(vec![crate::support::source("one", &one), crate::support::source("two", &two)]);
    restow::backup::run(&from, streams, &Progress::default()).unwrap();
    init(target.clone()).unwrap();
    copy_all(&from, &open(target.clone()).unwrap()).unwrap();
    let damaged = open(target.clone()).unwrap().snapshots(&Filter::default()).unwrap().remove(0);
    // A pack of which the loss leaves one of the streams.
    let packs = open(target.clone()).unwrap().index().packs().unwrap();
    let (target, repository, new) = packs
        .into_iter()
        .find_map(|(victim, _)| {
            let target = Arc::new(target.fork());
            let path = paths::pack(&victim);
            target.damage(&path, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
            let repository = open(target.clone()).unwrap();
            mend_packs(&repository).unwrap();
            let new = mend_snapshots(&repository, true).unwrap().repaired.remove(0).new?;
            Some((target, repository, new))
        })
        .unwrap();
    let left = repository.load_snapshot(&new).unwrap();
    assert_eq!((left.original, left.origin, left.streams.len()), (None, None, 1));
    assert_eq!(left.repaired_from, Some(damaged.name));
    // The whole one comes back from where it is whole, and what was left goes there.
    let report = copy_all(&from, &open(target.clone()).unwrap()).unwrap();
    assert_eq!((report.copied.len(), report.problems.len()), (1, 0), "{report:?}");
    let to = open(target.clone()).unwrap();
    let all = to.snapshots(&Filter::default()).unwrap();
    let whole = all.iter().find(|named| named.snapshot.streams.len() == 2).unwrap();
    assert_eq!(read(&to, &whole.snapshot.streams[0]).unwrap(), one);
    assert_eq!(copy_all(&to, &from).unwrap().copied.len(), 1);
    assert_clean(&target, "copied again");
}

#[test]
fn a_copy_heals_a_target_that_lost_chunks() {
    let (source, mut days) = prepared();
    let target = Arc::new(MemoryStore::new());
    init(target.clone()).unwrap();
    let from = open(source.clone()).unwrap();
    copy_all(&from, &open(target.clone()).unwrap()).unwrap();
    let victim = first_data_pack(&open(target.clone()).unwrap());
    target.delete(&paths::pack(&victim)).unwrap();
    mend_index(target.clone()).unwrap();
    mend_packs(&open(target.clone()).unwrap()).unwrap();
    days.push(changed_rows(1, 1500, 3, 20));
    back_up(&from, &days[3]).unwrap();
    let report = copy_all(&from, &open(target.clone()).unwrap()).unwrap();
    assert_eq!((report.copied.len(), report.problems.len()), (1, 0), "{report:?}");
    let to = open(target.clone()).unwrap();
    let newest = to.snapshots(&Filter::default()).unwrap().pop().unwrap();
    assert_eq!(read(&to, &newest.snapshot.streams[0]).unwrap(), days[3]);
}

#[test]
fn a_manifest_that_cannot_be_read_today_is_taken_in_again_tomorrow() {
    let (store, days) = prepared();
    let (path, bytes) =
        store.objects().into_iter().find(|(path, _)| path.starts_with("snap/")).unwrap();
    let name = paths::object_name(&path).unwrap();
    store.damage(&path, |bytes| bytes[70] ^= 1);
    assert_eq!(mend_index(store.clone()).unwrap().lost_snapshots, 1);
    assert!(!mend_index(store.clone()).unwrap().is_needed);
    let repository = open(store.clone()).unwrap();
    assert_eq!(repository.unread_snapshots().unwrap(), [name]);
    // Whole states say so again, and prune removes nothing that it may need.
    for _ in 0..140 {
        repository.commit(&mut || Ok(LogEntry::new(EntryKind::Noop))).unwrap();
    }
    assert_eq!(open(store.clone()).unwrap().unread_snapshots().unwrap(), [name]);
    let now = PruneOptions {
        grace: Duration::ZERO,
        max_unused: Unused::Bytes(0),
        ..PruneOptions::default()
    };
    let error = prune(&repository, &now, &Progress::default()).unwrap_err();
    assert!(error.to_string().contains("--forget-unread"), "{error}");
    let back = Arc::new(store.fork());
    back.damage(&path, |it| *it = bytes.to_vec());
    assert_eq!(mend_index(back.clone()).unwrap().found_snapshots, [name]);
    assert_eq!(days_held(&back).len(), days.len());
    let repository = open(back.clone()).unwrap();
    assert!(repository.unread_snapshots().unwrap().is_empty());
    prune(&repository, &now, &Progress::default()).unwrap();
    assert_clean(&back, "taken in again");
    // Who knows that it will never be read says so.
    let repository = open(store.clone()).unwrap();
    let last = PruneOptions { forget_unread: true, ..now.clone() };
    prune(&repository, &last, &Progress::default()).unwrap();
    prune(&repository, &now, &Progress::default()).unwrap();
    assert!(store.get(&path).is_err());
    assert_clean(&store, "forgotten");
    assert_eq!(days_held(&store).len(), days.len() - 1);
}

#[test]
fn a_disk_that_was_away_loses_nothing() {
    let (store, days) = prepared();
    let data: Vec<_> =
        store.objects().into_iter().filter(|(path, _)| path.starts_with("data/")).collect();
    data.iter().for_each(|(path, _)| store.delete(path).unwrap());
    let error = mend_index(store.clone()).unwrap_err();
    assert!(error.to_string().contains("--allow-empty"), "{error}");
    let sure = IndexOptions { allow_empty: true, ..Default::default() };
    assert_eq!(mend_index_with(store.clone(), sure).unwrap().missing_packs, data.len() as u64);
    mend_packs(&open(store.clone()).unwrap()).unwrap();
    data.iter().for_each(|(path, bytes)| store.put_new(path, bytes).unwrap());
    let report = full_check(&store);
    assert!(!report.problems.is_empty());
    assert!(report.advice()[0].contains("repair index"), "{:?}", report.advice());
    assert_eq!(mend_index(store.clone()).unwrap().listed_packs, data.len() as u64);
    assert_clean(&store, "back again");
    assert_eq!(days_held(&store).len(), days.len());
    assert!(!mend_index(store.clone()).unwrap().is_needed);
}
