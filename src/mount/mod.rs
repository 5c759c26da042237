//! Snapshots as a read-only file system.
//!
//! `fs` knows what is where and reads it, without a word of FUSE; `content` reads ranges of files
//! through a bounded cache of decoded chunks; `fuse` puts both into the kernel's terms.

pub mod content;
pub mod fs;
#[cfg(feature = "mount")]
pub mod fuse;
mod nodes;
