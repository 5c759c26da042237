//! Single entries of the log: sealed, read with a look at who may have written them, and put where no
//! other can be.

use super::Repository;
use crate::crypto::envelope::{self, Header, ObjectKind};
use crate::crypto::keys::KeyRing;
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::log::{EntryKind, LogEntry};
use crate::format::paths;
use crate::index::Position;
use crate::store::{Store, StoreError};

/// How often the reply to a commit is asked for again before giving up.
const SETTLE_ATTEMPTS: usize = 6;
/// Length of the proof behind an entry that its author may do more than add.
const PROOF_LEN: usize = 32;

/// A log entry as it stands in the store.
pub struct StoredEntry {
    /// Its place.
    pub position: Position,
    /// What it says.
    pub entry: LogEntry,
}

impl Repository {
    /// The entry at `number`, or `None` past the head. Where keys were rotated since the repository
    /// was opened, the new ones are fetched.
    pub fn read_entry(&self, number: u64) -> Result<Option<StoredEntry>> {
        let path = paths::log(number);
        let stored = match self.store.get(&path) {
            Ok(stored) => stored,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let entry = match self.open_entry(number, &stored) {
            Err(error) if self.is_newer_than_keys(&error) && self.reload_keys()? => {
                self.open_entry(number, &stored)?
            }
            other => other?,
        };
        let hash = *blake3::hash(&stored).as_bytes();
        Ok(Some(StoredEntry { position: Position { number, hash }, entry }))
    }

    /// BLAKE3 of the stored bytes of an entry, which can be told whatever its keys; `None` where it is
    /// not there. Fails where it was written with newer keys than this slot will ever hold.
    pub fn entry_hash(&self, number: u64) -> Result<Option<[u8; 32]>> {
        let stored = match self.store.get(&paths::log(number)) {
            Ok(stored) => stored,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if let Ok(header) = Header::parse(&stored, ObjectKind::Log) {
            let epoch = header.epoch();
            let is_newer = self.keys.epochs().last().is_some_and(|newest| epoch > *newest);
            if is_newer && !self.reload_keys()? {
                return Err(Error::LeftOut { location: self.store.location(), epoch });
            }
        }
        Ok(Some(*blake3::hash(&stored).as_bytes()))
    }

    /// Whether this is about something that was written after the keys at hand were fetched.
    fn is_newer_than_keys(&self, error: &Error) -> bool {
        let newest = self.keys.epochs().last().copied();
        error.unknown_epoch().is_some_and(|epoch| Some(epoch) > newest)
    }

    /// Whether this is about something whose keys were destroyed since it was written.
    pub(crate) fn is_older_than_keys(&self, error: &Error) -> bool {
        let oldest = self.keys.epochs().first().copied();
        error.unknown_epoch().is_some_and(|epoch| Some(epoch) < oldest)
    }

    fn open_entry(&self, number: u64, stored: &[u8]) -> Result<LogEntry> {
        let path = paths::log(number);
        let damaged = |error: FormatError| Error::damaged(&path, error);
        let plain = envelope::open(&self.keys, ObjectKind::Log, &number.to_le_bytes(), stored)
            .map_err(|error| damaged(error.into()))?;
        let (entry, proof) = plain
            .split_last_chunk::<PROOF_LEN>()
            .ok_or_else(|| damaged(FormatError::Truncated("proof of an entry's author")))?;
        let header =
            Header::parse(stored, ObjectKind::Log).map_err(|error| damaged(error.into()))?;
        let wanted =
            self.keys.epoch(header.epoch()).and_then(|epoch| epoch.authority(number, entry));
        let decoded = LogEntry::decode(entry).map_err(damaged)?;
        // Who may only write cannot tell, and need not: it deletes nothing.
        if wanted.is_some_and(|wanted| blake3::Hash::from(wanted) != *proof) && !decoded.only_adds()
        {
            return Err(damaged(FormatError::Invalid(
                "log entry: a write-only key may add backups and nothing else",
            )));
        }
        // The entry that begins an epoch is the first one under its keys.
        if decoded.kind == EntryKind::Key && u64::from(header.epoch()) == number {
            self.keys.advance_to(header.epoch());
        }
        Ok(decoded)
    }

    pub(super) fn seal_entry(&self, keys: &KeyRing, number: u64, entry: &LogEntry) -> Vec<u8> {
        let mut plain = entry.encode();
        let proof = keys.current().authority(number, &plain);
        plain.extend_from_slice(&proof.unwrap_or([0; PROOF_LEN]));
        let entropy = &*self.environment.entropy;
        envelope::seal(keys, entropy, ObjectKind::Log, &number.to_le_bytes(), &plain)
    }

    /// Tries to take slot `number`. `true`: these bytes are in it. `false`: somebody else's are.
    pub(super) fn put_entry(&self, number: u64, stored: &[u8]) -> Result<bool> {
        let path = paths::log(number);
        let mut unsettled = None;
        for _ in 0..SETTLE_ATTEMPTS {
            // Putting again, not reading, settles an unknown outcome: where the entry is there, the
            // store makes sure that it is durable before it says so.
            let error = match self.store.put_new(&path, stored) {
                Ok(()) => return Ok(true),
                // This may be an earlier attempt of our own: look whose it is.
                Err(StoreError::AlreadyExists { .. }) => match self.store.get(&path) {
                    Ok(found) => return Ok(found == stored),
                    Err(error) => error,
                },
                Err(error @ StoreError::Unknown { .. }) => error,
                // A failure that is certain, but what came before it may have got through.
                Err(error) if unsettled.is_none() => return Err(error.into()),
                Err(error) => error,
            };
            tracing::warn!(number, %error, "outcome of a commit is not known: trying again");
            unsettled = Some(error);
        }
        let last = unsettled.expect("every attempt but a settled one leaves an error");
        self.give_up(number, stored, last)
    }

    /// The outcome of a commit stays unknown. Before an error may say that nothing was committed,
    /// the slot must be taken by something else, or the lost request could still land.
    fn give_up(&self, number: u64, stored: &[u8], last: StoreError) -> Result<bool> {
        let path = paths::log(number);
        let mut noop = LogEntry::new(EntryKind::Noop);
        noop.previous = self.index.position()?.map_or([0; 32], |position| position.hash);
        let put = self.store.put_new(&path, &self.seal_entry(&self.keys, number, &noop));
        match (put, self.store.get(&path)) {
            // Only a store that answers so vouches for what is there.
            (Err(StoreError::AlreadyExists { .. }), Ok(found)) => Ok(found == stored),
            (Ok(()), Ok(found)) if found != stored => Err(last.into()),
            _ => Err(Error::Conflict(format!(
                "the store does not answer as it should: whether {path} was committed is not known ({last}); \
                 'restow snapshots' will tell once it answers again"
            ))),
        }
    }
}
