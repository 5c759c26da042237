//! Making and opening repositories.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::keys::{NamedSlot, read_slot, read_slots};
use super::{Environment, Repository, rotation};
use crate::chunker::Profile;
use crate::crypto::CryptoError;
use crate::crypto::keys::KeyRing;
use crate::crypto::slot::{Kdf, Role, Secret, Slot, SlotKey};
use crate::entropy::random;
use crate::error::{Error, Result};
use crate::format::config::{Config, FORMAT_VERSION};
use crate::format::log::{EntryKind, LogEntry};
use crate::format::pack::Padding;
use crate::format::paths;
use crate::id::{ObjectName, RepositoryId};
use crate::index::Index;
use crate::store::traced::{TracedStore, is_listening};
use crate::store::{ObjectInfo, Store, StoreError};

/// File in the cache with the name of the slot that was opened last: saves a listing.
const LAST_SLOT: &str = "slot";
/// Start of the name of the object that `init` tries the store with.
const PROBE: &str = "tmp-probe-";
/// How often slots that change while they are read are read again.
const UNLOCK_ATTEMPTS: usize = 5;

/// Parameters of a new repository.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// How the first password is stretched.
    pub kdf: Kdf,
    /// Label of the first key slot.
    pub label: String,
    /// Chunk sizes of dump streams.
    pub stream_chunks: Profile,
    /// Size at which packs of data are closed, in bytes.
    pub data_pack_bytes: u64,
    /// Size at which packs of trees are closed, in bytes.
    pub tree_pack_bytes: u64,
    /// Whether packs are padded.
    pub padding: Padding,
    /// Parity of packs in thousandths of their size; 0 for none.
    pub parity: u16,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            kdf: Kdf::PASSWORD,
            label: String::new(),
            stream_chunks: Profile::STREAM,
            data_pack_bytes: 32 << 20,
            tree_pack_bytes: 8 << 20,
            padding: Padding::None,
            parity: 0,
        }
    }
}

impl Repository {
    /// Makes a repository in an empty store and opens it. The first log entry decides between
    /// several that try at once; the configuration is written last: what a crash leaves before that
    /// is not a repository, and is named to whoever tries again.
    pub fn init(
        store: Arc<dyn Store>,
        secret: &Secret,
        options: &InitOptions,
        environment: Environment,
    ) -> Result<Self> {
        let store = traced(store);
        refuse_occupied(&*store)?;
        let entropy = &*environment.entropy;
        let keys = KeyRing::generate(entropy);
        let created = environment.clock.now();
        let kdf = match secret {
            Secret::Password(_) => options.kdf.clone(),
            Secret::KeyFile(_) => Kdf::KeyFile,
        };
        let new_slot = |source| Error::damaged("new key slot", source);
        let slot = Slot::wrap(&keys, Role::Owner, secret, kdf, &options.label, created, entropy)
            .map_err(new_slot)?;
        let slot_key = slot.stretch(secret).map_err(new_slot)?;
        let config = Config {
            version: FORMAT_VERSION,
            id: RepositoryId(random(entropy)),
            created,
            required_features: Vec::new(),
            stream_chunks: options.stream_chunks,
            data_pack_bytes: options.data_pack_bytes,
            tree_pack_bytes: options.tree_pack_bytes,
            padding: options.padding,
            parity: options.parity,
        };
        probe_create_only(&*store, &config.id)?;
        let index = open_index(&environment, config.id, &keys)?;
        let mut repository = Self {
            store,
            environment,
            config,
            keys,
            index,
            slot: Mutex::default(),
            slot_key,
            damage: None,
            added_slots: Mutex::default(),
        };
        let mut first = LogEntry::new(EntryKind::State);
        first.config = repository.config.encode(&repository.keys);
        repository.put_first_entry(first)?;
        repository.slot = Mutex::new(repository.put_slot(&slot)?);
        let stored = repository.config.encode(&repository.keys);
        repository.put_config(&stored)?;
        repository.sync()?;
        Ok(repository)
    }

    /// The last step of making a repository. Of two that are made at the same place one gets here.
    fn put_config(&self, stored: &[u8]) -> Result<()> {
        match self.store.put_new(paths::CONFIG, stored) {
            // An attempt whose reply was lost may have been our own.
            Err(StoreError::AlreadyExists { .. } | StoreError::Unknown { .. })
                if self.store.get(paths::CONFIG)? == stored =>
            {
                Ok(())
            }
            Err(StoreError::AlreadyExists { .. }) => {
                Err(Error::RepositoryExists { location: self.store.location() })
            }
            other => Ok(other?),
        }
    }

    /// Opens a repository and brings its index up to date. An index that turns out to be damaged
    /// is made anew.
    pub fn open(store: Arc<dyn Store>, secret: &Secret, environment: Environment) -> Result<Self> {
        let mut repository = Self::unlock(store, secret, environment)?;
        // An index made from nothing began with a listing of the log.
        let is_new = matches!(repository.index.position(), Ok(None));
        match repository.sync() {
            Err(Error::Index(error)) if error.is_damage() => repository.renew_index()?,
            other => drop(other?),
        }
        if !is_new {
            repository.expect_head()?;
        }
        Ok(repository)
    }

