//! The refresh lease over every backend, without Python (docs/lease.md, rules 1, 4 to 6, 9 to 11, 13).
//!
//! Who may refresh and how long another waits is the domain's, with its own truth tables; here it is seen that every
//! backend keeps leases, and that no trouble with them is anybody's trouble but theirs.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::cell::Cell;
#[cfg(feature = "sqlite")]
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use zoho_token_store::backends::list::List;
use zoho_token_store::domain::lease::{Lease, Requester};
use zoho_token_store::domain::{Field, Key, Row, Token};
use zoho_token_store::store::backend::{Backend, Durability, Location, SeenLease, Snapshot, Transaction};
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::error::Code;
use zoho_token_store::store::held_leases::{Acquired, requester};
use zoho_token_store::store::lease::{Lookup, Outcome};
use zoho_token_store::store::{Error, Result, Store};

const NOW: i64 = 1_795_300_000_000;
const LENGTH: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(20);

fn token(values: &str) -> Token<'_> {
    Token::from_fn(|field| values.split(' ').find_map(|value| value.strip_prefix(field.name())?.strip_prefix('=')))
}

const EXPIRED: &str = "user_name=ada client_id=c refresh_token=r access_token=old expiry_time=1";
const FRESH: &str = "user_name=ada client_id=c refresh_token=r access_token=new expiry_time=1795303600000";

/// Another process, or a thread of this one.
fn another(number: u64) -> Requester {
    Requester::new("0-another", number, 0, true)
}

fn me() -> Requester {
    requester(0, true).unwrap()
}

/// What somebody was told, in a word, and for what.
fn told(advice: &Outcome) -> String {
    match advice {
        Outcome::Serve => "serve".to_owned(),
        Outcome::Refresh(turn) => format!("refresh {}", turn.key.as_str()),
        Outcome::Wait(key, _) => format!("wait {}", key.as_str()),
        Outcome::Busy => "busy".to_owned(),
        Outcome::NoLease(_) => "no lease".to_owned(),
    }
}

fn consult_at(store: &Store, asked: Lookup<'_>, who: &Requester, call: usize, now: i64) -> Outcome {
    store.try_acquire(asked, who, call, &|| now, TIMEOUT).unwrap().outcome
}

fn consult(store: &Store, who: &Requester) -> Outcome {
    consult_at(store, Lookup::Token(token("refresh_token=r client_id=c")), who, 1, NOW)
}

fn turn(outcome: Outcome) -> Acquired {
    match outcome {
        Outcome::Refresh(turn) => turn,
        other => panic!("{}", told(&other)),
    }
}

/// A store of every kind, with one expired row whose id is 1; in a process of its own, as far as leases can tell.
fn each_kind(test: impl Fn(&Store, &str)) {
    let expired = |backend: Box<dyn Backend>| {
        let store = Store::new(backend, TIMEOUT).with_refresh_lease(LENGTH);
        assert_eq!(store.save(token(EXPIRED), NOW).unwrap(), "1");
        store
    };
    test(&expired(Box::new(List::new())), "list");
    #[cfg(feature = "sqlite")]
    {
        use zoho_token_store::backends::sqlite::{Journal, Memory, Sqlite};

        test(&expired(Box::new(Memory::new().unwrap())), "memory");
        for journal in [Journal::Wal, Journal::Rollback] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("tokens.db");
            let sqlite = Sqlite::with_journal(&path, journal, Deadline::after(TIMEOUT)).unwrap();
            test(&expired(Box::new(sqlite)), "file");
        }
    }
}

