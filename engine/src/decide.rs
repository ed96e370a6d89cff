//! What to do with an operation: the call it needs now, and what the call's outcome makes of it.
//!
//! Both are pure functions of what the log holds; PRODUCT 4.3 is their table.

use std::time::Duration;

use crate::event::Operation;
use crate::provider::{CallKind, KeySupport, RetryAfter, Verdict};
use crate::record::{Link, Progress, Resume, TargetState};
use crate::retry::{Dice, RetryPolicy};
use crate::state::{CallClass, Reason, State};

/// What an operation needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A call of this kind. `beneath` asks for the undelivered fields under the event's own.
    Call {
        /// What to call.
        kind: CallKind,
        /// Whether undelivered fields of earlier operations lie beneath.
        beneath: bool,
    },
    /// No call: it ends like this.
    End(State, Option<Reason>),
}

/// The next step of `operation`, whose event System A dates `changed_at_ms`, at a provider that
/// offers `keys`.
#[must_use]
pub fn step(
    operation: Operation,
    changed_at_ms: i64,
    target: Option<&TargetState>,
    resume: Resume,
    keys: KeySupport,
) -> Step {
    let unlinked = Link::Unlinked;
    let link = target.map_or(&unlinked, |target| &target.link);
    if let Link::Deleted {
        changed_at_ms: deleted_at_ms,
    } = link
        && matches!(
            operation,
            Operation::Create | Operation::Update | Operation::Upsert
        )
        && changed_at_ms < *deleted_at_ms
    {
        return Step::End(State::Superseded, Some(Reason::OlderThanDelete));
    }
    let call = |kind| Step::Call {
        kind,
        beneath: false,
    };
    let undecided = Step::End(State::Failed, Some(Reason::NeedsDecision));
    if asks_for_match(operation, link, resume, keys) {
        return call(CallKind::Match);
    }
    match resume {
        Resume::LookUp | Resume::LookUpDuplicate if keys.look_up => return call(CallKind::Lookup),
        Resume::LookUp | Resume::Upsert if keys.upsert => {
            return making(CallKind::Upsert, operation);
        }
        Resume::LookUp | Resume::LookUpDuplicate => return undecided,
        Resume::Upsert | Resume::Create if link.remote_id().is_none() => {
            return making(CallKind::Create, operation);
        }
        Resume::Update | Resume::Adopt if link.remote_id().is_some() => {
            return call(CallKind::Update);
        }
        Resume::Upsert
        | Resume::Create
        | Resume::Update
        | Resume::Adopt
        | Resume::Normal
        | Resume::Match(_) => {}
    }
    match (operation, link) {
        // Its key is taken, by what is marked as deleted.
        (Operation::Create, Link::Deleted { .. }) if keys.marks_deletes && keys.upsert => {
            making(CallKind::Upsert, operation)
        }
        (Operation::Create | Operation::Upsert, Link::Deleted { .. })
            if keys.marks_deletes && keys.look_up && !keys.upsert =>
        {
            call(CallKind::Lookup)
        }
        (Operation::Create, Link::Unlinked | Link::Deleted { .. }) => call(CallKind::Create),
        (Operation::Create | Operation::Update, Link::Linked(_)) => call(CallKind::Update),
        (Operation::Update, Link::Deleted { .. })
        | (Operation::Create | Operation::Update | Operation::Upsert, Link::MergedInto(_)) => {
            Step::End(State::Failed, Some(Reason::RecordDeleted))
        }
        (Operation::Delete, Link::MergedInto(_)) => Step::End(State::Synced, Some(Reason::Absent)),
        (Operation::Pull, Link::MergedInto(_)) => Step::End(State::Synced, Some(Reason::Unchanged)),
        (Operation::Upsert, _) | (Operation::Update, Link::Unlinked | Link::Doubtful)
            if keys.upsert =>
        {
            making(CallKind::Upsert, operation)
        }
        (Operation::Upsert, Link::Linked(_)) => call(CallKind::Update),
        (Operation::Create, Link::Doubtful) if keys.unique => making(CallKind::Upsert, operation),
        // Somebody else may have made it under this key.
        (Operation::Update | Operation::Upsert, _) | (Operation::Create, Link::Doubtful)
            if keys.look_up =>
        {
            call(CallKind::Lookup)
        }
        (Operation::Create, Link::Doubtful) if keys.upsert => making(CallKind::Upsert, operation),
        (Operation::Create | Operation::Update | Operation::Upsert, Link::Doubtful) => undecided,
        (Operation::Update | Operation::Upsert, Link::Unlinked | Link::Deleted { .. }) => {
            making(CallKind::Create, operation)
        }
        (Operation::Delete | Operation::Read, Link::Unlinked | Link::Doubtful) if keys.look_up => {
            call(CallKind::Lookup)
        }
        (Operation::Delete, Link::Doubtful) => undecided,
        (Operation::Delete, Link::Unlinked)
        | (Operation::Read, Link::Unlinked | Link::Doubtful) => {
            Step::End(State::Failed, Some(Reason::NotFound))
        }
        (Operation::Delete, Link::Linked(_)) if keys.marks_deletes => call(CallKind::Update),
        (Operation::Delete, Link::Linked(_)) => call(CallKind::Delete),
        (Operation::Delete, Link::Deleted { .. }) => Step::End(State::Synced, None),
        (Operation::Read | Operation::Pull, Link::Linked(_)) => call(CallKind::Read),
        // A create of ours may have made the record that is told of.
        (Operation::Pull, Link::Doubtful) if keys.look_up => call(CallKind::Lookup),
        (Operation::Pull, Link::Unlinked | Link::Doubtful) => {
            Step::End(State::Synced, Some(Reason::Absent))
        }
        (Operation::Pull, Link::Deleted { .. }) => {
            Step::End(State::Superseded, Some(Reason::RecordDeleted))
        }
        (Operation::Read, Link::Deleted { .. } | Link::MergedInto(_)) => {
            Step::End(State::Failed, Some(Reason::NotFound))
        }
    }
}

