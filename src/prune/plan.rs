//! Deciding which packs stay, which are written anew and which go.

use std::collections::{BTreeSet, HashSet};

use super::mark::Marker;
use super::{PruneOptions, Unused};
use crate::crypto::envelope::{Header, ObjectKind};
use crate::crypto::keys::BlobKind;
use crate::error::{Error, Result};
use crate::format::directory::{BlobEntry, Codec};
use crate::format::paths;
use crate::id::{ChunkKey, ObjectName};
use crate::index::PackDirectory;
use crate::repository::Repository;
use crate::repository::writer::PACK_BLOBS;
use crate::store::StoreError;

/// A pack of less than this part of the target size is small.
const SMALL_PART: u64 = 4;

/// How much of a pack is needed.
#[derive(Debug, Clone)]
pub struct PackUse {
    /// Which pack.
    pub name: ObjectName,
    /// Its bytes.
    pub size: u64,
    /// Bytes of blobs that are needed.
    pub used: u64,
    /// Bytes of blobs that are not.
    pub unused: u64,
    /// Bytes elsewhere that nothing needs but deltas of it that are not needed themselves.
    pub held: u64,
    /// What its blobs are.
    kind: BlobKind,
    /// How many blobs are needed.
    blobs: u64,
    is_small: bool,
    /// Encrypted with keys that are to be destroyed.
    is_old: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Packs that stay as they are.
    pub keep: Vec<PackUse>,
    /// Packs of which the needed part is written anew.
    pub repack: Vec<PackUse>,
    /// Packs of which nothing is needed.
    pub remove: Vec<PackUse>,
    /// Objects that nothing refers to: left by writers that died, and by `forget`.
    pub orphans: BTreeSet<ObjectName>,
}

impl Plan {
    /// Of the packs that were to be written anew these were; the others stay for now.
    pub(super) fn settle(&mut self, done: &[PackUse]) {
        let done: HashSet<ObjectName> = done.iter().map(|pack| pack.name).collect();
        self.keep.extend(self.repack.extract_if(.., |pack| !done.contains(&pack.name)));
    }
}

/// A blob with the members of its group, and which of them are needed.
pub struct Unit<'p> {
    /// Its place among the entries.
    pub ordinal: usize,
    /// The blob.
    pub entry: &'p BlobEntry,
    /// Places of the members.
    pub members: std::ops::Range<usize>,
}

/// The blobs of a pack.
pub fn units(pack: &PackDirectory) -> impl Iterator<Item = Unit<'_>> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let ordinal = next;
        let entry = pack.entries.get(ordinal)?;
        let is_member = |entry: &&BlobEntry| entry.codec == Codec::Member;
        next = ordinal + 1 + pack.entries[ordinal + 1..].iter().take_while(is_member).count();
        Some(Unit { ordinal, entry, members: ordinal + 1..next })
    })
}

/// Decides. Fails where something that is needed is not there.
pub fn make(
    repository: &Repository,
    marker: &Marker<'_>,
    listed: &HashSet<ObjectName>,
    options: &PruneOptions,
) -> Result<Plan> {
    let index = repository.index();
    let epoch = repository.keys().current().number();
    let (mut plan, mut partial) = (Plan::default(), Vec::new());
    for (name, size) in index.packs()? {
        // Condemned packs were decided about before.
        if index.fate(&name).is_some() {
            continue;
        }
        let Some(pack) = index.pack(&name)? else { continue };
        let (used, unused) = usage(&pack, &|entry| marker.uses(entry, &pack));
        let header = Header::parse(&pack.header, ObjectKind::Pack);
        let is_old = header.is_ok_and(|header| header.epoch() < epoch);
        let held = if used == 0 { 0 } else { held(repository, marker, &pack)? };
        let is_small = size < target(repository, pack.kind) / SMALL_PART;
        let blobs = used_blobs(&pack, &|entry| marker.uses(entry, &pack));
        let kind = pack.kind;
        let pack_use = PackUse { name, size, used, unused, held, kind, blobs, is_small, is_old };
        match (used, unused) {
            (0, _) => plan.remove.push(pack_use),
            // It may have come after the listing.
            _ if !listed.contains(&name) && !is_there(repository, &name, size)? => {
                return Err(Error::missing_object(&paths::pack(&name)));
            }
            (_, 0) if !(options.repack_small && is_small || is_old) => plan.keep.push(pack_use),
            _ => partial.push(pack_use),
        }
    }
    let targets = [BlobKind::Data, BlobKind::Tree].map(|kind| target(repository, kind));
    choose(&mut plan, partial, options, targets);
    Ok(plan)
}

