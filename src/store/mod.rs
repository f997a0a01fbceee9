//! The operations of a store, written once over any backend.
//!
//! The domain decides, a backend looks rows up and makes a change atomic; this module only brings them together.
//! It knows neither Python nor SQL.

pub mod administration;
pub mod error;
pub mod fork;
mod group;
pub mod held;
pub mod lease;
pub mod list;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "sqlite")]
pub mod transfer;
pub mod wait;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::domain::check::Finding;
use crate::domain::lease::Lease;
use crate::domain::{Field, Key, Row, Token, id, identity, merge, purge};
pub use error::{Error, Flaw, Place, Result};
use group::Group;
use wait::Deadline;

/// The rows of a store at one moment.
pub trait Rows {
    /// All rows whose field `key` is exactly `value`, in any order.
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>>;

    /// Hands over every row, the oldest first.
    fn each(&self, visit: &mut dyn FnMut(Row)) -> Result<()>;

    /// How many there are.
    fn count(&self) -> Result<usize>;

    /// The lease with this key, in force or not.
    fn lease(&self, key: &str) -> Result<Option<Lease>>;
}

/// A change in the making: all of it happens, or nothing.
pub trait Change: Rows {
    /// The highest number that the id of any row ever had ([`id::number`]) or was given; 0 if none.
    fn last_id(&self) -> Result<i64>;

    /// Gives out no number up to this one any more.
    fn raise_last_id(&mut self, number: i64) -> Result<()>;

    /// Adds a row with the token's values and id, saved at `now`, last of all.
    fn insert(&mut self, token: Token<'_>, now: i64) -> Result<()>;

    /// Replaces the values of `row`, which was found in this change, saved at `now`, last of all.
    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()>;

    /// Adds a row as it is, with its own id, order and time. No row has that id.
    fn copy(&mut self, row: &Row) -> Result<()>;

    /// Deletes the row, if there is one; tells whether there was. What is in it need not be readable.
    fn delete(&mut self, id: &str) -> Result<bool>;

    /// Deletes all rows.
    fn delete_all(&mut self) -> Result<()>;

    /// Puts the lease under this key, in the place of any other.
    fn take_lease(&mut self, key: &str, lease: &Lease) -> Result<()>;

    /// Removes the lease under this key, if it is `owner`'s.
    fn give_back(&mut self, key: &str, owner: &str) -> Result<()>;

    /// What this change replaces must not stay readable anywhere. (What it deletes must not in any case.)
    fn leave_no_trace(&mut self) {}
}

/// Where rows live. Owns atomicity; decides nothing about tokens.
pub trait Backend: Send + Sync {
    /// How messages name it.
    fn place(&self) -> &Place;

    /// [`Rows::by_key`], by itself: the hot path.
    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>>;

    /// Runs `work`, possibly more than once, on the rows of one moment.
    fn read(&self, deadline: Deadline, work: &mut dyn FnMut(&dyn Rows) -> Result<()>) -> Result<()>;

    /// Runs `work`, possibly more than once, as one change; durable when this returns. If it fails, nothing happened.
    fn write(&self, deadline: Deadline, work: &mut dyn FnMut(&mut dyn Change) -> Result<()>) -> Result<()>;

    /// The same for what may go with the machine's power, and so has no disk to wait for.
    fn write_lightly(&self, deadline: Deadline, work: &mut dyn FnMut(&mut dyn Change) -> Result<()>) -> Result<()> {
        self.write(deadline, work)
    }

    /// Writes a copy of all rows, as of one moment, into a new SQLite file.
    fn backup(&self, target: &Path, deadline: Deadline) -> Result<()>;

    /// What is not as it should be with the place where the rows are, the rows themselves apart. Changes nothing.
    fn check(&self, _: Deadline) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// Lets go of what it holds. Nothing is called on it afterwards.
    fn close(&self, deadline: Deadline);
}

/// May an operation wait for others?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// No: it fails with [`Error::Busy`] at once. For callers that hold a lock others need (Python's).
    No,
    /// As long as the store was told at its making.
    Yes,
}

/// A row that was found for a token.
pub struct Found(Row);

impl Found {
    /// The row's own values.
    #[must_use]
    pub fn row(&self) -> Token<'_> {
        self.0.token()
    }

    /// The token that it was found for, completed from the row (contract 4).
    #[must_use]
    pub fn complete<'a>(&'a self, token: Token<'a>) -> Token<'a> {
        merge::complete(token, self.row())
    }
}

/// A token store over some backend.
pub struct Store {
    backend: Box<dyn Backend>,
    patience: Duration,
    saves: Group<Save, Saved>,
    leases: held::Leases,
    closed: AtomicBool,
}

