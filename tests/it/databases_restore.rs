//! Putting databases back, whole and in parts, and getting at their tables and rows.

use std::sync::Arc;

use restow::database::Surroundings;
use restow::database::postgres::dsn::Dsn;
use restow::database::postgres::restore::{Origin, RestoreOptions, execute, plan};
use restow::database::verify::catalogues;
use restow::progress::Progress;
use restow::repository::Repository;
use restow::repository::snapshots::Filter;
use restow::store::Store;
use restow::store::local::LocalStore;
use restow::store::record::{Call, RecordingStore};

use crate::databases::{configure, shop};
use crate::postgres::{Postgres, succeeded};
use crate::support::*;

pub fn backed_up(server: &Postgres) -> Program {
    let program = Program::initialized();
    let config = configure(&program, server, "");
    program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
    program
}

#[test]
fn a_database_that_holds_something_is_left_alone_unless_it_is_named() {
    let server = shop(15);
    let program = backed_up(&server);
    let config = configure(&program, &server, "");
    let restore = ["--config", &config, "restore", "--source", "shop"];
    let said = program.fails(&restore, b"", 11);
    assert!(said.contains("--clean"), "{said}");
    let clean = [&restore[..], &["--clean"]].concat();
    let said = program.fails(&clean, b"", 11);
    assert!(said.contains("--yes-overwrite shop") && said.contains("was made of"), "{said}");
    let wrong = [&clean[..], &["--yes-overwrite", "other"]].concat();
    program.fails(&wrong, b"", 11);
    server.sql("shop", "DELETE FROM plain.serials WHERE id > 5; DROP VIEW plain.v");
    let dry = [&clean[..], &["--yes-overwrite", "shop", "--dry-run"]].concat();
    let said = text(&program.ok(&dry, b""));
    assert!(said.contains("drop what is there") && said.contains("nothing was changed"), "{said}");
    assert_eq!(server.sql("shop", "SELECT count(*) FROM plain.serials"), "5");
    let right = [&clean[..], &["--yes-overwrite", "shop"]].concat();
    program.ok(&right, b"");
    assert_eq!(server.sql("shop", "SELECT count(*) FROM plain.v"), "3000");
}

