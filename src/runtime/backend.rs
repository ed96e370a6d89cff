//! The engine as the HTTP API sees it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use engine::dedup::{Dedup, EventKey, TakenOperation};
use engine::entry::{HoldChange, HoldScope};
use engine::event::codec::Dedup as LoggedDedup;
use engine::event::{Surface, parse};
use engine::id::{OperationId, RecordHash};
use engine::json::Scratch;
use engine::merge::Winner;
use engine::quota::{Gate, HoldReason};
use engine::refusal::{Code, Refusal};
use engine::shard::{
    Command, DeadFilter, EventBatch, Explanation, LinkFilter, LinkRow, OpenCounts, RefusedObject,
};
use engine::view::{
    Accepted, AccountOutlook, AccountStatus, AccountView, Admission, AuthState, BreakerState,
    Check, ConsumerView, DeadLetterDetail, DeadLetterFilter, DeadLetterGroups, DeadLetterView,
    ExplainLookup, ExplainTarget, ExplainView, HealthView, Hold, JobKind, JobView, LinkAnswer,
    LinkChange, LinkRequest, OpenOperations, OperationFilter, OperationView, OverrideRequest,
    OverridesView, Page, PageRequest, PictureLookup, RecordLookup, RecordTarget, RecordView,
    ReplayCount, ReplayRequest, RulesPush, RulesPushed, RulesView, Scope, WalkRequest, WalkView,
};
use net::auth::TokenStanding;
use net::http::{AccountRequest, Backend, WebhookDelivery, Webhooks};
use net::metrics::{Metrics, MetricsWriter};

use super::account_outlook::{self, Trends};
use super::clock;
use super::coordinator::SharedCoordinator;
use super::dead_letters;
use super::explain::{self, Surroundings};
use super::feed::Feed;
use super::in_force::InForce;
use super::inbound::{PullSink, WebhookIntake};
use super::jobs::Jobs;
use super::keys::Keys;
use super::links::Links;
use super::operation_list::{cursor, operation_view, paged};
use super::query::Query;
use super::replay;
use super::rule_store::{self, RuleOrigin, RuleStore};
use super::shard_thread::Gauges;
use super::shards::Shards;
use super::tokens::TokenCells;
use super::walks::Walks;
use crate::settings::{AuthSettings, Settings};

/// The scope of event ids over HTTP while there are no API keys; no producer's name hashes to it
/// but by chance.
const HTTP_SCOPE: u64 = 0x6874_7470;

/// The running node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) shards: Shards,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) keys: Arc<Keys>,
    /// `None`: System A has an address, or nothing comes back to it.
    pub(crate) feed: Option<Arc<Feed>>,
    pub(crate) in_force: Arc<InForce>,
    pub(crate) coordinator: SharedCoordinator,
    pub(crate) metrics: Metrics,
    /// Counts what the API refused.
    pub(crate) rejected: Mutex<MetricsWriter>,
    pub(crate) gauges: Vec<Arc<Gauges>>,
    /// Locked while a set is replaced, which happens one after the other.
    pub(crate) rule_store: Mutex<RuleStore>,
    /// Of the accounts whose credentials are tokens.
    pub(crate) tokens: TokenCells,
    pub(crate) trends: Trends,
    pub(crate) links: Arc<Links>,
    pub(crate) walks: Arc<Walks>,
    pub(crate) webhooks: WebhookIntake<PullSink>,
}

/// The accounts as the API shows them, and whether each needs credentials.
fn account_views(settings: &Settings) -> Vec<(AccountView, bool)> {
    settings
        .providers
        .iter()
        .map(|(name, provider)| {
            let view = AccountView {
                name: name.clone(),
                definition: provider.definition.clone(),
                base_url: provider.account.base_url.clone(),
                fold: provider.account.fold,
                max_in_flight: provider.account.max_in_flight.get(),
                timeout_ms: provider.account.timeout.as_millis() as u64,
            };
            (view, provider.auth != AuthSettings::None)
        })
        .collect()
}

