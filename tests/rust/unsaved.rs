//! A pair that could not be saved (docs/lease.md, rules 1 and 16), on every backend and without Python.
//!
//! When a pair is served, saved or discarded is a rule of the domain with a truth table of its own.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{NOW, Setup, TIMEOUT, TestKeys, Unwritable, WriteFault, token};
use zoho_token_store::backends::list::List;
use zoho_token_store::domain::lease::Settings;
use zoho_token_store::domain::{Field, Key, Row};
use zoho_token_store::store::backend::{Backend, Durability, Transaction};
use zoho_token_store::store::error::{Code, PAIR_KEPT};
use zoho_token_store::store::held_leases::requester;
use zoho_token_store::store::lease::{Lookup, Outcome};
use zoho_token_store::store::{Error, Store, Wait};

/// The row with the id 1 of every test.
const EXPIRED: &str = "user_name=ada client_id=c refresh_token=r access_token=old expiry_time=1";

/// The same token after a refresh.
const FRESH: &str = "id=1 user_name=ada client_id=c refresh_token=r access_token=new expiry_time=1795303600000";

struct Case {
    store: Store,
    fault: WriteFault,
    /// For what another process does.
    backend: Arc<dyn Backend>,
    // Dropped last.
    setup: Setup,
}

impl Case {
    fn new<B: Backend + 'static>(make: impl FnOnce(&Setup) -> B, keys: TestKeys) -> Self {
        let setup = Setup::new();
        let fault = WriteFault::default();
        let backend: Arc<dyn Backend> = Arc::new(make(&setup));
        let unwritable = Unwritable { backend: Arc::clone(&backend), fault: fault.clone() };
        let settings = Settings { longest_backoff: Duration::from_secs(30), ..Settings::new(Duration::from_secs(10)) };
        let store = keys.store(Box::new(unwritable)).with_refresh_settings(settings);
        assert_eq!(store.save(token(EXPIRED), NOW).unwrap(), "1");
        Self { store, fault, backend: keys.backend(backend), setup }
    }

    /// Fails to save the token because the disk is full.
    fn fail_to_save(&self, values: &str) -> Error {
        self.fault.set(Some(Code::DiskFull));
        let error = self.store.save(token(values), NOW).unwrap_err();
        self.fault.set(None);
        error
    }

    /// A case whose refreshed pair could not be saved.
    fn with_kept_pair(self) -> Self {
        assert!(self.fail_to_save(FRESH).to_string().contains(PAIR_KEPT));
        assert_eq!(self.found(), "new");
        self
    }

    /// The access token that a find returns: by the user, by the id, and under the lease.
    fn found(&self) -> String {
        let by_token = self.store.find(token("user_name=ada"), Wait::Yes).unwrap();
        let by_id = self.store.find_by_id(Some("1"), Wait::Yes).unwrap();
        let me = requester(0, true).unwrap();
        let attempt = self.store.try_acquire(Lookup::Id(Some("1")), &me, 1, &|| NOW, TIMEOUT).unwrap();
        self.store.release_all_leases();
        let found = [by_token, by_id, attempt.found];
        let access =
            found.iter().flatten().map(|found| found.row().get(Field::AccessToken).unwrap_or("none").to_owned());
        let different: BTreeSet<String> = access.collect();
        different.into_iter().collect::<Vec<_>>().join(" and ")
    }

    /// The access token that is stored.
    fn stored(&self) -> String {
        let rows = self.store.all().unwrap();
        rows.iter().map(|row| row.get(Field::AccessToken).unwrap_or("none")).collect::<Vec<_>>().join(" and ")
    }

    fn retry(&self) -> bool {
        self.store.save_unsaved_pair("1", NOW + 7)
    }

    fn wants_to_save(&self) -> bool {
        self.store.is_pair_to_be_saved(&self.store.find_by_id(Some("1"), Wait::Yes).unwrap().unwrap())
    }
}

type Delete = fn(&Store);

mod rules {
    use super::*;

