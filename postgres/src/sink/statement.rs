//! The statements that write a table.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::parameter::parameter;
use super::{Refusal, SinkTable, Write, WriteOperation};
use crate::catalog::{self, text};
use crate::connection::Connection;
use crate::error::Error;
use crate::json::{Kind, built_in};
use crate::table::{TableName, literal, quoted};

/// A table as it can be written.
#[derive(Debug)]
pub(super) struct Target {
    table: SinkTable,
    columns: BTreeMap<String, TargetColumn>,
}

#[derive(Debug)]
pub(super) struct TargetColumn {
    /// Its type as SQL names it, without length or precision: a cast to `varchar(5)` would cut
    /// a longer text silently, an assignment refuses it.
    type_name: String,
    kind: Kind,
}

/// Writes of one shape share a prepared statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) table: TableName,
    operation: WriteOperation,
    /// Beside the key, in the order of the parameters behind it.
    columns: Vec<String>,
}

impl Target {
    /// Looks at the table.
    pub(super) async fn read(
        connection: &mut Connection,
        table: &SinkTable,
    ) -> Result<Target, Error> {
        let missing = |column: &str| Error::NoColumn {
            table: table.name.clone(),
            column: column.to_owned(),
        };
        let seen = catalog::table(connection, &table.name).await?;
        let seen = seen.ok_or_else(|| missing(&table.key))?;
        let kinds = catalog::user_kinds(connection, &seen.relation).await?;
        let sql = format!(
            "SELECT attname, pg_catalog.format_type(atttypid, -1) FROM pg_catalog.pg_attribute
            WHERE attrelid = {} AND attnum > 0 AND NOT attisdropped",
            seen.relation.oid
        );
        let mut type_names = BTreeMap::new();
        for row in connection.query(&sql).await? {
            type_names.insert(text(&row, 0)?.to_owned(), text(&row, 1)?.to_owned());
        }
        let columns = seen.relation.columns.iter().filter_map(|column| {
            let kind = kinds.get(&column.type_oid).cloned();
            let column_of_target = TargetColumn {
                type_name: type_names.get(&column.name)?.clone(),
                kind: kind.unwrap_or_else(|| built_in(column.type_oid)),
            };
            Some((column.name.clone(), column_of_target))
        });
        let target = Target {
            columns: columns.collect(),
            table: table.clone(),
        };
        for needed in [Some(&table.key), table.deleted.as_ref()]
            .into_iter()
            .flatten()
        {
            if !target.columns.contains_key(needed) {
                return Err(missing(needed));
            }
        }
        let unique = format!(
            "SELECT 1 FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a
                ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
            WHERE i.indrelid = {} AND i.indisunique AND i.indnkeyatts = 1
            AND i.indpred IS NULL AND a.attname = {}",
            seen.relation.oid,
            literal(&table.key)
        );
        if connection.query(&unique).await?.is_empty() {
            return Err(Error::KeyNotUnique {
                table: table.name.clone(),
                column: table.key.clone(),
            });
        }
        Ok(target)
    }

    /// A write's shape and parameters, the key first.
    pub(super) fn render(&self, write: &Write) -> Result<(Shape, Vec<Option<String>>), Refusal> {
        let mut shape = Shape {
            table: write.table.clone(),
            operation: write.operation,
            columns: Vec::new(),
        };
        let mut parameters = vec![Some(write.key.clone())];
        if write.operation == WriteOperation::Upsert {
            let fields: BTreeMap<String, &RawValue> =
                serde_json::from_str(&write.data).map_err(|_| Refusal::NotAnObject)?;
            for (name, value) in fields {
                if name == self.table.key {
                    continue;
                }
                let Some(column) = self.columns.get(&name) else {
                    return Err(Refusal::UnknownColumn(name));
                };
                let parameter = parameter(&column.kind, value);
                parameters.push(parameter.map_err(|_| Refusal::NotBase64(name.clone()))?);
                shape.columns.push(name);
            }
        }
        Ok((shape, parameters))
    }

    /// The statement of a shape.
    pub(super) fn sql(&self, shape: &Shape) -> String {
        match shape.operation {
            WriteOperation::Upsert => self.upsert(shape),
            WriteOperation::Delete => self.delete(),
        }
    }

