//! A repository of millions of tiny chunks in a thousand snapshots: opening it with and without the
//! local index, and pruning it. Each step is a process of its own, so that its memory can be told.
//! `cargo bench --bench prune_scale [-- CHUNKS [SNAPSHOTS [spread]]]`; takes about 200 bytes of disk a chunk.
//! A tenth of the chunks is garbage: all that every tenth snapshot added, or, `spread`, a tenth of
//! every pack.
#![allow(missing_docs, clippy::unwrap_used, reason = "benches")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use restow::clock::SystemClock;
use restow::crypto::envelope::{self, ObjectKind};
use restow::crypto::keys::BlobKind;
use restow::crypto::slot::Secret;
use restow::entropy::OsEntropy;
use restow::format::directory::Codec;
use restow::format::index::{self, IndexedPack};
use restow::format::log::{EntryKind, LogEntry};
use restow::format::pack::{EncodedBlob, PackBuilder, Padding, whole_entry};
use restow::format::paths;
use restow::format::recipe::{Child, ChunkRun, Edges, Node};
use restow::format::snapshot::Snapshot;
use restow::id::{ChunkId, ObjectName};
use restow::progress::Progress;
use restow::prune::{PruneOptions, run};
use restow::repository::{Environment, InitOptions, Repository};
use restow::store::local::LocalStore;

const CHUNK: u64 = 24;
const LEAF: u64 = 1024;
const PACK: usize = 8192;
const PACKS_PER_INDEX: usize = 32;
/// Leaves of earlier snapshots that one has in common with them.
const SHARED: usize = 64;

fn secret() -> Secret {
    Secret::KeyFile(vec![7; 32].into())
}

fn environment(folder: &Path) -> Environment {
    Environment {
        entropy: Arc::new(OsEntropy),
        clock: Arc::new(SystemClock),
        author: "bench".into(),
        cache: Some(folder.join("cache")),
        in_order: false,
    }
}

fn open(folder: &Path) -> Repository {
    let store = Arc::new(LocalStore::open(folder.join("repository")).unwrap());
    Repository::open(store, &secret(), environment(folder)).unwrap()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["make", folder, chunks, snapshots, spread] => {
            let (chunks, snapshots) = (chunks.parse().unwrap(), snapshots.parse().unwrap());
            make(Path::new(folder), chunks, snapshots, spread == "spread")
        }
        ["open", folder] => timed("opened", || drop(open(Path::new(folder)))),
        ["plan", folder] => prune(Path::new(folder), true),
        ["prune", folder] => prune(Path::new(folder), false),
        _ => all(&words),
    }
}

/// Runs every step as a process.
fn all(words: &[&str]) {
    let at = |number: usize, default| words.get(number).copied().unwrap_or(default);
    let (chunks, snapshots, spread) = (at(0, "10000000"), at(1, "1000"), at(2, "whole"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let step = |words: &[&str]| {
        let status = Command::new(std::env::current_exe().unwrap()).args(words).status();
        assert!(status.unwrap().success(), "{words:?}");
    };
    step(&["make", path, chunks, snapshots, spread]);
    println!("index from nothing:");
    std::fs::remove_dir_all(folder.path().join("cache")).unwrap();
    step(&["open", path]);
    println!("index at hand:");
    step(&["open", path]);
    println!("dry run:");
    step(&["plan", path]);
    println!("prune:");
    step(&["prune", path]);
    println!("again:");
    step(&["prune", path]);
}

fn timed<T>(what: &str, action: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = action();
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "  {what} in {seconds:.2} s, {:.2} s of processor, {:.0} MB at most",
        cpu(),
        most_memory()
    );
    result
}

fn most_memory() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// User and system time of this process so far, in seconds.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

fn prune(folder: &Path, dry_run: bool) {
    let repository = open(folder);
    let options = PruneOptions { dry_run, grace: Duration::ZERO, ..PruneOptions::default() };
    let report = timed("pruned", || run(&repository, &options, &Progress::default()).unwrap());
    let rate = report.references as f64 / report.mark_seconds / 1e6;
    println!(
        "  {} references, {rate:.1} million a second on one core; kept {} packs, wrote {} anew, {} without use; \
         deleted {} objects, {:.0} MB",
        report.references,
        report.kept_packs,
        report.repacked_packs,
        report.unused_packs,
        report.deleted,
        report.deleted_bytes as f64 / 1e6,
    );
    assert!(report.problems.is_empty());
}

/// Fills packs and stores them as they are full.
struct Filler<'a> {
    repository: &'a Repository,
    filling: [PackBuilder; 2],
    waiting: Vec<IndexedPack>,
    indexes: Vec<ObjectName>,
    buffer: Vec<u8>,
}

