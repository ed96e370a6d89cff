//! Every row of the `rest` provider's table, asked of the model.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use syncline_mock::{Account, AccountConfig, Answer, Reply, Request};

struct Caller {
    account: Account,
    now: Duration,
}

impl Caller {
    fn new(config: AccountConfig) -> Self {
        Self {
            account: Account::new(config),
            now: Duration::ZERO,
        }
    }

    fn ask(&mut self, request: &Request<'_>) -> Reply {
        self.now += Duration::from_millis(1);
        match self.account.handle(self.now, request) {
            Answer::Reply(reply) => reply,
            Answer::Reset => panic!("reset"),
        }
    }

    /// Status and body of a call; the body is null when it is empty.
    fn call(&mut self, method: Method, target: &str, body: &Value) -> (u16, Value) {
        let reply = self.ask(&match body {
            Value::Null => Request::bare(method, target),
            body => Request::json(method, target, body),
        });
        let body = if reply.body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&reply.body).unwrap()
        };
        (reply.status, body)
    }

    fn fields_of(&self, id: &str) -> Value {
        let mut found = self
            .account
            .records()
            .filter(|(_, other, _)| other.to_string() == id);
        found
            .next()
            .map_or(Value::Null, |(_, _, record)| record.fields.clone().into())
    }
}

fn plain() -> Caller {
    Caller::new(AccountConfig::default())
}

#[test]
fn a_create_makes_a_record_with_the_accounts_own_id() {
    let mut caller = plain();
    let body = json!({"external_id": "c-1", "name": "Ada", "gone": null});
    let answer = caller.call(Method::POST, "/contact", &body);
    assert_eq!(answer, (201, json!({"id": "r1"})));
    assert_eq!(caller.fields_of("r1"), json!({"name": "Ada"}));
}

#[test]
fn an_upsert_creates_then_merges_under_the_same_id() {
    let mut caller = plain();
    let path = "/contact/external/a%2Fb%20c";
    let first = caller.call(Method::PUT, path, &json!({"name": "Ada", "age": 36}));
    assert_eq!(first, (201, json!({"id": "r1"})));
    let second = caller.call(Method::PUT, path, &json!({"age": null, "email": "a@b"}));
    assert_eq!(second, (200, json!({"id": "r1"})));
    assert_eq!(
        caller.fields_of("r1"),
        json!({"name": "Ada", "email": "a@b"})
    );
    let found = caller.call(Method::GET, "/contact?external_id=a%2Fb+c", &Value::Null);
    assert_eq!(
        found.1.pointer("/results/0/external_id"),
        Some(&json!("a/b c"))
    );
}

#[test]
fn an_update_keeps_the_fields_it_does_not_name() {
    let mut caller = plain();
    caller.call(
        Method::POST,
        "/contact",
        &json!({"external_id": "c-1", "a": 1, "b": 2}),
    );
    let answer = caller.call(Method::PATCH, "/contact/r1", &json!({"b": 3}));
    assert_eq!(answer, (200, json!({"id": "r1"})));
    assert_eq!(caller.fields_of("r1"), json!({"a": 1, "b": 3}));
}

#[test]
fn a_deleted_record_is_gone_for_every_operation() {
    let mut caller = plain();
    caller.call(Method::POST, "/contact", &json!({"external_id": "c-1"}));
    assert_eq!(
        caller.call(Method::DELETE, "/contact/r1", &Value::Null),
        (204, Value::Null)
    );
    assert_eq!(
        caller.call(Method::DELETE, "/contact/r1", &Value::Null).0,
        404
    );
    assert_eq!(
        caller
            .call(Method::PATCH, "/contact/r1", &json!({"a": 1}))
            .0,
        404
    );
    assert_eq!(caller.call(Method::GET, "/contact/r1", &Value::Null).0, 404);
    let found = caller.call(Method::GET, "/contact?external_id=c-1", &Value::Null);
    assert_eq!(found, (200, json!({"results": []})));
}

#[test]
fn a_read_returns_the_record_and_a_look_up_finds_it_by_its_key() {
    let mut caller = plain();
    caller.call(
        Method::POST,
        "/contact",
        &json!({"external_id": "c-1", "name": "Ada"}),
    );
    let shown = json!({"id": "r1", "external_id": "c-1", "name": "Ada"});
    assert_eq!(
        caller.call(Method::GET, "/contact/r1", &Value::Null),
        (200, shown.clone())
    );
    let found = caller.call(Method::GET, "/contact?external_id=c-1", &Value::Null);
    assert_eq!(found, (200, json!({"results": [shown]})));
    let other = caller.call(Method::GET, "/company?external_id=c-1", &Value::Null);
    assert_eq!(other, (200, json!({"results": []})));
}

