//! Lists: filtered, sorted, in pages behind a cursor.

use std::cmp::Ordering;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::wrong::Wrong;
use super::{Ask, Outreach};
use crate::crm::{Row, fold, text_of};
use crate::exchange::Reply;
use crate::provider::Scene;
use crate::stamp;

/// Records in a page (API reference, pagination, read 2026-11).
const PAGE_MAX: usize = 1_000;
const PAGE_DEFAULT: usize = 50;

/// The sort keys of a row, and its number, which decides where they are equal.
type Place = (Vec<Value>, u64);

struct Sort<'a> {
    attribute: &'a str,
    descending: bool,
}

impl Outreach {
    pub(super) fn list(&self, scene: &Scene<'_>, ask: &Ask) -> Result<Reply, Wrong> {
        let size = ask
            .query_value("page[size]")
            .or_else(|| ask.query_value("page[limit]"));
        let size: usize = size.map_or(Ok(PAGE_DEFAULT), str::parse).unwrap_or(0);
        if !(1..=PAGE_MAX).contains(&size) {
            let detail = format!("page[size] must be between 1 and {PAGE_MAX}");
            return Err(Wrong::new(400, "invalidPageSize", detail));
        }
        let sorts: Vec<Sort<'_>> = ask
            .query_value("sort")
            .into_iter()
            .flat_map(|sort| sort.split(','))
            .map(|name| Sort {
                attribute: name.strip_prefix('-').unwrap_or(name),
                descending: name.starts_with('-'),
            })
            .collect();
        let after = ask.query_value("page[after]").map(place_of).transpose()?;
        let mut found: Vec<(Place, &Row)> = Vec::new();
        let mut total = 0_usize;
        for (serial, row) in self.crm.rows(&ask.resource) {
            if !self.matches(scene, ask, serial, row)? {
                continue;
            }
            total += 1;
            let keys = sorts
                .iter()
                .map(|sort| value_of(scene, serial, row, sort.attribute));
            let place = (keys.collect(), serial);
            let behind = after.as_ref();
            if behind.is_none_or(|after| compare(&sorts, &place, after).is_gt()) {
                found.push((place, row));
            }
        }
        found.sort_by(|(one, _), (other, _)| compare(&sorts, one, other));
        let more = found.len() > size;
        found.truncate(size);
        let next = found
            .last()
            .filter(|_| more)
            .map(|(place, _)| self.next(ask, place));
        let data: Vec<Value> = found
            .iter()
            .map(|((_, serial), row)| self.document_of(scene, ask, *serial, row))
            .collect();
        let mut page = json!({ "data": data });
        if ask.query_value("count") != Some("false") {
            page["meta"] = json!({ "count": total, "count_truncated": false });
        }
        if let Some(next) = next {
            page["links"] = json!({ "next": next });
        }
        Ok(Reply::json(200, &page))
    }

    fn matches(&self, scene: &Scene<'_>, ask: &Ask, serial: u64, row: &Row) -> Result<bool, Wrong> {
        for (name, wanted) in &ask.query {
            let attribute = name
                .strip_prefix("filter[")
                .and_then(|rest| rest.strip_suffix(']'));
            let Some(attribute) = attribute else {
                continue;
            };
            // The one key that integrations have cannot be filtered by.
            if ask.resource == "prospects" && attribute == "externalId" {
                let detail = "externalId is not a filterable attribute";
                return Err(Wrong::new(400, "invalidFilter", detail));
            }
            let own = value_of(scene, serial, row, attribute);
            let holds = match wanted.split_once("..") {
                Some((from, to)) => in_range(&own, from, to),
                None => wanted.split(',').any(|one| is_one(&own, one)),
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The same list behind a place.
    fn next(&self, ask: &Ask, place: &Place) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let kept = ask.query.iter().filter(|(name, _)| name != "page[after]");
        let mut pairs: Vec<String> = kept
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
            .collect();
        let cursor = URL_SAFE_NO_PAD.encode(json!(place).to_string());
        pairs.push(format!("{}={cursor}", encoded("page[after]")));
        format!(
            "{}/api/v2/{}?{}",
            self.base_url,
            ask.resource,
            pairs.join("&")
        )
    }
}

fn place_of(cursor: &str) -> Result<Place, Wrong> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).unwrap_or_default();
    serde_json::from_slice(&bytes).map_err(|_| {
        Wrong::new(
            400,
            "invalidPageCursor",
            "the cursor is not one of this list",
        )
    })
}

fn value_of(scene: &Scene<'_>, serial: u64, row: &Row, attribute: &str) -> Value {
    match attribute {
        "id" => serial.into(),
        "createdAt" => stamp::millis(scene.epoch + row.record.created_at).into(),
        "updatedAt" => stamp::millis(scene.epoch + row.modified_at).into(),
        name => row.record.fields.get(name).cloned().unwrap_or_default(),
    }
}

fn compare(sorts: &[Sort<'_>], one: &Place, other: &Place) -> Ordering {
    let keys = sorts.iter().zip(one.0.iter().zip(&other.0));
    let by_keys = keys.map(|(sort, (one, other))| {
        let order = compare_values(one, other);
        if sort.descending {
            order.reverse()
        } else {
            order
        }
    });
    by_keys
        .fold(Ordering::Equal, Ordering::then)
        .then(one.1.cmp(&other.1))
}

fn compare_values(one: &Value, other: &Value) -> Ordering {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        _ => {
            let text = |value: &Value| fold(&text_of(value).unwrap_or_default());
            text(one).cmp(&text(other))
        }
    }
}

/// Both ends belong to a range; `neginf` and `inf` leave one open.
fn in_range(own: &Value, from: &str, to: &str) -> bool {
    let own = text_of(own).unwrap_or_default();
    let order = |end: &str| match (stamp::parse(&own), stamp::parse(end)) {
        (Some(own), Some(end)) => own.cmp(&end),
        _ => match (own.parse::<f64>(), end.parse::<f64>()) {
            (Ok(own), Ok(end)) => own.total_cmp(&end),
            _ => fold(&own).cmp(&fold(end)),
        },
    };
    !own.is_empty()
        && (from == "neginf" || order(from).is_ge())
        && (to == "inf" || order(to).is_le())
}

fn is_one(own: &Value, wanted: &str) -> bool {
    match own {
        Value::Array(items) => items.iter().any(|item| is_one(item, wanted)),
        own => text_of(own).is_some_and(|own| fold(&own) == fold(wanted)),
    }
}
