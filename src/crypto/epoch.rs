//! Epochs: the keys that objects are encrypted with, which can be replaced while the repository is in
//! use. Each epoch has a secret of its own, and from it
//!
//! * a key for packs, idx objects and snapshots, and one for log entries;
//! * a key that proves which log entries come from somebody who may do more than add;
//! * an X25519 key pair (RFC 7748): what is sealed to its public half can be read by owners alone.
//!
//! A **write-only** key holds the log key and the public half of an epoch and nothing else of it.

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::CryptoError;
use crate::entropy::{Entropy, random};

/// Length of an owner's part of an epoch when written down: number, kind, secret.
const OWNER_LEN: usize = 4 + 1 + 32;
/// The same of a write-only part: number, kind, log key, public half.
const WRITER_LEN: usize = 4 + 1 + 64;

/// The keys of one epoch, as far as their holder may have them.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Epoch {
    number: u32,
    pub(super) log: [u8; 32],
    #[zeroize(skip)]
    pub(super) public: PublicKey,
    pub(super) owned: Option<Owned>,
}

/// What only owners hold.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Owned {
    secret: [u8; 32],
    pub(super) objects: [u8; 32],
    authority: [u8; 32],
    // It wipes itself.
    #[zeroize(skip)]
    pub(super) sealing: StaticSecret,
}

impl Epoch {
    /// A fresh epoch.
    pub fn generate(number: u32, entropy: &dyn Entropy) -> Self {
        Self::from_secret(number, &random(entropy))
    }

    /// The epoch with this secret.
    pub fn from_secret(number: u32, secret: &[u8; 32]) -> Self {
        let derive = |purpose: &str| {
            blake3::derive_key(&format!("restow 2026-11 format 1 {purpose}"), secret)
        };
        let sealing = StaticSecret::from(derive("sealed objects"));
        let owned = Owned {
            secret: *secret,
            objects: derive("object keys"),
            authority: derive("log authority"),
            sealing: sealing.clone(),
        };
        let public = PublicKey::from(&sealing);
        Self { number, log: derive("log keys"), public, owned: Some(owned) }
    }

    /// Its number: that of the log entry that began it; 0 for the first.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether its holder may read and change everything.
    pub fn is_owned(&self) -> bool {
        self.owned.is_some()
    }

    /// Whether these are the same keys.
    pub fn is_same(&self, other: &Self) -> bool {
        self.number == other.number && self.public == other.public && self.log == other.log
    }

    /// The part of it that may only write.
    pub fn write_only(&self) -> Self {
        Self { owned: None, ..self.clone() }
    }

    /// Proof that whoever wrote this entry of the log may do more than add. `None` for those who
    /// may not.
    pub fn authority(&self, number: u64, entry: &[u8]) -> Option<[u8; 32]> {
        let owned = self.owned.as_ref()?;
        let mut hasher = blake3::Hasher::new_keyed(&owned.authority);
        hasher.update(b"log").update(&number.to_le_bytes()).update(entry);
        Some(*hasher.finalize().as_bytes())
    }

    /// Proof that an owner made a key slot. `None` for those who are none.
    pub fn slot_proof(&self, slot: &[u8]) -> Option<[u8; 32]> {
        let owned = self.owned.as_ref()?;
        let mut hasher = blake3::Hasher::new_keyed(&owned.authority);
        hasher.update(b"slot").update(slot);
        Some(*hasher.finalize().as_bytes())
    }

    /// Proof, by an owner of this epoch, that the next one begins with this entry of the log. `None` for
    /// those who are none.
    pub fn next_proof(&self, next: &Self, entry: &[u8]) -> Option<[u8; 32]> {
        let owned = self.owned.as_ref()?;
        let mut hasher = blake3::Hasher::new_keyed(&owned.authority);
        hasher.update(b"next").update(&next.number.to_le_bytes());
        hasher.update(next.public.as_bytes()).update(entry);
        Some(*hasher.finalize().as_bytes())
    }

    /// The key under which owners of this epoch find the bond of a slot. `None` for those who are none.
    pub fn slot_key(&self, slot: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        let owned = self.owned.as_ref()?;
        let mut hasher = blake3::Hasher::new_keyed(&owned.authority);
        hasher.update(b"bond").update(slot);
        Some(Zeroizing::new(*hasher.finalize().as_bytes()))
    }

    /// Writes the epoch down, to be wrapped in a key slot.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_le_bytes());
        match &self.owned {
            Some(owned) => {
                out.push(0);
                out.extend_from_slice(&owned.secret);
            }
            None => {
                out.push(1);
                out.extend_from_slice(&self.log);
                out.extend_from_slice(self.public.as_bytes());
            }
        }
    }

    /// Reads one epoch from the front of `bytes`.
    pub(super) fn decode(bytes: &mut &[u8]) -> Result<Self, CryptoError> {
        let malformed = CryptoError::Malformed("keys in a slot");
        let kind = *bytes.get(4).ok_or(malformed)?;
        let length = if kind == 0 { OWNER_LEN } else { WRITER_LEN };
        let (part, rest) =
            bytes.split_at_checked(length).ok_or(CryptoError::Malformed("keys in a slot"))?;
        *bytes = rest;
        let number = u32::from_le_bytes(*part.first_chunk().expect("at least five bytes"));
        let key = |at: usize| -> Zeroizing<[u8; 32]> {
            Zeroizing::new(part[at..at + 32].try_into().expect("32 bytes"))
        };
        match kind {
            0 => Ok(Self::from_secret(number, &key(5))),
            1 => {
                let public = PublicKey::from(*key(37));
                Ok(Self { number, log: *key(5), public, owned: None })
            }
            _ => Err(CryptoError::Malformed("keys in a slot: a newer restow wrote this")),
        }
    }
}
