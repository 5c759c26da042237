//! Rotation of keys: a new epoch for everything new at once, old ones destroyed when nothing needs
//! them, and nobody given keys who should not have them.

use std::sync::Arc;

use restow::crypto::CryptoError;
use restow::crypto::envelope::{HEADER_LEN, Header, ObjectKind};
use restow::crypto::keys::KeyRing;
use restow::crypto::slot::{Kdf, Role, Secret, Slot};
use restow::entropy::OsEntropy;
use restow::error::{Error, ErrorKind, Result};
use restow::progress::Progress;
use restow::prune::PruneOptions;
use restow::repository::Repository;
use restow::store::Store;
use restow::store::fault::{Fault, FaultStore};
use restow::store::memory::MemoryStore;

use crate::prune::{Prepared, assert_clean, assert_sound, meet, mostly_garbage, prune};
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
