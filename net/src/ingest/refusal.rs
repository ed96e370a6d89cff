//! Why one event was not taken.

use std::borrow::Cow;

/// A refusal, as it is told to the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong, from the one code table.
    pub code: Code,
    /// What is wrong, for a person.
    pub detail: Cow<'static, str>,
    /// Where it is wrong: a JSON pointer into the event.
    pub pointer: Option<String>,
}

impl Refusal {
    /// A refusal that concerns no place inside the input.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Refusal {
            code,
            detail: detail.into(),
            pointer: None,
        }
    }

    /// A refusal of one place.
    pub fn at(
        code: Code,
        pointer: impl Into<String>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Refusal {
            code,
            detail: detail.into(),
            pointer: Some(pointer.into()),
        }
    }
}

/// The code table shared by TCP, list items and problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "stand-in until the engine's table is merged")]
pub enum Code {
    Malformed,
    TooLarge,
    InvalidField,
    UnknownField,
    Unauthorized,
    DiskFull,
    Overloaded,
    ShardDown,
}

impl Code {
    /// The code as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Malformed => "malformed",
            Code::TooLarge => "too_large",
            Code::InvalidField => "invalid_field",
            Code::UnknownField => "unknown_field",
            Code::Unauthorized => "unauthorized",
            Code::DiskFull => "disk_full",
            Code::Overloaded => "overloaded",
            Code::ShardDown => "shard_down",
        }
    }

    /// Whether time can cure it.
    pub fn retry(self) -> bool {
        matches!(self, Code::DiskFull | Code::Overloaded | Code::ShardDown)
    }
}
