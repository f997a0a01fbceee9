//! Known answers. Those of Wycheproof show that the algorithms are right. `tests/data/sealed.json` is written by a
//! second implementation (`tests/sealed_reference.py`), and shows that seals, tags and keys have the format that it has.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fs;
use std::path::Path;

use aes_gcm_siv::aead::AeadInOut;
use aes_gcm_siv::{Aes256GcmSiv, KeyInit};
use data_encoding::HEXLOWER;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;
use zoho_token_store::domain::seal::{self, Form};
use zoho_token_store::domain::seal_key::{SealKey, key_text, parse_key};
use zoho_token_store::domain::{Field, Row, Token};

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap()
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().unwrap()
}

mod wycheproof {
    use super::*;

    fn bytes(case: &Value, name: &str) -> Vec<u8> {
        HEXLOWER.decode(text(case, name).as_bytes()).unwrap()
    }

    /// Runs `is_valid` on each case of a file, and returns the number of cases with each result.
    fn run(name: &str, is_valid: impl Fn(&Value, &Value) -> bool) -> (usize, usize) {
        let file = read(&format!("wycheproof/{name}"));
        let mut counts = (0, 0);
        for group in list(&file, "testGroups") {
            for case in list(group, "tests") {
                let expected = text(case, "result") != "invalid";
                assert_eq!(is_valid(group, case), expected, "{name}: {}", case["tcId"]);
                if expected { counts.0 += 1 } else { counts.1 += 1 }
            }
        }
        counts
    }

    #[test]
    fn aes_256_gcm_siv() {
        let counts = run("aes_gcm_siv_test.json", |_, case| {
            let cipher = Aes256GcmSiv::new_from_slice(&bytes(case, "key")).unwrap();
            let Ok(nonce) = <[u8; 12]>::try_from(bytes(case, "iv")) else { return false };
            let (aad, tag) = (bytes(case, "aad"), <[u8; 16]>::try_from(bytes(case, "tag")).unwrap());
            let (plain, encrypted) = (bytes(case, "msg"), bytes(case, "ct"));
            let mut buffer = encrypted.clone();
            let opened =
                cipher.decrypt_inout_detached(&nonce.into(), &aad, buffer.as_mut_slice().into(), &tag.into()).is_ok();
            if opened {
                assert_eq!(buffer, plain);
                let sealed = cipher.encrypt_inout_detached(&nonce.into(), &aad, buffer.as_mut_slice().into());
                assert_eq!((buffer, <[u8; 16]>::from(sealed.unwrap())), (encrypted, tag));
            }
            opened
        });
        assert!(counts.0 > 30 && counts.1 > 20, "{counts:?}");
    }

    #[test]
    fn hmac_sha_256() {
        let counts = run("hmac_sha256_test.json", |group, case| {
            let mut mac = Hmac::<Sha256>::new_from_slice(&bytes(case, "key")).unwrap();
            mac.update(&bytes(case, "msg"));
            let size = usize::try_from(group["tagSize"].as_u64().unwrap()).unwrap() / 8;
            mac.finalize().into_bytes()[..size] == bytes(case, "tag")
        });
        assert!(counts.0 > 50 && counts.1 > 50, "{counts:?}");
    }

    #[test]
    fn hkdf_sha_256() {
        let counts = run("hkdf_sha256_test.json", |_, case| {
            let (salt, key) = (bytes(case, "salt"), bytes(case, "ikm"));
            let mut output = vec![0; usize::try_from(case["size"].as_u64().unwrap()).unwrap()];
            let expanded = Hkdf::<Sha256>::new(Some(&salt), &key).expand(&bytes(case, "info"), &mut output);
            expanded.is_ok() && output == bytes(case, "okm")
        });
        assert!(counts.0 > 50 && counts.1 > 0, "{counts:?}");
    }
}

fn row(values: &Value) -> Row {
    Row::new(Token::from_fn(|field| values[field.name()].as_str()), 1, None)
}

fn field(name: &str) -> Field {
    Field::ALL.into_iter().find(|field| field.name() == name).unwrap()
}

fn keys(file: &Value) -> Vec<SealKey> {
    list(file, "keys").iter().map(|key| SealKey::parse(text(key, "text")).unwrap()).collect()
}

#[test]
fn a_key_has_the_text_and_the_id_of_the_second_implementation() {
    let file = read("sealed.json");
    let keys = list(&file, "keys");
    for key in keys {
        let parsed = parse_key(text(key, "text")).unwrap();
        assert_eq!(*key_text(&parsed), text(key, "text"));
        assert_eq!(SealKey::derive(&parsed).unwrap().id().as_str(), text(key, "id"));
    }
    assert!(keys.len() > 3);
}

#[test]
fn what_the_second_implementation_refuses_as_a_key_is_refused() {
    let file = read("sealed.json");
    let refused = list(&file, "refused_keys");
    for (number, refused) in refused.iter().enumerate() {
        assert!(parse_key(refused.as_str().unwrap()).is_err(), "{number}");
    }
    assert!(refused.len() > 10);
}

#[test]
fn a_token_has_the_tag_of_the_second_implementation() {
    let file = read("sealed.json");
    let (keys, tags) = (keys(&file), list(&file, "tags"));
    for tag in tags {
        let key = &keys[usize::try_from(tag["key"].as_u64().unwrap()).unwrap()];
        assert_eq!(seal::tag(key, field(text(tag, "field")), text(tag, "value")), text(tag, "tag"));
    }
    assert!(tags.len() > 30);
}

#[test]
fn a_row_is_sealed_and_opened_as_by_the_second_implementation() {
    let file = read("sealed.json");
    let (keys, rows) = (keys(&file), list(&file, "rows"));
    for case in rows {
        let key = &keys[usize::try_from(case["key"].as_u64().unwrap()).unwrap()];
        let nonce = HEXLOWER.decode(text(case, "nonce").as_bytes()).unwrap().try_into().unwrap();
        let (plain, stored) = (row(&case["row"]), row(&case["stored"]));
        assert!(seal::seal(key, plain.token(), nonce).unwrap().stored(plain.token()) == stored.token());
        assert_eq!(seal::form(stored.token()), Form::Sealed(key.id().clone()));
        assert!(seal::open(key, &stored).unwrap().token() == plain.token());
        for other in keys.iter().filter(|other| other.id() != key.id()) {
            assert!(seal::open(other, &stored).is_none());
        }
    }
    assert!(rows.len() > 20);
}

#[test]
fn what_the_second_implementation_calls_altered_is_not_opened() {
    let file = read("sealed.json");
    let (keys, altered) = (keys(&file), list(&file, "altered"));
    for case in altered {
        let stored = row(&case["stored"]);
        assert!(keys.iter().all(|key| seal::open(key, &stored).is_none()), "{}", text(case, "why"));
    }
    assert!(altered.len() > 35);
}
