//! The refresh lease over any backend: one look at row and lease, acquiring the lease, and a save that releases it.
//!
//! It decides nothing ([`crate::domain::lease`] does), and it does not wait for a refresh: the caller waits, and then
//! calls [`Store::try_acquire`] again. A problem with a lease is never an error of the operation. It means "no lease"
//! (rule 1).

use std::time::Duration;

use super::backend::{Backend, Durability, Snapshot};
use super::deadline::Deadline;
use super::error::{Error, Result, describe_id};
use super::held_leases::{Acquired, HeldLease, HeldLeases};
use super::save::{KeyedLease, Saved};
use super::{Found, Store, present};
use crate::domain::backoff::{self, RefreshFailures};
use crate::domain::lease::{self, Decision, Lease, LeaseKey, Requester, Settings};
use crate::domain::{Key, Row, Token, identity};

/// What a requester looks for.
#[derive(Clone, Copy)]
pub enum Lookup<'a> {
    /// The row that a token names.
    Token(Token<'a>),
    /// The row with an id.
    Id(Option<&'a str>),
}

impl<'a> Lookup<'a> {
    pub(super) fn find(self, rows: &dyn Snapshot) -> Result<Option<Row>> {
        match self {
            Self::Token(token) => identity::find(token, |keys, accept| rows.by_keys(keys, accept)),
            Self::Id(id) => present(id).map_or(Ok(None), |id| Ok(rows.by_key(Key::Id, id)?.pop())),
        }
    }

    /// The key of the lease if there is no row.
    fn key_without_row(self) -> Option<LeaseKey> {
        lease::lease_key(self.completed(None), None)
    }

    /// The token that the SDK will get.
    fn completed<'b>(self, found: Option<&'b Found>) -> Token<'b>
    where
        'a: 'b,
    {
        match (self, found) {
            (Self::Token(token), Some(found)) => found.complete(token),
            (Self::Token(token), None) => token,
            (Self::Id(_), Some(found)) => found.row(),
            (Self::Id(_), None) => Token::default(),
        }
    }
}

/// The result of [`Store::try_acquire`].
pub struct Attempt {
    /// The row, as of this attempt.
    pub found: Option<Found>,
    /// What the requester has to do.
    pub outcome: Outcome,
}

/// What a requester has to do.
pub enum Outcome {
    /// Return the row. No refresh is due.
    Serve,
    /// Return the row, so that the SDK refreshes it. The lease is to be released if nobody saves a new token.
    Refresh(Acquired),
    /// Another requester refreshes. Try again later. The last value is the time by the clock that the lease expires by.
    Wait(LeaseKey, Lease, i64),
    /// Fail with this error: the last refreshes have failed, and the next one may begin after this time.
    BackOff(Error, Duration),
    /// No lease can be acquired now: the store is busy, or its server does not answer. Try again later.
    TryAgain(Error),
    /// Return the row. There is a problem with the lease.
    NoLease(Error),
}

/// What a requester asks for.
struct Request<'a> {
    lookup: Lookup<'a>,
    requester: &'a Requester,
    call: usize,
    clock: &'a (dyn Fn() -> i64 + Sync),
    /// How much earlier than the SDK the row is refreshed, in milliseconds.
    lead: i64,
}

/// Row and lease, read in one snapshot, and the decision.
#[derive(Default)]
struct View {
    found: Option<Found>,
    decision: Option<(Decision, LeaseKey)>,
    lease: Option<Lease>,
    failures: Option<RefreshFailures>,
    fingerprint: String,
    /// The time by the clock that leases expire by.
    lease_now: i64,
    problem: Option<Error>,
}

impl Store {
    /// The same store with refresh leases.
    #[must_use]
    pub fn with_refresh_settings(mut self, settings: Settings) -> Self {
        self.leases = HeldLeases::new(settings);
        self
    }

    /// How long a lease lasts. A requester waits for one lease at most as long.
    #[must_use]
    pub const fn refresh_lease(&self) -> Duration {
        self.leases.settings.length
    }

