//! The `-shm`: the memory that all connections to a file in WAL mode share. Creating it as SQLite does, the version of
//! the database that it holds, and which database file the WAL belongs to.
//!
//! The layout is that of <https://www.sqlite.org/walformat.html>, section 2.1 ("The WAL-Index Header"), checked against
//! `WalIndexHdr` and `WalCkptInfo` in `src/wal.c` of SQLite 3.53.2. A test in [`super::file_locks`] fails with another
//! version.

use std::fs::File;
use std::mem;
use std::path::Path;
use std::process;
use std::time::Duration;

use crate::store::deadline::Deadline;
use crate::store::file_lock::{self, ByteRange, Operation};
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

/// A handle of a `-shm`. It is not closed while another program can still open the `-shm`.
///
/// Closing any handle drops all POSIX locks of this process on the file ([`super::file_locks`]). Python's own `sqlite3`
/// has one such lock, the dead man's switch. Without it, the next SQLite of another process truncates the memory that
/// `sqlite3` still reads here: a bus error. So a handle that is no longer needed is kept for the next use of the file,
/// until the file is deleted.
pub(super) struct ShmHandle {
    /// Taken away by the drop alone.
    file: Option<File>,
    process: u32,
}

/// The handles that are not in use, which hold no locks, and the process that opened each.
static UNUSED: Ordered<Vec<(u32, FileId, File)>> = Ordered::new(Rank::UnusedHandles, Vec::new());

/// How long a thread waits for [`UNUSED`], which is held for a few system calls.
const UNUSED_TIMEOUT: Duration = Duration::from_secs(1);

impl ShmHandle {
    fn new(file: File) -> Self {
        Self { file: Some(file), process: process::id() }
    }

    /// Opens the `-shm`, or takes an unused handle of it.
    pub(super) fn open(shm: &Path) -> Option<Self> {
        Self::take_unused(shm).or_else(|| open_handle(shm)).map(Self::new)
    }

    /// Opens the `-shm`, or creates it as SQLite does (`unixOpenSharedMemory` in `src/os_unix.c`): with the owner and
    /// permissions of the database, and never through a symbolic link.
    #[cfg(target_os = "linux")]
    pub(super) fn open_or_create(shm: &Path, database: &File) -> Option<Self> {
        use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};

        if !shm.is_symlink()
            && let Some(unused) = Self::take_unused(shm)
        {
            return Some(Self::new(unused));
        }
        let mut options = File::options();
        options.read(true).write(true).mode(files::PRIVATE_MODE).custom_flags(nix::libc::O_NOFOLLOW);
        match options.open(shm) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            opened => return opened.ok().map(Self::new),
        }
        let database = database.metadata().ok()?;
        let created = options.create_new(true).open(shm).ok()?;
        let _ = created.set_permissions(database.permissions());
        let _ = fchown(&created, Some(database.uid()), Some(database.gid()));
        Some(Self::new(created))
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn open_or_create(_: &Path, _: &File) -> Option<Self> {
        None
    }

    /// The open file.
    pub(super) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    fn take_unused(shm: &Path) -> Option<File> {
        let wanted = FileId::of(shm)?;
        let mut unused = UNUSED.lock(Deadline::after(UNUSED_TIMEOUT))?;
        let at = unused.iter().position(|(process, id, _)| (*process, *id) == (process::id(), wanted))?;
        Some(unused.swap_remove(at).2)
    }
}

impl Drop for ShmHandle {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        if self.process != process::id() {
            // The parent process works with the locks of this handle.
            return;
        }
        file_lock::lock(Some(&file), Operation::Release, WHOLE_FILE);
        let Some(mut unused) = UNUSED.lock(Deadline::after(UNUSED_TIMEOUT)) else { return mem::forget(file) };
        if let Some(id) = FileId::of_handle(&file) {
            unused.push((self.process, id, file));
        }
        unused.retain(|(_, _, file)| !files::is_deleted(file));
    }
}

/// A length of zero means "to the end of the file" (`fcntl(2)`).
const WHOLE_FILE: ByteRange = (0, 0);

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
