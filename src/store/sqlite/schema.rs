//! Whose file is it, and is it of this library's version? Refuses before anything is written.

use rusqlite::{Connection, TransactionBehavior};
use rusqlite_migration::{M, Migrations};

use super::file;
use super::trouble::{damaged, trouble};
use crate::domain::Field;
use crate::store::{Error, Flaw, Place, Result};

/// "`ZToK`": what `PRAGMA application_id` says of a file of ours. The first migration writes it.
const APPLICATION_ID: i32 = 0x5A54_6F4B;

const STEPS: &[M<'_>] = &[M::up(include_str!("migrations/1.sql"))];
const MIGRATIONS: Migrations<'_> = Migrations::from_slice(STEPS);

/// What stands in a file, as far as it concerns us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// Nothing, or what the vendor's sample wrote, or an older version's tables.
    Older,
    /// This version's tables.
    Current,
}

/// Looks, without writing. A file that is neither empty nor the sample's nor ours is an error, as is a newer one.
pub(super) fn inspect(connection: &Connection, place: &Place) -> Result<Contents> {
    let read = || -> rusqlite::Result<_> {
        // One transaction, for another process may be migrating the file just now.
        let moment = connection.unchecked_transaction()?;
        let number = |pragma| moment.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
        let numbers = (number("application_id")?, number("user_version")?);
        let objects = moment.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
        let mut columns = moment.prepare("SELECT lower(name) FROM pragma_table_info('oauthtoken')")?;
        let columns = columns.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        let page = moment.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0))?;
        let pages = moment.pragma_query_value(None, "page_count", |row| row.get::<_, u32>(0))?;
        Ok((numbers, objects, columns, place.path().is_some_and(|path| file::is_cut_short(path, page, pages))))
    };
    let ((application, version), objects, columns, is_cut_short) = read().map_err(|error| trouble(place, &error))?;
    if is_cut_short {
        return Err(damaged(place, "its last page is not whole"));
    }
    let refuse = |flaw, what: String, cure| {
        Err(Error::BadFile { path: place.path().map(Into::into).unwrap_or_default(), flaw, what, cure })
    };
    let known = i32::try_from(STEPS.len()).unwrap_or(i32::MAX);
    match (application, version) {
        (APPLICATION_ID, version) if version > known => refuse(
            Flaw::Newer,
            format!("was written by a newer version of zoho-token-store (schema {version}, this one knows {known})"),
            "upgrade zoho-token-store, or restore a backup that the older version made",
        ),
        (APPLICATION_ID, version) if version == known => {
            let ours = Field::ALL.map(Field::name).into_iter().chain(["saved_order", "saved_at"]);
            if ours.into_iter().all(|name| columns.iter().any(|column| column == name)) {
                Ok(Contents::Current)
            } else {
                Err(damaged(place, "its tables are not the ones this library made"))
            }
        }
        (APPLICATION_ID, _) => Ok(Contents::Older),
        (0, 0) if objects == 0 => Ok(Contents::Older),
        (0, 0) if !columns.is_empty() => {
            let missing: Vec<_> =
                Field::ALL.map(Field::name).into_iter().filter(|name| !columns.iter().any(|c| c == name)).collect();
            if missing.is_empty() {
                return Ok(Contents::Older);
            }
            refuse(
                Flaw::AnotherPrograms,
                format!("has a table oauthtoken without the column(s) {}", missing.join(", ")),
                "give the path of a file that the SDK's sample or this library made",
            )
        }
        _ => refuse(
            Flaw::AnotherPrograms,
            "is the database of another program".to_owned(),
            "give the path of a token database, or of a file that does not exist yet",
        ),
    }
}

/// Brings an older file up to this version, all at once or not at all.
///
/// Not a damaged one: what SQLite does not notice while it reads, it would spread. Once in the life of a file there is
/// time to look at all of it.
pub(super) fn migrate(connection: &mut Connection, place: &Place) -> Result<()> {
    let verdict = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    if verdict.map_err(|error| trouble(place, &error))? != "ok" {
        return Err(damaged(place, "integrity check failed"));
    }
    connection.set_transaction_behavior(TransactionBehavior::Immediate);
    let Err(error) = MIGRATIONS.to_latest(connection) else { return Ok(()) };
    // It reads the version before it has the file to itself. Another process may have been faster.
    if inspect(connection, place)? == Contents::Current {
        return Ok(());
    }
    Err(match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => trouble(place, &err),
        _ => Error::Refused {
            place: place.clone(),
            what: "its tables cannot be brought up to date".to_owned(),
            cure: "restore a backup, and report it if it stays",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_are_valid_and_say_whose_file_it_is() {
        MIGRATIONS.validate().unwrap();
        let mut connection = Connection::open_in_memory().unwrap();
        assert_eq!(inspect(&connection, &Place::Memory).unwrap(), Contents::Older);
        migrate(&mut connection, &Place::Memory).unwrap();
        assert_eq!(inspect(&connection, &Place::Memory).unwrap(), Contents::Current);
    }
}
