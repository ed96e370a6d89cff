//! What replies say of an account's limits is heeded, logged and known to the next run.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use syncline_engine::provider::{Definition, Reply, shipped};
use syncline_engine::quota::{Learned, LearnedFrom, Limit, Policy};

use super::world::{MS, SECOND, World, reply};

const WINDOW: u64 = 10 * SECOND;

/// A window of 10 s as the provider counts it, by arrival.
#[derive(Debug, Default)]
struct Window {
    limit: usize,
    arrivals: VecDeque<u64>,
    /// Calls of other applications in any window.
    others: usize,
    refused: Vec<u64>,
}

impl Window {
    fn answer(&mut self, now: u64) -> Reply {
        while self.arrivals.front().is_some_and(|at| at + WINDOW <= now) {
            self.arrivals.pop_front();
        }
        let taken = self.arrivals.len() + self.others < self.limit;
        let mut reply = if taken {
            self.arrivals.push_back(now);
            reply(201, r#"{"id":"1"}"#)
        } else {
            self.refused.push(now);
            reply(429, r#"{"policyName":"TEN_SECONDLY_ROLLING"}"#)
        };
        let left = self.limit.saturating_sub(self.arrivals.len() + self.others);
        let headers = &mut reply.headers;
        headers.keep("x-hubspot-ratelimit-max", &self.limit.to_string());
        headers.keep("x-hubspot-ratelimit-remaining", &left.to_string());
        reply
    }
}

/// A shard of an account that is configured for 100 calls in 10 s, and its provider.
fn world(limit: usize, others: usize) -> (World, Rc<RefCell<Window>>) {
    let window = Rc::new(RefCell::new(Window {
        limit,
        others,
        ..Window::default()
    }));
    let definition = Definition::parse(shipped("hubspot").expect("shipped"));
    let definition = definition.expect("without fault").with_batch_items_max(1);
    let provider = Rc::clone(&window);
    let world = World::with(1, burst(), definition)
        .answering(move |now, _| Ok(provider.borrow_mut().answer(now)));
    (world, window)
}

fn burst() -> Vec<Limit> {
    let window = Duration::from_nanos(WINDOW);
    vec![Limit::new("burst", Policy::Sliding { limit: 100, window })]
}

fn create(world: &mut World, count: usize) {
    for record in 0..count {
        let event = format!(
            r#"{{"operation":"CREATE","object":"contact","record_id":"c-{record}","data":{{"email":"a@b.c"}}}}"#
        );
        world.submit(0, &event);
    }
}

#[test]
fn what_another_application_spends_is_left_to_it() {
    let (mut world, window) = world(100, 50);
    create(&mut world, 1000);
    world.run(60 * SECOND);
    let window = window.borrow();
    // What is in flight when the first refusal comes is too much; after the pause it is known by
    // how much, but for what was lent just then.
    let refused = window.refused.len();
    assert!(refused <= 64, "{refused} refused");
    let last = window.refused.last().copied().unwrap_or(0) / MS;
    assert!(
        last < 13_000,
        "refused at {last} ms, long after it was known"
    );
    // The first window aside, when a refusal pauses the account: 50, less an eighth for what they
    // may still begin, and what the pause cost.
    let calls = world.seen.len() - window.refused.len();
    assert!((200..=300).contains(&calls), "{calls} calls in 60 s");
}

#[test]
fn a_smaller_limit_is_believed_and_the_next_run_begins_with_it() {
    let (mut world, window) = world(40, 0);
    create(&mut world, 200);
    world.run(30 * SECOND);
    // Of the 100 that were lent before the first reply 60 are too many.
    let refused = window.borrow().refused.clone();
    assert!(refused.len() <= 60, "{} refused", refused.len());
    let late = refused.iter().filter(|at| **at > 3 * SECOND);
    assert_eq!(late.count(), 0, "refused when it was known");
    let told = |world: &mut World| {
        let now = world.now();
        let view = world.coordinator.views(now).next().expect("one account");
        (view.limits[0].capacity, view.limits[0].allowed)
    };
    assert_eq!(told(&mut world), (100, 40));
    let learned = Learned {
        account: "crm".into(),
        limit: "burst".into(),
        from: LearnedFrom::Provider,
        tokens: Some(40),
    };
    for from_checkpoint in [false, true] {
        let recovered = world.restart(burst(), from_checkpoint);
        let kept = recovered.learned.contains(&learned);
        assert!(kept, "{:?}", recovered.learned);
        assert_eq!(told(&mut world), (100, 40));
    }
    // The provider allows more again: the configuration is what caps it.
    window.borrow_mut().limit = 500;
    let refused = window.borrow().refused.len();
    world.run(60 * SECOND);
    assert_eq!(window.borrow().refused.len(), refused);
    assert_eq!(told(&mut world).1, 100);
    assert!(
        world
            .restart(burst(), false)
            .learned
            .iter()
            .all(|l| l.from != LearnedFrom::Provider)
    );
    world.run(MS);
}
