//! SQLite as a source: what is backed up comes back, whatever happens meanwhile.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rusqlite::Connection;

use crate::support::*;

/// A database with SQL run in it.
fn database(path: &Path, sql: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(sql).unwrap();
    connection
}

fn ask(path: &Path, sql: &str) -> String {
    let connection = Connection::open(path).unwrap();
    let value = connection.query_row(sql, [], |row| row.get::<_, rusqlite::types::Value>(0));
    match value.unwrap() {
        rusqlite::types::Value::Integer(number) => number.to_string(),
        rusqlite::types::Value::Text(text) => text,
        other => format!("{other:?}"),
    }
}

fn address(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

/// Restores the newest snapshot into a file that is not there.
fn restored(program: &Program, name: &str) -> PathBuf {
    let path = program.path(name);
    program.ok(&["restore", "--into", &address(&path)], b"");
    assert_eq!(beside(&path), [name]);
    path
}

/// Files whose names begin as this one's.
fn beside(path: &Path) -> Vec<String> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> =
        names.filter(|it| it.starts_with(name) || it.starts_with(".restow")).collect();
    names.sort();
    names
}

#[test]
fn every_copy_is_of_one_moment_while_a_writer_runs() {
    let program = Program::initialized();
    let live = program.path("live.db");
    let writer = database(
        &live,
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 50;
         CREATE TABLE count (n INTEGER); INSERT INTO count VALUES (0);
         CREATE TABLE pairs (id INTEGER PRIMARY KEY, twice INTEGER, filler BLOB);
         CREATE INDEX by_twice ON pairs (twice);",
    );
    let (stop, written) = (&AtomicBool::new(false), &AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let id = written.load(Ordering::Relaxed) + 1;
                let sql = format!(
                    "BEGIN; UPDATE count SET n = {id};
                     INSERT INTO pairs VALUES ({id}, 2 * {id}, randomblob(200)); COMMIT"
                );
                writer.execute_batch(&sql).unwrap();
                written.store(id, Ordering::Relaxed);
            }
        });
        for round in 0..5 {
            let start = written.load(Ordering::Relaxed);
            while written.load(Ordering::Relaxed) < start + 300 {
                std::thread::yield_now();
            }
            let least = written.load(Ordering::Relaxed);
            program.ok(&["backup", "--source", &address(&live)], b"");
            let most = written.load(Ordering::Relaxed) + 1;
            let copy = restored(&program, &format!("copy{round}.db"));
            assert_eq!(ask(&copy, "PRAGMA integrity_check"), "ok");
            let count: u64 = ask(&copy, "SELECT n FROM count").parse().unwrap();
            assert!((least..=most).contains(&count), "{least} {count} {most}");
            assert_eq!(ask(&copy, "SELECT count(*) FROM pairs"), count.to_string());
            let sums = "SELECT sum(twice) = 2 * sum(id) AND max(id) = count(*) FROM pairs";
            assert_eq!(ask(&copy, sums), "1");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_damaged_database_is_refused() {
    let program = Program::initialized();
    let path = program.path("app.db");
    let sql = "CREATE TABLE t (x TEXT); CREATE INDEX i ON t (x);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
        INSERT INTO t SELECT hex(i * 7919) || ' text ' || i FROM n;";
    drop(database(&path, sql));
    program.ok(&["source", "test", &address(&path)], b"");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 3000].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let said = program.fails(&["backup", "--source", &address(&path)], b"", 1);
    assert!(said.contains("app.db") && said.contains("damaged"), "{said}");
    program.fails(&["source", "test", &address(&path)], b"", 1);
    let text_file = program.path("none.db");
    std::fs::write(&text_file, "no database at all, but longer than a header of one is ".repeat(9))
        .unwrap();
    let said = program.fails(&["backup", "--source", &address(&text_file)], b"", 1);
    assert!(said.contains("none.db") && said.contains("not a database"), "{said}");
    let said = program.fails(&["backup", "--source", &address(&program.path("gone.db"))], b"", 1);
    assert!(said.contains("gone.db") && !program.path("gone.db").exists(), "{said}");
    assert_eq!(program.ok(&["--json", "snapshots"], b""), b"");
}

/// A database whose last rows wait in the file beside it, as a crash leaves it.
fn crashed(program: &Program, name: &str) -> PathBuf {
    let origin = program.path("origin.db");
    let _ = std::fs::remove_file(&origin);
    let connection = database(
        &origin,
        "PRAGMA journal_mode = WAL; CREATE TABLE old (x); INSERT INTO old VALUES (1);
         PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO old VALUES (2);",
    );
    let path = program.path(name);
    for suffix in ["", "-wal", "-shm"] {
        let from = format!("{}{suffix}", origin.display());
        std::fs::copy(from, format!("{}{suffix}", path.display())).unwrap();
    }
    drop(connection);
    path
}

