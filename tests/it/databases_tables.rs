//! Single tables of PostgreSQL put back: what comes with them, what ties them to others, what stays.

use crate::databases_guard::server;
use crate::databases_restore::backed_up;
use crate::postgres::Postgres;
use crate::support::*;

/// Restores tables of `shop` over those that are there and gives what it said.
fn put_back(program: &Program, server: &Postgres, table: &str) -> String {
    let into = server.dsn("shop");
    let words =
        ["restore", "--into", &into, "--table", table, "--clean", "--yes-overwrite", "shop"];
    let output = program.run(&words, b"");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stderr)
}

const TIED: &str = "CREATE ROLE reader; CREATE TABLE customer (id int PRIMARY KEY, name text);
    INSERT INTO customer VALUES (1, 'a'), (2, 'b');
    CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customer);
    COMMENT ON CONSTRAINT orders_customer_fkey ON orders IS 'whose';
    INSERT INTO orders VALUES (1, 1); CREATE PUBLICATION told FOR TABLE customer, orders;
    CREATE TABLE measure (id int, at int, v int REFERENCES customer, PRIMARY KEY (id, at))
      PARTITION BY RANGE (at);
    CREATE INDEX measure_v ON measure (v);
    CREATE TABLE measure_1 PARTITION OF measure FOR VALUES FROM (0) TO (10);
    CREATE TABLE measure_2 PARTITION OF measure FOR VALUES FROM (10) TO (20);
    INSERT INTO measure VALUES (1, 1, 1), (1, 11, 2);
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER t BEFORE INSERT ON measure FOR EACH ROW EXECUTE FUNCTION touch();
    ALTER TABLE measure_1 DISABLE TRIGGER t;";

#[test]
fn a_table_comes_back_with_all_that_ties_it_to_others() {
    for version in [15, 18] {
        let server = server(version, TIED);
        let program = backed_up(&server);
        let before = server.sorted_dump("shop");
        server.script(
            "shop",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader;
             UPDATE customer SET name = 'spoilt'; UPDATE measure SET v = NULL;",
        );
        for table in ["customer", "measure_1", "measure_2", "orders"] {
            let said = put_back(&program, &server, table);
            assert!(!said.contains("warning"), "{table}: {said}");
        }
        server.script("shop", "DROP TABLE measure_1");
        let into = server.dsn("shop");
        let said = program.run(&["restore", "--into", &into, "--table", "measure_1"], b"");
        assert!(said.status.success(), "{}", text(&said.stderr));
        server.script("shop", "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM reader");
        assert_eq!(server.sorted_dump("shop"), before);
        // Publications that came later are told.
        server.script("shop", "CREATE PUBLICATION later FOR TABLE orders");
        let said = put_back(&program, &server, "orders");
        assert!(said.contains("public.orders is in the publication later"), "{said}");
        server.script("shop", "DROP PUBLICATION later");
        // Rows that came later keep the key from being valid, and it is told.
        server.script(
            "shop",
            "INSERT INTO customer VALUES (3, 'c'); INSERT INTO orders VALUES (2, 3)",
        );
        let said = put_back(&program, &server, "customer");
        assert!(said.contains("orders_customer_fkey is NOT VALID"), "{said}");
        server.script(
            "shop",
            "DELETE FROM orders WHERE id = 2; ALTER TABLE orders VALIDATE CONSTRAINT orders_customer_fkey",
        );
        assert_eq!(server.sorted_dump("shop"), before);
        // A key that the snapshot does not have, or has otherwise.
        for (make, undo, name) in [
            ("CREATE TABLE later (c int REFERENCES customer)", "DROP TABLE later", "later_c_fkey"),
            (
                "ALTER TABLE orders DROP CONSTRAINT orders_customer_fkey,
                   ADD CONSTRAINT orders_customer_fkey FOREIGN KEY (customer) REFERENCES customer
                   ON DELETE CASCADE",
                "SELECT",
                "orders_customer_fkey",
            ),
        ] {
            server.script("shop", make);
            let into = server.dsn("shop");
            let words = ["restore", "--into", &into, "--table", "customer", "--clean"];
            let words = [&words[..], &["--yes-overwrite", "shop"]].concat();
            let said = program.fails(&words, b"", 11);
            assert!(said.contains(name), "{said}");
            server.script("shop", undo);
        }
    }
}

#[test]
fn links_that_are_left_out_are_told() {
    let server = server(15, TIED);
    let program = backed_up(&server);
    server.sql("postgres", "CREATE DATABASE part");
    let into = server.dsn("part");
    let restore = ["restore", "--into", &into, "--table"];
    let said = program.run(&[&restore[..], &["orders"]].concat(), b"");
    assert!(said.status.success(), "{}", text(&said.stderr));
    let said = text(&said.stderr);
    assert!(said.contains("orders_customer_fkey is left out"), "{said}");
    assert!(said.contains("told orders are not tied"), "{said}");
    let said = program.ok(&[&restore[..], &["measure_1", "--json"]].concat(), b"");
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
    assert!(said["warnings"].to_string().contains("measure_1 is not attached"), "{said}");
    assert_eq!(server.sql("part", "SELECT count(*) FROM measure_1"), "1");
}

