//! Calls are paid for by what they cost: a window for look-ups alone holds nothing else back, and
//! nothing is exceeded.

use std::time::Duration;

use syncline_engine::provider::CallKind;
use syncline_engine::quota::{Limit, Policy, Weights};

use super::world::{MS, SECOND, World, most_within};

fn window(name: &str, limit: u32, seconds: u64) -> Limit {
    let window = Duration::from_secs(seconds);
    Limit::new(name, Policy::Sliding { limit, window })
}

/// 50 calls a second, of which look-ups are not counted; 5 look-ups a second.
fn apart() -> Vec<Limit> {
    let lookups = || vec!["lookup".to_owned()];
    let mut burst = window("burst", 50, 1);
    burst.weights = Weights {
        except: lookups(),
        ..Weights::default()
    };
    let mut search = window("search", 5, 1);
    search.weights = Weights {
        only: lookups(),
        ..Weights::default()
    };
    vec![burst, search]
}

#[test]
fn look_ups_with_a_window_of_their_own_hold_no_update_back() {
    let mut world = World::new(2, apart(), 1);
    // The look-ups are asked for first, and more of them than are looked at ahead.
    for record in 0..1000 {
        world.look_up(record % 2, record);
    }
    for record in 0..1000 {
        world.update(record % 2, record, 1);
    }
    world.run(10 * SECOND);
    let updates = world.calls(CallKind::Upsert);
    let look_ups = world.calls(CallKind::Lookup);
    assert!(most_within(&updates, SECOND) <= 50);
    assert!(most_within(&look_ups, SECOND) <= 5);
    // W / (W + round trip) of ten windows, and the first one at once.
    assert!(updates.len() >= 470, "{} updates", updates.len());
    assert!(look_ups.len() >= 47, "{} look-ups", look_ups.len());
}

#[test]
fn tags_that_no_call_has_make_no_difference() {
    let mut limits = apart();
    for tag in ["bulk", "beta", "gamma", "export"] {
        let mut limit = window(tag, 1, 1);
        limit.weights.only = vec![tag.to_owned()];
        limit.weights.costs = [(tag.to_owned(), 1)].into();
        limits.push(limit);
    }
    let mut world = World::new(1, limits, 1);
    for record in 0..100 {
        world.look_up(0, record);
        world.update(0, record, 1);
    }
    world.run(SECOND);
    assert_eq!(world.calls(CallKind::Upsert).len(), 50);
    assert_eq!(world.calls(CallKind::Lookup).len(), 5);
}

#[test]
fn updates_behind_a_spent_window_do_not_hold_look_ups_back() {
    let mut limits = apart();
    limits[0] = Limit {
        weights: limits[0].weights.clone(),
        ..window("burst", 10, 3600)
    };
    let mut world = World::new(1, limits, 1);
    for record in 0..200 {
        world.update(0, record, 1);
    }
    for record in 0..50 {
        world.look_up(0, record);
    }
    world.run(10 * SECOND);
    assert_eq!(world.calls(CallKind::Upsert).len(), 10);
    assert!(world.calls(CallKind::Lookup).len() >= 47);
}

#[test]
fn a_dear_kind_of_call_takes_its_price_and_the_cheap_ones_take_the_rest() {
    let mut limit = window("tokens", 100, 10);
    limit.weights.costs = [("lookup".to_owned(), 40)].into();
    let mut world = World::new(1, vec![limit], 1);
    for record in 0..100 {
        world.look_up(0, record);
        world.update(0, record, 1);
    }
    world.run(9 * SECOND);
    let (dear, cheap) = (
        world.calls(CallKind::Lookup).len(),
        world.calls(CallKind::Upsert).len(),
    );
    assert!(dear >= 1 && cheap >= 1, "{dear} and {cheap}");
    let tokens = 40 * dear + cheap;
    assert!((99..=100).contains(&tokens), "{tokens} of 100 tokens");
}

#[test]
fn limits_that_change_their_meaning_leave_nothing_behind() {
    let mut world = World::new(1, apart(), 1);
    for record in 0..100 {
        world.look_up(0, record);
        world.update(0, record, 1);
    }
    world.run(100 * MS);
    let (calls, look_ups) = (world.seen.len(), world.calls(CallKind::Lookup).len());
    assert!((50..=55).contains(&calls) && look_ups <= 5, "{calls} calls");
    world.set_limits(vec![window("all", 100, 1)]);
    world.run(3 * SECOND);
    assert_eq!(world.seen.len(), 200, "all operations went");
}

#[test]
fn a_batch_carries_what_costs_the_same() {
    let mut limit = window("tokens", 20, 1);
    limit.weights.costs = [("create".to_owned(), 4)].into();
    let mut world = World::new(1, vec![limit], 20);
    for record in 0..600 {
        world.update(0, record, 1);
        let event = format!(
            r#"{{"operation":"CREATE","object":"contact","record_id":"n-{record}","data":{{"n":1}}}}"#
        );
        world.submit(0, &event);
    }
    world.run(20 * SECOND);
    let records: usize = world.seen.iter().map(|call| call.records).sum();
    assert_eq!(records, 1200, "all went");
    let creates = world.calls(CallKind::Create);
    let created: usize = creates.iter().map(|call| call.records).sum();
    assert_eq!(created, 600, "and none of the others with them");
    // Half of the last ones aside, each call was full.
    assert!(world.seen.len() <= 66, "{} calls", world.seen.len());
}
