//! Commands and files as sources, hooks, holds, the configuration file.

use std::path::Path;

use crate::mariadb::script;
use crate::support::*;

/// A program with a configuration file.
struct Configured {
    program: Program,
    config: String,
}

impl Configured {
    fn new(text: &str) -> Self {
        let program = Program::initialized();
        let config = program.path("restow.toml").to_str().unwrap().to_owned();
        let configured = Self { program, config };
        configured.write(text);
        configured
    }

    /// Writes the file; `@/` is the folder.
    fn write(&self, text: &str) {
        let folder = format!("{}/", self.program.folder.path().display());
        std::fs::write(&self.config, text.replace("@/", &folder)).unwrap();
    }

    fn words<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        [&["--config", &self.config], words].concat()
    }

    fn ok(&self, words: &[&str]) -> String {
        text(&self.program.ok(&self.words(words), b""))
    }

    fn fails(&self, words: &[&str], code: i32) -> String {
        self.program.fails(&self.words(words), b"", code)
    }

    fn ids(&self) -> Vec<String> {
        let listed = self.ok(&["--json", "snapshots"]);
        let parsed =
            listed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        parsed.map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.program.path(name)).unwrap_or_default()
    }
}

#[test]
fn an_output_must_be_long_enough_and_end_as_it_should() {
    let it = Configured::new(
        r#"[source.ldap]
        type = "command"
        command = ["cat", "@/output"]
        stream = "users.ldif"
        min_bytes = 10
        trailer = "^# end$"
        restore = ["cp", "/dev/stdin", "@/restored"]"#,
    );
    let output = it.program.path("output");
    let backup = ["backup", "--source", "ldap"];
    assert!(it.fails(&backup, 1).contains("exited with status 1"));
    std::fs::write(&output, "# end\n").unwrap();
    assert!(it.fails(&backup, 1).contains("fewer than the 10"));
    std::fs::write(&output, "many words\n# end\nand mo").unwrap();
    let said = it.fails(&backup, 1);
    assert!(said.contains("cut off") && said.contains("'and mo'"), "{said}");
    assert!(it.ids().is_empty());
    let whole = "many words\nmore\n# end\n\n";
    std::fs::write(&output, whole).unwrap();
    it.ok(&backup);
    assert_eq!(it.ok(&["dump", "latest", "users.ldif"]), whole);
    let planned = it.ok(&["restore", "--source", "ldap", "--dry-run"]);
    assert!(planned.contains("users.ldif") && planned.contains("nothing was run"), "{planned}");
    assert_eq!(it.read("restored"), "");
    it.ok(&["restore", "--source", "ldap"]);
    assert_eq!(it.read("restored"), whole);
    it.write("[source.ldap]\ntype = \"command\"\ncommand = [\"true\"]\nrestore = [\"false\"]");
    assert!(it.fails(&["restore", "--source", "ldap"], 1).contains("false"));
}

#[test]
fn files_of_a_source_are_backed_up_as_configured() {
    let it = Configured::new(
        r#"[source.etc]
        type = "files"
        paths = ["@/etc"]
        exclude = ["*.tmp"]
        tags = ["daily"]
        host = "db1""#,
    );
    std::fs::create_dir(it.program.path("etc")).unwrap();
    std::fs::write(it.program.path("etc/a"), "a").unwrap();
    std::fs::write(it.program.path("etc/b.tmp"), "b").unwrap();
    it.ok(&["backup", "--source", "etc", "--tag", "extra"]);
    let snapshot = it.ok(&["--json", "snapshots"]);
    for part in ["\"daily\"", "\"extra\"", "\"db1\"", "\"etc\""] {
        assert!(snapshot.contains(part), "{part} {snapshot}");
    }
    let target = it.program.path("target");
    it.ok(&["restore", "--source", "etc", "--target", target.to_str().unwrap()]);
    let restored = target.join(it.program.path("etc").strip_prefix("/").unwrap());
    let names = std::fs::read_dir(restored).unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["a"]);
    assert!(it.fails(&["restore", "--source", "etc"], 2).contains("--target"));
}