const NEEDY: &str = "CREATE SCHEMA s; CREATE TYPE s.kind AS ENUM ('a', 'b');
    CREATE DOMAIN s.few AS int CHECK (VALUE < 10);
    CREATE FUNCTION s.now_in(s.kind) RETURNS int LANGUAGE sql AS 'SELECT 3';
    COMMENT ON FUNCTION s.now_in(s.kind) IS 'three'; CREATE SEQUENCE s.free;
    CREATE COLLATION s.plain (provider = libc, locale = 'C');
    CREATE FUNCTION s.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TABLE s.thing (id int DEFAULT nextval('s.free') PRIMARY KEY, kind s.kind[], few s.few,
      v int DEFAULT s.now_in('a'), name text COLLATE s.plain);
    CREATE TRIGGER t BEFORE UPDATE ON s.thing FOR EACH ROW EXECUTE FUNCTION s.touch();
    INSERT INTO s.thing (kind, few, name) VALUES ('{a,b}', 1, 'x'), ('{}', 2, 'y');
    CREATE TABLE s.other (id int PRIMARY KEY, kind s.kind); INSERT INTO s.other VALUES (1, 'b');
    CREATE TABLE s.base (id int); CREATE TABLE s.heir () INHERITS (s.base);";

#[test]
fn a_table_brings_what_it_needs_and_leaves_what_is_there() {
    let server = server(15, NEEDY);
    let program = backed_up(&server);
    server.sql("postgres", "CREATE DATABASE part");
    let into = server.dsn("part");
    program.ok(&["restore", "--into", &into, "--table", "s.thing"], b"");
    let rows = "SELECT string_agg(t::text, ' ' ORDER BY id) FROM s.thing t";
    assert_eq!(server.sql("part", rows), server.sql("shop", rows));
    let about = "SELECT obj_description('s.now_in(s.kind)'::regprocedure), last_value FROM s.free";
    assert_eq!(server.sql("part", about), "three|2");
    // The type is there and has changed since: it stays.
    server.sql("part", "ALTER TYPE s.kind ADD VALUE 'c'");
    program.ok(&["restore", "--into", &into, "--table", "s.other"], b"");
    assert_eq!(server.sql("part", "SELECT kind FROM s.other"), "b");
    assert_eq!(server.sql("part", "SELECT enum_range(NULL::s.kind)"), "{a,b,c}");
    // Tables with rows are not brought along unasked.
    let said = program.fails(&["restore", "--into", &into, "--table", "s.heir"], b"", 11);
    assert!(said.contains("s.base"), "{said}");
    // Its definition alone is as much in the way as its rows.
    let again = ["restore", "--into", &into, "--table", "s.thing", "--schema-only"];
    let said = program.fails(&again, b"", 11);
    assert!(said.contains("holds s.thing already") && !said.contains("--clean"), "{said}");
    assert_eq!(server.sql("part", "SELECT count(*) FROM s.thing"), "2");
}

#[test]
fn tables_of_any_name_go_into_another_schema() {
    let server = server(
        15,
        "CREATE TABLE \"a (b\nc\" (id int CONSTRAINT \"k (\" PRIMARY KEY, v text DEFAULT E';\n(');
         CREATE INDEX \"on x\" ON \"a (b\nc\" (v); INSERT INTO \"a (b\nc\" (id) VALUES (1), (2);
         CREATE TABLE \"a*\" (id int PRIMARY KEY); CREATE TABLE ab (id int PRIMARY KEY);",
    );
    let program = backed_up(&server);
    let into = server.dsn("shop");
    let restore = ["restore", "--into", &into, "--table", "a (b\nc", "--into-schema", "s2"];
    program.ok(&restore, b"");
    let made = "SELECT count(*), count(v) FROM s2.\"a (b\nc\"";
    assert_eq!(server.sql("shop", made), "2|2");
    let keys = "SELECT count(*) FROM pg_indexes WHERE schemaname = 's2'";
    assert_eq!(server.sql("shop", keys), "2");
    program.fails(&[&restore[..], &["--clean"]].concat(), b"", 2);
    // The name of a table is no pattern.
    program.ok(&["restore", "--into", &into, "--table", "public.a*", "--into-schema", "s3"], b"");
    let tables = "SELECT string_agg(relname, ' ') FROM pg_class WHERE relkind = 'r'
        AND relnamespace = 's3'::regnamespace";
    assert_eq!(server.sql("shop", tables), "a*");
}
