//! Making and opening repositories.

use std::sync::Arc;

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
    /// Makes a repository in an empty store and opens it. The configuration is written last: what a
    /// crash leaves before that is not a repository, and `init` can simply be run again.
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
        let repository = Self { store, environment, config, master, keys, index };
        repository.put_slot(&slot)?;
        repository.put_first_entry(LogEntry::new(EntryKind::State))?;
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

    /// Opens a repository and brings its index up to date.
    pub fn open(store: Arc<dyn Store>, secret: &Secret, environment: Environment) -> Result<Self> {
        let location = store.location();
        let stored = match store.get(paths::CONFIG) {
            Ok(stored) => stored,
            Err(StoreError::NotFound { .. }) => return Err(Error::NoRepository { location }),
            Err(error) => return Err(error.into()),
        };
        let config = Config::parse(&stored)
            .map_err(|source| Error::Config { location: location.clone(), source })?;
        let master = unlock(&*store, secret)?;
        let keys = KeyRing::derive(&master);
        Config::verify(&stored, &keys).map_err(|source| Error::damaged(paths::CONFIG, source))?;
        let index = open_index(&environment, config.id)?;
        let repository = Self { store, environment, config, master, keys, index };
        repository.sync()?;
        Ok(repository)
    }
}

/// Finds the slot that `secret` opens.
fn unlock(store: &dyn Store, secret: &Secret) -> Result<MasterKey> {
    let slots = store.list(paths::KEYS)?;
    if slots.is_empty() {
        return Err(Error::missing_object("every key slot (keys/)"));
    }
    let mut damaged = None;
    for object in slots {
        let slot: Slot = match serde_json::from_slice(&store.get(&object.path)?) {
            Ok(slot) => slot,
            Err(_) => {
                damaged =
                    Some(Error::damaged(object.path, CryptoError::Malformed("not a key slot")));
                continue;
            }
        };
        if !slot.takes(secret) {
            continue;
        }
        match slot.unwrap_master(secret) {
            Ok(master) => return Ok(master),
            Err(CryptoError::NotAuthentic) => {}
            Err(error) => damaged = Some(Error::damaged(object.path, error)),
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

/// What an interrupted `init` left (slots, the first log entry) is no obstacle; anything else is.
fn refuse_occupied(store: &dyn Store) -> Result<()> {
    let location = store.location();
    let objects = store.list("")?;
    if objects.iter().any(|object| object.path == paths::CONFIG) {
        return Err(Error::RepositoryExists { location });
    }
    if objects.is_empty() {
        return Ok(());
    }
    Err(Error::NotEmpty { location })
}

/// Everything rests on `put_new` refusing a name that is taken; a store that does not is no store.
fn probe_create_only(store: &dyn Store, id: &RepositoryId) -> Result<()> {
    let path = format!("tmp-probe-{id}");
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
