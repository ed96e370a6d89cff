//! Search over an index that lags: groups of filters, sorted, in pages of 200 up to 10,000.

use std::cmp::Ordering;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::records::shown_as;
use super::wrong::Wrong;
use super::{Ask, HubSpot};
use crate::crm::{fold, text_of};
use crate::exchange::Reply;
use crate::provider::Scene;
use crate::stamp;

/// Records in a page, and in all pages of one query (CRM search guide, read 2026-11).
const PAGE_MAX: usize = 200;
const PAGE_DEFAULT: usize = 10;
const RESULTS_MAX: usize = 10_000;
/// Groups of filters, and filters in each (the same page).
const GROUPS_MAX: usize = 5;
const FILTERS_MAX: usize = 6;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(default)]
    filter_groups: Vec<Group>,
    #[serde(default)]
    sorts: Vec<Value>,
    properties: Option<Vec<String>>,
    limit: Option<usize>,
    after: Option<Value>,
}

/// All of its filters hold.
#[derive(Deserialize)]
struct Group {
    filters: Vec<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    property_name: String,
    operator: String,
    value: Option<Value>,
    high_value: Option<Value>,
    values: Option<Vec<Value>>,
}

/// A property to sort by.
struct Sort {
    property: String,
    descending: bool,
}

impl HubSpot {
    pub(super) fn search(&self, scene: &Scene<'_>, ask: &Ask) -> Result<Reply, Wrong> {
        let body: Body = serde_json::from_slice(&ask.body)
            .map_err(|error| Wrong::invalid(format!("Invalid input JSON: {error}")))?;
        let limit = body.limit.unwrap_or(PAGE_DEFAULT);
        let after = body.after.as_ref().and_then(text_of);
        let after: usize = after
            .map_or(Ok(0), |after| after.parse())
            .map_err(|_| Wrong::invalid("after must be a number"))?;
        let wide = body
            .filter_groups
            .iter()
            .any(|group| group.filters.len() > FILTERS_MAX);
        if limit > PAGE_MAX || body.filter_groups.len() > GROUPS_MAX || wide {
            return Err(Wrong::invalid(
                "There was a problem with the request: too large",
            ));
        }
        if after + limit > RESULTS_MAX {
            let message = format!("Cannot page beyond {RESULTS_MAX} results");
            return Err(Wrong::invalid(message));
        }
        let sorts: Vec<Sort> = body.sorts.iter().filter_map(Sort::of).collect();
        let kind = &ask.kind;
        let lag = scene.faults.stale;
        let mut found = Vec::new();
        for (serial, row) in self.crm.rows(&kind.name) {
            let Some((fields, modified_at)) = row.indexed(scene.now, lag) else {
                continue;
            };
            let times = (row.record.created_at, modified_at);
            let mut indexed = fields.clone();
            for (name, at) in [("createdate", times.0), (kind.modified_property(), times.1)] {
                indexed.insert(name.into(), stamp::millis(scene.epoch + at).into());
            }
            indexed.insert("hs_object_id".into(), serial.to_string().into());
            let groups = &body.filter_groups;
            let mut matches = groups.is_empty();
            for group in groups {
                matches |= group.holds(&indexed)?;
            }
            if matches {
                found.push((serial, indexed, fields, times));
            }
        }
        found.sort_by(|(_, one, ..), (_, other, ..)| {
            let by_sort = sorts.iter().map(|sort| sort.compare(one, other));
            by_sort.fold(Ordering::Equal, Ordering::then)
        });
        let total = found.len();
        let page = found.into_iter().skip(after).take(limit);
        let wanted = kind.shown_of(body.properties.as_deref().unwrap_or_default());
        let wanted = Some(wanted.as_slice());
        let results: Vec<Value> = page
            .map(|(serial, _, fields, times)| shown_as(scene, kind, serial, fields, times, wanted))
            .collect();
        let next = after + results.len();
        let mut page = json!({ "total": total, "results": results });
        if next < total {
            page["paging"] = json!({ "next": { "after": next.to_string() } });
        }
        Ok(Reply::json(200, &page))
    }
}

