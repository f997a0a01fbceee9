//! Where keys come from, and when a source of keys is asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use zoho_token_store::backends::list::List;
use zoho_token_store::domain::key_ring::Ring;
use zoho_token_store::domain::seal_key::{key_text, resembles_key};
use zoho_token_store::store::backend::Backend;
use zoho_token_store::store::error::Code;
use zoho_token_store::store::keys::{GivenKey, StoreKeys, new_key, parse_keys};
use zoho_token_store::store::{Error, Result, Store, Wait};

use super::common::keyed::{key_id, ring, shared, store_with};
use super::common::{NOW, TIMEOUT, token};
use super::rotation_of;
use super::{ADA, BOB, find, hit, save};

/// A source whose keys a test changes.
#[derive(Clone)]
struct Source {
    letters: Arc<Mutex<&'static str>>,
    asked: Arc<AtomicUsize>,
}

impl Source {
    fn new(letters: &'static str) -> Self {
        Self { letters: Arc::new(Mutex::new(letters)), asked: Arc::default() }
    }

    fn set(&self, letters: &'static str) {
        *self.letters.lock().unwrap() = letters;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn ask(&self) -> Result<Ring> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match *self.letters.lock().unwrap() {
            "" => Err(Error::invalid_key("made to fail")),
            letters => Ok(ring(letters)),
        }
    }

    fn store(&self, backend: &Arc<dyn Backend>) -> Store {
        let source = self.clone();
        Store::new(shared(backend), TIMEOUT).with_keys(StoreKeys::supplied(Arc::new(move || source.ask())).unwrap())
    }
}

fn backend_with(keys: &str, values: &str) -> Arc<dyn Backend> {
    let backend: Arc<dyn Backend> = Arc::new(List::new());
    save(&store_with(keys, &backend), values);
    backend
}

#[test]
fn a_source_is_asked_when_a_store_is_made() {
    let source = Source::new("");
    let asked = source.clone();
    assert_eq!(StoreKeys::supplied(Arc::new(move || asked.ask())).err().unwrap().code(), Code::InvalidKey);
    source.set("a");
    let store = source.store(&backend_with("a", ADA));
    assert_eq!((find(&store, "refresh_token=r-ada"), source.asked()), (hit("a-ada"), 2));
}

#[test]
fn a_source_is_asked_at_once_for_a_missing_key_and_not_again_soon() {
    let backend = backend_with("a", ADA);
    let source = Source::new("b");
    let store = source.store(&backend);
    // Still not there.
    assert_eq!((find(&store, "user_name=ada"), source.asked()), (Err(Code::UnknownKey), 2));
    source.set("ba");
    assert_eq!((find(&store, "user_name=ada"), source.asked()), (Err(Code::UnknownKey), 2), "at most every 30 s");

    let source = Source::new("b");
    let store = source.store(&backend);
    source.set("ba");
    assert_eq!((find(&store, "refresh_token=r-ada"), source.asked()), (hit("a-ada"), 2), "by a miss, too");
    assert_eq!((save(&store, ADA), source.asked()), ("1".to_owned(), 3), "no row was under this key before");
    // The next key is missing within 30 s.
    save(&store_with("cba", &backend), BOB);
    source.set("cba");
    assert_eq!((find(&store, "user_name=bob"), source.asked()), (Err(Code::UnknownKey), 3));
}

#[test]
fn a_program_with_both_keys_follows_a_rotation() {
    for (before, after) in [("ab", "ba"), ("ab", "b"), ("pa", "ap"), ("pa", "a")] {
        let (old, new) = (&before[..1], after.chars().next().unwrap());
        let backend = backend_with(old, ADA);
        let source = Source::new(before);
        let store = source.store(&backend);
        save(&store, ADA);
        assert_eq!(source.asked(), 1, "{before}: its rows are under its key");
        source.set(after);
        let rotates = if after.len() == 1 { format!("{after}{old}") } else { after.to_owned() };
        assert_eq!(rotation_of(&store_with(&rotates, &backend)), (1, 0));
        save(&store, if old == "a" { ADA } else { BOB });
        save(&store, BOB);
        assert_eq!(source.asked(), 2, "{before}: it asks before the first save");
        assert_eq!(store.key_usage().unwrap().into_keys().collect::<Vec<_>>(), [key_id(new)], "{before}");
        save(&store, ADA);
        assert_eq!(source.asked(), 2, "{before}: it has the keys");
    }
}

