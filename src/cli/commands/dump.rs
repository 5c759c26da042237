//! `restow dump`.

use std::ffi::OsString;
use std::io::{self, Write};

use anyhow::Result;
use clap::Args;
use restow::error::Error;
use restow::restore::{WriterTarget, copy_stream};
use sha2::{Digest, Sha256};

use super::FilterArgs;
use crate::cli::{Global, interrupt, output};

/// Write one stream of a snapshot to standard output
#[derive(Args)]
pub struct DumpArgs {
    /// Id of the snapshot, its first digits, or `latest`
    snapshot: String,
    /// Name of the stream; may be left out where the snapshot has only one
    stream: Option<OsString>,
    /// Print the SHA-256 of the bytes to standard error
    #[arg(long)]
    sha256: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Writes the stream.
pub fn run(global: &Global, args: DumpArgs) -> Result<u8> {
    let repository = global.open_read_only()?;
    let filter = args.filter.filter();
    let mut holding = filter.clone();
    holding.paths.extend(args.stream.as_deref().map(super::name_of));
    // `latest` means the newest that holds the stream; where none does, say of which one it is missing.
    let named = match repository.find_snapshot(&args.snapshot, &holding) {
        Err(Error::NoSnapshot { .. }) => repository.find_snapshot(&args.snapshot, &filter)?,
        found => found?,
    };
    let streams = &named.snapshot.streams;
    let stream = match &args.stream {
        Some(path) => named.snapshot.stream(path.as_encoded_bytes()).ok_or_else(|| {
            Error::NoPath { snapshot: named.name.short(), path: super::name_of(path).to_string() }
        })?,
        None if streams.len() == 1 => &streams[0],
        None => {
            let names: Vec<_> = streams.iter().map(|stream| stream.name.to_string()).collect();
            let message = format!("the snapshot holds {}; name one", names.join(", "));
            return Err(Error::Usage(message).into());
        }
    };
    let progress = interrupt::progress();
    progress.total_bytes.store(stream.size, std::sync::atomic::Ordering::Relaxed);
    let display = io::IsTerminal::is_terminal(&io::stdout()).then_some(());
    let _shown = match display {
        None => Some(output::Display::start(global, &progress)),
        Some(()) => None,
    };
    let _ = rustix::pipe::fcntl_setpipe_size(io::stdout(), 1 << 20);
    let writer = Hashing { file: raw_stdout()?, hash: args.sha256.then(Sha256::new) };
    let mut target = WriterTarget { writer, name: "standard output".to_owned() };
    copy_stream(&repository, stream, &mut target, &progress)?;
    if let Some(hash) = target.writer.hash {
        eprintln!("{}  {}", hex::encode(hash.finalize()), stream.name);
    }
    Ok(0)
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
