//! Bad input gets a clear error with its place, and harms nobody else: lines, frames and HTTP.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use net::client::{Client, Encoding, Options};
use serde_json::{Value, json};
use syncline_tests::process::{Config, Dice, Lines, Model, Node, PATIENCE, Provider, request};

/// What an event may have, and what a body may have.
const EVENT_BYTES_MAX: usize = 1 << 20;
const BODY_BYTES_MAX: usize = 8 << 20;

/// One bad event, the code it gets, and the place that is named.
struct Bad {
    event: Vec<u8>,
    code: &'static str,
    pointer: Option<&'static str>,
}

fn bad(
    event: impl Into<Vec<u8>>,
    code: &'static str,
    pointer: impl Into<Option<&'static str>>,
) -> Bad {
    Bad {
        event: event.into(),
        code,
        pointer: pointer.into(),
    }
}

/// A contact whose `data` is this.
fn with_data(data: &str) -> String {
    format!(r#"{{"operation":"UPDATE","object":"contact","record_id":"bad","data":{data}}}"#)
}

fn with_member(member: &str) -> String {
    format!(r#"{{"operation":"UPDATE","object":"contact","record_id":"bad","data":{{}},{member}}}"#)
}

/// Every kind of event that is refused, on lines, in frames and in a list alike.
fn bad_events() -> Vec<Bad> {
    let mut not_utf8 = with_data(r#"{"name":"??"}"#).into_bytes();
    let place = not_utf8
        .windows(2)
        .position(|two| two == b"??")
        .expect("it is there");
    not_utf8[place..place + 2].copy_from_slice(&[0xC3, 0x28]);
    let deep = with_data(&format!("{}1{}", "{\"a\":".repeat(70), "}".repeat(70)));
    vec![
        bad("nonsense", "malformed", None),
        bad(r#"{"operation":"UPDATE","#, "malformed", None),
        bad("[7]", "malformed", ""),
        bad("7", "malformed", ""),
        bad(not_utf8, "not_utf8", None),
        bad(deep, "too_deep", None),
        bad(with_data(r#"{"a":1,"a":2}"#), "duplicate_key", "/data/a"),
        bad(
            with_data(r#"{"a":{"b":1,"\u0062":2}}"#),
            "duplicate_key",
            "/data/a/b",
        ),
        bad(with_data(r#"{"n":1e400}"#), "number_precision", "/data/n"),
        bad(
            with_data(r#"{"n":[0,1180591620717411303424]}"#),
            "number_precision",
            "/data/n/1",
        ),
        bad(with_member(r#""nope":1"#), "unknown_field", "/nope"),
        bad(
            with_member(r#""priority":11"#),
            "invalid_field",
            "/priority",
        ),
        bad(
            with_member(r#""provider":"nobody""#),
            "unknown_provider",
            "/provider",
        ),
        bad(
            r#"{"operation":"UPDATE","object":"unmapped","record_id":"bad","data":{}}"#,
            "no_route",
            "/object",
        ),
        bad(
            r#"{"operation":"UPDATE","object":"contact","data":{}}"#,
            "record_id_required",
            "/record_id",
        ),
        bad(
            r#"{"operation":"UPDATE","object":"contact","record_id":"bad"}"#,
            "missing_field",
            "/data",
        ),
        bad(
            r#"{"object":"contact","record_id":"bad","data":{}}"#,
            "missing_field",
            "/operation",
        ),
        bad(
            r#"{"operation":"MOVE","object":"contact","record_id":"bad"}"#,
            "invalid_field",
            "/operation",
        ),
        bad(
            r#"{"operation":"DELETE","op":"UPDATE","object":"contact","record_id":"bad"}"#,
            "invalid_field",
            None,
        ),
    ]
}

/// A node with one account that takes contacts only.
fn node(provider: &Provider) -> Node {
    let mapping = "[objects.contact.to.crm]\nremote = \"contact\"\nfields = [{ local = \"name\", remote = \"name\" }]\n";
    Node::start(
        Config::new()
            .account("crm", &provider.url(), "")
            .with(mapping),
    )
}

fn good(record: usize) -> String {
    json!({"operation": "UPSERT", "object": "contact", "record_id": format!("good-{record}"), "data": {"name": record.to_string()}})
        .to_string()
}

/// What the good neighbours leave at the provider.
fn good_model(records: impl IntoIterator<Item = usize>) -> Model {
    let mut model = Model::default();
    for record in records {
        model.apply(&serde_json::from_str(&good(record)).expect("it is JSON"));
    }
    model
}

#[test]
fn each_bad_line_is_rejected_with_its_place_and_its_neighbours_are_taken() {
    let provider = Provider::start(&[]);
    let node = node(&provider);
    let bad = bad_events();
    let mut lines = Lines::connect(node.tcp());
    lines.send("{\"hello\":{\"producer\":\"lines\"}}\n");
    assert_eq!(
        lines.next_message().expect("a welcome")["welcome"]["last_seq"],
        0
    );
    for (at, bad) in bad.iter().enumerate() {
        lines
            .send(good(at))
            .send("\n")
            .send(&bad.event)
            .send("\n\n  \r\n");
    }
    let last = 2 * bad.len() as u64;
    let rejects = check_order(&lines.read_to_ack(last), last);
    check_rejects(&bad, |at| {
        rejects
            .iter()
            .find(|reject| reject["seq"] == 2 * at as u64 + 2)
            .cloned()
    });
    assert_eq!(rejects.len(), bad.len());
    // The numbers of what was refused are used up, as the next welcome says.
    lines.half_close();
    assert_eq!(lines.read_to_end(), [] as [Value; 0]);
    let mut again = Lines::connect(node.tcp());
    again.send("{\"hello\":{\"producer\":\"lines\"}}\n");
    assert_eq!(
        again.next_message().expect("a welcome")["welcome"]["last_seq"],
        last
    );
    assert!(node.drain().is_empty());
    good_model(0..bad.len()).assert_equals(&provider.records());
}

#[test]
fn each_bad_event_of_a_frame_is_rejected_with_its_place_and_its_neighbours_are_taken() {
    let provider = Provider::start(&[]);
    let node = node(&provider);
    let bad = bad_events();
    let mut client = Client::connect(Options {
        encoding: Encoding::Frames,
        ..Options::new(node.tcp().to_string(), "frames")
    })
    .expect("the node takes frames");
    for (at, bad) in bad.iter().enumerate() {
        client.send(good(at).as_bytes()).expect("a good event");
        client.send(&bad.event).expect("any bytes make an event");
    }
    client.flush().expect("all are settled");
    let mut rejects = Vec::new();
    while let Some(notice) = client.next_notice() {
        if let net::client::Notice::Reject(reject) = notice {
            rejects.push(json!({
                "seq": reject.seq, "code": reject.code, "detail": reject.detail, "pointer": reject.pointer,
            }));
        }
    }
    check_rejects(&bad, |at| {
        rejects
            .iter()
            .find(|reject| reject["seq"] == 2 * at as u64 + 2)
            .cloned()
    });
    assert!(node.drain().is_empty());
    good_model(0..bad.len()).assert_equals(&provider.records());
}

#[test]
fn a_list_over_http_has_its_results_in_input_order() {
    let provider = Provider::start(&[]);
    let node = node(&provider);
    // What is no JSON at all is cut out of an array only as far as its brackets allow; the lines
    // of NDJSON have no such question.
    let bad = bad_events();
    let mut body = Vec::new();
    for (at, bad) in bad.iter().enumerate() {
        body.extend_from_slice(good(at).as_bytes());
        body.push(b'\n');
        body.extend_from_slice(&bad.event);
        body.push(b'\n');
    }
    let answer = node.post("/v1/sync", &body);
    assert_eq!(answer.status, 202, "{}", answer.json());
    let results = answer.json()["results"].as_array().expect("a list").clone();
    assert_eq!(results.len(), 2 * bad.len());
    for (at, pair) in results.chunks(2).enumerate() {
        assert_eq!(pair[0]["status"], "queued", "{}", pair[0]);
        assert_eq!(pair[0]["record_id"], format!("good-{at}"));
        assert_eq!(pair[1]["status"], "refused", "{}", pair[1]);
    }
    check_rejects(&bad, |at| Some(results[2 * at + 1].clone()));
    // A list without one good event is 422, with the same list.
    let all_bad = node.post("/v1/sync", "[{\"operation\":\"UPDATE\"},{}]");
    assert_eq!(
        (
            all_bad.status,
            all_bad.json()["results"].as_array().map(Vec::len)
        ),
        (422, Some(2))
    );
    assert!(node.drain().is_empty());
    good_model(0..bad.len()).assert_equals(&provider.records());
}

#[test]
fn one_bad_event_over_http_is_a_problem_with_its_pointer() {
    let provider = Provider::start(&[]);
    let node = node(&provider);
    // An array is a list, and its item the bad event.
    for bad in bad_events().into_iter().filter(|bad| bad.event != b"[7]") {
        let text = String::from_utf8_lossy(&bad.event).into_owned();
        // Without an id only a CREATE gets one.
        let answer = node.post("/v1/sync", &bad.event);
        let problem = answer.json();
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{text}"
        );
        assert_eq!(
            problem["type"],
            format!("urn:syncline:problem:{}", bad.code),
            "{text}: {problem}"
        );
        assert_eq!(problem["status"], answer.status, "{text}");
        assert!((400..500).contains(&answer.status), "{text}");
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty()),
            "{text}"
        );
        if let Some(pointer) = bad.pointer {
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{text}");
        }
    }
    let large = with_data(&format!("{{\"name\":\"{}\"}}", "x".repeat(EVENT_BYTES_MAX)));
    assert_eq!(node.post("/v1/sync", large).status, 413);
    assert_eq!(
        node.post("/v1/sync", vec![b' '; BODY_BYTES_MAX + 1]).status,
        413
    );
    for (body, status) in [("", 400), ("[", 400), ("[{}", 400), ("[]", 422)] {
        assert_eq!(node.post("/v1/sync", body).status, status, "{body:?}");
    }
    assert!(provider.journal().is_empty());
}

#[test]
fn a_line_over_a_megabyte_is_skipped_unbuffered_and_memory_stays_flat() {
    const LINE_BYTES: usize = 48 << 20;
    let provider = Provider::start(&[]);
    let mut node = node(&provider);
    let mut lines = Lines::connect(node.tcp());
    let mut other = Lines::connect(node.tcp());
    let most = with_data(&format!(
        "{{\"name\":\"{}\"}}",
        "x".repeat(EVENT_BYTES_MAX - 200)
    ));
    lines.send(good(0)).send("\n").send(&most).send("\n");
    assert!(
        check_order(&lines.read_to_ack(2), 2).is_empty(),
        "just under the bound is taken"
    );
    let before = node.process().resident_bytes();
    lines.send("{\"operation\":\"UPDATE\",\"record_id\":\"");
    let piece = vec![b'y'; 1 << 20];
    for _ in 0..LINE_BYTES >> 20 {
        lines.send(&piece);
    }
    // Another connection is served meanwhile.
    other.send(good(1)).send("\n");
    assert!(check_order(&other.read_to_ack(1), 1).is_empty());
    let during = node.process().resident_bytes();
    lines.send("\"}\n").send(good(2)).send("\n");
    let rejects = check_order(&lines.read_to_ack(4), 4);
    assert_eq!(
        (&rejects[0]["seq"], &rejects[0]["code"]),
        (&json!(3), &json!("too_large")),
        "{rejects:?}"
    );
    assert_eq!(rejects.len(), 1);
    let grown = during.saturating_sub(before) >> 20;
    println!(
        "{} MiB of one line, {grown} MiB more resident",
        LINE_BYTES >> 20
    );
    assert!(grown < 12, "{grown} MiB");
}

#[test]
fn a_bad_conversation_ends_itself_and_nothing_else() {
    let provider = Provider::start(&[]);
    let mut node = node(&provider);
    let mut witness = Lines::connect(node.tcp());
    let mut seq = 0;
    let mut still_served = |node: &Node| {
        seq += 1;
        witness.send(good(seq)).send("\n");
        let rejects = check_order(&witness.read_to_ack(seq as u64), seq as u64);
        assert!(rejects.is_empty(), "{rejects:?}");
        assert_eq!(node.get("/livez").status, 200);
    };
    still_served(&node);
    let before = node.process().resident_bytes();

    // HTTP on the TCP port.
    let answer = talk(&node, b"POST /v1/sync HTTP/1.1\r\nHost: x\r\n\r\n{}\n");
    assert_error(&answer, "malformed");
    still_served(&node);
    // A TLS hello, and a frame that is none.
    assert_error(
        &talk(&node, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        "malformed",
    );
    let frame = [&[0xF5, 1, 3, 0][..], &u32::MAX.to_le_bytes(), &[0; 16]].concat();
    assert_error(&talk(&node, &frame), "bad_frame");
    still_served(&node);
    // A gap in the numbers.
    let answer = talk(
        &node,
        format!(
            "{},\"seq\":9}}\n",
            good(0).trim_end_matches('}').to_owned() + "}"
        )
        .as_bytes(),
    );
    assert_error(&answer, "seq_gap");
    // A client that stops in the middle of a line, of a frame, of its hello.
    for start in [
        &b"{\"operation\":\"UPD"[..],
        &frame[..10],
        b"{\"hello\":{\"prod",
        b"",
    ] {
        let answer = talk(&node, start);
        assert!(!answer.contains("\"ack\""), "{answer}");
        still_served(&node);
    }
    // Garbage of every kind, and connections that are cut.
    let mut dice = Dice::seeded(7);
    for round in 0..60 {
        let mut bytes: Vec<u8> = (0..dice.below(600))
            .map(|_| dice.below(256) as u8)
            .collect();
        match round % 3 {
            0 => bytes.insert(0, b'{'),
            1 => bytes.insert(0, 0xF5),
            _ => {}
        }
        if round % 2 == 0 {
            talk(&node, &bytes);
        } else {
            let mut stream = TcpStream::connect(node.tcp()).expect("the node listens");
            drop(stream.write_all(&bytes));
        }
    }
    still_served(&node);
    let grown = node.process().resident_bytes().saturating_sub(before) >> 20;
    assert!(grown < 8, "{grown} MiB more resident");
    assert!(node.drain().is_empty());
}

#[test]
fn an_event_id_is_remembered_with_its_body_also_after_a_restart() {
    let provider = Provider::start(&[]);
    let mut node = node(&provider);
    let event = |name: &str| {
        json!({"operation": "CREATE", "object": "contact", "record_id": "c-1", "event_id": "e-1", "data": {"name": name}})
            .to_string()
    };
    let first = node.post("/v1/sync", event("Ada"));
    assert_eq!(first.status, 202);
    assert!(first.json()["duplicate"].is_null());
    let check = |node: &Node| {
        let again = node.post("/v1/sync", event("Ada"));
        assert_eq!(
            (again.status, &again.json()["duplicate"]),
            (202, &json!(true))
        );
        assert_eq!(again.json()["operation_id"], first.json()["operation_id"]);
        let other = node.post("/v1/sync", event("Grace"));
        assert_eq!(
            (other.status, other.json()["type"].clone()),
            (409, json!("urn:syncline:problem:event_id_reused"))
        );
        let list = node
            .post("/v1/sync", format!("[{},{}]", event("Ada"), event("Grace")))
            .json();
        assert_eq!(list["results"][0]["duplicate"], true, "{list}");
        assert_eq!(list["results"][1]["code"], "event_id_reused", "{list}");
    };
    check(&node);
    node.kill();
    node.restart();
    check(&node);
    assert_eq!(node.stop().code(), Some(0));
    node.restart();
    check(&node);
    node.drain();
    // The kill may have met the call under way, which is then looked up; the record is made once.
    let journal = provider.journal();
    let creates = journal.iter().filter(|call| call.method == "POST");
    assert_eq!(creates.count(), 1, "{journal:?}");
}

#[test]
fn a_record_id_of_two_objects_is_ambiguous_until_one_is_named() {
    let provider = Provider::start(&[]);
    let mut node = Node::start(Config::new().account("crm", &provider.url(), ""));
    for object in ["contact", "account"] {
        let event = json!({"operation": "CREATE", "object": object, "record_id": 10, "data": {"name": object}});
        assert_eq!(
            node.post("/v1/sync", event.to_string()).json()["record_id"],
            "10"
        );
    }
    for _ in 0..2 {
        // Also after the kill: an outcome that was not on disk yet is found again.
        node.drain();
        let ambiguous = node.get("/v1/sync/status/10");
        assert_eq!(ambiguous.status, 409);
        let mut objects = ambiguous.json()["objects"]
            .as_array()
            .expect("a list")
            .clone();
        objects.sort_by_key(ToString::to_string);
        assert_eq!(objects, ["account", "contact"]);
        let named = node.get("/v1/sync/status/10?object=account").json();
        assert_eq!(
            (&named["record_id"], &named["object"]),
            (&json!("10"), &json!("account"))
        );
        assert_eq!(named["providers"][0]["state"], "synced", "{named}");
        assert_eq!(named["providers"][0]["provider"], "crm");
        node.kill();
        node.restart();
    }
    assert_eq!(node.get("/v1/sync/status/nobody").status, 404);
}

#[test]
fn the_founding_documents_requests_work_as_printed() {
    let provider = Provider::start(&[]);
    let node = Node::start(
        Config::new()
            .account("salesforce", &provider.url(), "")
            .account("salesforce_prod", &provider.url(), ""),
    );
    let printed = [
        (
            "/sync",
            r#"{"operation":"UPDATE","provider":"salesforce","record_id":"sf_123","data":{"name":"John Doe","email":"john@example.com"}}"#,
        ),
        (
            "/sync",
            r#"{"operation":"CREATE","provider":"salesforce","record_data":{"data":{"name":"John Doe","email":"john@example.com"}}}"#,
        ),
        (
            "/sync",
            r#"{"operation":"UPDATE","provider":"salesforce_prod","record_id":"sf_003xx000004TmiQ","record_data":{"data":{"name":"Jane"}},"priority":3}"#,
        ),
    ];
    for (path, body) in printed {
        let answer = node.post(path, body);
        let taken = answer.json();
        assert_eq!(
            (answer.status, &taken["status"]),
            (202, &json!("submitted")),
            "{body}: {taken}"
        );
        assert!(
            taken["message"].is_string() && taken["record_id"].is_string(),
            "{taken}"
        );
        node.drain();
        let id = taken["operation_id"].as_str().expect("an id");
        let status = node.get(&format!("/sync/status/{id}")).json();
        assert_eq!(
            (&status["status"], &status["operation_id"]),
            (&json!("COMPLETED"), &taken["operation_id"]),
            "{status}"
        );
        for member in ["provider", "external_id", "started_at", "completed_at"] {
            assert!(status[member].is_string(), "{member}: {status}");
        }
        for member in ["error_message", "retry_count", "response_data"] {
            assert!(status.get(member).is_some(), "{member}: {status}");
        }
    }
    let task = r#"{"crm":"salesforce","action":"update","record_id":"10","payload":{"id":10,"name":"Test"}}"#;
    for path in ["/v1/sync", "/v1/sync/"] {
        let taken = node.post(path, task);
        assert_eq!(
            (taken.status, &taken.json()["status"]),
            (202, &json!("queued")),
            "{}",
            taken.json()
        );
    }
    node.drain();
    assert_eq!(
        node.get("/v1/sync/status/10").json()["providers"][0]["state"],
        "synced"
    );
    let mut names = node.get("/providers").json()["providers"]
        .as_array()
        .expect("names")
        .clone();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["salesforce", "salesforce_prod"]);
    for path in [
        "/providers/salesforce/status",
        "/health",
        "/metrics/prometheus",
        "/metrics/queue",
    ] {
        assert_eq!(node.get(path).status, 200, "{path}");
    }
}

/// Writes, half-closes, and reads all there is.
fn talk(node: &Node, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.tcp()).expect("the node listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a time-out can be set");
    // The node may close while this is written.
    drop(stream.write_all(bytes));
    drop(stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

fn assert_error(answer: &str, code: &str) {
    assert!(
        answer.contains("\"code\"") && answer.contains(&format!("\"{code}\"")),
        "{code}: {answer:?}"
    );
    assert!(!answer.contains("\"ack\""), "{answer:?}");
}

/// The rejects among these messages, each before the ack that covers it; acks rise up to `last`.
fn check_order(messages: &[Value], last: u64) -> Vec<Value> {
    let mut acked = 0;
    let mut rejects = Vec::new();
    for message in messages {
        if let Some(seq) = message["ack"]["seq"].as_u64() {
            assert!(seq > acked, "{message} after {acked}");
            acked = seq;
        } else {
            let reject = &message["reject"];
            assert!(
                reject["seq"].as_u64().is_some_and(|seq| seq > acked),
                "{message} after ack {acked}"
            );
            rejects.push(reject.clone());
        }
    }
    assert_eq!(acked, last, "{messages:?}");
    rejects
}

fn check_rejects(bad: &[Bad], reject: impl Fn(usize) -> Option<Value>) {
    for (at, bad) in bad.iter().enumerate() {
        let text = String::from_utf8_lossy(&bad.event);
        let reject = reject(at).unwrap_or_else(|| panic!("{text} was taken"));
        assert_eq!(reject["code"], bad.code, "{text}: {reject}");
        assert!(
            reject["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty()),
            "{text}: {reject}"
        );
        assert!(reject["retry"].is_null(), "{text}: {reject}");
        if let Some(pointer) = bad.pointer {
            assert_eq!(reject["pointer"], pointer, "{text}: {reject}");
        }
    }
}

#[test]
fn a_node_that_is_gone_answers_nothing() {
    let provider = Provider::start(&[]);
    let mut node = node(&provider);
    let at = node.http();
    node.kill();
    assert!(request(at, "GET", "/livez", b"").is_none());
}
