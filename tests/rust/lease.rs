//! The refresh lease (docs/lease.md, rules 1, 4 to 6, 9 to 11, 13), on every backend and without Python.
//!
//! Who may refresh, and how long others wait, are rules of the domain with truth tables of their own. Here the tests
//! show that every backend stores leases, and that a failure of a lease fails nothing else.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;
mod lease_faults;
#[cfg(feature = "sqlite")]
mod lease_in_sqlite;

use std::thread;
use std::time::{Duration, Instant};

use common::{Clock, NOW, Setup, TIMEOUT, TestKeys, token};
use zoho_token_store::backends::list::List;
use zoho_token_store::domain::lease::{Requester, Settings};
use zoho_token_store::domain::{Field, Row};
use zoho_token_store::store::backend::Backend;
use zoho_token_store::store::error::Code;
use zoho_token_store::store::held_leases::{Acquired, requester};
use zoho_token_store::store::lease::{Lookup, Outcome};
use zoho_token_store::store::{Store, Wait};

const LENGTH: Duration = Duration::from_secs(10);

/// The row with the id 1 of every test.
const EXPIRED: &str = "user_name=ada client_id=c refresh_token=r access_token=old expiry_time=1";

/// The same token after a refresh.
const FRESH: &str = "user_name=ada client_id=c refresh_token=r access_token=new expiry_time=1795303600000";

/// The row with the id 2 of some tests.
const EXPIRED_TOO: &str = "user_name=bob client_id=c refresh_token=rb access_token=old expiry_time=1";

/// A task of this thread.
fn task(number: u64) -> Requester {
    requester(number, true).unwrap()
}

fn me() -> Requester {
    task(0)
}

fn another_process(thread: u64) -> Requester {
    Requester::new("0-another", thread, 0, true)
}

/// An outcome in words, with the key of its lease.
fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Serve => "serve".to_owned(),
        Outcome::Refresh(acquired) => format!("refresh {}", acquired.key.as_str()),
        Outcome::Wait(key, ..) => format!("wait {}", key.as_str()),
        Outcome::BackOff(error, _) => error.code().name().to_owned(),
        Outcome::TryAgain(_) => "try again".to_owned(),
        Outcome::NoLease(_) => "no lease".to_owned(),
    }
}

fn acquired(outcome: Outcome) -> Acquired {
    match outcome {
        Outcome::Refresh(acquired) => acquired,
        other => panic!("{}", describe(&other)),
    }
}

/// A store with one expired row, whose id is 1.
struct Case {
    store: Store,
    is_shared: bool,
    clock: Clock,
    // Dropped last.
    _setup: Setup,
}

impl Case {
    fn new<B: Backend + 'static>(make: impl FnOnce(&Setup) -> B, keys: TestKeys) -> Self {
        let setup = Setup::new();
        let backend = make(&setup);
        let is_shared = backend.is_shared();
        let store = keys.store(Box::new(backend));
        let settings = Settings { longest_backoff: Duration::from_secs(30), ..Settings::new(LENGTH) };
        let store = store.with_refresh_settings(settings);
        assert_eq!(store.save(token(EXPIRED), NOW).unwrap(), "1");
        Self { store, is_shared, clock: setup.clock.clone(), _setup: setup }
    }

    /// Adds an expired row, whose id is 2.
    fn with_second_row(self) -> Self {
        assert_eq!(self.store.save(token(EXPIRED_TOO), NOW).unwrap(), "2");
        self
    }

    fn try_acquire_in_call(&self, lookup: Lookup<'_>, requester: &Requester, call: usize) -> Outcome {
        self.store.try_acquire(lookup, requester, call, &|| self.clock.now(), TIMEOUT).unwrap().outcome
    }

    /// Tries to acquire the lease of the row with this id.
    fn try_acquire_id(&self, id: &str, requester: &Requester) -> Outcome {
        self.try_acquire_in_call(Lookup::Id(Some(id)), requester, 1)
    }

    /// Tries to acquire the lease of the row with the id 1, which a token names.
    fn try_acquire(&self, requester: &Requester) -> Outcome {
        self.try_acquire_in_call(Lookup::Token(token("refresh_token=r client_id=c")), requester, 1)
    }

    /// The same, with the outcome in words.
    fn outcome(&self, requester: &Requester) -> String {
        describe(&self.try_acquire(requester))
    }

    fn save_and_release(&self, values: &str, requester: &Requester) -> (String, usize) {
        let (id, released) = self.store.save_and_release(token(values), NOW, requester.owner(), None).unwrap();
        (id, released.len())
    }
}