    /// Would the SDK refresh the result at `now` (milliseconds since the epoch)? Always false if leases are off.
    #[must_use]
    pub fn is_due(&self, lookup: Lookup<'_>, found: Option<&Found>, now: impl FnOnce() -> i64) -> bool {
        !self.leases.settings.length.is_zero() && lease::is_due(lookup.completed(found), now())
    }

    /// How much of a token's life is left when a refresh ahead of its expiry begins.
    #[must_use]
    pub const fn refresh_ahead(&self) -> Duration {
        self.leases.settings.ahead
    }

    /// How far ahead of now a find has to look, in milliseconds: a row that is due by then may need more than being
    /// returned.
    #[must_use]
    pub const fn look_ahead(&self) -> i64 {
        self.leases.look_ahead
    }

    /// Reads row and lease, and acquires the lease if the decision says so (rule 5).
    ///
    /// `clock` returns the SDK's time in milliseconds since the epoch. `call` identifies the call that the lease is
    /// for. Acquiring waits for the store at most `timeout`. Fails where a find fails.
    pub fn try_acquire(
        &self,
        lookup: Lookup<'_>,
        requester: &Requester,
        call: usize,
        clock: &(dyn Fn() -> i64 + Sync),
        timeout: Duration,
    ) -> Result<Attempt> {
        let attempt = self.acquire(&Request { lookup, requester, call, clock, lead: 0 }, timeout)?;
        if matches!(attempt.outcome, Outcome::BackOff(..)) {
            self.leases.count_backed_off();
        }
        Ok(attempt)
    }

    /// Does the same for a refresh of the row with this id, `lead` milliseconds before the SDK would refresh it.
    pub fn try_acquire_ahead(
        &self,
        id: &str,
        requester: &Requester,
        call: usize,
        clock: &(dyn Fn() -> i64 + Sync),
        lead: i64,
    ) -> Result<Attempt> {
        let lookup = Lookup::Id(Some(id));
        let attempt = self.acquire(&Request { lookup, requester, call, clock, lead }, self.timeout)?;
        if matches!(attempt.outcome, Outcome::Refresh(_)) {
            self.leases.count_ahead();
        }
        Ok(attempt)
    }

    fn acquire(&self, request: &Request<'_>, timeout: Duration) -> Result<Attempt> {
        let call = request.call;
        let view = self.read_view(request)?;
        if view.problem.is_some() || !matches!(view.decision, Some((Decision::Acquire, _))) {
            return Ok(self.attempt(view, call));
        }
        let mut locked = View::default();
        let mut written = None;
        let acquired = self.run(Deadline::after(timeout), |backend, deadline| {
            backend.write(deadline, Durability::Relaxed, &mut |transaction| {
                locked = self.view(transaction, request)?;
                // The commit of an earlier attempt seemed to fail, but it has acquired the lease. So the lease is new.
                if written.is_some() && written == locked.lease {
                    locked.decision = locked.decision.take().map(|(_, key)| (Decision::Acquire, key));
                    return Ok(());
                }
                if let (Some((Decision::Acquire, key)), None) = (&locked.decision, &locked.problem) {
                    let lease = self.new_lease(request, locked.lease_now);
                    transaction.acquire_lease(key.as_str(), &lease)?;
                    written = Some(lease.clone());
                    locked.lease = Some(lease);
                }
                Ok(())
            })
        });
        match acquired {
            Ok(()) => Ok(self.attempt(locked, call)),
            Err(error) if error.may_pass_soon() => {
                // It may be stored, although no answer says so.
                if let (Some((_, key)), Some(lease)) = (view.decision, written) {
                    self.leases.note_unanswered(key, lease, view.lease_now);
                }
                Ok(Attempt { found: view.found, outcome: Outcome::TryAgain(error) })
            }
            Err(error) if error.code().is_unwritable() && request.lead == 0 => {
                self.acquire_unstored(view, request, error)
            }
            Err(error) => Ok(Attempt { found: view.found, outcome: Outcome::NoLease(error) }),
        }
    }

