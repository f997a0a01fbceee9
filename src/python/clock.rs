//! What time it is, in milliseconds since the epoch: ours, and the one that the SDK will see.

use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::intern;
use pyo3::prelude::*;

/// By the system's clock.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// How far two readings of one clock, one after the other on a busy machine, may lie apart.
const SAME_CLOCK: i64 = 1_000;

/// By the clock that the SDK reads, Python's `time.time()`, which a test may have replaced: in a form that asks nothing of
/// Python later on, when locks are held.
pub(super) fn of_the_sdk(py: Python<'_>) -> PyResult<impl Fn() -> i64 + Sync + use<>> {
    let seconds: f64 = py.import("time")?.call_method0(intern!(py, "time"))?.extract()?;
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and a clock is far from where it would")]
    let off = ((seconds * 1_000.0) as i64).saturating_sub(now());
    let off = if off.abs() > SAME_CLOCK { off } else { 0 };
    Ok(move || now().saturating_add(off))
}
