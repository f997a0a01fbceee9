//! The schema: which program a file belongs to, and the migrations. A file of another program, or of a newer version,
//! is refused before anything is written.

use rusqlite::{Connection, TransactionBehavior};

use super::error::{damaged, from_sqlite};
use super::path;
use crate::domain::Field;
use crate::store::backend::Location;
use crate::store::error::{Code, Error, Result};

/// `PRAGMA application_id` of our files: "`ZToK`" in ASCII. The first migration writes it.
const APPLICATION_ID: i32 = 0x5A54_6F4B;

/// The scripts that bring a file from each version of the schema to the next. To add a column, append a script. The
/// version of a file, in `PRAGMA user_version`, is the number of scripts that were run on it.
const MIGRATIONS: &[&str] = &[include_str!("migrations/1.sql")];

/// Which tables a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// None, or those of the vendor's sample, or those of an older version.
    Older,
    /// Those of this version.
    Current,
}

/// Returns which tables a file has, without writing. A file of another program, or of a newer version, is an error.
pub(super) fn inspect(connection: &Connection, location: &Location) -> Result<Contents> {
    let read = || -> rusqlite::Result<_> {
        // In one transaction: another process may be migrating the file just now.
        let snapshot = connection.unchecked_transaction()?;
        let number = |pragma| snapshot.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
        let numbers = (number("application_id")?, number("user_version")?);
        let objects = snapshot.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
        let mut columns = snapshot.prepare("SELECT lower(name) FROM pragma_table_info('oauthtoken')")?;
        let columns = columns.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        let page = snapshot.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0))?;
        let pages = snapshot.pragma_query_value(None, "page_count", |row| row.get::<_, u32>(0))?;
        Ok((numbers, objects, columns, location.path().is_some_and(|path| path::is_cut_short(path, page, pages))))
    };
    let ((application, version), objects, columns, is_cut_short) =
        read().map_err(|error| from_sqlite(location, &error))?;
    if is_cut_short {
        return Err(damaged(location, "its last page is not whole"));
    }
    let refuse = |code, detail: String| Err(Error::new(code, location).with(detail));
    let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    match (application, version) {
        (APPLICATION_ID, version) if version > known => {
            refuse(Code::NewerSchema, format!("schema {version}, this version knows {known}"))
        }
        (APPLICATION_ID, version) if version == known => {
            let ours = Field::ALL.map(Field::name).into_iter().chain(["saved_order", "saved_at"]);
            if ours.into_iter().all(|name| columns.iter().any(|column| column == name)) {
                Ok(Contents::Current)
            } else {
                Err(damaged(location, "its tables are not the ones that this library made"))
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
            let missing = missing.join(", ");
            refuse(Code::OtherProgram, format!("its table oauthtoken does not have the columns {missing}"))
        }
        _ => refuse(Code::OtherProgram, "it has tables of another program".to_owned()),
    }
}

/// Migrates a file to the current version, in one transaction.
///
/// A damaged file is refused: a migration would spread damage that SQLite does not notice while it reads. A migration
/// happens once in the life of a file, so there is time to check all of it.
pub(super) fn migrate(connection: &mut Connection, location: &Location) -> Result<()> {
    let failed = |error: rusqlite::Error| from_sqlite(location, &error);
    let verdict = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    if verdict.map_err(failed)? != "ok" {
        return Err(damaged(location, "the integrity check failed"));
    }
    let migrate = |connection: &mut Connection| -> rusqlite::Result<()> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Read inside the transaction: another process may have migrated the file in the meantime.
        let version: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        for (number, script) in (1..).zip(MIGRATIONS).skip_while(|(number, _)| *number <= version) {
            transaction.execute_batch(script)?;
            transaction.pragma_update(None, "user_version", number)?;
        }
        transaction.commit()
    };
    migrate(connection).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_make_a_current_file_and_run_once() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert_eq!(inspect(&connection, &Location::named("the store in memory")).unwrap(), Contents::Older);
        migrate(&mut connection, &Location::named("the store in memory")).unwrap();
        assert_eq!(inspect(&connection, &Location::named("the store in memory")).unwrap(), Contents::Current);
        migrate(&mut connection, &Location::named("the store in memory")).unwrap();
    }
}