/// A hook that notes what it is told.
fn hook(it: &Configured, name: &str, status: u8) {
    let lines = format!(
        "echo \"{name} [$RESTOW_SOURCE] [$RESTOW_SNAPSHOT] [$RESTOW_ERROR]\" >> {}\nexit {status}",
        it.program.path("log").display()
    );
    script(&it.program.path(name), &lines);
}

#[test]
fn hooks_run_around_a_backup() {
    let it = Configured::new(
        r#"[source.x]
        type = "command"
        command = ["cat", "@/output"]
        before = ["@/before"]
        after = ["@/after"]
        on_error = ["@/on_error"]"#,
    );
    for name in ["before", "after", "on_error"] {
        hook(&it, name, 0);
    }
    let backup = ["backup", "--source", "x"];
    std::fs::write(it.program.path("output"), "text").unwrap();
    it.ok(&[&backup[..], &["--dry-run"]].concat());
    assert_eq!(it.read("log"), "");
    it.ok(&backup);
    let id = &it.ids()[0];
    assert_eq!(it.read("log"), format!("before [x] [] []\nafter [x] [{id}] []\n"));

    std::fs::remove_file(it.program.path("output")).unwrap();
    std::fs::remove_file(it.program.path("log")).unwrap();
    it.fails(&backup, 1);
    let log = it.read("log");
    assert!(log.starts_with("before [x] [] []\non_error [x] [] ["), "{log}");
    assert!(log.contains("exited with status 1"), "{log}");

    hook(&it, "before", 7);
    std::fs::remove_file(it.program.path("log")).unwrap();
    script(&it.program.path("output"), "");
    let said = it.fails(&backup, 1);
    assert!(said.contains("hook") && said.contains("before"), "{said}");
    let log = it.read("log");
    assert!(log.contains("on_error") && log.contains("before: exit status: 7"), "{log}");
    assert!(!log.contains("after") && it.ids().len() == 1, "{log}");
}

#[test]
fn a_second_backup_of_a_source_waits_or_gives_up() {
    let it = Configured::new("[source.x]\ntype = \"command\"\ncommand = [\"cat\", \"@/fifo\"]");
    let fifo = it.program.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let backup = it.words(&["backup", "--source", "x"]);
    let mut first =
        it.program.command(&backup).stdout(std::process::Stdio::null()).spawn().unwrap();
    // Opening it waits for the command to read, which is when the source is locked.
    let writer = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    let said = it.fails(&["backup", "--source", "x"], 11);
    assert!(said.contains("runs already") && said.contains("--wait"), "{said}");
    // Who waits ends when it is asked to.
    let mut waiting = it.program.command(&[&backup[..], &["--wait"]].concat());
    let mut waiting = waiting.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(waiting.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut String::new()).unwrap();
    let pid = rustix::process::Pid::from_child(&waiting);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(130));
    let second = it.program.command(&[&backup[..], &["--wait"]].concat());
    std::thread::scope(|scope| {
        let second = scope.spawn(move || feed(second, b""));
        std::io::Write::write_all(&mut &writer, b"first").unwrap();
        drop(writer);
        assert!(first.wait().unwrap().success());
        std::fs::write(&fifo, b"second").unwrap();
        assert!(second.join().unwrap().status.success());
    });
    assert_eq!(it.ok(&["dump", "latest"]), "second");
    assert_eq!(it.ids().len(), 2);
}

