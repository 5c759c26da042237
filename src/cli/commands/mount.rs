//! `restow mount`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use restow::error::Error;
use restow::mount::fs::MountFs;
use restow::mount::fuse::mount;
use rustix::mount::UnmountFlags;

use super::FilterArgs;
use crate::cli::{Global, interrupt, output};

/// Mount the snapshots as a read-only file system, until Ctrl-C
///
/// Needs fusermount3 (Debian: fuse3), or root. `umount` or `fusermount3 -u` end it too.
#[derive(Args)]
pub struct MountArgs {
    /// An empty directory
    mountpoint: PathBuf,
    /// Let other users in; their access is checked by owners and permissions
    #[arg(long)]
    allow_other: bool,
    /// Memory for decoded chunks; K, M and G stand for powers of 1024
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = output::parse_size)]
    cache_size: u64,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Mounts and waits.
pub fn run(global: &Global, args: MountArgs) -> Result<u8> {
    if !args.mountpoint.is_dir() {
        let text = format!("{} is not a directory", args.mountpoint.display());
        return Err(Error::Usage(text).into());
    }
    // The file system lives as long as the process: what the kernel asks last must find it.
    let repository = Box::leak(Box::new(global.open_read_only()?));
    let cache = usize::try_from(args.cache_size).unwrap_or(usize::MAX);
    let fs = Box::leak(Box::new(MountFs::new(repository, args.filter.filter(), cache)));
    let log: fn(&str) = |line| eprintln!("restow: {line}");
    let session = mount(fs, &args.mountpoint, args.allow_other, log)
        .with_context(|| format!("mount at {}", args.mountpoint.display()))?;
    if global.json {
        let directory = args.mountpoint.to_string_lossy();
        let mounted = serde_json::json!({ "message_type": "mounted", "directory": directory });
        output::json(&mounted)?;
    } else if !global.quiet {
        let place = args.mountpoint.display();
        output::line(format!("mounted at {place}; Ctrl-C or 'umount {place}' ends it"))?;
    }
    let progress = interrupt::progress();
    while !progress.is_interrupted() && !session.guard.is_finished() {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    if progress.is_interrupted() {
        match session.umount_and_join() {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                detach(&args.mountpoint)?;
            }
            other => other.context("unmount")?,
        }
    }
    Ok(0)
}

/// Takes a mount that is in use out of the tree; it goes when its last user does.
fn detach(place: &Path) -> Result<()> {
    eprintln!("restow: {} is in use; it is detached", place.display());
    if rustix::mount::unmount(place, UnmountFlags::DETACH).is_ok() {
        return Ok(());
    }
    // An ordinary user may only by this helper.
    let status = Command::new("fusermount3").args(["-u", "-z"]).arg(place).status();
    let is_done = status.context("run fusermount3")?.success();
    anyhow::ensure!(is_done, "{} is still mounted; unmount it by hand", place.display());
    Ok(())
}
