//! The connections of one store: at most a given number, opened when they are needed. The one that was used last is
//! used first, so that those which a store does not need stay unused, and the server or a pooler can end them.

use std::time::{Duration, Instant};
use std::{mem, process};

use parking_lot::Condvar;

use super::address::Address;
use super::error::ServerFailure;
use super::link::Link;
use crate::store::deadline::Deadline;
use crate::store::lock_order::{Ordered, OrderedGuard, Rank};
use crate::store::{fork, fork_state};

/// How often a thread that waits for a connection looks whether the process is about to fork.
const FORK_POLL: Duration = Duration::from_millis(20);

/// How long a thread waits for the list, which is locked for a few instructions at a time. Only a fork in C code, which
/// inherits a locked list, makes a thread wait for so long.
const LIST_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the ends of all connections of a store may take. The server ends a session by itself if it hears nothing.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a caller may wait for the ends of connections. One that may do no slow work may hold the GIL.
fn goodbye_time(deadline: Deadline) -> Duration {
    if deadline.allows_slow_work() { GOODBYE_TIMEOUT } else { Duration::ZERO }
}

/// The connections of a store.
pub(super) struct Pool {
    links: Ordered<Links>,
    /// Signalled when a connection is free, or was dropped.
    freed: Condvar,
    address: Address,
    most: usize,
}

struct Links {
    idle: Vec<Link>,
    /// How many connections are idle or in use.
    open: usize,
    /// A forked child begins with none.
    process: u32,
    is_closed: bool,
}

/// How long a call may take, and the password that the program's function has returned for it.
pub(super) struct CallBudget {
    /// The time of that function does not count.
    pub(super) deadline: Deadline,
    password: Option<String>,
    /// There is no function, or it has returned a password.
    is_ready: bool,
}

impl CallBudget {
    pub(super) const fn new(deadline: Deadline) -> Self {
        Self { deadline, password: None, is_ready: false }
    }

    /// Calls the function. No lock is held meanwhile, and a fork does not wait for it.
    fn ask_password(&mut self, address: &Address) -> Result<(), NoLink> {
        let begun = Instant::now();
        let asked = fork::away(|| address.ask_password());
        self.deadline = self.deadline.without(begun.elapsed());
        self.password = asked.map_err(|error| NoLink::Failed(ServerFailure::Final(error)))?;
        self.is_ready = true;
        Ok(())
    }
}

/// Why there is no connection.
pub(super) enum NoLink {
    /// All connections are in use.
    Busy,
    /// It could not be opened.
    Failed(ServerFailure),
}

impl Pool {
    pub(super) fn new(address: Address, most: usize) -> Self {
        let links = Links { idle: Vec::new(), open: 0, process: process::id(), is_closed: false };
        Self { links: Ordered::new(Rank::Connection, links), freed: Condvar::new(), address, most: most.max(1) }
    }

    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    fn lock(&self, deadline: Deadline) -> Option<OrderedGuard<'_, Links>> {
        let mut links = self.links.lock(deadline)?;
        if links.process != process::id() {
            // The links of the parent are forgotten, not closed: see `Link::drop`.
            *links = Links { idle: Vec::new(), open: 0, process: process::id(), is_closed: links.is_closed };
        }
        Some(links)
    }

    /// Returns a connection for an attempt. Waits for a free one until the deadline.
    pub(super) fn acquire(&self, budget: &mut CallBudget) -> Result<Link, NoLink> {
        let mut idle = self.reserve(budget)?;
        if idle.is_none() && !budget.is_ready {
            budget.ask_password(&self.address)?;
            idle = self.reserve(budget)?;
        }
        if let Some(link) = idle {
            link.begin_attempt(budget.deadline);
            return Ok(link);
        }
        Link::open(&self.address, budget.password.as_deref(), budget.deadline).map_err(|failure| {
            self.forget_one();
            NoLink::Failed(failure)
        })
    }

    /// Returns an idle connection, or `None` if the caller may open one. That is counted once the caller has the
    /// password.
    fn reserve(&self, budget: &CallBudget) -> Result<Option<Link>, NoLink> {
        let deadline = budget.deadline;
        let mut links = self.lock(deadline).ok_or(NoLink::Busy)?;
        loop {
            if let Some(link) = links.idle.pop() {
                return Ok(Some(link));
            }
            if links.open < self.most {
                links.open += usize::from(budget.is_ready);
                return Ok(None);
            }
            let left = deadline.left().filter(|_| !fork_state::is_fork_awaited()).ok_or(NoLink::Busy)?;
            self.freed.wait_for(links.inner(), left.min(FORK_POLL));
        }
    }

    /// Takes a connection back, or drops it if it cannot be used again.
    pub(super) fn release(&self, link: Link) {
        let Some(mut links) = self.lock(Deadline::after(LIST_TIMEOUT)) else { return };
        if link.is_usable() && !links.is_closed && links.open <= self.most {
            links.idle.push(link);
            self.freed.notify_one();
            return;
        }
        drop(links);
        drop(link);
        self.forget_one();
    }

    /// Drops the idle connections: the server has ended one of them, and so probably all.
    pub(super) fn drop_idle(&self) {
        let Some(mut links) = self.lock(Deadline::after(LIST_TIMEOUT)) else { return };
        let idle = mem::take(&mut links.idle);
        links.open = links.open.saturating_sub(idle.len());
        drop(links);
        self.freed.notify_all();
    }

    /// Closes the idle connections. Those in use are closed when they are released. A caller that may not wait does not
    /// wait for a connection that takes no more data.
    pub(super) fn close(&self, deadline: Deadline) {
        let Some(mut links) = self.lock(Deadline::after(LIST_TIMEOUT)) else { return };
        links.is_closed = true;
        let idle = mem::take(&mut links.idle);
        links.open = links.open.saturating_sub(idle.len());
        drop(links);
        let end = Deadline::after(goodbye_time(deadline));
        for link in idle {
            link.close(end.left().unwrap_or_default());
        }
    }

    /// Forgets the connections of the parent, in a forked child.
    pub(super) fn after_fork(&self) {
        drop(self.lock(Deadline::after(LIST_TIMEOUT)));
    }

    fn forget_one(&self) {
        if let Some(mut links) = self.lock(Deadline::after(LIST_TIMEOUT)) {
            links.open = links.open.saturating_sub(1);
        }
        self.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_may_not_wait_waits_for_no_end_of_a_connection() {
        assert_eq!(goodbye_time(Deadline::now()), Duration::ZERO);
        assert_eq!(goodbye_time(Deadline::after(Duration::from_secs(5))), GOODBYE_TIMEOUT);
    }
}
