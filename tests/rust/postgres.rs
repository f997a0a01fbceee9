//! What only the PostgreSQL backend has: the number of its round trips, guards and locks, lost answers, and its tables.
//! They run on a real server ([`common::postgres::dsn`]).

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;
mod postgres_tables;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::postgres::{Admin, Schema, address, open};
use common::postgres_proxy::Proxy;
use common::{NOW, TIMEOUT, deadline, token};
use zoho_token_store::backends::postgres::{Address, OwnProcess, Postgres, PostgresSettings};
use zoho_token_store::domain::lease::{Requester, Settings};
use zoho_token_store::domain::{Field, Key, Row};
use zoho_token_store::store::backend::{Backend, Durability, Transaction};
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::error::Code;
use zoho_token_store::store::lease::{Lookup, Outcome};
use zoho_token_store::store::{Error, Store, Wait};

const EXPIRED: &str = "user_name=ada client_id=c refresh_token=r access_token=old expiry_time=1";
const FRESH: &str = "user_name=ada client_id=c refresh_token=r access_token=new expiry_time=1795303600000";
const LENGTH: Duration = Duration::from_secs(10);

fn store(backend: Postgres) -> Store {
    Store::new(Box::new(backend), TIMEOUT).with_refresh_settings(Settings::new(LENGTH))
}

fn requester(process: &str) -> Requester {
    Requester::new(process, 0, 0, true)
}

fn try_acquire(store: &Store, process: &str) -> Outcome {
    store.try_acquire(Lookup::Id(Some("1")), &requester(process), 1, &|| NOW, TIMEOUT).unwrap().outcome
}

fn access_token(store: &Store) -> String {
    let found = store.find_by_id(Some("1"), Wait::Yes).unwrap().unwrap();
    found.row().get(Field::AccessToken).unwrap_or("none").to_owned()
}

/// A store behind a proxy, with one expired row whose id is 1.
struct Case {
    store: Store,
    proxy: Proxy,
    schema: Schema,
}

impl Case {
    fn new() -> Self {
        let (proxy, schema) = (Proxy::new(), Schema::new());
        let store = store(Postgres::open(address(&proxy.dsn()), schema.settings(), deadline()).unwrap());
        assert_eq!(store.save(token(EXPIRED), NOW).unwrap(), "1");
        Self { store, proxy, schema }
    }

    /// Another program on the same tables.
    fn other(&self) -> Store {
        store(open(&self.schema))
    }
}

mod round_trips {
    use super::*;

    #[test]
    fn a_find_is_one_statement_unless_a_token_finds_no_row() {
        let Case { store, proxy, .. } = &Case::new();
        for (values, found, expected) in [
            ("user_name=ada", true, 1),
            ("id=9 refresh_token=r", true, 1),
            ("id=9 access_token=old", true, 1),
            // A miss by a token is certain only if no row is sealed.
            ("id=9 grant_token=g refresh_token=r", true, 2),
            ("user_name=eve id=9 grant_token=g refresh_token=s access_token=b", false, 2),
        ] {
            let find = || assert_eq!(store.find(token(values), Wait::Yes).unwrap().is_some(), found, "{values}");
            assert_eq!(proxy.round_trips(find), expected, "{values}");
        }
        assert_eq!(proxy.round_trips(|| assert!(store.find_by_id(Some("1"), Wait::Yes).unwrap().is_some())), 1);
        assert_eq!(proxy.round_trips(|| assert_eq!(store.all().unwrap().len(), 1)), 1);
        assert_eq!(proxy.round_trips(|| assert_eq!(store.count().unwrap(), 1)), 1);
    }

    #[test]
    fn a_save_is_a_find_and_one_statement() {
        let Case { store, proxy, .. } = &Case::new();
        assert_eq!(proxy.round_trips(|| drop(store.save(token(FRESH), NOW).unwrap())), 2, "a refresh");
        let login = "user_name=ada client_id=c refresh_token=r2";
        assert_eq!(proxy.round_trips(|| drop(store.save(token(login), NOW).unwrap())), 2, "a new login");
        // A new id must be no row's.
        assert_eq!(proxy.round_trips(|| drop(store.save(token("user_name=eve refresh_token=s"), NOW).unwrap())), 3);
        assert_eq!(proxy.round_trips(|| assert!(store.delete(Some("2")).unwrap())), 2, "a delete");
    }

