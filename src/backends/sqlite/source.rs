//! A token database that is only looked at: to be imported, restored, or checked. It stays as it is.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::connect::{connect, is_wal, shared_memory_works};
use super::error::{damaged, from_sqlite};
use super::guard::Guards;
use super::network::network;
use super::path::beside;
use super::schema::{self, Contents};
use super::sql::Sql;
use crate::domain::check::{Finding, RowChecker, Severity};
use crate::store::backend::{DatabaseRows, Location, Snapshot};
use crate::store::error::{Code, Error, Result};
use crate::store::files::{is_exposed, require_regular_file};

/// Opens the database at `path`, which is open nowhere else in this process.
fn look_at(path: &Path, location: &Location) -> Result<Connection> {
    if Guards::of(path).serve_another_name(&beside(path, "-shm")) {
        // What was saved last would be missing, and a log be left beside this name.
        return Err(Error::at(Code::SecondName, path));
    }
    let is_new = !beside(path, "-wal").exists();
    let connection = connect(path, location)?;
    if is_new {
        // There was no log: the one that the look itself makes goes again.
        let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    }
    Ok(connection)
}

/// All rows of the token database at `path`, the oldest first, and the highest number that the id of any row ever had; 0
/// if it does not say. One that is damaged is refused, and so is one without tokens' table: it is no backup of anything.
pub(super) fn read(path: &Path) -> Result<DatabaseRows> {
    let location = Location::path_of(path);
    let connection = look_at(path, &location)?;
    let contents = schema::inspect(&connection, &location)?;
    if flaws(&connection, &location)? > 0 {
        return Err(damaged(&location, "integrity check failed"));
    }
    let sql = Sql::new(&connection, &location);
    if !sql.has_tokens()? {
        return Err(Error::at(Code::NoTokenTable, path));
    }
    let mut rows = Vec::new();
    sql.each_as_it_is(contents, &mut |row| {
        rows.push(row);
        Ok(())
    })?;
    let last_id = if contents == Contents::Current { sql.last_id()? } else { 0 };
    Ok(DatabaseRows { rows, last_id })
}

const NO_WAL: &str = "no-wal";

/// How many flaws SQLite finds in all of the file.
fn flaws(connection: &Connection, location: &Location) -> Result<usize> {
    let look = || -> rusqlite::Result<usize> {
        let mut statement = connection.prepare("PRAGMA integrity_check")?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
        let lines = lines.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(lines.iter().filter(|line| *line != "ok").count())
    };
    look().map_err(|error| from_sqlite(location, &error))
}

/// What is not as it should be with the token database at `path`, its rows included, at `now` (milliseconds since the
/// epoch).
pub fn check(path: &Path, now: i64) -> Result<Vec<Finding>> {
    let location = Location::path_of(path);
    require_regular_file(path)?;
    let mut findings = surroundings(path);
    let inside = look_at(path, &location).and_then(|connection| {
        let mut found = inside(&connection, &location)?;
        // A backup, say: whoever opens it next switches, if that is possible.
        found.retain(|finding| finding.code != NO_WAL || !shared_memory_works(path));
        findings.extend(found);
        let contents = schema::inspect(&connection, &location)?;
        let mut checker = RowChecker::new(now);
        Sql::new(&connection, &location).each_as_it_is(contents, &mut |row| {
            checker.add(&row);
            Ok(())
        })?;
        Ok(checker.findings())
    });
    match inside {
        Ok(rows) => findings.extend(rows),
        Err(error) => {
            let flaw = error.into_finding()?;
            if ["not-a-database", "other-program"].contains(&flaw.code) {
                // Who may read that is not our affair.
                findings.clear();
            }
            findings.push(flaw);
        }
    }
    Ok(findings)
}

/// What is not as it should be with an open file, its rows apart.
pub(super) fn inside(connection: &Connection, location: &Location) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut warn = |code, message: String, hint| {
        findings.push(Finding { code, severity: Severity::Warning, ids: Vec::new(), message, hint });
    };
    let contents = schema::inspect(connection, location)?;
    let flaws = flaws(connection, location)?;
    if flaws > 0 {
        return Err(damaged(location, &format!("SQLite's integrity check finds {flaws} flaws")));
    }
    if contents == Contents::Older {
        warn(
            "older-schema",
            format!(
                "{location} was written by the SDK's sample or an older version of this library, and not opened since"
            ),
            "nothing has to be done: the next program that opens it brings it up to date; make a backup before",
        );
    }
    let is_wal = is_wal(connection).map_err(|error| from_sqlite(location, &error))?;
    if !is_wal && contents == Contents::Current && location.path().is_some_and(|path| network(path).is_none()) {
        warn(
            NO_WAL,
            format!("{location} is not in WAL mode: finds wait for saves"),
            "give the programs write permission on its folder, or move it to a file system with shared memory; the next \
             program that opens it then switches to it",
        );
    }
    Ok(findings)
}

/// What is not as it should be around a file, seen without opening it.
pub(super) fn surroundings(path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut warn = |code, message: String, hint| {
        findings.push(Finding { code, severity: Severity::Warning, ids: Vec::new(), message, hint });
    };
    for path in ["", "-wal", "-shm"].map(|ending| beside(path, ending)).iter().filter(|path| is_exposed(path)) {
        let message = format!("{} holds credentials and can be read by others than its owner", path.display());
        warn("permissions", message, "chmod 600 it");
    }
    if let Some(network) = network(path) {
        warn(
            "network-file-system",
            format!(
                "{} is on a file system that more than one machine may use ({network}), where SQLite's locks do not always \
                 reach from one to another and finds wait for saves",
                path.display()
            ),
            "keep the file on a local disk, or let one machine alone use it",
        );
    }
    findings
}
