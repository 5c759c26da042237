//! The master key and the keys derived from it, one for each purpose.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::entropy::{Entropy, random};
use crate::id::ChunkId;
use crate::id::ChunkKey;

/// The one secret of a repository; every slot in `keys/` wraps it.
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

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
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

/// The keys of a repository by purpose, derived from the master key with BLAKE3's `derive_key`.
#[derive(ZeroizeOnDrop)]
pub struct KeyRing {
    data_id: [u8; 32],
    tree_id: [u8; 32],
    group: [u8; 32],
    gear: [u8; 32],
    config: [u8; 32],
    salt: [u8; 32],
    pub(super) objects: [u8; 32],
}

impl KeyRing {
    /// Derives all keys.
    pub fn derive(master: &MasterKey) -> Self {
        let derive = |purpose: &str| {
            blake3::derive_key(&format!("restow 2026-11 format 1 {purpose}"), master.as_bytes())
        };
        Self {
            data_id: derive("chunk id: data"),
            tree_id: derive("chunk id: tree"),
            group: derive("group key"),
            gear: derive("gear table"),
            config: derive("config authentication"),
            salt: derive("object salt"),
            objects: derive("object keys"),
        }
    }

    /// The id of a blob with these plain bytes.
    pub fn chunk_id(&self, kind: BlobKind, plain: &[u8]) -> ChunkId {
        let key = match kind {
            BlobKind::Data => &self.data_id,
            BlobKind::Tree => &self.tree_id,
        };
        ChunkId(*blake3::keyed_hash(key, plain).as_bytes())
    }

    /// The key of a group of chunks, made of the keys of its members in their order. The members
    /// prove its bytes.
    pub fn group_key(&self, members: impl Iterator<Item = ChunkKey>) -> ChunkKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.group);
        members.for_each(|member| {
            hasher.update(member.as_bytes());
        });
        ChunkId(*hasher.finalize().as_bytes()).key()
    }

    /// The key that the chunker's gear table is made from.
    pub fn gear_key(&self) -> &[u8; 32] {
        &self.gear
    }

    /// Authentication code of the repository's configuration.
    pub fn config_mac(&self, text: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.config, text)
    }

    /// A salt for a new object: a keyed hash of randomness **and** of all that the object will hold.
    /// Where a generator repeats itself (a cloned virtual machine), objects with different content
    /// still get different salts, hence different keys, and no nonce is used twice.
    pub fn object_salt(&self, entropy: &dyn Entropy, content: &[&[u8]]) -> [u8; 32] {
        let fresh = Zeroizing::new(random::<32>(entropy));
        let mut hasher = blake3::Hasher::new_keyed(&self.salt);
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

    #[test]
    fn ids_differ_by_kind_and_repository() {
        let one = KeyRing::derive(&MasterKey::from_bytes([1; 32]));
        let two = KeyRing::derive(&MasterKey::from_bytes([2; 32]));
        let id = one.chunk_id(BlobKind::Data, b"x");
        assert_ne!(id, one.chunk_id(BlobKind::Tree, b"x"));
        assert_ne!(id, two.chunk_id(BlobKind::Data, b"x"));
        assert_eq!(id, one.chunk_id(BlobKind::Data, b"x"));
    }

    #[test]
    fn salts_differ_for_different_content_under_a_constant_generator() {
        let keys = KeyRing::derive(&MasterKey::from_bytes([1; 32]));
        let salt = |parts: &[&[u8]]| keys.object_salt(&Constant, parts);
        assert_ne!(salt(&[b"a"]), salt(&[b"b"]));
        assert_ne!(salt(&[b"ab", b"c"]), salt(&[b"a", b"bc"]));
        assert_eq!(salt(&[b"a"]), salt(&[b"a"]));
    }
}