/// Whether the account's id that comes with an operation is that of its record. An account may tell
/// of what the record was there before, while a create is in doubt: which one that has made, a look-up
/// says.
#[must_use]
pub fn tells_the_id(operation: Operation, link: &Link, keys: KeySupport) -> bool {
    !(operation == Operation::Pull && *link == Link::Doubtful && keys.look_up)
}

/// Whether a record is about to be made that may be there already, made by somebody else: not all of
/// its match keys were asked for.
fn asks_for_match(operation: Operation, link: &Link, resume: Resume, keys: KeySupport) -> bool {
    let makes = matches!(
        (operation, link),
        (
            Operation::Create | Operation::Upsert,
            Link::Unlinked | Link::Deleted { .. }
        ) | (Operation::Update, Link::Unlinked)
    );
    makes
        && resume
            .matched()
            .is_some_and(|asked| asked < keys.match_keys)
}

/// A call that may make the record: an UPDATE brings the fields that others left undelivered.
fn making(kind: CallKind, operation: Operation) -> Step {
    Step::Call {
        kind,
        beneath: operation == Operation::Update,
    }
}

/// The circumstances of an outcome.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// The operation.
    pub operation: Operation,
    /// When System A changed the record, ms since the epoch.
    pub changed_at_ms: i64,
    /// The call that was made.
    pub kind: CallKind,
    /// What came of it.
    pub verdict: &'a Verdict,
    /// The wall clock, ms since the epoch.
    pub now_ms: i64,
    /// How the account's operations are retried.
    pub retry: &'a RetryPolicy,
    /// How long after an unknown outcome "absent" is believed.
    pub settle: Duration,
    /// What the provider offers to find and make the record by its key.
    pub keys: KeySupport,
    /// The call was the account's probe, which burns no attempt.
    pub probe: bool,
    /// The operation was taken before the last restart: a call of it may have been under way
    /// then, and the log tells that of creates only.
    pub from_before: bool,
}

impl Outcome<'_> {
    /// Whether the call takes the record away, or marks it as deleted.
    fn deletes(&self) -> bool {
        let marks = self.kind == CallKind::Update && self.operation == Operation::Delete;
        marks || self.kind == CallKind::Delete
    }
}

