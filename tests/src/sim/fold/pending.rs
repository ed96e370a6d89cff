//! A record between two calls that belong together.

use engine::id::OperationId;
use engine::record::{Attempt, Progress, Resume};
use engine::state::CallClass;

use crate::sim::marks::{Mark, Marks};

/// What is known of the calls of a record at an account since its last final outcome.
#[derive(Debug, Clone, Default)]
pub(in crate::sim) struct Pending {
    /// What the newest of them carried, oldest first.
    pub(in crate::sim) run: Vec<OperationId>,
    /// What became of it is not known: the next one has to carry the same.
    pub(in crate::sim) frozen: bool,
    /// The log tells of an attempt.
    pub(in crate::sim) attempted: bool,
    /// Attempts that counted.
    pub(in crate::sim) burnt: u16,
    /// A create's outcome was unknown.
    unknown: bool,
    /// Some attempt may have arrived without our knowing.
    pub(super) unclear: bool,
}

impl Pending {
    /// A call of the record ended, and this is what the log says of it.
    pub(super) fn note(&mut self, run: &[OperationId], progress: &Progress, marks: &mut Marks) {
        let unclear =
            |attempt: &Attempt| matches!(attempt.class, CallClass::Transient | CallClass::Unknown);
        self.unclear |= progress.attempts.iter().any(unclear);
        if progress.resume == Resume::LookUp {
            self.unknown = true;
        } else if self.unknown {
            self.unknown = false;
            marks.hit(if progress.resume == Resume::Upsert {
                Mark::UnknownAbsent
            } else {
                Mark::UnknownFound
            });
        }
        let newest = progress.attempts.last().map(|attempt| attempt.class);
        self.frozen = progress.resume.is_in_doubt()
            || match newest {
                Some(CallClass::Transient | CallClass::Unknown) => true,
                // Says nothing of a call before it.
                Some(
                    CallClass::Throttled
                    | CallClass::QuotaExhausted
                    | CallClass::Maintenance
                    | CallClass::Contention
                    | CallClass::Permission
                    | CallClass::Unauthorized
                    | CallClass::Unreachable,
                ) => self.frozen,
                _ => false,
            };
        self.attempted = !progress.attempts.is_empty();
        self.burnt = progress.burnt;
        self.run = run.to_vec();
    }
}
