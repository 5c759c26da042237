//! The mounted file system: its logic without FUSE, and the real mount where the machine has FUSE.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use restow::format::entry::Kind;
use restow::mount::fs::{MountFs, ROOT};
use restow::repository::Repository;
use restow::repository::snapshots::Filter;
use restow::store::memory::MemoryStore;
use restow::store::record::{Call, RecordingStore};

use crate::files::{every_kind, picture};
use crate::postgres::{Postgres, succeeded};
use crate::support::*;

fn names(fs: &MountFs<'_>, number: u64) -> Vec<String> {
    let children = fs.list(number).unwrap();
    children.into_iter().map(|child| text(&child.name)).collect()
}

/// The number at a path of names.
fn walk(fs: &MountFs<'_>, path: &[&str]) -> u64 {
    path.iter().fold(ROOT, |number, name| {
        let found = fs.look_up(number, name.as_bytes()).unwrap();
        found.unwrap_or_else(|| panic!("no {name} of {path:?}")).number
    })
}

fn read_range(fs: &MountFs<'_>, number: u64, offset: u64, length: usize) -> Vec<u8> {
    let entry = fs.attributes(number).unwrap().unwrap().entry;
    let Kind::File { size, content } = entry.kind else { panic!("{entry:?} is no file") };
    fs.contents().read(size, &content, offset, length, false).unwrap()
}

fn with_streams(repository: &Repository, streams: &[(&str, &[u8])]) {
    let streams = streams.iter().map(|(name, bytes)| source(name, bytes)).collect();
    let mut options = options(streams);
    options.tags = vec!["nightly".to_owned()];
    restow::backup::run(repository, options, &Default::default()).unwrap();
}

#[test]
fn snapshots_stand_under_time_id_host_and_tag() {
    let repository = init(Arc::new(MemoryStore::new())).unwrap();
    with_streams(&repository, &[("a/b/c.sql", b"deep"), ("a/d.sql", b"flat"), ("top", b"top")]);
    with_streams(&repository, &[("top", b"newer")]);
    let fs = MountFs::new(&repository, Filter::default(), 1 << 20);
    assert_eq!(names(&fs, ROOT), ["hosts", "ids", "snapshots", "tags", "latest"]);
    let times = names(&fs, walk(&fs, &["snapshots"]));
    assert_eq!(times.len(), 2);
    assert_eq!(names(&fs, walk(&fs, &["tags", "nightly"])), times);
    assert_eq!(names(&fs, walk(&fs, &["hosts", "host"])), times);
    assert_eq!(names(&fs, walk(&fs, &["ids"])).len(), 2);
    let latest = fs.attributes(walk(&fs, &["latest"])).unwrap().unwrap();
    let expected = format!("snapshots/{}", times[1]);
    assert!(
        matches!(&latest.entry.kind, Kind::Symlink { target } if *target == expected.as_bytes())
    );
    let snapshot = ["snapshots", &times[0]];
    assert_eq!(names(&fs, walk(&fs, &snapshot)), ["a", "top"]);
    assert_eq!(names(&fs, walk(&fs, &[&snapshot[..], &["a"]].concat())), ["b", "d.sql"]);
    let file = walk(&fs, &[&snapshot[..], &["a", "b", "c.sql"]].concat());
    assert_eq!(read_range(&fs, file, 1, 100), b"eep");
    assert_eq!(read_range(&fs, file, 4, 100), b"");
    assert!(fs.look_up(walk(&fs, &snapshot), b"none").unwrap().is_none());
    // What the kernel forgets is forgotten; what it asks for again is found again.
    fs.forget(file, 100);
    assert!(fs.attributes(file).unwrap().is_none());
    walk(&fs, &[&snapshot[..], &["a", "b", "c.sql"]].concat());
}

#[test]
fn a_range_reads_only_the_chunks_it_needs() {
    let store = Arc::new(RecordingStore::new(MemoryStore::new()));
    let repository = init(store.clone()).unwrap();
    let mut bytes = rows(1, 30_000);
    bytes.extend([0; 100_000]);
    bytes.extend(rows(2, 5000));
    with_streams(&repository, &[("s", &bytes)]);
    let fs = MountFs::new(&repository, Filter::default(), 1 << 16);
    let times = names(&fs, walk(&fs, &["snapshots"]));
    let file = walk(&fs, &["snapshots", &times[0], "s"]);
    read_range(&fs, file, 0, 1);
    for number in 0..200 {
        let offset = noise(number) as usize % bytes.len();
        let length = noise(number + 1000) as usize % 20_000;
        let end = bytes.len().min(offset + length);
        store.take();
        assert_eq!(read_range(&fs, file, offset as u64, length), bytes[offset..end], "{offset}");
        let fetched = store.take().into_iter().filter(|call| matches!(call, Call::GetRange(..)));
        assert!(fetched.count() <= length / 256 + 3);
    }
}

struct Mounted {
    process: Child,
    place: PathBuf,
}

