//! The refresh lease: which requester may refresh an access token now, which one waits, and for how long. It makes
//! refreshes single-flight.
//!
//! The rules are in `docs/lease.md`. Each function names the rule that it implements.

use std::ops::Range;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::backoff::{CLOCK_TOLERANCE_MS, RefreshFailures};
use super::token::{Field, Token};
use super::{digest, expiry};

/// The SDK (5 to 8) refreshes an access token that expires in less than this, in milliseconds
/// (`OAuthToken.get_token`; `tests/sdk/test_flows.py` shows it).
pub const SDK_REFRESH_MARGIN_MS: i64 = 5_000;

/// A find waits if the refresh will be due within this time, in milliseconds. The SDK reads the clock after the store
/// does. Without the wait, it would refresh without a lease a token that was fresh a moment before.
pub const DUE_SOON_MS: i64 = 200;

/// How long a requester still waits after the refresh that it waited for has failed, or after it found the store too
/// busy to acquire a lease (rule 8).
const WAIT_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Two clocks that differ by at most this are the same clock, in milliseconds.
const SAME_CLOCK_MS: i64 = 1_000;

/// Returns how far the SDK's clock is ahead of ours, in milliseconds. `before` and `after` are readings of our clock,
/// before and after the reading of the SDK's clock.
///
/// The result is 0 unless the SDK's clock was moved (a test replaces `time.time`). One reading of our clock would not
/// be enough. If the process were suspended between two readings, the SDK's clock would look like a moved clock, and
/// every lease would look invalid.
#[must_use]
pub const fn clock_offset(before: i64, sdk: i64, after: i64) -> i64 {
    if sdk < before.saturating_sub(SAME_CLOCK_MS) {
        sdk.saturating_sub(before)
    } else if sdk > after.saturating_add(SAME_CLOCK_MS) {
        sdk.saturating_sub(after)
    } else {
        0
    }
}

/// The right to refresh, until it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The holder, as [`Requester::owner`] names it.
    pub owner: String,
    /// The expiry, in milliseconds since the epoch. It is fixed when the lease is acquired (rule 7).
    pub until: i64,
}

impl Lease {
    /// The id of the process that holds the lease, for log messages.
    #[must_use]
    pub fn process_id(&self) -> &str {
        self.owner.split('-').next().unwrap_or_default()
    }

    /// Is the lease valid at `now`, for a store whose leases last `length` (both in milliseconds)?
    ///
    /// It is not if it has expired, or if it ends so late that another clock must have set its end (rule 7): more than
    /// its length and [`CLOCK_TOLERANCE_MS`] from now.
    #[must_use]
    pub const fn is_valid(&self, now: i64, length: i64) -> bool {
        now < self.until && self.until <= now.saturating_add(length).saturating_add(CLOCK_TOLERANCE_MS)
    }
}

/// The thread or task that asks for a token (rule 6).
#[derive(Clone, Debug)]
pub struct Requester {
    owner: String,
    /// The length of the part of `owner` that names the process.
    process_prefix: usize,
    /// The length of the part of `owner` that names the process and the thread.
    thread_prefix: usize,
    yields: bool,
}

impl Requester {
    /// A task on a thread of a process. `process` is unique among all processes that use the store, and `thread` is
    /// unique in the process.
    ///
    /// Greenlets that share a thread have a `task` number each. `yields` says that other tasks of the thread run while
    /// one sleeps. If they do not, a task must not wait for another task of its thread, because the other one could not
    /// go on.
    #[must_use]
    pub fn new(process: &str, thread: u64, task: u64, yields: bool) -> Self {
        let thread = format!("{process}-{thread}-");
        Self {
            process_prefix: process.len() + 1,
            thread_prefix: thread.len(),
            owner: format!("{thread}{task}"),
            yields,
        }
    }

    /// The name that a lease stores.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Does this process hold the lease?
    #[must_use]
    pub fn is_same_process(&self, lease: &Lease) -> bool {
        lease.owner.starts_with(&self.owner[..self.process_prefix])
    }

    fn holds(&self, lease: &Lease) -> bool {
        lease.owner == self.owner || (!self.yields && lease.owner.starts_with(&self.owner[..self.thread_prefix]))
    }
}

/// The key of a lease. Requesters that would refresh the same token have the same key (rule 4). It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseKey(String);

impl LeaseKey {
    /// The text that is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the row, or `None` if the lease is for credentials that no row has yet.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.0.strip_prefix(ROW_PREFIX)
    }
}

