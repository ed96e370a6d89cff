//! Faults an account can show, and the seeded dice that decide on each call.

use std::str::FromStr;
use std::time::Duration;

use crate::duration::{self, DurationError};

/// A fault with a chance per call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `reset_before`: the connection is reset, nothing was applied.
    ResetBefore,
    /// `reset_after`: the call is applied, then the connection is reset.
    ResetAfter,
    /// `401`: the credentials are refused.
    Unauthorized,
    /// `429`: throttled although no limit is exceeded, as when another client shares the account.
    Throttled,
    /// `5xx`: 500, 502, 503 or 504, nothing was applied.
    ServerError,
    /// `5xx_after`: the same answer, but the call was applied.
    ServerErrorAfter,
    /// `garbage`: applied, answered 200 with a page of HTML.
    Garbage,
    /// `late`: applied only when the answer is due, whether or not the caller still waits.
    Late,
    /// `slow`: answered `slow_for` later than other calls.
    Slow,
    /// `maintenance`: refused for a planned downtime, in the provider's words.
    Maintenance,
    /// `daily`: refused as when the day's calls are spent, although they are not.
    Daily,
    /// `empty`: a batch is answered as done, with no result in it, and nothing was written.
    Empty,
    /// `lock`: a record is locked by someone else (chance per record).
    Lock,
    /// `item_4xx`: a record of a batch is refused for good (chance per record).
    ItemRefused,
    /// `item_5xx`: a record of a batch fails, nothing of it is applied (chance per record).
    ItemFailed,
    /// `item_missing`: a record of a batch is applied but absent from the results (chance per
    /// record).
    ItemMissing,
    /// `item_lost`: a record of a batch is neither applied nor in the results (chance per record).
    ItemLost,
    /// `shuffle`: the results of a batch come in another order, where the provider keeps none.
    Shuffle,
    /// `hook_lost`: a change is not notified of.
    HookLost,
    /// `hook_repeat`: a change is notified of twice.
    HookRepeat,
    /// `hook_late`: a change is notified of seconds later, behind others.
    HookLate,
}

impl Fault {
    const ALL: [Self; 21] = [
        Self::ResetBefore,
        Self::ResetAfter,
        Self::Unauthorized,
        Self::Throttled,
        Self::ServerError,
        Self::ServerErrorAfter,
        Self::Garbage,
        Self::Late,
        Self::Slow,
        Self::Maintenance,
        Self::Daily,
        Self::Empty,
        Self::Lock,
        Self::ItemRefused,
        Self::ItemFailed,
        Self::ItemMissing,
        Self::ItemLost,
        Self::Shuffle,
        Self::HookLost,
        Self::HookRepeat,
        Self::HookLate,
    ];

    /// The name it is set by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ResetBefore => "reset_before",
            Self::ResetAfter => "reset_after",
            Self::Unauthorized => "401",
            Self::Throttled => "429",
            Self::ServerError => "5xx",
            Self::ServerErrorAfter => "5xx_after",
            Self::Garbage => "garbage",
            Self::Late => "late",
            Self::Slow => "slow",
            Self::Maintenance => "maintenance",
            Self::Daily => "daily",
            Self::Empty => "empty",
            Self::Lock => "lock",
            Self::ItemRefused => "item_4xx",
            Self::ItemFailed => "item_5xx",
            Self::ItemMissing => "item_missing",
            Self::ItemLost => "item_lost",
            Self::Shuffle => "shuffle",
            Self::HookLost => "hook_lost",
            Self::HookRepeat => "hook_repeat",
            Self::HookLate => "hook_late",
        }
    }
}

/// Settings as typed: `5xx=0.05,reset_before=0.01,latency=50ms`. What is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultSpec {
    settings: Vec<Setting>,
}

impl FaultSpec {
    /// These settings, then the other's on top.
    pub fn extend(&mut self, other: Self) {
        self.settings.extend(other.settings);
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Setting {
    Chance(Fault, f64),
    Latency(Duration),
    Jitter(Duration),
    SlowFor(Duration),
    Stale(Duration),
    RetryAfter(Duration),
    Poison(String),
    Forbid(String),
    Down(String),
}

/// Why a text does not set faults.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// A part without `=`.
    #[error("`{0}` is not NAME=VALUE")]
    Shape(String),
    /// A chance outside 0 to 1.
    #[error("`{0}` wants a chance from 0 to 1")]
    Chance(String),
    /// A fault this account does not know.
    #[error(
        "unknown fault `{0}`: chances are reset_before, reset_after, 401, 429, 5xx, 5xx_after, \
         garbage, late, slow, maintenance, daily, empty, lock, item_4xx, item_5xx, item_missing, \
         item_lost, shuffle, hook_lost, hook_repeat, hook_late; durations latency, jitter, slow_for, \
         stale, retry_after; and poison=PREFIX, forbid=OBJECT, down=PART"
    )]
    Unknown(String),
    /// The value is no duration.
    #[error("the fault's value")]
    Duration(#[from] DurationError),
}

