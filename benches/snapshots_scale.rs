//! A repository of many small backups: opening it with the local index at hand, listing its snapshots.
//! `cargo bench --bench snapshots_scale [-- SNAPSHOTS [FOLDER]]`. With a folder, repository, cache and key
//! file stay there, to try the program on.
#![allow(missing_docs, clippy::unwrap_used, reason = "benches")]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use restow::backup::{BackupOptions, StreamSource, run};
use restow::clock::SystemClock;
use restow::crypto::slot::Secret;
use restow::entropy::OsEntropy;
use restow::progress::Progress;
use restow::repository::snapshots::Filter;
use restow::repository::{Environment, InitOptions, Repository};
use restow::source::StreamInput;
use restow::store::local::LocalStore;

const KEY: [u8; 32] = [7; 32];
const RUNS: u32 = 20;

struct Line(Option<Vec<u8>>);

impl StreamInput for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(line) = self.0.take() else { return Ok(0) };
        buffer[..line.len()].copy_from_slice(&line);
        Ok(line.len())
    }

    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
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

fn secret() -> Secret {
    Secret::KeyFile(KEY.to_vec().into())
}

fn make(folder: &Path, count: usize) {
    let store = Arc::new(LocalStore::create(folder.join("repository")).unwrap());
    let options = InitOptions::default();
    let repository = Repository::init(store, &secret(), &options, environment(folder)).unwrap();
    for number in 0..count {
        let input = Box::new(Line(Some(format!("backup {number}\n").into_bytes())));
        let source = StreamSource { name: "line".into(), input, min_bytes: 0 };
        let host = format!("host{}", number % 100);
        let options = BackupOptions { streams: vec![source], host, ..BackupOptions::default() };
        run(&repository, options, &Progress::default()).unwrap();
    }
}

fn open(folder: &Path) -> Repository {
    let store = Arc::new(LocalStore::open(folder.join("repository")).unwrap());
    Repository::open(store, &secret(), environment(folder)).unwrap()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let count = words.first().map_or(10_000, |word| word.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let folder = words.get(1).map_or(temporary.path(), |word| Path::new(word));
    if !folder.join("repository").exists() {
        let started = Instant::now();
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("key"), KEY).unwrap();
        make(folder, count);
        println!("{count} backups: {:.1} s", started.elapsed().as_secs_f64());
    }
    drop(open(folder));
    let started = Instant::now();
    (0..RUNS).for_each(|_| drop(open(folder)));
    println!("open: {:.1} ms", started.elapsed().as_secs_f64() * 1000.0 / f64::from(RUNS));
    let started = Instant::now();
    for _ in 0..RUNS {
        assert!(!open(folder).snapshots(&Filter::default()).unwrap().is_empty());
    }
    let seconds = started.elapsed().as_secs_f64() / f64::from(RUNS);
    println!("open and load snapshots: {:.1} ms", seconds * 1000.0);
}