    /// A repository whose keys are at hand and whose index stands wherever it stood.
    pub(super) fn unlock(
        store: Arc<dyn Store>,
        secret: &Secret,
        environment: Environment,
    ) -> Result<Self> {
        let store = traced(store);
        let location = store.location();
        let stored = match store.get(paths::CONFIG) {
            Ok(stored) => stored,
            Err(StoreError::NotFound { .. }) => return Err(Error::NoRepository { location }),
            Err(error) => return Err(error.into()),
        };
        let config = Config::parse(&stored).map_err(|source| Error::Config { location, source })?;
        let remembered = environment.cache.as_ref().map(|folder| folder.join(config.id.to_hex()));
        let remembered = remembered.map(|folder| folder.join(LAST_SLOT));
        let unlocked = unlock(&*store, secret, &stored, remembered.as_deref())?;
        let index = open_index(&environment, config.id, &unlocked.keys)?;
        Ok(Self::assemble(store, environment, config, unlocked, index))
    }

    pub(super) fn assemble(
        store: Arc<dyn Store>,
        environment: Environment,
        config: Config,
        Unlocked { name, slot_key, keys }: Unlocked,
        index: Index,
    ) -> Self {
        Self {
            store,
            environment,
            config,
            keys,
            index,
            slot: Mutex::new(name),
            slot_key,
            damage: None,
            added_slots: Mutex::default(),
        }
    }

    /// Makes a damaged index again. Where the log stood is kept in mind if it can be read.
    fn renew_index(&mut self) -> Result<()> {
        let pinned = self.index.position().ok().flatten();
        self.index = Index::temporary(self.config.id)?;
        if let Some(pinned) = pinned {
            self.expect_entry(pinned)?;
        }
        if let Some(folder) = self.cache_folder() {
            Index::forget(&folder)?;
        }
        self.index = open_index(&self.environment, self.config.id, &self.keys)?;
        self.sync()?;
        Ok(())
    }
}

/// A slot that was opened.
pub(super) struct Unlocked {
    pub(super) name: String,
    pub(super) slot_key: SlotKey,
    pub(super) keys: KeyRing,
}

/// Finds the slot that `secret` opens: the one of the last time, whose name stands in the file
/// `remembered`, or any of those that the store lists. Keys that came since are found by whoever reads
/// what is encrypted with them.
fn unlock(
    store: &dyn Store,
    secret: &Secret,
    config: &[u8],
    remembered: Option<&Path>,
) -> Result<Unlocked> {
    let last = remembered.and_then(|file| fs::read_to_string(file).ok());
    let last = last.filter(|name| ObjectName::from_hex(name).is_ok());
    if let Some(slot) = last.and_then(|name| read_slot(store, &name))
        && let Ok(unlocked) = unlock_one(store, secret, config, vec![slot])
    {
        return Ok(unlocked);
    }
    let unlocked = unlock_any(store, secret, config)?;
    // The same secret may open another slot that is worth more than this one.
    if let (Some(file), false) = (remembered, unlocked.keys.is_write_only()) {
        // Only a convenience.
        let _ = file.parent().map(fs::create_dir_all);
        let _ = fs::write(file, &unlocked.name);
    }
    Ok(unlocked)
}

/// Finds the slot that `secret` opens and whose key the configuration was sealed with: a slot of
/// another repository may stand beside it, and what a rotation leaves that was interrupted.
fn unlock_any(store: &dyn Store, secret: &Secret, config: &[u8]) -> Result<Unlocked> {
    for _ in 0..UNLOCK_ATTEMPTS {
        let slots = read_slots(store)?;
        let names: Vec<String> = slots.iter().map(|slot| slot.name.clone()).collect();
        let error = match unlock_one(store, secret, config, slots) {
            Err(error) => error,
            unlocked => return unlocked,
        };
        // A rotation replaces all slots: it may have been at work between listing and reading.
        let now = store.list(paths::KEYS)?;
        let is_same = |name: &String| now.iter().any(|object| object.path.ends_with(name));
        if names.iter().all(is_same) && slot_count(&now) == names.len() {
            return Err(error);
        }
    }
    Err(Error::Conflict("key slots change all the time; try again later".into()))
}

fn slot_count(listed: &[ObjectInfo]) -> usize {
    let is_slot =
        |object: &&ObjectInfo| ObjectName::from_hex(&object.path[paths::KEYS.len()..]).is_ok();
    listed.iter().filter(is_slot).count()
}

