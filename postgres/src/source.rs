//! A follower of tables: first all their rows, then every change, in the order of commits.

mod follow;
mod setup;
mod snapshot;
mod transactions;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

pub use follow::follow;
use snapshot::Snapshot;
use transactions::{Progress, Transactions};

use crate::address::Address;
use crate::catalog;
use crate::change::Event;
use crate::clock::now_us;
use crate::connection::{Connection, Frame};
use crate::error::Error;
use crate::lsn::Lsn;
use crate::pgoutput::{Message, Relation};
use crate::table::Table;
use crate::walsender::{DATA_HEADER_BYTES, FromServer, StatusUpdate};

/// What is followed and how.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// Where. The role needs `REPLICATION`, and to own the tables or the publication.
    pub address: Address,
    /// The replication slot's name; it is made if there is none. It must be of this source
    /// alone, and survives it: a slot that nobody reads makes the server keep its log.
    pub slot: String,
    /// The publication's name; it is made if there is none, and tables it lacks are added.
    pub publication: String,
    /// What is followed.
    pub tables: Vec<Table>,
    /// Replication origins whose transactions are ours and are not told.
    pub own_origins: Vec<String>,
}

/// Follows tables by a replication slot. It holds no more than one message and its events: while
/// nobody asks for the next event, the socket is not read and the server waits.
#[derive(Debug)]
pub struct Source {
    settings: SourceSettings,
    connection: Connection,
    system_id: String,
    phase: Phase,
    transactions: Transactions,
    /// Events of the last message.
    pending: VecDeque<Event>,
    /// A table's look whose types have still to be asked for.
    unresolved: Option<Relation>,
    progress: Confirmation,
    report_interval: Duration,
    /// Whether anything came since the last report.
    heard: bool,
}

#[derive(Debug)]
enum Phase {
    /// Rows as they were when the slot was made. The slot is still temporary.
    Snapshot(Box<Snapshot>),
    /// Everything was told and has to be confirmed before the slot becomes permanent.
    SnapshotTold {
        lsn: Lsn,
    },
    Streaming,
}

/// What may be forgotten by the server.
#[derive(Debug, Default)]
struct Confirmation {
    /// The highest position that the server has mentioned.
    received: Lsn,
    /// The end of the last transaction of which anything was told.
    told: Lsn,
    /// By the caller.
    confirmed: Lsn,
    /// Up to here there is nothing beyond what was told.
    nothing_else_until: Lsn,
    /// What the server may forget. Never moves back: not every server bears that.
    durable: Lsn,
}

impl Source {
    /// Connects, and makes publication and slot if they are missing. A slot that is there is
    /// followed from where it was confirmed last; a new one begins with a snapshot.
    ///
    /// # Errors
    /// See [`Error`]; what was made before stays.
    pub async fn open(settings: SourceSettings) -> Result<Source, Error> {
        setup::open(settings).await
    }