mod rules {
    use super::*;

    pub(super) fn one_requester_refreshes_and_the_others_wait_until_it_has_saved(case: &Case) {
        let others = [task(1), task(2), task(3)];
        assert_eq!(case.outcome(&me()), "refresh id:1");
        for other in &others {
            assert_eq!(case.outcome(other), "wait id:1");
            assert_eq!(describe(&case.try_acquire_id("1", other)), "wait id:1", "by id");
        }
        assert_eq!(case.save_and_release(FRESH, &me()), ("1".to_owned(), 1));
        assert!(!case.store.holds_leases());
        for other in &others {
            assert_eq!(case.outcome(other), "serve");
        }
        assert_eq!(case.store.lease_counters().acquired, 1);
    }

    pub(super) fn every_attempt_returns_the_current_row(case: &Case) {
        let attempt = |requester: &Requester| {
            let now = || case.clock.now();
            case.store.try_acquire(Lookup::Id(Some("1")), requester, 1, &now, TIMEOUT).unwrap()
        };
        let access_token = |requester: &Requester| {
            let found = attempt(requester).found.unwrap();
            found.row().get(Field::AccessToken).map(str::to_owned)
        };
        assert_eq!(access_token(&me()).as_deref(), Some("old"));
        case.store.save(token(FRESH), NOW).unwrap();
        assert_eq!(access_token(&another_process(1)).as_deref(), Some("new"));
        case.store.delete(Some("1")).unwrap();
        let deleted = attempt(&task(1));
        assert_eq!((describe(&deleted.outcome), deleted.found.is_none()), ("serve".to_owned(), true));
    }

    pub(super) fn credentials_without_a_row_have_a_lease_too(case: &Case) {
        let (one, other) = (task(1), task(2));
        for (values, field) in
            [("client_id=c refresh_token=new", "refresh_token"), ("client_id=c grant_token=code", "grant_token")]
        {
            let try_acquire = |requester| case.try_acquire_in_call(Lookup::Token(token(values)), requester, 1);
            let held = acquired(try_acquire(&one));
            let key = held.key.as_str();
            assert!(key.starts_with(field) && !key.contains("code"), "{key}");
            assert_eq!(describe(&try_acquire(&other)), format!("wait {key}"));
            // The save gives the row an id and a user. It still releases the lease of the credentials.
            case.save_and_release(
                &format!("{values} user_name={field} access_token=a expiry_time=1795303600000"),
                &one,
            );
            assert_eq!(describe(&try_acquire(&other)), "serve");
        }
    }

    pub(super) fn only_the_last_call_of_the_holder_releases_a_lease_and_only_once(case: &Case) {
        let first = acquired(case.try_acquire(&me()));
        assert!(first.is_new);
        // The holder acquires the lease again in another call. Then the end of the first call releases nothing.
        let again = acquired(case.try_acquire(&me()));
        assert!(!again.is_new);
        assert!(!case.store.release_lease(&first));
        assert_eq!(case.outcome(&task(1)), "wait id:1");
        assert!(case.store.release_lease(&again));
        assert!(!case.store.release_lease(&again));
        assert_eq!(case.outcome(&task(1)), "refresh id:1");
    }

    pub(super) fn acquiring_a_held_lease_again_does_not_extend_it(case: &Case) {
        let (other, end) = (task(1), NOW + 10_000);
        assert!(acquired(case.try_acquire(&me())).is_new);
        case.clock.set(end - 1);
        assert!(!acquired(case.try_acquire(&me())).is_new);
        assert_eq!(case.outcome(&other), "wait id:1");
        case.clock.set(end);
        assert_eq!(case.outcome(&other), "refresh id:1");
        // The first holder waits like any other requester, and its save does not release the lease of the next holder.
        assert_eq!(case.outcome(&me()), "wait id:1");
        case.save_and_release(FRESH, &me());
        case.store.save(token(EXPIRED), NOW).unwrap();
        assert_eq!(case.outcome(&me()), "wait id:1");
    }

    pub(super) fn leases_of_abandoned_calls_are_released_but_not_the_requested_one(case: &Case) {
        let (outer, inner) = (7, 8);
        let attempt = |id, requester: &Requester, call| case.try_acquire_in_call(Lookup::Id(Some(id)), requester, call);
        acquired(attempt("1", &me(), outer));
        let second = acquired(attempt("2", &me(), inner));
        let release = |is_abandoned: fn(usize) -> bool| {
            case.store.release_abandoned_leases(me().owner(), &second.key, is_abandoned).len()
        };
        assert_eq!(release(|call| call != 7), 0, "the outer call still runs");
        assert_eq!(describe(&attempt("1", &task(1), 1)), "wait id:1");
        assert_eq!(release(|_| true), 1);
        assert_eq!(describe(&attempt("1", &task(1), 1)), "refresh id:1");
        assert_eq!(describe(&attempt("2", &task(1), 1)), "wait id:2", "the requested lease is kept");
    }

