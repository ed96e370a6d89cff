//! The event: what a producer sends, in any of its accepted spellings, as one checked value.

mod body;
mod cloudevents;
pub mod codec;
mod debezium;
mod draft;
mod line;
mod targets;

use std::borrow::Cow;

use self::draft::Draft;
pub use self::line::{looks_like_control, seq_of};
pub use self::targets::{TARGETS_MAX, Target, TargetAction, Targets};
use crate::json::{RawObject, RawValue, Scratch};
use crate::refusal::Refusal;

/// Bytes of one event, from its first brace to its last.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// Bytes of a record id, a remote id or an event id.
pub const ID_BYTES_MAX: usize = 512;

/// Bytes of a name or label: object, provider, tenant, an `x_` field's name.
pub const NAME_BYTES_MAX: usize = 256;

/// `x_` fields that one event may carry.
pub const EXTRAS_MAX: usize = 64;

/// The object of an event when neither it nor the settings name one.
const OBJECT_FALLBACK: &str = "record";

/// One event, checked; texts and values are slices of the bytes it was parsed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// What happened to the record.
    pub operation: Operation,
    /// The account to send to; `None`: every account whose mapping takes the object.
    pub provider: Option<Cow<'a, str>>,
    /// The kind of record.
    pub object: Cow<'a, str>,
    /// System A's key; `None` only for a CREATE over HTTP, whose caller assigns one.
    pub record_id: Option<Cow<'a, str>>,
    /// The provider's own key, when the producer knows it.
    pub remote_id: Option<Cow<'a, str>>,
    /// The record or its changed fields; present for CREATE, UPDATE and UPSERT.
    pub data: Option<RawObject<'a>>,
    /// The record before the change, when known.
    pub before: Option<RawObject<'a>>,
    /// Idempotency key within its producer or API key.
    pub event_id: Option<Cow<'a, str>>,
    /// When it changed in System A; `None`: when it arrived.
    pub changed_at_ms: Option<i64>,
    /// Its rank among records.
    pub priority: Priority,
    /// Not to be sent before this instant.
    pub scheduled_at_ms: Option<i64>,
    /// Version of the producer's schema, as text.
    pub schema_version: Option<Cow<'a, str>>,
    /// Whose record it is, where one installation serves several.
    pub tenant: Option<Cow<'a, str>>,
    /// W3C trace context, forwarded to the provider.
    pub traceparent: Option<Cow<'a, str>>,
    /// The producer's own mark for a group of events.
    pub correlation_id: Option<Cow<'a, str>>,
    /// The producer's number for it on a stream.
    pub seq: Option<u64>,
    /// `x_` fields, kept as they came.
    pub extras: Vec<Extra<'a>>,
}

/// A field that is kept without being understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its value as written.
    pub value: RawValue<'a>,
}

/// What an event asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A new record.
    Create,
    /// Ask the provider for its copy.
    Read,
    /// Changed fields of a record.
    Update,
    /// A record that may or may not be there.
    Upsert,
    /// The record is gone.
    Delete,
    /// An account may show something new of the record. The engine's own: no producer sends it.
    Pull,
}

/// Rank of a record among others, 1 (first) to 10 (last).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

/// What the settings say about events that leave something out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Defaults<'a> {
    /// `[server] default_object`.
    pub default_object: Option<&'a str>,
    /// The object, when exactly one is mapped.
    pub only_mapped: Option<&'a str>,
    /// Which tables hold which objects, for Debezium envelopes.
    pub sources: &'a [SourceTable<'a>],
}

/// `[objects.X] source = { table, key }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceTable<'a> {
    /// The object, `X`.
    pub object: &'a str,
    /// `schema.table`, `database.table` or `table`, as the envelope's `source` names it.
    pub table: &'a str,
    /// The column that is the record id.
    pub key: &'a str,
}

/// Where an event came in; the two differ in who may leave out the record id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// TCP lines and frames.
    Stream,
    /// The HTTP API.
    Http,
}

/// Reads one event from its bytes.
///
/// # Errors
/// A [`Refusal`] that names the place. Nothing is kept of a refused event.
pub fn parse<'a>(
    bytes: &'a [u8],
    scratch: &mut Scratch,
    defaults: &Defaults<'a>,
    surface: Surface,
) -> Result<Event<'a>, Refusal> {
    let object = scratch.validate_object(bytes, EVENT_BYTES_MAX)?;
    let mut draft = Draft::default();
    if let Some(unknown) = draft.collect(object.members())? {
        let object = object.object();
        draft = Draft::default();
        if cloudevents::is_envelope(object) {
            cloudevents::read(object, &mut draft)?;
        } else if let Some(envelope) = debezium::find_envelope(object) {
            debezium::read(&envelope, defaults.sources, &mut draft)?;
        } else {
            return Err(draft::unknown_field(unknown));
        }
    }
    draft.finish(defaults, surface)
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 6] = [
        Self::Create,
        Self::Read,
        Self::Update,
        Self::Upsert,
        Self::Delete,
        Self::Pull,
    ];

    /// Those that a producer may send.
    pub const OF_PRODUCERS: [Self; 5] = [
        Self::Create,
        Self::Read,
        Self::Update,
        Self::Upsert,
        Self::Delete,
    ];

    /// Reads the name of an operation that a producer may send, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::OF_PRODUCERS
            .into_iter()
            .find(|operation| operation.as_str().eq_ignore_ascii_case(name))
    }

    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Read => "READ",
            Self::Update => "UPDATE",
            Self::Upsert => "UPSERT",
            Self::Delete => "DELETE",
            Self::Pull => "PULL",
        }
    }

    /// Whether it carries fields, and therefore needs `data`.
    pub const fn writes_fields(self) -> bool {
        match self {
            Self::Create | Self::Update | Self::Upsert => true,
            Self::Read | Self::Delete | Self::Pull => false,
        }
    }
}

impl Priority {
    /// Ahead of all others.
    pub const HIGHEST: Self = Self(1);
    /// What an event without one gets.
    pub const DEFAULT: Self = Self(5);
    /// Behind all others.
    pub const LOWEST: Self = Self(10);

    /// The priority `value`, if it is one.
    pub const fn new(value: u8) -> Option<Self> {
        if value >= Self::HIGHEST.0 && value <= Self::LOWEST.0 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl<'a> Defaults<'a> {
    fn object(&self) -> &'a str {
        self.default_object
            .or(self.only_mapped)
            .unwrap_or(OBJECT_FALLBACK)
    }
}
