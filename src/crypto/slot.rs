//! Key slots: the master key, wrapped under a password (Argon2id, RFC 9106) or a random key file.
//!
//! A slot is a JSON text in `keys/`; everything but the wrapped key may be read by anyone.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::CryptoError;
use super::aead::ObjectCipher;
use super::keys::MasterKey;
use crate::entropy::{Entropy, random};

/// What a person or a machine opens a repository with.
pub enum Secret {
    /// A password, stretched with Argon2id.
    Password(Zeroizing<Vec<u8>>),
    /// The content of a key file of at least 32 random bytes; not stretched.
    KeyFile(Zeroizing<Vec<u8>>),
}

/// How a slot's secret becomes a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Kdf {
    /// Argon2id version 0x13.
    Argon2id {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
    /// BLAKE3 key derivation, for secrets that are random already.
    KeyFile,
}

impl Kdf {
    /// RFC 9106's second recommended choice, for passwords.
    pub const PASSWORD: Self = Self::Argon2id { memory_kib: 64 << 10, passes: 3, lanes: 4 };
    /// OWASP's minimum for Argon2id (19 MiB); weaker slots are refused.
    const MIN_MEMORY_KIB: u32 = 19 << 10;
    /// A hostile slot must not take all of the machine's memory or time.
    const MAX_MEMORY_KIB: u32 = 4 << 20;
    const MAX_PASSES: u32 = 64;

    fn check(&self) -> Result<(), CryptoError> {
        match self {
            Self::KeyFile => Ok(()),
            Self::Argon2id { memory_kib, .. } if *memory_kib < Self::MIN_MEMORY_KIB => {
                Err(CryptoError::Malformed("Argon2id memory below 19 MiB"))
            }
            Self::Argon2id { memory_kib, passes, lanes }
                if *memory_kib > Self::MAX_MEMORY_KIB
                    || *passes > Self::MAX_PASSES
                    || *lanes > 64 =>
            {
                Err(CryptoError::Malformed("Argon2id parameters above what this program accepts"))
            }
            Self::Argon2id { .. } => Ok(()),
        }
    }
}

/// One slot of `keys/`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Slot {
    /// Format version, 1.
    pub version: u32,
    /// How the wrapping key is made.
    pub kdf: Kdf,
    /// Name that a person gave this slot.
    pub label: String,
    /// When it was made, RFC 3339.
    pub created: jiff::Timestamp,
    #[serde(with = "hex::serde")]
    salt: [u8; 32],
    #[serde(with = "hex::serde")]
    commitment: [u8; 32],
    #[serde(with = "hex::serde")]
    wrapped: Vec<u8>,
}

impl Slot {
    /// Wraps `master` under `secret`.
    pub fn wrap(
        master: &MasterKey,
        secret: &Secret,
        kdf: Kdf,
        label: &str,
        created: jiff::Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Self, CryptoError> {
        let salt = random(entropy);
        let (key, commitment) = stretch(secret, &kdf, &salt)?;
        let mut wrapped = Vec::new();
        ObjectCipher::new(&key).seal_into(0, &salt, master.as_bytes(), &mut wrapped);
        Ok(Self { version: 1, kdf, label: label.to_owned(), created, salt, commitment, wrapped })
    }

    /// Whether `secret` is of the kind that this slot takes.
    pub fn takes(&self, secret: &Secret) -> bool {
        matches!(
            (&self.kdf, secret),
            (Kdf::Argon2id { .. }, Secret::Password(_)) | (Kdf::KeyFile, Secret::KeyFile(_))
        )
    }

    /// The master key, or `NotAuthentic` where `secret` is not this slot's.
    pub fn unwrap_master(&self, secret: &Secret) -> Result<MasterKey, CryptoError> {
        if self.version != 1 {
            return Err(CryptoError::Unsupported { what: "key slot version", found: self.version });
        }
        let (key, commitment) = stretch(secret, &self.kdf, &self.salt)?;
        if !bool::from(commitment.ct_eq(&self.commitment)) {
            return Err(CryptoError::NotAuthentic);
        }
        let mut wrapped = Zeroizing::new(self.wrapped.clone());
        let plain = ObjectCipher::new(&key).open_in_place(0, &self.salt, &mut wrapped)?;
        let bytes =
            (&*plain).try_into().map_err(|_| CryptoError::Malformed("wrapped key length"))?;
        Ok(MasterKey::from_bytes(bytes))
    }
}

/// Key and commitment from a secret: 64 bytes, split in two.
fn stretch(
    secret: &Secret,
    kdf: &Kdf,
    salt: &[u8; 32],
) -> Result<(Zeroizing<[u8; 32]>, [u8; 32]), CryptoError> {
    kdf.check()?;
    let mut output = Zeroizing::new([0; 64]);
    match (kdf, secret) {
        (Kdf::Argon2id { memory_kib, passes, lanes }, Secret::Password(password)) => {
            let params = Params::new(*memory_kib, *passes, *lanes, Some(64))
                .map_err(|_| CryptoError::Malformed("Argon2id parameters"))?;
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(password, salt, &mut *output)
                .map_err(|_| CryptoError::Malformed("Argon2id input"))?;
        }
        (Kdf::KeyFile, Secret::KeyFile(content)) => {
            let mut hasher =
                blake3::Hasher::new_derive_key("restow 2026-11 format 1 key file slot");
            hasher.update(salt).update(content).finalize_xof().fill(&mut *output);
        }
        _ => return Err(CryptoError::NotAuthentic),
    }
    let key = Zeroizing::new(*output.first_chunk().expect("64 bytes"));
    Ok((key, *output.last_chunk().expect("64 bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::OsEntropy;

    const FAST: Kdf = Kdf::Argon2id { memory_kib: 19 << 10, passes: 1, lanes: 1 };

    fn password(text: &str) -> Secret {
        Secret::Password(Zeroizing::new(text.into()))
    }

    fn slot(secret: &Secret, kdf: Kdf) -> Slot {
        let master = MasterKey::from_bytes([5; 32]);
        Slot::wrap(&master, secret, kdf, "", jiff::Timestamp::UNIX_EPOCH, &OsEntropy).unwrap()
    }

    #[test]
    fn opens_with_its_secret_only() {
        let slot = slot(&password("right"), FAST);
        assert_eq!(slot.unwrap_master(&password("right")).unwrap().as_bytes(), &[5; 32]);
        assert_eq!(slot.unwrap_master(&password("wrong")).err(), Some(CryptoError::NotAuthentic));
        let file = Secret::KeyFile(Zeroizing::new(b"right".to_vec()));
        assert!(!slot.takes(&file) && slot.unwrap_master(&file).is_err());
    }

    #[test]
    fn survives_json_and_notices_changes() {
        let file = Secret::KeyFile(Zeroizing::new(vec![1; 32]));
        let text = serde_json::to_string(&slot(&file, Kdf::KeyFile)).unwrap();
        let mut read: Slot = serde_json::from_str(&text).unwrap();
        assert!(read.unwrap_master(&file).is_ok());
        read.wrapped[3] ^= 1;
        assert!(read.unwrap_master(&file).is_err());
    }

    #[test]
    fn weak_and_monstrous_parameters_are_refused_before_work() {
        for memory_kib in [8, u32::MAX] {
            let mut bad = slot(&password("x"), FAST);
            bad.kdf = Kdf::Argon2id { memory_kib, passes: 1, lanes: 1 };
            assert!(matches!(bad.unwrap_master(&password("x")), Err(CryptoError::Malformed(_))));
        }
    }
}
