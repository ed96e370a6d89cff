//! Several requests in one call: up to 25, of which five may be collections or queries.

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::wrong::Wrong;
use super::{Ask, Salesforce};
use crate::exchange::Reply;
use crate::provider::{Scene, Subject};

/// Subrequests of a composite call (REST API Developer Guide, Composite).
const PARTS_MAX: usize = 25;
/// Of which collections or queries (the same page).
const HEAVY_PARTS_MAX: usize = 5;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(default)]
    all_or_none: bool,
    composite_request: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    method: String,
    url: String,
    reference_id: String,
    #[serde(default)]
    body: Value,
}

impl Salesforce {
    pub(super) fn composite(&mut self, scene: &Scene<'_>, ask: &Ask) -> Result<Reply, Wrong> {
        let body = Body::of(ask)?;
        let before = body.all_or_none.then(|| self.crm.clone());
        let mut replies: Vec<(String, Reply)> = Vec::with_capacity(body.composite_request.len());
        for (index, part) in body.composite_request.iter().enumerate() {
            // Each part has dice of its own, or one lock would lock a row in all of them.
            let scene = Scene {
                roll: scene.roll.of_record(1_000 + index),
                ..*scene
            };
            let reply = match part.resolved(&replies).and_then(|part| part.ask(ask)) {
                Ok(asked) => self.resource(&scene, &asked),
                Err(wrong) => wrong.into_reply(),
            };
            replies.push((part.reference_id.clone(), reply));
        }
        let failed = replies.iter().any(|(_, reply)| reply.status >= 400);
        if let Some(before) = before.filter(|_| failed) {
            self.crm = before;
            for (_, reply) in replies.iter_mut().filter(|(_, reply)| reply.status < 400) {
                let message = "The transaction was rolled back since another operation in the \
                               same transaction failed.";
                *reply = Wrong::new("PROCESSING_HALTED", message).into_reply();
            }
        }
        let parts: Vec<Value> = replies
            .iter()
            .map(|(reference, reply)| {
                json!({
                    "body": body_of(reply),
                    "httpHeaders": {},
                    "httpStatusCode": reply.status,
                    "referenceId": reference,
                })
            })
            .collect();
        Ok(Reply::json(200, &json!({ "compositeResponse": parts })))
    }

    /// What a composite call or a collection is about.
    pub(super) fn composite_subject(&self, ask: &Ask) -> Subject {
        if ask.parts.len() > 1 {
            return self.collection_subject(ask);
        }
        let mut whole = Subject::none();
        let parts = Body::of(ask).map(|body| body.composite_request);
        for part in parts.unwrap_or_default() {
            let Ok(asked) = part.ask(ask) else {
                continue;
            };
            let subject = self.subject_of(&asked);
            whole.records += subject.records;
            whole.writes.extend(subject.writes);
            whole.object = whole.object.or(subject.object);
        }
        whole
    }
}

impl Body {
    fn of(ask: &Ask) -> Result<Self, Wrong> {
        let body: Self = serde_json::from_slice(&ask.body)
            .map_err(|error| Wrong::new("JSON_PARSER_ERROR", error.to_string()))?;
        let heavy = body.composite_request.iter().filter(|part| part.is_heavy());
        if body.composite_request.len() > PARTS_MAX || heavy.count() > HEAVY_PARTS_MAX {
            let message = format!(
                "a composite request takes {PARTS_MAX} subrequests, {HEAVY_PARTS_MAX} of them \
                 collections or queries"
            );
            return Err(Wrong::new("LIMIT_EXCEEDED", message));
        }
        Ok(body)
    }
}

impl Part {
    fn is_heavy(&self) -> bool {
        self.url.contains("/composite/sobjects") || self.url.contains("/query")
    }

    fn ask(&self, whole: &Ask) -> Result<Ask, Wrong> {
        let method = Method::from_bytes(self.method.as_bytes());
        let method = method.map_err(|_| Wrong::new("INVALID_INPUT", "unknown method"))?;
        let body = match &self.body {
            Value::Null => Bytes::new(),
            body => Bytes::from(body.to_string()),
        };
        let asked = Ask::parse(method, &self.url, whole.headers.clone(), body);
        // A composite call inside of another is not taken.
        let asked = asked.filter(|asked| asked.parts != ["composite"]);
        asked.ok_or_else(Wrong::not_found)
    }

    /// The part with `@{reference.path}` replaced by what earlier parts answered.
    fn resolved(&self, earlier: &[(String, Reply)]) -> Result<Self, Wrong> {
        Ok(Self {
            method: self.method.clone(),
            url: fill(&self.url, earlier)?,
            reference_id: self.reference_id.clone(),
            body: fill_all(&self.body, earlier)?,
        })
    }
}

fn fill_all(value: &Value, earlier: &[(String, Reply)]) -> Result<Value, Wrong> {
    Ok(match value {
        Value::String(text) => fill(text, earlier)?.into(),
        Value::Array(items) => {
            let items = items.iter().map(|item| fill_all(item, earlier));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Value::Object(members) => {
            let members = members
                .iter()
                .map(|(name, member)| Ok((name.clone(), fill_all(member, earlier)?)));
            Value::Object(members.collect::<Result<_, Wrong>>()?)
        }
        other => other.clone(),
    })
}

fn fill(text: &str, earlier: &[(String, Reply)]) -> Result<String, Wrong> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("@{") {
        let (reference, after) = behind.split_once('}').unwrap_or((behind, ""));
        filled.push_str(before);
        filled.push_str(&look_up(reference, earlier)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn look_up(reference: &str, earlier: &[(String, Reply)]) -> Result<String, Wrong> {
    let (name, path) = reference.split_once('.').unwrap_or((reference, ""));
    let reply = earlier.iter().find(|(known, _)| known == name);
    let value = reply.and_then(|(_, reply)| {
        let pointer = format!("/{}", path.replace('.', "/"));
        body_of(reply)
            .pointer(&pointer)
            .and_then(crate::crm::text_of)
    });
    value.ok_or_else(|| {
        let message = format!("Invalid reference specified. No value for {reference} found");
        Wrong::new("PROCESSING_HALTED", message)
    })
}

fn body_of(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_default()
}
