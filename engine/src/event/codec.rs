//! The accepted event as it lies in the log: version 1. Layout: `docs/design/event.md`.

use std::borrow::Cow;
use std::str;

use super::{Event, Extra, Operation, Priority, Target, TargetAction, Targets};
use crate::json::{RawObject, RawValue};

/// The version this build writes; it reads this one and all before it.
pub const VERSION: u8 = 1;

/// Where the operation's number lies: it is known only when the shard appends the event.
pub const OPERATION_SEQ_AT: usize = 8;

const FIXED_BYTES: usize = 44;

const HAS_PRODUCER: u16 = 1;
const HAS_DEDUP: u16 = 1 << 1;
const HAS_CHANGED_AT: u16 = 1 << 2;
const HAS_SCHEDULED_AT: u16 = 1 << 3;
const HAS_PROVIDER: u16 = 1 << 4;
const HAS_REMOTE_ID: u16 = 1 << 5;
const HAS_EVENT_ID: u16 = 1 << 6;
const HAS_SCHEMA_VERSION: u16 = 1 << 7;
const HAS_TENANT: u16 = 1 << 8;
const HAS_TRACEPARENT: u16 = 1 << 9;
const HAS_CORRELATION_ID: u16 = 1 << 10;
const HAS_DATA: u16 = 1 << 11;
const HAS_BEFORE: u16 = 1 << 12;
const HAS_ALL: u16 = (1 << 13) - 1;

/// An event with all that was decided when it was taken; what the log keeps of it.
///
/// `event.seq` is not kept: [`ProducerPosition::seq`] is the number it was taken under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedEvent<'a> {
    /// What the producer said; its record id is always present here.
    pub event: Event<'a>,
    /// The operation's number within its shard; 0 until [`patch_operation_seq`].
    pub operation_seq: u64,
    /// The keyed hash of object and record id that places the record.
    pub record_hash: u64,
    /// When it was taken.
    pub accepted_at_ms: i64,
    /// Its place in its producer's stream, when that has a name.
    pub producer: Option<ProducerPosition>,
    /// What is remembered of its event id, when it has one.
    pub dedup: Option<Dedup>,
    /// The accounts it goes to, fixed now.
    pub targets: Targets<'a>,
    /// Version of the rules that were applied.
    pub rules_version: u32,
    /// Version of the mappings in force.
    pub mapping_version: u32,
}

/// An event's place in a named producer's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerPosition {
    /// Hash of the producer's name.
    pub producer_hash: u64,
    /// The event's number.
    pub seq: u64,
    /// Every number up to this one was acknowledged when the event was taken.
    pub acked_base: u64,
}

/// What tells a repeated event id from a reused one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedup {
    /// Hash of the producer or API key within which the event id is unique.
    pub scope: u64,
    /// [`Event::body_hash`].
    pub body_hash: u64,
}

/// Bytes that are no accepted event of a version that this build reads; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// A newer build wrote them; they are whole, and stay as they are.
    #[error("an accepted event of version {0}, newer than {VERSION}")]
    Newer(u8),
    /// They end too early.
    #[error("an accepted event is cut short")]
    Short,
    /// They say what cannot be.
    #[error("an accepted event is damaged: {0}")]
    Invalid(&'static str),
}

/// Writes the operation's number into an encoded event.
///
/// # Panics
/// If `encoded` is shorter than an event's fixed part.
pub fn patch_operation_seq(encoded: &mut [u8], operation_seq: u64) {
    encoded[OPERATION_SEQ_AT..OPERATION_SEQ_AT + 8].copy_from_slice(&operation_seq.to_le_bytes());
}

