//! The `-shm`: the memory that all connections to a file in WAL mode share. Creating it as SQLite does, the version of
//! the database that it holds, and which database file the WAL belongs to.
//!
//! The layout is that of <https://www.sqlite.org/walformat.html>, section 2.1 ("The WAL-Index Header"), checked against
//! `WalIndexHdr` and `WalCkptInfo` in `src/wal.c` of SQLite 3.53.2. A test in [`super::file_locks`] fails with another
//! version.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use crate::store::deadline::Deadline;
use crate::store::file_lock::{self, ByteRange, LockResult, Operation};
use crate::store::files::{self, FileId, open_handle};
use crate::store::lock_order::{Ordered, Rank};

/// The length of the wal-index header, in bytes: two copies of `WalIndexHdr` and one `WalCkptInfo`. It says which part
/// of the WAL is valid. If it is zero, SQLite rebuilds it from the WAL.
pub(super) const INDEX_HEADER_LENGTH: usize = 136;

/// The length of one `WalIndexHdr`, in bytes. A writer changes one copy after the other.
const COPY_LENGTH: usize = 48;
/// `isInit` of `WalIndexHdr`.
#[cfg(any(unix, test))]
const IS_INIT_OFFSET: usize = 12;

/// A `WalIndexHdr`. It changes with each commit of any program. SQLite itself compares it to decide whether its page
/// cache is still valid (`walIndexTryHdr` in `src/wal.c`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct DatabaseVersion([u8; COPY_LENGTH]);

impl DatabaseVersion {
    /// Reads the version that the readers of the database see. `None`: it is changing just now.
    #[cfg(unix)]
    pub(super) fn read(shm: &File) -> Option<Self> {
        use std::os::unix::fs::FileExt;
        let mut copies = [0; 2 * COPY_LENGTH];
        shm.read_exact_at(&mut copies, 0).ok()?;
        let (one, other) = copies.split_at(COPY_LENGTH);
        if one == other && one[IS_INIT_OFFSET] == 1 { one.try_into().ok().map(Self) } else { None }
    }

    /// Not available here.
    #[cfg(not(unix))]
    pub(super) fn read(_: &File) -> Option<Self> {
        None
    }
}

/// `UNIX_SHM_DMS` of `src/os_unix.c`, the "dead man's switch". While it is locked, SQLite does not truncate the `-shm`.
pub(super) const DEAD_MANS_SWITCH: ByteRange = (128, 1);

/// A handle of a `-shm`. It is not closed while other code of this process may have the file open.
///
/// Other code of this process, such as Python's own `sqlite3`, may have the file open, too. Its lock on the dead man's
/// switch is a POSIX lock. This process loses it as soon as our SQLite, or this library, closes any handle of the file
/// ([`super::file_locks`]). Then the next SQLite of another process would truncate the memory that `sqlite3` still
/// reads here: a bus error. So a handle that is no longer needed is kept until the file is deleted: other code could
/// open the file at the moment in which it is closed. If other code has the file open already, the switch and the owner
/// lock ([`lock_owner`]) stay locked, too. [`MAX_KEPT`] limits the number of such handles.
pub(super) struct ShmHandle {
    file: Arc<File>,
    process: u32,
    /// The handle was kept, and has had the dead man's switch locked since then.
    pub(super) was_kept: bool,
}

/// A handle that this library has open.
struct Open {
    file: Arc<File>,
    id: Option<FileId>,
    process: u32,
    is_used: bool,
    /// Kept with the dead man's switch locked.
    keeps_switch: bool,
}

static HANDLES: Ordered<Vec<Open>> = Ordered::new(Rank::ShmHandles, Vec::new());

/// How long a thread waits for [`HANDLES`], which is held for a few system calls.
const HANDLES_TIMEOUT: Duration = Duration::from_secs(1);

impl ShmHandle {
    fn new(file: File) -> Self {
        let (id, process, file) = (FileId::of_handle(&file), process::id(), Arc::new(file));
        if let Some(mut handles) = HANDLES.lock(Deadline::after(HANDLES_TIMEOUT)) {
            handles.push(Open { file: Arc::clone(&file), id, process, is_used: true, keeps_switch: false });
        }
        Self { file, process, was_kept: false }
    }

    /// Opens the `-shm`, or takes a handle of it that was kept.
    pub(super) fn open(shm: &Path) -> Option<Self> {
        Self::take_kept(shm).or_else(|| open_handle(shm).ok().map(Self::new))
    }

    /// Opens the `-shm`, or creates it as SQLite does (`unixOpenSharedMemory` in `src/os_unix.c`): with the owner and
    /// permissions of the database, and never through a symbolic link.
    #[cfg(target_os = "linux")]
    pub(super) fn open_or_create(shm: &Path, database: &File) -> io::Result<Self> {
        use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};

