//! Records that refer to one another, edited at an account: their references come to System A as
//! System A's keys, whichever of the two is heard of first.

use serde_json::{Value, json};
use syncline_tests::process::{Config, Lines, Node, Provider, until};

/// A portal with companies and contacts that refer to them, both kept in step both ways.
struct Portal {
    provider: Provider,
    node: Node,
    lines: Lines,
}

impl Portal {
    fn start(shards: u16, more: &str) -> Portal {
        let provider = Provider::start_as("hubspot", &["--token", "t-1"]);
        let node = Node::start(Config::new().shards(shards).with(&format!(
            "[providers.crm]\ntype = \"hubspot\"\nbase_url = \"{}\"\nsettle = \"200ms\"\n\
             poll = {{ interval = \"100ms\" }}\n{more}\
             auth = {{ kind = \"bearer\", token = \"exec:printf t-1\" }}\n\
             [objects.company]\ndirection = \"both\"\n\
             [objects.company.to.crm]\nremote = \"companies\"\nexternal_id = \"external_id\"\n\
             fields = [{{ local = \"name\", remote = \"name\" }}]\n\
             [objects.contact]\ndirection = \"both\"\n\
             [objects.contact.to.crm]\nremote = \"contacts\"\nexternal_id = \"external_id\"\n\
             fields = [{{ local = \"name\", remote = \"lastname\" }},\n\
             {{ local = \"company\", remote = \"associatedcompanyid\", reference = \"company\" }}]\n",
            provider.url()
        )));
        let mut lines = Lines::connect(node.tcp());
        lines.send("{\"subscribe\":{\"consumer\":\"a\",\"objects\":[\"contact\",\"company\"]}}\n");
        Portal {
            provider,
            node,
            lines,
        }
    }

    fn sync(&self, object: &str, record_id: &str, data: Value) {
        let event = json!({"operation": "UPSERT", "object": object, "record_id": record_id,
                           "data": data});
        assert_eq!(self.node.post("/v1/sync", event.to_string()).status, 202);
        assert_eq!(self.node.drain(), Vec::<Value>::new());
    }

    fn id(&self, name: &str) -> String {
        self.provider.ids()[name].clone()
    }

    fn edit(&self, contact: &str, fields: &Value) {
        let id = self.id(&format!("contacts/{contact}"));
        let edit = json!({"object": "contacts", "operation": "update", "id": id, "fields": fields});
        self.provider.edit(&edit);
    }

    /// The next change that System A is told of this object.
    fn told(&mut self, object: &str) -> Value {
        loop {
            let message = self.lines.next_message().expect("the subscription goes on");
            let change = message["change"].clone();
            self.lines
                .send(format!("{{\"ack\":{{\"seq\":{}}}}}\n", change["seq"]));
            if change["object"] == object {
                return change;
            }
        }
    }
}

#[test]
fn a_reference_comes_back_as_the_key_of_the_record_it_is_to() {
    let mut portal = Portal::start(4, "");
    portal.sync("company", "A-1", json!({"name": "One"}));
    portal.sync("company", "A-2", json!({"name": "Two"}));
    portal.sync("contact", "C-1", json!({"name": "Ada", "company": "A-1"}));
    let before = portal.provider.journal().len();
    portal.edit(
        "C-1",
        &json!({"associatedcompanyid": portal.id("companies/A-2")}),
    );
    let change = portal.told("contact");
    assert_eq!(change["record_id"], "C-1");
    assert_eq!(change["data"], json!({"company": "A-2"}), "{change}");

    // Another field alone, then none at all: the reference is no change, and then it is gone.
    portal.edit("C-1", &json!({"lastname": "King"}));
    assert_eq!(portal.told("contact")["data"], json!({"name": "King"}));
    portal.edit("C-1", &json!({"associatedcompanyid": ""}));
    assert_eq!(portal.told("contact")["data"], json!({"company": null}));
    let calls = portal.provider.journal().split_off(before);
    let writes = ["/create", "/update", "/upsert"];
    let mut written = calls
        .iter()
        .filter(|call| call.method == "PATCH" || writes.iter().any(|end| call.path.ends_with(end)));
    assert!(written.next().is_none(), "nothing of it is written back");
}

#[test]
fn a_reference_to_a_record_made_there_waits_until_that_is_known() {
    let mut portal = Portal::start(4, "");
    portal.sync("contact", "C-1", json!({"name": "Ada"}));
    let company = portal
        .provider
        .make("companies", &json!({"name": "Theirs"}));
    portal.edit("C-1", &json!({"associatedcompanyid": company}));
    let key = format!("crm:{company}");
    let change = portal.told("contact");
    assert_eq!(change["data"], json!({"company": key}), "{change}");

    // And goes out again as the account's own id.
    portal.sync("contact", "C-2", json!({"name": "Grace", "company": key}));
    let shown = portal.provider.records()["contacts/C-2"].clone();
    assert_eq!(shown["associatedcompanyid"], json!(company));
}

#[test]
fn a_reference_to_a_record_that_never_comes_ends_for_a_person() {
    for shards in [1, 4] {
        let portal = Portal::start(shards, "parent_timeout = \"1s\"\n");
        portal.sync("contact", "C-1", json!({"name": "Ada"}));
        let reads = || {
            let calls = portal.provider.journal();
            calls.iter().filter(|call| call.method == "GET").count()
        };
        let before = reads();
        portal.edit("C-1", &json!({"associatedcompanyid": "987654"}));
        let dead = until("the dead letter", || {
            let dead = portal.node.get("/v1/dlq").json()["items"].clone();
            dead.as_array().filter(|dead| !dead.is_empty()).cloned()
        });
        assert_eq!(dead[0]["code"], "parent", "{}", dead[0]);
        assert_eq!(dead[0]["record_id"], "C-1");
        // It asked its neighbours meanwhile, not the account.
        assert!(reads() - before <= 3, "{} reads", reads() - before);
    }
}
