//! Mending what is damaged, as far as anything is left to mend it with.
//!
//! [`index`] makes the list of what is where again, from packs alone if need be, and a log that
//! readers and writers accept. [`packs`] saves what is good of damaged packs and takes them off the
//! list. [`snapshots`] makes snapshots without what is lost. [`parity`] makes the bytes of packs again
//! that rotted. None of them deletes anything; each can be asked for its plan alone; each can be
//! interrupted anywhere and run again.

mod from;
pub mod index;
mod loss;
pub mod packs;
pub mod parity;
mod relist;
pub mod snapshots;

use std::collections::HashSet;

use serde::Serialize;

use crate::crypto::envelope::{Header, ObjectKind};
use crate::error::{Error, Result};
use crate::format::paths;
use crate::id::ObjectName;
use crate::repository::Repository;

/// Something that is damaged, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Finding {
    fn new(object: impl Into<String>, detail: impl ToString) -> Self {
        Self { object: object.into(), detail: detail.to_string() }
    }

    fn of(error: &Error) -> Self {
        let detail = match error {
            Error::Damaged { source, .. } => source.to_string(),
            Error::Missing { .. } => "is missing".to_owned(),
            other => other.to_string(),
        };
        Self::new(error.object(), detail)
    }
}

fn is_sealed_pack(header: &[u8]) -> bool {
    Header::parse(header, ObjectKind::Pack).is_ok_and(|header| header.is_sealed())
}

fn names(repository: &Repository, folder: &str) -> Result<HashSet<ObjectName>> {
    let listed = repository.store().list(folder)?;
    Ok(listed.iter().filter_map(|object| paths::object_name(&object.path)).collect())
}
