//! Single entries of the log: sealed, read with a look at who may have written them, and put where no
//! other can be.

use std::sync::Arc;

use super::Repository;
use crate::crypto::envelope::{self, HEADER_LEN, Header, ObjectKind};
use crate::crypto::epoch::Epoch;
use crate::crypto::keys::KeyRing;
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::log::{EntryKind, LogEntry};
use crate::format::paths;
use crate::id::ObjectName;
use crate::index::Position;
use crate::store::{Store, StoreError};

/// How often the reply to a commit is asked for again before giving up.
const SETTLE_ATTEMPTS: usize = 6;
/// Length of a proof behind an entry.
const PROOF_LEN: usize = 32;

/// A log entry as it stands in the store.
pub struct StoredEntry {
    /// Its place.
    pub position: Position,
    /// What it says.
    pub entry: LogEntry,
    /// The epoch of its keys.
    pub epoch: u32,
}

/// An entry and what stands behind it.
struct Proofs<'a> {
    entry: &'a [u8],
    /// That its author may do more than add.
    author: &'a [u8; PROOF_LEN],
    /// That an owner of the epoch before begins the one of this entry; zeros where none begins.
    next: &'a [u8; PROOF_LEN],
}

impl<'a> Proofs<'a> {
    fn split(plain: &'a [u8]) -> Option<Self> {
        let (rest, author) = plain.split_last_chunk()?;
        let (entry, next) = rest.split_last_chunk()?;
        Some(Self { entry, author, next })
    }
}

/// The epoch that an entry was encrypted in; 0 where that cannot be told.
fn epoch_of(stored: &[u8]) -> u32 {
    Header::parse(stored, ObjectKind::Log).map_or(0, |header| header.epoch())
}

