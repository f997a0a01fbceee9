//! A database that cannot be written: on a read-only medium, or without write permission on the file.
//!
//! SQLite reads a file in WAL mode only with a `-wal` and a `-shm` beside it, and creates them
//! (<https://www.sqlite.org/wal.html>, section 5). Where it cannot, a file that was closed normally is complete without
//! them. It is opened as *frozen*: with `immutable=1`, SQLite neither locks nor looks for a WAL
//! (<https://www.sqlite.org/uri.html>). Also where the folder can be written: a `-wal` and a `-shm` of this user would
//! stay there, and the owner of the database could not write them.
//!
//! Another user, or another mount of the medium, may still write. So a frozen connection is valid for one
//! [`FileVersion`], and while there is no WAL with saves. Both are checked before and after each read: a read that is
//! torn by a writer does not count. A writer creates its WAL before it changes the database, and each change sets the
//! time of the file. A version that is younger than the steps of that time is read once. What remains is a writer that
//! opens, saves and closes the file during one read, within one such step after an earlier change, or on another
//! machine.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::path::beside;
use crate::store::error::{Code, Error, Result};
use crate::store::files::{self, FileVersion};

/// How a connection to a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// As usual. SQLite finds out what it may write.
    Normal,
    /// The file is complete, and cannot be written.
    Frozen,
    /// There are saves in the WAL, and SQLite cannot read them here.
    NeedsRecovery,
}

/// What decides the access to a file that cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Surroundings {
    /// The header says WAL mode.
    is_wal: bool,
    /// The length of the `-wal`, if there is one.
    wal: Option<u64>,
    has_shm: bool,
}

impl Surroundings {
    const fn access(self) -> Access {
        match self {
            // SQLite reads both, even if no process keeps the `-shm` up to date (`walBeginShmUnreliable` in
            // `src/wal.c`).
            Self { wal: Some(_), has_shm: true, .. } => Access::Normal,
            Self { wal: Some(1..), .. } => Access::NeedsRecovery,
            Self { is_wal: true, .. } => Access::Frozen,
            // Without WAL mode SQLite needs no other file to read.
            Self { is_wal: false, .. } => Access::Normal,
        }
    }
}

/// Returns how the file at `path` has to be opened. `is_wal` tells whether its header says WAL mode.
pub(super) fn access(path: &Path, is_wal: impl FnOnce() -> bool) -> Access {
    if !files::is_read_only(path) {
        return Access::Normal;
    }
    let wal = std::fs::metadata(beside(path, "-wal")).ok().map(|file| file.len());
    Surroundings { is_wal: is_wal(), wal, has_shm: beside(path, "-shm").exists() }.access()
}

/// The version of the file at `path` that a frozen connection can read. `None`: there are saves in its WAL.
pub(super) fn version(path: &Path) -> Option<FileVersion> {
    FileVersion::of(path).filter(|_| files::length(&beside(path, "-wal")) == 0)
}

/// Opens the file as frozen.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // The path is encoded for a URI. What is not ASCII is encoded byte by byte.
    let encode = |byte: &u8| match byte {
        byte if byte.is_ascii_alphanumeric() || b"/.-_".contains(byte) => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    let encoded: String = path.as_os_str().as_encoded_bytes().iter().map(encode).collect();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{encoded}?immutable=1"), flags)
}

/// Fails if a file was changed while a frozen connection read it.
pub(super) fn require_unchanged(path: &Path, before: Option<FileVersion>) -> Result<()> {
    if before.is_some() && version(path) != before { Err(Error::at(Code::ChangedWhileRead, path)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_is_frozen_if_it_is_complete() {
        use Access::{Frozen, NeedsRecovery, Normal};
        // is_wal, length of the WAL, has_shm
        let table = [
            (true, None, false, Frozen),
            (true, None, true, Frozen),
            (true, Some(0), false, Frozen),
            (true, Some(0), true, Normal),
            (true, Some(4096), true, Normal),
            (true, Some(4096), false, NeedsRecovery),
            (true, Some(1), false, NeedsRecovery),
            // Whatever the header says: SQLite uses a WAL that is not empty.
            (false, Some(4096), false, NeedsRecovery),
            (false, None, false, Normal),
            (false, Some(0), false, Normal),
        ];
        for (is_wal, wal, has_shm, expected) in table {
            let surroundings = Surroundings { is_wal, wal, has_shm };
            assert_eq!(surroundings.access(), expected, "{surroundings:?}");
        }
    }

    #[test]
    fn a_file_that_can_be_written_is_opened_as_usual() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        std::fs::write(&path, "").unwrap();
        std::fs::write(beside(&path, "-wal"), "saved").unwrap();
        assert_eq!(access(&path, || true), Access::Normal);
    }

    #[test]
    fn any_name_can_be_frozen() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.db", "50%?x=1#y.db", "\u{e4} b&c.db", "%41.db"] {
            let path = folder.path().join(name);
            Connection::open(&path).unwrap().execute_batch("PRAGMA user_version=7").unwrap();
            let found = connect(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0));
            assert_eq!(found, Ok(7), "{name}");
        }
    }
}
