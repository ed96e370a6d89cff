//! Providers as data: how an operation becomes a request, and what a reply says about it.
//!
//! A [`Definition`] holds one compiled request template per [`CallKind`]. Sending is the driver's
//! work; in here is only what can be decided from bytes:
//!
//! 1. [`Definition::render`] turns a [`Subject`] (one record and the fields to write) into a [`Request`].
//! 2. [`KeySequence`] names the request to the provider: same bytes, same idempotency key.
//! 3. [`Definition::classify`] turns a [`Reply`], [`SendFailure::verdict`] the lack of one, into a [`Verdict`].

mod body_template;
mod definition;
mod excerpt;
mod key_sequence;
mod path_template;
mod pointer;
mod reply;
mod request;
mod rest_settings;
mod retry_after;
mod verdict;

pub use body_template::Field;
pub use definition::{Definition, DefinitionError, Operation, RenderError, shipped, shipped_ids};
pub use excerpt::DETAIL_BYTES_MAX;
pub use key_sequence::KeySequence;
pub use path_template::TemplateError;
pub use reply::{BodyEnd, NoReply, NotSent, Reply, SendFailure};
pub use request::{CallKind, Method, Request, RequestDigest, Subject};
pub use rest_settings::RestSettings;
pub use retry_after::{RETRY_AFTER_MAX, RetryAfter};
pub use verdict::{REMOTE_ID_BYTES_MAX, Verdict};
