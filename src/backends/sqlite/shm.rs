//! The `-shm`, the memory that all who have a file open in WAL mode share: making it as SQLite does, whose log it belongs
//! to, and the state of the database that stands in it.

use std::fs::File;
use std::path::Path;

#[cfg(target_os = "linux")]
use crate::store::{file_lock, files};

/// How many bytes at its beginning say what of the `-wal` counts: zeros are as good as none.
pub(super) const INDEX_HEADER: usize = 136;

/// SQLite keeps two copies of the first part of that, and changes one after the other. Here it says whether it counts.
const COPY: usize = 48;
#[cfg(any(unix, test))]
const IS_INIT: usize = 12;

/// What is another after each commit, by whatever program: SQLite itself knows by it whether the pages that it remembers are
/// still the right ones ("walformat", 2.1).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct State([u8; COPY]);

impl State {
    /// As readers see it. `None`: it is being changed just now.
    #[cfg(unix)]
    pub(super) fn of(shm: &File) -> Option<Self> {
        use std::os::unix::fs::FileExt;
        let mut copies = [0; 2 * COPY];
        shm.read_exact_at(&mut copies, 0).ok()?;
        let (one, other) = copies.split_at(COPY);
        if one == other && one[IS_INIT] == 1 { one.try_into().ok().map(Self) } else { None }
    }

    /// Not to be told here.
    #[cfg(not(unix))]
    pub(super) fn of(_: &File) -> Option<Self> {
        None
    }
}

/// Opens the `-shm`, and makes it as SQLite does: for whoever may use the database, and never by way of a link.
#[cfg(target_os = "linux")]
pub(super) fn open_or_make(shm: &Path, database: &File) -> Option<File> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};

    let mut options = File::options();
    options.read(true).write(true).mode(files::PRIVATE_MODE).custom_flags(nix::libc::O_NOFOLLOW);
    match options.open(shm) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        opened => return opened.ok(),
    }
    let its = database.metadata().ok()?;
    let made = options.create_new(true).open(shm).ok()?;
    let _ = made.set_permissions(its.permissions());
    let _ = fchown(&made, Some(its.uid()), Some(its.gid()));
    Some(made)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn open_or_make(_: &Path, _: &File) -> Option<File> {
    None
}

/// Far behind all that SQLite locks there: a location for each file that the log can belong to.
#[cfg(target_os = "linux")]
const OWNERS: file_lock::ByteRange = (1 << 32, 1 << 32);

/// Says for as long as it is open that the log is this database's.
#[cfg(target_os = "linux")]
pub(super) fn claim(shm: &File, database: &File) {
    file_lock::lock(Some(shm), file_lock::Operation::Share, (owner(database), 1));
}

/// Does this library use the log for another file than this one?
#[cfg(target_os = "linux")]
pub(super) fn is_anothers(shm: &File, database: &File) -> bool {
    let (location, end) = (owner(database), OWNERS.0 + OWNERS.1);
    // A length of zero would mean "to the end".
    let others = [(OWNERS.0 - 1, location - OWNERS.0 + 1), (location + 1, end - location)];
    others.into_iter().any(|range| file_lock::is_locked(shm, range))
}

/// This file's location among the owners of a log.
#[cfg(target_os = "linux")]
fn owner(database: &File) -> i64 {
    use std::os::unix::fs::MetadataExt;
    let number = database.metadata().map_or(0, |file| file.ino());
    OWNERS.0 + i64::try_from(number % OWNERS.1.unsigned_abs()).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn claim(_: &File, _: &File) {}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_anothers(_: &File, _: &File) -> bool {
    false
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_state_counts_if_both_copies_are_the_same_and_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shm");
        let state = |first: u8, is_init: u8, second: u8| {
            let copy = |change: u8| {
                let mut copy = [7; COPY];
                (copy[8], copy[IS_INIT]) = (change, is_init);
                copy
            };
            fs::write(&path, [copy(first), copy(second)].concat()).unwrap();
            State::of(&File::open(&path).unwrap())
        };
        assert!(state(1, 1, 1).is_some() && state(1, 1, 1) == state(1, 1, 1));
        assert!(state(1, 1, 1) != state(2, 1, 2));
        assert!(state(1, 1, 2).is_none(), "it is being changed");
        assert!(state(1, 0, 1).is_none(), "nobody has written it yet");
        fs::write(&path, [1; COPY]).unwrap();
        assert!(State::of(&File::open(&path).unwrap()).is_none(), "it is too short");
    }
}
