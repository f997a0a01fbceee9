//! One refresh per expiry: who may ask Zoho for an access token just now, who waits for the answer, and how long.
//!
//! `docs/lease.md` has the rules; their numbers stand beside the functions.

use std::fmt::Write;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::expiry;
use super::token::{Field, Token};

/// The SDK (5 to 8) refreshes an access token that has less than this left, in milliseconds.
const SDK_MARGIN: i64 = 5_000;

/// How long before it is due one who asks had better wait for that, in milliseconds: the SDK reads the clock after the
/// store has, and would refresh without a lease what was fresh a moment before.
pub const SOON: i64 = 200;

/// How much longer than the lease itself its end may lie off, in milliseconds: two clocks of one machine read one after
/// the other, and small corrections of either.
const CLOCK_SLACK: i64 = 1_000;

/// How long a wait goes on, at most, after the refresh that it waited for has come to nothing (rule 8), or while the store
/// is too busy to tell whether there is one to wait for.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// How far two readings of one clock may lie apart that is corrected in between, in milliseconds.
const SAME_CLOCK: i64 = 1_000;

/// How far the clock that the SDK reads is off ours, which was read `before` and `after` it: not at all, unless somebody has
/// moved it. Once would not do: a process that is stopped in between would take its clock for a moved one, every lease for
/// void, and ask Zoho too.
#[must_use]
pub const fn clock_off(before: i64, sdk: i64, after: i64) -> i64 {
    if sdk < before.saturating_sub(SAME_CLOCK) {
        sdk.saturating_sub(before)
    } else if sdk > after.saturating_add(SAME_CLOCK) {
        sdk.saturating_sub(after)
    } else {
        0
    }
}

/// Leave to ask Zoho.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Whose it is, as [`Asker::owner`] writes it.
    pub owner: String,
    /// Its end, in milliseconds since the epoch. It stays what it was when the lease was taken (rule 7).
    pub until: i64,
}

impl Lease {
    /// The id of the process that holds it, for people; the owner's first part.
    #[must_use]
    pub fn process(&self) -> &str {
        self.owner.split('-').next().unwrap_or_default()
    }

    /// Void is one that is over, or so long that it was made by a clock that is not ours (rule 7).
    #[must_use]
    pub const fn is_in_force(&self, now: i64, length: i64) -> bool {
        now < self.until && self.until <= now.saturating_add(length).saturating_add(CLOCK_SLACK)
    }
}

/// Who asks (rule 6).
#[derive(Clone, Debug)]
pub struct Asker {
    owner: String,
    /// How much of `owner` names the process, and how much the thread.
    process: usize,
    thread: usize,
    yields: bool,
}

impl Asker {
    /// A task on a thread of a process. `process` is unique among all that use the store, `thread` in the process.
    ///
    /// A thread that several tasks share (gevent's greenlets) gives each a number of its own, and `yields` says that the
    /// others run while one waits. If they do not, no task may wait for another: it would wait in vain.
    #[must_use]
    pub fn new(process: &str, thread: u64, task: u64, yields: bool) -> Self {
        let thread = format!("{process}-{thread}-");
        Self { process: process.len() + 1, thread: thread.len(), owner: format!("{thread}{task}"), yields }
    }

    /// As a lease names it.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Is it a lease of this process?
    #[must_use]
    pub fn shares_process_with(&self, lease: &Lease) -> bool {
        lease.owner.starts_with(&self.owner[..self.process])
    }

    fn holds(&self, lease: &Lease) -> bool {
        lease.owner == self.owner || (!self.yields && lease.owner.starts_with(&self.owner[..self.thread]))
    }
}

/// What one name of a lease stands for: all who mean the same thing share it (rule 4). Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// As it is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The row's id, unless it stands for credentials that no row has yet.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.0.strip_prefix(ROW)
    }
}

const ROW: &str = "id:";

/// The key of a token that was completed from the row with the id `row`, or from none.
#[must_use]
pub fn key(token: Token<'_>, row: Option<&str>) -> Option<Key> {
    if let Some(id) = row.filter(|id| !id.is_empty()) {
        return Some(Key(format!("{ROW}{id}")));
    }
    let of = |field| token.get(field).map(|secret| (field, secret));
    let (field, secret) = of(Field::RefreshToken).or_else(|| of(Field::GrantToken))?;
    let mut digest = Sha256::new();
    // With the length in front, no two pairs run together into the same text.
    let client = token.get(Field::ClientId).unwrap_or_default();
    digest.update(client.len().to_le_bytes());
    digest.update(client);
    digest.update(secret);
    let mut key = format!("{}:", field.name());
    for byte in digest.finalize() {
        let _ = write!(key, "{byte:02x}");
    }
    Some(Key(key))
}

