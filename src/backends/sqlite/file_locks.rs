//! Locks on a database file that no other code in this process can drop, in addition to SQLite's own locks.
//!
//! SQLite uses POSIX locks. A process loses all its POSIX locks on a file as soon as any of its code closes any handle
//! of the file: `sqlite3.connect(path).close()`, `shutil.copy(path)` (`fcntl(2)`, "Advisory record locking";
//! <https://www.sqlite.org/howtocorrupt.html>, section 2.2). Nor do POSIX locks separate two users of a file in one
//! process: Python's `sqlite3` is another copy of SQLite than ours, and neither knows of the other (section 2.2.1).
//! These failures were seen (`tests/faults/test_foreign_hands.py`):
//! - other code truncates the `-shm`: a bus error;
//! - another process closes the database, believes that it is the last one, and deletes the `-wal` that we write: all
//!   saves are lost;
//! - another process takes the journal of a running change for one that a crash has left: a malformed file;
//! - two processes write at once.
//!
//! A lock of an open file description belongs to one handle, and conflicts with the POSIX locks of every process,
//! including our own ([`crate::store::file_lock`]). So this library holds the following locks, each on a handle of its
//! own:
//! - The *shared locks*, in WAL mode, from before SQLite opens the `-wal` until the connection is closed:
//!   - on the database, the bytes that SQLite locks too. They keep the `-wal` from being deleted.
//!   - on the `-shm`, SQLite's "dead man's switch". It keeps the `-shm` from being truncated.
//!   - the user lock. It says to other processes of this library that this one uses the file.
//!   - an owner lock on the `-shm`. It says which database file the WAL belongs to: a path can name one file, then
//!     another, and then the first again, while a process still uses the WAL of the other file.
//! - The *opening lock*, exclusive, while the file is opened, created, migrated or tidied up.
//! - The *write lock*, exclusive, during a change, and without WAL during a read too.
//!
//! These locks do not cover one case: a writer of another program, in another process, in the moment (well under a
//! millisecond) in which other code of this process closes the file in the middle of a change.
//!
//! Closing these handles drops POSIX locks too, so the handle of the database is closed after the connections, and one
//! of the `-shm` is kept while other code needs it ([`ShmHandle`]). Without such locks (outside Linux) only SQLite's
//! own locks protect the file.
//!
//! The constants of SQLite were checked against SQLite 3.53.2 (`src/os.h`, `src/os_unix.c`); a test fails with another
//! version.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::path::MIN_PAGE_SIZE;
use super::shared_memory::{self, DEAD_MANS_SWITCH, DatabaseVersion, INDEX_HEADER_LENGTH, ShmHandle};
use super::waiting::{LOCK_POLL, TICKET_HOLDER_POLL};
use crate::store::deadline::Deadline;
use crate::store::file_lock::{ByteRange, LockResult, Operation, is_locked, lock};
use crate::store::files::{FileId, is_out_of_handles, open_handle};
use crate::store::lock_order::{Ordered, OrderedGuard, Rank};

/// `SHARED_FIRST` and `SHARED_SIZE` of `src/os.h`. A connection in WAL mode holds a shared lock on these bytes.
const DATABASE_BYTES: ByteRange = (0x4000_0002, 510);

// Our own locks lie in the page that SQLite keeps free for locks ("lock-byte page",
// https://www.sqlite.org/fileformat.html, section 1.4), behind SQLite's.
const WRITE_LOCK: ByteRange = (0x4000_0400, 1);
const OPENING_LOCK: ByteRange = (0x4000_0401, 1);
const USER_LOCK: ByteRange = (0x4000_0402, 1);
/// The ticket says who gets the write lock next. Without it, a process that has just released the write lock gets it
/// again before any other looks: with four busy processes a save took 200 times as long as most
/// (`tests/faults/test_crowds.py`).
const WRITE_TICKET: ByteRange = (0x4000_0403, 1);

/// The file format versions for writing and reading in the header of a database, and their value in WAL mode
/// (<https://www.sqlite.org/fileformat.html>, section 1.3.3).
const FORMAT_VERSIONS_OFFSET: u64 = 18;
const WAL_FORMAT_VERSIONS: [u8; 2] = [2, 2];

