//! What is promised of mappings, rules, schemas, switches and deliveries, asked of the program; and
//! of the program behind surroundings that behave as it would with a bug, each of which the same
//! check must catch.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use syncline_tests::process::{Answer, Config, Node, PATIENCE, Provider};

/// One planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// An operation is told with the mapping version that is in force, not with its own.
    VersionInForce,
    /// An operation keeps no mapping version.
    NoVersion,
    /// Of a mapping set with a fault the sound fields replace the set in force.
    BadSetHalfTaken,
    /// A converter that loses something is taken without a word of it.
    LossUnsaid,
    /// Pushed rules are taken whatever they would withhold.
    PushUnforced,
    /// Schemas are not looked at.
    SchemaSkipped,
    /// Required fields of a mapping are not looked at.
    RequiredSkipped,
    /// Required fields of a rule are not looked at.
    RuleRequiredSkipped,
    /// Whether an event is in an account's share is thrown anew for each event.
    ShareByEvent,
    /// Whether it is, depends on where in its request it stands.
    ShareByPlace,
    /// The signature of a delivery is checked over its JSON, written anew.
    DeliveryRewritten,
}

/// What does not hold.
type Broken = String;

fn holds(what: bool, promise: &str) -> Result<(), Broken> {
    if what {
        Ok(())
    } else {
        Err(promise.to_owned())
    }
}

/// The program as its users meet it, with a bug or without.
struct Face {
    node: Node,
    bug: Option<Bug>,
    /// Events that were taken: the surroundings' own dice.
    taken: Cell<usize>,
}

