//! The settings of rules, and what must hold of them before they run.

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::{Action, DECLARED, Kind, RULES_MAX, Rule, RuleSet, SET_STEPS_MAX, Share};
use crate::event::{Operation, Priority};
use crate::expression::Expression;

/// Levels of a dotted path.
const PATH_LEVELS_MAX: usize = 8;

/// Fields of one shorthand.
const FIELDS_MAX: usize = 100;

/// One entry of `[[rules]]`, in the file and in the API alike: shorthands, a rule of the list, or
/// both.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleSettings {
    /// Only at this account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Only for this object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// CEL; absent: always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What becomes of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<RuleAction>,
    /// The operation's priority from here on, 1 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Told to whoever asks why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// CREATE and UPSERT need these, UPDATE may not clear them. Dots between levels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_fields: Vec<String>,
    /// Skip while one of these is set. Dots between levels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disallow_if: Vec<String>,
    /// When a CREATE is sent, by a condition's name; else it is skipped.
    #[serde(rename = "CREATE", alias = "create")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create: Option<String>,
    /// When a READ is sent.
    #[serde(rename = "READ", alias = "read")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
    /// When an UPDATE is sent.
    #[serde(rename = "UPDATE", alias = "update")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<String>,
    /// When an UPSERT is sent.
    #[serde(rename = "UPSERT", alias = "upsert")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upsert: Option<String>,
    /// When a DELETE is sent.
    #[serde(rename = "DELETE", alias = "delete")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete: Option<String>,
    /// False: as if it were not there.
    pub enabled: bool,
    /// The part of the records that it concerns, by a hash of their ids; a record that takes
    /// part stays in when the share grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
}

/// What a rule makes of an event, as settings name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    missing_docs,
    reason = "each is named after what it makes of the event"
)]
pub enum RuleAction {
    Sync,
    Skip,
    Create,
    Update,
    Upsert,
    Delete,
    Reject,
}

/// A set that cannot be right; the one in force stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule {}: {}{detail}", rule + 1, key_prefix(key))]
pub struct RuleError {
    /// Index of the rule.
    pub rule: usize,
    /// The key at fault; empty for the whole rule.
    pub key: &'static str,
    /// What is wrong with it.
    pub detail: String,
}

impl Default for RuleSettings {
    fn default() -> Self {
        Self {
            provider: None,
            object: None,
            when: None,
            action: None,
            priority: None,
            reason: None,
            required_fields: Vec::new(),
            disallow_if: Vec::new(),
            create: None,
            read: None,
            update: None,
            upsert: None,
            delete: None,
            enabled: true,
            share: None,
        }
    }
}

impl RuleSettings {
    fn has_shorthand(&self) -> bool {
        !self.required_fields.is_empty()
            || !self.disallow_if.is_empty()
            || self.conditions().next().is_some()
    }

    fn conditions(&self) -> impl Iterator<Item = (Operation, &str)> {
        [
            (Operation::Create, &self.create),
            (Operation::Read, &self.read),
            (Operation::Update, &self.update),
            (Operation::Upsert, &self.upsert),
            (Operation::Delete, &self.delete),
        ]
        .into_iter()
        .filter_map(|(operation, name)| Some((operation, name.as_deref()?)))
    }
}

impl From<RuleAction> for Action {
    fn from(action: RuleAction) -> Self {
        match action {
            RuleAction::Sync => Self::Sync,
            RuleAction::Skip => Self::Skip,
            RuleAction::Reject => Self::Reject,
            RuleAction::Create => Self::Instead(Operation::Create),
            RuleAction::Update => Self::Instead(Operation::Update),
            RuleAction::Upsert => Self::Instead(Operation::Upsert),
            RuleAction::Delete => Self::Instead(Operation::Delete),
        }
    }
}

