//! Repair: whatever is not lost for good comes back, and nothing gets worse on the way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use restow::check::{CheckReport, ReadData, run as check};
use restow::error::{Error, Result};
use restow::format::log::EntryKind;
use restow::format::parity::Head;
use restow::format::paths;
use restow::id::ObjectName;
use restow::progress::Progress;
use restow::prune::{PruneOptions, Unused, run as prune};
use restow::repair::index::{IndexOptions, IndexReport, run as repair_index};
use restow::repair::packs::{PacksOptions, PacksReport, run as repair_packs};
use restow::repair::snapshots::{SnapshotsOptions, SnapshotsReport, run as repair_snapshots};
use restow::repair::{index, parity};
use restow::repository::snapshots::Filter;
use restow::repository::{InitOptions, Repository};
use restow::restore::options::{Overwrite, TreeOptions};
use restow::restore::tree::restore_tree;
use restow::store::Store;
use restow::store::fault::{Fault, FaultStore};
use restow::store::memory::MemoryStore;
use restow::store::read_only::ReadOnlyStore;
use restow::store::record::{Call, RecordingStore};

use crate::files::{back_up_files, picture};
use crate::support::*;

pub fn mend_index_with(store: Arc<dyn Store>, options: IndexOptions) -> Result<IndexReport> {
    let environment = environment(Arc::new(restow::entropy::OsEntropy));
    repair_index(store, &secret(), environment, options, &Progress::default())
}

pub fn mend_index(store: Arc<dyn Store>) -> Result<IndexReport> {
    mend_index_with(store, IndexOptions::default())
}

pub fn mend_packs(repository: &Repository) -> Result<PacksReport> {
    repair_packs(repository, &PacksOptions::default(), &Progress::default())
}

pub fn mend_snapshots(repository: &Repository, forget: bool) -> Result<SnapshotsReport> {
    let all = repository.snapshots(&Filter::default())?;
    let options = SnapshotsOptions { dry_run: false, forget };
    repair_snapshots(repository, &all, options, &Progress::default())
}

/// All repairs one after the other, as somebody would who has lost something.
pub fn mend_all(store: &Arc<MemoryStore>) -> Result<()> {
    mend_index(store.clone())?;
    let repository = open(store.clone())?;
    mend_packs(&repository)?;
    mend_snapshots(&repository, true)?;
    Ok(())
}

pub fn full_check(store: &Arc<MemoryStore>) -> CheckReport {
    check(&open(store.clone()).unwrap(), ReadData::All, &Progress::default()).unwrap()
}

/// What a check says of a manifest that a repair could not read.
const UNREAD: &str = "could not be read when the log was repaired";

pub fn assert_clean(store: &Arc<MemoryStore>, what: &str) {
    let mut report = full_check(store);
    // That the manifest which was damaged cannot be read stays to be said until it can.
    let is_said = |object: &str, detail: &str| what.starts_with(object) && detail == UNREAD;
    report.problems.retain(|problem| !is_said(&problem.object, &problem.detail));
    assert!(report.problems.is_empty(), "{what}: {:?}", report.problems);
}

pub fn days_held(store: &Arc<MemoryStore>) -> BTreeSet<Vec<u8>> {
    contents(&open(store.clone()).unwrap()).unwrap().into_values().collect()
}

fn folder(path: &str) -> &str {
    path.split('/').next().unwrap()
}

type Damage = Box<dyn Fn(&MemoryStore, &str)>;
type Change = Box<dyn Fn(&mut Vec<u8>)>;

/// Ways to damage an object.
fn damages(bytes: usize) -> Vec<(&'static str, Damage)> {
    let flip = |at: usize| -> Damage {
        Box::new(move |store, path| store.damage(path, |bytes| bytes[at] ^= 0x10))
    };
    vec![
        ("deleted", Box::new(|store: &MemoryStore, path: &str| store.delete(path).unwrap())),
        ("cut", Box::new(move |store, path| store.damage(path, |b| b.truncate(bytes / 2)))),
        ("emptied", Box::new(|store, path| store.damage(path, Vec::clear))),
        ("epoch flipped", flip(9)),
        ("header flipped", flip(20)),
        ("body flipped", flip(70)),
        ("middle flipped", flip(bytes / 2)),
        ("directory flipped", flip(bytes - 30)),
        ("end flipped", flip(bytes - 2)),
    ]
}

