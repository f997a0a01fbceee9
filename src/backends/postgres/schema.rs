//! The tables: whether they are there, whose they are, and their version. They are made if they are missing, and
//! migrated if they are older.

use super::error::{LACKS_RIGHT, ServerFailure};
use super::link::Link;
use super::missing::{explained, missing_rights_to_make, missing_tables};
use super::parts;
use super::sql::{Tables, get};
use super::statement::quoted;
use crate::store::backend::Location;
use crate::store::error::{Code, Error};

/// The scripts that make the tables, in their order. The version of a database is the number of scripts that were run.
/// Each script only adds to what was there before, so that programs of the version before go on working.
const MIGRATIONS: &[&str] = &[include_str!("schema/1.sql")];

/// The version of tables with sealed rows. No script leads to it: the first sealed row does, and tables whose rows are all
/// in clear text again go back. So programs that know no sealed rows refuse them.
const SEALED_VERSION: i64 = 2;

/// The version of tables with or without sealed rows.
pub(super) const fn version_of(sealed: bool) -> i64 {
    if sealed { SEALED_VERSION } else { 1 }
}

/// The statements that make the tables in the first schema of the search path, all or none, for an administrator.
pub const INIT_SQL: &str = concat!("BEGIN;\n\n", include_str!("schema/1.sql"), "\nCOMMIT;\n");

/// What is to be done about tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Use them.
    Nothing,
    /// Run the scripts from this one on.
    Migrate(usize),
    /// Leave them alone: a newer version has made them.
    Refuse,
    /// Leave them alone: there are none, or an older version has made them, and the caller allows no change.
    RefuseChange(usize),
}

/// What is to be done about tables of a version. 0: there are none. `create`: may they be made and migrated?
fn task(version: i64, scripts: usize, create: bool) -> Task {
    match usize::try_from(version) {
        // Sealed rows have the tables of the first script. A later script leads from both versions to the next one.
        Ok(_) if version == SEALED_VERSION && scripts == 1 => Task::Nothing,
        Ok(version) if version == scripts => Task::Nothing,
        Ok(version) if version < scripts && create => Task::Migrate(version),
        Ok(version) if version < scripts => Task::RefuseChange(version),
        _ => Task::Refuse,
    }
}

/// What there is in a database.
pub(super) struct Installed {
    pub(super) tables: Tables,
    pub(super) has_schema: bool,
    /// The version of the tables. 0: there are none.
    pub(super) version: i64,
    is_read_only: bool,
}

impl Installed {
    /// What a program does that may make and migrate tables.
    pub(super) fn task(&self) -> Task {
        task(self.version, MIGRATIONS.len(), true)
    }
}

/// Looks at the tables. Changes nothing. `schema`: the schema that they are in, or else it is the first one of the
/// search path.
pub(super) fn look(link: &Link, schema: Option<&str>) -> Result<Installed, ServerFailure> {
    let location = link.location();
    let found = link.query(&parts::look(schema))?;
    let row = found.first().ok_or_else(|| missing_row(location))?;
    let encoding: &str = get(location, row, 0)?;
    if encoding != "UTF8" {
        return Err(ServerFailure::from_sqlstate(location, "22P05"));
    }
    let Some(schema) = get::<Option<&str>>(location, row, 1)? else {
        return Err(ServerFailure::from_sqlstate(location, "3F000"));
    };
    let (tables, has_schema, has_store) = (Tables::new(schema), get(location, row, 2)?, get(location, row, 3)?);
    let mut version = 0;
    let has_rows: bool = get(location, row, 4)?;
    if has_store && !has_rows {
        return Err(ServerFailure::Final(missing_tables(location, &tables, &["oauthtoken"])));
    }
    if has_store {
        let found = link.query(&tables.version()).map_err(|failure| explained(link, &tables, failure))?;
        version = get(location, found.first().ok_or_else(|| missing_row(location))?, 0)?;
    } else if has_rows {
        // Our tables are made all at once.
        let what = "it has a table oauthtoken, but no table zoho_token_store: another program made it, or the table \
             was dropped";
        let error = Error::new(Code::WrongDatabase, location)
            .with(what)
            .with_hint("Give another schema, or restore a backup into one.");
        return Err(ServerFailure::Final(error));
    }
    let is_read_only = get::<&str>(location, row, 5)? == "on";
    Ok(Installed { tables, has_schema, version, is_read_only })
}

