//! The refresh lease over any backend: one look at row and lease, taking it, and a save that gives it back.
//!
//! Decides nothing ([`crate::domain::lease`] does) and waits for nobody's refresh: whoever may wait, and how, looks again
//! ([`Store::consult`]). Nothing that goes wrong with a lease is an error of an operation: it means "no lease" (rule 1).

use std::time::Duration;

use super::held::{Held, Leases, Turn};
use super::wait::Deadline;
use super::{Found, Lent, Place, Result, Rows, Store, present};
use crate::domain::lease::{self, Asker, Decision, Key, Lease};
use crate::domain::{Row, Token, identity};

/// What somebody looks for.
#[derive(Clone, Copy)]
pub enum Asked<'a> {
    /// The row that a token names.
    For(Token<'a>),
    /// The row with an id.
    Id(Option<&'a str>),
}

impl<'a> Asked<'a> {
    fn find(self, rows: &dyn Rows) -> Result<Option<Row>> {
        match self {
            Self::For(token) => identity::find(token, |key, value| rows.by_key(key, value)),
            Self::Id(id) => present(id).map_or(Ok(None), |id| Ok(rows.by_key(crate::domain::Key::Id, id)?.pop())),
        }
    }

    /// What the SDK will see.
    fn completed<'b>(self, found: Option<&'b Found>) -> Token<'b>
    where
        'a: 'b,
    {
        match (self, found) {
            (Self::For(token), Some(found)) => found.complete(token),
            (Self::For(token), None) => token,
            (Self::Id(_), Some(found)) => found.row(),
            (Self::Id(_), None) => Token::default(),
        }
    }
}

/// What came of a look.
pub struct Consulted {
    /// The row, as of this look.
    pub found: Option<Found>,
    /// What to do now.
    pub advice: Advice,
}

/// What one who asks is to do.
pub enum Advice {
    /// Go on with the row. Nothing is to be refreshed.
    Serve,
    /// Go on with the row, and refresh. The turn is to be given back, should nobody save.
    Refresh(Turn),
    /// Look again in a while: another refreshes.
    Wait(Key, Lease),
    /// Look again in a while: the lease is to be had, but others keep the store busy.
    Busy,
    /// Go on with the row: there is trouble with the lease, told without secrets.
    NoLease(String),
}

/// One look at what somebody asks for.
#[derive(Default)]
struct Look {
    found: Option<Found>,
    decision: Option<(Decision, Key)>,
    lease: Option<Lease>,
    now: i64,
    trouble: Option<String>,
}

impl Store {
    /// The same store, with leases of this length. Zero: without.
    #[must_use]
    pub fn with_refresh_lease(mut self, length: Duration) -> Self {
        self.leases = Leases::new(length);
        self
    }

    /// How long a lease lasts, and a wait for one.
    #[must_use]
    pub const fn refresh_lease(&self) -> Duration {
        self.leases.length
    }

    /// Would the SDK ask Zoho at `now` (milliseconds since the epoch) if it were given this? Never, without leases.
    #[must_use]
    pub fn is_due(&self, asked: Asked<'_>, found: Option<&Found>, now: impl FnOnce() -> i64) -> bool {
        !self.leases.length.is_zero() && lease::is_due(asked.completed(found), now())
    }

