//! Mappings of more fields than the path of a request holds: such a request goes as a body.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use syncline_tests::process::{Config, Lines, Node, Provider, until};

/// By name alone more than 8 KiB.
const FIELDS: usize = 400;

fn local(n: usize) -> String {
    format!("field_{n}")
}

/// One CRM with contacts of so many fields, kept in step both ways.
fn start(
    kind: &str,
    object: &str,
    external_id: &str,
    remote: fn(usize) -> String,
) -> (Provider, Node) {
    let mut fields = String::new();
    for n in 0..FIELDS {
        let (local, remote) = (local(n), remote(n));
        writeln!(
            fields,
            "  {{ local = \"{local}\", remote = \"{remote}\" }},"
        )
        .expect("a String takes all");
    }
    let provider = Provider::start_as(kind, &["--token", "t-1"]);
    let node = Node::start(Config::new().shards(2).with(&format!(
        "[providers.crm]\ntype = \"{kind}\"\nbase_url = \"{}\"\npoll = {{ interval = \"200ms\" }}\n\
         auth = {{ kind = \"bearer\", token = \"exec:printf t-1\" }}\n\
         [objects.contact]\ndirection = \"both\"\n\
         [objects.contact.to.crm]\nremote = \"{object}\"\nexternal_id = \"{external_id}\"\n\
         fields = [\n{fields}]\n",
        provider.url()
    )));
    (provider, node)
}

fn record() -> Value {
    let fields = (0..FIELDS).map(|n| (local(n), json!(format!("value {n}"))));
    Value::Object(fields.collect::<Map<String, Value>>())
}

fn sync(node: &Node, operation: &str, data: Option<&Value>) -> Value {
    let mut event = json!({"operation": operation, "object": "contact", "record_id": "c-1"});
    if let Some(data) = data {
        event["data"] = data.clone();
    }
    let answer = node.post("/v1/sync", event.to_string());
    assert_eq!(answer.status, 202, "{}", answer.json());
    assert_eq!(node.drain(), Vec::<Value>::new());
    let id = answer.json()["operation_id"].as_str().map(str::to_owned);
    let id = id.expect("an operation has an id");
    node.get(&format!("/v1/operations/{id}")).json()
}

/// Whether a call of the provider's journal has this path and was answered.
fn was_asked(provider: &Provider, path: &str) -> bool {
    let calls = provider.journal();
    calls
        .iter()
        .any(|call| call.path.ends_with(path) && call.status / 100 == 2)
}

#[test]
fn a_read_of_400_fields_is_one_call_with_their_names_in_its_body() {
    let remote = |n: usize| format!("a_property_of_our_own_{n}");
    let (provider, node) = start("hubspot", "contacts", "external_id", remote);
    sync(&node, "CREATE", Some(&record()));
    let read = sync(&node, "READ", None);
    assert_eq!(read["state"], "synced", "{read}");
    assert_eq!(read["result"], record());
    assert!(was_asked(&provider, "/contacts/batch/read"));

    // One that is gone is told as such, as by the shorter request.
    let id = provider.ids()["contacts/c-1"].clone();
    provider.edit(&json!({"object": "contacts", "operation": "delete", "id": id}));
    let event = json!({"operation": "READ", "object": "contact", "record_id": "c-1"});
    assert_eq!(node.post("/v1/sync", event.to_string()).status, 202);
    let dead = node.drain();
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0]["code"], "not_found", "{}", dead[0]);
}

#[test]
fn a_list_of_400_fields_is_asked_for_with_its_query_in_a_body() {
    let remote = |n: usize| match n {
        // Without it there is no contact.
        0 => "LastName".to_owned(),
        _ => format!("Property_Number_{n}__c"),
    };
    let (provider, node) = start("salesforce", "Contact", "External_Id__c", remote);
    let mut lines = Lines::connect(node.tcp());
    lines.send("{\"subscribe\":{\"consumer\":\"billing\",\"objects\":[\"contact\"]}}\n");
    sync(&node, "CREATE", Some(&record()));
    until("a list of changes", || {
        was_asked(&provider, "/composite").then_some(())
    });
    let id = provider.ids()["Contact/c-1"].clone();
    let last = FIELDS - 1;
    provider.edit(
        &json!({"object": "Contact", "operation": "update", "id": id,
                          "fields": {remote(last): "theirs"}}),
    );
    let message = lines.next_message().expect("the subscription goes on");
    assert_eq!(
        message["change"]["data"],
        json!({local(last): "theirs"}),
        "{message}"
    );
}
