//! The connections of one store: at most a given number, opened when they are needed. The one that was used last is
//! used first, so that those which a store does not need stay unused, and the server or a pooler can end them.

use std::time::Duration;
use std::{mem, process};

use parking_lot::Condvar;

use super::address::Address;
use super::error::ServerFailure;
use super::link::Link;
use crate::store::deadline::Deadline;
use crate::store::fork_state;
use crate::store::lock_order::{Ordered, OrderedGuard, Rank};

/// How often a thread that waits for a connection looks whether the process is about to fork.
const FORK_POLL: Duration = Duration::from_millis(20);

/// How long a thread waits for the list, which is locked for a few instructions at a time. Only a fork in C code, which
/// inherits a locked list, makes a thread wait for so long.
const LIST_TIMEOUT: Duration = Duration::from_secs(1);

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

    /// Returns a connection for an attempt that ends at `limit`. Waits for a free one until `deadline`.
    pub(super) fn acquire(&self, deadline: Deadline, limit: impl FnOnce() -> Deadline) -> Result<Link, NoLink> {
        let mut links = self.lock(deadline).ok_or(NoLink::Busy)?;
        let link = loop {
            if let Some(link) = links.idle.pop() {
                break Some(link);
            }
            if links.open < self.most {
                links.open += 1;
                break None;
            }
            let left = deadline.left().filter(|_| !fork_state::is_fork_awaited()).ok_or(NoLink::Busy)?;
            self.freed.wait_for(links.inner(), left.min(FORK_POLL));
        };
        drop(links);
        // Only now: the wait for a connection is no part of the attempt.
        let limit = limit();
        if let Some(link) = link {
            link.begin_attempt(limit);
            return Ok(link);
        }
        Link::open(&self.address, limit).map_err(|failure| {
            self.forget_one();
            NoLink::Failed(failure)
        })
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

    /// Closes the idle connections. Those in use are closed when they are released.
    pub(super) fn close(&self) {
        let Some(mut links) = self.lock(Deadline::after(LIST_TIMEOUT)) else { return };
        links.is_closed = true;
        let idle = mem::take(&mut links.idle);
        links.open = links.open.saturating_sub(idle.len());
        drop(links);
        idle.into_iter().for_each(Link::close);
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
