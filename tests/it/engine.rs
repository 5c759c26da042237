//! The engine on small data: what comes back, what is stored, what it costs.

use std::sync::Arc;

use restow::backup::{StreamSource, run};
use restow::entropy::Entropy;
use restow::error::Error;
use restow::progress::Progress;
use restow::repository::Repository;
use restow::repository::snapshots::Filter;
use restow::store::memory::MemoryStore;
use restow::store::read_only::ReadOnlyStore;
use restow::store::record::{Call, RecordingStore};

use crate::support::*;

#[test]
fn streams_of_any_length_come_back() {
    let repository = init(Arc::new(MemoryStore::new())).unwrap();
    for length in [0, 1, 255, 256, 257, 4096, 4097, 100_000, 3_000_000] {
        let bytes = random_bytes(length as u64, length);
        let report = back_up(&repository, &bytes).unwrap();
        assert!(read(&repository, &report.snapshot.streams[0]).unwrap() == bytes, "{length} bytes");
    }
}

#[test]
fn a_second_backup_of_the_same_bytes_stores_no_pack() {
    let store = Arc::new(RecordingStore::new(MemoryStore::new()));
    let repository = init(store.clone()).unwrap();
    let bytes = rows(1, 20_000);
    back_up(&repository, &bytes).unwrap();
    store.take();
    let report = back_up(&repository, &bytes).unwrap();
    assert_eq!(report.snapshot.summary.new_chunks, 0);
    let puts: Vec<_> =
        store.take().into_iter().filter(|call| matches!(call, Call::Put(..))).collect();
    let paths: Vec<_> = puts.iter().map(|call| format!("{call:?}")).collect();
    assert_eq!(puts.len(), 2, "a snapshot and a log entry, nothing else: {paths:?}");
}

#[test]
fn a_changed_stream_costs_about_what_changed() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    back_up(&repository, &rows(1, 50_000)).unwrap();
    let before = store.total_bytes();
    let next = changed_rows(1, 50_000, 1, 100);
    let report = back_up(&repository, &next).unwrap();
    let added = store.total_bytes() - before;
    // Chunks of 1 KiB pay about 150 bytes each for ids; the rows themselves are 500 of 50,000.
    assert!(added < next.len() as u64 / 8, "{added} bytes for 1 % of {}", next.len());
    assert!(report.snapshot.summary.delta_bytes > next.len() as u64 / 4);
    assert!(read(&repository, &report.snapshot.streams[0]).unwrap() == next);
}

#[test]
fn nothing_is_lost_when_the_index_is() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    for day in 0..5 {
        back_up(&repository, &changed_rows(3, 5_000, day, 50)).unwrap();
    }
    // `open` without a cache folder rebuilds from the store alone.
    let rebuilt = open(store).unwrap();
    assert!(contents(&rebuilt).unwrap() == contents(&repository).unwrap());
    assert!(rebuilt.index().dump_rows().unwrap() == repository.index().dump_rows().unwrap());
}

#[test]
fn whole_states_in_the_log_change_nothing() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    for day in 0..140 {
        back_up(&repository, &rows(day % 7, 20)).unwrap();
    }
    let rebuilt = open(store.clone()).unwrap();
    assert!(rebuilt.index().dump_rows().unwrap() == repository.index().dump_rows().unwrap());
    let reads = Arc::new(RecordingStore::new(store.fork()));
    open(reads.clone()).unwrap();
    let entries =
        reads.take().iter().filter(|c| matches!(c, Call::Get(p) if p.starts_with("log/"))).count();
    assert!(entries < 30, "{entries} log entries read of more than 140");
}

#[test]
fn commands_that_read_change_nothing() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    back_up(&repository, &rows(1, 3000)).unwrap();
    let reader = open(Arc::new(ReadOnlyStore(store))).unwrap();
    contents(&reader).unwrap();
    let report = restow::check::run(&reader, restow::check::ReadData::All, &Progress::default());
    assert!(report.unwrap().problems.is_empty());
    restow::stats::repository(&reader).unwrap();
    assert!(matches!(back_up(&reader, b"new"), Err(Error::Store(_))));
}

