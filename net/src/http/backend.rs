//! What the API needs from the node behind it.

use std::future::Future;

use bytes::Bytes;
use engine::merge::Winner;
use engine::refusal::Refusal;
use engine::shard::{LinkFilter, LinkRow};
use engine::view::{
    Accepted, AccountStatus, AccountView, Admission, ConsumerView, DeadLetterDetail,
    DeadLetterFilter, DeadLetterGroups, DeadLetterView, ExplainLookup, HealthView, Hold, JobKind,
    JobView, LinkAnswer, LinkChange, LinkRequest, OperationFilter, OperationView, OverrideRequest,
    OverridesView, Page, PageRequest, PictureLookup, RecordLookup, ReplayCount, ReplayRequest,
    RulesPush, RulesPushed, RulesView, Scope, WalkRequest, WalkView,
};

use super::AccountRequest;
use super::webhooks::Webhooks;

/// The node as the API sees it.
///
/// Every answer is a copy of one instant. A refusal that time can cure
/// (`overloaded`, `shard_down`) is told to the client as such.
pub trait Backend: Webhooks {
    /// Whether a request with this key may do what needs this scope.
    fn admit(&self, key: Option<&str>, needed: Scope) -> Admission;

    /// Takes events, each the raw text of one JSON value; answers when all that
    /// are taken are durable, one result an event in the order given.
    fn submit(
        &self,
        events: Vec<Bytes>,
    ) -> impl Future<Output = Vec<Result<Accepted, Refusal>>> + Send;

    /// Where a record stands; without `object`, of whichever kind has it.
    fn record(
        &self,
        record_id: &str,
        object: Option<&str>,
    ) -> impl Future<Output = Result<RecordLookup, Refusal>> + Send;

    /// All that is held of a record; without `object`, of whichever kind has it.
    fn picture(
        &self,
        record_id: &str,
        object: Option<&str>,
    ) -> impl Future<Output = Result<PictureLookup, Refusal>> + Send;

