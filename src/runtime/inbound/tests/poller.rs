//! Polls simulated accounts in virtual time, whatever goes wrong between the two.

use std::collections::BTreeMap;
use std::path::Path;

use engine::provider::{BodyEnd, Change as Told, ChangeKind, Definition, ReplyHeaders, shipped};
use engine::refusal::Code;
use mock::{Account, AccountConfig, Answer, Change, Edit, ProviderKind};
use net::metrics::Metrics;
use serde_json::{Map, Value, json};
use tokio::time::{pause, sleep as elapse};

use super::*;

/// 2026-11-20T10:00:00Z.
const EPOCH: Duration = Duration::from_secs(1_795_168_800);
const TOKEN: &str = "t-1";

/// A simulated account as the shards would call it.
struct Line {
    account: Mutex<Account>,
    began: Instant,
    calls: Mutex<usize>,
    /// Every so many calls one has no reply.
    lost_every: usize,
}

impl Line {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn edit(&self, object: &str, id: Option<&str>, change: Change) -> String {
        let edit = Edit {
            object: object.to_owned(),
            id: id.map(str::to_owned),
            change,
        };
        let now = self.now();
        lock(&self.account).edit(now, &edit).unwrap().to_string()
    }

    /// What the account has: the value of `field` of each record, by id.
    fn records(&self, field: &str) -> BTreeMap<String, String> {
        let account = lock(&self.account);
        let records = account.records().map(|(_, id, record)| {
            let value = record.fields.get(field).and_then(Value::as_str);
            (id.to_string(), value.unwrap_or_default().to_owned())
        });
        records.collect()
    }
}

impl Fetcher for Line {
    async fn fetch(&self, _: &str, _: &Poll, request: Request) -> Result<Reply, FetchFailed> {
        let calls = {
            let mut calls = lock(&self.calls);
            *calls += 1;
            *calls
        };
        if self.lost_every > 0 && calls % self.lost_every == 0 {
            return Err(FetchFailed::NoReply("lost on the way".to_owned()));
        }
        let asked = mock::Request {
            method: request.method.as_str().parse().unwrap(),
            target: &request.path_and_query,
            idempotency_key: None,
            body: request.body.clone(),
        };
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        let now = self.now();
        let Answer::Reply(reply) = lock(&self.account).handle_with(now, &asked, headers) else {
            return Err(FetchFailed::NoReply("reset".to_owned()));
        };
        let at_ms = (EPOCH + now).as_millis() as i64;
        let at = jiff::Timestamp::from_millisecond(at_ms).unwrap();
        Ok(Reply {
            status: reply.status,
            retry_after: None,
            date: Some(at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()),
            headers: ReplyHeaders::default(),
            body: reply.body,
            body_end: BodyEnd::Complete,
        })
    }
}

/// Keeps what it was told last of each record; refuses while it is full.
#[derive(Default)]
struct Mirror {
    records: Mutex<BTreeMap<String, Value>>,
    merged: Mutex<Vec<(String, String)>>,
    told: Mutex<usize>,
    full: Mutex<bool>,
    missed: Mutex<Vec<String>>,
}

impl InboundSink for Mirror {
    async fn take(&self, _: &str, via: Via, changes: Vec<Told>) -> Result<Taken, Refusal> {
        assert!(matches!(via, Via::Poll { .. }));
        if *lock(&self.full) {
            return Err(Refusal::new(Code::Overloaded, "not now"));
        }
        *lock(&self.told) += changes.len();
        let mut records = lock(&self.records);
        for change in &changes {
            match &change.kind {
                ChangeKind::Merged { into } => {
                    let merge = (change.remote_id.clone(), into.clone());
                    lock(&self.merged).push(merge);
                    records.remove(&change.remote_id);
                }
                ChangeKind::Deleted => drop(records.remove(&change.remote_id)),
                _ => {
                    let fields = serde_json::from_str(change.fields.as_deref().unwrap());
                    records.insert(change.remote_id.clone(), fields.unwrap());
                }
            }
        }
        Ok(Taken {
            new: changes.len(),
            ..Taken::default()
        })
    }

