//! Locks that no other code in this process can drop, beside SQLite's, which it can.
//!
//! SQLite locks with POSIX locks, and POSIX drops all of a process's locks on a file as soon as *any* handle of the
//! process to that file is closed: `sqlite3.connect(path).close()`, `shutil.copy(path)`. Nor do they tell two users of one
//! process apart; and Python's `sqlite3` is another SQLite than ours, so neither knows of the other. What follows was
//! seen: somebody takes the `-shm` for its own and truncates it (a bus error), another closes the database "last" and
//! deletes the `-wal` we write into (all saves lost), takes the journal of a change in progress for one that a crash has
//! left (a malformed file), two processes write at once.
//!
//! Locks of an open file description belong to one handle, and they are respected by POSIX locks of every process, our
//! own included. So we hold, on handles of ours:
//! - in WAL mode, from before SQLite opens the `-wal` until it is closed, what every such connection holds: a shared lock
//!   on the database (it keeps the `-wal` from being deleted) and one on the `-shm`'s "dead man's switch" (it keeps the
//!   `-shm` from being truncated);
//! - one on the `-shm` that only this library knows and that says which file its log belongs to: a path can name one file,
//!   then another and then the first again, and somebody may still use the log of the other one;
//! - two exclusive locks that only this library knows: one while the file is opened, made, migrated or tidied up, and one
//!   during a change; without WAL during a read, too.
//!
//! What they do not cover: other programs' writers, in another process, in the very moment (well under a millisecond) in
//! which other code of this process closes the file in the middle of a change.
//!
//! Closing these handles drops locks, too, so they are closed after the connections. Where there are no such locks
//! (outside Linux) SQLite's own have to do.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process;
use std::sync::OnceLock;

use super::busy;
use super::shm::{self, INDEX_HEADER, State};
use crate::store::deadline::Deadline;
use crate::store::file_lock::{ByteRange, LockResult, Operation, lock};
use crate::store::files::{self, FileId};
use crate::store::lock_order::{Ordered, OrderedGuard, Rank};

/// `SHARED_FIRST` and `SHARED_SIZE` of SQLite's file format.
const SHARED: ByteRange = (0x4000_0002, 510);
/// `UNIX_SHM_DMS` of SQLite's Unix VFS.
const DEAD_MANS_SWITCH: ByteRange = (128, 1);
/// In the page that SQLite keeps free for locks, behind its own.
const OUR_TURN: ByteRange = (0x4000_0400, 1);
const OPENING: ByteRange = (0x4000_0401, 1);
/// Whose turn is next. Who has had its turn and wants another would otherwise have it before anybody else looks: with four
/// busy processes a save took 200 times as long as most.
const NEXT: ByteRange = (0x4000_0403, 1);
/// Shared among this library's processes that have the file open in WAL mode: SQLite's own lock says nothing to us about
/// others, for the one of this process is among them.
const USING: ByteRange = (0x4000_0402, 1);

/// Where SQLite's file format says how a file is written and read, and what it says of one in WAL mode.
const VERSIONS: u64 = 18;
const WAL: [u8; 2] = [2, 2];

/// The handles and locks that this process's connections to a file share. A file that cannot be opened or locked is one
/// that SQLite's own locks have to do for.
pub(super) struct Guards {
    database: Option<File>,
    /// The `-shm`, if it can be had, once the shared locks are held.
    shared: OnceLock<Option<File>>,
    /// Between threads of this process: they have one handle, and so one lock.
    opening: Ordered<()>,
    writing: Ordered<()>,
    process: u32,
}

impl Guards {
    /// Of the file that `path` names. Nothing is locked yet.
    pub(super) fn of(path: &Path) -> Self {
        Self {
            database: open(path).or_else(|| File::open(path).ok()),
            shared: OnceLock::new(),
            opening: Ordered::new(Rank::Opening, ()),
            writing: Ordered::new(Rank::Writing, ()),
            process: process::id(),
        }
    }

    /// Are they of this file? Of one that cannot be opened nobody can tell.
    pub(super) fn are_of(&self, id: FileId) -> bool {
        self.database.as_ref().and_then(FileId::of_handle).is_none_or(|found| found == id)
    }

