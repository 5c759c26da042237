//! The program as a user meets it: exit codes, messages, pipes, signals.

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::*;

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn a_dump_goes_in_and_comes_back() {
    let program = Program::initialized();
    let (first, second) = (rows(1, 40_000), changed_rows(1, 40_000, 1, 100));
    program.backup("shop.sql", &first);
    let summary =
        program.ok(&["backup", "--stdin", "--stdin-filename", "shop.sql", "--json"], &second);
    let summary = json(&summary);
    assert_eq!(summary["summary"]["read_bytes"], second.len());
    assert!(program.ok(&["dump", "latest", "shop.sql"], b"") == second);
    let snapshots = text(&program.ok(&["snapshots", "--json"], b""));
    let first_id = json(snapshots.lines().next().unwrap().as_bytes())["short_id"].clone();
    assert!(program.ok(&["dump", first_id.as_str().unwrap(), "/shop.sql"], b"") == first);
    program.ok(&["check", "--read-data"], b"");
}

#[test]
fn every_command_answers() {
    let program = Program::initialized();
    program
        .ok(&["backup", "--stdin", "--tag", "a,b", "--host", "h", "--description", "d"], b"text");
    program.ok(&["backup", "--stdin", "--time", "2030-01-02T03:04:05Z"], b"text2");
    for arguments in [
        &["snapshots"][..],
        &["snapshots", "--tag", "a,b", "--host", "h"],
        &["ls"],
        &["ls", "-l"],
        &["stats"],
        &["stats", "latest"],
        &["cat", "config"],
        &["cat", "snapshot", "latest"],
        &["cat", "log"],
        &["cat", "log", "0"],
        &["check"],
        &["check", "--read-data-subset", "50%"],
        &["check", "--read-data-subset", "1/3"],
        &["key", "list"],
        &["version"],
        &["man"],
        &["completions", "bash"],
        &["tag", "--add", "x"],
        &["--help"],
        &["backup", "--help"],
    ] {
        let output = program.ok(arguments, b"");
        assert!(!output.is_empty(), "{arguments:?} said nothing");
    }
    assert!(text(&program.ok(&["snapshots", "--path", "none"], b"")).contains("0 snapshots"));
    assert!(text(&program.ok(&["snapshots", "latest"], b"")).contains("2030"));
}

#[test]
fn errors_have_their_exit_codes() {
    let program = Program::new();
    assert!(program.fails(&["snapshots"], b"", 10).contains("hint:"));
    program.ok(&["init"], b"");
    program.fails(&["init"], b"", 11);
    program.fails(&["no-such-command"], b"", 2);
    program.fails(&["backup"], b"", 2);
    program.fails(&["dump", "latest"], b"", 1);
    assert!(program.fails(&["dump", "zz"], b"", 1).contains("no snapshot matches 'zz'"));
    program.backup("a", b"1");
    assert!(program.fails(&["dump", "latest", "b"], b"", 1).contains("holds no 'b'"));
    std::fs::create_dir(program.path("other")).unwrap();
    std::fs::write(program.path("other/file"), "x").unwrap();
    let other = program.path("other");
    let other = other.to_str().unwrap();
    program.fails(&["--repo", other, "snapshots"], b"", 10);
    program.fails(&["--repo", other, "init"], b"", 11);
    let file = format!("{other}/file");
    program.fails(&["--repo", &file, "snapshots"], b"", 1);
    program.fails(&["--repo", "ftp://host/x", "snapshots"], b"", 2);
}

#[test]
fn a_wrong_password_or_key_file_is_told() {
    let program = Program::new();
    let with_password = |arguments: &[&str], password: &str| {
        let mut command = program.command(arguments);
        command.env_remove("RESTOW_KEY_FILE").env("RESTOW_PASSWORD", password);
        feed(command, b"")
    };
    assert!(with_password(&["init"], "right").status.success());
    assert_eq!(with_password(&["snapshots"], "wrong").status.code(), Some(12));
    assert_eq!(with_password(&["snapshots"], "").status.code(), Some(2));
    assert_eq!(program.run(&["snapshots"], b"").status.code(), Some(12), "key file for a password");
    let mut nothing = program.command(&["snapshots"]);
    nothing.env_remove("RESTOW_KEY_FILE");
    let output = feed(nothing, b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("RESTOW_PASSWORD"));
    std::fs::write(program.path("pw"), "right\n").unwrap();
    let mut file = program.command(&["key", "add", "--new-key-file", "key", "--label", "cron"]);
    file.env_remove("RESTOW_KEY_FILE").env("RESTOW_PASSWORD_FILE", program.path("pw"));
    file.current_dir(program.folder.path());
    assert!(feed(file, b"").status.success());
    let mut by_key = program.command(&["key", "list"]);
    by_key.env("RESTOW_KEY_FILE", program.path("key"));
    assert!(text(&feed(by_key, b"").stdout).contains("cron"));
    let mut by_command = program.command(&["snapshots"]);
    by_command.env_remove("RESTOW_KEY_FILE").env("RESTOW_PASSWORD_COMMAND", "echo right");
    assert!(feed(by_command, b"").status.success());
}