    /// Looks at row and lease, and takes the lease if it is to be had (rule 5). `clock` gives milliseconds since the
    /// epoch, `call` marks the decision that the lease is for, and taking it waits for others at most `patience`.
    ///
    /// It fails where a find fails.
    pub fn consult(
        &self,
        asked: Asked<'_>,
        who: &Asker,
        call: usize,
        clock: &(dyn Fn() -> i64 + Sync),
        patience: Duration,
    ) -> Result<Consulted> {
        let mut look = Look::default();
        self.read(|rows| {
            look = self.look(rows, asked, who, clock)?;
            Ok(())
        })?;
        if look.trouble.is_some() || !matches!(look.decision, Some((Decision::Take, _))) {
            return Ok(self.advise(look, call));
        }
        let mut again = Look::default();
        let taking = self.enter(Deadline::after(patience), |backend, deadline| {
            backend.write_lightly(deadline, &mut |change| {
                again = self.look(change, asked, who, clock)?;
                if let (Some((Decision::Take, key)), None) = (&again.decision, &again.trouble) {
                    let until = again.now.saturating_add(self.leases.milliseconds());
                    let lease = Lease { owner: who.owner().to_owned(), until };
                    change.take_lease(key.as_str(), &lease)?;
                    again.lease = Some(lease);
                }
                Ok(())
            })
        });
        match taking {
            Ok(()) => Ok(self.advise(again, call)),
            Err(error) if error.is_busy() => Ok(Consulted { found: look.found, advice: Advice::Busy }),
            Err(error) => Ok(Consulted { found: look.found, advice: Advice::NoLease(error.to_string()) }),
        }
    }

    fn look(&self, rows: &dyn Rows, asked: Asked<'_>, who: &Asker, clock: &dyn Fn() -> i64) -> Result<Look> {
        let mut look = Look { found: asked.find(rows)?.map(Found), ..Look::default() };
        let token = asked.completed(look.found.as_ref());
        let Some(key) = lease::key(token, look.found.as_ref().map(|found| found.0.id())) else { return Ok(look) };
        match rows.lease(key.as_str()) {
            // What only this process can see, and another one holds, its parent held at a fork.
            Ok(lease) => {
                let may_live = |lease: &Lease| matches!(self.place(), Place::File(_)) || who.shares_process_with(lease);
                look.lease = lease.filter(may_live);
            }
            Err(error) => look.trouble = Some(error.to_string()),
        }
        // After the lease was read: one taken meanwhile by the same clock must not seem to lie in the future.
        look.now = clock();
        let length = self.leases.milliseconds();
        look.decision = Some((lease::decide(token, look.lease.as_ref(), who, look.now, length), key));
        Ok(look)
    }

    fn advise(&self, look: Look, call: usize) -> Consulted {
        let advice = match (look.decision, look.trouble, look.lease) {
            (None | Some((Decision::Serve, _)), ..) => Advice::Serve,
            (_, Some(trouble), _) => Advice::NoLease(trouble),
            (Some((Decision::Take, key)), _, Some(lease)) => {
                Advice::Refresh(self.leases.hold(key, lease, call, look.now))
            }
            (Some((Decision::Refresh, key)), ..) => Advice::Refresh(self.leases.come_again(key, call)),
            (Some((Decision::Wait, key)), _, Some(lease)) => Advice::Wait(key, lease),
            (Some((Decision::Take | Decision::Wait, _)), _, None) => Advice::Serve,
        };
        Consulted { found: look.found, advice }
    }

    /// Saves as [`Store::save`] does, and gives back what `owner` holds in the same transaction (rule 10), if it is a fresh
    /// access token that is saved: whoever saves what it has found has not refreshed yet. With a `call`, only what that one
    /// holds. The second value: for what.
    pub fn save_and_give_back(
        &self,
        token: Token<'_>,
        now: i64,
        owner: &str,
        call: Option<usize>,
    ) -> Result<(String, Vec<Key>)> {
        let held: Vec<Lent> = self.leases.with(|held| {
            let is_meant = |held: &&Held| held.lease.owner == owner && call.is_none_or(|call| call == held.call);
            let mine = held.iter().filter(is_meant);
            mine.map(|held| (held.key.clone(), held.lease.clone())).collect()
        });
        let mut trouble = false;
        let saved = match self.save_with_others(token, now, &held, &mut trouble) {
            // A lease's trouble can be so bad that it takes the transaction with it. It does not take the token.
            Err(_) if trouble => return Ok((self.save(token, now)?, Vec::new())),
            saved => saved?,
        };
        if !saved.is_fresh {
            return Ok((saved.id, Vec::new()));
        }
        self.leases.drop_out(|one| held.iter().any(|(_, lease)| *lease == one.lease));
        Ok((saved.id, held.into_iter().map(|(key, _)| key).collect()))
    }
}
