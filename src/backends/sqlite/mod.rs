//! Rows in a SQLite file, for any number of threads and processes.
//!
//! This file decides which connection to use and when to start over; [`sql`] has the statements, [`schema`] and [`make`]
//! whose a file is, making and migrating it, [`database`] the connections to it, [`open`] and [`connect`] one of them,
//! [`guard`], [`lock`] and [`shm`] the locks that SQLite's lack, [`recent`] what was found lately, [`traces`] what is to be
//! wiped, [`source`] files that are only looked at, [`file`], [`draft`] and [`network`] paths, [`memory`] the same without
//! a file.

mod backup;
mod busy;
mod connect;
mod database;
mod error;
mod guard;
mod make;
mod memory;
mod network;
mod open;
mod path;
mod recent;
mod schema;
mod shm;
mod source;
mod sql;
mod traces;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::TransactionBehavior;

use self::database::{Database, Role};
use self::error::from_sqlite;
use self::network::network;
use self::open::Open;
use self::sql::Sql;
use crate::domain::check::Finding;
use crate::domain::{Key, Row};
use crate::store::backend::{Backend, DatabaseFormat, Durability, Location, Snapshot, Transaction};
use crate::store::deadline::Deadline;
use crate::store::error::{Code, Error, Result};
use crate::store::files::{self, FileId};
use crate::store::fork_state;
use crate::store::lock_order::{Ordered, Rank};
pub use database::Journal;
pub use memory::Memory;
pub use source::check;

/// How often an operation starts over when files are taken away under it, even if it may not wait.
const ATTEMPTS: usize = 8;

/// A SQLite file.
pub struct Sqlite {
    path: PathBuf,
    location: Location,
    journal: Journal,
    /// The file that the path named when we last looked. Looked at again by every operation.
    current: Ordered<Option<Arc<Database>>>,
    /// Set and read under the lock of `current`: no operation opens the file again.
    closed: AtomicBool,
}

impl Sqlite {
    /// Opens the file at an absolute `path`; makes it if there is none, migrates it if it is older.
    pub fn open(path: &Path, deadline: Deadline) -> Result<Self> {
        Self::with_journal(path, Journal::Wal, deadline)
    }

    /// The same, with or without WAL. A file that is in WAL mode already stays in it.
    pub fn with_journal(path: &Path, journal: Journal, deadline: Deadline) -> Result<Self> {
        let location = Location::path_of(path);
        let sqlite = Self {
            path: path.to_owned(),
            location,
            journal,
            current: Ordered::new(Rank::StoreState, None),
            closed: AtomicBool::new(false),
        };
        files::remove_stale_temporary_files(path);
        // Both, so that the first find does not pay for it.
        sqlite.with(Role::Writer, deadline, |_, _| Ok(Some(())))?;
        sqlite.with(Role::Reader, deadline, |_, _| Ok(Some(())))?;
        Ok(sqlite)
    }

