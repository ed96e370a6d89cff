//! Sizes (`"64MiB"`) and durations (`"50ms"`) as people write them.

use std::time::Duration;

use serde::de::{Deserializer, Error as _, Unexpected, Visitor};

/// A number of bytes, written as `"64MiB"`, `"10MB"` or a plain integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The number itself.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// `count` MiB.
    pub const fn mebibytes(count: u64) -> ByteSize {
        ByteSize(count << 20)
    }
}

/// Longest first where one ends in another.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

const DURATION_UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("min", 60_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// A duration longer than ten years is a slip of the pen, and would overflow
/// sums of deadlines further on.
const DURATION_MS_MAX: u64 = 10 * 366 * 86_400_000;

/// Reads `"64MiB"`; `None` when it is no size or over `u64::MAX` bytes.
pub fn parse_size(text: &str) -> Option<ByteSize> {
    parse_with_units(text, &SIZE_UNITS).map(ByteSize)
}

/// Reads `"50ms"`, `"30s"`, `"10m"`, `"24h"`, `"7d"`, or several in a row such
/// as `"1m30s"`; `None` when it is no duration or longer than ten years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total_ms = 0u64;
    while !rest.is_empty() {
        let digits_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let after_digits = &rest[digits_end..];
        let unit_len = after_digits
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after_digits.len());
        let (part, after) = rest.split_at(digits_end + unit_len);
        total_ms = total_ms.checked_add(parse_with_units(part, &DURATION_UNITS)?)?;
        rest = after;
    }
    (!text.is_empty() && total_ms <= DURATION_MS_MAX).then(|| Duration::from_millis(total_ms))
}

/// `"1.5MiB"`: a decimal number and a unit, exact, rounded down to a whole one.
fn parse_with_units(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits_end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    let mut value = u128::from(whole) * u128::from(*factor);
    if number.contains('.') {
        let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let fraction: u64 = fraction.parse().ok()?;
        value += u128::from(fraction) * u128::from(*factor) / scale;
    }
    u64::try_from(value).ok()
}

impl<'de> serde::Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<ByteSize, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a size such as \"64MiB\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
                parse_size(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes)
                    .map(ByteSize)
                    .map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
            }
        }
        from.deserialize_any(SizeVisitor)
    }
}

/// For `#[serde(deserialize_with)]`: a duration above zero, where none has a meaning too.
pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

/// For `#[serde(deserialize_with)]`: an instant as RFC 3339 has it, ms since the epoch.
pub(super) fn optional_instant<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<i64>, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(from)?;
    let expected = "an instant such as \"2026-11-20T10:00:00Z\"";
    let wrong = || D::Error::invalid_value(Unexpected::Str(&text), &expected);
    engine::timestamp::parse_rfc3339(&text)
        .map(Some)
        .ok_or_else(wrong)
}

/// For `#[serde(deserialize_with)]`: a duration above zero.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    struct DurationVisitor;
    impl Visitor<'_> for DurationVisitor {
        type Value = Duration;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a duration above zero such as \"30s\" or \"50ms\"")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Duration, E> {
            parse_duration(text)
                .filter(|duration| !duration.is_zero())
                .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
    }
    from.deserialize_any(DurationVisitor)
}

/// For `#[serde(deserialize_with)]`: as [`duration`], where the key may be absent.
pub(super) fn some_duration<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

/// For `#[serde(deserialize_with)]`: a duration that may be zero, as in `max_wait = "0ms"`.
pub(super) fn wait<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(from)?;
    parse_duration(&text).ok_or_else(|| {
        D::Error::invalid_value(Unexpected::Str(&text), &"a duration such as \"50ms\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_written() {
        for (text, bytes) in [
            ("64MiB", Some(64 << 20)),
            ("1.5KiB", Some(1536)),
            ("10MB", Some(10_000_000)),
            ("2 GiB", Some(2 << 30)),
            ("512B", Some(512)),
            ("64", None),
            ("MiB", None),
            ("-1MiB", None),
            ("1.MiB", None),
            ("64mib", None),
            ("99999999999TiB", None),
            ("", None),
        ] {
            assert_eq!(parse_size(text), bytes.map(ByteSize), "{text}");
        }
    }

    #[test]
    fn durations_read_as_written() {
        for (text, ms) in [
            ("50ms", Some(50)),
            ("30s", Some(30_000)),
            ("10m", Some(600_000)),
            ("10min", Some(600_000)),
            ("24h", Some(86_400_000)),
            ("7d", Some(7 * 86_400_000)),
            ("1m30s", Some(90_000)),
            ("0.5s", Some(500)),
            ("0ms", Some(0)),
            ("30", None),
            ("s", None),
            ("5y", None),
            ("-1s", None),
            ("1s x", None),
            ("9999999d", None),
            ("", None),
        ] {
            assert_eq!(
                parse_duration(text),
                ms.map(Duration::from_millis),
                "{text}"
            );
        }
    }
}
