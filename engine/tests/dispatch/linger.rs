//! A call waits for company while quota is scarce, and for nothing else.

use std::time::Duration;

use syncline_engine::quota::{Limit, Policy};

use super::world::{MAX_WAIT, MS, SECOND, World};

/// Records a call takes.
const ITEMS: usize = 20;

fn window(limit: u32, window: Duration) -> Vec<Limit> {
    vec![Limit::new("calls", Policy::Sliding { limit, window })]
}

/// A world whose shard knows how many records a call takes, and has `spent` calls of its window.
fn with_spent(limit: u32, window_s: u64, spent: usize) -> World {
    let window = window(limit, Duration::from_secs(window_s));
    let mut world = World::new(1, window, ITEMS);
    for call in 0..spent {
        for record in 0..ITEMS {
            world.update(0, call * ITEMS + record, 1);
        }
        world.run(50 * MS);
    }
    assert_eq!(world.seen.len(), spent);
    assert!(world.seen.iter().all(|call| call.records == ITEMS));
    world
}

/// Submits one change, and answers how long it took to leave.
fn left_after(world: &mut World, record: usize, priority: u8) -> Duration {
    let (before, from) = (world.seen.len(), world.now);
    world.update_at(0, record, priority);
    while world.seen.len() == before {
        assert!(world.now < from + 10 * SECOND, "it never left");
        world.turn();
        world.now += world.step;
    }
    Duration::from_nanos(world.seen[before].at - from)
}

#[test]
fn while_quota_is_ample_a_single_change_leaves_at_once() {
    let mut world = with_spent(100, 3600, 5);
    for record in 0..20 {
        world.run(30 * MS);
        let took = left_after(&mut world, record, 5);
        assert!(took < Duration::from_millis(5), "{took:?}");
    }
}

#[test]
fn while_quota_is_scarce_changes_wait_for_company_but_no_longer_than_they_may() {
    let mut world = with_spent(100, 3600, 90);
    let before = world.seen.len();
    // Ten a second: a batch of 20 is not full within a second.
    for record in 0..40 {
        world.update(0, record, 2);
        world.run(100 * MS);
    }
    world.run(2 * SECOND);
    let calls = &world.seen[before..];
    let records: usize = calls.iter().map(|call| call.records).sum();
    assert_eq!(records, 40);
    assert!(calls.len() <= 5, "{calls:?}");
    let took = left_after(&mut world, 0, 5);
    let slack = Duration::from_millis(5);
    assert!(took >= MAX_WAIT && took < MAX_WAIT + slack, "{took:?}");
}

#[test]
fn a_full_batch_and_what_is_urgent_never_wait() {
    let mut world = with_spent(100, 3600, 90);
    let from = world.now;
    for record in 0..ITEMS {
        world.update(0, record, 2);
    }
    world.run(5 * MS);
    let last = world.seen.last().expect("it left");
    assert_eq!(last.records, ITEMS);
    assert!(last.at >= from);
    world.run(SECOND);
    let took = left_after(&mut world, 1, 1);
    assert!(took < Duration::from_millis(5), "{took:?}");
}

#[test]
fn the_wait_is_shared_by_the_shards_that_have_something_to_send() {
    // 100 in 10 s, half of them spent: 50 in 10 s are 200 ms apart, with two shards 400 ms each.
    let window = window(100, Duration::from_secs(10));
    let mut world = World::new(2, window, ITEMS);
    for call in 0..60 {
        for record in 0..ITEMS {
            world.update(call % 2, call * ITEMS + record, 1);
        }
        world.run(10 * MS);
    }
    let before = world.seen.len();
    for record in 0..400 {
        world.update(record % 2, record, 2);
        world.run(10 * MS);
    }
    let calls = world.seen.len() - before;
    // At once they would be 400; from 200 ms apart, while some come back, to a full batch of 20.
    assert!((20..=40).contains(&calls), "{calls} calls in 4 s");
}
