//! Waiting for something to become true, instead of for time to pass.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test fails. Far above what it takes on an idle machine, since
/// tests share theirs with builds.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until there is something to see.
///
/// # Panics
/// When there is nothing within [`PATIENCE`].
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(
            Instant::now() < end,
            "{what} did not happen within {PATIENCE:?}"
        );
        thread::park_timeout(PAUSE);
    }
}

/// Lets `time` pass: for instants that dice chose, never in place of [`until`].
pub fn wait(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        thread::park_timeout(left);
    }
}