/// Bytes at which packs are closed.
fn target(repository: &Repository, kind: BlobKind) -> u64 {
    let config = repository.config();
    match kind {
        BlobKind::Data => config.data_pack_bytes,
        BlobKind::Tree => config.tree_pack_bytes,
    }
}

fn is_there(repository: &Repository, name: &ObjectName, size: u64) -> Result<bool> {
    match repository.store().head(&paths::pack(name)) {
        Ok(found) => Ok(found == size),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Bytes of blobs of which `is_used` holds, and of the others. Of a group in part, its share.
pub fn usage(pack: &PackDirectory, is_used: &dyn Fn(&BlobEntry) -> bool) -> (u64, u64) {
    let (mut used, mut unused) = (0, 0);
    for unit in units(pack) {
        let stored = u64::from(unit.entry.stored_len);
        let members = &pack.entries[unit.members];
        let share = if members.is_empty() {
            if is_used(unit.entry) { stored } else { 0 }
        } else {
            let bytes = |entry: &BlobEntry| u64::from(entry.plain_len);
            let all: u64 = members.iter().map(bytes).sum();
            let needed: u64 = members.iter().filter(|entry| is_used(entry)).map(bytes).sum();
            // The least byte counts: a pack with any use must not seem to have none.
            (stored * needed).div_ceil(all.max(1))
        };
        used += share;
        unused += stored - share;
    }
    (used, unused)
}

/// What would have to stay if this pack did, because its garbage is made against it. Of a group, what
/// a member would take alone.
fn held(repository: &Repository, marker: &Marker<'_>, pack: &PackDirectory) -> Result<u64> {
    if marker.is_plain(&pack.name) {
        return Ok(0);
    }
    let garbage = pack.entries.iter().filter(|entry| !marker.uses(entry, pack));
    let mut waiting: Vec<ChunkKey> = garbage.flat_map(|entry| entry.bases.clone()).collect();
    let (mut seen, mut bytes) = (HashSet::new(), 0);
    while let Some(key) = waiting.pop() {
        if marker.needs(&key) || !seen.insert(key) {
            continue;
        }
        if let Some(found) = repository.index().find(&key)? {
            let entry = found.entry();
            let is_member = entry.codec == Codec::Member;
            bytes += u64::from(if is_member { entry.plain_len } else { entry.stored_len });
            waiting.extend(&entry.bases);
        }
    }
    Ok(bytes)
}

/// Bytes of garbage that may stay beside so many that are needed.
pub fn allowed(unused: Unused, used: u64) -> u64 {
    match unused {
        Unused::Bytes(bytes) => bytes,
        Unused::Share(share) => (used as f64 * share) as u64,
        Unused::Unlimited => u64::MAX,
    }
}

/// Chooses what to write anew: packs of old keys, then packs with the greatest part of garbage
/// first, until what is left of it is little enough, then small packs where fewer come of them.
/// `targets` are the sizes of packs, by kind.
fn choose(plan: &mut Plan, mut partial: Vec<PackUse>, options: &PruneOptions, targets: [u64; 2]) {
    let waste = |pack: &PackUse| pack.unused + pack.held;
    let share = |pack: &PackUse| waste(pack) as f64 / (pack.used + waste(pack)).max(1) as f64;
    partial.sort_by(|a, b| {
        let by_share = share(b).total_cmp(&share(a));
        b.is_old.cmp(&a.is_old).then(by_share).then(a.name.cmp(&b.name))
    });
    let used: u64 = plan.keep.iter().chain(&partial).map(|pack| pack.used).sum();
    let allowed = allowed(options.max_unused, used);
    let mut left: u64 = partial.iter().map(waste).sum();
    let mut room = options.max_repack_bytes.unwrap_or(u64::MAX);
    let mut small = Vec::new();
    for pack in partial {
        let is_worth_it = pack.is_old || left > allowed && waste(&pack) > 0;
        if is_worth_it && room >= pack.used {
            left -= waste(&pack);
            room -= pack.used;
            plan.repack.push(pack);
        } else if options.repack_small && pack.is_small {
            small.push(pack);
        } else {
            plan.keep.push(pack);
        }
    }
    let (data, trees) = small.into_iter().partition(|pack| pack.kind == BlobKind::Data);
    for (kind, small) in [(BlobKind::Data, data), (BlobKind::Tree, trees)] {
        join(plan, kind, small, targets[kind as usize], room);
    }
}

/// Has small packs of one kind written anew together, with what is written anew of that kind anyway, if
/// fewer packs come out than go in: otherwise the next prune would begin where this one ended.
fn join(plan: &mut Plan, kind: BlobKind, mut small: Vec<PackUse>, target: u64, mut room: u64) {
    small.sort_by_key(|pack| (pack.used, pack.name));
    let fits = |pack: &PackUse| {
        let rest = room.checked_sub(pack.used);
        room = rest.unwrap_or(0);
        rest.is_some()
    };
    let count = small.iter().map(fits).take_while(|fits| *fits).count();
    plan.keep.extend(small.split_off(count));
    let anyway = || plan.repack.iter().filter(|pack| pack.kind == kind);
    let (alone, together) = (come_out(anyway(), target), come_out(anyway().chain(&small), target));
    if together < alone + count as u64 {
        plan.repack.extend(small);
    } else {
        plan.keep.extend(small);
    }
}

/// Into how many packs what is needed of these goes, at most.
fn come_out<'p>(packs: impl Iterator<Item = &'p PackUse> + Clone, target: u64) -> u64 {
    let bytes: u64 = packs.clone().map(|pack| pack.used).sum();
    let blobs: u64 = packs.map(|pack| pack.blobs).sum();
    bytes.div_ceil(target.max(1)).max(blobs.div_ceil(PACK_BLOBS as u64))
}

/// How many blobs that are needed a pack holds, groups and their members alike.
fn used_blobs(pack: &PackDirectory, is_used: &dyn Fn(&BlobEntry) -> bool) -> u64 {
    let blobs = units(pack).map(|unit| {
        let members = &pack.entries[unit.members];
        match members.iter().filter(|entry| is_used(entry)).count() {
            0 if members.is_empty() => usize::from(is_used(unit.entry)),
            0 => 0,
            count => count + 1,
        }
    });
    blobs.sum::<usize>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(number: u8, kind: BlobKind, used: u64, unused: u64) -> PackUse {
        let size = used + unused;
        let name = ObjectName::of(&[number]);
        let is_small = size < 250;
        PackUse { name, size, used, unused, held: 0, kind, blobs: 1, is_small, is_old: false }
    }

    fn chosen(partial: Vec<PackUse>, options: &PruneOptions) -> usize {
        let mut plan = Plan::default();
        let count = partial.len();
        choose(&mut plan, partial, options, [1000, 1000]);
        assert_eq!(plan.repack.len() + plan.keep.len(), count);
        plan.repack.len()
    }

    #[test]
    fn small_packs_are_joined_where_fewer_come_out() {
        use BlobKind::{Data, Tree};
        let options = PruneOptions { repack_small: true, ..PruneOptions::default() };
        // What a prune leaves at the end of each kind is no reason to begin again.
        assert_eq!(chosen(vec![pack(1, Data, 200, 0), pack(2, Tree, 200, 0)], &options), 0);
        let small = || vec![pack(1, Data, 200, 0), pack(2, Data, 200, 0), pack(3, Tree, 9, 0)];
        assert_eq!(chosen(small(), &options), 2);
        assert_eq!(chosen(small(), &PruneOptions::default()), 0);
        // One alone goes with what is written anew anyway, if there is room beside it.
        let beside = |used| vec![pack(1, Data, used, 900), pack(2, Data, 200, 0)];
        assert_eq!(chosen(beside(700), &options), 2);
        assert_eq!(chosen(beside(900), &options), 1);
        let bounded = |most| PruneOptions { max_repack_bytes: Some(most), ..options.clone() };
        assert_eq!(chosen(small(), &bounded(399)), 0);
        assert_eq!(chosen(small(), &bounded(400)), 2);
        let mut many = small();
        many.iter_mut().for_each(|pack| pack.blobs = PACK_BLOBS as u64);
        assert_eq!(chosen(many, &options), 0);
    }
}