#[test]
fn a_batch_has_a_result_for_each_of_its_records() {
    let mut caller = plain();
    caller.call(
        Method::POST,
        "/contact",
        &json!({"external_id": "c-1", "a": 1}),
    );
    caller.call(Method::POST, "/contact", &json!({"external_id": "c-2"}));
    let batch = json!({"records": [
        {"external_id": "c-1", "operation": "update", "id": "r1", "fields": {"b": 2}},
        {"external_id": "c-2", "operation": "delete", "id": "r2"},
        {"external_id": "c-3", "operation": "create", "fields": {"c": 3}},
        {"external_id": "c-3", "operation": "upsert", "fields": {"d": 4}},
        {"external_id": "c-4", "operation": "upsert", "fields": {}},
        {"external_id": "c-5", "operation": "update", "id": "r99", "fields": {}},
        {"external_id": "c-6", "operation": "update", "fields": {}},
    ]});
    let (status, mut body) = caller.call(Method::POST, "/contact/batch", &batch);
    assert_eq!(status, 200);
    let rows = body["results"].as_array_mut().unwrap();
    rows.sort_by_key(|row| (row["external_id"].to_string(), row["status"] != 201));
    assert_eq!(
        body,
        json!({"results": [
            {"external_id": "c-1", "status": 200, "id": "r1"},
            {"external_id": "c-2", "status": 200, "id": "r2"},
            {"external_id": "c-3", "status": 201, "id": "r3"},
            {"external_id": "c-3", "status": 200, "id": "r3"},
            {"external_id": "c-4", "status": 201, "id": "r4"},
            {"external_id": "c-5", "status": 404, "error": "there is no such record"},
            {"external_id": "c-6", "status": 400, "error": "id is missing"},
        ]})
    );
    assert_eq!(caller.fields_of("r1"), json!({"a": 1, "b": 2}));
    assert_eq!(caller.fields_of("r3"), json!({"c": 3, "d": 4}));
    assert_eq!(
        caller.account.violations().overlaps,
        1,
        "c-3 stands in it twice"
    );
}

#[test]
fn a_batch_is_one_call_of_many_records_and_tells_of_them_in_any_order() {
    let mut caller = plain();
    let records: Vec<Value> = (0..20)
        .map(|n| json!({"external_id": n.to_string(), "operation": "upsert", "fields": {}}))
        .collect();
    let batch = json!({"records": records});
    let (_, body) = caller.call(Method::POST, "/contact/batch", &batch);
    let order = |body: &Value| {
        let rows = body["results"].as_array().unwrap().iter();
        rows.map(|row| row["external_id"].as_str().unwrap().parse().unwrap())
            .collect::<Vec<u32>>()
    };
    let mut sorted = order(&body);
    sorted.sort_unstable();
    assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    assert_ne!(order(&body), sorted);
    let call = caller.account.journal().get(1).unwrap();
    assert_eq!((call.records, call.external_id.as_deref()), (20, None));
    assert_eq!(caller.account.journal().after(0).count(), 1);
    assert_eq!(caller.account.violations().overlaps, 0);
}

#[test]
fn a_record_in_two_open_batches_overlaps_and_a_second_create_of_it_is_counted() {
    let mut caller = plain();
    let batch = |keys: &[&str]| {
        let row = |key: &&str| json!({"external_id": key, "operation": "create", "fields": {}});
        json!({"records": keys.iter().map(row).collect::<Vec<_>>()})
    };
    let (one, two) = (batch(&["c-1", "c-2"]), batch(&["c-2", "c-3"]));
    let one = Request::json(Method::POST, "/contact/batch", &one);
    let two = Request::json(Method::POST, "/contact/batch", &two);
    let first = caller.account.arrive(Duration::ZERO, &one);
    let second = caller.account.arrive(Duration::ZERO, &two);
    caller.account.finish(Duration::ZERO, first.call);
    caller.account.finish(Duration::ZERO, second.call);
    let counted = caller.account.violations();
    assert_eq!((counted.overlaps, counted.duplicate_creates), (1, 1));
    assert_eq!(caller.account.records().count(), 4);
}

