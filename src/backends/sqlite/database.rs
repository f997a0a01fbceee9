//! One database file in this process: a connection that reads and one that writes, shared by every store on the file.
//!
//! Three things can make an open connection unusable. Each is checked before a connection is used:
//! - The process forked. The child neither uses nor closes what its parent opened
//!   ([`OpenConnection::is_of_this_process`]).
//! - The path names another file ([`Database::is_named_by_its_path`]).
//! - The WAL was deleted or replaced ([`Database::has_its_wal`]). That happens when other code in this process closes
//!   the file (which drops all POSIX locks of the process), and another process then closes it as the last one. Nobody
//!   reads what is committed into such a WAL (`tests/faults/test_foreign_hands.py`).
//!
//! # The three ways to close
//!
//! | When | Function | The WAL is |
//! | --- | --- | --- |
//! | They are opened again, after a fork or a failed attempt. | [`Database::close_for_reopen`] | checkpointed, kept |
//! | The path names another file, or none. | [`Database::close_replaced_file`] | checkpointed, removed (1) |
//! | Nobody in this process needs the file any more. | [`Database::close_finally`] | checkpointed, removed (2) |
//!
//! A checkpoint is left out if a reader is in the way. (1) Not if the file at the path uses it. (2) Not if another
//! process uses the file: then nothing is done to it.
//!
//! If the path names another file, the first and the third also do what the second one does. A connection of the parent
//! process is forgotten in each case ([`OpenConnection::disconnect`]).

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::connection::{
    Checkpoint, Journal, OpenConnection, connect, connect_as, migrate_if_older, prepare, read_counters,
};
use super::error::from_sqlite;
use super::file_locks::{FileLocks, OpeningLock};
use super::path::{self, Pin, beside, network_file_system};
use super::read_only::{self, Access};
use super::residue::Residue;
use super::schema::{self, Contents};
use super::waiting::{SCRUB_TIMEOUT, current_deadline, with_deadline};
use super::wal;
use crate::store::backend::Location;
use crate::store::deadline::Deadline;
use crate::store::error::{Code, Error, Result};
use crate::store::files::{self, FileId};
use crate::store::lock_order::{Ordered, Rank};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Finds. It is apart from the writer, so that no find waits for the disk.
    Reader,
    /// Changes.
    Writer,
}

/// A database file and the connections of this process to it.
pub(super) struct Database {
    /// Identifies the file. No other file gets the same id while this object lives.
    pub(super) id: FileId,
    _pin: Pin,
    /// The real path, without symbolic links.
    pub(super) path: PathBuf,
    wal_path: PathBuf,
    shm_path: PathBuf,
    location: Location,
    reader: Ordered<Option<OpenConnection>>,
    writer: Ordered<Option<OpenConnection>>,
    /// The locks that the open connections share.
    locks: Ordered<Weak<FileLocks>>,
    pub(super) residue: Residue,
}

/// How long the last close of a file waits for others, before it leaves the tidying to them.
const TIDY_TIMEOUT: Duration = Duration::from_secs(1);

impl Database {
    /// The file with this id, without a connection yet. `path` is its real path, and `location` what messages name.
    pub(super) fn new(path: PathBuf, location: Location, id: FileId, pin: Pin) -> Self {
        Self {
            id,
            _pin: pin,
            wal_path: beside(&path, "-wal"),
            shm_path: beside(&path, "-shm"),
            path,
            location,
            reader: Ordered::new(Rank::Connection, None),
            writer: Ordered::new(Rank::Connection, None),
            locks: Ordered::new(Rank::SharedLocks, Weak::new()),
            residue: Residue::default(),
        }
    }

    /// Where the connection for `role` is kept.
    pub(super) const fn slot(&self, role: Role) -> &Ordered<Option<OpenConnection>> {
        match role {
            Role::Reader => &self.reader,
            Role::Writer => &self.writer,
        }
    }

    /// Can `open` be used? Only by the process that opened it, while others use the same WAL, outside any transaction,
    /// and if its commits are durable. Does not check the path.
    pub(super) fn is_usable(&self, open: &OpenConnection) -> bool {
        open.is_of_this_process() && self.has_its_wal(open) && open.is_ready()
    }

    /// Is the WAL that `open` writes the one that others read?
    pub(super) fn has_its_wal(&self, open: &OpenConnection) -> bool {
        match open.frozen {
            None => open.wal == FileId::of(&self.wal_path),
            frozen => read_only::version(&self.path) == frozen,
        }
    }

    /// Is what was just read on `open` consistent? Only a frozen connection can be changed while it reads.
    pub(super) fn was_not_torn(&self, open: &OpenConnection) -> bool {
        open.frozen.is_none() || self.has_its_wal(open)
    }

