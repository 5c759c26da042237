//! The unpacking side: reads the compressed input, gives the plain stream, and gathers the recipe.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::mem;

use rayon::prelude::*;

use super::container::{Kind, Refusal, inspect};
use super::inflate::{SEGMENT_BYTES, Segment};
use super::matcher::{LOOKAHEAD, Matcher, Settings};
use super::seal::{Sealed, choose, seal};
use super::walker::{Item, Walker};
use super::{MAGIC, OP_BITS, OP_CHUNKS, OP_END, OP_LITERAL, OP_RAW, OP_SEGMENT, varint};

/// Pieces that are worked on together.
const BATCH_ITEMS: usize = 16 << 10;
/// One wrong prediction in so many tokens makes the level doubtful.
const DOUBTFUL: usize = 200;

/// What an [`Unpacker`] did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of the input.
    pub input_bytes: u64,
    /// Bytes of the plain stream.
    pub plain_bytes: u64,
    /// Bytes of the recipe.
    pub recipe_bytes: u64,
    /// Compressed bytes that became plain text.
    pub unpacked_bytes: u64,
    /// Compressed bytes kept as they were, because no recipe gave them again, or after damage.
    pub kept_bytes: u64,
    /// The input stopped being what it began as, and was kept as it is from there on.
    pub broken: bool,
    /// That was inside of something compressed: its end is missing, or it is damaged.
    pub cut: bool,
}

/// Takes a compressed input apart. Reading it gives the plain stream; [`Unpacker::take_recipe`] gives the other
/// half. Memory is bounded: some 30 MiB for each thread of rayon's pool, whatever the size of the input. The
/// recipe is complete when a read gave 0 bytes.
pub struct Unpacker<R> {
    intake: Intake<R>,
    sealer: Sealer,
    ready: Vec<u8>,
    given: usize,
    recipe: Vec<u8>,
    /// A segment of the current stream could not be sealed: none after it is.
    hopeless: bool,
    stats: Unpacked,
    done: bool,
}

impl Unpacker<io::Empty> {
    /// What an input that begins with `head` is; 16 bytes tell. None if it is to be stored as it is.
    pub fn sniff(head: &[u8]) -> Option<Kind> {
        inspect(head).ok()
    }

    /// As [`Unpacker::sniff`], with the reason for storing an input as it is.
    pub fn inspect(head: &[u8]) -> Result<Kind, Refusal> {
        inspect(head)
    }
}

impl<R: Read + Send> Unpacker<R> {
    /// An unpacker of what `reader` gives. Any input will do: what is not compressed is passed on.
    pub fn new(reader: R) -> Self {
        Unpacker {
            intake: Intake::new(reader),
            sealer: Sealer { settings: None, carried: None },
            ready: Vec::new(),
            given: 0,
            recipe: MAGIC.to_vec(),
            hopeless: false,
            stats: Unpacked::default(),
            done: false,
        }
    }

    /// The recipe's bytes since the last call.
    pub fn take_recipe(&mut self) -> Vec<u8> {
        self.stats.recipe_bytes += self.recipe.len() as u64;
        mem::take(&mut self.recipe)
    }

    /// What was done so far.
    pub fn stats(&self) -> Unpacked {
        Unpacked {
            input_bytes: self.intake.walker.feed.total,
            broken: self.intake.walker.broken,
            cut: self.intake.walker.cut,
            recipe_bytes: self.stats.recipe_bytes + self.recipe.len() as u64,
            ..self.stats
        }
    }

    /// Works until there are plain bytes to give, or nothing is left. One batch is sealed while the next is read.
    fn advance(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.given = 0;
        while !self.done && self.ready.is_empty() {
            let items = self.intake.take_batch();
            let (read, sealed) =
                rayon::join(|| self.intake.fill(), || self.sealer.seal_all(&items));
            for (item, sealed) in items.into_iter().zip(sealed) {
                self.emit(item, sealed);
            }
            read?;
            if self.intake.is_empty() {
                self.done = true;
                self.operation(OP_END, &[self.intake.walker.feed.total]);
                self.recipe.extend_from_slice(self.intake.walker.feed.hash().as_bytes());
            }
        }
        Ok(())
    }