/// What the lease key of a row begins with. Its id follows.
pub const ROW_PREFIX: &str = "id:";

/// Returns the lease key of a token that was completed from the row with the id `row`. `None`: it can never be
/// refreshed.
#[must_use]
pub fn lease_key(token: Token<'_>, row: Option<&str>) -> Option<LeaseKey> {
    if let Some(id) = row.filter(|id| !id.is_empty()) {
        return Some(LeaseKey(format!("{ROW_PREFIX}{id}")));
    }
    let of = |field| token.get(field).map(|secret| (field, secret));
    let (field, secret) = of(Field::RefreshToken).or_else(|| of(Field::GrantToken))?;
    let mut digest = Sha256::new();
    // The length comes first, so that no two pairs of client and secret give the same input.
    let client = token.get(Field::ClientId).unwrap_or_default();
    digest.update(client.len().to_le_bytes());
    digest.update(client);
    digest.update(secret);
    Some(LeaseKey(format!("{}:{}", field.name(), digest::hex(digest))))
}

/// Will the SDK refresh this token when it gets it (rule 3)? This is the SDK's own test, restricted to refreshes that
/// can succeed.
#[must_use]
pub fn is_due(token: Token<'_>, now: i64) -> bool {
    if token.has(Field::AccessToken) {
        let near = |expiry: expiry::Expiry<'_>| expiry.has_passed(now.saturating_add(SDK_REFRESH_MARGIN_MS - 1));
        token.has(Field::RefreshToken) && expiry::parse(token.get(Field::ExpiryTime)).is_some_and(near)
    } else {
        token.has(Field::RefreshToken) || token.has(Field::GrantToken)
    }
}

/// What the store does for a requester.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Return the token. No refresh is due.
    Serve,
    /// Acquire the lease, then return the expired token, so that the SDK refreshes it.
    Acquire,
    /// Return the expired token, so that the SDK refreshes it. The requester holds the lease already. The end of the
    /// lease does not change.
    Refresh,
    /// Wait. Another requester holds the lease.
    Wait,
    /// Fail. The last refreshes have failed, and the next one may begin at this time, in milliseconds since the epoch
    /// (rule 15).
    BackOff(i64),
}

/// How leases of a store work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a lease lasts. Zero: there are no leases.
    pub length: Duration,
    /// The longest time between two refreshes that fail. Zero: there is no back-off.
    pub longest_backoff: Duration,
    /// How much of a token's life is left when a refresh ahead of its expiry begins. Zero: there are none.
    pub ahead: Duration,
}

impl Settings {
    /// Leases of this length, without back-off and without refreshes ahead of expiry.
    #[must_use]
    pub const fn new(length: Duration) -> Self {
        Self { length, longest_backoff: Duration::ZERO, ahead: Duration::ZERO }
    }

