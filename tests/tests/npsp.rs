//! A charity's accounts, contacts and donations into two CRMs at once, both of which misbehave:
//! parents first, each child linked to its parents, nothing twice, few calls.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, Provider, Violations};

/// Records a call. Below what both take, so that there are calls enough to count.
const BATCH: usize = 20;

const SALESFORCE: &str = r#"
[objects.account.to.salesforce]
remote = "Account"
external_id = "External_Id__c"
fields = [
  { local = "name", remote = "Name" },
  { local = "street", remote = "BillingStreet" },
  { local = "city", remote = "BillingCity" },
  { local = "state", remote = "BillingState" },
  { local = "postal_code", remote = "BillingPostalCode" },
  { local = "country", remote = "BillingCountry" },
]
[objects.contact.to.salesforce]
remote = "Contact"
external_id = "External_Id__c"
fields = [
  { local = "salutation", remote = "Salutation" },
  { local = "first_name", remote = "FirstName" },
  { local = "last_name", remote = "LastName" },
  { local = "email", remote = "Email" },
  { local = "phone", remote = "Phone" },
  { local = "title", remote = "Title" },
  { local = "account_id", remote = "AccountId", reference = "account" },
]
[objects.opportunity.to.salesforce]
remote = "Opportunity"
external_id = "External_Id__c"
fields = [
  { local = "name", remote = "Name" },
  { local = "amount", remote = "Amount__c" },
  { local = "stage", remote = "StageName" },
  { local = "close_date", remote = "CloseDate" },
  { local = "account_id", remote = "AccountId", reference = "account" },
  { local = "primary_contact_id", remote = "ContactId", reference = "contact" },
]
"#;

const HUBSPOT: &str = r#"
[objects.account.to.hubspot]
remote = "companies"
external_id = "external_id"
fields = [
  { local = "name", remote = "name" },
  { local = "street", remote = "address" },
  { local = "city", remote = "city" },
  { local = "state", remote = "state" },
  { local = "postal_code", remote = "zip" },
  { local = "country", remote = "country" },
]
[objects.contact.to.hubspot]
remote = "contacts"
external_id = "external_id"
fields = [
  { local = "salutation", remote = "salutation" },
  { local = "first_name", remote = "firstname" },
  { local = "last_name", remote = "lastname" },
  { local = "email", remote = "email" },
  { local = "phone", remote = "phone" },
  { local = "title", remote = "jobtitle" },
  { local = "account_id", remote = "associatedcompanyid", reference = "account" },
]
[objects.opportunity.to.hubspot]
remote = "deals"
external_id = "external_id"
fields = [
  { local = "name", remote = "dealname" },
  { local = "amount", remote = "amount" },
  { local = "stage", remote = "dealstage" },
  { local = "close_date", remote = "closedate" },
  { local = "account_id", remote = "company_id", reference = "account" },
  { local = "primary_contact_id", remote = "contact_id", reference = "contact" },
]
"#;

/// One CRM: its objects and fields by the local names, as the mappings above have them.
struct Crm {
    provider: Provider,
    objects: [(&'static str, &'static str); 3],
    fields: fn(&str, &str) -> &'static str,
}

#[test]
fn accounts_contacts_and_opportunities_arrive_in_both_with_their_parents() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate lies in the project's folder");
    let Ok(text) = std::fs::read_to_string(root.join("../shared/data/records/npsp_events.ndjson"))
    else {
        println!("skipped: npsp (no records at ../shared/data/records)");
        return;
    };
    // As a backfill sends them: an upsert by key is repeated where a create has to be looked up.
    let events: Vec<Value> = text
        .lines()
        .map(|line| {
            let mut event: Value = serde_json::from_str(line).expect("the records are JSON");
            event["operation"] = json!("UPSERT");
            event
        })
        .collect();
    // Few of those that split a call: its records are sent again one by one in time.
    let faults = "5xx=0.02,5xx_after=0.02,429=0.05,latency=5ms,jitter=10ms,retry_after=200ms";
    let crms = [
        Crm {
            provider: Provider::start_as(
                "salesforce",
                &["--token", "t-1", "--fault", faults, "--seed", "5"],
            ),
            objects: [
                ("account", "Account"),
                ("contact", "Contact"),
                ("opportunity", "Opportunity"),
            ],
            fields: salesforce_field,
        },
        Crm {
            provider: Provider::start_as("hubspot", &["--fault", faults, "--seed", "6"]),
            objects: [
                ("account", "companies"),
                ("contact", "contacts"),
                ("opportunity", "deals"),
            ],
            fields: hubspot_field,
        },
    ];
    let node = Node::start(Config::new().shards(1).with(&format!(
        "{}{}{SALESFORCE}{HUBSPOT}",
        account("salesforce", &crms[0].provider, "t-1"),
        account("hubspot", &crms[1].provider, "pat-1"),
    )));

    // Parents before children, as backfills go; each object is a backlog of its own.
    for object in ["account", "contact", "opportunity"] {
        assert_eq!(node.post("/v1/pause", "{}").status, 200);
        let of_object: Vec<&Value> = events
            .iter()
            .filter(|event| event["object"] == object)
            .collect();
        let answer = node.post("/v1/sync", json!(of_object).to_string());
        assert_eq!(answer.status, 202, "{}", answer.json());
        assert_eq!(node.post("/v1/resume", "{}").status, 200);
        let dead = node.drain();
        assert!(dead.is_empty(), "{object}: {}", dead[0]);
    }
    for crm in &crms {
        equals(crm, &events);
        assert_eq!(crm.provider.violations(), Violations::default());
        few_calls(crm, &events);
    }
}

