//! The expiry of an access token: milliseconds since the epoch, written in decimal.

use std::cmp::Ordering;

use super::token::{Field, Token};

/// A time in milliseconds since the epoch. It stays text, so that a number of any length is compared correctly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry<'a> {
    negative: bool,
    /// The digits without leading zeros. Empty for zero.
    digits: &'a str,
}

/// Reads an expiry. A text that is not a whole number counts as absent (contract, section 4).
///
/// It accepts what the SDK accepts (`int(text)`): white space around the number, and a sign.
#[must_use]
pub fn parse(text: Option<&str>) -> Option<Expiry<'_>> {
    let text = text?.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    Some(Expiry { negative: negative && !digits.is_empty(), digits })
}

/// Is this text an expiry that the SDK cannot use? Dates, fractions, exponents and `nan` are, and so is a number that
/// does not fit into 64 bits, because no clock reaches it. An absent expiry is not.
///
/// The SDK calls `int(expires_in)` for each request (`OAuthToken.get_token`, SDK 5 to 8). That raises `ValueError` for
/// such a text, whatever else the token has.
#[must_use]
pub fn is_unreadable(text: Option<&str>) -> bool {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return false };
    // The usual expiry has 13 digits, and up to 18 digits always fit. A find tests this several times.
    let is_usual = text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    !is_usual && parse(Some(text)).and_then(Expiry::milliseconds).is_none()
}

/// The expiry that an access token gets in place of an unreadable one: it has expired long ago.
const EXPIRED: &str = "0";

/// Returns the token as the SDK gets it: its expiry is a whole number or absent (contract, section 4).
///
/// With an expired access token the SDK uses the refresh token, and saves a readable expiry. Without a refresh token
/// that request would fail, and the access token may still be good. Then the expiry is absent, so the SDK uses the
/// access token as it is.
#[must_use]
pub fn readable(token: Token<'_>) -> Token<'_> {
    if is_unreadable(token.get(Field::ExpiryTime)) {
        token.with(Field::ExpiryTime, token.has(Field::RefreshToken).then_some(EXPIRED))
    } else {
        token
    }
}

impl Expiry<'_> {
    /// The expiry as a number, if it fits into 64 bits.
    #[must_use]
    pub fn milliseconds(self) -> Option<i64> {
        let digits = if self.digits.is_empty() { "0" } else { self.digits };
        let number = digits.parse::<i64>().ok()?;
        Some(if self.negative { -number } else { number })
    }

    /// Has it passed at `now` (milliseconds since the epoch)?
    #[must_use]
    pub fn has_passed(self, now: i64) -> bool {
        // A number that does not fit into 64 bits is beyond the range of every clock.
        self.milliseconds().map_or(self.negative, |expiry| expiry <= now)
    }
}

impl Ord for Expiry<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        fn size<'a>(expiry: &Expiry<'a>) -> (usize, &'a str) {
            (expiry.digits.len(), expiry.digits)
        }
        match (self.negative, other.negative) {
            (false, false) => size(self).cmp(&size(other)),
            (true, true) => size(other).cmp(&size(self)),
            (negative, _) => {
                if negative {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
        }
    }
}

