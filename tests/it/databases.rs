//! PostgreSQL as a source, on real servers of several versions: everything that is read comes back, nothing
//! that went wrong is published.

use std::path::Path;
use std::process::{Child, Stdio};

use crate::postgres::{Postgres, programs, succeeded};
use crate::support::*;

pub const NASTY: &str = include_str!("../testdata/nasty.sql");

/// Accounts between which money is moved: their sum never changes, and moves are numbered without a gap.
const BANK: &str = "CREATE SCHEMA bank;
    CREATE TABLE bank.account (id int PRIMARY KEY, amount int NOT NULL);
    INSERT INTO bank.account SELECT i, 100 FROM generate_series(1, 2000) i;
    CREATE TABLE bank.move (id int PRIMARY KEY, note text);
    CREATE TABLE bank.keyless (id int);";

const WRITER: &str = "DO $$ DECLARE a int; b int; BEGIN FOR i IN 1..1000000 LOOP
    a := 1 + (i * 7) % 2000; b := 1 + (i * 13) % 2000;
    UPDATE bank.account SET amount = amount - 1 WHERE id = a;
    UPDATE bank.account SET amount = amount + 1 WHERE id = b;
    INSERT INTO bank.move VALUES (i, repeat('x', 100)); INSERT INTO bank.keyless VALUES (i);
    COMMIT; END LOOP; END $$";

/// A session that writes until it is dropped.
struct Writer(Child);

