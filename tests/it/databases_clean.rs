//! Restores of PostgreSQL over what is there: what is dropped, what stays, and that all of it comes back.

use crate::databases::configure;
use crate::databases_guard::{overwrite, server};
use crate::databases_restore::backed_up;
use crate::postgres::Postgres;
use crate::support::*;

/// Restores `shop` over itself and gives what it said to standard error.
fn over(program: &Program, server: &Postgres) -> String {
    let words = overwrite(server);
    let output = program.run(&words.each_ref().map(String::as_str), b"");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn tables_whose_rows_are_not_in_the_snapshot_keep_them() {
    let server = server(
        15,
        "CREATE TYPE kind AS ENUM ('a', 'b'); CREATE SEQUENCE numbers;
         CREATE TABLE person (id int PRIMARY KEY, name text); INSERT INTO person VALUES (1, 'x');
         CREATE TABLE audit (id int DEFAULT nextval('numbers') PRIMARY KEY, kind kind,
           person int REFERENCES person);
         INSERT INTO audit (kind, person) VALUES ('a', 1);
         CREATE TABLE log (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10);
         CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM (10) TO (20);
         INSERT INTO log VALUES (1, 1), (1, 11);
         CREATE VIEW shown AS SELECT name, kind FROM audit JOIN person ON person.id = person;
         CREATE TABLE void (id int PRIMARY KEY);
         CREATE PUBLICATION told FOR TABLE person, audit;",
    );
    let program = Program::initialized();
    let config = configure(&program, &server, "exclude_data = [\"audit\", \"log_1\"]");
    program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
    server.script(
        "shop",
        "UPDATE person SET name = 'live'; INSERT INTO person VALUES (2, 'later');
         INSERT INTO audit (kind, person) VALUES ('b', 2), ('b', 1);
         INSERT INTO log VALUES (2, 2), (2, 12); INSERT INTO void VALUES (1);",
    );
    let words = overwrite(&server);
    let words = words.each_ref().map(String::as_str);
    let said = text(&program.ok(&[&words[..], &["--dry-run"]].concat(), b""));
    assert!(said.contains("2 tables keep their rows") && said.contains("public.audit"), "{said}");
    let said = over(&program, &server);
    assert!(said.contains("audit_person_fkey is NOT VALID"), "{said}");
    for (query, expected) in [
        ("SELECT string_agg(person::text, ' ') FROM person", "(1,x)"),
        ("SELECT string_agg(a::text, ' ' ORDER BY id) FROM audit a", "(1,a,1) (2,b,2) (3,b,1)"),
        ("SELECT string_agg(l::text, ' ' ORDER BY at) FROM log l", "(1,1) (2,2) (1,11)"),
        ("SELECT count(*) FROM void", "0"),
        ("SELECT last_value FROM numbers", "3"),
        ("SELECT count(*) FROM shown", "2"),
        ("SELECT string_agg(tablename, ' ' ORDER BY 1) FROM pg_publication_tables", "audit person"),
        (
            "SELECT count(*) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE relkind = 'r'",
            "2",
        ),
    ] {
        assert_eq!(server.sql("shop", query), expected, "{query}");
    }
    // Once more, when nothing is amiss.
    server.script("shop", "DELETE FROM audit WHERE person = 2; DROP TABLE log_2");
    assert!(!over(&program, &server).contains("warning"));
    let valid = "SELECT convalidated FROM pg_constraint WHERE conname = 'audit_person_fkey'";
    assert_eq!(server.sql("shop", valid), "t");
    assert_eq!(server.sql("shop", "SELECT count(*) FROM log"), "3");
}

#[test]
fn functions_types_and_large_objects_are_not_dropped_without_consent() {
    let server = server(15, "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'");
    let program = backed_up(&server);
    for (number, script) in [
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "CREATE TYPE t AS ENUM ()",
        "CREATE SCHEMA s",
        "SELECT lo_create(7)",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("other_{number}");
        server.sql("postgres", &format!("CREATE DATABASE {name}"));
        server.script(&name, script);
        let said = program.fails(&["restore", "--into", &server.dsn(&name), "--clean"], b"", 11);
        assert!(said.contains(&format!("--yes-overwrite {name}")), "{said}");
    }
    // What is in the way is found, though it is no table.
    let said = program.fails(&["restore", "--into", &server.dsn("other_0")], b"", 11);
    assert!(said.contains("the function public.f()"), "{said}");
    server.sql("postgres", "CREATE DATABASE empty");
    program.ok(&["restore", "--into", &server.dsn("empty"), "--clean"], b"");
}

const TANGLED: &str = "CREATE TYPE num;
    CREATE FUNCTION num_in(cstring) RETURNS num LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
    CREATE FUNCTION num_out(num) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
    CREATE TYPE num (INPUT = num_in, OUTPUT = num_out, LIKE = int4);
    CREATE CAST (num AS int4) WITHOUT FUNCTION;
    CREATE TABLE a (id int PRIMARY KEY, n num); INSERT INTO a VALUES (1, '7');
    CREATE TABLE b (id int PRIMARY KEY, note text);
    CREATE FUNCTION is_big(a) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT ($1).id > 5';
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW WHEN (is_big(NEW)) EXECUTE FUNCTION touch();
    CREATE INDEX a_big ON a (is_big(a)); ALTER TABLE a ADD CHECK (is_big(a) OR true);
    ALTER TABLE a ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON a USING (EXISTS (SELECT FROM b WHERE b.id = a.id));
    CREATE RULE r AS ON DELETE TO a DO ALSO INSERT INTO b VALUES (OLD.id, 'gone');
    CREATE VIEW grouped AS SELECT id, n FROM a GROUP BY id;
    CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
    CREATE TRIGGER u BEFORE INSERT ON parted FOR EACH ROW EXECUTE FUNCTION touch();
    ALTER TABLE parted_1 DISABLE TRIGGER u;
    CREATE FUNCTION heard() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION heard();
    CREATE PUBLICATION told FOR ALL TABLES;
    CREATE SUBSCRIPTION taken CONNECTION 'dbname=nowhere' PUBLICATION x
      WITH (connect = false, slot_name = 'kept');
    SELECT lo_from_bytea(4711, 'abc');";

#[test]
fn what_depends_on_each_other_is_dropped_and_comes_back() {
    for version in [15, 18] {
        let server = server(version, TANGLED);
        let program = backed_up(&server);
        let before = server.sorted_dump("shop");
        server.script("shop", "DELETE FROM b; SELECT lo_put(4711, 0, 'spoilt')");
        over(&program, &server);
        assert_eq!(server.sorted_dump("shop"), before);
        assert_eq!(server.sql("shop", "SELECT lo_get(4711)"), "\\x616263");
        // The server drops such a type with all that depends on it.
        for (make, drop) in [
            ("CREATE TABLE outside (n num[])", "DROP TABLE outside"),
            (
                "CREATE FUNCTION outside(num) RETURNS int LANGUAGE sql AS 'SELECT 1'",
                "DROP FUNCTION outside",
            ),
        ] {
            server.script("shop", make);
            let before = server.sorted_dump("shop");
            let said = program.fails(&overwrite(&server).each_ref().map(String::as_str), b"", 1);
            assert!(said.contains("outside") && said.contains("nothing was dropped"), "{said}");
            assert_eq!(server.sorted_dump("shop"), before);
            server.script("shop", drop);
        }
    }
}

#[test]
fn rows_alone_set_nothing_back_and_must_fit() {
    for version in [15, 18] {
        let server = server(
            version,
            "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1), (2);
             CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent);
             INSERT INTO child (parent) VALUES (1), (2), (NULL); CREATE SEQUENCE behind;
             SELECT nextval('behind') FROM generate_series(1, 5);
             CREATE SEQUENCE down INCREMENT -1; SELECT nextval('down') FROM generate_series(1, 5);
             SELECT lo_from_bytea(1, 'abc'), lo_from_bytea(2, 'def')",
        );
        let program = backed_up(&server);
        server.script(
            "shop",
            "TRUNCATE child, parent; SELECT setval('child_id_seq', 70), setval('behind', 2),
               setval('down', -70); SELECT lo_put(1, 0, 'longer'), lo_unlink(2)",
        );
        let into = server.dsn("shop");
        let fill = ["restore", "--into", &into, "--data-only", "--yes-overwrite", "shop"];
        program.ok(&fill, b"");
        for (query, expected) in [
            ("SELECT count(*) FROM child", "3"),
            ("SELECT last_value FROM child_id_seq", "70"),
            ("SELECT last_value FROM behind", "5"),
            ("SELECT last_value FROM down", "-70"),
            ("SELECT lo_get(1), lo_get(2)", "\\x616263|\\x646566"),
        ] {
            assert_eq!(server.sql("shop", query), expected, "{version}: {query}");
        }
        server.script("shop", "DELETE FROM child; DELETE FROM parent WHERE id = 2");
        let said = program.fails(&[&fill[..], &["--table", "child"]].concat(), b"", 1);
        assert!(said.contains("child_parent_fkey of public.child"), "{said}");
    }
}
