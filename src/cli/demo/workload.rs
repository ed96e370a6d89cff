//! The events a demo streams: CRM-shaped records from a seed, or the lines of a file.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::dice::Dice;

/// Events in order, as one JSON object each.
#[derive(Debug)]
pub(super) enum Workload {
    Generated(Box<Generator>),
    File(std::vec::IntoIter<String>),
}

/// External ids that start so are refused by the simulated accounts for good.
pub(super) const REFUSED_PREFIX: &str = "bad-";

/// One event in this many is wrong on purpose, to show that it is refused and harms no neighbour.
const WRONG_EVERY: u64 = 151;
/// One contact in this many gets an id that the accounts refuse.
const REFUSED_CONTACT_EVERY: u64 = 61;
/// Records of one kind; small enough that most get several changes within a run.
const RECORDS_MAX: u64 = 150;
/// Contacts that change all the time, to show order under load.
const HOT_CONTACTS: u64 = 4;
/// Lines of a file kept in memory.
const FILE_LINES_MAX: usize = 1_000_000;

impl Workload {
    pub(super) fn generated(seed: u64) -> Workload {
        Workload::Generated(Box::new(Generator {
            dice: Dice::new(seed),
            made: 0,
            present: BTreeSet::new(),
        }))
    }

    /// The lines of a file of events, blank ones left out.
    ///
    /// # Errors
    /// When it cannot be read, or has more lines than a demo is for.
    pub(super) fn file(path: &Path) -> io::Result<Workload> {
        let text = std::fs::read_to_string(path)?;
        let lines: Vec<String> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(str::to_owned)
            .collect();
        if lines.len() > FILE_LINES_MAX {
            return Err(io::Error::other(format!(
                "a demo takes {FILE_LINES_MAX} events at most"
            )));
        }
        Ok(Workload::File(lines.into_iter()))
    }

    /// How many are left, where that is known.
    pub(super) fn left(&self) -> Option<usize> {
        match self {
            Workload::Generated(_) => None,
            Workload::File(lines) => Some(lines.len()),
        }
    }
}

impl Iterator for Workload {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        match self {
            Workload::Generated(generator) => Some(generator.event()),
            Workload::File(lines) => lines.next(),
        }
    }
}

/// Makes events; the same seed makes the same ones.
#[derive(Debug)]
pub(super) struct Generator {
    dice: Dice,
    made: u64,
    /// Records that exist once all events so far are done.
    present: BTreeSet<(&'static str, String)>,
}

impl Generator {
    fn event(&mut self) -> String {
        self.made += 1;
        if self.made.is_multiple_of(WRONG_EVERY) {
            return self.wrong();
        }
        let (object, id) = self.record();
        let key = (object, id.clone());
        let present = self.present.contains(&key);
        let roll = self.dice.below(100);
        let operation = match (present, roll) {
            (false, 0..70) => "CREATE",
            (false, _) => "UPSERT",
            (true, 0..80) => "UPDATE",
            (true, 80..92) => "UPSERT",
            (true, 92..96) => "READ",
            (true, _) => "DELETE",
        };
        let mut event = json!({"operation": operation, "object": object, "record_id": id});
        match operation {
            "READ" => {}
            "DELETE" => {
                self.present.remove(&key);
            }
            _ => {
                event["data"] = Value::Object(self.fields(object, !present));
                self.present.insert(key);
            }
        }
        if self.dice.below(10) == 0 {
            event["priority"] = json!(1 + self.dice.below(10));
        }
        event.to_string()
    }

    fn record(&mut self) -> (&'static str, String) {
        match self.dice.below(10) {
            0 | 1 => ("account", format!("acct-{}", self.dice.below(RECORDS_MAX))),
            2 | 3 => (
                "opportunity",
                format!("opp-{}", self.dice.below(RECORDS_MAX)),
            ),
            4 => ("contact", format!("cont-{}", self.dice.below(HOT_CONTACTS))),
            _ => {
                let number = self.dice.below(RECORDS_MAX);
                let refused = number % REFUSED_CONTACT_EVERY == REFUSED_CONTACT_EVERY - 1;
                let prefix = if refused { REFUSED_PREFIX } else { "cont-" };
                ("contact", format!("{prefix}{number}"))
            }
        }
    }

