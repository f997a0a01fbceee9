//! Keys that a source supplies, and when it is asked.
//!
//! A source of keys, such as a file or a key service, is asked when the store is made, again when a row needs a key
//! that is not there, before some writes ([`crate::domain::key_ring::ask_first`]), and before a rotation. So keys are
//! rotated without a restart. The source is never asked inside of an operation: it may take seconds, run any code, and
//! use the store itself.

use std::ops::Range;
use std::process;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::deadline::Deadline;
use super::error::Result;
use super::location::Location;
use super::lock_order::{Ordered, Rank};
use crate::domain::key_ring::{AskFirst, Ring};

/// Supplies the keys of a store.
pub trait KeySource: Send + Sync {
    /// Returns all keys, in their order.
    fn keys(&self) -> Result<Ring>;

    /// Does it run functions of the program? See [`super::backend::Backend::runs_foreign_code`].
    fn runs_foreign_code(&self) -> bool {
        false
    }

    /// Waits while another thread asks it.
    fn wait(&self, time: Duration) {
        thread::sleep(time);
    }

    /// Identifies the task of this thread that is running now, such as a greenlet. 0: the thread has one task.
    fn task(&self) -> u64 {
        0
    }
}

impl<F: Fn() -> Result<Ring> + Send + Sync> KeySource for F {
    fn keys(&self) -> Result<Ring> {
        self()
    }
}

/// The keys of a store that has a source of keys.
pub(super) struct SuppliedKeys {
    source: Arc<dyn KeySource>,
    state: Ordered<Supply>,
}

struct Supply {
    ring: Arc<Ring>,
    /// How often the keys have changed.
    generation: u64,
    /// When the source was last asked because of a missing key.
    asked_at: Option<Instant>,
    /// When the last question for any reason was put.
    last_asked: Instant,
    /// Which task is asking it now.
    asking: Option<Asker>,
}

/// A task that asks a source.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Asker {
    process: u32,
    thread: ThreadId,
    task: u64,
}

/// How an asker relates to the task that is running.
enum Other {
    /// It is this task: the source uses the store itself, and would wait for its own answer.
    Itself,
    /// Another thread of this process will have the answer.
    Waits,
    /// There is no use in waiting. The asker is another task of this thread, which cannot go on meanwhile. Or it was a
    /// thread of the parent process, which does not exist here.
    Blocked,
}

impl Asker {
    fn current(source: &dyn KeySource) -> Self {
        Self { process: process::id(), thread: thread::current().id(), task: source.task() }
    }

    /// How `other` relates to this task. After a fork, the thread that has forked goes on in the child, and a source
    /// may fork.
    fn relation(self, other: Self) -> Other {
        match (self.thread == other.thread, self.task == other.task, self.process == other.process) {
            (true, true, _) => Other::Itself,
            (false, _, true) => Other::Waits,
            (true, false, _) | (false, _, false) => Other::Blocked,
        }
    }
}

/// The shortest time between two questions to a source, after the first one.
const ASK_PAUSE: Duration = Duration::from_secs(30);

/// How often a thread looks whether another one has got an answer, in microseconds.
const ASK_POLL: Range<u64> = 5_000..20_000;

fn ask_poll() -> Duration {
    Duration::from_micros(fastrand::u64(ASK_POLL))
}

/// How long a thread waits for the lock. It is held for a few instructions. So only a fork in C code, which inherits a
/// locked mutex, makes a thread wait for so long.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// What became of an attempt to get a missing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// The keys have changed. The operation may succeed now.
    Renewed,
    /// There is no other key.
    Unchanged,
    /// The source would have to be asked, and the caller may not wait for that.
    WouldWait,
}

impl SuppliedKeys {
    /// Asks `source` now.
    pub(super) fn new(source: Arc<dyn KeySource>) -> Result<Self> {
        let supply = Supply {
            ring: Arc::new(source.keys()?),
            generation: 0,
            asked_at: None,
            last_asked: Instant::now(),
            asking: None,
        };
        Ok(Self { source, state: Ordered::new(Rank::Keys, supply) })
    }