/// Brings a record's link and an operation's progress up to date with an outcome.
///
/// On return `progress.state` is final, or one of `Queued` (go on at once), `Retrying` and
/// `Unknown` (go on at `due_ms`).
pub fn conclude(outcome: &Outcome<'_>, link: &mut Link, progress: &mut Progress, dice: &mut Dice) {
    progress.updated_at_ms = outcome.now_ms;
    progress.due_ms = 0;
    progress.reason = None;
    if progress.first_attempt_ms == 0 {
        progress.first_attempt_ms = outcome.now_ms;
    }
    if leaves_doubt(outcome, progress) && link.remote_id().is_none() {
        *link = Link::Doubtful;
    }
    match outcome.verdict {
        Verdict::Done { remote_id, .. } => done(outcome, remote_id.as_deref(), link, progress),
        Verdict::Found { remote_id } => found(outcome, remote_id, link, progress),
        Verdict::Absent => absent(outcome, link, progress),
        Verdict::Throttled { .. }
        | Verdict::QuotaExhausted { .. }
        | Verdict::Maintenance { .. }
        | Verdict::Permission { .. }
        | Verdict::Unauthorized { .. }
        | Verdict::Unreachable { .. } => go_on(progress, 0),
        Verdict::Contention { retry_after, .. } => {
            burn(outcome, progress, dice, State::Retrying);
            if let RetryAfter::Wait(wait) = retry_after
                && !progress.state.is_final()
            {
                progress.due_ms = outcome.now_ms.saturating_add(wait.as_millis() as i64);
            }
        }
        // Nobody can be asked whether it was made after all.
        Verdict::Transient { .. } if outcome.kind == CallKind::Create && !outcome.keys.look_up => {
            unknown(outcome, progress, dice);
        }
        Verdict::Transient { .. } => burn(outcome, progress, dice, State::Retrying),
        Verdict::Unknown { .. } => unknown(outcome, progress, dice),
        Verdict::Gone { .. } => gone(outcome, link, progress),
        Verdict::Duplicate { remote_id, .. } => {
            duplicate(outcome, remote_id.as_deref(), link, progress, dice);
        }
        Verdict::Conflict { .. } => end(progress, State::Failed, Reason::Conflict),
        Verdict::Ambiguous { .. } if outcome.kind == CallKind::Match => {
            end(progress, State::Failed, Reason::MatchAmbiguous);
        }
        Verdict::Ambiguous { .. } => end(progress, State::Failed, Reason::NeedsDecision),
        Verdict::Permanent { .. } => end(progress, State::Failed, Reason::Permanent),
    }
}

/// Whether the record may have come into being without our knowing. Should the operation end
/// without an answer to that, the next one of the record must not create it blindly.
fn leaves_doubt(outcome: &Outcome<'_>, progress: &Progress) -> bool {
    let unclear = matches!(
        outcome.verdict,
        Verdict::Transient { .. } | Verdict::Unknown { .. }
    );
    let creates = matches!(outcome.kind, CallKind::Create | CallKind::Upsert);
    let refused = !matches!(outcome.verdict, Verdict::Done { .. });
    // Without an upsert every call that makes a record has its intent in the log.
    let untold = outcome.from_before && refused && outcome.keys.upsert;
    (creates && (unclear || untold)) || progress.resume == Resume::LookUp
}

fn done(outcome: &Outcome<'_>, remote_id: Option<&str>, link: &mut Link, progress: &mut Progress) {
    match outcome.kind {
        CallKind::Create | CallKind::Upsert => {
            if let Some(id) = remote_id {
                *link = Link::Linked(id.to_owned());
            }
        }
        _ if outcome.deletes() => {
            *link = Link::Deleted {
                changed_at_ms: outcome.changed_at_ms,
            }
        }
        CallKind::Delete
        | CallKind::Update
        | CallKind::Read
        | CallKind::Lookup
        | CallKind::Match => {}
    }
    progress.state = State::Synced;
    progress.unknown_since_ms = 0;
    let was_linked = outcome.operation == Operation::Create && outcome.kind == CallKind::Update;
    progress.reason = was_linked.then_some(Reason::AlreadyLinked);
}

