//! What can go wrong between us and a server.

use std::io;

use crate::table::TableName;

/// Why something could not be done. Unless a variant says otherwise, a source goes on where it
/// was once it is opened again, and a sink has written nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host is not this machine and TLS is off. Nothing was sent.
    #[error("{host} is not this machine: its password and rows need TLS (sslmode=verify-full)")]
    Insecure {
        /// The host as configured.
        host: String,
    },
    /// No connection was made.
    #[error("cannot connect to {to}")]
    Connect {
        /// Host and port, or the socket's path.
        to: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection broke. What was asked last may or may not have been done.
    #[error("the connection to PostgreSQL broke")]
    Broken(#[source] io::Error),
    /// The server said nothing for too long, so the connection was given up.
    #[error("PostgreSQL said nothing for {seconds} s")]
    Silent {
        /// How long it was silent.
        seconds: u64,
    },
    /// The server wants a proof that this client cannot give.
    #[error("PostgreSQL asks for an authentication that is not supported: {0}")]
    Authentication(&'static str),
    /// The server asks for a password and none is configured.
    #[error("PostgreSQL asks for a password and none is configured")]
    PasswordMissing,
    /// Bytes that are not PostgreSQL's protocol.
    #[error("not PostgreSQL's protocol: {0}")]
    Protocol(&'static str),
    /// The server refused a statement; the transaction it was in changed nothing.
    #[error("PostgreSQL refused: {0}")]
    Server(Box<ServerError>),
    /// The server refused a step of the preparation.
    #[error("{doing} was refused by PostgreSQL: {error}")]
    Setup {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        error: Box<ServerError>,
    },
    /// The server is older than what this client is built for.
    #[error(
        "PostgreSQL {found} is too old, {} or later is needed",
        crate::SERVER_VERSION_MIN
    )]
    TooOld {
        /// Its version as it says.
        found: String,
    },
    /// The server does not log what logical replication needs.
    #[error("wal_level is `{found}`, logical replication needs `logical` (and a restart)")]
    WalLevel {
        /// The level now.
        found: String,
    },
    /// A slot of this name is there and is not ours to read.
    #[error("replication slot {slot} cannot be used: {reason}")]
    SlotUnusable {
        /// Its name.
        slot: String,
        /// Why.
        reason: &'static str,
    },
    /// The server has dropped log that the slot still needed: changes are lost to it. Dropping
    /// the slot makes the next start begin with a new snapshot.
    #[error("replication slot {slot} has lost log it still needed; drop it to start over")]
    SlotLost {
        /// Its name.
        slot: String,
    },
    /// Under the same address there is now another cluster, whose positions mean nothing here.
    #[error("another cluster answers: system {found} instead of {expected}")]
    OtherCluster {
        /// The system identifier at the first connection.
        expected: String,
        /// The one now.
        found: String,
    },
    /// None of the tables asked for exists and has a replica identity.
    #[error("none of the tables to follow exists and has a replica identity")]
    NoTables,
    /// A table to write to, or its key, does not exist.
    #[error("table {table} has no column `{column}`, or does not exist")]
    NoColumn {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// The key of a table to write to has no unique index of its own.
    #[error("column `{column}` of table {table} has no unique index of its own")]
    KeyNotUnique {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// A setting that no server would take.
    #[error("{what} `{value}` is not valid: {reason}")]
    Setting {
        /// Which.
        what: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another writer has taken over this consumer and shard. Nothing of the batch was written.
    #[error("another writer moved consumer {consumer}, shard {shard} from {expected} to {found}")]
    Fenced {
        /// The consumer.
        consumer: String,
        /// The shard.
        shard: u32,
        /// Where this writer had left it.
        expected: u64,
        /// Where it stands.
        found: u64,
    },
}

/// What a server says when it refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (SQLSTATE {code})")]
pub struct ServerError {
    /// SQLSTATE, five characters.
    pub code: String,
    /// Its words. They may quote a value of the statement.
    pub message: String,
    /// The column it is about, if it says.
    pub column: Option<String>,
    /// The constraint that was violated, if it says.
    pub constraint: Option<String>,
}

impl Error {
    /// Whether time or the server's restart may cure it; otherwise somebody has to act.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Connect { .. } | Error::Broken(_) | Error::Silent { .. } => true,
            Error::Server(error) | Error::Setup { error, .. } => error.is_transient(),
            Error::Insecure { .. }
            | Error::Authentication(_)
            | Error::PasswordMissing
            | Error::Protocol(_)
            | Error::TooOld { .. }
            | Error::WalLevel { .. }
            | Error::SlotUnusable { .. }
            | Error::SlotLost { .. }
            | Error::OtherCluster { .. }
            | Error::NoTables
            | Error::NoColumn { .. }
            | Error::KeyNotUnique { .. }
            | Error::Setting { .. }
            | Error::Fenced { .. } => false,
        }
    }

    pub(crate) fn setup(doing: &'static str) -> impl FnOnce(Error) -> Error {
        move |error| match error {
            Error::Server(error) => Error::Setup { doing, error },
            other => other,
        }
    }
}

impl ServerError {
    /// Longest text kept of what a server says; its own messages are shorter than this.
    const TEXT_BYTES_MAX: usize = 1024;

    /// Reads the body of an error message; what cannot be read stays empty.
    pub(crate) fn parse(body: &[u8]) -> Box<ServerError> {
        let mut error = ServerError {
            code: String::new(),
            message: String::new(),
            column: None,
            constraint: None,
        };
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, text)) = field.split_first() else {
                continue;
            };
            let kept = &text[..text.len().min(ServerError::TEXT_BYTES_MAX)];
            let text = String::from_utf8_lossy(kept).into_owned();
            match kind {
                b'C' => error.code = text,
                b'M' => error.message = text,
                b'c' => error.column = Some(text),
                b'n' => error.constraint = Some(text),
                _ => {}
            }
        }
        Box::new(error)
    }

    /// Whether the same may be taken later: the server is starting or stopping, is short of
    /// something, a lock or a slot is held by someone else, or a conflict has to be tried again.
    pub fn is_transient(&self) -> bool {
        const CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];
        // In use, not available, not in the state for it, and there already: made by somebody at
        // the same moment, or left by a connection whose end the server has yet to notice.
        const CODES: [&str; 4] = ["55006", "55P03", "55000", "42710"];
        CLASSES.iter().any(|class| self.code.starts_with(class))
            || CODES.contains(&self.code.as_str())
    }

    /// Whether it says something about this one row: its values, a constraint, a trigger's veto.
    pub(crate) fn is_about_the_row(&self) -> bool {
        const CLASSES: [&str; 5] = ["22", "23", "42", "44", "P0"];
        // Missing rights are about the role.
        self.code != "42501"
            && !self.is_transient()
            && CLASSES.iter().any(|class| self.code.starts_with(class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_that_matter_are_read_and_no_bytes_are_refused() {
        let error = ServerError::parse(b"SERROR\0C23502\0Mnull value\0cemail\0\0");
        assert_eq!(error.to_string(), "null value (SQLSTATE 23502)");
        assert_eq!(error.column.as_deref(), Some("email"));
        assert!(error.is_about_the_row() && !error.is_transient());
        assert_eq!(ServerError::parse(b"\xff\0C").code, "");
    }

    #[test]
    fn what_time_can_cure_is_told_apart() {
        let with = |code: &str| ServerError::parse(format!("C{code}\0\0").as_bytes());
        for code in ["57P03", "40001", "55006", "53300"] {
            assert!(with(code).is_transient(), "{code}");
            assert!(!with(code).is_about_the_row(), "{code}");
        }
        assert!(!with("42501").is_transient());
        assert!(!with("42501").is_about_the_row());
    }
}
