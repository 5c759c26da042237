//! Ending chains of deltas whose older links no snapshot refers to any more.
//!
//! After old snapshots were forgotten, a chunk that is still wanted may be a delta against one that
//! is kept for that alone, and so on down to a chunk stored whole. Stored whole itself, it takes the
//! place of the oldest one, and all deltas between are garbage. That pays where a whole pack of such
//! old chunks becomes free, so packs are what is chosen, the best gain for the bytes written first.
//!
//! Only another copy is written here, and committed. That the old ones are garbage then is found by
//! the plan that follows.

use std::collections::{HashMap, HashSet};

use super::mark::Marker;
use super::plan::{allowed, usage};
use super::repack::{Job, Written, write_anew};
use super::{PruneOptions, Unused};
use crate::crypto::keys::BlobKind;
use crate::error::Result;
use crate::format::directory::{BlobEntry, Codec};
use crate::id::{ChunkKey, ObjectName};
use crate::index::PackDirectory;
use crate::repository::Repository;

/// Packs of whose bytes at least this part (one in so many) are kept as bases alone are considered.
const BASES_PART: u64 = 4;
/// Most chunks considered in one run, as a bound on memory; the next prune goes on.
const MOST_CHUNKS: usize = 1 << 18;
/// What a chunk takes beside its payload: its places in a directory, in an idx object and, of a delta,
/// keys of bases.
const ENTRY_BYTES: u64 = 80;
/// What is gained must be at least this part (one in so many) of what is written, unless no garbage at
/// all may stay.
const GAIN_PART: u64 = 25;

/// A chunk to be stored whole.
#[derive(Debug, Clone)]
struct Candidate {
    pack: ObjectName,
    ordinal: usize,
    /// Packs of what its chain begins with, as numbers in the list of them.
    roots: Vec<u32>,
}

/// A pack of chunks that are kept as bases alone, for the most part.
#[derive(Debug)]
struct Root {
    name: ObjectName,
    /// Stored by plain bytes of such chunks.
    ratio: f64,
    /// Bytes to be written when it is to go: what else of it is needed, and what hangs on it.
    written: u64,
    /// Bytes that go then.
    freed: u64,
}

impl Root {
    fn gain(&self) -> i64 {
        self.freed as i64 - self.written as i64
    }

    fn rate(&self) -> f64 {
        self.gain() as f64 / self.written.max(1) as f64
    }
}

/// What to store whole.
#[derive(Debug, Default)]
pub struct Collapse {
    chunks: Vec<Candidate>,
    /// About so many bytes will be written.
    pub written: u64,
    /// About so many more will be freed.
    pub gain: u64,
}

impl Collapse {
    /// How many chunks.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }
}

/// Decides which chunks to store whole.
pub fn plan(
    repository: &Repository,
    marker: &Marker<'_>,
    options: &PruneOptions,
) -> Result<Collapse> {
    if options.max_unused == Unused::Unlimited {
        return Ok(Collapse::default());
    }
    let (mut survey, used) = Survey::begin(repository, marker)?;
    if survey.roots.is_empty() {
        return Ok(Collapse::default());
    }
    survey.follow()?;
    survey.weigh()?;
    Ok(choose(survey, allowed(options.max_unused, used), options.max_repack_bytes))
}

/// Stores chunks whole and commits them.
pub fn run(job: &Job<'_>, collapse: &Collapse) -> Result<Written> {
    write_anew(job, &collapse.chunks, &|copier, chunk: &Candidate| {
        let pack = job.repository.index().pack(&chunk.pack)?;
        pack.map_or(Ok(()), |pack| copier.whole(&pack, chunk.ordinal))
    })
}

/// The best packs first, until little enough would be gained by the others.
fn choose(survey: Survey<'_>, allowed: u64, room: Option<u64>) -> Collapse {
    let mut order: Vec<usize> = (0..survey.roots.len()).collect();
    order.retain(|at| {
        let root = &survey.roots[*at];
        let least = if allowed == 0 { 1 } else { root.written / GAIN_PART };
        root.gain() >= least as i64
    });
    order.sort_by(|a, b| {
        let (a, b) = (&survey.roots[*a], &survey.roots[*b]);
        b.rate().total_cmp(&a.rate()).then(a.name.cmp(&b.name))
    });
    let mut left: i64 = order.iter().map(|at| survey.roots[*at].gain()).sum();
    let mut room = room.unwrap_or(u64::MAX);
    let mut chosen = HashSet::new();
    let mut collapse = Collapse::default();
    for at in order {
        let root = &survey.roots[at];
        if left <= i64::try_from(allowed).unwrap_or(i64::MAX) {
            break;
        }
        if root.written > room {
            continue;
        }
        room -= root.written;
        left -= root.gain();
        collapse.written += root.written;
        collapse.gain += root.gain() as u64;
        chosen.insert(at as u32);
    }
    collapse.chunks = survey.candidates;
    collapse.chunks.retain(|chunk| chunk.roots.iter().any(|root| chosen.contains(root)));
    // What is read one after the other should have bases in common.
    collapse
        .chunks
        .sort_by(|a, b| (a.roots[0], a.pack, a.ordinal).cmp(&(b.roots[0], b.pack, b.ordinal)));
    collapse
}