#[test]
fn a_failing_source_makes_no_snapshot_but_keeps_what_was_stored() {
    let store = Arc::new(RecordingStore::new(MemoryStore::new()));
    let repository = init(store.clone()).unwrap();
    let bytes = random_bytes(1, 300_000);
    let failing = StreamSource { name: "s".into(), input: Bytes::failing(&bytes), min_bytes: 0 };
    let error = run(&repository, options(vec![failing]), &Progress::default()).unwrap_err();
    assert!(error.to_string().contains("exited with status 1"), "{error}");
    assert!(repository.snapshots(&Filter::default()).unwrap().is_empty());
    store.take();
    back_up(&repository, &bytes).unwrap();
    let stored: usize = store
        .take()
        .iter()
        .map(|call| {
            if let Call::Put(path, size) = call
                && path.starts_with("data/")
            {
                *size
            } else {
                0
            }
        })
        .sum();
    assert!(stored < 30_000, "{stored} bytes of packs written again");
}

#[test]
fn streams_shorter_than_asked_for_are_refused() {
    let repository = init(Arc::new(MemoryStore::new())).unwrap();
    let short = StreamSource { name: "s".into(), input: Bytes::new(b"12"), min_bytes: 3 };
    let error = run(&repository, options(vec![short]), &Progress::default()).unwrap_err();
    assert!(error.to_string().contains("--min-size"), "{error}");
    assert!(repository.snapshots(&Filter::default()).unwrap().is_empty());
}

#[test]
fn several_streams_go_into_one_snapshot() {
    let repository = init(Arc::new(MemoryStore::new())).unwrap();
    let contents: Vec<_> = (0..5).map(|seed| rows(seed, 3000)).collect();
    let sources = (0..5).map(|n| source(&format!("stream-{n}"), &contents[n])).collect();
    let report = run(&repository, options(sources), &Progress::default()).unwrap();
    for (number, bytes) in contents.iter().enumerate() {
        let stream = report.snapshot.stream(format!("/stream-{number}").as_bytes()).unwrap();
        assert!(read(&repository, stream).unwrap() == *bytes);
    }
    let twice = vec![source("a", b"1"), source("/a", b"2")];
    assert!(run(&repository, options(twice), &Progress::default()).is_err());
}

#[test]
fn a_dry_run_stores_nothing_and_tells_the_cost() {
    let store = Arc::new(RecordingStore::new(MemoryStore::new()));
    let repository = init(store.clone()).unwrap();
    store.take();
    let mut dry = options(vec![source("s", &random_bytes(1, 100_000))]);
    dry.dry_run = true;
    let report = run(&repository, dry, &Progress::default()).unwrap();
    assert!(report.name.is_none() && report.snapshot.summary.added_bytes > 100_000);
    assert!(store.take().iter().all(|call| !matches!(call, Call::Put(..))));
}

#[test]
fn an_interrupted_run_stops_without_a_snapshot() {
    let repository = init(Arc::new(MemoryStore::new())).unwrap();
    let progress = Progress::default();
    progress.interrupt();
    let sources = vec![source("s", &random_bytes(1, 3_000_000))];
    assert!(matches!(run(&repository, options(sources), &progress), Err(Error::Interrupted)));
    assert!(repository.snapshots(&Filter::default()).unwrap().is_empty());
}

#[test]
fn zeros_take_next_to_nothing() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let mut bytes = random_bytes(1, 10_000);
    bytes.resize(20_000_000, 0);
    bytes.extend(random_bytes(2, 10_000));
    let report = back_up(&repository, &bytes).unwrap();
    assert!(store.total_bytes() < 40_000, "{}", store.total_bytes());
    assert!(read(&repository, &report.snapshot.streams[0]).unwrap() == bytes);
}

/// A source that says it has holes, as a sparse file does.
struct Holey(Vec<(u64, Vec<u8>)>);

