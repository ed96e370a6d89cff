//! Fields of records where mappings and rules read them: each of its kind, and now and then not.

use serde_json::{Map, Value, json};

use crate::sim::dice::Dice;

const FIELDS: [&str; 9] = [
    "name",
    "email",
    "status",
    "city",
    "address",
    "tags",
    "amount",
    "company",
    "do_not_sync",
];
/// Values out of a thousand that are not of their field's kind.
const ODD: u32 = 15;

/// Some fields of a record.
pub fn fields(dice: &mut Dice) -> Map<String, Value> {
    let mut fields = Map::new();
    for _ in 0..dice.between(1, 5) {
        let name = *dice.pick(&FIELDS);
        fields.insert(name.to_owned(), value(name, dice));
    }
    if dice.chance(20) {
        let blob = "x".repeat(dice.between(1_000, 6_000) as usize);
        fields.insert("blob".to_owned(), blob.into());
    }
    fields
}

fn value(name: &str, dice: &mut Dice) -> Value {
    if dice.chance(100) {
        return Value::Null;
    }
    if dice.chance(ODD) {
        return match name {
            "tags" => json!(["a;b"]),
            "status" => json!("odd"),
            "name" => json!("n/a"),
            "amount" => json!("much"),
            _ => json!(7),
        };
    }
    match name {
        "name" => dice.below(1000).into(),
        "email" => format!("m{}@x.y", dice.below(100)).into(),
        "status" => (*dice.pick(&["active", "lead", "gone"])).into(),
        "city" => dice.chance(500).into(),
        "address" => match dice.below(3) {
            0 => json!({"street": dice.below(50), "zip": dice.below(50)}),
            _ => json!({ (*dice.pick(&["street", "zip"])): dice.below(50) }),
        },
        "tags" => {
            let tags = (0..dice.between(1, 3)).map(|_| format!("t{}", dice.below(9)));
            tags.collect::<Vec<_>>().into()
        }
        "amount" => dice.below(10_000).to_string().into(),
        "company" => (*dice.pick(&["", "acme", "c-1"])).into(),
        _ => dice.chance(200).into(),
    }
}
