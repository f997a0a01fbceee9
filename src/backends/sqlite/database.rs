//! One database file in this process: a connection to read and one to write, shared by every store on the file.
//!
//! Shared, because SQLite keeps one record of locks and shared memory per file and process: connections that have to
//! be opened anew can only be once *all* of this process's to that file are closed.
//!
//! Three things can make an open connection worthless, and each is looked for before it is used:
//! - the process forked ([`Open::process`]): the child neither uses nor closes what its parent opened;
//! - the path names another file: see [`super::Sqlite`];
//! - the `-wal` was deleted or replaced ([`Open::wal`]). It happens when other code in this process closes the file (which
//!   drops all POSIX locks of the process) and another process then closes it last. What is committed into such a
//!   `-wal`, nobody will read.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::busy;
use super::connect::connect;
use super::error::from_sqlite;
use super::guard::{self, Guards};
use super::make::{bring_up_to_date, prepare, read};
use super::network::network;
use super::open::{Open, close};
use super::path;
use super::schema::{self, Contents};
use super::traces::Traces;
use crate::store::backend::Location;
use crate::store::deadline::Deadline;
use crate::store::error::{Code, Error, Result};
use crate::store::files::{self, FileId};
use crate::store::lock_order::{Ordered, Rank};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Finds. Apart from the writer, so that no find waits for a disk.
    Reader,
    /// Changes.
    Writer,
}

/// How a change is made atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// By a write-ahead log, if it can be had: no find waits for a change.
    Wal,
    /// By a rollback journal, as where WAL cannot be had.
    Rollback,
}

/// A database file and this process's connections to it.
pub(super) struct Database {
    /// This file's alone, for as long as this lives.
    pub(super) id: FileId,
    _pin: path::Pin,
    pub(super) path: PathBuf,
    wal_path: PathBuf,
    shm_path: PathBuf,
    location: Location,
    reader: Ordered<Option<Open>>,
    writer: Ordered<Option<Open>>,
    guards: Ordered<Weak<Guards>>,
    pub(super) traces: Traces,
}

/// Every database file that a store of this process has.
static DATABASES: Ordered<Vec<Weak<Database>>> = Ordered::new(Rank::DatabaseRegistry, Vec::new());

