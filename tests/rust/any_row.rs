//! What encryption at rest promises about a row with any contents. The fuzz target and the tests of its inputs share this.

use zoho_token_store::domain::key_ring::{self, Ring, RingEntry, RowFlaw};
use zoho_token_store::domain::seal::{self, Form, Nonce};
use zoho_token_store::domain::seal_key::{KeyId, SealKey};
use zoho_token_store::domain::{Field, Row, Token};

/// Separates the columns of one input.
const SEPARATOR: char = '\n';
const NONCE: Nonce = [3; 12];

fn key(byte: u8) -> SealKey {
    SealKey::derive(&[byte; 32]).unwrap()
}

fn entry(byte: u8) -> RingEntry {
    RingEntry::Key(Box::new(key(byte)))
}

fn token() -> Token<'static> {
    let values =
        ["7", "ada", "c", "made-up-secret", "made-up-refresh", "made-up-access", "made-up-grant", "1795303600000"];
    Token::from_fn(|field| values.get(field as usize).copied())
}

/// The columns of an input. One that is missing or empty is absent.
fn parse(input: &str) -> Token<'_> {
    Token::from_fn(|field| input.split(SEPARATOR).nth(field as usize))
}

/// The input that is a sealed row. All others are altered.
pub(crate) fn sealed_input() -> String {
    let token = token();
    let values = seal::seal(&key(1), token, NONCE).unwrap();
    let stored = values.stored(token);
    Field::ALL.map(|field| stored.get(field).unwrap_or_default()).join(&SEPARATOR.to_string())
}

/// Opens the row in each way, and seals its values.
///
/// Only the row that was sealed is opened under its key. Any other is an error or in clear text, and nothing crashes. A row
/// with any values is sealed and opened again without a change.
pub(crate) fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let stored = Row::new(parse(&text), 1, None);
    let authentic = sealed_input();
    let is_authentic = stored.token() == parse(&authentic);
    let form = seal::form(stored.token());
    assert!(stored.looks_sealed() || form == Form::ClearText);

    let with_clear_text = Ring::new(vec![entry(1), RingEntry::ClearText, entry(2)]).unwrap();
    match with_clear_text.open(&stored) {
        Ok(Some(opened)) => {
            assert!(is_authentic, "another row was opened");
            assert!(opened.token() == token());
        }
        Ok(None) => assert_eq!(form, Form::ClearText),
        Err(RowFlaw::UnknownKey(id)) => assert!(form == Form::Sealed(id.clone()) && id != *key(1).id()),
        Err(RowFlaw::Altered) => assert!(!is_authentic && form != Form::ClearText),
        Err(RowFlaw::ClearText) => panic!("clear text can be read"),
    }
    let without_key = Ring::new(vec![entry(2)]).unwrap();
    assert!(without_key.open(&stored).is_err());
    assert!(Ring::clear_text().open(&stored).is_ok_and(|opened| opened.is_none()) == (form == Form::ClearText));

    for value in text.split(SEPARATOR) {
        let _ = SealKey::parse(value);
        if let Some(id) = KeyId::parse(value) {
            assert_eq!(id.as_str(), value, "one id has one text");
        }
    }

    if key_ring::reserved_field(stored.token()).is_none() {
        let values = seal::seal(&key(2), stored.token(), NONCE).unwrap();
        let sealed = Row::new(values.stored(stored.token()), 1, None);
        let opened = seal::open(&key(2), &sealed).unwrap();
        assert!(opened.token() == stored.token());
        assert!(seal::open(&key(1), &sealed).is_none());
    }
}
