//! `make fuzz`: any file at all, with or without a `-wal` beside it, opened, migrated, read and written.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../rust/any_file.rs"]
mod any_file;

fuzz_target!(|bytes: &[u8]| any_file::check(bytes));
