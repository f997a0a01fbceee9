//! The keys of a store: which one seals a row, which rows can be read, and what a lookup searches for.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::seal::{self, Form, Nonce, SealedValues};
use super::seal_key::{KeyId, SealKey};
use super::token::{Field, Row, Token};

/// What stands for rows in clear text where the ids of keys are listed. No key has this id.
pub const PLAINTEXT: &str = "plaintext";

/// An entry of a ring.
pub enum RingEntry {
    /// A key.
    Key(Box<SealKey>),
    /// Rows in clear text. As the first entry: rows are written in clear text. Elsewhere: they can be read.
    ClearText,
}

impl RingEntry {
    /// The id of the key, or [`PLAINTEXT`].
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Key(key) => key.id().as_str(),
            Self::ClearText => PLAINTEXT,
        }
    }
}

/// Why a stored row cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowFlaw {
    /// It is sealed under a key that is not in the ring.
    UnknownKey(KeyId),
    /// It is not as it was written.
    Altered,
    /// It is in clear text, and the ring does not say that such rows can be read.
    ClearText,
}

/// A row as far as it can be read.
#[derive(Clone)]
pub struct ListedRow {
    /// The opened row. With a flaw: the row as it is stored. Its values may have been altered.
    pub row: Row,
    /// Why it cannot be opened.
    pub flaw: Option<RowFlaw>,
}

/// The keys of a store, in their order. There is at least one entry.
pub struct Ring {
    entries: Vec<RingEntry>,
}

impl Ring {
    /// A ring of these entries. An entry that is there twice counts once. `None`: there is none.
    #[must_use]
    pub fn new(entries: Vec<RingEntry>) -> Option<Self> {
        let mut ring = Self { entries: Vec::new() };
        for entry in entries {
            if !ring.has(entry.name()) {
                ring.entries.push(entry);
            }
        }
        (!ring.entries.is_empty()).then_some(ring)
    }

    /// The ring of a store without keys.
    #[must_use]
    pub fn clear_text() -> Self {
        Self { entries: vec![RingEntry::ClearText] }
    }

    /// The names of the entries, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(RingEntry::name)
    }

    /// Does the ring have an entry with this name?
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names().any(|other| other == name)
    }

    /// Is there no key in the ring?
    #[must_use]
    pub fn is_without_keys(&self) -> bool {
        self.entries.iter().all(|entry| matches!(entry, RingEntry::ClearText))
    }

    /// The name of the first entry, under which rows are written.
    #[must_use]
    pub fn writes(&self) -> &str {
        self.names().next().unwrap_or(PLAINTEXT)
    }

    /// The key that seals rows. `None`: rows are written in clear text.
    #[must_use]
    pub fn seals(&self) -> Option<&SealKey> {
        match self.entries.first() {
            Some(RingEntry::Key(key)) => Some(key),
            Some(RingEntry::ClearText) | None => None,
        }
    }

    fn key(&self, id: &KeyId) -> Option<&SealKey> {
        self.entries.iter().find_map(|entry| match entry {
            RingEntry::Key(key) if key.id() == id => Some(&**key),
            _ => None,
        })
    }

    /// Opens a row as it is stored. `None`: it is in clear text, and can be read as it is.
    pub fn open(&self, stored: &Row) -> Result<Option<Row>, RowFlaw> {
        if !stored.looks_sealed() {
            return if self.has(PLAINTEXT) { Ok(None) } else { Err(RowFlaw::ClearText) };
        }
        match seal::form(stored.token()) {
            Form::ClearText if self.has(PLAINTEXT) => Ok(None),
            Form::ClearText => Err(RowFlaw::ClearText),
            Form::Malformed => Err(RowFlaw::Altered),
            Form::Sealed(id) => match self.key(&id) {
                Some(key) => seal::open(key, stored).map(Some).ok_or(RowFlaw::Altered),
                None => Err(RowFlaw::UnknownKey(id)),
            },
        }
    }

    /// Opens a row as it is stored, if that is possible.
    #[must_use]
    pub fn list(&self, stored: Row) -> ListedRow {
        match self.open(&stored) {
            Ok(opened) => ListedRow { row: opened.unwrap_or(stored), flaw: None },
            Err(flaw) => ListedRow { row: stored, flaw: Some(flaw) },
        }
    }

    /// Seals a row under the first key. `Ok(None)`: rows are written in clear text. `Err`: a value is too long.
    pub fn seal(&self, token: Token<'_>, nonce: Nonce) -> Result<Option<SealedValues>, ValueTooLong> {
        match self.seals() {
            Some(key) => seal::seal(key, token, nonce).map(Some).ok_or(ValueTooLong),
            None => Ok(None),
        }
    }

    /// Returns what the column of a token has in the rows that can be read and have this value: the tag under each key,
    /// or the value itself.
    pub fn stored_values<'a>(&self, field: Field, value: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        self.entries.iter().map(move |entry| match entry {
            RingEntry::Key(key) => Cow::Owned(seal::tag(key, field, value)),
            RingEntry::ClearText => Cow::Borrowed(value),
        })
    }
}

