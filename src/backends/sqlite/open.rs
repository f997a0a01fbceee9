//! An open connection, and what has to stay true of it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::{mem, process};

use rusqlite::{Connection, ErrorCode};

use super::guard::Guards;
use super::recent::Recent;
use super::shm::State;
use crate::store::deadline::Deadline;
use crate::store::files::FileId;

/// A connection, and what has to stay true of it.
pub(super) struct Open {
    pub(super) connection: Connection,
    /// Behind the connection, for it is to be dropped after it.
    pub(super) guards: Arc<Guards>,
    /// The `-wal` it writes into; none where WAL could not be had.
    pub(super) wal: Option<FileId>,
    pub(super) process: u32,
    /// Does a commit wait for the disk, as that of a save has to? Otherwise nothing is to be done with it any more.
    pub(super) is_durable: Cell<bool>,
    /// What this connection has found since the last change by anybody.
    pub(super) recent: RefCell<Recent<State>>,
}

impl Open {
    /// Did this process open it?
    pub(super) fn is_ours(&self) -> bool {
        self.process == process::id()
    }

    /// Can it be read while somebody writes?
    pub(super) const fn has_wal(&self) -> bool {
        self.wal.is_some()
    }

    /// Brings everything in the `-wal` into the file and empties it, if nobody is in the way. Tells whether it did.
    pub(super) fn bring_in(&self) -> bool {
        self.try_to_bring_in() == Some(true)
    }

    /// The same; `None`: it failed, and to wait for anybody is in vain.
    pub(super) fn try_to_bring_in(&self) -> Option<bool> {
        if !self.is_ours() || self.wal.is_none() {
            return Some(true);
        }
        let blocked = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        match blocked {
            Ok(blocked) => Some(!blocked),
            Err(error) => (error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)).then_some(false),
        }
    }

    /// Was it a file that could only be read?
    pub(super) fn is_read_only(&self) -> bool {
        self.connection.is_readonly(rusqlite::MAIN_DB).unwrap_or(false)
    }

    /// Writes the file anew, in pages that hold nothing but its rows. Tells whether it did.
    pub(super) fn rewrite_file(&self) -> bool {
        self.is_ours() && self.connection.execute_batch("VACUUM").is_ok()
    }

    /// Runs what only reads, in turn where writers and readers would be in each other's way. `None`: not in time.
    pub(super) fn reading<T>(&self, deadline: Deadline, work: impl FnOnce() -> T) -> Option<T> {
        if self.wal.is_some() { Some(work()) } else { self.in_turn(deadline, work) }
    }

    /// Runs a change that waits for no disk: it is durable with the next one that does. Not without WAL, where the order
    /// in which things come to the disk keeps the file whole.
    pub(super) fn lightly<T>(&self, work: impl FnOnce() -> T) -> T {
        if !self.has_wal() {
            return work();
        }
        let synchronous = |how| self.connection.pragma_update(None, "synchronous", how).is_ok();
        self.is_durable.set(false);
        synchronous("NORMAL");
        let done = work();
        self.is_durable.set(synchronous("FULL"));
        done
    }

    /// Waits until nobody else of this library's writes, and runs `work`. `None`: not in time.
    pub(super) fn in_turn<T>(&self, deadline: Deadline, work: impl FnOnce() -> T) -> Option<T> {
        let _turn = self.guards.turn(deadline)?;
        Some(work())
    }
}

/// Closes a connection, and leaves the `-wal` as it is: SQLite would bring it in and remove it by its name, which can be
/// another file's by then; so [`super::connect`] turns that off.
pub(super) fn close(open: Option<Open>) {
    let Some(open) = open else { return };
    if !open.is_ours() {
        // Our parent's. Closing it here could change locks that the parent works with.
        mem::forget(open);
    }
}
