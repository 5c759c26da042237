//! Rotation of keys: a new epoch for everything new at once, old ones destroyed when nothing needs
//! them, and nobody given keys who should not have them.

use std::sync::Arc;
use std::time::Duration;

use restow::crypto::CryptoError;
use restow::crypto::envelope::{self, HEADER_LEN, Header, ObjectKind};
use restow::crypto::epoch::Epoch;
use restow::crypto::keys::KeyRing;
use restow::crypto::slot::{Kdf, Role, Secret, Slot};
use restow::entropy::OsEntropy;
use restow::error::{Error, ErrorKind, Result};
use restow::forget::forget;
use restow::format::log::{EntryKind, LogEntry};
use restow::format::paths;
use restow::id::ObjectName;
use restow::index::Fate;
use restow::progress::Progress;
use restow::prune::PruneOptions;
use restow::repository::Repository;
use restow::store::Store;
use restow::store::fault::{Fault, FaultStore};
use restow::store::memory::MemoryStore;

use crate::prune::{assert_clean, assert_sound, names, prune};
use crate::prune_meetings::{Interloper, Prepared, meet, mostly_garbage};
use crate::support::*;

fn other() -> Secret {
    Secret::KeyFile(vec![9; 32].into())
}

fn open_with(store: Arc<dyn Store>, secret: &Secret) -> Result<Repository> {
    Repository::open(store, secret, environment(Arc::new(OsEntropy)))
}