    fn emit(&mut self, item: Item, sealed: Option<Sealed>) {
        match item {
            Item::Raw(bytes) => {
                self.operation(OP_RAW, &[bytes.len() as u64]);
                self.plain(&bytes);
            }
            Item::Literal(bytes) => {
                self.operation(OP_LITERAL, &[bytes.len() as u64]);
                self.recipe.extend_from_slice(&bytes);
            }
            Item::Chunks(runs) => {
                self.operation(OP_CHUNKS, &[runs.len() as u64]);
                for (length, count) in runs {
                    varint::put(&mut self.recipe, u64::from(length));
                    varint::put(&mut self.recipe, count);
                }
            }
            Item::Bits(raw) => self.keep(raw.start, raw.bits, &raw.bytes),
            Item::Segment(segment) => self.emit_segment(&segment, sealed),
        }
    }

    fn emit_segment(&mut self, segment: &Segment, sealed: Option<Sealed>) {
        self.hopeless = (self.hopeless && !segment.begins) || sealed.is_none();
        let Some(sealed) = sealed.filter(|_| !self.hopeless) else {
            return self.keep(segment.raw.start, segment.raw.bits, &segment.raw.bytes);
        };
        self.operation(OP_SEGMENT, &[segment.body as u64, sealed.bytes.len() as u64]);
        self.recipe.extend_from_slice(&sealed.bytes);
        self.plain(segment.own_text());
        self.stats.unpacked_bytes += segment.raw.bits / 8;
    }

    fn keep(&mut self, start: u8, bits: u64, bytes: &[u8]) {
        self.operation(OP_BITS, &[u64::from(start), bits]);
        self.plain(bytes);
        self.stats.kept_bytes += bytes.len() as u64;
    }

    fn operation(&mut self, operation: u8, numbers: &[u64]) {
        self.recipe.push(operation);
        for number in numbers {
            varint::put(&mut self.recipe, *number);
        }
    }

    fn plain(&mut self, bytes: &[u8]) {
        self.ready.extend_from_slice(bytes);
        self.stats.plain_bytes += bytes.len() as u64;
    }
}

/// Reads ahead, a batch at a time.
struct Intake<R> {
    walker: Walker<R>,
    pending: VecDeque<Item>,
    /// Bytes in `pending`.
    bytes: usize,
    batch_bytes: usize,
    ended: bool,
}

impl<R: Read> Intake<R> {
    fn new(reader: R) -> Self {
        let batch_bytes = SEGMENT_BYTES * (rayon::current_num_threads().clamp(1, 16) + 1);
        let (walker, pending) = (Walker::new(reader), VecDeque::new());
        Intake { walker, pending, bytes: 0, batch_bytes, ended: false }
    }

    fn is_empty(&self) -> bool {
        self.ended && self.pending.is_empty()
    }

    fn fill(&mut self) -> io::Result<()> {
        while !self.ended && self.bytes <= self.batch_bytes && self.pending.len() <= BATCH_ITEMS {
            match self.walker.next()? {
                Some(item) => self.push(item),
                None => self.ended = true,
            }
        }
        Ok(())
    }

    fn push(&mut self, item: Item) {
        self.bytes += size(&item);
        if let Item::Segment(next) = &item {
            self.lend_tail(next);
        }
        self.pending.push_back(item);
    }

    /// Gives the segment before the text it looks ahead to.
    fn lend_tail(&mut self, next: &Segment) {
        let text = next.own_text();
        let last = self.pending.iter_mut().rev().find_map(|item| match item {
            Item::Segment(segment) => Some(segment),
            _ => None,
        });
        if let Some(last) = last
            && !next.begins
        {
            last.text.extend_from_slice(&text[..text.len().min(LOOKAHEAD)]);
        }
    }

