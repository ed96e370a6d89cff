//! Records that are read: together, and each told what it would have been told alone.

use serde_json::{Value, json};
use syncline_engine::mapping::{FieldSettings, Mapping, MappingSettings};
use syncline_engine::provider::{BodyEnd, CallKind, Definition, Reply, Request, shipped};
use syncline_engine::state::{Reason, State};

use super::world::{SECOND, World, reply};

/// Of a record that became part of another one.
const MERGED: &str = "903";
/// Of a record that is not there any more.
const GONE: &str = "904";

fn mapping(object: &str) -> Mapping {
    let field = FieldSettings {
        local: "name".to_owned(),
        remote: "lastname".to_owned(),
        ..FieldSettings::default()
    };
    let settings = MappingSettings {
        remote: "contacts".to_owned(),
        external_id: None,
        match_keys: Vec::new(),
        deleted: None,
        fields: vec![field],
    };
    Mapping::compile(object, &settings).expect("a sound mapping")
}

fn shown(id: &str) -> Value {
    json!({"id": id, "properties": {"lastname": format!("L-{id}"), "external_id": ""}})
}

/// Shows contacts, many or one.
fn portal(request: &Request) -> Reply {
    if request.kind != CallKind::Read {
        return reply(200, r#"{"id":"1"}"#);
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let Some(inputs) = body["inputs"].as_array() else {
        let path = request.path_and_query.split('?').next().unwrap_or_default();
        return match path.rsplit('/').next() {
            Some(MERGED) => reply(200, &shown("900").to_string()),
            Some(GONE) | None => reply(404, "{}"),
            Some(id) => reply(200, &shown(id).to_string()),
        };
    };
    let ids = || inputs.iter().filter_map(|input| input["id"].as_str());
    // Not in the order that was asked for.
    let there = ids().filter(|id| *id != GONE).map(|id| match id {
        MERGED => shown("9000"),
        id => shown(id),
    });
    let results: Vec<Value> = there.rev().collect();
    let missing = json!({"category": "OBJECT_NOT_FOUND", "context": {"ids": [GONE]}});
    let errors: Vec<Value> = ids()
        .filter(|id| *id == GONE)
        .map(|_| missing.clone())
        .collect();
    reply(
        207,
        &json!({"results": results, "errors": errors}).to_string(),
    )
}

fn world() -> World {
    let definition = shipped("hubspot").expect("shipped");
    let definition = Definition::parse(definition).expect("without fault");
    World::mapped(definition, vec![mapping("contact"), mapping("person")])
        .answering(|_, request| Ok(portal(request)))
}

fn read(world: &mut World, object: &str, remote_id: &str) {
    let event = json!({"operation": "READ", "object": object, "record_id": format!("c-{remote_id}"),
        "remote_id": remote_id});
    world.submit(0, &event.to_string());
}

fn reads(world: &World) -> Vec<usize> {
    let calls = world.calls(CallKind::Read);
    calls.iter().map(|call| call.records).collect()
}

#[test]
fn reads_that_wait_share_a_call_and_each_has_its_own_answer() {
    let mut world = world();
    for at in 0..150 {
        read(&mut world, "contact", &(1_000 + at).to_string());
    }
    world.run(SECOND);
    assert_eq!(reads(&world), [100, 50]);
    for at in 0..150 {
        let id = 1_000 + at;
        let (state, _, result) = world.told(0, "contact", &format!("c-{id}"));
        assert_eq!(state, State::Synced);
        assert_eq!(result, format!(r#"{{"name":"L-{id}"}}"#));
    }
}

#[test]
fn a_read_without_company_is_a_plain_read() {
    let mut world = world();
    read(&mut world, "contact", "1000");
    world.run(SECOND);
    let [call] = &world.seen[..] else {
        panic!("{:?}", world.seen)
    };
    assert!(
        call.path.starts_with("/crm/v3/objects/contacts/1000?"),
        "{}",
        call.path
    );
    let (_, _, result) = world.told(0, "contact", "c-1000");
    assert_eq!(result, r#"{"name":"L-1000"}"#);
}

#[test]
fn one_record_that_is_gone_or_goes_by_another_id_costs_its_neighbours_nothing() {
    let mut world = world();
    for id in ["901", "902", MERGED, GONE] {
        read(&mut world, "contact", id);
    }
    world.run(60 * SECOND);
    // The one that nothing was said of is asked for by itself.
    assert_eq!(reads(&world), [4, 1]);
    let told = |world: &mut World, id: &str| {
        let (state, reason, _) = world.told(0, "contact", &format!("c-{id}"));
        (state, reason)
    };
    assert_eq!(told(&mut world, "901"), (State::Synced, None));
    assert_eq!(told(&mut world, "902"), (State::Synced, None));
    assert_eq!(
        told(&mut world, GONE),
        (State::Failed, Some(Reason::NotFound))
    );
    assert_eq!(told(&mut world, MERGED), (State::Synced, None));
}

#[test]
fn objects_that_ask_for_other_fields_are_read_apart() {
    let definition = shipped("hubspot").expect("shipped");
    let definition = Definition::parse(definition).expect("without fault");
    let other = MappingSettings {
        remote: "contacts".to_owned(),
        external_id: None,
        match_keys: Vec::new(),
        deleted: None,
        fields: vec![FieldSettings {
            local: "title".to_owned(),
            remote: "jobtitle".to_owned(),
            ..FieldSettings::default()
        }],
    };
    let other = Mapping::compile("person", &other).expect("a sound mapping");
    let mut world = World::mapped(definition, vec![mapping("contact"), other])
        .answering(|_, request| Ok(portal(request)));
    for id in ["1000", "1001"] {
        read(&mut world, "contact", id);
        read(&mut world, "person", id);
    }
    world.run(SECOND);
    assert_eq!(reads(&world), [2, 2]);
}

#[test]
fn an_answer_that_is_too_large_is_asked_for_by_halves() {
    let mut world = world().answering(|_, request| {
        let answer = portal(request);
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let many = body["inputs"]
            .as_array()
            .is_some_and(|inputs| inputs.len() > 3);
        let body_end = if many {
            BodyEnd::TooLarge
        } else {
            BodyEnd::Complete
        };
        Ok(Reply { body_end, ..answer })
    });
    for at in 0..8 {
        read(&mut world, "contact", &(1_000 + at).to_string());
    }
    world.run(SECOND);
    assert_eq!(reads(&world), [8, 4, 4, 2, 2, 2, 2]);
    for at in 0..8 {
        assert_eq!(
            world.told(0, "contact", &format!("c-{}", 1_000 + at)).0,
            State::Synced
        );
    }
}