/// Returns the tables of a store. If `create` says so, it makes missing ones and migrates older ones.
pub(super) fn prepare(link: &Link, schema: Option<&str>, create: bool) -> Result<Tables, ServerFailure> {
    prepare_with(link, schema, create, MIGRATIONS)
}

fn prepare_with(link: &Link, schema: Option<&str>, create: bool, scripts: &[&str]) -> Result<Tables, ServerFailure> {
    let Installed { tables, has_schema, version, is_read_only } = look(link, schema)?;
    match task(version, scripts.len(), create) {
        Task::Nothing if is_read_only => {}
        // A start of a program is often enough. A role that may not delete leaves it to others.
        Task::Nothing => {
            let swept = match link.script(&tables.sweep()).map(drop) {
                Err(failure) if create && failure.lacks_table(link.location()) => make_disposable(link, &tables),
                swept => swept,
            };
            // A problem with leases fails nothing else (`docs/lease.md`, rule 1).
            if let Err(failure @ (ServerFailure::Lost(_) | ServerFailure::Retry(_))) = swept {
                return Err(failure);
            }
        }
        Task::RefuseChange(0) => {
            return Err(ServerFailure::Final(no_tables(link.location(), &tables, has_schema)));
        }
        Task::RefuseChange(_) => {
            let what = "an older version of this library made its tables, and zoho-token-store init migrates them";
            return Err(ServerFailure::Final(Error::new(Code::WrongDatabase, link.location()).with(what)));
        }
        Task::Migrate(from) => {
            if !has_schema {
                let make = || link.script(&format!("CREATE SCHEMA {}", tables.schema()));
                link.changing(make)
                    .map_err(|failure| lacking_to_make(link, failure, || missing_right_on_database(link)))?;
            }
            migrate(link, &tables, from, scripts).map_err(|failure| {
                if from == 0 {
                    return lacking_to_make(link, failure, || missing_rights_to_make(link, &tables));
                }
                let rights = format!("ownership of the tables in the schema {}", tables.schema());
                failure.lacking_with(link.location(), &rights, OWNER_HINT)
            })?;
        }
        Task::Refuse => return Err(ServerFailure::Final(newer(link.location()))),
    }
    Ok(tables)
}

const OWNER_HINT: &str = "Have the owner of the tables run zoho-token-store init.";
const MAKE_HINT: &str = "Have an administrator grant these rights, or run what zoho-token-store init --sql prints.";

/// The same failure to make something, with the rights that are missing for it.
fn lacking_to_make(link: &Link, failure: ServerFailure, rights: impl FnOnce() -> String) -> ServerFailure {
    let location = link.location();
    // A schema that the user may not use does not count in a search path.
    let is_hidden = failure == ServerFailure::from_sqlstate(location, "3F000");
    if !link.is_usable() || !(is_hidden || failure.lacks_right(location)) {
        return failure;
    }
    ServerFailure::from_sqlstate(location, LACKS_RIGHT).lacking_with(location, &rights(), MAKE_HINT)
}

fn missing_right_on_database(link: &Link) -> String {
    let answer = link.query(&parts::database()).unwrap_or_default();
    let name: Option<&str> = answer.first().and_then(|row| get(link.location(), row, 0).ok());
    format!("CREATE ON DATABASE {}", name.map(quoted).unwrap_or_default())
}

/// Makes the tables again that hold nothing lasting, if they are missing.
fn make_disposable(link: &Link, tables: &Tables) -> Result<(), ServerFailure> {
    let makes =
        |statement: &&str| parts::DISPOSABLE.iter().any(|table| statement.contains(&format!("CREATE TABLE {table} ")));
    let made: String = INIT_SQL.split_inclusive(";\n").filter(makes).collect();
    let made = made.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS");
    link.transaction(&format!("BEGIN; SET LOCAL search_path TO {}", tables.schema()), |_| Ok(Some(made)))
}

fn no_tables(location: &Location, tables: &Tables, has_schema: bool) -> Error {
    let schema = tables.schema();
    let detail = if has_schema {
        format!("it has no tables of tokens in the schema {schema}")
    } else {
        format!("the schema {schema} does not exist")
    };
    Error::new(Code::WrongDatabase, location).with(detail)
}

pub(super) fn newer(location: &Location) -> Error {
    Error::new(Code::NewerSchema, location).with("its tables have a later version")
}

/// The table of the store has lost its row.
pub(super) fn missing_row(location: &Location) -> ServerFailure {
    ServerFailure::from_sqlstate(location, "42804")
}

