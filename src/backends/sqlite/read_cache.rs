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
}

/// The largest size of a cache, in bytes: about 10 000 rows.
const MAX_SIZE: usize = 8 << 20;

impl<V> Default for ReadCache<V> {
    fn default() -> Self {
        Self { version: None, found: Default::default(), size: 0 }
    }
}

impl<V: PartialEq> ReadCache<V> {
    /// Returns what `key` found, if that was at `version`.
    pub(super) fn get(&self, version: &V, key: Key, value: &str) -> Option<Vec<Row>> {
        if self.version.as_ref() == Some(version) { self.found[key as usize].get(value).cloned() } else { None }
    }

    /// Keeps what `key` found.
    ///
    /// Precondition: `version` was read before the lookup. If it is still the version afterwards, nothing changed in
    /// between.
    pub(super) fn insert(&mut self, version: V, key: Key, value: &str, rows: &[Row]) {
        let size = size_of::<(String, Vec<Row>)>() + value.len() + rows.iter().map(Row::memory_size).sum::<usize>();
        if self.version.as_ref() != Some(&version) || self.size + size > MAX_SIZE {
            *self = Self { version: Some(version), ..Self::default() };
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
    fn the_size_of_the_cache_is_limited() {
        let mut cache = ReadCache::default();
        for number in 0..40_000 {
            cache.insert((), Key::Id, &number.to_string(), &[row("1")]);
            assert!(cache.size <= MAX_SIZE);
        }
        assert!(cache.get(&(), Key::Id, "39999").is_some());
        assert!(cache.get(&(), Key::Id, "0").is_none());
        let large = "x".repeat(MAX_SIZE);
        cache.insert((), Key::Id, &large, &[]);
        assert!(cache.get(&(), Key::Id, &large).is_none());
        assert!(cache.size <= MAX_SIZE);
    }
}
