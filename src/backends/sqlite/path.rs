//! The database file at a path. Nothing here opens a file that SQLite may have open: closing the handle would drop SQLite's
//! POSIX locks (<https://www.sqlite.org/howtocorrupt.html>, section 2.2).

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::store::error::{Code, Error, Result};
use crate::store::files::{Existing, FileId, create_private, length, require_regular_file, write_atomically};

/// Keeps the inode number of a file from being reused, without opening the file for reading. Otherwise a file that is deleted
/// and made again often gets the same number.
#[cfg(target_os = "linux")]
pub(super) struct Pin(fs::File);

#[cfg(target_os = "linux")]
impl Pin {
    /// Pins the file that `path` names now.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        // Such a handle cannot read or lock, and closing it drops no lock (`filp_close` of Linux).
        OpenOptions::new().read(true).custom_flags(nix::libc::O_PATH).open(path).map(Self)
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

/// The smallest page size of SQLite, and so the length of the shortest database, in bytes
/// (<https://www.sqlite.org/fileformat.html>, section 1.3.2).
const MIN_PAGE_SIZE: u64 = 512;

/// Does the file end inside one of its pages? SQLite reads the missing bytes as zeros. While there is a WAL, the page may be
/// in the WAL.
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

/// Makes a database at `path` if there is none. `make` fills the new file, which appears under its name at once.
///
/// The file is not made in place: other code of this process cannot see our locks, so it would take a journal that SQLite
/// writes there for one that a crash has left.
pub(super) fn ensure(path: &Path, make: impl Fn(&Path) -> Result<()>) -> Result<()> {
    loop {
        match require_regular_file(path) {
            // SQLite takes a file that is too short to be a database for an empty one, and writes over it.
            Ok(file) if (1..MIN_PAGE_SIZE).contains(&file.len()) => return Err(Error::at(Code::NotADatabase, path)),
            Ok(_) => return Ok(()),
            Err(error) if error.code() != Code::MissingFile => return Err(error),
            Err(_) => {}
        }
        let Err(error) = write_atomically(path, Existing::Keep, |temporary, _| make(temporary)) else { return Ok(()) };
        match error.code() {
            // Another process was faster, or there is a symbolic link to a file that does not exist.
            Code::FileExists => {
                if fs::symlink_metadata(path).is_ok_and(|link| link.is_symlink()) && !path.exists() {
                    return Err(Error::at(Code::BrokenLink, path));
                }
            }
            // A file system without hard links. Then the file starts empty.
            Code::IoError if create_private(path).is_ok() => return Ok(()),
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::files::is_exposed;

    #[test]
    fn a_new_database_is_private_and_complete_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.db");
        let make = |content: &'static str| {
            let path = &path;
            move |draft: &Path| {
                assert!(!path.exists() && !is_exposed(draft));
                fs::write(draft, content).map_err(|error| Error::from_io(draft, &error))
            }
        };
        ensure(&path, make("x".repeat(600).leak())).unwrap();
        ensure(&path, make("never asked for")).unwrap();
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
        let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let whole = libc::flock { l_type: 1, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        let (one, other) = (open(), open());
        fcntl(&one, FcntlArg::F_SETLK(&whole)).unwrap();
        drop(Pin::new(&path).unwrap());
        assert!(fcntl(&other, FcntlArg::F_OFD_SETLK(&whole)).is_err());
        drop(open());
        assert!(fcntl(&other, FcntlArg::F_OFD_SETLK(&whole)).is_ok(), "as closing any other handle does");
    }
}
