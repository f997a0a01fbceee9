//! A transaction that holds the lock of the store's row from its begin to its commit.
//!
//! It excludes every other change of the set of rows. A refresh of a row does not take this lock, so the rows that are
//! looked up are locked, too, and a row that was only visited is changed only if it is still the same.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use tokio_postgres::SimpleQueryRow;

use super::error::ServerFailure;
use super::guarded::update;
use super::link::Link;
use super::schema::{self, missing_row};
use super::session::{Session, pass_on};
use super::sql::{KeyNames, Tables, begin_locked};
use super::writes::{self, Replaces, RowVersion, StoreChange, Write};
use crate::domain::backoff::RefreshFailures;
use crate::domain::identity::Keys;
use crate::domain::lease::Lease;
use crate::domain::{Key, Row, Token, id};
use crate::store::backend::{Change, Durability, SeenLease, Snapshot, Transaction};
use crate::store::error::Result;

/// How many rows one statement copies.
const COPIED_AT_ONCE: usize = 500;

/// Runs `work` as a transaction under the lock of the store's row. `lost_commit` is that of [`super::guarded::write`].
pub(super) fn write(
    link: &Link,
    tables: &Tables,
    durability: Durability,
    lost_commit: &Cell<bool>,
    work: &mut Change<'_>,
) -> std::result::Result<(), ServerFailure> {
    let mut commits = false;
    let committed = link.transaction(&begin_locked(tables, durability, link.lock_timeout_ms()), |answer| {
        let mut locked =
            Locked::new(Session::in_transaction(link, tables), last_id(link, &answer)?, lost_commit.take());
        let result = work(&mut locked).and_then(|()| locked.flush_copies());
        // Also if `work` has ignored the error: the server has ended the transaction.
        if let Some(failure) = locked.session.take_failure() {
            return Err(failure);
        }
        result.map_err(ServerFailure::Final)?;
        commits = true;
        let store = locked.store;
        Ok(if store.is_none() { None } else { Some(store.script(tables)) })
    });
    lost_commit
        .set(lost_commit.get() || commits && committed.as_ref().is_err_and(ServerFailure::leaves_commit_unknown));
    committed
}

/// The highest number of an id, from the last row of the answer to [`begin_locked`].
fn last_id(link: &Link, answer: &[SimpleQueryRow]) -> std::result::Result<i64, ServerFailure> {
    let last_id = answer.last().and_then(|row| row.try_get("last_id").ok()?).and_then(|text: &str| text.parse().ok());
    last_id.ok_or_else(|| missing_row(link.location()))
}

/// The transaction.
struct Locked<'a> {
    session: Session<'a>,
    follows_lost_commit: bool,
    /// The highest number of an id, as it was when the lock was acquired.
    last_id: i64,
    store: StoreChange,
    /// The orders of the rows that were read.
    orders: RefCell<BTreeMap<String, i64>>,
    leases: RefCell<BTreeMap<String, Option<Lease>>>,
    /// Rows that are to be copied.
    copies: RefCell<Vec<Row>>,
}

impl<'a> Locked<'a> {
    fn new(session: Session<'a>, last_id: i64, follows_lost_commit: bool) -> Self {
        Self {
            session,
            follows_lost_commit,
            last_id,
            store: StoreChange::default(),
            orders: RefCell::default(),
            leases: RefCell::default(),
            copies: RefCell::default(),
        }
    }

    /// Remembers a row that was read.
    fn remember(&self, row: &Row) {
        self.orders.borrow_mut().insert(row.id().to_owned(), row.saved_order);
    }

    fn lookup<'k>(&self, keys: impl Iterator<Item = (Key, &'k str)> + Clone) -> Result<Vec<Row>> {
        self.flush_copies()?;
        let rows = self.session.lookup(keys, false, true)?.rows;
        for row in &rows {
            self.remember(row);
        }
        Ok(rows)
    }

    /// Makes a change. Starts again if what it relied on has changed meanwhile.
    fn change(&mut self, write: &Write) -> Result<()> {
        self.flush_copies()?;
        self.store.keys |= write.changes_keys();
        let done = self.session.query(&write.statement(self.session.tables()))?;
        if done.is_empty() && write.must_succeed() { Err(self.session.conflict()) } else { Ok(()) }
    }

    /// Copies the rows that are to be copied. Must be called after the work, too.
    ///
    /// They get new orders that sort them as theirs do. With its own order a row could be taken for another one that a
    /// running program has read: a save is guarded by the id and the order of its row.
    fn flush_copies(&self) -> Result<()> {
        let mut copies = mem::take(&mut *self.copies.borrow_mut());
        let count = i64::try_from(copies.len()).unwrap_or(i64::MAX);
        if count == 0 {
            return Ok(());
        }
        let tables = self.session.tables();
        let first_order = self.session.number(&writes::reserve_orders(tables, count.saturating_mul(2)))?;
        let mut by_order: Vec<&mut Row> = copies.iter_mut().collect();
        by_order.sort_by_key(|row| row.saved_order);
        for (row, order) in by_order.into_iter().zip(first_order..) {
            row.saved_order = order;
        }
        let positions = (first_order + count..).step_by(COPIED_AT_ONCE);
        for (rows, position) in copies.chunks(COPIED_AT_ONCE).zip(positions) {
            self.session.query(&writes::copy(tables, rows, position))?;
        }
        Ok(())
    }
}

