//! Rows in a SQLite file, for any number of threads and processes.
//!
//! | Modules | What they do |
//! | --- | --- |
//! | this one | the backend: finds, reads, changes |
//! | `attempt` | runs an operation, again if the file or its WAL was replaced |
//! | `registry`, `database` | the open files of this process, one of these files |
//! | `connection`, `waiting` | a connection to a file, how it waits |
//! | `file_locks`, `shared_memory`, `wal` | locks beside SQLite's, the `-shm`, removing a `-wal` |
//! | `sql`, `schema` | statements, migrations |
//! | `read_cache`, `residue` | what was found before, deleted secrets |
//! | `backup`, `inspect` | copying a file, reading or checking a file without a store |
//! | `path`, `read_only`, `error` | paths and file systems, files that cannot be written, SQLite's errors |
//! | `memory` | the same rows in memory |

mod attempt;
mod backup;
mod connection;
mod database;
mod error;
mod file_locks;
mod inspect;
mod memory;
mod path;
mod read_cache;
mod read_only;
mod registry;
mod residue;
mod schema;
mod shared_memory;
mod sql;
mod waiting;
mod wal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::TransactionBehavior;

use self::attempt::{AttemptOutcome, retry_while_busy};
use self::connection::OpenConnection;
use self::database::{Database, Role};
use self::error::from_sqlite;
use self::read_only::Access;
use self::sql::Sql;
use self::waiting::{SCRUB_POLL, with_deadline};
use crate::domain::check::Finding;
use crate::domain::{Key, Row};
use crate::store::atomic_write;
use crate::store::backend::{Backend, Change, DatabaseFormat, Durability, Location, Reading, Snapshot};
use crate::store::deadline::Deadline;
use crate::store::error::{Code, Error, Result};
use crate::store::files::{self, FileId};
use crate::store::lock_order::{Ordered, Rank};
pub use connection::Journal;
pub use inspect::{check, schema_version};
pub use memory::Memory;

/// A store in a SQLite file.
pub struct Sqlite {
    path: PathBuf,
    location: Location,
    journal: Journal,
    /// The file that the path named when we last looked. Every operation looks again.
    current: Ordered<Option<Arc<Database>>>,
    /// True after `close`. Set and read under the lock of `current`, so that no operation opens the file again.
    closed: AtomicBool,
}

