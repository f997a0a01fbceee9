//! Locks that no other code in this process can drop, beside SQLite's, which it can.
//!
//! SQLite locks with POSIX locks, and POSIX drops all of a process's locks on a file as soon as *any* handle of the
//! process to that file is closed: `sqlite3.connect(path).close()`, `shutil.copy(path)`. Python's `sqlite3` is another
//! SQLite than ours, so neither knows of the other. What follows was seen: another process takes the `-shm` for its own
//! and truncates it (a bus error here), another closes the database "last" and deletes the `-wal` we write into (a save
//! lost), two processes write at once.
//!
//! Locks of an open file description belong to one handle, and they are respected by POSIX locks of every process, our
//! own included. So as long as connections are open we hold, on handles of ours:
//! - what every connection in WAL mode holds anyway: a shared lock on the database (it keeps the `-wal` from being deleted)
//!   and one on the `-shm`'s "dead man's switch" (it keeps the `-shm` from being truncated);
//! - during a change an exclusive lock that only this library knows, so that two of its processes never write at once.
//!
//! What they do not cover: a writer that is not this library's, in another process, in the very moment (well under a
//! millisecond) in which other code of this process closes the file in the middle of a change.
//!
//! Closing these handles drops locks, too, so they are closed after the connections. Where there are no such locks
//! (outside Linux) SQLite's own have to do.

