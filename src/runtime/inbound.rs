//! Changes that come in from the providers: by their deliveries, and by asking for them.
//!
//! Both ways end at one `InboundSink`, which answers when what it was given is durable. Only then
//! a delivery is acknowledged and a cursor moves, so that a crash in between repeats changes and
//! loses none; what comes twice is known by its delivery id.

mod accounts;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "no shard makes calls for changes yet")
)]
mod cursors;
mod objects;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "no shard makes calls for changes yet")
)]
mod poller;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "no shard makes calls for changes yet")
)]
mod polls;
mod pull_sink;
mod sink;
mod webhook_intake;

pub(crate) use accounts::webhook_accounts;
pub(crate) use objects::InboundObjects;
pub(crate) use pull_sink::PullSink;
pub(crate) use webhook_intake::WebhookIntake;
