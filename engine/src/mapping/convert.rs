//! Converters of single values, each with its way back.

mod name;
mod number;
mod text;
mod time;

use std::borrow::Cow;

pub(super) use self::name::Converter;
use self::number::{is_number, whole_part};
use self::time::Offset;
use super::value_table::ValueTable;
use crate::json::{Kind, RawValue, write_string};

/// What stands between a field's two values: converters in their order, then the value table.
#[derive(Debug, Clone, Default)]
pub(super) struct Conversion {
    pub(super) steps: Vec<Converter>,
    pub(super) values: ValueTable,
}

/// A value on its way through converters; a number is its digits as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scalar<'v> {
    Text(Cow<'v, str>),
    Number(Cow<'v, str>),
    Bool(bool),
    /// Of texts alone.
    List(Vec<Cow<'v, str>>),
}

/// What a converter takes or gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Number,
    Bool,
    List,
    /// Text, number or truth value.
    Any,
}

impl Type {
    /// Whether a value of the other type is one of this.
    pub(super) fn includes(self, other: Self) -> bool {
        self == other || (self == Self::Any && other != Self::List)
    }
}

pub(super) type Converted<'v> = Result<Scalar<'v>, &'static str>;

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

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.values.is_empty()
    }

    fn scalar_to_convert<'v>(
        &self,
        value: RawValue<'v>,
    ) -> Result<Option<Scalar<'v>>, &'static str> {
        if value.is_null() || self.is_empty() {
            return Ok(None);
        }
        match Scalar::of(value) {
            Some(scalar) => Ok(Some(scalar)),
            None => Err("must be text, a number, a truth value or a list of texts to be converted"),
        }
    }
}

impl Converter {
    fn apply<'v>(&self, scalar: Scalar<'v>) -> Converted<'v> {
        match self {
            Self::Trim => Ok(Scalar::Text(text::trimmed(scalar.into_text()?))),
            Self::Lowercase => Ok(owned(scalar.into_text()?.to_lowercase())),
            Self::Uppercase => Ok(owned(scalar.into_text()?.to_uppercase())),
            Self::Number => scalar.text_to_number(),
            Self::Text => scalar.number_to_text(),
            Self::AnyText => match scalar {
                Scalar::Number(digits) => Ok(Scalar::Text(digits)),
                Scalar::Bool(truth) => Ok(owned(truth.to_string())),
                other => Ok(Scalar::Text(other.into_text()?)),
            },
            Self::Integer => scalar.into_integer(),
            Self::Float => match scalar {
                Scalar::Bool(truth) => Ok(digit(truth)),
                Scalar::Text(text) => Scalar::Text(text::trimmed(text)).text_to_number(),
                number => Ok(number),
            },
            Self::Bool => scalar.into_bool(),
            Self::YesNo => match scalar {
                Scalar::Bool(truth) => Ok(fixed(if truth { "yes" } else { "no" })),
                _ => Err("must be true or false"),
            },
            Self::OneZero => match scalar {
                Scalar::Bool(truth) => Ok(digit(truth)),
                _ => Err("must be true or false"),
            },
            Self::Date(offset) => Ok(owned(offset.day_of(scalar.instant()?))),
            Self::AnyDate => {
                let text = text::trimmed(scalar.into_text()?);
                if Offset::UTC.day_start(&text).is_ok() {
                    return Ok(Scalar::Text(text));
                }
                Ok(owned(Offset::UTC.day_of(time::instant(&text)?)))
            }
            Self::DateTime(offset) => {
                let day = scalar.into_text()?;
                offset.day_start(&day)?;
                Ok(owned(offset.first_of(&day)))
            }
            Self::InZone(offset) => Ok(owned(offset.written(scalar.instant()?))),
            Self::EpochMs => Ok(number_of(scalar.instant()?)),
            Self::EpochSeconds => Ok(number_of(scalar.instant()?.div_euclid(1_000))),
            Self::Join(separator) => text::join(&scalar.into_list()?, separator).map(owned),
            Self::Split(separator) => {
                let parts = text::split(scalar.into_text()?, separator);
                text::join(&parts, separator)?;
                Ok(Scalar::List(parts))
            }
            Self::Phone(country) => text::phone(&scalar.into_phone()?, country).map(owned),
            Self::Email => text::email(&scalar.into_text()?).map(owned),
            Self::HtmlToText => Ok(owned(text::html_to_text(&scalar.into_text()?))),
            Self::PlainText => Ok(owned(text::without_special(&scalar.into_text()?))),
            Self::Max(characters) => {
                let text = scalar.into_text()?;
                if text.chars().nth(*characters).is_some() {
                    return Err("is longer than the field takes");
                }
                Ok(Scalar::Text(text))
            }
            Self::Truncate(characters) => Ok(Scalar::Text(text::truncated(
                scalar.into_text()?,
                *characters,
                "",
            ))),
            Self::Ellipsis(characters) => Ok(Scalar::Text(text::truncated(
                scalar.into_text()?,
                *characters,
                "…",
            ))),
        }
    }

    fn undo<'v>(&self, scalar: Scalar<'v>) -> Converted<'v> {
        match self {
            // What was lost stays lost: the value comes back as it is.
            Self::Trim
            | Self::Lowercase
            | Self::Uppercase
            | Self::AnyText
            | Self::Integer
            | Self::Float
            | Self::Bool
            | Self::Date(_)
            | Self::AnyDate
            | Self::Phone(_)
            | Self::Email
            | Self::HtmlToText
            | Self::PlainText
            | Self::Max(_)
            | Self::Truncate(_)
            | Self::Ellipsis(_) => Ok(scalar),
            Self::Number => scalar.number_to_text(),
            Self::Text => scalar.text_to_number(),
            Self::YesNo => match scalar.into_text()?.as_ref() {
                "yes" => Ok(Scalar::Bool(true)),
                "no" => Ok(Scalar::Bool(false)),
                _ => Err("must be yes or no"),
            },
            Self::OneZero => match scalar {
                Scalar::Number(digits) if digits == "1" => Ok(Scalar::Bool(true)),
                Scalar::Number(digits) if digits == "0" => Ok(Scalar::Bool(false)),
                _ => Err("must be 1 or 0"),
            },
            Self::DateTime(offset) => offset.day_begun_by(scalar.instant()?).map(owned),
            Self::InZone(_) => Ok(owned(time::in_utc(scalar.instant()?))),
            Self::EpochMs => scalar.epoch(1).map(owned),
            Self::EpochSeconds => scalar.epoch(1_000).map(owned),
            Self::Join(separator) => Ok(Scalar::List(text::split(scalar.into_text()?, separator))),
            Self::Split(separator) => text::join(&scalar.into_list()?, separator).map(owned),
        }
    }
}