impl Store {
    /// A store over `backend` that waits for others at most `patience`, without refresh leases.
    #[must_use]
    pub fn new(backend: Box<dyn Backend>, patience: Duration) -> Self {
        Self {
            backend,
            patience,
            saves: Group::default(),
            leases: held::Leases::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// How messages name it.
    #[must_use]
    pub fn place(&self) -> &Place {
        self.backend.place()
    }

    /// The row that the token names (contract 3).
    pub fn find(&self, token: Token<'_>, wait: Wait) -> Result<Option<Found>> {
        self.enter(self.deadline(wait), |backend, deadline| {
            let Some((first, value)) = identity::keys(token).next() else { return Ok(None) };
            // Nearly every token is found by its first key, and then one look is one moment by itself.
            if let Some(row) = identity::choose(first, token, backend.by_key(first, value, deadline)?) {
                return Ok(Some(Found(row)));
            }
            if identity::keys(token).nth(1).is_none() {
                return Ok(None);
            }
            let mut found = None;
            backend.read(deadline, &mut |rows| {
                found = identity::find(token, |key, value| rows.by_key(key, value))?;
                Ok(())
            })?;
            Ok(found.map(Found))
        })
    }

    /// The row with this id. `None` is an absent id, and no row has that.
    pub fn find_by_id(&self, id: Option<&str>, wait: Wait) -> Result<Option<Found>> {
        self.enter(self.deadline(wait), |backend, deadline| {
            let Some(id) = present(id) else { return Ok(None) };
            Ok(backend.by_key(Key::Id, id, deadline)?.pop().map(Found))
        })
    }

    /// All rows, the oldest first.
    pub fn all(&self) -> Result<Vec<Row>> {
        let mut all = Vec::new();
        self.read(|rows| {
            all.clear();
            rows.each(&mut |row| all.push(row))
        })?;
        Ok(all)
    }

    /// How many rows there are.
    pub fn count(&self) -> Result<usize> {
        let mut count = 0;
        self.read(|rows| {
            count = rows.count()?;
            Ok(())
        })?;
        Ok(count)
    }

    /// Saves the token at `now` (milliseconds since the epoch) and returns its row's id (contract 5).
    pub fn save(&self, token: Token<'_>, now: i64) -> Result<String> {
        Ok(self.save_with_others(token, now, &[], &mut false)?.id)
    }

    /// The same, in one change with what others save at this moment; a fresh access token gives the leases back. Notes
    /// whether there was trouble with any.
    fn save_with_others(&self, token: Token<'_>, now: i64, held: &[Lent], trouble: &mut bool) -> Result<Saved> {
        self.enter(self.deadline(Wait::Yes), |backend, deadline| {
            let save = Save { token: Row::new(token, 0, None), now, held: held.to_vec() };
            self.saves.run(save, deadline, self.place(), |all| {
                let mut saved = Vec::new();
                backend.write(deadline, &mut |change| {
                    saved.clear();
                    all.iter().try_for_each(|one| {
                        saved.push(one.make(change, self.place(), trouble)?);
                        Ok(())
                    })
                })?;
                Ok(saved)
            })
        })
    }

    /// Saves each token, all of them or none, and returns their rows' ids.
    pub fn import(&self, tokens: &[Token<'_>], now: i64) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        self.write(|change| {
            ids.clear();
            for &token in tokens {
                ids.push(save(change, token, now, self.place())?.id);
            }
            Ok(())
        })?;
        Ok(ids)
    }

    /// Deletes the row with this id, if there is one.
    pub fn delete(&self, id: Option<&str>) -> Result<()> {
        self.write(|change| present(id).map_or(Ok(()), |id| change.delete(id).map(drop)))
    }

    /// Deletes all rows.
    pub fn delete_all(&self) -> Result<()> {
        self.write(|change| change.delete_all())
    }

    /// Deletes what may go at `now` (contract 10), both in milliseconds, and returns how many rows that were.
    pub fn purge(&self, now: i64, idle_for: Option<i64>) -> Result<usize> {
        self.delete_where(|row| purge::may_go(row, now, idle_for))
    }

    fn delete_where(&self, may_go: impl Fn(&Row) -> bool) -> Result<usize> {
        let mut spent = BTreeSet::new();
        self.write(|change| {
            // Not emptied for a second attempt: it does not see again what the first one has deleted.
            change.each(&mut |row| {
                if may_go(&row) {
                    spent.insert(row.id().to_owned());
                }
            })?;
            spent.iter().try_for_each(|id| change.delete(id).map(drop))
        })?;
        Ok(spent.len())
    }

    /// Writes a consistent copy into a SQLite file.
    pub fn backup(&self, target: &Path) -> Result<()> {
        self.enter(self.deadline(Wait::Yes), |backend, deadline| backend.backup(target, deadline))
    }

    /// Closes the store, and gives back what leases it holds. Any later operation fails with [`Error::Closed`]; a second
    /// `close` is none.
    pub fn close(&self) {
        self.give_back_all();
        let deadline = Deadline::after(self.patience);
        let _pass = fork::enter(deadline);
        self.let_go(deadline);
    }

    fn let_go(&self, deadline: Deadline) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.backend.close(deadline);
        }
    }

    fn read(&self, mut work: impl FnMut(&dyn Rows) -> Result<()>) -> Result<()> {
        self.enter(self.deadline(Wait::Yes), |backend, deadline| backend.read(deadline, &mut work))
    }

    fn write(&self, mut work: impl FnMut(&mut dyn Change) -> Result<()>) -> Result<()> {
        self.enter(self.deadline(Wait::Yes), |backend, deadline| backend.write(deadline, &mut work))
    }

    fn deadline(&self, wait: Wait) -> Deadline {
        match wait {
            Wait::No => Deadline::now(),
            Wait::Yes => Deadline::after(self.patience),
        }
    }

    fn enter<T>(&self, deadline: Deadline, mut work: impl FnMut(&dyn Backend, Deadline) -> Result<T>) -> Result<T> {
        loop {
            let Some(_pass) = fork::enter(deadline) else { return Err(deadline.busy(self.place())) };
            if self.closed.load(Ordering::Acquire) {
                return Err(Error::Closed(self.place().clone()));
            }
            match work(&*self.backend, deadline) {
                // With time left it was a fork that it gave way to.
                Err(error) if error.is_busy() && deadline.left().is_some() => {}
                result => return result,
            }
        }
    }
}

