//! A set of chunk keys in little memory that may take a key for a member that is none.
//!
//! A blocked Bloom filter (Putze, Sanders, Singler 2007) of 16 bits a key: one cache line a
//! question, about one wrong yes in a thousand. A wrong yes keeps garbage until the next prune, which
//! draws another seed; a wrong no cannot happen.

use crate::id::ChunkKey;

const BITS_PER_KEY: u64 = 16;
const LEAST_BITS: u64 = 1 << 20;

/// The set.
#[derive(Clone)]
pub struct Filter {
    blocks: Vec<[u64; 8]>,
    seed: u64,
}

impl Filter {
    /// An empty set with room for so many keys.
    pub fn for_keys(count: u64, seed: u64) -> Self {
        let bits = (count * BITS_PER_KEY).max(LEAST_BITS);
        Self { blocks: vec![[0; 8]; bits.div_ceil(512) as usize], seed }
    }

    /// The block of a key, and its bit in each word. Keys are hashes: their bytes are random enough.
    fn place(&self, key: &ChunkKey) -> (usize, u64) {
        let (first, second) = key.as_bytes().split_at(8);
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let spread = (word(first) ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let block = (u128::from(spread) * self.blocks.len() as u128) >> 64;
        let bits = (word(second) ^ self.seed.rotate_left(32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (block as usize, bits)
    }

    fn masks(bits: u64) -> impl Iterator<Item = (usize, u64)> {
        (0..8).map(move |word| (word, 1 << ((bits >> (word * 8)) & 63)))
    }

    /// Adds a key. Whether that changed anything: `false` where it seemed to be there.
    pub fn insert(&mut self, key: &ChunkKey) -> bool {
        let (block, bits) = self.place(key);
        let block = &mut self.blocks[block];
        let mut is_new = false;
        for (word, mask) in Self::masks(bits) {
            is_new |= block[word] & mask == 0;
            block[word] |= mask;
        }
        is_new
    }

    /// Adds all keys of another filter, which must be of the same size and seed.
    pub fn join(&mut self, other: &Self) {
        for (block, others) in self.blocks.iter_mut().zip(&other.blocks) {
            for (word, other) in block.iter_mut().zip(others) {
                *word |= other;
            }
        }
    }

    /// Whether a key is in it, or seems to be.
    pub fn contains(&self, key: &ChunkKey) -> bool {
        let (block, bits) = self.place(key);
        Self::masks(bits).all(|(word, mask)| self.blocks[block][word] & mask != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkId;

    fn key(number: u64) -> ChunkKey {
        ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes()).key()
    }

    #[test]
    fn members_are_found_and_few_others() {
        let count = 200_000;
        let mut filter = Filter::for_keys(count, 7);
        for number in 0..count {
            filter.insert(&key(number));
        }
        assert!((0..count).all(|number| filter.contains(&key(number))));
        let wrong = (count..2 * count).filter(|number| filter.contains(&key(*number))).count();
        assert!(wrong < count as usize / 300, "{wrong} wrong of {count}");
        assert!(!filter.insert(&key(1)));
        let mut joined = Filter::for_keys(count, 7);
        joined.insert(&key(count + 1));
        joined.join(&filter);
        assert!((0..count + 2).filter(|number| *number != count).all(|n| joined.contains(&key(n))));
    }
}