impl Face {
    fn start(config: Config, bug: Option<Bug>) -> Face {
        let node = Node::start(config);
        let taken = Cell::new(0);
        Face { node, bug, taken }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Sets an account of type `rest` up with these fields of a contact.
    fn set_up(&self, provider: &Provider, fields: &Value) -> u16 {
        let put = |fields: &Value| {
            let account = json!({"name": "crm", "type": "rest", "base_url": provider.url(),
                "mappings": {"contact": {"remote": "contact", "fields": fields}}});
            self.node.post("/v1/providers", account.to_string()).status
        };
        let mut fields = fields.clone();
        let every = |fields: &mut Value, change: &dyn Fn(&mut Value)| {
            let fields = fields.as_array_mut().unwrap().iter_mut();
            fields.for_each(change);
        };
        if self.has(Bug::LossUnsaid) {
            every(&mut fields, &|field| field["lossy"] = json!(true));
        }
        let status = put(&fields);
        if status == 422 && self.has(Bug::BadSetHalfTaken) {
            every(&mut fields, &|field| {
                field.as_object_mut().unwrap().remove("convert");
            });
            put(&fields);
        }
        status
    }

    fn take(&self, events: &[Value]) -> Answer {
        let thrown = |place: usize| {
            let taken = self.taken.replace(self.taken.get() + 1);
            match self.bug {
                Some(Bug::ShareByEvent) => taken.wrapping_mul(0x9e37_79b9) >> 7 & 3 == 0,
                Some(Bug::ShareByPlace) => place.is_multiple_of(4),
                _ => true,
            }
        };
        let places = events.iter().enumerate();
        let kept: Vec<&Value> = places
            .filter_map(|(place, event)| thrown(place).then_some(event))
            .collect();
        self.node.post("/v1/sync", json!(kept).to_string())
    }

    /// The first code that an event is refused with; `None`: it was taken.
    fn refused(&self, operation: &str, record_id: &str, data: &Value) -> Option<String> {
        let event = json!({"operation": operation, "object": "contact", "record_id": record_id,
                           "data": data});
        let answer = self.node.post("/v1/sync", event.to_string());
        let code = answer.json()["type"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (answer.status != 202).then_some(code)
    }

    fn push(&self, rules: &Value) -> u16 {
        let path = match self.has(Bug::PushUnforced) {
            true => "/v1/sync/rules?force=true",
            false => "/v1/sync/rules",
        };
        self.node.ask("PUT", path, rules.to_string()).status
    }

    /// The mapping version of a dead letter.
    fn version(&self, id: &str) -> u64 {
        let shown = |id: &str| {
            let letter = self.node.get(&format!("/v1/dlq/{id}@crm")).json();
            letter["mapping_version"].as_u64().unwrap_or_default()
        };
        match self.bug {
            Some(Bug::VersionInForce) => shown(&self.dead_letter("bad-now")),
            Some(Bug::NoVersion) => 0,
            _ => shown(id),
        }
    }

    /// An event that ends as a dead letter; its operation.
    fn dead_letter(&self, record_id: &str) -> String {
        let event = json!({"operation": "UPSERT", "object": "contact", "record_id": record_id,
                           "data": {"name": "Ada"}});
        let answer = self.node.post("/v1/sync", event.to_string());
        assert_eq!(answer.status, 202, "{}", answer.json());
        self.node.drain();
        answer.json()["operation_id"].as_str().unwrap().to_owned()
    }

    /// Delivers a body as it is, signed for `signed`; the status of the answer.
    fn deliver(&self, body: &str, signed: &str) -> u16 {
        let timestamp = now_ms();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let message = format!("POST{PUBLIC_URL}/v1/webhooks/crm{signed}{timestamp}");
        let signature = BASE64_STANDARD.encode(hmac::sign(&key, message.as_bytes()));
        let body = match self.has(Bug::DeliveryRewritten) {
            true => serde_json::from_str::<Value>(body).unwrap().to_string(),
            false => body.to_owned(),
        };
        let request = format!(
            "POST /v1/webhooks/crm HTTP/1.1\r\nHost: hooks.example\r\nContent-Length: {}\r\n\
             x-hubspot-signature-v3: {signature}\r\n\
             x-hubspot-request-timestamp: {timestamp}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.node.http()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
    }
}

fn now_ms() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_millis()
}

const SECRET: &str = "s-1";
const PUBLIC_URL: &str = "http://hooks.example";

fn to(remote: &str) -> Value {
    json!([{"local": "name", "remote": remote}])
}

/// Every operation keeps the version of the mappings that it was taken under.
fn versions_are_kept(bug: Option<Bug>) -> Result<(), Broken> {
    let provider = Provider::start(&["--fault", "poison=bad-"]);
    let mut face = Face::start(Config::new().shards(2), bug);
    assert_eq!(face.set_up(&provider, &to("one")), 201);
    let first = face.dead_letter("bad-1");
    let one = face.version(&first);
    holds(one != 0, "an operation has a version")?;
    assert_eq!(face.set_up(&provider, &to("two")), 200);
    let second = face.dead_letter("bad-2");
    holds(
        face.version(&second) != one,
        "other mappings, another version",
    )?;
    holds(face.version(&first) == one, "an operation's version stays")?;
    face.node.kill();
    face.node.restart();
    holds(face.version(&first) == one, "over a crash too")?;
    assert_eq!(face.set_up(&provider, &to("one")), 200);
    let third = face.dead_letter("bad-3");
    holds(
        face.version(&third) == one,
        "the same mappings, the same version",
    )
}

/// A set of mappings with a fault leaves the one in force as it is, also over a crash.
fn a_bad_set_changes_nothing(bug: Option<Bug>) -> Result<(), Broken> {
    let provider = Provider::start(&[]);
    let mut face = Face::start(Config::new().shards(2), bug);
    assert_eq!(face.set_up(&provider, &to("one")), 201);
    let bad = json!([{"local": "name", "remote": "two", "convert": "rot13"}]);
    holds(face.set_up(&provider, &bad) == 422, "a bad set is refused")?;
    for restarted in [false, true] {
        if restarted {
            face.node.kill();
            face.node.restart();
        }
        let record_id = format!("c-{restarted}");
        let data = json!({"name": "Ada"});
        assert_eq!(face.refused("UPSERT", &record_id, &data), None);
        assert_eq!(face.node.drain(), Vec::<Value>::new());
        let fields = provider.records()[&format!("contact/{record_id}")].clone();
        holds(fields["one"] == "Ada", "the good set is in force")?;
    }
    Ok(())
}

/// What loses something has to say so.
fn a_loss_is_said(bug: Option<Bug>) -> Result<(), Broken> {
    let provider = Provider::start(&[]);
    let face = Face::start(Config::new(), bug);
    for convert in ["lowercase", "truncate:3", "to_int", "html_to_text"] {
        let unsaid = json!([{"local": "name", "remote": "name", "convert": convert}]);
        holds(face.set_up(&provider, &unsaid) == 422, convert)?;
    }
    let said = json!([{"local": "name", "remote": "name", "convert": "lowercase", "lossy": true}]);
    holds(
        face.set_up(&provider, &said) == 201,
        "a loss that is said is taken",
    )
}

/// A push that would withhold more than 20 points more has to be meant.
fn a_push_has_to_be_meant(bug: Option<Bug>) -> Result<(), Broken> {
    let provider = Provider::start(&[]);
    let face = Face::start(Config::new().account("crm", &provider.url(), ""), bug);
    let event = |n: usize| {
        json!({"operation": "UPSERT", "object": "contact", "record_id": format!("c-{n}"),
               "data": {"n": n}})
    };
    for n in 0..10 {
        assert_eq!(face.take(&[event(n)]).status, 202);
        // Of the events of a millisecond one is kept to try rules on.
        let ms = now_ms();
        while now_ms() == ms {}
    }
    assert_eq!(face.node.drain(), Vec::<Value>::new());
    let skipping =
        |count: usize| json!({"rules": [{"when": format!("data.n < {count}"), "action": "skip"}]});
    let version = || face.node.get("/v1/sync/rules").json()["version"].clone();
    holds(face.push(&skipping(3)) == 409, "30 points need force")?;
    holds(version() == 0, "what needs force is not taken")?;
    holds(face.push(&skipping(2)) == 200, "20 points do not")?;
    holds(version() == 1, "what does not is in force")
}

/// What does not fit its schema is refused, and reaches nobody.
fn schemas_are_held(bug: Option<Bug>) -> Result<(), Broken> {
    let provider = Provider::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("contact.json");
    let text = r#"{"required":["email"],"properties":{"email":{"type":"string"}}}"#;
    std::fs::write(&schema, text).unwrap();
    let schema = match bug {
        Some(Bug::SchemaSkipped) => String::new(),
        _ => format!("schema = {schema:?}\n"),
    };
    let objects = format!("[objects.contact]\n{schema}[objects.contact.to.crm]\n");
    let config = Config::new().account("crm", &provider.url(), "");
    let face = Face::start(config.with(&objects), bug);
    let refused = Some("urn:syncline:problem:schema".to_owned());
    let nothing = json!({"name": "Ada"});
    holds(
        face.refused("CREATE", "c-1", &nothing) == refused,
        "a field is missing",
    )?;
    let number = json!({"email": 7});
    holds(
        face.refused("UPDATE", "c-2", &number) == refused,
        "a field is no text",
    )?;
    let fits = json!({"email": "ada@example.com"});
    holds(
        face.refused("CREATE", "c-3", &fits).is_none(),
        "what fits is taken",
    )?;
    face.node.drain();
    holds(provider.records().len() == 1, "and nothing else")
}

/// Required fields bind what makes a record, and what clears them.
fn required_fields_are_held(bug: Option<Bug>) -> Result<(), Broken> {
    let in_mapping = "[[objects.contact.to.crm.fields]]\nlocal = \"email\"\nremote = \"email\"\n";
    let in_rules = "[objects.contact.to.crm]\n[[rules]]\nrequired_fields = [\"email\"]\n";
    let required = match bug {
        Some(Bug::RequiredSkipped) => "required = false\n",
        _ => "required = true\n",
    };
    let ruled = match bug {
        Some(Bug::RuleRequiredSkipped) => "[objects.contact.to.crm]\n",
        _ => in_rules,
    };
    for objects in [format!("{in_mapping}{required}"), ruled.to_owned()] {
        let provider = Provider::start(&[]);
        let config = Config::new().account("crm", &provider.url(), "");
        let face = Face::start(config.with(&objects), bug);
        let without = json!({"name": "Ada"});
        for operation in ["CREATE", "UPSERT"] {
            let refused = face.refused(operation, "c-1", &without);
            holds(refused.is_some(), "a record without the field is refused")?;
        }
        let cleared = json!({"email": null});
        let refused = face.refused("UPDATE", "c-1", &cleared);
        holds(refused.is_some(), "a change that clears it is refused")?;
        let with = json!({"email": "ada@example.com"});
        holds(
            face.refused("CREATE", "c-1", &with).is_none(),
            "what has it is taken",
        )?;
        let refused = face.refused("UPDATE", "c-1", &without);
        holds(refused.is_none(), "a change of another field is taken")?;
    }
    Ok(())
}

/// A share is made of records, not of events: always the same ones, and a greater one only adds.
fn a_share_is_of_records(bug: Option<Bug>) -> Result<(), Broken> {
    let provider = Provider::start(&[]);
    let own_dice = matches!(bug, Some(Bug::ShareByEvent | Bug::ShareByPlace));
    let share = if own_dice { "1.0" } else { "0.25" };
    let config = Config::new().shards(2);
    let config = config.account("crm", &provider.url(), &format!("share = {share}\n"));
    let mut face = Face::start(config, bug);
    let send = |face: &Face, round: usize, places: &mut dyn Iterator<Item = usize>| {
        let event = |n: usize| {
            json!({"operation": "UPSERT", "object": "contact", "record_id": format!("c-{n}"),
                   "data": {"round": round}})
        };
        let events: Vec<Value> = places.map(event).collect();
        assert_eq!(face.take(&events).status, 202);
        assert_eq!(face.node.drain(), Vec::<Value>::new());
        let records = provider.records().into_iter();
        let arrived = records.filter(|(_, fields)| fields["round"] == round);
        arrived.map(|(name, _)| name).collect::<BTreeSet<String>>()
    };
    let first = send(&face, 1, &mut (0..200));
    holds((20..80).contains(&first.len()), "about a quarter is in it")?;
    holds(
        send(&face, 2, &mut (0..200)) == first,
        "the same in every round",
    )?;
    holds(send(&face, 3, &mut (0..200).rev()) == first, "in any order")?;
    face.node.kill();
    face.node.restart();
    holds(send(&face, 4, &mut (0..200)) == first, "over a crash too")?;
    let more = json!({"provider": "crm", "share": 0.75}).to_string();
    assert_eq!(face.node.post("/v1/sync/config-override", more).status, 200);
    let grown = send(&face, 5, &mut (0..200));
    holds(
        grown.len() > first.len() && grown.is_superset(&first),
        "a greater share only adds",
    )
}

/// A delivery is believed for its bytes, not for what they mean.
fn deliveries_are_believed_by_the_byte(bug: Option<Bug>) -> Result<(), Broken> {
    let account = format!(
        "[providers.crm]\ntype = \"hubspot\"\nbase_url = \"http://127.0.0.1:9\"\n\
         auth = {{ kind = \"bearer\", token = \"exec:printf t-1\" }}\n\
         [providers.crm.webhook]\nsecret = \"exec:printf {SECRET}\"\n\
         [objects.contact]\ndirection = \"in\"\n\
         [objects.contact.to.crm]\nremote = \"contacts\"\nexternal_id = \"external_id\"\n"
    );
    let config = Config::new().public_url(PUBLIC_URL).with(&account);
    let face = Face::start(config, bug);
    let told = r#"[{"appId":1,"eventId":1,"objectId":101,"occurredAt":1795168800000,"portalId":1,"propertyValue":"A/B","subscriptionType":"contact.creation"}]"#;
    holds(
        face.deliver(told, told) == 200,
        "what is signed is believed",
    )?;
    for other in [
        told.replacen(':', ": ", 1),
        told.replace("A/B", "\\u0041/B"),
        told.replace("A/B", "A\\/B"),
        format!("{told}\n"),
    ] {
        assert_ne!(other, told);
        let means_the_same = serde_json::from_str::<Value>(&other).unwrap()
            == serde_json::from_str::<Value>(told).unwrap();
        assert!(means_the_same);
        holds(face.deliver(&other, told) == 401, "other bytes are not")?;
        holds(
            face.deliver(&other, &other) == 200,
            "unless they are signed",
        )?;
    }
    Ok(())
}

type Check = fn(Option<Bug>) -> Result<(), Broken>;

/// Each promise, with the bugs that break it.
const PROMISES: [(Check, &[Bug]); 8] = [
    (versions_are_kept, &[Bug::VersionInForce, Bug::NoVersion]),
    (a_bad_set_changes_nothing, &[Bug::BadSetHalfTaken]),
    (a_loss_is_said, &[Bug::LossUnsaid]),
    (a_push_has_to_be_meant, &[Bug::PushUnforced]),
    (schemas_are_held, &[Bug::SchemaSkipped]),
    (
        required_fields_are_held,
        &[Bug::RequiredSkipped, Bug::RuleRequiredSkipped],
    ),
    (
        a_share_is_of_records,
        &[Bug::ShareByEvent, Bug::ShareByPlace],
    ),
    (
        deliveries_are_believed_by_the_byte,
        &[Bug::DeliveryRewritten],
    ),
];

#[test]
fn the_program_keeps_each_promise() {
    for (check, _) in PROMISES {
        assert_eq!(check(None), Ok(()));
    }
}

#[test]
fn each_planted_bug_breaks_the_promise_it_is_planted_in() {
    for (check, bugs) in PROMISES {
        for bug in bugs {
            match check(Some(*bug)) {
                Ok(()) => panic!("{bug:?} is not caught"),
                Err(broken) => println!("{bug:?}: {broken}"),
            }
        }
    }
}