impl Writer {
    fn start(server: &Postgres) -> Self {
        let mut command = server.client("psql");
        command.args(["-Xq", "-d", "shop", "-c", WRITER]);
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        let writer = Self(quiet.spawn().unwrap());
        while server.sql("shop", "SELECT count(*) FROM bank.move") == "0" {
            std::thread::yield_now();
        }
        writer
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn shop(version: u32) -> Postgres {
    let server = Postgres::version(version);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script("shop", NASTY);
    server
}

/// A configuration with one source `shop`.
pub fn configure(program: &Program, server: &Postgres, more: &str) -> String {
    let path = program.path("restow.toml");
    let (dsn, bin) = (server.dsn("shop"), server.bin().display());
    let text =
        format!("[source.shop]\ntype = \"postgres\"\ndsn = \"{dsn}\"\nbin_dir = \"{bin}\"\n{more}");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn round_trip(version: u32, mode: &str) {
    let server = shop(version);
    server.script("shop", BANK);
    let program = Program::initialized();
    let config = configure(&program, &server, &format!("mode = \"{mode}\""));
    let writer = Writer::start(&server);
    program.ok(&["--config", &config, "backup", "--source", "shop", "--verify"], b"");
    drop(writer);
    let into = server.dsn("postgres");
    let restore =
        ["--config", &config, "restore", "--source", "shop", "--into", &into, "--database", "new"];
    program.ok(&[&restore[..], &["--create"]].concat(), b"");
    assert_eq!(server.sorted_dump("new"), server.sorted_dump("shop"));
    assert_eq!(server.sql("new", "SELECT sum(amount) FROM bank.account"), "200000");
    let moves = "SELECT count(*) = max(id) AND count(*) > 0 FROM bank.move";
    assert_eq!(server.sql("new", moves), "t");
    let agree = "SELECT (SELECT count(*) FROM bank.move) = (SELECT count(*) FROM bank.keyless)";
    assert_eq!(server.sql("new", agree), "t");
    let objects =
        "SELECT string_agg(md5(lo_get(oid)), ',' ORDER BY oid) FROM pg_largeobject_metadata";
    assert_eq!(server.sql("new", objects), server.sql("shop", objects));
    assert_eq!(server.sql("new", "SELECT n FROM plain.mv"), "3000");
    let tables = text(&program.ok(&["tables"], b""));
    assert!(tables.contains("plain.serials") && tables.contains("3000"), "{tables}");
}

#[test]
fn everything_comes_back_from_15_by_tables() {
    round_trip(15, "tables");
}

#[test]
fn everything_comes_back_from_15_by_dump() {
    round_trip(15, "dump");
}

#[test]
fn everything_comes_back_from_18_by_tables() {
    round_trip(18, "tables");
}

#[test]
fn everything_comes_back_from_18_by_dump() {
    round_trip(18, "dump");
}

#[test]
fn a_backup_of_15_restores_into_18() {
    let (old, new) = (shop(15), Postgres::version(18));
    let program = Program::initialized();
    let config = configure(&program, &old, "");
    program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
    let into = new.dsn("postgres");
    let restore = ["restore", "--into", &into, "--database", "shop", "--create"];
    let said = program.fails(&restore, b"", 11);
    assert!(said.contains("roles") && said.contains("Odd Owner"), "{said}");
    new.sql("postgres", "CREATE ROLE \"Odd Owner\"");
    new.sql("postgres", "CREATE ROLE reader");
    program.ok(&restore, b"");
    let rows = "SELECT md5(string_agg(s::text, ',' ORDER BY id)) FROM plain.serials s";
    assert_eq!(new.sql("shop", rows), old.sql("shop", rows));
    // And not back into an older one.
    program.ok(&["backup", "--source", &new.dsn("shop")], b"");
    let into = old.dsn("postgres");
    let said = program.fails(
        &[
            "restore",
            "--source",
            &new.dsn("shop"),
            "--into",
            &into,
            "--database",
            "back",
            "--create",
        ],
        b"",
        11,
    );
    assert!(said.contains("older"), "{said}");
}

#[test]
fn a_server_that_is_newer_than_the_client_is_refused() {
    let server = Postgres::version(18);
    server.sql("postgres", "CREATE DATABASE shop");
    let program = Program::initialized();
    let path = program.path("restow.toml");
    let (dsn, bin) = (server.dsn("shop"), programs(15).display().to_string());
    let text =
        format!("[source.shop]\ntype = \"postgres\"\ndsn = \"{dsn}\"\nbin_dir = \"{bin}\"\n");
    std::fs::write(&path, text).unwrap();
    let config = path.to_str().unwrap();
    let said = program.fails(&["--config", config, "backup", "--source", "shop"], b"", 1);
    assert!(said.contains("PostgreSQL 18.") && said.contains("pg_dump here is 15."), "{said}");
    let said = program.fails(&["--config", config, "source", "test", "shop"], b"", 1);
    assert!(said.contains("cannot be backed up"), "{said}");
    assert!(program.objects("snap").is_empty());
}

/// A `pg_dump` that is killed when it has written so many bytes.
fn dying_programs(program: &Program, real: &Path, bytes: u64) -> String {
    let folder = program.path(&format!("bin-{bytes}"));
    std::fs::create_dir(&folder).unwrap();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec {real}/pg_dump --version\n\
         {real}/pg_dump \"$@\" | head -c {bytes}\nkill -9 $$\n",
        real = real.display()
    );
    let path = folder.join("pg_dump");
    write_script(&path, &script);
    std::os::unix::fs::symlink(real.join("pg_dumpall"), folder.join("pg_dumpall")).unwrap();
    folder.to_str().unwrap().to_owned()
}

#[test]
fn a_dump_that_is_killed_makes_no_snapshot_and_leaves_nothing_that_prune_keeps() {
    let server = shop(15);
    let program = Program::initialized();
    let mut dump = server.client("pg_dump");
    dump.args(["-Fc", "-Z0", "-d", "shop"]);
    let whole = succeeded(dump).stdout.len() as u64;
    for (mode, percent) in [("dump", 10), ("dump", 50), ("dump", 99), ("tables", 50)] {
        let bytes = if mode == "dump" { whole * percent / 100 } else { 2000 };
        let folder = program.path(&format!("bin-{bytes}"));
        if !folder.exists() {
            dying_programs(&program, server.bin(), bytes);
        }
        let path = program.path("dying.toml");
        let dsn = server.dsn("shop");
        let text = format!(
            "[source.shop]\ntype = \"postgres\"\nmode = \"{mode}\"\ndsn = \"{dsn}\"\nbin_dir = {folder:?}\n"
        );
        std::fs::write(&path, text).unwrap();
        let arguments = ["--config", path.to_str().unwrap(), "backup", "--source", "shop"];
        let said = program.fails(&arguments, b"", 1);
        assert!(said.contains("killed by signal 9"), "{mode} {percent}: {said}");
        assert!(program.objects("snap").is_empty());
    }
    let config = configure(&program, &server, "");
    program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
    program.ok(&["prune", "--grace", "0", "--max-unused", "0"], b"");
    program.ok(&["check", "--read-data"], b"");
    let into = server.dsn("postgres");
    program.ok(&["restore", "--into", &into, "--database", "new", "--create"], b"");
    assert_eq!(server.sorted_dump("new"), server.sorted_dump("shop"));
}

#[test]
fn a_session_that_the_server_ends_makes_no_snapshot() {
    let server = Postgres::version(15);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script("shop", "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)");
    let program = Program::initialized();
    // When the dump is done, the session that keeps the snapshot is ended.
    let folder = program.path("bin");
    std::fs::create_dir(&folder).unwrap();
    let real = server.bin().display().to_string();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'restow' AND state = 'idle in transaction'";
    let socket = server.dsn("shop").replace("%2F", "/");
    let socket = socket.trim_start_matches("postgres://postgres@").trim_end_matches("/shop");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec {real}/pg_dump --version\n{real}/pg_dump \"$@\" || exit 1\n\
         {real}/psql -Xq -h {socket} -U postgres -d shop -c \"{end}\" >/dev/null\n"
    );
    write_script(&folder.join("pg_dump"), &script);
    std::os::unix::fs::symlink(server.bin().join("pg_dumpall"), folder.join("pg_dumpall")).unwrap();
    let path = program.path("ending.toml");
    let dsn = server.dsn("shop");
    let config =
        format!("[source.shop]\ntype = \"postgres\"\ndsn = \"{dsn}\"\nbin_dir = {folder:?}\n");
    std::fs::write(&path, config).unwrap();
    let said =
        program.fails(&["--config", path.to_str().unwrap(), "backup", "--source", "shop"], b"", 1);
    assert!(
        said.contains("snapshot was lost") || said.contains("terminating connection"),
        "{said}"
    );
    assert!(program.objects("snap").is_empty());
}

fn write_script(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn rights_that_are_missing_are_named_before_anything_is_read() {
    let server = shop(15);
    server.sql("postgres", "CREATE ROLE weak LOGIN");
    let program = Program::initialized();
    let dsn = server.dsn("shop").replace("postgres@", "weak@");
    let said = program.fails(&["backup", "--source", &dsn], b"", 1);
    assert!(said.contains("GRANT pg_read_all_data TO \"weak\""), "{said}");
    let listed = program.run(&["source", "test", &dsn], b"");
    assert_eq!(listed.status.code(), Some(1));
    assert!(
        text(&listed.stdout).contains("problem  weak may not read"),
        "{}",
        text(&listed.stdout)
    );
    server.sql("postgres", "GRANT pg_read_all_data TO weak");
    let said = program.fails(&["backup", "--source", &dsn], b"", 1);
    assert!(said.contains("BYPASSRLS"), "{said}");
    server.sql("postgres", "ALTER ROLE weak BYPASSRLS");
    let said = program.fails(&["backup", "--source", &dsn], b"", 1);
    assert!(said.contains("large objects") && said.contains("GRANT SELECT ON LARGE"), "{said}");
    server.sql("shop", "SELECT lo_unlink(oid) FROM pg_largeobject_metadata");
    program.ok(&["backup", "--source", &dsn], b"");
    let globals = text(&program.ok(&["dump", "latest", "shop/globals.sql"], b""));
    assert!(globals.contains("CREATE ROLE reader") && !globals.contains("PASSWORD"), "{globals}");
}

#[test]
fn sequences_that_may_not_be_read_are_named_and_patterns_reach_partitions() {
    let server = Postgres::version(18);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script(
        "shop",
        "CREATE ROLE weak LOGIN; CREATE TABLE t (id serial PRIMARY KEY); GRANT SELECT ON t TO weak;
         CREATE TABLE log (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE old PARTITION OF log FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (id);
         CREATE TABLE older PARTITION OF old FOR VALUES FROM (0) TO (5);
         INSERT INTO log VALUES (1)",
    );
    let program = Program::initialized();
    configure(&program, &server, "exclude_data = [\"log\"]");
    let path = program.path("restow.toml");
    let config = path.to_str().unwrap();
    program.ok(&["--config", config, "backup", "--source", "shop"], b"");
    let streams = text(&program.ok(&["ls", "latest"], b""));
    assert!(streams.contains("tables/public.t") && !streams.contains("public.older"), "{streams}");
    server.sql("shop", "GRANT SELECT ON log, old, older TO weak");
    let weak = std::fs::read_to_string(&path).unwrap().replace("postgres@", "weak@");
    std::fs::write(&path, weak).unwrap();
    let said = program.fails(&["--config", config, "backup", "--source", "shop"], b"", 1);
    assert!(said.contains("1 sequences, public.t_id_seq"), "{said}");
}

#[test]
fn passwords_are_asked_for_proved_and_never_shown() {
    let server = Postgres::version(18);
    server.sql("postgres", "CREATE DATABASE shop");
    for (method, role) in [("scram-sha-256", "scram_user"), ("md5", "md5_user")] {
        server.sql("postgres", &format!("SET password_encryption = '{method}'; CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'pa ss''w''ord'"));
        server.allow(role, method);
    }
    let program = Program::initialized();
    for role in ["scram_user", "md5_user"] {
        let dsn = server.dsn("shop").replace("postgres@", &format!("{role}@"));
        let path = program.path("restow.toml");
        let secret = program.path("secret");
        std::fs::write(&secret, "pa ss'w'ord\n").unwrap();
        let bin = server.bin().display();
        let text_of = |password: &str| {
            format!(
                "[source.shop]\ntype = \"postgres\"\ndsn = \"{dsn}\"\nbin_dir = \"{bin}\"\n{password}"
            )
        };
        let arguments = ["--config", path.to_str().unwrap(), "backup", "--source", "shop"];
        std::fs::write(&path, text_of("")).unwrap();
        let said = program.fails(&arguments, b"", 1);
        assert!(said.contains("asks for the password"), "{said}");
        std::fs::write(&path, text_of(&format!("password = \"file:{}\"", secret.display())))
            .unwrap();
        program.ok(&arguments, b"");
        std::fs::write(&secret, "wrong\n").unwrap();
        let said = program.fails(&arguments, b"", 1);
        assert!(
            said.contains("password authentication failed") && !said.contains("wrong"),
            "{said}"
        );
    }
}

#[test]
fn parts_of_a_database_are_read_as_asked() {
    let server = shop(15);
    let program = Program::initialized();
    let config = configure(
        &program,
        &server,
        "tables = [\"plain.*\"]\nexclude_data = [\"plain.big\", \"plain.serials\"]\n",
    );
    program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
    let listed = text(&program.ok(&["tables"], b""));
    assert!(listed.contains("plain.left_"), "{listed}");
    let streams = text(&program.ok(&["ls", "latest"], b""));
    assert!(streams.contains("tables/plain.left_"), "{streams}");
    for name in ["plain.serials", "plain.big", "Shop.Main"] {
        assert!(!streams.contains(&format!("tables/{name}")), "{streams}");
    }
    // What is left out is there, but empty: the rest restores.
    let into = server.dsn("postgres");
    program.ok(&["restore", "--into", &into, "--database", "part", "--create"], b"");
    assert_eq!(server.sql("part", "SELECT count(*) FROM plain.big"), "0");
    assert_eq!(server.sql("part", "SELECT count(*) FROM plain.left_"), "2");
    let config = configure(&program, &server, "tables = [\"plain.typo\"]\n");
    let said = program.fails(&["--config", &config, "backup", "--source", "shop"], b"", 1);
    assert!(said.contains("'plain.typo' fits no table"), "{said}");
}
