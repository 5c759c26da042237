//! Hostile bytes for directory entries: what decodes comes back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::format::codec::{Decoder, Encoder};
use restow::format::entry::Entry;

fuzz_target!(|bytes: &[u8]| {
    let Ok(entry) = Entry::decode(&mut Decoder::new(bytes)) else { return };
    let mut encoder = Encoder::default();
    entry.encode(&mut encoder);
    let again = encoder.finish();
    assert_eq!(Entry::decode(&mut Decoder::new(&again)).expect("what was decoded encodes"), entry);
});
