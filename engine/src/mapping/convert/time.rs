//! Days and instants at an offset from UTC. Zones by name change their offset over the year and
//! are not known here.

use crate::timestamp;

/// Minutes east of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mapping) struct Offset(i16);

/// The shape of a day.
const DAY: &str = "YYYY-MM-DD";

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;

impl Offset {
    pub(in crate::mapping) const UTC: Self = Self(0);

    /// `Z`, `UTC` or `+02:00`, at most 14 hours as zones have them.
    pub(in crate::mapping) fn parse(text: &str) -> Option<Self> {
        if matches!(text, "Z" | "UTC") {
            return Some(Self::UTC);
        }
        let (sign, rest) = match text.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        let (hours, minutes) = rest.split_once(':')?;
        let two_digits = |part: &str| {
            let fits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            fits.then(|| part.parse::<i16>().ok()).flatten()
        };
        let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
        let total = hours * 60 + minutes;
        (minutes < 60 && total <= 14 * 60).then_some(Self(sign * total))
    }

    /// The day of an instant, as the clocks there show it.
    pub(super) fn day_of(self, ms: i64) -> String {
        let mut text = in_utc(ms.saturating_add(self.ms()));
        text.truncate(DAY.len());
        text
    }

    /// The first instant of a day there.
    pub(super) fn day_start(self, day: &str) -> Result<i64, &'static str> {
        let is_day = day.len() == DAY.len();
        let start = timestamp::parse_rfc3339(&format!("{day}T00:00:00Z"));
        let start = start
            .filter(|_| is_day)
            .ok_or("must be a day, YYYY-MM-DD")?;
        Ok(start - self.ms())
    }

    /// The first instant of a day as it is written there.
    pub(super) fn first_of(self, day: &str) -> String {
        format!("{day}T00:00:00{self}")
    }

    /// The day that begins with this instant.
    pub(super) fn day_begun_by(self, ms: i64) -> Result<String, &'static str> {
        if (ms + self.ms()).rem_euclid(DAY_MS) != 0 {
            return Err("must be the first instant of a day at the field's offset");
        }
        Ok(self.day_of(ms))
    }

    /// An instant as it is written there.
    pub(super) fn written(self, ms: i64) -> String {
        let mut text = in_utc(ms.saturating_add(self.ms()));
        text.pop();
        format!("{text}{self}")
    }

    fn ms(self) -> i64 {
        i64::from(self.0) * MINUTE_MS
    }
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == 0 {
            return f.write_str("Z");
        }
        let sign = if self.0 < 0 { '-' } else { '+' };
        let minutes = self.0.unsigned_abs();
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

pub(super) fn instant(text: &str) -> Result<i64, &'static str> {
    timestamp::parse_rfc3339(text).ok_or("must be an RFC 3339 timestamp")
}

pub(super) fn in_utc(ms: i64) -> String {
    let mut written = Vec::new();
    timestamp::write_rfc3339(&mut written, ms);
    String::from_utf8(written).expect("a timestamp is written in ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_what_zones_have() {
        for (text, minutes) in [
            ("Z", Some(0)),
            ("UTC", Some(0)),
            ("+02:00", Some(120)),
            ("-11:30", Some(-690)),
            ("+14:00", Some(840)),
            ("+14:01", None),
            ("+2:00", None),
            ("+02:60", None),
            ("02:00", None),
            ("Europe/Paris", None),
            ("", None),
            ("é", None),
        ] {
            assert_eq!(Offset::parse(text), minutes.map(Offset), "{text}");
        }
    }

    #[test]
    fn a_day_and_its_first_instant_are_one_at_every_offset() {
        for offset in [0, 120, -690, 840] {
            let offset = Offset(offset);
            let start = offset.day_start("2026-11-20").expect("a day");
            assert_eq!(offset.day_of(start), "2026-11-20");
            assert_eq!(offset.day_of(start - 1), "2026-11-19");
            assert_eq!(offset.day_begun_by(start).as_deref(), Ok("2026-11-20"));
            assert!(offset.day_begun_by(start + 1).is_err());
            assert_eq!(instant(&offset.first_of("2026-11-20")), Ok(start));
            assert_eq!(instant(&offset.written(start)), Ok(start));
        }
    }
}
