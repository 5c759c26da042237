//! Drills on real servers: each way to fail is told apart, and nothing is left behind.

use std::path::PathBuf;

use crate::databases::{configure, shop};
use crate::postgres::Postgres;
use crate::support::*;

/// A program with a backup of `shop`, whose temporary files go into a folder of its own.
struct Drills {
    program: Program,
    server: Postgres,
    temporary: tempfile::TempDir,
}

impl Drills {
    fn new(server: Postgres) -> Self {
        let program = Program::initialized();
        let config = configure(&program, &server, "");
        program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
        // The socket of a scratch server needs a short path.
        let temporary = tempfile::Builder::new().prefix("d").tempdir_in("/tmp").unwrap();
        use std::os::unix::fs::PermissionsExt;
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(temporary.path(), open).unwrap();
        Self { program, server, temporary }
    }

    fn run(&self, drill: &str, arguments: &[&str]) -> (i32, String) {
        let (dsn, bin) = (self.server.dsn("shop"), self.server.bin().display());
        let path = self.program.path("drill.toml");
        let text_of = format!(
            "[source.shop]\ntype = \"postgres\"\ndsn = \"{dsn}\"\nbin_dir = \"{bin}\"\n\
             [drill.proof]\nsource = \"shop\"\n{drill}"
        );
        std::fs::write(&path, text_of).unwrap();
        let config = path.to_str().unwrap();
        let mut command = self
            .program
            .command(&[&["--config", config, "drill", "run", "proof"], arguments].concat());
        let output = command.env("TMPDIR", self.temporary.path()).output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains("panicked"), "{said}");
        self.is_clean();
        (output.status.code().unwrap(), said)
    }

    fn is_clean(&self) {
        let left: Vec<PathBuf> = std::fs::read_dir(self.temporary.path())
            .unwrap()
            .map(|it| it.unwrap().path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let place = self.temporary.path().to_str().unwrap();
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            assert!(!text(&line).contains(place), "{}", text(&line));
        }
    }

    fn reports(&self) -> String {
        text(&self.program.ok(&["drill", "list", "proof"], b""))
    }
}

fn bin(server: &Postgres) -> String {
    format!("bin_dir = \"{}\"\n", server.bin().display())
}