/// After the repairs everything is sound, what is left restores, new backups work, and another round of
/// repairs finds nothing to do.
fn assert_mended(store: &Arc<MemoryStore>, days: &[Vec<u8>], at_least: usize, what: &str) {
    mend_all(store).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_clean(store, what);
    let held = days_held(store);
    assert!(held.iter().all(|day| days.contains(day)), "{what}: wrong bytes");
    assert!(held.len() >= at_least, "{what}: {} of {} days are left", held.len(), days.len());
    let before = store.objects().len();
    mend_all(store).unwrap();
    assert_eq!(store.objects().len(), before, "{what}: repaired what was repaired");
    let repository = open(store.clone()).unwrap();
    for day in days {
        back_up(&repository, day).unwrap();
    }
    assert_clean(store, what);
    assert_eq!(days_held(store).len(), days.len(), "{what}");
}

#[test]
fn everything_but_packs_and_snapshots_comes_back_whole() {
    let (store, days) = prepared();
    for (path, bytes) in store.objects() {
        if !["log", "idx", "config"].contains(&folder(&path)) {
            continue;
        }
        for (how, damage) in damages(bytes.len()) {
            let damaged = Arc::new(store.fork());
            damage(&damaged, &path);
            let what = format!("{path} {how}");
            // The last entry deleted is a rollback: nobody can see it who was not there.
            let options =
                IndexOptions { all: path.ends_with("3") && how == "deleted", ..Default::default() };
            mend_index_with(damaged.clone(), options).unwrap_or_else(|e| panic!("{what}: {e}"));
            let config = open(damaged.clone()).unwrap().config().clone();
            assert_eq!(config, *open(store.clone()).unwrap().config(), "{what}");
            assert_mended(&damaged, &days, 3, &what);
        }
    }
}

/// Three days, each under keys of its own.
fn rotated() -> (Arc<MemoryStore>, Vec<Vec<u8>>) {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let days: Vec<_> = (0..3).map(|day| changed_rows(1, 1500, day, 20)).collect();
    for (number, day) in days.iter().enumerate() {
        if number > 0 {
            repository.rotate_keys().unwrap();
        }
        back_up(&repository, day).unwrap();
    }
    (store, days)
}

