//! The engine of restow: a content-addressed, deduplicating, delta-compressing, encrypted store for
//! backups of dump streams and files.
//!
//! From the bottom up; a module uses only what stands above it in this list, and `tests/tidy.rs`
//! holds it to that:
//!
//! * [`id`], [`clock`], [`entropy`], [`progress`]: words that everybody uses.
//! * [`catalogue`], [`chunker`], [`compress`], [`crypto`], [`mod@format`], [`delta`], [`unpack`]: pure.
//!   Bytes in, bytes out; time and randomness are arguments.
//! * [`store`], [`index`], [`source`]: the edges: where objects are, the local index, where streams
//!   come from. They know nothing of each other.
//! * [`error`], [`repository`]: objects, commit log and index put together.
//! * [`retention`]: pure rules for which snapshots to keep.
//! * [`settings`]: the configuration file.
//! * [`backup`], [`restore`], [`check`], [`copy`], [`diff`], [`find`], [`forget`], [`mount`], [`prune`],
//!   [`repair`], [`stats`], [`tag`]: one verb each. Options in, report out.
//!
//! * [`database`]: databases as sources: their streams, their tables, putting them back.
//! * [`drill`]: proof that a source restores.
//!
//! The command line is a program of its own (`src/cli`) and holds no backup logic.
//!
//! What always holds:
//!
//! 1. State changes only by creating the next entry of the commit log; everything that an entry
//!    refers to is durable before.
//! 2. No byte that was not authenticated reaches a decoder, no byte that does not match its id
//!    leaves the engine.
//! 3. A live snapshot's chunks, recipes and delta bases all stand in packs that are not dead.
//! 4. The local index is a view of the log; deleting it changes no result.
//! 5. Memory does not grow with the size of a stream or of the repository.

pub mod backup;
pub mod catalogue;
pub mod check;
pub mod chunker;
pub mod clock;
pub mod compress;
pub mod copy;
pub mod crypto;
#[cfg(feature = "databases")]
pub mod database;
pub mod delta;
pub mod diff;
#[cfg(feature = "databases")]
pub mod drill;
pub mod entropy;
pub mod error;
pub mod find;
pub mod forget;
pub mod format;
pub mod id;
pub mod index;
pub mod mount;
pub mod progress;
pub mod prune;
pub mod repair;
pub mod repository;
pub mod restore;
pub mod retention;
pub mod settings;
pub mod source;
pub mod stats;
pub mod store;
pub mod tag;
pub mod unpack;
