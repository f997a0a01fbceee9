//! The refresh lease over every backend, without Python (docs/lease.md, rules 1, 4 to 6, 9 to 11, 13).
//!
//! Who may refresh and how long another waits is the domain's, with its own truth tables; here it is seen that every
//! backend keeps leases, and that no trouble with them is anybody's trouble but theirs.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use zoho_token_store::domain::lease::{Asker, Lease};
use zoho_token_store::domain::{Field, Key, Row, Token};
use zoho_token_store::store::held::{Turn, asker};
use zoho_token_store::store::lease::{Advice, Asked};
use zoho_token_store::store::list::List;
use zoho_token_store::store::wait::Deadline;
use zoho_token_store::store::{Backend, Change, Error, Place, Result, Rows, Store};

const NOW: i64 = 1_795_300_000_000;
const LENGTH: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);

fn token(values: &str) -> Token<'_> {
    Token::from_fn(|field| values.split(' ').find_map(|value| value.strip_prefix(field.name())?.strip_prefix('=')))
}

const EXPIRED: &str = "user_name=ada client_id=c refresh_token=r access_token=old expiry_time=1";
const FRESH: &str = "user_name=ada client_id=c refresh_token=r access_token=new expiry_time=1795303600000";

/// Another process, or a thread of this one.
fn another(number: u64) -> Asker {
    Asker::new("0-another", number, 0, true)
}

fn me() -> Asker {
    asker(0, true).unwrap()
}

/// What somebody was told, in a word, and for what.
fn told(advice: &Advice) -> String {
    match advice {
        Advice::Serve => "serve".to_owned(),
        Advice::Refresh(turn) => format!("refresh {}", turn.key.as_str()),
        Advice::Wait(key, _) => format!("wait {}", key.as_str()),
        Advice::Busy => "busy".to_owned(),
        Advice::NoLease(_) => "no lease".to_owned(),
    }
}

fn consult_at(store: &Store, asked: Asked<'_>, who: &Asker, call: usize, now: i64) -> Advice {
    store.consult(asked, who, call, &|| now, PATIENCE).unwrap().advice
}

fn consult(store: &Store, who: &Asker) -> Advice {
    consult_at(store, Asked::For(token("refresh_token=r client_id=c")), who, 1, NOW)
}

fn turn(advice: Advice) -> Turn {
    match advice {
        Advice::Refresh(turn) => turn,
        other => panic!("{}", told(&other)),
    }
}

/// A store of every kind, with one expired row whose id is 1; in a process of its own, as far as leases can tell.
fn each_kind(test: impl Fn(&Store, &str)) {
    let expired = |backend: Box<dyn Backend>| {
        let store = Store::new(backend, PATIENCE).with_refresh_lease(LENGTH);
        assert_eq!(store.save(token(EXPIRED), NOW).unwrap(), "1");
        store
    };
    test(&expired(Box::new(List::new())), "list");
    #[cfg(feature = "sqlite")]
    {
        use zoho_token_store::store::sqlite::{Journal, Memory, Sqlite};

        test(&expired(Box::new(Memory::new().unwrap())), "memory");
        for journal in [Journal::Wal, Journal::Rollback] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("tokens.db");
            let sqlite = Sqlite::with_journal(&path, journal, Deadline::after(PATIENCE)).unwrap();
            test(&expired(Box::new(sqlite)), "file");
        }
    }
}

#[test]
fn one_refreshes_and_the_others_wait_until_it_has_saved() {
    each_kind(|store, kind| {
        let others: Vec<Asker> = (1..4).map(|task| asker(task, true).unwrap()).collect();
        assert_eq!(told(&consult(store, &me())), "refresh id:1", "{kind}");
        for other in &others {
            assert_eq!(told(&consult(store, other)), "wait id:1", "{kind}");
            let by_id = consult_at(store, Asked::Id(Some("1")), other, 1, NOW);
            assert_eq!(told(&by_id), "wait id:1", "{kind}: by id");
        }
        let (id, given) = store.save_and_give_back(token(FRESH), NOW, me().owner(), None).unwrap();
        assert_eq!((id.as_str(), given.len(), store.holds_leases()), ("1", 1, false), "{kind}");
        for other in &others {
            assert_eq!(told(&consult(store, other)), "serve", "{kind}");
        }
        assert_eq!(store.lease_counters().taken, 1, "{kind}");
    });
}

