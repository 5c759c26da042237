//! The header that opens every encrypted object, and the sealing of small objects as a whole.
//!
//! ```text
//! offset  0  4  magic "RSTW"
//!         4  1  kind          1 pack, 2 idx, 3 snapshot, 4 log entry
//!         5  1  version       1
//!         6  1  cipher suite  1 = BLAKE3 key derivation, ChaCha20-Poly1305
//!         7  1  flags         0; reserved (bit 0: sealed to a public key)
//!         8  4  key epoch     little endian; 0 until keys are rotated
//!        12 32  salt
//!        44 16  key commitment
//!        60     small objects: ciphertext, then a 16-byte tag; packs: see `format::pack`
//! ```
//! The object's key and its commitment are 48 bytes of BLAKE3 output keyed with the object key of
//! the repository over kind, epoch and salt. The commitment is compared before anything is
//! decrypted, which rules out partitioning oracles (Len, Grubbs, Ristenpart, USENIX Security 2021).

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::CryptoError;
use super::aead::{ObjectCipher, TAG_LEN};
use super::keys::KeyRing;
use crate::entropy::Entropy;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 60;
const MAGIC: &[u8; 4] = b"RSTW";
const VERSION: u8 = 1;
const SUITE: u8 = 1;

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
    epoch: u32,
    salt: [u8; 32],
    commitment: [u8; 16],
}

impl Header {
    /// The header of a new object with this salt (see [`KeyRing::object_salt`]).
    pub fn new(keys: &KeyRing, kind: ObjectKind, salt: [u8; 32]) -> (Self, ObjectCipher) {
        let epoch = 0;
        let (key, commitment) = derive(keys, kind, epoch, &salt);
        (Self { kind, epoch, salt, commitment }, ObjectCipher::new(&key))
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
        for (what, at, known) in
            [("version", 5, VERSION), ("cipher suite", 6, SUITE), ("flags", 7, 0)]
        {
            if header[at] != known {
                return Err(CryptoError::Unsupported { what, found: header[at].into() });
            }
        }
        let epoch = u32::from_le_bytes(header[8..12].try_into().expect("four bytes"));
        let salt = header[12..44].try_into().expect("32 bytes");
        let commitment = header[44..60].try_into().expect("16 bytes");
        Ok(Self { kind, epoch, salt, commitment })
    }

    /// The bytes of this header.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..8].copy_from_slice(&[self.kind as u8, VERSION, SUITE, 0]);
        bytes[8..12].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[12..44].copy_from_slice(&self.salt);
        bytes[44..60].copy_from_slice(&self.commitment);
        bytes
    }

    /// The cipher of this object, once its commitment proves that `keys` are the right ones.
    pub fn cipher(&self, keys: &KeyRing) -> Result<ObjectCipher, CryptoError> {
        let (key, commitment) = derive(keys, self.kind, self.epoch, &self.salt);
        if bool::from(commitment.ct_eq(&self.commitment)) {
            Ok(ObjectCipher::new(&key))
        } else {
            Err(CryptoError::NotAuthentic)
        }
    }
}

fn derive(
    keys: &KeyRing,
    kind: ObjectKind,
    epoch: u32,
    salt: &[u8; 32],
) -> (Zeroizing<[u8; 32]>, [u8; 16]) {
    let mut output = Zeroizing::new([0; 48]);
    blake3::Hasher::new_keyed(&keys.objects)
        .update(&[kind as u8])
        .update(&epoch.to_le_bytes())
        .update(salt)
        .finalize_xof()
        .fill(&mut *output);
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
        KeyRing::derive(&MasterKey::from_bytes([seed; 32]))
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
