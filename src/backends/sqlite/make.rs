//! Making and migrating a file, before anybody works with it.

use std::path::Path;

use rusqlite::Connection;

use super::connect::{connect, leave_wal, use_wal};
use super::database::Journal;
use super::error::from_sqlite;
use super::network::network;
use super::schema::{self, Contents};
use crate::store::backend::Location;
use crate::store::error::Result;

/// Makes a new file, `draft`, that is to be called `path`.
pub(super) fn make(draft: &Path, path: &Path, journal: Journal) -> Result<()> {
    let location = Location::path_of(path);
    let mut connection = connect(draft, &location)?;
    prepare(&mut connection, draft, &location, journal)
}

/// Makes or migrates a file that is not in WAL mode, and has it use WAL from then on if that can be had.
pub(super) fn prepare(connection: &mut Connection, path: &Path, location: &Location, journal: Journal) -> Result<()> {
    let read_only = connection.is_readonly(rusqlite::MAIN_DB).unwrap_or(false);
    bring_up_to_date(connection, location)?;
    // What is damaged is refused before the mode is written into it.
    read(connection, location)?;
    if read_only {
        return Ok(());
    }
    if network(path).is_some() {
        leave_wal(connection);
    } else if journal == Journal::Wal {
        use_wal(connection, path).map_err(|error| from_sqlite(location, &error))?;
    }
    Ok(())
}

pub(super) fn bring_up_to_date(connection: &mut Connection, location: &Location) -> Result<()> {
    match schema::inspect(connection, location)? {
        Contents::Older => schema::migrate(connection, location),
        Contents::Current => Ok(()),
    }
}

pub(super) fn read(connection: &Connection, location: &Location) -> Result<()> {
    let read = connection.query_row("SELECT last_id, last_order FROM zoho_token_store", [], |_| Ok(()));
    read.map_err(|error| from_sqlite(location, &error))
}
