//! A node in memory behind the real API, and a client that speaks bytes.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its fixtures too"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use engine::merge::Winner;
use engine::refusal::{Code, Refusal};
use engine::rules::{RuleSet, RuleSettings, Trial};
use engine::shard::{LinkFilter, LinkRow, RecordPicture};
use engine::state::{CallClass, Reason, State};
use engine::view::*;
use serde_json::Value;
use syncline_net::http::{AccountRequest, Backend, HttpLimits, WebhookDelivery, Webhooks};
use tokio::sync::oneshot;

/// What the API was asked to do, and what it shall answer.
#[derive(Default)]
pub(crate) struct Node {
    /// The raw text of every event that reached the node.
    pub(crate) submitted: Vec<String>,
    pub(crate) operations: BTreeMap<String, OperationView>,
    pub(crate) dead_letters: BTreeMap<String, DeadLetterView>,
    /// What each key may do; `None`: it asks too fast.
    pub(crate) keys: BTreeMap<String, Option<Scope>>,
    pub(crate) jobs: Vec<JobView>,
    pub(crate) overrides: OverridesView,
    /// Who asked for which account.
    pub(crate) added: Vec<(String, AccountRequest)>,
    pub(crate) consumers: Vec<ConsumerView>,
    pub(crate) pictures: Vec<RecordPicture>,
    pub(crate) links: Vec<LinkRow>,
    pub(crate) walks: Vec<WalkView>,
    pub(crate) held: Vec<Hold>,
    pub(crate) released: Vec<Hold>,
    pub(crate) wal: Option<Check>,
    pub(crate) breaker: Option<BreakerState>,
    pub(crate) overloaded: bool,
    pub(crate) rules: Vec<RuleSettings>,
    pub(crate) rules_pushed: Vec<RulesPush>,
    /// Who won in conflicts.
    pub(crate) resolved: Vec<Winner>,
    /// What a trial of other rules shows.
    pub(crate) trial: Trial,
    pub(crate) delivered: Vec<WebhookDelivery>,
    pub(crate) too_large: usize,
    /// Why deliveries are refused, if they are.
    pub(crate) undeliverable: Option<Code>,
}

pub(crate) struct FakeBackend {
    pub(crate) node: Arc<Mutex<Node>>,
}

/// A running API; ends in order when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) node: Arc<Mutex<Node>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    pub(crate) fn has_header(&self, line: &str) -> bool {
        self.head
            .lines()
            .any(|found| found.eq_ignore_ascii_case(line))
    }
}

impl Server {
    pub(crate) fn start() -> Server {
        Server::start_with(HttpLimits::default())
    }

    pub(crate) fn start_with(limits: HttpLimits) -> Server {
        let node = Arc::new(Mutex::new(Node::default()));
        let backend = Arc::new(FakeBackend {
            node: Arc::clone(&node),
        });
        let (stop, stopped) = oneshot::channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let stopped = async { drop(stopped.await) };
                syncline_net::http::serve(listener, backend, limits, None, stopped)
                    .await
                    .unwrap();
            });
        });
        Server {
            address,
            node,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Asks for an end; open requests go on.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, "", body)
    }

    /// `headers`: whole lines, each with its line break.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len(),
        ))
    }

    pub(crate) fn raw(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        read_answer(&mut stream)
    }
}

/// Reads until the server closes.
pub(crate) fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

pub(crate) fn operation(id: &str, record_id: &str, state: State) -> OperationView {
    let attempt = AttemptView {
        at: 1_795_168_800_123,
        status: Some(503),
        class: CallClass::Transient,
        detail: "try later".into(),
    };
    OperationView {
        operation_id: id.into(),
        record_id: record_id.into(),
        object: "contact".into(),
        operation: "UPDATE",
        state,
        accepted_at: 1_795_168_800_000,
        targets: vec![OperationTarget {
            provider: "crm".into(),
            state,
            reason: (state == State::Failed).then_some(Reason::AttemptsExhausted),
            remote_id: Some("003x".into()),
            updated_at: 1_795_168_801_000,
            superseded_by: None,
            attempts: vec![attempt.clone(), attempt],
        }],
        result: None,
    }
}

