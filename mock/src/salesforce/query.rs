//! `query` and `queryAll`: a snapshot of the rows, handed out in pages.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::schema::Object;
use super::sobjects::Found;
use super::soql::{self, Malformed, Query};
use super::wrong::Wrong;
use super::{Ask, Salesforce};
use crate::exchange::Reply;
use crate::provider::Scene;

/// Results that wait to be read on, oldest first.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    open: VecDeque<(u64, Vec<Value>)>,
    last: u64,
}

/// Rows in a page, and the least that `Sforce-Query-Options` may ask for (REST API, Query).
const PAGE_ROWS: usize = 2_000;
const PAGE_ROWS_MIN: usize = 200;

/// Cursors that a user has open; the oldest is closed for another (SOQL limits).
const CURSORS_MAX: usize = 10;

impl Salesforce {
    pub(super) fn query(
        &mut self,
        scene: &Scene<'_>,
        ask: &Ask,
        deleted_too: bool,
    ) -> Result<Reply, Wrong> {
        let text = ask.query_value("q").unwrap_or_default();
        let query = Query::parse(&text).map_err(|Malformed(at)| {
            Wrong::new("MALFORMED_QUERY", format!("unexpected token: '{at}'"))
        })?;
        let object = self.schema.object(&query.object).ok_or_else(|| {
            let message = format!("sObject type '{}' is not supported.", query.object);
            Wrong::new("INVALID_TYPE", message)
        })?;
        let mut found = self.matching(scene, &object, &query, deleted_too)?;
        found.truncate(query.limit.unwrap_or(usize::MAX));
        if query.fields.is_empty() {
            let count = found.len();
            let page = json!({ "totalSize": count, "done": true, "records": [] });
            return Ok(Reply::json(200, &page));
        }
        let rows = found
            .iter()
            .map(|found| found.shown(scene, ask, &query.fields));
        let rows: Vec<Value> = rows.collect::<Result<_, _>>()?;
        let size = page_rows(ask);
        if rows.len() <= size {
            let page = json!({ "totalSize": rows.len(), "done": true, "records": rows });
            return Ok(Reply::json(200, &page));
        }
        let id = self.cursors.open(rows);
        self.page(ask, id, 0)
    }

    /// The page behind a locator, `ID-OFFSET`.
    pub(super) fn next_page(&self, ask: &Ask, locator: &str) -> Result<Reply, Wrong> {
        let parts = locator
            .strip_prefix("01g5e0")
            .and_then(|rest| rest.split_once('-'));
        let numbers = parts.and_then(|(id, at)| Some((id.parse().ok()?, at.parse().ok()?)));
        let (id, at) = numbers.ok_or_else(lost_cursor)?;
        self.page(ask, id, at)
    }

    fn page(&self, ask: &Ask, id: u64, at: usize) -> Result<Reply, Wrong> {
        let rows = self.cursors.rows(id).ok_or_else(lost_cursor)?;
        let behind = rows.len().min(at + page_rows(ask));
        let records = rows.get(at..behind).ok_or_else(lost_cursor)?;
        let done = behind == rows.len();
        let mut page = json!({ "totalSize": rows.len(), "done": done });
        if !done {
            page["nextRecordsUrl"] = ask.url(&format!("query/01g5e0{id:09}-{behind}")).into();
        }
        page["records"] = json!(records);
        Ok(Reply::json(200, &page))
    }

    fn matching<'a>(
        &'a self,
        scene: &Scene<'_>,
        object: &'a Object,
        query: &Query,
        deleted_too: bool,
    ) -> Result<Vec<Found<'a>>, Wrong> {
        let live = self.crm.rows(&object.name).map(|(serial, row)| Found {
            object,
            serial,
            row,
            grave: None,
        });
        let graves = self.crm.graves(&object.name).filter(|_| deleted_too);
        let buried = graves.map(|(serial, grave)| Found {
            object,
            serial,
            row: &grave.row,
            grave: Some(grave),
        });
        // A column that does not exist is an error even where no row is.
        let named = query.fields.iter();
        let tested = query.conditions.iter().map(|condition| &condition.field);
        let ordered = query.order.iter().map(|order| &order.field);
        for field in named.chain(tested).chain(ordered) {
            if !object.has(field) {
                let message = format!("No such column '{field}' on entity '{}'.", object.name);
                return Err(Wrong::new("INVALID_FIELD", message));
            }
        }
        let mut matching = Vec::new();
        'rows: for found in live.chain(buried) {
            for condition in &query.conditions {
                if !condition.holds(&found.value(scene, &condition.field)?) {
                    continue 'rows;
                }
            }
            let mut keys = Vec::with_capacity(query.order.len());
            for order in &query.order {
                keys.push(found.value(scene, &order.field)?);
            }
            matching.push((keys, found));
        }
        matching.sort_by(|(one, _), (other, _)| {
            let mut orders = query.order.iter().zip(one.iter().zip(other));
            let decided = orders.find_map(|(order, (one, other))| {
                let by_field = soql::compare(one, other);
                let by_field = if order.descending {
                    by_field.reverse()
                } else {
                    by_field
                };
                by_field.is_ne().then_some(by_field)
            });
            decided.unwrap_or(std::cmp::Ordering::Equal)
        });
        Ok(matching.into_iter().map(|(_, found)| found).collect())
    }
}

impl Cursors {
    fn open(&mut self, rows: Vec<Value>) -> u64 {
        self.last += 1;
        self.open.push_back((self.last, rows));
        if self.open.len() > CURSORS_MAX {
            self.open.pop_front();
        }
        self.last
    }

    fn rows(&self, id: u64) -> Option<&[Value]> {
        let found = self.open.iter().find(|(known, _)| *known == id);
        found.map(|(_, rows)| rows.as_slice())
    }
}

/// `Sforce-Query-Options: batchSize=500`.
fn page_rows(ask: &Ask) -> usize {
    let asked = ask.header("sforce-query-options").unwrap_or_default();
    let size = asked
        .strip_prefix("batchSize=")
        .and_then(|size| size.parse().ok());
    size.unwrap_or(PAGE_ROWS).clamp(PAGE_ROWS_MIN, PAGE_ROWS)
}

fn lost_cursor() -> Wrong {
    Wrong::new("INVALID_QUERY_LOCATOR", "invalid query locator")
}
