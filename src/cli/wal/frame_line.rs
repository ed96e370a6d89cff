//! One frame of a log as a line: for people, or as JSON.

use std::fmt;

use ::wal::{FrameKind, LogId, Lsn};
use engine::entry::{Consumed, HoldChange, Intent, Lease, LeaseReturn};
use engine::event::codec::{self, AcceptedEvent};
use engine::id::{OperationId, OperationSeq, RecordHash};
use engine::journal::Kind;
use engine::quota::{Learned, LearnedFrom};
use engine::record::{KeyUse, Link, Progress, StateFrame};
use serde_json::{Map, Value, json};

use super::super::table::shown;

/// What a frame says. No key of the directory and no credential is ever in a frame.
pub(super) struct FrameLine {
    head: Map<String, Value>,
    /// The frame's own fields; an error in their place when it does not decode.
    fields: Map<String, Value>,
}

/// Reads a frame for showing. A frame that this build does not understand is shown as such.
pub(super) fn frame_line(log: LogId, lsn: Lsn, kind: FrameKind, payload: &[u8]) -> FrameLine {
    let known = Kind::from_byte(kind.0);
    let head = object([
        ("log", json!(log.to_string())),
        ("lsn", json!(lsn.get())),
        (
            "kind",
            json!(known.map_or_else(
                || format!("kind_{}", kind.0),
                |kind| kind.as_str().to_owned()
            )),
        ),
        ("bytes", json!(payload.len())),
    ]);
    let fields = match known {
        None => object([("error", json!("a kind that this build does not know"))]),
        Some(kind) => {
            fields(kind, payload).unwrap_or_else(|error| object([("error", json!(error))]))
        }
    };
    FrameLine { head, fields }
}

impl FrameLine {
    /// All of it as one object.
    pub(super) fn json(self) -> Value {
        let mut all = self.head;
        all.extend(self.fields);
        Value::Object(all)
    }
}

impl fmt::Display for FrameLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = |name| shown(&self.head[name]);
        write!(
            f,
            "{} {:>10} {:<14}",
            head("log"),
            head("lsn"),
            head("kind")
        )?;
        for (name, value) in self.fields.iter().filter(|(_, value)| !value.is_null()) {
            write!(f, " {name}={}", shown(value))?;
        }
        Ok(())
    }
}

fn fields(kind: Kind, payload: &[u8]) -> Result<Map<String, Value>, String> {
    Ok(match kind {
        Kind::Event | Kind::EventMoved | Kind::EventRedriven => {
            event(&codec::decode(payload).map_err(|error| error.to_string())?)
        }
        Kind::State | Kind::StateMoved => state(&StateFrame::decode(payload).map_err(damaged)?),
        Kind::Intent => {
            let intent = Intent::decode(payload).map_err(damaged)?;
            object([
                ("operation_id", operation_id(intent.record.0, intent.seq.0)),
                ("provider", json!(intent.account)),
                ("key", key(intent.key)),
                ("at", instant(intent.at_ms)),
            ])
        }
        Kind::Lease => {
            let lease = Lease::decode(payload).map_err(damaged)?;
            object([
                ("provider", json!(lease.account)),
                ("lease", json!(lease.id)),
                ("permits", json!(lease.permits)),
                ("usable_until", instant(lease.usable_until_ms)),
                ("calls", json!(lease.label)),
            ])
        }
        Kind::Learned => {
            let learned = Learned::decode(payload).map_err(damaged)?;
            let from = match learned.from {
                LearnedFrom::Provider => "provider",
                LearnedFrom::Refusals => "refusals",
            };
            object([
                ("provider", json!(learned.account)),
                ("limit", json!(learned.limit)),
                ("from", json!(from)),
                ("tokens", json!(learned.tokens)),
            ])
        }
        Kind::LeaseReturn => {
            let back = LeaseReturn::decode(payload).map_err(damaged)?;
            object([("lease", json!(back.id)), ("permits", json!(back.permits))])
        }
        Kind::Hold => {
            let hold = HoldChange::decode(payload).map_err(damaged)?;
            object([
                ("set", json!(hold.set)),
                ("provider", json!(hold.scope.provider)),
                ("object", json!(hold.scope.object)),
                ("record_id", json!(hold.scope.record_id)),
            ])
        }
        Kind::Consumed => {
            let consumed = Consumed::decode(payload).map_err(damaged)?;
            object([
                ("producer_hash", hex(consumed.producer)),
                ("acked_base", json!(consumed.acked_base)),
                ("seqs", json!(consumed.seqs)),
            ])
        }
    })
}

fn event(accepted: &AcceptedEvent<'_>) -> Map<String, Value> {
    let event = &accepted.event;
    let targets: Vec<&str> = accepted.targets.iter().map(|target| target.name).collect();
    object([
        (
            "operation_id",
            operation_id(accepted.record_hash, accepted.operation_seq),
        ),
        ("operation", json!(event.operation.as_str())),
        ("object", json!(event.object)),
        ("record_id", json!(event.record_id)),
        ("targets", json!(targets)),
        (
            "producer_hash",
            accepted
                .producer
                .map_or(Value::Null, |from| hex(from.producer_hash)),
        ),
        ("seq", json!(accepted.producer.map(|from| from.seq))),
        ("event_id", json!(event.event_id)),
        ("priority", json!(event.priority.get())),
        ("accepted_at", instant(accepted.accepted_at_ms)),
        (
            "scheduled_at",
            event.scheduled_at_ms.map_or(Value::Null, instant),
        ),
        (
            "data",
            event.data.map_or(Value::Null, |data| raw(data.text())),
        ),
    ])
}

