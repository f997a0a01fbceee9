//! Sealed rows: the four secrets of a row in one authenticated ciphertext, and a tag of each token to search by.
//!
//! A row stays ten texts. The client secret's column has the *seal*, which also authenticates the other nine columns as
//! they are stored. The columns of the three tokens have *tags*. Everything else stays in clear text.
//!
//! ```text
//! seal       "zts1." key id "." base64url(nonce:12 ‖ ciphertext ‖ tag:16)       AES-256-GCM-SIV (RFC 8452)
//! plaintext  for each secret that is present, in the order of columns: field number:1 ‖ length:4 LE ‖ UTF-8
//! AAD        "zoho-token-store row 1" ‖ key id ‖ for each column but the client secret's, in their order:
//!            00 if it is absent, otherwise 01 ‖ length:4 LE ‖ the bytes as stored
//! tag        "zts1." base64url(HMAC-SHA-256(tag key, field number:1 ‖ UTF-8)[0..16])
//! ```
//!
//! The field number is the position of the column, counted from 0. Nothing else than the canonical text of a seal is
//! one. The format is fixed: a second implementation reads it (`tests/sealed_reference.py`).

use aes_gcm_siv::aead::AeadInOut;
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use super::seal_key::{KEY_ID_LENGTH, KeyId, SealKey};
use super::token::{Field, Row, SEALED_PREFIX as PREFIX, Token};
pub use super::token::{SECRETS, is_reserved};

const NONCE_LENGTH: usize = 12;
const TAG_LENGTH: usize = 16;
/// The fields that are searched by a tag.
pub const TAGGED: [Field; 3] = [Field::RefreshToken, Field::AccessToken, Field::GrantToken];

/// A nonce. It comes from the operating system.
pub type Nonce = [u8; NONCE_LENGTH];

/// How a row is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// In clear text.
    ClearText,
    /// Sealed under the key with this id.
    Sealed(KeyId),
    /// In a form that no program writes.
    Malformed,
}

/// Returns how a row is stored. This needs no key.
#[must_use]
pub fn form(stored: Token<'_>) -> Form {
    let is_tag = |field| stored.get(field).is_some_and(is_reserved);
    match stored.get(Field::ClientSecret).and_then(|secret| secret.strip_prefix(PREFIX)) {
        Some(rest) => split(rest).map_or(Form::Malformed, |(id, _)| Form::Sealed(id)),
        None if TAGGED.into_iter().any(is_tag) => Form::Malformed,
        None => Form::ClearText,
    }
}

/// Splits a seal without its prefix into the key id and the encoded ciphertext.
fn split(rest: &str) -> Option<(KeyId, &str)> {
    let (id, encoded) = rest.split_at_checked(KEY_ID_LENGTH)?;
    Some((KeyId::parse(id)?, encoded.strip_prefix('.')?))
}

/// Returns the tag of a token: what is stored in its column, and what a lookup by it looks for.
#[must_use]
pub fn tag(key: &SealKey, field: Field, value: &str) -> String {
    let mut text = PREFIX.to_owned();
    BASE64URL_NOPAD.encode_append(&key.digest(field as u8, value), &mut text);
    text
}

/// What a sealed row has in the columns of its secrets.
pub struct SealedValues {
    seal: String,
    tags: [Option<String>; TAGGED.len()],
}

impl SealedValues {
    /// The row as it is stored. `row` is the row that was sealed.
    #[must_use]
    pub fn stored<'a>(&'a self, row: Token<'a>) -> Token<'a> {
        with_tags(row, &self.tags).with(Field::ClientSecret, Some(&self.seal))
    }
}

fn with_tags<'a>(row: Token<'a>, tags: &'a [Option<String>; TAGGED.len()]) -> Token<'a> {
    TAGGED.iter().zip(tags).fold(row, |row, (&field, tag)| row.with(field, tag.as_deref()))
}

