//! Failures of lease operations, injected into the list backend (docs/lease.md, rule 1).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use zoho_token_store::backends::list::List;
use zoho_token_store::domain::backoff::RefreshFailures;
use zoho_token_store::domain::lease::{Lease, Requester, Settings};
use zoho_token_store::domain::{Field, Key, Row, Token};
use zoho_token_store::store::backend::{
    Backend, Change, Durability, Location, Reading, SeenLease, Snapshot, Transaction,
};
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::error::Code;
use zoho_token_store::store::lease::{Lookup, Outcome};
use zoho_token_store::store::{Error, Result, Store};

use super::common::{NOW, TIMEOUT, token};
use super::{EXPIRED, FRESH, LENGTH, acquired, another_process, describe, me, task};

/// A list whose operations on leases fail with the given errors.
#[derive(Default)]
struct Faulty {
    list: List,
    on_read: Option<Code>,
    on_read_in_transaction: Option<Code>,
    on_acquire: Option<Code>,
    /// The lease is stored, and then the transaction seems to fail.
    after_acquire: Option<Code>,
    on_release: Option<Code>,
    on_record: Option<Code>,
    /// How often a lease was read.
    reads: Arc<AtomicUsize>,
    /// If true, nothing fails any more.
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
    acquires: bool,
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
        self.acquires = true;
        self.transaction.acquire_lease(key, lease)
    }

    fn release_lease(&mut self, key: &str, owner: &str) -> Result<()> {
        self.faulty.fail(self.faulty.on_release)?;
        self.transaction.release_lease(key, owner)
    }

    fn record_failures(&mut self, key: &str, failures: &RefreshFailures) -> Result<()> {
        self.faulty.fail(self.faulty.on_record)?;
        self.transaction.record_failures(key, failures)
    }
}

impl Backend for Faulty {
    fn location(&self) -> &Location {
        self.list.location()
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn answers_at_once(&self) -> bool {
        true
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        self.list.by_key(key, value, deadline)
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        self.list.read(deadline, &mut |rows| work(&FaultyRows { rows, faulty: self }))
    }

    fn write(&self, deadline: Deadline, durability: Durability, work: &mut Change<'_>) -> Result<()> {
        let mut acquires = false;
        self.list.write(deadline, durability, &mut |transaction| {
            let mut faulty = FaultyTransaction { transaction, faulty: self, acquires: false };
            work(&mut faulty)?;
            acquires = faulty.acquires;
            Ok(())
        })?;
        if acquires { self.fail(self.after_acquire) } else { Ok(()) }
    }

    fn close(&self, deadline: Deadline) {
        self.list.close(deadline);
    }
}

fn store_over(faulty: Faulty) -> Store {
    let store = Store::new(Box::new(faulty), TIMEOUT).with_refresh_settings(Settings::new(LENGTH));
    store.save(token(EXPIRED), NOW).unwrap();
    store
}

/// What a requester has to do for the row at a time.
fn attempt(store: &Store, requester: &Requester, now: i64) -> Outcome {
    store.try_acquire(Lookup::Id(Some("1")), requester, 1, &|| now, TIMEOUT).unwrap().outcome
}

#[test]
fn the_clock_is_read_after_the_lease() {
    // If it were read before, a lease that is acquired in between could seem to end too far in the future to be valid.
    let faulty = Faulty::default();
    let reads = Arc::clone(&faulty.reads);
    let store = store_over(faulty);
    let reads_before_clock = Mutex::new(Vec::new());
    let clock = || {
        reads_before_clock.lock().push(reads.load(Ordering::SeqCst));
        NOW
    };
    acquired(store.try_acquire(Lookup::Id(Some("1")), &me(), 1, &clock, TIMEOUT).unwrap().outcome);
    assert_eq!(*reads_before_clock.lock(), [1, 2], "one read, and another one within the transaction");
}

#[test]
fn a_failed_release_is_tried_again() {
    let faulty = Faulty { on_release: Some(Code::Busy), ..Faulty::default() };
    let works = Arc::clone(&faulty.works);
    let store = store_over(faulty);
    let held = acquired(attempt(&store, &me(), NOW));
    assert!(!store.release_lease(&held) && store.holds_leases());
    works.store(true, Ordering::SeqCst);
    assert_eq!(store.release_all_leases().len(), 1);
    assert_eq!(describe(&attempt(&store, &another_process(1), NOW)), "refresh id:1");
}

#[test]
fn a_lease_whose_answer_was_lost_belongs_to_its_owner() {
    let faulty = Faulty { after_acquire: Some(Code::Unreachable), ..Faulty::default() };
    let works = Arc::clone(&faulty.works);
    let store = store_over(faulty);
    assert_eq!(describe(&attempt(&store, &me(), NOW)), "try again");
    works.store(true, Ordering::SeqCst);
    assert_eq!(describe(&attempt(&store, &task(1), NOW)), "wait id:1");
    let held = acquired(attempt(&store, &me(), NOW));
    assert!(held.is_new && store.release_lease(&held), "it is released if the refresh fails");
    assert_eq!(describe(&attempt(&store, &another_process(1), NOW)), "refresh id:1");
}

#[test]
fn a_lease_that_was_found_late_expires_when_it_would_have() {
    let faulty = Faulty { after_acquire: Some(Code::Unreachable), ..Faulty::default() };
    let works = Arc::clone(&faulty.works);
    let store = store_over(faulty);
    assert_eq!(describe(&attempt(&store, &me(), NOW)), "try again");
    works.store(true, Ordering::SeqCst);
    // One millisecond before its end.
    let held = acquired(attempt(&store, &me(), NOW + i64::try_from(LENGTH.as_millis()).unwrap() - 1));
    thread::sleep(Duration::from_millis(5));
    assert!(store.release_lease(&held));
    assert_eq!(store.lease_counters().failed, 0, "an expired lease is no failed refresh (rule 15)");
}

#[test]
fn a_failure_of_a_lease_fails_no_find_and_no_save() {
    let works = || Faulty::default();
    for (faulty, outcome) in [
        (Faulty { on_read: Some(Code::DatabaseError), ..works() }, "no lease"),
        (Faulty { on_read_in_transaction: Some(Code::DatabaseError), ..works() }, "no lease"),
        (Faulty { on_acquire: Some(Code::DatabaseError), ..works() }, "no lease"),
        (Faulty { on_acquire: Some(Code::Busy), ..works() }, "try again"),
        (Faulty { on_acquire: Some(Code::Unreachable), ..works() }, "try again"),
        (Faulty { on_acquire: Some(Code::OutcomeUnknown), ..works() }, "try again"),
        (Faulty { on_release: Some(Code::DatabaseError), ..works() }, "refresh id:1"),
        (Faulty { on_release: Some(Code::Busy), ..works() }, "refresh id:1"),
        (works(), "refresh id:1"),
    ] {
        let store = store_over(faulty);
        let attempt = store.try_acquire(Lookup::Id(Some("1")), &me(), 1, &|| NOW, Duration::ZERO).unwrap();
        assert_eq!(describe(&attempt.outcome), outcome);
        assert_eq!(attempt.found.unwrap().row().get(Field::AccessToken), Some("old"));
        let (id, _) = store.save_and_release(token(FRESH), NOW, me().owner(), None).unwrap();
        assert_eq!(id, "1");
        assert_eq!(store.all().unwrap()[0].token().get(Field::AccessToken), Some("new"));
        store.release_all_leases();
        store.close();
    }
}