#[test]
fn what_was_found_is_handed_out_with_the_advice() {
    each_kind(|store, kind| {
        let look = |who| store.consult(Asked::Id(Some("1")), &who, 1, &|| NOW, PATIENCE).unwrap();
        let access = |who| look(who).found.map(|found| found.row().get(Field::AccessToken).map(str::to_owned));
        assert_eq!(access(me()), Some(Some("old".to_owned())), "{kind}");
        store.save(token(FRESH), NOW).unwrap();
        assert_eq!(access(another(1)), Some(Some("new".to_owned())), "{kind}");
        store.delete(Some("1")).unwrap();
        let gone = look(asker(1, true).unwrap());
        assert_eq!((told(&gone.advice), gone.found.is_none()), ("serve".to_owned(), true), "{kind}");
    });
}

#[test]
fn credentials_without_a_row_have_a_lease_too() {
    each_kind(|store, kind| {
        let [one, other] = [asker(1, true).unwrap(), asker(2, true).unwrap()];
        for (values, field) in
            [("client_id=c refresh_token=new", "refresh_token"), ("client_id=c grant_token=code", "grant_token")]
        {
            let asked = Asked::For(token(values));
            let first = turn(consult_at(store, asked, &one, 1, NOW));
            assert!(first.key.as_str().starts_with(field) && !first.key.as_str().contains("code"), "{kind}");
            let second = told(&consult_at(store, asked, &other, 1, NOW));
            assert_eq!(second, format!("wait {}", first.key.as_str()), "{kind}");
            // The row's id and user are known only when it is saved: the lease ends all the same.
            let saved = format!("{values} user_name={field} access_token=a expiry_time=1795303600000");
            store.save_and_give_back(token(&saved), NOW, one.owner(), None).unwrap();
            assert_eq!(told(&consult_at(store, asked, &other, 1, NOW)), "serve", "{kind}");
        }
    });
}

#[test]
fn a_turn_is_given_back_once_and_by_its_last_call_only() {
    each_kind(|store, kind| {
        let other = asker(1, true).unwrap();
        let first = turn(consult(store, &me()));
        assert!(first.is_new, "{kind}");
        // The owner comes again, from another call: the earlier one's end means nothing any more.
        let again = turn(consult(store, &me()));
        assert!(!again.is_new, "{kind}");
        assert!(!store.give_back(&first), "{kind}");
        assert_eq!(told(&consult(store, &other)), "wait id:1", "{kind}");
        assert!(store.give_back(&again), "{kind}");
        assert!(!store.give_back(&again), "{kind}");
        assert_eq!(told(&consult(store, &other)), "refresh id:1", "{kind}");
    });
}

#[test]
fn coming_again_does_not_extend_a_lease() {
    each_kind(|store, kind| {
        let other = asker(1, true).unwrap();
        let end = NOW + 10_000;
        let asked = Asked::Id(Some("1"));
        assert!(turn(consult_at(store, asked, &me(), 1, NOW)).is_new, "{kind}");
        assert!(!turn(consult_at(store, asked, &me(), 1, end - 1)).is_new, "{kind}");
        assert_eq!(told(&consult_at(store, asked, &other, 1, end - 1)), "wait id:1", "{kind}");
        assert_eq!(told(&consult_at(store, asked, &other, 1, end)), "refresh id:1", "{kind}");
        // Whose it was before waits like anybody, and what it gives back is not theirs.
        assert_eq!(told(&consult_at(store, asked, &me(), 1, end)), "wait id:1", "{kind}");
        store.save_and_give_back(token(FRESH), NOW, me().owner(), None).unwrap();
        store.save(token(EXPIRED), NOW).unwrap();
        assert_eq!(told(&consult_at(store, asked, &me(), 1, end)), "wait id:1", "{kind}");
    });
}

#[test]
fn a_new_decision_gives_back_what_ended_calls_have_left() {
    each_kind(|store, kind| {
        let bob = "user_name=bob client_id=c refresh_token=rb access_token=old expiry_time=1";
        assert_eq!(store.save(token(bob), NOW).unwrap(), "2");
        let other = asker(1, true).unwrap();
        let look = |id, who: &Asker, call| consult_at(store, Asked::Id(Some(id)), who, call, NOW);
        let (outer, inner) = (7, 8);
        look("1", &me(), outer);
        let second = turn(look("2", &me(), inner));
        // The first call is still running, further out on the stack.
        assert!(store.give_back_ended(me().owner(), &second.key, |call| call != outer).is_empty(), "{kind}");
        assert_eq!(told(&look("1", &other, 1)), "wait id:1", "{kind}");
        // It is not.
        assert_eq!(store.give_back_ended(me().owner(), &second.key, |_| true).len(), 1, "{kind}");
        assert_eq!(told(&look("1", &other, 1)), "refresh id:1", "{kind}");
        assert_eq!(told(&look("2", &other, 1)), "wait id:2", "{kind}: what is asked for is kept");
    });
}

