//! `[[providers.NAME.limits]]`: what a provider allows, and how it counts.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use engine::provider::{CallKind, LimitDefinition, LimitKind as DefinedKind};
use engine::quota::{Limit, Policy, Reserve, Weights};
use jiff::tz::{Offset, TimeZone};
use serde::Deserialize;

use super::provider::ProviderSettings;
use super::quantity;

/// One window, or one count of calls in flight.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "LimitKeys")]
pub struct LimitSettings {
    /// Names it in metrics and answers.
    pub name: String,
    /// Calls, or units of cost, that the provider allows.
    pub limit: NonZeroU64,
    /// How the provider counts.
    pub kind: LimitKind,
    /// Who and what shares one count.
    pub scope: LimitScope,
    /// Which calls count, and for how much.
    pub weights: Weights,
    /// What of it is kept back; of polls' part see `reserve_polls`.
    pub reserve: Reserve,
    /// What is kept for polls, in thousandths, if the account is asked for lists of changes; absent:
    /// 20 of a limit of an hour or more.
    pub reserve_polls: Option<u16>,
}

/// Kept for polls of a limit of an hour or more: what is used up for long must not be used up by
/// records alone, or nobody hears of changes until it is back.
pub(super) const POLLS_PERMILLE: u16 = 20;
/// Shorter windows come back before it matters.
const POLLS_WINDOW_MIN: Duration = Duration::from_secs(3600);

/// How a provider counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitKind {
    /// At most `limit` in any interval of this length.
    Sliding(Duration),
    /// As sliding, by a provider that forgets in steps: a call may count for a step longer.
    Rolling {
        /// The interval.
        window: Duration,
        /// How coarsely the provider forgets; zero for as sliding.
        step: Duration,
    },
    /// At most `limit` between two boundaries of the provider's clock.
    Fixed {
        /// From one boundary to the next.
        window: Duration,
        /// Whose midnight a day starts at.
        timezone: TimeZone,
    },
    /// A bucket of `burst`, refilled at `limit` per `window`.
    TokenBucket {
        /// The time `limit` tokens take to come.
        window: Duration,
        /// Tokens the bucket holds.
        burst: NonZeroU64,
    },
    /// At most `limit` calls in flight.
    Concurrency,
    /// As sliding, each call weighing what its operation costs.
    Cost(Duration),
}

