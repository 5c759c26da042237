//! `restow cache`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use restow::error::Error;
use restow::format::config::Config;
use restow::format::paths;
use restow::id::RepositoryId;
use restow::store::{Store, StoreError};

use crate::cli::{Global, output};

/// A repository whose folder was not used for so long is taken for gone by --cleanup.
const UNUSED_DAYS: i64 = 30;

/// List the local caches, or throw some away
///
/// Each repository has a folder of its own with the local index. It is made from the repository
/// alone and is made again when it is gone. It also remembers where the commit log stood, which is
/// how a repository that was rolled back or replaced is noticed: throwing it away forgets that too.
#[derive(Args)]
pub struct CacheArgs {
    /// Throw away the cache of the repository
    #[arg(long, group = "what")]
    forget: bool,
    /// Throw away the caches of these repositories, by id or its first digits
    #[arg(long, value_name = "ID", group = "what", num_args = 1..)]
    clear: Vec<String>,
    /// Throw away the caches of all repositories that were not used for a while
    #[arg(long, group = "what")]
    cleanup: bool,
    /// With --cleanup: for how many days
    #[arg(long, value_name = "DAYS", default_value_t = UNUSED_DAYS, requires = "cleanup")]
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    older_than: i64,
    /// Say what would be thrown away
    #[arg(short = 'n', long, requires = "what")]
    dry_run: bool,
    #[command(subcommand)]
    word: Option<Word>,
}

/// The same in words.
#[derive(Subcommand)]
enum Word {
    /// List the local caches
    List,
    /// Throw away the caches of these repositories, or that of --repo
    Clear {
        /// Ids or their first digits
        ids: Vec<String>,
        /// Say what would be thrown away
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

impl CacheArgs {
    /// The options that say the same as a word.
    fn plain(self) -> Result<Self, Error> {
        let is_plain = !self.forget && !self.cleanup && self.clear.is_empty();
        match self.word {
            None => Ok(self),
            Some(_) if !is_plain => {
                Err(Error::Usage("'list' and 'clear' go without other options".into()))
            }
            Some(Word::List) => Ok(Self { word: None, ..self }),
            Some(Word::Clear { ids, dry_run }) => {
                Ok(Self { forget: ids.is_empty(), clear: ids, dry_run, word: None, ..self })
            }
        }
    }
}

/// What follows the id in the name of a folder that a write-only key uses.
const WRITE_ONLY: &str = "-write-only";

/// A repository's folder.
struct Cached {
    id: RepositoryId,
    folder: PathBuf,
    size: u64,
    used: Option<Timestamp>,
}

/// Lists or throws away.
pub fn run(global: &Global, args: CacheArgs) -> Result<u8> {
    let args = args.plain()?;
    let base = global.cache_folder()?;
    if args.forget {
        let id = repository_id(global)?;
        let mut known = all(&base);
        known.retain(|cached| cached.id == id);
        for cached in known {
            clear(global, &cached, args.dry_run)?;
        }
    } else if args.cleanup {
        let now = global.environment()?.clock.now();
        let age = SignedDuration::from_hours(args.older_than.saturating_mul(24).min(1 << 30));
        let limit = now.checked_sub(age).unwrap_or(Timestamp::MIN);
        for cached in all(&base) {
            if cached.used.is_some_and(|used| used <= limit) {
                clear(global, &cached, args.dry_run)?;
            }
        }
    } else if !args.clear.is_empty() {
        let known = all(&base);
        let ids: Vec<RepositoryId> =
            args.clear.iter().map(|wanted| choose(&known, wanted)).collect::<Result<_, _>>()?;
        for cached in known.iter().filter(|cached| ids.contains(&cached.id)) {
            clear(global, cached, args.dry_run)?;
        }
    } else {
        list(global, &all(&base))?;
    }
    Ok(0)
}

/// The id of the repository that `--repo` names; no key is needed.
fn repository_id(global: &Global) -> Result<RepositoryId> {
    let store = global.store()?;
    let location = store.location();
    let stored = store.get(paths::CONFIG).map_err(|error| match error {
        StoreError::NotFound { .. } => Error::NoRepository { location: location.clone() },
        other => other.into(),
    })?;
    let config = Config::parse(&stored).map_err(|source| Error::Config { location, source })?;
    Ok(config.id)
}

/// The folders of all repositories, by id. What has not the name of one is none of ours.
fn all(base: &Path) -> Vec<Cached> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.filter_map(|entry| look(entry.path())).collect();
    found.sort_by(|a, b| a.folder.cmp(&b.folder));
    found
}

fn look(folder: PathBuf) -> Option<Cached> {
    let name = folder.file_name()?.to_str()?;
    let id = RepositoryId::from_hex(name.strip_suffix(WRITE_ONLY).unwrap_or(name)).ok()?;
    if !folder.symlink_metadata().ok()?.is_dir() {
        return None;
    }
    let mut cached = Cached { id, folder: folder.clone(), size: 0, used: None };
    let mut waiting = vec![folder];
    while let Some(path) = waiting.pop() {
        // Of the entry itself: links are not followed.
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let changed = metadata.modified().ok();
        // SQLite makes and removes files whenever an index is opened: folders tell of reading too.
        let changed = changed.and_then(|time| Timestamp::try_from(time).ok());
        cached.used = cached.used.max(changed);
        if metadata.is_dir() {
            let below = fs::read_dir(path).into_iter().flatten().flatten();
            waiting.extend(below.map(|entry| entry.path()));
        } else {
            cached.size += metadata.len();
        }
    }
    Some(cached)
}

fn choose(known: &[Cached], wanted: &str) -> Result<RepositoryId, Error> {
    let lower = wanted.to_ascii_lowercase();
    let is_meant = |id: &RepositoryId| wanted.len() >= 2 && id.to_hex().starts_with(&lower);
    let mut matching: Vec<_> = known.iter().map(|cached| cached.id).filter(is_meant).collect();
    matching.dedup();
    match matching[..] {
        [one] => Ok(one),
        _ => Err(Error::Usage(format!(
            "'{wanted}' matches the caches of {} repositories; 'restow cache' lists them",
            matching.len()
        ))),
    }
}

fn clear(global: &Global, cached: &Cached, dry_run: bool) -> Result<()> {
    if !dry_run {
        match fs::remove_dir_all(&cached.folder) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                let path = cached.folder.display().to_string();
                return Err(Error::Io { action: "remove", path, source }.into());
            }
            _ => {}
        }
    }
    if global.json {
        output::json(&serde_json::json!({
            "message_type": "forgotten", "repository": cached.id, "size": cached.size,
            "folder": cached.folder.to_string_lossy(), "dry_run": dry_run,
        }))?;
    } else if !global.quiet {
        let verb = if dry_run { "would remove" } else { "removed" };
        let (folder, size) = (cached.folder.display(), output::bytes(cached.size));
        output::line(format!("{verb} {folder} ({size})"))?;
    }
    Ok(())
}

fn list(global: &Global, caches: &[Cached]) -> Result<()> {
    let mut rows = vec![["repository", "size", "last used"].map(str::to_owned).to_vec()];
    for Cached { id, folder, size, used } in caches {
        if global.json {
            output::json(&serde_json::json!({
                "repository": id, "size": size, "last_used": used, "folder": folder.to_string_lossy(),
            }))?;
        }
        let used = used.map(|time| time.strftime("%Y-%m-%d %H:%M:%S").to_string());
        rows.push(vec![id.to_hex(), output::bytes(*size), used.unwrap_or_default()]);
    }
    if !global.json {
        output::table(&rows)?;
    }
    Ok(())
}
