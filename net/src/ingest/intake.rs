//! The port between a connection's protocol and the engine that takes its events.

use std::fmt;
use std::sync::Arc;

use engine::refusal::{Code, Refusal};

/// What a driver's sessions hand their events to; one instance per ingest thread.
///
/// All calls come from that thread and none may block. The order of calls per session is
/// `hello`, then any number of `stage` and `dispatch`, then `closed`.
pub trait Intake {
    /// A client names its producer (`Some`), or sends its first event without having done so.
    ///
    /// A hello that is not refused fences the producer's older session, on whichever thread it
    /// lives; that thread learns it from [`Intake::poll_fenced`]. [`Greeting::Later`] holds this
    /// session back until the numbers are known, for instance while batches of the fenced session
    /// are on their way to the disk: the session asks again, with the same arguments, after each
    /// wake-up and within milliseconds. It must not be the answer to an anonymous session.
    fn hello(&mut self, session: SessionId, producer: Option<&str>, key: Option<&str>) -> Greeting;

    /// Looks at one event and stages it for its shard, or refuses it.
    ///
    /// `event` is the JSON text as sent. A refusal whose code can be cured by time ends the
    /// session at this event; nothing after it is staged.
    ///
    /// # Errors
    /// The event is not staged and its number counts as refused.
    fn stage(
        &mut self,
        session: SessionId,
        producer: &Producer,
        seq: u64,
        event: &[u8],
    ) -> Result<(), Refusal>;

    /// Hands what this session staged since its last dispatch to the shards, as one batch that
    /// covers every number up to `last_seq`. `refused` lists the numbers of this batch that were
    /// refused, ascending, so that they can be made durable as well: they will be acknowledged.
    ///
    /// # Errors
    /// [`Busy`]: nothing was handed over and nothing was lost. The session stops reading, stages
    /// nothing more, and calls again after the next wake-up or within milliseconds.
    fn dispatch(
        &mut self,
        session: SessionId,
        last_seq: u64,
        refused: &[(u64, Code)],
    ) -> Result<BatchId, Busy>;

    /// The next batch whose every event is durable or finally refused. Batches of one session
    /// may settle in any order; they are acknowledged in theirs.
    fn poll_settled(&mut self) -> Option<Settled>;

    /// The next session of this thread that a newer hello has replaced.
    fn poll_fenced(&mut self) -> Option<SessionId>;

    /// The session stages nothing more. What it staged without dispatch is to be forgotten; what
    /// it dispatched settles as usual. Comes once for every session, also for one that never said
    /// hello, and may come before [`Intake::poll_settled`] has given out its last batch.
    fn closed(&mut self, session: SessionId);
}

/// One connection, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// One dispatched batch, unique within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub u64);

/// Who numbers the events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Producer {
    /// A client that said hello; its numbers outlive the connection.
    Named(Arc<str>),
    /// A client that did not; its numbers mean something within this session only.
    Anonymous,
}

/// The answer to a hello.
#[derive(Clone, Debug)]
pub enum Greeting {
    /// Come in.
    Welcome(Welcome),
    /// Not known yet: ask again.
    Later,
    /// Not this client, or not now; the connection is closed.
    Refused(Refusal),
}

/// Where a producer goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// Every number up to this one is durable or finally refused.
    pub last_seq: u64,
    /// Numbers above `last_seq` that are durable already, ascending: shards become durable at
    /// different times. They are acknowledged when they come again, and not staged.
    pub already: Vec<u64>,
}

/// The shards' rings are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shards' rings are full; nothing was handed over")
    }
}

impl std::error::Error for Busy {}

/// The end of one batch.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Whose batch.
    pub session: SessionId,
    /// Which batch.
    pub batch: BatchId,
    /// Events that a shard refused finally, ascending.
    pub refusals: Vec<(u64, Refusal)>,
    /// The lowest number that was not taken for a reason that time can cure. Numbers below it
    /// are acknowledged, it and those above are not, and the session ends.
    pub retry: Option<(u64, Refusal)>,
}
