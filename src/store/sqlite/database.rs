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

use std::io::ErrorKind;
use std::mem;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::busy;
use super::connect::{connect, is_wal, leave_untouched, use_wal};
use super::file::{self, FileId};
use super::guard::{self, Guards};
use super::schema::{self, Contents};
use super::trouble::trouble;
use crate::store::wait::Deadline;
use crate::store::{Place, Result};

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

/// A connection, and what has to stay true of it.
pub(super) struct Open {
    pub(super) connection: Connection,
    /// Behind the connection, for it is to be dropped after it.
    guards: Arc<Guards>,
    /// The `-wal` it writes into; none where WAL could not be had.
    wal: Option<FileId>,
    process: u32,
}

/// A database file and this process's connections to it.
pub(super) struct Database {
    /// This file's alone, for as long as this lives.
    pub(super) id: FileId,
    _pin: file::Pin,
    path: PathBuf,
    wal_path: PathBuf,
    place: Place,
    reader: Mutex<Option<Open>>,
    writer: Mutex<Option<Open>>,
    guards: Mutex<Weak<Guards>>,
    /// The `-wal` holds old pages with secrets that could not be wiped, because somebody was reading them.
    log_has_traces: AtomicBool,
    /// So may the file itself: it is still to be rewritten.
    file_has_traces: AtomicBool,
}

/// Every database file that a store of this process has.
static DATABASES: Mutex<Vec<Weak<Database>>> = Mutex::new(Vec::new());

