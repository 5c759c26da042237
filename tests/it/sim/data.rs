//! What is backed up: rows that change from day to day, a folder of files that never change, and
//! randomness.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use restow::entropy::Entropy;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ purpose);
        dice.next();
        dice
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// `true` so many times in a million.
    pub fn hits(&mut self, in_a_million: u64) -> bool {
        self.below(1_000_000) < in_a_million
    }

    pub fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// Random bytes that are the same for the same seed, actor and call.
pub struct SeededEntropy {
    seed: [u8; 16],
    calls: AtomicU64,
}

impl SeededEntropy {
    pub fn new(seed: u64, actor: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..].copy_from_slice(&actor.to_le_bytes());
        Self { seed: bytes, calls: AtomicU64::new(0) }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed).update(&call.to_le_bytes()).finalize_xof().fill(bytes);
    }
}

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Stream(Vec<u8>),
    /// By path without the leading slash.
    Files(BTreeMap<String, Vec<u8>>),
}

/// A table on some day.
pub fn rows(table: u64, day: u64, count: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0..count {
        let mut dice = Dice::new(number, table);
        let last_change = (1..=day).rev().find(|day| Dice::new(number, *day).below(7) == 0);
        let mut dice = Dice::new(dice.next(), last_change.unwrap_or(0));
        let row = format!("{number}\tname-{}\t{:016x}\n", dice.below(1000), dice.next());
        text.extend(row.into_bytes());
    }
    text
}

/// Files that are there for the whole process: a file that nobody touches is the same in each
/// history.
pub struct Folder {
    _folder: tempfile::TempDir,
    pub files: Vec<(PathBuf, Vec<u8>)>,
}

pub fn folder() -> &'static Folder {
    static FOLDER: OnceLock<Folder> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for number in 0..16 {
            let below = folder.path().join(format!("d{}", number % 4));
            std::fs::create_dir_all(&below).unwrap();
            let path = below.join(format!("f{number}"));
            let bytes =
                rows(number % 8, number / 8, if number % 5 == 0 { 160 } else { 6 + number });
            std::fs::write(&path, &bytes).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000 + number)).unwrap();
            files.push((path, bytes));
        }
        Folder { _folder: folder, files }
    })
}
