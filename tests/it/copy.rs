//! Copies: what arrives is what was there, in deltas as it was, once, and whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use restow::check::{ReadData, run as check};
use restow::copy::{CopyOptions, CopyReport, run as copy};
use restow::crypto::slot::{Kdf, Role, Secret};
use restow::entropy::OsEntropy;
use restow::error::{Error, Result};
use restow::forget::forget;
use restow::progress::Progress;
use restow::prune::{PruneOptions, Unused, run as prune};
use restow::repository::Repository;
use restow::repository::snapshots::{Filter, NamedSnapshot};
use restow::restore::options::{Overwrite, TreeOptions};
use restow::restore::tree::restore_tree;
use restow::stats;
use restow::store::Store;
use restow::store::fault::{Fault, FaultStore};
use restow::store::memory::MemoryStore;
use restow::store::read_only::ReadOnlyStore;
use restow::store::record::{Call, RecordingStore};
use restow::tag::{TagOptions, run as retag};

use crate::files::{back_up_files, every_kind, picture};
use crate::support::*;

pub fn empty() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    init(store.clone()).unwrap();
    store
}

pub fn all(repository: &Repository) -> Vec<NamedSnapshot> {
    repository.snapshots(&Filter::default()).unwrap()
}

pub fn copy_all(source: &Repository, target: &Repository) -> Result<CopyReport> {
    copy_some(source, target, &all(source))
}

pub fn copy_some(
    source: &Repository,
    target: &Repository,
    chosen: &[NamedSnapshot],
) -> Result<CopyReport> {
    let options = CopyOptions { threads: 2, ..CopyOptions::default() };
    copy(source, target, chosen, &options, &Progress::default())
}

/// A source that nobody can write to, as `restow copy` opens it.
pub fn reading(store: &Arc<MemoryStore>) -> Repository {
    open(Arc::new(ReadOnlyStore(store.clone()))).unwrap()
}

/// Contents of stream `s` of all snapshots, in the order of their times.
pub fn held(repository: &Repository) -> Vec<Vec<u8>> {
    let snapshots = all(repository).into_iter();
    snapshots.map(|named| read(repository, &named.snapshot.streams[0]).unwrap()).collect()
}

pub fn assert_sound(repository: &Repository) {
    let report = check(repository, ReadData::All, &Progress::default()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

pub fn prune_all(repository: &Repository) -> Result<()> {
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

/// A repository of files as the program sees it: every path with its size and time.
pub fn untouched(program: &Program) -> BTreeMap<std::path::PathBuf, (u64, std::time::SystemTime)> {
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
