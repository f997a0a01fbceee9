//! SQLite's errors as errors of the catalogue. An error repeats no SQL, no value and no message of SQLite, only the
//! name of its result code (<https://www.sqlite.org/rescode.html>).

use rusqlite::ErrorCode;
use rusqlite::ffi::{SQLITE_ERROR, SQLITE_IOERR_DELETE_NOENT, code_to_str};

use super::path;
use super::waiting::current_deadline;
use crate::store::backend::Location;
use crate::store::error::{Code, Error};

/// The error for what SQLite reported at `location`.
pub(super) fn from_sqlite(location: &Location, error: &rusqlite::Error) -> Error {
    let at = |code| Error::new(code, location);
    let rusqlite::Error::SqliteFailure(failure, _) = error else { return at(Code::UnexpectedTables) };
    if failure.extended_code == SQLITE_IOERR_DELETE_NOENT {
        // Another process removed our journal: it took it for the journal of a file that had this name before. The
        // operation is tried again.
        return current_deadline().busy(location);
    }
    let name = code_to_str(failure.extended_code);
    let is_file = location.path().is_some();
    match failure.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => current_deadline().busy(location),
        ErrorCode::NotADatabase if is_file => at(Code::NotADatabase),
        ErrorCode::DatabaseCorrupt if is_file => damaged(location, name),
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => at(Code::ReadOnly).with(name),
        ErrorCode::CannotOpen => {
            location.path().and_then(path::why_not_opened).unwrap_or_else(|| at(Code::CannotOpen).with(name))
        }
        ErrorCode::DiskFull => at(Code::DiskFull),
        ErrorCode::TooBig => at(Code::ValueTooLarge),
        ErrorCode::OutOfMemory => at(Code::OutOfMemory),
        ErrorCode::SystemIoFailure => at(Code::IoError).with(name),
        // Our statements are correct. So if SQLite cannot compile one, the tables are not ours.
        ErrorCode::Unknown if is_file && failure.extended_code == SQLITE_ERROR => at(Code::UnexpectedTables),
        _ => at(Code::DatabaseError).with(name),
    }
}

/// The contents of the file contradict each other.
pub(super) fn damaged(location: &Location, how: &str) -> Error {
    Error::new(Code::Damaged, location).with(how)
}
