//! What the account asks of the provider it plays: the words are the provider's, the limits,
//! faults and books are the account's.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Map, Value};

use crate::exchange::Reply;
use crate::fault::{Fault, Faults, Roll};
use crate::limit::{CallClass, Limit, LimitSet};
use crate::open_writes::RecordKey;
use crate::record::{Record, RemoteId};
use crate::target;
use crate::webhook::Deliveries;

/// A provider's model: its records, its tokens and how it speaks.
pub(crate) trait Provider: fmt::Debug + Send {
    /// The limits that it has unless others are typed.
    fn limits(&self) -> Vec<Limit> {
        Vec::new()
    }

    /// Faults that are in its nature, such as an index that lags; as typed.
    fn nature(&self) -> &'static str {
        ""
    }

    /// What a call is about, told before anything of it is done.
    fn subject(&self, call: &RawCall) -> Subject;

    /// Looks at the caller's credentials.
    ///
    /// # Errors
    /// The reply to a caller who may not come in; it counts against no limit.
    fn admit(&mut self, scene: &Scene<'_>, call: &RawCall) -> Result<(), Reply>;

    /// Carries a call out.
    fn carry_out(&mut self, scene: &Scene<'_>, call: &RawCall) -> Reply;

    /// Says no for a reason that lies outside of the request.
    fn refuse(&self, refusal: &Refusal<'_>) -> Reply;

    /// Adds what stands on every reply.
    fn stamp(&self, limits: &LimitSet, now: Duration, class: CallClass, reply: &mut Reply) {
        let _ = (limits, now, class, reply);
    }

    /// Every live record with its object and id, in the order of objects and ids.
    fn records(&self) -> Box<dyn Iterator<Item = (&str, RemoteId, &Record)> + '_>;

    /// Creates that made a second live record of one external id.
    fn duplicate_creates(&self) -> u64;

    /// A change made by somebody else at the provider.
    ///
    /// # Errors
    /// A sentence that says why not; nothing has changed.
    fn edit(&mut self, scene: &Scene<'_>, edit: &Edit) -> Result<RemoteId, &'static str>;

    /// Every access token handed out so far is worth nothing from now on.
    fn expire_tokens(&mut self);

    /// Its notifications, when it sends any.
    fn deliveries(&self) -> Option<&Deliveries> {
        None
    }

    /// The same, to be sent.
    fn deliveries_mut(&mut self) -> Option<&mut Deliveries> {
        None
    }
}

/// A request with its headers, owned so that it can take effect later.
#[derive(Debug, Clone)]
pub(crate) struct RawCall {
    pub(crate) method: Method,
    /// Path and query, as on the request line.
    pub(crate) target: Box<str>,
    pub(crate) headers: HeaderMap,
    pub(crate) idempotency_key: Option<Box<str>>,
    pub(crate) body: Bytes,
}

/// What a call is about.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) object: Option<String>,
    /// Of the one record the call is about.
    pub(crate) external_id: Option<String>,
    /// Records the call writes to; a record named twice is there twice.
    pub(crate) writes: Vec<RecordKey>,
    /// How many records the call is about.
    pub(crate) records: usize,
    pub(crate) class: CallClass,
    pub(crate) cost: u32,
}

/// What holds while a call is carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    /// Since the account started.
    pub(crate) now: Duration,
    /// Unix time when it started.
    pub(crate) epoch: Duration,
    pub(crate) faults: &'a Faults,
    pub(crate) limits: &'a LimitSet,
    pub(crate) roll: Roll,
}

/// What a fault does to one record of a write, whether or not it is alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// Refused for good.
    Refused,
    /// Somebody else is changing it.
    Locked,
}

/// A reason to say no that has nothing to do with the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal<'a> {
    /// Over a limit of the account.
    OverLimit { name: &'a str, wait: Duration },
    /// Throttled although no limit of the account is exceeded.
    Throttled { wait: Duration },
    /// The day's calls are spent.
    DailySpent { wait: Duration },
    /// The credentials are not taken although they are good.
    Unauthorized,
    /// 500, 502, 503 or 504.
    ServerError(u16),
    /// A planned downtime, over at this Unix time.
    Maintenance { wait: Duration, over_at: Duration },
}

/// A change made at the provider by somebody else: a person, another integration.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    /// The object, as the provider calls it.
    pub object: String,
    /// The record's id at the provider; absent for a create.
    pub id: Option<String>,
    /// What is done.
    pub change: Change,
}

/// What an [`Edit`] does.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Makes a record.
    Create(Map<String, Value>),
    /// Changes fields of one; null clears.
    Update(Map<String, Value>),
    /// Deletes one.
    Delete,
    /// Makes it one with another record, which stays.
    MergeInto(String),
}

impl RawCall {
    pub(crate) fn path(&self) -> &str {
        target::split(&self.target).0
    }

    pub(crate) fn query(&self) -> &str {
        target::split(&self.target).1
    }

    /// A header's value, when it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The token behind an `Authorization` of one of these schemes.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let value = self.header("authorization")?;
        let (scheme, token) = value.split_once(' ')?;
        (scheme.eq_ignore_ascii_case("bearer") || scheme == "OAuth").then_some(token.trim())
    }
}

impl Subject {
    /// A call about nothing that can be named.
    pub(crate) fn none() -> Self {
        Self {
            object: None,
            external_id: None,
            writes: Vec::new(),
            records: 0,
            class: CallClass::General,
            cost: 1,
        }
    }

    /// A call about an object.
    pub(crate) fn of(object: &str) -> Self {
        Self {
            object: Some(object.to_owned()),
            records: 1,
            ..Self::none()
        }
    }

    /// A request for a token.
    pub(crate) fn mint() -> Self {
        Self {
            class: CallClass::Mint,
            ..Self::none()
        }
    }

    pub(crate) fn writing(self, writes: Vec<RecordKey>) -> Self {
        let external_id = match writes.as_slice() {
            [only] => only.external_id().map(str::to_owned),
            _ => None,
        };
        Self {
            records: writes.len(),
            writes,
            external_id: external_id.or(self.external_id),
            ..self
        }
    }
}

impl Scene<'_> {
    /// The wall clock.
    pub(crate) fn unix(&self) -> Duration {
        self.epoch + self.now
    }
}

/// `Retry-After` has no fractions: the next whole second is the first that is late enough.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl Scene<'_> {
    /// What happens to the record with this key of the caller's, by its own dice.
    pub(crate) fn mishap(
        &self,
        roll: Roll,
        external_id: Option<&str>,
        fields: &Map<String, Value>,
    ) -> Option<Mishap> {
        if external_id.is_some_and(|id| self.faults.poisons(id)) || is_poison(fields) {
            return Some(Mishap::Refused);
        }
        let locked = self.faults.strikes(Fault::Lock, roll);
        locked.then_some(Mishap::Locked)
    }
}

/// Whether a record asks to be refused: a field named `poison` that is true, at any depth. The
/// depth is bounded by the JSON parser's own limit of 128.
pub(crate) fn is_poison(fields: &Map<String, Value>) -> bool {
    fields.iter().any(|(name, value)| match value {
        Value::Bool(true) => name == "poison",
        Value::String(text) => name == "poison" && text == "true",
        Value::Object(nested) => is_poison(nested),
        _ => false,
    })
}
