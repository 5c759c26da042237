//! When a prune must not begin.

use super::PruneOptions;
use crate::error::{Error, Result};
use crate::format::log::{EntryKind, LogEntry};
use crate::repository::Repository;

/// Snapshots whose manifests cannot be read may need anything: nothing is garbage before they are read
/// again or forgotten.
pub fn spare_unread(repository: &Repository, options: &PruneOptions) -> Result<()> {
    let unread = repository.unread_snapshots()?;
    if unread.is_empty() {
        return Ok(());
    }
    if !options.forget_unread {
        return Err(Error::Conflict(format!(
            "{} snapshots cannot be read, {} first, so what is garbage cannot be told; 'restow repair \
             index' takes them in again once they can be read, --forget-unread forgets them",
            unread.len(),
            unread[0].short()
        )));
    }
    if options.dry_run {
        return Ok(());
    }
    let forgotten = repository.commit(&mut || {
        let mut entry = LogEntry::new(EntryKind::Forget);
        entry.snapshot_remove = repository.unread_snapshots()?;
        Ok(entry)
    });
    forgotten.map(drop)
}

/// Without any snapshot all would go.
pub fn refuse_empty(repository: &Repository, options: &PruneOptions) -> Result<()> {
    if options.allow_empty || !repository.index().snapshot_names()?.is_empty() {
        return Ok(());
    }
    let text = "there is no snapshot, so everything is garbage; --allow-empty removes it";
    Err(Error::Conflict(text.into()))
}
