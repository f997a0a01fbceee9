//! Files: private from the first byte, written atomically, and the errors of paths.
//!
//! A new database, backup or export gets its mode, 0600, here. A file beside a database gets the mode of the database:
//! the backend sets it for the `-shm` (`shared_memory.rs`), and the database library sets it for the `-wal`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process;
use std::time::{Duration, SystemTime};

use tempfile::TempPath;

use super::error::{Code, Error, Result};
use super::file_lock::{ByteRange, LockResult, Operation, lock};

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

    /// Was the file changed so short a time before `now` that another change could have the same time? Some file systems
    /// count in steps of two seconds.
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
#[must_use]
pub fn open_handle(path: &Path) -> Option<File> {
    File::options().read(true).write(true).open(path).ok()
}

/// Tries whether this process can open `count` more handles. Returns the error of the system if it cannot.
///
/// For errors of libraries that do not say why a file cannot be opened. The handles cannot read or lock, and closing them
/// drops no lock (`filp_close` of Linux).
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

/// What [`write_atomically`] does if there is a file already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Fail with [`Code::FileExists`].
    Keep,
    /// Replace it.
    Replace,
}

/// Writes a private file that appears under its name at once, complete and durable.
///
/// `fill` writes the contents into a temporary file in the same folder. It gets the path and an open handle. If it
/// fails, or if the process is killed, the target stays as it was.
pub fn write_atomically(
    target: &Path,
    existing: Existing,
    fill: impl FnOnce(&Path, &File) -> Result<()>,
) -> Result<()> {
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => Error::at(Code::MissingFolder, target),
        ErrorKind::AlreadyExists => Error::at(Code::FileExists, target),
        _ => Error::from_io(target, &error),
    };
    let temporary = TemporaryFile::beside(target).map_err(failed)?;
    fill(&temporary.path, &temporary.handle)?;
    temporary.handle.sync_all().map_err(failed)?;
    match existing {
        Existing::Replace => temporary.path.persist(target).map_err(|error| failed(error.error))?,
        Existing::Keep => {
            // Unlike a rename, a hard link never replaces a file that was made in the meantime.
            fs::hard_link(&temporary.path, target).map_err(failed)?;
            drop(temporary);
        }
    }
    sync_folder(target).map_err(failed)
}

/// A private file with a temporary name. It is removed when this is dropped. If the process is killed before, the next
/// [`remove_stale_temporary_files`] removes it.
pub struct TemporaryFile {
    path: TempPath,
    /// Locked while the file is in use. Dropped last, because closing it drops all POSIX locks on the file.
    handle: File,
}

/// The length of the longest name of a temporary file: with a process id of seven digits (`pid_max` in `proc(5)`).
pub const MAX_TEMPORARY_NAME_LENGTH: usize = TEMPORARY_PREFIX.len() + 7 + 1 + 6 + TEMPORARY_SUFFIX.len();

const TEMPORARY_PREFIX: &str = ".zoho-token-store-";
const TEMPORARY_SUFFIX: &str = ".draft";

/// The byte that is locked while a temporary file is in use. It lies far behind the contents, so that it does not get
/// in the way of a database that locks the file itself.
const IN_USE: ByteRange = (0x4000_0400, 1);

impl TemporaryFile {
    /// Makes a temporary file in the folder of `path`.
    pub fn beside(path: &Path) -> io::Result<Self> {
        remove_stale_temporary_files(path);
        let folder = path.parent().unwrap_or(path);
        // With the process id, because forked processes draw the same random names, one after the other.
        let prefix = format!("{TEMPORARY_PREFIX}{}-", process::id());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(TEMPORARY_SUFFIX);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(PRIVATE_MODE));
        loop {
            // The error of `tempfile` hides the number of the system's error.
            let new = builder.tempfile_in(folder).map_err(|error| out_of_handles(1).unwrap_or(error))?;
            let (handle, path) = new.into_parts();
            // Before the lock was acquired, another process may have removed the file as a stale one.
            if claim(&handle) != LockResult::Conflict && path.exists() {
                return Ok(Self { path, handle });
            }
        }
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn claim(file: &File) -> LockResult {
    lock(Some(file), Operation::Exclude, IN_USE)
}

/// Removes the temporary files that killed processes left in the folder of `path`, with all files whose names begin
/// with theirs. They may hold tokens.
pub fn remove_stale_temporary_files(path: &Path) {
    let Some(entries) = path.parent().and_then(|folder| fs::read_dir(folder).ok()) else { return };
    let entries: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry)))
        .filter(|(name, entry)| {
            // The name comes first: the type costs a system call on some file systems.
            name.starts_with(TEMPORARY_PREFIX) && entry.file_type().is_ok_and(|kind| kind.is_file())
        })
        .map(|(name, entry)| (name, entry.path()))
        .collect();
    for (name, path) in entries.iter().filter(|(name, _)| name.ends_with(TEMPORARY_SUFFIX)) {
        let Ok(handle) = OpenOptions::new().read(true).write(true).open(path) else { continue };
        if is_stale(path, &handle) {
            for (_, companion) in entries.iter().filter(|(other, _)| other.starts_with(name.as_str()) && other != name)
            {
                let _ = fs::remove_file(companion);
            }
            let _ = fs::remove_file(path);
        }
    }
}

