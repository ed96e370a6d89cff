//! What events of a delivery say, by tables and pointers.

use proptest::prelude::*;
use syncline_engine::provider::{Change, ChangeKind, Received, Unreadable, WebhookDefinition};

use super::{definition, headers, post};

const BLOCKS: &str = r#"
[webhook]
events = "/events"

[[webhook.signatures]]
name = "t"
kind = "token"
header = "x-token"

[webhook.event]
object = { at = ["/type", "/what"], table = { "1" = "deals", "contact.*" = "contacts" } }
kind = { at = "/what", table = { "*.new" = "created", "*.edit" = "changed", "contact.edit" = "restored", "*.gone" = "deleted", "*.merge" = "merged" } }
id = "/id"
merged = { into = ["/new", "/winner"], from = ["/losers", "/winner"] }
occurred_at = ["/at", "/sent"]
unit = "s"
delivery_id = ["/event"]
fields = "/record"
complete = true
version = "/version"
"#;

fn read(webhook: &WebhookDefinition, body: &str) -> Result<Received, Unreadable> {
    webhook.read(&post("https://a.b/x", &headers(&[]), body.as_bytes()))
}

fn events(body: &str) -> Received {
    let definition = definition(BLOCKS);
    let body = format!("{{\"events\":{body}}}");
    read(definition.webhook().unwrap(), &body).unwrap()
}

#[track_caller]
fn only(event: &str) -> Change {
    let received = events(&format!("[{event}]"));
    assert_eq!(received.changes.len(), 1, "{received:?}");
    received.changes[0].clone()
}