    pub(super) fn a_lease_belongs_to_the_last_call_that_acquired_it(case: &Case) {
        let acquire = |id, call| acquired(case.try_acquire_in_call(Lookup::Id(Some(id)), &me(), call));
        acquire("1", 7);
        acquire("1", 8);
        let other = acquire("2", 9);
        let release_of =
            |ended: usize| case.store.release_abandoned_leases(me().owner(), &other.key, |call| call == ended).len();
        assert_eq!(release_of(7), 0);
        assert_eq!(release_of(8), 1);
        // A save within a call releases the lease of that call alone.
        let (_, released) = case.store.save_and_release(token(FRESH), NOW, me().owner(), Some(8)).unwrap();
        assert_eq!((released.len(), case.store.holds_leases()), (0, true));
    }

    pub(super) fn a_requester_does_not_release_the_leases_of_others(case: &Case) {
        acquired(case.try_acquire(&task(1)));
        let mine = acquired(case.try_acquire_id("2", &me()));
        assert!(case.store.release_abandoned_leases(me().owner(), &mine.key, |_| true).is_empty());
        case.save_and_release("id=2 access_token=new", &me());
        assert_eq!(case.outcome(&task(2)), "wait id:1");
    }

    pub(super) fn saving_the_found_token_again_releases_nothing(case: &Case) {
        acquired(case.try_acquire(&me()));
        assert_eq!(case.save_and_release(EXPIRED, &me()).1, 0);
        assert!(case.store.holds_leases());
        assert_eq!(case.outcome(&task(1)), "wait id:1");
    }

    pub(super) fn a_closed_store_holds_no_lease(case: &Case) {
        acquired(case.try_acquire(&me()));
        assert_eq!(case.store.release_all_leases().len(), 1);
        assert_eq!(case.outcome(&task(1)), "refresh id:1");
        case.store.close();
        assert!(!case.store.holds_leases());
        let closed = case.store.try_acquire(Lookup::Id(Some("1")), &me(), 1, &|| NOW, TIMEOUT);
        assert_eq!(closed.err().unwrap().code(), Code::Closed);
    }

    pub(super) fn a_lease_of_another_process_counts_if_the_backend_is_shared(case: &Case) {
        // In memory it can only be a lease that a forked child has inherited. The parent cannot release it there.
        acquired(case.try_acquire(&another_process(1)));
        assert_eq!(case.outcome(&me()), if case.is_shared { "wait id:1" } else { "refresh id:1" });
    }

    pub(super) fn a_failed_save_releases_nothing(case: &Case) {
        let held = acquired(case.try_acquire(&me()));
        assert!(case.store.save_and_release(token("client_id=nothing"), NOW, me().owner(), None).is_err());
        assert_eq!(case.outcome(&task(1)), "wait id:1");
        assert!(case.store.release_lease(&held));
    }

    /// Lets the refresh of the row with the id 1 fail.
    fn fail(case: &Case) {
        let held = acquired(case.try_acquire_id("1", &me()));
        assert!(case.store.release_lease(&held));
    }

    /// The ids of the rows whose refreshes fail, as a check finds them.
    fn failing(case: &Case) -> Vec<String> {
        let mut findings = case.store.check(NOW).unwrap();
        findings.retain(|finding| finding.code == "refresh-failing");
        findings.into_iter().flat_map(|finding| finding.ids).collect()
    }

    pub(super) fn after_two_failures_a_requester_backs_off_until_the_next_attempt(case: &Case) {
        fail(case);
        // At once.
        fail(case);
        let outcomes = || [case.outcome(&task(1)), case.outcome(&another_process(1)), case.outcome(&me())];
        assert_eq!(outcomes(), ["refresh-failing"; 3]);
        let error = match case.try_acquire(&me()) {
            Outcome::BackOff(error, _) => error.to_string(),
            other => panic!("{}", describe(&other)),
        };
        assert!(error.contains("the last 2 refreshes for the id \"1\" have failed"), "{error}");
        assert_eq!(failing(case), ["1"]);
        // The record of a failure has the real time that has passed since the lease was acquired.
        case.clock.set(NOW + 900);
        assert_eq!(case.outcome(&me()), "refresh-failing");
        case.clock.set(NOW + 9_000);
        assert_eq!(case.outcome(&me()), "refresh id:1");
        assert_eq!(case.outcome(&task(1)), "wait id:1", "one attempt at a time");
        let counters = case.store.lease_counters();
        assert_eq!((counters.acquired, counters.failed, counters.backed_off), (3, 2, 5));
    }

