//! Fixtures: small repositories in memory, streams that change a little, the program itself.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use restow::backup::{BackupOptions, Report, StreamSource, run};
use restow::chunker::Profile;
use restow::crypto::slot::Secret;
use restow::entropy::{Entropy, OsEntropy};
use restow::error::Result;
use restow::format::snapshot::StreamEntry;
use restow::progress::Progress;
use restow::repository::snapshots::Filter;
use restow::repository::{Environment, InitOptions, Repository};
use restow::restore::{WriterTarget, copy_stream};
use restow::source::StreamInput;
use restow::store::Store;
use restow::store::memory::MemoryStore;

/// A stream from memory.
pub struct Bytes {
    bytes: Vec<u8>,
    at: usize,
    end: std::result::Result<(), String>,
}

impl Bytes {
    pub fn new(bytes: &[u8]) -> Box<Self> {
        Box::new(Self { bytes: bytes.to_vec(), at: 0, end: Ok(()) })
    }

    /// A stream whose source says at the end that it failed.
    pub fn failing(bytes: &[u8]) -> Box<Self> {
        Box::new(Self { bytes: bytes.to_vec(), at: 0, end: Err("exited with status 1".into()) })
    }
}

impl StreamInput for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.bytes.len() - self.at);
        buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }

    fn finish(&mut self) -> std::result::Result<(), String> {
        self.end.clone()
    }
}

pub fn secret() -> Secret {
    Secret::KeyFile(vec![7; 32].into())
}

pub fn environment(entropy: Arc<dyn Entropy>) -> Environment {
    Environment { entropy, ..Environment::system("test".into(), None) }
}

/// Small chunks and packs, so that a few hundred kilobytes make many objects.
pub fn small() -> InitOptions {
    InitOptions {
        stream_chunks: Profile { min: 256, avg: 1024, max: 4096 },
        data_pack_bytes: 16 << 10,
        tree_pack_bytes: 4 << 10,
        ..InitOptions::default()
    }
}

pub fn init(store: Arc<dyn Store>) -> Result<Repository> {
    Repository::init(store, &secret(), &small(), environment(Arc::new(OsEntropy)))
}

pub fn open(store: Arc<dyn Store>) -> Result<Repository> {
    Repository::open(store, &secret(), environment(Arc::new(OsEntropy)))
}

pub fn source(name: &str, bytes: &[u8]) -> StreamSource {
    StreamSource { name: name.into(), input: Bytes::new(bytes), min_bytes: 0 }
}

pub fn options(streams: Vec<StreamSource>) -> BackupOptions {
    BackupOptions { streams, host: "host".into(), threads: 2, ..BackupOptions::default() }
}

pub fn back_up(repository: &Repository, bytes: &[u8]) -> Result<Report> {
    run(repository, options(vec![source("s", bytes)]), &Progress::default())
}

/// A repository with the same table on three days.
pub fn prepared() -> (Arc<MemoryStore>, Vec<Vec<u8>>) {
    let store = Arc::new(MemoryStore::new());
    let repository = init(store.clone()).unwrap();
    let days: Vec<_> = (0..3).map(|day| changed_rows(1, 1500, day, 20)).collect();
    for day in &days {
        back_up(&repository, day).unwrap();
    }
    (store, days)
}

pub fn read(repository: &Repository, stream: &StreamEntry) -> Result<Vec<u8>> {
    let mut target = WriterTarget { writer: Vec::new(), name: "memory".into() };
    copy_stream(repository, stream, &mut target, &Progress::default())?;
    Ok(target.writer)
}

/// The bytes of stream `s` of every live snapshot, by id.
pub fn contents(repository: &Repository) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for named in repository.snapshots(&Filter::default())? {
        for stream in &named.snapshot.streams {
            all.insert(named.name.to_hex(), read(repository, stream)?);
        }
    }
    Ok(all)
}

/// Rows of text, the same for the same seed.
pub fn rows(seed: u64, count: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0..count as u64 {
        text.extend(row(seed, number, 0));
    }
    text
}

/// The same rows on a later day: one in `one_in` is different.
pub fn changed_rows(seed: u64, count: usize, day: u64, one_in: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0..count as u64 {
        let version =
            (1..=day).filter(|day| noise(number ^ (day << 40)).is_multiple_of(one_in)).count();
        text.extend(row(seed, number, version));
    }
    text
}

fn row(seed: u64, number: u64, version: usize) -> Vec<u8> {
    let noise = noise(seed ^ number.wrapping_mul(31) ^ ((version as u64) << 50));
    format!("{number}\tcustomer-{:05}\t{noise:016x}\t{version}\n", noise % 9999).into_bytes()
}

pub fn noise(seed: u64) -> u64 {
    let hash = blake3::hash(&seed.to_le_bytes());
    u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap())
}

pub fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The program with a repository of its own.
pub struct Program {
    pub folder: tempfile::TempDir,
}

impl Program {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn initialized() -> Self {
        let program = Self::new();
        program.ok(&["init"], b"");
        program
    }

    /// A repository with a key file of its own, `key`.
    pub fn initialized_with(key: &[u8]) -> Self {
        let program = Self::new();
        let path = program.path("key");
        std::fs::write(&path, key).unwrap();
        program.ok(&["init", "--key-file", path.to_str().unwrap()], b"");
        program
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_restow"));
        command
            .args(arguments)
            .env("RESTOW_REPOSITORY", self.path("repo"))
            .env("RESTOW_KEY_FILE", key_file())
            .env("RESTOW_CACHE_DIR", self.path("cache"))
            .env("PATH", crate::postgres::path())
            .env_remove("RESTOW_PASSWORD");
        command
    }

    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        feed(self.command(arguments), input)
    }

    /// Runs a command that must succeed and gives its output.
    pub fn ok(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(arguments, input);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        output.stdout
    }

    /// Runs a command that must fail with this code and gives what it said.
    pub fn fails(&self, arguments: &[&str], input: &[u8], code: i32) -> String {
        let output = self.run(arguments, input);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    pub fn backup(&self, name: &str, bytes: &[u8]) {
        self.ok(&["backup", "--stdin", "--stdin-filename", name], bytes);
    }

    /// The id of the oldest snapshot.
    pub fn first_snapshot(&self) -> String {
        let listed = text(&self.ok(&["snapshots", "--json"], b""));
        let first: serde_json::Value =
            serde_json::from_str(listed.lines().next().unwrap()).unwrap();
        first["id"].as_str().unwrap().to_owned()
    }

    /// Bytes of all objects.
    pub fn stored_bytes(&self) -> u64 {
        let sizes = self.objects("").into_iter().map(|path| path.metadata().unwrap().len());
        sizes.sum()
    }

    /// Objects below a folder of the repository; what a killed writer left half done is none.
    pub fn objects(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path("repo").join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path())
                } else {
                    found.push(entry.path())
                }
            }
        }
        found.retain(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
        found.sort();
        found
    }
}

/// A key file for all tests: opening with a password takes a tenth of a second each time.
pub fn key_file() -> &'static Path {
    static FILE: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    FILE.get_or_init(|| {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("key-{}", std::process::id()));
        std::fs::write(&path, [7; 32]).unwrap();
        path
    })
}

pub fn feed(mut command: Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(io::Write::write_all(&mut pipe, &input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