/// Epochs of all objects in these folders of a store.
fn epochs(store: &MemoryStore, folders: &[(&str, ObjectKind)]) -> Vec<u32> {
    let mut found = Vec::new();
    for (folder, kind) in folders {
        for object in store.list(folder).unwrap() {
            let header = store.get_range(&object.path, 0, HEADER_LEN).unwrap();
            found.push(Header::parse(&header, *kind).unwrap().epoch());
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

const CONTENT: [(&str, ObjectKind); 3] =
    [("data/", ObjectKind::Pack), ("idx/", ObjectKind::Index), ("snap/", ObjectKind::Snapshot)];

fn slots(store: &MemoryStore) -> Vec<String> {
    store.list("keys/").unwrap().into_iter().map(|object| object.path).collect()
}

#[test]
fn after_a_rotation_new_objects_have_new_keys_and_every_secret_opens_everything() {
    let (store, days) = prepared();
    let repository = open(store.clone()).unwrap();
    repository.add_key(&other(), Kdf::KeyFile, Role::Owner, "other").unwrap();
    let before = open_with(store.clone(), &other()).unwrap();
    let (old_slots, old_objects) = (slots(&store), store.list("data/").unwrap());

    let rotation = repository.rotate_keys().unwrap();
    assert_eq!(rotation.slots.len(), 2);
    assert!(rotation.left_out.is_empty());
    assert!(slots(&store).iter().all(|slot| !old_slots.contains(slot)));
    let tomorrow = changed_rows(1, 1500, 3, 20);
    // Somebody who opened the repository before learns of it with the next look at the log.
    before.sync().unwrap();
    back_up(&before, &tomorrow).unwrap();
    for object in store.list("data/").unwrap() {
        let header = store.get_range(&object.path, 0, HEADER_LEN).unwrap();
        let epoch = Header::parse(&header, ObjectKind::Pack).unwrap().epoch();
        let is_old = old_objects.contains(&object);
        assert_eq!(epoch, if is_old { 0 } else { rotation.epoch });
    }
    for secret in [secret(), other()] {
        let repository = open_with(store.clone(), &secret).unwrap();
        let held = contents(&repository).unwrap();
        assert_eq!(held.len(), 4);
        assert!(held.values().all(|bytes| days.contains(bytes) || *bytes == tomorrow));
        assert_sound(&repository);
    }
}

#[test]
fn a_prune_writes_anew_what_is_old_and_destroys_the_old_keys() {
    let (store, _) = prepared();
    let folder = tempfile::tempdir().unwrap();
    let cached = |folder: &tempfile::TempDir| {
        let mut environment = environment(Arc::new(OsEntropy));
        environment.cache = Some(folder.path().into());
        Repository::open(store.clone(), &secret(), environment)
    };
    let before = contents(&cached(&folder).unwrap()).unwrap();
    let repository = open(store.clone()).unwrap();
    repository.add_key(&other(), Kdf::KeyFile, Role::Owner, "other").unwrap();
    let (first, second) = (repository.rotate_keys().unwrap(), repository.rotate_keys().unwrap());
    assert_eq!(repository.keys().epochs(), [0, first.epoch, second.epoch]);
    let uses = repository.key_use().unwrap();
    assert!(uses[0].packs > 0 && uses[0].snapshots == 3 && uses[2].is_current);

    // Garbage is no reason to write packs anew here, old keys are.
    let lazy = PruneOptions { grace: std::time::Duration::ZERO, ..PruneOptions::default() };
    let report = restow::prune::run(&repository, &lazy, &Progress::default()).unwrap();
    assert_eq!(report.destroyed_epochs, [0, first.epoch]);
    assert_eq!(report.renewed_snapshots, 3);
    assert_eq!(epochs(&store, &CONTENT), [second.epoch]);
    assert_eq!(repository.keys().epochs(), [second.epoch]);
    assert_clean(&repository);
    // With an index from before, without one, and with the other secret.
    for repository in [cached(&folder), open(store.clone()), open_with(store.clone(), &other())] {
        let repository = repository.unwrap();
        assert_eq!(repository.keys().epochs(), [second.epoch]);
        let held = contents(&repository).unwrap();
        assert!(held.values().eq(before.values()) || held.len() == before.len());
        let mut bytes: Vec<_> = held.into_values().collect();
        let mut wanted: Vec<_> = before.values().cloned().collect();
        bytes.sort();
        wanted.sort();
        assert_eq!(bytes, wanted);
    }
    back_up(&repository, &rows(9, 100)).unwrap();
    assert_sound(&open(store).unwrap());
}

#[test]
fn a_rotation_struck_at_any_operation_locks_nobody_out() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::LostReply, Fault::LostRequest] {
        let (store, days) = mostly_garbage();
        open(store.clone()).unwrap().add_key(&other(), Kdf::KeyFile, Role::Owner, "").unwrap();
        for at in 0.. {
            let survivor = Arc::new(store.fork());
            let faulty = Arc::new(FaultStore::new(survivor.clone(), fault, at));
            let result = open(faulty.clone()).and_then(|repository| {
                repository.rotate_keys()?;
                prune(&repository)
            });
            for secret in [secret(), other()] {
                let repository = open_with(survivor.clone(), &secret).unwrap();
                assert_sound(&repository);
                assert_eq!(contents(&repository).unwrap().into_values().next().unwrap(), days[2]);
            }
            let repository = open(survivor.clone()).unwrap();
            back_up(&repository, &days[1]).unwrap();
            let rotation = repository.rotate_keys().unwrap();
            prune(&repository).unwrap();
            assert_clean(&repository);
            assert_eq!(epochs(&survivor, &CONTENT), [rotation.epoch], "{fault:?} at {at}");
            assert_eq!(open_with(survivor.clone(), &other()).unwrap().keys().epochs().len(), 1);
            if !faulty.has_struck() {
                result.unwrap();
                break;
            }
        }
    }
}

#[test]
fn a_rotation_comes_between_the_steps_of_others_and_they_between_its_own() {
    let prepare: &dyn Fn() -> Prepared = &mostly_garbage;
    // A backup whose keys are destroyed before it commits must be run again.
    meet(prepare, back_up_first, |it, days| {
        rotate(it, days).unwrap();
        prune(it).unwrap();
    });
    assert_eq!(meet(prepare, rotate, |it, days| back_up_first(it, days).unwrap()), 0);
    assert_eq!(meet(prepare, rotate, |it, days| rotate(it, days).unwrap()), 0);
    assert_eq!(meet(prepare, |it, _| prune(it).map(drop), |it, days| rotate(it, days).unwrap()), 0);
    let add = |it: &Repository, _: &[Vec<u8>]| -> Result<()> {
        it.add_key(&other(), Kdf::KeyFile, Role::Owner, "").map(drop)
    };
    assert_eq!(meet(prepare, add, |it, days| rotate(it, days).unwrap()), 0);
}

fn rotate(repository: &Repository, _: &[Vec<u8>]) -> Result<()> {
    repository.rotate_keys().map(drop)
}

fn back_up_first(repository: &Repository, days: &[Vec<u8>]) -> Result<()> {
    back_up(repository, &days[0]).map(drop)
}

#[test]
fn a_slot_that_is_added_while_keys_are_rotated_holds_the_new_ones() {
    let (store, _) = prepared();
    let (one, two) = (open(store.clone()).unwrap(), open(store.clone()).unwrap());
    one.rotate_keys().unwrap();
    two.add_key(&other(), Kdf::KeyFile, Role::Owner, "").unwrap();
    assert_eq!(contents(&open_with(store, &other()).unwrap()).unwrap().len(), 3);
}

#[test]
fn slots_of_strangers_and_removed_ones_get_no_new_keys() {
    let (store, _) = prepared();
    let repository = open(store.clone()).unwrap();
    // Somebody who can write to the store, and knows no key, puts a slot there.
    let now = jiff::Timestamp::UNIX_EPOCH;
    let theirs = KeyRing::generate(&OsEntropy);
    let slot = Slot::wrap(&theirs, Role::Owner, &other(), Kdf::KeyFile, "backup", now, &OsEntropy)
        .unwrap();
    let text = serde_json::to_vec(&slot).unwrap();
    let strange = format!("keys/{}", blake3::hash(&text).to_hex());
    store.put_new(&strange, &text).unwrap();
    // A slot that was removed is put back.
    let removed = repository.add_key(&third(), Kdf::KeyFile, Role::Owner, "left").unwrap();
    let path = format!("keys/{removed}");
    let kept = store.get(&path).unwrap();
    repository.remove_key(&removed).unwrap();
    store.put_new(&path, &kept).unwrap();

    let rotation = repository.rotate_keys().unwrap();
    assert_eq!(rotation.slots.len(), 1);
    assert_eq!(rotation.left_out, [&strange["keys/".len()..]]);
    assert!(store.get(&path).is_err(), "it is removed again");
    store.put_new(&path, &kept).unwrap();
    let error = open_with(store.clone(), &third()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::WrongSecret, "{error}");
    assert!(error.to_string().contains("left out"), "{error}");
    assert_eq!(open_with(store, &other()).err().unwrap().kind(), ErrorKind::Failed);
}

fn third() -> Secret {
    Secret::KeyFile(vec![8; 32].into())
}

#[test]
fn what_was_written_with_destroyed_keys_cannot_be_read_any_more() {
    let (store, _) = prepared();
    let copy = store.get(&store.list("snap/").unwrap()[0].path).unwrap();
    let repository = open(store).unwrap();
    repository.rotate_keys().unwrap();
    prune(&repository).unwrap();
    let read = restow::crypto::envelope::open(repository.keys(), ObjectKind::Snapshot, b"", &copy);
    assert_eq!(read, Err(CryptoError::UnknownEpoch(0)));
    assert!(matches!(repository.read_entry(0), Err(Error::Damaged { .. })));
}

/// A repository with a write-only key, and a way to open it with that key on a machine of its own.
pub fn with_write_only_key() -> (Arc<MemoryStore>, tempfile::TempDir, Vec<Vec<u8>>) {
    let (store, days) = prepared();
    let repository = open(store.clone()).unwrap();
    repository.add_key(&third(), Kdf::KeyFile, Role::WriteOnly, "db1").unwrap();
    (store, tempfile::tempdir().unwrap(), days)
}

pub fn open_to_write(store: Arc<dyn Store>, folder: &tempfile::TempDir) -> Result<Repository> {
    let mut environment = environment(Arc::new(OsEntropy));
    environment.cache = Some(folder.path().into());
    Repository::open(store, &third(), environment)
}

#[test]
fn a_write_only_key_backs_up_and_deduplicates_and_reads_nothing() {
    let (store, folder, _) = with_write_only_key();
    let bytes = rows(5, 1500);
    let writer = open_to_write(store.clone(), &folder).unwrap();
    let first = back_up(&writer, &bytes).unwrap();
    let again = back_up(&writer, &bytes).unwrap();
    assert_eq!(again.snapshot.summary.new_bytes, 0);
    // The next day, in another process; and the same once what it remembers of the index is lost.
    let changed = changed_rows(5, 1500, 1, 30);
    let writer = open_to_write(store.clone(), &folder).unwrap();
    let next = back_up(&writer, &changed).unwrap();
    let summary = next.snapshot.summary;
    assert!(summary.dedup_bytes > summary.read_bytes / 10, "{summary:?}");
    assert_eq!(summary.delta_bytes, 0);
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let folder = file.unwrap().path();
        std::fs::remove_file(folder.join("index.sqlite")).unwrap();
    }
    let writer = open_to_write(store.clone(), &folder).unwrap();
    assert_eq!(back_up(&writer, &changed).unwrap().snapshot.summary.new_bytes, 0);

    // It sees no snapshot, opens no object, and may not change anything.
    assert!(contents(&writer).unwrap().is_empty());
    for name in [first.name.unwrap(), next.name.unwrap()] {
        assert!(writer.load_snapshot(&name).is_err());
    }
    for object in store.list("").unwrap() {
        let stored = store.get(&object.path).unwrap();
        for kind in [ObjectKind::Pack, ObjectKind::Index, ObjectKind::Snapshot] {
            let read = restow::crypto::envelope::open(writer.keys(), kind, b"", &stored);
            assert!(read.is_err(), "{}", object.path);
        }
    }
    assert!(writer.rotate_keys().is_err() && writer.remove_key("00").is_err());
    assert!(writer.add_key(&other(), Kdf::KeyFile, Role::Owner, "").is_err());
    assert_eq!(prune(&writer).unwrap_err().kind(), ErrorKind::Conflict);

    let owner = open(store).unwrap();
    let held: Vec<_> = contents(&owner).unwrap().into_values().collect();
    assert_eq!(held.len(), 7);
    assert_eq!(held.iter().filter(|held| **held == bytes).count(), 2);
    assert_eq!(held.iter().filter(|held| **held == changed).count(), 2);
    assert_sound(&owner);
}