    pub(super) fn a_new_login_or_a_fresh_token_ends_the_back_off(case: &Case) {
        let fail_twice = || {
            fail(case);
            fail(case);
            assert_eq!(describe(&case.try_acquire_id("1", &me())), "refresh-failing");
        };
        fail_twice();
        case.store.save(token("user_name=ada client_id=c refresh_token=r2"), NOW).unwrap();
        assert_eq!(describe(&case.try_acquire_id("1", &me())), "refresh id:1");
        assert!(case.save_and_release("id=1 access_token=newer expiry_time=2", &me()).1 == 1);
        fail_twice();
        // A program that knows no leases has refreshed.
        case.store.save(token("id=1 access_token=newest expiry_time=2"), NOW).unwrap();
        assert_eq!(failing(case), [""; 0]);
        assert_eq!(describe(&case.try_acquire_id("1", &me())), "refresh id:1");
    }

    pub(super) fn an_answer_for_another_login_is_not_saved(case: &Case) {
        let asked = || case.store.find_by_id(Some("1"), Wait::Yes).unwrap().unwrap().stored();
        let save = |asked: &Row| {
            let answer = token("id=1 client_id=c refresh_token=r access_token=new expiry_time=1795303600000");
            case.store.save_refreshed(answer, asked, NOW, me().owner(), 1).unwrap().map(|released| released.len())
        };
        let before = asked();
        acquired(case.try_acquire_id("1", &me()));
        case.store.save(token("id=1 refresh_token=r2"), NOW).unwrap();
        assert_eq!(save(&before), None, "a new login");
        assert!(!case.store.holds_leases() && case.outcome(&task(1)).starts_with("refresh"), "the lease is released");
        let row = asked();
        assert_eq!([row.get(Field::RefreshToken), row.get(Field::AccessToken)], [Some("r2"), Some("old")]);
        case.store.save(token("id=1 refresh_token=r"), NOW).unwrap();
        assert_eq!(save(&before), Some(0), "the same login");
        assert_eq!(asked().get(Field::AccessToken), Some("new"));
        case.store.delete(Some("1")).unwrap();
        assert_eq!(save(&before), None, "deleted");
        assert_eq!(case.store.count().unwrap(), 0);
    }

    pub(super) fn a_store_that_is_closed_during_a_refresh_records_no_failure(case: &Case) {
        for _ in 0..3 {
            acquired(case.try_acquire(&me()));
            assert_eq!(case.store.release_all_leases().len(), 1);
        }
        assert_eq!((case.outcome(&me()).as_str(), case.store.lease_counters().failed), ("refresh id:1", 0));
    }

    pub(super) fn a_refresh_ahead_needs_the_lease_of_a_row_that_is_still_valid(case: &Case) {
        case.store.save(token("id=1 access_token=valid expiry_time=1795300060000"), NOW).unwrap();
        let ahead = |requester: &Requester, lead| {
            case.store.try_acquire_ahead("1", requester, 1, &|| case.clock.now(), lead).unwrap().outcome
        };
        assert_eq!(describe(&ahead(&me(), 55_000)), "serve", "60 s are left, and the SDK would refresh in 55 s");
        let held = acquired(ahead(&me(), 55_001));
        assert_eq!(describe(&ahead(&task(1), 55_001)), "wait id:1");
        assert_eq!(case.outcome(&task(1)), "serve", "a request gets the valid token");
        case.clock.set(NOW + 9_999);
        assert_eq!(describe(&ahead(&task(1), 55_001)), "wait id:1", "the lease ends by its own clock");
        assert!(case.store.release_lease(&held));
        assert_eq!(case.store.lease_counters().failed, 1);
    }