    #[test]
    fn a_waiting_requester_asks_with_one_statement() {
        let Case { store, proxy, .. } = &Case::new();
        let acquire = || assert!(matches!(try_acquire(store, "1-a"), Outcome::Refresh(_)));
        assert_eq!(proxy.round_trips(acquire), 3, "a look, and a save of the lease");
        let wait = || assert!(matches!(try_acquire(store, "2-b"), Outcome::Wait(..)));
        assert_eq!(proxy.round_trips(wait), 1, "by id");
        for values in ["user_name=ada", "id=9 refresh_token=r client_id=c"] {
            let lookup = Lookup::Token(token(values));
            let wait = || {
                let attempt = store.try_acquire(lookup, &requester("2-b"), 1, &|| NOW, TIMEOUT).unwrap();
                assert!(matches!(attempt.outcome, Outcome::Wait(..)));
            };
            assert_eq!(proxy.round_trips(wait), 1, "{values}");
        }
        let save = || {
            let (_, released) = store.save_and_release(token(FRESH), NOW, requester("1-a").owner(), None).unwrap();
            assert_eq!(released.len(), 1);
        };
        assert_eq!(proxy.round_trips(save), 2, "the save releases the lease");
    }

    #[test]
    fn a_requester_without_a_row_waits_with_one_statement() {
        let Case { store, proxy, .. } = &Case::new();
        let attempt = |process| {
            let lookup = Lookup::Token(token("client_id=c refresh_token=new"));
            store.try_acquire(lookup, &requester(process), 1, &|| NOW, TIMEOUT).unwrap().outcome
        };
        assert!(matches!(attempt("1-a"), Outcome::Refresh(_)));
        assert_eq!(proxy.round_trips(|| assert!(matches!(attempt("2-b"), Outcome::Wait(..)))), 1);
    }

    #[test]
    fn the_number_of_statements_does_not_grow_with_the_rows() {
        let Case { store, proxy, .. } = &Case::new();
        let few = [
            proxy.round_trips(|| drop(store.check(NOW).unwrap())),
            proxy.round_trips(|| {
                store.list_with_refresh_states(NOW).unwrap();
            }),
        ];
        let rows: Vec<String> =
            (2..40).map(|n| format!("user_name=u{n} refresh_token=r{n} access_token=a expiry_time=1")).collect();
        store.import(&rows.iter().map(|values| token(values)).collect::<Vec<_>>(), NOW).unwrap();
        let many = [
            proxy.round_trips(|| drop(store.check(NOW).unwrap())),
            proxy.round_trips(|| {
                store.list_with_refresh_states(NOW).unwrap();
            }),
        ];
        assert_eq!(few, many);
        let all = store.all().unwrap();
        assert!(proxy.round_trips(|| assert_eq!(store.restore(&all, 100).unwrap(), 39)) < 10);
    }

    #[test]
    fn a_caller_that_may_not_wait_makes_no_round_trip() {
        let Case { store, proxy, .. } = &Case::new();
        let find = || assert!(store.find(token("refresh_token=r"), Wait::No).is_err_and(|error| error.is_busy()));
        assert_eq!(proxy.round_trips(find), 0);
    }
}

mod guards_and_locks {
    use super::*;

    /// Runs `work` as a transaction, and `meanwhile` after its first read. Returns how often it ran.
    fn write_with(backend: &Postgres, mut meanwhile: impl FnMut(), access: &str) -> usize {
        let mut runs = 0;
        backend
            .write(deadline(), Durability::Full, &mut |transaction| {
                runs += 1;
                let row = transaction.by_key(Key::Id, "1")?.remove(0);
                if runs == 1 {
                    meanwhile();
                }
                transaction.update(&row, row.token().with(Field::AccessToken, Some(access)), NOW)
            })
            .unwrap();
        runs
    }

    #[test]
    fn a_save_starts_again_if_its_row_has_changed_meanwhile() {
        let case = Case::new();
        let (backend, other) = (open(&case.schema), case.other());
        assert_eq!(write_with(&backend, || drop(other.save(token(FRESH), NOW).unwrap()), "last"), 2);
        assert_eq!(access_token(&other), "last");
        let unrelated = "user_name=eve refresh_token=s access_token=a";
        assert_eq!(write_with(&backend, || drop(other.save(token(unrelated), NOW).unwrap()), "b"), 1);
    }

    #[test]
    fn no_lock_is_held_while_a_save_is_under_way() {
        let case = Case::new();
        let other = case.other();
        let impatient = Store::new(Box::new(open(&case.schema)), Duration::from_secs(1));
        let all = || {
            impatient.save(token(FRESH), NOW).unwrap();
            impatient.save(token("user_name=eve refresh_token=s"), NOW).unwrap();
            impatient.delete(Some("2")).unwrap();
        };
        write_with(&open(&case.schema), all, "x");
        assert_eq!(access_token(&other), "x");
    }

