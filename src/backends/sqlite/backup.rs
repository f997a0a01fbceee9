//! Backup: a consistent copy in a private file, which appears under its name only when it is complete.

use std::path::{Path, PathBuf};
use std::{fs, io};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::connection::{connect, connect_temporary, use_memory_journal};
use super::error::from_sqlite;
use super::path::beside;
use super::schema::{self, Contents};
use super::waiting::{LOCK_POLL, current_deadline};
use crate::store::atomic_write::{Existing, write_atomically};
use crate::store::backend::Location;
use crate::store::error::{Code, Error, Result};
use crate::store::files::{is_same_file, require_writable_target};

/// Copies all of `source` into the file `target`, which may be an older backup or nothing yet.
pub(super) fn write(source: &Connection, location: &Location, target: &Path) -> Result<()> {
    let target = &follow_link(target)?;
    require_replaceable(location, target)?;
    write_atomically(target, Existing::Replace, |temporary, _| copy(source, location, temporary, target))
}

/// Returns the file that a symbolic link names. A user sets such a link so that the backups are elsewhere, and a rename
/// over it would replace the link.
fn follow_link(target: &Path) -> Result<PathBuf> {
    if !fs::symlink_metadata(target).is_ok_and(|file| file.is_symlink()) {
        return Ok(target.to_owned());
    }
    fs::canonicalize(target).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::at(Code::BrokenLink, target),
        _ => Error::from_io(target, &error),
    })
}

fn copy(source: &Connection, location: &Location, temporary: &Path, target: &Path) -> Result<()> {
    let temporary_location = Location::path_of(temporary);
    // Only the copy needs space.
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::at(Code::DiskFull, target),
        _ => from_sqlite(location, &error),
    };
    let mut copy = connect_temporary(temporary, &temporary_location)?;
    {
        let backup = Backup::new(source, &mut copy).map_err(failed)?;
        // All pages in one step are a snapshot, and other connections go on meanwhile
        // (https://www.sqlite.org/c3ref/backup_finish.html). An empty source has no pages, and is done at once.
        while !matches!(backup.step(-1).map_err(failed)?, StepResult::Done) {
            if !current_deadline().sleep(LOCK_POLL) {
                return Err(current_deadline().busy(location));
            }
        }
    }
    // A copy of a file in WAL mode is in WAL mode, too. This ends it, so that the backup is one complete file. It can
    // be read in a read-only folder, too.
    use_memory_journal(&copy).map_err(|error| from_sqlite(&temporary_location, &error))
}

/// Fails unless `target` can be replaced: it is an older backup, an empty file, or no file.
fn require_replaceable(location: &Location, target: &Path) -> Result<()> {
    const NOT_OURS: &str = "it is not a token database of this library";
    let refuse = |reason: &str| Err(Error::at(Code::TargetNotABackup, target).with(reason));
    if super::FORMAT.reserves(target) {
        return Err(Error::at(Code::ReservedName, target));
    }
    require_writable_target(target)?;
    let Ok(existing) = fs::metadata(target) else { return Ok(()) };
    if location.path().is_some_and(|live| is_same_file(live, target)) {
        return refuse("it is the store's own file");
    }
    if beside(target, "-wal").exists() {
        return refuse("it is a database in use");
    }
    if existing.len() == 0 {
        return Ok(());
    }
    let target_location = Location::path_of(target);
    let contents = connect(target, &target_location).and_then(|database| {
        // There was no WAL. SQLite removes the one that it creates for this connection.
        let _ = database.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        schema::inspect(&database, &target_location)
    });
    match contents {
        Ok(Contents::Current) => Ok(()),
        Ok(Contents::Older) => refuse(NOT_OURS),
        // Wrong contents are a reason to refuse. Any other error means that the contents are unknown.
        Err(error) => error.into_finding().and_then(|_| refuse(NOT_OURS)),
    }
}