/// The keys that were in force before an epoch began, where they are at hand: not where they were
/// destroyed since.
fn epoch_before(store: &dyn Store, keys: &KeyRing, number: u32) -> Result<Option<Arc<Epoch>>> {
    let Some(before) = number.checked_sub(1) else { return Ok(None) };
    let header = match store.get_range(&paths::log(before.into()), 0, HEADER_LEN) {
        Ok(header) => header,
        Err(StoreError::NotFound { .. } | StoreError::Failed { action: "read", .. }) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    // What a repair put in the place of a lost entry has newer keys.
    let epoch = Header::parse(&header, ObjectKind::Log).map_or(u32::MAX, |header| header.epoch());
    Ok(keys.epoch(epoch).filter(|epoch| epoch.number() < number))
}

/// Whether an epoch was begun by an owner of the one before, as far as these keys can tell.
fn follows(
    store: &dyn Store,
    keys: &KeyRing,
    number: u32,
    entry: &[u8],
    proof: &[u8; PROOF_LEN],
) -> Result<bool> {
    let Some(epoch) = keys.epoch(number) else { return Ok(true) };
    let before = epoch_before(store, keys, number)?;
    let wanted = before.and_then(|before| before.next_proof(&epoch, entry));
    Ok(wanted.is_none_or(|wanted| blake3::Hash::from(wanted) == *proof))
}

/// Whether an epoch began with this stored entry, which bears its number. Of one that is damaged its
/// header tells.
pub(super) fn begins(
    store: &dyn Store,
    keys: &KeyRing,
    number: u32,
    stored: &[u8],
) -> Result<bool> {
    let associated = u64::from(number).to_le_bytes();
    let Ok(plain) = envelope::open(keys, ObjectKind::Log, &associated, stored) else {
        return Ok(true);
    };
    let Some(Proofs { entry, next, .. }) = Proofs::split(&plain) else { return Ok(true) };
    follows(store, keys, number, entry, next)
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
            // The keys at hand may be those of a rotation that was interrupted and made again.
            Err(error) if error.is_object_damage() && self.renew_keys(&stored)? => {
                self.open_entry(number, &stored)?
            }
            other => other?,
        };
        let hash = *blake3::hash(&stored).as_bytes();
        let epoch = epoch_of(&stored);
        Ok(Some(StoredEntry { position: Position { number, hash }, entry, epoch }))
    }

    /// Fetches other keys for an entry, where those at hand belong to an epoch that never began.
    fn renew_keys(&self, stored: &[u8]) -> Result<bool> {
        let epoch = epoch_of(stored);
        if epoch <= self.keys.current().number() {
            return Ok(false);
        }
        let Some(known) = self.keys.epoch(epoch) else { return Ok(false) };
        self.keys.forget(epoch);
        self.reload_keys()?;
        let found = self.keys.epoch(epoch);
        if found.is_none() {
            self.keys.restore(known.clone());
        }
        Ok(found.is_some_and(|found| !found.is_same(&known)))
    }

    /// BLAKE3 of the stored bytes of an entry, and the epoch of its keys, which can be told whatever
    /// those are; `None` where it is not there. Fails where it was written with newer keys than this
    /// slot will ever hold.
    pub fn entry_hash(&self, number: u64) -> Result<Option<([u8; 32], u32)>> {
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
        Ok(Some((*blake3::hash(&stored).as_bytes(), epoch_of(&stored))))
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
        let Proofs { entry, author, next } = Proofs::split(&plain)
            .ok_or_else(|| damaged(FormatError::Truncated("proof of an entry's author")))?;
        let epoch = epoch_of(stored);
        let wanted = self.keys.epoch(epoch).and_then(|epoch| epoch.authority(number, entry));
        if self.has_old_keys(number, epoch)? {
            return Err(damaged(FormatError::Invalid(
                "log entry: it has older keys than one before it",
            )));
        }
        let mut decoded = LogEntry::decode(entry).map_err(damaged)?;
        // Who may only write cannot tell, and need not: it deletes nothing.
        let is_proven = wanted.is_none_or(|wanted| blake3::Hash::from(wanted) == *author);
        if !is_proven {
            self.leave_sealed(&mut decoded)?;
        }
        if !is_proven && !decoded.only_adds() {
            return Err(damaged(FormatError::Invalid(
                "log entry: a write-only key may add backups and nothing else",
            )));
        }
        // The entry that begins an epoch is the first one under its keys.
        if u64::from(epoch) == number {
            if !follows(&*self.store, &self.keys, epoch, entry, next)? {
                self.keys.forget(epoch);
                return Err(damaged(FormatError::Invalid(
                    "log entry: its keys do not come from an owner of those before",
                )));
            }
            self.keys.advance_to(epoch);
        }
        Ok(decoded)
    }

    /// Whether an entry has older keys than those that were in force: whoever wrote it may have lost the
    /// right to.
    fn has_old_keys(&self, number: u64, epoch: u32) -> Result<bool> {
        for newer in self.keys.epochs() {
            if newer <= epoch || u64::from(newer) > number {
                continue;
            }
            let header = match self.store.get_range(&paths::log(newer.into()), 0, HEADER_LEN) {
                Ok(header) => header,
                Err(StoreError::NotFound { .. } | StoreError::Failed { action: "read", .. }) => {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let header = Header::parse(&header, ObjectKind::Log);
            // A rotation that was interrupted began nothing.
            if header.is_ok_and(|it| it.epoch() == newer && it.cipher(&self.keys).is_ok()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Leaves in an entry of a write-only key what such a key can have made: an old object of an owner
    /// that it brings up again is none.
    fn leave_sealed(&self, entry: &mut LogEntry) -> Result<()> {
        let added = [
            (&mut entry.index_add, paths::index as fn(&ObjectName) -> String, ObjectKind::Index),
            (&mut entry.snapshot_add, paths::snapshot, ObjectKind::Snapshot),
        ];
        for (names, path, kind) in added {
            let mut left = Vec::new();
            for name in names.drain(..) {
                let is_owners = match self.store.get_range(&path(&name), 0, HEADER_LEN) {
                    Ok(header) => Header::parse(&header, kind).is_ok_and(|h| !h.is_sealed()),
                    // Whoever needs it says what is wrong with it.
                    Err(
                        StoreError::NotFound { .. } | StoreError::Failed { action: "read", .. },
                    ) => false,
                    Err(error) => return Err(error.into()),
                };
                if !is_owners {
                    left.push(name);
                }
            }
            *names = left;
        }
        Ok(())
    }

    pub(super) fn seal_entry(
        &self,
        keys: &KeyRing,
        number: u64,
        entry: &LogEntry,
    ) -> Result<Vec<u8>> {
        let mut plain = entry.encode();
        let epoch = keys.current();
        let author = epoch.authority(number, &plain);
        let mut next = None;
        if u64::from(epoch.number()) == number
            && let Some(before) = epoch_before(&*self.store, keys, epoch.number())?
        {
            next = before.next_proof(&epoch, &plain);
        }
        plain.extend_from_slice(&next.unwrap_or_default());
        plain.extend_from_slice(&author.unwrap_or_default());
        let entropy = &*self.environment.entropy;
        Ok(envelope::seal(keys, entropy, ObjectKind::Log, &number.to_le_bytes(), &plain))
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
        let put = self.store.put_new(&path, &self.seal_entry(&self.keys, number, &noop)?);
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
