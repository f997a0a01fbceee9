//! Rotation of keys, on every backend.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use zoho_token_store::backends::list::List;
use zoho_token_store::domain::key_ring::PLAINTEXT;
use zoho_token_store::domain::{Field, Key, Row};
use zoho_token_store::store::backend::{Backend, Change, Durability, Location, Reading};
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::error::Code;
use zoho_token_store::store::rekey::Rekeyed;
use zoho_token_store::store::{Error, Result, Store};

use super::common::cells::UNRELIABLE;
use super::common::keyed::{key_id, store_with};
use super::common::{NOW, lines, token};
use super::{ADA, BOB, change, find, hit, names, rounds_of_a_rollout, save, sorted, stored};

/// A list in which a rotation happens right after the first lookup by a tag.
struct RotatedMeanwhile {
    list: Arc<dyn Backend>,
    is_next: AtomicBool,
}

impl Backend for RotatedMeanwhile {
    fn location(&self) -> &Location {
        self.list.location()
    }

    fn answers_at_once(&self) -> bool {
        true
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        let found = self.list.by_key(key, value, deadline);
        if self.is_next.swap(false, Ordering::SeqCst) {
            assert_eq!(rekey(&store_with("ba", &self.list)).rewritten, 1);
        }
        found
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        self.list.read(deadline, work)
    }

    fn write(&self, deadline: Deadline, durability: Durability, work: &mut Change<'_>) -> Result<()> {
        self.list.write(deadline, durability, work)
    }
}

#[test]
fn a_row_that_moves_between_two_lookups_is_found() {
    let list: Arc<dyn Backend> = Arc::new(List::new());
    save(&store_with("a", &list), ADA);
    let backend: Arc<dyn Backend> = Arc::new(RotatedMeanwhile { list, is_next: AtomicBool::new(true) });
    // The lookup under "b" comes first, and finds nothing yet. The one under "a" comes too late.
    assert_eq!(find(&store_with("ba", &backend), "refresh_token=r-ada"), hit("a-ada"));
}

/// The values of the row with this number.
fn values(number: usize) -> String {
    format!(
        "id={number} user_name=u{number} client_id=c client_secret=made-up-secret refresh_token=r{number} access_token=a{number}"
    )
}

/// Saves this many rows under the first of the keys. Their order and their times are not those of their ids.
pub(super) fn fill(backend: &Arc<dyn Backend>, keys: &str, count: usize) {
    let row = |number: usize| {
        let order = i64::try_from(1_000 - number).unwrap();
        Row::new(token(&values(number)), order, (!number.is_multiple_of(3)).then_some(NOW - order))
    };
    let rows: Vec<Row> = (1..=count).map(row).collect();
    store_with(keys, backend).restore(&rows, 7_000).unwrap();
}

/// What the error of a rotation says about the data once rows were rewritten.
const PARTIAL: &str = "Rows may have been rewritten, and none is lost. Run rekey again to do the rest.";

/// A list that cannot be scrubbed, because another program reads it all the time.
struct ReadAllTheTime(List);

impl Backend for ReadAllTheTime {
    fn location(&self) -> &Location {
        self.0.location()
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        self.0.by_key(key, value, deadline)
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        self.0.read(deadline, work)
    }

    fn write(&self, deadline: Deadline, durability: Durability, work: &mut Change<'_>) -> Result<()> {
        self.0.write(deadline, durability, work)
    }

    fn scrub(&self, _: Deadline) -> Result<()> {
        Err(Error::new(Code::DiskFull, self.location()))
    }
}

#[test]
fn a_rotation_that_fails_at_its_end_does_not_say_that_nothing_was_changed() {
    let backend: Arc<dyn Backend> = Arc::new(ReadAllTheTime(List::new()));
    save(&store_with("p", &backend), ADA);
    for _ in 0..2 {
        let error = store_with("ap", &backend).rekey(|_| Ok(())).unwrap_err();
        assert!(error.code() == Code::DiskFull && error.to_string().contains(PARTIAL), "{error}");
        assert!(!error.to_string().contains("Nothing"), "{error}");
        // It is not known any more what the rows were, but that the file has to be scrubbed.
        assert_eq!(names(&backend), sorted(vec![key_id('a'), PLAINTEXT.to_owned()]));
    }
}

#[test]
fn a_rotation_that_fails_at_its_begin_has_changed_nothing() {
    let backend: Arc<dyn Backend> = Arc::new(List::new());
    let store = store_with("ba", &backend);
    store.close();
    let error = store.rekey(|_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("Nothing was changed"), "{error}");
}

fn rekey(store: &Store) -> Rekeyed {
    store.rekey(|_| Ok(())).unwrap()
}

