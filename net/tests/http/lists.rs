//! What the node knows, listed: consumers, records, links.

use engine::merge::{Base, ConflictPolicy, Fields, Pending, Rule, Sighting};
use engine::record::Link;
use engine::shard::{LinkRow, RecordPicture, SidePicture};
use engine::view::ConsumerView;
use serde_json::json;

use crate::assert_problem;
use crate::fake::Server;

#[test]
fn consumers_are_listed_and_removed_by_name() {
    let server = Server::start();
    server.node.lock().unwrap().consumers = vec![
        ConsumerView {
            name: "billing/eu".into(),
            objects: Some(vec!["contact".into()]),
            connected: true,
            unacked: 2,
            acked: 40,
            lag_ms: 1_500,
        },
        ConsumerView {
            name: "all".into(),
            objects: None,
            connected: false,
            unacked: 0,
            acked: 0,
            lag_ms: 0,
        },
    ];
    let expected = json!({"consumers": [
        {"name": "billing/eu", "objects": ["contact"], "connected": true, "unacked": 2,
         "last_acked_seq": 40, "lag_ms": 1500},
        {"name": "all", "objects": null, "connected": false, "unacked": 0, "last_acked_seq": 0, "lag_ms": 0},
    ]});
    assert_eq!(server.get("/v1/consumers").json(), expected);
    let path = "/v1/consumers/billing%2Feu";
    let removed = server.ask("DELETE", path, "", "");
    assert_eq!(
        removed.json(),
        json!({"name": "billing/eu", "removed": true})
    );
    assert_problem(&server.ask("DELETE", path, "", ""), 404, "not_found");
    assert_eq!(server.node.lock().unwrap().consumers.len(), 1);
}