    /// Does a question run functions of the program?
    pub(super) fn run_foreign_code(&self) -> bool {
        self.source.runs_foreign_code()
    }

    /// The keys now. `None`: they cannot be read before the deadline.
    pub(super) fn ring(&self) -> Option<Arc<Ring>> {
        Some(Arc::clone(&self.state.lock(Deadline::after(LOCK_TIMEOUT))?.ring))
    }

    /// Identifies the keys: it differs once they have changed.
    pub(super) fn generation(&self) -> u64 {
        self.state.lock(Deadline::after(LOCK_TIMEOUT)).map_or(0, |supply| supply.generation)
    }

    /// Asks the source again because a key is missing: at once the first time, and then at most every 30 s. `seen` is
    /// the generation in which it was missing. While another thread is asking, this one waits for the answer.
    ///
    /// Precondition: the caller holds no lock and runs no operation.
    pub(super) fn renew(&self, seen: u64, deadline: Deadline) -> Renewal {
        let Self { source, state } = self;
        let me = Asker::current(&**source);
        loop {
            let Some(mut supply) = state.lock(Deadline::after(LOCK_TIMEOUT)) else { return Renewal::Unchanged };
            if supply.generation != seen {
                return Renewal::Renewed;
            }
            let asking = supply.asking.map(|other| me.relation(other)).filter(|other| !matches!(other, Other::Blocked));
            if asking.is_none() && supply.asked_at.is_some_and(|asked_at| asked_at.elapsed() < ASK_PAUSE) {
                return Renewal::Unchanged;
            }
            if !deadline.allows_slow_work() {
                return Renewal::WouldWait;
            }
            if asking.is_none() {
                supply.asking = Some(me);
                break;
            }
            drop(supply);
            if matches!(asking, Some(Other::Itself)) {
                return Renewal::Unchanged;
            }
            let Some(left) = deadline.left() else { return Renewal::WouldWait };
            source.wait(left.min(ask_poll()));
        }
        // The error of the operation says which key is missing.
        let _ = Question::new(state, me, Reason::MissingKey).put(&**source);
        // Another task of this thread may have had the answer first.
        if self.generation() == seen { Renewal::Unchanged } else { Renewal::Renewed }
    }

    /// Need the source not be asked before a write? An operation that has asked it does not call this.
    pub(super) fn has_answered(&self, asks: AskFirst) -> bool {
        match asks {
            AskFirst::No => true,
            AskFirst::UnlessAskedLately => {
                let supply = self.state.lock(Deadline::after(LOCK_TIMEOUT));
                supply.is_none_or(|supply| supply.last_asked.elapsed() < ASK_PAUSE)
            }
            AskFirst::Yes => false,
        }
    }

    /// Asks the source because a write needs it, unless it was asked after `since`, or has returned other keys than
    /// those of the generation `seen`. If it fails, or if another thread has no answer before the deadline, the keys stay
    /// as they are: a save must not fail because a source that was there before is away.
    ///
    /// Precondition: the caller holds no lock and runs no operation.
    pub(super) fn confirm(&self, since: Instant, seen: u64, location: &Location, deadline: Deadline) -> Result<()> {
        self.ask_for(Reason::Write { since, seen }, location, deadline)
    }

    /// Asks the source now, however short a time ago it was asked. If another thread is asking, this one waits, and then
    /// asks: the other answer may be older. This does not count among the questions because of a missing key.
    ///
    /// Precondition: the caller holds no lock and runs no operation.
    pub(super) fn ask(&self, location: &Location, deadline: Deadline) -> Result<()> {
        self.ask_for(Reason::Rotation, location, deadline)
    }