    fn is_named_by_its_path(&self) -> bool {
        FileId::of(&self.path) == Some(self.id)
    }

    fn busy(&self) -> Error {
        current_deadline().busy(&self.location)
    }

    /// Opens a connection. The first one of this process migrates the file if it is older, and switches it to WAL where
    /// that is possible. Waits until the deadline of this thread.
    ///
    /// The shared locks are acquired first. Without them, other code could delete or truncate a file while SQLite opens
    /// it.
    pub(super) fn open(&self, role: Role, journal: Journal) -> Result<OpenConnection> {
        let deadline = current_deadline();
        let busy = || self.busy();
        let mut known = self.locks.lock(deadline).ok_or_else(busy)?;
        let locks = known.upgrade().filter(|locks| locks.is_of_this_process()).unwrap_or_else(|| {
            let locks = Arc::new(FileLocks::open(&self.path));
            *known = Arc::downgrade(&locks);
            locks
        });
        if let Some(error) = locks.refused() {
            return Err(Error::from_io(&self.path, error));
        }
        let opening = locks.acquire_opening_lock(deadline).ok_or_else(busy)?;
        if locks.are_given_up() {
            // Another thread has closed the file meanwhile. The next attempt opens handles of its own.
            return Err(busy());
        }
        let is_first = !locks.has_shared_locks();
        if is_first {
            match read_only::access(&self.path, || locks.header_says_wal()) {
                Access::Normal => {}
                Access::Frozen => return self.open_frozen(&locks),
                Access::NeedsRecovery => return Err(Error::new(Code::NeedsRecovery, &self.location)),
            }
            self.prepare_file(&locks, &opening, journal)?;
        }
        let has_wal = locks.has_shared_locks();
        // Without WAL no other process may write meanwhile: its journal would be taken for one that a crash has left.
        let write_lock = if has_wal { None } else { Some(locks.acquire_write_lock(deadline).ok_or_else(busy)?) };
        let creates_wal = !self.wal_path.exists();
        let connection = self.connect(role, &locks, is_first && creates_wal).inspect_err(|_| {
            if is_first {
                // A file that is refused stays as it was: this look may have created an empty WAL.
                wal::remove_empty(&locks, &opening, &self.wal_path, &self.shm_path);
            }
        })?;
        let wal_id = FileId::of(&self.wal_path);
        let nothing_was_replaced = has_wal == wal_id.is_some()
            && locks.is_on(self.id)
            && locks.is_shm_at(&self.shm_path)
            && self.is_named_by_its_path();
        drop((write_lock, opening));
        if !nothing_was_replaced {
            // Closed before its locks.
            drop(connection);
            return Err(busy());
        }
        let open = OpenConnection::new(connection, locks, wal_id);
        if role == Role::Writer && files::length(&self.wal_path) > 0 && path::is_of_whole_pages(&self.path) {
            // The process that wrote this WAL may have been killed before it scrubbed its residue.
            self.residue.empty_wal(&open, Deadline::now());
        }
        Ok(open)
    }

    /// Opens a connection to a complete file that cannot be written.
    fn open_frozen(&self, locks: &Arc<FileLocks>) -> Result<OpenConnection> {
        let version = read_only::version(&self.path).ok_or_else(|| self.busy())?;
        let connection = connect_as(Access::Frozen, &self.path, &self.location)?;
        if schema::inspect(&connection, &self.location)? == Contents::Older {
            return Err(Error::new(Code::ReadOnly, &self.location).with("it has to be migrated first"));
        }
        read_counters(&connection, &self.location)?;
        let open = OpenConnection::new(connection, Arc::clone(locks), None).frozen_at(version);
        if self.has_its_wal(&open) && self.is_named_by_its_path() { Ok(open) } else { Err(self.busy()) }
    }

    /// What the first connection of this process does before it is opened: it refuses a second name of a file in use,
    /// removes a stray WAL, migrates the file if that has to happen outside WAL mode, and acquires the shared locks.
    fn prepare_file(&self, locks: &FileLocks, opening: &OpeningLock<'_>, journal: Journal) -> Result<()> {
        let deadline = current_deadline();
        let busy = || self.busy();
        if locks.is_used_under_another_name(&self.shm_path) {
            return Err(Error::at(Code::SecondName, &self.path));
        }
        wal::remove_stray(locks, opening, &self.wal_path, &self.shm_path);
        wal::require_own(locks, &self.path)?;
        // With a hot journal beside the file, the header may be one that SQLite still has to roll back. A rollback
        // needs the file for itself. If the WAL is not empty, SQLite uses it, whatever the header says.
        let is_wal = || {
            (locks.header_says_wal() || files::length(&self.wal_path) > 0) && !beside(&self.path, "-journal").exists()
        };
        if !is_wal() || network_file_system(&self.path).is_some() {
            let _write_lock = locks.acquire_write_lock(deadline).ok_or_else(busy)?;
            let mut connection = connect(&self.path, &self.location)?;
            prepare(&mut connection, &self.path, &self.location, journal)?;
        }
        if is_wal() {
            let shared = locks.acquire_shared_locks(&self.shm_path, deadline, opening);
            shared.map_err(|error| Error::from_io(&self.path, &error))?.ok_or_else(busy)?;
        }
        Ok(())
    }

