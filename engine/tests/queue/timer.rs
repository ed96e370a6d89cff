use std::collections::BTreeMap;

use proptest::prelude::*;
use syncline_engine::operation_slab::{OpClass, OpIndex, OperationSlab};
use syncline_engine::timer::TimerQueue;

use crate::{cases, operation, scatter};

const BASE_MS: u64 = 1_763_683_200_007;
const DAY_MS: u64 = 24 * 3_600_000;

#[derive(Clone, Debug)]
enum Step {
    Insert { ahead_ms: u64 },
    Cancel(usize),
    Pass { ms: u64, moves: usize },
    PassToDeadline,
}

/// Near, or far, or past: in every level's reach.
fn span_ms() -> impl Strategy<Value = u64> {
    (0..36_u32, any::<u64>()).prop_map(|(bits, random)| random & ((1 << bits) - 1))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let moves = || prop_oneof![3 => Just(usize::MAX), 1 => 0..20_usize];
    let step = prop_oneof![
        6 => span_ms().prop_map(|ahead_ms| Step::Insert { ahead_ms }),
        2 => any::<usize>().prop_map(Step::Cancel),
        1 => (span_ms(), moves()).prop_map(|(ms, moves)| Step::Pass { ms, moves }),
        2 => Just(Step::PassToDeadline),
    ];
    prop::collection::vec(step, 1..200)
}

/// Due times by operation.
type Model = BTreeMap<OpIndex, u64>;

proptest! {
    #![proptest_config(cases())]

    /// Starting long after the base: due ticks of 32 bits wrap around several times.
    #[test]
    fn operations_leave_when_due_and_never_before(
        idle_ms in prop_oneof![Just(0), 0..20 * TimerQueue::HORIZON_MS],
        steps in steps(),
    ) {
        let mut slab = OperationSlab::new();
        let mut timers = TimerQueue::new(BASE_MS);
        let mut model = Model::new();
        let mut now = BASE_MS + idle_ms;
        prop_assert_eq!(timers.pop_due(&mut slab, now, &mut 1), None);
        for (number, step) in (0..).zip(steps) {
            match step {
                Step::Insert { ahead_ms } => {
                    let op = slab.insert(operation(number, 0, 5, OpClass::Update));
                    let due = (now + ahead_ms).saturating_sub(1_000);
                    if timers.insert(&mut slab, op, due).is_ok() {
                        model.insert(op, due);
                    } else {
                        // The horizon counts from where the queue is, not from where it should be.
                        let deadline = timers.next_deadline();
                        prop_assert!(deadline.is_some_and(|deadline| deadline <= now));
                        slab.remove(op);
                    }
                }
                Step::Cancel(at) => {
                    if let Some(at) = at.checked_rem(model.len()) {
                        let op = *model.keys().nth(at).expect("below its length");
                        model.remove(&op);
                        prop_assert!(timers.cancel(&mut slab, op));
                        prop_assert!(!timers.cancel(&mut slab, op), "it is out");
                        slab.remove(op);
                    }
                }
                Step::Pass { ms, moves } => {
                    now += ms;
                    pass(&mut timers, &mut slab, &mut model, now, moves)?;
                }
                Step::PassToDeadline => {
                    now = timers.next_deadline().map_or(now, |deadline| deadline.max(now));
                    pass(&mut timers, &mut slab, &mut model, now, usize::MAX)?;
                }
            }
            prop_assert_eq!(timers.len(), model.len());
            check_deadline(&timers, &model, now)?;
        }
        now += 2 * TimerQueue::HORIZON_MS;
        pass(&mut timers, &mut slab, &mut model, now, usize::MAX)?;
        prop_assert!(timers.is_empty() && model.is_empty());
        prop_assert_eq!(timers.next_deadline(), None);
    }
}

fn pass(
    timers: &mut TimerQueue,
    slab: &mut OperationSlab,
    model: &mut Model,
    now: u64,
    moves: usize,
) -> Result<(), TestCaseError> {
    let mut left = moves;
    while let Some(op) = timers.pop_due(slab, now, &mut left) {
        let due = model.remove(&op);
        prop_assert!(
            due.is_some_and(|due| due <= now),
            "due at {due:?}, out at {now}"
        );
        slab.remove(op);
    }
    if left > 0 {
        let late = model
            .values()
            .find(|due| **due + TimerQueue::TICK_MS <= now);
        prop_assert_eq!(late, None, "it is {}", now);
    } else if moves > 0 && !timers.is_empty() {
        prop_assert!(timers.next_deadline().is_some());
    }
    Ok(())
}

/// Not later than the tick of what is due first, or at once when that is past.
fn check_deadline(timers: &TimerQueue, model: &Model, now: u64) -> Result<(), TestCaseError> {
    let first = model.values().min().copied();
    let deadline = timers.next_deadline();
    prop_assert_eq!(deadline.is_some(), first.is_some());
    if let (Some(deadline), Some(first)) = (deadline, first) {
        let latest = now.max(first + TimerQueue::TICK_MS - 1);
        prop_assert!(
            deadline <= latest,
            "first due at {first}, now {now}, woken at {deadline}"
        );
    }
    Ok(())
}

