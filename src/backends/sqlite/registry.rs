//! The database files that stores of this process have open.
//!
//! There is one [`Database`] per file, shared by every store on it. SQLite keeps one record of locks and shared memory
//! per file and process (`unixInodeInfo` in `src/os_unix.c`). So a connection that is no longer usable can only be
//! replaced once all connections of this process to the file are closed.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Weak};

use super::database::Database;
use super::path::{Pin, require_short};
use crate::store::backend::Location;
use crate::store::deadline::Deadline;
use crate::store::error::{Code, Error, Result};
use crate::store::files::FileId;
use crate::store::lock_order::{Ordered, Rank};

static DATABASES: Ordered<Vec<Weak<Database>>> = Ordered::new(Rank::DatabaseRegistry, Vec::new());

/// Does this process have the file at `path` open?
pub(super) fn is_open(path: &Path, deadline: Deadline) -> bool {
    let Some(databases) = DATABASES.lock(deadline) else { return true };
    let id = FileId::of(path);
    databases.iter().filter_map(Weak::upgrade).any(|database| Some(database.id) == id)
}

/// Returns the database file at `path`: the same object for every caller in this process.
///
/// The file exists, unless it was removed or replaced since the caller looked. Then this fails with `Busy`.
pub(super) fn database_at(path: &Path, deadline: Deadline) -> Result<Arc<Database>> {
    let location = Location::path_of(path);
    let mut databases = DATABASES.lock(deadline).ok_or_else(|| deadline.busy(&location))?;
    databases.retain(|database| database.strong_count() > 0);
    let failed = |path: &Path, error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => deadline.busy(&location),
        _ => Error::from_io(path, &error),
    };
    // SQLite names the `-wal` after the real path, not after a symbolic link to it.
    let path = path.canonicalize().map_err(|error| failed(path, error))?;
    require_short(&path, false)?;
    let pin = Pin::new(&path).map_err(|error| failed(&path, error))?;
    let id = pin.id(&path).filter(|_| path.is_file()).ok_or_else(|| deadline.busy(&location))?;
    for database in databases.iter().filter_map(Weak::upgrade).filter(|database| database.id == id) {
        if database.path == path {
            return Ok(database);
        }
        if FileId::of(&database.path) == Some(id) {
            return Err(Error::at(Code::SecondName, &path));
        }
        // The file was renamed. Its connections still use the WAL beside its old name.
        database.close_replaced_file(deadline)?;
    }
    let database = Arc::new(Database::new(path, location, id, pin));
    databases.push(Arc::downgrade(&database));
    Ok(database)
}
