//! Forgetting by a policy, as the program does it: what it counts, what it never takes, what it says.

use serde_json::Value;

use crate::support::*;

fn lines(output: &[u8]) -> Vec<Value> {
    text(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Backs up a stream with more arguments.
fn backup(program: &Program, more: &[&str]) {
    let arguments = [&["backup", "--stdin", "--stdin-filename", "s"], more].concat();
    program.ok(&arguments, b"text");
}

/// Snapshots that pass a filter, by their times.
fn listed(program: &Program, more: &[&str]) -> Vec<String> {
    let listed = lines(&program.ok(&[&["snapshots", "--json"], more].concat(), b""));
    listed.iter().map(|one| one["time"].as_str().unwrap().to_owned()).collect()
}

const FIRST: &str = "2026-01-01T00:00:00Z";
const SECOND: &str = "2026-01-02T00:00:00Z";

#[test]
fn an_empty_tag_means_snapshots_without_tags() {
    let program = Program::initialized();
    backup(&program, &["--time", FIRST, "--tag", "a"]);
    backup(&program, &["--time", SECOND]);
    assert_eq!(listed(&program, &["--tag", ""]), [SECOND]);
    assert_eq!(listed(&program, &["--tag", "a", "--tag", ""]).len(), 2);
    let kept = program.ok(&["forget", "--keep-tag", "", "--json", "-n"], b"");
    let kept: Vec<_> = lines(&kept).into_iter().filter(|one| one["keep"] == true).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!((&kept[0]["time"], &kept[0]["reasons"][0]), (&SECOND.into(), &"no tags".into()));
    program.ok(&["forget", "--tag", "", "--keep-tag", "none", "--allow-empty"], b"");
    assert_eq!(listed(&program, &[]), [FIRST]);
    let other = Program::initialized_with(&[9; 40]);
    let (place, key) = (other.path("repo"), other.path("key"));
    let copy = ["copy", "--to", place.to_str().unwrap(), "--to-key-file", key.to_str().unwrap()];
    let copied = program.ok(&[&copy[..], &["--tag", "", "--json"]].concat(), b"");
    assert!(lines(&copied)[0]["copied"].as_array().unwrap().is_empty());
}

/// Whoever has a write-only key of one host can claim to be any: owners' snapshots do not count with
/// those.
#[test]
fn snapshots_of_write_only_keys_push_out_none_of_owners() {
    let program = Program::initialized();
    backup(&program, &["--host", "db", "--time", FIRST]);
    let key = program.path("weak").to_string_lossy().into_owned();
    program.ok(&["key", "file", &key, "--write-only"], b"");
    let mut times = Vec::new();
    for day in 3..6 {
        times.push(format!("2026-01-0{day}T00:00:00Z"));
        backup(&program, &["--host", "db", "--time", &times[day - 3], "--key-file", &key]);
    }
    let said = text(&program.ok(&["forget", "--keep-last", "1"], b""));
    assert!(said.contains("by write-only keys"), "{said}");
    assert_eq!(listed(&program, &[]), [FIRST, &times[2]]);
    program.ok(&["forget", "--keep-last", "1", "--group-by", ""], b"");
    assert_eq!(listed(&program, &[]), [FIRST, &times[2]]);
    assert!(text(&program.ok(&["snapshots"], b"")).contains("write-only"));
}

#[test]
fn the_future_is_kept_and_told_of_once() {
    let program = Program::initialized();
    for time in [FIRST, SECOND, "2999-01-01T00:00:00Z", "2999-01-02T00:00:00Z"] {
        backup(&program, &["--time", time]);
    }
    let output = program.run(&["forget", "--keep-last", "1"], b"");
    let said = text(&output.stderr);
    assert_eq!(said.matches("warning: 2 snapshots are dated in the future").count(), 1, "{said}");
    let left = listed(&program, &[]);
    assert_eq!(left, [SECOND, "2999-01-01T00:00:00Z", "2999-01-02T00:00:00Z"]);
}

#[test]
fn the_last_complete_backup_outlives_incomplete_ones() {
    let program = Program::initialized();
    let folder = program.path("files");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a"), "text").unwrap();
    let (folder, gone) = (folder.to_str().unwrap(), program.path("gone"));
    let gone = gone.to_str().unwrap();
    std::fs::write(gone, "text").unwrap();
    program.ok(&["backup", folder, gone, "--time", FIRST], b"");
    std::fs::remove_file(gone).unwrap();
    for time in [SECOND, "2026-01-03T00:00:00Z"] {
        program.fails(&["backup", folder, gone, "--time", time], b"", 3);
    }
    let manifests = lines(&program.ok(&["snapshots", "--json"], b""));
    assert!(manifests[0].get("problems").is_none());
    assert_eq!(manifests[1]["problems"], 1);
    assert!(text(&program.ok(&["snapshots"], b"")).contains("1 problem"));
    let said = text(&program.ok(&["forget", "--keep-last", "1"], b""));
    assert!(said.contains("last complete"), "{said}");
    assert_eq!(listed(&program, &[]), [FIRST, "2026-01-03T00:00:00Z"]);
}

#[test]
fn a_policy_keeps_the_last_of_a_hosts_paths_and_ids_are_refused() {
    let program = Program::initialized();
    program.ok(&["backup", "--stdin", "--stdin-filename", "other", "--time", FIRST], b"x");
    for time in [SECOND, "2026-01-03T00:00:00Z"] {
        backup(&program, &["--time", time]);
    }
    let policy = ["forget", "--keep-last", "1", "--group-by", "host"];
    for more in [&["-n"][..], &[]] {
        let said = text(&program.ok(&[&policy[..], more].concat(), b""));
        assert!(said.contains("last of its host's paths"), "{said}");
    }
    assert_eq!(listed(&program, &[]), [FIRST, "2026-01-03T00:00:00Z"]);
    assert!(program.fails(&["forget", "latest"], b"", 11).contains("--allow-empty"));
    program.ok(&[&policy[..], &["--allow-empty"]].concat(), b"");
    assert_eq!(listed(&program, &[]).len(), 1);
}

#[test]
fn counts_and_times_read_as_in_restic() {
    let program = Program::initialized();
    for time in [FIRST, SECOND] {
        backup(&program, &["--time", time]);
    }
    program.fails(&["forget", "--keep-last", "00"], b"", 2);
    program.fails(&["forget", "--keep-last", "-2"], b"", 2);
    program.ok(&["forget", "--keep-last", "-1"], b"");
    assert_eq!(listed(&program, &[]).len(), 2);
    let zone = ["forget", "--keep-last", "1", "--time-zone", "Asia/Tokyo", "-n"];
    let said = text(&program.ok(&zone, b""));
    assert!(said.contains("2026-01-02 09:00:00 +09:00"), "{said}");
    program.ok(&["forget", "--hold", "latest"], b"");
    assert!(text(&program.ok(&["snapshots"], b"")).contains("held"));
    program.ok(&["prune", "--grace", "7d", "--time-limit", "1w", "-n"], b"");
}

/// Streams of two databases may have the same names.
#[test]
fn a_policy_keeps_the_last_of_each_source_of_a_host() {
    let program = Program::initialized();
    let config = program.path("restow.toml");
    let source = |name: &str| {
        format!(
            "[source.{name}]\ntype = \"command\"\ncommand = [\"echo\", \"{name}\"]\nstream = \"s\"\n"
        )
    };
    std::fs::write(&config, source("orders") + &source("users")).unwrap();
    let config = config.to_str().unwrap();
    for name in ["orders", "orders", "users", "users", "orders"] {
        program.ok(&["--config", config, "backup", "--source", name], b"");
    }
    program.ok(&["forget", "--keep-last", "1", "--prune"], b"");
    let left = lines(&program.ok(&["snapshots", "--json"], b""));
    let names: Vec<&str> = left.iter().map(|it| it["source"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["users", "orders"]);
    for (one, name) in left.iter().zip(names) {
        let dumped = program.ok(&["dump", one["id"].as_str().unwrap()], b"");
        assert_eq!(text(&dumped).trim(), name);
    }
    program.ok(&["check", "--read-data"], b"");
}

/// What the real ones refuse, dry runs refuse as well: salvaged, a repository shows snapshots that were
/// forgotten long ago.
#[test]
fn dry_runs_on_a_damaged_repository_refuse_like_real_ones() {
    for folder in ["log", "snap"] {
        let program = Program::initialized();
        for time in [FIRST, SECOND] {
            backup(&program, &["--time", time]);
        }
        std::fs::remove_file(&program.objects(folder)[1]).unwrap();
        for command in [&["forget", "--keep-last", "1", "--no-cache"][..], &["prune", "--no-cache"]]
        {
            let code = program.run(command, b"").status.code();
            assert_eq!(code, Some(1), "{command:?} without {folder}");
            program.fails(&[command, &["-n"]].concat(), b"", 1);
        }
    }
}