fn unlock_one(
    store: &dyn Store,
    secret: &Secret,
    config: &[u8],
    slots: Vec<NamedSlot>,
) -> Result<Unlocked> {
    if slots.is_empty() {
        return Err(Error::missing_object("every key slot (keys/)"));
    }
    let (mut damaged, mut unlocked) = (None, None);
    for NamedSlot { name, slot } in slots {
        let slot = match slot {
            Ok(slot) => slot,
            Err(error) => {
                damaged = Some(error);
                continue;
            }
        };
        match open_slot(&slot, secret, unlocked.as_ref()) {
            Ok(None) => {}
            Ok(Some((slot_key, keys))) => match Config::verify(config, &keys) {
                Ok(()) => {
                    rotation::settle(store, &keys)?;
                    unlocked = Some(newest(unlocked, Unlocked { name, slot_key, keys }));
                }
                Err(source) => damaged = Some(Error::damaged(paths::CONFIG, source)),
            },
            Err(error) => damaged = Some(Error::damaged(format!("{}{name}", paths::KEYS), error)),
        }
    }
    let error = || damaged.unwrap_or(Error::WrongSecret { location: store.location() });
    unlocked.ok_or_else(error)
}

/// The keys in a slot, where it is this secret's. Stretching is slow and not done twice for slots
/// that differ in their keys alone.
pub(super) fn open_slot(
    slot: &Slot,
    secret: &Secret,
    other: Option<&Unlocked>,
) -> Result<Option<(SlotKey, KeyRing)>, CryptoError> {
    if !slot.takes(secret) {
        return Ok(None);
    }
    let slot_key = match other {
        Some(other) if slot.fits(&other.slot_key) => Ok(other.slot_key.clone()),
        _ => slot.stretch(secret),
    };
    match slot_key {
        Ok(slot_key) => {
            let keys = slot.open(&slot_key)?;
            Ok(Some((slot_key, keys)))
        }
        Err(CryptoError::NotAuthentic) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Of two slots for one secret the one with newer keys.
pub(super) fn newest(one: Option<Unlocked>, other: Unlocked) -> Unlocked {
    let Some(one) = one else { return other };
    let is_newer = other.keys.current().number() > one.keys.current().number();
    let (new, old) = if is_newer { (other, one) } else { (one, other) };
    // Owners may hold a write-only slot with the same secret: never the lesser keys.
    if new.keys.is_write_only() && !old.keys.is_write_only() {
        return old;
    }
    new
}

/// Tells of every call where somebody listens.
fn traced(store: Arc<dyn Store>) -> Arc<dyn Store> {
    if is_listening() { Arc::new(TracedStore(store)) } else { store }
}

pub(super) fn open_index(
    environment: &Environment,
    id: RepositoryId,
    keys: &KeyRing,
) -> Result<Index> {
    let is_write_only = keys.is_write_only();
    let index = match cache_folder(environment, id, is_write_only) {
        Some(folder) => Index::open(&folder, id)?,
        None => Index::temporary(id)?,
    };
    Ok(if is_write_only { index.write_only() } else { index })
}

/// Where the local index is kept. What a write-only key knows is less, and kept apart.
pub(super) fn cache_folder(
    environment: &Environment,
    id: RepositoryId,
    is_write_only: bool,
) -> Option<PathBuf> {
    let suffix = if is_write_only { "-write-only" } else { "" };
    environment.cache.as_ref().map(|folder| folder.join(format!("{}{suffix}", id.to_hex())))
}

/// A repository can be made where nothing stands but what a probe left. What an `init` left that
/// was interrupted later is not removed: another one may be at work there this moment.
fn refuse_occupied(store: &dyn Store) -> Result<()> {
    let location = store.location();
    let objects = store.list("")?;
    if objects.iter().any(|object| object.path == paths::CONFIG) {
        return Err(Error::RepositoryExists { location });
    }
    let mut others = objects.iter().filter(|object| !object.path.starts_with(PROBE)).peekable();
    if others.peek().is_none() {
        return Ok(());
    }
    let is_ours = |path: &str| path.starts_with(paths::KEYS) || path == paths::log(0);
    if others.all(|object| is_ours(&object.path)) {
        return Err(Error::InitInterrupted { location });
    }
    Err(Error::NotEmpty { location })
}

/// Everything rests on `put_new` refusing a name that is taken; a store that does not is no store.
impl Repository {
    /// Fails where the store does not keep to create-only puts, as some do that say they are S3.
    pub(crate) fn probe_create_only(&self) -> Result<()> {
        let unique = RepositoryId(random::<16>(&*self.environment.entropy));
        probe_create_only(&*self.store, &unique)
    }
}

fn probe_create_only(store: &dyn Store, id: &RepositoryId) -> Result<()> {
    let path = format!("{PROBE}{id}");
    match store.put_new(&path, b"first") {
        // Nobody else has this name: an attempt whose reply was lost was our own.
        Err(StoreError::AlreadyExists { .. }) => {}
        other => other?,
    }
    let second = store.put_new(&path, b"second");
    let kept = store.get(&path)?;
    match store.delete(&path) {
        // Where everything is kept for a while, so is this; it is in nobody's way.
        Ok(()) | Err(StoreError::Denied { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match second {
        Err(StoreError::AlreadyExists { .. }) if kept == b"first" => Ok(()),
        // A store that fails is not one that overwrites.
        Err(error) if kept == b"first" => Err(error.into()),
        _ => Err(Error::Conflict(format!(
            "{} overwrites existing objects when asked not to; it cannot hold a repository",
            store.location()
        ))),
    }
}
