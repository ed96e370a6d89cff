//! `[[limits]]`: what a provider allows, and where its replies say how much is left.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::file::LimitBlock;
use super::problems::Problems;
use super::text_pattern::TextPattern;
use super::{CallKind, Definition, Reply, RetryAfter, TemplateError};

/// One limit of a provider. An account's own limit of the same name replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitDefinition {
    /// Names it in error rules, settings and metrics.
    pub name: String,
    /// How the provider counts.
    pub kind: LimitKind,
    /// Calls, or units of cost; `None`: not known until a reply tells.
    pub limit: Option<u64>,
    /// The time over which the limit counts; none for [`LimitKind::Concurrency`].
    pub window: Option<Duration>,
    /// What a bucket holds, of [`LimitKind::TokenBucket`].
    pub burst: Option<u64>,
    /// Whose midnight a fixed day begins at: `UTC` or an offset such as `+02:00`.
    pub timezone: Option<String>,
    /// Whose calls count together.
    pub scope: LimitScope,
    /// The kinds of call that count; empty: all.
    pub operations: Vec<CallKind>,
    /// What a call of a kind takes of the limit; 1 where nothing is said.
    pub costs: Vec<(CallKind, u32)>,
    /// Per cent to leave to others by default.
    pub reserve_percent: u8,
    observe: Vec<Observed>,
}

/// How a provider counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// At most `limit` in any interval of this length.
    Sliding,
    /// As sliding; the provider forgets in steps.
    Rolling,
    /// At most `limit` between two boundaries of the provider's clock.
    Fixed,
    /// A bucket of `burst`, refilled at `limit` per `window`.
    TokenBucket,
    /// At most `limit` calls in flight.
    Concurrency,
    /// As fixed or sliding, each call weighing what it costs.
    Cost,
}

/// Whose calls count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitScope {
    /// All of the customer's applications: others spend from it too.
    Account,
    /// This application at this account.
    #[default]
    App,
    /// The user whose credentials are used.
    User,
    /// This access token.
    Token,
}

/// What a reply said of a limit. Every part may be missing, and none is more than a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitReading<'d> {
    /// The limit's name.
    pub limit: &'d str,
    /// Spent in the window.
    pub used: Option<u64>,
    /// Left in the window.
    pub remaining: Option<u64>,
    /// The limit itself.
    pub max: Option<u64>,
    /// The window's length.
    pub window: Option<Duration>,
    /// Until the window turns.
    pub resets_in: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Observed {
    header: String,
    pattern: TextPattern,
}

/// What a pattern may read out of a header.
const PLACES: &[&str] = &["used", "remaining", "max", "window_s", "window_ms", "reset"];

/// A bound for what a file may claim: calls of a year at the fastest known rate fit many times.
const LIMIT_MAX: u64 = 1_000_000_000_000;

impl Definition {
    /// What the reply to a call of this kind tells of the limits that count it, as far as the
    /// definition knows where to look.
    pub fn observe(
        &self,
        kind: CallKind,
        reply: &Reply,
        wall_now: Timestamp,
    ) -> Vec<LimitReading<'_>> {
        let counts = |limit: &&LimitDefinition| {
            limit.operations.is_empty() || limit.operations.contains(&kind)
        };
        let limits = self.limits().iter().filter(counts);
        let readings = limits.map(|limit| limit.read(reply, wall_now));
        readings.flatten().collect()
    }
}