    /// May anybody but its owner read the file?
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        files::is_exposed(&self.path)
    }

    /// What the file system that it is on is called, if more than one machine may use that.
    #[must_use]
    pub fn network(&self) -> Option<&'static str> {
        network(&self.path)
    }

    /// Runs `work` on an open connection to the file that the path names now, and again if it was another by the end:
    /// then nothing of what it did counts, its failure included. `None` says the same.
    fn with<T>(
        &self,
        role: Role,
        deadline: Deadline,
        mut work: impl FnMut(&Database, &Open) -> Result<Option<T>>,
    ) -> Result<T> {
        busy::until(deadline, || {
            let mut attempt = 0;
            loop {
                attempt += 1;
                let again = attempt < ATTEMPTS || deadline.left().is_some();
                let database = match self.database(deadline) {
                    Err(error) if error.is_busy() && again && deadline.sleep(busy::POLL) => continue,
                    database => database?,
                };
                let mut slot = database.slot(role).lock(deadline).ok_or_else(|| deadline.busy(&self.location))?;
                match self.attempt(&database, role, deadline, &mut slot, &mut work) {
                    Ok(Some(done)) => return Ok(done),
                    Ok(None) if !again => return Err(deadline.busy(&self.location)),
                    Ok(None) => {}
                    Err(error) if error.is_busy() && (deadline.left().is_none() || fork_state::is_fork_awaited()) => {
                        return Err(error);
                    }
                    Err(error) => {
                        let there = slot.as_ref().map_or(FileId::of(&self.path) == Some(database.id), |open| {
                            self.reaches_the_file(&database, open)
                        });
                        if (there && !error.is_busy()) || !again {
                            if slot.as_ref().is_some_and(Open::is_read_only) {
                                // The file may be given back to us: the next change looks again whether it can write.
                                drop(slot);
                                let _ = database.retire(deadline);
                            }
                            return Err(error);
                        }
                    }
                }
                drop(slot);
                database.retire(deadline)?;
                if attempt > 1 {
                    deadline.sleep(busy::POLL);
                }
            }
        })
    }

    fn attempt<T>(
        &self,
        database: &Database,
        role: Role,
        deadline: Deadline,
        slot: &mut Option<Open>,
        work: &mut impl FnMut(&Database, &Open) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        if slot.is_none() {
            self.take_time(deadline)?;
            *slot = Some(database.open(role, self.journal)?);
        }
        match slot.as_ref().filter(|open| database.is_current(open)) {
            Some(open) => work(database, open),
            None => Ok(None),
        }
    }

    /// The file that the path names now, made if there is none.
    fn database(&self, deadline: Deadline) -> Result<Arc<Database>> {
        let busy = || deadline.busy(&self.location);
        let mut current = self.current.lock(deadline).ok_or_else(busy)?;
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::new(Code::Closed, &self.location));
        }
        if let Some(database) = current.as_ref().filter(|database| FileId::of(&self.path) == Some(database.id)) {
            return Ok(Arc::clone(database));
        }
        self.take_time(deadline)?;
        if let Some(database) = current.as_ref() {
            database.abandon(deadline)?;
        }
        *current = None;
        path::ensure(&self.path, |draft| make::make(draft, &self.path, self.journal))?;
        let database = Database::at(&self.path, deadline)?;
        *current = Some(Arc::clone(&database));
        Ok(database)
    }

    /// What the key finds, if there is an open connection to the file that the path names now, and nobody in the way.
    fn at_once(&self, key: Key, value: &str) -> Option<Vec<Row>> {
        let database = Arc::clone(self.current.try_lock()?.as_ref()?);
        let slot = database.slot(Role::Reader).try_lock()?;
        let open = slot.as_ref().filter(|_| FileId::of(&self.path) == Some(database.id))?;
        self.look(&database, open, key, value, Deadline::now()).ok()?
    }

    /// What the key finds: what it has found before, if nothing has changed since. `None`: the connection is not to be used
    /// any more.
    ///
    /// What was found before asks no SQLite, so it is as good in a forked child. Nor is the `-wal` looked at for it: nobody
    /// removes that as long as our locks are held, but for somebody who does so by hand; and then whatever asks SQLite
    /// notices, every change among it.
    fn look(
        &self,
        database: &Database,
        open: &Open,
        key: Key,
        value: &str,
        deadline: Deadline,
    ) -> Result<Option<Vec<Row>>> {
        let state = open.guards.state();
        if let Some(rows) = state.and_then(|state| open.recent.borrow().get(&state, key, value)) {
            return Ok(Some(rows));
        }
        if !database.is_current(open) {
            return Ok(None);
        }
        let found = open.reading(deadline, || Sql::new(&open.connection, &self.location).by_key(key, value));
        let rows = found.ok_or_else(|| deadline.busy(&self.location))??;
        if let Some(state) = state {
            open.recent.borrow_mut().keep(state, key, value, &rows);
        }
        Ok(Some(rows))
    }

    /// Opening a file takes its time, even if nobody is in the way.
    fn take_time(&self, deadline: Deadline) -> Result<()> {
        if deadline.allows_slow_work() { Ok(()) } else { Err(deadline.busy(&self.location)) }
    }

    /// One attempt at a change; tells whether it left traces. `None`: it did not reach the file, and has to be made once
    /// more.
    fn change(
        &self,
        database: &Database,
        open: &Open,
        work: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<Option<bool>> {
        let failed = |error| from_sqlite(&self.location, &error);
        // Immediate: a transaction that reads before it writes would be refused, not made to wait.
        let transaction =
            rusqlite::Transaction::new_unchecked(&open.connection, TransactionBehavior::Immediate).map_err(failed)?;
        let mut sql = Sql::new(&open.connection, &self.location);
        work(&mut sql)?;
        sql.end()?;
        if !self.reaches_the_file(database, open) {
            return Ok(None);
        }
        transaction.commit().map_err(failed)?;
        // Before the commit it is a precaution, after it the proof: only now may it be acknowledged. Whoever took the
        // file away in between, the same work again does no harm: it finds what it has written, or nothing.
        if !self.reaches_the_file(database, open) {
            return Ok(None);
        }
        Ok(Some(sql.leaves_traces.get()))
    }

    /// Is what a transaction on `open` wrote, or will write, in the file that the path names?
    fn reaches_the_file(&self, database: &Database, open: &Open) -> bool {
        FileId::of(&self.path) == Some(database.id) && database.has_its_wal(open)
    }
}

