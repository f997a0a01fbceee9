//! The second target of `make fuzz`: a row with any contents is opened with several keys, and sealed.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../rust/any_row.rs"]
mod any_row;

fuzz_target!(|bytes: &[u8]| any_row::check(bytes));
