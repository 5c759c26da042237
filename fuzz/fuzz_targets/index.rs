//! Hostile bytes for idx objects.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::format::index::{decode, encode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(packs) = decode(bytes) {
        assert_eq!(decode(&encode(&packs)).expect("what was decoded encodes"), packs);
    }
});
