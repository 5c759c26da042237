//! Containers of Azure, as far as its emulator goes. The one of Google that can be had without a
//! container of its own knows no conditional put of the kind that its own clients use.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use restow::store::object::{Bucket, BucketStore, Service};
use restow::store::suite;

/// The account that Azurite knows, from its manual.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A server that ends with this value.
struct Emulator {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Emulator {
    fn start(program: &str, arguments: impl Fn(u16, &str) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut command = Command::new(tool(program));
        command.args(arguments(port, folder.path().to_str().unwrap()));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().expect("tests/run installs the emulators");
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "{program} ended");
            std::thread::yield_now();
        }
        Self { process, port, _folder: folder }
    }

    fn store(&self, endpoint: String, options: &[(&str, &str)]) -> BucketStore {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        BucketStore::open(&Bucket {
            service: Service::Azure,
            name: "restow".into(),
            prefix: format!("p{}", COUNT.fetch_add(1, Ordering::SeqCst)),
            options: options.collect(),
            endpoint: Some(endpoint),
            virtual_host: None,
            silence: Bucket::SILENCE,
            location: "emulator".into(),
        })
        .unwrap()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where `tests/run` puts programs.
fn tool(name: &str) -> PathBuf {
    let tools = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../tools");
    let installed = tools.join("node_modules/.bin").join(name);
    if installed.exists() { installed } else { name.into() }
}

#[test]
fn azure_keeps_the_contract() {
    let server = Emulator::start("azurite-blob", |port, folder| {
        let port = port.to_string();
        let words = ["--blobHost", "127.0.0.1", "--blobPort", &port, "--silent", "--loose"];
        let words = words.iter().map(|word| word.to_string());
        words.chain(["--skipApiVersionCheck".into(), "--location".into(), folder.into()]).collect()
    });
    let endpoint = format!("http://127.0.0.1:{}/{ACCOUNT}", server.port);
    let options =
        [("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT), ("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY)];
    make_container(&server);
    suite::conformance(&|| Box::new(server.store(endpoint.clone(), &options)));
}

/// Containers are made by a signed request, which needs a SHA-256: Python has one.
fn make_container(server: &Emulator) {
    let script = format!(
        r#"
import base64, hashlib, hmac, email.utils, http.client
date = email.utils.formatdate(usegmt=True)
text = "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:" + date + "\nx-ms-version:2021-08-06\n/{ACCOUNT}/{ACCOUNT}/restow\nrestype:container"
key = base64.b64decode("{ACCOUNT_KEY}")
sign = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
line = http.client.HTTPConnection("127.0.0.1", {port})
line.request("PUT", "/{ACCOUNT}/restow?restype=container", headers={{
    "x-ms-date": date, "x-ms-version": "2021-08-06", "Content-Length": "0",
    "Authorization": "SharedKey {ACCOUNT}:" + sign}})
answer = line.getresponse()
assert answer.status == 201, (answer.status, answer.read())
"#,
        port = server.port
    );
    let output = Command::new("python3").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
