//! `restow backup`.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;
use restow::backup::{BackupOptions, ParentChoice, Report, StreamSource, run as back_up};
use restow::clock::{Clock, SystemClock};
use restow::database::command::catalogue;
use restow::database::scan::{Found, ScanInput};
use restow::database::verify::read_back;
use restow::error::Error;
use restow::format::name::Name;
use restow::format::snapshot::UnpackedStream;
use restow::repository::snapshots::Filter;
use restow::repository::{InitOptions, Repository};
use restow::settings::{SourceConfig, duration};
use restow::source::StreamInput;
use restow::source::command::CommandInput;
use restow::source::file::FileInput;
use restow::source::unpacking::{peek, unpack};

use super::backup_source::{self, Job};
use super::paths::PathArgs;
use super::{init, name_of, split_tags};
use crate::cli::exit::INCOMPLETE;
use crate::cli::{Global, interrupt, open, output};

/// Back up files and directories, standard input, or the output of commands
#[derive(Args)]
#[command(after_help = "Examples:
  restow backup /etc /srv/uploads --exclude '*.tmp'
  pg_dump shop | restow backup --stdin --stdin-filename shop.sql
  restow backup --stdin-filename shop.sql --stdin-from-command -- pg_dump shop
  restow backup --stream shop.sql='pg_dump shop' --stream users.ldif=slapcat

A command that fails makes no snapshot. A dump that is compressed already (pg_dump -Fc without -Z0,
.gz, .zst) cannot be deduplicated: let restow compress it.")]
pub struct BackupArgs {
    /// Back up this source of the configuration file, or postgres://…, mysql://…, sqlite:PATH
    #[arg(long, value_name = "NAME|URL", conflicts_with_all = ["paths", "stdin", "stdin_from_command", "stream"])]
    pub(super) source: Option<String>,
    /// Keep the snapshot from being forgotten, for good or for so long (30d, 12h)
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "", require_equals = false)]
    hold: Option<String>,
    /// Where another backup of this source runs, wait for its end instead of giving up
    #[arg(long, requires = "source")]
    pub(super) wait: bool,
    /// Read the snapshot back when it is made, and compare all tables with what was read
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    files: PathArgs,
    /// Back up standard input
    #[arg(long, group = "input")]
    stdin: bool,
    /// Back up the output of the command after `--`; it must exit with 0
    #[arg(long, group = "input", requires = "command")]
    stdin_from_command: bool,
    /// Store a dump of a database even where its end is missing; without this it makes no snapshot
    #[arg(long)]
    allow_cut_off: bool,
    /// Store a compressed dump (pg_dump -Fc, gzip, zlib) as its plain bytes, which deduplicate, where it
    /// can be given back exactly as it was
    #[arg(long)]
    unpack: bool,
    /// Name of the stream in the snapshot
    #[arg(long, value_name = "NAME", default_value = "stdin")]
    stdin_filename: OsString,
    /// Back up the output of a shell command under a name (several times: in parallel)
    #[arg(long, value_name = "NAME=COMMAND")]
    stream: Vec<OsString>,
    /// A stream of fewer bytes is a failure and makes no snapshot
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    min_size: u64,
    /// Tags for the snapshot, separated by commas (may be given several times)
    #[arg(long, value_name = "TAG[,TAG…]")]
    tag: Vec<String>,
    /// Host to record [default: this one]
    #[arg(short = 'H', long)]
    host: Option<String>,
    /// A note for people
    #[arg(long)]
    description: Option<String>,
    /// Time to record, RFC 3339 [default: now]
    #[arg(long)]
    time: Option<jiff::Timestamp>,
    /// Snapshot to make deltas against [default: the newest of the same host and stream]
    #[arg(long, value_name = "SNAPSHOT")]
    parent: Option<String>,
    /// Make no deltas: store whole what is new
    #[arg(short, long, conflicts_with = "parent")]
    force: bool,
    /// Do everything but store, and say what it would cost
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Create the repository if there is none
    #[arg(long)]
    init: bool,
    /// The command for --stdin-from-command
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs a backup and prints what it cost.
pub fn run(global: &Global, args: BackupArgs) -> Result<u8> {
    check(&args)?;
    let Some(wanted) = &args.source else {
        let job = Job { files: args.files.source(global.verbose > 0)?, ..sources(&args)? };
        return back_up_job(global, &args, job).map(|done| done.code);
    };
    let (name, config, global) = global.source(wanted)?;
    let _lock = backup_source::lock(&global, &name, &args)?;
    if args.dry_run {
        // Hooks would tell others of a backup that is none.
        let job = backup_source::job(&name, config, global.verbose > 0)?;
        return back_up_job(&global, &args, job).map(|done| done.code);
    }
    let on_error = config.common.on_error.clone();
    let mut snapshot = String::new();
    match back_up_source(&global, &args, &name, config, &mut snapshot) {
        Ok(code) => Ok(code),
        Err(error) => {
            let told = backup_source::hook(&on_error, &name, &snapshot, &error.to_string());
            if let Err(failed) = told {
                output::warning(failed);
            }
            Err(error)
        }
    }
}

