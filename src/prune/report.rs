//! What a prune did, and what one would do. Counts what was decided elsewhere.

use std::collections::BTreeSet;
use std::time::Duration;

use super::collapse::Collapse;
use super::mark::Marker;
use super::plan::{PackUse, Plan};
use super::repack::Written;
use super::{Stored, due};
use crate::error::Result;
use crate::id::ObjectName;
use crate::index::Fate;
use crate::repository::Repository;

/// Objects that a store tells in one reply to a listing.
const LISTED_AT_ONCE: u64 = 1000;
/// Bytes that are read of a pack at once, about.
const READ_AT_ONCE: u64 = 4 << 20;
/// Listings, entries of the log and idx objects that every prune costs, about.
const LEAST_REQUESTS: u64 = 12;

/// About how much work a prune is, the marking aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Estimate {
    /// Packs of which the needed part is written anew.
    pub repacked_packs: u64,
    /// Bytes read of packs.
    pub read_bytes: u64,
    /// Bytes of new packs.
    pub written_bytes: u64,
    /// Bytes by which the repository is smaller once all that goes is deleted.
    pub freed_bytes: u64,
    /// Requests to the store.
    pub requests: u64,
}

impl Estimate {
    /// Counts. `whole` is what was stored whole already.
    pub(super) fn new(
        repository: &Repository,
        stored: &Stored,
        plan: &Plan,
        chains: &Collapse,
        whole: &Written,
    ) -> Self {
        let index = repository.index();
        let used = sum(&plan.repack, |pack| pack.used);
        let unused = sum(&plan.repack, |pack| pack.unused);
        let (mut waiting, mut waiting_bytes) = (0, 0);
        for (name, (_, size)) in &stored.listed {
            if index.fate(name).is_some() || plan.orphans.contains(name) {
                (waiting, waiting_bytes) = (waiting + 1, waiting_bytes + size);
            }
        }
        // What was stored whole is there, and the plan knows what is garbage because of that.
        let gained = if whole.done.is_empty() { chains.gain } else { 0 };
        let freed = sum(&plan.remove, |pack| pack.size) + unused + waiting_bytes + gained;
        let read_bytes = used + chains.written + chains.gain;
        let written_bytes = used + chains.written;
        let new_packs = written_bytes.div_ceil(repository.config().data_pack_bytes.max(1));
        let objects_of_pack = 1 + u64::from(repository.config().parity > 0);
        let going = (plan.remove.len() + plan.repack.len()) as u64;
        let listed = (stored.listed.len() + stored.parity.len()) as u64;
        let requests = LEAST_REQUESTS
            + listed.div_ceil(LISTED_AT_ONCE)
            + plan.repack.len() as u64
            + read_bytes.div_ceil(READ_AT_ONCE)
            + (new_packs + going) * objects_of_pack
            + waiting;
        Self {
            repacked_packs: plan.repack.len() as u64,
            read_bytes,
            written_bytes,
            freed_bytes: freed.saturating_sub(whole.bytes),
            requests,
        }
    }
}

/// Something that could not be done, and does not stop the rest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PruneProblem {
    /// The object.
    pub object: String,
    /// What happened.
    pub detail: String,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct PruneReport {
    /// Chunks that snapshots refer to.
    pub references: u64,
    /// Time that it took to mark them, with all trees and recipes read.
    pub mark_seconds: f64,
    /// What was planned before anything was written.
    pub plan: Estimate,
    /// Packs that stay.
    pub kept_packs: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Of these, garbage.
    pub kept_unused_bytes: u64,
    /// Packs of which the needed part was written anew.
    pub repacked_packs: u64,
    /// Bytes read of them.
    pub repacked_bytes: u64,
    /// Bytes written in their place; 0 for a dry run.
    pub written_bytes: u64,
    /// Chunks that were stored whole, so that what they were made against can go.
    pub collapsed_chunks: u64,
    /// About how many bytes that writes.
    pub collapsed_bytes: u64,
    /// About how many bytes fewer are left by it.
    pub collapsed_gain: u64,
    /// Packs of which nothing is needed.
    pub unused_packs: u64,
    /// Their bytes.
    pub unused_bytes: u64,
    /// Objects that nothing refers to.
    pub orphans: u64,
    /// Objects that wait for the end of the grace.
    pub condemned: u64,
    /// Objects that were deleted; of a dry run, that would be at once.
    pub deleted: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Snapshots whose manifests were written anew because keys were rotated.
    pub renewed_snapshots: u64,
    /// Epochs whose keys were destroyed: nothing is encrypted with them any more.
    pub destroyed_epochs: Vec<u32>,
    /// The time limit came before all was done; the next prune goes on.
    pub is_cut_short: bool,
    /// What could not be done.
    pub problems: Vec<PruneProblem>,
}

impl PruneReport {
    /// What a plan says. `known` are the seconds that marking took, and the estimate.
    pub(super) fn new(
        repository: &Repository,
        stored: &Stored,
        plan: &Plan,
        marker: &Marker<'_>,
        known: (f64, Estimate),
    ) -> Self {
        let index = repository.index();
        let is_condemned = |name: &&ObjectName| index.fate(name) == Some(Fate::Condemned);
        Self {
            references: marker.references,
            mark_seconds: known.0,
            plan: known.1,
            kept_packs: plan.keep.len() as u64,
            kept_bytes: sum(&plan.keep, |pack| pack.size),
            kept_unused_bytes: sum(&plan.keep, |pack| pack.unused),
            repacked_packs: plan.repack.len() as u64,
            repacked_bytes: sum(&plan.repack, |pack| pack.used),
            unused_packs: plan.remove.len() as u64,
            unused_bytes: sum(&plan.remove, |pack| pack.size)
                + sum(&plan.repack, |pack| pack.unused),
            orphans: plan.orphans.len() as u64,
            condemned: stored.listed.keys().filter(is_condemned).count() as u64,
            ..Self::default()
        }
    }

    /// Notes how many of the chunks were stored whole that were to be.
    pub(super) fn collapse(&mut self, chains: &Collapse, done: usize) {
        let all = chains.chunks().max(1) as u128;
        let part = |bytes: u64| (u128::from(bytes) * done as u128 / all) as u64;
        self.collapsed_chunks = done as u64;
        (self.collapsed_bytes, self.collapsed_gain) = (part(chains.written), part(chains.gain));
    }

    /// Says what this prune would delete at once, and what would wait.
    pub(super) fn rehearse(
        mut self,
        repository: &Repository,
        stored: &Stored,
        plan: &Plan,
        chains: &Collapse,
        grace: Duration,
    ) -> Result<Self> {
        self.collapse(chains, chains.chunks());
        let packs = plan.remove.iter().chain(&plan.repack).map(|pack| pack.name);
        let going: BTreeSet<ObjectName> = packs.chain(plan.orphans.iter().copied()).collect();
        let due = due(repository, grace)?;
        for (name, (_, size)) in &stored.listed {
            let is_new = going.contains(name);
            let fate = repository.index().fate(name);
            if fate == Some(Fate::Dead) || due.contains(name) || is_new && grace.is_zero() {
                (self.deleted, self.deleted_bytes) = (self.deleted + 1, self.deleted_bytes + size);
                self.condemned -= u64::from(fate == Some(Fate::Condemned));
            } else if is_new {
                self.condemned += 1;
            }
        }
        Ok(self)
    }
}

fn sum(packs: &[PackUse], of: fn(&PackUse) -> u64) -> u64 {
    packs.iter().map(of).sum()
}