/// Seals a row. `None`: a value is longer than 4 GiB.
#[must_use]
pub fn seal(key: &SealKey, row: Token<'_>, nonce: Nonce) -> Option<SealedValues> {
    let tags = TAGGED.map(|field| row.get(field).map(|value| tag(key, field, value)));
    let present = || SECRETS.into_iter().filter_map(|field| Some((field, row.get(field)?)));
    let length = NONCE_LENGTH + present().map(|(_, value)| 5 + value.len()).sum::<usize>() + TAG_LENGTH;
    // With its whole capacity from the beginning, so that no copy of a secret is left where it grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    bytes.extend_from_slice(&nonce);
    for (field, value) in present() {
        bytes.push(field as u8);
        bytes.extend_from_slice(&length_of(value)?);
        bytes.extend_from_slice(value.as_bytes());
    }
    let associated = associated_data(key.id(), with_tags(row, &tags))?;
    let encrypted = key.cipher.encrypt_inout_detached(&nonce.into(), &associated, (&mut bytes[NONCE_LENGTH..]).into());
    bytes.extend_from_slice(&encrypted.ok()?);
    let mut seal = format!("{PREFIX}{}.", key.id());
    BASE64URL_NOPAD.encode_append(&bytes, &mut seal);
    Some(SealedValues { seal, tags })
}

/// Opens a row that is sealed under `key`. `None`: the row was altered, or `key` did not seal it.
#[must_use]
pub fn open(key: &SealKey, stored: &Row) -> Option<Row> {
    let row = stored.token();
    let (id, encoded) = split(row.get(Field::ClientSecret)?.strip_prefix(PREFIX)?)?;
    if id != *key.id() {
        return None;
    }
    let mut bytes = Zeroizing::new(BASE64URL_NOPAD.decode(encoded.as_bytes()).ok()?);
    let (nonce, rest) = bytes.split_first_chunk_mut::<NONCE_LENGTH>()?;
    let (encrypted, tag) = rest.split_last_chunk_mut::<TAG_LENGTH>()?;
    let associated = associated_data(key.id(), row)?;
    key.cipher.decrypt_inout_detached(&(*nonce).into(), &associated, (&mut *encrypted).into(), &(*tag).into()).ok()?;
    let secrets = parse(encrypted)?;
    let opened = SECRETS.iter().zip(secrets).fold(row, |row, (&field, value)| row.with(field, value));
    Some(stored.with_values(opened).overwritten_on_drop())
}

/// Parses the plaintext of a seal into the values of [`SECRETS`].
fn parse(mut bytes: &[u8]) -> Option<[Option<&str>; SECRETS.len()]> {
    let mut values = [None; SECRETS.len()];
    let mut next = 0;
    while let Some((&number, rest)) = bytes.split_first() {
        let index = next + SECRETS.get(next..)?.iter().position(|&field| field as u8 == number)?;
        let (&length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(length)).ok()?)?;
        // An empty value is an absent one, and those are left out.
        values[index] = Some(std::str::from_utf8(value).ok().filter(|value| !value.is_empty())?);
        (bytes, next) = (rest, index + 1);
    }
    Some(values)
}

/// What a seal authenticates beside the secrets. `stored` has the tags.
fn associated_data(id: &KeyId, stored: Token<'_>) -> Option<Vec<u8>> {
    let mut bytes = b"zoho-token-store row 1".to_vec();
    bytes.extend_from_slice(id.as_str().as_bytes());
    for field in Field::ALL.into_iter().filter(|&field| field != Field::ClientSecret) {
        let Some(value) = stored.get(field) else {
            bytes.push(0);
            continue;
        };
        bytes.push(1);
        bytes.extend_from_slice(&length_of(value)?);
        bytes.extend_from_slice(value.as_bytes());
    }
    Some(bytes)
}

