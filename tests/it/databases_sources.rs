//! Several sources in one repository, and tables that come, go and look alike while they are backed up.

use std::process::{Child, Stdio};

use restow::database::postgres::client::Client;
use restow::database::postgres::dsn::Dsn;

use crate::databases::configure;
use crate::postgres::Postgres;
use crate::support::*;

fn two(server: &Postgres) -> (Program, String) {
    let program = Program::initialized();
    let path = program.path("restow.toml");
    let mut config = String::new();
    for name in ["live", "staging"] {
        server.sql("postgres", &format!("CREATE DATABASE {name}"));
        let sql = format!(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, '{name}')"
        );
        server.script(name, &sql);
        let (dsn, bin) = (server.dsn(name), server.bin().display());
        config.push_str(&format!(
            "[source.{name}]\ntype = \"postgres\"\ndsn = \"{dsn}\"\nbin_dir = \"{bin}\"\n"
        ));
    }
    std::fs::write(&path, config).unwrap();
    let config = path.to_str().unwrap().to_owned();
    for name in ["live", "staging"] {
        program.ok(&["--config", &config, "backup", "--source", name], b"");
    }
    (program, config)
}

#[test]
fn the_latest_is_of_the_source_that_is_meant() {
    let server = Postgres::version(15);
    let (program, config) = two(&server);
    let run = |words: &[&str]| text(&program.ok(&[&["--config", &config], words].concat(), b""));
    let same = run(&["rows", "diff", "latest", "live", "--table", "t"]);
    assert!(same.contains("0 added, 0 removed, 0 changed"), "{same}");
    let table = ["dump", "latest", "t", "--format", "csv"];
    let said = program.fails(&table, b"", 2);
    assert!(said.contains("--source") && said.contains("staging"), "{said}");
    let csv = text(&program.ok(&[&table[..], &["--source", "live"]].concat(), b""));
    assert_eq!(csv, "id,v\n1,live\n");
    let first = program.first_snapshot();
    server.sql("live", "UPDATE t SET v = 'new'");
    run(&["backup", "--source", "live"]);
    run(&["backup", "--source", "staging"]);
    let changed = run(&["diff", "--tables", &first]);
    assert!(changed.contains("M    public.t"), "{changed}");
    // The zone of the server changes nothing of what is read.
    server.sql("live", "CREATE TABLE at (id int PRIMARY KEY, at timestamptz)");
    server.sql("live", "INSERT INTO at SELECT i, now() FROM generate_series(1, 50) i");
    for zone in ["Asia/Tokyo", "America/Lima"] {
        server.sql("live", &format!("ALTER DATABASE live SET timezone = '{zone}'"));
        run(&["backup", "--source", "live"]);
    }
    let ids = run(&["--json", "snapshots"]);
    let of_live = ids.lines().filter(|line| line.contains("\"live\""));
    let ids: Vec<String> = of_live
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|it| it["id"].as_str().unwrap().to_owned())
        .collect();
    let [.., old, new] = &ids[..] else { panic!("{ids:?}") };
    assert_eq!(run(&["diff", "--tables", old, new]), "");
    let same = run(&["rows", "diff", "latest", "live", "--table", "at"]);
    assert!(same.contains("0 changed since the snapshot; 50 the same"), "{same}");
}

#[test]
fn a_table_that_is_dropped_while_a_backup_waits_is_not_missed() {
    let server = Postgres::version(15);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script(
        "shop",
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE gone (id int PRIMARY KEY)",
    );
    let program = Program::initialized();
    let config = configure(&program, &server, "");
    let dsn = Dsn::parse(&server.dsn("shop"), &|_| None).unwrap();
    let mut other = Client::connect(&dsn).unwrap();
    other.query("BEGIN; DROP TABLE public.gone").unwrap();
    let mut command = program.command(&["--config", &config, "backup", "--source", "shop"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while server.sql("postgres", "SELECT count(*) FROM pg_locks WHERE NOT granted") == "0" {
        std::thread::yield_now();
    }
    other.query("COMMIT").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let tables = text(&program.ok(&["tables"], b""));
    assert!(tables.contains("public.t") && !tables.contains("gone"), "{tables}");
}

/// A session that makes, fills and drops a table all the time.
struct Staging(Child);

impl Staging {
    fn start(server: &Postgres) -> Self {
        let mut command = server.client("psql");
        let sql = "DO $$ BEGIN FOR i IN 1..1000000 LOOP
            CREATE TABLE staging (id int PRIMARY KEY); COMMIT;
            INSERT INTO staging SELECT generate_series(1, 100); COMMIT;
            TRUNCATE t; INSERT INTO t VALUES (1), (2); COMMIT;
            DROP TABLE staging; COMMIT; PERFORM pg_sleep(0.7); END LOOP; END $$";
        let quiet = command.args(["-Xq", "-d", "shop", "-c", sql]).stdin(Stdio::null());
        Self(quiet.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tables_that_come_and_go_do_not_keep_a_backup_from_its_end() {
    let server = Postgres::version(15);
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql("shop", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)");
    let program = Program::initialized();
    let config = configure(&program, &server, "globals = false");
    let _staging = Staging::start(&server);
    for _ in 0..4 {
        program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
        let tables = text(&program.ok(&["--json", "tables"], b""));
        let found: serde_json::Value = serde_json::from_str(&tables).unwrap();
        let all = found["tables"].as_array().unwrap();
        let rows =
            |name: &str| all.iter().find(|it| it["name"] == name).map(|it| it["rows"].clone());
        assert_eq!(rows("t"), Some(2.into()));
        let staged = rows("staging").unwrap_or(0.into());
        assert!(staged == 0 || staged == 100, "{staged}");
    }
}

#[test]
fn names_with_dots_are_told_apart() {
    let server = Postgres::version(15);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script(
        "shop",
        r#"CREATE SCHEMA a; CREATE SCHEMA "a.b"; CREATE TABLE a."b.c" (id int PRIMARY KEY);
           CREATE TABLE "a.b".c (id int PRIMARY KEY); INSERT INTO a."b.c" VALUES (1), (2)"#,
    );
    let program = Program::initialized();
    let config = configure(&program, &server, "");
    program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
    let into = ["restore", "--into", &server.dsn("postgres"), "--database", "new", "--create"];
    program.ok(&into, b"");
    assert_eq!(server.sql("new", r#"SELECT count(*) FROM a."b.c""#), "2");
    assert_eq!(server.sql("new", r#"SELECT count(*) FROM "a.b".c"#), "0");
}
