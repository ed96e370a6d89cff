//! Simulated provider accounts that speak as the providers do and keep their own books.
//!
//! [`Account`] is the model: no socket, clock, thread or unseeded dice, so a simulator drives it
//! in virtual time and two runs of one seed are equal. [`Server`] puts the same model behind
//! HTTP/1.1 for `syncline mock`, the demo and tests.

#![forbid(unsafe_code)]

pub mod account;
pub mod admin;
pub mod duration;
pub mod exchange;
pub mod fault;
pub mod journal;
pub mod limit;
pub mod scenario;
pub mod server;

mod crm;
mod hubspot;
mod oauth;
mod open_writes;
mod outreach;
mod pipedrive;
mod provider;
mod provider_kind;
mod record;
mod rest;
mod salesforce;
mod signature;
mod stamp;
mod target;
mod webhook;

pub use account::{Account, AccountConfig, Arrival, CallId, Violations};
pub use exchange::{Answer, Reply, Request};
pub use fault::FaultSpec;
pub use limit::Limit;
pub use oauth::Credentials;
pub use provider::{Change, Edit};
pub use provider_kind::{ProviderKind, UnknownProvider};
pub use record::{Record, RemoteId};
pub use scenario::Scenario;
pub use server::{Server, ServerConfig, ServerHandle};
pub use webhook::{Delivered, Delivery, DeliveryCounts, DeliveryId};
