//! Notifications of changes, on their way to the caller.

/// Notifications that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {}
