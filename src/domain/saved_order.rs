//! The orders of rows that come from elsewhere (docs/contract.md, section 10).

use std::collections::{BTreeMap, BTreeSet};

/// The highest order or number that is taken from elsewhere. Every later save needs a higher one, which must fit into
/// 64 bits.
pub const MAX_RESTORED: i64 = i64::MAX / 2;

/// Returns the orders with which a restore writes rows: those that they have. If one of them leaves too few higher
/// ones, all rows get low orders that sort them in the same way. Only a damaged or forged backup has such an order.
#[must_use]
pub fn restored(orders: &[i64]) -> Vec<i64> {
    if orders.iter().all(|&order| order <= MAX_RESTORED) {
        return orders.to_vec();
    }
    let sorted: BTreeSet<i64> = orders.iter().copied().collect();
    let low: BTreeMap<i64, i64> = sorted.into_iter().zip(1..).collect();
    orders.iter().map(|order| low[order]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restored_orders_leave_room_for_later_saves_and_sort_rows_in_the_same_way() {
        let table: [(&[i64], &[i64]); 8] = [
            (&[], &[]),
            (&[3, 1, 2], &[3, 1, 2]),
            (&[0, 0, -5], &[0, 0, -5]),
            (&[MAX_RESTORED, 1], &[MAX_RESTORED, 1]),
            (&[MAX_RESTORED + 1, 1], &[2, 1]),
            (&[i64::MAX, 7, i64::MAX - 1, 7, i64::MIN], &[4, 2, 3, 2, 1]),
            (&[i64::MAX, i64::MAX], &[1, 1]),
            (&[i64::MIN], &[i64::MIN]),
        ];
        for (orders, expected) in table {
            assert_eq!(restored(orders), expected, "{orders:?}");
        }
    }
}