fn account(name: &str, provider: &Provider, token: &str) -> String {
    format!(
        "[providers.{name}]\nbase_url = \"{}\"\nsettle = \"300ms\"\n\
         retry = {{ max_attempts = 60, base_delay = \"20ms\", max_delay = \"300ms\" }}\n\
         breaker = {{ open_for = \"200ms\" }}\nbatch = {{ max_items = {BATCH} }}\n\
         [providers.{name}.auth]\nkind = \"bearer\"\ntoken = \"exec:echo {token}\"\n",
        provider.url()
    )
}

/// Every record with every field of the source, parents by their ids in this CRM.
fn equals(crm: &Crm, events: &[Value]) {
    let (records, ids) = (crm.provider.records(), crm.provider.ids());
    assert_eq!(records.len(), events.len());
    let remote: BTreeMap<&str, &str> = crm.objects.into_iter().collect();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    for event in events {
        let (object, id) = (text(&event["object"]), text(&event["record_id"]));
        let record = &records[&format!("{}/{id}", remote[object.as_str()])];
        for (local, value) in event["data"].as_object().expect("an object") {
            let parent = match local.as_str() {
                "account_id" => Some("account"),
                "primary_contact_id" => Some("contact"),
                _ => None,
            };
            let expected = match parent {
                Some(parent) => ids[&format!("{}/{}", remote[parent], text(value))].clone(),
                None => text(value),
            };
            let field = (crm.fields)(&object, local);
            assert_eq!(record[field], json!(expected), "{object} {id} {local}");
        }
    }
}

/// The calls that were not refused by a fault are at most a tenth more than there have to be.
fn few_calls(crm: &Crm, events: &[Value]) {
    let needed: usize = crm
        .objects
        .iter()
        .map(|(local, _)| {
            let of_object = events.iter().filter(|event| event["object"] == *local);
            of_object.count().div_ceil(BATCH)
        })
        .sum();
    let calls = crm.provider.journal();
    let answered = calls
        .iter()
        .filter(|call| (200..300).contains(&call.status));
    let answered = answered.count();
    assert!(calls.len() > answered, "some met a fault");
    assert!(
        answered * 10 <= needed * 11,
        "{answered} calls where {needed} have to be"
    );
}

fn salesforce_field(object: &str, local: &str) -> &'static str {
    match (object, local) {
        (_, "name") => "Name",
        (_, "street") => "BillingStreet",
        (_, "city") => "BillingCity",
        (_, "state") => "BillingState",
        (_, "postal_code") => "BillingPostalCode",
        (_, "country") => "BillingCountry",
        (_, "salutation") => "Salutation",
        (_, "first_name") => "FirstName",
        (_, "last_name") => "LastName",
        (_, "email") => "Email",
        (_, "phone") => "Phone",
        (_, "title") => "Title",
        (_, "amount") => "Amount__c",
        (_, "stage") => "StageName",
        (_, "close_date") => "CloseDate",
        (_, "account_id") => "AccountId",
        (_, "primary_contact_id") => "ContactId",
        _ => panic!("{object} has a field {local} that is not mapped"),
    }
}

fn hubspot_field(object: &str, local: &str) -> &'static str {
    match (object, local) {
        ("opportunity", "name") => "dealname",
        (_, "name") => "name",
        (_, "street") => "address",
        (_, "city") => "city",
        (_, "state") => "state",
        (_, "postal_code") => "zip",
        (_, "country") => "country",
        (_, "salutation") => "salutation",
        (_, "first_name") => "firstname",
        (_, "last_name") => "lastname",
        (_, "email") => "email",
        (_, "phone") => "phone",
        (_, "title") => "jobtitle",
        (_, "amount") => "amount",
        (_, "stage") => "dealstage",
        (_, "close_date") => "closedate",
        ("contact", "account_id") => "associatedcompanyid",
        (_, "account_id") => "company_id",
        (_, "primary_contact_id") => "contact_id",
        _ => panic!("{object} has a field {local} that is not mapped"),
    }
}
