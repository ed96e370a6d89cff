//! Accounts that are added, changed and removed while the engine runs, as the founding documents
//! ask for them, and that outlive it.

use std::fs;

use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, Provider, until};

fn send(node: &Node, provider: &str, record_id: &str) -> String {
    let event = json!({"operation": "UPSERT", "provider": provider, "object": "contact",
                       "record_id": record_id, "data": {"last_name": "Doe"}});
    let answer = node.post("/sync", event.to_string());
    assert_eq!(answer.status, 202, "{}", answer.json());
    let id = answer.json()["operation_id"].clone();
    id.as_str().expect("an id").to_owned()
}

fn delete(node: &Node, path: &str) -> u16 {
    node.ask("DELETE", path, "").status
}

fn limits(node: &Node, provider: &str) -> Vec<(String, u64)> {
    let status = node.get(&format!("/providers/{provider}/status")).json();
    let limits = status["limits"].as_array().expect("a list").iter();
    limits
        .map(|limit| {
            let name = limit["name"].as_str().unwrap_or_default().to_owned();
            (name, limit["limit"].as_u64().unwrap_or(0))
        })
        .collect()
}

#[test]
fn the_founding_documents_request_adds_an_account_that_survives_a_crash() {
    let provider = Provider::start_as(
        "salesforce",
        &["--client-id", "app", "--client-secret", "s3cret-client"],
    );
    let mut node = Node::start(Config::new().shards(2));
    let url = provider.url();
    let request = json!({
        "name": "salesforce", "rate_limit": 1000, "burst_limit": 100, "base_url": url,
        "auth_config": {
            "auth_type": "oauth2",
            "credentials": {"client_id": "app", "client_secret": "s3cret-client"},
            "token_url": format!("{url}/services/oauth2/token"),
        },
    });
    let added = node.post("/providers", request.to_string());
    assert_eq!(added.status, 201, "{}", added.json());
    assert_eq!(
        node.get("/providers").json(),
        json!({"providers": ["salesforce"]})
    );
    send(&node, "salesforce", "sf_123");
    assert!(node.drain().is_empty());
    assert_eq!(provider.records().len(), 1);
    let status = node.get("/providers/salesforce/status").json();
    assert_eq!(status["token_state"], "valid");
    let named = limits(&node, "salesforce");
    assert!(
        named.contains(&("rate_limit_per_minute".to_owned(), 1000)),
        "{named:?}"
    );
    assert!(
        named.iter().any(|(name, _)| name == "burst_limit"),
        "{named:?}"
    );

    node.kill();
    node.restart();
    send(&node, "salesforce", "sf_124");
    assert!(node.drain().is_empty());
    assert_eq!(provider.records().len(), 2);

    let shown = [
        added.json().to_string(),
        node.get("/v1/providers").json().to_string(),
        node.get("/v1/providers/salesforce/status")
            .json()
            .to_string(),
        node.get("/v1/sync/config-override").json().to_string(),
        node.process().errors(),
    ];
    assert!(
        shown.iter().all(|text| !text.contains("s3cret")),
        "{shown:?}"
    );
    for entry in fs::read_dir(node.data_dir())
        .expect("the folder is ours")
        .flatten()
    {
        if entry.path().is_file() {
            let bytes = fs::read(entry.path()).expect("the file is ours");
            let clear = bytes.windows(6).any(|part| part == b"s3cret");
            assert!(!clear, "{}", entry.path().display());
        }
    }
}

#[test]
fn an_update_keeps_what_it_does_not_name_and_other_credentials_are_used_at_once() {
    let provider = Provider::start(&["--token", "right"]);
    let node = Node::start(Config::new().shards(2));
    let bearer = |token: &str| json!({"auth_type": "bearer", "credentials": {"token": token}});
    let request =
        json!({"name": "shop", "base_url": provider.url(), "auth_config": bearer("wrong")});
    assert_eq!(node.post("/v1/providers", request.to_string()).status, 201);
    send(&node, "shop", "c-1");
    until("refused credentials", || {
        let status = node.get("/v1/providers/shop/status").json();
        (status["token_state"] == "refused").then_some(())
    });
    assert_eq!(provider.records().len(), 0);

    let request = json!({"name": "shop", "auth_config": bearer("right")});
    assert_eq!(node.post("/v1/providers", request.to_string()).status, 200);
    assert_eq!(
        node.get("/v1/providers/shop").json()["base_url"],
        provider.url()
    );
    assert!(node.drain().is_empty(), "nobody waits for the next probe");
    assert_eq!(provider.records().len(), 1);
    let slower = json!({"name": "shop", "rate_limit_per_minute": 60});
    assert_eq!(node.post("/v1/providers", slower.to_string()).status, 200);
    let named = limits(&node, "shop");
    assert!(
        named.contains(&("rate_limit_per_minute".to_owned(), 60)),
        "{named:?}"
    );
}