/// Is the SDK about to ask Zoho when it sees this token (rule 3)? By its own test, as far as asking can succeed.
#[must_use]
pub fn is_due(token: Token<'_>, now: i64) -> bool {
    if token.has(Field::AccessToken) {
        let near = |expiry: expiry::Expiry<'_>| expiry.has_passed(now.saturating_add(SDK_MARGIN - 1));
        token.has(Field::RefreshToken) && expiry::parse(token.get(Field::ExpiryTime)).is_some_and(near)
    } else {
        token.has(Field::RefreshToken) || token.has(Field::GrantToken)
    }
}

/// What to do for one who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Hand out the token: there is no refresh to be made.
    Serve,
    /// Take the lease; then hand out the token as it is, for its refresh.
    Take,
    /// Hand out the token for its refresh: the lease is the asker's already, and gets no longer by it.
    Refresh,
    /// Wait: another has the lease.
    Wait,
}

/// Decides on the completed token, in view of the lease under its key, for a store whose leases last `length`; times in
/// milliseconds.
#[must_use]
pub fn decide(token: Token<'_>, lease: Option<&Lease>, who: &Asker, now: i64, length: i64) -> Decision {
    if !is_due(token, now) {
        return Decision::Serve;
    }
    match lease.filter(|lease| lease.is_in_force(now, length)) {
        None => Decision::Take,
        Some(lease) if who.holds(lease) => Decision::Refresh,
        Some(_) => Decision::Wait,
    }
}

/// What one who waits has seen so far (rule 8).
#[derive(Debug, Default)]
pub struct Waiting {
    /// The lease that was met first, and after how long.
    first: Option<(Lease, Duration)>,
    failed_after: Option<Duration>,
    blocked_after: Option<Duration>,
}

impl Waiting {
    /// After `waited` there is still no fresh row, and `lease` is in force.
    ///
    /// If it is not the one that was met first, that one's refresh has come to nothing: given back without a new token,
    /// or over because its holder is gone.
    pub fn meets(&mut self, lease: &Lease, waited: Duration) {
        self.blocked_after = None;
        match &self.first {
            None => self.first = Some((lease.clone(), waited)),
            Some((first, _)) if first != lease => {
                self.failed_after.get_or_insert(waited);
            }
            Some(_) => {}
        }
    }

    /// After `waited` nobody's lease is in the way, but others keep the store too busy to take one. Where many come at once,
    /// one of them is about to take it: whoever then meets that lease waits for it as everybody does.
    pub fn is_blocked(&mut self, waited: Duration) {
        self.blocked_after.get_or_insert(waited);
    }

    /// How long the wait may last in all, for a store whose leases last `length`.
    #[must_use]
    pub fn limit(&self, length: Duration) -> Duration {
        let since = [self.failed_after, self.blocked_after].into_iter().flatten().min();
        // What was met late may last as long as what was met at once.
        let met_after = self.first.as_ref().map_or(Duration::ZERO, |(_, after)| *after);
        since.map_or(met_after.saturating_add(length), |after| after.saturating_add(AFTER_FAILURE.min(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_300_000_000;
    const LENGTH: i64 = 10_000;

    fn token<'a>(values: &[(Field, &'a str)]) -> Token<'a> {
        values.iter().fold(Token::default(), |token, &(field, value)| token.with(field, Some(value)))
    }

