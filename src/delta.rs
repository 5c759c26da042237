//! Which older chunks a delta is made against, so that chains stay short: pure rules.
//!
//! Every chunk has a generation: one more than its parent's, 0 without one. A chunk of generation g
//! is encoded against its ancestor of generation g with the lowest non-zero digit (base
//! [`RADIX`]) lowered by one. Ancestors are found by following the bases of the parent's chunk, which
//! line up with it; looking for them by offset does not (see `docs/decisions/0001-chunks-and-delta.md`).

use std::collections::HashSet;

use crate::format::directory::{BlobEntry, MAX_BASES};
use crate::id::ChunkKey;

/// Base of the digits of generations: with 4, thirty daily versions give chains of at most 7.
pub const RADIX: u32 = 3;
/// Longest chain that is written.
pub const MAX_CHAIN: u8 = 10;
/// Shorter chunks may cost as much to read as one of this length.
const SHORT_CHUNK: usize = 512 << 10;
/// Most blobs to read for one chunk, itself included.
const MAX_BLOBS: usize = 16;
/// Most plain bytes of bases for one chunk.
const MAX_PREFIX_BYTES: u64 = 4 << 20;

/// What the rules must know of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseInfo {
    /// See `BlobEntry::generation`.
    pub generation: u32,
    /// See `BlobEntry::depth`.
    pub depth: u8,
    /// Bytes in the pack.
    pub stored_len: u32,
    /// Plain bytes.
    pub plain_len: u32,
    /// What it is a delta against.
    pub bases: Vec<ChunkKey>,
}

impl BaseInfo {
    /// From an entry of the index.
    pub fn of(entry: &BlobEntry) -> Self {
        Self {
            generation: entry.generation,
            depth: entry.depth,
            stored_len: entry.stored_len,
            plain_len: entry.plain_len,
            bases: entry.bases.clone(),
        }
    }
}

/// What a new chunk is to be encoded against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// The bases, in order.
    pub bases: Vec<ChunkKey>,
    /// Generation of the new chunk.
    pub generation: u32,
    /// Its depth.
    pub depth: u8,
}

/// The generation that a chunk of `generation` is encoded against.
pub fn target_generation(generation: u32) -> u32 {
    let mut step = 1;
    while generation != 0 && (generation / step).is_multiple_of(RADIX) {
        step *= RADIX;
    }
    generation.saturating_sub(step)
}

/// Chooses the bases of a chunk of `length` bytes that resembles `candidates`, chunks of its parent
/// version. `None` where the chain would grow too long or cost too much to read.
pub fn choose<E>(
    candidates: &[ChunkKey],
    length: usize,
    look_up: &mut impl FnMut(&ChunkKey) -> Result<Option<BaseInfo>, E>,
) -> Result<Option<Lineage>, E> {
    let mut found = Vec::new();
    for key in candidates {
        match look_up(key)? {
            Some(info) => found.push((*key, info)),
            None => return Ok(None),
        }
    }
    let generation = found.iter().map(|(_, info)| info.generation).max().unwrap_or(0) + 1;
    let target = target_generation(generation);
    // Where the right ancestors are too many, those of the longest chunk alone, then the parents
    // themselves, are better than nothing.
    let longest = found.iter().max_by_key(|(_, info)| info.plain_len).cloned();
    let longest: Known = longest.into_iter().collect();
    let attempts = [
        ancestors(found.clone(), target, look_up)?,
        ancestors(longest.clone(), target, look_up)?,
        Some(found),
        Some(longest),
    ];
    for bases in attempts.into_iter().flatten() {
        let depth = bases.iter().map(|(_, info)| info.depth).max().unwrap_or(0) + 1;
        let prefix: u64 = bases.iter().map(|(_, info)| u64::from(info.plain_len)).sum();
        let fits = depth <= MAX_CHAIN && prefix <= MAX_PREFIX_BYTES && !bases.is_empty();
        if fits && is_cheap_to_read(&bases, length, look_up)? {
            let bases = bases.into_iter().map(|(key, _)| key).collect();
            return Ok(Some(Lineage { bases, generation, depth }));
        }
    }
    Ok(None)
}

type Known = Vec<(ChunkKey, BaseInfo)>;

