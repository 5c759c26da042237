//! What a backup may be asked for: streams of different names that can be restored, or files.

use std::collections::HashSet;

use super::BackupOptions;
use crate::error::{Error, Result};

/// Fails where streams cannot bear their names, or where there is nothing to back up.
pub fn check(options: &BackupOptions) -> Result<()> {
    let mut seen = HashSet::new();
    let closing = options.closing.iter().map(|closing| &closing.name);
    for name in options.streams.iter().map(|stream| &stream.name).chain(closing) {
        if name.relative().is_empty() {
            return Err(Error::Usage("a stream needs a name".into()));
        }
        if !name.is_file_path() {
            return Err(Error::Usage(format!(
                "the name {name} does not stand for a file in a folder: it could not be restored"
            )));
        }
        if !seen.insert(name.relative().to_vec()) {
            return Err(Error::Usage(format!("two streams are called {name}")));
        }
    }
    let no_files = options.files.as_ref().is_none_or(|files| files.paths.is_empty());
    if options.streams.is_empty() && no_files {
        Err(Error::Usage("nothing to back up".into()))
    } else {
        Ok(())
    }
}
