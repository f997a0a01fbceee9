//! What a program without the key can do to stored rows: it is noticed, and nobody gets another user's token.

use std::fs;
use std::sync::Arc;

use zoho_token_store::backends::list::List;
use zoho_token_store::domain::key_ring::RowFlaw;
use zoho_token_store::domain::seal_key::KeyId;
use zoho_token_store::domain::{Field, Row, Token};
use zoho_token_store::store::backend::Backend;
use zoho_token_store::store::error::Code;
use zoho_token_store::store::{Store, Wait};

use super::any_row;
use super::common::keyed::{key_id, store_with};
use super::common::token;
use super::{ADA, BOB, LOOKUPS, change, find, hit, save, stored};

/// A list with Ada's and Bob's row, sealed under the key "a", and a store with these keys.
struct Case {
    backend: Arc<dyn Backend>,
    rows: Vec<Row>,
    store: Store,
}

impl Case {
    fn new(keys: &str) -> Self {
        let backend: Arc<dyn Backend> = Arc::new(List::new());
        let writer = store_with("a", &backend);
        save(&writer, ADA);
        save(&writer, BOB);
        Self { rows: stored(&backend), store: store_with(keys, &backend), backend }
    }

    /// Replaces the rows.
    fn put(&self, rows: &[Token<'_>]) {
        change(&self.backend, |stored| {
            stored.delete_all()?;
            (1..).zip(rows).try_for_each(|(order, &row)| stored.copy(&Row::new(row, order, None)))
        });
    }

    /// Looks Ada's row up by each of its keys, and asserts that the result is her row or an error. It may be a miss only
    /// if `changed` is the field that the lookup searches. Returns how many lookups found her row.
    fn assert_safe(&self, changed: &[Field], what: &str) -> usize {
        let expected = token(ADA);
        let mut hits = 0;
        for (lookup, field) in LOOKUPS {
            match self.store.find(token(lookup), Wait::Yes) {
                Err(_) => {}
                Ok(None) => assert!(changed.contains(&field), "{what}: a miss by {field:?}"),
                Ok(Some(found)) => {
                    for field in Field::ALL.into_iter().filter(|field| *field != Field::Id) {
                        assert!(found.row().get(field) == expected.get(field), "{what}: another {field:?} by {lookup}");
                    }
                    hits += 1;
                }
            }
        }
        hits
    }
}

#[test]
fn no_bit_of_a_stored_value_can_be_changed() {
    for keys in ["a", "bap"] {
        let case = Case::new(keys);
        let (ada, bob) = (case.rows[0].token(), case.rows[1].token());
        for field in Field::ALL {
            let value = ada.get(field).unwrap().as_bytes();
            let mut hits = 0;
            for bit in 0..8 * value.len() {
                let mut changed = value.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                let Ok(changed) = String::from_utf8(changed) else { continue };
                case.put(&[ada.with(field, Some(&changed)), bob]);
                hits += case.assert_safe(&[field], &format!("{keys}: bit {bit} of {}", field.name()));
            }
            assert_eq!(hits, 0, "every column is authenticated");
        }
        case.put(&[ada, bob]);
        assert_eq!(case.assert_safe(&[], "unchanged"), LOOKUPS.len());
    }
}

#[test]
fn rows_that_cannot_be_read_are_listed_beside_the_others() {
    let case = Case::new("a");
    let (ada, bob) = (case.rows[0].token(), case.rows[1].token());
    case.put(&[ada.with(Field::UserName, Some("eve")), bob]);
    let unknown = || Some(RowFlaw::UnknownKey(KeyId::parse(&key_id('a')).unwrap()));
    let table = [
        ("a", [Some(RowFlaw::Altered), None]),
        ("ba", [Some(RowFlaw::Altered), None]),
        ("b", [unknown(), unknown()]),
        ("p", [unknown(), unknown()]),
    ];
    for (keys, flaws) in table {
        let store = store_with(keys, &case.backend);
        let listed = store.list().unwrap();
        assert_eq!([listed[0].flaw.clone(), listed[1].flaw.clone()], flaws, "{keys}");
        for listed in listed {
            assert_eq!(store.list_row(listed.row.id()).unwrap().flaw, listed.flaw, "{keys}");
            let opened = listed.row.get(Field::RefreshToken) == token(BOB).get(Field::RefreshToken);
            assert_eq!(opened, listed.flaw.is_none(), "{keys}: only a row without a flaw has secrets");
        }
        assert_eq!(store.list_row("3").err().unwrap().code(), Code::MissingId, "{keys}");
        assert!(store.all().is_err(), "{keys}: a program gets an error instead");
    }
}

#[test]
fn a_preview_of_a_rotation_counts_altered_rows() {
    let case = Case::new("a");
    let (ada, bob) = (case.rows[0].token(), case.rows[1].token());
    case.put(&[ada.with(Field::UserName, Some("eve")), bob]);
    for (keys, rewritten, left) in [("a", 0, 1), ("ba", 1, 1), ("b", 0, 2), ("pa", 1, 1)] {
        let preview = store_with(keys, &case.backend).rekey_preview().unwrap();
        assert_eq!((preview.rewritten, preview.left), (rewritten, left), "{keys}");
    }
}

#[test]
fn no_stored_value_can_be_cut_short_or_removed() {
    let case = Case::new("ap");
    let (ada, bob) = (case.rows[0].token(), case.rows[1].token());
    for field in Field::ALL {
        let value = ada.get(field).unwrap();
        let first = usize::from(field == Field::Id);
        for length in first..value.len() {
            case.put(&[ada.with(field, Some(&value[..length])), bob]);
            assert_eq!(case.assert_safe(&[field], &format!("{} cut to {length}", field.name())), 0);
        }
    }
}

#[test]
fn no_stored_value_can_be_written_in_another_way() {
    let case = Case::new("ap");
    let (ada, bob) = (case.rows[0].token(), case.rows[1].token());
    let ways: [fn(&str) -> String; 9] = [
        |value| format!("{value}="),
        |value| format!("{value}A"),
        |value| format!("{value}\n"),
        |value| format!(" {value}"),
        str::to_uppercase,
        str::to_lowercase,
        |value| value.replace('-', "+").replace('_', "/") + "==",
        |value| value.replace("zts1.", "zts2."),
        |value| value.replace("zts1.", ""),
    ];
    for field in [Field::ClientSecret, Field::RefreshToken, Field::AccessToken, Field::GrantToken] {
        let value = ada.get(field).unwrap();
        for (number, way) in (1..).zip(ways) {
            case.put(&[ada.with(field, Some(&way(value))), bob]);
            assert_eq!(case.assert_safe(&[field], &format!("{} in way {number}", field.name())), 0);
        }
    }
}

#[test]
fn no_value_can_be_moved_to_another_column_or_row() {
    let case = Case::new("ap");
    let (ada, bob) = (case.rows[0].token(), case.rows[1].token());
    for to in Field::ALL.into_iter().filter(|&to| to != Field::Id) {
        for from in Field::ALL {
            for (whose, row) in [("her", ada), ("his", bob)] {
                let value = row.get(from);
                if value == ada.get(to) {
                    continue;
                }
                case.put(&[ada.with(to, value), bob]);
                let what = format!("{whose} {} in {}", from.name(), to.name());
                assert_eq!(case.assert_safe(&[to], &what), 0, "{what}");
            }
        }
    }
}

#[test]
fn two_rows_cannot_change_places() {
    let case = Case::new("ap");
    let (ada, bob) = (case.rows[0].token(), case.rows[1].token());
    for several in 1..1_u32 << Field::COUNT {
        let swapped: Vec<Field> = Field::ALL.into_iter().filter(|&field| several >> (field as u32) & 1 == 1).collect();
        if swapped.len() == Field::COUNT || swapped.iter().all(|&field| ada.get(field) == bob.get(field)) {
            continue;
        }
        let swap = |row: &Row, other: &Row| -> Row {
            let token = swapped.iter().fold(row.token(), |token, &field| token.with(field, other.get(field)));
            Row::new(token, 1, None)
        };
        let (first, second) = (swap(&case.rows[0], &case.rows[1]), swap(&case.rows[1], &case.rows[0]));
        case.put(&[first.token(), second.token()]);
        case.assert_safe(&swapped, &format!("swapped {swapped:?}"));
    }
}

#[test]
fn a_row_that_was_copied_under_another_id_is_noticed() {
    let case = Case::new("a");
    let ada = case.rows[0].token();
    case.put(&[ada, ada.with(Field::Id, Some("9"))]);
    assert!(find(&case.store, "id=9").is_err() && find(&case.store, "refresh_token=r-ada").is_err());
    assert_eq!(find(&case.store, "id=1"), hit("a-ada"));
}

/// The first inputs of the fuzz target `open_row`.
fn row_inputs() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/fuzz-row");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn any_row_is_opened_if_it_was_sealed_and_refused_otherwise() {
    let inputs = row_inputs();
    assert!(inputs.len() >= 5);
    assert!(inputs.contains(&any_row::sealed_input().into_bytes()), "one of them is a sealed row");
    for input in &inputs {
        any_row::check(input);
    }
}

#[test]
fn any_row_with_changed_bytes_is_refused_or_in_clear_text() {
    let mut random = fastrand::Rng::with_seed(1);
    for input in row_inputs() {
        for _ in 0..60 {
            let mut changed = input.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..=changed.len());
                match random.u8(..4) {
                    0 => changed.insert(at, b'\n'),
                    1 => changed.insert(at, random.u8(..)),
                    2 if at < changed.len() => drop(changed.remove(at)),
                    _ if at < changed.len() => changed[at] = random.u8(..),
                    _ => {}
                }
            }
            any_row::check(&changed);
        }
    }
}
