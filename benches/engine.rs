//! Benches of the components and of whole backups, on synthetic dump text. `cargo bench`.
#![allow(missing_docs, clippy::unwrap_used, reason = "benches")]

use std::io::{Cursor, Read, Seek, Write};
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use restow::backup::{BackupOptions, StreamSource, run};
use restow::chunker::{Chunker, Profile};
use restow::compress::{Compressor, Decompressor, Settings};
use restow::crypto::envelope::HEADER_LEN;
use restow::crypto::keys::{BlobKind, KeyRing};
use restow::crypto::slot::Secret;
use restow::entropy::OsEntropy;
use restow::format::directory::Codec;
use restow::format::index::IndexedPack;
use restow::format::pack::{
    EncodedBlob, PackBuilder, PackOpener, Padding, read_directory, whole_entry,
};
use restow::id::{ChunkKey, ObjectName, RepositoryId};
use restow::index::{Change, Index, Position};
use restow::progress::Progress;
use restow::repository::{Environment, InitOptions, Repository};
use restow::restore::{WriterTarget, copy_stream};
use restow::source::StreamInput;
use restow::store::memory::MemoryStore;

const STREAM_BYTES: usize = 64 << 20;

fn keys() -> KeyRing {
    KeyRing::generate(&restow::entropy::OsEntropy)
}

/// Rows of a dump; on a later day one in a hundred is different.
fn dump(day: u64) -> Vec<u8> {
    let mut text = Vec::with_capacity(STREAM_BYTES);
    let mut number = 0u64;
    while text.len() < STREAM_BYTES {
        let changed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        let version = if changed % 100 < day { day } else { 0 };
        let noise = blake3::hash(&[number.to_le_bytes(), version.to_le_bytes()].concat()).to_hex();
        text.extend(format!("{number}\tcustomer\t{}\t{version}\n", &noise[..40]).into_bytes());
        number += 1;
    }
    text
}

fn chunks(bytes: &[u8]) -> Vec<&[u8]> {
    let chunker = Chunker::new(Profile::STREAM, keys().gear_key());
    let (mut chunks, mut rest) = (Vec::new(), bytes);
    while let Some(length) = chunker.cut(rest, true) {
        let (chunk, tail) = rest.split_at(length);
        chunks.push(chunk);
        rest = tail;
    }
    chunks
}

fn chunker(c: &mut Criterion) {
    let bytes = dump(0);
    let mut group = c.benchmark_group("chunker");
    group.throughput(Throughput::Bytes(bytes.len() as u64)).sample_size(20);
    group.bench_function("cut", |b| b.iter(|| chunks(&bytes).len()));
    let keys = keys();
    group.bench_function("cut and hash", |b| {
        b.iter(|| chunks(&bytes).iter().map(|c| keys.chunk_id(BlobKind::Data, c).0[0]).max())
    });
    group.finish();
}

fn delta(c: &mut Criterion) {
    let (old, new) = (dump(0), dump(1));
    let pairs: Vec<_> = old.chunks(256 << 10).zip(new.chunks(256 << 10)).take(64).collect();
    let bytes: usize = pairs.iter().map(|(_, new)| new.len()).sum();
    let mut compressor = Compressor::new(Settings::default()).unwrap();
    let mut decompressor = Decompressor::new().unwrap();
    let frames: Vec<_> = pairs.iter().map(|(a, b)| compressor.delta(a, b).unwrap()).collect();
    let mut group = c.benchmark_group("delta");
    group.throughput(Throughput::Bytes(bytes as u64)).sample_size(20);
    group.bench_function("encode", |b| {
        b.iter(|| pairs.iter().map(|(a, b)| compressor.delta(a, b).unwrap().len()).sum::<usize>())
    });
    group.bench_function("decode", |b| {
        b.iter(|| {
            let decode = |((a, b), frame): (&(&[u8], &[u8]), &Vec<u8>)| {
                decompressor.delta(a, frame, b.len()).unwrap().len()
            };
            pairs.iter().zip(&frames).map(decode).sum::<usize>()
        })
    });
    group.bench_function("whole", |b| {
        b.iter(|| pairs.iter().map(|(_, b)| compressor.plain(b).unwrap().len()).sum::<usize>())
    });
    group.finish();
}

fn builder(payload: &[u8]) -> PackBuilder {
    let keys = keys();
    let mut builder = PackBuilder::new(BlobKind::Data);
    for part in payload.chunks(64 << 10) {
        let id = keys.chunk_id(BlobKind::Data, part);
        let entry = whole_entry(id.key(), Codec::Raw, part.len());
        builder.push(EncodedBlob::new(entry, part.to_vec()));
    }
    builder
}

fn pack(c: &mut Criterion) {
    let payload = &dump(0)[..16 << 20];
    let keys = keys();
    let mut group = c.benchmark_group("pack");
    group.throughput(Throughput::Bytes(payload.len() as u64)).sample_size(20);
    group.bench_function("seal", |b| {
        b.iter_batched(
            || builder(payload),
            |builder| builder.seal(&keys, &OsEntropy, Padding::None, Vec::new()).bytes.len(),
            BatchSize::LargeInput,
        )
    });
    let sealed = builder(payload).seal(&keys, &OsEntropy, Padding::None, Vec::new());
    group.bench_function("read directory", |b| {
        b.iter(|| read_directory(&keys, &sealed.bytes).unwrap().entries.len())
    });
    let opener = PackOpener::new(&keys, sealed.indexed.header, BlobKind::Data).unwrap();
    group.bench_function("open blobs", |b| {
        b.iter(|| {
            let mut at = HEADER_LEN;
            for (ordinal, entry) in sealed.indexed.entries.iter().enumerate() {
                let mut stored = sealed.bytes[at..at + entry.stored_len as usize].to_vec();
                at += stored.len();
                opener.open_blob(ordinal as u64, entry, &mut stored).unwrap();
            }
        })
    });
    group.finish();
}

