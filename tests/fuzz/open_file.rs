//! The target of `make fuzz`: a file with any contents, with or without a `-wal`, is opened, migrated, read and written.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../rust/any_file.rs"]
mod any_file;

fuzz_target!(|bytes: &[u8]| any_file::check(bytes));
