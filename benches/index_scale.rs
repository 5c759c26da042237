//! The local index at ten million chunks: bytes on disk, memory, time.
//! `cargo bench --bench index_scale [-- CHUNKS]`
#![allow(missing_docs, clippy::unwrap_used, reason = "benches")]

use std::path::Path;
use std::time::Instant;

use restow::crypto::envelope::HEADER_LEN;
use restow::crypto::keys::BlobKind;
use restow::format::directory::Codec;
use restow::format::index::IndexedPack;
use restow::format::pack::whole_entry;
use restow::id::{ChunkId, ChunkKey, ObjectName, RepositoryId};
use restow::index::{Change, Index, Position};

const PACK: u64 = 500;

fn key(number: u64) -> ChunkKey {
    ChunkKey(*blake3::hash(&number.to_le_bytes()).as_bytes().first_chunk().unwrap())
}

/// A pack in which every second chunk is a delta with one base.
fn pack(number: u64) -> IndexedPack {
    let entries = (number * PACK..(number + 1) * PACK)
        .map(|chunk| {
            let mut entry = whole_entry(ChunkId([0; 32]).key(), Codec::Zstd, 250_000);
            entry.id = key(chunk);
            entry.stored_len = 60_000;
            if chunk % 2 == 1 {
                entry.codec = Codec::Delta;
                (entry.generation, entry.depth) = (300, 3);
                entry.bases = vec![key(chunk - 1)];
            }
            entry
        })
        .collect();
    let name = ObjectName::of(&number.to_le_bytes());
    IndexedPack { name, kind: BlobKind::Data, size: 32 << 20, header: [0; HEADER_LEN], entries }
}

fn apply(index: &Index, number: u64, packs: std::ops::Range<u64>) {
    let from = number.checked_sub(1).map(|number| Position { number, hash: [0; 32] });
    let mut objects = packs.map(|number| {
        let pack = pack(number);
        Ok((pack.name, vec![pack].into()))
    });
    let change = Change {
        time_ns: 0,
        position: Position { number, hash: [0; 32] },
        replace: false,
        is_repair: false,
        index_add: &mut objects,
        ask_pack: &|_| Ok(None),
        index_remove: &[],
        snapshot_add: &mut std::iter::empty(),
        snapshot_remove: &[],
        rescue: &[],
        condemn: &[],
        dead: &[],
        dropped: &[],
    };
    index.apply(from, change).unwrap();
}

fn status(field: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn file_bytes(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.metadata().unwrap().len()).sum()
}

fn main() {
    let chunks: u64 =
        std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(10_000_000);
    let folder = tempfile::tempdir().unwrap();
    let empty = status("VmRSS");
    let packs = chunks / PACK;
    // Nine tenths at once, as after losing the index, the rest in a hundred daily increments.
    let index = Index::open(folder.path(), RepositoryId([1; 16])).unwrap();
    let started = Instant::now();
    apply(&index, 0, 0..packs * 9 / 10);
    println!("load of {} chunks: {:.1} s", packs * 9 / 10 * PACK, started.elapsed().as_secs_f64());
    drop(index);
    let loaded = file_bytes(folder.path());
    println!("  {:.1} bytes a chunk", loaded as f64 / (packs * 9 / 10 * PACK) as f64);
    let index = Index::open(folder.path(), RepositoryId([1; 16])).unwrap();
    let started = Instant::now();
    let step = packs / 1000;
    for day in 0..100 {
        let start = packs * 9 / 10 + day * step;
        apply(&index, day + 1, start..start + step);
    }
    println!("100 increments of {}: {:.1} s", step * PACK, started.elapsed().as_secs_f64());
    let started = Instant::now();
    let found =
        (0..100_000).filter(|n| index.contains_live(&key(n * 97 % chunks)).unwrap()).count();
    println!("look-ups: {:.1} us each, {found} found", started.elapsed().as_secs_f64() * 10.0);
    drop(index);
    println!("in all {:.1} bytes a chunk", file_bytes(folder.path()) as f64 / chunks as f64);
    println!(
        "memory: {:.0} MB before, {:.0} MB after, {:.0} MB at most",
        empty,
        status("VmRSS"),
        status("VmHWM")
    );
}
