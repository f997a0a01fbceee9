//! Refreshed pairs that could not be saved, kept in this process (`docs/lease.md`, rule 16).
//!
//! Without them every request would refresh again while the disk is full, and Zoho denies all refreshes after ten.
//! [`crate::domain::unsaved`] decides which pair is served, saved or discarded. A find of any row pays one load and
//! one branch while no pair is kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::backend::Durability;
use super::deadline::Deadline;
use super::error::{Error, Result};
use super::lease::Lookup;
use super::lock_order::{Ordered, Rank};
use super::{Found, Store, fork, present};
use crate::domain::{Field, Key, Row, Token, unsaved};

/// The most pairs that a store keeps.
const MAX_PAIRS: usize = 1_000;

/// The shortest time between two attempts to save, whatever the row.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How long an attempt, or a look at the row, may wait for others.
const RETRY_TIMEOUT: Duration = Duration::from_millis(100);

/// How long the attempts of [`Store::save_unsaved_pairs`] may take together.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a thread waits for the list. It is locked for a few instructions at a time. So only a fork in C code, which
/// inherits a locked list, makes a thread wait for so long.
const LIST_TIMEOUT: Duration = Duration::from_secs(1);

/// A token that could not be saved.
#[derive(Clone)]
struct Pair {
    /// As the SDK wanted to save it.
    token: Row,
    /// Two pairs of one row differ in it.
    number: u64,
}

#[derive(Default)]
struct Pairs {
    by_id: HashMap<String, Pair>,
    next_number: u64,
    tried_at: Option<Instant>,
}

impl Pairs {
    fn contains(&self, pair: &Pair) -> bool {
        self.by_id.get(pair.token.id()).is_some_and(|kept| kept.number == pair.number)
    }

    fn is_retry_due(&self) -> bool {
        self.tried_at.is_none_or(|tried_at| tried_at.elapsed() >= RETRY_PAUSE)
    }
}

/// The kept pairs of one store. A forked child has a copy, and serves and saves it as its parent does.
pub(super) struct UnsavedPairs {
    list: Ordered<Pairs>,
    /// The number of kept pairs, to be read without the lock.
    count: AtomicUsize,
}

impl Default for UnsavedPairs {
    fn default() -> Self {
        Self { list: Ordered::new(Rank::UnsavedPairs, Pairs::default()), count: AtomicUsize::new(0) }
    }
}

impl UnsavedPairs {
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Runs `work` on the list. Returns `None` if the lock cannot be acquired. Then the list of a forked child is
    /// forgotten, so that no later find waits for it.
    fn with<T>(&self, work: impl FnOnce(&mut Pairs) -> T) -> Option<T> {
        let deadline = Deadline::after(LIST_TIMEOUT);
        let _pass = fork::enter(deadline)?;
        let Some(mut list) = self.list.lock(deadline) else {
            self.count.store(0, Ordering::Relaxed);
            return None;
        };
        let done = work(&mut list);
        self.count.store(list.by_id.len(), Ordering::Relaxed);
        Some(done)
    }

    /// Adds a pair at `now`. Returns whether it is kept.
    fn add(&self, id: &str, token: Token<'_>, now: i64) -> bool {
        let add = |list: &mut Pairs| {
            if let Some(kept) = list.by_id.get(id)
                && unsaved::is_better(kept.token.token(), token)
            {
                return true;
            }
            if list.by_id.len() >= MAX_PAIRS {
                list.by_id.retain(|_, kept| unsaved::is_usable(kept.token.token(), now));
            }
            if list.by_id.len() >= MAX_PAIRS && !list.by_id.contains_key(id) {
                return false;
            }
            let pair = Pair { token: Row::new(token, 0, None).overwritten_on_drop(), number: list.next_number };
            list.next_number += 1;
            list.by_id.insert(id.to_owned(), pair);
            true
        };
        self.with(add).unwrap_or_default()
    }

    /// Returns the row as it would be if its kept pair had been saved. Discards a pair that the row has outlived.
    #[cold]
    fn overlay(&self, row: Row) -> Row {
        let kept = self.with(|list| {
            let kept = list.by_id.get(row.id())?;
            let is_better = unsaved::is_better(kept.token.token(), row.token());
            if is_better { Some(kept.token.clone()) } else { list.by_id.remove(row.id()).and(None) }
        });
        match kept.flatten() {
            Some(kept) => row.with_values(unsaved::overlay(kept.token(), row.token())),
            None => row,
        }
    }

    /// Returns a row that was found, with its kept pair if it has one.
    pub(super) fn found(&self, row: Row) -> Found {
        Found(if self.is_empty() { row } else { self.overlay(row) })
    }