#[test]
fn keys_that_were_rotated_outlive_the_log() {
    let (store, days) = rotated();
    let epoch = open(store.clone()).unwrap().keys().current().number();
    assert!(epoch > 0);
    let is_sound = |damaged: &Arc<MemoryStore>, what: &str| {
        let repository = open(damaged.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(repository.keys().current().number(), epoch, "{what}");
        drop(repository);
        assert_mended(damaged, &days, 3, what);
        // What is written afterwards does not hide that the epoch began.
        let repository = open(damaged.clone()).unwrap();
        assert_eq!(repository.keys().current().number(), epoch, "{what}");
        repository.rotate_keys().unwrap();
        assert_clean(damaged, what);
    };
    for (path, bytes) in store.objects().iter().filter(|(path, _)| path.starts_with("log/")) {
        for (how, damage) in damages(bytes.len()) {
            let damaged = Arc::new(store.fork());
            damage(&damaged, path);
            let options = IndexOptions { all: true, ..Default::default() };
            mend_index_with(damaged.clone(), options).unwrap();
            is_sound(&damaged, &format!("{path} {how}"));
        }
    }
    for lost in [&["log"][..], &["log", "config"], &["log", "idx"]] {
        let damaged = Arc::new(store.fork());
        for (path, _) in store.objects().iter().filter(|(path, _)| lost.contains(&folder(path))) {
            damaged.delete(path).unwrap();
        }
        mend_index(damaged.clone()).unwrap();
        is_sound(&damaged, &format!("{lost:?}"));
    }
    // Old keys that were destroyed, and entries from then that nobody can read.
    let repository = open(store.clone()).unwrap();
    let options = PruneOptions { grace: Duration::ZERO, ..Default::default() };
    prune(&repository, &options, &Progress::default()).unwrap();
    prune(&repository, &options, &Progress::default()).unwrap();
    assert_eq!(open(store.clone()).unwrap().keys().epochs(), [epoch]);
    assert!(!mend_index(store.clone()).unwrap().is_needed);
    let newest = store.objects().into_iter().rfind(|(path, _)| path.starts_with("log/")).unwrap();
    store.damage(&newest.0, |bytes| bytes[70] ^= 1);
    assert!(mend_index(store.clone()).unwrap().is_needed);
    assert_mended(&store, &days, 3, "after old keys were destroyed");
}

#[test]
fn damaged_packs_and_snapshots_take_only_what_stands_in_them() {
    let (store, days) = prepared();
    for (path, bytes) in store.objects() {
        let least = match folder(&path) {
            "data" => 0,
            "snap" => 2,
            _ => continue,
        };
        for (how, damage) in damages(bytes.len()) {
            let damaged = Arc::new(store.fork());
            damage(&damaged, &path);
            assert_mended(&damaged, &days, least, &format!("{path} {how}"));
        }
    }
}

#[test]
fn a_flip_in_a_blob_costs_no_other_blob() {
    let (store, _) = prepared();
    let repository = open(store.clone()).unwrap();
    for (name, _) in repository.index().packs().unwrap() {
        let pack = repository.index().pack(&name).unwrap().unwrap();
        let damaged = Arc::new(store.fork());
        damaged.damage(&paths::pack(&name), |bytes| bytes[pack.offsets[0] as usize] ^= 1);
        let report = mend_packs(&open(damaged).unwrap()).unwrap();
        assert!(report.lost_chunks >= 1 && report.replaced.contains(&name), "{report:?}");
        assert!(report.saved_blobs + report.lost_chunks >= pack.entries.len() as u64);
        // Header and directory are not needed: the index knows both.
        for at in [20, pack.size as usize - 30, pack.size as usize - 2] {
            let damaged = Arc::new(store.fork());
            damaged.damage(&paths::pack(&name), |bytes| bytes[at] ^= 1);
            let report = mend_packs(&open(damaged.clone()).unwrap()).unwrap();
            assert_eq!(report.lost_chunks, 0, "{report:?}");
            assert_clean(&damaged, "after a flip in a header or directory");
        }
    }
}

#[test]
fn whole_folders_that_are_lost_come_back_from_packs_and_snapshots() {
    let (store, days) = prepared();
    let sets: [&[&str]; 5] =
        [&["idx"], &["log"], &["idx", "log"], &["config", "log"], &["config", "idx", "log"]];
    for lost in sets {
        let damaged = Arc::new(store.fork());
        for (path, _) in store.objects().iter().filter(|(path, _)| lost.contains(&folder(path))) {
            damaged.delete(path).unwrap();
        }
        assert_eq!(mend_index(damaged.clone()).unwrap().snapshots, 3, "{lost:?}");
        assert_clean(&damaged, &format!("{lost:?}"));
        assert_mended(&damaged, &days, 3, &format!("{lost:?}"));
    }
    // Without any key slot there is nothing to begin with.
    for (path, _) in store.objects().iter().filter(|(path, _)| path.starts_with("keys/")) {
        store.delete(path).unwrap();
    }
    let error = mend_index(store).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

#[test]
fn a_damaged_key_slot_is_named_and_another_one_opens() {
    let (store, days) = prepared();
    let other = restow::crypto::slot::Secret::KeyFile(vec![9; 32].into());
    let repository = open(store.clone()).unwrap();
    let slot = repository
        .add_key(
            &other,
            restow::crypto::slot::Kdf::KeyFile,
            restow::crypto::slot::Role::Owner,
            "two",
        )
        .unwrap();
    store.damage(&format!("keys/{slot}"), |bytes| bytes[40] ^= 1);
    let report = mend_index(store.clone()).unwrap();
    assert!(report.findings.iter().any(|finding| finding.object.ends_with(&slot)));
    assert!(!report.is_needed);
    let advice = full_check(&store).advice();
    assert!(advice[0].contains("key remove"), "{advice:?}");
    open(store.clone()).unwrap().remove_key(&slot).unwrap();
    assert_mended(&store, &days, 3, "key slot");
}

#[test]
fn what_the_rest_of_the_log_calls_forgotten_stays_forgotten() {
    let (store, _) = prepared();
    let repository = open(store.clone()).unwrap();
    let all = repository.snapshots(&Filter::default()).unwrap();
    restow::forget::forget(&repository, &[all[0].name].into(), true).unwrap();
    back_up(&repository, b"more").unwrap();
    drop(repository);
    for lost in [1, 2, 3, 5] {
        let damaged = Arc::new(store.fork());
        damaged.delete(&paths::log(lost)).unwrap();
        mend_index_with(damaged.clone(), IndexOptions { all: true, ..Default::default() }).unwrap();
        let live = open(damaged.clone()).unwrap().index().snapshot_names().unwrap();
        assert_eq!(live.len(), 3, "entry {lost} lost");
        assert!(!live.contains(&all[0].name));
        assert_clean(&damaged, "forgotten");
    }
    // Where the entry that forgot it is lost, it is live again.
    store.delete(&paths::log(4)).unwrap();
    let report = mend_index(store.clone()).unwrap();
    assert_eq!(report.snapshots, 4);
    assert_clean(&store, "live again");
}

#[test]
fn a_repaired_log_says_what_it_lost_and_holes_are_closed() {
    let (store, _) = prepared();
    store.delete(&paths::log(1)).unwrap();
    store.damage(&paths::log(2), |bytes| bytes[80] ^= 1);
    let report = mend_index(store.clone()).unwrap();
    assert_eq!(report.lost_entries, [(1, 2)]);
    let repository = open(store.clone()).unwrap();
    let entry = |number| repository.read_entry(number).unwrap().unwrap().entry;
    assert_eq!(entry(1).kind, EntryKind::Noop);
    assert_eq!(entry(4).kind, EntryKind::Repair);
    assert_eq!(entry(4).lost, [(1, 2)]);
    assert!(!mend_index(store.clone()).unwrap().is_needed);
    // States that follow say that there was a repair.
    for _ in 0..140 {
        repository.commit(&mut || Ok(restow::format::log::LogEntry::new(EntryKind::Noop))).unwrap();
    }
    let numbers = repository.log_numbers().unwrap();
    let state = numbers.into_iter().map(entry).rfind(|entry| entry.is_state()).unwrap();
    assert!(state.kind == EntryKind::State && state.was_repaired);
    assert!(open(store.clone()).unwrap().index().was_repaired().unwrap());
    assert_clean(&store, "after many entries");
}

#[test]
fn a_machine_that_saw_what_was_lost_must_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let cached = |store: &Arc<MemoryStore>, name: &str| {
        let mut environment = environment(Arc::new(restow::entropy::OsEntropy));
        environment.cache = Some(folder.path().join(name));
        Repository::open(store.clone(), &secret(), environment)
    };
    let (store, days) = prepared();
    let head = cached(&store, "head").unwrap();
    drop(head);
    // Before the loss, at it, and at the head of a log whose older part is damaged.
    for (lost, is_refused) in [(3, true), (2, false), (1, false)] {
        let damaged = Arc::new(store.fork());
        let name = format!("copy-{lost}");
        drop(cached(&damaged, &name).unwrap());
        damaged.damage(&paths::log(lost), |bytes| bytes[80] ^= 1);
        mend_index(damaged.clone()).unwrap();
        match cached(&damaged, &name) {
            Ok(repository) => {
                assert!(!is_refused);
                assert_eq!(contents(&repository).unwrap().len(), 3);
            }
            Err(error) => {
                assert!(is_refused && matches!(error, Error::RolledBack { .. }), "{lost}: {error}");
                assert!(error.to_string().contains("repaired"), "{error}");
                assert!(error.hint().unwrap().contains("cache --forget"));
            }
        }
        assert_eq!(days_held(&damaged).len(), days.len());
    }
}

#[test]
fn a_machine_that_remembers_mends_the_end_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let environment = || {
        let mut environment = environment(Arc::new(restow::entropy::OsEntropy));
        environment.cache = Some(folder.path().to_owned());
        environment
    };
    let (store, days) = prepared();
    let repository = Repository::open(store.clone(), &secret(), environment()).unwrap();
    let all = repository.snapshots(&Filter::default()).unwrap();
    restow::forget::forget(&repository, &[all[1].name].into(), true).unwrap();
    drop(repository);
    for number in 2..=4 {
        store.delete(&paths::log(number)).unwrap();
    }
    let index_options = IndexOptions::default();
    let report =
        repair_index(store.clone(), &secret(), environment(), index_options, &Progress::default())
            .unwrap();
    assert!(report.is_rolled_back);
    // It knows that one was forgotten, though no entry says so.
    assert_eq!(report.snapshots, 2);
    let repository = Repository::open(store.clone(), &secret(), environment()).unwrap();
    let held: BTreeSet<_> = contents(&repository).unwrap().into_values().collect();
    assert_eq!(held, [days[0].clone(), days[2].clone()].into());
    assert_clean(&store, "rolled back");
}

