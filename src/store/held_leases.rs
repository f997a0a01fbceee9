//! The leases that this process holds, and how they are released.

use std::process;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::backend::{Backend, Durability};
use super::deadline::Deadline;
use super::error::Error;
use super::lock_order::{Ordered, Rank};
use super::save::KeyedLease;
use super::{Store, fork};
use crate::domain::backoff::RefreshFailures;
use crate::domain::lease::{Lease, LeaseKey, Requester, Settings};
use crate::domain::refresh_ahead;

/// A lease that a requester has acquired. It is to be released if nobody saves a new token.
#[derive(Clone, Debug)]
pub struct Acquired {
    /// What may be refreshed.
    pub key: LeaseKey,
    /// False if the requester held the lease already.
    pub is_new: bool,
    /// Why it could not be stored. Then it counts in this process alone.
    pub problem: Option<Error>,
    number: u64,
}

/// A lease that this process holds.
pub(super) struct HeldLease {
    pub(super) key: LeaseKey,
    pub(super) lease: Lease,
    /// Names the credentials that are being refreshed ([`crate::domain::backoff::fingerprint`]).
    pub(super) fingerprint: String,
    /// Identifies the call that the lease was acquired for.
    pub(super) call: usize,
    /// False if the store could not be written when it was acquired. Then it counts in this process alone.
    is_stored: bool,
    acquired_at: Instant,
    /// Changes when its owner acquires it again. So an earlier [`Acquired`] cannot release it any more.
    number: u64,
}

impl HeldLease {
    /// Is this the lease that was acquired, and has its owner not acquired it again?
    pub(super) fn is(&self, acquired: &Acquired) -> bool {
        self.number == acquired.number
    }

    /// The time now, in milliseconds since the epoch, by the clock that the end of the lease was computed with.
    fn now(&self, settings: Settings) -> i64 {
        let elapsed = i64::try_from(self.acquired_at.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.lease.until.saturating_sub(settings.length_ms()).saturating_add(elapsed)
    }
}

#[derive(Default)]
struct ProcessLeases {
    process: u32,
    leases: Vec<HeldLease>,
    /// Leases that may be stored: the answer of the store was lost.
    unanswered: Vec<(LeaseKey, Lease)>,
}

/// The leases of one store that this process holds, and counters.
pub(super) struct HeldLeases {
    pub(super) settings: Settings,
    /// How far ahead a find looks, in milliseconds.
    pub(super) look_ahead: i64,
    list: Ordered<ProcessLeases>,
    /// The number of held leases, to be read without the lock.
    count: AtomicUsize,
    next_number: AtomicU64,
    acquired: AtomicU64,
    waited: AtomicU64,
    gave_up: AtomicU64,
    failed: AtomicU64,
    backed_off: AtomicU64,
    acquired_ahead: AtomicU64,
    longest_wait_ns: AtomicU64,
    /// When a thread last looked for abandoned calls.
    last_look: Mutex<Option<Instant>>,
}

impl Default for HeldLeases {
    fn default() -> Self {
        Self::new(Settings::new(Duration::ZERO))
    }
}

/// How often a store acquired leases and waited for them, since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Acquired leases.
    pub acquired: u64,
    /// Finds that waited for the refresh of another requester, however the wait ended.
    pub waited: u64,
    /// Waits that ended without a fresh row.
    pub gave_up: u64,
    /// Leases that were released although no fresh token was saved.
    pub failed: u64,
    /// Finds that failed at once, because refreshes had failed before.
    pub backed_off: u64,
    /// The acquired leases that were for a refresh ahead of expiry.
    pub acquired_ahead: u64,
    /// The longest wait.
    pub longest_wait: Duration,
}

/// How long a thread waits for the list of held leases. The lock is held for a few instructions at a time. So only a
/// fork in C code, which inherits a locked list, makes a thread wait for so long.
const LIST_TIMEOUT: Duration = Duration::from_secs(1);

