//! Parity of a pack: enough of a Reed-Solomon code to make some of its bytes again after bit rot.
//!
//! ```text
//! head        64 bytes: magic "RSTP", version u8, zero u8, parts in a thousand u16, length of the pack u64,
//!             length of a block u32, blocks u32, parity blocks u32, zeros up to 48, then the first 16
//!             bytes of BLAKE3 of these 48
//! checksums   of each block of the pack: the first 8 bytes of its BLAKE3
//! parity      each block and its checksum
//! checksums   again
//! head        again
//! ```
//! A block counts as good where it matches one of its two checksums, so a damaged parity object
//! mends less, not nothing. What comes out is proven by the pack's name, not by anything here: parity
//! is made from ciphertext, needs no key and tells nothing.

use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

use super::FormatError;

/// Greatest parity, in thousandths of a pack.
pub const MAX_PARTS: u16 = 500;
/// Least parity: below it the checksums alone take more.
pub const MIN_PARTS: u16 = 5;
const MAGIC: &[u8; 4] = b"RSTP";
const VERSION: u8 = 1;
const HEAD_LEN: usize = 64;
const HEAD_TEXT: usize = 48;
const SUM_LEN: usize = 8;
/// The unit that disks lose.
const BLOCK: usize = 4096;
/// Most blocks of a pack; bigger packs have bigger blocks.
const MAX_BLOCKS: usize = 16384;
const MAX_BLOCK: usize = 1 << 20;
/// Bytes of every block that are worked on at once; a bound on memory. Columns of 64 bytes are
/// independent in this code, so the result does not depend on it.
const COLUMN: usize = 512;

/// Why a pack could not be mended.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MendError {
    /// The parity object is of no use.
    #[error("its parity is damaged: {0}")]
    Parity(#[from] FormatError),
    /// More is lost than the parity can make again.
    #[error("{lost} blocks are damaged and parity is left for {parity}")]
    Beyond {
        /// Damaged blocks.
        lost: usize,
        /// Undamaged parity blocks.
        parity: usize,
    },
}

/// How a pack was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Thousandths that were asked for.
    pub parts: u16,
    /// Length of the pack in bytes.
    pub length: u64,
    block: usize,
    blocks: usize,
    parity: usize,
}

impl Head {
    fn of(length: usize, parts: u16) -> Self {
        let mut block = BLOCK;
        while length.div_ceil(block) > MAX_BLOCKS {
            block *= 2;
        }
        let blocks = length.div_ceil(block).max(1);
        let wanted = length as u64 * u64::from(parts) / 1000;
        let fixed = (2 * (HEAD_LEN + blocks * SUM_LEN)) as u64;
        let parity = wanted.saturating_sub(fixed) as usize / (block + SUM_LEN);
        Self { parts, length: length as u64, block, blocks, parity: parity.clamp(1, blocks) }
    }

