//! One file a verb: `Args`, whose doc comments are the help text, and a function.

mod backup;
mod backup_source;
mod cache;
mod cat;
mod check;
mod config;
mod copy;
mod demo;
mod diff;
mod drill;
mod dump;
mod find;
mod forget;
mod generate;
mod init;
mod key;
mod log;
mod ls;
#[cfg(feature = "mount")]
mod mount;
mod paths;
mod prune;
mod repair;
mod restore;
mod restore_into;
mod restore_other;
mod rows;
mod snapshots;
mod source;
mod stats;
mod tables;
mod tag;

use anyhow::Result;
use clap::{Args, Subcommand};
use restow::format::name::Name;
use restow::format::snapshot::Snapshot;
use restow::repository::snapshots::Filter;

use super::Global;

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Create a repository
    Init(init::InitArgs),
    /// Back up files and directories, standard input, or the output of commands
    Backup(backup::BackupArgs),
    /// List the sources of the configuration file, or test one
    Source(source::SourceArgs),
    /// Prove that a source restores, and keep the report
    Drill(drill::DrillArgs),
    /// Check the configuration file, or print an example of one
    Config(config::ConfigArgs),
    /// Write a stream or file of a snapshot to standard output, or a directory as an archive
    Dump(dump::DumpArgs),
    /// Restore the files of a snapshot, or a part of them; streams become files
    Restore(restore::RestoreArgs),
    /// List the tables of a snapshot: rows, bytes, where they stand
    Tables(tables::TablesArgs),
    /// Compare the rows of a table in a snapshot with the live ones, and get the old ones back
    Rows(rows::RowsArgs),
    /// List what a snapshot holds
    Ls(ls::LsArgs),
    /// Find files and streams in snapshots
    Find(find::FindArgs),
    /// List snapshots
    Snapshots(snapshots::SnapshotsArgs),
    /// Print the repository's configuration, a snapshot or a log entry as JSON
    Cat(cat::CatArgs),
    /// Mount the snapshots as a read-only file system, until Ctrl-C
    #[cfg(feature = "mount")]
    Mount(mount::MountArgs),
    /// Show what the repository holds and what deduplication, deltas and compression save
    Stats(stats::StatsArgs),
    /// Compare two snapshots
    Diff(diff::DiffArgs),
    /// Change the tags of snapshots
    Tag(tag::TagArgs),
    /// Forget snapshots by id or by a policy; prune frees their space
    Forget(forget::ForgetArgs),
    /// Copy snapshots into another repository, or from another one
    Copy(copy::CopyArgs),
    /// Remove what no snapshot needs; backups may run meanwhile
    Prune(prune::PruneArgs),
    /// Look for damage
    Check(check::CheckArgs),
    /// Mend what is damaged, as far as anything is left to mend it with
    Repair(repair::RepairArgs),
    /// Add, list, remove and change passwords and key files
    Key(key::KeyArgs),
    /// Show what changed the repository: who, when, what
    Log(log::LogArgs),
    /// List the local caches, or throw some away
    Cache(cache::CacheArgs),
    /// Show the whole thing on a real SQLite database in a temporary folder
    Demo(demo::DemoArgs),
    /// Print the version of the program and of the format
    Version,
    /// Print a completion script for a shell
    Completions(generate::CompletionsArgs),
    /// Print the manual page, or write one for each command into a folder
    Man(generate::ManArgs),
}

impl Command {
    /// Whether the configuration file may say where the repository is.
    pub fn needs_repository(&self) -> bool {
        !matches!(
            self,
            Self::Config(_) | Self::Demo(_) | Self::Version | Self::Completions(_) | Self::Man(_)
        )
    }
}

/// Runs a command and gives its exit code.
pub fn run(global: &Global, command: Command) -> Result<u8> {
    match command {
        Command::Init(args) => init::run(global, args),
        Command::Backup(args) => backup::run(global, args),
        Command::Source(args) => source::run(global, args),
        Command::Drill(args) => drill::run(global, args),
        Command::Config(args) => config::run(global, args),
        Command::Dump(args) => dump::run(global, args),
        Command::Restore(args) => restore::run(global, args),
        Command::Tables(args) => tables::run(global, args),
        Command::Rows(args) => rows::run(global, args),
        Command::Ls(args) => ls::run(global, args),
        Command::Find(args) => find::run(global, args),
        Command::Snapshots(args) => snapshots::run(global, args),
        Command::Cat(args) => cat::run(global, args),
        #[cfg(feature = "mount")]
        Command::Mount(args) => mount::run(global, args),
        Command::Stats(args) => stats::run(global, args),
        Command::Diff(args) => diff::run(global, args),
        Command::Tag(args) => tag::run(global, args),
        Command::Forget(args) => forget::run(global, args),
        Command::Copy(args) => copy::run(global, args),
        Command::Prune(args) => prune::run(global, args),
        Command::Check(args) => check::run(global, args),
        Command::Repair(args) => repair::run(global, args),
        Command::Key(args) => key::run(global, args),
        Command::Log(args) => log::run(global, args),
        Command::Cache(args) => cache::run(global, args),
        Command::Demo(args) => demo::run(args),
        Command::Version => generate::version(global),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::man(args),
    }
}

/// Which snapshots a command works on.
#[derive(Args, Default)]
pub struct FilterArgs {
    /// Only snapshots of this host (may be given several times)
    #[arg(short = 'H', long, value_name = "HOST")]
    host: Vec<String>,
    /// Only snapshots with all of these tags, separated by commas (several times: any of them); '' for
    /// those without tags
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
            paths: self.path.iter().flat_map(|path| spellings(path)).collect(),
            ..Filter::default()
        }
    }
}

/// A path as it was given, and as it stands in snapshots where it leads through links.
fn spellings(path: &std::ffi::OsStr) -> Vec<Name> {
    let mut names = vec![name_of(path)];
    if let Ok(real) = paths::plain(std::path::Path::new(path)) {
        names.push(name_of(real.as_os_str()));
    }
    names
}

fn split_tags(list: &str) -> Vec<String> {
    list.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

/// What a snapshot holds, in a few words: a database has more streams than anybody wants to read of.
fn contents(snapshot: &Snapshot) -> String {
    let streams = snapshot.streams.iter().map(|stream| &stream.name);
    let names: Vec<_> = streams.chain(&snapshot.paths).map(ToString::to_string).collect();
    match &snapshot.source {
        Some(source) if snapshot.streams.len() > 1 => {
            format!("{} ({}, {} streams)", source.name, source.engine, snapshot.streams.len())
        }
        _ => names.join(" "),
    }
}

/// The path that a name stands for.
fn path_of(name: &Name) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()))
}

fn name_of(text: &std::ffi::OsStr) -> Name {
    Name::new(text.as_encoded_bytes())
}
