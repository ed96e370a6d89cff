//! The HTTP API over real sockets, in front of a node in memory.

#[path = "http/fake.rs"]
mod fake;
#[path = "http/lists.rs"]
mod lists;

use std::io::{Read, Write};
use std::time::Duration;

use engine::rules::{Action, Difference, Tally, Trial};
use engine::state::State;
use engine::view::{BreakerState, Check, Hold, Scope};
use fake::{Answer, Server, dead_letter, operation, read_answer};
use serde_json::json;
use syncline_net::http::{BODY_BYTES_MAX, EVENT_BYTES_MAX, HttpLimits};

const EVENT: &str = r#"{"operation":"UPDATE","record_id":"c-1","data":{"n":1}}"#;

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert!(
        answer.has_header("content-type: application/problem+json"),
        "{}",
        answer.head
    );
    let problem = answer.json();
    assert_eq!(problem["type"], format!("urn:syncline:problem:{code}"));
    assert_eq!(problem["status"], status);
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| !detail.is_empty())
    );
}

#[test]
fn one_event_is_answered_by_itself() {
    let server = Server::start();
    for path in ["/v1/sync", "/v1/sync/"] {
        let answer = server.post(path, EVENT);
        assert_eq!(answer.status, 202, "{}", answer.body);
        assert_eq!(answer.json()["record_id"], "c-1");
        assert_eq!(answer.json()["status"], "queued");
        assert!(
            answer.json()["operation_id"]
                .as_str()
                .is_some_and(|id| id.starts_with("op"))
        );
    }
    assert_eq!(server.node.lock().unwrap().submitted, [EVENT, EVENT]);
}

#[test]
fn a_refused_event_is_a_problem_that_names_the_place() {
    let server = Server::start();
    let answer = server.post("/v1/sync", r#"{"operation":"UPDATE"}"#);
    assert_problem(&answer, 422, "missing_field");
    assert_eq!(answer.json()["errors"][0]["pointer"], "/record_id");
}

#[test]
fn a_list_is_answered_in_order_and_a_bad_item_harms_no_neighbour() {
    let server = Server::start();
    let array = r#"[{"record_id":"a","n":1.10},{"record_id":},{"x":1},{"record_id":"b"}]"#;
    let lines = array[1..array.len() - 1].replace("},{", "}\n{");
    for body in [array, &lines] {
        let answer = server.post("/v1/sync", body);
        assert_eq!(answer.status, 202, "{}", answer.body);
        let answer = answer.json();
        let results = answer["results"].as_array().unwrap();
        let codes: Vec<_> = results.iter().map(|item| item["code"].as_str()).collect();
        assert_eq!(
            codes,
            [None, Some("malformed"), Some("missing_field"), None],
            "{body}"
        );
        assert_eq!(results[0]["record_id"], "a");
        assert_eq!(results[2]["pointer"], "/record_id");
        assert_eq!(results[2]["status"], "refused");
        assert_eq!(results[3]["record_id"], "b");
    }
    let submitted = &server.node.lock().unwrap().submitted;
    assert_eq!(
        submitted[0], r#"{"record_id":"a","n":1.10}"#,
        "number text is kept"
    );
}

#[test]
fn a_list_of_which_nothing_was_taken_is_422_with_the_list() {
    let server = Server::start();
    let answer = server.post("/v1/sync", "[{}, {}]");
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["results"].as_array().unwrap().len(), 2);
}

#[test]
fn the_content_type_tells_a_single_line_from_a_single_event() {
    let server = Server::start();
    let headers = "Content-Type: application/x-ndjson\r\n";
    let answer = server.ask("POST", "/v1/sync", headers, EVENT);
    assert_eq!(answer.json()["results"].as_array().unwrap().len(), 1);
}

