//! What System A is told of a record, apart by the account that each part of it comes from.

use std::borrow::Cow;

use super::SYSTEM_A;
use super::two_way::{extra, origin_of};
use crate::event::codec::AcceptedEvent;
use crate::json::{ObjectWriter, RawValue, write_string};
use crate::merge::Fields;

/// Fields that come from one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Telling {
    /// The account; [`SYSTEM_A`] where that is told what stands of its own.
    pub(super) origin: String,
    /// The account's id of the record when it changed there.
    pub(super) remote_id: RemoteId,
    pub(super) fields: Fields,
    /// When they were changed, ms since the epoch.
    pub(super) changed_at_ms: i64,
}

/// An account's id of a record, as the event that tells of a change holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RemoteId {
    /// This one, if it had one.
    Then(Option<String>),
    /// The event is of a release that did not write it: the one that the record is linked to.
    Now,
}

/// Where a field comes from that others of its event do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source<'a> {
    pub(super) field: &'a str,
    pub(super) origin: &'a str,
    /// When it was changed there, ms since the epoch.
    pub(super) changed_at_ms: i64,
}

impl Telling {
    /// What an event tells. The first one is of the event's own origin, without fields perhaps.
    pub(super) fn of(event: &AcceptedEvent<'_>) -> Vec<Self> {
        let changed_at_ms = event.event.changed_at_ms.unwrap_or(event.accepted_at_ms);
        let mut tellings = vec![Self {
            origin: origin_of(event).unwrap_or_default().into_owned(),
            remote_id: RemoteId::of(event),
            fields: event.event.data.map(Fields::of).unwrap_or_default(),
            changed_at_ms,
        }];
        for (field, origin, changed_at_ms) in sources(event) {
            let own = &mut tellings[0].fields;
            let Some(value) = own.get(&field).map(str::to_owned) else {
                continue;
            };
            own.remove(&field);
            let mut fields = Fields::default();
            fields.set(&field, &value);
            tellings.push(Self {
                origin,
                remote_id: RemoteId::Then(None),
                fields,
                changed_at_ms,
            });
        }
        tellings
    }
}

impl RemoteId {
    fn of(event: &AcceptedEvent<'_>) -> Self {
        let mut extras = event.event.extras.iter();
        match extras.find(|extra| extra.name == extra::REMOTE_ID) {
            Some(known) => Self::Then(known.value.as_text().map(Cow::into_owned)),
            None => Self::Now,
        }
    }
}

/// The value of [`extra::SOURCES`] that says this.
pub(super) fn write_sources(sources: &[Source<'_>]) -> String {
    let mut out = Vec::new();
    let mut object = ObjectWriter::open(&mut out);
    for source in sources {
        let member = object.member(source.field);
        member.push(b'[');
        write_string(member, source.origin);
        member.extend_from_slice(format!(",{}]", source.changed_at_ms).as_bytes());
    }
    object.close();
    String::from_utf8(out).expect("texts and numbers are written as text")
}

fn sources(event: &AcceptedEvent<'_>) -> Vec<(String, String, i64)> {
    let mut extras = event.event.extras.iter();
    let sources = extras.find(|extra| extra.name == extra::SOURCES);
    let Some(sources) = sources.and_then(|sources| sources.value.as_object()) else {
        return Vec::new();
    };
    let source = |value: RawValue<'_>| {
        let (origin, at_ms): (String, i64) = serde_json::from_str(value.text()).ok()?;
        Some((origin, at_ms))
    };
    let members = sources.members().filter_map(|member| {
        let (origin, at_ms) = source(member.value)?;
        Some((member.key.name().into_owned(), origin, at_ms))
    });
    members.collect()
}

/// Fields that do not come from where the first one does: pointer and account.
pub(super) fn others(tellings: &[Telling]) -> Vec<(&str, &str)> {
    let mut origins: Vec<(&str, &str)> = Vec::new();
    for telling in tellings {
        for (field, _) in telling.fields.iter() {
            origins.retain(|(known, _)| *known != field);
            origins.push((field, &telling.origin));
        }
    }
    let first = tellings.first().map_or(SYSTEM_A, |first| &first.origin);
    origins.retain(|(_, origin)| *origin != first);
    origins.sort_unstable();
    origins
}
