//! The expiry of an access token: milliseconds since the epoch, written in decimal.

use std::cmp::Ordering;

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
