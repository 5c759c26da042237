//! `restow restore`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::Result;
use clap::{Args, ValueEnum};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use restow::error::Error;
use restow::format::name::Name;
use restow::repository::Repository;
use restow::repository::snapshots::{Filter, NamedSnapshot};
use restow::restore::files::{FileOptions, place_below, restore_stream, restore_unpacked};
use restow::restore::options::{Overwrite, Selection, TreeOptions, TreeReport, Wanted};
use restow::restore::tree::restore_tree;

use super::restore_into::{self, How, IntoArgs};
use super::{FilterArgs, name_of, tables};
use crate::cli::{Global, interrupt, output};

/// Restore the files of a snapshot, or a part of them; streams become files. Or put a database back
#[derive(Args)]
pub struct RestoreArgs {
    /// Id of the snapshot, its first digits, or `latest` [default, with --into or --source: latest]
    #[arg(value_name = "SNAPSHOT", required_unless_present_any = ["snapshot", "into", "source"])]
    #[arg(conflicts_with = "snapshot")]
    id: Option<String>,
    /// The same
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// Folder to restore into; paths of the snapshot go below it
    #[arg(short, long, value_name = "FOLDER", required_unless_present_any = ["into", "source"])]
    target: Option<PathBuf>,
    #[command(flatten)]
    into: IntoArgs,
    /// Restore only this path and all below it, or what matches this pattern (several times)
    #[arg(short, long, value_name = "PATH|PATTERN")]
    include: Vec<OsString>,
    /// Do not restore what matches this gitignore pattern (may be given several times)
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// What to do with files that exist
    #[arg(long, value_enum, default_value = "never", default_missing_value = "always")]
    #[arg(num_args = 0..=1, require_equals = true)]
    overwrite: OverwriteArg,
    /// Remove files that the restored directories did not hold
    #[arg(long)]
    delete: bool,
    /// Read everything again and compare it with the snapshot
    #[arg(long)]
    verify: bool,
    /// Leave holes for all blocks of zeros
    #[arg(long)]
    sparse: bool,
    /// Leave owners as they come
    #[arg(long)]
    no_owner: bool,
    /// Say what would be restored
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OverwriteArg {
    /// Leave them alone and fail
    Never,
    /// Replace those of another size or modification time
    IfChanged,
    /// Replace those that are older
    IfNewer,
    /// Write what differs from the snapshot
    Always,
}

/// Restores the chosen streams and files.
pub fn run(global: &Global, args: RestoreArgs) -> Result<u8> {
    let Some(target) = args.target.clone() else { return into_database(global, &args) };
    let (global, source) = args.into.source(global)?;
    let (global, args) = (&global, Files { target, args });
    let repository = global.open_read_only()?;
    let filter = Filter { source, ..args.filter.filter() };
    let named = repository.find_snapshot(args.wanted(), &filter)?;
    let progress = interrupt::progress();
    progress.total_bytes.store(named.snapshot.total_bytes(), Ordering::Relaxed);
    let display = output::Display::start(global, &progress);
    let options = options(&repository, &named, &args)?;
    let mut report = match named.snapshot.tree {
        Some(tree) => restore_tree(&repository, tree, &options, &progress)?,
        None => TreeReport::default(),
    };
    let streams = restore_streams(&repository, &named, &args, &options, &mut report)?;
    drop(display);
    for (name, path, size) in &streams {
        print_stream(global, &args, name, path, *size)?;
    }
    let found = report.files + report.directories + report.unchanged + report.problems.len() as u64;
    if !args.include.is_empty() && streams.is_empty() && found == 0 {
        let path = name_of(&args.include[0]).to_string();
        return Err(Error::NoPath { snapshot: named.name.short(), path }.into());
    }
    if named.snapshot.tree.is_some() || !report.problems.is_empty() {
        return print_tree(global, &args, &report);
    }
    Ok(0)
}

/// Puts a database back into a server.
fn into_database(global: &Global, args: &RestoreArgs) -> Result<u8> {
    let (global, source) = args.into.source(global)?;
    let repository = global.open_read_only()?;
    let named = tables::snapshot(&repository, args.wanted(), source, args.filter.filter())?;
    let how = How { no_owner: args.no_owner, dry_run: args.dry_run };
    restore_into::run(&global, &repository, &named, &args.into, how)
}

impl RestoreArgs {
    fn wanted(&self) -> &str {
        self.id.as_deref().or(self.snapshot.as_deref()).unwrap_or("latest")
    }
}

/// A restore of files, with the folder that it goes to.
struct Files {
    target: PathBuf,
    args: RestoreArgs,
}

impl std::ops::Deref for Files {
    type Target = RestoreArgs;

