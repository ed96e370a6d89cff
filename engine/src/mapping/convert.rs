//! Converters of single values, each with its way back.

use std::borrow::Cow;

use crate::json::{Kind, RawValue, write_string};
use crate::timestamp;

/// What stands between a field's two values: converters in their order, then the value table.
#[derive(Debug, Clone, Default)]
pub(super) struct Conversion {
    pub(super) steps: Vec<Converter>,
    pub(super) values: ValueTable,
}

/// One named converter of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Converter {
    /// `trim`: space around a text is dropped.
    Trim,
    /// `lowercase`
    Lowercase,
    /// `uppercase`
    Uppercase,
    /// `number`: a text of digits becomes a number, digit by digit.
    Number,
    /// `text`: a number becomes its digits as text.
    Text,
    /// `date`: a timestamp becomes its day in UTC.
    Date,
    /// `datetime`: a day becomes its first instant in UTC.
    DateTime,
    /// `epoch_ms`: a timestamp becomes milliseconds since 1970.
    EpochMs,
}

/// A one-to-one table of texts.
#[derive(Debug, Clone, Default)]
pub(super) struct ValueTable {
    /// `(local, remote)`, sorted by local.
    by_local: Vec<(String, String)>,
    /// `(remote, local)`, sorted by remote.
    by_remote: Vec<(String, String)>,
}

/// A text or a number on its way through converters; a number is its digits as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scalar<'v> {
    Text(Cow<'v, str>),
    Number(Cow<'v, str>),
}

/// What a converter takes or gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Number,
}

type Converted<'v> = Result<Scalar<'v>, &'static str>;

impl Conversion {
    /// The value as the provider gets it; `null` and values without converters pass untouched.
    pub(super) fn apply<'v>(&self, value: RawValue<'v>) -> Result<Cow<'v, [u8]>, &'static str> {
        let Some(mut scalar) = self.scalar_to_convert(value)? else {
            return Ok(Cow::Borrowed(value.text().as_bytes()));
        };
        for step in &self.steps {
            scalar = step.apply(scalar)?;
        }
        if !self.values.is_empty() {
            scalar = self.values.apply(scalar)?;
        }
        Ok(Cow::Owned(scalar.into_json()))
    }

    /// The value as System A gets it back.
    pub(super) fn undo<'v>(&self, value: RawValue<'v>) -> Result<Cow<'v, [u8]>, &'static str> {
        let Some(mut scalar) = self.scalar_to_convert(value)? else {
            return Ok(Cow::Borrowed(value.text().as_bytes()));
        };
        if !self.values.is_empty() {
            scalar = self.values.undo(scalar)?;
        }
        for step in self.steps.iter().rev() {
            scalar = step.undo(scalar)?;
        }
        Ok(Cow::Owned(scalar.into_json()))
    }

    fn scalar_to_convert<'v>(
        &self,
        value: RawValue<'v>,
    ) -> Result<Option<Scalar<'v>>, &'static str> {
        if value.is_null() || (self.steps.is_empty() && self.values.is_empty()) {
            return Ok(None);
        }
        match Scalar::of(value) {
            Some(scalar) => Ok(Some(scalar)),
            None => Err("must be text or a number to be converted"),
        }
    }
}

impl Converter {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "trim" => Self::Trim,
            "lowercase" => Self::Lowercase,
            "uppercase" => Self::Uppercase,
            "number" => Self::Number,
            "text" => Self::Text,
            "date" => Self::Date,
            "datetime" => Self::DateTime,
            "epoch_ms" => Self::EpochMs,
            _ => return None,
        })
    }

    /// Whether two values may become one, so that what comes back may differ from what went out.
    pub(super) fn is_lossy(self) -> bool {
        match self {
            Self::Trim | Self::Lowercase | Self::Uppercase | Self::Date | Self::EpochMs => true,
            Self::Number | Self::Text | Self::DateTime => false,
        }
    }

    pub(super) fn takes(self) -> Type {
        match self {
            Self::Text => Type::Number,
            _ => Type::Text,
        }
    }

    pub(super) fn gives(self) -> Type {
        match self {
            Self::Number | Self::EpochMs => Type::Number,
            _ => Type::Text,
        }
    }

    fn apply(self, scalar: Scalar<'_>) -> Converted<'_> {
        match self {
            Self::Trim => Ok(Scalar::Text(trim(scalar.into_text()?))),
            Self::Lowercase => {
                let text = scalar.into_text()?;
                Ok(Scalar::Text(Cow::Owned(text.to_lowercase())))
            }
            Self::Uppercase => {
                let text = scalar.into_text()?;
                Ok(Scalar::Text(Cow::Owned(text.to_uppercase())))
            }
            Self::Number => scalar.text_to_number(),
            Self::Text => scalar.number_to_text(),
            Self::Date => {
                let ms = scalar.instant()?;
                Ok(Scalar::Text(day_of(ms)))
            }
            Self::DateTime => {
                let day = scalar.into_text()?;
                let instant = format!("{day}T00:00:00Z");
                let is_day = day.len() == DAY.len();
                match timestamp::parse_rfc3339(&instant).filter(|_| is_day) {
                    Some(_) => Ok(Scalar::Text(Cow::Owned(instant))),
                    None => Err("must be a day, YYYY-MM-DD"),
                }
            }
            Self::EpochMs => Ok(Scalar::Number(Cow::Owned(scalar.instant()?.to_string()))),
        }
    }

    fn undo(self, scalar: Scalar<'_>) -> Converted<'_> {
        match self {
            Self::Trim | Self::Lowercase | Self::Uppercase | Self::Date => Ok(scalar),
            Self::Number => scalar.number_to_text(),
            Self::Text => scalar.text_to_number(),
            Self::DateTime => {
                let ms = scalar.instant()?;
                if ms.rem_euclid(86_400_000) != 0 {
                    return Err("must be the first instant of a day in UTC");
                }
                Ok(Scalar::Text(day_of(ms)))
            }
            Self::EpochMs => {
                let Scalar::Number(digits) = scalar else {
                    return Err("must be integer milliseconds");
                };
                let ms = digits.parse().ok().and_then(timestamp::in_range);
                let ms = ms.ok_or("must be integer milliseconds")?;
                Ok(Scalar::Text(instant_text(ms)))
            }
        }
    }
}

impl ValueTable {
    /// Takes the pairs, or answers the index of the first that repeats a value.
    pub(super) fn new(pairs: &[(String, String)]) -> Result<Self, usize> {
        for (at, (local, remote)) in pairs.iter().enumerate() {
            let repeats = |pair: &(String, String)| pair.0 == *local || pair.1 == *remote;
            if pairs[..at].iter().any(repeats) {
                return Err(at);
            }
        }
        let mut by_local = pairs.to_vec();
        let mut by_remote: Vec<_> = pairs.iter().map(|(l, r)| (r.clone(), l.clone())).collect();
        by_local.sort_unstable();
        by_remote.sort_unstable();
        Ok(Self {
            by_local,
            by_remote,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_local.is_empty()
    }

    fn apply<'v>(&self, scalar: Scalar<'v>) -> Converted<'v> {
        Self::look_up(&self.by_local, scalar)
    }

    fn undo<'v>(&self, scalar: Scalar<'v>) -> Converted<'v> {
        Self::look_up(&self.by_remote, scalar)
    }

    fn look_up<'v>(table: &[(String, String)], scalar: Scalar<'v>) -> Converted<'v> {
        let text = scalar.into_text()?;
        match table.binary_search_by(|pair| pair.0.as_str().cmp(&text)) {
            Ok(at) => Ok(Scalar::Text(Cow::Owned(table[at].1.clone()))),
            Err(_) => Err("is not in the value table"),
        }
    }
}