/// What one count of a limit covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitScope {
    /// All calls to the account, those of other applications included.
    #[default]
    Account,
    /// Our calls alone: the provider counts each application by itself.
    App,
    /// The calls of the user we are there, whichever application makes them.
    User,
    /// Each operation (create, update, look-up …) has a count of its own.
    Endpoint,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitKeys {
    name: String,
    kind: String,
    limit: NonZeroU64,
    #[serde(default, deserialize_with = "quantity::some_duration")]
    window: Option<Duration>,
    #[serde(default, deserialize_with = "quantity::some_duration")]
    step: Option<Duration>,
    burst: Option<NonZeroU64>,
    timezone: Option<String>,
    #[serde(default)]
    scope: LimitScope,
    #[serde(default)]
    applies_to: AppliesTo,
    #[serde(default)]
    costs: BTreeMap<String, u32>,
    #[serde(default)]
    reserve: f64,
    #[serde(default)]
    reserve_priority: f64,
    reserve_polls: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AppliesTo {
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    not_tags: Vec<String>,
}

impl LimitSettings {
    /// A limit of the whole account that counts every call as one.
    pub fn new(name: impl Into<String>, limit: NonZeroU64, kind: LimitKind) -> Self {
        Self {
            name: name.into(),
            limit,
            kind,
            scope: LimitScope::default(),
            weights: Weights::default(),
            reserve: Reserve::default(),
            reserve_polls: None,
        }
    }

    /// What a definition says of its provider; `None` when it does not say how much is allowed.
    fn of_definition(definition: &LimitDefinition) -> Option<Self> {
        let limit = NonZeroU64::new(definition.limit?)?;
        let window = definition.window;
        let kind = match definition.kind {
            DefinedKind::Sliding | DefinedKind::Cost => LimitKind::Sliding(window?),
            DefinedKind::Rolling => LimitKind::Rolling {
                window: window?,
                step: Duration::ZERO,
            },
            DefinedKind::Fixed => match &definition.timezone {
                Some(timezone) => LimitKind::Fixed {
                    window: window?,
                    timezone: zone(timezone).ok()?,
                },
                // Wherever the provider's windows begin, a sliding one is never over them.
                None => LimitKind::Sliding(window?),
            },
            DefinedKind::TokenBucket => LimitKind::TokenBucket {
                window: window?,
                burst: definition.burst.and_then(NonZeroU64::new).unwrap_or(limit),
            },
            DefinedKind::Concurrency => LimitKind::Concurrency,
        };
        let mut settings = Self::new(&definition.name, limit, kind);
        let word = |kind: CallKind| kind.as_str().to_owned();
        settings.weights.only = definition.operations.iter().copied().map(word).collect();
        let costs = definition.costs.iter();
        settings.weights.costs = costs.map(|&(kind, cost)| (word(kind), cost)).collect();
        settings.reserve.others_permille = u16::from(definition.reserve_percent) * 10;
        Some(settings)
    }

    /// The limits that the engine keeps: one, or one for each operation. `polls`: the account is
    /// asked for lists of changes.
    pub fn limits(&self, polls: bool) -> Vec<Limit> {
        let mut reserve = self.reserve;
        if polls {
            let usual = self.usually_kept_for_polls();
            reserve.polls_permille = self.reserve_polls.unwrap_or(usual);
        }
        let whole = Limit {
            name: self.name.clone(),
            policy: self.policy(),
            weights: self.weights.clone(),
            reserve,
        };
        if self.scope != LimitScope::Endpoint {
            return vec![whole];
        }
        let one = |kind: CallKind| {
            let mut limit = whole.clone();
            limit.name = format!("{}.{}", self.name, kind.as_str());
            limit.weights.only = vec![kind.as_str().to_owned()];
            limit
        };
        CallKind::ALL.into_iter().map(one).collect()
    }

    fn usually_kept_for_polls(&self) -> u16 {
        let window = match &self.kind {
            LimitKind::Sliding(window) | LimitKind::Cost(window) => *window,
            LimitKind::Rolling { window, .. } | LimitKind::Fixed { window, .. } => *window,
            LimitKind::TokenBucket { .. } | LimitKind::Concurrency => return 0,
        };
        let counts_all = self.scope != LimitScope::Endpoint && self.weights.only.is_empty();
        match counts_all && window >= POLLS_WINDOW_MIN {
            true => POLLS_PERMILLE,
            false => 0,
        }
    }

    fn policy(&self) -> Policy {
        let count = |value: NonZeroU64| u32::try_from(value.get()).unwrap_or(u32::MAX);
        let limit = count(self.limit);
        match &self.kind {
            LimitKind::Sliding(window) | LimitKind::Cost(window) => Policy::Sliding {
                limit,
                window: *window,
            },
            LimitKind::Rolling { window, step } => Policy::Sliding {
                limit,
                window: window.saturating_add(*step),
            },
            LimitKind::Fixed { window, timezone } => Policy::Fixed {
                limit,
                window: *window,
                zone: timezone.clone(),
            },
            LimitKind::TokenBucket { window, burst } => Policy::TokenBucket {
                burst: count(*burst),
                refill: limit,
                period: *window,
            },
            LimitKind::Concurrency => Policy::Concurrency { limit },
        }
    }
}

/// The limits an account is kept to: its own, and those of its definition whose names it does
/// not use. A limit of a definition that nobody knows the size of is left out. `polls`: the account
/// is asked for lists of changes.
pub fn limits_of(
    provider: &ProviderSettings,
    shipped: &[LimitDefinition],
    polls: bool,
) -> Vec<Limit> {
    let own = &provider.limits;
    let replaced = |limit: &&LimitDefinition| own.iter().any(|own| own.name == limit.name);
    let shipped = shipped.iter().filter(|limit| !replaced(limit));
    let shipped = shipped.filter_map(LimitSettings::of_definition);
    let all = own.iter().cloned().chain(shipped);
    all.flat_map(|limit| limit.limits(polls)).collect()
}

impl TryFrom<LimitKeys> for LimitSettings {
    type Error = String;

    fn try_from(keys: LimitKeys) -> Result<LimitSettings, String> {
        let LimitKeys {
            name,
            kind,
            limit,
            window,
            step,
            burst,
            timezone,
            scope,
            applies_to,
            costs,
            reserve,
            reserve_priority,
            reserve_polls,
        } = keys;
        let named = |key: &str| format!("limit `{name}` of kind \"{kind}\" takes no `{key}`");
        let window_of = || {
            window.ok_or_else(|| {
                format!("limit `{name}` of kind \"{kind}\" needs a `window` such as \"1s\"")
            })
        };
        if kind != "token_bucket" && burst.is_some() {
            return Err(named("burst"));
        }
        if kind != "fixed" && timezone.is_some() {
            return Err(named("timezone"));
        }
        if kind != "rolling" && step.is_some() {
            return Err(named("step"));
        }
        let kind = match kind.as_str() {
            "sliding" => LimitKind::Sliding(window_of()?),
            "rolling" => LimitKind::Rolling {
                window: window_of()?,
                step: step.unwrap_or_default(),
            },
            "fixed" => LimitKind::Fixed {
                window: window_of()?,
                timezone: zone(timezone.as_deref().unwrap_or("UTC"))?,
            },
            "token_bucket" => LimitKind::TokenBucket {
                window: window_of()?,
                burst: burst.unwrap_or(limit),
            },
            "concurrency" if window.is_some() => return Err(named("window")),
            "concurrency" => LimitKind::Concurrency,
            "cost" => LimitKind::Cost(window_of()?),
            _ => {
                return Err(format!(
                    "unknown limit kind \"{kind}\": expected sliding, rolling, fixed, \
                     token_bucket, concurrency or cost"
                ));
            }
        };
        let AppliesTo { tags, not_tags } = applies_to;
        if scope == LimitScope::Endpoint && !tags.is_empty() {
            return Err(format!(
                "limit `{name}` of scope \"endpoint\" is for every operation: it takes no \
                 `applies_to.tags`"
            ));
        }
        let mut settings = LimitSettings::new(name, limit, kind);
        settings.scope = scope;
        settings.weights = Weights {
            only: tags,
            except: not_tags,
            costs,
        };
        settings.reserve = Reserve {
            others_permille: permille("reserve", reserve)?,
            urgent_permille: permille("reserve_priority", reserve_priority)?,
            polls_permille: 0,
        };
        if scope == LimitScope::Endpoint && reserve_polls.is_some() {
            return Err(format!(
                "limit `{}` of scope \"endpoint\" counts lists of changes by themselves: it takes \
                 no `reserve_polls`",
                settings.name
            ));
        }
        let polls = reserve_polls.map(|share| permille("reserve_polls", share));
        settings.reserve_polls = polls.transpose()?;
        Ok(settings)
    }
}

/// `UTC`, `+02:00`, or a zone by its name in the IANA database.
fn zone(text: &str) -> Result<TimeZone, String> {
    if let Some(offset) = fixed_offset(text) {
        return Ok(TimeZone::fixed(offset));
    }
    TimeZone::get(text).map_err(|_| {
        format!(
            "unknown time zone \"{text}\": expected \"UTC\", an offset such as \"+02:00\" or a \
             name such as \"Europe/Berlin\""
        )
    })
}

/// `+02:00`, to 14 hours either way.
fn fixed_offset(text: &str) -> Option<Offset> {
    let [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = *text.as_bytes() else {
        return None;
    };
    let two = |tens: u8, ones: u8| {
        let digits = tens.is_ascii_digit() && ones.is_ascii_digit();
        digits.then(|| i32::from(tens - b'0') * 10 + i32::from(ones - b'0'))
    };
    let (hours, minutes) = (two(h1, h2)?, two(m1, m2)?);
    if minutes >= 60 || hours * 60 + minutes > 14 * 60 {
        return None;
    }
    let seconds = (hours * 60 + minutes) * 60;
    Offset::from_seconds(if sign == b'-' { -seconds } else { seconds }).ok()
}

/// A share from 0 to below 1 in thousandths, rounded up.
fn permille(key: &str, share: f64) -> Result<u16, String> {
    if (0.0..1.0).contains(&share) {
        // Below 1000 by the check, so that nothing is cut off.
        Ok((share * 1000.0).ceil() as u16)
    } else {
        Err(format!(
            "`{key}` is a share from 0 to below 1, found {share}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LimitSettings, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_daily_quota_is_aligned_to_a_zones_midnight_and_keeps_a_reserve() {
        let daily = read(
            "name = \"daily\"\nkind = \"fixed\"\nlimit = 250000\nwindow = \"1d\"\n\
             timezone = \"Europe/Berlin\"\nreserve = 0.1\nreserve_priority = 0.05",
        );
        let limits = daily.expect("a limit").limits(false);
        let Policy::Fixed { zone, .. } = &limits[0].policy else {
            panic!("{limits:?}");
        };
        assert_eq!(zone.iana_name(), Some("Europe/Berlin"));
        let reserve = limits[0].reserve;
        assert_eq!(
            (reserve.others_permille, reserve.urgent_permille),
            (100, 50)
        );
    }

    #[test]
    fn something_of_a_limit_that_lasts_is_kept_for_polls_where_there_are_some() {
        let kept = |keys: &str, polls: bool| {
            let text = format!("name = \"a\"\nkind = \"sliding\"\nlimit = 5000\n{keys}");
            let limits = read(&text).expect("a limit").limits(polls);
            limits[0].reserve.polls_permille
        };
        for (keys, expected) in [
            ("window = \"1h\"", POLLS_PERMILLE),
            ("window = \"59m\"", 0),
            ("window = \"1d\"\nreserve_polls = 0", 0),
            ("window = \"1s\"\nreserve_polls = 0.1", 100),
            ("window = \"1d\"\nscope = \"endpoint\"", 0),
            ("window = \"1d\"\napplies_to = { tags = [\"search\"] }", 0),
        ] {
            assert_eq!(kept(keys, true), expected, "{keys}");
            assert_eq!(kept(keys, false), 0, "{keys}");
        }
        let text = "name = \"a\"\nkind = \"sliding\"\nlimit = 5\nwindow = \"1d\"\n\
                    scope = \"endpoint\"\nreserve_polls = 0.1";
        assert!(read(text).expect_err("refused").contains("reserve_polls"));
    }

    #[test]
    fn searches_and_costs_are_told_by_tags() {
        let limit = read(
            "name = \"tokens\"\nkind = \"cost\"\nlimit = 100\nwindow = \"2s\"\n\
             applies_to = { not_tags = [\"bulk\"] }\ncosts = { lookup = 2, search = 40 }",
        );
        let weights = limit.expect("a limit").weights;
        assert_eq!(weights.except, ["bulk"]);
        assert_eq!(weights.costs["search"], 40);
    }

    #[test]
    fn a_limit_of_each_endpoint_becomes_one_for_each_operation() {
        let text =
            "name = \"a\"\nkind = \"sliding\"\nlimit = 5\nwindow = \"1s\"\nscope = \"endpoint\"";
        let limits = read(text).expect("a limit").limits(true);
        assert_eq!(limits.len(), CallKind::ALL.len());
        assert_eq!(limits[0].name, "a.create");
        assert_eq!(limits[0].weights.only, ["create"]);
    }

    #[test]
    fn a_provider_that_forgets_in_steps_is_given_a_step_more() {
        let text = "name = \"a\"\nkind = \"rolling\"\nlimit = 5\nwindow = \"10s\"\nstep = \"1s\"";
        let limits = read(text).expect("a limit").limits(true);
        let window = Duration::from_secs(11);
        assert_eq!(limits[0].policy, Policy::Sliding { limit: 5, window });
    }

    #[test]
    fn every_limit_of_a_shipped_definition_can_be_kept() {
        for id in engine::provider::shipped_ids() {
            let text = engine::provider::shipped(id).expect("shipped");
            let definition = engine::provider::Definition::parse(text).expect(id);
            for limit in definition.limits().iter().filter(|l| l.limit.is_some()) {
                let settings = LimitSettings::of_definition(limit);
                assert!(settings.is_some(), "{id}: {}", limit.name);
            }
        }
    }

    #[test]
    fn zones_are_offsets_or_names() {
        for (text, seconds) in [("UTC", 0), ("+05:30", 19_800), ("-14:00", -50_400)] {
            let offset = zone(text).expect(text).to_fixed_offset().expect("fixed");
            assert_eq!(offset.seconds(), seconds, "{text}");
        }
        for text in ["+14:01", "+1:00", "02:00", "Mars/Olympus", "+02:60", ""] {
            assert!(zone(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_out_of_range_are_refused() {
        for share in ["1.0", "-0.1", "nan"] {
            let text = format!(
                "name = \"a\"\nkind = \"sliding\"\nlimit = 5\nwindow = \"1s\"\nreserve = {share}"
            );
            assert!(read(&text).expect_err(share).contains("a share from 0"));
        }
    }
}
