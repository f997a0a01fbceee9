//! A token database that is only looked at: to be imported, restored, or checked. It stays as it is.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::connect::{connect, is_wal, shared_memory_works};
use super::database::second_name;
use super::file::{self, beside};
use super::guard::Guards;
use super::network::network;
use super::schema::{self, Contents};
use super::sql::Sql;
use super::trouble::{damaged, trouble};
use crate::domain::Row;
use crate::domain::check::{Examination, Finding, Severity};
use crate::store::{Change, Error, Flaw, Place, Result};

/// Opens the database at `path`, which is open nowhere else in this process.
fn look_at(path: &Path, place: &Place) -> Result<Connection> {
    if Guards::of(path).serve_another_name(&beside(path, "-shm")) {
        // What was saved last would be missing, and a log be left beside this name.
        return Err(second_name(path));
    }
    let is_new = !beside(path, "-wal").exists();
    let connection = connect(path, place)?;
    if is_new {
        // There was no log: the one that the look itself makes goes again.
        let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    }
    Ok(connection)
}

/// All rows of the token database at `path`, the oldest first, and the highest number that the id of any row ever had; 0
/// if it does not say. One that is damaged is refused, and so is one without tokens' table: it is no backup of anything.
pub(in crate::store) fn read(path: &Path) -> Result<(Vec<Row>, i64)> {
    let place = Place::File(path.to_owned());
    let connection = look_at(path, &place)?;
    let contents = schema::inspect(&connection, &place)?;
    if flaws(&connection, &place)? > 0 {
        return Err(damaged(&place, "integrity check failed"));
    }
    let sql = Sql::new(&connection, &place);
    if !sql.has_tokens()? {
        return Err(Error::BadFile {
            path: path.to_owned(),
            flaw: Flaw::NoTokens,
            what: "is an empty database, without a table of tokens".to_owned(),
            cure: "give the path of a token database",
        });
    }
    let mut rows = Vec::new();
    sql.each_as_it_is(contents, &mut |row| rows.push(row))?;
    let last_id = if contents == Contents::Current { sql.last_id()? } else { 0 };
    Ok((rows, last_id))
}

const NO_WAL: &str = "no-wal";

/// How many flaws SQLite finds in all of the file.
fn flaws(connection: &Connection, place: &Place) -> Result<usize> {
    let look = || -> rusqlite::Result<usize> {
        let mut statement = connection.prepare("PRAGMA integrity_check")?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
        let lines = lines.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(lines.iter().filter(|line| *line != "ok").count())
    };
    look().map_err(|error| trouble(place, &error))
}

/// What is not as it should be with the token database at `path`, its rows included, at `now` (milliseconds since the
/// epoch).
pub fn check(path: &Path, now: i64) -> Result<Vec<Finding>> {
    let place = Place::File(path.to_owned());
    match fs::metadata(path) {
        Ok(file) if file.is_file() => {}
        Ok(_) => return Err(file::bad(path, "is not a regular file", "give the path of one")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(file::bad(path, "does not exist", "give the path of a token database"));
        }
        Err(error) => return Err(file::refused(path, &error)),
    }
    let mut findings = surroundings(path);
    let inside = look_at(path, &place).and_then(|connection| {
        let mut found = inside(&connection, &place)?;
        // A backup, say: whoever opens it next switches, if that is possible.
        found.retain(|finding| finding.code != NO_WAL || !shared_memory_works(path));
        findings.extend(found);
        let contents = schema::inspect(&connection, &place)?;
        let mut examination = Examination::at(now);
        Sql::new(&connection, &place).each_as_it_is(contents, &mut |row| examination.look(&row))?;
        Ok(examination.findings())
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
pub(super) fn inside(connection: &Connection, place: &Place) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut warn = |code, message: String, cure| {
        findings.push(Finding { code, severity: Severity::Warning, ids: Vec::new(), message, cure });
    };
    let contents = schema::inspect(connection, place)?;
    let flaws = flaws(connection, place)?;
    if flaws > 0 {
        return Err(damaged(place, &format!("SQLite's integrity check finds {flaws} flaws")));
    }
    if contents == Contents::Older {
        warn(
            "older-schema",
            format!(
                "{place} was written by the SDK's sample or an older version of this library, and not opened since"
            ),
            "nothing has to be done: the next program that opens it brings it up to date; make a backup before",
        );
    }
    let is_wal = is_wal(connection).map_err(|error| trouble(place, &error))?;
    if !is_wal && contents == Contents::Current && place.path().is_some_and(|path| network(path).is_none()) {
        warn(
            NO_WAL,
            format!("{place} is not in WAL mode: finds wait for saves"),
            "give the programs write permission on its folder, or move it to a file system with shared memory; the next \
             program that opens it then switches to it",
        );
    }
    Ok(findings)
}

/// What is not as it should be around a file, seen without opening it.
pub(super) fn surroundings(path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut warn = |code, message: String, cure| {
        findings.push(Finding { code, severity: Severity::Warning, ids: Vec::new(), message, cure });
    };
    for path in ["", "-wal", "-shm"].map(|ending| beside(path, ending)).iter().filter(|path| file::is_exposed(path)) {
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