    pub(super) fn a_kept_pair_is_served_and_what_is_stored_stays(case: &Case) {
        assert_eq!((case.found(), case.stored()), ("new".to_owned(), "old".to_owned()));
        let found = case.store.find(token("user_name=ada"), Wait::Yes).unwrap().unwrap();
        assert_eq!(found.complete(token("user_name=ada")).get(Field::ExpiryTime), Some("1795303600000"));
        assert!(!case.store.is_due(Lookup::Id(Some("1")), Some(&found), || NOW));
        assert_eq!(case.store.count().unwrap(), 1);
    }

    pub(super) fn it_is_saved_once_the_store_can_be_written(case: &Case) {
        case.fault.set(Some(Code::ReadOnly));
        assert!(case.wants_to_save() && !case.retry());
        assert_eq!(case.found(), "new");
        case.fault.set(None);
        let writes = case.fault.writes();
        assert!(!case.wants_to_save() && !case.retry() && case.fault.writes() == writes, "once a second");
        thread::sleep(Duration::from_secs(1));
        assert!(case.wants_to_save() && case.retry());
        assert_eq!((case.found(), case.stored()), ("new".to_owned(), "new".to_owned()));
        assert_eq!(case.store.all().unwrap()[0].saved_at, Some(NOW + 7));
        assert!(!case.wants_to_save() && !case.retry());
    }

    pub(super) fn all_are_saved_before_a_store_is_closed(case: &Case) {
        case.store.save(token("user_name=bob refresh_token=rb access_token=old"), NOW).unwrap();
        case.store.save(token("user_name=eve refresh_token=re access_token=old"), NOW).unwrap();
        case.fail_to_save("id=2 user_name=bob refresh_token=rb access_token=newb expiry_time=1795303600000");
        case.fail_to_save("id=3 user_name=eve refresh_token=re access_token=newe expiry_time=1795303600000");
        case.store.save_unsaved_pairs(NOW);
        assert_eq!(case.stored(), "new and newb and newe");
        case.store.close();
    }

