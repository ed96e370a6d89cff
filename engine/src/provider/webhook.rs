//! `[webhook]`: what a provider sends when a record changes, and how to believe it.

use serde_json::value::RawValue;

use super::inbound_blocks::WebhookBlock;
use super::pointer::{Landing, Pointer, scalar_text};
use super::problems::Problems;
use super::signature::Signature;
use super::webhook_event::EventReader;
use super::{Change, Definition, TemplateError, Unproven};

/// A provider's notifications, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookDefinition {
    ack: u16,
    /// Where a delivery says whose it is.
    account: Option<Source>,
    signatures: Vec<Signature>,
    events: Pointer,
    event: EventReader,
}

/// One request of a provider to us, as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// As on the request line.
    pub method: &'a str,
    /// The whole URL, as the provider has it: providers sign that.
    pub uri: &'a str,
    /// Names in lower case.
    pub headers: &'a [(String, String)],
    /// Not one byte changed.
    pub body: &'a [u8],
}

/// What a delivery held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// In the order of the delivery.
    pub changes: Vec<Change>,
    /// Events about objects or of kinds that the definition does not name.
    pub ignored: usize,
    /// Events that do not say what they must, and the first such fault.
    pub unreadable: usize,
    /// What was wrong with the first unreadable one.
    pub fault: Option<&'static str>,
}

/// A delivery that was proven and is not understood; the same again will not be either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not JSON, or no events where they should be.
    #[error("the body does not hold events where the definition looks for them")]
    Shape,
    /// More than [`EVENTS_MAX`].
    #[error("the body holds more than {EVENTS_MAX} events")]
    TooMany,
}

/// Where a value stands: in an event, or in a header of the delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Event(Pointer),
    Header(String),
}

/// Events of one delivery: ten times the most that a provider is known to send in one (HubSpot's
/// webhooks guide: 100, read 2026-11).
pub const EVENTS_MAX: usize = 1_000;

impl WebhookDefinition {
    pub(crate) fn compile(
        block: &WebhookBlock,
        remotes: &[&str],
        problems: &mut Problems,
    ) -> Option<WebhookDefinition> {
        if !(200..=299).contains(&block.ack) {
            let fault = TemplateError::NotASuccess(block.ack);
            problems.add("webhook.ack", fault);
        }
        if block.signatures.is_empty() {
            let fault = TemplateError::Missing("signatures");
            problems.add("webhook.signatures", fault);
        }
        let mut signatures: Vec<Signature> = Vec::new();
        for (at, block) in block.signatures.iter().enumerate() {
            let Some(signature) = Signature::compile(at, block, problems) else {
                continue;
            };
            if signatures.iter().any(|known| known.name == signature.name) {
                let key = format!("webhook.signatures[{at}].name");
                problems.add(key, TemplateError::Twice(signature.name.clone()));
            }
            signatures.push(signature);
        }
        let account = block.account.as_deref().map(Source::parse).transpose();
        let account = problems.note("webhook.account", account)?;
        let events = problems.note("webhook.events", Pointer::parse_any(&block.events));
        Some(WebhookDefinition {
            ack: block.ack,
            account,
            signatures,
            events: events?,
            event: EventReader::compile(&block.event, remotes, problems)?,
        })
    }

    /// The status that tells the provider that a delivery was taken.
    pub fn ack(&self) -> u16 {
        self.ack
    }

    /// The names of the signatures it knows; the first is in force unless an account chooses.
    pub fn signatures(&self) -> impl Iterator<Item = &str> {
        self.signatures
            .iter()
            .map(|signature| signature.name.as_str())
    }

    /// Whether a delivery says whose it is.
    pub fn names_account(&self) -> bool {
        self.account.is_some()
    }

    /// Believes a delivery or does not: its signature by any of the account's secrets, its age,
    /// and, where `account` is set, that it is meant for that account.
    ///
    /// # Errors
    /// Why not; nothing was taken.
    pub fn verify(
        &self,
        signature: Option<&str>,
        secrets: &[impl AsRef<str>],
        account: Option<&str>,
        now_ms: i64,
        delivery: &Delivery<'_>,
    ) -> Result<(), Unproven> {
        let mut known = self.signatures.iter();
        let chosen = known.find(|known| signature.is_none_or(|name| known.name == name));
        chosen
            .ok_or(Unproven::Unsigned)?
            .check(secrets, now_ms, delivery)?;
        let (Some(source), Some(account)) = (&self.account, account) else {
            return Ok(());
        };
        let own = |event: &str| {
            let named = source.text(event, delivery);
            named.is_some_and(|named| named == account)
        };
        let all_own = self
            .cut(delivery.body)
            .is_ok_and(|events| events.iter().all(|event| own(event)));
        if all_own {
            Ok(())
        } else {
            Err(Unproven::OtherAccount)
        }
    }

    /// Reads a delivery that was verified.
    ///
    /// # Errors
    /// It holds no events at all; one event that is not understood harms no other.
    pub fn read(&self, delivery: &Delivery<'_>) -> Result<Received, Unreadable> {
        let mut received = Received::default();
        for event in self.cut(delivery.body)? {
            match self.event.read(event, delivery) {
                Ok(changes) if changes.is_empty() => received.ignored += 1,
                Ok(mut changes) => received.changes.append(&mut changes),
                Err(fault) => {
                    received.unreadable += 1;
                    received.fault.get_or_insert(fault);
                }
            }
        }
        Ok(received)
    }

    /// The text of each event.
    fn cut<'a>(&self, body: &'a [u8]) -> Result<Vec<&'a str>, Unreadable> {
        let text = std::str::from_utf8(body).map_err(|_| Unreadable::Shape)?;
        let Ok(Landing::Value(events)) = self.events.find_any(text) else {
            return Err(Unreadable::Shape);
        };
        if events.starts_with('{') {
            return Ok(vec![events]);
        }
        let events: Vec<&RawValue> = serde_json::from_str(events).map_err(|_| Unreadable::Shape)?;
        if events.len() > EVENTS_MAX {
            return Err(Unreadable::TooMany);
        }
        Ok(events.into_iter().map(RawValue::get).collect())
    }
}

impl Definition {
    /// How the provider notifies; `None` when it does not.
    pub fn webhook(&self) -> Option<&WebhookDefinition> {
        self.inbound().webhook.as_ref()
    }
}

impl<'a> Delivery<'a> {
    /// The header of that name in lower case; of one that is there twice, none: which of the two
    /// was meant cannot be told.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        let mut named = self.headers.iter().filter(|(known, _)| known == name);
        match (named.next(), named.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }
}

impl Source {
    /// A pointer, or `header:NAME`.
    pub(crate) fn parse(text: &str) -> Result<Source, TemplateError> {
        match text.strip_prefix("header:") {
            Some(name) => Ok(Source::Header(super::limit::header_name(name)?)),
            None => Ok(Source::Event(Pointer::parse(text)?)),
        }
    }

    /// The text or number there.
    pub(crate) fn text(&self, event: &str, delivery: &Delivery<'_>) -> Option<String> {
        match self {
            Source::Event(pointer) => match pointer.find_any(event) {
                Ok(Landing::Value(json)) => scalar_text(json),
                _ => None,
            },
            Source::Header(name) => delivery.header(name).map(str::to_owned),
        }
    }
}
