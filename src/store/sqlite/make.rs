//! Making and migrating a file, before anybody works with it.

use std::path::Path;

use rusqlite::Connection;

use super::connect::{connect, leave_wal, use_wal};
use super::database::Journal;
use super::network::network;
use super::schema::{self, Contents};
use super::trouble::trouble;
use crate::store::{Place, Result};

/// Makes a new file, `draft`, that is to be called `path`.
pub(super) fn make(draft: &Path, path: &Path, journal: Journal) -> Result<()> {
    let place = Place::File(path.to_owned());
    let mut connection = connect(draft, &place)?;
    prepare(&mut connection, draft, &place, journal)
}

/// Makes or migrates a file that is not in WAL mode, and has it use WAL from then on if that can be had.
pub(super) fn prepare(connection: &mut Connection, path: &Path, place: &Place, journal: Journal) -> Result<()> {
    let read_only = connection.is_readonly(rusqlite::MAIN_DB).unwrap_or(false);
    bring_up_to_date(connection, place)?;
    // What is damaged is refused before the mode is written into it.
    read(connection, place)?;
    if read_only {
        return Ok(());
    }
    if network(path).is_some() {
        leave_wal(connection);
    } else if journal == Journal::Wal {
        use_wal(connection, path).map_err(|error| trouble(place, &error))?;
    }
    Ok(())
}

pub(super) fn bring_up_to_date(connection: &mut Connection, place: &Place) -> Result<()> {
    match schema::inspect(connection, place)? {
        Contents::Older => schema::migrate(connection, place),
        Contents::Current => Ok(()),
    }
}

pub(super) fn read(connection: &Connection, place: &Place) -> Result<()> {
    let read = connection.query_row("SELECT last_id, last_order FROM zoho_token_store", [], |_| Ok(()));
    read.map_err(|error| trouble(place, &error))
}
