//! Removing what no snapshot needs, while backups run.
//!
//! No locks and no safety by clock: list the store, then read the head of the log; mark what the
//! live snapshots need; write the needed part of packs anew (an ordinary commit); **condemn** what is
//! garbage (writers then no longer rely on it without rescuing it); after a grace, which is mere
//! politeness, mark again, declare it **dead**, and only then delete. A writer that commits between
//! two steps is seen by the next one; another prune between them makes this one start over. Whatever
//! a crash leaves is garbage for the next prune, never a reference to nothing.

mod collapse;
mod filter;
mod garbage;
mod homes;
mod mark;
mod plan;
mod refuse;
mod remove;
mod repack;
mod report;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

pub use plan::{PackUse, Plan};
pub use report::{Estimate, PruneProblem, PruneReport};

use crate::entropy::random;
use crate::error::{Error, Result};
use crate::format::paths;
use crate::id::ObjectName;
use crate::progress::Progress;
use crate::repository::Repository;
use mark::Marker;
use refuse::{refuse_empty, spare_unread};
use remove::{Fates, Step};
use repack::{Job, Written};

/// How often other prunes may come between before this one gives up.
const REPLANS: usize = 8;

/// How much garbage may stay in packs that are partly needed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unused {
    /// So many bytes.
    Bytes(u64),
    /// This part of what is needed.
    Share(f64),
    /// Any: nothing is written anew.
    Unlimited,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// Only plan.
    pub dry_run: bool,
    /// How much garbage may stay.
    pub max_unused: Unused,
    /// Most bytes to write anew.
    pub max_repack_bytes: Option<u64>,
    /// Join small packs.
    pub repack_small: bool,
    /// How long condemned packs stay, so that running backups need not be run again.
    pub grace: Duration,
    /// Write nothing anew after so long.
    pub time_limit: Option<Duration>,
    /// Go on though there is no snapshot: everything is garbage then.
    pub allow_empty: bool,
    /// Forget the snapshots whose manifests a repair could not read.
    pub forget_unread: bool,
    /// Snapshots to plan without, as if they were forgotten; for dry runs.
    pub ignored: BTreeSet<ObjectName>,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            max_unused: Unused::Share(0.01),
            max_repack_bytes: None,
            repack_small: false,
            grace: Duration::from_secs(24 * 3600),
            time_limit: None,
            allow_empty: false,
            forget_unread: false,
            ignored: BTreeSet::new(),
        }
    }
}

