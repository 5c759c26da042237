//! What a backup or restore of PostgreSQL must never do: miss what was committed before its snapshot, change
//! what is live, drop what it cannot put back.

use std::time::{Duration, Instant};

use crate::databases::{configure, shop};
use crate::databases_restore::backed_up;
use crate::postgres::{Postgres, succeeded};
use crate::support::*;

/// A server of this version with a database `shop` made by a script.
pub fn server(version: u32, script: &str) -> Postgres {
    let server = Postgres::version(version);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script("shop", script);
    server
}

/// Waits until so many locks of this kind are held or waited for.
fn until(server: &Postgres, kind: &str, count: &str) {
    let query = format!("SELECT count(*) FROM pg_locks WHERE {kind}");
    let started = Instant::now();
    while server.sql("postgres", &query) != count {
        assert!(started.elapsed() < Duration::from_secs(120), "not {count} with {kind}");
    }
}

/// What the program has of the database is restored as `name`.
pub fn restore(program: &Program, server: &Postgres, name: &str, more: &[&str]) {
    let into = server.dsn("postgres");
    let restore = ["restore", "--into", &into, "--database", name, "--create"];
    program.ok(&[&restore[..], more].concat(), b"");
}

/// A restore of `shop` over itself.
pub fn overwrite(server: &Postgres) -> [String; 6] {
    let words = ["restore", "--into", &server.dsn("shop"), "--clean", "--yes-overwrite", "shop"];
    words.map(str::to_owned)
}

#[test]
fn rows_that_were_committed_while_a_backup_waits_are_in_it() {
    for mode in ["tables", "dump"] {
        let server = server(
            15,
            "CREATE TABLE keyed (id int PRIMARY KEY, v text); INSERT INTO keyed VALUES (1, 'old');
             CREATE TABLE keyless (v text); INSERT INTO keyless VALUES ('old');
             CREATE TABLE rewritten (id int PRIMARY KEY); INSERT INTO rewritten VALUES (1);",
        );
        let program = Program::initialized();
        let config = configure(&program, &server, &format!("mode = \"{mode}\""));
        let waiting = |count: &str| until(&server, "NOT granted", count);
        let lock = "BEGIN; LOCK TABLE keyed IN ACCESS EXCLUSIVE MODE;";
        let change = "TRUNCATE keyed, keyless; INSERT INTO keyed VALUES (2, 'new');
            INSERT INTO keyless VALUES ('new');
            ALTER TABLE rewritten ADD COLUMN new float NOT NULL DEFAULT random(); COMMIT;";
        let (mut first, mut second) = (server.session("shop"), server.session("shop"));
        first.say(lock);
        until(&server, "mode = 'AccessExclusiveLock' AND granted", "1");
        let mut backup = program.command(&["--config", &config, "backup", "--source", "shop"]);
        let mut backup = backup.spawn().unwrap();
        // It waits while it looks what there is, and again for its locks: the second session comes first.
        // Nothing has changed since it looked, unless what it reads is older than its locks.
        waiting("1");
        second.say(lock);
        waiting("2");
        first.say("COMMIT;");
        first.end();
        waiting("1");
        second.say(change);
        second.end();
        assert!(backup.wait().unwrap().success());
        restore(&program, &server, "copy", &[]);
        assert_eq!(server.sql("copy", "SELECT * FROM keyed"), "2|new");
        assert_eq!(server.sql("copy", "SELECT * FROM keyless"), "new");
        assert_eq!(server.sql("copy", "SELECT count(new) FROM rewritten"), "1");
    }
}

const KNOWN: &str = "CREATE TABLE known (id int PRIMARY KEY, name text, is_own bool DEFAULT true);
    INSERT INTO known VALUES (1, 'by the script', false);
    SELECT pg_catalog.pg_extension_config_dump('known', 'WHERE is_own');
    CREATE TABLE fixed (id int); INSERT INTO fixed VALUES (1), (2);";