    #[test]
    fn it_is_due_when_the_sdk_is_about_to_ask() {
        let in_ms = |ms: i64| (NOW + ms).to_string();
        // Refresh token, grant token, access token, expiry: is it due?
        let table = [
            ("no token at all", false, false, false, None, false),
            ("a refresh token alone", true, false, false, None, true),
            ("a grant token alone", false, true, false, None, true),
            ("an expiry without its access token", true, false, false, Some(in_ms(3_600_000)), true),
            ("an expiry and nothing to ask with", false, false, false, Some(in_ms(-1)), false),
            ("fresh", true, false, true, Some(in_ms(3_600_000)), false),
            ("5 s left", true, false, true, Some(in_ms(5_000)), false),
            ("less than 5 s left", true, false, true, Some(in_ms(4_999)), true),
            ("expired", true, true, true, Some(in_ms(-1)), true),
            ("expired, long ago", true, false, true, Some("0".to_owned()), true),
            ("expired, and only a used grant token", false, true, true, Some(in_ms(-1)), false),
            ("expired, and nothing to ask with", false, false, true, Some(in_ms(-1)), false),
            ("no expiry", true, true, true, None, false),
            ("an expiry that is no number", true, false, true, Some("soon".to_owned()), false),
            ("an expiry beyond 64 bits", true, false, true, Some("9".repeat(30)), false),
        ];
        for (case, refresh, grant, access, expiry, due) in table {
            let mut token = token(&[(Field::Id, "1"), (Field::UserName, "ada"), (Field::ClientId, "c")]);
            for (field, present) in
                [(Field::RefreshToken, refresh), (Field::GrantToken, grant), (Field::AccessToken, access)]
            {
                token = token.with(field, present.then_some("made-up"));
            }
            assert_eq!(is_due(token.with(Field::ExpiryTime, expiry.as_deref()), NOW), due, "{case}");
        }
        assert!(!is_due(token(&[(Field::RefreshToken, "r"), (Field::AccessToken, "a")]), i64::MAX));
    }

    #[test]
    fn only_a_clock_that_was_moved_is_another() {
        // Ours before, the SDK's, ours after it: how far is it off?
        let table = [
            ("at once", 0, 0, 0, 0),
            ("a little later", 0, 1, 2, 0),
            ("stopped before the SDK's was read", 0, 60_000, 60_000, 0),
            ("stopped after it", 0, 0, 60_000, 0),
            ("a small correction", 0, 1_000, 0, 0),
            ("another", 0, -1_000, 0, 0),
            ("moved ahead", 0, 600_000, 5, 599_995),
            ("moved back", 0, -600_000, 5, -600_000),
        ];
        for (case, before, sdk, after, off) in table {
            assert_eq!(clock_off(NOW + before, NOW + sdk, NOW + after), off, "{case}");
        }
        assert_eq!(clock_off(NOW, i64::MIN, NOW), i64::MIN);
    }

    #[test]
    fn the_lease_decides_who_refreshes() {
        let me = Asker::new("1-a", 1, 7, true);
        let alone = Asker::new("1-a", 1, 7, false);
        let lease = |owner: &str, ms: i64| Some(Lease { owner: owner.to_owned(), until: NOW + ms });
        let (mine, another) = ("1-a-1-7", "2-b-1-7");
        let table = [
            ("none", &me, None, Decision::Take),
            ("another's", &me, lease(another, 1), Decision::Wait),
            ("another's, just taken", &me, lease(another, LENGTH), Decision::Wait),
            ("another's, by a clock a little ahead", &me, lease(another, LENGTH + 1_000), Decision::Wait),
            ("another's, too far off", &me, lease(another, LENGTH + 1_001), Decision::Take),
            ("another's, over", &me, lease(another, 0), Decision::Take),
            ("another's, long over", &me, lease(another, -600_000), Decision::Take),
            ("mine", &me, lease(mine, 1), Decision::Refresh),
            ("mine, over", &me, lease(mine, 0), Decision::Take),
            ("another thread's", &me, lease("1-a-2-7", 1), Decision::Wait),
            ("another thread's whose number begins with mine", &alone, lease("1-a-11-7", 1), Decision::Wait),
            ("another task's on my thread", &me, lease("1-a-1-8", 1), Decision::Wait),
            ("another task's that cannot go on while I wait", &alone, lease("1-a-1-8", 1), Decision::Refresh),
            ("my parent's, after a fork", &me, lease("1-b-1-7", 1), Decision::Wait),
            ("of an owner that makes no sense", &me, lease("", 1), Decision::Wait),
        ];
        let due = token(&[(Field::RefreshToken, "r"), (Field::AccessToken, "a"), (Field::ExpiryTime, "0")]);
        let fresh = token(&[(Field::RefreshToken, "r"), (Field::AccessToken, "a")]);
        for (case, who, lease, decision) in &table {
            assert_eq!(decide(due, lease.as_ref(), who, NOW, LENGTH), *decision, "{case}");
            assert_eq!(decide(fresh, lease.as_ref(), who, NOW, LENGTH), Decision::Serve, "fresh: {case}");
        }
    }

