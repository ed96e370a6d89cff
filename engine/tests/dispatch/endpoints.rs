//! An endpoint of an account that fails is held by itself: what goes elsewhere goes on.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use syncline_engine::provider::{CallKind, Definition, NotSent, SendFailure, shipped};
use syncline_engine::quota::{Gate, HoldReason, Limit, Policy};
use syncline_engine::shard::Wait;

use super::world::{MS, SECOND, World, done, reply};

/// Calls that the account allows a second.
const LIMIT: u32 = 200;

fn limits() -> Vec<Limit> {
    let policy = Policy::Sliding {
        limit: LIMIT,
        window: Duration::from_secs(1),
    };
    vec![Limit::new("calls", policy)]
}

fn event(object: &str, record: &str) -> String {
    format!(
        r#"{{"operation":"UPSERT","object":"{object}","record_id":"{record}","data":{{"n":1}}}}"#
    )
}

/// An account that answers 503 to what goes to leads for a time, and 200 to all else.
fn without_leads(world: World, span: Range<u64>) -> World {
    world.answering(move |now, request| {
        let down = request.path_and_query.starts_with("/lead") && span.contains(&now);
        Ok(if down {
            reply(503, "{}")
        } else {
            done(request)
        })
    })
}

/// A contact and a lead every so often for a time; when each contact was told of.
fn load(world: &mut World, every: u64, span: u64) -> HashMap<String, u64> {
    let mut told = HashMap::new();
    let end = world.now + span;
    for n in 0.. {
        if world.now >= end {
            break;
        }
        let contact = format!("c-{n}");
        world.submit(n % 2, &event("lead", &format!("l-{n}")));
        world.submit(n % 2, &event("contact", &contact));
        told.insert(contact, world.now);
        world.run(every);
    }
    told
}

fn of<'w>(world: &'w World, prefix: &str) -> Vec<&'w super::world::Seen> {
    let calls = world.seen.iter();
    calls.filter(|call| call.of.starts_with(prefix)).collect()
}

#[test]
fn an_endpoint_that_fails_is_held_and_the_others_do_not_feel_it() {
    const OUTAGE: Range<u64> = 11 * SECOND..71 * SECOND;
    let waits = |world: &World, told: &HashMap<String, u64>| {
        let calls = of(world, "c-");
        assert_eq!(calls.len(), told.len(), "every contact went once");
        let waits = calls
            .iter()
            .map(|call| (told[&call.of], call.at - told[&call.of]));
        waits.collect::<Vec<_>>()
    };
    let run = |outage: Range<u64>| {
        let mut world = without_leads(World::new(2, limits(), 1), outage);
        let told = load(&mut world, SECOND / 50, 120 * SECOND);
        world.run(120 * SECOND);
        (waits(&world, &told), world)
    };
    let p99_within = |waits: &[(u64, u64)]| {
        let within = waits.iter().filter(|(told, _)| OUTAGE.contains(told));
        let mut took: Vec<u64> = within.map(|(_, took)| *took).collect();
        took.sort_unstable();
        took[took.len() * 99 / 100]
    };
    let ((calm, _), (rough, world)) = (run(0..0), run(OUTAGE));
    let longest = rough.iter().map(|(_, took)| *took).max().expect("some");
    println!(
        "leads down for 60 s: p99 of contacts meanwhile {} us, without the outage {} us; the \
         longest wait, while the leads catch up, {} us",
        p99_within(&rough) / 1000,
        p99_within(&calm) / 1000,
        longest / 1000
    );
    assert!(p99_within(&rough) * 10 <= p99_within(&calm) * 11);
    // Four fifths of a window are free of contacts: each of them comes within one, in its turn.
    assert!(longest <= SECOND + 100 * MS, "{longest} ns");
    let leads = of(&world, "l-");
    let failed = leads.iter().filter(|call| call.status == 503).count();
    // Five in a row, what was under way with them, and a probe each half a minute.
    assert!((5..=12).contains(&failed), "{failed} leads failed");
    assert_eq!(leads.len() - failed, 6_000, "each lead arrived in the end");
}

#[test]
fn one_call_at_a_time_asks_whether_the_endpoint_is_back() {
    let mut world = without_leads(World::new(2, limits(), 1), 0..50 * SECOND);
    load(&mut world, SECOND / 20, 2 * SECOND);
    let before = of(&world, "l-").len();
    world.run(57 * SECOND);
    let probes: Vec<u64> = of(&world, "l-")[before..].iter().map(|c| c.at).collect();
    assert_eq!(probes.len(), 1, "{probes:?}");
    world.run(10 * SECOND);
    let arrived = of(&world, "l-").iter().filter(|c| c.status < 300).count();
    assert_eq!(arrived, 40, "the second one found it well");
    assert_eq!(world.view(0).endpoints, [], "and nothing is held any more");
}

