//! Targets of restores of PostgreSQL: roles, rights, settings and limits of the server, and what is said
//! where a restore fails.

use crate::databases::configure;
use crate::databases_guard::{restore, server};
use crate::databases_restore::backed_up;
use crate::postgres::Postgres;
use crate::support::*;

#[test]
fn roles_that_are_missing_are_named_before_anything_is_done() {
    let server = server(
        15,
        "CREATE ROLE guest; CREATE ROLE ghost; CREATE ROLE keeper; CREATE TABLE role (id int);
         GRANT SELECT ON role TO keeper; ALTER TABLE role OWNER TO keeper;
         CREATE POLICY p ON role TO guest USING (true);
         ALTER ROLE ghost IN DATABASE shop SET work_mem = '7MB';",
    );
    let program = backed_up(&server);
    server.sql("postgres", "DROP DATABASE shop");
    server.sql("postgres", "DROP ROLE guest, ghost");
    let into = server.dsn("copy");
    let create = ["restore", "--into", &into, "--create"];
    let said = program.fails(&create, b"", 11);
    assert!(said.contains("missing on the target: ghost, guest;"), "{said}");
    let bare = [&create[..], &["--no-owner"]].concat();
    let said = program.fails(&bare, b"", 11);
    assert!(said.contains("missing on the target: guest;"), "{said}");
    let made = "SELECT count(*) FROM pg_database WHERE datname = 'copy'";
    assert_eq!(server.sql("postgres", made), "0");
    server.sql("postgres", "CREATE ROLE guest");
    let output = program.run(&bare, b"");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("settings of ghost"), "{}", text(&output.stderr));
    // Somebody who may not give things to their owner.
    server.sql("postgres", "CREATE ROLE weak LOGIN CREATEDB");
    let into = server.dsn("second").replace("postgres@", "weak@");
    server.sql("postgres", "CREATE ROLE ghost");
    let create = ["restore", "--into", &into, "--create"];
    let said = program.fails(&create, b"", 11);
    assert!(said.contains("weak cannot give anything to keeper"), "{said}");
    server.sql("postgres", "GRANT keeper, postgres TO weak");
}

#[test]
fn owners_without_rights_of_their_own_get_their_rows() {
    let server = server(
        15,
        "CREATE ROLE keeper LOGIN; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
         ALTER TABLE t OWNER TO keeper; REVOKE INSERT, TRUNCATE, UPDATE ON t FROM keeper;",
    );
    let program = backed_up(&server);
    server.sql("postgres", "CREATE DATABASE mine OWNER keeper");
    let into = server.dsn("mine").replace("postgres@", "keeper@");
    program.ok(&["restore", "--into", &into], b"");
    let acl = "SELECT count(*), has_table_privilege('keeper', 't', 'INSERT') FROM t";
    assert_eq!(server.sql("mine", acl), "1|f");
}

/// A table whose rows do something to the session that loads them into another database.
fn trap(version: u32, act: &str) -> (Postgres, Program) {
    let server = server(
        version,
        &format!(
            "CREATE FUNCTION act(i int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
               IF current_database() <> 'shop' THEN {act} END IF; RETURN true; END $$;
             CREATE TABLE t (id int CHECK (act(id))); INSERT INTO t VALUES (1);
             CREATE ROLE keeper; ALTER DATABASE shop OWNER TO keeper;"
        ),
    );
    let program = backed_up(&server);
    (server, program)
}

#[test]
fn what_the_server_said_last_is_told_and_the_advice_holds() {
    let end = "IF current_setting('trap.open', true) = 'yes' THEN
        PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); END IF;";
    let (server, program) = trap(15, end);
    server.sql("postgres", "ALTER ROLE postgres SET trap.open = 'yes'");
    let into = server.dsn("copy");
    let create = ["restore", "--into", &into, "--create"];
    let said = program.fails(&create, b"", 1);
    assert!(said.contains("FATAL: terminating connection due to admin"), "{said}");
    assert!(said.contains("drop the database copy, which it made, and run it again"), "{said}");
    server.sql("postgres", "ALTER ROLE postgres RESET trap.open");
    server.sql("postgres", "DROP DATABASE copy");
    program.ok(&create, b"");
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'copy'";
    assert_eq!(server.sql("postgres", owner), "keeper");
}

#[test]
fn limits_of_time_of_the_server_do_not_end_a_restore() {
    let (server, program) = trap(18, "PERFORM pg_sleep(1.5);");
    server.sql("postgres", "CREATE DATABASE copy");
    server.script(
        "postgres",
        "ALTER DATABASE copy SET transaction_timeout = '1s'; ALTER DATABASE copy SET statement_timeout = '1s'",
    );
    program.ok(&["restore", "--into", &server.dsn("copy")], b"");
    let beside = ["restore", "--into", &server.dsn("copy"), "--table", "t", "--into-schema", "s2"];
    program.ok(&beside, b"");
    assert_eq!(server.sql("copy", "SELECT id FROM s2.t"), "1");
}

#[test]
fn a_database_is_made_as_it_was_whatever_it_is_called() {
    let server = Postgres::version(15);
    let name = "a WITH TABLESPACE = b";
    let make = format!(
        "CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
    );
    server.sql("postgres", &make);
    let program = Program::initialized();
    let odd = server.dsn(&name.replace(' ', "%20").replace('=', "%3D"));
    program.ok(&["backup", "--source", &odd], b"");
    restore(&program, &server, "copy", &[]);
    let encoding = "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'copy'";
    assert_eq!(server.sql("postgres", encoding), "SQL_ASCII");
}