    /// The next event. May be given up while it waits. After [`Event::SnapshotEnded`] it waits
    /// until that is confirmed.
    ///
    /// # Errors
    /// The connection broke, or the server says what cannot be understood. The source can then
    /// only be reopened.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            if let Some(relation) = &self.unresolved {
                let mut questions = Connection::open(&self.settings.address).await?;
                let kinds = catalog::user_kinds(&mut questions, relation).await?;
                let relation = self.unresolved.take().expect("just looked at");
                self.transactions
                    .install(relation, &kinds, &mut self.pending);
                questions.close().await;
                continue;
            }
            match &mut self.phase {
                Phase::Snapshot(snapshot) => match snapshot.next().await? {
                    Some(event) => return Ok(event),
                    None => {
                        let lsn = snapshot.lsn();
                        self.phase = Phase::SnapshotTold { lsn };
                        return Ok(Event::SnapshotEnded { lsn });
                    }
                },
                Phase::SnapshotTold { .. } => std::future::pending().await,
                Phase::Streaming => {
                    let frame = self.connection.read().await?.accepted()?;
                    self.heard = true;
                    self.take(&frame)?;
                }
            }
        }
    }

    /// Says that everything up to this position, as [`Event::Committed`] or
    /// [`Event::SnapshotEnded`] gave it, is durable: the server may forget it. Must not be given
    /// up half way.
    ///
    /// # Errors
    /// The connection broke; what was confirmed may be told again.
    pub async fn confirm(&mut self, lsn: Lsn) -> Result<(), Error> {
        self.progress.confirm(lsn);
        match self.phase {
            Phase::SnapshotTold { lsn: end } if lsn >= end => {
                setup::keep_slot(&mut self.connection, &self.settings).await?;
                setup::start(&mut self.connection, &self.settings, end).await?;
                self.phase = Phase::Streaming;
                Ok(())
            }
            Phase::Streaming => {
                self.stage_report(false);
                self.connection.flush().await
            }
            Phase::Snapshot(_) | Phase::SnapshotTold { .. } => Ok(()),
        }
    }

    /// Tells the server that we live. Called at least every [`Source::report_interval`], also
    /// while events wait for somebody to take them. Answers whether anything was heard of the
    /// server since the last time; if not, it is asked for a word.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn report(&mut self) -> Result<bool, Error> {
        if !matches!(self.phase, Phase::Streaming) {
            return Ok(true);
        }
        let heard = std::mem::take(&mut self.heard);
        self.stage_report(!heard);
        self.connection.flush().await?;
        Ok(heard)
    }

    /// How often the server wants to hear of us at least.
    pub fn report_interval(&self) -> Duration {
        self.report_interval
    }

    /// Up to where the server was told that nothing is needed any more.
    pub fn durable(&self) -> Lsn {
        self.progress.durable
    }

    /// Whether rows are still being read, or were and are not yet confirmed.
    pub fn is_in_snapshot(&self) -> bool {
        !matches!(self.phase, Phase::Streaming)
    }

    /// Connects again after an error, without telling again what this source has told. A
    /// snapshot that was not confirmed begins again.
    ///
    /// # Errors
    /// As [`Source::open`], and when another cluster answers.
    pub async fn reopen(&mut self) -> Result<(), Error> {
        let mut fresh = Source::open(self.settings.clone()).await?;
        if fresh.system_id != self.system_id {
            return Err(Error::OtherCluster {
                expected: self.system_id.clone(),
                found: fresh.system_id,
            });
        }
        self.pending.append(&mut fresh.pending);
        fresh.pending = std::mem::take(&mut self.pending);
        if matches!(fresh.phase, Phase::Streaming) {
            std::mem::swap(&mut fresh.transactions, &mut self.transactions);
            fresh.transactions.restart();
            std::mem::swap(&mut fresh.progress, &mut self.progress);
        }
        *self = fresh;
        Ok(())
    }

    /// Closes the connection; the slot stays.
    pub async fn close(self) {
        self.connection.close().await;
    }

    fn take(&mut self, frame: &Frame) -> Result<(), Error> {
        match frame.tag {
            b'd' => {}
            // How a server that is shut down in order takes its leave.
            b'c' | b'C' => return Err(Error::Broken(io::ErrorKind::ConnectionAborted.into())),
            _ => return Err(Error::Protocol("an unexpected message in the stream")),
        }
        if frame.cut_from_bytes > 0 {
            return self.take_cut(frame);
        }
        match FromServer::decode(&frame.body).map_err(undecodable)? {
            FromServer::Data(bytes) => {
                let message = Message::decode(bytes).map_err(undecodable)?;
                match self.transactions.handle(message, &mut self.pending)? {
                    Progress::Within => {}
                    Progress::Relation(relation) if catalog::has_user_types(&relation) => {
                        self.unresolved = Some(relation);
                    }
                    Progress::Relation(relation) => {
                        let none = std::collections::HashMap::new();
                        self.transactions
                            .install(relation, &none, &mut self.pending);
                    }
                    Progress::Committed { end_lsn, told_any } => {
                        self.progress.commit(end_lsn, told_any);
                        if told_any {
                            self.pending.push_back(Event::Committed { lsn: end_lsn });
                        }
                    }
                }
            }
            FromServer::KeepAlive {
                sent_up_to,
                reply_wanted,
            } => {
                self.progress
                    .hear(sent_up_to, self.transactions.is_within());
                if reply_wanted {
                    self.stage_report(false);
                }
            }
        }
        Ok(())
    }

    /// Of a row too large its table can still be told.
    fn take_cut(&mut self, frame: &Frame) -> Result<(), Error> {
        let head = frame.body.get(DATA_HEADER_BYTES..).unwrap_or(b"");
        match head {
            [b'I' | b'U' | b'D', a, b, c, d, ..] => {
                let relation = u32::from_be_bytes([*a, *b, *c, *d]);
                let bytes = frame.cut_from_bytes - DATA_HEADER_BYTES;
                self.transactions
                    .too_large(relation, bytes, &mut self.pending)
            }
            // Another application's message.
            [b'M', ..] => Ok(()),
            _ => Err(Error::Protocol("a message that is too large")),
        }
    }

    fn stage_report(&mut self, reply_wanted: bool) {
        let update = StatusUpdate {
            received: self.progress.received,
            durable: self.progress.durable,
            now_us: now_us(),
            reply_wanted,
        };
        update.write(self.connection.outgoing());
    }
}