/// Id, order and time of each row.
pub(super) fn positions(backend: &Arc<dyn Backend>) -> Vec<(String, i64, Option<i64>)> {
    stored(backend).iter().map(|row| (row.id().to_owned(), row.saved_order, row.saved_at)).collect()
}

fn usage(store: &Store) -> BTreeMap<String, usize> {
    store.key_usage().unwrap()
}

pub(super) fn a_rotation_keeps_ids_order_and_times(backend: &Arc<dyn Backend>) {
    fill(backend, "a", 120);
    let before = (positions(backend), lines(&store_with("a", backend).all().unwrap()));
    let store = store_with("ba", backend);
    assert_eq!(usage(&store), BTreeMap::from([(key_id('a'), 120)]));
    let mut pauses = Vec::new();
    let done = store.rekey(|batch| {
        pauses.push(batch);
        Ok(())
    });
    assert_eq!(done.unwrap(), Rekeyed { rewritten: 120, left: 0 });
    assert!(pauses.len() == 3 && pauses.iter().all(|pause| *pause > Duration::ZERO), "50 rows at a time");
    assert_eq!(usage(&store), BTreeMap::from([(key_id('b'), 120)]));
    assert_eq!(names(backend), [key_id('b')]);
    let store = store_with("b", backend);
    assert!((positions(backend), lines(&store.all().unwrap())) == before);
    assert_eq!(rekey(&store), Rekeyed::default());
    assert_eq!(find(&store, "refresh_token=r77"), hit("a77"));
    // The next save is the last one, and gets the next id.
    save(&store, "user_name=u1 client_id=d refresh_token=new access_token=a9");
    assert_eq!(find(&store, "user_name=u1"), hit("a9"));
    assert_eq!(stored(backend)[120].id(), "7001");
}

pub(super) fn a_rotation_seals_rows_in_clear_text_and_opens_them_again(backend: &Arc<dyn Backend>) {
    fill(backend, "p", 60);
    let before = (positions(backend), lines(&stored(backend)));
    assert_eq!(rekey(&store_with("ap", backend)), Rekeyed { rewritten: 60, left: 0 });
    assert_eq!(names(backend), [key_id('a')]);
    assert_eq!(store_with("a", backend).count().unwrap(), 60);
    assert!(stored(backend).iter().all(|row| row.get(Field::ClientSecret).unwrap().starts_with("zts1.")));
    let plain = store_with("p", backend);
    assert_eq!(find(&plain, "user_name=u7"), Err(Code::UnknownKey));
    assert_eq!(rekey(&plain), Rekeyed { rewritten: 0, left: 60 });
    assert_eq!(names(backend), [key_id('a')], "rows in clear text are still refused");
    assert_eq!(rekey(&store_with("pa", backend)), Rekeyed { rewritten: 60, left: 0 });
    assert_eq!(names(backend), [""; 0]);
    assert!((positions(backend), lines(&stored(backend))) == before);
    assert_eq!(find(&store_with("p", backend), "refresh_token=r7"), hit("a7"));
}

pub(super) fn a_rotation_goes_on_after_an_interruption(backend: &Arc<dyn Backend>) {
    fill(backend, "a", 70);
    let store = store_with("ba", backend);
    let interrupted: Result<Rekeyed> = store.rekey(|_| Err(Error::invalid_argument("injected")));
    assert!(interrupted.unwrap_err().to_string().contains(PARTIAL));
    assert_eq!(usage(&store), BTreeMap::from([(key_id('a'), 20), (key_id('b'), 50)]));
    assert_eq!(names(backend), sorted(vec![key_id('a'), key_id('b')]));
    for keys in ["ab", "ba"] {
        let store = store_with(keys, backend);
        for number in [1, 35, 70] {
            assert_eq!(find(&store, &format!("refresh_token=r{number}")), hit(&format!("a{number}")), "{keys}");
        }
    }
    assert_eq!(find(&store_with("b", backend), "refresh_token=none"), Err(Code::UnknownKey));
    assert_eq!(rekey(&store), Rekeyed { rewritten: 20, left: 0 });
    assert_eq!(names(backend), [key_id('b')]);
    assert_eq!(find(&store_with("b", backend), "refresh_token=none"), Ok(None));
}

pub(super) fn a_rotation_leaves_what_it_cannot_read(backend: &Arc<dyn Backend>) {
    save(&store_with("p", backend), "user_name=p refresh_token=p");
    save(&store_with("ap", backend), ADA);
    save(&store_with("cap", backend), "user_name=c refresh_token=c");
    save(&store_with("acp", backend), BOB);
    change(backend, |rows| {
        let row = rows.by_key(Key::Id, "4")?.remove(0);
        rows.rewrite(&row, row.token().with(Field::UserName, Some("mallory")))
    });
    let before = stored(backend);
    let store = store_with("ba", backend);
    assert_eq!(rekey(&store), Rekeyed { rewritten: 1, left: 3 });
    let after = stored(backend);
    for (number, (before, after)) in before.iter().zip(&after).enumerate() {
        assert_eq!(before.token() == after.token(), number != 1, "row {}", number + 1);
    }
    assert_eq!(names(backend), sorted(vec![key_id('a'), key_id('b'), key_id('c'), PLAINTEXT.to_owned()]));
    assert_eq!(find(&store, "user_name=ada"), hit("a-ada"));
}

