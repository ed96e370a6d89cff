//! Instants as providers write and read them; all are Unix time.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// `2026-11-20T10:00:00.123Z`.
pub(crate) fn millis(unix: Duration) -> String {
    written(unix, "%Y-%m-%dT%H:%M:%S%.3fZ")
}

/// `2026-11-20T10:00:00Z`.
pub(crate) fn seconds(unix: Duration) -> String {
    written(unix, "%Y-%m-%dT%H:%M:%SZ")
}

/// `2026-11-20T10:00:00.000+0000`: whole seconds, with three places nevertheless.
pub(crate) fn whole_seconds_offset(unix: Duration) -> String {
    written(unix, "%Y-%m-%dT%H:%M:%S.000+0000")
}

/// Reads an instant with its zone, in any of the ways above or as HTTP has it, or a date for its
/// first instant; `None` for anything else and for times before 1970.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let http = || Timestamp::strptime("%a, %d %b %Y %H:%M:%S %z", text.replace("GMT", "+0000"));
    let instant = text
        .parse()
        .or_else(|_| Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", text))
        .or_else(|_| http())
        .or_else(|_| {
            let date = Date::strptime("%Y-%m-%d", text)?;
            Ok::<_, jiff::Error>(date.to_zoned(TimeZone::UTC)?.timestamp())
        });
    Duration::try_from(instant.ok()?.as_duration()).ok()
}

fn written(unix: Duration, format: &str) -> String {
    let nanos = i128::try_from(unix.as_nanos()).unwrap_or(i128::MAX);
    let instant = Timestamp::from_nanosecond(nanos).unwrap_or(Timestamp::MAX);
    instant.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_read_as_it_is_written() {
        let unix = Duration::from_millis(1_795_168_800_123);
        assert_eq!(millis(unix), "2026-11-20T10:00:00.123Z");
        assert_eq!(seconds(unix), "2026-11-20T10:00:00Z");
        assert_eq!(whole_seconds_offset(unix), "2026-11-20T10:00:00.000+0000");
        let whole = Duration::from_secs(unix.as_secs());
        assert_eq!(parse(&millis(unix)), Some(unix));
        assert_eq!(parse(&seconds(unix)), Some(whole));
        assert_eq!(parse(&whole_seconds_offset(unix)), Some(whole));
        assert_eq!(parse("Fri, 20 Nov 2026 10:00:00 GMT"), Some(whole));
        assert_eq!(parse("2026-11-20T11:00:00+01:00"), Some(whole));
        assert_eq!(parse("1970-01-02"), Some(Duration::from_secs(86_400)));
        for bad in ["", "yesterday", "2026-11-20T10:00:00", "1969-12-31"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
