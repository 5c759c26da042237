//! restow
pub mod chunker;
pub mod clock;
pub mod compress;
pub mod crypto;
pub mod entropy;
pub mod format;
pub mod id;
pub mod progress;