impl Snapshot for Locked<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        self.lookup(std::iter::once((key, value)))
    }

    fn by_keys(&self, keys: &Keys<'_>, accept: &mut dyn FnMut(Key, Vec<Row>) -> bool) -> Result<()> {
        let found = self.lookup(keys.iter())?;
        pass_on(keys, &found, accept);
        Ok(())
    }

    fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.flush_copies()?;
        self.session.each(&mut |row| {
            self.remember(&row);
            visit(row)
        })
    }

    fn count(&self) -> Result<usize> {
        self.flush_copies()?;
        self.session.count()
    }

    fn last_id(&self) -> Result<i64> {
        Ok(self.store.last_id.map_or(self.last_id, |last| last.max(self.last_id)))
    }

    fn lease(&self, key: &str) -> Result<SeenLease> {
        let seen = self.session.lease(key)?;
        self.leases.borrow_mut().insert(key.to_owned(), seen.lease.clone());
        Ok(seen)
    }

    fn key_names(&self) -> Result<KeyNames> {
        self.session.key_names()
    }
}

impl Transaction for Locked<'_> {
    fn follows_lost_commit(&self) -> bool {
        self.follows_lost_commit
    }

    fn raise_last_id(&mut self, number: i64) -> Result<()> {
        self.store.last_id = Some(self.store.last_id.map_or(number, |last| last.max(number)));
        Ok(())
    }

    fn insert(&mut self, token: Token<'_>, now: i64) -> Result<()> {
        let row = Row::new(token, 0, Some(now));
        writes::require_short_id(self.session.link().location(), row.id())?;
        if let Some(number) = id::number(row.id()) {
            self.raise_last_id(number)?;
        }
        self.change(&Write::Insert { row })
    }

    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()> {
        self.change(&update(row, token, now))?;
        // It has another order now.
        self.orders.get_mut().remove(row.id());
        Ok(())
    }

    fn rewrite(&mut self, row: &Row, token: Token<'_>) -> Result<()> {
        let before = RowVersion::of(row);
        self.change(&Write::Rewrite { before, row: Row::new(token, row.saved_order, row.saved_at) })
    }

    fn set_key_names(&mut self, names: &BTreeSet<String>) -> Result<()> {
        self.flush_copies()?;
        let version = schema::version_of(!names.is_empty());
        self.session.query(&self.session.tables().set_key_names(names, version))?;
        self.session.set_known_key_names(names);
        Ok(())
    }

    fn copy(&mut self, row: &Row) -> Result<()> {
        writes::require_short_id(self.session.link().location(), row.id())?;
        if let Some(number) = id::number(row.id()) {
            self.raise_last_id(number)?;
        }
        self.store.keys = true;
        self.copies.get_mut().push(row.clone());
        Ok(())
    }

    fn delete(&mut self, id: &str) -> Result<bool> {
        let known = self.orders.borrow().get(id).copied();
        let before = match known {
            Some(order) => order,
            None => match self.by_key(Key::Id, id)?.pop() {
                Some(row) => row.saved_order,
                None => return Ok(false),
            },
        };
        self.change(&Write::Delete { id: id.to_owned(), before })?;
        self.orders.get_mut().remove(id);
        Ok(true)
    }

    fn delete_all(&mut self) -> Result<()> {
        self.copies.get_mut().clear();
        self.store.keys = true;
        self.session.query(&writes::delete_all(self.session.tables()))?;
        self.orders.get_mut().clear();
        Ok(())
    }

    fn acquire_lease(&mut self, key: &str, lease: &Lease) -> Result<()> {
        let seen = self.leases.get_mut().remove(key);
        let replaces = seen.map_or(Replaces::Any, Replaces::Exactly);
        self.change(&Write::Acquire { key: key.to_owned(), lease: lease.clone(), replaces })
    }

    fn release_lease(&mut self, key: &str, owner: &str) -> Result<()> {
        self.leases.get_mut().remove(key);
        self.change(&Write::Release { key: key.to_owned(), owner: owner.to_owned() })
    }

    fn record_failures(&mut self, key: &str, failures: &RefreshFailures) -> Result<()> {
        self.change(&Write::Fail { key: key.to_owned(), failures: failures.clone() })
    }
}