    /// Links, in a stable order.
    fn links(
        &self,
        filter: LinkFilter,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<LinkRow>, Refusal>> + Send;

    /// Sets a link or takes it away, durably.
    fn set_link(
        &self,
        by: &str,
        request: LinkRequest,
    ) -> impl Future<Output = Result<LinkAnswer, Refusal>> + Send;

    /// Links that were set by hand, the newest first.
    fn link_changes(&self) -> impl Future<Output = Vec<LinkChange>> + Send;

    /// Begins a walk through an object's records; it is durable when this answers.
    fn begin_walk(
        &self,
        request: WalkRequest,
    ) -> impl Future<Output = Result<WalkView, Refusal>> + Send;

    /// Walks, the oldest first.
    fn walks(&self) -> Vec<WalkView>;

    /// Ends a walk; what it handed in stays. `None`: there is none of this id.
    fn cancel_walk(&self, id: &str) -> impl Future<Output = Option<WalkView>> + Send;

    /// Why a record waits, at all accounts or one.
    fn explain(
        &self,
        record_id: &str,
        object: Option<&str>,
        provider: Option<&str>,
    ) -> impl Future<Output = Result<ExplainLookup, Refusal>> + Send;

    /// One operation.
    fn operation(
        &self,
        operation_id: &str,
    ) -> impl Future<Output = Result<Option<OperationView>, Refusal>> + Send;

    /// Operations, the newest first.
    fn operations(
        &self,
        filter: OperationFilter,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<OperationView>, Refusal>> + Send;

    /// Ends a record's back-off and redrives its dead letters; the count of
    /// operations that this moved, `None` for a record nothing is known of.
    fn retry_record(
        &self,
        record_id: &str,
        object: Option<&str>,
    ) -> impl Future<Output = Result<Option<u64>, Refusal>> + Send;

    /// Dead letters, the oldest first.
    fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        page: PageRequest,
    ) -> impl Future<Output = Result<Page<DeadLetterView>, Refusal>> + Send;

    /// One dead letter, with all that is kept of it.
    fn dead_letter(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<Option<DeadLetterDetail>, Refusal>> + Send;

    /// Dead letters by what they died of.
    fn dead_letter_groups(
        &self,
        filter: DeadLetterFilter,
    ) -> impl Future<Output = Result<DeadLetterGroups, Refusal>> + Send;

    /// How many dead letters match.
    fn count_dead_letters(
        &self,
        filter: DeadLetterFilter,
    ) -> impl Future<Output = Result<u64, Refusal>> + Send;

    /// Gives a dead letter other data, the text of one JSON value; `None` when there is none of
    /// this id.
    fn edit_dead_letter(
        &self,
        id: &str,
        data: &str,
    ) -> impl Future<Output = Result<Option<DeadLetterDetail>, Refusal>> + Send;

    /// Queues one dead letter again; false when it is not there, or what it deletes was written
    /// anew since.
    fn redrive_one(&self, id: &str) -> impl Future<Output = Result<bool, Refusal>> + Send;

    /// Queues matching dead letters again, at most `rate` a second; answers with the job at its
    /// end, or when it takes longer than a client waits.
    fn redrive(
        &self,
        filter: DeadLetterFilter,
        rate: Option<u32>,
    ) -> impl Future<Output = Result<JobView, Refusal>> + Send;

    /// How many records a replay would send.
    fn count_replay(
        &self,
        request: ReplayRequest,
    ) -> impl Future<Output = Result<ReplayCount, Refusal>> + Send;

    /// Begins to send once more what was sent in a span of time.
    fn replay(
        &self,
        request: ReplayRequest,
    ) -> impl Future<Output = Result<JobView, Refusal>> + Send;

    /// Jobs of one kind, the oldest first.
    fn jobs(&self, kind: JobKind) -> Vec<JobView>;

    /// One job.
    fn job(&self, kind: JobKind, id: &str) -> Option<JobView>;

    /// Ends a job; what it did stays done.
    fn cancel_job(&self, kind: JobKind, id: &str) -> Option<JobView>;

    /// Says whose values stand in a conflict; how many fields that was, 0 when there is none of
    /// this id.
    fn resolve_conflict(
        &self,
        id: &str,
        fields: Option<Vec<String>>,
        winner: Winner,
    ) -> impl Future<Output = Result<u64, Refusal>> + Send;

    /// Ends a dead letter as `dropped`; false when there is none of this id.
    fn drop_dead_letter(&self, id: &str) -> impl Future<Output = Result<bool, Refusal>> + Send;

    /// Holds calls; what is queued stays.
    fn pause(&self, hold: Hold) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Lets go what [`Backend::pause`] holds.
    fn resume(&self, hold: Hold) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The rules in force.
    fn rules(&self) -> RulesView;

    /// Replaces the rules; later events use them. A set that cannot be right is refused with a
    /// pointer to its place, and the one in force stays.
    fn push_rules(
        &self,
        push: RulesPush,
    ) -> impl Future<Output = Result<RulesPushed, Refusal>> + Send;

    /// Changes an account's settings; in force and on disk when it answers.
    fn change_settings(
        &self,
        by: &str,
        request: OverrideRequest,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// What was changed, and is in force.
    fn overrides(&self) -> OverridesView;

    /// Adds an account or changes one, durably and at once; whether it is new.
    fn put_account(
        &self,
        by: &str,
        request: AccountRequest,
    ) -> impl Future<Output = Result<bool, Refusal>> + Send;

    /// Removes an account; what is queued for it waits until it is back. False when there is none
    /// of this name.
    fn remove_account(
        &self,
        by: &str,
        name: &str,
    ) -> impl Future<Output = Result<bool, Refusal>> + Send;

    /// The accounts as configured.
    fn accounts(&self) -> Vec<AccountView>;

    /// Consumers that subscribed to changes.
    fn consumers(&self) -> Vec<ConsumerView>;

    /// Forgets a consumer: nothing waits for it any more; false when there is none of this name.
    fn remove_consumer(&self, name: &str) -> impl Future<Output = Result<bool, Refusal>> + Send;

    /// How one account is doing.
    fn account_status(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<AccountStatus>, Refusal>> + Send;

    /// How the node is doing.
    fn health(&self) -> impl Future<Output = HealthView> + Send;

    /// The metrics in Prometheus' text format.
    fn metrics(&self) -> impl Future<Output = String> + Send;
}
