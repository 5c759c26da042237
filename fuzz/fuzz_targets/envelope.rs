//! Hostile bytes for sealed objects.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::crypto::envelope::{ObjectKind, open};
use restow::crypto::epoch::Epoch;
use restow::crypto::keys::{KeyRing, MasterKey};

fuzz_target!(|bytes: &[u8]| {
    let epoch = Epoch::from_secret(0, &[1; 32]);
    let keys = KeyRing::new(MasterKey::from_bytes([1; 32]), vec![epoch]).expect("an epoch");
    assert!(open(&keys, ObjectKind::Log, b"0", bytes).is_err(), "a forgery was accepted");
});
