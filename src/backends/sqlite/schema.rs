//! The schema: which program a file belongs to, and the migrations. A file of another program, or of a newer version,
//! is refused before anything is written.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::error::{damaged, from_sqlite};
use super::path;
use crate::domain::Field;
use crate::store::backend::Location;
use crate::store::error::{Code, Error, Result};

/// `PRAGMA application_id` of our files: "`ZToK`" in ASCII. The first migration writes it.
const APPLICATION_ID: i32 = 0x5A54_6F4B;

/// The scripts that bring a file from each version of the schema to the next. To add a column, append a script. The
/// version of a file, in `PRAGMA user_version`, is the number of scripts that were run on it, or [`SEALED_VERSION`].
const MIGRATIONS: &[&str] = &[include_str!("migrations/1.sql")];

/// The version of a file that has sealed rows. No migration leads to it: the first sealed row does, and a file whose rows
/// are all in clear text again goes back.
const SEALED_VERSION: i32 = 2;
/// Brings a file to [`SEALED_VERSION`].
const SEAL: &str = include_str!("migrations/sealed.sql");
/// Brings it back.
const UNSEAL: &str = "DROP TRIGGER IF EXISTS zoho_token_store_insert_sealed; \
     DROP TRIGGER IF EXISTS zoho_token_store_update_sealed; DROP TABLE IF EXISTS zoho_token_key; \
     PRAGMA user_version = 1";

/// The columns that the first migration adds to the sample's.
const OUR_COLUMNS: [&str; 2] = ["saved_order", "saved_at"];

/// Which tables a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// None, or those of the vendor's sample, or those of an older version.
    Older,
    /// Those of this version.
    Current,
}

/// Returns the version of a file: the number of scripts that were run on it.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Does the version say that the file has sealed rows?
pub(super) fn is_sealed(connection: &Connection) -> rusqlite::Result<bool> {
    let version: i32 = connection.prepare_cached("PRAGMA user_version")?.query_row([], |row| row.get(0))?;
    Ok(version >= SEALED_VERSION)
}

/// Prepares the file for sealed rows, or for rows in clear text alone. Runs in the transaction that writes them.
pub(super) fn set_sealed(connection: &Connection, sealed: bool) -> rusqlite::Result<()> {
    connection.execute_batch(if sealed { SEAL } else { UNSEAL })
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
    // A sealed file has these tables, and more.
    let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    match (application, version) {
        (APPLICATION_ID, version) if version > SEALED_VERSION => {
            refuse(Code::NewerSchema, format!("schema {version}, this version knows {SEALED_VERSION}"))
        }
        (APPLICATION_ID, version) if version >= known => {
            let ours = Field::ALL.map(Field::name).into_iter().chain(OUR_COLUMNS);
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

/// What kind of table `oauthtoken` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TableKind {
    Table,
    WithoutRowid,
    View,
    Virtual,
}

/// A column of the table that is not one of the sample's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ExtraColumn {
    name: String,
    /// `NOT NULL` without a default.
    needs_value: bool,
}

/// Says why a table that another program made cannot be used. `None`: it can.
///
/// What can be told from the sample's table only by other programs is no reason: types, `STRICT`, collations, generated
/// columns, triggers.
fn flaw(kind: TableKind, extra: &[ExtraColumn], has_absent_ids: bool, has_equal_ids: bool) -> Option<String> {
    match kind {
        TableKind::View => return Some("it is a view".to_owned()),
        TableKind::Virtual => return Some("it is a virtual table".to_owned()),
        TableKind::WithoutRowid => return Some("it is WITHOUT ROWID".to_owned()),
        TableKind::Table => {}
    }
    for ExtraColumn { name, needs_value } in extra {
        if OUR_COLUMNS.contains(&name.as_str()) {
            return Some(format!("it has a column {name} already"));
        }
        if *needs_value {
            return Some(format!("its column {name} needs a value"));
        }
    }
    match (has_absent_ids, has_equal_ids) {
        (true, _) => Some("a row has no id".to_owned()),
        (_, true) => Some("several rows have the same id".to_owned()),
        _ => None,
    }
}

/// Fails if the table `oauthtoken` of another program cannot be used ([`flaw`]).
pub(super) fn require_usable(connection: &Connection, location: &Location) -> Result<()> {
    let look = || -> rusqlite::Result<Option<String>> {
        if connection.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0))? != 0 {
            return Ok(None);
        }
        let kind = connection.query_row(
            "SELECT type, wr FROM pragma_table_list WHERE schema = 'main' AND name = 'oauthtoken' COLLATE NOCASE",
            [],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)),
        );
        let kind = match kind.optional()? {
            None => return Ok(None),
            Some((kind, _)) if kind == "view" => TableKind::View,
            Some((kind, _)) if kind == "virtual" => TableKind::Virtual,
            Some((_, true)) => TableKind::WithoutRowid,
            Some(_) => TableKind::Table,
        };
        let mut columns = connection.prepare(
            "SELECT lower(name), \"notnull\" AND dflt_value IS NULL AND hidden = 0 \
             FROM pragma_table_xinfo('oauthtoken')",
        )?;
        let columns = columns.query_map([], |row| Ok(ExtraColumn { name: row.get(0)?, needs_value: row.get(1)? }))?;
        let mut extra = columns.collect::<rusqlite::Result<Vec<_>>>()?;
        extra.retain(|column| Field::ALL.iter().all(|field| field.name() != column.name));
        let holds = |sql| connection.query_row(sql, [], |row| row.get::<_, bool>(0));
        let has_absent_ids = holds("SELECT EXISTS (SELECT 1 FROM oauthtoken WHERE id IS NULL OR id = '')")?;
        let is_key =
            holds("SELECT count(*) = 1 AND max(lower(name)) = 'id' FROM pragma_table_info('oauthtoken') WHERE pk > 0")?;
        let has_equal_ids = (!is_key || holds(HAS_UNTYPED_IDS)?)
            && holds("SELECT EXISTS (SELECT 1 FROM oauthtoken GROUP BY CAST(id AS TEXT) HAVING count(*) > 1)")?;
        Ok(flaw(kind, &extra, has_absent_ids, has_equal_ids))
    };
    match look().map_err(|error| from_sqlite(location, &error))? {
        Some(flaw) => Err(Error::new(Code::UnusualTable, location).with(flaw)),
        None => Ok(()),
    }
}

