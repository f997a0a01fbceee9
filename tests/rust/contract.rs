//! The contract (docs/contract.md, sections 2, 5, 6, 10), on every backend and without Python.
//!
//! Which row a token names, and how token and row merge, are rules of the domain with truth tables of their own. Here a
//! few cases show that every backend lets the domain decide.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod administration;
mod common;
mod transactions;

use std::sync::Arc;
use std::thread;

use common::{NOW, Setup, lines, token};
use zoho_token_store::domain::{Field, Token};
use zoho_token_store::store::error::Code;
use zoho_token_store::store::{Store, Wait};

fn save(store: &Store, values: &str) -> String {
    store.save(token(values), NOW).unwrap()
}

/// The id of the row that the token names.
fn found(store: &Store, values: &str) -> Option<String> {
    let found = store.find(token(values), Wait::Yes).unwrap()?;
    found.row().get(Field::Id).map(str::to_owned)
}

/// All rows as text, the oldest first.
fn rows(store: &Store) -> Vec<String> {
    lines(&store.all().unwrap())
}

fn ids(store: &Store) -> Vec<String> {
    store.all().unwrap().iter().map(|row| row.id().to_owned()).collect()
}

mod operations {
    use super::*;

    pub(super) fn a_saved_token_is_found_by_each_of_its_keys(store: &Store) {
        let id = save(store, "user_name=u client_id=c refresh_token=r grant_token=g access_token=a");
        for key in ["user_name=u", "id=1", "grant_token=g", "refresh_token=r", "access_token=a"] {
            assert_eq!(found(store, key), Some(id.clone()), "{key}");
        }
        for other in ["user_name=v", "id=2", "grant_token=r", "refresh_token=g", "access_token=r", "client_id=c"] {
            assert_eq!(found(store, other), None, "{other}");
        }
    }

    pub(super) fn the_next_key_is_tried_if_a_key_finds_nothing(store: &Store) {
        save(store, "refresh_token=r");
        assert_eq!(found(store, "user_name=u refresh_token=r"), Some("1".to_owned()));
    }

    pub(super) fn a_row_without_a_user_is_updated_when_its_user_becomes_known(store: &Store) {
        save(store, "client_id=c refresh_token=r");
        assert_eq!(save(store, "client_id=c refresh_token=r user_name=u"), "1");
        assert_eq!(rows(store), ["id=1 user_name=u client_id=c refresh_token=r"]);
    }

    pub(super) fn an_update_keeps_the_id_and_the_position_of_the_row(store: &Store) {
        save(store, "user_name=u refresh_token=r access_token=a expiry_time=1");
        save(store, "user_name=v refresh_token=s");
        save(store, "user_name=u access_token=b expiry_time=2");
        assert_eq!(
            rows(store),
            ["id=1 user_name=u refresh_token=r access_token=b expiry_time=2", "id=2 user_name=v refresh_token=s"]
        );
    }

    pub(super) fn among_several_rows_the_last_saved_one_is_found(store: &Store) {
        save(store, "user_name=u client_id=c refresh_token=r");
        save(store, "user_name=u client_id=d refresh_token=s");
        assert_eq!(found(store, "user_name=u"), Some("2".to_owned()));
        save(store, "user_name=u client_id=c access_token=a");
        assert_eq!(found(store, "user_name=u"), Some("1".to_owned()));
    }

    pub(super) fn a_login_with_another_spelling_of_the_api_domain_updates_its_row(store: &Store) {
        // Each login brings another refresh token, so only the user name finds the row.
        let login = |token, domain| format!("user_name=u client_id=c refresh_token={token} api_domain={domain}");
        save(store, &login("r1", "https://www.zohoapis.eu"));
        for (token, domain) in [("r2", "https://www.zohoapis.eu/"), ("r3", "HTTPS://www.ZohoAPIs.eu:443")] {
            assert_eq!(save(store, &login(token, domain)), "1");
            assert_eq!(
                rows(store),
                [format!("id=1 {}", login(token, domain))],
                "the row has the spelling of its last save"
            );
        }
        assert_eq!(save(store, &login("r4", "https://sandbox.zohoapis.eu")), "2");
    }

    pub(super) fn new_ids_rise_and_are_never_used_again(store: &Store) {
        for n in 1..=12 {
            assert_eq!(save(store, &format!("refresh_token=r{n}")), n.to_string());
        }
        store.delete(Some("12")).unwrap();
        assert_eq!(save(store, "refresh_token=after-a-delete"), "13");
        store.delete_all().unwrap();
        assert_eq!(save(store, "refresh_token=after-all-deletes"), "14");
    }

    pub(super) fn a_new_row_gets_the_id_of_its_token_if_no_row_has_it(store: &Store) {
        assert_eq!(save(store, "id=41 user_name=u refresh_token=r"), "41");
        assert_eq!(save(store, "id=41 user_name=v refresh_token=s"), "42");
        assert_eq!(save(store, "id=mine user_name=w refresh_token=t"), "mine");
        assert_eq!(save(store, "id=1000000000000000000 user_name=x refresh_token=u"), "1000000000000000000");
        assert_eq!(save(store, "user_name=y refresh_token=v"), "43");
    }