/// An event on its way in, and where its result goes.
struct Staged {
    at: usize,
    accepted: Accepted,
    remembered: Option<(EventKey, TakenOperation)>,
}

impl Node {
    pub(crate) fn is_broken(&self) -> bool {
        self.gauges
            .iter()
            .any(|gauges| gauges.fenced.load(Ordering::Relaxed))
    }

    /// The object that has a record of this id, or all that have one when none was named.
    async fn object_of(
        &self,
        record_id: &str,
        named: Option<&str>,
    ) -> Result<Result<String, Vec<String>>, Refusal> {
        if let Some(named) = named {
            return Ok(Ok(named.to_owned()));
        }
        let shard = self.shards.owner_of(record_id);
        let record_id = record_id.to_owned();
        let mut objects = self
            .shards
            .ask(shard, |reply| Query::Objects { record_id, reply })
            .await?;
        Ok(if objects.len() == 1 {
            Ok(objects.remove(0))
        } else {
            Err(objects)
        })
    }

    async fn explain_targets(
        &self,
        record_id: &str,
        object: &str,
    ) -> Result<Vec<ExplainTarget>, Refusal> {
        let own = self.shards.owner_of(record_id);
        let (object, record_id) = (object.to_owned(), record_id.to_owned());
        let explained = self
            .shards
            .ask(own, |reply| Query::Explain {
                object,
                record_id,
                reply,
            })
            .await?;
        let mut counts = Vec::new();
        for shard in 0..self.shards.count() {
            let ask = self.shards.ask(shard, |reply| Query::Counts { reply });
            counts.push(ask.await?);
        }
        let limits = self.in_force.tuning.limits();
        let now = clock::now();
        let views: Vec<_> = {
            let mut coordinator = super::coordinator::lock(&self.coordinator);
            coordinator.views(now).collect()
        };
        let tell = |why: Explanation| {
            let account = why.standing.account.as_str();
            let around = Surroundings {
                limits: limits.iter().find(|limits| limits.name == account),
                view: views.iter().find(|view| *view.name == *account),
                ready_elsewhere: explain::ready_elsewhere(&counts, own, account),
            };
            explain::told(now, &why, &around)
        };
        Ok(explained.into_iter().map(tell).collect())
    }

