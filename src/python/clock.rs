//! What time it is, in milliseconds since the epoch: ours, and the one that the SDK will see.

use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::intern;
use pyo3::prelude::*;

use crate::domain::lease;

/// By the system's clock.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// By the clock that the SDK reads, Python's `time.time()`, which a test may have replaced: in a form that asks nothing of
/// Python later on, when locks are held.
pub(super) fn of_the_sdk(py: Python<'_>) -> PyResult<impl Fn() -> i64 + Sync + use<>> {
    let time = py.import("time")?.getattr(intern!(py, "time"))?;
    let before = now();
    let seconds: f64 = time.call0()?.extract()?;
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and a clock is far from where it would")]
    let off = lease::clock_off(before, (seconds * 1_000.0) as i64, now());
    Ok(move || now().saturating_add(off))
}
