//! Repositories in buckets: against a real S3 server, and against one that does wrong.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use restow::check::{ReadData, run as check};
use restow::clock::SystemClock;
use restow::entropy::OsEntropy;
use restow::forget::forget;
use restow::format::log::{EntryKind, LogEntry};
use restow::progress::Progress;
use restow::repository::snapshots::Filter;
use restow::repository::{InitOptions, Repository};
use restow::store::cache::CacheStore;
use restow::store::memory::MemoryStore;
use restow::store::pause::Pause;
use restow::store::record::{Call, RecordingStore};
use restow::store::retry::RetryStore;
use restow::store::{ObjectInfo, Store, StoreError, suite};

use crate::liar::{Liar, Lie};
use crate::prune::prune;
use crate::seaweed::{BUCKET, Seaweed};
use crate::support::*;

/// A prefix that no other test has.
fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t{}", COUNT.fetch_add(1, Ordering::SeqCst))
}

/// The program with a repository in a bucket.
struct Remote {
    server: Arc<Seaweed>,
    program: Program,
    prefix: String,
}

impl Remote {
    fn new(server: Arc<Seaweed>) -> Self {
        let remote = Self { server, program: Program::new(), prefix: prefix() };
        remote.ok(&["init"], b"");
        remote
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program.command(arguments);
        self.server.address(&mut command, &self.prefix);
        command
    }

    fn ok(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = feed(self.command(arguments), input);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        output.stdout
    }

    fn fails(&self, command: Command, code: i32) -> String {
        let output = feed(command, b"");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(!said.contains("panicked") && !said.contains("test-secret"), "{said}");
        said
    }
}

const BACKUP: [&str; 4] = ["backup", "--stdin", "--stdin-filename", "shop.sql"];

#[test]
fn a_real_s3_keeps_the_contract() {
    let server = Seaweed::shared();
    suite::conformance(&|| Box::new(server.store(&prefix())));
}

#[test]
fn a_bucket_goes_through_the_whole_life_of_a_repository() {
    let remote = Remote::new(Seaweed::shared());
    let days: Vec<_> = (0..3).map(|day| changed_rows(1, 20_000, day, 50)).collect();
    for day in &days {
        remote.ok(&BACKUP, day);
    }
    for (number, day) in days.iter().enumerate() {
        let listed = text(&remote.ok(&["snapshots", "--json"], b""));
        let line: serde_json::Value =
            serde_json::from_str(listed.lines().nth(number).unwrap()).unwrap();
        let id = line["id"].as_str().unwrap();
        assert!(remote.ok(&["dump", id, "shop.sql"], b"") == *day, "day {number}");
    }
    // Bases came from what this machine kept of the packs it put.
    let stats: serde_json::Value =
        serde_json::from_slice(&remote.ok(&["stats", "--json"], b"")).unwrap();
    assert!(stats["delta"]["chunks"].as_u64() > Some(0), "{stats}");
    remote.ok(&["forget", "--keep-last", "1", "--prune", "--grace", "0"], b"");
    remote.ok(&["check", "--read-data"], b"");
    assert!(remote.ok(&["--no-cache", "dump", "latest", "shop.sql"], b"") == days[2]);
    remote.ok(&["cache", "--forget"], b"");
    let target = remote.program.path("out");
    remote.ok(&["restore", "latest", "--target", target.to_str().unwrap()], b"");
    assert!(std::fs::read(target.join("shop.sql")).unwrap() == days[2]);
}

