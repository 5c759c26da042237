//! The keys of a repository: the master key, from which ids and everything that must never change is
//! derived, and the epochs, which encrypt and can be replaced (see `epoch`).

use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::CryptoError;
use super::epoch::Epoch;
use crate::entropy::{Entropy, random};
use crate::id::ChunkId;
use crate::id::ChunkKey;

/// What ids, cuts and the authentication of the configuration are made with. It never changes:
/// equal chunks must have equal ids for as long as the repository lives.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// A fresh key.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(random(entropy))
    }

    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// What a blob holds; ids of different kinds are made with different keys, so a tree can never be
/// taken for a chunk of somebody's data with the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BlobKind {
    /// Bytes of a stream or file.
    Data = 0,
    /// A node of a recipe or tree.
    Tree = 1,
}

impl BlobKind {
    /// The kind with this number in the format.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Data),
            1 => Some(Self::Tree),
            _ => None,
        }
    }

    /// "data" or "tree".
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Tree => "tree",
        }
    }
}

/// The keys of a repository by purpose, derived from the master key with BLAKE3's `derive_key`, and
/// its epochs.
pub struct KeyRing {
    master: MasterKey,
    fixed: Fixed,
    epochs: RwLock<Epochs>,
}

#[derive(ZeroizeOnDrop)]
struct Fixed {
    data_id: [u8; 32],
    tree_id: [u8; 32],
    group: [u8; 32],
    gear: [u8; 32],
    config: [u8; 32],
    report: [u8; 32],
    salt: [u8; 32],
}

struct Epochs {
    /// By number.
    known: Vec<Arc<Epoch>>,
    /// Number of the one that new objects are encrypted with.
    current: u32,
}

impl KeyRing {
    /// The keys that follow from these; the oldest epoch is the current one.
    pub fn new(master: MasterKey, mut epochs: Vec<Epoch>) -> Result<Self, CryptoError> {
        let derive = |purpose: &str| {
            blake3::derive_key(&format!("restow 2026-11 format 1 {purpose}"), &master.0)
        };
        let fixed = Fixed {
            data_id: derive("chunk id: data"),
            tree_id: derive("chunk id: tree"),
            group: derive("group key"),
            gear: derive("gear table"),
            config: derive("config authentication"),
            report: derive("drill report authentication"),
            salt: derive("object salt"),
        };
        epochs.sort_by_key(Epoch::number);
        epochs.dedup_by_key(|epoch| epoch.number());
        let current = epochs.first().ok_or(CryptoError::Malformed("no keys in a slot"))?.number();
        let known = epochs.into_iter().map(Arc::new).collect();
        Ok(Self { master, fixed, epochs: RwLock::new(Epochs { known, current }) })
    }

