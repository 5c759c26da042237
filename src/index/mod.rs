//! The local index: a SQLite file that is the materialised view of the commit log.
//!
//! Guarantees: it holds exactly the state as of one log position, changed in one transaction with
//! it; it is written from log, idx objects and snapshots alone; losing it loses nothing. It keeps
//! no table of chunks in memory: a look-up is a B-tree search in a file that the page cache holds.
//! It does not fetch anything: the repository hands it what to apply.

mod add;
mod apply;
mod bulk;
mod query;
mod schema;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use lru::LruCache;
use rusqlite::Connection;

pub use bulk::{Home, Place};

use crate::crypto::envelope::HEADER_LEN;
use crate::crypto::keys::BlobKind;
use crate::format::directory::{BlobEntry, Codec};
use crate::format::index::IndexedPack;
use crate::format::snapshot::Snapshot;
use crate::id::{ChunkKey, ObjectName, RepositoryId};

/// Errors of the index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// SQLite failed.
    #[error("local index: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file could not be made or removed.
    #[error("local index {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Another process moved the index to another position meanwhile.
    #[error("local index was changed by another process")]
    Moved,
    /// What a log entry refers to could not be fetched.
    #[error("{0}")]
    Fetch(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The index contradicts itself; deleting it mends that.
    #[error("local index is damaged ({0})")]
    Damaged(&'static str),
}

impl IndexError {
    /// Whether the file or its folder cannot be written.
    pub fn is_unwritable(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, PermissionDenied, ReadOnly};
        match self {
            Self::Io { .. } => true,
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(CannotOpen | DiskFull | PermissionDenied | ReadOnly)
            ),
            _ => false,
        }
    }

    /// Whether the file cannot be used any more and must be made again.
    pub fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            Self::Damaged(_) => true,
            Self::Sqlite(error) => {
                matches!(error.sqlite_error_code(), Some(NotADatabase | DatabaseCorrupt))
            }
            _ => false,
        }
    }
}

/// A place in the commit log: the number of an entry and the hash of its stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Number of the last entry that was applied.
    pub number: u64,
    /// BLAKE3 of its stored bytes.
    pub hash: [u8; 32],
}

/// In the place of a time that is not known.
const UNDATED: i64 = i64::MIN;

/// What prune has decided about a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// Still readable, but nobody may rely on it any more without rescuing it.
    Condemned = 1,
    /// Gone for good.
    Dead = 2,
}

/// An item that the repository fetched for the index, or why it could not.
pub type Fetched<T> = Result<(ObjectName, T), Box<dyn std::error::Error + Send + Sync>>;

/// What a pack says of itself; nothing where it cannot be read.
pub type Told = Result<Option<IndexedPack>, Box<dyn std::error::Error + Send + Sync>>;

/// What an idx object says.
#[derive(Debug, Clone, Default)]
pub struct IndexObject {
    /// The packs it names.
    pub packs: Vec<IndexedPack>,
    /// A write-only key made it: it may name packs that are not its own.
    pub is_sealed: bool,
}

impl From<Vec<IndexedPack>> for IndexObject {
    fn from(packs: Vec<IndexedPack>) -> Self {
        Self { packs, is_sealed: false }
    }
}

/// All that one log entry changes.
pub struct Change<'a> {
    /// Where the log stands after it.
    pub position: Position,
    /// When its author says it was made, nanoseconds since 1970.
    pub time_ns: i64,
    /// Forget all that was known: the entry is a whole state.
    pub replace: bool,
    /// The entry is a repair: snapshots may rely on chunks that are lost.
    pub is_repair: bool,
    /// idx objects that are valid from here on, and what they hold; one at a time.
    pub index_add: &'a mut dyn Iterator<Item = Fetched<IndexObject>>,
    /// Asked where idx objects disagree about a pack that a write-only key made.
    pub ask_pack: &'a dyn Fn(&ObjectName) -> Told,
    /// idx objects that no longer are.
    pub index_remove: &'a [ObjectName],
    /// Live snapshots; one at a time.
    pub snapshot_add: &'a mut dyn Iterator<Item = Fetched<Snapshot>>,
    /// Snapshots that no longer are.
    pub snapshot_remove: &'a [ObjectName],
    /// Condemned packs that are live again.
    pub rescue: &'a [ObjectName],
    /// Packs that are condemned now.
    pub condemn: &'a [ObjectName],
    /// Packs that are dead now.
    pub dead: &'a [ObjectName],
    /// Dead packs that need not be remembered any more.
    pub dropped: &'a [ObjectName],
}

/// A pack as the index knows it.
#[derive(Debug)]
pub struct PackDirectory {
    /// Its number in this index file.
    pub number: i64,
    /// Its name in the store.
    pub name: ObjectName,
    /// What its blobs are.
    pub kind: BlobKind,
    /// Its size in bytes.
    pub size: u64,
    /// Its first bytes.
    pub header: [u8; HEADER_LEN],
    /// Its blobs.
    pub entries: Vec<BlobEntry>,
    /// Where each blob starts.
    pub offsets: Vec<u64>,
}

