//! Notifications of changes, on their way to the caller.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::fault::Fault;
use crate::provider::Scene;

/// One request to the caller, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Names it to [`Account::delivered`](crate::Account::delivered).
    pub id: DeliveryId,
    /// Where it goes.
    pub url: String,
    /// Its headers, names in lower case; the signature is among them.
    pub headers: Vec<(&'static str, String)>,
    /// Its body, JSON.
    pub body: Bytes,
}

/// A delivery's number, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeliveryId(u64);

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// The caller answered with this status.
    Answered(u16),
    /// No answer came.
    Unreachable,
}

/// What became of all notifications.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeliveryCounts {
    /// Events not yet acknowledged.
    pub waiting: usize,
    /// Requests made.
    pub sent: u64,
    /// Events in requests that counted as taken.
    pub acknowledged: u64,
    /// Events given up after their last attempt, or for want of room.
    pub given_up: u64,
}

/// How a provider delivers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeliveryRules {
    /// Events in one request, as an array; 1 for a bare event.
    pub(crate) events_max: usize,
    pub(crate) attempts_max: u32,
    /// Before the second attempt; doubled before each further one when `doubles`.
    pub(crate) retry_after: Duration,
    pub(crate) doubles: bool,
    /// Whether an answer other than 2xx is tried again.
    pub(crate) retries_refusals: bool,
    /// A member of each event that tells its attempt, from 0.
    pub(crate) attempt_member: Option<&'static str>,
    /// The headers of a request to a URL, at this Unix time.
    pub(crate) sign: fn(&Envelope<'_>) -> Vec<(&'static str, String)>,
}

/// What a request is signed over.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    pub(crate) secret: &'a str,
    pub(crate) url: &'a str,
    pub(crate) body: &'a [u8],
    pub(crate) unix: Duration,
    /// Names the first of its events, the same on each attempt.
    pub(crate) event: u64,
}

/// Notifications of one account.
#[derive(Debug)]
pub(crate) struct Deliveries {
    rules: DeliveryRules,
    /// Nothing is kept when nobody listens.
    url: Option<String>,
    secret: String,
    /// By when they are due, then in the order they came.
    waiting: BTreeMap<(Duration, u64), Event>,
    under_way: BTreeMap<DeliveryId, Vec<Event>>,
    last_id: u64,
    last_event: u64,
    last_place: u64,
    counts: DeliveryCounts,
}

#[derive(Debug, Clone)]
struct Event {
    number: u64,
    /// From 0.
    attempt: u32,
    payload: Value,
}

/// Events that wait; beyond it the oldest are given up. At some 400 bytes each this is 40 MB.
const WAITING_MAX: usize = 100_000;

/// How late `hook_late` tells: behind what a caller does meanwhile, within the time that signatures
/// are good for.
const LATE: Duration = Duration::from_secs(5);

/// Requests under way at a time (HubSpot webhooks: 10 per account).
const UNDER_WAY_MAX: usize = 10;

impl Deliveries {
    pub(crate) fn new(rules: DeliveryRules, url: Option<String>, secret: Option<String>) -> Self {
        Self {
            rules,
            url,
            secret: secret.unwrap_or_default(),
            waiting: BTreeMap::new(),
            under_way: BTreeMap::new(),
            last_id: 0,
            last_event: 0,
            last_place: 0,
            counts: DeliveryCounts::default(),
        }
    }

    /// Somebody listens at this URL from now on, or nobody does.
    pub(crate) fn listen(&mut self, url: Option<String>, secret: Option<String>) {
        self.url = url;
        self.secret = secret.unwrap_or_default();
    }

    /// An event is to be told, unless a fault loses it; others tell it twice, or late. `place` tells
    /// events of one call apart.
    pub(crate) fn push(&mut self, scene: &Scene<'_>, place: usize, payload: Value) {
        if self.url.is_none() {
            return;
        }
        let roll = scene.roll.of_record(place);
        if scene.faults.strikes(Fault::HookLost, roll) {
            return;
        }
        self.last_event += 1;
        let event = Event {
            number: self.last_event,
            attempt: 0,
            payload,
        };
        if scene.faults.strikes(Fault::HookRepeat, roll) {
            self.enqueue(scene.now, event.clone());
        }
        let late = scene.faults.strikes(Fault::HookLate, roll);
        let due_at = scene.now + if late { LATE } else { Duration::ZERO };
        self.enqueue(due_at, event);
    }

    /// When there is something to send; `None` while there is nothing or too much is under way.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        if self.under_way.len() >= UNDER_WAY_MAX {
            return None;
        }
        self.waiting
            .first_key_value()
            .map(|((due_at, _), _)| *due_at)
    }

    /// The next request to send.
    pub(crate) fn poll(&mut self, now: Duration, epoch: Duration) -> Option<Delivery> {
        if self.next_at().is_none_or(|at| at > now) {
            return None;
        }
        let url = self.url.clone()?;
        let mut events = Vec::new();
        while events.len() < self.rules.events_max
            && let Some(first) = self.waiting.first_entry()
            && first.key().0 <= now
        {
            events.push(first.remove());
        }
        self.last_id += 1;
        self.counts.sent += 1;
        let id = DeliveryId(self.last_id);
        let body = Bytes::from(self.rendered(&events).to_string());
        let headers = (self.rules.sign)(&Envelope {
            secret: &self.secret,
            url: &url,
            body: &body,
            unix: epoch + now,
            event: events.first().map_or(0, |event| event.number),
        });
        self.under_way.insert(id, events);
        Some(Delivery {
            id,
            url,
            headers,
            body,
        })
    }

    /// A request has ended.
    pub(crate) fn delivered(&mut self, now: Duration, id: DeliveryId, outcome: Delivered) {
        let Some(events) = self.under_way.remove(&id) else {
            return;
        };
        let again = match outcome {
            Delivered::Answered(200..300) => false,
            Delivered::Answered(_) => self.rules.retries_refusals,
            Delivered::Unreachable => true,
        };
        for event in events {
            let attempt = event.attempt + 1;
            if !again {
                self.counts.acknowledged += 1;
            } else if attempt >= self.rules.attempts_max {
                self.counts.given_up += 1;
            } else {
                let factor = if self.rules.doubles {
                    1 << event.attempt.min(16)
                } else {
                    1
                };
                let due_at = now + self.rules.retry_after * factor;
                self.enqueue(due_at, Event { attempt, ..event });
            }
        }
    }

    pub(crate) fn counts(&self) -> DeliveryCounts {
        let under_way: usize = self.under_way.values().map(Vec::len).sum();
        DeliveryCounts {
            waiting: self.waiting.len() + under_way,
            ..self.counts
        }
    }

    fn enqueue(&mut self, due_at: Duration, event: Event) {
        self.last_place += 1;
        self.waiting.insert((due_at, self.last_place), event);
        if self.waiting.len() > WAITING_MAX {
            self.waiting.pop_first();
            self.counts.given_up += 1;
        }
    }

    fn rendered(&self, events: &[Event]) -> Value {
        let payload = |event: &Event| {
            let mut payload = event.payload.clone();
            if let Some(member) = self.rules.attempt_member {
                payload[member] = event.attempt.into();
            }
            payload
        };
        match events {
            [only] if self.rules.events_max == 1 => payload(only),
            events => events.iter().map(payload).collect(),
        }
    }
}
