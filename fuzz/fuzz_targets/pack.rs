//! Hostile bytes for whole packs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::crypto::keys::{KeyRing, MasterKey};
use restow::format::pack::read_directory;

fuzz_target!(|bytes: &[u8]| {
    let keys = KeyRing::derive(&MasterKey::from_bytes([1; 32]));
    assert!(read_directory(&keys, bytes).is_err(), "a forgery was accepted");
});
