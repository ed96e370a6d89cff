//! What the engine tells about itself: records, operations, dead letters, accounts, health.
//!
//! Plain values, copied out at one instant. How they look on a wire is the edge's business.

mod access;
mod dead_letter;
mod explain;
mod job;
mod link;
mod overrides;
mod replay;
mod walk;

pub use access::{Admission, Scope};
pub use dead_letter::{
    DeadLetterDetail, DeadLetterFilter, DeadLetterGroup, DeadLetterGroups, DeadLetterView, HeldView,
};
pub use explain::{ExplainLookup, ExplainTarget, ExplainView};
pub use job::{JobKind, JobState, JobView};
pub use link::{LinkAnswer, LinkChange, LinkRequest, PictureLookup};
pub use overrides::{OverrideChange, OverrideMember, OverrideRequest, OverridesView};
pub use replay::{ReplayCount, ReplayRequest};
pub use walk::{WalkExample, WalkPurpose, WalkRequest, WalkTally, WalkView};

use crate::rules::{RuleSettings, Trial};
use crate::state::{CallClass, Reason, State};

/// Milliseconds since the Unix epoch.
pub type UnixMs = i64;

/// An event that was taken: durable, and going to its targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Names the operation from now on.
    pub operation_id: String,
    /// System A's key; made up for a CREATE that had none.
    pub record_id: String,
    /// The same event was taken before; this is its operation.
    pub duplicate: bool,
}

/// What is known under a record id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordLookup {
    /// One record.
    Found(RecordView),
    /// Several objects have a record of this id.
    Ambiguous(Vec<String>),
    /// Nothing was ever taken for it.
    NotFound,
}

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordView {
    /// System A's key.
    pub record_id: String,
    /// What kind of record.
    pub object: String,
    /// One entry an account that ever took an operation of it.
    pub targets: Vec<RecordTarget>,
}

/// Where a record stands at one account: its oldest open operation, else its last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordTarget {
    /// The account.
    pub provider: String,
    /// Of that operation.
    pub state: State,
    /// Why, where there is something to say.
    pub reason: Option<Reason>,
    /// That operation.
    pub operation_id: String,
    /// Calls it has had.
    pub attempts: u32,
    /// The record's id at the provider, when linked.
    pub remote_id: Option<String>,
    /// When the state changed last.
    pub updated_at: UnixMs,
}

/// One accepted operation with all its targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationView {
    /// Its name.
    pub operation_id: String,
    /// The record it changes.
    pub record_id: String,
    /// What kind of record.
    pub object: String,
    /// CREATE, READ, UPDATE, UPSERT or DELETE.
    pub operation: &'static str,
    /// Over all targets: the worst that is open, else the worst.
    pub state: State,
    /// When it was accepted.
    pub accepted_at: UnixMs,
    /// One entry a target.
    pub targets: Vec<OperationTarget>,
    /// What a READ brought, in local names: a JSON object's text.
    pub result: Option<String>,
}

/// An operation at one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationTarget {
    /// The account.
    pub provider: String,
    /// Where it stands there.
    pub state: State,
    /// Why, where there is something to say.
    pub reason: Option<Reason>,
    /// The record's id at the provider, when linked.
    pub remote_id: Option<String>,
    /// When the state changed last.
    pub updated_at: UnixMs,
    /// The operation that overwrote all of this one.
    pub superseded_by: Option<String>,
    /// Oldest first; of very many only the newest.
    pub attempts: Vec<AttemptView>,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptView {
    /// When it was sent.
    pub at: UnixMs,
    /// The provider's HTTP status, when there was one.
    pub status: Option<u16>,
    /// What it came to.
    pub class: CallClass,
    /// The provider's own words, cut short.
    pub detail: String,
}

/// Which operations are asked for; what is absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperationFilter {
    /// In this state at some target.
    pub state: Option<State>,
    /// With this target.
    pub provider: Option<String>,
    /// Of this kind of record.
    pub object: Option<String>,
}

