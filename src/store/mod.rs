//! The operations of a store, written once over any backend.
//!
//! The domain decides, the backend looks rows up and makes changes atomic, and this module connects them. It knows no
//! backend and no Python. Read [`backend`] first.

pub mod administration;
pub mod atomic_write;
pub mod backend;
pub mod deadline;
pub mod error;
pub mod file_lock;
pub mod files;
pub mod fork;
pub mod fork_state;
mod group_commit;
pub mod held_leases;
pub mod key_sources;
pub mod keys;
pub mod lease;
pub mod location;
pub mod lock_order;
pub mod rekey;
mod save;
pub mod sealed;
mod sealed_rows;
mod sealed_view;
mod stored;
mod supplied_keys;
pub mod transfer;
mod unsaved;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::backend::{Backend, DatabaseFormat, DatabaseRows, Durability, Location, Snapshot, Transaction};
use self::deadline::Deadline;
use self::error::Code;
use self::group_commit::GroupCommit;
use self::keys::{Renewal, StoreKeys};
use self::lease::Lookup;
use self::save::{FailedSaves, Save, Saved};
use self::sealed::Sealed;
use crate::domain::identity::Keys;
use crate::domain::lease::LookCost;
use crate::domain::refresh_ahead::{self, Remaining};
use crate::domain::{Field, Key, Row, Token, expiry, identity, merge, purge};
pub use error::{Error, Result};

/// May an operation wait for others?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// No. It fails with [`Code::Busy`] at once. For a caller that holds a lock which others need, such as Python's
    /// GIL.
    No,
    /// Yes, until the store's timeout.
    Yes,
}

/// A row that was found for a token.
pub struct Found(Row);

impl Found {
    /// The row's values, as the SDK gets them.
    #[must_use]
    pub fn row(&self) -> Token<'_> {
        expiry::readable(self.0.token())
    }

    /// Returns a copy of the row as it is stored.
    #[must_use]
    pub fn stored(&self) -> Row {
        self.0.clone()
    }

    /// Returns what a refresh ahead of expiry does with the row at `now`, `lead` milliseconds before the SDK would
    /// refresh it.
    #[must_use]
    pub fn remaining(&self, now: i64, lead: i64) -> Remaining {
        refresh_ahead::remaining(&self.0, now, lead)
    }

    /// Returns the token that the row was found for, completed from the row (contract, section 4), as the SDK gets it.
    #[must_use]
    pub fn complete<'a>(&'a self, token: Token<'a>) -> Token<'a> {
        expiry::readable(merge::complete(token, self.0.token()))
    }
}

/// A token store over a backend.
pub struct Store {
    backend: Sealed,
    timeout: Duration,
    saves: GroupCommit<Save, Saved>,
    leases: held_leases::HeldLeases,
    failed_saves: FailedSaves,
    unsaved: unsaved::UnsavedPairs,
    closed: AtomicBool,
}