/// What hangs on which packs.
struct Survey<'a> {
    repository: &'a Repository,
    marker: &'a Marker<'a>,
    /// Data packs that may hold deltas, oldest first: bases stand before what is made of them.
    packs: Vec<ObjectName>,
    roots: Vec<Root>,
    /// Chunks kept as bases alone, and the packs in which their chains begin.
    bases: HashMap<ChunkKey, Vec<u32>>,
    candidates: Vec<Candidate>,
}

impl<'a> Survey<'a> {
    /// Finds the packs that hold mostly bases. Also says how many bytes are needed in all.
    fn begin(repository: &'a Repository, marker: &'a Marker<'a>) -> Result<(Self, u64)> {
        let index = repository.index();
        let mut survey = Self {
            repository,
            marker,
            packs: Vec::new(),
            roots: Vec::new(),
            bases: HashMap::new(),
            candidates: Vec::new(),
        };
        let mut found = Vec::new();
        let mut used = 0;
        for (_, name) in index.packs_by_index()? {
            if index.fate(&name).is_some() {
                continue;
            }
            let Some(pack) = index.pack(&name)? else { continue };
            used += usage(&pack, &|entry| marker.uses(entry, &pack)).0;
            if pack.kind != BlobKind::Data {
                continue;
            }
            if !marker.is_plain(&name) {
                survey.packs.push(name);
            }
            let is_base = |entry: &BlobEntry| is_root(marker, entry, &pack);
            let bases = usage(&pack, &is_base).0;
            if bases > 0 && bases * BASES_PART >= pack.size {
                found.push((bases as f64 / pack.size as f64, name));
            }
        }
        found.sort_by(|(a, a_name), (b, b_name)| b.total_cmp(a).then(a_name.cmp(b_name)));
        for (_, name) in found {
            if survey.bases.len() < MOST_CHUNKS
                && let Some(pack) = index.pack(&name)?
            {
                survey.add_root(&pack);
            }
        }
        Ok((survey, used))
    }

    fn add_root(&mut self, pack: &PackDirectory) {
        let marker = self.marker;
        let is_base = |entry: &BlobEntry| is_root(marker, entry, pack);
        let number = self.roots.len() as u32;
        let (mut plain, mut entries) = (0, 0);
        for entry in pack.entries.iter().filter(|entry| is_base(entry)) {
            plain += u64::from(entry.plain_len);
            entries += 1;
            self.bases.insert(entry.id, vec![number]);
        }
        let stored = usage(pack, &is_base).0;
        let kept = usage(pack, &|entry| marker.wants(entry, pack)).0;
        self.roots.push(Root {
            name: pack.name,
            ratio: stored as f64 / plain.max(1) as f64,
            written: kept,
            freed: stored + kept + entries * ENTRY_BYTES,
        });
    }

    /// Follows chains up through what is kept as a base alone.
    fn follow(&mut self) -> Result<()> {
        let mut is_changed = true;
        while is_changed {
            is_changed = false;
            for at in 0..self.packs.len() {
                let Some(pack) = self.repository.index().pack(&self.packs[at])? else { continue };
                for entry in deltas(&pack) {
                    if self.bases.len() < 2 * MOST_CHUNKS
                        && !self.bases.contains_key(&entry.id)
                        && self.marker.uses_as_base_only(entry, &pack)
                        && let Some(roots) = self.roots_of(entry)
                    {
                        self.roots[roots[0] as usize].freed +=
                            u64::from(entry.stored_len) + ENTRY_BYTES;
                        self.bases.insert(entry.id, roots);
                        is_changed = true;
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes what is wanted and made against those bases.
    fn weigh(&mut self) -> Result<()> {
        for at in 0..self.packs.len() {
            let Some(pack) = self.repository.index().pack(&self.packs[at])? else { continue };
            for (ordinal, entry) in pack.entries.iter().enumerate() {
                if entry.codec != Codec::Delta || !self.marker.wants(entry, &pack) {
                    continue;
                }
                let Some(roots) = self.roots_of(entry) else { continue };
                let first = &mut self.roots[roots[0] as usize];
                first.written += (f64::from(entry.plain_len) * first.ratio) as u64 + ENTRY_BYTES;
                first.freed += u64::from(entry.stored_len) + ENTRY_BYTES;
                self.candidates.push(Candidate { pack: pack.name, ordinal, roots });
            }
        }
        Ok(())
    }

    fn roots_of(&self, entry: &BlobEntry) -> Option<Vec<u32>> {
        let mut roots: Vec<u32> =
            entry.bases.iter().filter_map(|base| self.bases.get(base)).flatten().copied().collect();
        roots.sort_unstable();
        roots.dedup();
        (!roots.is_empty()).then_some(roots)
    }
}

/// Whether a chunk stands whole and is kept as a base alone.
fn is_root(marker: &Marker<'_>, entry: &BlobEntry, pack: &PackDirectory) -> bool {
    entry.codec != Codec::Delta && marker.uses_as_base_only(entry, pack)
}

fn deltas(pack: &PackDirectory) -> impl Iterator<Item = &BlobEntry> {
    pack.entries.iter().filter(|entry| entry.codec == Codec::Delta)
}
