//! What a transaction reads with, and reads outside a transaction.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row as ServerRow;

use super::error::{Cause, ServerFailure};
use super::link::Link;
use super::missing::explained_error;
use super::sql::{
    Answer, BEGIN_SNAPSHOT, Besides, KeyNames, Leases, ROWS_AT_ONCE, Tables, close_cursor, fetch_rows, get, key_names,
    row,
};
use super::statement::Statement;
use crate::domain::identity::Keys;
use crate::domain::{Key, Row};
use crate::store::backend::{Reading, SeenLease, Snapshot};
use crate::store::error::{Code, Error, Result};

/// Statements on one connection, for work that gets its own kind of errors.
pub(super) struct Session<'a> {
    link: &'a Link,
    tables: &'a Tables,
    /// An error ends the transaction on the server, so every later statement would fail, too.
    is_transaction: bool,
    /// Why the attempt has failed. The work may have ignored the error that it got.
    failure: RefCell<Option<ServerFailure>>,
    /// The lease of the next row that is looked up is read with it, or the one under this key if there is no row.
    announced: RefCell<Option<Announced>>,
    /// Leases that were read with rows.
    leases: RefCell<BTreeMap<String, SeenLease>>,
    /// The table of leases cannot be read or written. That fails nothing but leases (`docs/lease.md`, rule 1).
    lease_problem: RefCell<Option<Error>>,
    /// Each lookup returns the names of keys, too.
    reads_names: bool,
    /// The names of keys that the last lookup has returned.
    key_names: RefCell<Option<KeyNames>>,
    /// All leases of the snapshot were read, at this time of the server's clock.
    all_leases_at: Cell<Option<i64>>,
}

/// [`Leases`], until the next lookup.
struct Announced {
    without_row: Option<String>,
}

impl<'a> Session<'a> {
    /// Each statement is a transaction of its own.
    pub(super) fn new(link: &'a Link, tables: &'a Tables) -> Self {
        Self {
            link,
            tables,
            is_transaction: false,
            failure: RefCell::default(),
            announced: RefCell::default(),
            leases: RefCell::default(),
            lease_problem: RefCell::default(),
            reads_names: false,
            key_names: RefCell::default(),
            all_leases_at: Cell::new(None),
        }
    }

    /// All statements are in a transaction that has begun.
    pub(super) fn in_transaction(link: &'a Link, tables: &'a Tables) -> Self {
        Self { is_transaction: true, ..Self::new(link, tables) }
    }

    /// Each lookup returns the names of keys, too.
    pub(super) fn with_names(link: &'a Link, tables: &'a Tables) -> Self {
        Self { reads_names: true, ..Self::new(link, tables) }
    }

    /// The same, with leases that cannot be used.
    pub(super) fn without_leases(link: &'a Link, tables: &'a Tables, problem: Error) -> Self {
        Self { lease_problem: RefCell::new(Some(problem)), ..Self::with_names(link, tables) }
    }

    /// Fails if leases cannot be used.
    pub(super) fn require_leases(&self) -> Result<()> {
        self.lease_problem.borrow().clone().map_or(Ok(()), Err)
    }

