//! Hostile bytes for whole packs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::crypto::epoch::Epoch;
use restow::crypto::keys::{KeyRing, MasterKey};
use restow::format::pack::read_directory;

fuzz_target!(|bytes: &[u8]| {
    let epoch = Epoch::from_secret(0, &[1; 32]);
    let keys = KeyRing::new(MasterKey::from_bytes([1; 32]), vec![epoch]).expect("an epoch");
    assert!(read_directory(&keys, bytes).is_err(), "a forgery was accepted");
});