    pub(super) fn a_row_that_another_process_deleted_is_not_inserted_again(case: &Case) {
        let delete = |id: &'static str| {
            let change = &mut |rows: &mut dyn Transaction| rows.delete(id).map(drop);
            case.backend.write(common::deadline(), Durability::Full, change).unwrap();
        };
        delete("1");
        assert!(!case.retry());
        assert_eq!(case.store.count().unwrap(), 0);
        assert!(case.store.refuse("new", NOW).is_ok_and(|discarded| !discarded));
        let values = "user_name=bob refresh_token=rb access_token=old";
        assert_eq!(case.store.save(token(values), NOW).unwrap(), "2");
        case.fail_to_save("id=2 user_name=bob refresh_token=rb access_token=newb expiry_time=1795303600000");
        delete("2");
        case.store.save_unsaved_pairs(NOW);
        assert_eq!(case.store.count().unwrap(), 0);
    }

    pub(super) fn what_another_process_saved_wins_unless_it_is_older(case: &Case) {
        let table = [
            ("a new login", "user_name=ada client_id=c refresh_token=r2 access_token=b expiry_time=1", "b"),
            ("a later pair", "client_id=c refresh_token=r access_token=b expiry_time=1795303600001", "b"),
            ("an earlier pair", "client_id=c refresh_token=r access_token=b expiry_time=1795303599999", "new"),
        ];
        for (name, values, expected) in table {
            case.store.restore(&[Row::new(token(EXPIRED).with(Field::Id, Some("1")), 1, None)], 1).unwrap();
            assert!(case.fail_to_save(FRESH).is_pair_kept() && case.found() == "new");
            let change = &mut |rows: &mut dyn Transaction| {
                let row = rows.by_key(Key::Id, "1")?.remove(0);
                rows.update(&row, token(values).with(Field::Id, Some("1")), NOW)
            };
            case.backend.write(common::deadline(), Durability::Full, change).unwrap();
            assert_eq!(case.found(), expected, "{name}");
            case.store.save_unsaved_pairs(NOW);
            assert_eq!(case.stored(), expected, "{name}");
        }
    }

    pub(super) fn a_save_or_a_delete_discards_it(case: &Case) {
        let keep = || {
            case.fail_to_save(FRESH);
            assert_eq!(case.found(), "new");
        };
        case.store.save(token("user_name=ada refresh_token=r2"), NOW).unwrap();
        assert_eq!(case.found(), "old", "a new login");
        case.store.save(token(EXPIRED), NOW).unwrap();
        keep();
        case.store.import(&[token(EXPIRED)], NOW).unwrap();
        assert_eq!(case.found(), "old", "an import");
        let rows = case.store.all().unwrap();
        keep();
        case.store.restore(&rows, 1).unwrap();
        assert_eq!(case.found(), "old", "a restore");
        let put_back = || case.store.restore(&rows, 1).unwrap();
        let table: [(&str, Delete); 4] = [
            ("a delete", |store| assert!(store.delete(Some("1")).unwrap())),
            ("a delete that has to find the row", |store| store.delete_existing("1").unwrap()),
            ("all deleted", |store| store.delete_all().unwrap()),
            ("a purge", |store| assert_eq!(store.delete_confirmed(&BTreeSet::from(["1".to_owned()])).unwrap(), 1)),
        ];
        for (name, delete) in table {
            keep();
            delete(&case.store);
            assert_eq!(case.found(), "", "{name}");
            put_back();
            assert_eq!(case.found(), "old", "{name}");
        }
    }

    pub(super) fn a_refused_access_token_discards_it(case: &Case) {
        assert!(!case.store.refuse("another", NOW).unwrap());
        assert_eq!(case.found(), "new");
        case.fault.set(Some(Code::DiskFull));
        assert!(case.store.refuse("new", NOW).unwrap(), "although nothing can be written");
        assert_eq!(case.store.refuse("new", NOW).unwrap_err().code(), Code::DiskFull);
        case.fault.set(None);
        assert_eq!(case.found(), "old");
        case.fail_to_save(FRESH);
        assert!(case.store.refuse("new", NOW).unwrap() && case.stored() == "old");
        assert!(!case.store.refuse("new", NOW).unwrap());
    }

    pub(super) fn an_access_token_that_is_refused_while_it_is_saved_is_not_saved(case: &Case) {
        let ((begun, begins), (goes_on, go_on)) = (mpsc::channel(), mpsc::channel());
        case.fault.run_at_next_write(move || {
            begun.send(()).unwrap();
            go_on.recv_timeout(TIMEOUT).unwrap();
        });
        thread::scope(|scope| {
            let saves = scope.spawn(|| case.store.save_unsaved_pairs(NOW));
            begins.recv_timeout(TIMEOUT).unwrap();
            assert!(case.store.refuse("new", NOW).unwrap());
            goes_on.send(()).unwrap();
            saves.join().unwrap();
        });
        assert_eq!((case.found(), case.stored()), ("old".to_owned(), "old".to_owned()));
    }

    pub(super) fn a_redeemed_grant_gets_its_refresh_token(case: &Case) {
        case.store.save(token("client_id=c grant_token=g"), NOW).unwrap();
        let redeemed = "id=2 user_name=bob client_id=c refresh_token=rb access_token=newb grant_token=g \
                        expiry_time=1795303600000";
        assert!(case.fail_to_save(redeemed).is_pair_kept());
        let asked = token("client_id=c grant_token=g");
        let found = case.store.find(asked, Wait::Yes).unwrap().unwrap();
        assert!(found.complete(asked) == token(redeemed));
        case.store.save_unsaved_pairs(NOW);
        assert!(case.store.all().unwrap()[1].token() == token(redeemed));
    }

    pub(super) fn a_later_pair_replaces_it_and_an_earlier_one_does_not(case: &Case) {
        let pair = |access: &str, expiry: &str| {
            let values = format!("id=1 client_id=c refresh_token=r access_token={access} expiry_time={expiry}");
            assert!(case.fail_to_save(&values).is_pair_kept());
            case.found()
        };
        assert_eq!(pair("stale", "1795303500000"), "new");
        assert_eq!(pair("later", "1795303700000"), "later");
    }

    pub(super) fn a_pair_that_could_not_be_used_or_recognized_is_not_kept(case: &Case) {
        let table = [
            ("no id", "user_name=ada client_id=c refresh_token=r access_token=new expiry_time=1795303600000"),
            ("an id without row", "id=7 client_id=c refresh_token=r7 access_token=new expiry_time=1795303600000"),
            ("the id of another row", "id=2 client_id=c refresh_token=r access_token=new expiry_time=1795303600000"),
            ("a new login", "id=1 client_id=c refresh_token=r2 access_token=new expiry_time=1795303600000"),
            ("no refresh token", "id=1 client_id=c access_token=new expiry_time=1795303600000"),
            ("expired", "id=1 client_id=c refresh_token=r access_token=new expiry_time=1795300004999"),
            ("no expiry", "id=1 client_id=c refresh_token=r access_token=new"),
            ("the pair of the row", "id=1 client_id=c refresh_token=r access_token=old expiry_time=1795303600000"),
        ];
        for (name, values) in table {
            let error = case.fail_to_save(values);
            assert!(!error.is_pair_kept() && error.code() == Code::DiskFull, "{name}");
            assert_eq!(case.found(), "old", "{name}");
        }
        case.fault.set(Some(Code::ValueTooLarge));
        assert!(!case.store.save(token(FRESH), NOW).unwrap_err().is_pair_kept(), "a failure about the value");
        case.fault.set(None);
        assert_eq!(case.found(), "old");
    }

    pub(super) fn many_threads_refresh_once_while_nothing_can_be_written(case: &Case) {
        case.fault.set(Some(Code::DiskFull));
        let refreshes = AtomicUsize::new(0);
        let get_token = || {
            let me = requester(0, true).unwrap();
            loop {
                let attempt = case.store.try_acquire(Lookup::Id(Some("1")), &me, 1, &|| NOW, TIMEOUT).unwrap();
                match attempt.outcome {
                    Outcome::Serve => break attempt.found.unwrap().row().get(Field::AccessToken).unwrap().to_owned(),
                    Outcome::Wait(..) => thread::sleep(Duration::from_millis(1)),
                    Outcome::Refresh(acquired) => {
                        refreshes.fetch_add(1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(20));
                        let error = case.store.save_and_release(token(FRESH), NOW, me.owner(), None).unwrap_err();
                        assert!(error.is_pair_kept() && !case.store.release_lease(&acquired));
                    }
                    Outcome::BackOff(error, _) | Outcome::NoLease(error) | Outcome::TryAgain(error) => {
                        panic!("{error}")
                    }
                }
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(get_token)).collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap(), "new");
            }
        });
        assert_eq!(refreshes.into_inner(), 1);
        assert!(!case.store.holds_leases());
        assert_eq!(case.store.lease_counters().failed, 0, "the refresh itself has succeeded");
        case.fault.set(None);
    }

    pub(super) fn a_refresh_whose_pair_is_kept_has_not_failed(case: &Case) {
        let me = requester(0, true).unwrap();
        let attempt = case.store.try_acquire(Lookup::Id(Some("1")), &me, 1, &|| NOW, TIMEOUT).unwrap();
        let Outcome::Refresh(acquired) = attempt.outcome else { panic!("no lease") };
        // The lease is stored, and only then the disk is full.
        case.fault.set(Some(Code::DiskFull));
        assert!(case.store.save_and_release(token(FRESH), NOW, me.owner(), None).unwrap_err().is_pair_kept());
        assert!(!case.store.holds_leases() && !case.store.release_lease(&acquired));
        case.fault.set(None);
        assert!(!case.store.release_lease(&acquired) && case.found() == "new");
        assert_eq!(case.store.lease_counters().failed, 0);
    }

    pub(super) fn a_lease_that_cannot_be_stored_counts_in_this_process(case: &Case) {
        let [me, other] = [1, 2].map(|number| requester(number, true).unwrap());
        let attempt = |requester, now: i64| {
            case.setup.clock.set(now);
            case.store.try_acquire(Lookup::Id(Some("1")), requester, 1, &|| now, TIMEOUT).unwrap().outcome
        };
        for code in Code::ALL.iter().copied().filter(|code| code.is_unwritable()) {
            case.fault.set(Some(code));
            let ahead = case.store.try_acquire_ahead("1", &me, 1, &|| NOW, 1_000).unwrap();
            assert!(matches!(ahead.outcome, Outcome::NoLease(_)), "no refresh ahead without a stored lease");
            let Outcome::Refresh(acquired) = attempt(&me, NOW) else { panic!("{code:?}") };
            assert!(matches!(attempt(&other, NOW), Outcome::Wait(..)), "{code:?}");
            assert!(matches!(attempt(&me, NOW), Outcome::Refresh(again) if !again.is_new), "{code:?}");
            // It holds after the disk was freed, too: no second thread refreshes meanwhile.
            case.fault.set(None);
            assert!(matches!(attempt(&other, NOW), Outcome::Wait(..)), "{code:?}");
            case.fault.set(Some(code));
            // An expired one does not count.
            let Outcome::Refresh(later) = attempt(&other, NOW + 10_000) else { panic!("{code:?}") };
            assert!(!case.store.release_lease(&acquired), "another requester has the lease");
            let writes = case.fault.writes();
            assert!(case.store.release_lease(&later) && case.fault.writes() == writes, "nothing to write");
            assert!(!case.store.holds_leases());
        }
        case.fault.set(None);
    }
}