    /// Opens and sets up a connection to a file that exists and is prepared. If it fails, and `remove_wal`, then a WAL
    /// that it has created is removed where our locks are not available.
    fn connect(&self, role: Role, locks: &FileLocks, remove_wal: bool) -> Result<Connection> {
        let mut connection = connect(&self.path, &self.location)?;
        if let Err(error) = self.set_up(&mut connection, role, locks) {
            if remove_wal && !locks.are_available() {
                // SQLite finds out by its own locks whether it may delete the WAL.
                let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
            }
            return Err(error);
        }
        Ok(connection)
    }

    fn set_up(&self, connection: &mut Connection, role: Role, locks: &FileLocks) -> Result<()> {
        let failed = |error| from_sqlite(&self.location, &error);
        if locks.has_shared_locks() {
            if schema::inspect(connection, &self.location)? == Contents::Older
                || schema::has_untyped_ids(connection, &self.location)?
            {
                let _write_lock = locks.acquire_write_lock(current_deadline()).ok_or_else(|| self.busy())?;
                migrate_if_older(connection, &self.location)?;
            }
            // In WAL mode FULL is enough for a durable commit (https://www.sqlite.org/pragma.html#pragma_synchronous).
            connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        }
        if role == Role::Reader {
            connection.pragma_update(None, "query_only", true).map_err(failed)?;
        }
        read_counters(connection, &self.location)
    }

    /// Closes all connections, so that the next operation opens new ones. See the table above.
    pub(super) fn close_for_reopen(&self, deadline: Deadline) -> Result<()> {
        if !self.is_named_by_its_path() {
            return self.close_replaced_file(deadline);
        }
        for role in [Role::Writer, Role::Reader] {
            let mut slot = self.slot(role).lock(deadline).ok_or_else(|| deadline.busy(&self.location))?;
            let Some(open) = slot.take() else { continue };
            // Without a connection this process does not notice that the file is replaced. A WAL with saves would then
            // be replayed into the other file.
            if self.has_its_wal(&open) {
                with_deadline(Deadline::now(), || open.checkpoint());
            }
            open.disconnect();
        }
        Ok(())
    }

    /// Closes all connections to a file that the path does not name any more. See the table above.
    ///
    /// SQLite would replay the WAL into the file that the path names now. While this process has the old WAL open, no
    /// other file gets its inode number. So the WAL at the path is the old one if the numbers are equal. It is removed,
    /// unless a process uses it for the new file.
    pub(super) fn close_replaced_file(&self, deadline: Deadline) -> Result<()> {
        for role in [Role::Writer, Role::Reader] {
            let mut slot = self.slot(role).lock(deadline).ok_or_else(|| deadline.busy(&self.location))?;
            let Some(open) = slot.take() else { continue };
            // If the file has another name now, it must be complete there.
            with_deadline(Deadline::after(SCRUB_TIMEOUT), || open.checkpoint());
            if open.is_of_this_process() && open.has_wal() && !self.is_named_by_its_path() {
                wal::remove_of_replaced_file(&self.path, &self.wal_path, &self.shm_path, || self.has_its_wal(&open));
            }
            open.disconnect();
        }
        Ok(())
    }

    /// Closes all connections for good, and tidies up if this is the last user of the file. See the table above. An
    /// operation that runs afterwards opens new ones.
    pub(super) fn close_finally(&self, deadline: Deadline) {
        if !self.is_named_by_its_path() {
            // No other process may ever checkpoint what this one has written.
            let _ = self.close_replaced_file(deadline);
        }
        let take = |role| self.slot(role).lock(deadline).and_then(|mut slot| slot.take());
        let (mut reader, writer) = (take(Role::Reader), take(Role::Writer));
        let last = writer.or_else(|| reader.take());
        if let Some(reader) = reader {
            reader.disconnect();
        }
        match last {
            Some(open) if self.is_usable(&open) && self.is_named_by_its_path() => self.close_and_tidy_up(open),
            Some(open) => open.disconnect(),
            None => {}
        }
    }

