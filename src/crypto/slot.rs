//! Key slots: the keys of a repository, wrapped under a password (Argon2id, RFC 9106) or a random key
//! file.
//!
//! A slot is a JSON text in `keys/`; everything but the wrapped keys may be read by anyone. Each has an
//! X25519 public key too, whose private half follows from its secret: new keys can be put into a slot
//! by somebody who does not know its password. Not by anybody: they are encrypted under a **bond** as well,
//! a key that follows from the slot's secret and that owners find in the slot, encrypted for them. So
//! who opens a slot knows that the keys in it come from an owner. The proof in it shows that an
//! owner made it: nobody else can put a slot of their own there and wait for the next rotation to
//! be given the keys.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::CryptoError;
use super::aead::ObjectCipher;
use super::keys::KeyRing;
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

/// What the keys in a slot allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything.
    Owner,
    /// To add backups, and to read none.
    WriteOnly,
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
    /// What its keys allow.
    pub role: Role,
    #[serde(with = "hex::serde")]
    salt: [u8; 32],
    #[serde(with = "hex::serde")]
    commitment: [u8; 32],
    #[serde(with = "hex::serde")]
    public: [u8; 32],
    /// Where the keys are sealed to `public`, not wrapped under the secret itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ephemeral: Option<Ephemeral>,
    #[serde(with = "hex::serde")]
    wrapped: Vec<u8>,
    /// The bond, for owners of the epoch below.
    #[serde(with = "hex::serde")]
    bond: Vec<u8>,
    /// Epoch of the owner who made the proof.
    epoch: u32,
    #[serde(with = "hex::serde")]
    proof: [u8; 32],
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Ephemeral(#[serde(with = "hex::serde")] [u8; 32]);

/// What a slot's secret was stretched to: opens the slot again, also after its keys were replaced.
#[derive(Clone)]
pub struct SlotKey {
    key: Zeroizing<[u8; 32]>,
    commitment: [u8; 32],
    sealing: StaticSecret,
    bond: Zeroizing<[u8; 32]>,
}

impl Slot {
    /// Wraps `keys` under `secret`. Only owners can.
    pub fn wrap(
        keys: &KeyRing,
        role: Role,
        secret: &Secret,
        kdf: Kdf,
        label: &str,
        created: jiff::Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Self, CryptoError> {
        let salt = random(entropy);
        let SlotKey { key, commitment, sealing, bond } = stretch(secret, &kdf, &salt)?;
        let public = PublicKey::from(&sealing).to_bytes();
        let mut slot = Self {
            version: 1,
            kdf,
            label: label.to_owned(),
            created,
            role,
            salt,
            commitment,
            public,
            ephemeral: None,
            wrapped: Vec::new(),
            bond: Vec::new(),
            epoch: 0,
            proof: [0; 32],
        };
        slot.fill(keys, &key, &bond)?;
        Ok(slot)
    }

    /// The same slot with other keys in it, sealed to its public key under its bond. Only owners can;
    /// `old` are the keys that prove the slot.
    pub fn refilled(
        &self,
        old: &KeyRing,
        keys: &KeyRing,
        entropy: &dyn Entropy,
    ) -> Result<Self, CryptoError> {
        let ephemeral = StaticSecret::from(random::<32>(entropy));
        let mut slot = self.clone();
        slot.ephemeral = Some(Ephemeral(PublicKey::from(&ephemeral).to_bytes()));
        let shared = ephemeral.diffie_hellman(&PublicKey::from(self.public));
        let bond = self.find_bond(old)?;
        slot.fill(keys, &slot.sealed_key(shared.as_bytes(), &bond), &bond)?;
        Ok(slot)
    }

    /// The bond, as owners of the epoch that made the slot find it.
    fn find_bond(&self, keys: &KeyRing) -> Result<Zeroizing<[u8; 32]>, CryptoError> {
        let epoch = keys.epoch(self.epoch).ok_or(CryptoError::UnknownEpoch(self.epoch))?;
        let key = epoch.slot_key(&self.identity()).ok_or(CryptoError::WriteOnly)?;
        let mut sealed = Zeroizing::new(self.bond.clone());
        let plain = ObjectCipher::new(&key).open_in_place(0, &self.salt, &mut sealed)?;
        let bond = (&*plain).try_into().map_err(|_| CryptoError::Malformed("bond of a slot"))?;
        Ok(Zeroizing::new(bond))
    }

    /// What stays the same however often a slot is filled.
    fn identity(&self) -> [u8; 96] {
        let mut identity = [0; 96];
        identity[..32].copy_from_slice(&self.salt);
        identity[32..64].copy_from_slice(&self.commitment);
        identity[64..].copy_from_slice(&self.public);
        identity
    }

    /// A name that stays through rotations.
    pub fn lasting_name(&self) -> String {
        blake3::hash(&self.identity()).to_hex()[..16].to_owned()
    }

    fn fill(
        &mut self,
        keys: &KeyRing,
        key: &Zeroizing<[u8; 32]>,
        bond: &Zeroizing<[u8; 32]>,
    ) -> Result<(), CryptoError> {
        let plain = keys.encode(self.role == Role::WriteOnly);
        self.wrapped.clear();
        ObjectCipher::new(key).seal_into(0, &self.salt, &plain, &mut self.wrapped);
        let owner = keys.current();
        self.epoch = owner.number();
        let bond_key = owner.slot_key(&self.identity()).ok_or(CryptoError::WriteOnly)?;
        self.bond.clear();
        ObjectCipher::new(&bond_key).seal_into(0, &self.salt, &**bond, &mut self.bond);
        self.proof = owner.slot_proof(&self.unproven()).ok_or(CryptoError::WriteOnly)?;
        Ok(())
    }

    fn unproven(&self) -> Vec<u8> {
        let bare = Self { proof: [0; 32], ..self.clone() };
        serde_json::to_vec(&bare).expect("a slot is plain JSON")
    }

    /// Whether an owner made this slot, of an epoch that is still known.
    pub fn is_proven(&self, keys: &KeyRing) -> bool {
        let epoch = keys.epoch(self.epoch);
        let proof = epoch.and_then(|epoch| epoch.slot_proof(&self.unproven()));
        proof.is_some_and(|proof| proof.ct_eq(&self.proof).into())
    }

    fn sealed_key(&self, shared: &[u8; 32], bond: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let ephemeral = self.ephemeral.map_or([0; 32], |ephemeral| ephemeral.0);
        let mut hasher = blake3::Hasher::new_derive_key("restow 2026-11 format 1 sealed slot");
        hasher.update(shared).update(bond).update(&ephemeral).update(&self.public);
        Zeroizing::new(*hasher.finalize().as_bytes())
    }

    /// Whether `secret` is of the kind that this slot takes.
    pub fn takes(&self, secret: &Secret) -> bool {
        matches!(
            (&self.kdf, secret),
            (Kdf::Argon2id { .. }, Secret::Password(_)) | (Kdf::KeyFile, Secret::KeyFile(_))
        )
    }

    /// What `secret` is stretched to, or `NotAuthentic` where it is not this slot's.
    pub fn stretch(&self, secret: &Secret) -> Result<SlotKey, CryptoError> {
        if self.version != 1 {
            return Err(CryptoError::Unsupported { what: "key slot version", found: self.version });
        }
        let key = stretch(secret, &self.kdf, &self.salt)?;
        if !self.fits(&key) {
            return Err(CryptoError::NotAuthentic);
        }
        Ok(key)
    }

    /// Whether this is the slot that `key` was stretched for.
    pub fn fits(&self, key: &SlotKey) -> bool {
        key.commitment.ct_eq(&self.commitment).into()
    }

    /// The keys in the slot.
    pub fn open(&self, key: &SlotKey) -> Result<KeyRing, CryptoError> {
        if !self.fits(key) {
            return Err(CryptoError::NotAuthentic);
        }
        let wrapping = match self.ephemeral {
            None => key.key.clone(),
            Some(Ephemeral(public)) => {
                let shared = key.sealing.diffie_hellman(&PublicKey::from(public));
                self.sealed_key(shared.as_bytes(), &key.bond)
            }
        };
        let mut wrapped = Zeroizing::new(self.wrapped.clone());
        let plain = ObjectCipher::new(&wrapping).open_in_place(0, &self.salt, &mut wrapped)?;
        KeyRing::decode(plain)
    }
}

/// 128 bytes from a secret: wrapping key, commitment, X25519 private key, bond.
fn stretch(secret: &Secret, kdf: &Kdf, salt: &[u8; 32]) -> Result<SlotKey, CryptoError> {
    kdf.check()?;
    let mut output = Zeroizing::new([0; 128]);
    match (kdf, secret) {
        (Kdf::Argon2id { memory_kib, passes, lanes }, Secret::Password(password)) => {
            let params = Params::new(*memory_kib, *passes, *lanes, Some(128))
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
    let part = |at: usize| -> [u8; 32] { output[at..at + 32].try_into().expect("32 bytes") };
    let sealing = StaticSecret::from(part(64));
    let (key, bond) = (Zeroizing::new(part(0)), Zeroizing::new(part(96)));
    Ok(SlotKey { key, commitment: part(32), sealing, bond })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::epoch::Epoch;
    use crate::entropy::OsEntropy;

    const FAST: Kdf = Kdf::Argon2id { memory_kib: 19 << 10, passes: 1, lanes: 1 };

    fn password(text: &str) -> Secret {
        Secret::Password(Zeroizing::new(text.into()))
    }

    fn slot(keys: &KeyRing, role: Role, secret: &Secret, kdf: Kdf) -> Slot {
        Slot::wrap(keys, role, secret, kdf, "", jiff::Timestamp::UNIX_EPOCH, &OsEntropy).unwrap()
    }

    fn same(one: &KeyRing, other: &KeyRing) -> bool {
        one.encode(false) == other.encode(false)
    }

    #[test]
    fn opens_with_its_secret_only() {
        let keys = KeyRing::generate(&OsEntropy);
        let slot = slot(&keys, Role::Owner, &password("right"), FAST);
        let key = slot.stretch(&password("right")).unwrap();
        assert!(same(&slot.open(&key).unwrap(), &keys));
        assert_eq!(slot.stretch(&password("wrong")).err(), Some(CryptoError::NotAuthentic));
        let file = Secret::KeyFile(Zeroizing::new(b"right".to_vec()));
        assert!(!slot.takes(&file) && slot.stretch(&file).is_err());
    }

    #[test]
    fn takes_new_keys_without_its_secret_and_opens_with_it() {
        let keys = KeyRing::generate(&OsEntropy);
        let secret = password("right");
        for role in [Role::Owner, Role::WriteOnly] {
            let old = slot(&keys, role, &secret, FAST);
            let key = old.stretch(&secret).unwrap();
            let rotated = keys.copy();
            rotated.begin(Epoch::generate(7, &OsEntropy));
            let new = old.refilled(&keys, &rotated, &OsEntropy).unwrap();
            let opened = new.open(&key).unwrap();
            assert!(opened.switch_to(7));
            assert_eq!(opened.is_write_only(), role == Role::WriteOnly);
            assert!(new.is_proven(&rotated) && !new.is_proven(&keys));
            assert!(opened.is_write_only() || same(&opened, &rotated));
        }
    }

    #[test]
    fn only_owners_make_slots() {
        let keys = KeyRing::generate(&OsEntropy);
        let secret = Secret::KeyFile(Zeroizing::new(vec![1; 32]));
        let good = slot(&keys, Role::WriteOnly, &secret, Kdf::KeyFile);
        assert!(good.is_proven(&keys));
        let writer = good.open(&good.stretch(&secret).unwrap()).unwrap();
        let made = Slot::wrap(
            &writer,
            Role::Owner,
            &secret,
            Kdf::KeyFile,
            "",
            jiff::Timestamp::UNIX_EPOCH,
            &OsEntropy,
        );
        assert_eq!(made.err(), Some(CryptoError::WriteOnly));
        let other = slot(&KeyRing::generate(&OsEntropy), Role::Owner, &secret, Kdf::KeyFile);
        assert!(!other.is_proven(&keys));
        let mut raised = good.clone();
        raised.role = Role::Owner;
        assert!(!raised.is_proven(&keys));
    }

    #[test]
    fn only_owners_fill_slots() {
        let keys = KeyRing::generate(&OsEntropy);
        let secret = password("right");
        let good = slot(&keys, Role::Owner, &secret, FAST);
        let key = good.stretch(&secret).unwrap();
        let file = Secret::KeyFile(Zeroizing::new(vec![1; 32]));
        let writer = slot(&keys, Role::WriteOnly, &file, Kdf::KeyFile);
        let writer = writer.open(&writer.stretch(&file).unwrap()).unwrap();
        // Neither a write-only key nor a stranger finds the bond, though both know the public key.
        assert!(good.refilled(&writer, &writer, &OsEntropy).is_err());
        let mine = KeyRing::generate(&OsEntropy);
        assert!(good.refilled(&mine, &mine, &OsEntropy).is_err());
        let ephemeral = StaticSecret::from([9; 32]);
        let mut forged = good.clone();
        forged.ephemeral = Some(Ephemeral(PublicKey::from(&ephemeral).to_bytes()));
        let shared = ephemeral.diffie_hellman(&PublicKey::from(good.public));
        let (guess, bond) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        let sealed = forged.sealed_key(shared.as_bytes(), &guess);
        forged.fill(&mine, &sealed, &bond).unwrap();
        assert_eq!(forged.open(&key).err(), Some(CryptoError::NotAuthentic));
        let filled = good.refilled(&keys, &keys, &OsEntropy).unwrap();
        assert!(filled.open(&key).is_ok());
        assert_eq!(filled.lasting_name(), good.lasting_name());
    }

    #[test]
    fn survives_json_and_notices_changes() {
        let keys = KeyRing::generate(&OsEntropy);
        let file = Secret::KeyFile(Zeroizing::new(vec![1; 32]));
        let text = serde_json::to_string(&slot(&keys, Role::Owner, &file, Kdf::KeyFile)).unwrap();
        let mut read: Slot = serde_json::from_str(&text).unwrap();
        let key = read.stretch(&file).unwrap();
        assert!(read.open(&key).is_ok() && read.is_proven(&keys));
        read.wrapped[3] ^= 1;
        assert!(read.open(&key).is_err() && !read.is_proven(&keys));
    }

    #[test]
    fn weak_and_monstrous_parameters_are_refused_before_work() {
        let keys = KeyRing::generate(&OsEntropy);
        for memory_kib in [8, u32::MAX] {
            let mut bad = slot(&keys, Role::Owner, &password("x"), FAST);
            bad.kdf = Kdf::Argon2id { memory_kib, passes: 1, lanes: 1 };
            assert!(matches!(bad.stretch(&password("x")), Err(CryptoError::Malformed(_))));
        }
    }
}