impl FromStr for FaultSpec {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let settings = parts.map(Setting::from_str).collect::<Result<_, _>>()?;
        Ok(Self { settings })
    }
}

impl FromStr for Setting {
    type Err = FaultError;

    fn from_str(part: &str) -> Result<Self, FaultError> {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| FaultError::Shape(part.to_owned()))?;
        if let Some(fault) = Fault::ALL.into_iter().find(|fault| fault.name() == name) {
            let chance = value
                .parse()
                .ok()
                .filter(|chance| (0.0..=1.0).contains(chance));
            let chance = chance.ok_or_else(|| FaultError::Chance(part.to_owned()))?;
            return Ok(Self::Chance(fault, chance));
        }
        Ok(match name {
            "latency" => Self::Latency(duration::parse(value)?),
            "jitter" => Self::Jitter(duration::parse(value)?),
            "slow_for" => Self::SlowFor(duration::parse(value)?),
            "stale" => Self::Stale(duration::parse(value)?),
            "retry_after" => Self::RetryAfter(duration::parse(value)?),
            "poison" => Self::Poison(value.to_owned()),
            "forbid" => Self::Forbid(value.to_owned()),
            "down" => Self::Down(value.to_owned()),
            _ => return Err(FaultError::Unknown(name.to_owned())),
        })
    }
}

/// Faults in force at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    chances: [f64; Fault::ALL.len()],
    /// Every answer takes this long.
    latency: Duration,
    /// And up to this much longer, evenly spread.
    jitter: Duration,
    slow_for: Duration,
    /// For this long a look-up or search does not see what was written.
    pub(crate) stale: Duration,
    /// What an injected refusal asks for.
    pub(crate) retry_after: Duration,
    /// Writes to records whose external id starts so are refused for good.
    poison: Option<String>,
    /// The account lacks the rights for this object.
    forbid: Option<String>,
    /// Calls with this part in their path fail.
    down: Option<String>,
}

impl Default for Faults {
    fn default() -> Self {
        let mut chances = [0.0; Fault::ALL.len()];
        // A provider that keeps no order shows it from the first batch on.
        chances[Fault::Shuffle as usize] = 1.0;
        Self {
            chances,
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            slow_for: Duration::from_secs(5),
            stale: Duration::ZERO,
            retry_after: Duration::from_secs(1),
            poison: None,
            forbid: None,
            down: None,
        }
    }
}

impl Faults {
    /// Lays settings over these.
    pub(crate) fn apply(&mut self, spec: &FaultSpec) {
        for setting in &spec.settings {
            match setting {
                Setting::Chance(fault, chance) => self.chances[*fault as usize] = *chance,
                Setting::Latency(latency) => self.latency = *latency,
                Setting::Jitter(jitter) => self.jitter = *jitter,
                Setting::SlowFor(slow_for) => self.slow_for = *slow_for,
                Setting::Stale(stale) => self.stale = *stale,
                Setting::RetryAfter(after) => self.retry_after = *after,
                Setting::Poison(prefix) if prefix.is_empty() => self.poison = None,
                Setting::Poison(prefix) => self.poison = Some(prefix.clone()),
                Setting::Forbid(object) => {
                    self.forbid = Some(object.clone()).filter(|object| !object.is_empty());
                }
                Setting::Down(part) => {
                    self.down = Some(part.clone()).filter(|part| !part.is_empty());
                }
            }
        }
    }

    pub(crate) fn strikes(&self, fault: Fault, roll: Roll) -> bool {
        roll.chance(fault) < self.chances[fault as usize]
    }

    /// How long the call with this roll takes.
    pub(crate) fn delay(&self, roll: Roll) -> Duration {
        let slow = if self.strikes(Fault::Slow, roll) {
            self.slow_for
        } else {
            Duration::ZERO
        };
        self.latency + self.jitter.mul_f64(roll.spread()) + slow
    }

    pub(crate) fn poisons(&self, external_id: &str) -> bool {
        self.poison
            .as_ref()
            .is_some_and(|prefix| external_id.starts_with(prefix.as_str()))
    }

    /// By a part of the path, between two slashes.
    pub(crate) fn takes_down(&self, path: &str) -> bool {
        let path = path.split('?').next().unwrap_or_default();
        let down = self.down.as_deref();
        down.is_some_and(|down| path.split('/').any(|part| part == down))
    }

