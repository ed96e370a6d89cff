//! Whatever is sent, an account answers, and keeps its books straight.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod caller;

use std::time::Duration;

use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};
use syncline_mock::{Account, AccountConfig, Answer, ProviderKind, Request};

use caller::{Caller, config};

/// Paths of every provider, some of them with ids that exist, and some of none.
const TARGETS: [&str; 28] = [
    "/contact",
    "/contact/r1",
    "/contact/external/c-1",
    "/contact/batch",
    "/services/oauth2/token",
    "/services/data/v62.0/sobjects/Contact",
    "/services/data/v62.0/sobjects/Contact/0035e00000000001AA",
    "/services/data/v62.0/sobjects/Contact/External_Id__c/c-1",
    "/services/data/v62.0/composite",
    "/services/data/v62.0/composite/sobjects",
    "/services/data/v62.0/composite/sobjects?ids=0035e0000000001AAA,x",
    "/services/data/v62.0/composite/sobjects/Contact/External_Id__c",
    "/services/data/v62.0/composite/sobjects/Contact",
    "/services/data/v62.0/query?q=SELECT+Id+FROM+Contact+WHERE+Email+>+'a'",
    "/services/data/v62.0/query/01g5e0000000001-99999999999999999999",
    "/services/data/v62.0/sobjects/Contact/updated?start=x&end=y",
    "/oauth/v1/token",
    "/crm/v3/objects/contacts",
    "/crm/v3/objects/contacts/1001",
    "/crm/v3/objects/contacts/batch/upsert",
    "/crm/v3/objects/contacts/batch/read",
    "/crm/v3/objects/contacts/search",
    "/crm/v3/objects/contacts/merge",
    "/api/v2/prospects/1",
    "/api/v2/prospects?filter[updatedAt]=..&sort=-,&page[after]=x",
    "/api/v2/webhooks",
    "/api/v2/persons?cursor=x",
    "/%ff/é/",
];

/// JSON made of the words that providers look for.
fn document() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "c-1",
        "C-1",
        "Contact",
        "type",
        "external_id",
        "1001",
        "0035e0000000001AAA",
        "",
        "é",
        "upsert",
        "POST",
        "/services/data/v62.0/composite",
        "@{a.b",
        "a@b",
        "2026-11-20T10:00:00Z",
    ]);
    let name = prop::sample::select(vec![
        "records",
        "attributes",
        "type",
        "id",
        "Id",
        "External_Id__c",
        "LastName",
        "Account",
        "fields",
        "operation",
        "external_id",
        "properties",
        "inputs",
        "idProperty",
        "objectWriteTraceId",
        "email",
        "filterGroups",
        "filters",
        "propertyName",
        "operator",
        "value",
        "sorts",
        "after",
        "limit",
        "data",
        "emails",
        "name",
        "custom_fields",
        "compositeRequest",
        "method",
        "url",
        "referenceId",
        "body",
        "allOrNone",
        "poison",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        let name = name.clone();
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..6).prop_map(|members| {
                let members = members.into_iter();
                Value::Object(
                    members
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

fn request() -> impl Strategy<Value = (Method, &'static str, Vec<u8>)> {
    let method = prop::sample::select(vec![
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ]);
    let body = prop_oneof![
        8 => document().prop_map(|document| document.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    (method, prop::sample::select(TARGETS.to_vec()), body)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_request_brings_an_account_down(
        kind in prop::sample::select(ProviderKind::ALL.to_vec()),
        requests in prop::collection::vec(request(), 1..40),
    ) {
        let mut caller = Caller::of(AccountConfig {
            faults: "lock=0.1,item_4xx=0.1,item_lost=0.1,item_missing=0.1".parse().unwrap(),
            webhook: Some("http://127.0.0.1:1/".into()),
            ..config(kind)
        });
        caller.header("content-type", "application/vnd.api+json");
        for (method, target, body) in requests {
            caller.wait(Duration::from_secs(1));
            let request = Request { body: body.into(), ..Request::bare(method, target) };
            let arrival = caller.account.arrive_with(caller.now, &request, caller.headers.clone());
            let answer = caller.account.finish(caller.now, arrival.call);
            let Answer::Reply(reply) = answer else {
                panic!("nothing resets");
            };
            prop_assert!((200..600).contains(&reply.status));
            if reply.content_type.is_some() {
                prop_assert!(serde_json::from_slice::<Value>(&reply.body).is_ok());
            }
        }
        // Each external id stands for one record, but where a second create was counted.
        let mut keys: Vec<_> = caller
            .account
            .records()
            .filter_map(|(object, _, record)| Some((object, record.external_id.clone()?)))
            .collect();
        let all = keys.len();
        keys.sort();
        keys.dedup();
        let copies = (all - keys.len()) as u64;
        prop_assert!(copies <= caller.account.violations().duplicate_creates);
    }
}

#[test]
fn a_seed_gives_the_same_run_twice_for_every_provider() {
    for kind in ProviderKind::ALL {
        let run = |seed| {
            let mut account = Account::new(AccountConfig {
                seed,
                faults: "5xx=0.1,reset_after=0.1,lock=0.2,item_lost=0.2,jitter=9ms"
                    .parse()
                    .unwrap(),
                ..config(kind)
            });
            let headers = Caller::new(kind, "").headers;
            let mut answers = Vec::new();
            for n in 0..200_u64 {
                let rows: Vec<Value> = (0..5)
                    .map(|row| {
                        let key = format!("c-{}", (n + row) % 17);
                        json!({
                            "attributes": {"type": "Contact"}, "External_Id__c": key,
                            "LastName": n.to_string(), "id": key, "idProperty": "external_id",
                            "properties": {"firstname": n.to_string()},
                            "external_id": key, "operation": "upsert", "fields": {},
                        })
                    })
                    .collect();
                let body = json!({"records": rows, "inputs": rows, "name": n.to_string(),
                    "data": {"type": "prospect", "attributes": {"title": n.to_string()}}});
                let target = match kind {
                    ProviderKind::Rest => "/contact/batch",
                    ProviderKind::Salesforce => TARGETS[11],
                    ProviderKind::HubSpot => "/crm/v3/objects/contacts/batch/upsert",
                    ProviderKind::Outreach => "/api/v2/prospects",
                    ProviderKind::Pipedrive => "/api/v2/persons",
                };
                let method = match kind {
                    ProviderKind::Salesforce => Method::PATCH,
                    _ => Method::POST,
                };
                let request = Request::json(method, target, &body);
                let now = Duration::from_millis(n * 100);
                answers.push(account.handle_with(now, &request, headers.clone()));
            }
            answers
        };
        assert_eq!(run(1), run(1), "{kind}");
        assert_ne!(run(1), run(2), "{kind}");
    }
}
