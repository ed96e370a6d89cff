//! Rules: what becomes of an event at each account, decided once, when it is accepted.
//!
//! A set is compiled once and then only read. Shorthands come before the list; in the list the
//! first rule that matches decides, and where none does the event is synced.

mod condition;
mod routing;
mod settings;
mod share;
mod trial;

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64;

use self::condition::{Condition, is_set, path_text};
pub use self::settings::{RuleAction, RuleError, RuleSettings};
pub use self::share::Share;
pub use self::trial::{Difference, FORCE_ABOVE_POINTS, Tally, Trial};
use crate::event::{Operation, Priority};
use crate::expression::{Declared, Expression, Variable};
use crate::json::{Pointer, RawObject};

/// Rules of one set: far over what a person keeps in mind, and each event walks them all.
pub const RULES_MAX: usize = 1_000;

/// Steps of all expressions of a set together, at worst. A step is some 50 ns: this is a quarter
/// of a second for the worst event there can be, and microseconds for a usual one.
pub const SET_STEPS_MAX: u64 = 5_000_000;

/// What a rule's expression may name.
pub const DECLARED: Declared = Declared {
    scalars: &["operation", "object", "provider", "record_id", "linked"],
    documents: &["data", "changed", "before"],
};

/// A compiled set.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    version: u32,
    shorthands: Vec<Rule>,
    rules: Vec<Rule>,
    /// By number less one; empty where a rule has none.
    reasons: Vec<String>,
    reads_linked: bool,
}

/// One rule, or one shorthand of one.
#[derive(Debug, Clone)]
struct Rule {
    /// Counted from 1 in the order of the settings.
    number: u16,
    provider: Option<String>,
    object: Option<String>,
    /// Record ids whose hash lies below take part; `None`: all do.
    share_below: Option<u64>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// `required_fields`
    Require(Vec<Vec<String>>),
    /// `disallow_if`
    Forbid(Vec<Vec<String>>),
    /// `CREATE = "..."` and the like.
    Only(Operation, Condition),
    /// `when` with what follows from it.
    When(Option<Expression>, Action, Option<Priority>),
}

/// What a rule makes of an event at an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Synced as it is.
    Sync,
    /// Not sent to this account.
    Skip,
    /// Sent as another operation.
    Instead(Operation),
    /// Not accepted for this account.
    Reject,
}

/// An event on its way to one account.
#[derive(Debug, Clone, Copy)]
pub struct RuleInput<'a> {
    /// What the event asks for.
    pub operation: Operation,
    /// System A's name of the kind of record.
    pub object: &'a str,
    /// The account.
    pub provider: &'a str,
    /// System A's key.
    pub record_id: &'a str,
    /// The record as it is after the change, as far as it is known.
    pub data: Option<RawObject<'a>>,
    /// The fields that were sent.
    pub changed: Option<RawObject<'a>>,
    /// The record before the change.
    pub before: Option<RawObject<'a>>,
    /// Whether the record exists at the account; `None`: not known here.
    pub linked: Option<bool>,
}

/// What becomes of the event at that account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleOutcome {
    /// What is done.
    pub action: Action,
    /// The rule that said so, counted from 1; 0 when none did.
    pub rule: u16,
    /// The priority it sets.
    pub priority: Option<Priority>,
    /// RFC 6901 pointer into the event to what a rejection is about.
    pub pointer: Option<String>,
    /// The rule's reason, or what it found.
    pub reason: Cow<'static, str>,
}

impl RuleSet {
    /// Checks and compiles a set; `version` is how it is known from now on.
    ///
    /// # Errors
    /// The first [`RuleError`].
    pub fn compile(version: u32, rules: &[RuleSettings]) -> Result<Self, RuleError> {
        settings::compile(version, rules)
    }

    /// What [`compile`](Self::compile) was told; 0 for a set that nobody gave.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether there is nothing to decide.
    pub fn is_empty(&self) -> bool {
        self.shorthands.is_empty() && self.rules.is_empty()
    }

    /// Whether some rule asks if the record is linked.
    pub fn reads_linked(&self) -> bool {
        self.reads_linked
    }

    /// The reason that rule number `rule` gives, counted from 1.
    pub fn reason(&self, rule: u16) -> Option<&str> {
        let at = usize::from(rule).checked_sub(1)?;
        let reason = self.reasons.get(at)?;
        (!reason.is_empty()).then_some(reason)
    }