#[test]
fn what_waits_for_an_endpoint_says_so() {
    let mut world = without_leads(World::new(1, limits(), 1), 0..u64::MAX);
    for n in 0..20 {
        world.submit(0, &event("lead", &format!("l-{n}")));
        world.run(50 * MS);
    }
    world.submit(0, &event("contact", "c-1"));
    world.run(100 * MS);
    let explained = world.explain(0, "lead", "l-19");
    assert_eq!(explained.wait, Some(Wait::Endpoint("lead".into())));
    assert!(explained.until_ms.is_some() && explained.ahead > 0);
    assert_eq!(world.explain(0, "contact", "c-1").wait, None);
    let view = world.view(0);
    assert_eq!(view.gate, Gate::Open, "the account itself is well");
    assert_eq!(view.endpoints.len(), 1);
    assert_eq!(&*view.endpoints[0].endpoint, "lead");
    assert!(view.endpoints[0].breaker.until.is_some());
}

#[test]
fn a_kind_of_call_fails_apart_where_the_definition_says_so() {
    let text = shipped("rest").expect("shipped");
    let text = text.replace(
        "[operations.lookup]\n",
        "[operations.lookup]\nendpoint = \"search\"\n",
    );
    let definition = Definition::parse(&text).expect("without fault");
    let mut world = World::with(1, limits(), definition).answering(|_, request| {
        Ok(if request.kind == CallKind::Lookup {
            reply(500, "{}")
        } else {
            done(request)
        })
    });
    for record in 0..40 {
        world.look_up(0, record);
        world.update(0, record, 1);
        world.run(50 * MS);
    }
    world.run(SECOND);
    assert_eq!(world.calls(CallKind::Upsert).len(), 40);
    let look_ups = world.calls(CallKind::Lookup).len();
    assert!((5..=8).contains(&look_ups), "{look_ups} look-ups");
    let view = world.view(0);
    assert_eq!(&*view.endpoints[0].endpoint, "contact search");
}

#[test]
fn connections_that_fail_hold_the_account_as_a_whole() {
    let down = Rc::new(Cell::new(true));
    let seen = Rc::clone(&down);
    let mut world = World::new(1, limits(), 1).answering(move |_, request| {
        let refused = SendFailure::BeforeSent {
            cause: NotSent::Connect,
            detail: "refused".to_owned(),
        };
        if seen.get() {
            Err(refused)
        } else {
            Ok(done(request))
        }
    });
    load_one(&mut world);
    let held = |gate| {
        matches!(
            gate,
            Gate::Held {
                reason: HoldReason::Unreachable,
                ..
            }
        )
    };
    assert!(held(world.view(0).gate), "{:?}", world.view(0).gate);
    assert_eq!(world.view(0).endpoints, []);
    down.set(false);
    world.run(60 * SECOND);
    assert_eq!(world.view(0).gate, Gate::Open);
}

/// Contacts and leads by turns.
fn load_one(world: &mut World) {
    for n in 0..10 {
        let object = if n % 2 == 0 { "contact" } else { "lead" };
        world.submit(0, &event(object, &format!("r-{n}")));
        world.run(50 * MS);
    }
}

#[test]
fn what_is_set_aside_goes_when_the_engine_restarts() {
    let mut world = without_leads(World::new(2, limits(), 1), 0..5 * SECOND);
    load(&mut world, SECOND / 20, 3 * SECOND);
    let arrived = |world: &World| of(world, "l-").iter().filter(|c| c.status < 300).count();
    assert_eq!(arrived(&world), 0);
    world.run(3 * SECOND);
    assert_eq!(
        arrived(&world),
        0,
        "it is held beyond the end of the outage"
    );
    world.restart(limits(), true);
    world.run(70 * SECOND);
    assert_eq!(arrived(&world), 60);
}

#[test]
fn an_account_that_is_held_as_well_is_probed_by_what_waits_for_the_endpoint() {
    let mut calls = 0;
    let mut world = World::new(1, limits(), 1).answering(move |_, request| {
        calls += 1;
        Ok(match calls {
            1..=5 => reply(503, "{}"),
            // Under way when the endpoint was held.
            6 => reply(401, "{}"),
            _ => done(request),
        })
    });
    for n in 0..6 {
        world.submit(0, &event("lead", &format!("l-{n}")));
    }
    world.run(5 * SECOND);
    assert_eq!(world.view(0).endpoints.len(), 1);
    assert!(matches!(world.view(0).gate, Gate::Held { .. }));
    world.run(120 * SECOND);
    let leads = of(&world, "l-");
    assert_eq!(leads.iter().filter(|call| call.status < 300).count(), 6);
}
