//! Instants as providers write them, to milliseconds since the epoch.

use serde::Deserialize;

use crate::timestamp::{in_range, parse_rfc3339};

/// How an instant is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum TimeUnit {
    /// RFC 3339; an offset without its colon is taken as well.
    #[default]
    #[serde(rename = "iso")]
    Iso,
    /// Milliseconds since 1970.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Seconds since 1970.
    #[serde(rename = "s")]
    Seconds,
}

/// The instant that `text` names; `None` when it names none between the years 0 and 9999.
pub(crate) fn instant_ms(text: &str, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Milliseconds => in_range(whole(text)?),
        TimeUnit::Seconds => in_range(whole(text)?.checked_mul(1000)?),
        TimeUnit::Iso => parse_rfc3339(text).or_else(|| {
            // `+0000`, which ISO 8601 allows and RFC 3339 does not.
            let (local, offset) = text.split_at_checked(text.len().checked_sub(5)?)?;
            let (hours, minutes) = offset.split_at_checked(3)?;
            parse_rfc3339(&format!("{local}{hours}:{minutes}"))
        }),
    }
}

/// Digits alone: no sign, no fraction.
fn whole(text: &str) -> Option<i64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_in_each_of_their_spellings() {
        use TimeUnit::{Iso, Milliseconds, Seconds};
        for (text, unit, expected) in [
            ("1795168800123", Milliseconds, Some(1_795_168_800_123)),
            ("1795168800", Seconds, Some(1_795_168_800_000)),
            ("2026-11-20T10:00:00.123Z", Iso, Some(1_795_168_800_123)),
            ("2026-11-20T10:00:00.000+0000", Iso, Some(1_795_168_800_000)),
            ("2026-11-20T12:00:00+0200", Iso, Some(1_795_168_800_000)),
            ("", Milliseconds, None),
            ("-1", Milliseconds, None),
            ("+1", Seconds, None),
            ("99999999999999999999", Milliseconds, None),
            ("9223372036854775807", Seconds, None),
            ("0000", Iso, None),
            ("2026-11-20", Iso, None),
            ("2026-11-20T10:00:00\u{e9}0000", Iso, None),
        ] {
            assert_eq!(instant_ms(text, unit), expected, "{text}");
        }
    }
}
