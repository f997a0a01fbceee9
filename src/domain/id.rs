//! New ids: decimal strings, rising, never used twice (contract 5).

/// Longest id that takes part in the counting. A longer one would leave no room above it.
const MOST_DIGITS: usize = 18;

/// The number that an id stands for among the ids this library counts.
///
/// A caller may bring any id; only those that a count could arrive at matter to it. The trigger
/// `zoho_token_store_inserted` says the same in SQL, for rows that other programs insert.
#[must_use]
pub fn number(id: &str) -> Option<i64> {
    let counts = !id.is_empty() && id.len() <= MOST_DIGITS && id.bytes().all(|byte| byte.is_ascii_digit());
    if counts { id.parse().ok() } else { None }
}

/// The first number above `last`, the highest that any row ever had or was given, whose id no row has.
///
/// A row can have a number above `last` only where a caller brought one with too many digits to be counted.
pub fn next<E>(last: i64, mut taken: impl FnMut(&str) -> Result<bool, E>) -> Result<i64, E> {
    let mut number = last.saturating_add(1);
    while taken(&number.to_string())? {
        number = number.saturating_add(1);
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn only_ids_that_a_count_could_arrive_at_are_counted() {
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
        assert_eq!(next(999_999_999_999_999_999, &["1000000000000000000"]), 1_000_000_000_000_000_001);
    }
}
