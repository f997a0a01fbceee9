//! The file at a path, without opening it where SQLite may have it open: closing such a handle would drop SQLite's
//! locks. Knows paths and permissions, nothing of what is in the file.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::draft::Draft;
use crate::store::{Error, Flaw, Place, Result};

/// Which file it is, whatever it is called. Not given out again while the file is open somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

impl FileId {
    /// The file that `path` names just now, if any.
    #[cfg(unix)]
    pub(super) fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).ok().map(|file| Self(file.dev(), file.ino()))
    }

    /// The file that a handle is open to.
    #[cfg(unix)]
    pub(super) fn of_handle(file: &fs::File) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        file.metadata().ok().map(|file| Self(file.dev(), file.ino()))
    }

    /// Not to be told here.
    #[cfg(not(unix))]
    pub(super) fn of_handle(_: &fs::File) -> Option<Self> {
        None
    }

    /// Where an open file cannot be deleted, renamed or replaced, a path names one file for as long as we have it.
    #[cfg(not(unix))]
    pub(super) fn of(path: &Path) -> Option<Self> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        fs::canonicalize(path).ok()?.hash(&mut hasher);
        Some(Self(0, hasher.finish()))
    }
}

/// Keeps a file's number from being given out again, without opening it: a file that is deleted and made anew would
/// often get the same.
#[cfg(target_os = "linux")]
pub(super) struct Pin(fs::File);

#[cfg(target_os = "linux")]
impl Pin {
    /// The file that `path` names just now.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        // Such a handle cannot read or lock, and closing it drops no lock (`filp_close` of Linux).
        OpenOptions::new().read(true).custom_flags(nix::libc::O_PATH).open(path).map(Self)
    }

    pub(super) fn id(&self, _: &Path) -> Option<FileId> {
        FileId::of_handle(&self.0)
    }
}

/// Elsewhere numbers are not given out again (macOS), or an open file cannot be deleted.
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

/// How long the file is, in bytes; 0 if there is none.
pub(super) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

/// The path of a file that SQLite keeps beside the database.
pub(super) fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Does it have a name that SQLite gives to a file beside a database? It takes what it finds there for its own.
pub(super) fn is_sqlites_own(path: &Path) -> bool {
    let name = path.as_os_str().as_encoded_bytes();
    ["-wal", "-shm", "-journal"].iter().any(|ending| name.ends_with(ending.as_bytes()))
}

/// The smallest page of SQLite's, and so the length of the shortest database, in bytes.
const SHORTEST: u64 = 512;

/// Does the database end within one of its `pages`? SQLite takes what is missing of that for zeros. While there is a log,
/// what is missing may stand there.
pub(super) fn is_cut_short(path: &Path, page: u32, pages: u32) -> bool {
    let (length_of_file, page) = (length(path), u64::from(page.max(1)));
    !length_of_file.is_multiple_of(page)
        && length_of_file < u64::from(pages) * page
        && length(&beside(path, "-wal")) == 0
}

/// Does it consist of pages, whatever their size is?
pub(super) fn is_of_whole_pages(path: &Path) -> bool {
    length(path).is_multiple_of(SHORTEST)
}

/// Has `make` fill a new file, its owner's alone, and puts it in place at once, unless there is one already.
///
/// Not made where it stands: what SQLite writes there without WAL, other code of this process would take for what a crash
/// has left, for it cannot see the locks of its own process.
pub(super) fn ensure(path: &Path, make: impl Fn(&Path) -> Result<()>) -> Result<()> {
    loop {
        match fs::metadata(path) {
            // SQLite takes what is too short to be a database for an empty one, and writes over it.
            Ok(file) if file.is_file() && (1..SHORTEST).contains(&file.len()) => return Err(not_a_database(path)),
            Ok(file) if file.is_file() => return Ok(()),
            Ok(file) if file.is_dir() => {
                return Err(bad(path, "is a directory", "give the path of a file in it"));
            }
            Ok(_) => return Err(bad(path, "is not a regular file", "give the path of one")),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(refused(path, &error)),
        }
        let placed = match Draft::beside(path) {
            Ok(draft) => {
                make(draft.path())?;
                // Unlike a rename, this takes no file's place that came meanwhile.
                let linked = fs::hard_link(draft.path(), path);
                drop(draft);
                linked.and_then(|()| sync_folder(path))
            }
            Err(error) => Err(error),
        };
        match placed {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // Somebody else was faster; or it is a link that leads nowhere, and then it stays so.
                if fs::symlink_metadata(path).is_ok_and(|link| link.is_symlink()) && !path.exists() {
                    return Err(leads_nowhere(path));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(bad(path, "is in a folder that does not exist", "make the folder first"));
            }
            // Not every file system can give a name to a file only if nobody has it: then an empty one has to do.
            Err(error) if error.kind() != ErrorKind::PermissionDenied && create(path).is_ok() => return Ok(()),
            Err(error) => return Err(refused(path, &error)),
        }
    }
}

fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?;
    sync_folder(path)
}

/// Makes the file's entry in its folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix)
        && let Some(folder) = path.parent()
    {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// May anybody but the owner read or write it?
#[cfg(unix)]
pub(super) fn is_exposed(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
}

/// Who may read a file is not said by a mode here.
#[cfg(not(unix))]
pub(super) fn is_exposed(_: &Path) -> bool {
    false
}

/// An error about the path itself.
pub(in crate::store) fn bad(path: &Path, what: &'static str, cure: &'static str) -> Error {
    Error::BadPath { path: path.to_owned(), what, cure }
}

/// Whoever set the link meant some file.
pub(super) fn leads_nowhere(path: &Path) -> Error {
    bad(path, "is a symbolic link to a file that is not there", "make that file, or remove the link")
}

/// Some other file.
pub(super) fn not_a_database(path: &Path) -> Error {
    Error::BadFile {
        path: path.to_owned(),
        flaw: Flaw::NotADatabase,
        what: "is not a SQLite database".to_owned(),
        cure: "give the path of a token database, or of a file that does not exist yet",
    }
}

/// An error of the operating system's.
pub(in crate::store) fn refused(path: &Path, error: &io::Error) -> Error {
    let (what, cure) = match error.kind() {
        ErrorKind::PermissionDenied => {
            ("permission denied", "give this user read and write permission on the file and on its folder")
        }
        ErrorKind::ReadOnlyFilesystem => ("the file system is read-only", "give a path on one that can be written"),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ("the disk or quota is full", "make room and try again"),
        ErrorKind::NotADirectory => ("a part of the path is not a folder", "give another path"),
        ErrorKind::InvalidFilename | ErrorKind::InvalidInput => ("no file can have this name", "give another path"),
        _ => {
            return Error::Refused {
                place: Place::File(path.to_owned()),
                what: format!("the system reported an error ({error})"),
                cure: "look at the disk and the path, and try again",
            };
        }
    };
    Error::Refused { place: Place::File(path.to_owned()), what: what.to_owned(), cure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_its_owners_alone_and_whole_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.db");
        let make = |content: &'static str| {
            let path = &path;
            move |draft: &Path| {
                assert!(!path.exists() && !is_exposed(draft));
                fs::write(draft, content).map_err(|error| refused(draft, &error))
            }
        };
        ensure(&path, make("x".repeat(600).leak())).unwrap();
        ensure(&path, make("never asked for")).unwrap();
        assert!(!is_exposed(&path));
        assert_eq!(fs::metadata(&path).unwrap().len(), 600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn who_is_slower_takes_the_file_of_who_was_faster() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.db");
        let faster = |_: &Path| fs::write(&path, "x".repeat(600)).map_err(|error| refused(&path, &error));
        ensure(&path, faster).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_made_anew_is_another_file_as_long_as_the_old_one_is_pinned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for _ in 0..3 {
            create(&path).unwrap();
            let pin = Pin::new(&path).unwrap();
            fs::remove_file(&path).unwrap();
            create(&path).unwrap();
            assert_ne!(pin.id(&path), FileId::of(&path));
            fs::remove_file(&path).unwrap();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pin_drops_no_lock_of_this_process() {
        use nix::fcntl::{FcntlArg, fcntl};
        use nix::libc;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        create(&path).unwrap();
        let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let whole = libc::flock { l_type: 1, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        let (one, other) = (open(), open());
        fcntl(&one, FcntlArg::F_SETLK(&whole)).unwrap();
        drop(Pin::new(&path).unwrap());
        assert!(fcntl(&other, FcntlArg::F_OFD_SETLK(&whole)).is_err());
        drop(open());
        assert!(fcntl(&other, FcntlArg::F_OFD_SETLK(&whole)).is_ok(), "as closing any other handle does");
    }

    // Elsewhere a file is told by its path.
    #[cfg(unix)]
    #[test]
    fn a_file_that_was_replaced_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        create(&path).unwrap();
        create(&other).unwrap();
        let before = FileId::of(&path);
        fs::rename(&other, &path).unwrap();
        assert_ne!(before, FileId::of(&path));
        assert_eq!(None, FileId::of(&other));
    }
}
