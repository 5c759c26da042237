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

use crate::cli::{Global, KEPT, output};

/// List what is kept on this machine of repositories, or throw it away
///
/// That is a local index, and of a repository elsewhere the packs put or read last. A local index is made from the repository alone and is made again when it is gone. It also
/// remembers where the commit log stood, which is how a repository that was rolled back or replaced
/// is noticed; --forget forgets that too.
#[derive(Args)]
pub struct CacheArgs {
    /// Throw away the index of the repository
    #[arg(long)]
    forget: bool,
    /// Throw away the kept packs of the repository, and nothing else
    #[arg(long, conflicts_with = "forget")]
    clear: bool,
}

/// Lists or forgets.
pub fn run(global: &Global, args: CacheArgs) -> Result<u8> {
    let folder = global.cache_folder()?;
    if args.forget || args.clear {
        forget(global, &folder, args.forget)?
    } else {
        list(global, &folder)?
    }
    Ok(0)
}

fn forget(global: &Global, folder: &Path, with_index: bool) -> Result<()> {
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
    if with_index {
        Index::forget(&folder).map_err(Error::from)?;
    }
    match fs::remove_dir_all(folder.join(KEPT)) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            let path = folder.join(KEPT).display().to_string();
            return Err(Error::Io { action: "remove", path, source }.into());
        }
        _ => {}
    }
    if global.json {
        let path = folder.to_string_lossy();
        output::json(&serde_json::json!({ "message_type": "forgotten", "folder": path }))?;
    } else if !global.quiet {
        let what = if with_index { "forgot the local index" } else { "removed the kept packs" };
        output::line(format!("{what} in {}", folder.display()))?;
    }
    Ok(())
}

fn list(global: &Global, folder: &Path) -> Result<()> {
    let mut rows = vec![["repository", "index", "packs", "last used"].map(str::to_owned).to_vec()];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = fs::metadata(entry.path().join("index.sqlite")) else { continue };
        let id = entry.file_name().to_string_lossy().into_owned();
        let used = metadata.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
        let kept = fs::read_dir(entry.path().join(KEPT)).into_iter().flatten().flatten();
        let kept: u64 = kept.filter_map(|piece| Some(piece.metadata().ok()?.len())).sum();
        if global.json {
            let (size, folder) = (metadata.len(), entry.path());
            output::json(&serde_json::json!({
                "repository": id, "size": size, "packs_size": kept, "last_used": used, "folder": folder.to_string_lossy(),
            }))?;
        }
        let used = used.map(|time| time.strftime("%Y-%m-%d %H:%M:%S").to_string());
        let (index, kept) = (output::bytes(metadata.len()), output::bytes(kept));
        rows.push(vec![id, index, kept, used.unwrap_or_default()]);
    }
    if !global.json {
        output::table(&rows)?;
    }
    Ok(())
}
