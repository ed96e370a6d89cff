//! Rules as the simulator generates and reads them.

use engine::event::Operation;
use engine::rules::{RuleAction, RuleSettings};
use serde_json::{Map, Value};

use super::mapping::at;
use crate::sim::merge::merge_patch;

/// The rules of a run, first to last.
#[derive(Debug, Clone, Default)]
pub struct RuleList {
    /// In their order.
    pub rules: Vec<OwnRule>,
    /// What makes it a bad one, which must be refused as a whole.
    pub flaw: Option<RuleFlaw>,
}

/// Why a list is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleFlaw {
    /// An expression that does not parse.
    Syntax,
    /// A condition that there is not.
    UnknownCondition,
    /// A priority beyond the scale.
    Priority,
    /// A share above all.
    Share,
    /// It asks what is not known where events are taken.
    Linked,
}

/// One entry.
#[derive(Debug, Clone, Default)]
pub struct OwnRule {
    /// Only at this account.
    pub provider: Option<String>,
    /// Only of this object.
    pub object: Option<&'static str>,
    /// The part of the records.
    pub share: Option<f64>,
    /// False: as if it were not there.
    pub disabled: bool,
    /// Skip while one of these is set.
    pub forbidden: Vec<&'static [&'static str]>,
    /// Reject without these.
    pub required: Vec<&'static [&'static str]>,
    /// Skip such operations unless the condition holds.
    pub only: Vec<(Operation, Only)>,
    /// When it matches; `None`: always.
    pub when: Option<Test>,
    /// What becomes of the event then.
    pub action: Option<RuleAction>,
    /// The priority it gives.
    pub priority: Option<u8>,
}

/// A named condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// `always`
    Always,
    /// `never`
    Never,
    /// `active_only`
    Active,
    /// `has_company`
    HasCompany,
}

/// An expression.
#[derive(Debug, Clone)]
pub enum Test {
    /// The operation is this one.
    Operation(Operation),
    /// A text of the record is this one.
    Is(&'static str, &'static str),
    /// A number of the record is over this one.
    Over(&'static str, u64),
    /// The change tells the field.
    Changed(&'static str),
    /// A text of the record was this one before.
    Was(&'static str, &'static str),
    /// Not so.
    Not(Box<Test>),
    /// Both.
    Both(Box<(Test, Test)>),
    /// One of them at least.
    Either(Box<(Test, Test)>),
}

/// What becomes of an event at an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Verdict {
    Sync,
    Skip,
    Turn(Operation),
    Reject,
}

/// A verdict, the rule that it is of (0: none), and the priority that it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) struct Decision {
    pub(in crate::sim) verdict: Verdict,
    pub(in crate::sim) rule: u16,
    pub(in crate::sim) priority: Option<u8>,
}

/// An event as its producer wrote it, on its way to an account.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) struct Asked<'e> {
    pub(in crate::sim) operation: Operation,
    pub(in crate::sim) object: &'e str,
    pub(in crate::sim) record_id: &'e str,
    pub(in crate::sim) account: &'e str,
    pub(in crate::sim) changed: Option<&'e Map<String, Value>>,
    pub(in crate::sim) before: Option<&'e Map<String, Value>>,
}

/// The documents that expressions read.
struct Documents<'e> {
    asked: Asked<'e>,
    data: Option<Map<String, Value>>,
}

impl RuleList {
    /// The first that matches decides: shorthands of all entries before the list.
    pub(in crate::sim) fn decide(&self, asked: Asked<'_>) -> Decision {
        let documents = Documents::of(asked);
        let numbered = || {
            let rules = self.rules.iter().zip(1_u16..);
            rules.filter(|(rule, _)| rule.concerns(asked))
        };
        for (rule, number) in numbered() {
            if let Some(verdict) = rule.shorthand(&documents) {
                let priority = None;
                return Decision {
                    verdict,
                    rule: number,
                    priority,
                };
            }
        }
        for (rule, number) in numbered() {
            let matches = rule
                .when
                .as_ref()
                .is_none_or(|when| when.holds(&documents) == Some(true));
            if rule.is_listed() && matches {
                return Decision {
                    verdict: rule.verdict(asked),
                    rule: number,
                    priority: rule.priority,
                };
            }
        }
        Decision {
            verdict: Verdict::Sync,
            rule: 0,
            priority: None,
        }
    }

    /// As the engine's settings have it.
    pub(in crate::sim) fn settings(&self) -> Vec<RuleSettings> {
        let sound = self.rules.iter().map(OwnRule::settings);
        sound.chain(self.flaw.map(RuleFlaw::rule)).collect()
    }
}

impl OwnRule {
    fn is_listed(&self) -> bool {
        self.when.is_some() || self.action.is_some() || self.priority.is_some()
    }

    fn concerns(&self, asked: Asked<'_>) -> bool {
        let provider = self.provider.as_deref();
        !self.disabled
            && provider.is_none_or(|provider| provider == asked.account)
            && self.object.is_none_or(|object| object == asked.object)
            && self
                .share
                .is_none_or(|share| super::takes_part(share, asked.record_id))
    }

    /// What its shorthands make of an event, in their order.
    fn shorthand(&self, documents: &Documents<'_>) -> Option<Verdict> {
        let data = documents.data.as_ref();
        let told = |path: &[&str]| at(data?, path).flatten();
        let raised = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        if self
            .forbidden
            .iter()
            .any(|path| told(path).is_some_and(raised))
        {
            return Some(Verdict::Skip);
        }
        let lacks = |path: &&[&str]| match documents.asked.operation {
            Operation::Create | Operation::Upsert => told(path).is_none_or(Value::is_null),
            Operation::Update => {
                let changed = documents.asked.changed;
                changed.is_some_and(|changed| at(changed, path).flatten() == Some(&Value::Null))
            }
            _ => false,
        };
        if self.required.iter().any(|path| lacks(&&path[..])) {
            return Some(Verdict::Reject);
        }
        let kept = self.only.iter().any(|(operation, only)| {
            *operation == documents.asked.operation && !only.allows(documents)
        });
        kept.then_some(Verdict::Skip)
    }

