//! Back-off: after refreshes that failed one after the other, how long the next one has to wait (`docs/lease.md`, rule
//! 15). Zoho denies every refresh for minutes after too many, so a refresh that cannot succeed only prolongs an outage.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::digest;
use super::token::{Field, Token};

/// The refreshes of one token that have failed, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshFailures {
    /// How many.
    pub count: u32,
    /// When the first of them failed, in milliseconds since the epoch.
    pub since: i64,
    /// When the last of them failed, in milliseconds since the epoch.
    pub last: i64,
    /// Names the credentials that were refused, as [`fingerprint`] does. Other credentials are not delayed.
    pub fingerprint: String,
}

/// The delay after the second failure. It doubles with each further failure. After the first failure there is none: a
/// single failure is often a broken connection.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// A clock may be corrected by this much, and two readings of it differ a little. What lies further in the future was
/// recorded by a wrong clock, and does not count.
pub const CLOCK_TOLERANCE_MS: i64 = 1_000;

/// Names the credentials of a token, without a secret: a SHA-256 of its client and its three tokens.
///
/// A token that was refreshed, or a user who logged in again, has another fingerprint. So no record has to be deleted
/// for them, whatever program saved them.
#[must_use]
pub fn fingerprint(token: Token<'_>) -> String {
    let mut digest = Sha256::new();
    for field in [Field::ClientId, Field::ClientSecret, Field::RefreshToken, Field::GrantToken, Field::AccessToken] {
        // The length comes first, so that no two tokens give the same input.
        let value = token.get(field).unwrap_or_default();
        digest.update(value.len().to_le_bytes());
        digest.update(value);
    }
    digest::hex(digest)
}

impl RefreshFailures {
    /// The record after another refresh of the token with this fingerprint has failed at `now`.
    #[must_use]
    pub fn after_another(before: Option<&Self>, fingerprint: &str, now: i64) -> Self {
        let before = before.filter(|before| before.counts(fingerprint, now));
        Self {
            count: before.map_or(0, |before| before.count).saturating_add(1),
            since: before.map_or(now, |before| before.since),
            last: now,
            fingerprint: fingerprint.to_owned(),
        }
    }

    /// Is this about the credentials with this fingerprint, and was it recorded by the same clock?
    #[must_use]
    pub fn counts(&self, fingerprint: &str, now: i64) -> bool {
        self.fingerprint == fingerprint && self.last <= now.saturating_add(CLOCK_TOLERANCE_MS)
    }

