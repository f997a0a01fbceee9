//! What an expiry says: milliseconds since the epoch, or nothing.

/// The expiry as a number, if it is a whole one; any other text counts as no expiry (contract 4).
///
/// Read as the SDK reads it (`int(text)`), so white space around it and a sign are allowed. A number beyond
/// 128 bits is as far away as the furthest that fits.
#[must_use]
pub fn parse(text: Option<&str>) -> Option<i128> {
    let text = text?.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number =
        digits.iter().fold(0_i128, |number, digit| number.saturating_mul(10).saturating_add(i128::from(digit - b'0')));
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_whole_number_or_none() {
        let table = [
            ("1795300001000", Some(1_795_300_001_000)),
            (" 12\n", Some(12)),
            ("+12", Some(12)),
            ("-12", Some(-12)),
            ("007", Some(7)),
            ("", None),
            ("-", None),
            ("soon", None),
            ("1.5", None),
            ("1e3", None),
            ("1_000", None),
            ("1 000", None),
            ("--1", None),
            ("\u{0661}", None), // a digit in another script
        ];
        for (text, expected) in table {
            assert_eq!(parse(Some(text)), expected, "{text:?}");
        }
        assert_eq!(parse(None), None);
        assert_eq!(parse(Some(&"9".repeat(99))), Some(i128::MAX));
    }
}