impl HeldLeases {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            look_ahead: refresh_ahead::look_ahead_ms(refresh_ahead::lead_ms(settings.ahead)),
            list: Ordered::new(Rank::HeldLeases, ProcessLeases::default()),
            count: AtomicUsize::default(),
            next_number: AtomicU64::default(),
            acquired: AtomicU64::default(),
            waited: AtomicU64::default(),
            gave_up: AtomicU64::default(),
            failed: AtomicU64::default(),
            backed_off: AtomicU64::default(),
            acquired_ahead: AtomicU64::default(),
            longest_wait_ns: AtomicU64::default(),
            last_look: Mutex::new(None),
        }
    }

    /// Runs `work` on the held leases. Returns the default if the lock cannot be acquired.
    pub(super) fn with<T: Default>(&self, work: impl FnOnce(&mut Vec<HeldLease>) -> T) -> T {
        self.with_all(|list| work(&mut list.leases))
    }

    fn with_all<T: Default>(&self, work: impl FnOnce(&mut ProcessLeases) -> T) -> T {
        let deadline = Deadline::after(LIST_TIMEOUT);
        let Some(_pass) = fork::enter(deadline) else { return T::default() };
        let Some(mut list) = self.list.lock(deadline) else { return T::default() };
        if list.process != process::id() {
            // A forked child inherits the list. The parent holds those leases, and releases them.
            *list = ProcessLeases { process: process::id(), ..ProcessLeases::default() };
        }
        let done = work(&mut list);
        self.count.store(list.leases.len(), Ordering::Relaxed);
        done
    }

    /// Notes a lease that may be stored, because the answer of the store was lost. `now` is the clock by which it
    /// expires.
    pub(super) fn note_unanswered(&self, key: LeaseKey, lease: Lease, now: i64) {
        self.with_all(|list| {
            list.unanswered.retain(|(noted, lease)| *noted != key && lease.until > now);
            list.unanswered.push((key, lease));
        });
    }

    /// Is this a lease whose answer was lost? Forgets that. (In a cell, its end is not stored, so only the owner counts.)
    pub(super) fn was_unanswered(&self, key: &LeaseKey, lease: &Lease) -> bool {
        self.with_all(|list| {
            let is_this = |(noted, of): &(LeaseKey, Lease)| noted == key && of.owner == lease.owner;
            let position = list.unanswered.iter().position(is_this);
            position.map(|position| list.unanswered.swap_remove(position)).is_some()
        })
    }

    /// Adds a lease that its owner has acquired, just now or a moment ago. `now` is the clock by which it expires.
    pub(super) fn add(&self, key: LeaseKey, lease: Lease, fingerprint: String, call: usize, now: i64) -> Acquired {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        self.acquired.fetch_add(1, Ordering::Relaxed);
        let acquired = Acquired { key: key.clone(), is_new: true, problem: None, number };
        self.with(|leases| {
            // An expired lease belongs to nobody, whatever became of its refresh.
            leases.retain(|held| held.lease.until > now && held.key != key);
            let left = Duration::from_millis(lease.until.saturating_sub(now).try_into().unwrap_or(0));
            let acquired_at = Instant::now();
            let acquired_at = acquired_at.checked_sub(self.settings.length.saturating_sub(left)).unwrap_or(acquired_at);
            leases.push(HeldLease { key, lease, fingerprint, call, is_stored: true, acquired_at, number });
        });
        acquired
    }

    /// Adds a lease that cannot be stored because of `problem`, unless another one under its key is valid at `now`.
    pub(super) fn add_unstored(
        &self,
        key: LeaseKey,
        lease: Lease,
        fingerprint: String,
        call: usize,
        now: i64,
        problem: &Error,
    ) -> Option<Acquired> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        self.with(|leases| {
            let is_valid = |held: &HeldLease| held.lease.is_valid(now, self.settings.length_ms());
            if leases.iter().any(|held| held.key == key && is_valid(held)) {
                return None;
            }
            let acquired = Acquired { key: key.clone(), is_new: true, problem: Some(problem.clone()), number };
            let acquired_at = Instant::now();
            leases.retain(|held| held.key != key);
            leases.push(HeldLease { key, lease, fingerprint, call, is_stored: false, acquired_at, number });
            self.acquired.fetch_add(1, Ordering::Relaxed);
            Some(acquired)
        })
    }

    /// Returns the lease of this process under a key that could not be stored.
    pub(super) fn unstored(&self, key: &LeaseKey) -> Option<Lease> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.with(|leases| {
            leases.iter().find(|held| held.key == *key && !held.is_stored).map(|held| held.lease.clone())
        })
    }

    /// Assigns a lease to another call of its owner.
    pub(super) fn reassign(&self, key: LeaseKey, call: usize) -> Acquired {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        self.with(|leases| {
            if let Some(held) = leases.iter_mut().find(|held| held.key == key) {
                (held.call, held.number) = (call, number);
            }
        });
        Acquired { key, is_new: false, problem: None, number }
    }

    /// Counts a find that fails because of back-off.
    pub(super) fn count_backed_off(&self) {
        self.backed_off.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a lease that was acquired for a refresh ahead of expiry.
    pub(super) fn count_ahead(&self) {
        self.acquired_ahead.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes and returns the leases that match.
    pub(super) fn remove(&self, mut matches: impl FnMut(&HeldLease) -> bool) -> Vec<HeldLease> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        self.with(|leases| leases.extract_if(.., |held| matches(held)).collect())
    }
}

