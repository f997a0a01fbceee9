//! The trait that a backend implements. This is the one file that the author of a backend has to read.
//!
//! A backend keeps rows and makes each change atomic. It decides nothing about tokens: [`crate::domain`] does. The
//! operations on top ([`super::Store`]) are the same for every backend.
//! The shortest complete backend is the list (`list.rs`).

use std::collections::BTreeSet;
use std::path::Path;

use super::deadline::Deadline;
use super::error::{Code, Error, Result};
pub use super::location::Location;
use crate::domain::backoff::RefreshFailures;
use crate::domain::check::Finding;
use crate::domain::identity::Keys;
use crate::domain::lease::{Lease, LookCost};
use crate::domain::{Key, Row, Token};

/// The rows of a store, all as of one moment.
pub trait Snapshot {
    /// Returns all rows whose field `key` is exactly `value`, in any order.
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>>;

    /// Looks up the keys in their order, and passes the rows of each to `accept` until `accept` returns true.
    ///
    /// A backend that pays a round trip per statement overrides this, and looks up all keys in one statement.
    fn by_keys(&self, keys: &Keys<'_>, accept: &mut dyn FnMut(Key, Vec<Row>) -> bool) -> Result<()> {
        for (key, value) in keys.iter() {
            if accept(key, self.by_key(key, value)?) {
                break;
            }
        }
        Ok(())
    }

    /// Passes every row to `visit`, the oldest row first. Stops at the first error of `visit`, and returns it.
    fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()>;

    /// Returns the number of rows. A database counts them without reading them.
    fn count(&self) -> Result<usize> {
        let mut count = 0;
        self.each(&mut |_| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// Returns the highest number that the id of any row ever had ([`crate::domain::id::number`]), deleted rows
    /// included; 0 if there was none.
    fn last_id(&self) -> Result<i64>;

    /// Announces that the lease of the row that is looked up next will be read. `key` is the key of its lease if there is
    /// no such row. A backend that pays a round trip per statement looks up both in one statement.
    fn announce_lease(&self, _key: Option<&str>) {}

    /// Returns the lease under this key, whether it is still valid or not, and the failures that are recorded there.
    fn lease(&self, key: &str) -> Result<SeenLease>;

    /// Returns the names that [`Transaction::set_key_names`] has set: ids of keys, and
    /// [`crate::domain::key_ring::PLAINTEXT`] if there may be rows in clear text. Empty: no row was ever sealed.
    /// `None`: the record is lost.
    fn key_names(&self) -> Result<Option<BTreeSet<String>>> {
        Ok(Some(BTreeSet::new()))
    }
}

/// A lease as a backend returns it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenLease {
    /// The lease, if there is one.
    pub lease: Option<Lease>,
    /// The last refreshes, if they have failed.
    pub failures: Option<RefreshFailures>,
    /// The time of the backend's own clock when it read the lease, in milliseconds since the epoch. `None` if the
    /// backend has no clock: then the clock of the requester's machine counts.
    pub now: Option<i64>,
}

/// A change that is not committed yet. It reads its own writes.
pub trait Transaction: Snapshot {
    /// Was the answer to the commit of the attempt before lost? Then that attempt may have been committed, and this one
    /// may see the rows as that one has left them. After any other failure nothing was changed.
    ///
    /// A backend whose commits give no answer that can be lost needs no override.
    fn follows_lost_commit(&self) -> bool {
        false
    }

    /// Records that ids up to `number` are used, so that none of them is given out again.
    fn raise_last_id(&mut self, number: i64) -> Result<()>;