#[test]
fn rows_that_an_extension_makes_are_neither_lost_nor_doubled() {
    let server = Postgres::version(18);
    server.offer_extension("listing", KNOWN);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script("shop", "CREATE EXTENSION listing; INSERT INTO known VALUES (2, 'by us')");
    let rows = "SELECT string_agg(k::text, ' ' ORDER BY id) FROM known k";
    let before = server.sql("shop", rows);
    for mode in ["tables", "dump"] {
        let program = Program::initialized();
        let drill = format!(
            "mode = \"{mode}\"\n[drill.proof]\nsource = \"shop\"\nscratch = \"{}\"\nbin_dir = \"{}\"\n",
            server.dsn("postgres"),
            server.bin().display()
        );
        let config = configure(&program, &server, &drill);
        program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
        restore(&program, &server, mode, &[]);
        server.sql("shop", "DELETE FROM known");
        program.ok(&overwrite(&server).each_ref().map(String::as_str), b"");
        for database in [mode, "shop"] {
            assert_eq!(server.sql(database, rows), before);
            assert_eq!(server.sql(database, "SELECT count(*) FROM fixed"), "2");
        }
        program.ok(&["--config", &config, "drill", "run", "proof"], b"");
    }
}

#[test]
fn the_encoding_of_the_surroundings_changes_no_text() {
    for mode in ["tables", "dump"] {
        let server = server(
            15,
            "CREATE ROLE \"日本\"; CREATE TABLE \"Größe\" (id int PRIMARY KEY, v text);
             INSERT INTO \"Größe\" VALUES (1, 'Grüße €'), (2, '日本');
             CREATE TABLE keyless (v text); INSERT INTO keyless VALUES ('Grüße'), ('日本');
             COMMENT ON TABLE keyless IS '日本'; COMMENT ON DATABASE shop IS 'Grüße 日本';",
        );
        let program = Program::initialized();
        let config = configure(&program, &server, &format!("mode = \"{mode}\""));
        let mut backup = program.command(&["--config", &config, "backup", "--source", "shop"]);
        backup.env("PGCLIENTENCODING", "LATIN1");
        succeeded(backup);
        let into = server.dsn("copy");
        let mut restore = program.command(&["restore", "--into", &into, "--create"]);
        restore.env("PGCLIENTENCODING", "LATIN1");
        succeeded(restore);
        assert_eq!(server.sorted_dump("copy"), server.sorted_dump("shop"));
        let comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database
            WHERE datname = 'copy'";
        assert_eq!(server.sql("postgres", comment), "Grüße 日本");
        let globals = text(&program.ok(&["dump", "latest", "shop/globals.sql"], b""));
        assert!(globals.contains("CREATE ROLE \"日本\""), "{globals}");
    }
}

#[test]
fn a_clean_restore_drops_nothing_that_the_snapshot_lacks() {
    let server = server(
        15,
        "CREATE SCHEMA inner_; CREATE TABLE inner_.a (id int PRIMARY KEY);
         CREATE TABLE item (id serial PRIMARY KEY, v text); INSERT INTO item (v) VALUES ('x');
         CREATE TABLE parted (id int) PARTITION BY RANGE (id);
         CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
         CREATE VIEW shown AS SELECT v FROM item;",
    );
    let program = backed_up(&server);
    let overwrite = overwrite(&server);
    let overwrite = overwrite.each_ref().map(String::as_str);
    for (make, drop, name) in [
        ("CREATE VIEW later AS SELECT id FROM item", "DROP VIEW later", "later"),
        (
            "CREATE MATERIALIZED VIEW stored AS SELECT id FROM item",
            "DROP MATERIALIZED VIEW stored",
            "stored",
        ),
        ("CREATE TABLE child (i int REFERENCES item)", "DROP TABLE child", "child"),
        ("CREATE TABLE heir () INHERITS (item)", "DROP TABLE heir", "heir"),
        ("CREATE TABLE inner_.b (id int)", "DROP TABLE inner_.b", "inner_.b"),
        (
            "CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20)",
            "DROP TABLE parted_2",
            "parted_2",
        ),
    ] {
        server.sql("shop", &format!("{make}; UPDATE item SET v = 'live'"));
        let before = server.sorted_dump("shop");
        let said = program.fails(&overwrite, b"", 1);
        assert!(said.contains(name) && said.contains("nothing was dropped"), "{said}");
        assert_eq!(server.sorted_dump("shop"), before);
        server.sql("shop", drop);
    }
    // What is in nobody's way stays; what changed since is no hindrance.
    server.script(
        "shop",
        "CREATE TABLE apart (id int); INSERT INTO apart VALUES (1);
         ALTER TABLE item DROP COLUMN id CASCADE; DROP TABLE parted_1;",
    );
    program.ok(&overwrite, b"");
    assert_eq!(server.sql("shop", "SELECT id, v FROM item"), "1|x");
    assert_eq!(server.sql("shop", "SELECT count(*) FROM apart"), "1");
}