    async fn counts(&self) -> Result<Vec<(String, OpenCounts)>, Refusal> {
        let mut sums: Vec<(String, OpenCounts)> = Vec::new();
        for shard in 0..self.shards.count() {
            for (name, counts) in self
                .shards
                .ask(shard, |reply| Query::Counts { reply })
                .await?
            {
                match sums.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sum)) => {
                        sum.open += counts.open;
                        sum.ready += counts.ready;
                        sum.in_flight += counts.in_flight;
                        sum.paused += counts.paused;
                        sum.aside += counts.aside;
                        sum.timed.scheduled += counts.timed.scheduled;
                        sum.timed.backoff += counts.timed.backoff;
                        sum.timed.unknown += counts.timed.unknown;
                        sum.timed.parent += counts.timed.parent;
                        sum.dead += counts.dead;
                        sum.held |= counts.held;
                    }
                    None => sums.push((name, counts)),
                }
            }
        }
        Ok(sums)
    }

    async fn refused_objects(&self) -> Result<Vec<RefusedObject>, Refusal> {
        let mut refused = Vec::new();
        for shard in 0..self.shards.count() {
            let ask = self.shards.ask(shard, |reply| Query::Refused { reply });
            refused.extend(ask.await?);
        }
        Ok(refused)
    }

    async fn statuses(&self) -> Result<Vec<AccountStatus>, Refusal> {
        let counts = self.counts().await?;
        let refused = self.refused_objects().await?;
        let now = clock::now();
        let mut coordinator = super::coordinator::lock(&self.coordinator);
        let views: Vec<_> = coordinator.views(now).collect();
        drop(coordinator);
        let status = |(account, needs_auth): &(AccountView, bool)| {
            let counts = counts
                .iter()
                .find(|(name, _)| *name == account.name)
                .map(|(_, counts)| *counts);
            let counts = counts.unwrap_or_default();
            let view = views.iter().find(|view| *view.name == *account.name);
            let gate = view.map_or(Gate::Open, |view| view.gate);
            let open = open_operations(counts);
            AccountStatus {
                account: account.clone(),
                paused: counts.held,
                breaker: view.map_or(BreakerState::Closed, account_outlook::breaker),
                auth: match gate {
                    Gate::Held {
                        reason: HoldReason::Unauthorized,
                        ..
                    } => AuthState::Refused,
                    _ if let Some(cell) = self.tokens.get(account.name.as_str()) => {
                        match cell.standing() {
                            TokenStanding::Valid => AuthState::Valid,
                            TokenStanding::Asking => AuthState::Asking,
                            TokenStanding::Refused => AuthState::Refused,
                            TokenStanding::Failing => AuthState::Failing,
                        }
                    }
                    _ if *needs_auth => AuthState::Valid,
                    _ => AuthState::None,
                },
                open,
                dead_letters: counts.dead,
                limits: view
                    .map(|view| account_outlook::limits(now, view))
                    .unwrap_or_default(),
                outlook: AccountOutlook {
                    drained_at: self
                        .trends
                        .drained_at(now, &account.name, open.total(), view),
                    held_objects: account_outlook::held_objects(&refused, &account.name),
                    endpoints: view
                        .map(|view| account_outlook::endpoints(now, view))
                        .unwrap_or_default(),
                    ..view
                        .map(|view| account_outlook::hold(now, view))
                        .unwrap_or_default()
                },
            }
        };
        let accounts = account_views(&self.in_force.tuning.effective());
        Ok(accounts.iter().map(status).collect())
    }

    /// Parses, remembers and routes one event; what it becomes is staged for its shard.
    fn stage(
        &self,
        at: usize,
        raw: &[u8],
        scratch: &mut Scratch,
        batches: &mut [EventBatch],
        numbers: &mut [Vec<u64>],
    ) -> Result<Staged, Refusal> {
        let router = &self.shards.shared.router;
        let routes = router.routes();
        let now_ms = clock::now().wall.0;
        router.with_defaults(|defaults| {
            let mut event = parse(raw, scratch, defaults, Surface::Http)?;
            if event.record_id.is_none() {
                let made: String = clock::random_bytes::<16>()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                event.record_id = Some(made.into());
            }
            let record_id = event.record_id.as_deref().unwrap_or_default().to_owned();
            let dedup = event.event_id.as_ref().map(|_| LoggedDedup {
                scope: HTTP_SCOPE,
                body_hash: event.body_hash(),
            });
            let mut routed = router.route(&routes, event, None, dedup, now_ms)?;
            let taken = TakenOperation {
                record: routed.id.record.0,
                sequence: routed.id.seq.0,
            };
            let mut remembered = None;
            if let (Some(id), Some(dedup)) =
                (routed.event.event.event_id.as_deref(), routed.event.dedup)
            {
                let key = self.shards.shared.remembered.key(dedup.scope, id);
                match self.shards.shared.remembered.check_or_insert(
                    now_ms,
                    key,
                    dedup.body_hash,
                    taken,
                ) {
                    Dedup::New => remembered = Some((key, taken)),
                    Dedup::Same(original) => {
                        let record = RecordHash(original.record);
                        let seq = engine::id::OperationSeq(original.sequence);
                        // Its shard answers once the original is on disk.
                        numbers[router.shard_of(record)].push(at as u64);
                        let operation_id = OperationId { record, seq }.to_string();
                        let accepted = Accepted {
                            operation_id,
                            record_id,
                            duplicate: true,
                        };
                        return Ok(Staged {
                            at,
                            accepted,
                            remembered: None,
                        });
                    }
                    Dedup::Reused(_) => {
                        let detail = "an event with this id and another body was taken before";
                        return Err(Refusal::at(Code::EventIdReused, "/event_id", detail));
                    }
                }
            }
            if let Err(refusal) = router.decide(&routes, &mut routed) {
                if let Some((key, taken)) = remembered {
                    self.shards.shared.remembered.forget(key, taken);
                }
                return Err(refusal);
            }
            batches[routed.shard].push_with(|out| routed.event.encode_into(out));
            numbers[routed.shard].push(at as u64);
            let accepted = Accepted {
                operation_id: routed.id.to_string(),
                record_id,
                duplicate: false,
            };
            Ok(Staged {
                at,
                accepted,
                remembered,
            })
        })
    }

    fn rule_store(&self) -> MutexGuard<'_, RuleStore> {
        self.rule_store
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn count_refusals(&self, results: &[Result<Accepted, Refusal>]) {
        let mut writer = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        for refusal in results.iter().filter_map(|result| result.as_ref().err()) {
            writer.events_rejected(refusal.code, 1);
        }
    }
}

