//! MariaDB as a source: what is backed up comes back, whatever happens meanwhile.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::mariadb::{MariaDb, script};
use crate::support::*;

/// A database with one of everything.
const SHOP: &str = r#"
CREATE DATABASE shop CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
USE shop;
CREATE USER keeper@'%';
GRANT ALL ON *.* TO keeper@'%';
CREATE TABLE customers (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(90) NOT NULL, photo BLOB,
  n INT, twice INT GENERATED ALWAYS AS (n * 2) STORED, half INT AS (n / 2) VIRTUAL, extra JSON,
  seen DATETIME(6), KEY (half), UNIQUE KEY (name));
INSERT INTO customers (name, photo, n, extra, seen) VALUES
  ('Ann', x'00ff0a0d27', 1, '{"a": [1]}', '2024-01-02 03:04:05.678901'),
  ('Größe 😀', NULL, 2, NULL, NULL), ('it''s; -- (1),\n\\', '', 3, NULL, '1999-12-31');
CREATE TABLE orders (id INT, line INT, customer INT, total DECIMAL(12,2), PRIMARY KEY (id, line),
  FOREIGN KEY (customer) REFERENCES customers (id) ON DELETE CASCADE);
INSERT INTO orders VALUES (1, 1, 1, -12.50), (1, 2, 1, 0.00), (2, 1, 2, 1e9);
CREATE TABLE `odd``name.x y` (`a``b` INT) ENGINE=MyISAM;
INSERT INTO `odd``name.x y` VALUES (7), (7);
CREATE TABLE log (what TEXT);
CREATE SEQUENCE tickets START WITH 100;
DO NEXT VALUE FOR tickets;
DELIMITER //
CREATE DEFINER=keeper@'%' TRIGGER noted AFTER INSERT ON orders FOR EACH ROW
BEGIN
  INSERT INTO log VALUES (CONCAT('order ', NEW.id));
END//
CREATE DEFINER=keeper@'%' FUNCTION plus_one(x INT) RETURNS INT DETERMINISTIC RETURN x + 1//
CREATE PROCEDURE clear_log() BEGIN DELETE FROM log; END//
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01' DO DELETE FROM log//
DELIMITER ;
CREATE DEFINER=keeper@'%' VIEW rich AS
  SELECT c.name, plus_one(o.total) AS more FROM customers c JOIN orders o ON o.customer = c.id;
ALTER DATABASE shop COLLATE utf8mb4_general_ci;
"#;

