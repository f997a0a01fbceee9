//! A transaction in one statement. No lock is held while a round trip is under way.
//!
//! The work runs first. What it reads is remembered, and what it writes is recorded. Then one statement makes all of
//! its changes, if nothing of what was read has changed meanwhile ([`super::writes::guarded`]). If something has, or if
//! the work needs more than one statement can do, the transaction is run with a lock instead ([`super::locked`]).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use super::error::ServerFailure;
use super::link::Link;
use super::missing::explained_error;
use super::session::{Session, pass_on};
use super::sql::{KeyNames, StoreRow, Tables, get};
use super::writes::{self, Guards, Replaces, RowVersion, StoreChange, Write, is_refresh};
use crate::domain::backoff::RefreshFailures;
use crate::domain::identity::Keys;
use crate::domain::lease::{Lease, ROW_PREFIX};
use crate::domain::{Key, Row, Token, id};
use crate::store::backend::{Change, Durability, SeenLease, Snapshot, Transaction};
use crate::store::error::{Code, Result};

/// The result of an attempt in one statement.
pub(super) enum Attempted {
    /// All changes were made.
    Done,
    /// Nothing was changed, because something that the work has read has changed, or because it needs a lock.
    NeedsLock,
}

/// Runs `work` as a transaction in one statement. `lost_commit` tells whether the answer to the commit of the attempt
/// before was lost, and is set for the next one.
pub(super) fn write(
    link: &Link,
    tables: &Tables,
    durability: Durability,
    lost_commit: &Cell<bool>,
    work: &mut Change<'_>,
) -> std::result::Result<Attempted, ServerFailure> {
    match attempt(Session::with_names(link, tables), durability, lost_commit, work) {
        (Err(ServerFailure::Final(problem)), Writes::RowsAndLeases) => {
            // A problem with leases fails nothing else (`docs/lease.md`, rule 1). Any other is met again.
            let problem = explained_error(link, tables, problem);
            attempt(Session::without_leases(link, tables, problem), durability, lost_commit, work).0
        }
        (attempted, _) => attempted,
    }
}

/// What a statement was to write.
#[derive(PartialEq, Eq)]
enum Writes {
    RowsAndLeases,
    Other,
}

fn attempt(
    session: Session<'_>,
    durability: Durability,
    lost_commit: &Cell<bool>,
    work: &mut Change<'_>,
) -> (std::result::Result<Attempted, ServerFailure>, Writes) {
    let mut recorder = Recorder::new(session, lost_commit.take());
    let result = work(&mut recorder);
    // Also if `work` has ignored the error.
    let attempted = match (recorder.session.take_failure(), result) {
        (Some(failure), _) => Err(failure),
        _ if recorder.needs_lock.get() => Ok(Attempted::NeedsLock),
        (None, Err(error)) => Err(ServerFailure::Final(error)),
        (None, Ok(())) => {
            let rows = recorder.writes.iter().filter(|write| write.is_of_row()).count();
            let both = rows > 0 && rows < recorder.writes.len();
            let committed = recorder.commit(durability);
            lost_commit.set(committed.as_ref().is_err_and(ServerFailure::leaves_commit_unknown));
            return (committed, if both { Writes::RowsAndLeases } else { Writes::Other });
        }
    };
    (attempted, Writes::Other)
}

/// Reads, and records changes.
struct Recorder<'a> {
    session: Session<'a>,
    follows_lost_commit: bool,
    /// The row of the store, as the first lookup saw it.
    store: Cell<Option<StoreRow>>,
    /// The rows that were read, by their ids.
    rows: RefCell<BTreeMap<String, RowVersion>>,
    /// Ids that no row had.
    absent_ids: RefCell<BTreeSet<String>>,
    /// The leases that were read.
    leases: RefCell<BTreeMap<String, Option<Lease>>>,
    needs_lock: Cell<bool>,
    last_id: Option<i64>,
    writes: Vec<Write>,
}

