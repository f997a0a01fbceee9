//! One connection to a database file: how a database is created, how a connection is opened and set up, and what has to
//! stay true of it.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use std::{mem, process};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::from_sqlite;
use super::file_locks::FileLocks;
use super::path::{beside, network_file_system};
use super::read_cache::ReadCache;
use super::read_only::{self, Access};
use super::schema::{self, Contents};
use super::shared_memory::DatabaseVersion;
use super::sql;
use super::waiting::{LOCK_POLL, current_deadline, wait_for_lock, with_deadline};
use crate::store::atomic_write::TemporaryFile;
use crate::store::backend::Location;
use crate::store::deadline::Deadline;
use crate::store::error::{Error, Result};
use crate::store::files::{FileId, FileVersion, out_of_handles};

/// How a change is made atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// By a write-ahead log, where that is possible. A find never waits for a change.
    Wal,
    /// By a rollback journal, although a write-ahead log may be possible. Only tests ask for this.
    Rollback,
}

/// An open connection, and what has to stay true of it while it is used.
pub(super) struct OpenConnection {
    pub(super) connection: Connection,
    /// The locks that belong to the connection. Declared after it, because it must be dropped after it: closing a
    /// handle drops SQLite's POSIX locks.
    pub(super) locks: Arc<FileLocks>,
    /// The WAL that the connection writes. `None`: it uses a rollback journal.
    pub(super) wal: Option<FileId>,
    /// The only version of the file that the connection can read, because it is frozen ([`super::read_only`]).
    pub(super) frozen: Option<FileVersion>,
    /// The process that opened the connection.
    process: u32,
    /// Does a commit wait for the disk? If not, the connection is not used any more.
    is_durable: Cell<bool>,
    /// What the connection found at one version of the database.
    pub(super) read_cache: RefCell<ReadCache<DatabaseVersion>>,
}

/// The result of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checkpoint {
    /// Every change is in the database file, and the WAL is empty. Also without WAL.
    Complete,
    /// Another connection reads or writes.
    Blocked,
    /// It failed, and waiting does not help.
    Failed,
}

impl OpenConnection {
    pub(super) fn new(connection: Connection, locks: Arc<FileLocks>, wal: Option<FileId>) -> Self {
        Self {
            connection,
            locks,
            wal,
            frozen: None,
            process: process::id(),
            is_durable: Cell::new(true),
            read_cache: RefCell::default(),
        }
    }

    /// Is it frozen at a version that may not be the only one of its time? Then it is used once.
    pub(super) fn is_young(&self) -> bool {
        self.frozen.is_some_and(|version| version.is_young(SystemTime::now()))
    }

    /// The same connection, which is frozen at a version of the file.
    pub(super) fn frozen_at(mut self, version: FileVersion) -> Self {
        self.frozen = Some(version);
        self
    }

    /// Did this process open the connection?
    pub(super) fn is_of_this_process(&self) -> bool {
        self.process == process::id()
    }

    /// Can it be read while another connection writes?
    pub(super) const fn has_wal(&self) -> bool {
        self.wal.is_some()
    }

    /// Is it outside any transaction, and durable?
    pub(super) fn is_ready(&self) -> bool {
        self.connection.is_autocommit() && self.is_durable.get()
    }

    /// Is it open to a file that can only be read?
    pub(super) fn is_read_only(&self) -> bool {
        self.connection.is_readonly(rusqlite::MAIN_DB).unwrap_or(false)
    }

    /// Moves all changes from the WAL into the database file, and empties the WAL
    /// (<https://www.sqlite.org/pragma.html#pragma_wal_checkpoint>). Waits until the deadline of this thread.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        if !self.is_of_this_process() || self.wal.is_none() {
            return Checkpoint::Complete;
        }
        let blocked = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        match blocked {
            Ok(false) => Checkpoint::Complete,
            Ok(true) => Checkpoint::Blocked,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Checkpoint::Blocked,
            Err(_) => Checkpoint::Failed,
        }
    }

    /// Rewrites the database file, so that its pages hold nothing but its rows. Returns whether that succeeded.
    pub(super) fn vacuum(&self) -> bool {
        self.is_of_this_process() && self.connection.execute_batch("VACUUM").is_ok()
    }

    /// Runs `work`, which only reads. Without WAL it holds the write lock, because a reader and a writer would block
    /// each other. `None`: the deadline is over.
    pub(super) fn read<T>(&self, deadline: Deadline, work: impl FnOnce() -> T) -> Option<T> {
        if self.has_wal() { Some(work()) } else { self.write(deadline, work) }
    }

    /// Runs `work` while this thread holds the write lock. `None`: the deadline is over.
    pub(super) fn write<T>(&self, deadline: Deadline, work: impl FnOnce() -> T) -> Option<T> {
        let _lock = self.locks.acquire_write_lock(deadline)?;
        Some(work())
    }

    /// Runs a change with relaxed durability: its commit does not wait for the disk. The next commit that waits makes
    /// it durable too (<https://www.sqlite.org/pragma.html#pragma_synchronous>).
    ///
    /// Without WAL the change is durable all the same: there the order of the writes to the disk keeps the file whole.
    pub(super) fn with_relaxed_durability<T>(&self, work: impl FnOnce() -> T) -> T {
        if !self.has_wal() {
            return work();
        }
        let set_synchronous = |how| self.connection.pragma_update(None, "synchronous", how).is_ok();
        self.is_durable.set(false);
        set_synchronous("NORMAL");
        let done = work();
        self.is_durable.set(set_synchronous("FULL"));
        done
    }

    /// Closes the connection, and leaves its WAL as it is ([`connect`] sees to that).
    ///
    /// A connection of the parent process is forgotten, not closed: closing it could change locks that the parent works
    /// with (<https://www.sqlite.org/howtocorrupt.html>, section 2.6).
    pub(super) fn disconnect(self) {
        if !self.is_of_this_process() {
            mem::forget(self);
        }
    }
}

