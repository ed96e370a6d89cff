//! The settings of an account that can be changed at run time.

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use engine::rules::Share;
use net::egress::{AddressPolicy, Origin};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::added_account::{BURST_NAME, MINUTE, RATE_NAME, counts_minutes};
use crate::settings::{LimitKind, LimitSettings, ObjectSwitch, ProviderSettings, parse_duration};

/// Longest time for one call; longer ones are a mistake, and hold their slot all the time.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Longest wait for a batch to fill.
const FLUSH_MAX: Duration = Duration::from_secs(3600);

/// One setting. The names are the API's and the file's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Member {
    RateLimitPerMinute,
    BatchSize,
    FlushInterval,
    MaxInFlight,
    Timeout,
    BaseUrl,
    Paused,
    Enabled,
    Share,
}

impl Member {
    const ALL: [Self; 9] = [
        Self::RateLimitPerMinute,
        Self::BatchSize,
        Self::FlushInterval,
        Self::MaxInFlight,
        Self::Timeout,
        Self::BaseUrl,
        Self::Paused,
        Self::Enabled,
        Self::Share,
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|member| member.as_str() == name)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::RateLimitPerMinute => RATE_NAME,
            Self::BatchSize => "batch_size",
            Self::FlushInterval => "flush_interval",
            Self::MaxInFlight => "max_in_flight",
            Self::Timeout => "timeout",
            Self::BaseUrl => "base_url",
            Self::Paused => "paused",
            Self::Enabled => "enabled",
            Self::Share => "share",
        }
    }

    /// What is wrong with a value for it.
    pub(crate) fn check(self, value: &Value, addresses: &AddressPolicy) -> Result<(), String> {
        let sound = match self {
            Self::RateLimitPerMinute | Self::BatchSize | Self::MaxInFlight => {
                return count(value)
                    .map(drop)
                    .ok_or_else(|| format!("expected a whole number from 1 to {}", u32::MAX));
            }
            Self::FlushInterval => duration(value).is_some_and(|wait| wait <= FLUSH_MAX),
            Self::Timeout => duration(value)
                .is_some_and(|timeout| timeout > Duration::ZERO && timeout <= TIMEOUT_MAX),
            Self::BaseUrl => return base_url(value, addresses),
            Self::Share => {
                return share(value)
                    .map(drop)
                    .ok_or_else(|| "expected a share from 0 to 1".to_owned());
            }
            Self::Paused | Self::Enabled => {
                return value
                    .is_boolean()
                    .then_some(())
                    .ok_or_else(|| "expected true or false".to_owned());
            }
        };
        sound
            .then_some(())
            .ok_or_else(|| "expected a duration such as \"30s\", up to an hour".to_owned())
    }

    /// Lays a checked value over an account's settings.
    pub(crate) fn apply(self, value: &Value, provider: &mut ProviderSettings) {
        let account = &mut provider.account;
        match self {
            Self::RateLimitPerMinute => {
                if let Some(limit) = count(value) {
                    per_minute(provider, limit);
                }
            }
            Self::BatchSize => account.batch.max_items = count(value).or(account.batch.max_items),
            Self::FlushInterval => {
                account.batch.max_wait = duration(value).unwrap_or(account.batch.max_wait);
            }
            Self::MaxInFlight => {
                account.max_in_flight = count(value).unwrap_or(account.max_in_flight);
            }
            Self::Timeout => account.timeout = duration(value).unwrap_or(account.timeout),
            Self::BaseUrl => {
                if let Some(url) = value.as_str() {
                    account.base_url = Some(url.to_owned());
                }
            }
            Self::Share => account.share = share(value).unwrap_or(account.share),
            Self::Enabled => account.enabled = value.as_bool().unwrap_or(account.enabled),
            // Told to the shards, see `Tuning::is_suspended`.
            Self::Paused => {}
        }
    }

    /// Whether it can be set for one object of an account.
    pub(crate) fn is_of_objects(self) -> bool {
        matches!(self, Self::Enabled | Self::Share)
    }

    /// Lays a checked value over what an account's mapping of an object says.
    pub(crate) fn apply_to_object(self, value: &Value, switch: &mut ObjectSwitch) {
        match self {
            Self::Enabled => switch.enabled = value.as_bool(),
            Self::Share => switch.share = share(value),
            _ => debug_assert!(false, "only what is of objects is kept for one"),
        }
    }
}

