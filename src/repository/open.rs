//! Making and opening repositories.

use std::sync::{Arc, Mutex};

use super::keys::{NamedSlot, read_slots};
use super::{Environment, Repository};
use crate::chunker::Profile;
use crate::crypto::CryptoError;
use crate::crypto::keys::{KeyRing, MasterKey};
use crate::crypto::slot::{Kdf, Secret, Slot};
use crate::entropy::random;
use crate::error::{Error, Result};
use crate::format::config::{Config, FORMAT_VERSION};
use crate::format::log::{EntryKind, LogEntry};
use crate::format::pack::Padding;
use crate::format::paths;
use crate::id::RepositoryId;
use crate::index::Index;
use crate::store::{Store, StoreError};

/// Start of the name of the object that `init` tries the store with.
const PROBE: &str = "tmp-probe-";

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
        refuse_occupied(&*store)?;
        let entropy = &*environment.entropy;
        let master = MasterKey::generate(entropy);
        let keys = KeyRing::derive(&master);
        let created = environment.clock.now();
        let kdf = match secret {
            Secret::Password(_) => options.kdf.clone(),
            Secret::KeyFile(_) => Kdf::KeyFile,
        };
        let slot = Slot::wrap(&master, secret, kdf, &options.label, created, entropy)
            .map_err(|source| Error::damaged("new key slot", source))?;
        let config = Config {
            version: FORMAT_VERSION,
            id: RepositoryId(random(entropy)),
            created,
            required_features: Vec::new(),
            stream_chunks: options.stream_chunks,
            data_pack_bytes: options.data_pack_bytes,
            tree_pack_bytes: options.tree_pack_bytes,
            padding: options.padding,
        };
        probe_create_only(&*store, &config.id)?;
        let index = open_index(&environment, config.id)?;
        let mut repository = Self {
            store,
            environment,
            config,
            master,
            keys,
            index,
            slot: String::new(),
            damage: None,
            added_slots: Mutex::default(),
        };
        repository.put_first_entry(LogEntry::new(EntryKind::State))?;
        repository.slot = repository.put_slot(&slot)?;
        let stored = repository.config.encode(&repository.keys);
        repository.store.put_new(paths::CONFIG, &stored).map_err(|error| match error {
            StoreError::AlreadyExists { .. } => {
                Error::RepositoryExists { location: repository.store.location() }
            }
            other => other.into(),
        })?;
        repository.sync()?;
        Ok(repository)
    }

    /// Opens a repository and brings its index up to date. An index that turns out to be damaged
    /// is made anew.
    pub fn open(store: Arc<dyn Store>, secret: &Secret, environment: Environment) -> Result<Self> {
        let mut repository = Self::unlock(store, secret, environment)?;
        match repository.sync() {
            Err(Error::Index(error)) if error.is_damage() => repository.renew_index()?,
            other => drop(other?),
        }
        repository.expect_head()?;
        Ok(repository)
    }

    /// A repository whose keys are at hand and whose index stands wherever it stood.
    pub(super) fn unlock(
        store: Arc<dyn Store>,
        secret: &Secret,
        environment: Environment,
    ) -> Result<Self> {
        let location = store.location();
        let stored = match store.get(paths::CONFIG) {
            Ok(stored) => stored,
            Err(StoreError::NotFound { .. }) => return Err(Error::NoRepository { location }),
            Err(error) => return Err(error.into()),
        };
        let config = Config::parse(&stored).map_err(|source| Error::Config { location, source })?;
        let (slot, master) = unlock(&*store, secret, &stored)?;
        let keys = KeyRing::derive(&master);
        let index = open_index(&environment, config.id)?;
        Ok(Self {
            store,
            environment,
            config,
            master,
            keys,
            index,
            slot,
            damage: None,
            added_slots: Mutex::default(),
        })
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
        self.index = open_index(&self.environment, self.config.id)?;
        self.sync()?;
        Ok(())
    }
}

/// Finds the slot that `secret` opens and whose key the configuration was sealed with: a slot of
/// another repository may stand beside it.
fn unlock(store: &dyn Store, secret: &Secret, config: &[u8]) -> Result<(String, MasterKey)> {
    let slots = read_slots(store)?;
    if slots.is_empty() {
        return Err(Error::missing_object("every key slot (keys/)"));
    }
    let mut damaged = None;
    for NamedSlot { name, slot } in slots {
        let slot = match slot {
            Ok(slot) => slot,
            Err(error) => {
                damaged = Some(error);
                continue;
            }
        };
        if !slot.takes(secret) {
            continue;
        }
        match slot.unwrap_master(secret) {
            Ok(master) => match Config::verify(config, &KeyRing::derive(&master)) {
                Ok(_) => return Ok((name, master)),
                Err(source) => damaged = Some(Error::damaged(paths::CONFIG, source)),
            },
            Err(CryptoError::NotAuthentic) => {}
            Err(error) => damaged = Some(Error::damaged(format!("{}{name}", paths::KEYS), error)),
        }
    }
    Err(damaged.unwrap_or(Error::WrongSecret { location: store.location() }))
}

fn open_index(environment: &Environment, id: RepositoryId) -> Result<Index> {
    Ok(match &environment.cache {
        Some(folder) => Index::open(&folder.join(id.to_hex()), id)?,
        None => Index::temporary(id)?,
    })
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
    store.put_new(&path, b"first")?;
    let second = store.put_new(&path, b"second");
    let kept = store.get(&path)?;
    store.delete(&path)?;
    match second {
        Err(StoreError::AlreadyExists { .. }) if kept == b"first" => Ok(()),
        _ => Err(Error::Conflict(format!(
            "{} overwrites existing objects when asked not to; it cannot hold a repository",
            store.location()
        ))),
    }
}
