//! Hostile bytes for the chunker.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::chunker::{Chunker, Profile};

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (read, bytes) = (usize::from(input.0) + 1, input.1);
    let chunker = Chunker::new(Profile { min: 64, avg: 256, max: 1024 }, &[3; 32]);
    let (mut whole, mut rest) = (Vec::new(), &bytes[..]);
    while let Some(length) = chunker.cut(rest, true) {
        whole.push(length);
        rest = &rest[length..];
    }
    assert_eq!(whole.iter().sum::<usize>(), bytes.len());
    let (mut parts, mut start, mut seen) = (Vec::new(), 0, 0);
    while start < bytes.len() {
        seen = (seen + read).min(bytes.len());
        while let Some(length) = chunker.cut(&bytes[start..seen], seen == bytes.len()) {
            parts.push(length);
            start += length;
        }
    }
    assert_eq!(parts, whole, "cuts depend on how the input was read");
});