#[test]
fn a_file_that_is_there_is_replaced_only_where_it_is_confirmed() {
    use std::os::unix::fs::PermissionsExt;
    let program = Program::initialized();
    let new = program.path("new.db");
    drop(database(
        &new,
        "PRAGMA journal_mode = WAL; CREATE TABLE new (x); INSERT INTO new VALUES (9)",
    ));
    program.ok(&["backup", "--source", &address(&new)], b"");
    let target = crashed(&program, "target.db");
    let into = address(&target);
    let restore = ["restore", "--into", &into];
    let confirmed = [&restore[..], &["--yes-overwrite", "target.db"]].concat();
    for words in [
        &restore[..],
        &[&restore[..], &["--dry-run"]].concat(),
        &[&restore[..], &["--yes-overwrite", "x"]].concat(),
    ] {
        let said = program.fails(words, b"", 11);
        assert!(said.contains("--yes-overwrite target.db"), "{said}");
    }
    program.ok(&[&confirmed[..], &["--dry-run"]].concat(), b"");
    assert_eq!(beside(&target), ["target.db", "target.db-shm", "target.db-wal"]);
    assert_eq!(ask(&target, "SELECT sum(x) FROM old"), "3");

    let target = crashed(&program, "target.db");
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o640)).unwrap();
    program.ok(&confirmed, b"");
    assert_eq!(beside(&target), ["target.db"]);
    assert_eq!(target.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(ask(&target, "SELECT x FROM new"), "9");

    let holder = database(&target, "SELECT * FROM new");
    let said = program.fails(&confirmed, b"", 11);
    assert!(said.contains("open"), "{said}");
    assert_eq!(ask(&target, "SELECT x FROM new"), "9");
    drop(holder);
    // Stale files without a database, and what is no database, are no obstacle.
    std::fs::write(&target, "nonsense").unwrap();
    std::fs::write(program.path("target.db-wal"), "more nonsense").unwrap();
    program.ok(&confirmed, b"");
    assert_eq!(ask(&target, "SELECT x FROM new"), "9");
    for option in ["--clean", "--schema-only", "--create"] {
        let said = program.fails(&[&confirmed[..], &[option]].concat(), b"", 2);
        assert!(said.contains(option), "{said}");
    }
}

#[test]
fn a_restore_that_is_killed_leaves_the_old_one_or_the_new_one() {
    let program = Program::initialized();
    let new = program.path("new.db");
    let sql = "CREATE TABLE new (x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
        WHERE i < 4000) INSERT INTO new SELECT randomblob(900) FROM n;";
    drop(database(&new, sql));
    program.ok(&["backup", "--source", &address(&new)], b"");
    for round in 0..8 {
        let target = crashed(&program, "target.db");
        let into = address(&target);
        let words = ["restore", "--into", &into, "--yes-overwrite", "target.db"];
        let mut child =
            program.command(&words).stdout(std::process::Stdio::null()).spawn().unwrap();
        let is_begun = || beside(&target).iter().any(|name| name.starts_with(".restow"));
        while !is_begun() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        // A little later each time.
        for _ in 0..round * 20 {
            is_begun();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let is_old = ask(&target, "SELECT count(*) FROM sqlite_schema WHERE name = 'old'") == "1";
        let whole =
            if is_old { "SELECT sum(x) = 3 FROM old" } else { "SELECT count(*) = 4000 FROM new" };
        assert_eq!(ask(&target, whole), "1");
        assert_eq!(ask(&target, "PRAGMA integrity_check"), "ok");
        for name in beside(&target) {
            std::fs::remove_file(program.path(&name)).unwrap();
        }
    }
}

const ODD: &str = r#"
CREATE TABLE plain (id INTEGER PRIMARY KEY, t TEXT, r REAL, b BLOB, g AS (id * 2));
INSERT INTO plain (id, t, r, b) VALUES (1, 'a,b "c"' || char(10) || 'd', 1.5, x'00ff'), (2, NULL, 9e999, x''),
  (3, CAST(x'ff41' AS TEXT), -9e999, NULL), (4, 'a' || char(0) || 'b', 0.1, 'it''s'), (5, '', 1e300, 7);
CREATE TABLE "odd ""name"".x;--" ("a b" TEXT, "sel""ect" PRIMARY KEY) WITHOUT ROWID;
INSERT INTO "odd ""name"".x;--" VALUES ('Größe 😀', 1), ('\N', 2);
CREATE VIRTUAL TABLE docs USING fts5 (title, body);
INSERT INTO docs VALUES ('one', 'quick brown fox'), ('two', 'lazy dog');
CREATE TABLE empty (x);
CREATE VIEW v AS SELECT id FROM plain;
CREATE TRIGGER tr AFTER INSERT ON plain BEGIN DELETE FROM empty; END;
"#;