impl Drop for Store {
    /// Whoever drops it may hold the GIL, and a thread that forks needs that to go on: so this does not wait for it. Nor
    /// need it, for while this thread holds the GIL no other can fork.
    fn drop(&mut self) {
        self.let_go(Deadline::now());
    }
}

/// An absent id is an id that no row has (contract 2).
fn present(id: Option<&str>) -> Option<&str> {
    id.filter(|id| !id.is_empty())
}

/// A token to be saved by whoever has its turn.
struct Save {
    token: Row,
    now: i64,
    held: Vec<Lent>,
}

/// A lease that a save may give back, and its key.
type Lent = (crate::domain::lease::Key, Lease);

impl Save {
    fn make(&self, change: &mut dyn Change, place: &Place, trouble: &mut bool) -> Result<Saved> {
        let saved = save(change, self.token.token(), self.now, place)?;
        for (key, lease) in self.held.iter().filter(|_| saved.is_fresh) {
            *trouble |= change.give_back(key.as_str(), &lease.owner).is_err();
        }
        Ok(saved)
    }
}

/// What came of saving a token.
#[derive(Clone)]
struct Saved {
    id: String,
    /// Did it bring an access token that its row did not have?
    is_fresh: bool,
}

/// Contract 5, within a change.
fn save(change: &mut dyn Change, token: Token<'_>, now: i64, place: &Place) -> Result<Saved> {
    let access = token.get(Field::AccessToken);
    if let Some(row) = identity::find(token, |key, value| change.by_key(key, value))? {
        let updated = merge::update(token, row.token());
        if merge::replaces_lasting_secret(row.token(), updated) {
            change.leave_no_trace();
        }
        change.update(&row, updated, now)?;
        let is_fresh = access.is_some() && access != row.get(Field::AccessToken);
        return Ok(Saved { id: row.id().to_owned(), is_fresh });
    }
    if !merge::is_worth_a_row(token) {
        return Err(Error::NothingToSave(place.clone()));
    }
    Ok(Saved { id: insert(change, token, now)?, is_fresh: access.is_some() })
}

/// Adds a row, with the token's id if it has one that is free, and returns its id.
fn insert(change: &mut dyn Change, token: Token<'_>, now: i64) -> Result<String> {
    let has_row = |id: &str| Ok(!change.by_key(Key::Id, id)?.is_empty());
    let id = match token.get(Field::Id) {
        Some(id) if !has_row(id)? => id.to_owned(),
        _ => {
            let number = id::next(change.last_id()?, has_row)?;
            change.raise_last_id(number)?;
            number.to_string()
        }
    };
    change.insert(token.with(Field::Id, Some(&id)), now)?;
    Ok(id)
}
