//! Hostile bytes for log entries.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::format::log::LogEntry;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = LogEntry::decode(bytes) {
        assert_eq!(entry.encode(), bytes);
    }
});
