//! What System A is told: one change as JSON.

use bytes::Bytes;

use super::item::Item;
use super::prepare::Payload;
use crate::event::Operation;
use crate::json::ObjectWriter;
use crate::timestamp::write_rfc3339;

/// The change an item makes, as System A reads it.
pub(super) fn change(item: &Item, payload: &Payload) -> Bytes {
    let mut body = Vec::new();
    let mut change = ObjectWriter::open(&mut body);
    let operation = match item.operation {
        Operation::Delete => Operation::Delete,
        Operation::Create | Operation::Upsert => Operation::Upsert,
        Operation::Update | Operation::Read | Operation::Pull => Operation::Update,
    };
    change.text("operation", operation.as_str());
    change.text("object", item.object());
    change.text("record_id", item.record_id());
    if let Some(origin) = &item.origin {
        change.text("provider", origin);
        let target = item.states[0].target(origin);
        if let Some(remote_id) = target.and_then(|target| target.link.remote_id()) {
            change.text("remote_id", remote_id);
        }
        change.text("origin", origin);
        if let Some(merged_into) = &item.merged_into {
            change.text("merged_into", merged_into);
        }
    }
    if operation != Operation::Delete {
        change.raw("data", &payload.fields);
        let names = change.member("changed");
        names.push(b'[');
        for (at, (name, _)) in super::dispatch::members(&payload.fields).iter().enumerate() {
            if at > 0 {
                names.push(b',');
            }
            crate::json::write_string(names, name);
        }
        names.push(b']');
    }
    let at = change.member("changed_at");
    at.push(b'"');
    write_rfc3339(at, item.lead.changed_at_ms);
    at.push(b'"');
    change.close();
    Bytes::from(body)
}