    /// Did this process make them? What was inherited over a fork is one lock with the parent's.
    pub(super) fn are_ours(&self) -> bool {
        self.process == process::id()
    }

    /// Does the file say that it is in WAL mode?
    pub(super) fn says_wal(&self) -> bool {
        let Some(mut file) = self.database.as_ref() else { return false };
        let mut versions = [0; WAL.len()];
        file.seek(SeekFrom::Start(VERSIONS)).is_ok() && file.read_exact(&mut versions).is_ok() && versions == WAL
    }

    /// Waits until no other process of this library's opens or tidies up the file. `None`: not in time.
    pub(super) fn opening(&self, deadline: Deadline) -> Option<Turn<'_>> {
        let thread = self.opening.lock(deadline)?;
        self.alone(OPENING, Some(thread), || deadline.sleep(busy::POLL))
    }

    /// Waits for this thread's turn to write. `None`: not in time.
    pub(super) fn turn(&self, deadline: Deadline) -> Option<Turn<'_>> {
        let thread = self.writing.lock(deadline)?;
        let _next = self.alone(NEXT, None, || deadline.sleep(busy::POLL))?;
        self.alone(OUR_TURN, Some(thread), || deadline.sleep(busy::NEXT_WRITER_POLL))
    }

    fn alone<'a>(
        &'a self,
        range: ByteRange,
        thread: Option<OrderedGuard<'a, ()>>,
        wait: impl FnMut() -> bool,
    ) -> Option<Turn<'a>> {
        let database = self.database.as_ref();
        until_free(database, Operation::Exclude, range, wait)?;
        Some(Turn { database, range, _thread: thread })
    }

    /// Are the shared locks held?
    pub(super) fn are_shared(&self) -> bool {
        self.shared.get().is_some()
    }

    /// Takes the shared locks, before SQLite opens the `-wal`: for a file in WAL mode, by who is opening it. `None`: not
    /// in time, or the log is another file's.
    pub(super) fn share(&self, path: &Path, deadline: Deadline) -> Option<()> {
        // Only another program that closes the file last has it exclusively, for a moment.
        for range in [USING, SHARED] {
            until_free(self.database.as_ref(), Operation::Share, range, || deadline.sleep(busy::POLL))?;
        }
        let shm = self.database.as_ref().and_then(|database| shm::open_or_make(path, database));
        // SQLite will see our lock, and believe that the memory is in use: so what a crash has left there is ours to wipe.
        if lock(shm.as_ref(), Operation::Exclude, DEAD_MANS_SWITCH) == LockResult::Done
            && let Some(mut shm) = shm.as_ref()
        {
            // Not truncated: other code of some process may still have it mapped.
            let _ = shm.write_all(&[0; INDEX_HEADER]);
        }
        until_free(shm.as_ref(), Operation::Share, DEAD_MANS_SWITCH, || deadline.sleep(busy::POLL))?;
        if let (Some(database), Some(shm)) = (self.database.as_ref(), shm.as_ref()) {
            shm::claim(shm, database);
            if shm::is_anothers(shm, database) {
                return None;
            }
        }
        let _ = self.shared.set(shm);
        Some(())
    }

    /// The state of the database, as its readers see it. `None`: it is being changed just now, or there is no memory in
    /// which it could be seen.
    pub(super) fn state(&self) -> Option<State> {
        State::of(self.shared.get()?.as_ref()?)
    }

    /// Is the memory that this process has locked the one that the path names? There may be none.
    pub(super) fn have_memory(&self, shm: &Path) -> bool {
        let memory = self.shared.get().and_then(Option::as_ref);
        memory.is_none_or(|memory| FileId::of_handle(memory).is_none_or(|id| FileId::of(shm) == Some(id)))
    }

    /// Is this the only process of this library's that has the file open? For who is `opening`: none comes meanwhile.
    pub(super) fn are_alone(&self) -> bool {
        lock(self.database.as_ref(), Operation::Exclude, USING) != LockResult::Conflict
    }

    /// Can such locks be had here?
    pub(super) fn are_held(&self) -> bool {
        lock(self.database.as_ref(), Operation::Share, USING) == LockResult::Done
    }

    /// Removes an empty `-wal` and its `-shm`, if nobody at all has the file open: SQLite would, but for our locks. For who
    /// is `opening`, after its connections are closed.
    pub(super) fn remove_empty_log(&self, wal: &Path, shm: &Path) {
        let [database, memory] = [self.database.as_ref(), self.shared.get().and_then(Option::as_ref)];
        let alone = [(database, USING), (database, SHARED), (memory, DEAD_MANS_SWITCH)]
            .into_iter()
            .all(|(file, range)| lock(file, Operation::Exclude, range) == LockResult::Done);
        if alone && files::length(wal) == 0 {
            let _ = fs::remove_file(wal);
            let _ = fs::remove_file(shm);
        }
    }

    /// Does another process have the database open under another name, a hard link? Its log is beside that name, and
    /// neither of us would see what the other writes. For who is `opening`.
    #[cfg(target_os = "linux")]
    pub(super) fn serve_another_name(&self, shm: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let names = self.database.as_ref().and_then(|database| database.metadata().ok()).map_or(1, |file| file.nlink());
        names > 1
            && !self.are_alone()
            && open(shm)
                .is_none_or(|shm| lock(Some(&shm), Operation::Exclude, DEAD_MANS_SWITCH) != LockResult::Conflict)
    }

    /// Not to be told here.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn serve_another_name(&self, _: &Path) -> bool {
        false
    }

    /// Removes the `-wal` and `-shm` beside this file if somebody uses them for another one, which had this name before.
    /// SQLite would replay what stands there into this one, and share its memory with those who go on writing into the
    /// other. For another file they are in use if nobody has this one open, or if one of this library's says so. For who is
    /// `opening`.
    pub(super) fn part_from_stray_log(&self, wal: &Path, shm: &Path) {
        if fs::metadata(wal).is_err() {
            return;
        }
        let (Some(database), Some(shm_file)) = (self.database.as_ref(), open(shm)) else { return };
        // Whoever uses the file has locked it: so as long as this lock is held, no log is its own.
        let is_unused = lock(Some(database), Operation::Exclude, SHARED) == LockResult::Done;
        let is_used = || lock(Some(&shm_file), Operation::Exclude, DEAD_MANS_SWITCH) == LockResult::Conflict;
        if (is_unused && is_used()) || shm::is_anothers(&shm_file, database) {
            let _ = fs::remove_file(wal);
            let _ = fs::remove_file(shm);
        }
        if is_unused {
            lock(Some(database), Operation::Release, SHARED);
        }
    }
}

