//! The last look before something goes: whatever was planned, no chunk that is needed may go with it.

use std::collections::{BTreeSet, HashMap};

use super::mark::{Marker, Wholes};
use super::plan::units;
use crate::error::Result;
use crate::format::directory::Codec;
use crate::id::{ChunkKey, ObjectName};
use crate::index::{Found, PackDirectory};
use crate::repository::Repository;

/// Needed chunks of packs that are to go that are looked up at once, as a bound on memory.
const BATCH_CHUNKS: usize = 1 << 20;
/// Chunks that are deltas of which is kept in mind whether they can be read.
const MOST_PROVEN: usize = 1 << 18;

/// Of these objects those that can go: every needed chunk also stands in a live pack that stays, no
/// delta in a pack that stays and `counts` is made against what goes, and no log entry made it live
/// meanwhile.
pub fn garbage(
    repository: &Repository,
    marker: &mut Marker<'_>,
    names: &BTreeSet<ObjectName>,
    counts: &dyn Fn(&ObjectName) -> bool,
) -> Result<BTreeSet<ObjectName>> {
    let index = repository.index();
    let mut going = names.clone();
    for live in index.snapshot_names()?.into_iter().chain(index.index_names()?) {
        going.remove(&live);
    }
    marker.look_around()?;
    loop {
        marker.close_over(&|name| counts(name) && !going.contains(name))?;
        let before = going.len();
        keep_needed(repository, marker, &mut going)?;
        // What stays after all needs its bases too.
        if going.len() == before {
            return Ok(going);
        }
    }
}

/// Takes the packs out of `going` without which a needed chunk could not be read.
fn keep_needed(
    repository: &Repository,
    marker: &Marker<'_>,
    going: &mut BTreeSet<ObjectName>,
) -> Result<()> {
    let index = repository.index();
    let mut names: Vec<ObjectName> = going.iter().copied().collect();
    let mut proven = HashMap::new();
    while !names.is_empty() {
        let staying = staying(repository, marker, going)?;
        let mut needed: Vec<(ChunkKey, ObjectName)> = Vec::new();
        while needed.len() < BATCH_CHUNKS
            && let Some(name) = names.pop()
        {
            if let Some(pack) = index.pack(&name)? {
                needed.extend(needed_of(marker, &pack).map(|key| (key, name)));
            }
        }
        needed.sort_unstable();
        let keys: Vec<ChunkKey> = needed.iter().map(|(key, _)| *key).collect();
        let mut doubtful = Vec::new();
        index.places_of(&keys, &mut |at, places| {
            let is_whole = |(number, ordinal): &(i64, usize)| {
                staying.get(number).is_some_and(|wholes| wholes.contains(*ordinal))
            };
            if !places.iter().any(is_whole) {
                doubtful.push(at);
            }
        })?;
        drop((keys, staying));
        // In the order of packs: what a pack says is decoded once.
        let mut doubtful: Vec<_> = doubtful.into_iter().map(|at| needed[at]).collect();
        doubtful.sort_unstable_by_key(|(_, name)| *name);
        for (key, name) in doubtful {
            if proven.len() > MOST_PROVEN {
                proven.clear();
            }
            let stays = |other: &ObjectName| index.fate(other).is_none() && !going.contains(other);
            if going.contains(&name) && !can_be_read(repository, &key, &stays, &mut proven)? {
                going.remove(&name);
            }
        }
    }
    Ok(())
}

/// Live packs that do not go, by number, and which of their entries are whole.
fn staying<'m>(
    repository: &Repository,
    marker: &'m Marker<'_>,
    going: &BTreeSet<ObjectName>,
) -> Result<HashMap<i64, Wholes<'m>>> {
    let index = repository.index();
    let mut packs = index.pack_numbers()?;
    packs.retain(|(name, _)| index.fate(name).is_none() && !going.contains(name));
    let wholes = |(name, number): (ObjectName, i64)| (number, marker.wholes(&name, number));
    Ok(packs.into_iter().map(wholes).collect())
}

/// Chunks in a pack that are needed, here or elsewhere.
fn needed_of(marker: &Marker<'_>, pack: &PackDirectory) -> impl Iterator<Item = ChunkKey> {
    let entries = units(pack).flat_map(|unit| match unit.members.is_empty() {
        true => std::slice::from_ref(unit.entry),
        false => &pack.entries[unit.members],
    });
    entries.map(|entry| entry.id).filter(|key| marker.needs(key))
}

/// Whether a chunk can be read from packs that stay alone: there must be a copy that is whole, or a
/// delta whose bases can be. Two copies that are deltas against one another are none.
fn can_be_read(
    repository: &Repository,
    key: &ChunkKey,
    stays: &dyn Fn(&ObjectName) -> bool,
    known: &mut HashMap<ChunkKey, bool>,
) -> Result<bool> {
    if let Some(known) = known.get(key) {
        return Ok(*known);
    }
    // While it is being looked at it cannot vouch for itself.
    known.insert(*key, false);
    let mut places = repository.index().packs_of(key)?;
    places.retain(|place| stays(&place.pack.name));
    let is_delta = |place: &Found| place.entry().codec == Codec::Delta;
    places.sort_by_key(is_delta);
    for place in &places {
        let mut is_whole = true;
        for base in &place.entry().bases {
            is_whole &= can_be_read(repository, base, stays, known)?;
        }
        if is_whole {
            known.insert(*key, true);
            return Ok(true);
        }
    }
    Ok(false)
}