#[test]
fn odd_tables_are_kept_listed_and_written() {
    let program = Program::initialized();
    let path = program.path("odd.db");
    drop(database(&path, ODD));
    program.ok(&["backup", "--source", &address(&path)], b"");
    let listed = text(&program.ok(&["tables"], b""));
    assert!(listed.contains("odd \"name\".x;--") && listed.contains("docs"), "{listed}");
    let copy = restored(&program, "copy.db");
    assert_eq!(ask(&copy, "SELECT title FROM docs WHERE docs MATCH 'fox'"), "one");
    let dump =
        |table: &str, format: &str| program.ok(&["dump", "latest", table, "--format", format], b"");
    let csv = dump("odd \"name\".x;--", "csv");
    assert_eq!(text(&csv), "a b,\"sel\"\"ect\"\nGröße 😀,1\n\\N,2\n");
    let copy = dump("odd \"name\".x;--", "copy");
    assert_eq!(text(&copy), "Größe 😀\t1\n\\\\N\t2\n");
    let csv = dump("plain", "csv");
    assert!(
        csv.starts_with(b"id,t,r,b\n1,\"a,b \"\"c\"\"\nd\",1.5,\\x00ff\n2,,"),
        "{}",
        text(&csv)
    );
    assert!(csv.windows(4).any(|bytes| bytes == b"3,\xffA"));

    let again = program.path("again.db");
    let connection = database(&again, ODD);
    connection
        .execute_batch("DELETE FROM plain; DELETE FROM \"odd \"\"name\"\".x;--\"; DELETE FROM docs")
        .unwrap();
    for table in ["plain", "odd \"name\".x;--", "docs"] {
        connection.execute_batch(std::str::from_utf8(&dump(table, "sql")).unwrap()).unwrap();
    }
    connection.execute("ATTACH ?1 AS was", [path.to_str().unwrap()]).unwrap();
    for table in ["plain", "\"odd \"\"name\"\".x;--\"", "docs"] {
        let differ = format!(
            "SELECT (SELECT count(*) FROM (SELECT * FROM {table} EXCEPT SELECT * FROM was.{table}))
                  + (SELECT count(*) FROM (SELECT * FROM was.{table} EXCEPT SELECT * FROM {table}))"
        );
        let count: i64 = connection.query_row(&differ, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0, "{table}");
    }
    let types = "SELECT group_concat(typeof(t) || typeof(r) || typeof(b)) FROM ";
    assert_eq!(ask(&again, &format!("{types} plain")), ask(&path, &format!("{types} plain")));
}

#[test]
fn empty_databases_and_databases_in_wal_mode_are_copied() {
    let program = Program::initialized();
    let empty = program.path("empty.db");
    std::fs::write(&empty, "").unwrap();
    program.ok(&["backup", "--source", &address(&empty)], b"");
    let copy = restored(&program, "copy of empty.db");
    assert_eq!(ask(&copy, "SELECT count(*) FROM sqlite_schema"), "0");

    let program = Program::initialized();
    let path = program.path("wal.db");
    let wal = "PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (5)";
    drop(database(&path, wal));
    assert_eq!(beside(&path), ["wal.db"]);
    program.ok(&["backup", "--source", &address(&path)], b"");
    let copy = restored(&program, "copy?#%.db");
    assert_eq!(ask(&copy, "SELECT x FROM t"), "5");
    let said = program.fails(&["restore", "--into", "sqlite:/x/y", "--table", "t"], b"", 2);
    assert!(said.contains("restow dump"), "{said}");
}

#[test]
fn a_day_of_changes_costs_little() {
    let program = Program::initialized();
    let path = program.path("app.db");
    let connection = database(
        &path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT); CREATE INDEX i ON t (x);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
         INSERT INTO t SELECT i, hex(randomblob(40)) FROM n;",
    );
    let back_up = || {
        let said = text(&program.ok(&["--json", "backup", "--source", &address(&path)], b""));
        let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        let number = |name: &str| last["summary"][name].as_u64().unwrap();
        (number("read_bytes"), number("added_bytes"))
    };
    back_up();
    connection
        .execute_batch(
            "UPDATE t SET x = hex(randomblob(40)) WHERE id % 2000 = 0;
             DELETE FROM t WHERE id = 17; INSERT INTO t SELECT NULL, 'new ' || id FROM t LIMIT 100",
        )
        .unwrap();
    let (read, added) = back_up();
    assert!(read > 10_000_000 && added * 100 < read * 5, "{added} of {read}");
}

