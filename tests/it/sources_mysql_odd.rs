//! MariaDB as a source: hostile dumps, odd names, and what is lost or overwritten without a word elsewhere.

use std::process::Stdio;

use crate::mariadb::{MariaDb, script};
use crate::sources_mysql::{configured, drill, drill_command, source, text_of};
use crate::support::*;

/// A whole dump with words of somebody else in it.
fn dump_with(words: &str) -> Vec<u8> {
    format!(
        "-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB, for debian-linux-gnu (x86_64)\n--\n\
         -- Host: localhost    Database: evil\n-- Server version\t10.11.6-MariaDB\n\n\
         /*!40101 SET NAMES utf8mb4 */;\n\n--\n-- Current Database: `evil`\n--\n\n\
         CREATE DATABASE /*!32312 IF NOT EXISTS*/ `evil` /*!40100 DEFAULT CHARACTER SET utf8mb4 */;\n\n\
         USE `evil`;\n\n--\n-- Table structure for table `t`\n--\n\n\
         CREATE TABLE `t` (\n  `a` text DEFAULT NULL\n);\n\n{words}\n\
         /*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;\n\n-- Dump completed\n"
    )
    .into_bytes()
}

/// Clients in a folder that come before the real ones: one notes who runs it, one is older.
fn clients(program: &Program) -> (String, String) {
    let log = program.path("calls");
    std::fs::write(&log, "").unwrap();
    let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&log, anybody).unwrap();
    let lines = format!(
        "{{ id -u; cat /proc/$$/environ; }} >> {}\nexec /usr/bin/mariadb \"$@\"",
        log.display()
    );
    script(&program.path("noting/mariadb"), &lines);
    let lines = "case \"$*\" in *--help*) /usr/bin/mariadb --help | grep -v sandbox; exit;; \
        *--sandbox*) exit 9;; esac; exec /usr/bin/mariadb \"$@\"";
    script(&program.path("older/mariadb"), lines);
    let path = |name: &str| {
        let folder = program.path(name);
        format!("{}:{}", folder.display(), crate::postgres::path().to_str().unwrap())
    };
    (path("noting"), path("older"))
}

#[test]
fn a_hostile_dump_runs_no_commands() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    let (noting, older) = clients(&program);
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    let proof = program.path("proof");
    std::fs::create_dir(&proof).unwrap();
    std::fs::set_permissions(&proof, open).unwrap();
    let secret = program.path("secret");
    std::fs::write(&secret, "CREATE DATABASE sourced;\n").unwrap();
    let (made, secret) = (proof.join("made").display().to_string(), secret.display().to_string());
    let words = [
        format!("system touch {made}"),
        format!("\\! touch {made}"),
        format!("SELECT 1 \\! touch {made}\n;"),
        format!("DELIMITER ;;\n\\! touch {made}\nSELECT 1;;\nDELIMITER ;"),
        format!("pager tee {made}\nSELECT 1;"),
        format!("tee {made}\nSELECT 1;"),
        format!("source {secret}"),
        format!("SELECT 1 \\. {secret}\n;"),
        format!("LOAD DATA LOCAL INFILE '{secret}' INTO TABLE t;"),
    ];
    let into = server.dsn("");
    for (round, words) in words.iter().enumerate() {
        for path in [noting.as_str(), older.as_str()] {
            program.backup("evil.sql", &dump_with(words));
            let mut command = program.command(&["restore", "--path", "evil.sql", "--into", &into]);
            let output = feed(take_path(&mut command, path), b"");
            let said = text(&output.stderr);
            assert!(!output.status.success(), "{words}: {said}");
            assert!(said.contains("ERROR") && said.contains("go on with"), "{words}: {said}");
            assert_eq!(std::fs::read_dir(&proof).unwrap().count(), 0, "{words}");
            assert_eq!(server.sql("", "SHOW DATABASES LIKE 'sourced'"), "", "{words}");
            assert_eq!(server.sql("evil", "SELECT COUNT(*) FROM t"), "0", "{words}");
            server.sql("", "DROP DATABASE evil");
        }
        if round > 0 {
            continue;
        }
        // A drill looks at dumps that nobody has looked at yet.
        std::fs::write(program.path("calls"), "").unwrap();
        let dump = program.path("evil.sql");
        std::fs::write(&dump, dump_with(words)).unwrap();
        let text_of_config = format!(
            "[source.evil]\ntype = \"command\"\ncommand = [\"cat\", \"{}\"]\n\
             [drill.evil]\nsource = \"evil\"\n",
            dump.display()
        );
        let config = configured(&program, &text_of_config);
        program.ok(&["--config", &config, "backup", "--source", "evil"], b"");
        let (mut command, _) = drill_command(&program, &config, "evil");
        let output = feed(take_path(&mut command, &noting), b"");
        assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
        assert_eq!(std::fs::read_dir(&proof).unwrap().count(), 0, "{words}");
        let calls = std::fs::read(program.path("calls")).unwrap();
        let calls = text(&calls);
        assert!(calls.contains("TMPDIR") && !calls.contains("RESTOW"), "{calls}");
        if rustix::process::geteuid().is_root() {
            assert!(!calls.lines().any(|line| line == "0"), "{calls}");
        }
    }
}