#[test]
fn rows_are_compared_in_one_encoding_and_put_back_under_any_key() {
    let server = Postgres::version(15);
    let script = "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, k text, v text);
        INSERT INTO t (k, v) VALUES ('a', '1'), ('b', '2'), ('c', '3')";
    let latin =
        "CREATE DATABASE shop TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'";
    server.sql("postgres", latin);
    server.script("shop", script);
    let program = backed_up(&server);
    server.sql("postgres", "CREATE DATABASE other TEMPLATE template0 ENCODING 'UTF8'");
    server.script("other", script);
    let other = server.dsn("other");
    let diff = ["rows", "diff", "latest", &other, "--source", "shop", "--table", "t"];
    let said = program.fails(&diff, b"", 2);
    assert!(said.contains("the snapshot is in LATIN1, the database in UTF8"), "{said}");
    let program = Program::initialized();
    program.ok(&["backup", "--source", &other], b"");
    server.script(
        "other",
        "UPDATE t SET v = 'live' WHERE k = 'a'; DELETE FROM t WHERE k <> 'a';
         INSERT INTO t (k, v) VALUES ('b', '2'), ('d', '4');",
    );
    let back = program.path("back.sql");
    let back = back.to_str().unwrap();
    let diff = ["rows", "diff", "latest", &other, "--table", "t", "--key", "k", "--sql", back];
    program.ok(&diff, b"");
    server.script("other", &std::fs::read_to_string(back).unwrap());
    let rows = "SELECT string_agg(k || v, ' ' ORDER BY k) FROM t";
    assert_eq!(server.sql("other", rows), "a1 b2 c3");
}

/// A table with partitions of partitions, with keys to and from other tables: attaching its indexes takes
/// locks that foreign keys take in another order.
const DEEP: &str = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
    INSERT INTO a SELECT generate_series(1, 100); INSERT INTO b SELECT generate_series(1, 100);
    CREATE TABLE p (id int, k int, aid int REFERENCES a, bid int REFERENCES b, v text, PRIMARY KEY (id, k))
      PARTITION BY LIST (k);
    CREATE INDEX ON p (v); CREATE INDEX ON p (aid); CREATE UNIQUE INDEX ON p (k, id, aid);
    DO $$ BEGIN FOR i IN 1..10 LOOP
      EXECUTE format('CREATE TABLE p%s PARTITION OF p FOR VALUES IN (%s) PARTITION BY HASH (id)', i, i);
      FOR j IN 0..2 LOOP EXECUTE format('CREATE TABLE p%s_%s PARTITION OF p%s FOR VALUES
        WITH (MODULUS 3, REMAINDER %s)', i, j, i, j); END LOOP; END LOOP; END $$;
    INSERT INTO p SELECT i, 1 + i % 10, 1 + i % 100, 1 + i % 100, 'v' || i FROM generate_series(1, 3000) i;
    CREATE TABLE q (id int, k int, FOREIGN KEY (id, k) REFERENCES p); INSERT INTO q SELECT id, k FROM p LIMIT 9";

#[test]
fn partitions_of_partitions_come_back_by_several_jobs() {
    let server = Postgres::version(18);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script("shop", DEEP);
    let program = Program::initialized();
    let config = configure(&program, &server, "");
    program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
    let into = server.dsn("postgres");
    let broken =
        "SELECT string_agg(indexrelid::regclass::text, ' ') FROM pg_index WHERE NOT indisvalid";
    for number in 0..3 {
        let name = format!("new{number}");
        let words = ["restore", "--into", &into, "--database", &name, "--create", "--jobs", "4"];
        program.ok(&words, b"");
        assert_eq!(server.sql(&name, broken), "");
        assert_eq!(server.sorted_dump(&name), server.sorted_dump("shop"));
    }
    let words = ["restore", "--into", &server.dsn("new0"), "--clean", "--yes-overwrite", "new0"];
    program.ok(&words, b"");
    assert_eq!(server.sorted_dump("new0"), server.sorted_dump("shop"));
}

#[test]
fn rows_alone_that_came_half_are_not_doubled() {
    let server = Postgres::version(15);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script(
        "shop",
        "CREATE TABLE k (a int); INSERT INTO k SELECT generate_series(1, 10);
         CREATE TABLE m (id int PRIMARY KEY); INSERT INTO m VALUES (1);
         CREATE TABLE n (a int); INSERT INTO n VALUES (1)",
    );
    let program = Program::initialized();
    let config = configure(&program, &server, "");
    program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
    server.sql("shop", "TRUNCATE k, n");
    let into = server.dsn("shop");
    let words =
        ["restore", "--into", &into, "--data-only", "--jobs", "1", "--yes-overwrite", "shop"];
    let said = program.fails(&words, b"", 1);
    assert!(said.contains("--table 'public.m'") && said.contains("would be doubled"), "{said}");
    let loaded = server.sql("shop", "SELECT count(*) FROM k");
    assert_eq!(said.contains("--table 'public.k'"), loaded == "0", "{said}");
}
