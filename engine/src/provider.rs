//! Providers as data: how an operation becomes a request, and what a reply says about it.
//!
//! A [`Definition`] holds one compiled request template per [`CallKind`]. Sending is the driver's
//! work; in here is only what can be decided from bytes:
//!
//! 1. [`Definition::render`] turns a [`Subject`] (one record and the fields to write) into a
//!    [`Request`], [`Definition::render_batch`] many of one [`BatchGroup`].
//! 2. [`KeySequence`] names the request to the provider: same bytes, same idempotency key.
//! 3. [`Definition::classify`] turns a [`Reply`], [`SendFailure::verdict`] the lack of one, into a
//!    [`Verdict`], [`Definition::classify_batch`] into one per record.
//! 4. [`Definition::observe`] reads what a reply tells of the provider's limits.
//!
//! Changes come back two ways: a [`WebhookDefinition`] believes and reads what a provider sends, a
//! [`PollState`] asks for what changed. Both end in [`Change`]s.

mod api_root;
mod auth;
mod batch;
mod batch_reply;
mod batch_results;
mod body_template;
mod change;
mod classify;
mod definition;
mod error_rule;
mod excerpt;
mod field_style;
mod file;
mod inbound;
mod inbound_blocks;
mod instant;
mod key_sequence;
mod limit;
mod lint;
mod object;
mod operation;
mod path_template;
mod placeholder;
mod pointer;
mod poll;
mod poll_page;
mod poll_state;
mod poll_template;
mod problems;
mod refusal;
mod render_error;
mod reply;
mod request;
mod rest_settings;
mod retry_after;
mod signature;
mod template_error;
mod text_pattern;
mod verdict;
mod webhook;
mod webhook_event;

pub use auth::{AuthDefinition, AuthKind};
pub use batch::{BatchGroup, BatchItem, BatchItemRef};
pub use batch_reply::BatchVerdict;
pub use change::{Change, ChangeKind, DELIVERY_ID_BYTES_MAX};
pub use definition::{Definition, DefinitionError, SCHEMA, shipped, shipped_ids};
pub use error_rule::PauseScope;
pub use excerpt::DETAIL_BYTES_MAX;
pub use field_style::Field;
pub use key_sequence::KeySequence;
pub use limit::{LimitDefinition, LimitKind, LimitReading, LimitScope};
pub use lint::{Finding, lint};
pub use operation::Operation;
pub use poll::Poll;
pub use poll_page::PollFault;
pub use poll_state::{Cursor, Gap, PollState, Progress, Step};
pub use render_error::RenderError;
pub use reply::{
    BodyEnd, NoReply, NotSent, REPLY_HEADER_BYTES_MAX, REPLY_HEADERS_MAX, Reply, ReplyHeaders,
    SendFailure,
};
pub use request::{CallKind, Method, Request, RequestDigest, Subject};
pub use rest_settings::RestSettings;
pub use retry_after::{RETRY_AFTER_MAX, RetryAfter};
pub use signature::Unproven;
pub use template_error::TemplateError;
pub use verdict::{REMOTE_ID_BYTES_MAX, Verdict};
pub use webhook::{Delivery, EVENTS_MAX, Received, Unreadable, WebhookDefinition};