fn take_path(command: &mut std::process::Command, path: &str) -> std::process::Command {
    let mut other = std::process::Command::new(command.get_program());
    other.args(command.get_args()).env_remove("RESTOW_PASSWORD");
    for (name, value) in command.get_envs() {
        value.map(|value| other.env(name, value));
    }
    other.env("PATH", path);
    other
}

/// Names that look like options, hold what stands between names, or break lines; a session's mode in
/// which a backslash is a letter.
#[test]
fn whatever_databases_and_tables_are_called_they_come_back() {
    let (server, other, program) = (MariaDb::start(), MariaDb::start(), Program::initialized());
    let result = program.path("result");
    let names = ["--no-data".to_owned(), format!("--result-file={}", result.display())];
    for name in &names {
        server.sql(
            "",
            &format!("CREATE DATABASE `{name}`; CREATE TABLE `{name}`.t (a INT PRIMARY KEY)"),
        );
        server.sql(name, "INSERT INTO t VALUES (1), (2)");
    }
    server.sql(
        "",
        "CREATE DATABASE `x,y`; CREATE TABLE `x,y`.`line\nDump completed` (a INT PRIMARY KEY);
         INSERT INTO `x,y`.`line\nDump completed` VALUES (7); CREATE DATABASE bare; USE bare;
         CREATE PROCEDURE kept() SELECT '\nUSE `bare`;\n'",
    );
    for each in [&server, &other] {
        each.sql("", "SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'");
    }
    server.sql("", "CREATE DATABASE `a\\b`; CREATE TABLE `a\\b`.t (a INT PRIMARY KEY, x TEXT)");
    server.sql("a\\b", "INSERT INTO t VALUES (1, 'c:\\n'), (2, '''')");
    program.ok(&["backup", "--source", &server.dsn("")], b"");
    assert!(!result.exists());
    let listed = text_of(&program, &["--json", "tables"]);
    let catalogue: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let rows = |name: &str| {
        let tables = catalogue["tables"].as_array().unwrap();
        tables.iter().find(|it| it["name"] == name).map(|it| it["rows"].as_u64().unwrap())
    };
    assert_eq!(rows("line\nDump completed"), Some(1), "{listed}");
    assert_eq!(catalogue["databases"].as_array().unwrap().len(), 5, "{listed}");

    // What holds routines alone is not overwritten unasked either.
    let (into, all) = (other.dsn(""), ["restore", "--into", &other.dsn("")]);
    other.sql("", "CREATE DATABASE bare; CREATE PROCEDURE bare.kept() SELECT 'mine'");
    let said = program.fails(&all, b"", 11);
    assert!(said.contains("bare is not empty (kept is there)"), "{said}");
    program.ok(&[&all[..], &["--yes-overwrite", "bare"]].concat(), b"");
    for name in &names {
        assert_eq!(other.sql(name, "SELECT COUNT(*) FROM t"), "2");
    }
    assert_eq!(other.sql("a\\b", "SELECT x FROM t WHERE a = 1"), "c:\\n");
    assert_eq!(other.sql("x,y", "SELECT a FROM `line\nDump completed`"), "7");
    assert!(program.fails(&all, b"", 11).contains("is not empty"));

    let back = |database: &str, words: &[&str]| {
        let from = server.dsn(database);
        program.ok(&["backup", "--source", &from], b"");
        program.run(&[&["restore", "--source", &from, "--into"], words].concat(), b"")
    };
    let refused = text(&back("x,y", &[&into]).stderr);
    assert!(refused.contains("x,y is not empty"), "{refused}");
    assert!(refused.contains("--yes-overwrite 'x,y'"), "{refused}");
    assert!(back("x,y", &[&into, "--yes-overwrite", "x,y"]).status.success());
    assert!(text(&back("a%5Cb", &[&into]).stderr).contains("a\\b is not empty"));
    let confirmed = format!("--yes-overwrite={}", names[0]);
    assert!(back(&names[0], &[&into, &confirmed]).status.success());
    // The body of a routine is what somebody wrote.
    assert!(back("bare", &[&other.dsn("renamed"), "--create"]).status.success());
    let body = "SELECT routine_definition LIKE '%USE `bare`;%' FROM information_schema.routines
        WHERE routine_schema = 'renamed'";
    assert_eq!(other.sql("", body), "1");
}