/// Are there ids that are not text, in a column without a type? No text is equal to them, so no lookup would find them
/// (<https://www.sqlite.org/datatype3.html>, section 4.2). In a column of any other type SQLite converts the text.
const HAS_UNTYPED_IDS: &str = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('oauthtoken') \
     WHERE lower(name) = 'id' AND (type = '' OR type LIKE '%BLOB%' OR type = 'ANY' COLLATE NOCASE)) \
     AND EXISTS (SELECT 1 FROM oauthtoken WHERE typeof(id) NOT IN ('text', 'null'))";
/// A whole number that is stored as one with a fraction gets none.
const CONVERT_IDS: &str = "UPDATE OR IGNORE oauthtoken SET id = \
     CASE WHEN typeof(id) = 'real' AND id = CAST(id AS INTEGER) \
     THEN CAST(CAST(id AS INTEGER) AS TEXT) ELSE CAST(id AS TEXT) END WHERE typeof(id) NOT IN ('text', 'null')";

/// Does the file have ids that no lookup finds ([`HAS_UNTYPED_IDS`])? A migration converts them.
pub(super) fn has_untyped_ids(connection: &Connection, location: &Location) -> Result<bool> {
    connection.query_row(HAS_UNTYPED_IDS, [], |row| row.get(0)).map_err(|error| from_sqlite(location, &error))
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
    require_usable(connection, location)?;
    let migrate = |connection: &mut Connection| -> rusqlite::Result<()> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Read inside the transaction: another process may have migrated the file in the meantime.
        let version = version(&transaction)?;
        let holds = |sql| transaction.query_row(sql, [], |row| row.get::<_, bool>(0));
        if holds("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'oauthtoken' COLLATE NOCASE)")?
            && holds(HAS_UNTYPED_IDS)?
        {
            transaction.execute_batch(CONVERT_IDS)?;
        }
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
    fn a_table_of_another_program_is_used_unless_a_row_could_not_be_kept_or_found() {
        let extra = |name: &str, needs_value| ExtraColumn { name: name.to_owned(), needs_value };
        let table = [
            (TableKind::Table, vec![], false, false, None),
            (TableKind::Table, vec![extra("note", false)], false, false, None),
            (
                TableKind::Table,
                vec![extra("note", false), extra("tenant", true)],
                false,
                false,
                Some("column tenant needs"),
            ),
            (TableKind::Table, vec![extra("saved_at", false)], false, false, Some("it has a column saved_at already")),
            (TableKind::Table, vec![], true, false, Some("a row has no id")),
            (TableKind::Table, vec![], true, true, Some("a row has no id")),
            (TableKind::Table, vec![], false, true, Some("several rows have the same id")),
            (TableKind::WithoutRowid, vec![], false, false, Some("it is WITHOUT ROWID")),
            (TableKind::View, vec![], false, false, Some("it is a view")),
            (TableKind::Virtual, vec![], false, false, Some("it is a virtual table")),
        ];
        for (kind, extra, absent, equal, expected) in table {
            let found = flaw(kind, &extra, absent, equal);
            let is_expected = found.as_deref().zip(expected).is_some_and(|(found, part)| found.contains(part));
            assert!(is_expected || (found.is_none() && expected.is_none()), "{kind:?} {extra:?}: {found:?}");
        }
    }

    #[test]
    fn the_migrations_make_a_current_file_and_run_once() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert_eq!(inspect(&connection, &Location::named("the store in memory")).unwrap(), Contents::Older);
        migrate(&mut connection, &Location::named("the store in memory")).unwrap();
        assert_eq!(inspect(&connection, &Location::named("the store in memory")).unwrap(), Contents::Current);
        migrate(&mut connection, &Location::named("the store in memory")).unwrap();
    }
}