    /// How long the next refresh has to wait after the last failure, if it waits at most `longest`.
    #[must_use]
    pub fn delay(&self, longest: Duration) -> Duration {
        match self.count.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) => {
                FIRST_DELAY.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(longest)
            }
        }
    }

    /// When the next refresh may begin, in milliseconds since the epoch. `None`: at once.
    ///
    /// `token` is what would be refreshed, and `now` the time of the clock by which the failures were recorded.
    /// `longest` is zero if back-off is off.
    #[must_use]
    pub fn next_attempt(&self, token: Token<'_>, now: i64, longest: Duration) -> Option<i64> {
        let delay = i64::try_from(self.delay(longest).as_millis()).unwrap_or(i64::MAX);
        if delay == 0 || !self.counts(&fingerprint(token), now) {
            return None;
        }
        Some(self.last.saturating_add(delay)).filter(|next| now < *next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_300_000_000;
    const LONGEST: Duration = Duration::from_secs(30);

    fn token<'a>(values: &[(Field, &'a str)]) -> Token<'a> {
        values.iter().fold(Token::default(), |token, &(field, value)| token.with(field, Some(value)))
    }

    fn expired() -> Token<'static> {
        token(&[
            (Field::ClientId, "c"),
            (Field::RefreshToken, "made-up"),
            (Field::AccessToken, "old"),
            (Field::ExpiryTime, "1"),
        ])
    }

    fn failures(count: u32, last: i64) -> RefreshFailures {
        RefreshFailures { count, since: NOW - 60_000, last, fingerprint: fingerprint(expired()) }
    }

    #[test]
    fn the_delay_doubles_from_the_second_failure_on() {
        let table =
            [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 30), (8, 30), (100, 30), (u32::MAX, 30)];
        for (count, seconds) in table {
            assert_eq!(failures(count, NOW).delay(LONGEST), Duration::from_secs(seconds), "{count}");
        }
        assert_eq!(failures(9, NOW).delay(Duration::ZERO), Duration::ZERO, "back-off is off");
        assert_eq!(failures(40, NOW).delay(Duration::MAX), Duration::from_secs(u64::from(u32::MAX)));
    }

    #[test]
    fn a_refresh_is_delayed_only_for_the_credentials_that_were_refused() {
        let in_a_second = (NOW + 1_000).to_string();
        // The token, the failures, and in how many milliseconds the next refresh may begin.
        let table = [
            ("the first failure", expired(), failures(1, NOW), None),
            ("the first failure, by a clock that is ahead", expired(), failures(1, NOW + 1_000), None),
            ("the second", expired(), failures(2, NOW), Some(1_000)),
            ("the third, half a second ago", expired(), failures(3, NOW - 500), Some(1_500)),
            ("the third, 2 s ago", expired(), failures(3, NOW - 2_000), None),
            ("many, long ago", expired(), failures(99, NOW - 30_000), None),
            ("by a clock that is a little ahead", expired(), failures(2, NOW + 1_000), Some(2_000)),
            ("by a wrong clock", expired(), failures(2, NOW + 1_001), None),
            ("one second left", expired().with(Field::ExpiryTime, Some(&in_a_second)), failures(2, NOW), Some(1_000)),
            ("another refresh token", expired().with(Field::RefreshToken, Some("new")), failures(9, NOW), None),
            ("another grant token", expired().with(Field::GrantToken, Some("new")), failures(9, NOW), None),
            ("another access token", expired().with(Field::AccessToken, Some("new")), failures(9, NOW), None),
            ("another client", expired().with(Field::ClientId, Some("new")), failures(9, NOW), None),
            ("another client secret", expired().with(Field::ClientSecret, Some("new")), failures(9, NOW), None),
            ("another user name", expired().with(Field::UserName, Some("new")), failures(2, NOW), Some(1_000)),
        ];
        for (case, token, failures, expected) in table {
            let next = failures.next_attempt(token, NOW, LONGEST).map(|next| next - NOW);
            assert_eq!(next, expected, "{case}");
            assert_eq!(failures.next_attempt(token, NOW, Duration::ZERO), None, "off: {case}");
        }
        let without = expired().with(Field::AccessToken, None);
        let refused = RefreshFailures { fingerprint: fingerprint(without), ..failures(2, NOW) };
        assert_eq!(refused.next_attempt(without, NOW, LONGEST), Some(NOW + 1_000), "no access token");
    }

    #[test]
    fn failures_add_up_until_the_credentials_change() {
        let same = fingerprint(expired());
        let first = RefreshFailures::after_another(None, &same, NOW);
        assert_eq!((first.count, first.since, first.last), (1, NOW, NOW));
        let second = RefreshFailures::after_another(Some(&first), &same, NOW + 5);
        assert_eq!((second.count, second.since, second.last), (2, NOW, NOW + 5));
        let other = RefreshFailures::after_another(Some(&second), "another", NOW + 9);
        assert_eq!((other.count, other.since, other.fingerprint.as_str()), (1, NOW + 9, "another"));
        let from_wrong_clock = RefreshFailures { last: NOW + 3_600_000, ..second };
        assert_eq!(RefreshFailures::after_another(Some(&from_wrong_clock), &same, NOW).count, 1);
        let most = RefreshFailures { count: u32::MAX, ..first };
        assert_eq!(RefreshFailures::after_another(Some(&most), &same, NOW).count, u32::MAX);
    }

    #[test]
    fn a_fingerprint_holds_no_secret_and_tells_credentials_apart() {
        assert!(fingerprint(expired()).len() == 64 && !fingerprint(expired()).contains("made-up"));
        let one = token(&[(Field::ClientId, "1"), (Field::RefreshToken, "23")]);
        let other = token(&[(Field::ClientId, "12"), (Field::RefreshToken, "3")]);
        assert_ne!(fingerprint(one), fingerprint(other));
    }
}