/// The program with a configuration file.
pub fn configured(program: &Program, text: &str) -> String {
    let path = program.path("restow.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

pub fn source(server: &MariaDb, database: &str) -> String {
    format!("[source.shop]\ntype = \"mysql\"\ndsn = \"{}\"\n", server.dsn(database))
}

#[test]
fn everything_in_a_database_comes_back() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", SHOP);
    let config = configured(&program, &source(&server, "shop"));
    let said = program.run(&["--config", &config, "backup", "--source", "shop"], b"");
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert!(text(&said.stderr).contains("shop.odd`name.x y has no transactions"));
    let into = server.dsn("");
    let restore = ["--config", &config, "restore", "--source", "shop", "--into", &into];
    let whole = [&restore[..], &["--database", "new`db", "--create"]].concat();

    let planned = text(&program.ok(&[&whole[..], &["--dry-run"]].concat(), b""));
    assert!(planned.contains("new`db (new): 4 tables, 8 rows"), "{planned}");
    assert_eq!(server.sql("", "SHOW DATABASES LIKE 'new%'"), "");

    program.ok(&whole, b"");
    let dump = server.dump("shop");
    assert!(dump.contains("TRIGGER") && dump.contains("EVENT") && dump.contains("FUNCTION"));
    assert_eq!(server.dump("new`db"), dump);
    let charset = "SELECT default_collation_name FROM information_schema.schemata
        WHERE schema_name IN ('shop', 'new`db')";
    assert_eq!(server.sql("", charset), "utf8mb4_general_ci\nutf8mb4_general_ci");
    assert_eq!(server.sql("new`db", "SELECT MAX(more) FROM rich"), "1000000001");

    let said = program.fails(&whole, b"", 11);
    assert!(said.contains("new`db is not empty") && said.contains("--yes-overwrite"), "{said}");
    program.ok(&[&whole[..], &["--yes-overwrite", "new`db"]].concat(), b"");
    assert_eq!(server.dump("new`db"), dump);
}

#[test]
fn one_table_comes_back_alone() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", SHOP);
    let dsn = server.dsn("shop");
    program.ok(&["backup", "--source", &dsn], b"");
    let before = server.dump("shop");
    let restore = ["restore", "--into", &dsn, "--table"];

    let said = program.fails(&[&restore[..], &["shop.orders"]].concat(), b"", 11);
    assert!(said.contains("orders is there"), "{said}");
    server.sql("shop", "DROP TABLE orders; UPDATE customers SET name = 'Bob' WHERE id = 1");
    program.ok(&[&restore[..], &["shop.orders"]].concat(), b"");
    assert_eq!(server.sql("shop", "SELECT name FROM customers WHERE id = 1"), "Bob");
    server.sql("shop", "UPDATE customers SET name = 'Ann' WHERE id = 1");
    assert_eq!(server.dump("shop"), before);

    let other = server.dsn("other");
    let aside = ["restore", "--into", &other, "--table", "odd*", "--table", "customers"];
    let said = program.fails(&aside, b"", 11);
    assert!(said.contains("no database other") && said.contains("--create"), "{said}");
    program.ok(&[&aside[..], &["--create"]].concat(), b"");
    assert_eq!(server.sql("other", "SELECT `a``b` FROM `odd``name.x y`"), "7\n7");
    assert_eq!(server.sql("other", "SELECT COUNT(*), SUM(twice) FROM customers"), "3\t12");

    let said = program.fails(&[&restore[..], &["shop.ordres"]].concat(), b"", 2);
    assert!(said.contains("ordres"), "{said}");
    let said = program.fails(&["restore", "--into", &dsn, "--clean"], b"", 2);
    assert!(said.contains("--clean does not go with"), "{said}");
}

#[test]
fn definitions_and_rows_come_back_apart() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", SHOP);
    program.ok(&["backup", "--source", &server.dsn("shop")], b"");
    let into = server.dsn("empty");
    program.ok(&["restore", "--into", &into, "--create", "--schema-only"], b"");
    assert_eq!(server.sql("empty", "SELECT COUNT(*) FROM customers"), "0");
    assert_eq!(server.sql("empty", "SELECT plus_one(1)"), "2");
    let rows = ["restore", "--into", &into, "--data-only"];
    // Its rows are in the snapshot already.
    let said = program.fails(&rows, b"", 11);
    assert!(said.contains("fire triggers of empty: noted on orders"), "{said}");
    server
        .sql("", "CREATE USER blind@localhost; GRANT SELECT, INSERT ON empty.* TO blind@localhost");
    let blind = ["restore", "--into", &server.dsn_as("blind", "empty"), "--data-only"];
    let said = program.fails(&blind, b"", 11);
    assert!(said.contains("GRANT TRIGGER ON `empty`.*"), "{said}");
    assert_eq!(server.sql("empty", "SELECT COUNT(*) FROM customers"), "0");
    program.ok(&[&rows[..], &["--table", "customers"]].concat(), b"");
    server.sql("empty", "DROP TRIGGER noted; DELETE FROM customers");
    program.ok(&rows, b"");
    assert_eq!(server.sql("empty", "SELECT COUNT(*) FROM log"), "0");
    let said = program.fails(&rows, b"", 1);
    assert!(said.contains("empty those tables") && !said.contains("--yes-overwrite"), "{said}");
    let tables = "SELECT (SELECT COUNT(*) FROM customers), (SELECT COUNT(*) FROM orders)";
    assert_eq!(server.sql("empty", tables), "3\t3");
}