/// A value is too long to be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueTooLong;

/// Returns the name under which a row is stored: the id of a key, or [`PLAINTEXT`]. `None`: it is malformed.
#[must_use]
pub fn name_of(stored: Token<'_>) -> Option<Cow<'static, str>> {
    match seal::form(stored) {
        Form::ClearText => Some(Cow::Borrowed(PLAINTEXT)),
        Form::Sealed(id) => Some(Cow::Owned(id.as_str().to_owned())),
        Form::Malformed => None,
    }
}

/// Must the source of keys be asked before a write? Its first key may be another one by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskFirst {
    /// No.
    No,
    /// Yes, unless it was asked lately.
    UnlessAskedLately,
    /// Yes.
    Yes,
}

/// Decides whether the source of keys must be asked before a row is written under `writes`.
///
/// A program that can read rows under a new key lacks no key. So without this rule it would write under the old key for
/// as long as it runs, and a rotation would never end. `recorded` has the names under which there may be rows: a
/// complete rotation leaves only the name of its key. `before` is the name under which the row is stored now.
#[must_use]
pub fn ask_first(writes: &str, recorded: &BTreeSet<String>, before: Option<&str>) -> AskFirst {
    if recorded.is_empty() {
        // No row was ever sealed, or a lost key was forgotten.
        if writes == PLAINTEXT { AskFirst::No } else { AskFirst::UnlessAskedLately }
    } else if !recorded.contains(writes) {
        AskFirst::Yes
    } else if before.is_some_and(|before| before != writes) {
        AskFirst::UnlessAskedLately
    } else {
        AskFirst::No
    }
}