#[test]
fn one_refreshes_and_the_others_wait_until_it_has_saved() {
    each_kind(|store, kind| {
        let others: Vec<Requester> = (1..4).map(|task| requester(task, true).unwrap()).collect();
        assert_eq!(told(&consult(store, &me())), "refresh id:1", "{kind}");
        for other in &others {
            assert_eq!(told(&consult(store, other)), "wait id:1", "{kind}");
            let by_id = consult_at(store, Lookup::Id(Some("1")), other, 1, NOW);
            assert_eq!(told(&by_id), "wait id:1", "{kind}: by id");
        }
        let (id, given) = store.save_and_release(token(FRESH), NOW, me().owner(), None).unwrap();
        assert_eq!((id.as_str(), given.len(), store.holds_leases()), ("1", 1, false), "{kind}");
        for other in &others {
            assert_eq!(told(&consult(store, other)), "serve", "{kind}");
        }
        assert_eq!(store.lease_counters().acquired, 1, "{kind}");
    });
}

#[test]
fn what_was_found_is_handed_out_with_the_advice() {
    each_kind(|store, kind| {
        let look = |who| store.try_acquire(Lookup::Id(Some("1")), &who, 1, &|| NOW, TIMEOUT).unwrap();
        let access = |who| look(who).found.map(|found| found.row().get(Field::AccessToken).map(str::to_owned));
        assert_eq!(access(me()), Some(Some("old".to_owned())), "{kind}");
        store.save(token(FRESH), NOW).unwrap();
        assert_eq!(access(another(1)), Some(Some("new".to_owned())), "{kind}");
        store.delete(Some("1")).unwrap();
        let gone = look(requester(1, true).unwrap());
        assert_eq!((told(&gone.outcome), gone.found.is_none()), ("serve".to_owned(), true), "{kind}");
    });
}

#[test]
fn credentials_without_a_row_have_a_lease_too() {
    each_kind(|store, kind| {
        let [one, other] = [requester(1, true).unwrap(), requester(2, true).unwrap()];
        for (values, field) in
            [("client_id=c refresh_token=new", "refresh_token"), ("client_id=c grant_token=code", "grant_token")]
        {
            let asked = Lookup::Token(token(values));
            let first = turn(consult_at(store, asked, &one, 1, NOW));
            assert!(first.key.as_str().starts_with(field) && !first.key.as_str().contains("code"), "{kind}");
            let second = told(&consult_at(store, asked, &other, 1, NOW));
            assert_eq!(second, format!("wait {}", first.key.as_str()), "{kind}");
            // The row's id and user are known only when it is saved: the lease ends all the same.
            let saved = format!("{values} user_name={field} access_token=a expiry_time=1795303600000");
            store.save_and_release(token(&saved), NOW, one.owner(), None).unwrap();
            assert_eq!(told(&consult_at(store, asked, &other, 1, NOW)), "serve", "{kind}");
        }
    });
}

#[test]
fn a_turn_is_given_back_once_and_by_its_last_call_only() {
    each_kind(|store, kind| {
        let other = requester(1, true).unwrap();
        let first = turn(consult(store, &me()));
        assert!(first.is_new, "{kind}");
        // The owner comes again, from another call: the earlier one's end means nothing any more.
        let again = turn(consult(store, &me()));
        assert!(!again.is_new, "{kind}");
        assert!(!store.release_lease(&first), "{kind}");
        assert_eq!(told(&consult(store, &other)), "wait id:1", "{kind}");
        assert!(store.release_lease(&again), "{kind}");
        assert!(!store.release_lease(&again), "{kind}");
        assert_eq!(told(&consult(store, &other)), "refresh id:1", "{kind}");
    });
}

#[test]
fn coming_again_does_not_extend_a_lease() {
    each_kind(|store, kind| {
        let other = requester(1, true).unwrap();
        let end = NOW + 10_000;
        let asked = Lookup::Id(Some("1"));
        assert!(turn(consult_at(store, asked, &me(), 1, NOW)).is_new, "{kind}");
        assert!(!turn(consult_at(store, asked, &me(), 1, end - 1)).is_new, "{kind}");
        assert_eq!(told(&consult_at(store, asked, &other, 1, end - 1)), "wait id:1", "{kind}");
        assert_eq!(told(&consult_at(store, asked, &other, 1, end)), "refresh id:1", "{kind}");
        // Whose it was before waits like anybody, and what it gives back is not theirs.
        assert_eq!(told(&consult_at(store, asked, &me(), 1, end)), "wait id:1", "{kind}");
        store.save_and_release(token(FRESH), NOW, me().owner(), None).unwrap();
        store.save(token(EXPIRED), NOW).unwrap();
        assert_eq!(told(&consult_at(store, asked, &me(), 1, end)), "wait id:1", "{kind}");
    });
}

