//! Opening a repository of which anything may be damaged, in order to mend it: the configuration, the
//! log, idx objects. What is needed is one key slot that can be read. The repair decides what to do.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::keys::{NamedSlot, read_slots};
use super::numbers::FAR;
use super::open::{Unlocked, newest, open_index, open_slot};
use super::remains::{Memory, Remains};
use super::{Environment, InitOptions, Repository};
use crate::crypto::envelope::{HEADER_LEN, Header, ObjectKind};
use crate::crypto::keys::KeyRing;
use crate::crypto::slot::Secret;
use crate::entropy::random;
use crate::error::{Error, Result};
use crate::format::config::{Config, FORMAT_VERSION};
use crate::format::log::{EntryKind, LogEntry};
use crate::format::parity;
use crate::format::paths;
use crate::id::RepositoryId;
use crate::index::Index;
use crate::store::{Store, StoreError};

/// Parity objects that are looked at to see how much of it there was.
const SAMPLE: usize = 16;

/// A repository that is open for repair.
pub struct Damaged {
    /// With an index of its own that is empty.
    pub repository: Repository,
    /// Why `config` cannot be used, where it cannot.
    pub config_error: Option<Error>,
    /// What is left of the log.
    pub remains: Remains,
    /// The local index of this machine, which may know more.
    memory: Option<Index>,
}

impl Damaged {
    /// Opens whatever is left. Fails where no key slot opens.
    pub fn open(store: Arc<dyn Store>, secret: &Secret, environment: Environment) -> Result<Self> {
        let unlocked = unlock(&*store, secret)?;
        let (config, config_error) = match read_config(&*store, &unlocked.keys) {
            Ok(config) => (config, None),
            Err(error @ Error::Config { .. }) => return Err(error),
            Err(error) if is_config_loss(&error) => {
                (guessed_config(&*store, &environment)?, Some(error))
            }
            Err(error) => return Err(error),
        };
        let index = Index::temporary(config.id)?;
        let mut repository = Repository::assemble(store, environment, config, unlocked, index);
        repository.expect_owner()?;
        let mut remains = repository.read_remains(None)?;
        if config_error.is_some()
            && let Some(copy) = &remains.config
            && Config::verify(copy, &repository.keys).is_ok()
            && let Ok(config) = Config::parse(copy)
        {
            repository.config = config;
            repository.index = Index::temporary(repository.config.id)?;
        }
        let cached = repository.environment.cache.is_some();
        let memory = cached
            .then(|| {
                open_index(&repository.environment, repository.config.id, &repository.keys).ok()
            })
            .flatten();
        if let Some(memory) = memory.as_ref().and_then(Memory::of) {
            remains = repository.read_remains(Some(&memory))?;
        }
        Ok(Self { repository, config_error, remains, memory })
    }

    /// Reads the log once more: somebody else may be at work.
    pub fn look_again(&mut self) -> Result<()> {
        let memory = self.memory.as_ref().and_then(Memory::of);
        self.remains = self.repository.read_remains(memory.as_ref())?;
        Ok(())
    }

    /// Puts entries that say nothing where some are missing, so that no writer that stands before a
    /// hole can take it for the end of the log. Whether there were any. Where the entry is missing that
    /// began an epoch of keys, the one in its place is encrypted with those keys, which proves the same.
    pub fn fill_holes(&self) -> Result<bool> {
        // Before anything is written: a log without a place for the repair stays as it is.
        self.next_number()?;
        let repository = &self.repository;
        let missing = &self.remains.missing;
        let is_missing = |number: &u64| {
            let is_after = self.remains.last.is_none_or(|last| *number > last);
            is_after || missing.iter().any(|(first, last)| (first..=last).contains(&number))
        };
        let current = repository.keys.current().number();
        let epochs = repository.keys.epochs().into_iter().filter(|n| (1..=current).contains(n));
        let mut holes: BTreeSet<u64> = epochs.map(u64::from).filter(is_missing).collect();
        let others = missing.iter().flat_map(|(first, last)| *first..=*last);
        holes.extend(others.take(FAR as usize));
        for number in &holes {
            let keys = repository.keys.copy();
            // Not an epoch that only an interrupted rotation knows: it would begin now.
            if let Some(epoch) = u32::try_from(*number).ok().filter(|epoch| *epoch <= current) {
                keys.switch_to(epoch);
            }
            let mut noop = LogEntry::new(EntryKind::Noop);
            noop.was_repaired = true;
            let before = number.checked_sub(1).and_then(|n| repository.read_entry(n).ok());
            noop.previous = before.flatten().map_or([0; 32], |stored| stored.position.hash);
            self.stamp(&mut noop);
            repository.put_entry(*number, &repository.seal_entry(&keys, *number, &noop)?)?;
        }
        Ok(!holes.is_empty())
    }