    fn verdict(&self, asked: Asked<'_>) -> Verdict {
        let operation = match self.action.unwrap_or(RuleAction::Sync) {
            RuleAction::Sync => return Verdict::Sync,
            RuleAction::Skip => return Verdict::Skip,
            RuleAction::Reject => return Verdict::Reject,
            RuleAction::Create => Operation::Create,
            RuleAction::Update => Operation::Update,
            RuleAction::Upsert => Operation::Upsert,
            RuleAction::Delete => Operation::Delete,
        };
        if operation != Operation::Delete && asked.changed.is_none() {
            Verdict::Reject
        } else if operation == asked.operation {
            Verdict::Sync
        } else {
            Verdict::Turn(operation)
        }
    }

    fn settings(&self) -> RuleSettings {
        let dotted = |paths: &[&[&str]]| paths.iter().map(|path| path.join(".")).collect();
        let only = |operation| {
            let mut only = self.only.iter();
            let only = only.find(|(own, _)| *own == operation)?;
            Some(only.1.name().to_owned())
        };
        RuleSettings {
            provider: self.provider.clone(),
            object: self.object.map(str::to_owned),
            when: self.when.as_ref().map(Test::spelled),
            action: self.action,
            priority: self.priority,
            required_fields: dotted(&self.required),
            disallow_if: dotted(&self.forbidden),
            create: only(Operation::Create),
            read: only(Operation::Read),
            update: only(Operation::Update),
            upsert: only(Operation::Upsert),
            delete: only(Operation::Delete),
            enabled: !self.disabled,
            share: self.share,
            ..RuleSettings::default()
        }
    }
}

impl RuleFlaw {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Syntax,
        Self::UnknownCondition,
        Self::Priority,
        Self::Share,
        Self::Linked,
    ];

    /// A rule that must not be.
    fn rule(self) -> RuleSettings {
        let mut rule = RuleSettings {
            action: Some(RuleAction::Skip),
            ..RuleSettings::default()
        };
        match self {
            Self::Syntax => rule.when = Some("data.name >".to_owned()),
            Self::UnknownCondition => rule.update = Some("sometimes".to_owned()),
            Self::Priority => rule.priority = Some(11),
            Self::Share => rule.share = Some(1.5),
            Self::Linked => rule.when = Some("linked".to_owned()),
        }
        rule
    }
}

impl Only {
    fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Never => "never",
            Self::Active => "active_only",
            Self::HasCompany => "has_company",
        }
    }

    /// A change that does not tell a field is not held to it; only a whole record can lack one.
    fn allows(self, documents: &Documents<'_>) -> bool {
        let told = |name: &str| documents.data.as_ref()?.get(name);
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Active => told("status").is_none_or(|status| status == "active"),
            Self::HasCompany => match told("company").or_else(|| told("company_id")) {
                Some(Value::Null) => false,
                Some(Value::String(text)) => !text.trim().is_empty(),
                Some(_) => true,
                None => !matches!(
                    documents.asked.operation,
                    Operation::Create | Operation::Upsert
                ),
            },
        }
    }
}

impl<'e> Documents<'e> {
    fn of(asked: Asked<'e>) -> Self {
        let data = match (asked.before, asked.changed) {
            (Some(before), Some(changed)) => {
                let mut merged = before.clone();
                merge_patch(&mut merged, changed);
                Some(merged)
            }
            (before, changed) => changed.or(before).cloned(),
        };
        Self { asked, data }
    }
}

impl Test {
    /// `None`: it has no value for this event.
    fn holds(&self, documents: &Documents<'_>) -> Option<bool> {
        let asked = documents.asked;
        let is = |record: Option<&Map<String, Value>>, field: &str, text: &str| {
            Some(record?.get(field)? == text)
        };
        match self {
            Self::Operation(operation) => Some(*operation == asked.operation),
            Self::Is(field, text) => is(documents.data.as_ref(), field, text),
            Self::Over(field, least) => {
                let value = documents.data.as_ref()?.get(*field)?;
                Some(value.as_u64()? > *least)
            }
            Self::Changed(field) => Some(asked.changed?.contains_key(*field)),
            Self::Was(field, text) => is(asked.before, field, text),
            Self::Not(test) => Some(!test.holds(documents)?),
            Self::Both(tests) => match (tests.0.holds(documents), tests.1.holds(documents)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Either(tests) => match (tests.0.holds(documents), tests.1.holds(documents)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }

    fn spelled(&self) -> String {
        match self {
            Self::Operation(operation) => format!("operation == \"{}\"", operation.as_str()),
            Self::Is(field, text) => format!("data.{field} == \"{text}\""),
            Self::Over(field, least) => format!("data.{field} > {least}"),
            Self::Changed(field) => format!("has(changed.{field})"),
            Self::Was(field, text) => format!("before.{field} == \"{text}\""),
            Self::Not(test) => format!("!({})", test.spelled()),
            Self::Both(tests) => format!("({}) && ({})", tests.0.spelled(), tests.1.spelled()),
            Self::Either(tests) => format!("({}) || ({})", tests.0.spelled(), tests.1.spelled()),
        }
    }
}
