//! A MariaDB server in a temporary folder, for the tests that need a real one.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use restow::store::pause::{Patience, Pause};

use crate::postgres::succeeded;
use crate::support::*;

/// A running server with its binary log on. Its `root` needs no password.
pub struct MariaDb {
    folder: tempfile::TempDir,
    server: Child,
}

impl MariaDb {
    /// Starts one. `tests/run` installs it.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("my").tempdir_in("/tmp").unwrap();
        if rustix::process::geteuid().is_root() {
            // The server refuses to run as root.
            let owned = Command::new("chown").arg("mysql").arg(folder.path()).status();
            assert!(owned.unwrap().success());
        }
        let data = format!("--datadir={}", folder.path().join("data").display());
        let mut install = as_owner("/usr/bin/mariadb-install-db");
        // A server that starts removes temporary tables of others from a folder that they share.
        install.env("TMPDIR", folder.path());
        install.args(["--no-defaults", &data, "--auth-root-authentication-method=normal"]);
        // Little is written, and nothing waits for the disk: most of the time of a test would go there.
        let quick = [
            "--loose-debug-no-sync",
            "--loose-innodb-flush-method=nosync",
            "--innodb-log-file-size=8M",
        ];
        install.arg("--skip-test-db").args(quick);
        succeeded(install);
        let mut server = as_owner("/usr/sbin/mariadbd");
        server.env("TMPDIR", folder.path());
        server.args(["--no-defaults", &data, "--skip-networking", "--log-bin=binlog"]);
        server.args(["--server-id=1", "--innodb-flush-log-at-trx-commit=0"]);
        server.args(["--innodb-buffer-pool-size=32M", "--character-set-server=utf8mb4"]);
        server.arg(format!("--socket={}", folder.path().join("socket").display()));
        server.arg(format!("--pid-file={}", folder.path().join("pid").display()));
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        server.args(quick).stdout(Stdio::null()).stderr(log);
        let server = server.spawn().unwrap();
        let server = Self { folder, server };
        let waiter = Patience::new(|| false);
        for _ in 0..600 {
            if server.client().args(["-e", "SELECT 1"]).output().unwrap().status.success() {
                return server;
            }
            waiter.pause(std::time::Duration::from_millis(50));
        }
        panic!("MariaDB does not start");
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn client(&self) -> Command {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "-uroot", "--default-character-set=utf8mb4"]);
        command.arg(format!("--socket={}", self.socket().display()));
        command
    }

    /// The address of a database, or of the server where it is empty, as `root`.
    pub fn dsn(&self, database: &str) -> String {
        self.dsn_as("root", database)
    }

    /// The same as another user, or a user and a password.
    pub fn dsn_as(&self, user: &str, database: &str) -> String {
        let socket = self.socket().display().to_string().replace('/', "%2F");
        format!("mysql://{user}@localhost/{database}?socket={socket}")
    }

    /// Runs SQL that must succeed and gives its rows, tabs between columns.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut command = self.client();
        command.args(["--batch", "--raw", "--skip-column-names"]);
        if !database.is_empty() {
            command.arg(format!("--database={database}"));
        }
        let output = feed(command, sql.as_bytes());
        assert!(output.status.success(), "{sql}: {}", text(&output.stderr));
        text(&output.stdout).trim_end().to_owned()
    }

    /// A dump of a database, without what names the server and the moment.
    pub fn dump(&self, database: &str) -> String {
        let mut command = Command::new("mariadb-dump");
        command.args(["--no-defaults", "-uroot", "--skip-dump-date", "--order-by-primary"]);
        command.arg(format!("--socket={}", self.socket().display()));
        command.args(["--hex-blob", "--routines", "--events", "--triggers", database]);
        let text = text(&succeeded(command).stdout);
        let is_name = |line: &&str| line.starts_with("-- ") || line.starts_with("ALTER DATABASE");
        text.lines().filter(|line| !is_name(line)).map(|line| format!("{line}\n")).collect()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("the server said:\n{log}");
        }
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

fn as_owner(program: &str) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=mysql", "--regid=mysql", "--clear-groups"]).arg(program);
    command
}

/// Makes a program out of lines of shell.
pub fn script(path: &Path, lines: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
