//! Reading or checking a token database without opening a store on it: for import, restore and check. Changes nothing.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::connection::{connect_as, is_wal, shared_memory_works};
use super::error::{damaged, from_sqlite};
use super::file_locks::FileLocks;
use super::path::{MIN_PAGE_SIZE, beside, network_file_system};
use super::read_only::{self, Access};
use super::schema::{self, Contents};
use super::sql::Sql;
use super::wal;
use crate::domain::check::{self, Finding, RowChecker, Severity};
use crate::domain::key_ring::Ring;
use crate::domain::{Row, expiry, lease};
use crate::store::administration::failing_refreshes;
use crate::store::backend::{DatabaseRows, Location, Snapshot};
use crate::store::error::{Code, Error, Result};
use crate::store::files::{self, FileVersion, is_exposed, require_regular_file};

/// Opens the database at `path`.
///
/// Precondition: this process has no connection to it. This opens and closes a handle of the file, which would drop the
/// connection's POSIX locks.
///
/// If the file cannot be written, also returns the version of it that the connection reads.
fn open_to_inspect(path: &Path, location: &Location) -> Result<(Connection, Option<FileVersion>)> {
    let locks = FileLocks::open(path);
    if locks.is_used_under_another_name(&beside(path, "-shm")) {
        // The latest saves may be in the WAL beside the other name. They would be missing here.
        return Err(Error::at(Code::SecondName, path));
    }
    let had_wal = beside(path, "-wal").exists();
    wal::require_own(&locks, path)?;
    let access = read_only::access(path, || locks.header_says_wal());
    drop(locks);
    if access == Access::NeedsRecovery {
        return Err(Error::at(Code::NeedsRecovery, path));
    }
    let frozen = if access == Access::Frozen { read_only::version(path) } else { None };
    let connection = connect_as(access, path, location)?;
    if !had_wal && access == Access::Normal {
        // SQLite removes the WAL that it creates for this connection.
        let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    }
    Ok((connection, frozen))
}

/// Reads all rows of the token database at `path`. A damaged file is refused, and so is one without a table of tokens.
pub(super) fn read(path: &Path) -> Result<DatabaseRows> {
    let location = Location::path_of(path);
    let (connection, frozen) = open_to_inspect(path, &location)?;
    let contents = schema::inspect(&connection, &location)?;
    if count_flaws(&connection, &location)? > 0 {
        return Err(damaged(&location, "integrity check failed"));
    }
    let sql = Sql::new(&connection, &location);
    if !sql.has_tokens()? {
        return Err(Error::at(Code::NoTokenTable, path));
    }
    let mut rows = Vec::new();
    sql.each_of(contents, &mut |row| {
        rows.push(row);
        Ok(())
    })?;
    let last_id = if contents == Contents::Current { sql.last_id()? } else { 0 };
    read_only::require_unchanged(path, frozen)?;
    Ok(DatabaseRows { rows, last_id })
}

/// Returns the rows of the file at `path` if it was written by the sample or an older version. `None`: it is current,
/// or there is nothing to read. Fails where a store would refuse the file.
///
/// Precondition: that of [`open_to_inspect`].
pub(super) fn read_older(path: &Path) -> Result<Option<Vec<Row>>> {
    let location = Location::path_of(path);
    if !path.is_file() || files::length(path) < MIN_PAGE_SIZE {
        return Ok(None);
    }
    let (connection, frozen) = open_to_inspect(path, &location)?;
    if schema::inspect(&connection, &location)? == Contents::Current {
        return Ok(None);
    }
    schema::require_usable(&connection, &location)?;
    let mut rows = Vec::new();
    Sql::new(&connection, &location).each_of(Contents::Older, &mut |row| {
        rows.push(row);
        Ok(())
    })?;
    read_only::require_unchanged(path, frozen)?;
    Ok(Some(rows))
}

const NO_WAL: &str = "no-wal";

/// Returns how many flaws SQLite finds in the whole file.
fn count_flaws(connection: &Connection, location: &Location) -> Result<usize> {
    let count = || -> rusqlite::Result<usize> {
        let mut statement = connection.prepare("PRAGMA integrity_check")?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
        let lines = lines.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(lines.iter().filter(|line| *line != "ok").count())
    };
    count().map_err(|error| from_sqlite(location, &error))
}

