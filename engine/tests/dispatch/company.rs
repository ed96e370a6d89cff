//! Records that were in one call, or wait for the same, stay in company.

use std::time::Duration;

use serde_json::{Value, json};
use syncline_engine::mapping::{FieldSettings, Mapping, MappingSettings};
use syncline_engine::provider::{CallKind, Definition, Reply, Request, shipped};

use super::world::{MAX_WAIT, MS, SECOND, World, done, reply};

/// Records a call takes.
const ITEMS: usize = 20;

fn definition(id: &str) -> Definition {
    let definition = shipped(id).expect("shipped");
    let definition = Definition::parse(definition).expect("without fault");
    definition.with_batch_items_max(ITEMS)
}

fn create(world: &mut World, object: &str, record: &str, data: &Value) {
    let event = json!({"operation": "CREATE", "object": object, "record_id": record, "data": data});
    world.submit(0, &event.to_string());
}

fn kinds(world: &World) -> Vec<(CallKind, usize)> {
    let calls = world.seen.iter();
    calls.map(|call| (call.kind, call.records)).collect()
}

#[test]
fn what_failed_together_comes_back_together_after_every_failure() {
    let mut failures = 3;
    let mut world = World::with(1, Vec::new(), definition("rest")).answering(move |_, request| {
        failures -= i32::from(failures > 0);
        Ok(if failures > 0 {
            reply(503, "{}")
        } else {
            done(request)
        })
    });
    for record in 0..ITEMS {
        world.update(0, record, 1);
    }
    world.run(60 * SECOND);
    assert_eq!(kinds(&world), [(CallKind::Upsert, ITEMS); 3]);
    let apart = |at: usize| world.seen[at + 1].at - world.seen[at].at;
    assert!(apart(0) > 20 * MS, "there was a back-off");
}

/// Answers as the portal does: creates break off, nothing was made by them, all else is done.
fn portal(request: &Request) -> Reply {
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    let inputs = body["inputs"].as_array().cloned().unwrap_or_default();
    match request.kind {
        CallKind::Create => reply(502, ""),
        CallKind::Lookup => {
            let ids: Vec<&Value> = inputs.iter().map(|input| &input["id"]).collect();
            let missing = json!({"category": "OBJECT_NOT_FOUND", "context": {"ids": ids}});
            reply(
                207,
                &json!({"results": [], "errors": [missing]}).to_string(),
            )
        }
        _ => {
            let results: Vec<Value> = inputs
                .iter()
                .enumerate()
                .map(|(at, input)| json!({"id": at.to_string(), "objectWriteTraceId": input["objectWriteTraceId"]}))
                .collect();
            reply(200, &json!({ "results": results }).to_string())
        }
    }
}

/// What becomes of creates that break off, where what a create in doubt was is found out like this.
fn broken_off(on_unknown: &str) -> World {
    let text = shipped("hubspot").expect("shipped");
    let own = format!("on_unknown = \"{on_unknown}\"");
    let text = text.replace("on_unknown = \"upsert\"", &own);
    let definition = Definition::parse(&text).expect("without fault");
    let definition = definition.with_batch_items_max(ITEMS);
    let mut world =
        World::with(1, Vec::new(), definition).answering(|_, request| Ok(portal(request)));
    for record in 0..ITEMS {
        create(
            &mut world,
            "contact",
            &format!("c-{record}"),
            &json!({"lastname": "L"}),
        );
    }
    world.run(20 * SECOND);
    world
}

#[test]
fn creates_in_doubt_are_looked_up_and_made_after_all_together() {
    let expected = [
        CallKind::Create,
        CallKind::Lookup,
        CallKind::Lookup,
        CallKind::Upsert,
    ];
    let world = broken_off("lookup");
    assert_eq!(kinds(&world), expected.map(|kind| (kind, ITEMS)));
}

#[test]
fn where_a_key_is_unique_creates_in_doubt_are_settled_by_one_upsert() {
    let expected = [CallKind::Create, CallKind::Upsert];
    let world = broken_off("upsert");
    assert_eq!(kinds(&world), expected.map(|kind| (kind, ITEMS)));
}