/// A table with history, and one that takes its numbers from a sequence.
const ODD: &str = "
CREATE DATABASE shop; USE shop;
CREATE SEQUENCE sq;
CREATE TABLE c (id INT NOT NULL DEFAULT nextval(sq) PRIMARY KEY, x TEXT DEFAULT 'nextval(`shop`.`sq`)');
INSERT INTO c (x) VALUES ('a'), ('b');
CREATE VIEW w AS SELECT nextval(sq) AS z;
CREATE TABLE v (id INT PRIMARY KEY, x INT) WITH SYSTEM VERSIONING;
INSERT INTO v VALUES (1, 1), (2, 2); UPDATE v SET x = 9 WHERE id = 1; DELETE FROM v WHERE id = 2;
CREATE TABLE big (id INT PRIMARY KEY, x MEDIUMTEXT);
INSERT INTO big SELECT seq, REPEAT('x', 100) FROM seq_1_to_100;
CREATE VIEW reads_big AS SELECT COUNT(*) AS n FROM big;
";

#[test]
fn history_sequences_and_definitions_without_rows_come_back() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", ODD);
    let more = format!(
        "{}exclude_data = [\"shop.big\"]\n[drill.proof]\nsource = \"shop\"\n\
         [[drill.proof.assert]]\nsql = \"SELECT COUNT(*) = 2 FROM c\"\n",
        source(&server, "shop")
    );
    let config = configured(&program, &more);
    let backup = ["--config", &config, "backup", "--source", "shop"];
    program.ok(&backup, b"");
    let history = "SELECT id, x, row_start, row_end FROM v FOR SYSTEM_TIME ALL ORDER BY 1, 2";
    let before = server.sql("shop", history);
    assert_eq!(before.lines().count(), 3);
    let into = server.dsn("copy");
    program.ok(&["restore", "--into", &into, "--create"], b"");
    assert_eq!(server.sql("copy", history), before);
    assert_eq!(server.sql("copy", "SELECT n FROM reads_big"), "0");
    let next = server.sql("shop", "SELECT next_not_cached_value FROM sq");
    server.sql("copy", "INSERT INTO c (x) VALUES (DEFAULT); SELECT z FROM w");
    assert_eq!(server.sql("shop", "SELECT next_not_cached_value FROM sq"), next);
    assert_eq!(
        server.sql("copy", "SELECT x FROM c ORDER BY id DESC LIMIT 1"),
        "nextval(`shop`.`sq`)"
    );
    server.sql("copy", "DROP TABLE v");
    program.ok(&["restore", "--into", &into, "--table", "v"], b"");
    assert_eq!(server.sql("copy", history), before);

    // The one database is where assertions are asked.
    let (code, report) = drill(&program, &config, "proof");
    assert_eq!((code, &report["failure"]), (Some(0), &serde_json::Value::Null), "{report}");
    assert_eq!(report["rows"], 5, "{report}");

    configured(&program, &more.replace("shop.big", "shop.bug"));
    let said = program.fails(&backup, b"", 1);
    assert!(said.contains("no table fits 'shop.bug'"), "{said}");
    configured(&program, &more.replace("exclude_data", "exclude_tables"));
    assert!(program.fails(&backup, b"", 2).contains("is it 'exclude_data'?"));

    configured(&program, &more);
    server.sql(
        "shop",
        "CREATE TABLE t (id INT PRIMARY KEY, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START,
         e BIGINT UNSIGNED GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e))
         WITH SYSTEM VERSIONING; INSERT INTO t (id) VALUES (1)",
    );
    let said = text(&program.run(&["--config", &config, "source", "test", "shop"], b"").stdout);
    assert!(said.contains("old rows of shop.t, shop.v"), "{said}");
    let said = text(&program.run(&backup, b"").stderr);
    assert!(said.contains("old rows of shop.t, shop.v (system-versioned) are not kept"), "{said}");
}

