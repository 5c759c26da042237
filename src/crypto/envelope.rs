//! The header that opens every encrypted object, and the sealing of small objects as a whole.
//!
//! ```text
//! offset  0  4  magic "RSTW"
//!         4  1  kind          1 pack, 2 idx, 3 snapshot, 4 log entry
//!         5  1  version       1
//!         6  1  cipher suite  1 = BLAKE3 key derivation, ChaCha20-Poly1305
//!         7  1  flags         bit 0: sealed to the public key of the epoch
//!         8  4  key epoch     little endian; 0 until keys are rotated
//!        12 32  salt; where sealed, the ephemeral X25519 public key
//!        44 16  key commitment
//!        60     small objects: ciphertext, then a 16-byte tag; packs: see `format::pack`
//! ```
//! The object's key and its commitment are 48 bytes of BLAKE3 output keyed with the object key of the
//! epoch (for log entries: its log key) over kind, epoch and salt. Where sealed, they are 48 bytes of
//! BLAKE3 output keyed with the X25519 shared secret over kind, epoch and both public keys. The
//! commitment is compared before anything is decrypted, which rules out partitioning oracles (Len,
//! Grubbs, Ristenpart, USENIX Security 2021).

use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::CryptoError;
use super::aead::{ObjectCipher, TAG_LEN};
use super::epoch::Epoch;
use super::keys::KeyRing;
use crate::entropy::Entropy;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 60;
const MAGIC: &[u8; 4] = b"RSTW";
const VERSION: u8 = 1;
const SUITE: u8 = 1;
const SEALED: u8 = 1;

/// What an encrypted object is; part of its key derivation, so that one never opens as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectKind {
    /// A pack of blobs.
    Pack = 1,
    /// What is in which pack.
    Index = 2,
    /// A snapshot manifest.
    Snapshot = 3,
    /// An entry of the commit log.
    Log = 4,
}

/// The header of an object, parsed or about to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    kind: ObjectKind,
    is_sealed: bool,
    epoch: u32,
    salt: [u8; 32],
    commitment: [u8; 16],
}

impl Header {
    /// The header of a new object with this salt (see [`KeyRing::object_salt`]). Those who may only
    /// write seal packs, idx objects and snapshots to the public key.
    pub fn new(keys: &KeyRing, kind: ObjectKind, salt: [u8; 32]) -> (Self, ObjectCipher) {
        let epoch = keys.current();
        let number = epoch.number();
        let (is_sealed, salt, (key, commitment)) = match symmetric_key(&epoch, kind) {
            Some(key) => (false, salt, derive(key, kind, number, &[&salt])),
            None => {
                let ephemeral = StaticSecret::from(salt);
                let public = PublicKey::from(&ephemeral).to_bytes();
                let shared = ephemeral.diffie_hellman(&epoch.public);
                let both = [&public, epoch.public.as_bytes()];
                (true, public, derive(shared.as_bytes(), kind, number, &both))
            }
        };
        (Self { kind, is_sealed, epoch: number, salt, commitment }, ObjectCipher::new(&key))
    }

    /// Number of the epoch whose keys it is encrypted with.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether it was written by somebody who may only write.
    pub fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Parses the first [`HEADER_LEN`] bytes of an object that should be of `kind`.
    pub fn parse(bytes: &[u8], kind: ObjectKind) -> Result<Self, CryptoError> {
        let header: &[u8; HEADER_LEN] =
            bytes.first_chunk().ok_or(CryptoError::Malformed("shorter than a header"))?;
        if &header[..4] != MAGIC {
            return Err(CryptoError::Malformed("not a restow object"));
        }
        if header[4] != kind as u8 {
            return Err(CryptoError::Malformed("an object of another kind"));
        }
        let is_sealed = header[7] == SEALED && kind != ObjectKind::Log;
        let flags = if is_sealed { SEALED } else { 0 };
        for (what, at, known) in
            [("version", 5, VERSION), ("cipher suite", 6, SUITE), ("flags", 7, flags)]
        {
            if header[at] != known {
                return Err(CryptoError::Unsupported { what, found: header[at].into() });
            }
        }
        let epoch = u32::from_le_bytes(header[8..12].try_into().expect("four bytes"));
        let salt = header[12..44].try_into().expect("32 bytes");
        let commitment = header[44..60].try_into().expect("16 bytes");
        Ok(Self { kind, is_sealed, epoch, salt, commitment })
    }

