//! TCP ingest: many events per read, one dispatch per read, acknowledged when durable.
//!
//! A [`Session`] is the whole protocol of one connection and does no I/O: bytes and settled
//! batches go in, bytes come out. A driver moves the bytes; two exist, on tokio and on monoio
//! (io_uring), and behave the same. What becomes of an event is the [`Intake`]'s business.
//! The protocol is specified in `docs/design/ingest-protocol.md`.

mod answer;
mod connection;
mod deadlines;
mod exchange;
pub mod frame;
mod hub;
mod in_flight;
mod intake;
pub(crate) mod line;
mod monoio_driver;
mod numbering;
mod seq_member;
mod server;
mod session;
mod signal;
mod socket;
pub mod tokio_driver;

pub use answer::{AckBody, Answer, ErrorBody, RejectBody, WelcomeBody};
pub use deadlines::TimeLimits;
pub use engine::refusal::{Code, Refusal};
pub use intake::{BatchId, Busy, Greeting, Intake, Producer, SessionId, Settled, Welcome};
pub use server::{Driver, Limits, Server, StopSignal};
pub use session::{Session, SessionLimits};

/// Largest event, as a line or inside a frame (PRODUCT section 6: 1 MiB an event).
pub const EVENT_BYTES_MAX: usize = 1 << 20;
