//! Changes of System A's tables, taken as events.

use std::sync::Arc;

use bytes::Bytes;
use engine::json::{ObjectWriter, RawObject, RawValue, canonical_hash};
use engine::refusal::Refusal;
use net::http::Backend;
use postgres::{Change, Event, Lsn, Operation, SourceSettings};
use tokio::sync::{mpsc, watch};

use super::{RETRY_MAX, RETRY_MIN};
use crate::runtime::backend::Node;

/// Events of the source that wait for the log; beyond it the source is not read.
const EVENTS_MAX: usize = 1024;
/// Changes handed in at once.
const BATCH_MAX: usize = 256;

/// Follows the tables until told to stop. What cannot be cured by time ends it, and is logged.
pub(super) async fn follow(
    settings: SourceSettings,
    objects: Vec<(String, String)>,
    node: Arc<Node>,
    mut stopped: watch::Receiver<bool>,
) {
    if objects.is_empty() {
        return;
    }
    let (to_us, events) = mpsc::channel(EVENTS_MAX);
    let (confirmed, confirm) = watch::channel(Lsn::default());
    let taking = Taking {
        objects,
        node,
        confirmed,
    };
    let taking = tokio::spawn(taking.run(events));
    tokio::select! {
        ended = postgres::follow(settings, to_us, confirm) => if let Err(error) = ended {
            tracing::error!(%error, "System A's tables are not followed any more");
        },
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    taking.abort();
}

struct Taking {
    objects: Vec<(String, String)>,
    node: Arc<Node>,
    confirmed: watch::Sender<Lsn>,
}

impl Taking {
    async fn run(self, mut events: mpsc::Receiver<Event>) {
        let mut batch: Vec<Bytes> = Vec::new();
        while let Some(event) = events.recv().await {
            match event {
                Event::Change(change) => {
                    batch.extend(self.event(&change));
                    if batch.len() >= BATCH_MAX {
                        self.take(&mut batch).await;
                    }
                }
                Event::Committed { lsn } | Event::SnapshotEnded { lsn } => {
                    // Several small transactions share a commit of the log when they are there.
                    if events.is_empty() || batch.len() >= BATCH_MAX {
                        self.take(&mut batch).await;
                    }
                    if batch.is_empty() {
                        self.confirmed.send_replace(lsn);
                    }
                }
                Event::SnapshotStarted { lsn } => {
                    tracing::info!(lsn = %lsn, "all rows of System A's tables are read");
                }
                Event::Truncated { table, .. } => {
                    tracing::warn!(%table, "a table was emptied: no record is deleted for that");
                }
                Event::Unreadable {
                    table, lsn, reason, ..
                } => {
                    tracing::error!(%table, %lsn, %reason, "a row cannot be told and is left out");
                }
                Event::Drift(drift) => {
                    tracing::warn!(%drift, "a table is not as the settings expect");
                }
                Event::Interrupted { reason } => {
                    tracing::warn!(reason, "the connection to System A was lost; tried again");
                }
            }
        }
    }

    /// Hands events in until each is durable or refused for good.
    async fn take(&self, batch: &mut Vec<Bytes>) {
        let mut delay = RETRY_MIN;
        while !batch.is_empty() {
            let answers = self.node.submit(batch.clone()).await;
            let mut again = Vec::new();
            for (event, answer) in batch.drain(..).zip(answers) {
                match answer {
                    Ok(_) => {}
                    Err(refusal) if refusal.code.retry() => again.push(event),
                    Err(refusal) => refused(&refusal),
                }
            }
            *batch = again;
            if !batch.is_empty() {
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY_MAX);
            }
        }
    }

    /// A row's change as an event; none for a table that is no object's, or if nothing changed.
    fn event(&self, change: &Change) -> Option<Bytes> {
        let mut objects = self.objects.iter();
        let (_, object) = objects.find(|(table, _)| **table == *change.table)?;
        let data = match (change.operation, &change.before) {
            (Operation::Update, Some(before)) => {
                let changed = changed(before, &change.data)?;
                Some(changed)
            }
            (Operation::Delete, _) => None,
            _ => Some(change.data.clone()),
        };
        let operation = match change.operation {
            Operation::Insert => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Snapshot => "UPSERT",
        };
        let mut out = Vec::new();
        let mut event = ObjectWriter::open(&mut out);
        event.text("operation", operation);
        event.text("object", object);
        event.text("record_id", &change.key);
        event.text("event_id", &change.id());
        if let Some(data) = &data {
            event.raw("data", data);
        }
        if let Some(before) = change.before.as_ref().filter(|_| data.is_some()) {
            event.raw("before", before);
        }
        let at = event.member("changed_at");
        at.push(b'"');
        engine::timestamp::write_rfc3339(at, change.changed_at_ms);
        at.push(b'"');
        event.close();
        Some(Bytes::from(out))
    }
}

/// The members of `after` that are not in `before` as they are; `None` when there is none.
fn changed(before: &str, after: &str) -> Option<String> {
    let (before, after) = (RawObject::new(before)?, RawObject::new(after)?);
    let mut out = Vec::new();
    let mut object = ObjectWriter::open(&mut out);
    let mut any = false;
    for member in after.members() {
        let was = before.get(&member.key.name());
        if was.is_some_and(|was| same(was, member.value)) {
            continue;
        }
        any = true;
        let place = object.member_escaped(member.key.escaped());
        place.extend_from_slice(member.value.text().as_bytes());
    }
    object.close();
    any.then(|| String::from_utf8(out).expect("copied from UTF-8 texts"))
}

fn same(one: RawValue<'_>, other: RawValue<'_>) -> bool {
    one.text() == other.text() || canonical_hash(one) == canonical_hash(other)
}

fn refused(refusal: &Refusal) {
    tracing::warn!(
        code = refusal.code.as_str(),
        detail = %refusal,
        "a row's change is refused and left out"
    );
}