pub(crate) fn dead_letter(id: &str, provider: &str) -> DeadLetterView {
    DeadLetterView {
        id: id.into(),
        record_id: format!("r-{id}"),
        object: "contact".into(),
        provider: provider.into(),
        operation_id: format!("op-{id}"),
        code: "permanent".into(),
        detail: "no such field".into(),
        attempts: 1,
        dead_at: 1_795_168_800_000,
        held: Vec::new(),
    }
}

pub(crate) fn detail(letter: DeadLetterView, data: &str) -> DeadLetterDetail {
    DeadLetterDetail {
        operation: "UPDATE",
        accepted_at: 1_795_168_799_000,
        data: Some(data.to_owned()),
        attempts: operation("op", "r", State::Failed).targets[0]
            .attempts
            .clone(),
        signature: letter.detail.clone(),
        rules_version: 3,
        mapping_version: 4,
        letter,
    }
}

pub(crate) fn job(kind: JobKind, state: JobState) -> JobView {
    JobView {
        id: "job1".into(),
        kind,
        state,
        matched: 2,
        done: 1,
        left_out: 0,
        rate: 1000,
        started_at: 1_795_168_800_000,
        ended_at: None,
        detail: None,
    }
}

fn account() -> AccountView {
    AccountView {
        name: "crm".into(),
        definition: "rest".into(),
        base_url: Some("http://127.0.0.1:9100".into()),
        fold: true,
        max_in_flight: 32,
        timeout_ms: 30_000,
    }
}

impl Webhooks for FakeBackend {
    fn takes(&self, account: &str) -> bool {
        account == "crm"
    }

    fn too_large(&self, _: &str) {
        self.node.lock().unwrap().too_large += 1;
    }

    async fn deliver(&self, _: &str, delivery: WebhookDelivery) -> Result<u16, Refusal> {
        let mut node = self.node.lock().unwrap();
        match node.undeliverable {
            Some(code) => Err(Refusal::new(code, "not this one")),
            None => {
                node.delivered.push(delivery);
                Ok(202)
            }
        }
    }
}

impl FakeBackend {
    fn take(&self, text: &Bytes) -> Result<Accepted, Refusal> {
        let event: Value = serde_json::from_slice(text)
            .map_err(|_| Refusal::at(Code::Malformed, "", "not JSON"))?;
        let Some(record_id) = event["record_id"].as_str() else {
            return Err(Refusal::at(
                Code::MissingField,
                "/record_id",
                "an event names its record",
            ));
        };
        let mut node = self.node.lock().unwrap();
        if node.overloaded {
            return Err(Refusal::new(Code::Overloaded, "every ring is full"));
        }
        node.submitted
            .push(String::from_utf8(text.to_vec()).unwrap());
        let id = format!("op{}", node.submitted.len());
        let duplicate = event["event_id"] == "again";
        node.operations
            .insert(id.clone(), operation(&id, record_id, State::Queued));
        Ok(Accepted {
            operation_id: id,
            record_id: record_id.to_owned(),
            duplicate,
        })
    }

    fn status(&self) -> AccountStatus {
        let node = self.node.lock().unwrap();
        AccountStatus {
            account: account(),
            paused: node.held.len() > node.released.len(),
            breaker: node.breaker.unwrap_or(BreakerState::Closed),
            auth: AuthState::Valid,
            open: OpenOperations {
                queued: node.operations.len() as u64,
                ..Default::default()
            },
            dead_letters: node.dead_letters.len() as u64,
            limits: vec![LimitStatus {
                name: "burst".into(),
                limit: 100,
                used: 25,
                window_ms: 1000,
                allowed: 80,
                used_up_at: Some(1_795_229_262_123),
                ..LimitStatus::default()
            }],
            outlook: AccountOutlook::default(),
        }
    }