/// The requester of the calling thread (see [`Requester::new`]). `None`: the process cannot be given a unique name.
#[must_use]
pub fn requester(task: u64, yields: bool) -> Option<Requester> {
    static PROCESS: Ordered<Option<(u32, String)>> = Ordered::new(Rank::HeldLeases, None);
    static THREADS: AtomicU64 = AtomicU64::new(0);
    thread_local!(static THREAD: u64 = THREADS.fetch_add(1, Ordering::Relaxed));

    let deadline = Deadline::after(LIST_TIMEOUT);
    let _pass = fork::enter(deadline)?;
    let mut process = PROCESS.lock(deadline)?;
    let pid = process::id();
    // A forked child is another process and needs another name.
    if process.as_ref().is_none_or(|(named, _)| *named != pid) {
        let mut random = [0; 8];
        getrandom::fill(&mut random).ok()?;
        *process = Some((pid, format!("{pid}-{:016x}", u64::from_le_bytes(random))));
    }
    let (_, name) = process.as_ref()?;
    Some(Requester::new(name, THREAD.with(|number| *number), task, yields))
}

/// What has become of a refresh whose lease is released without a fresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refresh {
    /// It has failed.
    Failed,
    /// The store is closed, or the interpreter ends.
    Interrupted,
    /// It has succeeded, but its token could not be saved and was kept.
    Kept,
}

/// How long the release of a lease waits for a busy store. A lease that is not released expires by itself.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The shortest time between two searches for abandoned calls.
const ABANDONED_CALL_POLL: Duration = Duration::from_millis(20);

impl Store {
    /// Releases a lease, unless it was released already or its owner acquired it again. Returns whether it did.
    pub fn release_lease(&self, acquired: &Acquired) -> bool {
        !self.release_leases(Refresh::Failed, |held| held.is(acquired)).is_empty()
    }

    /// Releases the leases that `owner` holds for abandoned calls, and returns their keys. It keeps the lease under
    /// `requested`, which the owner is about to acquire again.
    pub fn release_abandoned_leases(
        &self,
        owner: &str,
        requested: &LeaseKey,
        is_abandoned: impl Fn(usize) -> bool,
    ) -> Vec<LeaseKey> {
        self.release_leases(Refresh::Failed, |held| {
            held.lease.owner == owner && held.key != *requested && is_abandoned(held.call)
        })
    }

    /// Releases all leases that this process holds, and returns their keys.
    pub fn release_all_leases(&self) -> Vec<LeaseKey> {
        self.release_leases(Refresh::Interrupted, |_| true)
    }

    /// Releases the leases of a refresh whose token could not be saved and was kept.
    pub(super) fn release_leases_of_kept(&self, leases: &[KeyedLease]) {
        self.release_leases(Refresh::Kept, |held| leases.iter().any(|(_, lease)| *lease == held.lease));
    }

