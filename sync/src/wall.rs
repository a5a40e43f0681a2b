//! The only place that reads a clock or draws randomness: what decides is handed both.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use peer_table::WallTime;

/// This machine's wall clock.
pub fn now() -> WallTime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A number that nobody can foresee.
pub fn random() -> u64 {
    getrandom::u64().expect("the operating system has random numbers")
}

/// A clock that never jumps, from where it was started.
#[derive(Copy, Clone, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts it.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