    #[test]
    fn all_who_mean_the_same_thing_share_a_key() {
        let (client, other) = ((Field::ClientId, "1000.CLIENT"), (Field::ClientId, "1000.OTHER"));
        let refresh = (Field::RefreshToken, "made-up-refresh");
        let grant = (Field::GrantToken, "made-up-grant");
        let access = (Field::AccessToken, "made-up-access");
        let same = [
            (key(token(&[client, refresh]), None), key(token(&[client, refresh, grant, access]), None)),
            (key(token(&[client, grant]), None), key(token(&[client, grant, access]), None)),
            (key(token(&[client, refresh]), Some("7")), key(token(&[other, grant]), Some("7"))),
            (key(token(&[client, refresh]), Some("")), key(token(&[client, refresh]), None)),
        ];
        for (one, other) in &same {
            assert!(one.is_some() && one == other, "{one:?} {other:?}");
        }
        let different = [
            key(token(&[client, refresh]), None),
            key(token(&[other, refresh]), None),
            key(token(&[refresh]), None),
            key(token(&[client, grant]), None),
            key(token(&[client, (Field::RefreshToken, "made-up-grant")]), None),
            key(token(&[client, refresh]), Some("7")),
            key(token(&[client, refresh]), Some("8")),
            key(token(&[(Field::ClientId, "1"), (Field::RefreshToken, "23")]), None),
            key(token(&[(Field::ClientId, "12"), (Field::RefreshToken, "3")]), None),
        ];
        for (at, one) in different.iter().enumerate() {
            assert!(one.is_some() && !different[..at].contains(one), "{one:?}");
        }
        assert_eq!(key(token(&[client, access]), None), None);
    }

    #[test]
    fn a_key_holds_no_secret() {
        let made = key(token(&[(Field::ClientId, "c"), (Field::RefreshToken, "made-up")]), None);
        let text = made.as_ref().map(Key::as_str).unwrap_or_default();
        assert!(text.starts_with("refresh_token:") && text.len() == 14 + 64, "{text}");
        assert!(!text.contains("made-up"));
        assert_eq!(made.as_ref().and_then(Key::id), None);
        assert_eq!(key(Token::default(), Some("17")).as_ref().and_then(Key::id), Some("17"));
    }

    #[test]
    fn a_wait_ends_soon_after_the_refresh_came_to_nothing() {
        let lease = |owner: &str, until| Lease { owner: owner.to_owned(), until };
        let (first, second, third) = (lease("a", 1), lease("b", 2), lease("b", 3));
        let seconds = Duration::from_secs;
        // The leases in force at each second (none: the store is too busy), and the limit of the wait afterwards.
        let table: [(&str, &[Option<&Lease>], u64); 12] = [
            ("nothing seen yet", &[], 10),
            ("one holder all the time", &[Some(&first), Some(&first), Some(&first)], 10),
            ("a second after 1 s", &[Some(&first), Some(&second)], 1 + 2),
            ("a third does not prolong it", &[Some(&first), Some(&second), Some(&third)], 1 + 2),
            ("the same owner once more", &[Some(&second), Some(&second), Some(&third)], 2 + 2),
            ("the first again", &[Some(&first), Some(&second), Some(&first)], 1 + 2),
            ("a busy store", &[None, None], 2),
            ("a busy store, and then a holder", &[None, None, Some(&first)], 2 + 10),
            ("a busy store, and then the same holder", &[None, None, Some(&first), Some(&first)], 2 + 10),
            ("a busy store, and then two holders", &[None, None, Some(&first), Some(&second)], 3 + 2),
            ("a holder, and then a busy store", &[Some(&first), Some(&first), None, None], 2 + 2),
            ("a second, and then a busy store", &[Some(&first), Some(&second), None, None], 1 + 2),
        ];
        for (case, seen, limit) in table {
            let mut waiting = Waiting::default();
            for (at, lease) in (0..).zip(seen) {
                match lease {
                    Some(lease) => waiting.meets(lease, seconds(at)),
                    None => waiting.is_blocked(seconds(at)),
                }
            }
            assert_eq!(waiting.limit(seconds(10)), seconds(limit), "{case}");
        }
        let mut waiting = Waiting::default();
        waiting.meets(&first, Duration::ZERO);
        waiting.meets(&second, Duration::from_millis(100));
        assert_eq!(waiting.limit(Duration::from_millis(500)), Duration::from_millis(600), "a short lease");
    }

    #[test]
    fn an_owner_tells_its_process() {
        let me = Asker::new("4711-c0ffee", 1, 7, true);
        let lease = |owner: &str| Lease { owner: owner.to_owned(), until: 0 };
        assert_eq!(lease(me.owner()).process(), "4711");
        assert!(me.shares_process_with(&lease("4711-c0ffee-2-9")));
        assert!(!me.shares_process_with(&lease("4711-c0ff-1-7")));
    }
}
