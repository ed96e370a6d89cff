//! What a portal notifies of: creations, changes of properties, deletions, merges.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::kind::Kind;
use super::{APP, HubSpot, PORTAL};
use crate::provider::Scene;
use crate::signature::Signature;
use crate::webhook::{DeliveryRules, Envelope};

/// Webhooks guide, read 2026-11: at most 100 events a request, ten retries over 24 hours, in no
/// order. How the retries are spread is not told; doubling from a minute they end after 17 hours.
pub(super) const RULES: DeliveryRules = DeliveryRules {
    events_max: 100,
    attempts_max: 11,
    retry_after: Duration::from_secs(60),
    doubles: true,
    retries_refusals: true,
    attempt_member: Some("attemptNumber"),
    sign,
};

/// Who made a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The caller itself: its own writes are told to it too.
    App,
    Person,
}

impl HubSpot {
    pub(super) fn tell_created(
        &mut self,
        scene: &Scene<'_>,
        kind: &Kind,
        serial: u64,
        properties: &Map<String, Value>,
        source: Source,
    ) {
        let event = self.event(scene, kind, "creation", serial, source);
        self.tell(scene, event);
        for (name, value) in properties {
            let value = value.as_str().unwrap_or_default();
            self.tell_property(scene, kind, serial, (name, value), source);
        }
    }

    /// Told before the change is made: only properties that get another value change.
    pub(super) fn tell_changed(
        &mut self,
        scene: &Scene<'_>,
        kind: &Kind,
        serial: u64,
        properties: &Map<String, Value>,
        source: Source,
    ) {
        let before = self.crm.row(&kind.name, serial);
        let before = before
            .map(|row| row.record.fields.clone())
            .unwrap_or_default();
        for (name, value) in properties {
            let same = before.get(name).unwrap_or(&Value::Null) == value;
            // An edit is told after it was made, when all its values are in place already.
            if same && source == Source::App {
                continue;
            }
            let value = value.as_str().unwrap_or_default();
            self.tell_property(scene, kind, serial, (name, value), source);
        }
    }

    pub(super) fn tell_deleted(
        &mut self,
        scene: &Scene<'_>,
        kind: &Kind,
        serial: u64,
        source: Source,
    ) {
        let event = self.event(scene, kind, "deletion", serial, source);
        self.tell(scene, event);
    }

    pub(super) fn tell_merged(
        &mut self,
        scene: &Scene<'_>,
        kind: &Kind,
        loser: u64,
        winner: u64,
        source: Source,
    ) {
        let mut event = self.event(scene, kind, "merge", winner, source);
        event["primaryObjectId"] = winner.into();
        event["mergedObjectIds"] = json!([loser]);
        event["newObjectId"] = winner.into();
        self.tell(scene, event);
    }

    fn tell_property(
        &mut self,
        scene: &Scene<'_>,
        kind: &Kind,
        serial: u64,
        (name, value): (&str, &str),
        source: Source,
    ) {
        let mut event = self.event(scene, kind, "propertyChange", serial, source);
        event["propertyName"] = name.into();
        event["propertyValue"] = value.into();
        self.tell(scene, event);
    }

    fn event(
        &mut self,
        scene: &Scene<'_>,
        kind: &Kind,
        what: &str,
        serial: u64,
        source: Source,
    ) -> Value {
        self.events += 1;
        let (change_source, source_id) = match source {
            Source::App => ("INTEGRATION", APP.to_string()),
            Source::Person => ("CRM_UI", "userId:1".to_owned()),
        };
        let occurred_at = u64::try_from(scene.unix().as_millis()).unwrap_or(u64::MAX);
        json!({
            "eventId": self.events,
            "subscriptionId": 1,
            "portalId": PORTAL,
            "appId": APP,
            "occurredAt": occurred_at,
            "subscriptionType": format!("{}.{what}", kind.singular),
            "objectTypeId": kind.type_id,
            "attemptNumber": 0,
            "objectId": serial,
            "changeSource": change_source,
            "sourceId": source_id,
        })
    }

    fn tell(&mut self, scene: &Scene<'_>, event: Value) {
        // The event's own number tells its dice from those of the call's other events.
        let place = usize::try_from(self.events).unwrap_or(usize::MAX);
        self.deliveries.push(scene, place, event);
    }
}

/// Version 3: over method, URL, body and time in milliseconds, in base64.
fn sign(envelope: &Envelope<'_>) -> Vec<(&'static str, String)> {
    let timestamp = envelope.unix.as_millis().to_string();
    let parts = [
        b"POST".as_slice(),
        envelope.url.as_bytes(),
        envelope.body,
        timestamp.as_bytes(),
    ];
    let signature = Signature::of(envelope.secret, &parts).base64();
    vec![
        ("content-type", "application/json".to_owned()),
        ("x-hubspot-signature-version", "v3".to_owned()),
        ("x-hubspot-signature-v3", signature),
        ("x-hubspot-request-timestamp", timestamp),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HubSpot/hubspot-api-python, tests/spec/utils/test_signature.py at a2a528a9 (Apache-2.0).
    #[test]
    fn the_signature_is_that_of_the_published_vector() {
        let headers = sign(&Envelope {
            secret: "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy",
            url: "https://www.example.com/webhook_uri",
            body: b"{'example_field':'example_value'}",
            unix: Duration::from_millis(1_693_657_560_000),
            event: 1,
        });
        let signature = headers
            .iter()
            .find(|(name, _)| *name == "x-hubspot-signature-v3");
        let signature = signature.map(|(_, value)| value.as_str());
        assert_eq!(
            signature,
            Some("K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y=")
        );
    }
}
