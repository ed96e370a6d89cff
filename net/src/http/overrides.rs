//! `/v1/sync/config-override`: settings of accounts, changed at run time.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use engine::refusal::{Code, Refusal};
use engine::view::{OverrideChange, OverrideMember, OverrideRequest};
use serde_json::{Map, Value, json};

use super::Api;
use super::access::Caller;
use super::backend::Backend;
use super::body;
use super::operations::rfc3339;
use super::problem::Problem;

pub(super) async fn change<B: Backend>(
    State(api): State<Api<B>>,
    Extension(Caller(by)): Extension<Caller>,
    body: Body,
) -> Result<Response, Problem> {
    let request = read(body::read_json(body, api.limits).await?)?;
    let (provider, object) = (request.provider.clone(), request.object.clone());
    api.backend.change_settings(&by, request).await?;
    let overrides = api.backend.overrides();
    let members = overrides.members.iter();
    let own: Vec<&OverrideMember> = members
        .filter(|member| member.provider == provider && member.object == object)
        .collect();
    let set: Map<String, Value> = own
        .iter()
        .map(|member| (member.name.to_owned(), parsed(&member.value)))
        .collect();
    let until: Map<String, Value> = own
        .iter()
        .map(|member| (member.name.to_owned(), json!(member.until.map(rfc3339))))
        .collect();
    let mut answer = json!({"provider": provider, "set": set, "until": until});
    if let Some(object) = object {
        answer["object"] = json!(object);
    }
    Ok(Json(answer).into_response())
}

pub(super) async fn list<B: Backend>(State(api): State<Api<B>>) -> Response {
    let overrides = api.backend.overrides();
    let members: Vec<Value> = overrides.members.iter().map(member_json).collect();
    let audit: Vec<Value> = overrides.audit.iter().map(change_json).collect();
    Json(json!({"overrides": members, "audit": audit})).into_response()
}

/// The settings may stand under `set` or beside `provider`.
fn read(mut body: Map<String, Value>) -> Result<OverrideRequest, Refusal> {
    let text = |value: Option<Value>, name: &str| match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::at(
            Code::InvalidField,
            format!("/{name}"),
            "expected a text",
        )),
    };
    let provider = text(body.remove("provider"), "provider")?.ok_or_else(|| {
        Refusal::at(
            Code::MissingField,
            "/provider",
            "an override names its account",
        )
    })?;
    let object = text(body.remove("object"), "object")?;
    let ttl = text(body.remove("ttl"), "ttl")?;
    let set = match body.remove("set") {
        None => body,
        Some(Value::Object(set)) if body.is_empty() => set,
        Some(Value::Object(_)) => {
            let detail = "settings stand under `set` or beside `provider`, not in both places";
            return Err(Refusal::at(Code::InvalidField, "/set", detail));
        }
        Some(_) => {
            return Err(Refusal::at(
                Code::InvalidField,
                "/set",
                "expected an object",
            ));
        }
    };
    if set.is_empty() {
        let detail = "an override names a setting";
        return Err(Refusal::at(Code::MissingField, "/set", detail));
    }
    let set = set
        .into_iter()
        .map(|(name, value)| (name, value.to_string()));
    Ok(OverrideRequest {
        provider,
        object,
        set: set.collect(),
        ttl,
    })
}

fn member_json(member: &OverrideMember) -> Value {
    json!({
        "provider": member.provider,
        "object": member.object,
        "name": member.name,
        "value": parsed(&member.value),
        "since": rfc3339(member.at),
        "by": member.by,
        "until": member.until.map(rfc3339),
    })
}

fn change_json(change: &OverrideChange) -> Value {
    json!({
        "at": rfc3339(change.at),
        "by": change.by,
        "provider": change.provider,
        "object": change.object,
        "name": change.name,
        "old": parsed(&change.old),
        "new": parsed(&change.new),
        "until": change.until.map(rfc3339),
    })
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<OverrideRequest, Refusal> {
        read(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn settings_stand_under_set_or_flat() {
        let under = read_text(r#"{"provider":"crm","set":{"batch_size":100},"ttl":"10m"}"#);
        let flat = read_text(r#"{"provider":"crm","batch_size":100,"ttl":"10m"}"#);
        assert_eq!(under, flat);
        let request = under.unwrap();
        assert_eq!(request.set, [("batch_size".to_owned(), "100".to_owned())]);
        assert_eq!(request.ttl.as_deref(), Some("10m"));
    }

    #[test]
    fn what_names_no_account_or_no_setting_is_refused() {
        for (text, pointer) in [
            (r#"{"set":{"paused":true}}"#, "/provider"),
            (r#"{"provider":1,"paused":true}"#, "/provider"),
            (r#"{"provider":"crm"}"#, "/set"),
            (r#"{"provider":"crm","set":[]}"#, "/set"),
            (
                r#"{"provider":"crm","set":{"paused":true},"timeout":"1s"}"#,
                "/set",
            ),
            (r#"{"provider":"crm","paused":true,"ttl":5}"#, "/ttl"),
        ] {
            let refused = read_text(text).unwrap_err();
            assert_eq!(refused.pointer.as_deref(), Some(pointer), "{text}");
        }
    }
}
