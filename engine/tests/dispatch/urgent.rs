//! What is kept for urgent operations is there when one comes.

use std::time::Duration;

use syncline_engine::quota::{Limit, Policy, Reserve};

use super::world::{MS, SECOND, World};

#[test]
fn urgent_operations_get_what_is_kept_for_them_while_others_wait() {
    let policy = Policy::Sliding {
        limit: 10,
        window: Duration::from_secs(3600),
    };
    let mut limit = Limit::new("hourly", policy);
    limit.reserve = Reserve {
        urgent_permille: 400,
        ..Reserve::default()
    };
    let mut world = World::new(2, vec![limit], 1);
    for record in 0..40 {
        world.update(record % 2, record, 1);
    }
    world.run(5 * SECOND);
    assert_eq!(world.seen.len(), 6, "four are kept");
    let from = world.now;
    for record in 100..103 {
        world.update_at(record % 2, record, 3);
        world.run(100 * MS);
    }
    assert_eq!(world.seen.len(), 9, "one after the other, at once");
    assert!(world.seen[6].at < from + 10 * MS);
    world.update_at(0, 200, 4);
    world.run(SECOND);
    assert_eq!(world.seen.len(), 9, "priority 4 is not urgent");
}
