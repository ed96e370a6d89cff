//! What shards and the coordinator tell each other.

use std::sync::Arc;
use std::time::Duration;

use super::classes::{CostClass, CostClasses};
use super::learned::Learned;
use super::truth::Observation;
use crate::time::Mono;

/// One shard of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// One provider account; stays with its name for the life of the process, not across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub u32);

/// One lease; later leases have higher numbers, 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaseId(pub u64);

/// From a shard to the coordinator. Each channel keeps its order and loses nothing
/// while both ends live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromShard {
    /// The shard (re)started and holds nothing: answered with every account and its gate.
    /// First message of every life; nothing of a life before may follow it.
    Connected,
    /// The shard's present demand for calls of one class; replaces the one before of that
    /// class. Sent when it changed.
    Want {
        /// The account to be called.
        account: AccountId,
        /// Which calls; [`CostClass::ANY`] for a shard that does not tell them apart. A class
        /// that the account does not have (any more) is ignored.
        class: CostClass,
        /// Calls that are ready and not covered by unspent permits in hand. Ask for what can
        /// be sent soon, not for a backlog that the slots cannot carry. 0: none.
        permits: u32,
        /// Of these, calls for operations of priority
        /// [`URGENT_PRIORITY_MAX`](super::URGENT_PRIORITY_MAX) or better, which are sent first.
        urgent: u32,
        /// Records behind those calls: scarce tokens lean to the fullest batches.
        records: u32,
        /// Slots the shard would like to hold in all, those it holds included; for all classes.
        slots: u32,
        /// The newest lease received for this account: grants still on their way are
        /// subtracted from `permits`.
        seen: LeaseId,
    },
    /// Calls that have ended, in whatever way. One message per lease and turn will do.
    Completed {
        /// The account called.
        account: AccountId,
        /// The lease whose permits paid for the calls.
        lease: LeaseId,
        /// How many.
        count: u32,
        /// A clock reading taken after the last of them ended; a turn's opening `now` is too
        /// early for an answer read later in that turn.
        completed_at: Mono,
        /// Whether the provider may still count one of them after `completed_at`.
        ended: Ended,
    },
    /// Permits that were not and never will be spent: returned when idle, held back or expired.
    Unspent {
        /// The account of the lease.
        account: AccountId,
        /// The lease they came from.
        lease: LeaseId,
        /// How many.
        count: u32,
    },
    /// Slots given back: idle or recalled. No call of the shard uses them any more.
    ReturnSlots {
        /// The account of the slots.
        account: AccountId,
        /// How many.
        slots: u32,
    },
    /// A call failed in a way that says something about the account.
    Trouble {
        /// The account called.
        account: AccountId,
        /// What happened.
        trouble: Trouble,
        /// The call was the probe.
        probe: bool,
        /// When a call of this shard last succeeded.
        last_success: Option<Mono>,
    },
    /// A call succeeded. Needed for the probe and once after each [`Gate::Suspect`] only.
    Healthy {
        /// The account called.
        account: AccountId,
        /// The call was the probe.
        probe: bool,
    },
    /// What a reply said of a limit. At most one for a limit and turn: the one by which the
    /// most is used.
    Observed {
        /// The account called.
        account: AccountId,
        /// What it said.
        observation: Observation,
    },
    /// The shard was told to probe and has nothing to send any more.
    ProbeUnused {
        /// The account not probed.
        account: AccountId,
    },
    /// Something about one of an account's endpoints, which fail apart from each other.
    Endpoint {
        /// The account called.
        account: AccountId,
        /// Its endpoint, by name.
        endpoint: Arc<str>,
        /// What there is to say.
        word: EndpointWord,
    },
}

/// What a shard says of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointWord {
    /// A call came to a server error or a timeout.
    Failed {
        /// The call was the endpoint's probe.
        probe: bool,
        /// When a call of this shard last succeeded there.
        last_success: Option<Mono>,
    },
    /// A call succeeded. Needed for the probe and once after each [`Gate::Suspect`] only.
    Worked {
        /// The call was the endpoint's probe.
        probe: bool,
    },
    /// The time of its hold is over, and the shard has something to send there.
    Asks,
    /// The shard was told to probe it and has nothing to send there any more, or was told nothing
    /// of the endpoint by the call that did.
    ProbeUnused,
}

