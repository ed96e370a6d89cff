//! `[[errors]]`: which errors of a provider mean what. The first rule that fits decides.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use super::file::{ErrorBlock, OfKey, StatusKey};
use super::limit::{duration, header_name};
use super::problems::Problems;
use super::refusal::{About, Meaning, Refusal};
use super::retry_after::RETRY_AFTER_MAX;
use super::text_pattern::TextPattern;
use super::{CallKind, LimitDefinition, RetryAfter, TemplateError};

/// One rule. Conditions that are empty hold always; those that are not must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ErrorRule {
    pub(crate) statuses: Vec<RangeInclusive<u16>>,
    pub(crate) codes: Vec<String>,
    pub(crate) messages: Vec<TextPattern>,
    pub(crate) policies: Vec<String>,
    pub(crate) header: Option<HeaderCondition>,
    pub(crate) kinds: Vec<CallKind>,
    pub(crate) about: Vec<About>,
    pub(crate) outcome: RuleOutcome,
}

/// What a rule makes of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleOutcome {
    pub(crate) class: ErrorClass,
    /// The limit that was hit.
    pub(crate) limit: Option<String>,
    /// Headers that say how long to wait, the first that can be read; then `delay`, then
    /// `Retry-After`.
    pub(crate) delay_headers: Vec<String>,
    pub(crate) delay: Option<Duration>,
    /// Where a message names the record that has the key, at `{id}`.
    pub(crate) remote_id: Vec<TextPattern>,
    pub(crate) pause: PauseScope,
}

/// A header that must be there, with this text in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeaderCondition {
    pub(crate) name: String,
    pub(crate) is: Option<String>,
}

/// What an error means. The names are those of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorClass {
    /// The provider failed; a call that is not idempotent may have been done.
    Transient,
    /// Too many calls for a short window.
    Throttled,
    /// A long window is used up.
    QuotaExhausted,
    /// Somebody else is changing the record; nothing was written.
    Contention,
    /// Refused because another record of the call was; nothing was written.
    Collateral,
    /// The credentials are expired or wrong.
    Unauthorized,
    /// The account may not do this, or is not set up for it: every record would fail.
    Permission,
    /// Another record has the key.
    Duplicate,
    /// The record changed meanwhile.
    Conflict,
    /// The records of a batch cannot go together: halve it.
    BatchRefused,
    /// The record is not there any more.
    Gone,
    /// The key is on more than one record.
    AmbiguousKey,
    /// This record, as it is, would be refused again.
    Permanent,
    /// The provider is closed for a while.
    Maintenance,
    /// May have been done or not.
    Unknown,
}

impl ErrorClass {
    /// Whether the fault may lie with one record of a batch that was refused as a whole.
    pub(crate) fn is_about_a_record(self) -> bool {
        match self {
            ErrorClass::Duplicate
            | ErrorClass::Conflict
            | ErrorClass::BatchRefused
            | ErrorClass::Gone
            | ErrorClass::AmbiguousKey
            | ErrorClass::Permanent => true,
            ErrorClass::Transient
            | ErrorClass::Throttled
            | ErrorClass::QuotaExhausted
            | ErrorClass::Contention
            | ErrorClass::Collateral
            | ErrorClass::Unauthorized
            | ErrorClass::Permission
            | ErrorClass::Maintenance
            | ErrorClass::Unknown => false,
        }
    }
}

/// What pauses when the account may not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseScope {
    /// The object that the call was about.
    #[default]
    Object,
    /// The whole account.
    Account,
}

impl ErrorRule {
    pub(crate) fn compile(
        index: usize,
        block: &ErrorBlock,
        limits: &[LimitDefinition],
        problems: &mut Problems,
    ) -> Option<ErrorRule> {
        let key = |member: &str| format!("errors[{index}].{member}");
        let statuses = block.status.as_slice().iter().map(status_range);
        let statuses = problems.note(key("status"), statuses.collect());
        let messages = patterns(block.message.as_slice(), &[]);
        let messages = problems.note(key("message"), messages);
        let header = block.header.as_ref().and_then(|header| {
            let name = problems.note(key("header.name"), header_name(&header.name))?;
            Some(HeaderCondition {
                name,
                is: header.is.clone(),
            })
        });
        let outcome = RuleOutcome::compile(index, block, limits, problems);
        let rule = ErrorRule {
            statuses: statuses?,
            codes: block.code.as_slice().to_vec(),
            messages: messages?,
            policies: block.policy.as_slice().to_vec(),
            header,
            kinds: block.operations.clone(),
            about: block.of.as_slice().iter().map(|of| of.about()).collect(),
            outcome: outcome?,
        };
        if rule.has_no_condition() {
            problems.add(format!("errors[{index}]"), TemplateError::NoCondition);
        }
        Some(rule)
    }

    fn has_no_condition(&self) -> bool {
        self.statuses.is_empty()
            && self.codes.is_empty()
            && self.messages.is_empty()
            && self.policies.is_empty()
            && self.header.is_none()
    }

