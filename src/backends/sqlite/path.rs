//! The path of a database file: creating the file, telling it from others, and the file system that it is on.
//!
//! Nothing here opens a file that SQLite may have open: closing the handle would drop SQLite's POSIX locks
//! (<https://www.sqlite.org/howtocorrupt.html>, section 2.2).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::store::atomic_write::{Existing, MAX_TEMPORARY_NAME_LENGTH, write_atomically};
use crate::store::error::{Code, Error, Result};
use crate::store::files::{self, FileId, create_private, length, out_of_handles, require_regular_file};

/// Keeps the inode number of a file from being reused, without opening the file for reading. Otherwise a file that is
/// deleted and made again often gets the same number.
#[cfg(target_os = "linux")]
pub(super) struct Pin(fs::File);

#[cfg(target_os = "linux")]
impl Pin {
    /// Pins the file that `path` names now.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        // Such a handle cannot read or lock, and closing it drops no lock (`filp_close` of Linux).
        fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_PATH).open(path).map(Self)
    }

    pub(super) fn id(&self, _: &Path) -> Option<FileId> {
        FileId::of_handle(&self.0)
    }
}

/// On macOS inode numbers are not reused. On Windows an open file cannot be deleted.
#[cfg(not(target_os = "linux"))]
pub(super) struct Pin;

#[cfg(not(target_os = "linux"))]
impl Pin {
    pub(super) fn new(_: &Path) -> io::Result<Self> {
        Ok(Self)
    }

    pub(super) fn id(&self, path: &Path) -> Option<FileId> {
        FileId::of(path)
    }
}

/// The path of a file that SQLite keeps beside the database.
pub(super) fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The longest path that SQLite opens, in bytes: `MAX_PATHNAME` of `src/os_unix.c`, less the room for "-journal" that
/// `sqlite3PagerOpen` of `src/pager.c` asks for (SQLite 3.53.2).
const MAX_PATH_LENGTH: usize = 512 - JOURNAL.len();
/// The longest name of most file systems, in bytes (`NAME_MAX` in `limits.h`).
const MAX_NAME_LENGTH: usize = 255;
/// The longest endings of the files that SQLite keeps beside a database, in WAL mode and without WAL.
const WAL: &str = "-wal";
const JOURNAL: &str = "-journal";

/// Says by how much SQLite's limits are exceeded by a path of `path` bytes with a name of `name` bytes. `None`: they
/// are not.
///
/// A file that exists may be in WAL mode, so only the name of its `-wal` counts. A new file is refused if the name of a
/// `-journal` is too long, and if its temporary name, in the same folder, makes the path too long.
fn excess((path, name): (usize, usize), is_new: bool) -> Option<String> {
    let over = |length: usize, max: usize| length.checked_sub(max).filter(|over| *over > 0);
    if let Some(over) = over(path, MAX_PATH_LENGTH) {
        return Some(format!("it has {path} bytes, {over} more than SQLite can open"));
    }
    let ending = if is_new { JOURNAL } else { WAL };
    if let Some(over) = over(name, MAX_NAME_LENGTH - ending.len()) {
        return Some(format!("its name has {name} bytes, {over} too many for the {ending} beside it"));
    }
    let over = over(path - name + MAX_TEMPORARY_NAME_LENGTH, MAX_PATH_LENGTH).filter(|_| is_new)?;
    Some(format!("its folder has {} bytes, {over} too many for a new file", path - name - 1))
}

/// Fails if SQLite cannot open `path`, which is absolute, because it is too long. `is_new`: a file is to be created
/// there.
#[cfg(unix)]
pub(super) fn require_short(path: &Path, is_new: bool) -> Result<()> {
    let length = |text: &std::ffi::OsStr| text.as_encoded_bytes().len();
    match excess((length(path.as_os_str()), path.file_name().map_or(0, length)), is_new) {
        Some(excess) => Err(Error::at(Code::PathTooLong, path).with(excess)),
        None => Ok(()),
    }
}

/// Windows has other limits, and reports them itself.
#[cfg(not(unix))]
pub(super) fn require_short(_: &Path, _: bool) -> Result<()> {
    Ok(())
}

/// The number of handles that SQLite needs for a connection: the database, its WAL, the `-shm` or a journal, and the
/// folder.
const HANDLES_OF_CONNECTION: usize = 4;