impl Webhooks for Node {
    fn takes(&self, account: &str) -> bool {
        self.webhooks.takes(account)
    }

    fn too_large(&self, account: &str) {
        self.webhooks.too_large(account);
    }

    async fn deliver(&self, account: &str, delivery: WebhookDelivery) -> Result<u16, Refusal> {
        self.webhooks.deliver(account, delivery).await
    }
}

impl Backend for Node {
    fn admit(&self, key: Option<&str>, needed: Scope) -> Admission {
        self.keys.admit(clock::now().mono, key, needed)
    }

    async fn submit(&self, events: Vec<Bytes>) -> Vec<Result<Accepted, Refusal>> {
        let shards = self.shards.count();
        let mut batches: Vec<EventBatch> = (0..shards).map(|_| EventBatch::default()).collect();
        let mut numbers: Vec<Vec<u64>> = vec![Vec::new(); shards];
        let mut results: Vec<Result<Accepted, Refusal>> = Vec::with_capacity(events.len());
        let mut staged = Vec::new();
        {
            let mut scratch = Scratch::new();
            for (at, raw) in events.iter().enumerate() {
                match self.stage(at, raw, &mut scratch, &mut batches, &mut numbers) {
                    Ok(one) => {
                        results.push(Ok(one.accepted.clone()));
                        staged.push(one);
                    }
                    Err(refusal) => results.push(Err(refusal)),
                }
            }
        }
        let refused = self.shards.hand_in(batches, numbers).await;
        for (numbers, code) in refused {
            for number in numbers {
                let at = number as usize;
                results[at] = Err(Refusal::new(code, "not taken; send it again later"));
                let lost = staged
                    .iter()
                    .find(|one| one.at == at)
                    .and_then(|one| one.remembered);
                if let Some((key, taken)) = lost {
                    self.shards.shared.remembered.forget(key, taken);
                }
            }
        }
        self.count_refusals(&results);
        results
    }

    async fn record(&self, record_id: &str, object: Option<&str>) -> Result<RecordLookup, Refusal> {
        let shard = self.shards.owner_of(record_id);
        let object = match self.object_of(record_id, object).await? {
            Ok(object) => object,
            Err(objects) if objects.is_empty() => return Ok(RecordLookup::NotFound),
            Err(objects) => return Ok(RecordLookup::Ambiguous(objects)),
        };
        let (name, id) = (object.clone(), record_id.to_owned());
        let standings = self
            .shards
            .ask(shard, |reply| Query::Record {
                object: name,
                record_id: id,
                reply,
            })
            .await?;
        if standings.is_empty() {
            return Ok(RecordLookup::NotFound);
        }
        let targets = standings
            .into_iter()
            .map(|standing| RecordTarget {
                provider: standing.account,
                state: standing.state,
                reason: standing.reason,
                operation_id: standing.id.to_string(),
                attempts: standing.attempts.len() as u32,
                remote_id: standing.remote_id,
                updated_at: standing.updated_at_ms,
            })
            .collect();
        Ok(RecordLookup::Found(RecordView {
            record_id: record_id.to_owned(),
            object,
            targets,
        }))
    }