impl<'v> Scalar<'v> {
    pub(super) fn of(value: RawValue<'v>) -> Option<Self> {
        match value.kind() {
            Kind::Text => value.as_text().map(Self::Text),
            Kind::Number => Some(Self::Number(Cow::Borrowed(value.text()))),
            _ => None,
        }
    }

    /// The value as a record id: text, or an integer's digits.
    pub(super) fn into_id(self) -> Option<Cow<'v, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(digits) => {
                let is_integer = RawValue::new(&digits).as_integer_text().is_some();
                is_integer.then_some(digits)
            }
        }
    }

    fn into_text(self) -> Result<Cow<'v, str>, &'static str> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Number(_) => Err("must be text"),
        }
    }

    fn text_to_number(self) -> Converted<'v> {
        let text = self.into_text()?;
        if !is_number(&text) {
            return Err("must be a number written as text");
        }
        Ok(Self::Number(text))
    }

    fn number_to_text(self) -> Converted<'v> {
        match self {
            Self::Number(digits) => Ok(Self::Text(digits)),
            Self::Text(_) => Err("must be a number"),
        }
    }

    fn instant(self) -> Result<i64, &'static str> {
        let text = self.into_text()?;
        timestamp::parse_rfc3339(&text).ok_or("must be an RFC 3339 timestamp")
    }

    fn into_json(self) -> Vec<u8> {
        match self {
            Self::Text(text) => {
                let mut json = Vec::with_capacity(text.len() + 2);
                write_string(&mut json, &text);
                json
            }
            Self::Number(digits) => digits.into_owned().into_bytes(),
        }
    }
}

fn trim(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

/// The shape of a day.
const DAY: &str = "YYYY-MM-DD";

fn day_of(ms: i64) -> Cow<'static, str> {
    let mut text = instant_text(ms).into_owned();
    text.truncate(DAY.len());
    Cow::Owned(text)
}

fn instant_text(ms: i64) -> Cow<'static, str> {
    let mut written = Vec::new();
    timestamp::write_rfc3339(&mut written, ms);
    Cow::Owned(String::from_utf8(written).expect("a timestamp is written in ASCII"))
}

/// RFC 8259 section 6: `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`
fn is_number(text: &str) -> bool {
    let digits = |bytes: &[u8]| {
        bytes
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let mut rest = text.as_bytes();
    rest = rest.strip_prefix(b"-").unwrap_or(rest);
    let integer = digits(rest);
    if integer == 0 || (integer > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[integer..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let Some((b'e' | b'E', exponent)) = rest.split_first() {
        let unsigned = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-"));
        let exponent = unsigned.unwrap_or(exponent);
        let count = digits(exponent);
        if count == 0 {
            return false;
        }
        rest = &exponent[count..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_numbers_are_numbers() {
        for number in [
            "0",
            "-0",
            "10",
            "1.50",
            "-1e5",
            "1E+05",
            "12345678901234567890.1",
        ] {
            assert!(is_number(number), "{number}");
            assert!(serde_json::from_str::<f64>(number).is_ok(), "{number}");
        }
        for text in [
            "", "-", "01", "+1", ".5", "1.", "1e", "1e+", " 1", "1 ", "0x1", "NaN", "٣",
        ] {
            assert!(!is_number(text), "{text}");
        }
    }
}