impl<'a> Recorder<'a> {
    fn new(session: Session<'a>, follows_lost_commit: bool) -> Self {
        Self {
            session,
            follows_lost_commit,
            store: Cell::new(None),
            rows: RefCell::default(),
            absent_ids: RefCell::default(),
            leases: RefCell::default(),
            needs_lock: Cell::new(false),
            last_id: None,
            writes: Vec::new(),
        }
    }

    /// This transaction cannot be made in one statement. Ends the work.
    fn need_lock<T>(&self) -> Result<T> {
        self.needs_lock.set(true);
        Err(self.session.interrupted())
    }

    /// A read must not miss what this transaction has written.
    fn require_no_row_written(&self) -> Result<()> {
        if self.needs_lock.get() || self.last_id.is_some() || self.writes.iter().any(Write::is_of_row) {
            return self.need_lock();
        }
        Ok(())
    }

    fn require_no_lease_written(&self) -> Result<()> {
        if self.needs_lock.get() || self.writes.iter().any(Write::is_of_lease) {
            return self.need_lock();
        }
        Ok(())
    }

    /// Records the only change of a row.
    fn record_of_row(&mut self, write: Write) -> Result<()> {
        if self.writes.iter().any(Write::is_of_row) {
            return self.need_lock();
        }
        self.writes.push(write);
        Ok(())
    }

    /// Records the only change of a lease.
    fn record_of_lease(&mut self, write: Write) -> Result<()> {
        self.session.require_leases()?;
        self.require_no_lease_written()?;
        self.writes.push(write);
        Ok(())
    }

    /// Looks up rows, and remembers what was found.
    fn lookup<'k>(&self, keys: impl Iterator<Item = (Key, &'k str)> + Clone) -> Result<Vec<Row>> {
        self.require_no_row_written()?;
        let answer = self.session.lookup(keys.clone(), true, false)?;
        if let Some(store) = answer.store {
            match self.store.replace(Some(store)) {
                // Two lookups saw different rows.
                Some(before) if before.change != store.change => return self.need_lock(),
                _ => {}
            }
        }
        let mut rows = self.rows.borrow_mut();
        for row in &answer.rows {
            let version = RowVersion::of(row);
            let before = rows.insert(row.id().to_owned(), version.clone());
            if before.is_some_and(|before| before != version) {
                return self.need_lock();
            }
        }
        for (key, value) in keys {
            if key == Key::Id && !answer.rows.iter().any(|row| row.id() == value) {
                self.absent_ids.borrow_mut().insert(value.to_owned());
            }
        }
        Ok(answer.rows)
    }

    fn commit(self, durability: Durability) -> std::result::Result<Attempted, ServerFailure> {
        if self.writes.is_empty() && self.last_id.is_none() {
            return Ok(Attempted::Done);
        }
        let rows = self.rows.into_inner();
        let acquired = self.writes.iter().find_map(Write::acquired_key);
        if acquired.is_some() && self.writes.len() > 1 {
            // If another requester has acquired the lease, the statement would leave out only this part.
            return Ok(Attempted::NeedsLock);
        }
        // Credentials without a row have a lease, too. It relies on there being no row.
        let is_without_row = |key: &str| key.strip_prefix(ROW_PREFIX).is_none_or(|id| !rows.contains_key(id));
        let keys = self.writes.iter().any(Write::changes_keys);
        let relies_on_set = keys || acquired.is_some_and(is_without_row);
        let change = self.store.get().filter(|_| relies_on_set).map(|store| store.change);
        let guards = Guards { rows: rows.into_iter().collect(), change };
        let store = StoreChange { keys, last_id: self.last_id };
        let link = self.session.link();
        let tables = self.session.tables();
        let statement = writes::guarded(tables, &guards, &self.writes, store, durability, link.lock_timeout_ms());
        let answer = match link.changing(|| link.query(&statement)) {
            // The names of keys may have changed since they were read.
            Err(ServerFailure::Final(error)) if error.code() == Code::UnknownKey => return Ok(Attempted::NeedsLock),
            answer => answer?,
        };
        let done = answer.first().map_or(Ok(false), |row| get(link.location(), row, 0))?;
        Ok(if done { Attempted::Done } else { Attempted::NeedsLock })
    }
}