#[test]
fn keys_are_added_changed_and_removed_but_never_all() {
    let program = Program::initialized();
    let list = text(&program.ok(&["key", "list"], b""));
    let slot = list.lines().nth(1).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    assert!(program.fails(&["key", "remove", &slot], b"", 11).contains("last key slot"));
    std::fs::write(program.path("new"), "secret\n").unwrap();
    let new = program.path("new");
    program.ok(&["key", "passwd", "--new-password-file", new.to_str().unwrap()], b"");
    program.fails(&["snapshots"], b"", 12);
    let mut command = program.command(&["snapshots"]);
    command.env_remove("RESTOW_KEY_FILE").env("RESTOW_PASSWORD", "secret");
    assert!(feed(command, b"").status.success());
}

#[test]
fn failing_commands_make_no_snapshot() {
    let program = Program::initialized();
    for line in ["printf data; exit 3", "printf data; kill -9 $$"] {
        let arguments = ["backup", "--stdin-from-command", "--", "/bin/sh", "-c", line];
        assert!(program.fails(&arguments, b"", 1).contains("command"));
    }
    let empty = ["backup", "--stdin-from-command", "--min-size", "1", "--", "true"];
    assert!(program.fails(&empty, b"", 1).contains("--min-size"));
    program.fails(&["backup", "--stdin-from-command", "--", "/no/such/program"], b"", 1);
    program.fails(&["backup", "--stream", "a=true", "--stream", "b=exit 1"], b"", 1);
    assert!(text(&program.ok(&["snapshots"], b"")).contains("0 snapshots"));
    program.ok(&["backup", "--stream", "a=printf 1", "--stream", "b=printf 2"], b"");
    assert_eq!(program.ok(&["dump", "latest", "b"], b""), b"2");
    assert!(program.fails(&["dump", "latest"], b"", 2).contains("name one"));
}