    #[test]
    fn an_insert_starts_again_if_another_row_was_inserted_meanwhile() {
        let case = Case::new();
        let (backend, other) = (open(&case.schema), case.other());
        let mut runs = 0;
        backend
            .write(deadline(), Durability::Full, &mut |transaction| {
                runs += 1;
                let found = transaction.by_key(Key::RefreshToken, "s")?.len();
                assert_eq!(found, runs - 1);
                if runs == 1 {
                    other.save(token("user_name=eve refresh_token=s"), NOW).unwrap();
                    transaction.insert(token("id=9 refresh_token=s"), NOW)?;
                }
                Ok(())
            })
            .unwrap();
        assert_eq!((runs, other.count().unwrap()), (2, 2));
    }

    #[test]
    fn a_row_whose_keys_change_counts_as_one_that_was_inserted() {
        let case = Case::new();
        let (backend, other) = (open(&case.schema), case.other());
        let mut runs = 0;
        backend
            .write(deadline(), Durability::Full, &mut |transaction| {
                runs += 1;
                let found = transaction.by_key(Key::RefreshToken, "r2")?.len();
                if runs == 1 {
                    // The user of the row logs in again, with the refresh token that was not there.
                    other.save(token("user_name=ada client_id=c refresh_token=r2"), NOW).unwrap();
                }
                if found == 0 { transaction.insert(token("id=9 refresh_token=r2"), NOW) } else { Ok(()) }
            })
            .unwrap();
        assert_eq!((runs, other.count().unwrap()), (2, 1));
    }

    #[test]
    fn a_lease_is_not_acquired_for_a_row_that_was_refreshed_meanwhile() {
        let case = Case::new();
        let (backend, other) = (open(&case.schema), case.other());
        let acquire = |transaction: &mut dyn Transaction, until| {
            let lease = zoho_token_store::domain::lease::Lease { owner: "1-a-0-0".to_owned(), until };
            transaction.acquire_lease("id:1", &lease)
        };
        let mut runs = 0;
        backend
            .write(deadline(), Durability::Relaxed, &mut |transaction| {
                runs += 1;
                transaction.announce_lease(None);
                let row = transaction.by_key(Key::Id, "1")?.remove(0);
                let seen = transaction.lease("id:1")?;
                assert_eq!(seen.lease, None);
                if runs == 1 {
                    other.save(token(FRESH), NOW).unwrap();
                }
                if row.get(Field::AccessToken) == Some("old") { acquire(transaction, 5) } else { Ok(()) }
            })
            .unwrap();
        assert_eq!(runs, 2);
        assert!(matches!(try_acquire(&other, "2-b"), Outcome::Serve));
        let leases = Admin::new().value(&format!("SELECT count(*) FROM {}.zoho_token_lease", case.schema.0));
        assert_eq!(leases, "0");
    }

    #[test]
    fn a_lease_replaces_only_the_one_that_was_read() {
        let case = Case::new();
        let (backend, other) = (open(&case.schema), open(&case.schema));
        let lease = |owner: &str| zoho_token_store::domain::lease::Lease { owner: owner.to_owned(), until: i64::MAX };
        let mut seen = Vec::new();
        backend
            .write(deadline(), Durability::Relaxed, &mut |transaction| {
                let before = transaction.lease("id:1")?.lease.map(|lease| lease.owner);
                if seen.is_empty() {
                    let acquire =
                        &mut |transaction: &mut dyn Transaction| transaction.acquire_lease("id:1", &lease("other"));
                    other.write(deadline(), Durability::Relaxed, acquire).unwrap();
                }
                seen.push(before);
                transaction.acquire_lease("id:1", &lease("mine"))
            })
            .unwrap();
        assert_eq!(seen, [None, Some("other".to_owned())]);
    }

    #[test]
    fn many_programs_that_save_the_same_new_users_make_one_row_for_each() {
        let schema = Schema::new();
        drop(open(&schema));
        let settings = || PostgresSettings { connections: 1, ..schema.settings() };
        thread::scope(|scope| {
            for program in 0..6 {
                let settings = settings();
                scope.spawn(move || {
                    let backend = Postgres::open(address(&common::postgres::dsn()), settings, deadline()).unwrap();
                    let store = store(backend);
                    for user in 0..8 {
                        let values = format!("user_name=u{user} refresh_token=r{user} access_token=a{program}");
                        store.save(token(&values), NOW).unwrap();
                    }
                });
            }
        });
        let rows = store(open(&schema)).all().unwrap();
        let distinct = |field| rows.iter().map(|row| row.get(field).map(str::to_owned)).collect::<BTreeSet<_>>().len();
        assert_eq!((rows.len(), distinct(Field::UserName), distinct(Field::Id)), (8, 8, 8));
    }