/// Transactions that move money until `stop` has a row.
const WRITERS: &str = "
CREATE DATABASE bank; CREATE DATABASE control; CREATE TABLE control.stop (a INT);
USE bank;
CREATE TABLE accounts (id INT PRIMARY KEY, balance INT);
INSERT INTO accounts SELECT seq, 1000 FROM seq_1_to_50;
CREATE TABLE moves (id INT PRIMARY KEY AUTO_INCREMENT, src INT, dst INT, amount INT);
DELIMITER //
CREATE PROCEDURE control.work(seed INT)
BEGIN
  DECLARE CONTINUE HANDLER FOR 1213 ROLLBACK;
  WHILE (SELECT COUNT(*) FROM control.stop) = 0 DO
    SET @src = 1 + FLOOR(RAND() * 50), @dst = 1 + FLOOR(RAND() * 50), @much = FLOOR(RAND() * 9);
    START TRANSACTION;
    UPDATE bank.accounts SET balance = balance - @much WHERE id = LEAST(@src, @dst);
    UPDATE bank.accounts SET balance = balance + @much WHERE id = GREATEST(@src, @dst);
    INSERT INTO bank.moves (src, dst, amount) VALUES (LEAST(@src, @dst), GREATEST(@src, @dst), @much);
    COMMIT;
  END WHILE;
END//
DELIMITER ;";

#[test]
fn money_is_neither_made_nor_lost_while_writers_run() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", WRITERS);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let server = &server;
            scope.spawn(move || server.sql("", &format!("CALL control.work({seed})")));
        }
        let moves = || server.sql("bank", "SELECT COUNT(*) FROM moves").parse::<u64>().unwrap();
        let mut last = 0;
        for round in 0..3 {
            while moves() < last + 50 {
                std::thread::yield_now();
            }
            last = moves();
            program.ok(&["backup", "--source", &server.dsn("bank")], b"");
            let copy = format!("copy{round}");
            program.ok(&["restore", "--into", &server.dsn(&copy), "--create"], b"");
            let wrong = "SELECT COUNT(*) FROM accounts a WHERE balance <> 1000
                - (SELECT COALESCE(SUM(amount), 0) FROM moves WHERE src = a.id)
                + (SELECT COALESCE(SUM(amount), 0) FROM moves WHERE dst = a.id)";
            assert_eq!(server.sql(&copy, "SELECT SUM(balance) FROM accounts"), "50000");
            assert_eq!(server.sql(&copy, wrong), "0");
            let kept = server.sql(&copy, "SELECT COUNT(*) FROM moves").parse::<u64>().unwrap();
            assert!(kept >= last && kept <= moves());
        }
        server.sql("", "INSERT INTO control.stop VALUES (1)");
    });
}

#[test]
fn all_databases_go_into_an_empty_server() {
    let (server, other, program) = (MariaDb::start(), MariaDb::start(), Program::initialized());
    server.sql("", SHOP);
    server.sql(
        "",
        "CREATE DATABASE `second-db`; USE `second-db`; CREATE TABLE t (id INT PRIMARY KEY)",
    );
    server.sql("second-db", "INSERT INTO t VALUES (1), (2)");
    let config = configured(&program, &source(&server, ""));
    program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
    let into = other.dsn("");
    let restore = ["--config", &config, "restore", "--source", "shop", "--into", &into];
    other.sql("", "CREATE USER keeper@'%'; GRANT ALL ON *.* TO keeper@'%'");

    let said = text(&program.ok(&[&restore[..], &["--dry-run"]].concat(), b""));
    assert!(said.contains("second-db, shop: 5 tables"), "{said}");
    assert_eq!(other.sql("", "SHOW DATABASES LIKE 's%'"), "sys");
    program.ok(&restore, b"");
    assert_eq!(other.dump("shop"), server.dump("shop"));
    assert_eq!(other.sql("second-db", "SELECT COUNT(*) FROM t"), "2");

    assert!(program.fails(&restore, b"", 11).contains("second-db is not empty"));
    let said = program.fails(&[&restore[..], &["--yes-overwrite", "shop"]].concat(), b"", 11);
    assert!(said.contains("second-db is not empty"), "{said}");
    program.ok(&[&restore[..], &["--yes-overwrite", "shop,second-db"]].concat(), b"");
    let said = program.fails(&[&restore[..], &["--database", "one", "--create"]].concat(), b"", 2);
    assert!(said.contains("several databases"), "{said}");
    let one = ["--database", "one", "--create", "--table", "second-db.t"];
    program.ok(&[&restore[..], &one].concat(), b"");
    assert_eq!(other.sql("one", "SELECT COUNT(*) FROM t"), "2");
}

