//! Drills: proof that a source restores. A snapshot is read back, or restored into a server that is made
//! for it and thrown away, and looked at there. What came of it is kept in the repository, signed.
//!
//! Never touches the live database: a scratch server has a folder and a socket of its own and archives
//! nothing; on a server that the user names, a new database is made and dropped.

mod engine;
mod mysql;
mod postgres;
mod report;
mod scratch;
mod sqlite;

use std::sync::Arc;
use std::time::Instant;

pub use report::{Found, Signed, list, store};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::database::Surroundings;
use crate::database::verify::{catalogues, read_back};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::snapshots::NamedSnapshot;
use crate::settings::{DrillConfig, DrillLevel, duration};

/// What came of a drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Format of this report, 1.
    pub version: u32,
    /// Its name in the configuration.
    pub drill: String,
    /// The source.
    pub source: String,
    /// Id of the snapshot.
    pub snapshot: String,
    /// When that was made.
    pub snapshot_time: Timestamp,
    /// How far it went.
    pub level: DrillLevel,
    /// When it began.
    pub started: Timestamp,
    /// Seconds of each phase: `fetch`, `start`, `load`, `recover`, `check`.
    pub phases: Vec<Phase>,
    /// Seconds until the database would have been of use: all phases but `check`.
    pub rto_seconds: f64,
    /// How long that may last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto_target_seconds: Option<u64>,
    /// How old the newest row was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_row_age_seconds: Option<f64>,
    /// Tables restored.
    pub tables: u64,
    /// Rows restored.
    pub rows: u64,
    /// Bytes restored or read.
    pub bytes: u64,
    /// The server that it was restored into.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server_version: String,
    /// What was looked at.
    pub checks: Vec<Check>,
    /// Why it did not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// How long a part took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Its time.
    pub seconds: f64,
}

/// One thing that was looked at, and held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What.
    pub what: String,
    /// What was found.
    pub detail: String,
}

/// Why a drill did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// In words.
    pub detail: String,
}

/// Kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// Something in the repository is damaged or missing.
    Damaged,
    /// There are no programs to make a scratch server with.
    NoServer,
    /// The scratch server did not start.
    Start,
    /// The restore failed.
    Restore,
    /// Tables are missing.
    Tables,
    /// Tables have other rows than when they were read.
    Rows,
    /// The server's own checks found damage.
    Integrity,
    /// An assertion does not hold.
    Assertion,
    /// The newest row is too old.
    Rpo,
    /// It took too long.
    Rto,
}

impl FailureKind {
    /// As it stands in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::NoServer => "no-server",
            Self::Start => "start",
            Self::Restore => "restore",
            Self::Tables => "tables",
            Self::Rows => "rows",
            Self::Integrity => "integrity",
            Self::Assertion => "assertion",
            Self::Rpo => "rpo",
            Self::Rto => "rto",
        }
    }
}

/// Why a drill ends early: it did not pass, or it could not be held at all.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(Failure),
    Error(Error),
}

impl Stop {
    fn failed(kind: FailureKind, detail: impl std::fmt::Display) -> Self {
        Self::Failed(Failure { kind, detail: detail.to_string() })
    }

    /// An error while something was done: damage of the repository is damage, whatever was done.
    fn during(kind: FailureKind, error: Error) -> Self {
        if error.kind() == ErrorKind::Interrupted {
            return Self::Error(Error::Interrupted);
        }
        let kind = if error.is_certain_damage() { FailureKind::Damaged } else { kind };
        Self::failed(kind, error)
    }
}

/// What a drill works on.
pub struct Drill<'a> {
    /// Its name.
    pub name: &'a str,
    /// How it is held.
    pub config: &'a DrillConfig,
    /// The repository.
    pub repository: &'a Repository,
    /// The snapshot to prove.
    pub snapshot: &'a NamedSnapshot,
    /// What the process has around it.
    pub surroundings: &'a Surroundings,
    /// Counters, and the wish to stop.
    pub progress: &'a Arc<Progress>,
}