#[test]
fn coming_again_is_another_call() {
    each_kind(|store, kind| {
        let bob = "user_name=bob client_id=c refresh_token=rb access_token=old expiry_time=1";
        assert_eq!(store.save(token(bob), NOW).unwrap(), "2");
        let look = |id, call| turn(consult_at(store, Asked::Id(Some(id)), &me(), call, NOW));
        look("1", 7);
        look("1", 8);
        let other = look("2", 9);
        assert!(store.give_back_ended(me().owner(), &other.key, |call| call == 7).is_empty(), "{kind}");
        assert_eq!(store.give_back_ended(me().owner(), &other.key, |call| call == 8).len(), 1, "{kind}");
        // A save within a call ends that one's lease alone.
        let saved = store.save_and_give_back(token(FRESH), NOW, me().owner(), Some(8)).unwrap();
        assert_eq!((saved.1.len(), store.holds_leases()), (0, true), "{kind}");
    });
}

#[test]
fn another_threads_lease_is_not_this_ones_to_give_back() {
    each_kind(|store, kind| {
        let other = asker(1, true).unwrap();
        let bob = "user_name=bob client_id=c refresh_token=rb access_token=old expiry_time=1";
        assert_eq!(store.save(token(bob), NOW).unwrap(), "2");
        turn(consult(store, &other));
        let mine = turn(consult_at(store, Asked::Id(Some("2")), &me(), 1, NOW));
        assert!(store.give_back_ended(me().owner(), &mine.key, |_| true).is_empty(), "{kind}");
        store.save_and_give_back(token("id=2 access_token=new"), NOW, me().owner(), None).unwrap();
        assert_eq!(told(&consult(store, &asker(2, true).unwrap())), "wait id:1", "{kind}");
    });
}

#[test]
fn saving_what_was_found_gives_nothing_back() {
    each_kind(|store, kind| {
        turn(consult(store, &me()));
        let (_, given) = store.save_and_give_back(token(EXPIRED), NOW, me().owner(), None).unwrap();
        assert!(given.is_empty() && store.holds_leases(), "{kind}");
        assert_eq!(told(&consult(store, &asker(1, true).unwrap())), "wait id:1", "{kind}");
    });
}

#[test]
fn a_store_that_is_closed_keeps_nobody_waiting() {
    each_kind(|store, kind| {
        turn(consult(store, &me()));
        assert_eq!(store.give_back_all().len(), 1, "{kind}");
        assert_eq!(told(&consult(store, &asker(1, true).unwrap())), "refresh id:1", "{kind}");
        store.close();
        assert!(!store.holds_leases(), "{kind}");
        let closed = store.consult(Asked::Id(Some("1")), &me(), 1, &|| NOW, PATIENCE);
        assert!(matches!(closed, Err(Error::Closed(_))), "{kind}");
    });
}

#[test]
fn a_lease_in_memory_ends_with_the_process_that_took_it() {
    each_kind(|store, kind| {
        // A forked child has its parent's memory, and in it the parent's leases; the parent cannot give them back there.
        turn(consult(store, &another(1)));
        let expected = if kind == "file" { "wait id:1" } else { "refresh id:1" };
        assert_eq!(told(&consult(store, &me())), expected, "{kind}");
    });
}

#[test]
fn a_save_that_fails_keeps_the_lease() {
    each_kind(|store, kind| {
        let held = turn(consult(store, &me()));
        assert!(store.save_and_give_back(token("client_id=nothing"), NOW, me().owner(), None).is_err(), "{kind}");
        assert_eq!(told(&consult(store, &asker(1, true).unwrap())), "wait id:1", "{kind}");
        assert!(store.give_back(&held), "{kind}");
    });
}