/// Programs that note how they were called before they are what they should be.
fn noting_programs(program: &Program) -> String {
    let log = program.path("calls");
    for name in ["mariadb", "mariadb-dump"] {
        let lines = format!(
            "{{ tr '\\0' '\\n' < /proc/$$/cmdline; tr '\\0' '\\n' < /proc/$$/environ; }} >> {}\n\
             exec /usr/bin/{name} \"$@\"",
            log.display()
        );
        script(&program.path("bin").join(name), &lines);
    }
    format!("bin_dir = \"{}\"\n", program.path("bin").display())
}

#[test]
fn passwords_are_seen_by_nobody() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", SHOP);
    let password = r#"p#"\s';[x] =ü"#;
    server.sql(
        "",
        r#"CREATE USER backup@localhost IDENTIFIED BY 'p#"\\s\';[x] =ü';
           GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE ON *.* TO backup@localhost"#,
    );
    let config = format!(
        "[source.shop]\ntype = \"mysql\"\ndsn = \"{}\"\npassword = \"env:SHOP_PASSWORD\"\n{}",
        server.dsn_as("backup", "shop"),
        noting_programs(&program)
    );
    let config = configured(&program, &config);
    for words in [&["source", "test", "shop"][..], &["backup", "--source", "shop"]] {
        let mut command = program.command(&[&["--config", &config], words].concat());
        command.env("SHOP_PASSWORD", password).env("MYSQL_PWD", password);
        let output = feed(command, b"");
        assert!(output.status.success(), "{}", text(&output.stderr));
        if words[0] == "source" {
            let said = text(&output.stdout);
            assert!(said.contains("shop.odd`name.x y has no transactions (not InnoDB)"), "{said}");
            assert!(said.contains("shop.log has no primary key"), "{said}");
            assert!(said.contains("the binary log is on"), "{said}");
            assert!(!said.contains("problem"), "{said}");
        }
    }
    let calls = std::fs::read_to_string(program.path("calls")).unwrap();
    assert!(calls.contains("--defaults-file=") && calls.contains("--single-transaction"));
    assert!(!calls.contains(r#"p#"\s"#), "{calls}");
    let said = program.fails(&["--config", &config, "backup", "--source", "shop"], b"", 1);
    assert!(said.contains("SHOP_PASSWORD"), "{said}");
}

#[test]
fn missing_rights_are_told() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY)");
    server.sql("", "CREATE USER poor@localhost; GRANT SELECT ON d.* TO poor@localhost");
    let dsn = server.dsn_as("poor", "d");
    let output = program.run(&["source", "test", &dsn], b"");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    let grant =
        "problem  the right TRIGGER on d is missing: GRANT TRIGGER ON `d`.* TO 'poor'@'localhost'";
    assert!(said.contains(grant), "{said}");
    assert!(said.contains("problem  routines of d would not be seen: GRANT EXECUTE"), "{said}");
    assert!(!said.contains("the right SELECT"), "{said}");
    let said = program.fails(&["backup", "--source", &dsn], b"", 1);
    assert!(said.contains("the right TRIGGER on d") && said.contains("routines of d"), "{said}");
    // Rights elsewhere are none here.
    server.sql("", "CREATE DATABASE e; GRANT ALL ON e.* TO poor@localhost");
    let said = program.fails(&["backup", "--source", &dsn], b"", 1);
    assert!(said.contains("the right TRIGGER on d") && said.contains("routines of d"), "{said}");
    server.sql("", "GRANT SHOW VIEW, TRIGGER, EVENT, EXECUTE ON d.* TO poor@localhost");
    program.ok(&["backup", "--source", &dsn], b"");
    server.sql("d", "CREATE PROCEDURE hidden() SELECT 1");
    let said = program.fails(&["backup", "--source", &dsn], b"", 1);
    assert!(
        said.contains("the body of d.hidden cannot be read: GRANT SELECT ON mysql.proc"),
        "{said}"
    );
    server.sql("", "GRANT SELECT ON mysql.proc TO poor@localhost");
    program.ok(&["backup", "--source", &dsn], b"");
    let all = program.run(&["source", "test", &server.dsn_as("poor", "")], b"");
    assert!(text(&all.stdout).contains("GRANT SHOW DATABASES"), "{}", text(&all.stdout));
    let said = program.fails(&["backup", "--source", &server.dsn_as("none", "d")], b"", 1);
    assert!(said.contains("Access denied"), "{said}");
}