#[test]
fn missing_packs_leave_the_list_and_come_back_when_they_do() {
    let (store, days) = prepared();
    let victim = store.objects().into_iter().find(|(path, _)| path.starts_with("data/")).unwrap();
    store.delete(&victim.0).unwrap();
    let report = mend_index(store.clone()).unwrap();
    assert_eq!(report.missing_packs, 1);
    // A backup of the same does not rely on what is lost.
    let repository = open(store.clone()).unwrap();
    for day in &days {
        let report = back_up(&repository, day).unwrap();
        let tree = report.snapshot.streams[0].clone();
        assert_eq!(read(&repository, &tree).unwrap(), *day);
    }
    drop(repository);
    // The disk was only away.
    store.put_new(&victim.0, &victim.1).unwrap();
    mend_index_with(store.clone(), IndexOptions { all: true, ..Default::default() }).unwrap();
    assert_clean(&store, "back again");
    assert_eq!(contents(&open(store).unwrap()).unwrap().len(), 6);
}

#[test]
fn dry_runs_change_nothing_and_say_the_same() {
    let (store, _) = prepared();
    for (path, bytes) in store.objects() {
        if folder(&path) == "keys" {
            continue;
        }
        let damaged = Arc::new(store.fork());
        damaged.damage(&path, |it| it[bytes.len() / 2] ^= 1);
        let read_only = Arc::new(ReadOnlyStore(damaged.clone()));
        let dry = IndexOptions { dry_run: true, ..Default::default() };
        let planned = mend_index_with(read_only.clone(), dry).unwrap();
        let done = mend_index(damaged.clone()).unwrap();
        assert_eq!(planned.is_needed, done.is_needed, "{path}");
        assert_eq!(planned.findings, done.findings, "{path}");
        let repository = open(read_only.clone()).unwrap();
        let options = PacksOptions { dry_run: true, ..Default::default() };
        let planned = repair_packs(&repository, &options, &Progress::default()).unwrap();
        let all = repository.snapshots(&Filter::default()).unwrap();
        let options = SnapshotsOptions { dry_run: true, forget: true };
        repair_snapshots(&repository, &all, options, &Progress::default()).unwrap();
        let done = mend_packs(&open(damaged).unwrap()).unwrap();
        assert_eq!(planned.replaced, done.replaced, "{path}");
        assert_eq!(planned.lost_chunks, done.lost_chunks, "{path}");
    }
}

