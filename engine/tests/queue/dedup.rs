use proptest::prelude::*;
use syncline_engine::dedup::{
    Dedup, DedupBounds, DedupEntry, DedupIndex, EventKey, EventKeys, TakenOperation,
};

use crate::{cases, scatter};

const NOW_MS: u64 = 1_763_683_200_000;

#[derive(Clone, Debug)]
enum Step {
    Check { id: u64, body: u32 },
    Forget { id: u64 },
    Pass { ms: u64 },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..60_u64, 0..2_u32).prop_map(|(id, body)| Step::Check { id, body }),
        1 => (0..60_u64).prop_map(|id| Step::Forget { id }),
        2 => (0..20_u64).prop_map(|steps| Step::Pass { ms: steps * 64 }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..400)
}

fn key(id: u64) -> EventKey {
    EventKey::from_raw(scatter(id))
}

fn taken(number: u64) -> TakenOperation {
    TakenOperation {
        record: scatter(number),
        sequence: number,
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_is_in_the_window_is_recognised(
        window in 0..50_u64,
        count_max in prop_oneof![1..8_u32, 20..200_u32],
        steps in steps(),
    ) {
        let bounds = DedupBounds { window_ms: window * 64, count_max };
        let mut index = DedupIndex::new(bounds);
        // Oldest first. `None`: forgotten, which counts until it is the oldest.
        let mut model: Vec<Option<DedupEntry>> = Vec::new();
        let mut now = NOW_MS;
        for (number, step) in (0..).zip(steps) {
            match step {
                Step::Check { id, body } => {
                    let old = |entry: &Option<DedupEntry>| {
                        entry.is_none_or(|entry| now - entry.accepted_at_ms > bounds.window_ms)
                    };
                    let aged = model.iter().take(4).take_while(|entry| old(entry)).count();
                    model.drain(..aged);
                    let at = model.iter().position(|entry| {
                        entry.is_some_and(|entry| entry.key == key(id))
                    });
                    let expected = match at.and_then(|at| model[at]).filter(|entry| !old(&Some(*entry))) {
                        Some(entry) if entry.body == body => Dedup::Same(entry.operation),
                        Some(entry) => Dedup::Reused(entry.operation),
                        None => Dedup::New,
                    };
                    prop_assert_eq!(index.check_or_insert(now, key(id), body, taken(number)), expected);
                    if expected == Dedup::New {
                        if let Some(at) = at {
                            model[at] = None;
                        }
                        if model.len() == count_max as usize {
                            model.remove(0);
                        }
                        let operation = taken(number);
                        model.push(Some(DedupEntry { key: key(id), body, operation, accepted_at_ms: now }));
                    }
                }
                Step::Forget { id } => {
                    let at = model.iter().position(|entry| {
                        entry.is_some_and(|entry| entry.key == key(id))
                    });
                    prop_assert!(!index.forget(key(id), taken(u64::MAX >> 16)), "another operation");
                    if let Some(at) = at {
                        let operation = model[at].expect("just found").operation;
                        prop_assert!(index.forget(key(id), operation));
                        model[at] = None;
                    }
                }
                Step::Pass { ms } => now += ms,
                Step::Restart => {
                    index.expire(now, usize::MAX);
                    let kept: Vec<DedupEntry> =
                        (0..3).rev().flat_map(|rest| index.entries_of(move |record| record % 3 == rest)).collect();
                    index = DedupIndex::new(bounds);
                    index.restore(now, kept);
                    model.retain(|entry| {
                        entry.is_some_and(|entry| now - entry.accepted_at_ms <= bounds.window_ms)
                    });
                    // Entries of one instant come back by owner.
                    model.sort_by_key(|entry| entry.map(|entry| {
                        (entry.accepted_at_ms, std::cmp::Reverse(entry.operation.record % 3))
                    }));
                }
            }
            prop_assert_eq!(index.len(), model.iter().flatten().count());
        }
    }
}

#[test]
fn an_event_takes_at_most_40_bytes_growing_at_the_bound_and_shrinking() {
    const BYTES_MAX: usize = 40;
    const COUNT_MAX: u32 = 500_000;
    /// A chunk at either end, and a bucket or two.
    const FIXED: usize = 2 * 512 * 32 + 512;
    let bounds = DedupBounds {
        window_ms: 3_600_000,
        count_max: COUNT_MAX,
    };
    let mut index = DedupIndex::new(bounds);
    let check = |index: &DedupIndex| {
        let (bytes, len) = (index.memory_bytes(), index.len());
        assert!(bytes <= BYTES_MAX * len + FIXED, "{bytes} bytes for {len}");
    };
    for number in 0..2 * u64::from(COUNT_MAX) {
        let found = index.check_or_insert(NOW_MS, key(number), 7, taken(number));
        assert_eq!(found, Dedup::New);
        check(&index);
    }
    assert_eq!(index.len(), COUNT_MAX as usize);
    for number in u64::from(COUNT_MAX)..2 * u64::from(COUNT_MAX) {
        let found = index.check_or_insert(NOW_MS + 1, key(number), 7, taken(0));
        assert_eq!(found, Dedup::Same(taken(number)));
    }
    while !index.is_empty() {
        index.expire(NOW_MS + 4_000_000, 1_000);
        check(&index);
    }
}

#[test]
fn the_window_is_never_shorter_than_asked_and_a_clock_set_back_ages_nothing() {
    let mut index = DedupIndex::new(DedupBounds {
        window_ms: 1_000,
        count_max: 10,
    });
    let accepted = NOW_MS + 63;
    assert_eq!(
        index.check_or_insert(accepted, key(1), 0, taken(1)),
        Dedup::New
    );
    let again = index.check_or_insert(accepted + 1_000, key(1), 0, taken(2));
    assert_eq!(again, Dedup::Same(taken(1)));
    let set_back = index.check_or_insert(NOW_MS - 9_000_000, key(1), 1, taken(3));
    assert_eq!(set_back, Dedup::Reused(taken(1)));
    let later = index.check_or_insert(accepted + 1_000 + 128, key(1), 0, taken(4));
    assert_eq!(later, Dedup::New);
}

#[test]
fn keys_differ_by_scope_id_and_seed_and_spread_over_stripes() {
    let keys = EventKeys::new(42);
    assert_eq!(keys.key(b"a", b"bc"), keys.key(b"a", b"bc"));
    assert_ne!(keys.key(b"a", b"bc"), keys.key(b"ab", b"c"));
    assert_ne!(keys.key(b"a", b"bc"), EventKeys::new(43).key(b"a", b"bc"));

    const STRIPES: u16 = 64;
    let mut counts = [0_u32; STRIPES as usize];
    for number in 0..64_000_u32 {
        counts[keys.key(b"producer", &number.to_le_bytes()).stripe(STRIPES)] += 1;
    }
    assert!(
        counts.iter().all(|count| (800..1_200).contains(count)),
        "{counts:?}"
    );
}