    #[test]
    fn many_programs_that_refresh_one_row_all_succeed() {
        let case = Case::new();
        thread::scope(|scope| {
            for program in 0..6 {
                let store = case.other();
                scope.spawn(move || {
                    for number in 0..10 {
                        let values =
                            format!("user_name=ada client_id=c refresh_token=r access_token=p{program}.{number}");
                        assert_eq!(store.save(token(&values), NOW).unwrap(), "1");
                    }
                });
            }
        });
        let row = &case.store.all().unwrap()[0];
        assert!(row.saved_order > 60, "each save has an order of its own: {}", row.saved_order);
    }

    #[test]
    fn a_purge_spares_a_row_that_is_refreshed_meanwhile() {
        let case = Case::new();
        let (backend, other) = (open(&case.schema), case.other());
        let mut runs = 0;
        backend
            .write(deadline(), Durability::Full, &mut |transaction| {
                let mut old = false;
                transaction.each(&mut |row| {
                    old |= row.get(Field::AccessToken) == Some("old");
                    Ok(())
                })?;
                runs += 1;
                if !old {
                    return Ok(());
                }
                if runs == 1 {
                    other.save(token(FRESH), NOW).unwrap();
                }
                transaction.delete("1").map(drop)
            })
            .unwrap();
        assert_eq!(runs, 2);
        assert_eq!((access_token(&other).as_str(), other.count().unwrap()), ("new", 1));
    }

    #[test]
    fn a_lock_is_waited_for_until_the_deadline_and_then_the_store_is_busy() {
        let case = Case::new();
        let admin = Admin::new();
        admin.sql(&format!("BEGIN; SELECT * FROM {}.oauthtoken FOR UPDATE", case.schema.0));
        let impatient = Store::new(Box::new(open(&case.schema)), Duration::from_millis(300));
        // On a machine that stands still, the server's answer to the last attempt may come too late. That is no "busy".
        let codes: Vec<_> = (0..5).map(|_| impatient.save(token(FRESH), NOW).unwrap_err().code()).collect();
        let is_known = |code| [Code::Busy, Code::Unreachable].contains(code);
        assert!(codes.contains(&Code::Busy) && codes.iter().all(is_known), "{codes:?}");
        assert_eq!(access_token(&impatient), "old", "finds do not wait");
        admin.sql("ROLLBACK");
        thread::sleep(Duration::from_millis(400));
        assert_eq!(access_token(&impatient), "old", "what was reported as failed is not done later");
        impatient.save(token(FRESH), NOW).unwrap();
    }
}

#[test]
fn work_on_many_rows_may_take_longer_than_the_timeout_as_long_as_the_server_answers() {
    let case = Case::new();
    let timeout = Duration::from_secs(4);
    let begun = Instant::now();
    let write = &mut |transaction: &mut dyn Transaction| {
        // This needs the lock.
        transaction.count()?;
        for number in 0..30 {
            transaction.by_key(Key::Id, &number.to_string())?;
        }
        for _ in 0..4 {
            thread::sleep(timeout / 4);
            transaction.by_key(Key::Id, "1")?;
        }
        transaction.delete("1").map(drop)
    };
    open(&case.schema).write(Deadline::after(timeout), Durability::Full, write).unwrap();
    assert!(begun.elapsed() > timeout && case.store.count().unwrap() == 0);
}

mod the_servers_clock {
    use super::*;

    #[test]
    fn it_decides_whether_a_lease_is_valid_whatever_the_clock_of_the_machine_says() {
        const HOUR_MS: i64 = 3_600_000;
        let case = Case::new();
        assert!(matches!(try_acquire(&case.store, "1-a"), Outcome::Refresh(_)));
        for clock in [NOW - HOUR_MS, NOW, NOW + HOUR_MS, NOW + 1_000 * HOUR_MS] {
            let lookup = Lookup::Id(Some("1"));
            let attempt = case.store.try_acquire(lookup, &requester("2-b"), 1, &|| clock, TIMEOUT).unwrap();
            let Outcome::Wait(_, lease, now) = attempt.outcome else { panic!("{clock}") };
            assert!((1..=10_000).contains(&(lease.until - now)), "both are times of the server");
        }
        let end = "SELECT until - floor(extract(epoch FROM clock_timestamp()) * 1000) BETWEEN 0 AND 10000";
        assert_eq!(Admin::new().value(&format!("{end} FROM {}.zoho_token_lease", case.schema.0)), "t");
    }

