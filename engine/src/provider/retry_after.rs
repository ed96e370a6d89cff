//! `Retry-After`: when a provider wants to be asked again.

use std::time::Duration;

use jiff::{Timestamp, civil::DateTime, fmt::rfc2822, fmt::strtime, tz::TimeZone};

/// A day: no provider asks for more in good faith, and a pause must end by itself (PRODUCT
/// section 10).
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the account pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// As told by the provider, above zero and at most [`RETRY_AFTER_MAX`].
    Wait(Duration),
    /// Nothing usable was told (absent, zero, negative, past or garbage): the own back-off decides.
    /// "At once" is no answer to a throttled request; it would be asked in a loop.
    BackOff,
}

impl RetryAfter {
    /// Reads the header. A date counts from the reply's own `Date`, so that the difference between
    /// the two clocks does not matter; without one, from `wall_now`.
    pub fn parse(retry_after: Option<&str>, date: Option<&str>, wall_now: Timestamp) -> RetryAfter {
        let Some(text) = retry_after.map(str::trim) else {
            return RetryAfter::BackOff;
        };
        let wait = match seconds(text) {
            Some(wait) => wait,
            None => {
                let Some(until) = http_date(text) else {
                    return RetryAfter::BackOff;
                };
                let from = date
                    .and_then(|date| http_date(date.trim()))
                    .unwrap_or(wall_now);
                // A date before its start is negative, which an unsigned duration cannot be.
                Duration::try_from(until.duration_since(from)).unwrap_or(Duration::ZERO)
            }
        };
        if wait.is_zero() {
            RetryAfter::BackOff
        } else {
            RetryAfter::Wait(wait.min(RETRY_AFTER_MAX))
        }
    }
}

impl RetryAfter {
    /// As [`RetryAfter::parse`], for headers that may hold a Unix time as well, in seconds or
    /// milliseconds: some providers give the instant at which a window ends. A number is a time
    /// when it is too large to be a wait.
    pub(crate) fn detect(text: &str, date: Option<&str>, wall_now: Timestamp) -> RetryAfter {
        let text = text.trim();
        let number = text.parse::<i64>().ok();
        let instant = number.and_then(|number| match number {
            UNIX_SECONDS_MIN..UNIX_MILLIS_MIN => Timestamp::from_second(number).ok(),
            UNIX_MILLIS_MIN.. => Timestamp::from_millisecond(number).ok(),
            _ => None,
        });
        match instant {
            Some(instant) => RetryAfter::parse(Some(&instant.to_string()), date, wall_now),
            None => RetryAfter::parse(Some(text), date, wall_now),
        }
    }
}

/// 2001-09-09 as seconds since 1970; as a wait, 31 years.
const UNIX_SECONDS_MIN: i64 = 1_000_000_000;

/// 2001-09-09 as milliseconds; as seconds, the year 33658.
const UNIX_MILLIS_MIN: i64 = 1_000_000_000_000;

/// Whole seconds as in RFC 9110, and decimals, which some providers send; clamped.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    // Too many digits to be a number of seconds are still a number: a huge one.
    let whole = whole
        .parse::<u64>()
        .map_or(RETRY_AFTER_MAX, Duration::from_secs);
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    let millis = fraction.parse::<u64>().expect("three digits");
    Some(whole.min(RETRY_AFTER_MAX) + Duration::from_millis(millis))
}

/// The three forms of RFC 9110, section 5.6.7, and RFC 3339, which some providers send.
pub(crate) fn http_date(text: &str) -> Option<Timestamp> {
    if text.len() > DATE_BYTES_MAX {
        return None;
    }
    // A wrong weekday is not a reason to misread the rest.
    static IMF_FIXDATE: rfc2822::DateTimeParser =
        rfc2822::DateTimeParser::new().relaxed_weekday(true);
    if let Ok(date) = IMF_FIXDATE.parse_timestamp(text) {
        return Some(date);
    }
    if let Ok(date) = text.parse::<Timestamp>() {
        return Some(date);
    }
    let obsolete = |format, text: &str| -> Option<Timestamp> {
        let date: DateTime = strtime::parse(format, text).ok()?.to_datetime().ok()?;
        date.to_zoned(TimeZone::UTC)
            .ok()
            .map(|date| date.timestamp())
    };
    // `Sunday, 06-Nov-94 08:49:37 GMT` without its weekday, then `Sun Nov  6 08:49:37 1994`.
    text.split_once(", ")
        .and_then(|(_, rest)| obsolete("%d-%b-%y %H:%M:%S GMT", rest))
        .or_else(|| {
            text.split_once(' ')
                .and_then(|(_, rest)| obsolete("%b %e %H:%M:%S %Y", rest.trim_start()))
        })
}

