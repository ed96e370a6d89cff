//! `[webhook.event]`: what one event of a delivery says.

use ring::digest;
use serde_json::value::RawValue;

use super::TemplateError;
use super::file::OneOrMore;
use super::inbound_blocks::{EventBlock, TableBlock};
use super::instant::{TimeUnit, instant_ms};
use super::pointer::{Landing, Pointer, is_object, scalar_text};
use super::problems::Problems;
use super::webhook::Source;
use super::{Change, ChangeKind, DELIVERY_ID_BYTES_MAX, Delivery, REMOTE_ID_BYTES_MAX};
use crate::json::ObjectWriter;

/// Reads events of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventReader {
    object: Table<ObjectName>,
    kind: Table<EventKind>,
    id: Pointer,
    merged: Option<Merged>,
    occurred_at: Vec<Pointer>,
    unit: TimeUnit,
    delivery_id: Vec<Source>,
    property: Option<(Pointer, Pointer)>,
    fields: Option<Pointer>,
    complete: bool,
    version: Option<Pointer>,
}

/// Which object an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ObjectName {
    /// By its remote name.
    Is(String),
    /// The value is the remote name.
    Itself,
}

/// What a table may say of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventKind {
    Created,
    Changed,
    Deleted,
    Merged,
    Restored,
}

/// Where a merge names the record that stays, and those that are part of it from now on; each a
/// text, a number or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Merged {
    into: Vec<Pointer>,
    from: Vec<Pointer>,
}

/// What values mean. The first place that holds a value of the table decides.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table<T> {
    at: Vec<Pointer>,
    /// Exact values first, then patterns, the longest first.
    rows: Vec<(Text, T)>,
}

/// A value, or with one `*` the beginning and the end of one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    Whole(String),
    Around(String, String),
}

/// Records that one merge names: providers merge two, or some handful.
const MERGED_MAX: usize = 100;

impl EventReader {
    pub(crate) fn compile(
        block: &EventBlock,
        remotes: &[&str],
        problems: &mut Problems,
    ) -> Option<EventReader> {
        let key = |member: &str| format!("webhook.event.{member}");
        let object = Table::compile("object", &block.object, problems, |name| {
            ObjectName::parse(name, remotes)
        });
        let kind = Table::compile("kind", &block.kind, problems, EventKind::named);
        let id = problems.note(key("id"), Pointer::parse(&block.id));
        let merged = block.merged.as_ref().and_then(|merged| {
            let into = problems.note(key("merged.into"), pointers(&merged.into));
            let from = problems.note(key("merged.from"), pointers(&merged.from));
            Some(Merged {
                into: into?,
                from: from?,
            })
        });
        if let Some(kind) = &kind {
            let told = kind.rows.iter().any(|(_, kind)| *kind == EventKind::Merged);
            if told && block.merged.is_none() {
                problems.add(key("merged"), TemplateError::Missing("merged"));
            }
        }
        let property = block.property.as_ref().and_then(|property| {
            let name = problems.note(key("property.name"), Pointer::parse(&property.name));
            let value = problems.note(key("property.value"), Pointer::parse(&property.value));
            Some((name?, value?))
        });
        if block.property.is_some() && block.fields.is_some() {
            problems.add(key("fields"), TemplateError::Meaningless("fields"));
        }
        if block.complete && block.fields.is_none() {
            problems.add(key("complete"), TemplateError::Meaningless("complete"));
        }
        let fields = block.fields.as_deref().map(Pointer::parse_any).transpose();
        let version = block.version.as_deref().map(Pointer::parse).transpose();
        let ids = block.delivery_id.as_slice().iter();
        let delivery_id = ids.map(|text| Source::parse(text)).collect();
        let occurred_at = problems.note(key("occurred_at"), pointers(&block.occurred_at));
        let delivery_id = problems.note(key("delivery_id"), delivery_id);
        let fields = problems.note(key("fields"), fields);
        let version = problems.note(key("version"), version);
        Some(EventReader {
            object: object?,
            kind: kind?,
            id: id?,
            merged,
            occurred_at: occurred_at?,
            unit: block.unit,
            delivery_id: delivery_id?,
            property,
            fields: fields?,
            complete: block.complete,
            version: version?,
        })
    }

