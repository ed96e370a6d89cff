//! Nothing of a sender overtakes what was refused before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by all batches of one sender's connection. The first that is not taken closes it, and
/// none behind it is taken any more: the sender comes again from there, and a record's changes
/// stay in their order.
#[derive(Debug, Clone, Default)]
pub struct Barrier(Arc<AtomicBool>);

impl Barrier {
    /// A batch was not taken.
    pub fn close(&self) {
        // Whoever sends the next batch, or looks at it, does so behind this in its own order.
        self.0.store(true, Ordering::Release);
    }

    /// Whether a batch was not taken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