    /// Acquires a lease that counts in this process alone, because of the error `unwritable` (rule 1). `view` has the
    /// decision to acquire one.
    fn acquire_unstored(&self, view: View, request: &Request<'_>, unwritable: Error) -> Result<Attempt> {
        let View { found, decision, fingerprint, lease_now, .. } = view;
        let Some((_, key)) = decision else { return Ok(Attempt { found, outcome: Outcome::NoLease(unwritable) }) };
        let lease = self.new_lease(request, lease_now);
        let acquired = self.leases.add_unstored(key, lease, fingerprint, request.call, lease_now, &unwritable);
        // Its holder may have released an earlier one since the row was read, so the row is read again (rule 5).
        let view = self.read_view(request);
        let is_holder = view.as_ref().is_ok_and(|view| matches!(view.decision, Some((Decision::Refresh, _))));
        match acquired {
            Some(acquired) if is_holder => {
                return Ok(Attempt { found: view?.found, outcome: Outcome::Refresh(acquired) });
            }
            Some(acquired) => drop(self.leases.remove(|held| held.is(&acquired))),
            None => {}
        }
        let view = view?;
        if matches!(view.decision, Some((Decision::Acquire, _))) {
            return Ok(Attempt { found: view.found, outcome: Outcome::NoLease(unwritable) });
        }
        Ok(self.attempt(view, request.call))
    }

    /// A lease for the requester, which begins at `now` by the clock that leases expire by.
    fn new_lease(&self, request: &Request<'_>, now: i64) -> Lease {
        let until = now.saturating_add(self.leases.settings.length_ms());
        Lease { owner: request.requester.owner().to_owned(), until }
    }

    fn read_view(&self, request: &Request<'_>) -> Result<View> {
        let mut view = View::default();
        self.read(|rows| {
            view = self.view(rows, request)?;
            Ok(())
        })?;
        Ok(view)
    }

    fn view(&self, rows: &dyn Snapshot, request: &Request<'_>) -> Result<View> {
        let &Request { lookup, requester, clock, lead, .. } = request;
        rows.announce_lease(lookup.key_without_row().as_ref().map(LeaseKey::as_str));
        let mut view = View { found: lookup.find(rows)?.map(|row| self.unsaved.found(row)), ..View::default() };
        let token = lookup.completed(view.found.as_ref());
        let row = view.found.as_ref().map(|found| found.0.id());
        let Some(key) = lease::lease_key(token, row) else { return Ok(view) };
        let mut backend_now = None;
        match rows.lease(key.as_str()) {
            Ok(seen) => {
                let counts = |lease: &Lease| self.backend.is_shared() || requester.is_same_process(lease);
                (view.lease, view.failures, backend_now) = (seen.lease.filter(counts), seen.failures, seen.now);
            }
            Err(error) => view.problem = Some(error),
        }
        // Read after the lease. Otherwise a lease that was acquired in between could seem to start in the future.
        let now = clock();
        view.lease_now = backend_now.unwrap_or(now);
        let is_valid = |lease: &Lease| lease.is_valid(view.lease_now, self.leases.settings.length_ms());
        if !view.lease.as_ref().is_some_and(is_valid) {
            view.lease = self.leases.unstored(&key).or(view.lease);
        }
        let times = (now.saturating_add(lead), view.lease_now);
        let (lease, failures) = (view.lease.as_ref(), view.failures.as_ref());
        let decision = lease::decide(token, lease, failures, requester, times, self.leases.settings);
        if decision != Decision::Serve {
            view.fingerprint = backoff::fingerprint(token);
        }
        view.decision = Some((decision, key));
        Ok(view)
    }