    async fn picture(
        &self,
        record_id: &str,
        object: Option<&str>,
    ) -> Result<PictureLookup, Refusal> {
        let object = match self.object_of(record_id, object).await? {
            Ok(object) => object,
            Err(objects) if objects.is_empty() => return Ok(PictureLookup::NotFound),
            Err(objects) => return Ok(PictureLookup::Ambiguous(objects)),
        };
        let picture = self.links.picture(&object, record_id).await?;
        Ok(picture.map_or(PictureLookup::NotFound, |picture| {
            PictureLookup::Found(Box::new(picture))
        }))
    }

    async fn links(&self, filter: LinkFilter, page: PageRequest) -> Result<Page<LinkRow>, Refusal> {
        self.links.page(&filter, &page).await
    }

    async fn set_link(&self, by: &str, request: LinkRequest) -> Result<LinkAnswer, Refusal> {
        let object = request.object.as_deref();
        let object = match self.object_of(&request.record_id, object).await? {
            Ok(object) => object,
            Err(objects) if objects.is_empty() => return Ok(LinkAnswer::NotFound),
            Err(objects) => return Ok(LinkAnswer::Ambiguous(objects)),
        };
        self.links.set(by, &object, &request).await
    }

    async fn link_changes(&self) -> Vec<LinkChange> {
        self.links.changes().await
    }

    async fn begin_walk(&self, request: WalkRequest) -> Result<WalkView, Refusal> {
        self.walks.begin(request).await
    }

    fn walks(&self) -> Vec<WalkView> {
        self.walks.views()
    }

    async fn cancel_walk(&self, id: &str) -> Option<WalkView> {
        self.walks.cancel(id).await
    }

    async fn explain(
        &self,
        record_id: &str,
        object: Option<&str>,
        provider: Option<&str>,
    ) -> Result<ExplainLookup, Refusal> {
        let object = match self.object_of(record_id, object).await? {
            Ok(object) => object,
            Err(objects) if objects.is_empty() => return Ok(ExplainLookup::NotFound),
            Err(objects) => return Ok(ExplainLookup::Ambiguous(objects)),
        };
        let targets = self.explain_targets(record_id, &object).await?;
        let targets: Vec<ExplainTarget> = targets
            .into_iter()
            .filter(|target| provider.is_none_or(|provider| target.provider == provider))
            .collect();
        if targets.is_empty() {
            return Ok(ExplainLookup::NotFound);
        }
        Ok(ExplainLookup::Found(ExplainView {
            record_id: record_id.to_owned(),
            object,
            targets,
        }))
    }

    async fn operation(&self, operation_id: &str) -> Result<Option<OperationView>, Refusal> {
        let Ok(id) = operation_id.parse::<OperationId>() else {
            return Ok(None);
        };
        let shard = self.shards.shared.router.shard_of(id.record);
        let standings = self
            .shards
            .ask(shard, |reply| Query::Operation { id, reply })
            .await?;
        Ok(operation_view(standings))
    }

    async fn operations(
        &self,
        filter: OperationFilter,
        page: PageRequest,
    ) -> Result<Page<OperationView>, Refusal> {
        let skip = cursor(page.after.as_deref())?;
        let mut found = Vec::new();
        for shard in 0..self.shards.count() {
            let limit = skip + page.limit + 1;
            let filter = filter.clone();
            found.extend(
                self.shards
                    .ask(shard, |reply| Query::Operations {
                        filter,
                        limit,
                        reply,
                    })
                    .await?,
            );
        }
        found.sort_by(|a, b| {
            b.id.seq
                .cmp(&a.id.seq)
                .then_with(|| a.account.cmp(&b.account))
        });
        let views = found
            .chunk_by(|a, b| a.id == b.id)
            .filter_map(|one| operation_view(one.to_vec()));
        Ok(paged(
            views.skip(skip).take(page.limit + 1).collect(),
            skip,
            page.limit,
        ))
    }

