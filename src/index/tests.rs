//! Tests of the index alone, with made-up packs.

use super::*;
use crate::format::directory::{BlobEntry, Codec};
use crate::id::{ChunkId, ChunkKey};

fn repository() -> RepositoryId {
    RepositoryId([3; 16])
}

fn key(number: u32) -> ChunkKey {
    ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes()).key()
}

fn pack(name: &[u8], keys: std::ops::Range<u32>) -> IndexedPack {
    let entries = keys
        .map(|number| BlobEntry {
            id: key(number),
            codec: Codec::Zstd,
            stored_len: 100,
            plain_len: 1000,
            generation: 0,
            depth: 0,
            bases: vec![],
        })
        .collect();
    IndexedPack {
        name: ObjectName::of(name),
        kind: BlobKind::Data,
        size: 1 << 20,
        header: [1; HEADER_LEN],
        entries,
    }
}

#[derive(Default)]
struct Entry {
    add: Vec<(ObjectName, Vec<IndexedPack>)>,
    remove: Vec<ObjectName>,
    condemn: Vec<ObjectName>,
    rescue: Vec<ObjectName>,
    dead: Vec<ObjectName>,
    dropped: Vec<ObjectName>,
}

fn apply(index: &Index, number: u64, entry: Entry) -> Result<(), IndexError> {
    let from = number.checked_sub(1).map(|number| Position { number, hash: [number as u8; 32] });
    let change = Change {
        time_ns: 1,
        position: Position { number, hash: [number as u8; 32] },
        replace: false,
        is_repair: false,
        index_add: &mut entry.add.into_iter().map(|(name, packs)| Ok((name, packs.into()))),
        ask_pack: &|_| Ok(None),
        index_remove: &entry.remove,
        snapshot_add: &mut std::iter::empty(),
        snapshot_remove: &[],
        rescue: &entry.rescue,
        condemn: &entry.condemn,
        dead: &entry.dead,
        dropped: &entry.dropped,
    };
    index.apply(from, change)
}

#[test]
fn finds_what_was_added_and_follows_fates() {
    let index = Index::temporary(repository()).unwrap();
    let (one, two) = (ObjectName::of(b"one"), ObjectName::of(b"two"));
    let add = vec![(ObjectName::of(b"i"), vec![pack(b"one", 0..10), pack(b"two", 5..15)])];
    apply(&index, 0, Entry { add, ..Entry::default() }).unwrap();
    let found = index.find(&key(3)).unwrap().unwrap();
    assert_eq!((found.pack.name, found.ordinal, found.offset()), (one, 3, 60 + 300));
    assert!(index.find(&key(99)).unwrap().is_none());

    apply(&index, 1, Entry { condemn: vec![one], ..Entry::default() }).unwrap();
    assert!(!index.contains_live(&key(3)).unwrap());
    assert_eq!(index.find(&key(3)).unwrap().unwrap().pack.name, one);
    assert_eq!(index.find(&key(7)).unwrap().unwrap().pack.name, two);
    apply(&index, 2, Entry { rescue: vec![one], ..Entry::default() }).unwrap();
    assert!(index.contains_live(&key(3)).unwrap());
    apply(&index, 3, Entry { condemn: vec![one], ..Entry::default() }).unwrap();
    apply(&index, 4, Entry { dead: vec![one], ..Entry::default() }).unwrap();
    assert!(index.find(&key(3)).unwrap().is_none());
    assert_eq!(index.fate(&one), Some(Fate::Dead));
    assert_eq!(index.turns(), Turns { fates: 4, horizon: 0 });
    apply(&index, 5, Entry { dropped: vec![one], ..Entry::default() }).unwrap();
    assert_eq!(index.fate(&one), None);
    assert_eq!(index.turns(), Turns { fates: 4, horizon: 5 });
}

#[test]
fn many_chunks_leave_as_few_do() {
    let (stays, goes) = (ObjectName::of(b"stays"), ObjectName::of(b"goes"));
    for count in [10, 150_000] {
        let index = Index::temporary(repository()).unwrap();
        let going = vec![pack(b"one", 0..count), pack(b"two", count..2 * count)];
        let add = vec![(stays, vec![pack(b"three", 5..15)]), (goes, going)];
        apply(&index, 0, Entry { add, ..Entry::default() }).unwrap();
        apply(&index, 1, Entry { remove: vec![goes], ..Entry::default() }).unwrap();
        assert_eq!(index.totals().unwrap().chunks, 10);
        assert!(index.contains_live(&key(5)).unwrap() && !index.contains_live(&key(4)).unwrap());
    }
}

#[test]
fn rewriting_idx_objects_keeps_packs_that_moved() {
    let index = Index::temporary(repository()).unwrap();
    let (old, new) = (ObjectName::of(b"old"), ObjectName::of(b"new"));
    let both = vec![pack(b"one", 0..10), pack(b"two", 10..20)];
    apply(&index, 0, Entry { add: vec![(old, both)], ..Entry::default() }).unwrap();
    let add = vec![(new, vec![pack(b"two", 10..20)])];
    apply(&index, 1, Entry { add, remove: vec![old], ..Entry::default() }).unwrap();
    assert!(index.find(&key(3)).unwrap().is_none());
    assert!(index.contains_live(&key(13)).unwrap());
    assert_eq!(index.index_names().unwrap(), vec![new]);
}

#[test]
fn a_position_that_moved_is_noticed() {
    let index = Index::temporary(repository()).unwrap();
    apply(&index, 0, Entry::default()).unwrap();
    assert!(matches!(apply(&index, 0, Entry::default()), Err(IndexError::Moved)));
    assert!(matches!(apply(&index, 2, Entry::default()), Err(IndexError::Moved)));
    assert_eq!(index.position().unwrap().unwrap().number, 0);
}

#[test]
fn bulk_and_single_loading_give_the_same_rows() {
    let many: Vec<_> = (0..30u32)
        .map(|n| {
            let packs = vec![pack(&n.to_le_bytes(), n * 5000..(n + 1) * 5000)];
            (ObjectName::of(&[n as u8]), packs)
        })
        .collect();
    let bulk = Index::temporary(repository()).unwrap();
    apply(&bulk, 0, Entry { add: many.clone(), ..Entry::default() }).unwrap();
    let single = Index::temporary(repository()).unwrap();
    for (number, one) in many.into_iter().enumerate() {
        apply(&single, number as u64, Entry { add: vec![one], ..Entry::default() }).unwrap();
    }
    let rows = |index: &Index| {
        let mut rows = index.dump_rows().unwrap();
        rows.retain(|row| !row.starts_with("position"));
        rows
    };
    assert_eq!(rows(&bulk).len(), 30 + 30 + 150_000);
    assert!(rows(&bulk) == rows(&single));
}

#[test]
fn a_damaged_or_foreign_file_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let index = Index::open(folder.path(), repository()).unwrap();
    apply(&index, 0, Entry::default()).unwrap();
    drop(index);
    assert!(Index::open(folder.path(), repository()).unwrap().position().unwrap().is_some());
    let other = Index::open(folder.path(), RepositoryId([4; 16])).unwrap();
    assert!(other.position().unwrap().is_none());
    drop(other);
    std::fs::write(folder.path().join("index.sqlite"), vec![0x55; 9000]).unwrap();
    assert!(Index::open(folder.path(), repository()).unwrap().position().unwrap().is_none());
}