    /// All fields of a new record, or some of one that is there.
    fn fields(&mut self, object: &str, all: bool) -> Map<String, Value> {
        let names: &[&str] = match object {
            "account" => &["name", "domain", "tier", "employees"],
            "opportunity" => &["title", "amount", "stage", "account_id"],
            _ => &[
                "first_name",
                "last_name",
                "email",
                "status",
                "phone",
                "tags",
                "account_id",
            ],
        };
        let always = self.dice.below(names.len() as u64) as usize;
        let mut fields = Map::new();
        for (at, name) in names.iter().enumerate() {
            if all || at == always || self.dice.below(4) == 0 {
                fields.insert((*name).to_owned(), self.value(name, all));
            }
        }
        fields
    }

    fn value(&mut self, field: &str, new: bool) -> Value {
        const FIRST: [&str; 8] = [
            "Ada", "Grace", "Linus", "Margaret", "Édouard", "Søren", "美咲", "Zoë",
        ];
        const LAST: [&str; 8] = [
            "Lovelace",
            "Hopper",
            "Torvalds",
            "Hamilton",
            "Lucas",
            "Kierkegaard",
            "佐藤",
            "O'Neil",
        ];
        let number = self.dice.below(1_000_000);
        match field {
            "first_name" => json!(self.dice.one_of(&FIRST)),
            "last_name" => json!(self.dice.one_of(&LAST)),
            "email" => json!(format!(
                "  {}.{number}@Example.COM ",
                self.dice.one_of(&["Ada", "GRACE", "linus"])
            )),
            "status" => json!(self.dice.one_of(&["active", "inactive"])),
            "phone" if !new && number.is_multiple_of(5) => Value::Null,
            "phone" => json!(format!("+49 30 {number:06}")),
            "tags" => json!([
                self.dice.one_of(&["vip", "beta", "partner"]),
                format!("t{}", number % 9)
            ]),
            "account_id" => json!(format!("acct-{}", number % RECORDS_MAX)),
            "name" => json!(format!(
                "{} & Sons {}",
                self.dice.one_of(&LAST),
                number % 100
            )),
            "domain" => json!(format!(" WWW.Example-{}.com", number % 1_000)),
            "tier" => json!(self.dice.one_of(&["free", "pro", "enterprise"])),
            "employees" => json!(number % 5_000),
            "title" => json!(format!("Renewal {number}")),
            "amount" => json!(number as f64 / 4.0),
            _ => json!(self.dice.one_of(&["new", "won", "lost"])),
        }
    }

    fn wrong(&mut self) -> String {
        let id = format!("cont-{}", self.dice.below(RECORDS_MAX));
        let mut event = json!({"operation": "UPDATE", "object": "contact", "record_id": id, "data": {"phone": "0"}});
        match self.dice.below(3) {
            0 => event["priority"] = json!(11),
            1 => event["operation"] = json!("UPDTAE"),
            _ => event["recrod_id"] = json!("typo"),
        }
        event.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_events_again_and_another_makes_others() {
        let events = |seed| Workload::generated(seed).take(500).collect::<Vec<_>>();
        assert_eq!(events(7), events(7));
        assert_ne!(events(7), events(8));
    }

    #[test]
    fn nothing_is_changed_that_is_not_there() {
        let mut present = BTreeSet::new();
        for event in Workload::generated(1).take(5_000) {
            let event: Value = serde_json::from_str(&event).unwrap();
            let wrong = event["operation"] == "UPDTAE"
                || event["priority"] == 11
                || event["recrod_id"].is_string();
            if wrong {
                continue;
            }
            let key = (event["object"].to_string(), event["record_id"].to_string());
            match event["operation"].as_str().unwrap() {
                "CREATE" => assert!(present.insert(key), "{event}"),
                "UPSERT" => {
                    present.insert(key);
                }
                "DELETE" => assert!(present.remove(&key), "{event}"),
                _ => assert!(present.contains(&key), "{event}"),
            }
        }
    }
}
