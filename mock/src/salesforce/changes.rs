//! `updated` and `deleted`: which records changed in a span of time.

use std::time::Duration;

use serde_json::{Value, json};

use super::wrong::Wrong;
use super::{Ask, Salesforce};
use crate::exchange::Reply;
use crate::provider::Scene;
use crate::stamp;

/// How far back deletes are told (getDeleted, SOAP and REST API guides).
const DELETES_REACH: Duration = Duration::from_secs(15 * 24 * 60 * 60);

/// Ids in one reply (the same pages).
const IDS_MAX: usize = 600_000;

impl Salesforce {
    pub(super) fn updated(
        &self,
        scene: &Scene<'_>,
        ask: &Ask,
        object: &str,
    ) -> Result<Reply, Wrong> {
        let object = self.object(object)?;
        let span = Span::of(scene, ask)?;
        let changed = self.crm.rows(&object.name);
        let ids: Vec<String> = changed
            .filter(|(_, row)| span.holds(scene.epoch + row.modified_at))
            .map(|(serial, _)| object.id(serial).to_string())
            .collect();
        if ids.len() > IDS_MAX {
            return Err(Wrong::new("EXCEEDED_ID_LIMIT", "too many records changed"));
        }
        let page = json!({
            "ids": ids,
            "latestDateCovered": stamp::whole_seconds_offset(span.end),
        });
        Ok(Reply::json(200, &page))
    }

    pub(super) fn deleted(
        &self,
        scene: &Scene<'_>,
        ask: &Ask,
        object: &str,
    ) -> Result<Reply, Wrong> {
        let object = self.object(object)?;
        let span = Span::of(scene, ask)?;
        let earliest = scene.epoch.max(scene.unix().saturating_sub(DELETES_REACH));
        if span.start < scene.unix().saturating_sub(DELETES_REACH) {
            let message = "start date is more than 15 days ago";
            return Err(Wrong::new("INVALID_REPLICATION_DATE", message));
        }
        let buried = self.crm.graves(&object.name);
        let records: Vec<Value> = buried
            .filter(|(_, grave)| span.holds(scene.epoch + grave.deleted_at))
            .map(|(serial, grave)| {
                let at = stamp::whole_seconds_offset(scene.epoch + grave.deleted_at);
                json!({ "id": object.id(serial).to_string(), "deletedDate": at })
            })
            .collect();
        let page = json!({
            "deletedRecords": records,
            "earliestDateAvailable": stamp::whole_seconds_offset(earliest),
            "latestDateCovered": stamp::whole_seconds_offset(span.end),
        });
        Ok(Reply::json(200, &page))
    }
}

/// A span of whole seconds; both ends belong to it.
struct Span {
    start: Duration,
    end: Duration,
}

impl Span {
    fn of(scene: &Scene<'_>, ask: &Ask) -> Result<Self, Wrong> {
        let at = |name| {
            let text = ask.query_value(name).unwrap_or_default();
            stamp::parse(&text).ok_or_else(|| {
                let message = format!("{name} is no date with a time: {text}");
                Wrong::new("INVALID_REPLICATION_DATE", message)
            })
        };
        let (start, end) = (at("start")?, at("end")?);
        if end <= start {
            let message = "endDate must chronologically follow startDate";
            return Err(Wrong::new("INVALID_REPLICATION_DATE", message));
        }
        // What has not happened yet is not covered.
        let end = end.min(scene.unix());
        Ok(Self { start, end })
    }

    fn holds(&self, at: Duration) -> bool {
        let at = at.as_secs();
        self.start.as_secs() <= at && at <= self.end.as_secs()
    }
}
