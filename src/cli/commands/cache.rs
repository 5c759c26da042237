//! `restow cache`.

use std::fs;
use std::path::Path;

use anyhow::Result;
use clap::Args;
use restow::error::Error;
use restow::format::config::Config;
use restow::format::paths;
use restow::index::Index;
use restow::store::Store;

use crate::cli::{Global, output};

/// List the local indexes, or throw one away
///
/// A local index is made from the repository alone and is made again when it is gone. It also
/// remembers where the commit log stood, which is how a repository that was rolled back or replaced
/// is noticed; --forget forgets that too.
#[derive(Args)]
pub struct CacheArgs {
    /// Throw away the index of the repository
    #[arg(long)]
    forget: bool,
}

/// Lists or forgets.
pub fn run(global: &Global, args: CacheArgs) -> Result<u8> {
    let folder = global.cache_folder()?;
    if args.forget {
        forget(global, &folder)?
    } else {
        list(global, &folder)?
    }
    Ok(0)
}

fn forget(global: &Global, folder: &Path) -> Result<()> {
    let store = global.store()?;
    let location = store.location();
    let stored = store.get(paths::CONFIG).map_err(|error| match error {
        restow::store::StoreError::NotFound { .. } => {
            Error::NoRepository { location: location.clone() }
        }
        other => other.into(),
    })?;
    let config = Config::parse(&stored).map_err(|source| Error::Config { location, source })?;
    let folder = folder.join(config.id.to_hex());
    Index::forget(&folder).map_err(Error::from)?;
    if global.json {
        let path = folder.to_string_lossy();
        output::json(&serde_json::json!({ "message_type": "forgotten", "folder": path }))?;
    } else if !global.quiet {
        output::line(format!("forgot the local index in {}", folder.display()))?;
    }
    Ok(())
}

fn list(global: &Global, folder: &Path) -> Result<()> {
    let mut rows = vec![["repository", "size", "last used"].map(str::to_owned).to_vec()];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = fs::metadata(entry.path().join("index.sqlite")) else { continue };
        let id = entry.file_name().to_string_lossy().into_owned();
        let used = metadata.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
        if global.json {
            let (size, folder) = (metadata.len(), entry.path());
            output::json(&serde_json::json!({
                "repository": id, "size": size, "last_used": used, "folder": folder.to_string_lossy(),
            }))?;
        }
        let used = used.map(|time| time.strftime("%Y-%m-%d %H:%M:%S").to_string());
        rows.push(vec![id, output::bytes(metadata.len()), used.unwrap_or_default()]);
    }
    if !global.json {
        output::table(&rows)?;
    }
    Ok(())
}
