//! Where one dump of MariaDB or MySQL was cut off and another one begins.

/// Looks for the header of another dump within a statement, where one was cut off in a text: dump
/// programs write no line breaks into texts.
#[derive(Debug, Default)]
pub(super) struct Seam(Vec<u8>);

const HEADER: &[u8] = b"\n-- Host: ";
/// What else a header has: bodies of routines hold line breaks, and comments.
pub(super) const HEADER_END: &str =
    "\n-- ------------------------------------------------------\n-- Server version";

impl Seam {
    /// Whether it is in this piece of a statement, or began in the piece before.
    pub fn find(&mut self, bytes: &[u8]) -> bool {
        let kept = HEADER.len() - 1;
        self.0.extend_from_slice(&bytes[..bytes.len().min(kept)]);
        let found = memchr::memmem::find(&self.0, HEADER).is_some()
            || memchr::memmem::find(bytes, HEADER).is_some();
        if bytes.len() >= kept {
            self.0 = bytes[bytes.len() - kept..].to_vec();
        } else {
            self.0.drain(..self.0.len().saturating_sub(kept));
        }
        found
    }
}