/// Runs the scripts from one on, all or none. Any number of processes may do so at the same time: one of them makes the
/// tables, and the others fail with an error that is tried again.
fn migrate(link: &Link, tables: &Tables, from: usize, scripts: &[&str]) -> Result<(), ServerFailure> {
    let begin = format!("BEGIN; SET LOCAL search_path TO {}", tables.schema());
    link.transaction(&begin, |_| {
        let mut from = from;
        if from > 0 {
            let found = link.query(&tables.locked_version())?;
            let row = found.first().ok_or_else(|| missing_row(link.location()))?;
            // Another process may have migrated the tables meanwhile.
            match task(get(link.location(), row, 0)?, scripts.len(), true) {
                Task::Nothing => return Ok(None),
                Task::Migrate(version) | Task::RefuseChange(version) => from = version,
                Task::Refuse => return Err(ServerFailure::Final(newer(link.location()))),
            }
        }
        for script in &scripts[from..] {
            link.script(script)?;
        }
        Ok(Some(format!("UPDATE zoho_token_store SET version = {}", scripts.len())))
    })
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::backends::postgres::{Address, OwnProcess};
    use crate::store::deadline::Deadline;

    /// Connects to the server of the tests.
    fn connect() -> Link {
        let dsn = std::env::var("TEST_POSTGRES_DSN").unwrap_or_else(|_| {
            panic!("This test needs a PostgreSQL server: python tests/postgres_server.py -- cargo test … starts one")
        });
        let address = Address::new(Some(&dsn), &[], &OwnProcess).unwrap();
        Link::open(&address, None, Deadline::after(Duration::from_secs(30))).unwrap_or_else(|_| panic!("no connection"))
    }

    fn made<T>(result: Result<T, ServerFailure>) -> T {
        result.unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    #[test]
    fn older_tables_are_migrated_once_and_keep_their_rows() {
        const SCRIPTS: &[&str] =
            &[MIGRATIONS[0], "SELECT 1", "ALTER TABLE oauthtoken ADD COLUMN note TEXT DEFAULT 'made up'"];
        let name = format!("test_migration_{}", std::process::id());
        let link = connect();
        let tables = made(prepare(&link, Some(&name), true));
        let insert = format!("INSERT INTO {name}.oauthtoken (id, refresh_token) VALUES ('1', 'r')");
        made(link.script(&insert));
        // A script that fails changes nothing.
        let broken = &[MIGRATIONS[0], "SELECT 1", "ALTER TABLE oauthtoken ADD COLUMN note TEXT; SELECT 1 / 0"];
        assert!(migrate(&link, &tables, 1, broken).is_err());
        assert_eq!(made(look(&link, Some(&name))).version, 1);
        // A program that may change nothing.
        let refused = prepare_with(&link, Some(&name), false, SCRIPTS).err();
        assert!(format!("{refused:?}").contains("zoho-token-store init"), "{refused:?}");
        assert_eq!(made(look(&link, Some(&name))).version, 1);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| made(migrate(&connect(), &tables, 1, SCRIPTS)));
            }
        });
        let installed = made(look(&link, Some(&name)));
        let rows = made(link.script(&format!("SELECT id || refresh_token || note FROM {name}.oauthtoken")));
        made(link.script(&format!("DROP SCHEMA {name} CASCADE")));
        assert_eq!((installed.version, installed.task()), (3, Task::Refuse), "this version knows one script");
        assert_eq!((rows.len(), rows[0].get(0)), (1, Some("1rmade up")));
    }

    #[test]
    fn the_version_decides_what_is_done_about_tables() {
        let table = [
            (0, 1, Task::Migrate(0), Task::RefuseChange(0)),
            (1, 1, Task::Nothing, Task::Nothing),
            (2, 1, Task::Nothing, Task::Nothing),
            (3, 1, Task::Refuse, Task::Refuse),
            (1, 3, Task::Migrate(1), Task::RefuseChange(1)),
            (2, 3, Task::Migrate(2), Task::RefuseChange(2)),
            (i64::MAX, 3, Task::Refuse, Task::Refuse),
            (-1, 1, Task::Refuse, Task::Refuse),
        ];
        for (version, scripts, with_create, without) in table {
            let tasks = [true, false].map(|create| task(version, scripts, create));
            assert_eq!(tasks, [with_create, without], "{version} of {scripts}");
        }
    }
}
