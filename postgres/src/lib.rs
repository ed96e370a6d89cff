//! PostgreSQL as System A: changes come out of its log by logical replication, and go into its
//! tables by statements. What is promised and how it is kept: `docs/design/postgres.md`.

#![forbid(unsafe_code)]

mod address;
mod catalog;
mod change;
mod clock;
mod connection;
mod copy_row;
mod error;
mod followed;
mod json;
mod lsn;
mod pages;
pub mod pgoutput;
mod reader;
mod sink;
mod source;
mod table;
mod walsender;

pub use address::{Address, AddressError, Host, Password, Tls};
pub use change::{Change, Drift, DriftKind, Event, Operation, Unreadable};
pub use connection::{Connection, Row};
pub use error::{Error, ServerError};
pub use lsn::{Lsn, LsnError};
pub use pages::{PAGE_ROWS_MAX, Pages, TablePage, TableRow};
pub use reader::DecodeError;
pub use sink::{
    Outcome, Refusal, Sink, SinkSettings, SinkTable, WRITES_MAX, Write, WriteOperation,
};
pub use source::{Source, SourceSettings, follow};
pub use table::{Table, TableName};

/// Oldest major version of the server that is supported: it has everything used here, and the
/// ones before get no fixes any more.
pub const SERVER_VERSION_MIN: u32 = 14;
