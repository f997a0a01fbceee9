//! The current time in milliseconds since the epoch, by the system's clock and by the clock that the SDK reads.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::domain::lease;

/// Returns the time of the system's clock.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The clock that the SDK reads: Python's `time.time()`, which a test may have replaced.
pub(super) struct SdkClock {
    /// The namespace of the module `time`. A find reads the clock, and a look-up in a dict takes a third of the time
    /// that an attribute of a module takes.
    module: Py<PyDict>,
    name: Py<PyString>,
    /// `time.time` when the SDK was imported.
    original: Py<PyAny>,
    /// The millisecond of our clock in which the original was read last, and was not moved.
    last_read: AtomicI64,
}

impl SdkClock {
    pub(super) fn new(py: Python<'_>) -> PyResult<Self> {
        let module = py.import("time")?;
        Ok(Self {
            name: PyString::intern(py, "time").unbind(),
            original: module.getattr("time")?.unbind(),
            module: module.dict().unbind(),
            last_read: AtomicI64::new(i64::MIN),
        })
    }

    /// Returns the time of our clock, and how far the SDK's clock was moved, in milliseconds: 0 unless a test has done
    /// so. An exception of the replacement counts as a clock that was not moved, unless it ends a program.
    pub(super) fn now_and_offset(&self, py: Python<'_>) -> PyResult<(i64, i64)> {
        let before = now();
        match self.try_offset(py, before) {
            Err(error) if error.is_instance_of::<PyException>(py) => Ok((before, 0)),
            offset => Ok((before, offset?)),
        }
    }

    /// Returns the same clock as a function that does not call Python, so it can run while a lock is held.
    pub(super) fn read(&self, py: Python<'_>) -> PyResult<impl Fn() -> i64 + Sync + use<>> {
        let offset = self.try_offset(py, now())?;
        Ok(move || now().saturating_add(offset))
    }

    /// `before` is a reading of our clock, just now.
    fn try_offset(&self, py: Python<'_>, before: i64) -> PyResult<i64> {
        let Some(time) = self.module.bind(py).get_item(&self.name)? else { return Ok(0) };
        // A call takes a tenth of a find. So the original is called once in a millisecond: time-machine changes what it
        // does.
        let is_original = time.is(&self.original);
        if is_original && self.last_read.load(Ordering::Relaxed) == before {
            return Ok(0);
        }
        let seconds: f64 = time.call0()?.extract()?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a conversion saturates, far beyond the range of any clock"
        )]
        let sdk = (seconds * 1_000.0) as i64;
        // Nearly always one reading of our clock is enough.
        let offset = lease::clock_offset(before, sdk, before);
        if offset == 0 {
            if is_original {
                self.last_read.store(before, Ordering::Relaxed);
            }
            return Ok(0);
        }
        Ok(lease::clock_offset(before, sdk, now()))
    }
}
