//! What the program prints with `--json` against `docs/json.md`, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::*;

/// The fields that a section of the page names, and of these the optional ones.
#[derive(Default, Clone)]
struct Section {
    fields: BTreeSet<String>,
    optional: BTreeSet<String>,
    /// What their values are.
    types: BTreeMap<String, String>,
}

/// Whether a value is what the page says; lists and objects are looked into apart.
fn is_a(kind: &str, value: &Value) -> bool {
    let kind = kind.strip_suffix(", optional").unwrap_or(kind);
    let each =
        |kind: &str| value.as_array().is_some_and(|all| all.iter().all(|one| is_a(kind, one)));
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match kind {
        "id" => value.as_str().is_some_and(is_hex),
        "ids" => is_a("id", value),
        "text" => value.is_string(),
        "name" | "names" => value.is_string() || value.get("hex").is_some_and(Value::is_string),
        "time" => value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
        "bytes" | "number" | "numbers" => value.is_u64(),
        "pairs of numbers" => each("number") && value.as_array().is_some_and(|all| all.len() == 2),
        "seconds" => value.is_f64(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "list" => value.is_array(),
        _ => match kind.strip_prefix("list of ") {
            Some(kind) => each(kind),
            None => value.as_str() == Some(kind.trim_matches('"')),
        },
    }
}

impl Section {
    /// What is wrong with the members of a value.
    fn faults(&self, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        flatten("", value, &mut |path, value| {
            let Some(kind) = self.types.get(path) else {
                faults.push(format!("{path} is not documented"));
                return;
            };
            let is_absent = value.is_null() && self.optional.contains(path);
            if !is_absent && !is_a(kind, value) {
                faults.push(format!("{path} is no {kind}: {value}"));
            }
        });
        faults
    }
}

fn documented() -> BTreeMap<String, Section> {
    let page = include_str!("../../docs/json.md");
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    let mut heading = String::new();
    for line in page.lines() {
        if let Some(text) = line.strip_prefix("## ") {
            heading = text.to_owned();
            sections.entry(heading.clone()).or_default();
        } else if let Some(rest) = line.strip_prefix("The fields of `") {
            let other = sections[&rest[..rest.find('`').unwrap()]].clone();
            sections.insert(heading.clone(), other);
        } else if let Some(rest) = line.strip_prefix("| `") {
            let (field, rest) = rest.split_once('`').unwrap();
            let section = sections.get_mut(&heading).unwrap();
            section.fields.insert(field.to_owned());
            let kind = rest.split('|').nth(1).unwrap().trim();
            section.types.insert(field.to_owned(), kind.to_owned());
            if kind.ends_with(", optional") {
                section.optional.insert(field.to_owned());
            }
        } else if line.starts_with('{') {
            // Examples are what they are examples of; ids in them are cut short.
            let example: Value = serde_json::from_str(&line.replace('…', "")).expect(line);
            let faults = sections[&heading].faults(&example);
            assert!(faults.is_empty(), "{heading}: {faults:?}");
        }
    }
    sections
}

/// All members of a value, each by its name with those that it stands in.
fn flatten(prefix: &str, value: &Value, tell: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let path =
                    if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                tell(&path, value);
                flatten(&path, value, tell);
            }
        }
        Value::Array(items) => {
            items.iter().for_each(|item| flatten(&format!("{prefix}[]"), item, tell));
        }
        _ => {}
    }
}

struct Observer {
    program: Program,
    sections: BTreeMap<String, Section>,
    seen: BTreeMap<String, BTreeSet<String>>,
}

impl Observer {
    /// Runs a command with `--json`; every line of its output must be as the section says.
    fn sees(&mut self, section: &str, arguments: &[&str], input: &[u8]) -> Vec<Value> {
        let arguments = [arguments, &["--json"]].concat();
        let output = self.program.run(&arguments, input);
        assert!(output.status.code().is_some_and(|code| code < 4), "{arguments:?}");
        let lines = self.lines(section, &text(&output.stdout));
        assert!(!lines.is_empty(), "{arguments:?} said nothing: {}", text(&output.stderr));
        lines
    }

    fn lines(&mut self, section: &str, output: &str) -> Vec<Value> {
        let known = self.sections.get(section).unwrap_or_else(|| panic!("no section {section}"));
        let seen = self.seen.entry(section.to_owned()).or_default();
        let parse = |line: &str| -> Value {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
            let faults = known.faults(&value);
            assert!(faults.is_empty(), "{section}: {faults:?}");
            flatten("", &value, &mut |path, _| _ = seen.insert(path.to_owned()));
            value
        };
        output.lines().map(parse).collect()
    }
}

