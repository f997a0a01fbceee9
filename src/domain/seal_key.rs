//! A key of encryption at rest: its text, its id, and the subkeys that seal rows and make tags.
//!
//! The format is fixed: a second implementation reads it (`tests/sealed_reference.py`). Randomness is an argument.

use std::fmt;

use aes_gcm_siv::{Aes256GcmSiv, KeyInit};
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// The length of a key, in bytes.
pub const KEY_LENGTH: usize = 32;

/// The text of a key begins with this.
const KEY_PREFIX: &str = "ztsk1_";
/// The length of the base32 text that follows.
const KEY_DIGITS: usize = 56;
const CHECKSUM_LENGTH: usize = 3;
/// The length of the text of a key id.
pub const KEY_ID_LENGTH: usize = 22;

/// Why a text is not the text of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFlaw {
    /// It is empty.
    Empty,
    /// It is a Fernet key, or another key in base64.
    Base64,
    /// It is hexadecimal.
    Hexadecimal,
    /// It begins with a byte order mark.
    ByteOrderMark,
    /// It looks like a comment.
    Comment,
    /// It does not begin as the text of a key does.
    Prefix,
    /// It is too short or too long.
    Length,
    /// It contains a character that the text of a key does not have.
    Character,
    /// Its checksum is wrong.
    Checksum,
}

impl KeyFlaw {
    /// What is wrong, without the text.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Empty => "it is empty",
            Self::Base64 => "it looks like a Fernet key, or another key in base64",
            Self::Hexadecimal => "it looks like a key in hexadecimal",
            Self::ByteOrderMark => "it begins with a byte order mark (save the file without one)",
            Self::Comment => "it begins with #, and there are no comments among keys",
            Self::Prefix => "it does not begin with ztsk1_, so it may be a passphrase",
            Self::Length => "it does not have 62 characters, so it may be cut short",
            Self::Character => "it has a character other than a to z and 2 to 7 after ztsk1_",
            Self::Checksum => "its checksum is wrong, so it was changed or mistyped",
        }
    }
}

/// Returns the key that a text stands for. Blanks around it do not count.
pub fn parse_key(text: &str) -> Result<Zeroizing<[u8; KEY_LENGTH]>, KeyFlaw> {
    let text = text.trim_ascii();
    let Some(digits) = text.strip_prefix(KEY_PREFIX) else { return Err(flaw_without_prefix(text)) };
    if digits.chars().count() != KEY_DIGITS {
        return Err(KeyFlaw::Length);
    }
    if !digits.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')) {
        return Err(KeyFlaw::Character);
    }
    let mut decoded = Zeroizing::new([0; KEY_LENGTH + CHECKSUM_LENGTH]);
    let upper_case = Zeroizing::new(digits.to_ascii_uppercase());
    if BASE32_NOPAD.decode_mut(upper_case.as_bytes(), &mut *decoded).is_err() {
        return Err(KeyFlaw::Character);
    }
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    let (bytes, found) = decoded.split_at(KEY_LENGTH);
    key.copy_from_slice(bytes);
    if checksum(&key) == found { Ok(key) } else { Err(KeyFlaw::Checksum) }
}

/// May a text be a key, a part of one, or have one in it? Then no message repeats it, whatever the text was given for.
#[must_use]
pub fn resembles_key(text: &str) -> bool {
    const ENOUGH_DIGITS: usize = 20;
    let bytes = text.as_bytes();
    (0..bytes.len()).any(|at| {
        let (prefix, digits) = bytes[at..].split_at_checked(KEY_PREFIX.len()).unwrap_or_default();
        prefix.eq_ignore_ascii_case(KEY_PREFIX.as_bytes())
            && digits.iter().take_while(|digit| digit.is_ascii_alphanumeric()).count() >= ENOUGH_DIGITS
    })
}

fn flaw_without_prefix(text: &str) -> KeyFlaw {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'/' | b'=');
    if text.is_empty() {
        KeyFlaw::Empty
    } else if text.starts_with('\u{feff}') {
        KeyFlaw::ByteOrderMark
    } else if text.starts_with('#') {
        KeyFlaw::Comment
    } else if matches!(text.len(), 32 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        KeyFlaw::Hexadecimal
    } else if matches!(text.len(), 43 | 44) && text.bytes().all(is_base64) {
        KeyFlaw::Base64
    } else {
        KeyFlaw::Prefix
    }
}

/// Returns the text of a key.
#[must_use]
pub fn key_text(key: &[u8; KEY_LENGTH]) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; KEY_LENGTH + CHECKSUM_LENGTH]);
    bytes[..KEY_LENGTH].copy_from_slice(key);
    bytes[KEY_LENGTH..].copy_from_slice(&checksum(key));
    let mut text = Zeroizing::new(String::with_capacity(KEY_PREFIX.len() + KEY_DIGITS));
    text.push_str(KEY_PREFIX);
    BASE32_NOPAD.encode_append(&*bytes, &mut text);
    text.make_ascii_lowercase();
    text
}

fn checksum(key: &[u8; KEY_LENGTH]) -> [u8; CHECKSUM_LENGTH] {
    let digest = Sha256::new().chain_update(b"zoho-token-store key 1").chain_update(key).finalize();
    [digest[0], digest[1], digest[2]]
}

/// The id of a key, as rows and messages name it. It does not reveal the key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(String);

impl KeyId {
    /// The id with this text. `None`: no id has it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Without this, one id could be written in several ways: 22 digits have 4 bits more than an id.
        let is_canonical = text.len() == KEY_ID_LENGTH && BASE64URL_NOPAD.decode(text.as_bytes()).is_ok();
        is_canonical.then(|| Self(text.to_owned()))
    }

    /// The text of the id: 22 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is derived from a key: its id, and the keys that seal rows and make tags. All are overwritten when it is
