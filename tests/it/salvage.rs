//! What can be read of a repository that has lost something, and indexes that went bad.

use std::sync::Arc;

use restow::check::{ReadData, run as check};
use restow::crypto::slot::{Kdf, Role, Secret};
use restow::error::{Error, ErrorKind, Result};
use restow::progress::Progress;
use restow::repository::Repository;
use restow::repository::snapshots::Filter;
use restow::store::Store;
use restow::store::memory::MemoryStore;

use crate::support::*;

fn salvage(store: Arc<MemoryStore>) -> Result<Repository> {
    Repository::salvage(store, &secret(), environment(Arc::new(restow::entropy::OsEntropy)))
}

/// How many of the days can be read; everything that can is one of them.
fn readable(repository: &Repository, days: &[Vec<u8>]) -> usize {
    let mut count = 0;
    for (_, snapshot) in repository.index().snapshots().unwrap() {
        if let Ok(bytes) = read(repository, &snapshot.streams[0]) {
            assert!(days.contains(&bytes));
            count += 1;
        }
    }
    count
}

#[test]
fn one_lost_object_takes_only_what_stands_in_it() {
    let (store, days) = prepared();
    for (path, _) in store.objects() {
        let left = match path.split('/').next().unwrap() {
            "log" | "idx" => 3,
            "snap" => 2,
            _ => continue,
        };
        let flipped = Arc::new(store.fork());
        flipped.damage(&path, |bytes| bytes[70] ^= 1);
        let gone = Arc::new(store.fork());
        gone.delete(&path).unwrap();
        for damaged in [flipped, gone] {
            let is_newest_entry = path == "log/00000000000000000003" && damaged.get(&path).is_err();
            if is_newest_entry {
                // Without it this is the repository of the day before.
                assert_eq!(readable(&open(damaged).unwrap(), &days), 2);
                continue;
            }
            let repository = salvage(damaged.clone()).unwrap();
            assert_eq!(readable(&repository, &days), left, "{path}");
            let report = check(&repository, ReadData::All, &Progress::default()).unwrap();
            let named = report.problems.iter().find(|problem| problem.object == path);
            let named = named.unwrap_or_else(|| panic!("{path}: {:?}", report.problems));
            assert_eq!(named.affected.len(), 3 - left, "{path}");
            assert_eq!(report.problems.len(), 1, "{path}: {:?}", report.problems);
        }
    }
}

#[test]
fn many_lost_objects_leave_the_rest_readable() {
    let (store, days) = prepared();
    for (path, _) in store.objects() {
        let is_lost =
            path.starts_with("idx/") || (path.starts_with("log/") && !path.ends_with("3"));
        if is_lost {
            store.delete(&path).unwrap();
        }
    }
    assert!(open(store.clone()).is_err());
    let repository = salvage(store).unwrap();
    assert_eq!(readable(&repository, &days), 3);
    assert!(repository.damage().len() >= 2, "{:?}", repository.damage());
}