    pub(super) const fn link(&self) -> &'a Link {
        self.link
    }

    pub(super) const fn tables(&self) -> &'a Tables {
        self.tables
    }

    /// Returns why the attempt has failed, if it has.
    pub(super) fn take_failure(&self) -> Option<ServerFailure> {
        self.failure.take()
    }

    /// The error that work gets whose attempt has ended for a reason that it does not need to know.
    pub(super) fn interrupted(&self) -> Error {
        Error::new(Code::DatabaseError, self.link.location()).with("the transaction starts again")
    }

    /// What the work relies on has changed. Ends the attempt.
    pub(super) fn conflict(&self) -> Error {
        self.failed(ServerFailure::Retry(Cause::conflict()))
    }

    fn failed(&self, failure: ServerFailure) -> Error {
        let error = if let ServerFailure::Final(error) = &failure { error.clone() } else { self.interrupted() };
        if self.is_transaction || !matches!(failure, ServerFailure::Final(_)) {
            self.failure.borrow_mut().get_or_insert(failure);
        }
        error
    }

    fn told<T>(&self, answer: std::result::Result<T, ServerFailure>) -> Result<T> {
        answer.map_err(|failure| self.failed(failure))
    }

    pub(super) fn query(&self, statement: &Statement<'_>) -> Result<Vec<ServerRow>> {
        if self.failure.borrow().is_some() {
            return Err(self.interrupted());
        }
        self.told(self.link.query(statement))
    }

    fn script(&self, text: &str) -> Result<()> {
        if self.failure.borrow().is_some() {
            return Err(self.interrupted());
        }
        self.told(self.link.script(text).map(drop))
    }

    /// Looks up the rows that have one of the values, and the leases that were announced.
    pub(super) fn lookup<'k>(
        &self,
        keys: impl Iterator<Item = (Key, &'k str)> + Clone,
        store: bool,
        lock: bool,
    ) -> Result<Answer> {
        if keys.clone().next().is_none() {
            return Ok(Answer::default());
        }
        let announced = self.announced.take().filter(|_| !lock && self.require_leases().is_ok());
        let leases = announced.as_ref().map(|announced| Leases { without_row: announced.without_row.as_deref() });
        // A requester without a row waits for the one that another requester makes.
        let names = self.reads_names || leases.is_some();
        let looked = self.look(keys.clone(), Besides { store, leases, names, lock });
        let answer = match looked {
            Err(problem) if leases.is_some() && self.failure.borrow().is_none() => {
                self.lease_problem.replace(Some(explained_error(self.link, self.tables, problem)));
                self.look(keys, Besides { store, leases: None, names, lock })?
            }
            looked => looked?,
        };
        self.leases.borrow_mut().extend(answer.leases.iter().cloned());
        if let Some(names) = &answer.names {
            self.key_names.replace(Some(names.clone()));
        }
        Ok(answer)
    }

    fn look<'k>(&self, keys: impl Iterator<Item = (Key, &'k str)>, besides: Besides<'_>) -> Result<Answer> {
        let statement = self.tables.lookup(keys, besides);
        let found = self.query(&statement)?;
        self.told(self.tables.answer(self.link.location(), &found, besides))
    }

    /// The names of keys that were read with rows.
    pub(super) fn known_key_names(&self) -> Option<KeyNames> {
        self.key_names.borrow().clone()
    }

    /// The names of keys that this transaction has set.
    pub(super) fn set_known_key_names(&self, names: &BTreeSet<String>) {
        self.key_names.replace(Some(Some(names.clone())));
    }

    pub(super) fn key_names(&self) -> Result<KeyNames> {
        if let Some(names) = self.known_key_names() {
            return Ok(names);
        }
        let found = self.query(&self.tables.key_names())?;
        let names = found.first().map_or(Ok(None), |row| self.told(key_names(self.link.location(), row, 0)))?;
        self.key_names.replace(Some(names.clone()));
        Ok(names)
    }

    pub(super) fn announce_lease(&self, key: Option<&str>) {
        self.announced.replace(Some(Announced { without_row: key.map(str::to_owned) }));
        self.leases.borrow_mut().clear();
    }

    /// The lease that was read with a row.
    fn known_lease(&self, key: &str) -> Option<SeenLease> {
        self.leases.borrow().get(key).cloned()
    }

    pub(super) fn lease(&self, key: &str) -> Result<SeenLease> {
        if let Some(seen) = self.known_lease(key) {
            return Ok(seen);
        }
        self.require_leases()?;
        let found = self.query(&self.tables.lease(key))?;
        self.told(self.tables.read_lease(self.link.location(), &found))
    }

    /// Reads all leases of a snapshot, and returns the one under this key.
    fn load_leases(&self, key: &str) -> Result<SeenLease> {
        if self.all_leases_at.get().is_none() {
            let found = self.query(&self.tables.all_leases())?;
            let (now, leases) = self.told(self.tables.read_all_leases(self.link.location(), &found))?;
            self.leases.borrow_mut().extend(leases);
            self.all_leases_at.set(Some(now));
        }
        let none = SeenLease { now: self.all_leases_at.get(), ..SeenLease::default() };
        Ok(self.known_lease(key).unwrap_or(none))
    }

    /// Passes all rows on, in a transaction.
    pub(super) fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.script(&self.tables.open_cursor())?;
        let mut visited = Ok(());
        while visited.is_ok() {
            let found = self.query(&fetch_rows())?;
            visited = self.visit(&found, visit);
            if found.len() < ROWS_AT_ONCE {
                break;
            }
        }
        self.script(&close_cursor())?;
        visited
    }

    fn visit(&self, found: &[ServerRow], visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        for one in found {
            if let Some(row) = self.told(row(self.link.location(), one))? {
                visit(row)?;
            }
        }
        Ok(())
    }

    pub(super) fn count(&self) -> Result<usize> {
        Ok(usize::try_from(self.number(&self.tables.count())?).unwrap_or_default())
    }

    pub(super) fn last_id(&self) -> Result<i64> {
        self.number(&self.tables.last_id())
    }

    pub(super) fn number(&self, statement: &Statement<'_>) -> Result<i64> {
        let found = self.query(statement)?;
        found.first().map_or(Ok(0), |row| self.told(get(self.link.location(), row, 0)))
    }
}

