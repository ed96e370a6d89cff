//! What shorthands ask of a record.

use std::fmt::{self, Display, Formatter};

use super::RuleInput;
use crate::event::Operation;
use crate::json::{Kind, RawObject, RawValue};

/// When an operation is sent, by name: `always`, `never`, `active_only`, `has_company`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    Always,
    Never,
    /// `status` is `active`. A change that does not tell the status is let through.
    ActiveOnly,
    /// `has_X`: the record has an `X` or an `X_id`.
    Has {
        field: String,
        id: String,
    },
}

impl Condition {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "always" => Self::Always,
            "never" => Self::Never,
            "active_only" => Self::ActiveOnly,
            _ => {
                let field = name
                    .strip_prefix("has_")
                    .filter(|field| !field.is_empty())?;
                Self::Has {
                    field: field.to_owned(),
                    id: format!("{field}_id"),
                }
            }
        })
    }

    /// Whether the event is sent. Only a whole record can lack something by not naming it.
    pub(super) fn allows(&self, input: &RuleInput<'_>) -> bool {
        let is_whole = matches!(input.operation, Operation::Create | Operation::Upsert);
        let value = |name: &str| input.data.and_then(|data| data.get(name));
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::ActiveOnly => value("status")
                .is_none_or(|status| status.as_text().is_some_and(|text| text == "active")),
            Self::Has { field, id } => {
                let mut told = [value(field), value(id)].into_iter().flatten().peekable();
                if told.peek().is_none() {
                    return !is_whole;
                }
                told.any(|value| !is_empty(value))
            }
        }
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Never => f.write_str("never"),
            Self::ActiveOnly => f.write_str("active_only"),
            Self::Has { field, .. } => write!(f, "has_{field}"),
        }
    }
}

/// Whether a flag is up: anything but `null`, `false`, zero, and texts that say so.
pub(super) fn is_set(value: RawValue<'_>) -> bool {
    match value.kind() {
        Kind::Null => false,
        Kind::Bool => value.text() == "true",
        Kind::Number => value
            .text()
            .parse::<f64>()
            .is_ok_and(|number| number != 0.0),
        Kind::Text => {
            let text = value.as_text().unwrap_or_default();
            let denied = ["", "false", "no", "0"];
            !denied.iter().any(|no| text.trim().eq_ignore_ascii_case(no))
        }
        Kind::Array | Kind::Object => true,
    }
}

fn is_empty(value: RawValue<'_>) -> bool {
    match value.kind() {
        Kind::Null => true,
        Kind::Text => value.as_text().is_none_or(|text| text.trim().is_empty()),
        _ => false,
    }
}

/// Whether a change clears a field, itself or by an object around it.
pub(super) fn clears(changed: RawObject<'_>, field: &[String]) -> bool {
    (1..=field.len()).any(|levels| {
        let value = changed.get_path(&field[..levels]);
        value.is_some_and(RawValue::is_null)
    })
}

pub(super) fn path_text(field: &[String]) -> String {
    field.join(".")
}