    /// Updates first and inserts if nothing was there. A plain `INSERT ... ON CONFLICT` of some
    /// columns fails on a column that may not be null and is not among them, even if the row
    /// exists; it remains for the row that somebody inserts at the same time.
    fn upsert(&self, shape: &Shape) -> String {
        let table = self.table.name.quoted();
        let key = quoted(&self.table.key);
        let mut names = vec![key.clone()];
        let mut values = vec![self.cast(1, &self.table.key)];
        for (at, column) in (2..).zip(&shape.columns) {
            names.push(quoted(column));
            values.push(self.cast(at, column));
        }
        let pairs = names.iter().zip(&values).skip(1);
        let mut update: Vec<String> = pairs
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        let mut overwrite: Vec<String> = names
            .iter()
            .skip(1)
            .map(|name| format!("{name} = EXCLUDED.{name}"))
            .collect();
        // A row that comes back is no longer deleted.
        if let Some(deleted) = self
            .table
            .deleted
            .as_ref()
            .filter(|name| !shape.columns.contains(name))
        {
            let undo = format!("{} = {}", quoted(deleted), self.mark(deleted, false));
            update.push(undo.clone());
            overwrite.push(undo);
        }
        let (names, values) = (names.join(", "), values.join(", "));
        if update.is_empty() {
            return format!(
                "INSERT INTO {table} ({names}) VALUES ({values}) ON CONFLICT ({key}) DO NOTHING"
            );
        }
        format!(
            "WITH updated AS (UPDATE {table} SET {} WHERE {key} = {} RETURNING 1)
            INSERT INTO {table} ({names}) SELECT {values}
            WHERE NOT EXISTS (SELECT FROM updated)
            ON CONFLICT ({key}) DO UPDATE SET {}",
            update.join(", "),
            self.cast(1, &self.table.key),
            overwrite.join(", "),
        )
    }

    fn delete(&self) -> String {
        let table = self.table.name.quoted();
        let its_key = format!(
            "{} = {}",
            quoted(&self.table.key),
            self.cast(1, &self.table.key)
        );
        match &self.table.deleted {
            None => format!("DELETE FROM {table} WHERE {its_key}"),
            Some(deleted) => {
                let (column, none) = (quoted(deleted), self.mark(deleted, false));
                let mark = self.mark(deleted, true);
                // The first deletion's time stays.
                format!(
                    "UPDATE {table} SET {column} = {mark} WHERE {its_key}
                    AND coalesce({column}, {none}) IS NOT DISTINCT FROM {none}"
                )
            }
        }
    }

    /// What stands in the column that marks deleted rows.
    fn mark(&self, column: &str, deleted: bool) -> &'static str {
        let boolean = self
            .columns
            .get(column)
            .is_some_and(|column| column.kind == Kind::Boolean);
        match (boolean, deleted) {
            (true, true) => "true",
            (true, false) => "false",
            (false, true) => "now()",
            (false, false) => "NULL",
        }
    }

    fn cast(&self, parameter: usize, column: &str) -> String {
        let type_name = self
            .columns
            .get(column)
            .map_or("text", |column| &column.type_name);
        format!("CAST(${parameter} AS {type_name})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(deleted: Option<&str>) -> Target {
        let column = |name: &str, type_name: &str, kind| {
            let type_name = type_name.to_owned();
            (name.to_owned(), TargetColumn { type_name, kind })
        };
        Target {
            table: SinkTable {
                name: "t".parse().unwrap(),
                key: "id".to_owned(),
                deleted: deleted.map(str::to_owned),
            },
            columns: BTreeMap::from([
                column("id", "bigint", Kind::Integer),
                column("name", "character varying", Kind::Text),
                column("gone", "boolean", Kind::Boolean),
            ]),
        }
    }

    fn write(data: &str) -> Write {
        Write {
            seq: 1,
            table: "t".parse().unwrap(),
            key: "7".to_owned(),
            operation: WriteOperation::Upsert,
            data: data.to_owned(),
        }
    }

    #[test]
    fn the_key_is_not_set_twice_and_columns_have_one_order() {
        let target = target(None);
        let (shape, parameters) = target
            .render(&write(r#"{"name":"a","id":9,"gone":false}"#))
            .unwrap();
        assert_eq!(shape.columns, ["gone", "name"]);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(parameters, [text("7"), text("false"), text("a")]);
        let (same, _) = target
            .render(&write(r#"{"gone":true,"name":null}"#))
            .unwrap();
        assert_eq!(shape, same);
    }

    #[test]
    fn what_the_table_does_not_have_is_refused() {
        let refusal = |data| target(None).render(&write(data)).unwrap_err();
        assert_eq!(
            refusal(r#"{"mail":"x"}"#),
            Refusal::UnknownColumn("mail".to_owned())
        );
        assert_eq!(refusal("[]"), Refusal::NotAnObject);
        assert_eq!(refusal("{"), Refusal::NotAnObject);
    }

    #[test]
    fn a_row_that_comes_back_loses_its_mark() {
        let marked = target(Some("gone"));
        let (shape, _) = marked.render(&write(r#"{"name":"a"}"#)).unwrap();
        assert!(marked.sql(&shape).contains(r#""gone" = false"#));
        let (shape, _) = marked.render(&write(r#"{"gone":true}"#)).unwrap();
        assert!(!marked.sql(&shape).contains("= false"));
        let (shape, _) = target(None).render(&write("{}")).unwrap();
        assert!(target(None).sql(&shape).ends_with("DO NOTHING"));
    }
}
