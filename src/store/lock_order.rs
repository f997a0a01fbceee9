//! Lock order. Every lock of this library is acquired in the order of [`Rank`], and a debug build asserts it.
//!
//! A thread that holds a lock acquires only locks that are further inside. So no two threads can wait for each other.
//! From the outermost to the innermost:
//!
//! 1. Python's GIL. A thread that holds it never waits for a lock: it releases the GIL first (`src/python/mod.rs`).
//! 2. The fork gate ([`super::fork::enter`]). It is no mutex: a fork waits until no operation is inside.
//! 3. The locks of [`Rank`], in its order. Each one is acquired with a deadline.
//! 4. The locks of a database file, which exclude other processes. Each is acquired right after the lock of the same
//!    rank that excludes other threads.
//! 5. The locks inside a database library.

use std::ops::{Deref, DerefMut};

use parking_lot::{Mutex, MutexGuard};

use super::deadline::Deadline;

/// The ranks of locks, from the outermost to the innermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The queue of a group commit. Held for a few instructions, never during a commit.
    GroupCommit,
    /// The backends that take part in a fork.
    Backends,
    /// What a store object currently works on: the rows in memory, or the database file that its path names.
    StoreState,
    /// The database files of this process.
    DatabaseRegistry,
    /// A connection. Held for as long as it is used.
    Connection,
    /// The file handle and locks that the connections to one file share.
    SharedLocks,
    /// Opening or tidying up a file.
    Opening,
    /// Writing to a file.
    Writing,
    /// The open handles of files that other code of this process may have open. Held for a few system calls.
    ShmHandles,
    /// The leases that this process holds, and the name of the process. Held for a few instructions, also inside a
    /// transaction.
    HeldLeases,
    /// The pairs that could not be saved. Held for a few instructions, also inside a transaction.
    UnsavedPairs,
    /// The keys of a store. Held for a few instructions, never while a source of keys is asked.
    Keys,
}

/// A mutex with a rank. It is only ever acquired with a deadline: after a fork a lock may have no owner any more.
pub struct Ordered<T> {
    rank: Rank,
    mutex: Mutex<T>,
}

impl<T> Ordered<T> {
    /// A mutex of this rank.
    pub const fn new(rank: Rank, value: T) -> Self {
        Self { rank, mutex: Mutex::new(value) }
    }

    /// Acquires the lock, or returns `None` if the deadline is over before.
    pub fn lock(&self, deadline: Deadline) -> Option<OrderedGuard<'_, T>> {
        let held = Held::new(self.rank);
        let guard = self.mutex.try_lock().or_else(|| self.mutex.try_lock_for(deadline.left()?))?;
        Some(OrderedGuard { guard, _held: held })
    }

    /// Acquires the lock if it is free.
    pub fn try_lock(&self) -> Option<OrderedGuard<'_, T>> {
        self.lock(Deadline::now())
    }

    /// The value, without a lock: no other thread has a reference to it.
    pub fn get_mut(&mut self) -> &mut T {
        self.mutex.get_mut()
    }
}

/// Holds the lock until it is dropped.
pub struct OrderedGuard<'a, T> {
    // Before the rank: a rank is given up after its lock.
    guard: MutexGuard<'a, T>,
    _held: Held,
}

impl<T> Deref for OrderedGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for OrderedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<'a, T> OrderedGuard<'a, T> {
    /// The guard of the mutex itself, for a condition variable.
    pub fn inner(&mut self) -> &mut MutexGuard<'a, T> {
        &mut self.guard
    }
}

/// Records in a debug build that this thread holds a lock. In a release build it is empty.
struct Held {
    #[cfg(debug_assertions)]
    rank: Rank,
}

#[cfg(debug_assertions)]
thread_local!(static HELD: std::cell::RefCell<Vec<Rank>> = const { std::cell::RefCell::new(Vec::new()) });

#[cfg(debug_assertions)]
impl Held {
    fn new(rank: Rank) -> Self {
        // A server such as uWSGI ends the interpreter after the thread-local values of its thread.
        let _ = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            let highest = held.iter().max();
            debug_assert!(highest.is_none_or(|&highest| highest < rank), "{rank:?} after {held:?}");
            held.push(rank);
        });
        Self { rank }
    }
}

#[cfg(debug_assertions)]
impl Drop for Held {
    fn drop(&mut self) {
        // A lock may also be dropped while a thread ends.
        let _ = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            if let Some(position) = held.iter().rposition(|&rank| rank == self.rank) {
                held.remove(position);
            }
        });
    }
}

#[cfg(not(debug_assertions))]
impl Held {
    const fn new(_: Rank) -> Self {
        Self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_acquired_in_the_order_of_their_ranks() {
        let outer = Ordered::new(Rank::StoreState, ());
        let inner = Ordered::new(Rank::Connection, ());
        let both = || (outer.try_lock().unwrap(), inner.try_lock().unwrap());
        drop(both());
        // Released in any order.
        let (first, second) = both();
        drop(first);
        drop(second);
        drop(both());
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "StoreState after [Connection]")]
    fn a_debug_build_asserts_the_order() {
        let outer = Ordered::new(Rank::StoreState, ());
        let inner = Ordered::new(Rank::Connection, ());
        let _inner = inner.try_lock();
        let _outer = outer.try_lock();
    }

    #[test]
    fn a_lock_is_waited_for_until_the_deadline() {
        let mutex = Ordered::new(Rank::Connection, 1);
        let _held = mutex.try_lock().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(mutex.lock(Deadline::after(std::time::Duration::from_millis(1))).is_none()));
        });
    }
}
