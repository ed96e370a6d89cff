//! Promises of what goes first, each kept by the engine and broken by surroundings with a planted
//! bug: the same check tells the two apart.

use std::time::Duration;

use serde_json::{Value, json};
use syncline_engine::mapping::{FieldSettings, Mapping, MappingSettings};
use syncline_engine::provider::{CallKind, Definition, shipped};
use syncline_engine::quota::{Limit, Policy, Reserve};
use syncline_engine::shard::ReplaySpan;

use super::planted::Bug;
use super::world::{MS, SECOND, Seen, World};

/// The record of low priority.
const LOW: &str = "low";

/// What does not hold.
pub(super) type Broken = String;

/// A check passes without a bug and fails with each of these.
pub(super) fn tells_apart(check: impl Fn(Option<Bug>) -> Result<(), Broken>, bugs: &[Bug]) {
    assert_eq!(check(None), Ok(()));
    for &bug in bugs {
        let caught = check(Some(bug));
        println!("{bug:?}: {caught:?}");
        assert!(caught.is_err(), "{bug:?} is not seen");
    }
}

pub(super) fn holds(what: bool, promise: impl FnOnce() -> Broken) -> Result<(), Broken> {
    if what { Ok(()) } else { Err(promise()) }
}

fn hourly(reserve: Reserve) -> Limit {
    let policy = Policy::Sliding {
        limit: 10,
        window: Duration::from_secs(3600),
    };
    let mut limit = Limit::new("hourly", policy);
    limit.reserve = reserve;
    limit
}

fn ten_a_second() -> Vec<Limit> {
    let policy = Policy::Sliding {
        limit: 10,
        window: Duration::from_secs(1),
    };
    vec![Limit::new("calls", policy)]
}

#[test]
fn a_share_is_kept_for_urgent_operations_and_given_to_no_others() {
    let check = |bug: Option<Bug>| {
        let reserve = Reserve {
            urgent_permille: 400,
            ..Reserve::default()
        };
        let mut world = World::new(2, vec![hourly(reserve)], 1).with_bug(bug);
        for record in 0..40 {
            world.update(record % 2, record, 1);
        }
        world.run(5 * SECOND);
        let all = world.seen.len();
        holds(all == 6, || format!("{all} calls that are not urgent"))?;
        for record in 100..103 {
            world.update_at(record % 2, record, 3);
            world.run(100 * MS);
        }
        let urgent = world.seen.len() - all;
        holds(urgent == 3, || format!("{urgent} urgent calls of 3"))
    };
    tells_apart(check, &[Bug::UrgencyLost, Bug::AllUrgent]);
}

#[test]
fn a_share_is_kept_for_other_applications_whoever_waits() {
    let check = |bug: Option<Bug>| {
        let kept = match bug {
            Some(Bug::OthersForgotten) => 0,
            _ => 300,
        };
        let reserve = Reserve {
            others_permille: kept,
            ..Reserve::default()
        };
        let mut world = World::new(2, vec![hourly(reserve)], 1).with_bug(bug);
        for record in 0..40 {
            world.update_at(record % 2, record, 1 + (record % 10) as u8);
        }
        world.run(5 * SECOND);
        let calls = world.seen.len();
        holds(calls == 7, || format!("{calls} calls, 7 are ours"))
    };
    tells_apart(check, &[Bug::OthersForgotten]);
}

#[test]
fn the_lowest_priority_is_not_kept_waiting_by_a_stream_of_the_best() {
    let check = |bug: Option<Bug>| {
        let mut world = World::new(1, ten_a_second(), 1).with_bug(bug);
        world.update_at(0, 0, 1);
        world.run(10 * MS);
        let event = json!({"operation": "UPSERT", "object": "contact", "record_id": LOW,
                           "priority": 10, "data": {"n": 1}});
        // What is there before it is older; nothing is.
        for record in 1..30 {
            world.update_at(0, record, 1);
        }
        world.submit(0, &event.to_string());
        for record in 30..600 {
            world.update_at(0, record, 1);
            world.run(50 * MS);
        }
        let place = world.seen.iter().position(|call| call.of == LOW);
        let calls = world.seen.len();
        // One call in eight is the oldest one's, and thirty are older.
        holds(place.is_some_and(|place| place <= 8 * 31), || {
            format!("of {calls} calls the low one is at {place:?}")
        })
    };
    tells_apart(check, &[Bug::BestFirstBelow]);
}

