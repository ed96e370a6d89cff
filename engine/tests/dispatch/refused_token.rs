//! A call whose token was refused goes again with the next one: as another call, under a permit.

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

use syncline_engine::provider::{Request, SendFailure};
use syncline_engine::quota::{Gate, HoldReason, Limit, Policy};

use super::world::{MS, SECOND, Seen, World, done, most_within};

const LIMIT: u32 = 10;

fn limits() -> Vec<Limit> {
    let window = Duration::from_secs(1);
    let limit = LIMIT;
    vec![Limit::new("calls", Policy::Sliding { limit, window })]
}

fn path(request: &Request) -> String {
    request.path_and_query.clone()
}

#[test]
fn the_second_request_counts_and_is_paid_for_like_the_first() {
    // Every record's first call meets a token that ended.
    let met = RefCell::new(HashSet::new());
    let mut world = World::new(1, limits(), 1).answering(move |_, request| {
        if met.borrow_mut().insert(path(request)) {
            Err(SendFailure::TokenRefused)
        } else {
            Ok(done(request))
        }
    });
    for record in 0..20 {
        world.update(0, record, 1);
    }
    world.run(6 * SECOND);
    assert_eq!(world.view(0).gate, Gate::Open);
    let calls: Vec<&Seen> = world.seen.iter().collect();
    assert_eq!(calls.len(), 40, "each went twice");
    assert!(most_within(&calls, SECOND) <= LIMIT as usize);
    let arrived = calls.iter().filter(|call| call.status == 200).count();
    assert_eq!(arrived, 20);
}

#[test]
fn a_record_that_meets_a_refused_token_twice_holds_the_account() {
    let mut world = World::new(1, limits(), 1).answering(|_, _| Err(SendFailure::TokenRefused));
    world.update(0, 1, 1);
    world.run(500 * MS);
    assert_eq!(world.seen.len(), 2);
    let held = matches!(
        world.view(0).gate,
        Gate::Held {
            reason: HoldReason::Unauthorized,
            ..
        }
    );
    assert!(held, "{:?}", world.view(0).gate);
    world.run(40 * SECOND);
    assert_eq!(world.seen.len(), 2, "a probe every 60 s");
}
