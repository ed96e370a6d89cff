//! `/v1/records/{record_id}`: links, what both sides agreed on, and what each has.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use engine::merge::{Base, Fields};
use engine::record::Link;
use engine::shard::{RecordPicture, SidePicture, Standing};
use engine::view::PictureLookup;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Api;
use super::backend::Backend;
use super::operations::rfc3339;
use super::problem::Problem;
use super::sync::{ambiguous, unknown_record};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordQuery {
    object: Option<String>,
}

#[derive(Serialize)]
struct RecordJson<'a> {
    record_id: &'a str,
    object: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias_of: Option<&'a str>,
    links: Vec<Value>,
    sides: Vec<SideJson<'a>>,
}

#[derive(Serialize)]
struct SideJson<'a> {
    provider: &'a str,
    link: &'static str,
    remote_id: Option<&'a str>,
    deleted_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    merged_into: Option<&'a str>,
    /// What both sides agreed on, in System A's names.
    base: Option<Box<RawValue>>,
    versions: Option<Versions>,
    held: Vec<Value>,
    open: Vec<Value>,
    open_count: usize,
    written_at: Option<String>,
    seen_at: Option<String>,
    updated_at: Option<String>,
}

/// What each side has, as far as it is known here, in System A's names.
#[derive(Serialize)]
struct Versions {
    system_a: Option<Box<RawValue>>,
    provider: Option<Box<RawValue>>,
}

pub(super) async fn show<B: Backend>(
    State(api): State<Api<B>>,
    record_id: Result<Path<String>, PathRejection>,
    query: Result<Query<RecordQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let (Path(record_id), Query(query)) = (record_id?, query?);
    let found = api.backend.picture(&record_id, query.object.as_deref());
    match found.await? {
        PictureLookup::Found(picture) => Ok(Json(RecordJson::of(&picture)).into_response()),
        PictureLookup::Ambiguous(objects) => Err(ambiguous(objects)),
        PictureLookup::NotFound => Err(unknown_record(&record_id)),
    }
}

impl<'a> RecordJson<'a> {
    fn of(picture: &'a RecordPicture) -> RecordJson<'a> {
        let links = picture.sides.iter().filter_map(|side| {
            let remote_id = side.link.remote_id()?;
            Some(json!({"provider": side.account, "remote_id": remote_id}))
        });
        RecordJson {
            record_id: &picture.record_id,
            object: &picture.object,
            alias_of: picture.alias_of.as_deref(),
            links: links.collect(),
            sides: picture.sides.iter().map(SideJson::of).collect(),
        }
    }
}

impl<'a> SideJson<'a> {
    fn of(side: &'a SidePicture) -> SideJson<'a> {
        let base = side.base.as_deref();
        let (link, deleted_ms) = match side.link {
            Link::Unlinked => ("unlinked", None),
            Link::Linked(_) => ("linked", None),
            Link::Doubtful => ("doubtful", None),
            Link::Deleted { changed_at_ms } => ("deleted", Some(changed_at_ms)),
            Link::MergedInto(_) => ("merged", None),
        };
        SideJson {
            provider: &side.account,
            link,
            remote_id: side.link.remote_id(),
            deleted_at: deleted_ms.map(rfc3339),
            merged_into: match &side.link {
                Link::MergedInto(record_id) => Some(record_id),
                _ => None,
            },
            base: base.and_then(|base| raw(base.agreed())),
            versions: base.map(Versions::of),
            held: base.map(held_json).unwrap_or_default(),
            open: side.open.iter().map(open_json).collect(),
            open_count: side.open_count,
            written_at: base.and_then(|base| instant(base.written_ms())),
            seen_at: base.and_then(|base| instant(base.seen_ms())),
            updated_at: instant(side.updated_at_ms),
        }
    }
}

impl Versions {
    fn of(base: &Base) -> Versions {
        let mut system_a = base.agreed().clone();
        let mut provider = base.agreed().clone();
        provider.lay(base.shown());
        for (pointer, held) in base.held() {
            system_a.set(pointer, &held.ours);
            provider.set(pointer, &held.theirs);
        }
        Versions {
            system_a: raw(&system_a),
            provider: raw(&provider),
        }
    }
}

/// As it is kept, digit for digit.
fn raw(fields: &Fields) -> Option<Box<RawValue>> {
    RawValue::from_string(fields.to_json()).ok()
}

/// Zero stands for an instant that never was.
fn instant(at_ms: i64) -> Option<String> {
    (at_ms != 0).then(|| rfc3339(at_ms))
}

fn held_json(base: &Base) -> Vec<Value> {
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
    let held = base.held().iter().map(|(field, held)| {
        json!({
            "field": field,
            "system_a": value(&held.ours),
            "provider": value(&held.theirs),
            "since": rfc3339(held.since_ms),
        })
    });
    held.collect()
}

fn open_json(open: &Standing) -> Value {
    json!({
        "operation_id": open.id.to_string(),
        "operation": open.operation,
        "state": open.state.as_str(),
        "reason": open.reason.map(|reason| reason.as_str()),
        "accepted_at": rfc3339(open.accepted_at_ms),
    })
}
