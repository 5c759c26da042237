//! `backup --unpack`: compressed dumps deduplicate, and come back to the byte.

use crate::databases::shop;
use crate::postgres::succeeded;
use crate::support::*;

fn gzip(bytes: &[u8], options: &[&str]) -> Vec<u8> {
    let mut command = std::process::Command::new("gzip");
    command.args(options);
    feed(command, bytes).stdout
}

#[test]
fn compressed_dumps_deduplicate_and_come_back_to_the_byte() {
    let program = Program::initialized();
    let unpack = ["backup", "--stdin", "--stdin-filename", "s.gz", "--unpack", "--verify"];
    let days: Vec<Vec<u8>> =
        (0..2).map(|day| gzip(&changed_rows(3, 60_000, day, 1000), &["-n"])).collect();
    program.ok(&unpack, &days[0]);
    let before = program.stored_bytes();
    program.ok(&unpack, &days[1]);
    let grown = program.stored_bytes() - before;
    assert!(grown * 5 < days[1].len() as u64, "{grown} of {}", days[1].len());
    assert_eq!(program.ok(&["dump", "latest"], b""), days[1]);
    let first = program.first_snapshot();
    assert_eq!(program.ok(&["dump", &first, "s.gz"], b""), days[0]);
    let target = program.path("out");
    program.ok(&["restore", "latest", "--target", target.to_str().unwrap()], b"");
    assert_eq!(std::fs::read(target.join("s.gz")).unwrap(), days[1]);
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1);
}

#[test]
fn archives_of_pg_dump_come_back_to_the_byte() {
    for version in [15, 18] {
        let server = shop(version);
        let mut dump = server.client("pg_dump");
        dump.args(["-Fc", "-d", "shop"]);
        let bytes = succeeded(dump).stdout;
        let program = Program::initialized();
        let unpack = ["backup", "--stdin", "--stdin-filename", "s.dump", "--unpack", "--verify"];
        let output = program.run(&unpack, &bytes);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(!text(&output.stderr).contains("compressed"), "{}", text(&output.stderr));
        assert_eq!(program.ok(&["dump", "latest", "s.dump"], b""), bytes);
    }
}

#[test]
fn what_cannot_be_unpacked_is_stored_as_it_comes() {
    let program = Program::initialized();
    let unpack = ["backup", "--stdin", "--unpack"];
    let output = program.run(&unpack, b"plain text\n");
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("stored as it comes"), "{}", text(&output.stderr));
    assert_eq!(program.ok(&["dump", "latest"], b""), b"plain text\n");
    // Cut off it is no backup, unless that is asked for. What else is odd comes back as it was.
    let whole = gzip(&rows(5, 20_000), &[]);
    let mut broken = whole.clone();
    broken[whole.len() / 2] ^= 0x10;
    let behind = [&whole[..], b"behind"].concat();
    let cut = &whole[..whole.len() / 2];
    let said = program.fails(&unpack, cut, 1);
    assert!(said.contains("cut off or damaged"), "{said}");
    for bytes in [&broken[..], cut, &behind] {
        program.ok(&[&unpack[..], &["--allow-cut-off"]].concat(), bytes);
        assert!(program.ok(&["dump", "latest", "stdin"], b"") == bytes);
    }
    program.ok(&unpack, &behind);
}

#[test]
fn a_source_that_fails_makes_no_snapshot_though_it_is_unpacked() {
    let program = Program::initialized();
    let path = program.path("s.gz");
    std::fs::write(&path, gzip(&rows(5, 20_000), &[])).unwrap();
    let line = format!("cat {}; exit 3", path.display());
    let stdin = ["backup", "--unpack", "--stdin-from-command", "--", "sh", "-c", &line];
    let said = program.fails(&stdin, b"", 1);
    assert!(said.contains("status 3"), "{said}");
    assert!(program.objects("snap").is_empty());
}