    #[test]
    fn a_lease_expires_by_it() {
        let schema = Schema::new();
        let length = Duration::from_millis(600);
        let store = Store::new(Box::new(open(&schema)), TIMEOUT).with_refresh_settings(Settings::new(length));
        store.save(token(EXPIRED), NOW).unwrap();
        assert!(matches!(try_acquire(&store, "1-a"), Outcome::Refresh(_)));
        let end = Deadline::after(TIMEOUT);
        loop {
            match try_acquire(&store, "2-b") {
                Outcome::Refresh(_) => break,
                Outcome::Wait(_, lease, now) => assert!(now < lease.until),
                _ => panic!("no wait"),
            }
            assert!(end.sleep(5_000..10_000), "it never ends");
        }
        assert!(matches!(try_acquire(&store, "1-a"), Outcome::Wait(..)));
    }

    #[test]
    fn old_leases_and_records_of_failures_are_removed_when_a_program_starts() {
        let case = Case::new();
        let (admin, schema) = (Admin::new(), &case.schema.0);
        let now = "floor(extract(epoch FROM clock_timestamp()) * 1000)";
        admin.sql(&format!(
            "INSERT INTO {schema}.zoho_token_lease VALUES ('old', 'a', {now} - 86500000), ('new', 'b', {now} - 86300000); \
             INSERT INTO {schema}.zoho_token_failure VALUES ('old', 1, 1, {now} - 86500000, ''), \
             ('new', 1, 1, {now} - 86300000, '')"
        ));
        drop(case.other());
        for table in ["zoho_token_lease", "zoho_token_failure"] {
            assert_eq!(admin.value(&format!("SELECT key FROM {schema}.{table}")), "new");
        }
    }
}

mod lost_answers {
    use super::*;

    #[test]
    fn a_save_whose_answer_is_lost_is_made_once() {
        let Case { store, proxy, .. } = &Case::new();
        for lost in 0..8 {
            // The first loss is that of the find, of the statement that saves, or of the commit under the lock.
            proxy.lose(move |number| number == lost || number == lost + 3);
            let values = format!("user_name=u{lost} refresh_token=r{lost} access_token=a{lost}");
            let id = store.save(token(&values), NOW).unwrap();
            assert!(proxy.lose_no_more() > 0 || lost > 2);
            assert_eq!(store.find_by_id(Some(&id), Wait::Yes).unwrap().unwrap().row().get(Field::Id), Some(&*id));
        }
        let rows = store.all().unwrap();
        let users: BTreeSet<_> = rows.iter().map(|row| row.get(Field::UserName)).collect();
        assert_eq!((rows.len(), users.len()), (9, 9));
    }

    #[test]
    fn only_an_error_after_a_lost_answer_to_a_change_says_that_the_change_may_have_been_made() {
        let case = Case::new();
        let backend = Postgres::open(address(&case.proxy.dsn()), case.schema.settings(), deadline()).unwrap();
        let store = Store::new(Box::new(backend), Duration::from_millis(500));
        let is_unknown = |error: Error| {
            assert_eq!(error.code(), Code::Unreachable, "{error}");
            let is_unknown = error.to_string().contains("Whether the last change was made is not known.");
            assert_ne!(is_unknown, error.to_string().contains("Nothing was changed."), "{error}");
            is_unknown
        };
        // The find of the save is answered, and nothing after it.
        case.proxy.lose(|number| number > 0);
        assert!(is_unknown(store.save(token(FRESH), NOW).unwrap_err()), "a save");
        case.proxy.lose(|number| number > 0);
        assert!(is_unknown(store.delete(Some("1")).unwrap_err()), "a delete");
        // Nothing is answered.
        case.proxy.lose(|number| number < 1_000);
        assert!(!is_unknown(store.save(token(FRESH), NOW).unwrap_err()), "a save whose find is not answered");
        case.proxy.lose(|number| number < 1_000);
        assert!(!is_unknown(store.find(token("refresh_token=r"), Wait::Yes).err().unwrap()), "a find");
        case.proxy.lose(|number| number < 1_000);
        assert!(!is_unknown(store.all().unwrap_err()), "a list");
        case.proxy.lose_no_more();
        let nowhere = Address::new(Some("host=127.0.0.1 port=1 user=u"), &[], &OwnProcess).unwrap();
        let opened = Postgres::open(nowhere, PostgresSettings::default(), Deadline::after(Duration::from_millis(100)));
        assert!(!is_unknown(opened.err().unwrap()), "a store that was never opened");
    }

