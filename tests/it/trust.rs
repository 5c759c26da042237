//! Hostile holders of write-only keys: what they say of packs that are not theirs is found out, and
//! costs nobody else a chunk.

use std::sync::Arc;

use restow::crypto::envelope::{HEADER_LEN, ObjectKind, seal};
use restow::entropy::OsEntropy;
use restow::format::directory::{BlobEntry, Codec};
use restow::format::index::{IndexedPack, encode};
use restow::format::log::{EntryKind, LogEntry};
use restow::format::pack::{EncodedBlob, PackBuilder, Padding, whole_entry};
use restow::format::paths;
use restow::id::ObjectName;
use restow::progress::Progress;
use restow::repair::index::{IndexOptions, IndexReport, run as repair_index};
use restow::repair::packs::{PacksOptions, run as repair_packs};
use restow::repository::Repository;
use restow::store::Store;
use restow::store::memory::MemoryStore;

use crate::files::back_up_files;
use crate::keys::{open_to_write, with_write_only_key};
use crate::prune::{assert_clean, assert_sound, prune};
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

/// A store in which a host stored packs that it did not commit yet, and how it does.
fn before_commit() -> (Arc<MemoryStore>, Vec<IndexedPack>, Vec<u8>, impl Fn(&MemoryStore)) {
    let (store, folder, _) = with_write_only_key();
    let known: Vec<_> = store.list("").unwrap().into_iter().map(|object| object.path).collect();
    let later = Arc::new(store.fork());
    let bytes = rows(5, 800);
    let host = open_to_write(later.clone(), &folder).unwrap();
    back_up(&host, &bytes).unwrap();
    let mut others = Vec::new();
    let mut packs = Vec::new();
    let mut add = LogEntry::new(EntryKind::Add);
    for object in later.list("").unwrap() {
        let stored = later.get(&object.path).unwrap();
        if known.contains(&object.path) {
            continue;
        } else if object.path.starts_with(paths::DATA) {
            store.put_new(&object.path, &stored).unwrap();
            packs.push(seen(&store, &object.path));
        } else if let Some(number) = paths::log_number(&object.path) {
            let entry = host.read_entry(number).unwrap().unwrap().entry;
            add.index_add.extend(entry.index_add);
            add.snapshot_add.extend(entry.snapshot_add);
        } else {
            others.push((object.path, stored));
        }
    }
    let commit = move |store: &MemoryStore| {
        others.iter().for_each(|(path, stored)| store.put_new(path, stored).unwrap());
        let it = Arc::new(store.fork());
        let number = it.list("log/").unwrap().len();
        let (host, _folder) = stranger(&it);
        host.commit(&mut || Ok(add.clone())).unwrap();
        let path = paths::log(number as u64);
        store.put_new(&path, &it.get(&path).unwrap()).unwrap();
    };
    (store, packs, bytes, commit)
}

fn stranger(store: &Arc<MemoryStore>) -> (Repository, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (open_to_write(store.clone(), &folder).unwrap(), folder)
}

fn holds(owner: &Repository, bytes: &[u8]) -> bool {
    contents(owner).is_ok_and(|held| held.len() == 4 && held.values().any(|it| it == bytes))
}

#[test]
fn who_speaks_first_of_the_packs_of_another_host_is_not_believed() {
    for (is_first, is_early) in [(true, true), (false, true), (true, false), (false, false)] {
        let (store, packs, bytes, commit) = before_commit();
        // It does not know which packs are of what kind either.
        let watching = open(store.clone()).unwrap();
        if is_early {
            claim(&stranger(&store).0, &packs, is_first);
            watching.sync().unwrap();
            commit(&store);
        } else {
            commit(&store);
            watching.sync().unwrap();
            claim(&stranger(&store).0, &packs, is_first);
        }
        watching.sync().unwrap();
        for owner in [&watching, &open(store.clone()).unwrap()] {
            assert!(holds(owner, &bytes), "{is_first} {is_early}");
        }
        assert!(holds(
            &Repository::salvage(store.clone(), &secret(), environment(Arc::new(OsEntropy)),)
                .unwrap(),
            &bytes
        ));
        prune(&watching).unwrap();
        for owner in [&watching, &open(store.clone()).unwrap()] {
            assert!(holds(owner, &bytes), "{is_first} {is_early}");
        }
        mend_index(&store);
        let owner = open(store.clone()).unwrap();
        assert!(holds(&owner, &bytes));
        assert_sound(&owner);
    }
}

#[test]
fn two_lies_in_one_look_at_the_log_hide_nothing() {
    let (store, packs, bytes, commit) = before_commit();
    let watching = open(store.clone()).unwrap();
    claim(&stranger(&store).0, &packs, true);
    let swapped: Vec<_> =
        packs.iter().map(|pack| IndexedPack { header: packs[0].header, ..pack.clone() }).collect();
    claim(&stranger(&store).0, &swapped, false);
    commit(&store);
    watching.sync().unwrap();
    for owner in [watching, open(store.clone()).unwrap()] {
        assert!(holds(&owner, &bytes));
    }
}