fn found(outcome: &Outcome<'_>, remote_id: &str, link: &mut Link, progress: &mut Progress) {
    debug_assert!(outcome.kind.finds());
    *link = Link::Linked(remote_id.to_owned());
    progress.resume = match progress.resume {
        _ if outcome.kind == CallKind::Match => Resume::Adopt,
        // By its id: the key was what the target would not take twice.
        Resume::LookUpDuplicate => Resume::Update,
        // It may be marked as deleted: a write that says so takes the mark away.
        _ if outcome.keys.marks_deletes && outcome.operation.writes_fields() => Resume::Update,
        _ => Resume::Normal,
    };
    progress.unknown_since_ms = 0;
    go_on(progress, 0);
}

/// The target has such a record. It is linked and updated once it is known which one that is.
fn duplicate(
    outcome: &Outcome<'_>,
    remote_id: Option<&str>,
    link: &mut Link,
    progress: &mut Progress,
    dice: &mut Dice,
) {
    let makes = matches!(outcome.kind, CallKind::Create | CallKind::Upsert);
    match remote_id.filter(|_| makes && link.remote_id().is_none()) {
        Some(remote_id) => {
            *link = Link::Linked(remote_id.to_owned());
            progress.resume = Resume::Update;
            progress.unknown_since_ms = 0;
            burn(outcome, progress, dice, State::Queued);
        }
        // It was asked already, or cannot be: what is shared with another record is not the key.
        None if matches!(
            progress.resume,
            Resume::LookUpDuplicate | Resume::Update | Resume::Adopt
        ) || !outcome.keys.look_up =>
        {
            end(progress, State::Failed, Reason::Duplicate);
        }
        None => {
            progress.resume = Resume::LookUpDuplicate;
            burn(outcome, progress, dice, State::Queued);
        }
    }
}

fn absent(outcome: &Outcome<'_>, link: &mut Link, progress: &mut Progress) {
    match (progress.resume, outcome.operation) {
        (resume, _) if outcome.kind == CallKind::Match => {
            progress.resume = resume.next_match();
            go_on(progress, 0);
        }
        (Resume::LookUpDuplicate, _) => end(progress, State::Failed, Reason::Duplicate),
        (
            Resume::LookUp,
            Operation::Create | Operation::Update | Operation::Upsert | Operation::Delete,
        ) => {
            let believed_at_ms = progress
                .unknown_since_ms
                .saturating_add(outcome.settle.as_millis() as i64);
            if outcome.now_ms < believed_at_ms {
                // Read-after-write may lag at the provider, so one "absent" before the record
                // had time to settle proves nothing.
                progress.state = State::Unknown;
                progress.due_ms = believed_at_ms;
            } else if outcome.operation == Operation::Delete {
                deleted_already(outcome, link, progress);
            } else {
                make_after_all(outcome, progress);
            }
        }
        (_, Operation::Read) => end(progress, State::Failed, Reason::NotFound),
        (_, Operation::Pull) => end(progress, State::Synced, Reason::Absent),
        (Resume::Normal | Resume::Match(_), _) if *link == Link::Doubtful => {
            progress.resume = Resume::LookUp;
            progress.unknown_since_ms = outcome.now_ms;
            progress.state = State::Unknown;
            progress.due_ms = outcome
                .now_ms
                .saturating_add(outcome.settle.as_millis() as i64);
        }
        (_, Operation::Delete) => deleted_already(outcome, link, progress),
        (
            Resume::Normal
            | Resume::Match(_)
            | Resume::Upsert
            | Resume::Create
            | Resume::Update
            | Resume::Adopt,
            Operation::Create | Operation::Update | Operation::Upsert,
        ) => {
            if !outcome.keys.upsert {
                progress.resume = Resume::Create;
            }
            go_on(progress, 0);
        }
    }
}