impl Snapshot for Recorder<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        if key == Key::Id && self.last_id.is_none() && self.absent_ids.borrow().contains(value) {
            return Ok(Vec::new());
        }
        self.lookup(std::iter::once((key, value)))
    }

    fn by_keys(&self, keys: &Keys<'_>, accept: &mut dyn FnMut(Key, Vec<Row>) -> bool) -> Result<()> {
        let found = self.lookup(keys.iter())?;
        pass_on(keys, &found, accept);
        Ok(())
    }

    fn each(&self, _: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.need_lock()
    }

    fn count(&self) -> Result<usize> {
        self.need_lock()
    }

    fn last_id(&self) -> Result<i64> {
        match (self.last_id, self.store.get()) {
            (None, Some(store)) => Ok(store.last_id),
            _ => self.need_lock(),
        }
    }

    fn announce_lease(&self, key: Option<&str>) {
        self.session.announce_lease(key);
    }

    fn lease(&self, key: &str) -> Result<SeenLease> {
        self.session.require_leases()?;
        self.require_no_lease_written()?;
        let seen = self.session.lease(key)?;
        self.leases.borrow_mut().insert(key.to_owned(), seen.lease.clone());
        Ok(seen)
    }

    fn key_names(&self) -> Result<KeyNames> {
        // A lookup has returned them.
        self.session.known_key_names().map_or_else(|| self.need_lock(), Ok)
    }
}

impl Transaction for Recorder<'_> {
    fn follows_lost_commit(&self) -> bool {
        self.follows_lost_commit
    }

    fn raise_last_id(&mut self, number: i64) -> Result<()> {
        self.last_id = Some(self.last_id.map_or(number, |last| last.max(number)));
        Ok(())
    }

    fn insert(&mut self, token: Token<'_>, now: i64) -> Result<()> {
        let row = Row::new(token, 0, Some(now));
        writes::require_short_id(self.session.link().location(), row.id())?;
        if let Some(number) = id::number(row.id()) {
            self.raise_last_id(number)?;
        }
        self.record_of_row(Write::Insert { row })
    }

    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()> {
        self.rows.borrow_mut().insert(row.id().to_owned(), RowVersion::of(row));
        self.record_of_row(update(row, token, now))
    }

    fn rewrite(&mut self, _: &Row, _: Token<'_>) -> Result<()> {
        self.need_lock()
    }

    fn set_key_names(&mut self, _: &BTreeSet<String>) -> Result<()> {
        self.need_lock()
    }

    fn copy(&mut self, _: &Row) -> Result<()> {
        self.need_lock()
    }

    fn delete(&mut self, id: &str) -> Result<bool> {
        let Some(row) = self.by_key(Key::Id, id)?.pop() else { return Ok(false) };
        self.record_of_row(Write::Delete { id: id.to_owned(), before: row.saved_order })?;
        Ok(true)
    }

    fn delete_all(&mut self) -> Result<()> {
        self.need_lock()
    }

    fn acquire_lease(&mut self, key: &str, lease: &Lease) -> Result<()> {
        let seen = self.leases.borrow().get(key).cloned();
        let replaces = seen.map_or(Replaces::Any, Replaces::Exactly);
        self.record_of_lease(Write::Acquire { key: key.to_owned(), lease: lease.clone(), replaces })
    }

    fn release_lease(&mut self, key: &str, owner: &str) -> Result<()> {
        self.record_of_lease(Write::Release { key: key.to_owned(), owner: owner.to_owned() })
    }

    fn record_failures(&mut self, key: &str, failures: &RefreshFailures) -> Result<()> {
        self.session.require_leases()?;
        if self.writes.iter().any(|write| matches!(write, Write::Fail { .. })) {
            return self.need_lock();
        }
        self.writes.push(Write::Fail { key: key.to_owned(), failures: failures.clone() });
        Ok(())
    }
}

/// The change of a row that was read.
pub(super) fn update(row: &Row, token: Token<'_>, now: i64) -> Write {
    let refresh = is_refresh(row.token(), token);
    Write::Update { before: RowVersion::of(row), row: Row::new(token, 0, Some(now)), refresh }
}
