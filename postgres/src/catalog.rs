//! Questions to the server's catalog.

use std::collections::HashMap;

use crate::connection::{Connection, Row};
use crate::error::Error;
use crate::json::{Kind, built_in};
use crate::pgoutput::{Relation, RelationColumn, ReplicaIdentity};
use crate::table::{TableName, literal};

/// A table as the catalog has it.
#[derive(Debug, Clone)]
pub(crate) struct CatalogTable {
    /// As the stream would tell it: generated columns are not replicated.
    pub(crate) relation: Relation,
    /// Whether its rows lie in partitions.
    pub(crate) partitioned: bool,
}

/// First number that the server gives to what users make (`FirstNormalObjectId`).
const USER_OID_MIN: u32 = 16_384;

/// Domains over domains, arrays of domains: deeper ones are written as text.
const NESTING_MAX: usize = 8;

/// What the catalog says of a type.
struct TypeFacts {
    is_domain: bool,
    base: u32,
    /// Of an array; else 0.
    element: u32,
}

/// The table, `None` if there is none of this name.
pub(crate) async fn table(
    connection: &mut Connection,
    name: &TableName,
) -> Result<Option<CatalogTable>, Error> {
    let sql = format!(
        "SELECT c.oid, c.relkind, c.relreplident, a.attname, a.atttypid, a.atttypmod,
            c.relreplident = 'f' OR EXISTS (
                SELECT 1 FROM pg_catalog.pg_index i
                WHERE i.indrelid = c.oid AND a.attnum = ANY (i.indkey)
                AND CASE c.relreplident WHEN 'd' THEN i.indisprimary
                    WHEN 'i' THEN i.indisreplident ELSE false END)
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
        WHERE n.nspname = {} AND c.relname = {} AND c.relkind IN ('r', 'p')
        AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        ORDER BY a.attnum",
        literal(name.schema()),
        literal(name.name()),
    );
    let rows = connection.query(&sql).await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let relation = Relation {
        oid: number(first, 0)?,
        schema: name.schema().to_owned(),
        name: name.name().to_owned(),
        identity: match text(first, 2)? {
            "d" => ReplicaIdentity::Default,
            "n" => ReplicaIdentity::Nothing,
            "f" => ReplicaIdentity::Full,
            _ => ReplicaIdentity::Index,
        },
        columns: rows.iter().map(column).collect::<Result<_, _>>()?,
    };
    Ok(Some(CatalogTable {
        partitioned: text(first, 1)? == "p",
        relation,
    }))
}

/// How values of types that users made are written, among those of a table.
pub(crate) async fn user_kinds(
    connection: &mut Connection,
    relation: &Relation,
) -> Result<HashMap<u32, Kind>, Error> {
    let user_types = |oid: &u32| *oid >= USER_OID_MIN;
    let wanted: Vec<u32> = relation
        .columns
        .iter()
        .map(|column| column.type_oid)
        .collect();
    let mut facts: HashMap<u32, TypeFacts> = HashMap::new();
    let mut open: Vec<u32> = wanted.iter().copied().filter(user_types).collect();
    for _ in 0..NESTING_MAX {
        if open.is_empty() {
            break;
        }
        let list: Vec<String> = open.iter().map(u32::to_string).collect();
        let sql = format!(
            "SELECT oid, typtype, typbasetype,
                CASE WHEN typcategory = 'A' THEN typelem ELSE 0 END
            FROM pg_catalog.pg_type WHERE oid IN ({})",
            list.join(",")
        );
        open.clear();
        for row in connection.query(&sql).await? {
            let known = TypeFacts {
                is_domain: text(&row, 1)? == "d",
                base: number(&row, 2)?,
                element: number(&row, 3)?,
            };
            open.extend(
                [known.base, known.element]
                    .iter()
                    .filter(|oid| user_types(oid)),
            );
            facts.insert(number(&row, 0)?, known);
        }
    }
    let kinds = wanted.into_iter().filter(user_types);
    Ok(kinds
        .map(|oid| (oid, kind(oid, &facts, NESTING_MAX)))
        .collect())
}

/// Whether a table has columns of types that have to be asked for.
pub(crate) fn has_user_types(relation: &Relation) -> bool {
    let mut columns = relation.columns.iter();
    columns.any(|column| column.type_oid >= USER_OID_MIN)
}

fn kind(oid: u32, facts: &HashMap<u32, TypeFacts>, nesting_left: usize) -> Kind {
    if oid < USER_OID_MIN {
        return built_in(oid);
    }
    match facts.get(&oid) {
        _ if nesting_left == 0 => Kind::Text,
        Some(known) if known.is_domain => kind(known.base, facts, nesting_left - 1),
        Some(known) if known.element != 0 => {
            Kind::Array(Box::new(kind(known.element, facts, nesting_left - 1)))
        }
        _ => Kind::Text,
    }
}

fn column(row: &Row) -> Result<RelationColumn, Error> {
    Ok(RelationColumn {
        name: text(row, 3)?.to_owned(),
        type_oid: number(row, 4)?,
        type_modifier: number(row, 5)?,
        in_identity: text(row, 6)? == "t",
    })
}

/// A value that cannot be null.
pub(crate) fn text(row: &Row, at: usize) -> Result<&str, Error> {
    let value = row.get(at).and_then(Option::as_deref);
    value.ok_or(Error::Protocol("a catalog's row without a value"))
}

fn number<T: std::str::FromStr>(row: &Row, at: usize) -> Result<T, Error> {
    let bad = |_| Error::Protocol("a catalog's number that is none");
    text(row, at)?.parse().map_err(bad)
}