    fn matching(&self, filter: &DeadLetterFilter) -> Vec<DeadLetterView> {
        let node = self.node.lock().unwrap();
        let fits = |want: &Option<String>, have: &str| want.as_deref().is_none_or(|w| w == have);
        node.dead_letters
            .values()
            .filter(|d| fits(&filter.provider, &d.provider) && fits(&filter.code, &d.code))
            .cloned()
            .collect()
    }
}

impl Backend for FakeBackend {
    fn admit(&self, key: Option<&str>, needed: Scope) -> Admission {
        let node = self.node.lock().unwrap();
        match (node.keys.get(key.unwrap_or_default()), &node.keys) {
            (_, known) if known.is_empty() => Admission::Granted("nobody by name".into()),
            (None, _) => Admission::NoKey,
            (Some(None), _) => Admission::TooFast,
            (Some(Some(scope)), _) if scope.covers(needed) => Admission::Granted("ada".into()),
            (Some(Some(_)), _) => Admission::OtherScope,
        }
    }

    async fn submit(&self, events: Vec<Bytes>) -> Vec<Result<Accepted, Refusal>> {
        events.iter().map(|event| self.take(event)).collect()
    }

    async fn record(&self, id: &str, object: Option<&str>) -> Result<RecordLookup, Refusal> {
        if id == "down" {
            return Err(Refusal::new(Code::ShardDown, "the shard is not running"));
        }
        if id == "twice" && object.is_none() {
            return Ok(RecordLookup::Ambiguous(vec![
                "account".into(),
                "contact".into(),
            ]));
        }
        let node = self.node.lock().unwrap();
        let Some(found) = node.operations.values().find(|op| op.record_id == id) else {
            return Ok(RecordLookup::NotFound);
        };
        let targets = found.targets.iter().map(|target| RecordTarget {
            provider: target.provider.clone(),
            state: found.state,
            reason: target.reason,
            operation_id: found.operation_id.clone(),
            attempts: target.attempts.len() as u32,
            remote_id: target.remote_id.clone(),
            updated_at: target.updated_at,
        });
        Ok(RecordLookup::Found(RecordView {
            record_id: id.to_owned(),
            object: found.object.clone(),
            targets: targets.collect(),
        }))
    }

    async fn explain(
        &self,
        id: &str,
        object: Option<&str>,
        provider: Option<&str>,
    ) -> Result<ExplainLookup, Refusal> {
        if id == "twice" && object.is_none() {
            return Ok(ExplainLookup::Ambiguous(vec![
                "account".into(),
                "contact".into(),
            ]));
        }
        if id == "nobody" || provider.is_some_and(|name| name != "crm") {
            return Ok(ExplainLookup::NotFound);
        }
        Ok(ExplainLookup::Found(ExplainView {
            record_id: id.to_owned(),
            object: "contact".into(),
            targets: vec![ExplainTarget {
                provider: "crm".into(),
                state: State::Waiting,
                reason: Some(Reason::Quota),
                detail: "the account's limit \"burst\" is used up".into(),
                since: 1_795_168_800_000,
                until: Some(1_795_168_801_000),
                ahead: Some(7),
                expected_at: None,
            }],
        }))
    }

    async fn operation(&self, id: &str) -> Result<Option<OperationView>, Refusal> {
        Ok(self.node.lock().unwrap().operations.get(id).cloned())
    }

    async fn operations(
        &self,
        filter: OperationFilter,
        page: PageRequest,
    ) -> Result<Page<OperationView>, Refusal> {
        let node = self.node.lock().unwrap();
        let fits = |op: &&OperationView| filter.state.is_none_or(|state| op.state == state);
        let items = node
            .operations
            .values()
            .filter(fits)
            .take(page.limit)
            .cloned()
            .collect();
        Ok(Page { items, next: None })
    }

    async fn retry_record(&self, id: &str, _: Option<&str>) -> Result<Option<u64>, Refusal> {
        let node = self.node.lock().unwrap();
        let mut of_record = node
            .operations
            .values()
            .filter(|op| op.record_id == id)
            .peekable();
        if of_record.peek().is_none() {
            return Ok(None);
        }
        Ok(Some(
            of_record.filter(|op| op.state == State::Failed).count() as u64,
        ))
    }