/// An owner whose index believes a lie, because the pack was away when the truth came.
fn deceived() -> (Arc<MemoryStore>, Repository, Vec<u8>) {
    let (store, packs, bytes, commit) = before_commit();
    let owner = open(store.clone()).unwrap();
    claim(&stranger(&store).0, &packs, true);
    owner.sync().unwrap();
    let paths: Vec<_> = packs.iter().map(|pack| paths::pack(&pack.name)).collect();
    let away: Vec<_> = paths.iter().map(|path| store.get(path).unwrap()).collect();
    paths.iter().for_each(|path| store.delete(path).unwrap());
    commit(&store);
    owner.sync().unwrap();
    open(store.clone()).unwrap();
    paths.iter().zip(away).for_each(|(path, bytes)| store.put_new(path, &bytes).unwrap());
    assert!(!holds(&owner, &bytes));
    (store, owner, bytes)
}

#[test]
fn an_index_that_believes_a_lie_is_mended_by_either_repair() {
    let (store, owner, bytes) = deceived();
    let wanted = |dry_run| PacksOptions { dry_run, ..PacksOptions::default() };
    let told = repair_packs(&owner, &wanted(true), &Progress::default()).unwrap();
    let done = repair_packs(&owner, &wanted(false), &Progress::default()).unwrap();
    assert!(!done.relisted.is_empty() && told.relisted == done.relisted);
    assert!(done.replaced.is_empty() && done.findings.is_empty());
    for owner in [&owner, &open(store.clone()).unwrap()] {
        assert!(holds(owner, &bytes));
    }
    let again = repair_packs(&owner, &wanted(false), &Progress::default()).unwrap();
    assert!(again.relisted.is_empty());

    let (store, owner, bytes) = deceived();
    assert!(mend_index(&store).is_needed);
    owner.sync().unwrap();
    for owner in [&owner, &open(store).unwrap()] {
        assert!(holds(owner, &bytes));
        assert_sound(owner);
    }
}

#[test]
fn what_prune_moved_of_a_write_only_host_is_stored_again_once_and_stays() {
    let (store, folder, days) = with_write_only_key();
    let bytes = rows(5, 2500);
    let in_store = || store.total_bytes();
    let owner = open(store.clone()).unwrap();
    let host = || open_to_write(store.clone(), &folder).unwrap();
    back_up(&host(), &bytes).unwrap();
    owner.rotate_keys().unwrap();
    prune(&owner).unwrap();
    // Its chunks stand in packs of the owner, which it cannot know.
    assert!(back_up(&host(), &bytes).unwrap().snapshot.summary.new_bytes > 0);
    let twice = in_store();
    assert!(prune(&owner).unwrap().deleted > 0);
    let once = in_store();
    assert!(once < twice - bytes.len() as u64 / 4, "{once} of {twice}");
    for _ in 0..3 {
        let report = back_up(&host(), &bytes).unwrap();
        assert_eq!(report.snapshot.summary.new_bytes, 0);
        assert_eq!(prune(&owner).unwrap().deleted, 0);
    }
    assert!(in_store() < once + 40_000, "{} of {once}", in_store());
    for owner in [&owner, &open(store.clone()).unwrap()] {
        let held = contents(owner).unwrap();
        assert_eq!(held.len(), days.len() + 5);
        assert_eq!(held.values().filter(|it| **it == bytes).count(), 5);
        assert!(days.iter().all(|day| held.values().any(|it| it == day)));
        assert_clean(owner);
    }
}

/// Stores a pack that claims the chunks of another one and holds zeros. Groups keep their keys: what was
/// decoded of the good one must not pass for this one.
fn imitate(writer: &Repository, pack: &IndexedPack) -> IndexedPack {
    let mut builder = PackBuilder::new(pack.kind);
    let mut entries = pack.entries.iter().cloned().peekable();
    while let Some(entry) = entries.next() {
        let payload = vec![0; entry.plain_len as usize];
        let is_member = |entry: &BlobEntry| entry.codec == Codec::Member;
        let members: Vec<_> = std::iter::from_fn(|| entries.next_if(is_member)).collect();
        let entry = whole_entry(entry.id, Codec::Raw, payload.len());
        builder.push(EncodedBlob { entry, payload, members });
    }
    let sealed = builder.seal(writer.keys(), &OsEntropy, Padding::None, Vec::new());
    let path = paths::pack(&sealed.indexed.name);
    writer.store().put_new(&path, &sealed.bytes).unwrap();
    sealed.indexed
}

#[test]
fn a_copy_that_is_not_what_it_claims_takes_the_place_of_none() {
    let (store, folder, days) = with_write_only_key();
    let owner = open(store.clone()).unwrap();
    let files = tempfile::tempdir().unwrap();
    for number in 0..40 {
        std::fs::write(files.path().join(number.to_string()), random_bytes(number, 700)).unwrap();
    }
    back_up_files(&owner, &[files.path()]);
    let host = open_to_write(store.clone(), &folder).unwrap();
    let bytes = rows(5, 800);
    back_up(&host, &bytes).unwrap();
    let good = packs_of(&owner);
    assert!(good.iter().flat_map(|pack| &pack.entries).any(|it| it.codec == Codec::Member));
    let (writer, _folder) = stranger(&store);
    let bad: Vec<_> = good.iter().map(|pack| imitate(&writer, pack)).collect();
    claim(&writer, &bad, true);
    for _ in 0..2 {
        prune(&owner).unwrap();
        let held = contents(&owner).unwrap();
        assert!(days.iter().chain([&bytes]).all(|day| held.values().any(|it| it == day)));
        assert_clean(&owner);
    }
    let left: Vec<_> = owner.index().packs().unwrap().into_iter().map(|(name, _)| name).collect();
    assert!(bad.iter().all(|pack| !left.contains(&pack.name)));
    assert_clean(&open(store).unwrap());
}