    /// The keys of a new repository.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::new(MasterKey::generate(entropy), vec![Epoch::generate(0, entropy)])
            .expect("there is an epoch")
    }

    /// Reads what [`KeyRing::encode`] wrote.
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, CryptoError> {
        let (master, rest) =
            bytes.split_first_chunk().ok_or(CryptoError::Malformed("keys in a slot"))?;
        let master = MasterKey(*master);
        bytes = rest;
        let mut epochs = Vec::new();
        while !bytes.is_empty() {
            epochs.push(Epoch::decode(&mut bytes)?);
        }
        Self::new(master, epochs)
    }

    /// Writes the keys down, to be wrapped in a key slot; `write_only` leaves out what only owners
    /// may have.
    pub(super) fn encode(&self, write_only: bool) -> Zeroizing<Vec<u8>> {
        let epochs = self.read();
        // Room for all, so that no copy is left behind by growing.
        let mut out = Zeroizing::new(Vec::with_capacity(32 + 80 * epochs.known.len()));
        out.extend_from_slice(&self.master.0);
        for epoch in &epochs.known {
            if write_only { epoch.write_only().encode(&mut out) } else { epoch.encode(&mut out) }
        }
        out
    }

    /// The epoch that new objects are encrypted with.
    pub fn current(&self) -> Arc<Epoch> {
        let epochs = self.read();
        let current = epochs.known.iter().find(|epoch| epoch.number() == epochs.current);
        current.expect("the current epoch is known").clone()
    }

    /// The epoch of this number, where these keys hold it.
    pub fn epoch(&self, number: u32) -> Option<Arc<Epoch>> {
        self.read().known.iter().find(|epoch| epoch.number() == number).cloned()
    }

    /// Numbers of all epochs, in order.
    pub fn epochs(&self) -> Vec<u32> {
        self.read().known.iter().map(|epoch| epoch.number()).collect()
    }

    /// Whether these keys can add to the repository and read nothing of it.
    pub fn is_write_only(&self) -> bool {
        !self.current().is_owned()
    }

    /// Takes in the epochs of `other` that are not known here; the current one stays. `false` where
    /// `other` is of another repository.
    pub fn learn(&self, other: &Self) -> bool {
        if self.master.0 != other.master.0 {
            return false;
        }
        let theirs = other.read().known.clone();
        let mut epochs = self.write();
        for epoch in theirs {
            if !epochs.known.iter().any(|known| known.number() == epoch.number()) {
                epochs.known.push(epoch);
            }
        }
        epochs.known.sort_by_key(|epoch| epoch.number());
        true
    }

    /// Encrypts with the epoch of this number from here on. `false` where it is not known.
    pub fn switch_to(&self, number: u32) -> bool {
        let mut epochs = self.write();
        let is_known = epochs.known.iter().any(|epoch| epoch.number() == number);
        if is_known {
            epochs.current = number;
        }
        is_known
    }

    /// The same, but never back to an older one.
    pub fn advance_to(&self, number: u32) {
        if number > self.read().current {
            self.switch_to(number);
        }
    }

    /// Forgets one epoch, unless it is the only one.
    pub fn forget(&self, number: u32) {
        let mut epochs = self.write();
        if epochs.known.len() > 1 {
            epochs.known.retain(|epoch| epoch.number() != number);
        }
        if epochs.current == number {
            epochs.current = epochs.known[0].number();
        }
    }

    /// Takes an epoch back in; the current one stays.
    pub fn restore(&self, epoch: Arc<Epoch>) {
        let mut epochs = self.write();
        epochs.known.push(epoch);
        epochs.known.sort_by_key(|epoch| epoch.number());
    }

    /// A copy of these keys.
    pub fn copy(&self) -> Self {
        let bytes = self.encode(self.is_write_only());
        let copy = Self::decode(&bytes).expect("written just now");
        copy.switch_to(self.read().current);
        copy
    }

    /// Adds an epoch and makes it the current one.
    pub fn begin(&self, epoch: Epoch) {
        let mut epochs = self.write();
        epochs.current = epoch.number();
        epochs.known.retain(|known| known.number() != epoch.number());
        epochs.known.push(Arc::new(epoch));
    }

    /// Forgets the epochs before this number.
    pub fn forget_before(&self, number: u32) {
        let mut epochs = self.write();
        let current = epochs.current;
        epochs.known.retain(|epoch| epoch.number() >= number.min(current));
    }

    fn read(&self) -> RwLockReadGuard<'_, Epochs> {
        self.epochs.read().expect("no panics here")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Epochs> {
        self.epochs.write().expect("no panics here")
    }

    /// The id of a blob with these plain bytes.
    pub fn chunk_id(&self, kind: BlobKind, plain: &[u8]) -> ChunkId {
        let key = match kind {
            BlobKind::Data => &self.fixed.data_id,
            BlobKind::Tree => &self.fixed.tree_id,
        };
        ChunkId(*blake3::keyed_hash(key, plain).as_bytes())
    }

    /// The key of a group of chunks, made of the keys of its members in their order. The members
    /// prove its bytes.
    pub fn group_key(&self, members: impl Iterator<Item = ChunkKey>) -> ChunkKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.fixed.group);
        members.for_each(|member| {
            hasher.update(member.as_bytes());
        });
        ChunkId(*hasher.finalize().as_bytes()).key()
    }

    /// The key that the chunker's gear table is made from.
    pub fn gear_key(&self) -> &[u8; 32] {
        &self.fixed.gear
    }

    /// Authentication code of the repository's configuration.
    pub fn config_mac(&self, text: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.fixed.config, text)
    }

    /// Authentication code of the report of a drill.
    pub fn report_mac(&self, text: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.fixed.report, text)
    }

    /// A salt for a new object: a keyed hash of randomness **and** of all that the object will hold.
    /// Where a generator repeats itself (a cloned virtual machine), objects with different content
    /// still get different salts, hence different keys, and no nonce is used twice.
    pub fn object_salt(&self, entropy: &dyn Entropy, content: &[&[u8]]) -> [u8; 32] {
        let fresh = Zeroizing::new(random::<32>(entropy));
        let mut hasher = blake3::Hasher::new_keyed(&self.fixed.salt);
        hasher.update(&*fresh);
        for part in content {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Constant;
    impl Entropy for Constant {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    fn ring(seed: u8) -> KeyRing {
        let epoch = Epoch::from_secret(0, &[seed + 100; 32]);
        KeyRing::new(MasterKey::from_bytes([seed; 32]), vec![epoch]).unwrap()
    }

    #[test]
    fn keys_come_back_as_they_were_written_and_write_only_ones_own_nothing() {
        let keys = ring(1);
        keys.begin(Epoch::from_secret(9, &[7; 32]));
        let again = KeyRing::decode(&keys.encode(false)).unwrap();
        assert_eq!((again.epochs(), again.current().number()), (vec![0, 9], 0));
        assert!(again.switch_to(9) && !again.switch_to(3) && !again.is_write_only());
        assert_eq!(again.current().log, keys.current().log);

        let writer = KeyRing::decode(&keys.encode(true)).unwrap();
        assert!(writer.switch_to(9) && writer.is_write_only());
        assert_eq!(writer.current().public, keys.current().public);
        assert!(writer.current().authority(1, b"entry").is_none());
        let written = writer.encode(true);
        assert!(!written.windows(32).any(|bytes| bytes == [7; 32]));
        assert_eq!(KeyRing::decode(&writer.encode(false)).unwrap().encode(false), written);

        keys.forget_before(9);
        assert_eq!(keys.epochs(), [9]);
    }

    #[test]
    fn cut_or_strange_keys_are_refused() {
        let keys = ring(1).encode(false);
        for length in 0..keys.len() {
            assert!(KeyRing::decode(&keys[..length]).is_err(), "{length}");
        }
        let mut strange = keys.to_vec();
        strange[36] = 2;
        assert!(KeyRing::decode(&strange).is_err());
    }

    #[test]
    fn ids_differ_by_kind_and_repository() {
        let (one, two) = (ring(1), ring(2));
        let id = one.chunk_id(BlobKind::Data, b"x");
        assert_ne!(id, one.chunk_id(BlobKind::Tree, b"x"));
        assert_ne!(id, two.chunk_id(BlobKind::Data, b"x"));
        assert_eq!(id, one.chunk_id(BlobKind::Data, b"x"));
    }

    #[test]
    fn salts_differ_for_different_content_under_a_constant_generator() {
        let keys = ring(1);
        let salt = |parts: &[&[u8]]| keys.object_salt(&Constant, parts);
        assert_ne!(salt(&[b"a"]), salt(&[b"b"]));
        assert_ne!(salt(&[b"ab", b"c"]), salt(&[b"a", b"bc"]));
        assert_eq!(salt(&[b"a"]), salt(&[b"a"]));
    }
}
