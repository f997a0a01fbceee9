//! A consistent copy in a file of its own: private from its first byte, and under its name only once it is whole.

use std::path::{Path, PathBuf};
use std::{fs, io};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::connect::connect;
use super::draft::Draft;
use super::file::{self, FileId, beside};
use super::schema::{self, Contents};
use super::trouble::trouble;
use crate::store::{Error, Place, Result};

/// Copies all of `source` into the file `target`, which may be an older backup or nothing yet.
pub(super) fn write(source: &Connection, place: &Place, target: &Path) -> Result<()> {
    let target = &followed(target)?;
    may_be_replaced(place, target)?;
    let folder = target.parent().unwrap_or(target);
    if !folder.is_dir() {
        return Err(file::bad(target, "is in a folder that does not exist", "make the folder first"));
    }
    let draft = Draft::beside(target).map_err(|error| file::refused(target, &error))?;
    if let Err(error) = copy(source, place, draft.path(), target) {
        // On a full disk SQLite leaves it, and beside no draft nobody would look for it.
        let _ = fs::remove_file(beside(draft.path(), "-journal"));
        return Err(error);
    }
    draft.persist(target).map_err(|error| file::refused(target, &error))?;
    file::sync_folder(target).map_err(|error| file::refused(target, &error))
}

/// Where a link leads, which somebody has set for the backups to be there: renamed over it, they would be here.
fn followed(target: &Path) -> Result<PathBuf> {
    if !fs::symlink_metadata(target).is_ok_and(|file| file.is_symlink()) {
        return Ok(target.to_owned());
    }
    fs::canonicalize(target).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => file::leads_nowhere(target),
        _ => file::refused(target, &error),
    })
}

fn copy(source: &Connection, place: &Place, draft: &Path, target: &Path) -> Result<()> {
    let draft_place = Place::File(draft.to_owned());
    // Only the copy takes room.
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => file::refused(target, &io::ErrorKind::StorageFull.into()),
        _ => trouble(place, &error),
    };
    let mut copy = connect(draft, &draft_place)?;
    {
        let backup = Backup::new(source, &mut copy).map_err(failed)?;
        // All pages in one step are the pages of one moment, and other connections go on meanwhile. An empty source of
        // no pages is done at once.
        while !matches!(backup.step(-1).map_err(failed)?, StepResult::Done) {
            if !super::busy::deadline().sleep() {
                return Err(super::busy::deadline().busy(place));
            }
        }
    }
    // One file that is complete by itself, readable from a read-only folder, too.
    copy.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))
        .map_err(|error| trouble(&draft_place, &error))
}

/// A backup replaces an older backup, and nothing else that somebody may still want.
fn may_be_replaced(place: &Place, target: &Path) -> Result<()> {
    let refuse =
        |what| Err(file::bad(target, what, "give the path of an older backup, or of a file that does not exist yet"));
    if file::is_sqlites_own(target) {
        return refuse("has a name that SQLite gives to its own files");
    }
    let Ok(existing) = fs::metadata(target) else { return Ok(()) };
    if !existing.is_file() {
        return refuse("is not a regular file");
    }
    if place.path().is_some_and(|live| FileId::of(live) == FileId::of(target)) {
        return refuse("is the store's own file");
    }
    if beside(target, "-wal").exists() {
        return refuse("is a database in use");
    }
    if existing.len() == 0 {
        return Ok(());
    }
    let target_place = Place::File(target.to_owned());
    let contents = connect(target, &target_place).and_then(|database| {
        // There was no log: the one that the look itself makes goes again.
        let _ = database.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        schema::inspect(&database, &target_place)
    });
    match contents {
        Ok(Contents::Current) => Ok(()),
        // Somebody else's backup, say: what it is can't be told.
        Err(error @ (Error::Refused { .. } | Error::Busy { .. })) => Err(error),
        _ => refuse("is not a token database of this library's"),
    }
}
