//! Repair: whatever is not lost for good comes back, and nothing gets worse on the way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use restow::check::{CheckReport, ReadData, run as check};
use restow::error::{Error, Result};
use restow::format::log::EntryKind;
use restow::format::paths;
use restow::progress::Progress;
use restow::prune::{PruneOptions, Unused, run as prune};
use restow::repair::index;
use restow::repair::index::{IndexOptions, IndexReport, run as repair_index};
use restow::repair::packs::{PacksOptions, PacksReport, run as repair_packs};
use restow::repair::snapshots::{SnapshotsOptions, SnapshotsReport, run as repair_snapshots};
use restow::repository::Repository;
use restow::repository::snapshots::Filter;
use restow::store::Store;
use restow::store::memory::MemoryStore;
use restow::store::read_only::ReadOnlyStore;
use restow::store::record::{Call, RecordingStore};

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
pub const UNREAD: &str = "could not be read when the log was repaired";

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

pub fn folder(path: &str) -> &str {
    path.split('/').next().unwrap()
}

pub type Damage = Box<dyn Fn(&MemoryStore, &str)>;
pub type Change = Box<dyn Fn(&mut Vec<u8>)>;

/// Ways to damage an object.
pub fn damages(bytes: usize) -> Vec<(&'static str, Damage)> {
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
pub fn assert_mended(store: &Arc<MemoryStore>, days: &[Vec<u8>], at_least: usize, what: &str) {
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
pub fn rotated() -> (Arc<MemoryStore>, Vec<Vec<u8>>) {
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