#[test]
fn a_record_marked_as_poison_is_refused_with_everything_in_its_batch() {
    let mut caller = plain();
    let batch = json!({"records": [
        {"external_id": "c-1", "operation": "upsert", "fields": {"poison": false}},
        {"external_id": "c-2", "operation": "upsert", "fields": {"a": {"poison": true}}},
    ]});
    assert_eq!(caller.call(Method::POST, "/contact/batch", &batch).0, 400);
    let alone = json!({"poison": true});
    let path = "/contact/external/c-2";
    assert_eq!(caller.call(Method::PUT, path, &alone).0, 400);
    assert_eq!(caller.account.records().count(), 0);
    assert_eq!(
        caller.call(Method::PUT, path, &json!({"poison": null})).0,
        201
    );
}

#[test]
fn a_token_is_asked_for_when_there_is_one() {
    let credentials = syncline_mock::Credentials {
        tokens: vec!["t-1".into()],
        ..syncline_mock::Credentials::default()
    };
    let mut caller = Caller::new(AccountConfig {
        credentials,
        ..AccountConfig::default()
    });
    let request = Request::bare(Method::GET, "/contact/r1");
    assert_eq!(caller.ask(&request).status, 401);
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", "Bearer t-1".parse().unwrap());
    let Answer::Reply(reply) = caller.account.handle_with(caller.now, &request, headers) else {
        panic!("reset");
    };
    assert_eq!(reply.status, 404);
}

#[test]
fn a_second_create_of_a_live_key_makes_a_second_record_and_is_counted() {
    let mut caller = plain();
    let body = json!({"external_id": "c-1"});
    assert_eq!(caller.call(Method::POST, "/contact", &body).0, 201);
    assert_eq!(caller.call(Method::POST, "/company", &body).0, 201);
    assert_eq!(caller.account.violations().duplicate_creates, 0);
    assert_eq!(
        caller.call(Method::POST, "/contact", &body),
        (201, json!({"id": "r3"}))
    );
    assert_eq!(caller.account.violations().duplicate_creates, 1);
    let found = caller.call(Method::GET, "/contact?external_id=c-1", &Value::Null);
    assert_eq!(
        found
            .1
            .pointer("/results")
            .and_then(Value::as_array)
            .map(Vec::len),
        Some(2)
    );
}

#[test]
fn unique_refuses_the_second_create_instead() {
    let mut caller = Caller::new(AccountConfig {
        unique: true,
        ..AccountConfig::default()
    });
    let body = json!({"external_id": "c-1"});
    assert_eq!(caller.call(Method::POST, "/contact", &body).0, 201);
    assert_eq!(caller.call(Method::POST, "/contact", &body).0, 409);
    assert_eq!(caller.account.violations().duplicate_creates, 0);
    caller.call(Method::DELETE, "/contact/r1", &Value::Null);
    assert_eq!(caller.call(Method::POST, "/contact", &body).0, 201);
}

#[test]
fn by_default_an_idempotency_key_means_nothing() {
    let mut caller = plain();
    let body = json!({"external_id": "c-1"});
    let request = Request::json(Method::POST, "/contact", &body).keyed("op-1");
    assert_eq!(caller.ask(&request).status, 201);
    assert_eq!(caller.ask(&request).status, 201);
    assert_eq!(caller.account.violations().duplicate_creates, 1);
}

#[test]
fn an_honoured_key_gets_the_first_answer_again_and_another_request_under_it_is_refused() {
    let mut caller = Caller::new(AccountConfig {
        honour_keys: true,
        ..AccountConfig::default()
    });
    let body = json!({"external_id": "c-1"});
    let request = Request::json(Method::POST, "/contact", &body).keyed("op-1");
    let first = caller.ask(&request);
    assert_eq!(caller.ask(&request), first);
    assert_eq!(caller.account.records().count(), 1);
    let other = json!({"external_id": "c-2"});
    let reused = Request::json(Method::POST, "/contact", &other).keyed("op-1");
    assert_eq!(caller.ask(&reused).status, 422);
    assert_eq!(caller.account.records().count(), 1);
}

#[test]
fn a_poisoned_record_is_refused_and_takes_its_whole_batch_with_it() {
    let faults = "poison=bad-".parse().unwrap();
    let mut caller = Caller::new(AccountConfig {
        faults,
        ..AccountConfig::default()
    });
    let create = json!({"external_id": "bad-1"});
    assert_eq!(caller.call(Method::POST, "/contact", &create).0, 422);
    assert_eq!(
        caller
            .call(Method::PUT, "/contact/external/bad-1", &json!({}))
            .0,
        422
    );
    let batch = json!({"records": [
        {"external_id": "c-1", "operation": "upsert", "fields": {}},
        {"external_id": "bad-1", "operation": "upsert", "fields": {}},
    ]});
    assert_eq!(caller.call(Method::POST, "/contact/batch", &batch).0, 400);
    assert_eq!(caller.account.records().count(), 0);
}