#[test]
fn a_source_that_saves_into_its_own_store_ends() {
    let backend = backend_with("a", ADA);
    let store: Arc<OnceLock<Store>> = Arc::default();
    let itself = Arc::clone(&store);
    let source = move || {
        let Some(store) = itself.get() else { return Ok(ring("ab")) };
        assert_eq!(save(store, BOB), "2", "it does not ask itself");
        Ok(ring("ba"))
    };
    let keys = StoreKeys::supplied(Arc::new(source)).unwrap();
    assert!(store.set(Store::new(shared(&backend), TIMEOUT).with_keys(keys)).is_ok());
    rotation_of(&store_with("ba", &backend));
    assert_eq!(save(store.get().unwrap(), ADA), "1");
    assert_eq!(store.get().unwrap().key_usage().unwrap(), BTreeMap::from([(key_id('a'), 1), (key_id('b'), 1)]));
}

#[test]
fn a_deletion_of_all_rows_asks_first_too() {
    let backend = backend_with("a", ADA);
    let source = Source::new("ab");
    let store = source.store(&backend);
    source.set("b");
    rotation_of(&store_with("ba", &backend));
    store.delete_all().unwrap();
    save(&store, ADA);
    assert_eq!(store.key_usage().unwrap().into_keys().collect::<Vec<_>>(), [key_id('b')]);
    assert_eq!(source.asked(), 2);
}

#[test]
fn a_source_that_fails_prevents_no_save() {
    let backend = backend_with("a", ADA);
    let source = Source::new("ab");
    let store = source.store(&backend);
    rotation_of(&store_with("ba", &backend));
    for letters in ["", "ab"] {
        source.set(letters);
        assert_eq!(save(&store, BOB), "2", "{letters}");
        assert_eq!(source.asked(), 2);
    }
    assert_eq!(rotation_of(&store_with("ba", &backend)), (1, 0));
    save(&store, BOB);
    assert_eq!(source.asked(), 3, "each rotation makes it ask again");
}

#[test]
fn a_slow_source_makes_no_save_fail() {
    let backend = backend_with("a", ADA);
    let (asked, has_answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counter, answers) = (Arc::clone(&asked), Arc::clone(&has_answered));
    let source = move || {
        if counter.fetch_add(1, Ordering::SeqCst) == 0 {
            return Ok(ring("ab"));
        }
        let begun = Instant::now();
        while !answers.load(Ordering::SeqCst) && begun.elapsed() < TIMEOUT {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(ring("ba"))
    };
    // It is much shorter than the answer takes.
    let timeout = Duration::from_millis(200);
    let store = Store::new(shared(&backend), timeout).with_keys(StoreKeys::supplied(Arc::new(source)).unwrap());
    rotation_of(&store_with("ba", &backend));
    thread::scope(|scope| {
        let asking = scope.spawn(|| save(&store, ADA));
        while asked.load(Ordering::SeqCst) < 2 {
            thread::yield_now();
        }
        assert_eq!(save(&store, BOB), "2", "it waits for a while, and goes on with the keys that are there");
        has_answered.store(true, Ordering::SeqCst);
        assert_eq!(asking.join().unwrap(), "1", "the time of the answer does not count");
    });
    assert_eq!(store.key_usage().unwrap(), BTreeMap::from([(key_id('a'), 1), (key_id('b'), 1)]));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn threads_that_save_after_a_rotation_ask_once() {
    let backend = backend_with("a", ADA);
    let source = Source::new("ab");
    let store = source.store(&backend);
    rotation_of(&store_with("ba", &backend));
    source.set("ba");
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| save(&store, ADA));
        }
    });
    assert_eq!(source.asked(), 2);
    assert_eq!(store.key_usage().unwrap().into_keys().collect::<Vec<_>>(), [key_id('b')]);
}