impl Store {
    /// A store over `backend`, whose operations wait at most `timeout` for others. It has no refresh leases.
    #[must_use]
    pub fn new(backend: Box<dyn Backend>, timeout: Duration) -> Self {
        let backend = Arc::from(backend);
        fork::register(&backend);
        Self {
            backend: Sealed::new(backend, StoreKeys::none()),
            timeout,
            saves: GroupCommit::default(),
            leases: held_leases::HeldLeases::default(),
            failed_saves: FailedSaves::default(),
            unsaved: unsaved::UnsavedPairs::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// The same store with keys: its rows are sealed ([`sealed`]).
    #[must_use]
    pub fn with_keys(mut self, keys: StoreKeys) -> Self {
        self.backend.keys = keys;
        self
    }

    /// Opens a backend with `open`, and makes a store over it as [`Store::new`] does.
    ///
    /// No thread forks meanwhile. Before a fork every store that is registered closes its files, but an open backend
    /// without a store is not registered: a child would inherit its open files.
    pub fn open(timeout: Duration, mut open: impl FnMut(Deadline) -> Result<Box<dyn Backend>>) -> Result<Self> {
        let deadline = Deadline::after(timeout);
        let gate = Deadline::after(timeout.max(fork::GATE_TIMEOUT));
        loop {
            let _pass = fork::enter(gate);
            match open(deadline) {
                Err(error) if error.is_busy() && fork_state::is_fork_awaited() && deadline.left().is_some() => {}
                opened => return opened.map(|backend| Self::new(backend, timeout)),
            }
        }
    }

    /// Where the rows are.
    #[must_use]
    pub fn location(&self) -> &Location {
        self.backend.location()
    }

    /// Does a find without waiting make sense? See [`Backend::answers_at_once`].
    #[must_use]
    pub fn answers_at_once(&self) -> bool {
        self.backend.answers_at_once()
    }

    /// Do its operations run functions of the program? See [`Backend::runs_foreign_code`].
    #[must_use]
    pub fn runs_foreign_code(&self) -> bool {
        self.backend.runs_foreign_code()
    }

    /// What does a look at a lease cost? See [`Backend::look_cost`].
    #[must_use]
    pub fn look_cost(&self) -> LookCost {
        self.backend.look_cost()
    }

    /// Finds the row that the token names (contract, section 3), with its pair that could not be saved, if any.
    pub fn find(&self, token: Token<'_>, wait: Wait) -> Result<Option<Found>> {
        if !self.unsaved.is_empty() {
            return self.find_with_unsaved(Lookup::Token(token), self.deadline(wait));
        }
        self.run(self.deadline(wait), |backend, deadline| {
            let keys = Keys::of(token);
            let mut rest = keys.iter();
            let Some((first, value)) = rest.next() else { return Ok(None) };
            if backend.answers_at_once() {
                // The first key finds the row of nearly every token. A single lookup needs no transaction.
                if let Some(row) = identity::choose(first, token, backend.by_key(first, value, deadline)?) {
                    return Ok(Some(Found(row)));
                }
                if rest.next().is_none() {
                    return Ok(None);
                }
            }
            Ok(identity::find(token, |keys, accept| backend.by_keys(keys, deadline, accept))?.map(Found))
        })
    }

    /// Finds the row with this id, with its pair that could not be saved, if any. No row has an absent id (`None` or
    /// `""`).
    pub fn find_by_id(&self, id: Option<&str>, wait: Wait) -> Result<Option<Found>> {
        if !self.unsaved.is_empty() {
            return self.find_with_unsaved(Lookup::Id(id), self.deadline(wait));
        }
        self.run(self.deadline(wait), |backend, deadline| {
            let Some(id) = present(id) else { return Ok(None) };
            Ok(backend.by_key(Key::Id, id, deadline)?.pop().map(Found))
        })
    }

    /// Returns all rows, the oldest first.
    pub fn all(&self) -> Result<Vec<Row>> {
        let mut all = Vec::new();
        self.read(|rows| {
            all = all_rows(rows)?;
            Ok(())
        })?;
        Ok(all)
    }

    /// Returns the number of rows.
    pub fn count(&self) -> Result<usize> {
        let mut count = 0;
        self.read(|rows| {
            count = rows.count()?;
            Ok(())
        })?;
        Ok(count)
    }

    /// Removes an access token that Zoho has refused, from the row that still holds exactly this one
    /// ([`merge::without_refused`]), or from the pairs that could not be saved. Returns whether it was there.
    pub fn refuse(&self, access_token: &str, now: i64) -> Result<bool> {
        // Before the row, so that no other thread saves the pair afterwards.
        let discarded = self.unsaved.discard(|_, kept| kept.get(Field::AccessToken) == Some(access_token));
        let removed = self.write(|transaction, removed| {
            for row in transaction.by_key(Key::AccessToken, access_token)? {
                if let Some(without) = merge::without_refused(row.token(), access_token) {
                    transaction.update(&row, without, now)?;
                    *removed = true;
                }
            }
            Ok(())
        });
        // The store that could not save the pair may still be unable to write. No row has it then.
        if discarded { Ok(true) } else { removed }
    }

    /// Deletes the row with this id, and returns whether there was one.
    pub fn delete(&self, id: Option<&str>) -> Result<bool> {
        let deleted = self.write(|transaction, deleted| {
            if let Some(id) = present(id) {
                *deleted |= transaction.delete(id)?;
            }
            Ok(())
        })?;
        self.unsaved.discard(|kept, _| Some(kept) == id);
        Ok(deleted)
    }

    /// Deletes all rows.
    pub fn delete_all(&self) -> Result<()> {
        self.write(|transaction, (): &mut ()| transaction.delete_all())?;
        self.unsaved.discard(|_, _| true);
        Ok(())
    }

    /// Deletes the rows that may be purged at `now` (contract, section 10), and returns their number. Times are in
    /// milliseconds.
    pub fn purge(&self, now: i64, idle_for: Option<i64>) -> Result<usize> {
        self.delete_where(|row| purge::may_purge(row, now, idle_for))
    }

    fn delete_where(&self, matches: impl Fn(&Row) -> bool) -> Result<usize> {
        let ids = self.write(|transaction, ids: &mut BTreeSet<String>| {
            let mut matching = BTreeSet::new();
            transaction.each(&mut |row| {
                if matches(&row) {
                    matching.insert(row.id().to_owned());
                } else {
                    // The attempt before has not deleted it, and it was saved since.
                    ids.remove(row.id());
                }
                Ok(())
            })?;
            matching.iter().try_for_each(|id| transaction.delete(id).map(drop))?;
            ids.append(&mut matching);
            Ok(())
        })?;
        self.unsaved.discard(|kept, _| ids.contains(kept));
        Ok(ids.len())
    }

    /// Writes a consistent copy of all rows into a file. A backend that cannot make one online is copied row by row
    /// into a file of `format`.
    pub fn backup(&self, target: &Path, format: Option<&DatabaseFormat>) -> Result<()> {
        self.run(self.deadline(Wait::Yes), |backend, deadline| {
            if backend.online_backup(target, deadline)? {
                return Ok(());
            }
            let format = format.ok_or_else(|| Error::new(Code::Unsupported, "").with("a backup"))?;
            // The rows as they are stored: a backup is as encrypted as the store.
            let DatabaseRows { rows, last_id } = read_contents(self.backend.inner(), deadline)?;
            (format.write)(&rows, last_id, target, deadline)
        })
    }

    /// Returns all rows as they are stored, the oldest first, and the highest number that an id ever had. An import and a
    /// restore open sealed rows with the keys of their own store.
    pub fn contents(&self) -> Result<DatabaseRows> {
        self.run(self.deadline(Wait::Yes), |_, deadline| read_contents(self.backend.inner(), deadline))
    }

    /// Closes the store, and releases its leases. Every later operation fails with [`Code::Closed`], but a second
    /// `close` does nothing. [`Store::save_unsaved_pairs`] comes first.
    pub fn close(&self) {
        self.release_all_leases();
        let deadline = Deadline::after(self.timeout);
        let _pass = fork::enter(deadline);
        self.close_backend(deadline);
        self.unsaved.discard(|_, _| true);
    }

    fn close_backend(&self, deadline: Deadline) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.backend.close(deadline);
        }
    }