        if !shm.is_symlink()
            && let Some(kept) = Self::take_kept(shm)
        {
            return Ok(kept);
        }
        let mut options = File::options();
        options.read(true).write(true).mode(files::PRIVATE_MODE).custom_flags(nix::libc::O_NOFOLLOW);
        match options.open(shm) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.map(Self::new),
        }
        let database = database.metadata()?;
        let created = options.create_new(true).open(shm)?;
        let _ = created.set_permissions(database.permissions());
        let _ = fchown(&created, Some(database.uid()), Some(database.gid()));
        Ok(Self::new(created))
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn open_or_create(_: &Path, _: &File) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The open file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn take_kept(shm: &Path) -> Option<Self> {
        let wanted = FileId::of(shm)?;
        let mut handles = HANDLES.lock(Deadline::after(HANDLES_TIMEOUT))?;
        let is_wanted = |open: &&mut Open| !open.is_used && open.process == process::id() && open.id == Some(wanted);
        let open = handles.iter_mut().find(is_wanted)?;
        open.is_used = true;
        Some(Self { file: Arc::clone(&open.file), process: open.process, was_kept: open.keeps_switch })
    }

    /// Does other code of this process have the file open?
    pub(super) fn is_open_elsewhere(&self) -> bool {
        let handles = HANDLES.lock(Deadline::after(HANDLES_TIMEOUT));
        handles.is_some_and(|handles| is_open_elsewhere(&self.file, &handles))
    }
}

/// How many handles are kept. More of them would use up the descriptors of a program that opens and closes many files
/// which other processes have open.
const MAX_KEPT: usize = 32;

/// Closes the handles that no code of this process needs.
pub(super) fn close_unneeded(deadline: Deadline) {
    if let Some(mut handles) = HANDLES.lock(deadline) {
        keep_at_most(&mut handles, 0);
    }
}

/// Closes the handles of deleted files, and the oldest ones that are neither in use nor open elsewhere, until `count`
/// of them are left. Closing a handle releases its locks.
fn keep_at_most(handles: &mut Vec<Open>, count: usize) {
    handles.retain(|open| open.is_used || !files::is_deleted(&open.file));
    let kept = handles.iter().filter(|open| !open.is_used).count();
    for _ in count..kept {
        let is_unneeded = |open: &Open| !open.is_used && !is_open_elsewhere(&open.file, handles.as_slice());
        let Some(oldest) = handles.iter().position(is_unneeded) else { return };
        handles.remove(oldest);
    }
}

/// Closes the handles that this process has inherited from its parent. It has no locks yet that this could drop.
pub(super) fn close_inherited() {
    if let Some(mut handles) = HANDLES.try_lock() {
        handles.retain(|open| open.process == process::id());
    }
}

impl Drop for ShmHandle {
    fn drop(&mut self) {
        let Some(mut handles) = HANDLES.lock(Deadline::after(HANDLES_TIMEOUT)) else { return };
        if self.process != process::id() {
            // The parent process works with this handle. It is closed after the fork (`close_inherited`).
            return;
        }
        let keeps_switch = is_open_elsewhere(&self.file, &handles)
            && file_lock::lock(Some(&self.file), Operation::Share, DEAD_MANS_SWITCH) == LockResult::Done;
        if !keeps_switch {
            file_lock::lock(Some(&self.file), Operation::Release, WHOLE_FILE);
        }
        for open in handles.iter_mut().filter(|open| Arc::ptr_eq(&open.file, &self.file)) {
            (open.is_used, open.keeps_switch) = (false, keeps_switch);
        }
        keep_at_most(&mut handles, MAX_KEPT);
    }
}

/// A length of zero means "to the end of the file" (`fcntl(2)`).
const WHOLE_FILE: ByteRange = (0, 0);

/// Does this process have the file open with a handle that is not one of `ours`?
#[cfg(target_os = "linux")]
fn is_open_elsewhere(file: &File, ours: &[Open]) -> bool {
    use std::os::fd::AsRawFd;

    let (Some(id), Ok(handles)) = (FileId::of_handle(file), std::fs::read_dir("/proc/self/fd")) else { return false };
    let ours: Vec<_> = ours.iter().map(|open| open.file.as_raw_fd().to_string()).collect();
    handles
        .flatten()
        .filter(|handle| handle.file_name().to_str().is_some_and(|number| !ours.iter().any(|our| our == number)))
        .any(|handle| FileId::of(&handle.path()) == Some(id))
}

#[cfg(not(target_os = "linux"))]
fn is_open_elsewhere(_: &File, _: &[Open]) -> bool {
    false
}

/// Bytes far behind all that SQLite uses in the `-shm`. Each stands for the database files that the WAL may belong to:
/// the byte of a file follows from its inode number.
#[cfg(target_os = "linux")]
const OWNERS: ByteRange = (1 << 32, 1 << 32);

