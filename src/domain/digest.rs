//! Names of secrets that are stored in place of them.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Returns a SHA-256 in lower-case hexadecimal.
#[must_use]
pub fn hex(digest: Sha256) -> String {
    digest.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
