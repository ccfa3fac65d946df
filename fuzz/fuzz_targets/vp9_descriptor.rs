#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| parlour_fuzz::vp9_descriptor(data));