/// Runs `work` if nobody has the database at this path open in WAL mode, or opens it. Not for a file that connections of
/// this process are open to: closing the handle here drops their locks.
pub(super) fn if_unused(path: &Path, work: impl FnOnce()) {
    let guards = Guards::of(path);
    let opening = guards.opening(Deadline::now());
    if opening.is_some() && lock(guards.database.as_ref(), Operation::Exclude, SHARED) != LockResult::Conflict {
        work();
    }
}

/// The right to do what only one may do at a time. Ends with its owner.
pub(super) struct Turn<'a> {
    database: Option<&'a File>,
    range: ByteRange,
    _thread: Option<OrderedGuard<'a, ()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(self.database, Operation::Release, self.range);
    }
}

/// Tries for the lock as long as `wait` says, or until there is no such thing.
fn until_free(
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

fn open(path: &Path) -> Option<File> {
    // Nothing is written to it; but who excludes others needs a handle that could.
    File::options().read(true).write(true).open(path).ok()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    struct Files {
        _folder: TempDir,
        database: PathBuf,
        wal: PathBuf,
        shm: PathBuf,
    }

    /// As SQLite makes them in WAL mode, as far as the locks look at them.
    fn files() -> Files {
        let folder = tempfile::tempdir().unwrap();
        let [database, wal, shm] = ["database", "wal", "shm"].map(|name| folder.path().join(name));
        fs::write(&database, [2; 512]).unwrap();
        Files { _folder: folder, database, wal, shm }
    }

    fn shared(files: &Files) -> Guards {
        let guards = Guards::of(&files.database);
        guards.share(&files.shm, Deadline::now()).unwrap();
        guards
    }

    fn taken(path: &Path, range: ByteRange) -> bool {
        lock(open(path).as_ref(), Operation::Exclude, range) == LockResult::Conflict
    }

    /// Runs `work` as another thread, which holds no lock yet. In a debug build the lock order is asserted per thread.
    fn in_another_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    #[test]
    fn only_one_has_the_turn_and_closing_another_handle_does_not_end_it() {
        let files = files();
        let (one, other) = (Guards::of(&files.database), Guards::of(&files.database));
        let turn = one.turn(Deadline::now()).unwrap();
        drop(File::open(&files.database).unwrap());
        in_another_thread(|| {
            assert!(other.turn(Deadline::now()).is_none());
            assert!(one.turn(Deadline::now()).is_none(), "nor another thread with the same handle");
            assert!(other.opening(Deadline::now()).is_some(), "which is another lock");
        });
        drop(turn);
        assert!(other.turn(Deadline::now()).is_some());
    }

    #[test]
    fn who_waits_has_the_next_turn() {
        let files = files();
        let (one, other) = (Guards::of(&files.database), Guards::of(&files.database));
        let in_time = || Deadline::after(std::time::Duration::from_secs(20));
        let turn = one.turn(Deadline::now()).unwrap();
        std::thread::scope(|scope| {
            let (have_it, has_it) = std::sync::mpsc::channel();
            let (end, ends) = std::sync::mpsc::channel::<()>();
            let waiting = scope.spawn(move || {
                let turn = other.turn(in_time());
                have_it.send(turn.is_some()).unwrap();
                ends.recv().unwrap_err();
                drop(turn);
            });
            let deadline = in_time();
            while !taken(&files.database, NEXT) && deadline.sleep(busy::POLL) {}
            drop(turn);
            assert!(one.turn(Deadline::now()).is_none(), "it is the other's, whether that has looked yet or not");
            assert!(has_it.recv().unwrap());
            drop(end);
            waiting.join().unwrap();
        });
        assert!(one.turn(Deadline::now()).is_some());
    }

    #[test]
    fn what_is_shared_is_not_to_be_had_exclusively() {
        let files = files();
        let guards = shared(&files);
        for _ in 0..2 {
            assert!(taken(&files.database, SHARED) && taken(&files.shm, DEAD_MANS_SWITCH));
        }
        drop(guards);
        assert!(!taken(&files.database, SHARED) && !taken(&files.shm, DEAD_MANS_SWITCH));
    }

    #[test]
    fn an_empty_log_goes_with_the_last_who_has_the_file_open() {
        let files = files();
        let are_there = || (files.wal.exists(), files.shm.exists());
        let (one, other) = (shared(&files), shared(&files));
        fs::write(&files.wal, "").unwrap();
        one.remove_empty_log(&files.wal, &files.shm);
        assert_eq!(are_there(), (true, true), "another has it open");
        drop(other);
        fs::write(&files.wal, "saved").unwrap();
        one.remove_empty_log(&files.wal, &files.shm);
        assert_eq!(are_there(), (true, true), "it is not empty");
        fs::write(&files.wal, "").unwrap();
        one.remove_empty_log(&files.wal, &files.shm);
        assert_eq!(are_there(), (false, false));
    }

    #[test]
    fn who_shares_knows_whether_others_do() {
        let files = files();
        let one = shared(&files);
        let other = shared(&files);
        assert!(!one.are_alone());
        drop(other);
        assert!(one.are_alone());
    }

    #[test]
    fn only_the_first_wipes_the_memory_that_a_crash_has_left() {
        let files = files();
        let begin = |with| fs::write(&files.shm, [with; 200]).unwrap();
        let is_wiped = || fs::read(&files.shm).unwrap().starts_with(&[0; INDEX_HEADER]);
        begin(7);
        let _one = shared(&files);
        assert!(is_wiped());
        begin(7);
        let _other = shared(&files);
        assert!(!is_wiped());
    }

    #[test]
    fn the_memory_is_for_whoever_may_use_the_database_and_never_a_link() {
        use std::os::unix::fs::PermissionsExt;
        let files = files();
        fs::set_permissions(&files.database, fs::Permissions::from_mode(0o640)).unwrap();
        drop(shared(&files));
        assert_eq!(fs::metadata(&files.shm).unwrap().permissions().mode() & 0o777, 0o640);
        fs::remove_file(&files.shm).unwrap();
        fs::write(&files.wal, "somebody's").unwrap();
        std::os::unix::fs::symlink(&files.wal, &files.shm).unwrap();
        drop(shared(&files));
        assert_eq!(fs::read(&files.wal).unwrap(), b"somebody's");
    }

    #[test]
    fn a_file_says_itself_whether_it_is_in_wal_mode() {
        let files = files();
        assert!(Guards::of(&files.database).says_wal());
        for other in [&b""[..], &[1; 512], &[2; 19]] {
            fs::write(&files.database, other).unwrap();
            assert!(!Guards::of(&files.database).says_wal());
        }
        assert!(!Guards::of(&files.wal).says_wal(), "it is not there");
    }

    #[test]
    fn only_a_log_that_is_used_for_another_file_is_parted_from() {
        let files = files();
        let part = |database: &Path| Guards::of(database).part_from_stray_log(&files.wal, &files.shm);
        for file in [&files.wal, &files.shm] {
            fs::write(file, "").unwrap();
        }
        part(&files.database);
        assert!(files.wal.exists() && files.shm.exists(), "nobody uses it: it may be what a crash has left");
        let own = shared(&files);
        part(&files.database);
        assert!(files.wal.exists() && files.shm.exists(), "it is this file's");
        drop(own);
        let other = files.database.with_file_name("other");
        fs::write(&other, [2; 512]).unwrap();
        let others = Guards::of(&other);
        others.share(&files.shm, Deadline::now()).unwrap();
        part(&files.database);
        assert!(!files.wal.exists() && !files.shm.exists());
        drop(others);

        // Though somebody has it open: with a log that is gone, for the path named another file meanwhile.
        let open = Guards::of(&files.database);
        open.share(&files.database.with_file_name("its own shm"), Deadline::now()).unwrap();
        for file in [&files.wal, &files.shm] {
            fs::write(file, "").unwrap();
        }
        let others = Guards::of(&other);
        others.share(&files.shm, Deadline::now()).unwrap();
        assert!(Guards::of(&files.database).share(&files.shm, Deadline::now()).is_none());
        part(&files.database);
        assert!(!files.wal.exists() && !files.shm.exists());
    }

    #[test]
    fn a_hard_link_to_a_file_in_use_has_another_log() {
        let files = files();
        let link = files.database.with_file_name("link");
        fs::hard_link(&files.database, &link).unwrap();
        let serves_another = |database: &Path, shm: &Path| Guards::of(database).serve_another_name(shm);
        assert!(!serves_another(&link, &files.wal), "nobody uses it");
        let _one = shared(&files);
        assert!(serves_another(&link, &files.wal));
        assert!(!serves_another(&files.database, &files.shm));
        fs::remove_file(&link).unwrap();
        assert!(!serves_another(&files.database, &files.wal), "it has one name");
    }

    #[test]
    fn a_file_is_unused_if_nobody_has_it_open_or_opens_it() {
        let files = files();
        let is_unused = || {
            in_another_thread(|| {
                let mut ran = false;
                if_unused(&files.database, || ran = true);
                ran
            })
        };
        assert!(is_unused());
        let guards = Guards::of(&files.database);
        let opening = guards.opening(Deadline::now());
        assert!(!is_unused());
        drop(opening);
        assert!(is_unused());
        guards.share(&files.shm, Deadline::now()).unwrap();
        assert!(!is_unused());
    }
}
