//! How stored rows are looked up, opened and sealed, in one attempt at an operation.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::collections::BTreeSet;
use std::mem;

use super::backend::{Location, Snapshot};
use super::error::{Code, Error, Result};
use crate::domain::identity::Keys;
use crate::domain::key_ring::{self, PLAINTEXT, Ring};
use crate::domain::seal::{Nonce, SealedValues, TAGGED};
use crate::domain::{Key, Row, Token};

/// Does a lookup by this key search for a tag?
pub(super) fn is_tagged(key: Key) -> bool {
    TAGGED.contains(&key.field())
}

/// What is needed to read stored rows, in one attempt at an operation.
pub(super) struct SealedView<'a> {
    pub(super) ring: &'a Ring,
    pub(super) location: &'a Location,
    /// The names under which there may be rows, once they were read.
    pub(super) names: OnceCell<BTreeSet<String>>,
    /// Was the record of the names lost?
    pub(super) is_record_lost: Cell<bool>,
    /// Names that are recorded, are not in the ring, and have no row any more.
    pub(super) unused: OnceCell<BTreeSet<String>>,
}

impl<'a> SealedView<'a> {
    pub(super) const fn new(ring: &'a Ring, location: &'a Location) -> Self {
        Self { ring, location, names: OnceCell::new(), is_record_lost: Cell::new(false), unused: OnceCell::new() }
    }

    /// Opens a stored row.
    pub(super) fn open(&self, mut row: Row) -> Result<Row> {
        self.open_in_place(&mut row)?;
        Ok(row)
    }

    pub(super) fn open_all(&self, mut rows: Vec<Row>) -> Result<Vec<Row>> {
        rows.iter_mut().try_for_each(|row| self.open_in_place(row))?;
        Ok(rows)
    }

    fn open_in_place(&self, row: &mut Row) -> Result<()> {
        match self.ring.open(row) {
            Ok(None) => {}
            Ok(Some(opened)) => *row = opened,
            Err(flaw) => return Err(Error::unreadable_row(self.location, row.id(), &flaw)),
        }
        Ok(())
    }

    /// Opens the rows that a lookup has found, and leaves out those that do not have the value: a tag, given as a token,
    /// finds the row that it belongs to.
    pub(super) fn open_matching(&self, key: Key, value: &str, stored: Vec<Row>) -> Result<Vec<Row>> {
        let mut rows = self.open_all(stored)?;
        rows.retain(|row| row.get(key.field()) == Some(value));
        Ok(rows)
    }

    /// [`Snapshot::by_key`].
    pub(super) fn by_key(&self, rows: &dyn Snapshot, key: Key, value: &str) -> Result<Vec<Row>> {
        if !is_tagged(key) {
            return self.open_all(rows.by_key(key, value)?);
        }
        let mut found = Vec::new();
        self.by_keys(rows, &Keys::list(&[(key, value)]), &mut |_, rows| {
            found = rows;
            !found.is_empty()
        })?;
        Ok(found)
    }

    /// [`Snapshot::by_keys`]. All values are looked up together.
    pub(super) fn by_keys(
        &self,
        rows: &dyn Snapshot,
        keys: &Keys<'_>,
        accept: &mut dyn FnMut(Key, Vec<Row>) -> bool,
    ) -> Result<()> {
        let mut misses = Misses::default();
        if self.ring.is_without_keys() {
            rows.by_keys(keys, &mut |key, found| self.accept((key, None), found, &mut misses, accept))?;
            return if misses.are_doubtful()? { self.require_certain_miss(rows) } else { Ok(()) };
        }
        let searches = self.searches(keys);
        let pairs: Vec<(Key, &str)> = searches.iter().map(|search| (search.key, &*search.stored)).collect();
        let (mut next, mut group) = (searches.iter(), Vec::new());
        rows.by_keys(&Keys::list(&pairs), &mut |key, mut found| {
            let Some(search) = next.next() else { return true };
            group.append(&mut found);
            let value = is_tagged(key).then_some(search.value);
            !search.is_followed && self.accept((key, value), mem::take(&mut group), &mut misses, accept)
        })?;
        if misses.are_doubtful()? { self.require_certain_miss(rows) } else { Ok(()) }
    }

    /// Opens the stored rows that a key has found, and passes them on. With a value, only those that have it. Returns true
    /// to end the lookup.
    pub(super) fn accept(
        &self,
        (key, value): (Key, Option<&str>),
        stored: Vec<Row>,
        misses: &mut Misses,
        accept: &mut dyn FnMut(Key, Vec<Row>) -> bool,
    ) -> bool {
        let rows = match value {
            Some(value) => self.open_matching(key, value, stored),
            None => self.open_all(stored),
        };
        let is_accepted = match rows {
            Ok(rows) => accept(key, rows),
            Err(error) => {
                misses.failure = Some(error);
                return true;
            }
        };
        misses.is_doubtful |= !is_accepted && is_tagged(key);
        is_accepted
    }