    /// The bytes of this header.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..8].copy_from_slice(&[self.kind as u8, VERSION, SUITE, self.is_sealed.into()]);
        bytes[8..12].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[12..44].copy_from_slice(&self.salt);
        bytes[44..60].copy_from_slice(&self.commitment);
        bytes
    }

    /// The cipher of this object, once its commitment proves that `keys` are the right ones.
    pub fn cipher(&self, keys: &KeyRing) -> Result<ObjectCipher, CryptoError> {
        let epoch = keys.epoch(self.epoch).ok_or(CryptoError::UnknownEpoch(self.epoch))?;
        let (key, commitment) = if self.is_sealed {
            let owned = epoch.owned.as_ref().ok_or(CryptoError::WriteOnly)?;
            let shared = owned.sealing.diffie_hellman(&PublicKey::from(self.salt));
            let both = [&self.salt, epoch.public.as_bytes()];
            derive(shared.as_bytes(), self.kind, self.epoch, &both)
        } else {
            let key = symmetric_key(&epoch, self.kind).ok_or(CryptoError::WriteOnly)?;
            derive(key, self.kind, self.epoch, &[&self.salt])
        };
        if bool::from(commitment.ct_eq(&self.commitment)) {
            Ok(ObjectCipher::new(&key))
        } else {
            Err(CryptoError::NotAuthentic)
        }
    }
}

/// The key for objects of a kind that this epoch shares with everybody who reads them; `None` for
/// what its holder may not read.
fn symmetric_key(epoch: &Epoch, kind: ObjectKind) -> Option<&[u8; 32]> {
    match kind {
        ObjectKind::Log => Some(&epoch.log),
        _ => epoch.owned.as_ref().map(|owned| &owned.objects),
    }
}

fn derive(
    secret: &[u8; 32],
    kind: ObjectKind,
    epoch: u32,
    public: &[&[u8; 32]],
) -> (Zeroizing<[u8; 32]>, [u8; 16]) {
    let mut output = Zeroizing::new([0; 48]);
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(&[kind as u8]).update(&epoch.to_le_bytes());
    for part in public {
        hasher.update(*part);
    }
    hasher.finalize_xof().fill(&mut *output);
    let key = Zeroizing::new(*output.first_chunk().expect("48 bytes"));
    (key, *output.last_chunk().expect("48 bytes"))
}

/// Seals a whole small object. `context` (a log entry's number, or nothing) is authenticated too.
pub fn seal(
    keys: &KeyRing,
    entropy: &dyn Entropy,
    kind: ObjectKind,
    context: &[u8],
    plain: &[u8],
) -> Vec<u8> {
    let salt = keys.object_salt(entropy, &[&[kind as u8], context, plain]);
    let (header, cipher) = Header::new(keys, kind, salt);
    let mut stored = Vec::with_capacity(HEADER_LEN + plain.len() + TAG_LEN);
    stored.extend_from_slice(&header.to_bytes());
    let associated = [&stored[..], context].concat();
    cipher.seal_into(0, &associated, plain, &mut stored);
    stored
}

