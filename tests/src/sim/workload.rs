//! The events that clients send: few records, every operation, everything optional sometimes.

use serde_json::{Map, Value, json};

use super::dice::Dice;
use super::options::Options;

const OBJECTS: [&str; 2] = ["contact", "company"];
const FIELDS: [&str; 6] = ["name", "email", "status", "city", "address", "tags"];

/// What one producer sends, made as it is needed.
#[derive(Debug)]
pub struct Workload {
    dice: Dice,
    records: u64,
    fan_out: u32,
    bad: u32,
    accounts: Vec<String>,
}

impl Workload {
    /// The stream of producer number `at`.
    #[must_use]
    pub fn new(options: &Options, at: usize) -> Self {
        Self {
            dice: Dice::stream(options.seed, &format!("workload {at}")),
            records: options.records,
            fan_out: options.fan_out,
            bad: options.faults.bad_events,
            accounts: options
                .accounts
                .iter()
                .map(|account| account.name.clone())
                .collect(),
        }
    }

    /// The next event as its producer writes it, at this time of the wall clock.
    pub fn next_event(&mut self, wall_ms: i64) -> Vec<u8> {
        let dice = &mut self.dice;
        let operation = match dice.below(100) {
            0..40 => "UPDATE",
            40..62 => "UPSERT",
            62..80 => "CREATE",
            80..91 => "DELETE",
            _ => "READ",
        };
        let mut event = Map::new();
        event.insert("operation".into(), operation.into());
        event.insert("object".into(), (*dice.pick(&OBJECTS)).into());
        event.insert(
            "record_id".into(),
            format!("r{}", dice.below(self.records)).into(),
        );
        if !dice.chance(self.fan_out * 10) {
            let account = dice.pick(&self.accounts).clone();
            event.insert("provider".into(), account.into());
        }
        if !matches!(operation, "READ" | "DELETE") {
            event.insert("data".into(), Value::Object(data(dice)));
        }
        if dice.chance(200) {
            event.insert("priority".into(), dice.between(1, 10).into());
        }
        if dice.chance(60) {
            event.insert(
                "scheduled_at".into(),
                (wall_ms + dice.below(8_000) as i64).into(),
            );
        }
        if dice.chance(100) {
            event.insert(
                "changed_at".into(),
                (wall_ms - dice.below(20_000) as i64).into(),
            );
        }
        if dice.chance(self.bad) {
            event.insert("priority".into(), 99.into());
        }
        Value::Object(event).to_string().into_bytes()
    }
}

fn data(dice: &mut Dice) -> Map<String, Value> {
    let mut fields = Map::new();
    for _ in 0..dice.between(1, 3) {
        let name = *dice.pick(&FIELDS);
        let value = match (name, dice.below(10)) {
            (_, 0) => Value::Null,
            ("address", 1..=6) => json!({ (*dice.pick(&["street", "zip"])): dice.below(50) }),
            ("tags", 1..=6) => json!([dice.below(9), dice.below(9)]),
            _ => json!(dice.below(1000)),
        };
        fields.insert(name.into(), value);
    }
    if dice.chance(20) {
        fields.insert(
            "blob".into(),
            "x".repeat(dice.between(1_000, 6_000) as usize).into(),
        );
    }
    fields
}