impl PartialOrd for Expiry<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_whole_number_or_none() {
        let table = [
            ("1795300001000", Some("1795300001000")),
            (" 12\n", Some("12")),
            ("\x0b12\t", Some("12")),
            ("+12", Some("12")),
            ("-12", Some("-12")),
            ("007", Some("7")),
            ("-0", Some("0")),
            ("", None),
            ("-", None),
            ("soon", None),
            ("1.5", None),
            ("1e3", None),
            ("1_000", None),
            ("1 000", None),
            ("--1", None),
            ("+-1", None),
            ("\u{0661}", None), // a digit in another script
        ];
        for (text, same) in table {
            assert_eq!(parse(Some(text)), parse(same), "{text:?}");
            assert_eq!(parse(Some(text)).is_some(), same.is_some(), "{text:?}");
        }
        assert_eq!(parse(None), None);
    }

    #[test]
    fn the_sdk_gets_a_whole_number_or_no_expiry() {
        // The stored expiry, and what the SDK gets with a refresh token and without one. The decision on a whole number
        // in another notation: it counts as unreadable. A spreadsheet has rounded `1.79585E+12`, and one refresh mends
        // the row in any case.
        let table = [
            // Whole numbers stay as they are. A number of seconds is a time in 1970, which is refreshed anyway.
            ("1795848490409", Some("1795848490409"), Some("1795848490409")),
            ("1795848490", Some("1795848490"), Some("1795848490")),
            (" 1795848490409\r\n", Some(" 1795848490409\r\n"), Some(" 1795848490409\r\n")),
            ("0", Some("0"), Some("0")),
            ("-1", Some("-1"), Some("-1")),
            ("+1", Some("+1"), Some("+1")),
            ("007", Some("007"), Some("007")),
            ("999999999999999999", Some("999999999999999999"), Some("999999999999999999")),
            ("9223372036854775807", Some("9223372036854775807"), Some("9223372036854775807")),
            ("", None, None),
            // Everything else.
            ("2026-11-28T06:00:00Z", Some("0"), None),
            ("2026-11-28 06:00:00", Some("0"), None),
            ("28/11/2026", Some("0"), None),
            ("1.79585E+12", Some("0"), None),
            ("1795848490409.0", Some("0"), None),
            ("1795848490.409", Some("0"), None),
            ("1,795,848,490,409", Some("0"), None),
            ("1_795_848_490_409", Some("0"), None),
            ("0x1a2", Some("0"), None),
            ("nan", Some("0"), None),
            ("inf", Some("0"), None),
            ("-inf", Some("0"), None),
            ("None", Some("0"), None),
            ("null", Some("0"), None),
            (" ", Some("0"), None),
            ("-", Some("0"), None),
            ("\u{0661}", Some("0"), None),
            ("9223372036854775808", Some("0"), None),
            ("-99999999999999999999999999", Some("0"), None),
        ];
        for (stored, with_refresh_token, without) in table {
            let token = Token::default().with(Field::AccessToken, Some("a")).with(Field::ExpiryTime, Some(stored));
            assert_eq!(readable(token).get(Field::ExpiryTime), without, "{stored:?}");
            let token = token.with(Field::RefreshToken, Some("r"));
            assert_eq!(readable(token).get(Field::ExpiryTime), with_refresh_token, "{stored:?}");
            assert_eq!(is_unreadable(Some(stored)), with_refresh_token != token.get(Field::ExpiryTime), "{stored:?}");
        }
        assert!(!is_unreadable(None));
        assert!(is_unreadable(Some(&"9".repeat(5_000))));
    }

    #[test]
    fn expiries_are_ordered_as_numbers() {
        let long = "9".repeat(60);
        let longer = format!("1{}", "0".repeat(60));
        let (most_negative, negative) = (format!("-{longer}"), format!("-{long}"));
        let rising = [&most_negative, &negative, "-10", "-9", "0", "1", "9", "10", "11", &long, &longer];
        let expiries: Vec<_> = rising.iter().map(|text| parse(Some(text))).collect();
        assert!(expiries.iter().all(Option::is_some));
        assert!(expiries.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn an_expiry_has_passed_from_its_very_millisecond_on() {
        let table =
            [("5", 4, false), ("5", 5, true), ("5", 6, true), ("-5", -6, false), ("0", 0, true), ("-5", 0, true)];
        for (text, now, passed) in table {
            assert_eq!(parse(Some(text)).map(|expiry| expiry.has_passed(now)), Some(passed), "{text} {now}");
        }
        let far = "9".repeat(30);
        assert_eq!(parse(Some(&far)).map(|expiry| expiry.has_passed(i64::MAX)), Some(false));
        assert_eq!(parse(Some(&format!("-{far}"))).map(|expiry| expiry.has_passed(i64::MIN)), Some(true));
    }
}