    /// How long a lease lasts, in milliseconds.
    #[must_use]
    pub fn length_ms(&self) -> i64 {
        i64::try_from(self.length.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Decides what to do for a requester (rules 3, 5, 6, 7, 15).
///
/// `token` is the completed token. `lease` and `failures` are what is stored under its key. `now` is the SDK's clock, by
/// which the token expires. A refresh ahead of expiry passes a later time, at which the SDK itself would refresh (rule
/// 17). `lease_now` is the clock by which the lease expires: it is the same, unless the backend has a clock of its own.
/// All times are in milliseconds.
#[must_use]
pub fn decide(
    token: Token<'_>,
    lease: Option<&Lease>,
    failures: Option<&RefreshFailures>,
    requester: &Requester,
    (now, lease_now): (i64, i64),
    settings: Settings,
) -> Decision {
    if !is_due(token, now) {
        return Decision::Serve;
    }
    match lease.filter(|lease| lease.is_valid(lease_now, settings.length_ms())) {
        None => failures
            .and_then(|failures| failures.next_attempt(token, lease_now, settings.longest_backoff))
            .map_or(Decision::Acquire, Decision::BackOff),
        Some(lease) if requester.holds(lease) => Decision::Refresh,
        Some(_) => Decision::Wait,
    }
}

/// What a waiting requester has seen so far. It decides how long the wait may last (rule 8).
#[derive(Debug, Default)]
pub struct WaitProgress {
    /// The lease that was seen last, and after how long it was seen first.
    current: Option<(Lease, Duration)>,
    failed_after: Option<Duration>,
    busy_after: Option<Duration>,
}

impl WaitProgress {
    /// Records that after `waited` the row is not fresh, and `lease` is valid at `lease_now` (milliseconds since the
    /// epoch).
    ///
    /// Another lease may have been seen before. If that one has expired, its holder was killed or hangs, and this lease
    /// is waited for as long as a first one. Otherwise its holder has released it, because its refresh has failed.
    pub fn see_lease(&mut self, lease: &Lease, lease_now: i64, waited: Duration) {
        self.busy_after = None;
        match &self.current {
            Some((current, _)) if current == lease => return,
            Some((current, _)) if lease_now < current.until => {
                self.failed_after.get_or_insert(waited);
            }
            _ => {}
        }
        self.current = Some((lease.clone(), waited));
    }

    /// Records that after `waited` there is no valid lease, but none can be acquired: the store is too busy, or its server
    /// has not answered in time.
    ///
    /// When many requesters come at once, one of them is about to acquire it. Seeing that lease resets this.
    pub fn see_busy_store(&mut self, waited: Duration) {
        self.busy_after.get_or_insert(waited);
    }

    /// How long the whole wait may last, for a store whose leases last `length`.
    #[must_use]
    pub fn limit(&self, length: Duration) -> Duration {
        let since = [self.failed_after, self.busy_after].into_iter().flatten().min();
        // A lease that was seen late gets its full length, too.
        let seen_after = self.current.as_ref().map_or(Duration::ZERO, |(_, after)| *after);
        since.map_or(seen_after.saturating_add(length), |after| after.saturating_add(WAIT_AFTER_FAILURE.min(length)))
    }
}

/// What a requester that waits for a lease pays for a look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookCost {
    /// Microseconds on this machine.
    Microseconds,
    /// A statement on a server.
    Statement,
    /// A request that loads all rows, and may cost money.
    Document,
}

/// The time between two looks of a requester that has `waited` for a lease, in milliseconds.
///
/// If a holder is killed, many requesters wait for seconds, so they look at a server less often after the first one.
#[must_use]
pub fn poll_interval(waited: Duration, cost: LookCost) -> Range<u64> {
    match cost {
        LookCost::Document => 225..275,
        LookCost::Statement if waited >= Duration::from_secs(1) => 100..200,
        LookCost::Statement | LookCost::Microseconds => 20..50,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_300_000_000;
    const LENGTH: i64 = 10_000;
    const SETTINGS: Settings =
        Settings { length: Duration::from_secs(10), longest_backoff: Duration::from_secs(30), ahead: Duration::ZERO };

    fn token<'a>(values: &[(Field, &'a str)]) -> Token<'a> {
        values.iter().fold(Token::default(), |token, &(field, value)| token.with(field, Some(value)))
    }

    #[test]
    fn a_refresh_is_due_when_the_sdk_would_refresh() {
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
    fn only_a_clock_that_was_moved_has_an_offset() {
        // Our clock before, the SDK's clock, our clock after it, and the offset.
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
        for (case, before, sdk, after, offset) in table {
            assert_eq!(clock_offset(NOW + before, NOW + sdk, NOW + after), offset, "{case}");
        }
        assert_eq!(clock_offset(NOW, i64::MIN, NOW), i64::MIN);
    }

    #[test]
    fn the_lease_decides_who_refreshes() {
        let me = Requester::new("1-a", 1, 7, true);
        let alone = Requester::new("1-a", 1, 7, false);
        let lease = |owner: &str, ms: i64| Some(Lease { owner: owner.to_owned(), until: NOW + ms });
        let (mine, another) = ("1-a-1-7", "2-b-1-7");
        let table = [
            ("none", &me, None, Decision::Acquire),
            ("another's", &me, lease(another, 1), Decision::Wait),
            ("another's, just taken", &me, lease(another, LENGTH), Decision::Wait),
            ("another's, by a clock a little ahead", &me, lease(another, LENGTH + 1_000), Decision::Wait),
            ("another's, too far off", &me, lease(another, LENGTH + 1_001), Decision::Acquire),
            ("another's, over", &me, lease(another, 0), Decision::Acquire),
            ("another's, long over", &me, lease(another, -600_000), Decision::Acquire),
            ("mine", &me, lease(mine, 1), Decision::Refresh),
            ("mine, over", &me, lease(mine, 0), Decision::Acquire),
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
            assert_eq!(decide(due, lease.as_ref(), None, who, (NOW, NOW), SETTINGS), *decision, "{case}");
            assert_eq!(
                decide(fresh, lease.as_ref(), None, who, (NOW, NOW), SETTINGS),
                Decision::Serve,
                "fresh: {case}"
            );
        }
    }

    #[test]
    fn after_failures_a_refresh_is_delayed_unless_a_lease_is_held() {
        let me = Requester::new("1-a", 1, 7, true);
        let due = token(&[(Field::RefreshToken, "r"), (Field::AccessToken, "a"), (Field::ExpiryTime, "0")]);
        let fresh = token(&[(Field::RefreshToken, "r"), (Field::AccessToken, "a")]);
        let fingerprint = super::super::backoff::fingerprint(due);
        let failures = RefreshFailures { count: 2, since: NOW - 9, last: NOW, fingerprint };
        let lease = |owner: &str| Lease { owner: owner.to_owned(), until: NOW + 1 };
        let decide =
            |token, lease: Option<&Lease>, now| decide(token, lease, Some(&failures), &me, (now, now), SETTINGS);
        assert_eq!(decide(due, None, NOW), Decision::BackOff(NOW + 1_000));
        assert_eq!(decide(due, None, NOW + 1_000), Decision::Acquire);
        assert_eq!(decide(due, Some(&lease("1-a-1-7")), NOW), Decision::Refresh);
        assert_eq!(decide(due, Some(&lease("2-b-1-7")), NOW), Decision::Wait, "the refresh that may succeed");
        assert_eq!(decide(fresh, None, NOW), Decision::Serve);
    }

    #[test]
    fn a_lease_expires_by_the_clock_of_the_backend() {
        let me = Requester::new("1-a", 1, 7, true);
        let due = token(&[(Field::RefreshToken, "r"), (Field::AccessToken, "a"), (Field::ExpiryTime, "0")]);
        let lease = Lease { owner: "2-b-1-7".to_owned(), until: NOW + 1 };
        let hour = 3_600_000;
        let table = [
            ("both clocks agree", NOW, Decision::Wait),
            ("the backend's clock says that it is over", NOW + 1, Decision::Acquire),
            ("the backend's clock is far behind", NOW - hour, Decision::Acquire),
        ];
        for (case, lease_now, decision) in table {
            assert_eq!(decide(due, Some(&lease), None, &me, (NOW, lease_now), SETTINGS), decision, "{case}");
            assert_eq!(decide(due, Some(&lease), None, &me, (NOW + hour, lease_now), SETTINGS), decision, "{case}");
        }
    }

    #[test]
    fn requesters_that_would_refresh_the_same_token_share_a_key() {
        let (client, other) = ((Field::ClientId, "1000.CLIENT"), (Field::ClientId, "1000.OTHER"));
        let refresh = (Field::RefreshToken, "made-up-refresh");
        let grant = (Field::GrantToken, "made-up-grant");
        let access = (Field::AccessToken, "made-up-access");
        let same = [
            (lease_key(token(&[client, refresh]), None), lease_key(token(&[client, refresh, grant, access]), None)),
            (lease_key(token(&[client, grant]), None), lease_key(token(&[client, grant, access]), None)),
            (lease_key(token(&[client, refresh]), Some("7")), lease_key(token(&[other, grant]), Some("7"))),
            (lease_key(token(&[client, refresh]), Some("")), lease_key(token(&[client, refresh]), None)),
        ];
        for (one, other) in &same {
            assert!(one.is_some() && one == other, "{one:?} {other:?}");
        }
        let different = [
            lease_key(token(&[client, refresh]), None),
            lease_key(token(&[other, refresh]), None),
            lease_key(token(&[refresh]), None),
            lease_key(token(&[client, grant]), None),
            lease_key(token(&[client, (Field::RefreshToken, "made-up-grant")]), None),
            lease_key(token(&[client, refresh]), Some("7")),
            lease_key(token(&[client, refresh]), Some("8")),
            lease_key(token(&[(Field::ClientId, "1"), (Field::RefreshToken, "23")]), None),
            lease_key(token(&[(Field::ClientId, "12"), (Field::RefreshToken, "3")]), None),
        ];
        for (at, one) in different.iter().enumerate() {
            assert!(one.is_some() && !different[..at].contains(one), "{one:?}");
        }
        assert_eq!(lease_key(token(&[client, access]), None), None);
    }

    #[test]
    fn a_key_holds_no_secret() {
        let made = lease_key(token(&[(Field::ClientId, "c"), (Field::RefreshToken, "made-up")]), None);
        let text = made.as_ref().map(LeaseKey::as_str).unwrap_or_default();
        assert!(text.starts_with("refresh_token:") && text.len() == 14 + 64, "{text}");
        assert!(!text.contains("made-up"));
        assert_eq!(made.as_ref().and_then(LeaseKey::id), None);
        assert_eq!(lease_key(Token::default(), Some("17")).as_ref().and_then(LeaseKey::id), Some("17"));
    }

    #[test]
    fn a_wait_ends_soon_after_the_refresh_has_failed() {
        let lease = |owner: &str, until| Lease { owner: owner.to_owned(), until };
        let (first, second, third) = (lease("a", 100_000), lease("b", 200_000), lease("b", 300_000));
        let (brief, next) = (lease("a", 1_500), lease("c", 2_500));
        let seconds = Duration::from_secs;
        // The valid lease at each second (none: the store is too busy), and how long the wait may last then.
        let table: [(&str, &[Option<&Lease>], u64); 15] = [
            ("nothing seen yet", &[], 10),
            ("one holder all the time", &[Some(&first), Some(&first), Some(&first)], 10),
            ("a second after 1 s", &[Some(&first), Some(&second)], 1 + 2),
            ("a third does not prolong it", &[Some(&first), Some(&second), Some(&third)], 1 + 2),
            ("the same owner once more", &[Some(&second), Some(&second), Some(&third)], 2 + 2),
            ("the first again", &[Some(&first), Some(&second), Some(&first)], 1 + 2),
            ("the lease of the first has expired", &[Some(&brief), Some(&brief), Some(&second)], 2 + 10),
            ("two have expired", &[Some(&brief), Some(&brief), Some(&next), Some(&second)], 3 + 10),
            ("a second has failed, and a third has expired", &[Some(&first), Some(&next), None, Some(&third)], 1 + 2),
            ("a busy store", &[None, None], 2),
            ("a busy store, and then a holder", &[None, None, Some(&first)], 2 + 10),
            ("a busy store, and then the same holder", &[None, None, Some(&first), Some(&first)], 2 + 10),
            ("a busy store, and then two holders", &[None, None, Some(&first), Some(&second)], 3 + 2),
            ("a holder, and then a busy store", &[Some(&first), Some(&first), None, None], 2 + 2),
            ("a second, and then a busy store", &[Some(&first), Some(&second), None, None], 1 + 2),
        ];
        for (case, seen, limit) in table {
            let mut progress = WaitProgress::default();
            for (at, lease) in (0_u32..).zip(seen) {
                match lease {
                    Some(lease) => progress.see_lease(lease, i64::from(at) * 1_000, seconds(at.into())),
                    None => progress.see_busy_store(seconds(at.into())),
                }
            }
            assert_eq!(progress.limit(seconds(10)), seconds(limit), "{case}");
        }
        let mut progress = WaitProgress::default();
        progress.see_lease(&first, 0, Duration::ZERO);
        progress.see_lease(&second, 0, Duration::from_millis(100));
        assert_eq!(progress.limit(Duration::from_millis(500)), Duration::from_millis(600), "a short lease");
    }

    #[test]
    fn a_requester_looks_the_less_often_the_more_a_look_costs() {
        let table = [
            (0, LookCost::Microseconds, 20..50),
            (9_000, LookCost::Microseconds, 20..50),
            (0, LookCost::Statement, 20..50),
            (999, LookCost::Statement, 20..50),
            (1_000, LookCost::Statement, 100..200),
            (9_000, LookCost::Statement, 100..200),
            (0, LookCost::Document, 225..275),
            (9_000, LookCost::Document, 225..275),
        ];
        for (waited, cost, expected) in table {
            assert_eq!(poll_interval(Duration::from_millis(waited), cost), expected, "{waited} {cost:?}");
        }
    }

    #[test]
    fn an_owner_names_its_process() {
        let me = Requester::new("4711-c0ffee", 1, 7, true);
        let lease = |owner: &str| Lease { owner: owner.to_owned(), until: 0 };
        assert_eq!(lease(me.owner()).process_id(), "4711");
        assert!(me.is_same_process(&lease("4711-c0ffee-2-9")));
        assert!(!me.is_same_process(&lease("4711-c0ff-1-7")));
    }
}