/// Opens what [`seal`] made.
pub fn open(
    keys: &KeyRing,
    kind: ObjectKind,
    context: &[u8],
    stored: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let header = Header::parse(stored, kind)?;
    let cipher = header.cipher(keys)?;
    let associated = [&stored[..HEADER_LEN], context].concat();
    let mut text = stored[HEADER_LEN..].to_vec();
    let length = cipher.open_in_place(0, &associated, &mut text)?.len();
    text.truncate(length);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::MasterKey;
    use crate::entropy::OsEntropy;

    fn keys(seed: u8) -> KeyRing {
        let epoch = Epoch::from_secret(0, &[seed; 32]);
        KeyRing::new(MasterKey::from_bytes([seed; 32]), vec![epoch]).unwrap()
    }

    fn write_only(seed: u8) -> KeyRing {
        let epoch = Epoch::from_secret(0, &[seed; 32]).write_only();
        KeyRing::new(MasterKey::from_bytes([seed; 32]), vec![epoch]).unwrap()
    }

    #[test]
    fn write_only_keys_write_what_owners_alone_read() {
        for kind in [ObjectKind::Pack, ObjectKind::Index, ObjectKind::Snapshot] {
            let stored = seal(&write_only(1), &OsEntropy, kind, b"", b"content");
            assert_eq!(open(&keys(1), kind, b"", &stored).unwrap(), b"content");
            assert_eq!(open(&write_only(1), kind, b"", &stored), Err(CryptoError::WriteOnly));
            assert_eq!(open(&keys(2), kind, b"", &stored), Err(CryptoError::NotAuthentic));
            let owned = seal(&keys(1), &OsEntropy, kind, b"", b"content");
            assert_eq!(open(&write_only(1), kind, b"", &owned), Err(CryptoError::WriteOnly));
            for at in 0..stored.len() {
                let mut bad = stored.clone();
                bad[at] ^= 1;
                assert!(open(&keys(1), kind, b"", &bad).is_err(), "byte {at}");
            }
        }
        let entry = seal(&write_only(1), &OsEntropy, ObjectKind::Log, b"7", b"entry");
        assert_eq!(open(&keys(1), ObjectKind::Log, b"7", &entry).unwrap(), b"entry");
    }

    #[test]
    fn each_epoch_opens_what_was_sealed_in_it() {
        let rotated = keys(1);
        let before = seal(&rotated, &OsEntropy, ObjectKind::Index, b"", b"before");
        rotated.begin(Epoch::from_secret(5, &[9; 32]));
        let after = seal(&rotated, &OsEntropy, ObjectKind::Index, b"", b"after");
        assert_eq!(Header::parse(&after, ObjectKind::Index).unwrap().epoch(), 5);
        assert_eq!(open(&rotated, ObjectKind::Index, b"", &before).unwrap(), b"before");
        assert_eq!(open(&rotated, ObjectKind::Index, b"", &after).unwrap(), b"after");
        let unknown = open(&keys(1), ObjectKind::Index, b"", &after);
        assert_eq!(unknown, Err(CryptoError::UnknownEpoch(5)));
    }

    #[test]
    fn round_trips_under_its_own_keys_kind_and_context_only() {
        let stored = seal(&keys(1), &OsEntropy, ObjectKind::Log, b"7", b"entry");
        assert_eq!(open(&keys(1), ObjectKind::Log, b"7", &stored).unwrap(), b"entry");
        assert!(open(&keys(1), ObjectKind::Log, b"8", &stored).is_err());
        assert!(open(&keys(1), ObjectKind::Index, b"7", &stored).is_err());
        assert_eq!(open(&keys(2), ObjectKind::Log, b"7", &stored), Err(CryptoError::NotAuthentic));
    }

    #[test]
    fn every_flipped_or_missing_byte_is_noticed() {
        let stored = seal(&keys(1), &OsEntropy, ObjectKind::Snapshot, b"", b"manifest");
        for at in 0..stored.len() {
            let mut bad = stored.clone();
            bad[at] ^= 0x40;
            assert!(open(&keys(1), ObjectKind::Snapshot, b"", &bad).is_err(), "byte {at}");
            assert!(open(&keys(1), ObjectKind::Snapshot, b"", &stored[..at]).is_err());
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut stored = seal(&keys(1), &OsEntropy, ObjectKind::Snapshot, b"", b"manifest");
        stored[5] = 9;
        let error = open(&keys(1), ObjectKind::Snapshot, b"", &stored).unwrap_err();
        assert_eq!(error, CryptoError::Unsupported { what: "version", found: 9 });
    }
}
