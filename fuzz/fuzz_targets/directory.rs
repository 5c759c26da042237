//! Hostile bytes for pack directories.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::format::directory::{BlobEntry, decode, encode};
use restow::id::{ChunkId, ChunkKey};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entries) = decode::<ChunkId>(bytes) {
        let again: Vec<BlobEntry> = decode(&encode(&entries)).expect("what was decoded encodes");
        assert_eq!(again, entries);
    }
    let _ = decode::<ChunkKey>(bytes);
});
