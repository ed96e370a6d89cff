//! What is kept for polls: changes are heard of though records have used up all else.

use std::time::Duration;

use syncline_engine::quota::{Limit, Policy, Reserve};
use syncline_engine::shard::ListUse;

use super::planted::Bug;
use super::promises::{holds, tells_apart};
use super::world::{SECOND, World};

const LIST: &str = "changes";

fn keeping(policy: Policy, reserve: Reserve) -> Vec<Limit> {
    let mut limit = Limit::new("calls", policy);
    limit.reserve = reserve;
    vec![limit]
}

fn ten_in(seconds: u64) -> Policy {
    Policy::Sliding {
        limit: 10,
        window: Duration::from_secs(seconds),
    }
}

fn two_for_polls() -> Reserve {
    Reserve {
        polls_permille: 200,
        ..Reserve::default()
    }
}

/// Calls for lists, and calls for records.
fn calls(world: &World) -> (usize, usize) {
    let lists = world.seen.iter().filter(|call| call.of == LIST).count();
    (lists, world.seen.len() - lists)
}

fn backlog(world: &mut World) {
    for record in 0..40 {
        world.update(record % 2, record, 1);
    }
}

#[test]
fn lists_of_changes_are_asked_for_when_records_have_used_up_all_else() {
    let check = |bug: Option<Bug>| {
        let mut limits = keeping(ten_in(3600), two_for_polls());
        limits.push(Limit::new("keeps nothing", ten_in(1)));
        let mut world = World::new(2, limits, 1).with_bug(bug);
        backlog(&mut world);
        world.run(5 * SECOND);
        let found = calls(&world);
        holds(found == (0, 8), || format!("{found:?}, two are kept"))?;
        world.ask_list(0, ListUse::Walk, LIST);
        world.run(SECOND);
        let found = calls(&world);
        holds(found == (0, 8), || format!("{found:?}, a walk goes"))?;
        world.ask_list(0, ListUse::Poll, LIST);
        world.ask_list(1, ListUse::Poll, LIST);
        world.run(SECOND);
        let found = calls(&world);
        holds(found == (2, 8), || format!("{found:?}, both polls go"))?;
        world.ask_list(1, ListUse::Poll, LIST);
        world.run(SECOND);
        let found = calls(&world);
        holds(found == (2, 8), || format!("{found:?}, over the limit"))
    };
    tells_apart(check, &[Bug::PollsTakenForWalks]);
}

#[test]
fn what_polls_use_is_part_of_what_is_kept_for_them() {
    let mut world = World::new(2, keeping(ten_in(60), two_for_polls()), 1);
    for shard in 0..2 {
        world.ask_list(shard, ListUse::Poll, LIST);
    }
    world.run(SECOND);
    backlog(&mut world);
    world.run(5 * SECOND);
    assert_eq!(
        calls(&world),
        (2, 8),
        "nothing is kept beside what they use"
    );
    world.run(54 * SECOND + SECOND / 2);
    // The polls' two tokens are back before the records' eight, and are kept again.
    assert_eq!(calls(&world), (2, 8));
    world.run(5 * SECOND);
    assert_eq!(calls(&world), (2, 16));
}

#[test]
fn of_a_bucket_records_leave_what_polls_may_need() {
    let bucket = Policy::TokenBucket {
        burst: 10,
        refill: 1,
        period: Duration::from_secs(1),
    };
    let mut world = World::new(2, keeping(bucket, two_for_polls()), 1);
    backlog(&mut world);
    world.run(5 * SECOND);
    let (lists, records) = calls(&world);
    assert!(lists == 0 && (12..=13).contains(&records), "{records}");
    for shard in 0..2 {
        world.ask_list(shard, ListUse::Poll, LIST);
    }
    world.run(SECOND / 10);
    assert_eq!(calls(&world).0, 2, "at once");
    world.run(10 * SECOND);
    let (lists, more) = calls(&world);
    assert!(
        lists == 2 && more - records >= 9,
        "{} in ten seconds",
        more - records
    );
}

#[test]
fn polls_and_urgent_operations_leave_each_other_what_is_kept_for_them() {
    let reserve = Reserve {
        urgent_permille: 200,
        polls_permille: 200,
        ..Reserve::default()
    };
    for polls_first in [true, false] {
        let mut world = World::new(2, keeping(ten_in(3600), reserve), 1);
        backlog(&mut world);
        world.run(5 * SECOND);
        assert_eq!(calls(&world), (0, 6));
        for step in [polls_first, !polls_first] {
            for of in 0..5 {
                if step {
                    world.ask_list(of % 2, ListUse::Poll, LIST);
                } else {
                    world.update_at(of % 2, 100 + of, 1);
                }
            }
            world.run(SECOND);
        }
        assert_eq!(calls(&world), (2, 8));
    }
}