impl Group {
    fn holds(&self, indexed: &Map<String, Value>) -> Result<bool, Wrong> {
        for filter in &self.filters {
            if !filter.holds(indexed)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Filter {
    fn holds(&self, indexed: &Map<String, Value>) -> Result<bool, Wrong> {
        let own = indexed.get(&self.property_name).and_then(text_of);
        let against = |value: &Option<Value>| -> Result<Ordering, Wrong> {
            let value = value
                .as_ref()
                .and_then(text_of)
                .ok_or_else(|| Wrong::invalid(format!("{} needs a value", self.operator)))?;
            Ok(compare(own.as_deref().unwrap_or_default(), &value))
        };
        let known = own.is_some();
        Ok(match self.operator.as_str() {
            "HAS_PROPERTY" => known,
            "NOT_HAS_PROPERTY" => !known,
            "EQ" => known && against(&self.value)?.is_eq(),
            "NEQ" => !known || against(&self.value)?.is_ne(),
            "LT" => known && against(&self.value)?.is_lt(),
            "LTE" => known && against(&self.value)?.is_le(),
            "GT" => known && against(&self.value)?.is_gt(),
            "GTE" => known && against(&self.value)?.is_ge(),
            "BETWEEN" => {
                known && against(&self.value)?.is_ge() && against(&self.high_value)?.is_le()
            }
            "IN" | "NOT_IN" => {
                let values = self.values.iter().flatten().filter_map(text_of);
                let own = own.unwrap_or_default();
                let among = values
                    .into_iter()
                    .any(|value| compare(&own, &value).is_eq());
                among == (self.operator == "IN")
            }
            other => return Err(Wrong::invalid(format!("Unknown operator {other}"))),
        })
    }
}

impl Sort {
    /// `"name"`, `"-name"`, or `{"propertyName", "direction"}`.
    fn of(value: &Value) -> Option<Self> {
        if let Some(text) = value.as_str() {
            let property = text.strip_prefix('-').unwrap_or(text).to_owned();
            let descending = text.starts_with('-');
            return Some(Self {
                property,
                descending,
            });
        }
        Some(Self {
            property: value["propertyName"].as_str()?.to_owned(),
            descending: value["direction"] == "DESCENDING",
        })
    }

    fn compare(&self, one: &Map<String, Value>, other: &Map<String, Value>) -> Ordering {
        let text = |fields: &Map<String, Value>| {
            fields
                .get(&self.property)
                .and_then(text_of)
                .unwrap_or_default()
        };
        let order = compare(&text(one), &text(other));
        if self.descending {
            order.reverse()
        } else {
            order
        }
    }
}

/// Instants by time, where one is written out and the other may be in milliseconds; numbers by
/// size; the rest as text.
fn compare(one: &str, other: &str) -> Ordering {
    let written_out = stamp::parse(one).is_some() || stamp::parse(other).is_some();
    let ms = |text: &str| {
        let written = stamp::parse(text).map(|at| at.as_millis());
        written.or_else(|| text.parse().ok())
    };
    if let (true, Some(one), Some(other)) = (written_out, ms(one), ms(other)) {
        return one.cmp(&other);
    }
    match (one.parse::<f64>(), other.parse::<f64>()) {
        (Ok(one), Ok(other)) => one.total_cmp(&other),
        _ => fold(one).cmp(&fold(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_by_what_they_are() {
        let written = "2026-11-20T10:00:00.123Z";
        assert!(compare(written, "1795168800123").is_eq());
        assert!(compare(written, "1795168800122").is_gt());
        assert!(compare("9", "10").is_lt());
        assert!(compare("Ada", "ada").is_eq());
    }
}