/// dropped.
pub struct SealKey {
    id: KeyId,
    pub(super) cipher: Aes256GcmSiv,
    pub(super) tags: Hmac<Sha256>,
}

impl SealKey {
    /// Derives everything from the key with this text.
    pub fn parse(text: &str) -> Result<Self, KeyFlaw> {
        Self::derive(&*parse_key(text)?)
    }

    /// Derives everything from a key.
    pub fn derive(key: &[u8; KEY_LENGTH]) -> Result<Self, KeyFlaw> {
        let derived = Hkdf::<Sha256>::new(Some(b"zoho-token-store"), key);
        let (mut id, mut row_key, mut tag_key) =
            ([0; 16], Zeroizing::new([0; KEY_LENGTH]), Zeroizing::new([0; KEY_LENGTH]));
        // An expansion fails only if more than 255 blocks are asked for.
        derived.expand(b"1 id", &mut id).map_err(|_| KeyFlaw::Length)?;
        derived.expand(b"1 row", &mut *row_key).map_err(|_| KeyFlaw::Length)?;
        derived.expand(b"1 lookup", &mut *tag_key).map_err(|_| KeyFlaw::Length)?;
        Ok(Self {
            id: KeyId(BASE64URL_NOPAD.encode(&id)),
            cipher: Aes256GcmSiv::new_from_slice(&*row_key).map_err(|_| KeyFlaw::Length)?,
            tags: Hmac::new_from_slice(&*tag_key).map_err(|_| KeyFlaw::Length)?,
        })
    }

    /// The id of the key.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// The first 16 bytes of the keyed digest of a value.
    pub(super) fn digest(&self, field_number: u8, value: &str) -> [u8; 16] {
        let mut mac = self.tags.clone();
        mac.update(&[field_number]);
        mac.update(value.as_bytes());
        let mut digest = mac.finalize().into_bytes();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        digest.as_mut_slice().zeroize();
        first
    }
}

/// Shows the id, and no key.
impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey {}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(key: &[u8; KEY_LENGTH]) -> String {
        key_text(key).to_string()
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        for key in [[0; KEY_LENGTH], [255; KEY_LENGTH], std::array::from_fn(|n| u8::try_from(7 * n).unwrap())] {
            let text = text(&key);
            assert_eq!((text.len(), &text[..6]), (62, "ztsk1_"));
            assert_eq!(parse_key(&text).as_deref(), Ok(&key));
            assert_eq!(parse_key(&format!(" {text}\r\n")).as_deref(), Ok(&key));
        }
    }

    #[test]
    fn any_other_text_is_refused_with_the_reason() {
        let good = text(&[7; KEY_LENGTH]);
        let table = [
            (String::new(), KeyFlaw::Empty),
            (" \n".to_owned(), KeyFlaw::Empty),
            ("correct horse battery staple".to_owned(), KeyFlaw::Prefix),
            (good[1..].to_owned(), KeyFlaw::Prefix),
            (good.to_ascii_uppercase(), KeyFlaw::Prefix),
            (good.replace("ztsk1_", "ztsk2_"), KeyFlaw::Prefix),
            ("0123456789abcdef".repeat(4), KeyFlaw::Hexadecimal),
            ("0123456789ABCDEF".repeat(2), KeyFlaw::Hexadecimal),
            (format!("{}=", "bWFkZSB1cA-".repeat(4).split_at(43).0), KeyFlaw::Base64),
            (good[..61].to_owned(), KeyFlaw::Length),
            (format!("{good}a"), KeyFlaw::Length),
            (format!("{}é", &good[..60]), KeyFlaw::Length),
            (good.replace("ztsk1_", "ztsk1_ztsk1_"), KeyFlaw::Length),
            (format!("{}1", &good[..61]), KeyFlaw::Character),
            (format!("{}A", &good[..61]), KeyFlaw::Character),
            (format!("{}é", &good[..61]), KeyFlaw::Character),
            (text(&[8; KEY_LENGTH])[..40].to_owned() + &good[40..], KeyFlaw::Checksum),
        ];
        for (text, flaw) in table {
            assert_eq!(parse_key(&text).err(), Some(flaw), "{} characters", text.len());
            assert!(!flaw.text().is_empty());
        }
    }

    #[test]
    fn no_changed_digit_passes_as_a_key() {
        let good = text(&[7; KEY_LENGTH]);
        for position in 6..good.len() {
            let mut other = good.clone().into_bytes();
            other[position] = if other[position] == b'a' { b'b' } else { b'a' };
            assert_eq!(parse_key(std::str::from_utf8(&other).unwrap()).err(), Some(KeyFlaw::Checksum), "{position}");
        }
    }

    #[test]
    fn an_id_has_one_text() {
        let id = SealKey::derive(&[7; KEY_LENGTH]).unwrap().id().clone();
        assert_eq!(KeyId::parse(id.as_str()), Some(id.clone()));
        let zeros = BASE64URL_NOPAD.encode(&[0; 16]);
        assert!(KeyId::parse(&zeros).is_some());
        assert!(KeyId::parse(&format!("{}B", &zeros[..21])).is_none(), "the last digit has four bits too many");
        assert!(KeyId::parse(&zeros[..21]).is_none() && KeyId::parse(&format!("{}+", &zeros[..21])).is_none());
    }

    #[test]
    fn nothing_prints_a_key() {
        let key = SealKey::derive(&[7; KEY_LENGTH]).unwrap();
        assert_eq!(format!("{key:?}"), format!("SealKey {}", key.id()));
    }
}
