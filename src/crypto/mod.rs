//! Cryptography of the repository: keys and what is sealed with them.
//!
//! Pure: bytes in, bytes out; randomness comes as an argument. Does not know what the sealed bytes
//! mean (see `format`) nor where they are stored. `docs/security.md` states what each part defends.

pub mod aead;
pub mod envelope;
pub mod epoch;
pub mod keys;
pub mod kit;
pub mod slot;

/// Why sealed bytes were refused.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum CryptoError {
    /// Too short, or a header that no version of this program writes.
    #[error("malformed header: {0}")]
    Malformed(&'static str),
    /// Written by a newer program.
    #[error("unsupported {what} {found}: a newer restow wrote this")]
    Unsupported {
        /// Which number is not known.
        what: &'static str,
        /// Its value.
        found: u32,
    },
    /// Authentication failed: the bytes were changed, moved, or belong to another repository.
    #[error("authentication failed: the stored bytes are damaged or not from this repository")]
    NotAuthentic,
    /// Encrypted with keys that are not at hand.
    #[error("encrypted with the keys of epoch {0}, which this key slot does not hold")]
    UnknownEpoch(u32),
    /// Encrypted for owners, and the keys at hand may only write.
    #[error("a write-only key cannot read it")]
    WriteOnly,
}
