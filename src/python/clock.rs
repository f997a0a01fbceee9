//! The current time in milliseconds since the epoch, by the system's clock and by the clock that the SDK reads.

use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::prelude::*;

use crate::domain::lease;

/// Returns the time of the system's clock.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns the clock that the SDK reads: Python's `time.time()`, which a test may have replaced. The returned function
/// does not call Python, so it can run while a lock is held.
pub(super) fn sdk_clock(py: Python<'_>) -> PyResult<impl Fn() -> i64 + Sync + use<>> {
    let time = py.import("time")?.getattr("time")?;
    let before = now();
    let seconds: f64 = time.call0()?.extract()?;
    #[expect(clippy::cast_possible_truncation, reason = "a conversion saturates, far beyond the range of any clock")]
    let offset = lease::clock_offset(before, (seconds * 1_000.0) as i64, now());
    Ok(move || now().saturating_add(offset))
}