/// The call in doubt made nothing: it is made again, by key where the provider can.
fn make_after_all(outcome: &Outcome<'_>, progress: &mut Progress) {
    let spent = outcome
        .retry
        .is_spent(progress.burnt, progress.first_attempt_ms, outcome.now_ms);
    if outcome.keys.upsert {
        progress.resume = Resume::Upsert;
        go_on(progress, 0);
    } else if spent {
        end(progress, State::Failed, Reason::NeedsDecision);
    } else {
        progress.resume = Resume::Create;
        go_on(progress, 0);
    }
}

fn deleted_already(outcome: &Outcome<'_>, link: &mut Link, progress: &mut Progress) {
    *link = Link::Deleted {
        changed_at_ms: outcome.changed_at_ms,
    };
    end(progress, State::Synced, Reason::Absent);
}

fn unknown(outcome: &Outcome<'_>, progress: &mut Progress, dice: &mut Dice) {
    if outcome.kind != CallKind::Create {
        // Everything but a create is keyed: sending it again converges.
        return burn(outcome, progress, dice, State::Retrying);
    }
    progress.unknown_since_ms = outcome.now_ms;
    if outcome.keys.unique {
        progress.resume = Resume::Upsert;
        burn(outcome, progress, dice, State::Retrying);
    } else if outcome.keys.look_up {
        progress.resume = Resume::LookUp;
        progress.burnt = progress.burnt.saturating_add(u16::from(!outcome.probe));
        progress.state = State::Unknown;
    } else if outcome.keys.upsert {
        progress.resume = Resume::Upsert;
        burn(outcome, progress, dice, State::Retrying);
    } else if outcome.keys.keyed_create {
        // The same request under the same key.
        progress.resume = Resume::Create;
        burn(outcome, progress, dice, State::Retrying);
    } else {
        end(progress, State::Failed, Reason::NeedsDecision);
    }
}

fn gone(outcome: &Outcome<'_>, link: &mut Link, progress: &mut Progress) {
    match outcome.kind {
        _ if outcome.deletes() => done(outcome, None, link, progress),
        CallKind::Upsert | CallKind::Update
            // A search may still find what is gone.
            if (outcome.operation == Operation::Upsert || progress.resume == Resume::Adopt)
                && link.remote_id().is_some()
                && !matches!(progress.resume, Resume::Upsert | Resume::Create) =>
        {
            // Once: a target that calls the upsert itself gone would be asked for ever.
            *link = Link::Unlinked;
            progress.resume = match outcome.keys.upsert {
                true => Resume::Upsert,
                false => Resume::Create,
            };
            go_on(progress, 0);
        }
        CallKind::Read if outcome.operation == Operation::Pull => {
            end(progress, State::Synced, Reason::Gone);
        }
        CallKind::Read => end(progress, State::Failed, Reason::NotFound),
        CallKind::Create
        | CallKind::Upsert
        | CallKind::Update
        | CallKind::Delete
        | CallKind::Lookup
        | CallKind::Match => {
            end(progress, State::Failed, Reason::Gone);
        }
    }
}

/// Counts the attempt, and either gives up or goes on: at once when the next call is another
/// one (`Queued`), else after a backoff.
fn burn(outcome: &Outcome<'_>, progress: &mut Progress, dice: &mut Dice, next: State) {
    progress.burnt = progress.burnt.saturating_add(u16::from(!outcome.probe));
    if outcome
        .retry
        .is_spent(progress.burnt, progress.first_attempt_ms, outcome.now_ms)
    {
        let undecided = progress.unknown_since_ms > 0;
        end(
            progress,
            State::Failed,
            if undecided {
                Reason::NeedsDecision
            } else {
                Reason::AttemptsExhausted
            },
        );
        return;
    }
    progress.state = next;
    if next == State::Retrying {
        let delay = outcome.retry.delay(progress.burnt, dice);
        progress.due_ms = outcome.now_ms.saturating_add(delay.as_millis() as i64);
        progress.reason = Some(Reason::Backoff);
    }
}

