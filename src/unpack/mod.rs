//! Unpacking of compressed streams (`--unpack`): a compressed dump becomes its plain text, which deduplicates
//! from day to day, and a small recipe from which the very same compressed bytes are made again.
//!
//! [`Unpacker`] reads the input and gives the plain stream and the recipe; [`repack`] turns the two back. Known
//! are gzip, zlib, and `pg_dump -Fc` with zlib. Whatever else comes, damage and foreign bytes included, goes into
//! the plain stream as it is. Every segment was rebuilt and compared before its recipe was given.
//!
//! # How
//!
//! A deflate stream is its text plus the choices of the compressor: where matches were taken, and where blocks
//! end. zlib and GNU gzip make these choices by fixed rules, which `matcher` knows for every level. So a segment
//! of the stream (about 2 MiB of text) is its text, the level, and the heads of its blocks (about 70 bytes for
//! 40 KB); and where the rules say otherwise (pigz and `--rsyncable` begin anew here and there), the tokens that
//! differ. zlib-ng is known well enough. Of other compressors (libdeflate, ISA-L) more tokens differ; a segment whose
//! recipe would be more than a quarter of it is kept as it is, with the rest of its stream.
//!
//! # The recipe
//!
//! Numbers are those of `varint`. The recipe is read from front to back, the plain stream with it:
//!
//! ```text
//! magic      "RWUNPK\0\x01", the last byte the version
//! operation* until END:
//!   0 END      total length, BLAKE3 (32 bytes) of the original
//!   1 RAW      n: the next n plain bytes
//!   2 LITERAL  n, n bytes
//!   3 CHUNKS   n, n times (length, count): from here on the output is put into pg_dump's frames: each length
//!              stands in front of its frame as a zero byte and 4 bytes, lowest first; output after the last
//!              frame has none
//!   4 BITS     start, bits: the next (start + bits) / 8 plain bytes, rounded up, of which bits are used from bit
//!              `start` of the first on; the ones before are written already
//!   5 SEGMENT  n, length, plan of this length: the next n plain bytes, deflated by the plan
//! plan       flags (1 byte: start bit, +8 begins a stream, +16 fills up its last byte with zeros),
//!            settings (1 byte: level 1..9, +16 for zlib with memLevel 9, +32 for zlib-ng), bits,
//!            n, n bytes of text that follows the segment, n, n parts,
//!            n, n exceptions: right tokens before it, length of the match or 0 for a literal, distance of the match
//! part       flags (1 byte: 0 stored, 1 fixed, 2 dynamic, +4 begins here, +8 ends here, +16 last of the stream),
//!            tokens (bytes if stored); if dynamic: bits of its head, the head
//! ```
//!
//! Segments of levels 1 to 3 need the matcher of the segment before; all others are worked on in parallel.
//! A recipe is data: it may be damaged or made to harm. Reading one does not panic, and takes memory in proportion
//! to the bytes that are really there: a segment is below 4 MiB, a plan below 1 MiB, a thread has one or two.

mod bits;
mod container;
mod feed;
mod huffman;
mod inflate;
mod matcher;
mod plan;
mod repack;
mod seal;
mod sink;
mod unpacker;
mod varint;
mod walker;

pub use container::{Kind, Refusal};
pub use repack::{RepackError, repack};
pub use unpacker::{Unpacked, Unpacker};

const MAGIC: &[u8; 8] = b"RWUNPK\0\x01";
const OP_END: u8 = 0;
const OP_RAW: u8 = 1;
const OP_LITERAL: u8 = 2;
const OP_CHUNKS: u8 = 3;
const OP_BITS: u8 = 4;
const OP_SEGMENT: u8 = 5;

#[cfg(test)]
mod tests;