/// Is the temporary file at `path`, which `handle` is open to, in no use any more? Then it stays locked until the handle
/// is closed.
fn is_stale(path: &Path, handle: &File) -> bool {
    // No process uses a file that this one can lock. Its owner may have removed it just now, and the path may already
    // name another file.
    claim(handle) == LockResult::Done && FileId::of_handle(handle).is_none_or(|id| FileId::of(path) == Some(id))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn write(target: &Path, existing: Existing, contents: &str) -> Result<()> {
        write_atomically(target, existing, |path, mut file| {
            assert!(!is_exposed(path) && path.parent() == target.parent());
            file.write_all(contents.as_bytes()).map_err(|error| Error::from_io(path, &error))
        })
    }

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_file_is_private_and_appears_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("new");
        write_atomically(&target, Existing::Keep, |_, mut file| {
            assert!(!target.exists());
            file.write_all(b"one").map_err(|error| Error::from_io(&target, &error))
        })
        .unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"one");
        assert!(!is_exposed(&target));
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn an_existing_file_is_kept_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        write(&target, Existing::Keep, "one").unwrap();
        assert_eq!(write(&target, Existing::Keep, "two").unwrap_err().code(), Code::FileExists);
        assert_eq!(fs::read(&target).unwrap(), b"one");
        write(&target, Existing::Replace, "two").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"two");
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        let failed = write_atomically(&target, Existing::Keep, |_, _| Err(Error::invalid_argument("made to fail")));
        assert_eq!(failed.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(entries(folder.path()), 0);
        let missing = folder.path().join("missing").join("file");
        assert_eq!(write(&missing, Existing::Keep, "").unwrap_err().code(), Code::MissingFolder);
    }

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

    #[cfg(target_os = "linux")]
    #[test]
    fn a_temporary_file_is_removed_when_its_process_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("backup.db");
        let kept = folder.path().join(".zoho-token-store-of-mine.db");
        fs::write(&kept, "").unwrap();
        let temporary = TemporaryFile::beside(&target).unwrap();
        remove_stale_temporary_files(&target);
        assert_eq!(entries(folder.path()), 2, "it is in use");
        let TemporaryFile { path: left, handle } = temporary;
        let left = left.keep().unwrap();
        let mut companion = left.clone().into_os_string();
        companion.push("-wal");
        fs::write(companion, "").unwrap();
        drop(handle);
        remove_stale_temporary_files(&target);
        assert_eq!((entries(folder.path()), kept.exists()), (1, true));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_temporary_file_is_not_stale_if_it_has_got_the_name_of_one_that_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("draft");
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let looked_at = open();
        assert!(is_stale(&path, &looked_at));
        fs::remove_file(&path).unwrap();
        assert!(!is_stale(&path, &looked_at), "it was removed");
        let of_another = open();
        assert_eq!(claim(&of_another), LockResult::Done);
        assert!(!is_stale(&path, &looked_at), "the path names another file");
        assert!(!is_stale(&path, &open()), "which is in use");
    }

    #[cfg(unix)]
    #[test]
    fn forked_processes_do_not_get_the_same_temporary_names() {
        let folder = tempfile::tempdir().unwrap();
        let temporary = TemporaryFile::beside(&folder.path().join("backup.db")).unwrap();
        let name = temporary.path().file_name().unwrap().to_str().unwrap();
        assert!(name.contains(&format!("-{}-", process::id())), "{name}");
        assert!(name.len() <= MAX_TEMPORARY_NAME_LENGTH && name.len() + 7 > MAX_TEMPORARY_NAME_LENGTH, "{name}");
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