#[test]
fn what_a_write_only_key_says_is_believed_by_nobody_but_itself() {
    let (store, folder, days) = with_write_only_key();
    let writer = open_to_write(store.clone(), &folder).unwrap();
    let bytes = rows(5, 1500);
    back_up(&writer, &bytes).unwrap();
    // An owner stores the same bytes of its own, against no parent of that host.
    let owner = open(store.clone()).unwrap();
    let report = back_up(&owner, &bytes).unwrap();
    assert!(report.snapshot.summary.new_bytes > 0);
    let parent = report.snapshot.parent.unwrap();
    assert!(!owner.load_snapshot(&parent).unwrap().sealed);
    // Its entries may add and nothing else.
    for forged in ["forget", "gc", "state"] {
        let fresh = tempfile::tempdir().unwrap();
        let writer = open_to_write(store.clone(), &fresh).unwrap();
        let result = writer.commit(&mut || {
            let mut entry = restow::format::log::LogEntry::new(match forged {
                "forget" => restow::format::log::EntryKind::Forget,
                "gc" => restow::format::log::EntryKind::Gc,
                _ => restow::format::log::EntryKind::State,
            });
            if forged == "forget" {
                entry.snapshot_remove.extend(owner.index().snapshot_names().unwrap());
            }
            Ok(entry)
        });
        drop(result);
        let error = open(store.clone()).err().expect("a forged entry must be refused");
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        let last = store.list("log/").unwrap().pop().unwrap();
        store.delete(&last.path).unwrap();
    }
    assert_eq!(contents(&open(store).unwrap()).unwrap().len(), days.len() + 2);
}