/// From the coordinator to one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToShard {
    /// An account exists or changed.
    Account {
        /// Its number in the messages of this process.
        account: AccountId,
        /// Its name in the configuration.
        name: Arc<str>,
        /// No windowed limit: calls need a slot and an open gate, no permit, and no report.
        unlimited: bool,
        /// Which calls cost the same. When they differ from those told before, permits of a
        /// class that is gone go back, and the demand is told anew.
        classes: Arc<CostClasses>,
        /// The longest time from the first byte sent to the end of a call.
        call_timeout: Duration,
        /// A lease must stay known to the shard's log until `usable_until` + this.
        lease_memory: Duration,
    },
    /// The account was removed from the configuration: send nothing more, return what is held.
    AccountGone {
        /// The account removed.
        account: AccountId,
    },
    /// Permits, one per call. The lease must be durable before the first is spent.
    Grant {
        /// The account they are for.
        account: AccountId,
        /// The calls they pay for; permits of [`CostClass::ANY`] would pay for every call.
        class: CostClass,
        /// Names the lease in reports and in the log.
        lease: LeaseId,
        /// Calls it pays for, at least 1.
        permits: u32,
        /// No permit may be spent later; the clock is read just before the send.
        usable_until: Mono,
    },
    /// Slots: each carries one call at a time and is kept until idle or recalled.
    GrantSlots {
        /// The account they are for.
        account: AccountId,
        /// How many more.
        slots: u32,
    },
    /// Another shard needs slots: hold no more than `keep`, returning the rest as calls end.
    /// Lifted by the next `GrantSlots`.
    Recall {
        /// The account of the slots.
        account: AccountId,
        /// How many may stay.
        keep: u32,
    },
    /// Whether the account may be called. Sent to all shards on each change.
    Gate {
        /// The account.
        account: AccountId,
        /// What holds from now on.
        gate: Gate,
    },
    /// Whether an endpoint of an account may be called, beside the account's own gate. Endpoints
    /// that were never named are open.
    Endpoint {
        /// The account.
        account: AccountId,
        /// Its endpoint, by name.
        endpoint: Arc<str>,
        /// What holds from now on.
        gate: Gate,
    },
    /// How far apart the shard's calls of a class should be, unless they are full, so that what is
    /// left of the limits lasts until more comes back. Sent when it changed much.
    Pace {
        /// The account.
        account: AccountId,
        /// Which calls.
        class: CostClass,
        /// Zero while there is plenty.
        linger: Duration,
    },
    /// Something for the log of one shard, so that the next run knows it.
    Learned(Learned),
}

/// Whether an account may be called, as one shard sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Calls may go.
    Open,
    /// Calls may go; some failed. The next success of each shard is reported (`Healthy`, once).
    Suspect,
    /// No call may start. `until` is the earliest instant at which that may change.
    Held {
        /// Not before; a new message follows in any case.
        until: Mono,
        /// Why.
        reason: HoldReason,
    },
    /// This shard alone may send one call and reports it with `probe: true`.
    Probe,
}

/// Why an account is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldReason {
    /// The provider asked for a pause (429, or 503 with Retry-After).
    Throttled,
    /// The provider says that a long quota is spent: parked until it may be there again, then
    /// probed.
    QuotaSpent,
    /// Connections fail.
    Unreachable,
    /// It answers, with server errors or too late.
    Failing,
    /// It refuses our credentials.
    Unauthorized,
}

/// What one failed call says about its account. Failures that only concern the record
/// are not reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The provider asked for a pause.
    Throttled {
        /// From Retry-After, on our clock; `None` when it named no time.
        until: Option<Mono>,
    },
    /// The provider is closed for a while; that says nothing about limits.
    Maintenance {
        /// Until when, on our clock, if the reply says so.
        until: Option<Mono>,
    },
    /// A quota is spent and no pause of seconds helps: the day's calls are used up.
    QuotaSpent {
        /// When it starts over, on our clock, if the reply says so.
        until: Option<Mono>,
    },
    /// Refused, reset before an answer, DNS or TLS failed.
    Unreachable,
    /// A server error or a timeout.
    Failing,
    /// 401, after the one refresh.
    Unauthorized,
}

impl Trouble {
    /// Whether calls are to rest, whatever became of those before.
    pub(super) fn asks_for_pause(self) -> bool {
        matches!(
            self,
            Self::Throttled { .. } | Self::Maintenance { .. } | Self::QuotaSpent { .. }
        )
    }
}

impl Trouble {
    /// Whether it is a failure in the breaker's count; pauses and spent quotas are not.
    pub fn counts_as_failure(self) -> bool {
        match self {
            Self::Throttled { .. } | Self::Maintenance { .. } | Self::QuotaSpent { .. } => false,
            Self::Unreachable | Self::Failing | Self::Unauthorized => true,
        }
    }
}

/// How calls ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// An answer came, or no byte was ever sent: the provider will not count it later.
    Answered,
    /// Timed out or cut off: bytes may still be on their way, so the tokens stay held longer.
    Unanswered,
}
