//! Where streams come from: a file or pipe, or the output of a command. Knows nothing of chunks.

pub mod command;
pub mod exclude;
pub mod file;
pub mod sniff;
pub mod walk;

use std::io;

/// A stream of bytes with an end that can fail.
pub trait StreamInput: Send {
    /// Reads some bytes; 0 at the end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Passes over a hole at the current place and returns its length; 0 where there is none or
    /// the input cannot tell.
    fn skip_hole(&mut self) -> io::Result<u64> {
        Ok(0)
    }

    /// Bytes to expect, where known.
    fn size_hint(&self) -> Option<u64> {
        None
    }

    /// Called once after the last byte: whether the stream was complete, else why not.
    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// What to stop when nobody wants the rest.
    fn stopper(&self) -> Option<Stopper> {
        None
    }
}

/// Bytes in memory.
impl StreamInput for io::Cursor<bytes::Bytes> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(self, buffer)
    }
}

/// Ends the processes behind an input.
#[derive(Debug, Clone, Copy)]
pub struct Stopper(rustix::process::Pid);

impl Stopper {
    /// Sends SIGTERM to the whole process group; does nothing where it is gone.
    pub fn stop(&self) {
        let _ = rustix::process::kill_process_group(self.0, rustix::process::Signal::TERM);
    }
}