#[test]
fn a_removed_account_takes_nothing_and_what_waits_goes_on_when_it_is_back() {
    let provider = Provider::start(&[]);
    let mut node = Node::start(Config::new().shards(2).account("crm", &provider.url(), ""));
    let request = json!({"name": "shop", "base_url": provider.url()});
    assert_eq!(node.post("/providers", request.to_string()).status, 201);
    assert_eq!(node.post("/v1/pause", r#"{"provider":"shop"}"#).status, 200);
    let waits = send(&node, "shop", "c-1");

    assert_eq!(delete(&node, "/providers/shop"), 200);
    assert_eq!(delete(&node, "/v1/providers/shop"), 404);
    assert_eq!(node.get("/providers").json(), json!({"providers": ["crm"]}));
    let event = json!({"operation": "UPSERT", "provider": "shop", "record_id": "c-2", "data": {}});
    let refused = node.post("/v1/sync", event.to_string());
    assert_eq!(
        refused.json()["type"],
        "urn:syncline:problem:unknown_provider"
    );
    assert_eq!(
        node.post("/v1/resume", r#"{"provider":"shop"}"#).status,
        200
    );

    node.kill();
    node.restart();
    let told = node.get(&format!("/v1/operations/{waits}")).json();
    assert_eq!(told["state"], "waiting", "{told}");
    assert_eq!(node.post("/providers", request.to_string()).status, 201);
    assert!(node.drain().is_empty());
    assert_eq!(provider.records().len(), 1);

    // One of the file stays away too, until its section is another.
    assert_eq!(delete(&node, "/v1/providers/crm"), 200);
    node.restart();
    assert_eq!(
        node.get("/providers").json(),
        json!({"providers": ["shop"]})
    );
}

#[test]
fn an_account_brings_its_own_mappings_which_a_bad_set_does_not_replace() {
    let provider = Provider::start_as("salesforce", &["--token", "t-1"]);
    // The file knows the object, but nothing of the account.
    let mut node = Node::start(
        Config::new()
            .shards(2)
            .with("[objects.contact]\ndirection = \"out\""),
    );
    let mapping = |title: &str| {
        json!({"remote": "Contact", "external_id": "External_Id__c", "fields": [
            {"local": "last_name", "remote": "LastName", "required": true},
            {"local": "role", "remote": title, "values": {"boss": "CEO", "clerk": "Clerk"}},
        ]})
    };
    let account = |mappings: Value| {
        json!({"name": "crm", "type": "salesforce", "base_url": provider.url(),
               "auth_config": {"auth_type": "bearer", "credentials": {"token": "t-1"}},
               "mappings": mappings})
    };
    let put = |node: &Node, mappings: Value| {
        let answer = node.post("/v1/providers", account(mappings).to_string());
        (answer.status, answer.json())
    };
    let send = |node: &Node, record_id: &str, role: &str| {
        let event = json!({"operation": "UPSERT", "object": "contact", "record_id": record_id,
                           "data": {"last_name": "Doe", "role": role}});
        assert_eq!(node.post("/v1/sync", event.to_string()).status, 202);
        assert_eq!(node.drain(), Vec::<Value>::new());
    };
    let fields = |record_id: &str| provider.records()[&format!("Contact/{record_id}")].clone();

    assert_eq!(put(&node, json!({"contact": mapping("Title")})).0, 201);
    send(&node, "c-1", "boss");
    assert_eq!(fields("c-1")["Title"], "CEO");

    let mut bad = mapping("Department");
    bad["fields"][1]["convert"] = json!("rot13");
    let (status, answer) = put(&node, json!({"contact": bad}));
    assert_eq!(
        (status, &answer["errors"][0]["pointer"]),
        (422, &json!("/mappings/contact"))
    );
    node.kill();
    node.restart();
    send(&node, "c-2", "clerk");
    assert_eq!(
        fields("c-2")["Title"],
        "Clerk",
        "as before, also after a crash"
    );

    assert_eq!(put(&node, json!({"contact": mapping("Department")})).0, 200);
    send(&node, "c-3", "boss");
    assert_eq!(fields("c-3")["Department"], "CEO");
    assert_eq!(fields("c-3")["Title"], Value::Null);
}

#[test]
fn addresses_that_the_api_may_not_name_are_refused_and_nothing_is_kept() {
    let node = Node::start(Config::new());
    let refused = |request: Value| {
        let answer = node.post("/v1/providers", request.to_string());
        assert_eq!(answer.status, 422, "{}", answer.json());
        answer.json()["errors"][0]["pointer"].clone()
    };
    let private = json!({"name": "shop", "base_url": "http://10.0.0.1"});
    assert_eq!(refused(private), "/base_url");
    let token = json!({"auth_type": "oauth2", "token_url": "http://169.254.169.254/token",
                       "credentials": {"client_id": "i", "client_secret": "s"}});
    let by_token =
        json!({"name": "shop", "base_url": "https://x.example.com", "auth_config": token});
    assert_eq!(refused(by_token), "/auth_config/token_url");
    assert_eq!(refused(json!({"name": "shop"})), "/base_url");
    assert_eq!(
        refused(json!({"name": "a b", "base_url": "https://x"})),
        "/name"
    );
    assert_eq!(node.get("/providers").json(), json!({"providers": []}));
}
