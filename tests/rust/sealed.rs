//! Encryption at rest, on every backend and without Python. That a store with keys keeps the contract is tested by the
//! other suites, which run with keys, too.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod any_row;
mod common;
mod key_sources;
mod rotation;
#[cfg(all(unix, feature = "postgres"))]
mod sealed_in_postgres;
#[cfg(feature = "sqlite")]
mod sealed_in_sqlite;
#[cfg(feature = "sqlite")]
mod sealed_processes;
mod tampering;

use std::sync::Arc;

use common::keyed::{key_id, shared, store_with};
use common::{NOW, Setup, TIMEOUT, deadline, lines, token};
use zoho_token_store::domain::check::Severity;
use zoho_token_store::domain::import::Remark;
use zoho_token_store::domain::key_ring::PLAINTEXT;
use zoho_token_store::domain::{Field, Row, Token};
use zoho_token_store::store::backend::{Backend, Durability, Transaction};
use zoho_token_store::store::error::{Code, Result};
use zoho_token_store::store::{Store, Wait};

const ADA: &str = "user_name=ada client_id=c client_secret=s-ada refresh_token=r-ada access_token=a-ada \
                   grant_token=g-ada expiry_time=1795303600000 redirect_url=https://example.com \
                   api_domain=https://www.zohoapis.eu";
const BOB: &str = "user_name=bob client_id=c client_secret=s-bob refresh_token=r-bob access_token=a-bob \
                   grant_token=g-bob expiry_time=1795303600000";

/// A lookup of Ada's row by each of its keys.
const LOOKUPS: [(&str, Field); 5] = [
    ("user_name=ada", Field::UserName),
    ("id=1", Field::Id),
    ("grant_token=g-ada", Field::GrantToken),
    ("refresh_token=r-ada", Field::RefreshToken),
    ("access_token=a-ada", Field::AccessToken),
];

fn save(store: &Store, values: &str) -> String {
    store.save(token(values), NOW).unwrap()
}

