//! A statement and its values. Values are bound, never part of the text.

use std::borrow::Cow;
use std::fmt::Write as _;

use tokio_postgres::types::{ToSql, Type};

/// PostgreSQL's text cannot hold NUL.
const NUL: char = '\0';
/// Begins an escape. It is a control character that no token contains.
const ESCAPE: char = '\u{1a}';

/// Returns the text that stands for `value` in a table.
pub(super) fn escape(value: &str) -> Cow<'_, str> {
    if !value.contains([NUL, ESCAPE]) {
        return Cow::Borrowed(value);
    }
    let mut escaped = String::with_capacity(value.len() + 8);
    for character in value.chars() {
        match character {
            NUL => escaped.extend([ESCAPE, '0']),
            ESCAPE => escaped.extend([ESCAPE, ESCAPE]),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

/// Returns the value that a text in a table stands for. A text that [`escape`] never returns is taken as it is.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains(ESCAPE) {
        return Cow::Borrowed(text);
    }
    let mut value = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let escaped = match (character, rest.as_str().chars().next()) {
            (ESCAPE, Some('0')) => NUL,
            (ESCAPE, Some(ESCAPE)) => ESCAPE,
            _ => {
                value.push(character);
                continue;
            }
        };
        value.push(escaped);
        rest.next();
    }
    Cow::Owned(value)
}

/// A statement and its values.
#[derive(Default)]
pub(super) struct Statement<'a> {
    text: String,
    values: Vec<Bound<'a>>,
}

/// A value of a statement.
pub(super) enum Bound<'a> {
    Text(Option<Cow<'a, str>>),
    Number(Option<i64>),
    Texts(Vec<Option<Cow<'a, str>>>),
    Numbers(Vec<Option<i64>>),
}

impl Bound<'_> {
    fn parameter(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Text(text) => (text, Type::TEXT),
            Self::Number(number) => (number, Type::INT8),
            Self::Texts(texts) => (texts, Type::TEXT_ARRAY),
            Self::Numbers(numbers) => (numbers, Type::INT8_ARRAY),
        }
    }
}

impl<'a> Statement<'a> {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn parameters(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.values.iter().map(Bound::parameter).collect()
    }

    /// Adds constant text.
    pub(super) fn sql(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    pub(super) fn bind(&mut self, value: Bound<'a>) -> &mut Self {
        self.values.push(value);
        // Writing to a string does not fail.
        let _ = write!(self.text, "${}", self.values.len());
        self
    }

    pub(super) fn value(&mut self, value: Option<&'a str>) -> &mut Self {
        self.bind(Bound::Text(value.map(escape)))
    }

    pub(super) fn number(&mut self, number: impl Into<Option<i64>>) -> &mut Self {
        self.bind(Bound::Number(number.into()))
    }
}

/// A name as a statement has it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_can_be_stored_and_is_read_as_it_was() {
        let table = [
            ("", ""),
            ("plain", "plain"),
            ("\\u001a \\0", "\\u001a \\0"),
            ("\0", "\u{1a}0"),
            ("\u{1a}", "\u{1a}\u{1a}"),
            ("\u{1a}0", "\u{1a}\u{1a}0"),
            ("\0\0", "\u{1a}0\u{1a}0"),
            ("a\0b\u{1a}c", "a\u{1a}0b\u{1a}\u{1a}c"),
            ("\u{1a}\0", "\u{1a}\u{1a}\u{1a}0"),
            ("\u{1a}\u{1a}0", "\u{1a}\u{1a}\u{1a}\u{1a}0"),
            ("🦀\0é", "🦀\u{1a}0é"),
        ];
        for (value, text) in table {
            assert_eq!(escape(value), text, "{value:?}");
            assert_eq!(unescape(text), value, "{text:?}");
        }
    }

    #[test]
    fn no_two_texts_of_awkward_characters_are_stored_alike() {
        let alphabet = ["\0", "\u{1a}", "0", "a"];
        let mut texts = vec![String::new()];
        for _ in 0..5 {
            let longer = texts.iter().flat_map(|text| alphabet.map(|end| format!("{text}{end}")));
            texts = longer.chain(texts.clone()).collect();
            texts.sort();
            texts.dedup();
        }
        let mut stored: Vec<String> = texts.iter().map(|text| escape(text).into_owned()).collect();
        assert!(texts.iter().zip(&stored).all(|(text, stored)| unescape(stored) == *text && !stored.contains('\0')));
        stored.sort();
        stored.dedup();
        assert_eq!(stored.len(), texts.len());
    }

    #[test]
    fn a_text_of_another_program_is_read_as_it_is() {
        for text in ["\u{1a}", "\u{1a}x", "a\u{1a}", "\u{1a}1"] {
            assert_eq!(unescape(text), text);
        }
    }
}
