//! What a source tells.

use std::fmt;
use std::sync::Arc;

use crate::lsn::Lsn;

/// What a source tells, in the order of the transactions' commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All rows of the tables follow, as they were at this position.
    SnapshotStarted {
        /// The stream will begin here.
        lsn: Lsn,
    },
    /// A row is there, was changed or is gone.
    Change(Change),
    /// All rows have been told. Nothing follows until `lsn` is confirmed, and if it is not, the
    /// next start begins the snapshot again.
    SnapshotEnded {
        /// To be confirmed.
        lsn: Lsn,
    },
    /// A table was emptied by TRUNCATE; its rows are not told one by one.
    Truncated {
        /// Which, with its schema.
        table: Arc<str>,
        /// Where the commit record lies.
        lsn: Lsn,
        /// Its place among the transaction's rows.
        row: u64,
        /// When it was committed, Unix time.
        changed_at_ms: i64,
    },
    /// A row's change that cannot be told. The stream goes on behind it.
    Unreadable {
        /// Its table, with its schema.
        table: Arc<str>,
        /// Where the commit record lies.
        lsn: Lsn,
        /// Its place among the transaction's rows.
        row: u64,
        /// Why.
        reason: Unreadable,
    },
    /// A table is not, or no longer, as the mapping expects.
    Drift(Drift),
    /// All changes of a transaction have been told. Once they are durable, confirm this.
    Committed {
        /// To be confirmed.
        lsn: Lsn,
    },
    /// The connection was lost and will be tried again; nothing is lost by it.
    Interrupted {
        /// The error with its causes.
        reason: String,
    },
}

/// A row's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The table with its schema.
    pub table: Arc<str>,
    /// The text of the key column. A change of the key is told as the delete of the old one and
    /// the insert of the new one.
    pub key: String,
    /// What happened.
    pub operation: Operation,
    /// The row as a JSON object; of a delete the key alone.
    pub data: String,
    /// The row before, of updates and deletes of a table with `REPLICA IDENTITY FULL`.
    pub before: Option<String>,
    /// Columns that are missing in `data`: they are stored out of line, did not change, and so
    /// were not sent. They are not null.
    pub unchanged: Vec<Arc<str>>,
    /// When it was committed, Unix time; in a snapshot, when that was taken.
    pub changed_at_ms: i64,
    /// Where the commit record lies; in a snapshot, the position that it shows.
    pub lsn: Lsn,
    /// Its place among the transaction's rows, or the snapshot's.
    pub row: u64,
    /// The transaction's number; 0 in a snapshot.
    pub xid: u32,
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// It is new.
    Insert,
    /// It was changed.
    Update,
    /// It is gone.
    Delete,
    /// It was there when the snapshot was taken.
    Snapshot,
}

/// Why a row's change cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The key column is null, was not sent, or is no longer there.
    #[error("the row has no key")]
    NoKey,
    /// A value is not UTF-8: the database's encoding is `SQL_ASCII`.
    #[error("column {0} is not UTF-8")]
    NotUtf8(Arc<str>),
    /// The row is larger than is taken.
    #[error(
        "the row has {bytes} bytes, at most {} are taken",
        crate::connection::MESSAGE_BYTES_MAX
    )]
    TooLarge {
        /// How large it is on the wire.
        bytes: usize,
    },
    /// The row has another number of values than its table has columns.
    #[error("the row does not fit its table")]
    Misfit,
}

/// How a table differs from what is expected of it, or from what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The table with its schema.
    pub table: Arc<str>,
    /// The difference.
    pub kind: DriftKind,
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DriftKind {
    /// It does not exist, so nothing of it is told until a start finds it.
    #[error("the table does not exist")]
    TableMissing,
    /// It was added to what is followed after the snapshot: rows that were in it before are not
    /// told until they change.
    #[error("the table is followed from now on; its earlier rows were not read")]
    TableAdded,
    /// The key column is not there: its rows are told as unreadable.
    #[error("key column {0} is missing")]
    KeyMissing(String),
    /// The key column is not part of the replica identity: deletes are told as unreadable, and
    /// a change of the key looks like a new row.
    #[error("key column {0} is not part of the replica identity")]
    KeyNotInIdentity(String),
    /// There is no replica identity, such as a primary key. At the start such a table is left
    /// out: the server refuses updates and deletes of a published table without.
    #[error("the table has no replica identity")]
    NoIdentity,
    /// A column that is wanted is not there; the others are told.
    #[error("column {0} is missing")]
    ColumnMissing(String),
    /// A column has come. It is told if all columns are.
    #[error("column {0} is new")]
    ColumnAdded(String),
    /// A column has another type than before.
    #[error("column {0} has another type")]
    ColumnRetyped(String),
}

impl Change {
    /// A name for this change that is the same whenever it is told: the log's position, the
    /// row's place, and which half of a changed key it is. Unique within a slot's stream; names
    /// of snapshots are their own.
    pub fn id(&self) -> String {
        let half = match self.operation {
            Operation::Delete => "d",
            Operation::Snapshot => "s",
            Operation::Insert | Operation::Update => "",
        };
        format!("{}-{}{half}", self.lsn, self.row)
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.table, self.kind)
    }
}