#[test]
fn drills_prove_that_it_restores() {
    let program = Program::initialized();
    let path = program.path("app.db");
    drop(database(
        &path,
        "PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1), (2)",
    ));
    let config = program.path("restow.toml");
    let assertion = |name: &str, equals: &str| {
        format!(
            "[drill.{name}]\nsource = \"app\"\n[[drill.{name}.assert]]\n\
             sql = \"SELECT sum(x) FROM t\"\nequals = \"{equals}\"\n"
        )
    };
    let source = format!("[source.app]\ntype = \"sqlite\"\npath = \"{}\"\n", path.display());
    let old = "[drill.old]\nsource = \"app\"\nrpo = \"1d\"\nnewest = \"SELECT '2020-01-01'\"\n";
    let text_of_config = source + &assertion("good", "3") + &assertion("false", "4") + old;
    std::fs::write(&config, text_of_config).unwrap();
    let temporary = program.path("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let config = config.to_str().unwrap();
    let run = |words: &[&str]| {
        let mut command = program.command(&[&["--config", config], words].concat());
        command.env("TMPDIR", &temporary);
        let output = feed(command, b"");
        assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(run(&["backup", "--source", "app"]).0, Some(0));
    let (code, said, _) = run(&["drill", "run", "good"]);
    assert!(
        code == Some(0) && said.contains("integrity_check: ok") && said.contains("RTO"),
        "{said}"
    );
    let (code, _, said) = run(&["drill", "run", "false"]);
    assert!(
        code == Some(4) && said.contains("(assertion)") && said.contains("is 3, not 4"),
        "{said}"
    );
    let (code, _, said) = run(&["drill", "run", "old"]);
    assert!(code == Some(4) && said.contains("(rpo)"), "{said}");
    assert_eq!(run(&["drill", "run", "good", "--level", "read"]).0, Some(0));
    for pack in program.objects("data") {
        let mut bytes = std::fs::read(&pack).unwrap();
        let len = bytes.len();
        bytes[len / 8..len - len / 8].fill(1);
        std::fs::write(&pack, bytes).unwrap();
    }
    let (code, _, said) = run(&["drill", "run", "good", "--no-report"]);
    assert!(code == Some(4) && said.contains("(damaged)"), "{code:?} {said}");
}

#[test]
fn what_only_its_program_understands_is_backed_up_with_a_warning() {
    let program = Program::initialized();
    let live = program.path("live.db");
    let connection = database(
        &live,
        "CREATE TABLE plain (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO plain VALUES (1, 'a');
         CREATE TABLE odd (v TEXT); INSERT INTO odd VALUES ('x'); CREATE INDEX by_v ON odd (v);
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = 'CREATE TABLE odd (v TEXT COLLATE mine)' WHERE name = 'odd';
         INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql)
           VALUES ('table', 'vectors', 'vectors', 0, 'CREATE VIRTUAL TABLE vectors USING vec0(a)');",
    );
    drop(connection);
    let output = program.run(&["backup", "--source", &address(&live)], b"");
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("could not look at everything"), "{said}");
    assert!(said.contains("tables: odd"), "{said}");
    let tables = text(&program.ok(&["tables"], b""));
    assert!(tables.contains("plain") && tables.contains("vectors"), "{tables}");
    let back = program.path("back.db");
    let said = text(&program.ok(&["restore", "--into", &address(&back)], b""));
    assert!(said.contains("could not look at everything"), "{said}");
    assert_eq!(ask(&back, "SELECT v FROM plain"), "a");
}

#[test]
fn rows_that_changed_are_told_and_what_a_killed_backup_left_is_cleared() {
    let program = Program::initialized();
    let live = program.path("live.db");
    let connection = database(
        &live,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b');
         CREATE TABLE same (id INTEGER PRIMARY KEY); CREATE VIRTUAL TABLE words USING fts5(w)",
    );
    let source = address(&live);
    let temporary = program.path("temporary");
    // No process has such a number.
    let left = temporary.join("restow-sqlite-2147483646-x");
    std::fs::create_dir_all(&left).unwrap();
    let backup = ["backup", "--source", &source, "--verify"];
    let output = program.command(&backup).env("TMPDIR", &temporary).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    connection.execute_batch("UPDATE t SET v = 'c' WHERE id = 2").unwrap();
    let old = program.first_snapshot();
    program.ok(&backup, b"");
    let changed = text(&program.ok(&["diff", "--tables", &old], b""));
    assert!(changed.starts_with("M    t  2 rows (+0)"), "{changed}");
    assert_eq!(changed.lines().count(), 1, "{changed}");
}