#[test]
fn of_many_at_once_one_gets_the_lease() {
    each_kind(|store, kind| {
        let refreshing: usize = thread::scope(|scope| {
            let ask =
                |task| move || usize::from(matches!(consult(store, &asker(task, true).unwrap()), Advice::Refresh(_)));
            let threads: Vec<_> = (0..8).map(|task| scope.spawn(ask(task))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(refreshing, 1, "{kind}");
    });
}

/// A list whose statements on leases fail as they are told to.
struct Faulty {
    list: List,
    read: Option<Error>,
    read_again: Option<Error>,
    take: Option<Error>,
    give_back: Option<Error>,
    /// How often a lease was read.
    reads: Arc<AtomicUsize>,
    /// From now on nothing fails.
    works: Arc<AtomicBool>,
}

impl Faulty {
    fn new() -> Self {
        Self {
            list: List::new(),
            read: None,
            read_again: None,
            take: None,
            give_back: None,
            reads: Arc::default(),
            works: Arc::default(),
        }
    }
}

fn busy() -> Error {
    Error::Busy { place: Place::Memory, waited: Duration::ZERO }
}

fn refused() -> Error {
    Error::Refused { place: Place::Memory, what: "as ordered".to_owned(), cure: "none" }
}

impl Faulty {
    /// One of two errors, as another value each time: they are not to be cloned.
    fn fails(&self, with: Option<&Error>) -> Result<()> {
        match with.filter(|_| !self.works.load(Ordering::SeqCst)) {
            None => Ok(()),
            Some(error) if error.is_busy() => Err(busy()),
            Some(_) => Err(refused()),
        }
    }
}

struct FaultyRows<'a>(&'a dyn Rows, &'a Faulty);
struct FaultyChange<'a>(&'a mut dyn Change, &'a Faulty);

impl Rows for FaultyRows<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        self.0.by_key(key, value)
    }

    fn each(&self, visit: &mut dyn FnMut(Row)) -> Result<()> {
        self.0.each(visit)
    }

    fn count(&self) -> Result<usize> {
        self.0.count()
    }

    fn lease(&self, key: &str) -> Result<Option<Lease>> {
        self.1.fails(self.1.read.as_ref())?;
        self.1.reads.fetch_add(1, Ordering::SeqCst);
        self.0.lease(key)
    }
}

impl Rows for FaultyChange<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        self.0.by_key(key, value)
    }

    fn each(&self, visit: &mut dyn FnMut(Row)) -> Result<()> {
        self.0.each(visit)
    }

    fn count(&self) -> Result<usize> {
        self.0.count()
    }

    fn lease(&self, key: &str) -> Result<Option<Lease>> {
        self.1.fails(self.1.read_again.as_ref())?;
        self.1.reads.fetch_add(1, Ordering::SeqCst);
        self.0.lease(key)
    }
}

impl Change for FaultyChange<'_> {
    fn last_id(&self) -> Result<i64> {
        self.0.last_id()
    }

    fn raise_last_id(&mut self, number: i64) -> Result<()> {
        self.0.raise_last_id(number)
    }

    fn insert(&mut self, token: Token<'_>, now: i64) -> Result<()> {
        self.0.insert(token, now)
    }

    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()> {
        self.0.update(row, token, now)
    }

    fn copy(&mut self, row: &Row) -> Result<()> {
        self.0.copy(row)
    }

    fn delete(&mut self, id: &str) -> Result<bool> {
        self.0.delete(id)
    }

    fn delete_all(&mut self) -> Result<()> {
        self.0.delete_all()
    }

    fn take_lease(&mut self, key: &str, lease: &Lease) -> Result<()> {
        self.1.fails(self.1.take.as_ref())?;
        self.0.take_lease(key, lease)
    }

    fn give_back(&mut self, key: &str, owner: &str) -> Result<()> {
        self.1.fails(self.1.give_back.as_ref())?;
        self.0.give_back(key, owner)
    }
}

impl Backend for Faulty {
    fn place(&self) -> &Place {
        self.list.place()
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        self.list.by_key(key, value, deadline)
    }

    fn read(&self, deadline: Deadline, work: &mut dyn FnMut(&dyn Rows) -> Result<()>) -> Result<()> {
        self.list.read(deadline, &mut |rows| work(&FaultyRows(rows, self)))
    }

    fn write(&self, deadline: Deadline, work: &mut dyn FnMut(&mut dyn Change) -> Result<()>) -> Result<()> {
        self.list.write(deadline, &mut |change| work(&mut FaultyChange(change, self)))
    }

    fn backup(&self, target: &Path, deadline: Deadline) -> Result<()> {
        self.list.backup(target, deadline)
    }

    fn close(&self, deadline: Deadline) {
        self.list.close(deadline);
    }
}

