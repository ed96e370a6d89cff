//! Names of tables and columns, and what is followed of a table.

use std::fmt;
use std::str::FromStr;

use postgres_protocol::escape::escape_identifier;

use crate::error::Error;

/// A table with its schema. Both are exact: no folding to lower case, no search path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    schema: String,
    name: String,
}

/// A table whose changes are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Which.
    pub name: TableName,
    /// The column whose text is the key of a change. It should be the primary key, or be part of
    /// the replica identity in another way: else deletes come without it.
    pub key: String,
    /// The columns that are told, `None` for all.
    pub columns: Option<Vec<String>>,
}

/// Longest name that the server keeps whole (`NAMEDATALEN` - 1).
pub(crate) const NAME_BYTES_MAX: usize = 63;

impl TableName {
    /// # Errors
    /// A part is empty, too long for the server or holds a NUL.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Result<TableName, Error> {
        let table = TableName {
            schema: schema.into(),
            name: name.into(),
        };
        check_name("schema", &table.schema)?;
        check_name("table", &table.name)?;
        Ok(table)
    }

    /// The schema's name.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The table's name within its schema.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As SQL takes it.
    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// `public.contacts`, or `contacts` for the same.
impl FromStr for TableName {
    type Err = Error;

    fn from_str(text: &str) -> Result<TableName, Error> {
        match text.split_once('.') {
            Some((schema, name)) => TableName::new(schema, name),
            None => TableName::new("public", text),
        }
    }
}

/// A name as SQL takes it.
pub(crate) fn quoted(name: &str) -> String {
    escape_identifier(name)
}

/// A text as SQL takes it.
pub(crate) fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
}

/// That the server takes and keeps this name as it is.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_BYTES_MAX {
        "it is longer than 63 bytes"
    } else if name.contains('\0') {
        "it holds a NUL"
    } else {
        return Ok(());
    };
    Err(Error::Setting {
        what,
        value: name.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_schema_is_in_public() {
        let table: TableName = "contacts".parse().unwrap();
        assert_eq!(table.to_string(), "public.contacts");
        let table: TableName = "crm.Contact\"s".parse().unwrap();
        assert_eq!(table.quoted(), r#""crm"."Contact""s""#);
    }

    #[test]
    fn names_that_the_server_would_cut_are_refused() {
        for bad in ["", ".", "a.", "x\0", &"n".repeat(64)] {
            assert!(bad.parse::<TableName>().is_err(), "{bad:?}");
        }
    }
}