// How a connection is opened and set up.

/// Opens the existing file at `path` with the settings that every connection needs.
pub(super) fn connect(path: &Path, location: &Location) -> Result<Connection> {
    connect_as(Access::Normal, path, location)
}

/// The same with the given access. Not for a file that needs recovery.
pub(super) fn connect_as(access: Access, path: &Path, location: &Location) -> Result<Connection> {
    let set_up = || -> rusqlite::Result<Connection> {
        // Without CREATE, because `path::ensure` creates the files, and makes them private. Without a mutex, because
        // our locks protect a connection.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match access {
            Access::Frozen => read_only::connect(path)?,
            Access::Normal | Access::NeedsRecovery => Connection::open_with_flags(path, flags)?,
        };
        // SQLite would delete the WAL by its name. By then a WAL of another file can have that name.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.busy_handler(Some(wait_for_lock))?;
        connection.set_prepared_statement_cache_capacity(sql::STATEMENT_CACHE_SIZE);
        // Some of these pragmas make SQLite read the file, and it can be damaged.
        connection.pragma_update(None, "secure_delete", true)?;
        // No copy of a row in a temporary file.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "wal_autocheckpoint", AUTOCHECKPOINT_PAGES)?;
        // Without WAL a commit is durable only once the folder does not contain the journal any more
        // (https://www.sqlite.org/pragma.html#pragma_synchronous).
        connection.pragma_update(None, "synchronous", "EXTRA")?;
        Ok(connection)
    };
    set_up().map_err(|error| from_sqlite(location, &error))
}

/// The number of WAL pages, about 80 saves, after which SQLite checkpoints and starts to overwrite the WAL from its
/// beginning. Overwriting takes half the time of appending. The WAL grows longer only while there is always a reader.
const AUTOCHECKPOINT_PAGES: u32 = 256;

/// Opens a temporary file, which no other process uses. The journal is in memory, so there never is a `-journal` beside
/// the file: if the process is killed, the file is worthless anyway.
pub(super) fn connect_temporary(path: &Path, location: &Location) -> Result<Connection> {
    let connection = connect(path, location)?;
    let set_up = || {
        // No other file has this name, so SQLite may remove a WAL that it opened for a moment.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        use_memory_journal(&connection)
    };
    set_up().map_err(|error| from_sqlite(location, &error))?;
    Ok(connection)
}

/// Keeps the rollback journal in memory. A file in WAL mode leaves it.
pub(super) fn use_memory_journal(connection: &Connection) -> rusqlite::Result<()> {
    set_journal_mode(connection, "MEMORY")
}

/// Sets the journal mode, if it is possible here.
///
/// SQLite commits the change to the file only after it has returned the row with the mode. So the statement is run to
/// its end. `pragma_update` and `pragma_update_and_check` of rusqlite 0.40 stop at the row, and ignore an error of the
/// commit.
fn set_journal_mode(connection: &Connection, mode: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("PRAGMA journal_mode={mode}"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Creates a database in the empty temporary file `temporary`. Messages name `path`, where it is going to be.
pub(super) fn create_database(temporary: &Path, path: &Path, journal: Journal) -> Result<()> {
    let location = Location::path_of(path);
    let mut connection = connect_temporary(temporary, &location)?;
    prepare(&mut connection, temporary, &location, journal)
}

/// Migrates a file that is not in WAL mode, and switches it to WAL where that is possible.
pub(super) fn prepare(connection: &mut Connection, path: &Path, location: &Location, journal: Journal) -> Result<()> {
    let read_only = connection.is_readonly(rusqlite::MAIN_DB).unwrap_or(false);
    migrate_if_older(connection, location)?;
    // A damaged file is refused before the mode is written into it.
    read_counters(connection, location)?;
    if read_only {
        return Ok(());
    }
    if network_file_system(path).is_some() {
        leave_wal(connection);
    } else if journal == Journal::Wal {
        // Otherwise it would seem that WAL is not possible here.
        if let Some(error) = out_of_handles(HANDLES_OF_PROBE) {
            return Err(Error::from_io(path, &error));
        }
        use_wal(connection, path).map_err(|error| from_sqlite(location, &error))?;
    }
    Ok(())
}

/// Migrates the file if it is older than this version of the library.
pub(super) fn migrate_if_older(connection: &mut Connection, location: &Location) -> Result<()> {
    let is_older = match schema::inspect(connection, location)? {
        Contents::Older => true,
        // What cannot be written is read as it is.
        Contents::Current => {
            !connection.is_readonly(rusqlite::MAIN_DB).unwrap_or(false)
                && schema::has_untyped_ids(connection, location)?
        }
    };
    if is_older { schema::migrate(connection, location) } else { Ok(()) }
}

/// Reads a row. The first read in WAL mode opens the `-wal`.
pub(super) fn read_counters(connection: &Connection, location: &Location) -> Result<()> {
    let read = connection.query_row("SELECT last_id, last_order FROM zoho_token_store", [], |_| Ok(()));
    read.map_err(|error| from_sqlite(location, &error))
}

/// Is the file in WAL mode?
pub(super) fn is_wal(connection: &Connection) -> rusqlite::Result<bool> {
    connection.pragma_query_value(None, "journal_mode", |row| Ok(row.get::<_, String>(0)?.eq_ignore_ascii_case("wal")))
}

/// Switches to WAL, where that is possible. Does not open the `-wal`: that happens later, under the shared locks.
fn use_wal(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    if !shared_memory_works(path) {
        return Ok(());
    }
    loop {
        match set_journal_mode(connection, "WAL") {
            Ok(()) => return Ok(()),
            // SQLite does not call the busy handler here, so that two connections that switch do not wait for each
            // other (https://www.sqlite.org/c3ref/busy_handler.html, on deadlocks).
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                if !current_deadline().sleep(LOCK_POLL) {
                    return Err(error);
                }
            }
            Err(error) => match error.sqlite_error_code() {
                Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) => return Ok(()),
                _ => return Err(error),
            },
        }
    }
}

