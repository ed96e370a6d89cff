//! PostgreSQL's time: microseconds since the year 2000.

use std::time::{SystemTime, UNIX_EPOCH};

/// 2000-01-01T00:00:00Z in Unix time.
const EPOCH_MS: i64 = 946_684_800_000;

/// Unix milliseconds of a time as the server writes it, before 2000 rounded down.
pub(crate) fn unix_ms(server_us: i64) -> i64 {
    server_us.div_euclid(1000) + EPOCH_MS
}

/// This machine's time as the server writes it. Only shown there, nothing depends on it.
pub(crate) fn now_us() -> i64 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_1970.as_micros())
        .unwrap_or(i64::MAX)
        .saturating_sub(EPOCH_MS * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epochs_lie_thirty_years_apart() {
        assert_eq!(unix_ms(0), EPOCH_MS);
        assert_eq!(unix_ms(-1), EPOCH_MS - 1);
        assert_eq!(unix_ms(1_500), EPOCH_MS + 1);
    }
}
