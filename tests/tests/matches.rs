//! A record that is in the CRM already is found by a match key, linked and updated, and not made a
//! second time.

use serde_json::{Value, json};
use syncline_tests::process::{Config, Lines, Node, Provider, request, until};

fn provider() -> Provider {
    let keys = ["contacts.external_id", "companies.external_id"];
    let options: Vec<&str> = keys.iter().flat_map(|key| ["--key", key]).collect();
    let provider = Provider::start_as("hubspot", &[&["--token", "t-1"], &options[..]].concat());
    // Its index lags two seconds behind, and what a person made in these is made once more.
    provider.set_faults("stale=0s");
    provider
}

/// Nobody tells what people do at the CRM: what an account tells first is a record of its own.
fn config(provider: &Provider) -> Config {
    Config::new().shards(2).with(&format!(
        "[providers.crm]\ntype = \"hubspot\"\nbase_url = \"{}\"\n\
         poll = {{ enabled = false }}\n\
         auth = {{ kind = \"bearer\", token = \"exec:printf t-1\" }}\n\
         [objects.contact]\ndirection = \"both\"\n\
         [objects.contact.to.crm]\nremote = \"contacts\"\nexternal_id = \"external_id\"\n\
         match = [\"email\"]\n\
         fields = [\n\
           {{ local = \"email\", remote = \"email\", convert = \"lowercase\", lossy = true }},\n\
           {{ local = \"last_name\", remote = \"lastname\" }},\n\
           {{ local = \"phone\", remote = \"phone\" }},\n\
         ]\n\
         [objects.company.to.crm]\nremote = \"companies\"\nexternal_id = \"external_id\"\n\
         match = [\"domain\", [\"name\", \"city\"]]\n\
         fields = [\n\
           {{ local = \"domain\", remote = \"domain\" }},\n\
           {{ local = \"name\", remote = \"name\" }},\n\
           {{ local = \"city\", remote = \"city\" }},\n\
         ]\n",
        provider.url()
    ))
}

fn say(node: &Node, operation: &str, object: &str, record_id: &str, data: &Value) {
    let event = json!({"operation": operation, "object": object, "record_id": record_id,
        "data": data});
    assert_eq!(node.post("/v1/sync", event.to_string()).status, 202);
}

/// Where a record stands, once its operation has ended.
fn ended(node: &Node, record_id: &str) -> Value {
    until("its operation has ended", || {
        let status = node.get(&format!("/v1/sync/status/{record_id}")).json();
        let mut targets = status["providers"].as_array()?.iter();
        let crm = targets.find(|target| target["provider"] == "crm")?;
        let ended = ["synced", "failed"].map(Value::from);
        ended.contains(&crm["state"]).then(|| crm.clone())
    })
}

/// Records of an object with this value in a field.
fn with(provider: &Provider, field: &str, value: &str) -> Vec<Value> {
    let url = provider.url();
    let at = url.trim_start_matches("http://").parse();
    let answer = request(at.expect("an address"), "GET", "/__mock/records", b"");
    let shown = answer.expect("the provider answers").json();
    let records = shown["records"].as_array().expect("a list").iter();
    let found = records.filter(|record| record["fields"][field] == value);
    found.cloned().collect()
}

#[test]
fn a_contact_is_found_by_its_email_and_a_company_by_its_domain() {
    let provider = provider();
    let ada = provider.make(
        "contacts",
        &json!({"email": "ada@example.com", "lastname": "Byron", "phone": "1815"}),
    );
    let acme = provider.make("companies", &json!({"domain": "acme.com", "name": "Acme"}));
    let bolt = provider.make("companies", &json!({"name": "Bolt", "city": "Ulm"}));
    let node = Node::start(config(&provider));
    let mut billing = Lines::connect(node.tcp());
    billing.send("{\"subscribe\":{\"consumer\":\"billing\",\"objects\":[\"contact\"]}}\n");

    let data = json!({"email": "Ada@Example.com", "last_name": "Lovelace"});
    say(&node, "CREATE", "contact", "c-1", &data);
    let data = json!({"email": "grace@example.com", "last_name": "Hopper"});
    say(&node, "CREATE", "contact", "c-2", &data);
    let data = json!({"domain": "acme.com", "name": "Acme Inc."});
    say(&node, "UPSERT", "company", "k-1", &data);
    let data = json!({"domain": "bolt.de", "name": "Bolt", "city": "Ulm"});
    say(&node, "CREATE", "company", "k-2", &data);

    let contact = ended(&node, "c-1");
    assert_eq!(
        (&contact["state"], &contact["remote_id"]),
        (&json!("synced"), &json!(ada))
    );
    let company = ended(&node, "k-1");
    assert_eq!(
        (&company["state"], &company["remote_id"]),
        (&json!("synced"), &json!(acme))
    );
    assert_eq!(ended(&node, "k-2")["remote_id"], json!(bolt));
    assert_eq!(ended(&node, "c-2")["state"], "synced");

    // What the CRM knew beside that comes to System A.
    let learned = until("System A learns of the phone", || {
        let message = billing.next_message()?;
        let change = &message["change"];
        (change["record_id"] == "c-1").then(|| change.clone())
    });
    assert_eq!(learned["data"], json!({"phone": "1815"}), "{learned}");
    // They bear our key, so that an UPSERT by it makes no second one.
    say(
        &node,
        "UPSERT",
        "company",
        "k-1",
        &json!({"name": "Acme Corp."}),
    );
    until("the CRM has the new name", || {
        let found = with(&provider, "name", "Acme Corp.");
        (found.len() == 1).then_some(())
    });
    assert_eq!(with(&provider, "domain", "acme.com").len(), 1);
    assert_eq!(with(&provider, "external_id", "k-1").len(), 1);
    assert_eq!(with(&provider, "email", "ada@example.com").len(), 1);
    let violations = provider.violations();
    assert_eq!(
        (violations.over_limit, violations.duplicate_creates),
        (0, 0)
    );
}

#[test]
fn of_two_companies_with_the_domain_a_person_links_one() {
    let provider = provider();
    let one = provider.make("companies", &json!({"domain": "dup.com", "name": "One"}));
    let two = provider.make("companies", &json!({"domain": "dup.com", "name": "Two"}));
    let node = Node::start(config(&provider));
    let data = json!({"domain": "dup.com", "name": "Dup"});
    say(&node, "CREATE", "company", "k-1", &data);
    assert_eq!(ended(&node, "k-1")["state"], "failed");
    let dead = node.get("/v1/dlq?provider=crm").json();
    let letter = &dead["items"][0];
    assert_eq!(letter["code"], "match_ambiguous", "{dead}");
    let detail = letter["detail"].as_str().expect("a text");
    assert_eq!(detail, format!("several records match: {one}, {two}"));

    let path = "/v1/records/k-1/links/crm?object=company";
    let linked = node.ask("PUT", path, json!({ "remote_id": two }).to_string());
    assert_eq!(linked.status, 200, "{}", linked.json());
    let retried = node.post("/v1/dlq/retry", r#"{"filter":{"provider":"crm"}}"#);
    assert_eq!(retried.json()["redriven"], 1);
    until("the one that was chosen is updated", || {
        let found = with(&provider, "name", "Dup");
        (found.len() == 1 && found[0]["id"] == json!(two)).then_some(())
    });
    assert_eq!(with(&provider, "domain", "dup.com").len(), 2);
}