impl Confirmation {
    fn commit(&mut self, end_lsn: Lsn, told_any: bool) {
        self.received = self.received.max(end_lsn);
        if told_any {
            self.told = self.told.max(end_lsn);
        } else {
            self.nothing_else_until = self.nothing_else_until.max(end_lsn);
        }
        self.settle();
    }

    /// The server has sent everything up to here. Within a transaction that says nothing: its
    /// end is still to come, wherever it lies.
    fn hear(&mut self, sent_up_to: Lsn, within: bool) {
        self.received = self.received.max(sent_up_to);
        if !within {
            self.nothing_else_until = self.nothing_else_until.max(sent_up_to);
        }
        self.settle();
    }

    fn confirm(&mut self, lsn: Lsn) {
        self.confirmed = self.confirmed.max(lsn);
        self.settle();
    }

    /// While something told is not confirmed, what the caller says. Otherwise up to where there
    /// was nothing to tell, so that an idle table does not make the server keep its log.
    fn settle(&mut self) {
        let lsn = if self.confirmed >= self.told {
            self.confirmed.max(self.nothing_else_until)
        } else {
            self.confirmed
        };
        self.durable = self.durable.max(lsn);
    }
}

fn undecodable(_: crate::reader::DecodeError) -> Error {
    Error::Protocol("a replication message that cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_told_is_forgotten_before_it_is_confirmed() {
        let mut progress = Confirmation::default();
        progress.hear(Lsn(50), false);
        assert_eq!(progress.durable, Lsn(50));
        progress.commit(Lsn(100), true);
        progress.hear(Lsn(150), false);
        assert_eq!(progress.durable, Lsn(50));
        progress.confirm(Lsn(90));
        assert_eq!(progress.durable, Lsn(90));
        progress.confirm(Lsn(100));
        assert_eq!(progress.durable, Lsn(150));
        progress.confirm(Lsn(70));
        assert_eq!(progress.durable, Lsn(150));
    }

    #[test]
    fn a_word_in_the_middle_of_a_transaction_confirms_nothing() {
        let mut progress = Confirmation::default();
        progress.hear(Lsn(50), true);
        assert_eq!((progress.durable, progress.received), (Lsn(0), Lsn(50)));
    }

    #[test]
    fn transactions_without_a_change_for_us_are_confirmed_by_themselves() {
        let mut progress = Confirmation::default();
        progress.commit(Lsn(100), false);
        assert_eq!(progress.durable, Lsn(100));
        progress.commit(Lsn(200), true);
        progress.commit(Lsn(300), false);
        assert_eq!(progress.durable, Lsn(100));
        progress.confirm(Lsn(200));
        assert_eq!(progress.durable, Lsn(300));
    }
}
