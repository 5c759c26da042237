use std::fs::File;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use restow::backup::files::FilesSource;
use restow::backup::{ClosingStream, StreamSource};
use restow::database::prepare::prepare;
use restow::database::stream_part;
use restow::error::Error;
use restow::format::snapshot::{SourceRef, UnpackedStream};
use restow::settings::{CommonConfig, SourceConfig, SourceKind};
use restow::store::pause::{Patience, Pause};

use super::backup::BackupArgs;
use super::paths::PathArgs;
use crate::cli::{Global, interrupt, output, sources};

/// What a backup is of, however it was asked for.
#[derive(Default)]
pub struct Job {
    pub streams: Vec<StreamSource>,
    pub unpacked: Vec<UnpackedStream>,
    pub jobs: usize,
    pub closing: Option<ClosingStream>,
    pub files: Option<FilesSource>,
    pub source: Option<SourceRef>,
    pub warnings: Vec<String>,
    pub common: CommonConfig,
}

/// Gets a source ready.
pub fn job(name: &str, config: SourceConfig, explain: bool) -> Result<Job> {
    let common = config.common;
    if let SourceKind::Files(files) = &config.kind {
        let files = PathArgs::of(files).source(explain)?;
        let source =
            SourceRef { name: name.into(), engine: "files".into(), ..SourceRef::default() };
        return Ok(Job { files, source: Some(source), common, ..Job::default() });
    }
    let prepared = prepare(name, &config.kind, &sources::surroundings())?;
    Ok(Job {
        streams: prepared.streams,
        unpacked: Vec::new(),
        jobs: prepared.jobs,
        closing: prepared.closing,
        source: Some(prepared.source),
        warnings: prepared.warnings,
        files: None,
        common,
    })
}

/// Keeps a second backup of the same source on this machine from running beside this one.
pub fn lock(global: &Global, name: &str, args: &BackupArgs) -> Result<Option<File>> {
    use rustix::fs::{FlockOperation, flock};
    let Some(folder) = global.usable_cache()? else { return Ok(None) };
    let folder = folder.join("locks");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let part: String = stream_part(name).chars().take(100).collect();
    let place = global.repo.as_deref().unwrap_or_default();
    let hash = blake3::hash(format!("{place}\0{name}").as_bytes());
    let path = folder.join(format!("{part}-{}", &hash.to_hex()[..16]));
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(_) => return Ok(None),
    }
    if !args.wait {
        let text = format!("a backup of {name} runs already; --wait waits for its end");
        return Err(Error::Conflict(text).into());
    }
    if !global.quiet {
        output::warning(format!("waiting for another backup of {name}"));
    }
    let progress = interrupt::progress();
    let waiter = Patience::new(|| progress.is_interrupted());
    while waiter.pause(Duration::from_millis(100)) {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            other => {
                other.context("wait for the other backup")?;
                return Ok(Some(file));
            }
        }
    }
    Err(Error::Interrupted.into())
}

/// Runs a hook; its failure is the caller's to weigh.
pub fn hook(argv: &[String], source: &str, snapshot: &str, error: &str) -> Result<(), Error> {
    let Some((program, rest)) = argv.split_first() else { return Ok(()) };
    let failed = |detail: String| Error::Source {
        source_name: source.to_owned(),
        detail: format!("hook {program}: {detail}"),
    };
    let status = Command::new(program)
        .args(rest)
        .env("RESTOW_SOURCE", source)
        .env("RESTOW_SNAPSHOT", snapshot)
        .env("RESTOW_ERROR", error)
        .status()
        .map_err(|error| failed(error.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(status.to_string())) }
}
