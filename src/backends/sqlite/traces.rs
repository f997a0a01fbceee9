//! Secrets that a change has deleted or replaced, and that still stand in the file or in its log.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::busy;
use super::open::Open;
use crate::store::deadline::Deadline;
use crate::store::files;

/// The largest file that is rewritten after each delete, in bytes: some 10 000 rows, which takes 60 ms. Of 100 000 rows it
/// would take 0.6 s, in which nobody could save.
const LARGEST_REWRITTEN: u64 = 4 << 20;

/// Where traces may be left that could not be wiped yet, because somebody was reading.
#[derive(Default)]
pub(super) struct Traces {
    in_file: AtomicBool,
    in_log: AtomicBool,
}

impl Traces {
    /// Wipes what a change to the file at `path` has deleted, or remembers that it has to be done.
    ///
    /// First from the file: `secure_delete` overwrites what is deleted, but when SQLite moves rows from page to page it
    /// leaves copies behind that it forgets. Only to rewrite the file gets rid of them.
    pub(super) fn wipe(&self, path: &Path, open: &Open, deadline: Deadline) {
        self.in_file.store(files::length(path) <= LARGEST_REWRITTEN, Ordering::Relaxed);
        self.wipe_left(open, deadline);
    }

    /// The same, as far as it was not done yet.
    pub(super) fn wipe_left(&self, open: &Open, deadline: Deadline) {
        if self.in_file.load(Ordering::Relaxed) {
            let rewritten = busy::until(deadline, || open.in_turn(deadline, || open.rewrite_file()));
            self.in_file.store(rewritten != Some(true), Ordering::Relaxed);
        }
        self.empty_log(open, deadline);
    }

    /// Are there any?
    pub(super) fn are_left(&self) -> bool {
        self.in_file.load(Ordering::Relaxed) || self.in_log.load(Ordering::Relaxed)
    }

    /// Empties the `-wal`, in which old pages stay readable, or remembers that it has to be done.
    ///
    /// In turn, for it writes; but waiting for a reader it holds up nobody else's.
    pub(super) fn empty_log(&self, open: &Open, deadline: Deadline) {
        loop {
            let emptied = busy::until(Deadline::now(), || open.in_turn(deadline, || open.try_to_bring_in()));
            self.in_log.store(emptied != Some(Some(true)), Ordering::Relaxed);
            if emptied != Some(Some(false)) || !deadline.sleep(busy::POLL) {
                return;
            }
        }
    }
}