/// Replaces every chunk that is younger than `target` by its bases, until none is.
fn ancestors<E>(
    mut found: Known,
    target: u32,
    look_up: &mut impl FnMut(&ChunkKey) -> Result<Option<BaseInfo>, E>,
) -> Result<Option<Known>, E> {
    while found.iter().any(|(_, info)| info.generation > target) {
        let mut older: Known = Vec::new();
        for (key, info) in found {
            if info.generation <= target {
                push_new(&mut older, key, info);
                continue;
            }
            for base in &info.bases {
                match look_up(base)? {
                    // Generations fall along a chain; a hostile index must not make this endless.
                    Some(base_info) if base_info.generation < info.generation => {
                        push_new(&mut older, *base, base_info);
                    }
                    _ => return Ok(None),
                }
            }
        }
        if older.len() > MAX_BASES {
            return Ok(None);
        }
        found = older;
    }
    Ok((found.len() <= MAX_BASES).then_some(found))
}

/// Neighbours often share a base: it is needed once.
fn push_new(list: &mut Known, key: ChunkKey, info: BaseInfo) {
    if list.iter().all(|(known, _)| *known != key) {
        list.push((key, info));
    }
}

/// Whether decoding needs few blobs, and not more stored bytes than twice the plain ones (the rule
/// of Mercurial's revlog).
fn is_cheap_to_read<E>(
    bases: &Known,
    length: usize,
    look_up: &mut impl FnMut(&ChunkKey) -> Result<Option<BaseInfo>, E>,
) -> Result<bool, E> {
    // Neighbours share ancestors; a restore decodes each once.
    let mut seen: HashSet<ChunkKey> = bases.iter().map(|(key, _)| *key).collect();
    let mut waiting: Vec<ChunkKey> = Vec::new();
    let mut stored = 0;
    for (_, info) in bases {
        stored += info.stored_len as usize;
        waiting.extend(&info.bases);
    }
    while let Some(key) = waiting.pop() {
        if !seen.insert(key) {
            continue;
        }
        if seen.len() >= MAX_BLOBS {
            return Ok(false);
        }
        let Some(info) = look_up(&key)? else { return Ok(false) };
        stored += info.stored_len as usize;
        waiting.extend(&info.bases);
    }
    Ok(stored <= 2 * length.max(SHORT_CHUNK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::convert::Infallible;

    fn key(number: u32) -> ChunkKey {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        ChunkKey(bytes)
    }

    #[test]
    fn targets_clear_the_lowest_digit() {
        for (generation, target) in
            [(0, 0), (1, 0), (3, 0), (4, 3), (5, 4), (6, 3), (9, 0), (18, 9), (20, 19)]
        {
            assert_eq!(target_generation(generation), target, "of {generation}");
        }
    }

    /// A history of one chunk, changed every day.
    fn history(days: u32) -> HashMap<ChunkKey, BaseInfo> {
        let mut known = HashMap::new();
        let whole =
            BaseInfo { generation: 0, depth: 0, stored_len: 100, plain_len: 1000, bases: vec![] };
        known.insert(key(0), whole);
        for day in 1..days {
            let lineage = choose(&[key(day - 1)], 1000, &mut |k: &ChunkKey| {
                Ok::<_, Infallible>(known.get(k).cloned())
            });
            let info = match lineage.unwrap() {
                Some(Lineage { bases, generation, depth }) => {
                    BaseInfo { generation, depth, stored_len: 1, plain_len: 1000, bases }
                }
                None => BaseInfo {
                    generation: 0,
                    depth: 0,
                    stored_len: 100,
                    plain_len: 1000,
                    bases: vec![],
                },
            };
            known.insert(key(day), info);
        }
        known
    }

    #[test]
    fn chains_of_years_stay_short() {
        for info in history(3000).values() {
            assert!(info.depth <= MAX_CHAIN);
        }
        let month = history(31);
        assert!(month.values().all(|info| info.depth <= 7));
        assert!(month.values().filter(|info| info.bases.is_empty()).count() == 1);
    }

    #[test]
    fn unknown_and_costly_bases_are_refused() {
        let none = &mut |_: &ChunkKey| Ok::<_, Infallible>(None);
        assert_eq!(choose(&[key(1)], 1000, none).unwrap(), None);
        let heavy = BaseInfo {
            generation: 0,
            depth: 0,
            stored_len: 9 << 20,
            plain_len: 9 << 20,
            bases: vec![],
        };
        let big = &mut |_: &ChunkKey| Ok::<_, Infallible>(Some(heavy.clone()));
        assert_eq!(choose(&[key(1)], 1000, big).unwrap(), None);
    }

    #[test]
    fn a_hostile_cycle_ends() {
        let cycle =
            BaseInfo { generation: 7, depth: 3, stored_len: 1, plain_len: 10, bases: vec![key(1)] };
        let look_up = &mut |_: &ChunkKey| Ok::<_, Infallible>(Some(cycle.clone()));
        // What comes of it does not matter: such a base cannot be decoded, and the chunk is stored
        // whole. That this ends does.
        let _ = choose(&[key(1)], 1000, look_up).unwrap();
    }
}