    /// Writes a repair after everything that stands in the log. `false` where somebody else was
    /// faster: the state has to be made again.
    pub fn commit(&self, mut entry: LogEntry) -> Result<bool> {
        let (last, number) = (self.remains.last, self.next_number()?);
        let store = self.repository.store();
        let before = last.and_then(|last| store.get(&paths::log(last)).ok());
        entry.previous = before.map_or([0; 32], |bytes| *blake3::hash(&bytes).as_bytes());
        entry.lost.clone_from(&self.remains.lost);
        entry.was_repaired = true;
        entry.slots_removed = self.remains.slots_removed.iter().cloned().collect();
        entry.oldest_epoch = self.remains.oldest_epoch;
        entry.config = self.repository.config.encode(&self.repository.keys);
        self.stamp(&mut entry);
        let repository = &self.repository;
        repository.put_entry(number, &repository.seal_entry(&repository.keys, number, &entry)?)
    }

    /// The number of the repair.
    fn next_number(&self) -> Result<u64> {
        let too_far = || Error::Conflict("the commit log has no number left".into());
        self.remains.last.map_or(Some(0), |last| last.checked_add(1)).ok_or_else(too_far)
    }

    fn stamp(&self, entry: &mut LogEntry) {
        let environment = &self.repository.environment;
        entry.time_ns = environment.clock.now().as_nanosecond() as i64;
        entry.author.clone_from(&environment.author);
    }

    /// Writes the configuration where it is lost.
    pub fn put_config(&self) -> Result<()> {
        if self.config_error.is_none() {
            return Ok(());
        }
        let (store, config) = (&self.repository.store, &self.repository.config);
        let bytes = config.encode(&self.repository.keys);
        match store.put_new(paths::CONFIG, &bytes) {
            Err(StoreError::AlreadyExists { .. }) => Ok(store.replace(paths::CONFIG, &bytes)?),
            other => Ok(other?),
        }
    }

    /// Throws away what this machine remembered, where the repaired log does not continue it.
    pub fn accept(self) -> Result<()> {
        let pinned = self.memory.as_ref().and_then(Memory::of).map(|memory| memory.position());
        let Some(pinned) = pinned else { return Ok(()) };
        let stands = self.repository.expect_entry(pinned).is_ok();
        if stands && !self.remains.lost.iter().any(|(_, last)| pinned.number < *last) {
            return Ok(());
        }
        drop(self.memory);
        if let Some(folder) = self.repository.cache_folder() {
            Index::forget(&folder)?;
        }
        Ok(())
    }
}