impl restow::source::StreamInput for Holey {
    fn skip_hole(&mut self) -> std::io::Result<u64> {
        Ok(self.0.first_mut().map_or(0, |(hole, _)| std::mem::take(hole)))
    }
    fn size_hint(&self) -> Option<u64> {
        Some(0)
    }
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while let Some((_, data)) = self.0.first_mut() {
            if data.is_empty() {
                self.0.remove(0);
                if self.0.first().is_some_and(|(hole, _)| *hole > 0) {
                    break;
                }
                continue;
            }
            let count = buffer.len().min(data.len());
            buffer[..count].copy_from_slice(&data[..count]);
            data.drain(..count);
            return Ok(count);
        }
        Ok(0)
    }
}

#[test]
fn holes_and_zeros_that_were_read_are_the_same() {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    for (before, hole, after) in [(0, 5 << 20, 0), (10, 2 << 20, 10), (5000, (3 << 20) + 17, 77)] {
        let (head, tail) = (random_bytes(1, before), random_bytes(2, after));
        let mut whole = head.clone();
        whole.resize(before + hole, 0);
        whole.extend(&tail);
        let read_zeros = back_up(&repository, &whole).unwrap();
        // A hole after data cannot follow within one read, so the parts come as two sources would.
        let parts = if before == 0 {
            vec![(hole as u64, tail)]
        } else {
            vec![(0, [head, vec![0; hole], tail].concat())]
        };
        let input = Box::new(Holey(parts));
        let sparse = StreamSource { name: "s".into(), input, min_bytes: 0 };
        let skipped = run(&repository, options(vec![sparse]), &Progress::default()).unwrap();
        assert_eq!(read_zeros.snapshot.streams, skipped.snapshot.streams);
    }
}

struct Constant;
impl Entropy for Constant {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(42);
    }
}

/// With a generator that always says the same, no two objects may share key and nonce unless they
/// are equal: salts (bytes 12..44 of each object) tell.
#[test]
fn a_constant_generator_repeats_no_key() {
    let store = Arc::new(MemoryStore::new());
    let repository =
        Repository::init(store.clone(), &secret(), &small(), environment(Arc::new(Constant)))
            .unwrap();
    for day in 0..4 {
        back_up(&repository, &changed_rows(1, 3000, day, 20)).unwrap();
    }
    let mut salts = std::collections::HashMap::new();
    for (path, bytes) in store.objects() {
        if bytes.starts_with(b"RSTW") {
            let other = salts.insert(bytes[12..44].to_vec(), path.clone());
            assert!(other.is_none(), "{path} and {other:?} have the same salt");
        }
    }
    assert!(salts.len() > 20);
}

#[test]
fn names_are_any_bytes() {
    let repository = init(Arc::new(MemoryStore::new())).unwrap();
    let names: [&[u8]; 4] = [b"new\nline", b"\xff\xfe", "\u{1f980}".as_bytes(), b"a/b c"];
    for name in names {
        let name = restow::format::name::Name::new(name);
        let stream = StreamSource { name: name.clone(), input: Bytes::new(b"x"), min_bytes: 0 };
        let report = run(&repository, options(vec![stream]), &Progress::default()).unwrap();
        assert_eq!(report.snapshot.streams[0].name, name);
        let found = Filter { paths: vec![name], ..Filter::default() };
        assert_eq!(repository.snapshots(&found).unwrap().len(), 1);
    }
}

#[test]
fn tags_change_without_touching_data() {
    let store = Arc::new(RecordingStore::new(MemoryStore::new()));
    let repository = init(store.clone()).unwrap();
    let report = back_up(&repository, &rows(1, 1000)).unwrap();
    let snapshots = repository.snapshots(&Filter::default()).unwrap();
    store.take();
    let add = restow::tag::TagOptions { add: vec!["keep".into()], ..Default::default() };
    restow::tag::run(&repository, &snapshots, &add).unwrap();
    assert_eq!(store.puts_below("data/"), 0);
    let after = repository.snapshots(&Filter::default()).unwrap();
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].snapshot.tags, ["keep"]);
    assert_eq!(after[0].snapshot.original, report.name);
    assert_eq!(after[0].snapshot.streams, report.snapshot.streams);
    let again = restow::tag::run(&repository, &snapshots, &add);
    assert!(matches!(again, Err(Error::Conflict(_))), "the old snapshot is gone");
}