    fn deref(&self) -> &RestoreArgs {
        &self.args
    }
}

/// Restores the streams that are wanted. What goes wrong with one is noted; the others go on.
fn restore_streams(
    repository: &Repository,
    named: &NamedSnapshot,
    args: &Files,
    options: &TreeOptions,
    report: &mut TreeReport,
) -> Result<Vec<(Name, PathBuf, u64)>> {
    let progress = interrupt::progress();
    let mut restored = Vec::new();
    let snapshot = &named.snapshot;
    let how =
        FileOptions { target: &args.target, overwrite: options.overwrite, dry_run: args.dry_run };
    let is_wanted = |name: &Name| {
        let given = args.include.iter().map(|wanted| name_of(wanted));
        let is_named = given.into_iter().any(|wanted| wanted.relative() == name.relative());
        let place = Path::new("/").join(super::path_of(&Name::new(name.relative())));
        let is_chosen = |wanted: &Wanted| wanted(&place, false) == Selection::All;
        (is_named, options.wanted.as_ref().is_none_or(is_chosen))
    };
    // Name, size, whether it was written.
    let mut note = |name: &Name, size: u64, result: Result<bool, Error>| -> Result<()> {
        match result {
            Ok(true) => restored.push((name.clone(), place_below(&args.target, name)?, size)),
            Ok(false) => report.unchanged += 1,
            Err(Error::Interrupted) => return Err(Error::Interrupted.into()),
            Err(error) => report.problems.push((name.clone(), error.to_string())),
        }
        Ok(())
    };
    for stream in &snapshot.streams {
        let (is_named, is_chosen) = is_wanted(&stream.name);
        // Parts of a stream that was unpacked are of use only to those who ask for them.
        let is_part =
            snapshot.unpacked.iter().any(|it| [&it.plain, &it.recipe].contains(&&stream.name));
        if is_named || (is_chosen && !is_part) {
            let one = (stream, snapshot.time);
            let result = restore_stream(repository, one, how, &progress);
            note(&stream.name, stream.size, result)?;
        }
    }
    for unpacked in &snapshot.unpacked {
        let (is_named, is_chosen) = is_wanted(&unpacked.name);
        if is_named || is_chosen {
            let result = restore_unpacked(repository, snapshot, unpacked, how, &progress);
            let path = place_below(&args.target, &unpacked.name)?;
            let size = path.metadata().map_or(0, |metadata| metadata.len());
            note(&unpacked.name, size, result)?;
        }
    }
    Ok(restored)
}

fn options(repository: &Repository, named: &NamedSnapshot, args: &Files) -> Result<TreeOptions> {
    let wanted = selection(repository, named, args)?;
    if args.delete && wanted.is_some() {
        return Err(Error::Usage("--delete goes with whole restores alone".into()).into());
    }
    Ok(TreeOptions {
        target: args.target.clone(),
        wanted,
        overwrite: match args.overwrite {
            OverwriteArg::Never => Overwrite::Never,
            OverwriteArg::IfChanged => Overwrite::IfChanged,
            OverwriteArg::IfNewer => Overwrite::IfNewer,
            OverwriteArg::Always => Overwrite::Always,
        },
        delete: args.delete,
        kept: named.snapshot.streams.iter().map(|stream| stream.name.relative().to_vec()).collect(),
        verify: args.verify,
        sparse: args.sparse,
        dry_run: args.dry_run,
        no_owner: args.no_owner,
    })
}

/// What --include and --exclude choose; nothing where all is.
fn selection(
    repository: &Repository,
    named: &NamedSnapshot,
    args: &Files,
) -> Result<Option<Wanted>> {
    if args.include.is_empty() && args.exclude.is_empty() {
        return Ok(None);
    }
    let (mut paths, mut patterns) = (Vec::new(), Vec::new());
    for include in &args.include {
        let path = name_of(include);
        let is_path = match named.snapshot.tree {
            Some(tree) => repository.find_entry(tree, path.relative())?.is_some(),
            None => false,
        };
        let is_stream = named.snapshot.stream(path.as_bytes()).is_some();
        if is_path {
            paths.push(Path::new("/").join(super::path_of(&Name::new(path.relative()))));
        } else if !is_stream {
            let text = include.to_string_lossy();
            if !text.contains(['*', '?', '[']) {
                let snapshot = named.name.short();
                return Err(Error::NoPath { snapshot, path: path.to_string() }.into());
            }
            patterns.push(text.into_owned());
        }
    }
    let (patterns, excludes) = (compile(&patterns)?, compile(&args.exclude)?);
    let takes_all = args.include.is_empty();
    Ok(Some(Box::new(move |path, is_directory| {
        if excludes.matched_path_or_any_parents(path, is_directory).is_ignore() {
            return Selection::None;
        }
        let is_below = paths.iter().any(|wanted| path.starts_with(wanted));
        if takes_all
            || is_below
            || patterns.matched_path_or_any_parents(path, is_directory).is_ignore()
        {
            return Selection::All;
        }
        let is_above = paths.iter().any(|wanted| wanted.starts_with(path));
        if is_above || !patterns.is_empty() { Selection::Below } else { Selection::None }
    })))
}

fn compile(patterns: &[String]) -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new("/");
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(|error| Error::Usage(error.to_string()))?;
    }
    Ok(builder.build().map_err(|error| Error::Usage(error.to_string()))?)
}