impl<'v> Scalar<'v> {
    pub(super) fn of(value: RawValue<'v>) -> Option<Self> {
        match value.kind() {
            Kind::Text => value.as_text().map(Self::Text),
            Kind::Number => Some(Self::Number(Cow::Borrowed(value.text()))),
            Kind::Bool => Some(Self::Bool(value.text() == "true")),
            Kind::Array => {
                let texts = value.as_array()?.map(|item| item.as_text());
                texts.collect::<Option<Vec<_>>>().map(Self::List)
            }
            Kind::Null | Kind::Object => None,
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
            Self::Bool(_) | Self::List(_) => None,
        }
    }

    pub(super) fn into_text(self) -> Result<Cow<'v, str>, &'static str> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Number(_) | Self::Bool(_) | Self::List(_) => Err("must be text"),
        }
    }

    fn into_list(self) -> Result<Vec<Cow<'v, str>>, &'static str> {
        match self {
            Self::List(texts) => Ok(texts),
            _ => Err("must be a list of texts"),
        }
    }

    /// Digits of a phone number may come as a number.
    fn into_phone(self) -> Result<Cow<'v, str>, &'static str> {
        match self {
            Self::Number(digits) => Ok(digits),
            other => other.into_text(),
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
            _ => Err("must be a number"),
        }
    }

    fn into_integer(self) -> Converted<'v> {
        let digits = match self {
            Self::Bool(truth) => return Ok(digit(truth)),
            Self::Number(digits) => digits,
            other => text::trimmed(other.into_text()?),
        };
        let whole = whole_part(&digits).ok_or("must be a number")?;
        Ok(Self::Number(Cow::Owned(whole)))
    }

    fn into_bool(self) -> Converted<'v> {
        let text = match self {
            Self::Bool(truth) => return Ok(Self::Bool(truth)),
            Self::Number(digits) => digits,
            other => other.into_text()?,
        };
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "y" | "on" | "1" => Ok(Self::Bool(true)),
            "false" | "no" | "n" | "off" | "0" | "" => Ok(Self::Bool(false)),
            _ => Err("must be true or false, yes or no, 1 or 0"),
        }
    }

    fn instant(self) -> Result<i64, &'static str> {
        time::instant(&self.into_text()?)
    }

    /// Milliseconds times `scale` since 1970, as a timestamp.
    fn epoch(self, scale: i64) -> Result<String, &'static str> {
        let Self::Number(digits) = self else {
            return Err("must be an integer since 1970");
        };
        let units: Option<i64> = digits.parse().ok();
        let ms = units.and_then(|units| units.checked_mul(scale));
        let ms = ms.and_then(crate::timestamp::in_range);
        Ok(time::in_utc(ms.ok_or("must be an integer since 1970")?))
    }

    fn into_json(self) -> Vec<u8> {
        let quoted = |text: &str| {
            let mut json = Vec::with_capacity(text.len() + 2);
            write_string(&mut json, text);
            json
        };
        match self {
            Self::Text(text) => quoted(&text),
            Self::Number(digits) => digits.into_owned().into_bytes(),
            Self::Bool(truth) => truth.to_string().into_bytes(),
            Self::List(texts) => {
                let items: Vec<Vec<u8>> = texts.iter().map(|text| quoted(text)).collect();
                [b"[", items.join(&b","[..]).as_slice(), b"]"].concat()
            }
        }
    }
}

fn owned<'v>(text: String) -> Scalar<'v> {
    Scalar::Text(Cow::Owned(text))
}

fn fixed<'v>(text: &'static str) -> Scalar<'v> {
    Scalar::Text(Cow::Borrowed(text))
}

fn number_of<'v>(value: i64) -> Scalar<'v> {
    Scalar::Number(Cow::Owned(value.to_string()))
}

fn digit<'v>(truth: bool) -> Scalar<'v> {
    Scalar::Number(Cow::Borrowed(if truth { "1" } else { "0" }))
}