#[test]
fn a_prune_comes_between_the_steps_of_a_write_only_backup() {
    let (store, folder, _) = with_write_only_key();
    let writer = open_to_write(store.clone(), &folder).unwrap();
    let (first, second) = (rows(5, 800), changed_rows(5, 800, 1, 20));
    back_up(&writer, &first).unwrap();
    drop(writer);
    let owner = open(store.clone()).unwrap();
    let all = names(&owner);
    forget(&owner, &all.into_iter().collect(), true).unwrap();
    for at in 0.. {
        let (store, copy) = (Arc::new(store.fork()), tempfile::tempdir().unwrap());
        copy_folder(folder.path(), copy.path());
        let beside = store.clone();
        let interloper = Arc::new(Interloper::new(store.clone(), at, move || {
            let owner = open(beside).unwrap();
            let options = PruneOptions {
                grace: std::time::Duration::ZERO,
                allow_empty: true,
                ..PruneOptions::default()
            };
            restow::prune::run(&owner, &options, &Progress::default()).unwrap();
        }));
        let result = open_to_write(interloper.clone(), &copy).and_then(|it| back_up(&it, &second));
        let was_alone = interloper.operations() <= at;
        let owner = open(store.clone()).unwrap();
        assert_sound(&owner);
        match result {
            Ok(_) => assert_eq!(contents(&owner).unwrap().into_values().next().unwrap(), second),
            // What it relied on was removed: run again, it stores it anew.
            Err(error) if !was_alone && error.kind() == ErrorKind::Conflict => {
                back_up(&open_to_write(store.clone(), &copy).unwrap(), &second).unwrap();
            }
            Err(error) => panic!("operation {at}: {error}"),
        }
        assert!(contents(&open(store).unwrap()).unwrap().into_values().any(|it| it == second));
        if was_alone {
            return;
        }
    }
}