/// Acquires the owner lock: while this handle is open, the WAL belongs to this database.
#[cfg(target_os = "linux")]
pub(super) fn lock_owner(shm: &File, database: &File) {
    file_lock::lock(Some(shm), Operation::Share, (owner_byte(database), 1));
}

/// Does a process of this library use the WAL for another database than this one?
#[cfg(target_os = "linux")]
pub(super) fn has_another_owner(shm: &File, database: &File) -> bool {
    let (byte, end) = (owner_byte(database), OWNERS.0 + OWNERS.1);
    // From one byte before the owners, because a length of zero would mean "to the end of the file" (fcntl(2)).
    let others = [(OWNERS.0 - 1, byte - OWNERS.0 + 1), (byte + 1, end - byte)];
    others.into_iter().any(|range| file_lock::is_locked(shm, range))
}

/// Does another program use the WAL for another database than this one? Its SQLite has the dead man's switch locked,
/// but its process does not have this database open. If that cannot be told, the answer is no.
///
/// A lock on the database itself tells nothing. The process has lost it if any of its code has closed the database, for
/// example after copying the file.
#[cfg(target_os = "linux")]
pub(super) fn is_used_by_other_program(shm: &File, database: &File) -> bool {
    let (Some(process), Some(id)) = (file_lock::posix_holder(shm, DEAD_MANS_SWITCH), FileId::of_handle(database))
    else {
        return false;
    };
    let (Ok(handles), Some(shm)) = (std::fs::read_dir(format!("/proc/{process}/fd")), FileId::of_handle(shm)) else {
        return false;
    };
    let open: Vec<_> = handles.flatten().filter_map(|handle| FileId::of(&handle.path())).collect();
    shows_another_database(&open, shm, id)
}

/// Do the open files of a process that has locked `shm` show that it does not use `database`?
///
/// Its list must have the `-shm`, or it tells nothing: the list of a process that is ending, or whose main thread has
/// ended, is empty.
#[cfg(target_os = "linux")]
fn shows_another_database(open: &[FileId], shm: FileId, database: FileId) -> bool {
    open.contains(&shm) && !open.contains(&database)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_used_by_other_program(_: &File, _: &File) -> bool {
    false
}

#[cfg(target_os = "linux")]
fn owner_byte(database: &File) -> i64 {
    use std::os::unix::fs::MetadataExt;
    let number = database.metadata().map_or(0, |file| file.ino());
    OWNERS.0 + i64::try_from(number % OWNERS.1.unsigned_abs()).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn lock_owner(_: &File, _: &File) {}

#[cfg(not(target_os = "linux"))]
pub(super) fn has_another_owner(_: &File, _: &File) -> bool {
    false
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_number_of_kept_handles_is_limited() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..MAX_KEPT + 9 {
            let path = folder.path().join(format!("{number}-shm"));
            fs::write(&path, "").unwrap();
            drop(ShmHandle::open(&path));
        }
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let names = open.filter_map(|handle| fs::read_link(handle.path()).ok());
        let kept = names.filter(|path| path.starts_with(folder.path())).count();
        // The last one is kept. Other tests of this process have handles, too.
        assert!((1..=MAX_KEPT).contains(&kept), "{kept}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_a_list_of_open_files_that_has_the_shm_shows_another_database() {
        let folder = tempfile::tempdir().unwrap();
        let [shm, database, other] = ["shm", "database", "other"].map(|name| {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            FileId::of(&path).unwrap()
        });
        let table: [(&[FileId], bool); 6] = [
            (&[shm, other], true),
            (&[shm], true),
            (&[shm, database], false),
            (&[database], false),
            (&[other], false),
            (&[], false),
        ];
        for (open, expected) in table {
            assert_eq!(shows_another_database(open, shm, database), expected, "{open:?}");
        }
    }

    #[test]
    fn a_version_is_valid_if_both_copies_are_equal_and_initialized() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shm");
        let version = |first: u8, is_init: u8, second: u8| {
            let copy = |change: u8| {
                let mut copy = [7; COPY_LENGTH];
                (copy[8], copy[IS_INIT_OFFSET]) = (change, is_init);
                copy
            };
            fs::write(&path, [copy(first), copy(second)].concat()).unwrap();
            DatabaseVersion::read(&File::open(&path).unwrap())
        };
        assert!(version(1, 1, 1).is_some() && version(1, 1, 1) == version(1, 1, 1));
        assert!(version(1, 1, 1) != version(2, 1, 2));
        assert!(version(1, 1, 2).is_none(), "it is changing");
        assert!(version(1, 0, 1).is_none(), "it was never written");
        fs::write(&path, [1; COPY_LENGTH]).unwrap();
        assert!(DatabaseVersion::read(&File::open(&path).unwrap()).is_none(), "it is too short");
    }
}