#[test]
fn the_clock_is_read_after_the_lease() {
    // Read before, a lease taken meanwhile would seem to lie too far in the future to be in force.
    let faulty = Faulty::new();
    let reads = Arc::clone(&faulty.reads);
    let store = Store::new(Box::new(faulty), PATIENCE).with_refresh_lease(LENGTH);
    store.save(token(EXPIRED), NOW).unwrap();
    let seen = Mutex::new(Vec::new());
    let clock = || {
        seen.lock().push(reads.load(Ordering::SeqCst));
        NOW
    };
    turn(store.consult(Asked::Id(Some("1")), &me(), 1, &clock, PATIENCE).unwrap().advice);
    assert_eq!(*seen.lock(), [1, 2], "one look, and one more within the change");
}

#[test]
fn of_all_who_wait_in_a_process_one_at_a_time_looks_at_calls() {
    let store = Store::new(Box::new(List::new()), PATIENCE).with_refresh_lease(LENGTH);
    let begun = Instant::now();
    let looks = (0..1_000).filter(|_| store.calls().is_some()).count();
    let most = 1 + begun.elapsed().as_millis() / 20;
    assert!(looks >= 1 && looks as u128 <= most, "{looks} looks, where {most} are enough");
}

#[test]
fn a_look_at_calls_sees_each_and_what_comes_again_after_it_is_kept() {
    let store = Store::new(Box::new(List::new()), PATIENCE).with_refresh_lease(LENGTH);
    store.save(token(EXPIRED), NOW).unwrap();
    let at = |call| turn(store.consult(Asked::Id(Some("1")), &me(), call, &|| NOW, PATIENCE).unwrap().advice);
    // Nobody is refused for longer than some milliseconds.
    let look = || std::iter::repeat_with(|| store.calls()).flatten().next().unwrap();
    at(7);
    let held = look();
    let [(7, seen)] = held.as_slice() else { panic!("{held:?}") };
    at(8);
    assert!(!store.give_back(seen) && store.holds_leases(), "it is another call's by now");
    let held = look();
    let [(8, seen)] = held.as_slice() else { panic!("{held:?}") };
    assert!(store.give_back(seen) && !store.holds_leases());
}

#[test]
fn what_could_not_be_given_back_is_tried_again() {
    let faulty = Faulty { give_back: Some(busy()), ..Faulty::new() };
    let works = Arc::clone(&faulty.works);
    let store = Store::new(Box::new(faulty), PATIENCE).with_refresh_lease(LENGTH);
    store.save(token(EXPIRED), NOW).unwrap();
    let held = turn(consult(&store, &me()));
    assert!(!store.give_back(&held) && store.holds_leases());
    works.store(true, Ordering::SeqCst);
    assert_eq!(store.give_back_all().len(), 1);
    assert_eq!(told(&consult(&store, &another(1))), "refresh id:1");
}

#[test]
fn no_trouble_with_a_lease_is_trouble_for_a_find_or_a_save() {
    let advice = Cell::new("");
    let go_through = |faulty: Faulty| {
        let store = Store::new(Box::new(faulty), PATIENCE).with_refresh_lease(LENGTH);
        store.save(token(EXPIRED), NOW).unwrap();
        let look = store.consult(Asked::Id(Some("1")), &me(), 1, &|| NOW, Duration::ZERO).unwrap();
        assert_eq!(told(&look.advice), advice.get());
        assert_eq!(look.found.unwrap().row().get(Field::AccessToken), Some("old"));
        let (id, _) = store.save_and_give_back(token(FRESH), NOW, me().owner(), None).unwrap();
        assert_eq!(id, "1");
        assert_eq!(store.all().unwrap()[0].token().get(Field::AccessToken), Some("new"));
        store.give_back_all();
        store.close();
    };
    advice.set("no lease");
    go_through(Faulty { read: Some(refused()), ..Faulty::new() });
    go_through(Faulty { read_again: Some(refused()), ..Faulty::new() });
    go_through(Faulty { take: Some(refused()), ..Faulty::new() });
    advice.set("busy");
    go_through(Faulty { take: Some(busy()), ..Faulty::new() });
    advice.set("refresh id:1");
    go_through(Faulty { give_back: Some(refused()), ..Faulty::new() });
    go_through(Faulty { give_back: Some(busy()), ..Faulty::new() });
    go_through(Faulty::new());
}

#[cfg(feature = "sqlite")]
mod in_a_file {
    use rusqlite::Connection;
    use zoho_token_store::store::sqlite::Sqlite;

    use super::*;