/// The keys of somebody whose slot is removed later, and a copy of all slots from before.
fn stolen(store: &Arc<MemoryStore>) -> (Repository, Vec<Slot>) {
    let repository = open(store.clone()).unwrap();
    let name = repository.add_key(&other(), Kdf::KeyFile, Role::Owner, "").unwrap();
    let stolen = open_with(store.clone(), &other()).unwrap();
    let slots = repository.key_slots().unwrap().into_iter().map(|slot| slot.slot.unwrap());
    let slots = slots.collect();
    repository.remove_key(&name).unwrap();
    repository.rotate_keys().unwrap();
    (stolen, slots)
}

/// Puts an entry at the head of the log, whatever the rules say.
fn put_entry(store: &MemoryStore, keys: &KeyRing, mut entry: LogEntry) -> u64 {
    let listed = store.list("log/").unwrap();
    let head = &listed.last().unwrap().path;
    let number = paths::log_number(head).unwrap() + 1;
    entry.previous = *blake3::hash(&store.get(head).unwrap()).as_bytes();
    let mut plain = entry.encode();
    let proof = keys.current().authority(number, &plain).unwrap_or_default();
    plain.extend_from_slice(&[0; 32]);
    plain.extend_from_slice(&proof);
    let kind = ObjectKind::Log;
    let sealed = envelope::seal(keys, &OsEntropy, kind, &number.to_le_bytes(), &plain);
    store.put_new(&paths::log(number), &sealed).unwrap();
    number
}

#[test]
fn who_has_old_keys_alone_can_write_nothing_more() {
    let (store, _) = prepared();
    let (stolen, _) = stolen(&store);
    let repository = open(store.clone()).unwrap();
    let mut entry = LogEntry::new(EntryKind::Forget);
    entry.snapshot_remove = repository.index().snapshot_names().unwrap();
    let number = put_entry(&store, stolen.keys(), entry);
    let error = repository.sync().unwrap_err();
    assert!(error.to_string().contains(&paths::log(number)), "{error}");
    assert!(open(store.clone()).is_err());
    // Nor does a state of theirs stand for what was before it.
    let mut entry = LogEntry::new(EntryKind::State);
    entry.config = store.get("config").unwrap();
    put_entry(&store, stolen.keys(), entry);
    assert!(open(store).is_err());
}