fn observer() -> Observer {
    let program = Program::new();
    Observer { program, sections: documented(), seen: BTreeMap::new() }
}

/// Something of everything: streams, files, tags, a second version.
fn fill(observer: &mut Observer) {
    let folder = observer.program.path("files");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a"), rows(1, 10)).unwrap();
    std::os::unix::fs::symlink("a", folder.join("l")).unwrap();
    let folder = folder.to_str().unwrap().to_owned();
    observer.sees("init", &["init"], b"");
    let stream = ["backup", "--stdin", "--stdin-filename", "s"];
    observer.sees("backup", &stream, &rows(1, 20_000));
    observer.sees("backup", &[&stream[..], &["-n"]].concat(), &rows(1, 20));
    observer.sees("backup", &stream, &changed_rows(1, 20_000, 1, 50));
    observer.sees("backup", &["backup", &folder, "--tag", "x", "--description", "d"], b"");
    std::fs::write(observer.program.path("files/a"), rows(2, 10)).unwrap();
    observer.sees("backup", &["backup", &folder, "--tag", "x"], b"");
}

fn read_only(observer: &mut Observer) {
    let snapshots = observer.sees("snapshots", &["snapshots"], b"");
    let id = |at: usize| snapshots[at]["id"].as_str().unwrap().to_owned();
    let target = observer.program.path("target").to_str().unwrap().to_owned();
    observer.sees("cat snapshot", &["cat", "snapshot", "latest"], b"");
    observer.sees("cat snapshot", &["cat", "snapshot", &id(0)], b"");
    observer.sees("cat config", &["cat", "config"], b"");
    observer.sees("cat log", &["cat", "log", "1"], b"");
    let pack = observer.program.objects("data").pop().unwrap();
    let pack = pack.file_name().unwrap().to_str().unwrap().to_owned();
    observer.sees("cat pack", &["cat", "pack", &pack], b"");
    observer.sees("ls", &["ls", "-R"], b"");
    observer.sees("find", &["find", "a", "l"], b"");
    observer.sees("restore", &["restore", &id(1), "--target", &target], b"");
    observer.sees("restore", &["restore", "latest", "--target", &target], b"");
    observer.sees("restore", &["restore", "latest", "--target", &target], b"");
    observer.sees("stats", &["stats"], b"");
    observer.sees("stats SNAPSHOT", &["stats", "latest"], b"");
    observer.sees("diff", &["diff", &id(0), &id(1)], b"");
    observer.sees("diff", &["diff", &id(2), &id(3)], b"");
    observer.sees("check", &["check", "--read-data"], b"");
    observer.sees("key list", &["key", "list"], b"");
    observer.sees("version", &["version"], b"");
}

fn change(observer: &mut Observer) {
    let other = Program::initialized_with(&[9; 40]);
    let place = other.path("repo").to_str().unwrap().to_owned();
    let key = other.path("key").to_str().unwrap().to_owned();
    let copy = ["copy", "--to", &place, "--to-key-file", &key];
    observer.sees("copy", &[&copy[..], &["-n"]].concat(), b"");
    observer.sees("copy", &copy, b"");
    observer.sees("copy", &copy, b"");
    observer.sees("tag", &["tag", "--add", "y"], b"");
    observer.sees("tag", &["forget", "--hold", "latest"], b"");
    observer.sees("snapshots", &["snapshots"], b"");
    observer.sees("forget", &["forget", "--keep-last", "1"], b"");
    observer.sees("prune", &["prune", "-n"], b"");
    observer.sees("prune", &["prune", "--grace", "0"], b"");
    let new = observer.program.path("new").to_str().unwrap().to_owned();
    let slot = observer.sees(
        "key add, file, remove, passwd, restore",
        &["key", "add", "--new-key-file", &new],
        b"",
    );
    let slot = slot[0]["slot"].as_str().unwrap().to_owned();
    observer.sees("key add, file, remove, passwd, restore", &["key", "remove", &slot], b"");
    observer.sees("key rotate", &["key", "rotate"], b"");
    observer.sees("key status", &["key", "status"], b"");
    observer.sees("repair index", &["repair", "index", "-n"], b"");
    observer.sees("repair packs", &["repair", "packs", "--all-damaged", "-n"], b"");
    observer.sees("repair snapshots", &["repair", "snapshots", "-n"], b"");
    observer.sees("repair parity", &["repair", "parity", "-n"], b"");
    let entries = observer.sees("log", &["log"], b"");
    assert_eq!(entries.last().unwrap()["number"], 0);
    assert_eq!(observer.sees("log", &["log", "-n", "2"], b"")[..], entries[..2]);
    observer.sees("cache", &["cache"], b"");
    observer.sees("cache", &["cache", "list"], b"");
    let caches = "cache --forget, --clear, --cleanup";
    observer.sees(caches, &["cache", "--cleanup", "--older-than", "0", "-n"], b"");
    observer.sees(caches, &["cache", "--forget"], b"");
}