/// Passes the rows of each key on, until `accept` returns true.
pub(super) fn pass_on(keys: &Keys<'_>, found: &[Row], accept: &mut dyn FnMut(Key, Vec<Row>) -> bool) {
    for (key, value) in keys.iter() {
        let rows = found.iter().filter(|row| row.get(key.field()) == Some(value)).cloned().collect();
        if accept(key, rows) {
            break;
        }
    }
}

/// Runs `work` on one snapshot. Most work needs one statement, which is a snapshot by itself. Work that needs the names of
/// keys, too, starts again with a statement that returns both. Work that needs another statement starts again in a
/// transaction.
pub(super) fn read(link: &Link, tables: &Tables, work: &mut Reading<'_>) -> std::result::Result<(), ServerFailure> {
    for session in [Session::new, Session::with_names] {
        let reader = Reader::new(session(link, tables));
        let result = work(&reader);
        if let Some(failure) = reader.session.take_failure() {
            return Err(failure);
        }
        if reader.wants_more.get() {
            break;
        }
        if !reader.wants_names.get() {
            return result.map_err(ServerFailure::Final);
        }
    }
    link.transaction(BEGIN_SNAPSHOT, |_| {
        let reader = Reader::new(Session::in_transaction(link, tables));
        let result = work(&reader);
        reader.session.take_failure().map_or(Ok(()), Err)?;
        result.map_err(ServerFailure::Final)?;
        Ok(None)
    })
}

/// The rows of a snapshot.
struct Reader<'a> {
    session: Session<'a>,
    /// The statement that makes the snapshot has run. Another one needs a transaction.
    asked: Cell<bool>,
    /// The work has asked for another one.
    wants_more: Cell<bool>,
    /// The work has asked for the names of keys.
    wants_names: Cell<bool>,
}

impl<'a> Reader<'a> {
    fn new(session: Session<'a>) -> Self {
        Self { session, asked: Cell::new(false), wants_more: Cell::new(false), wants_names: Cell::new(false) }
    }

    fn session(&self) -> Result<&Session<'a>> {
        if self.asked.replace(true) && !self.session.is_transaction {
            self.wants_more.set(true);
            return Err(self.session.interrupted());
        }
        Ok(&self.session)
    }
}

impl Snapshot for Reader<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        Ok(self.session()?.lookup(std::iter::once((key, value)), false, false)?.rows)
    }

    fn by_keys(&self, keys: &Keys<'_>, accept: &mut dyn FnMut(Key, Vec<Row>) -> bool) -> Result<()> {
        if keys.iter().next().is_some() {
            let found = self.session()?.lookup(keys.iter(), false, false)?.rows;
            pass_on(keys, &found, accept);
        }
        Ok(())
    }

    fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let session = self.session()?;
        if session.is_transaction {
            return session.each(visit);
        }
        let most = i64::try_from(ROWS_AT_ONCE).unwrap_or(i64::MAX);
        let found = session.query(&session.tables.each(Some(most)))?;
        if found.len() >= ROWS_AT_ONCE {
            // There may be more.
            self.wants_more.set(true);
            return Err(session.interrupted());
        }
        session.visit(&found, visit)
    }

    fn count(&self) -> Result<usize> {
        self.session()?.count()
    }

    fn last_id(&self) -> Result<i64> {
        self.session()?.last_id()
    }

    fn announce_lease(&self, key: Option<&str>) {
        self.session.announce_lease(key);
    }

    fn lease(&self, key: &str) -> Result<SeenLease> {
        self.session.require_leases()?;
        match self.session.known_lease(key) {
            Some(seen) => Ok(seen),
            // Work that reads one lease in a transaction may read those of all rows.
            None if self.session.is_transaction => self.session.load_leases(key),
            None => self.session()?.lease(key),
        }
    }

    fn key_names(&self) -> Result<KeyNames> {
        match self.session.known_key_names() {
            Some(names) => Ok(names),
            None if self.session.is_transaction => self.session.key_names(),
            None if self.asked.get() && !self.session.reads_names => {
                self.wants_names.set(true);
                Err(self.session.interrupted())
            }
            None => self.session()?.key_names(),
        }
    }
}
