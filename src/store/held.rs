//! The refresh leases that this process holds, and what they are called by: who asks, and what is given back.

use std::process;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::wait::Deadline;
use super::{Store, fork};
use crate::domain::lease::{Asker, Key, Lease};

/// A lease that this process holds.
#[derive(Clone, Debug)]
pub struct Turn {
    /// What it is for.
    pub key: Key,
    /// Was it taken just now? Otherwise its owner has come again.
    pub is_new: bool,
    number: u64,
}

pub(super) struct Held {
    pub(super) key: Key,
    pub(super) lease: Lease,
    /// The caller's mark of the decision that it was handed out for.
    pub(super) call: usize,
    /// Drawn anew when its owner comes again, so that an earlier turn can end nothing.
    number: u64,
}

#[derive(Default)]
struct List {
    process: u32,
    held: Vec<Held>,
}

/// The leases of one store that this process holds, and how often it had to do with any.
#[derive(Default)]
pub struct Leases {
    pub(super) length: Duration,
    held: Mutex<List>,
    /// How many are held, for a look without the lock.
    count: AtomicUsize,
    numbers: AtomicU64,
    taken: AtomicU64,
    waited: AtomicU64,
    gave_up: AtomicU64,
    longest_wait: AtomicU64,
    /// When somebody last looked which calls have ended.
    looked: Mutex<Option<Instant>>,
}

/// How often a store had to do with leases since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Leases taken.
    pub taken: u64,
    /// Finds that waited for another's refresh, however it ended.
    pub waited: u64,
    /// Those of them that went on without a fresh row.
    pub gave_up: u64,
    /// The longest wait.
    pub longest_wait: Duration,
}

/// A store that is to go on in the same process has few leases; no lock on their list is held for longer than a copy.
const FOR_THE_LIST: Duration = Duration::from_secs(1);

impl Leases {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, ..Self::default() }
    }

    pub(super) fn milliseconds(&self) -> i64 {
        i64::try_from(self.length.as_millis()).unwrap_or(i64::MAX)
    }

    /// Works on the list. Not at all if a fork from C left its lock held.
    pub(super) fn with<T: Default>(&self, work: impl FnOnce(&mut Vec<Held>) -> T) -> T {
        let deadline = Deadline::after(FOR_THE_LIST);
        let Some(_pass) = fork::enter(deadline) else { return T::default() };
        let Some(mut list) = deadline.lock(&self.held) else { return T::default() };
        if list.process != process::id() {
            // What stands there is our parent's, and not ours to give back.
            *list = List { process: process::id(), held: Vec::new() };
        }
        let done = work(&mut list.held);
        self.count.store(list.held.len(), Ordering::Relaxed);
        done
    }

    pub(super) fn hold(&self, key: Key, lease: Lease, call: usize, now: i64) -> Turn {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.taken.fetch_add(1, Ordering::Relaxed);
        let turn = Turn { key: key.clone(), is_new: true, number };
        self.with(|held| {
            // Those that are over are nobody's any more, whatever became of their refresh.
            held.retain(|held| held.lease.until > now && held.key != key);
            held.push(Held { key, lease, call, number });
        });
        turn
    }

    /// The owner has come again: from now on the lease is this call's.
    pub(super) fn come_again(&self, key: Key, call: usize) -> Turn {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.with(|all| {
            if let Some(held) = all.iter_mut().find(|held| held.key == key) {
                (held.call, held.number) = (call, number);
            }
        });
        Turn { key, is_new: false, number }
    }

    /// Takes those from the list that `which` names.
    pub(super) fn drop_out(&self, mut which: impl FnMut(&Held) -> bool) -> Vec<Held> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        self.with(|held| held.extract_if(.., |held| which(held)).collect())
    }
}

