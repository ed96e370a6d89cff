//! Instants as milliseconds since the Unix epoch, read from and written as RFC 3339.

use jiff::Timestamp;

/// Earliest and latest instant that RFC 3339 can write with four-digit years.
const MS_MIN: i64 = -62_167_219_200_000; // 0000-01-01T00:00:00Z
const MS_MAX: i64 = 253_402_207_200_999; // what jiff's Timestamp::MAX keeps of year 9999

/// Milliseconds of an RFC 3339 timestamp; finer digits are cut, never rounded up.
///
/// Stricter than the library beneath: an offset is required and nothing may follow it, so that
/// "local time" never enters by accident.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    if !has_rfc3339_shape(text.as_bytes()) {
        return None;
    }
    let instant: Timestamp = text.parse().ok()?;
    // Flooring: 00:00:00.0009 before the epoch is -1 ms, not 0.
    let ms = instant.as_nanosecond().div_euclid(1_000_000);
    in_range(i64::try_from(ms).ok()?)
}

/// `ms` itself when a timestamp can be written for it.
pub fn in_range(ms: i64) -> Option<i64> {
    (MS_MIN..=MS_MAX).contains(&ms).then_some(ms)
}

/// Appends `ms` as `2026-11-20T10:00:00.123Z`; instants outside years 0 to 9999 are clamped.
pub fn write_rfc3339(out: &mut Vec<u8>, ms: i64) {
    let ms = ms.clamp(MS_MIN, MS_MAX);
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = civil_from_days(days);
    push_digits(out, year, 4);
    out.push(b'-');
    push_digits(out, month, 2);
    out.push(b'-');
    push_digits(out, day, 2);
    out.push(b'T');
    push_digits(out, of_day / 3_600_000, 2);
    out.push(b':');
    push_digits(out, of_day / 60_000 % 60, 2);
    out.push(b':');
    push_digits(out, of_day / 1_000 % 60, 2);
    out.push(b'.');
    push_digits(out, of_day % 1_000, 3);
    out.push(b'Z');
}

/// `YYYY-MM-DD[Tt ]HH:MM:SS[.d+](Z|z|±HH:MM)`, RFC 3339 section 5.6.
fn has_rfc3339_shape(text: &[u8]) -> bool {
    const HEAD: &[u8; 19] = b"dddd-dd-ddTdd:dd:dd";
    let Some((head, tail)) = text.split_at_checked(HEAD.len()) else {
        return false;
    };
    let head_fits = head.iter().zip(HEAD).all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        other => byte == other,
    });
    let zone = match tail.split_first() {
        Some((b'.', fraction)) => {
            let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 || digits > 9 {
                return false;
            }
            &fraction[digits..]
        }
        _ => tail,
    };
    let zone_fits = match zone {
        b"Z" | b"z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()),
        _ => false,
    };
    head_fits && zone_fits
}

/// Proleptic Gregorian date of a day count since 1970-01-01 (Hinnant, `civil_from_days`).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468; // days from 0000-03-01
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn push_digits(out: &mut Vec<u8>, value: i64, width: u32) {
    for place in (0..width).rev() {
        let digit = value / 10_i64.pow(place) % 10;
        out.push(b'0' + u8::try_from(digit).expect("a remainder of ten is one digit"));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(ms: i64) -> String {
        let mut out = Vec::new();
        write_rfc3339(&mut out, ms);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rfc_3339_is_read_to_the_millisecond() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-20T10:00:00.123Z", 1_795_168_800_123),
            ("2026-11-20t10:00:00.123999999z", 1_795_168_800_123),
            ("2026-11-20 12:00:00+02:00", 1_795_168_800_000),
            ("2024-02-29T23:59:59-00:30", 1_709_252_999_000),
            ("1969-12-31T23:59:59.9995Z", -1),
        ] {
            assert_eq!(parse_rfc3339(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn anything_but_rfc_3339_is_refused() {
        for text in [
            "",
            "2026-11-20",
            "2026-11-20T10:00:00",
            "2026-11-20T10:00Z",
            "2026-02-30T10:00:00Z",
            "2025-02-29T10:00:00Z",
            "2026-11-20T24:00:00Z",
            "2026-11-20T10:00:00.Z",
            "2026-11-20T10:00:00+0200",
            "2026-11-20T10:00:00Z[UTC]",
            "2026-11-20T10:00:00+02:00[Europe/Paris]",
            "20261120T100000Z",
            " 2026-11-20T10:00:00Z",
            "+02026-11-20T10:00:00Z",
            "２026-11-20T10:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn the_bounds_are_the_bounds_of_the_library() {
        assert_eq!(written(MS_MIN), "0000-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::MAX.as_millisecond(), MS_MAX);
        assert_eq!(in_range(MS_MAX + 1), None);
        assert_eq!(in_range(i64::MIN), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(ms in MS_MIN..=MS_MAX) {
            prop_assert_eq!(parse_rfc3339(&written(ms)), Some(ms));
        }

        #[test]
        fn reading_never_panics(text in "[0-9TtZz:.+ -]{0,40}") {
            let _read = parse_rfc3339(&text);
        }
    }
}