#[test]
fn a_dump_without_use_goes_where_it_is_told() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", ODD);
    let dump = |words: &[&str]| {
        let mut dump = std::process::Command::new("mariadb-dump");
        dump.args(["--no-defaults", "-uroot", "--single-transaction", "--skip-add-locks"]);
        dump.arg(format!("--socket={}", server.socket().display())).args(words);
        dump.output().unwrap().stdout
    };
    let plain = dump(&["shop"]);
    program.backup("shop.sql", &plain);
    server.sql(
        "",
        "CREATE DATABASE kept; ALTER DATABASE shop COLLATE utf8mb4_bin; DROP TABLE shop.c",
    );
    let restore = ["restore", "--path", "shop.sql", "--into", &server.dsn("")];
    assert!(program.fails(&restore, b"", 11).contains("shop is not empty"));
    server.sql("", "DROP DATABASE shop");
    let said = program.fails(&restore, b"", 11);
    assert!(said.contains("no database shop: --create makes it"), "{said}");
    program.ok(&[&restore[..], &["--create"]].concat(), b"");
    assert_eq!(server.sql("shop", "SELECT COUNT(*) FROM c"), "2");
    program.ok(&[&restore[..], &["--database", "kept"]].concat(), b"");
    assert_eq!(server.sql("kept", "SELECT COUNT(*) FROM c"), "2");

    // A dump that would drop the live database first, and one without quotes.
    for words in [&["--add-drop-database"][..], &["--skip-quote-names"]] {
        program.backup("drop.sql", &dump(&[&["--databases", "shop"], words].concat()));
        server.sql("", "CREATE TABLE shop.live (a INT)");
        let new = ["restore", "--path", "drop.sql", "--into", &server.dsn("new"), "--create"];
        program.ok(&[&new[..], &["--yes-overwrite", "new"]].concat(), b"");
        server.sql("", "DROP TABLE shop.live");
        assert_eq!(server.sql("new", "SELECT COUNT(*) FROM c"), "2");
        server.sql("", "DROP DATABASE new");
    }

    let path = program.path("shop.sql");
    std::fs::write(&path, &plain).unwrap();
    let text_of_config = format!(
        "[source.piped]\ntype = \"command\"\ncommand = [\"cat\", \"{}\"]\n",
        path.display()
    );
    let config = configured(&program, &text_of_config);
    program.ok(&["--config", &config, "backup", "--source", "piped"], b"");
    let (code, report) = drill(&program, &config, "piped");
    assert_eq!((code, &report["failure"]), (Some(0), &serde_json::Value::Null), "{report}");

    // Two dumps in a row are whole when both are.
    let two = [&plain[..plain.len() / 2], &dump(&["--databases", "kept"])].concat();
    let said = program.fails(&["backup", "--stdin", "--stdin-filename", "two"], &two, 1);
    assert!(said.contains("cut off"), "{said}");

    // What the server would refuse half-way is refused before.
    server.sql("shop", "INSERT INTO big VALUES (999, REPEAT('y', 200000))");
    program.backup("long.sql", &dump(&["shop"]));
    server.sql("", "SET GLOBAL max_allowed_packet = 65536");
    let named = ["restore", "--path", "long.sql", "--into", &server.dsn("long"), "--create"];
    let said = program.fails(&named, b"", 11);
    assert!(said.contains("SET GLOBAL max_allowed_packet = 1048576"), "{said}");
    assert_eq!(server.sql("", "SHOW DATABASES LIKE 'long'"), "");
    server.sql("", "SET GLOBAL max_allowed_packet = 1048576");
    program.ok(&named, b"");
}

#[test]
fn a_restore_that_is_stopped_leaves_nothing_waiting() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", "CREATE DATABASE d; CREATE TABLE d.a (id INT PRIMARY KEY, x TEXT)");
    // More than a pipe holds stands behind the statement that waits.
    server.sql("d", "INSERT INTO a SELECT seq, REPEAT('x', 100) FROM seq_1_to_20000");
    program.ok(&["backup", "--source", &server.dsn("d")], b"");
    let waiting =
        "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for table%'";
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            let sql = "LOCK TABLES a READ; SELECT GET_LOCK('held', 0); DO SLEEP(600)";
            let words = ["--no-defaults", "-uroot", "-Dd", "-e", sql];
            let mut holder = std::process::Command::new("mariadb");
            holder.args(words).arg(format!("--socket={}", server.socket().display()));
            holder.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
        });
        let until = |sql: &str, wanted: &str| {
            while server.sql("", sql) != wanted {
                std::thread::yield_now();
            }
        };
        until("SELECT IS_USED_LOCK('held') IS NOT NULL", "1");
        let arguments = ["restore", "--into", &server.dsn("d"), "--yes-overwrite", "d"];
        let mut child = program.command(&arguments).stderr(Stdio::null()).spawn().unwrap();
        until(waiting, "1");
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        until(waiting, "0");
        server.sql("", "SELECT IS_USED_LOCK('held') INTO @id; KILL @id");
        holder.join().unwrap();
    });
    assert_eq!(server.sql("d", "SELECT COUNT(*) FROM a"), "20000");
}