impl LimitDefinition {
    pub(crate) fn compile(
        index: usize,
        block: &LimitBlock,
        problems: &mut Problems,
    ) -> LimitDefinition {
        let key = |member: &str| format!("limits[{index}].{member}");
        let counts_time = block.kind != LimitKind::Concurrency;
        let window = block.window.as_deref().map(duration).transpose();
        let window = problems.note(key("window"), window).flatten();
        // A limit that nobody knows yet is one that replies tell of.
        let told = block
            .observe
            .iter()
            .any(|observe| observe.pattern.contains("{max}"));
        let mut missing = |wrong: bool, member: &'static str| {
            if wrong {
                problems.add(key(member), TemplateError::Missing(member));
            }
        };
        missing(block.limit.is_none() && !told, "limit");
        missing(
            counts_time && block.window.is_none() && block.limit.is_some(),
            "window",
        );
        missing(
            block.kind == LimitKind::TokenBucket && block.burst.is_none(),
            "burst",
        );
        let mut meaningless = |wrong: bool, member: &'static str| {
            if wrong {
                problems.add(key(member), TemplateError::Meaningless(member));
            }
        };
        meaningless(!counts_time && block.window.is_some(), "window");
        meaningless(
            block.kind != LimitKind::TokenBucket && block.burst.is_some(),
            "burst",
        );
        meaningless(
            block.kind != LimitKind::Fixed && block.timezone.is_some(),
            "timezone",
        );
        if let Some(limit) = block.limit.filter(|limit| !(1..=LIMIT_MAX).contains(limit)) {
            problems.add(key("limit"), TemplateError::OutOfRange(limit, LIMIT_MAX));
        }
        if block.reserve_percent > 99 {
            let found = u64::from(block.reserve_percent);
            problems.add(key("reserve_percent"), TemplateError::OutOfRange(found, 99));
        }
        let observe = block
            .observe
            .iter()
            .enumerate()
            .filter_map(|(at, observe)| {
                let key = format!("limits[{index}].observe[{at}]");
                let header = header_name(&observe.header);
                let header = problems.note(format!("{key}.header"), header);
                let pattern = TextPattern::compile(&observe.pattern, PLACES);
                let pattern = problems.note(format!("{key}.pattern"), pattern);
                Some(Observed {
                    header: header?,
                    pattern: pattern?,
                })
            });
        let observe = observe.collect();
        LimitDefinition {
            name: block.name.clone(),
            kind: block.kind,
            limit: block.limit,
            window,
            burst: block.burst,
            timezone: block.timezone.clone(),
            scope: block.scope,
            operations: block.operations.clone(),
            costs: costs(index, &block.costs, problems),
            reserve_percent: block.reserve_percent,
            observe,
        }
    }

    /// The headers it is read from.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &str> {
        self.observe.iter().map(|observed| observed.header.as_str())
    }

    fn read(&self, reply: &Reply, wall_now: Timestamp) -> Option<LimitReading<'_>> {
        let text = |place: &str| {
            let mut observe = self.observe.iter();
            observe.find_map(|observed| {
                observed
                    .pattern
                    .read(reply.header(&observed.header)?, place)
            })
        };
        let number = |place: &str| text(place)?.parse::<u64>().ok();
        let seconds = || number("window_s").map(Duration::from_secs);
        let reset = text("reset").map(|reset| {
            match RetryAfter::detect(reset, reply.date.as_deref(), wall_now) {
                RetryAfter::Wait(wait) => Some(wait),
                RetryAfter::BackOff => None,
            }
        });
        let reading = LimitReading {
            limit: &self.name,
            used: number("used"),
            remaining: number("remaining"),
            max: number("max"),
            window: number("window_ms")
                .map(Duration::from_millis)
                .or_else(seconds),
            resets_in: reset.flatten(),
        };
        let says_something = reading.used.is_some()
            || reading.remaining.is_some()
            || reading.max.is_some()
            || reading.window.is_some()
            || reading.resets_in.is_some();
        says_something.then_some(reading)
    }
}

fn costs(
    index: usize,
    block: &BTreeMap<String, u32>,
    problems: &mut Problems,
) -> Vec<(CallKind, u32)> {
    let costs = block.iter().filter_map(|(name, cost)| {
        let mut kinds = CallKind::ALL.into_iter();
        let kind = kinds.find(|kind| kind.as_str() == name);
        if kind.is_none() {
            let key = format!("limits[{index}].costs.{name}");
            problems.add(key, TemplateError::NotAnOperation(name.clone()));
        }
        Some((kind?, *cost))
    });
    costs.collect()
}

/// A header's name as replies are asked for it: lower case, the characters of RFC 9110.
pub(crate) fn header_name(text: &str) -> Result<String, TemplateError> {
    let good =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if text.is_empty() || text.len() > 128 || !text.bytes().all(good) {
        return Err(TemplateError::NotAHeader(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// `500ms`, `10s`, `15m`, `24h`, `365d`.
pub(crate) fn duration(text: &str) -> Result<Duration, TemplateError> {
    let wrong = || TemplateError::NotADuration(text.to_owned());
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let ms = number
        .checked_mul(unit_ms)
        .filter(|&ms| ms > 0 && ms <= DURATION_MS_MAX);
    ms.map(Duration::from_millis).ok_or_else(wrong)
}

/// Ten years: longer is a slip of the pen.
const DURATION_MS_MAX: u64 = 10 * 366 * 86_400_000;
