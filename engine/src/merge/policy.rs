//! Who wins when both sides changed a field.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::expression::{Declared, Expression, ExpressionError, Variable};
use crate::json::RawObject;

/// How conflicts of one object at one account end.
#[derive(Debug, Clone)]
pub struct ConflictPolicy {
    /// For fields that have no rule of their own.
    pub default: Rule,
    /// For a field, or an object of fields, by its pointer.
    pub fields: BTreeMap<String, Rule>,
    /// Two instants nearer than this say nothing about which came first: the clocks of the two
    /// sides differ. System A wins then.
    pub skew: Duration,
}

/// How a conflict over one field ends.
#[derive(Debug, Clone)]
pub enum Rule {
    /// The later change; System A's when neither surely is.
    LastWriteWins,
    /// System A's.
    SystemA,
    /// The provider's.
    Provider,
    /// Nobody's until an operator says: System A's side stays as it is, and so does the
    /// provider's.
    Manual,
    /// System A's, and the account's changes of it are not taken even where System A did not change
    /// it.
    Owned(Foreign),
    /// What an expression over [`Rivals`] says: `"system_a"`, `"provider"`, `"manual"`.
    Expression(Box<Expression>),
}

/// What becomes of a field of System A's that somebody changed at the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// It stays there, until System A changes the field.
    Refuse,
    /// System A's value is written back.
    Revert,
}

/// What an expression may name: see [`Rivals`].
const DECLARED: Declared = Declared {
    scalars: &["field"],
    documents: &["change"],
};

/// The two changes of a field.
#[derive(Debug, Clone, Copy)]
pub struct Rivals<'a> {
    /// The field, as a pointer.
    pub field: &'a str,
    /// What both sides had before, as JSON text.
    pub base: &'a str,
    /// System A's value.
    pub ours: &'a str,
    /// When System A changed it, ms since the epoch.
    pub ours_at_ms: i64,
    /// The provider's value.
    pub theirs: &'a str,
    /// When the provider changed it, ms since the epoch.
    pub theirs_at_ms: i64,
}

/// How a conflict ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Winner {
    /// System A's value stands.
    SystemA = 1,
    /// The provider's value stands.
    Provider = 2,
    /// An operator has to say.
    Undecided = 3,
}

impl Default for ConflictPolicy {
    fn default() -> Self {
        Self {
            default: Rule::LastWriteWins,
            fields: BTreeMap::new(),
            // Providers tell times in whole seconds.
            skew: Duration::from_secs(1),
        }
    }
}

impl Rule {
    /// The rule that an expression decides, over the text `field` and the document `change` with
    /// `base`, `ours`, `ours_at`, `theirs` and `theirs_at`.
    ///
    /// # Errors
    /// [`ExpressionError`]: it is not CEL, names something else, or may take too many steps.
    pub fn expression(source: &str) -> Result<Self, ExpressionError> {
        let expression = Expression::compile(source, DECLARED)?;
        Ok(Self::Expression(Box::new(expression)))
    }
}

impl ConflictPolicy {
    /// Decides. An expression that fails or says something else leaves it to an operator.
    #[must_use]
    pub fn decide(&self, rivals: &Rivals<'_>) -> Winner {
        match self.rule(rivals.field) {
            Rule::SystemA | Rule::Owned(_) => Winner::SystemA,
            Rule::Provider => Winner::Provider,
            Rule::Manual => Winner::Undecided,
            Rule::LastWriteWins => {
                let later = rivals.theirs_at_ms.saturating_sub(rivals.ours_at_ms);
                if u128::try_from(later).is_ok_and(|later| later > self.skew.as_millis()) {
                    Winner::Provider
                } else {
                    Winner::SystemA
                }
            }
            Rule::Expression(expression) => said(expression, rivals),
        }
    }

    /// What becomes of the account's changes of a field, if that is System A's alone.
    #[must_use]
    pub fn owned(&self, field: &str) -> Option<Foreign> {
        match self.rule(field) {
            Rule::Owned(foreign) => Some(*foreign),
            _ => None,
        }
    }

    /// The rule of the field, or of the nearest object above it that has one.
    fn rule(&self, field: &str) -> &Rule {
        let above = field.rmatch_indices('/').map(|(end, _)| &field[..end]);
        std::iter::once(field)
            .chain(above)
            .find_map(|at| self.fields.get(at))
            .unwrap_or(&self.default)
    }
}

fn said(expression: &Expression, rivals: &Rivals<'_>) -> Winner {
    let document = format!(
        r#"{{"base":{},"ours":{},"ours_at":{},"theirs":{},"theirs_at":{}}}"#,
        rivals.base, rivals.ours, rivals.ours_at_ms, rivals.theirs, rivals.theirs_at_ms
    );
    let Some(change) = RawObject::new(&document) else {
        return Winner::Undecided;
    };
    let mut out = Vec::new();
    let written = expression.write_value(
        &[
            ("change", Variable::Document(change)),
            ("field", Variable::Text(rivals.field)),
        ],
        &mut out,
    );
    match (written, out.as_slice()) {
        (Ok(()), br#""system_a""#) => Winner::SystemA,
        (Ok(()), br#""provider""#) => Winner::Provider,
        _ => Winner::Undecided,
    }
}

impl Winner {
    /// Reads what [`Winner`] is on disk.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::SystemA, Self::Provider, Self::Undecided]
            .into_iter()
            .find(|winner| *winner as u8 == byte)
    }

    /// Its name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SystemA => "system_a",
            Self::Provider => "provider",
            Self::Undecided => "undecided",
        }
    }
}