    /// What is pending, but for the last segment while its stream goes on.
    fn take_batch(&mut self) -> VecDeque<Item> {
        let open = self.pending.iter().rposition(|item| matches!(item, Item::Segment(_)));
        let open = open.filter(|at| {
            !self.ended && matches!(&self.pending[*at], Item::Segment(segment) if !segment.ends)
        });
        let kept = self.pending.split_off(open.unwrap_or(self.pending.len()));
        self.bytes = kept.iter().map(size).sum();
        mem::replace(&mut self.pending, kept)
    }
}

fn size(item: &Item) -> usize {
    match item {
        Item::Segment(segment) => segment.body.max(segment.raw.bytes.len()),
        Item::Raw(bytes) | Item::Literal(bytes) => bytes.len(),
        Item::Bits(bits) => bits.bytes.len(),
        Item::Chunks(runs) => runs.len(),
    }
}

/// Seals segments, each stream with its settings.
struct Sealer {
    /// Those of the current stream; none if nothing fits it.
    settings: Option<Settings>,
    /// The matcher of a stream whose segments depend on each other, and how much of the last text it passed.
    carried: Option<(Matcher, usize)>,
}

impl Sealer {
    fn seal_all(&mut self, items: &VecDeque<Item>) -> Vec<Option<Sealed>> {
        let settings: Vec<_> = items.iter().map(|item| self.settings_of(item)).collect();
        let work: Vec<(&Item, Option<Settings>)> = items.iter().zip(settings).collect();
        let mut sealed: Vec<_> =
            work.par_iter().map(|(item, settings)| seal_alone(item, *settings)).collect();
        for ((item, settings), sealed) in work.into_iter().zip(&mut sealed) {
            if let (Item::Segment(segment), Some(settings)) = (item, settings)
                && settings.is_fast()
            {
                *sealed = self.seal_next(segment, settings);
            }
        }
        self.doubt(items, &sealed);
        sealed
    }

    fn settings_of(&mut self, item: &Item) -> Option<Settings> {
        if let Item::Segment(segment) = item
            && segment.begins
        {
            self.settings = choose(segment, self.settings);
        }
        self.settings
    }

    /// Seals a segment of a fast stream with the matcher of the one before; not if that one was not sealed.
    fn seal_next(&mut self, segment: &Segment, settings: Settings) -> Option<Sealed> {
        let carried = self.carried.take();
        let mut matcher = if segment.begins {
            Matcher::new(settings, &segment.text, 0)
        } else {
            let (mut matcher, passed) = carried?;
            matcher.carry(passed - segment.before);
            matcher
        };
        let sealed = seal(segment, &mut matcher)?;
        self.carried = Some((matcher, segment.before + segment.body));
        Some(sealed)
    }

    /// Chooses anew when the level turns out to be wrong more often than at the beginning of the stream.
    fn doubt(&mut self, items: &VecDeque<Item>, sealed: &[Option<Sealed>]) {
        let last = items.iter().zip(sealed).rev().find_map(|pair| match pair {
            (Item::Segment(segment), Some(sealed)) => Some((segment, sealed)),
            _ => None,
        });
        if let Some((segment, sealed)) = last
            && sealed.exceptions > segment.tokens.len() / DOUBTFUL
            && self.settings.is_some_and(|settings| !settings.is_fast())
            && let better @ Some(settings) = choose(segment, self.settings)
            && !settings.is_fast()
        {
            self.settings = better;
        }
    }
}

/// Seals a segment whose stream's segments do not depend on each other.
fn seal_alone(item: &Item, settings: Option<Settings>) -> Option<Sealed> {
    let Item::Segment(segment) = item else { return None };
    let settings = settings.filter(|settings| !settings.is_fast())?;
    seal(segment, &mut Matcher::new(settings, &segment.text, segment.before))
}

impl<R: Read + Send> Read for Unpacker<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.ready.len() && !into.is_empty() {
            self.advance()?;
        }
        let n = into.len().min(self.ready.len() - self.given);
        into[..n].copy_from_slice(&self.ready[self.given..self.given + n]);
        self.given += n;
        Ok(n)
    }
}