impl Database {
    /// The file at `path`, the same object for everybody in this process.
    pub(super) fn at(path: &Path, deadline: Deadline) -> Result<Arc<Self>> {
        let location = Location::path_of(path);
        let mut databases = DATABASES.lock(deadline).ok_or_else(|| deadline.busy(&location))?;
        databases.retain(|database| database.strong_count() > 0);
        // SQLite names the `-wal` after the real path, not after a link to it.
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(deadline.busy(&location)),
            Err(error) => return Err(Error::from_io(path, &error)),
        };
        let pin = path::Pin::new(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => deadline.busy(&location),
            _ => Error::from_io(&path, &error),
        })?;
        // Since `path::ensure` has looked at it, something else may have come here: it looks again, and says what it is.
        let id = pin.id(&path).filter(|_| path.is_file()).ok_or_else(|| deadline.busy(&location))?;
        for database in databases.iter().filter_map(Weak::upgrade).filter(|database| database.id == id) {
            if database.path == path {
                return Ok(database);
            }
            if FileId::of(&database.path) == Some(id) {
                return Err(Error::at(Code::SecondName, &path));
            }
            // It was renamed, and its connections still write beside its old name.
            database.abandon(deadline)?;
        }
        let database = Arc::new(Self {
            id,
            _pin: pin,
            wal_path: path::beside(&path, "-wal"),
            shm_path: path::beside(&path, "-shm"),
            path,
            location,
            reader: Ordered::new(Rank::Connection, None),
            writer: Ordered::new(Rank::Connection, None),
            guards: Ordered::new(Rank::SharedLocks, Weak::new()),
            traces: Traces::default(),
        });
        databases.push(Arc::downgrade(&database));
        Ok(database)
    }

    /// Where the connection for `role` is kept.
    pub(super) const fn slot(&self, role: Role) -> &Ordered<Option<Open>> {
        match role {
            Role::Reader => &self.reader,
            Role::Writer => &self.writer,
        }
    }

    /// May `open` be used: by this process, on the `-wal` that others use, outside of any transaction, durably?
    pub(super) fn is_current(&self, open: &Open) -> bool {
        open.is_ours() && self.has_its_wal(open) && open.connection.is_autocommit() && open.is_durable.get()
    }

    /// Is the `-wal` that `open` writes into the one that others read?
    pub(super) fn has_its_wal(&self, open: &Open) -> bool {
        open.wal == FileId::of(&self.wal_path)
    }

    /// Opens a connection: inspects the file, migrates it if it is older, and uses WAL if it can be had.
    ///
    /// The shared locks come first: what is opened without them, other code of this process can have deleted or truncated
    /// in the same moment.
    pub(super) fn open(&self, role: Role, journal: Journal) -> Result<Open> {
        let deadline = busy::deadline();
        let busy = || deadline.busy(&self.location);
        let mut kept = self.guards.lock(deadline).ok_or_else(busy)?;
        let guards = kept.upgrade().filter(|guards| guards.are_ours()).unwrap_or_else(|| {
            let guards = Arc::new(Guards::of(&self.path));
            *kept = Arc::downgrade(&guards);
            guards
        });
        let opening = guards.opening(deadline).ok_or_else(busy)?;
        let is_first = !guards.are_shared();
        if is_first {
            if guards.serve_another_name(&self.shm_path) {
                return Err(Error::at(Code::SecondName, &self.path));
            }
            guards.part_from_stray_log(&self.wal_path, &self.shm_path);
            // Beside a journal the file may say what is still to be taken back, and that takes the file alone. Beside a log
            // that is not empty SQLite does not ask it.
            let says_wal = || guards.says_wal() || files::length(&self.wal_path) > 0;
            let has_wal = || says_wal() && !path::beside(&self.path, "-journal").exists();
            if !has_wal() || network(&self.path).is_some() {
                let _turn = guards.turn(deadline).ok_or_else(busy)?;
                let mut connection = connect(&self.path, &self.location)?;
                prepare(&mut connection, &self.path, &self.location, journal)?;
            }
            if has_wal() {
                guards.share(&self.shm_path, deadline).ok_or_else(busy)?;
            }
        }
        // Without WAL no other process may write meanwhile: it would be taken for one that was killed while it wrote.
        let wal = guards.are_shared();
        let turn = if wal { None } else { Some(guards.turn(deadline).ok_or_else(busy)?) };
        let connection = self.connect(role, &guards, is_first)?;
        let wal_id = FileId::of(&self.wal_path);
        let is_whole = wal == wal_id.is_some()
            && guards.are_of(self.id)
            && guards.have_memory(&self.shm_path)
            && FileId::of(&self.path) == Some(self.id);
        drop((turn, opening));
        if is_whole {
            let open = Open {
                connection,
                guards,
                wal: wal_id,
                process: process::id(),
                is_durable: Cell::new(true),
                recent: RefCell::default(),
            };
            if role == Role::Writer && files::length(&self.wal_path) > 0 && path::is_of_whole_pages(&self.path) {
                // Whoever wrote that may have been killed before its traces were wiped.
                self.traces.empty_log(&open, Deadline::now());
            }
            Ok(open)
        } else {
            // Somebody took a file away just now. The connection goes before the locks.
            drop(connection);
            Err(busy())
        }
    }

    /// A connection to a file that has been made, by who is opening it: this process's first, or another.
    fn connect(&self, role: Role, guards: &Guards, is_first: bool) -> Result<Connection> {
        self.with_new_connection(is_first.then_some(guards), |connection| {
            let check = |result: rusqlite::Result<()>| result.map_err(|error| from_sqlite(&self.location, &error));
            if guards.are_shared() {
                if schema::inspect(connection, &self.location)? == Contents::Older {
                    let turn = guards.turn(busy::deadline());
                    let _turn = turn.ok_or_else(|| busy::deadline().busy(&self.location))?;
                    bring_up_to_date(connection, &self.location)?;
                }
                // A commit in WAL mode is durable with FULL.
                check(connection.pragma_update(None, "synchronous", "FULL"))?;
            }
            if role == Role::Reader {
                check(connection.pragma_update(None, "query_only", true))?;
            }
            // The first read in WAL mode opens the `-wal`.
            read(connection, &self.location)
        })
    }

    /// A file that is refused stays as it was, and an empty log that the look itself has made goes.
    fn with_new_connection(
        &self,
        guards: Option<&Guards>,
        work: impl FnOnce(&mut Connection) -> Result<()>,
    ) -> Result<Connection> {
        let made = connect(&self.path, &self.location).and_then(|mut connection| {
            work(&mut connection)?;
            Ok(connection)
        });
        if let (Err(_), Some(guards)) = (&made, guards) {
            guards.remove_empty_log(&self.wal_path, &self.shm_path);
        }
        made
    }

    /// Closes all connections, that they can be opened anew.
    pub(super) fn retire(&self, deadline: Deadline) -> Result<()> {
        if FileId::of(&self.path) != Some(self.id) {
            return self.abandon(deadline);
        }
        for role in [Role::Writer, Role::Reader] {
            let mut slot = self.slot(role).lock(deadline).ok_or_else(|| deadline.busy(&self.location))?;
            // A `-wal` that is left alone must hold nothing: until we are back, the file may have been replaced.
            if let Some(open) = slot.as_ref().filter(|open| self.has_its_wal(open)) {
                busy::until(Deadline::now(), || open.bring_in());
            }
            close(slot.take());
        }
        Ok(())
    }

    /// The path names another file, or none: what is left of this one beside it must not be taken for the other's.
    ///
    /// SQLite replays any `-wal` that it finds beside a database. As long as we have ours open its number is not given
    /// out again, so ours it is if the numbers are equal; and nobody else's, unless somebody has the new file open.
    pub(super) fn abandon(&self, deadline: Deadline) -> Result<()> {
        for role in [Role::Writer, Role::Reader] {
            let mut slot = self.slot(role).lock(deadline).ok_or_else(|| deadline.busy(&self.location))?;
            let Some(open) = slot.take() else { continue };
            // If the file lives on under another name it is to be whole there.
            busy::until(Deadline::after(busy::SCRUB_TIMEOUT), || open.bring_in());
            if open.is_ours() && open.wal.is_some() && FileId::of(&self.path) != Some(self.id) {
                guard::if_unused(&self.path, || {
                    if self.has_its_wal(&open) {
                        let _ = std::fs::remove_file(&self.wal_path);
                        let _ = std::fs::remove_file(&self.shm_path);
                    }
                });
            }
            close(Some(open));
        }
        Ok(())
    }

    /// Closes the connections of this process. Whoever needs one afterwards opens it anew.
    pub(super) fn close(&self, deadline: Deadline) {
        if FileId::of(&self.path) != Some(self.id) {
            // Nobody else may come who brings in what we have written.
            let _ = self.abandon(deadline);
        }
        let take = |role| self.slot(role).lock(deadline).and_then(|mut slot| slot.take());
        let (mut reader, writer) = (take(Role::Reader), take(Role::Writer));
        let last = writer.or_else(|| reader.take());
        close(reader);
        let tidy = |open: &Open| self.is_current(open) && FileId::of(&self.path) == Some(self.id);
        match last {
            Some(open) if tidy(&open) => self.close_last(open),
            last => close(last),
        }
    }

    /// Closes the last connection of this process: who is also the last of all brings the `-wal` in and removes it.
    ///
    /// Until that is done nobody of this library's opens the file. Other programs, and other code of this process, may: so
    /// what is removed holds nothing by then, and nobody has it open.
    fn close_last(&self, open: Open) {
        if self.traces.are_left() {
            // Others, who have the file open, do not know of them.
            self.traces.wipe_left(&open, Deadline::now());
        }
        let guards = Arc::clone(&open.guards);
        let opening = guards.opening(Deadline::after(FOR_TIDYING));
        let tidy = opening.is_some() && guards.are_alone() && busy::until(Deadline::now(), || open.bring_in());
        if tidy && !guards.are_held() {
            // Where there are no such locks, SQLite's own have to do.
            let _ = open.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        }
        drop(open);
        if tidy {
            guards.remove_empty_log(&self.wal_path, &self.shm_path);
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.close(Deadline::after(FOR_TIDYING));
    }
}

