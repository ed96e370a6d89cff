//! What a kill costs of a limit: what was spent counts from when it was spent, not from the kill.

use std::time::Duration;

use syncline_engine::quota::{Limit, Policy};

use super::world::{MS, SECOND, Seen, World, most_within};

const LIMIT: u32 = 100;
const WINDOW: u64 = 10 * SECOND;

fn limits() -> Vec<Limit> {
    let policy = Policy::Sliding {
        limit: LIMIT,
        window: Duration::from_nanos(WINDOW),
    };
    vec![Limit::new("calls", policy)]
}

/// A backlog, a kill after some windows, and the calls of the window after it.
fn calls_after_a_kill(killed_after: u64, from_checkpoint: bool) -> usize {
    let mut world = World::new(2, limits(), 1);
    for record in 0..1_000 {
        world.update(record % 2, record, 1);
    }
    world.run(killed_after);
    let before = world.seen.len();
    world.restart(limits(), from_checkpoint);
    world.run(WINDOW + 100 * MS);
    let calls: Vec<&Seen> = world.seen.iter().collect();
    assert!(most_within(&calls, WINDOW) <= LIMIT as usize);
    calls.len() - before
}

#[test]
fn a_kill_costs_a_limit_little_more_than_what_was_under_way() {
    for (killed_after, from_checkpoint) in [
        (23 * SECOND, false),
        (25 * SECOND, true),
        (28 * SECOND + 500 * MS, false),
    ] {
        let calls = calls_after_a_kill(killed_after, from_checkpoint);
        println!(
            "killed after {} s: {calls} of {LIMIT} calls in the window after it",
            killed_after / SECOND
        );
        assert!(calls >= 95, "{calls} calls");
    }
}

#[test]
fn kills_one_after_the_other_do_not_make_old_calls_young() {
    let mut world = World::new(2, limits(), 1);
    for record in 0..1_000 {
        world.update(record % 2, record, 1);
    }
    world.run(21 * SECOND);
    for _ in 0..4 {
        world.restart(limits(), false);
        world.run(2 * SECOND);
    }
    // The third lap of the window was due meanwhile.
    world.run(3 * SECOND);
    let calls: Vec<&Seen> = world.seen.iter().collect();
    assert!(most_within(&calls, WINDOW) <= LIMIT as usize);
    assert!(calls.len() >= 390, "{} calls in 32 s", calls.len());
}