/// The access token that a find returns, or the code of its error.
fn find(store: &Store, values: &str) -> std::result::Result<Option<String>, Code> {
    let found = store.find(token(values), Wait::Yes).map_err(|error| error.code())?;
    Ok(found.map(|found| found.row().get(Field::AccessToken).unwrap_or_default().to_owned()))
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with the result of `find`")]
fn hit(access_token: &str) -> std::result::Result<Option<String>, Code> {
    Ok(Some(access_token.to_owned()))
}

/// The rows as they are stored, the oldest first.
fn stored(backend: &Arc<dyn Backend>) -> Vec<Row> {
    let mut rows = Vec::new();
    backend
        .read(deadline(), &mut |snapshot| {
            rows.clear();
            snapshot.each(&mut |row| {
                rows.push(row);
                Ok(())
            })
        })
        .unwrap();
    rows
}

/// The names that the backend has recorded.
fn names(backend: &Arc<dyn Backend>) -> Vec<String> {
    let mut names = Vec::new();
    backend
        .read(deadline(), &mut |snapshot| {
            names = snapshot.key_names()?.unwrap().into_iter().collect();
            Ok(())
        })
        .unwrap();
    names
}

/// Changes the rows as they are stored, as a program without a key would.
fn change(backend: &Arc<dyn Backend>, work: impl Fn(&mut dyn Transaction) -> Result<()>) {
    backend.write(deadline(), Durability::Full, &mut |rows| work(rows)).unwrap();
}

/// Rotates the keys, and returns how many rows were rewritten and how many are left.
fn rotation_of(store: &Store) -> (usize, usize) {
    let done = store.rekey(|_| Ok(())).unwrap();
    (done.rewritten, done.left)
}

/// What each program does while keys are rotated: it finds Ada's row and saves it. A program without both keys gets
/// errors. None of them misses the row, or adds one. One program rotates.
fn rounds_of_a_rollout(store: &Store, keys: &str, rounds: usize) {
    for round in 0..rounds {
        for lookup in ["user_name=ada", "refresh_token=r-ada", "user_name=ada refresh_token=r-ada"] {
            match find(store, lookup) {
                Ok(Some(_)) => {}
                Err(Code::UnknownKey) if keys.len() == 1 => {}
                other => panic!("{keys}: {other:?} by {lookup}"),
            }
        }
        let values = ADA.replace("a-ada", &format!("{keys}-{round}"));
        match store.save(token(&values), NOW) {
            Ok(id) => assert_eq!(id, "1"),
            Err(error) => assert_eq!((error.code(), keys.len()), (Code::UnknownKey, 1), "{keys}"),
        }
        if keys == "ba" {
            rotation_of(store);
        }
    }
}

fn sorted(mut values: Vec<String>) -> Vec<String> {
    values.sort();
    values
}

mod rules {
    use super::*;

    type Shared = Arc<dyn Backend>;

    pub(super) fn a_backend_sees_no_secret_and_everything_else(backend: &Shared) {
        let store = store_with("a", backend);
        save(&store, ADA);
        save(&store, "user_name=ada access_token=a-new expiry_time=1795303600001");
        let row = &stored(backend)[0];
        let plain = token(ADA);
        for field in Field::ALL {
            let value = row.get(field).unwrap();
            let is_secret = ["s-ada", "r-ada", "a-new", "g-ada"].contains(&plain.get(field).unwrap_or_default())
                || field == Field::AccessToken;
            assert_eq!(value.starts_with("zts1."), is_secret, "{field:?}");
        }
        assert_eq!(row.get(Field::ExpiryTime), Some("1795303600001"));
        assert_eq!(row.get(Field::ApiDomain), plain.get(Field::ApiDomain));
        assert_eq!(names(backend), [key_id('a')]);
    }

    pub(super) fn a_row_under_another_key_is_an_error_and_never_a_miss(backend: &Shared) {
        save(&store_with("a", backend), ADA);
        for keys in ["b", "p", "bp", "pb"] {
            let store = store_with(keys, backend);
            for (lookup, _) in LOOKUPS {
                assert_eq!(find(&store, lookup), Err(Code::UnknownKey), "{keys} {lookup}");
            }
            // A token that no row has could have one under the key that is not here.
            assert_eq!(find(&store, "refresh_token=other"), Err(Code::UnknownKey), "{keys}");
            assert_eq!(find(&store, "user_name=eve refresh_token=other"), Err(Code::UnknownKey), "{keys}");
            // User names and ids are in clear text.
            assert_eq!(find(&store, "user_name=eve"), Ok(None), "{keys}");
            assert_eq!(find(&store, "id=2"), Ok(None), "{keys}");
            for values in [ADA, "refresh_token=r-ada access_token=a", "refresh_token=other"] {
                assert_eq!(store.save(token(values), NOW).unwrap_err().code(), Code::UnknownKey, "{keys}");
            }
            assert_eq!(store.all().unwrap_err().code(), Code::UnknownKey);
            assert_eq!(store.count().unwrap(), 1, "{keys}");
        }
        let error = store_with("b", backend).find_by_id(Some("1"), Wait::Yes).err().unwrap();
        assert!(error.to_string().contains(&format!("the row with the id \"1\" needs the key {}", key_id('a'))));
        assert_eq!(find(&store_with("ba", backend), "refresh_token=r-ada"), hit("a-ada"));
    }

    pub(super) fn a_row_that_another_token_has_found_does_not_hide_a_sealed_one(backend: &Shared) {
        save(&store_with("ap", backend), ADA);
        save(&store_with("pa", backend), BOB);
        let before = lines(&stored(backend));
        // The first token is that of the sealed row, and the second one that of the row in clear text.
        for values in ["refresh_token=r-ada access_token=a-bob", "grant_token=g-ada refresh_token=r-bob"] {
            for store in [Store::new(shared(backend), TIMEOUT), store_with("p", backend), store_with("bp", backend)] {
                assert_eq!(find(&store, values), Err(Code::UnknownKey), "{values}");
                assert_eq!(store.save(token(values), NOW).unwrap_err().code(), Code::UnknownKey, "{values}");
            }
        }
        assert!(lines(&stored(backend)) == before);
    }

    pub(super) fn a_key_without_rows_may_be_dropped(backend: &Shared) {
        save(&store_with("a", backend), ADA);
        save(&store_with("a", backend), BOB);
        save(&store_with("ba", backend), ADA);
        let store = store_with("b", backend);
        assert_eq!(find(&store, "refresh_token=other"), Err(Code::UnknownKey), "a row needs the key");
        save(&store_with("ba", backend), BOB);
        assert_eq!(names(backend), sorted(vec![key_id('a'), key_id('b')]));
        assert_eq!(find(&store, "refresh_token=other"), Ok(None));
        assert_eq!(save(&store, "refresh_token=r-eve"), "3");
        assert_eq!(names(backend), [key_id('b')], "a save drops the name");
        // A program that still writes under the old key, and a row that is deleted.
        let id = save(&store_with("ab", backend), "refresh_token=r-joe");
        assert_eq!(find(&store, "refresh_token=other"), Err(Code::UnknownKey));
        assert!(store.delete(Some(&id)).unwrap());
        assert_eq!(names(backend), sorted(vec![key_id('a'), key_id('b')]));
        assert_eq!(find(&store, "refresh_token=r-joe"), Ok(None));
        // Rows in clear text come first here, and must be read by others.
        assert_eq!(save(&store_with("pb", backend), "refresh_token=r-joe"), "5");
        assert_eq!(names(backend), sorted(vec![key_id('b'), PLAINTEXT.to_owned()]));
    }

    pub(super) fn a_tag_is_no_token(backend: &Shared) {
        save(&store_with("a", backend), ADA);
        let row = stored(backend).remove(0);
        for field in [Field::RefreshToken, Field::AccessToken, Field::GrantToken] {
            let tag = row.get(field).unwrap();
            let lookup = Token::default().with(field, Some(tag));
            for keys in ["p", "b", "bp"] {
                let found = store_with(keys, backend).find(lookup, Wait::Yes);
                assert_eq!(found.err().unwrap().code(), Code::UnknownKey, "{keys} {field:?}");
            }
            for keys in ["a", "ap", "pa"] {
                // In a list with PLAINTEXT the lookup finds the row, which does not have this token.
                assert!(store_with(keys, backend).find(lookup, Wait::Yes).is_ok_and(|found| found.is_none()), "{keys}");
            }
            let refused = store_with("p", backend).save(lookup.with(Field::UserName, Some("eve")), NOW);
            assert!(refused.is_err());
        }
    }

    pub(super) fn a_row_in_clear_text_is_an_error_unless_plaintext_is_in_the_list(backend: &Shared) {
        save(&store_with("p", backend), ADA);
        let store = store_with("a", backend);
        for (lookup, _) in LOOKUPS {
            assert_eq!(find(&store, lookup), Err(Code::PlaintextRow), "{lookup}");
        }
        assert_eq!(find(&store, "refresh_token=other"), Ok(None));
        assert_eq!(store.save(token(ADA), NOW).unwrap_err().code(), Code::PlaintextRow);
        assert_eq!(store.save(token("refresh_token=r-ada"), NOW).unwrap_err().code(), Code::PlaintextRow);
        for keys in ["p", "ap", "pa"] {
            for (lookup, _) in LOOKUPS {
                assert_eq!(find(&store_with(keys, backend), lookup), hit("a-ada"), "{keys} {lookup}");
            }
        }
        assert_eq!(store.count().unwrap(), 1);
    }

    pub(super) fn a_save_writes_under_the_first_key_and_keeps_the_row(backend: &Shared) {
        // Each program saves the row that the one before has written. The names of all of them are recorded.
        let table = [("p", vec![]), ("pa", vec![]), ("ap", vec!["a", "p"]), ("ba", vec!["a", "b", "p"])];
        for (number, (keys, recorded)) in (0..).zip(table) {
            let values = ADA.replace("a-ada", &format!("a-{number}"));
            assert_eq!(save(&store_with(keys, backend), &values), "1", "{keys}");
            let expected = recorded.iter().map(|&name| match name {
                "p" => PLAINTEXT.to_owned(),
                name => key_id(name.chars().next().unwrap()),
            });
            assert_eq!(names(backend), sorted(expected.collect()), "{keys}");
            assert_eq!(find(&store_with(keys, backend), "refresh_token=r-ada"), hit(&format!("a-{number}")));
        }
        assert_eq!(store_with("b", backend).count().unwrap(), 1);
    }

    pub(super) fn a_store_that_begins_with_sealed_rows_has_none_in_clear_text(backend: &Shared) {
        save(&store_with("ap", backend), ADA);
        assert_eq!(names(backend), [key_id('a')]);
        save(&store_with("pa", backend), BOB);
        assert_eq!(names(backend), sorted(vec![key_id('a'), PLAINTEXT.to_owned()]));
        assert_eq!(find(&store_with("ap", backend), "refresh_token=r-bob"), hit("a-bob"));
    }

    pub(super) fn values_that_look_sealed_are_refused(backend: &Shared) {
        for keys in ["p", "a", "pa"] {
            let store = store_with(keys, backend);
            for field in [Field::ClientSecret, Field::RefreshToken, Field::AccessToken, Field::GrantToken] {
                let error = store.save(token(ADA).with(field, Some("zts1.made-up")), NOW).unwrap_err();
                assert!(error.code() == Code::InvalidArgument && error.to_string().contains(field.name()), "{error}");
            }
            assert_eq!(store.count().unwrap(), 0);
        }
    }

    pub(super) fn deleting_works_without_the_key(backend: &Shared) {
        let store = store_with("a", backend);
        save(&store, ADA);
        save(&store, BOB);
        let other = store_with("b", backend);
        assert!(other.delete(Some("1")).unwrap());
        other.delete_all().unwrap();
        // No row needs the old key any more.
        assert_eq!(find(&other, "refresh_token=r-ada"), Ok(None));
        assert_eq!(save(&other, ADA), "3");
        assert_eq!(names(backend), [key_id('b')]);
    }

    pub(super) fn a_store_without_keys_does_not_replace_sealed_rows(backend: &Shared) {
        save(&store_with("a", backend), ADA);
        let row = Row::new(token("id=1 refresh_token=r"), 1, None);
        let refused = store_with("p", backend).restore(std::slice::from_ref(&row), 1).unwrap_err();
        assert_eq!(refused.code(), Code::UnknownKey);
        assert_eq!(find(&store_with("a", backend), "user_name=ada"), hit("a-ada"));
        assert_eq!(store_with("b", backend).restore(&[row], 1).unwrap(), 1);
        assert_eq!(names(backend), [key_id('b')], "a restore with keys seals under the first one");
    }

    pub(super) fn a_check_counts_the_rows_that_need_attention(backend: &Shared) {
        save(&store_with("p", backend), "user_name=u1 refresh_token=r1");
        save(&store_with("pa", backend), "user_name=u2 refresh_token=r2");
        save(&store_with("ap", backend), "user_name=u3 refresh_token=r3");
        save(&store_with("bap", backend), "user_name=u4 refresh_token=r4");
        save(&store_with("bap", backend), "user_name=u5 refresh_token=r5");
        change(backend, |rows| {
            let row = rows.by_key(zoho_token_store::domain::Key::Id, "5")?.remove(0);
            rows.rewrite(&row, row.token().with(Field::UserName, Some("eve")))
        });
        let found = |keys: &str| {
            let findings = store_with(keys, backend).check(NOW).unwrap().into_iter();
            let findings = findings.filter(|finding| finding.code != "no-wal");
            sorted(
                findings
                    .map(|finding| {
                        let severity = if finding.severity == Severity::Error { "E" } else { "W" };
                        format!("{severity} {} {}", finding.code, finding.ids.join(" "))
                    })
                    .collect(),
            )
        };
        assert_eq!(found("bap"), ["E altered 5", "W old-key 3", "W plaintext 1 2"]);
        assert_eq!(found("b"), ["E altered 5", "E plaintext 1 2", "E unknown-key 3"]);
        assert_eq!(found("pb"), ["E altered 5", "E unknown-key 3", "W old-key 4"]);
        assert_eq!(found("p"), ["E unknown-key 3", "E unknown-key 4 5"]);
        let message = |keys: &str| {
            let findings = store_with(keys, backend).check(NOW).unwrap();
            findings.iter().map(|finding| finding.message.clone()).collect::<String>()
        };
        assert!(message("b").contains(&key_id('a')) && message("bap").contains(&key_id('a')));
    }

    pub(super) fn an_import_seals_again_and_names_what_it_cannot_read(backend: &Shared) {
        let source: Arc<dyn Backend> = Arc::new(zoho_token_store::backends::list::List::new());
        save(&store_with("a", &source), ADA);
        save(&store_with("ba", &source), BOB);
        save(&store_with("ba", &source), "user_name=eve refresh_token=r-eve");
        save(&store_with("pba", &source), "user_name=joe refresh_token=r-joe");
        let mut rows = stored(&source);
        rows[2] = Row::new(rows[2].token().with(Field::UserName, Some("mallory")), 3, None);
        let store = store_with("cb", backend);
        let report = store.import_rows(&rows, NOW).unwrap();
        assert_eq!((report.counts.new, report.counts.skipped), (2, 2));
        let named: Vec<_> = report.remarks.iter().filter(|(_, remark)| *remark != Remark::NoClientSecret).collect();
        assert_eq!(named, [&(0, Remark::UnknownKey), &(2, Remark::Altered)]);
        assert_eq!(find(&store, "refresh_token=r-bob"), hit("a-bob"));
        assert_eq!(names(backend), [key_id('c')]);
        assert!(stored(backend).iter().all(|row| row.get(Field::ClientSecret).unwrap().contains(&key_id('c'))));
    }

    pub(super) fn a_restore_of_what_cannot_be_read_changes_nothing(backend: &Shared) {
        let source: Arc<dyn Backend> = Arc::new(zoho_token_store::backends::list::List::new());
        save(&store_with("a", &source), ADA);
        save(&store_with("ba", &source), BOB);
        let store = store_with("b", backend);
        save(&store, "user_name=eve refresh_token=r-eve access_token=a-eve");
        let before = lines(&store.all().unwrap());
        let error = store.restore(&stored(&source), 2).unwrap_err();
        assert_eq!(error.code(), Code::UnknownKey);
        assert!(error.to_string().starts_with("the backup") && error.to_string().contains(&key_id('a')), "{error}");
        assert_eq!(lines(&store.all().unwrap()), before);
        let store = store_with("ba", backend);
        assert_eq!(store.restore(&stored(&source), 2).unwrap(), 2);
        assert_eq!(lines(&store.all().unwrap()), [format!("id=1 {ADA}"), format!("id=2 {BOB}")]);
    }
}

macro_rules! suite {
    ($name:ident, $make:expr) => {
        tests! {
            $name, $make;
            rules: [
                a_backend_sees_no_secret_and_everything_else
                a_row_under_another_key_is_an_error_and_never_a_miss
                a_row_that_another_token_has_found_does_not_hide_a_sealed_one
                a_key_without_rows_may_be_dropped
                a_tag_is_no_token
                a_row_in_clear_text_is_an_error_unless_plaintext_is_in_the_list
                a_save_writes_under_the_first_key_and_keeps_the_row
                a_store_that_begins_with_sealed_rows_has_none_in_clear_text
                values_that_look_sealed_are_refused
                deleting_works_without_the_key
                a_store_without_keys_does_not_replace_sealed_rows
                a_check_counts_the_rows_that_need_attention
                an_import_seals_again_and_names_what_it_cannot_read
                a_restore_of_what_cannot_be_read_changes_nothing
            ]
            rotation: [
                a_rotation_keeps_ids_order_and_times
                a_rotation_seals_rows_in_clear_text_and_opens_them_again
                a_rotation_goes_on_after_an_interruption
                a_rotation_leaves_what_it_cannot_read
                a_rotation_counts_altered_rows_under_the_first_key
                a_rotation_goes_on_while_other_programs_work
                no_program_of_a_rollout_misses_a_row
                forgetting_a_key_deletes_exactly_its_rows
            ]
        }
    };
}

/// Makes a test of each rule, in a module for one backend.
macro_rules! tests {
    ($name:ident, $make:expr; $($module:ident: [$($rule:ident)*])*) => {
        mod $name {
            use super::*;

            $($(#[test] fn $rule() {
                let setup = Setup::new();
                let backend: Arc<dyn Backend> = Arc::new(common::make(&setup, $make));
                $module::$rule(&backend);
            })*)*
        }
    };
}

common::for_each_backend!(suite);