fn length_of(value: &str) -> Option<[u8; 4]> {
    u32::try_from(value.len()).ok().map(u32::to_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SealKey {
        SealKey::derive(&[byte; 32]).unwrap()
    }

    const VALUES: [(Field, &str); 6] = [
        (Field::Id, "7"),
        (Field::UserName, "ada@example.com:1001"),
        (Field::ClientSecret, "made-up-secret"),
        (Field::RefreshToken, "made-up-refresh"),
        (Field::AccessToken, "made-up-access"),
        (Field::ExpiryTime, "1795300000000"),
    ];

    fn token() -> Token<'static> {
        VALUES.into_iter().fold(Token::default(), |token, (field, value)| token.with(field, Some(value)))
    }

    fn sealed(key: &SealKey, token: Token<'_>) -> Row {
        let values = seal(key, token, [3; NONCE_LENGTH]).unwrap();
        Row::new(values.stored(token), 4, Some(5))
    }

    #[test]
    fn a_row_is_opened_as_it_was_sealed() {
        let key = key(1);
        for absent in Field::ALL {
            let token = token().with(absent, None);
            let stored = sealed(&key, token);
            assert_eq!(form(stored.token()), Form::Sealed(key.id().clone()));
            let opened = open(&key, &stored).unwrap();
            assert_eq!((opened.token(), opened.saved_order, opened.saved_at), (token, 4, Some(5)), "{absent:?}");
            assert!(
                SECRETS.into_iter().all(|field| token.get(field).is_none() || stored.get(field) != token.get(field))
            );
        }
        assert!(open(&key, &sealed(&key, Token::default())).unwrap().token() == Token::default());
    }

    #[test]
    fn only_the_key_that_sealed_a_row_opens_it() {
        let stored = sealed(&key(1), token());
        assert!(open(&key(2), &stored).is_none());
        // The id alone does not make it.
        let other = stored.get(Field::ClientSecret).unwrap().replace(key(1).id().as_str(), key(2).id().as_str());
        let stored = Row::new(stored.token().with(Field::ClientSecret, Some(&other)), 4, Some(5));
        assert_eq!(form(stored.token()), Form::Sealed(key(2).id().clone()));
        assert!(open(&key(2), &stored).is_none());
    }

    #[test]
    fn a_change_of_any_column_is_noticed() {
        let key = key(1);
        let stored = sealed(&key, token());
        for field in Field::ALL {
            for other in [None, Some("other"), stored.get(Field::RefreshToken)] {
                if other == stored.get(field) {
                    continue;
                }
                let changed = Row::new(stored.token().with(field, other), 4, Some(5));
                assert!(open(&key, &changed).is_none(), "{field:?}");
            }
        }
    }

    #[test]
    fn a_tag_differs_between_keys_and_fields_and_is_the_same_otherwise() {
        let tags = [
            tag(&key(1), Field::RefreshToken, "a"),
            tag(&key(1), Field::AccessToken, "a"),
            tag(&key(1), Field::GrantToken, "a"),
            tag(&key(1), Field::RefreshToken, "b"),
            tag(&key(2), Field::RefreshToken, "a"),
        ];
        assert!((1..tags.len()).all(|index| !tags[..index].contains(&tags[index])));
        assert_eq!(tags[0], tag(&key(1), Field::RefreshToken, "a"));
        assert!(tags.iter().all(|tag| tag.len() == 27 && is_reserved(tag)));
    }

    #[test]
    fn the_plaintext_has_each_field_at_most_once_in_their_order() {
        let field = |number: u8, value: &[u8]| {
            [&[number], u32::try_from(value.len()).unwrap().to_le_bytes().as_slice(), value].concat()
        };
        let table: [(&[Vec<u8>], bool); 12] = [
            (&[], true),
            (&[field(3, b"s"), field(4, b"r"), field(5, b"a"), field(6, b"g")], true),
            (&[field(4, b"r"), field(6, b"g")], true),
            (&[field(4, b"r"), field(3, b"s")], false),
            (&[field(4, b"r"), field(4, b"r")], false),
            (&[field(2, b"c")], false),
            (&[field(7, b"e")], false),
            (&[field(6, b"g"), field(7, b"e")], false),
            (&[field(4, b"")], false),
            (&[field(4, b"\xFF")], false),
            (&[field(4, b"r")[..5].to_vec()], false),
            (&[field(4, b"r"), vec![5, 0, 0]], false),
        ];
        for (fields, expected) in table {
            assert_eq!(parse(&fields.concat()).is_some(), expected, "{fields:?}");
        }
        assert_eq!(parse(&field(5, b"a")), Some([None, None, Some("a"), None]));
    }

    #[test]
    fn the_form_of_a_row_is_read_without_a_key() {
        let key = key(1);
        let stored = sealed(&key, token());
        let seal = stored.get(Field::ClientSecret).unwrap();
        let tag = stored.get(Field::RefreshToken).unwrap();
        let with = |field, value: &str| form(token().with(field, Some(value)));
        assert_eq!(form(Token::default()), Form::ClearText);
        assert_eq!(form(token()), Form::ClearText);
        assert_eq!(with(Field::ClientSecret, seal), Form::Sealed(key.id().clone()));
        for malformed in ["zts1.", "zts1.x", tag, &seal[..27], &seal.replacen('.', ":", 2).replacen(':', ".", 1)] {
            assert_eq!(with(Field::ClientSecret, malformed), Form::Malformed, "{} characters", malformed.len());
        }
        for field in TAGGED {
            assert_eq!(with(field, tag), Form::Malformed, "{field:?}");
        }
        assert_eq!(with(Field::UserName, tag), Form::ClearText);
    }
}
