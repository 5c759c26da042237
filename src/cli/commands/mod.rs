//! One file a verb: `Args`, whose doc comments are the help text, and a function.

mod backup;
mod dump;
mod init;
mod snapshots;

use anyhow::Result;
use clap::{Args, Subcommand};
use restow::format::name::Name;
use restow::repository::snapshots::Filter;

use super::Global;

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Create a repository
    Init(init::InitArgs),
    /// Back up streams: standard input, or the output of commands
    Backup(backup::BackupArgs),
    /// Write one stream of a snapshot to standard output
    Dump(dump::DumpArgs),
    /// List snapshots
    Snapshots(snapshots::SnapshotsArgs),
}

/// Runs a command and gives its exit code.
pub fn run(global: &Global, command: Command) -> Result<u8> {
    match command {
        Command::Init(args) => init::run(global, args),
        Command::Backup(args) => backup::run(global, args),
        Command::Dump(args) => dump::run(global, args),
        Command::Snapshots(args) => snapshots::run(global, args),
    }
}

/// Which snapshots a command works on.
#[derive(Args, Default)]
pub struct FilterArgs {
    /// Only snapshots of this host (may be given several times)
    #[arg(short = 'H', long, value_name = "HOST")]
    host: Vec<String>,
    /// Only snapshots with all of these tags, separated by commas (several times: any of them)
    #[arg(long, value_name = "TAG[,TAG…]")]
    tag: Vec<String>,
    /// Only snapshots that hold this path (may be given several times)
    #[arg(long, value_name = "PATH")]
    path: Vec<std::ffi::OsString>,
}

impl FilterArgs {
    fn filter(&self) -> Filter {
        Filter {
            hosts: self.host.clone(),
            tags: self.tag.iter().map(|list| split_tags(list)).collect(),
            paths: self.path.iter().map(|path| name_of(path)).collect(),
        }
    }
}

fn split_tags(list: &str) -> Vec<String> {
    list.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

fn name_of(text: &std::ffi::OsStr) -> Name {
    Name::new(text.as_encoded_bytes())
}