    /// What becomes of an event at one account.
    pub fn decide(&self, input: &RuleInput<'_>) -> RuleOutcome {
        let mut place = None;
        for rule in self.shorthands.iter().chain(&self.rules) {
            if rule.concerns(input, &mut place)
                && let Some(outcome) = self.apply(rule, input)
            {
                return outcome;
            }
        }
        RuleOutcome {
            action: Action::Sync,
            rule: 0,
            priority: None,
            pointer: None,
            reason: Cow::Borrowed(""),
        }
    }

    fn apply(&self, rule: &Rule, input: &RuleInput<'_>) -> Option<RuleOutcome> {
        match &rule.kind {
            Kind::Forbid(fields) => {
                let data = input.data?;
                let field = fields
                    .iter()
                    .find(|field| data.get_path(field).is_some_and(is_set))?;
                let found = format!("{} is set", path_text(field));
                Some(self.outcome(rule, Action::Skip, None, found))
            }
            Kind::Require(fields) => {
                let field = fields.iter().find(|field| lacks(field, input))?;
                let mut pointer = Pointer::of(&["data"]);
                for name in field {
                    pointer.push(name);
                }
                let found = match input.operation {
                    Operation::Update => "a required field must not be cleared",
                    _ => "a required field is absent or null",
                };
                let mut outcome = self.outcome(rule, Action::Reject, None, found);
                outcome.pointer = Some(pointer.into());
                Some(outcome)
            }
            Kind::Only(operation, condition) => {
                let stays = *operation != input.operation || condition.allows(input);
                let found = || format!("{} is sent {condition} only", operation.as_str());
                (!stays).then(|| self.outcome(rule, Action::Skip, None, found()))
            }
            Kind::When(when, action, priority) => {
                let matches = when
                    .as_ref()
                    .is_none_or(|when| when.holds(&variables(input)));
                if !matches {
                    return None;
                }
                let (action, found) = match action {
                    Action::Instead(operation)
                        if operation.writes_fields() && input.changed.is_none() =>
                    {
                        let found = "the rule sends fields, and the event has none";
                        (Action::Reject, found)
                    }
                    Action::Instead(operation) if *operation == input.operation => {
                        (Action::Sync, "")
                    }
                    action => (*action, ""),
                };
                Some(self.outcome(rule, action, *priority, found))
            }
        }
    }

    fn outcome(
        &self,
        rule: &Rule,
        action: Action,
        priority: Option<Priority>,
        found: impl Into<Cow<'static, str>>,
    ) -> RuleOutcome {
        let reason = match self.reason(rule.number) {
            Some(reason) => Cow::Owned(reason.to_owned()),
            None => found.into(),
        };
        RuleOutcome {
            action,
            rule: rule.number,
            priority,
            pointer: None,
            reason,
        }
    }
}

impl Rule {
    /// Whether the event is one of the rule's. `place` is where the record stands in shares, once
    /// some rule asked for it.
    fn concerns(&self, input: &RuleInput<'_>, place: &mut Option<u64>) -> bool {
        let named =
            |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|w| w == name);
        named(&self.provider, input.provider)
            && named(&self.object, input.object)
            && self.share_below.is_none_or(|below| {
                *place.get_or_insert_with(|| xxh3_64(input.record_id.as_bytes())) < below
            })
    }
}

/// Whether a whole record has no such field, or a change clears it.
fn lacks(field: &[String], input: &RuleInput<'_>) -> bool {
    match input.operation {
        Operation::Create | Operation::Upsert => {
            let data = input.data.or(input.changed);
            let value = data.and_then(|data| data.get_path(field));
            value.is_none_or(|value| value.is_null())
        }
        Operation::Update => input
            .changed
            .is_some_and(|changed| condition::clears(changed, field)),
        Operation::Read | Operation::Delete | Operation::Pull => false,
    }
}

fn variables<'a>(input: &RuleInput<'a>) -> smallvec::SmallVec<[(&'static str, Variable<'a>); 8]> {
    let mut variables: smallvec::SmallVec<_> = [
        ("operation", Variable::Text(input.operation.as_str())),
        ("object", Variable::Text(input.object)),
        ("provider", Variable::Text(input.provider)),
        ("record_id", Variable::Text(input.record_id)),
    ]
    .into_iter()
    .collect();
    variables.extend(
        input
            .linked
            .map(|linked| ("linked", Variable::Bool(linked))),
    );
    let documents = [
        ("data", input.data),
        ("changed", input.changed),
        ("before", input.before),
    ];
    for (name, document) in documents {
        variables.extend(document.map(|object| (name, Variable::Document(object))));
    }
    variables
}