#[test]
fn a_hold_ends_by_itself() {
    let it = Configured::new("[source.x]\ntype = \"command\"\ncommand = [\"echo\", \"x\"]");
    let days_ago = |days: i64| {
        (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days)).to_string()
    };
    let backup = |days: i64, more: &[&str]| {
        let time = days_ago(days);
        it.ok(&[&["backup", "--source", "x", "--time", &time][..], more].concat());
    };
    backup(40, &["--hold", "30d", "--tag", "released"]);
    backup(20, &["--hold", "30d", "--tag", "pre-migration"]);
    backup(1, &["--verify"]);
    let held = it.ok(&["--json", "snapshots", "--tag", "pre-migration"]);
    let held: serde_json::Value = serde_json::from_str(&held).unwrap();
    let held = held["id"].as_str().unwrap();
    it.ok(&["forget", "--keep-last", "1"]);
    assert_eq!(it.ids().len(), 2);
    assert!(it.ids().iter().any(|id| id == held));
    let said = it.fails(&["forget", held], 11);
    assert!(said.contains("held"), "{said}");
    it.ok(&["forget", "--release", held]);
    it.ok(&["forget", "--keep-last", "1"]);
    assert_eq!(it.ids().len(), 1);
    assert!(it.fails(&["backup", "--source", "x", "--hold", "30x"], 2).contains("30x"));
}

#[test]
fn forget_keeps_what_the_configuration_says() {
    let source = "[source.x]\ntype = \"command\"\ncommand = [\"echo\", \"x\"]\n";
    let it = Configured::new(source);
    for day in 1..6 {
        let time = format!("2026-01-0{day}T12:00:00Z");
        it.ok(&["backup", "--source", "x", "--time", &time]);
    }
    let said = it.fails(&["forget"], 2);
    assert!(said.contains("[retention]"), "{said}");
    it.write(&format!("{source}[retention]\nkeep_daily = 2"));
    it.ok(&["forget", "--keep-daily", "4"]);
    assert_eq!(it.ids().len(), 4);
    it.ok(&["forget"]);
    assert_eq!(it.ids().len(), 2);
    it.write(&format!("{source}[retention]\nkeep_within = \"soon\""));
    assert!(it.fails(&["config", "check"], 2).contains("soon"));
}

#[test]
fn the_configuration_is_checked_and_explained() {
    let it = Configured::new("");
    let example = it.ok(&["config", "example"]);
    it.write(&example);
    let said = it.ok(&["config", "check"]);
    assert!(said.contains("1 repositories, 5 sources"), "{said}");
    // What is commented out is right too.
    let is_option = |line: &str| {
        line.strip_prefix("# ").is_some_and(|rest| {
            let (key, value) = rest.split_once(" = ").unwrap_or_default();
            !key.is_empty() && !key.contains(' ') && !value.is_empty()
        })
    };
    let mut lines: Vec<&str> = Vec::new();
    for line in example.lines() {
        // Options of every source stand below the last one.
        let is_common = ["# repo", "# host", "# tags", "# before", "# after", "# on_error"]
            .iter()
            .any(|key| line.starts_with(key));
        let bare =
            line.strip_prefix("# ").filter(|_| is_option(line) && !line.contains("password ="));
        let repeated = is_common && lines.contains(&bare.unwrap_or_default());
        lines.push(bare.filter(|_| !repeated).unwrap_or(line));
    }
    it.write(&lines.join("\n"));
    it.ok(&["config", "check"]);
    assert!(lines.iter().filter(|line| line.starts_with("bin_dir")).count() > 0);

    it.write("[source.a]\ntype = \"command\"\ncomand = [\"x\"]");
    let said = it.fails(&["config", "check"], 2);
    assert!(said.contains("[source.a]") && said.contains("is it 'command'?"), "{said}");
    it.write("[source.app]\ntype = \"sqlite\"\npath = \"@/x.db\"\n[drill.d]\nsource = \"ap\"");
    assert!(it.fails(&["config", "check"], 2).contains("is it 'app'?"));
    it.write("[source.app]\ntype = \"sqlite\"\npath = \"@/x.db\"");
    assert!(it.fails(&["backup", "--source", "apq"], 2).contains("is it 'app'?"));
    assert!(it.fails(&["config", "check", "--config", "/none"], 1).contains("/none"));
}

