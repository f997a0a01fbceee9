//! What only a store over a cell has: changes that start over, answers that are lost, and finds from memory.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{mem, thread};

use common::cells::{self, LOCATION, MemoryCell, UnreliableCell};
use common::{Clock, NOW, TIMEOUT, token};
use parking_lot::Mutex;
use zoho_token_store::backends::cell::Cell;
use zoho_token_store::domain::lease::Settings;
use zoho_token_store::domain::{Field, Row};
use zoho_token_store::store::error::{Code, Error, Result};
use zoho_token_store::store::held_leases::requester;
use zoho_token_store::store::lease::{Lookup, Outcome};
use zoho_token_store::store::{Store, Wait};

const FRESH: &str = "user_name=ada client_id=c refresh_token=r access_token=new expiry_time=1795303600000";
const MINUTE: Duration = Duration::from_mins(1);

/// What the next swap does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing is written, and it fails.
    Fails,
    /// It fails after it has written.
    FailsAfterwards,
    /// It fails after it has written, and another program has changed the document so often since.
    FailsAndIsChanged(usize),
    /// It answers that another change came first, after it has written, and another program has changed the document
    /// so often since.
    DeniesAndIsChanged(usize),
    /// It fails, and another program has changed the document instead.
    FailsAndOtherChanges,
    /// Another program has deleted the row 3.
    OtherDeletes,
    /// It fails, and so does every load.
    IsLost,
    /// The document is too large.
    IsTooLarge,
}

/// A cell that counts, and fails as a test says.
#[derive(Clone, Default)]
struct TestCell {
    place: MemoryCell,
    fault: Arc<Mutex<Option<Fault>>>,
    next_fault: Arc<Mutex<Option<Fault>>>,
    is_lost: Arc<Mutex<bool>>,
    loads: Arc<AtomicUsize>,
    swaps: Arc<AtomicUsize>,
}

impl TestCell {
    fn store(&self, cache_for: Duration) -> Store {
        let settings = Settings { longest_backoff: Duration::from_secs(30), ..Settings::new(Duration::from_secs(10)) };
        let backend = cells::backend(self.clone(), cache_for, &Clock::new());
        Store::new(Box::new(backend), TIMEOUT).with_refresh_settings(settings)
    }

    /// Another program's store over the same place.
    fn other(&self) -> Store {
        Self { place: self.place.clone(), ..Self::default() }.store(Duration::ZERO)
    }

    fn other_saves(&self, times: usize) {
        for _ in 0..times {
            let access = self.place.version();
            self.other().save(token(&format!("user_name=bob refresh_token=s access_token={access}")), NOW).unwrap();
        }
    }

    /// How many loads and swaps `work` needs.
    fn count(&self, work: impl FnOnce()) -> (usize, usize) {
        let counts = || (self.loads.load(Ordering::SeqCst), self.swaps.load(Ordering::SeqCst));
        let before = counts();
        work();
        let after = counts();
        (after.0 - before.0, after.1 - before.1)
    }
}

impl Cell for TestCell {
    type Version = u64;

    fn load(&self) -> Result<(Option<Vec<u8>>, u64)> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        if *self.is_lost.lock() { Err(Error::new(Code::CellFailed, &LOCATION)) } else { self.place.load() }
    }

    fn swap(&self, document: &[u8], version: &u64) -> Result<bool> {
        self.swaps.fetch_add(1, Ordering::SeqCst);
        let fault = mem::replace(&mut *self.fault.lock(), self.next_fault.lock().take());
        let failed = Error::new(Code::CellFailed, &LOCATION).with("the connection was lost");
        match fault {
            None => self.place.swap(document, version),
            Some(Fault::Fails) => Err(failed),
            Some(Fault::FailsAfterwards) => self.place.swap(document, version).and(Err(failed)),
            Some(Fault::FailsAndIsChanged(times)) => {
                assert!(self.place.swap(document, version)?);
                self.other_saves(times);
                Err(failed)
            }
            Some(Fault::DeniesAndIsChanged(times)) => {
                assert!(self.place.swap(document, version)?);
                self.other_saves(times);
                Ok(false)
            }
            Some(Fault::FailsAndOtherChanges) => {
                self.other_saves(1);
                Err(failed)
            }
            Some(Fault::OtherDeletes) => {
                assert!(self.other().delete(Some("3")).unwrap());
                self.place.swap(document, version)
            }
            Some(Fault::IsLost) => {
                *self.is_lost.lock() = true;
                Err(failed)
            }
            Some(Fault::IsTooLarge) => Err(Error::new(Code::DocumentTooLarge, &LOCATION).with("7 bytes")),
        }
    }
}