fn print_stream(global: &Global, args: &Files, name: &Name, path: &Path, size: u64) -> Result<()> {
    if global.json {
        output::json(&serde_json::json!({
            "message_type": "restored", "name": name, "path": path.to_string_lossy(), "size": size,
            "dry_run": args.dry_run,
        }))?;
    } else if !global.quiet {
        let verb = if args.dry_run { "would restore" } else { "restored" };
        let path = Name::new(path.as_os_str().as_bytes());
        output::line(format!("{verb} {path} ({})", output::bytes(size)))?;
    }
    Ok(())
}

fn print_tree(global: &Global, args: &Files, report: &TreeReport) -> Result<u8> {
    for (path, detail) in &report.problems {
        eprintln!("restow: {path}: {detail}");
    }
    if global.json {
        let mut value = serde_json::to_value(report)?;
        let problems = report.problems.iter();
        let problem = |(path, detail)| serde_json::json!({ "path": path, "detail": detail });
        value["problems"] = problems.map(|(path, detail)| problem((path, detail))).collect();
        value["message_type"] = "summary".into();
        value["dry_run"] = args.dry_run.into();
        output::json(&value)?;
    } else if !global.quiet {
        let verb = if args.dry_run { "would restore" } else { "restored" };
        let mut text = format!(
            "{verb} {} files and {} directories, {} ({} written)",
            report.files,
            report.directories,
            output::bytes(report.bytes),
            output::bytes(report.written_bytes)
        );
        if report.unchanged > 0 {
            text.push_str(&format!(", {} files were unchanged", report.unchanged));
        }
        if report.deleted > 0 {
            text.push_str(&format!(", {} removed", report.deleted));
        }
        output::line(text)?;
        if report.partial_directories > 0 {
            eprintln!(
                "restow: nothing was removed in {} directories: not all that was in them is in the \
                 snapshot",
                report.partial_directories
            );
        }
    }
    Ok(u8::from(!report.problems.is_empty()))
}
