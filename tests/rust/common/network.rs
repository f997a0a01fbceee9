//! A network that answers late and loses connections.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use zoho_token_store::store::backend::Location;
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::error::{Code, Error, Result};

#[derive(Default)]
pub(crate) struct Network {
    connections: AtomicUsize,
    /// The number of round trips so far.
    pub(crate) round_trips: Arc<AtomicUsize>,
}

/// A connection to the server at `location`, while an operation uses it.
pub(crate) struct Connection<'a> {
    network: &'a Network,
    location: &'a Location,
    number: usize,
    requests: &'a Cell<usize>,
}

impl Network {
    /// Runs `work` on a connection. If the connection is lost, runs it again on another one, until the deadline.
    pub(crate) fn run(
        &self,
        location: &Location,
        deadline: Deadline,
        mut work: impl FnMut(Connection<'_>) -> Result<()>,
    ) -> Result<()> {
        // A caller that may not wait cannot wait for a network either.
        while deadline.allows_slow_work() {
            let number = self.connections.fetch_add(1, Ordering::Relaxed);
            let requests = Cell::new(0);
            let result = work(Connection { network: self, location, number, requests: &requests });
            // Also if `work` has ignored the error of a request.
            if !is_lost(number, requests.get()) {
                return result;
            }
            if !deadline.sleep(1_000..5_000) {
                break;
            }
        }
        Err(deadline.busy(location))
    }
}

/// Every fourth connection is lost, on its first, second, third or fourth request.
fn is_lost(connection: usize, requests: usize) -> bool {
    connection % 4 == 3 && requests > connection / 4 % 4
}

impl Connection<'_> {
    /// Sends a request, and waits for the answer. Fails if the connection is lost.
    pub(crate) fn request(&self) -> Result<()> {
        thread::sleep(Duration::from_micros(fastrand::u64(1_000..3_000)));
        self.network.round_trips.fetch_add(1, Ordering::SeqCst);
        self.requests.set(self.requests.get() + 1);
        let lost = || Error::new(Code::DatabaseError, self.location).with("the connection was lost");
        if self.is_lost() { Err(lost()) } else { Ok(()) }
    }

    pub(crate) fn is_lost(&self) -> bool {
        is_lost(self.number, self.requests.get())
    }
}