#[test]
fn a_read_loads_once_and_a_change_loads_and_swaps_once() {
    let cell = TestCell::default();
    let store = cell.store(Duration::ZERO);
    assert_eq!(cell.count(|| drop(store.save(token(FRESH), NOW).unwrap())), (1, 1));
    assert_eq!(cell.count(|| drop(store.find(token("id=9 user_name=ada"), Wait::Yes).unwrap().unwrap())), (1, 0));
    assert_eq!(cell.count(|| assert!(store.find_by_id(Some("7"), Wait::Yes).unwrap().is_none())), (1, 0));
    assert_eq!(cell.count(|| assert_eq!(store.all().unwrap().len(), 1)), (1, 0));
    assert_eq!(
        cell.count(|| assert!(!store.delete(Some("7")).unwrap())),
        (1, 0),
        "nothing changes, nothing is written"
    );
    assert_eq!(store.find_by_id(Some("1"), Wait::No).err().unwrap().code(), Code::Busy, "it would have to wait");
}

#[test]
fn an_answer_that_is_lost_counts_as_what_has_happened() {
    let save = |fault| {
        let cell = TestCell::default();
        let store = cell.store(Duration::ZERO);
        store.save(token("user_name=first refresh_token=q"), NOW).unwrap();
        *cell.fault.lock() = Some(fault);
        let saved = store.save(token(FRESH), NOW).map_err(|error| error.code());
        *cell.is_lost.lock() = false;
        let names = store.all().unwrap().iter().map(|row| row.get(Field::UserName).unwrap().to_owned()).collect();
        let names: Vec<String> = names;
        (saved, names.join(" "))
    };
    assert_eq!(save(Fault::Fails), (Err(Code::CellFailed), "first".to_owned()));
    assert_eq!(save(Fault::FailsAfterwards), (Ok("2".to_owned()), "first ada".to_owned()));
    for fault in [Fault::FailsAndIsChanged, Fault::DeniesAndIsChanged] {
        for times in [1, 9] {
            assert_eq!(save(fault(times)), (Ok("2".to_owned()), "first ada bob".to_owned()), "{times}");
        }
    }
    assert_eq!(save(Fault::FailsAndOtherChanges), (Ok("3".to_owned()), "first bob ada".to_owned()));
    assert_eq!(save(Fault::IsLost), (Err(Code::OutcomeUnknown), "first".to_owned()));
    assert_eq!(save(Fault::IsTooLarge), (Err(Code::DocumentTooLarge), "first".to_owned()));
}

#[test]
fn a_deletion_whose_answer_is_lost_has_deleted() {
    let cell = TestCell::default();
    let store = cell.store(Duration::ZERO);
    store.save(token("user_name=first refresh_token=q"), NOW).unwrap();
    store.save(token("user_name=bob refresh_token=s"), NOW).unwrap();
    // A conflict is another case: the other program has deleted the row.
    store.save(token(FRESH), NOW).unwrap();
    *cell.fault.lock() = Some(Fault::OtherDeletes);
    assert!(!store.delete(Some("3")).unwrap());
    // The second attempt, if there is one, does not see the row any more.
    let faults = [
        Fault::FailsAfterwards,
        Fault::FailsAndIsChanged(1),
        Fault::FailsAndIsChanged(7),
        Fault::FailsAndIsChanged(8),
        Fault::DeniesAndIsChanged(0),
        Fault::DeniesAndIsChanged(1),
        Fault::DeniesAndIsChanged(7),
    ];
    for fault in faults {
        let id = store.save(token(FRESH), NOW).unwrap();
        *cell.fault.lock() = Some(fault);
        assert!(store.delete(Some(&id)).unwrap(), "{fault:?}");
    }
}