#[test]
fn four_writers_share_a_bucket() {
    let server = Seaweed::shared();
    let prefix = prefix();
    init(Arc::new(server.store(&prefix))).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let store = Arc::new(server.store(&prefix));
            scope.spawn(move || {
                let repository = open(store).unwrap();
                for day in 0..3 {
                    back_up(&repository, &rows(writer * 10 + day, 500)).unwrap();
                    repository.commit(&mut || Ok(LogEntry::new(EntryKind::Noop))).unwrap();
                }
            });
        }
    });
    let repository = open(Arc::new(server.store(&prefix))).unwrap();
    assert_eq!(contents(&repository).unwrap().len(), 12);
    let report = check(&repository, ReadData::All, &Progress::default()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn a_backup_costs_a_put_for_16_mb_and_one_listing() {
    let recorded = Arc::new(RecordingStore::new(MemoryStore::new()));
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let store = CacheStore::open(recorded.clone(), &kept, 1 << 30, Arc::new(SystemClock)).unwrap();
    let store = Arc::new(store);
    let mut environment = environment(Arc::new(OsEntropy));
    environment.cache = Some(folder.path().to_owned());
    let options = InitOptions::default();
    Repository::init(store.clone(), &secret(), &options, environment.clone()).unwrap();
    // The first time here finds out which slot the key opens.
    Repository::open(store.clone(), &secret(), environment.clone()).unwrap();
    for day in 0..2 {
        recorded.take();
        let repository = Repository::open(store.clone(), &secret(), environment.clone()).unwrap();
        back_up(&repository, &random_bytes(day, 100_000_000)).unwrap();
        let calls = recorded.take();
        let put = |call: &Call| match call {
            Call::Put(_, size) => Some(*size),
            _ => None,
        };
        let sizes: Vec<usize> = calls.iter().filter_map(put).collect();
        let allowed = sizes.iter().sum::<usize>() / 16_000_000 + 4;
        assert!(sizes.len() <= allowed, "{} puts of {sizes:?}", sizes.len());
        let listings: Vec<_> = calls.iter().filter(|call| matches!(call, Call::List(_))).collect();
        assert_eq!(listings, [&Call::List("log/".into())]);
        assert!(calls.len() - sizes.len() <= 12, "{calls:?}");
    }
}

#[test]
fn wrong_places_and_secrets_give_one_clear_error() {
    let remote = Remote::new(Seaweed::shared());
    let with = |name: &str, value: &str| {
        let mut command = remote.command(&["snapshots"]);
        command.env(name, value);
        command
    };
    let endpoint = remote.server.endpoint();
    let repository = |url: String| with("RESTOW_REPOSITORY", &url);
    for (command, code, expected) in [
        (with("AWS_SECRET_ACCESS_KEY", "wrong"), 1, "SignatureDoesNotMatch"),
        (with("AWS_ACCESS_KEY_ID", "wrong"), 1, "InvalidAccessKeyId"),
        (with("AWS_ACCESS_KEY_ID", ""), 2, "AWS_ACCESS_KEY_ID is not set"),
        (repository(format!("s3://nowhere/x?endpoint={endpoint}")), 1, "NoSuchBucket"),
        (repository(format!("s3://{BUCKET}/none?endpoint={endpoint}")), 10, "no repository at s3"),
        (repository(format!("s3://{BUCKET}/x?endpoint=http://127.0.0.1:1")), 1, "refused"),
        (repository(format!("s3://{BUCKET}/x?endpoint=ftp://a")), 2, "the endpoint is no address"),
        (repository(format!("s3://{BUCKET}/x?secret=test-secret")), 2, "not 'secret'"),
        (repository("s3://user:test-secret@bucket/x".into()), 2, "holds a password"),
        (repository("s3:///x".into()), 2, "no bucket"),
        (repository("dav://x/y".into()), 2, "s3://"),
    ] {
        let said = remote.fails(command, code);
        assert!(said.contains(expected), "{expected}: {said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("restow: ")).count(), 1, "{said}");
    }
    let mut keyless = with("AWS_SECRET_ACCESS_KEY", "");
    keyless.env("AWS_ACCESS_KEY_ID", "");
    assert!(remote.fails(keyless, 2).contains("no credentials"));
}

#[test]
fn credentials_come_from_profiles_too() {
    let remote = Remote::new(Seaweed::shared());
    let file = remote.program.path("credentials");
    let text = "[default]\naws_access_key_id = x\naws_secret_access_key = y\n\n[off-site]\n\
                aws_access_key_id = test-key\naws_secret_access_key = test-secret\n";
    std::fs::write(&file, text).unwrap();
    let command = |profile: Option<&str>| {
        let mut command = remote.command(&["snapshots"]);
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command.env("AWS_SHARED_CREDENTIALS_FILE", &file);
        profile.map(|profile| command.env("AWS_PROFILE", profile));
        command
    };
    assert!(feed(command(Some("off-site")), b"").status.success());
    assert!(remote.fails(command(None), 1).contains("InvalidAccessKeyId"));
    assert!(remote.fails(command(Some("none")), 2).contains("no profile 'none'"));
    std::fs::write(&file, "[off-site]\ncredential_process = /bin/x\n").unwrap();
    assert!(remote.fails(command(Some("off-site")), 2).contains("credential_process"));
}

#[test]
fn a_server_that_dies_during_a_backup_leaves_no_damage() {
    let server = Arc::new(Seaweed::start());
    let remote = Remote::new(server.clone());
    let first = rows(1, 10_000);
    remote.ok(&BACKUP, &first);
    // The server dies between two halves of the stream; Ctrl-C ends the waiting for it.
    let mut command = remote.command(&BACKUP);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let data = random_bytes(5, 80_000_000);
    std::io::Write::write_all(&mut pipe, &data[..40_000_000]).unwrap();
    server.kill();
    std::io::Write::write_all(&mut pipe, &data[40_000_000..]).ok();
    drop(pipe);
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(1 | 130)), "{output:?}");
    server.restart();
    // It answers before it is ready.
    let is_ready = || feed(remote.command(&["snapshots"]), b"").status.success();
    assert!((0..20).any(|_| is_ready()), "the server does not come back");
    remote.ok(&["check"], b"");
    assert!(remote.ok(&["dump", "latest", "shop.sql"], b"") == first);
    remote.ok(&BACKUP, &data);
    remote.ok(&["check", "--read-data"], b"");
    assert!(remote.ok(&["dump", "latest", "shop.sql"], b"") == data);
}

