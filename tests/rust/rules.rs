//! The rules of the domain against their truth tables in `tests/data/rules.json`. Each case quotes its sentence of
//! `docs/contract.md` (sections 3, 4, 5, 10). The oracle of the model test has to pass the same tables.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::BTreeMap;
use std::convert::Infallible;

use serde::Deserialize;
use zoho_token_store::domain::{Field, Key, Row, Token, identity, merge, purge};

#[derive(Deserialize)]
struct Tables {
    which_row: Vec<WhichRow>,
    complete: Vec<Merge>,
    update: Vec<Merge>,
    purge: Vec<Purge>,
}

/// Values by the names of their fields.
#[derive(Deserialize)]
struct Values {
    saved: Option<i64>,
    #[serde(flatten)]
    fields: BTreeMap<String, Option<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichRow {
    why: String,
    rows: Vec<Values>,
    token: Values,
    finds: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Merge {
    why: String,
    row: Values,
    token: Values,
    result: Values,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    why: String,
    row: Values,
    saved_at: Option<i64>,
    now: i64,
    idle_for: Option<i64>,
    deleted: bool,
}

impl Values {
    fn token(&self) -> Token<'_> {
        let is_field = |name: &String| Field::ALL.iter().any(|field| field.name() == name);
        assert!(self.fields.keys().all(is_field), "{:?}", self.fields.keys());
        Token::from_fn(|field| self.fields.get(field.name())?.as_deref())
    }
}

fn tables() -> Tables {
    serde_json::from_str(include_str!("../data/rules.json")).unwrap()
}

/// The values that are present, by name. A failed comparison prints them.
fn values(token: Token<'_>) -> BTreeMap<&'static str, &str> {
    Field::ALL.into_iter().filter_map(|field| Some((field.name(), token.get(field)?))).collect()
}

#[test]
fn a_token_names_the_first_row_that_a_key_finds_and_that_contradicts_nothing() {
    for case in tables().which_row {
        let rows_with = |(key, value): (Key, &str)| {
            let matches = case.rows.iter().filter(move |row| row.token().get(key.field()) == Some(value));
            (key, matches.map(|row| Row::new(row.token(), row.saved.unwrap(), None)).collect())
        };
        let found = identity::find(case.token.token(), |keys, accept| {
            let _ = keys.iter().map(rows_with).any(|(key, rows)| accept(key, rows));
            Ok::<_, Infallible>(())
        })
        .unwrap();
        assert_eq!(found.as_ref().map(Row::id), case.finds.as_deref(), "{}", case.why);
    }
}

#[test]
fn a_token_is_completed_from_its_row() {
    for case in tables().complete {
        let completed = merge::complete(case.token.token(), case.row.token());
        assert_eq!(values(completed), values(case.result.token()), "{}", case.why);
    }
}

#[test]
fn an_update_takes_the_values_of_the_token_and_keeps_the_others() {
    for case in tables().update {
        let updated = merge::update(case.token.token(), case.row.token());
        assert_eq!(values(updated), values(case.result.token()), "{}", case.why);
    }
}

#[test]
fn a_row_may_be_purged_if_it_is_unusable_or_idle() {
    for case in tables().purge {
        let row = Row::new(case.row.token(), 1, case.saved_at);
        assert_eq!(purge::may_purge(&row, case.now, case.idle_for), case.deleted, "{}", case.why);
    }
}

#[test]
fn only_a_token_with_credentials_is_storable() {
    for field in Field::ALL {
        let is_credential = matches!(field, Field::RefreshToken | Field::GrantToken | Field::AccessToken);
        assert_eq!(merge::is_storable(Token::default().with(field, Some("x"))), is_credential, "{}", field.name());
    }
}

#[test]
fn a_long_lived_secret_is_replaced_if_it_was_present_and_changes() {
    let (old, new) = (Some("old"), Some("new"));
    for field in Field::ALL {
        let is_long_lived = matches!(field, Field::ClientSecret | Field::RefreshToken | Field::GrantToken);
        let token = |value| Token::default().with(field, value);
        for (before, after, replaced) in
            [(old, new, is_long_lived), (old, None, is_long_lived), (old, old, false), (None, new, false)]
        {
            let actual = merge::replaces_long_lived_secret(token(before), token(after));
            assert_eq!(actual, replaced, "{} {before:?} {after:?}", field.name());
        }
    }
}