#[test]
fn a_dump_that_is_killed_leaves_no_snapshot() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, x TEXT)");
    server.sql("d", "INSERT INTO t SELECT seq, REPEAT(MD5(seq), 10) FROM seq_1_to_5000");
    let bin = program.path("bin");
    script(&bin.join("mariadb"), "exec /usr/bin/mariadb \"$@\"");
    let fifo = program.path("fifo");
    let lines = format!(
        "mkfifo {fifo}\n/usr/bin/mariadb-dump \"$@\" > {fifo} & child=$!\n\
         {{ head -c 300000; kill -KILL $child; }} < {fifo}\nwait $child; kill -KILL $$",
        fifo = fifo.display()
    );
    script(&bin.join("mariadb-dump"), &lines);
    let text = format!("{}bin_dir = \"{}\"\n", source(&server, "d"), bin.display());
    let config = configured(&program, &text);
    let backup = ["--config", &config, "backup", "--source", "shop"];
    let said = program.fails(&backup, b"", 1);
    assert!(said.contains("killed by signal 9"), "{said}");
    assert_eq!(text_of(&program, &["--json", "snapshots"]), "");
    // A dump program that says it is done without being so is not believed either.
    script(&bin.join("mariadb-dump"), "/usr/bin/mariadb-dump \"$@\" | head -c 300000; exit 0");
    assert!(program.fails(&backup, b"", 1).contains("cut off"));
    script(&bin.join("mariadb-dump"), "echo nothing to see");
    assert!(program.fails(&backup, b"", 1).contains("no dump that is known"));
    script(&bin.join("mariadb-dump"), "exec /usr/bin/mariadb-dump \"$@\"");
    program.ok(&backup, b"");
    program.ok(&["check", "--read-data"], b"");
}

pub fn text_of(program: &Program, words: &[&str]) -> String {
    text(&program.ok(words, b""))
}

#[test]
fn a_row_deleted_early_costs_little() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, x TEXT)");
    server.sql("d", "INSERT INTO t SELECT seq, CONCAT(MD5(seq), MD5(-seq)) FROM seq_1_to_60000");
    let dsn = server.dsn("d");
    let back_up = || {
        let said = text_of(&program, &["--json", "backup", "--source", &dsn]);
        let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        (
            last["summary"]["read_bytes"].as_u64().unwrap(),
            last["summary"]["added_bytes"].as_u64().unwrap(),
        )
    };
    back_up();
    server.sql("d", "DELETE FROM t WHERE id = 17");
    let (read, added) = back_up();
    assert!(read > 4_000_000 && added * 100 < read, "{added} of {read}");
}