#[test]
fn nothing_is_deleted() {
    let (store, _) = prepared();
    for (path, bytes) in store.objects() {
        if folder(&path) == "keys" {
            continue;
        }
        let damaged = Arc::new(store.fork());
        damaged.damage(&path, |it| it[bytes.len() / 2] ^= 1);
        let recorded = Arc::new(RecordingStore::new(damaged));
        mend_index(recorded.clone()).unwrap();
        let repository = open(recorded.clone()).unwrap();
        mend_packs(&repository).unwrap();
        mend_snapshots(&repository, true).unwrap();
        let calls = recorded.take();
        assert!(!calls.iter().any(|call| matches!(call, Call::Delete(_))));
        let replaced =
            calls.iter().any(|call| matches!(call, Call::Replace(at, _) if at != "config"));
        assert!(!replaced, "{path}");
    }
}

#[test]
fn prune_takes_what_repair_left() {
    let (store, days) = prepared();
    let victims: Vec<_> =
        store.objects().into_iter().filter(|(path, _)| path.starts_with("data/")).collect();
    for (path, bytes) in &victims[..2] {
        store.damage(path, |it| it[bytes.len() / 3] ^= 1);
    }
    mend_all(&store).unwrap();
    let repository = open(store.clone()).unwrap();
    let held = contents(&repository).unwrap();
    let options = PruneOptions {
        grace: Duration::ZERO,
        max_unused: Unused::Bytes(0),
        allow_empty: true,
        ..Default::default()
    };
    prune(&repository, &options, &Progress::default()).unwrap();
    prune(&repository, &options, &Progress::default()).unwrap();
    let report = full_check(&store);
    assert!(report.problems.is_empty() && report.orphans == 0, "{report:?}");
    assert_eq!(contents(&open(store.clone()).unwrap()).unwrap(), held);
    for day in &days {
        back_up(&repository, day).unwrap();
    }
    assert_clean(&store, "after a prune");
}

