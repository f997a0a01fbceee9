//! The keys of an open store.

use std::sync::Arc;
use std::time::Instant;

use zeroize::Zeroizing;

use super::deadline::Deadline;
use super::error::{Code, Error, Result};
use super::location::Location;
use super::supplied_keys::SuppliedKeys;
use crate::domain::key_ring::{AskFirst, Ring, RingEntry};
use crate::domain::seal_key::{KEY_LENGTH, SealKey, key_text};

pub use super::supplied_keys::KeySource;
pub(super) use super::supplied_keys::Renewal;

/// An entry of a list of keys, as a user gives it.
#[derive(Clone, Copy)]
pub enum GivenKey<'a> {
    /// The text of a key.
    Text(&'a str),
    /// `PLAINTEXT`.
    ClearText,
}

/// Returns the ring of a list of keys. An error names the position of a text that is no key, and never repeats it.
pub fn parse_keys<'a>(given: impl IntoIterator<Item = GivenKey<'a>>) -> Result<Ring> {
    let mut entries = Vec::new();
    for (position, key) in (1..).zip(given) {
        entries.push(match key {
            GivenKey::ClearText => RingEntry::ClearText,
            GivenKey::Text(text) => RingEntry::Key(Box::new(SealKey::parse(text).map_err(|flaw| {
                Error::invalid_key(format!("key number {position} cannot be used: {}", flaw.text()))
            })?)),
        });
    }
    Ring::new(entries).ok_or_else(|| Error::invalid_key("there is no key, so nothing would be encrypted"))
}

/// Makes a new key, and returns its text.
pub fn new_key() -> Result<Zeroizing<String>> {
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    getrandom::fill(&mut *key).map_err(|_| Error::new(Code::IoError, "the system").with("it gives no random bytes"))?;
    Ok(key_text(&key))
}

/// The keys of a store.
pub struct StoreKeys(Kind);

enum Kind {
    /// The ring of a store without keys.
    None(Arc<Ring>),
    /// Keys that stay as they are.
    Fixed(Arc<Ring>),
    /// Keys that a source supplies.
    Supplied(SuppliedKeys),
}

impl StoreKeys {
    /// No keys: rows are in clear text.
    #[must_use]
    pub fn none() -> Self {
        Self(Kind::None(Arc::new(Ring::clear_text())))
    }

    /// Keys that stay as they are.
    #[must_use]
    pub fn fixed(ring: Ring) -> Self {
        Self(Kind::Fixed(Arc::new(ring)))
    }

    /// Keys that `source` supplies. It is asked now.
    pub fn supplied(source: Arc<dyn KeySource>) -> Result<Self> {
        SuppliedKeys::new(source).map(|keys| Self(Kind::Supplied(keys)))
    }

    /// Has the store no keys, and will it never have any?
    pub(super) const fn are_none(&self) -> bool {
        matches!(self.0, Kind::None(_))
    }

    const fn as_supplied(&self) -> Option<&SuppliedKeys> {
        match &self.0 {
            Kind::None(_) | Kind::Fixed(_) => None,
            Kind::Supplied(keys) => Some(keys),
        }
    }

    /// Does a question for keys run functions of the program?
    pub(super) fn run_foreign_code(&self) -> bool {
        self.as_supplied().is_some_and(SuppliedKeys::run_foreign_code)
    }

    /// The keys now. `None`: they cannot be read before the deadline.
    pub(super) fn ring(&self) -> Option<Arc<Ring>> {
        match &self.0 {
            Kind::None(ring) | Kind::Fixed(ring) => Some(Arc::clone(ring)),
            Kind::Supplied(keys) => keys.ring(),
        }
    }

    /// Identifies the keys: it differs once they have changed.
    pub(super) fn generation(&self) -> u64 {
        self.as_supplied().map_or(0, SuppliedKeys::generation)
    }

    /// Asks the source again because a key is missing ([`SuppliedKeys::renew`]).
    pub(super) fn renew(&self, seen: u64, deadline: Deadline) -> Renewal {
        self.as_supplied().map_or(Renewal::Unchanged, |keys| keys.renew(seen, deadline))
    }

    /// Need the source not be asked before a write? An operation that has asked it does not call this.
    pub(super) fn has_answered(&self, asks: AskFirst) -> bool {
        self.as_supplied().is_none_or(|keys| keys.has_answered(asks))
    }

    /// Asks the source because a write needs it ([`SuppliedKeys::confirm`]).
    pub(super) fn confirm(&self, since: Instant, seen: u64, location: &Location, deadline: Deadline) -> Result<()> {
        self.as_supplied().map_or(Ok(()), |keys| keys.confirm(since, seen, location, deadline))
    }

    /// Asks the source because a rotation begins ([`SuppliedKeys::ask`]).
    pub(super) fn ask(&self, location: &Location, deadline: Deadline) -> Result<()> {
        self.as_supplied().map_or(Ok(()), |keys| keys.ask(location, deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_keys_are_never_asked_for() {
        for keys in [StoreKeys::none(), StoreKeys::fixed(Ring::clear_text())] {
            let answers =
                [AskFirst::No, AskFirst::UnlessAskedLately, AskFirst::Yes].map(|asks| keys.has_answered(asks));
            assert_eq!(answers, [true; 3]);
        }
    }
}
