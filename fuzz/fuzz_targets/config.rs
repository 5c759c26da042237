//! Hostile bytes for config::Config::parse.
#![no_main]

use libfuzzer_sys::fuzz_target;
use restow::format::config::Config;

fuzz_target!(|bytes: &[u8]| {
    let _ = Config::parse(bytes);
});