/// The field of a token that is not stored as it is given, because its value looks like a seal or a tag.
#[must_use]
pub fn reserved_field(token: Token<'_>) -> Option<Field> {
    seal::SECRETS.into_iter().find(|&field| token.get(field).is_some_and(seal::is_reserved))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> RingEntry {
        RingEntry::Key(Box::new(SealKey::derive(&[byte; 32]).unwrap()))
    }

    /// The ring of the keys 1 and 2, written as "1" and "2", and of clear text, written as "p".
    fn ring(text: &str) -> Ring {
        let entry = |letter| match letter {
            'p' => RingEntry::ClearText,
            letter => key(u8::try_from(letter).unwrap()),
        };
        Ring::new(text.chars().map(entry).collect()).unwrap()
    }

    fn stored(text: &str) -> Row {
        let token = Token::default().with(Field::Id, Some("7")).with(Field::RefreshToken, Some("made-up"));
        match ring(text).seal(token, [0; 12]).unwrap() {
            Some(values) => Row::new(values.stored(token), 1, None),
            None => Row::new(token, 1, None),
        }
    }

    #[test]
    fn the_ring_decides_which_rows_can_be_read() {
        let id = |text| RowFlaw::UnknownKey(ring(text).seals().unwrap().id().clone());
        let table = [
            // ring, row, can it be read?
            ("1", "1", Ok(())),
            ("1", "2", Err(id("2"))),
            ("1", "p", Err(RowFlaw::ClearText)),
            ("12", "1", Ok(())),
            ("12", "2", Ok(())),
            ("12", "p", Err(RowFlaw::ClearText)),
            ("1p", "1", Ok(())),
            ("1p", "p", Ok(())),
            ("1p", "2", Err(id("2"))),
            ("p1", "1", Ok(())),
            ("p1", "p", Ok(())),
            ("p", "p", Ok(())),
            ("p", "1", Err(id("1"))),
        ];
        for (keys, row, expected) in table {
            let opened = ring(keys).open(&stored(row));
            assert_eq!(opened.as_ref().err(), expected.as_ref().err(), "{keys} {row}");
            let listed = ring(keys).list(stored(row));
            assert_eq!(listed.flaw, expected.clone().err(), "{keys} {row}");
            assert_eq!(listed.row.get(Field::RefreshToken) == Some("made-up"), row == "p" || expected.is_ok());
            assert_eq!(listed.row.id(), "7");
            let value = opened.map(|opened| opened.unwrap_or_else(|| stored(row)));
            assert!(value.is_err() || value.unwrap().get(Field::RefreshToken) == Some("made-up"));
        }
    }

    #[test]
    fn a_row_with_a_tag_and_without_a_seal_is_altered_even_if_clear_text_can_be_read() {
        let stored = stored("1");
        let without_seal = Row::new(stored.token().with(Field::ClientSecret, None), 1, None);
        for keys in ["1", "1p", "p1", "p"] {
            assert_eq!(ring(keys).open(&without_seal).err(), Some(RowFlaw::Altered), "{keys}");
        }
    }

    #[test]
    fn the_first_entry_writes_and_a_lookup_searches_for_each() {
        let table = [("1", true, 1), ("12", true, 2), ("p", false, 1), ("p12", false, 3), ("1p", true, 2)];
        for (keys, seals, searched) in table {
            let ring = ring(keys);
            assert_eq!((ring.seals().is_some(), ring.is_without_keys()), (seals, keys == "p"), "{keys}");
            assert_eq!(ring.writes(), ring.names().next().unwrap());
            let values: Vec<_> = ring.stored_values(Field::RefreshToken, "made-up").collect();
            assert_eq!(values.len(), searched, "{keys}");
            assert_eq!(values[0], stored(keys).get(Field::RefreshToken).unwrap(), "{keys}");
        }
    }

    #[test]
    fn a_ring_has_at_least_one_entry_and_none_twice() {
        assert!(Ring::new(Vec::new()).is_none());
        assert_eq!(ring("1p21p").names().count(), 3);
        assert_eq!(ring("1p21p").names().nth(1), Some(PLAINTEXT));
    }

    #[test]
    fn a_write_under_a_key_that_was_not_used_before_asks_first() {
        let table = [
            // recorded, the row before, the answer for a write under "1"
            (vec![], None, AskFirst::UnlessAskedLately),
            (vec![], Some(PLAINTEXT), AskFirst::UnlessAskedLately),
            (vec!["1"], None, AskFirst::No),
            (vec!["1"], Some("1"), AskFirst::No),
            (vec!["1", "2"], Some("1"), AskFirst::No),
            (vec!["1", "2"], None, AskFirst::No),
            (vec!["1", "2"], Some("2"), AskFirst::UnlessAskedLately),
            (vec!["1", PLAINTEXT], Some(PLAINTEXT), AskFirst::UnlessAskedLately),
            (vec!["2"], None, AskFirst::Yes),
            (vec!["2"], Some("2"), AskFirst::Yes),
            (vec![PLAINTEXT], Some(PLAINTEXT), AskFirst::Yes),
        ];
        for (recorded, before, expected) in table {
            let names = recorded.iter().map(ToString::to_string).collect();
            assert_eq!(ask_first("1", &names, before), expected, "{recorded:?} {before:?}");
        }
        assert_eq!(ask_first(PLAINTEXT, &BTreeSet::new(), Some(PLAINTEXT)), AskFirst::No);
        assert_eq!(ask_first(PLAINTEXT, &BTreeSet::from(["1".to_owned()]), None), AskFirst::Yes);
    }

    #[test]
    fn a_secret_that_looks_like_a_seal_is_reserved() {
        for field in Field::ALL {
            let token = Token::default().with(field, Some("zts1.made-up"));
            assert_eq!(reserved_field(token), seal::SECRETS.contains(&field).then_some(field));
        }
    }

    #[test]
    fn the_name_of_a_row_is_that_of_the_entry_that_wrote_it() {
        for keys in ["1", "2", "p"] {
            assert_eq!(name_of(stored(keys).token()).as_deref(), Some(ring(keys).writes()));
        }
        assert_eq!(name_of(Token::default().with(Field::ClientSecret, Some("zts1.made-up"))), None);
    }
}
