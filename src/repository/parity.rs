//! Making the bytes of a damaged pack again from its parity.

use super::Repository;
use crate::error::Result;
use crate::format::parity;
use crate::format::paths;
use crate::id::ObjectName;
use crate::store::StoreError;

/// What a damaged pack was found to be.
pub enum Mended {
    /// Its bytes as they were.
    Bytes(Vec<u8>),
    /// It is as it was, these bytes.
    Sound(Vec<u8>),
    /// There is no way, and why.
    Impossible(String),
}

impl Repository {
    /// Tries to make the bytes of a pack again. Changes nothing.
    pub fn mend_pack(&self, name: &ObjectName) -> Result<Mended> {
        let damaged = match self.store().get(&paths::pack(name)) {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => return Ok(Mended::Impossible("it is gone".into())),
            Err(error) if error.is_loss() => read_around(self, name)?,
            Err(error) => return Err(error.into()),
        };
        if ObjectName::of(&damaged) == *name {
            return Ok(Mended::Sound(damaged));
        }
        let stored = match self.store().get(&paths::parity(name)) {
            Ok(stored) => stored,
            Err(StoreError::NotFound { .. }) => {
                return Ok(Mended::Impossible("it has no parity".into()));
            }
            Err(error) if error.is_loss() => {
                return Ok(Mended::Impossible(format!("its parity cannot be read: {error}")));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(match parity::mend(&stored, &damaged) {
            Ok(bytes) if ObjectName::of(&bytes) == *name => Mended::Bytes(bytes),
            Ok(_) => Mended::Impossible("what its parity gives is not what it was".into()),
            Err(error) => Mended::Impossible(error.to_string()),
        })
    }
}

/// The readable blocks of a pack that a disk cannot read as a whole, zeros for the others.
fn read_around(repository: &Repository, name: &ObjectName) -> Result<Vec<u8>> {
    const STEP: usize = 4096;
    let path = paths::pack(name);
    let size = repository.store().head(&path)?;
    let mut bytes = Vec::new();
    for offset in (0..size).step_by(STEP) {
        let length = STEP.min((size - offset) as usize);
        match repository.store().get_range(&path, offset, length) {
            Ok(block) => bytes.extend(block),
            Err(error) if error.is_loss() => bytes.resize(bytes.len() + length, 0),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}
