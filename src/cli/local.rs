//! What is kept on this machine: the folder of local indexes and of copies of packs. Where it cannot be
//! written, commands go on without.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Once;

use anyhow::{Context, Result};
use restow::clock::SystemClock;
use restow::crypto::slot::Secret;
use restow::error::Error;
use restow::format::config::Config;
use restow::repository::{Environment, Repository};
use restow::store::Store;
use restow::store::cache::CacheStore;

use super::location::Location;
use super::open::{Global, host};

/// Folder in the cache of a repository for pieces of its packs.
const KEPT: &str = "packs";

impl Global {
    /// Puts the local copies in front of a repository that is elsewhere.
    pub(super) fn cached(
        &self,
        (store, config): (Arc<dyn Store>, Vec<u8>),
    ) -> Result<Arc<dyn Store>> {
        if matches!(self.location()?, Location::Folder(_)) {
            return Ok(store);
        }
        // Where it cannot be understood, opening it will tell.
        let Ok(config) = Config::parse(&config) else { return Ok(store) };
        let clock = Arc::new(SystemClock);
        let Some(cache) = self.usable_cache()? else {
            let folder = tempfile::tempdir().context("make a temporary folder")?;
            let cached = CacheStore::open(store, folder.path(), self.cache_limit, clock);
            let cached = cached.context("make a temporary cache")?;
            return Ok(Arc::new(cached.that_owns(folder)));
        };
        let folder = cache.join(config.id.to_hex()).join(KEPT);
        match CacheStore::open(store.clone(), &folder, self.cache_limit, clock) {
            Ok(cached) => Ok(Arc::new(cached)),
            Err(error) => {
                let folder = folder.display();
                eprintln!("warning: going on without a cache: {folder}: {error}");
                Ok(store)
            }
        }
    }

    /// Clock, randomness and cache folder.
    pub fn environment(&self) -> Result<Environment> {
        let cache = self.usable_cache()?;
        let author = format!("{} restow {}", host(), env!("CARGO_PKG_VERSION"));
        Ok(Environment::system(author, cache))
    }

    /// Folder of the local indexes.
    pub fn cache_folder(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.cache_dir {
            return Ok(folder.clone());
        }
        let absolute = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        base.map(|base| base.join("restow")).ok_or_else(|| {
            Error::Usage("no home folder: use --cache-dir or --no-cache".into()).into()
        })
    }

    /// The same, where it can be written.
    pub fn usable_cache(&self) -> Result<Option<PathBuf>> {
        if self.no_cache {
            return Ok(None);
        }
        let folder = self.cache_folder()?;
        match try_out(&folder) {
            Ok(()) => Ok(Some(folder)),
            Err(error) => {
                warn(&format!("{}: {error}", folder.display()));
                Ok(None)
            }
        }
    }

    /// Opens a repository, with an index in a temporary file where the local one cannot be written.
    pub fn opened(&self, store: Arc<dyn Store>, secret: &Secret) -> Result<Repository, Error> {
        let environment = self.environment().map_err(|error| match error.downcast() {
            Ok(error) => error,
            Err(other) => Error::Usage(other.to_string()),
        })?;
        match Repository::open(store.clone(), secret, environment.clone()) {
            Err(Error::Index(error)) if environment.cache.is_some() && error.is_unwritable() => {
                warn(&error.to_string());
                Repository::open(store, secret, Environment { cache: None, ..environment })
            }
            other => other,
        }
    }
}

/// Fails where no file can be made in a folder.
fn try_out(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    tempfile::tempfile_in(folder).map(drop)
}

/// Says once that there is no cache.
fn warn(why: &str) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        eprintln!(
            "warning: going on with a temporary index, which takes longer: {why}; --cache-dir names \
             another folder"
        );
    });
}