/// How long the tidying of a file that is closed waits for those who write just now, before it is left to them.
const FOR_TIDYING: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::super::make::make;
    use super::*;

    /// A new file in a folder of its own.
    fn made() -> (tempfile::TempDir, Arc<Database>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        path::ensure(&path, |draft| make(draft, &path, Journal::Rollback)).unwrap();
        let database = Database::at(&path, Deadline::after(Duration::from_secs(20))).unwrap();
        (folder, database)
    }

    fn number(open: &Open, pragma: &str) -> i64 {
        open.connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap()
    }

    // How SQLite numbers the values of `synchronous`.
    const NORMAL: i64 = 1;
    const FULL: i64 = 2;
    const EXTRA: i64 = 3;

    #[test]
    fn every_connection_is_durable_and_wipes_what_it_deletes() {
        let (_folder, database) = made();
        for role in [Role::Writer, Role::Reader] {
            let open = database.open(role, Journal::Wal).unwrap();
            assert_eq!((number(&open, "synchronous"), number(&open, "secure_delete")), (FULL, 1));
            assert_eq!(number(&open, "query_only"), i64::from(role == Role::Reader));
            assert!(open.wal.is_some() && database.is_current(&open));
        }
    }

    #[test]
    fn a_change_that_waits_for_no_disk_leaves_the_next_one_durable() {
        let (_folder, database) = made();
        let open = database.open(Role::Writer, Journal::Wal).unwrap();
        let synchronous = || number(&open, "synchronous");
        assert_eq!(open.lightly(synchronous), NORMAL);
        assert_eq!((synchronous(), database.is_current(&open)), (FULL, true));
        // Within a transaction it cannot be set back.
        open.lightly(|| open.connection.execute_batch("BEGIN").unwrap());
        open.connection.execute_batch("ROLLBACK").unwrap();
        assert_eq!((synchronous(), database.is_current(&open)), (NORMAL, false), "nobody saves with it");
    }

    #[test]
    fn without_wal_every_commit_waits_for_the_disk_and_the_folder_too() {
        let (_folder, database) = made();
        let open = database.open(Role::Writer, Journal::Rollback).unwrap();
        let synchronous = || number(&open, "synchronous");
        assert_eq!((synchronous(), open.lightly(synchronous), synchronous(), open.wal), (EXTRA, EXTRA, EXTRA, None));
    }
}