/// A crash anywhere leaves what there was, and the next run ends the work.
#[test]
fn a_fault_at_any_operation_of_a_repair_loses_nothing() {
    let (store, days) = prepared();
    let all = store.objects();
    let find = |prefix: &str| all.iter().find(|(path, _)| path.starts_with(prefix)).unwrap();
    let lost =
        [find("data/").0.clone(), find("idx/").0.clone(), paths::log(2), "config".to_owned()];
    for path in &lost {
        store.damage(path, |bytes| *bytes.last_mut().unwrap() ^= 1);
    }
    store.damage(&lost[0], |bytes| bytes[70] ^= 1);
    let reference = Arc::new(store.fork());
    mend_all(&reference).unwrap();
    let expected = days_held(&reference);
    let faults =
        [Fault::CrashBefore, Fault::CrashAfter, Fault::LostReply, Fault::LostRequest, Fault::Full];
    for fault in faults {
        for at in 0.. {
            let survivor = Arc::new(store.fork());
            let faulty = Arc::new(FaultStore::new(survivor.clone(), fault, at));
            let result = mend_index(faulty.clone()).and_then(|_| {
                let repository = open(faulty.clone())?;
                mend_packs(&repository)?;
                mend_snapshots(&repository, true)
            });
            mend_all(&survivor).unwrap_or_else(|error| panic!("{fault:?} at {at}: {error}"));
            assert_clean(&survivor, &format!("{fault:?} at {at}"));
            assert_eq!(days_held(&survivor), expected, "{fault:?} at {at}");
            if !faulty.has_struck() {
                result.unwrap();
                break;
            }
        }
    }
    let _ = days;
}

#[test]
fn another_repository_gives_lost_chunks_back() {
    let (store, days) = prepared();
    let other_store = Arc::new(MemoryStore::new());
    let other = init(other_store).unwrap();
    for day in &days {
        back_up(&other, day).unwrap();
    }
    let data: Vec<_> = {
        let repository = open(store.clone()).unwrap();
        let packs = repository.index().packs().unwrap();
        let kind = |name: &ObjectName| repository.index().pack(name).unwrap().unwrap().kind;
        packs.into_iter().map(|(name, _)| name).filter(|name| kind(name).name() == "data").collect()
    };
    // One pack flipped, one cut, one gone.
    store.damage(&paths::pack(&data[0]), |bytes| bytes[100] ^= 1);
    store.damage(&paths::pack(&data[1]), |bytes| bytes.truncate(5000));
    let repository = open(store.clone()).unwrap();
    let options = PacksOptions { from: Some(&other), ..Default::default() };
    let dry = PacksOptions { dry_run: true, from: Some(&other), ..Default::default() };
    let planned = repair_packs(&repository, &dry, &Progress::default()).unwrap();
    let report = repair_packs(&repository, &options, &Progress::default()).unwrap();
    assert!(report.lost_chunks > 0 && report.found_chunks == report.lost_chunks, "{report:?}");
    assert_eq!(planned.found_chunks, report.found_chunks);
    assert_clean(&store, "from another repository");
    assert_eq!(days_held(&store), days.into_iter().collect());
    assert!(mend_snapshots(&repository, false).unwrap().repaired.is_empty());
}

