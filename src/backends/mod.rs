//! The places where rows are kept. Each implements [`crate::store::backend::Backend`], and knows nothing of the others.

pub mod list;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::path::Path;

use crate::domain::check::Finding;
use crate::store::backend::{Backend, DatabaseFormat};
use crate::store::deadline::Deadline;
use crate::store::error::{Code, Error, Result};

/// The database files that rows can be imported and restored from.
pub const DATABASE_FORMATS: &[&DatabaseFormat] = &[
    #[cfg(feature = "sqlite")]
    &sqlite::FORMAT,
];

/// The format of a backup of a backend that cannot make one online.
pub const BACKUP_FORMAT: Option<&DatabaseFormat> = DATABASE_FORMATS.first().copied();

/// Opens the store at an address. Today an address is the path of a database file.
pub fn open(address: &Path, create: bool, deadline: Deadline) -> Result<Box<dyn Backend>> {
    // If the folder cannot be searched, the file may exist: opening it will tell.
    if !create && address.try_exists().is_ok_and(|exists| !exists) {
        return Err(Error::at(Code::MissingFile, address));
    }
    #[cfg(feature = "sqlite")]
    return Ok(Box::new(sqlite::Sqlite::open(address, deadline)?));
    #[cfg(not(feature = "sqlite"))]
    return {
        let _ = deadline;
        Err(Error::new(Code::Unsupported, "").with("a token database in a file"))
    };
}

/// Returns a copy of the rows at an address, if [`open`] would migrate what it finds there. Changes nothing.
pub fn read_older(address: &Path, deadline: Deadline) -> Result<Option<Box<dyn Backend>>> {
    #[cfg(feature = "sqlite")]
    return Ok(sqlite::read_older(address, deadline)?.map(|copy| Box::new(copy) as Box<dyn Backend>));
    #[cfg(not(feature = "sqlite"))]
    return {
        let _ = (address, deadline);
        Ok(None)
    };
}

/// Checks the store at an address at `now` (milliseconds since the epoch), even if it cannot be opened. Changes
/// nothing.
pub fn check(address: &Path, now: i64) -> Result<Vec<Finding>> {
    #[cfg(feature = "sqlite")]
    return sqlite::check(address, now);
    #[cfg(not(feature = "sqlite"))]
    return {
        let _ = (address, now);
        Err(Error::new(Code::Unsupported, "").with("a token database in a file"))
    };
}

/// Returns the version of the schema of the store at an address. Changes nothing.
pub fn schema_version(address: &Path) -> Result<i32> {
    #[cfg(feature = "sqlite")]
    return sqlite::schema_version(address);
    #[cfg(not(feature = "sqlite"))]
    return {
        let _ = address;
        Err(Error::new(Code::Unsupported, "").with("a token database in a file"))
    };
}