#[test]
fn one_table_comes_back_with_all_that_is_its_own() {
    let server = shop(18);
    let program = backed_up(&server);
    server.sql("postgres", "CREATE DATABASE part");
    server.script(
        "part",
        "CREATE SCHEMA plain; CREATE FUNCTION plain.touch() RETURNS trigger
        LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    );
    let into = server.dsn("part");
    program.ok(&["restore", "--into", &into, "--table", "plain.serials"], b"");
    let shape = |database: &str| {
        let mut dump = server.client("pg_dump");
        dump.args(["-d", database, "-t", "plain.serials"]);
        let text = text(&succeeded(dump).stdout);
        text.lines()
            .filter(|line| !line.contains("restrict"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(shape("part"), shape("shop"));
    // Beside the live one: rows and key.
    server.sql("shop", "UPDATE plain.serials SET v = 'spoilt'");
    let into = server.dsn("shop");
    let beside =
        ["restore", "--into", &into, "--table", "plain.serials", "--into-schema", "recovered"];
    program.ok(&beside, b"");
    let mended = "UPDATE plain.serials s SET v = r.v FROM recovered.serials r
        WHERE r.id = s.id AND r.second = s.second";
    server.sql("shop", mended);
    let rows = "SELECT md5(string_agg(s::text, ',' ORDER BY id)) FROM plain.serials s";
    assert_eq!(server.sql("shop", rows), server.sql("part", rows));
    let said = program.fails(&["restore", "--into", &into, "--table", "plain.nothing"], b"", 2);
    assert!(said.contains("'plain.nothing'"), "{said}");
}

#[test]
fn one_of_fifty_tables_reads_no_more_than_its_share() {
    let server = Postgres::version(15);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script(
        "shop",
        "DO $$ BEGIN FOR i IN 1..50 LOOP
        EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, body text)', i);
        EXECUTE format('INSERT INTO t%s SELECT n, md5(n::text || %s) || md5(random()::text)
            || md5(random()::text) || md5(random()::text)
          FROM generate_series(1, 10000) n', i, i); END LOOP; END $$",
    );
    for mode in ["tables", "dump"] {
        let program = Program::initialized();
        let config = configure(&program, &server, &format!("mode = \"{mode}\""));
        program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
        let packs: u64 =
            program.objects("data").iter().map(|path| path.metadata().unwrap().len()).sum();
        let database = format!("one_{mode}");
        server.sql("postgres", &format!("CREATE DATABASE {database}"));
        let store = Arc::new(RecordingStore::new(LocalStore::open(program.path("repo")).unwrap()));
        let repository = Repository::open(
            store.clone(),
            &secret(),
            environment(Arc::new(restow::entropy::OsEntropy)),
        )
        .unwrap();
        store.take();
        let named = repository.find_snapshot("latest", &Filter::default()).unwrap();
        let found = catalogues(&repository, &named.snapshot).unwrap();
        let origin =
            Origin { repository: &repository, snapshot: &named.snapshot, catalogue: &found[0] };
        let dsn = Dsn::parse(&server.dsn(&database), &|_| None).unwrap();
        let options =
            RestoreOptions { tables: vec!["public.t17".into()], ..RestoreOptions::new(dsn) };
        let surroundings = Surroundings {
            variables: Box::new(|_| None),
            path: None,
            temporary: std::env::temp_dir(),
            progress: Arc::default(),
        };
        let plan = plan(&origin, &options, &surroundings).unwrap();
        let report =
            execute(&origin, &plan, &options, &surroundings, &Arc::new(Progress::default()))
                .unwrap();
        assert_eq!((report.tables, report.rows), (1, 10000));
        let bytes = |call: &Call| match call {
            Call::GetRange(_, length) => *length as u64,
            Call::Get(path) => store.head(path).unwrap(),
            _ => 0,
        };
        let read: u64 = store.take().iter().map(bytes).sum();
        assert!(read * 100 <= packs * 4, "{mode}: {read} of {packs} bytes were read");
        let rows = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM t17 t";
        assert_eq!(server.sql(&database, rows), server.sql("shop", rows));
    }
}

#[test]
fn tables_are_exported_in_forms_that_can_be_read_back() {
    let server = shop(15);
    let program = backed_up(&server);
    server.sql("shop", "CREATE TABLE plain.again (LIKE plain.serials)");
    for (format, options) in [("csv", "FORMAT csv, HEADER"), ("copy", "FORMAT text")] {
        let bytes = program.ok(&["dump", "latest", "plain.serials", "--format", format], b"");
        let mut load = server.client("psql");
        load.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-d", "shop", "-c"]);
        load.arg(format!("COPY plain.again FROM STDIN WITH ({options})"));
        let output = feed(load, &bytes);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let same = "SELECT count(*) FROM (TABLE plain.again EXCEPT ALL TABLE plain.serials) d";
        assert_eq!(server.sql("shop", same), "0");
        assert_eq!(server.sql("shop", "SELECT count(*) FROM plain.again"), "3000");
        server.sql("shop", "TRUNCATE plain.again");
    }
    let sql = program.ok(&["dump", "latest", "plain.left_", "--format", "sql"], b"");
    server.sql("shop", "TRUNCATE plain.left_, plain.right_");
    server.script(
        "shop",
        &text(&sql).replace("COPY", "SET session_replication_role = replica; COPY"),
    );
    assert_eq!(server.sql("shop", "SELECT count(*) FROM plain.left_"), "2");
    let said = program.fails(&["dump", "latest", "nothing", "--format", "csv"], b"", 2);
    assert!(said.contains("no table 'nothing'"), "{said}");
}

#[test]
fn rows_that_changed_are_found_and_put_back() {
    let server = shop(18);
    let program = backed_up(&server);
    let table = "\"Shop.Main\".\"Cust\"\"omer; Type: TABLE\"";
    let sum = format!("SELECT md5(string_agg(c::text, ',' ORDER BY \"Id\")) FROM {table} c");
    let before = server.sql("shop", &sum);
    server.script(
        "shop",
        &format!(
            "DELETE FROM {table} WHERE \"Id\" IN (3, 7, 499);
             UPDATE {table} SET \"na me\" = 'x', total = NULL WHERE \"Id\" = 42;
             INSERT INTO {table} (\"na me\") VALUES ('new one');"
        ),
    );
    let live = server.dsn("shop");
    let back = program.path("back.sql");
    let name = "Shop.Main.Cust\"omer; Type: TABLE";
    let said = text(&program.ok(
        &["rows", "diff", "latest", &live, "--table", name, "--sql", back.to_str().unwrap()],
        b"",
    ));
    assert!(said.contains("1 added, 3 removed, 1 changed"), "{said}");
    assert!(said.contains("M 42  na me: ") && said.contains("total: NaN -> NULL"), "{said}");
    server.script("shop", &std::fs::read_to_string(&back).unwrap());
    assert_eq!(server.sql("shop", &sum), before);
    let said = program.fails(&["rows", "diff", "latest", &live, "--table", "plain.nokey"], b"", 2);
    assert!(said.contains("--key"), "{said}");
}

#[test]
fn values_that_moved_to_another_row_are_put_back() {
    let server = Postgres::version(15);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script(
        "shop",
        "CREATE TABLE seat (id int PRIMARY KEY, place text UNIQUE, next int REFERENCES seat
           DEFERRABLE);
         INSERT INTO seat VALUES (1, 'window'), (2, 'aisle'), (3, 'middle'), (4, 'door');
         UPDATE seat SET next = id % 4 + 1;",
    );
    let program = backed_up(&server);
    let rows = "SELECT string_agg(s::text, ',' ORDER BY id) FROM seat s";
    let before = server.sql("shop", rows);
    // Of a row that is gone to one that was there, and to one that is new.
    server.script(
        "shop",
        "UPDATE seat SET next = NULL; DELETE FROM seat WHERE id IN (1, 4);
         UPDATE seat SET place = 'window' WHERE id = 2;
         INSERT INTO seat VALUES (5, 'door', 3), (6, 'aisle', 5);",
    );
    let back = program.path("back.sql");
    let (live, back) = (server.dsn("shop"), back.to_str().unwrap());
    program.ok(&["rows", "diff", "latest", &live, "--table", "seat", "--sql", back], b"");
    let sql = std::fs::read_to_string(back).unwrap();
    server.script("shop", &sql);
    assert_eq!(server.sql("shop", rows), before, "{sql}");
}

#[test]
fn rows_are_not_compared_by_what_several_have() {
    let server = Postgres::version(15);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script(
        "shop",
        "CREATE TABLE twice (a int, b text); INSERT INTO twice VALUES (1, 'x'), (2, 'x')",
    );
    let program = backed_up(&server);
    let live = server.dsn("shop");
    let refused = |side: &str, key: &str, value: &str| {
        let back = program.path(&format!("{side}-{value}.sql"));
        let diff = ["rows", "diff", "latest", &live, "--table", "twice", "--key", key, "--sql"];
        let said = program.fails(&[&diff[..], &[back.to_str().unwrap()]].concat(), b"", 2);
        let expected = format!("two rows {side} have the key {value}");
        assert!(said.contains(&expected), "{said}");
        let sql = std::fs::read_to_string(back).unwrap();
        assert!(!sql.contains("COMMIT"), "{sql}");
    };
    refused("of the snapshot", "b", "x");
    program.ok(&["rows", "diff", "latest", &live, "--table", "twice", "--key", "a"], b"");
    // Both are in the snapshot once, or not at all.
    server.script("shop", "INSERT INTO twice VALUES (2, 'x')");
    refused("live", "a", "2");
    server.script("shop", "DELETE FROM twice WHERE a = 2; INSERT INTO twice VALUES (7), (7)");
    refused("live", "a", "7");
}

#[test]
fn snapshots_are_compared_table_by_table() {
    let server = shop(15);
    let program = backed_up(&server);
    let first = program.first_snapshot();
    server.script(
        "shop",
        "INSERT INTO plain.serials (v) VALUES ('one more'); CREATE INDEX more ON plain.big (md5(body));
         CREATE TABLE plain.fresh (a int PRIMARY KEY); DROP TABLE plain.empty CASCADE;",
    );
    let config = configure(&program, &server, "");
    program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
    let said = text(&program.ok(&["diff", "--tables", &first, "latest"], b""));
    assert!(said.contains("M    plain.serials  3001 rows (+1)"), "{said}");
    assert!(
        said.contains("plain.big  4 rows (+0)") && said.contains("definition changed"),
        "{said}"
    );
    assert!(said.contains("+    plain.fresh") && said.contains("-    plain.empty"), "{said}");
    assert!(!said.contains("plain.dot.ted"), "{said}");
}

#[test]
fn dumps_on_stdin_are_understood_and_restored_by_table() {
    for version in [15, 18] {
        let server = shop(version);
        for (name, options) in [("plain", "-Fp"), ("archive", "-Fc")] {
            let program = Program::initialized();
            let mut dump = server.client("pg_dump");
            dump.args([options, "-Z0", "-d", "shop"]);
            let bytes = succeeded(dump).stdout;
            program.backup(name, &bytes);
            assert_eq!(program.ok(&["dump", "latest", name], b""), bytes);
            assert_eq!(program.ok(&["dump", "latest"], b""), bytes);
            let listed = text(&program.ok(&["tables"], b""));
            assert!(listed.contains("plain.serials") && listed.contains("3000"), "{listed}");
            let database = format!("{name}_{version}");
            server.sql("postgres", &format!("CREATE DATABASE {database}"));
            let into = server.dsn(&database);
            program.ok(&["restore", "--into", &into], b"");
            assert_eq!(server.sorted_dump(&database), server.sorted_dump("shop"));
            let database = format!("{name}_{version}_one");
            server.sql("postgres", &format!("CREATE DATABASE {database}"));
            server.script(&database, "CREATE SCHEMA plain");
            let into = server.dsn(&database);
            program.ok(&["restore", "--into", &into, "--table", "plain.dot.ted"], b"");
            assert_eq!(server.sql(&database, "SELECT * FROM plain.\"dot.ted\""), "1|x");
            // Cut off: no snapshot, unless that is wanted.
            let cut = &bytes[..bytes.len() * 9 / 10];
            let stdin = ["backup", "--stdin", "--stdin-filename", name];
            let said = program.fails(&stdin, cut, 1);
            assert!(said.contains("cut off"), "{said}");
            assert_eq!(program.objects("snap").len(), 1);
            program.ok(&[&stdin[..], &["--allow-cut-off"]].concat(), cut);
            assert_eq!(program.ok(&["dump", "latest", name], b""), cut);
        }
    }
}
