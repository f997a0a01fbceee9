//! Group commit: saves that arrive at the same time share one commit.
//!
//! Most of the time of a save is the wait for the disk, and one wait serves any number of saves. The first thread
//! becomes the leader. While the leader commits, others queue as followers. The next leader commits for all of them.

use std::mem;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Condvar;

use super::deadline::Deadline;
use super::error::Result;
use super::location::Location;
use super::lock_order::{Ordered, Rank};

/// Groups jobs of type `Job`, each of which has a result of type `Done`.
pub(super) struct GroupCommit<Job, Done> {
    queue: Ordered<Queue<Job, Done>>,
    /// Signalled when a leader has finished.
    finished: Condvar,
}

struct Queue<Job, Done> {
    /// The followers whose jobs no leader has started.
    pending: Vec<Arc<Pending<Job, Done>>>,
    has_leader: bool,
}

struct Pending<Job, Done> {
    job: Job,
    /// Set by the leader. `None`: the group failed as a whole, and this job has to be tried alone.
    result: OnceLock<Option<Done>>,
}

/// How often a follower whose deadline is over looks for its result. The leader's deadline does not bound its fsync, so
/// a follower whose job has been started cannot give up.
const STARTED_JOB_POLL: Duration = Duration::from_secs(1);

impl<Job, Done> Default for GroupCommit<Job, Done> {
    fn default() -> Self {
        let queue = Queue { pending: Vec::new(), has_leader: false };
        Self { queue: Ordered::new(Rank::GroupCommit, queue), finished: Condvar::new() }
    }
}

impl<Job, Done: Clone> GroupCommit<Job, Done> {
    /// Runs the job, alone or in a group. `commit` does several jobs at once: all of them or none.
    ///
    /// A failing job does not fail the others: if a group fails, each of its jobs is tried alone.
    pub(super) fn run(
        &self,
        job: Job,
        deadline: Deadline,
        location: &Location,
        mut commit: impl FnMut(&[&Job]) -> Result<Vec<Done>>,
    ) -> Result<Done> {
        let mine = Arc::new(Pending { job, result: OnceLock::new() });
        let mut queue = self.queue.lock(deadline).ok_or_else(|| deadline.busy(location))?;
        queue.pending.push(Arc::clone(&mine));
        while queue.has_leader {
            self.finished.wait_for(queue.inner(), deadline.left().unwrap_or(STARTED_JOB_POLL));
            if let Some(Some(done)) = mine.result.get() {
                return Ok(done.clone());
            }
            // A job that a leader has started is not pending any more. Its result will come.
            if deadline.left().is_none() && queue.remove(&mine) {
                return Err(deadline.busy(location));
            }
        }
        let group = if mine.result.get().is_none() { mem::take(&mut queue.pending) } else { Vec::new() };
        queue.has_leader = true;
        drop(queue);
        let _leadership = Leadership(self);
        if group.len() > 1 {
            let jobs: Vec<&Job> = group.iter().map(|pending| &pending.job).collect();
            let mut results = commit(&jobs).ok().map(Vec::into_iter);
            for pending in &group {
                let _ = pending.result.set(results.as_mut().and_then(Iterator::next));
            }
        }
        match mine.result.get() {
            Some(Some(done)) => Ok(done.clone()),
            _ => commit(&[&mine.job])?.pop().ok_or_else(|| deadline.busy(location)),
        }
    }
}

impl<Job, Done> Queue<Job, Done> {
    /// Removes a job, and returns whether it was still pending.
    fn remove(&mut self, mine: &Arc<Pending<Job, Done>>) -> bool {
        let before = self.pending.len();
        self.pending.retain(|other| !Arc::ptr_eq(other, mine));
        self.pending.len() < before
    }
}

/// Held by the leader. Its end wakes the followers.
struct Leadership<'a, Job, Done>(&'a GroupCommit<Job, Done>);

impl<Job, Done> Drop for Leadership<'_, Job, Done> {
    fn drop(&mut self) {
        // The queue is locked for a few instructions at a time, so an hour is as good as no deadline.
        if let Some(mut queue) = self.0.queue.lock(Deadline::after(Duration::from_hours(1))) {
            queue.has_leader = false;
        }
        self.0.finished.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;
    use crate::store::Error;

    const TIMEOUT: Duration = Duration::from_secs(20);
    const LOCATION: Location = Location::named("a test");

    fn run(group: &GroupCommit<u32, u32>, job: u32, commit: impl FnMut(&[&u32]) -> Result<Vec<u32>>) -> Result<u32> {
        group.run(job, Deadline::after(TIMEOUT), &LOCATION, commit)
    }

    fn double(jobs: &[&u32]) -> Vec<u32> {
        jobs.iter().map(|&job| 2 * job).collect()
    }

    /// Queues `count` followers behind a leader. Returns their results and the number of commits.
    fn followers(count: u32, commit: impl Fn(&[&u32]) -> Result<Vec<u32>> + Sync) -> (Vec<Result<u32>>, usize) {
        let (group, commits) = (GroupCommit::default(), AtomicUsize::new(0));
        let results = thread::scope(|scope| {
            let (group, commit, commits) = (&group, &commit, &commits);
            let mut followers = Vec::new();
            run(group, 0, |jobs| {
                for job in 1..=count {
                    followers.push(scope.spawn(move || {
                        run(group, job, |jobs| {
                            commits.fetch_add(1, Ordering::Relaxed);
                            commit(jobs)
                        })
                    }));
                }
                let deadline = Deadline::after(TIMEOUT);
                let pending = || group.queue.try_lock().map_or(0, |queue| queue.pending.len());
                while pending() < count as usize && deadline.sleep(100..1_000) {}
                Ok(double(jobs))
            })
            .unwrap();
            followers.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        (results, commits.into_inner())
    }

    #[test]
    fn followers_of_one_leader_share_the_next_commit() {
        let (results, commits) = followers(7, |jobs| Ok(double(jobs)));
        assert_eq!(results.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [2, 4, 6, 8, 10, 12, 14]);
        assert_eq!(commits, 1);
    }

    #[test]
    fn a_failing_job_does_not_fail_the_others() {
        let (results, commits) = followers(3, |jobs| {
            if jobs.contains(&&2) { Err(Error::invalid_argument("made to fail")) } else { Ok(double(jobs)) }
        });
        let results: Vec<_> = results.into_iter().map(Result::ok).collect();
        assert_eq!(results, [Some(2), None, Some(6)]);
        assert_eq!(commits, 4, "once together, and each alone");
    }

    #[test]
    fn a_job_that_timed_out_is_not_done_later() {
        let group = GroupCommit::default();
        let late = || group.run(1, Deadline::now(), &LOCATION, |jobs| Ok(double(jobs)));
        let first = run(&group, 0, |jobs| {
            assert!(late().is_err_and(|error| error.is_busy()));
            Ok(double(jobs))
        });
        assert_eq!(first.ok(), Some(0));
        let jobs = |jobs: &[&u32]| {
            assert_eq!(jobs, [&2]);
            Ok(double(jobs))
        };
        assert_eq!(run(&group, 2, jobs).ok(), Some(4));
    }
}
