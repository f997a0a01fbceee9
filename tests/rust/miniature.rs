//! A backend in miniature that behaves like one on a server: its answers are late, its rows are shared by processes, it
//! has a clock of its own, and it loses connections. CONTRIBUTING.md, "How to add a backend", explains it step by step.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use zoho_token_store::domain::identity::Keys;
use zoho_token_store::domain::lease::Lease;
use zoho_token_store::domain::{Key, Row, Token, id};
use zoho_token_store::store::backend::{Backend, Durability, Location, SeenLease, Snapshot, Transaction};
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::error::{Code, Error, Result};
use zoho_token_store::store::lock_order::{Ordered, Rank};

use super::Clock;

static LOCATION: Location = Location::named("the server in miniature");

/// How far the server's clock is ahead of the clock of this machine, in milliseconds.
pub(crate) const CLOCK_AHEAD_MS: i64 = 3_600_000;

/// All that the server stores.
#[derive(Clone, Default)]
struct Table {
    /// The oldest row first.
    rows: Vec<Row>,
    leases: BTreeMap<String, Lease>,
    last_id: i64,
    last_order: i64,
}

/// The server.
pub(crate) struct Miniature {
    table: Ordered<Table>,
    clock: Clock,
    sessions: AtomicUsize,
    /// The number of round trips so far.
    pub(crate) round_trips: Arc<AtomicUsize>,
}

/// A connection while an operation uses it. Its `table` is a copy: an operation that fails has changed nothing.
struct Session<'a> {
    server: &'a Miniature,
    table: Table,
    number: usize,
    requests: Cell<usize>,
}

impl Miniature {
    pub(crate) fn new(clock: Clock) -> Self {
        let table = Ordered::new(Rank::StoreState, Table::default());
        Self { table, clock, sessions: AtomicUsize::default(), round_trips: Arc::default() }
    }

    /// Runs `work` in a session. If the connection is lost, runs it again in another session, until the deadline.
    fn run<T>(&self, deadline: Deadline, mut work: impl FnMut(&mut Session<'_>, &mut Table) -> Result<T>) -> Result<T> {
        // A caller that may not wait cannot wait for a network either.
        while deadline.allows_slow_work() {
            let number = self.sessions.fetch_add(1, Ordering::Relaxed);
            let Some(mut stored) = self.table.lock(deadline) else { break };
            let mut session = Session { server: self, table: stored.clone(), number, requests: Cell::new(0) };
            let result = work(&mut session, &mut stored);
            // Also if `work` has ignored the error of a request.
            if !session.is_lost() {
                return result;
            }
            drop(stored);
            if !deadline.sleep(1_000..5_000) {
                break;
            }
        }
        Err(deadline.busy(&LOCATION))
    }
}

impl Session<'_> {
    /// Sends a request, and waits for the answer. Fails if the connection is lost.
    fn request(&self) -> Result<()> {
        thread::sleep(Duration::from_micros(fastrand::u64(1_000..3_000)));
        self.server.round_trips.fetch_add(1, Ordering::SeqCst);
        self.requests.set(self.requests.get() + 1);
        let lost = || Error::new(Code::DatabaseError, &LOCATION).with("the connection was lost");
        if self.is_lost() { Err(lost()) } else { Ok(()) }
    }

    /// Every fourth connection is lost, on its first, second, third or fourth request.
    fn is_lost(&self) -> bool {
        self.number % 4 == 3 && self.requests.get() > self.number / 4 % 4
    }

    fn rows_with(&self, key: Key, value: &str) -> Vec<Row> {
        self.table.rows.iter().filter(|row| row.get(key.field()) == Some(value)).cloned().collect()
    }

    fn next_order(&mut self) -> i64 {
        self.table.last_order += 1;
        self.table.last_order
    }
}

impl Backend for Miniature {
    fn location(&self) -> &Location {
        &LOCATION
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn groups_saves(&self) -> bool {
        false
    }

    fn answers_at_once(&self) -> bool {
        false
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        self.run(deadline, |session, _| session.by_key(key, value))
    }

    fn read(&self, deadline: Deadline, work: &mut dyn FnMut(&dyn Snapshot) -> Result<()>) -> Result<()> {
        self.run(deadline, |session, _| work(session))
    }

    fn write(
        &self,
        deadline: Deadline,
        _: Durability,
        work: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()> {
        self.run(deadline, |session, stored| {
            work(session)?;
            // The commit. If its answer is lost, the transaction runs again, and finds what it has written.
            if !session.is_lost() {
                *stored = session.table.clone();
            }
            session.request()
        })
    }

    fn close(&self, _: Deadline) {}
}

impl Snapshot for Session<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        self.request()?;
        Ok(self.rows_with(key, value))
    }

    fn by_keys(&self, keys: &Keys<'_>, accept: &mut dyn FnMut(Key, Vec<Row>) -> bool) -> Result<()> {
        self.request()?;
        let _ = keys.iter().any(|(key, value)| accept(key, self.rows_with(key, value)));
        Ok(())
    }

    fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.request()?;
        self.table.rows.iter().cloned().try_for_each(visit)
    }

    fn count(&self) -> Result<usize> {
        self.request()?;
        Ok(self.table.rows.len())
    }

    fn last_id(&self) -> Result<i64> {
        self.request()?;
        Ok(self.table.last_id)
    }

    fn lease(&self, key: &str) -> Result<SeenLease> {
        self.request()?;
        let now = Some(self.server.clock.now() + CLOCK_AHEAD_MS);
        Ok(SeenLease { lease: self.table.leases.get(key).cloned(), now })
    }
}

impl Transaction for Session<'_> {
    fn raise_last_id(&mut self, number: i64) -> Result<()> {
        self.table.last_id = self.table.last_id.max(number);
        self.request()
    }

    fn insert(&mut self, token: Token<'_>, now: i64) -> Result<()> {
        let order = self.next_order();
        self.copy(&Row::new(token, order, Some(now)))
    }

    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()> {
        let row_after = Row::new(token, self.next_order(), Some(now));
        self.table
            .rows
            .iter_mut()
            .filter(|stored| stored.id() == row.id())
            .for_each(|stored| *stored = row_after.clone());
        self.request()
    }

    fn copy(&mut self, row: &Row) -> Result<()> {
        self.table.last_id = self.table.last_id.max(id::number(row.id()).unwrap_or(0));
        self.table.last_order = self.table.last_order.max(row.saved_order);
        self.table.rows.push(row.clone());
        self.request()
    }

    fn delete(&mut self, id: &str) -> Result<bool> {
        let deleted = self.table.rows.extract_if(.., |row| row.id() == id).count() > 0;
        self.request().map(|()| deleted)
    }

    fn delete_all(&mut self) -> Result<()> {
        self.table.rows.clear();
        self.request()
    }

    fn acquire_lease(&mut self, key: &str, lease: &Lease) -> Result<()> {
        self.table.leases.insert(key.to_owned(), lease.clone());
        self.request()
    }

    fn release_lease(&mut self, key: &str, owner: &str) -> Result<()> {
        self.table.leases.retain(|stored, lease| stored != key || lease.owner != owner);
        self.request()
    }
}
