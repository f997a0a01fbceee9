//! Removing the `-wal` and the `-shm` of a database. Nothing else deletes a file that SQLite keeps.
//!
//! A WAL can hold the only copy of acknowledged saves, and SQLite replays any WAL that has the right name
//! (<https://www.sqlite.org/howtocorrupt.html>, section 1.4). So each function has one rule for when a WAL may go, and
//! [`super::file_locks`] proves that the rule holds.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::file_locks::{self, FileLocks, OpeningLock, UnusedLock};
use super::path::beside;
use super::shared_memory::ShmHandle;
use crate::store::deadline::Deadline;
use crate::store::error::{Code, Error, Result};
use crate::store::files;

fn remove(wal: &Path, shm: &Path) {
    let _ = fs::remove_file(wal);
    let _ = fs::remove_file(shm);
}

/// Removes an empty WAL if no process has the file open. Our locks keep SQLite from doing so itself.
///
/// Precondition: the connections of this process are closed.
pub(super) fn remove_empty(locks: &FileLocks, opening: &OpeningLock<'_>, wal: &Path, shm: &Path) {
    let sole_use = locks.try_acquire_sole_use(opening);
    if sole_use.is_some() && files::length(wal) == 0 {
        remove(wal, shm);
    }
}

/// Removes the WAL of a file that `path` does not name any more, if `is_own` says that it still is that file's. Keeps
/// it if a process has the file that `path` names now open in WAL mode, or is opening it.
///
/// Precondition: this process has no connection to the file that `path` names now. This opens and closes a handle of
/// that file, which would drop the connection's POSIX locks.
pub(super) fn remove_of_replaced_file(path: &Path, wal: &Path, shm: &Path, is_own: impl FnOnce() -> bool) {
    let locks = FileLocks::open(path);
    let Some(opening) = locks.acquire_opening_lock(Deadline::now()) else { return };
    let unused = locks.try_lock_unused(&opening);
    if !matches!(unused, UnusedLock::Conflict) && is_own() {
        remove(wal, shm);
    }
}

/// Removes a WAL that a process uses for another database file, which had this name before.
///
/// This is the most dangerous function of the library: the WAL of a file that was renamed can hold saves that are
/// nowhere else yet. It is needed because of contract 7: a new process works on the file that the path names now, even
/// if the processes that had the old file open are idle and still have its WAL open (`tests/faults/test_taken_away.py`,
/// moment "before a new one"). If the WAL stayed, SQLite would replay it into this file, and share its `-shm` with
/// writers of the other file. If it cannot be told that the WAL is another file's, it stays.
///
/// The saves in the WAL are not lost as long as one of those processes lives: each has the WAL open, and moves it into
/// its file when it notices ([`super::database::Database::close_replaced_file`]).
///
/// Precondition: `locks` does not hold the shared locks.
pub(super) fn remove_stray(locks: &FileLocks, opening: &OpeningLock<'_>, wal: &Path, shm: &Path) {
    if fs::metadata(wal).is_err() {
        return;
    }
    let Some(shm_handle) = ShmHandle::open(shm) else { return };
    // While this lock is held, no WAL is in use for this file.
    let unused = locks.try_lock_unused(opening);
    if locks.is_wal_of_another_file(shm_handle.file(), matches!(unused, UnusedLock::Acquired(_))) {
        remove(wal, shm);
    }
}

/// Fails if a WAL with contents lies beside a file at `path` that is not in WAL mode: a backup that took the place of a
/// file whose program was killed. SQLite would replay the WAL into it.
///
/// SQLite writes WAL mode into the header before it writes a WAL, and deletes the WAL before it leaves the mode
/// (<https://www.sqlite.org/wal.html>, section 3.3; `sqlite3PagerCloseWal` in `src/pager.c`). With a hot journal the
/// header may be one that SQLite still has to roll back.
pub(super) fn require_own(locks: &FileLocks, path: &Path) -> Result<()> {
    // The WAL comes first: another process may be switching to WAL mode.
    let is_stray = files::length(&beside(path, "-wal")) > 0
        && locks.header_says_no_wal()
        && !beside(path, "-journal").exists()
        && path.exists();
    if is_stray { Err(Error::at(Code::StrayWal, path)) } else { Ok(()) }
}