    fn read(&self, mut work: impl FnMut(&dyn Snapshot) -> Result<()>) -> Result<()> {
        self.run(self.deadline(Wait::Yes), |backend, deadline| backend.read(deadline, &mut work))
    }

    /// Runs `work` as one transaction, and returns what it has found, which it writes into its second argument.
    ///
    /// That argument is empty in each attempt, except after an attempt that may have been committed
    /// ([`Transaction::follows_lost_commit`]). Then it holds what that attempt has found: for example the rows that it
    /// has deleted, which the next attempt does not see any more.
    fn write<T: Clone + Default>(&self, mut work: impl FnMut(&mut dyn Transaction, &mut T) -> Result<()>) -> Result<T> {
        let mut attempts = Attempts::default();
        self.run(self.deadline(Wait::Yes), |backend, deadline| {
            attempts.start_again();
            let mut change = |transaction: &mut dyn Transaction| {
                let found = attempts.begin(transaction);
                work(transaction, found)
            };
            backend.write(deadline, Durability::Full, &mut change)
        })?;
        Ok(attempts.found)
    }

    fn deadline(&self, wait: Wait) -> Deadline {
        match wait {
            Wait::No => Deadline::now(),
            Wait::Yes => Deadline::after(self.timeout),
        }
    }

    /// Runs an operation on the backend. It starts again after a fork that it gave way to, if a key that it needs has
    /// become known, and after a question for keys that a write has needed.
    /// The time of a question does not count.
    fn run<T>(&self, mut deadline: Deadline, mut work: impl FnMut(&dyn Backend, Deadline) -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        loop {
            let Some(pass) = fork::enter(deadline) else { return Err(deadline.busy(self.location())) };
            if self.closed.load(Ordering::Acquire) {
                return Err(Error::new(Code::Closed, self.location()));
            }
            let seen = self.backend.keys.generation();
            let result = work(&self.backend, deadline);
            let gave_way = fork_state::is_fork_awaited();
            // The source of keys may take long, and may fork.
            drop(pass);
            let ended = Instant::now();
            match result {
                Err(error) if error.is_busy() && gave_way && deadline.left().is_some() => continue,
                Err(error) if error.asks_for_keys() => {
                    self.backend.keys.confirm(begun, seen, self.location(), deadline)?;
                    deadline = deadline.after_question();
                }
                Err(error) if error.code() == Code::UnknownKey => match self.backend.keys.renew(seen, deadline) {
                    Renewal::Renewed => {}
                    Renewal::Unchanged => return Err(error),
                    Renewal::WouldWait => return Err(deadline.busy(self.location())),
                },
                result => return result,
            }
            deadline = deadline.without(ended.elapsed());
        }
    }
}