#[test]
fn a_new_decision_gives_back_what_ended_calls_have_left() {
    each_kind(|store, kind| {
        let bob = "user_name=bob client_id=c refresh_token=rb access_token=old expiry_time=1";
        assert_eq!(store.save(token(bob), NOW).unwrap(), "2");
        let other = requester(1, true).unwrap();
        let look = |id, who: &Requester, call| consult_at(store, Lookup::Id(Some(id)), who, call, NOW);
        let (outer, inner) = (7, 8);
        look("1", &me(), outer);
        let second = turn(look("2", &me(), inner));
        // The first call is still running, further out on the stack.
        assert!(store.release_abandoned_leases(me().owner(), &second.key, |call| call != outer).is_empty(), "{kind}");
        assert_eq!(told(&look("1", &other, 1)), "wait id:1", "{kind}");
        // It is not.
        assert_eq!(store.release_abandoned_leases(me().owner(), &second.key, |_| true).len(), 1, "{kind}");
        assert_eq!(told(&look("1", &other, 1)), "refresh id:1", "{kind}");
        assert_eq!(told(&look("2", &other, 1)), "wait id:2", "{kind}: what is asked for is kept");
    });
}

#[test]
fn coming_again_is_another_call() {
    each_kind(|store, kind| {
        let bob = "user_name=bob client_id=c refresh_token=rb access_token=old expiry_time=1";
        assert_eq!(store.save(token(bob), NOW).unwrap(), "2");
        let look = |id, call| turn(consult_at(store, Lookup::Id(Some(id)), &me(), call, NOW));
        look("1", 7);
        look("1", 8);
        let other = look("2", 9);
        assert!(store.release_abandoned_leases(me().owner(), &other.key, |call| call == 7).is_empty(), "{kind}");
        assert_eq!(store.release_abandoned_leases(me().owner(), &other.key, |call| call == 8).len(), 1, "{kind}");
        // A save within a call ends that one's lease alone.
        let saved = store.save_and_release(token(FRESH), NOW, me().owner(), Some(8)).unwrap();
        assert_eq!((saved.1.len(), store.holds_leases()), (0, true), "{kind}");
    });
}

#[test]
fn another_threads_lease_is_not_this_ones_to_give_back() {
    each_kind(|store, kind| {
        let other = requester(1, true).unwrap();
        let bob = "user_name=bob client_id=c refresh_token=rb access_token=old expiry_time=1";
        assert_eq!(store.save(token(bob), NOW).unwrap(), "2");
        turn(consult(store, &other));
        let mine = turn(consult_at(store, Lookup::Id(Some("2")), &me(), 1, NOW));
        assert!(store.release_abandoned_leases(me().owner(), &mine.key, |_| true).is_empty(), "{kind}");
        store.save_and_release(token("id=2 access_token=new"), NOW, me().owner(), None).unwrap();
        assert_eq!(told(&consult(store, &requester(2, true).unwrap())), "wait id:1", "{kind}");
    });
}

#[test]
fn saving_what_was_found_gives_nothing_back() {
    each_kind(|store, kind| {
        turn(consult(store, &me()));
        let (_, given) = store.save_and_release(token(EXPIRED), NOW, me().owner(), None).unwrap();
        assert!(given.is_empty() && store.holds_leases(), "{kind}");
        assert_eq!(told(&consult(store, &requester(1, true).unwrap())), "wait id:1", "{kind}");
    });
}

