//! Changes that go in one call, where one of them cannot go or refers to something else.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::{Value, json};
use syncline_engine::mapping::{FieldSettings, Mapping, MappingSettings};
use syncline_engine::provider::{CallKind, Definition, Reply, shipped};
use syncline_engine::state::{Reason, State};

use super::world::{SECOND, World, done, reply};

fn rest() -> Definition {
    Definition::parse(shipped("rest").expect("shipped")).expect("without fault")
}

fn field(name: &str) -> FieldSettings {
    FieldSettings {
        local: name.to_owned(),
        remote: name.to_owned(),
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

/// A world whose contacts have a name of a kind, and the bodies that their account was sent.
fn contacts() -> (World, Rc<RefCell<Vec<Value>>>) {
    let age = FieldSettings {
        convert: vec!["to_int".to_owned()],
        lossy: true,
        ..field("age")
    };
    let mapping = mapping("contact", vec![field("n"), age]);
    let bodies = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&bodies);
    let world = World::mapped(rest(), vec![mapping]).answering(move |_, request| {
        let body = serde_json::from_slice(&request.body).expect("JSON");
        kept.borrow_mut().push(body);
        Ok(done(request))
    });
    (world, bodies)
}

fn upsert(world: &mut World, data: &Value) {
    let event = json!({"operation": "UPSERT", "object": "contact", "record_id": "c-1",
                       "data": data});
    world.submit(0, &event.to_string());
}

/// What the account has after all calls.
fn written(bodies: &[Value]) -> Value {
    let mut whole = json!({});
    for body in bodies {
        for (name, value) in body.as_object().expect("an object") {
            whole[name] = value.clone();
        }
    }
    whole
}

#[test]
fn a_change_that_cannot_be_mapped_fails_alone_wherever_it_waits() {
    for bad in 0..40 {
        let (mut world, bodies) = contacts();
        for n in 0..40 {
            let data = match n == bad {
                true => json!({"n": n, "age": "many"}),
                false => json!({"n": n}),
            };
            upsert(&mut world, &data);
        }
        world.run(SECOND);
        let bodies = bodies.borrow();
        let newest = if bad == 39 { 38 } else { 39 };
        assert_eq!(written(&bodies), json!({"n": newest}), "{bad}: {bodies:?}");
        assert!(bodies.len() <= 6, "{bad}: {} calls", bodies.len());
        let failed = world.dead(0);
        assert_eq!(failed, [(bad + 1, Some(Reason::Mapping))], "{bad}");
    }
}

#[test]
fn a_change_that_cannot_be_mapped_and_is_written_over_fails_nothing() {
    let (mut world, bodies) = contacts();
    upsert(&mut world, &json!({"n": 1, "age": "many"}));
    upsert(&mut world, &json!({"n": 2, "age": 30}));
    world.run(SECOND);
    assert_eq!(*bodies.borrow(), [json!({"n": 2, "age": 30})]);
    assert_eq!(world.told(0, "contact", "c-1").0, State::Synced);
}

#[test]
fn what_was_sent_and_has_no_outcome_fails_as_a_whole_when_it_cannot_be_mapped_any_more() {
    let (world, _) = contacts();
    let mut world = world.answering(|_, _| Ok(reply(503, "{}")));
    for n in 0..4 {
        upsert(&mut world, &json!({"n": n, "age": 30}));
    }
    world.run(SECOND / 2);
    let list = FieldSettings {
        values: vec![("one".to_owned(), "1".to_owned())],
        ..field("age")
    };
    world.remap(vec![mapping("contact", vec![field("n"), list])]);
    world.run(120 * SECOND);
    // The newest stands for all that its call carried.
    assert_eq!(world.dead(0), [(4, Some(Reason::Mapping))]);
}

#[test]
fn what_goes_without_a_change_that_it_went_with_before_has_a_key_of_its_own() {
    let (world, _) = contacts();
    let sent = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&sent);
    let mut world = world.answering(move |_, request| {
        let body = String::from_utf8(request.body.to_vec()).expect("text");
        kept.borrow_mut()
            .push((request.idempotency_key.clone(), body));
        match kept.borrow().len() {
            1 => Ok(Reply {
                retry_after: Some("5".into()),
                ..reply(429, "{}")
            }),
            _ => Ok(done(request)),
        }
    });
    upsert(&mut world, &json!({"age": 30}));
    upsert(&mut world, &json!({"n": 1}));
    while sent.borrow().is_empty() {
        world.run(world.step);
    }
    // Its reply is there, and the pause is not over.
    world.run(world.round_trip + 2 * world.step);
    let list = FieldSettings {
        values: vec![("one".to_owned(), "1".to_owned())],
        ..field("age")
    };
    world.remap(vec![mapping("contact", vec![field("n"), list])]);
    world.run(120 * SECOND);
    let sent = sent.borrow();
    assert_eq!(world.dead(0), [(1, Some(Reason::Mapping))]);
    let bodies: Vec<&str> = sent.iter().map(|(_, body)| body.as_str()).collect();
    assert_eq!(bodies, [r#"{"n":1,"age":30}"#, r#"{"n":1}"#]);
    assert_ne!(sent[0].0, sent[1].0);
}

#[test]
fn changes_that_come_while_the_parent_of_others_is_asked_for_have_their_own_asked_for() {
    let account = FieldSettings {
        reference: Some("account".to_owned()),
        ..field("account")
    };
    let mappings = vec![
        mapping("account", vec![field("name")]),
        mapping("contact", vec![field("n"), account]),
    ];
    let bodies = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&bodies);
    let mut world = World::mapped_over(2, rest(), mappings).answering(move |_, request| {
        let path = &request.path_and_query;
        if path.contains("contact") && request.kind != CallKind::Lookup {
            let body: Value = serde_json::from_slice(&request.body).expect("JSON");
            kept.borrow_mut().push(body);
            return Ok(reply(200, r#"{"id":"r-c"}"#));
        }
        let of = path.rsplit('/').next().unwrap_or_default();
        Ok(reply(200, &json!({"id": format!("r-{of}")}).to_string()))
    });
    let owner = world.owner_of("contact", "c-1");
    let elsewhere: Vec<String> = (0..)
        .map(|n| format!("a-{n}"))
        .filter(|id| world.owner_of("account", id) != owner)
        .take(7)
        .collect();
    for parent in &elsewhere {
        let event = json!({"operation": "UPSERT", "object": "account", "record_id": parent,
                           "data": {"name": parent}});
        world.submit(1 - owner, &event.to_string());
    }
    world.run(SECOND);
    // Somewhere in these turns lie the question and its answer.
    for turns in 0..12 {
        bodies.borrow_mut().clear();
        for (n, parent) in elsewhere.iter().enumerate() {
            let event = json!({"operation": "UPSERT", "object": "contact", "record_id": "c-1",
                               "data": {"n": [turns, n], "account": parent}});
            world.submit(owner, &event.to_string());
            if n == 2 {
                world.run(turns * world.step);
            }
        }
        world.run(2 * SECOND);
        assert_eq!(world.dead(owner), [], "{turns}");
        let parent = format!("r-{}", elsewhere[6]);
        let newest = json!({"n": [turns, 6], "account": parent});
        assert_eq!(written(&bodies.borrow()), newest);
    }
}