#[cfg(target_os = "linux")]
pub(super) use linux::{Guards, claim, is_in_use, part_from_stray_log};
#[cfg(not(target_os = "linux"))]
pub(super) use nothing::{Guards, claim, is_in_use, part_from_stray_log};

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::process;

    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    use crate::store::wait::Deadline;

    /// `SHARED_FIRST` and `SHARED_SIZE` of SQLite's file format.
    const SHARED: (i64, i64) = (0x4000_0002, 510);
    /// `UNIX_SHM_DMS` of SQLite's Unix VFS.
    const DEAD_MANS_SWITCH: (i64, i64) = (128, 1);
    /// In the page that SQLite keeps free for locks, behind its own.
    const OUR_TURN: (i64, i64) = (0x4000_0400, 1);
    /// Where SQLite's file format says how the file is written and read, and what it says of a file in WAL mode.
    const VERSIONS: (u64, [u8; 2]) = (18, [2, 2]);

    /// The shared locks. A file that cannot be opened or locked is one that SQLite's own locks have to do for.
    pub(in crate::store::sqlite) struct Guards {
        database: Option<File>,
        shm: Option<File>,
        wal: bool,
        process: u32,
    }

    impl Guards {
        /// Takes them, while a connection is open; without WAL (no `-shm`) only the right to wait for a turn. `None`: the
        /// path names another file by now, one without WAL.
        ///
        /// Whoever makes such a file needs it exclusively, and our locks would be in the way: so long that we would wait
        /// for each other. Once we have them, nobody can change what the file says of itself here.
        pub(in crate::store::sqlite) fn take(database: &Path, shm: Option<&Path>, deadline: Deadline) -> Option<Self> {
            // Nothing is written to them; but who excludes others needs a handle that could.
            let open = |path| File::options().read(true).write(true).open(path).ok();
            let (database, shm_file) = (open(database), shm.and_then(open));
            let guards = Self { database, shm: shm_file, wal: shm.is_some(), process: process::id() };
            // Only who closes the file last has it exclusively, for a moment.
            while guards.wal && guards.shared(libc::F_RDLCK) == Err(Errno::EAGAIN) && deadline.sleep() {}
            (!guards.wal || guards.database.as_ref().is_none_or(is_in_wal_mode)).then_some(guards)
        }

        /// Gives them back, that the last connection may tidy up.
        pub(in crate::store::sqlite) fn release(&self) {
            let _ = self.shared(libc::F_UNLCK);
        }

        /// Did this process take them, for this mode? What was inherited over a fork is one lock with the parent's.
        pub(in crate::store::sqlite) fn are_ours(&self, wal: bool) -> bool {
            self.process == process::id() && self.wal == wal
        }

        /// Waits for this process's turn to write. `None`: not in time.
        pub(in crate::store::sqlite) fn turn(&self, deadline: Deadline) -> Option<Turn<'_>> {
            while lock(self.database.as_ref(), libc::F_WRLCK, OUR_TURN) == Err(Errno::EAGAIN) {
                if !deadline.sleep() {
                    return None;
                }
            }
            Some(Turn(self))
        }

        fn shared(&self, kind: i32) -> Result<(), Errno> {
            lock(self.database.as_ref(), kind, SHARED)?;
            lock(self.shm.as_ref(), kind, DEAD_MANS_SWITCH)
        }
    }

    fn is_in_wal_mode(file: &File) -> bool {
        let mut versions = [0; 2];
        file.read_exact_at(&mut versions, VERSIONS.0).is_ok() && versions == VERSIONS.1
    }

    /// Does anybody have the database at this path open in WAL mode? Not to be asked about a file of our own connections.
    pub(in crate::store::sqlite) fn is_in_use(path: &Path) -> bool {
        let Ok(file) = File::options().read(true).write(true).open(path) else { return false };
        lock(Some(&file), libc::F_WRLCK, SHARED) == Err(Errno::EAGAIN)
    }

    /// Claims a draft for as long as the handle is open. `false`: it is somebody's. An error: there are no such locks here.
    pub(in crate::store::sqlite) fn claim(draft: &File) -> io::Result<bool> {
        match lock(Some(draft), libc::F_WRLCK, OUR_TURN) {
            Err(Errno::EAGAIN) => Ok(false),
            result => Ok(result.map(|()| true)?),
        }
    }

    /// Removes the `-wal` and `-shm` beside a database that nobody has open, if somebody uses them: for another file, then,
    /// which had this name before. SQLite would replay what stands there into this one, and share its memory with those who
    /// go on writing into the other.
    ///
    /// Not to be called by who has connections to the file: closing the handles here drops their locks.
    pub(in crate::store::sqlite) fn part_from_stray_log(database: &Path, wal: &Path, shm: &Path) {
        let open = |path| File::options().read(true).write(true).open(path).ok();
        if std::fs::metadata(wal).is_err() {
            return;
        }
        let (Some(database), Some(shm_file)) = (open(database), open(shm)) else { return };
        // Whoever opens the file locks it before it looks for a log: so as long as this lock is held, no log is its own.
        let is_ours = lock(Some(&database), libc::F_WRLCK, SHARED).is_ok();
        if is_ours && lock(Some(&shm_file), libc::F_WRLCK, DEAD_MANS_SWITCH) == Err(Errno::EAGAIN) {
            let _ = std::fs::remove_file(wal);
            let _ = std::fs::remove_file(shm);
        }
    }

    /// The right to write. Ends with its owner.
    pub(in crate::store::sqlite) struct Turn<'a>(&'a Guards);

    impl Drop for Turn<'_> {
        fn drop(&mut self) {
            let _ = lock(self.0.database.as_ref(), libc::F_UNLCK, OUR_TURN);
        }
    }

    fn lock(file: Option<&File>, kind: i32, (start, length): (i64, i64)) -> Result<(), Errno> {
        let Some(file) = file else { return Ok(()) };
        let range = libc::flock {
            l_type: i16::try_from(kind).unwrap_or_default(),
            l_whence: 0, // from the file's beginning
            l_start: start,
            l_len: length,
            l_pid: 0,
        };
        fcntl(file, FcntlArg::F_OFD_SETLK(&range)).map(drop)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// Two files as SQLite makes them in WAL mode, as far as the locks look at them.
        fn files(folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
            let (database, shm) = (folder.join("database"), folder.join("shm"));
            std::fs::write(&database, [2; 512]).unwrap();
            File::create(&shm).unwrap();
            (database, shm)
        }

        fn take(database: &Path, shm: &Path) -> Guards {
            Guards::take(database, Some(shm), Deadline::now()).unwrap()
        }

        #[test]
        fn who_makes_a_file_of_the_same_name_is_not_in_our_way_nor_we_in_theirs() {
            let folder = tempfile::tempdir().unwrap();
            let (database, shm) = files(folder.path());
            File::create(&database).unwrap();
            assert!(Guards::take(&database, Some(&shm), Deadline::now()).is_none(), "it is empty yet");
            assert!(!is_in_use(&database));
            let mut rollback = [2; 512];
            rollback[18..20].copy_from_slice(&[1, 1]);
            std::fs::write(&database, rollback).unwrap();
            assert!(Guards::take(&database, Some(&shm), Deadline::now()).is_none(), "it has no WAL yet");
            assert!(Guards::take(&database, None, Deadline::now()).is_some(), "a turn can be waited for without");
        }

        #[test]
        fn only_one_has_the_turn_and_closing_another_handle_does_not_end_it() {
            let folder = tempfile::tempdir().unwrap();
            let (database, shm) = files(folder.path());
            let (one, other) = (take(&database, &shm), take(&database, &shm));
            let turn = one.turn(Deadline::now()).unwrap();
            drop(File::open(&database).unwrap());
            assert!(other.turn(Deadline::now()).is_none());
            drop(turn);
            assert!(other.turn(Deadline::now()).is_some());
        }

        #[test]
        fn only_a_log_that_is_used_for_another_file_is_parted_from() {
            let folder = tempfile::tempdir().unwrap();
            let path = |name| folder.path().join(name);
            let [database, other, wal, shm] = ["database", "other", "wal", "shm"].map(path);
            for file in [&database, &other, &wal, &shm] {
                std::fs::write(file, [2; 512]).unwrap();
            }
            part_from_stray_log(&database, &wal, &shm);
            assert!(wal.exists() && shm.exists(), "nobody uses it: it may be what a crash has left");
            let own = take(&database, &shm);
            part_from_stray_log(&database, &wal, &shm);
            assert!(wal.exists() && shm.exists(), "it is this file's");
            drop(own);
            let _others = take(&other, &shm);
            part_from_stray_log(&database, &wal, &shm);
            assert!(!wal.exists() && !shm.exists());
        }

        #[test]
        fn what_is_guarded_cannot_be_locked_exclusively_until_it_is_released() {
            let folder = tempfile::tempdir().unwrap();
            let (database, shm) = files(folder.path());
            let guards = take(&database, &shm);
            for (file, range) in [(database, SHARED), (shm, DEAD_MANS_SWITCH)] {
                let other = File::options().write(true).open(&file).unwrap();
                assert_eq!(lock(Some(&other), libc::F_WRLCK, range), Err(Errno::EAGAIN));
                drop(File::open(&file).unwrap());
                assert_eq!(lock(Some(&other), libc::F_WRLCK, range), Err(Errno::EAGAIN));
            }
            assert!(is_in_use(&folder.path().join("database")));
            guards.release();
            assert!(!is_in_use(&folder.path().join("database")));
            let other = File::options().write(true).open(folder.path().join("shm")).unwrap();
            assert_eq!(lock(Some(&other), libc::F_WRLCK, DEAD_MANS_SWITCH), Ok(()));
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod nothing {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    use crate::store::wait::Deadline;

    pub(in crate::store::sqlite) struct Guards;

    impl Guards {
        pub(in crate::store::sqlite) fn take(_: &Path, _: Option<&Path>, _: Deadline) -> Option<Self> {
            Some(Self)
        }

        pub(in crate::store::sqlite) fn release(&self) {}

        pub(in crate::store::sqlite) fn are_ours(&self, _: bool) -> bool {
            true
        }

        pub(in crate::store::sqlite) fn turn(&self, _: Deadline) -> Option<Turn> {
            Some(Turn)
        }
    }

    pub(in crate::store::sqlite) struct Turn;

    pub(in crate::store::sqlite) fn claim(_: &File) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Where an open file cannot be replaced, nobody's `-wal` is left behind.
    pub(in crate::store::sqlite) fn is_in_use(_: &Path) -> bool {
        true
    }

    pub(in crate::store::sqlite) fn part_from_stray_log(_: &Path, _: &Path, _: &Path) {}
}