/// Part of a long list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// In a stable order.
    pub items: Vec<T>,
    /// Asks for what follows; `None` at the end.
    pub next: Option<String>,
}

/// Where in a long list to go on, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// At most so many items.
    pub limit: usize,
    /// The `next` of the page before.
    pub after: Option<String>,
}

/// What is held, or let go; what is absent means all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hold {
    /// This account.
    pub provider: Option<String>,
    /// This kind of record.
    pub object: Option<String>,
    /// This record.
    pub record_id: Option<String>,
}

/// An account as configured; never with a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountView {
    /// Its name.
    pub name: String,
    /// Its definition.
    pub definition: String,
    /// Where it is.
    pub base_url: Option<String>,
    /// Whether waiting changes of a record become one call.
    pub fold: bool,
    /// Calls in flight at once, at most.
    pub max_in_flight: u32,
    /// One call's time in ms.
    pub timeout_ms: u64,
}

/// A consumer of System A's that subscribed to changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerView {
    /// Its name.
    pub name: String,
    /// Whose changes it takes; `None`: of every object.
    pub objects: Option<Vec<String>>,
    /// Whether it is connected.
    pub connected: bool,
    /// Changes that it has not acknowledged, given to it or not.
    pub unacked: usize,
    /// The highest number that it acknowledged.
    pub acked: u64,
    /// How long it lacks the oldest of these, in ms; 0 when it has all.
    pub lag_ms: u64,
}

/// How an account is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountStatus {
    /// As configured.
    pub account: AccountView,
    /// Whether an operator holds it.
    pub paused: bool,
    /// Whether failures hold it.
    pub breaker: BreakerState,
    /// Whether its credentials are good.
    pub auth: AuthState,
    /// Operations by where they stand.
    pub open: OpenOperations,
    /// Operations given up.
    pub dead_letters: u64,
    /// What is left of each window.
    pub limits: Vec<LimitStatus>,
    /// What is to be expected.
    pub outlook: AccountOutlook,
}

/// What is to be expected of an account, if all goes on as it does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountOutlook {
    /// Why no call goes now, in the words of the API: `throttled`, `unreachable`, `failing`,
    /// `unauthorized` or `quota_spent`.
    pub held_by: Option<&'static str>,
    /// When calls may go again, if they may not now.
    pub resumes_at: Option<UnixMs>,
    /// When nothing waits any more.
    pub drained_at: Option<UnixMs>,
    /// What it may not write at present, by object.
    pub held_objects: Vec<HeldObject>,
    /// Its endpoints that fail by themselves.
    pub endpoints: Vec<EndpointStatus>,
}

/// An endpoint of an account whose calls fail, or failed just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointStatus {
    /// The provider's name of the object, and the kind of call where that fails apart.
    pub endpoint: String,
    /// Its own breaker.
    pub breaker: BreakerState,
    /// Failures since its last success.
    pub failures_in_row: u32,
    /// When an open one lets a probe go.
    pub resumes_at: Option<UnixMs>,
}

/// An object whose records wait, since the provider does not let the account write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldObject {
    /// Local name.
    pub object: String,
    /// The first refusal.
    pub since: UnixMs,
    /// The provider is asked again then.
    pub asks_again_at: UnixMs,
    /// Its words.
    pub detail: String,
}

/// Operations that are not final, by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after the state it counts")]
pub struct OpenOperations {
    pub queued: u64,
    pub waiting: u64,
    pub in_flight: u64,
    pub retrying: u64,
    pub unknown: u64,
    pub conflict: u64,
}

impl OpenOperations {
    /// Each state with its count.
    pub fn by_state(&self) -> [(State, u64); 6] {
        [
            (State::Queued, self.queued),
            (State::Waiting, self.waiting),
            (State::InFlight, self.in_flight),
            (State::Retrying, self.retrying),
            (State::Unknown, self.unknown),
            (State::Conflict, self.conflict),
        ]
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.by_state().iter().map(|(_, count)| count).sum()
    }
}

