//! What SQLite reports, as an [`Error`] that says the cure. Repeats no SQL, no value and no message of SQLite's own,
//! only the name of its code.

use rusqlite::ErrorCode;
use rusqlite::ffi::{SQLITE_ERROR, SQLITE_IOERR_DELETE_NOENT, code_to_str};

use super::busy;
use super::file::not_a_database;
use crate::store::{Error, Flaw, Place};

/// The [`Error`] for what happened at `place`.
pub(super) fn trouble(place: &Place, error: &rusqlite::Error) -> Error {
    let refused = |what: String, cure| Error::Refused { place: place.clone(), what, cure };
    let not_our_tables = || {
        let what = "its tables are not the ones this library made".to_owned();
        refused(what, "restore a backup, or move the file away")
    };
    let rusqlite::Error::SqliteFailure(failure, _) = error else { return not_our_tables() };
    if failure.extended_code == SQLITE_IOERR_DELETE_NOENT {
        // Somebody removed our journal: for the one of a file that had the same name before. Our turn comes again.
        return busy::deadline().busy(place);
    }
    let what = code_to_str(failure.extended_code);
    match (failure.code, place.path()) {
        (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => busy::deadline().busy(place),
        (ErrorCode::NotADatabase, Some(path)) => not_a_database(path),
        (ErrorCode::DatabaseCorrupt, Some(_)) => damaged(place, what),
        (ErrorCode::ReadOnly | ErrorCode::PermissionDenied, _) => refused(
            format!("it may not be written ({what})"),
            "give this user write permission on the file and on its folder",
        ),
        (ErrorCode::CannotOpen, _) => refused(
            format!("it cannot be opened ({what})"),
            "give this user read and write permission on the file and on its folder",
        ),
        (ErrorCode::DiskFull, _) => {
            refused("the disk or quota is full".to_owned(), "make room and save again: a restart is not needed")
        }
        (ErrorCode::TooBig, _) => refused("a value is larger than SQLite can hold".to_owned(), "save a smaller value"),
        (ErrorCode::OutOfMemory, _) => refused("out of memory".to_owned(), "free some and try again"),
        (ErrorCode::SystemIoFailure, _) => refused(
            format!("the system reported an error ({what})"),
            "look at the disk, its quota and the system's log, and try again",
        ),
        // Our statements are right where our tables are.
        (ErrorCode::Unknown, Some(_)) if failure.extended_code == SQLITE_ERROR => not_our_tables(),
        _ => refused(format!("SQLite refused ({what})"), "try again, and report it if it stays"),
    }
}

/// The file's own contents contradict each other.
pub(super) fn damaged(place: &Place, how: &str) -> Error {
    Error::BadFile {
        path: place.path().map(Into::into).unwrap_or_default(),
        flaw: Flaw::Damaged,
        what: format!("is a damaged SQLite database ({how})"),
        cure: "restore a backup, or move the file away to begin with an empty one",
    }
}
