//! The events that clients send: few records, every operation, everything optional sometimes.

use serde_json::{Map, Value, json};

use super::dice::Dice;
use super::options::Options;
use super::sets::data::fields;

const OBJECTS: [&str; 2] = ["contact", "company"];
const FIELDS: [&str; 6] = ["name", "email", "status", "city", "address", "tags"];
/// Events out of a thousand with which a burst begins.
const BURSTS: u32 = 60;

/// What one producer sends, made as it is needed.
#[derive(Debug)]
pub struct Workload {
    dice: Dice,
    records: u64,
    fan_out: u32,
    bad: u32,
    accounts: Vec<String>,
    /// What its own records are named after, and how many there are.
    name: String,
    born: u64,
    burst: Option<Burst>,
    /// Fields are of the kinds that mappings and rules read.
    typed: bool,
}

/// Changes of one record in a row, as an import or an eager user makes them.
#[derive(Debug)]
struct Burst {
    object: &'static str,
    record_id: String,
    provider: Option<String>,
    left: u64,
    /// Its first change is to make the record.
    born: bool,
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
            name: format!("p{at}-"),
            born: 0,
            burst: None,
            typed: options.sets.is_some(),
        }
    }

    /// The next event as its producer writes it, at this time of the wall clock.
    pub fn next_event(&mut self, wall_ms: i64) -> Vec<u8> {
        if self.burst.as_ref().is_none_or(|burst| burst.left == 0) {
            self.burst = self.dice.chance(BURSTS).then(|| self.new_burst());
        }
        let burst = self.burst.as_mut();
        let dice = &mut self.dice;
        let mut event = Map::new();
        let operation = match burst {
            Some(burst) => burst.next(dice, &mut event),
            None => {
                event.insert("object".into(), (*dice.pick(&OBJECTS)).into());
                event.insert(
                    "record_id".into(),
                    format!("r{}", dice.below(self.records)).into(),
                );
                if !dice.chance(self.fan_out * 10) {
                    event.insert("provider".into(), dice.pick(&self.accounts).clone().into());
                }
                match dice.below(100) {
                    0..40 => "UPDATE",
                    40..62 => "UPSERT",
                    62..80 => "CREATE",
                    80..91 => "DELETE",
                    _ => "READ",
                }
            }
        };
        event.insert("operation".into(), operation.into());
        if !matches!(operation, "READ" | "DELETE") {
            let data = if self.typed { fields(dice) } else { data(dice) };
            event.insert("data".into(), Value::Object(data));
        }
        if self.typed && operation != "CREATE" && dice.chance(400) {
            event.insert("before".into(), Value::Object(fields(dice)));
        }
        if dice.chance(200) {
            event.insert("priority".into(), dice.between(1, 10).into());
        }
        if dice.chance(if self.burst.is_some() { 15 } else { 60 }) {
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

    /// Half of the bursts are of a record that nobody knows yet.
    fn new_burst(&mut self) -> Burst {
        let dice = &mut self.dice;
        let born = dice.chance(500);
        let record_id = if born {
            self.born += 1;
            format!("{}{}", self.name, self.born)
        } else {
            format!("r{}", dice.below(self.records))
        };
        let to_all = dice.chance(self.fan_out * 10);
        Burst {
            object: dice.pick::<&str>(&OBJECTS),
            record_id,
            provider: (!to_all).then(|| dice.pick(&self.accounts).clone()),
            left: dice.between(2, 24),
            born,
        }
    }
}

impl Burst {
    fn next(&mut self, dice: &mut Dice, event: &mut Map<String, Value>) -> &'static str {
        event.insert("object".into(), self.object.into());
        event.insert("record_id".into(), self.record_id.clone().into());
        if let Some(provider) = &self.provider {
            event.insert("provider".into(), provider.clone().into());
        }
        self.left -= 1;
        if std::mem::take(&mut self.born) {
            return "CREATE";
        }
        match dice.below(100) {
            0..62 => "UPDATE",
            62..86 => "UPSERT",
            86..90 => "CREATE",
            90..97 => "DELETE",
            _ => "READ",
        }
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