    /// The headers it looks at.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &str> {
        let condition = self.header.iter().map(|header| header.name.as_str());
        condition.chain(self.outcome.delay_headers.iter().map(String::as_str))
    }

    pub(crate) fn fits(&self, refusal: &Refusal<'_>) -> bool {
        let words = &refusal.words;
        let status = refusal.status;
        let said = |known: &[String], said: &Option<String>| {
            let named = |said: &String| known.iter().any(|known| known.eq_ignore_ascii_case(said));
            known.is_empty() || said.as_ref().is_some_and(named)
        };
        let about = refusal.about;
        (self.statuses.is_empty() || self.statuses.iter().any(|range| range.contains(&status)))
            && said(&self.codes, &words.code)
            && said(&self.policies, &words.policy)
            && (self.kinds.is_empty()
                || refusal.kind.is_some_and(|kind| self.kinds.contains(&kind)))
            && (self.about.is_empty() || self.about.contains(&about))
            && self
                .header
                .as_ref()
                .is_none_or(|header| header.holds(refusal))
            && (self.messages.is_empty() || self.message_fits(words.message.as_deref()))
    }

    fn message_fits(&self, message: Option<&str>) -> bool {
        message.is_some_and(|message| self.messages.iter().any(|pattern| pattern.is_in(message)))
    }

    pub(crate) fn meaning(&self, refusal: &Refusal<'_>) -> Meaning {
        let outcome = &self.outcome;
        let message = refusal.words.message.as_deref();
        let mut patterns = outcome.remote_id.iter();
        Meaning {
            class: outcome.class,
            retry_after: outcome.retry_after(refusal),
            limit: outcome.limit.clone(),
            remote_id: message
                .and_then(|message| patterns.find_map(|pattern| pattern.read(message, "id")))
                .map(str::to_owned),
            pause: outcome.pause,
        }
    }
}

impl RuleOutcome {
    fn compile(
        index: usize,
        block: &ErrorBlock,
        limits: &[LimitDefinition],
        problems: &mut Problems,
    ) -> Option<RuleOutcome> {
        let key = |member: &str| format!("errors[{index}].{member}");
        let class = block.class;
        let mut meaningless = |there: bool, member: &'static str, classes: &[ErrorClass]| {
            if there && !classes.contains(&class) {
                problems.add(key(member), TemplateError::Meaningless(member));
            }
        };
        let waits = &[
            ErrorClass::Throttled,
            ErrorClass::QuotaExhausted,
            ErrorClass::Maintenance,
            ErrorClass::Contention,
            ErrorClass::Collateral,
        ];
        let delay_headers = block.delay_header.as_slice();
        meaningless(block.delay.is_some(), "delay", waits);
        meaningless(!delay_headers.is_empty(), "delay_header", waits);
        let limited = &[ErrorClass::Throttled, ErrorClass::QuotaExhausted];
        meaningless(block.limit.is_some(), "limit", limited);
        let remote_id = block.remote_id.as_slice();
        meaningless(!remote_id.is_empty(), "remote_id", &[ErrorClass::Duplicate]);
        meaningless(block.pause.is_some(), "pause", &[ErrorClass::Permission]);
        if let Some(name) = &block.limit
            && !limits.iter().any(|limit| limit.name == *name)
        {
            problems.add(key("limit"), TemplateError::NoSuchLimit(name.clone()));
        }
        let names = delay_headers.iter().map(|name| header_name(name));
        let delay_headers = problems.note(key("delay_header"), names.collect());
        let delay = block.delay.as_deref().map(duration).transpose();
        let delay = problems.note(key("delay"), delay);
        let remote_id = problems.note(key("remote_id"), patterns(remote_id, &["id"]));
        Some(RuleOutcome {
            class,
            limit: block.limit.clone(),
            delay_headers: delay_headers?,
            delay: delay?,
            remote_id: remote_id?,
            pause: block.pause.unwrap_or_default(),
        })
    }

    fn retry_after(&self, refusal: &Refusal<'_>) -> RetryAfter {
        let reply = refusal.reply;
        let told = self.delay_headers.iter().find_map(|name| {
            let text = reply.header(name)?;
            match RetryAfter::detect(text, reply.date.as_deref(), refusal.wall_now) {
                RetryAfter::BackOff => None,
                wait @ RetryAfter::Wait(_) => Some(wait),
            }
        });
        let fixed = || {
            self.delay
                .map(|delay| RetryAfter::Wait(delay.min(RETRY_AFTER_MAX)))
        };
        told.or_else(fixed).unwrap_or_else(|| refusal.told_wait())
    }
}

impl HeaderCondition {
    fn holds(&self, refusal: &Refusal<'_>) -> bool {
        let value = refusal.reply.header(&self.name);
        match &self.is {
            Some(is) => value.is_some_and(|value| value.trim().eq_ignore_ascii_case(is)),
            None => value.is_some(),
        }
    }
}

fn patterns(texts: &[String], places: &[&str]) -> Result<Vec<TextPattern>, TemplateError> {
    let patterns = texts.iter().map(|text| TextPattern::compile(text, places));
    patterns.collect()
}

fn status_range(status: &StatusKey) -> Result<RangeInclusive<u16>, TemplateError> {
    let range = match status {
        StatusKey::One(status) => Some(*status..=*status),
        StatusKey::Range(text) => text.split_once('-').and_then(|(from, to)| {
            let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
            (from <= to).then_some(from..=to)
        }),
    };
    let good = range.filter(|range| *range.start() >= 200 && *range.end() <= 599);
    good.ok_or_else(|| {
        TemplateError::NotAStatus(match status {
            StatusKey::One(status) => status.to_string(),
            StatusKey::Range(text) => text.clone(),
        })
    })
}

impl OfKey {
    fn about(self) -> About {
        match self {
            OfKey::Call => About::Call,
            OfKey::Batch => About::Batch,
            OfKey::Item => About::Item,
        }
    }
}