#[test]
fn files_come_back_from_another_repository_or_leave_their_snapshots_alone() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir_all(source.join("sub/deep")).unwrap();
    for number in 0..30 {
        let name = ["a", "sub/b", "sub/deep/c"][number as usize % 3];
        std::fs::write(source.join(format!("{name}{number}")), rows(number, 100)).unwrap();
    }
    // Big enough to stand in packs without the others.
    std::fs::write(source.join("sub/big"), random_bytes(99, 5 << 20)).unwrap();
    let (store, other_store) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let report = back_up_files(&init(store.clone()).unwrap(), &[&source]);
    let other = init(other_store).unwrap();
    back_up_files(&other, &[&source]);
    let repository = open(store.clone()).unwrap();
    let is_group = |pack: &restow::index::PackDirectory| {
        pack.entries.iter().any(|entry| entry.codec == restow::format::directory::Codec::Member)
    };
    for (number, (name, _)) in repository.index().packs().unwrap().into_iter().enumerate() {
        let pack = repository.index().pack(&name).unwrap().unwrap();
        if pack.kind.name() != "data" || (number % 100 != 0 && !is_group(&pack)) {
            continue;
        }
        let flip = |bytes: &mut Vec<u8>| bytes[pack.offsets[0] as usize + 3] ^= 1;
        // Without help the file goes, and only it.
        let damaged = Arc::new(store.fork());
        damaged.damage(&paths::pack(&name), flip);
        let repository = open(damaged.clone()).unwrap();
        let lost = mend_packs(&repository).unwrap().lost_chunks;
        let mended = mend_snapshots(&repository, true).unwrap();
        assert!(lost > 0 && mended.repaired.len() == 1, "{mended:?}");
        let repaired = &mended.repaired[0];
        assert!(repaired.forgotten && repaired.lost.len() <= lost as usize, "{repaired:?}");
        let snapshot = repository.load_snapshot(&repaired.new.unwrap()).unwrap();
        assert_eq!(snapshot.tags, ["repaired"]);
        let target = folder.path().join(name.short());
        restore(&repository, snapshot.tree.unwrap(), &target);
        for lost in &repaired.lost {
            let path = lost.to_string();
            assert!(!target.join(path.trim_start_matches('/')).exists(), "{path}");
        }
        let files = |root: &std::path::Path| picture(root).len();
        let restored = files(&target.join(source.strip_prefix("/").unwrap()));
        assert_eq!(restored + repaired.lost.len(), files(&source));
        assert_clean(&damaged, "files");
        // The next backup stores what is lost again.
        back_up_files(&repository, &[&source]);
        assert_clean(&damaged, "files backed up again");
        // With another repository nothing is lost.
        let damaged = Arc::new(store.fork());
        damaged.damage(&paths::pack(&name), flip);
        let repository = open(damaged.clone()).unwrap();
        let options = PacksOptions { from: Some(&other), ..Default::default() };
        let report_of = repair_packs(&repository, &options, &Progress::default()).unwrap();
        assert_eq!(report_of.lost_chunks, report_of.found_chunks, "{report_of:?}");
        let target = folder.path().join(format!("{}-whole", name.short()));
        restore(&repository, report.snapshot.tree.unwrap(), &target);
        assert_eq!(picture(&target.join(source.strip_prefix("/").unwrap())), picture(&source));
    }
}

fn restore(repository: &Repository, tree: restow::id::ChunkId, target: &std::path::Path) {
    let options = TreeOptions {
        target: target.to_owned(),
        overwrite: Overwrite::Always,
        ..Default::default()
    };
    restore_tree(repository, tree, &options, &Progress::default()).unwrap();
}

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