/// Why SQLite could not open the database at `path`, or a file beside it. SQLite says nothing but "cannot open".
/// `None`: something else, such as a missing permission on the folder.
pub(super) fn why_not_opened(path: &Path) -> Option<Error> {
    if let Err(error) = require_short(path, false) {
        return Some(error);
    }
    if let Some(error) = out_of_handles(HANDLES_OF_CONNECTION) {
        return Some(Error::from_io(path, &error));
    }
    // Opens nothing: closing a handle would drop SQLite's POSIX locks.
    match fs::metadata(path) {
        Err(error) => Some(Error::from_io(path, &error)),
        Ok(_) => files::is_unreadable(path).then(|| Error::at(Code::PermissionDenied, path)),
    }
}

/// The smallest page size of SQLite, and so the length of the shortest database, in bytes
/// (<https://www.sqlite.org/fileformat.html>, section 1.3.2).
pub(super) const MIN_PAGE_SIZE: u64 = 512;

/// Does the file end inside one of its pages? SQLite reads the missing bytes as zeros. While there is a WAL, the page
/// may be in the WAL.
pub(super) fn is_cut_short(path: &Path, page: u32, pages: u32) -> bool {
    let (length_of_file, page) = (length(path), u64::from(page.max(1)));
    !length_of_file.is_multiple_of(page)
        && length_of_file < u64::from(pages) * page
        && length(&beside(path, "-wal")) == 0
}

/// Is the length of the file a multiple of the smallest page size?
pub(super) fn is_of_whole_pages(path: &Path) -> bool {
    length(path).is_multiple_of(MIN_PAGE_SIZE)
}

/// Creates a database at `path` if there is none. `create` fills the new file, which appears under its name at once.
///
/// The file is not created in place: other code of this process does not see our locks, so it would take a journal that
/// SQLite writes there for one that a crash has left.
pub(super) fn ensure(path: &Path, create: impl Fn(&Path) -> Result<()>) -> Result<()> {
    if super::FORMAT.reserves(path) {
        return Err(Error::at(Code::ReservedName, path));
    }
    loop {
        match require_regular_file(path) {
            Err(error) if error.code() == Code::PathTooLong => {
                return Err(require_short(path, true).err().unwrap_or(error));
            }
            Ok(_) if require_short(path, false).is_err() => return require_short(path, false),
            // SQLite takes a file that is too short to be a database for an empty one, and writes over it.
            Ok(file) if (1..MIN_PAGE_SIZE).contains(&file.len()) => return Err(Error::at(Code::NotADatabase, path)),
            Ok(_) => return Ok(()),
            Err(error) if error.code() != Code::MissingFile => return Err(error),
            Err(_) => {}
        }
        require_short(path, true)?;
        if let Some((folder, name)) = path.parent().zip(path.file_name())
            && let Ok(folder) = folder.canonicalize()
        {
            require_short(&folder.join(name), true)?;
        }
        let mut is_created = true;
        let mut fill = |temporary: &Path| create(temporary).inspect_err(|_| is_created = false);
        let Err(error) = write_atomically(path, Existing::Keep, |temporary, _| fill(temporary)) else {
            return Ok(());
        };
        match error.code() {
            // Another process was faster, or there is a symbolic link to a file that does not exist.
            Code::FileExists => {
                if fs::symlink_metadata(path).is_ok_and(|link| link.is_symlink()) && !path.exists() {
                    return Err(Error::at(Code::BrokenLink, path));
                }
            }
            // A file system without hard links. Then the file starts empty.
            Code::IoError if is_created && create_private(path).is_ok() => return Ok(()),
            _ => return Err(error),
        }
    }
}

/// File systems that more than one machine can use: Linux's numbers for them (`statfs(2)` and the headers of the file
/// systems), and their names.
#[cfg(any(target_os = "linux", test))]
const NETWORK_FILE_SYSTEMS: [(u32, &str); 12] = [
    (0x0000_6969, "NFS"),
    (0x0000_517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x5346_414F, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x786F_4256, "a shared folder of VirtualBox"),
    // It can be anything: sshfs, s3fs, or a local disk.
    (0x6573_5546, "FUSE"),
];

/// The name of the file system with this number, if more than one machine can use it.
#[cfg(any(target_os = "linux", test))]
fn network_name(number: u32) -> Option<&'static str> {
    NETWORK_FILE_SYSTEMS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// The name of the file system that `path` is on, if more than one machine can use it. There SQLite's locks and shared