impl Drop for Store {
    /// Closes the backend without waiting. The thread that drops a store may hold Python's GIL, and a thread that forks
    /// needs the GIL to go on. The gate is not needed either: while this thread holds the GIL, no other thread can
    /// fork.
    fn drop(&mut self) {
        self.close_backend(Deadline::now());
    }
}

/// What the attempts at one transaction have found ([`Store::write`]).
#[derive(Default)]
struct Attempts<T> {
    found: T,
    kept: T,
}

impl<T: Clone> Attempts<T> {
    /// A fork has interrupted the backend, which no longer knows what became of its last attempt.
    fn start_again(&mut self) {
        self.kept.clone_from(&self.found);
    }

    /// What the attempt that begins can go on with.
    fn begin(&mut self, transaction: &dyn Transaction) -> &mut T {
        if transaction.follows_lost_commit() {
            self.kept.clone_from(&self.found);
        } else {
            self.found.clone_from(&self.kept);
        }
        &mut self.found
    }
}

/// Returns what [`Store::contents`] returns.
fn read_contents(backend: &dyn Backend, deadline: Deadline) -> Result<DatabaseRows> {
    let mut contents = DatabaseRows { rows: Vec::new(), last_id: 0 };
    backend.read(deadline, &mut |rows| {
        contents = DatabaseRows { rows: all_rows(rows)?, last_id: rows.last_id()? };
        Ok(())
    })?;
    Ok(contents)
}

/// Returns all rows of a snapshot, the oldest first.
fn all_rows(rows: &dyn Snapshot) -> Result<Vec<Row>> {
    let mut all = Vec::new();
    rows.each(&mut |row| {
        all.push(row);
        Ok(())
    })?;
    Ok(all)
}

/// An absent id is an id that no row has (contract, section 2).
fn present(id: Option<&str>) -> Option<&str> {
    id.filter(|id| !id.is_empty())
}
