//! Hostile bytes for snapshot manifests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::format::snapshot::Snapshot;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(snapshot) = Snapshot::decode(bytes) {
        let again = Snapshot::decode(&snapshot.encode()).expect("what was decoded encodes");
        assert_eq!(again.streams, snapshot.streams);
    }
});
