//! The rules, and nothing else: which row a token names, how the two merge, who may refresh, what may be purged,
//! what is imported, what is not as it should be.
//!
//! Pure functions over borrowed values. No Python, no SQL, no clock, no I/O: time and new ids come in as
//! arguments, so every rule is one function with its truth table below it.

pub mod check;
pub mod expiry;
pub mod id;
pub mod identity;
pub mod import;
pub mod lease;
pub mod merge;
pub mod place;
pub mod purge;
pub mod token;

pub use identity::Key;
pub use token::{Field, Row, Token};