    fn attempt(&self, view: View, call: usize) -> Attempt {
        let View { found, decision, lease, failures, fingerprint, lease_now, problem } = view;
        let outcome = match (decision, problem, lease) {
            (None | Some((Decision::Serve, _)), ..) => Outcome::Serve,
            (_, Some(problem), _) => Outcome::NoLease(problem),
            (Some((Decision::BackOff(next), key)), ..) => failures.map_or(Outcome::Serve, |failures| {
                let until = |from: i64, to: i64| Duration::from_millis(to.saturating_sub(from).try_into().unwrap_or(0));
                let (failing_for, left) = (until(failures.since, lease_now), until(lease_now, next));
                let what = describe_key(&key);
                let error = Error::refresh_failing(self.location(), &what, failures.count, failing_for, left);
                Outcome::BackOff(error, left)
            }),
            (Some((Decision::Acquire, key)), _, Some(lease)) => {
                Outcome::Refresh(self.leases.add(key, lease, fingerprint, call, lease_now))
            }
            (Some((Decision::Refresh, key)), _, Some(lease)) if self.leases.was_unanswered(&key, &lease) => {
                Outcome::Refresh(self.leases.add(key, lease, fingerprint, call, lease_now))
            }
            (Some((Decision::Refresh, key)), ..) => Outcome::Refresh(self.leases.reassign(key, call)),
            (Some((Decision::Wait, key)), _, Some(lease)) => Outcome::Wait(key, lease, lease_now),
            (Some((Decision::Acquire | Decision::Wait, _)), _, None) => Outcome::Serve,
        };
        Attempt { found, outcome }
    }

    /// Saves like [`Store::save`]. If the token has a new access token, the same transaction releases the leases of
    /// `owner` (rule 10), or only those of `call` if it is given. A token that was only found and saved again releases
    /// nothing. Returns the row's id, and the keys of the released leases.
    pub fn save_and_release(
        &self,
        token: Token<'_>,
        now: i64,
        owner: &str,
        call: Option<usize>,
    ) -> Result<(String, Vec<LeaseKey>)> {
        let (saved, released) = self.save_for(token, now, owner, call, None)?;
        Ok((saved.id, released))
    }

    /// Saves the answer to a refresh of the row `asked`, like [`Store::save_and_release`]. Saves nothing, and returns
    /// `None`, if the row is gone, or has another login now ([`crate::domain::refresh_ahead::is_same_login`]).
    pub fn save_refreshed(
        &self,
        token: Token<'_>,
        asked: &Row,
        now: i64,
        owner: &str,
        call: usize,
    ) -> Result<Option<Vec<LeaseKey>>> {
        let (saved, released) = self.save_for(token, now, owner, Some(call), Some(asked))?;
        Ok((!saved.is_superseded).then_some(released))
    }

    fn save_for(
        &self,
        token: Token<'_>,
        now: i64,
        owner: &str,
        call: Option<usize>,
        asked: Option<&Row>,
    ) -> Result<(Saved, Vec<LeaseKey>)> {
        let held: Vec<KeyedLease> = self.leases.with(|leases| {
            let matches = |held: &&HeldLease| held.lease.owner == owner && call.is_none_or(|call| call == held.call);
            leases.iter().filter(matches).map(|held| (held.key.clone(), held.lease.clone())).collect()
        });
        let mut lease_failed = false;
        let mut saved = self.save_releasing(token, now, &held, asked, &mut lease_failed);
        if lease_failed && saved.is_err() {
            // A problem with the lease table can fail the whole transaction. Then the token is saved without it.
            let save = self.save_releasing(token, now, &[], asked, &mut false);
            saved = save.map(|saved| Saved { has_new_access_token: false, ..saved });
        }
        if saved.as_ref().is_err_and(Error::is_pair_kept) {
            self.release_leases_of_kept(&held);
        }
        let saved = saved?;
        if !saved.has_new_access_token {
            return Ok((saved, Vec::new()));
        }
        self.leases.remove(|one| held.iter().any(|(_, lease)| *lease == one.lease));
        Ok((saved, held.into_iter().map(|(key, _)| key).collect()))
    }
}

/// Describes what a lease is for, without a secret.
#[must_use]
pub fn describe_key(key: &LeaseKey) -> String {
    key.id().map_or_else(|| "credentials that have no row yet".to_owned(), describe_id)
}