#[test]
fn creates_go_before_updates_before_deletes_but_for_one_call_in_eight() {
    let check = |bug: Option<Bug>| {
        let mut world = World::new(1, ten_a_second(), 1).with_bug(bug);
        let tell = |world: &mut World, operation: &str, record: String| {
            let data = match operation {
                "DELETE" => Value::Null,
                _ => json!({"n": 1}),
            };
            let mut event =
                json!({"operation": operation, "object": "contact", "record_id": record});
            if !data.is_null() {
                event["data"] = data;
            }
            world.submit(0, &event.to_string());
        };
        for record in 0..20 {
            tell(&mut world, "CREATE", format!("u-{record}"));
            tell(&mut world, "CREATE", format!("d-{record}"));
        }
        world.run(10 * SECOND);
        let before = world.seen.len();
        for record in 0..20 {
            tell(&mut world, "DELETE", format!("d-{record}"));
            tell(&mut world, "UPDATE", format!("u-{record}"));
            tell(&mut world, "CREATE", format!("c-{record}"));
        }
        world.run(10 * SECOND);
        // Creates, updates, deletes, by what was told.
        let class = |call: &Seen| match call.kind {
            CallKind::Create => 0,
            CallKind::Upsert if call.of.starts_with("c-") => 0,
            CallKind::Delete => 2,
            _ => 1,
        };
        let classes: Vec<u8> = world.seen[before..].iter().map(class).collect();
        holds(classes.len() == 60, || {
            format!("{} calls of 60", classes.len())
        })?;
        for first in [0, 1] {
            let last = classes.iter().rposition(|class| *class == first);
            let span = &classes[..=last.expect("there are some")];
            let early = span.iter().filter(|class| **class > first).count();
            holds(early <= span.len() / 8 + 1, || {
                format!(
                    "{early} of {} calls came before one of class {first}",
                    span.len()
                )
            })?;
        }
        Ok(())
    };
    tells_apart(check, &[Bug::ClassForgotten]);
}

#[test]
fn a_child_leaves_after_its_parent_and_with_its_id() {
    let check = |bug: Option<Bug>| {
        let reference = match bug {
            Some(Bug::ReferenceForgotten) => None,
            _ => Some("account".to_owned()),
        };
        let field = |local: &str, reference: Option<String>| FieldSettings {
            local: local.to_owned(),
            remote: local.to_owned(),
            reference,
            ..FieldSettings::default()
        };
        let mapping = |object: &str, field: FieldSettings| {
            let settings = MappingSettings {
                remote: object.to_owned(),
                external_id: None,
                fields: vec![field],
                match_keys: Vec::new(),
                deleted: None,
            };
            Mapping::compile(object, &settings).expect("a sound mapping")
        };
        let definition = Definition::parse(shipped("rest").expect("shipped"));
        let mut world = World::mapped(
            definition.expect("without fault"),
            vec![
                mapping("account", field("name", None)),
                mapping("contact", field("account", reference)),
            ],
        )
        .with_bug(bug);
        for record in 0..5 {
            let child = json!({"operation": "CREATE", "object": "contact", "priority": 1,
                "record_id": format!("c-{record}"), "data": {"account": format!("a-{record}")}});
            world.submit(0, &child.to_string());
        }
        world.run(SECOND);
        for record in 0..5 {
            let parent = json!({"operation": "CREATE", "object": "account",
                "record_id": format!("a-{record}"), "data": {"name": "A"}});
            world.submit(0, &parent.to_string());
        }
        world.run(5 * SECOND);
        let place = |object: &str| {
            let mut calls = world.seen.iter();
            calls.position(|call| call.path.contains(object))
        };
        let (parents, children) = (place("account"), place("contact"));
        holds(world.seen.len() == 10 && parents < children, || {
            format!("the first parent is at {parents:?}, the first child at {children:?}")
        })
    };
    tells_apart(check, &[Bug::ReferenceForgotten]);
}

#[test]
fn a_replay_of_a_span_sends_nothing_that_was_written_over_since() {
    let check = |bug: Option<Bug>| {
        let sent = std::rc::Rc::new(std::cell::RefCell::new(Vec::<Value>::new()));
        let seen = std::rc::Rc::clone(&sent);
        let mut world = World::new(1, Vec::new(), 1)
            .answering(move |_, request| {
                let body = serde_json::from_slice(&request.body).unwrap_or_default();
                seen.borrow_mut().push(body);
                Ok(super::world::done(request))
            })
            .with_bug(bug);
        let tell = |world: &mut World, data: Value| {
            let event = json!({"operation": "UPDATE", "object": "contact", "record_id": "c-1",
                               "data": data});
            world.submit(0, &event.to_string());
            world.run(SECOND);
        };
        let from = world.now().wall.0;
        tell(&mut world, json!({"name": "old", "city": "Turin"}));
        let to = world.now().wall.0;
        tell(&mut world, json!({"name": "new"}));
        sent.borrow_mut().clear();
        let span = ReplaySpan {
            account: "crm".into(),
            object: None,
            from_ms: from,
            to_ms: to,
        };
        let count = world.replay(0, &span);
        world.run(SECOND);
        let sent = sent.borrow();
        holds(count == 1 && sent.len() == 1, || format!("{sent:?}"))?;
        holds(sent[0].get("name") != Some(&json!("old")), || {
            format!("{} came back", sent[0])
        })
    };
    tells_apart(check, &[Bug::ReplayAsItWas]);
}