#[test]
fn a_good_drill_is_held_and_its_report_kept_signed() {
    for version in [15, 18] {
        let drills = Drills::new(shop(version));
        let (code, said) = drills.run(
            &format!(
                "rto = \"10m\"\nrpo = \"9999d\"\nnewest = \"SELECT max(d) FROM plain.nokey\"\n{}\
                 [[drill.proof.assert]]\nsql = \"SELECT count(*) = 3000 FROM plain.serials\"\n\
                 [[drill.proof.assert]]\nsql = \"SELECT count(*) FROM plain.big\"\nequals = \"4\"\n",
                bin(&drills.server)
            ),
            &[],
        );
        assert_eq!(code, 0, "{said}");
        for word in ["fetch", "start", "load", "recover", "check", "RTO", "passed"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        let reports = drills.reports();
        assert!(reports.contains("passed") && reports.contains("yes"), "{reports}");
        // Neither in the way of the source's own snapshots.
        let shown = text(&drills.program.ok(&["tables", "--source", "shop"], b""));
        assert!(shown.contains("plain.serials"), "{shown}");
    }
}

#[test]
fn the_report_of_a_drill_is_not_the_latest_backup() {
    let drills = Drills::new(shop(15));
    let program = &drills.program;
    let backup = program.first_snapshot();
    let (code, said) = drills.run(&bin(&drills.server), &["--level", "read"]);
    assert_eq!(code, 0, "{said}");
    let listed = text(&program.ok(&["snapshots", "--json"], b""));
    assert_eq!(listed.lines().count(), 2, "{listed}");
    for latest in [&["tables"][..], &["tables", "latest"], &["ls", "latest"]] {
        let shown = text(&program.ok(latest, b""));
        assert!(shown.contains("serials"), "{latest:?}: {shown}");
    }
    let diff = text(&program.ok(&["diff", "--tables", &backup, "latest"], b""));
    assert!(!diff.contains("plain."), "{diff}");
    assert!(!program.ok(&["dump", "latest", "plain.serials", "--format", "csv"], b"").is_empty());
    let live = drills.server.dsn("shop");
    let rows = ["rows", "diff", "latest", &live, "--table", "plain.serials"];
    assert!(text(&program.ok(&rows, b"")).contains("3000 the same"));
    let into = drills.server.dsn("new");
    program.ok(&["restore", "latest", "--into", &into, "--create"], b"");
    assert_eq!(drills.server.sql("new", "SELECT count(*) FROM plain.serials"), "3000");
    // Nor does it stand for the next drill.
    let (code, said) = drills.run(&bin(&drills.server), &["--level", "read"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn each_failure_of_a_drill_is_told_apart() {
    let drills = Drills::new(shop(15));
    let good = bin(&drills.server);
    let wrong = "[[drill.proof.assert]]\nsql = \"SELECT count(*) = 1 FROM plain.serials\"\n";
    for (config, kind) in [
        (format!("{good}{wrong}"), "assertion"),
        ("bin_dir = \"/nowhere\"\n".to_owned(), "no-server"),
        (format!("{good}rto = \"0s\"\n"), "rto"),
        (format!("{good}rpo = \"1d\"\nnewest = \"SELECT max(d) FROM plain.nokey\"\n"), "rpo"),
    ] {
        let (code, said) = drills.run(&config, &[]);
        assert_eq!(code, 4, "{kind}: {said}");
        assert!(said.contains(&format!("failed ({kind})")), "{said}");
        assert!(drills.reports().lines().last().unwrap().contains(kind), "{}", drills.reports());
    }
}

#[test]
fn a_table_that_goes_missing_fails_a_drill() {
    let server = shop(15);
    // It fires when the drill makes its extension, after everything was restored.
    server.script(
        "shop",
        "CREATE TABLE plain.victim (id int PRIMARY KEY); INSERT INTO plain.victim VALUES (1);
         CREATE FUNCTION plain.lose() RETURNS event_trigger LANGUAGE plpgsql AS
           'BEGIN DROP TABLE IF EXISTS plain.victim; END';
         CREATE EVENT TRIGGER lose ON ddl_command_end WHEN TAG IN ('CREATE EXTENSION')
           EXECUTE FUNCTION plain.lose();",
    );
    let drills = Drills::new(server);
    let (code, said) = drills.run(&bin(&drills.server), &[]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("failed (tables): plain.victim is missing"), "{said}");
}

#[test]
fn damage_in_the_repository_fails_a_drill_of_either_level() {
    let drills = Drills::new(shop(15));
    for path in drills.program.objects("data") {
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 3;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    for level in ["read", "restore"] {
        let (code, said) = drills.run(&bin(&drills.server), &["--level", level]);
        assert_eq!(code, 4, "{said}");
        assert!(said.contains("failed (damaged)"), "{level}: {said}");
    }
}

#[test]
fn a_drill_that_is_stopped_leaves_nothing_behind() {
    let server = shop(15);
    server.script(
        "shop",
        "CREATE TABLE plain.slow (id int PRIMARY KEY); INSERT INTO plain.slow VALUES (1);
        CREATE FUNCTION plain.wait(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
        CREATE INDEX slowly ON plain.slow (plain.wait(id));
        CREATE OR REPLACE FUNCTION plain.wait(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
          'BEGIN PERFORM pg_catalog.pg_sleep(600); RETURN 1; END';",
    );
    let drills = Drills::new(server);
    let path = drills.program.path("drill.toml");
    let (dsn, bin) = (drills.server.dsn("shop"), drills.server.bin().display().to_string());
    let config = format!(
        "[source.shop]\ntype = \"postgres\"\ndsn = \"{dsn}\"\nbin_dir = \"{bin}\"\n\
        [drill.proof]\nsource = \"shop\"\nbin_dir = \"{bin}\"\n"
    );
    std::fs::write(&path, config).unwrap();
    let arguments = ["--config", path.to_str().unwrap(), "drill", "run", "proof"];
    let mut command = drills.program.command(&arguments);
    let mut child = command.env("TMPDIR", drills.temporary.path()).spawn().unwrap();
    // Building the index waits; the scratch server is up by then.
    let is_building = || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
            let line = text(&std::fs::read(process.path().join("cmdline")).unwrap_or_default());
            line.contains("CREATE INDEX") && line.contains("restow_drill_")
        })
    };
    while !is_building() {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        std::thread::yield_now();
    }
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    drills.is_clean();
}

#[test]
fn plain_dumps_are_drilled_and_owners_may_need_to_be_superusers() {
    let server = Postgres::version(15);
    server.script(
        "postgres",
        "CREATE ROLE boss SUPERUSER; CREATE DATABASE shop; ALTER DATABASE shop SET statement_timeout = '300ms'",
    );
    server.script(
        "shop",
        "SET statement_timeout = 0; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2);
         CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION note();
         ALTER EVENT TRIGGER noted OWNER TO boss",
    );
    let drills = Drills::new(server);
    let ask = "[[drill.proof.assert]]\nsql = \"SELECT pg_sleep(0.5)::text = '' \"\n";
    let (code, said) = drills.run(&(bin(&drills.server) + ask), &[]);
    assert_eq!(code, 0, "{said}");
    let path = drills.program.path("plain.toml");
    let pg_dump = drills.server.bin().join("pg_dump");
    let host = drills.server.client("true");
    let host = host.get_envs().find(|(name, _)| *name == "PGHOST").unwrap().1.unwrap();
    let text_of = format!(
        "[source.plain]\ntype = \"command\"\n\
         command = [\"{}\", \"-h\", \"{}\", \"-U\", \"postgres\", \"shop\"]\n",
        pg_dump.display(),
        host.to_str().unwrap()
    );
    std::fs::write(&path, text_of).unwrap();
    let config = path.to_str().unwrap();
    drills.program.ok(&["--config", config, "backup", "--source", "plain"], b"");
    let mut command = drills.program.command(&["--config", config, "drill", "run", "plain"]);
    let output = command.env("TMPDIR", drills.temporary.path()).output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("1 tables, 2 rows"), "{said}");
}

#[test]
fn a_named_scratch_server_is_left_as_it_was() {
    let server = Postgres::version(18);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script(
        "shop",
        "CREATE TABLE t (id int PRIMARY KEY);
         CREATE SUBSCRIPTION s CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false)",
    );
    let drills = Drills::new(server);
    let scratch = Postgres::version(18);
    // A drill of this machine that was killed left one.
    let name = rustix::system::uname();
    let machine = blake3::hash(name.nodename().to_bytes()).to_hex()[..8].to_owned();
    let left = format!("restow_drill_{machine}_2147483646_aa");
    scratch.sql("postgres", &format!("CREATE DATABASE {left}"));
    scratch.sql("postgres", "CREATE DATABASE restow_drill_of_mine");
    let databases = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database";
    let (code, said) =
        drills.run(&format!("{}scratch = \"{}\"", bin(&scratch), scratch.dsn("postgres")), &[]);
    assert_eq!(code, 0, "{said}");
    let expected = "postgres restow_drill_of_mine template0 template1";
    assert_eq!(scratch.sql("postgres", databases), expected);
}