impl Mounted {
    /// Mounts, or says why this machine cannot.
    fn new(program: &Program) -> Option<Self> {
        if std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
            eprintln!("this machine has no /dev/fuse for us: the real mount is not tested");
            return None;
        }
        let place = program.path("mnt");
        std::fs::create_dir(&place).unwrap();
        let mut command = program.command(&["mount", place.to_str().unwrap()]);
        let process = command.stdout(Stdio::null()).spawn().unwrap();
        let mounted = Self { process, place };
        let started = Instant::now();
        while !mounted.place.join("snapshots").exists() {
            assert!(started.elapsed() < Duration::from_secs(20), "not mounted in time");
            std::thread::yield_now();
        }
        Some(mounted)
    }

    fn end(mut self) {
        let process = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
        assert!(self.process.wait().unwrap().success());
        assert!(!self.place.join("snapshots").exists(), "still mounted");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.place).output();
    }
}

#[test]
fn a_mounted_snapshot_is_what_was_backed_up() {
    let program = Program::initialized();
    let source = program.path("source");
    std::fs::create_dir(&source).unwrap();
    every_kind(&source);
    let database = source.join("db.sqlite");
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.execute_batch("CREATE TABLE t(n); INSERT INTO t VALUES(1), (2), (39);").unwrap();
    drop(connection);
    program.ok(&["backup", source.to_str().unwrap()], b"");
    let Some(mounted) = Mounted::new(&program) else { return };
    let inside = mounted.place.join("latest").join(source.strip_prefix("/").unwrap());
    let (mut seen, mut expected) = (picture(&inside), picture(&source));
    // The top is compared by what it holds: its own directory is the test's.
    seen.remove(std::path::Path::new(""));
    expected.remove(std::path::Path::new(""));
    assert_eq!(seen, expected);
    let uri = format!("file:{}?immutable=1", inside.join("db.sqlite").display());
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
    let connection = rusqlite::Connection::open_with_flags(uri, flags).unwrap();
    let sum: i64 = connection.query_row("SELECT sum(n) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(sum, 42);
    drop(connection);
    assert!(std::fs::write(inside.join("new"), b"x").is_err());
    mounted.end();
}

#[test]
fn one_table_comes_back_from_a_mounted_dump() {
    let program = Program::initialized();
    let server = Postgres::start();
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql(
        "shop",
        "CREATE TABLE customers AS SELECT n AS id, md5(n::text) AS name FROM generate_series(1, 5000) n;
         CREATE TABLE orders AS SELECT n AS id, repeat(md5(n::text), 9) AS note FROM generate_series(1, 20000) n",
    );
    let mut dump = server.client("pg_dump");
    dump.args(["-Fc", "-Z0", "shop"]);
    program.backup("shop.pg", &succeeded(dump).stdout);
    let sum = "SELECT count(*), sum(id), md5(string_agg(name, ',' ORDER BY id)) FROM customers";
    let expected = server.sql("shop", sum);
    let Some(mounted) = Mounted::new(&program) else { return };
    server.sql("postgres", "CREATE DATABASE rescue");
    let mut restore = server.client("pg_restore");
    restore.args(["-d", "rescue", "-t", "customers"]).arg(mounted.place.join("latest/shop.pg"));
    succeeded(restore);
    assert_eq!(server.sql("rescue", sum), expected);
    assert_eq!(server.sql("rescue", "SELECT to_regclass('orders') IS NULL"), "t");
    mounted.end();
}

#[test]
fn new_snapshots_appear_and_a_mount_in_use_can_be_ended() {
    let program = Program::initialized();
    program.backup("x", b"monday");
    let Some(mut mounted) = Mounted::new(&program) else { return };
    let latest = mounted.place.join("latest/x");
    assert_eq!(std::fs::read(&latest).unwrap(), b"monday");
    program.backup("x", b"tuesday");
    let started = Instant::now();
    while std::fs::read(&latest).unwrap() != b"tuesday" {
        assert!(started.elapsed() < Duration::from_secs(20), "the new snapshot does not appear");
        std::thread::yield_now();
    }
    // Somebody works inside.
    let open = std::fs::File::open(&latest).unwrap();
    let process = rustix::process::Pid::from_child(&mounted.process);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert!(mounted.process.wait().unwrap().success());
    assert!(std::fs::read_dir(&mounted.place).unwrap().next().is_none(), "still mounted");
    drop(open);
}

#[test]
fn a_damaged_chunk_spoils_its_range_alone() {
    let program = Program::initialized();
    let bytes = random_bytes(3, 6 << 20);
    program.backup("big", &bytes);
    // The biggest pack holds the data.
    let packs = program.objects("data");
    let pack = packs.iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(pack).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 3 << 20).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 3 << 20).unwrap();
    let Some(mounted) = Mounted::new(&program) else { return };
    let file = std::fs::File::open(mounted.place.join("latest/big")).unwrap();
    let (mut good, mut bad) = (0, 0);
    let mut page = [0; 4096];
    for at in (0..bytes.len()).step_by(4096) {
        match file.read_exact_at(&mut page, at as u64) {
            Ok(()) => {
                assert!(page[..] == bytes[at..at + 4096], "wrong bytes at {at}");
                good += 1;
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(5), "{error}");
                bad += 1;
            }
        }
    }
    assert!(bad >= 1 && good > bad, "{good} good, {bad} bad");
    drop(file);
    mounted.end();
}
