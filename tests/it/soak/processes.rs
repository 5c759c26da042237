//! Real processes on one repository: writers, prunes and a forget, killed at random. After each round
//! everybody is gone, `check --read-data` is clean and every snapshot is what went in.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Who takes part, and for how long.
pub struct Soak {
    /// The program.
    pub program: PathBuf,
    /// As the program's `--repo` takes it. Made where there is none.
    pub repository: String,
    /// For local indexes, sources and the key.
    pub folder: PathBuf,
    pub writers: u64,
    pub prunes: u64,
    pub round: Duration,
    /// One process in so many is killed.
    pub kill_one_in: u64,
    pub seed: u64,
}

/// What a round was.
#[derive(Debug, Clone, Default)]
pub struct Round {
    pub backups: u64,
    pub conflicts: u64,
    pub prunes: u64,
    pub forgets: u64,
    pub kills: u64,
    pub snapshots: u64,
}

/// How a process ended.
enum End {
    Killed,
    Code(i32, Vec<u8>, String),
}

/// SplitMix64 over a seed and a purpose.
fn dice(seed: u64, purpose: u64) -> u64 {
    let mut word = seed.wrapping_add(purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// What a writer backs up the n-th time: a table of which some rows change from time to time.
fn content(writer: u64, number: u64, part: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for row in 0..4000 + 500 * part {
        let last = (1..=number).rev().take(12).find(|day| dice(row, *day).is_multiple_of(40));
        let noise = dice(row ^ (writer / 2) << 32, last.unwrap_or(0) << 8 | part);
        text.extend(format!("{row}\t{noise:016x}\tcustomer-{}\n", noise % 999).into_bytes());
    }
    text
}

impl Soak {
    /// Runs a round; the error says what is wrong. `done` is how many backups each writer has
    /// made so far.
    pub fn run(&self, number: u64, done: &mut [u64]) -> Result<Round, String> {
        let until = Instant::now() + self.round;
        let round = Mutex::new(Round::default());
        let fault = Mutex::new(None);
        let report = |result: Result<(), String>| {
            if let Err(text) = result {
                fault.lock().unwrap().get_or_insert(text);
            }
        };
        let goes_on = || Instant::now() < until && fault.lock().unwrap().is_none();
        std::thread::scope(|scope| {
            for (writer, done) in done.iter_mut().enumerate() {
                let (report, goes_on, round) = (&report, &goes_on, &round);
                scope.spawn(move || {
                    while goes_on() {
                        *done += 1;
                        report(self.back_up(writer as u64, *done, round));
                    }
                });
            }
            for prune in 0..self.prunes {
                let (report, goes_on, round) = (&report, &goes_on, &round);
                scope.spawn(move || {
                    let mut turn = number << 20 | prune << 16;
                    while goes_on() {
                        turn += 1;
                        report(self.prune(prune, turn, round));
                    }
                });
            }
            let (report, goes_on, round) = (&report, &goes_on, &round);
            scope.spawn(move || {
                let mut turn = number << 20 | 0xf_0000;
                while goes_on() {
                    turn += 1;
                    report(self.forget(turn, round));
                }
            });
        });
        if let Some(fault) = fault.into_inner().unwrap() {
            return Err(fault);
        }
        let mut round = round.into_inner().unwrap();
        round.snapshots = self.verify()?;
        Ok(round)
    }

    /// Makes the repository.
    pub fn init(&self) -> Result<(), String> {
        std::fs::write(self.folder.join("key"), [7; 32]).map_err(|error| error.to_string())?;
        self.ok(&["init"]).map(drop)
    }

    /// When all is over: prunes leave nothing that nobody needs.
    pub fn converge(&self) -> Result<(), String> {
        for _ in 0..2 {
            self.ok(&["prune", "--grace", "0", "--max-unused", "0"])?;
        }
        let report = self.ok(&["check", "--read-data", "--json"])?;
        let report: serde_json::Value =
            serde_json::from_slice(&report).map_err(|error| error.to_string())?;
        if report["orphans"].as_u64() == Some(0) {
            return Ok(());
        }
        Err(format!("orphans are left after two prunes: {report}"))
    }

    fn back_up(&self, writer: u64, number: u64, round: &Mutex<Round>) -> Result<(), String> {
        let tag = format!("w{writer}-{number}");
        let name = format!("s{writer}");
        let kill = self.kill_after(number << 8 | writer);
        let mut command = self.command(writer, &["backup", "--host", "soak", "--tag", &tag]);
        let end = if writer.is_multiple_of(2) {
            command.args(["--stdin", "--stdin-filename", &name]);
            run(command, &content(writer, number, 0), kill)?
        } else {
            let source = self.source(writer);
            std::fs::create_dir_all(&source).map_err(|error| error.to_string())?;
            for part in 0..3 {
                std::fs::write(source.join(part.to_string()), content(writer, number, part))
                    .map_err(|error| error.to_string())?;
            }
            command.arg(source);
            run(command, b"", kill)?
        };
        let mut round = round.lock().unwrap();
        match end {
            End::Killed => round.kills += 1,
            End::Code(0, ..) => round.backups += 1,
            End::Code(11, ..) => round.conflicts += 1,
            End::Code(code, _, said) => {
                return Err(format!("backup {tag} exits with {code}: {said}"));
            }
        }
        Ok(())
    }

    fn prune(&self, prune: u64, turn: u64, round: &Mutex<Round>) -> Result<(), String> {
        let grace = if turn.is_multiple_of(3) { "1h" } else { "0" };
        let unused = ["0", "20%", "unlimited"][(turn % 3) as usize];
        // One of them shares the local index of a writer.
        let arguments = ["prune", "--allow-empty", "--grace", grace, "--max-unused", unused];
        let command = self.command(prune * 10, &arguments);
        let end = run(command, b"", self.kill_after(turn))?;
        let mut round = round.lock().unwrap();
        match end {
            End::Killed => round.kills += 1,
            End::Code(0, ..) => round.prunes += 1,
            End::Code(11, ..) => round.conflicts += 1,
            End::Code(code, _, said) => return Err(format!("prune exits with {code}: {said}")),
        }
        Ok(())
    }

    fn forget(&self, turn: u64, round: &Mutex<Round>) -> Result<(), String> {
        pause(Duration::from_millis(50 + dice(self.seed, turn) % 200));
        let command = self.command(20, &["forget", "--keep-last", "2"]);
        let end = run(command, b"", self.kill_after(turn))?;
        let mut round = round.lock().unwrap();
        match end {
            End::Killed => round.kills += 1,
            End::Code(0, ..) => round.forgets += 1,
            End::Code(11, ..) => round.conflicts += 1,
            End::Code(code, _, said) => return Err(format!("forget exits with {code}: {said}")),
        }
        Ok(())
    }

    /// Checks everything and compares every snapshot with what went in.
    fn verify(&self) -> Result<u64, String> {
        self.ok(&["check", "--read-data"])?;
        let listed = String::from_utf8_lossy(&self.ok(&["snapshots", "--json"])?).into_owned();
        let mut found = BTreeMap::new();
        for line in listed.lines() {
            let value: serde_json::Value =
                serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))?;
            let id = value["id"].as_str().unwrap_or_default().to_owned();
            let tag = value["tags"][0].as_str().unwrap_or_default().to_owned();
            found.insert(id, tag);
        }
        for (id, tag) in &found {
            let (writer, number) = tag
                .strip_prefix('w')
                .and_then(|rest| rest.split_once('-'))
                .and_then(|(writer, number)| Some((writer.parse().ok()?, number.parse().ok()?)))
                .ok_or_else(|| format!("snapshot {id} has the tag '{tag}'"))?;
            self.compare(id, writer, number)?;
        }
        Ok(found.len() as u64)
    }

    fn compare(&self, id: &str, writer: u64, number: u64) -> Result<(), String> {
        let parts = if writer.is_multiple_of(2) { 0..1 } else { 0..3 };
        for part in parts {
            let source = self.source(writer).join(part.to_string());
            let found = match writer.is_multiple_of(2) {
                true => self.ok(&["dump", id])?,
                false => self.ok(&["dump", id, &source.display().to_string()])?,
            };
            if found != content(writer, number, part) {
                return Err(format!("snapshot {id} of writer {writer} is not what went in"));
            }
        }
        Ok(())
    }

    fn source(&self, writer: u64) -> PathBuf {
        self.folder.join(format!("source-{writer}"))
    }

    /// When to kill a process, if at all.
    fn kill_after(&self, purpose: u64) -> Option<Duration> {
        let lot = dice(self.seed ^ 0x6b69_6c6c, purpose);
        let wait = Duration::from_millis(1 + (lot >> 8) % 150);
        lot.is_multiple_of(self.kill_one_in).then_some(wait)
    }

    fn command(&self, cache: u64, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("RESTOW_REPOSITORY", &self.repository)
            .env("RESTOW_KEY_FILE", self.folder.join("key"))
            .env("RESTOW_CACHE_DIR", self.cache(cache))
            .env_remove("RESTOW_PASSWORD");
        command
    }

    fn cache(&self, number: u64) -> PathBuf {
        // The first two writers share one, as do the first writer and a prune.
        self.folder.join(format!("cache-{}", number.saturating_sub(1)))
    }

    fn ok(&self, arguments: &[&str]) -> Result<Vec<u8>, String> {
        match run(self.command(100, arguments), b"", None)? {
            End::Code(0, output, _) => Ok(output),
            End::Code(code, output, said) => {
                let output = String::from_utf8_lossy(&output).into_owned();
                Err(format!("{arguments:?} exits with {code}: {said}{output}"))
            }
            End::Killed => Err(format!("{arguments:?} was killed")),
        }
    }
}

/// Runs a process to its end, or kills it after a while.
fn run(mut command: Command, input: &[u8], kill: Option<Duration>) -> Result<End, String> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(|error| error.to_string())?;
    let (mut stdin, mut stdout, mut stderr) =
        (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || drop(stdin.write_all(input)));
        let output = scope.spawn(move || read(&mut stdout));
        let said = scope.spawn(move || read(&mut stderr));
        if let Some(wait) = kill {
            pause(wait);
            let _ = child.kill();
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        let (output, said) = (output.join().unwrap(), said.join().unwrap());
        let said = String::from_utf8_lossy(&said).into_owned();
        Ok(status.code().map_or(End::Killed, |code| End::Code(code, output, said)))
    })
}

fn read(from: &mut dyn Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    bytes
}

fn pause(length: Duration) {
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(length);
}

/// The folder of a repository on this machine.
pub fn local(folder: &Path) -> String {
    folder.join("repo").display().to_string()
}