#[test]
fn a_duplicate_says_so() {
    let server = Server::start();
    let answer = server.post("/v1/sync", r#"{"record_id":"a","event_id":"again"}"#);
    assert_eq!(answer.json()["duplicate"], true);
}

#[test]
fn an_overload_is_told_with_when_to_come_back() {
    let server = Server::start();
    server.node.lock().unwrap().overloaded = true;
    let answer = server.post("/v1/sync", EVENT);
    assert_problem(&answer, 503, "overloaded");
    assert!(answer.has_header("retry-after: 1"), "{}", answer.head);
    let answer = server.post("/v1/sync", &format!("[{EVENT}]"));
    assert_eq!(answer.json()["results"][0]["retry"], true);
}

#[test]
fn an_oversized_event_is_refused_alone() {
    let server = Server::start();
    let big = format!(
        r#"{{"record_id":"big","data":"{}"}}"#,
        "x".repeat(EVENT_BYTES_MAX)
    );
    assert_problem(&server.post("/v1/sync", &big), 413, "too_large");
    let answer = server.post("/v1/sync", &format!("[{EVENT},{big},{EVENT}]"));
    let results = answer.json();
    assert_eq!(results["results"][1]["code"], "too_large");
    assert_eq!(results["results"][2]["status"], "queued");
}

#[test]
fn an_oversized_body_is_refused_unread_or_at_the_cap() {
    let server = Server::start();
    let announced = server.raw(&format!(
        "POST /v1/sync HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        server.address,
        BODY_BYTES_MAX + 1,
    ));
    assert_problem(&announced, 413, "too_large");

    let mut stream = server.connect();
    let head = format!(
        "POST /v1/sync HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        server.address,
    );
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!(
        "{:x}\r\n{}\r\n",
        BODY_BYTES_MAX + 1,
        " ".repeat(BODY_BYTES_MAX + 1)
    );
    // The server may have answered and closed before all of it is written.
    stream.write_all(chunk.as_bytes()).ok();
    let mut first = [0; 64];
    let read = stream.read(&mut first).unwrap();
    assert!(
        first[..read].starts_with(b"HTTP/1.1 413 "),
        "{:?}",
        &first[..read]
    );
    assert!(server.node.lock().unwrap().submitted.is_empty());
}

#[test]
fn a_body_that_stalls_is_given_up() {
    let limits = HttpLimits {
        body_timeout: Duration::from_millis(50),
        ..HttpLimits::default()
    };
    let server = Server::start_with(limits);
    let answer = server.raw(&format!(
        "POST /v1/sync HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 10\r\n\r\n{{",
        server.address,
    ));
    assert_problem(&answer, 408, "body_timeout");
}

#[test]
fn a_head_that_stalls_is_given_up() {
    let limits = HttpLimits {
        header_timeout: Duration::from_millis(50),
        ..HttpLimits::default()
    };
    let server = Server::start_with(limits);
    let mut stream = server.connect();
    stream
        .write_all(b"POST /v1/sync HTTP/1.1\r\nHost: lo")
        .unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(
        !rest.starts_with(b"HTTP/1.1 2"),
        "closed without an answer, or with a refusal"
    );
}

#[test]
fn a_head_over_its_bounds_is_refused() {
    let server = Server::start();
    let fields: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
    assert_eq!(server.ask("GET", "/livez", &fields, "").status, 431);
    let long = format!("X-Long: {}\r\n", "y".repeat(32 << 10));
    assert_eq!(server.ask("GET", "/livez", &long, "").status, 431);
}

#[test]
fn pages_of_other_origins_are_kept_away() {
    let server = Server::start();
    let host = server.address.to_string();
    let with_host = |host: &str| {
        server.raw(&format!(
            "GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ))
    };
    assert_problem(&with_host("evil.example.com"), 403, "unauthorized");
    assert_eq!(with_host("localhost:7401").status, 200);

    let foreign = "Origin: https://evil.example.com\r\n";
    assert_problem(
        &server.ask("POST", "/v1/sync", foreign, EVENT),
        403,
        "unauthorized",
    );
    let own = format!("Origin: http://{host}\r\n");
    assert_eq!(server.ask("POST", "/v1/sync", &own, EVENT).status, 202);
    assert_eq!(server.node.lock().unwrap().submitted.len(), 1);
}

#[test]
fn unknown_paths_and_methods_are_problems_too() {
    let server = Server::start();
    assert_problem(&server.get("/nowhere"), 404, "not_found");
    let answer = server.get("/v1/sync");
    assert_problem(&answer, 405, "method_not_allowed");
    assert!(answer.has_header("allow: POST"), "{}", answer.head);
    assert_problem(&server.get("/"), 501, "not_available");
    assert_problem(&server.get("/v1/sync/status/%FF"), 404, "not_found");
}

#[test]
fn a_record_shows_where_it_stands() {
    let server = Server::start();
    server
        .node
        .lock()
        .unwrap()
        .operations
        .insert("op9".into(), operation("op9", "a/b c", State::Failed));
    let answer = server.get("/v1/sync/status/a%2Fb%20c");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        answer.json(),
        json!({"record_id": "a/b c", "object": "contact", "providers": [{
            "provider": "crm", "state": "failed", "operation_id": "op9", "attempts": 2,
            "reason": "attempts_exhausted", "remote_id": "003x",
            "updated_at": "2026-11-20T10:00:01.000Z",
        }]})
    );
    assert_problem(&server.get("/v1/sync/status/nobody"), 404, "not_found");
    assert_problem(&server.get("/v1/sync/status/down"), 503, "shard_down");
    let answer = server.get("/v1/sync/status/twice");
    assert_problem(&answer, 409, "ambiguous");
    assert_eq!(answer.json()["objects"], json!(["account", "contact"]));
    assert_problem(
        &server.get("/v1/sync/status/x?objekt=y"),
        422,
        "invalid_field",
    );
}

#[test]
fn an_operation_shows_its_attempts_and_its_result_digit_for_digit() {
    let server = Server::start();
    let mut read = operation("op9", "a", State::Synced);
    read.result = Some(r#"{"n":12345678901234567890.10}"#.into());
    server
        .node
        .lock()
        .unwrap()
        .operations
        .insert("op9".into(), read);
    let answer = server.get("/v1/operations/op9");
    assert!(
        answer
            .body
            .contains(r#""result":{"n":12345678901234567890.10}"#),
        "{}",
        answer.body
    );
    let shown = answer.json();
    assert_eq!(shown["provider"], "crm");
    assert_eq!(
        shown["providers"][0]["attempts"][0],
        json!({"at": "2026-11-20T10:00:00.123Z", "status": 503, "class": "transient",
            "detail": "try later"})
    );
    assert_problem(&server.get("/v1/operations/none"), 404, "not_found");
}

#[test]
fn operations_are_listed_by_state() {
    let server = Server::start();
    for (id, state) in [("op1", State::Failed), ("op2", State::Synced)] {
        server
            .node
            .lock()
            .unwrap()
            .operations
            .insert(id.into(), operation(id, "a", state));
    }
    let listed = server.get("/v1/operations?state=failed&limit=10").json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(listed["items"][0]["operation_id"], "op1");
    assert_eq!(listed["next"], json!(null));
    assert_problem(
        &server.get("/v1/operations?state=lost"),
        422,
        "invalid_field",
    );
    assert_problem(&server.get("/v1/operations?limit=0"), 422, "invalid_field");
}

#[test]
fn a_retry_by_hand_counts_what_it_moved() {
    let server = Server::start();
    for (id, record, state) in [("op1", "a", State::Failed), ("op2", "b", State::Synced)] {
        server
            .node
            .lock()
            .unwrap()
            .operations
            .insert(id.into(), operation(id, record, state));
    }
    let answer = server.post("/v1/sync/retry/a", "");
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json(), json!({"record_id": "a", "redriven": 1}));
    assert_problem(
        &server.post("/v1/sync/retry/b", ""),
        409,
        "nothing_to_retry",
    );
    assert_problem(&server.post("/v1/sync/retry/c", ""), 404, "not_found");
}

#[test]
fn a_conflict_is_listed_with_both_sides_and_resolved_field_by_field() {
    let server = Server::start();
    let mut letter = fake::dead_letter("d1", "crm");
    letter.code = "conflict".into();
    letter.held = ["/email", "/name"]
        .map(|field| engine::view::HeldView {
            field: field.into(),
            system_a: r#""ours""#.into(),
            provider: "17".into(),
            since: 1_795_168_800_000,
        })
        .to_vec();
    let node = &server.node;
    node.lock()
        .unwrap()
        .dead_letters
        .insert("d1".into(), letter);

    let listed = server.get("/v1/conflicts?provider=crm").json();
    let field = &listed["items"][0]["fields"][0];
    assert_eq!(field["field"], "/email");
    assert_eq!(
        (&field["system_a"], &field["provider"]),
        (&json!("ours"), &json!(17))
    );

    let resolve = |body: &str| server.post("/v1/conflicts/d1/resolve", body);
    assert_eq!(resolve(r#"{"winner":"me"}"#).status, 422);
    assert_eq!(resolve("{").status, 400);
    let one = resolve(r#"{"winner":"provider","fields":["/email"]}"#);
    assert_eq!(one.json()["resolved"], 1);
    let rest = resolve(r#"{"winner":"system_a"}"#);
    assert_eq!(rest.json()["resolved"], 1);
    assert_eq!(resolve(r#"{"winner":"system_a"}"#).status, 404);
}

#[test]
fn dead_letters_are_listed_shown_retried_and_dropped() {
    let server = Server::start();
    for (id, provider) in [("1", "crm"), ("2", "crm"), ("3", "other")] {
        server
            .node
            .lock()
            .unwrap()
            .dead_letters
            .insert(id.into(), dead_letter(id, provider));
    }
    let first = server.get("/v1/dlq?provider=crm&limit=1").json();
    assert_eq!(first["items"][0]["id"], "1");
    assert_eq!(first["next"], "1");
    let second = server.get("/v1/dlq?provider=crm&limit=1&after=1").json();
    assert_eq!(
        (&second["items"][0]["id"], &second["next"]),
        (&json!("2"), &json!(null))
    );

    let shown = server.get("/v1/dlq/3");
    assert!(
        shown.body.contains(r#""data":{"n":1.10}"#),
        "digit for digit"
    );
    let attempt = json!({"at": "2026-11-20T10:00:00.123Z", "status": 503, "class": "transient",
        "detail": "try later"});
    assert_eq!(
        shown.json(),
        json!({"id": "3", "record_id": "r-3", "object": "contact", "provider": "other",
            "operation_id": "op-3", "code": "permanent", "detail": "no such field",
            "attempts": 1, "dead_at": "2026-11-20T10:00:00.000Z", "operation": "UPDATE",
            "accepted_at": "2026-11-20T09:59:59.000Z", "signature": "no such field",
            "rules_version": 3, "mapping_version": 4, "history": [attempt.clone(), attempt],
            "data": {"n": 1.10}})
    );
    let edit = |body| server.ask("PATCH", "/v1/dlq/3", "", body);
    assert!(
        edit(r#"{"data":{"n":2.50}}"#)
            .body
            .contains(r#""data":{"n":2.50}"#)
    );
    assert_problem(&edit(r#"{"data":1}"#), 422, "invalid_field");
    assert_problem(&edit("{}"), 422, "missing_field");
    let grouped = server.get("/v1/dlq?group=signature&provider=crm").json();
    assert_eq!(grouped["groups"][0]["signature"], "no such field");
    assert_problem(&server.get("/v1/dlq?group=colour"), 422, "invalid_field");
    assert_eq!(server.ask("DELETE", "/v1/dlq/3", "", "").status, 200);
    assert_problem(&server.get("/v1/dlq/3"), 404, "not_found");
    assert_problem(&server.ask("DELETE", "/v1/dlq/3", "", ""), 404, "not_found");

    let filter = r#"{"filter":{"provider":"crm"},"dry_run":true}"#;
    assert_eq!(
        server.post("/v1/dlq/retry", filter).json(),
        json!({"matched": 2})
    );
    let filter = r#"{"filter":{"provider":"crm"}}"#;
    assert_eq!(
        server.post("/v1/dlq/retry", filter).json(),
        json!({"matched": 2, "redriven": 2, "redrive": "job1", "state": "done"})
    );
    let filter = r#"{"filter":{},"rate":0}"#;
    assert_problem(&server.post("/v1/dlq/retry", filter), 422, "invalid_field");
    let job = server.get("/v1/dlq/redrives/job1").json();
    assert_eq!((&job["state"], &job["done"]), (&json!("done"), &json!(2)));
    let ended = server.ask("DELETE", "/v1/dlq/redrives/job1", "", "").json();
    assert_eq!(ended["state"], "cancelled");
    assert_problem(&server.get("/v1/dlq/redrives/none"), 404, "not_found");
    assert_problem(&server.post("/v1/dlq/retry", ""), 422, "missing_field");
    assert_problem(
        &server.post("/v1/dlq/retry", r#"{"filter":{"x":1}}"#),
        422,
        "unknown_field",
    );
    assert_problem(&server.post("/v1/dlq/retry", "{"), 400, "malformed");
}

#[test]
fn keys_open_what_they_are_for_once_there_is_one() {
    let server = Server::start();
    let ask = |method, path, key: &str| {
        let header = format!("Authorization: Bearer {key}\r\n");
        let change = r#"{"provider":"crm","set":{"max_in_flight":4}}"#;
        server.ask(
            method,
            path,
            if key.is_empty() { "" } else { &header },
            change,
        )
    };
    let change = "/v1/sync/config-override";
    assert_eq!(ask("POST", change, "").status, 200);
    for (key, scope) in [
        ("admin", Some(Scope::Admin)),
        ("reader", Some(Scope::Read)),
        ("hasty", None),
    ] {
        server.node.lock().unwrap().keys.insert(key.into(), scope);
    }
    assert_problem(&ask("POST", change, ""), 401, "unauthorized");
    assert_problem(&ask("POST", change, "reader"), 403, "unauthorized");
    assert_eq!(ask("POST", change, "admin").status, 200);
    let by = server.node.lock().unwrap().overrides.members[1].by.clone();
    assert_eq!(by, "ada");
    assert_eq!(server.get("/livez").status, 200);
    assert_problem(&server.get("/health"), 401, "unauthorized");
    let answer = server.ask("GET", "/health", "X-Api-Key: reader\r\n", "");
    assert_eq!(answer.status, 200);
    let hasty = server.ask("GET", "/health", "X-Api-Key: hasty\r\n", "");
    assert_problem(&hasty, 429, "rate_limited");
    assert!(hasty.has_header("retry-after: 1"), "{}", hasty.head);
}

#[test]
fn a_record_is_explained() {
    let server = Server::start();
    assert_eq!(
        server.get("/v1/explain/c-1").json(),
        json!({"record_id": "c-1", "object": "contact", "providers": [{
            "provider": "crm", "state": "waiting", "reason": "quota",
            "detail": "the account's limit \"burst\" is used up",
            "since": "2026-11-20T10:00:00.000Z", "until": "2026-11-20T10:00:01.000Z",
            "ahead": 7, "expected_at": null}]})
    );
    assert_problem(&server.get("/v1/explain/twice"), 409, "ambiguous");
    assert_problem(&server.get("/v1/explain/nobody"), 404, "not_found");
    assert_problem(&server.get("/v1/explain/c-1?provider=x"), 404, "not_found");
}

#[test]
fn a_replay_is_counted_begun_watched_and_cancelled() {
    let server = Server::start();
    let span = r#""provider":"crm","from":"2026-11-20T10:00:00Z","to":"2026-11-20T10:00:02Z""#;
    let post = |body: &str| server.post("/v1/replay", body);
    assert_eq!(
        post(&format!(r#"{{{span},"dry_run":true}}"#)).json(),
        json!({"matched": 2000, "not_kept": 1})
    );
    let begun = post(&format!(r#"{{{span},"rate":5}}"#));
    assert_eq!(begun.status, 202, "{}", begun.body);
    assert_eq!(
        (&begun.json()["state"], &begun.json()["rate"]),
        (&json!("running"), &json!(5))
    );
    let listed = server.get("/v1/replay").json();
    assert_eq!(listed["items"][0]["id"], "job1");
    assert_problem(&server.get("/v1/dlq/redrives/job1"), 404, "not_found");
    let ended = server.ask("DELETE", "/v1/replay/job1", "", "");
    assert_eq!(ended.json()["state"], "cancelled");
    let wrong = post(r#"{"provider":"crm","from":"yesterday","to":"now"}"#);
    assert_problem(&wrong, 422, "invalid_field");
    assert_problem(&post("{}"), 422, "missing_field");
}

#[test]
fn settings_are_changed_and_shown() {
    let server = Server::start();
    let change = r#"{"provider":"crm","set":{"max_in_flight":4},"ttl":"10m"}"#;
    let answer = server.post("/v1/sync/config-override", change);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        answer.json(),
        json!({"provider": "crm", "set": {"max_in_flight": 4},
            "until": {"max_in_flight": "2026-11-20T10:00:01.000Z"}})
    );
    let listed = server.get("/v1/sync/config-override").json();
    assert_eq!(listed["overrides"][0]["value"], 4);
    let empty = server.post("/v1/sync/config-override", r#"{"provider":"crm"}"#);
    assert_problem(&empty, 422, "missing_field");
}

#[test]
fn an_account_is_added_changed_and_removed() {
    let server = Server::start();
    let founding = r#"{"name":"shop","rate_limit":1000,"burst_limit":100,
        "base_url":"https://shop.example.com","auth_config":{"auth_type":"basic",
        "credentials":{"username":"ada","password":"s3cret"}}}"#;
    let added = server.post("/providers", founding);
    assert_eq!(added.status, 201, "{}", added.body);
    assert!(!added.body.contains("s3cret"), "{}", added.body);
    let slower = r#"{"name":"shop","rate_limit_per_minute":60,"timeout_seconds":5}"#;
    assert_eq!(server.post("/v1/providers", slower).status, 200);
    let wrong = server.post(
        "/v1/providers",
        r#"{"name":"shop","auth_config":{"auth_type":"x"}}"#,
    );
    assert_problem(&wrong, 422, "invalid_field");
    let unnamed = server.post("/v1/providers", r#"{"rate_limit":60}"#);
    assert_problem(&unnamed, 422, "missing_field");
    assert_eq!(server.node.lock().unwrap().added.len(), 2);
    assert_eq!(server.ask("DELETE", "/providers/shop", "", "").status, 200);
    assert_problem(
        &server.ask("DELETE", "/v1/providers/shop", "", ""),
        404,
        "not_found",
    );
}

#[test]
fn an_account_is_held_and_let_go() {
    let server = Server::start();
    let answer = server.post("/v1/pause", r#"{"provider":"crm"}"#);
    assert_eq!(
        (answer.status, &answer.json()["paused"]),
        (200, &json!(true))
    );
    assert_eq!(
        server.get("/v1/providers/crm/status").json()["paused"],
        true
    );
    assert_eq!(
        server.post("/v1/resume", r#"{"provider":"crm"}"#).status,
        200
    );
    assert_eq!(
        server.get("/v1/providers/crm/status").json()["paused"],
        false
    );
    assert_eq!(server.post("/v1/pause", "").status, 200);
    assert_eq!(server.node.lock().unwrap().held[1], Hold::default());
    assert_problem(
        &server.post("/v1/pause", r#"{"provider":"x"}"#),
        422,
        "unknown_provider",
    );
}

#[test]
fn accounts_are_shown() {
    let server = Server::start();
    assert_eq!(
        server.get("/v1/providers").json()["providers"][0]["name"],
        "crm"
    );
    assert_eq!(server.get("/v1/providers/crm").json()["type"], "rest");
    let status = server.get("/v1/providers/crm/status").json();
    assert_eq!(
        (&status["breaker"], &status["queue_depth"]),
        (&json!("closed"), &json!(0))
    );
    assert_eq!(status["limits"][0]["left"], 75);
    assert_problem(&server.get("/v1/providers/x"), 404, "not_found");
    assert_problem(&server.get("/v1/providers/x/status"), 404, "not_found");
}

#[test]
fn health_tells_degraded_from_unhealthy() {
    let server = Server::start();
    let healthy = server.get("/health");
    assert_eq!(
        (healthy.status, &healthy.json()["status"]),
        (200, &json!("healthy"))
    );
    for key in [
        "timestamp",
        "version",
        "active_providers",
        "queue_metrics",
        "provider_metrics",
    ] {
        assert!(!healthy.json()[key].is_null(), "{key}");
    }
    server.node.lock().unwrap().breaker = Some(BreakerState::Open);
    let degraded = server.get("/health");
    assert_eq!(
        (degraded.status, &degraded.json()["status"]),
        (200, &json!("degraded"))
    );
    assert_eq!(degraded.json()["checks"]["providers"]["status"], "degraded");
    assert_eq!(
        server.get("/readyz").status,
        200,
        "a provider that is down refuses no intake"
    );

    server.node.lock().unwrap().wal = Some(Check::Unhealthy("poisoned".into()));
    let unhealthy = server.get("/health");
    assert_eq!(
        (unhealthy.status, &unhealthy.json()["status"]),
        (503, &json!("unhealthy"))
    );
    assert_eq!(server.get("/readyz").status, 503);
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn metrics_are_prometheus_text_on_both_paths() {
    let server = Server::start();
    for path in ["/metrics", "/metrics/prometheus"] {
        let answer = server.get(path);
        assert!(
            answer.head.contains("text/plain; version=0.0.4"),
            "{}",
            answer.head
        );
        assert!(answer.body.contains("syncline_events_accepted_total 1"));
    }
    assert_eq!(server.get("/metrics/queue").json()["queued"], 0);
}

#[test]
fn the_founding_documents_requests_work_as_printed() {
    let server = Server::start();
    let answer = server.post(
        "/sync",
        r#"{"operation":"UPDATE","provider":"salesforce","record_id":"sf_123","data":{"name":"John Doe","email":"john@example.com"}}"#,
    );
    assert_eq!(answer.status, 202);
    let submitted = answer.json();
    assert_eq!(
        (&submitted["record_id"], &submitted["status"]),
        (&json!("sf_123"), &json!("submitted"))
    );
    assert!(submitted["message"].is_string());

    for (state, word) in [
        (State::Queued, "PENDING"),
        (State::Waiting, "PENDING"),
        (State::InFlight, "PROCESSING"),
        (State::Retrying, "RETRYING"),
        (State::Unknown, "RETRYING"),
        (State::Synced, "COMPLETED"),
        (State::Superseded, "COMPLETED"),
        (State::SkippedByRule, "COMPLETED"),
        (State::Failed, "FAILED"),
        (State::Dropped, "FAILED"),
        (State::Conflict, "FAILED"),
    ] {
        server
            .node
            .lock()
            .unwrap()
            .operations
            .insert("op9".into(), operation("op9", "a", state));
        let shown = server.get("/sync/status/op9").json();
        assert_eq!(shown["status"], word, "{state:?}");
    }
    server
        .node
        .lock()
        .unwrap()
        .operations
        .insert("op9".into(), operation("op9", "a", State::Failed));
    assert_eq!(
        server.get("/sync/status/op9").json(),
        json!({"operation_id": "op9", "status": "FAILED", "provider": "crm",
            "external_id": "003x", "started_at": "2026-11-20T10:00:00.123Z",
            "completed_at": "2026-11-20T10:00:01.000Z",
            "error_message": "attempts_exhausted: try later", "retry_count": 1,
            "response_data": null})
    );
    assert_eq!(
        server.get("/providers").json(),
        json!({"providers": ["crm"]})
    );
    assert_eq!(server.get("/providers/crm/status").json()["name"], "crm");
}

#[test]
fn an_open_request_is_finished_after_the_shutdown_began() {
    let mut server = Server::start();
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/sync HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        server.address,
        EVENT.len(),
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The interim answer shows that the request is being handled.
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    server.stop();
    stream.write_all(EVENT.as_bytes()).unwrap();
    let answer = read_answer(&mut stream);
    assert_eq!(answer.status, 202, "{}", answer.head);
}

/// The set printed in the contract.
const RULES: &str = r#"{"rules":[
    {"provider":"crm","object":"contact","when":"data.status != \"active\"","action":"skip",
     "priority":3,"reason":"inactive contacts are not updated"},
    {"provider":"crm","required_fields":["email"]},
    {"disallow_if":["do_not_sync"]},
    {"provider":"crm","UPDATE":"active_only","share":0.5}]}"#;

#[test]
fn rules_are_replaced_and_read_back() {
    let server = Server::start();
    for (method, version) in [("PUT", 1), ("POST", 2)] {
        let answer = server.ask(method, "/v1/sync/rules", "", RULES);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json()["version"], version);
    }
    let read = server.get("/v1/sync/rules");
    assert_eq!(read.status, 200);
    assert_eq!(read.json()["version"], 2);
    let rules = read.json()["rules"].clone();
    assert_eq!(rules[0]["action"], "skip");
    assert_eq!(rules[1]["required_fields"], json!(["email"]));
    assert_eq!(rules[3]["UPDATE"], "active_only");
    let again = json!({ "rules": rules }).to_string();
    let answer = server.ask("PUT", "/v1/sync/rules", "", &again);
    assert_eq!(answer.json()["version"], 3, "what is read can be sent back");
}

#[test]
fn a_set_that_cannot_be_right_points_at_the_rule() {
    let server = Server::start();
    for (body, code, pointer) in [
        (
            r#"{"rules":[{"disallow_if":["a"]},{"when":"data.x ==","action":"skip"}]}"#,
            "invalid_field",
            "/rules/1/when",
        ),
        (
            r#"{"rules":[{"actoin":"skip"}]}"#,
            "unknown_field",
            "/rules/0",
        ),
        (
            r#"{"rules":[{"action":"explode"}]}"#,
            "invalid_field",
            "/rules/0",
        ),
    ] {
        let answer = server.ask("PUT", "/v1/sync/rules", "", body);
        assert_problem(&answer, 422, code);
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer);
    }
    let answer = server.ask("PUT", "/v1/sync/rules", "", "{}");
    assert_problem(&answer, 422, "missing_field");
    assert_eq!(server.get("/v1/sync/rules").json()["version"], 0);
}

#[test]
fn a_dry_run_changes_nothing_and_a_set_that_withholds_much_has_to_be_forced() {
    let server = Server::start();
    server.node.lock().unwrap().trial = Trial {
        decisions: 10,
        changed: 3,
        before: Tally {
            synced: 10,
            ..Tally::default()
        },
        after: Tally {
            synced: 7,
            skipped: 3,
            ..Tally::default()
        },
        examples: vec![Difference {
            record_id: "c-1".into(),
            object: "contact".into(),
            provider: "crm".into(),
            operation: engine::event::Operation::Update,
            before: Action::Sync,
            after: Action::Skip,
            rule: 1,
        }],
    };
    let tried = server.ask("PUT", "/v1/sync/rules?dry_run=true", "", RULES);
    assert_eq!(tried.status, 200, "{}", tried.body);
    assert_eq!(tried.json()["dry_run"], true);
    assert_eq!(tried.json()["trial"]["share_changed"], 0.3);
    assert_eq!(tried.json()["trial"]["after"]["skipped"], 3);
    assert_eq!(tried.json()["trial"]["examples"][0]["after"], "skip");
    let held = server.ask("PUT", "/v1/sync/rules", "", RULES);
    assert_problem(&held, 409, "force_required");
    assert_eq!(held.json()["trial"]["changed"], 3);
    assert_eq!(server.get("/v1/sync/rules").json()["version"], 0);
    let forced = server.ask("PUT", "/v1/sync/rules?force=true", "", RULES);
    assert_eq!(forced.json()["version"], 1, "{}", forced.body);
    let in_body = RULES.replacen('{', r#"{"force":true,"#, 1);
    let forced = server.ask("PUT", "/v1/sync/rules", "", &in_body);
    assert_eq!(forced.json()["version"], 2, "{}", forced.body);
}