    #[test]
    fn many_lost_answers_make_no_duplicate_and_lose_no_save() {
        let case = Case::new();
        let Case { store, proxy, .. } = &case;
        // A find, a save that is lost, a find, a save.
        proxy.lose(|number| number % 3 == 1);
        for number in 0..40 {
            let user = number % 10;
            store.save(token(&format!("user_name=u{user} refresh_token=r{user} access_token=a{number}")), NOW).unwrap();
        }
        assert!(proxy.lose_no_more() >= 30);
        let rows = case.other().all().unwrap();
        let access: Vec<_> = rows[1..].iter().map(|row| row.get(Field::AccessToken).unwrap().to_owned()).collect();
        assert_eq!(access, (30..40).map(|number| format!("a{number}")).collect::<Vec<_>>());
    }

    #[test]
    fn a_lease_whose_answer_is_lost_is_acquired() {
        for lost in 0..4 {
            let Case { store, proxy, .. } = &Case::new();
            proxy.lose(move |number| number == lost);
            let Outcome::Refresh(acquired) = try_acquire(store, "1-a") else { panic!("request {lost}") };
            proxy.lose(move |number| number == lost % 2);
            assert!(matches!(try_acquire(store, "2-b"), Outcome::Wait(..)), "request {lost}");
            proxy.lose(move |number| number == lost % 2);
            assert!(store.release_lease(&acquired));
            proxy.lose_no_more();
            assert!(matches!(try_acquire(store, "2-b"), Outcome::Refresh(_)), "request {lost}");
        }
    }

    #[test]
    fn deletes_and_imports_whose_answers_are_lost_are_counted_once() {
        let case = Case::new();
        let Case { store, proxy, .. } = &case;
        let rows: Vec<Row> = (0..5)
            .map(|n| format!("id={n} user_name=u{n} access_token=a{n} expiry_time=1"))
            .map(|values| Row::new(token(&values), n_order(), None))
            .collect();
        for lost in 0..6 {
            proxy.lose(move |number| number == lost);
            assert_eq!(store.import_rows(&rows, NOW).unwrap().counts.new, 5, "an import, request {lost}");
            proxy.lose_no_more();
            store.purge(NOW, None).unwrap();
            proxy.lose(move |number| number == lost);
            let batch = store.import_batch(&rows, NOW, Duration::ZERO).unwrap();
            assert_eq!((batch.rows, batch.counts.new), (1, 1), "a batch, request {lost}");
            proxy.lose_no_more();
            store.import_rows(&rows, NOW).unwrap();
            proxy.lose(move |number| number == lost);
            assert_eq!(store.purge(NOW, None).unwrap(), 5, "a purge, request {lost}");
        }
        for lost in 0..2 {
            let id = store.save(token("refresh_token=deleted"), NOW).unwrap();
            proxy.lose(move |number| number == lost);
            assert!(store.delete(Some(&id)).unwrap(), "request {lost}");
            proxy.lose(move |number| number == lost);
            assert!(!store.delete(Some(&id)).unwrap(), "request {lost}");
        }
    }

    #[test]
    fn what_another_program_has_removed_meanwhile_does_not_count() {
        type Removal = fn(&Store) -> bool;
        let removals: [(&str, Removal); 3] = [
            ("delete", |store| store.delete(Some("1")).unwrap()),
            ("refuse", |store| store.refuse("old", NOW).unwrap()),
            ("purge", |store| store.purge(NOW, None).unwrap() == 1),
        ];
        for (name, remove) in removals {
            let case = Case::new();
            case.store.delete_all().unwrap();
            case.store.save(token("id=1 user_name=ada client_id=c access_token=old expiry_time=1"), NOW).unwrap();
            let Case { store, proxy, .. } = &case;
            // After this store has looked the row up, and before it changes it.
            let other = case.other();
            proxy.lose(move |number| {
                assert!(number != 0 || remove(&other));
                false
            });
            assert!(!remove(store), "{name}");
            proxy.lose_no_more();
        }
    }

    #[test]
    fn a_save_during_a_restore_changes_no_row_of_another_user() {
        let case = Case::new();
        let Case { store, proxy, .. } = &case;
        let row = store.row("1").unwrap();
        let restored = Row::new(token("id=1 user_name=bob refresh_token=of-bob access_token=b"), row.saved_order, None);
        let other = case.other();
        // After this store has looked the row up, and before it changes it.
        proxy.lose(move |number| {
            assert!(number != 0 || other.restore(std::slice::from_ref(&restored), 1).is_ok());
            false
        });
        assert_eq!(store.save(token(FRESH), NOW).unwrap(), "2");
        proxy.lose_no_more();
        assert_eq!(store.row("1").unwrap().get(Field::AccessToken), Some("b"));
        assert_eq!(store.row("2").unwrap().get(Field::AccessToken), Some("new"));
    }