pub(super) fn a_rotation_counts_altered_rows_under_the_first_key(backend: &Arc<dyn Backend>) {
    fill(backend, "b", 3);
    change(backend, |rows| {
        let row = rows.by_key(Key::Id, "2")?.remove(0);
        rows.rewrite(&row, row.token().with(Field::UserName, Some("mallory")))
    });
    assert_eq!(rekey(&store_with("ba", backend)), Rekeyed { rewritten: 0, left: 1 });
}

pub(super) fn a_rotation_goes_on_while_other_programs_work(backend: &Arc<dyn Backend>) {
    const ROWS: usize = 60;
    fill(backend, "a", ROWS);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for (keys, number) in [("ab", 11), ("ba", 55)] {
            let is_over = &is_over;
            scope.spawn(move || {
                let store = store_with(keys, backend);
                for round in 0.. {
                    let access = format!("{keys}-{round}");
                    save(&store, &format!("user_name=u{number} client_id=c access_token={access}"));
                    assert_eq!(find(&store, &format!("refresh_token=r{number}")), hit(&access), "its own row");
                    let other = 1 + round % 10;
                    assert_eq!(find(&store, &format!("refresh_token=r{other}")), hit(&format!("a{other}")));
                    assert_eq!(find(&store, &format!("user_name=u{other}")), hit(&format!("a{other}")));
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    // Without a pause, saves into a cell in memory keep out a batch, which takes longer than they do.
                    thread::sleep(Duration::from_millis(30));
                }
            });
        }
        let two_at_once: Vec<_> = (0..2).map(|_| scope.spawn(|| store_with("ba", backend).rekey(|_| Ok(())))).collect();
        let results: Vec<_> = two_at_once.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::SeqCst);
        let rewritten: usize = results.into_iter().map(|result| result.unwrap().unwrap().rewritten).sum();
        // Who has rewritten a row is not known for sure on a network that loses answers.
        let is_unreliable = backend.location().to_string() == UNRELIABLE.to_string();
        assert!(is_unreliable || rewritten >= ROWS - 1, "{rewritten}");
    });
    let store = store_with("ba", backend);
    assert_eq!(rekey(&store).left, 0);
    assert_eq!((store.count().unwrap(), names(backend)), (ROWS, vec![key_id('b')]));
}

pub(super) fn no_program_of_a_rollout_misses_a_row(backend: &Arc<dyn Backend>) {
    save(&store_with("a", backend), ADA);
    thread::scope(|scope| {
        for keys in ["a", "ab", "ba", "b"] {
            scope.spawn(move || {
                rounds_of_a_rollout(&store_with(keys, backend), keys, 12);
            });
        }
    });
    assert_eq!(store_with("ab", backend).count().unwrap(), 1);
}

pub(super) fn forgetting_a_key_deletes_exactly_its_rows(backend: &Arc<dyn Backend>) {
    save(&store_with("p", backend), "user_name=p refresh_token=p access_token=p");
    save(&store_with("ap", backend), ADA);
    save(&store_with("bap", backend), "user_name=eve refresh_token=r-eve access_token=a-eve");
    save(&store_with("abp", backend), BOB);
    let kept = [0, 2].map(|index| lines(&stored(backend)[index..=index]));
    let store = store_with("bp", backend);
    assert_eq!(find(&store, "refresh_token=r-ada"), Err(Code::UnknownKey));
    for other in [PLAINTEXT, "made-up", &key_id('c'), ""] {
        assert_eq!(store.forget_key(other).unwrap(), 0, "{other}");
    }
    assert_eq!(store.forget_key(&key_id('a')).unwrap(), 2);
    assert_eq!(lines(&stored(backend)), kept.concat());
    assert_eq!(names(backend), sorted(vec![key_id('b'), PLAINTEXT.to_owned()]));
    assert_eq!(find(&store, "refresh_token=r-ada"), Ok(None), "this is certain now");
    assert_eq!(find(&store, "refresh_token=r-eve"), hit("a-eve"));
    assert_eq!(store.forget_key(&key_id('a')).unwrap(), 0);
    assert_eq!(store.forget_key(&key_id('b')).unwrap(), 1);
    assert_eq!(names(backend), [""; 0], "the rest is in clear text");
    assert_eq!(find(&store_with("p", backend), "refresh_token=p"), hit("p"));
}
