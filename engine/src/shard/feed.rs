//! What System A is told: one change as JSON.

use bytes::Bytes;

use super::item::Item;
use super::prepare::Payload;
use super::telling::{self, RemoteId, Telling};
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
    if let Some(first) = item.tellings.first() {
        change.text("provider", &first.origin);
        if let Some(remote_id) = remote_id(item, first) {
            change.text("remote_id", remote_id);
        }
        change.text("origin", &first.origin);
        let others = telling::others(&item.tellings);
        if !others.is_empty() {
            let mut origins = ObjectWriter::open(change.member("origins"));
            for (field, origin) in others {
                origins.text(field, origin);
            }
            origins.close();
        }
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

/// The account's id of the record. What was sent once is sent again as it was: the link may be
/// another one by then.
fn remote_id<'i>(item: &'i Item, telling: &'i Telling) -> Option<&'i str> {
    match &telling.remote_id {
        RemoteId::Then(remote_id) => remote_id.as_deref(),
        RemoteId::Now => {
            let target = item.states[0].target(&telling.origin);
            target.and_then(|target| target.link.remote_id())
        }
    }
}
