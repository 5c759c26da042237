//! Hostile holders of write-only keys: what they say of packs that are not theirs is found out, and
//! costs nobody else a chunk.

use std::sync::Arc;

use restow::crypto::envelope::{HEADER_LEN, ObjectKind, seal};
use restow::entropy::OsEntropy;
use restow::format::index::{IndexedPack, encode};
use restow::format::log::{EntryKind, LogEntry};
use restow::format::paths;
use restow::id::ObjectName;
use restow::progress::Progress;
use restow::repair::index::{IndexOptions, IndexReport, run as repair_index};
use restow::repository::Repository;
use restow::store::Store;
use restow::store::memory::MemoryStore;

use crate::keys::{open_to_write, with_write_only_key};
use crate::prune::assert_sound;
use crate::support::*;

fn mend_index(store: &Arc<MemoryStore>) -> IndexReport {
    let environment = environment(Arc::new(OsEntropy));
    let options = IndexOptions::default();
    repair_index(store.clone(), &secret(), environment, options, &Progress::default()).unwrap()
}

/// Claims for these packs that nothing is in them.
fn empty(packs: impl IntoIterator<Item = IndexedPack>) -> Vec<IndexedPack> {
    packs.into_iter().map(|pack| IndexedPack { entries: Vec::new(), ..pack }).collect()
}

/// Stores an idx object that comes before all others, or after them, and commits it.
fn claim(writer: &Repository, packs: &[IndexedPack], is_first: bool) -> ObjectName {
    let stored = store_claim(writer, packs, is_first);
    writer
        .commit(&mut || {
            let mut entry = LogEntry::new(EntryKind::Add);
            entry.index_add.push(stored);
            Ok(entry)
        })
        .unwrap();
    stored
}

fn store_claim(writer: &Repository, packs: &[IndexedPack], is_first: bool) -> ObjectName {
    let others = writer.store().list(paths::INDEX).unwrap();
    let others: Vec<_> = others.iter().filter_map(|it| paths::object_name(&it.path)).collect();
    loop {
        let stored = seal(writer.keys(), &OsEntropy, ObjectKind::Index, &[], &encode(packs));
        let name = ObjectName::of(&stored);
        if others.iter().all(|other| (name < *other) == is_first) {
            writer.store().put_new(&paths::index(&name), &stored).unwrap();
            return name;
        }
    }
}

/// All packs of a repository, as an owner knows them.
fn packs_of(owner: &Repository) -> Vec<IndexedPack> {
    let names = owner.index().packs().unwrap();
    names.iter().map(|(name, _)| owner.read_pack_directory(name).unwrap()).collect()
}

/// What somebody who sees a pack in the store can say of it.
fn seen(store: &MemoryStore, path: &str) -> IndexedPack {
    let bytes = store.get(path).unwrap();
    IndexedPack {
        name: ObjectName::of(&bytes),
        kind: restow::crypto::keys::BlobKind::Data,
        size: bytes.len() as u64,
        header: *bytes.first_chunk::<HEADER_LEN>().unwrap(),
        entries: Vec::new(),
    }
}

#[test]
fn a_repair_hears_owners_first_and_write_only_keys_of_their_own_packs_alone() {
    for (is_first, is_forged, is_lost) in [
        (true, false, false),
        (true, true, false),
        (false, true, false),
        (true, false, true),
        (true, true, true),
    ] {
        let (store, folder, days) = with_write_only_key();
        let writer = open_to_write(store.clone(), &folder).unwrap();
        let theirs = rows(5, 800);
        back_up(&writer, &theirs).unwrap();
        let owner = open(store.clone()).unwrap();
        let sealed = packs_of(&owner).into_iter().find(|pack| pack.header[7] == 1).unwrap();
        let mut packs = empty(packs_of(&owner));
        if is_forged {
            // The headers of the owner's packs say that they are not the owner's.
            packs.iter_mut().for_each(|pack| pack.header = sealed.header);
        }
        let hostile = claim(&writer, &packs, is_first);
        if is_lost {
            for name in owner.index().index_names().unwrap() {
                store.delete(&paths::index(&name)).unwrap();
            }
        }
        let report = mend_index(&store);
        assert!(report.is_needed, "{is_first} {is_forged} {is_lost}");
        let owner = open(store.clone()).unwrap();
        assert!(!owner.index().index_names().unwrap().contains(&hostile));
        let held = contents(&owner).unwrap();
        assert_eq!(held.len(), days.len() + 1);
        assert!(days.iter().chain([&theirs]).all(|day| held.values().any(|it| it == day)));
        assert_sound(&owner);
        assert!(!mend_index(&store).is_needed);
    }
}

#[test]
fn a_pack_of_a_write_only_key_that_is_damaged_stays_on_the_list() {
    for at in [20, 80] {
        let (store, folder, _) = with_write_only_key();
        back_up(&open_to_write(store.clone(), &folder).unwrap(), &rows(5, 800)).unwrap();
        let owner = open(store.clone()).unwrap();
        let before = packs_of(&owner);
        let path = paths::pack(&before.iter().find(|pack| pack.header[7] == 1).unwrap().name);
        store.damage(&path, |bytes| bytes[at] ^= 1);
        mend_index(&store);
        assert_eq!(open(store).unwrap().index().packs().unwrap().len(), before.len());
    }
}