impl Database {
    /// The file at `path`, the same object for everybody in this process.
    pub(super) fn at(path: &Path, deadline: Deadline) -> Result<Arc<Self>> {
        let place = Place::File(path.to_owned());
        let mut databases = deadline.lock(&DATABASES).ok_or_else(|| deadline.busy(&place))?;
        databases.retain(|database| database.strong_count() > 0);
        // SQLite names the `-wal` after the real path, not after a link to it.
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(deadline.busy(&place)),
            Err(error) => return Err(file::refused(path, &error)),
        };
        let pin = file::Pin::new(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => deadline.busy(&place),
            _ => file::refused(&path, &error),
        })?;
        let id = pin.id(&path).ok_or_else(|| deadline.busy(&place))?;
        for database in databases.iter().filter_map(Weak::upgrade).filter(|database| database.id == id) {
            if database.path == path {
                return Ok(database);
            }
            if FileId::of(&database.path) == Some(id) {
                let cure = "use the name that is in use already: two names would mean two logs of changes";
                return Err(file::bad(&path, "is a hard link to a file that is in use under another name", cure));
            }
            // It was renamed, and its connections still write beside its old name.
            database.abandon(deadline)?;
        }
        let wal_path = file::beside(&path, "-wal");
        guard::part_from_stray_log(&path, &wal_path, &file::beside(&path, "-shm"));
        let database = Arc::new(Self {
            id,
            _pin: pin,
            wal_path,
            path,
            place,
            reader: Mutex::new(None),
            writer: Mutex::new(None),
            guards: Mutex::new(Weak::new()),
            log_has_traces: AtomicBool::new(false),
            file_has_traces: AtomicBool::new(false),
        });
        databases.push(Arc::downgrade(&database));
        Ok(database)
    }

    /// Where the connection for `role` is kept.
    pub(super) const fn slot(&self, role: Role) -> &Mutex<Option<Open>> {
        match role {
            Role::Reader => &self.reader,
            Role::Writer => &self.writer,
        }
    }

    /// May `open` be used: by this process, on the `-wal` that others use, outside of any transaction?
    pub(super) fn is_current(&self, open: &Open) -> bool {
        open.process == process::id() && self.has_its_wal(open) && open.connection.is_autocommit()
    }

    /// Is the `-wal` that `open` writes into the one that others read?
    pub(super) fn has_its_wal(&self, open: &Open) -> bool {
        open.wal == FileId::of(&self.wal_path)
    }

    /// Opens a connection: inspects the file, migrates it if it is older, and uses WAL if it can be had.
    pub(super) fn open(&self, role: Role, journal: Journal) -> Result<Open> {
        let failed = |error| trouble(&self.place, &error);
        let mut connection = self.connect(role, journal, false)?;
        let wal = is_wal(&connection).map_err(failed)?;
        let Some((guards, fresh)) = self.guards(wal) else {
            drop(connection);
            return Err(busy::deadline().busy(&self.place));
        };
        if wal && fresh {
            // What was opened before the guards were there may have lost its `-wal` meanwhile.
            drop(connection);
            connection = self.connect(role, journal, true)?;
        }
        let wal_id = FileId::of(&self.wal_path);
        if wal != wal_id.is_some() || FileId::of(&self.path) != Some(self.id) {
            // Somebody took a file away just now.
            return Err(busy::deadline().busy(&self.place));
        }
        let open = Open { connection, guards, wal: wal_id, process: process::id() };
        if role == Role::Writer && file::length(&self.wal_path) > 0 {
            // Whoever wrote that may have been killed before its traces were wiped.
            self.empty_log(&open, Deadline::now());
        }
        Ok(open)
    }

    /// `guarded`: only if it is in WAL mode already. To switch to it takes an exclusive lock, which our own guards forbid.
    fn connect(&self, role: Role, journal: Journal, guarded: bool) -> Result<Connection> {
        let mut connection = connect(&self.path, &self.place)?;
        if guarded && !is_wal(&connection).map_err(|error| trouble(&self.place, &error))? {
            return Err(busy::deadline().busy(&self.place));
        }
        match self.prepare(&mut connection, role, journal) {
            Ok(()) => Ok(connection),
            Err(error) => {
                leave_untouched(connection, &self.path);
                Err(error)
            }
        }
    }

    /// The locks that both connections share, and whether they were taken just now. `None`: not to be had, or not for
    /// this file.
    fn guards(&self, wal: bool) -> Option<(Arc<Guards>, bool)> {
        let mut kept = busy::deadline().lock(&self.guards)?;
        if let Some(guards) = kept.upgrade().filter(|guards| guards.are_ours(wal)) {
            return Some((guards, false));
        }
        let shm = file::beside(&self.path, "-shm");
        let guards = Arc::new(Guards::take(&self.path, wal.then_some(&*shm), busy::deadline())?);
        *kept = Arc::downgrade(&guards);
        Some((guards, true))
    }

    fn prepare(&self, connection: &mut Connection, role: Role, journal: Journal) -> Result<()> {
        let read_only = connection.is_readonly(rusqlite::MAIN_DB).unwrap_or(false);
        if schema::inspect(connection, &self.place)? == Contents::Older {
            schema::migrate(connection, &self.place)?;
        }
        let check = |result: rusqlite::Result<()>| result.map_err(|error| trouble(&self.place, &error));
        let wal = journal == Journal::Wal && !read_only;
        if wal && use_wal(connection, &self.path).map_err(|error| trouble(&self.place, &error))? {
            // A commit in WAL mode is durable with FULL.
            check(connection.pragma_update(None, "synchronous", "FULL"))?;
        }
        if role == Role::Reader {
            check(connection.pragma_update(None, "query_only", true))?;
        }
        // The first read opens the `-wal`.
        check(connection.query_row("SELECT count(*) FROM zoho_token_store", [], |_| Ok(())))
    }

    /// Closes all connections, that they can be opened anew.
    pub(super) fn retire(&self, deadline: Deadline) -> Result<()> {
        for role in [Role::Writer, Role::Reader] {
            let mut slot = deadline.lock(self.slot(role)).ok_or_else(|| deadline.busy(&self.place))?;
            close(slot.take(), false);
        }
        Ok(())
    }

    /// The path names another file, or none: what is left of this one beside it must not be taken for the other's.
    ///
    /// SQLite replays any `-wal` that it finds beside a database. As long as we have ours open its number is not given
    /// out again, so ours it is if the numbers are equal; and nobody else's, unless somebody has the new file open.
    pub(super) fn abandon(&self, deadline: Deadline) -> Result<()> {
        for role in [Role::Writer, Role::Reader] {
            let mut slot = deadline.lock(self.slot(role)).ok_or_else(|| deadline.busy(&self.place))?;
            let Some(open) = slot.take() else { continue };
            // If the file lives on under another name it is to be whole there.
            busy::until(Deadline::after(busy::FOR_TRACES), || open.bring_in());
            let left_behind = FileId::of(&self.path) != Some(self.id) && !guard::is_in_use(&self.path);
            if open.process == process::id() && open.wal.is_some() && self.has_its_wal(&open) && left_behind {
                let _ = std::fs::remove_file(&self.wal_path);
                let _ = std::fs::remove_file(file::beside(&self.path, "-shm"));
            }
            close(Some(open), false);
        }
        Ok(())
    }

    /// Wipes what a change has deleted, or remembers that it has to be done.
    ///
    /// First from the file: `secure_delete` overwrites what is deleted, but when SQLite moves rows from page to page it
    /// leaves copies behind that it forgets. Only to rewrite the file gets rid of them.
    pub(super) fn wipe_traces(&self, open: &Open, deadline: Deadline) {
        self.file_has_traces.store(file::length(&self.path) <= LARGEST_REWRITTEN, Ordering::Relaxed);
        self.wipe_left_traces(open, deadline);
    }

    /// The same, as far as it was not done yet.
    pub(super) fn wipe_left_traces(&self, open: &Open, deadline: Deadline) {
        if self.file_has_traces.load(Ordering::Relaxed) {
            let rewritten = busy::until(deadline, || open.in_turn(deadline, || open.rewrite_file()));
            self.file_has_traces.store(rewritten != Some(true), Ordering::Relaxed);
        }
        self.empty_log(open, deadline);
    }

    /// Is anything left to be wiped that could not be?
    pub(super) fn has_traces(&self) -> bool {
        self.file_has_traces.load(Ordering::Relaxed) || self.log_has_traces.load(Ordering::Relaxed)
    }

    /// Has the `-wal` become so long that it is to be emptied, whatever it holds?
    pub(super) fn has_long_log(&self) -> bool {
        file::length(&self.wal_path) > LONGEST_LOG
    }

    /// Empties the `-wal`, in which old pages stay readable, or remembers that it has to be done.
    ///
    /// In turn, for it writes; but waiting for a reader it holds up nobody else's.
    pub(super) fn empty_log(&self, open: &Open, deadline: Deadline) {
        loop {
            let emptied = busy::until(Deadline::now(), || open.in_turn(deadline, || open.bring_in()));
            self.log_has_traces.store(emptied != Some(true), Ordering::Relaxed);
            if emptied == Some(true) || !deadline.sleep() {
                return;
            }
        }
    }
}