#[test]
fn a_change_whose_answer_is_lost_is_seen_in_the_own_cache() {
    for fault in [Fault::FailsAfterwards, Fault::FailsAndIsChanged(1), Fault::DeniesAndIsChanged(1)] {
        let cell = TestCell::default();
        let store = cell.store(MINUTE);
        store.save(token(FRESH), NOW).unwrap();
        *cell.fault.lock() = Some(fault);
        store.save(token(&FRESH.replace("=new", "=newer")), NOW).unwrap();
        let found = store.find(token("user_name=ada"), Wait::No).unwrap().unwrap().stored();
        assert_eq!(found.get(Field::AccessToken), Some("newer"), "{fault:?}");
    }
}

#[test]
fn a_failure_after_a_lost_answer_says_that_the_change_may_have_been_made() {
    let message = |faults: &[Fault]| {
        let cell = TestCell::default();
        let store = cell.store(Duration::ZERO);
        *cell.fault.lock() = faults.first().copied();
        *cell.next_fault.lock() = faults.get(1).copied();
        store.save(token(FRESH), NOW).unwrap_err().to_string()
    };
    let unknown = message(&[Fault::FailsAndIsChanged(8), Fault::IsTooLarge]);
    assert!(unknown.contains("is not known"), "{unknown}");
    for faults in [&[Fault::IsTooLarge][..], &[Fault::FailsAndOtherChanges, Fault::IsTooLarge]] {
        let nothing = message(faults);
        assert!(!nothing.contains("is not known"), "{nothing}");
    }
}

#[test]
fn a_lease_whose_answer_is_lost_is_new_all_the_same() {
    for fault in [Fault::FailsAfterwards, Fault::FailsAndIsChanged(1), Fault::FailsAndIsChanged(8)] {
        let cell = TestCell::default();
        let store = cell.store(Duration::ZERO);
        store.save(token("user_name=ada refresh_token=r access_token=old expiry_time=1"), NOW).unwrap();
        *cell.fault.lock() = Some(fault);
        let me = requester(0, true).unwrap();
        let attempt = store.try_acquire(Lookup::Id(Some("1")), &me, 1, &|| NOW, TIMEOUT).unwrap();
        assert!(matches!(attempt.outcome, Outcome::Refresh(acquired) if acquired.is_new));
    }
}

#[test]
fn writers_on_an_unreliable_network_lose_nothing_and_share_no_id() {
    let place = MemoryCell::default();
    thread::scope(|scope| {
        for writer in 0..4 {
            let place = place.clone();
            scope.spawn(move || {
                let backend = cells::backend(UnreliableCell(place), Duration::ZERO, &Clock::new());
                let store = Store::new(Box::new(backend), TIMEOUT);
                for number in 0..10 {
                    store
                        .save(token(&format!("user_name=u{writer}-{number} refresh_token=r{writer}-{number}")), NOW)
                        .unwrap();
                }
            });
        }
    });
    let cell = TestCell { place, ..TestCell::default() };
    let rows = cell.store(Duration::ZERO).all().unwrap();
    let ids: std::collections::BTreeSet<&str> = rows.iter().map(Row::id).collect();
    assert_eq!((rows.len(), ids.len()), (40, 40));
}

#[test]
fn a_change_gives_up_at_its_deadline() {
    struct Contended(MemoryCell);
    impl Cell for Contended {
        type Version = u64;
        fn load(&self) -> Result<(Option<Vec<u8>>, u64)> {
            self.0.load()
        }
        fn swap(&self, _: &[u8], _: &u64) -> Result<bool> {
            Ok(false)
        }
    }
    let backend = cells::backend(Contended(MemoryCell::default()), Duration::ZERO, &Clock::new());
    let store = Store::new(Box::new(backend), Duration::from_millis(50));
    assert_eq!(store.save(token(FRESH), NOW).unwrap_err().code(), Code::Busy);
    assert_eq!(store.count().unwrap(), 0);
}