    fn with_expired_row(path: &Path) -> Store {
        let sqlite = Sqlite::open(path, Deadline::after(PATIENCE)).unwrap();
        let store = Store::new(Box::new(sqlite), PATIENCE).with_refresh_lease(LENGTH);
        store.save(token(EXPIRED), NOW).unwrap();
        store
    }

    /// What another program does to the file, and what the one who asks first is told then.
    const MISDEEDS: [(&str, &str, &str); 8] = [
        ("drops the table", "DROP TABLE IF EXISTS zoho_token_lease", "refresh id:1"),
        ("empties it", "DELETE FROM zoho_token_lease", "refresh id:1"),
        (
            "has a view in its place",
            "DROP TABLE IF EXISTS zoho_token_lease; CREATE VIEW zoho_token_lease AS SELECT 1 AS one",
            "no lease",
        ),
        (
            "has another table in its place",
            "DROP TABLE IF EXISTS zoho_token_lease; CREATE TABLE zoho_token_lease (one)",
            "no lease",
        ),
        (
            "writes what is no lease",
            "DELETE FROM zoho_token_lease; INSERT INTO zoho_token_lease VALUES ('id:1', x'ff', 'soon')",
            "no lease",
        ),
        (
            "forbids to take one",
            "DELETE FROM zoho_token_lease; CREATE TRIGGER no BEFORE INSERT ON zoho_token_lease \
             BEGIN SELECT RAISE(ABORT, 'no'); END",
            "no lease",
        ),
        (
            "takes back the whole transaction that takes one",
            "DELETE FROM zoho_token_lease; CREATE TRIGGER no BEFORE INSERT ON zoho_token_lease \
             BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
            "no lease",
        ),
        (
            "takes back the whole transaction that gives one back",
            "DELETE FROM zoho_token_lease; CREATE TRIGGER no BEFORE DELETE ON zoho_token_lease \
             BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
            "refresh id:1",
        ),
    ];

    #[test]
    fn whatever_becomes_of_the_table_finds_and_saves_go_on() {
        for (misdeed, sql, advice) in MISDEEDS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("tokens.db");
            let store = with_expired_row(&path);
            // The table is there, and so are statements on it.
            let first = turn(consult(&store, &me()));
            assert!(store.give_back(&first), "{misdeed}");
            Connection::open(&path).unwrap().execute_batch(sql).unwrap();
            let look = store.consult(Asked::Id(Some("1")), &me(), 1, &|| NOW, PATIENCE).unwrap();
            assert_eq!(told(&look.advice), advice, "{misdeed}");
            assert_eq!(look.found.unwrap().row().get(Field::AccessToken), Some("old"), "{misdeed}");
            let (id, _) = store.save_and_give_back(token(FRESH), NOW, me().owner(), None).unwrap();
            assert_eq!(id, "1", "{misdeed}");
            assert_eq!(store.all().unwrap()[0].token().get(Field::AccessToken), Some("new"), "{misdeed}");
        }
    }

    #[test]
    fn what_another_has_taken_over_is_not_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let [one, other] = [with_expired_row(&path), with_expired_row(&path)];
        let look = |store: &Store, who: &Asker, now| consult_at(store, Asked::Id(Some("1")), who, 1, now);
        let first = turn(look(&one, &me(), NOW));
        // The first one's lease is over, and the second one's in its place.
        turn(look(&other, &another(1), NOW + 10_000));
        assert!(one.give_back(&first));
        assert_eq!(told(&look(&one, &another(2), NOW + 10_000)), "wait id:1");
    }

    #[test]
    fn what_nobody_gives_back_is_swept_away_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let store = with_expired_row(&path);
        let look = |values, now| turn(consult_at(&store, Asked::For(token(values)), &another(1), 1, now));
        look("client_id=c refresh_token=lost", NOW);
        let keys = || -> i64 {
            let connection = Connection::open(&path).unwrap();
            connection.query_row("SELECT count(*) FROM zoho_token_lease", [], |row| row.get(0)).unwrap()
        };
        look("client_id=c refresh_token=other", NOW + 1_000);
        assert_eq!(keys(), 2);
        look("client_id=c refresh_token=later", NOW + 2 * 86_400_000);
        assert_eq!(keys(), 1);
    }

    #[test]
    fn a_locked_file_is_read_without_a_lease() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let store = with_expired_row(&path);
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let look = store.consult(Asked::Id(Some("1")), &me(), 1, &|| NOW, Duration::from_millis(1)).unwrap();
        assert_eq!((told(&look.advice), look.found.is_some()), ("busy".to_owned(), true));
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(told(&consult(&store, &me())), "refresh id:1");
    }
}