impl Sqlite {
    /// Opens the file at an absolute `path`. Creates it if there is none, and migrates it if it is older.
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
        atomic_write::remove_stale_temporary_files(path);
        // Both connections are opened now, so that the first find does not wait for that.
        sqlite.run(Role::Writer, deadline, |_, _| Ok(AttemptOutcome::Done(())))?;
        sqlite.run(Role::Reader, deadline, |_, _| Ok(AttemptOutcome::Done(())))?;
        Ok(sqlite)
    }

    /// Can anybody but the owner of the file read it?
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        files::is_exposed(&self.path)
    }

    /// The name of the file system that the file is on, if more than one machine can use it.
    #[must_use]
    pub fn network(&self) -> Option<&'static str> {
        path::network_file_system(&self.path)
    }

    /// The file that the path names now. It is created if there is none.
    fn database(&self, deadline: Deadline) -> Result<Arc<Database>> {
        let busy = || deadline.busy(&self.location);
        let mut current = self.current.lock(deadline).ok_or_else(busy)?;
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::new(Code::Closed, &self.location));
        }
        if let Some(database) = current.as_ref().filter(|database| FileId::of(&self.path) == Some(database.id)) {
            return Ok(Arc::clone(database));
        }
        self.require_slow_work(deadline)?;
        if let Some(database) = current.as_ref() {
            database.close_replaced_file(deadline)?;
        }
        *current = None;
        wal::require_none_without_file(&self.path)?;
        path::ensure(&self.path, |temporary| connection::create_database(temporary, &self.path, self.journal))?;
        let database = registry::database_at(&self.path, deadline)?;
        *current = Some(Arc::clone(&database));
        Ok(database)
    }

    /// Fails with `Busy` if the deadline does not allow slow work. Opening a file is slow even if no other thread is in
    /// the way.
    fn require_slow_work(&self, deadline: Deadline) -> Result<()> {
        if deadline.allows_slow_work() { Ok(()) } else { Err(deadline.busy(&self.location)) }
    }

    /// Looks the key up without waiting. `None`: there is no open connection to the file that the path names now, or
    /// another thread uses it.
    fn by_key_at_once(&self, key: Key, value: &str) -> Option<(Vec<Row>, bool)> {
        let database = Arc::clone(self.current.try_lock()?.as_ref()?);
        let slot = database.slot(Role::Reader).try_lock()?;
        let open = slot.as_ref().filter(|open| FileId::of(&self.path) == Some(database.id) && !open.is_young())?;
        match self.by_key_on(&database, open, key, value, Deadline::now()) {
            Ok(AttemptOutcome::Done(found)) if database.was_not_torn(open) => Some(found),
            _ => None,
        }
    }

    /// Looks the key up, in the read cache first. Returns also whether it is known that no row was sealed, if none was
    /// found.
    ///
    /// The read cache does not use the connection, so it is valid in a forked child too, and its hits do not check the
    /// WAL. While our locks are held, the WAL can only be removed by hand. Then the next lookup that uses SQLite
    /// notices, and so does every change.
    fn by_key_on(
        &self,
        database: &Database,
        open: &OpenConnection,
        key: Key,
        value: &str,
        deadline: Deadline,
    ) -> Result<AttemptOutcome<(Vec<Row>, bool)>> {
        let version = open.locks.database_version();
        if let Some(version) = version {
            let cache = open.read_cache.borrow();
            if let Some(rows) = cache.get(&version, key, value) {
                let is_clear = rows.is_empty() && cache.is_sealed(&version) == Some(false);
                return Ok(AttemptOutcome::Done((rows, is_clear)));
            }
        }
        if !database.is_usable(open) {
            return Ok(AttemptOutcome::Reopen);
        }
        let found = open.read(deadline, || {
            let sql = Sql::new(&open.connection, &self.location);
            let rows = sql.by_key(key, value)?;
            let knows_form = version.is_none_or(|version| open.read_cache.borrow().is_sealed(&version).is_some());
            let is_sealed = if rows.is_empty() && !knows_form { Some(sql.is_sealed()?) } else { None };
            Ok((rows, is_sealed))
        });
        let (rows, is_sealed) = found.ok_or_else(|| deadline.busy(&self.location))??;
        let Some(version) = version else { return Ok(AttemptOutcome::Done((rows, false))) };
        let mut cache = open.read_cache.borrow_mut();
        cache.insert(version, key, value, &rows);
        if let Some(is_sealed) = is_sealed {
            cache.set_sealed(version, is_sealed);
        }
        let is_clear = rows.is_empty() && cache.is_sealed(&version) == Some(false);
        // The rows and `is_clear` belong to this version if the file still has it.
        Ok(AttemptOutcome::Done((rows, is_clear && open.locks.database_version() == Some(version))))
    }

    /// Makes one attempt at a change. If it leaves residue, returns how long to wait for readers before it is scrubbed.
    fn change(
        &self,
        database: &Database,
        open: &OpenConnection,
        work: &mut Change<'_>,
    ) -> Result<AttemptOutcome<Option<Duration>>> {
        let failed = |error| from_sqlite(&self.location, &error);
        // Immediate: SQLite refuses a transaction that reads before it writes, instead of waiting
        // (https://www.sqlite.org/lang_transaction.html, section 2.1).
        let transaction =
            rusqlite::Transaction::new_unchecked(&open.connection, TransactionBehavior::Immediate).map_err(failed)?;
        let mut sql = Sql::new(&open.connection, &self.location);
        work(&mut sql)?;
        sql.end()?;
        if !self.reaches_the_file(database, open) {
            return Ok(AttemptOutcome::Reopen);
        }
        transaction.commit().map_err(failed)?;
        // The check before the commit is a precaution. This one is the proof: only now may the change be acknowledged.
        // If the file was taken away in between, the change is made again. That does no harm to the file: it finds its
        // own rows, or none.
        if !self.reaches_the_file(database, open) {
            return Ok(AttemptOutcome::Reopen);
        }
        Ok(AttemptOutcome::Done(sql.scrub_timeout.get()))
    }

    /// Is what a transaction on `open` wrote, or will write, in the file that the path names?
    fn reaches_the_file(&self, database: &Database, open: &OpenConnection) -> bool {
        FileId::of(&self.path) == Some(database.id) && database.has_its_wal(open)
    }

    /// Runs `work`, which opens a connection of its own to the file, with the given access. In WAL mode finds and saves
    /// go on meanwhile. Without WAL they have to wait.
    fn run_beside<T>(&self, deadline: Deadline, work: impl Fn(Access) -> Result<T>) -> Result<T> {
        let done = self.run(Role::Reader, deadline, |_, open| {
            if open.has_wal() {
                return Ok(AttemptOutcome::Done(None));
            }
            let access = if open.frozen.is_some() { Access::Frozen } else { Access::Normal };
            let done = open.read(deadline, || work(access)).ok_or_else(|| deadline.busy(&self.location))??;
            Ok(AttemptOutcome::Done(Some(done)))
        })?;
        done.map_or_else(|| retry_while_busy(deadline, || work(Access::Normal)), Ok)
    }
}

impl Backend for Sqlite {
    fn location(&self) -> &Location {
        &self.location
    }

    fn groups_saves(&self) -> bool {
        true
    }

    fn answers_at_once(&self) -> bool {
        true
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        self.by_key_in_clear_text(key, value, deadline).map(|(rows, _)| rows)
    }

