//! A SeaweedFS server in a temporary folder: a real S3 for the tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

use restow::store::object::{Bucket, BucketStore, Service};

use crate::support::{feed, text};

/// A running server. Ends with the last test that uses it.
pub struct Seaweed {
    folder: tempfile::TempDir,
    process: Mutex<Child>,
    ports: Ports,
}

#[derive(Clone, Copy)]
struct Ports {
    s3: u16,
    master: u16,
    volume: u16,
    filer: u16,
}

/// What every test's bucket is in.
pub const BUCKET: &str = "restow";
const KEY: &str = "test-key";
const SECRET: &str = "test-secret";

impl Seaweed {
    /// The server that all tests share.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Seaweed>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|broken| broken.into_inner());
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// A server of one's own.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rights = r#"["Admin","Read","Write","List","Tagging"]"#;
        let config = format!(
            r#"{{"identities":[{{"name":"t","credentials":[{{"accessKey":"{KEY}","secretKey":"{SECRET}"}}],"actions":{rights}}}]}}"#
        );
        std::fs::write(folder.path().join("s3.json"), config).unwrap();
        let ports = Ports { s3: free(), master: free(), volume: free(), filer: free() };
        let process = Mutex::new(launch(&folder, ports));
        let server = Self { folder, process, ports };
        server.make_bucket();
        server
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Starts it again where it was.
    pub fn restart(&self) {
        *self.process.lock().unwrap() = launch(&self.folder, self.ports);
        self.make_bucket();
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.s3)
    }

    /// A place in the bucket.
    pub fn bucket(&self, prefix: &str) -> Bucket {
        let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Bucket {
            service: Service::S3,
            name: BUCKET.into(),
            prefix: prefix.into(),
            options: vec![
                option("AWS_ACCESS_KEY_ID", KEY),
                option("AWS_SECRET_ACCESS_KEY", SECRET),
            ],
            endpoint: Some(self.endpoint()),
            virtual_host: None,
            silence: Bucket::SILENCE,
            location: format!("s3://{BUCKET}/{prefix}"),
        }
    }

    pub fn store(&self, prefix: &str) -> BucketStore {
        BucketStore::open(&self.bucket(prefix)).unwrap()
    }

    /// Tells a program how to reach it, and nothing else of the kind.
    pub fn address(&self, command: &mut Command, prefix: &str) {
        let url = format!("s3://{BUCKET}/{prefix}?endpoint={}", self.endpoint());
        command.env("RESTOW_REPOSITORY", url);
        for name in ["AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE"] {
            command.env_remove(name);
        }
        let none = self.folder.path().join("none");
        command.env("AWS_SHARED_CREDENTIALS_FILE", &none).env("AWS_CONFIG_FILE", &none);
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
    }

    /// Makes the bucket, and with that waits until the server is at work.
    fn make_bucket(&self) {
        let mut said = String::new();
        for _ in 0..20 {
            let mut shell = Command::new("timeout");
            shell.arg("20").arg(weed()).arg("shell");
            for (name, port) in [("master", self.ports.master), ("filer", self.ports.filer)] {
                shell.arg(format!("-{name}=127.0.0.1:{port}.{}", grpc(port)));
            }
            let output = feed(shell, format!("s3.bucket.create -name {BUCKET}\n").as_bytes());
            said = text(&output.stdout) + &text(&output.stderr);
            if said.contains("created bucket") || said.contains("already exist") {
                return;
            }
        }
        panic!("no bucket: {said}");
    }
}

impl Drop for Seaweed {
    fn drop(&mut self) {
        let _ = self.process.lock().map(|mut process| {
            let _ = process.kill();
            let _ = process.wait();
        });
    }
}

fn launch(folder: &tempfile::TempDir, ports: Ports) -> Child {
    // It dies with this process, however that ends.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(weed()).args(["-logtostderr=true", "server", "-s3"]);
    command.arg(format!("-dir={}", folder.path().display()));
    command.arg(format!("-s3.config={}", folder.path().join("s3.json").display()));
    command.args([
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-volume.max=50",
        "-volume.minFreeSpace=16MiB",
    ]);
    command.args(["-master.volumeSizeLimitMB=256", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
    for (name, port) in [
        ("s3", ports.s3),
        ("master", ports.master),
        ("volume", ports.volume),
        ("filer", ports.filer),
    ] {
        command
            .arg(format!("-{name}.port={port}"))
            .arg(format!("-{name}.port.grpc={}", grpc(port)));
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let (sender, started) = std::sync::mpsc::channel();
    // Linux kills it with the thread that started it: this one lives as long as its log.
    std::thread::spawn(move || {
        let mut process = command.spawn().expect("setpriv is missing");
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let (mut line, mut said) = (String::new(), String::new());
        while !line.contains("Start Seaweed S3 API Server") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "weed ended: {said}");
            said.push_str(&line);
        }
        sender.send(process).unwrap();
        std::io::copy(&mut log, &mut std::io::sink())
    });
    let process = started.recv().expect("weed does not start; tests/run installs it");
    // The line is written just before the port is opened.
    while !answers(ports.s3) {
        std::thread::yield_now();
    }
    process
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.write_all(b"GET /status HTTP/1.0\r\n\r\n");
    stream.read(&mut [0]).is_ok_and(|count| count > 0)
}

/// Ports for its inner talk, out of the way of the others.
fn grpc(port: u16) -> u16 {
    if port > 50_000 { port - 10_000 } else { port + 10_000 }
}

fn free() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// The program: on the path, or where `tests/run` puts it.
fn weed() -> PathBuf {
    let installed = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../tools/bin/weed");
    if installed.exists() { installed } else { "weed".into() }
}
