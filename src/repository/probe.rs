//! Everything rests on `put_new` refusing a name that is taken; a store that does not is no store.

use std::io;

use super::Repository;
use crate::entropy::random;
use crate::error::{Error, Result};
use crate::id::RepositoryId;
use crate::store::{Store, StoreError};

/// Names of what is put to see what the store does begin with this.
pub(super) const PROBE: &str = "tmp-probe-";

impl Repository {
    /// Fails where the store does not keep to create-only puts, as some do that say they are S3.
    pub(crate) fn probe_create_only(&self) -> Result<()> {
        let unique = RepositoryId(random::<16>(&*self.environment.entropy));
        probe_create_only(&*self.store, &unique)
    }
}

pub(super) fn probe_create_only(store: &dyn Store, id: &RepositoryId) -> Result<()> {
    let path = format!("{PROBE}{id}");
    match store.put_new(&path, b"first") {
        // Nobody else has this name: an attempt whose reply was lost was our own.
        Err(StoreError::AlreadyExists { .. }) => {}
        Err(StoreError::Failed { source, .. }) if source.kind() == io::ErrorKind::Unsupported => {
            return Err(Error::Conflict(format!(
                "{} cannot create an object only if there is none of its name ({source}); it cannot \
                 hold a repository",
                store.location()
            )));
        }
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