/// A backup between its hooks. One that fails runs nothing of what comes after it; `snapshot` is the one that
/// was made by then.
fn back_up_source(
    global: &Global,
    args: &BackupArgs,
    name: &str,
    config: SourceConfig,
    snapshot: &mut String,
) -> Result<u8> {
    backup_source::hook(&config.common.before, name, "", "")?;
    let after = config.common.after.clone();
    let job = backup_source::job(name, config, global.verbose > 0)?;
    let done = back_up_job(global, args, job)?;
    *snapshot = done.snapshot;
    backup_source::hook(&after, name, snapshot, "")?;
    Ok(done.code)
}

/// What came of a backup.
struct Done {
    code: u8,
    /// The id of the snapshot; empty for a dry run.
    snapshot: String,
}

fn back_up_job(global: &Global, args: &BackupArgs, job: Job) -> Result<Done> {
    let begun = args.time.unwrap_or_else(|| SystemClock.now());
    let hold = args.hold.as_deref().map(|text| held_until(text, begun)).transpose()?;
    let repository = open_or_create(global, args)?;
    let Job { streams, unpacked, jobs, closing, files, source, warnings, common } = job;
    let tags = args.tag.iter().flat_map(|list| split_tags(list));
    let options = BackupOptions {
        streams,
        unpacked,
        jobs,
        closing,
        source,
        held: hold.is_some(),
        held_until: hold.flatten(),
        files,
        host: args.host.clone().or(common.host).unwrap_or_else(open::host),
        user: open::user(),
        tags: common.tags.into_iter().chain(tags).collect(),
        description: args.description.clone(),
        time: args.time,
        parent: parent(&repository, args)?,
        dry_run: args.dry_run,
        ..BackupOptions::default()
    };
    let progress = interrupt::progress();
    let display = output::Display::start(global, &progress);
    let result = back_up(&repository, options, &progress);
    drop(display);
    let mut report = result?;
    report.warnings.splice(0..0, warnings);
    print(global, &report)?;
    if args.verify && report.name.is_some() {
        verify(global, &repository, &report)?;
    }
    Ok(Done {
        code: if report.problems.is_empty() { 0 } else { INCOMPLETE },
        snapshot: report.name.map(|name| name.to_hex()).unwrap_or_default(),
    })
}

/// Reads a snapshot back.
fn verify(global: &Global, repository: &Repository, report: &Report) -> Result<()> {
    let progress = interrupt::progress();
    let read = read_back(repository, &report.snapshot, &progress)?;
    if !global.quiet && !global.json {
        let (bytes, tables) = (output::bytes(read.bytes), read.tables);
        output::line(format!("read back: {bytes}, {tables} tables as they were read"))?;
    }
    Ok(())
}

/// The end of a hold that begins with its snapshot: none for one that ends only when it is released.
fn held_until(text: &str, begun: jiff::Timestamp) -> Result<Option<jiff::Timestamp>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || Error::Usage(format!("--hold {text}: write a time as 30d, 12h or 45m"));
    let length = duration(text).ok_or_else(bad)?;
    let length = jiff::SignedDuration::try_from(length).map_err(|_| bad())?;
    begun.checked_add(length).map(Some).map_err(|_| bad())
}

fn check(args: &BackupArgs) -> Result<(), Error> {
    let no_stream = !args.stdin && !args.stdin_from_command && args.stream.is_empty();
    if no_stream && args.files.is_empty() && args.source.is_none() {
        return Err(Error::Usage(
            "nothing to back up: name files, or use --source, --stdin, --stdin-from-command -- \
             COMMAND, or --stream"
                .into(),
        ));
    }
    if !args.command.is_empty() && !args.stdin_from_command {
        return Err(Error::Usage("a command after -- goes with --stdin-from-command".into()));
    }
    Ok(())
}

fn open_or_create(global: &Global, args: &BackupArgs) -> Result<Repository> {
    match global.open_to_add() {
        Err(error) if args.init && !args.dry_run && is_absent(&error) => {
            init::create(global, &InitOptions::default())
        }
        other => other,
    }
}

fn is_absent(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<Error>(), Some(Error::NoRepository { .. }))
}

fn parent(repository: &Repository, args: &BackupArgs) -> Result<ParentChoice> {
    Ok(match &args.parent {
        _ if args.force => ParentChoice::None,
        Some(wanted) => {
            let named = repository.find_snapshot(wanted, &Filter::default())?;
            ParentChoice::Snapshot(Box::new(named))
        }
        None => ParentChoice::Newest,
    })
}

