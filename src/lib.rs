//! restow
pub mod backup;
pub mod chunker;
pub mod clock;
pub mod compress;
pub mod crypto;
pub mod delta;
pub mod entropy;
pub mod error;
pub mod format;
pub mod id;
pub mod index;
pub mod progress;
pub mod repository;
pub mod restore;
pub mod source;
pub mod store;
