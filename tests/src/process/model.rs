//! What the provider should hold after a stream of events: a few lines beside the real thing.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Both sides' records when all is delivered, by `object/record_id`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    records: BTreeMap<String, Map<String, Value>>,
}

impl Model {
    /// Applies one event, in the order of acceptance per record.
    ///
    /// # Panics
    /// When the event is not one that every test would send.
    pub fn apply(&mut self, event: &Value) {
        let text = |name: &str| {
            event[name]
                .as_str()
                .unwrap_or_else(|| panic!("{name} in {event}"))
        };
        let record = format!("{}/{}", text("object"), text("record_id"));
        if text("operation") == "DELETE" {
            self.records.remove(&record);
            return;
        }
        let fields = self.records.entry(record).or_default();
        for (name, value) in event["data"].as_object().expect("fields") {
            match value {
                // RFC 7396: null clears.
                Value::Null => drop(fields.remove(name)),
                value => drop(fields.insert(name.clone(), value.clone())),
            }
        }
    }

    /// Asserts that the provider holds exactly this.
    ///
    /// # Panics
    /// When it does not; names the first records that differ.
    pub fn assert_equals(&self, provider: &BTreeMap<String, Value>) {
        let mut differ = Vec::new();
        for (name, fields) in &self.records {
            let held = provider.get(name);
            if held.and_then(Value::as_object) != Some(fields) {
                differ.push(format!(
                    "{name}: expected {}, held {held:?}",
                    Value::Object(fields.clone())
                ));
            }
        }
        differ.extend(
            provider
                .keys()
                .filter(|name| !self.records.contains_key(*name))
                .map(|name| format!("{name}: should not be there")),
        );
        let count = differ.len();
        differ.truncate(5);
        assert!(
            count == 0,
            "{count} of {} records differ:\n{}",
            self.records.len(),
            differ.join("\n")
        );
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}