    /// Adds a row with the token's values and id. It counts as saved at `now`, after every other row.
    fn insert(&mut self, token: Token<'_>, now: i64) -> Result<()>;

    /// Replaces the values of `row`, which this transaction has read. It counts as saved at `now`, after every other
    /// row.
    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()>;

    /// Adds a row with its own id, order and time. No row has that id yet. A backend may give the copied rows other
    /// orders that sort them in the same way.
    fn copy(&mut self, row: &Row) -> Result<()>;

    /// Deletes the row with this id, and returns whether there was one. It also deletes a row that cannot be read.
    fn delete(&mut self, id: &str) -> Result<bool>;

    /// Deletes all rows.
    fn delete_all(&mut self) -> Result<()>;

    /// Stores the lease under this key, and replaces any other.
    fn acquire_lease(&mut self, key: &str, lease: &Lease) -> Result<()>;

    /// Removes the lease under this key if `owner` holds it.
    fn release_lease(&mut self, key: &str, owner: &str) -> Result<()>;

    /// Records under this key that refreshes have failed, and replaces what was recorded before.
    fn record_failures(&mut self, key: &str, failures: &RefreshFailures) -> Result<()>;

    /// Replaces the values of `row`, which this transaction has read. It keeps its order and its time.
    fn rewrite(&mut self, _row: &Row, _token: Token<'_>) -> Result<()> {
        Err(Error::new(Code::Unsupported, "").with(ENCRYPTION))
    }

    /// Records the names under which there may be rows. The first name of a key makes a store of rows in clear text one
    /// of sealed rows, and no name at all makes it one of clear text again.
    ///
    /// As far as the backend can, it keeps away programs that do not know sealed rows while there is a name. It then
    /// refuses a row that mixes sealed values and clear text, and without the name
    /// [`crate::domain::key_ring::PLAINTEXT`] a row in clear text, too.
    fn set_key_names(&mut self, _names: &BTreeSet<String>) -> Result<()> {
        Err(Error::new(Code::Unsupported, "").with(ENCRYPTION))
    }

    /// Requires that the values which this transaction replaces do not stay readable anywhere. Deleted values never do.
    fn scrub_replaced(&mut self) {}

    /// The same, but without a wait for readers: when all rows are sealed, [`Backend::scrub`] follows.
    fn scrub_replaced_later(&mut self) {
        self.scrub_replaced();
    }
}

/// What a backend lacks that cannot store sealed rows.
const ENCRYPTION: &str = "encryption at rest";

/// Work on one snapshot.
pub type Reading<'a> = dyn FnMut(&dyn Snapshot) -> Result<()> + 'a;

/// Work that is committed as one transaction.
pub type Change<'a> = dyn FnMut(&mut dyn Transaction) -> Result<()> + 'a;

/// How durable a write is when [`Backend::write`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The change survives a crash of the process and a power failure.
    Full,
    /// The change survives a crash of the process. A power failure may undo it. Used for leases alone.
    Relaxed,
}

/// A place that keeps rows.
///
/// Every method that can wait takes a [`Deadline`], and fails with [`super::error::Code::Busy`] when it is over. A
/// method fails with `Busy` before the deadline only while the process is about to fork
/// ([`super::fork_state::is_fork_awaited`]).
pub trait Backend: Send + Sync {
    /// Returns the location that messages name.
    fn location(&self) -> &Location;

    /// Can other processes use the same rows? Then their leases count. Otherwise a lease of another process can only
    /// be one that this process inherited when it was forked, and it does not count.
    fn is_shared(&self) -> bool {
        true
    }

    /// Does one commit for several saves save time? Then [`super::Store`] groups saves that arrive at the same time.
    fn groups_saves(&self) -> bool {
        false
    }

    /// Does a lookup take microseconds? Then a find runs with Python's GIL held. A lookup over a network does not.
    fn answers_at_once(&self) -> bool {
        false
    }

    /// Do its operations run functions of the program, such as methods of Python objects? With greenlets, such a
    /// function may switch to another one, so its thread must not have released the GIL.
    fn runs_foreign_code(&self) -> bool {
        false
    }

    /// What does a look at a lease cost? A requester that waits looks the less often, the more it costs.
    fn look_cost(&self) -> LookCost {
        if self.answers_at_once() { LookCost::Microseconds } else { LookCost::Statement }
    }