    fn encode(&self) -> [u8; HEAD_LEN] {
        let mut head = [0; HEAD_LEN];
        head[..4].copy_from_slice(MAGIC);
        head[4] = VERSION;
        head[6..8].copy_from_slice(&self.parts.to_le_bytes());
        head[8..16].copy_from_slice(&self.length.to_le_bytes());
        for (at, value) in [(16, self.block), (20, self.blocks), (24, self.parity)] {
            head[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
        }
        let sum = *blake3::hash(&head[..HEAD_TEXT]).as_bytes();
        head[HEAD_TEXT..].copy_from_slice(&sum[..HEAD_LEN - HEAD_TEXT]);
        head
    }

    fn decode(head: &[u8; HEAD_LEN]) -> Result<Self, FormatError> {
        let sum = blake3::hash(&head[..HEAD_TEXT]);
        if &head[..4] != MAGIC || head[HEAD_TEXT..] != sum.as_bytes()[..HEAD_LEN - HEAD_TEXT] {
            return Err(FormatError::Invalid("head of the parity"));
        }
        if head[4] != VERSION {
            return Err(FormatError::Invalid("version of the parity: a newer restow wrote this"));
        }
        let word = |at: usize| u32::from_le_bytes(*head[at..].first_chunk().expect("in the head"));
        let (block, blocks) = (word(16) as usize, word(20) as usize);
        let found = Self {
            parts: u16::from_le_bytes([head[6], head[7]]),
            length: u64::from_le_bytes(*head[8..].first_chunk().expect("in the head")),
            block,
            blocks,
            parity: word(24) as usize,
        };
        // The sum is no proof of who wrote it.
        let is_sane = (BLOCK..=MAX_BLOCK).contains(&block)
            && block.is_power_of_two()
            && (1..=MAX_BLOCKS).contains(&blocks)
            && (1..=blocks).contains(&found.parity)
            && found.length.div_ceil(block as u64).max(1) == blocks as u64;
        if is_sane { Ok(found) } else { Err(FormatError::Invalid("head of the parity")) }
    }

    /// Reads the head from either end of a parity object.
    pub fn read(parity: &[u8]) -> Result<Self, FormatError> {
        let first = parity.first_chunk().map(Self::decode);
        let last = parity.last_chunk().map(Self::decode);
        match (first, last) {
            (Some(Ok(head)), _) | (_, Some(Ok(head))) => Ok(head),
            (Some(Err(error)), _) => Err(error),
            _ => Err(FormatError::Truncated("head of the parity")),
        }
    }

    fn parity_start(&self) -> usize {
        HEAD_LEN + self.blocks * SUM_LEN
    }

    fn second_sums(&self) -> usize {
        self.parity_start() + self.parity * (self.block + SUM_LEN)
    }

    /// Length of the whole parity object.
    pub fn object_len(&self) -> usize {
        self.second_sums() + self.blocks * SUM_LEN + HEAD_LEN
    }
}

fn sum(bytes: &[u8]) -> [u8; SUM_LEN] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("32 bytes")
}

/// The part of a block that a column covers, with zeros after the end of the pack.
fn column_of<'a>(pack: &'a [u8], start: usize, zeros: &'a mut [u8; COLUMN]) -> &'a [u8] {
    if let Some(whole) = pack.get(start..start + COLUMN) {
        return whole;
    }
    let rest = pack.get(start..).unwrap_or_default();
    zeros.fill(0);
    zeros[..rest.len()].copy_from_slice(rest);
    zeros
}

/// Makes the parity of a pack: about `parts` thousandths of its length, one block at least.
pub fn encode(pack: &[u8], parts: u16) -> Vec<u8> {
    let head = Head::of(pack.len(), parts);
    let mut shards = vec![0; head.parity * head.block];
    let fits = "the counts of a head are within what the code can do";
    let mut encoder = ReedSolomonEncoder::new(head.blocks, head.parity, COLUMN).expect(fits);
    let mut zeros = [0; COLUMN];
    for column in (0..head.block).step_by(COLUMN) {
        for block in 0..head.blocks {
            let shard = column_of(pack, block * head.block + column, &mut zeros);
            encoder.add_original_shard(shard).expect(fits);
        }
        let result = encoder.encode().expect(fits);
        for (number, shard) in result.recovery_iter().enumerate() {
            let at = number * head.block + column;
            shards[at..at + COLUMN].copy_from_slice(shard);
        }
    }
    let mut sums = Vec::with_capacity(head.blocks * SUM_LEN);
    if pack.is_empty() {
        sums.extend(sum(&[]));
    }
    pack.chunks(head.block).for_each(|block| sums.extend(sum(block)));
    let mut out = Vec::with_capacity(head.object_len());
    out.extend_from_slice(&head.encode());
    out.extend_from_slice(&sums);
    for shard in shards.chunks(head.block) {
        out.extend_from_slice(shard);
        out.extend_from_slice(&sum(shard));
    }
    out.extend_from_slice(&sums);
    out.extend_from_slice(&head.encode());
    out
}

/// Whether every byte of a parity object is what was written, for whichever pack.
pub fn is_whole(parity: &[u8]) -> bool {
    let Ok(head) = Head::read(parity) else { return false };
    if parity.len() != head.object_len() {
        return false;
    }
    let (second, sums) = (head.second_sums(), head.blocks * SUM_LEN);
    parity[..HEAD_LEN] == parity[parity.len() - HEAD_LEN..]
        && parity[HEAD_LEN..HEAD_LEN + sums] == parity[second..second + sums]
        && (0..head.parity).all(|number| good_parity(&head, parity, number).is_some())
}