#[test]
fn nothing_is_written_to_what_was_salvaged() {
    let (store, _) = prepared();
    let repository = salvage(store.clone()).unwrap();
    let before = store.objects().len();
    let error = repository.add_key(&secret(), Kdf::KeyFile, Role::Owner, "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let error = back_up(&repository, b"more").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let logs = store.objects().iter().filter(|(path, _)| path.starts_with("log/")).count();
    assert_eq!(logs, 4);
    assert!(store.objects().len() >= before);
}

#[test]
fn a_damaged_snapshot_does_not_keep_the_others_on_a_new_machine() {
    let program = Program::initialized();
    program.backup("a", b"first");
    program.backup("b", b"second");
    let victim = program.objects("snap")[0].clone();
    let mut bytes = std::fs::read(&victim).unwrap();
    bytes[80] ^= 1;
    std::fs::write(&victim, bytes).unwrap();
    std::fs::remove_dir_all(program.path("cache")).unwrap();
    let said = program.fails(&["dump", "latest"], b"", 11);
    assert!(said.contains("by its id"), "{said}");
    let left = text(&program.ok(&["snapshots", "--json"], b""));
    let left: serde_json::Value = serde_json::from_str(&left).unwrap();
    let (id, name) = (left["short_id"].as_str().unwrap(), left["streams"][0]["name"].as_str());
    let expected: &[u8] = if name == Some("a") { b"first" } else { b"second" };
    assert_eq!(program.ok(&["dump", id], b""), expected);
    let output = program.run(&["check", "--read-data"], b"");
    assert_eq!(output.status.code(), Some(1));
    let name = victim.file_name().unwrap().to_str().unwrap();
    let said = text(&output.stdout);
    assert!(said.contains(name) && said.contains("(all of it)"), "{said}");
    program.fails(&["backup", "--stdin"], b"x", 1);
}

#[test]
fn a_damaged_local_index_is_made_anew() {
    let program = Program::initialized();
    for day in 0..3 {
        program.backup("a", &changed_rows(1, 5000, day, 20));
    }
    let index = std::fs::read_dir(program.path("cache")).unwrap().next().unwrap().unwrap().path();
    let file = index.join("index.sqlite");
    let good = std::fs::read(&file).unwrap();
    // Pages of every part of the file in turn; the header alone, the tables alone, all of it.
    for range in [0..100, 100..good.len(), 4096..good.len(), 0..good.len()] {
        let mut bad = good.clone();
        bad[range.clone()].fill(0xA5);
        std::fs::write(&file, bad).unwrap();
        let first = program.run(&["snapshots"], b"");
        if !first.status.success() {
            assert!(text(&first.stderr).contains("cache --forget"), "{}", text(&first.stderr));
            program.ok(&["cache", "--forget"], b"");
        }
        assert_eq!(program.ok(&["dump", "latest"], b""), changed_rows(1, 5000, 2, 20));
    }
}

#[test]
fn a_rolled_back_repository_is_accepted_on_request() {
    let program = Program::initialized();
    program.backup("a", b"first");
    let newest = program.objects("log").pop().unwrap();
    program.backup("a", b"second");
    std::fs::remove_file(program.objects("log").pop().unwrap()).unwrap();
    let said = program.fails(&["snapshots"], b"", 11);
    assert!(said.contains("cache --forget"), "{said}");
    program.ok(&["cache", "--forget"], b"");
    assert_eq!(program.ok(&["dump", "latest"], b""), b"first");
    assert_eq!(program.objects("log").pop().unwrap(), newest);
    assert!(text(&program.ok(&["cache"], b"")).lines().count() >= 2);
}

#[test]
fn of_several_inits_one_wins_and_the_rest_leave_nothing() {
    let store = Arc::new(MemoryStore::new());
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| init(store.clone()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let slots = store.objects().iter().filter(|(path, _)| path.starts_with("keys/")).count();
    assert_eq!(slots, 1);
    back_up(&open(store).unwrap(), b"x").unwrap();
}

#[test]
fn a_slot_of_another_repository_is_passed_over() {
    let (store, other) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    init(store.clone()).unwrap();
    for _ in 0..8 {
        let other = Arc::new(other.fork());
        init(other.clone()).unwrap();
        for (path, bytes) in other.objects() {
            if path.starts_with("keys/") {
                store.put_new(&path, &bytes).unwrap();
            }
        }
    }
    open(store).unwrap();
}

#[test]
fn what_an_interrupted_init_left_is_told_apart_from_other_files() {
    let (full, _) = prepared();
    let store = Arc::new(MemoryStore::new());
    for (path, bytes) in full.objects() {
        if path.starts_with("keys/") || path.ends_with("00000") {
            store.put_new(&path, &bytes).unwrap();
        }
    }
    assert!(matches!(init(store.clone()).err(), Some(Error::InitInterrupted { .. })));
    store.put_new("other", b"x").unwrap();
    assert!(matches!(init(store).err(), Some(Error::NotEmpty { .. })));
    let store = Arc::new(MemoryStore::new());
    store.put_new("tmp-probe-1", b"x").unwrap();
    init(store).unwrap();
}

#[test]
fn a_key_slot_that_opens_the_repository_stays() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let first = repository.slot_in_use();
    assert_eq!(repository.remove_key(&first).unwrap_err().kind(), ErrorKind::Conflict);
    let other = Secret::KeyFile(vec![9; 32].into());
    let second = repository.add_key(&other, Kdf::KeyFile, Role::Owner, "two").unwrap();
    let open_second = || {
        let environment = environment(Arc::new(restow::entropy::OsEntropy));
        Repository::open(store.clone(), &other, environment).unwrap()
    };
    // Two who remove each other's slots at once: only one may.
    let results: Vec<_> = std::thread::scope(|scope| {
        let (one, two) = (open(store.clone()).unwrap(), open_second());
        let (first, second) = (&first, &second);
        let threads = [
            scope.spawn(move || one.remove_key(second)),
            scope.spawn(move || two.remove_key(first)),
        ];
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    assert_eq!(store.list("keys/").unwrap().len(), 1);
}

#[test]
fn a_slot_whose_removal_was_not_finished_does_not_count() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let other = Secret::KeyFile(vec![9; 32].into());
    let second = repository.add_key(&other, Kdf::KeyFile, Role::Owner, "two").unwrap();
    let left = store.get(&format!("keys/{second}")).unwrap();
    repository.remove_key(&second).unwrap();
    // The one who removed it died before the file was deleted; somebody opens with it.
    store.put_new(&format!("keys/{second}"), &left).unwrap();
    let environment = environment(Arc::new(restow::entropy::OsEntropy));
    let by_second = Repository::open(store.clone(), &other, environment).unwrap();
    let error = by_second.remove_key(&repository.slot_in_use()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    store.put_new("keys/notes.txt", b"not a slot").unwrap();
    assert_eq!(by_second.key_slots().unwrap().len(), 2);
}

#[test]
fn a_hole_in_the_log_is_not_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let cached = |store: &Arc<MemoryStore>| {
        let mut environment = environment(Arc::new(restow::entropy::OsEntropy));
        environment.cache = Some(folder.path().to_owned());
        Repository::open(store.clone(), &secret(), environment)
    };
    init(store.clone()).unwrap();
    back_up(&cached(&store).unwrap(), b"one").unwrap();
    back_up(&open(store.clone()).unwrap(), b"two").unwrap();
    back_up(&open(store.clone()).unwrap(), b"three").unwrap();
    store.delete("log/00000000000000000002").unwrap();
    assert!(matches!(cached(&store).err(), Some(Error::Missing { .. })));
    let repository = salvage(store.clone()).unwrap();
    assert_eq!(contents(&repository).unwrap().len(), 3);
    assert!(repository.find_snapshot("latest", &Filter::default()).is_err());
    // Neither is a file of a great number a reason to count up to it.
    store.put_new("log/00000001000000000000", b"junk").unwrap();
    assert_eq!(contents(&salvage(store.clone()).unwrap()).unwrap().len(), 3);
    let report = check(&salvage(store).unwrap(), ReadData::All, &Progress::default()).unwrap();
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
}