/// memory do not always reach every machine (<https://www.sqlite.org/useovernet.html>).
#[cfg(target_os = "linux")]
pub(super) fn network_file_system(path: &Path) -> Option<&'static str> {
    let found = nix::sys::statfs::statfs(path).ok()?;
    // The type of the number, and whether it is sign-extended, differ between platforms.
    network_name(u32::try_from(i128::from(found.filesystem_type().0) & 0xFFFF_FFFF).ok()?)
}

/// Not known here.
#[cfg(not(target_os = "linux"))]
pub(super) fn network_file_system(_: &Path) -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::files::is_exposed;

    #[test]
    fn a_new_database_is_private_and_complete_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.db");
        let create = |content: &'static str| {
            let path = &path;
            move |temporary: &Path| {
                assert!(!path.exists() && !is_exposed(temporary));
                fs::write(temporary, content).map_err(|error| Error::from_io(temporary, &error))
            }
        };
        ensure(&path, create("x".repeat(600).leak())).unwrap();
        ensure(&path, create("never used")).unwrap();
        assert!(!is_exposed(&path));
        assert_eq!(fs::metadata(&path).unwrap().len(), 600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_file_of_a_faster_process_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.db");
        let faster = |_: &Path| fs::write(&path, "x".repeat(600)).map_err(|error| Error::from_io(&path, &error));
        ensure(&path, faster).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_database_that_cannot_be_created_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.db");
        // Not a file system without hard links: SQLite could not write the database.
        let failed = ensure(&path, |_| Err(Error::at(Code::IoError, &path)));
        assert_eq!(failed.unwrap_err().code(), Code::IoError);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_path_is_refused_by_the_bytes_that_it_is_too_long() {
        // (length of the path, of its name), of an existing file, of a new file
        let table = [
            ((30, 9), None, None),
            ((504, 100), None, None),
            ((505, 100), Some("it has 505 bytes, 1 more than"), Some("it has 505 bytes, 1 more than")),
            ((4_000, 255), Some("it has 4000 bytes, 3496 more"), Some("it has 4000 bytes, 3496 more")),
            ((300, 247), None, None),
            ((300, 248), None, Some("its name has 248 bytes, 1 too many for the -journal")),
            ((300, 251), None, Some("its name has 251 bytes, 4 too many for the -journal")),
            ((300, 252), Some("252 bytes, 1 too many for the -wal"), Some("252 bytes, 5 too many for the -journal")),
            // The temporary name is longer than the name.
            ((466 + 4, 4), None, None),
            ((467 + 4, 4), None, Some("its folder has 466 bytes, 1 too many for a new file")),
            ((500, 4), None, Some("its folder has 495 bytes, 30 too many for a new file")),
        ];
        for (lengths, existing, new) in table {
            for (is_new, expected) in [(false, existing), (true, new)] {
                let found = excess(lengths, is_new);
                let is_expected = found.as_deref().zip(expected).is_some_and(|(found, part)| found.contains(part));
                assert!(is_expected || (found.is_none() && expected.is_none()), "{lengths:?} {is_new}: {found:?}");
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pinned_inode_number_is_not_reused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for _ in 0..3 {
            create_private(&path).unwrap();
            let pin = Pin::new(&path).unwrap();
            fs::remove_file(&path).unwrap();
            create_private(&path).unwrap();
            assert_ne!(pin.id(&path), FileId::of(&path));
            fs::remove_file(&path).unwrap();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn closing_a_pin_drops_no_lock_of_this_process() {
        use nix::fcntl::{FcntlArg, fcntl};
        use nix::libc;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        create_private(&path).unwrap();
        let open = || fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let whole = libc::flock { l_type: 1, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        let (one, other) = (open(), open());
        fcntl(&one, FcntlArg::F_SETLK(&whole)).unwrap();
        drop(Pin::new(&path).unwrap());
        assert!(fcntl(&other, FcntlArg::F_OFD_SETLK(&whole)).is_err());
        drop(open());
        assert!(fcntl(&other, FcntlArg::F_OFD_SETLK(&whole)).is_ok(), "closing any other handle drops it");
    }

    #[test]
    fn network_file_systems_are_known_by_their_numbers() {
        let [ext4, tmpfs, overlay, btrfs, xfs] = [0xEF53, 0x0102_1994, 0x794C_7630, 0x9123_683E, 0x5846_5342];
        for local in [ext4, tmpfs, overlay, btrfs, xfs] {
            assert_eq!(network_name(local), None);
        }
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(0xFF53_4D42), Some("CIFS"));
    }
}
