//! Changes that come in from the providers: by their deliveries, and by asking for them.
//!
//! Both ways end at one `InboundSink`, which answers when what it was given is durable. Only then
//! a delivery is acknowledged and a cursor moves, so that a crash in between repeats changes and
//! loses none; what comes twice is known by its delivery id.

mod accounts;
mod cursors;
mod fetcher;
mod objects;
mod poller;
mod polls;
mod pull_sink;
mod sink;
mod webhook_intake;

pub(crate) use accounts::webhook_accounts;
pub(crate) use cursors::CursorFile;
pub(crate) use fetcher::ShardFetcher;
pub(crate) use objects::InboundObjects;
pub(crate) use poller::{FetchFailed, Fetcher, Poller};
pub(crate) use polls::account_polls;
pub(crate) use pull_sink::PullSink;
pub(crate) use sink::{GapNotice, InboundSink, Via};
pub(crate) use webhook_intake::WebhookIntake;
