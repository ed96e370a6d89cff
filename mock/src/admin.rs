//! `/__mock/…`: what the account counted, and changing its faults and limits while it runs.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::account::Account;
use crate::exchange::{Reply, Request};
use crate::provider::{Change, Edit};
use crate::target;

/// Calls in one page of the journal unless `?limit=` asks for another number.
pub const PAGE_CALLS: usize = 10_000;

/// Calls in one page at most: some 60 MB with bodies of 400 bytes.
pub const PAGE_CALLS_MAX: usize = 100_000;

const PAGES: [&str; 8] = [
    "journal",
    "violations",
    "records",
    "webhooks",
    "fault",
    "limit",
    "edit",
    "expire",
];

/// Answers a request for `/__mock/…`; `None` when the request is for the account itself. These
/// requests count against no limit and are not in the journal.
pub fn answer(account: &mut Account, now: Duration, request: &Request<'_>) -> Option<Reply> {
    let (path, query) = target::split(request.target);
    let page = path.strip_prefix("/__mock/")?;
    let reply = match (request.method.as_str(), page) {
        ("GET", "journal") => journal(account, query),
        ("GET", "violations") => Ok(violations(account)),
        ("GET", "records") => records(account, query),
        ("GET", "webhooks") => Ok(webhooks(account)),
        ("POST", "fault") => fault(account, now, &request.body),
        ("POST", "limit") => limit(account, &request.body),
        ("POST", "edit") => edit(account, now, &request.body),
        ("POST", "expire") => {
            account.expire_tokens();
            Ok(Reply::empty(204))
        }
        (_, page) if PAGES.contains(&page) => {
            Err(Reply::error(405, "this path does not take this method"))
        }
        _ => Err(Reply::error(
            404,
            &format!("there are {}", PAGES.join(", ")),
        )),
    };
    Some(reply.unwrap_or_else(|refused| refused))
}

/// `next` is the `after` of the next page, null when this page ends with the latest call.
fn journal(account: &Account, query: &str) -> Result<Reply, Reply> {
    let after = number(query, "after")?.unwrap_or(0).min(u64::MAX - 1);
    let limit = number(query, "limit")?.and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(PAGE_CALLS).clamp(1, PAGE_CALLS_MAX);
    let journal = account.journal();
    let mut calls = journal.after(after).peekable();
    let mut page = String::from("{\"calls\":[");
    let mut last = None;
    while let Some(call) = calls.next_if(|_| last.is_none_or(|(taken, _)| taken < limit)) {
        if last.is_some() {
            page.push(',');
        }
        page.push_str(&journal.render(call));
        last = Some((last.map_or(1, |(taken, _)| taken + 1), call.seq));
    }
    let next = last.filter(|_| calls.peek().is_some()).map(|(_, seq)| seq);
    page.push_str("],\"next\":");
    page.push_str(&json!(next).to_string());
    page.push('}');
    Ok(Reply::rendered(200, page))
}

fn violations(account: &Account) -> Reply {
    let counted = account.violations();
    let by_limit: Map<String, Value> = counted
        .by_limit
        .into_iter()
        .map(|(name, count)| (name, count.into()))
        .collect();
    let shown = json!({
        "total": counted.total,
        "by_limit": by_limit,
        "duplicate_creates": counted.duplicate_creates,
        "overlaps": counted.overlaps,
    });
    Reply::json(200, &shown)
}

fn records(account: &Account, query: &str) -> Result<Reply, Reply> {
    let wanted = value(query, "object")?;
    let shown: Vec<Value> = account
        .records()
        .filter(|(object, ..)| wanted.as_ref().is_none_or(|wanted| wanted == object))
        .map(|(object, id, record)| {
            json!({
                "object": object,
                "id": id.to_string(),
                "external_id": record.external_id,
                "fields": record.fields,
            })
        })
        .collect();
    Ok(Reply::json(200, &json!({ "records": shown })))
}

fn webhooks(account: &Account) -> Reply {
    let counted = account.delivery_counts();
    let shown = json!({
        "waiting": counted.waiting,
        "sent": counted.sent,
        "acknowledged": counted.acknowledged,
        "given_up": counted.given_up,
    });
    Reply::json(200, &shown)
}

/// With `for_ms` the faults are laid over the standing ones from now on; without, they replace
/// them.
fn fault(account: &mut Account, now: Duration, body: &[u8]) -> Result<Reply, Reply> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        fault: String,
        for_ms: Option<u64>,
    }
    let Body { fault, for_ms } = parse(body)?;
    let faults = fault.parse().map_err(|error| refused(&error))?;
    match for_ms {
        Some(for_ms) => account
            .add_faults(now, Duration::from_millis(for_ms), faults)
            .map_err(|error| refused(&error))?,
        None => account.replace_faults(&faults),
    }
    Ok(Reply::empty(204))
}

fn limit(account: &mut Account, body: &[u8]) -> Result<Reply, Reply> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        limits: Vec<String>,
    }
    let Body { limits } = parse(body)?;
    let limits = limits
        .iter()
        .map(|limit| limit.parse())
        .collect::<Result<_, _>>();
    account.replace_limits(limits.map_err(|error| refused(&error))?);
    Ok(Reply::empty(204))
}

/// A change made by somebody else, without a call of the account's own.
fn edit(account: &mut Account, now: Duration, body: &[u8]) -> Result<Reply, Reply> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        object: String,
        operation: String,
        id: Option<String>,
        #[serde(default)]
        fields: Map<String, Value>,
        into: Option<String>,
    }
    let body: Body = parse(body)?;
    let change = match (body.operation.as_str(), body.into) {
        ("create", None) => Change::Create(body.fields),
        ("update", None) => Change::Update(body.fields),
        ("delete", None) => Change::Delete,
        ("merge", Some(into)) => Change::MergeInto(into),
        _ => {
            let known = "operation is create, update, delete, or merge with into";
            return Err(Reply::error(400, known));
        }
    };
    let edit = Edit {
        object: body.object,
        id: body.id,
        change,
    };
    let id = account.edit(now, &edit);
    let id = id.map_err(|refused| Reply::error(400, refused))?;
    Ok(Reply::json(200, &json!({ "id": id.to_string() })))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Reply> {
    serde_json::from_slice(body).map_err(|error| refused(&error))
}

fn refused(error: &dyn std::error::Error) -> Reply {
    Reply::error(400, &error.to_string())
}

fn number(query: &str, name: &str) -> Result<Option<u64>, Reply> {
    let value = value(query, name)?;
    let parsed = value.map(|value| value.parse()).transpose();
    parsed.map_err(|_| Reply::error(400, &format!("{name} must be a number")))
}

fn value(query: &str, name: &str) -> Result<Option<String>, Reply> {
    target::query_value(query, name).map_err(|error| refused(&error))
}
