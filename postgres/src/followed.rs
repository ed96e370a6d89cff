//! A table that is followed: which values of its rows are wanted, and how they are written.

use std::collections::HashMap;
use std::sync::Arc;

use crate::change::{Drift, DriftKind, Unreadable};
use crate::json::{Kind, built_in, write_text};
use crate::pgoutput::{Relation, Value};
use crate::table::Table;

/// The table as it looks at this point of the stream.
#[derive(Debug)]
pub(crate) struct Followed {
    name: Arc<str>,
    /// In the order of a row's values.
    columns: Vec<Column>,
    /// The key's place among them.
    key: Option<usize>,
}

#[derive(Debug)]
struct Column {
    name: Arc<str>,
    /// `"name":`, ready to be written.
    label: String,
    kind: Kind,
    wanted: bool,
    in_identity: bool,
}

/// A row as it is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) key: String,
    pub(crate) data: String,
    pub(crate) unchanged: Vec<Arc<str>>,
}

impl Followed {
    pub(crate) fn new(
        table: &Table,
        relation: &Relation,
        user_kinds: &HashMap<u32, Kind>,
    ) -> Followed {
        let wanted = |name: &String| match &table.columns {
            Some(columns) => columns.contains(name) || *name == table.key,
            None => true,
        };
        let column = |column: &crate::pgoutput::RelationColumn| {
            let mut label = String::new();
            write_text(&column.name, &mut label);
            label.push(':');
            let user_kind = user_kinds.get(&column.type_oid).cloned();
            Column {
                wanted: wanted(&column.name),
                name: column.name.as_str().into(),
                label,
                kind: user_kind.unwrap_or_else(|| built_in(column.type_oid)),
                in_identity: column.in_identity,
            }
        };
        Followed {
            name: table.name.to_string().into(),
            columns: relation.columns.iter().map(column).collect(),
            key: relation
                .columns
                .iter()
                .position(|column| column.name == table.key),
        }
    }

    /// The table with its schema.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Writes a row; what was not sent of it is taken from all of the row before, if known.
    pub(crate) fn write<'a>(
        &self,
        values: impl RowValues<'a>,
        before: Option<impl RowValues<'a>>,
    ) -> Result<Written, Unreadable> {
        let key_at = self.key.ok_or(Unreadable::NoKey)?;
        if values.count() != self.columns.len() {
            return Err(Unreadable::Misfit);
        }
        let mut before = match before {
            Some(before) if before.count() == self.columns.len() => Some(before.each()),
            Some(_) => return Err(Unreadable::Misfit),
            None => None,
        };
        let mut key = None;
        let mut data = String::from("{");
        let mut unchanged = Vec::new();
        for (at, (column, value)) in self.columns.iter().zip(values.each()).enumerate() {
            let old = before.as_mut().and_then(Iterator::next);
            let value = match (value, old) {
                (Value::Unchanged, Some(old)) => old,
                (value, _) => value,
            };
            if !column.wanted {
                continue;
            }
            let text = match value {
                Value::Text(bytes) => Some(column.text(bytes)?),
                Value::Null => None,
                Value::Unchanged => {
                    unchanged.push(Arc::clone(&column.name));
                    continue;
                }
            };
            if data.len() > 1 {
                data.push(',');
            }
            data.push_str(&column.label);
            match text {
                Some(text) => column.kind.write(text, &mut data),
                None => data.push_str("null"),
            }
            if at == key_at {
                key = text.map(str::to_owned);
            }
        }
        data.push('}');
        Ok(Written {
            key: key.ok_or(Unreadable::NoKey)?,
            data,
            unchanged,
        })
    }

    /// The key of a row of which the replica identity is told, and an object of it alone.
    pub(crate) fn write_key<'a>(&self, values: impl RowValues<'a>) -> Result<Written, Unreadable> {
        let key_at = self.key.ok_or(Unreadable::NoKey)?;
        let column = &self.columns[key_at];
        if values.count() != self.columns.len() {
            return Err(Unreadable::Misfit);
        }
        match values.each().nth(key_at) {
            Some(Value::Text(bytes)) if column.in_identity => {
                let key = column.text(bytes)?.to_owned();
                let mut data = format!("{{{}", column.label);
                column.kind.write(&key, &mut data);
                data.push('}');
                Ok(Written {
                    key,
                    data,
                    unchanged: Vec::new(),
                })
            }
            _ => Err(Unreadable::NoKey),
        }
    }
}

impl Column {
    fn text<'a>(&self, bytes: &'a [u8]) -> Result<&'a str, Unreadable> {
        std::str::from_utf8(bytes).map_err(|_| Unreadable::NotUtf8(Arc::clone(&self.name)))
    }
}

/// A row's values whose number is known before they are read.
pub(crate) trait RowValues<'a>: Copy {
    fn count(self) -> usize;
    fn each(self) -> impl Iterator<Item = Value<'a>>;
}

impl<'a> RowValues<'a> for crate::pgoutput::Tuple<'a> {
    fn count(self) -> usize {
        self.len()
    }

    fn each(self) -> impl Iterator<Item = Value<'a>> {
        self.values()
    }
}

impl<'a> RowValues<'a> for &'a [Value<'a>] {
    fn count(self) -> usize {
        self.len()
    }

    fn each(self) -> impl Iterator<Item = Value<'a>> {
        self.iter().copied()
    }
}

