#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| udht_fuzz_targets::run("floors", bytes));