#[test]
fn sources_are_listed_and_tested() {
    let it = Configured::new(
        r#"[source.db]
        type = "mysql"
        dsn = "mysql://me:secret@db/shop"
        [source.here]
        type = "command"
        command = ["cat", "@/restow.toml"]
        [source.gone]
        type = "command"
        command = ["@/no-such-program"]
        [source.files]
        type = "files"
        paths = ["@/none"]"#,
    );
    let listed = it.ok(&["source", "list"]);
    assert!(listed.contains("mysql://me@db/shop") && !listed.contains("secret"), "{listed}");
    assert!(it.ok(&["--json", "source", "list"]).lines().count() == 4);
    assert!(it.ok(&["source", "test", "here"]).contains("ok       cat is /"));
    it.fails(&["source", "test", "gone"], 1);
    it.fails(&["source", "test", "files"], 1);
    assert!(Path::new(&it.config).exists());
}

#[test]
fn a_restore_command_must_take_all_and_only_what_is_meant_for_it() {
    let it = Configured::new(
        "[source.x]\ntype = \"command\"\ncommand = [\"seq\", \"1000000\"]\n\
         restore = [\"head\", \"-c\", \"10\"]",
    );
    it.ok(&["backup", "--source", "x"]);
    let said = it.fails(&["restore", "--source", "x"], 1);
    assert!(said.contains("head: ended before it had read everything"), "{said}");
    let said = it.fails(&["restore", "--source", "x", "--table", "a.b"], 2);
    assert!(said.contains("--table"), "{said}");
    let said = it.fails(&["restore", "--source", "x", "--stream", "nosuch"], 1);
    assert!(said.contains("nosuch"), "{said}");
}

#[test]
fn what_would_be_passed_over_is_an_error_of_the_configuration() {
    let source = "[source.x]\ntype = \"command\"\ncommand = [\"echo\"]\n";
    let sqlite = "[source.x]\ntype = \"sqlite\"\npath = \"x.db\"\n";
    for (kind, drill, wanted) in [
        (source, "rpo = \"1s\"", "newest"),
        (source, "level = \"read\"\n[[drill.p.assert]]\nsql = \"SELECT 1\"", "restore"),
        (sqlite, "scratch = \"postgres://x/y\"", "scratch"),
    ] {
        let it = Configured::new(&format!("{kind}[drill.p]\nsource = \"x\"\n{drill}\n"));
        let said = it.fails(&["config", "check"], 2);
        assert!(said.contains("[drill.p]") && said.contains(wanted), "{said}");
    }
    let it = Configured::new("[source.x]\ntype = \"postgres\"\ndsn = \"x\"\npassword = 12345678");
    let said = it.fails(&["config", "check"], 2);
    assert!(said.contains("env:NAME") && !said.contains("1234"), "{said}");
    for (options, wanted) in [
        ("type = \"postgres\"\ndsn = \"postgres://u:s3cr3t@h/d\"", "password = "),
        ("type = \"mysql\"\ndsn = \"mysql://u:s3cr3t@h/d\"", "password = "),
        ("type = \"postgres\"\ndsn = \"hots=x\"", "is it 'host'?"),
        ("type = \"postgres\"\ndsn = \"host=x user=u\"\njobs = 0", "jobs"),
        ("type = \"command\"\ncommand = [\"x\"]\ntrailer = \"(\"", "trailer"),
        ("type = \"command\"\ncommand = []", "command is empty"),
        ("type = \"files\"\npaths = []", "paths is empty"),
    ] {
        let it = Configured::new(&format!("[source.x]\n{options}\n"));
        let said = it.fails(&["config", "check"], 2);
        assert!(said.contains("[source.x]") && said.contains(wanted), "{said}");
        assert!(!said.contains("s3cr3t"), "{said}");
    }
    for address in
        ["postgres://u:s3cr3t/x@host/db", "mysql://u:s3cr3t/x@host/db", "mysql://h/d?pw=s3cr3t"]
    {
        let said = it.fails(&["backup", "--source", address], 1);
        assert!(!said.contains("s3cr3t"), "{said}");
    }
}