#[test]
fn following_the_deadlines_hands_each_out_within_a_tick_of_its_time() {
    let mut slab = OperationSlab::new();
    let mut timers = TimerQueue::new(BASE_MS);
    let mut due = Vec::new();
    for number in 0..20_000_u32 {
        let op = slab.insert(operation(number, 0, 5, OpClass::Update));
        due.push(BASE_MS + scatter(u64::from(number)) % (30 * DAY_MS));
        timers.insert(&mut slab, op, due[number as usize]).unwrap();
    }
    let mut wakes = 0;
    while let Some(now) = timers.next_deadline() {
        wakes += 1;
        while let Some(op) = timers.pop_due(&mut slab, now, &mut usize::MAX.clone()) {
            let due = due[slab[op].sequence_low() as usize];
            assert!(
                (due..due + TimerQueue::TICK_MS).contains(&now),
                "due at {due}, out at {now}"
            );
        }
    }
    assert!(wakes <= 6 * 20_000, "at most one wake-up a level, {wakes}");
    assert!(timers.is_empty());
}

#[test]
fn five_million_timers_over_thirty_days_take_no_memory_but_a_bounded_table() {
    const COUNT: u32 = 5_000_000;
    /// A chunk's worth: what one turn may spend on timers.
    const MOVES_A_TURN: usize = 4_096;
    let mut slab = OperationSlab::new();
    let mut timers = TimerQueue::new(BASE_MS);
    let mut ops = Vec::new();
    for number in 0..COUNT {
        let op = slab.insert(operation(number, 0, 5, OpClass::Update));
        let due = BASE_MS + scatter(u64::from(number)) % (30 * DAY_MS);
        timers.insert(&mut slab, op, due).unwrap();
        ops.push(op);
    }
    let table = TimerQueue::SLOTS * 48;
    assert!(
        timers.memory_bytes() <= table + COUNT as usize / 4,
        "{}",
        timers.memory_bytes()
    );

    // Every tenth is taken back: each walks a short list, whatever the slot holds.
    for op in ops.iter().step_by(10) {
        assert!(timers.cancel(&mut slab, *op));
    }
    let mut left = COUNT as usize - COUNT as usize / 10;
    for day in 0..=30 {
        let now = BASE_MS + day * DAY_MS;
        loop {
            let mut moves = MOVES_A_TURN;
            while let Some(op) = timers.pop_due(&mut slab, now, &mut moves) {
                let due = BASE_MS + scatter(u64::from(slab[op].sequence_low())) % (30 * DAY_MS);
                assert!(due <= now && due + DAY_MS + TimerQueue::TICK_MS > now);
                left -= 1;
            }
            if moves > 0 {
                break;
            }
        }
        assert!(timers.memory_bytes() <= table + COUNT as usize / 4);
    }
    assert_eq!((left, timers.len()), (0, 0));
}

#[test]
fn a_time_beyond_the_horizon_is_refused() {
    let mut slab = OperationSlab::new();
    let mut timers = TimerQueue::new(BASE_MS);
    let op = slab.insert(operation(0, 0, 5, OpClass::Update));
    let last = BASE_MS + TimerQueue::HORIZON_MS;
    assert!(timers.insert(&mut slab, op, last + 1).is_err());
    assert!(timers.is_empty());
    timers.insert(&mut slab, op, last).unwrap();
    assert_eq!(timers.pop_due(&mut slab, last - 1, &mut 100), None);
    assert_eq!(timers.pop_due(&mut slab, last, &mut 100), Some(op));
}

#[test]
fn spent_moves_leave_a_deadline_that_is_not_ahead() {
    let mut slab = OperationSlab::new();
    let mut timers = TimerQueue::new(BASE_MS);
    let due = BASE_MS + DAY_MS;
    for number in 0..1_000 {
        let op = slab.insert(operation(number, 0, 5, OpClass::Update));
        timers.insert(&mut slab, op, due).unwrap();
    }
    let mut out = 0;
    let mut turns = 0;
    while let Some(deadline) = timers.next_deadline() {
        let mut moves = 100;
        let now = deadline.max(due + TimerQueue::TICK_MS);
        assert!(deadline <= now);
        while timers.pop_due(&mut slab, now, &mut moves).is_some() {
            out += 1;
        }
        turns += 1;
    }
    assert_eq!(out, 1_000);
    assert!(
        (10..=60).contains(&turns),
        "at most six moves each, a hundred a turn: {turns}"
    );
}

#[test]
fn an_operation_is_cancelled_from_a_slot_on_its_way_down_too() {
    for moves in [0, 1, 100, 500, 999] {
        let mut slab = OperationSlab::new();
        let mut timers = TimerQueue::new(BASE_MS);
        let mut waiting = Vec::new();
        for number in 0..1_000 {
            let op = slab.insert(operation(number, 0, 5, OpClass::Update));
            let due = BASE_MS + DAY_MS + 100 * u64::from(number);
            timers.insert(&mut slab, op, due).unwrap();
            waiting.push(op);
        }
        let now = timers.next_deadline().expect("a thousand wait");
        assert_eq!(timers.pop_due(&mut slab, now, &mut moves.clone()), None);
        for op in waiting {
            assert!(timers.cancel(&mut slab, op), "after {moves} moves");
        }
        assert!(timers.is_empty() && timers.next_deadline().is_none());
    }
}
