//! Hostile bytes for compression and deltas.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::compress::{Compressor, Decompressor, Settings};

fuzz_target!(|input: (Vec<u8>, Vec<u8>, Vec<u8>)| {
    let (base, bytes, junk) = input;
    let mut compressor = Compressor::new(Settings::default()).expect("memory");
    let mut decompressor = Decompressor::new().expect("memory");
    let delta = compressor.delta(&base, &bytes).expect("compression works");
    let _ = decompressor.delta(&base, &junk, bytes.len());
    let _ = decompressor.plain(&junk, junk.len() * 3);
    assert_eq!(decompressor.delta(&base, &delta, bytes.len()).expect("decodes"), bytes);
});