impl AcceptedEvent<'_> {
    /// Appends the event.
    ///
    /// # Panics
    /// If the event has no record id, more than [`super::TARGETS_MAX`] targets, or a text over 64 KiB:
    /// parsing and settings allow none of these.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let event = &self.event;
        let record_id = event.record_id.as_deref();
        let record_id = record_id.expect("an accepted event has a record id");
        let texts = self.optional_texts();
        let objects = [(HAS_DATA, event.data), (HAS_BEFORE, event.before)];
        out.reserve(self.encoded_bytes_about(record_id));

        let mut presence = 0;
        set_if(&mut presence, HAS_PRODUCER, self.producer.is_some());
        set_if(&mut presence, HAS_DEDUP, self.dedup.is_some());
        set_if(&mut presence, HAS_CHANGED_AT, event.changed_at_ms.is_some());
        set_if(
            &mut presence,
            HAS_SCHEDULED_AT,
            event.scheduled_at_ms.is_some(),
        );
        for (bit, text) in texts {
            set_if(&mut presence, bit, text.is_some());
        }
        for (bit, object) in objects {
            set_if(&mut presence, bit, object.is_some());
        }

        let target_count = u8::try_from(self.targets.len()).expect("at most TARGETS_MAX targets");
        out.extend_from_slice(&[
            VERSION,
            operation_code(event.operation),
            event.priority.get(),
            target_count,
        ]);
        out.extend_from_slice(&presence.to_le_bytes());
        out.extend_from_slice(&len_u16(event.extras.len()));
        out.extend_from_slice(&self.operation_seq.to_le_bytes());
        out.extend_from_slice(&self.record_hash.to_le_bytes());
        out.extend_from_slice(&self.accepted_at_ms.to_le_bytes());
        out.extend_from_slice(&self.rules_version.to_le_bytes());
        out.extend_from_slice(&self.mapping_version.to_le_bytes());
        out.extend_from_slice(&len_u16(event.object.len()));
        out.extend_from_slice(&len_u16(record_id.len()));

        if let Some(producer) = self.producer {
            out.extend_from_slice(&producer.producer_hash.to_le_bytes());
            out.extend_from_slice(&producer.seq.to_le_bytes());
            out.extend_from_slice(&producer.acked_base.to_le_bytes());
        }
        if let Some(dedup) = self.dedup {
            out.extend_from_slice(&dedup.scope.to_le_bytes());
            out.extend_from_slice(&dedup.body_hash.to_le_bytes());
        }
        for instant in [event.changed_at_ms, event.scheduled_at_ms]
            .into_iter()
            .flatten()
        {
            out.extend_from_slice(&instant.to_le_bytes());
        }

        for text in texts.iter().filter_map(|(_, text)| *text) {
            out.extend_from_slice(&len_u16(text.len()));
        }
        for object in objects.iter().filter_map(|(_, object)| *object) {
            out.extend_from_slice(&len_u32(object.text().len()));
        }
        for extra in &event.extras {
            out.extend_from_slice(&len_u16(extra.name.len()));
            out.extend_from_slice(&len_u32(extra.value.text().len()));
        }
        for target in self.targets.iter() {
            out.extend_from_slice(&[action_code(target.action), 0]);
            out.extend_from_slice(&target.rule.to_le_bytes());
            out.extend_from_slice(&len_u16(target.name.len()));
        }

        out.extend_from_slice(event.object.as_bytes());
        out.extend_from_slice(record_id.as_bytes());
        for text in texts.iter().filter_map(|(_, text)| *text) {
            out.extend_from_slice(text.as_bytes());
        }
        for object in objects.iter().filter_map(|(_, object)| *object) {
            out.extend_from_slice(object.text().as_bytes());
        }
        for extra in &event.extras {
            out.extend_from_slice(extra.name.as_bytes());
            out.extend_from_slice(extra.value.text().as_bytes());
        }
        for target in self.targets.iter() {
            out.extend_from_slice(target.name.as_bytes());
        }
    }

    /// What the rules decided for an account; one that is no target gets the event as it is.
    pub fn action_at(&self, account: &str) -> TargetAction {
        let target = self.targets.iter().find(|target| target.name == account);
        target.map_or(TargetAction::Sync, |target| target.action)
    }

    /// The event as an account is asked it: a rule may have put another operation in its place.
    pub fn asked_of(mut self, account: &str) -> Self {
        if let TargetAction::Instead(operation) = self.action_at(account) {
            self.event.operation = operation;
        }
        self
    }

    /// Optional texts in the order of their bits, which is their order in the bytes.
    fn optional_texts(&self) -> [(u16, Option<&str>); 7] {
        let event = &self.event;
        [
            (HAS_PROVIDER, event.provider.as_deref()),
            (HAS_REMOTE_ID, event.remote_id.as_deref()),
            (HAS_EVENT_ID, event.event_id.as_deref()),
            (HAS_SCHEMA_VERSION, event.schema_version.as_deref()),
            (HAS_TENANT, event.tenant.as_deref()),
            (HAS_TRACEPARENT, event.traceparent.as_deref()),
            (HAS_CORRELATION_ID, event.correlation_id.as_deref()),
        ]
    }

    /// Enough for nearly every event, so that encoding grows its buffer once at most.
    fn encoded_bytes_about(&self, record_id: &str) -> usize {
        let event = &self.event;
        let objects = [event.data, event.before].into_iter().flatten();
        let values: usize = objects.map(|object| object.text().len()).sum();
        FIXED_BYTES + 128 + event.object.len() + record_id.len() + values
    }
}

