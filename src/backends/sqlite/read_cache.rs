//! The read cache: what lookups found, for as long as nothing has changed. A program asks for the same few tokens again
//! and again.
//!
//! It knows no SQL and no file. The owner guarantees that two equal versions of a database have the same rows.

use std::collections::HashMap;

use crate::domain::{Key, Row};

/// What was found at one version of a database.
pub(super) struct ReadCache<V> {
    version: Option<V>,
    found: [HashMap<String, Vec<Row>>; Key::ALL.len()],
    size: usize,
    /// Has the database sealed rows? `None`: not known.
    is_sealed: Option<bool>,
}

/// The largest size of a cache, in bytes: about 10 000 rows.
const MAX_SIZE: usize = 8 << 20;

impl<V> Default for ReadCache<V> {
    fn default() -> Self {
        Self { version: None, found: Default::default(), size: 0, is_sealed: None }
    }
}

impl<V: PartialEq> ReadCache<V> {
    /// Returns what `key` found, if that was at `version`.
    pub(super) fn get(&self, version: &V, key: Key, value: &str) -> Option<Vec<Row>> {
        if self.version.as_ref() == Some(version) { self.found[key as usize].get(value).cloned() } else { None }
    }

    /// Returns whether the database has sealed rows, if that is known for `version`.
    pub(super) fn is_sealed(&self, version: &V) -> Option<bool> {
        self.is_sealed.filter(|_| self.version.as_ref() == Some(version))
    }

    /// Keeps whether the database has sealed rows.
    ///
    /// Precondition: that of [`ReadCache::insert`].
    pub(super) fn set_sealed(&mut self, version: V, is_sealed: bool) {
        if self.version.as_ref() != Some(&version) {
            *self = Self { version: Some(version), ..Self::default() };
        }
        self.is_sealed = Some(is_sealed);
    }

    /// Keeps what `key` found.
    ///
    /// Precondition: `version` was read before the lookup. If it is still the version afterwards, nothing changed in
    /// between.
    pub(super) fn insert(&mut self, version: V, key: Key, value: &str, rows: &[Row]) {
        let size = size_of::<(String, Vec<Row>)>() + value.len() + rows.iter().map(Row::memory_size).sum::<usize>();
        if self.version.as_ref() != Some(&version) || self.size + size > MAX_SIZE {
            let is_sealed = self.is_sealed(&version);
            *self = Self { version: Some(version), is_sealed, ..Self::default() };
        }
        if size <= MAX_SIZE {
            self.size += size;
            self.found[key as usize].insert(value.to_owned(), rows.to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Field, Token};

    fn row(id: &str) -> Row {
        Row::new(Token::default().with(Field::Id, Some(id)), 1, None)
    }

    fn ids(found: Option<Vec<Row>>) -> Option<Vec<String>> {
        Some(found?.iter().map(|row| row.id().to_owned()).collect())
    }

    #[test]
    fn an_entry_is_valid_for_one_version() {
        let mut cache = ReadCache::default();
        cache.insert(1, Key::UserName, "ada", &[row("1"), row("2")]);
        cache.insert(1, Key::Id, "9", &[]);
        assert_eq!(ids(cache.get(&1, Key::UserName, "ada")), Some(vec!["1".to_owned(), "2".to_owned()]));
        assert_eq!(ids(cache.get(&1, Key::Id, "9")), Some(Vec::new()), "an empty result is kept too");
        assert_eq!(ids(cache.get(&1, Key::Id, "ada")), None, "another key found it");
        assert_eq!(ids(cache.get(&2, Key::UserName, "ada")), None);
        cache.insert(2, Key::Id, "1", &[row("1")]);
        assert_eq!(ids(cache.get(&2, Key::UserName, "ada")), None, "the entry is of an earlier version");
        assert_eq!(ids(cache.get(&1, Key::UserName, "ada")), None, "and an earlier version does not come back");
        assert_eq!(ids(cache.get(&2, Key::Id, "1")), Some(vec!["1".to_owned()]));
    }

    #[test]
    fn whether_rows_are_sealed_is_known_for_one_version() {
        let mut cache = ReadCache::default();
        assert_eq!(cache.is_sealed(&1), None);
        cache.set_sealed(1, false);
        cache.insert(1, Key::Id, "1", &[row("1")]);
        assert_eq!((cache.is_sealed(&1), cache.is_sealed(&2)), (Some(false), None));
        cache.insert(1, Key::Id, &"x".repeat(MAX_SIZE), &[]);
        assert_eq!(cache.is_sealed(&1), Some(false), "the rows alone were too large");
        cache.insert(2, Key::Id, "1", &[row("1")]);
        assert_eq!((cache.is_sealed(&1), cache.is_sealed(&2)), (None, None));
        cache.set_sealed(3, true);
        assert_eq!((cache.is_sealed(&3), ids(cache.get(&2, Key::Id, "1"))), (Some(true), None));
    }

    #[test]
    fn the_size_of_the_cache_is_limited() {
        let mut cache = ReadCache::default();
        for number in 0..60_000 {
            cache.insert((), Key::Id, &number.to_string(), &[row("1")]);
            assert!(cache.size <= MAX_SIZE);
        }
        assert!(cache.get(&(), Key::Id, "59999").is_some());
        assert!(cache.get(&(), Key::Id, "0").is_none());
        let large = "x".repeat(MAX_SIZE);
        cache.insert((), Key::Id, &large, &[]);
        assert!(cache.get(&(), Key::Id, &large).is_none());
        assert!(cache.size <= MAX_SIZE);
    }
}