#[test]
fn a_table_beside_a_live_one_leaves_that_as_it_is() {
    let server = server(
        18,
        "CREATE ROLE keeper; CREATE TABLE item (id int NOT NULL, second int NOT NULL, v text);
         CREATE UNIQUE INDEX item_second ON item (second);
         ALTER TABLE item ADD CONSTRAINT item_key PRIMARY KEY (id),
           REPLICA IDENTITY USING INDEX item_second;
         ALTER TABLE item ALTER v SET STORAGE EXTERNAL, ALTER v SET STATISTICS 7,
           CLUSTER ON item_key, OWNER TO keeper, ENABLE ROW LEVEL SECURITY;
         COMMENT ON TABLE item IS 'old'; COMMENT ON COLUMN item.v IS 'old';
         COMMENT ON INDEX item_second IS 'old'; COMMENT ON CONSTRAINT item_key ON item IS 'old';
         INSERT INTO item SELECT i, i, i FROM generate_series(1, 100) i;",
    );
    let program = backed_up(&server);
    // What the snapshot says of it is not what it is now.
    server.script(
        "shop",
        "ALTER TABLE item ALTER v SET STORAGE MAIN, ALTER v SET STATISTICS 9, SET WITHOUT CLUSTER,
           REPLICA IDENTITY FULL, OWNER TO postgres, DISABLE ROW LEVEL SECURITY;
         COMMENT ON TABLE item IS 'new'; COMMENT ON COLUMN item.v IS 'new';
         COMMENT ON INDEX item_second IS 'new'; COMMENT ON CONSTRAINT item_key ON item IS 'new';
         UPDATE item SET v = 'live';",
    );
    let live = || {
        let mut dump = server.client("pg_dump");
        dump.args(["-d", "shop", "-n", "public"]);
        let dump = text(&succeeded(dump).stdout);
        dump.lines().filter(|it| !it.contains("restrict")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = live();
    let into = server.dsn("shop");
    program.ok(&["restore", "--into", &into, "--table", "public.item", "--into-schema", "s2"], b"");
    assert_eq!(live(), before);
    assert_eq!(server.sql("shop", "SELECT count(*), max(v) FROM s2.item"), "100|99");
    let keys = "SELECT count(*) FROM pg_indexes WHERE schemaname = 's2'";
    assert_eq!(server.sql("shop", keys), "2");
}

#[test]
fn a_database_that_is_made_again_has_its_owner_grants_comment_and_settings() {
    let server = server(
        15,
        "CREATE ROLE keeper; CREATE ROLE guest;
         ALTER DATABASE shop OWNER TO keeper; REVOKE ALL ON DATABASE shop FROM PUBLIC;
         GRANT CONNECT, CREATE ON DATABASE shop TO guest;
         COMMENT ON DATABASE shop IS 'the live DATABASE shop is named so';
         ALTER DATABASE shop SET work_mem = '7MB'; ALTER DATABASE shop CONNECTION LIMIT 17;
         ALTER ROLE guest IN DATABASE shop SET statement_timeout = '5s';",
    );
    let said = |database: &str| {
        let query = format!(
            "SELECT pg_get_userbyid(datdba), datacl, datconnlimit, shobj_description(d.oid, 'pg_database'),
               (SELECT string_agg(setrole::regrole || setconfig::text, ' ' ORDER BY setrole)
                FROM pg_db_role_setting WHERE setdatabase = d.oid)
             FROM pg_database d WHERE datname = '{database}'"
        );
        server.sql("postgres", &query)
    };
    let program = backed_up(&server);
    restore(&program, &server, "Odd \"name", &[]);
    for word in ["keeper", "guest=Cc", "17", "the live DATABASE shop is", "7MB", "timeout=5s"] {
        assert!(said("shop").contains(word), "{word}: {}", said("shop"));
    }
    assert_eq!(said("Odd \"name"), said("shop"));
    // Back to a name that needs no quotes.
    let program = Program::initialized();
    let odd = server.dsn("Odd%20%22name");
    program.ok(&["backup", "--source", &odd], b"");
    restore(&program, &server, "plain", &[]);
    assert_eq!(said("plain"), said("shop"));
    restore(&program, &server, "bare", &["--no-owner"]);
    assert!(said("bare").starts_with("postgres||17|"), "{}", said("bare"));
}

const CIRCLE: &str = "CREATE FUNCTION gate(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
      'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(1); RETURN i; END';
    CREATE TABLE gate_1 (id int); INSERT INTO gate_1 VALUES (1);
    CREATE TABLE gate_2 (id int); INSERT INTO gate_2 VALUES (1);
    CREATE INDEX a_gate_1 ON gate_1 (gate(id)); CREATE INDEX a_gate_2 ON gate_2 (gate(id));
    CREATE TABLE one (id int); CREATE UNIQUE INDEX b_one ON one (id); INSERT INTO one VALUES (1);
    CREATE TABLE two (id int); CREATE UNIQUE INDEX b_two ON two (id); INSERT INTO two VALUES (1);
    CREATE TABLE own (id int); CREATE UNIQUE INDEX b_own ON own (id); INSERT INTO own VALUES (1);
    ALTER TABLE one ADD CONSTRAINT f1 FOREIGN KEY (id) REFERENCES two (id);
    ALTER TABLE two ADD CONSTRAINT f2 FOREIGN KEY (id) REFERENCES one (id);
    ALTER TABLE own ADD CONSTRAINT f3 FOREIGN KEY (id) REFERENCES own (id);";

/// Two jobs that each made a key of the circle would have locked one table and wait for the other.
#[test]
fn keys_in_a_circle_come_back_by_several_jobs() {
    let server = server(18, CIRCLE);
    let program = backed_up(&server);
    server.sql("postgres", "CREATE DATABASE copy");
    let mut session = server.session("copy");
    session.say("DO 'BEGIN PERFORM pg_advisory_lock(1); END';");
    until(&server, "locktype = 'advisory' AND granted", "1");
    let into = server.dsn("copy");
    let mut restore = program.command(&["restore", "--into", &into, "--jobs", "2"]);
    let mut restore = restore.spawn().unwrap();
    // Both jobs make indexes. From here on no key can be made, and two of them are begun.
    until(&server, "locktype = 'advisory' AND NOT granted", "2");
    session.say("BEGIN; LOCK TABLE one, two, own IN SHARE MODE;");
    session.say("DO 'BEGIN PERFORM pg_advisory_unlock(1); END';");
    until(&server, "locktype = 'relation' AND mode = 'ShareRowExclusiveLock' AND NOT granted", "2");
    session.say("COMMIT;");
    session.end();
    assert!(restore.wait().unwrap().success());
    assert_eq!(server.sorted_dump("copy"), server.sorted_dump("shop"));
    let keys = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated";
    assert_eq!(server.sql("copy", keys), "3");
}

#[test]
fn everything_comes_back_by_several_jobs() {
    let server = shop(18);
    let program = backed_up(&server);
    restore(&program, &server, "copy", &["--jobs", "3"]);
    assert_eq!(server.sorted_dump("copy"), server.sorted_dump("shop"));
}
