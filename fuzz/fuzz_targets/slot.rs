//! Hostile bytes for key slots.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::crypto::slot::Slot;

fuzz_target!(|bytes: &[u8]| {
    let _ = serde_json::from_slice::<Slot>(bytes);
});
