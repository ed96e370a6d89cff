//! A table of System A's that holds an object: what a change of one of its rows says.

use bytes::Bytes;
use engine::json::{ObjectWriter, RawObject, RawValue, canonical_hash};
use postgres::{Change, Operation};

/// A followed table.
#[derive(Debug, Clone)]
pub(crate) struct Followed {
    /// With its schema.
    pub(crate) table: String,
    pub(crate) object: String,
    /// The column that marks a row as deleted.
    pub(crate) mark: Option<String>,
}

/// What is said of a row.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Create(String),
    Update(String),
    Upsert(String),
    Delete,
}

impl Followed {
    /// Whether a row, the text of a JSON object, is marked as deleted.
    pub(crate) fn is_deleted(&self, row: &str) -> bool {
        let mark = self.mark.as_deref();
        let mark = mark.and_then(|column| RawObject::new(row)?.get(column));
        mark.is_some_and(|mark| !matches!(mark.text(), "null" | "false"))
    }

    /// A row's change as an event; `None` if it changed nothing.
    pub(super) fn event(&self, change: &Change) -> Option<Bytes> {
        let said = self.said(change.operation, change.before.as_deref(), &change.data)?;
        let (operation, data) = match &said {
            Said::Create(data) => ("CREATE", Some(data)),
            Said::Update(data) => ("UPDATE", Some(data)),
            Said::Upsert(data) => ("UPSERT", Some(data)),
            Said::Delete => ("DELETE", None),
        };
        let mut out = Vec::new();
        let mut event = ObjectWriter::open(&mut out);
        event.text("operation", operation);
        event.text("object", &self.object);
        event.text("record_id", &change.key);
        event.text("event_id", &change.id());
        if let Some(data) = data {
            event.raw("data", data);
        }
        if let Some(before) = change.before.as_ref().filter(|_| data.is_some()) {
            event.raw("before", before);
        }
        let at = event.member("changed_at");
        at.push(b'"');
        engine::timestamp::write_rfc3339(at, change.changed_at_ms);
        at.push(b'"');
        event.close();
        Some(Bytes::from(out))
    }

    fn said(&self, operation: Operation, before: Option<&str>, row: &str) -> Option<Said> {
        let gone = self.is_deleted(row);
        let was_gone = before.map(|before| self.is_deleted(before));
        match operation {
            Operation::Delete => Some(Said::Delete),
            // A record that nobody was told of.
            Operation::Insert | Operation::Snapshot if gone => None,
            Operation::Insert => Some(Said::Create(self.without_mark(row))),
            Operation::Snapshot => Some(Said::Upsert(self.without_mark(row))),
            Operation::Update if gone => (was_gone != Some(true)).then_some(Said::Delete),
            Operation::Update => match (before, was_gone) {
                (Some(before), Some(false)) => {
                    let changed = changed(&self.without_mark(before), &self.without_mark(row));
                    changed.map(Said::Update)
                }
                // It is back, or may be: only with `REPLICA IDENTITY FULL` the row before is known.
                _ if self.mark.is_some() => Some(Said::Upsert(self.without_mark(row))),
                _ => Some(Said::Update(row.to_owned())),
            },
        }
    }

    /// The row without the column that marks it.
    pub(crate) fn without_mark(&self, row: &str) -> String {
        let Some(mark) = self.mark.as_deref() else {
            return row.to_owned();
        };
        let members = RawObject::new(row).into_iter().flat_map(RawObject::members);
        let mut out = Vec::new();
        let mut object = ObjectWriter::open(&mut out);
        for member in members {
            if member.key.is(mark) {
                continue;
            }
            let place = object.member_escaped(member.key.escaped());
            place.extend_from_slice(member.value.text().as_bytes());
        }
        object.close();
        String::from_utf8(out).expect("copied from UTF-8 texts")
    }
}

/// The members of `after` that are not in `before` as they are; `None` when there is none.
fn changed(before: &str, after: &str) -> Option<String> {
    let (before, after) = (RawObject::new(before)?, RawObject::new(after)?);
    let mut out = Vec::new();
    let mut object = ObjectWriter::open(&mut out);
    let mut any = false;
    for member in after.members() {
        let was = before.get(&member.key.name());
        if was.is_some_and(|was| same(was, member.value)) {
            continue;
        }
        any = true;
        let place = object.member_escaped(member.key.escaped());
        place.extend_from_slice(member.value.text().as_bytes());
    }
    object.close();
    any.then(|| String::from_utf8(out).expect("copied from UTF-8 texts"))
}

fn same(one: RawValue<'_>, other: RawValue<'_>) -> bool {
    one.text() == other.text() || canonical_hash(one) == canonical_hash(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: &str = r#"{"id":1,"name":"Ada","gone_at":null}"#;
    const GONE: &str = r#"{"id":1,"name":"Ada","gone_at":"2026-11-20T10:00:00Z"}"#;
    const WHOLE: &str = r#"{"id":1,"name":"Ada"}"#;

    fn said(operation: Operation, before: Option<&str>, row: &str) -> Option<Said> {
        let table = Followed {
            table: "public.people".to_owned(),
            object: "contact".to_owned(),
            mark: Some("gone_at".to_owned()),
        };
        table.said(operation, before, row)
    }

    #[test]
    fn a_row_that_is_marked_says_that_its_record_is_deleted_once() {
        let marked = said(Operation::Update, Some(LIVE), GONE);
        assert_eq!(marked, Some(Said::Delete));
        assert_eq!(said(Operation::Update, Some(GONE), GONE), None);
        assert_eq!(said(Operation::Update, None, GONE), Some(Said::Delete));
    }

    #[test]
    fn a_row_whose_mark_is_taken_away_is_told_whole() {
        let back = Some(Said::Upsert(WHOLE.to_owned()));
        assert_eq!(said(Operation::Update, Some(GONE), LIVE), back);
        assert_eq!(said(Operation::Update, None, LIVE), back);
    }

    #[test]
    fn a_row_that_was_marked_from_the_beginning_says_nothing() {
        assert_eq!(said(Operation::Insert, None, GONE), None);
        assert_eq!(said(Operation::Snapshot, None, GONE), None);
    }

    #[test]
    fn the_mark_is_no_field_of_the_record() {
        let created = said(Operation::Insert, None, LIVE);
        assert_eq!(created, Some(Said::Create(WHOLE.to_owned())));
        let renamed = r#"{"id":1,"name":"Bea","gone_at":null}"#;
        let changed = said(Operation::Update, Some(LIVE), renamed);
        assert_eq!(changed, Some(Said::Update(r#"{"name":"Bea"}"#.to_owned())));
    }

    #[test]
    fn a_table_without_a_mark_says_what_changed() {
        let table = Followed {
            table: "public.people".to_owned(),
            object: "contact".to_owned(),
            mark: None,
        };
        let said = table.said(Operation::Update, None, LIVE);
        assert_eq!(said, Some(Said::Update(LIVE.to_owned())));
        assert_eq!(table.said(Operation::Update, Some(LIVE), LIVE), None);
    }
}
