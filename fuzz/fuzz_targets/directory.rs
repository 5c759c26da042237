//! Hostile bytes for pack directories.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::format::directory::{decode, encode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entries) = decode(bytes) {
        let again = decode(&encode(&entries)).expect("what was decoded encodes");
        assert_eq!(again, entries);
    }
});