fn key(number: u64) -> ChunkKey {
    ChunkKey(*blake3::hash(&number.to_le_bytes()).as_bytes().first_chunk().unwrap())
}

fn filled_index(chunks: u64) -> Index {
    let index = Index::temporary(RepositoryId([1; 16])).unwrap();
    let mut packs = (0..chunks / 1000).map(|pack| {
        let entries = (pack * 1000..(pack + 1) * 1000)
            .map(|number| {
                let id = restow::id::ChunkId([0; 32]);
                let mut entry = whole_entry(id.key(), Codec::Zstd, 1000);
                entry.id = key(number);
                entry
            })
            .collect();
        let name = ObjectName::of(&pack.to_le_bytes());
        let pack =
            IndexedPack { name, kind: BlobKind::Data, size: 1, header: [0; HEADER_LEN], entries };
        Ok((name, vec![pack].into()))
    });
    let change = Change {
        time_ns: 0,
        position: Position { number: 0, hash: [0; 32] },
        replace: false,
        is_repair: false,
        index_add: &mut packs,
        ask_pack: &|_| Ok(None),
        index_remove: &[],
        snapshot_add: &mut std::iter::empty(),
        snapshot_remove: &[],
        rescue: &[],
        condemn: &[],
        dead: &[],
        dropped: &[],
    };
    index.apply(None, change).unwrap();
    index
}

fn index(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    group.sample_size(10);
    group.throughput(Throughput::Elements(200_000));
    group.bench_function("load 200,000 chunks", |b| b.iter(|| filled_index(200_000)));
    let index = filled_index(200_000);
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("look up 10,000", |b| {
        b.iter(|| (0..10_000).filter(|n| index.contains_live(&key(n * 37)).unwrap()).count())
    });
    group.finish();
}

struct Memory(Cursor<Arc<[u8]>>);

impl StreamInput for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        std::io::Read::read(&mut self.0, buffer)
    }
}

fn repository() -> Repository {
    let secret = Secret::KeyFile(vec![7; 32].into());
    let environment = Environment::system("bench".into(), None);
    Repository::init(Arc::new(MemoryStore::new()), &secret, &InitOptions::default(), environment)
        .unwrap()
}

fn back_up(repository: &Repository, bytes: &Arc<[u8]>) -> restow::backup::Report {
    let input = Box::new(Memory(Cursor::new(bytes.clone())));
    let source = StreamSource { name: "s".into(), input, min_bytes: 0 };
    let options = BackupOptions { streams: vec![source], ..BackupOptions::default() };
    run(repository, options, &Progress::default()).unwrap()
}

fn whole(c: &mut Criterion) {
    let days: Vec<Arc<[u8]>> = (0..2).map(|day| dump(day).into()).collect();
    let mut group = c.benchmark_group("backup");
    group.throughput(Throughput::Bytes(STREAM_BYTES as u64)).sample_size(10);
    group.bench_function("first", |b| {
        b.iter_batched(
            repository,
            |repository| back_up(&repository, &days[0]),
            BatchSize::PerIteration,
        )
    });
    let after = |count: usize| {
        let days = days.clone();
        move || {
            let repository = repository();
            days.iter().take(count).for_each(|day| drop(back_up(&repository, day)));
            repository
        }
    };
    for (name, count) in [("next day", 1), ("same again", 2)] {
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_batched(
                after(count),
                |repository| back_up(&repository, &days[1]),
                BatchSize::PerIteration,
            )
        });
    }
    let repository = after(1)();
    let stream = back_up(&repository, &days[1]).snapshot.streams[0].clone();
    group.bench_function("dump", |b| {
        b.iter(|| {
            let mut target = WriterTarget { writer: std::io::sink(), name: "nothing".into() };
            copy_stream(&repository, &stream, &mut target, &Progress::default()).unwrap()
        })
    });
    group.finish();
}

/// A file of the page cache, cut and hashed: read into a buffer that is used again, or mapped.
fn mapping(c: &mut Criterion) {
    let mut file = tempfile::tempfile().unwrap();
    let bytes = dump(0);
    file.write_all(&bytes).unwrap();
    let keys = keys();
    let take = |bytes: &[u8]| {
        for chunk in chunks(bytes) {
            keys.chunk_id(BlobKind::Data, chunk);
        }
    };
    let mut group = c.benchmark_group("file");
    group.throughput(Throughput::Bytes(bytes.len() as u64)).sample_size(10);
    let mut buffer = vec![0; 4 << 20];
    group.bench_function("read", |b| {
        b.iter(|| {
            file.rewind().unwrap();
            loop {
                let count = file.read(&mut buffer).unwrap();
                if count == 0 {
                    break;
                }
                take(&buffer[..count]);
            }
        });
    });
    group.bench_function("map", |b| {
        b.iter(|| {
            // SAFETY: nobody else has this file.
            #[allow(unsafe_code)]
            let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
            map.chunks(4 << 20).for_each(take);
        });
    });
    group.finish();
}

criterion_group!(benches, mapping, chunker, delta, pack, index, whole);
criterion_main!(benches);