    /// The changes that an event tells of: none when its object or kind is not in the tables, one
    /// for each record that a merge ended, and one for the record that stays.
    pub(crate) fn read(
        &self,
        event: &str,
        delivery: &Delivery<'_>,
    ) -> Result<Vec<Change>, &'static str> {
        if !is_object(event) {
            return Err("an event is not a JSON object");
        }
        let (Some(object), Some(kind)) = (self.object.find(event), self.kind.find(event)) else {
            return Ok(Vec::new());
        };
        let ((object, named), (kind, _)) = (object, kind);
        let object = match object {
            ObjectName::Is(name) => name.clone(),
            ObjectName::Itself => usable_id(named)?,
        };
        let fields = self.fields(event)?;
        let delivery_id = self.delivery_id(event, delivery, fields.as_deref());
        let change = |remote_id: String, kind: ChangeKind, delivery_id: String| Change {
            object: object.clone(),
            remote_id,
            kind,
            occurred_at_ms: self.occurred_at(event),
            fields: fields.clone(),
            version: self.version.as_ref().and_then(|at| scalar(at, event)),
            complete: self.complete && fields.is_some(),
            delivery_id,
        };
        if *kind == EventKind::Merged {
            let merged = self.merged.as_ref().ok_or("a merge has nowhere to lead")?;
            let (into, from) = merged.read(event)?;
            let mut changes: Vec<Change> = from
                .into_iter()
                .map(|id| {
                    let delivery_id = bounded(&format!("{delivery_id}/{id}"));
                    let kind = ChangeKind::Merged { into: into.clone() };
                    change(id, kind, delivery_id)
                })
                .collect();
            // The one that stays has taken over what it had not.
            let delivery_id = bounded(&format!("{delivery_id}/{into}"));
            changes.push(change(into, ChangeKind::Changed, delivery_id));
            return Ok(changes);
        }
        let kind = match kind {
            EventKind::Created => ChangeKind::Created,
            EventKind::Deleted => ChangeKind::Deleted,
            EventKind::Restored => ChangeKind::Restored,
            EventKind::Changed | EventKind::Merged => ChangeKind::Changed,
        };
        let id = scalar(&self.id, event).ok_or("an event names no record")?;
        Ok(vec![change(usable_id(id)?, kind, delivery_id)])
    }

    fn occurred_at(&self, event: &str) -> Option<i64> {
        let mut places = self.occurred_at.iter();
        places.find_map(|at| instant_ms(&scalar(at, event)?, self.unit))
    }

    /// What the event carries of the record.
    fn fields(&self, event: &str) -> Result<Option<Box<str>>, &'static str> {
        if let Some((name, value)) = &self.property {
            let Some(name) = scalar(name, event) else {
                return Ok(None);
            };
            let value = match value.find_any(event) {
                Ok(Landing::Value(json)) => json,
                _ => return Ok(None),
            };
            let mut object = Vec::with_capacity(name.len() + value.len() + 8);
            let mut writer = ObjectWriter::open(&mut object);
            writer.raw(&name, value);
            writer.close();
            let object = String::from_utf8(object).map_err(|_| "a property is not UTF-8")?;
            return Ok(Some(object.into()));
        }
        let Some(at) = &self.fields else {
            return Ok(None);
        };
        match at.find_any(event) {
            Ok(Landing::Value(json)) if is_object(json) => Ok(Some(json.into())),
            Ok(Landing::Value(json)) if json != "null" => Err("a record is not a JSON object"),
            _ => Ok(None),
        }
    }

    /// One name that the provider gives is kept as it is. Several together are not unique by
    /// promise, so that what they were told with counts as well; without any, the whole event.
    fn delivery_id(&self, event: &str, delivery: &Delivery<'_>, fields: Option<&str>) -> String {
        let named = self.delivery_id.iter();
        let named: Vec<Option<String>> = named.map(|at| at.text(event, delivery)).collect();
        match named.as_slice() {
            [Some(only)] => bounded(only),
            [] | [None] => hashed([event].into_iter()),
            several => {
                let several = several.iter().map(|part| part.as_deref().unwrap_or(""));
                hashed(several.chain(fields))
            }
        }
    }
}

impl ObjectName {
    fn parse(name: &str, remotes: &[&str]) -> Option<ObjectName> {
        match name {
            "{value}" => Some(ObjectName::Itself),
            name if remotes.contains(&name) => Some(ObjectName::Is(name.to_owned())),
            _ => None,
        }
    }
}

impl EventKind {
    fn named(name: &str) -> Option<EventKind> {
        Some(match name {
            "created" => EventKind::Created,
            "changed" => EventKind::Changed,
            "deleted" => EventKind::Deleted,
            "merged" => EventKind::Merged,
            "restored" => EventKind::Restored,
            _ => return None,
        })
    }
}