fn go_on(progress: &mut Progress, due_ms: i64) {
    progress.state = if progress.unknown_since_ms > 0 {
        State::Unknown
    } else {
        State::Queued
    };
    progress.due_ms = due_ms;
}

fn end(progress: &mut Progress, state: State, reason: Reason) {
    debug_assert!(state.is_final());
    progress.state = state;
    progress.reason = Some(reason);
}

/// The class a verdict counts under.
#[must_use]
pub fn class_of(verdict: &Verdict) -> CallClass {
    match verdict {
        Verdict::Done { .. } | Verdict::Found { .. } => CallClass::Done,
        Verdict::Absent => CallClass::Absent,
        Verdict::Throttled { .. } => CallClass::Throttled,
        Verdict::Transient { .. } => CallClass::Transient,
        Verdict::Unknown { .. } => CallClass::Unknown,
        Verdict::Unauthorized { .. } => CallClass::Unauthorized,
        Verdict::Gone { .. } => CallClass::Gone,
        Verdict::Duplicate { .. } => CallClass::Duplicate,
        Verdict::Conflict { .. } => CallClass::Conflict,
        Verdict::Permanent { .. } => CallClass::Permanent,
        Verdict::Unreachable { .. } => CallClass::Unreachable,
        Verdict::QuotaExhausted { .. } => CallClass::QuotaExhausted,
        Verdict::Maintenance { .. } => CallClass::Maintenance,
        Verdict::Contention { .. } => CallClass::Contention,
        Verdict::Permission { .. } => CallClass::Permission,
        Verdict::Ambiguous { .. } => CallClass::Ambiguous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::OperationSeq;

    fn absent_at(now_ms: i64, link: &mut Link, progress: &mut Progress) -> State {
        let outcome = Outcome {
            operation: Operation::Delete,
            changed_at_ms: 7,
            kind: CallKind::Lookup,
            verdict: &Verdict::Absent,
            now_ms,
            retry: &RetryPolicy::default(),
            settle: Duration::from_secs(5),
            keys: KeySupport::FULL,
            probe: false,
            from_before: false,
        };
        conclude(&outcome, link, progress, &mut Dice::seeded(1));
        progress.state
    }

    #[test]
    fn a_delete_in_doubt_believes_that_the_record_is_absent_once_it_had_time_to_settle() {
        let mut link = Link::Doubtful;
        let mut progress = Progress::new(OperationSeq(1), Operation::Delete as u8, 8);
        for now_ms in [1_000, 5_999] {
            let state = absent_at(now_ms, &mut link, &mut progress);
            assert_eq!((state, progress.due_ms), (State::Unknown, 6_000));
            assert_eq!(link, Link::Doubtful);
        }
        assert_eq!(absent_at(6_000, &mut link, &mut progress), State::Synced);
        assert_eq!(link, Link::Deleted { changed_at_ms: 7 });
    }

    #[test]
    fn what_a_search_found_and_is_gone_is_made() {
        let mut link = Link::Linked("r-1".to_owned());
        let mut progress = Progress::new(OperationSeq(1), Operation::Create as u8, 8);
        progress.resume = Resume::Adopt;
        let outcome = Outcome {
            operation: Operation::Create,
            changed_at_ms: 7,
            kind: CallKind::Update,
            verdict: &Verdict::Gone {
                detail: String::new(),
            },
            now_ms: 9,
            retry: &RetryPolicy::default(),
            settle: Duration::from_secs(5),
            keys: KeySupport::FULL,
            probe: false,
            from_before: false,
        };
        conclude(&outcome, &mut link, &mut progress, &mut Dice::seeded(1));
        assert_eq!((link, progress.state), (Link::Unlinked, State::Queued));
        assert_eq!(progress.resume, Resume::Upsert);
    }

    #[test]
    fn a_delete_of_what_was_never_sent_ends_with_the_first_look_up() {
        let mut link = Link::Unlinked;
        let mut progress = Progress::new(OperationSeq(1), Operation::Delete as u8, 8);
        assert_eq!(absent_at(1_000, &mut link, &mut progress), State::Synced);
        assert_eq!(progress.reason, Some(Reason::Absent));
    }
}