/// Fails if there is no file at `path`, but a WAL with contents that no process uses. SQLite would replay it into a new
/// file.
pub(super) fn require_none_without_file(path: &Path) -> Result<()> {
    let is_stray = files::length(&beside(path, "-wal")) > 0
        && !file_locks::is_wal_in_use(&beside(path, "-shm"))
        && fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if is_stray { Err(Error::at(Code::StrayWal, path)) } else { Ok(()) }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::super::file_locks::tests::{LockedFiles, files, in_another_thread, shared, try_share};
    use super::*;

    fn make_empty(files: &LockedFiles) {
        for file in [&files.wal, &files.shm] {
            fs::write(file, "").unwrap();
        }
    }

    fn exist(files: &LockedFiles) -> (bool, bool) {
        (files.wal.exists(), files.shm.exists())
    }

    #[test]
    fn the_last_user_removes_an_empty_wal() {
        let files = files();
        let (one, other) = (shared(&files), shared(&files));
        let remove_empty = |contents: &str| {
            fs::write(&files.wal, contents).unwrap();
            let opening = one.acquire_opening_lock(Deadline::now()).unwrap();
            remove_empty(&one, &opening, &files.wal, &files.shm);
            exist(&files)
        };
        assert_eq!(remove_empty(""), (true, true), "another user has the file open");
        drop(other);
        assert_eq!(remove_empty("saved"), (true, true), "the WAL is not empty");
        assert_eq!(remove_empty(""), (false, false));
    }

    #[test]
    fn a_wal_is_stray_only_if_it_is_used_for_another_file() {
        let files = files();
        let remove_stray = || {
            let locks = FileLocks::open(&files.database);
            let opening = locks.acquire_opening_lock(Deadline::now()).unwrap();
            remove_stray(&locks, &opening, &files.wal, &files.shm);
            exist(&files)
        };
        make_empty(&files);
        assert_eq!(remove_stray(), (true, true), "no process uses it: a crash may have left it");
        let own = shared(&files);
        assert_eq!(remove_stray(), (true, true), "it is the WAL of this file");
        drop(own);
        let other = files.database.with_file_name("other");
        fs::write(&other, [2; 512]).unwrap();
        let others = FileLocks::open(&other);
        assert!(try_share(&others, &files.shm));
        assert_eq!(remove_stray(), (false, false));
        drop(others);

        // A process has this file open too, with a WAL that was removed while the path named another file.
        let open = FileLocks::open(&files.database);
        assert!(try_share(&open, &files.database.with_file_name("its own shm")));
        make_empty(&files);
        let others = FileLocks::open(&other);
        assert!(try_share(&others, &files.shm));
        assert!(!try_share(&FileLocks::open(&files.database), &files.shm));
        assert_eq!(remove_stray(), (false, false));
    }

    #[test]
    fn the_wal_of_a_replaced_file_stays_while_the_new_file_is_open_or_being_opened() {
        let files = files();
        let is_removed = |is_own: bool| {
            make_empty(&files);
            in_another_thread(|| remove_of_replaced_file(&files.database, &files.wal, &files.shm, || is_own));
            exist(&files) == (false, false)
        };
        assert!(is_removed(true));
        assert!(!is_removed(false));
        let locks = FileLocks::open(&files.database);
        let opening = locks.acquire_opening_lock(Deadline::now());
        assert!(!is_removed(true));
        drop(opening);
        assert!(is_removed(true));
        assert!(try_share(&locks, &files.shm));
        assert!(!is_removed(true));
    }
}