#[test]
fn an_event_names_its_record_its_kind_its_time_and_what_it_carries() {
    let change = only(
        r#"{"what":"contact.new","id":7,"at":1795168800,"sent":1,"event":"e-1","version":3,"record":{"a":1.10}}"#,
    );
    assert_eq!(
        change,
        Change {
            object: "contacts".into(),
            remote_id: "7".into(),
            kind: ChangeKind::Created,
            occurred_at_ms: Some(1_795_168_800_000),
            fields: Some(r#"{"a":1.10}"#.into()),
            version: Some("3".into()),
            complete: true,
            delivery_id: "e-1".into(),
        }
    );
}

#[test]
fn what_is_missing_of_an_event_is_unknown_and_not_made_up() {
    let change = only(r#"{"what":"contact.gone","id":"x","sent":1795168801,"record":null}"#);
    assert_eq!(change.kind, ChangeKind::Deleted);
    assert_eq!(change.occurred_at_ms, Some(1_795_168_801_000));
    assert_eq!((change.fields, change.complete), (None, false));
    assert_eq!(change.version, None);
    assert_eq!(change.delivery_id.len(), 32, "the event's own hash");
    assert_eq!(
        only(r#"{"what":"contact.new","id":1,"at":"soon"}"#).occurred_at_ms,
        None
    );
}

#[test]
fn an_exact_value_wins_over_a_pattern_and_the_first_place_that_is_known_over_the_next() {
    assert_eq!(
        only(r#"{"what":"contact.edit","id":1}"#).kind,
        ChangeKind::Restored
    );
    assert_eq!(
        only(r#"{"what":"deal.edit","type":1,"id":1}"#).kind,
        ChangeKind::Changed
    );
    assert_eq!(
        only(r#"{"what":"contact.new","type":"1","id":1}"#).object,
        "deals"
    );
    assert_eq!(
        only(r#"{"what":"contact.new","type":"9","id":1}"#).object,
        "contacts"
    );
}

#[test]
fn an_object_may_be_named_by_the_event_itself() {
    let blocks = BLOCKS.replace("\"1\" = \"deals\"", "\"x-*\" = \"{value}\"");
    let definition = definition(&blocks);
    let body = r#"{"events":[{"what":"contact.new","type":"x-lead","id":1},{"what":"contact.new","type":"x-\n","id":1}]}"#;
    let received = read(definition.webhook().unwrap(), body).unwrap();
    assert_eq!(received.changes[0].object, "x-lead");
    assert_eq!((received.changes.len(), received.unreadable), (1, 1));
}

#[test]
fn events_about_what_is_not_named_are_passed_over() {
    let received = events(
        r#"[{"what":"lead.new","id":1},{"what":"contact.read","id":1},{"id":1},{"what":"contact.new","id":1}]"#,
    );
    assert_eq!((received.changes.len(), received.ignored), (1, 3));
    assert_eq!(received.unreadable, 0);
}

#[test]
fn an_event_that_is_not_understood_harms_no_other() {
    let long = "x".repeat(513);
    let received = events(&format!(
        r#"[7,{{"what":"contact.new"}},{{"what":"contact.new","id":"{long}"}},{{"what":"contact.new","id":"a\nb"}},{{"what":"contact.new","id":1,"record":[]}},{{"what":"contact.new","id":2}}]"#
    ));
    assert_eq!((received.changes.len(), received.unreadable), (1, 5));
    assert_eq!(received.fault, Some("an event is not a JSON object"));
}

#[test]
fn a_merge_is_a_change_of_each_record_that_it_ended_and_of_the_one_that_stays() {
    let received =
        events(r#"[{"what":"contact.merge","winner":1,"losers":[2,"3",2,1],"event":"e"}]"#);
    let told: Vec<_> = received
        .changes
        .iter()
        .map(|change| {
            (
                change.remote_id.as_str(),
                &change.kind,
                change.delivery_id.as_str(),
            )
        })
        .collect();
    let into = ChangeKind::Merged { into: "1".into() };
    let stays = ("1", &ChangeKind::Changed, "e/1");
    assert_eq!(told, [("2", &into, "e/2"), ("3", &into, "e/3"), stays]);

    // A merge that makes a third record ends both.
    let received = events(r#"[{"what":"contact.merge","new":9,"winner":1,"losers":2}]"#);
    let ended: Vec<_> = received
        .changes
        .iter()
        .map(|c| c.remote_id.as_str())
        .collect();
    assert_eq!(ended, ["2", "1", "9"]);

    let received = events(
        r#"[{"what":"contact.merge","winner":1},{"what":"contact.merge","losers":[1]},{"what":"contact.merge","winner":1,"losers":{}}]"#,
    );
    assert_eq!((received.changes.len(), received.unreadable), (0, 3));
}

#[test]
fn one_property_and_its_value_are_a_record_in_part() {
    let blocks = BLOCKS
        .replace(
            "fields = \"/record\"",
            "property = { name = \"/name\", value = \"/value\" }",
        )
        .replace("complete = true", "")
        .replace("[\"/event\"]", "[\"/event\", \"/name\"]");
    let definition = definition(&blocks);
    let webhook = definition.webhook().unwrap();
    let one = |event: &str| {
        let received = read(webhook, &format!("{{\"events\":{event}}}")).unwrap();
        received.changes[0].clone()
    };
    let ada = one(r#"{"what":"contact.edit","id":1,"event":1,"name":"a\"b","value":"Ada"}"#);
    assert_eq!(ada.fields.as_deref(), Some(r#"{"a\"b":"Ada"}"#));
    assert!(!ada.complete);
    let cleared = one(r#"{"what":"contact.edit","id":1,"event":1,"name":"a\"b","value":null}"#);
    assert_eq!(cleared.fields.as_deref(), Some(r#"{"a\"b":null}"#));
    assert_ne!(
        ada.delivery_id, cleared.delivery_id,
        "another value is another change"
    );
    let again =
        one(r#"{"attempt":2,"what":"contact.edit","id":1,"event":1,"name":"a\"b","value":"Ada"}"#);
    assert_eq!(ada, again);
    assert_eq!(one(r#"{"what":"contact.new","id":1}"#).fields, None);
}

#[test]
fn a_delivery_that_is_not_of_the_shape_is_unreadable_as_a_whole() {
    let definition = definition(BLOCKS);
    let webhook = definition.webhook().unwrap();
    for body in ["", "{}", "[]", "{\"events\":7}", "{\"events\":[", "\u{0}"] {
        assert_eq!(read(webhook, body), Err(Unreadable::Shape), "{body:?}");
    }
    assert_eq!(read(webhook, "{\"events\":[]}"), Ok(Received::default()));
    let many = format!("{{\"events\":[{}0]}}", "0,".repeat(1_000));
    assert_eq!(read(webhook, &many), Err(Unreadable::TooMany));
}

#[test]
fn a_body_of_brackets_is_refused_without_a_deep_walk() {
    let definition = definition(BLOCKS);
    let webhook = definition.webhook().unwrap();
    let deep = format!("{{\"events\":{}", "[".repeat(1_000_000));
    assert_eq!(read(webhook, &deep), Err(Unreadable::Shape));
    let nested = format!(
        "{{\"events\":[{}{}]}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(read(webhook, &nested).is_ok_and(|received| received.unreadable == 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_read_without_harm(
        body in "[\\[\\]{}\":,0-9a-z \\\\.]{0,60}|\\PC{0,60}",
        pairs in proptest::collection::vec(
            ("what|id|at|event|record|winner|losers|new|type", "\"contact\\.(new|edit|merge)\"|[1-9][0-9]{0,19}|null|\\[[0-9],\"x\"\\]|\\{\"a\":1\\}"), 0..8),
    ) {
        let definition = definition(BLOCKS);
        let webhook = definition.webhook().unwrap();
        let _whatever = read(webhook, &body);
        let members: Vec<String> = pairs.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        let body = format!("{{\"events\":[{{{}}}]}}", members.join(","));
        let received = read(webhook, &body).unwrap();
        for change in received.changes {
            prop_assert!(!change.remote_id.is_empty() && change.remote_id.len() <= 512);
            prop_assert!(!change.delivery_id.is_empty() && change.delivery_id.len() <= 128);
            prop_assert!(!change.complete || change.fields.is_some());
        }
    }
}