#[test]
fn a_closed_output_pipe_ends_quietly() {
    let program = Program::initialized();
    program.backup("big", &random_bytes(1, 8_000_000));
    let mut child = program
        .command(&["dump", "latest", "big"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut [0; 1000]).unwrap();
    drop(output);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(said, "");
}

/// Feeds half a stream, interrupts, and runs again: what was stored is not stored again.
#[test]
fn ctrl_c_keeps_what_was_stored() {
    let program = Program::initialized();
    let bytes = random_bytes(1, 80_000_000);
    let mut child = program
        .command(&["backup", "--stdin", "--stdin-filename", "s"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&bytes[..70_000_000]).unwrap();
    wait_until(|| program.objects("data").len() >= 2);
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(input);
    let size = |program: &Program| -> u64 {
        program.objects("data").iter().map(|path| path.metadata().unwrap().len()).sum()
    };
    let before = size(&program);
    assert!(before > 60_000_000, "{before} bytes kept");
    program.backup("s", &bytes);
    let total = size(&program);
    assert!(total < bytes.len() as u64 + 2_000_000, "{total} bytes stored for {}", bytes.len());
    assert!(program.ok(&["dump", "latest", "s"], b"") == bytes);
}

/// kill -9 leaves packs that no log entry knows; the next run finds them again.
#[test]
fn kill_nine_keeps_what_was_stored() {
    let program = Program::initialized();
    let bytes = random_bytes(2, 80_000_000);
    let mut child = program
        .command(&["backup", "--stdin", "--stdin-filename", "s"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&bytes[..75_000_000]).unwrap();
    wait_until(|| program.objects("data").len() >= 2);
    child.kill().unwrap();
    child.wait().unwrap();
    program.ok(&["check"], b"");
    program.backup("s", &bytes);
    let packs = program.objects("data");
    let total: u64 = packs.iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(total < bytes.len() as u64 + 2_000_000, "{total} bytes stored for {}", bytes.len());
    assert!(program.ok(&["dump", "latest", "s"], b"") == bytes);
    program.ok(&["check", "--read-data"], b"");
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited a minute in vain");
        std::thread::yield_now();
    }
}

#[test]
fn a_damaged_pack_is_named_and_the_good_streams_still_come_back() {
    let program = Program::initialized();
    program.backup("a", &random_bytes(1, 300_000));
    program.backup("b", &random_bytes(2, 300_000));
    let mut packs = program.objects("data");
    packs.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
    let mut stored = std::fs::read(&packs[0]).unwrap();
    stored[1000] ^= 4;
    std::fs::write(&packs[0], stored).unwrap();
    let output = program.run(&["check", "--read-data"], b"");
    assert_eq!(output.status.code(), Some(1));
    let name = packs[0].file_name().unwrap().to_str().unwrap();
    let said = text(&output.stdout);
    assert!(said.contains(name) && said.contains("affects"), "{said}");
    let results: Vec<_> =
        ["a", "b"].iter().map(|s| program.run(&["dump", "latest", s, "--path", s], b"")).collect();
    assert_eq!(results.iter().filter(|output| output.status.success()).count(), 1);
    let bad = results.iter().find(|output| !output.status.success()).unwrap();
    assert!(text(&bad.stderr).contains(name), "{}", text(&bad.stderr));
}

#[test]
fn newer_and_foreign_repositories_are_told_apart() {
    let program = Program::initialized();
    let config = program.path("repo/config");
    let text_of = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text_of.replace("\"version\":1", "\"version\":9")).unwrap();
    assert!(program.fails(&["snapshots"], b"", 1).contains("format version 9"));
    std::fs::write(&config, text_of.replace("\"avg\":", "\"avg\": ")).unwrap();
    assert!(program.fails(&["snapshots"], b"", 1).contains("authentication failed"));
    std::fs::write(&config, "[core]\n").unwrap();
    program.fails(&["snapshots"], b"", 1);
}

#[test]
fn a_read_only_repository_can_be_read() {
    let program = Program::initialized();
    program.backup("a", b"text");
    assert!(!program.ok(&["--no-cache", "dump", "latest", "a"], b"").is_empty());
    std::fs::remove_dir_all(program.path("cache")).unwrap();
    assert_eq!(program.ok(&["dump", "latest", "a"], b""), b"text");
}

#[test]
fn odd_names_survive_the_command_line() {
    let program = Program::initialized();
    for name in [&b"new\nline"[..], b"\xff\xfe.sql", "sn\u{f6} \u{1f980}".as_bytes()] {
        let mut command = program.command(&["backup", "--stdin", "--stdin-filename"]);
        command.arg(std::ffi::OsStr::from_bytes(name));
        assert!(feed(command, name).status.success());
        let mut command = program.command(&["dump", "latest"]);
        command.arg(std::ffi::OsStr::from_bytes(name));
        assert_eq!(feed(command, b"").stdout, name);
    }
    let listed = text(&program.ok(&["snapshots"], b""));
    assert!(listed.contains("new\\nline") && listed.contains("\\xff\\xfe.sql"), "{listed}");
}

#[test]
fn restore_writes_files_and_replaces_none_unasked() {
    let program = Program::initialized();
    program.backup("dir/a.sql", b"one");
    let target = program.path("target");
    let target = target.to_str().unwrap();
    program.ok(&["restore", "latest", "--target", target], b"");
    let file = program.path("target/dir/a.sql");
    assert_eq!(std::fs::read(&file).unwrap(), b"one");
    program.fails(&["restore", "latest", "--target", target], b"", 1);
    std::fs::write(&file, "changed").unwrap();
    program.ok(&["restore", "latest", "--target", target, "--overwrite"], b"");
    assert_eq!(std::fs::read(&file).unwrap(), b"one");
    for name in ["../escape", "a//b", "a/.", "/"] {
        program.fails(&["backup", "--stdin", "--stdin-filename", name], b"x", 2);
    }
}

#[test]
fn a_sparse_file_is_not_read_through() {
    let program = Program::initialized();
    let file = std::fs::File::create(program.path("image")).unwrap();
    file.set_len(100 << 30).unwrap();
    let started = Instant::now();
    let mut command =
        program.command(&["backup", "--stdin", "--stdin-filename", "image", "--json"]);
    command.stdin(std::fs::File::open(program.path("image")).unwrap());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(json(&output.stdout)["summary"]["read_bytes"], 100_u64 << 30);
    let target = program.path("target");
    program.ok(&["restore", "latest", "--target", target.to_str().unwrap()], b"");
    let restored = program.path("target/image").metadata().unwrap();
    assert_eq!(restored.len(), 100 << 30);
    assert!(std::os::unix::fs::MetadataExt::blocks(&restored) < 100_000);
}

#[test]
fn sha256_is_told() {
    let program = Program::initialized();
    program.backup("a", b"abc");
    let output = program.run(&["dump", "latest", "a", "--sha256"], b"");
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert!(text(&output.stderr).starts_with(expected), "{}", text(&output.stderr));
}

#[test]
fn the_demo_runs() {
    let program = Program::new();
    let said = text(&program.ok(&["demo", "--rows", "20000"], b""));
    assert!(said.contains("integrity_check says ok") && said.contains("no problems"), "{said}");
}

#[test]
fn init_on_first_use() {
    let program = Program::new();
    program.ok(&["backup", "--init", "--stdin"], b"x");
    assert_eq!(program.ok(&["dump", "latest"], b""), b"x");
}

#[test]
fn compressed_input_is_stored_faithfully_with_one_warning() {
    let program = Program::initialized();
    let bytes = [&[0x1f, 0x8b, 8][..], &random_bytes(1, 10_000)].concat();
    let output = program.run(&["backup", "--stdin", "--stdin-filename", "dump.gz"], &bytes);
    assert!(output.status.success());
    assert_eq!(text(&output.stderr).matches("compressed (gzip)").count(), 1);
    assert!(program.ok(&["dump", "latest", "dump.gz"], b"") == bytes);
}

/// Names and words of others cannot move the cursor, clear the screen or ring the bell.
#[test]
fn control_characters_are_shown_and_not_sent() {
    let program = Program::initialized();
    let bad = "x\u{1b}[2J\u{7}";
    program
        .ok(&["backup", "--stdin", "--stdin-filename", bad, "--host", bad, "--tag", bad], b"text");
    for arguments in [&["snapshots"][..], &["ls", "-l"], &["log"], &["forget", "--keep-last", "1"]]
    {
        let said = text(&program.ok(arguments, b""));
        assert!(!said.contains(['\u{1b}', '\u{7}']), "{arguments:?}: {said:?}");
        assert!(said.contains("[2J"), "{arguments:?}: {said}");
    }
    let said = program.fails(&["forget", "latest"], b"", 11);
    assert!(said.contains("\\u{1b}[2J"), "{said}");
    let told = json(&program.ok(&["snapshots", "--json"], b""));
    assert_eq!((&told["host"], &told["tags"][0]), (&bad.into(), &bad.into()));
}

#[test]
fn the_local_index_is_private_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let program = Program::initialized();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let folder = std::fs::read_dir(program.path("cache")).unwrap().next().unwrap().unwrap().path();
    let file = folder.join("index.sqlite");
    // As an older program left them, and as they are when they are made anew.
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    for _ in 0..2 {
        let mut wide = std::process::Command::new("/bin/sh");
        let command = program.command(&["snapshots"]);
        wide.args(["-c", "umask 000; exec \"$0\" snapshots"]).arg(command.get_program());
        wide.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        assert!(feed(wide, b"").status.success());
        assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let is_index = entry.file_name().to_string_lossy().starts_with("index.sqlite");
            assert!(!is_index || mode(&entry.path()) == 0o600, "{entry:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

#[test]
fn a_cache_folder_that_cannot_be_written_is_done_without() {
    let program = Program::initialized();
    program.backup("a", b"text");
    std::fs::write(program.path("file"), "").unwrap();
    let folder = program.path("file/cache");
    let there = ["--cache-dir", folder.to_str().unwrap()];
    for arguments in [&["snapshots"][..], &["backup", "--stdin"], &["prune", "-n"]] {
        let output = program.run(&[arguments, &there].concat(), b"more");
        let said = text(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert_eq!(said.matches("--cache-dir").count(), 1, "{said}");
    }
    // The folder of this repository alone.
    let own = std::fs::read_dir(program.path("cache")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_dir_all(&own).unwrap();
    std::fs::write(&own, "").unwrap();
    let output = program.run(&["snapshots"], b"");
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("--cache-dir"), "{said}");
}

#[test]
fn caches_are_listed_and_cleared_in_words_too() {
    let program = Program::initialized();
    let list = text(&program.ok(&["cache", "list"], b""));
    assert_eq!(list, text(&program.ok(&["cache"], b"")));
    let id = list.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert!(text(&program.ok(&["cache", "clear", &id[..8], "-n"], b"")).contains("would remove"));
    program.fails(&["cache", "--forget", "list"], b"", 2);
    program.fails(&["cache", "clear", "ffffffff0"], b"", 2);
    assert!(text(&program.ok(&["cache", "clear"], b"")).contains("removed"));
    assert_eq!(text(&program.ok(&["cache", "list"], b"")).lines().count(), 1);
}