    async fn missed(&self, _: &str, object: &str, _: String) -> Result<(), Refusal> {
        if *lock(&self.full) {
            return Err(Refusal::new(Code::Overloaded, "not now"));
        }
        lock(&self.missed).push(object.to_owned());
        Ok(())
    }
}

impl Mirror {
    fn values(&self, field: &str) -> BTreeMap<String, String> {
        let records = lock(&self.records);
        let values = records.iter().map(|(id, record)| {
            let value = record[field].as_str().unwrap_or_default();
            (id.clone(), value.to_owned())
        });
        values.collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn line(provider: ProviderKind, faults: &str, lost_every: usize) -> Arc<Line> {
    let mut config = AccountConfig {
        provider,
        epoch: EPOCH,
        faults: faults.parse().unwrap(),
        ..AccountConfig::default()
    };
    config.credentials.tokens.push(TOKEN.to_owned());
    Arc::new(Line {
        account: Mutex::new(Account::new(config)),
        began: Instant::now(),
        calls: Mutex::default(),
        lost_every,
    })
}

/// Starts polling every list of one object; dropping the handle's task is a crash.
fn poll(
    definition: &str,
    object: &str,
    fields: &[&str],
    line: &Arc<Line>,
    mirror: &Arc<Mirror>,
    folder: &Path,
) -> tokio::task::JoinHandle<()> {
    let definition = Definition::parse(shipped(definition).unwrap()).unwrap();
    let feeds: Vec<&str> = definition.poll_feeds().collect();
    let polls = feeds
        .iter()
        .filter_map(|feed| definition.poll(feed, object, fields.iter().copied()));
    let account = AccountPolls {
        account: "crm".to_owned(),
        base_url: "https://crm.example.com".to_owned(),
        polls: polls.collect(),
        interval: None,
        from_ms: EPOCH.as_millis() as i64 + line.now().as_millis() as i64,
    };
    let metrics = Metrics::new(vec!["crm".to_owned()]);
    let label = metrics.account("crm");
    let began = line.began;
    let now_ms = move || (EPOCH + began.elapsed()).as_millis() as i64;
    let poller = Poller::new(
        account,
        CursorFile::load(folder, "crm").unwrap(),
        line.clone(),
        mirror.clone(),
        (Arc::new(Mutex::new(metrics.writer())), label),
        Box::new(now_ms),
    );
    tokio::spawn(poller.run())
}

fn fields(value: Value) -> Map<String, Value> {
    let Value::Object(fields) = value else {
        panic!("no object");
    };
    fields
}

#[tokio::test]
async fn what_others_do_at_an_account_arrives_over_crashes_and_lost_replies() {
    pause();
    for (provider, definition, object, field, create) in [
        (
            ProviderKind::Salesforce,
            "salesforce",
            "Contact",
            "LastName",
            json!({ "LastName": "a" }),
        ),
        (
            ProviderKind::HubSpot,
            "hubspot",
            "contacts",
            "lastname",
            json!({ "lastname": "a" }),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let line = line(provider, "", 5);
        let mirror = Arc::new(Mirror::default());
        let mut poller = poll(definition, object, &[field], &line, &mirror, folder.path());
        elapse(Duration::from_secs(90)).await;
        let mut ids = Vec::new();
        for round in 0..6 {
            // Many at one instant: more than a page holds.
            for n in 0..700 {
                if n < 600 && round > 0 && n % 3 != 0 {
                    continue;
                }
                ids.push(line.edit(object, None, Change::Create(fields(create.clone()))));
            }
            for id in ids.iter().step_by(7) {
                let change = json!({ field: format!("{round}") });
                line.edit(object, Some(id), Change::Update(fields(change)));
            }
            for id in ids.split_off(ids.len() - 20) {
                line.edit(object, Some(&id), Change::Delete);
            }
            elapse(Duration::from_secs(50)).await;
            poller.abort();
            drop(poller.await);
            poller = poll(definition, object, &[field], &line, &mirror, folder.path());
        }
        elapse(Duration::from_secs(3600)).await;
        assert_eq!(mirror.values(field), line.records(field), "{definition}");
        assert_eq!(lock(&line.account).violations().total, 0, "{definition}");
        poller.abort();
    }
}

#[tokio::test]
async fn a_merge_is_told_with_the_record_that_stays() {
    pause();
    let folder = tempfile::tempdir().unwrap();
    let line = line(ProviderKind::Salesforce, "", 0);
    let mirror = Arc::new(Mirror::default());
    let poller = poll(
        "salesforce",
        "Contact",
        &["LastName"],
        &line,
        &mirror,
        folder.path(),
    );
    elapse(Duration::from_secs(1)).await;
    let create = || Change::Create(fields(json!({ "LastName": "a" })));
    let loser = line.edit("Contact", None, create());
    let winner = line.edit("Contact", None, create());
    elapse(Duration::from_secs(90)).await;
    line.edit("Contact", Some(&loser), Change::MergeInto(winner.clone()));
    elapse(Duration::from_secs(90)).await;
    assert_eq!(lock(&mirror.merged)[0], (loser, winner.clone()));
    assert!(lock(&mirror.records).contains_key(&winner));
    poller.abort();
}

#[tokio::test]
async fn a_list_begins_at_the_first_start_and_goes_on_from_there() {
    pause();
    let folder = tempfile::tempdir().unwrap();
    let line = line(ProviderKind::Salesforce, "", 0);
    let create = || Change::Create(fields(json!({ "LastName": "a" })));
    line.edit("Contact", None, create());
    elapse(Duration::from_secs(3600)).await;
    let mirror = Arc::new(Mirror::default());
    let start = || {
        poll(
            "salesforce",
            "Contact",
            &["LastName"],
            &line,
            &mirror,
            folder.path(),
        )
    };
    let poller = start();
    elapse(Duration::from_secs(30)).await;
    poller.abort();
    assert_eq!(*lock(&mirror.told), 0, "what was there before is no change");
    // Away for an hour: nothing of it is missed.
    line.edit("Contact", None, create());
    elapse(Duration::from_secs(3600)).await;
    let poller = start();
    elapse(Duration::from_secs(30)).await;
    assert_eq!(lock(&mirror.records).len(), 1);
    poller.abort();
}

#[tokio::test]
async fn what_is_not_taken_is_asked_for_again() {
    pause();
    let folder = tempfile::tempdir().unwrap();
    let line = line(ProviderKind::HubSpot, "", 0);
    let mirror = Arc::new(Mirror::default());
    *lock(&mirror.full) = true;
    let poller = poll(
        "hubspot",
        "contacts",
        &["lastname"],
        &line,
        &mirror,
        folder.path(),
    );
    elapse(Duration::from_secs(1)).await;
    let create = Change::Create(fields(json!({ "lastname": "a" })));
    line.edit("contacts", None, create);
    elapse(Duration::from_secs(600)).await;
    assert_eq!(lock(&mirror.records).len(), 0);
    *lock(&mirror.full) = false;
    elapse(Duration::from_secs(1200)).await;
    assert_eq!(lock(&mirror.records).len(), 1);
    poller.abort();
}

#[tokio::test]
async fn a_gap_is_told_until_somebody_has_it_and_then_no_more() {
    pause();
    let folder = tempfile::tempdir().unwrap();
    let line = line(ProviderKind::Salesforce, "", 0);
    let mirror = Arc::new(Mirror::default());
    let start = || {
        let fields = ["LastName"];
        poll(
            "salesforce",
            "Contact",
            &fields,
            &line,
            &mirror,
            folder.path(),
        )
    };
    let poller = start();
    elapse(Duration::from_secs(3600)).await;
    poller.abort();
    // The list of deletes goes back fifteen days.
    elapse(Duration::from_secs(20 * 86_400)).await;
    *lock(&mirror.full) = true;
    let poller = start();
    elapse(Duration::from_secs(1)).await;
    poller.abort();
    assert_eq!(*lock(&mirror.missed), Vec::<String>::new());
    *lock(&mirror.full) = false;
    for _ in 0..2 {
        let poller = start();
        elapse(Duration::from_secs(3600)).await;
        poller.abort();
        assert_eq!(*lock(&mirror.missed), ["Contact"]);
    }
}