#[test]
fn the_program_repairs() {
    let program = Program::new();
    program.ok(&["init", "--parity", "10%"], b"");
    let days: Vec<_> = (0..3).map(|day| changed_rows(1, 20_000, day, 20)).collect();
    days.iter().for_each(|day| program.backup("a", day));
    // Rot.
    let pack = program.objects("data").remove(0);
    let mut bytes = std::fs::read(&pack).unwrap();
    let good = bytes.clone();
    bytes[500] ^= 1;
    std::fs::write(&pack, &bytes).unwrap();
    let output = program.run(&["check", "--read-data"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("check --repair"), "{}", text(&output.stderr));
    let said = text(&program.ok(&["check", "--repair", "--read-data"], b""));
    assert!(said.contains("mended 1") && said.contains("no problems"), "{said}");
    assert_eq!(std::fs::read(&pack).unwrap(), good);
    // A log entry.
    let log = program.objects("log");
    std::fs::write(&log[2], b"").unwrap();
    std::fs::remove_dir_all(program.path("cache")).unwrap();
    program.fails(&["backup", "--stdin"], b"x", 1);
    let output = program.run(&["check"], b"");
    assert!(text(&output.stderr).contains("repair index"), "{}", text(&output.stderr));
    let said = text(&program.ok(&["repair", "index", "--dry-run"], b""));
    assert!(said.contains("3 snapshots"), "{said}");
    assert_eq!(program.objects("log").len(), log.len());
    program.ok(&["repair", "index"], b"");
    program.ok(&["check", "--read-data"], b"");
    // The configuration.
    std::fs::remove_file(program.path("repo/config")).unwrap();
    program.ok(&["repair", "index", "--json"], b"");
    assert_eq!(program.ok(&["dump", "latest"], b""), days[2]);
    // More than parity can mend.
    let size = |path: &std::path::PathBuf| std::fs::metadata(path).unwrap().len();
    let pack = program.objects("data").into_iter().max_by_key(size).unwrap();
    std::fs::write(&pack, vec![0; size(&pack) as usize]).unwrap();
    let said = program.run(&["repair", "packs", "--all-damaged"], b"");
    assert_eq!(said.status.code(), Some(1), "{}", text(&said.stderr));
    assert!(text(&said.stderr).contains("repair snapshots"), "{}", text(&said.stderr));
    let said = program.run(&["-q", "repair", "snapshots", "--forget"], b"");
    assert_eq!(said.status.code(), Some(1));
    assert!(text(&said.stderr).contains("has lost"), "{}", text(&said.stderr));
    program.ok(&["check", "--read-data"], b"");
    program.backup("a", &days[2]);
    assert_eq!(program.ok(&["dump", "latest"], b""), days[2]);
    program.ok(&["check", "--read-data"], b"");
    program.fails(&["repair", "packs"], b"", 2);
    program.fails(&["repair", "packs", "xyz"], b"", 2);
}

#[test]
fn others_may_write_while_an_index_is_repaired() {
    let (store, days) = prepared();
    let running = open(store.clone()).unwrap();
    let victim = store.objects().into_iter().find(|(path, _)| path.starts_with("idx/")).unwrap();
    store.damage(&victim.0, |bytes| bytes[70] ^= 1);
    // One who opened the repository before goes on, before and after the repair.
    back_up(&running, b"before").unwrap();
    index::run(
        store.clone(),
        &secret(),
        environment(Arc::new(restow::entropy::OsEntropy)),
        IndexOptions::default(),
        &Progress::default(),
    )
    .unwrap();
    back_up(&running, b"after").unwrap();
    assert_clean(&store, "beside others");
    assert_eq!(days_held(&store).len(), days.len() + 2);
    let fresh = open(store.clone()).unwrap();
    assert_eq!(fresh.index().dump_rows().unwrap(), running.index().dump_rows().unwrap());
}

#[test]
fn a_check_says_that_a_manifest_cannot_be_read_after_repairs_too() {
    let (store, _) = prepared();
    let path = store.list("snap/").unwrap().remove(0).path;
    store.damage(&path, |bytes| bytes[70] ^= 1);
    mend_index(store.clone()).unwrap();
    let report = full_check(&store);
    assert!(report.problems.iter().any(|it| it.object == path && it.detail == UNREAD));
}

#[test]
fn a_repair_of_a_rotated_log_that_lost_its_end_leaves_no_hole() {
    let (store, days) = prepared();
    let repository = open(store.clone()).unwrap();
    repository.rotate_keys().unwrap();
    back_up(&repository, &days[0]).unwrap();
    let entries = store.list("log/").unwrap();
    for entry in &entries[entries.len() - 3..] {
        store.delete(&entry.path).unwrap();
    }
    mend_all(&store).unwrap();
    let numbers = open(store.clone()).unwrap().log_numbers().unwrap();
    assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{numbers:?}");
    back_up(&open(store.clone()).unwrap(), &days[1]).unwrap();
    assert_clean(&store, "rotated");
}