impl Backend for Sqlite {
    fn location(&self) -> &Location {
        &self.location
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn groups_saves(&self) -> bool {
        true
    }

    fn answers_at_once(&self) -> bool {
        true
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        match self.at_once(key, value) {
            Some(rows) => Ok(rows),
            None => self.with(Role::Reader, deadline, |database, open| self.look(database, open, key, value, deadline)),
        }
    }

    fn read(&self, deadline: Deadline, work: &mut dyn FnMut(&dyn Snapshot) -> Result<()>) -> Result<()> {
        self.with(Role::Reader, deadline, |_, open| {
            let done = open.reading(deadline, || {
                let _moment = rusqlite::Transaction::new_unchecked(&open.connection, TransactionBehavior::Deferred)
                    .map_err(|error| from_sqlite(&self.location, &error))?;
                work(&Sql::new(&open.connection, &self.location))
            });
            done.ok_or_else(|| deadline.busy(&self.location))?.map(Some)
        })
    }

    fn write(
        &self,
        deadline: Deadline,
        durability: Durability,
        work: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()> {
        self.with(Role::Writer, deadline, |database, open| {
            if durability == Durability::Relaxed {
                let done = open.in_turn(deadline, || open.lightly(|| self.change(database, open, work)));
                return Ok(done.ok_or_else(|| deadline.busy(&self.location))??.map(drop));
            }
            let done = open.in_turn(deadline, || self.change(database, open, work));
            let done = done.ok_or_else(|| deadline.busy(&self.location))??;
            match done {
                Some(true) => database.traces.wipe(&database.path, open, Deadline::after(busy::SCRUB_TIMEOUT)),
                // Somebody was reading when they were left. No save waits for that.
                Some(false) if database.traces.are_left() => database.traces.wipe_left(open, Deadline::now()),
                _ => {}
            }
            Ok(done.map(drop))
        })
    }

    fn online_backup(&self, target: &Path, deadline: Deadline) -> Result<bool> {
        let write = || {
            // A connection of its own: a large file takes a while, and finds must not wait for it.
            let source = connect::connect(&self.path, &self.location)?;
            backup::write(&source, &self.location, target)
        };
        let is_written = self.with(Role::Reader, deadline, |_, open| {
            if open.has_wal() {
                return Ok(Some(false));
            }
            // Without WAL they have to.
            open.reading(deadline, write).ok_or_else(|| deadline.busy(&self.location))?.map(|()| Some(true))
        })?;
        if !is_written {
            busy::until(deadline, write)?;
        }
        Ok(true)
    }

    fn check(&self, deadline: Deadline) -> Result<Vec<Finding>> {
        let mut findings = source::surroundings(&self.path);
        // A connection of its own, for the same reason.
        let look =
            || connect::connect(&self.path, &self.location).and_then(|file| source::inside(&file, &self.location));
        let inside = self.with(Role::Reader, deadline, |_, open| {
            if open.has_wal() {
                return Ok(Some(None));
            }
            Ok(Some(Some(open.reading(deadline, look).ok_or_else(|| deadline.busy(&self.location))?)))
        });
        match inside.and_then(|inside| inside.unwrap_or_else(|| busy::until(deadline, look))) {
            Ok(inside) => findings.extend(inside),
            Err(error) => findings.push(error.into_finding()?),
        }
        Ok(findings)
    }

    fn before_fork(&self, deadline: Deadline) {
        let database = self.current.lock(deadline).and_then(|current| current.clone());
        if let Some(database) = database {
            let _ = database.retire(deadline);
        }
    }

    fn before_exit(&self, deadline: Deadline) {
        let database = self.current.lock(deadline).and_then(|current| current.clone());
        if let Some(database) = database {
            database.close(deadline);
        }
    }

    fn close(&self, deadline: Deadline) {
        if let Some(mut current) = self.current.lock(deadline) {
            self.closed.store(true, Ordering::Relaxed);
            busy::until(deadline, || drop(current.take()));
        }
    }
}

/// SQLite database files, for import, restore and backup.
pub static FORMAT: DatabaseFormat = DatabaseFormat {
    name: "SQLite",
    // https://www.sqlite.org/fileformat.html, section 1.3.1
    signature: b"SQLite format 3\0",
    reserved_endings: &["-wal", "-shm", "-journal"],
    read: source::read,
    write: write_backup,
};

fn write_backup(rows: &[Row], last_id: i64, target: &Path, deadline: Deadline) -> Result<()> {
    let mut copy = Memory::new()?;
    copy.fill(rows, last_id)?;
    copy.online_backup(target, deadline).map(drop)
}
