//! New ids: rising decimal strings that are never used twice (contract, section 5).

/// The longest id that counts as a number, in digits. After a longer one, a higher number might not fit into 64 bits.
const MAX_COUNTED_DIGITS: usize = 18;

/// Returns the number of an id, if new ids have to be higher than it.
///
/// A caller may save a token with any id. Only an id of 1 to 18 digits can be equal to a new one. The SQL trigger
/// `zoho_token_store_inserted` has the same rule for rows that other programs insert.
#[must_use]
pub fn number(id: &str) -> Option<i64> {
    let counts = !id.is_empty() && id.len() <= MAX_COUNTED_DIGITS && id.bytes().all(|byte| byte.is_ascii_digit());
    if counts { id.parse().ok() } else { None }
}

/// Returns the first number above `last` that is no row's id. `last` is the highest number that any id ever had.
///
/// A row can have a higher number than `last` only if its id has too many digits to count. Only a forged `last` is near
/// the highest number of 64 bits. After that number the search goes on at 1, so it always ends.
pub fn next<E>(last: i64, mut taken: impl FnMut(&str) -> Result<bool, E>) -> Result<i64, E> {
    let after = |number: i64| number.checked_add(1).unwrap_or(1);
    let mut number = after(last);
    while taken(&number.to_string())? {
        number = after(number);
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn only_ids_of_1_to_18_digits_are_counted() {
        let table = [
            ("1", Some(1)),
            ("10", Some(10)),
            ("007", Some(7)),
            ("999999999999999999", Some(999_999_999_999_999_999)),
            ("1000000000000000000", None),
            ("", None),
            ("-1", None),
            ("1 or 1=1", None),
            ("\u{0661}", None),
        ];
        for (id, expected) in table {
            assert_eq!(number(id), expected, "{id:?}");
        }
    }

    #[test]
    fn a_new_id_is_above_the_last_and_not_taken() {
        let next = |last, taken: &[&str]| next(last, |id| Ok::<_, Infallible>(taken.contains(&id))).unwrap_or_default();
        assert_eq!(next(0, &[]), 1);
        assert_eq!(next(9, &["9"]), 10);
        assert_eq!(next(10, &["2"]), 11);
        assert_eq!(next(i64::MAX - 1, &[]), i64::MAX);
        assert_eq!(next(i64::MAX, &["1"]), 2);
        assert_eq!(next(i64::MAX - 1, &["9223372036854775807", "1"]), 2);
        assert_eq!(next(999_999_999_999_999_999, &["1000000000000000000"]), 1_000_000_000_000_000_001);
    }
}