/// The record whose operation moved; other records in the frame are there by chance of hashing.
fn state(frame: &StateFrame) -> Map<String, Value> {
    let record = &frame.records[0];
    let moved = frame.moved.map(usize::from);
    let targets = record.targets.iter().enumerate().map(|(at, target)| {
        let mut shown = object([("provider", json!(target.account))]);
        let link = match &target.link {
            Link::Unlinked => json!("unlinked"),
            Link::MergedInto(record_id) => json!({ "merged_into": record_id }),
            Link::Doubtful => json!("doubtful"),
            Link::Linked(remote_id) => json!({ "remote_id": remote_id }),
            Link::Deleted { changed_at_ms } => json!({ "deleted_at": instant(*changed_at_ms) }),
        };
        shown.insert("link".to_owned(), link);
        if let Some(last) = &target.last {
            shown.insert("moved".to_owned(), json!(moved == Some(at)));
            shown.extend(progress(frame.record, last));
        }
        Value::Object(shown)
    });
    object([
        ("object", json!(record.object)),
        ("record_id", json!(record.record_id)),
        ("targets", Value::Array(targets.collect())),
        (
            "previous",
            json!(Some(frame.previous).filter(|&lsn| lsn > 0)),
        ),
        (
            "other_records",
            json!(Some(frame.records.len() - 1).filter(|&more| more > 0)),
        ),
    ])
}

fn progress(record: u64, progress: &Progress) -> Map<String, Value> {
    let last = progress.attempts.last();
    object([
        ("operation_id", operation_id(record, progress.seq.0)),
        ("state", json!(progress.state.as_str())),
        (
            "reason",
            json!(progress.reason.map(|reason| reason.as_str())),
        ),
        ("attempts", json!(progress.attempts.len())),
        ("status", json!(last.map(|attempt| attempt.status))),
        ("class", json!(last.map(|attempt| attempt.class.as_str()))),
        ("key", key(progress.key)),
        ("updated_at", instant(progress.updated_at_ms)),
    ])
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn operation_id(record: u64, seq: u64) -> Value {
    json!(
        OperationId {
            record: RecordHash(record),
            seq: OperationSeq(seq)
        }
        .to_string()
    )
}

/// Which of the operation's idempotency keys: the nth.
fn key(key: KeyUse) -> Value {
    json!(Some(key.number).filter(|&number| number > 0))
}

fn hex(number: u64) -> Value {
    json!(format!("{number:016x}"))
}

fn instant(ms: i64) -> Value {
    let mut out = Vec::new();
    engine::timestamp::write_rfc3339(&mut out, ms);
    json!(String::from_utf8_lossy(&out))
}

/// A value from the log; its text when that is no JSON.
fn raw(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

fn damaged(error: engine::codec::Damaged) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId {
        generation: 1,
        shard: 0,
    };

    fn line(kind: Kind, payload: &[u8]) -> FrameLine {
        frame_line(LOG, Lsn::new(4160), FrameKind(kind as u8), payload)
    }

    #[test]
    fn a_lease_is_one_line_for_people_and_one_object_for_programs() {
        let mut payload = Vec::new();
        let lease = Lease {
            account: "crm",
            id: 7,
            permits: 20,
            usable_until_ns: 1,
            usable_until_ms: 1_000,
            boot: 2,
            label: "lookup",
            settled_from: 7,
            settled_below: 7,
            settled_by_ns: 1,
        };
        lease.encode(&mut payload);
        assert_eq!(
            line(Kind::Lease, &payload).to_string(),
            "1/0       4160 lease          provider=crm lease=7 permits=20 usable_until=1970-01-01T00:00:01.000Z calls=lookup"
        );
        let shown = line(Kind::Lease, &payload).json();
        assert_eq!(shown["lsn"], 4160);
        assert_eq!(shown["permits"], 20);
    }

    #[test]
    fn a_frame_that_does_not_decode_is_shown_as_that() {
        for kind in 1..=12 {
            let shown = frame_line(LOG, Lsn::new(8), FrameKind(kind), b"\xff\xff").json();
            assert!(shown["error"].is_string(), "{shown}");
        }
    }

    #[test]
    fn text_from_a_producer_commands_no_terminal() {
        let mut payload = Vec::new();
        let scope = engine::entry::HoldScope {
            record_id: Some("a\u{1b}[2J".into()),
            ..Default::default()
        };
        HoldChange { scope, set: true }.encode(&mut payload);
        assert!(
            line(Kind::Hold, &payload)
                .to_string()
                .ends_with("record_id=a\\u{1b}[2J")
        );
    }
}