pub(super) fn compile(version: u32, rules: &[RuleSettings]) -> Result<RuleSet, RuleError> {
    let mut set = RuleSet {
        version,
        ..RuleSet::default()
    };
    if rules.len() > RULES_MAX {
        return Err(RuleError {
            rule: RULES_MAX,
            key: "",
            detail: format!("a set has at most {RULES_MAX} rules"),
        });
    }
    let mut steps = 0_u64;
    for (at, rule) in rules.iter().enumerate() {
        let error = |key, detail: String| RuleError {
            rule: at,
            key,
            detail,
        };
        let compiled = Entry::compile(at, rule).map_err(|(key, detail)| error(key, detail))?;
        set.reasons.push(rule.reason.clone().unwrap_or_default());
        if !rule.enabled {
            continue;
        }
        if let Some(Rule {
            kind: Kind::When(Some(when), ..),
            ..
        }) = &compiled.rule
        {
            set.reads_linked |= when.reads("linked");
            steps = steps.saturating_add(when.steps_max());
        }
        if steps > SET_STEPS_MAX {
            let detail = format!("the set may take {steps} steps, at most {SET_STEPS_MAX}");
            return Err(error("when", detail));
        }
        set.shorthands.extend(compiled.shorthands);
        set.rules.extend(compiled.rule);
    }
    Ok(set)
}

/// One entry of the settings, compiled.
struct Entry {
    shorthands: Vec<Rule>,
    rule: Option<Rule>,
}

impl Entry {
    fn compile(at: usize, settings: &RuleSettings) -> Result<Self, (&'static str, String)> {
        let is_listed =
            settings.when.is_some() || settings.action.is_some() || settings.priority.is_some();
        if !is_listed && !settings.has_shorthand() {
            let detail = "expected an `action`, a `priority`, `required_fields`, `disallow_if` \
                          or a condition such as UPDATE = \"active_only\"";
            return Err(("", detail.to_owned()));
        }
        if settings.when.is_some() && settings.action.is_none() && settings.priority.is_none() {
            let detail = "without an `action` or a `priority` nothing follows from it";
            return Err(("when", detail.to_owned()));
        }
        let share = Share::new(settings.share.unwrap_or(1.0));
        let share_below = match share {
            Some(share) => share.below(),
            None => return Err(("share", "expected a share of 0 to 1".to_owned())),
        };
        let priority = match settings.priority {
            None => None,
            Some(value) => match Priority::new(value) {
                Some(priority) => Some(priority),
                None => return Err(("priority", "expected a priority of 1 to 10".to_owned())),
            },
        };
        let rule = |kind| Rule {
            // Bounded by RULES_MAX.
            number: u16::try_from(at + 1).unwrap_or(u16::MAX),
            provider: settings.provider.clone(),
            object: settings.object.clone(),
            share_below,
            kind,
        };
        let mut shorthands = Vec::new();
        if !settings.disallow_if.is_empty() {
            let fields = fields(&settings.disallow_if).map_err(|d| ("disallow_if", d))?;
            shorthands.push(rule(Kind::Forbid(fields)));
        }
        if !settings.required_fields.is_empty() {
            let fields = fields(&settings.required_fields).map_err(|d| ("required_fields", d))?;
            shorthands.push(rule(Kind::Require(fields)));
        }
        for (operation, name) in settings.conditions() {
            let Some(condition) = Condition::named(name) else {
                let detail = format!(
                    "unknown condition \"{name}\"; known are always, never, active_only, has_FIELD"
                );
                return Err((operation.as_str(), detail));
            };
            shorthands.push(rule(Kind::Only(operation, condition)));
        }
        let when = match &settings.when {
            None => None,
            Some(source) => Some(Expression::compile(source, DECLARED).map_err(|error| {
                let at = error.at.map(|(line, column)| format!("{line}:{column}: "));
                (
                    "when",
                    format!("{}{}", at.unwrap_or_default(), error.detail),
                )
            })?),
        };
        let listed = is_listed.then(|| {
            let action = settings.action.map_or(Action::Sync, Action::from);
            rule(Kind::When(when, action, priority))
        });
        Ok(Self {
            shorthands,
            rule: listed,
        })
    }
}

fn fields(dotted: &[String]) -> Result<Vec<Vec<String>>, String> {
    if dotted.len() > FIELDS_MAX {
        return Err(format!("at most {FIELDS_MAX} fields"));
    }
    let field = |dotted: &String| {
        let names: Vec<String> = dotted.split('.').map(str::to_owned).collect();
        if names.iter().any(String::is_empty) || names.len() > PATH_LEVELS_MAX {
            return Err(format!(
                "expected a field such as \"email\" or \"address.city\", found \"{dotted}\""
            ));
        }
        Ok(names)
    };
    dotted.iter().map(field).collect()
}

fn key_prefix(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!("`{key}`: ")
    }
}