impl PackDirectory {
    /// Whether this is what the pack says of itself. Its name may be that of bytes that are damaged.
    pub fn is_of(&self, pack: &IndexedPack) -> bool {
        (self.kind, self.size) == (pack.kind, pack.size)
            && self.header == pack.header
            && self.entries == pack.entries
    }
}

/// Where a blob stands.
#[derive(Debug, Clone)]
pub struct Found {
    /// The pack.
    pub pack: Arc<PackDirectory>,
    /// Which of its blobs.
    pub ordinal: usize,
}

impl Found {
    /// The blob's entry.
    pub fn entry(&self) -> &BlobEntry {
        &self.pack.entries[self.ordinal]
    }

    /// Whether it is a group: the members that follow are parts of it.
    pub fn is_group(&self) -> bool {
        let next = self.pack.entries.get(self.ordinal + 1);
        self.entry().codec != Codec::Member && next.is_some_and(|next| next.codec == Codec::Member)
    }

    /// For a member of a group: the group's place, and where the member starts in its bytes.
    pub fn group(&self) -> (Self, usize) {
        let mut offset = 0;
        let mut ordinal = self.ordinal;
        while ordinal > 0 && self.pack.entries[ordinal].codec == Codec::Member {
            ordinal -= 1;
            let before = &self.pack.entries[ordinal];
            if before.codec == Codec::Member {
                offset += before.plain_len as usize;
            }
        }
        (Self { pack: self.pack.clone(), ordinal }, offset)
    }

    /// Chunks without which this one cannot be read: the bases of a delta, the group of a member.
    pub fn needs(&self) -> Vec<ChunkKey> {
        match self.entry().codec {
            Codec::Member => vec![self.group().0.entry().id],
            _ => self.entry().bases.clone(),
        }
    }

    /// Where it starts in the pack.
    pub fn offset(&self) -> u64 {
        self.pack.offsets[self.ordinal]
    }
}

/// Totals for `stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packs that are live or condemned.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Chunks, each counted once for each pack that holds it.
    pub chunks: u64,
}

/// The local index of one repository.
pub struct Index {
    connection: Mutex<Connection>,
    directories: Mutex<LruCache<i64, Arc<PackDirectory>>>,
    fates: Mutex<Fates>,
    is_write_only: bool,
}

/// The fates of packs as of a position. Another process may move the file on: whoever asks for the
/// position gets them loaded again.
struct Fates {
    position: Option<Position>,
    turns: Turns,
    known: HashMap<ObjectName, Fate>,
    /// None of them is of a pack in the index.
    none_indexed: bool,
    /// Numbers of packs that write-only keys made.
    sealed: HashSet<i64>,
}

/// Numbers of log entries at which something turned that cannot be told from the state alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turns {
    /// The last one that condemned, rescued or buried something, as far as that is known.
    pub fates: u64,
    /// What was declared dead before this one may be forgotten: that an object has no fate says nothing
    /// about what was there before.
    pub horizon: u64,
}

/// Pack directories kept decoded; about 50 KB each at the usual sizes.
const CACHED_DIRECTORIES: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

impl Index {
    /// Opens or makes the index of a repository in `folder`. A file that is damaged or of another
    /// version or repository is thrown away: it can always be made again.
    pub fn open(folder: &Path, repository: RepositoryId) -> Result<Self, IndexError> {
        let open = || schema::open_file(folder, repository).and_then(Self::with);
        match open() {
            Err(error) if error.is_damage() => {
                Self::forget(folder)?;
                open()
            }
            other => other,
        }
    }

    /// Removes the index from `folder`. Nothing is lost but the time to make it again, and the
    /// memory of where the log stood.
    pub fn forget(folder: &Path) -> Result<(), IndexError> {
        schema::remove_file(folder)
    }

    /// An index that lives in a temporary file and is gone with this value.
    pub fn temporary(repository: RepositoryId) -> Result<Self, IndexError> {
        // An empty path is SQLite's name for a private database that spills to a temporary file.
        Self::with(schema::prepare(Connection::open("")?, repository)?)
    }

    /// The same index for a machine that may only write. It knows the packs that were stored from
    /// there, may rely on them, and keeps what it knows of them until they are dead.
    pub fn write_only(self) -> Self {
        Self { is_write_only: true, ..self }
    }

    fn with(connection: Connection) -> Result<Self, IndexError> {
        let fates = query::fates(&connection)?;
        let position = query::position(&connection)?;
        let none_indexed = query::none_indexed(&connection)?;
        let sealed = query::sealed(&connection)?;
        let turns = query::turns(&connection)?;
        Ok(Self {
            connection: Mutex::new(connection),
            directories: Mutex::new(LruCache::new(CACHED_DIRECTORIES)),
            fates: Mutex::new(Fates { position, turns, known: fates, none_indexed, sealed }),
            is_write_only: false,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().expect("no thread panics with the index in hand")
    }

    fn lock_fates(&self) -> MutexGuard<'_, Fates> {
        self.fates.lock().expect("no thread panics with the fates in hand")
    }
}

#[cfg(test)]
mod tests;