#[test]
fn tables_are_listed_compared_and_written_one_by_one() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", SHOP);
    let dsn = server.dsn("shop");
    program.ok(&["backup", "--source", &dsn], b"");
    server.sql("shop", "INSERT INTO customers (name) VALUES ('Cid'); ALTER TABLE log ADD n INT");
    program.ok(&["backup", "--source", &dsn], b"");
    let listed = text_of(&program, &["--json", "tables"]);
    let catalogue: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(catalogue["engine"], "mariadb");
    let position = &catalogue["position"];
    assert!(position["binlog_file"].as_str().unwrap().starts_with("binlog.0"), "{position}");
    assert!(position["binlog_position"].as_u64().unwrap() > 300, "{position}");
    assert!(position["gtid"].as_str().unwrap().starts_with("0-1-"), "{position}");

    let ids = text_of(&program, &["--json", "snapshots"]);
    let ids: Vec<String> = ids
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|snapshot| snapshot["id"].as_str().unwrap().to_owned())
        .collect();
    let said = text_of(&program, &["diff", "--tables", &ids[0], &ids[1]]);
    assert!(said.contains("shop.customers") && said.contains("shop.log"), "{said}");
    assert!(!said.contains("shop.orders"), "{said}");

    let sql = text_of(&program, &["dump", &ids[0], "shop.customers", "--format", "sql"]);
    server.sql("shop", "DELETE FROM customers WHERE name = 'Cid'");
    let rows = server.sql("shop", "SELECT * FROM customers ORDER BY id");
    server.sql(
        "shop",
        &format!("SET foreign_key_checks = 0, sql_mode = ''; DELETE FROM customers; {sql}"),
    );
    assert_eq!(server.sql("shop", "SELECT * FROM customers ORDER BY id"), rows);
    let csv = text_of(&program, &["dump", &ids[0], "shop.orders", "--format", "csv"]);
    assert_eq!(csv, "id,line,customer,total\n1,1,1,-12.50\n1,2,1,0.00\n2,1,2,1000000000.00\n");
    let csv = text_of(&program, &["dump", &ids[0], "shop.customers", "--format", "csv"]);
    assert!(
        csv.contains("1,Ann,\\x00ff0a0d27,1,2,1,\"{\"\"a\"\": [1]}\",2024-01-02 03:04:05.678901\n"),
        "{csv}"
    );
    let copy = text_of(&program, &["dump", &ids[0], "shop.customers", "--format", "copy"]);
    assert!(copy.contains("\n2\tGröße 😀\t\\N\t2\t4\t1\t\\N\t\\N\n"), "{copy}");
}

#[test]
fn a_piped_dump_is_understood() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", SHOP);
    let mut dump = Command::new("mariadb-dump");
    dump.args(["--no-defaults", "-uroot", "--single-transaction", "--routines", "shop"]);
    let dump = dump.arg(format!("--socket={}", server.socket().display())).output().unwrap();
    program.ok(&["backup", "--stdin", "--stdin-filename", "shop.sql"], &dump.stdout);
    let listed = text_of(&program, &["tables"]);
    assert!(listed.contains("shop.customers") && listed.contains("mariadb"), "{listed}");
    assert_eq!(program.ok(&["dump", "latest", "shop.sql"], b""), dump.stdout);
    let into = server.dsn("new");
    program.ok(&["restore", "--into", &into, "--create", "--table", "customers"], b"");
    assert_eq!(server.sql("new", "SELECT name FROM customers WHERE id = 2"), "Größe 😀");
    assert_eq!(server.sql("new", "SHOW TABLES"), "customers");
    let into = server.dsn("whole");
    program.ok(&["restore", "--into", &into, "--create"], b"");
    assert_eq!(server.sql("whole", "SELECT COUNT(*) FROM orders"), "3");
    let cut = ["backup", "--stdin", "--stdin-filename", "cut"];
    let said = program.fails(&cut, &dump.stdout[..3000], 1);
    assert!(said.contains("cut off"), "{said}");
    program.ok(&[&cut[..], &["--allow-cut-off"]].concat(), &dump.stdout[..3000]);
    assert!(program.fails(&["tables"], b"", 2).contains("no database"));
}

