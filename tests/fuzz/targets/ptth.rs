#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cloudbridge::fuzz::run("ptth", bytes));