/// Makes a test of each rule, in a module for one backend.
macro_rules! tests {
    ($name:ident, $make:expr, $keys:expr; with_kept_pair: [$($kept:ident)*] without: [$($rule:ident)*]) => {
        mod $name {
            use super::*;

            $(#[test] fn $kept() {
                rules::$kept(&Case::new($make, $keys).with_kept_pair());
            })*
            $(#[test] fn $rule() {
                rules::$rule(&Case::new($make, $keys));
            })*
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
            with_kept_pair: [
                a_kept_pair_is_served_and_what_is_stored_stays
                it_is_saved_once_the_store_can_be_written
                all_are_saved_before_a_store_is_closed
                a_row_that_another_process_deleted_is_not_inserted_again
                what_another_process_saved_wins_unless_it_is_older
                a_save_or_a_delete_discards_it
                a_refused_access_token_discards_it
                an_access_token_that_is_refused_while_it_is_saved_is_not_saved
                a_later_pair_replaces_it_and_an_earlier_one_does_not
            ]
            without: [
                a_redeemed_grant_gets_its_refresh_token
                a_pair_that_could_not_be_used_or_recognized_is_not_kept
                many_threads_refresh_once_while_nothing_can_be_written
                a_refresh_whose_pair_is_kept_has_not_failed
                a_lease_that_cannot_be_stored_counts_in_this_process
            ]
        }
    };
}

common::for_each_backend!(suite);

#[test]
fn a_store_keeps_at_most_1_000_pairs() {
    let case = Case::new(|_| List::new(), TestKeys::Plain);
    let user = |number: usize, access: &str, expiry: &str| {
        format!("id={number} user_name=u{number} refresh_token=r{number} access_token={access} expiry_time={expiry}")
    };
    let saved: Vec<String> = (2..=1_002).map(|number| user(number, "old", "1")).collect();
    case.store.import(&saved.iter().map(|values| token(values)).collect::<Vec<_>>(), NOW).unwrap();
    let kept = |number, expiry| case.fail_to_save(&user(number, "new", expiry)).is_pair_kept();
    assert_eq!((2..=1_002).filter(|&number| kept(number, "1795303600000")).count(), 1_000);
    assert!(kept(2, "1795303700000"), "of a row that has one");
    // What has expired makes room.
    case.fault.set(Some(Code::DiskFull));
    let (last, later) = (user(1_002, "new", "1795309999999"), NOW + 3_600_000);
    assert!(case.store.save(token(&last), later).unwrap_err().is_pair_kept());
}
