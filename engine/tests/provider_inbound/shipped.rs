//! The deliveries and lists of the providers that ship, in the vendors' own words.

use syncline_engine::provider::{ChangeKind, Cursor, PollState, Received, Step};

use super::{headers, post, reply, shipped_definition};

fn read(id: &str, named: &[(&str, &str)], body: &str) -> Received {
    let definition = shipped_definition(id);
    let headers = headers(named);
    let delivery = post("https://a.b/x", &headers, body.as_bytes());
    definition.webhook().unwrap().read(&delivery).unwrap()
}

#[test]
fn a_portals_events_are_told_by_their_type_or_the_number_of_their_object() {
    let received = read(
        "hubspot",
        &[],
        r#"[
        {"eventId":1,"subscriptionId":12345,"portalId":62515,"occurredAt":1564113600000,"subscriptionType":"contact.creation","attemptNumber":0,"objectId":123,"changeSource":"CRM","changeFlag":"NEW","appId":54321},
        {"eventId":2,"portalId":62515,"occurredAt":1564113600001,"subscriptionType":"object.propertyChange","objectTypeId":"0-2","attemptNumber":3,"objectId":124,"propertyName":"name","propertyValue":"Acme"},
        {"eventId":3,"portalId":62515,"occurredAt":1564113600002,"subscriptionType":"deal.deletion","objectId":125},
        {"eventId":4,"portalId":62515,"occurredAt":1564113600003,"subscriptionType":"contact.merge","objectId":1,"primaryObjectId":1,"mergedObjectIds":[2],"newObjectId":1},
        {"eventId":5,"portalId":62515,"occurredAt":1564113600004,"subscriptionType":"conversation.creation","objectId":9}]"#,
    );
    let told: Vec<_> = received
        .changes
        .iter()
        .map(|change| {
            (
                change.object.as_str(),
                change.remote_id.as_str(),
                change.kind.as_str(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("contacts", "123", "created"),
            ("companies", "124", "changed"),
            ("deals", "125", "deleted"),
            ("contacts", "2", "merged"),
            ("contacts", "1", "changed"),
        ]
    );
    assert_eq!((received.ignored, received.unreadable), (1, 0));
    assert_eq!(received.changes[0].occurred_at_ms, Some(1_564_113_600_000));
    assert_eq!(
        received.changes[1].fields.as_deref(),
        Some(r#"{"name":"Acme"}"#)
    );
    let into = ChangeKind::Merged { into: "1".into() };
    assert_eq!(received.changes[3].kind, into);
}

#[test]
fn another_attempt_of_a_portal_is_the_same_delivery() {
    let event = |attempt: u32, value: &str| {
        let body = format!(
            r#"[{{"eventId":2,"portalId":1,"occurredAt":3,"subscriptionType":"contact.propertyChange","attemptNumber":{attempt},"objectId":4,"propertyName":"a","propertyValue":"{value}"}}]"#
        );
        read("hubspot", &[], &body).changes[0].delivery_id.clone()
    };
    assert_eq!(event(0, "x"), event(7, "x"));
    assert_ne!(event(0, "x"), event(0, "y"));
}

#[test]
fn a_sales_engagement_tools_event_carries_the_attributes_that_changed() {
    let received = read(
        "outreach",
        &[
            ("outreach-webhook-event-id", "event-9"),
            ("outreach-org-id", "1"),
        ],
        r#"{"data":{"type":"prospect","id":7,"attributes":{"title":"CTO","updatedAt":"2026-11-20T10:00:00.000Z"},"beforeUpdate":{"title":null}},"meta":{"deliveredAt":"2026-11-20T10:00:01.000Z","eventName":"prospect.updated"}}"#,
    );
    let change = &received.changes[0];
    assert_eq!(
        (change.object.as_str(), change.remote_id.as_str()),
        ("prospects", "7")
    );
    assert_eq!(change.delivery_id, "event-9");
    assert_eq!(change.occurred_at_ms, Some(1_795_168_800_000));
    assert!(change.fields.as_deref().unwrap().contains("\"CTO\""));
    assert!(!change.complete);
}

/// The first request for a list from an instant on.
fn first(id: &str, feed: &str, object: &str, after_id: Option<&str>) -> (String, String) {
    let definition = shipped_definition(id);
    let poll = definition.poll(feed, object, ["email"]).unwrap();
    let cursor = Cursor {
        from_ms: 1_795_168_920_000,
        after_id: after_id.map(str::to_owned),
    };
    let interval = poll.interval();
    let mut state = PollState::new(poll, interval, cursor);
    let Step::Call(request) = state.next(1_795_169_000_000) else {
        panic!("it is due");
    };
    let path = percent_encoding::percent_decode_str(&request.path_and_query);
    let line = format!(
        "{} {}",
        request.method.as_str(),
        path.decode_utf8().unwrap()
    );
    (line, String::from_utf8(request.body.to_vec()).unwrap())
}

#[test]
fn a_list_is_asked_for_as_the_vendor_documents_it() {
    assert_eq!(
        first("salesforce", "changes", "Contact", None).0,
        "GET /services/data/v62.0/queryAll?q=SELECT Id,SystemModstamp,IsDeleted,MasterRecordId,email \
         FROM Contact WHERE SystemModstamp >= 2026-11-20T10:00:00.000Z ORDER BY SystemModstamp, Id \
         LIMIT 500"
    );
    assert_eq!(
        first("salesforce", "changes", "Opportunity", Some("006A")).0,
        "GET /services/data/v62.0/queryAll?q=SELECT Id,SystemModstamp,IsDeleted,email FROM \
         Opportunity WHERE SystemModstamp = 2026-11-20T10:02:00.000Z AND Id > '006A' ORDER BY Id \
         LIMIT 500"
    );
    assert_eq!(
        first("salesforce", "deletes", "Contact", None).0,
        "GET /services/data/v62.0/sobjects/Contact/deleted/?end=2026-11-20T10:03:20.000Z\
         &start=2026-11-20T10:01:00.000Z"
    );
    let (line, body) = first("hubspot", "changes", "contacts", None);
    assert_eq!(line, "POST /crm/v3/objects/contacts/search");
    assert_eq!(
        body,
        r#"{"filterGroups":[{"filters":[{"propertyName":"lastmodifieddate","operator":"GTE","value":"1795168860000"}]}],"sorts":["lastmodifieddate"],"properties":["lastmodifieddate","email"],"limit":200}"#
    );
    let (_, body) = first("hubspot", "changes", "deals", Some("12"));
    assert!(body.contains(
        r#""filters":[{"propertyName":"hs_lastmodifieddate","operator":"EQ","value":"1795168920000"},{"propertyName":"hs_object_id","operator":"GT","value":"12"}]"#
    ));
    assert_eq!(
        first("hubspot", "deletes", "contacts", None).0,
        "GET /crm/v3/objects/contacts?archived=true&limit=100"
    );
    assert_eq!(
        first("outreach", "changes", "prospects", None).0,
        "GET /api/v2/prospects?count=false&filter[updatedAt]=2026-11-20T10:01:00.000Z..inf\
         &page[size]=500&sort=updatedAt"
    );
}

#[test]
fn a_recorded_list_of_deletes_moves_on_to_what_it_covers() {
    // Of the restforce test suite: get_deleted_success_response.json.
    let body = r#"{"deletedRecords":[{"id":"a00D0000008pQRAIA2","deletedDate":"2007-05-07T14:22:00.000+0000"}],"earliestDateAvailable":"2007-05-03T15:57:00.000+0000","latestDateCovered":"2007-05-08T21:20:00.000+0000"}"#;
    let definition = shipped_definition("salesforce");
    let poll = definition.poll("deletes", "Contact", []).unwrap();
    let from_ms = 1_178_500_000_000;
    let now_ms = 1_178_700_000_000;
    let cursor = Cursor {
        from_ms,
        after_id: None,
    };
    let mut state = PollState::new(poll.clone(), poll.interval(), cursor);
    assert!(matches!(state.next(now_ms), Step::Call(_)));
    let progress = state
        .take(now_ms, "https://a.b", &reply(200, body))
        .unwrap();
    assert_eq!(progress.gap, None);
    let change = &progress.changes[0];
    assert_eq!(
        (change.remote_id.as_str(), &change.kind),
        ("a00D0000008pQRAIA2", &ChangeKind::Deleted)
    );
    assert_eq!(change.occurred_at_ms, Some(1_178_547_720_000));
    assert_eq!(progress.next.cursor().from_ms, 1_178_659_200_000);
}