    fn ask_for(&self, reason: Reason, location: &Location, deadline: Deadline) -> Result<()> {
        let Self { source, state } = self;
        let me = Asker::current(&**source);
        loop {
            let busy = || deadline.busy(location);
            let mut supply = state.lock(Deadline::after(LOCK_TIMEOUT)).ok_or_else(busy)?;
            if matches!(reason, Reason::Write { since, seen } if supply.generation != seen || supply.last_asked > since)
            {
                return Ok(());
            }
            match supply.asking.map(|other| me.relation(other)) {
                None | Some(Other::Blocked) => {
                    supply.asking = Some(me);
                    break;
                }
                Some(Other::Itself) => return Ok(()),
                Some(Other::Waits) => drop(supply),
            }
            let Some(left) = deadline.left() else {
                return if matches!(reason, Reason::Write { .. }) { Ok(()) } else { Err(busy()) };
            };
            source.wait(left.min(ask_poll()));
        }
        let answer = Question::new(state, me, reason).put(&**source);
        if matches!(reason, Reason::Write { .. }) { Ok(()) } else { answer }
    }
}

/// Why the source is asked.
#[derive(Clone, Copy)]
enum Reason {
    /// A row needs a key that is not here.
    MissingKey,
    /// A write needs it ([`AskFirst`]). `since`: when the operation began. `seen`: the generation of its keys.
    Write { since: Instant, seen: u64 },
    /// A rotation begins.
    Rotation,
}

/// A question to the source. It ends even if the source panics.
struct Question<'a> {
    state: &'a Ordered<Supply>,
    asking: Asker,
    reason: Reason,
    begun: Instant,
}

impl<'a> Question<'a> {
    fn new(state: &'a Ordered<Supply>, asking: Asker, reason: Reason) -> Self {
        Self { state, asking, reason, begun: Instant::now() }
    }

    /// Asks `source`, and takes its keys.
    fn put(self, source: &dyn KeySource) -> Result<()> {
        let answer = source.keys();
        let Some(mut supply) = self.state.lock(Deadline::after(LOCK_TIMEOUT)) else { return Ok(()) };
        // In one step with the answer: other threads wait for it until then.
        self.end(&mut supply);
        let ring = answer?;
        if ring.names().eq(supply.ring.names()) {
            return Ok(());
        }
        supply.ring = Arc::new(ring);
        supply.generation += 1;
        Ok(())
    }

    fn end(&self, supply: &mut Supply) {
        if supply.asking == Some(self.asking) {
            supply.asking = None;
            // An answer may be as old as the question.
            supply.last_asked = self.begun;
            if matches!(self.reason, Reason::MissingKey) {
                // The pause until the next such question begins.
                supply.asked_at = Some(Instant::now());
            }
        }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(mut supply) = self.state.lock(Deadline::after(LOCK_TIMEOUT))
        {
            self.end(&mut supply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_waits_only_for_other_threads_of_its_process() {
        let (here, elsewhere) = (thread::current().id(), thread::spawn(|| {}).thread().id());
        let me = Asker { process: 1, thread: here, task: 7 };
        let table = [
            // process, thread, task, relation
            (1, here, 7, "itself"),
            (2, here, 7, "itself"),
            (1, here, 8, "blocked"),
            (2, here, 8, "blocked"),
            (1, elsewhere, 7, "waits"),
            (1, elsewhere, 8, "waits"),
            (2, elsewhere, 7, "blocked"),
        ];
        for (process, thread, task, expected) in table {
            let relation = match me.relation(Asker { process, thread, task }) {
                Other::Itself => "itself",
                Other::Waits => "waits",
                Other::Blocked => "blocked",
            };
            assert_eq!(relation, expected, "{process} {thread:?} {task}");
        }
    }

    #[test]
    fn a_write_asks_first_unless_it_needs_not() {
        let ring = Ring::clear_text;
        let kinds = [AskFirst::No, AskFirst::UnlessAskedLately, AskFirst::Yes];
        let table = [
            // how long ago it was asked, the answers
            (Duration::ZERO, [true, true, false]),
            (ASK_PAUSE + Duration::from_secs(1), [true, false, false]),
        ];
        for (asked, expected) in table {
            let keys = SuppliedKeys::new(Arc::new(move || Ok(ring()))).unwrap();
            let asked_at = Instant::now().checked_sub(asked).unwrap();
            keys.state.lock(Deadline::after(LOCK_TIMEOUT)).unwrap().last_asked = asked_at;
            assert_eq!(kinds.map(|asks| keys.has_answered(asks)), expected, "{asked:?}");
        }
    }
}
