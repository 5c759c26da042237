#![no_main]
use libfuzzer_sys::fuzz_target;
use restow::format::parity;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let _ = parity::is_whole(&input.0);
    let _ = parity::mend(&input.0, &input.1);
});