    async fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        page: PageRequest,
    ) -> Result<Page<DeadLetterView>, Refusal> {
        let mut items = self.matching(&filter);
        if let Some(after) = page.after {
            items.retain(|d| d.id > after);
        }
        let more = items.len() > page.limit;
        items.truncate(page.limit);
        let next = items.last().filter(|_| more).map(|d| d.id.clone());
        Ok(Page { items, next })
    }

    async fn dead_letter(&self, id: &str) -> Result<Option<DeadLetterDetail>, Refusal> {
        let found = self.node.lock().unwrap().dead_letters.get(id).cloned();
        Ok(found.map(|letter| detail(letter, r#"{"n":1.10}"#)))
    }

    async fn dead_letter_groups(
        &self,
        filter: DeadLetterFilter,
    ) -> Result<DeadLetterGroups, Refusal> {
        let groups = self
            .matching(&filter)
            .into_iter()
            .map(|letter| DeadLetterGroup {
                provider: letter.provider,
                object: letter.object,
                code: letter.code,
                signature: letter.detail,
                count: 1,
                example: letter.id,
                oldest: letter.dead_at,
                newest: letter.dead_at,
            });
        Ok(DeadLetterGroups {
            groups: groups.collect(),
            others: 0,
        })
    }

    async fn count_dead_letters(&self, filter: DeadLetterFilter) -> Result<u64, Refusal> {
        Ok(self.matching(&filter).len() as u64)
    }

    async fn edit_dead_letter(
        &self,
        id: &str,
        data: &str,
    ) -> Result<Option<DeadLetterDetail>, Refusal> {
        if !data.starts_with('{') {
            return Err(Refusal::at(Code::InvalidField, "/data", "not an object"));
        }
        let found = self.node.lock().unwrap().dead_letters.get(id).cloned();
        Ok(found.map(|letter| detail(letter, data)))
    }

    async fn redrive_one(&self, id: &str) -> Result<bool, Refusal> {
        Ok(self.node.lock().unwrap().dead_letters.remove(id).is_some())
    }

    async fn redrive(
        &self,
        filter: DeadLetterFilter,
        rate: Option<u32>,
    ) -> Result<JobView, Refusal> {
        let matching = self.matching(&filter);
        let mut node = self.node.lock().unwrap();
        for dead_letter in &matching {
            node.dead_letters.remove(&dead_letter.id);
        }
        let mut job = job(JobKind::Redrive, JobState::Done);
        job.matched = matching.len() as u64;
        job.done = job.matched;
        job.rate = rate.unwrap_or(1000);
        node.jobs.push(job.clone());
        Ok(job)
    }

    async fn count_replay(&self, request: ReplayRequest) -> Result<ReplayCount, Refusal> {
        Ok(ReplayCount {
            matched: (request.to - request.from).unsigned_abs(),
            not_kept: 1,
        })
    }

    async fn replay(&self, request: ReplayRequest) -> Result<JobView, Refusal> {
        let mut job = job(JobKind::Replay, JobState::Running);
        job.rate = request.rate.unwrap_or(100);
        self.node.lock().unwrap().jobs.push(job.clone());
        Ok(job)
    }

    fn jobs(&self, kind: JobKind) -> Vec<JobView> {
        let node = self.node.lock().unwrap();
        let jobs = node.jobs.iter().filter(|job| job.kind == kind);
        jobs.cloned().collect()
    }

    fn job(&self, kind: JobKind, id: &str) -> Option<JobView> {
        self.jobs(kind).into_iter().find(|job| job.id == id)
    }

    fn cancel_job(&self, kind: JobKind, id: &str) -> Option<JobView> {
        let mut node = self.node.lock().unwrap();
        let jobs = &mut node.jobs;
        let job = jobs
            .iter_mut()
            .find(|job| job.kind == kind && job.id == id)?;
        job.state = JobState::Cancelled;
        Some(job.clone())
    }

    async fn resolve_conflict(
        &self,
        id: &str,
        fields: Option<Vec<String>>,
        winner: Winner,
    ) -> Result<u64, Refusal> {
        let mut node = self.node.lock().unwrap();
        let Some(letter) = node.dead_letters.get_mut(id) else {
            return Ok(0);
        };
        let held = letter.held.len();
        letter.held.retain(|held| {
            fields
                .as_ref()
                .is_some_and(|fields| !fields.contains(&held.field))
        });
        let resolved = held - letter.held.len();
        node.resolved.push(winner);
        Ok(resolved as u64)
    }

    async fn drop_dead_letter(&self, id: &str) -> Result<bool, Refusal> {
        Ok(self.node.lock().unwrap().dead_letters.remove(id).is_some())
    }

    async fn put_account(&self, by: &str, request: AccountRequest) -> Result<bool, Refusal> {
        let mut node = self.node.lock().unwrap();
        let is_new = node
            .added
            .iter()
            .all(|(_, known)| known.name != request.name);
        node.added.push((by.to_owned(), request));
        Ok(is_new)
    }

    async fn remove_account(&self, _by: &str, name: &str) -> Result<bool, Refusal> {
        let mut node = self.node.lock().unwrap();
        let known = node.added.len();
        node.added.retain(|(_, request)| request.name != name);
        Ok(node.added.len() < known)
    }

    async fn change_settings(&self, by: &str, request: OverrideRequest) -> Result<(), Refusal> {
        let mut node = self.node.lock().unwrap();
        for (_, value) in request.set {
            node.overrides.members.push(OverrideMember {
                provider: request.provider.clone(),
                object: request.object.clone(),
                name: "max_in_flight",
                value,
                at: 1_795_168_800_000,
                by: by.to_owned(),
                until: request.ttl.is_some().then_some(1_795_168_801_000),
            });
        }
        Ok(())
    }

    fn overrides(&self) -> OverridesView {
        self.node.lock().unwrap().overrides.clone()
    }

    async fn pause(&self, hold: Hold) -> Result<(), Refusal> {
        if hold.provider.as_deref().is_some_and(|name| name != "crm") {
            return Err(Refusal::at(
                Code::UnknownProvider,
                "/provider",
                "no such account",
            ));
        }
        self.node.lock().unwrap().held.push(hold);
        Ok(())
    }

    async fn resume(&self, hold: Hold) -> Result<(), Refusal> {
        self.node.lock().unwrap().released.push(hold);
        Ok(())
    }

    fn rules(&self) -> RulesView {
        let node = self.node.lock().unwrap();
        RulesView {
            version: node.rules_pushed.len() as u32,
            origin: "api",
            rules: node.rules.clone(),
        }
    }

    async fn push_rules(&self, push: RulesPush) -> Result<RulesPushed, Refusal> {
        let mut node = self.node.lock().unwrap();
        let trial = node.trial.clone();
        RuleSet::compile(1, &push.rules).map_err(|error| {
            let pointer = format!("/rules/{}/{}", error.rule, error.key);
            Refusal::at(Code::InvalidField, pointer, error.detail)
        })?;
        if push.dry_run {
            return Ok(RulesPushed::Tried(trial));
        }
        if trial.needs_force() && !push.force {
            return Ok(RulesPushed::NeedsForce(trial));
        }
        node.rules = push.rules.clone();
        node.rules_pushed.push(push);
        let version = node.rules_pushed.len() as u32;
        Ok(RulesPushed::Replaced(version, trial))
    }

    fn accounts(&self) -> Vec<AccountView> {
        vec![account()]
    }

    async fn picture(
        &self,
        record_id: &str,
        object: Option<&str>,
    ) -> Result<PictureLookup, Refusal> {
        let pictures = &self.node.lock().unwrap().pictures;
        let fits = |picture: &&RecordPicture| {
            picture.record_id == record_id && object.is_none_or(|it| it == picture.object)
        };
        let found: Vec<_> = pictures.iter().filter(fits).collect();
        Ok(match found.as_slice() {
            [] => PictureLookup::NotFound,
            [one] => PictureLookup::Found(Box::new((*one).clone())),
            some => PictureLookup::Ambiguous(some.iter().map(|it| it.object.clone()).collect()),
        })
    }

    async fn links(&self, filter: LinkFilter, page: PageRequest) -> Result<Page<LinkRow>, Refusal> {
        let node = self.node.lock().unwrap();
        let fits = |link: &&LinkRow| {
            filter
                .account
                .as_deref()
                .is_none_or(|it| it == link.account)
        };
        let skip = page
            .after
            .as_deref()
            .map_or(0, |after| after.parse().unwrap());
        let found: Vec<_> = node.links.iter().filter(fits).skip(skip).cloned().collect();
        let next = (found.len() > page.limit).then(|| (skip + page.limit).to_string());
        let items = found.into_iter().take(page.limit).collect();
        Ok(Page { items, next })
    }

    async fn set_link(&self, by: &str, request: LinkRequest) -> Result<LinkAnswer, Refusal> {
        let links = &mut self.node.lock().unwrap().links;
        let remote_id = request.remote_id.as_deref();
        let owner = links
            .iter()
            .find(|link| Some(&*link.remote_id) == remote_id);
        if let Some(owner) = owner.filter(|owner| owner.record_id != request.record_id) {
            return Ok(LinkAnswer::Owned(owner.record_id.clone()));
        }
        let own = links.iter().position(|link| {
            link.record_id == request.record_id && link.account == request.provider
        });
        let former = own.map(|own| links.remove(own).remote_id);
        if former.is_none() && remote_id.is_none() {
            return Ok(LinkAnswer::NotFound);
        }
        let object = request.object.unwrap_or_else(|| "contact".to_owned());
        if let Some(remote_id) = request.remote_id {
            links.push(LinkRow {
                object: object.clone(),
                record_id: request.record_id,
                account: request.provider,
                remote_id,
                waits: by.is_empty(),
            });
        }
        Ok(LinkAnswer::Changed { object, former })
    }

    async fn begin_walk(&self, request: WalkRequest) -> Result<WalkView, Refusal> {
        let walks = &mut self.node.lock().unwrap().walks;
        let walk = WalkView {
            id: format!("w{}", walks.len()),
            request,
            state: JobState::Running,
            phase: "listing",
            tally: WalkTally::default(),
            started_at: 0,
            ended_at: None,
            detail: None,
            waits_for: Some("others use the walk's share of the limit daily".to_owned()),
        };
        walks.push(walk.clone());
        Ok(walk)
    }

    fn walks(&self) -> Vec<WalkView> {
        self.node.lock().unwrap().walks.clone()
    }

    async fn cancel_walk(&self, id: &str) -> Option<WalkView> {
        let walks = &mut self.node.lock().unwrap().walks;
        let walk = walks.iter_mut().find(|walk| walk.id == id)?;
        walk.state = JobState::Cancelled;
        Some(walk.clone())
    }

    async fn link_changes(&self) -> Vec<LinkChange> {
        Vec::new()
    }

    fn consumers(&self) -> Vec<ConsumerView> {
        self.node.lock().unwrap().consumers.clone()
    }

    async fn remove_consumer(&self, name: &str) -> Result<bool, Refusal> {
        let consumers = &mut self.node.lock().unwrap().consumers;
        let known = consumers.len();
        consumers.retain(|consumer| consumer.name != name);
        Ok(consumers.len() < known)
    }

    async fn account_status(&self, name: &str) -> Result<Option<AccountStatus>, Refusal> {
        Ok((name == "crm").then(|| self.status()))
    }

    async fn health(&self) -> HealthView {
        let accounts = vec![self.status()];
        let node = self.node.lock().unwrap();
        HealthView {
            wal: node.wal.clone().unwrap_or(Check::Healthy),
            disk: Check::Healthy,
            shards: Check::Healthy,
            ready: true,
            at: 1_795_168_800_000,
            accounts,
        }
    }

    async fn metrics(&self) -> String {
        "syncline_events_accepted_total 1\n".into()
    }
}