/// Whether this is the parity of this pack, every byte of it.
pub fn is_of(parity: &[u8], pack: &[u8]) -> bool {
    let Ok(head) = Head::read(parity) else { return false };
    let is_possible = (1..=MAX_PARTS).contains(&head.parts) && head.length == pack.len() as u64;
    is_possible && Head::of(pack.len(), head.parts) == head && encode(pack, head.parts) == parity
}

/// A parity block that matches its checksum.
fn good_parity<'a>(head: &Head, parity: &'a [u8], number: usize) -> Option<&'a [u8]> {
    let start = head.parity_start() + number * (head.block + SUM_LEN);
    let (shard, found) = parity.get(start..start + head.block + SUM_LEN)?.split_at(head.block);
    (sum(shard) == found).then_some(shard)
}

/// The blocks of a damaged pack that are as they were.
fn good_blocks(head: &Head, parity: &[u8], pack: &[u8]) -> Vec<bool> {
    let matches = |table: usize, number: usize, found: &[u8; SUM_LEN]| {
        let at = table + number * SUM_LEN;
        parity.get(at..at + SUM_LEN) == Some(&found[..])
    };
    let is_good = |number: usize| {
        let start = number * head.block;
        let end = (start + head.block).min(head.length as usize);
        pack.get(start..end).is_some_and(|block| {
            let found = sum(block);
            matches(HEAD_LEN, number, &found) || matches(head.second_sums(), number, &found)
        })
    };
    (0..head.blocks).map(is_good).collect()
}