    /// Closes the last connection of this process. If no other process uses the file, checkpoints and removes the WAL.
    ///
    /// Meanwhile no process of this library opens the file. Other programs can, and so can other code of this process.
    /// So the WAL is only removed when it is empty and nobody has it open.
    fn close_and_tidy_up(&self, open: OpenConnection) {
        if self.residue.is_left() {
            // Only this process knows of the residue, even if other processes have the file open.
            self.residue.scrub_left(&open, Deadline::now());
        }
        let locks = Arc::clone(&open.locks);
        let opening = locks.acquire_opening_lock(Deadline::after(TIDY_TIMEOUT));
        let tidy = opening.filter(|opening| {
            locks.is_only_user(opening) && with_deadline(Deadline::now(), || open.checkpoint()) == Checkpoint::Complete
        });
        if tidy.is_some() && open.has_wal() && !locks.are_available() {
            // Without our locks, SQLite has to find out with its own locks whether it may delete the WAL.
            let _ = open.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        }
        drop(open);
        if let Some(opening) = tidy {
            wal::remove_empty(&locks, &opening, &self.wal_path, &self.shm_path);
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.close_finally(Deadline::after(TIDY_TIMEOUT));
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::create_database;
    use super::super::registry::database_at;
    use super::*;

    /// A new file in a folder of its own.
    fn create() -> (tempfile::TempDir, Arc<Database>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        path::ensure(&path, |temporary| create_database(temporary, &path, Journal::Rollback)).unwrap();
        let database = database_at(&path, Deadline::after(Duration::from_secs(20))).unwrap();
        (folder, database)
    }

    fn number(open: &OpenConnection, pragma: &str) -> i64 {
        open.connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap()
    }

    // https://www.sqlite.org/pragma.html#pragma_synchronous
    const NORMAL: i64 = 1;
    const FULL: i64 = 2;
    const EXTRA: i64 = 3;

    #[test]
    fn every_connection_is_durable_and_overwrites_what_it_deletes() {
        let (_folder, database) = create();
        for role in [Role::Writer, Role::Reader] {
            let open = database.open(role, Journal::Wal).unwrap();
            assert_eq!((number(&open, "synchronous"), number(&open, "secure_delete")), (FULL, 1));
            assert_eq!(number(&open, "query_only"), i64::from(role == Role::Reader));
            assert!(open.has_wal() && database.is_usable(&open));
        }
    }

    #[test]
    fn a_change_with_relaxed_durability_leaves_the_next_change_durable() {
        let (_folder, database) = create();
        let open = database.open(Role::Writer, Journal::Wal).unwrap();
        let synchronous = || number(&open, "synchronous");
        assert_eq!(open.with_relaxed_durability(synchronous), NORMAL);
        assert_eq!((synchronous(), database.is_usable(&open)), (FULL, true));
        // Within a transaction the setting cannot be changed back.
        open.with_relaxed_durability(|| open.connection.execute_batch("BEGIN").unwrap());
        open.connection.execute_batch("ROLLBACK").unwrap();
        assert_eq!((synchronous(), database.is_usable(&open)), (NORMAL, false), "no save uses this connection");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_connection_that_is_opened_while_the_file_is_closed_finally_has_shared_locks() {
        use super::super::file_locks::tests::{hold_as_another_program, is_used};

        let (_folder, database) = create();
        let open = database.open(Role::Writer, Journal::Wal).unwrap();
        // What a thread holds that waits for the opening lock.
        let locks = Arc::clone(&open.locks);
        // Another program, for which the WAL stays.
        let _other = hold_as_another_program(&database.path);
        *database.slot(Role::Writer).try_lock().unwrap() = Some(open);
        database.close_finally(Deadline::after(Duration::from_secs(20)));
        assert!(!is_used(&database.path));
        assert!(with_deadline(Deadline::now(), || database.open(Role::Writer, Journal::Wal)).is_err());
        drop(locks);
        let _open = database.open(Role::Writer, Journal::Wal).unwrap();
        assert!(is_used(&database.path));
    }

    #[test]
    fn without_wal_every_commit_waits_for_the_disk_and_for_the_folder() {
        let (_folder, database) = create();
        let open = database.open(Role::Writer, Journal::Rollback).unwrap();
        let synchronous = || number(&open, "synchronous");
        assert_eq!(
            (synchronous(), open.with_relaxed_durability(synchronous), synchronous(), open.wal),
            (EXTRA, EXTRA, EXTRA, None)
        );
    }
}