/// Holds a drill. A drill that does not pass is no error: the report says so.
pub fn run(drill: &Drill<'_>) -> Result<Report> {
    let seconds = |text: &Option<String>| text.as_deref().and_then(duration).map(|it| it.as_secs());
    let snapshot = &drill.snapshot.snapshot;
    let mut report = Report {
        version: 1,
        drill: drill.name.to_owned(),
        source: drill.config.source.clone(),
        snapshot: drill.snapshot.name.to_hex(),
        snapshot_time: snapshot.time,
        level: drill.config.level,
        started: drill.repository.environment().clock.now(),
        phases: Vec::new(),
        rto_seconds: 0.0,
        rto_target_seconds: seconds(&drill.config.rto),
        newest_row_age_seconds: None,
        tables: 0,
        rows: 0,
        bytes: 0,
        server_version: String::new(),
        checks: Vec::new(),
        failure: None,
    };
    let held = match drill.config.level {
        DrillLevel::Read => read(drill, &mut report),
        DrillLevel::Restore => restore(drill, &mut report),
    };
    if drill.progress.is_interrupted() {
        // Whatever failed, it failed because of that.
        return Err(Error::Interrupted);
    }
    match held {
        Ok(()) => {}
        Err(_) if drill.progress.is_interrupted() => return Err(Error::Interrupted),
        Err(Stop::Failed(failure)) => report.failure = Some(failure),
        Err(Stop::Error(error)) => return Err(error),
    }
    let phases = report.phases.iter().filter(|phase| phase.name != "check");
    report.rto_seconds = phases.map(|phase| phase.seconds).sum::<f64>().max(0.0);
    if let Some(target) = report.rto_target_seconds
        && report.failure.is_none()
        && report.rto_seconds > target as f64
    {
        let detail = format!("it took {:.0} s, the target is {target} s", report.rto_seconds);
        report.failure = Some(Failure { kind: FailureKind::Rto, detail });
    }
    Ok(report)
}

fn read(drill: &Drill<'_>, report: &mut Report) -> Result<(), Stop> {
    let snapshot = &drill.snapshot.snapshot;
    let read = phase(report, "fetch", || {
        read_back(drill.repository, snapshot, drill.progress)
            .map_err(|error| Stop::during(FailureKind::Damaged, error))
    })?;
    (report.bytes, report.tables) = (read.bytes, read.tables);
    let detail = format!("{} bytes, {} tables by their hashes", read.bytes, read.tables);
    report.checks.push(Check { what: "read".into(), detail });
    Ok(())
}

fn restore(drill: &Drill<'_>, report: &mut Report) -> Result<(), Stop> {
    let found = catalogues(drill.repository, &drill.snapshot.snapshot);
    let found = found.map_err(|error| Stop::during(FailureKind::Damaged, error))?;
    let [catalogue] = &found[..] else {
        let source = &drill.config.source;
        let text =
            format!("{source} holds no one database: its drill can only have level = \"read\"");
        return Err(Stop::Error(Error::Usage(text)));
    };
    match catalogue.engine.as_str() {
        "postgres" => postgres::hold(drill, catalogue, report),
        "sqlite" => sqlite::hold(drill, catalogue, report),
        _ => mysql::hold(drill, catalogue, report),
    }
}

/// Runs a part and notes how long it took, also where it fails.
fn phase<T>(
    report: &mut Report,
    name: &str,
    run: impl FnOnce() -> Result<T, Stop>,
) -> Result<T, Stop> {
    let started = Instant::now();
    let result = run();
    add_phase(report, name, started.elapsed().as_secs_f64());
    result
}

fn add_phase(report: &mut Report, name: &str, seconds: f64) {
    match report.phases.iter_mut().find(|phase| phase.name == name) {
        Some(phase) => phase.seconds += seconds,
        None => report.phases.push(Phase { name: name.to_owned(), seconds }),
    }
}