    pub(super) fn a_new_id_is_above_every_counted_id_and_skips_used_ones(store: &Store) {
        // The first id is the highest that counts. The second has too many digits to count, but it is in use.
        save(store, "id=999999999999999999 user_name=u refresh_token=r");
        save(store, "id=1000000000000000000 user_name=v refresh_token=s");
        assert_eq!(save(store, "user_name=w refresh_token=t"), "1000000000000000001");
        store.delete_all().unwrap();
        assert_eq!(save(store, "user_name=w refresh_token=t"), "1000000000000000002");
    }

    pub(super) fn only_an_id_of_digits_is_counted(store: &Store) {
        save(store, "id=7\0 user_name=u refresh_token=r");
        save(store, "id=8x user_name=v refresh_token=s");
        save(store, "id=007 user_name=w refresh_token=t");
        assert_eq!(save(store, "refresh_token=u"), "8");
    }

    pub(super) fn a_token_without_credentials_gets_no_row(store: &Store) {
        let refused = store.save(token("id=1 user_name=u client_id=c client_secret=s"), NOW);
        assert_eq!(refused.unwrap_err().code(), Code::EmptyToken);
        assert_eq!(store.count().unwrap(), 0);
    }

    pub(super) fn an_import_saves_all_tokens_or_none(store: &Store) {
        save(store, "user_name=u refresh_token=r");
        let good = ["user_name=u refresh_token=s", "user_name=v refresh_token=t"].map(token);
        let bad = [good[0], good[1], token("user_name=w")];
        let before = rows(store);
        assert!(store.import(&bad, NOW).is_err());
        assert_eq!(rows(store), before);
        assert_eq!(store.import(&good, NOW).unwrap(), ["1", "2"]);
        assert_eq!(rows(store), ["id=1 user_name=u refresh_token=s", "id=2 user_name=v refresh_token=t"]);
    }

    pub(super) fn a_row_is_found_by_its_exact_id_and_an_absent_id_finds_nothing(store: &Store) {
        save(store, "refresh_token=r");
        let is_found = |id| store.find_by_id(id, Wait::Yes).unwrap().is_some();
        assert!(is_found(Some("1")));
        for missing in [None, Some(""), Some("2"), Some("01"), Some("1 or 1=1"), Some("' or ''='")] {
            assert!(!is_found(missing), "{missing:?}");
        }
    }

    pub(super) fn a_delete_removes_one_row_and_a_missing_id_is_no_error(store: &Store) {
        for n in 1..=3 {
            save(store, &format!("refresh_token=r{n}"));
        }
        for id in [Some("2"), Some("2"), Some("1 or 1=1"), Some(""), None] {
            store.delete(id).unwrap();
        }
        assert_eq!(rows(store), ["id=1 refresh_token=r1", "id=3 refresh_token=r3"]);
        store.delete_all().unwrap();
        assert_eq!(store.count().unwrap(), 0);
    }

    pub(super) fn a_refused_access_token_is_removed_from_the_row_that_still_has_it(store: &Store) {
        save(store, "user_name=u refresh_token=r access_token=a expiry_time=5");
        save(store, "user_name=v refresh_token=s access_token=b expiry_time=5");
        save(store, "access_token=only expiry_time=5");
        let refuse = |access_token| store.refuse(access_token, NOW).unwrap();
        assert!(!refuse("of no row") && !refuse("only"), "nothing can be refreshed");
        assert!(refuse("a") && !refuse("a"), "once");
        assert_eq!(
            rows(store),
            [
                "id=1 user_name=u refresh_token=r",
                "id=2 user_name=v refresh_token=s access_token=b expiry_time=5",
                "id=3 access_token=only expiry_time=5"
            ]
        );
        save(store, "id=1 access_token=new expiry_time=9");
        assert!(!refuse("a"), "it was replaced meanwhile");
        assert_eq!(found(store, "access_token=new"), Some("1".to_owned()));
    }

    pub(super) fn values_are_stored_and_found_exactly(store: &Store) {
        let megabyte = "m".repeat(1 << 20);
        for value in ["O'Brien", "\"", "a\nb\r\n", "a\0b", "\0", "🦀 e\u{301}", "' or 1=1 --", "%", " ", &megabyte] {
            let token = Token::default().with(Field::UserName, Some(value)).with(Field::RefreshToken, Some(value));
            let id = store.save(token, NOW).unwrap();
            let key = Token::default().with(Field::RefreshToken, Some(value));
            let found = store.find(key, Wait::Yes).unwrap().unwrap();
            assert_eq!((found.row().get(Field::Id), found.row().get(Field::UserName)), (Some(&*id), Some(value)));
        }
        assert_eq!(store.count().unwrap(), 10);
    }