/// How a table differs from what is expected of it and, if it was seen before, from then.
pub(crate) fn drift(table: &Table, before: Option<&Relation>, now: &Relation) -> Vec<Drift> {
    let find = |relation: &Relation, name: &str| {
        let mut columns = relation.columns.iter();
        columns.find(|column| column.name == name).cloned()
    };
    let mut kinds = Vec::new();
    match find(now, &table.key) {
        _ if !now.has_identity() => kinds.push(DriftKind::NoIdentity),
        None => kinds.push(DriftKind::KeyMissing(table.key.clone())),
        Some(key) if !key.in_identity => {
            kinds.push(DriftKind::KeyNotInIdentity(table.key.clone()));
        }
        Some(_) => {}
    }
    let gone = before.into_iter().flat_map(|before| &before.columns);
    let mut wanted: Vec<&String> = match &table.columns {
        Some(columns) => columns.iter().collect(),
        None => gone.map(|column| &column.name).collect(),
    };
    wanted.retain(|name| **name != table.key && find(now, name).is_none());
    kinds.extend(wanted.into_iter().cloned().map(DriftKind::ColumnMissing));
    if let Some(before) = before {
        for column in &now.columns {
            match find(before, &column.name) {
                None => kinds.push(DriftKind::ColumnAdded(column.name.clone())),
                Some(old) if old.type_oid != column.type_oid => {
                    kinds.push(DriftKind::ColumnRetyped(column.name.clone()));
                }
                Some(_) => {}
            }
        }
    }
    let name: Arc<str> = table.name.to_string().into();
    let drift = |kind| Drift {
        table: Arc::clone(&name),
        kind,
    };
    kinds.into_iter().map(drift).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::{RelationColumn, ReplicaIdentity};

    fn relation(columns: &[(&str, u32, bool)]) -> Relation {
        let column = |(name, type_oid, in_identity): &(&str, u32, bool)| RelationColumn {
            name: (*name).to_owned(),
            in_identity: *in_identity,
            type_oid: *type_oid,
            type_modifier: -1,
        };
        Relation {
            oid: 1,
            schema: "public".to_owned(),
            name: "t".to_owned(),
            identity: ReplicaIdentity::Default,
            columns: columns.iter().map(column).collect(),
        }
    }

    fn table(columns: Option<&[&str]>) -> Table {
        Table {
            name: "t".parse().unwrap(),
            key: "id".to_owned(),
            columns: columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        }
    }

    const NONE: Option<&[Value<'static>]> = None;

    #[test]
    fn only_wanted_columns_are_told_and_the_key() {
        let relation = relation(&[("a", 25, false), ("id", 20, true), ("b", 16, false)]);
        let followed = Followed::new(&table(Some(&["b"])), &relation, &HashMap::new());
        let row = [Value::Text(b"x"), Value::Text(b"7"), Value::Null];
        let written = followed.write(&row[..], NONE).unwrap();
        assert_eq!(written.data, r#"{"id":7,"b":null}"#);
        assert_eq!(written.key, "7");
    }

    #[test]
    fn what_was_not_sent_is_left_out_or_taken_from_before() {
        let relation = relation(&[("id", 20, true), ("big", 25, false)]);
        let followed = Followed::new(&table(None), &relation, &HashMap::new());
        let row = [Value::Text(b"7"), Value::Unchanged];
        let written = followed.write(&row[..], NONE).unwrap();
        assert_eq!(written.data, r#"{"id":7}"#);
        assert_eq!(written.unchanged, ["big".into()]);
        let before = [Value::Text(b"7"), Value::Text(b"long")];
        let written = followed.write(&row[..], Some(&before[..])).unwrap();
        assert_eq!(written.data, r#"{"id":7,"big":"long"}"#);
        assert!(written.unchanged.is_empty());
    }

    #[test]
    fn rows_that_cannot_be_told_say_why() {
        let relation = relation(&[("id", 20, true), ("b", 25, false)]);
        let followed = Followed::new(&table(None), &relation, &HashMap::new());
        let reason = |row: &[Value<'static>]| followed.write(row, NONE).unwrap_err();
        assert_eq!(reason(&[Value::Null, Value::Null]), Unreadable::NoKey);
        assert_eq!(reason(&[Value::Text(b"7")]), Unreadable::Misfit);
        let bad = [Value::Text(b"7"), Value::Text(b"\xff")];
        assert_eq!(reason(&bad), Unreadable::NotUtf8("b".into()));
        let keyless = Followed::new(&table(None), &super::tests::relation(&[]), &HashMap::new());
        assert_eq!(keyless.write(&[][..], NONE), Err(Unreadable::NoKey));
    }

    #[test]
    fn drift_is_told_against_the_mapping_and_the_past() {
        let before = relation(&[("id", 20, true), ("a", 25, false), ("b", 25, false)]);
        let now = relation(&[("id", 23, false), ("b", 25, true), ("c", 25, false)]);
        let kinds = |table: &Table, before: Option<&Relation>, now: &Relation| -> Vec<String> {
            let drifts = drift(table, before, now);
            drifts.iter().map(|drift| drift.kind.to_string()).collect()
        };
        assert_eq!(
            kinds(&table(None), Some(&before), &now),
            [
                "key column id is not part of the replica identity",
                "column a is missing",
                "column id has another type",
                "column c is new"
            ]
        );
        assert_eq!(
            kinds(&table(Some(&["z"])), None, &before),
            ["column z is missing"]
        );
        assert!(kinds(&table(None), Some(&before), &before).is_empty());
        let (moved, keyless) = (relation(&[("x", 25, true)]), relation(&[("id", 20, false)]));
        assert_eq!(
            kinds(&table(None), None, &moved),
            ["key column id is missing"]
        );
        assert_eq!(
            kinds(&table(None), None, &keyless),
            ["the table has no replica identity"]
        );
    }
}
