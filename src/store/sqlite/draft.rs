//! Files in the making, which nobody is to see before they are whole: a new database, a backup, a probe.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use tempfile::TempPath;

use super::file::{self, beside};
use super::guard;
use crate::store::Result;

/// A file in the making, its owner's alone, that is gone when this is dropped; or, if its process is killed, when the
/// next one comes: see [`remove_stale_drafts`].
pub(super) struct Draft {
    path: TempPath,
    /// Locked, to say that it is in use. Closed last, for closing it drops SQLite's locks.
    claim: fs::File,
}

const DRAFT: (&str, &str) = (".zoho-token-store-", ".draft");

impl Draft {
    /// A new one beside `path`.
    pub(super) fn beside(path: &Path) -> io::Result<Self> {
        remove_stale_drafts(path);
        let folder = path.parent().unwrap_or(path);
        loop {
            let made = tempfile::Builder::new().prefix(DRAFT.0).suffix(DRAFT.1).tempfile_in(folder)?;
            let (claim, path) = made.into_parts();
            // Until it was claimed, another process may have taken it for a stale one.
            if guard::claim(&claim).unwrap_or(true) && path.exists() {
                return Ok(Self { path, claim });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it into the place of `target`, at once.
    pub(super) fn persist(self, target: &Path) -> io::Result<()> {
        self.path.persist(target).map_err(|error| error.error)
    }
}

/// Has `fill` write a new file, its owner's alone, that takes its name once it is whole and on the disk; another file's only
/// if `overwrite` is given.
pub(in crate::store) fn write_whole(
    target: &Path,
    overwrite: bool,
    fill: impl FnOnce(&fs::File) -> io::Result<()>,
) -> Result<()> {
    let failed = |error| file::refused(target, &error);
    if file::is_sqlites_own(target) {
        return Err(file::bad(target, "has a name that SQLite gives to its own files", "give another path"));
    }
    if fs::metadata(target).is_ok_and(|existing| !existing.is_file()) {
        return Err(file::bad(
            target,
            "is not a regular file",
            "give the path of one, or of a file that does not exist yet",
        ));
    }
    if !target.parent().unwrap_or(target).is_dir() {
        return Err(file::bad(target, "is in a folder that does not exist", "make the folder first"));
    }
    let draft = Draft::beside(target).map_err(failed)?;
    fill(&draft.claim).and_then(|()| draft.claim.sync_all()).map_err(failed)?;
    let placed = if overwrite {
        draft.persist(target)
    } else {
        // Unlike a rename, this takes no file's place.
        fs::hard_link(draft.path(), target)
    };
    match placed {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(file::bad(target, "exists already", "give another path, or allow that it is overwritten"))
        }
        placed => placed.and_then(|()| file::sync_folder(target)).map_err(failed),
    }
}

/// Removes what killed processes left half made beside `path`: a backup's holds every token.
pub(super) fn remove_stale_drafts(path: &Path) {
    let Some(files) = path.parent().and_then(|folder| fs::read_dir(folder).ok()) else { return };
    let is_drafts = |name: &str| name.strip_prefix(DRAFT.0).is_some_and(|rest| rest.ends_with(DRAFT.1));
    for file in files.flatten().filter(|file| file.file_name().to_str().is_some_and(is_drafts)) {
        let draft = file.path();
        if !file.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let Ok(claim) = OpenOptions::new().read(true).write(true).open(&draft) else { continue };
        // While it is ours nobody can claim it, so it is nobody's.
        if guard::claim(&claim).unwrap_or(false) {
            for ending in ["-journal", "-wal", "-shm", ""] {
                let _ = fs::remove_file(beside(&draft, ending));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_draft_is_removed_once_nobody_makes_it_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup.db");
        let kept = folder.path().join(".zoho-token-store-of-mine.db");
        fs::write(&kept, "").unwrap();
        let names = || fs::read_dir(folder.path()).unwrap().count();
        let draft = Draft::beside(&path).unwrap();
        remove_stale_drafts(&path);
        assert_eq!(names(), 2, "it is being made");
        let Draft { path: left, claim } = draft;
        let left = left.keep().unwrap();
        fs::write(beside(&left, "-wal"), "").unwrap();
        drop(claim);
        remove_stale_drafts(&path);
        assert_eq!((names(), kept.exists()), (1, true));
    }
}
