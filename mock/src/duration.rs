//! Durations as users type them: `50ms`, `1s`, `24h`.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration such as 50ms, 1s, 5m, 24h")]
pub struct DurationError {
    text: String,
}

/// Units by suffix; `ms` and `us` stand before `s`, which both end in.
const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

/// Reads a whole number followed by one unit.
///
/// # Errors
/// When the unit is missing or unknown, or the value does not fit 64 bits of nanoseconds.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let refused = || DurationError {
        text: text.to_owned(),
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let (_, nanos) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(refused)?;
    number
        .checked_mul(*nanos)
        .map(Duration::from_nanos)
        .ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read() {
        for (text, nanos) in [
            ("7ns", 7),
            ("7us", 7_000),
            ("50ms", 50_000_000),
            ("1s", 1_000_000_000),
            ("5m", 300_000_000_000),
            ("24h", 86_400_000_000_000),
            ("1d", 86_400_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn a_number_without_a_unit_or_beyond_64_bits_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "-1s",
            "1.5s",
            "5x",
            "99999999999999999999s",
            "1000000000d",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
