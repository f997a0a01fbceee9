//! Saves that come at the same time, made in one change.
//!
//! To wait for the disk takes most of the time of a save, and one wait can serve any number of them: whoever has its turn
//! saves for all who came while it waited for that.

use std::mem;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::wait::Deadline;
use super::{Place, Result};

/// What is to be done with others' `Job`s, and what comes of each: `Done`.
pub(super) struct Group<Job, Done> {
    state: Mutex<State<Job, Done>>,
    /// Somebody's turn has ended.
    ended: Condvar,
}

struct State<Job, Done> {
    /// Those with whom nobody has begun.
    waiting: Vec<Arc<Waiting<Job, Done>>>,
    is_busy: bool,
}

struct Waiting<Job, Done> {
    job: Job,
    /// What came of it in another's turn. `None`: together with others it failed, and is to be tried alone.
    done: OnceLock<Option<Done>>,
}

/// Whoever does somebody's job has a deadline of its own, but for the disk: there is nothing to do but to look again.
const FOR_ANOTHERS_TURN: Duration = Duration::from_secs(1);

impl<Job, Done> Default for Group<Job, Done> {
    fn default() -> Self {
        Self { state: Mutex::new(State { waiting: Vec::new(), is_busy: false }), ended: Condvar::new() }
    }
}

impl<Job, Done: Clone> Group<Job, Done> {
    /// Does the job, or has it done. `all` does several at once, all of them or none.
    ///
    /// Each fails for itself alone: if all together fail, each is done by itself.
    pub(super) fn run(
        &self,
        job: Job,
        deadline: Deadline,
        place: &Place,
        mut all: impl FnMut(&[&Job]) -> Result<Vec<Done>>,
    ) -> Result<Done> {
        let mine = Arc::new(Waiting { job, done: OnceLock::new() });
        let mut state = deadline.lock(&self.state).ok_or_else(|| deadline.busy(place))?;
        state.waiting.push(Arc::clone(&mine));
        while state.is_busy {
            self.ended.wait_for(&mut state, deadline.left().unwrap_or(FOR_ANOTHERS_TURN));
            if let Some(Some(done)) = mine.done.get() {
                return Ok(done.clone());
            }
            // Whoever has begun with it says what came of it.
            if deadline.left().is_none() && state.take_back(&mine) {
                return Err(deadline.busy(place));
            }
        }
        let together = if mine.done.get().is_none() { mem::take(&mut state.waiting) } else { Vec::new() };
        state.is_busy = true;
        drop(state);
        let _turn = Turn(self);
        if together.len() > 1 {
            let jobs: Vec<&Job> = together.iter().map(|waiting| &waiting.job).collect();
            let mut done = all(&jobs).ok().map(Vec::into_iter);
            for waiting in &together {
                let _ = waiting.done.set(done.as_mut().and_then(Iterator::next));
            }
        }
        match mine.done.get() {
            Some(Some(done)) => Ok(done.clone()),
            _ => all(&[&mine.job])?.pop().ok_or_else(|| deadline.busy(place)),
        }
    }
}

impl<Job, Done> State<Job, Done> {
    /// Tells whether nobody has begun with it.
    fn take_back(&mut self, mine: &Arc<Waiting<Job, Done>>) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|other| !Arc::ptr_eq(other, mine));
        self.waiting.len() < before
    }
}

struct Turn<'a, Job, Done>(&'a Group<Job, Done>);

impl<Job, Done> Drop for Turn<'_, Job, Done> {
    fn drop(&mut self) {
        self.0.state.lock().is_busy = false;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;
    use crate::store::Error;

    const IN_TIME: Duration = Duration::from_secs(20);

    fn run(group: &Group<u32, u32>, job: u32, all: impl FnMut(&[&u32]) -> Result<Vec<u32>>) -> Result<u32> {
        group.run(job, Deadline::after(IN_TIME), &Place::Memory, all)
    }

    fn twice(jobs: &[&u32]) -> Vec<u32> {
        jobs.iter().map(|&job| 2 * job).collect()
    }

    /// Has `others` wait for the turn of a first one, and tells what came of them, and what was done in how many goes.
    fn behind_a_first(others: u32, all: impl Fn(&[&u32]) -> Result<Vec<u32>> + Sync) -> (Vec<Result<u32>>, usize) {
        let (group, goes) = (Group::default(), AtomicUsize::new(0));
        let done = thread::scope(|scope| {
            let (group, all, goes) = (&group, &all, &goes);
            let mut waiting = Vec::new();
            run(group, 0, |jobs| {
                for job in 1..=others {
                    waiting.push(scope.spawn(move || {
                        run(group, job, |jobs| {
                            goes.fetch_add(1, Ordering::Relaxed);
                            all(jobs)
                        })
                    }));
                }
                let deadline = Deadline::after(IN_TIME);
                while group.state.lock().waiting.len() < others as usize && deadline.sleep() {}
                Ok(twice(jobs))
            })
            .unwrap();
            waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        (done, goes.into_inner())
    }

    #[test]
    fn who_waits_for_one_turn_is_served_in_the_next() {
        let (done, goes) = behind_a_first(7, |jobs| Ok(twice(jobs)));
        assert_eq!(done.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [2, 4, 6, 8, 10, 12, 14]);
        assert_eq!(goes, 1);
    }

    #[test]
    fn each_fails_for_itself_alone() {
        let (done, goes) = behind_a_first(3, |jobs| {
            if jobs.contains(&&2) { Err(Error::BadInput("made to fail".to_owned())) } else { Ok(twice(jobs)) }
        });
        let done: Vec<_> = done.into_iter().map(Result::ok).collect();
        assert_eq!(done, [Some(2), None, Some(6)]);
        assert_eq!(goes, 4, "once together, and each alone");
    }

    #[test]
    fn who_waits_in_vain_was_not_served() {
        let group = Group::default();
        let late = || group.run(1, Deadline::now(), &Place::Memory, |jobs| Ok(twice(jobs)));
        let first = run(&group, 0, |jobs| {
            assert!(late().is_err_and(|error| error.is_busy()));
            Ok(twice(jobs))
        });
        assert_eq!(first.ok(), Some(0));
        let jobs = |jobs: &[&u32]| {
            assert_eq!(jobs, [&2]);
            Ok(twice(jobs))
        };
        assert_eq!(run(&group, 2, jobs).ok(), Some(4));
    }
}
