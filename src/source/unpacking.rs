//! A compressed input taken apart while it is read: one input for its plain bytes, one for the recipe that
//! makes it what it was. Both must be read at the same time.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{Stopper, StreamInput};
use crate::unpack::{Kind, Refusal, Unpacker};

/// Pieces of the recipe that wait to be stored.
const WAITING: usize = 64;
/// Bytes that tell what an input is.
const HEAD: usize = 64;

/// An input whose first bytes were read already.
pub struct PeekedInput {
    head: io::Cursor<Vec<u8>>,
    input: Box<dyn StreamInput>,
}

/// Reads the first bytes of an input and says whether it can be unpacked, else why not.
pub fn peek(mut input: Box<dyn StreamInput>) -> io::Result<(PeekedInput, Result<Kind, Refusal>)> {
    let (mut head, mut length) = (vec![0; HEAD], 0);
    while length < HEAD {
        match input.read(&mut head[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    head.truncate(length);
    let kind = Unpacker::<io::Empty>::inspect(&head);
    Ok((PeekedInput { head: io::Cursor::new(head), input }, kind))
}

impl PeekedInput {
    /// Whether the input had no byte at all.
    pub fn is_empty(&self) -> bool {
        self.head.get_ref().is_empty()
    }
}

impl StreamInput for PeekedInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.head.read(buffer)? {
            0 => self.input.read(buffer),
            count => Ok(count),
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        self.input.finish()
    }

    fn stopper(&self) -> Option<Stopper> {
        self.input.stopper()
    }
}

/// Takes a compressed input apart: its plain bytes, and the recipe. One that is cut off or damaged fails, unless
/// `is_lenient`.
pub fn unpack(
    input: PeekedInput,
    is_lenient: bool,
) -> (Box<dyn StreamInput>, Box<dyn StreamInput>) {
    let (sender, receiver) = bounded(WAITING);
    let stopper = input.stopper();
    let shared = Arc::new(Mutex::new(input));
    let unpacker = Unpacker::new(Shared(shared.clone()));
    let plain = PlainInput { unpacker, input: shared, sender: Some(sender), stopper, is_lenient };
    let ended = Err("its stream was not read to the end".to_owned());
    let recipe = RecipeInput { receiver, piece: io::Cursor::default(), ended };
    (Box::new(plain), Box::new(recipe))
}

struct Shared(Arc<Mutex<PeekedInput>>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.lock().expect("no panics here").read(buffer)
    }
}

/// A piece of the recipe; none is its good end. Or why the input is not complete.
type Piece = Result<Option<Vec<u8>>, String>;

struct PlainInput {
    unpacker: Unpacker<Shared>,
    input: Arc<Mutex<PeekedInput>>,
    sender: Option<Sender<Piece>>,
    stopper: Option<Stopper>,
    is_lenient: bool,
}

impl PlainInput {
    fn send(&self, piece: Piece) -> io::Result<()> {
        let Some(sender) = &self.sender else { return Ok(()) };
        let gone = || io::Error::other("the recipe is not stored any more");
        sender.send(piece).map_err(|_| gone())
    }
}

impl StreamInput for PlainInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.unpacker.read(buffer)?;
        let recipe = self.unpacker.take_recipe();
        if !recipe.is_empty() {
            self.send(Ok(Some(recipe)))?;
        }
        Ok(count)
    }

    fn finish(&mut self) -> Result<(), String> {
        // Where the source failed, the recipe must not look complete either.
        let mut finished = self.input.lock().expect("no panics here").finish();
        if finished.is_ok() && self.unpacker.stats().cut && !self.is_lenient {
            finished =
                Err("what is compressed is cut off or damaged; --allow-cut-off stores it as it \
                            is"
                .to_owned());
        }
        let sent = self.send(finished.clone().map(|()| None));
        finished.and(sent.map_err(|error| error.to_string()))
    }

    fn stopper(&self) -> Option<Stopper> {
        self.stopper.clone()
    }
}

struct RecipeInput {
    receiver: Receiver<Piece>,
    piece: io::Cursor<Vec<u8>>,
    /// Whether all of it was given, else why not.
    ended: Result<(), String>,
}

impl StreamInput for RecipeInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.piece.read(buffer)? {
                0 => {}
                count => return Ok(count),
            }
            match self.receiver.recv() {
                Ok(Ok(Some(piece))) => self.piece = io::Cursor::new(piece),
                Ok(Ok(None)) => {
                    self.ended = Ok(());
                    return Ok(0);
                }
                Ok(Err(why)) => {
                    self.ended = Err(why);
                    return Ok(0);
                }
                Err(_) => return Ok(0),
            }
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        self.ended.clone()
    }
}
