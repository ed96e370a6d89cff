//! The rows of a table as they are now, a page at a time in the order of the key.

use std::collections::HashMap;

use crate::address::Address;
use crate::catalog::{self, CatalogTable};
use crate::change::Unreadable;
use crate::connection::{Connection, Frame};
use crate::copy_row::CopyRow;
use crate::error::Error;
use crate::followed::Followed;
use crate::json::Kind;
use crate::pgoutput::Value;
use crate::table::{Table, literal, quoted};

/// Reads a table from a key on. Each page is a statement of its own and sees what was committed
/// before it; nothing stays open in between.
#[derive(Debug)]
pub struct Pages {
    connection: Connection,
    table: Table,
    seen: CatalogTable,
    kinds: HashMap<u32, Kind>,
    after: Option<String>,
    scratch: CopyRow,
}

/// A row of a page, as the source would tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    /// The text of its key.
    pub key: String,
    /// The text of a JSON object.
    pub data: String,
}

/// A part of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TablePage {
    /// In the order of their keys.
    pub rows: Vec<TableRow>,
    /// Rows that cannot be told, with the reasons. One at the end of a page comes with the next
    /// page again.
    pub unreadable: Vec<Unreadable>,
    /// There is nothing behind it.
    pub is_last: bool,
}

/// Rows of a page, at most: a page is held in memory.
pub const PAGE_ROWS_MAX: usize = 1_000;

impl Pages {
    /// Reads `table` behind the row of this key, or from its beginning.
    ///
    /// # Errors
    /// No connection, or no such table with such a key.
    pub async fn open(
        address: &Address,
        table: &Table,
        after: Option<String>,
    ) -> Result<Pages, Error> {
        let mut connection = Connection::open(address).await?;
        let seen = catalog::table(&mut connection, &table.name).await?;
        let has_key = |seen: &CatalogTable| {
            let mut columns = seen.relation.columns.iter();
            columns.any(|column| column.name == table.key)
        };
        let seen = seen.filter(has_key).ok_or_else(|| Error::Setting {
            what: "table",
            value: table.name.to_string(),
            reason: "there is no such table with such a key",
        })?;
        let kinds = catalog::user_kinds(&mut connection, &seen.relation).await?;
        Ok(Pages {
            connection,
            table: table.clone(),
            seen,
            kinds,
            after,
            scratch: CopyRow::default(),
        })
    }

    /// The key up to which all was read.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The next rows, at most `rows_max` and [`PAGE_ROWS_MAX`].
    ///
    /// # Errors
    /// The connection failed, or the server refused. Another [`Pages`] goes on behind `after`.
    pub async fn next(&mut self, rows_max: usize) -> Result<TablePage, Error> {
        let rows_max = rows_max.clamp(1, PAGE_ROWS_MAX);
        let followed = Followed::new(&self.table, &self.seen.relation, &self.kinds);
        self.connection.stage_query(&self.statement(rows_max))?;
        let mut page = TablePage::default();
        let mut count = 0;
        loop {
            let frame = self.connection.read().await?.accepted()?;
            match frame.tag {
                b'd' => {
                    count += 1;
                    self.take(&followed, &frame, &mut page);
                }
                b'Z' => break,
                // Begin and end of the copy, end of the statement.
                b'H' | b'c' | b'C' => {}
                _ => return Err(Error::Protocol("an unexpected message in a copy")),
            }
        }
        page.is_last = count < rows_max;
        if page.rows.is_empty() && !page.is_last {
            return Err(Error::Protocol("a page without a row that can be told"));
        }
        Ok(page)
    }

    /// Ends the connection in order.
    pub async fn close(self) {
        self.connection.close().await;
    }

    fn take(&mut self, followed: &Followed, frame: &Frame, page: &mut TablePage) {
        if frame.cut_from_bytes > 0 {
            let bytes = frame.cut_from_bytes;
            return page.unreadable.push(Unreadable::TooLarge { bytes });
        }
        self.scratch.parse(&frame.body);
        let written = followed.write(&self.scratch.values()[..], None::<&[Value<'_>]>);
        match written {
            Ok(written) => {
                self.after = Some(written.key.clone());
                page.rows.push(TableRow {
                    key: written.key,
                    data: written.data,
                });
            }
            Err(reason) => page.unreadable.push(reason),
        }
    }

    /// Reads the columns that the stream tells, in its order.
    fn statement(&self, rows_max: usize) -> String {
        let columns = self.seen.relation.columns.iter();
        let columns: Vec<String> = columns.map(|column| quoted(&column.name)).collect();
        let only = if self.seen.partitioned { "" } else { "ONLY " };
        let key = quoted(&self.table.key);
        // A text without a type is read as the column's, so it is the column's order.
        let behind = self.after.as_deref();
        let behind = behind.map(|after| format!("> {}", literal(after)));
        let behind = behind.unwrap_or_else(|| "IS NOT NULL".to_owned());
        format!(
            "COPY (SELECT {} FROM {only}{} WHERE {key} {behind} ORDER BY {key} LIMIT {rows_max}) TO STDOUT",
            columns.join(", "),
            self.table.name.quoted(),
        )
    }
}
