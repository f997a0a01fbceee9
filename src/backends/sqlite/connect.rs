//! How a connection is set up: durable, private, in WAL mode if it can be had. Knows nothing of who uses it.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::from_sqlite;
use super::{busy, path, sql};
use crate::store::backend::Location;
use crate::store::deadline::Deadline;
use crate::store::error::Result;
use crate::store::files::TemporaryFile;

/// Opens the file as every connection of ours needs it.
pub(super) fn connect(path: &Path, location: &Location) -> Result<Connection> {
    let set_up = || -> rusqlite::Result<Connection> {
        // Without CREATE: `path::ensure` makes files, private ones. Without a mutex: a connection has a lock of ours.
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.busy_handler(Some(busy::handler))?;
        connection.set_prepared_statement_cache_capacity(sql::STATEMENTS);
        // Some of these make SQLite read the file, and it can be damaged.
        connection.pragma_update(None, "secure_delete", true)?;
        // No copy of a row in a temporary file.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // Then SQLite brings the log into the file and begins it anew, in its old location: to write over what is there takes
        // half the time of making it longer.
        connection.pragma_update(None, "wal_autocheckpoint", LONGEST_LOG)?;
        // Without WAL a commit is durable only once the folder forgot the journal, too.
        connection.pragma_update(None, "synchronous", "EXTRA")?;
        Ok(connection)
    };
    set_up().map_err(|error| from_sqlite(location, &error))
}

/// How long the log gets, in pages, unless somebody reads all the while: some 80 saves.
const LONGEST_LOG: u32 = 256;

/// Is it in WAL mode?
pub(super) fn is_wal(connection: &Connection) -> rusqlite::Result<bool> {
    connection.pragma_query_value(None, "journal_mode", |row| Ok(row.get::<_, String>(0)?.eq_ignore_ascii_case("wal")))
}

/// Switches to WAL, unless it cannot be had here. Does not open the `-wal` yet: that is for later, under our own locks.
pub(super) fn use_wal(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    if !shared_memory_works(path) {
        return Ok(());
    }
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())) {
            Ok(()) => return Ok(()),
            // SQLite asks no busy handler here, lest two that switch wait for each other.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                if !busy::deadline().sleep(busy::POLL) {
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

/// Goes back to a rollback journal, if nobody else has the file open: on a file system that other machines use, too, WAL
/// would have each of them read a memory of its own.
pub(super) fn leave_wal(connection: &Connection) {
    if is_wal(connection).unwrap_or(false) {
        busy::until(Deadline::now(), || {
            let _ = connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()));
        });
    }
}

/// Can processes share memory by files in this folder? SQLite finds out only after it has switched, and then nobody can
/// read the file: so it is tried on another one, once in the life of a file.
pub(super) fn shared_memory_works(path: &Path) -> bool {
    let Ok(draft) = TemporaryFile::beside(path) else { return false };
    let probe = draft.path();
    let try_out = || -> rusqlite::Result<()> {
        let connection = Connection::open(probe)?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
    };
    let works = try_out().is_ok();
    for ending in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(path::beside(probe, ending));
    }
    works
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wal_is_left_unless_somebody_else_uses_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        let make = || {
            let connection = Connection::open(&path).unwrap();
            connection.busy_timeout(std::time::Duration::ZERO).unwrap();
            connection
        };
        let (one, other) = (make(), make());
        use_wal(&one, &path).unwrap();
        assert!(is_wal(&one).unwrap() && is_wal(&other).unwrap());
        leave_wal(&one);
        assert!(is_wal(&one).unwrap(), "the other would not know");
        drop(other);
        leave_wal(&one);
        assert!(!is_wal(&one).unwrap() && !is_wal(&make()).unwrap());
    }

    #[test]
    fn shared_memory_is_tried_out_and_nothing_stays() {
        let folder = tempfile::tempdir().unwrap();
        assert!(shared_memory_works(&folder.path().join("tokens.db")));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(!shared_memory_works(Path::new("/proc/tokens.db")));
    }
}
