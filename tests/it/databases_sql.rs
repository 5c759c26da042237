//! Plain dumps that go back through psql: nothing is overwritten unasked, no shell is started, and all of it
//! comes or nothing.

use std::process::Stdio;

use crate::postgres::{Postgres, succeeded};
use crate::support::*;

fn server() -> Postgres {
    let server = Postgres::version(15);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script(
        "shop",
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'old')",
    );
    server
}

fn dumped(server: &Postgres, arguments: &[&str]) -> (Program, Vec<u8>) {
    let mut dump = server.client("pg_dump");
    dump.args(["-d", "shop"]).args(arguments);
    let dump = succeeded(dump).stdout;
    let program = Program::initialized();
    program.backup("shop.sql", &dump);
    (program, dump)
}

#[test]
fn a_dump_that_drops_first_needs_the_name_of_what_it_overwrites() {
    let server = server();
    let (program, _) = dumped(&server, &["--clean", "--if-exists"]);
    server.sql("shop", "UPDATE t SET v = 'precious'");
    let into = server.dsn("shop");
    let said = program.fails(&["restore", "--into", &into], b"", 11);
    assert!(said.contains("--yes-overwrite shop"), "{said}");
    let dry = program.run(&["restore", "--into", &into, "-n"], b"");
    assert_eq!(dry.status.code(), Some(11));
    assert!(text(&dry.stdout).contains("it would be refused"), "{}", text(&dry.stdout));
    assert_eq!(server.sql("shop", "SELECT v FROM t"), "precious");
    program.ok(&["restore", "--into", &into, "--yes-overwrite", "shop"], b"");
    assert_eq!(server.sql("shop", "SELECT v FROM t"), "old");
    let said = program.fails(&["restore", "--into", &into, "--no-owner"], b"", 2);
    assert!(said.contains("--no-owner"), "{said}");
}

#[test]
fn commands_of_psql_in_a_dump_are_not_run() {
    let server = server();
    let (_, dump) = dumped(&server, &[]);
    let program = Program::initialized();
    let mark = program.path("mark");
    let shell = format!("\n\\! touch {}\n", mark.display());
    let text_of = text(&dump);
    // Where the dump has no key of its own, as older ones, and where it has one.
    let is_frame = |line: &&str| !line.contains("restrict ");
    let old: Vec<&str> = text_of.lines().filter(is_frame).collect();
    let (old, end) = (old.join("\n"), "-- PostgreSQL database dump complete");
    let key = text_of.lines().find_map(|line| line.strip_prefix("\\restrict ")).unwrap();
    let freed = format!("\\unrestrict {key}{shell}");
    for bad in
        [old.replace(end, &format!("{shell}{end}")), text_of.replace(end, &format!("{freed}{end}"))]
    {
        program.backup("shop.sql", bad.as_bytes());
        server.sql("postgres", "CREATE DATABASE new");
        let said = program.fails(&["restore", "--into", &server.dsn("new")], b"", 1);
        assert!(said.contains("restricted"), "{said}");
        assert!(!mark.exists());
        assert_eq!(server.sql("new", "SELECT to_regclass('t') IS NULL"), "t");
        server.sql("postgres", "DROP DATABASE new");
    }
    // Both kinds without it go through.
    for good in [&old, &text_of] {
        program.backup("shop.sql", good.as_bytes());
        server.sql("postgres", "CREATE DATABASE new");
        program.ok(&["restore", "--into", &server.dsn("new")], b"");
        assert_eq!(server.sql("new", "SELECT v FROM t"), "old");
        server.sql("postgres", "DROP DATABASE new");
    }
}

#[test]
fn a_restore_that_is_killed_leaves_nothing_of_a_dump() {
    let server = server();
    server.sql(
        "shop",
        "INSERT INTO t SELECT i, repeat(md5(i::text), 8) FROM generate_series(2, 300000) i",
    );
    let (program, _) = dumped(&server, &[]);
    server.sql("postgres", "CREATE DATABASE new");
    let mut command = program.command(&["restore", "--into", &server.dsn("new")]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while server.sql("new", "SELECT count(*) FROM pg_stat_progress_copy WHERE tuples_processed > 0")
        == "0"
    {
        assert!(child.try_wait().unwrap().is_none(), "it was done too soon");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let others =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'new' AND application_name = 'psql'
        AND pid <> pg_backend_pid()";
    while server.sql("postgres", others) != "0" {
        std::thread::yield_now();
    }
    assert_eq!(server.sql("new", "SELECT to_regclass('t') IS NULL"), "t");
}

#[test]
fn a_partitioned_table_of_a_dump_is_not_restored_without_its_rows() {
    let server = server();
    server.script(
        "shop",
        "CREATE TABLE ev (id int, k int) PARTITION BY LIST (k);
         CREATE TABLE ev_1 PARTITION OF ev FOR VALUES IN (1); INSERT INTO ev VALUES (1, 1), (2, 1)",
    );
    let (program, _) = dumped(&server, &[]);
    server.sql("postgres", "CREATE DATABASE new");
    let into = server.dsn("new");
    let said = program.fails(&["restore", "--into", &into, "--table", "public.ev"], b"", 2);
    assert!(said.contains("public.ev is partitioned"), "{said}");
    // A partition comes back where its table is.
    server.sql("new", "CREATE TABLE ev (id int, k int) PARTITION BY LIST (k)");
    let one = ["restore", "--into", &into, "--table", "public.ev_1", "--yes-overwrite", "new"];
    program.ok(&one, b"");
    assert_eq!(server.sql("new", "SELECT count(*) FROM ev"), "2");
}