#[test]
fn a_server_that_never_answers_is_an_error_soon() {
    let program = Program::new();
    let mut command = program.command(&["snapshots"]);
    command.env("RESTOW_REPOSITORY", "s3://x/y?endpoint=http://127.0.0.1:1");
    command.env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", "y");
    let output = feed(command, b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("s3://x/y"), "{}", text(&output.stderr));
}

/// Waits that pass at once.
#[derive(Default)]
struct NoTime(AtomicU32);

impl Pause for NoTime {
    fn pause(&self, _time: Duration) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst);
        true
    }
    fn elapsed(&self) -> Duration {
        Duration::from_secs(u64::from(self.0.load(Ordering::SeqCst)) / 10)
    }
}

fn patient(liar: &Liar) -> impl Store + use<> {
    RetryStore::new(liar.store(), NoTime::default(), Arc::new(OsEntropy))
}

#[test]
fn lies_about_puts_are_certain_or_unknown_as_they_should() {
    let unknown = [
        Lie::Refuse(500, "InternalError"),
        Lie::Refuse(503, "SlowDown"),
        Lie::Refuse(409, "ConditionalRequestConflict"),
        Lie::DoAndHangUp,
        Lie::HangUp,
        Lie::Silence,
    ];
    for lie in unknown {
        let liar = Liar::start();
        liar.will(&[lie]);
        let result = liar.store().put_new("log/1", b"x");
        assert!(matches!(result, Err(StoreError::Unknown { .. })), "{lie:?}: {result:?}");
        assert_eq!(liar.seen.lock().unwrap().len(), 1, "{lie:?} was sent again in secret");
    }
    let liar = Liar::start();
    liar.will(&[Lie::Refuse(403, "AccessDenied"), Lie::Refuse(429, "TooManyRequests")]);
    let store = liar.store();
    assert!(matches!(store.put_new("log/1", b"x"), Err(StoreError::Denied { .. })));
    assert!(matches!(store.put_new("log/1", b"x"), Err(StoreError::Failed { .. })));
    store.put_new("log/1", b"x").unwrap();
    assert!(matches!(store.put_new("log/1", b"x"), Err(StoreError::AlreadyExists { .. })));
}

