//! The format: what the plain bytes of every object mean. `docs/format.md` draws them.
//!
//! Pure: no I/O. Every decoder takes hostile bytes: it returns [`FormatError`], never panics, and
//! allocates no more than a small multiple of its input.

pub mod codec;
pub mod config;
pub mod directory;
pub mod entry;
pub mod index;
pub mod log;
pub mod name;
pub mod pack;
pub mod parity;
pub mod paths;
pub mod recipe;
pub mod snapshot;
pub mod tree;

/// Why bytes are not a valid object.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FormatError {
    /// The bytes end too early.
    #[error("truncated: {0} is missing")]
    Truncated(&'static str),
    /// A value that no writer produces.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// Bytes after the end.
    #[error("{0} bytes too many")]
    TrailingBytes(usize),
    /// Authentication or decryption failed.
    #[error(transparent)]
    Crypto(#[from] crate::crypto::CryptoError),
}