/// Returns what is wrong with the token database at `path` and its rows, at `now` (milliseconds since the epoch). `ring`
/// has the keys of its rows, as far as they are known. Changes nothing.
pub fn check(path: &Path, now: i64, ring: &Ring) -> Result<Vec<Finding>> {
    let location = Location::path_of(path);
    require_regular_file(path)?;
    let mut findings = check_surroundings(path);
    let rows = open_to_inspect(path, &location).and_then(|(connection, frozen)| {
        let mut found = check_contents(&connection, &location)?;
        // A backup is not in WAL mode. The next store that opens it switches, if that is possible.
        found.retain(|finding| finding.code != NO_WAL || (frozen.is_none() && !shared_memory_works(path)));
        findings.extend(found);
        let contents = schema::inspect(&connection, &location)?;
        let mut checker = RowChecker::new(now);
        let sql = Sql::new(&connection, &location);
        let mut due = Vec::new();
        sql.each_of(contents, &mut |row| {
            // A file of the sample or of an older version has no leases.
            let is_due = |row: &Row| lease::is_due(expiry::readable(row.token()), now);
            let row = checker.add_stored(ring, row);
            due.extend(row.filter(|row| contents == Contents::Current && is_due(row)));
            Ok(())
        })?;
        if contents == Contents::Current {
            checker.add_record(sql.key_names()?.as_ref());
        }
        let failing = failing_refreshes(&sql, &due, now);
        read_only::require_unchanged(path, frozen)?;
        let failing = check::refresh_failing(&failing, now);
        Ok(checker.all_findings(ring).into_iter().chain(failing).collect::<Vec<_>>())
    });
    match rows {
        Ok(rows) => findings.extend(rows),
        Err(error) => {
            let finding = error.into_finding()?;
            if ["not-a-database", "other-program"].contains(&finding.code) {
                // The permissions of a file that is not ours are not our business.
                findings.clear();
            }
            findings.push(finding);
        }
    }
    Ok(findings)
}

/// Returns the version of the schema of the token database at `path`. It is 0 for a file of the SDK's sample, and for an
/// empty file. Changes nothing.
///
/// Precondition: that of [`open_to_inspect`].
pub fn schema_version(path: &Path) -> Result<i32> {
    let location = Location::path_of(path);
    require_regular_file(path)?;
    let (connection, frozen) = open_to_inspect(path, &location)?;
    schema::inspect(&connection, &location)?;
    let version = schema::version(&connection).map_err(|error| from_sqlite(&location, &error))?;
    read_only::require_unchanged(path, frozen)?;
    Ok(version)
}

/// Returns what is wrong with an open file, apart from its rows.
pub(super) fn check_contents(connection: &Connection, location: &Location) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut warn = |code, message: String, hint| {
        findings.push(Finding { code, severity: Severity::Warning, ids: Vec::new(), message, hint });
    };
    let contents = schema::inspect(connection, location)?;
    let flaws = count_flaws(connection, location)?;
    if flaws > 0 {
        return Err(damaged(location, &format!("SQLite's integrity check finds {flaws} flaws")));
    }
    if contents == Contents::Older {
        warn(
            "older-schema",
            format!(
                "{location} was written by the SDK's sample or by an older version of this library, and was not opened \
                 since then"
            ),
            "Nothing has to be done: the next program that opens it migrates it. Make a backup first.",
        );
    }
    let is_wal = is_wal(connection).map_err(|error| from_sqlite(location, &error))?;
    if !is_wal
        && contents == Contents::Current
        && location.path().is_some_and(|path| network_file_system(path).is_none())
    {
        warn(
            NO_WAL,
            format!("{location} is not in WAL mode: finds wait for saves"),
            "Give the programs write permission on its folder, or move it to a file system with shared memory. The \
             next program that opens it then switches to WAL.",
        );
    }
    Ok(findings)
}

/// A file that cannot be written has no saves that a find could wait for.
pub(super) fn forget_no_wal(findings: &mut Vec<Finding>) {
    findings.retain(|finding| finding.code != NO_WAL);
}

/// Returns what is wrong around a file: permissions and file system. Does not open the file.
pub(super) fn check_surroundings(path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut warn = |code, message: String, hint| {
        findings.push(Finding { code, severity: Severity::Warning, ids: Vec::new(), message, hint });
    };
    for path in ["", "-wal", "-shm"].map(|ending| beside(path, ending)).iter().filter(|path| is_exposed(path)) {
        let message = format!("{} holds credentials, and other users can read it", path.display());
        warn("permissions", message, "Run chmod 600 on it.");
    }
    if let Some(network) = network_file_system(path) {
        warn(
            "network-file-system",
            format!(
                "{} is on a file system that several machines may use ({network}). SQLite's locks do not always reach \
                 from one machine to another, and finds wait for saves",
                path.display()
            ),
            "Keep the file on a local disk, or use it on one machine only.",
        );
    }
    findings
}