#[test]
fn every_operation_asks_for_a_missing_key() {
    type Operation = (&'static str, fn(&Store) -> bool);
    let table: [Operation; 8] = [
        ("find", |store| find(store, "refresh_token=r-ada") == hit("a-ada")),
        ("find by id", |store| store.find_by_id(Some("1"), Wait::Yes).is_ok_and(|found| found.is_some())),
        ("save", |store| store.save(token(ADA), NOW).is_ok_and(|id| id == "1")),
        ("all", |store| store.all().is_ok_and(|rows| rows.len() == 1)),
        ("list", |store| store.list().is_ok_and(|rows| rows[0].flaw.is_none())),
        ("rotate", |store| rotation_of(store) == (1, 0)),
        ("import", |store| store.import_rows(&sealed_rows(), NOW).is_ok_and(|report| report.counts.skipped == 0)),
        ("restore", |store| store.restore(&sealed_rows(), 1).is_ok()),
    ];
    for (name, operation) in table {
        let source = Source::new("b");
        let store = source.store(&backend_with("a", ADA));
        source.set("ba");
        assert!(operation(&store), "{name}");
        // A restore is two operations, and the second one writes under a key that is not recorded.
        assert_eq!(source.asked(), if name == "restore" { 3 } else { 2 }, "{name}");
    }
}

fn sealed_rows() -> Vec<zoho_token_store::domain::Row> {
    super::stored(&backend_with("a", ADA))
}

#[test]
fn a_rotation_asks_first_and_at_any_time() {
    let backend = backend_with("a", ADA);
    let source = Source::new("a");
    let store = source.store(&backend);
    for (keys, first) in [("ba", 'b'), ("cba", 'c'), ("bca", 'b')] {
        source.set(keys);
        assert_eq!(rotation_of(&store), (1, 0), "{keys}");
        assert_eq!(store.key_usage().unwrap().into_keys().collect::<Vec<_>>(), [key_id(first)]);
    }
    assert_eq!(source.asked(), 4);
    // A question because of a missing key is still possible at once.
    save(&store_with("db", &backend), BOB);
    source.set("bd");
    assert_eq!((find(&store, "user_name=bob"), source.asked()), (hit("a-bob"), 5));
    source.set("");
    assert_eq!(store.rekey(|_| Ok(())).unwrap_err().code(), Code::InvalidKey, "the old keys may be the wrong ones");
    assert_eq!(rotation_of(&store_with("bd", &backend)), (1, 0), "nothing was changed");
}

#[test]
fn a_rotation_waits_for_the_answer_of_another_thread_and_asks_again() {
    let backend = backend_with("a", ADA);
    let (asked, letters) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new("b")));
    let (counter, answer) = (Arc::clone(&asked), Arc::clone(&letters));
    let source = move || {
        let keys = ring(*answer.lock().unwrap());
        if counter.fetch_add(1, Ordering::SeqCst) == 1 {
            // The keys change after they were read, and before they are returned.
            *answer.lock().unwrap() = "cba";
            thread::sleep(Duration::from_millis(100));
        }
        Ok(keys)
    };
    let store = Store::new(shared(&backend), TIMEOUT).with_keys(StoreKeys::supplied(Arc::new(source)).unwrap());
    *letters.lock().unwrap() = "ba";
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(find(&store, "user_name=ada"), hit("a-ada")));
        while asked.load(Ordering::SeqCst) < 2 {
            thread::yield_now();
        }
        assert_eq!(rotation_of(&store), (1, 0));
    });
    assert_eq!(store.key_usage().unwrap().into_keys().collect::<Vec<_>>(), [key_id('c')]);
}

#[test]
fn a_source_that_fails_later_changes_nothing() {
    let source = Source::new("b");
    let store = source.store(&backend_with("a", ADA));
    source.set("");
    assert_eq!(find(&store, "user_name=ada"), Err(Code::UnknownKey));
    assert_eq!(find(&store, "user_name=eve"), Ok(None));
    assert_eq!(source.asked(), 2);
}

#[test]
fn a_caller_that_may_not_wait_does_not_ask() {
    let source = Source::new("b");
    let store = source.store(&backend_with("a", ADA));
    source.set("ba");
    let find_now = || store.find(token("user_name=ada"), Wait::No);
    assert!(find_now().is_err_and(|error| error.is_busy()));
    assert_eq!(source.asked(), 1);
    assert_eq!(find(&store, "user_name=ada"), hit("a-ada"));
    assert!(find_now().is_ok_and(|found| found.is_some()));
}

