//! Walks a compressed input from front to back and takes it apart: bytes to keep as they are, and segments of
//! deflate streams. Where the input is not what it began as, the rest is kept as it is.

use std::collections::VecDeque;
use std::io::{self, Read};

use super::bits::{Fault, RawBits};
use super::container::{Kind, archive_head, gzip_head, inspect, is_zlib_head};
use super::feed::{Feed, Frames, INT_BYTES, int};
use super::inflate::{Inflater, Segment, Stop};

const RAW_BYTES: usize = 1 << 20;
const BLOCK_DATA: u8 = 1;
const BLOCK_LARGE_OBJECTS: u8 = 3;

/// A piece of the input.
pub(super) enum Item {
    /// Bytes worth deduplicating.
    Raw(Vec<u8>),
    /// A few bytes of framing.
    Literal(Vec<u8>),
    /// Frames begin: their lengths, and how many of each.
    Chunks(Vec<(u32, u64)>),
    /// Bits of a stream that ended in them, or in damage.
    Bits(RawBits),
    /// A part of a deflate stream.
    Segment(Box<Segment>),
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The very beginning.
    Start,
    /// A gzip member, or the end.
    Member,
    /// The head of a zlib stream.
    ZlibHead,
    /// A data block of an archive, or the end.
    Block,
    /// A large object of an archive, or the end of its block.
    Object,
    /// The frames of an archive's stream; after it comes a block, or an object.
    Frames { in_objects: bool },
    /// A segment of a deflate stream.
    Deflate(After),
    /// Bytes as they are, to the end.
    Rest,
    /// Nothing.
    Done,
}

/// What follows a deflate stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    GzipTrailer,
    ZlibTrailer,
    Frames { in_objects: bool },
}

/// The walk.
pub(super) struct Walker<R> {
    /// The input.
    pub(super) feed: Feed<R>,
    state: State,
    inflater: Inflater,
    items: VecDeque<Item>,
    /// Where the input stopped being what it began as.
    pub(super) broken: bool,
    /// That was inside of something compressed: its end is missing, or it is damaged.
    pub(super) cut: bool,
}

impl<R: Read> Walker<R> {
    pub(super) fn new(reader: R) -> Self {
        let (feed, inflater) = (Feed::new(reader), Inflater::new());
        Walker {
            feed,
            state: State::Start,
            inflater,
            items: VecDeque::new(),
            broken: false,
            cut: false,
        }
    }