/// Sources and drills, on a database that needs no server.
fn databases(observer: &mut Observer) {
    let path = observer.program.path("app.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    let make = "CREATE TABLE a (id INTEGER PRIMARY KEY, b); INSERT INTO a VALUES (1, 'x')";
    database.execute_batch(make).unwrap();
    let config = observer.program.path("restow.toml");
    let text_of = format!("[source.app]\ntype = \"sqlite\"\npath = {path:?}\n");
    std::fs::write(&config, text_of).unwrap();
    let config = config.to_str().unwrap().to_owned();
    observer.sees("config check", &["--config", &config, "config", "check"], b"");
    observer.sees("source list", &["--config", &config, "source", "list"], b"");
    observer.sees("source test", &["--config", &config, "source", "test", "app"], b"");
    let backup = ["--config", &config, "backup", "--source", "app", "--hold", "1d"];
    observer.sees("backup", &backup, b"");
    database.execute_batch("INSERT INTO a VALUES (2, 'y')").unwrap();
    observer.sees("backup", &backup, b"");
    let snapshots = observer.sees("snapshots", &["snapshots"], b"");
    let id = |at: usize| snapshots[snapshots.len() - at]["id"].as_str().unwrap().to_owned();
    observer.sees("tables", &["tables"], b"");
    observer.sees("diff --tables", &["diff", "--tables", &id(2), &id(1)], b"");
    observer.sees("drill run", &["--config", &config, "drill", "run", "app"], b"");
}

#[test]
fn every_command_prints_what_the_page_says() {
    let mut observer = observer();
    fill(&mut observer);
    read_only(&mut observer);
    change(&mut observer);
    databases(&mut observer);
    for (section, Section { fields, optional, .. }) in &observer.sections {
        // These need a terminal's time, an error or a kernel; they are looked at elsewhere.
        // Those about servers are looked at in the tests of databases.
        let elsewhere =
            ["errors", "progress", "mount", "restore --into", "rows diff", "drill list"];
        if elsewhere.contains(&section.as_str()) {
            continue;
        }
        let seen = observer.seen.get(section).unwrap_or_else(|| panic!("{section} was not run"));
        let missing: Vec<_> = fields.difference(seen).filter(|f| !optional.contains(*f)).collect();
        assert!(missing.is_empty(), "{section}: {missing:?} never appeared");
    }
}

#[test]
fn errors_and_damage_are_told_as_the_page_says() {
    let mut observer = observer();
    for (arguments, code) in
        [(&["snapshots"][..], 10), (&["backup"], 2), (&["copy", "--to", "/nowhere"], 10)]
    {
        let said = observer.program.fails(&[arguments, &["--json"]].concat(), b"", code);
        let lines = observer.lines("errors", &said);
        assert_eq!(lines.last().unwrap()["code"], code);
    }
    fill(&mut observer);
    for pack in observer.program.objects("data") {
        let mut bytes = std::fs::read(&pack).unwrap();
        bytes[70] ^= 1;
        std::fs::remove_file(&pack).unwrap();
        std::fs::write(&pack, bytes).unwrap();
    }
    let report = &observer.sees("check", &["check", "--read-data"], b"")[0];
    let problems = report["problems"].as_array().unwrap();
    assert!(problems.iter().any(|one| !one["affected"].as_array().unwrap().is_empty()));
    let other = Program::initialized_with(&[9; 40]);
    let place = other.path("repo").to_str().unwrap().to_owned();
    let key = other.path("key").to_str().unwrap().to_owned();
    let copy = ["copy", "--to", &place, "--to-key-file", &key];
    assert!(!observer.sees("copy", &copy, b"")[0]["problems"].as_array().unwrap().is_empty());
    std::fs::remove_file(&observer.program.objects("log")[2]).unwrap();
    let entries = observer.sees("log", &["log", "--reverse"], b"");
    assert_eq!(entries[2]["kind"], "damaged");
}
