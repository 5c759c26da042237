//! `restow dump`.

use std::ffi::OsString;
use std::io::{self, Write};

use anyhow::Result;
use clap::{Args, ValueEnum};
use restow::database::export::{Format, export};
use restow::database::postgres::restore::Origin;
use restow::error::Error;
use restow::format::entry::{Content, Kind};
use restow::format::snapshot::{Snapshot, StreamEntry, UnpackedStream};
use restow::id::ChunkId;
use restow::repository::Repository;
use restow::repository::snapshots::{Filter, NamedSnapshot};
use restow::restore::archive::write_tar;
use restow::restore::packed::copy_packed;
use restow::restore::zip::write_zip;
use restow::restore::{WriterTarget, copy_content, copy_stream};
use sha2::{Digest, Sha256};

use super::{FilterArgs, rows, tables};
use crate::cli::{Global, interrupt, output, sources};

/// Write a stream, file or table of a snapshot to standard output, or a directory as an archive
#[derive(Args)]
pub struct DumpArgs {
    /// Id of the snapshot, its first digits, or `latest`
    snapshot: String,
    /// Stream, file, directory, or with --format a table; may be left out where the snapshot is one stream
    #[arg(value_name = "PATH")]
    stream: Option<OsString>,
    /// The kind of archive that a directory becomes
    #[arg(short, long, value_enum, default_value = "tar")]
    archive: Archive,
    /// Write a table of a database, SCHEMA.TABLE, in this form
    #[arg(long, value_enum)]
    format: Option<TableFormat>,
    /// Only snapshots of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Print the SHA-256 of the bytes to standard error
    #[arg(long)]
    sha256: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Archive {
    /// Everything that is kept of files (POSIX pax)
    Tar,
    /// Files, directories and links, compressed
    Zip,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TableFormat {
    /// Comma-separated values, with a line of column names
    Csv,
    /// The text format of COPY
    Copy,
    /// Statements that put the rows back
    Sql,
}

/// Writes a table.
fn dump_table(repository: &Repository, named: &NamedSnapshot, args: &DumpArgs) -> Result<u8> {
    let wanted = args.stream.as_deref().map(|path| path.to_string_lossy().into_owned());
    let wanted = wanted.ok_or_else(|| Error::Usage("--format needs the name of a table".into()))?;
    let found = tables::of(repository, named)?;
    let (catalogue, table) = rows::find(&found, &wanted)?;
    let origin = Origin { repository, snapshot: &named.snapshot, catalogue };
    let format = match args.format {
        Some(TableFormat::Csv) => Format::Csv,
        Some(TableFormat::Sql) => Format::Sql,
        _ => Format::Copy,
    };
    let writer = Hashing { file: raw_stdout()?, hash: args.sha256.then(Sha256::new) };
    let mut target = WriterTarget { writer, name: "standard output".to_owned() };
    let temporary = sources::surroundings().temporary;
    let progress = interrupt::progress();
    export(&origin, table, format, &temporary, &mut target, &progress)?;
    if let Some(hash) = target.writer.hash {
        eprintln!("{}  {wanted}", hex::encode(hash.finalize()));
    }
    Ok(0)
}

/// Writes the stream.
pub fn run(global: &Global, args: DumpArgs) -> Result<u8> {
    let repository = global.open_read_only()?;
    let source = args.source.as_deref().map(sources::name_in_snapshots).transpose()?;
    let filter = Filter { source: source.clone(), ..args.filter.filter() };
    let mut holding = filter.clone();
    if args.format.is_some() {
        let named = tables::snapshot(&repository, &args.snapshot, source, filter)?;
        return dump_table(&repository, &named, &args);
    }
    holding.paths.extend(args.stream.as_deref().map(super::name_of));
    // `latest` means the newest that holds the stream; where none does, say of which one it is missing.
    let named = match repository.find_snapshot(&args.snapshot, &holding) {
        Err(Error::NoSnapshot { .. }) => repository.find_snapshot(&args.snapshot, &filter)?,
        found => found?,
    };
    let source = choose(&repository, &named, args.stream.as_deref())?;
    let progress = interrupt::progress();
    if let Source::Stream(StreamEntry { size, .. }) | Source::File(size, _) = &source {
        progress.total_bytes.store(*size, std::sync::atomic::Ordering::Relaxed);
    }
    let is_terminal = io::IsTerminal::is_terminal(&io::stdout());
    let _shown = (!is_terminal).then(|| output::Display::start(global, &progress));
    let _ = rustix::pipe::fcntl_setpipe_size(io::stdout(), 1 << 20);
    let writer = Hashing { file: raw_stdout()?, hash: args.sha256.then(Sha256::new) };
    let mut target = WriterTarget { writer, name: "standard output".to_owned() };
    match &source {
        Source::Stream(stream) => {
            copy_stream(&repository, stream, &mut target, &progress)?;
        }
        Source::Packed(unpacked) => {
            copy_packed(&repository, &named.snapshot, unpacked, &mut target, &progress)?;
        }
        Source::File(size, content) => {
            copy_content(&repository, *size, content, &mut target, &progress)?;
        }
        Source::Directory(tree) => {
            let mut buffered = io::BufWriter::with_capacity(1 << 20, target.writer);
            match args.archive {
                Archive::Tar => write_tar(&repository, *tree, &mut buffered, &progress)?,
                Archive::Zip => write_zip(&repository, *tree, &mut buffered, &progress)?,
            }
            target.writer = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
        }
    }
    if let Some(hash) = target.writer.hash {
        let name = args.stream.as_deref().map(super::name_of);
        let name = name.unwrap_or_else(|| named.snapshot.streams[0].name.clone());
        eprintln!("{}  {name}", hex::encode(hash.finalize()));
    }
    Ok(0)
}

/// What is written.
enum Source {
    Stream(StreamEntry),
    Packed(UnpackedStream),
    File(u64, Content),
    Directory(ChunkId),
}

fn choose(
    repository: &Repository,
    named: &NamedSnapshot,
    path: Option<&std::ffi::OsStr>,
) -> Result<Source> {
    let snapshot = &named.snapshot;
    let Some(path) = path.map(super::name_of) else {
        if let ([unpacked], 2, None) =
            (&snapshot.unpacked[..], snapshot.streams.len(), snapshot.tree)
        {
            return Ok(Source::Packed(unpacked.clone()));
        }
        if let Some(stream) = only_stream(snapshot) {
            return Ok(Source::Stream(stream));
        }
        let names = snapshot.streams.iter().map(|stream| &stream.name).chain(&snapshot.paths);
        let names: Vec<_> = names.map(ToString::to_string).collect();
        let message = format!("the snapshot holds {}; name one", names.join(", "));
        return Err(Error::Usage(message).into());
    };
    let is_it = |it: &&UnpackedStream| it.name.relative() == path.relative();
    if let Some(unpacked) = snapshot.unpacked.iter().find(is_it) {
        return Ok(Source::Packed(unpacked.clone()));
    }
    if let Some(stream) = snapshot.stream(path.as_bytes()) {
        return Ok(Source::Stream(stream.clone()));
    }
    if let Some(tree) = snapshot.tree {
        if path.relative().is_empty() {
            return Ok(Source::Directory(tree));
        }
        match repository.find_entry(tree, path.relative())?.map(|entry| entry.kind) {
            Some(Kind::File { size, content }) => return Ok(Source::File(size, content)),
            Some(Kind::Directory { tree, .. }) => return Ok(Source::Directory(tree)),
            Some(_) => {
                let message = format!("{path} is neither a file nor a directory");
                return Err(Error::Usage(message).into());
            }
            None => {}
        }
    }
    Err(Error::NoPath { snapshot: named.name.short(), path: path.to_string() }.into())
}

/// The only stream there is, its catalogue aside.
fn only_stream(snapshot: &Snapshot) -> Option<StreamEntry> {
    let is_catalogue = |stream: &&StreamEntry| snapshot.catalogue.as_ref() != Some(&stream.name);
    let mut streams = snapshot.streams.iter().filter(is_catalogue);
    match (streams.next(), streams.next(), snapshot.tree) {
        (Some(only), None, None) => Some(only.clone()),
        _ => None,
    }
}

/// Standard output without a buffer: chunks are large.
fn raw_stdout() -> io::Result<std::fs::File> {
    Ok(rustix::io::dup(io::stdout())?.into())
}

struct Hashing {
    file: std::fs::File,
    hash: Option<Sha256>,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&bytes[..count]);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
