//! What waits for a person waits a minute at a time: objects that the account may not write, and
//! accounts whose credentials are refused.

use serde_json::{Value, json};
use syncline_engine::provider::{
    CallKind, Definition, NotSent, Reply, Request, SendFailure, shipped,
};

use super::world::{MS, SECOND, World, done, reply};

const MINUTE: u64 = 60 * SECOND;

/// When these calls left, in whole seconds since the first.
fn seconds(world: &World, calls: impl Fn(&str) -> bool) -> Vec<u64> {
    let first = world.seen[0].at;
    let calls = world.seen.iter().filter(|call| calls(&call.path));
    calls
        .map(|call| (call.at - first + SECOND / 2) / SECOND)
        .collect()
}

/// Every input is made, under a number of its own.
fn made(request: &Request) -> Reply {
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    let inputs = body["inputs"].as_array().cloned().unwrap_or_default();
    let row = |input: &Value| {
        let key = &input["properties"]["external_id"];
        json!({"id": format!("r-{}", key.as_str().unwrap_or_default()),
               "objectWriteTraceId": input["objectWriteTraceId"]})
    };
    let results: Vec<Value> = inputs.iter().map(row).collect();
    reply(201, &json!({ "results": results }).to_string())
}

fn create(world: &mut World, object: &str, record: usize) {
    let event = json!({"operation": "CREATE", "object": object,
                       "record_id": format!("{object}-{record}"), "data": {"name": "A"}});
    world.submit(0, &event.to_string());
}

#[test]
fn an_object_that_is_refused_is_asked_for_by_one_record_a_minute_and_the_others_go_on() {
    let definition = Definition::parse(shipped("hubspot").expect("shipped")).expect("sound");
    let permitted = SECOND + 3 * MINUTE - 30 * SECOND;
    let mut world = World::with(1, Vec::new(), definition).answering(move |now, request| {
        let of_contacts = request.path_and_query.contains("/contacts/");
        if of_contacts && now < permitted {
            return Ok(reply(
                403,
                r#"{"category":"MISSING_SCOPES","message":"scopes"}"#,
            ));
        }
        Ok(made(request))
    });
    for record in 0..30 {
        create(&mut world, "contact", record);
    }
    world.run(MINUTE / 2);
    for record in 0..30 {
        create(&mut world, "company", record);
    }
    world.run(5 * MINUTE);
    assert_eq!(seconds(&world, |path| path.contains("/companies/")), [30]);
    let contacts = |path: &str| path.contains("/contacts/");
    // The one that asks is served in the third minute, and lets the others go at once.
    assert_eq!(seconds(&world, contacts), [0, 60, 120, 180, 180]);
    let records: Vec<usize> = world
        .seen
        .iter()
        .filter(|call| contacts(&call.path))
        .map(|call| call.records)
        .collect();
    assert_eq!(records, [30, 1, 1, 1, 29]);
}

#[test]
fn refused_credentials_cost_a_probe_a_minute_and_no_attempt_until_they_are_right() {
    let right = SECOND + 20 * MINUTE;
    let mut world = World::new(1, Vec::new(), 1).answering(move |now, request| {
        if now < right {
            return Err(SendFailure::BeforeSent {
                cause: NotSent::Unauthorized,
                detail: "invalid_grant".to_owned(),
            });
        }
        Ok(done(request))
    });
    world.step = 10 * MS;
    for record in 0..20 {
        world.update(0, record, 1);
    }
    world.run(25 * MINUTE);
    // As many as were out when the first came back, then one a minute: more than the attempts that
    // an operation has.
    let before: Vec<u64> = seconds(&world, |_| true)
        .into_iter()
        .filter(|at| (1..20 * 60).contains(at))
        .collect();
    assert!(before.len() >= 19, "{before:?}");
    assert!(
        before.windows(2).all(|pair| pair[1] - pair[0] >= 59),
        "{before:?}"
    );
    let served = world.seen.iter().filter(|call| call.status == 200);
    assert_eq!(served.clone().count(), 20, "every one of them");
    assert!(served.clone().all(|call| call.kind == CallKind::Upsert));
    let last = served.map(|call| call.at).max().expect("some were");
    assert!(
        last <= right + MINUTE + SECOND,
        "they did not wait for more than a probe"
    );
}

#[test]
fn what_is_ready_does_not_follow_a_call_that_was_asked_to_pause() {
    let asked_until = SECOND + 5 * SECOND;
    let mut world = World::new(1, Vec::new(), 1).answering(move |now, request| {
        if now < asked_until {
            return Ok(Reply {
                retry_after: Some("5".into()),
                ..reply(429, "{}")
            });
        }
        Ok(done(request))
    });
    // More than may be in flight at once: the rest is ready when the first come back.
    for record in 0..100 {
        world.update(0, record, 1);
    }
    world.run(60 * SECOND);
    let refused = world.seen.iter().filter(|call| call.status == 429);
    let first = world.seen[0].at;
    let late = refused.filter(|call| call.at >= first + world.round_trip);
    assert_eq!(
        late.count(),
        0,
        "all were under way when the first was refused"
    );
    let served = world.seen.iter().filter(|call| call.status == 200);
    assert_eq!(served.count(), 100);
}
