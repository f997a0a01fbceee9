//! Backup: a consistent copy in a private file, which appears under its name only when it is complete.

use std::path::{Path, PathBuf};
use std::{fs, io};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::busy;
use super::connect::connect;
use super::error::from_sqlite;
use super::path::beside;
use super::schema::{self, Contents};
use crate::store::backend::Location;
use crate::store::error::{Code, Error, Result};
use crate::store::files::{Existing, is_same_file, require_writable_target, write_atomically};

/// Copies all of `source` into the file `target`, which may be an older backup or nothing yet.
pub(super) fn write(source: &Connection, location: &Location, target: &Path) -> Result<()> {
    let target = &followed(target)?;
    may_be_replaced(location, target)?;
    write_atomically(target, Existing::Replace, |temporary, _| copy(source, location, temporary, target))
}

/// Where a link leads, which somebody has set for the backups to be there: renamed over it, they would be here.
fn followed(target: &Path) -> Result<PathBuf> {
    if !fs::symlink_metadata(target).is_ok_and(|file| file.is_symlink()) {
        return Ok(target.to_owned());
    }
    fs::canonicalize(target).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::at(Code::BrokenLink, target),
        _ => Error::from_io(target, &error),
    })
}

fn copy(source: &Connection, location: &Location, draft: &Path, target: &Path) -> Result<()> {
    let draft_location = Location::path_of(draft);
    // Only the copy takes room.
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::at(Code::DiskFull, target),
        _ => from_sqlite(location, &error),
    };
    let mut copy = connect(draft, &draft_location)?;
    {
        let backup = Backup::new(source, &mut copy).map_err(failed)?;
        // All pages in one step are the pages of one moment, and other connections go on meanwhile. An empty source of
        // no pages is done at once.
        while !matches!(backup.step(-1).map_err(failed)?, StepResult::Done) {
            if !busy::deadline().sleep(busy::POLL) {
                return Err(busy::deadline().busy(location));
            }
        }
    }
    // One file that is complete by itself, readable from a read-only folder, too.
    copy.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))
        .map_err(|error| from_sqlite(&draft_location, &error))
}

/// A backup replaces an older backup, and nothing else that somebody may still want.
fn may_be_replaced(location: &Location, target: &Path) -> Result<()> {
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
        // There was no log: the one that the look itself makes goes again.
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