    /// What to look up for these keys, in their order.
    fn searches<'k>(&self, keys: &Keys<'k>) -> Vec<Search<'k>> {
        let mut searches = Vec::new();
        for (key, value) in keys.iter() {
            let one = |stored| Search { key, value, stored, is_followed: true };
            if is_tagged(key) {
                searches.extend(self.ring.stored_values(key.field(), value).map(one));
                if !self.ring.has(PLAINTEXT) {
                    // If there is such a row, opening it fails.
                    searches.push(one(Cow::Borrowed(value)));
                }
            } else {
                searches.push(one(Cow::Borrowed(value)));
            }
            if let Some(last) = searches.last_mut() {
                last.is_followed = false;
            }
        }
        searches
    }

    /// Fails if there may be rows under a key that is not here.
    pub(super) fn require_certain_miss(&self, rows: &dyn Snapshot) -> Result<()> {
        let is_missing = |name: &&String| *name != PLAINTEXT && !self.ring.has(name);
        let missing: BTreeSet<String> = self.names(rows)?.iter().filter(is_missing).cloned().collect();
        let Some(first) = missing.first() else { return Ok(()) };
        if self.ring.is_without_keys() {
            // The database itself may refuse rows in clear text, whatever rows it has.
            return Err(Error::unknown_key(self.location, first));
        }
        if self.unused.get() == Some(&missing) {
            return Ok(());
        }
        // Its rows may all have been saved under another key since, or deleted.
        if let Some(key) = key_in_use(rows, &missing)? {
            return Err(Error::unknown_key(self.location, &key));
        }
        let _ = self.unused.set(missing);
        Ok(())
    }

    /// The names under which there may be rows.
    pub(super) fn names(&self, rows: &dyn Snapshot) -> Result<&BTreeSet<String>> {
        if let Some(names) = self.names.get() {
            return Ok(names);
        }
        let recorded = rows.key_names()?;
        self.is_record_lost.set(recorded.is_none());
        let names = recorded.map_or_else(|| names_in_use(rows), Ok)?;
        Ok(self.names.get_or_init(|| names))
    }

    /// Seals a row under the first key. `None`: it is stored in clear text.
    pub(super) fn seal(&self, token: Token<'_>) -> Result<Option<SealedValues>> {
        if let Some(field) = key_ring::reserved_field(token) {
            let name = field.name();
            return Err(Error::invalid_argument(format!(
                "the {name} of the token begins with zts1., so it is a sealed value and not one of Zoho's"
            )));
        }
        if self.ring.seals().is_none() {
            return Ok(None);
        }
        let mut nonce = Nonce::default();
        getrandom::fill(&mut nonce)
            .map_err(|_| Error::new(Code::IoError, self.location).with("the system gives no random bytes"))?;
        self.ring.seal(token, nonce).map_err(|_| Error::new(Code::ValueTooLarge, self.location))
    }
}

/// What a lookup of several keys has not found.
#[derive(Default)]
pub(super) struct Misses {
    failure: Option<Error>,
    is_doubtful: bool,
}

impl Misses {
    /// Could a row that was not found be there, under a key that is not here? It could have been the one, even if another
    /// key of the token has found a row. Fails if a row could not be opened.
    pub(super) fn are_doubtful(self) -> Result<bool> {
        self.failure.map_or(Ok(self.is_doubtful), Err)
    }
}

/// Returns the names of all rows. Rows that are malformed have none.
pub(super) fn names_in_use(rows: &dyn Snapshot) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    rows.each(&mut |row| {
        names.extend(key_ring::name_of(row.token()).map(Cow::into_owned));
        Ok(())
    })?;
    Ok(names)
}

/// Returns one of the keys that a row needs. A malformed row may need any of them.
fn key_in_use(rows: &dyn Snapshot, keys: &BTreeSet<String>) -> Result<Option<String>> {
    let mut found = None;
    rows.each(&mut |row| {
        match key_ring::name_of(row.token()) {
            Some(name) if keys.contains(&*name) => found = Some(name.into_owned()),
            None if found.is_none() => found = keys.first().cloned(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// Rows in clear text need no name if there are no others.
pub(super) fn without_lone_clear_text(names: BTreeSet<String>) -> BTreeSet<String> {
    if names.iter().all(|name| name == PLAINTEXT) { BTreeSet::new() } else { names }
}

/// A value to look up in a column.
struct Search<'k> {
    key: Key,
    /// The value that the caller looks for.
    value: &'k str,
    /// What the column has in a row with that value.
    stored: Cow<'k, str>,
    /// Another search for the same value follows.
    is_followed: bool,
}