    /// Discards the pairs that match, and returns whether there was one.
    pub(super) fn discard(&self, mut matches: impl FnMut(&str, Token<'_>) -> bool) -> bool {
        !self.is_empty()
            && self
                .with(|list| list.by_id.extract_if(|id, kept| matches(id, kept.token.token())).count() > 0)
                .unwrap_or_default()
    }

    /// Discards the pair of the row with this id.
    pub(super) fn discard_id(&self, id: &str) {
        self.discard(|kept, _| kept == id);
    }

    /// Without waiting: the caller may hold Python's GIL.
    #[cold]
    fn is_retry_due(&self, id: &str) -> bool {
        let pass = fork::enter(Deadline::now());
        let is_due = |list: &Pairs| list.by_id.contains_key(id) && list.is_retry_due();
        pass.is_some() && self.list.try_lock().is_some_and(|list| is_due(&list))
    }

    /// Removes these pairs, but not later ones of the same rows.
    fn remove(&self, pairs: &[Pair]) {
        self.with(|list| {
            for pair in pairs {
                if list.contains(pair) {
                    list.by_id.remove(pair.token.id());
                }
            }
        });
    }

    fn contains(&self, pair: &Pair) -> bool {
        self.with(|list| list.contains(pair)).unwrap_or_default()
    }
}

impl Store {
    /// Finds a row, and returns it with its kept pair. A find while no pair is kept is faster.
    #[cold]
    pub(super) fn find_with_unsaved(&self, lookup: Lookup<'_>, deadline: Deadline) -> Result<Option<Found>> {
        self.find_in_snapshot(lookup, deadline, |row| self.unsaved.found(row))
    }

    fn find_in_snapshot<T>(
        &self,
        lookup: Lookup<'_>,
        deadline: Deadline,
        finish: impl Fn(Row) -> T,
    ) -> Result<Option<T>> {
        let mut found = None;
        self.run(deadline, |backend, deadline| {
            backend.read(deadline, &mut |rows| {
                found = lookup.find(rows)?.map(&finish);
                Ok(())
            })
        })?;
        Ok(found)
    }

    /// Keeps the pair of a token that could not be saved, if the failure can pass and the pair is of use. Returns the
    /// failure, which says whether the pair was kept.
    #[cold]
    pub(super) fn keep_unsaved(&self, token: Token<'_>, now: i64, error: Error) -> Error {
        let Some(id) = present(token.get(Field::Id)) else { return error };
        if !error.code().can_pass() || !unsaved::is_usable(token, now) {
            return error;
        }
        // A row that cannot be read now may be there all the same. The next find or save sees.
        let is_wanted = match self.find_in_snapshot(Lookup::Token(token), Deadline::after(RETRY_TIMEOUT), |row| row) {
            Ok(row) => row.is_some_and(|row| row.id() == id && unsaved::is_better(token, row.token())),
            Err(_) => true,
        };
        if is_wanted && self.unsaved.add(id, token, now) { error.with_pair_kept() } else { error }
    }

    /// Is it time to try to save the kept pair of this row? If no pair is kept, this is one load.
    #[must_use]
    pub fn is_pair_to_be_saved(&self, found: &Found) -> bool {
        !self.unsaved.is_empty() && self.unsaved.is_retry_due(found.0.id())
    }

    /// Tries to save the kept pair of this row at `now`, unless another thread has tried within the last second.
    /// Returns whether the pair was saved.
    pub fn save_unsaved_pair(&self, id: &str, now: i64) -> bool {
        let take = |list: &mut Pairs| {
            let pair = list.by_id.get(id).filter(|_| list.is_retry_due())?.clone();
            list.tried_at = Some(Instant::now());
            Some(pair)
        };
        let Some(pair) = self.unsaved.with(take).flatten() else { return false };
        self.save_pairs(&[pair], now, Deadline::after(RETRY_TIMEOUT)).unwrap_or_default()
    }

    /// Tries to save all kept pairs at `now`, within about a second. Those that cannot be saved stay. For a caller that
    /// closes the store next, which discards them.
    pub fn save_unsaved_pairs(&self, now: i64) {
        if self.unsaved.is_empty() {
            return;
        }
        let pairs: Vec<Pair> = self.unsaved.with(|list| list.by_id.values().cloned().collect()).unwrap_or_default();
        let deadline = Deadline::after(LAST_TIMEOUT);
        // One commit for all. If a single row makes it fail, the others are saved alone.
        if self.save_pairs(&pairs, now, deadline).is_err() {
            for pair in pairs {
                if deadline.left().is_none() {
                    break;
                }
                let _ = self.save_pairs(&[pair], now, deadline);
            }
        }
    }

    /// Saves pairs in one transaction, or discards them if their rows have changed meanwhile. Returns whether it saved
    /// any. No row is ever inserted: its token may have been deleted.
    fn save_pairs(&self, pairs: &[Pair], now: i64, deadline: Deadline) -> Result<bool> {
        // Kept for a second attempt, which finds the pairs that the first one has saved.
        let mut saved = false;
        self.run(deadline, |backend, deadline| {
            backend.write(deadline, Durability::Full, &mut |transaction| {
                for pair in pairs {
                    // Another thread may have discarded it, for example because Zoho has refused it.
                    if !self.unsaved.contains(pair) {
                        continue;
                    }
                    let kept = pair.token.token();
                    let row = transaction.by_key(Key::Id, pair.token.id())?.pop();
                    if let Some(row) = row.filter(|row| unsaved::is_to_be_saved(kept, Some(row.token()), now)) {
                        transaction.update(&row, unsaved::overlay(kept, row.token()), now)?;
                        saved = true;
                    }
                }
                Ok(())
            })
        })?;
        self.unsaved.remove(pairs);
        Ok(saved)
    }
}
