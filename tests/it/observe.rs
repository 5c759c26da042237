//! Looking at what goes on: the log for people, caches, `RUST_LOG`.

use std::time::{Duration, SystemTime};

use crate::support::*;

#[test]
fn the_log_tells_who_did_what_newest_first() {
    let program = Program::initialized();
    program.backup("s", &rows(1, 2000));
    program.backup("s", &changed_rows(1, 2000, 1, 20));
    program.ok(&["tag", "latest", "--add", "x"], b"");
    program.ok(&["forget", "--keep-last", "1"], b"");
    program.ok(&["prune", "--grace", "0", "--max-unused", "0"], b"");
    let said = text(&program.ok(&["log"], b""));
    let lines: Vec<&str> = said.lines().collect();
    let at = |word: &str| lines.iter().position(|line| line.contains(word)).expect(word);
    assert!(at("dead") < at("condemned") && at("condemned") < at("forgot snapshot"), "{said}");
    assert!(at("forgot snapshot") < at("changed snapshot"), "{said}");
    assert!(lines.last().unwrap().contains("whole state"), "{said}");
    assert!(said.contains(": s) with") || said.contains("replaced since"), "{said}");
    assert!(lines.iter().all(|line| line.contains("restow")), "{said}");
    assert_eq!(text(&program.ok(&["log", "-n", "2"], b"")).lines().count(), 2);
    assert_eq!(text(&program.ok(&["log", "-n", "0"], b"")).lines().count(), 0);
    let reversed = text(&program.ok(&["log", "--reverse"], b""));
    assert!(reversed.lines().rev().eq(said.lines()));
}

#[test]
fn caches_are_listed_and_thrown_away_by_repository() {
    let program = Program::initialized();
    let other = Program::initialized();
    other.ok(&["snapshots", "--cache-dir", program.path("cache").to_str().unwrap()], b"");
    let foreign = program.path("cache/notes");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("index.sqlite"), b"not ours").unwrap();
    let folders = || -> Vec<String> {
        let said = text(&program.ok(&["cache", "--json"], b""));
        let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        said.lines().map(|line| parse(line)["folder"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(folders().len(), 2);
    // One of them was not used for a long time.
    let id = other.ok(&["cat", "config", "--json"], b"");
    let id = serde_json::from_slice::<serde_json::Value>(&id).unwrap()["id"].clone();
    let old = program.path("cache").join(id.as_str().unwrap());
    let long_ago = SystemTime::now() - Duration::from_secs(40 * 24 * 3600);
    let mut paths = vec![old.clone()];
    paths.extend(std::fs::read_dir(&old).unwrap().map(|entry| entry.unwrap().path()));
    for path in paths {
        std::fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
    }
    assert!(text(&program.ok(&["cache", "--cleanup", "-n"], b"")).contains("would remove"));
    assert_eq!(folders().len(), 2);
    program.ok(&["cache", "--cleanup", "--older-than", "50"], b"");
    assert_eq!(folders().len(), 2);
    program.ok(&["cache", "--cleanup"], b"");
    assert_eq!(folders().len(), 1);
    assert!(!old.exists() && foreign.exists());
    // By id, and by the repository; neither harms it.
    program.fails(&["cache", "--clear", "0"], b"", 2);
    let name = folders()[0].rsplit('/').next().unwrap().to_owned();
    program.ok(&["cache", "--clear", &name[..8]], b"");
    assert!(folders().is_empty());
    program.backup("s", b"text");
    assert_eq!(folders().len(), 1);
    program.ok(&["cache", "--forget"], b"");
    assert!(folders().is_empty());
    assert_eq!(program.ok(&["dump", "latest", "s"], b""), b"text");
    program.fails(&["cache", "-n"], b"", 2);
}

#[test]
fn traces_go_to_standard_error_and_hold_no_secret() {
    let program = Program::new();
    let traced = |arguments: &[&str], input: &[u8]| {
        let mut command = program.command(arguments);
        command.env("RUST_LOG", "restow=trace").env_remove("RESTOW_KEY_FILE");
        command.env("RESTOW_PASSWORD", "correct horse");
        let output = feed(command, input);
        assert!(output.status.success(), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let mut told = traced(&["init"], b"").1;
    let backup = ["backup", "--stdin", "--stdin-filename", "customer-names.sql"];
    told += &traced(&backup, b"private words").1;
    told += &traced(&["prune", "--grace", "0"], b"").1;
    let (listed, quiet) = traced(&["snapshots", "--json"], b"");
    assert!(serde_json::from_str::<serde_json::Value>(&listed).is_ok(), "{listed}");
    told += &quiet;
    for word in ["store", "put", "micros", "committed", "phase=\"mark\""] {
        assert!(told.contains(word), "{word} is not in {told}");
    }
    for secret in ["correct horse", "private words", "customer-names"] {
        assert!(!told.contains(secret), "{told}");
    }
    let silent = program
        .command(&["snapshots", "-q"])
        .env("RESTOW_PASSWORD", "correct horse")
        .env_remove("RESTOW_KEY_FILE")
        .output()
        .unwrap();
    assert!(silent.stderr.is_empty());
    let mut wrong = program.command(&["version"]);
    wrong.env("RUST_LOG", "===");
    let output = feed(wrong, b"");
    assert!(output.status.success() && text(&output.stderr).contains("RUST_LOG"));
}