impl Merged {
    fn read(&self, event: &str) -> Result<(String, Vec<String>), &'static str> {
        let into = self.into.iter().find_map(|at| scalar(at, event));
        let into = usable_id(into.ok_or("a merge does not say what it leads to")?)?;
        let mut from = Vec::new();
        for at in &self.from {
            let Ok(Landing::Value(json)) = at.find_any(event) else {
                continue;
            };
            let listed = match scalar_text(json) {
                Some(one) => vec![one],
                None => {
                    let list: Vec<&RawValue> =
                        serde_json::from_str(json).map_err(|_| "a merge lists no ids")?;
                    let ids = list.iter().take(MERGED_MAX + 1);
                    let ids = ids.map(|id| scalar_text(id.get()).ok_or("a merge lists no ids"));
                    ids.collect::<Result<_, _>>()?
                }
            };
            for id in listed {
                let id = usable_id(id)?;
                if id != into && !from.contains(&id) {
                    from.push(id);
                }
            }
            if from.len() > MERGED_MAX {
                return Err("a merge lists too many records");
            }
        }
        if from.is_empty() {
            return Err("a merge names no record that it ended");
        }
        Ok((into, from))
    }
}

impl<T> Table<T> {
    fn compile(
        name: &str,
        block: &TableBlock,
        problems: &mut Problems,
        meaning: impl Fn(&str) -> Option<T>,
    ) -> Option<Table<T>> {
        let at = problems.note(format!("webhook.event.{name}.at"), pointers(&block.at));
        if block.at.as_slice().is_empty() {
            let key = format!("webhook.event.{name}.at");
            problems.add(key, TemplateError::Missing("at"));
        }
        let mut rows = Vec::new();
        for (value, means) in &block.table {
            match meaning(means) {
                Some(meaning) => rows.push((Text::parse(value), meaning)),
                None => {
                    let key = format!("webhook.event.{name}.table.{value}");
                    problems.add(key, TemplateError::UnknownMeaning(means.clone()));
                }
            }
        }
        rows.sort_by_key(|(text, _)| match text {
            Text::Whole(_) => 0,
            Text::Around(before, after) => usize::MAX - before.len() - after.len(),
        });
        Some(Table { at: at?, rows })
    }

    /// What the event's value means, and that value.
    fn find(&self, event: &str) -> Option<(&T, String)> {
        self.at.iter().find_map(|at| {
            let value = scalar(at, event)?;
            let row = self.rows.iter().find(|(text, _)| text.fits(&value));
            row.map(|(_, meaning)| (meaning, value))
        })
    }
}

impl Text {
    fn parse(text: &str) -> Text {
        match text.split_once('*') {
            Some((before, after)) => Text::Around(before.to_owned(), after.to_owned()),
            None => Text::Whole(text.to_owned()),
        }
    }

    fn fits(&self, value: &str) -> bool {
        match self {
            Text::Whole(text) => text == value,
            Text::Around(before, after) => value
                .strip_prefix(&**before)
                .is_some_and(|rest| rest.ends_with(&**after)),
        }
    }
}

fn pointers(texts: &OneOrMore<String>) -> Result<Vec<Pointer>, TemplateError> {
    let texts = texts.as_slice().iter();
    texts.map(|text| Pointer::parse(text)).collect()
}

fn scalar(at: &Pointer, event: &str) -> Option<String> {
    match at.find_any(event) {
        Ok(Landing::Value(json)) => scalar_text(json),
        _ => None,
    }
}

/// An id that can name a record in the log and in a path.
pub(crate) fn usable_id(id: String) -> Result<String, &'static str> {
    let usable = (1..=REMOTE_ID_BYTES_MAX).contains(&id.len());
    if !usable || id.chars().any(char::is_control) {
        return Err("a record's id cannot be used");
    }
    Ok(id)
}

/// The text, or its hash when it is too long to be kept or cannot be shown.
pub(crate) fn bounded(text: &str) -> String {
    let shown = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !text.is_empty() && text.len() <= DELIVERY_ID_BYTES_MAX && shown {
        text.to_owned()
    } else {
        hashed([text].into_iter())
    }
}

/// The parts told apart by their lengths, so that no two lists of parts look the same.
pub(crate) fn hashed<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    // Half of it: 128 bits name more events than there will be.
    let hash = context.finish();
    let half = hash.as_ref()[..16].iter();
    half.map(|byte| format!("{byte:02x}")).collect()
}
