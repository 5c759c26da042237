//! Looking for damage: is all that snapshots refer to there, and is it what it should be?
//!
//! Reads only. Every problem names the object, and every snapshot and stream that it touches.

mod data;
mod structure;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::error::Result;
use crate::format::paths;
use crate::id::ChunkKey;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::recipes::RecipeReader;

/// How the names of chunks begin that stand nowhere.
const CHUNKS: &[&str] = &["base", "data chunk", "tree chunk", "chunk"];

/// How much of the packs to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReadData {
    /// None: only whether they are there and as long as they should be.
    None,
    /// All of them.
    All,
    /// About this share of them, from 0 to 1, chosen at random.
    Share(f64),
    /// The `part`-th of `parts` equal parts, counted from 1; all parts together are all packs.
    Part {
        /// Which one.
        part: u64,
        /// Of how many.
        parts: u64,
    },
}

/// A snapshot's stream that a problem touches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Affected {
    /// Short id of the snapshot.
    pub snapshot: String,
    /// Its stream.
    pub path: String,
}

/// Something that is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// The object, and the blob where it is one.
    pub object: String,
    /// What is wrong with it.
    pub detail: String,
    /// What cannot be restored because of it.
    pub affected: BTreeSet<Affected>,
    /// The pack's parity is enough to mend it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_mendable: bool,
}

/// What a check found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CheckReport {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Live snapshots looked at.
    pub snapshots: u64,
    /// Packs known to the index.
    pub packs: u64,
    /// Packs read.
    pub packs_read: u64,
    /// Bytes read of them.
    pub bytes_read: u64,
    /// Objects that nothing refers to, such as an interrupted backup leaves: no problem.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Packs in the store that the log does not know.
    #[serde(skip)]
    pub unknown_packs: u64,
    /// Packs in the store that are not on the list any more.
    #[serde(skip)]
    pub unlisted_packs: u64,
}

impl CheckReport {
    /// What to do about the problems, a command a line, in this order.
    pub fn advice(&self) -> Vec<&'static str> {
        let any = |is_it: &dyn Fn(&Problem) -> bool| self.problems.iter().any(is_it);
        let below = |folders: &'static [&'static str]| {
            any(&|problem| folders.iter().any(|folder| problem.object.starts_with(folder)))
        };
        let is_lost = |problem: &Problem| {
            let is_gone = problem.object.starts_with(paths::DATA) && problem.detail == "is missing";
            is_gone && !problem.is_mendable
        };
        let mut advice = Vec::new();
        if below(&[paths::KEYS]) {
            advice.push("'restow key add' makes another key slot, 'restow key remove' removes a damaged one");
        }
        if below(&[paths::LOG, paths::INDEX, paths::SNAPSHOTS, "the commit log"]) || any(&is_lost) {
            advice.push("'restow repair index' makes log, idx objects and list of packs again");
        }
        let lacks_chunks = below(CHUNKS);
        if lacks_chunks && self.unlisted_packs > 0 {
            advice
                .push("'restow repair index' takes in packs again that were missing and are back");
        }
        if lacks_chunks && self.unknown_packs > 0 {
            advice.push("'restow repair index --all' takes in packs that the log does not know");
        }
        if any(&|problem| problem.is_mendable) {
            advice.push("'restow check --repair' mends packs from their parity");
        }
        if below(&[paths::PARITY]) {
            advice.push("'restow repair parity' makes parity again");
        }
        let damaged = |it: &Problem| it.object.starts_with(paths::DATA) && !it.is_mendable;
        if any(&damaged) || lacks_chunks {
            advice.push("'restow repair packs' saves what is good of damaged packs");
        }
        if any(&|problem| !problem.affected.is_empty() && !problem.is_mendable) {
            advice.push("'restow repair snapshots' then makes snapshots without what is lost");
        }
        advice
    }
}

/// Collects problems, each once, and remembers which chunks are lost.
#[derive(Default)]
struct Findings {
    problems: BTreeMap<String, Problem>,
    lost: HashMap<ChunkKey, BTreeSet<String>>,
}

impl Findings {
    fn add(&mut self, object: impl Into<String>, detail: impl ToString) -> &mut Problem {
        let object = object.into();
        self.problems.entry(object.clone()).or_insert_with(|| Problem {
            object,
            detail: detail.to_string(),
            affected: BTreeSet::new(),
            is_mendable: false,
        })
    }

    fn lose(&mut self, key: ChunkKey, object: &str) {
        self.lost.entry(key).or_default().insert(object.to_owned());
    }
}

/// Checks a repository.
pub fn run(repository: &Repository, read: ReadData, progress: &Progress) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    let mut findings = Findings::default();
    structure::salvaged(repository, &mut findings);
    structure::log(repository, &mut findings)?;
    structure::indexes(repository, &mut findings)?;
    structure::packs(repository, &mut findings, &mut report)?;
    if read != ReadData::None {
        data::read(repository, read, &mut findings, &mut report, progress)?;
    }
    structure::snapshots(repository, &mut findings, &mut report)?;
    report.problems = findings.problems.into_values().collect();
    Ok(report)
}

/// The problems that a chunk suffers from, its own and its bases'. Answers are remembered.
struct Losses<'a> {
    repository: &'a Repository,
    findings: &'a mut Findings,
    sound: std::collections::HashSet<ChunkKey>,
}

impl Losses<'_> {
    fn of(&mut self, key: ChunkKey) -> Result<BTreeSet<String>> {
        let mut objects = BTreeSet::new();
        let (mut waiting, mut walked) = (vec![key], Vec::new());
        while let Some(key) = waiting.pop() {
            if self.sound.contains(&key) {
                continue;
            }
            if let Some(lost) = self.findings.lost.get(&key) {
                objects.extend(lost.iter().cloned());
                continue;
            }
            walked.push(key);
            match self.repository.index().find(&key)? {
                Some(found) => waiting.extend(found.needs()),
                None => {
                    let object = format!("chunk {}", key.short());
                    self.findings.add(&object, "stands in no pack");
                    self.findings.lose(key, &object);
                    objects.insert(object);
                }
            }
        }
        if objects.is_empty() {
            self.sound.extend(walked);
        }
        // Memory stays bounded: what was forgotten is looked up again.
        if self.sound.len() > 1 << 20 {
            self.sound.clear();
        }
        Ok(objects)
    }
}

/// The objects whose damage touches a stream; an error where its recipe cannot be walked.
fn stream_losses(losses: &mut Losses<'_>, recipe: RecipeReader<'_>) -> Result<BTreeSet<String>> {
    let mut objects = BTreeSet::new();
    for run in recipe {
        objects.append(&mut losses.of(run?.id.key())?);
    }
    Ok(objects)
}
