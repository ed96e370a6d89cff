//! Converters by the names that settings give them, `truncate:255`.

use super::Type;
use super::text::SEPARATOR_BYTES_MAX;
use super::time::Offset;

/// One named converter of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mapping) enum Converter {
    /// `trim`: space around a text is dropped.
    Trim,
    /// `lowercase`, `to_lower`
    Lowercase,
    /// `uppercase`, `to_upper`
    Uppercase,
    /// `number`: a text of digits becomes a number, digit by digit.
    Number,
    /// `text`: a number becomes its digits as text.
    Text,
    /// `to_string`: a text, number or truth value becomes text.
    AnyText,
    /// `to_int`: a number, its text or a truth value loses what follows the point.
    Integer,
    /// `to_float`: a number, its text or a truth value becomes a number.
    Float,
    /// `to_bool`: true, yes, y, on and 1 become true; false, no, n, off, 0 and nothing false.
    Bool,
    /// `yes_no`: a truth value becomes a text.
    YesNo,
    /// `one_zero`: a truth value becomes 1 or 0.
    OneZero,
    /// `date`, `date:+02:00`: an instant becomes its day at that offset from UTC.
    Date(Offset),
    /// `format_date`: a day stays, an instant becomes its day in UTC.
    AnyDate,
    /// `datetime`, `datetime:+02:00`: a day becomes its first instant at that offset.
    DateTime(Offset),
    /// `zone:+02:00`: an instant is written at that offset.
    InZone(Offset),
    /// `epoch_ms`: an instant becomes milliseconds since 1970.
    EpochMs,
    /// `epoch_s`: an instant becomes seconds since 1970.
    EpochSeconds,
    /// `join:;`: a list of texts becomes one text.
    Join(String),
    /// `split:;`: a text becomes a list of texts.
    Split(String),
    /// `phone`, `phone:49`, `format_phone`: E.164; the country's code is put before a number
    /// that has none.
    Phone(String),
    /// `email`, `format_email`: trimmed, in lower case, and an address.
    Email,
    /// `html_to_text`, `clean_html`: what a browser would show, as text.
    HtmlToText,
    /// `remove_special_chars`: letters, digits, spaces and `.,-_@` stay.
    PlainText,
    /// `max:255`: a text of more characters is refused.
    Max(usize),
    /// `truncate:255`: a text of more characters is cut.
    Truncate(usize),
    /// `ellipsis:255`: as truncate, and the last character says so.
    Ellipsis(usize),
}

/// A name that is no converter's, or an argument that it does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mapping) struct UnknownConverter(pub(in crate::mapping) String);

const KNOWN: &str = "trim, lowercase, uppercase, number, text, to_string, to_int, to_float, \
    to_bool, yes_no, one_zero, date[:+HH:MM], format_date, datetime[:+HH:MM], zone:+HH:MM, \
    epoch_ms, epoch_s, join:SEPARATOR, split:SEPARATOR, phone[:COUNTRY], email, html_to_text, \
    remove_special_chars, max:N, truncate:N, ellipsis:N, and to_upper, to_lower, format_phone, \
    format_email, clean_html, truncate_255";