/// Longer than the longest form (`Wednesday, 06-Nov-94 08:49:37 GMT`, 33), short enough to bound
/// the work on garbage.
const DATE_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: &str = "1994-11-06T08:49:00Z";

    fn check(retry_after: &str, date: Option<&str>, expected: RetryAfter) {
        let parsed = RetryAfter::parse(Some(retry_after), date, NOW.parse().unwrap());
        assert_eq!(parsed, expected, "{retry_after:?} {date:?}");
    }

    fn wait(millis: u64) -> RetryAfter {
        RetryAfter::Wait(Duration::from_millis(millis))
    }

    #[test]
    fn seconds_are_honoured_and_clamped_to_a_day() {
        check("1", None, wait(1000));
        check(" 120 ", None, wait(120_000));
        check("0.25", None, wait(250));
        check("1.", None, wait(1000));
        check("86400", None, RetryAfter::Wait(RETRY_AFTER_MAX));
        check("86401", None, RetryAfter::Wait(RETRY_AFTER_MAX));
        check(
            "18446744073709551615",
            None,
            RetryAfter::Wait(RETRY_AFTER_MAX),
        );
        check(&"9".repeat(400), None, RetryAfter::Wait(RETRY_AFTER_MAX));
    }

    #[test]
    fn what_gives_no_time_to_wait_falls_back_to_the_back_off() {
        for text in [
            "", "0", "0.0", "-1", "-0", "+5", "1e9", "soon", "inf", "NaN", "5 s", "1.2.3", "٣",
            "\u{0}",
        ] {
            check(text, None, RetryAfter::BackOff);
        }
        check(&"x".repeat(100_000), None, RetryAfter::BackOff);
        assert_eq!(
            RetryAfter::parse(None, None, NOW.parse().unwrap()),
            RetryAfter::BackOff
        );
    }

    #[test]
    fn every_form_of_a_date_is_read() {
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "1994-11-06T08:49:37Z",
            "1994-11-06T09:49:37+01:00",
        ] {
            check(date, None, wait(37_000));
        }
        check("Sun, 06 Nov 1994 08:48:37 GMT", None, RetryAfter::BackOff);
        check("Sun, 06 Nov 1994 08:49:00 GMT", None, RetryAfter::BackOff);
        check(
            "Sun, 06 Nov 2094 08:49:37 GMT",
            None,
            RetryAfter::Wait(RETRY_AFTER_MAX),
        );
        check("Sun, 99 Nov 1994 08:49:37 GMT", None, RetryAfter::BackOff);
    }

    #[test]
    fn a_number_too_large_for_a_wait_is_an_instant() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let rows = [
            ("30", wait(30_000)),
            ("1795255230", wait(30_000)),
            ("1795255230000", wait(30_000)),
            ("2026-11-21T10:00:30Z", wait(30_000)),
            ("1795255200", RetryAfter::BackOff),
            ("soon", RetryAfter::BackOff),
        ];
        for (text, expected) in rows {
            assert_eq!(RetryAfter::detect(text, None, now), expected, "{text}");
        }
    }

    #[test]
    fn a_date_counts_from_the_providers_clock_when_it_told_it() {
        let until = "Sun, 06 Nov 1994 10:00:30 GMT";
        check(until, Some("Sun, 06 Nov 1994 10:00:00 GMT"), wait(30_000));
        check(
            until,
            Some("Sun, 06 Nov 1994 11:00:00 GMT"),
            RetryAfter::BackOff,
        );
        check(until, Some("nonsense"), wait((71 * 60 + 30) * 1000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_text_gives_a_wait_within_bounds(text in "[-0-9a-zA-Z,:. +]{0,40}", date in "\\PC{0,40}") {
            if let RetryAfter::Wait(wait) = RetryAfter::parse(Some(&text), Some(&date), NOW.parse().unwrap()) {
                prop_assert!(!wait.is_zero() && wait <= RETRY_AFTER_MAX);
            }
        }
    }
}