impl std::ops::AddAssign for OpenOperations {
    fn add_assign(&mut self, other: OpenOperations) {
        self.queued += other.queued;
        self.waiting += other.waiting;
        self.in_flight += other.in_flight;
        self.retrying += other.retrying;
        self.unknown += other.unknown;
        self.conflict += other.conflict;
    }
}

/// One window of an account.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LimitStatus {
    /// Its name.
    pub name: String,
    /// What the provider allows in it.
    pub limit: u64,
    /// Of that, what is used or held now.
    pub used: u64,
    /// The window's length in ms; 0 for calls in flight.
    pub window_ms: u64,
    /// Of `used`, what other applications are seen to use.
    pub others: u64,
    /// Of what is left, what urgent operations or polls alone may use.
    pub kept: u64,
    /// What the limit is taken to be, by the provider's word or its refusals; at most `limit`.
    pub allowed: u64,
    /// When the next of what is used comes back.
    pub frees_at: Option<UnixMs>,
    /// When nothing is left at the present pace.
    pub used_up_at: Option<UnixMs>,
}

impl LimitStatus {
    /// From 0 (nothing used) to 1 (nothing left).
    pub fn used_ratio(&self) -> f64 {
        if self.limit == 0 {
            1.0
        } else {
            self.used as f64 / self.limit as f64
        }
    }
}

/// Whether an account's breaker lets calls through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Calls flow.
    Closed,
    /// A probe is out; its outcome decides.
    HalfOpen,
    /// No calls until a probe is due.
    Open,
}

impl BreakerState {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::HalfOpen => "half_open",
            BreakerState::Open => "open",
        }
    }
}

/// Whether an account's credentials are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthState {
    /// The account needs none.
    None,
    /// None were needed yet, or the last call was let in.
    Valid,
    /// Refused; the account waits and probes.
    Refused,
    /// There is no token yet; one is being asked for.
    Asking,
    /// There is no token, for a reason that may pass.
    Failing,
}

impl AuthState {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            AuthState::None => "none",
            AuthState::Valid => "valid",
            AuthState::Refused => "refused",
            AuthState::Asking => "asking",
            AuthState::Failing => "failing",
        }
    }
}

/// How the node is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthView {
    /// The log takes frames.
    pub wal: Check,
    /// There is room.
    pub disk: Check,
    /// Every shard turns.
    pub shards: Check,
    /// The node takes events: recovered, and not shutting down.
    pub ready: bool,
    /// When this was looked at.
    pub at: UnixMs,
    /// Each account.
    pub accounts: Vec<AccountStatus>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// As it should be.
    Healthy,
    /// Works, with this to say.
    Degraded(String),
    /// Does not work, for this reason.
    Unhealthy(String),
}

/// The set of rules in force.
#[derive(Debug, Clone, PartialEq)]
pub struct RulesView {
    /// Counts the sets that were ever given; 0 while there was none.
    pub version: u32,
    /// Who gave it: `file` or `api`.
    pub origin: &'static str,
    /// The set as it was given.
    pub rules: Vec<RuleSettings>,
}

/// A set of rules that is to replace the one in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RulesPush {
    /// All of it.
    pub rules: Vec<RuleSettings>,
    /// Only tells what would change.
    pub dry_run: bool,
    /// It may keep many more operations from their accounts.
    pub force: bool,
}

/// What became of a push.
#[derive(Debug, Clone, PartialEq)]
pub enum RulesPushed {
    /// It is durable and in force, under this version.
    Replaced(u32, Trial),
    /// Nothing changed: a dry run.
    Tried(Trial),
    /// Nothing changed: it would withhold so much more that it has to be forced.
    NeedsForce(Trial),
}