/// A drill whose temporary files have a folder of their own.
pub fn drill_command(program: &Program, config: &str, name: &str) -> (Command, PathBuf) {
    let temporary = program.path("temporary");
    std::fs::create_dir_all(&temporary).unwrap();
    let allow = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // The server runs as another user.
    allow(program.folder.path(), 0o755);
    allow(&temporary, 0o777);
    let mut command = program.command(&["--json", "--config", config, "drill", "run", name]);
    command.env("TMPDIR", &temporary);
    (command, temporary)
}

fn nothing_is_left(temporary: &Path) {
    assert_eq!(std::fs::read_dir(temporary).unwrap().count(), 0, "something was left behind");
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let cwd = std::fs::read_link(process.path().join("cwd")).unwrap_or_default();
        assert!(!cwd.starts_with(temporary), "a process was left behind");
    }
}

/// Runs a drill and gives its exit code and its report.
pub fn drill(program: &Program, config: &str, name: &str) -> (Option<i32>, serde_json::Value) {
    let (command, temporary) = drill_command(program, config, name);
    let output = feed(command, b"");
    nothing_is_left(&temporary);
    let said = text(&output.stdout);
    let report = said.lines().find(|line| line.contains("\"drill\""));
    let report = report.unwrap_or_else(|| panic!("{said}{}", text(&output.stderr)));
    (output.status.code(), serde_json::from_str(report).unwrap())
}

#[test]
fn a_drill_that_is_stopped_leaves_nothing() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY)");
    let config = configured(&program, &source(&server, "d"));
    program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
    let (mut command, temporary) = drill_command(&program, &config, "shop");
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let is_up = || {
        let folders = std::fs::read_dir(&temporary).unwrap().flatten();
        folders.map(|folder| folder.path().join("log")).any(|log| log.exists())
    };
    while !is_up() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    nothing_is_left(&temporary);
    assert!(text_of(&program, &["--json", "drill", "list"]).is_empty());
}

#[test]
fn drills_prove_that_it_restores() {
    let (server, program) = (MariaDb::start(), Program::initialized());
    server.sql("", SHOP);
    let more = format!(
        "{}[drill.good]\nsource = \"shop\"\nrto = \"5m\"\nrpo = \"9000w\"\n\
         newest = \"SELECT MAX(seen) FROM shop.customers\"\n\
         [[drill.good.assert]]\nsql = \"SELECT COUNT(*) FROM shop.orders\"\nequals = \"3\"\n\
         [[drill.good.assert]]\nsql = \"SELECT MAX(more) > 5 FROM shop.rich\"\n\
         [drill.false]\nsource = \"shop\"\n\
         [[drill.false.assert]]\nsql = \"SELECT COUNT(*) = 4 FROM shop.orders\"\n\
         [drill.none]\nsource = \"shop\"\nbin_dir = \"{}\"\n\
         [drill.broken]\nsource = \"shop\"\nbin_dir = \"{}\"\n",
        source(&server, "shop"),
        program.path("nothing").display(),
        program.path("broken").display(),
    );
    let config = configured(&program, &more);
    script(&program.path("broken/mariadbd"), "echo no luck >&2; exit 1");
    program.ok(&["--config", &config, "backup", "--source", "shop"], b"");
    let (code, report) = drill(&program, &config, "good");
    assert_eq!((code, &report["failure"]), (Some(0), &serde_json::Value::Null), "{report}");
    assert_eq!(
        (report["tables"].as_u64(), report["rows"].as_u64()),
        (Some(4), Some(8)),
        "{report}"
    );
    assert!(report["rto_seconds"].as_f64().unwrap() > 0.0);
    for (name, kind) in [("false", "assertion"), ("none", "no-server"), ("broken", "start")] {
        let (code, report) = drill(&program, &config, name);
        assert_eq!((code, report["failure"]["kind"].as_str()), (Some(4), Some(kind)), "{report}");
    }
    let listed = text_of(&program, &["drill", "list"]);
    assert!(listed.contains("passed") && listed.contains("no-server"), "{listed}");
    assert!(!listed.contains("NO"), "{listed}");
}