/// Reads an event whose bytes are exactly `bytes`; its texts are slices of them.
///
/// # Errors
/// [`Damaged`]; never a panic, whatever the bytes.
pub fn decode(bytes: &[u8]) -> Result<AcceptedEvent<'_>, Damaged> {
    let mut numbers = Numbers { rest: bytes };
    let [version] = numbers.take()?;
    if version > VERSION {
        return Err(Damaged::Newer(version));
    }
    if version == 0 {
        return Err(Damaged::Invalid("version 0"));
    }
    let [operation, priority, target_count] = numbers.take()?;
    let operation = operation_of(operation).ok_or(Damaged::Invalid("operation"))?;
    let priority = Priority::new(priority).ok_or(Damaged::Invalid("priority"))?;
    let presence = numbers.u16()?;
    if presence & !HAS_ALL != 0 {
        return Err(Damaged::Invalid("presence bits"));
    }
    let has = |bit: u16| presence & bit != 0;
    let extra_count = numbers.u16()?;
    let operation_seq = numbers.u64()?;
    let record_hash = numbers.u64()?;
    let accepted_at_ms = numbers.i64()?;
    let rules_version = numbers.u32()?;
    let mapping_version = numbers.u32()?;
    let object_len = numbers.u16()?;
    let record_id_len = numbers.u16()?;
    let producer = numbers.when(has(HAS_PRODUCER), |numbers| {
        Ok(ProducerPosition {
            producer_hash: numbers.u64()?,
            seq: numbers.u64()?,
            acked_base: numbers.u64()?,
        })
    })?;
    let dedup = numbers.when(has(HAS_DEDUP), |numbers| {
        Ok(Dedup {
            scope: numbers.u64()?,
            body_hash: numbers.u64()?,
        })
    })?;
    let changed_at_ms = numbers.when(has(HAS_CHANGED_AT), Numbers::i64)?;
    let scheduled_at_ms = numbers.when(has(HAS_SCHEDULED_AT), Numbers::i64)?;

    // The lengths come first and the texts after them, so that one pass checks all UTF-8. The
    // counts size nothing: each entry must be there in the bytes before it is kept.
    let mut lens = numbers.clone();
    let text_count = (presence & (HAS_DATA - HAS_PROVIDER)).count_ones() as usize;
    let object_count = (presence & (HAS_DATA | HAS_BEFORE)).count_ones() as usize;
    numbers.skip(text_count * 2 + object_count * 4)?;
    let mut extra_lens = numbers.clone();
    numbers.skip(usize::from(extra_count) * 6)?;
    let mut target_heads = numbers.clone();
    numbers.skip(usize::from(target_count) * 6)?;
    let text = str::from_utf8(numbers.rest).map_err(|_| Damaged::Invalid("not UTF-8"))?;

    let mut texts = Texts { rest: text };
    let object = texts.take(object_len.into())?;
    let record_id = texts.take(record_id_len.into())?;
    let mut optional_text = |bit: u16| {
        lens.when(has(bit), |lens| {
            Ok(Cow::Borrowed(texts.take(lens.u16()?.into())?))
        })
    };
    let provider = optional_text(HAS_PROVIDER)?;
    let remote_id = optional_text(HAS_REMOTE_ID)?;
    let event_id = optional_text(HAS_EVENT_ID)?;
    let schema_version = optional_text(HAS_SCHEMA_VERSION)?;
    let tenant = optional_text(HAS_TENANT)?;
    let traceparent = optional_text(HAS_TRACEPARENT)?;
    let correlation_id = optional_text(HAS_CORRELATION_ID)?;
    let mut optional_object = |bit: u16| {
        lens.when(has(bit), |lens| {
            let text = texts.take(lens.u32()? as usize)?;
            object_in(text).ok_or(Damaged::Invalid("data is no object"))
        })
    };
    let data = optional_object(HAS_DATA)?;
    let before = optional_object(HAS_BEFORE)?;
    let mut extras = Vec::new();
    for _ in 0..extra_count {
        let (name, value) = (extra_lens.u16()?, extra_lens.u32()?);
        extras.push(Extra {
            name: Cow::Borrowed(texts.take(name.into())?),
            value: value_in(texts.take(value as usize)?)?,
        });
    }
    let mut targets = Targets::default();
    for _ in 0..target_count {
        let [action, reserved] = target_heads.take()?;
        if reserved != 0 {
            return Err(Damaged::Invalid("reserved byte of a target"));
        }
        targets.push(Target {
            action: action_of(action).ok_or(Damaged::Invalid("action of a target"))?,
            rule: target_heads.u16()?,
            name: texts.take(target_heads.u16()?.into())?,
        });
    }
    if !texts.rest.is_empty() {
        return Err(Damaged::Invalid("bytes after the end"));
    }
    Ok(AcceptedEvent {
        event: Event {
            operation,
            provider,
            object: Cow::Borrowed(object),
            record_id: Some(Cow::Borrowed(record_id)),
            remote_id,
            data,
            before,
            event_id,
            changed_at_ms,
            priority,
            scheduled_at_ms,
            schema_version,
            tenant,
            traceparent,
            correlation_id,
            seq: None,
            extras,
        },
        operation_seq,
        record_hash,
        accepted_at_ms,
        producer,
        dedup,
        targets,
        rules_version,
        mapping_version,
    })
}

