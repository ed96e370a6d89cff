use std::collections::BTreeMap;

use proptest::prelude::*;
use syncline_engine::operation_slab::{OpClass, OpIndex, OperationSlab, Position};
use syncline_engine::record_table::{Record, RecordTable, RecordTag};

use crate::{cases, operation, scatter};

#[derive(Clone, Debug)]
enum Step {
    SetPosition(u64, Option<u64>),
    SetLane(u64, Option<usize>),
    Remove(u64),
    SweepFrom(u64),
}

/// Tags spread out, crowded at both ends (so that runs spill past the last home), or few.
fn tag() -> impl Strategy<Value = u64> {
    let max = RecordTag::MAX.get();
    prop_oneof![
        4 => (0..200_u64).prop_map(|number| scatter(number) >> 16),
        2 => 0..40_u64,
        2 => max - 40..=max,
        1 => 0..=max,
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (tag(), prop::option::weighted(0.8, 1..1_000_u64)).prop_map(|(t, p)| Step::SetPosition(t, p)),
        3 => (tag(), prop::option::weighted(0.6, 0..4_usize)).prop_map(|(t, l)| Step::SetLane(t, l)),
        2 => tag().prop_map(Step::Remove),
        1 => tag().prop_map(Step::SweepFrom),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_table_answers_as_an_ordered_map_does(steps in steps()) {
        let mut slab = OperationSlab::new();
        let ops: Vec<OpIndex> =
            (0..4).map(|n| slab.insert(operation(n, 0, 5, OpClass::Update))).collect();
        let mut table = RecordTable::new();
        let mut model: BTreeMap<u64, (Option<Position>, Option<OpIndex>)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::SetPosition(tag, position) => {
                    let position = position.map(|at| Position::new(at * 8).unwrap());
                    let mut entry = table.entry(RecordTag::from_hash(tag));
                    prop_assert_eq!(entry.was_known(), model.contains_key(&tag));
                    entry.set_position(position);
                    drop(entry);
                    model.entry(tag).or_default().0 = position;
                }
                Step::SetLane(tag, lane) => {
                    let lane = lane.map(|op| ops[op]);
                    *table.entry(RecordTag::from_hash(tag)).lane_mut() = lane;
                    model.entry(tag).or_default().1 = lane;
                }
                Step::Remove(tag) => {
                    let removed = table.remove(RecordTag::from_hash(tag));
                    let expected = model.remove(&tag);
                    prop_assert_eq!(removed.map(|record| (record.position, record.lane)), expected);
                }
                Step::SweepFrom(tag) => {
                    let swept: Vec<Record> = table.iter_from(RecordTag::from_hash(tag)).collect();
                    let expected: Vec<Record> = model.range(tag..).map(record).collect();
                    prop_assert_eq!(swept, expected);
                }
            }
            model.retain(|_, known| *known != (None, None));
            prop_assert_eq!(table.len(), model.len());
        }
        let all: Vec<Record> = table.iter().collect();
        prop_assert_eq!(all, model.iter().map(record).collect::<Vec<_>>());
        for (tag, known) in &model {
            let found = table.find(RecordTag::from_hash(*tag)).expect("known to the model");
            prop_assert_eq!((found.position, found.lane), *known);
        }
    }
}

fn record((tag, (position, lane)): (&u64, &(Option<Position>, Option<OpIndex>))) -> Record {
    Record {
        tag: RecordTag::from_hash(*tag),
        position: *position,
        lane: *lane,
    }
}

fn position(number: u64) -> Option<Position> {
    Position::new(8 * (number + 1))
}

#[test]
fn a_known_record_takes_at_most_32_bytes_at_every_size_up_and_down() {
    const BYTES_MAX: usize = 32;
    let mut table = RecordTable::new();
    for number in 0..1_000_000 {
        table
            .entry(RecordTag::from_hash(scatter(number)))
            .set_position(position(number));
        let len = table.len();
        assert_eq!(len as u64, number + 1);
        assert!(
            len < 64 || table.memory_bytes() <= BYTES_MAX * len,
            "growing, {len} records"
        );
    }
    for number in 0..1_000_000 {
        let removed = table.remove(RecordTag::from_hash(scatter(number)));
        assert_eq!(removed.unwrap().position, position(number));
        let len = table.len();
        assert!(
            len < 64 || table.memory_bytes() <= BYTES_MAX * len,
            "shrinking, {len} records"
        );
    }
    assert!(table.is_empty() && table.memory_bytes() < 1024);
}

#[test]
fn a_sweep_in_steps_sees_what_stays_once_while_the_table_grows_and_shrinks() {
    let mut table = RecordTable::new();
    let stays = |number: u64| number.is_multiple_of(3);
    for number in 0..3_000 {
        table
            .entry(RecordTag::from_hash(scatter(number)))
            .set_position(position(number));
    }
    let mut seen = Vec::new();
    let mut from = Some(RecordTag::from_hash(0));
    let mut turn = 0;
    while let Some(tag) = from {
        let step: Vec<Record> = table.iter_from(tag).take(10).collect();
        from = step.last().and_then(|last| last.tag.successor());
        seen.extend(step);
        for _ in 0..20 {
            if !stays(turn) {
                table.remove(RecordTag::from_hash(scatter(turn)));
            }
            let newcomer = 10_000 + turn;
            table
                .entry(RecordTag::from_hash(scatter(newcomer)))
                .set_position(position(newcomer));
            turn += 1;
        }
        assert!(turn < 1_000_000, "the sweep ends");
    }
    let mut stayed: Vec<Position> = seen.iter().filter_map(|record| record.position).collect();
    stayed.retain(|position| {
        let number = position.offset() / 8 - 1;
        number < 3_000 && stays(number)
    });
    stayed.sort();
    let expected: Vec<Position> = (0..3_000)
        .filter(|number| stays(*number))
        .filter_map(position)
        .collect();
    assert_eq!(stayed, expected);
}

#[test]
fn records_that_share_a_tag_are_kept_apart() {
    let mut table = RecordTable::new();
    for number in 0..100 {
        table
            .entry(RecordTag::from_hash(number << 40))
            .set_position(position(number));
    }
    let tag = RecordTag::from_hash(50 << 40);
    table.entry_of_new_twin(tag).set_position(position(1_000));
    assert_eq!(table.twins(tag).count(), 2);
    assert_eq!(table.len(), 101);

    let old = table
        .twins(tag)
        .find(|twin| twin.position == position(50))
        .unwrap();
    table.entry_of(old).unwrap().set_position(position(51));
    assert!(table.entry_of(old).is_none(), "it is no longer as it was");
    let new = table
        .twins(tag)
        .find(|twin| twin.position == position(1_000))
        .unwrap();
    table.entry_of(new).unwrap().set_position(None);
    assert_eq!(table.find(tag).unwrap().position, position(51));
    assert_eq!(table.twins(tag).count(), 1);
}

#[test]
fn tags_that_all_share_the_last_home_are_still_found() {
    let mut table = RecordTable::new();
    let tags: Vec<RecordTag> = (0..2_000)
        .map(|number| RecordTag::from_hash(RecordTag::MAX.get() - number))
        .collect();
    for (number, tag) in tags.iter().enumerate() {
        table.entry(*tag).set_position(position(number as u64));
    }
    for (number, tag) in tags.iter().enumerate() {
        assert_eq!(
            table.remove(*tag).unwrap().position,
            position(number as u64)
        );
    }
    assert!(table.is_empty());
}