#[test]
fn who_had_the_keys_cannot_begin_an_epoch() {
    // Whatever the entry says that it is.
    for kind in [EntryKind::Key, EntryKind::Noop, EntryKind::Add] {
        let (store, _) = prepared();
        let (stolen, slots) = stolen(&store);
        let repository = open(store.clone()).unwrap();
        let current = repository.keys().current().number();
        let head = repository.sync().unwrap().number;
        let mine = stolen.keys().copy();
        mine.begin(Epoch::generate(head as u32 + 1, &OsEntropy));
        for slot in slots {
            let filled = slot.refilled(stolen.keys(), &mine, &OsEntropy).unwrap();
            let text = serde_json::to_vec(&filled).unwrap();
            store.put_new(&format!("keys/{}", ObjectName::of(&text).to_hex()), &text).unwrap();
        }
        put_entry(&store, &mine, LogEntry::new(kind));
        assert!(repository.sync().is_err(), "{kind:?}");
        assert_eq!(repository.keys().current().number(), current, "{kind:?}");
    }
}

#[test]
fn an_old_object_of_an_owner_comes_not_back_through_a_write_only_key() {
    let (store, folder, days) = with_write_only_key();
    let repository = open(store.clone()).unwrap();
    let name = back_up(&repository, &days[0]).unwrap().name.unwrap();
    let before = store.objects();
    let indexes = repository.index().index_names().unwrap();
    let packs: Vec<ObjectName> =
        repository.index().packs().unwrap().into_iter().map(|(name, _)| name).collect();
    let all = repository.index().snapshot_names().unwrap();
    forget(&repository, &all.into_iter().collect(), true).unwrap();
    let options = PruneOptions { grace: Duration::ZERO, allow_empty: true, ..Default::default() };
    restow::prune::run(&repository, &options, &Progress::default()).unwrap();
    for (path, bytes) in before {
        if path.starts_with("idx/") || path.starts_with("snap/") {
            let _ = store.put_new(&path, &bytes);
        }
    }
    let writer = open_to_write(store.clone(), &folder).unwrap();
    let mut entry = LogEntry::new(EntryKind::Add);
    (entry.index_add, entry.rescue, entry.snapshot_add) = (indexes, packs.clone(), vec![name]);
    writer.commit(&mut || Ok(entry.clone())).unwrap();
    repository.sync().unwrap();
    assert!(packs.iter().all(|pack| repository.index().fate(pack) == Some(Fate::Dead)));
    assert!(repository.index().snapshot_names().unwrap().is_empty());
    back_up(&repository, &days[0]).unwrap();
    assert_sound(&repository);
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn what_an_interrupted_change_of_keys_left_goes_with_its_slot() {
    let (store, _) = prepared();
    let repository = open(store.clone()).unwrap();
    repository.add_key(&other(), Kdf::KeyFile, Role::Owner, "other").unwrap();
    repository.rotate_keys().unwrap();
    let put_again = |keys: &KeyRing| {
        for slot in repository.key_slots().unwrap() {
            let again = slot.slot.unwrap().refilled(repository.keys(), keys, &OsEntropy).unwrap();
            let text = serde_json::to_vec(&again).unwrap();
            let path = format!("keys/{}", ObjectName::of(&text).to_hex());
            store.put_new(&path, &text).unwrap();
        }
    };
    // A prune that died while it destroyed old keys, and a rotation that never began.
    put_again(repository.keys());
    let never = repository.keys().copy();
    never.begin(Epoch::generate(99, &OsEntropy));
    put_again(&never);
    assert_eq!(slots(&store).len(), 8);
    let name = repository.key_slots().unwrap().into_iter().find_map(|slot| {
        let slot = slot.slot.unwrap();
        (slot.label == "other").then(|| slot.lasting_name())
    });
    repository.remove_key(&name.unwrap()).unwrap();
    let rotation = repository.rotate_keys().unwrap();
    assert_eq!((rotation.slots.len(), rotation.left_out.len()), (1, 0));
    assert_eq!(slots(&store).len(), 1);
    assert!(open_with(store.clone(), &other()).is_err());
    assert!(open(store).is_ok());
}