impl Converter {
    pub(in crate::mapping) fn named(text: &str) -> Result<Self, UnknownConverter> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let needs = |what: &str| UnknownConverter(format!("`{name}` needs {what}"));
        let converter = match (name, argument) {
            ("date", offset) => Self::Date(optional_offset(offset).ok_or_else(|| needs(OFFSET))?),
            ("datetime", offset) => {
                Self::DateTime(optional_offset(offset).ok_or_else(|| needs(OFFSET))?)
            }
            ("zone", offset) => {
                let offset = offset.and_then(Offset::parse);
                Self::InZone(offset.ok_or_else(|| needs(OFFSET))?)
            }
            ("join" | "split", separator) => {
                let separator = separator.filter(|separator| {
                    !separator.is_empty() && separator.len() <= SEPARATOR_BYTES_MAX
                });
                let separator = separator.ok_or_else(|| needs("a separator, as in `join:;`"))?;
                if name == "join" {
                    Self::Join(separator.to_owned())
                } else {
                    Self::Split(separator.to_owned())
                }
            }
            ("phone", country) => {
                let digits = country.unwrap_or_default().trim_start_matches('+');
                let fits = digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
                let is_code = country.is_none() || (fits && !digits.is_empty());
                if !is_code {
                    return Err(needs("a country's code, as in `phone:49`"));
                }
                Self::Phone(digits.to_owned())
            }
            ("max" | "truncate" | "ellipsis", count) => {
                let count = count.and_then(|count| count.parse().ok());
                let count = count.filter(|&count: &usize| count > 0);
                let count =
                    count.ok_or_else(|| needs("a number of characters, as in `max:255`"))?;
                match name {
                    "max" => Self::Max(count),
                    "truncate" => Self::Truncate(count),
                    _ => Self::Ellipsis(count),
                }
            }
            (_, Some(_)) => return Err(UnknownConverter(format!("`{name}` takes no argument"))),
            (name, None) => return plain(name),
        };
        Ok(converter)
    }

    /// Whether two values may become one, so that what comes back may differ from what went out.
    pub(in crate::mapping) fn is_lossy(&self) -> bool {
        match self {
            Self::Trim
            | Self::Lowercase
            | Self::Uppercase
            | Self::AnyText
            | Self::Integer
            | Self::Float
            | Self::Bool
            | Self::Date(_)
            | Self::AnyDate
            | Self::InZone(_)
            | Self::EpochMs
            | Self::EpochSeconds
            | Self::Phone(_)
            | Self::Email
            | Self::HtmlToText
            | Self::PlainText
            | Self::Truncate(_)
            | Self::Ellipsis(_) => true,
            Self::Number
            | Self::Text
            | Self::YesNo
            | Self::OneZero
            | Self::DateTime(_)
            | Self::Join(_)
            | Self::Split(_)
            | Self::Max(_) => false,
        }
    }

    pub(in crate::mapping) fn takes(&self) -> Type {
        match self {
            Self::Text => Type::Number,
            Self::YesNo | Self::OneZero => Type::Bool,
            Self::Join(_) => Type::List,
            Self::AnyText | Self::Integer | Self::Float | Self::Bool | Self::Phone(_) => Type::Any,
            _ => Type::Text,
        }
    }

    pub(in crate::mapping) fn gives(&self) -> Type {
        match self {
            Self::Number
            | Self::EpochMs
            | Self::EpochSeconds
            | Self::Integer
            | Self::Float
            | Self::OneZero => Type::Number,
            Self::Bool => Type::Bool,
            Self::Split(_) => Type::List,
            _ => Type::Text,
        }
    }
}

const OFFSET: &str = "an offset from UTC, as in `zone:+02:00`";

fn optional_offset(text: Option<&str>) -> Option<Offset> {
    text.map_or(Some(Offset::UTC), Offset::parse)
}

fn plain(name: &str) -> Result<Converter, UnknownConverter> {
    Ok(match name {
        "trim" => Converter::Trim,
        "lowercase" | "to_lower" => Converter::Lowercase,
        "uppercase" | "to_upper" => Converter::Uppercase,
        "number" => Converter::Number,
        "text" => Converter::Text,
        "to_string" => Converter::AnyText,
        "to_int" => Converter::Integer,
        "to_float" => Converter::Float,
        "to_bool" => Converter::Bool,
        "yes_no" => Converter::YesNo,
        "one_zero" => Converter::OneZero,
        "format_date" => Converter::AnyDate,
        "epoch_ms" => Converter::EpochMs,
        "epoch_s" => Converter::EpochSeconds,
        "format_phone" => Converter::Phone(String::new()),
        "email" | "format_email" => Converter::Email,
        "html_to_text" | "clean_html" => Converter::HtmlToText,
        "remove_special_chars" => Converter::PlainText,
        "truncate_255" => Converter::Truncate(255),
        _ => {
            return Err(UnknownConverter(format!(
                "unknown converter; known are {KNOWN}"
            )));
        }
    })
}
