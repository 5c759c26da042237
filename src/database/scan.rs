//! Inputs that are looked at while they pass: dumps of databases get a catalogue without a byte changed.

use std::io;
use std::sync::{Arc, Mutex};

use crate::catalogue::{Range, Scanned, Scanner};
use crate::source::{Stopper, StreamInput};

/// Where what was found in a stream is left.
pub type Found = Arc<Mutex<Option<Scanned>>>;

/// An input that passes through a scanner.
pub struct ScanInput {
    input: Box<dyn StreamInput>,
    scanner: Option<Scanner>,
    stream: String,
    found: Found,
    how: How,
}

/// What is asked of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// It is a dump that is known, and whole.
    Dump,
    /// If it is a dump, it is whole.
    Whole,
    /// Nothing.
    Anything,
}

impl ScanInput {
    /// Looks at `input`, which becomes the stream `stream`.
    pub fn new(input: Box<dyn StreamInput>, stream: &str, found: Found) -> Self {
        let scanner = Some(Scanner::new());
        Self { input, scanner, stream: stream.to_owned(), found, how: How::Whole }
    }

    /// The same for what is made by a dump program: what is not recognised as its output is a failure.
    pub fn dump(input: Box<dyn StreamInput>, stream: &str, found: Found) -> Self {
        Self { how: How::Dump, ..Self::new(input, stream, found) }
    }

    /// The same for dumps that are to be stored even where they are cut off; then without a catalogue.
    pub fn lenient(input: Box<dyn StreamInput>, stream: &str, found: Found) -> Self {
        Self { how: How::Anything, ..Self::new(input, stream, found) }
    }
}

impl StreamInput for ScanInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        if let Some(scanner) = &mut self.scanner {
            scanner.push(&buffer[..count]);
        }
        Ok(count)
    }

    fn skip_hole(&mut self) -> io::Result<u64> {
        // Dumps have none; what has is no dump.
        let hole = self.input.skip_hole()?;
        if hole > 0 {
            self.scanner = None;
        }
        Ok(hole)
    }

    fn size_hint(&self) -> Option<u64> {
        self.input.size_hint()
    }

    fn finish(&mut self) -> Result<(), String> {
        self.input.finish()?;
        let Some(mut scanned) = self.scanner.take().and_then(|it| it.finish(&self.stream)) else {
            return match self.how {
                How::Dump => Err("the output is no dump that is known".to_owned()),
                How::Whole | How::Anything => Ok(()),
            };
        };
        match (&scanned.complete, self.how) {
            (Ok(()), _) => {}
            (Err(_), How::Anything) => return Ok(()),
            (Err(what), _) => return Err(format!("the dump is cut off: {what}")),
        }
        complete(&mut scanned);
        *self.found.lock().expect("no panics here") = Some(scanned);
        Ok(())
    }

    fn stopper(&self) -> Option<Stopper> {
        self.input.stopper()
    }
}

/// Puts into the catalogue where things other than tables stand.
fn complete(scanned: &mut Scanned) {
    let catalogue = &mut scanned.catalogue;
    (catalogue.preamble, catalogue.trailer) = (scanned.preamble, scanned.trailer);
    if let Some(toc) = &scanned.toc {
        catalogue.head = Range { start: 0, end: toc.head_len as u64 };
        let objects = toc.entries.iter().filter(|entry| entry.desc != "TABLE DATA");
        catalogue.objects = objects.filter_map(|entry| entry.data).collect();
    }
}
