//! `[[providers.NAME.limits]]`: what a provider allows, and how it counts.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::Deserialize;

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
}

/// How a provider counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitKind {
    /// At most `limit` in any interval of this length.
    Sliding(Duration),
    /// As sliding, the provider forgets in steps.
    Rolling(Duration),
    /// At most `limit` between two boundaries of the provider's clock.
    Fixed {
        /// From one boundary to the next.
        window: Duration,
        /// Whose midnight a day starts at: `UTC` or an offset such as `+02:00`.
        timezone: String,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitKeys {
    name: String,
    kind: String,
    limit: NonZeroU64,
    #[serde(default, deserialize_with = "quantity::some_duration")]
    window: Option<Duration>,
    burst: Option<NonZeroU64>,
    timezone: Option<String>,
}

impl TryFrom<LimitKeys> for LimitSettings {
    type Error = String;

    fn try_from(keys: LimitKeys) -> Result<LimitSettings, String> {
        let LimitKeys {
            name,
            kind,
            limit,
            window,
            burst,
            timezone,
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
        let kind = match kind.as_str() {
            "sliding" => LimitKind::Sliding(window_of()?),
            "rolling" => LimitKind::Rolling(window_of()?),
            "fixed" => LimitKind::Fixed {
                window: window_of()?,
                timezone: timezone.unwrap_or_else(|| "UTC".to_owned()),
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
        Ok(LimitSettings { name, limit, kind })
    }
}