#[test]
fn a_store_that_is_closed_keeps_nobody_waiting() {
    each_kind(|store, kind| {
        turn(consult(store, &me()));
        assert_eq!(store.release_all_leases().len(), 1, "{kind}");
        assert_eq!(told(&consult(store, &requester(1, true).unwrap())), "refresh id:1", "{kind}");
        store.close();
        assert!(!store.holds_leases(), "{kind}");
        let closed = store.try_acquire(Lookup::Id(Some("1")), &me(), 1, &|| NOW, TIMEOUT);
        assert_eq!(closed.err().unwrap().code(), Code::Closed, "{kind}");
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
        assert!(store.save_and_release(token("client_id=nothing"), NOW, me().owner(), None).is_err(), "{kind}");
        assert_eq!(told(&consult(store, &requester(1, true).unwrap())), "wait id:1", "{kind}");
        assert!(store.release_lease(&held), "{kind}");
    });
}

#[test]
fn of_many_at_once_one_gets_the_lease() {
    each_kind(|store, kind| {
        let refreshing: usize = thread::scope(|scope| {
            let ask = |task| {
                move || usize::from(matches!(consult(store, &requester(task, true).unwrap()), Outcome::Refresh(_)))
            };
            let threads: Vec<_> = (0..8).map(|task| scope.spawn(ask(task))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(refreshing, 1, "{kind}");
    });
}

/// A list whose operations on leases fail with the given errors.
#[derive(Default)]
struct Faulty {
    list: List,
    on_read: Option<Code>,
    on_read_in_transaction: Option<Code>,
    on_acquire: Option<Code>,
    on_release: Option<Code>,
    /// How often a lease was read.
    reads: Arc<AtomicUsize>,
    /// Set: nothing fails any more.
    works: Arc<AtomicBool>,
}

impl Faulty {
    fn fail(&self, code: Option<Code>) -> Result<()> {
        match code.filter(|_| !self.works.load(Ordering::SeqCst)) {
            Some(code) => Err(Error::new(code, self.list.location()).with("injected")),
            None => Ok(()),
        }
    }
}

struct FaultyRows<'a> {
    rows: &'a dyn Snapshot,
    faulty: &'a Faulty,
}

struct FaultyTransaction<'a> {
    transaction: &'a mut dyn Transaction,
    faulty: &'a Faulty,
}

impl Snapshot for FaultyRows<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        self.rows.by_key(key, value)
    }

    fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.rows.each(visit)
    }

    fn count(&self) -> Result<usize> {
        self.rows.count()
    }

    fn last_id(&self) -> Result<i64> {
        self.rows.last_id()
    }

    fn lease(&self, key: &str) -> Result<SeenLease> {
        self.faulty.fail(self.faulty.on_read)?;
        self.faulty.reads.fetch_add(1, Ordering::SeqCst);
        self.rows.lease(key)
    }
}

impl Snapshot for FaultyTransaction<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        self.transaction.by_key(key, value)
    }

    fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.transaction.each(visit)
    }

    fn count(&self) -> Result<usize> {
        self.transaction.count()
    }

    fn last_id(&self) -> Result<i64> {
        self.transaction.last_id()
    }

    fn lease(&self, key: &str) -> Result<SeenLease> {
        self.faulty.fail(self.faulty.on_read_in_transaction)?;
        self.faulty.reads.fetch_add(1, Ordering::SeqCst);
        self.transaction.lease(key)
    }
}

impl Transaction for FaultyTransaction<'_> {
    fn raise_last_id(&mut self, number: i64) -> Result<()> {
        self.transaction.raise_last_id(number)
    }

    fn insert(&mut self, token: Token<'_>, now: i64) -> Result<()> {
        self.transaction.insert(token, now)
    }

    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()> {
        self.transaction.update(row, token, now)
    }

    fn copy(&mut self, row: &Row) -> Result<()> {
        self.transaction.copy(row)
    }

    fn delete(&mut self, id: &str) -> Result<bool> {
        self.transaction.delete(id)
    }

    fn delete_all(&mut self) -> Result<()> {
        self.transaction.delete_all()
    }

    fn acquire_lease(&mut self, key: &str, lease: &Lease) -> Result<()> {
        self.faulty.fail(self.faulty.on_acquire)?;
        self.transaction.acquire_lease(key, lease)
    }

    fn release_lease(&mut self, key: &str, owner: &str) -> Result<()> {
        self.faulty.fail(self.faulty.on_release)?;
        self.transaction.release_lease(key, owner)
    }
}

