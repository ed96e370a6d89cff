//! While calls wait, objects and tenants share them by weight, and nobody's flood keeps another out.

use std::collections::BTreeMap;
use std::time::Duration;

use syncline_engine::quota::{Limit, Policy};
use syncline_engine::shard::Weights;

use super::world::{MS, SECOND, World};

fn limits(calls: u32) -> Vec<Limit> {
    let window = Duration::from_secs(1);
    let policy = Policy::Sliding {
        limit: calls,
        window,
    };
    vec![Limit::new("calls", policy)]
}

fn submit(world: &mut World, object: &str, tenant: &str, record: &str) {
    let tenant = match tenant {
        "" => String::new(),
        tenant => format!(r#""tenant":"{tenant}","#),
    };
    let event = format!(
        r#"{{"operation":"UPSERT","object":"{object}","record_id":"{record}",{tenant}"data":{{"n":1}}}}"#
    );
    let shard = world.shard_of(record);
    world.submit(shard, &event);
}

/// Calls by the first letter of their records.
fn calls_by_letter(world: &World) -> BTreeMap<char, usize> {
    let mut calls = BTreeMap::new();
    for call in &world.seen {
        let letter = call.of.chars().next().expect("a record id");
        *calls.entry(letter).or_default() += call.records;
    }
    calls
}

#[test]
fn tenants_share_an_accounts_calls_by_their_weights() {
    let weights = Weights {
        tenants: [("a".to_owned(), 3)].into(),
        ..Weights::default()
    };
    let mut world = World::new(1, limits(100), 1).sharing(weights);
    for n in 0..1_000 {
        for tenant in ["a", "b"] {
            submit(&mut world, "contact", tenant, &format!("{tenant}-{n}"));
        }
    }
    world.run(5 * SECOND);
    let calls = calls_by_letter(&world);
    let (a, b) = (calls[&'a'], calls[&'b']);
    assert!(a + b >= 470, "{a} and {b}");
    // Three to one, but for the round before the first of them was looked at, and the last one.
    assert!(a.abs_diff(3 * b) <= 6, "{a} to {b}");
}

#[test]
fn objects_share_alike_unless_something_else_is_said_and_the_shards_agree() {
    let mut world = World::new(4, limits(100), 1);
    for n in 0..3_000 {
        submit(&mut world, "deal", "", &format!("d-{n}"));
    }
    for n in 0..1_000 {
        submit(&mut world, "contact", "", &format!("c-{n}"));
    }
    world.run(5 * SECOND);
    let calls = calls_by_letter(&world);
    let (deals, contacts) = (calls[&'d'], calls[&'c']);
    assert!(deals + contacts >= 470);
    // A round's worth on each of the shards, whose demand the coordinator meets in halves of calls.
    assert!(deals.abs_diff(contacts) <= 8, "{deals} to {contacts}");
}

#[test]
fn one_tenants_flood_does_not_keep_anothers_single_event_waiting() {
    let mut world = World::new(1, limits(10), 1);
    for n in 0..2_000 {
        submit(&mut world, "contact", "flood", &format!("f-{n}"));
    }
    world.run(10 * SECOND);
    let told = world.now;
    submit(&mut world, "contact", "small", "s-1");
    world.run(3 * SECOND);
    let call = world.seen.iter().find(|call| call.of == "s-1");
    let waited = call.expect("it went").at - told;
    // One call of the flood, then its own: two at ten a second, and the window's own wait.
    assert!(waited <= 1_200 * MS, "{waited} ns");
}

#[test]
fn a_batch_is_filled_from_its_own_flow_first_and_then_from_others() {
    let mut world = World::new(1, limits(2), 10);
    for n in 0..15 {
        submit(&mut world, "contact", "a", &format!("a-{n}"));
    }
    for n in 0..15 {
        submit(&mut world, "contact", "b", &format!("b-{n}"));
    }
    world.run(5 * SECOND);
    let records: Vec<usize> = world.seen.iter().map(|call| call.records).collect();
    assert_eq!(records, [10, 10, 10], "no call left half empty");
}

#[test]
fn shares_hold_after_a_restart_from_a_checkpoint() {
    let mut world = World::new(1, limits(10), 1);
    for n in 0..500 {
        submit(&mut world, "contact", "flood", &format!("f-{n}"));
    }
    for n in 0..20 {
        submit(&mut world, "contact", "small", &format!("s-{n}"));
    }
    world.restart(limits(10), true);
    world.run(5 * SECOND);
    let calls = calls_by_letter(&world);
    assert!(calls[&'s'] >= 20, "{calls:?}");
}
