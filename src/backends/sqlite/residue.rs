//! Residue: secrets that a change deleted or replaced, and that are still readable in the database file or in its WAL.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::connection::{Checkpoint, OpenConnection};
use super::waiting::{LOCK_POLL, with_deadline};
use crate::store::deadline::Deadline;
use crate::store::files;

/// The largest file that is rewritten after each delete, in bytes. It has about 10 000 rows, and rewriting it takes 60
/// ms. With 100 000 rows it would take 0.6 s, and no other thread could save meanwhile.
const MAX_REWRITTEN_LENGTH: u64 = 4 << 20;

/// The places where residue may be left, because a reader was in the way.
#[derive(Default)]
pub(super) struct Residue {
    in_file: AtomicBool,
    in_wal: AtomicBool,
}

impl Residue {
    /// Scrubs what a change to the file at `path` has left, or records that it has to be done.
    ///
    /// The file comes first. `secure_delete` overwrites what is deleted. But when SQLite moves rows from page to page,
    /// it leaves copies that it does not overwrite (`tests/faults/test_secrets.py`). Only rewriting the file removes
    /// them.
    pub(super) fn scrub(&self, path: &Path, open: &OpenConnection, deadline: Deadline) {
        self.in_file.store(files::length(path) <= MAX_REWRITTEN_LENGTH, Ordering::Relaxed);
        self.scrub_left(open, deadline);
    }

    /// Scrubs what earlier attempts have left.
    pub(super) fn scrub_left(&self, open: &OpenConnection, deadline: Deadline) {
        if self.in_file.load(Ordering::Relaxed) {
            self.rewrite_file(open, deadline);
        }
        self.empty_wal(open, deadline);
    }

    fn rewrite_file(&self, open: &OpenConnection, deadline: Deadline) {
        let rewritten = with_deadline(deadline, || open.write(deadline, || open.vacuum()));
        self.in_file.store(rewritten != Some(true), Ordering::Relaxed);
    }

    /// Rewrites the file whatever its length, unless `is_rewritten` says that this was done, and empties the WAL.
    /// Returns false if a reader prevents that now.
    pub(super) fn scrub_all(&self, open: &OpenConnection, is_rewritten: &mut bool, deadline: Deadline) -> bool {
        if !*is_rewritten {
            self.in_file.store(true, Ordering::Relaxed);
        }
        if self.in_file.load(Ordering::Relaxed) {
            self.rewrite_file(open, deadline);
            *is_rewritten |= !self.in_file.load(Ordering::Relaxed);
        }
        self.empty_wal(open, Deadline::now());
        !self.is_left()
    }

    /// Is any residue left?
    pub(super) fn is_left(&self) -> bool {
        self.in_file.load(Ordering::Relaxed) || self.in_wal.load(Ordering::Relaxed)
    }

    /// Empties the WAL, in which old pages stay readable, or records that it has to be done.
    ///
    /// A checkpoint writes, so it needs the write lock. While this waits for a reader, it does not hold the lock.
    pub(super) fn empty_wal(&self, open: &OpenConnection, deadline: Deadline) {
        loop {
            let result = with_deadline(Deadline::now(), || open.write(deadline, || open.checkpoint()));
            self.in_wal.store(result != Some(Checkpoint::Complete), Ordering::Relaxed);
            if result != Some(Checkpoint::Blocked) || !deadline.sleep(LOCK_POLL) {
                return;
            }
        }
    }
}