#[test]
fn threads_that_miss_the_same_key_wait_for_one_answer() {
    let backend = backend_with("a", ADA);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let source = move || {
        if counter.fetch_add(1, Ordering::SeqCst) == 0 {
            return Ok(ring("b"));
        }
        thread::sleep(Duration::from_millis(100));
        Ok(ring("ba"))
    };
    let store = Store::new(shared(&backend), TIMEOUT).with_keys(StoreKeys::supplied(Arc::new(source)).unwrap());
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(find(&store, "user_name=ada"), hit("a-ada")));
        }
    });
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn a_source_may_use_the_store_itself() {
    let backend = backend_with("a", ADA);
    save(&store_with("ba", &backend), BOB);
    let store: Arc<OnceLock<Store>> = Arc::default();
    let itself = Arc::clone(&store);
    let source = move || {
        let Some(store) = itself.get() else { return Ok(ring("b")) };
        assert_eq!(find(store, "user_name=bob"), hit("a-bob"));
        assert_eq!(find(store, "user_name=ada"), Err(Code::UnknownKey), "it does not ask itself");
        assert_eq!(rotation_of(store), (0, 1), "not even before a rotation");
        Ok(ring("ba"))
    };
    let keys = StoreKeys::supplied(Arc::new(source)).unwrap();
    assert!(store.set(Store::new(shared(&backend), TIMEOUT).with_keys(keys)).is_ok());
    let start = Instant::now();
    assert_eq!(find(store.get().unwrap(), "user_name=ada"), hit("a-ada"));
    assert!(start.elapsed() < TIMEOUT / 2, "it does not wait for its own answer");
}

#[test]
fn each_new_key_is_another_one() {
    let keys = [new_key().unwrap(), new_key().unwrap()];
    let ring = parse_keys(keys.iter().map(|key| GivenKey::Text(key))).unwrap();
    assert_eq!(ring.names().count(), 2);
}

#[test]
fn what_may_be_a_key() {
    let key = &*key_text(&[7; 32]);
    let table = [
        (key.to_owned(), true),
        (key.to_uppercase(), true),
        (format!("/home/ada/{key}"), true),
        (format!("{key},PLAINTEXT"), true),
        (format!("\u{feff}{key}\n"), true),
        (key[..40].to_owned(), true),
        (key[..26].to_owned(), true),
        (key[..25].to_owned(), false),
        (key[1..].to_owned(), false),
        ("/etc/zoho/ztsk1_production.key".to_owned(), false),
        ("ztsk1_".to_owned(), false),
        ("ztsk1".to_owned(), false),
        (String::new(), false),
    ];
    for (text, expected) in table {
        assert_eq!(resembles_key(&text), expected, "{text:?}");
    }
}

#[test]
fn a_list_of_keys_names_the_position_of_what_is_no_key() {
    let good = key_text(&[7; 32]);
    let parse = |given: &[GivenKey<'_>]| parse_keys(given.iter().copied());
    let ring = parse(&[GivenKey::Text(&good), GivenKey::ClearText, GivenKey::Text(&format!("{}\n", *good))]).unwrap();
    assert_eq!(ring.names().count(), 2, "a key that is there twice counts once");
    let passphrase = "correct horse battery staple";
    let marked = format!("\u{feff}{}", *good);
    for (bad, reason) in [
        (passphrase, "passphrase"),
        (&good[..40], "cut short"),
        ("", "empty"),
        (&marked, "byte order mark"),
        ("# made up", "no comments"),
    ] {
        let error = parse(&[GivenKey::Text(&good), GivenKey::Text(bad)]).err().unwrap();
        assert_eq!(error.code(), Code::InvalidKey);
        let message = error.to_string();
        assert!(message.starts_with("key number 2 cannot be used: ") && message.contains(reason), "{message}");
        assert!(bad.is_empty() || !message.contains(bad), "{message}");
    }
    assert!(parse(&[]).err().unwrap().to_string().starts_with("there is no key"));
}
