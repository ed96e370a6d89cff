//! While first attempts wait, retries take a tenth of an account's calls; when none wait, all.

use std::collections::HashSet;
use std::time::Duration;

use syncline_engine::provider::{CallKind, Request};
use syncline_engine::quota::{Limit, Policy, Weights};

use super::planted::Bug;
use super::promises::{Broken, holds, tells_apart};
use super::world::{MS, SECOND, Seen, World, done, reply};

/// Records below this number fail whenever they are called.
const FAILING: usize = 100;
/// Calls a second.
const LIMIT: u32 = 50;
/// Retries that may be saved up.
const SAVED: usize = 10;

fn limit(name: &str, limit: u32) -> Limit {
    let window = Duration::from_secs(1);
    Limit::new(name, Policy::Sliding { limit, window })
}

/// The same for all calls but look-ups, which have a window of their own.
fn apart() -> Vec<Limit> {
    let lookups = || vec!["lookup".to_owned()];
    let mut calls = limit("calls", LIMIT);
    calls.weights = Weights {
        except: lookups(),
        ..Weights::default()
    };
    let mut search = limit("search", 5);
    search.weights = Weights {
        only: lookups(),
        ..Weights::default()
    };
    vec![calls, search]
}

fn fails(request: &Request) -> bool {
    let of = request.path_and_query.rsplit('/').next();
    let number = of.and_then(|of| of.strip_prefix("c-"));
    number.is_some_and(|number| number.parse::<usize>().is_ok_and(|at| at < FAILING))
}

/// An account with `FAILING` urgent records that have failed.
fn failing(limits: Vec<Limit>, bug: Option<Bug>) -> World {
    let answer = |_, request: &Request| match fails(request) {
        true => Ok(reply(503, "{}")),
        false => Ok(done(request)),
    };
    let mut world = World::new(1, limits.clone(), 1)
        .answering(answer)
        .with_bug(bug);
    world.never_hold(limits);
    for record in 0..FAILING {
        world.update_at(0, record, 1);
    }
    while world.seen.len() < FAILING {
        world.run(10 * MS);
    }
    // So that the log tells of all of them.
    world.run(50 * MS);
    world
}

/// Calls from an instant up to the last first attempt, and how many of them are retries.
fn share(world: &World, from: u64) -> (usize, usize) {
    let mut known = HashSet::new();
    let calls: Vec<(&Seen, bool)> = world
        .seen
        .iter()
        .map(|call| {
            // None that is made fails here.
            let again = call.kind != CallKind::Create && !known.insert(call.of.as_str());
            (call, again)
        })
        .collect();
    let last = calls.iter().rposition(|(_, again)| !again);
    let span = &calls[..=last.expect("somebody came first")];
    let span = span.iter().filter(|(call, _)| call.at >= from);
    let again = span.clone().filter(|(_, again)| *again);
    (span.count(), again.count())
}

/// Retries take a tenth, and no less than half of that.
fn is_a_tenth((calls, retries): (usize, usize)) -> Result<(), Broken> {
    let tenth = calls / 20..=calls / 10 + SAVED;
    holds(tenth.contains(&retries), || {
        format!("{retries} retries of {calls} calls")
    })
}

#[test]
fn retries_take_a_tenth_while_first_attempts_wait_and_all_when_none_do() {
    let check = |bug: Option<Bug>, from_checkpoint: bool| {
        let limits = vec![limit("calls", LIMIT)];
        let mut world = failing(limits.clone(), bug);
        world.restart(limits.clone(), from_checkpoint);
        world.never_hold(limits);
        let from = world.now;
        for record in 1_000..1_400 {
            world.update_at(0, record, 5);
        }
        world.run(15 * SECOND);
        let (calls, retries) = share(&world, from);
        is_a_tenth((calls, retries))?;
        holds(calls - retries >= 400, || {
            format!("{} first attempts of 400", calls - retries)
        })?;
        let after = world.seen.iter().filter(|call| call.at >= from).count() - calls;
        holds(after > 100, || {
            format!("{after} retries when nobody else waited")
        })
    };
    let bugs = [Bug::RetriesBelow, Bug::AttemptsForgotten];
    tells_apart(|bug| check(bug, false), &bugs);
    // A checkpoint tells them apart as the log does.
    assert_eq!(check(None, true), Ok(()));
}

#[test]
fn what_was_looked_at_and_waits_for_its_window_is_waiting_as_well() {
    let mut world = failing(apart(), None);
    let from = world.now;
    // Few enough that all of them are looked at ahead.
    for record in 1_000..1_250 {
        world.update_at(0, record, 5);
    }
    world.run(15 * SECOND);
    assert_eq!(is_a_tenth(share(&world, from)), Ok(()));
}

#[test]
fn what_ends_without_a_call_earns_no_retry() {
    let mut world = failing(vec![limit("calls", LIMIT)], None);
    let from = world.now;
    for record in 0..2_000 {
        let create = |name: String| {
            format!(
                r#"{{"operation":"CREATE","object":"contact","record_id":"{name}","data":{{"n":1}}}}"#
            )
        };
        // Nine of ten are deleted before anything of them was sent.
        if record % 10 == 0 {
            world.submit(0, &create(format!("real-{record}")));
            continue;
        }
        let name = format!("unborn-{record}");
        world.submit(0, &create(name.clone()));
        world.submit(
            0,
            &format!(r#"{{"operation":"DELETE","object":"contact","record_id":"{name}"}}"#),
        );
    }
    world.run(15 * SECOND);
    assert_eq!(is_a_tenth(share(&world, from)), Ok(()));
}