    /// [`Snapshot::by_key`] outside any transaction. This is the hot path of every find.
    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        let mut found = Vec::new();
        self.read(deadline, &mut |rows| {
            found = rows.by_key(key, value)?;
            Ok(())
        })?;
        Ok(found)
    }

    /// [`Backend::by_key`], and whether it is known that no row was sealed at the same moment. For a store without keys a
    /// miss is certain then. A backend that would have to look returns false.
    fn by_key_in_clear_text(&self, key: Key, value: &str, deadline: Deadline) -> Result<(Vec<Row>, bool)> {
        Ok((self.by_key(key, value, deadline)?, false))
    }

    /// [`Snapshot::by_keys`] outside any transaction. All keys are looked up in one snapshot.
    fn by_keys(
        &self,
        keys: &Keys<'_>,
        deadline: Deadline,
        accept: &mut dyn FnMut(Key, Vec<Row>) -> bool,
    ) -> Result<()> {
        self.read(deadline, &mut |rows| rows.by_keys(keys, accept))
    }

    /// Runs `work` on one snapshot. It may run `work` again if an attempt fails.
    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()>;

    /// Runs `work` as one transaction, and commits it. It may run `work` again if an attempt fails. If it returns an
    /// error, nothing was changed.
    fn write(&self, deadline: Deadline, durability: Durability, work: &mut Change<'_>) -> Result<()>;

    /// Writes a consistent copy of all rows into a new file while others go on writing. Returns false if the backend
    /// cannot: then [`super::Store::backup`] copies row by row.
    fn online_backup(&self, _target: &Path, _deadline: Deadline) -> Result<bool> {
        Ok(false)
    }

    /// Returns what is wrong with the location, apart from the rows. Changes nothing.
    fn check(&self, _deadline: Deadline) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// Makes everything unreadable that was deleted or replaced, however long that takes. A backend on a server leaves that
    /// to the server. Fails with `Busy` if that was not possible before the deadline. Saves go on meanwhile.
    fn scrub(&self, _deadline: Deadline) -> Result<()> {
        Ok(())
    }

    /// Runs in the thread that is about to fork, while no operation runs. A child must not inherit anything that
    /// works in one process only, such as an open database file.
    fn before_fork(&self, _deadline: Deadline) {}

    /// Runs in the child after a fork. A connection that the parent goes on using is forgotten here, not closed.
    fn after_fork_in_child(&self) {}

    /// Runs before the interpreter ends. The store may still be used afterwards.
    fn before_exit(&self, _deadline: Deadline) {}

    /// Releases everything. No operation begins afterwards. An operation of another thread may still be running, and
    /// the hooks above may still be called.
    fn close(&self, _deadline: Deadline) {}
}

/// The rows of a database.
pub struct DatabaseRows {
    /// All rows, the oldest first.
    pub rows: Vec<Row>,
    /// The highest number that an id ever had, or 0 if the database does not say.
    pub last_id: i64,
}

/// A kind of database file that rows can be read from and backed up to, for import, restore and backup.
pub struct DatabaseFormat {
    /// What users call it.
    pub name: &'static str,
    /// The bytes that every such file begins with.
    pub signature: &'static [u8],
    /// The endings of the files that the database keeps beside a file, for example `"-wal"`.
    pub reserved_endings: &'static [&'static str],
    /// Reads all rows. Leaves the file as it is.
    pub read: fn(&Path) -> Result<DatabaseRows>,
    /// Writes rows, with their own ids, order and times, into a new file that only its owner can read. The second
    /// argument is the highest number that an id ever had.
    pub write: fn(&[Row], i64, &Path, Deadline) -> Result<()>,
}

impl DatabaseFormat {
    /// Does the database keep files with this name beside a file? It would take any file there for its own.
    #[must_use]
    pub fn reserves(&self, path: &Path) -> bool {
        let name = path.as_os_str().as_encoded_bytes();
        self.reserved_endings.iter().any(|ending| name.ends_with(ending.as_bytes()))
    }
}