/// Removes what no snapshot needs.
pub fn run(
    repository: &Repository,
    options: &PruneOptions,
    progress: &Progress,
) -> Result<PruneReport> {
    let mut renewed = 0;
    if !options.dry_run {
        repository.expect_owner()?;
        // A disk of this machine needs no trial, and may be full: prune is there to make room.
        if !repository.store().is_create_only() {
            repository.probe_create_only()?;
        }
        renewed = renew_snapshots(repository)?;
    }
    spare_unread(repository, options)?;
    let started = repository.environment().clock.now();
    for _ in 0..REPLANS {
        match attempt(repository, options, progress, started) {
            Ok(Some(mut report)) => {
                report.renewed_snapshots = renewed;
                if !options.dry_run && !report.is_cut_short {
                    report.destroyed_epochs = repository.destroy_old_keys()?;
                }
                return Ok(report);
            }
            Ok(None) => {}
            // What it looked for may be gone because of another prune.
            Err(Error::Missing { .. } | Error::Conflict(_)) if repository.has_moved() => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Conflict("other prunes are at work all the time; try again later".into()))
}

/// Writes manifests anew that are encrypted with old keys. The old ones are garbage then.
fn renew_snapshots(repository: &Repository) -> Result<u64> {
    let mut attempts = 0;
    loop {
        repository.sync()?;
        let mut copies = Vec::new();
        for name in repository.snapshots_of_old_epochs()? {
            copies.push((name, repository.load_snapshot(&name)?));
        }
        attempts += 1;
        match repository.replace_snapshots(copies) {
            // One of them was forgotten meanwhile.
            Err(Error::Conflict(_)) if attempts < REPLANS => {}
            other => return Ok(other?.len() as u64),
        }
    }
}

/// One attempt; `None` where another prune came between.
fn attempt(
    repository: &Repository,
    options: &PruneOptions,
    progress: &Progress,
    started: Timestamp,
) -> Result<Option<PruneReport>> {
    // The listing comes first: what a writer adds after it is no orphan.
    let stored = phase("list", || Stored::look(repository))?;
    repository.sync()?;
    refuse_empty(repository, options)?;
    let fates = Fates::of(repository);
    let seed = u64::from_le_bytes(random::<8>(&*repository.environment().entropy));
    let mut marker = Marker::new(repository, progress, seed)?;
    marker.ignore(&options.ignored);
    let now = || repository.environment().clock.now();
    let begun = now();
    phase("mark", || marker.mark_new())?;
    let mark_seconds = now().duration_since(begun).as_secs_f64();
    let elapsed = |limit: Duration| now().duration_since(started).unsigned_abs() >= limit;
    let is_time_up = || options.time_limit.is_some_and(elapsed);
    let chains = collapse::plan(repository, &marker, options)?;
    let mut options = options.clone();
    let mut whole = Written::default();
    if !options.dry_run && chains.chunks() > 0 {
        let job = Job { repository, marker: &marker, progress, is_time_up: &is_time_up };
        let Some(written) =
            undisturbed(&job, &fates, phase("collapse", || collapse::run(&job, &chains)))?
        else {
            return Ok(None);
        };
        whole = written;
        options.max_repack_bytes =
            options.max_repack_bytes.map(|most| most.saturating_sub(whole.bytes));
        marker.reconsider()?;
    }
    let mut plan = decide(repository, &mut marker, &stored, &options)?;
    let known = (mark_seconds, Estimate::new(repository, &stored, &plan, &chains, &whole));
    if options.dry_run {
        let report = PruneReport::new(repository, &stored, &plan, &marker, known);
        return report.rehearse(repository, &stored, &plan, &chains, options.grace).map(Some);
    }
    let job = Job { repository, marker: &marker, progress, is_time_up: &is_time_up };
    let written = phase("repack", || repack::repack(&job, &plan.repack));
    let Some(repacked) = undisturbed(&job, &fates, written)? else {
        return Ok(None);
    };
    plan.settle(&repacked.packs);
    let mut report = PruneReport::new(repository, &stored, &plan, &marker, known);
    report.collapse(&chains, whole.done.len());
    report.written_bytes = repacked.written.bytes + whole.bytes;
    report.is_cut_short = repacked.written.is_cut_short || whole.is_cut_short;
    report.problems = whole.problems;
    report.problems.extend(repacked.written.problems);
    let mut going: BTreeSet<_> = plan.remove.iter().map(|pack| pack.name).collect();
    going.extend(repacked.packs.iter().map(|pack| pack.name));
    if !report.problems.is_empty() {
        // A copy that seems to be of no use may be the only good one.
        going.clear();
    }
    let condemn = || remove::condemn(repository, &mut marker, &fates, &going, &plan.orphans);
    let step = phase("condemn", condemn)?;
    if step == Step::Replan || !bury(repository, &mut marker, &stored, options.grace, &mut report)?
    {
        return Ok(None);
    }
    remove::forget_gone(repository, stored.gone)?;
    repository.store().tidy()?;
    Ok(Some(report))
}

/// What stays, what is written anew and what goes.
fn decide(
    repository: &Repository,
    marker: &mut Marker<'_>,
    stored: &Stored,
    options: &PruneOptions,
) -> Result<Plan> {
    let names: HashSet<ObjectName> = stored.listed.keys().copied().collect();
    let mut plan = plan::make(repository, marker, &names, options)?;
    // Packs that stay must be readable as a whole; what that needs may change what stays.
    loop {
        let staying: HashSet<ObjectName> = plan.keep.iter().map(|pack| pack.name).collect();
        if !marker.close_over(&|name| staying.contains(name))? {
            break;
        }
        plan = plan::make(repository, marker, &names, options)?;
    }
    let known = remove::known(repository)?;
    let all = names.iter().chain(stored.parity.keys());
    plan.orphans = all.filter(|name| !known.contains(name)).copied().collect();
    Ok(plan)
}

/// What the store holds.
struct Stored {
    listed: BTreeMap<ObjectName, (String, u64)>,
    parity: HashMap<ObjectName, String>,
    /// What was dead before the listing and is not in it.
    gone: HashSet<ObjectName>,
}

impl Stored {
    fn look(repository: &Repository) -> Result<Self> {
        let dead = repository.index().dead();
        let listed = list(repository)?;
        let parity = list_parity(repository)?;
        let is_gone = |name: &ObjectName| !listed.contains_key(name) && !parity.contains_key(name);
        let gone = dead.into_iter().filter(is_gone).collect();
        Ok(Self { listed, parity, gone })
    }
}

/// Declares dead what was condemned long enough ago, and deletes it. `false` where another prune came
/// between.
fn bury(
    repository: &Repository,
    marker: &mut Marker<'_>,
    stored: &Stored,
    grace: Duration,
    report: &mut PruneReport,
) -> Result<bool> {
    let fates = Fates::of(repository);
    let due = due(repository, grace)?;
    let (step, replaced) = phase("bury", || remove::bury(repository, marker, &fates, &due))?;
    if step == Step::Replan {
        return Ok(false);
    }
    let (deleted, bytes, problems) =
        phase("delete", || remove::delete(repository, &stored.listed, &replaced))?;
    (report.deleted, report.deleted_bytes) = (deleted, bytes);
    report.problems.extend(problems);
    report.problems.extend(remove::delete_parity(repository, &stored.parity)?);
    report.condemned = repository.index().condemned().len() as u64;
    Ok(true)
}

/// What was condemned longer ago than the grace.
fn due(repository: &Repository, grace: Duration) -> Result<BTreeSet<ObjectName>> {
    let now = repository.environment().clock.now();
    let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    let limit = now.checked_sub(grace).unwrap_or(Timestamp::MIN);
    repository.date_condemned()?;
    Ok(repository.index().condemned_before(limit, now)?.into_iter().collect())
}

/// What came of writing packs anew; `None` where another prune was at work meanwhile: what it removed
/// could not be read then, or what was planned is of no use.
fn undisturbed<T: AsRef<Written>>(
    job: &Job<'_>,
    fates: &Fates,
    outcome: Result<T>,
) -> Result<Option<T>> {
    if outcome.as_ref().map_or(true, |written| !written.as_ref().problems.is_empty()) {
        job.repository.sync()?;
    }
    if fates.still_hold(job.repository) { outcome.map(Some) } else { Ok(None) }
}

/// Tells `tracing` how long a phase took.
fn phase<T>(name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let _span = tracing::info_span!("prune", phase = name).entered();
    let started = Instant::now();
    let result = work();
    let (millis, is_ok) = (started.elapsed().as_millis() as u64, result.is_ok());
    tracing::info!(millis, is_ok, "ended");
    result
}

/// All packs, idx objects and snapshots in the store: path and size by name.
fn list(repository: &Repository) -> Result<BTreeMap<ObjectName, (String, u64)>> {
    let mut listed = BTreeMap::new();
    for folder in [paths::DATA, paths::INDEX, paths::SNAPSHOTS] {
        for object in repository.store().list(folder)? {
            if let Some(name) = paths::object_name(&object.path) {
                listed.insert(name, (object.path, object.size));
            }
        }
    }
    Ok(listed)
}

/// The parity of packs in the store: its path by the pack's name. It goes with the pack.
fn list_parity(repository: &Repository) -> Result<HashMap<ObjectName, String>> {
    let listed = repository.store().list(paths::PARITY)?;
    let named = |path: String| Some((paths::object_name(&path)?, path));
    Ok(listed.into_iter().filter_map(|object| named(object.path)).collect())
}
