//! What the API needs from the node behind it.

use std::future::Future;

use bytes::Bytes;
use engine::refusal::Refusal;
use engine::view::{
    Accepted, AccountStatus, AccountView, DeadLetterFilter, DeadLetterView, HealthView, Hold,
    OperationFilter, OperationView, Page, PageRequest, RecordLookup, Redriven, RulesPush,
    RulesPushed, RulesView,
};

/// The node as the API sees it.
///
/// Every answer is a copy of one instant. A refusal that time can cure
/// (`overloaded`, `shard_down`) is told to the client as such.
pub trait Backend: Send + Sync + 'static {
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

    /// One dead letter.
    fn dead_letter(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<Option<DeadLetterView>, Refusal>> + Send;

    /// Queues matching dead letters again; `dry_run` only counts them.
    fn retry_dead_letters(
        &self,
        filter: DeadLetterFilter,
        dry_run: bool,
    ) -> impl Future<Output = Result<Redriven, Refusal>> + Send;

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

    /// The accounts as configured.
    fn accounts(&self) -> Vec<AccountView>;

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
