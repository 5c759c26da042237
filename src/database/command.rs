//! The output of a command as a source: complete only where it exited with 0, is long enough and ends as
//! it should.

use std::ffi::OsString;
use std::io;

use bytes::Bytes;
use regex::Regex;

use super::scan::{Found, ScanInput};
use super::{Prepared, source_error, stream_prefix};
use crate::backup::{ClosingStream, StreamSource};
use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::format::name::Name;
use crate::format::snapshot::SourceRef;
use crate::settings::CommandConfig;
use crate::source::command::CommandInput;
use crate::source::lazy::LazyInput;
use crate::source::{Stopper, StreamInput};

/// Looks at the configuration alone.
pub fn validate(config: &CommandConfig) -> std::result::Result<(), String> {
    if config.command.is_empty() {
        return Err("command is empty".into());
    }
    let trailer = config.trailer.as_deref().map(Regex::new).transpose();
    trailer.map(drop).map_err(|error| format!("trailer: {error}"))
}

/// Prepares the stream of a command. It starts when it is read.
pub fn prepare(name: &str, config: &CommandConfig) -> Result<Prepared> {
    validate(config).map_err(|error| source_error(name, error))?;
    let trailer = config.trailer.as_deref().and_then(|text| Regex::new(text).ok());
    let command: Vec<OsString> = config.command.iter().map(Into::into).collect();
    let stream = match &config.stream {
        Some(stream) => stream.clone(),
        None => format!("{}/output", stream_prefix(name)),
    };
    let found = Found::default();
    let (text, scanned) = (stream.clone(), found.clone());
    let input = LazyInput::new(move || {
        let input = CommandInput::start(&command);
        let input = input.map_err(|error| format!("start {}: {error}", command[0].display()))?;
        let input: Box<dyn StreamInput> = match trailer {
            Some(trailer) => Box::new(TrailerInput { input, trailer, tail: Vec::new() }),
            None => Box::new(input),
        };
        Ok(Box::new(ScanInput::new(input, &text, scanned)))
    });
    let closing =
        catalogue(Name::new(format!("{}/catalogue.json", stream_prefix(name))), vec![found]);
    Ok(Prepared {
        streams: vec![StreamSource {
            name: Name::new(stream),
            input: Box::new(input),
            min_bytes: config.min_bytes,
        }],
        jobs: 0,
        source: SourceRef {
            name: name.to_owned(),
            engine: "command".into(),
            server_version: String::new(),
            restore: config.restore.clone(),
        },
        closing: Some(closing),
        warnings: Vec::new(),
    })
}

/// The catalogues of what was found in streams, as one JSON list.
pub fn catalogue(name: Name, found: Vec<Found>) -> ClosingStream {
    catalogue_of(name, found, |_| Ok(()))
}

/// The same, with what the source itself knows better; an error where it is not what was asked for.
pub fn catalogue_of(
    name: Name,
    found: Vec<Found>,
    mend: impl Fn(&mut Catalogue) -> Result<(), String> + Send + 'static,
) -> ClosingStream {
    let source = name.to_string();
    let make = move || {
        let taken = found.iter().filter_map(|it| it.lock().expect("no panics here").take());
        let mut catalogues: Vec<_> = taken.map(|scanned| scanned.catalogue).collect();
        let mended = catalogues.iter_mut().try_for_each(mend);
        mended.map_err(|error| source_error(&source, error))?;
        if catalogues.is_empty() {
            return Ok(None);
        }
        let text = serde_json::to_vec_pretty(&catalogues).expect("texts and numbers");
        Ok(Some(Bytes::from(text)))
    };
    ClosingStream { name, make: Box::new(make) }
}

/// The longest last line that is looked at.
const TAIL_BYTES: usize = 4096;

/// An output whose last line must be as it should.
struct TrailerInput {
    input: CommandInput,
    trailer: Regex,
    tail: Vec<u8>,
}

impl StreamInput for TrailerInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        let read = &buffer[..count];
        self.tail.extend_from_slice(&read[read.len().saturating_sub(TAIL_BYTES)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        Ok(count)
    }

    fn finish(&mut self) -> Result<(), String> {
        self.input.finish()?;
        let text = String::from_utf8_lossy(&self.tail);
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if self.trailer.is_match(last) {
            return Ok(());
        }
        let last: String = last.chars().take(100).collect();
        Err(format!("the output is cut off: its last line is '{last}', not {}", self.trailer))
    }

    fn stopper(&self) -> Option<Stopper> {
        self.input.stopper()
    }
}
