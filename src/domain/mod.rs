//! The rules: which row a token names, how token and row merge, who may refresh, what may be purged, how rows are
//! imported, what is wrong with rows, and what is no path of a file.
//!
//! All functions are pure and work on borrowed values. There is no Python, no SQL, no clock and no I/O here. The time
//! and new ids are arguments. So each rule is one function, with its truth table below it or in
//! `tests/data/rules.json`.

pub mod backoff;
pub mod check;
pub mod data_centre;
pub mod digest;
pub mod expiry;
pub mod id;
pub mod identity;
pub mod import;
pub mod key_ring;
pub mod lease;
pub mod look_alike;
pub mod merge;
pub mod purge;
pub mod refresh_ahead;
pub mod saved_order;
pub mod seal;
pub mod seal_key;
pub mod token;
pub mod unsaved;

pub use identity::Key;
pub use token::{Field, Row, Token};
