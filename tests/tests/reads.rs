//! A READ answers with the record as the provider has it, in System A's names and types.

use std::fs;

use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, Provider, request};
use tempfile::TempDir;

const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "name": {"type": "object", "properties": {"last": {"type": "string"}},
                 "required": ["last"], "additionalProperties": false},
        "visits": {"type": "integer"},
        "status": {"enum": ["active", "inactive"]},
        "vip": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "city": {"type": ["string", "null"]}
    },
    "required": ["name"],
    "additionalProperties": false
}"#;

/// One CRM with contacts whose fields are named and typed otherwise than System A's.
struct Crm {
    provider: Provider,
    node: Node,
    object: &'static str,
    _schema: TempDir,
}

impl Crm {
    fn start(kind: &str, object: &'static str, external_id: &str, fields: &str) -> Crm {
        let folder = tempfile::tempdir().expect("a folder for the schema");
        let schema = folder.path().join("contact.json");
        fs::write(&schema, SCHEMA).expect("the folder is ours");
        let provider = Provider::start_as(kind, &["--token", "t-1"]);
        let node = Node::start(Config::new().shards(1).with(&format!(
            "[providers.crm]\ntype = \"{kind}\"\nbase_url = \"{}\"\n\
             auth = {{ kind = \"bearer\", token = \"exec:printf t-1\" }}\n\
             [objects.contact]\nschema = {schema:?}\n\
             [objects.contact.to.crm]\nremote = \"{object}\"\nexternal_id = \"{external_id}\"\n\
             fields = [{fields}]\n",
            provider.url()
        )));
        Crm {
            provider,
            node,
            object,
            _schema: folder,
        }
    }

    /// Sends one and waits for its end; its id.
    fn sync(&self, operation: &str, data: &Value) -> String {
        let answer = self.post(operation, data);
        assert_eq!(answer.0, 202, "{}", answer.1);
        assert_eq!(self.node.drain(), Vec::<Value>::new());
        let id = answer.1["operation_id"].as_str();
        id.expect("an id").to_owned()
    }

    fn post(&self, operation: &str, data: &Value) -> (u16, Value) {
        let mut event = json!({"operation": operation, "object": "contact", "record_id": "c-1"});
        if !data.is_null() {
            event["data"] = data.clone();
        }
        let answer = self.node.post("/v1/sync", event.to_string());
        (answer.status, answer.json())
    }

    /// Somebody else changes the record.
    fn edit(&self, fields: &Value) {
        let id = self.provider.ids()[&format!("{}/c-1", self.object)].clone();
        let edit =
            json!({"object": self.object, "operation": "update", "id": id, "fields": fields});
        let url = self.provider.url();
        let addr = url
            .trim_start_matches("http://")
            .parse()
            .expect("an address");
        let answer = request(addr, "POST", "/__mock/edit", edit.to_string().as_bytes());
        assert_eq!(answer.map(|answer| answer.status), Some(200), "{edit}");
    }

    fn read(&self) -> Value {
        let id = self.sync("READ", &Value::Null);
        let told = self.node.get(&format!("/v1/operations/{id}")).json();
        assert_eq!(told["state"], "synced", "{told}");
        told["result"].clone()
    }
}

fn record() -> Value {
    json!({"name": {"last": "Lovelace"}, "visits": 3, "status": "active", "vip": true,
           "tags": ["math", "engines"]})
}

/// What is read is the record with what others changed, and is itself a record of System A.
fn reads_back(crm: &Crm, edited: &Value) {
    crm.sync("CREATE", &record());
    let mut expected = record();
    let unset = json!({"city": null});
    let read = crm.read();
    let known = |read: &Value, expected: &Value| {
        let members = expected.as_object().expect("an object");
        members.iter().all(|(name, value)| read[name] == *value)
            && read.as_object().is_some_and(|read| {
                read.iter()
                    .all(|(name, value)| expected.get(name).or(unset.get(name)) == Some(value))
            })
    };
    assert!(known(&read, &expected), "{read}");
    crm.edit(edited);
    expected["visits"] = json!(8);
    expected["status"] = json!("inactive");
    expected["vip"] = json!(false);
    let read = crm.read();
    assert!(known(&read, &expected), "{read}");

    // The schema of System A's records takes it as it is, and would tell if it did not fit.
    let (status, answer) = crm.post("UPSERT", &read);
    assert_eq!(status, 202, "{answer}");
    let mut remote = read;
    remote["visits"] = json!("8");
    let (status, answer) = crm.post("UPSERT", &remote);
    assert_eq!(
        (status, &answer["type"]),
        (422, &json!("urn:syncline:problem:schema"))
    );
    assert_eq!(answer["errors"][0]["pointer"], "/data/visits");
}

#[test]
fn a_portal_of_texts_is_read_in_system_a_s_types() {
    let crm = Crm::start(
        "hubspot",
        "contacts",
        "external_id",
        r#"{ local = "name.last", remote = "lastname" },
           { local = "visits", remote = "visits", convert = "text" },
           { local = "status", remote = "lead_status", values = { active = "A", inactive = "I" } },
           { local = "vip", remote = "vip", convert = "yes_no" },
           { local = "tags", remote = "tags", convert = "join:;" },
           { local = "city", remote = "city" }"#
            .replace('\n', " ")
            .as_str(),
    );
    reads_back(
        &crm,
        &json!({"visits": "8", "lead_status": "I", "vip": "no"}),
    );
}

#[test]
fn an_org_with_fields_of_its_own_is_read_in_system_a_s_names() {
    let crm = Crm::start(
        "salesforce",
        "Contact",
        "External_Id__c",
        r#"{ local = "name.last", remote = "LastName" },
           { local = "visits", remote = "Visits__c" },
           { local = "status", remote = "Status__c", values = { active = "A", inactive = "I" } },
           { local = "vip", remote = "Vip__c", convert = "yes_no" },
           { local = "tags", remote = "Tags__c", convert = "join:;" },
           { local = "city", remote = "MailingCity" }"#
            .replace('\n', " ")
            .as_str(),
    );
    reads_back(
        &crm,
        &json!({"Visits__c": 8, "Status__c": "I", "Vip__c": "no"}),
    );
}