/// The handles and locks that all connections of this process to one file share. If the file cannot be opened or
/// locked, only SQLite's own locks protect it.
pub(super) struct FileLocks {
    database: Option<File>,
    /// Why the database has no handle, if there were too many open files.
    refused: Option<io::Error>,
    /// Set once the shared locks are held.
    shared: OnceLock<SharedLocks>,
    /// The shared locks were held, and are not any more.
    are_given_up: AtomicBool,
    // All threads of this process use one handle, so a file lock does not separate them. These do.
    opening: Ordered<()>,
    writing: Ordered<()>,
    process: u32,
}

struct SharedLocks {
    /// The `-shm`, if it can be opened.
    shm: Option<ShmHandle>,
    /// Can locks of an open file description be acquired here?
    are_available: bool,
}

/// An exclusive lock on a range of the database file. Released when it is dropped.
pub(super) struct RangeLock<'a> {
    database: Option<&'a File>,
    range: ByteRange,
    _thread: Option<OrderedGuard<'a, ()>>,
}

impl Drop for RangeLock<'_> {
    fn drop(&mut self) {
        lock(self.database, Operation::Release, self.range);
    }
}

/// The opening lock. A function that needs it takes it as an argument.
pub(super) struct OpeningLock<'a>(#[expect(dead_code, reason = "held for its drop")] RangeLock<'a>);

/// The result of [`FileLocks::try_lock_unused`].
pub(super) enum UnusedLock<'a> {
    /// No connection in WAL mode is open to the file. None can be opened until the lock is dropped.
    Acquired(#[expect(dead_code, reason = "held for its drop")] RangeLock<'a>),
    /// A connection is open to the file.
    Conflict,
    /// There are no such locks here.
    Unavailable,
}

/// Holds exclusively every lock that an open connection shares. So no process has a connection to the file. The drop
/// releases the locks.
pub(super) struct SoleUse<'a> {
    locked: Vec<(Option<&'a File>, ByteRange)>,
}

impl Drop for SoleUse<'_> {
    fn drop(&mut self) {
        for (file, range) in &self.locked {
            lock(*file, Operation::Release, *range);
        }
    }
}

impl FileLocks {
    /// Opens handles to the file that `path` names. Locks nothing.
    pub(super) fn open(path: &Path) -> Self {
        let handle = match open_handle(path) {
            Err(error) if !is_out_of_handles(&error) => File::open(path),
            opened => opened,
        };
        let (database, refused) = match handle {
            Ok(handle) => (Some(handle), None),
            Err(error) => (None, Some(error).filter(is_out_of_handles)),
        };
        Self {
            database,
            refused,
            shared: OnceLock::new(),
            are_given_up: AtomicBool::new(false),
            opening: Ordered::new(Rank::Opening, ()),
            writing: Ordered::new(Rank::Writing, ()),
            process: process::id(),
        }
    }

    /// Why the file has no handle to lock, if this process has too many open files. Without its locks a file is never
    /// used for that reason.
    pub(super) const fn refused(&self) -> Option<&io::Error> {
        self.refused.as_ref()
    }

    /// Are these locks on the file `id`? Also true if the file cannot be opened.
    pub(super) fn is_on(&self, id: FileId) -> bool {
        self.database.as_ref().and_then(FileId::of_handle).is_none_or(|found| found == id)
    }