#[test]
fn reads_survive_what_passes() {
    let liar = Liar::start();
    let store = patient(&liar);
    store.put_new("data/aa/x", &[7; 1000]).unwrap();
    for lie in [Lie::HalfABody, Lie::HangUp, Lie::Silence, Lie::Refuse(503, "SlowDown")] {
        liar.will(&[lie, lie]);
        assert_eq!(store.get("data/aa/x").unwrap(), [7; 1000], "{lie:?}");
        liar.will(&[lie]);
        assert_eq!(store.get_range("data/aa/x", 10, 500).unwrap(), [7; 500], "{lie:?}");
    }
    liar.will(&[Lie::HalfABody]);
    let result = liar.store().get("data/aa/x");
    assert!(
        matches!(&result, Err(error @ StoreError::Failed { .. }) if error.passes()),
        "{result:?}"
    );
}

#[test]
fn what_a_retention_lock_keeps_is_denied() {
    let liar = Liar::start();
    let store = patient(&liar);
    store.put_new("data/aa/x", b"x").unwrap();
    // The first answer is to the question whether it is there.
    liar.will(&[Lie::DoAndSay(200, ""), Lie::Refuse(403, "AccessDenied")]);
    assert!(matches!(store.delete("data/aa/x"), Err(StoreError::Denied { .. })));
    store.delete("data/aa/x").unwrap();
}

#[test]
fn commits_come_through_lost_replies() {
    for lie in [
        Lie::DoAndHangUp,
        Lie::HangUp,
        Lie::DoAndSay(500, "InternalError"),
        Lie::Refuse(409, "ConditionalRequestConflict"),
        Lie::DoAndSay(409, "ConditionalRequestConflict"),
    ] {
        let liar = Liar::start();
        let store: Arc<dyn Store> = Arc::new(patient(&liar));
        store.put_new("log/1", b"theirs").unwrap();
        liar.will(&[lie]);
        // Whoever finds the name taken compares: here it is his own.
        match store.put_new("log/2", b"mine") {
            Ok(()) => {}
            Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => panic!("{lie:?}: {error}"),
        }
        assert_eq!(store.get("log/2").unwrap(), b"mine");
    }
}

/// Keeps what is below `data/`, as a bucket with a retention lock does.
struct Locked {
    inner: Arc<MemoryStore>,
    is_locked: AtomicBool,
}

impl Store for Locked {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.put_new(path, bytes)
    }
    fn get(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.inner.get(path)
    }
    fn get_range(&self, path: &str, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        self.inner.get_range(path, offset, length)
    }
    fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.inner.head(path)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.inner.list(prefix)
    }
    fn delete(&self, path: &str) -> Result<(), StoreError> {
        if self.is_locked.load(Ordering::SeqCst) {
            let (path, source) = (path.to_owned(), std::io::ErrorKind::PermissionDenied.into());
            return Err(StoreError::Denied { action: "delete", path, source });
        }
        self.inner.delete(path)
    }
    fn location(&self) -> String {
        "locked".into()
    }
}

#[test]
fn what_a_lock_keeps_is_deleted_by_a_later_prune() {
    let (inner, _) = prepared();
    let store = Arc::new(Locked { inner, is_locked: AtomicBool::new(true) });
    let repository = open(store.clone()).unwrap();
    let all = repository.snapshots(&Filter::default()).unwrap();
    let others = all.iter().skip(1).map(|named| named.name).collect();
    forget(&repository, &others, false).unwrap();
    let first = prune(&repository).unwrap();
    assert!(first.deleted == 0 && !first.problems.is_empty(), "{first:?}");
    store.is_locked.store(false, Ordering::SeqCst);
    let later = prune(&open(store).unwrap()).unwrap();
    assert!(later.deleted as usize >= first.problems.len(), "{later:?}");
    assert!(later.problems.is_empty());
}
