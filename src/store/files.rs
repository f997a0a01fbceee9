//! What this library asks of files: their identity, permissions and length, and the errors of paths.
//!
//! A new database, backup or export gets the mode [`PRIVATE_MODE`] when it is created, here or as a temporary file
//! ([`super::atomic_write`]). A file beside a database gets the mode of the database: the backend sets it for the
//! `-shm` (`shared_memory.rs`), and the database library sets it for the `-wal`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::error::{Code, Error, Result};

/// The mode 0600 of a new file: only the owner can read and write it.
pub const PRIVATE_MODE: u32 = 0o600;

/// Identifies a file, whatever its name is. A number is not used again while the file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId(u64, u64);

impl FileId {
    /// The file that `path` names now, if there is one.
    #[cfg(unix)]
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).ok().map(|file| Self(file.dev(), file.ino()))
    }

    /// The file that a handle is open to.
    #[cfg(unix)]
    #[must_use]
    pub fn of_handle(file: &File) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        file.metadata().ok().map(|file| Self(file.dev(), file.ino()))
    }

    /// Not available here.
    #[cfg(not(unix))]
    #[must_use]
    pub fn of_handle(_: &File) -> Option<Self> {
        None
    }

    /// On Windows an open file cannot be deleted, renamed or replaced. So its path identifies it.
    #[cfg(not(unix))]
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        fs::canonicalize(path).ok()?.hash(&mut hasher);
        Some(Self(0, hasher.finish()))
    }
}

/// A version of a file. It differs after each change that a moment of the file system's clock has passed since the one
/// before (`inode(7)`, "Last modification timestamp").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    id: Option<FileId>,
    length: u64,
    modified: Option<SystemTime>,
}

impl FileVersion {
    /// The version of the file that `path` names now, if there is one.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self { id: FileId::of(path), length: file.len(), modified: file.modified().ok() })
    }

    /// Was the file changed so short a time before `now` that another change could have the same time? Some file
    /// systems count in steps of two seconds.
    #[must_use]
    pub fn is_young(&self, now: SystemTime) -> bool {
        const STEP: Duration = Duration::from_secs(3);
        self.modified.is_none_or(|modified| now.duration_since(modified).is_ok_and(|age| age < STEP))
    }
}

/// Can this user not write the file at `path`, or can nobody, because the medium is read-only?
#[must_use]
pub fn is_read_only(path: &Path) -> bool {
    is_refused(path, Permission::Write)
}

/// Does the file at `path` exist, and can this user not read it?
#[must_use]
pub fn is_unreadable(path: &Path) -> bool {
    is_refused(path, Permission::Read)
}

#[derive(Clone, Copy)]
enum Permission {
    Read,
    Write,
}

/// Asks the system (`access(2)`), because permission bits do not bind root, and a mount can be read-only.
#[cfg(target_os = "linux")]
fn is_refused(path: &Path, permission: Permission) -> bool {
    use nix::errno::Errno;
    use nix::fcntl::{AT_FDCWD, AtFlags};
    use nix::unistd::{AccessFlags, faccessat};
    let wanted = match permission {
        Permission::Read => AccessFlags::R_OK,
        Permission::Write => AccessFlags::W_OK,
    };
    let found = faccessat(AT_FDCWD, path, wanted, AtFlags::AT_EACCESS);
    matches!(found, Err(Errno::EACCES | Errno::EPERM | Errno::EROFS))
}

/// Not known here.
#[cfg(not(target_os = "linux"))]
fn is_refused(_: &Path, _: Permission) -> bool {
    false
}

/// Do both paths name the same file that exists?
#[must_use]
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    FileId::of(one).is_some_and(|id| FileId::of(other) == Some(id))
}