/// Little-endian numbers, taken from the front.
#[derive(Clone)]
struct Numbers<'a> {
    rest: &'a [u8],
}

impl Numbers<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Damaged::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Damaged> {
        self.rest = self.rest.get(bytes..).ok_or(Damaged::Short)?;
        Ok(())
    }

    fn when<T>(
        &mut self,
        present: bool,
        read: impl FnOnce(&mut Self) -> Result<T, Damaged>,
    ) -> Result<Option<T>, Damaged> {
        present.then(|| read(self)).transpose()
    }

    fn u16(&mut self) -> Result<u16, Damaged> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Damaged> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Damaged> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, Damaged> {
        self.take().map(i64::from_le_bytes)
    }
}

/// Texts, taken from the front.
struct Texts<'a> {
    rest: &'a str,
}

impl<'a> Texts<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a str, Damaged> {
        if bytes > self.rest.len() {
            return Err(Damaged::Short);
        }
        let (text, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or(Damaged::Invalid("a length that splits a character"))?;
        self.rest = rest;
        Ok(text)
    }
}

/// Values are kept without surrounding space, so a text with any is not what was written.
fn object_in(text: &str) -> Option<RawObject<'_>> {
    let is_whole = text.starts_with('{') && text.ends_with('}');
    RawObject::new(text).filter(|_| is_whole)
}

fn value_in(text: &str) -> Result<RawValue<'_>, Damaged> {
    let value = RawValue::new(text);
    if value.text().is_empty() || value.text().len() != text.len() {
        return Err(Damaged::Invalid("an extra field is no value"));
    }
    Ok(value)
}

fn set_if(presence: &mut u16, bit: u16, present: bool) {
    if present {
        *presence |= bit;
    }
}

fn len_u16(len: usize) -> [u8; 2] {
    let len = u16::try_from(len).expect("parsing bounds names and ids under 64 KiB");
    len.to_le_bytes()
}

fn len_u32(len: usize) -> [u8; 4] {
    let len = u32::try_from(len).expect("parsing bounds an event at EVENT_BYTES_MAX");
    len.to_le_bytes()
}

const fn operation_code(operation: Operation) -> u8 {
    match operation {
        Operation::Create => 1,
        Operation::Read => 2,
        Operation::Update => 3,
        Operation::Upsert => 4,
        Operation::Delete => 5,
        Operation::Pull => 6,
    }
}

fn operation_of(code: u8) -> Option<Operation> {
    let is_it = |operation: &Operation| operation_code(*operation) == code;
    Operation::ALL.into_iter().find(is_it)
}

const fn action_code(action: TargetAction) -> u8 {
    match action {
        TargetAction::Sync => 0,
        TargetAction::Skip => 0xff,
        TargetAction::Observe => 0xfe,
        TargetAction::Instead(operation) => operation_code(operation),
    }
}

fn action_of(code: u8) -> Option<TargetAction> {
    match code {
        0 => Some(TargetAction::Sync),
        0xff => Some(TargetAction::Skip),
        0xfe => Some(TargetAction::Observe),
        code => operation_of(code).map(TargetAction::Instead),
    }
}