/// Switches back to a rollback journal, unless another connection uses the file. For a network file system: with WAL
/// each machine would have a shared memory of its own (<https://www.sqlite.org/wal.html>, section 1).
fn leave_wal(connection: &Connection) {
    if is_wal(connection).unwrap_or(false) {
        with_deadline(Deadline::now(), || {
            let _ = set_journal_mode(connection, "DELETE");
        });
    }
}

/// The number of handles that [`shared_memory_works`] needs: the temporary file, and SQLite's of the file, its WAL and
/// its `-shm`, and one more of the folder.
const HANDLES_OF_PROBE: usize = 5;

/// Can processes share memory through a file in this folder?
///
/// SQLite finds that out only after it has switched to WAL, and then nobody can read the file. So this tries it on a
/// temporary file. It happens once in the life of a file.
pub(super) fn shared_memory_works(path: &Path) -> bool {
    let Ok(temporary) = TemporaryFile::beside(path) else { return false };
    let probe = temporary.path();
    let try_out = || -> rusqlite::Result<()> {
        let connection = Connection::open(probe)?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        use_memory_journal(&connection)?;
        set_journal_mode(&connection, "WAL")?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
    };
    let works = try_out().is_ok();
    for ending in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(beside(probe, ending));
    }
    works
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn wal_is_left_only_if_no_other_connection_uses_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let open = || {
            let connection = Connection::open(&path).unwrap();
            connection.busy_timeout(Duration::ZERO).unwrap();
            connection
        };
        let (one, other) = (open(), open());
        use_wal(&one, &path).unwrap();
        assert!(is_wal(&one).unwrap() && is_wal(&other).unwrap());
        leave_wal(&one);
        assert!(is_wal(&one).unwrap(), "the other would not know");
        drop(other);
        leave_wal(&one);
        assert!(!is_wal(&one).unwrap() && !is_wal(&open()).unwrap());
    }

    #[test]
    fn the_try_of_shared_memory_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(shared_memory_works(&folder.path().join("tokens.db")));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(!shared_memory_works(Path::new("/proc/tokens.db")));
    }

    #[test]
    fn a_database_is_the_same_whether_its_journal_was_in_memory_or_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::path_of("tokens.db");
        for journal in [Journal::Wal, Journal::Rollback] {
            let [in_memory, in_file] = ["in memory", "in a file"].map(|name| folder.path().join(name));
            for path in [&in_memory, &in_file] {
                std::fs::write(path, "").unwrap();
            }
            create_database(&in_memory, Path::new("tokens.db"), journal).unwrap();
            let mut connection = connect(&in_file, &location).unwrap();
            prepare(&mut connection, &in_file, &location, journal).unwrap();
            drop(connection);
            assert!(std::fs::read(&in_memory).unwrap() == std::fs::read(&in_file).unwrap(), "{journal:?}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        }
    }

    #[cfg(unix)]
    #[test]
    fn no_journal_ever_stands_beside_a_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("temporary");
        std::fs::write(&path, "").unwrap();
        let handle = std::fs::File::open(folder.path()).unwrap();
        handle.set_modified(std::time::UNIX_EPOCH).unwrap();
        create_database(&path, Path::new("tokens.db"), Journal::Rollback).unwrap();
        let modified = handle.metadata().unwrap().modified().unwrap();
        assert_eq!(modified, std::time::UNIX_EPOCH, "no file was created in the folder or removed from it");
    }
}