    /// The order of a row of another store means nothing here.
    fn n_order() -> i64 {
        static ORDER: AtomicUsize = AtomicUsize::new(1);
        i64::try_from(ORDER.fetch_add(1, Ordering::SeqCst)).unwrap()
    }

    #[test]
    fn a_purge_that_is_repeated_spares_what_was_refreshed_since() {
        let case = Case::new();
        let Case { store, proxy, .. } = &case;
        store.save(token("user_name=eve access_token=a expiry_time=1"), NOW).unwrap();
        let other = case.other();
        // The answer to the delete is lost before the commit. Then the row is refreshed, and the purge starts again.
        let schema = case.schema.0.clone();
        proxy.lose(move |number| {
            if number == 3 {
                Admin::new()
                    .sql(&format!("UPDATE {schema}.oauthtoken SET expiry_time = '1795303600000', saved_order = 99"));
            }
            number == 2
        });
        let purged = store.purge(NOW, None).unwrap();
        proxy.lose_no_more();
        assert_eq!((purged, other.count().unwrap()), (0, 2));
    }

    #[test]
    fn a_cut_connection_costs_time_and_no_error() {
        let Case { store, proxy, .. } = &Case::new();
        for _ in 0..5 {
            proxy.cut();
            assert_eq!(access_token(store), "old");
            proxy.cut();
            store.save(token(EXPIRED), NOW).unwrap();
        }
    }

    #[test]
    fn a_server_that_does_not_answer_is_given_up_at_the_deadline() {
        let case = Case::new();
        let backend = Postgres::open(address(&case.proxy.dsn()), case.schema.settings(), deadline()).unwrap();
        let store = Store::new(Box::new(backend), Duration::from_secs(2));
        assert_eq!(access_token(&store), "old");
        case.proxy.be_silent(true);
        for error in
            [store.find(token("refresh_token=r"), Wait::Yes).err().unwrap(), store.save(token(FRESH), NOW).unwrap_err()]
        {
            assert_eq!(error.code(), Code::Unreachable, "{error}");
        }
        case.proxy.be_silent(false);
        case.proxy.cut();
        store.save(token(FRESH), NOW).unwrap();
        assert_eq!(access_token(&store), "new");
    }

    #[test]
    fn a_silent_connection_leaves_time_for_another_one() {
        let case = Case::new();
        let backend = Postgres::open(address(&case.proxy.dsn()), case.schema.settings(), deadline()).unwrap();
        let store = Store::new(Box::new(backend), Duration::from_secs(6));
        case.proxy.be_silent(true);
        thread::scope(|scope| {
            let find = scope.spawn(|| access_token(&store));
            // The first attempt has half of the time.
            thread::sleep(Duration::from_millis(1_500));
            case.proxy.be_silent(false);
            case.proxy.lose(|_| false);
            assert_eq!(find.join().unwrap(), "old");
        });
    }
}

mod connections {
    use super::*;