    pub(super) fn a_refresh_ahead_backs_off_though_the_token_is_still_valid(case: &Case) {
        case.store.save(token("id=1 access_token=valid expiry_time=1795300060000"), NOW).unwrap();
        let ahead = || case.store.try_acquire_ahead("1", &me(), 1, &|| case.clock.now(), 295_000).unwrap().outcome;
        for _ in 0..2 {
            assert!(case.store.release_lease(&acquired(ahead())));
        }
        assert_eq!(describe(&ahead()), "refresh-failing");
        assert_eq!(case.outcome(&me()), "serve", "the valid token is not withheld");
        case.clock.set(NOW + 57_000);
        assert_eq!(case.outcome(&me()), "refresh id:1");
        assert_eq!(case.store.lease_counters().acquired_ahead, 2);
    }

    pub(super) fn one_of_many_simultaneous_requesters_acquires_the_lease(case: &Case) {
        let acquires = |number| matches!(case.try_acquire(&task(number)), Outcome::Refresh(_));
        let refreshing: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || acquires(number))).collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(refreshing, 1);
    }
}

/// Makes a test of each rule, in a module for one backend.
macro_rules! tests {
    ($name:ident, $make:expr, $keys:expr; [$($rule:ident)*] with_second_row: [$($other_rule:ident)*]) => {
        mod $name {
            use super::*;

            $(#[test] fn $rule() {
                rules::$rule(&Case::new($make, $keys));
            })*
            $(#[test] fn $other_rule() {
                rules::$other_rule(&Case::new($make, $keys).with_second_row());
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
            [
                one_requester_refreshes_and_the_others_wait_until_it_has_saved
                every_attempt_returns_the_current_row
                credentials_without_a_row_have_a_lease_too
                only_the_last_call_of_the_holder_releases_a_lease_and_only_once
                acquiring_a_held_lease_again_does_not_extend_it
                saving_the_found_token_again_releases_nothing
                a_closed_store_holds_no_lease
                a_lease_of_another_process_counts_if_the_backend_is_shared
                a_failed_save_releases_nothing
                after_two_failures_a_requester_backs_off_until_the_next_attempt
                a_new_login_or_a_fresh_token_ends_the_back_off
                a_store_that_is_closed_during_a_refresh_records_no_failure
                an_answer_for_another_login_is_not_saved
                a_refresh_ahead_needs_the_lease_of_a_row_that_is_still_valid
                a_refresh_ahead_backs_off_though_the_token_is_still_valid
                one_of_many_simultaneous_requesters_acquires_the_lease
            ]
            with_second_row: [
                leases_of_abandoned_calls_are_released_but_not_the_requested_one
                a_lease_belongs_to_the_last_call_that_acquired_it
                a_requester_does_not_release_the_leases_of_others
            ]
        }
    };
}

common::for_each_backend!(suite);

#[test]
fn searches_for_abandoned_calls_are_at_least_20_ms_apart() {
    let store = Store::new(Box::new(List::new()), TIMEOUT).with_refresh_settings(Settings::new(LENGTH));
    let start = Instant::now();
    let searches = (0..1_000).filter(|_| store.calls_with_leases().is_some()).count();
    let most = 1 + start.elapsed().as_millis() / 20;
    assert!(searches >= 1 && searches as u128 <= most, "{searches} searches instead of at most {most}");
}

#[test]
fn a_search_sees_the_current_call_and_cannot_release_a_later_one() {
    let case = Case::new(|_| List::new(), TestKeys::Plain);
    let acquire = |call| acquired(case.try_acquire_in_call(Lookup::Id(Some("1")), &me(), call));
    // A search is refused for at most 20 ms.
    let search = || std::iter::repeat_with(|| case.store.calls_with_leases()).flatten().next().unwrap();
    acquire(7);
    let held = search();
    let [(7, seen)] = held.as_slice() else { panic!("{held:?}") };
    acquire(8);
    assert!(!case.store.release_lease(seen) && case.store.holds_leases(), "call 8 has acquired it again");
    let held = search();
    let [(8, seen)] = held.as_slice() else { panic!("{held:?}") };
    assert!(case.store.release_lease(seen) && !case.store.holds_leases());
}

#[test]
fn a_refresh_whose_lease_has_expired_is_no_failure() {
    let settings = Settings { longest_backoff: LENGTH, ..Settings::new(Duration::from_millis(1)) };
    let store = Store::new(Box::new(List::new()), TIMEOUT).with_refresh_settings(settings);
    store.save(token(EXPIRED), NOW).unwrap();
    for _ in 0..3 {
        let attempt = store.try_acquire(Lookup::Id(Some("1")), &me(), 1, &|| NOW, TIMEOUT).unwrap();
        let held = acquired(attempt.outcome);
        thread::sleep(Duration::from_millis(2));
        assert!(store.release_lease(&held));
    }
    assert_eq!(store.lease_counters().failed, 0);
}