    async fn retry_record(
        &self,
        record_id: &str,
        object: Option<&str>,
    ) -> Result<Option<u64>, Refusal> {
        if self.record(record_id, object).await? == RecordLookup::NotFound {
            return Ok(None);
        }
        let filter = DeadFilter {
            record_id: Some(record_id.to_owned()),
            object: object.map(str::to_owned),
            ..DeadFilter::default()
        };
        Ok(Some(
            self.shards.command_all(&Command::Retry(filter)).await?,
        ))
    }

    async fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        page: PageRequest,
    ) -> Result<Page<DeadLetterView>, Refusal> {
        let skip = cursor(page.after.as_deref())?;
        dead_letters::page(&self.shards, &filter, skip, page.limit).await
    }

    async fn dead_letter(&self, id: &str) -> Result<Option<DeadLetterDetail>, Refusal> {
        dead_letters::detail(&self.shards, id).await
    }

    async fn dead_letter_groups(
        &self,
        filter: DeadLetterFilter,
    ) -> Result<DeadLetterGroups, Refusal> {
        dead_letters::groups(&self.shards, &filter).await
    }

    async fn count_dead_letters(&self, filter: DeadLetterFilter) -> Result<u64, Refusal> {
        dead_letters::count(&self.shards, &filter).await
    }

    async fn edit_dead_letter(
        &self,
        id: &str,
        data: &str,
    ) -> Result<Option<DeadLetterDetail>, Refusal> {
        dead_letters::edit(&self.shards, id, data).await
    }

    async fn redrive_one(&self, id: &str) -> Result<bool, Refusal> {
        dead_letters::redrive_one(&self.shards, id).await
    }

    async fn redrive(
        &self,
        filter: DeadLetterFilter,
        rate: Option<u32>,
    ) -> Result<JobView, Refusal> {
        dead_letters::redrive(&self.shards, &self.jobs, &filter, rate).await
    }

    async fn count_replay(&self, request: ReplayRequest) -> Result<ReplayCount, Refusal> {
        replay::count(&self.shards, &request).await
    }

    async fn replay(&self, request: ReplayRequest) -> Result<JobView, Refusal> {
        replay::start(&self.shards, &self.jobs, &request)
    }

    fn jobs(&self, kind: JobKind) -> Vec<JobView> {
        self.jobs.views(kind)
    }

    fn job(&self, kind: JobKind, id: &str) -> Option<JobView> {
        self.jobs.view(kind, id)
    }

    fn cancel_job(&self, kind: JobKind, id: &str) -> Option<JobView> {
        self.jobs.cancel(kind, id)
    }

    async fn resolve_conflict(
        &self,
        id: &str,
        fields: Option<Vec<String>>,
        winner: Winner,
    ) -> Result<u64, Refusal> {
        dead_letters::resolve(&self.shards, id, fields, winner).await
    }

    async fn drop_dead_letter(&self, id: &str) -> Result<bool, Refusal> {
        let Some((operation, provider)) = dead_letters::parse_id(id) else {
            return Ok(false);
        };
        let filter = DeadFilter {
            operation: Some((operation.record, operation.seq)),
            provider: Some(provider.to_owned()),
            ..DeadFilter::default()
        };
        let dropped = self.shards.command_all(&Command::Drop(filter)).await?;
        Ok(dropped > 0)
    }

    async fn change_settings(&self, by: &str, request: OverrideRequest) -> Result<(), Refusal> {
        let now = clock::now().wall.0;
        self.in_force.tuning.change(now, by, &request)?;
        self.in_force.tell().await
    }

    fn overrides(&self) -> OverridesView {
        self.in_force.tuning.view()
    }

    async fn pause(&self, hold: Hold) -> Result<(), Refusal> {
        self.shards
            .command_all(&Command::Hold(HoldChange {
                scope: scope(hold),
                set: true,
            }))
            .await
            .map(drop)
    }

    async fn resume(&self, hold: Hold) -> Result<(), Refusal> {
        self.shards
            .command_all(&Command::Hold(HoldChange {
                scope: scope(hold),
                set: false,
            }))
            .await
            .map(drop)
    }

    fn rules(&self) -> RulesView {
        let store = self.rule_store();
        RulesView {
            version: store.version(),
            origin: store.origin().as_str(),
            rules: store.rules().to_vec(),
        }
    }

    async fn push_rules(&self, push: RulesPush) -> Result<RulesPushed, Refusal> {
        let mut store = self.rule_store();
        let accounts = self.accounts();
        let known = |name: &str| accounts.iter().any(|view| view.name == name);
        let set = rule_store::checked(store.version() + 1, &push.rules, known)?;
        let rules = &self.shards.shared.router.rules;
        let trial = rules.try_out(&set);
        if push.dry_run {
            return Ok(RulesPushed::Tried(trial));
        }
        if trial.needs_force() && !push.force {
            return Ok(RulesPushed::NeedsForce(trial));
        }
        let version = set.version();
        store
            .keep(RuleOrigin::Api, push.rules)
            .map_err(|error| error.into_refusal())?;
        rules.replace(set);
        tracing::info!(version, "the API replaced the rules");
        Ok(RulesPushed::Replaced(version, trial))
    }

    fn accounts(&self) -> Vec<AccountView> {
        let accounts = account_views(&self.in_force.tuning.effective());
        accounts.into_iter().map(|(account, _)| account).collect()
    }

    async fn put_account(&self, by: &str, request: AccountRequest) -> Result<bool, Refusal> {
        let now = clock::now().wall.0;
        let is_new = self.in_force.tuning.put_account(now, by, request)?;
        self.in_force.tell().await?;
        Ok(is_new)
    }

    async fn remove_account(&self, by: &str, name: &str) -> Result<bool, Refusal> {
        let now = clock::now().wall.0;
        let removed = self.in_force.tuning.remove_account(now, by, name)?;
        self.in_force.tell().await?;
        Ok(removed)
    }

    fn consumers(&self) -> Vec<ConsumerView> {
        let feed = self.feed.as_ref();
        feed.map(|feed| feed.consumers()).unwrap_or_default()
    }

    async fn remove_consumer(&self, name: &str) -> Result<bool, Refusal> {
        self.feed
            .as_ref()
            .map_or(Ok(false), |feed| feed.remove(name))
    }

    async fn account_status(&self, name: &str) -> Result<Option<AccountStatus>, Refusal> {
        Ok(self
            .statuses()
            .await?
            .into_iter()
            .find(|status| status.account.name == name))
    }

    async fn health(&self) -> HealthView {
        let fenced = self.is_broken();
        let full = self
            .gauges
            .iter()
            .any(|gauges| gauges.disk_full.load(Ordering::Relaxed));
        HealthView {
            wal: if fenced {
                Check::Unhealthy("a write failed; restart to recover".into())
            } else {
                Check::Healthy
            },
            disk: if full {
                Check::Degraded("the disk is full; no events are taken".into())
            } else {
                Check::Healthy
            },
            shards: if fenced {
                Check::Unhealthy("a shard stopped".into())
            } else {
                Check::Healthy
            },
            ready: !fenced,
            at: clock::now().wall.0,
            accounts: self.statuses().await.unwrap_or_default(),
        }
    }

    async fn metrics(&self) -> String {
        let statuses = self.statuses().await.unwrap_or_default();
        self.metrics.render(&statuses, &self.consumers())
    }
}

fn scope(hold: Hold) -> HoldScope {
    HoldScope {
        provider: hold.provider,
        object: hold.object,
        record_id: hold.record_id,
    }
}

fn open_operations(counts: OpenCounts) -> OpenOperations {
    let held = counts.paused + counts.aside;
    let behind = counts
        .open
        .saturating_sub(counts.ready + counts.in_flight + counts.timed.sum() + held);
    OpenOperations {
        queued: counts.ready,
        waiting: behind + held + counts.timed.scheduled + counts.timed.parent,
        in_flight: counts.in_flight,
        retrying: counts.timed.backoff,
        unknown: counts.timed.unknown,
        conflict: 0,
    }
}