fn count(value: &Value) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(value.as_u64()?).ok()?)
}

fn share(value: &Value) -> Option<Share> {
    Share::new(value.as_f64()?)
}

fn duration(value: &Value) -> Option<Duration> {
    parse_duration(value.as_str()?)
}

/// Takes the place of every limit that counts over a minute; longer and shorter ones stay.
fn per_minute(provider: &mut ProviderSettings, limit: NonZeroU32) {
    let rate = NonZeroU64::from(limit);
    provider
        .limits
        .retain(|limit| limit.name == BURST_NAME || !counts_minutes(&limit.kind));
    // The bucket beside the rate goes on, and is refilled at the new rate.
    for bucket in provider
        .limits
        .iter_mut()
        .filter(|limit| limit.name == BURST_NAME && counts_minutes(&limit.kind))
    {
        bucket.limit = rate;
    }
    let rate = LimitSettings::new(RATE_NAME, rate, LimitKind::Sliding(MINUTE));
    provider.limits.push(rate);
}

/// An address in the URL is judged here, one that a name leads to when it is connected to.
fn base_url(value: &Value, addresses: &AddressPolicy) -> Result<(), String> {
    admitted(value.as_str().ok_or("expected a URL")?, addresses)
}

/// Whether the API may have this URL called.
pub(crate) fn admitted(url: &str, addresses: &AddressPolicy) -> Result<(), String> {
    let origin = Origin::parse(url).map_err(|error| error.to_string())?;
    let host = origin.host().trim_start_matches('[').trim_end_matches(']');
    let literal: Option<IpAddr> = host.parse().ok();
    if literal.is_some_and(|address| !addresses.admits(address)) {
        return Err(
            "the API may not send calls to a private address; see [egress] allow".to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_member_is_found_by_its_name_in_the_api_and_on_disk() {
        for member in Member::ALL {
            assert_eq!(Member::named(member.as_str()), Some(member));
            assert_eq!(json!(member), member.as_str());
        }
    }

    #[test]
    fn values_are_judged_by_what_they_are_for() {
        let addresses = AddressPolicy::Public {
            allow: vec!["10.1.0.0/16".parse().unwrap()],
            loopback: false,
        };
        for (member, value, sound) in [
            (Member::RateLimitPerMinute, json!(600), true),
            (Member::RateLimitPerMinute, json!(0), false),
            (Member::RateLimitPerMinute, json!("600"), false),
            (Member::BatchSize, json!(1.5), false),
            (Member::FlushInterval, json!("50ms"), true),
            (Member::FlushInterval, json!(50), false),
            (Member::Timeout, json!("2h"), false),
            (Member::Paused, json!("yes"), false),
            (Member::Enabled, json!(false), true),
            (Member::Share, json!(0.1), true),
            (Member::Share, json!(0), true),
            (Member::Share, json!(1.5), false),
            (Member::Share, json!("0.1"), false),
            (Member::BaseUrl, json!("https://api.example.com"), true),
            (Member::BaseUrl, json!("http://10.1.2.3:80"), true),
            (Member::BaseUrl, json!("http://10.2.2.3"), false),
            (Member::BaseUrl, json!("http://127.0.0.1:9100"), false),
            (Member::BaseUrl, json!("http://[::1]:9100"), false),
            (Member::BaseUrl, json!("ftp://x"), false),
        ] {
            let checked = member.check(&value, &addresses);
            assert_eq!(checked.is_ok(), sound, "{member:?} {value}: {checked:?}");
        }
    }
}