impl Filler<'_> {
    fn add(&mut self, kind: BlobKind, bytes: Vec<u8>) -> ChunkId {
        let id = self.repository.keys().chunk_id(kind, &bytes);
        let entry = whole_entry(id.key(), Codec::Raw, bytes.len());
        let builder = &mut self.filling[kind as usize];
        builder.push(EncodedBlob::new(entry, bytes));
        if builder.blob_count() >= PACK || builder.payload_bytes() > 8 << 20 {
            self.store(kind);
        }
        id
    }

    fn store(&mut self, kind: BlobKind) {
        let builder = std::mem::replace(&mut self.filling[kind as usize], PackBuilder::new(kind));
        let buffer = std::mem::take(&mut self.buffer);
        let pack = builder.seal(self.repository.keys(), &OsEntropy, Padding::None, buffer);
        let path = paths::pack(&pack.indexed.name);
        self.repository.store().put_new(&path, &pack.bytes).unwrap();
        self.buffer = pack.bytes;
        self.waiting.push(pack.indexed);
        if self.waiting.len() >= PACKS_PER_INDEX {
            self.note();
        }
    }

    fn note(&mut self) {
        let plain = index::encode(&self.waiting);
        let name = self.put(ObjectKind::Index, &plain, paths::index);
        self.indexes.push(name);
        self.waiting.clear();
    }

    fn put(&self, kind: ObjectKind, plain: &[u8], path: fn(&ObjectName) -> String) -> ObjectName {
        let stored = envelope::seal(self.repository.keys(), &OsEntropy, kind, &[], plain);
        let name = ObjectName::of(&stored);
        self.repository.store().put_new(&path(&name), &stored).unwrap();
        name
    }

    /// A leaf of new chunks, and its place in a recipe.
    fn leaf(&mut self, first: u64, garbage: bool) -> Child {
        let mut runs = Vec::new();
        for number in first..first + LEAF {
            let mut bytes = vec![0; CHUNK as usize];
            blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
            let id = self.add(BlobKind::Data, bytes);
            let run = ChunkRun { id, length: CHUNK as u32, repeat: 1, edges: Edges::default() };
            if !(garbage && number % 10 == 0) {
                runs.push(run);
            }
        }
        let chunks = runs.len() as u64;
        let id = self.add(BlobKind::Tree, Node::Leaf(runs).encode());
        Child { id, total_bytes: chunks * CHUNK, chunks }
    }
}

fn make(folder: &Path, chunks: u64, snapshots: u64, spread: bool) {
    let store = Arc::new(LocalStore::create(folder.join("repository")).unwrap());
    let options = InitOptions::default();
    let repository = Repository::init(store, &secret(), &options, environment(folder)).unwrap();
    let mut filler = Filler {
        repository: &repository,
        filling: [BlobKind::Data, BlobKind::Tree].map(PackBuilder::new),
        waiting: Vec::new(),
        indexes: Vec::new(),
        buffer: Vec::new(),
    };
    let started = Instant::now();
    let (mut shared, mut next) = (Vec::<Child>::new(), 0);
    let mut add = LogEntry::new(EntryKind::Add);
    for number in 0..snapshots {
        let is_garbage = !spread && number % 10 == 5;
        let mut own = Vec::new();
        while next < chunks * (number + 1) / snapshots {
            own.push(filler.leaf(next, spread));
            next += LEAF;
        }
        if is_garbage {
            continue;
        }
        shared.extend(own);
        let children = shared[shared.len().saturating_sub(SHARED)..].to_vec();
        let (size, count) =
            children.iter().fold((0, 0), |(a, b), child| (a + child.total_bytes, b + child.chunks));
        let root = filler.add(BlobKind::Tree, Node::Inner { level: 1, children }.encode());
        let manifest = format!(
            r#"{{"version":1,"time":"2026-01-01T00:00:00Z","host":"h{number}",
                "streams":[{{"name":"s","size":{size},"chunks":{count},"root":"{}"}}]}}"#,
            root.to_hex()
        );
        let snapshot = Snapshot::decode(manifest.as_bytes()).unwrap();
        let name = filler.put(ObjectKind::Snapshot, &snapshot.encode(), paths::snapshot);
        add.snapshot_add.push(name);
    }
    filler.store(BlobKind::Data);
    filler.store(BlobKind::Tree);
    filler.note();
    add.index_add = filler.indexes;
    println!("{next} chunks stored in {:.1} s", started.elapsed().as_secs_f64());
    timed("indexed", || repository.commit(&mut || Ok(add.clone())).unwrap());
}
