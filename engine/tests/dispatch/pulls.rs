//! What an account changed waits for no call that it does not need.

use std::time::Duration;

use syncline_engine::provider::CallKind;
use syncline_engine::quota::{Limit, Policy, Reserve};
use syncline_engine::shard::provisional_id;
use syncline_engine::state::State;

use super::world::{MS, SECOND, World};

/// Ten calls an hour, two of them for polls if so asked.
fn hourly(polls_permille: u16) -> Vec<Limit> {
    let policy = Policy::Sliding {
        limit: 10,
        window: Duration::from_secs(3600),
    };
    let mut limit = Limit::new("hourly", policy);
    limit.reserve = Reserve {
        polls_permille,
        ..Reserve::default()
    };
    vec![limit]
}

/// The quota is spent, and records wait.
fn spent(polls_permille: u16) -> World {
    let mut world = World::new(1, hourly(polls_permille), 1);
    world.take_changes();
    for record in 0..400 {
        world.update(0, record, 1);
    }
    world.run(5 * SECOND);
    world
}

fn state(world: &mut World, remote_id: &str) -> State {
    let record_id = provisional_id("crm", remote_id);
    world.told(0, "contact", &record_id).0
}

#[test]
fn what_a_list_shows_is_taken_though_the_quota_is_spent_and_records_wait() {
    let mut world = spent(0);
    assert_eq!(world.seen.len(), 10);
    world.tell(0, "r-9", Some(r#"{"id":"r-9","name":"Ada"}"#));
    world.run(10 * MS);
    assert_eq!(state(&mut world, "r-9"), State::Synced);
    assert_eq!(world.seen.len(), 10, "without a call");
}

#[test]
fn what_has_to_be_read_waits_for_quota_unless_some_is_kept_for_that() {
    for (polls_permille, read) in [(0, false), (200, true)] {
        let mut world = spent(polls_permille);
        world.tell(0, "r-9", None);
        world.run(SECOND);
        assert_eq!(world.calls(CallKind::Read).len(), usize::from(read));
        assert_eq!(state(&mut world, "r-9") == State::Synced, read);
    }
}

#[test]
fn changes_to_be_read_and_records_take_turns_where_all_calls_cost_the_same() {
    let policy = Policy::Sliding {
        limit: 10,
        window: Duration::from_secs(1),
    };
    let mut world = World::new(1, vec![Limit::new("calls", policy)], 1);
    world.take_changes();
    for record in 0..100 {
        world.update(0, record, 1);
        world.tell(0, &format!("r-{record}"), None);
    }
    world.run(5 * SECOND);
    let (all, reads) = (world.seen.len(), world.calls(CallKind::Read).len());
    assert!((45..=55).contains(&all), "{all}");
    assert!((20..=30).contains(&reads), "{reads} of {all}");
}