/// Streams that were asked for one by one. Each is looked at while it passes: a dump of a database
/// gets a catalogue of its tables.
fn sources(args: &BackupArgs) -> Result<Job> {
    let (mut streams, mut found) = (Vec::new(), Vec::new());
    let (mut unpacked, mut warnings) = (Vec::new(), Vec::new());
    let mut add = |name: Name, input: Box<dyn StreamInput>| -> Result<()> {
        let mut input = input;
        if args.unpack {
            let peeked = peek(input).map_err(|error| io_error("read", &name.to_string(), error))?;
            match peeked {
                (peeked, Ok(_)) => {
                    let (plain, recipe) = unpack(peeked, args.allow_cut_off);
                    let parts = UnpackedStream::new(name);
                    for (name, input) in [(&parts.plain, plain), (&parts.recipe, recipe)] {
                        let min_bytes = if *name == parts.plain { args.min_size } else { 0 };
                        streams.push(StreamSource { name: name.clone(), input, min_bytes });
                    }
                    unpacked.push(parts);
                    return Ok(());
                }
                (peeked, Err(why)) => {
                    warnings.push(format!("{name} is stored as it comes: {why}"));
                    input = Box::new(peeked);
                }
            }
        }
        let slot = Found::default();
        let start = if args.allow_cut_off { ScanInput::lenient } else { ScanInput::new };
        let input = Box::new(start(input, &name.to_string(), slot.clone()));
        found.push(slot);
        streams.push(StreamSource { name, input, min_bytes: args.min_size });
        Ok(())
    };
    if args.stdin {
        let input =
            FileInput::stdin().map_err(|error| io_error("open", "standard input", error))?;
        add(name_of(&args.stdin_filename), Box::new(input))?;
    }
    if args.stdin_from_command {
        let input = CommandInput::start(&args.command)
            .map_err(|error| io_error("start", &args.command[0].to_string_lossy(), error))?;
        add(name_of(&args.stdin_filename), Box::new(input))?;
    }
    for stream in &args.stream {
        let bytes = stream.as_encoded_bytes();
        let Some(at) = bytes.iter().position(|&byte| byte == b'=') else {
            return Err(Error::Usage("--stream takes NAME=COMMAND".into()).into());
        };
        let line = String::from_utf8(bytes[at + 1..].to_vec())
            .map_err(|_| Error::Usage("the command of --stream is not UTF-8".into()))?;
        let input =
            CommandInput::start_shell(&line).map_err(|error| io_error("start", &line, error))?;
        add(Name::new(&bytes[..at]), Box::new(input))?;
    }
    let first = streams.first().map(|stream| stream.name.to_string());
    let closing = first.map(|first| catalogue(Name::new(format!("{first}.catalogue.json")), found));
    Ok(Job { streams, unpacked, closing, warnings, ..Job::default() })
}

fn io_error(action: &'static str, path: &str, source: std::io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}

fn print(global: &Global, report: &Report) -> Result<()> {
    let summary = report.snapshot.summary;
    for warning in &report.warnings {
        output::warning(warning);
    }
    for problem in &report.problems {
        let text = format!("{}: {}", problem.path, problem.detail);
        eprintln!("restow: {}", output::plain(&text));
    }
    if global.json {
        output::json(&serde_json::json!({
            "message_type": "summary", "dry_run": report.name.is_none(), "snapshot_id": report.name,
            "parent": report.snapshot.parent, "streams": report.snapshot.streams, "summary": summary,
            "warnings": report.warnings, "problems": report.problems,
        }))?;
        return Ok(());
    }
    if global.quiet {
        return Ok(());
    }
    for decision in &report.decisions {
        let restow::backup::files::Decision { path, action, reason } = decision;
        output::line(format!("{action:9} {path}: {reason}"))?;
    }
    if report.snapshot.tree.is_some() {
        output::line(format!(
            "{} files, {}, in {} directories: {} files ({}) unchanged since the parent",
            summary.files,
            output::bytes(summary.file_bytes),
            summary.directories,
            summary.unchanged_files,
            output::bytes(summary.unchanged_bytes),
        ))?;
    }
    let whole = summary.read_bytes;
    output::line(format!(
        "{} read in {}, {} added: {} unchanged, {} delta, {} new",
        output::bytes(whole),
        output::seconds(summary.seconds),
        output::bytes(summary.added_bytes),
        output::percent(summary.dedup_bytes, whole),
        output::percent(summary.delta_bytes, whole),
        output::percent(summary.new_bytes, whole),
    ))?;
    if global.verbose > 0 {
        output::line(format!("{} chunks, {} of them new", summary.chunks, summary.new_chunks))?;
    }
    let is_source = report.snapshot.source.is_some();
    for stream in report.snapshot.streams.iter().filter(|it| it.size == 0 && !is_source) {
        output::warning(format!("{} is empty (--min-size makes that a failure)", stream.name));
    }
    match report.name {
        Some(name) => output::line(format!("snapshot {} saved", name.short()))?,
        None => output::line("dry run: nothing was stored")?,
    }
    if !report.problems.is_empty() {
        eprintln!("restow: {} files are not in it as they should be", report.problems.len());
    }
    Ok(())
}