    fn by_key_in_clear_text(&self, key: Key, value: &str, deadline: Deadline) -> Result<(Vec<Row>, bool)> {
        match self.by_key_at_once(key, value) {
            Some(found) => Ok(found),
            None => {
                self.run(Role::Reader, deadline, |database, open| self.by_key_on(database, open, key, value, deadline))
            }
        }
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        self.run(Role::Reader, deadline, |_, open| {
            let done = open.read(deadline, || {
                let _snapshot = rusqlite::Transaction::new_unchecked(&open.connection, TransactionBehavior::Deferred)
                    .map_err(|error| from_sqlite(&self.location, &error))?;
                work(&Sql::new(&open.connection, &self.location))
            });
            done.ok_or_else(|| deadline.busy(&self.location))?.map(AttemptOutcome::Done)
        })
    }

    fn write(&self, deadline: Deadline, durability: Durability, work: &mut Change<'_>) -> Result<()> {
        self.run(Role::Writer, deadline, |database, open| {
            let done = open.write(deadline, || match durability {
                Durability::Full => self.change(database, open, work),
                Durability::Relaxed => open.with_relaxed_durability(|| self.change(database, open, work)),
            });
            let done = done.ok_or_else(|| deadline.busy(&self.location))??;
            if durability == Durability::Full {
                match done {
                    AttemptOutcome::Done(Some(timeout)) => {
                        database.residue.scrub(&database.path, open, Deadline::after(timeout));
                    }
                    // A reader has prevented an earlier scrub. Try again, but do not wait: no save waits for a reader.
                    AttemptOutcome::Done(None) if database.residue.is_left() => {
                        database.residue.scrub_left(open, Deadline::now());
                    }
                    _ => {}
                }
            }
            Ok(done.map(drop))
        })
    }

    fn online_backup(&self, target: &Path, deadline: Deadline) -> Result<bool> {
        self.run_beside(deadline, |access| {
            let source = connection::connect_as(access, &self.path, &self.location)?;
            backup::write(&source, &self.location, target)
        })?;
        Ok(true)
    }

    fn check(&self, deadline: Deadline) -> Result<Vec<Finding>> {
        let mut findings = inspect::check_surroundings(&self.path);
        let contents = self.run_beside(deadline, |access| {
            let connection = connection::connect_as(access, &self.path, &self.location)?;
            let mut found = inspect::check_contents(&connection, &self.location)?;
            if access == Access::Frozen {
                inspect::forget_no_wal(&mut found);
            }
            Ok(found)
        });
        match contents {
            Ok(contents) => findings.extend(contents),
            Err(error) => findings.push(error.into_finding()?),
        }
        Ok(findings)
    }

    fn scrub(&self, deadline: Deadline) -> Result<()> {
        // Between the attempts, other threads can save.
        let mut is_rewritten = false;
        loop {
            let begun = Instant::now();
            let is_scrubbed = self.run(Role::Writer, deadline, |database, open| {
                Ok(AttemptOutcome::Done(database.residue.scrub_all(open, &mut is_rewritten, deadline)))
            })?;
            if is_scrubbed {
                return Ok(());
            }
            let left = deadline.left().ok_or_else(|| deadline.busy(&self.location))?;
            thread::sleep(begun.elapsed().max(SCRUB_POLL).min(left));
        }
    }

    fn before_fork(&self, deadline: Deadline) {
        let database = self.current.lock(deadline).and_then(|current| current.clone());
        if let Some(database) = database {
            let _ = database.close_for_reopen(deadline);
        }
        shared_memory::close_unneeded(deadline);
    }

    fn after_fork_in_child(&self) {
        shared_memory::close_inherited();
    }

    fn before_exit(&self, deadline: Deadline) {
        let database = self.current.lock(deadline).and_then(|current| current.clone());
        if let Some(database) = database {
            database.close_finally(deadline);
        }
    }

    fn close(&self, deadline: Deadline) {
        if let Some(mut current) = self.current.lock(deadline) {
            self.closed.store(true, Ordering::Relaxed);
            // The last store on the file closes it, in `Drop` of `Database`.
            with_deadline(deadline, || drop(current.take()));
        }
    }
}

/// Returns a copy of the rows of the file at `path`, if a store that opens the file would migrate it. Changes nothing.
pub fn read_older(path: &Path, deadline: Deadline) -> Result<Option<Memory>> {
    if registry::is_open(path, deadline) {
        return Ok(None);
    }
    let rows = retry_while_busy(deadline, || inspect::read_older(path))?;
    rows.map(|rows| Memory::copy_of(Location::path_of(path), &rows)).transpose()
}

/// SQLite database files, for import, restore and backup.
pub static FORMAT: DatabaseFormat = DatabaseFormat {
    name: "SQLite",
    // https://www.sqlite.org/fileformat.html, section 1.3.1
    signature: b"SQLite format 3\0",
    reserved_endings: &["-wal", "-shm", "-journal"],
    read: inspect::read,
    write: write_backup,
};

fn write_backup(rows: &[Row], last_id: i64, target: &Path, deadline: Deadline) -> Result<()> {
    let mut copy = Memory::new()?;
    copy.fill(rows, last_id)?;
    copy.online_backup(target, deadline).map(drop)
}