#[test]
fn a_cached_document_answers_finds_of_fresh_tokens_alone() {
    let cell = TestCell::default();
    let store = cell.store(MINUTE);
    let other = TestCell { place: cell.place.clone(), ..TestCell::default() }.store(Duration::ZERO);
    store.save(token(FRESH), NOW).unwrap();
    let found = |query: &str, wait| store.find(token(query), wait).map(|found| found.map(|found| found.stored()));
    let user = || found("user_name=ada", Wait::No).unwrap().unwrap();
    assert_eq!(cell.count(|| drop(user())), (0, 0), "the change itself is remembered");
    assert_eq!(cell.count(|| drop(found("id=7 user_name=ada", Wait::Yes).unwrap().unwrap())), (0, 0), "all keys");
    assert_eq!(cell.count(|| drop(store.find_by_id(Some("1"), Wait::No).unwrap().unwrap())), (0, 0));
    // A logout elsewhere is seen when the time is over, and by anything that reads all rows.
    other.delete(Some("1")).unwrap();
    assert_eq!(cell.count(|| assert_eq!(user().id(), "1")), (0, 0));
    assert_eq!(cell.count(|| assert_eq!(store.count().unwrap(), 0)), (1, 0));
    assert_eq!(found("user_name=ada", Wait::No).unwrap_err().code(), Code::Busy, "a missing row is looked for");
    assert!(found("user_name=ada", Wait::Yes).unwrap().is_none());
    // A login elsewhere is seen at once.
    other.save(token("user_name=bob refresh_token=s access_token=a expiry_time=1795303600000"), NOW).unwrap();
    assert!(found("user_name=bob", Wait::Yes).unwrap().is_some());
    // An expired token is looked for, because another process may have refreshed it.
    other.save(token("user_name=bob access_token=b expiry_time=1"), NOW).unwrap();
    assert_eq!(store.count().unwrap(), 1);
    assert_eq!(found("user_name=bob", Wait::No).unwrap_err().code(), Code::Busy);
    assert_eq!(cell.count(|| drop(found("user_name=bob", Wait::Yes).unwrap().unwrap())), (1, 0));
    store.close();
}

#[test]
fn a_cached_document_is_used_for_its_time() {
    let cell = TestCell::default();
    let store = cell.store(Duration::from_millis(20));
    store.save(token(FRESH), NOW).unwrap();
    let begun = Instant::now();
    thread::sleep(Duration::from_millis(21));
    assert_eq!(
        cell.count(|| drop(store.find(token("user_name=ada"), Wait::Yes).unwrap())).0,
        1,
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_document_of_a_newer_version_is_left_untouched() {
    let cell = TestCell::default();
    let store = cell.store(Duration::ZERO);
    store.save(token(FRESH), NOW).unwrap();
    let newer = cell.place.document().replacen("\"version\":1", "\"version\":2", 1);
    for (document, code) in [
        (newer.as_str(), Code::NewerSchema),
        ("{\"logged_in\": true}", Code::NotADocument),
        (&cell.place.document()[..60], Code::NotADocument),
        ("", Code::NotADocument),
    ] {
        cell.place.set(document);
        let version = cell.place.version();
        assert_eq!(store.save(token(FRESH), NOW).unwrap_err().code(), code);
        assert_eq!(store.count().unwrap_err().code(), code);
        assert_eq!((cell.place.document().as_str(), cell.place.version()), (document, version));
    }
}

#[test]
fn a_place_that_was_emptied_gives_no_id_of_this_process_to_another_user() {
    let cell = TestCell::default();
    let store = cell.store(Duration::ZERO);
    store.save(token("user_name=ada refresh_token=r"), NOW).unwrap();
    cell.place.empty();
    assert_eq!(store.save(token("user_name=bob refresh_token=s"), NOW).unwrap(), "2");
    assert!(store.find_by_id(Some("1"), Wait::Yes).unwrap().is_none(), "a program may have kept Ada's id");
    assert_eq!(cell.other().save(token("user_name=eve refresh_token=t"), NOW).unwrap(), "3", "the document has it now");
}
