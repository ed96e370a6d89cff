//! All rows of the tables, as they were when the slot began.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::catalog::{CatalogTable, text};
use crate::change::{Change, Event, Operation, Unreadable};
use crate::connection::{Connection, Frame};
use crate::copy_row::CopyRow;
use crate::error::Error;
use crate::followed::Followed;
use crate::json::Kind;
use crate::lsn::Lsn;
use crate::pgoutput::Value;
use crate::table::{Table, quoted};

/// A transaction that reads table after table.
#[derive(Debug)]
pub(super) struct Snapshot {
    connection: Connection,
    lsn: Lsn,
    taken_at_ms: i64,
    announced: bool,
    /// Still to be read, with the statement that does it.
    waiting: VecDeque<(Followed, String)>,
    reading: Option<Followed>,
    /// Rows read so far, of all tables.
    rows: u64,
    scratch: CopyRow,
}

impl Snapshot {
    /// Reads these tables over a connection whose transaction sees the slot's beginning.
    pub(super) async fn new(
        mut connection: Connection,
        lsn: Lsn,
        tables: Vec<(&Table, CatalogTable, HashMap<u32, Kind>)>,
    ) -> Result<Snapshot, Error> {
        let sql = "SELECT (extract(epoch FROM now()) * 1000)::bigint";
        let rows = connection.query(sql).await?;
        let bad = Error::Protocol("a time that is none");
        let row = rows.first().ok_or(bad)?;
        let taken_at_ms = text(row, 0)?;
        let taken_at_ms = taken_at_ms
            .parse()
            .map_err(|_| Error::Protocol("a time that is none"))?;
        let statement = |(table, seen, kinds): (&Table, CatalogTable, HashMap<u32, Kind>)| {
            let followed = Followed::new(table, &seen.relation, &kinds);
            (followed, read_statement(table, &seen))
        };
        Ok(Snapshot {
            connection,
            lsn,
            taken_at_ms,
            announced: false,
            waiting: tables.into_iter().map(statement).collect(),
            reading: None,
            rows: 0,
            scratch: CopyRow::default(),
        })
    }

    pub(super) fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The next row, `None` when all were told. May be given up while it waits.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Error> {
        if !self.announced {
            self.announced = true;
            return Ok(Some(Event::SnapshotStarted { lsn: self.lsn }));
        }
        loop {
            if self.reading.is_none() {
                let Some((followed, sql)) = self.waiting.pop_front() else {
                    return Ok(None);
                };
                self.connection.stage_query(&sql)?;
                self.reading = Some(followed);
            }
            let frame = self.connection.read().await?.accepted()?;
            match frame.tag {
                b'd' => return Ok(Some(self.row(&frame))),
                b'Z' => self.reading = None,
                // Begin and end of the copy, end of the statement.
                b'H' | b'c' | b'C' => {}
                _ => return Err(Error::Protocol("an unexpected message in a copy")),
            }
        }
    }

    fn row(&mut self, frame: &Frame) -> Event {
        let table = self
            .reading
            .as_ref()
            .expect("rows come while a table is read");
        self.rows += 1;
        let written = if frame.cut_from_bytes > 0 {
            Err(Unreadable::TooLarge {
                bytes: frame.cut_from_bytes,
            })
        } else {
            self.scratch.parse(&frame.body);
            table.write(&self.scratch.values()[..], None::<&[Value<'_>]>)
        };
        let name = Arc::clone(table.name());
        match written {
            Ok(written) => Event::Change(Change {
                table: name,
                key: written.key,
                operation: Operation::Snapshot,
                data: written.data,
                before: None,
                unchanged: Vec::new(),
                changed_at_ms: self.taken_at_ms,
                lsn: self.lsn,
                row: self.rows,
                xid: 0,
            }),
            Err(reason) => Event::Unreadable {
                table: name,
                lsn: self.lsn,
                row: self.rows,
                reason,
            },
        }
    }
}

/// Reads exactly the columns that the stream tells, in its order.
fn read_statement(table: &Table, seen: &CatalogTable) -> String {
    let columns = seen.relation.columns.iter();
    let columns: Vec<String> = columns.map(|column| quoted(&column.name)).collect();
    // Tables that inherit from it are tables of their own for the stream; partitions are not.
    let only = if seen.partitioned { "" } else { "ONLY " };
    format!(
        "COPY (SELECT {} FROM {only}{}) TO STDOUT",
        columns.join(", "),
        table.name.quoted()
    )
}
