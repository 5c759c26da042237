//! Where streams come from: a file or pipe, or the output of a command. Knows nothing of chunks.

pub mod command;
pub mod exclude;
pub mod file;
pub mod lazy;
pub mod sniff;
pub mod unpacking;
pub mod walk;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

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

/// Ends what is behind an input.
#[derive(Debug, Clone)]
pub enum Stopper {
    /// A group of processes.
    Group(rustix::process::Pid),
    /// The connection to a server.
    Socket(Arc<OwnedFd>),
    /// What is behind an input that may not have started yet.
    Later(Arc<OnceLock<Stopper>>),
}

impl Stopper {
    /// Sends SIGTERM to the whole process group, or shuts the connection down; does nothing where it is
    /// gone.
    pub fn stop(&self) {
        match self {
            Self::Group(group) => {
                let term = rustix::process::Signal::TERM;
                let _ = rustix::process::kill_process_group(*group, term);
            }
            Self::Socket(socket) => {
                let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
            }
            Self::Later(stopper) => {
                if let Some(stopper) = stopper.get() {
                    stopper.stop();
                }
            }
        }
    }
}