    /// The next piece; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Item>> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(Some(item));
            }
            if self.state == State::Done {
                return Ok(None);
            }
            self.state = self.step()?;
        }
    }

    fn step(&mut self) -> io::Result<State> {
        match self.state {
            State::Start => self.start(),
            State::Member => self.member(),
            State::ZlibHead => self.zlib_head(After::ZlibTrailer),
            State::Block => self.block(),
            State::Object => self.object(),
            State::Frames { in_objects } => self.frames(in_objects),
            State::Deflate(after) => self.deflate(after),
            State::Rest | State::Done => self.rest(),
        }
    }

    fn start(&mut self) -> io::Result<State> {
        match inspect(self.feed.peek(16)?) {
            Ok(Kind::Gzip) => Ok(State::Member),
            Ok(Kind::Zlib) => Ok(State::ZlibHead),
            Ok(Kind::PgCustom) => {
                let (head, found) = archive_head(&mut self.feed)?;
                self.items.push_back(Item::Raw(head));
                Ok(if found { State::Block } else { self.give_up() })
            }
            Err(_) => Ok(State::Rest),
        }
    }

    fn give_up(&mut self) -> State {
        self.broken = true;
        self.feed.frames = None;
        State::Rest
    }

    /// The same inside of something compressed.
    fn cut_off(&mut self) -> State {
        self.cut = true;
        self.give_up()
    }

    fn literal(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.items.push_back(Item::Literal(bytes));
        }
    }

    fn member(&mut self) -> io::Result<State> {
        match gzip_head(&mut self.feed)? {
            Some(n) => {
                let head = self.feed.take(n)?;
                self.literal(head);
                Ok(State::Deflate(After::GzipTrailer))
            }
            None if self.feed.peek(1)?.is_empty() => Ok(State::Done),
            None => Ok(self.give_up()),
        }
    }

    /// The two bytes at the front of a zlib stream.
    fn zlib_head(&mut self, after: After) -> io::Result<State> {
        let head = self.inflater.reader.whole_bytes(2, &mut self.feed);
        let head = match head {
            Ok(head) if is_zlib_head(head) => head.to_vec(),
            Ok(_) | Err(Fault::Data) => return Ok(self.leftover()),
            Err(Fault::Io(error)) => return Err(error),
        };
        self.inflater.reader.cut();
        self.log_frames();
        self.literal(head);
        Ok(State::Deflate(after))
    }

    fn log_frames(&mut self) {
        let log = self.feed.take_log();
        if !log.is_empty() {
            self.items.push_back(Item::Chunks(log));
        }
    }

    /// What the inflater read ahead, then the rest.
    fn leftover(&mut self) -> State {
        self.log_frames();
        let rest = self.inflater.reader.rest();
        self.bits(rest);
        self.cut_off()
    }

    fn bits(&mut self, bits: RawBits) {
        if bits.bits > 0 {
            self.items.push_back(Item::Bits(bits));
        }
    }

    fn block(&mut self) -> io::Result<State> {
        let head = self.feed.peek(1 + INT_BYTES)?;
        let next = match (head.first(), head.get(1..1 + INT_BYTES).and_then(int)) {
            (Some(&BLOCK_DATA), Some(_)) => State::Frames { in_objects: false },
            (Some(&BLOCK_LARGE_OBJECTS), Some(_)) => State::Object,
            (None, _) => return Ok(State::Done),
            _ => return Ok(self.cut_off()),
        };
        let head = self.feed.take(1 + INT_BYTES)?;
        self.literal(head);
        Ok(next)
    }

    fn object(&mut self) -> io::Result<State> {
        // An object id uses all 32 bits.
        let head = self.feed.peek(INT_BYTES)?;
        let Some(id) = head.get(..INT_BYTES) else { return Ok(self.cut_off()) };
        let last = id[1..] == [0; 4];
        let id = self.feed.take(INT_BYTES)?;
        self.literal(id);
        Ok(if last { State::Block } else { State::Frames { in_objects: true } })
    }

    fn frames(&mut self, in_objects: bool) -> io::Result<State> {
        if self.feed.peek(INT_BYTES)?.get(..INT_BYTES).and_then(int) == Some(0) {
            return self.frames_end(in_objects);
        }
        self.feed.frames = Some(Frames::default());
        self.zlib_head(After::Frames { in_objects })
    }

    fn frames_end(&mut self, in_objects: bool) -> io::Result<State> {
        let end = self.feed.take(INT_BYTES)?;
        self.literal(end);
        Ok(if in_objects { State::Object } else { State::Block })
    }

    fn deflate(&mut self, after: After) -> io::Result<State> {
        let (segment, stop) = self.inflater.segment(&mut self.feed)?;
        self.log_frames();
        if segment.raw.bits > 0 {
            self.items.push_back(Item::Segment(Box::new(segment)));
        }
        match stop {
            Stop::Full => Ok(State::Deflate(after)),
            Stop::Broken => Ok(self.leftover()),
            Stop::End => self.trailer(after),
        }
    }

    fn trailer(&mut self, after: After) -> io::Result<State> {
        let bytes = if after == After::GzipTrailer { 8 } else { 4 };
        let trailer = match self.inflater.reader.whole_bytes(bytes, &mut self.feed) {
            Ok(trailer) => trailer.to_vec(),
            Err(Fault::Data) => return Ok(self.leftover()),
            Err(Fault::Io(error)) => return Err(error),
        };
        self.inflater.reader.cut();
        self.log_frames();
        self.literal(trailer);
        let ahead = self.inflater.reader.rest();
        self.inflater = Inflater::new();
        match after {
            After::GzipTrailer | After::ZlibTrailer => {
                self.feed.put_back(&ahead.bytes);
                Ok(State::Member)
            }
            After::Frames { in_objects } => {
                let ended = ahead.bytes.is_empty() && self.feed.between_frames();
                if !ended || self.feed.peek(INT_BYTES)?.get(..INT_BYTES).and_then(int) != Some(0) {
                    self.bits(ahead);
                    return Ok(self.cut_off());
                }
                self.feed.frames = None;
                self.frames_end(in_objects)
            }
        }
    }

    fn rest(&mut self) -> io::Result<State> {
        self.feed.peek(RAW_BYTES)?;
        let bytes = self.feed.take(RAW_BYTES)?;
        if bytes.is_empty() {
            return Ok(State::Done);
        }
        self.items.push_back(Item::Raw(bytes));
        Ok(State::Rest)
    }
}