    /// By the provider's name of the object.
    pub(crate) fn forbids(&self, object: &str) -> bool {
        self.forbid.as_deref() == Some(object)
    }
}

/// The dice of one call. Each question has its own stream, so that the answer to one does not
/// depend on which other faults are switched on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Roll {
    base: u64,
}

impl Roll {
    pub(crate) fn of_call(seed: u64, seq: u64) -> Self {
        Self {
            base: mix(seed ^ mix(seq)),
        }
    }

    /// The dice for the `index`-th record of a batch.
    pub(crate) fn of_record(self, index: usize) -> Self {
        Self {
            base: mix(self.base ^ mix(!(index as u64))),
        }
    }

    fn chance(self, fault: Fault) -> f64 {
        unit(mix(self.base ^ (fault as u64 + 1)))
    }

    fn spread(self) -> f64 {
        unit(mix(self.base ^ 0x100))
    }

    /// Another order of the items, the same for the same call.
    pub(crate) fn shuffle<T>(self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let pick = mix(self.base ^ mix(0x200 + last as u64)) % (last as u64 + 1);
            items.swap(last, pick as usize);
        }
    }

    pub(crate) fn server_error(self) -> u16 {
        const STATUSES: [u16; 4] = [500, 502, 503, 504];
        STATUSES[(mix(self.base ^ 0x101) % 4) as usize]
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators, 2014): one step from a counter to well-spread bits.
fn mix(counter: u64) -> u64 {
    let z = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// 53 bits of fraction: from 0 up to, not including, 1.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Faults {
        let mut faults = Faults::default();
        faults.apply(&text.parse().unwrap());
        faults
    }

    #[test]
    fn a_part_of_the_path_goes_down_as_a_whole() {
        let faults = faults("down=lead");
        for (path, down) in [
            ("/lead", true),
            ("/lead/external/1?x=/", true),
            ("/leads/1", false),
            ("/contact?of=/lead", false),
        ] {
            assert_eq!(faults.takes_down(path), down, "{path}");
        }
    }

    #[test]
    fn the_example_of_the_help_text_is_read() {
        let faults = faults("5xx=0.05,reset_before=0.01,reset_after=0.02,latency=50ms");
        assert_eq!(faults.chances[Fault::ServerError as usize], 0.05);
        assert_eq!(faults.chances[Fault::ResetAfter as usize], 0.02);
        assert_eq!(faults.latency, Duration::from_millis(50));
    }

    #[test]
    fn what_is_no_fault_is_refused_by_name() {
        assert_eq!(
            "6xx=1".parse::<FaultSpec>(),
            Err(FaultError::Unknown("6xx".into()))
        );
        assert_eq!(
            "5xx".parse::<FaultSpec>(),
            Err(FaultError::Shape("5xx".into()))
        );
        for text in ["5xx=1.5", "5xx=-0.1", "5xx=x", "5xx=NaN"] {
            assert_eq!(
                text.parse::<FaultSpec>(),
                Err(FaultError::Chance(text.into()))
            );
        }
        assert!(matches!(
            "latency=5".parse::<FaultSpec>(),
            Err(FaultError::Duration(_))
        ));
    }

    #[test]
    fn every_fault_has_its_own_place_in_the_table() {
        for (place, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, place, "{}", fault.name());
        }
    }

    #[test]
    fn a_fault_strikes_as_often_as_its_chance() {
        let faults = faults("5xx=0.05,429=1,reset_after=0");
        let count = |fault| {
            (0..100_000)
                .filter(|seq| faults.strikes(fault, Roll::of_call(7, *seq)))
                .count()
        };
        let errors = count(Fault::ServerError);
        assert!(
            (4_700..5_300).contains(&errors),
            "{errors} of 100,000 at 5 %"
        );
        assert_eq!(count(Fault::Throttled), 100_000);
        assert_eq!(count(Fault::ResetAfter), 0);
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_reaches_every_place() {
        let mut first_places = [0; 3];
        for seq in 0..3_000 {
            let mut items = [0, 1, 2];
            Roll::of_call(5, seq).shuffle(&mut items);
            first_places[items[0]] += 1;
            items.sort_unstable();
            assert_eq!(items, [0, 1, 2]);
        }
        assert!(
            first_places.iter().all(|n| (900..1_100).contains(n)),
            "{first_places:?}"
        );
    }

    #[test]
    fn one_fault_does_not_move_another() {
        let alone = faults("5xx=0.3");
        let beside = faults("5xx=0.3,reset_before=0.5,latency=1ms");
        for seq in 0..1_000 {
            let roll = Roll::of_call(3, seq);
            assert_eq!(
                alone.strikes(Fault::ServerError, roll),
                beside.strikes(Fault::ServerError, roll)
            );
        }
    }
}
