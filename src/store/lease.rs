//! The refresh lease over any backend: one look at row and lease, and what this process holds.
//!
//! Decides nothing ([`crate::domain::lease`] does) and waits for nobody's refresh: whoever may wait, and how, looks again
//! ([`Store::consult`]). Nothing that goes wrong with a lease is an error of an operation: it means "no lease" (rule 1).

use std::process;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::wait::Deadline;
use super::{Found, Place, Result, Rows, Store, fork, present, save};
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

/// A lease that this process holds.
#[derive(Clone, Debug)]
pub struct Turn {
    /// What it is for.
    pub key: Key,
    /// Was it taken just now? Otherwise its owner has come again.
    pub is_new: bool,
    number: u64,
}

struct Held {
    key: Key,
    lease: Lease,
    /// The caller's mark of the decision that it was handed out for.
    call: usize,
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
    length: Duration,
    held: Mutex<List>,
    /// How many are held, for a look without the lock.
    count: AtomicUsize,
    numbers: AtomicU64,
    taken: AtomicU64,
    waited: AtomicU64,
    gave_up: AtomicU64,
    longest_wait: AtomicU64,
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

/// How long giving a lease back may wait for others, where nobody saves: it ends by itself anyway.
const FOR_GIVING_BACK: Duration = Duration::from_millis(100);

/// A store that is to go on in the same process has few leases; no lock on their list is held for longer than a copy.
const FOR_THE_LIST: Duration = Duration::from_secs(1);

impl Leases {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, ..Self::default() }
    }

    fn milliseconds(&self) -> i64 {
        i64::try_from(self.length.as_millis()).unwrap_or(i64::MAX)
    }

    /// Works on the list. Not at all if a fork from C left its lock held.
    fn with<T: Default>(&self, work: impl FnOnce(&mut Vec<Held>) -> T) -> T {
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

    fn hold(&self, key: Key, lease: Lease, call: usize, now: i64) -> Turn {
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
    fn come_again(&self, key: Key, call: usize) -> Turn {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.with(|all| {
            if let Some(held) = all.iter_mut().find(|held| held.key == key) {
                (held.call, held.number) = (call, number);
            }
        });
        Turn { key, is_new: false, number }
    }

    /// Takes those from the list that `which` names.
    fn drop_out(&self, mut which: impl FnMut(&Held) -> bool) -> Vec<Held> {
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

    /// Would the SDK ask Zoho if it were given this? The one question that a find of a fresh row pays for.
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
            backend.write(deadline, &mut |change| {
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

    /// Saves as [`Store::save`] does, and gives back what `owner` holds in the same transaction (rule 10). The second
    /// value: for what.
    pub fn save_and_give_back(&self, token: Token<'_>, now: i64, owner: &str) -> Result<(String, Vec<Key>)> {
        let held: Vec<(Key, Lease)> = self.leases.with(|held| {
            let mine = held.iter().filter(|held| held.lease.owner == owner);
            mine.map(|held| (held.key.clone(), held.lease.clone())).collect()
        });
        let mut id = String::new();
        let mut trouble = false;
        let saved = self.write(|change| {
            id = save(change, token, now, self.place())?;
            for (key, lease) in &held {
                trouble |= change.give_back(key.as_str(), &lease.owner).is_err();
            }
            Ok(())
        });
        if saved.is_err() && trouble {
            // The lease's trouble can be so bad that it takes the transaction with it. It does not take the token.
            id = self.save(token, now)?;
        } else {
            saved?;
        }
        self.leases.drop_out(|one| held.iter().any(|(_, lease)| *lease == one.lease));
        Ok((id, held.into_iter().map(|(key, _)| key).collect()))
    }

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
            backend.write(deadline, &mut |change| {
                held.iter().try_for_each(|held| change.give_back(held.key.as_str(), &held.lease.owner))
            })
        });
        if given.is_ok() { held.into_iter().map(|held| held.key).collect() } else { Vec::new() }
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
