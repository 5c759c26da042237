//! The other way: a plain stream and its recipe give the compressed input again, byte for byte.

use std::io::{self, Read, Write};

use rayon::prelude::*;
use thiserror::Error;

use super::inflate::{SEGMENT_BYTES, WINDOW};
use super::matcher::Matcher;
use super::plan::{Guided, Plan, Shape, Text, Tokens, write};
use super::sink::Sink;
use super::{MAGIC, OP_BITS, OP_CHUNKS, OP_END, OP_LITERAL, OP_RAW, OP_SEGMENT, varint};

/// Limits on what a recipe may ask for at once; an unpacker stays below.
const SEGMENT_BYTES_MAX: u64 = 4 << 20;
const PLAN_BYTES_MAX: u64 = 1 << 20;
const LITERAL_BYTES_MAX: u64 = 1 << 20;
const CHUNK_RUNS_MAX: u64 = 4 << 20;
const BATCH_ITEMS: usize = 16 << 10;
const COPY_BYTES: u64 = 1 << 20;

/// Why an input could not be given again.
#[derive(Debug, Error)]
pub enum RepackError {
    /// The plain stream or the recipe could not be read.
    #[error("read the plain stream or its recipe")]
    Read(#[source] io::Error),
    /// The plain stream or the recipe ends before it should.
    #[error("the {0} ends too early")]
    Truncated(&'static str),
    /// The recipe is of a version that this program does not know, or no recipe.
    #[error("not a recipe of a known version")]
    Version,
    /// The recipe is damaged, or of another plain stream.
    #[error("the recipe is damaged: {0}")]
    Recipe(&'static str),
    /// The result could not be written.
    #[error("write the repacked bytes")]
    Write(#[source] io::Error),
    /// All was written, but it is not what was backed up.
    #[error("the repacked bytes differ from the original")]
    Mismatch,
}

/// Writes the compressed input that `plain` and `recipe` came from, and returns its length. Only when it returns
/// `Ok` are the bytes proven to be the original ones (by length and BLAKE3). Memory is bounded as in unpacking.
pub fn repack(plain: impl Read, recipe: impl Read, out: impl Write) -> Result<u64, RepackError> {
    let mut recipe = Source { reader: recipe, name: "recipe" };
    let mut plain = Source { reader: plain, name: "plain stream" };
    if recipe.array::<{ MAGIC.len() }>()? != *MAGIC {
        return Err(RepackError::Version);
    }
    let mut repacker = Repacker::new(Sink::new(out));
    loop {
        let [operation] = recipe.array()?;
        if operation == OP_END {
            repacker.work()?;
            let length = recipe.number()?;
            let hash = recipe.array()?;
            return repacker.sink.finish(length, &blake3::Hash::from_bytes(hash));
        }
        repacker.read_operation(operation, &mut plain, &mut recipe)?;
        if repacker.pending_bytes > repacker.batch_bytes || repacker.pending.len() > BATCH_ITEMS {
            repacker.work()?;
        }
    }
}

/// One of the two inputs.
struct Source<R> {
    reader: R,
    name: &'static str,
}

impl<R: Read> Source<R> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], RepackError> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(|error| self.failure(error))?;
        Ok(bytes)
    }

    fn failure(&self, error: io::Error) -> RepackError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => RepackError::Truncated(self.name),
            _ => RepackError::Read(error),
        }
    }

    fn number(&mut self) -> Result<u64, RepackError> {
        let mut bytes = Vec::new();
        loop {
            let [byte] = self.array()?;
            bytes.push(byte);
            if byte < 0x80 || bytes.len() > 10 {
                let number = varint::take(&mut bytes.as_slice());
                return number.ok_or(RepackError::Recipe("a number of more than 64 bits"));
            }
        }
    }

    fn number_up_to(&mut self, most: u64) -> Result<u64, RepackError> {
        match self.number()? {
            number if number <= most => Ok(number),
            _ => Err(RepackError::Recipe("a number above its limit")),
        }
    }

    /// Appends `n` bytes; room is made only as they come.
    fn append(&mut self, n: u64, into: &mut Vec<u8>) -> Result<(), RepackError> {
        let read = self.reader.by_ref().take(n).read_to_end(into).map_err(RepackError::Read)?;
        if read as u64 == n { Ok(()) } else { Err(RepackError::Truncated(self.name)) }
    }

    fn bytes(&mut self, n: u64) -> Result<Vec<u8>, RepackError> {
        let mut bytes = Vec::new();
        self.append(n, &mut bytes)?;
        Ok(bytes)
    }
}

/// What is written next.
enum Step {
    Bytes(Vec<u8>),
    Chunks(Vec<(u32, u64)>),
    Bits { bytes: Vec<u8>, start: u8, bits: u64 },
    Segment(Box<Job>),
}

/// A segment to rebuild.
struct Job {
    text: Vec<u8>,
    before: usize,
    body: usize,
    plan: Plan,
}

struct Repacker<W> {
    sink: Sink<W>,
    pending: Vec<Step>,
    pending_bytes: usize,
    batch_bytes: usize,
    /// The last text of the stream.
    window: Vec<u8>,
    carried: Option<(Matcher, usize)>,
}

impl<W: Write> Repacker<W> {
    fn new(sink: Sink<W>) -> Self {
        let batch_bytes = SEGMENT_BYTES * rayon::current_num_threads().clamp(1, 64);
        let (pending, window) = (Vec::new(), Vec::new());
        Repacker { sink, pending, pending_bytes: 0, batch_bytes, window, carried: None }
    }

