//! A backend in miniature that behaves like one on a server: its answers are late, its rows are shared by processes, it
//! has a clock of its own, and it loses connections. CONTRIBUTING.md, "How to add a backend", explains it step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use zoho_token_store::domain::{Key, Row, Token, backoff::RefreshFailures, id, identity::Keys, lease::Lease};
use zoho_token_store::store::{backend::*, deadline::Deadline, error::Result, lock_order::*};

use super::Clock;
use super::network::{Connection, Network};

static LOCATION: Location = Location::named("the server in miniature");

/// How far the server's clock is ahead of the clock of this machine, in milliseconds.
pub(crate) const CLOCK_AHEAD_MS: i64 = 3_600_000;

/// All that the server stores.
#[derive(Clone, Default)]
struct Table {
    /// The oldest row first.
    rows: Vec<Row>,
    leases: BTreeMap<String, Lease>,
    failures: BTreeMap<String, RefreshFailures>,
    key_names: BTreeSet<String>,
    last_id: i64,
    last_order: i64,
}

/// The server.
pub(crate) struct Miniature {
    table: Ordered<Table>,
    clock: Clock,
    pub(crate) network: Network,
}

/// What an operation works on. Its `table` is a copy: an operation that fails has changed nothing.
struct Session<'a> {
    connection: Connection<'a>,
    clock: &'a Clock,
    table: Table,
    follows_lost_commit: bool,
}

impl Miniature {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { table: Ordered::new(Rank::StoreState, Table::default()), clock, network: Network::default() }
    }

    fn run(&self, deadline: Deadline, mut work: impl FnMut(&mut Session<'_>, &mut Table) -> Result<()>) -> Result<()> {
        self.network.run(&LOCATION, deadline, |connection| {
            let mut stored = self.table.lock(deadline).ok_or_else(|| deadline.busy(&LOCATION))?;
            let (clock, table) = (&self.clock, stored.clone());
            work(&mut Session { connection, clock, table, follows_lost_commit: false }, &mut stored)
        })
    }
}

impl Session<'_> {
    fn rows_with(&self, key: Key, value: &str) -> Vec<Row> {
        self.table.rows.iter().filter(|row| row.get(key.field()) == Some(value)).cloned().collect()
    }
}

impl Backend for Miniature {
    fn location(&self) -> &Location {
        &LOCATION
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        self.run(deadline, |session, _| work(session))
    }

    fn write(&self, deadline: Deadline, _: Durability, work: &mut Change<'_>) -> Result<()> {
        let mut has_lost_commit = false;
        self.run(deadline, |session, stored| {
            session.follows_lost_commit = mem::take(&mut has_lost_commit);
            work(session)?;
            // The commit. If its answer is lost, the transaction runs again, and finds what it has written.
            if !session.connection.is_lost() {
                *stored = session.table.clone();
            }
            session.connection.request().inspect_err(|_| has_lost_commit = true)
        })
    }
}

impl Snapshot for Session<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        self.connection.request()?;
        Ok(self.rows_with(key, value))
    }

    fn by_keys(&self, keys: &Keys<'_>, accept: &mut dyn FnMut(Key, Vec<Row>) -> bool) -> Result<()> {
        self.connection.request()?;
        let _ = keys.iter().any(|(key, value)| accept(key, self.rows_with(key, value)));
        Ok(())
    }

    fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.connection.request()?;
        self.table.rows.iter().cloned().try_for_each(visit)
    }

    fn last_id(&self) -> Result<i64> {
        self.connection.request()?;
        Ok(self.table.last_id)
    }

    fn lease(&self, key: &str) -> Result<SeenLease> {
        self.connection.request()?;
        let now = Some(self.clock.now() + CLOCK_AHEAD_MS);
        let (lease, failures) = (self.table.leases.get(key).cloned(), self.table.failures.get(key).cloned());
        Ok(SeenLease { lease, failures, now })
    }

    fn key_names(&self) -> Result<Option<BTreeSet<String>>> {
        self.connection.request()?;
        Ok(Some(self.table.key_names.clone()))
    }
}

impl Transaction for Session<'_> {
    fn follows_lost_commit(&self) -> bool {
        self.follows_lost_commit
    }

    fn raise_last_id(&mut self, number: i64) -> Result<()> {
        self.table.last_id = self.table.last_id.max(number);
        self.connection.request()
    }

    fn insert(&mut self, token: Token<'_>, now: i64) -> Result<()> {
        self.table.last_order += 1;
        self.copy(&Row::new(token, self.table.last_order, Some(now)))
    }

    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()> {
        self.table.last_order += 1;
        let new = Row::new(token, self.table.last_order, Some(now));
        self.table.rows.iter_mut().filter(|old| old.id() == row.id()).for_each(|old| *old = new.clone());
        self.connection.request()
    }

    fn rewrite(&mut self, row: &Row, token: Token<'_>) -> Result<()> {
        let new = Row::new(token, row.saved_order, row.saved_at);
        self.table.rows.iter_mut().filter(|old| old.id() == row.id()).for_each(|old| *old = new.clone());
        self.connection.request()
    }

    fn set_key_names(&mut self, names: &BTreeSet<String>) -> Result<()> {
        self.table.key_names.clone_from(names);
        self.connection.request()
    }

    fn copy(&mut self, row: &Row) -> Result<()> {
        self.table.last_id = self.table.last_id.max(id::number(row.id()).unwrap_or(0));
        self.table.last_order = self.table.last_order.max(row.saved_order);
        self.table.rows.push(row.clone());
        self.connection.request()
    }

    fn delete(&mut self, id: &str) -> Result<bool> {
        let deleted = self.table.rows.extract_if(.., |row| row.id() == id).count() > 0;
        self.connection.request().map(|()| deleted)
    }

    fn delete_all(&mut self) -> Result<()> {
        self.table.rows.clear();
        self.connection.request()
    }

    fn acquire_lease(&mut self, key: &str, lease: &Lease) -> Result<()> {
        self.table.leases.insert(key.to_owned(), lease.clone());
        self.connection.request()
    }

    fn release_lease(&mut self, key: &str, owner: &str) -> Result<()> {
        self.table.leases.retain(|stored, lease| stored != key || lease.owner != owner);
        self.connection.request()
    }
    fn record_failures(&mut self, key: &str, failures: &RefreshFailures) -> Result<()> {
        self.table.failures.insert(key.to_owned(), failures.clone());
        self.connection.request()
    }
}