impl Open {
    /// Brings everything in the `-wal` into the file and empties it, if nobody is in the way. Tells whether it did.
    fn bring_in(&self) -> bool {
        if self.process != process::id() || self.wal.is_none() {
            return true;
        }
        let blocked = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        blocked.is_ok_and(|blocked| !blocked)
    }

    /// Was it a file that could only be read?
    pub(super) fn is_read_only(&self) -> bool {
        self.connection.is_readonly(rusqlite::MAIN_DB).unwrap_or(false)
    }

    /// Writes the file anew, in pages that hold nothing but its rows. Tells whether it did.
    fn rewrite_file(&self) -> bool {
        self.process == process::id() && self.connection.execute_batch("VACUUM").is_ok()
    }

    /// Waits until no other process of this library's writes, and runs `work`. `None`: not in time.
    pub(super) fn in_turn<T>(&self, deadline: Deadline, work: impl FnOnce() -> T) -> Option<T> {
        let _turn = self.guards.turn(deadline)?;
        Some(work())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        for role in [Role::Reader, Role::Writer] {
            let open = match role {
                Role::Reader => self.reader.get_mut().take(),
                Role::Writer => self.writer.get_mut().take(),
            };
            let tidy =
                open.as_ref().is_some_and(|open| self.is_current(open)) && FileId::of(&self.path) == Some(self.id);
            // Others, who have the file open, do not know of them.
            if let Some(open) = open.as_ref().filter(|_| tidy && role == Role::Writer && self.has_traces()) {
                self.wipe_left_traces(open, Deadline::now());
            }
            close(open, tidy);
        }
    }
}

/// Closes a connection. `tidy`: the last to close the file brings the `-wal` into it and removes it.
///
/// That is not the default ([`connect`] turns it off), because SQLite removes the `-wal` by its name: it can be another
/// file's by then.
fn close(open: Option<Open>, tidy: bool) {
    let Some(open) = open else { return };
    if open.process != process::id() {
        // Our parent's. Closing it here could checkpoint and delete what the parent works with.
        mem::forget(open);
        return;
    }
    let guards = Arc::clone(&open.guards);
    // In turn: SQLite's own lock on what it is about to remove can be dropped by other code in this process.
    let turn = if tidy { guards.turn(Deadline::after(FOR_TIDYING)) } else { None };
    if turn.is_some() {
        guards.release();
        let _ = open.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    }
    drop(open);
}

/// The largest file that is rewritten after each delete, in bytes: some 10 000 rows, which takes 60 ms. Of 100 000 rows it
/// would take 0.6 s, in which nobody could save.
const LARGEST_REWRITTEN: u64 = 4 << 20;

/// The longest `-wal` that a save leaves behind, in bytes: some 60 saves. To empty it takes as long as 8 saves.
const LONGEST_LOG: u64 = 1 << 20;

/// How long the tidying of a file that is closed waits for those who write just now, before it is left to them.
const FOR_TIDYING: Duration = Duration::from_secs(1);

/// Closes every connection of this process, before it forks.
pub(super) fn let_go(deadline: Deadline) {
    let all = || Some(deadline.lock(&DATABASES)?.iter().filter_map(Weak::upgrade).collect());
    let databases: Vec<Arc<Database>> = all().unwrap_or_default();
    for database in databases {
        // A `-wal` that is left alone must hold nothing: until we are back, the file may have been replaced.
        if let Some(open) = deadline.lock(&database.writer).as_deref().and_then(Option::as_ref) {
            busy::until(Deadline::now(), || open.bring_in());
        }
        let _ = database.retire(deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_is_durable_and_wipes_what_it_deletes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        file::ensure(&path).unwrap();
        let database = Database::at(&path, Deadline::after(Duration::from_secs(20))).unwrap();
        for role in [Role::Writer, Role::Reader] {
            let open = database.open(role, Journal::Wal).unwrap();
            let number = |pragma| open.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap();
            let (full, on) = (2, 1);
            assert_eq!((number("synchronous"), number("secure_delete")), (full, on));
            assert_eq!(number("query_only"), i64::from(role == Role::Reader));
            assert!(open.wal.is_some() && database.is_current(&open));
        }
    }

    #[test]
    fn without_wal_a_commit_waits_for_the_folder_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        file::ensure(&path).unwrap();
        let open = Database::at(&path, Deadline::after(Duration::from_secs(20)))
            .unwrap()
            .open(Role::Writer, Journal::Rollback)
            .unwrap();
        let extra = 3;
        let synchronous = open.connection.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!((synchronous, open.wal), (extra, None));
    }
}