    fn read_operation(
        &mut self,
        operation: u8,
        plain: &mut Source<impl Read>,
        recipe: &mut Source<impl Read>,
    ) -> Result<(), RepackError> {
        match operation {
            OP_RAW => self.read_raw(plain, recipe),
            OP_LITERAL => {
                let length = recipe.number_up_to(LITERAL_BYTES_MAX)?;
                let bytes = recipe.bytes(length)?;
                self.push(bytes.len(), Step::Bytes(bytes));
                Ok(())
            }
            OP_CHUNKS => self.read_chunks(recipe),
            OP_BITS => {
                let start = recipe.number_up_to(7)?;
                let bits = recipe.number_up_to(SEGMENT_BYTES_MAX * 8)?;
                let bytes = plain.bytes((start + bits).div_ceil(8))?;
                self.push(bytes.len(), Step::Bits { bytes, start: start as u8, bits });
                Ok(())
            }
            OP_SEGMENT => self.read_segment(plain, recipe),
            _ => Err(RepackError::Recipe("an unknown operation")),
        }
    }

    fn push(&mut self, bytes: usize, step: Step) {
        self.pending_bytes += bytes;
        self.pending.push(step);
    }

    fn read_raw(
        &mut self,
        plain: &mut Source<impl Read>,
        recipe: &mut Source<impl Read>,
    ) -> Result<(), RepackError> {
        let mut left = recipe.number()?;
        while left > 0 {
            let bytes = plain.bytes(left.min(COPY_BYTES))?;
            left -= bytes.len() as u64;
            self.push(bytes.len(), Step::Bytes(bytes));
            if self.pending_bytes > self.batch_bytes {
                self.work()?;
            }
        }
        Ok(())
    }

    fn read_chunks(&mut self, recipe: &mut Source<impl Read>) -> Result<(), RepackError> {
        let mut runs = Vec::new();
        for _ in 0..recipe.number_up_to(CHUNK_RUNS_MAX)? {
            let length = recipe.number_up_to(i32::MAX as u64)? as u32;
            let count = recipe.number()?;
            if length == 0 || count == 0 {
                return Err(RepackError::Recipe("an empty frame"));
            }
            runs.push((length, count));
        }
        self.push(16 * runs.len(), Step::Chunks(runs));
        Ok(())
    }

    fn read_segment(
        &mut self,
        plain: &mut Source<impl Read>,
        recipe: &mut Source<impl Read>,
    ) -> Result<(), RepackError> {
        let body = recipe.number_up_to(SEGMENT_BYTES_MAX)?;
        let length = recipe.number_up_to(PLAN_BYTES_MAX)?;
        let plan = Plan::from_bytes(&recipe.bytes(length)?);
        let plan = plan.ok_or(RepackError::Recipe("a segment that cannot be read"))?;
        if plan.begins {
            self.window.clear();
        }
        let mut text = std::mem::take(&mut self.window);
        let before = text.len();
        plain.append(body, &mut text)?;
        self.window = text[text.len().saturating_sub(WINDOW)..].to_vec();
        text.extend_from_slice(&plan.tail);
        let bytes = text.len() + length as usize;
        let job = Job { text, before, body: body as usize, plan };
        self.push(bytes, Step::Segment(Box::new(job)));
        Ok(())
    }

    /// Rebuilds and writes what is pending.
    fn work(&mut self) -> Result<(), RepackError> {
        let steps = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let rebuilt: Vec<_> = steps.par_iter().map(rebuild_alone).collect();
        for (step, rebuilt) in steps.into_iter().zip(rebuilt) {
            match step {
                Step::Bytes(bytes) => self.sink.bytes(&bytes)?,
                Step::Chunks(runs) => self.sink.frames(runs)?,
                Step::Bits { bytes, start, bits } => self.sink.bits(bytes, start, bits)?,
                Step::Segment(job) => {
                    let bytes = rebuilt.or_else(|| self.rebuild_next(&job));
                    let bytes = bytes.ok_or(RepackError::Recipe("a segment that does not fit"))?;
                    self.sink.bits(bytes, job.plan.start, job.plan.bits)?;
                }
            }
        }
        Ok(())
    }

    /// Rebuilds a segment of a fast stream, with the matcher of the segment before.
    fn rebuild_next(&mut self, job: &Job) -> Option<Vec<u8>> {
        let settings = job.plan.settings;
        if !settings.is_fast() {
            return None;
        }
        let carried = self.carried.take();
        let mut matcher = if job.plan.begins {
            Matcher::new(settings, &job.text, 0)
        } else {
            let (mut matcher, passed) = carried.filter(|(m, _)| m.settings() == settings)?;
            matcher.carry(passed.checked_sub(job.before)?);
            matcher
        };
        let rebuilt = rebuild(job, &mut Guided::new(&mut matcher, &job.plan.exceptions));
        self.carried = Some((matcher, job.before + job.body));
        rebuilt
    }
}

/// Rebuilds a segment that needs no matcher of the segment before.
fn rebuild_alone(step: &Step) -> Option<Vec<u8>> {
    let Step::Segment(job) = step else { return None };
    if job.plan.settings.is_fast() {
        return None;
    }
    let mut matcher = Matcher::new(job.plan.settings, &job.text, job.before);
    rebuild(job, &mut Guided::new(&mut matcher, &job.plan.exceptions))
}

fn rebuild(job: &Job, tokens: &mut impl Tokens) -> Option<Vec<u8>> {
    let Plan { start, bits, padded, ref parts, .. } = job.plan;
    write(Shape { start, bits, padded, parts }, job.text(), tokens)
}

impl Job {
    fn text(&self) -> Text<'_> {
        Text { bytes: &self.text, before: self.before, body: self.body }
    }
}