fn field(local: &str, reference: Option<&str>) -> FieldSettings {
    FieldSettings {
        local: local.to_owned(),
        remote: local.to_owned(),
        reference: reference.map(str::to_owned),
        ..FieldSettings::default()
    }
}

fn mapping(object: &str, fields: Vec<FieldSettings>) -> Mapping {
    let settings = MappingSettings {
        remote: object.to_owned(),
        external_id: None,
        fields,
        match_keys: Vec::new(),
        deleted: None,
    };
    Mapping::compile(object, &settings).expect("a sound mapping")
}

/// Accounts, their contacts, and deals that refer to both.
fn family() -> World {
    let account = || field("account", Some("account"));
    World::mapped(
        definition("rest"),
        vec![
            mapping("account", vec![field("name", None)]),
            mapping("contact", vec![account()]),
            mapping("deal", vec![field("contact", Some("contact")), account()]),
        ],
    )
}

#[test]
fn children_whose_parents_are_made_by_several_calls_share_one() {
    let mut world = family();
    let half = ITEMS / 2;
    for record in 0..ITEMS {
        create(
            &mut world,
            "account",
            &format!("a-{record}"),
            &json!({"name": "A"}),
        );
        // Two calls of parents end one after the other.
        if record == half - 1 {
            world.run(10 * MS);
        }
    }
    for record in 0..ITEMS {
        let (account, contact) = (format!("a-{record}"), format!("c-{record}"));
        create(
            &mut world,
            "contact",
            &contact,
            &json!({ "account": account }),
        );
        let deal = json!({"contact": contact, "account": account});
        create(&mut world, "deal", &format!("d-{record}"), &deal);
    }
    world.run(5 * SECOND);
    let records: Vec<usize> = world.seen.iter().map(|call| call.records).collect();
    assert_eq!(records, [half, half, ITEMS, ITEMS], "{:?}", world.seen);
}

#[test]
fn a_child_waits_for_siblings_no_longer_than_for_other_company() {
    let mut world = family();
    create(&mut world, "account", "a-1", &json!({"name": "A"}));
    create(&mut world, "contact", "c-1", &json!({"account": "a-1"}));
    world.run(10 * MS);
    // A call that stays open: something else could come of it.
    world.round_trip = 30 * SECOND;
    create(&mut world, "account", "a-2", &json!({"name": "B"}));
    world.run(5 * SECOND);
    let [_, _, child] = &world.seen[..] else {
        panic!("{:?}", world.seen)
    };
    let waited = Duration::from_nanos(child.at - world.seen[0].at);
    assert!(waited > MAX_WAIT, "{waited:?}");
    assert!(waited < MAX_WAIT + Duration::from_millis(50), "{waited:?}");
}

#[test]
fn a_part_batch_of_children_waits_for_those_whose_parents_are_on_their_way() {
    let mut world = family();
    create(&mut world, "account", "a-1", &json!({"name": "A"}));
    world.run(SECOND);
    create(&mut world, "account", "a-2", &json!({"name": "B"}));
    for record in 0..ITEMS {
        let parent = if record % 2 == 0 { "a-1" } else { "a-2" };
        let contact = format!("c-{record}");
        create(&mut world, "contact", &contact, &json!({"account": parent}));
    }
    world.run(5 * SECOND);
    let records: Vec<usize> = world.seen.iter().map(|call| call.records).collect();
    assert_eq!(records, [1, 1, ITEMS], "{:?}", world.seen);
}

#[test]
fn a_child_whose_parent_nobody_sends_holds_no_other_up() {
    let mut world = family();
    create(&mut world, "account", "a-1", &json!({"name": "A"}));
    create(&mut world, "contact", "c-0", &json!({"account": "nobody"}));
    world.run(SECOND);
    let from = world.now;
    create(&mut world, "contact", "c-1", &json!({"account": "a-1"}));
    world.run(SECOND);
    let [_, child] = &world.seen[..] else {
        panic!("{:?}", world.seen)
    };
    let took = Duration::from_nanos(child.at - from);
    assert!(took < Duration::from_millis(5), "{took:?}");
}