/// The slot that `secret` opens. Where several repositories' slots stand there, the one whose keys
/// the other objects were made with; of those the newest.
fn unlock(store: &dyn Store, secret: &Secret) -> Result<Unlocked> {
    let slots = read_slots(store)?;
    if slots.is_empty() {
        let location = store.location();
        return Err(match store.list("")?.is_empty() {
            true => Error::NoRepository { location },
            false => Error::missing_object("every key slot (keys/)"),
        });
    }
    let (mut opened, mut damaged) = (Vec::new(), None);
    for NamedSlot { name, slot } in slots {
        match slot.map(|slot| open_slot(&slot, secret, opened.last())) {
            Ok(Ok(Some((slot_key, keys)))) => opened.push(Unlocked { name, slot_key, keys }),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                damaged = Some(Error::damaged(format!("{}{name}", paths::KEYS), error));
            }
            Err(error) => damaged = Some(error),
        }
    }
    if opened.len() > 1 && opened.iter().any(|slot| is_used(store, &slot.keys, None)) {
        opened.retain(|slot| is_used(store, &slot.keys, None));
    }
    let mut unlocked = None;
    for slot in opened {
        settle(store, &slot.keys);
        unlocked = Some(newest(unlocked, slot));
    }
    let wrong = Error::WrongSecret { location: store.location() };
    unlocked.ok_or(damaged.unwrap_or(wrong))
}

/// Makes the newest epoch that anything was encrypted with the current one.
fn settle(store: &dyn Store, keys: &KeyRing) {
    let began = |number: &u32| is_used(store, keys, Some(*number));
    let epochs = keys.epochs().into_iter().rev();
    if let Some(number) = epochs.filter(|number| *number > 0).find(began) {
        keys.switch_to(number);
    }
}

/// Whether objects of the store were encrypted with these keys: of one epoch, or of any.
fn is_used(store: &dyn Store, keys: &KeyRing, epoch: Option<u32>) -> bool {
    let kinds = [
        (paths::LOG, ObjectKind::Log),
        (paths::INDEX, ObjectKind::Index),
        (paths::SNAPSHOTS, ObjectKind::Snapshot),
        (paths::DATA, ObjectKind::Pack),
    ];
    kinds.into_iter().any(|(folder, kind)| {
        let listed = store.list(folder).unwrap_or_default();
        // The newest log entries tell most.
        listed.iter().rev().any(|object| {
            let header = store.get_range(&object.path, 0, HEADER_LEN);
            let header = header.ok().and_then(|bytes| Header::parse(&bytes, kind).ok());
            header.is_some_and(|header| {
                epoch.is_none_or(|epoch| header.epoch() == epoch) && header.cipher(keys).is_ok()
            })
        })
    })
}

fn is_config_loss(error: &Error) -> bool {
    error.is_certain_damage() || matches!(error, Error::NoRepository { .. })
}

fn read_config(store: &dyn Store, keys: &KeyRing) -> Result<Config> {
    let stored = match store.get(paths::CONFIG) {
        Ok(stored) => stored,
        Err(StoreError::NotFound { .. }) => return Err(Error::missing_object(paths::CONFIG)),
        Err(error) => return Err(error.into()),
    };
    // What is authentic and cannot be used was written by a newer program: that is no damage.
    Config::verify(&stored, keys).map_err(|error| Error::damaged(paths::CONFIG, error))?;
    let location = store.location();
    Config::parse(&stored).map_err(|source| Error::Config { location, source })
}

/// Parameters for a repository whose configuration is lost with every copy of it: the usual ones and a
/// new id. They do not matter for reading; with other chunk sizes the next backup finds little.
fn guessed_config(store: &dyn Store, environment: &Environment) -> Result<Config> {
    let usual = InitOptions::default();
    let listed = store.list(paths::PARITY)?;
    let parity = listed.iter().take(SAMPLE).find_map(|object| {
        let head = parity::Head::read(&store.get(&object.path).ok()?).ok()?;
        (parity::MIN_PARTS..=parity::MAX_PARTS).contains(&head.parts).then_some(head.parts)
    });
    Ok(Config {
        version: FORMAT_VERSION,
        id: RepositoryId(random(&*environment.entropy)),
        created: environment.clock.now(),
        required_features: Vec::new(),
        stream_chunks: usual.stream_chunks,
        data_pack_bytes: usual.data_pack_bytes,
        tree_pack_bytes: usual.tree_pack_bytes,
        padding: usual.padding,
        parity: parity.unwrap_or(0),
    })
}