/// The bytes that a damaged pack had. The caller must compare them with its name.
pub fn mend(parity: &[u8], damaged: &[u8]) -> Result<Vec<u8>, MendError> {
    let head = Head::read(parity)?;
    let good = good_blocks(&head, parity, damaged);
    let shards: Vec<(usize, &[u8])> = (0..head.parity)
        .filter_map(|number| Some((number, good_parity(&head, parity, number)?)))
        .collect();
    let lost = good.iter().filter(|is_good| !**is_good).count();
    if lost > shards.len() {
        return Err(MendError::Beyond { lost, parity: shards.len() });
    }
    let mut mended = damaged.to_vec();
    mended.resize(head.length as usize, 0);
    if lost == 0 {
        return Ok(mended);
    }
    let invalid = |_| FormatError::Invalid("counts of the parity");
    let mut decoder = ReedSolomonDecoder::new(head.blocks, head.parity, COLUMN).map_err(invalid)?;
    let mut zeros = [0; COLUMN];
    for column in (0..head.block).step_by(COLUMN) {
        for number in (0..head.blocks).filter(|number| good[*number]) {
            let end = mended.len().min((number + 1) * head.block);
            let shard = column_of(&mended[..end], number * head.block + column, &mut zeros);
            decoder.add_original_shard(number, shard).map_err(invalid)?;
        }
        for (number, shard) in &shards {
            let shard = &shard[column..column + COLUMN];
            decoder.add_recovery_shard(*number, shard).map_err(invalid)?;
        }
        let result = decoder.decode().map_err(invalid)?;
        let restored: Vec<_> = result
            .restored_original_iter()
            .map(|(number, shard)| (number, shard.to_vec()))
            .collect();
        for (number, shard) in restored {
            let start = (number * head.block + column).min(mended.len());
            let end = (start + COLUMN).min(mended.len());
            mended[start..end].copy_from_slice(&shard[..end - start]);
        }
    }
    Ok(mended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pack(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"pack").finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn a_head_round_trips_and_odd_ones_are_refused() {
        for length in [0, 1, 4096, 4097, 1 << 20, 32 << 20, 1 << 30] {
            let head = Head::of(length, 20);
            assert_eq!(Head::decode(&head.encode()).unwrap(), head);
        }
        let mut odd = Head::of(1 << 20, 20);
        odd.parity = 1 << 20;
        assert!(Head::decode(&odd.encode()).is_err());
        odd = Head { length: u64::MAX, ..Head::of(1 << 20, 20) };
        assert!(Head::decode(&odd.encode()).is_err());
    }

    #[test]
    fn parity_is_as_large_as_was_asked_for() {
        for (length, parts) in [(32 << 20, 20), (8 << 20, 20), (32 << 20, 5), (4 << 20, 100)] {
            let size = Head::of(length, parts).object_len() as f64;
            let asked = length as f64 * f64::from(parts) / 1000.0;
            assert!(size <= asked && size > asked * 0.9, "{length} {parts}: {size} of {asked}");
        }
    }

    #[test]
    fn as_many_blocks_as_there_is_parity_come_back_and_not_one_more() {
        let whole = pack(1_000_003);
        let parity = encode(&whole, 40);
        let budget = Head::read(&parity).unwrap().parity;
        assert!(is_whole(&parity) && is_of(&parity, &whole) && budget > 3);
        // Whole, and of another pack.
        let (mut other, longer) = (whole.clone(), pack(1_000_004));
        other[9] ^= 1;
        assert!(!is_of(&parity, &other) && !is_of(&encode(&longer, 40), &whole));
        let mut damaged = whole.clone();
        for number in 0..budget {
            damaged[number * 7 * BLOCK + 5] ^= 1;
        }
        assert_eq!(mend(&parity, &damaged).unwrap(), whole);
        damaged[budget * 7 * BLOCK] ^= 1;
        let beyond = MendError::Beyond { lost: budget + 1, parity: budget };
        assert_eq!(mend(&parity, &damaged), Err(beyond));
    }

    #[test]
    fn lost_sectors_ends_and_appended_bytes_come_back() {
        for length in [10, 4096, 70_001, 400_000] {
            let whole = pack(length);
            let parity = encode(&whole, 50);
            let mut damaged = whole.clone();
            let at = damaged.len() / 2 / BLOCK * BLOCK;
            let end = (at + BLOCK).min(length);
            damaged[at..end].fill(0);
            assert_eq!(mend(&parity, &damaged).unwrap(), whole);
            assert_eq!(mend(&parity, &whole[..length - 1]).unwrap(), whole);
            let longer = [&whole[..], b"junk"].concat();
            assert_eq!(mend(&parity, &longer).unwrap(), whole);
        }
        assert_eq!(mend(&encode(&[], 20), &[]).unwrap(), b"");
    }

    #[test]
    fn damaged_parity_mends_what_it_still_can() {
        let whole = pack(500_000);
        let parity = encode(&whole, 100);
        let mut damaged = whole.clone();
        damaged[100_000..104_000].fill(7);
        let second = Head::read(&parity).unwrap().second_sums();
        for range in
            [0..64, 64..400, 1100..6000, second..second + 300, parity.len() - 70..parity.len()]
        {
            let mut bad = parity.clone();
            bad[range.clone()].fill(0x55);
            assert!(!is_whole(&bad));
            assert_eq!(mend(&bad, &damaged).unwrap(), whole, "{range:?}");
        }
        assert_eq!(mend(&parity[..parity.len() / 2], &damaged).unwrap(), whole);
        assert!(mend(&[], &damaged).is_err());
    }

    #[test]
    fn the_code_is_what_it_was() {
        let parity = encode(&pack(300_000), 20);
        let hash = blake3::hash(&parity).to_hex();
        assert_eq!(&hash[..16], "2853ef12925453ef");
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(parity: Vec<u8>, pack: Vec<u8>) {
            let _ = mend(&parity, &pack);
            let _ = is_whole(&parity);
        }

        #[test]
        fn hostile_heads_never_panic(
            length in 0..100_000u64, block in 12..21u32, blocks in 0..30usize, parity in 0..30usize,
            body: Vec<u8>,
        ) {
            let head = Head { parts: 20, length, block: 1 << block, blocks, parity };
            let object = [&head.encode()[..], &body].concat();
            let _ = mend(&object, &body);
            let _ = is_whole(&object);
        }
    }
}
