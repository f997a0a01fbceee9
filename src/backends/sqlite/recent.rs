//! Rows that were found lately, for as long as nothing has changed: a program asks for the same few tokens again and again.
//!
//! Knows no SQL and no file. That two equal states of a database mean the same rows is for its owner to see to.

use std::collections::HashMap;

use crate::domain::{Key, Row};

/// What was found at one state of a database.
pub(super) struct Recent<S> {
    state: Option<S>,
    found: [HashMap<String, Vec<Row>>; Key::ALL.len()],
    size: usize,
}

/// The most that is kept, in bytes: some 10 000 rows.
const LARGEST: usize = 8 << 20;

impl<S> Default for Recent<S> {
    fn default() -> Self {
        Self { state: None, found: Default::default(), size: 0 }
    }
}

impl<S: PartialEq> Recent<S> {
    /// What `key` found, if that was at `state`.
    pub(super) fn get(&self, state: &S, key: Key, value: &str) -> Option<Vec<Row>> {
        if self.state.as_ref() == Some(state) { self.found[key as usize].get(value).cloned() } else { None }
    }

    /// Keeps what `key` found. `state` was read before that: if it is the state still, nothing changed in between.
    pub(super) fn keep(&mut self, state: S, key: Key, value: &str, rows: &[Row]) {
        let size = size_of::<(String, Vec<Row>)>() + value.len() + rows.iter().map(Row::memory_size).sum::<usize>();
        if self.state.as_ref() != Some(&state) || self.size + size > LARGEST {
            *self = Self { state: Some(state), ..Self::default() };
        }
        if size <= LARGEST {
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
    fn what_was_found_counts_until_the_state_is_another() {
        let mut recent = Recent::default();
        recent.keep(1, Key::UserName, "ada", &[row("1"), row("2")]);
        recent.keep(1, Key::Id, "9", &[]);
        assert_eq!(ids(recent.get(&1, Key::UserName, "ada")), Some(vec!["1".to_owned(), "2".to_owned()]));
        assert_eq!(ids(recent.get(&1, Key::Id, "9")), Some(Vec::new()), "that there is none counts, too");
        assert_eq!(ids(recent.get(&1, Key::Id, "ada")), None, "it was found by another key");
        assert_eq!(ids(recent.get(&2, Key::UserName, "ada")), None);
        recent.keep(2, Key::Id, "1", &[row("1")]);
        assert_eq!(ids(recent.get(&2, Key::UserName, "ada")), None, "that was before");
        assert_eq!(ids(recent.get(&1, Key::UserName, "ada")), None, "nor does an old state come back");
        assert_eq!(ids(recent.get(&2, Key::Id, "1")), Some(vec!["1".to_owned()]));
    }

    #[test]
    fn what_is_kept_has_a_largest_size() {
        let mut recent = Recent::default();
        for number in 0..40_000 {
            recent.keep((), Key::Id, &number.to_string(), &[row("1")]);
            assert!(recent.size <= LARGEST);
        }
        assert!(recent.get(&(), Key::Id, "39999").is_some());
        assert!(recent.get(&(), Key::Id, "0").is_none());
        let large = "x".repeat(LARGEST);
        recent.keep((), Key::Id, &large, &[]);
        assert!(recent.get(&(), Key::Id, &large).is_none());
        assert!(recent.size <= LARGEST);
    }
}