    /// Did this process open the handles? A handle that was inherited over a fork has the same locks as the parent's.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.process == process::id()
    }

    /// Does the header of the file say that it is in WAL mode?
    pub(super) fn header_says_wal(&self) -> bool {
        let Some(mut file) = self.database.as_ref() else { return false };
        let mut versions = [0; WAL_FORMAT_VERSIONS.len()];
        file.seek(SeekFrom::Start(FORMAT_VERSIONS_OFFSET)).is_ok()
            && file.read_exact(&mut versions).is_ok()
            && versions == WAL_FORMAT_VERSIONS
    }

    /// Does the header of the file say that it is a database that is not in WAL mode? False if it cannot be read.
    pub(super) fn header_says_no_wal(&self) -> bool {
        self.database.as_ref().and_then(|file| file.metadata().ok()).is_some_and(|file| file.len() >= MIN_PAGE_SIZE)
            && !self.header_says_wal()
    }

    /// Acquires the opening lock. `None`: the deadline is over.
    pub(super) fn acquire_opening_lock(&self, deadline: Deadline) -> Option<OpeningLock<'_>> {
        let thread = self.opening.lock(deadline)?;
        self.acquire(OPENING_LOCK, Some(thread), || deadline.sleep(LOCK_POLL)).map(OpeningLock)
    }

    /// Acquires the write lock. `None`: the deadline is over.
    pub(super) fn acquire_write_lock(&self, deadline: Deadline) -> Option<RangeLock<'_>> {
        let thread = self.writing.lock(deadline)?;
        let _ticket = self.acquire(WRITE_TICKET, None, || deadline.sleep(LOCK_POLL))?;
        self.acquire(WRITE_LOCK, Some(thread), || deadline.sleep(TICKET_HOLDER_POLL))
    }

    fn acquire<'a>(
        &'a self,
        range: ByteRange,
        thread: Option<OrderedGuard<'a, ()>>,
        wait: impl FnMut() -> bool,
    ) -> Option<RangeLock<'a>> {
        let database = self.database.as_ref();
        lock_when_free(database, Operation::Exclude, range, wait)?;
        Some(RangeLock { database, range, _thread: thread })
    }

    /// Acquires the shared locks, of a file in WAL mode, before SQLite opens the `-wal`. `None`: the deadline is over,
    /// or the WAL belongs to another file. Fails if this process has too many open files.
    pub(super) fn acquire_shared_locks(
        &self,
        shm_path: &Path,
        deadline: Deadline,
        opening: &OpeningLock<'_>,
    ) -> io::Result<Option<()>> {
        let handle = match self.database.as_ref().map(|database| ShmHandle::open_or_create(shm_path, database)) {
            Some(Err(error)) if is_out_of_handles(&error) => return Err(error),
            opened => opened.and_then(Result::ok),
        };
        Ok(self.share(handle, deadline, opening))
    }

    fn share(&self, handle: Option<ShmHandle>, deadline: Deadline, _: &OpeningLock<'_>) -> Option<()> {
        // A program that is the last one to close the file locks these bytes exclusively for a moment.
        for range in [USER_LOCK, DATABASE_BYTES] {
            lock_when_free(self.database.as_ref(), Operation::Share, range, || deadline.sleep(LOCK_POLL))?;
        }
        let are_available = lock(self.database.as_ref(), Operation::Share, USER_LOCK) == LockResult::Done;
        let shm = handle.as_ref().map(ShmHandle::file);
        // SQLite resets the `-shm` if no process has locked the dead man's switch. It will see our lock and not reset
        // it, so what a crash has left there is reset here.
        let is_in_use = handle.as_ref().is_some_and(|handle| handle.was_kept);
        if !is_in_use
            && lock(shm, Operation::Exclude, DEAD_MANS_SWITCH) == LockResult::Done
            && let Some(mut shm) = shm
        {
            // Not truncated: other code of some process may still have it mapped.
            let _ = shm.seek(SeekFrom::Start(0)).and_then(|_| shm.write_all(&[0; INDEX_HEADER_LENGTH]));
        }
        lock_when_free(shm, Operation::Share, DEAD_MANS_SWITCH, || deadline.sleep(LOCK_POLL))?;
        if let (Some(database), Some(shm)) = (self.database.as_ref(), shm) {
            shared_memory::lock_owner(shm, database);
            if shared_memory::has_another_owner(shm, database) {
                return None;
            }
        }
        let _ = self.shared.set(SharedLocks { shm: handle, are_available });
        Some(())
    }

    /// Are the shared locks held?
    pub(super) fn has_shared_locks(&self) -> bool {
        self.shared.get().is_some()
    }

    /// Are the shared locks held, as locks of an open file description?
    pub(super) fn are_available(&self) -> bool {
        self.shared.get().is_some_and(|shared| shared.are_available)
    }

    /// Were the shared locks given up ([`Self::try_acquire_sole_use`])? Then no connection may be opened with this
    /// object.
    pub(super) fn are_given_up(&self) -> bool {
        self.are_given_up.load(Ordering::Relaxed)
    }

    /// The `-shm` that this process has locked.
    fn shm(&self) -> Option<&File> {
        self.shared.get()?.shm.as_ref().map(ShmHandle::file)
    }

    /// The version of the database that its readers see. `None`: it is changing just now, or the `-shm` cannot be read.
    pub(super) fn database_version(&self) -> Option<DatabaseVersion> {
        DatabaseVersion::read(self.shm()?)
    }

    /// Does `path` name the `-shm` that this process has locked? Also true if it has locked none.
    pub(super) fn is_shm_at(&self, path: &Path) -> bool {
        self.shm().is_none_or(|shm| FileId::of_handle(shm).is_none_or(|id| FileId::of(path) == Some(id)))
    }

    /// Is this the only process of this library that uses the file in WAL mode? As long as the opening lock is held, no
    /// other one starts to.
    pub(super) fn is_only_user(&self, _: &OpeningLock<'_>) -> bool {
        !self.has_other_users()
    }

    fn has_other_users(&self) -> bool {
        self.database.as_ref().is_some_and(|database| is_locked(database, USER_LOCK))
    }

    /// Does another process use the file in WAL mode under another name, a hard link? Its WAL has that other name, so
    /// neither process would see what the other writes (<https://www.sqlite.org/howtocorrupt.html>, section 2.5).
    /// `shm_path` is the path of the `-shm` under this name.
    #[cfg(target_os = "linux")]
    pub(super) fn is_used_under_another_name(&self, shm_path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let names = self.database.as_ref().and_then(|database| database.metadata().ok()).map_or(1, |file| file.nlink());
        names > 1
            && self.has_other_users()
            && ShmHandle::open(shm_path).is_none_or(|shm| !is_locked(shm.file(), DEAD_MANS_SWITCH))
    }

    /// The number of names is not known here.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn is_used_under_another_name(&self, _: &Path) -> bool {
        false
    }

    /// Is the WAL of this `-shm` in use for another database file? If `nobody_uses_this_file`, that can be another
    /// program, too.
    pub(super) fn is_wal_of_another_file(&self, shm: &File, nobody_uses_this_file: bool) -> bool {
        let Some(database) = self.database.as_ref() else { return false };
        shared_memory::has_another_owner(shm, database)
            || (nobody_uses_this_file && shared_memory::is_used_by_other_program(shm, database))
    }

    /// Tries to lock the database bytes exclusively, without waiting. Every connection in WAL mode has them locked.
    ///
    /// Precondition: this object does not hold the shared locks, which an exclusive lock would replace.
    pub(super) fn try_lock_unused(&self, _: &OpeningLock<'_>) -> UnusedLock<'_> {
        debug_assert!(!self.has_shared_locks());
        let database = self.database.as_ref();
        match lock(database, Operation::Exclude, DATABASE_BYTES) {
            LockResult::Done => UnusedLock::Acquired(RangeLock { database, range: DATABASE_BYTES, _thread: None }),
            LockResult::Conflict => UnusedLock::Conflict,
            LockResult::Unavailable => UnusedLock::Unavailable,
        }
    }

    /// Tries to make all shared locks exclusive, without waiting. `None`: another user has the file open, which may be
    /// other code of this process.
    ///
    /// Precondition: the connections of this process are closed. Afterwards the shared locks are not held any more.
    pub(super) fn try_acquire_sole_use(&self, _: &OpeningLock<'_>) -> Option<SoleUse<'_>> {
        self.are_given_up.store(true, Ordering::Relaxed);
        let database = self.database.as_ref();
        if self.shared.get().and_then(|shared| shared.shm.as_ref()).is_some_and(ShmHandle::is_open_elsewhere) {
            // Closing our connections has dropped the locks of that code.
            return None;
        }
        let mut sole = SoleUse { locked: Vec::new() };
        for (file, range) in [(database, USER_LOCK), (database, DATABASE_BYTES), (self.shm(), DEAD_MANS_SWITCH)] {
            if lock(file, Operation::Exclude, range) != LockResult::Done {
                return None;
            }
            sole.locked.push((file, range));
        }
        Some(sole)
    }
}

/// Does a process use the WAL of this `-shm`? True where that is not known.
pub(super) fn is_wal_in_use(shm: &Path) -> bool {
    cfg!(not(target_os = "linux")) || ShmHandle::open(shm).is_some_and(|shm| is_locked(shm.file(), DEAD_MANS_SWITCH))
}

/// Acquires the lock as soon as it is free. `None`: `wait` returned false. Also returns if there are no such locks
/// here.
fn lock_when_free(
    file: Option<&File>,
    operation: Operation,
    range: ByteRange,
    mut wait: impl FnMut() -> bool,
) -> Option<()> {
    while lock(file, operation, range) == LockResult::Conflict {
        if !wait() {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
pub(super) mod tests {
    use std::fs;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    /// A database and the paths of its `-wal` and `-shm`, as far as the locks look at them.
    pub(in super::super) struct LockedFiles {
        _folder: TempDir,
        pub(in super::super) database: PathBuf,
        pub(in super::super) wal: PathBuf,
        pub(in super::super) shm: PathBuf,
    }

    pub(in super::super) fn files() -> LockedFiles {
        let folder = tempfile::tempdir().unwrap();
        let [database, wal, shm] = ["database", "wal", "shm"].map(|name| folder.path().join(name));
        // In WAL mode, as far as its header says.
        fs::write(&database, [2; 512]).unwrap();
        LockedFiles { _folder: folder, database, wal, shm }
    }

    /// Tries to acquire the shared locks, without waiting.
    pub(in super::super) fn try_share(locks: &FileLocks, shm: &Path) -> bool {
        let opening = locks.acquire_opening_lock(Deadline::now()).unwrap();
        locks.acquire_shared_locks(shm, Deadline::now(), &opening).unwrap().is_some()
    }

    pub(in super::super) fn shared(files: &LockedFiles) -> FileLocks {
        let locks = FileLocks::open(&files.database);
        assert!(try_share(&locks, &files.shm));
        locks
    }

    /// The debug assertion on the lock order would take another object's lock in the same thread for a mistake.
    pub(in super::super) fn in_another_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    /// Does a process of this library use the file in WAL mode?
    pub(in super::super) fn is_used(path: &Path) -> bool {
        is_range_locked(path, USER_LOCK)
    }

    /// Holds what SQLite of another process holds on an open database.
    pub(in super::super) fn hold_as_another_program(path: &Path) -> File {
        let handle = open_handle(path).unwrap();
        assert_eq!(lock(Some(&handle), Operation::Share, DATABASE_BYTES), LockResult::Done);
        handle
    }

    fn is_range_locked(path: &Path, range: ByteRange) -> bool {
        lock(open_handle(path).ok().as_ref(), Operation::Exclude, range) == LockResult::Conflict
    }

    #[test]
    fn the_constants_of_sqlite_were_checked_against_this_version() {
        // After an upgrade compare SHARED_FIRST and SHARED_SIZE (src/os.h), UNIX_SHM_DMS (src/os_unix.c), and
        // WalIndexHdr and WalCkptInfo (src/wal.c) with the constants here and in `shared_memory`.
        assert_eq!(rusqlite::version(), "3.53.2");
    }

    #[test]
    fn one_holder_has_the_write_lock_and_closing_another_handle_does_not_release_it() {
        let files = files();
        let (one, other) = (FileLocks::open(&files.database), FileLocks::open(&files.database));
        let held = one.acquire_write_lock(Deadline::now()).unwrap();
        drop(File::open(&files.database).unwrap());
        in_another_thread(|| {
            assert!(other.acquire_write_lock(Deadline::now()).is_none());
            assert!(one.acquire_write_lock(Deadline::now()).is_none(), "nor another thread with the same handle");
            assert!(other.acquire_opening_lock(Deadline::now()).is_some(), "which is another lock");
        });
        drop(held);
        assert!(other.acquire_write_lock(Deadline::now()).is_some());
    }

    #[test]
    fn the_holder_of_the_ticket_gets_the_write_lock_next() {
        let files = files();
        let (one, other) = (FileLocks::open(&files.database), FileLocks::open(&files.database));
        let in_time = || Deadline::after(std::time::Duration::from_secs(20));
        let held = one.acquire_write_lock(Deadline::now()).unwrap();
        std::thread::scope(|scope| {
            let (acquired, is_acquired) = std::sync::mpsc::channel();
            let (end, ends) = std::sync::mpsc::channel::<()>();
            let waiting = scope.spawn(move || {
                let held = other.acquire_write_lock(in_time());
                acquired.send(held.is_some()).unwrap();
                ends.recv().unwrap_err();
                drop(held);
            });
            let deadline = in_time();
            while !is_range_locked(&files.database, WRITE_TICKET) && deadline.sleep(LOCK_POLL) {}
            drop(held);
            assert!(
                one.acquire_write_lock(Deadline::now()).is_none(),
                "the waiting thread has the ticket or the write lock"
            );
            assert!(is_acquired.recv().unwrap());
            drop(end);
            waiting.join().unwrap();
        });
        assert!(one.acquire_write_lock(Deadline::now()).is_some());
    }

    #[test]
    fn nobody_gets_the_shared_locks_exclusively() {
        let files = files();
        let locks = shared(&files);
        assert!(locks.are_available());
        for _ in 0..2 {
            assert!(is_range_locked(&files.database, DATABASE_BYTES) && is_range_locked(&files.shm, DEAD_MANS_SWITCH));
        }
        drop(locks);
        assert!(!is_range_locked(&files.database, DATABASE_BYTES) && !is_range_locked(&files.shm, DEAD_MANS_SWITCH));
    }

    #[test]
    fn a_user_knows_whether_there_are_others_and_stays_one() {
        let files = files();
        let one = shared(&files);
        let other = shared(&files);
        let is_only_user = || one.is_only_user(&one.acquire_opening_lock(Deadline::now()).unwrap());
        assert!(!is_only_user());
        drop(other);
        assert!(is_only_user());
        drop(shared(&files));
        assert!(is_only_user(), "the question acquired no lock, so another user could come and go");
    }

    #[test]
    fn the_shm_stays_locked_while_other_code_of_this_process_has_it_open() {
        let files = files();
        fs::write(&files.shm, [0; 200]).unwrap();
        // Its own lock on the file is gone as soon as SQLite closes another handle of the file.
        let other_code = open_handle(&files.shm).unwrap();
        let is_locked = || is_locked(&other_code, DEAD_MANS_SWITCH);
        for turn in 0..3 {
            drop(shared(&files));
            assert!(is_locked(), "after a store was open: {turn}");
            drop(ShmHandle::open(&files.shm));
            assert!(is_locked(), "after a look at the file: {turn}");
        }
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let of_shm = open.filter(|handle| fs::read_link(handle.path()).is_ok_and(|path| path == files.shm));
        assert_eq!(of_shm.count(), 2, "one handle is kept, and one is of this test");

        fs::write(&files.shm, [7; 200]).unwrap();
        let user = shared(&files);
        assert!(fs::read(&files.shm).unwrap().starts_with(&[7]), "it is in use, so it is not reset");
        let opening = user.acquire_opening_lock(Deadline::now()).unwrap();
        assert!(user.try_acquire_sole_use(&opening).is_none(), "the WAL stays for the other code");
        drop(opening);
        drop((user, other_code));
        drop(shared(&files));
        assert!(!is_range_locked(&files.shm, DEAD_MANS_SWITCH));
    }

    #[test]
    fn a_handle_of_the_shm_that_waits_for_its_next_use_holds_no_lock() {
        let files = files();
        let one = shared(&files);
        let other = shared(&files);
        drop(one);
        let opening = other.acquire_opening_lock(Deadline::now()).unwrap();
        assert!(other.try_acquire_sole_use(&opening).is_some());
    }

    #[test]
    fn only_the_first_user_resets_the_memory_that_a_crash_has_left() {
        let files = files();
        let begin = |with| fs::write(&files.shm, [with; 200]).unwrap();
        let is_reset = || fs::read(&files.shm).unwrap().starts_with(&[0; INDEX_HEADER_LENGTH]);
        begin(7);
        let one = shared(&files);
        assert!(is_reset());
        begin(7);
        let other = shared(&files);
        assert!(!is_reset());
        drop((one, other));
        let _next = shared(&files);
        assert!(is_reset(), "with a handle that was used before");
    }

    #[test]
    fn the_shm_has_the_permissions_of_the_database_and_is_never_a_link() {
        use std::os::unix::fs::PermissionsExt;
        let files = files();
        fs::set_permissions(&files.database, fs::Permissions::from_mode(0o640)).unwrap();
        drop(shared(&files));
        assert_eq!(fs::metadata(&files.shm).unwrap().permissions().mode() & 0o777, 0o640);
        fs::remove_file(&files.shm).unwrap();
        fs::write(&files.wal, "of another user").unwrap();
        std::os::unix::fs::symlink(&files.wal, &files.shm).unwrap();
        drop(shared(&files));
        assert_eq!(fs::read(&files.wal).unwrap(), b"of another user");
    }

    #[test]
    fn the_header_of_a_file_says_whether_it_is_in_wal_mode() {
        let files = files();
        assert!(FileLocks::open(&files.database).header_says_wal());
        for other in [&b""[..], &[1; 512], &[2; 19]] {
            fs::write(&files.database, other).unwrap();
            assert!(!FileLocks::open(&files.database).header_says_wal());
        }
        assert!(!FileLocks::open(&files.wal).header_says_wal(), "there is no file");
    }

    #[test]
    fn a_hard_link_to_a_file_in_use_has_another_wal() {
        let files = files();
        let link = files.database.with_file_name("link");
        fs::hard_link(&files.database, &link).unwrap();
        let is_used = |database: &Path, shm: &Path| FileLocks::open(database).is_used_under_another_name(shm);
        assert!(!is_used(&link, &files.wal), "no process uses it");
        let _one = shared(&files);
        assert!(is_used(&link, &files.wal));
        assert!(!is_used(&files.database, &files.shm));
        fs::remove_file(&link).unwrap();
        assert!(!is_used(&files.database, &files.wal), "it has one name");
    }
}
