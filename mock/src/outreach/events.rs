//! What an org notifies of, and to whom.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::resources::singular;
use super::wrong::Wrong;
use super::{Ask, Outreach};
use crate::exchange::Reply;
use crate::provider::Scene;
use crate::signature::Signature;
use crate::stamp;
use crate::webhook::{DeliveryRules, Envelope};

/// Webhooks guide, read 2026-11: four attempts a second apart when no answer comes, and any answer
/// counts as taken.
pub(super) const RULES: DeliveryRules = DeliveryRules {
    events_max: 1,
    attempts_max: 4,
    retry_after: Duration::from_secs(1),
    doubles: false,
    retries_refusals: false,
    attempt_member: None,
    sign,
};

/// Who is notified of what; an org has one at a time here.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    id: u64,
    attributes: Attributes,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attributes {
    url: String,
    #[serde(default = "everything")]
    resource: String,
    #[serde(default = "everything")]
    action: String,
    secret: Option<String>,
    #[serde(default = "first_version")]
    payload_version: u8,
}

fn everything() -> String {
    "*".to_owned()
}

fn first_version() -> u8 {
    1
}

impl Subscription {
    /// One made together with the account.
    pub(super) fn to_everything(url: String) -> Self {
        Self {
            id: 1,
            attributes: Attributes {
                url,
                resource: everything(),
                action: everything(),
                secret: None,
                payload_version: 2,
            },
        }
    }

    fn wants(&self, resource: &str, action: &str) -> bool {
        let fits = |wanted: &str, given: &str| wanted == "*" || wanted == given;
        fits(&self.attributes.resource, resource) && fits(&self.attributes.action, action)
    }

    fn shown(&self) -> Value {
        json!({
            "type": "webhook",
            "id": self.id,
            "attributes": {
                "url": self.attributes.url,
                "resource": self.attributes.resource,
                "action": self.attributes.action,
                "payloadVersion": self.attributes.payload_version,
                "active": true,
            },
        })
    }
}

impl Outreach {
    /// `POST`, `GET` and `DELETE` of `/webhooks`.
    pub(super) fn webhooks(&mut self, ask: &Ask) -> Result<Reply, Wrong> {
        match (ask.method.as_str(), ask.id.as_deref()) {
            ("POST", None) => {
                let mut body: Value = serde_json::from_slice(&ask.body)
                    .map_err(|error| Wrong::new(400, "invalidRequestBody", error.to_string()))?;
                let attributes = body.pointer_mut("/data/attributes");
                let attributes = attributes.map(Value::take).unwrap_or_default();
                let attributes: Attributes = serde_json::from_value(attributes)
                    .map_err(|error| Wrong::invalid("/data/attributes", error.to_string()))?;
                self.deliveries
                    .listen(Some(attributes.url.clone()), attributes.secret.clone());
                self.subscriptions += 1;
                let id = self.subscriptions;
                let subscription = self.subscription.insert(Subscription { id, attributes });
                Ok(Reply::json(201, &json!({ "data": subscription.shown() })))
            }
            ("GET", None) => {
                let shown: Vec<Value> = self.subscription.iter().map(Subscription::shown).collect();
                Ok(Reply::json(200, &json!({ "data": shown })))
            }
            ("DELETE", Some(id)) => {
                let named = self.subscription.take_if(|own| own.id.to_string() == id);
                named.ok_or_else(Wrong::not_found)?;
                self.deliveries.listen(None, None);
                Ok(Reply::empty(204))
            }
            _ => Err(Wrong::not_found()),
        }
    }

    /// A record was `created`, `updated` or `destroyed`; of its attributes those are told that
    /// changed, and by version 2 what they were before.
    pub(super) fn tell(
        &mut self,
        scene: &Scene<'_>,
        resource: &str,
        serial: u64,
        action: &str,
        changed: &Map<String, Value>,
        before: &Map<String, Value>,
    ) {
        let kind = singular(resource).unwrap_or_default();
        let wanted = self
            .subscription
            .as_ref()
            .filter(|own| own.wants(kind, action));
        let Some(subscription) = wanted else {
            return;
        };
        let at = stamp::millis(scene.unix());
        let mut attributes = changed.clone();
        attributes.insert("updatedAt".into(), at.clone().into());
        let mut data = json!({ "type": kind, "id": serial, "attributes": attributes });
        if action == "updated" && subscription.attributes.payload_version == 2 {
            let former = changed.keys().map(|name| {
                let value = before.get(name).cloned().unwrap_or_default();
                (name.clone(), value)
            });
            data["beforeUpdate"] = Value::Object(former.collect());
        }
        let event = json!({
            "data": data,
            "meta": { "deliveredAt": at, "eventName": format!("{kind}.{action}") },
        });
        self.deliveries.push(scene, 0, event);
    }
}

/// Over the body alone, in hex.
fn sign(envelope: &Envelope<'_>) -> Vec<(&'static str, String)> {
    let signature = Signature::of(envelope.secret, &[envelope.body]).hex();
    vec![
        ("content-type", "application/json".to_owned()),
        ("outreach-webhook-signature", signature),
        (
            "outreach-webhook-event-id",
            format!("event-{}", envelope.event),
        ),
        ("outreach-webhook-id", "1".to_owned()),
        ("outreach-org-id", "1".to_owned()),
    ]
}