impl Backend for Faulty {
    fn location(&self) -> &Location {
        self.list.location()
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn groups_saves(&self) -> bool {
        false
    }

    fn answers_at_once(&self) -> bool {
        true
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        self.list.by_key(key, value, deadline)
    }

    fn read(&self, deadline: Deadline, work: &mut dyn FnMut(&dyn Snapshot) -> Result<()>) -> Result<()> {
        self.list.read(deadline, &mut |rows| work(&FaultyRows { rows, faulty: self }))
    }

    fn write(
        &self,
        deadline: Deadline,
        durability: Durability,
        work: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()> {
        self.list
            .write(deadline, durability, &mut |transaction| work(&mut FaultyTransaction { transaction, faulty: self }))
    }

    fn close(&self, deadline: Deadline) {
        self.list.close(deadline);
    }
}

#[test]
fn the_clock_is_read_after_the_lease() {
    // Read before, a lease taken meanwhile would seem to lie too far in the future to be in force.
    let faulty = Faulty::default();
    let reads = Arc::clone(&faulty.reads);
    let store = Store::new(Box::new(faulty), TIMEOUT).with_refresh_lease(LENGTH);
    store.save(token(EXPIRED), NOW).unwrap();
    let seen = Mutex::new(Vec::new());
    let clock = || {
        seen.lock().push(reads.load(Ordering::SeqCst));
        NOW
    };
    turn(store.try_acquire(Lookup::Id(Some("1")), &me(), 1, &clock, TIMEOUT).unwrap().outcome);
    assert_eq!(*seen.lock(), [1, 2], "one look, and one more within the change");
}

#[test]
fn of_all_who_wait_in_a_process_one_at_a_time_looks_at_calls() {
    let store = Store::new(Box::new(List::new()), TIMEOUT).with_refresh_lease(LENGTH);
    let begun = Instant::now();
    let looks = (0..1_000).filter(|_| store.calls_with_leases().is_some()).count();
    let most = 1 + begun.elapsed().as_millis() / 20;
    assert!(looks >= 1 && looks as u128 <= most, "{looks} looks, where {most} are enough");
}

#[test]
fn a_look_at_calls_sees_each_and_what_comes_again_after_it_is_kept() {
    let store = Store::new(Box::new(List::new()), TIMEOUT).with_refresh_lease(LENGTH);
    store.save(token(EXPIRED), NOW).unwrap();
    let at = |call| turn(store.try_acquire(Lookup::Id(Some("1")), &me(), call, &|| NOW, TIMEOUT).unwrap().outcome);
    // Nobody is refused for longer than some milliseconds.
    let look = || std::iter::repeat_with(|| store.calls_with_leases()).flatten().next().unwrap();
    at(7);
    let held = look();
    let [(7, seen)] = held.as_slice() else { panic!("{held:?}") };
    at(8);
    assert!(!store.release_lease(seen) && store.holds_leases(), "it is another call's by now");
    let held = look();
    let [(8, seen)] = held.as_slice() else { panic!("{held:?}") };
    assert!(store.release_lease(seen) && !store.holds_leases());
}

#[test]
fn what_could_not_be_given_back_is_tried_again() {
    let faulty = Faulty { on_release: Some(Code::Busy), ..Faulty::default() };
    let works = Arc::clone(&faulty.works);
    let store = Store::new(Box::new(faulty), TIMEOUT).with_refresh_lease(LENGTH);
    store.save(token(EXPIRED), NOW).unwrap();
    let held = turn(consult(&store, &me()));
    assert!(!store.release_lease(&held) && store.holds_leases());
    works.store(true, Ordering::SeqCst);
    assert_eq!(store.release_all_leases().len(), 1);
    assert_eq!(told(&consult(&store, &another(1))), "refresh id:1");
}

#[test]
fn no_trouble_with_a_lease_is_trouble_for_a_find_or_a_save() {
    let advice = Cell::new("");
    let go_through = |faulty: Faulty| {
        let store = Store::new(Box::new(faulty), TIMEOUT).with_refresh_lease(LENGTH);
        store.save(token(EXPIRED), NOW).unwrap();
        let look = store.try_acquire(Lookup::Id(Some("1")), &me(), 1, &|| NOW, Duration::ZERO).unwrap();
        assert_eq!(told(&look.outcome), advice.get());
        assert_eq!(look.found.unwrap().row().get(Field::AccessToken), Some("old"));
        let (id, _) = store.save_and_release(token(FRESH), NOW, me().owner(), None).unwrap();
        assert_eq!(id, "1");
        assert_eq!(store.all().unwrap()[0].token().get(Field::AccessToken), Some("new"));
        store.release_all_leases();
        store.close();
    };
    advice.set("no lease");
    go_through(Faulty { on_read: Some(Code::DatabaseError), ..Faulty::default() });
    go_through(Faulty { on_read_in_transaction: Some(Code::DatabaseError), ..Faulty::default() });
    go_through(Faulty { on_acquire: Some(Code::DatabaseError), ..Faulty::default() });
    advice.set("busy");
    go_through(Faulty { on_acquire: Some(Code::Busy), ..Faulty::default() });
    advice.set("refresh id:1");
    go_through(Faulty { on_release: Some(Code::DatabaseError), ..Faulty::default() });
    go_through(Faulty { on_release: Some(Code::Busy), ..Faulty::default() });
    go_through(Faulty::default());
}

#[cfg(feature = "sqlite")]
mod in_a_file {
    use rusqlite::Connection;
    use zoho_token_store::backends::sqlite::Sqlite;

    use super::*;

    fn with_expired_row(path: &Path) -> Store {
        let sqlite = Sqlite::open(path, Deadline::after(TIMEOUT)).unwrap();
        let store = Store::new(Box::new(sqlite), TIMEOUT).with_refresh_lease(LENGTH);
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
            assert!(store.release_lease(&first), "{misdeed}");
            Connection::open(&path).unwrap().execute_batch(sql).unwrap();
            let look = store.try_acquire(Lookup::Id(Some("1")), &me(), 1, &|| NOW, TIMEOUT).unwrap();
            assert_eq!(told(&look.outcome), advice, "{misdeed}");
            assert_eq!(look.found.unwrap().row().get(Field::AccessToken), Some("old"), "{misdeed}");
            let (id, _) = store.save_and_release(token(FRESH), NOW, me().owner(), None).unwrap();
            assert_eq!(id, "1", "{misdeed}");
            assert_eq!(store.all().unwrap()[0].token().get(Field::AccessToken), Some("new"), "{misdeed}");
        }
    }

    #[test]
    fn what_another_has_taken_over_is_not_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let [one, other] = [with_expired_row(&path), with_expired_row(&path)];
        let look = |store: &Store, who: &Requester, now| consult_at(store, Lookup::Id(Some("1")), who, 1, now);
        let first = turn(look(&one, &me(), NOW));
        // The first one's lease is over, and the second one's in its place.
        turn(look(&other, &another(1), NOW + 10_000));
        assert!(one.release_lease(&first));
        assert_eq!(told(&look(&one, &another(2), NOW + 10_000)), "wait id:1");
    }

    #[test]
    fn what_nobody_gives_back_is_swept_away_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let store = with_expired_row(&path);
        let look = |values, now| turn(consult_at(&store, Lookup::Token(token(values)), &another(1), 1, now));
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
        let look = store.try_acquire(Lookup::Id(Some("1")), &me(), 1, &|| NOW, Duration::from_millis(1)).unwrap();
        assert_eq!((told(&look.outcome), look.found.is_some()), ("busy".to_owned(), true));
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(told(&consult(&store, &me())), "refresh id:1");
    }
}
