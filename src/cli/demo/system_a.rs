//! System A as the demo plays it: the records it holds, and what each account should hold of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::accounts::{ACCOUNTS, AccountPlan};

/// The records by account, since a delete or a named target concerns one alone.
#[derive(Debug, Default)]
pub(super) struct SystemA {
    records: BTreeMap<RecordKey, Standing>,
    /// Every record an event was taken for, at any account.
    touched: BTreeSet<(String, String)>,
}

/// A record at an account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RecordKey {
    pub(super) account: &'static str,
    pub(super) object: String,
    pub(super) record_id: String,
}

#[derive(Debug)]
enum Standing {
    Present(Map<String, Value>),
    Deleted,
}

impl SystemA {
    /// Folds in an event that was acknowledged, in the order of acknowledgement.
    pub(super) fn apply(&mut self, event: &Value) {
        let Some(record_id) = text(event, &["record_id", "id"]) else {
            return;
        };
        let Some(object) = text(event, &["object"]) else {
            return;
        };
        let Some(operation) = text(event, &["operation", "op", "action"]) else {
            return;
        };
        let named = text(event, &["provider", "crm"]);
        self.touched.insert((object.clone(), record_id.clone()));
        for account in &ACCOUNTS {
            let goes_there = match &named {
                Some(name) => name == account.name,
                None => account.object(&object).is_some(),
            };
            if goes_there {
                let key = RecordKey {
                    account: account.name,
                    object: object.clone(),
                    record_id: record_id.clone(),
                };
                self.apply_at(key, &operation.to_ascii_uppercase(), event);
            }
        }
    }

    fn apply_at(&mut self, key: RecordKey, operation: &str, event: &Value) {
        let data = ["data", "payload"]
            .into_iter()
            .find_map(|name| event[name].as_object());
        let standing = self.records.get_mut(&key);
        match (operation, standing) {
            ("READ", _) => {}
            ("DELETE", _) => {
                self.records.insert(key, Standing::Deleted);
            }
            // It fails: the record was deleted.
            ("UPDATE", Some(Standing::Deleted)) => {}
            (_, Some(Standing::Present(fields))) => merge(fields, data),
            (_, None | Some(Standing::Deleted)) => {
                let mut fields = Map::new();
                merge(&mut fields, data);
                self.records.insert(key, Standing::Present(fields));
            }
        }
    }

    /// What an account should hold: the remote object's name and the remote fields by record.
    pub(super) fn expected(
        &self,
        account: &AccountPlan,
    ) -> BTreeMap<RecordKey, (String, Map<String, Value>)> {
        let of_account = self
            .records
            .iter()
            .filter(|(key, _)| key.account == account.name);
        of_account
            .filter_map(|(key, standing)| {
                let Standing::Present(fields) = standing else {
                    return None;
                };
                let mapped = match account.object(&key.object) {
                    Some(plan) => (plan.remote.to_owned(), plan.mapped(fields)),
                    // Without a mapping the fields go as they are.
                    None => (key.object.clone(), fields.clone()),
                };
                Some((key.clone(), mapped))
            })
            .collect()
    }

    /// The fields of a record that is there.
    pub(super) fn fields(&self, key: &RecordKey) -> Option<&Map<String, Value>> {
        match self.records.get(key)? {
            Standing::Present(fields) => Some(fields),
            Standing::Deleted => None,
        }
    }

    /// How many records there were events for.
    pub(super) fn touched(&self) -> usize {
        self.touched.len()
    }
}

/// RFC 7396, for records.
fn merge(fields: &mut Map<String, Value>, change: Option<&Map<String, Value>>) {
    for (name, value) in change.into_iter().flatten() {
        match value {
            Value::Null => {
                fields.shift_remove(name);
            }
            Value::Object(inner) => {
                let slot = fields
                    .entry(name.clone())
                    .or_insert_with(|| Value::Object(Map::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Some(slot) = slot.as_object_mut() {
                    merge(slot, Some(inner));
                }
            }
            _ => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
}

fn text(event: &Value, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| match &event[*name] {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn contact(operation: &str, data: Value) -> Value {
        json!({"operation": operation, "object": "contact", "record_id": "c-1", "data": data})
    }

    fn expected_after(events: &[Value]) -> Vec<Value> {
        let mut system_a = SystemA::default();
        events.iter().for_each(|event| system_a.apply(event));
        let expected = ACCOUNTS
            .iter()
            .flat_map(|account| system_a.expected(account));
        expected
            .map(|(_, (_, fields))| Value::Object(fields))
            .collect()
    }

    #[test]
    fn changes_merge_and_null_clears() {
        let events = [
            contact(
                "CREATE",
                json!({"first_name": "Ada", "email": "A@b.c", "phone": "1"}),
            ),
            contact("update", json!({"phone": null, "status": "inactive"})),
        ];
        assert_eq!(
            expected_after(&events),
            [
                json!({"FirstName": "Ada", "Email": "a@b.c", "Status__c": "I"}),
                json!({"email_address": "a@b.c", "merge_fname": "Ada", "status": "unsubscribed"}),
            ]
        );
    }

    #[test]
    fn a_deleted_record_comes_back_by_create_and_not_by_update() {
        let create = contact("CREATE", json!({"first_name": "Ada", "email": "a@b.c"}));
        let delete = json!({"operation": "DELETE", "object": "contact", "record_id": "c-1"});
        let update = contact("UPDATE", json!({"first_name": "Eve"}));
        assert!(expected_after(&[create.clone(), delete.clone(), update]).is_empty());
        let again = contact("CREATE", json!({"first_name": "Eve"}));
        assert_eq!(
            expected_after(&[create, delete, again])[0],
            json!({"FirstName": "Eve"})
        );
    }

    #[test]
    fn a_named_account_alone_gets_the_event() {
        let mut event = contact("UPSERT", json!({"first_name": "Ada"}));
        event["provider"] = json!("mail");
        assert_eq!(expected_after(&[event]), [json!({"merge_fname": "Ada"})]);
    }
}
