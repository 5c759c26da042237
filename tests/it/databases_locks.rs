//! Backups of PostgreSQL beside sessions that lock tables or want to.

use std::process::Stdio;
use std::sync::Arc;

use restow::database::Surroundings;
use restow::database::postgres::backup::prepare;
use restow::database::postgres::client::Client;
use restow::database::postgres::dsn::Dsn;
use restow::settings::PostgresConfig;
use restow::source::StreamInput;
use rustix::process::{Pid, Signal, kill_process};

use crate::databases::configure;
use crate::postgres::Postgres;
use crate::support::*;

fn two_tables() -> Postgres {
    let server = Postgres::version(15);
    server.sql("postgres", "CREATE DATABASE shop");
    server.script(
        "shop",
        "CREATE TABLE a (id int PRIMARY KEY, body text);
         INSERT INTO a SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 20000) i;
         CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1), (2)",
    );
    server
}

fn session(server: &Postgres) -> Client {
    Client::connect(&Dsn::parse(&server.dsn("shop"), &|_| None).unwrap()).unwrap()
}

/// Waits until a session waits for a lock.
fn until_one_waits(server: &Postgres) {
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while server.sql("postgres", waiting) == "0" {
        std::thread::yield_now();
    }
}

#[test]
fn who_wants_to_change_a_table_waits_for_the_end_of_a_backup_and_does_not_stop_it() {
    let server = two_tables();
    let surroundings = Surroundings {
        variables: Box::new(|_| None),
        path: None,
        temporary: std::env::temp_dir(),
        progress: Arc::default(),
    };
    let config = PostgresConfig {
        bin_dir: Some(server.bin().to_owned()),
        globals: false,
        ..PostgresConfig::new(&server.dsn("shop"))
    };
    let prepared = prepare("shop", &config, &surroundings).unwrap();
    let mut streams: Vec<_> = prepared.streams.into_iter().map(|stream| stream.input).collect();
    assert_eq!(streams.len(), 3);
    // The first byte of pg_dump comes when it has its locks.
    let mut buffer = vec![0; 1 << 20];
    assert_ne!(streams[0].read(&mut buffer[..1]).unwrap(), 0);
    std::thread::scope(|scope| {
        let change = scope.spawn(|| {
            let mut client = session(&server);
            client.query("ALTER TABLE public.b ADD COLUMN c int; DROP TABLE public.a").unwrap();
        });
        until_one_waits(&server);
        let mut bytes = Vec::new();
        for stream in &mut streams {
            bytes.push(drain(&mut **stream, &mut buffer));
        }
        let (closing, first) = (prepared.closing.unwrap(), bytes[1]);
        assert!(!change.is_finished());
        let catalogue = (closing.make)().unwrap().unwrap();
        drop(streams);
        change.join().unwrap();
        assert!(first > 20_000 * 900 && bytes[2] == 4, "{bytes:?}");
        assert!(text(&catalogue).contains("\"rows\": 20000"));
    });
}

fn drain(stream: &mut dyn StreamInput, buffer: &mut [u8]) -> usize {
    let mut total = 0;
    loop {
        match stream.read(buffer).unwrap() {
            0 => break,
            count => total += count,
        }
    }
    stream.finish().unwrap();
    total
}

#[test]
fn a_table_that_stays_locked_is_given_up_and_named_with_who_has_it() {
    let server = two_tables();
    let program = Program::initialized();
    let config = configure(&program, &server, "lock_timeout = \"1s\"");
    let mut other = session(&server);
    other.query("BEGIN; LOCK TABLE public.b").unwrap();
    let said = program.fails(&["--config", &config, "backup", "--source", "shop"], b"", 1);
    assert!(said.contains("public.b by process"), "{said}");
    assert_eq!(program.objects("snapshots").len(), 0);
}

#[test]
fn a_backup_that_waits_for_a_lock_ends_when_it_is_asked_to() {
    let server = two_tables();
    let program = Program::initialized();
    let config = configure(&program, &server, "");
    let mut other = session(&server);
    other.query("BEGIN; LOCK TABLE public.b").unwrap();
    let mut command = program.command(&["--config", &config, "backup", "--source", "shop"]);
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = quiet.spawn().unwrap();
    until_one_waits(&server);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("interrupted"), "{}", text(&output.stderr));
}
