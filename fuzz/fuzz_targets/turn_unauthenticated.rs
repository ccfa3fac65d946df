#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| parlour_fuzz::turn::turn_unauthenticated(data));