/// What both sides agreed on after they differed in one field of two.
fn base() -> Base {
    let mut base = Base::default();
    base.sent(&Fields::parse(r#"{"name":"Ada","age":1}"#), 5);
    let pending = [Pending {
        fields: Fields::parse(r#"{"name":"Bob"}"#),
        changed_at_ms: 6,
    }];
    let policy = ConflictPolicy {
        default: Rule::Manual,
        ..ConflictPolicy::default()
    };
    let sighting = Sighting {
        fields: &Fields::parse(r#"{"name":"Eve","age":12345678901234567890}"#),
        changed_at_ms: 7,
        read_at_ms: 8,
        now_ms: 9,
    };
    base.observe(&sighting, &pending, &policy);
    base
}

#[test]
fn a_record_shows_its_links_and_what_each_side_has() {
    let server = Server::start();
    let side = |account: &str, link, base| SidePicture {
        account: account.to_owned(),
        link,
        base,
        open: Vec::new(),
        open_count: 0,
        updated_at_ms: 0,
    };
    let linked = Link::Linked("r-1".to_owned());
    let picture = |object: &str| RecordPicture {
        object: object.to_owned(),
        record_id: "c 1".to_owned(),
        alias_of: None,
        sides: vec![
            side("crm", linked.clone(), Some(Box::new(base()))),
            side("erp", Link::Deleted { changed_at_ms: 10 }, None),
        ],
    };
    server.node.lock().unwrap().pictures = vec![picture("contact")];
    let shown = server.get("/v1/records/c%201").json();
    assert_eq!(
        shown["links"],
        json!([{"provider": "crm", "remote_id": "r-1"}])
    );
    let crm = &shown["sides"][0];
    assert_eq!(crm["base"]["name"], "Ada");
    assert_eq!(crm["versions"]["system_a"]["name"], "Bob");
    assert_eq!(crm["versions"]["provider"]["name"], "Eve");
    assert_eq!(crm["held"][0]["field"], "/name");
    assert_eq!(crm["base"]["age"].to_string(), "12345678901234567890");
    let erp = &shown["sides"][1];
    assert_eq!(
        (&erp["link"], &erp["deleted_at"]),
        (&json!("deleted"), &json!("1970-01-01T00:00:00.010Z"))
    );
    server.node.lock().unwrap().pictures.push(picture("lead"));
    assert_problem(&server.get("/v1/records/c%201"), 409, "ambiguous");
    assert_eq!(server.get("/v1/records/c%201?object=lead").status, 200);
    assert_problem(&server.get("/v1/records/other"), 404, "not_found");
}

#[test]
fn links_are_a_line_each_and_page_by_page() {
    let server = Server::start();
    let link = |at: usize| LinkRow {
        object: "contact".to_owned(),
        record_id: format!("c-{at}"),
        account: "crm".to_owned(),
        remote_id: format!("r-{at}"),
        waits: false,
    };
    server.node.lock().unwrap().links = (0..3).map(link).collect();
    let first = server.get("/v1/links?provider=crm&limit=2");
    assert!(first.has_header("syncline-next: 2"), "{}", first.head);
    assert_eq!(first.body.lines().count(), 2);
    let rest = server.get("/v1/links?provider=crm&limit=2&after=2");
    assert!(!rest.head.to_lowercase().contains("syncline-next"));
    let line: serde_json::Value = serde_json::from_str(rest.body.trim()).unwrap();
    let expected = json!({"object": "contact", "record_id": "c-2", "provider": "crm",
        "remote_id": "r-2"});
    assert_eq!(line, expected);
    assert_problem(&server.get("/v1/links?limit=0"), 422, "invalid_field");
}

#[test]
fn a_link_is_set_by_hand_unless_another_record_has_it() {
    let server = Server::start();
    let path = "/v1/records/c-1/links/crm?object=contact";
    let set = server.ask("PUT", path, "", r#"{"remote_id":"r-1"}"#);
    assert_eq!((set.status, &set.json()["changed"]), (200, &json!(true)));
    let taken = "/v1/records/c-2/links/crm";
    let taken = server.ask("PUT", taken, "", r#"{"remote_id":"r-1"}"#);
    assert_problem(&taken, 409, "link_owned");
    assert_eq!(taken.json()["record_id"], "c-1");
    let empty = server.ask("PUT", path, "", r#"{"remote_id":""}"#);
    assert_problem(&empty, 422, "invalid_field");
    let gone = server.ask("DELETE", path, "", "");
    assert_eq!(gone.json()["former"], "r-1");
    assert_problem(&server.ask("DELETE", path, "", ""), 404, "not_found");
}

#[test]
fn a_walk_is_begun_shown_and_cancelled() {
    let server = Server::start();
    let asked = r#"{"provider":"crm","object":"contact"}"#;
    let begun = server.post("/v1/reconcile", asked);
    assert_eq!(begun.status, 202, "{}", begun.body);
    let walk = begun.json();
    let said = (
        &walk["purpose"],
        &walk["repair"],
        &walk["limit"],
        &walk["share"],
    );
    assert_eq!(
        said,
        (
            &json!("reconcile"),
            &json!(false),
            &json!(1000),
            &json!(0.5)
        )
    );
    let id = walk["id"].as_str().unwrap();
    let path = format!("/v1/walks/{id}");
    let running = server.get(&path).json();
    assert_eq!(running["state"], "running");
    assert_eq!(
        running["waits_for"],
        "others use the walk's share of the limit daily"
    );
    assert_eq!(
        server.ask("DELETE", &path, "", "").json()["state"],
        "cancelled"
    );
    assert_eq!(
        server.get("/v1/walks").json()["items"][0]["state"],
        "cancelled"
    );
    assert_problem(&server.get("/v1/walks/other"), 404, "not_found");
    for (path, body) in [
        (
            "/v1/reconcile",
            r#"{"provider":"crm","object":"contact","share":0}"#,
        ),
        (
            "/v1/reconcile",
            r#"{"provider":"crm","object":"contact","sample":1.5}"#,
        ),
        (
            "/v1/backfill",
            r#"{"provider":"crm","object":"contact","repair":true}"#,
        ),
    ] {
        assert_problem(&server.post(path, body), 422, "invalid_field");
    }
}
