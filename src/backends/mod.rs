//! The places where rows are kept. Each implements [`crate::store::backend::Backend`], and knows nothing of the others.

pub mod address;
pub mod cell;
pub mod list;
#[cfg(feature = "postgres")]
pub mod postgres;
mod records;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use self::address::StoreAddress;
use crate::domain::check::Finding;
use crate::domain::key_ring::Ring;
use crate::store::Store;
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

/// Opens the store at an address.
pub fn open(address: &StoreAddress, create: bool, deadline: Deadline) -> Result<Box<dyn Backend>> {
    match address {
        StoreAddress::File(path) => {
            // If the folder cannot be searched, the file may exist: opening it will tell.
            if !create && path.try_exists().is_ok_and(|exists| !exists) {
                return Err(Error::at(Code::MissingFile, path));
            }
            #[cfg(feature = "sqlite")]
            return Ok(Box::new(sqlite::Sqlite::open(path, deadline)?));
            #[cfg(not(feature = "sqlite"))]
            return {
                let _ = deadline;
                Err(without_files())
            };
        }
        StoreAddress::Cell(cell) => Ok(cell.open()),
        #[cfg(feature = "postgres")]
        StoreAddress::Postgres(server) => {
            let settings = postgres::PostgresSettings { create, ..server.settings() };
            Ok(Box::new(postgres::Postgres::open(server.address.clone(), settings, deadline)?))
        }
    }
}

/// Returns a copy of the rows at an address, if [`open`] would migrate what it finds there. Changes nothing.
pub fn read_older(address: &StoreAddress, deadline: Deadline) -> Result<Option<Box<dyn Backend>>> {
    match address {
        #[cfg(feature = "sqlite")]
        StoreAddress::File(path) => {
            Ok(sqlite::read_older(path, deadline)?.map(|copy| Box::new(copy) as Box<dyn Backend>))
        }
        #[cfg(not(feature = "sqlite"))]
        StoreAddress::File(_) => {
            let _ = deadline;
            Ok(None)
        }
        StoreAddress::Cell(_) => Ok(None),
        // A migration there only adds to what programs of the older version use.
        #[cfg(feature = "postgres")]
        StoreAddress::Postgres(_) => Ok(None),
    }
}

/// Checks the store at an address at `now` (milliseconds since the epoch), even if it cannot be opened. `ring` has the
/// keys of its rows, as far as they are known. Changes nothing.
pub fn check(address: &StoreAddress, now: i64, ring: &Ring, deadline: Deadline) -> Result<Vec<Finding>> {
    let _ = (ring, deadline);
    match address {
        #[cfg(feature = "sqlite")]
        StoreAddress::File(path) => sqlite::check(path, now, ring),
        #[cfg(not(feature = "sqlite"))]
        StoreAddress::File(_) => {
            let _ = now;
            Err(without_files())
        }
        StoreAddress::Cell(cell) => {
            let store = Store::new(cell.open(), deadline.left().unwrap_or_default());
            store.check_with(now, Some(ring)).or_else(|error| Ok(vec![error.into_finding()?]))
        }
        #[cfg(feature = "postgres")]
        StoreAddress::Postgres(server) => {
            postgres::check(&server.address, server.address.schema(), now, ring, deadline)
        }
    }
}

/// Returns the version of the schema of the store at an address. Changes nothing.
pub fn schema_version(address: &StoreAddress, deadline: Deadline) -> Result<i32> {
    let _ = deadline;
    match address {
        #[cfg(feature = "sqlite")]
        StoreAddress::File(path) => sqlite::schema_version(path),
        #[cfg(not(feature = "sqlite"))]
        StoreAddress::File(_) => Err(without_files()),
        StoreAddress::Cell(cell) => cell.open().read(deadline, &mut |_| Ok(())).map(|()| cell::VERSION),
        #[cfg(feature = "postgres")]
        StoreAddress::Postgres(server) => postgres::schema_version(&server.address, server.address.schema(), deadline),
    }
}

/// Returns the statements that make the tables of a store on a server, for a user who may.
pub fn init_sql() -> Result<&'static str> {
    #[cfg(feature = "postgres")]
    return Ok(postgres::INIT_SQL);
    #[cfg(not(feature = "postgres"))]
    return Err(address::without_servers());
}

#[cfg(not(feature = "sqlite"))]
fn without_files() -> Error {
    Error::new(Code::Unsupported, "").with("a token database in a file")
}
