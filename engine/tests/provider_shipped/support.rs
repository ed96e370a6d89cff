//! Requests and replies for any definition.

use bytes::Bytes;
use serde_json::Value;
use syncline_engine::provider::CallKind::{Create, Delete, Read};
use syncline_engine::provider::{
    BatchItem, BatchItemRef, BatchVerdict, BodyEnd, CallKind, Definition, Field, Reply,
    ReplyHeaders, Subject, Verdict, shipped,
};

pub(crate) const FIELDS: &[Field<'static>] = &[
    Field {
        name: "LastName",
        value: "\"Lovelace\"",
    },
    Field {
        name: "Score",
        value: "1.50",
    },
    Field {
        name: "Phone",
        value: "null",
    },
];

pub(crate) fn definition(id: &str) -> Definition {
    Definition::parse(shipped(id).unwrap()).unwrap()
}

pub(crate) fn subject(object: &'static str) -> Subject<'static> {
    Subject {
        object,
        record_id: "c/42",
        remote_id: Some("7001"),
        fields: FIELDS,
    }
}

pub(crate) fn request(
    definition: &Definition,
    kind: CallKind,
    object: &'static str,
) -> (String, String) {
    let request = definition.render(kind, &subject(object)).unwrap();
    let line = format!("{} {}", request.method.as_str(), request.path_and_query);
    (line, String::from_utf8(request.body.to_vec()).unwrap())
}

pub(crate) fn reply(status: u16, body: impl ToString) -> Reply {
    Reply {
        status,
        retry_after: None,
        date: None,
        headers: ReplyHeaders::default(),
        body: Bytes::from(body.to_string()),
        body_end: BodyEnd::Complete,
    }
}

pub(crate) fn classify(id: &str, kind: CallKind, reply: &Reply) -> Verdict {
    definition(id).classify(kind, "c-42", reply, now())
}

pub(crate) fn now() -> jiff::Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

pub(crate) fn done(remote_id: Option<&str>, created: bool) -> Verdict {
    Verdict::Done {
        remote_id: remote_id.map(str::to_owned),
        created,
    }
}

/// The reply of a batch of `kind` whose records are `c-0`, `c-1` … with remote ids `r0`, `r1` …
pub(crate) fn classify_batch(
    id: &str,
    kind: CallKind,
    object: &str,
    count: usize,
    reply: &Reply,
) -> BatchVerdict {
    let ids = ids(count);
    let definition = definition(id);
    let group = definition.batch_group(kind, object).unwrap();
    definition.classify_batch(group, &items(kind, &ids), reply, now())
}

/// The records that a batch of reads shows, in the order of the call.
pub(crate) fn parts(id: &str, object: &str, count: usize, reply: &Reply) -> Vec<Option<String>> {
    let ids = ids(count);
    let definition = definition(id);
    let group = definition.batch_group(Read, object).unwrap();
    let parts = definition.batch_parts(group, &items(Read, &ids), reply);
    let record = |part: Reply| definition.record_in(&part.body).unwrap().0.to_owned();
    parts.into_iter().map(|part| part.map(record)).collect()
}

fn ids(count: usize) -> Vec<(String, String)> {
    (0..count)
        .map(|at| (format!("c-{at}"), format!("r{at}")))
        .collect()
}

fn items(kind: CallKind, ids: &[(String, String)]) -> Vec<BatchItemRef<'_>> {
    ids.iter()
        .map(|(record_id, remote_id)| BatchItemRef {
            kind,
            record_id,
            remote_id: (kind != Create).then_some(remote_id),
        })
        .collect()
}

pub(crate) fn classes(verdict: BatchVerdict) -> Vec<&'static str> {
    match verdict {
        BatchVerdict::Items(verdicts) => verdicts.iter().map(Verdict::class).collect(),
        BatchVerdict::Whole(verdict) => vec!["whole", verdict.class()],
        BatchVerdict::Split { .. } => vec!["split"],
    }
}

pub(crate) fn batch_body(id: &str, kind: CallKind, object: &'static str) -> (String, Value) {
    let definition = definition(id);
    let items: Vec<_> = [("c-0", "r0"), ("c-1", "r1")]
        .map(|(record_id, remote_id)| BatchItem {
            kind,
            subject: Subject {
                object,
                record_id,
                remote_id: Some(remote_id),
                fields: if kind == Delete { &[] } else { &FIELDS[..1] },
            },
        })
        .to_vec();
    let group = definition.batch_group(kind, object).unwrap();
    let request = definition.render_batch(group, &items).unwrap();
    let line = format!("{} {}", request.method.as_str(), request.path_and_query);
    let body = match request.body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&request.body).unwrap(),
    };
    (line, body)
}