    pub(super) fn a_closed_store_fails_with_closed(store: &Store) {
        store.close();
        store.close();
        assert_eq!(store.find(token("id=1"), Wait::Yes).err().unwrap().code(), Code::Closed);
        assert_eq!(store.save(token("access_token=a"), NOW).unwrap_err().code(), Code::Closed);
        assert_eq!(store.count().unwrap_err().code(), Code::Closed);
    }

    pub(super) fn threads_that_save_at_the_same_time_lose_nothing_and_share_no_id(store: &Store) {
        thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || (0..25).for_each(|n| drop(save(store, &format!("refresh_token=r{thread}.{n}")))));
            }
            for _ in 0..25 {
                store.find(token("refresh_token=r0.0"), Wait::Yes).unwrap();
            }
        });
        let mut ids: Vec<i64> = ids(store).iter().map(|id| id.parse().unwrap()).collect();
        assert!(ids.is_sorted());
        ids.dedup();
        assert_eq!(ids.len(), 100);
    }
}

/// Makes a test of each rule, in a module for one backend. A rule of `stores` gets a store over a new backend. A rule
/// of `backends` gets the backend itself.
macro_rules! tests {
    (
        $name:ident, $make:expr, $keys:expr;
        stores { $($module:ident: [$($rule:ident)*])* }
        backends { $($lower_module:ident: [$($lower_rule:ident)*])* }
    ) => {
        mod $name {
            use super::*;

            $($(#[test] fn $rule() {
                let setup = Setup::new();
                let backend = common::make(&setup, $make);
                $module::$rule(&$keys.store(Box::new(backend)));
            })*)*
            $($(#[test] fn $lower_rule() {
                let setup = Setup::new();
                let backend = common::make(&setup, $make);
                $lower_module::$lower_rule(&*$keys.backend(Arc::new(backend)));
            })*)*
        }
    };
}

macro_rules! suite {
    ($name:ident, $make:expr) => {
        mod $name {
            use super::*;

            common::for_all_keys!(suite_with_keys, $make);
        }
    };
}

macro_rules! suite_with_keys {
    ($name:ident, $make:expr, $keys:expr) => {
        tests! {
            $name, $make, $keys;
            stores {
                operations: [
                    a_saved_token_is_found_by_each_of_its_keys
                    the_next_key_is_tried_if_a_key_finds_nothing
                    a_row_without_a_user_is_updated_when_its_user_becomes_known
                    an_update_keeps_the_id_and_the_position_of_the_row
                    among_several_rows_the_last_saved_one_is_found
                    a_login_with_another_spelling_of_the_api_domain_updates_its_row
                    new_ids_rise_and_are_never_used_again
                    a_new_row_gets_the_id_of_its_token_if_no_row_has_it
                    a_new_id_is_above_every_counted_id_and_skips_used_ones
                    only_an_id_of_digits_is_counted
                    a_token_without_credentials_gets_no_row
                    an_import_saves_all_tokens_or_none
                    a_row_is_found_by_its_exact_id_and_an_absent_id_finds_nothing
                    a_delete_removes_one_row_and_a_missing_id_is_no_error
                    a_refused_access_token_is_removed_from_the_row_that_still_has_it
                    values_are_stored_and_found_exactly
                    a_closed_store_fails_with_closed
                    threads_that_save_at_the_same_time_lose_nothing_and_share_no_id
                ]
                administration: [
                    a_purge_deletes_unusable_rows_and_with_idle_for_idle_rows_too
                    a_confirmed_purge_deletes_only_shown_rows_that_are_still_purgeable
                    a_confirmed_delete_deletes_the_shown_rows_and_no_others
                    a_purge_deletes_exactly_the_purgeable_rows
                    an_import_ignores_foreign_ids_and_a_second_import_changes_nothing
                    a_second_import_does_not_mix_the_rows_of_a_user
                    an_import_reports_each_row_that_it_does_not_take
                    an_imported_login_is_not_merged_into_another_one_with_the_same_text_in_place_of_a_token
                    an_imported_row_keeps_the_time_of_its_last_save
                    an_import_in_batches_reads_each_row_once_and_at_least_one_at_a_time
                    a_restore_copies_rows_exactly_and_no_id_is_used_again
                    an_id_that_was_deleted_before_the_backup_is_not_used_again
                    a_failed_restore_changes_nothing
                    a_restore_leaves_room_for_the_orders_of_later_saves
                    looking_at_or_deleting_a_missing_row_is_an_error
                    a_check_reports_problems_of_rows_and_changes_nothing
                ]
            }
            backends {
                transactions: [
                    a_failed_transaction_changes_nothing
                    an_uncommitted_change_is_invisible
                    a_caller_that_may_not_wait_fails_with_busy
                    a_caller_that_may_wait_gets_the_write_lock
                ]
            }
        }
    };
}

common::for_each_backend!(suite);