/// Who asks: a task of the calling thread; see [`Asker::new`]. `None`: this process has no name of its own just now.
#[must_use]
pub fn asker(task: u64, yields: bool) -> Option<Asker> {
    static PROCESS: Mutex<Option<(u32, String)>> = Mutex::new(None);
    static THREADS: AtomicU64 = AtomicU64::new(0);
    thread_local!(static THREAD: u64 = THREADS.fetch_add(1, Ordering::Relaxed));

    let deadline = Deadline::after(FOR_THE_LIST);
    let _pass = fork::enter(deadline)?;
    let mut process = deadline.lock(&PROCESS)?;
    let pid = process::id();
    // A forked child is another process, and draws a name of its own.
    if process.as_ref().is_none_or(|(named, _)| *named != pid) {
        let mut random = [0; 8];
        getrandom::fill(&mut random).ok()?;
        *process = Some((pid, format!("{pid}-{:016x}", u64::from_le_bytes(random))));
    }
    let (_, name) = process.as_ref()?;
    Some(Asker::new(name, THREAD.with(|number| *number), task, yields))
}

/// How long giving a lease back may wait for others, where nobody saves: it ends by itself anyway.
const FOR_GIVING_BACK: Duration = Duration::from_secs(1);

/// As often as one who waits alone looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

impl Store {
    /// Gives a turn back, unless it was given back already or came to its owner again. Tells whether it did.
    pub fn give_back(&self, turn: &Turn) -> bool {
        !self.give_back_those(|held| held.number == turn.number).is_empty()
    }

    /// Gives back what `owner` still holds for calls that have ended, as far as `ended` knows, and tells for what; but for
    /// what `asked` is after: for that its owner comes again.
    pub fn give_back_ended(&self, owner: &str, asked: &Key, ended: impl Fn(usize) -> bool) -> Vec<Key> {
        self.give_back_those(|held| held.lease.owner == owner && held.key != *asked && ended(held.call))
    }

    /// Gives back all that this process holds, and tells for what.
    pub fn give_back_all(&self) -> Vec<Key> {
        self.give_back_those(|_| true)
    }

    fn give_back_those(&self, which: impl FnMut(&Held) -> bool) -> Vec<Key> {
        let held = self.leases.drop_out(which);
        if held.is_empty() {
            return Vec::new();
        }
        let given = self.enter(Deadline::after(FOR_GIVING_BACK), |backend, deadline| {
            backend.write_lightly(deadline, &mut |change| {
                held.iter().try_for_each(|held| change.give_back(held.key.as_str(), &held.lease.owner))
            })
        });
        if given.is_err() {
            // Others keep the store busy. The next one to give something back tries these again.
            self.leases.with(|list| {
                for held in held {
                    if !list.iter().any(|newer| newer.key == held.key) {
                        list.push(held);
                    }
                }
            });
            return Vec::new();
        }
        held.into_iter().map(|held| held.key).collect()
    }

    /// The calls that this process holds leases for, and their turns, for somebody who looks which of them have ended; `None`
    /// if another looks just now. To see every thread's stack takes the longer the more threads there are, and one look is
    /// as good as each of them having one: 64 threads that waited kept Python busy with it.
    pub fn calls(&self) -> Option<Vec<(usize, Turn)>> {
        let mut looked = self.leases.looked.try_lock()?;
        if looked.is_some_and(|looked| looked.elapsed() < BETWEEN_LOOKS) {
            return None;
        }
        *looked = Some(Instant::now());
        let turn = |held: &Held| Turn { key: held.key.clone(), is_new: false, number: held.number };
        Some(self.leases.with(|held| held.iter().map(|held| (held.call, turn(held))).collect()))
    }

    /// Does this process hold any lease of the store's?
    #[must_use]
    pub fn holds_leases(&self) -> bool {
        self.leases.count.load(Ordering::Relaxed) > 0
    }

    /// How often this store had to do with leases.
    #[must_use]
    pub fn lease_counters(&self) -> Counters {
        let leases = &self.leases;
        Counters {
            taken: leases.taken.load(Ordering::Relaxed),
            waited: leases.waited.load(Ordering::Relaxed),
            gave_up: leases.gave_up.load(Ordering::Relaxed),
            longest_wait: Duration::from_nanos(leases.longest_wait.load(Ordering::Relaxed)),
        }
    }

    /// Counts a find that waited.
    pub fn count_wait(&self, waited: Duration, gave_up: bool) {
        let leases = &self.leases;
        leases.waited.fetch_add(1, Ordering::Relaxed);
        leases.gave_up.fetch_add(u64::from(gave_up), Ordering::Relaxed);
        leases.longest_wait.fetch_max(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