/// Opens a handle that can be locked. An exclusive lock needs a handle that could write; nothing is written.
pub fn open_handle(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// Tries whether this process can open `count` more handles. Returns the error of the system if it cannot.
///
/// For errors of libraries that do not say why a file cannot be opened. The handles cannot read or lock, and closing
/// them drops no lock (`filp_close` of Linux).
#[cfg(target_os = "linux")]
#[must_use]
pub fn out_of_handles(count: usize) -> Option<io::Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let open = |_| File::options().read(true).custom_flags(nix::libc::O_PATH).open("/");
    (0..count).map(open).collect::<io::Result<Vec<File>>>().err().filter(is_out_of_handles)
}

/// Not known here.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn out_of_handles(_: usize) -> Option<io::Error> {
    None
}

/// Does the error say that this process, or the system, has too many open files?
#[must_use]
pub fn is_out_of_handles(error: &io::Error) -> bool {
    Error::from_io(Path::new(""), error).code() == Code::TooManyOpenFiles
}

/// Has the open file no name any more?
#[cfg(unix)]
#[must_use]
pub fn is_deleted(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|file| file.nlink() == 0)
}

/// On Windows an open file cannot be deleted.
#[cfg(not(unix))]
#[must_use]
pub fn is_deleted(_: &File) -> bool {
    false
}

/// The length of the file in bytes, or 0 if there is none.
#[must_use]
pub fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

/// Can anybody but the owner read or write the file?
#[cfg(unix)]
#[must_use]
pub fn is_exposed(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
}

/// Permission bits do not say who can read a file here.
#[cfg(not(unix))]
#[must_use]
pub fn is_exposed(_: &Path) -> bool {
    false
}

/// Fails unless `path` names a regular file. A missing file is [`Code::MissingFile`].
///
/// Opening a pipe could block for ever, and a device may have no end. So this looks without opening.
pub fn require_regular_file(path: &Path) -> Result<fs::Metadata> {
    let file = fs::metadata(path).map_err(|error| Error::from_io(path, &error))?;
    if file.is_dir() {
        Err(Error::at(Code::IsFolder, path))
    } else if file.is_file() {
        Ok(file)
    } else {
        Err(Error::at(Code::NotARegularFile, path))
    }
}

/// Fails unless a file can be written at `path`: nothing is there yet, or a regular file.
pub fn require_writable_target(path: &Path) -> Result<()> {
    match require_regular_file(path) {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Code::MissingFile => Ok(()),
        Err(error) => Err(error),
    }
}

/// Creates an empty private file. Fails if there is a file already.
pub fn create_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, PRIVATE_MODE);
    options.open(path)?;
    sync_folder(path)
}

/// Makes the entry of `path` in its folder durable (`fsync(2)`, notes: a sync of the file alone does not).
pub fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix)
        && let Some(folder) = path.parent()
    {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_or_nothing_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        assert_eq!(require_regular_file(&file).unwrap_err().code(), Code::MissingFile);
        require_writable_target(&file).unwrap();
        fs::write(&file, "").unwrap();
        require_writable_target(&file).unwrap();
        assert_eq!(require_writable_target(folder.path()).unwrap_err().code(), Code::IsFolder);
        #[cfg(unix)]
        assert_eq!(require_writable_target(Path::new("/dev/null")).unwrap_err().code(), Code::NotARegularFile);
    }

    #[test]
    fn a_version_is_young_for_three_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        let version = FileVersion::of(&path).unwrap();
        let changed = version.modified.unwrap();
        let table = [(0, true), (2_999, true), (3_000, false), (60_000, false)];
        for (milliseconds, expected) in table {
            assert_eq!(version.is_young(changed + Duration::from_millis(milliseconds)), expected, "{milliseconds}");
        }
        assert!(!version.is_young(changed - Duration::from_mins(1)), "by a clock that was set back");
    }

    // Elsewhere a file is identified by its path.
    #[cfg(unix)]
    #[test]
    fn a_replaced_file_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        create_private(&path).unwrap();
        create_private(&other).unwrap();
        let before = FileId::of(&path);
        assert!(!is_same_file(&path, &other) && is_same_file(&path, &path));
        fs::rename(&other, &path).unwrap();
        assert_ne!(before, FileId::of(&path));
        assert!(FileId::of(&other).is_none() && !is_same_file(&other, &other));
    }
}