    fn release_leases(&self, refresh: Refresh, matches: impl FnMut(&HeldLease) -> bool) -> Vec<LeaseKey> {
        let held = self.leases.remove(matches);
        if held.is_empty() {
            return Vec::new();
        }
        // Kept for a second attempt. If only the answer of the first one was lost, the second finds its records.
        let mut records: Vec<Option<RefreshFailures>> = vec![None; held.len()];
        let settings = self.leases.settings;
        // A lease that has expired may have been acquired by another requester since (rule 15).
        let has_failed = |held: &HeldLease| refresh == Refresh::Failed && held.now(settings) < held.lease.until;
        let failed: Vec<bool> = held.iter().map(has_failed).collect();
        let release = |backend: &dyn Backend, deadline: Deadline| {
            backend.write(deadline, Durability::Relaxed, &mut |transaction| {
                let each = held.iter().zip(&failed).zip(&mut records).filter(|((held, _), _)| held.is_stored);
                for ((held, &has_failed), record) in each {
                    if has_failed && record.is_none() && !settings.longest_backoff.is_zero() {
                        let seen = transaction.lease(held.key.as_str())?;
                        let now = seen.now.unwrap_or_else(|| held.now(settings));
                        *record = Some(RefreshFailures::after_another(seen.failures.as_ref(), &held.fingerprint, now));
                    }
                    transaction.release_lease(held.key.as_str(), &held.lease.owner)?;
                    if let Some(record) = record {
                        // A failure that cannot be recorded must not keep the lease from being released.
                        let _ = transaction.record_failures(held.key.as_str(), record);
                    }
                }
                Ok(())
            })
        };
        let any_stored = held.iter().any(|held| held.is_stored);
        let released = if any_stored { self.run(Deadline::after(RELEASE_TIMEOUT), release) } else { Ok(()) };
        if released.is_err() {
            // The store is busy. The next release tries these leases again. Not those of a kept pair: no requester of
            // this process waits for them, and they expire by themselves.
            let again = held.into_iter().filter(|held| held.is_stored && refresh != Refresh::Kept);
            self.leases.with(|leases| {
                for held in again {
                    if !leases.iter().any(|newer| newer.key == held.key) {
                        leases.push(held);
                    }
                }
            });
            return Vec::new();
        }
        self.leases.failed.fetch_add(failed.iter().filter(|&&failed| failed).count() as u64, Ordering::Relaxed);
        held.into_iter().map(|held| held.key).collect()
    }

    /// Returns the calls that hold leases, for a search for abandoned ones. `None` if another thread has just searched.
    ///
    /// A search looks at the stack of every thread. One search serves all threads that wait: without this limit, 64
    /// waiting threads kept the interpreter busy with searches.
    pub fn calls_with_leases(&self) -> Option<Vec<(usize, Acquired)>> {
        let mut last_look = self.leases.last_look.try_lock()?;
        if last_look.is_some_and(|last_look| last_look.elapsed() < ABANDONED_CALL_POLL) {
            return None;
        }
        *last_look = Some(Instant::now());
        let acquired =
            |held: &HeldLease| Acquired { key: held.key.clone(), is_new: false, problem: None, number: held.number };
        Some(self.leases.with(|leases| leases.iter().map(|held| (held.call, acquired(held))).collect()))
    }

    /// Does this process hold any lease of this store?
    #[must_use]
    pub fn holds_leases(&self) -> bool {
        self.leases.count.load(Ordering::Relaxed) > 0
    }

    /// Returns the counters.
    #[must_use]
    pub fn lease_counters(&self) -> Counters {
        let leases = &self.leases;
        Counters {
            acquired: leases.acquired.load(Ordering::Relaxed),
            waited: leases.waited.load(Ordering::Relaxed),
            gave_up: leases.gave_up.load(Ordering::Relaxed),
            failed: leases.failed.load(Ordering::Relaxed),
            backed_off: leases.backed_off.load(Ordering::Relaxed),
            acquired_ahead: leases.acquired_ahead.load(Ordering::Relaxed),
            longest_wait: Duration::from_nanos(leases.longest_wait_ns.load(Ordering::Relaxed)),
        }
    }

    /// Counts a find that waited.
    pub fn count_wait(&self, waited: Duration, gave_up: bool) {
        let leases = &self.leases;
        leases.waited.fetch_add(1, Ordering::Relaxed);
        leases.gave_up.fetch_add(u64::from(gave_up), Ordering::Relaxed);
        leases.longest_wait_ns.fetch_max(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
