//! Repositories on an SSH server: a real one, in a temporary folder on a port of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use restow::store::sftp::{Server, SftpStore};
use restow::store::{Store, StoreError, suite};

use crate::support::*;

/// A running server with keys of its own. Ends with this value.
struct Sshd {
    folder: tempfile::TempDir,
    process: Child,
}

impl Sshd {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for name in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &path(name)]);
            assert!(keygen.status().expect("ssh-keygen is missing").success());
        }
        let public = std::fs::read_to_string(folder.path().join("host.pub")).unwrap();
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        std::fs::write(path("known"), format!("[127.0.0.1]:{port} {public}")).unwrap();
        let server = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\nMaxStartups 100\n",
            path("host"),
            path("user.pub")
        );
        std::fs::write(path("sshd_config"), server).unwrap();
        let client = format!(
            "Host box\n HostName 127.0.0.1\n Port {port}\n IdentityFile {}\n IdentitiesOnly yes\n\
             UserKnownHostsFile {}\n GlobalKnownHostsFile none\n StrictHostKeyChecking yes\n",
            path("user"),
            path("known")
        );
        std::fs::write(path("ssh_config"), client).unwrap();
        if rustix::process::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let sshd =
            ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|sshd| Path::new(sshd).exists());
        let mut command = Command::new(sshd.expect("sshd is missing; tests/run installs it"));
        command.args(["-D", "-e", "-f", &path("sshd_config")]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        Self { folder, process }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The ssh that knows this server by the name `box`.
    fn rsh(&self) -> String {
        format!("ssh -F {}", self.path("ssh_config").display())
    }

    fn store(&self, name: &str) -> SftpStore {
        let store = SftpStore::open(Server {
            host: "box".into(),
            port: None,
            user: None,
            path: self.path(name).display().to_string(),
            program: self.rsh().split(' ').map(str::to_owned).collect(),
            location: "sftp://box".into(),
        });
        let store = store.unwrap();
        store.create_folder().unwrap();
        store
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_real_sftp_server_keeps_the_contract() {
    let server = Sshd::start();
    let count = AtomicU32::new(0);
    suite::conformance(&|| {
        Box::new(server.store(&format!("s{}", count.fetch_add(1, Ordering::SeqCst))))
    });
}

#[test]
fn racing_connections_have_one_winner() {
    let server = Sshd::start();
    let stores: Vec<_> = (0..8).map(|_| server.store("shared")).collect();
    for round in 0..4 {
        let path = format!("log/{round}");
        let barrier = std::sync::Barrier::new(stores.len());
        let won = std::thread::scope(|scope| {
            let threads: Vec<_> = stores
                .iter()
                .enumerate()
                .map(|(number, store)| {
                    let (path, barrier) = (&path, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        store.put_new(path, &[number as u8; 50])
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(won.iter().filter(|result| result.is_ok()).count(), 1, "{won:?}");
        let lost = |error: &StoreError| matches!(error, StoreError::AlreadyExists { .. });
        assert!(won.iter().filter_map(|result| result.as_ref().err()).all(lost), "{won:?}");
    }
    assert_eq!(std::fs::read_dir(server.path("shared/log")).unwrap().count(), 4, "no temporaries");
}

#[test]
fn a_line_that_breaks_is_made_again() {
    let server = Sshd::start();
    let store = server.store("broken");
    store.put_new("data/aa/x", b"1").unwrap();
    // Whoever serves this connection is a child of the server.
    let mut pkill = Command::new("pkill");
    pkill.args(["-KILL", "-P", &server.process.id().to_string()]);
    assert!(pkill.status().unwrap().success());
    assert!(matches!(store.get("data/aa/x"), Err(error) if error.passes()));
    assert_eq!(store.get("data/aa/x").unwrap(), b"1");
}

#[test]
fn an_ssh_server_holds_a_repository() {
    let server = Sshd::start();
    let program = Program::new();
    let url = format!("sftp://box{}", server.path("repository").display());
    let command = |url: &str, arguments: &[&str]| {
        let mut command = program.command(arguments);
        command.env("RESTOW_REPOSITORY", url).env("RESTOW_RSH", server.rsh());
        command
    };
    let ok = |arguments: &[&str], input: &[u8]| {
        let output = feed(command(&url, arguments), input);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        output.stdout
    };
    ok(&["init"], b"");
    let days: Vec<_> = (0..2).map(|day| changed_rows(1, 20_000, day, 50)).collect();
    for day in &days {
        ok(&["backup", "--stdin", "--stdin-filename", "shop.sql"], day);
    }
    ok(&["forget", "--keep-last", "1", "--prune", "--grace", "0"], b"");
    ok(&["check", "--read-data"], b"");
    ok(&["cache", "--forget"], b"");
    assert!(ok(&["dump", "latest", "shop.sql"], b"") == days[1]);
    let fails = |url: &str, rsh: String, code, expected: &str| {
        let mut command = command(url, &["snapshots"]);
        command.env("RESTOW_RSH", rsh);
        let output = feed(command, b"");
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(expected), "{said}");
    };
    fails("sftp://box/nowhere", server.rsh(), 10, "no repository at sftp://box/nowhere");
    fails("sftp://no-such-user@box/x", server.rsh(), 1, "Permission denied");
    fails("sftp://box/x", "no-such-program".into(), 1, "start no-such-program");
    fails("sftp://user:secret@box/x", server.rsh(), 2, "holds a password");
    fails("sftp://box", server.rsh(), 2, "no folder");
    let arc: Arc<dyn Store> = Arc::new(server.store("repository"));
    assert!(arc.list("log/").unwrap().len() > 3);
}