    #[test]
    fn a_store_opens_no_more_connections_than_it_may_and_a_thread_waits_for_one() {
        let schema = Schema::new();
        let settings = PostgresSettings { connections: 2, ..schema.settings() };
        let name = format!("{} application_name={}", common::postgres::dsn(), schema.0);
        let backend = Postgres::open(address(&name), settings, deadline()).unwrap();
        let store = store(backend);
        store.save(token(EXPIRED), NOW).unwrap();
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}'", schema.0);
        let admin = Admin::new();
        assert_eq!(admin.value(&count), "1", "the first is used again");
        let most = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..6).map(|_| scope.spawn(|| (0..30).for_each(|_| drop(access_token(&store))))).collect();
            let mut most = 0;
            while threads.iter().any(|thread| !thread.is_finished()) {
                most = most.max(admin.value(&count).parse::<usize>().unwrap());
            }
            most
        });
        assert!((1..=2).contains(&most), "{most}");
        store.close();
        let end = Deadline::after(TIMEOUT);
        while admin.value(&count) != "0" {
            assert!(end.sleep(1_000..5_000), "a closed store has connections");
        }
    }

    #[test]
    fn a_thread_that_gets_no_connection_in_time_is_busy() {
        let case = Case::new();
        let settings = PostgresSettings { connections: 1, ..case.schema.settings() };
        let backend = Postgres::open(address(&common::postgres::dsn()), settings, deadline()).unwrap();
        backend
            .read(deadline(), &mut |rows| {
                rows.count()?;
                thread::scope(|scope| {
                    let other =
                        scope.spawn(|| backend.by_key(Key::Id, "1", Deadline::after(Duration::from_millis(50))));
                    assert!(other.join().unwrap().is_err_and(|error| error.is_busy()));
                });
                Ok(())
            })
            .unwrap();
        assert_eq!(backend.by_key(Key::Id, "1", deadline()).unwrap().len(), 1);
    }

    #[test]
    fn a_connection_that_the_server_has_ended_is_replaced() {
        let case = Case::new();
        let name = format!("{} application_name={}", common::postgres::dsn(), case.schema.0);
        let store = store(Postgres::open(address(&name), case.schema.settings(), deadline()).unwrap());
        let admin = Admin::new();
        let kill = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}'",
            case.schema.0
        );
        for _ in 0..3 {
            assert_eq!(access_token(&store), "old");
            assert!(!admin.sql(&kill).is_empty());
            store.save(token(EXPIRED), NOW).unwrap();
            assert!(!admin.sql(&kill).is_empty());
        }
    }

    /// A role that may use the tables of the case.
    fn role(case: &Case, attributes: &str) -> String {
        let name = format!("{}_role", case.schema.0);
        let grants = format!(
            "CREATE ROLE {name} LOGIN {attributes}; GRANT USAGE ON SCHEMA {0} TO {name}; \
             GRANT ALL ON ALL TABLES IN SCHEMA {0} TO {name}; GRANT ALL ON ALL SEQUENCES IN SCHEMA {0} TO {name}",
            case.schema.0
        );
        Admin::new().sql(&grants);
        name
    }

    fn drop_role(name: &str) {
        Admin::new().sql(&format!("DROP OWNED BY {name}; DROP ROLE {name}"));
    }

    #[test]
    fn a_server_with_too_many_connections_is_waited_for() {
        let case = Case::new();
        let role = role(&case, "CONNECTION LIMIT 1");
        let dsn = format!("{} user={role}", common::postgres::dsn());
        let held = Admin::connect(&dsn);
        let open = |deadline| Postgres::open(address(&dsn), case.schema.settings(), deadline);
        let error = open(Deadline::after(Duration::from_millis(300))).err().unwrap();
        assert_eq!(error.code(), Code::Unreachable, "{error}");
        assert!(error.to_string().contains("too many connections (53300)"), "{error}");
        assert!(error.to_string().ends_with(error.hint()) && error.hint().contains("max_connections"), "{error}");
        let opened = thread::scope(|scope| {
            let opened = scope.spawn(|| open(deadline()).map(|backend| store(backend).count().unwrap()));
            thread::sleep(Duration::from_millis(300));
            drop(held);
            opened.join().unwrap()
        });
        drop_role(&role);
        assert_eq!(opened.unwrap(), 1);
    }

    #[test]
    fn a_read_only_server_can_be_read_and_a_save_waits_for_it_to_become_writable() {
        let case = Case::new();
        let (admin, role) = (Admin::new(), role(&case, ""));
        admin.sql(&format!("ALTER ROLE {role} SET default_transaction_read_only = on"));
        let dsn = format!("{} user={role}", common::postgres::dsn());
        let open = || Postgres::open(address(&dsn), case.schema.settings(), deadline()).unwrap();
        let impatient = Store::new(Box::new(open()), Duration::from_millis(500));
        assert_eq!(access_token(&impatient), "old");
        let error = impatient.save(token(FRESH), NOW).unwrap_err();
        assert_eq!(error.code(), Code::ReadOnly, "{error}");
        assert_eq!(access_token(&impatient), "old");
        let patient = store(open());
        let saved = thread::scope(|scope| {
            let saved = scope.spawn(|| patient.save(token(FRESH), NOW));
            thread::sleep(Duration::from_millis(300));
            admin.sql(&format!("ALTER ROLE {role} RESET default_transaction_read_only"));
            saved.join().unwrap()
        });
        drop((impatient, patient));
        drop_role(&role);
        assert_eq!(saved.unwrap(), "1");
        assert_eq!(access_token(&case.store), "new");
    }

    #[test]
    fn a_program_that_stops_while_it_holds_the_lock_delays_others_for_two_seconds() {
        let case = Case::new();
        let backend = open(&case.schema);
        let other = case.other();
        let mut runs = 0;
        backend
            .write(deadline(), Durability::Full, &mut |transaction| {
                // This needs the lock.
                transaction.each(&mut |_| Ok(()))?;
                runs += 1;
                if runs == 1 {
                    other.save(token("user_name=eve refresh_token=s"), NOW).unwrap();
                }
                transaction.delete("1").map(drop)
            })
            .unwrap();
        assert_eq!((runs, other.count().unwrap()), (2, 1), "the first run has lost the lock, and changed nothing");
    }
}
