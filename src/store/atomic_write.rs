//! Files that appear under their name at once: written into a private temporary file, which then gets the name.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process;

use tempfile::TempPath;

use super::error::{Code, Error, Result};
use super::file_lock::{ByteRange, LockResult, Operation, lock};
use super::files::{FileId, open_handle, out_of_handles, sync_folder};

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
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(super::files::PRIVATE_MODE));
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
        let Ok(handle) = open_handle(path) else { continue };
        if is_stale(path, &handle) {
            for (_, companion) in entries.iter().filter(|(other, _)| other.starts_with(name.as_str()) && other != name)
            {
                let _ = fs::remove_file(companion);
            }
            let _ = fs::remove_file(path);
        }
    }
}

/// Is the temporary file at `path`, which `handle` is open to, in no use any more? Then it stays locked until the
/// handle is closed.
fn is_stale(path: &Path, handle: &File) -> bool {
    // No process uses a file that this one can lock. Its owner may have removed it just now, and the path may already
    // name another file.
    claim(handle) == LockResult::Done && FileId::of_handle(handle).is_none_or(|id| FileId::of(path) == Some(id))
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::super::files::is_exposed;
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
}
