//! Which copy of a chunk is the one that counts.
//!
//! The newest. What write-only keys made may not be what it claims to be, and a good copy must not go for
//! its sake: such a copy counts where it was read and has the right id. Owners' copies are not preferred,
//! or a machine that knows only what it stored itself would store again what was moved, for ever.

use std::collections::HashMap;

use super::filter::Filter;
use crate::error::{Error, Result};
use crate::format::directory::Codec;
use crate::id::ChunkKey;
use crate::index::{Found, Home, PackDirectory, Place};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::reader::{ChunkReader, Scratch};

/// So many chunks that stand in several packs are kept in mind one by one.
const FEW_REPEATED: usize = 1 << 18;
/// Of more, so many are looked at together.
const PAGE: usize = 1 << 17;

/// Where needed chunks are that stand in several live packs.
pub enum Homes {
    /// The packs of those chunks alone.
    Few(HashMap<ChunkKey, i64>),
    /// Pairs of chunk and pack, of all chunks; a few packs seem to be home that are not, and keep
    /// garbage.
    Many(Filter),
}

impl Homes {
    /// Looks for such chunks.
    pub fn find(repository: &Repository, progress: &Progress, seed: u64) -> Result<Self> {
        let index = repository.index();
        let mut prover = Prover::new(repository, progress)?;
        if let Some(mut several) = index.repeated_keys(FEW_REPEATED)? {
            prover.settle(&mut several)?;
            return Ok(Self::Few(several.iter().map(|home| (home.key, home.pack)).collect()));
        }
        let mut pairs = Filter::for_keys(index.totals()?.chunks, seed);
        let mut after = None;
        loop {
            let mut page = index.homes_after(after, PAGE)?;
            let Some(last) = page.last() else { return Ok(Self::Many(pairs)) };
            after = Some(last.key);
            prover.settle(&mut page)?;
            for home in page {
                pairs.insert(&pair(&home.key, home.pack));
            }
        }
    }

    /// Whether this pack is where the chunk is needed.
    pub fn is_home(&self, key: &ChunkKey, pack: &PackDirectory) -> bool {
        match self {
            Self::Few(several) => several.get(key).is_none_or(|home| *home == pack.number),
            Self::Many(pairs) => pairs.contains(&pair(key, pack.number)),
        }
    }
}

/// Stands for a chunk in a pack.
fn pair(key: &ChunkKey, number: i64) -> ChunkKey {
    let spread = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = key.0;
    let (first, second) = bytes.split_at_mut(8);
    first.iter_mut().zip(spread.to_le_bytes()).for_each(|(byte, other)| *byte ^= other);
    let spread = spread.rotate_left(29).wrapping_mul(0xd6e8_feb8_6659_fd93);
    second.iter_mut().zip(spread.to_le_bytes()).for_each(|(byte, other)| *byte ^= other);
    ChunkKey(bytes)
}

/// Reads copies that write-only keys made.
struct Prover<'a> {
    repository: &'a Repository,
    progress: &'a Progress,
    reader: ChunkReader<'a>,
    scratch: Scratch,
}

impl<'a> Prover<'a> {
    fn new(repository: &'a Repository, progress: &'a Progress) -> Result<Self> {
        let (reader, scratch) = (ChunkReader::new(repository), Scratch::new()?);
        Ok(Self { repository, progress, reader, scratch })
    }

    /// Puts older copies in the place of newest ones that are not proven.
    fn settle(&mut self, homes: &mut [Home]) -> Result<()> {
        let index = self.repository.index();
        let is_doubtful = |home: &Home| home.is_repeated && index.is_sealed(home.pack);
        let doubtful: Vec<usize> = (0..homes.len()).filter(|at| is_doubtful(&homes[*at])).collect();
        let keys: Vec<ChunkKey> = doubtful.iter().map(|at| homes[*at].key).collect();
        let mut newest: Vec<(Place, usize)> = Vec::new();
        index.places_of(&keys, &mut |at, places| {
            let at = doubtful[at];
            let here = places.iter().find(|(number, _)| *number == homes[at].pack);
            newest.extend(here.map(|place| (*place, at)));
        })?;
        // In the order of packs: groups are decoded once.
        newest.sort_unstable();
        for ((number, ordinal), at) in newest {
            if self.progress.is_interrupted() {
                return Err(Error::Interrupted);
            }
            // Another prune may have been faster, which makes this one start over.
            let Some(pack) = index.pack_numbered(number)? else { continue };
            homes[at].pack = self.home(&homes[at].key, &Found { pack, ordinal })?;
        }
        Ok(())
    }

    /// The newest copy that counts. Where none does, nobody but the makers of the copies loses anything.
    fn home(&mut self, key: &ChunkKey, newest: &Found) -> Result<i64> {
        if self.counts(newest)? {
            return Ok(newest.pack.number);
        }
        let index = self.repository.index();
        let mut older = index.packs_of(key)?;
        older.retain(|place| index.fate(&place.pack.name).is_none());
        older.sort_by_key(|place| std::cmp::Reverse(place.pack.number));
        for place in older {
            if self.counts(&place)? {
                return Ok(place.pack.number);
            }
        }
        Ok(newest.pack.number)
    }

    /// Whether a copy is an owner's, or proven. Write-only keys make no deltas: two of theirs could be
    /// made against one another, and be proven with the copies that go.
    fn counts(&mut self, place: &Found) -> Result<bool> {
        if !self.repository.index().is_sealed(place.pack.number) {
            return Ok(true);
        }
        let is_delta = |place: &Found| place.entry().codec == Codec::Delta;
        if is_delta(place) || is_delta(&place.group().0) {
            return Ok(false);
        }
        match self.reader.verify(place, &mut self.scratch) {
            Ok(()) => Ok(true),
            Err(error) if error.is_object_damage() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
