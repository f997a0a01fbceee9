//! What an expiry says: milliseconds since the epoch, or nothing.

use std::cmp::Ordering;

/// A moment in milliseconds since the epoch, as written: however long, it is compared as the number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry<'a> {
    negative: bool,
    /// Without leading zeros: empty for zero.
    digits: &'a str,
}

/// The expiry, if it is a whole number; any other text counts as none (contract 4).
///
/// Read as the SDK reads it (`int(text)`), so white space around it and a sign are allowed.
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
    /// As a number, if it is one that any calendar goes to.
    #[must_use]
    pub fn milliseconds(self) -> Option<i64> {
        let digits = if self.digits.is_empty() { "0" } else { self.digits };
        let number = digits.parse::<i64>().ok()?;
        Some(if self.negative { -number } else { number })
    }

    /// Has it passed at `now` (milliseconds since the epoch)?
    #[must_use]
    pub fn has_passed(self, now: i64) -> bool {
        // A number too long for 64 bits lies further off than any clock goes.
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
