//! Content-defined chunking: FastCDC (Xia et al., USENIX ATC 2016 and the 2020 revision) with a secret gear table.
//!
//! Cut points depend on the bytes and the repository's key alone, never on how the input was read:
//! [`Chunker::cut`] answers only when it has seen a whole maximum chunk or the end of the input.

use fastcdc::v2020::{Normalization, cut_gear, select_masks};
use serde::{Deserialize, Serialize};

/// Chunk sizes in bytes: minimum, target average and maximum, all powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// No cut before this many bytes.
    pub min: u32,
    /// The size that cuts are normalised to.
    pub avg: u32,
    /// A chunk is cut here at the latest.
    pub max: u32,
}

impl Profile {
    /// For dump streams; chosen by measurement, see `docs/decisions/0001-chunks-and-delta.md`.
    pub const STREAM: Self = Self { min: 64 << 10, avg: 256 << 10, max: 1 << 20 };

    /// Whether the sizes are ones that the chunker can work with.
    pub fn is_valid(&self) -> bool {
        let Self { min, avg, max } = *self;
        [min, avg, max].iter().all(|size| size.is_power_of_two())
            && (64..=1 << 20).contains(&min)
            && (256..=4 << 20).contains(&avg)
            && (1024..=16 << 20).contains(&max)
            && min < avg
            && avg < max
    }
}

/// Cuts byte streams into chunks.
pub struct Chunker {
    profile: Profile,
    mask_s: u64,
    mask_l: u64,
    gear: Box<[u64; 256]>,
    gear_ls: Box<[u64; 256]>,
}

impl Chunker {
    /// A chunker whose gear table is the BLAKE3 output stream of `gear_key`.
    ///
    /// # Panics
    /// Where `profile` is not valid; callers check it when they read the configuration.
    pub fn new(profile: Profile, gear_key: &[u8; 32]) -> Self {
        assert!(profile.is_valid(), "chunk sizes were checked before");
        let (mask_s, mask_l) = select_masks(profile.avg as usize, Normalization::Level2);
        let gear = gear_table(gear_key);
        let gear_ls = Box::new(std::array::from_fn(|i| gear[i] << 1));
        Self { profile, mask_s, mask_l, gear, gear_ls }
    }

    /// The sizes this chunker works with.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Length of the first chunk of `bytes`, or `None` where more bytes are needed to tell.
    /// With `end` set, `bytes` is all that is left and a non-empty input always has a chunk.
    pub fn cut(&self, bytes: &[u8], end: bool) -> Option<usize> {
        if bytes.is_empty() || (!end && bytes.len() < self.profile.max as usize) {
            return None;
        }
        let Profile { min, avg, max } = self.profile;
        let (_, length) = cut_gear(
            bytes,
            min as usize,
            avg as usize,
            max as usize,
            self.mask_s,
            self.mask_l,
            self.mask_s << 1,
            self.mask_l << 1,
            &self.gear[..],
            &self.gear_ls[..],
        );
        Some(length)
    }
}

fn gear_table(key: &[u8; 32]) -> Box<[u64; 256]> {
    let mut bytes = [0; 256 * 8];
    blake3::Hasher::new_keyed(key).update(b"gear table").finalize_xof().fill(&mut bytes);
    let (words, _) = bytes.as_chunks::<8>();
    Box::new(std::array::from_fn(|i| u64::from_le_bytes(words[i])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: Profile = Profile { min: 64, avg: 256, max: 1024 };

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cuts(chunker: &Chunker, mut bytes: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while let Some(length) = chunker.cut(bytes, true) {
            lengths.push(length);
            bytes = &bytes[length..];
        }
        lengths
    }

    /// Feeds the chunker reads of the given size, as a stream would.
    fn cuts_by_reads(chunker: &Chunker, bytes: &[u8], read: usize) -> Vec<usize> {
        let (mut lengths, mut start, mut seen) = (Vec::new(), 0, 0);
        while start < bytes.len() {
            seen = (seen + read).min(bytes.len());
            while let Some(length) = chunker.cut(&bytes[start..seen], seen == bytes.len()) {
                lengths.push(length);
                start += length;
            }
        }
        lengths
    }

    /// Cut points are part of the format: a new fastcdc that moves them makes every repository
    /// store everything again.
    #[test]
    fn cut_points_are_the_golden_ones() {
        let chunker = Chunker::new(Profile::STREAM, &[7; 32]);
        let lengths = cuts(&chunker, &noise(2 << 20, 1));
        let digest = blake3::hash(format!("{lengths:?}").as_bytes()).to_hex();
        assert_eq!(lengths.iter().sum::<usize>(), 2 << 20);
        assert_eq!(&digest[..16], GOLDEN_STREAM, "{lengths:?}");
        let small = cuts(&Chunker::new(SMALL, &[7; 32]), &noise(16 << 10, 2));
        let digest = blake3::hash(format!("{small:?}").as_bytes()).to_hex();
        assert_eq!(&digest[..16], GOLDEN_SMALL, "{small:?}");
    }
    const GOLDEN_STREAM: &str = "e4958e58b69a935f";
    const GOLDEN_SMALL: &str = "6ef4d467c4bfa57c";

    #[test]
    fn one_letter_input_is_cut_at_the_maximum() {
        let chunker = Chunker::new(SMALL, &[1; 32]);
        for letter in [0, b'a'] {
            let lengths = cuts(&chunker, &vec![letter; 10_000]);
            assert!(lengths.len() <= 10_000 / SMALL.min as usize + 1);
            let first = lengths[0];
            assert!(lengths[..lengths.len() - 1].iter().all(|&length| length == first));
        }
    }

    #[test]
    fn keys_move_the_cuts() {
        let bytes = noise(64 << 10, 3);
        let one = cuts(&Chunker::new(SMALL, &[1; 32]), &bytes);
        assert_ne!(one, cuts(&Chunker::new(SMALL, &[2; 32]), &bytes));
    }

    proptest! {
        #[test]
        fn cuts_do_not_depend_on_read_sizes(seed: u64, length in 0usize..40_000, read in 1usize..5000) {
            let chunker = Chunker::new(SMALL, &[9; 32]);
            let bytes = noise(length, seed);
            prop_assert_eq!(cuts_by_reads(&chunker, &bytes, read), cuts(&chunker, &bytes));
        }

        #[test]
        fn one_inserted_byte_changes_few_chunks(seed: u64, at in 0usize..60_000) {
            let chunker = Chunker::new(SMALL, &[9; 32]);
            let mut bytes = noise(60_000, seed);
            let ids = |bytes: &[u8]| -> Vec<blake3::Hash> {
                let mut rest = bytes;
                cuts(&chunker, bytes).into_iter().map(|length| {
                    let (chunk, tail) = rest.split_at(length);
                    rest = tail;
                    blake3::hash(chunk)
                }).collect()
            };
            let before: std::collections::HashSet<_> = ids(&bytes).into_iter().collect();
            bytes.insert(at, 0x55);
            let changed = ids(&bytes).iter().filter(|id| !before.contains(*id)).count();
            prop_assert!(changed <= 24, "{} chunks changed", changed);
        }
    }
}
